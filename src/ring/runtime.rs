//! One ring and its executor on the calling thread.
//!
//! For files, for connections that we make, and for what does not fit into a socket at once; what peers do by
//! themselves comes in by [`super::intake`].
//!
//! Set up as measured (design): `COOP_TASKRUN` and `SINGLE_ISSUER` save a third of the CPU a message against
//! the runtime's defaults; `DEFER_TASKRUN` cannot work, since the runtime waits in epoll and never enters the
//! ring to reap. The completion queue is four times the submission queue, so that what was submitted in a few passes
//! can complete in one.

use std::fmt;
use std::future::Future;
use std::io;

use io_uring::{IoUring, opcode};

use super::{intake, op};

/// How the rings of a shard are set up.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Entries of a submission queue; a full queue is flushed, so this bounds a batch and not the load.
    pub entries: u32,
    /// Whether a kernel thread polls the submission queue of what comes in.
    pub sqpoll: bool,
}

/// Why the kernel refused a ring, with what the operator can change.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}: {}", advice(*.step, .source))]
pub struct RingError {
    step: Step,
    source: io::Error,
}

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    SetUp,
    Equip,
    Enter,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::SetUp => "cannot set up io_uring",
            Step::Equip => "cannot make io_uring ready to receive",
            Step::Enter => "cannot use io_uring",
        })
    }
}

impl RingError {
    pub(super) fn at(step: Step) -> impl FnOnce(io::Error) -> RingError {
        move |source| RingError { step, source }
    }
}

/// Sets up small rings as `settings` has them, and has the kernel perform an operation that does nothing on each.
///
/// For the start, before any thread: the runtime takes a refused `io_uring_enter` for nothing to do, and a
/// shard would neither serve nor end. Small because the kernel gives locked memory back some time after a ring
/// was closed, and the shards are to have it.
pub fn probe(settings: RingSettings) -> Result<(), RingError> {
    let settings = RingSettings {
        entries: settings.entries.min(PROBE_ENTRIES_MAX),
        ..settings
    };
    for builder in [builder(settings.entries), intake::builder(settings)] {
        let ring = builder.build(settings.entries);
        probe_ring(ring.map_err(RingError::at(Step::SetUp))?)?;
    }
    Ok(())
}

fn probe_ring(mut ring: IoUring) -> Result<(), RingError> {
    let nothing = opcode::Nop::new().build();
    // SAFETY: the operation has no pointers and no descriptor.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.map_err(|full| RingError::at(Step::Enter)(io::Error::other(full)))?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => return Ok(()),
            // A stopped and continued process.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RingError::at(Step::Enter)(error)),
        }
    }
}

/// Runs `future` on a new ring of this thread.
///
/// What is still in flight at its end stays the kernel's, with the memory lent to it, until the process ends:
/// the runtime would free that memory first and cancel then. So a ring is given back only when all is quiet.
pub fn run<F: Future>(settings: RingSettings, future: F) -> Result<F::Output, RingError> {
    let mut builder_of_runtime = tokio_uring::builder();
    builder_of_runtime
        .entries(settings.entries)
        .uring_builder(&builder(settings.entries));
    let runtime =
        tokio_uring::Runtime::new(&builder_of_runtime).map_err(RingError::at(Step::SetUp))?;
    let output = runtime.block_on(future);
    if op::in_flight() > 0 {
        std::mem::forget(runtime);
    }
    Ok(output)
}

fn builder(entries: u32) -> io_uring::Builder {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer()
        .setup_coop_taskrun()
        .setup_cqsize(entries.saturating_mul(4))
        .setup_clamp();
    ring
}

