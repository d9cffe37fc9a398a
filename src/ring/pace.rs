//! Whether it is worth waiting a moment for more completions.
//!
//! Each pass of a shard costs the same whether it serves one session or thirty, and a kernel that hands over one
//! completion at a time is in the way of the peer that sends the next. So under load the kernel gathers for a moment.
//! It is no more than a moment beside the time that a reply needs to any peer, and none at all where completions are
//! rare: then nobody waits.

use std::time::{Duration, Instant};

/// How long completions are gathered at most.
pub(super) const GATHER: Duration = Duration::from_micros(50);

/// The most that are waited for: what comes beyond finds the next pass.
pub(super) const ENOUGH_MAX: usize = 32;

/// For how long completions are counted before the pace is judged.
const WINDOW: Duration = Duration::from_millis(1);

/// Completions a window from which gathering begins: two more would come in the time.
const BEGIN: u32 = 40;

/// Completions a window down to which it goes on. They come more slowly then, since their peers wait too.
const GO_ON: u32 = 20;

/// The pace of completions.
pub(super) struct Pace {
    since: Instant,
    completions: u32,
    gathers: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            since: now,
            completions: 0,
            gathers: false,
        }
    }

    /// Notes the completions of a pass.
    pub(super) fn passed(&mut self, completions: u32, now: Instant) {
        self.completions = self.completions.saturating_add(completions);
        let window = now.saturating_duration_since(self.since);
        if window >= WINDOW {
            let wanted = if self.gathers { GO_ON } else { BEGIN };
            self.gathers = WINDOW.saturating_mul(self.completions) >= window.saturating_mul(wanted);
            self.since = now;
            self.completions = 0;
        }
    }

    /// Whether the next pass should wait for more.
    pub(super) fn gathers(&self) -> bool {
        self.gathers
    }

    /// How many are enough for a pass when `awaited` may come. Not all of them: while the peers of one half write, we
    /// serve the other, and neither side stands still.
    pub(super) fn enough(awaited: usize) -> usize {
        (awaited / 2).clamp(1, ENOUGH_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes with so many completions each, so far apart, for two windows.
    fn run(pace: &mut Pace, now: &mut Instant, completions: u32, apart: Duration) {
        let end = *now + 2 * WINDOW;
        while *now < end {
            *now += apart;
            pace.passed(completions, *now);
        }
    }

    #[test]
    fn it_gathers_under_load_and_until_that_is_over() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for (completions, apart, gathers) in [
            (1, 100, false),
            (1, 26, false),
            (1, 24, true),
            // What gathering itself does to the pace does not end it.
            (3, 60, true),
            (1, 49, true),
            (1, 51, false),
            (1, 26, false),
            (30, 200, true),
            // Nothing for a second.
            (0, 1_000_000, false),
        ] {
            run(
                &mut pace,
                &mut now,
                completions,
                Duration::from_micros(apart),
            );
            assert_eq!(pace.gathers(), gathers, "{completions} every {apart} µs");
        }
    }

    #[test]
    fn one_that_is_alone_waits_for_nobody() {
        for (awaited, enough) in [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (64, 32), (9000, 32)] {
            assert_eq!(Pace::enough(awaited), enough, "of {awaited}");
        }
    }
}
