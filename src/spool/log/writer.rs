//! Writes a log's batches: one write and one sync for everything that waited.
//!
//! One task, so one batch is under way at a time, and the next is what came meanwhile.
//!
//! Invariants:
//! - Whoever waits for a message hears of success behind the write, and behind a look whether the file still has
//!   a name.
//! - The books learn of a batch when it is written. Of one that failed nothing counts, and its notes go with the
//!   next. Its segment takes no other batch, unless the batch was its first: then it starts anew.

use std::time::Duration;

use tokio::time::Instant;

use super::books::{Closing, Filled, FreeSegment, Newest, Segment, Wants, fresh_nonce};
use super::housekeeper::COMPACT_AGAIN;
use super::{Inner, Log, LogSettings};
use crate::spool::batch::{Allowance, Batch, Item, NoRoom, NoteKind, Pending, PendingMessage};
use crate::spool::disk::{Disk, DiskFile, WriteSync, write_all};
use crate::spool::error::{CommitError, DiskError};
use crate::spool::record::Data;
use crate::spool::recovery::make_directories;
use crate::spool::segment::State;

impl<D: Disk> Log<D> {
    pub(super) async fn write(&self) {
        while self.work_comes().await {
            self.write_batch().await;
            self.free_oldest().await;
            if self.0.house_needs_keeping() {
                self.0.housekeeper.notify_one();
            }
        }
        let mut books = self.0.books.borrow_mut();
        books.closing = Closing::Closed;
        // Whoever waits hears that the log is closed.
        books.pending.clear();
        drop(books);
        self.0.housekeeper.notify_one();
    }

    /// Waits until there is something to write. False: the log is closed.
    async fn work_comes(&self) -> bool {
        loop {
            let wait = {
                let books = self.0.books.borrow();
                match books.closing {
                    Closing::No => {}
                    Closing::Asked if !books.pending.is_empty() => return true,
                    Closing::Asked | Closing::GaveUp | Closing::Closed => return false,
                }
                let refusing = books.refusing.as_ref().map(|(until, _)| *until);
                let due = match (books.pending.is_empty(), books.urgent) {
                    (true, _) => None,
                    (false, 0) => books.noted.map(|noted| noted + NOTES_WAIT).max(refusing),
                    (false, _) => refusing.or(Some(Instant::now())),
                };
                match due {
                    Some(due) if due <= Instant::now() => return true,
                    other => other,
                }
            };
            match wait {
                None => self.0.writer.notified().await,
                // Both outcomes lead to another look.
                Some(due) => _ = tokio::time::timeout_at(due, self.0.writer.notified()).await,
            }
        }
    }

    /// Writes what is pending, as much as goes into one batch.
    async fn write_batch(&self) {
        if self.0.books.borrow_mut().tell_marks_alone() {
            return;
        }
        let mut wants = self.0.books.borrow().wants();
        while let Err(error) = self.make_room(wants).await {
            // What there is no room for goes, and what makes room is tried without it.
            match wants {
                Wants::Message => {
                    self.refuse(&error, |allowance| allowance == Allowance::OfMessages)
                }
                Wants::Attempts => self.0.books.borrow_mut().drop_attempts(),
                Wants::Notes => {
                    self.refuse(&error, |_any| true);
                    self.give_up(&error);
                    return;
                }
            }
            let books = self.0.books.borrow();
            if books.pending.is_empty() {
                return;
            }
            wants = books.wants();
        }
        let Some(batch) = self.assemble() else {
            return;
        };
        let (file, sync) = {
            let books = self.0.books.borrow();
            let Some(newest) = books.segments.back() else {
                return;
            };
            (newest.file.clone(), self.0.settings.sync)
        };
        let (begin, octets) = (batch.begin(), batch.octets());
        let (outcome, batch) = write_all(&file, batch, begin, sync).await;
        // After the write, so that nothing gets a 250 whose file had lost its name by then.
        let outcome = outcome.and_then(|()| match file.is_removed()? {
            true => Err(removed()),
            false => Ok(()),
        });
        let meters = &self.0.settings.meters;
        match outcome {
            Ok(()) => {
                meters.batches.add(1);
                meters.octets.add(octets);
                if sync == WriteSync::Yes {
                    meters.syncs.add(1);
                }
                self.written(batch);
            }
            Err(source) => {
                meters.failures.add(1);
                self.not_written(batch, source).await;
            }
        }
    }

