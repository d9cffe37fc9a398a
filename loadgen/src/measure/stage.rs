//! The stages of a session that are timed, each with a histogram of its own.
//!
//! Apart from the thread because what a stage is, is what a reader of the report has to know. Invariant:
//! percentiles are those of the histogram, whose buckets are at most 0.1 % wide; least, greatest, and how
//! many there were are exact.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the start of connecting to the last octet of the greeting; on a TLS port the handshake lies in
    /// between.
    Greeting,
    /// From STARTTLS to its reply.
    Starttls,
    /// The TLS handshake, as the client sees it: until it may send.
    Handshake,
    /// From the start of connecting to the moment when the first MAIL can be said: greeting, EHLO, STARTTLS,
    /// handshake, EHLO again, AUTH.
    Ready,
    /// A message from the moment when it was due to its final reply. Only an open loop has such moments.
    MessageDue,
    /// A message from its MAIL to its final reply.
    Message,
    /// From the start of connecting to the reply to QUIT. A session that had fewer messages than asked for because
    /// there were no more is not in it.
    Session,
    /// How late a message was handed to a connection that was free for it: the load generator's own fault.
    Lateness,
}

impl Stage {
    /// All, in the order in which they come.
    pub const ALL: [Stage; 8] = [
        Stage::Greeting,
        Stage::Starttls,
        Stage::Handshake,
        Stage::Ready,
        Stage::MessageDue,
        Stage::Message,
        Stage::Session,
        Stage::Lateness,
    ];

    /// For a table: what lies between which two events.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Greeting => "connect to greeting",
            Stage::Starttls => "STARTTLS to its reply",
            Stage::Handshake => "TLS handshake",
            Stage::Ready => "connect to ready",
            Stage::MessageDue => "message, from when it was due",
            Stage::Message => "message, from when it was sent",
            Stage::Session => "session, connect to QUIT",
            Stage::Lateness => "own lateness",
        }
    }
}

/// A histogram for each stage.
#[derive(Clone, Debug)]
pub struct Stages([Histogram<u64>; Stage::ALL.len()]);

impl Default for Stages {
    fn default() -> Stages {
        Stages(std::array::from_fn(|_| empty()))
    }
}

impl Stages {
    /// Adds a time.
    pub fn record(&mut self, stage: Stage, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(histogram) = self.0.get_mut(stage as usize) {
            histogram.saturating_record(nanoseconds.clamp(1, NANOSECONDS_MAX));
        }
    }

    /// Adds all times of another one.
    pub fn add(&mut self, other: &Stages) {
        for (own, others) in self.0.iter_mut().zip(&other.0) {
            // Both have the same bounds, so every value of the one fits the other.
            let _fits = own.add(others);
        }
    }

    /// Those that have times, as figures.
    pub fn figures(&self) -> BTreeMap<Stage, Percentiles> {
        let with_times = Stage::ALL.into_iter().zip(&self.0);
        with_times
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(stage, histogram)| (stage, Percentiles::of(histogram)))
            .collect()
    }
}

/// A stage's times as figures, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many times there are.
    pub count: u64,
    /// The least.
    pub least: f64,
    /// The mean.
    pub mean: f64,
    /// Half are at most this.
    pub p50: f64,
    /// 90 % are.
    pub p90: f64,
    /// 99 % are.
    pub p99: f64,
    /// 99.9 % are.
    pub p99_9: f64,
    /// The greatest.
    pub greatest: f64,
    /// The whole distribution: shares of the times, and what they are at most; denser towards the end.
    pub curve: Vec<CurvePoint>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The share of the times, 0 to 1.
    pub share: f64,
    /// What they are at most, in microseconds.
    pub us: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |share: f64| microseconds(histogram.value_at_quantile(share).min(histogram.max()));
        Percentiles {
            count: histogram.len(),
            least: microseconds(histogram.min()),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            greatest: microseconds(histogram.max()),
            curve: histogram
                .iter_quantiles(CURVE_TICKS)
                .map(|step| CurvePoint {
                    share: step.quantile_iterated_to(),
                    us: microseconds(step.value_iterated_to().min(histogram.max())),
                })
                .collect(),
        }
    }
}

fn empty() -> Histogram<u64> {
    // The bounds are constants that the library takes.
    #[expect(clippy::expect_used, reason = "constants; a test makes one")]
    Histogram::new_with_bounds(1, NANOSECONDS_MAX, 3).expect("bounds that are taken")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an hour in nanoseconds has 42 bits"
)]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// An hour; what takes longer counts as an hour.
const NANOSECONDS_MAX: u64 = 3_600_000_000_000;

/// Points of a curve in each halving of what is left to 100 %.
const CURVE_TICKS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_an_exact_computation() {
        let mut stages = Stages::default();
        let mut times: Vec<u64> = (0..10_000_u64).map(|n| 50 + n * n % 7919 * 13).collect();
        for time in &times {
            stages.record(Stage::Message, Duration::from_micros(*time));
        }
        times.sort_unstable();
        let figures = &stages.figures()[&Stage::Message];
        assert_eq!(figures.count, 10_000);
        for (below, found) in [
            (5_000, figures.p50),
            (9_000, figures.p90),
            (9_900, figures.p99),
            (9_990, figures.p99_9),
            (10_000, figures.greatest),
        ] {
            let exact = times[below - 1] as f64;
            assert!(
                (found / exact - 1.0).abs() < 0.001,
                "{below} of 10,000: {found}, exactly {exact}"
            );
        }
    }

    #[test]
    fn what_two_threads_measured_adds_up() {
        let (mut one, mut other) = (Stages::default(), Stages::default());
        one.record(Stage::Session, Duration::from_millis(1));
        other.record(Stage::Session, Duration::from_secs(7200));
        one.add(&other);
        let figures = &one.figures()[&Stage::Session];
        assert_eq!(figures.count, 2);
        assert!(figures.greatest >= 3.59e9, "an hour at most: {figures:?}");
        assert_eq!(one.figures().len(), 1);
    }
}
