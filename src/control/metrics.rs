//! Counts what the shards do, and writes it as Prometheus text.
//!
//! Apart from the shards because counting and reading happen on different threads. Each shard
//! writes cells of its own, and a scrape on the control thread adds them up: nothing is shared on
//! the way of a message, not even a cache line.
//! Invariants:
//! - Metrics count exactly: one event moves each counter it concerns by what happened, once.
//! - A counter never goes back, also when its shard has ended.
//! - A scrape takes no lock that a shard takes while it serves.
//! - Label values come from fixed lists; no peer can make a new time series.
//!
//! Not promised: that two counters of one scrape stem from the same instant.

mod cells;
mod exposition;
mod label;
mod process;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub use self::exposition::{Build, CONTENT_TYPE, Kind, Metrics, Reload, Rows};

use self::cells::{Counter, Family, Gauge, LongHistogram, ShortHistogram};
use self::label::{label_by_itself, labels};
use crate::smtp::command::Verb;
use crate::smtp::reply::Refusal;

label_by_itself!(Verb);
label_by_itself!(Refusal);

/// The metrics of one shard: the writing end.
///
/// It may be sent to the shard's thread but not shared between threads: each cell has one writer,
/// and so a count costs a load and a store, without a locked instruction.
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<ringpost::control::metrics::ShardMetrics>();
/// ```
#[derive(Debug)]
pub struct ShardMetrics {
    cells: Arc<Cells>,
    one_writer: PhantomData<std::cell::Cell<()>>,
}

impl ShardMetrics {
    fn new(cells: Arc<Cells>) -> Self {
        Self {
            cells,
            one_writer: PhantomData,
        }
    }

    /// A session began.
    pub fn session_opened(&self, listener: Listener) {
        self.cells.sessions.add(listener, 1);
        self.cells.sessions_open.add(listener, 1);
    }

    /// A session that began with [`Self::session_opened`] ended.
    pub fn session_closed(&self, listener: Listener, lasted: Duration) {
        self.cells.sessions_open.sub(listener, 1);
        self.cells.session_seconds.observe(listener, lasted);
    }

    /// A session now speaks TLS.
    pub fn tls_session(&self, version: TlsVersion, means: TlsMeans) {
        match means {
            TlsMeans::StartTls => self.cells.tls_sessions_negotiated.add(version, 1),
            TlsMeans::Implicit => self.cells.tls_sessions_implicit.add(version, 1),
        }
    }

    /// A reply was written.
    pub fn replied(&self, verb: Verb, code: u16) {
        let column = CODE_COLUMN.get(usize::from(code)).copied();
        let column = usize::from(column.unwrap_or(OTHER_COLUMN));
        if let Some(counter) = self
            .cells
            .replies
            .of(verb)
            .and_then(|row| row.0.get(column))
        {
            counter.add(1);
        }
    }

    /// Something was refused, for this reason.
    pub fn refused(&self, reason: Refusal) {
        self.cells.refusals.add(reason, 1);
    }

    /// A transaction ended.
    pub fn transaction(&self, ended: TransactionEnd) {
        self.cells.transactions.add(ended, 1);
    }

    /// A message was accepted: its 250 to the end of data was written.
    pub fn message_accepted(&self, octets: u64, recipients: u64) {
        self.cells.messages.add(1);
        self.cells.message_octets.add(octets);
        self.cells.recipients.add(recipients);
    }

    /// A TLS handshake succeeded; it took `lasted`, from its first octet awaited to its end.
    pub fn handshake(&self, kind: HandshakeKind, lasted: Duration) {
        self.cells.handshake_seconds.observe(kind, lasted);
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        self.cells.handshake_failures.add(reason, 1);
    }

    /// An AUTH exchange came to a verdict.
    pub fn auth(&self, outcome: AuthOutcome) {
        self.cells.auth.add(outcome, 1);
    }

    /// A commit, good or bad, took `lasted` from its hand-over to its outcome.
    pub fn commit(&self, lasted: Duration) {
        self.cells.commit_seconds.observe(lasted);
    }

    /// A connection was turned away before it became a session.
    pub fn connection_refused(&self, reason: ConnectionRefusal) {
        self.cells.connections_refused.add(reason, 1);
    }

