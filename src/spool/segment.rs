//! A segment's own words, and the walk over what lies in it after a stop.
//!
//! ```text
//!  0                                                                            512         1024
//!  | "ringpost" | version | CRC | state | sequence | nonce | before: sequence, end | the same │ batch │ batch │ …
//! ```
//!
//! The header is one sector, so that a cut leaves the old one or the new, and lies there twice: a write that took
//! less than a sector before the cut leaves the second one as it was, and what rots in one is whole in the other.
//! It is written with the first batch, in one write. It says where the segment before it ended: what lies behind
//! that end was never acknowledged, and what is damaged before it was.
//!
//! | version | of |
//! |---|---|
//! | 1 | segments without reports of delivery; read, and not written any more |
//! | 2 | what is written: the kinds of records that [`record`](super::record) tables |
//!
//! A release that knows only the versions before refuses to start, instead of setting aside what it cannot read.
//!
//! What lies in a segment, and how the disk came to look so:
//!
//! | found | how | becomes |
//! |---|---|---|
//! | entries up to a mark of the last in its batch | written and synced | kept |
//! | a whole last batch that nobody was told of | the cut came between the sync and the 250 | kept: the peer sends it again, a duplicate |
//! | entries of the newest batch, some or its last missing | the cut came during its write | dropped: never acknowledged |
//! | a gap, and entries of a later batch behind it | the disk lost or changed what it had acknowledged | what is whole is kept, the gap set aside and reported |
//! | a gap before the end that the next segment tells | the same | the same |
//! | entries behind that end | a write that failed and was answered with 452 | dropped |
//! | another nonce, or no magic | what the segment held before it was recycled, or zeros | the end |

use std::ops::Range;

use super::codec::{Reader, Writer};
use super::entry::{self, Entry, NoEntry};

/// What the first sectors of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) state: State,
    /// Segments of a log in the order of their use, from 1; never given twice.
    pub(super) sequence: u64,
    /// In every entry of this use of the file.
    pub(super) nonce: u64,
    /// Where the segment before ended, if there was one.
    pub(super) before: Option<Before>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its entries count.
    Used,
    /// They are done, all of them: it waits for its next use.
    Free,
}

/// The end of the segment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) sequence: u64,
    pub(super) end: u64,
}

/// What there is instead of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Zeros, or nothing: the file was made and never used.
    Blank,
    /// A format of another release.
    Version(u32),
    /// Anything else.
    Damaged,
}

