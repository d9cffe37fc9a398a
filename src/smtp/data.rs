//! Mail data in memory: copied once, into a chain of blocks, against a budget of the process.
//!
//! Apart from the session because its bound holds for all sessions together.
//! Invariants:
//! - What all `MailData` of a budget have allocated is never more than the budget.
//! - Every octet taken from the budget is given back, however the message ends.
//! - A block is never moved or grown once it holds an octet, so nothing is copied twice.
//! - The checksum is that of the octets as they were pushed: it is taken then, not when they leave.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// First block of mail whose size nobody declared: a common small message with its header in one
/// allocation.
const BLOCK_OCTETS_DEFAULT: usize = 4 * 1024;

/// Smallest first block, so that a peer declaring `SIZE=1` does not make us chain crumbs.
const BLOCK_OCTETS_MIN: usize = 512;

/// Largest first block, whatever is declared: as many sessions as there may be by default, each with a
/// line of mail and a large SIZE, then still fit into the default budget and spend it for nobody else.
const FIRST_BLOCK_OCTETS_MAX: usize = 16 * 1024;

/// Largest block.
const BLOCK_OCTETS_MAX: usize = 256 * 1024;

/// How many octets of mail data the process may hold in memory, and how many it does.
///
/// Shared by all shards. Written once a block, not once a read.
#[derive(Debug)]
pub struct Budget {
    octets_max: u64,
    held: AtomicU64,
}

impl Budget {
    /// A budget of `octets_max` octets.
    pub fn new(octets_max: u64) -> Arc<Budget> {
        Arc::new(Budget {
            octets_max,
            held: AtomicU64::new(0),
        })
    }

    /// Octets allocated at the moment, for a metric.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn octets_max(&self) -> u64 {
        self.octets_max
    }

    /// Whether more than three quarters are held: time to put away what can be put away, before
    /// messages that cannot are refused.
    pub fn is_tight(&self) -> bool {
        // Less than a quarter is left. Too much for a product is more than a quarter of anything.
        let left = self.octets_max.saturating_sub(self.held());
        left.saturating_mul(4) < self.octets_max
    }

    /// Whether more than half is held: time to keep nothing that can be read again, before it is tight.
    pub fn is_half_spent(&self) -> bool {
        self.held() > self.octets_max / 2
    }

    /// Relaxed throughout: the number guards no other memory.
    fn take(&self, octets: u64) -> Result<(), BudgetSpent> {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(octets)
                    .filter(|sum| *sum <= self.octets_max)
            })
            .map(|_| ())
            .map_err(|_| BudgetSpent)
    }

    fn give_back(&self, octets: u64) {
        let before = self.held.fetch_sub(octets, Ordering::Relaxed);
        debug_assert!(
            before >= octets,
            "gave back {octets} of {before} octets held"
        );
    }
}

/// The process holds as much mail data as it may. Heals by itself: answered with 452.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory for mail data is spent")]
pub struct BudgetSpent;

/// The octets of one message, or those of it that follow on a part that was put away.
///
/// ```text
/// full:  [4 KiB][8 KiB][16 KiB] …   each up to 256 KiB
/// block: [32 KiB, part of it filled]
/// ```
pub struct MailData {
    budget: Arc<Budget>,
    full: Vec<Vec<u8>>,
    block: Vec<u8>,
    block_octets_next: usize,
    len: u64,
    held: u64,
    crc32c: u32,
}

impl MailData {
    /// Empty mail data; `declared_octets` sizes the first block. Allocates nothing yet.
    pub fn new(budget: &Arc<Budget>, declared_octets: Option<u64>) -> MailData {
        let block_octets_next = match declared_octets {
            None => BLOCK_OCTETS_DEFAULT,
            Some(octets) => usize::try_from(octets)
                .unwrap_or(FIRST_BLOCK_OCTETS_MAX)
                .clamp(BLOCK_OCTETS_MIN, FIRST_BLOCK_OCTETS_MAX),
        };
        MailData {
            budget: Arc::clone(budget),
            full: Vec::new(),
            block: Vec::new(),
            block_octets_next,
            len: 0,
            held: 0,
            crc32c: 0,
        }
    }

