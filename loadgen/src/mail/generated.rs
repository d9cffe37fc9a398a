//! Messages made for the purpose: a short header of their own, and a part of one long text.
//!
//! Invariants:
//! - A message has exactly the octets that were asked for, header included.
//! - Lines end in CR LF and have at most 78 octets in front of it (RFC 5322 §2.1.1); all is ASCII.
//! - No two messages of a run have the same Message-ID, so that no server takes one for another's copy.

use std::io::Write as _;
use std::sync::Arc;

use jiff::Zoned;
use rand::rngs::SmallRng;
use ringpost::smtp::client::ContentFacts;

use super::{Message, Sizes};

/// The maker.
#[derive(Clone, Debug)]
pub struct Generated {
    sizes: Sizes,
    text: Arc<[u8]>,
    /// Makes Message-IDs of one run unlike those of another.
    run: u64,
    /// When the run began, as the Date field has it.
    date: Box<str>,
}

impl Generated {
    /// Messages of these sizes, for the run of this number.
    pub fn new(sizes: Sizes, run: u64) -> Generated {
        Generated {
            sizes,
            text: text(sizes.most()),
            run,
            date: Zoned::now()
                .strftime("%a, %d %b %Y %H:%M:%S %z")
                .to_string()
                .into(),
        }
    }

    /// How large they are.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The message of this number.
    pub(super) fn message<'a>(
        &'a self,
        number: u64,
        random: &mut SmallRng,
        head: &'a mut Vec<u8>,
    ) -> Message<'a> {
        let octets = self.sizes.draw(random).max(MESSAGE_OCTETS_MIN);
        head.clear();
        // Writing to memory does not fail.
        let _ = write!(
            head,
            "From: Load generator <sender@loadgen.test>\r\n\
             To: <recipient@loadgen.test>\r\n\
             Subject: A message of {octets} octets\r\n\
             Date: {date}\r\n\
             Message-ID: <{number:016x}.{run:016x}@loadgen.test>\r\n\r\n",
            date = self.date,
            run = self.run
        );
        let mut body = self.body(octets.saturating_sub(head.len()));
        if body.first() == Some(&b'\n') {
            // The cut came into a line's end. One octet more of header, and it is behind it.
            head.splice(..0, *b"X:\r\n");
            body = self.body(octets.saturating_sub(head.len()));
        }
        Message {
            parts: [head, body],
            facts: ContentFacts {
                is_seven_bit: true,
                fits_data: true,
                has_utf8_header: false,
            },
        }
    }

    /// The end of the text, so that it ends as a line does.
    fn body(&self, octets: usize) -> &[u8] {
        let from = self.text.len().saturating_sub(octets);
        self.text.get(from..).unwrap_or_default()
    }
}

/// So many octets at least, in lines of different lengths. A word of prose a line would do; what matters is that
/// there is no dot at the start of a line, for stuffing is a matter of the content, not of the server.
fn text(octets: usize) -> Arc<[u8]> {
    const WORDS: &[&str] = &[
        "mail", "is", "taken", "at", "the", "edge", "and", "kept", "until", "somebody", "else",
        "has", "it", "whatever", "happens", "to", "power", "disks", "or", "networks",
    ];
    let mut text = Vec::with_capacity(octets + LINE_OCTETS_MAX + 2);
    let (mut word, mut line_octets) = (0_usize, 0_usize);
    while text.len() < octets {
        // Steps of 7 through 20 words: all of them come, and lines differ.
        let next = WORDS.get(word % WORDS.len()).copied().unwrap_or("mail");
        word += 7 + usize::from(word.is_multiple_of(3));
        if line_octets + 1 + next.len() > LINE_OCTETS_MAX {
            text.extend_from_slice(b"\r\n");
            line_octets = 0;
        } else if line_octets > 0 {
            text.push(b' ');
            line_octets += 1;
        }
        text.extend_from_slice(next.as_bytes());
        line_octets += next.len();
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// The header takes as much.
pub const MESSAGE_OCTETS_MIN: usize = 256;

/// RFC 5322 §2.1.1.
const LINE_OCTETS_MAX: usize = 78;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use ringpost::smtp::client::Scanner;

    use super::*;

    #[test]
    fn every_size_is_met_and_fit_to_be_sent() {
        let mut random = SmallRng::seed_from_u64(1);
        for octets in (MESSAGE_OCTETS_MIN..700).chain([65_536, 1 << 20]) {
            let generated = Generated::new(Sizes::Fixed(octets), 1);
            let mut head = Vec::new();
            let message = generated.message(7, &mut random, &mut head);
            assert_eq!(message.octets(), octets as u64);
            let whole = message.parts.concat();
            let mut scanner = Scanner::new();
            scanner.read(&whole);
            assert_eq!(scanner.facts(), message.facts, "{octets}");
            assert!(whole.ends_with(b"\r\n"));
            let lines = whole.split(|octet| *octet == b'\n');
            assert!(
                lines.clone().all(|line| line.len() <= LINE_OCTETS_MAX + 1),
                "{octets}"
            );
            assert!(
                lines.clone().all(|line| !line.starts_with(b".")),
                "{octets}"
            );
            assert!(
                whole.windows(4).any(|end| end == b"\r\n\r\n"),
                "a header and a body"
            );
        }
    }

    #[test]
    fn message_ids_differ() {
        let generated = Generated::new(Sizes::Fixed(512), 3);
        let mut random = SmallRng::seed_from_u64(1);
        let mut heads = std::collections::HashSet::new();
        for number in 0..1000 {
            let mut head = Vec::new();
            generated.message(number, &mut random, &mut head);
            assert!(heads.insert(head));
        }
    }
}
