//! Reads what a server has taken: CPU time and memory of all its processes.
//!
//! Apart from the server that is started here because any other can be watched as well.
//!
//! Invariants:
//! - CPU time is that of every process of the server, ended ones included. Between two readings it may seem to
//!   shrink by a tick or two; [`Usage::cpu_since`] then says 0.
//! - A process counts its parts of shared memory, and nothing twice: the sum is of proportional set sizes. Page
//!   cache is not in it, though `memory.current` of a control group counts that; a spool would look like a leak.
//!   Where the kernel does not let us read `smaps_rollup` of a process, its resident size stands in, which counts
//!   shared pages in full: the sum is then too large.
//!
//! Not promised:
//! - By process, those that left the family are not seen: a daemon that forked twice belongs to process 1. So does
//!   the time of a child that ended while its parent ignored SIGCHLD. A control group has them all.
//! - In a control group the time that a process ran before it was moved there is not counted.
//! - A reading is not free: it reads `/proc` twice or more, and the kernel walks the server's page tables. It is for
//!   the two ends of a measurement and an occasional look between them.
//!
//! # How exact the CPU time of a process is
//! `/proc/PID/stat` cuts a process's user and system time to ticks of 10 ms each, so it is at most two ticks too low;
//! that holds whatever its threads did. `/proc/PID/task/*/schedstat` counts nanoseconds, but forgets the threads that
//! ended (and says 0 on a kernel without it). Neither is ever too high, so the greater of both is taken: exact but
//! for what ran since the last tick of each core, while no thread has ended that had used more than two ticks. Children
//! that ended are counted in ticks of their sum, not each for itself, so their error does not add up.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use super::stat::{Life, Stat, parse_pid};

/// Where a server's processes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// A process and all that descend from it.
    Pid(Pid),
    /// The folder of a control group (version 2), with those below it.
    Cgroup(PathBuf),
}

/// What a server has taken since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its processes, ended ones included.
    pub cpu: Duration,
    /// Memory of those that run, in octets.
    pub memory_octets: u64,
    /// How many run.
    pub processes: usize,
}

/// Why a server cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It ended, or never was.
    #[error("cannot watch process {}: it is gone", .0.as_raw_pid())]
    Gone(Pid),
    /// The control group was removed, or never was.
    #[error("cannot watch control group {}: it is gone", .0.display())]
    NoCgroup(PathBuf),
    /// A folder, but of another kind.
    #[error(
        "cannot watch {}: its cpu.stat has no usage_usec, so it is no control group of version 2",
        .0.display()
    )]
    NotCgroup(PathBuf),
    /// The kernel refuses.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Watch {
    /// Reads what it has taken up to now.
    pub fn read(&self) -> Result<Usage, WatchError> {
        match self {
            Watch::Pid(pid) => read_family(*pid),
            Watch::Cgroup(folder) => read_cgroup(folder),
        }
    }
}

impl Usage {
    /// CPU time since an earlier reading.
    pub fn cpu_since(&self, earlier: &Usage) -> Duration {
        self.cpu.saturating_sub(earlier.cpu)
    }
}

/// A child that ends while we read would be counted twice, by itself and by its parent, or not at all. So the family
/// is looked at again until nobody came or went. One that never rests is taken as it is after some looks; then the
/// time of the children that ended during the last look is in doubt.
fn read_family(root: Pid) -> Result<Usage, WatchError> {
    let mut family = family_of(root)?;
    let mut cpu = cpu_of(&family);
    for _ in 1..LOOKS_MAX {
        let again = family_of(root)?;
        if same(&family, &again) {
            break;
        }
        cpu = cpu_of(&again);
        family = again;
    }
    // Last, for it takes longest.
    let running = || family.iter().filter(|stat| stat.life == Life::Running);
    Ok(Usage {
        cpu,
        memory_octets: running().map(|stat| memory_octets(stat.pid)).sum(),
        processes: running().count(),
    })
}

