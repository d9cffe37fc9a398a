//! The lines that deliveries leave in the log, and the names of their fields.
//!
//! ```text
//! INFO delivery queue_id=06hq… to=<b@y.test> target=maildir:/var/mail outcome=delivered waited=0.004
//! WARN delivery queue_id=06hq… to=<b@y.test> target=maildir:/var/mail outcome=deferred waited=3.2 reason="cannot create …"
//! ```

use std::time::Duration;

use super::target::Target;
use crate::spool::{Fate, QueueId};

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
    pub(super) fate: &'a Fate,
    /// Since the message came.
    pub(super) waited: Duration,
}

/// Logs what an attempt came to for one recipient.
pub(super) fn recipient(recipient: &Recipient<'_>) {
    let Recipient {
        queue_id,
        to,
        target,
        fate,
        waited,
    } = recipient;
    let waited = (waited.as_secs_f64() * 1e3).round() / 1e3;
    let to = format_args!("<{to}>");
    match fate {
        Fate::Delivered => {
            tracing::info!(%queue_id, %to, %target, outcome = "delivered", waited, "delivery");
        }
        Fate::Waiting => {
            tracing::info!(%queue_id, %to, %target, outcome = "waiting", waited, "delivery");
        }
        Fate::Deferred(reason) => {
            tracing::warn!(%queue_id, %to, %target, outcome = "deferred", waited, %reason, "delivery");
        }
        Fate::Bounced(reason) => {
            tracing::warn!(%queue_id, %to, %target, outcome = "bounced", waited, %reason, "delivery");
        }
    }
}