    /// A receive found no buffer (ENOBUFS) and waits for one.
    pub fn receive_buffers_short(&self) {
        self.cells.receive_buffers_short.add(1);
    }

    /// An accept failed.
    pub fn accept_failed(&self) {
        self.cells.accept_errors.add(1);
    }

    /// Octets came from peers, as they came over the wire.
    pub fn received(&self, octets: u64) {
        self.cells.octets_received.add(octets);
    }

    /// Octets went to peers, as they went over the wire.
    pub fn sent(&self, octets: u64) {
        self.cells.octets_sent.add(octets);
    }
}

/// The cells of one shard. The alignment keeps the cells of two shards off one cache line, and off
/// the pair that the prefetcher fetches together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    sessions: Family<Listener, Counter, { Listener::ALL.len() }>,
    sessions_open: Family<Listener, Gauge, { Listener::ALL.len() }>,
    session_seconds: Family<Listener, LongHistogram, { Listener::ALL.len() }>,
    tls_sessions_negotiated: Family<TlsVersion, Counter, { TlsVersion::ALL.len() }>,
    tls_sessions_implicit: Family<TlsVersion, Counter, { TlsVersion::ALL.len() }>,
    replies: Family<Verb, Replies, { Verb::ALL.len() }>,
    refusals: Family<Refusal, Counter, { Refusal::ALL.len() }>,
    transactions: Family<TransactionEnd, Counter, { TransactionEnd::ALL.len() }>,
    messages: Counter,
    message_octets: Counter,
    recipients: Counter,
    handshake_seconds: Family<HandshakeKind, ShortHistogram, { HandshakeKind::ALL.len() }>,
    handshake_failures: Family<HandshakeFailure, Counter, { HandshakeFailure::ALL.len() }>,
    auth: Family<AuthOutcome, Counter, { AuthOutcome::ALL.len() }>,
    commit_seconds: ShortHistogram,
    connections_refused: Family<ConnectionRefusal, Counter, { ConnectionRefusal::ALL.len() }>,
    receive_buffers_short: Counter,
    accept_errors: Counter,
    octets_received: Counter,
    octets_sent: Counter,
}

labels! {
    /// Which kind of port a session came in by.
    pub enum Listener {
        /// A port that greets in clear.
        Tcp => "tcp",
        /// A port that speaks TLS from the first octet.
        Tls => "tls",
    }
}

labels! {
    /// The version of TLS that was agreed on.
    pub enum TlsVersion {
        /// TLS 1.2.
        Tls12 => "1.2",
        /// TLS 1.3.
        Tls13 => "1.3",
        /// One that the server does not know yet, by whatever name.
        Other => "other",
    }
}

impl TlsVersion {
    /// The version that OpenSSL calls `name`.
    pub fn of(name: &str) -> Self {
        match name {
            "TLSv1.2" => Self::Tls12,
            "TLSv1.3" => Self::Tls13,
            _ => Self::Other,
        }
    }
}

labels! {
    /// How TLS came about.
    pub enum TlsMeans {
        /// By STARTTLS on a TCP port.
        StartTls => "starttls",
        /// By connecting to a TLS port.
        Implicit => "implicit",
    }
}

labels! {
    /// What the handshake had to do.
    pub enum HandshakeKind {
        /// All of it.
        Full => "full",
        /// Less, since the peer brought a ticket.
        Resumed => "resumed",
    }
}

labels! {
    /// Why a handshake failed.
    pub enum HandshakeFailure {
        /// It took longer than `--handshake-timeout`.
        TimedOut => "timeout",
        /// The peer closed the connection, or it broke.
        Lost => "lost",
        /// The peer sent plaintext.
        NotTls => "not-tls",
        /// No version in common.
        Version => "version",
        /// No cipher suite or signature algorithm in common.
        NoSharedCipher => "no-shared-cipher",
        /// No group for the key exchange in common.
        NoSharedGroup => "no-shared-group",
        /// A certificate is required, and there was none to be trusted.
        ClientCertificate => "client-certificate",
        /// The peer gave up with an alert.
        PeerAlert => "peer-alert",
        /// The peer broke the protocol.
        Protocol => "protocol",
        /// The fault is ours.
        Internal => "internal",
    }
}