/// A process and all that descend from it, in the order of their generations.
fn family_of(root: Pid) -> Result<Vec<Stat>, WatchError> {
    let mut children: HashMap<Option<Pid>, Vec<Stat>> = HashMap::new();
    let mut family = Vec::new();
    for stat in Stat::all() {
        if stat.pid == root && stat.life == Life::Running {
            family.push(stat);
        } else {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|stat| stat.pid) {
        // Taken out: should a number be used anew while we read, nobody is met twice.
        family.extend(children.remove(&Some(parent)).unwrap_or_default());
        next += 1;
    }
    if family.is_empty() {
        return Err(WatchError::Gone(root));
    }
    Ok(family)
}

fn cpu_of(family: &[Stat]) -> Duration {
    let each = family.iter();
    each.map(|stat| stat.cpu.max(threads_cpu(stat.pid)) + stat.ended_children_cpu)
        .sum()
}

/// Whether nobody came or went: the same processes, and none of them has waited for a child meanwhile.
fn same(one: &[Stat], other: &[Stat]) -> bool {
    let marks = |family: &[Stat]| {
        let mut marks: Vec<_> = family
            .iter()
            .map(|stat| {
                let number = stat.pid.as_raw_pid();
                (
                    number,
                    stat.began,
                    stat.life == Life::Running,
                    stat.ended_children_cpu,
                )
            })
            .collect();
        marks.sort_unstable();
        marks
    };
    marks(one) == marks(other)
}

/// CPU time of the threads that have not ended.
fn threads_cpu(pid: Pid) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else {
        return Duration::ZERO;
    };
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        // Time on a core, time waiting for one, time slices.
        text.split_ascii_whitespace().next()?.parse().ok()
    });
    nanoseconds.map(Duration::from_nanos).sum()
}

/// The proportional set size of a process, or its resident size; 0 if it ended meanwhile.
fn memory_octets(pid: Pid) -> u64 {
    let entry = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_pid())).ok()?;
        kibibytes(&text, name)
    };
    let kibibytes = entry("smaps_rollup", "Pss:").or_else(|| entry("status", "VmRSS:"));
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// The number in a line such as `Pss:    295 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `usage_usec` is of the whole tree below the folder; processes are listed by each folder for itself.
fn read_cgroup(folder: &Path) -> Result<Usage, WatchError> {
    let path = folder.join("cpu.stat");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Err(WatchError::NoCgroup(folder.into())),
        Err(source) => return Err(WatchError::Read { path, source }),
    };
    let used = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    let Some(used) = used.and_then(|number| number.trim().parse().ok()) else {
        return Err(WatchError::NotCgroup(folder.into()));
    };
    let mut usage = Usage {
        cpu: Duration::from_micros(used),
        ..Usage::default()
    };
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for pid in processes_in(&folder)? {
            if Stat::of(pid).is_some_and(|stat| stat.life == Life::Running) {
                usage.processes += 1;
                usage.memory_octets += memory_octets(pid);
            }
        }
        // One that was removed meanwhile has nothing below it.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    Ok(usage)
}

fn processes_in(folder: &Path) -> Result<Vec<Pid>, WatchError> {
    let path = folder.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // The kernel writes 0 for a process that is not in our namespace.
        Ok(text) => Ok(text.lines().filter_map(parse_pid).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        // A threaded group lists no processes; the group above it that is not threaded has them.
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            Ok(Vec::new())
        }
        Err(source) => Err(WatchError::Read { path, source }),
    }
}

