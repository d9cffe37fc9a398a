//! The file of one large message: written as the message arrives, referred to by the log when it is whole.
//!
//! ```text
//!  begin ─▶ append … append ─▶ finish: sync, sync of the directory ─▶ the log's entry
//!                 └──────────────────── discard ◀── anything that fails, or the peer gives up
//! ```
//!
//! A file that no entry refers to was never acknowledged: recovery removes it.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::disk::{Disk, DiskFile, Slices, WriteSync, write_all};
use super::error::{CommitError, DiskError};
use super::layout::LogDirectory;
use super::meters::Meters;
use super::queue_id::QueueId;
use super::space::Space;
use crate::smtp::data::MailData;

/// A file that is being written.
pub struct OwnFile<D: Disk> {
    disk: D,
    id: QueueId,
    directory: PathBuf,
    path: PathBuf,
    file: D::File,
    claim: Claim,
    losses_before: u64,
    space: Arc<Space>,
    meters: Arc<Meters>,
    sync: WriteSync,
}

/// What all files of a log share.
#[derive(Clone, Default)]
pub(super) struct Shared {
    /// Files that nobody wants any more, and their octets. The log's housekeeper removes them.
    pub(super) removals: Rc<RefCell<Vec<(QueueId, u64)>>>,
    pub(super) housekeeper: Rc<Notify>,
    /// How often a sync of the directory failed. It may have lost the names of all files that were under way, and
    /// the next one that succeeds does not tell.
    name_losses: Rc<Cell<u64>>,
}

impl Shared {
    pub(super) fn remove(&self, id: QueueId, octets: u64) {
        self.removals.borrow_mut().push((id, octets));
        self.housekeeper.notify_one();
    }
}

/// Sees to it that the file is removed if whoever writes it is gone before it is settled what becomes of it.
struct Claim {
    id: QueueId,
    octets: u64,
    shared: Shared,
    is_settled: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_settled {
            self.shared.remove(self.id, self.octets);
        }
    }
}

impl Slices for MailData {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        MailData::slices(self)
    }
}

impl<D: Disk> OwnFile<D> {
    pub(super) async fn begin(
        disk: D,
        directory: &LogDirectory,
        id: QueueId,
        shared: Shared,
        space: Arc<Space>,
        meters: Arc<Meters>,
        sync: WriteSync,
    ) -> Result<OwnFile<D>, CommitError> {
        let path = directory.own_file(id);
        let losses_before = shared.name_losses.get();
        let mut claim = Claim {
            id,
            octets: 0,
            shared,
            is_settled: false,
        };
        let file = disk.create(&path).await;
        claim.is_settled = file.is_err();
        let file = file.map_err(DiskError::of("create", &path))?;
        Ok(OwnFile {
            disk,
            id,
            directory: directory.large(),
            path,
            file,
            claim,
            losses_before,
            space,
            meters,
            sync,
        })
    }

    /// The name that the message will have.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets that were appended.
    pub fn octets(&self) -> u64 {
        self.claim.octets
    }

    /// Appends a part of the message, and gives its memory back.
    pub async fn append(&mut self, data: MailData) -> Result<MailData, CommitError> {
        let octets = data.len();
        self.space.take(octets).map_err(|_| CommitError::Full)?;
        // Taken whether or not it is written: given back as a whole.
        let at = self.claim.octets;
        self.claim.octets += octets;
        let (outcome, data) = write_all(&self.file, data, at, WriteSync::No).await;
        self.meters.octets.add(octets);
        outcome.map_err(DiskError::of("write", &self.path))?;
        Ok(data)
    }

    /// All of it, and its name, is on stable storage afterwards.
    pub(super) async fn finish(&mut self) -> Result<(), CommitError> {
        if self.sync == WriteSync::Yes {
            let synced = self.file.sync().await;
            synced.map_err(DiskError::of("sync", &self.path))?;
            let synced = self.disk.sync_directory(&self.directory).await;
            let losses = &self.claim.shared.name_losses;
            if synced.is_err() {
                losses.update(|losses| losses + 1);
            }
            let lost = losses.get() != self.losses_before;
            let synced = synced.and_then(|()| match lost {
                true => Err(std::io::Error::other("an earlier sync failed")),
                false => Ok(()),
            });
            synced.map_err(DiskError::of("sync", &self.directory))?;
            self.meters.syncs.add(2);
        }
        Ok(())
    }

    /// The log sees to it from now on.
    pub(super) fn hand_over(mut self) {
        self.claim.is_settled = true;
    }

    /// Nobody wants it any more.
    pub async fn discard(mut self) {
        match self.disk.remove(&self.path).await {
            Ok(()) => {
                self.claim.is_settled = true;
                self.space.give_back(self.claim.octets);
            }
            // The housekeeper tries once more.
            Err(source) => {
                let error = DiskError::of("remove", &self.path)(source);
                tracing::error!(%error, "file of an abandoned message not removed");
            }
        }
    }
}
