//! What a log knows: its segments, what is alive where, and what waits to be written.
//!
//! Nothing here waits or touches the disk: the writer and the housekeeper look here what is to be done, do it,
//! and enter what came of it.
//!
//! Invariants:
//! - Every place is in a segment of `segments`, which counts it in `alive` and `alive_octets`. A message has one.
//! - `segments` ascend by sequence. Only the last takes batches, and only while `newest` is [`Newest::Open`].
//! - `urgent` is the number of pending things that are not notes; `noted` is set while there are notes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use tokio::time::Instant;

use crate::spool::batch::{Allowance, Lies, Note, NoteKind, Pending};
use crate::spool::entry;
use crate::spool::error::CommitError;
use crate::spool::queue_id::QueueId;
use crate::spool::segment::{Before, Header, State};

/// What the log knows. Never borrowed over a wait.
pub(super) struct Books<F> {
    /// In the order of their use; the last one is written to, if `newest` says so.
    pub(super) segments: VecDeque<Segment<F>>,
    pub(super) newest: Newest,
    pub(super) free: Vec<FreeSegment<F>>,
    /// How many more are free, and just being filled with zeros.
    pub(super) filling: usize,
    pub(super) places: HashMap<QueueId, Place>,
    /// Messages whose `done` is not durable yet: they are not moved any more.
    pub(super) finishing: HashSet<QueueId>,
    pub(super) pending: VecDeque<Pending>,
    /// How many of the pending do not wait for company: all but notes.
    pub(super) urgent: usize,
    /// When the oldest note came; while some are pending, that or earlier.
    pub(super) noted: Option<Instant>,
    /// The last failure, and until when nothing is tried again. Stays until a message is written.
    pub(super) refusing: Option<(Instant, CommitError)>,
    /// Files of large messages whose batch failed, and their octets. Their entries may be on the disk all the
    /// same until the next batch is written, whose segment says where that batch began; a recovery before then
    /// has to find the files as well.
    pub(super) withdrawn: Vec<(QueueId, u64)>,
    pub(super) sequence_next: u64,
    pub(super) file_next: u64,
    /// The oldest segment could not be marked free: when that is tried again.
    pub(super) free_again: Option<Instant>,
    /// The oldest segment could not be emptied: when that is tried again.
    pub(super) compact_again: Option<Instant>,
    /// Filling one failed since the newest segment was opened: not tried again until the next is.
    pub(super) filling_failed: bool,
    pub(super) closing: Closing,
}

impl<F> Books<F> {
    pub(super) fn note(&mut self, note: Note) {
        self.noted.get_or_insert_with(Instant::now);
        self.pending.push_back(Pending::Note(note));
    }

    pub(super) fn wants(&self) -> Wants {
        let message = |pending: &Pending| match pending {
            Pending::Message(message) => message.allowance == Allowance::OfMessages,
            Pending::Note(_) | Pending::Move(_) | Pending::Mark(_) => false,
        };
        if self.pending.iter().any(message) {
            Wants::Message
        } else if self.pending.iter().all(is_attempt) {
            Wants::Attempts
        } else {
            Wants::Notes
        }
    }

    /// Whether the newest segment takes another batch.
    pub(super) fn takes_more(&self) -> bool {
        // One that was not filled is left early for one that was, if another is behind that.
        let better = self.free.len() > 1 && self.free.iter().any(|free| free.filled == Filled::Yes);
        let newest = self.segments.back();
        self.newest == Newest::Open
            && newest.is_some_and(|newest| newest.filled == Filled::Yes || !better)
    }

    /// Tells those who wait for what came before, if nothing else is pending.
    pub(super) fn tell_marks_alone(&mut self) -> bool {
        let is_mark = |pending: &Pending| matches!(pending, Pending::Mark(_));
        if !self.pending.iter().all(is_mark) {
            return false;
        }
        for pending in std::mem::take(&mut self.pending) {
            if let Pending::Mark(mark) = pending {
                let _ = mark.send(());
            }
        }
        self.count_pending();
        true
    }

    /// Whether messages may be moved: not to a disk that has just failed, but out of a spool that is full.
    fn lets_move(&self) -> bool {
        match &self.refusing {
            None | Some((_, CommitError::Full)) => true,
            Some((until, _)) => *until <= Instant::now(),
        }
    }

    /// Whether no segment is free: what could be written to is kept for what makes room.
    pub(super) fn is_cramped(&self) -> bool {
        self.free.len() + self.filling == 0
    }

