//! What came to its end when: counts in steps of a tenth of a second.
//!
//! Invariant: the sum of the steps is what was counted in all, but for what came to its end behind a round that
//! another one follows.

use std::time::Duration;

use serde::Serialize;

/// Counts by time since the start.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Vec<Step>);

/// What came to its end in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    messages: u64,
    sessions: u64,
    slowest: Duration,
}

/// A point of a timeline, made of as many steps as it takes to keep the whole short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Its end, in seconds since the start.
    pub until_seconds: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// Sessions a second.
    pub sessions_per_second: f64,
    /// The longest time of a message that ended in it, in microseconds.
    pub slowest_us: f64,
}

impl Timeline {
    /// A message got its final reply.
    pub fn message(&mut self, since_start: Duration, took: Duration) {
        if let Some(step) = self.step(since_start) {
            step.messages += 1;
            step.slowest = step.slowest.max(took);
        }
    }

    /// A session ended.
    pub fn session(&mut self, since_start: Duration) {
        if let Some(step) = self.step(since_start) {
            step.sessions += 1;
        }
    }

    /// Adds what another thread counted since the same start.
    pub fn add(&mut self, other: &Timeline) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), Step::default());
        }
        for (own, others) in self.0.iter_mut().zip(&other.0) {
            own.add(others);
        }
    }

    /// Adds what was counted afterwards, in a round that began `seconds` after this start.
    ///
    /// To the nearest step: a round that was read a moment too early has its last one all the same.
    pub fn then(&mut self, later: &Timeline, seconds: f64) {
        let length = Duration::from_secs_f64(seconds.max(0.0)) + STEP / 2;
        let step = usize::try_from(length.as_nanos() / STEP.as_nanos());
        self.0
            .resize(step.unwrap_or(STEPS_MAX).min(STEPS_MAX), Step::default());
        self.0.extend_from_slice(&later.0);
        self.0.truncate(STEPS_MAX);
    }

    /// As points, at most [`MOMENTS_MAX`]. Of the last step only what was measured of it counts.
    pub fn moments(&self, seconds: f64) -> Vec<Moment> {
        let steps_each = self.0.len().div_ceil(MOMENTS_MAX).max(1);
        let mut moments = Vec::new();
        let mut from = 0.0;
        for steps in self.0.chunks(steps_each) {
            let mut sum = Step::default();
            steps.iter().for_each(|step| sum.add(step));
            #[expect(clippy::cast_precision_loss, reason = "at most a few hundred")]
            let until = (from + steps.len() as f64 * STEP.as_secs_f64()).min(seconds.max(from));
            let length = until - from;
            // A rate of so short a time would be a peak or a gap by chance.
            if length < STEP.as_secs_f64() / 2.0 {
                break;
            }
            #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
            moments.push(Moment {
                until_seconds: until,
                messages_per_second: sum.messages as f64 / length,
                sessions_per_second: sum.sessions as f64 / length,
                slowest_us: sum.slowest.as_secs_f64() * 1e6,
            });
            from = until;
        }
        moments
    }

    fn step(&mut self, since_start: Duration) -> Option<&mut Step> {
        let index = usize::try_from(since_start.as_nanos() / STEP.as_nanos()).ok()?;
        if index >= STEPS_MAX {
            return None;
        }
        if index >= self.0.len() {
            self.0.resize(index + 1, Step::default());
        }
        self.0.get_mut(index)
    }
}

impl Step {
    fn add(&mut self, other: &Step) {
        self.messages += other.messages;
        self.sessions += other.sessions;
        self.slowest = self.slowest.max(other.slowest);
    }
}

const STEP: Duration = Duration::from_millis(100);

/// A day.
const STEPS_MAX: usize = 864_000;

/// Points of a plot; more would be drawn over each other.
const MOMENTS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_rates() {
        let mut one = Timeline::default();
        let mut other = Timeline::default();
        for n in 0..1000_u64 {
            let timeline = if n % 2 == 0 { &mut one } else { &mut other };
            timeline.message(Duration::from_millis(n), Duration::from_micros(n));
        }
        other.session(Duration::from_millis(950));
        one.add(&other);
        let moments = one.moments(1.0);
        assert_eq!(moments.len(), 10);
        for moment in &moments {
            assert!(
                (moment.messages_per_second - 1000.0).abs() < 1e-6,
                "{moment:?}"
            );
        }
        assert!((moments[9].sessions_per_second - 10.0).abs() < 1e-6);
        assert!((moments[9].slowest_us - 999.0).abs() < 1e-6);
    }

    #[test]
    fn rounds_follow_each_other() {
        let mut round = Timeline::default();
        for n in 0..1050_u64 {
            round.message(Duration::from_millis(n), Duration::from_millis(1));
        }
        // The clock that ends a round is not the one that begins it.
        for seconds in [0.998, 1.0, 1.002] {
            let mut rounds = round.clone();
            rounds.then(&round, seconds);
            let moments = rounds.moments(2.0);
            assert_eq!(moments.len(), 20, "{seconds}");
            for moment in &moments {
                assert!(
                    (moment.messages_per_second - 1000.0).abs() < 1e-6,
                    "{seconds}: {moment:?}"
                );
            }
        }
    }

    #[test]
    fn a_long_run_stays_short() {
        let mut timeline = Timeline::default();
        for second in 0..3600 {
            timeline.message(Duration::from_secs(second), Duration::from_millis(1));
        }
        let moments = timeline.moments(3600.0);
        assert!(moments.len() <= MOMENTS_MAX, "{}", moments.len());
        let mut from = 0.0;
        let mut messages = 0.0;
        for moment in &moments {
            messages += moment.messages_per_second * (moment.until_seconds - from);
            from = moment.until_seconds;
        }
        assert!((messages - 3600.0).abs() < 1e-3, "{messages}");
    }
}
