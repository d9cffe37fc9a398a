//! Counts the sessions of the whole process, and refuses the one too many.
//!
//! Apart from the shards because the limits are promises of the process: whatever the number of
//! shards, `--max-sessions` and `--max-sessions-per-ip` mean what they say.
//! Invariants:
//! - Never more than `max` admissions are alive at once, nor more than `per_ip_max` of one peer.
//! - An admission gives its place back when it is dropped, whichever way its session ended.
//! - A peer without sessions is not remembered; so what is remembered of peers is bounded by `max`.
//!
//! The count of the process is one atomic. Only where a limit by peer is set does an accept also
//! take a lock, one of those in [`Peers`]; no message ever passes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::peers::{PeerPlace, Peers};

/// The limits on sessions, shared by all shards.
#[derive(Debug)]
pub struct SessionLimits {
    max: usize,
    open: AtomicUsize,
    /// `None`: peers are not counted.
    peers: Option<Arc<Peers>>,
}

/// Why a session was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The process has as many sessions as `--max-sessions` lets it have.
    Sessions,
    /// This peer has as many sessions as `--max-sessions-per-ip` lets it have.
    PerIp,
}

/// One session's place, given back on drop.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Admission {
    limits: Arc<SessionLimits>,
    _peer: Option<PeerPlace>,
}

impl SessionLimits {
    /// At most `max` sessions, and of these at most `per_ip_max` of one peer; 0 there: no such limit.
    pub fn new(max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: AtomicUsize::new(0),
            peers: (per_ip_max > 0).then(|| Peers::new(per_ip_max)),
        })
    }

    /// Asks for a place for a session of `ip`.
    ///
    /// The peer is counted first: while both counts are being taken, a peer over its own limit
    /// then never stands in the way of another one.
    pub fn try_admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admission, Refused> {
        let peer = match &self.peers {
            Some(peers) => Some(peers.enter(ip).ok_or(Refused::PerIp)?),
            None => None,
        };
        if self.enter() {
            return Ok(Admission {
                limits: Arc::clone(self),
                _peer: peer,
            });
        }
        Err(Refused::Sessions)
    }

    /// How many sessions have a place now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Relaxed is enough: the count guards itself and publishes nothing else.
    fn enter(&self) -> bool {
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < self.max).then_some(open + 1)
            })
            .is_ok()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limits.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn process_limit_is_exact_and_places_come_back() {
        let limits = SessionLimits::new(2, 0);
        let first = limits.try_admit(ip("192.0.2.1")).unwrap();
        let second = limits.try_admit(ip("192.0.2.1")).unwrap();
        assert_eq!(
            limits.try_admit(ip("192.0.2.9")).unwrap_err(),
            Refused::Sessions
        );
        assert_eq!(limits.open(), 2);
        drop(first);
        let third = limits.try_admit(ip("192.0.2.9")).unwrap();
        drop((second, third));
        assert_eq!(limits.open(), 0);
    }

    #[test]
    fn no_session_at_all_when_the_limit_is_zero() {
        assert_eq!(
            SessionLimits::new(0, 0)
                .try_admit(ip("192.0.2.1"))
                .unwrap_err(),
            Refused::Sessions
        );
    }

    #[test]
    fn a_peer_over_its_limit_takes_no_place_of_the_process() {
        let limits = SessionLimits::new(2, 1);
        let held = limits.try_admit(ip("192.0.2.1")).unwrap();
        assert_eq!(
            limits.try_admit(ip("192.0.2.1")).unwrap_err(),
            Refused::PerIp
        );
        assert_eq!(limits.open(), 1);
        let other = limits.try_admit(ip("192.0.2.2")).unwrap();
        // Refused by the process limit: its peer is not charged for it.
        assert_eq!(
            limits.try_admit(ip("192.0.2.3")).unwrap_err(),
            Refused::Sessions
        );
        drop(other);
        let third = limits.try_admit(ip("192.0.2.3")).unwrap();
        drop((held, third));
        assert_eq!(peers_remembered(&limits), 0);
    }

    #[test]
    fn limits_hold_under_threads() {
        let limits = SessionLimits::new(50, 3);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let (limits, most) = (&limits, &most);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..20_000u32 {
                        let last = u8::try_from(round % 20).unwrap();
                        match limits.try_admit(IpAddr::from([192, 0, 2, last])) {
                            Ok(admission) => held.push(admission),
                            Err(Refused::PerIp | Refused::Sessions) => held.clear(),
                        }
                        most.fetch_max(limits.open(), Ordering::Relaxed);
                        if round % (7 + u32::from(thread)) == 0 {
                            held.pop();
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 50);
        assert_eq!(limits.open(), 0);
        assert_eq!(peers_remembered(&limits), 0);
    }

    #[test]
    fn one_peer_hammering_from_threads_never_gets_more_than_its_limit() {
        let limits = SessionLimits::new(1000, 5);
        let held: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..100)
                            .filter_map(|_| limits.try_admit(ip("192.0.2.1")).ok())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        assert_eq!(held.len(), 5);
        assert_eq!(limits.open(), 5);
    }

    fn peers_remembered(limits: &SessionLimits) -> usize {
        limits.peers.as_ref().unwrap().remembered()
    }
}
