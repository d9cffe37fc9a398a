//! Reports are built, taken apart by hand, and read once more by `mail-parser`.

use std::sync::Arc;

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use super::*;
use crate::smtp::dsn::{MailDsn, Notify, RcptDsn};
use crate::smtp::envelope::Envelope;

/// 2026-11-24 08:00:00 UTC.
const ARRIVED: i64 = 1_795_507_200;
const NOW: i64 = ARRIVED + 3600;
const HOSTNAME: &str = "mx.test";

const MESSAGE: &[u8] = b"Received: from c.test ([192.0.2.7])\r\n\
    \tby mx.test with ESMTP id Q1; Tue, 24 Nov 2026 08:00:00 +0000\r\n\
    From: <a@c.test>\r\n\
    Message-ID: <m1@c.test>\r\n\
    Subject: lunch\r\n\
    \r\n\
    At noon?\r\n\
    ..\r\n";

fn id(text: &str) -> QueueId {
    text.parse().unwrap()
}

/// By the grammar, near enough.
fn recipient(as_given: &str) -> Recipient {
    let (local_part, domain) = as_given.rsplit_once('@').unwrap_or((as_given, "mx.test"));
    Recipient {
        as_given: as_given.into(),
        local_part: local_part.into(),
        domain: idna::domain_to_ascii(domain)
            .unwrap_or_else(|_| domain.to_lowercase())
            .into(),
        dsn: RcptDsn::default(),
    }
}

fn accepted(recipients: &[Recipient]) -> Accepted {
    Accepted {
        id: id("0000000000001"),
        arrived_unix_ms: u64::try_from(ARRIVED).unwrap() * 1000,
        envelope: Arc::new(Envelope {
            reverse_path: Some("a@c.test".into()),
            recipients: recipients.to_vec(),
            body: Body::SevenBit,
            smtputf8: false,
            declared_octets: None,
            dsn: MailDsn::default(),
        }),
        received: b"Received: x\r\n"[..].into(),
        data_octets: u64::try_from(MESSAGE.len()).unwrap(),
        data_crc: 0,
    }
}

fn envelope(accepted: &mut Accepted) -> &mut Envelope {
    Arc::make_mut(&mut accepted.envelope)
}

fn failed(recipient: &Recipient) -> Reported<'_> {
    Reported {
        recipient,
        action: Action::Failed,
        status: Status::permanent(1, 1),
        remote_mta: Some("mx.y.test"),
        diagnostic: Some(Diagnostic::Smtp("550 5.1.1 No such user")),
        text: "mx.y.test said: 550 5.1.1 No such user",
        last_attempt_unix_seconds: Some(NOW),
        retry_until_unix_seconds: None,
    }
}

fn report<'a>(kind: Kind, accepted: &'a Accepted, recipients: Vec<Reported<'a>>) -> Report<'a> {
    Report {
        kind,
        accepted,
        hostname: HOSTNAME,
        recipients,
        original: Original::Full(MESSAGE),
        id: id("0000000000002"),
        now_unix_seconds: NOW,
    }
}

/// A failure of the one recipient `b@y.test`, of a message with these octets.
fn bounce_of(original: Original<'_>, change: impl FnOnce(&mut Envelope)) -> Taken {
    let mut accepted = accepted(&[recipient("b@y.test")]);
    change(envelope(&mut accepted));
    let accepted = accepted;
    let reported = failed(&accepted.envelope.recipients[0]);
    let mut report = report(Kind::Failure, &accepted, vec![reported]);
    report.original = original;
    Taken::of(&report)
}

/// A report, taken apart by hand.
struct Taken {
    octets: Vec<u8>,
    header: String,
    parts: Vec<Part>,
}

struct Part {
    header: String,
    octets: Vec<u8>,
}

impl Taken {
    /// Builds `report`, and checks what is true of every one.
    fn of(report: &Report<'_>) -> Taken {
        let octets = report.build();
        let ends = octets.split_inclusive(|octet| *octet == b'\n');
        for line in ends {
            let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| {
                panic!("a line without CR LF: {:?}", String::from_utf8_lossy(line))
            });
            assert!(text.len() <= 998, "a line of {} octets", text.len());
            assert!(!text.contains(&b'\r') && !text.contains(&0));
        }
        assert_eq!(octets.is_ascii(), report.body() == Body::SevenBit);
        let end = memmem::find(&octets, b"\r\n\r\n").unwrap();
        let header = String::from_utf8(octets[..end + 2].to_vec()).unwrap();
        assert_eq!(!header.is_ascii(), report.needs_smtputf8());

        let boundary = header.split_once("boundary=\"").unwrap().1;
        let boundary = boundary.split_once('"').unwrap().0;
        let delimiter = format!("\r\n--{boundary}");
        let found: Vec<_> = memmem::find_iter(&octets, &delimiter).collect();
        let parts: Vec<_> = found
            .windows(2)
            .map(|ends| {
                let part = &octets[ends[0] + delimiter.len() + 2..ends[1]];
                let end = memmem::find(part, b"\r\n\r\n").unwrap();
                Part {
                    header: String::from_utf8(part[..end + 2].to_vec()).unwrap(),
                    octets: part[end + 4..].to_vec(),
                }
            })
            .collect();
        let last = *found.last().unwrap() + delimiter.len();
        assert_eq!(&octets[last..], b"--\r\n");
        assert_eq!(parts.len(), 3);

