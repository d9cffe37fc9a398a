//! The cells that metrics are kept in: plain atomics, each written by one thread.
//!
//! Adding is a relaxed load and a relaxed store. That is exact because nobody else writes the
//! cell, and costs what adding to a `u64` costs; a reader on another thread sees some whole value.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::label::Label;

/// A number that only grows. One thread may write it.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and shrinks, never below zero. One thread may write it.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    pub(super) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(super) fn sub(&self, count: u64) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert!(now >= count, "more taken from a gauge than was added");
        self.0.store(now.saturating_sub(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations sorted into buckets with fixed upper bounds. One thread may write it.
#[derive(Debug)]
pub(super) struct Histogram<B, const N: usize> {
    /// One for each bound, then one for what is above the last. In place, not in a box: a box's
    /// neighbours on its cache line could belong to another shard.
    buckets: [Counter; N],
    /// Nanoseconds: exact, and 584 years until it wraps.
    sum: Counter,
    bounds: PhantomData<B>,
}

/// The upper bounds of a histogram's buckets.
pub(super) trait Bounds {
    /// In nanoseconds, ascending; a duration equal to a bound is below it.
    const NANOSECONDS: &'static [u64];
}

/// For what takes microseconds to seconds: a handshake over whatever network, a commit.
#[derive(Debug)]
pub(super) struct Short;

impl Bounds for Short {
    // 50 µs is below the fastest sync of a disk, 30 s the default handshake timeout.
    const NANOSECONDS: &'static [u64] = &[
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
        30_000_000_000,
    ];
}

/// For what a peer draws out: a session.
#[derive(Debug)]
pub(super) struct Long;

impl Bounds for Long {
    // 1 h is the default session timeout.
    const NANOSECONDS: &'static [u64] = &[
        1_000_000,
        10_000_000,
        50_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
        30_000_000_000,
        60_000_000_000,
        300_000_000_000,
        600_000_000_000,
        1_800_000_000_000,
        3_600_000_000_000,
    ];
}

pub(super) type ShortHistogram = Histogram<Short, { Short::NANOSECONDS.len() + 1 }>;
pub(super) type LongHistogram = Histogram<Long, { Long::NANOSECONDS.len() + 1 }>;

impl<B: Bounds, const N: usize> Default for Histogram<B, N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
            bounds: PhantomData,
        }
    }
}

impl<B: Bounds, const N: usize> Histogram<B, N> {
    /// In nanoseconds.
    pub(super) const BOUNDS: &'static [u64] = B::NANOSECONDS;

    pub(super) fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = B::NANOSECONDS.partition_point(|bound| *bound < nanoseconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
            self.sum.add(nanoseconds);
        }
    }

    /// The sum in nanoseconds, and the counts: one a bound, and one above.
    pub(super) fn get(&self) -> (u64, [u64; N]) {
        (self.sum.get(), self.buckets.each_ref().map(Counter::get))
    }
}

/// One cell for each value of a label.
#[derive(Debug)]
pub(super) struct Family<L, C, const N: usize> {
    cells: [C; N],
    label: PhantomData<L>,
}

impl<L, C: Default, const N: usize> Default for Family<L, C, N> {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| C::default()),
            label: PhantomData,
        }
    }
}

impl<L: Label, C, const N: usize> Family<L, C, N> {
    /// The cell of `label`: there always is one when `N` is the number of labels.
    pub(super) fn of(&self, label: L) -> Option<&C> {
        debug_assert_eq!(N, L::ALL.len(), "a cell for each value of the label");
        self.cells.get(label.index())
    }
}

impl<L: Label, const N: usize> Family<L, Counter, N> {
    pub(super) fn add(&self, label: L, count: u64) {
        if let Some(cell) = self.of(label) {
            cell.add(count);
        }
    }
}

impl<L: Label, const N: usize> Family<L, Gauge, N> {
    pub(super) fn add(&self, label: L, count: u64) {
        if let Some(cell) = self.of(label) {
            cell.add(count);
        }
    }

    pub(super) fn sub(&self, label: L, count: u64) {
        if let Some(cell) = self.of(label) {
            cell.sub(count);
        }
    }
}

impl<L: Label, B: Bounds, const M: usize, const N: usize> Family<L, Histogram<B, M>, N> {
    pub(super) fn observe(&self, label: L, duration: Duration) {
        if let Some(cell) = self.of(label) {
            cell.observe(duration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_bucket() {
        let last = Short::NANOSECONDS.len();
        let rows = [
            ("zero", Duration::ZERO, 0),
            ("at the first bound", Duration::from_micros(50), 0),
            ("just above it", Duration::from_nanos(50_001), 1),
            ("in the midst", Duration::from_millis(3), 6),
            ("at the last bound", Duration::from_secs(30), last - 1),
            ("above the last bound", Duration::from_secs(31), last),
            (
                "longer than a u64 of nanoseconds",
                Duration::from_secs(u64::MAX),
                last,
            ),
        ];
        for (name, duration, bucket) in rows {
            let histogram = ShortHistogram::default();
            histogram.observe(duration);
            let (_, counts) = histogram.get();
            assert_eq!(counts.iter().position(|n| *n == 1), Some(bucket), "{name}");
        }
    }

    #[test]
    fn sums_are_exact() {
        let histogram = LongHistogram::default();
        for _ in 0..1_000_000 {
            histogram.observe(Duration::from_nanos(100_000_001));
        }
        assert_eq!(histogram.get().0, 100_000_001_000_000);
    }

    #[test]
    fn bounds_ascend() {
        assert!(Short::NANOSECONDS.is_sorted() && Long::NANOSECONDS.is_sorted());
    }
}