labels! {
    /// The verdict on credentials.
    pub enum AuthOutcome {
        /// 235.
        Accepted => "accepted",
        /// 535.
        Refused => "refused",
        /// 454: there was no verdict.
        Unavailable => "unavailable",
    }
}

labels! {
    /// How a transaction ended.
    pub enum TransactionEnd {
        /// 250 to the end of data.
        Accepted => "accepted",
        /// Another reply to the end of data.
        Refused => "refused",
        /// RSET, a new EHLO, or a lost connection.
        Abandoned => "abandoned",
    }
}

labels! {
    /// Why a connection was turned away.
    pub enum ConnectionRefusal {
        /// `--max-sessions`.
        MaxSessions => "max-sessions",
        /// `--max-sessions-per-ip`.
        PerIp => "per-ip",
        /// No descriptors left.
        Descriptors => "descriptors",
    }
}

/// The replies to one verb, by code: a column for each of [`CODES`], and one for all others.
#[derive(Debug)]
struct Replies([Counter; CODES.len() + 1]);

impl Default for Replies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// Every code that RFC 5321 §4.2.3 and the extensions we know give a server.
///
/// A fixed list keeps the table a plain array. A code that is missing here is still counted, in
/// the column "other".
const CODES: [u16; 35] = [
    211, 214, 220, 221, 235, 250, 251, 252, 334, 354, 421, 432, 450, 451, 452, 454, 455, 500, 501,
    502, 503, 504, 521, 523, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556,
];

/// The column of codes that [`CODES`] does not list.
#[expect(clippy::cast_possible_truncation, reason = "a few dozen codes")]
const OTHER_COLUMN: u8 = CODES.len() as u8;

