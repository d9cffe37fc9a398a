//! The second part of a report: what became of whom, as fields for programs (RFC 3464 §2, RFC 6533 §3, §4).
//!
//! Invariants:
//! - A value holds no control character, and under [`Charset::Ascii`] nothing beyond ASCII: each becomes `?`.
//! - A value is folded where it has a blank, so that it reads the same unfolded; a word longer than a line may be is
//!   cut by one.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use mail_builder::headers::Header as _;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;

use super::{Action, Diagnostic, Report, Reported};
use crate::smtp::envelope::Recipient;

/// What fields may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// message/delivery-status
    Ascii,
    /// message/global-delivery-status
    Utf8,
}

/// ```text
/// delivery-status-content = per-message-fields 1*( CRLF per-recipient-fields )
/// ```
pub(super) fn status(report: &Report<'_>, charset: Charset) -> Vec<u8> {
    let mut fields = Fields {
        octets: Vec::with_capacity(256 + 512 * report.recipients.len()),
        charset,
    };
    let accepted = report.accepted;
    if let Some(envid) = &accepted.envelope.dsn.envid {
        fields.push("Original-Envelope-Id", &xtext(envid));
    }
    fields.push("Reporting-MTA", &format!("dns; {}", report.hostname));
    let arrived = i64::try_from(accepted.arrived_unix_ms / 1000).unwrap_or(i64::MAX);
    fields.push_date("Arrival-Date", arrived);
    for reported in &report.recipients {
        fields.octets.extend_from_slice(b"\r\n");
        fields.push_recipient(reported);
    }
    fields.octets
}

struct Fields {
    octets: Vec<u8>,
    charset: Charset,
}

impl Fields {
    fn push_recipient(&mut self, reported: &Reported<'_>) {
        let recipient = reported.recipient;
        let original = recipient.dsn.orcpt.as_deref();
        if let Some(original) = original.and_then(|orcpt| original_recipient(orcpt, self.charset)) {
            self.push("Original-Recipient", &original);
        }
        self.push("Final-Recipient", &final_recipient(recipient));
        self.push("Action", reported.action.label());
        self.push("Status", &reported.status.to_string());
        if let Some(name) = reported.remote_mta.and_then(mta_name) {
            self.push("Remote-MTA", &format!("dns; {name}"));
        }
        match reported.diagnostic {
            None => {}
            Some(Diagnostic::Smtp(reply)) => {
                self.push("Diagnostic-Code", &format!("smtp; {reply}"));
            }
            Some(Diagnostic::Ours(text)) => {
                self.push("Diagnostic-Code", &format!("x-ringpost; {text}"));
            }
        }
        if let Some(seconds) = reported.last_attempt_unix_seconds {
            self.push_date("Last-Attempt-Date", seconds);
        }
        match (reported.action, reported.retry_until_unix_seconds) {
            (Action::Delayed, Some(seconds)) => self.push_date("Will-Retry-Until", seconds),
            (Action::Delayed, None)
            | (Action::Failed | Action::Delivered | Action::Relayed, Some(_) | None) => {}
        }
    }

    /// The one way into a field for what a peer said.
    fn push(&mut self, name: &str, value: &str) {
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.extend_from_slice(b": ");
        let value = plain(value, self.charset);
        let value = cut_words(&value);
        Raw::new(value.trim()).write_header(&mut self.octets, name.len() + 2);
    }

    fn push_date(&mut self, name: &str, unix_seconds: i64) {
        self.push(name, &Date::new(unix_seconds).to_rfc822());
    }
}

impl Action {
    const fn label(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        }
    }
}

/// `text` in one line: blanks for white space, `?` for every other control and line separator, and for what `charset`
/// does not have.
pub(super) fn plain(text: &str, charset: Charset) -> String {
    let plain = |character: char| match character {
        '\t' | '\r' | '\n' => ' ',
        ' '..='~' => character,
        '\u{2028}' | '\u{2029}' => '?',
        character if character.is_control() || charset == Charset::Ascii => '?',
        character => character,
    };
    text.chars().map(plain).collect()
}

