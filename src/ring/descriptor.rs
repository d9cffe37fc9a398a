//! A file descriptor shared by the operations in flight on it; closed with the last share.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::op;

/// One share of a descriptor. Cloning costs a counter.
#[derive(Clone, Debug)]
pub(super) struct Descriptor(Rc<Inner>);

#[derive(Debug)]
struct Inner(RawFd);

impl Descriptor {
    pub(super) fn new(fd: OwnedFd) -> Descriptor {
        Descriptor(Rc::new(Inner(fd.into_raw_fd())))
    }

    /// The number as io_uring's builders want it.
    pub(super) fn target(&self) -> types::Fd {
        types::Fd(self.0.0)
    }

    /// Closes with the next batch, without a system call of its own. When operations still hold shares, the
    /// last of them closes instead.
    pub(super) fn close(self) {
        if let Ok(inner) = Rc::try_unwrap(self.0) {
            let entry = opcode::Close::new(types::Fd(inner.0)).build();
            std::mem::forget(inner);
            // SAFETY: the entry holds no pointer; this was the last share, so nobody uses the number.
            drop(unsafe { op::submit((), entry) });
        }
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}

impl Drop for Inner {
    /// Not by way of the ring: the last share may go while the driver is borrowed, at a completion that
    /// nobody waited for, and a submission there would find it borrowed.
    fn drop(&mut self) {
        // SAFETY: this value owns the descriptor, and it is the last share.
        drop(unsafe { OwnedFd::from_raw_fd(self.0) });
    }
}
