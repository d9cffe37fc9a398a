//! What is counted about connections to next hops, by all shards.

use std::sync::atomic::{AtomicU64, Ordering};

use super::link;
use crate::tls::{Facts, Fault};

/// The counters.
#[derive(Debug, Default)]
pub struct HopMeters {
    opened: AtomicU64,
    failed: AtomicU64,
    reused: AtomicU64,
    clear: AtomicU64,
    resumed: AtomicU64,
    sessions: [AtomicU64; SESSIONS.len()],
    handshakes_failed: [AtomicU64; FAULTS.len()],
}

/// How a TLS session with a next hop came out: its version, and whether the next hop is who it should be.
const SESSIONS: [(&str, &str); 4] = [("1.2", "no"), ("1.2", "yes"), ("1.3", "no"), ("1.3", "yes")];

/// Why handshakes fail.
const FAULTS: [&str; 10] = [
    "not-tls",
    "version",
    "no-shared-cipher",
    "no-shared-group",
    "certificate",
    "client-certificate",
    "peer-alert",
    "protocol",
    "internal",
    LATE,
];

/// Of a handshake that took too long.
const LATE: &str = "timeout";

impl HopMeters {
    /// Connections that became ready for messages.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections that did not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages that went over a connection that another had used before.
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Connections that stayed in clear.
    pub fn clear(&self) -> u64 {
        self.clear.load(Ordering::Relaxed)
    }

    /// TLS sessions that were resumed.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// TLS sessions by version, and whether the next hop was verified.
    pub fn sessions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let counts = SESSIONS.iter().zip(&self.sessions);
        counts.map(|((version, verified), count)| {
            (*version, *verified, count.load(Ordering::Relaxed))
        })
    }

    /// Handshakes that failed, by reason.
    pub fn handshakes_failed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = FAULTS.iter().zip(&self.handshakes_failed);
        counts.map(|(fault, count)| (*fault, count.load(Ordering::Relaxed)))
    }

    pub(super) fn ready(&self, security: Secured) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if security == Secured::No {
            self.clear.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn not_ready(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn used_again(&self) {
        self.reused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn secured(&self, facts: &Facts) {
        let version = match facts.version {
            "TLSv1.2" => "1.2",
            _ => "1.3",
        };
        let verified = match link::is_verified(facts) {
            true => "yes",
            false => "no",
        };
        let place = SESSIONS
            .iter()
            .position(|known| *known == (version, verified));
        if let Some(count) = place.and_then(|place| self.sessions.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if facts.resumed {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn handshake_failed(&self, fault: Fault) {
        let label = match fault {
            Fault::NotTls => "not-tls",
            Fault::Version => "version",
            Fault::NoSharedCipher => "no-shared-cipher",
            Fault::NoSharedGroup => "no-shared-group",
            Fault::ServerCertificate => "certificate",
            Fault::ClientCertificate => "client-certificate",
            Fault::PeerAlert(_) => "peer-alert",
            Fault::Protocol => "protocol",
            Fault::Internal => "internal",
        };
        self.count_fault(label);
    }

    pub(super) fn handshake_late(&self) {
        self.count_fault(LATE);
    }

    fn count_fault(&self, label: &str) {
        let place = FAULTS.iter().position(|known| *known == label);
        if let Some(count) = place.and_then(|place| self.handshakes_failed.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a connection is inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secured {
    Yes,
    No,
}
