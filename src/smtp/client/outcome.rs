//! What a transaction and a connection come to.
//!
//! Whether a failure is permanent or temporary is decided here and by the peer, where the fact is
//! known; whoever keeps the queue only reads the class.

use super::reply::Reply;
use crate::smtp::status::Status;

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For each recipient, in the order of the transaction.
    pub recipients: Vec<RecipientOutcome>,
    /// What the session is good for now.
    pub after: After,
}

/// What a session is good for after a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// For another one, or QUIT.
    Ready,
    /// For nothing: close the connection.
    Over(Failure),
}

/// What a transaction came to for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The peer has the message and answers for it.
    Accepted {
        /// Whether the peer offers DSN and was told what the sender wants to know.
        dsn_passed: bool,
        /// The reply that says so.
        reply: Reply,
    },
    /// The peer refused the recipient, or the message for it: never or not now, by the reply.
    Refused(Reply),
    /// There is no word of the peer about it: never asked, or the connection was lost.
    Unsent(Failure),
}

/// Why nothing came of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub cause: Cause,
    /// What a report says; its class tells whether another attempt may heal it.
    pub status: Status,
    /// For people, one line: the peer's own words if there is a reply, else ours.
    pub text: Box<str>,
    /// The peer's reply, if that alone explains the failure.
    pub reply: Option<Reply>,
    /// Whether the recipient may be tried again at once: the peer only takes no more in one
    /// transaction (RFC 5321 §4.5.3.1.10).
    pub again_now: bool,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The peer refused service, by its reply.
    Refused,
    /// The peer closed the connection.
    Closed,
    /// The peer was silent for too long.
    Timeout,
    /// The peer does not speak the protocol.
    Protocol,
    /// Octets came in clear behind the 220 to STARTTLS (RFC 3207 §6).
    Injection,
    /// TLS is required and not to be had.
    NoTls,
    /// The login is impossible or was refused.
    Login,
    /// The peer takes no more recipients in one transaction.
    TooManyRecipients,
    /// The peer's extensions do not let it take this recipient.
    Unsendable,
    /// The content was not what was announced: our fault, not the peer's.
    Content,
}

/// Why a message cannot be sent over this session, as found before a word of it left. It holds for
/// all its recipients; the session stands where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What a report says.
    pub status: Status,
    /// For people, one line.
    pub text: Box<str>,
}

impl Failure {
    /// A failure in our words.
    pub(super) fn ours(cause: Cause, status: Status, text: impl Into<Box<str>>) -> Failure {
        Failure {
            cause,
            status,
            text: text.into(),
            reply: None,
            again_now: false,
        }
    }

    /// A failure in the peer's words.
    pub(super) fn said(reply: Reply) -> Failure {
        Failure {
            cause: Cause::Refused,
            status: reply.status_or_class(),
            text: reply.text.clone(),
            reply: Some(reply),
            again_now: false,
        }
    }

    /// A peer that does not speak the protocol.
    pub(super) fn protocol(text: impl Into<Box<str>>) -> Failure {
        Failure::ours(Cause::Protocol, Status::temporary(5, 0), text)
    }

    /// A reply that cannot stand where it came, in answer to `what`.
    pub(super) fn out_of_place(what: &str, reply: &Reply) -> Failure {
        Failure::protocol(format!("it answered {what} with: {}", reply.text))
    }
}
