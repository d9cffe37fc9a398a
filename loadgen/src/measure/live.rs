//! Counters that other threads may look at while a run goes on.
//!
//! Apart from the tally because that belongs to its thread alone. Each thread writes its own line of the
//! cache, without waiting for anybody; who adds them up sees each as it was a moment ago.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    messages: AtomicU64,
    sessions: AtomicU64,
    failed: AtomicU64,
    open: AtomicU64,
}

/// What they said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Messages that were taken, the warm-up's too.
    pub messages: u64,
    /// Sessions that ended, but for those that ended because the run did.
    pub sessions: u64,
    /// Messages that were not taken, and connections that did not come about.
    pub failed: u64,
    /// Connections that are open.
    pub open: u64,
}

impl Live {
    /// A message was taken.
    pub fn message(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    /// A session ended.
    pub fn session(&self) {
        self.sessions.fetch_add(1, Relaxed);
    }

    /// Something went wrong.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// A connection was made.
    pub fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    /// A connection is gone.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// The sum over threads.
    pub fn sum<'a>(threads: impl IntoIterator<Item = &'a Live>) -> Seen {
        let mut sum = Seen::default();
        for live in threads {
            sum.messages += live.messages.load(Relaxed);
            sum.sessions += live.sessions.load(Relaxed);
            sum.failed += live.failed.load(Relaxed);
            sum.open += live.open.load(Relaxed);
        }
        sum
    }
}
