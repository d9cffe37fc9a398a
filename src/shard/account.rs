//! What a session did, for the metrics and the log: the witness of its replies.
//!
//! Counters move as things happen. A transaction is one line of the log, and a session is one. Neither ever
//! holds mail or credentials; what a peer said is quoted by the log.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::control::metrics::{Listener, ShardMetrics, TransactionEnd};
use crate::smtp::command::Verb;
use crate::smtp::reply::{Outcome, Refusal, TransactionRecord, Witness};
use crate::smtp::server::Session;
use crate::tls::{Facts, HandshakeError};

/// The record of one session.
pub(super) struct Account {
    metrics: Rc<ShardMetrics>,
    id: u64,
    listener: Listener,
    peer: SocketAddr,
    local: SocketAddr,
    opened: Instant,
    facts: RefCell<Option<Box<Facts>>>,
    last_reply: Cell<(Verb, u16)>,
    replies: Cell<u32>,
    transactions: Cell<u32>,
    messages: Cell<u32>,
    auth_failures: Cell<u32>,
    octets_received: Cell<u64>,
    octets_sent: Cell<u64>,
}

/// How a session came to its end.
#[derive(Debug)]
pub(super) enum Ending {
    /// The session had said everything: after QUIT, or after a 421 of its own.
    Said,
    /// The peer closed.
    PeerClosed,
    /// The connection broke.
    Lost(io::Error),
    /// A deadline passed.
    Expired,
    /// The server goes down.
    Drained,
    /// Octets came in clear behind STARTTLS.
    Injected,
    /// There is no key for TLS.
    NoKey,
    /// No TLS came about.
    Handshake(HandshakeError),
}

impl Ending {
    /// Whether the peer may still hear something.
    pub(super) fn can_speak(&self) -> bool {
        match self {
            Ending::Said | Ending::PeerClosed | Ending::Expired | Ending::Drained => true,
            Ending::Lost(_) | Ending::Injected | Ending::NoKey | Ending::Handshake(_) => false,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Said => formatter.write_str("done"),
            Ending::PeerClosed => formatter.write_str("closed by peer"),
            Ending::Lost(error) => write!(formatter, "lost: {error}"),
            Ending::Expired => formatter.write_str("timed out"),
            Ending::Drained => formatter.write_str("drained"),
            Ending::Injected => formatter.write_str("octets in clear behind STARTTLS"),
            Ending::NoKey => formatter.write_str("no certificate"),
            Ending::Handshake(error) => write!(formatter, "no TLS: {error}"),
        }
    }
}

