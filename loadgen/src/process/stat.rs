//! Reads `/proc/PID/stat` (proc_pid_stat(5)).
//!
//! Apart because its second field is a name that the process chose: it may hold blanks, parentheses and octets
//! that are not UTF-8, so fields are counted from the last parenthesis on.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// What is said of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: Pid,
    /// None: it has no parent that can be seen.
    pub(super) parent: Option<Pid>,
    pub(super) group: Option<Pid>,
    pub(super) life: Life,
    /// CPU time of all its threads, ended ones included.
    pub(super) cpu: Duration,
    /// CPU time of its children that ended and that it waited for, and of theirs.
    pub(super) ended_children_cpu: Duration,
    /// When it began, in ticks since the machine did: tells it from a later one of the same number.
    pub(super) began: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It ended, and its parent has not waited for it yet.
    Ended,
}

impl Stat {
    /// None: there is no such process, or not any more.
    pub(super) fn of(pid: Pid) -> Option<Stat> {
        let line = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        Stat::parse(&line)
    }

    /// Of all processes that can be seen. It is no picture of one moment: some end, others begin meanwhile.
    pub(super) fn all() -> Vec<Stat> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| parse_pid(entry.ok()?.file_name().to_str()?))
            .filter_map(Stat::of)
            .collect()
    }

    fn parse(line: &[u8]) -> Option<Stat> {
        let name_begins = line.iter().position(|octet| *octet == b'(')?;
        let name_ends = line.iter().rposition(|octet| *octet == b')')?;
        let pid = str::from_utf8(line.get(..name_begins)?).ok()?;
        let rest = str::from_utf8(line.get(name_ends + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The manual numbers the fields from 1; the first one after the name is number 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let count = |number| field(number)?.parse::<u64>().ok();
        Some(Stat {
            pid: parse_pid(pid.trim_end())?,
            life: match field(3)? {
                "Z" | "X" | "x" => Life::Ended,
                _ => Life::Running,
            },
            parent: parse_pid(field(4)?),
            group: parse_pid(field(5)?),
            cpu: of_ticks(count(14)?.saturating_add(count(15)?)),
            ended_children_cpu: of_ticks(count(16)?.saturating_add(count(17)?)),
            began: count(22)?,
        })
    }
}

/// None: not a number, or 0, which stands for none.
pub(super) fn parse_pid(text: &str) -> Option<Pid> {
    let number = text.parse::<i32>().ok().filter(|number| *number > 0)?;
    Pid::from_raw(number)
}

/// Clock ticks, as `/proc` counts CPU time.
pub(super) fn of_ticks(ticks: u64) -> Duration {
    let nanoseconds = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(ticks.saturating_mul(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        for name in [
            &b"sh"[..],
            b"a) b (",
            b") R 1 1 1 (",
            b"",
            b"tab\there",
            b"new\nline",
            b"\xff\xfe",
        ] {
            let mut line = b"4711 (".to_vec();
            line.extend_from_slice(name);
            line.extend_from_slice(
                b") S 42 4710 4709 0 -1 4194304 1 2 3 4 150 25 7 3 20 0 5 0 99887 0 0\n",
            );
            let stat = Stat::parse(&line).unwrap_or_else(|| panic!("{name:?}"));
            assert_eq!(stat.pid, parse_pid("4711").unwrap());
            assert_eq!(stat.parent, parse_pid("42"));
            assert_eq!(stat.group, parse_pid("4710"));
            assert_eq!(stat.life, Life::Running);
            assert_eq!(stat.cpu, of_ticks(175));
            assert_eq!(stat.ended_children_cpu, of_ticks(10));
            assert_eq!(stat.began, 99887);
        }
    }

    #[test]
    fn what_is_no_such_line_is_nothing() {
        for line in [
            &b""[..],
            b"4711",
            b"4711 (sh",
            b"4711 )sh(",
            b"4711 (sh) S 42",
            b"x (sh) S 42 4710 4709 0 -1 4194304 1 2 3 4 150 25 7 3 20 0 5 0 99887",
            b"1 (sh) S 42 4710 4709 0 -1 4194304 1 2 3 4 many 25 7 3 20 0 5 0 99887",
        ] {
            assert_eq!(Stat::parse(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn this_process_is_among_all() {
        let own = rustix::process::getpid();
        let stat = Stat::all()
            .into_iter()
            .find(|stat| stat.pid == own)
            .unwrap();
        assert_eq!(stat.parent, rustix::process::getppid());
        assert_eq!(stat.life, Life::Running);
    }
}
