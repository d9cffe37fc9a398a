//! What a session did, for the metrics and the log: the witness of its replies.
//!
//! Counters move as things happen. A transaction is one line of the log, and a session is one. Neither ever
//! holds mail or credentials; what a peer said is quoted by the log.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::control::events::{self, SessionEnd, SessionId, TransactionOutcome};
use crate::control::metrics::{HandshakeFailure, Listener, ShardMetrics, TransactionEnd};
use crate::deliver::Durability;
use crate::smtp::command::Verb;
use crate::smtp::reply::{Outcome, Refusal, TransactionRecord, Witness};
use crate::tls::{Facts, Fault, HandshakeError, TlsError, Verification};

/// The record of one session.
pub(super) struct Account {
    metrics: Rc<ShardMetrics>,
    id: SessionId,
    listener: Listener,
    peer: SocketAddr,
    local: SocketAddr,
    opened: Instant,
    durability: Durability,
    facts: RefCell<Option<Box<Facts>>>,
    greeted_as: RefCell<Option<Box<str>>>,
    authenticated: RefCell<Option<Box<str>>>,
    last_reply: Cell<(Verb, u16)>,
    last_refusal: Cell<Option<Refusal>>,
    commands: Cell<u32>,
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
    /// A deadline passed while we waited for the peer's octets.
    Expired,
    /// A deadline passed while ours waited for the peer.
    Unread,
    /// The server goes down.
    Drained,
    /// Octets came in clear behind STARTTLS.
    Injected,
    /// There is no key for TLS, or OpenSSL has no connection for us.
    NoTls,
    /// No TLS came about.
    Handshake(HandshakeError),
    /// TLS broke; an alert that says how may wait to be sent.
    Tls(TlsError),
    /// The fault is ours: the session's task was torn down in the middle.
    TornDown,
}

/// What a session may still send at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastWords {
    /// The replies that were not sent yet, and the end of TLS.
    Replies,
    /// What TLS has to say itself.
    Alert,
    /// Nothing would be heard, or understood.
    None,
}

impl Ending {
    /// What is still to be sent.
    pub(super) fn last_words(&self) -> LastWords {
        match self {
            Ending::Said | Ending::PeerClosed | Ending::Expired | Ending::Drained => {
                LastWords::Replies
            }
            Ending::Tls(_) => LastWords::Alert,
            // Of the replies that were on their way to one who does not read, a part may have left.
            Ending::Unread
            | Ending::Lost(_)
            | Ending::Injected
            | Ending::NoTls
            | Ending::Handshake(_)
            | Ending::TornDown => LastWords::None,
        }
    }

    /// How the handshake failed that ended so; `None`: by no fault of its own.
    pub(super) fn handshake_failure(&self) -> Option<HandshakeFailure> {
        match self {
            Ending::Expired | Ending::Unread => Some(HandshakeFailure::TimedOut),
            Ending::PeerClosed | Ending::Lost(_) => Some(HandshakeFailure::Lost),
            Ending::NoTls | Ending::TornDown => Some(HandshakeFailure::Internal),
            Ending::Tls(_) => Some(HandshakeFailure::Protocol),
            Ending::Handshake(error) => Some(match error.fault {
                Fault::NotTls => HandshakeFailure::NotTls,
                Fault::Version => HandshakeFailure::Version,
                Fault::NoSharedCipher => HandshakeFailure::NoSharedCipher,
                Fault::NoSharedGroup => HandshakeFailure::NoSharedGroup,
                Fault::ClientCertificate => HandshakeFailure::ClientCertificate,
                Fault::PeerAlert(_) => HandshakeFailure::PeerAlert,
                Fault::Protocol => HandshakeFailure::Protocol,
                // Only the sending side verifies a server.
                Fault::ServerCertificate | Fault::Internal => HandshakeFailure::Internal,
            }),
            Ending::Said | Ending::Drained | Ending::Injected => None,
        }
    }
}