    /// Sees to it that the newest segment takes another batch.
    async fn make_room(&self, wants: Wants) -> Result<(), CommitError> {
        let is_open = self.0.books.borrow().takes_more();
        // A message is written only if a segment is free behind it, so that what makes room always has a place to
        // go to.
        let behind = match wants {
            Wants::Message | Wants::Attempts => 1,
            Wants::Notes => 0,
        };
        loop {
            let (free, filling) = {
                let books = self.0.books.borrow();
                (books.free.len(), books.filling)
            };
            let there = if is_open || free > 0 {
                free + filling
            } else {
                // One that is being filled cannot be opened.
                0
            };
            if there >= behind + usize::from(!is_open) {
                break;
            }
            let made = self.make_segment(wants).await?;
            self.0.books.borrow_mut().free.push(made);
        }
        let mut books = self.0.books.borrow_mut();
        if !is_open {
            books.open_next();
        }
        if books.is_cramped() {
            books.drop_attempts();
        }
        Ok(())
    }

    pub(super) async fn make_segment(
        &self,
        wants: Wants,
    ) -> Result<FreeSegment<D::File>, CommitError> {
        let LogSettings {
            segment_octets,
            space,
            meters,
            ..
        } = &self.0.settings;
        match wants {
            Wants::Message | Wants::Attempts => {
                space.take(*segment_octets).map_err(|_| CommitError::Full)?;
            }
            // Whatever the bound: without notes of what is done nothing would ever be freed.
            Wants::Notes => space.take_anyway(*segment_octets),
        }
        let path = {
            let mut books = self.0.books.borrow_mut();
            let number = books.file_next;
            books.file_next += 1;
            self.0.directory.segment(number)
        };
        let made = async {
            let file = match self.0.disk.create(&path).await {
                // Somebody removed the directory.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    make_directories(&self.0.disk, &self.0.directory).await?;
                    self.0.disk.create(&path).await
                }
                other => other,
            };
            let file = file.map_err(DiskError::of("create", &path))?;
            let reserved = file.reserve(*segment_octets).await;
            reserved.map_err(DiskError::of("reserve", &path))?;
            let synced = file.sync().await;
            synced.map_err(DiskError::of("sync", &path))?;
            let directory = self.0.directory.path();
            let synced = self.0.disk.sync_directory(directory).await;
            synced.map_err(DiskError::of("sync", directory))?;
            meters.syncs.add(2);
            Ok::<_, DiskError>(file)
        };
        match made.await {
            Ok(file) => Ok(FreeSegment {
                path,
                file,
                octets: *segment_octets,
                filled: Filled::No,
            }),
            Err(error) => {
                let _ = self.0.disk.remove(&path).await;
                space.give_back(*segment_octets);
                Err(error.into())
            }
        }
    }

    /// Puts a batch together for the newest segment.
    fn assemble(&self) -> Option<Batch> {
        let mut books = self.0.books.borrow_mut();
        let books = &mut *books;
        let newest = books.segments.back()?;
        let begin = if newest.end == 0 {
            newest.header(State::Used).encode()
        } else {
            Vec::new()
        };
        let left = newest.file_octets.saturating_sub(newest.end);
        let mut batch = Batch::new(newest.nonce, newest.batches, newest.end, left, begin);
        let (mut marks, mut too_large) = (Vec::new(), Vec::new());
        while !batch.is_full()
            && let Some(pending) = books.pending.pop_front()
        {
            let pushed = match pending {
                Pending::Message(message) => batch.push_message(message),
                Pending::Note(note) => batch.push_note(note),
                Pending::Move(moved) => match books.places.get(&moved.id) {
                    // Done meanwhile, or about to be.
                    Some(place)
                        if place.sequence == moved.from && !books.finishing.contains(&moved.id) =>
                    {
                        batch.push_move(moved, place.progress.as_deref())
                    }
                    Some(_) | None => Ok(()),
                },
                Pending::Mark(done) => {
                    marks.push(done);
                    Ok(())
                }
            };
            match pushed {
                Ok(()) => {}
                Err(NoRoom::Yet(pending)) => {
                    books.pending.push_front(*pending);
                    books.newest = Newest::ClosedOff;
                    break;
                }
                Err(NoRoom::Ever(pending)) => too_large.push(*pending),
            }
        }
        books.count_pending();
        for pending in too_large {
            match pending {
                Pending::Message(message) => {
                    self.0.fail(message, &CommitError::EnvelopeTooLarge);
                }
                // It was accepted when segments were larger, and stays where it is.
                Pending::Move(moved) => {
                    tracing::warn!(id = %moved.id, "message has no room in a segment, not moved");
                    books.compact_again = Some(Instant::now() + COMPACT_AGAIN);
                }
                // Many recipients, with much said about each.
                Pending::Note(note) => {
                    tracing::error!(id = %note.id, "progress has no room in a segment, not noted");
                }
                Pending::Mark(_) => {}
            }
        }
        if batch.is_empty() {
            // Nothing before the marks is left to write.
            for mark in marks {
                let _ = mark.send(());
            }
            return None;
        }
        batch.seal(marks);
        Some(batch)
    }

    /// A batch is on stable storage, if this log syncs: enters it in the books, and tells whoever waits.
    fn written(&self, batch: Batch) {
        let mut books = self.0.books.borrow_mut();
        let (end, marks, items) = batch.take_apart();
        if items.iter().any(|item| matches!(item, Item::Message(..))) {
            books.refusing = None;
        }
        let Some(newest) = books.segments.back_mut() else {
            return;
        };
        newest.end = end;
        newest.batches += 1;
        for (id, octets) in books.withdrawn.drain(..) {
            self.0.own_files.remove(id, octets);
        }
        for item in items {
            match item {
                Item::Message(message, lies) => {
                    let own_file = match message.lies {
                        Data::Inline => None,
                        Data::OwnFile => Some(message.accepted.data_octets),
                    };
                    books.add(message.accepted.id, lies, own_file, None);
                    self.0.settings.meters.messages.add(1);
                    message.tell(Ok(()));
                }
                Item::Move(moved, lies) => {
                    if let Some(place) = books.remove(moved.id) {
                        books.add(moved.id, lies, place.own_file, place.progress);
                        self.0.settings.meters.compacted.add(1);
                    }
                }
                Item::Note(note) => match note.kind {
                    NoteKind::Attempt | NoteKind::Progress => {}
                    NoteKind::Done => {
                        books.finishing.remove(&note.id);
                        if let Some(octets) = books.remove(note.id).and_then(|p| p.own_file) {
                            self.0.own_files.remove(note.id, octets);
                        }
                    }
                },
            }
        }
        for mark in marks {
            let _ = mark.send(());
        }
    }

    /// A batch may not be on stable storage: nothing of it counts.
    async fn not_written(&self, batch: Batch, source: std::io::Error) {
        let (_end, marks, items) = batch.take_apart();
        let (path, fresh) = {
            let mut books = self.0.books.borrow_mut();
            books.newest = Newest::ClosedOff;
            let path = books.segments.back().map(|newest| newest.path.clone());
            let is_fresh = books.segments.back().is_some_and(|newest| newest.end == 0);
            let fresh = is_fresh.then(|| books.segments.pop_back()).flatten();
            (path.unwrap_or_default(), fresh)
        };
        let error = CommitError::from(DiskError::of("write", &path)(source));
        let mut messages = Vec::new();
        {
            let mut books = self.0.books.borrow_mut();
            for mark in marks.into_iter().rev() {
                books.pending.push_front(Pending::Mark(mark));
            }
            for item in items.into_iter().rev() {
                match item {
                    Item::Message(message, _) => {
                        if message.lies == Data::OwnFile {
                            let octets = message.accepted.data_octets;
                            books.withdrawn.push((message.accepted.id, octets));
                        }
                        messages.push(message);
                    }
                    Item::Note(note) => books.pending.push_front(Pending::Note(note)),
                    // The housekeeper comes again.
                    Item::Move(..) => {}
                }
            }
        }
        for message in messages {
            message.tell(Err(error.clone()));
        }
        self.refuse(&error, |_any| true);
        self.give_up(&error);
        if let Some(segment) = fresh {
            self.withdraw(segment).await;
        }
    }

    /// Frees a segment whose first batch failed. Its header may be on the disk or not: until it is known to say
    /// that the segment is free, no other segment may be opened behind it. So if that fails too, the next batch
    /// goes here again, from the start.
    async fn withdraw(&self, segment: Segment<D::File>) {
        if let Some(segment) = self.recycle(segment).await {
            let mut books = self.0.books.borrow_mut();
            // What the disk has of the failed batch must not be taken for a part of the next.
            let nonce = fresh_nonce();
            books.segments.push_back(Segment { nonce, ..segment });
            books.newest = Newest::Open;
        }
    }

    /// Refuses the messages that are pending, and those that come until [`REFUSAL`] is over. Moves are dropped: the
    /// housekeeper comes again.
    fn refuse(&self, error: &CommitError, is_refused: impl Fn(Allowance) -> bool) {
        let mut refused = Vec::new();
        {
            let mut books = self.0.books.borrow_mut();
            let pending = std::mem::take(&mut books.pending);
            for pending in pending {
                match pending {
                    Pending::Message(message) if is_refused(message.allowance) => {
                        refused.push(message)
                    }
                    other @ (Pending::Message(_) | Pending::Note(_) | Pending::Mark(_)) => {
                        books.pending.push_back(other);
                    }
                    Pending::Move(_) => {}
                }
            }
            books.count_pending();
            books.refusing = Some((Instant::now() + REFUSAL, error.clone()));
        }
        tracing::error!(%error, refused = refused.len(), "messages not committed");
        for message in refused {
            self.0.fail(message, error);
        }
    }

    /// Nothing can be written at the moment: if the log is being closed, that does not wait for better times.
    fn give_up(&self, error: &CommitError) {
        let mut books = self.0.books.borrow_mut();
        if books.closing == Closing::Asked {
            books.closing = Closing::GaveUp;
            let notes = books.pending.len();
            tracing::error!(%error, notes, "closed without what was noted last");
        }
    }

    /// Frees segments from the oldest on, as long as nothing in them is alive and nobody reads there.
    async fn free_oldest(&self) {
        loop {
            let segment = {
                let mut books = self.0.books.borrow_mut();
                if books.free_again.is_some_and(|again| again > Instant::now()) {
                    return;
                }
                let in_use = books.newest == Newest::Open && books.segments.len() == 1;
                match books.segments.front() {
                    Some(oldest) if !in_use && oldest.is_over() => books.segments.pop_front(),
                    Some(_) | None => return,
                }
            };
            let Some(segment) = segment else { return };
            if let Some(segment) = self.recycle(segment).await {
                // After a crash its entries would count again, without the notes in a younger segment that say
                // they are done, had that been freed first.
                let mut books = self.0.books.borrow_mut();
                books.segments.push_front(segment);
                books.free_again = Some(Instant::now() + FREE_AGAIN);
                return;
            }
        }
    }

    /// Marks a segment free on the disk, and keeps it for another use or removes it. Gives it back if it could not
    /// be marked.
    async fn recycle(&self, segment: Segment<D::File>) -> Option<Segment<D::File>> {
        let header = segment.header(State::Free).encode();
        let (outcome, _) = write_all(&segment.file, header, 0, WriteSync::Yes).await;
        self.0.settings.meters.syncs.add(1);
        if let Err(source) = outcome {
            let error = DiskError::of("mark free", &segment.path)(source);
            tracing::error!(%error, "segment not freed");
            return Some(segment);
        }
        // A file that somebody removed is of no use to the next process.
        let is_removed = segment.file.is_removed().unwrap_or(false);
        let keep = !is_removed && {
            let mut books = self.0.books.borrow_mut();
            let free_max = match self.0.settings.space.is_tight() {
                true => FREE_MAX_WHEN_TIGHT,
                false => FREE_MAX,
            };
            let keep = books.free.len() + books.filling < free_max
                && segment.file_octets == self.0.settings.segment_octets;
            if keep {
                // One whose first batch failed is used last: something may be wrong with its place on the disk.
                let at = if segment.end == 0 {
                    0
                } else {
                    books.free.len()
                };
                books.free.insert(
                    at,
                    FreeSegment {
                        path: segment.path.clone(),
                        file: segment.file.clone(),
                        octets: segment.file_octets,
                        filled: segment.filled_by_use(),
                    },
                );
            }
            keep
        };
        if !keep {
            // Should the removal not outlast a crash, the header says that the segment is free.
            match self.0.disk.remove(&segment.path).await {
                Ok(()) => self.0.settings.space.give_back(segment.file_octets),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.0.settings.space.give_back(segment.file_octets);
                }
                Err(source) => {
                    let error = DiskError::of("remove", &segment.path)(source);
                    tracing::error!(%error, "free segment not removed");
                }
            }
        }
        None
    }
}

