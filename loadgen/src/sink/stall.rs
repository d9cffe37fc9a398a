//! Times at which the whole sink says nothing.
//!
//! A stall blocks the threads themselves: the kernel still accepts connections and octets, and
//! nothing reads them, as with a server that waits for its disk. It is what shows whether a sender
//! under measurement counts the time that its messages waited for their turn.
//! Invariant: all threads stall from and to the same moment, counted from the first connection.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// One stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stall {
    /// When it begins, from the first connection on.
    pub at: Duration,
    /// How long it takes.
    pub lasts: Duration,
}

/// All stalls of a sink.
#[derive(Debug)]
pub(super) struct Stalls {
    /// In the order of time.
    stalls: Vec<Stall>,
    first_connection: watch::Sender<Option<Instant>>,
    ended: Mutex<bool>,
    ends: Condvar,
}

impl Stalls {
    pub(super) fn new(mut stalls: Vec<Stall>) -> Stalls {
        stalls.sort_unstable();
        Stalls {
            stalls,
            first_connection: watch::Sender::new(None),
            ended: Mutex::new(false),
            ends: Condvar::new(),
        }
    }

    /// A connection came.
    pub(super) fn connected(&self) {
        if !self.stalls.is_empty() {
            self.first_connection.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(Instant::now);
                is_first
            });
        }
    }

    /// Blocks the calling thread whenever it is time; runs on each thread.
    pub(super) async fn keep(&self) {
        let mut first = self.first_connection.subscribe();
        let Ok(first) = first.wait_for(Option::is_some).await.map(|first| *first) else {
            return;
        };
        for (stall, first) in self.stalls.iter().zip(std::iter::repeat(first)) {
            let Some(first) = first else { return };
            let begins = first + stall.at;
            tokio::time::sleep_until(begins.into()).await;
            self.block_until(begins + stall.lasts);
        }
    }

    fn block_until(&self, end: Instant) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let left = end.saturating_duration_since(Instant::now());
        // Spurious wake-ups are dealt with; poisoning cannot come, and would end the stall.
        drop(self.ends.wait_timeout_while(ended, left, |ended| !*ended));
    }

    /// Ends a stall under way, because the sink ends.
    pub(super) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ends.notify_all();
    }
}
