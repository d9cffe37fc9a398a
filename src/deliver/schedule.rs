//! When a message that could not be delivered is tried again.

use std::time::Duration;

/// The times between attempts, of `--retry-schedule`; the last one goes on for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    waits: Vec<Duration>,
    last: Duration,
}

impl RetrySchedule {
    /// `None` without a single time.
    pub fn new(waits: Vec<Duration>) -> Option<RetrySchedule> {
        let last = *waits.last()?;
        Some(RetrySchedule { waits, last })
    }

    /// The times as told; never without one.
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// How long a message waits behind its `attempts`-th failed attempt.
    ///
    /// Up to a tenth later than it says, by `seed`, which is the message's number or another of the like: what
    /// failed together is not to come back together.
    pub fn wait(&self, attempts: u32, seed: u64) -> Duration {
        let index = usize::try_from(attempts)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let wait = self.waits.get(index).copied().unwrap_or(self.last);
        jittered(wait, seed ^ u64::from(attempts))
    }
}

/// Up to a tenth longer: much the same for no two seeds.
pub(super) fn jittered(wait: Duration, seed: u64) -> Duration {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let upper = u32::try_from(mixed >> 32).unwrap_or(0);
    wait + wait.mul_f64(f64::from(upper) / f64::from(u32::MAX) / 10.0)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::spool::QueueIds;

    #[test]
    fn the_last_time_goes_on_and_nothing_comes_early() {
        let seconds = |seconds| Duration::from_secs(seconds);
        let schedule = RetrySchedule::new(vec![seconds(60), seconds(600)]).unwrap();
        assert_eq!(RetrySchedule::new(Vec::new()), None);
        let ids = QueueIds::new(0);
        let mut waits = std::collections::HashSet::new();
        for _ in 0..100 {
            let id = ids.next(SystemTime::now());
            for (attempts, expected) in [(0, 60), (1, 60), (2, 600), (3, 600), (u32::MAX, 600)] {
                let wait = schedule.wait(attempts, id.number());
                let range = seconds(expected)..=seconds(expected).mul_f64(1.1);
                assert!(range.contains(&wait), "{attempts}: {wait:?}");
                waits.insert(wait);
            }
        }
        assert!(waits.len() > 300, "{} different waits", waits.len());
    }
}
