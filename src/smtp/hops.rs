//! Counts the `Received:` fields of a message's header, for loop detection (RFC 5321 §6.3).
//!
//! Apart from the end of data because a message by BDAT is counted too.
//! Invariants:
//! - Only header fields count, not lines of the body or folded lines of another field.
//! - The count is the same however the octets were cut.
//!
//! A line ends at its LF here, with or without a CR: this reads to find loops made by honest hosts,
//! and decides nothing about where a message ends.

/// The count so far, and where in the header the message stands.
#[derive(Clone, Debug)]
pub struct Hops {
    count: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of a header line, after this many octets of the field name.
    Name(usize),
    /// At the start of a header line, after a CR.
    EmptyLineCr,
    /// Inside a line that is counted or of no interest.
    Line,
    /// The header is over.
    Body,
}

const FIELD: &[u8] = b"received:";

impl Hops {
    /// Nothing read yet.
    pub fn new() -> Hops {
        Hops {
            count: 0,
            place: Place::Name(0),
        }
    }

    /// How many `Received:` fields the header has so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Reads on.
    pub fn read(&mut self, mut octets: &[u8]) {
        while self.place != Place::Body {
            let Some((&first, rest)) = octets.split_first() else {
                return;
            };
            octets = match self.place {
                Place::Line => match memchr::memchr(b'\n', octets) {
                    Some(at) => {
                        self.place = Place::Name(0);
                        octets.get(at + 1..).unwrap_or_default()
                    }
                    None => return,
                },
                Place::Name(matched) => {
                    self.place = match first {
                        b'\n' if matched == 0 => Place::Body,
                        b'\r' if matched == 0 => Place::EmptyLineCr,
                        b'\n' => Place::Name(0),
                        _ if FIELD.get(matched) != Some(&first.to_ascii_lowercase()) => Place::Line,
                        _ if matched + 1 == FIELD.len() => {
                            self.count = self.count.saturating_add(1);
                            Place::Line
                        }
                        _ => Place::Name(matched + 1),
                    };
                    rest
                }
                Place::EmptyLineCr => {
                    self.place = if first == b'\n' {
                        Place::Body
                    } else {
                        Place::Line
                    };
                    rest
                }
                Place::Body => return,
            };
        }
    }
}

impl Default for Hops {
    fn default() -> Hops {
        Hops::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_fields_of_the_header_count() {
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, u32)] = &[
            ("empty", "", 0),
            ("one", "Received: x\r\n", 1),
            ("its name alone", "Received:", 1),
            ("not yet its colon", "Received", 0),
            ("any case", "rEcEiVeD:x\r\nRECEIVED:\r\n", 2),
            ("folded", "Received: x\r\n\tReceived: y\r\nSubject: a\r\nReceived: z\r\n", 2),
            ("another field", "X-Received: x\r\nReceived-SPF: pass\r\n", 0),
            ("inside a line", "Subject: Received: x\r\n", 0),
            ("in the body", "Received: x\r\n\r\nReceived: y\r\n", 1),
            ("in a body without a header", "\r\nReceived: y\r\n", 0),
            ("lines by LF", "Received: x\nReceived: y\n\nReceived: z\n", 2),
            ("a name cut by a line end", "Rece\r\nived: x\r\nReceived: y\r\n", 1),
            ("a CR that ends no line", "\rReceived: x\r\nReceived: y\r\n", 1),
        ];
        for (name, header, count) in rows {
            for cut in 0..=header.len() {
                let mut hops = Hops::new();
                hops.read(&header.as_bytes()[..cut]);
                hops.read(&header.as_bytes()[cut..]);
                assert_eq!(hops.count(), *count, "{name}, cut at {cut}");
            }
            let mut hops = Hops::new();
            header
                .as_bytes()
                .chunks(1)
                .for_each(|octet| hops.read(octet));
            assert_eq!(hops.count(), *count, "{name}, octet by octet");
        }
    }
}
