//! Counts the octets of a BDAT chunk (RFC 3030 §2).
//!
//! Invariant: exactly the octets announced belong to the chunk, whether it is kept or refused, so
//! the next command is found where the peer put it. Chunk data is never changed.

/// A chunk under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    remaining: u64,
    last: bool,
}

impl Chunk {
    /// The chunk that `BDAT octets` or `BDAT octets LAST` announces.
    pub fn new(octets: u64, last: bool) -> Chunk {
        Chunk {
            remaining: octets,
            last,
        }
    }

    /// Cuts from `input` what belongs to the chunk.
    pub fn take<'i>(&mut self, input: &mut &'i [u8]) -> &'i [u8] {
        let whole: &'i [u8] = input;
        let octets = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(whole.len());
        let (chunk, rest) = whole.split_at_checked(octets).unwrap_or((whole, &[]));
        *input = rest;
        self.remaining -= chunk.len() as u64;
        chunk
    }

    /// Whether all its octets were taken.
    pub fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// Whether it ends the mail data.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_what_was_announced_however_it_is_cut() {
        const STREAM: &[u8] = b"abc\r\n.\r\nRSET\r\n";
        for announced in 0..=STREAM.len() {
            for cut in 0..=STREAM.len() {
                let mut chunk = Chunk::new(announced as u64, true);
                let mut kept = Vec::new();
                let mut left = Vec::new();
                for mut input in [&STREAM[..cut], &STREAM[cut..]] {
                    kept.extend_from_slice(chunk.take(&mut input));
                    left.extend_from_slice(input);
                }
                assert_eq!(
                    kept,
                    &STREAM[..announced],
                    "announced {announced} cut {cut}"
                );
                assert_eq!(
                    left,
                    &STREAM[announced..],
                    "announced {announced} cut {cut}"
                );
                assert!(chunk.is_complete() && chunk.is_last());
            }
        }
    }

    #[test]
    fn the_largest_chunk_is_never_complete() {
        let mut chunk = Chunk::new(u64::MAX, false);
        let mut input: &[u8] = b"abc";
        assert_eq!(chunk.take(&mut input), b"abc");
        assert!(input.is_empty() && !chunk.is_complete() && !chunk.is_last());
    }
}
