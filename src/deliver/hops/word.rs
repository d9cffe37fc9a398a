//! What a next hop's word comes to for a recipient, and what its silence does.
//!
//! Whether it is for now or for good is in the status: by the class of the reply where there is one (RFC 5321 §4.2.1),
//! and for now where the fault is the connection's.

use super::link::LinkError;
use crate::deliver::verdict::{Arrival, Failure, Said, Verdict};
use crate::smtp::client::{self, Cause, RecipientOutcome, Reply};
use crate::smtp::status::Status;

/// What a transaction comes to for one of its recipients.
pub(super) fn verdict_of(outcome: RecipientOutcome, hop: &str) -> Verdict {
    match outcome {
        RecipientOutcome::Accepted {
            dsn_passed: true, ..
        } => Verdict::Delivered(Arrival::Passed { hop: hop.into() }),
        RecipientOutcome::Accepted {
            dsn_passed: false, ..
        } => Verdict::Delivered(Arrival::Relayed { hop: hop.into() }),
        RecipientOutcome::Refused(reply) => said(&reply).at(hop).verdict(),
        RecipientOutcome::Unsent(failure) => dialogue(failure).at(hop).verdict(),
    }
}

/// In the next hop's words.
///
/// 530 says what is to be done first, a login or TLS (RFC 4954 §6, RFC 3207 §4): it is for an operator to mend, and
/// says nothing of the mail.
fn said(reply: &Reply) -> Failure {
    let status = reply.status_or_class();
    Failure {
        status: match reply.code {
            530 => Status::temporary(status.subject, status.detail),
            _ => status,
        },
        text: reply.text.clone(),
        said: Said::ByHop,
        hop: None,
    }
}

fn dialogue(failure: client::Failure) -> Failure {
    match &failure.reply {
        Some(reply) => Failure {
            status: failure.status,
            ..said(reply)
        },
        None => Failure::ours(failure.status, failure.text),
    }
}

pub(super) fn failure_of(error: LinkError) -> Failure {
    match error {
        LinkError::Dialogue(failure) => dialogue(failure),
        // RFC 3463 §3.5: no answer from host; bad connection.
        LinkError::Io(doing, error) => {
            let detail = if doing == "connect" { 1 } else { 2 };
            Failure::ours(
                Status::temporary(4, detail),
                format!("cannot {doing}: {error}"),
            )
        }
        // RFC 3463 §3.8: other security status.
        LinkError::Handshake(reason) | LinkError::Tls(reason) => {
            Failure::ours(Status::temporary(7, 0), format!("TLS failed: {reason}"))
        }
        LinkError::Ending => Failure::ours(Status::temporary(3, 2), "the server goes down"),
        LinkError::Content(error) => Failure::ours(Status::temporary(3, 0), error.to_string()),
    }
}

/// The same, to be tried again.
pub(super) fn temporary(failure: Failure) -> Failure {
    let status = failure.status;
    Failure {
        status: Status::temporary(status.subject, status.detail),
        ..failure
    }
}

/// Whether the connection went before there was a word about a recipient, and the next hop cannot have the message:
/// none of it had left, or it took leave (421).
pub(super) fn is_lost(outcome: &RecipientOutcome, content_begun: bool) -> bool {
    match outcome {
        RecipientOutcome::Unsent(failure) => {
            let farewell = failure
                .reply
                .as_ref()
                .is_some_and(|reply| reply.code == 421);
            (failure.cause == Cause::Closed && !content_begun) || farewell
        }
        RecipientOutcome::Accepted { .. } | RecipientOutcome::Refused(_) => false,
    }
}
