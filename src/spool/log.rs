//! The log of one shard: appends what is accepted, one write and one sync a batch.
//!
//! ```text
//!  append ─┐                                                    ┌─▶ 250, and delivery from memory
//!  append ─┼─▶ pending ──▶ batch ──▶ one write with RWF_DSYNC ──┤
//!  note   ─┘      ▲                                             └─▶ places: which segment has what
//!                 └── everything that comes while the write is under way is the next batch
//!
//!  segments:   oldest ──▶ … ──▶ newest (written to)          free: header says so, recycled
//!              when nothing in it is alive any more ─────────────▲
//! ```
//!
//! Invariants:
//! - [`Log::append`] returns when the message is on stable storage, and not before.
//! - No octet is written over that belongs to a message which is not done, on stable storage.
//! - Segments are freed in the order of their use, and each is marked free, synced, before it is written over.
//!   So a note that a message is done never goes before the message itself, and none comes back.
//! - A write that failed is not tried again in its place: after a failed sync the kernel takes pages for clean
//!   that never reached the disk, and a second sync would report success over a hole. The batch's messages are
//!   refused with a 4yz, the segment is closed off where it was whole, and the next batch goes to another one,
//!   whose header tells recovery where this one ended.
//! - The last free segment is for what makes room, such as notes that a message is done: neither a message nor the
//!   note of an attempt opens it. Once it is open, messages are written to it, and notes of attempts, of which
//!   there is no end, are not.
//! - What is pending is bounded by the sessions, each with one message, by the deliveries under way, and by what
//!   is moved with one batch.
//!
//! Not promised: that a note (`done`, `progress`) is durable when it is handed in. It goes with the next batch,
//! after 100 ms at the latest while the disk takes writes; a crash before that delivers once more.
//!
//! `books` has what the log knows, `writer` the batches and the segments they go to, `housekeeper` what nobody
//! waits for.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::books::{Books, Closing, Filled, FreeSegment, Newest, Segment};
use super::batch::{Allowance, Note, NoteKind, Pending, PendingMessage};
use super::disk::{Access, Disk, DiskFile, WriteSync};
use super::error::{CommitError, DiskError, ReadError};
use super::layout::LogDirectory;
use super::meters::Meters;
use super::own_file::{self, OwnFile};
use super::queue_id::QueueId;
use super::reader::Reader;
use super::record::{self, Accepted, Data, Progress};
use super::recovery::RecoveredLog;
use super::space::Space;
use crate::smtp::data::MailData;

mod books;
mod housekeeper;
mod writer;

pub(super) use books::Place;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Octets of a segment's file.
    pub segment_octets: u64,
    /// Whether batches are synced.
    pub sync: WriteSync,
    /// What all logs of the process may take on disk.
    pub space: Arc<Space>,
    /// What is counted.
    pub meters: Arc<Meters>,
}

/// The log of one shard. A clone is the same log.
pub struct Log<D: Disk>(Rc<Inner<D>>);

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Log(Rc::clone(&self.0))
    }
}

struct Inner<D: Disk> {
    disk: D,
    directory: LogDirectory,
    settings: LogSettings,
    books: RefCell<Books<D::File>>,
    own_files: own_file::Shared,
    /// There is something to write.
    writer: Notify,
    /// There is something to tidy up.
    housekeeper: Rc<Notify>,
}

