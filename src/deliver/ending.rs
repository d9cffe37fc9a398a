//! The word that the server goes down, for all that waits on a delivery.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Whether the end is wanted.
#[derive(Debug, Default)]
pub(super) struct Ending {
    wanted: Cell<Option<Instant>>,
    told: Notify,
}

impl Ending {
    /// Wants the end.
    pub(super) fn want(&self) {
        self.wanted.set(Some(Instant::now()));
        self.told.notify_waiters();
    }

    /// Whether the end is wanted: nothing is to be begun.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.get().is_some()
    }

    /// Resolves when a next hop has had its time to answer since the end was wanted. What it took and did not
    /// say is sent once more by the next start.
    pub(super) async fn is_due(&self) {
        loop {
            let told = self.told.notified();
            match self.wanted.get() {
                Some(wanted) => return tokio::time::sleep_until((wanted + PATIENCE).into()).await,
                None => told.await,
            }
        }
    }
}

/// Long enough for the reply to a message that was sent; and short beside `--drain-timeout`.
const PATIENCE: Duration = Duration::from_secs(5);
