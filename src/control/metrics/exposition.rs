//! The reading end: adds the cells of all shards up and writes them as text.
//!
//! The text is that of OpenMetrics 1.0, which Prometheus reads by its content type. Names begin
//! with `ringpost_`; those that Prometheus defines for any process begin with `process_`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::cells::{Bounds, Counter, Family, Histogram};
use super::label::{Label, labels};
use super::process::Process;
use super::{CODES, Cells, OTHER_COLUMN, Refusal, ShardMetrics, TlsMeans, TlsVersion, Verb};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    state: Arc<State>,
    registry: Registry,
}

/// What this program is made of, for `ringpost_build_info`.
#[derive(Debug, Clone)]
pub struct Build {
    /// The version of ringpost.
    pub version: String,
    /// The version of OpenSSL that it runs with, as OpenSSL tells it.
    pub openssl: String,
}

/// What kind of number [`Metrics::watch`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. The name in the text gets `_total` behind it.
    Counter,
    /// Goes up and down.
    Gauge,
}

labels! {
    /// How a reload of all files ended.
    pub enum Reload {
        /// All new ones are in use.
        Done => "done",
        /// One of them does not load, and its old one stays.
        Failed => "failed",
    }
}

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// Metrics without a shard yet. The process is taken to have started now.
    pub fn new(build: Build) -> Self {
        let state = Arc::new(State {
            build,
            process: Process::started_now(),
            shards: Mutex::new(Vec::new()),
            watched: Mutex::new(Vec::new()),
            told: Mutex::new(Vec::new()),
            reloads: Default::default(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&state)));
        Self { state, registry }
    }

    /// Tells of a fact that does not change: a label and its value. The name in the text gets `_info` behind it.
    pub fn tell(
        &self,
        name: &'static str,
        help: &'static str,
        label: (&'static str, &'static str),
    ) {
        locked(&self.state.told).push(Told { name, help, label });
    }

    /// Metrics for one more shard.
    pub fn add_shard(&self) -> ShardMetrics {
        let cells = Arc::new(Cells::default());
        locked(&self.state.shards).push(Arc::clone(&cells));
        ShardMetrics::new(cells)
    }

    /// Adds a number that is kept elsewhere, and read by `read` at each scrape. The name is
    /// written as it is but for a counter's `_total`; the help ends in a full stop.
    pub fn watch(
        &self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        locked(&self.state.watched).push(Watched {
            name,
            help,
            read: match kind {
                Kind::Counter => Reading::Counter(Box::new(read)),
                Kind::Gauge => Reading::Gauge(Box::new(read)),
            },
        });
    }

    /// Adds counters that are kept elsewhere under one name: a row of labels and a number for each.
    pub fn watch_rows(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Rows + Send + Sync + 'static,
    ) {
        let read = Reading::Rows(Box::new(read));
        locked(&self.state.watched).push(Watched { name, help, read });
    }

    /// The files were loaded anew. For any thread.
    pub fn reloaded(&self, outcome: Reload) {
        if let Some(count) = self.state.reloads.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them, as text of the type [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(TEXT_OCTETS_EXPECTED);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What a scrape reads.
#[derive(Debug)]
struct State {
    build: Build,
    process: Process,
    /// Kept when a shard ends: counters never go back. Locked when a shard is added, and by a
    /// scrape.
    shards: Mutex<Vec<Arc<Cells>>>,
    watched: Mutex<Vec<Watched>>,
    told: Mutex<Vec<Told>>,
    reloads: [AtomicU64; Reload::ALL.len()],
}

/// A fact that does not change.
#[derive(Debug)]
struct Told {
    name: &'static str,
    help: &'static str,
    label: (&'static str, &'static str),
}

/// Something that is counted elsewhere.
struct Watched {
    name: &'static str,
    help: &'static str,
    read: Reading,
}

/// Reads it.
enum Reading {
    Counter(Box<dyn Fn() -> u64 + Send + Sync>),
    Gauge(Box<dyn Fn() -> u64 + Send + Sync>),
    Rows(Box<dyn Fn() -> Rows + Send + Sync>),
}

/// Labels with their values, and the number that belongs to them.
pub type Rows = Vec<(Vec<(&'static str, &'static str)>, u64)>;

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for State {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shards = locked(&self.shards).clone();
        let mut text = Text { encoder };
        self.build(&mut text)?;
        for told in locked(&self.told).iter() {
            text.encoder
                .encode_descriptor(told.name, told.help, None, MetricType::Info)?
                .encode_info(&[told.label])?;
        }
        text.gauge(
            "ringpost_shards",
            "Shards that were started.",
            count(shards.len()),
        )?;
        sessions(&mut text, &shards)?;
        dialogues(&mut text, &shards)?;
        messages(&mut text, &shards)?;
        handshakes(&mut text, &shards)?;
        trouble(&mut text, &shards)?;
        self.reloads(&mut text)?;
        for watched in locked(&self.watched).iter() {
            let Watched { name, help, read } = watched;
            match read {
                Reading::Counter(read) => text.counter(name, help, read())?,
                Reading::Gauge(read) => text.gauge(name, help, read())?,
                Reading::Rows(read) => text.counters(name, help, read().into_iter())?,
            }
        }
        self.process.encode(&mut text)
    }
}

impl State {
    fn build(&self, text: &mut Text<'_>) -> fmt::Result {
        let labels = [
            ("version", self.build.version.as_str()),
            ("openssl", self.build.openssl.as_str()),
        ];
        text.encoder
            .encode_descriptor("ringpost_build", "What runs here.", None, MetricType::Info)?
            .encode_info(&labels)
    }

    fn reloads(&self, text: &mut Text<'_>) -> fmt::Result {
        let rows = Reload::ALL.iter().zip(&self.reloads);
        text.counters(
            "ringpost_reloads",
            "Reloads of certificates, keys, users and recipients, all of them together.",
            rows.map(|(outcome, count)| {
                (
                    [("outcome", outcome.label())],
                    count.load(Ordering::Relaxed),
                )
            }),
        )
    }
}

fn sessions(text: &mut Text<'_>, shards: &[Arc<Cells>]) -> fmt::Result {
    text.family(
        "ringpost_sessions",
        "Sessions begun.",
        "listener",
        shards,
        |cells| &cells.sessions,
    )?;
    let open = super::Listener::ALL.iter().map(|listener| {
        let open = shards
            .iter()
            .filter_map(|cells| cells.sessions_open.of(*listener));
        (
            [("listener", listener.label())],
            open.map(|gauge| gauge.get()).sum(),
        )
    });
    text.gauges("ringpost_sessions_open", "Sessions open now.", open)?;
    let tls = [TlsMeans::StartTls, TlsMeans::Implicit]
        .into_iter()
        .flat_map(|means| {
            TlsVersion::ALL.iter().map(move |version| {
                let cells = shards.iter().filter_map(|cells| {
                    let family = match means {
                        TlsMeans::StartTls => &cells.tls_sessions_negotiated,
                        TlsMeans::Implicit => &cells.tls_sessions_implicit,
                    };
                    family.of(*version)
                });
                (
                    [("version", version.label()), ("means", means.label())],
                    sum(cells),
                )
            })
        });
    text.counters(
        "ringpost_tls_sessions",
        "Sessions that came to speak TLS.",
        tls,
    )?;
    text.histograms(
        "ringpost_session_seconds",
        "How long sessions lasted.",
        "listener",
        shards,
        |cells| &cells.session_seconds,
    )?;
    text.family(
        "ringpost_connections_refused",
        "Connections turned away before they became a session.",
        "reason",
        shards,
        |cells| &cells.connections_refused,
    )?;
    text.total(
        "ringpost_received_bytes",
        "Octets received from peers, as they came over the wire.",
        shards,
        |cells| &cells.octets_received,
    )?;
    text.total(
        "ringpost_sent_bytes",
        "Octets sent to peers, as they went over the wire.",
        shards,
        |cells| &cells.octets_sent,
    )
}

fn dialogues(text: &mut Text<'_>, shards: &[Arc<Cells>]) -> fmt::Result {
    // Only what occurred: the table has 600 cells, and a dialogue uses a dozen of them.
    let codes: Vec<String> = CODES.iter().map(u16::to_string).collect();
    let columns = codes.iter().map(String::as_str).chain(["other"]);
    let replies = Verb::ALL.iter().flat_map(|verb| {
        columns.clone().enumerate().filter_map(|(column, code)| {
            debug_assert!(column <= usize::from(OTHER_COLUMN));
            let cells = shards
                .iter()
                .filter_map(|cells| cells.replies.of(*verb)?.0.get(column));
            let count = sum(cells);
            (count > 0).then(|| ([("verb", verb.label()), ("code", code)], count))
        })
    });
    text.counters("ringpost_replies", "Replies written.", replies)?;
    text.family::<Refusal, _>(
        "ringpost_refusals",
        "What was refused, by reason.",
        "reason",
        shards,
        |cells| &cells.refusals,
    )?;
    text.family(
        "ringpost_auth",
        "Verdicts on credentials.",
        "outcome",
        shards,
        |cells| &cells.auth,
    )
}

fn messages(text: &mut Text<'_>, shards: &[Arc<Cells>]) -> fmt::Result {
    text.family(
        "ringpost_transactions",
        "Transactions ended.",
        "outcome",
        shards,
        |cells| &cells.transactions,
    )?;
    text.total("ringpost_messages", "Messages accepted.", shards, |cells| {
        &cells.messages
    })?;
    text.total(
        "ringpost_message_bytes",
        "Octets of the messages accepted.",
        shards,
        |cells| &cells.message_octets,
    )?;
    text.total(
        "ringpost_recipients",
        "Recipients of the messages accepted.",
        shards,
        |cells| &cells.recipients,
    )?;
    text.histogram(
        "ringpost_commit_seconds",
        "From the end of data to a durable message, or to the failure to make it so.",
        shards,
        |cells| &cells.commit_seconds,
    )
}

fn handshakes(text: &mut Text<'_>, shards: &[Arc<Cells>]) -> fmt::Result {
    // Counted by the histogram's cells: two counts of one thing could come to differ.
    let done = super::HandshakeKind::ALL.iter().map(|kind| {
        let cells = shards
            .iter()
            .filter_map(|cells| cells.handshake_seconds.of(*kind));
        let count = cells
            .map(|histogram| histogram.get().1.iter().sum::<u64>())
            .sum();
        ([("kind", kind.label())], count)
    });
    text.counters(
        "ringpost_handshakes",
        "TLS handshakes that succeeded.",
        done,
    )?;
    text.histograms(
        "ringpost_handshake_seconds",
        "How long TLS handshakes took that succeeded, waiting for the peer included.",
        "kind",
        shards,
        |cells| &cells.handshake_seconds,
    )?;
    text.family(
        "ringpost_handshake_failures",
        "TLS handshakes that failed.",
        "reason",
        shards,
        |cells| &cells.handshake_failures,
    )
}

fn trouble(text: &mut Text<'_>, shards: &[Arc<Cells>]) -> fmt::Result {
    text.total(
        "ringpost_receive_buffers_short",
        "Receives that found no buffer, and were asked for again.",
        shards,
        |cells| &cells.receive_buffers_short,
    )?;
    text.total(
        "ringpost_accept_errors",
        "Accepts that failed.",
        shards,
        |cells| &cells.accept_errors,
    )
}

/// Writes families of metrics one after the other.
pub(super) struct Text<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Text<'_> {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    pub(super) fn float_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    pub(super) fn float_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn total(
        &mut self,
        name: &str,
        help: &str,
        shards: &[Arc<Cells>],
        cell: impl Fn(&Cells) -> &Counter,
    ) -> fmt::Result {
        self.counter(name, help, sum(shards.iter().map(|cells| cell(cells))))
    }

    fn family<L: Label, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        key: &'static str,
        shards: &[Arc<Cells>],
        family: impl Fn(&Cells) -> &Family<L, Counter, N>,
    ) -> fmt::Result {
        let rows = L::ALL.iter().map(|label| {
            let cells = shards.iter().filter_map(|cells| family(cells).of(*label));
            ([(key, label.label())], sum(cells))
        });
        self.counters(name, help, rows)
    }

    fn histogram<B: Bounds + 'static, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        shards: &[Arc<Cells>],
        cell: impl Fn(&Cells) -> &Histogram<B, N>,
    ) -> fmt::Result {
        let metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        encode_histogram(metric, shards.iter().map(|cells| cell(cells)))
    }

    fn histograms<L: Label, B: Bounds + 'static, const M: usize, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        key: &'static str,
        shards: &[Arc<Cells>],
        family: impl Fn(&Cells) -> &Family<L, Histogram<B, M>, N>,
    ) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for label in L::ALL {
            let cells = shards.iter().filter_map(|cells| family(cells).of(*label));
            encode_histogram(metric.encode_family(&[(key, label.label())])?, cells)?;
        }
        Ok(())
    }
}