impl Account {
    pub(super) fn open(
        metrics: Rc<ShardMetrics>,
        id: SessionId,
        listener: Listener,
        peer: SocketAddr,
        local: SocketAddr,
        opened: Instant,
        durability: Durability,
    ) -> Account {
        metrics.session_opened(listener);
        Account {
            metrics,
            id,
            listener,
            peer,
            local,
            opened,
            durability,
            facts: RefCell::new(None),
            greeted_as: RefCell::new(None),
            authenticated: RefCell::new(None),
            last_reply: Cell::new((Verb::Greeting, 0)),
            last_refusal: Cell::new(None),
            commands: Cell::new(0),
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

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
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

    /// Notes a login that came to nothing, and says how late its answer is to be: guessing is to be slow, and a typing
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
    pub(super) fn close(&self, ending: &Ending) {
        let lasted = self.opened.elapsed();
        self.metrics.session_closed(self.listener, lasted);
        match ending {
            Ending::Lost(error) => {
                tracing::debug!(session = %self.id, %error, "connection lost");
            }
            Ending::Tls(error) => tracing::debug!(session = %self.id, %error, "TLS broke"),
            Ending::Handshake(error) => {
                tracing::info!(session = %self.id, peer = %self.peer, %error, "handshake failed");
            }
            Ending::Unread => self.metrics.refused(Refusal::Timeout),
            Ending::Said
            | Ending::PeerClosed
            | Ending::Expired
            | Ending::Drained
            | Ending::Injected
            | Ending::NoTls
            | Ending::TornDown => {}
        }
        let facts = self.facts.borrow();
        events::session(&events::Session {
            id: self.id,
            listener: self.listener,
            peer: self.peer,
            local: self.local,
            tls: facts.as_deref().map(|facts| events::Tls {
                version: facts.version,
                cipher: &facts.cipher,
                group: facts.group.as_deref(),
                resumed: facts.resumed,
                server_name: facts.server_name.as_deref(),
                client: facts
                    .peer_certificate
                    .as_ref()
                    .map(|client| events::Client {
                        subject: &client.subject,
                        names: &client.names,
                        trusted: client.verification == Verification::Trusted,
                    }),
            }),
            greeted_as: self.greeted_as.borrow().as_deref(),
            authenticated: self.authenticated.borrow().as_deref(),
            messages: self.messages.get().into(),
            commands: self.commands.get().into(),
            octets_in: self.octets_received.get(),
            octets_out: self.octets_sent.get(),
            ended: self.end(ending),
            lasted,
        });
    }

    fn end(&self, ending: &Ending) -> SessionEnd {
        match ending {
            Ending::Said if self.ended_by_quit() => SessionEnd::Quit,
            Ending::Said => match self.last_refusal.get() {
                Some(Refusal::TooManyErrors) => SessionEnd::TooManyErrors,
                Some(Refusal::Timeout) => SessionEnd::TimedOut,
                _ => SessionEnd::Draining,
            },
            Ending::PeerClosed => SessionEnd::Closed,
            Ending::Lost(_) | Ending::Tls(_) => SessionEnd::Broken,
            Ending::Expired | Ending::Unread => SessionEnd::TimedOut,
            Ending::Drained => SessionEnd::Draining,
            Ending::Injected => SessionEnd::Injection,
            Ending::NoTls | Ending::TornDown => SessionEnd::Failed,
            Ending::Handshake(_) => SessionEnd::HandshakeFailed,
        }
    }
}

impl Witness for Account {
    fn replied(&self, verb: Verb, code: u16, refusal: Option<Refusal>) {
        self.last_reply.set((verb, code));
        self.last_refusal.set(refusal);
        // Each command gets one reply that ends it. 334 and 354 ask for more of the same one.
        let ends_command = !matches!(verb, Verb::Greeting) && !matches!(code, 334 | 354);
        self.commands
            .set(self.commands.get() + u32::from(ends_command));
        self.metrics.replied(verb, code);
        if let Some(refusal) = refusal {
            self.metrics.refused(refusal);
            let (verb, reason) = (verb.label(), refusal.label());
            tracing::debug!(session = %self.id, verb, code, reason, "refused");
        }
    }

    fn transaction(&self, record: &TransactionRecord<'_>) {
        self.transactions.set(self.transactions.get() + 1);
        let envelope = record.envelope;
        let (outcome, end) = match record.outcome {
            Outcome::Accepted(queue_id) => {
                self.messages.set(self.messages.get() + 1);
                let recipients = u64::try_from(envelope.recipients.len()).unwrap_or(u64::MAX);
                self.metrics.message_accepted(record.octets, recipients);
                (
                    TransactionOutcome::Accepted {
                        queue_id,
                        durability: self.durability.label(),
                    },
                    TransactionEnd::Accepted,
                )
            }
            Outcome::Refused(code) => (
                TransactionOutcome::Refused { code },
                TransactionEnd::Refused,
            ),
            Outcome::Abandoned => (TransactionOutcome::Abandoned, TransactionEnd::Abandoned),
        };
        self.metrics.transaction(end);
        let transaction = events::Transaction {
            session: self.id,
            number: self.transactions.get().into(),
            from: envelope.reverse_path.as_deref().unwrap_or(""),
            octets: record.octets,
            outcome,
            lasted: record.ended.saturating_duration_since(record.started),
        };
        let recipients = envelope
            .recipients
            .iter()
            .map(|recipient| &*recipient.as_given);
        events::transaction(&transaction, recipients);
    }

    fn ended(&self, refusal: Refusal) {
        self.metrics.refused(refusal);
        let reason = refusal.label();
        tracing::warn!(session = %self.id, peer = %self.peer, reason, "session ended");
    }

    fn greeted(&self, name: &str) {
        *self.greeted_as.borrow_mut() = Some(name.into());
    }

    fn authenticated(&self, name: &str) {
        *self.authenticated.borrow_mut() = Some(name.into());
    }
}

/// How late the answer to the first wrong password comes; the next ones come later by as much.
const AUTH_FAILURE_DELAY: Duration = Duration::from_millis(500);
const AUTH_FAILURE_DELAY_MAX: Duration = Duration::from_secs(5);
