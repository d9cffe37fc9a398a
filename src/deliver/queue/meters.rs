//! What all queues of the process count.

use std::sync::atomic::{AtomicU64, Ordering};

use super::judgement::Tally;

/// The counters, and the bound on messages in the queues.
#[derive(Debug)]
pub struct QueueMeters {
    messages_max: u64,
    messages: AtomicU64,
    attempts_under_way: AtomicU64,
    delivered: AtomicU64,
    deferred: AtomicU64,
    failed: AtomicU64,
}

/// The queues hold as many messages as they may. Heals when mail is delivered: answered with 452.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

impl QueueMeters {
    /// Of queues that hold at most so many messages.
    pub fn new(messages_max: u64) -> QueueMeters {
        QueueMeters {
            messages_max,
            messages: AtomicU64::new(0),
            attempts_under_way: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Messages in the queues.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn messages_max(&self) -> u64 {
        self.messages_max
    }

    /// Attempts that are under way.
    pub fn attempts_under_way(&self) -> u64 {
        self.attempts_under_way.load(Ordering::Relaxed)
    }

    /// Recipients that were delivered to.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Attempts for a recipient that failed and will be followed by another.
    pub fn deferred(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }

    /// Recipients that were given up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// A message comes, if there is a place for it. Relaxed throughout: the numbers guard no other memory.
    pub(super) fn enter(&self) -> Result<(), QueueFull> {
        self.messages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |messages| {
                (messages < self.messages_max).then(|| messages + 1)
            })
            .map(|_| ())
            .map_err(|_| QueueFull)
    }

    /// Messages that were there before the start have their places, also above the bound.
    pub(super) fn found(&self, messages: usize) {
        let messages = u64::try_from(messages).unwrap_or(u64::MAX);
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// A message goes.
    pub(super) fn leave(&self) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn attempt_begins(&self) {
        self.attempts_under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempt_ends(&self, tally: Tally) {
        self.attempts_under_way.fetch_sub(1, Ordering::Relaxed);
        self.delivered.fetch_add(tally.delivered, Ordering::Relaxed);
        self.deferred.fetch_add(tally.deferred, Ordering::Relaxed);
    }

    /// So many recipients were given up.
    pub(super) fn gave_up(&self, recipients: u64) {
        self.failed.fetch_add(recipients, Ordering::Relaxed);
    }

    /// A message comes of our own, which takes the place of another: whether or not there is one.
    pub(super) fn enter_anyway(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Recipients were delivered to without an attempt of their own.
    pub(super) fn discarded(&self, recipients: usize) {
        let recipients = u64::try_from(recipients).unwrap_or(0);
        self.delivered.fetch_add(recipients, Ordering::Relaxed);
    }
}