        let parsed = MessageParser::new().parse(&octets).unwrap();
        assert_eq!(parsed.subject(), Some(report.kind.subject()));
        let root = parsed.content_type().unwrap();
        assert_eq!(
            (root.ctype(), root.subtype()),
            ("multipart", Some("report"))
        );
        let second = parsed.parts[2].content_type().unwrap();
        assert_eq!(root.attribute("report-type"), second.subtype());
        Taken {
            octets,
            header,
            parts,
        }
    }

    fn fields(&self) -> String {
        unfolded(&String::from_utf8(self.parts[1].octets.clone()).unwrap())
    }

    /// The first part, read by `mail-parser`.
    fn text(&self) -> String {
        let parsed = MessageParser::new().parse(&self.octets).unwrap();
        parsed.body_text(0).unwrap().into_owned()
    }

    /// The third part, read by `mail-parser`.
    fn returned(&self) -> Vec<u8> {
        let parsed = MessageParser::new().parse(&self.octets).unwrap();
        match &parsed.parts[3].body {
            PartType::Message(message) => message.raw_message().to_vec(),
            PartType::Text(text) | PartType::Html(text) => text.as_bytes().to_vec(),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => octets.to_vec(),
            PartType::Multipart(_) => panic!("a part that is several"),
        }
    }
}

fn unfolded(fields: &str) -> String {
    fields.replace("\r\n ", " ")
}

#[test]
fn a_bounce_in_full() {
    let mut accepted = accepted(&[recipient("b@y.test"), recipient("c@y.test")]);
    envelope(&mut accepted).dsn.envid = Some("QQ+2B7".into());
    envelope(&mut accepted).recipients[1].dsn.orcpt = Some("rfc822;C+2Bx@old.test".into());
    let accepted = accepted;
    let [first, second] = &*accepted.envelope.recipients else {
        panic!()
    };
    let expired = Reported {
        status: Status::permanent(4, 7),
        remote_mta: None,
        diagnostic: Some(Diagnostic::Ours("no next hop answered for 5 days")),
        text: "no next hop answered for 5 days",
        last_attempt_unix_seconds: None,
        ..failed(second)
    };
    let report = report(Kind::Failure, &accepted, vec![failed(first), expired]);
    let expected = "From: \"Mail Delivery System\" <postmaster@mx.test>\r\n\
        To: <a@c.test>\r\n\
        Subject: Your message could not be delivered\r\n\
        Date: Tue, 24 Nov 2026 09:00:00 +0000\r\n\
        Message-ID: <0000000000002@mx.test>\r\n\
        Auto-Submitted: auto-replied\r\n\
        In-Reply-To: <m1@c.test>\r\n\
        References: <m1@c.test>\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=\"delivery-status\";\r\n \
        boundary=\"report-0000000000002-0\"\r\n\
        \r\n\
        --report-0000000000002-0\r\n\
        Content-Type: text/plain; charset=\"utf-8\"\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        This is the mail server mx.test.\r\n\
        \r\n\
        Your message of Tue, 24 Nov 2026 08:00:00 +0000 could not be delivered\r\n\
        to these recipients, and will not be tried again:\r\n\
        \r\n  \
        <b@y.test>\r\n    \
        mx.y.test said: 550 5.1.1 No such user\r\n\
        \r\n  \
        <c@y.test>\r\n    \
        no next hop answered for 5 days\r\n\
        \r\n\
        Please check the addresses, and see whether the reason tells you what to\r\n\
        change before you send the message again. If it does not, ask these\r\n\
        recipients by other means, or send this report to postmaster@mx.test.\r\n\
        Your message is attached.\r\n\
        \r\n\
        --report-0000000000002-0\r\n\
        Content-Type: message/delivery-status\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n\
        Original-Envelope-Id: QQ+7\r\n\
        Reporting-MTA: dns; mx.test\r\n\
        Arrival-Date: Tue, 24 Nov 2026 08:00:00 +0000\r\n\
        \r\n\
        Final-Recipient: rfc822; b@y.test\r\n\
        Action: failed\r\n\
        Status: 5.1.1\r\n\
        Remote-MTA: dns; mx.y.test\r\n\
        Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n\
        Last-Attempt-Date: Tue, 24 Nov 2026 09:00:00 +0000\r\n\
        \r\n\
        Original-Recipient: rfc822;C+x@old.test\r\n\
        Final-Recipient: rfc822; c@y.test\r\n\
        Action: failed\r\n\
        Status: 5.4.7\r\n\
        Diagnostic-Code: x-ringpost; no next hop answered for 5 days\r\n\
        \r\n\
        --report-0000000000002-0\r\n\
        Content-Type: message/rfc822\r\n\
        Content-Transfer-Encoding: 7bit\r\n\
        \r\n";
    let taken = Taken::of(&report);
    let mut whole = expected.as_bytes().to_vec();
    whole.extend_from_slice(MESSAGE);
    whole.extend_from_slice(b"\r\n--report-0000000000002-0--\r\n");
    pretty_assert(&taken.octets, &whole);
    assert_eq!(taken.returned(), MESSAGE);
}

fn pretty_assert(found: &[u8], expected: &[u8]) {
    let (found, expected) = (
        String::from_utf8_lossy(found),
        String::from_utf8_lossy(expected),
    );
    for (at, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {at}");
    }
    assert_eq!(found, expected);
}