impl Account {
    pub(super) fn open(
        metrics: Rc<ShardMetrics>,
        id: u64,
        listener: Listener,
        peer: SocketAddr,
        local: SocketAddr,
        opened: Instant,
    ) -> Account {
        metrics.session_opened(listener);
        Account {
            metrics,
            id,
            listener,
            peer,
            local,
            opened,
            facts: RefCell::new(None),
            last_reply: Cell::new((Verb::Greeting, 0)),
            replies: Cell::new(0),
            transactions: Cell::new(0),
            messages: Cell::new(0),
            auth_failures: Cell::new(0),
            octets_received: Cell::new(0),
            octets_sent: Cell::new(0),
        }
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn listener(&self) -> Listener {
        self.listener
    }

    pub(super) fn received(&self, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.octets_received
            .set(self.octets_received.get() + octets);
        self.metrics.received(octets);
    }

    pub(super) fn sent(&self, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.octets_sent.set(self.octets_sent.get() + octets);
        self.metrics.sent(octets);
    }

    pub(super) fn secured(&self, facts: Facts) {
        *self.facts.borrow_mut() = Some(Box::new(facts));
    }

    /// Notes a failed login, and says how late its answer is to be: guessing is to be slow, and a typing
    /// error hardly noticed.
    pub(super) fn auth_failed(&self) -> Duration {
        let failures = self.auth_failures.get() + 1;
        self.auth_failures.set(failures);
        AUTH_FAILURE_DELAY
            .saturating_mul(failures)
            .min(AUTH_FAILURE_DELAY_MAX)
    }

    /// Whether the last word was the answer to QUIT, so that nothing more is to be expected.
    pub(super) fn ended_by_quit(&self) -> bool {
        self.last_reply.get() == (Verb::Quit, 221)
    }

    /// Closes the record.
    pub(super) fn close(&self, session: &Session, ending: &Ending) {
        let lasted = self.opened.elapsed();
        self.metrics.session_closed(self.listener, lasted);
        let facts = self.facts.borrow();
        let facts = facts.as_deref();
        let client = facts.and_then(|facts| facts.client_certificate.as_ref());
        tracing::info!(
            session = self.id,
            listener = self.listener.label(),
            peer = %self.peer,
            local = %self.local,
            tls = facts.map(|facts| facts.version),
            cipher = facts.map(|facts| &*facts.cipher),
            group = facts.and_then(|facts| facts.group.as_deref()),
            resumed = facts.map(|facts| facts.resumed),
            sni = facts.and_then(|facts| facts.server_name.as_deref()),
            client_subject = client.map(|client| &*client.subject),
            client_names = client.map(|client| client.names.join(" ")),
            helo = session.greeted_as(),
            user = session.authenticated(),
            replies = self.replies.get(),
            transactions = self.transactions.get(),
            messages = self.messages.get(),
            auth_failures = self.auth_failures.get(),
            octets_in = self.octets_received.get(),
            octets_out = self.octets_sent.get(),
            seconds = lasted.as_secs_f64(),
            end = %ending,
            "session"
        );
    }
}

impl Witness for Account {
    fn replied(&self, verb: Verb, code: u16, refusal: Option<Refusal>) {
        self.last_reply.set((verb, code));
        self.replies.set(self.replies.get() + 1);
        self.metrics.replied(verb, code);
        if let Some(refusal) = refusal {
            self.metrics.refused(refusal);
            tracing::debug!(
                session = self.id,
                verb = verb.label(),
                code,
                reason = refusal.label(),
                "refused"
            );
        }
    }

    fn transaction(&self, record: &TransactionRecord<'_>) {
        self.transactions.set(self.transactions.get() + 1);
        let envelope = record.envelope;
        let (queue_id, reply, end) = match record.outcome {
            Outcome::Accepted(queue_id) => (Some(queue_id), Some(250), TransactionEnd::Accepted),
            Outcome::Refused(code) => (None, Some(code), TransactionEnd::Refused),
            Outcome::Abandoned => (None, None, TransactionEnd::Abandoned),
        };
        self.metrics.transaction(end);
        if end == TransactionEnd::Accepted {
            self.messages.set(self.messages.get() + 1);
            let recipients = u64::try_from(envelope.recipients.len()).unwrap_or(u64::MAX);
            self.metrics.message_accepted(record.octets, recipients);
        }
        let shown = envelope.recipients.iter().take(RECIPIENTS_SHOWN_MAX);
        let to: Vec<&str> = shown.map(|recipient| &*recipient.as_given).collect();
        tracing::info!(
            session = self.id,
            transaction = self.transactions.get(),
            queue_id,
            from = envelope.reverse_path.as_deref().unwrap_or(""),
            recipients = envelope.recipients.len(),
            to = to.join(" "),
            octets = record.octets,
            reply,
            outcome = end.label(),
            seconds = record
                .ended
                .saturating_duration_since(record.started)
                .as_secs_f64(),
            "transaction"
        );
    }

    fn ended(&self, refusal: Refusal) {
        self.metrics.refused(refusal);
        tracing::warn!(
            session = self.id,
            peer = %self.peer,
            reason = refusal.label(),
            "session ended"
        );
    }
}

/// How late the answer to the first wrong password comes; the next ones come later by as much.
const AUTH_FAILURE_DELAY: Duration = Duration::from_millis(500);
const AUTH_FAILURE_DELAY_MAX: Duration = Duration::from_secs(5);

/// Recipients that a line of the log names; their number it always tells.
const RECIPIENTS_SHOWN_MAX: usize = 5;
