//! Writes content as mail data: dots stuffed, the end behind it (RFC 5321 §4.1.1.4, §4.5.2).
//!
//! The counterpart of [`end_of_data`](crate::smtp::end_of_data), and apart for the same reason: a
//! mistake here lets a message speak to the next hop.
//! Invariants:
//! - A dot is put in front of each dot that stands at the start of a line, and nowhere else, however
//!   the content was cut into parts. A line starts behind a true CR LF and at the beginning.
//! - The end is a line of its own: content that does not end in CR LF gets one.
//! - Nothing else is changed. A stray CR or LF is passed on; whether there may be one was decided
//!   when the message was taken in (`--stray-newline`).
//!
//! ```text
//! content                 octets
//! a CRLF . b CRLF         a CRLF .. b CRLF . CRLF
//! a                       a CRLF . CRLF
//!                         . CRLF
//! a LF . CRLF             a LF . CRLF . CRLF          no true CR LF in front of the dot
//! ```

use memchr::memmem;

/// The writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stuffer {
    place: Place,
}

/// What the last octets were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// CR LF, or nothing yet.
    #[default]
    LineStart,
    /// CR.
    Cr,
    /// Anything else.
    Text,
}

impl Stuffer {
    /// Nothing written yet.
    pub fn new() -> Stuffer {
        Stuffer::default()
    }

    /// Appends the next part of the content.
    pub fn part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        out.reserve(part.len());
        let mut rest = part;
        // What a line start that was cut asks for.
        match (self.place, part) {
            (_, []) => return,
            (Place::LineStart, [b'.', ..]) => out.push(b'.'),
            (Place::Cr, [b'\n', b'.', ..]) => {
                out.extend_from_slice(b"\n.");
                rest = part.get(1..).unwrap_or_default();
            }
            (Place::LineStart | Place::Cr | Place::Text, [..]) => {}
        }
        // rest:  written to `out`… CRLF | . …
        //                               ^ from here on, with a dot more in front
        let mut from = 0;
        for at in memmem::find_iter(rest, b"\r\n.") {
            let dot = at + 2;
            out.extend_from_slice(rest.get(from..dot).unwrap_or_default());
            out.push(b'.');
            from = dot;
        }
        out.extend_from_slice(rest.get(from..).unwrap_or_default());
        self.place = match (self.place, part) {
            (Place::Cr, [b'\n']) | (_, [.., b'\r', b'\n']) => Place::LineStart,
            (_, [.., b'\r']) => Place::Cr,
            (Place::LineStart | Place::Cr | Place::Text, [..]) => Place::Text,
        };
    }

    /// Appends the end of the mail data.
    pub fn end(self, out: &mut Vec<u8>) {
        match self.place {
            Place::LineStart => {}
            Place::Cr | Place::Text => out.extend_from_slice(b"\r\n"),
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::end_of_data::{EndOfData, Progress, StrayNewline};

    fn stuffed(content: &[u8], cuts: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut stuffer = Stuffer::new();
        let mut out = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([content.len()]) {
            stuffer.part(&content[from..cut], &mut out);
            from = cut;
        }
        stuffer.end(&mut out);
        out
    }

    fn shown(octets: &[u8]) -> String {
        octets.escape_ascii().to_string()
    }

    #[test]
    fn dots_at_line_starts_are_doubled() {
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, &str)] = &[
            ("empty", "", ".\r\n"),
            ("a line", "a\r\n", "a\r\n.\r\n"),
            ("no line end", "a", "a\r\n.\r\n"),
            ("an empty line", "\r\n", "\r\n.\r\n"),
            ("a dot first of all", ".a\r\n", "..a\r\n.\r\n"),
            ("a dot alone", ".", "..\r\n.\r\n"),
            ("a line of a dot", "a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"),
            ("lines of dots", ".\r\n.\r\n..\r\n", "..\r\n..\r\n...\r\n.\r\n"),
            ("a dot at the end", "a\r\n.", "a\r\n..\r\n.\r\n"),
            ("dots inside a line", "a.b.\r\n", "a.b.\r\n.\r\n"),
            ("behind a lone LF", "a\n.\r\n", "a\n.\r\n.\r\n"),
            ("behind a lone CR", "a\r.\r\n", "a\r.\r\n.\r\n"),
            ("behind LF CR", "a\n\r.\r\n", "a\n\r.\r\n.\r\n"),
            ("behind CR CR LF", "\r\r\n.\r\n", "\r\r\n..\r\n.\r\n"),
            ("a CR at the end", "a\r", "a\r\r\n.\r\n"),
            ("a LF at the end", "a\n", "a\n\r\n.\r\n"),
        ];
        for (name, content, wanted) in rows {
            for cut in 0..=content.len() {
                let octets = stuffed(content.as_bytes(), [cut]);
                assert_eq!(shown(&octets), shown(wanted.as_bytes()), "{name}, at {cut}");
            }
            let octets = stuffed(content.as_bytes(), 0..=content.len());
            assert_eq!(shown(&octets), shown(wanted.as_bytes()), "{name}");
        }
    }

    /// What is stuffed is read again as it was, but for the CR LF that a last line lacked, and is
    /// at its end exactly where its octets end.
    fn assert_round_trip(content: &[u8], octets: &[u8]) {
        let mut end_of_data = EndOfData::new(StrayNewline::Accept);
        let mut input = octets;
        let mut read = Vec::new();
        let progress = end_of_data.receive(&mut input, |run| read.extend_from_slice(run));
        assert_eq!(progress, Progress::Ended, "{}", shown(content));
        assert!(input.is_empty(), "{}", shown(content));
        let mut wanted = content.to_vec();
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            wanted.extend_from_slice(b"\r\n");
        }
        assert_eq!(shown(&read), shown(&wanted));
    }

    #[test]
    fn short_texts_come_back_on_every_cutting() {
        const OCTETS: &[u8; 4] = b"\r\n.a";
        for len in 0..=6u32 {
            for number in 0..4usize.pow(len) {
                let content: Vec<u8> = (0..len)
                    .map(|place| OCTETS[(number >> (2 * place)) & 3])
                    .collect();
                let whole = stuffed(&content, []);
                assert_round_trip(&content, &whole);
                for cut in 0..=content.len() {
                    assert_eq!(stuffed(&content, [cut]), whole, "{}", shown(&content));
                }
                assert_eq!(stuffed(&content, 0..=content.len()), whole);
            }
        }
    }

    #[test]
    fn random_content_comes_back_at_random_cuts() {
        const TOKENS: [&[u8]; 9] = [
            b"\r\n", b".", b"\r", b"\n", b"a", b"\r\n.", b"\0", b"\xff", b"line",
        ];
        for seed in 0..2000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let content: Vec<u8> = (0..random.usize(..200))
                .flat_map(|_| TOKENS[random.usize(..TOKENS.len())])
                .copied()
                .collect();
            let mut cuts: Vec<usize> = (0..random.usize(..20))
                .map(|_| random.usize(..=content.len()))
                .collect();
            cuts.sort_unstable();
            let octets = stuffed(&content, cuts);
            assert_eq!(octets, stuffed(&content, []), "seed {seed}");
            assert_round_trip(&content, &octets);
        }
    }
}
