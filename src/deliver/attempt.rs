//! One attempt: a message's recipients of one destination, and what comes of them.
//!
//! Each destination gets its own copy, and one that fails keeps nothing from the others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::content::Source;
use super::destination::Destination;
use super::ending::Ending;
use super::hops::{Hops, Job};
use super::maildir::{self, PrepareError, Sync};
use super::queue::News;
use super::settings::{DeliverySettings, Durability};
use super::target::Target;
use super::verdict::{Arrival, Failure, Verdict};
use crate::smtp::status::Status;
use crate::smtp::trace::return_path_field;
use crate::spool::ReadError;

/// What an attempt works with.
pub(super) struct Attempt<'a> {
    pub(super) settings: &'a Arc<DeliverySettings>,
    pub(super) hops: &'a Rc<Hops>,
    pub(super) source: &'a Source,
    /// Whether the server goes down: what is not begun is left to the next start.
    pub(super) ending: &'a Ending,
}

/// What came of an attempt.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// By the recipient's place in the envelope. Who is missing was not tried, since the server goes down.
    pub(super) verdicts: Vec<(usize, Verdict)>,
    /// What was found out about the destination.
    pub(super) news: Option<News>,
    /// What happened besides.
    pub(super) left: Left,
}

/// Why nothing was tried for some recipients, or is of no use to be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything was tried.
    #[default]
    Nobody,
    /// Recipients were left because the server goes down.
    CutShort,
    /// Recipients were left because there was no connection to be had, of those that there may be.
    Crowded,
    /// The data are damaged on disk.
    Unreadable,
}

/// A copy in a Maildir, for all recipients whose mail lies there.
struct Copy {
    directory: PathBuf,
    /// Places in the envelope.
    recipients: Vec<usize>,
}

impl Tried {
    /// Gives these recipients the same verdict.
    pub(super) fn judge(&mut self, recipients: impl IntoIterator<Item = usize>, verdict: &Verdict) {
        let judged = recipients.into_iter().map(|place| (place, verdict.clone()));
        self.verdicts.extend(judged);
    }
}

impl Attempt<'_> {
    /// Tries to deliver to these recipients, who all are of one destination.
    pub(super) async fn deliver(&self, to: &Destination, recipients: Vec<usize>) -> Tried {
        let envelope = &self.source.accepted.envelope;
        let first = recipients
            .first()
            .and_then(|place| envelope.recipients.get(*place));
        let Some(first) = first else {
            return Tried::default();
        };
        match self.settings.routes.target(&first.domain) {
            Target::Discard => {
                let mut tried = Tried::default();
                tried.judge(recipients, &Verdict::Delivered(Arrival::Final));
                tried
            }
            Target::Maildir(root) => self.deliver_to_maildirs(root, recipients).await,
            target @ (Target::Smtp(_)
            | Target::Smtps(_)
            | Target::Lmtp(_)
            | Target::LmtpUnix(_)
            | Target::Mx) => {
                let job = Job {
                    destination: to,
                    target,
                    domain: &first.domain,
                    recipients,
                };
                self.hops.deliver(self.source, job).await
            }
        }
    }

    async fn deliver_to_maildirs(&self, root: &Path, recipients: Vec<usize>) -> Tried {
        let mut tried = Tried::default();
        for copy in self.copies(recipients) {
            if self.ending.is_wanted() {
                tried.left = Left::CutShort;
                break;
            }
            let verdict = match self.deliver_to_maildir(root, &copy).await {
                Ok(()) => Verdict::Delivered(Arrival::Final),
                Err(error) => {
                    if let PrepareError::Read(ReadError::Damaged { .. }) = &error {
                        tried.left = Left::Unreadable;
                    }
                    // RFC 3463 §3.4: the mail system, other or undefined.
                    let status = Status::temporary(3, 0);
                    Verdict::Deferred(Failure::ours(status, error.to_string()))
                }
            };
            tried.judge(copy.recipients, &verdict);
        }
        tried
    }

    fn copies(&self, recipients: Vec<usize>) -> Vec<Copy> {
        let envelope = &self.source.accepted.envelope;
        let mut copies = Vec::<Copy>::new();
        let mut by_directory = HashMap::new();
        for place in recipients {
            let Some(recipient) = envelope.recipients.get(place) else {
                continue;
            };
            let directory = maildir::mailbox_directory(recipient);
            let at = *by_directory
                .entry(directory.clone())
                .or_insert(copies.len());
            match copies.get_mut(at) {
                Some(copy) => copy.recipients.push(place),
                None => copies.push(Copy {
                    directory,
                    recipients: vec![place],
                }),
            }
        }
        copies
    }

    async fn deliver_to_maildir(&self, root: &Path, copy: &Copy) -> Result<(), PrepareError> {
        let sync = match self.settings.durability {
            Durability::Disk | Durability::NextHop => Sync::Yes,
            Durability::None => Sync::No,
        };
        let accepted = &self.source.accepted;
        let mut header = return_path_field(accepted.envelope.reverse_path.as_deref());
        header.extend_from_slice(&accepted.received);
        let content = self.source.content().await?;
        // Unique: the queue id within this host, the first recipient within the message.
        let first = copy.recipients.first().copied().unwrap_or(0);
        let unique = format!("Q{}_{first}", accepted.id);
        let seconds = i64::try_from(accepted.arrived_unix_ms / 1000).unwrap_or(i64::MAX);
        let name = maildir::file_name(seconds, &unique, &self.settings.hostname);
        let prepared =
            maildir::prepare(root, &copy.directory, name, &header, content, sync).await?;
        if let Err(error) = prepared.publish(sync).await {
            prepared.discard().await;
            return Err(error.into());
        }
        Ok(())
    }
}