impl<D: Disk> Log<D> {
    /// Goes on with what recovery found.
    pub async fn open(
        disk: D,
        recovered: RecoveredLog,
        settings: LogSettings,
    ) -> Result<Log<D>, DiskError> {
        let mut segments = VecDeque::with_capacity(recovered.segments.len());
        for found in recovered.segments {
            let file = open_segment(&disk, &found.path).await?;
            settings.space.take_anyway(found.file_octets);
            segments.push_back(Segment {
                path: found.path,
                file,
                file_octets: found.file_octets,
                sequence: found.sequence,
                nonce: found.nonce,
                end: found.end,
                batches: 0,
                messages: found.messages,
                alive: found.alive,
                alive_octets: found.alive_octets,
                filled: Filled::No,
                before: found.before,
                in_use: Rc::default(),
            });
        }
        let mut free = Vec::with_capacity(recovered.free.len());
        for path in recovered.free {
            let file = open_segment(&disk, &path).await?;
            let octets = file.len().await.map_err(DiskError::of("look at", &path))?;
            if octets == settings.segment_octets {
                settings.space.take_anyway(octets);
                free.push(FreeSegment {
                    path,
                    file,
                    octets,
                    filled: Filled::No,
                });
            } else {
                // Of another size, or made and never reserved.
                let _ = disk.remove(&path).await;
            }
        }
        for place in recovered.places.values() {
            settings.space.take_anyway(place.own_file.unwrap_or(0));
        }
        let books = Books {
            segments,
            newest: Newest::ClosedOff,
            free,
            filling: 0,
            places: recovered.places,
            finishing: HashSet::new(),
            pending: VecDeque::new(),
            urgent: 0,
            noted: None,
            refusing: None,
            withdrawn: Vec::new(),
            sequence_next: recovered.sequence_next,
            file_next: recovered.file_next,
            free_again: None,
            compact_again: None,
            filling_failed: false,
            closing: Closing::No,
        };
        let own_files = own_file::Shared::default();
        Ok(Log(Rc::new(Inner {
            disk,
            directory: recovered.directory,
            settings,
            books: RefCell::new(books),
            writer: Notify::new(),
            housekeeper: Rc::clone(&own_files.housekeeper),
            own_files,
        })))
    }

    /// Writes until [`Log::close`], and to the end of what was handed in before. To be spawned by the owner.
    pub async fn run(self) {
        tokio::join!(self.write(), self.keep_house());
    }

    /// Has everything written that was handed in, and takes nothing more.
    pub fn close(&self) {
        let mut books = self.0.books.borrow_mut();
        if books.closing == Closing::No {
            books.closing = Closing::Asked;
        }
        drop(books);
        self.0.writer.notify_one();
    }

    /// Makes a message durable that is all in memory. Whatever fails, nothing is kept here.
    pub async fn append(&self, accepted: Accepted, data: Rc<MailData>) -> Result<(), CommitError> {
        self.append_record(accepted, data, Data::Inline, Allowance::OfMessages, None)
            .await
    }

    /// The same for a message that makes room: when it is kept another is done. So it may have the room that is kept
    /// for notes.
    pub async fn append_in_place(
        &self,
        accepted: Accepted,
        data: Rc<MailData>,
    ) -> Result<(), CommitError> {
        self.append_record(accepted, data, Data::Inline, Allowance::OfNotes, None)
            .await
    }

    /// Makes a message durable of which `own_file` has the beginning. The `rest` goes there too.
    pub async fn append_stored(
        &self,
        accepted: Accepted,
        rest: MailData,
        mut own_file: OwnFile<D>,
    ) -> Result<(), CommitError> {
        let written = async {
            if self.0.books.borrow().closing != Closing::No {
                return Err(CommitError::Closed);
            }
            let rest = own_file.append(rest).await?;
            own_file.finish().await?;
            Ok(rest)
        };
        match written.await {
            Ok(rest) => {
                assert_eq!(
                    own_file.octets(),
                    accepted.data_octets,
                    "a message is all in its file"
                );
                let (data, allowance) = (Rc::new(rest), Allowance::OfMessages);
                self.append_record(accepted, data, Data::OwnFile, allowance, Some(own_file))
                    .await
            }
            Err(error) => {
                own_file.discard().await;
                Err(error)
            }
        }
    }

    async fn append_record(
        &self,
        accepted: Accepted,
        data: Rc<MailData>,
        lies: Data,
        allowance: Allowance,
        own_file: Option<OwnFile<D>>,
    ) -> Result<(), CommitError> {
        let (done, outcome) = oneshot::channel();
        {
            let mut books = self.0.books.borrow_mut();
            if books.closing != Closing::No {
                return Err(CommitError::Closed);
            }
            if let Some((until, error)) = &books.refusing
                && allowance == Allowance::OfMessages
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            books.urgent += 1;
            books.pending.push_back(Pending::Message(PendingMessage {
                allowance,
                accepted,
                data,
                lies,
                done,
            }));
        }
        // What waits for the log is the log's, whether or not anybody still waits for the log.
        if let Some(own_file) = own_file {
            own_file.hand_over();
        }
        self.0.writer.notify_one();
        outcome.await.unwrap_or(Err(CommitError::Closed))
    }