impl Header {
    /// The sector, twice.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut checked = Vec::with_capacity(HEADER_OCTETS);
        let mut writer = Writer(&mut checked);
        writer.u64(match self.state {
            State::Used => STATE_USED,
            State::Free => STATE_FREE,
        });
        writer.u64(self.sequence);
        writer.u64(self.nonce);
        let before = self.before.unwrap_or(Before {
            sequence: 0,
            end: 0,
        });
        writer.u64(before.sequence);
        writer.u64(before.end);
        let mut sector = Vec::with_capacity(2 * SECTOR_OCTETS);
        sector.extend_from_slice(MAGIC);
        let mut writer = Writer(&mut sector);
        writer.u32(VERSION);
        writer.u32(crc32c::crc32c(&checked));
        sector.extend_from_slice(&checked);
        sector.resize(SECTOR_OCTETS, 0);
        sector.extend_from_within(..);
        sector
    }

    /// Reads the first sector, or the second if that is none.
    pub(super) fn decode(octets: &[u8]) -> Result<Header, NoHeader> {
        let (first, rest) = octets
            .split_at_checked(SECTOR_OCTETS)
            .unwrap_or((octets, &[]));
        let second = rest.get(..SECTOR_OCTETS).unwrap_or(rest);
        let first = Header::decode_sector(first);
        match (first, Header::decode_sector(second)) {
            (Ok(header), _) | (Err(_), Ok(header)) => Ok(header),
            // Cut off in the first write to a file of zeros.
            (Err(NoHeader::Damaged), Err(NoHeader::Blank)) if !second.is_empty() => {
                Err(NoHeader::Blank)
            }
            (Err(no_header), Err(_)) => Err(no_header),
        }
    }

    fn decode_sector(sector: &[u8]) -> Result<Header, NoHeader> {
        if sector.iter().all(|octet| *octet == 0) {
            return Err(NoHeader::Blank);
        }
        let rest = sector.strip_prefix(MAGIC).ok_or(NoHeader::Damaged)?;
        let mut reader = Reader(rest);
        let version = reader.u32().map_err(|_| NoHeader::Damaged)?;
        match version {
            // There was none: cut off before it.
            0 => Err(NoHeader::Damaged),
            VERSION_OLDEST..=VERSION => Header::decode_checked(reader).ok_or(NoHeader::Damaged),
            _ => Err(NoHeader::Version(version)),
        }
    }

    fn decode_checked(mut reader: Reader<'_>) -> Option<Header> {
        let crc = reader.u32().ok()?;
        if crc32c::crc32c(reader.0.get(..CHECKED_OCTETS)?) != crc {
            return None;
        }
        let state = match reader.u64().ok()? {
            STATE_USED => State::Used,
            STATE_FREE => State::Free,
            _ => return None,
        };
        let (sequence, nonce) = (reader.u64().ok()?, reader.u64().ok()?);
        let (before, end) = (reader.u64().ok()?, reader.u64().ok()?);
        Some(Header {
            state,
            sequence,
            nonce,
            before: (before != 0).then_some(Before {
                sequence: before,
                end,
            }),
        })
    }
}

/// What a walk found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walk<'s> {
    /// Entries that count, in order.
    pub(super) entries: Vec<Entry<'s>>,
    /// What was acknowledged and is not whole any more.
    pub(super) damaged: Vec<Range<usize>>,
    /// Behind the last entry that counts.
    pub(super) end: usize,
}

impl Walk<'_> {
    /// Where the newest batch lies, with the header if that came with it.
    pub(super) fn newest_batch(&self) -> Range<usize> {
        let newest = self.entries.last().map(|entry| entry.stands.batch);
        let begin = match newest {
            None | Some(0) => 0,
            Some(batch) => {
                let mut entries = self.entries.iter();
                let first = entries.find(|entry| entry.stands.batch == batch);
                first.map_or(self.end, |first| first.place.start)
            }
        };
        begin..self.end
    }
}

/// How far a segment is known to have been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The next segment says: up to here.
    Until(u64),
    /// It is the newest: its last batch may be torn.
    Open,
}

/// Reads the entries of a used segment; `octets` is the file.
pub(super) fn walk<'s>(octets: &'s [u8], header: &Header, extent: Extent) -> Walk<'s> {
    let octets = match extent {
        Extent::Open => octets,
        Extent::Until(end) => usize::try_from(end)
            .ok()
            .and_then(|end| octets.get(..end))
            .unwrap_or(octets),
    };
    let found = whole_entries(octets, header.nonce);
    let mut entries = found;
    let torn = match extent {
        Extent::Until(_) => Vec::new(),
        Extent::Open => split_torn(&mut entries),
    };
    let mut damaged = Vec::new();
    let mut end = HEADER_OCTETS.min(octets.len());
    for entry in &entries {
        if entry.place.start > end {
            damaged.push(end..entry.place.start);
        }
        end = entry.place.end;
    }
    let acknowledged_to = match extent {
        Extent::Until(_) => octets.len(),
        // What is there of the torn batch tells that the one before it was whole.
        Extent::Open => torn
            .first()
            .filter(|first| !follows(entries.last(), first))
            .map_or(end, |first| first.place.start),
    };
    if end < acknowledged_to {
        damaged.push(end..acknowledged_to);
        end = acknowledged_to;
    }
    Walk {
        entries,
        damaged,
        end,
    }
}

