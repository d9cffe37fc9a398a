//! Delivers a message to the target of each of its recipients before it is acknowledged.
//!
//! All files are written and synced before the first is shown to a reader, so that what fails, mostly fails
//! before anything was delivered. What fails later takes back what was shown: the sender will try again, and
//! nobody is to have the message twice.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::maildir::{self, FileOctets, MaildirError, Sync};
use super::target::Target;
use crate::smtp::message::Message;
use crate::smtp::trace::{received_field, return_path_field};
use crate::spool::QueueIds;

/// What 250 to the end of data promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The message is on stable storage.
    Disk,
    /// The message is with the kernel.
    None,
}

/// Which target a domain's mail goes to.
#[derive(Clone, Debug)]
pub struct Routes {
    default: Target,
    by_domain: HashMap<String, Target>,
}

impl Routes {
    /// `by_domain` names domains in lower-case A-label form.
    pub fn new(default: Target, by_domain: impl IntoIterator<Item = (String, Target)>) -> Routes {
        Routes {
            default,
            by_domain: by_domain.into_iter().collect(),
        }
    }

    fn target(&self, domain: &str) -> &Target {
        self.by_domain.get(domain).unwrap_or(&self.default)
    }
}

/// What all shards deliver by.
#[derive(Debug)]
pub struct DeliverySettings {
    /// The name in the trace header and in Maildir file names.
    pub hostname: String,
    /// Where mail goes.
    pub routes: Routes,
    /// Whether it is synced.
    pub durability: Durability,
}

/// A shard's way of delivering.
#[derive(Debug)]
pub struct Delivery {
    settings: Arc<DeliverySettings>,
    queue_ids: QueueIds,
}

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A Maildir could not take it.
    #[error(transparent)]
    Maildir(#[from] MaildirError),
}

impl DeliveryError {
    /// Whether space or descriptors ran out, which heals by itself.
    pub fn is_exhaustion(&self) -> bool {
        let DeliveryError::Maildir(error) = self;
        matches!(
            error.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory
        ) || matches!(
            error.source.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE)
        )
    }
}

impl Delivery {
    /// For the shard of this number.
    pub fn new(settings: Arc<DeliverySettings>, shard: usize) -> Delivery {
        Delivery {
            settings,
            queue_ids: QueueIds::new(shard),
        }
    }

    /// Delivers `message` to all its recipients, under the queue id that comes back.
    pub async fn deliver(&self, message: &Message) -> Result<String, DeliveryError> {
        let now = SystemTime::now();
        let queue_id = self.queue_ids.next(now).to_string();
        let copies = self.copies(message);
        if !copies.is_empty() {
            self.deliver_to_maildirs(message, &queue_id, now, &copies)
                .await?;
        }
        Ok(queue_id)
    }

