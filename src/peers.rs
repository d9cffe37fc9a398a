//! Counts the places that each peer holds, and says who counts as one peer.
//!
//! Apart from what has places to give because each such limit means the same peer by "one address", and counts
//! it the same way.
//! Invariants:
//! - Never more than `max` places of one peer are alive at once.
//! - A place gives itself back when it is dropped.
//! - A peer without a place has no entry here: who bounds the places bounds the map.
//!
//! A count takes a lock, one of 64, held for a look into a map.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places counted by peer, in stripes so that threads seldom meet at one lock.
#[derive(Debug)]
pub struct Peers {
    max: usize,
    /// Keyed at random: peers choose their addresses, and must not choose their stripe.
    hasher: RandomState,
    stripes: [Mutex<HashMap<Peer, usize>>; STRIPES],
}

/// One place of a peer, given back on drop.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct PeerPlace {
    peers: Arc<Peers>,
    peer: Peer,
}

impl Peers {
    /// At most `max` places for each peer.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            hasher: RandomState::new(),
            stripes: std::array::from_fn(|_| Mutex::new(HashMap::new())),
        })
    }

    /// A place for the peer at `ip`; `None`: it has as many as it may.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<PeerPlace> {
        let peer = Peer::of(ip);
        self.with_stripe(peer, |stripe| match stripe.entry(peer) {
            Entry::Occupied(mut entry) => (*entry.get() < self.max).then(|| *entry.get_mut() += 1),
            Entry::Vacant(entry) => (self.max > 0).then(|| {
                entry.insert(1);
            }),
        })?;
        Some(PeerPlace {
            peers: Arc::clone(self),
            peer,
        })
    }

    fn leave(&self, peer: Peer) {
        self.with_stripe(peer, |stripe| {
            if let Entry::Occupied(mut entry) = stripe.entry(peer) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        });
    }

    fn with_stripe<T>(&self, peer: Peer, look: impl FnOnce(&mut HashMap<Peer, usize>) -> T) -> T {
        let hash = self.hasher.hash_one(peer);
        let [first, ..] = &self.stripes;
        let stripe = usize::try_from(hash % STRIPES as u64)
            .ok()
            .and_then(|index| self.stripes.get(index))
            .unwrap_or(first);
        // A panic between two statements of `look` cannot leave a count half changed.
        look(&mut stripe.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many peers have an entry.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.stripes
            .iter()
            .map(|stripe| stripe.lock().unwrap().len())
            .sum()
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.peers.leave(self.peer);
    }
}

/// Whom a limit by peer counts as one: an IPv4 address, or an IPv6 /64.
///
/// A /64 is what one customer gets; by single addresses nobody would ever reach the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Peer(IpAddr);

impl Peer {
    fn of(ip: IpAddr) -> Self {
        // ::ffff:192.0.2.1 on a dual-stack socket is 192.0.2.1.
        Self(match ip.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK_MASK)),
        })
    }
}

/// The upper 64 bits of an IPv6 address.
const NETWORK_MASK: u128 = !0 << 64;

/// Far more than a machine has shards: two seldom want the same lock.
const STRIPES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_counts_as_one_peer() {
        let rows = [
            ("same IPv4 address", "192.0.2.1", "192.0.2.1", true),
            (
                "neighbouring IPv4 addresses",
                "192.0.2.1",
                "192.0.2.2",
                false,
            ),
            (
                "mapped and plain IPv4",
                "::ffff:192.0.2.1",
                "192.0.2.1",
                true,
            ),
            (
                "two mapped IPv4 addresses",
                "::ffff:192.0.2.1",
                "::ffff:192.0.2.2",
                false,
            ),
            (
                "one /64",
                "2001:db8:0:1::1",
                "2001:db8:0:1:ffff:ffff:ffff:ffff",
                true,
            ),
            ("two /64", "2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ];
        for (name, one, other, same) in rows {
            let peers = Peers::new(1);
            let _held = peers.enter(ip(one)).unwrap();
            assert_eq!(peers.enter(ip(other)).is_none(), same, "{name}");
        }
    }

    #[test]
    fn places_come_back_and_are_forgotten() {
        let peers = Peers::new(2);
        let first = peers.enter(ip("192.0.2.1")).unwrap();
        let second = peers.enter(ip("192.0.2.1")).unwrap();
        assert!(peers.enter(ip("192.0.2.1")).is_none());
        drop(first);
        let third = peers.enter(ip("192.0.2.1")).unwrap();
        assert!(peers.enter(ip("192.0.2.1")).is_none());
        assert_eq!(peers.remembered(), 1);
        drop((second, third));
        assert_eq!(peers.remembered(), 0);
    }

    #[test]
    fn no_place_at_all_leaves_no_entry() {
        let peers = Peers::new(0);
        assert!(peers.enter(ip("192.0.2.1")).is_none());
        assert_eq!(peers.remembered(), 0);
    }
}