#[test]
fn what_each_kind_says() {
    let all = Notify {
        success: true,
        failure: true,
        delay: true,
    };
    let until = Some(ARRIVED + 5 * 86_400);
    // name, kind, action, NOTIFY, in the text, not in the text, in the fields, not in the fields
    type Row<'r> = (
        &'r str,
        Kind,
        Action,
        Option<Notify>,
        [&'r str; 2],
        &'r str,
        [&'r str; 2],
        &'r str,
    );
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("failed", Kind::Failure, Action::Failed, None,
            ["could not be delivered to this recipient,", "Please check the address,"], "tried until",
            ["Action: failed\r\nStatus: 5.1.1", "Diagnostic-Code: smtp; 550"], "Will-Retry-Until"),
        ("delayed", Kind::Delay, Action::Delayed, None,
            ["It will be tried until Sun, 29 Nov 2026 08:00:00 +0000.", "If it cannot be delivered in the end, you will be told."], "Please check",
            ["Action: delayed\r\n", "Will-Retry-Until: Sun, 29 Nov 2026 08:00:00 +0000\r\n"], "Action: failed"),
        ("delayed, and silent if it fails", Kind::Delay, Action::Delayed, Some(Notify { failure: false, ..all }),
            ["has not been delivered to this recipient yet.", "The header of your message is attached."], "you will be told",
            ["Action: delayed\r\n", "Last-Attempt-Date: "], "Action: failed"),
        ("delivered", Kind::Success, Action::Delivered, Some(all),
            ["You asked to be told", "It was delivered."], "passed on",
            ["Action: delivered\r\n", "Final-Recipient: rfc822; b@y.test"], "Will-Retry-Until"),
        ("relayed", Kind::Success, Action::Relayed, Some(all),
            ["It was passed on to mx.y.test, which does not send such reports:", "this is the last one for this recipient."], "It was delivered",
            ["Action: relayed\r\n", "Remote-MTA: dns; mx.y.test"], "Will-Retry-Until"),
    ];
    for (name, kind, action, notify, said, unsaid, fields, absent) in rows {
        let mut recipient = recipient("b@y.test");
        recipient.dsn.notify = *notify;
        let accepted = accepted(&[recipient]);
        let reported = Reported {
            action: *action,
            retry_until_unix_seconds: until,
            ..failed(&accepted.envelope.recipients[0])
        };
        let taken = Taken::of(&report(*kind, &accepted, vec![reported]));
        let text = taken
            .text()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for said in said {
            assert!(text.contains(said), "{name}: {said} in {text}");
        }
        assert!(!text.contains(unsaid), "{name}: {unsaid} in {text}");
        let found = taken.fields();
        for field in fields {
            assert!(found.contains(field), "{name}: {field} in {found}");
        }
        assert!(!found.contains(absent), "{name}: {absent} in {found}");
        // RFC 3461 §4.3: only a failure brings the whole message back.
        let whole = taken.parts[2].header.contains("message/rfc822");
        assert_eq!(whole, *kind == Kind::Failure, "{name}");
        assert!(taken.header.contains("\r\nTo: <a@c.test>\r\n"), "{name}");
    }
}

#[test]
fn reasons_for_people() {
    let smtp = Some(Diagnostic::Smtp("550 no"));
    let hop = Some("mx.y.test");
    // name, action, next hop, diagnostic, text, the reason as it is told
    type Row<'r> = (
        &'r str,
        Action,
        Option<&'r str>,
        Option<Diagnostic<'r>>,
        &'r str,
        &'r str,
    );
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("a text", Action::Failed, hop, smtp, "the mailbox is full", "    the mailbox is full\r\n"),
        ("none", Action::Failed, hop, smtp, "", "    550 no\r\n"),
        ("none but blanks", Action::Delayed, hop, Some(Diagnostic::Ours("no answer")), " \r\n", "    no answer\r\n"),
        ("none at all", Action::Failed, None, None, "", "    No reason is known.\r\n"),
        ("relayed to we do not know whom", Action::Relayed, None, None, "x", "    It was passed on to another server, which does not send such\r\n    reports:"),
        ("several lines", Action::Failed, None, None, "a\r\n\tb\n\n--c", "    a b --c\r\n"),
        ("controls", Action::Failed, None, None, "a\u{1b}[1mb\u{2028}c\u{85}d\0", "    a?[1mb?c?d?\r\n"),
        ("beyond ASCII", Action::Failed, None, None, "kein Briefkasten für Jürgen", "    kein Briefkasten für Jürgen\r\n"),
    ];
    for (name, action, remote_mta, diagnostic, text, expected) in rows {
        let accepted = accepted(&[recipient("b@y.test")]);
        let reported = Reported {
            action: *action,
            remote_mta: *remote_mta,
            diagnostic: *diagnostic,
            text,
            ..failed(&accepted.envelope.recipients[0])
        };
        let text = Taken::of(&report(Kind::Failure, &accepted, vec![reported])).text();
        assert!(
            text.contains(&format!("  <b@y.test>\r\n{expected}")),
            "{name}: {text}"
        );
    }
}

#[test]
fn text_for_people_fits_into_lines_but_for_what_cannot_be_cut() {
    let long = "r".repeat(2000);
    let address = format!("{}@{}.test", "b".repeat(64), "y".repeat(60));
    let accepted = accepted(&[recipient(&address)]);
    let words = format!("{} {long} {}", "word ".repeat(50), "word ".repeat(50));
    let reported = Reported {
        text: &words,
        ..failed(&accepted.envelope.recipients[0])
    };
    let text = Taken::of(&report(Kind::Failure, &accepted, vec![reported])).text();
    assert!(text.contains(&format!("  <{address}>\r\n")), "{text}");
    assert!(text.contains(&format!("    {long}\r\n")), "{text}");
    for line in text.lines() {
        let whole = line.contains(&address) || line.contains(&long);
        assert!(whole || line.chars().count() <= 72, "{line}");
    }
}

