//! One write: everything that waited while the last one was under way.
//!
//! ```text
//! heads: [header?][head a][zeros, head b][zeros, note, note][head c] …      one vector
//! parts:      heads ──────▶ data a ─▶ heads ─▶ data b ─▶ heads ─▶ data c    what the disk is given
//! ```
//!
//! The data of messages stay in the blocks that they came into.

use std::ops::Range;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::disk::Slices;
use super::entry::{self, InBatch};
use super::error::CommitError;
use super::queue_id::QueueId;
use super::record::{self, Accepted, Data};
use crate::smtp::data::MailData;

/// What waits for a batch.
pub(super) enum Pending {
    /// A message; somebody waits for it.
    Message(PendingMessage),
    /// A record about a message; nobody waits.
    Note(Note),
    /// A message that moves from an old segment to the newest.
    Move(Moved),
    /// Nothing to write: somebody wants to know when what came before is durable.
    Mark(oneshot::Sender<()>),
}

/// Which room a message may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// What is left of it for messages.
    OfMessages,
    /// Also what is kept for notes: it makes room itself, since another message is done with it.
    OfNotes,
}

pub(super) struct PendingMessage {
    pub(super) allowance: Allowance,
    pub(super) accepted: Accepted,
    pub(super) data: Rc<MailData>,
    pub(super) lies: Data,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
}

impl PendingMessage {
    /// Whoever waited may be gone; what came of the message is the same.
    pub(super) fn tell(self, outcome: Result<(), CommitError>) {
        let _ = self.done.send(outcome);
    }
}

#[derive(Debug)]
pub(super) struct Note {
    pub(super) id: QueueId,
    pub(super) record: Vec<u8>,
    pub(super) kind: NoteKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoteKind {
    /// Progress that a crash would forget at the price of another attempt: written if there is room.
    Attempt,
    Progress,
    Done,
}

#[derive(Debug)]
pub(super) struct Moved {
    pub(super) id: QueueId,
    /// The segment that it leaves.
    pub(super) from: u64,
    pub(super) record: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) data_crc: u32,
}

/// What a batch holds of one pending thing, and where that goes.
pub(super) enum Item {
    Message(PendingMessage, Lies),
    Note(Note),
    Move(Moved, Lies),
}

/// Where an entry goes, in octets of the segment's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lies {
    pub(super) offset: u64,
    pub(super) octets: u64,
    pub(super) data_offset: u64,
    pub(super) data_octets: u64,
    pub(super) data_crc: u32,
}

/// A batch that is put together, written, and taken apart.
pub(super) struct Batch {
    nonce: u64,
    number: u32,
    /// Of the first octet, in the segment's file.
    offset: u64,
    octets_max: u64,
    octets: u64,
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// Of `heads`, what is in no part yet.
    heads_begin: usize,
    last_head: Option<Range<usize>>,
    items: Vec<Item>,
    /// Who wants to know when all this is written.
    marks: Vec<oneshot::Sender<()>>,
}

enum Part {
    Heads(Range<usize>),
    /// The data of the item with this index.
    Data(usize),
}

/// What has no room in a batch.
pub(super) enum NoRoom {
    /// Not in this one.
    Yet(Box<Pending>),
    /// In none: it is larger than a segment.
    Ever(Box<Pending>),
}

impl Batch {
    /// An empty batch that goes to `offset`, behind `before` if that is not empty, and takes at most
    /// `octets_max`.
    pub(super) fn new(
        nonce: u64,
        number: u32,
        offset: u64,
        octets_max: u64,
        before: Vec<u8>,
    ) -> Batch {
        Batch {
            nonce,
            number,
            offset,
            octets_max,
            octets: before.len() as u64,
            heads: before,
            parts: Vec::new(),
            heads_begin: 0,
            last_head: None,
            items: Vec::new(),
            marks: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether another entry would have no number, or the batch is as large as is good for the rest.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= ENTRIES_MAX || self.octets >= BATCH_OCTETS
    }

    /// Where it goes, in the segment's file.
    pub(super) fn begin(&self) -> u64 {
        self.offset
    }

    /// Behind its last octet, in the segment's file.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.octets)
    }

    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes a message in.
    pub(super) fn push_message(&mut self, message: PendingMessage) -> Result<(), NoRoom> {
        let (data_octets, data_crc) = match message.lies {
            Data::Inline => (message.accepted.data_octets, message.accepted.data_crc),
            Data::OwnFile => (0, 0),
        };
        let has_data = data_octets > 0;
        match self.push(data_octets, data_crc, |octets| {
            record::push_message(octets, &message.accepted, message.lies);
        }) {
            Ok(lies) => {
                self.items.push(Item::Message(message, lies));
                self.close_entry(has_data, lies);
                Ok(())
            }
            Err(room) => Err(room.of(Pending::Message(message))),
        }
    }

