//! Cuts command lines out of the input (RFC 5321 §2.3.8, §4.5.3.1.4).
//!
//! Apart from the session because of its two ways: a line that is whole in the input stays there
//! and is lent; only one that was cut over reads is copied.
//! Invariants:
//! - The lines are the same however the input is cut.
//! - What is kept of an unfinished line is smaller than its limit, and is freed with the line.
//! - Only CR LF ends a line that may be run. A lone LF ends a line too, so that a peer which sends
//!   nothing else gets an answer, but one that is refused.

use crate::smtp::sasl;

/// The beginning of a line, waiting for the rest.
#[derive(Debug, Default)]
pub(super) struct Partial {
    octets: Vec<u8>,
    discarding: bool,
}

/// A line that ended, without its CR LF.
pub(super) enum Line<'i> {
    /// Lies in the input.
    Lent(&'i [u8]),
    /// Was gathered from several reads.
    Gathered(Gathered),
}

impl Line<'_> {
    pub(super) fn octets(&self) -> &[u8] {
        match self {
            Line::Lent(octets) => octets,
            Line::Gathered(gathered) => gathered.0.strip_suffix(b"\r\n").unwrap_or(&gathered.0),
        }
    }
}

/// Overwritten when dropped: it may be a line of an AUTH exchange.
pub(super) struct Gathered(Vec<u8>);

impl Drop for Gathered {
    fn drop(&mut self) {
        sasl::wipe(std::mem::take(&mut self.0));
    }
}

/// A line that ended and cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// Longer than its limit. Its octets are gone, up to its LF.
    TooLong {
        /// What it was limited to.
        octets_max: usize,
    },
    /// A lone LF.
    EndsInLf,
}

impl Partial {
    /// Takes the next line from `input`, or all of `input` if there is none yet. `octets_max` says
    /// how long a line with this beginning may be, line end included; it looks at no more than
    /// [`HEAD_OCTETS`].
    pub(super) fn next<'i>(
        &mut self,
        input: &mut &'i [u8],
        octets_max: impl Fn(&[u8]) -> usize,
    ) -> Option<Result<Line<'i>, LineError>> {
        let whole: &'i [u8] = input;
        let Some(at) = memchr::memchr(b'\n', whole) else {
            *input = &[];
            self.keep(whole, octets_max);
            return None;
        };
        let (line, rest) = whole.split_at_checked(at + 1)?;
        *input = rest;
        if self.octets.is_empty() && !self.discarding {
            let octets_max = octets_max(line);
            return Some(if line.len() > octets_max {
                Err(LineError::TooLong { octets_max })
            } else {
                line.strip_suffix(b"\r\n")
                    .map(Line::Lent)
                    .ok_or(LineError::EndsInLf)
            });
        }
        let octets_max = self.keep(line, octets_max);
        let gathered = Gathered(std::mem::take(&mut self.octets));
        Some(
            if std::mem::take(&mut self.discarding) || gathered.0.len() > octets_max {
                Err(LineError::TooLong { octets_max })
            } else if gathered.0.ends_with(b"\r\n") {
                Ok(Line::Gathered(gathered))
            } else {
                Err(LineError::EndsInLf)
            },
        )
    }

    /// Forgets the beginning of a line.
    pub(super) fn clear(&mut self) {
        drop(Gathered(std::mem::take(&mut self.octets)));
        self.discarding = false;
    }

    /// Appends `octets` of a line, or drops them once the line is too long: only its beginning
    /// stays, to tell by which limit. Gives that limit.
    fn keep(&mut self, octets: &[u8], octets_max: impl Fn(&[u8]) -> usize) -> usize {
        let head_missing = HEAD_OCTETS.saturating_sub(self.octets.len());
        let (head, tail) = octets
            .split_at_checked(head_missing)
            .unwrap_or((octets, &[]));
        self.octets.extend_from_slice(head);
        let octets_max = octets_max(&self.octets);
        if self.discarding {
            return octets_max;
        }
        if self.octets.len() + tail.len() > octets_max {
            self.discarding = true;
            // Shrunk to the head, with a capacity to match.
            let head = self.octets.get(..HEAD_OCTETS).unwrap_or_default().to_vec();
            drop(Gathered(std::mem::replace(&mut self.octets, head)));
        } else {
            self.octets.extend_from_slice(tail);
        }
        octets_max
    }
}

/// How many octets of a line tell its limit: a verb of four letters.
pub(super) const HEAD_OCTETS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of `input` cut into pieces of `piece_octets`: a text a line.
    fn lines(input: &[u8], piece_octets: usize) -> Vec<String> {
        let mut partial = Partial::default();
        let mut lines = Vec::new();
        for mut piece in input.chunks(piece_octets) {
            while let Some(line) =
                partial.next(
                    &mut piece,
                    |head| if head.starts_with(b"LONG") { 12 } else { 8 },
                )
            {
                lines.push(match line {
                    Ok(line) => line.octets().escape_ascii().to_string(),
                    Err(LineError::TooLong { octets_max }) => format!("more than {octets_max}"),
                    Err(LineError::EndsInLf) => String::from("LF"),
                });
            }
            assert!(piece.is_empty(), "what is no line yet is taken");
            assert!(partial.octets.len() <= 12, "what is kept is bounded");
        }
        lines
    }

    #[test]
    fn lines_are_the_same_however_cut() {
        let rows: [(&str, &[u8], &[&str]); 8] = [
            ("two lines", b"a\r\nbc\r\n", &["a", "bc"]),
            ("an empty line", b"\r\n", &[""]),
            ("at the limit", b"123456\r\n", &["123456"]),
            ("one more", b"1234567\r\n", &["more than 8"]),
            (
                "at the limit of its verb",
                b"LONG567890\r\n",
                &["LONG567890"],
            ),
            (
                "one more than its verb allows",
                b"LONG5678901\r\nx\r\n",
                &["more than 12", "x"],
            ),
            ("a lone LF", b"a\nb\r\n", &["LF", "b"]),
            ("a CR inside", b"a\rb\r\n", &["a\\rb"]),
        ];
        for (name, input, wanted) in rows {
            for piece_octets in 1..=input.len() {
                assert_eq!(
                    lines(input, piece_octets),
                    wanted,
                    "{name}, by {piece_octets}"
                );
            }
        }
    }

    #[test]
    fn an_endless_line_costs_its_head() {
        let mut partial = Partial::default();
        for _ in 0..1000 {
            let mut input: &[u8] = &[b'x'; 1000];
            assert!(partial.next(&mut input, |_| 512).is_none());
            assert!(partial.octets.capacity() <= 512);
        }
    }

    #[test]
    fn a_used_line_leaves_nothing_behind() {
        let mut partial = Partial::default();
        assert!(partial.next(&mut b"NO".as_slice(), |_| 512).is_none());
        assert!(partial.next(&mut b"OP\r\n".as_slice(), |_| 512).is_some());
        assert_eq!(partial.octets.capacity(), 0);
    }
}