#[test]
fn addresses_in_fields() {
    // name, RCPT, ORCPT, another recipient, Original-Recipient, Final-Recipient, global
    type Row<'r> = (
        &'r str,
        &'r str,
        Option<&'r str>,
        Option<&'r str>,
        Option<&'r str>,
        &'r str,
        bool,
    );
    let utf8 = Some("ö@y.test");
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("plain", "B@Y.test", None, None, None, "rfc822; B@Y.test", false),
        ("quoted", "\"b  c\"@y.test", None, None, None, "rfc822; \"b  c\"@y.test", false),
        ("bare postmaster", "postmaster", None, None, None, "rfc822; postmaster@mx.test", false),
        ("a literal", "b@[192.0.2.1]", None, None, None, "rfc822; b@[192.0.2.1]", false),
        ("a U-label", "b@bü.test", None, None, None, "rfc822; b@xn--b-eha.test", false),
        ("UTF-8", "jürgen@bü.test", None, None, None, "utf-8; jürgen@bü.test", true),
        ("ASCII beside UTF-8", "b@y.test", None, utf8, None, "rfc822; b@y.test", true),
        ("xtext", "b@y.test", Some("rfc822;b+2Bc+3Dd@x.test"), None, Some("rfc822;b+c=d@x.test"), "rfc822; b@y.test", false),
        ("half an xtext", "b@y.test", Some("rfc822;b+2@x.test"), None, Some("rfc822;b+2@x.test"), "rfc822; b@y.test", false),
        ("xtext at the end", "b@y.test", Some("rfc822;b+2"), None, Some("rfc822;b+2"), "rfc822; b@y.test", false),
        ("another type", "b@y.test", Some("x400;/C=de/S=b"), None, Some("x400;/C=de/S=b"), "rfc822; b@y.test", false),
        ("a line break in xtext", "b@y.test", Some("rfc822;b+0D+0AAction:+20delivered"), None, Some("rfc822;b  Action: delivered"), "rfc822; b@y.test", false),
        ("octets that are no UTF-8", "b@y.test", Some("rfc822;b+FF@x.test"), None, Some("rfc822;b?@x.test"), "rfc822; b@y.test", false),
        ("xtext beyond ASCII", "b@y.test", Some("rfc822;b+C3+BC@x.test"), None, Some("rfc822;b?@x.test"), "rfc822; b@y.test", false),
        ("no type", "b@y.test", Some("b@x.test"), None, None, "rfc822; b@y.test", false),
        ("an empty type", "b@y.test", Some(";b@x.test"), None, None, "rfc822; b@y.test", false),
        ("a type that is none", "b@y.test", Some("rfc 822;b@x.test"), None, None, "rfc822; b@y.test", false),
        ("unitext in ASCII fields", "b@y.test", Some("utf-8;jürgen@x.test"), None, Some("utf-8;j\\x{FC}rgen@x.test"), "rfc822; b@y.test", false),
        ("embedded, in ASCII fields", "b@y.test", Some("UTF-8;j\\x{FC}rgen@x.test"), None, Some("UTF-8;j\\x{FC}rgen@x.test"), "rfc822; b@y.test", false),
        ("embedded, in UTF-8 fields", "b@y.test", Some("utf-8;j\\x{FC}rgen\\x{5C}\\x{1F600}@x.test"), utf8, Some("utf-8;jürgen\\😀@x.test"), "rfc822; b@y.test", true),
        ("a line break, embedded", "b@y.test", Some("utf-8;a\\x{0D}\\x{0A}b"), utf8, Some("utf-8;a  b"), "rfc822; b@y.test", true),
        ("embedded badly", "b@y.test", Some("utf-8;a\\x{D800}\\x{FC\\x{}\\x{fc}\\x{+2BFC}\\x{110000}"), utf8, Some("utf-8;a\\x{D800}\\x{FC\\x{}\\x{fc}\\x{+FC}\\x{110000}"), "rfc822; b@y.test", true),
    ];
    for (name, as_given, orcpt, other, original, final_recipient, global) in rows {
        let mut recipients = vec![recipient(as_given)];
        recipients[0].dsn.orcpt = orcpt.map(Box::from);
        recipients.extend(other.map(recipient));
        let mut accepted = accepted(&recipients);
        envelope(&mut accepted).smtputf8 = *global;
        let reported = accepted.envelope.recipients.iter().map(failed).collect();
        let taken = Taken::of(&report(Kind::Failure, &accepted, reported));
        let fields = taken.fields();
        let group = fields.split("\r\n\r\n").nth(1).unwrap();
        let found: Vec<_> = group
            .lines()
            .take_while(|l| !l.starts_with("Action"))
            .collect();
        let mut expected = Vec::new();
        expected.extend(original.map(|original| format!("Original-Recipient: {original}")));
        expected.push(format!("Final-Recipient: {final_recipient}"));
        assert_eq!(found, expected, "{name}");
        let (media_type, encoding) = match global {
            false => ("message/delivery-status", "7bit"),
            true => ("message/global-delivery-status", "8bit"),
        };
        assert_eq!(
            taken.parts[1].header,
            format!("Content-Type: {media_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"),
            "{name}"
        );
        // RFC 2045 §6.4: the whole says so too.
        let whole = "\r\nContent-Transfer-Encoding: 8bit\r\n";
        assert_eq!(taken.header.contains(whole), *global, "{name}");
    }
}