    /// Takes a note in.
    pub(super) fn push_note(&mut self, note: Note) -> Result<(), NoRoom> {
        match self.push(0, 0, |octets| octets.extend_from_slice(&note.record)) {
            Ok(lies) => {
                self.items.push(Item::Note(note));
                self.close_entry(false, lies);
                Ok(())
            }
            Err(room) => Err(room.of(Pending::Note(note))),
        }
    }

    /// Takes a message in that moves, and the last note about it.
    pub(super) fn push_move(
        &mut self,
        moved: Moved,
        progress: Option<&[u8]>,
    ) -> Result<(), NoRoom> {
        let whole = entry::octets(moved.record.len(), moved.data.len() as u64)
            + progress.map_or(0, |record| entry::octets(record.len(), 0));
        if whole > self.octets_max.saturating_sub(self.octets) {
            return Err(self.no_room().of(Pending::Move(moved)));
        }
        let has_data = !moved.data.is_empty();
        let (data_octets, data_crc) = (moved.data.len() as u64, moved.data_crc);
        match self.push(data_octets, data_crc, |octets| {
            octets.extend_from_slice(&moved.record);
        }) {
            Ok(lies) => {
                let id = moved.id;
                self.items.push(Item::Move(moved, lies));
                self.close_entry(has_data, lies);
                match progress {
                    None => Ok(()),
                    Some(record) => self.push_note(Note {
                        id,
                        record: record.to_vec(),
                        kind: NoteKind::Progress,
                    }),
                }
            }
            Err(room) => Err(room.of(Pending::Move(moved))),
        }
    }

    /// Marks the end; nothing is taken in behind it. `marks` hear when it is written.
    pub(super) fn seal(&mut self, marks: Vec<oneshot::Sender<()>>) {
        self.marks = marks;
        if let Some(head) = self.last_head.clone() {
            entry::mark_last(&mut self.heads, head);
        }
        self.close_heads();
    }

    /// Its end, who waits for it, and what was in it.
    pub(super) fn take_apart(self) -> (u64, Vec<oneshot::Sender<()>>, Vec<Item>) {
        (self.end(), self.marks, self.items)
    }

    fn push(
        &mut self,
        data_octets: u64,
        data_crc: u32,
        record: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Lies, Room> {
        let begin = self.heads.len();
        let stands = InBatch {
            batch: self.number,
            index: u16::try_from(self.items.len()).unwrap_or(u16::MAX),
            last: false,
        };
        entry::push_head(
            &mut self.heads,
            self.nonce,
            stands,
            data_octets,
            data_crc,
            record,
        );
        let head_octets = self.heads.len() - begin;
        let octets = entry::octets(head_octets - entry::HEAD_OCTETS, data_octets);
        if octets > self.octets_max.saturating_sub(self.octets) {
            self.heads.truncate(begin);
            return Err(self.no_room());
        }
        self.last_head = Some(begin..self.heads.len());
        let offset = self.end();
        self.octets += octets;
        Ok(Lies {
            offset,
            octets,
            data_offset: offset + head_octets as u64,
            data_octets,
            data_crc,
        })
    }

    fn no_room(&self) -> Room {
        if self.items.is_empty() {
            Room::Never(self.offset)
        } else {
            Room::NotYet
        }
    }

    /// Puts the data behind the head, and zeros behind that.
    fn close_entry(&mut self, has_data: bool, lies: Lies) {
        let head_and_data = (lies.data_offset - lies.offset).saturating_add(lies.data_octets);
        let zeros = usize::try_from(lies.octets - head_and_data).unwrap_or(0);
        if has_data {
            self.close_heads();
            self.parts
                .push(Part::Data(self.items.len().saturating_sub(1)));
        }
        self.heads.resize(self.heads.len() + zeros, 0);
    }

    fn close_heads(&mut self) {
        let heads = self.heads_begin..self.heads.len();
        self.heads_begin = heads.end;
        if !heads.is_empty() {
            self.parts.push(Part::Heads(heads));
        }
    }
}

/// Why an entry was not taken in.
enum Room {
    NotYet,
    /// It would have been the first, at this offset.
    Never(u64),
}

impl Room {
    fn of(self, pending: Pending) -> NoRoom {
        match self {
            Room::NotYet => NoRoom::Yet(Box::new(pending)),
            // A fresh segment may have the room that is left of this one no more.
            Room::Never(offset) if offset > 0 => NoRoom::Yet(Box::new(pending)),
            Room::Never(_) => NoRoom::Ever(Box::new(pending)),
        }
    }
}

impl Slices for Batch {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().flat_map(|part| {
            let (heads, mail, moved) = match part {
                Part::Heads(range) => (self.heads.get(range.clone()), None, None),
                Part::Data(index) => match self.items.get(*index) {
                    Some(Item::Message(message, _)) => (None, Some(message.data.slices()), None),
                    Some(Item::Move(moved, _)) => (None, None, Some(moved.data.as_slice())),
                    Some(Item::Note(_)) | None => (None, None, None),
                },
            };
            heads
                .into_iter()
                .chain(mail.into_iter().flatten())
                .chain(moved)
        })
    }
}

