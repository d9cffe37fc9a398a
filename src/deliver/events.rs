//! The lines that deliveries leave in the log, and the names of their fields.
//!
//! ```text
//! INFO delivery queue_id=06hq… to=<b@y.test> target=maildir:/var/mail outcome=delivered waited=0.004
//! INFO delivery queue_id=06hq… to=<b@y.test> target=mx outcome=delivered waited=0.04 hop=mx.y.test[192.0.2.1]:25
//! WARN delivery queue_id=06hq… to=<b@y.test> target=mx outcome=deferred waited=3.2 status=4.2.0 reason="mx.y.test… said: 450 …"
//! ```

use std::time::Duration;

use super::target::Target;
use super::verdict::{Arrival, Verdict};
use crate::spool::QueueId;

/// What an attempt came to for one recipient.
#[derive(Debug)]
pub(super) struct Recipient<'a> {
    /// The message.
    pub(super) queue_id: QueueId,
    /// The forward-path.
    pub(super) to: &'a str,
    /// Where it goes.
    pub(super) target: &'a Target,
    /// What came of it.
    pub(super) verdict: &'a Verdict,
    /// Since the message came.
    pub(super) waited: Duration,
}

/// Logs what an attempt came to for one recipient.
pub(super) fn recipient(recipient: &Recipient<'_>) {
    let Recipient {
        queue_id,
        to,
        target,
        verdict,
        waited,
    } = recipient;
    let waited = (waited.as_secs_f64() * 1e3).round() / 1e3;
    let to = format_args!("<{to}>");
    let (outcome, failure) = match verdict {
        Verdict::Delivered(Arrival::Final) => {
            tracing::info!(%queue_id, %to, %target, outcome = "delivered", waited, "delivery");
            return;
        }
        Verdict::Delivered(Arrival::Passed { hop } | Arrival::Relayed { hop }) => {
            tracing::info!(%queue_id, %to, %target, outcome = "delivered", waited, %hop, "delivery");
            return;
        }
        Verdict::Deferred(failure) => ("deferred", failure),
        Verdict::Failed(failure) => ("bounced", failure),
    };
    let status = failure.status;
    tracing::warn!(
        %queue_id, %to, %target, outcome, waited, %status, reason = %failure,
        "delivery"
    );
}
