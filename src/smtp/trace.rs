//! The trace header put in front of an accepted message (RFC 5321 §4.4).
//!
//! Apart from delivery because what the peer said goes into a header here.
//! Invariants:
//! - Exactly one Return-Path and one Received field, each line within 998 octets (RFC 5322 §2.1.1).
//! - Nothing the peer said can end a line, open a comment, or pass for a clause: what its name may
//!   hold is a list of octets, anything else becomes `?`.
//! - Who authenticated is not told, only that somebody did.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

use super::envelope::Recipient;
use super::message::Message;

/// The header block for one recipient's copy of `message`.
///
/// ```text
/// Return-Path: <reverse-path>
/// Received: from greeted-as ([address])
///         by hostname with ESMTPS (TLSv1.3 cipher NAME bits 256) (authenticated) id queue-id
///         for <recipient>; Tue, 24 Nov 2026 08:00:00 +0000
/// ```
///
/// `for` only if there is no other recipient, whom it would give away (RFC 5321 §7.2).
pub fn trace_header(
    message: &Message,
    hostname: &str,
    queue_id: &str,
    now_unix_seconds: i64,
    recipient: &Recipient,
) -> Vec<u8> {
    let origin = &message.origin;
    let mut header = String::with_capacity(512);
    // Writing to a `String` cannot fail.
    header.push_str("Return-Path: <");
    push_path(
        &mut header,
        message.envelope.reverse_path.as_deref().unwrap_or_default(),
    );
    header.push_str(">\r\nReceived: from ");
    push_name(&mut header, &origin.greeted_as);
    match origin.peer.ip().to_canonical() {
        IpAddr::V4(address) => _ = write!(header, " ([{address}])"),
        IpAddr::V6(address) => _ = write!(header, " ([IPv6:{address}])"),
    }
    _ = write!(
        header,
        "\r\n\tby {hostname} with {}",
        origin.protocol.label()
    );
    if let Some(security) = &origin.security {
        _ = write!(header, " ({} cipher ", security.version);
        push_name(&mut header, &security.cipher);
        _ = write!(header, " bits {})", security.bits);
    }
    if origin.authenticated.is_some() {
        header.push_str(" (authenticated)");
    }
    _ = write!(header, " id {queue_id}");
    if message.envelope.recipients.len() == 1 {
        header.push_str("\r\n\tfor <");
        push_path(&mut header, &recipient.as_given);
        header.push_str(">; ");
    } else {
        header.push_str(";\r\n\t");
    }
    push_date(&mut header, now_unix_seconds);
    header.push_str("\r\n");
    header.into_bytes()
}

/// A peer's name for itself: the octets of domains and address literals, and the underscore of
/// many a machine's name.
fn push_name(header: &mut String, name: &str) {
    if name.is_empty() {
        header.push('?');
    }
    header.extend(name.chars().map(|character| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '[' | ']' => character,
        _ => '?',
    }));
}

/// A mailbox. The grammar let no control character into it; a second look costs little.
fn push_path(header: &mut String, mailbox: &str) {
    header.extend(
        mailbox
            .chars()
            .map(|c| if c.is_control() { '?' } else { c }),
    );
}

/// RFC 5322 §3.3, in UTC. A time jiff cannot hold (year beyond 9999) becomes the epoch.
fn push_date(header: &mut String, unix_seconds: i64) {
    let timestamp = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = DateTimePrinter::new().zoned_to_string(&timestamp.to_zoned(TimeZone::UTC));
    header.push_str(date.as_deref().unwrap_or("Thu, 1 Jan 1970 00:00:00 +0000"));
}
