//! The trace fields put in front of an accepted message (RFC 5321 §4.4).
//!
//! Apart from delivery because what the peer said goes into a header here.
//! Invariants:
//! - Each call makes exactly one field, its line ends included, each line within 998 octets (RFC
//!   5322 §2.1.1).
//! - Nothing the peer said can end a line, open a comment, or pass for a clause: what its name may
//!   hold is a list of octets, anything else becomes `?`.
//! - Who authenticated is not told, only that somebody did.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

use super::message::Message;

/// The Received field of `message`. It is the message's, whoever gets a copy.
///
/// ```text
/// Received: from greeted-as ([address])
///         by hostname with ESMTPS (TLSv1.3 cipher NAME bits 256) (authenticated) id queue-id
///         for <recipient>; Tue, 24 Nov 2026 08:00:00 +0000
/// ```
///
/// `for` only if there is no other recipient, whom it would give away (RFC 5321 §7.2), and in ASCII: a next hop
/// without SMTPUTF8 may know the address by its A-labels, and would not take such a header.
pub fn received_field(
    message: &Message,
    hostname: &str,
    queue_id: &str,
    now_unix_seconds: i64,
) -> Vec<u8> {
    let origin = &message.origin;
    let mut field = String::with_capacity(512);
    // Writing to a `String` cannot fail.
    field.push_str("Received: from ");
    push_name(&mut field, &origin.greeted_as);
    match origin.peer.ip().to_canonical() {
        IpAddr::V4(address) => _ = write!(field, " ([{address}])"),
        IpAddr::V6(address) => _ = write!(field, " ([IPv6:{address}])"),
    }
    for piece in ["\r\n\tby ", hostname, " with ", origin.protocol.label()] {
        field.push_str(piece);
    }
    if let Some(security) = &origin.security {
        _ = write!(field, " ({} cipher ", security.version);
        push_name(&mut field, &security.cipher);
        _ = write!(field, " bits {})", security.bits);
    }
    if origin.authenticated.is_some() {
        field.push_str(" (authenticated)");
    }
    field.push_str(" id ");
    field.push_str(queue_id);
    if let [recipient] = &*message.envelope.recipients
        && recipient.as_given.is_ascii()
    {
        field.push_str("\r\n\tfor <");
        push_path(&mut field, &recipient.as_given);
        field.push_str(">; ");
    } else {
        field.push_str(";\r\n\t");
    }
    push_date(&mut field, now_unix_seconds);
    field.push_str("\r\n");
    field.into_bytes()
}

/// The Return-Path field, which a final delivery puts on top (RFC 5321 §4.4); `None` is the null
/// reverse-path.
///
/// ```text
/// Return-Path: <reverse-path>
/// ```
pub fn return_path_field(reverse_path: Option<&str>) -> Vec<u8> {
    let mut field = String::with_capacity(64);
    field.push_str("Return-Path: <");
    push_path(&mut field, reverse_path.unwrap_or_default());
    field.push_str(">\r\n");
    field.into_bytes()
}

/// A peer's name for itself: the octets of domains and address literals, and the underscore of
/// many a machine's name.
fn push_name(field: &mut String, name: &str) {
    if name.is_empty() {
        field.push('?');
    }
    field.extend(name.chars().map(|character| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '[' | ']' => character,
        _ => '?',
    }));
}

/// A mailbox. The grammar let no control character into it; a second look costs little.
fn push_path(field: &mut String, mailbox: &str) {
    field.extend(
        mailbox
            .chars()
            .map(|c| if c.is_control() { '?' } else { c }),
    );
}