    /// Forgets the notes of attempts. Each message's progress stays in its place, and goes along in a move.
    pub(super) fn drop_attempts(&mut self) {
        self.pending.retain(|pending| !is_attempt(pending));
        self.count_pending();
    }

    /// Counts anew what is pending, when something was taken out of it.
    pub(super) fn count_pending(&mut self) {
        let is_note = |pending: &&Pending| matches!(pending, Pending::Note(_));
        let notes = self.pending.iter().filter(is_note).count();
        self.urgent = self.pending.len() - notes;
        self.noted = (notes > 0).then(|| self.noted.unwrap_or_else(Instant::now));
    }

    /// Has the next batch go to a free segment, if there is one.
    pub(super) fn open_next(&mut self) {
        // One that was filled is best; of several, the one that was freed last has most of its pages in memory.
        let filled = |free: &FreeSegment<F>| free.filled == Filled::Yes;
        let index = self.free.iter().rposition(filled);
        let free = match index {
            Some(index) => Some(self.free.swap_remove(index)),
            None => self.free.pop(),
        };
        let Some(free) = free else {
            return;
        };
        let before = self.segments.back().map(|segment| Before {
            sequence: segment.sequence,
            end: segment.end,
        });
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.segments.push_back(Segment {
            path: free.path,
            file: free.file,
            file_octets: free.octets,
            sequence,
            nonce: fresh_nonce(),
            end: 0,
            batches: 0,
            messages: Vec::new(),
            alive: 0,
            alive_octets: 0,
            filled: free.filled,
            before,
            in_use: Rc::default(),
        });
        self.filling_failed = false;
        self.newest = Newest::Open;
    }

    pub(super) fn segment(&self, sequence: u64) -> Option<&Segment<F>> {
        let index = self
            .segments
            .binary_search_by_key(&sequence, |s| s.sequence);
        index.ok().and_then(|index| self.segments.get(index))
    }

    pub(super) fn segment_mut(&mut self, sequence: u64) -> Option<&mut Segment<F>> {
        let index = self
            .segments
            .binary_search_by_key(&sequence, |s| s.sequence);
        index.ok().and_then(|index| self.segments.get_mut(index))
    }

    /// A message is alive in the newest segment.
    pub(super) fn add(
        &mut self,
        id: QueueId,
        lies: Lies,
        own_file: Option<u64>,
        progress: Option<Box<[u8]>>,
    ) {
        let Some(newest) = self.segments.back_mut() else {
            return;
        };
        let place = Place {
            sequence: newest.sequence,
            lies,
            own_file,
            progress,
        };
        newest.messages.push(id);
        newest.alive += 1;
        newest.alive_octets += place.octets();
        let before = self.places.insert(id, place);
        assert!(before.is_none(), "{id} is in the log twice");
    }

    /// A message is not alive any more where it was.
    pub(super) fn remove(&mut self, id: QueueId) -> Option<Place> {
        let place = self.places.remove(&id)?;
        if let Some(segment) = self.segment_mut(place.sequence) {
            segment.alive -= 1;
            segment.alive_octets -= place.octets();
        }
        Some(place)
    }

    pub(super) fn is_to_fill(&self) -> bool {
        let filled = self.free.iter().any(|free| free.filled == Filled::Yes);
        let due = self
            .segments
            .back()
            .is_some_and(|newest| match newest.filled {
                // The first after a start: as soon as there is mail, for it makes each 250 come sooner.
                Filled::No => newest.end > 0,
                Filled::Yes => newest.end > newest.file_octets / FILL_AT_PART,
            });
        due && self.filling == 0 && !filled && !self.free.is_empty() && !self.filling_failed
    }

    /// Whether the oldest segment is kept alive by so little that moving that is cheaper than waiting.
    pub(super) fn is_to_compact(&self) -> bool {
        if self.segments.len() < COMPACT_SEGMENTS_MIN || self.closing != Closing::No {
            return false;
        }
        let Some(oldest) = self.segments.front() else {
            return false;
        };
        // What was left empty at the end of a segment is as lost as what is done.
        let used: u64 = self
            .segments
            .iter()
            .map(|segment| segment.file_octets)
            .sum();
        let alive: u64 = self
            .segments
            .iter()
            .map(|segment| segment.alive_octets)
            .sum();
        self.compact_again
            .is_none_or(|again| again <= Instant::now())
            && self.lets_move()
            && oldest.alive > 0
            && alive < used / COMPACT_ALIVE_PART
    }
}

