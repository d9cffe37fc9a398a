//! Reads how busy the whole machine was, so that a report can tell that others were running.
//!
//! Its times come from `/proc/stat`, which most kernels count by looking at each tick at who is running. That is right
//! in the mean and wrong for programs that wake and sleep in step with the tick; a few hundredths prove nothing.

use std::fs;
use std::io;
use std::time::Duration;

use super::stat::of_ticks;

/// The time of all cores since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTimes {
    /// In programs, the kernel and interrupts.
    pub busy: Duration,
    /// When a core wanted to run and the host of this virtual machine ran something else.
    pub stolen: Duration,
    /// When there was nothing to do, but perhaps to wait for a disk.
    pub idle: Duration,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The kernel refuses.
    #[error("cannot read /proc/stat")]
    Read(#[source] io::Error),
    /// It reads otherwise than it should.
    #[error("/proc/stat has no line of all cores")]
    Malformed,
}

/// What became of the time between two moments, as shares of the time of all cores: 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineUse {
    /// The time of all cores together.
    pub all: Duration,
    /// Whatever ran.
    pub busy_share: f64,
    /// What the host of this virtual machine kept to itself.
    pub stolen_share: f64,
}

impl MachineTimes {
    /// Up to now.
    pub fn read() -> Result<MachineTimes, MachineError> {
        let text = fs::read_to_string("/proc/stat").map_err(MachineError::Read)?;
        MachineTimes::parse(&text).ok_or(MachineError::Malformed)
    }

    /// What became of the time since an earlier moment.
    pub fn since(&self, earlier: &MachineTimes) -> MachineUse {
        let busy = self.busy.saturating_sub(earlier.busy);
        let stolen = self.stolen.saturating_sub(earlier.stolen);
        // The kernel's waiting for disks may run backwards (proc_stat(5)).
        let idle = self.idle.saturating_sub(earlier.idle);
        let all = busy + stolen + idle;
        MachineUse {
            all,
            busy_share: share(busy, all),
            stolen_share: share(stolen, all),
        }
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the time of guests is in `user` and
    /// `nice` already.
    fn parse(text: &str) -> Option<MachineTimes> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let mut ticks = [0_u64; 8];
        let mut numbers = line.split_ascii_whitespace();
        for (ticks, number) in ticks.iter_mut().zip(numbers.by_ref()) {
            *ticks = number.parse().ok()?;
        }
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks;
        Some(MachineTimes {
            busy: [user, nice, system, irq, softirq]
                .map(of_ticks)
                .iter()
                .sum(),
            stolen: of_ticks(steal),
            idle: of_ticks(idle) + of_ticks(iowait),
        })
    }
}

impl MachineUse {
    /// Of two stretches of time together.
    pub fn and(&self, other: &MachineUse) -> MachineUse {
        let all = self.all + other.all;
        let of =
            |own: f64, others: f64| share(self.all.mul_f64(own) + other.all.mul_f64(others), all);
        MachineUse {
            all,
            busy_share: of(self.busy_share, other.busy_share),
            stolen_share: of(self.stolen_share, other.stolen_share),
        }
    }

    /// The share that went to others than those whose CPU time is known: the server and the load generator.
    /// Interrupts are among the others, whosever they are.
    pub fn others_share(&self, known: Duration) -> f64 {
        (self.busy_share - share(known, self.all)).max(0.0)
    }
}

/// 0 of no time at all.
fn share(part: Duration, all: Duration) -> f64 {
    if all.is_zero() {
        return 0.0;
    }
    part.as_secs_f64() / all.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::thread_cpu;

    #[test]
    fn times_are_those_of_all_cores() {
        let text = "cpu  100 20 300 4000 50 6 7 80 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n";
        let times = MachineTimes::parse(text).unwrap();
        assert_eq!(times.busy, of_ticks(433));
        assert_eq!(times.stolen, of_ticks(80));
        assert_eq!(times.idle, of_ticks(4050));
        for text in ["", "cpu0 1 2 3 4 5 6 7 8", "cpu  1 2 x 4 5 6 7 8"] {
            assert_eq!(MachineTimes::parse(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_of_the_time_between() {
        let times = |busy, stolen, idle| MachineTimes {
            busy: Duration::from_secs(busy),
            stolen: Duration::from_secs(stolen),
            idle: Duration::from_secs(idle),
        };
        let used = times(160, 20, 1020).since(&times(100, 0, 1000));
        assert_eq!(used.all, Duration::from_secs(100));
        assert!((used.busy_share - 0.6).abs() < 1e-9);
        assert!((used.stolen_share - 0.2).abs() < 1e-9);
        assert!((used.others_share(Duration::from_secs(50)) - 0.1).abs() < 1e-9);
        assert!(used.others_share(Duration::from_secs(70)).abs() < 1e-9);
        let none = times(5, 5, 5).since(&times(5, 5, 6));
        assert_eq!(none, MachineUse::default());
        assert!(none.others_share(Duration::from_secs(1)).abs() < 1e-9);
    }

    #[test]
    fn work_makes_the_machine_busy() {
        let before = MachineTimes::read().unwrap();
        std::thread::spawn(|| while thread_cpu() < Duration::from_millis(300) {})
            .join()
            .unwrap();
        let used = MachineTimes::read().unwrap().since(&before);
        let busy = used.all.mul_f64(used.busy_share);
        assert!(busy > Duration::from_millis(150), "{used:?}");
        assert!(used.busy_share <= 1.0);
    }
}
