//! Tells whether the server should be sent new sessions: what `/readyz` answers.
//!
//! It only ever moves on: starting, ready, draining. A server that drains never becomes ready
//! again, however late its start reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Shared by whoever sets and whoever reads it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not all shards accept yet.
    Starting,
    /// All do.
    Ready,
    /// No new sessions.
    Draining,
}

impl Readiness {
    /// Starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// All shards accept.
    pub fn ready(&self) {
        self.0.fetch_max(READY, Ordering::AcqRel);
    }

    /// No new sessions from now on.
    pub fn draining(&self) {
        self.0.fetch_max(DRAINING, Ordering::AcqRel);
    }

    /// Where the server stands now.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            STARTING => State::Starting,
            READY => State::Ready,
            _ => State::Draining,
        }
    }
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_moves_on() {
        let readiness = Readiness::new();
        let seen = readiness.clone();
        assert_eq!(seen.state(), State::Starting);
        readiness.ready();
        assert_eq!(seen.state(), State::Ready);
        readiness.draining();
        readiness.ready();
        assert_eq!(seen.state(), State::Draining);
    }

    #[test]
    fn a_drain_during_the_start_stays_a_drain() {
        let readiness = Readiness::new();
        readiness.draining();
        readiness.ready();
        assert_eq!(readiness.state(), State::Draining);
    }
}