/// The column of each code. In octets: the codes that nearly all replies have share two or three cache lines.
static CODE_COLUMN: [u8; 600] = {
    let mut columns = [OTHER_COLUMN; 600];
    let mut column = 0;
    while column < OTHER_COLUMN {
        #[expect(
            clippy::indexing_slicing,
            reason = "at compile time: out of range fails the build"
        )]
        {
            columns[CODES[column as usize] as usize] = column;
        }
        column += 1;
    }
    columns
};

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn metrics() -> Metrics {
        Metrics::new(Build {
            version: "0.1.0".into(),
            openssl: "OpenSSL 3.6.0 \"x\"".into(),
        })
    }

    /// The samples of an exposition, read back. Checks on the way that each family is announced
    /// once, before its samples, and that no sample occurs twice.
    pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let mut families = Vec::new();
        let body = text.strip_suffix("# EOF\n").expect("the end mark");
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
                if keyword == "HELP" {
                    assert!(words.next().unwrap().ends_with('.'), "{line}");
                    assert!(!families.contains(&name), "{name} announced twice");
                    families.push(name);
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(families.last().unwrap()), "{line}");
            assert!(
                samples
                    .insert(name.to_owned(), value.parse().unwrap())
                    .is_none(),
                "{line}"
            );
        }
        samples
    }

    fn scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
        parse(&metrics.encode().unwrap())
    }

    /// What differs between two scrapes, but for the process's own use of the machine.
    fn moved(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
        after
            .iter()
            .map(|(name, value)| (name.clone(), value - before.get(name).unwrap_or(&0.0)))
            .filter(|(name, by)| *by != 0.0 && !name.starts_with("process_"))
            .collect()
    }

    #[test]
    fn each_event_moves_its_counters_and_no_other() {
        type Event = fn(&ShardMetrics);
        let rows: [(Event, &[(&str, f64)]); 17] = [
            (
                |shard| shard.session_opened(Listener::Tcp),
                &[
                    ("ringpost_sessions_open{listener=\"tcp\"}", 1.0),
                    ("ringpost_sessions_total{listener=\"tcp\"}", 1.0),
                ],
            ),
            (
                |shard| shard.tls_session(TlsVersion::of("TLSv1.3"), TlsMeans::StartTls),
                &[(
                    "ringpost_tls_sessions_total{version=\"1.3\",means=\"starttls\"}",
                    1.0,
                )],
            ),
            (
                |shard| shard.tls_session(TlsVersion::of("TLSv1.2"), TlsMeans::Implicit),
                &[(
                    "ringpost_tls_sessions_total{version=\"1.2\",means=\"implicit\"}",
                    1.0,
                )],
            ),
            (
                |shard| shard.tls_session(TlsVersion::of("TLSv1.4"), TlsMeans::Implicit),
                &[(
                    "ringpost_tls_sessions_total{version=\"other\",means=\"implicit\"}",
                    1.0,
                )],
            ),
            (
                |shard| shard.replied(Verb::Rcpt, 550),
                &[("ringpost_replies_total{verb=\"RCPT\",code=\"550\"}", 1.0)],
            ),
            (
                |shard| shard.replied(Verb::EndOfData, 250),
                &[(
                    "ringpost_replies_total{verb=\"data-end\",code=\"250\"}",
                    1.0,
                )],
            ),
            (
                |shard| {
                    [299, 0, 600, u16::MAX]
                        .map(|code| shard.replied(Verb::Noop, code))
                        .into_iter()
                        .collect()
                },
                &[("ringpost_replies_total{verb=\"NOOP\",code=\"other\"}", 4.0)],
            ),
            (
                |shard| shard.refused(Refusal::Injection),
                &[("ringpost_refusals_total{reason=\"injection\"}", 1.0)],
            ),
            (
                |shard| shard.transaction(TransactionEnd::Abandoned),
                &[("ringpost_transactions_total{outcome=\"abandoned\"}", 1.0)],
            ),
            (
                |shard| shard.message_accepted(2048, 3),
                &[
                    ("ringpost_message_bytes_total", 2048.0),
                    ("ringpost_messages_total", 1.0),
                    ("ringpost_recipients_total", 3.0),
                ],
            ),
            (
                |shard| shard.handshake_failed(HandshakeFailure::TimedOut),
                &[("ringpost_handshake_failures_total{reason=\"timeout\"}", 1.0)],
            ),
            (
                |shard| shard.auth(AuthOutcome::Refused),
                &[("ringpost_auth_total{outcome=\"refused\"}", 1.0)],
            ),
            (
                |shard| shard.connection_refused(ConnectionRefusal::PerIp),
                &[("ringpost_connections_refused_total{reason=\"per-ip\"}", 1.0)],
            ),
            (
                |shard| shard.receive_buffers_short(),
                &[("ringpost_receive_buffers_short_total", 1.0)],
            ),
            (
                |shard| shard.accept_failed(),
                &[("ringpost_accept_errors_total", 1.0)],
            ),
            (
                |shard| shard.received(7),
                &[("ringpost_received_bytes_total", 7.0)],
            ),
            (|shard| shard.sent(9), &[("ringpost_sent_bytes_total", 9.0)]),
        ];
        let metrics = metrics();
        // A second shard: its cells are added, whatever the first one's are.
        let (_, shard) = (metrics.add_shard(), metrics.add_shard());
        for (event, expected) in rows {
            let before = scrape(&metrics);
            event(&shard);
            let moved = moved(&before, &scrape(&metrics));
            let moved: Vec<_> = moved
                .iter()
                .map(|(name, by)| (name.as_str(), *by))
                .collect();
            assert_eq!(moved, expected);
        }
    }

    #[test]
    fn a_closed_session_lowers_the_gauge_and_is_timed() {
        let metrics = metrics();
        let shard = metrics.add_shard();
        shard.session_opened(Listener::Tls);
        shard.session_opened(Listener::Tls);
        shard.session_closed(Listener::Tls, Duration::from_secs(2));
        let samples = scrape(&metrics);
        assert_eq!(samples["ringpost_sessions_open{listener=\"tls\"}"], 1.0);
        assert_eq!(samples["ringpost_sessions_total{listener=\"tls\"}"], 2.0);
        assert_eq!(
            samples["ringpost_session_seconds_count{listener=\"tls\"}"],
            1.0
        );
        assert_eq!(
            samples["ringpost_session_seconds_sum{listener=\"tls\"}"],
            2.0
        );
    }

    #[test]
    fn histograms_are_cumulative_and_summed_over_shards() {
        let metrics = metrics();
        let (one, two) = (metrics.add_shard(), metrics.add_shard());
        one.handshake(HandshakeKind::Full, Duration::from_micros(300));
        two.handshake(HandshakeKind::Full, Duration::from_millis(40));
        two.handshake(HandshakeKind::Resumed, Duration::from_secs(60));
        two.commit(Duration::from_micros(94));
        let samples = scrape(&metrics);
        let full = |le: &str| {
            samples[&format!("ringpost_handshake_seconds_bucket{{le=\"{le}\",kind=\"full\"}}")]
        };
        assert_eq!(
            [full("0.00025"), full("0.0005"), full("0.05"), full("+Inf")],
            [0.0, 1.0, 2.0, 2.0]
        );
        assert_eq!(
            samples["ringpost_handshake_seconds_sum{kind=\"full\"}"],
            0.0403
        );
        assert_eq!(samples["ringpost_handshakes_total{kind=\"full\"}"], 2.0);
        assert_eq!(samples["ringpost_handshakes_total{kind=\"resumed\"}"], 1.0);
        assert_eq!(
            samples["ringpost_handshake_seconds_bucket{le=\"30.0\",kind=\"resumed\"}"],
            0.0
        );
        assert_eq!(samples["ringpost_commit_seconds_count"], 1.0);
        assert_eq!(
            samples["ringpost_commit_seconds_bucket{le=\"0.0001\"}"],
            1.0
        );
    }

    #[test]
    fn a_shard_that_ended_still_counts() {
        let metrics = metrics();
        let shard = metrics.add_shard();
        shard.message_accepted(1, 1);
        drop(shard);
        metrics.add_shard().message_accepted(1, 1);
        assert_eq!(scrape(&metrics)["ringpost_messages_total"], 2.0);
    }

    #[test]
    fn all_shards_count_exactly_while_scraped() {
        let metrics = metrics();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let shard = metrics.add_shard();
                scope.spawn(move || {
                    for _ in 0..100_000 {
                        shard.replied(Verb::Mail, 250);
                        shard.commit(Duration::from_micros(100));
                    }
                });
            }
            for _ in 0..20 {
                scrape(&metrics);
            }
        });
        let samples = scrape(&metrics);
        assert_eq!(
            samples["ringpost_replies_total{verb=\"MAIL\",code=\"250\"}"],
            200_000.0
        );
        assert_eq!(samples["ringpost_commit_seconds_count"], 200_000.0);
        assert_eq!(samples["ringpost_commit_seconds_sum"], 20.0);
    }

    #[test]
    fn watched_numbers_reloads_and_the_process() {
        let metrics = metrics();
        metrics.watch(Kind::Gauge, "ringpost_held_bytes", "Held.", || 5);
        metrics.watch(Kind::Counter, "ringpost_lost", "Lost.", || 6);
        metrics.reloaded(Reload::Failed);
        metrics.tell("ringpost_sea", "The sea.", ("colour", "blue"));
        let samples = scrape(&metrics);
        assert_eq!(samples["ringpost_sea_info{colour=\"blue\"}"], 1.0);
        assert_eq!(samples["ringpost_held_bytes"], 5.0);
        assert_eq!(samples["ringpost_lost_total"], 6.0);
        assert_eq!(samples["ringpost_reloads_total{outcome=\"failed\"}"], 1.0);
        assert_eq!(samples["ringpost_reloads_total{outcome=\"done\"}"], 0.0);
        let build = "ringpost_build_info{version=\"0.1.0\",openssl=\"OpenSSL 3.6.0 \\\"x\\\"\"}";
        assert_eq!(samples[build], 1.0);
        assert!(samples["process_resident_memory_bytes"] > 100_000.0);
        assert!(samples["process_open_fds"] >= 3.0);
        assert!(samples["process_max_fds"] >= 3.0);
        assert!(samples["process_start_time_seconds"] > 1_700_000_000.0);
        assert!(samples.contains_key("process_cpu_seconds_total"));
    }

    #[test]
    fn codes_are_listed_once() {
        assert!(CODES.is_sorted_by(|one, next| one < next));
    }
}
