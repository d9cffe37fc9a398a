//! The live line on a terminal; nothing in a pipe.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measure::Seen;
use crate::observe::{Onlooker, Phase};
use crate::plan::{Extent, Plan};

/// The line. It is gone when this is.
pub(super) struct Progress {
    bar: ProgressBar,
    extent: Extent,
    warmup: Duration,
    last: Option<(Instant, Seen)>,
    /// What was counted when the warm-up ended.
    began_with: Option<Seen>,
}

impl Progress {
    /// For one run, on standard error: the report on standard output stays whole.
    pub(super) fn new(plan: &Plan, name: &str) -> Progress {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let length = match plan.extent {
            Extent::Duration(duration) => milliseconds(duration),
            Extent::Messages(messages) => messages,
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Progress {
            bar,
            extent: plan.extent,
            warmup: plan.warmup,
            last: None,
            began_with: None,
        }
    }
}

impl Onlooker for Progress {
    fn look(&mut self, phase: Phase, seen: Seen) {
        let now = Instant::now();
        let (at, before) = *self.last.get_or_insert((now, seen));
        let passed = (now - at).as_secs_f64();
        let rate =
            |now: u64, before: u64| crate::observe::per(now.saturating_sub(before), passed).round();
        let doing = match phase {
            Phase::WarmUp => format!("warming up for {:?}", self.warmup),
            Phase::Opening => "opening".to_owned(),
            Phase::Measuring(_) => format!(
                "{} messages/s, {} sessions/s",
                rate(seen.messages, before.messages),
                rate(seen.sessions, before.sessions)
            ),
            Phase::Ending => "ending".to_owned(),
        };
        let failed = match seen.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.bar
            .set_message(format!("{doing}, {} open{failed}", seen.open));
        if let Phase::Measuring(passed) = phase {
            let began_with = *self.began_with.get_or_insert(seen);
            self.bar.set_position(match self.extent {
                Extent::Duration(_) => milliseconds(passed),
                Extent::Messages(_) => seen.messages.saturating_sub(began_with.messages),
            });
        }
        if passed >= RATE_OVER.as_secs_f64() {
            self.last = Some((now, seen));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Rates are those of so much time: less would flicker.
const RATE_OVER: Duration = Duration::from_millis(500);