/// Entries have numbers of 16 bits; so many fill a batch long before.
const ENTRIES_MAX: usize = 4096;

/// A batch is closed when it has so many octets, so that its first message does not wait for ever more.
const BATCH_OCTETS: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::super::segment::{Extent, HEADER_OCTETS, Header, State, walk};
    use super::*;
    use crate::smtp::data::Budget;
    use crate::smtp::dsn::MailDsn;
    use crate::smtp::envelope::{Body, Envelope};
    use crate::spool::record::Record;

    fn message(number: u64, octets: usize) -> PendingMessage {
        let mut data = MailData::new(&Budget::new(u64::MAX), None);
        data.push(&vec![b'm'; octets]).unwrap();
        PendingMessage {
            allowance: Allowance::OfMessages,
            accepted: Accepted {
                id: QueueId::from_number(number),
                arrived_unix_ms: 0,
                envelope: Envelope {
                    reverse_path: None,
                    recipients: Vec::new(),
                    body: Body::SevenBit,
                    smtputf8: false,
                    declared_octets: None,
                    dsn: MailDsn::default(),
                }
                .into(),
                received: b"Received: x\r\n"[..].into(),
                data_octets: octets as u64,
                data_crc: crc32c::crc32c(&vec![b'm'; octets]),
            },
            data: Rc::new(data),
            lies: Data::Inline,
            done: oneshot::channel().0,
        }
    }

    fn note(number: u64) -> Note {
        let mut record = Vec::new();
        record::push_done(&mut record, QueueId::from_number(number));
        Note {
            id: QueueId::from_number(number),
            record,
            kind: NoteKind::Done,
        }
    }

    #[test]
    fn what_is_put_together_is_what_a_walk_finds() {
        let header = Header {
            state: State::Used,
            sequence: 1,
            nonce: 77,
            before: None,
        };
        let mut batch = Batch::new(header.nonce, 0, 0, 1 << 20, header.encode());
        let mut expected = Vec::new();
        for (number, octets) in [(1, 0), (2, 5), (3, 5000), (4, 300_000), (5, 8)] {
            batch
                .push_message(message(number, octets))
                .map_err(drop)
                .unwrap();
            batch.push_note(note(number + 100)).map_err(drop).unwrap();
            expected.extend([number, number + 100]);
        }
        batch.seal(Vec::new());
        let file: Vec<u8> = batch.slices().flatten().copied().collect();
        assert_eq!(file.len() as u64, batch.octets());
        let walk = walk(&file, &header, Extent::Open);
        assert_eq!(walk.damaged, Vec::<Range<usize>>::new());
        assert_eq!(walk.end, file.len());
        let found = walk.entries.iter().map(|entry| {
            let octets = entry.data.len() as u64;
            let record = Record::decode(entry.record, octets, entry.data_crc).unwrap();
            record.id().number()
        });
        assert!(found.eq(expected));
        for (entry, item) in walk.entries.iter().zip(batch.take_apart().2) {
            if let Item::Message(_, lies) = item {
                assert_eq!(entry.place.start as u64, lies.offset);
                assert_eq!(entry.place.end as u64, lies.offset + lies.octets);
                assert_eq!(entry.data.start as u64, lies.data_offset);
                assert_eq!(entry.data.len() as u64, lies.data_octets);
            }
        }
    }

    #[test]
    fn what_has_no_room_comes_back() {
        let before = vec![0; HEADER_OCTETS];
        let mut batch = Batch::new(1, 0, 0, 4096, before.clone());
        assert!(matches!(
            batch.push_message(message(1, 4000)),
            Err(NoRoom::Ever(_))
        ));
        batch.push_message(message(2, 1000)).map_err(drop).unwrap();
        assert!(matches!(
            batch.push_message(message(3, 3000)),
            Err(NoRoom::Yet(_))
        ));
        batch.push_note(note(2)).map_err(drop).unwrap();
        batch.seal(Vec::new());
        let octets: usize = batch.slices().map(<[u8]>::len).sum();
        assert_eq!(octets as u64, batch.end());
        assert_eq!(batch.take_apart().2.len(), 2);
        // In a segment that is used already there may be no room that a fresh one has.
        let mut batch = Batch::new(1, 3, 9000, 100, Vec::new());
        assert!(matches!(
            batch.push_message(message(1, 200)),
            Err(NoRoom::Yet(_))
        ));
        assert!(batch.is_empty());
    }
}