/// ENODEV is what an open file of a removed group says.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// How often a family is looked at until it rests. A look at a few hundred processes takes some milliseconds.
const LOOKS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that runs a script, then says a line, then waits until its input is closed.
    struct Shell {
        child: Child,
    }

    impl Shell {
        fn run(program: &Path, script: &str) -> Shell {
            Shell::run_until(program, script, &["done"])
        }

        /// Its lines may come in any order.
        fn run_until(program: &Path, script: &str, lines: &[&str]) -> Shell {
            let mut child = Command::new(program)
                .args(["-c", &format!("{script}\necho done; read -r end")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
            let mut said: Vec<String> = said.take(lines.len()).map(Result::unwrap).collect();
            said.sort();
            assert_eq!(said, lines);
            Shell { child }
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.child)
        }

        fn read(&self) -> Usage {
            Watch::Pid(self.pid()).read().unwrap()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            self.child.wait().unwrap();
        }
    }

    fn sh() -> &'static Path {
        Path::new("/bin/sh")
    }

    /// Takes far more than `BURNT` on any machine of today.
    const BURN: &str = "i=0; while [ $i -lt 250000 ]; do i=$((i+1)); done";
    const BURNT: Duration = Duration::from_millis(40);

    #[test]
    fn own_time_is_counted_finer_than_ticks() {
        let shell = Shell::run(sh(), "");
        let idle = shell.read();
        assert!(idle.cpu < BURNT, "{idle:?}");
        assert_eq!(idle.processes, 1);
        assert!(idle.memory_octets > 10_000, "{idle:?}");
        let busy = Shell::run(sh(), BURN);
        let first = busy.read();
        assert!(first.cpu > BURNT, "{first:?}");
        // It waits now, or is just about to.
        let second = busy.read();
        let tick = super::super::stat::of_ticks(1);
        assert!(second.cpu >= first.cpu && second.cpu_since(&first) < tick);
        if second.cpu > first.cpu {
            assert_eq!(first.cpu_since(&second), Duration::ZERO);
        }
        let ticks = Stat::of(busy.pid()).unwrap().cpu;
        let threads = threads_cpu(busy.pid());
        assert!(ticks.max(threads) - second.cpu < tick);
        let two_ticks = tick * 2;
        assert!(ticks < threads + two_ticks, "{ticks:?} {threads:?}");
        if threads > Duration::ZERO {
            assert!(threads < ticks + two_ticks, "{ticks:?} {threads:?}");
        }
    }

    #[test]
    fn a_child_that_ended_is_counted() {
        let shell = Shell::run(sh(), &format!("({BURN})"));
        let usage = shell.read();
        let stat = Stat::of(shell.pid()).unwrap();
        assert!(stat.cpu < BURNT / 2, "the child burnt it: {stat:?}");
        assert!(usage.cpu > BURNT, "{usage:?}");
        assert_eq!(usage.processes, 1);
    }

    #[test]
    fn descendants_are_counted() {
        // A subshell in a subshell burns it. What runs in the background has no input unless it is given one.
        let family = format!("exec 4<&0; ( ({BURN}; echo burnt; read -r end) <&4 & wait ) &");
        let shell = Shell::run_until(sh(), &family, &["burnt", "done"]);
        let stat = Stat::of(shell.pid()).unwrap();
        assert!(stat.cpu + stat.ended_children_cpu < BURNT / 2, "{stat:?}");
        let usage = shell.read();
        assert_eq!(usage.processes, 3);
        assert!(usage.cpu > BURNT, "{usage:?}");
        let alone = memory_octets(shell.pid());
        assert!(usage.memory_octets > alone, "{usage:?}, of which {alone}");
    }

    #[test]
    fn children_that_end_meanwhile_are_counted_once() {
        let one = BURN.replace("250000", "60000");
        let script = format!("j=0; while [ $j -lt 8 ]; do ({one}); j=$((j+1)); done");
        let mut child = Command::new(sh())
            .args(["-c", &format!("{script}; echo done; read -r end")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let watch = Watch::Pid(Pid::from_child(&child));
        let said = child.stdout.take().unwrap();
        let done = std::thread::spawn(move || BufReader::new(said).lines().next());
        let mut readings = Vec::new();
        while !done.is_finished() {
            readings.push(watch.read().unwrap().cpu);
        }
        let total = watch.read().unwrap().cpu;
        assert!(
            total > BURNT && readings.len() > 1,
            "{total:?} {readings:?}"
        );
        // The children's sum, the shell and a child are cut to ticks.
        let doubt = super::super::stat::of_ticks(6);
        let mut highest = Duration::ZERO;
        for reading in readings.into_iter().chain([total]) {
            assert!(reading + doubt > highest, "{reading:?} after {highest:?}");
            highest = highest.max(reading);
        }
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success(), "its input has ended");
    }

    #[test]
    fn a_name_may_look_like_the_end_of_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a) b (");
        std::os::unix::fs::symlink(sh(), &program).unwrap();
        let shell = Shell::run(&program, BURN);
        let name = fs::read_to_string(format!("/proc/{}/comm", shell.pid().as_raw_pid())).unwrap();
        assert_eq!(name, "a) b (\n");
        let usage = shell.read();
        assert!(usage.cpu > BURNT, "{usage:?}");
        assert_eq!(usage.processes, 1);
    }

    #[test]
    fn threads_that_ended_are_counted() {
        let before = Watch::Pid(rustix::process::getpid()).read().unwrap();
        let burnt = std::thread::spawn(|| {
            while super::super::thread_cpu() < BURNT {}
            super::super::thread_cpu()
        });
        let burnt = burnt.join().unwrap();
        let after = Watch::Pid(rustix::process::getpid()).read().unwrap();
        let least = burnt - super::super::stat::of_ticks(2);
        assert!(after.cpu_since(&before) >= least, "{before:?} {after:?}");
    }

    #[test]
    fn shared_memory_is_not_counted_in_full_for_each() {
        let shell = Shell::run(sh(), "");
        let resident = |pid: Pid| {
            let path = format!("/proc/{}/status", pid.as_raw_pid());
            kibibytes(&fs::read_to_string(path).unwrap(), "VmRSS:").unwrap() * 1024
        };
        let usage = shell.read();
        assert!(usage.memory_octets > 0);
        // The C library, at least, is shared with this process.
        assert!(usage.memory_octets < resident(shell.pid()), "{usage:?}");
    }

    #[test]
    fn a_process_that_ended_is_gone_waited_for_or_not() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).unwrap();
        assert_eq!(Stat::of(pid).unwrap().life, Life::Ended);
        for _ in ["not waited for", "waited for"] {
            let error = Watch::Pid(pid).read().unwrap_err();
            assert!(matches!(error, WatchError::Gone(gone) if gone == pid));
            let number = pid.as_raw_pid();
            assert_eq!(
                error.to_string(),
                format!("cannot watch process {number}: it is gone")
            );
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_control_group_is_read_with_what_is_below_it() {
        let (first, second) = (Shell::run(sh(), ""), Shell::run(sh(), ""));
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("below/deeper");
        fs::create_dir_all(&below).unwrap();
        let write = |folder: &Path, name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
        };
        let stat = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n";
        write(root.path(), "cpu.stat", stat);
        // The folder's own time is in that of the one above it already.
        write(&below, "cpu.stat", "usage_usec 999\n");
        write(root.path(), "memory.current", "99999999999\n");
        let number = |shell: &Shell| shell.pid().as_raw_pid();
        write(
            root.path(),
            "cgroup.procs",
            &format!("{}\n0\n", number(&first)),
        );
        write(&below, "cgroup.procs", &format!("{}\n", number(&second)));
        let usage = Watch::Cgroup(root.path().into()).read().unwrap();
        assert_eq!(usage.cpu, Duration::from_micros(1_234_567));
        assert_eq!(usage.processes, 2);
        assert_eq!(
            usage.memory_octets,
            memory_octets(first.pid()) + memory_octets(second.pid())
        );
        drop(second);
        let usage = Watch::Cgroup(root.path().into()).read().unwrap();
        assert_eq!(usage.processes, 1, "one ended meanwhile");
        assert!(usage.memory_octets > 0);
    }

    #[test]
    fn what_is_no_control_group_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| Watch::Cgroup(root.path().join(name));
        assert!(matches!(at("none").read(), Err(WatchError::NoCgroup(_))));
        fs::create_dir(root.path().join("v1")).unwrap();
        fs::write(root.path().join("v1/cpu.stat"), "nr_periods 0\n").unwrap();
        let error = at("v1").read().unwrap_err();
        assert!(matches!(error, WatchError::NotCgroup(_)));
        assert!(error.to_string().contains("no usage_usec"), "{error}");
        fs::create_dir_all(root.path().join("odd/cpu.stat")).unwrap();
        let error = at("odd").read().unwrap_err();
        assert!(matches!(error, WatchError::Read { .. }), "{error}");
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        let text = "55f0-7fff ---p 00000000 00:00 0    [rollup]\nRss:   1740 kB\nPss:    295 kB\nPss_Dirty:  1 kB\n";
        assert_eq!(kibibytes(text, "Pss:"), Some(295));
        assert_eq!(kibibytes(text, "VmRSS:"), None);
        assert_eq!(kibibytes("Pss: many kB", "Pss:"), None);
    }
}