/// RFC 5322 §3.3, in UTC. A time jiff cannot hold (year beyond 9999) becomes the epoch.
fn push_date(field: &mut String, unix_seconds: i64) {
    let timestamp = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = timestamp.to_zoned(TimeZone::UTC);
    // A year before 0 is refused before anything is written.
    if DateTimePrinter::new()
        .print_zoned(&date, &mut *field)
        .is_err()
    {
        field.push_str("Thu, 1 Jan 1970 00:00:00 +0000");
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{Budget, MailData};
    use super::super::dsn::{MailDsn, RcptDsn};
    use super::super::envelope::{Body, Envelope, Recipient};
    use super::super::message::{Origin, Protocol, Security};
    use super::*;

    fn recipient(as_given: &str) -> Recipient {
        Recipient {
            as_given: as_given.into(),
            local_part: "x".into(),
            domain: "y".into(),
            dsn: RcptDsn::default(),
        }
    }

    fn message(reverse_path: Option<&str>, recipients: &[&str], origin: Origin) -> Message {
        Message {
            envelope: Envelope {
                reverse_path: reverse_path.map(Box::from),
                recipients: recipients
                    .iter()
                    .map(|as_given| recipient(as_given))
                    .collect(),
                body: Body::SevenBit,
                smtputf8: false,
                declared_octets: None,
                dsn: MailDsn::default(),
            }
            .into(),
            stored_octets: 0,
            data: MailData::new(&Budget::new(0), None),
            origin,
        }
    }

    fn origin(peer: &str, greeted_as: &str, protocol: Protocol) -> Origin {
        Origin {
            peer: peer.parse().unwrap(),
            greeted_as: greeted_as.into(),
            protocol,
            security: None,
            authenticated: None,
        }
    }

    /// 2026-11-24 08:00:00 UTC.
    const NOW: i64 = 1_795_507_200;

    fn shown(message: &Message) -> String {
        let mut fields = return_path_field(message.envelope.reverse_path.as_deref());
        fields.extend(received_field(message, "mx.test", "Q1", NOW));
        String::from_utf8(fields).unwrap()
    }

    #[test]
    fn headers_in_full() {
        let security = Security {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            bits: 256,
            resumed: true,
            client_subject: Some("CN=client".into()),
        };
        let v4 = "192.0.2.7:4000";
        let rows: &[(&str, Message, &str)] = &[
            (
                "one recipient, in clear",
                message(
                    Some("a@b"),
                    &["c@d"],
                    origin(v4, "h.example", Protocol::Esmtp),
                ),
                "Return-Path: <a@b>\r\n\
                 Received: from h.example ([192.0.2.7])\r\n\
                 \tby mx.test with ESMTP id Q1\r\n\
                 \tfor <c@d>; Tue, 24 Nov 2026 08:00:00 +0000\r\n",
            ),
            (
                "a bounce to two recipients, by HELO over IPv6",
                message(
                    None,
                    &["c@d", "e@f"],
                    origin("[2001:db8::1]:9", "x", Protocol::Smtp),
                ),
                "Return-Path: <>\r\n\
                 Received: from x ([IPv6:2001:db8::1])\r\n\
                 \tby mx.test with SMTP id Q1;\r\n\
                 \tTue, 24 Nov 2026 08:00:00 +0000\r\n",
            ),
            (
                "TLS and AUTH, from an IPv4 address on an IPv6 socket",
                message(
                    Some("\"a b\"@c"),
                    &["postmaster"],
                    Origin {
                        security: Some(security.into()),
                        authenticated: Some("ann".into()),
                        ..origin("[::ffff:192.0.2.7]:9", "[192.0.2.7]", Protocol::Esmtpsa)
                    },
                ),
                "Return-Path: <\"a b\"@c>\r\n\
                 Received: from [192.0.2.7] ([192.0.2.7])\r\n\
                 \tby mx.test with ESMTPSA (TLSv1.3 cipher TLS_AES_256_GCM_SHA384 bits 256) \
                 (authenticated) id Q1\r\n\
                 \tfor <postmaster>; Tue, 24 Nov 2026 08:00:00 +0000\r\n",
            ),
            (
                "UTF-8 addresses",
                message(
                    Some("ü@b"),
                    &["ö@ä.de"],
                    origin(v4, "h", Protocol::Utf8Smtp),
                ),
                "Return-Path: <ü@b>\r\n\
                 Received: from h ([192.0.2.7])\r\n\
                 \tby mx.test with UTF8SMTP id Q1;\r\n\
                 \tTue, 24 Nov 2026 08:00:00 +0000\r\n",
            ),
        ];
        for (name, message, expected) in rows {
            assert_eq!(shown(message), *expected, "{name}");
        }
    }

    #[test]
    fn no_name_can_leave_its_place() {
        let rows: &[(&str, &str, &str)] = &[
            ("a line break", "a\r\nX: y", "from a??X:?y ("),
            ("a comment", "a(b", "from a?b ("),
            ("a clause of its own", "a;by=evil", "from a?by?evil ("),
            ("beyond ASCII", "bü", "from b? ("),
            ("nothing", "", "from ? ("),
        ];
        for (name, greeted_as, expected) in rows {
            let origin = origin("192.0.2.7:1", greeted_as, Protocol::Esmtp);
            let shown = shown(&message(Some("a\r\nb\u{85}@c"), &["d\n@e"], origin));
            assert!(shown.contains(expected), "{name}: {shown}");
            assert_eq!(shown.matches('\n').count(), 4, "{name}: {shown}");
            assert_eq!(shown.matches("\r\n").count(), 4, "{name}: {shown}");
        }
    }

    #[test]
    fn the_longest_names_stay_within_a_line() {
        let name = "n".repeat(255);
        let mailbox = "m".repeat(254);
        let origin = origin("[2001:db8::1]:9", &name, Protocol::Utf8Smtpsa);
        let shown = shown(&message(Some(&mailbox), &[&mailbox], origin));
        assert!(shown.split("\r\n").all(|line| line.len() <= 998));
    }

    #[test]
    fn dates_are_rfc_5322_in_utc() {
        let rows: &[(i64, &str)] = &[
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (NOW, "Tue, 24 Nov 2026 08:00:00 +0000"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 +0000"),
            (i64::MAX, "Thu, 1 Jan 1970 00:00:00 +0000"),
        ];
        for (seconds, expected) in rows {
            let mut date = String::new();
            push_date(&mut date, *seconds);
            assert_eq!(date, *expected);
        }
    }
}
