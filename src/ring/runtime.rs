//! One ring and its executor on the calling thread.
//!
//! Set up as measured (design): `COOP_TASKRUN` and `SINGLE_ISSUER` save a third of the CPU a message against
//! the runtime's defaults; `DEFER_TASKRUN` cannot work, since the runtime waits in epoll and never enters the
//! ring to reap. The completion queue is four times the submission queue: idle sessions each have a receive
//! in flight, and a drain completes them all at once.

use std::cell::Cell;
use std::future::Future;
use std::io;

use super::op;

/// How a shard's ring is set up.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Entries of the submission queue; a full queue is flushed, so this bounds a batch and not the load.
    pub entries: u32,
    /// Whether a kernel thread polls the submission queue.
    pub sqpoll: bool,
}

/// Why the kernel refused a ring, with what the operator can change.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up io_uring: {source}: {advice}")]
pub struct RingError {
    advice: &'static str,
    source: io::Error,
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside [`run`], so that operations can be submitted.
pub(super) fn is_running() -> bool {
    RUNNING.get()
}

/// Runs `future` on a new ring of this thread.
///
/// What is still in flight at its end stays the kernel's, with the memory lent to it, until the process ends:
/// the runtime would free that memory first and cancel then. So a ring is given back only when all is quiet.
pub fn run<F: Future>(settings: RingSettings, future: F) -> Result<F::Output, RingError> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer()
        .setup_cqsize(settings.entries.saturating_mul(4))
        .setup_clamp();
    if settings.sqpoll {
        // The kernel refuses COOP_TASKRUN with a polling thread.
        ring.setup_sqpoll(SQPOLL_IDLE_MILLISECONDS);
    } else {
        ring.setup_coop_taskrun();
    }
    let mut builder = tokio_uring::builder();
    builder.entries(settings.entries).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(|source| RingError {
        advice: advice(&source),
        source,
    })?;

    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            RUNNING.set(false);
        }
    }
    RUNNING.set(true);
    let _running = Running;
    let output = runtime.block_on(future);
    if op::in_flight() > 0 {
        std::mem::forget(runtime);
    }
    Ok(output)
}

/// What the operator should look at for an error of `io_uring_setup`.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring; Linux 6.0 or newer is needed",
        Some(libc::EPERM | libc::EACCES) => {
            "refused by the kernel; look at sysctl kernel.io_uring_disabled, or, in a container, \
             at its seccomp profile"
        }
        Some(libc::ENOMEM) => {
            "locked memory is exhausted; raise RLIMIT_MEMLOCK (ulimit -l) or lower --ring-entries"
        }
        Some(libc::EINVAL) => {
            "not understood by this kernel; Linux 6.0 or newer is needed, and --ring-entries at most 32768"
        }
        Some(libc::EMFILE | libc::ENFILE) => "no descriptors left; raise RLIMIT_NOFILE (ulimit -n)",
        _ => "see io_uring_setup(2)",
    }
}

/// How long an idle polling thread of `--sqpoll` spins before it sleeps.
const SQPOLL_IDLE_MILLISECONDS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_what_to_change() {
        for (errno, part) in [
            (libc::ENOSYS, "Linux 6.0"),
            (libc::EPERM, "io_uring_disabled"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
            (libc::EINVAL, "--ring-entries"),
            (libc::EMFILE, "RLIMIT_NOFILE"),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let text = RingError {
                advice: advice(&source),
                source,
            }
            .to_string();
            assert!(text.contains(part), "{errno}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_ring_runs_a_future_and_goes_down() {
        let settings = RingSettings {
            entries: 8,
            sqpoll: false,
        };
        assert_eq!(run(settings, async { 7 }).unwrap(), 7);
        assert!(!is_running());
    }
}