/// All entries that are whole, whatever lies between them.
fn whole_entries(octets: &[u8], nonce: u64) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut at = HEADER_OCTETS;
    loop {
        match entry::read(octets, at, nonce) {
            Ok(entry) => {
                at = entry.place.end;
                entries.push(entry);
            }
            Err(no_entry) => {
                let from = match no_entry {
                    NoEntry::Head => at.saturating_add(1),
                    // Its head is whole: no entry begins within its data.
                    NoEntry::Data { end } => end.max(at.saturating_add(1)),
                };
                match entry::find(octets, from, nonce) {
                    Some(next) => at = next,
                    None => return entries,
                }
            }
        }
    }
}

/// Takes the entries off the end that belong to a batch that is not there to its end.
///
/// A batch is written when the one before is on stable storage. So only the newest can be torn; of those
/// before, what is missing was lost later.
fn split_torn<'s>(entries: &mut Vec<Entry<'s>>) -> Vec<Entry<'s>> {
    let Some(newest) = entries.last().cloned() else {
        return Vec::new();
    };
    let batch = newest.stands.batch;
    let begin = entries.partition_point(|entry| entry.stands.batch < batch);
    let of_newest = entries.get(begin..).unwrap_or_default();
    let indices = of_newest
        .iter()
        .map(|entry| usize::from(entry.stands.index));
    if newest.stands.last && indices.eq(0..of_newest.len()) {
        Vec::new()
    } else {
        entries.split_off(begin)
    }
}

/// Whether nothing is missing between the last entry that counts and the batch of `next`.
fn follows(last: Option<&Entry<'_>>, next: &Entry<'_>) -> bool {
    match last {
        None => next.stands.batch == 0,
        Some(last) => {
            last.stands.last && last.stands.batch.checked_add(1) == Some(next.stands.batch)
        }
    }
}

/// Written whole or not at all, if it is not cut in two writes.
const SECTOR_OCTETS: usize = 512;

/// The same sector twice.
pub(super) const HEADER_OCTETS: usize = 2 * SECTOR_OCTETS;

const MAGIC: &[u8; 8] = b"ringpost";

/// What is written. To be raised with any change of what lies in a segment.
pub(super) const VERSION: u32 = 2;

/// The oldest that is read.
pub(super) const VERSION_OLDEST: u32 = 1;

const STATE_USED: u64 = 1;
const STATE_FREE: u64 = 2;

/// Five numbers.
const CHECKED_OCTETS: usize = 40;

#[cfg(test)]
mod tests {
    use super::super::entry::{InBatch, push_head};
    use super::*;

    const HEADER: Header = Header {
        state: State::Used,
        sequence: 5,
        nonce: 0xfeed_face_cafe_beef,
        before: Some(Before {
            sequence: 4,
            end: 4711,
        }),
    };

    #[test]
    fn headers_read_as_they_were_written() {
        for header in [
            HEADER,
            Header {
                state: State::Free,
                before: None,
                ..HEADER
            },
        ] {
            let sector = header.encode();
            assert_eq!(sector.len(), HEADER_OCTETS);
            assert_eq!(Header::decode(&sector), Ok(header));
        }
    }

    #[test]
    fn what_is_no_header() {
        let sector = HEADER.encode();
        let changed = |at: usize| {
            let mut sector = sector.clone();
            for at in [at, SECTOR_OCTETS + at] {
                sector[at] ^= 2;
            }
            sector
        };
        let of_version = |version: u8| {
            let mut sector = sector.clone();
            for at in [8, SECTOR_OCTETS + 8] {
                sector[at] = version;
            }
            sector
        };
        assert_eq!(Header::decode(&of_version(1)), Ok(HEADER));
        for (name, octets, expected) in [
            ("nothing", vec![], NoHeader::Blank),
            ("zeros", vec![0; 4096], NoHeader::Blank),
            ("another magic", changed(0), NoHeader::Damaged),
            ("the next version", of_version(3), NoHeader::Version(3)),
            ("no version", of_version(0), NoHeader::Damaged),
            ("another checksum", changed(12), NoHeader::Damaged),
            ("another state", changed(16), NoHeader::Damaged),
            ("another end", changed(55), NoHeader::Damaged),
            ("cut off", sector[..40].to_vec(), NoHeader::Damaged),
        ] {
            assert_eq!(Header::decode(&octets), Err(expected), "{name}");
        }
    }