    /// A file for a message that is too large to be held in memory.
    pub async fn begin_own_file(&self, id: QueueId) -> Result<OwnFile<D>, CommitError> {
        let inner = &self.0;
        OwnFile::begin(
            inner.disk.clone(),
            &inner.directory,
            id,
            inner.own_files.clone(),
            Arc::clone(&inner.settings.space),
            Arc::clone(&inner.settings.meters),
            inner.settings.sync,
        )
        .await
    }

    /// Notes how far the delivery of a message has come.
    pub fn note_progress(&self, id: QueueId, progress: &Progress) {
        self.note_progress_as(NoteKind::Progress, id, progress);
    }

    /// The same after an attempt, written only while a segment is free: without it a crash leads to another
    /// attempt, no more.
    pub fn note_attempt(&self, id: QueueId, progress: &Progress) {
        self.note_progress_as(NoteKind::Attempt, id, progress);
    }

    fn note_progress_as(&self, kind: NoteKind, id: QueueId, progress: &Progress) {
        let mut octets = Vec::new();
        record::push_progress(&mut octets, id, progress);
        let mut books = self.0.books.borrow_mut();
        let Some(place) = books.places.get_mut(&id) else {
            return;
        };
        // Here at once, so that a move takes the latest progress along.
        let before = place.octets();
        place.progress = Some(octets.clone().into_boxed_slice());
        let (sequence, after) = (place.sequence, place.octets());
        if let Some(segment) = books.segment_mut(sequence) {
            segment.alive_octets = segment.alive_octets - before + after;
        }
        books.note(Note {
            id,
            record: octets,
            kind,
        });
        drop(books);
        self.0.writer.notify_one();
    }

    /// Notes that nothing more is to be done for a message.
    pub fn note_done(&self, id: QueueId) {
        let mut books = self.0.books.borrow_mut();
        if !books.places.contains_key(&id) || !books.finishing.insert(id) {
            return;
        }
        let mut octets = Vec::with_capacity(DONE_OCTETS);
        record::push_done(&mut octets, id);
        books.note(Note {
            id,
            record: octets,
            kind: NoteKind::Done,
        });
        drop(books);
        self.0.writer.notify_one();
    }

    /// Returns when everything handed in before is durable, or the log is closed.
    pub async fn flush(&self) {
        let (done, outcome) = oneshot::channel();
        {
            let mut books = self.0.books.borrow_mut();
            if books.closing == Closing::Closed {
                return;
            }
            books.urgent += 1;
            books.pending.push_back(Pending::Mark(done));
        }
        self.0.writer.notify_one();
        let _ = outcome.await;
    }

    /// The data of a message.
    pub async fn read(&self, accepted: &Accepted) -> Result<Reader<D::File>, ReadError> {
        let (sequence, lies, in_own_file) = {
            let books = self.0.books.borrow();
            let place = books.places.get(&accepted.id).ok_or(ReadError::Gone)?;
            (place.sequence, place.lies, place.own_file.is_some())
        };
        if in_own_file {
            let path = self.0.directory.own_file(accepted.id);
            let file = self
                .0
                .disk
                .open(&path, Access::Read)
                .await
                .map_err(DiskError::of("open", &path))?;
            return Ok(Reader::new(
                path,
                file,
                None,
                0,
                accepted.data_octets,
                accepted.data_crc,
            ));
        }
        let books = self.0.books.borrow();
        let segment = books.segment(sequence).ok_or(ReadError::Gone)?;
        Ok(Reader::new(
            segment.path.clone(),
            segment.file.clone(),
            Some(Rc::clone(&segment.in_use)),
            lies.data_offset,
            lies.data_octets,
            lies.data_crc,
        ))
    }

    /// Messages that are not done.
    pub fn alive(&self) -> usize {
        self.0.books.borrow().places.len()
    }

    /// Segments that hold something, and segments that wait for their next use.
    pub fn segments(&self) -> (usize, usize) {
        let books = self.0.books.borrow();
        (books.segments.len(), books.free.len() + books.filling)
    }
}

async fn open_segment<D: Disk>(disk: &D, path: &Path) -> Result<D::File, DiskError> {
    disk.open(path, Access::ReadWrite)
        .await
        .map_err(DiskError::of("open", path))
}

/// Octets of the record that a message is done: a kind and an id.
const DONE_OCTETS: usize = 9;