    /// Empty mail data for what comes behind this: its checksum goes on from here, its blocks start
    /// again from the default. Allocates nothing yet.
    pub fn continuing(&self) -> MailData {
        let mut data = MailData::new(&self.budget, None);
        data.crc32c = self.crc32c;
        data
    }

    /// Appends `octets`. After an error an unknown part of them is in; drop the whole.
    pub fn push(&mut self, mut octets: &[u8]) -> Result<(), BudgetSpent> {
        loop {
            let room = self.block.capacity() - self.block.len();
            let (now, later) = octets.split_at_checked(room).unwrap_or((octets, &[]));
            self.block.extend_from_slice(now);
            // Here, where the octets are in the cache.
            self.crc32c = crc32c::crc32c_append(self.crc32c, now);
            self.len += now.len() as u64;
            if later.is_empty() {
                return Ok(());
            }
            octets = later;
            self.open_block()?;
        }
    }

    /// How many octets are in.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no octet is in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// CRC-32C of the message up to the last octet in: of what was pushed, and of all that came
    /// before it if this [continues](MailData::continuing) other mail data.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// How many octets fit before another block is taken from the budget.
    pub(super) fn room(&self) -> u64 {
        (self.block.capacity() - self.block.len()) as u64
    }

    /// Whether the budget this is taken from [is tight](Budget::is_tight).
    pub(super) fn is_budget_tight(&self) -> bool {
        self.budget.is_tight()
    }

    /// The octets, in order. No slice is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.full
            .iter()
            .chain(Some(&self.block))
            .map(Vec::as_slice)
            .filter(|s| !s.is_empty())
    }

    fn open_block(&mut self) -> Result<(), BudgetSpent> {
        let octets = self.block_octets_next;
        self.budget.take(octets as u64)?;
        self.held += octets as u64;
        // `with_capacity` allocates exactly what is asked for when elements are octets, so the
        // budget sees all that `push` fills.
        let full = std::mem::replace(&mut self.block, Vec::with_capacity(octets));
        if !full.is_empty() {
            self.full.push(full);
        }
        self.block_octets_next = octets.saturating_mul(2).min(BLOCK_OCTETS_MAX);
        Ok(())
    }
}

impl Drop for MailData {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

/// Sizes only: mail never gets into a log.
impl fmt::Debug for MailData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailData")
            .field("len", &self.len)
            .field("held", &self.held)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(data: &MailData) -> Vec<u8> {
        data.slices().flatten().copied().collect()
    }

