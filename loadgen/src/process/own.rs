//! What the load generator takes itself: CPU time, cores, descriptors, ports.
//!
//! Apart from the watch because its own clocks are exact to the nanosecond, and for a thread as well.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

pub use ringpost::control::privileges::{
    cores_allowed, descriptors_max, descriptors_open, raise_descriptors_max,
};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How many connections to one port the kernel makes from one address, where it chooses the ports (ip(7)).
pub fn ports_per_address() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range.ok().and_then(|text| ports(&text)).unwrap_or(PORTS)
}

/// `FIRST LAST`.
fn ports(range: &str) -> Option<usize> {
    let mut ends = range.split_ascii_whitespace().map(str::parse::<usize>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some(last.checked_sub(first)? + 1)
}

/// 32768 to 60999, as a kernel begins.
const PORTS: usize = 28_232;

/// CPU time of this process: of all its threads, ended ones included, without its children.
pub fn process_cpu() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

/// CPU time of the thread that asks.
pub fn thread_cpu() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(time: Timespec) -> Duration {
    // Neither part of a CPU clock is ever negative.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Cores by number: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(BTreeSet<usize>);

/// Why there are no such cores.
#[derive(Debug, thiserror::Error)]
pub enum CoresError {
    /// A list that cannot be read.
    #[error("no list of cores such as 0,2-3: {0:?}")]
    List(String),
    /// Beyond what the kernel's masks hold.
    #[error("core {core} is beyond {last}, the last that can be named", last = CpuSet::MAX_CPU - 1)]
    Beyond {
        /// Its number.
        core: usize,
    },
    /// The machine has fewer, or this process may not use them all.
    #[error("cannot run on cores {asked}: this process may use {allowed}")]
    NotAllowed {
        /// What was asked for.
        asked: Cores,
        /// What there is.
        allowed: Cores,
    },
    /// The kernel refuses.
    #[error("cannot run on cores {asked}")]
    Kernel {
        /// What was asked for.
        asked: Cores,
        /// What it said.
        source: io::Error,
    },
}

/// Reads a list as taskset(1) takes it: `0,2-3`.
pub fn parse_cores(text: &str) -> Result<Cores, CoresError> {
    let malformed = || CoresError::List(text.into());
    let number = |digits: &str| {
        // `parse` would take a sign.
        if !digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(malformed());
        }
        let core = digits.parse().map_err(|_| malformed())?;
        if core >= CpuSet::MAX_CPU {
            return Err(CoresError::Beyond { core });
        }
        Ok(core)
    };
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return Err(malformed());
        }
        cores.extend(first..=last);
    }
    Ok(Cores(cores))
}

impl Cores {
    /// These; none if there are none.
    pub fn all(cores: impl IntoIterator<Item = usize>) -> Option<Cores> {
        let cores: BTreeSet<usize> = cores.into_iter().collect();
        (!cores.is_empty()).then_some(Cores(cores))
    }

    /// Their numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// One core.
impl From<usize> for Cores {
    fn from(core: usize) -> Cores {
        Cores(BTreeSet::from([core]))
    }
}

/// As it is read, ranges where there are any.
impl fmt::Display for Cores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cores = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(formatter, "{comma}{first}")?,
                _ => write!(formatter, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Has the thread that calls run on these cores only; threads and processes that it starts from now on inherit that.
///
/// All of them must be there: the kernel itself would take one that is and leave out the rest in silence, and a
/// measurement would have less than it says.
pub fn pin(cores: &Cores) -> Result<(), CoresError> {
    let allowed = Cores(cores_allowed().into_iter().collect());
    if !allowed.0.is_superset(&cores.0) {
        return Err(CoresError::NotAllowed {
            asked: cores.clone(),
            allowed,
        });
    }
    let mut mask = CpuSet::new();
    // `Cores::from` takes any number; one beyond the mask is not among the allowed.
    cores.iter().for_each(|core| mask.set(core));
    rustix::thread::sched_setaffinity(None, &mask).map_err(|error| CoresError::Kernel {
        asked: cores.clone(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        for (text, numbers, shown) in [
            ("0", &[0][..], "0"),
            ("0,2-3", &[0, 2, 3], "0,2-3"),
            ("3,1", &[1, 3], "1,3"),
            ("1-1", &[1], "1"),
            ("0-2,2,1-3", &[0, 1, 2, 3], "0-3"),
            (" 4 , 6 - 7 ", &[4, 6, 7], "4,6-7"),
            ("1023", &[1023], "1023"),
        ] {
            let cores = parse_cores(text).unwrap();
            assert_eq!(cores.iter().collect::<Vec<_>>(), numbers, "{text}");
            assert_eq!(cores.count(), numbers.len());
            assert_eq!(cores.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_list_of_cores() {
        for text in [
            "", ",", "0,", "-", "1-", "-1", "3-2", "+1", "0x1", "a", "1-2-3", "1 2",
        ] {
            let error = parse_cores(text).unwrap_err();
            assert!(matches!(error, CoresError::List(_)), "{text}: {error}");
        }
        for text in ["1024", "0-99999"] {
            let error = parse_cores(text).unwrap_err();
            assert!(
                matches!(error, CoresError::Beyond { .. }),
                "{text}: {error}"
            );
        }
        let error = parse_cores("99999999999999999999").unwrap_err();
        assert!(matches!(error, CoresError::List(_)), "{error}");
    }

    #[test]
    fn a_pinned_thread_stays_on_its_core() {
        let first = cores_allowed()[0];
        std::thread::spawn(move || {
            pin(&Cores::from(first)).unwrap();
            assert_eq!(cores_allowed(), [first]);
            assert_eq!(rustix::thread::sched_getcpu(), first);
            // All or nothing: what was there before remains.
            let error = pin(&parse_cores(&format!("{first},1023")).unwrap()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.ends_with(&format!("this process may use {first}")),
                "{text}"
            );
            assert!(pin(&Cores::from(usize::MAX)).is_err());
            assert_eq!(cores_allowed(), [first]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_range_of_ports_has_both_ends() {
        assert_eq!(ports("32768\t60999\n"), Some(PORTS));
        assert_eq!(ports("5 5"), Some(1));
        for wrong in ["", "5", "6 5", "x 5"] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
        assert!(ports_per_address() > 0);
    }

    #[test]
    fn a_thread_has_its_own_time() {
        let (thread, process) = (thread_cpu(), process_cpu());
        std::thread::spawn(|| while thread_cpu() < Duration::from_millis(30) {})
            .join()
            .unwrap();
        assert!(process_cpu() - process >= Duration::from_millis(30));
        assert!(thread_cpu() - thread < Duration::from_millis(30));
    }

    #[test]
    fn descriptors_are_raised_to_what_is_allowed() {
        let raised = raise_descriptors_max();
        assert_eq!(raised, descriptors_max());
        assert_eq!(raised, raise_descriptors_max());
        assert!(descriptors_open().unwrap() < raised);
    }
}
