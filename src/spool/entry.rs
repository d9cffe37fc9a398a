//! The frame of an entry in a segment: what lies there, how long it is, and whether it is whole.
//!
//! ```text
//!  0        4         8            16      20    21     22      24        28       32          40
//!  | magic  | CRC of  | nonce of   | batch | last| zero | index | record  | CRC of | octets of | record │ data │ zeros
//!  | "RPe1" | 8..     | the segment|       |     |      |       | octets  | data   | data      |        │      │ up to 8
//! ```
//!
//! Little endian; the first CRC-32C covers the rest of the head and the record, the second the data.
//! Invariants:
//! - An entry is read only if both checksums fit, and only under the nonce of its segment: what the segment
//!   held before it was recycled, and whatever a peer puts into its mail, is never taken for one.
//! - A batch numbers its entries from 0 and marks the last: without that mark it was never acknowledged.

use std::ops::Range;

use super::codec::Reader;

/// Where an entry stands in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InBatch {
    /// The batch, from 0 in each segment.
    pub(super) batch: u32,
    /// The entry, from 0 in each batch.
    pub(super) index: u16,
    /// Whether it is the last of its batch.
    pub(super) last: bool,
}

/// An entry as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'s> {
    pub(super) stands: InBatch,
    pub(super) record: &'s [u8],
    pub(super) data_crc: u32,
    /// From the beginning of `octets`, head and padding included.
    pub(super) place: Range<usize>,
    /// The data, within `place`.
    pub(super) data: Range<usize>,
}

/// Why there is no entry at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoEntry {
    /// Nothing that could be the head of one.
    Head,
    /// A head that fits, up to where the entry would go, without its data.
    Data {
        /// Where the next entry would begin.
        end: usize,
    },
}

/// Appends head and record of an entry, and gives back how many zeros are to follow the data.
///
/// `record` appends the record; its length and the checksum are filled in behind it.
pub(super) fn push_head(
    octets: &mut Vec<u8>,
    nonce: u64,
    stands: InBatch,
    data_octets: u64,
    data_crc: u32,
    record: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let begin = octets.len();
    octets.extend_from_slice(&MAGIC);
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(&nonce.to_le_bytes());
    octets.extend_from_slice(&stands.batch.to_le_bytes());
    octets.push(u8::from(stands.last));
    octets.push(0);
    octets.extend_from_slice(&stands.index.to_le_bytes());
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(&data_crc.to_le_bytes());
    octets.extend_from_slice(&data_octets.to_le_bytes());
    let record_begin = octets.len();
    record(octets);
    let record_octets = u32::try_from(octets.len() - record_begin).unwrap_or(u32::MAX);
    fill_in(octets, begin + RECORD_OCTETS_AT, record_octets);
    let crc = crc32c::crc32c(octets.get(begin + CHECKED_FROM..).unwrap_or_default());
    fill_in(octets, begin + CRC_AT, crc);
    padding((octets.len() - begin) as u64, data_octets)
}

/// Makes the entry whose head begins at `begin` the last of its batch.
pub(super) fn mark_last(octets: &mut [u8], head: Range<usize>) {
    let Some(head) = octets.get_mut(head) else {
        debug_assert!(false, "a head outside of its octets");
        return;
    };
    if let Some(last) = head.get_mut(LAST_AT) {
        *last = 1;
    }
    let crc = crc32c::crc32c(head.get(CHECKED_FROM..).unwrap_or_default());
    if let Some(place) = head.get_mut(CRC_AT..CRC_AT + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Octets that an entry takes, head and padding included.
pub(super) fn octets(record_octets: usize, data_octets: u64) -> u64 {
    let head = (HEAD_OCTETS + record_octets) as u64;
    let padding = padding(head, data_octets) as u64;
    head.saturating_add(data_octets).saturating_add(padding)
}

/// Reads the entry at `at`.
pub(super) fn read(octets: &[u8], at: usize, nonce: u64) -> Result<Entry<'_>, NoEntry> {
    let (head, data_octets) = read_head(octets, at, nonce).ok_or(NoEntry::Head)?;
    let data_begin = head.record_end;
    let end = usize::try_from(data_octets)
        .ok()
        .and_then(|data_octets| data_begin.checked_add(data_octets))
        .ok_or(NoEntry::Head)?;
    let whole_end = end.saturating_add(padding((data_begin - at) as u64, data_octets));
    // The head fits and says more than there is: cut off, or the file is.
    let data = octets.get(data_begin..end).ok_or(NoEntry::Data {
        end: whole_end.min(octets.len()),
    })?;
    if crc32c::crc32c(data) != head.data_crc {
        return Err(NoEntry::Data {
            end: whole_end.min(octets.len()),
        });
    }
    Ok(Entry {
        stands: head.stands,
        record: head.record,
        data_crc: head.data_crc,
        place: at..whole_end,
        data: data_begin..end,
    })
}

struct Head<'s> {
    stands: InBatch,
    record: &'s [u8],
    record_end: usize,
    data_crc: u32,
}

fn read_head(octets: &[u8], at: usize, nonce: u64) -> Option<(Head<'_>, u64)> {
    let rest = octets.get(at..)?;
    let mut reader = Reader(rest.strip_prefix(&MAGIC)?);
    let crc = reader.u32().ok()?;
    if reader.u64().ok()? != nonce {
        return None;
    }
    let batch = reader.u32().ok()?;
    let last = reader.u8().ok()?;
    let zero = reader.u8().ok()?;
    let index = reader.u16().ok()?;
    let record_octets = usize::try_from(reader.u32().ok()?).ok()?;
    let data_crc = reader.u32().ok()?;
    let data_octets = reader.u64().ok()?;
    let record_end = HEAD_OCTETS.checked_add(record_octets)?;
    if crc32c::crc32c(rest.get(CHECKED_FROM..record_end)?) != crc || last > 1 || zero != 0 {
        return None;
    }
    let head = Head {
        stands: InBatch {
            batch,
            index,
            last: last == 1,
        },
        record: rest.get(HEAD_OCTETS..record_end)?,
        record_end: at.checked_add(record_end)?,
        data_crc,
    };
    Some((head, data_octets))
}