    /// Which Maildirs get a copy, each once, with the recipient it is for.
    fn copies(&self, message: &Message) -> Vec<Copy<'_>> {
        let mut copies: Vec<Copy<'_>> = Vec::new();
        let mut seen: HashSet<(&Path, PathBuf)> = HashSet::new();
        for (recipient, whom) in message.envelope.recipients.iter().enumerate() {
            match self.settings.routes.target(&whom.domain) {
                Target::Discard => {}
                Target::Maildir(root) => {
                    let directory = maildir::mailbox_directory(whom);
                    if seen.insert((root, directory.clone())) {
                        copies.push(Copy {
                            root,
                            directory,
                            recipient,
                        });
                    }
                }
            }
        }
        copies
    }

    async fn deliver_to_maildirs(
        &self,
        message: &Message,
        queue_id: &str,
        now: SystemTime,
        copies: &[Copy<'_>],
    ) -> Result<(), DeliveryError> {
        let sync = match self.settings.durability {
            Durability::Disk => Sync::Yes,
            Durability::None => Sync::No,
        };
        let hostname = &self.settings.hostname;
        let seconds = unix_seconds(now);
        let mut header = return_path_field(message.envelope.reverse_path.as_deref());
        header.extend(received_field(message, hostname, queue_id, seconds));
        let mut prepared = Vec::with_capacity(copies.len());
        for copy in copies {
            let data = message.data.slices();
            let octets = FileOctets::new(&header, data, message.data.len());
            // Unique: the queue id within this host, the number within the message.
            let number = copy.recipient;
            let process = std::process::id();
            let unique = format!("P{process}Q{queue_id}_{number}");
            let name = maildir::file_name(seconds, &unique, hostname);
            match maildir::prepare(copy.root, &copy.directory, name, octets, sync).await {
                Ok(file) => prepared.push(file),
                Err(error) => {
                    for file in &prepared {
                        file.discard().await;
                    }
                    return Err(error.into());
                }
            }
        }
        for file in &prepared {
            if let Err(error) = file.publish(sync).await {
                for file in &prepared {
                    file.withdraw().await;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// A copy for one Maildir.
struct Copy<'t> {
    root: &'t Path,
    directory: PathBuf,
    recipient: usize,
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring;
    use crate::smtp::data::{Budget, MailData};
    use crate::smtp::envelope::{Body, Envelope, Recipient};
    use crate::smtp::message::{Origin, Protocol};

    fn delivery(root: &Path) -> Delivery {
        let settings = DeliverySettings {
            hostname: "mx.test".into(),
            routes: Routes::new(Target::Maildir(root.into()), []),
            durability: Durability::Disk,
        };
        Delivery::new(Arc::new(settings), 0)
    }

    fn message(local_parts: &[&str]) -> Message {
        let recipients = local_parts.iter().map(|local_part| Recipient {
            as_given: format!("{local_part}@mx.test").into(),
            local_part: Box::from(*local_part),
            domain: "mx.test".into(),
        });
        let mut data = MailData::new(&Budget::new(u64::MAX), None);
        data.push(b"Subject: x\r\n\r\nbody\r\n").unwrap();
        Message {
            envelope: Arc::new(Envelope {
                reverse_path: None,
                recipients: recipients.collect(),
                body: Body::SevenBit,
                smtputf8: false,
                declared_octets: None,
            }),
            stored_octets: 0,
            data,
            origin: Origin {
                peer: "192.0.2.7:4000".parse().unwrap(),
                greeted_as: "x".into(),
                protocol: Protocol::Esmtp,
                security: None,
                authenticated: None,
            },
        }
    }

    fn deliver(root: &Path, local_parts: &[&str]) -> Result<String, DeliveryError> {
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        let (delivery, message) = (delivery(root), message(local_parts));
        ring::run(settings, async { delivery.deliver(&message).await }).unwrap()
    }

    fn count(root: &Path, part: &str) -> usize {
        std::fs::read_dir(root.join("mx.test").join(part))
            .unwrap()
            .count()
    }

    #[test]
    fn a_mailbox_named_twice_gets_one_copy() {
        let root = tempfile::tempdir().unwrap();
        deliver(root.path(), &["a", "A", "b", "a"]).unwrap();
        assert_eq!(count(root.path(), "a/new"), 1);
        assert_eq!(count(root.path(), "b/new"), 1);
    }

    /// A sender that hears 451 sends again; whoever had a copy of the failed attempt would have two.
    #[test]
    fn what_fails_for_one_is_delivered_to_nobody() {
        let root = tempfile::tempdir().unwrap();
        deliver(root.path(), &["b"]).unwrap();
        std::fs::remove_dir_all(root.path().join("mx.test/b/new")).unwrap();
        std::fs::write(root.path().join("mx.test/b/new"), "in the way").unwrap();
        deliver(root.path(), &["a", "b", "c"]).unwrap_err();
        for part in ["a/new", "a/tmp", "b/tmp", "c/new", "c/tmp"] {
            assert_eq!(count(root.path(), part), 0, "{part}");
        }
    }
}
