//! Does for a log what nobody waits for: removes files, fills segments with zeros, moves the last messages out of
//! old segments.
//!
//! A task beside the writer, so that no batch waits for it. It writes to no segment that holds anything: what it
//! moves goes through the writer like a message.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::books::{Closing, Filled, FreeSegment, Wants};
use super::{Inner, Log};
use crate::spool::batch::{Moved, Pending};
use crate::spool::disk::{Disk, DiskFile, WriteSync, read_up_to, write_all};
use crate::spool::entry;
use crate::spool::error::{CommitError, DiskError};

impl<D: Disk> Log<D> {
    /// Tidies up whenever it is told to, until the log is closed.
    pub(super) async fn keep_house(&self) {
        loop {
            self.0.housekeeper.notified().await;
            self.remove_own_files().await;
            if self.0.books.borrow().closing == Closing::Closed {
                return;
            }
            self.fill_one().await;
            while self.0.books.borrow().is_to_compact() {
                if !self.compact_oldest().await {
                    break;
                }
            }
        }
    }

    /// Removes the files of large messages that are done, or were never accepted.
    async fn remove_own_files(&self) {
        let removals = std::mem::take(&mut *self.0.own_files.removals.borrow_mut());
        for (id, octets) in removals {
            let path = self.0.directory.own_file(id);
            match self.0.disk.remove(&path).await {
                Ok(()) => self.0.settings.space.give_back(octets),
                // A discard that was dropped half-way may have removed it before.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.0.settings.space.give_back(octets);
                }
                // Nothing refers to it: the next start removes it.
                Err(source) => {
                    let error = DiskError::of("remove", &path)(source);
                    tracing::error!(%error, "file of a finished message not removed");
                }
            }
        }
    }

    /// Fills a free segment with zeros before it is needed, if one is due.
    async fn fill_one(&self) {
        if !self.0.books.borrow().is_to_fill() {
            return;
        }
        if self.0.books.borrow().free.len() < 2 {
            // Filled, it is used at once, and another has to be behind it then. Not where others want the space.
            let settings = &self.0.settings;
            let made = match settings.space.would_be_tight(settings.segment_octets) {
                true => Err(CommitError::Full),
                false => self.make_segment(Wants::Message).await,
            };
            match made {
                Ok(made) => self.0.books.borrow_mut().free.push(made),
                Err(_full) => {
                    self.0.books.borrow_mut().filling_failed = true;
                    return;
                }
            }
        }
        let segment = {
            let mut books = self.0.books.borrow_mut();
            let Some(segment) = books.free.pop() else {
                return;
            };
            books.filling += 1;
            segment
        };
        let mut zeros = vec![0; FILL_OCTETS];
        let mut offset = 0;
        let mut outcome = Ok(());
        while offset < segment.octets && outcome.is_ok() {
            let left = usize::try_from(segment.octets - offset).unwrap_or(FILL_OCTETS);
            zeros.truncate(left);
            (outcome, zeros) = write_all(&segment.file, zeros, offset, WriteSync::No).await;
            offset += zeros.len() as u64;
        }
        if outcome.is_ok() {
            outcome = segment.file.sync().await;
            self.0.settings.meters.syncs.add(1);
        }
        let mut books = self.0.books.borrow_mut();
        books.filling -= 1;
        if let Err(error) = &outcome {
            // Slower syncs are all that comes of it.
            books.filling_failed = true;
            tracing::warn!(%error, path = %segment.path.display(), "segment not filled with zeros");
        }
        books.free.push(FreeSegment {
            filled: if outcome.is_ok() {
                Filled::Yes
            } else {
                Filled::No
            },
            ..segment
        });
    }

    /// Moves what is alive out of the oldest segment. False: there is no point in going on for now.
    async fn compact_oldest(&self) -> bool {
        let (file, path, sequence, nonce, messages, in_use) = {
            let books = self.0.books.borrow();
            let Some(oldest) = books.segments.front() else {
                return false;
            };
            (
                oldest.file.clone(),
                oldest.path.clone(),
                oldest.sequence,
                oldest.nonce,
                oldest.messages.clone(),
                Rc::clone(&oldest.in_use),
            )
        };
        let mut moving = 0;
        for id in messages {
            let lies = {
                let books = self.0.books.borrow();
                if books.closing != Closing::No {
                    return false;
                }
                match books.places.get(&id) {
                    Some(place) if place.sequence == sequence => place.lies,
                    Some(_) | None => continue,
                }
            };
            let octets = usize::try_from(lies.octets).unwrap_or(usize::MAX);
            let entry = read_up_to(&file, Vec::new(), lies.offset, octets).await;
            let moved = entry
                .map_err(DiskError::of("read", &path))
                .and_then(|octets| {
                    let entry = entry::read(&octets, 0, nonce).map_err(|_| {
                        DiskError::of("understand", &path)(std::io::ErrorKind::InvalidData.into())
                    })?;
                    Ok(Moved {
                        id,
                        from: sequence,
                        record: entry.record.to_vec(),
                        data: octets.get(entry.data.clone()).unwrap_or_default().to_vec(),
                        data_crc: entry.data_crc,
                    })
                });
            let moved = match moved {
                Ok(moved) => moved,
                Err(error) => {
                    tracing::error!(%error, %id, "message not moved, its segment stays");
                    let again = Instant::now() + COMPACT_AGAIN;
                    self.0.books.borrow_mut().compact_again = Some(again);
                    return false;
                }
            };
            moving += lies.octets;
            {
                let mut books = self.0.books.borrow_mut();
                books.pending.push_back(Pending::Move(moved));
                books.urgent += 1;
            }
            if moving >= MOVE_OCTETS {
                moving = 0;
                self.flush().await;
            }
        }
        drop(in_use);
        self.flush().await;
        // After a failed write, what was to move is still where it was; the next batch leads here again.
        let books = self.0.books.borrow();
        books.refusing.is_none() && books.closing == Closing::No
    }
}

impl<D: Disk> Inner<D> {
    pub(super) fn house_needs_keeping(&self) -> bool {
        let books = self.books.borrow();
        books.is_to_fill() || books.is_to_compact()
    }
}

/// Zeros written at once, in octets.
const FILL_OCTETS: usize = 1024 * 1024;

/// When a segment that could not be emptied is tried again.
pub(super) const COMPACT_AGAIN: Duration = Duration::from_secs(60);

/// Octets moved with one batch: few, since the messages in the batch wait for them.
const MOVE_OCTETS: u64 = 256 * 1024;