#[test]
fn other_fields() {
    #[rustfmt::skip] // a row a line
    let hops: &[(&str, &str, Option<&str>)] = &[
        ("a name", "mx.y.test", Some("mx.y.test")),
        ("a name and a port", "mx.y.test:25", Some("mx.y.test")),
        ("no port", "mx.y.test:", None),
        ("an IPv4 address", "192.0.2.1", Some("[192.0.2.1]")),
        ("an IPv4 address and a port", "192.0.2.1:25", Some("[192.0.2.1]")),
        ("an IPv6 address", "2001:db8::25", Some("[IPv6:2001:db8::25]")),
        ("an IPv6 address and a port", "[2001:db8::1]:25", Some("[IPv6:2001:db8::1]")),
        ("an IPv4 literal", "[192.0.2.1]", Some("[192.0.2.1]")),
        ("a socket's path", "/run/lmtp", None),
        ("a line break", "a\r\nAction: delivered", None),
        ("beyond ASCII", "bü.test", None),
        ("nothing", "", None),
    ];
    for (name, hop, expected) in hops {
        let accepted = accepted(&[recipient("b@y.test")]);
        let reported = Reported {
            remote_mta: Some(hop),
            ..failed(&accepted.envelope.recipients[0])
        };
        let fields = Taken::of(&report(Kind::Failure, &accepted, vec![reported])).fields();
        let found = fields
            .lines()
            .find_map(|line| line.strip_prefix("Remote-MTA: dns; "));
        assert_eq!(found, *expected, "{name}");
    }

    let long = "x".repeat(2000);
    let cut = format!(
        "{} {} {}",
        "x".repeat(900),
        "x".repeat(900),
        "x".repeat(200)
    );
    let boundary = "\r\n--report-0000000000002-0--\r\n";
    #[rustfmt::skip] // a row a line
    let replies: &[(&str, &str, &str)] = &[
        ("a field of its own", "550 no\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; x", "550 no  Action: delivered    Final-Recipient: rfc822; x"),
        ("the end of the header", "550 no\n\nFrom: x", "550 no  From: x"),
        ("a boundary", boundary, "--report-0000000000002-0--"),
        ("controls", "550 a\u{1b}[31m\0\u{7f}b", "550 a?[31m??b"),
        ("beyond ASCII", "550 für\u{2028}", "550 f?r?"),
        ("blanks around", " \t550 no \t", "  550 no"),
        ("only blanks", " \r\n ", ""),
        ("a word as long as several lines", &long, &cut),
    ];
    for (name, reply, expected) in replies {
        let accepted = accepted(&[recipient("b@y.test")]);
        let reported = Reported {
            diagnostic: Some(Diagnostic::Smtp(reply)),
            text: reply,
            ..failed(&accepted.envelope.recipients[0])
        };
        let taken = Taken::of(&report(Kind::Failure, &accepted, vec![reported]));
        let fields = taken.fields();
        assert_eq!(fields.lines().count(), 9, "{name}: {fields}");
        let found = fields
            .lines()
            .find_map(|line| line.strip_prefix("Diagnostic-Code:"));
        assert_eq!(
            found
                .unwrap()
                .trim()
                .split_once(';')
                .unwrap()
                .1
                .trim_start(),
            expected.trim_start(),
            "{name}"
        );
        assert_eq!(taken.returned(), MESSAGE, "{name}");
    }

    let words = "550 ".to_owned() + &"many words and no end ".repeat(60);
    let accepted = accepted(&[recipient("b@y.test")]);
    let reported = Reported {
        diagnostic: Some(Diagnostic::Smtp(&words)),
        ..failed(&accepted.envelope.recipients[0])
    };
    let taken = Taken::of(&report(Kind::Failure, &accepted, vec![reported]));
    let folded = String::from_utf8(taken.parts[1].octets.clone()).unwrap();
    assert!(folded.lines().all(|line| line.len() <= 78), "{folded}");
    assert!(taken.fields().contains(words.trim_end()));
}

#[test]
fn no_envelope_id_leaves_its_field() {
    #[rustfmt::skip] // a row a line
    let rows: &[(&str, Option<&str>, Option<&str>)] = &[
        ("none", None, None),
        ("plain", Some("QQ314159"), Some("QQ314159")),
        ("xtext", Some("a+20b+3D"), Some("a b=")),
        ("a line break", Some("a+0D+0AAction:+20failed"), Some("a  Action: failed")),
        ("beyond ASCII", Some("+E2+80+A8"), Some("?")),
    ];
    for (name, envid, expected) in rows {
        let taken = bounce_of(Original::Full(MESSAGE), |envelope| {
            envelope.dsn.envid = envid.map(Box::from);
        });
        let fields = taken.fields();
        let found = fields.lines().next().unwrap();
        match expected {
            Some(expected) => {
                assert_eq!(found, format!("Original-Envelope-Id: {expected}"), "{name}")
            }
            None => assert_eq!(found, "Reporting-MTA: dns; mx.test", "{name}"),
        }
    }
}

