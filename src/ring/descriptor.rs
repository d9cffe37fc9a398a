//! A file descriptor shared by the operations in flight on it; closed with the last share.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::types;

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
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}

impl Drop for Inner {
    /// Not by way of the ring: a close does not wait, and its completion would only wake the shard. Also the
    /// last share may go while the driver is borrowed, at a completion that nobody waited for.
    fn drop(&mut self) {
        // SAFETY: this value owns the descriptor, and it is the last share.
        drop(unsafe { OwnedFd::from_raw_fd(self.0) });
    }
}
