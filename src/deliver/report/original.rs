//! The third part of a report: the message that it is about, or its header section.
//!
//! ```text
//!                       header in ASCII, or not said       UTF-8 in the header of a
//!                       to be UTF-8                        message that came with SMTPUTF8
//!  whole                message/rfc822                     message/global
//!  its header section   text/rfc822-headers                message/global-headers
//! ```
//!
//! Apart from the report because octets of a stranger decide here what we send.
//! Invariants:
//! - A whole message is embedded as it is, and only if each of its lines may be in mail of eight bits (RFC 2045 §2.8):
//!   ended by CR LF, at most 998 octets, no CR or LF elsewhere, no NUL.
//! - A header section that has other lines, or beyond ASCII, is encoded, and decodes to the same octets.

use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::{Kind, Original, Report};
use crate::smtp::dsn::Ret;

/// What goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned<'a> {
    pub(super) scope: Scope,
    /// All of what goes back.
    pub(super) octets: &'a [u8],
    /// The header section, of which `octets` may have the beginning only.
    pub(super) header: &'a [u8],
    /// Whether it is a type of RFC 6533.
    global: bool,
    encoding: Encoding,
}

/// How much goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Whole,
    Header,
}

/// How it is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// As it is.
    SevenBit,
    /// As it is.
    EightBit,
    /// Quoted-printable or base64, whichever is shorter: lines of text with octets beyond ASCII.
    ForText,
    /// Octets that are no lines.
    Base64,
}

impl<'a> Returned<'a> {
    /// What goes back with `report`.
    pub(super) fn of(report: &Report<'a>) -> Returned<'a> {
        let envelope = &report.accepted.envelope;
        let (whole, header) = match report.original {
            Original::Full(octets) => (Some(octets), header_section(octets)),
            Original::Headers(octets) => (None, header_section(octets)),
        };
        // RFC 3461 §4.3: only a failure brings back more than the header, and under RET=HDRS that does not either.
        let whole = whole
            .filter(|_| report.kind == Kind::Failure && envelope.dsn.ret != Some(Ret::Headers));
        // UTF-8 in a header that came without SMTPUTF8 breaks RFC 5322, and its sender cannot be expected to know
        // message/global: it goes back in the form that has always been taken.
        let is_global = |header: &[u8]| {
            envelope.smtputf8 && !header.is_ascii() && std::str::from_utf8(header).is_ok()
        };
        if let Some(octets) = whole
            && let Some(encoding) = as_it_is(octets)
        {
            return Returned {
                scope: Scope::Whole,
                octets,
                header,
                global: is_global(header),
                encoding,
            };
        }
        let octets = cut(header);
        let global = is_global(octets);
        let encoding = match as_it_is(octets) {
            Some(Encoding::EightBit) if !global => Encoding::ForText,
            Some(encoding) => encoding,
            None => Encoding::Base64,
        };
        Returned {
            scope: Scope::Header,
            octets,
            header,
            global,
            encoding,
        }
    }

    /// Whether it takes eight bits.
    pub(super) fn is_8bit(&self) -> bool {
        self.encoding == Encoding::EightBit
    }

    /// The part.
    pub(super) fn part(&self) -> MimePart<'a> {
        let content_type = match (self.scope, self.global) {
            (Scope::Whole, false) => "message/rfc822",
            (Scope::Whole, true) => "message/global",
            (Scope::Header, false) => "text/rfc822-headers",
            (Scope::Header, true) => "message/global-headers",
        };
        let part = MimePart::new(content_type, BodyPart::Binary(self.octets.into()));
        match self.encoding {
            Encoding::SevenBit => part.transfer_encoding("7bit"),
            Encoding::EightBit => part.transfer_encoding("8bit"),
            Encoding::ForText => part,
            // The builder takes a type that it does not look into for one of octets, and text for lines, whose stray
            // newlines it changes.
            Encoding::Base64 => {
                let octets = BodyPart::Binary(self.octets.into());
                MimePart::raw(octets).header("Content-Type", Raw::new(content_type))
            }
        }
    }
}

/// The Message-ID in a header section, if there is one that a header field of ours can hold (RFC 5322 §3.6.4).
pub(super) fn message_id(header: &[u8]) -> Option<&str> {
    let mut lines = lines(header).skip_while(|line| field_body(line).is_none());
    let body = lines.next().and_then(field_body)?.trim_ascii();
    // The field may be folded behind its name, and nowhere else.
    let id = match body.is_empty() {
        true => lines.next()?.trim_ascii(),
        false => body,
    };
    let id = id.strip_prefix(b"<")?.strip_suffix(b">")?;
    let holds = id.len() <= MESSAGE_ID_OCTETS_MAX
        && id.contains(&b'@')
        && id
            .iter()
            .all(|octet| matches!(octet, b'!'..=b'~') && !matches!(octet, b'<' | b'>'));
    std::str::from_utf8(id).ok().filter(|_| holds)
}

/// What is behind `Message-ID:` in a line that begins so.
fn field_body(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"message-id:";
    let (name, body) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then_some(body)
}

/// What stands before the first empty line.
fn header_section(octets: &[u8]) -> &[u8] {
    let lines = lines(octets).take_while(|line| !matches!(*line, b"\r\n" | b"\n"));
    octets.get(..lines.map(<[u8]>::len).sum()).unwrap_or(octets)
}

/// As many whole lines of a header section as go back.
fn cut(header: &[u8]) -> &[u8] {
    let Some(beginning) = header.get(..HEADER_OCTETS_MAX) else {
        return header;
    };
    let end = memchr::memrchr(b'\n', beginning).map_or(beginning.len(), |at| at + 1);
    beginning.get(..end).unwrap_or(beginning)
}

/// Lines with their ends.
fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split_inclusive(|octet| *octet == b'\n')
}

/// In which encoding `octets` may be in mail without being changed, if there is one.
fn as_it_is(octets: &[u8]) -> Option<Encoding> {
    let mut rest = octets;
    while !rest.is_empty() {
        let end = memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
        if end > LINE_OCTETS_MAX {
            return None;
        }
        rest = match rest.get(end..)? {
            [] => &[],
            [b'\r', b'\n', behind @ ..] => behind,
            [..] => return None,
        };
    }
    Some(match octets.is_ascii() {
        true => Encoding::SevenBit,
        false => Encoding::EightBit,
    })
}

/// Of a line, without its end (RFC 5322 §2.1.1).
const LINE_OCTETS_MAX: usize = 998;

/// Of a Message-ID that is referred to: those of common mail programs have a hundred at most.
const MESSAGE_ID_OCTETS_MAX: usize = 512;

/// Of a header section that goes back: a hundred hops with their signatures have less.
const HEADER_OCTETS_MAX: usize = 128 * 1024;