    #[test]
    fn one_sector_of_a_header_is_enough() {
        let before = Before {
            sequence: u64::MAX,
            end: u64::MAX,
        };
        let other = Header {
            before: Some(before),
            ..HEADER
        };
        for cut in 0..HEADER_OCTETS {
            let mut octets = HEADER.encode();
            octets[..cut].copy_from_slice(&other.encode()[..cut]);
            let found = Header::decode(&octets).unwrap();
            assert_eq!(found == other, cut >= 56, "{cut}");
            octets[cut] ^= 1;
            Header::decode(&octets).unwrap();
            let mut octets = vec![0; HEADER_OCTETS];
            octets[..cut].copy_from_slice(&other.encode()[..cut]);
            let found = Header::decode(&octets);
            let expected = if cut < 56 {
                Err(NoHeader::Blank)
            } else {
                Ok(other)
            };
            assert_eq!(found, expected, "{cut}");
        }
    }

    /// A segment of batches: each a list of records, whose data is the record again.
    fn segment(batches: &[&[&str]]) -> Vec<u8> {
        let mut octets = HEADER.encode();
        for (batch, records) in (0..).zip(batches) {
            for (index, record) in records.iter().enumerate() {
                let stands = InBatch {
                    batch,
                    index: u16::try_from(index).unwrap(),
                    last: index + 1 == records.len(),
                };
                let data = record.as_bytes();
                let zeros = push_head(
                    &mut octets,
                    HEADER.nonce,
                    stands,
                    data.len() as u64,
                    crc32c::crc32c(data),
                    |octets| octets.extend_from_slice(record.as_bytes()),
                );
                octets.extend_from_slice(data);
                octets.resize(octets.len() + zeros, 0);
            }
        }
        octets
    }

    fn records(walk: &Walk<'_>) -> Vec<String> {
        let text = |entry: &Entry<'_>| String::from_utf8(entry.record.to_vec()).unwrap();
        walk.entries.iter().map(text).collect()
    }

    /// Where an entry with this record begins, and its data.
    fn place(octets: &[u8], record: &str) -> (usize, usize) {
        let walk = walk(octets, &HEADER, Extent::Open);
        let mut entries = walk.entries.iter();
        let entry = entries
            .find(|entry| entry.record == record.as_bytes())
            .unwrap();
        (entry.place.start, entry.data.start)
    }

    /// A name, the file, how far it was acknowledged; the records that count, and what is damaged.
    type Row = (
        &'static str,
        Vec<u8>,
        Extent,
        &'static str,
        Vec<Range<usize>>,
    );

