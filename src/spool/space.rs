//! How many octets the spool may take on disk, for the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The octets of `--spool-max-bytes`, and how many of them are taken.
#[derive(Debug)]
pub struct Space {
    octets_max: u64,
    taken: AtomicU64,
}

/// The spool takes as much of the disk as it may. Heals when mail is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool is full")]
pub struct SpaceSpent;

impl Space {
    /// Space of so many octets.
    pub fn new(octets_max: u64) -> Arc<Space> {
        Arc::new(Space {
            octets_max,
            taken: AtomicU64::new(0),
        })
    }

    /// The bound.
    pub fn octets_max(&self) -> u64 {
        self.octets_max
    }

    /// Octets taken at the moment.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether more than three quarters are taken: what is only kept ready is better given back.
    pub(super) fn is_tight(&self) -> bool {
        self.would_be_tight(0)
    }

    /// Whether it would be tight with so many octets more.
    pub(super) fn would_be_tight(&self, octets: u64) -> bool {
        let taken = self.taken().saturating_add(octets);
        let left = self.octets_max.saturating_sub(taken);
        left.saturating_mul(4) < self.octets_max
    }

    /// Relaxed throughout: the number guards no other memory.
    pub(super) fn take(&self, octets: u64) -> Result<(), SpaceSpent> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken
                    .checked_add(octets)
                    .filter(|sum| *sum <= self.octets_max)
            })
            .map(|_| ())
            .map_err(|_| SpaceSpent)
    }

    /// What lies there already counts, also above the bound.
    pub(super) fn take_anyway(&self, octets: u64) {
        self.taken.fetch_add(octets, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, octets: u64) {
        let before = self.taken.fetch_sub(octets, Ordering::Relaxed);
        debug_assert!(before >= octets, "gave back {octets} of {before} octets");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_comes_back() {
        let space = Space::new(100);
        space.take(60).unwrap();
        assert_eq!(space.take(41), Err(SpaceSpent));
        space.take(40).unwrap();
        space.take_anyway(5);
        assert_eq!(space.taken(), 105);
        space.give_back(60);
        assert_eq!(space.take(56), Err(SpaceSpent));
        space.take(55).unwrap();
    }
}