pub(super) struct Segment<F> {
    pub(super) path: PathBuf,
    pub(super) file: F,
    pub(super) file_octets: u64,
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    /// Where the next batch goes, or where the segment ended. 0: not even the header is written.
    pub(super) end: u64,
    pub(super) batches: u32,
    /// Messages that were put here, done or not.
    pub(super) messages: Vec<QueueId>,
    /// How many of them are alive here, neither done nor moved.
    pub(super) alive: usize,
    /// Octets that moving them would write.
    pub(super) alive_octets: u64,
    pub(super) filled: Filled,
    /// The end of the segment before, which its header tells.
    pub(super) before: Option<Before>,
    /// Held by those who read here too: as long as they do, the segment is not freed.
    pub(super) in_use: Rc<()>,
}

impl<F> Segment<F> {
    pub(super) fn header(&self, state: State) -> Header {
        Header {
            state,
            sequence: self.sequence,
            nonce: self.nonce,
            before: self.before,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.alive == 0 && Rc::strong_count(&self.in_use) == 1
    }

    /// A segment that was written nearly to its end has hardly a block that was not.
    pub(super) fn filled_by_use(&self) -> Filled {
        if self.end > self.file_octets - self.file_octets / FILL_AT_PART {
            Filled::Yes
        } else {
            self.filled
        }
    }
}

pub(super) struct FreeSegment<F> {
    pub(super) path: PathBuf,
    pub(super) file: F,
    pub(super) octets: u64,
    pub(super) filled: Filled,
}

/// Whether all blocks of a file were written once. A sync over such blocks is twice as fast: the file system has
/// nothing of its own to change, as it has when reserved blocks are written for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Yes,
    No,
}

/// Where a message lies that is not done.
#[derive(Clone, Debug)]
pub(in crate::spool) struct Place {
    pub(in crate::spool) sequence: u64,
    pub(in crate::spool) lies: Lies,
    /// Octets of its own file, if it has one.
    pub(in crate::spool) own_file: Option<u64>,
    /// The last record of progress.
    pub(in crate::spool) progress: Option<Box<[u8]>>,
}

impl Place {
    /// Octets that a move would write.
    pub(in crate::spool) fn octets(&self) -> u64 {
        let progress = self.progress.as_deref();
        self.lies.octets + progress.map_or(0, |record| entry::octets(record.len(), 0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newest {
    /// The last segment takes another batch.
    Open,
    /// The next batch goes to another segment.
    ClosedOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// What is pending is written.
    Asked,
    /// That failed.
    GaveUp,
    /// Nothing is written any more.
    Closed,
}

/// What waits for a batch, and with it what may be taken for it: a segment has to be made for a batch when none is
/// free. What is least able to wait decides for all that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// A message, whatever else. Within the bound on disk space, and one segment stays free behind it.
    Message,
    /// No message, but what makes room (notes that messages are done, moves) or may not be lost (progress). It
    /// takes the last free segment. If there is none, one is made above the bound: a start closes the newest
    /// segment off, so that there may be nothing else to write to, and unless messages can be noted as done
    /// nothing is ever freed.
    Notes,
    /// Notes of attempts, and nothing else. Bounded like a message, and forgotten where a message is refused: a
    /// crash leads to another attempt, no more.
    Attempts,
}

fn is_attempt(pending: &Pending) -> bool {
    matches!(pending, Pending::Note(note) if note.kind == NoteKind::Attempt)
}

/// The number that ties entries to their segment: no peer guesses it, and none comes twice, but for one chance in
/// 2^64.
pub(super) fn fresh_nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Keys from the operating system's randomness, other ones for each state.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(0);
    hasher.finish()
}

/// A spare segment is filled once one part in so many of the newest is written: early, for the other parts are the
/// time there is to do it. A segment counts as filled by its use if no more than such a part was left.
const FILL_AT_PART: u64 = 8;

/// With fewer segments nothing is moved: there is little to win.
const COMPACT_SEGMENTS_MIN: usize = 4;

/// The oldest segment is emptied when less than one octet in so many is alive: for each octet moved two are won. With
/// 2 it might never come to an end: messages of a little more than half a segment leave the other half empty wherever
/// they go.
const COMPACT_ALIVE_PART: u64 = 3;