    #[test]
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "one damaged place, not the octets of it"
    )]
    fn states_of_a_segment() {
        let batches: &[&[&str]] = &[&["a"], &["b", "c", "d"], &["e", "f"]];
        let whole = segment(batches);
        let length = whole.len();
        let padded = [whole.clone(), vec![0; 1000]].concat();
        let harmed = |what: &[(&str, bool)]| {
            let mut octets = padded.clone();
            for (record, in_data) in what {
                let (head, data) = place(&whole, record);
                octets[if *in_data { data } else { head + 9 }] ^= 1;
            }
            octets
        };
        let begin = |record: &str| place(&whole, record).0;
        let stale = [whole.clone(), segment(batches)[HEADER_OCTETS..].to_vec()].concat();
        let all = "abcdef";
        #[rustfmt::skip] // a row a line
        let rows: Vec<Row> = vec![
            ("all written", padded.clone(), Extent::Open, all, vec![]),
            ("to the file's end", whole.clone(), Extent::Open, all, vec![]),
            ("never written", HEADER.encode(), Extent::Open, "", vec![]),
            ("the last entry torn in its data", harmed(&[("f", true)]), Extent::Open, "abcd", vec![]),
            ("the last entry torn in its head", harmed(&[("f", false)]), Extent::Open, "abcd", vec![]),
            ("the last batch torn at its beginning", harmed(&[("e", false)]), Extent::Open, "abcd", vec![]),
            ("the last batch torn altogether", harmed(&[("e", true), ("f", false)]), Extent::Open, "abcd", vec![]),
            ("cut off in the last batch", whole[..begin("f") + 20].to_vec(), Extent::Open, "abcd", vec![]),
            ("damage in an old batch", harmed(&[("c", true)]), Extent::Open, "abdef",
                vec![begin("c")..begin("d")]),
            ("damage at the end of an old batch", harmed(&[("d", false)]), Extent::Open, "abcef",
                vec![begin("d")..begin("e")]),
            ("damage in an old batch, the last one torn", harmed(&[("b", false), ("f", true)]), Extent::Open, "acd",
                vec![begin("b")..begin("c")]),
            ("damage up to a torn batch", harmed(&[("d", false), ("e", true)]), Extent::Open, "abc",
                vec![begin("d")..begin("f")]),
            ("sealed, whole", padded.clone(), Extent::Until(length as u64), all, vec![]),
            ("sealed before the last batch", padded.clone(), Extent::Until(begin("e") as u64), "abcd", vec![]),
            ("sealed, damage at its end", harmed(&[("f", true)]), Extent::Until(length as u64), "abcde",
                vec![begin("f")..length]),
            ("sealed, the last batch damaged", harmed(&[("e", false), ("f", false)]), Extent::Until(length as u64), "abcd",
                vec![begin("e")..length]),
            ("sealed behind the file's end", whole.clone(), Extent::Until(1 << 40), all, vec![]),
        ];
        for (name, octets, extent, expected, damaged) in rows {
            let walk = walk(&octets, &HEADER, extent);
            assert_eq!(records(&walk).concat(), expected, "{name}");
            assert_eq!(walk.damaged, damaged, "{name}");
        }
        // Behind the end the same nonce cannot be: a recycled segment gets another.
        let other = Header { nonce: 1, ..HEADER };
        assert_eq!(walk(&stale, &other, Extent::Open).entries, []);
    }

    /// A message may hold what looks like an entry; it is one only under the nonce, which nobody outside knows,
    /// and within a whole entry nobody looks.
    #[test]
    fn an_entry_within_an_entry_is_none() {
        let inner = segment(&[&["inner"]])[HEADER_OCTETS..].to_vec();
        let mut octets = HEADER.encode();
        let stands = InBatch {
            batch: 0,
            index: 0,
            last: true,
        };
        let crc = crc32c::crc32c(&inner);
        push_head(
            &mut octets,
            HEADER.nonce,
            stands,
            inner.len() as u64,
            crc,
            |octets| {
                octets.extend_from_slice(b"outer");
            },
        );
        octets.extend_from_slice(&inner);
        octets.resize(octets.len().next_multiple_of(8), 0);
        let begin = HEADER_OCTETS;
        assert_eq!(records(&walk(&octets, &HEADER, Extent::Open)), ["outer"]);
        // Its data is damaged, its head is whole: the data is skipped all the same.
        let last = octets.len() - 8;
        octets[last - inner.len() / 2] ^= 1;
        let walk = walk(&octets, &HEADER, Extent::Until(octets.len() as u64));
        assert_eq!(walk.entries, []);
        assert_eq!(walk.damaged.len(), 1);
        assert_eq!(walk.damaged.first(), Some(&(begin..octets.len())));
    }
}
