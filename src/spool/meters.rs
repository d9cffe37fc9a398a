//! What the spool counts, for metrics and benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of all logs that share them.
#[derive(Debug, Default)]
pub struct Meters {
    pub(super) batches: Meter,
    pub(super) messages: Meter,
    pub(super) octets: Meter,
    pub(super) syncs: Meter,
    pub(super) failures: Meter,
    pub(super) compacted: Meter,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Meters {
    /// Batches written.
    pub fn batches(&self) -> &Meter {
        &self.batches
    }

    /// Messages committed.
    pub fn messages(&self) -> &Meter {
        &self.messages
    }

    /// Octets written to segments and to files of large messages.
    pub fn octets(&self) -> &Meter {
        &self.octets
    }

    /// Syncs of all kinds.
    pub fn syncs(&self) -> &Meter {
        &self.syncs
    }

    /// Batches that could not be written.
    pub fn failures(&self) -> &Meter {
        &self.failures
    }

    /// Messages that were moved to free a segment.
    pub fn compacted(&self) -> &Meter {
        &self.compacted
    }
}