fn encode_histogram<'h, B: Bounds + 'static, const N: usize>(
    mut metric: MetricEncoder<'_>,
    shards: impl Iterator<Item = &'h Histogram<B, N>>,
) -> fmt::Result {
    let mut sum_nanoseconds = 0u64;
    let mut counts = [0u64; N];
    for histogram in shards {
        let (sum, of_shard) = histogram.get();
        sum_nanoseconds = sum_nanoseconds.wrapping_add(sum);
        for (total, count) in counts.iter_mut().zip(of_shard) {
            *total += count;
        }
    }
    let bounds = Histogram::<B, N>::BOUNDS
        .iter()
        .map(|bound| seconds(*bound));
    let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
    metric.encode_histogram::<NoLabelSet>(
        seconds(sum_nanoseconds),
        counts.iter().sum(),
        &buckets,
        None,
    )
}

fn sum<'c>(cells: impl Iterator<Item = &'c Counter>) -> u64 {
    cells.map(Counter::get).sum()
}

/// Exact up to 104 days of nanoseconds, and good to 16 digits above.
#[expect(
    clippy::cast_precision_loss,
    reason = "an exposition has floating-point numbers only"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing under these locks can be left half done: pushes, clones and reads.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server with some traffic writes; more makes the text grow, no more than that.
const TEXT_OCTETS_EXPECTED: usize = 16 * 1024;
