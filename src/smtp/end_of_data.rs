//! Recognises the end of mail data and undoes dot stuffing (RFC 5321 §4.1.1.4, §4.5.2).
//!
//! Apart from the session because a mistake here lets a peer smuggle in a second transaction.
//! Invariants:
//! - Only CR LF "." CR LF ends the data; its first CR LF still belongs to the message. In front of
//!   the first octet stands the CR LF of the DATA command, so "." CR LF at once is an empty message.
//! - The outcome is the same however the octets were cut into reads.
//! - A refused message is read to its end, so the dialogue keeps step.
//! - A dot is removed only behind a true CR LF. What is handed on is message content: a line of it
//!   may well be a single dot, which whoever sends it on stuffs again.
//!
//! A CR without LF or a LF without CR is *stray*. It ends no line in the sense of the protocol,
//! so nothing behind it is a first column: no dot there is removed, none ends the data.
//!
//! ```text
//! octets            Normalize hands on    Accept hands on
//! a LF . CR LF b    a CRLF . CRLF b       a LF . CRLF b      dot kept: the peer did not stuff it
//! a LF . LF b       a CRLF . CRLF b       a LF . LF b
//! a CRLF . LF b     a CRLF CRLF b         a CRLF LF b        dot in column one: removed
//! a CRLF . CR CRLF  a CRLF CRLF CRLF      a CRLF CR CRLF     dot in column one: removed
//! a CR CRLF . CRLF  a CRLF CRLF, the end  a CR CRLF, the end a true CR LF is in there
//! ```
//!
//! Normalize is the default because a laxer next hop that takes a stray LF for a line end would
//! find the end of data in `LF . LF`. After it the same octets are plain lines, which the next hop
//! gets stuffed.

use super::hops::Hops;

/// What becomes of a stray newline. None of them ends the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrayNewline {
    /// It becomes CR LF.
    #[default]
    Normalize,
    /// It is kept.
    Accept,
    /// It is kept, and marks the message as refused.
    Reject,
}

/// Whether the end was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not yet; all input is consumed.
    More,
    /// Yes; what input is left follows the mail data.
    Ended,
}

/// The recogniser: reads what follows 354, hands on what belongs to the message.
#[derive(Clone, Debug)]
pub struct EndOfData {
    stray_newline: StrayNewline,
    place: Place,
    octets: u64,
    stray_newline_seen: bool,
    hops: Hops,
}

/// What the last octets were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// CR LF, handed on; or nothing yet.
    LineStart,
    /// CR LF "." with the dot withheld.
    Dot,
    /// CR LF "." CR with dot and CR withheld.
    DotCr,
    /// CR, handed on.
    Cr,
    /// Anything else, handed on.
    Text,
    /// The end.
    Ended,
}

const CR: u8 = b'\r';
const LF: u8 = b'\n';

impl EndOfData {
    /// Nothing read yet.
    pub fn new(stray_newline: StrayNewline) -> EndOfData {
        EndOfData {
            stray_newline,
            place: Place::LineStart,
            octets: 0,
            stray_newline_seen: false,
            hops: Hops::new(),
        }
    }

    /// Reads on: consumes from `input` and gives `sink` the octets of the message, in runs as long
    /// as the input allows. Consumes nothing behind the end.
    pub fn receive(&mut self, input: &mut &[u8], mut sink: impl FnMut(&[u8])) -> Progress {
        let octets: &[u8] = input;
        // octets:  …handed on or removed… | run, kept | not looked at |
        //                                 ^ run       ^ at
        let mut run = 0;
        let mut at = 0;
        let progress = loop {
            let Some(&octet) = octets.get(at) else {
                break Progress::More;
            };
            match self.place {
                Place::Text => {
                    let ahead = octets.get(at..).unwrap_or_default();
                    at += memchr::memchr2(CR, LF, ahead).unwrap_or(ahead.len());
                    match octets.get(at..) {
                        // The next line does not begin with a dot, so it is text as well.
                        Some([CR, LF, b'.', ..]) => {
                            at += 2;
                            self.place = Place::LineStart;
                        }
                        Some([CR, LF, _, ..]) => at += 2,
                        Some([CR, ..]) => {
                            at += 1;
                            self.place = Place::Cr;
                        }
                        Some([LF, ..]) => {
                            self.stray_newline_seen = true;
                            if self.stray_newline == StrayNewline::Normalize {
                                self.keep(octets.get(run..at), &mut sink);
                                self.keep(Some(b"\r"), &mut sink);
                                run = at;
                            }
                            at += 1;
                        }
                        _ => {}
                    }
                }
                Place::LineStart if octet == b'.' => {
                    self.keep(octets.get(run..at), &mut sink);
                    at += 1;
                    run = at;
                    self.place = Place::Dot;
                }
                Place::LineStart => self.place = Place::Text,
                Place::Dot if octet == CR => {
                    at += 1;
                    run = at;
                    self.place = Place::DotCr;
                }
                Place::Dot => self.place = Place::Text,
                Place::DotCr if octet == LF => {
                    at += 1;
                    run = at;
                    self.place = Place::Ended;
                }
                Place::DotCr => {
                    self.keep(Some(b"\r"), &mut sink);
                    self.stray_cr(&mut sink);
                }
                Place::Cr if octet == LF => {
                    at += 1;
                    self.place = Place::LineStart;
                }
                Place::Cr => {
                    self.keep(octets.get(run..at), &mut sink);
                    run = at;
                    self.stray_cr(&mut sink);
                }
                Place::Ended => break Progress::Ended,
            }
        };
        self.keep(octets.get(run..at), &mut sink);
        *input = octets.get(at..).unwrap_or_default();
        if self.place == Place::Ended {
            Progress::Ended
        } else {
            progress
        }
    }

    /// Octets of the message so far, after unstuffing and normalising.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// `Received:` fields in the message's header so far.
    pub fn hops(&self) -> u32 {
        self.hops.count()
    }

    /// Whether a stray newline came, in any mode.
    pub fn stray_newline_seen(&self) -> bool {
        self.stray_newline_seen
    }

    /// Whether the message is refused for a stray newline.
    pub fn is_refused(&self) -> bool {
        self.stray_newline_seen && self.stray_newline == StrayNewline::Reject
    }

    /// The CR handed on last was stray; the octet behind it is still to be looked at.
    fn stray_cr(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.stray_newline_seen = true;
        if self.stray_newline == StrayNewline::Normalize {
            self.keep(Some(b"\n"), sink);
        }
        self.place = Place::Text;
    }

    fn keep(&mut self, run: Option<&[u8]>, sink: &mut impl FnMut(&[u8])) {
        let Some(run) = run.filter(|run| !run.is_empty()) else {
            return;
        };
        self.octets += run.len() as u64;
        self.hops.read(run);
        sink(run);
    }
}