impl<D: Disk> Inner<D> {
    /// Refuses a message that never went to the disk.
    fn fail(&self, message: PendingMessage, error: &CommitError) {
        if message.lies == Data::OwnFile {
            let accepted = &message.accepted;
            self.own_files.remove(accepted.id, accepted.data_octets);
        }
        message.tell(Err(error.clone()));
    }
}

/// Why a batch failed though the write did not: a file without a name takes writes like any other, and is gone with
/// the process.
fn removed() -> std::io::Error {
    let what = "somebody removed it; what it holds is lost with this process";
    std::io::Error::new(std::io::ErrorKind::NotFound, what)
}

/// How long a note waits for company before it gets a batch of its own.
///
/// What a crash finds waiting is delivered once more; ten syncs a second, where nothing else is written, cost nothing
/// beside that.
const NOTES_WAIT: Duration = Duration::from_millis(100);

/// How long messages are refused after a write failed, before the disk is asked again.
const REFUSAL: Duration = Duration::from_secs(1);

/// When a segment that could not be marked free is tried again.
const FREE_AGAIN: Duration = Duration::from_secs(5);

/// Free segments that are kept; more are removed.
const FREE_MAX: usize = 4;

/// The same when space is short: the one that notes can always go to. Any more would keep large messages out of a
/// spool that is full, and of one that was.
const FREE_MAX_WHEN_TIGHT: usize = 1;