/// `text` with a blank in each word that would not fit into a line.
fn cut_words(text: &str) -> Cow<'_, str> {
    if text.len() <= WORD_OCTETS_MAX {
        return Cow::Borrowed(text);
    }
    let mut cut = String::with_capacity(text.len() + text.len() / WORD_OCTETS_MAX + 1);
    let mut word_octets = 0;
    for character in text.chars() {
        if character == ' ' {
            word_octets = 0;
        } else if word_octets + character.len_utf8() > WORD_OCTETS_MAX {
            cut.push(' ');
            word_octets = character.len_utf8();
        } else {
            word_octets += character.len_utf8();
        }
        cut.push(character);
    }
    Cow::Owned(cut)
}

/// ORCPT as a field has it.
///
/// ```text
/// original-recipient-address = addr-type ";" xtext    ; RFC 3461 §4.2
/// ```
fn original_recipient(orcpt: &str, charset: Charset) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let holds = !kind.is_empty()
        && kind
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    if !holds {
        return None;
    }
    let address = xtext(address);
    let address = match (kind.eq_ignore_ascii_case("utf-8"), charset) {
        (false, _) => address,
        (true, Charset::Utf8) => unembedded(&address),
        (true, Charset::Ascii) => embedded(&address),
    };
    Some(format!("{kind};{address}"))
}

/// The recipient as we had it. One whose domain alone is beyond ASCII has a name in ASCII, which everybody
/// understands.
fn final_recipient(recipient: &Recipient) -> String {
    let Recipient {
        as_given, domain, ..
    } = recipient;
    match as_given.rsplit_once('@') {
        // The bare postmaster.
        None => format!("rfc822; {as_given}@{domain}"),
        Some((local_part, _)) if !local_part.is_ascii() => format!("utf-8; {as_given}"),
        Some((local_part, given)) if !given.is_ascii() => format!("rfc822; {local_part}@{domain}"),
        Some(_) => format!("rfc822; {as_given}"),
    }
}

/// A next hop as a name of type "dns" (RFC 3464 §2.3.5): its domain, or its address as a literal, without a port.
/// `None` for what is neither, as the path of a UNIX socket, which is nobody else's business.
fn mta_name(hop: &str) -> Option<String> {
    let host = match hop.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty()
                && port.bytes().all(|octet| octet.is_ascii_digit())
                && (host.ends_with(']') || !host.contains(':')) =>
        {
            host
        }
        Some(_) | None => hop,
    };
    // Of a name with its address the name.
    let host = match host.split_once('[') {
        Some((name, _)) if !name.is_empty() => name,
        Some(_) | None => host,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse() {
        Ok(IpAddr::V4(address)) => return Some(format!("[{address}]")),
        Ok(IpAddr::V6(address)) => return Some(format!("[IPv6:{address}]")),
        Err(_) => {}
    }
    let is_name = !host.is_empty()
        && host.bytes().all(
            |octet| matches!(octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_'),
        );
    is_name.then(|| host.to_owned())
}

/// `text` out of xtext (RFC 3461 §4); what is none stays.
fn xtext(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hexchar = match (first, tail) {
            (b'+', [high, low, behind @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high * 16 + low, behind)),
            _ => None,
        };
        match hexchar {
            Some((octet, behind)) => {
                octets.push(octet);
                rest = behind;
            }
            None => octets.push(*first),
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// An address out of utf-8-addr-xtext or utf-8-addr-unitext, which only ORCPT needs (RFC 6533 §3); what is neither
/// stays.
///
/// ```text
/// EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"       ; "\x{FC}"
/// ```
fn unembedded(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\\x{") {
        plain.push_str(before);
        let found = behind.split_once('}').and_then(|(digits, tail)| {
            let holds = matches!(digits.len(), 2..=6)
                && digits
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
            let point = u32::from_str_radix(digits, 16).ok().filter(|_| holds)?;
            Some((char::from_u32(point)?, tail))
        });
        match found {
            Some((character, tail)) => {
                plain.push(character);
                rest = tail;
            }
            None => {
                plain.push_str("\\x{");
                rest = behind;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// An address of ORCPT in utf-8-addr-xtext, the only form that fields in ASCII may have (RFC 6533 §3).
fn embedded(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            // Writing to a `String` cannot fail.
            _ = write!(ascii, "\\x{{{:X}}}", u32::from(character));
        }
    }
    ascii
}

/// A word stays whole below this: with the blank before it and the name of its field it fits into the 998 octets of a
/// line (RFC 5322 §2.1.1).
const WORD_OCTETS_MAX: usize = 900;