/// What the operator should look at.
fn advice(step: Step, error: &io::Error) -> &'static str {
    match (step, error.raw_os_error()) {
        (Step::SetUp, Some(libc::ENOSYS)) => {
            "this kernel has no io_uring; Linux 6.1 or newer is needed"
        }
        (Step::SetUp, Some(libc::EPERM | libc::EACCES)) => {
            "refused by the kernel; look at sysctl kernel.io_uring_disabled, or, in a container, \
             at its seccomp profile"
        }
        (Step::SetUp, Some(libc::ENOMEM)) => {
            "locked memory is exhausted; raise RLIMIT_MEMLOCK (ulimit -l) or lower --ring-entries"
        }
        (Step::SetUp, Some(libc::EINVAL)) => {
            "not understood by this kernel; Linux 6.1 or newer is needed, and --ring-entries at most 32768"
        }
        (Step::SetUp | Step::Equip, Some(libc::EMFILE | libc::ENFILE)) => {
            "no descriptors left; raise RLIMIT_NOFILE (ulimit -n)"
        }
        (Step::SetUp, _) => "see io_uring_setup(2)",
        (Step::Equip, Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => {
            "a ring was made but io_uring_register is refused; look at the seccomp profile of the container, \
             or at SystemCallFilter= of the service"
        }
        (Step::Equip, _) => "see io_uring_register(2)",
        (Step::Enter, Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => {
            "a ring was made but io_uring_enter is refused; look at the seccomp profile of the container, \
             or at SystemCallFilter= of the service"
        }
        (Step::Enter, _) => "see io_uring_enter(2)",
    }
}

/// Enough for one operation.
const PROBE_ENTRIES_MAX: u32 = 8;

/// How long an idle polling thread of `--sqpoll` spins before it sleeps.
pub(super) const SQPOLL_IDLE_MILLISECONDS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: RingSettings = RingSettings {
        entries: 8,
        sqpoll: false,
    };

    #[test]
    fn each_refusal_names_what_to_change() {
        for (step, errno, part) in [
            (Step::SetUp, libc::ENOSYS, "Linux 6.1"),
            (Step::SetUp, libc::EPERM, "io_uring_disabled"),
            (Step::SetUp, libc::ENOMEM, "RLIMIT_MEMLOCK"),
            (Step::SetUp, libc::EINVAL, "--ring-entries"),
            (Step::SetUp, libc::EMFILE, "RLIMIT_NOFILE"),
            (Step::SetUp, libc::EIO, "io_uring_setup(2)"),
            (Step::Enter, libc::EPERM, "seccomp profile"),
            (Step::Equip, libc::EPERM, "io_uring_register is refused"),
            (Step::Equip, libc::EIO, "io_uring_register(2)"),
            (Step::Enter, libc::ENOSYS, "SystemCallFilter="),
            (Step::Enter, libc::EIO, "io_uring_enter(2)"),
        ] {
            let text = RingError::at(step)(io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(part), "{errno}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_probe_passes_where_a_ring_runs() {
        for sqpoll in [false, true] {
            for entries in [1, 8, 32768] {
                probe(RingSettings { entries, sqpoll }).unwrap();
            }
        }
    }

    /// On a thread of its own, since a filter stays with its thread for good.
    #[test]
    fn a_ring_that_may_not_be_entered_is_told() {
        let refused = std::thread::spawn(|| {
            refuse_io_uring_enter();
            probe(SETTINGS)
        });
        let text = refused.join().unwrap().unwrap_err().to_string();
        assert!(text.starts_with("cannot use io_uring: "), "{text}");
        assert!(text.contains("seccomp"), "{text}");
    }

    /// Has a seccomp filter answer EPERM to this thread.
    fn refuse_io_uring_enter() {
        let enter = u32::try_from(libc::SYS_io_uring_enter).unwrap();
        let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
        let (load, equal, answer) = (0x20, 0x15, 0x06); // BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
        // The call's number; if it is not this one, skip a line.
        let mut filter = [
            (load, 0, 0),
            (equal, 1, enter),
            (answer, 0, refuse),
            (answer, 0, libc::SECCOMP_RET_ALLOW),
        ]
        .map(|(code, jf, k)| libc::sock_filter { code, jt: 0, jf, k });
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap(),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: it takes numbers only.
        let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(privileges, 0, "{}", io::Error::last_os_error());
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the program and what it points to live until the kernel has copied them.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_ring_runs_a_future_and_goes_down() {
        assert_eq!(run(SETTINGS, async { 7 }).unwrap(), 7);
    }
}
