//! What an operator asks of a queue, and what the queue answers: the words of `ringpost queue`, of the control
//! socket, and of its JSON.
//!
//! Apart from the queue because the command, the control thread and the shards all speak of it.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::spool::{Accepted, Fate, Held, Progress, QueueId, Recovered};

/// What is asked of the queue of each shard, until one of them has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The next messages in the order of their ids, behind one; a page of at most so many.
    List {
        /// The last one of the page before.
        after: Option<QueueId>,
        /// How many at most.
        count: usize,
    },
    /// One message.
    Show(QueueId),
    /// An attempt now.
    Retry(QueueId),
    /// An attempt now for every message that is not held.
    RetryAll,
    /// The message is forgotten: nobody gets it, and nobody is told.
    Remove(QueueId),
    /// No attempts until it is released.
    Hold(QueueId),
    /// Attempts again, the first one now.
    Release(QueueId),
}

/// A request on its way to a shard.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes. Who asked may have gone.
    pub reply: oneshot::Sender<Reply>,
}

/// What the queue of a shard answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A page; an empty one is the last.
    Listed(Vec<Queued>),
    /// The message, if this queue has it.
    Shown(Option<Box<Queued>>),
    /// For how many messages that was done.
    Done(usize),
    /// Nothing was done: the message is in a state that the request does not fit.
    Passed(QueueState),
}

/// A message in the queue, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its name.
    pub id: QueueId,
    /// What it waits for.
    pub state: QueueState,
    /// The reverse-path; empty for the null one.
    pub from: String,
    /// RET, if MAIL had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<String>,
    /// ENVID as it came, if MAIL had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// Octets of its data, as it came.
    pub octets: u64,
    /// When it came, in milliseconds since 1970.
    pub arrived_unix_ms: u64,
    /// Attempts that did not finish it.
    pub attempts: u32,
    /// When the next attempt is due, in milliseconds since 1970; none while it is held or under way.
    pub next_attempt_unix_ms: Option<u64>,
    /// All recipients, in the envelope's order.
    pub recipients: Vec<QueuedRecipient>,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueState {
    /// An attempt is under way.
    Active,
    /// Its first attempt.
    Waiting,
    /// Its next attempt.
    Deferred,
    /// An operator.
    Held,
}

/// One recipient, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// The forward-path.
    pub to: String,
    /// What became of it.
    pub state: RecipientState,
    /// Why it is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// NOTIFY, if RCPT had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// ORCPT as it came, if RCPT had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
}

/// What became of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// No attempt yet.
    Waiting,
    /// There will be another attempt.
    Deferred,
    /// Done.
    Delivered,
    /// Given up.
    Bounced,
}

impl Queued {
    /// A message of a server that does not run.
    pub fn of_stopped(message: &Recovered) -> Queued {
        let Recovered { accepted, progress } = message;
        let (state, next) = match (progress.held, progress.attempts) {
            (Held::Yes, _) => (QueueState::Held, None),
            (Held::No, 0) => (QueueState::Waiting, Some(accepted.arrived_unix_ms)),
            (Held::No, _) => (QueueState::Deferred, Some(progress.next_attempt_unix_ms)),
        };
        Queued::new(accepted, progress, state, next)
    }

    /// Tells why nobody was tried yet: the next hop is left alone for now.
    pub(super) fn explain_waiting(&mut self, reason: &str) {
        for recipient in &mut self.recipients {
            if recipient.state == RecipientState::Waiting {
                recipient.state = RecipientState::Deferred;
                recipient.reason = Some(reason.to_owned());
            }
        }
    }

    /// A message in this state, whose next attempt is due then, in milliseconds since 1970.
    pub(super) fn new(
        accepted: &Accepted,
        progress: &Progress,
        state: QueueState,
        next_attempt_unix_ms: Option<u64>,
    ) -> Queued {
        let envelope = &accepted.envelope;
        let recipients = envelope.recipients.iter().zip(&progress.recipients);
        Queued {
            id: accepted.id,
            state,
            from: envelope.reverse_path.as_deref().unwrap_or("").to_owned(),
            ret: envelope.dsn.ret.map(|ret| ret.keyword().to_owned()),
            envid: envelope.dsn.envid.as_deref().map(str::to_owned),
            octets: accepted.data_octets,
            arrived_unix_ms: accepted.arrived_unix_ms,
            attempts: progress.attempts,
            next_attempt_unix_ms,
            recipients: recipients
                .map(|(recipient, fate)| {
                    let (state, reason) = match fate {
                        Fate::Waiting => (RecipientState::Waiting, None),
                        Fate::Deferred(reason) => (RecipientState::Deferred, Some(&**reason)),
                        Fate::Delivered => (RecipientState::Delivered, None),
                        Fate::Bounced(reason) => (RecipientState::Bounced, Some(&**reason)),
                    };
                    QueuedRecipient {
                        to: recipient.as_given.to_string(),
                        state,
                        reason: reason.map(str::to_owned),
                        notify: recipient.dsn.notify.map(|notify| notify.to_string()),
                        orcpt: recipient.dsn.orcpt.as_deref().map(str::to_owned),
                    }
                })
                .collect(),
        }
    }
}
