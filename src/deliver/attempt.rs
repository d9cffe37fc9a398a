//! One attempt to deliver a message to those recipients that it has not reached.
//!
//! Each target gets its own copies, and one that fails keeps nothing from the others: what became of each
//! recipient is noted by itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::content::Content;
use super::maildir::{self, PrepareError, Sync};
use super::settings::{DeliverySettings, Durability};
use super::target::Target;
use crate::smtp::data::MailData;
use crate::smtp::trace::return_path_field;
use crate::spool::disk::on_ring::OnRing;
use crate::spool::{Accepted, Fate, Log, Progress, ReadError};

/// What an attempt works with.
pub(super) struct Attempt<'a> {
    pub(super) settings: &'a DeliverySettings,
    pub(super) accepted: &'a Accepted,
    /// The message's data, if memory holds them.
    pub(super) data: Option<&'a MailData>,
    /// Where they are read otherwise.
    pub(super) log: Option<&'a Log<OnRing>>,
    /// Whether the server goes down: what is not begun is left to the next start.
    pub(super) ending: &'a Cell<bool>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Recipients that were delivered to.
    pub(super) delivered: u64,
    /// Recipients for whom there will be another attempt.
    pub(super) deferred: u64,
    /// Whether another attempt is of no use: the data are damaged on disk.
    pub(super) unreadable: bool,
    /// Whether recipients were left because the server goes down.
    pub(super) cut_short: bool,
}

/// A copy in a Maildir, for all recipients whose mail lies there.
struct Copy<'t> {
    root: &'t Path,
    directory: PathBuf,
    /// Indices in the envelope.
    recipients: Vec<usize>,
}

impl Attempt<'_> {
    /// Delivers to each recipient that is not final, and notes in `progress` what came of it.
    pub(super) async fn deliver(&self, progress: &mut Progress) -> Outcome {
        let mut outcome = Outcome::default();
        let (discarded, copies) = self.sort(progress);
        for index in discarded {
            self.note(progress, index, Fate::Delivered, &mut outcome);
        }
        for copy in copies {
            if self.ending.get() {
                outcome.cut_short = true;
                break;
            }
            let fate = match self.deliver_to_maildir(&copy).await {
                Ok(()) => Fate::Delivered,
                Err(error) => {
                    if let PrepareError::Read(ReadError::Damaged { .. }) = &error {
                        outcome.unreadable = true;
                    }
                    Fate::Deferred(shortened(error.to_string()).into())
                }
            };
            for index in &copy.recipients {
                self.note(progress, *index, fate.clone(), &mut outcome);
            }
        }
        outcome
    }

    /// The recipients that are still to come, by what is to be done.
    fn sort(&self, progress: &Progress) -> (Vec<usize>, Vec<Copy<'_>>) {
        let (mut discarded, mut copies) = (Vec::new(), Vec::<Copy<'_>>::new());
        // A thousand recipients, each compared with all before it, would keep the shard for milliseconds.
        let mut indices = HashMap::new();
        let recipients = self.accepted.envelope.recipients.iter();
        for (index, (recipient, fate)) in recipients.zip(&progress.recipients).enumerate() {
            if fate.is_final() {
                continue;
            }
            match self.settings.routes.target(&recipient.domain) {
                Target::Discard => discarded.push(index),
                Target::Maildir(root) => {
                    let directory = maildir::mailbox_directory(recipient);
                    let at = *indices
                        .entry((root, directory.clone()))
                        .or_insert(copies.len());
                    match copies.get_mut(at) {
                        Some(copy) => copy.recipients.push(index),
                        None => copies.push(Copy {
                            root,
                            directory,
                            recipients: vec![index],
                        }),
                    }
                }
            }
        }
        (discarded, copies)
    }

    async fn deliver_to_maildir(&self, copy: &Copy<'_>) -> Result<(), PrepareError> {
        let sync = match self.settings.durability {
            Durability::Disk => Sync::Yes,
            Durability::None => Sync::No,
        };
        let accepted = self.accepted;
        let mut header = return_path_field(accepted.envelope.reverse_path.as_deref());
        header.extend_from_slice(&accepted.received);
        let content = match (self.data, self.log) {
            (Some(data), _) => Content::of(data),
            (None, Some(log)) => Content::Spool(Box::new(log.read(accepted).await?)),
            (None, None) => return Err(ReadError::Gone.into()),
        };
        // Unique: the queue id within this host, the first recipient within the message.
        let first = copy.recipients.first().copied().unwrap_or(0);
        let unique = format!("Q{}_{first}", accepted.id);
        let seconds = i64::try_from(accepted.arrived_unix_ms / 1000).unwrap_or(i64::MAX);
        let name = maildir::file_name(seconds, &unique, &self.settings.hostname);
        let prepared =
            maildir::prepare(copy.root, &copy.directory, name, &header, content, sync).await?;
        if let Err(error) = prepared.publish(sync).await {
            prepared.discard().await;
            return Err(error.into());
        }
        Ok(())
    }

    fn note(&self, progress: &mut Progress, index: usize, fate: Fate, outcome: &mut Outcome) {
        let envelope = &self.accepted.envelope;
        let (Some(place), Some(recipient)) = (
            progress.recipients.get_mut(index),
            envelope.recipients.get(index),
        ) else {
            return;
        };
        super::events::recipient(&super::events::Recipient {
            queue_id: self.accepted.id,
            to: &recipient.as_given,
            target: self.settings.routes.target(&recipient.domain),
            fate: &fate,
            waited: waited(self.accepted.arrived_unix_ms),
        });
        match fate {
            Fate::Delivered => outcome.delivered += 1,
            Fate::Waiting | Fate::Deferred(_) => outcome.deferred += 1,
            Fate::Bounced(_) => {}
        }
        *place = fate;
    }
}

/// Since the message came.
fn waited(arrived_unix_ms: u64) -> Duration {
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    since.saturating_sub(Duration::from_millis(arrived_unix_ms))
}

/// A reason is kept with each recipient, and shown in one line.
fn shortened(mut reason: String) -> String {
    let too_long = |(begin, letter): &(usize, char)| begin + letter.len_utf8() > REASON_OCTETS_MAX;
    if let Some((end, _)) = reason.char_indices().find(too_long) {
        reason.truncate(end);
    }
    reason
}

/// Of the reason why a recipient waits: a segment of the spool has room for a message with one for each of its
/// recipients.
const REASON_OCTETS_MAX: usize = 400;