/// The next place from `from` on where an entry could begin, as far as magic and nonce tell.
pub(super) fn find(octets: &[u8], from: usize, nonce: u64) -> Option<usize> {
    let rest = octets.get(from..)?;
    memchr::memmem::find_iter(rest, &nonce.to_le_bytes())
        .filter_map(|found| (from + found).checked_sub(NONCE_AT))
        .find(|at| {
            *at >= from
                && octets
                    .get(*at..)
                    .is_some_and(|rest| rest.starts_with(&MAGIC))
        })
}

fn padding(head_octets: u64, data_octets: u64) -> usize {
    let over = head_octets.wrapping_add(data_octets) % ALIGNMENT;
    usize::try_from((ALIGNMENT - over) % ALIGNMENT).unwrap_or(0)
}

fn fill_in(octets: &mut [u8], at: usize, number: u32) {
    if let Some(place) = octets.get_mut(at..at + 4) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

const MAGIC: [u8; 4] = *b"RPe1";
const CRC_AT: usize = 4;
const NONCE_AT: usize = 8;
/// What the checksum of the head covers begins here.
const CHECKED_FROM: usize = 8;
const LAST_AT: usize = 20;
const RECORD_OCTETS_AT: usize = 24;
/// Octets before the record.
pub(super) const HEAD_OCTETS: usize = 40;
const ALIGNMENT: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;

    fn push(octets: &mut Vec<u8>, stands: InBatch, record: &[u8], data: &[u8]) {
        let begin = octets.len();
        let zeros = push_head(
            octets,
            NONCE,
            stands,
            data.len() as u64,
            crc32c::crc32c(data),
            |o| {
                o.extend_from_slice(record);
            },
        );
        octets.extend_from_slice(data);
        octets.resize(octets.len() + zeros, 0);
        assert_eq!(
            octets.len() - begin,
            usize::try_from(super::octets(record.len(), data.len() as u64)).unwrap()
        );
    }

    const FIRST: InBatch = InBatch {
        batch: 7,
        index: 0,
        last: false,
    };

    #[test]
    fn entries_read_as_they_were_written() {
        for record_octets in [0, 1, 7, 8, 100] {
            for data_octets in [0, 1, 5, 8, 4096] {
                let (record, data) = (vec![b'r'; record_octets], vec![b'd'; data_octets]);
                let mut octets = Vec::new();
                push(&mut octets, FIRST, &record, &data);
                let end = octets.len();
                assert_eq!(end % 8, 0);
                let head_end = HEAD_OCTETS + record_octets;
                mark_last(&mut octets, 0..head_end);
                push(&mut octets, FIRST, b"next", b"");
                let entry = read(&octets, 0, NONCE).unwrap();
                assert_eq!(
                    entry.stands,
                    InBatch {
                        last: true,
                        ..FIRST
                    }
                );
                assert_eq!(entry.record, record);
                assert_eq!(&octets[entry.data.clone()], data);
                assert_eq!(entry.place, 0..end);
                assert_eq!(read(&octets, end, NONCE).unwrap().record, b"next");
            }
        }
    }

    /// Every octet of an entry is covered by a checksum, but for the padding.
    #[test]
    fn a_changed_octet_is_found() {
        let mut octets = Vec::new();
        push(&mut octets, FIRST, b"record", b"data.");
        let end = HEAD_OCTETS + 6 + 5;
        for at in 0..octets.len() {
            octets[at] ^= 0x10;
            let found = read(&octets, at.saturating_sub(at), NONCE);
            if at < HEAD_OCTETS + 6 {
                assert_eq!(found, Err(NoEntry::Head), "{at}");
            } else if at < end {
                assert_eq!(found, Err(NoEntry::Data { end: octets.len() }), "{at}");
            } else {
                found.unwrap();
            }
            octets[at] ^= 0x10;
        }
    }

    #[test]
    fn an_entry_that_is_cut_off_is_none() {
        let mut octets = Vec::new();
        push(&mut octets, FIRST, b"record", b"data.");
        for end in 0..HEAD_OCTETS + 6 + 5 {
            read(&octets[..end], 0, NONCE).unwrap_err();
        }
    }

    #[test]
    fn only_the_segments_own_entries_are_found() {
        let mut octets = vec![0; 24];
        push(&mut octets, FIRST, b"one", b"");
        let begin = find(&octets, 0, NONCE).unwrap();
        assert_eq!(begin, 24);
        assert_eq!(find(&octets, 25, NONCE), None);
        assert_eq!(find(&octets, 0, NONCE + 1), None);
        assert_eq!(read(&octets, 24, NONCE + 1), Err(NoEntry::Head));
    }

    #[test]
    fn random_octets_never_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut sample = Vec::new();
        push(&mut sample, FIRST, b"record", b"some data");
        for _ in 0..20_000 {
            let mut octets = sample.clone();
            let at = random.usize(..octets.len());
            octets[at] = random.u8(..);
            // Lengths that lead anywhere, under a checksum that fits.
            let crc = crc32c::crc32c(&octets[CHECKED_FROM..HEAD_OCTETS + 6]);
            fill_in(&mut octets, CRC_AT, crc);
            let _ = read(&octets, 0, NONCE);
            let _ = find(&octets, random.usize(..octets.len()), NONCE);
        }
    }
}