    #[test]
    fn octets_come_out_as_they_went_in() {
        let mut random = fastrand::Rng::with_seed(7);
        let budget = Budget::new(u64::MAX);
        for declared in [None, Some(0), Some(700), Some(5_000), Some(u64::MAX)] {
            let mut data = MailData::new(&budget, declared);
            let mut expected = Vec::new();
            for _ in 0..60 {
                let octets = random.usize(..40_000);
                let run: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                    .take(octets)
                    .collect();
                data.push(&run).unwrap();
                expected.extend_from_slice(&run);
                assert_eq!(data.len(), expected.len() as u64);
            }
            assert!(joined(&data) == expected, "declared {declared:?}");
            assert!(data.slices().all(|slice| !slice.is_empty()));
        }
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn the_checksum_is_that_of_the_whole_however_it_is_cut() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the polynomial");
        let budget = Budget::new(u64::MAX);
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let octets = random.usize(..100_000);
            let whole: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(octets)
                .collect();
            let mut data = MailData::new(&budget, None);
            let mut rest = &whole[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.usize(1..=rest.len().min(9_000)));
                data.push(now).unwrap();
                rest = later;
                assert_eq!(
                    data.crc32c(),
                    crc32c::crc32c(&whole[..whole.len() - rest.len()]),
                    "seed {seed}"
                );
                // Where the message goes on makes no difference either.
                if random.u8(..4) == 0 {
                    data = data.continuing();
                    assert!(data.is_empty(), "seed {seed}");
                }
            }
            assert_eq!(data.crc32c(), crc32c::crc32c(&whole), "seed {seed}");
        }
    }

    #[test]
    fn what_continues_starts_again_with_small_blocks() {
        let budget = Budget::new(u64::MAX);
        let mut first = MailData::new(&budget, Some(1 << 40));
        first.push(&[b'x'; 100_000]).unwrap();
        let mut second = first.continuing();
        drop(first);
        assert_eq!(budget.held(), 0);
        second.push(b"x").unwrap();
        assert_eq!((second.len(), budget.held()), (1, 4096));
        assert_eq!(second.room(), 4095);
    }

    #[test]
    fn tight_is_more_than_three_quarters() {
        // octets_max, held, whether that is tight
        let rows = [
            (4, 3, false),
            (4, 4, true),
            (5, 3, false),
            (5, 4, true),
            (6, 4, false),
            (6, 5, true),
            (0, 0, false),
            (u64::MAX, u64::MAX / 4 * 3, false),
            (u64::MAX, u64::MAX / 4 * 3 + 3, true),
            (u64::MAX, 0, false),
        ];
        for (octets_max, held, wanted) in rows {
            let budget = Budget::new(octets_max);
            budget.take(held).unwrap();
            assert_eq!(budget.is_tight(), wanted, "{held} of {octets_max}");
        }
    }

    #[test]
    fn blocks_begin_at_the_hint_and_double() {
        // name, declared, octets pushed, what the budget has lent
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, Option<u64>, usize, u64)] = &[
            ("nothing pushed", Some(1 << 30), 0, 0),
            ("small, undeclared", None, 2048, 4096),
            ("full to the brim", None, 4096, 4096),
            ("one octet more", None, 4097, 4096 + 8192),
            ("declared exactly", Some(2100), 2100, 2100),
            ("declared too low", Some(2100), 2101, 2100 + 4200),
            ("declared as nothing", Some(0), 1, 512),
            ("declared huge", Some(1 << 40), 1, 16 * 1024),
            ("more than the first block", Some(1 << 40), 16 * 1024 + 1, 48 * 1024),
            ("blocks stop doubling", Some(1 << 40), 752 * 1024 + 1, 1008 * 1024),
        ];
        for (name, declared, octets, held) in rows {
            let budget = Budget::new(u64::MAX);
            let mut data = MailData::new(&budget, *declared);
            data.push(&vec![b'x'; *octets]).unwrap();
            assert_eq!(budget.held(), *held, "{name}");
            assert_eq!(data.is_empty(), *octets == 0, "{name}");
            drop(data);
            assert_eq!(budget.held(), 0, "{name}");
        }
    }

    #[test]
    fn a_spent_budget_refuses_and_heals() {
        let budget = Budget::new(4096 + 512);
        let mut first = MailData::new(&budget, None);
        first.push(b"first").unwrap();
        let mut second = MailData::new(&budget, Some(512));
        second.push(&[b'x'; 512]).unwrap();
        assert_eq!(second.push(b"x"), Err(BudgetSpent));
        assert_eq!(first.push(&[b'x'; 4096]), Err(BudgetSpent));
        assert_eq!(budget.held(), budget.octets_max());
        drop(first);
        second.push(b"x").unwrap();
        assert_eq!(second.len(), 513);
    }

    #[test]
    fn many_threads_never_hold_more_than_the_budget() {
        let budget = Budget::new(64 * 1024);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let mut data = MailData::new(&budget, None);
                        while data.len() < 20_000 && data.push(&[b'x'; 3000]).is_ok() {
                            assert!(budget.held() <= budget.octets_max());
                        }
                    }
                });
            }
        });
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn debug_shows_no_mail() {
        let mut data = MailData::new(&Budget::new(u64::MAX), None);
        data.push(b"secret").unwrap();
        assert_eq!(format!("{data:?}"), "MailData { len: 6, held: 4096 }");
    }
}