#[test]
fn what_goes_back() {
    let line = |octets: usize| format!("X: y\r\n\r\n{}\r\n", "z".repeat(octets)).into_bytes();
    let (longest, overlong) = (line(998), line(999));
    let many = "X-Many: 78 octets of a header that goes on, and on, and on, and never ends\r\n";
    let many = many.repeat(4000).into_bytes();
    let many_back = &many[..128 * 1024 / 76 * 76];
    let wide = format!("X-Wide: {}", "ü".repeat(70_000)).into_bytes();
    let wide_back = &wide[..128 * 1024];
    let hostile = b"X: y\r\n\r\n--report-0000000000002-0\r\n\r\n--report-0000000000002-1--\r\n";

    const RFC822: &str = "message/rfc822";
    const HEADERS: &str = "text/rfc822-headers";
    const GLOBAL: &str = "message/global";
    const GLOBAL_HEADERS: &str = "message/global-headers";
    let full: fn(&[u8]) -> Original<'_> = |octets| Original::Full(octets);
    let headers: fn(&[u8]) -> Original<'_> = |octets| Original::Headers(octets);
    let (ascii, utf8) = (false, true);
    // name, at hand, the message, RET, SMTPUTF8, media type, encoding, what goes back
    type Row<'r> = (
        &'r str,
        fn(&[u8]) -> Original<'_>,
        &'r [u8],
        Option<Ret>,
        bool,
        &'r str,
        &'r str,
        &'r [u8],
    );
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("plain", full, b"X: y\r\n\r\nz\r\n", None, ascii, RFC822, "7bit", b"X: y\r\n\r\nz\r\n"),
        ("RET=FULL", full, b"X: y\r\n\r\nz\r\n", Some(Ret::Full), ascii, RFC822, "7bit", b"X: y\r\n\r\nz\r\n"),
        ("RET=HDRS", full, b"X: y\r\n\r\nz\r\n", Some(Ret::Headers), ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("the header at hand", headers, b"X: y\r\n", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("the header at hand, and more", headers, b"X: y\r\n\r\nz", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("no line end", full, b"X: y\r\n\r\nz", None, ascii, RFC822, "7bit", b"X: y\r\n\r\nz"),
        ("no body", full, b"X: y\r\n", None, ascii, RFC822, "7bit", b"X: y\r\n"),
        ("no header", full, b"\r\nz\r\n", None, ascii, RFC822, "7bit", b"\r\nz\r\n"),
        ("nothing", full, b"", None, ascii, RFC822, "7bit", b""),
        ("eight bits", full, b"X: y\r\n\r\n\xff\xfc\r\n", None, ascii, RFC822, "8bit", b"X: y\r\n\r\n\xff\xfc\r\n"),
        ("the longest line", full, &longest, None, ascii, RFC822, "7bit", &longest),
        ("a line too long", full, &overlong, None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("a lone CR", full, b"X: y\r\n\r\nz\rz\r\n", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("a CR at the end", full, b"X: y\r\n\r\nz\r", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("a lone LF", full, b"X: y\r\n\r\nz\nz\r\n", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("NUL", full, b"X: y\r\n\r\n\0\r\n", None, ascii, HEADERS, "7bit", b"X: y\r\n"),
        ("a boundary", full, hostile, None, ascii, RFC822, "7bit", hostile),
        ("LF in the header", full, b"X: y\nZ: y\n\nz\n", None, ascii, HEADERS, "base64", b"X: y\nZ: y\n"),
        ("NUL in the header", full, b"X: \0\r\n\r\nz\r\n", None, ascii, HEADERS, "base64", b"X: \0\r\n"),
        ("eight bits in the header", headers, b"X: gr\xfc\xdfe, und noch viel mehr Text in ASCII\r\n", None, ascii, HEADERS, "quoted-printable", b"X: gr\xfc\xdfe, und noch viel mehr Text in ASCII\r\n"),
        ("eight bits in the header, whole", full, b"X: \xfc\r\n\r\nz\r\n", None, ascii, RFC822, "8bit", b"X: \xfc\r\n\r\nz\r\n"),
        ("UTF-8 in the header, unsaid", full, "X: ü\r\n\r\nz\r\n".as_bytes(), None, ascii, RFC822, "8bit", "X: ü\r\n\r\nz\r\n".as_bytes()),
        ("SMTPUTF8", full, "X: ü\r\n\r\nz\r\n".as_bytes(), None, utf8, GLOBAL, "8bit", "X: ü\r\n\r\nz\r\n".as_bytes()),
        ("SMTPUTF8, RET=HDRS", full, "X: ü\r\n\r\nz\r\n".as_bytes(), Some(Ret::Headers), utf8, GLOBAL_HEADERS, "8bit", "X: ü\r\n".as_bytes()),
        ("SMTPUTF8 with LF", full, "X: ü\n\nz\r\n".as_bytes(), None, utf8, GLOBAL_HEADERS, "base64", "X: ü\n".as_bytes()),
        ("SMTPUTF8 for the body alone", full, "X: y\r\n\r\nü\r\n".as_bytes(), None, utf8, RFC822, "8bit", "X: y\r\n\r\nü\r\n".as_bytes()),
        ("SMTPUTF8, and no UTF-8", full, b"X: \xfc\r\n\r\nz\r\n", None, utf8, RFC822, "8bit", b"X: \xfc\r\n\r\nz\r\n"),
        ("a header without end", headers, &many, None, ascii, HEADERS, "7bit", many_back),
        ("a header line without end", headers, &wide, None, utf8, GLOBAL_HEADERS, "base64", wide_back),
    ];
    for (name, at_hand, octets, ret, smtputf8, media_type, encoding, expected) in rows {
        let taken = bounce_of(at_hand(octets), |envelope| {
            envelope.dsn.ret = *ret;
            envelope.smtputf8 = *smtputf8;
        });
        let part = &taken.parts[2];
        assert_eq!(
            part.header,
            format!("Content-Type: {media_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"),
            "{name}"
        );
        if matches!(*encoding, "7bit" | "8bit") {
            assert!(part.octets == *expected, "{name}");
        }
        // mail-parser makes text of text/rfc822-headers, by a character set that nobody named, and wants an empty line
        // behind the header of a message.
        let in_its_way = match *media_type {
            HEADERS => expected.is_ascii(),
            GLOBAL_HEADERS => true,
            _ => memmem::find(expected, b"\r\n\r\n").is_some(),
        };
        if in_its_way {
            assert!(taken.returned() == *expected, "{name}");
        }
        let whole = taken.text().ends_with("Your message is attached.\r\n");
        assert_eq!(whole, matches!(*media_type, RFC822 | GLOBAL), "{name}");
    }
    let quoted = bounce_of(
        Original::Headers(b"X: gr\xfc\xdfe, and much text in ASCII\r\n"),
        |_| {},
    );
    let part = &quoted.parts[2];
    assert_eq!(part.octets, b"X: gr=FC=DFe, and much text in ASCII\r\n");
}

#[test]
fn no_boundary_is_in_a_part() {
    let rows: &[(&str, &[u8], &str)] = &[
        ("free", b"X: y\r\n", "report-0000000000002-0"),
        ("taken", b"report-0000000000002-0", "report-0000000000002-1"),
        (
            "several taken, one as the beginning of another",
            b"report-0000000000002-0 report-0000000000002-10 report-0000000000002-2",
            "report-0000000000002-3",
        ),
    ];
    for (name, octets, expected) in rows {
        let taken = bounce_of(Original::Headers(octets), |_| {});
        let line = format!(" boundary=\"{expected}\"\r\n");
        assert!(taken.header.contains(&line), "{name}: {}", taken.header);
    }
}

#[test]
fn the_message_is_referred_to() {
    let long = format!("Message-ID: <{}@c>\r\n", "m".repeat(600));
    #[rustfmt::skip] // a row a line
    let rows: &[(&str, &[u8], Option<&str>)] = &[
        ("plain", b"A: b\r\nMessage-ID: <m@c>\r\nC: d\r\n\r\n", Some("m@c")),
        ("in any case, no blank", b"MESSAGE-id:<m@c>\r\n\r\n", Some("m@c")),
        ("folded behind its name", b"Message-ID:\r\n <m@c> \r\n\r\n", Some("m@c")),
        ("the first of two", b"Message-ID: <m@c>\r\nMessage-ID: <n@c>\r\n\r\n", Some("m@c")),
        ("none", b"A: b\r\n\r\n", None),
        ("in the body", b"A: b\r\n\r\nMessage-ID: <m@c>\r\n", None),
        ("in another field", b"A: b\r\n Message-ID: <m@c>\r\n\r\n", None),
        ("empty", b"Message-ID:\r\n", None),
        ("no brackets", b"Message-ID: m@c\r\n\r\n", None),
        ("no domain", b"Message-ID: <m>\r\n\r\n", None),
        ("two of them", b"Message-ID: <m@c> <n@c>\r\n\r\n", None),
        ("a blank", b"Message-ID: <m m@c>\r\n\r\n", None),
        ("a lone CR", b"Message-ID: <m@c\rBcc: x>\r\n\r\n", None),
        ("beyond ASCII", "Message-ID: <ü@c>\r\n\r\n".as_bytes(), None),
        ("without end", long.as_bytes(), None),
    ];
    for (name, octets, expected) in rows {
        let taken = bounce_of(Original::Full(octets), |_| {});
        let field = |name: &str| {
            let fields = unfolded(&taken.header);
            let mut lines = fields.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.to_owned()))
        };
        let expected = expected.map(|id| format!("<{id}>"));
        assert_eq!(field("In-Reply-To: "), expected, "{name}");
        assert_eq!(field("References: "), expected, "{name}");
    }
}

#[test]
fn where_a_report_goes_and_what_it_takes() {
    // name, reverse-path, recipient, message, SMTPUTF8, BODY
    type Row<'r> = (&'r str, Option<&'r str>, &'r str, &'r [u8], bool, Body);
    let eight_bit = b"X: y\r\n\r\n\xfc\r\n";
    let global = "X: ü\r\n\r\nz\r\n".as_bytes();
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("ASCII", Some("a@c.test"), "b@y.test", MESSAGE, false, Body::SevenBit),
        ("nobody", None, "b@y.test", MESSAGE, false, Body::SevenBit),
        ("UTF-8 sender", Some("ä@c.test"), "b@y.test", MESSAGE, true, Body::EightBitMime),
        ("UTF-8 domain of the sender", Some("a@cü.test"), "b@y.test", MESSAGE, true, Body::EightBitMime),
        ("UTF-8 recipient", Some("a@c.test"), "ö@y.test", MESSAGE, false, Body::EightBitMime),
        ("UTF-8 domain of the recipient", Some("a@c.test"), "b@yü.test", MESSAGE, false, Body::SevenBit),
        ("UTF-8 header", Some("a@c.test"), "b@y.test", global, false, Body::EightBitMime),
        ("eight bits", Some("a@c.test"), "b@y.test", eight_bit, false, Body::EightBitMime),
    ];
    for (name, path, to, octets, smtputf8, body) in rows {
        let mut accepted = accepted(&[recipient(to)]);
        envelope(&mut accepted).reverse_path = path.map(Box::from);
        envelope(&mut accepted).smtputf8 = true;
        let reported = failed(&accepted.envelope.recipients[0]);
        let mut report = report(Kind::Failure, &accepted, vec![reported]);
        report.original = Original::Full(octets);
        assert_eq!(report.recipient(), *path, "{name}");
        assert_eq!(report.needs_smtputf8(), *smtputf8, "{name}");
        assert_eq!(report.body(), *body, "{name}");
        let taken = Taken::of(&report);
        let to = taken
            .header
            .lines()
            .find_map(|line| line.strip_prefix("To: "));
        assert_eq!(
            to,
            path.map(|path| format!("<{path}>")).as_deref(),
            "{name}"
        );
        assert_eq!(taken.returned(), *octets, "{name}");
    }
}

#[test]
fn a_thousand_recipients() {
    let recipients: Vec<_> = (0..1000)
        .map(|n| recipient(&format!("b{n}@y.test")))
        .collect();
    let accepted = accepted(&recipients);
    let reported = accepted.envelope.recipients.iter().map(failed).collect();
    let taken = Taken::of(&report(Kind::Failure, &accepted, reported));
    let fields = taken.fields();
    let groups: Vec<_> = fields.split("\r\n\r\n").skip(1).collect();
    assert_eq!(groups.len(), 1000);
    let text = taken.text();
    for (n, group) in groups.iter().enumerate() {
        let field = format!("Final-Recipient: rfc822; b{n}@y.test\r\n");
        assert!(group.starts_with(&field), "{group}");
        assert!(text.contains(&format!("\r\n  <b{n}@y.test>\r\n")), "{n}");
    }
    assert_eq!(taken.returned(), MESSAGE);
}

/// Whatever came, a report is mail, and brings back what came or its beginning.
#[test]
fn random_messages_and_replies() {
    let mut random = fastrand::Rng::with_seed(4);
    let pieces: &[&[u8]] = &[
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"--report-0000000000002-0",
        b"--",
        b"Message-ID: <a@b>",
        b": ",
        b" ",
        b"\t",
        b"x",
        b"=",
        b"\xff",
        "ü".as_bytes(),
        "\u{2028}".as_bytes(),
        &[b'y'; 400],
    ];
    for round in 0..2000 {
        let mut some = |count: usize| -> Vec<u8> {
            let count = random.usize(..count);
            (0..count)
                .flat_map(|_| pieces[random.usize(..pieces.len())].to_vec())
                .collect()
        };
        let (message, reply, orcpt) = (some(20), some(10), some(5));
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let orcpt = String::from_utf8_lossy(&orcpt).into_owned();
        let mut recipient = recipient("b@y.test");
        recipient.dsn.orcpt = Some(format!("utf-8;{orcpt}").into());
        let mut accepted = accepted(&[recipient]);
        envelope(&mut accepted).smtputf8 = random.bool();
        envelope(&mut accepted).dsn.envid = Some(orcpt.into());
        let reported = Reported {
            diagnostic: Some(Diagnostic::Smtp(&reply)),
            text: &reply,
            remote_mta: Some(&reply),
            ..failed(&accepted.envelope.recipients[0])
        };
        let mut report = report(Kind::Failure, &accepted, vec![reported]);
        report.original = Original::Full(&message);
        let taken = Taken::of(&report);
        let part = &taken.parts[2];
        if part.header.contains("bit\r\n") {
            assert!(message.starts_with(&part.octets), "round {round}");
        }
        for name in ["Action: ", "Status: ", "Final-Recipient: "] {
            let fields = taken.fields();
            let count = fields.lines().filter(|line| line.starts_with(name)).count();
            assert_eq!(count, 1, "round {round}: {fields}");
        }
    }
}

#[test]
fn who_is_told_what() {
    let notify = |success, failure, delay| {
        Some(Notify {
            success,
            failure,
            delay,
        })
    };
    let hop = || Box::from("mx.y.test");
    let failure = |status| Failure::ours(status, "x");
    let failed = Verdict::Failed(failure(Status::permanent(1, 1)));
    let deferred = Verdict::Deferred(failure(Status::temporary(4, 1)));
    let arrived = Verdict::Delivered(Arrival::Final);
    let passed = Verdict::Delivered(Arrival::Passed { hop: hop() });
    let relayed = Verdict::Delivered(Arrival::Relayed { hop: hop() });
    let (never, all) = (notify(false, false, false), notify(true, true, true));
    use Kind::{Delay, Failure as Fail, Success};
    // name, kind, NOTIFY, verdict, what is told
    type Row<'r> = (&'r str, Kind, Option<Notify>, &'r Verdict, Option<Action>);
    #[rustfmt::skip] // a row a line
    let rows: &[Row<'_>] = &[
        ("failed, nothing asked", Fail, None, &failed, Some(Action::Failed)),
        ("failed, FAILURE", Fail, notify(false, true, false), &failed, Some(Action::Failed)),
        ("failed, all", Fail, all, &failed, Some(Action::Failed)),
        ("failed, NEVER", Fail, never, &failed, None),
        ("failed, SUCCESS and DELAY", Fail, notify(true, false, true), &failed, None),
        ("failed, and no failure is told", Delay, all, &failed, None),
        ("failed, and success is told", Success, all, &failed, None),
        ("late, nothing asked", Delay, None, &deferred, Some(Action::Delayed)),
        ("late, DELAY", Delay, notify(false, false, true), &deferred, Some(Action::Delayed)),
        ("late, NEVER", Delay, never, &deferred, None),
        ("late, SUCCESS and FAILURE", Delay, notify(true, true, false), &deferred, None),
        ("late, and failure is told", Fail, all, &deferred, None),
        ("late, and success is told", Success, all, &deferred, None),
        ("delivered, nothing asked", Success, None, &arrived, None),
        ("delivered, SUCCESS", Success, notify(true, false, false), &arrived, Some(Action::Delivered)),
        ("delivered, NEVER", Success, never, &arrived, None),
        ("delivered, FAILURE and DELAY", Success, notify(false, true, true), &arrived, None),
        ("delivered, and failure is told", Fail, all, &arrived, None),
        ("delivered, and delay is told", Delay, all, &arrived, None),
        ("passed, SUCCESS", Success, all, &passed, None),
        ("relayed, SUCCESS", Success, all, &relayed, Some(Action::Relayed)),
        ("relayed, nothing asked", Success, None, &relayed, None),
    ];
    for (name, kind, notify, verdict, expected) in rows {
        let mut recipients = vec![recipient("z@y.test"), recipient("b@y.test")];
        recipients[1].dsn.notify = *notify;
        let mut accepted = accepted(&recipients);
        let found = wanted(*kind, &accepted, [(1, *verdict), (2, *verdict)]);
        assert_eq!(
            found,
            Vec::from_iter(expected.map(|action| (1, action))),
            "{name}"
        );
        envelope(&mut accepted).reverse_path = None;
        assert_eq!(
            wanted(*kind, &accepted, [(1, *verdict)]),
            [],
            "{name}, from <>"
        );
    }
}

#[test]
fn how_much_is_worth_reading() {
    let (full, headers) = (Some(Ret::Full), Some(Ret::Headers));
    #[rustfmt::skip] // a row a line
    let rows: &[(&str, Kind, Option<Ret>, u64, Ret)] = &[
        ("short", Kind::Failure, None, 0, Ret::Full),
        ("just short", Kind::Failure, None, UNASKED_OCTETS_MAX, Ret::Full),
        ("long", Kind::Failure, None, UNASKED_OCTETS_MAX + 1, Ret::Headers),
        ("long, RET=FULL", Kind::Failure, full, RETURNED_OCTETS_MAX, Ret::Full),
        ("too long, RET=FULL", Kind::Failure, full, RETURNED_OCTETS_MAX + 1, Ret::Headers),
        ("short, RET=HDRS", Kind::Failure, headers, 1, Ret::Headers),
        ("late", Kind::Delay, full, 1, Ret::Headers),
        ("delivered", Kind::Success, full, 1, Ret::Headers),
    ];
    for (name, kind, ret, octets, expected) in rows {
        let mut accepted = accepted(&[]);
        envelope(&mut accepted).dsn.ret = *ret;
        accepted.data_octets = *octets;
        assert_eq!(returned(*kind, &accepted), *expected, "{name}");
    }
}

#[test]
fn a_diagnostic_says_whose_words_it_has() {
    let ours = Failure::ours(Status::permanent(4, 7), "too late");
    let theirs = Failure {
        said: Said::ByHop,
        ..ours.clone()
    };
    assert_eq!(Diagnostic::of(&ours), Diagnostic::Ours("too late"));
    assert_eq!(Diagnostic::of(&theirs), Diagnostic::Smtp("too late"));
}
