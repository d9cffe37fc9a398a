//! Who is told what of a message's fate (RFC 3461, RFC 3464), and what of that is left to the next hop.

#![cfg(test)]

mod support;

use support::report::Report;
use support::sending::{assert_no_report, only_report, relay, reports, route, send, send_as};
use support::sink::{Message, Point::*, Script};
use support::{Sink, TEXT};

#[test]
fn what_a_sender_wants_to_be_told_is_passed_on_where_it_can_be() {
    const FROM: &str = "<alice@home.test> RET=HDRS ENVID=a+20b";
    const TO: &str = "<bob@hop.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;robert@x.test";
    type Row<'r> = (&'r str, Script, &'r str, &'r str, [&'r [&'r str]; 2]);
    let without = || Script::smtp().without("DSN");
    let rows: [Row<'_>; 5] = [
        (
            "all of it",
            Script::smtp(),
            FROM,
            TO,
            [
                &["ENVID=a+20b", "RET=HDRS"],
                &["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;robert@x.test"],
            ],
        ),
        (
            "nothing is added",
            Script::smtp(),
            "<alice@home.test>",
            "<bob@hop.test>",
            [&[], &[]],
        ),
        (
            "never",
            Script::smtp(),
            "<alice@home.test> RET=FULL",
            "<bob@hop.test> NOTIFY=NEVER",
            [&["RET=FULL"], &["NOTIFY=NEVER"]],
        ),
        (
            "a hop without DSN",
            without(),
            FROM,
            "<bob@hop.test> NOTIFY=NEVER",
            [&[], &[]],
        ),
        (
            "a hop without anything",
            Script::bare(),
            FROM,
            "<bob@hop.test> NOTIFY=NEVER",
            [&[], &[]],
        ),
    ];
    for (name, script, from, to, [mail, rcpt]) in rows {
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send_as(&server, from, &[to], TEXT);
        let message = sink.only();
        let mut passed = Message::parameters(&message.mail);
        passed.retain(|parameter| !parameter.starts_with("SIZE="));
        assert_eq!(passed, mail, "{name}");
        assert_eq!(Message::parameters(&message.rcpt[0]), rcpt, "{name}");
        // The hop reports, or nobody is to.
        assert_no_report(&server);
    }
}

#[test]
fn who_is_told_what() {
    let refuses = || Script::smtp().at(Rcpt, "550 5.1.1 nobody here");
    let takes = Script::smtp;
    let plain = || Script::smtp().without("DSN");
    let (bob, ours) = ("bob@hop.test", "bob@home.test");
    type Row<'r> = (
        &'r str,
        Script,
        &'r str,
        &'r str,
        Option<(&'r str, &'r str)>,
    );
    let rows: [Row<'_>; 11] = [
        (
            "failure, nothing said",
            refuses(),
            bob,
            "",
            Some(("failed", "5.1.1")),
        ),
        (
            "failure, wanted",
            refuses(),
            bob,
            " NOTIFY=FAILURE",
            Some(("failed", "5.1.1")),
        ),
        ("failure, never", refuses(), bob, " NOTIFY=NEVER", None),
        (
            "failure, success only",
            refuses(),
            bob,
            " NOTIFY=SUCCESS",
            None,
        ),
        ("failure, delay only", refuses(), bob, " NOTIFY=DELAY", None),
        ("success, nothing said", plain(), bob, "", None),
        (
            "success, wanted, the hop tells",
            takes(),
            bob,
            " NOTIFY=SUCCESS",
            None,
        ),
        (
            "success, wanted, the hop cannot",
            plain(),
            bob,
            " NOTIFY=SUCCESS",
            Some(("relayed", "2.")),
        ),
        (
            "success, failure only",
            plain(),
            bob,
            " NOTIFY=FAILURE",
            None,
        ),
        (
            "in a mailbox, wanted",
            takes(),
            ours,
            " NOTIFY=SUCCESS",
            Some(("delivered", "2.")),
        ),
        ("in a mailbox, nothing said", takes(), ours, "", None),
    ];
    for (name, script, mailbox, notify, told) in rows {
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send_as(
            &server,
            "<alice@home.test>",
            &[&format!("<{mailbox}>{notify}")],
            TEXT,
        );
        match told {
            None => {
                server.await_delivery();
                let count = server.maildir("home.test", "alice").messages().len();
                assert_eq!(count, 0, "{name}");
            }
            Some((action, status)) => {
                let report = only_report(&server);
                let told = report.of(mailbox);
                assert_eq!(told.get("Action"), action, "{name}");
                assert!(
                    told.get("Status").starts_with(status),
                    "{name}: {report:#?}"
                );
                server.await_delivery();
                assert_eq!(reports(&server, 1).len(), 1, "{name}");
            }
        }
    }
}

#[test]
fn each_point_of_refusal_is_reported_with_the_hops_own_words() {
    let rows = [
        (
            "MAIL",
            Script::smtp().at(Mail, "553 5.1.8 not from you"),
            "5.1.8",
        ),
        (
            "RCPT",
            Script::smtp().at(Rcpt, "550 5.1.1 nobody here"),
            "5.1.1",
        ),
        (
            "DATA",
            Script::smtp().without("CHUNKING").at(Data, "554 5.7.1 no"),
            "5.7.1",
        ),
        (
            "the end",
            Script::smtp().at(EndOfData, "552 5.2.3 too long"),
            "5.2.3",
        ),
        (
            "no status",
            Script::smtp().at(Rcpt, "550 nobody here"),
            "5.",
        ),
        (
            "a status of another class",
            Script::smtp().at(Rcpt, "550 4.2.0 nobody"),
            "5.",
        ),
        (
            "many lines",
            Script::smtp().at(Rcpt, "550-5.1.1 nobody\r\n550 5.1.1 at all"),
            "5.1.1",
        ),
    ];
    for (name, script, status) in rows {
        let sink = Sink::start(script);
        let server = relay(&sink.target()).start();
        send(&server, &["bob@hop.test"], TEXT);
        let report = only_report(&server);
        let told = report.of("bob@hop.test");
        assert_eq!(told.get("Action"), "failed", "{name}");
        assert!(
            told.get("Status").starts_with(status),
            "{name}: {report:#?}"
        );
        assert!(
            told.get("Diagnostic-Code").starts_with("smtp; 55"),
            "{name}: {report:#?}"
        );
        assert!(!told.get("Remote-MTA").is_empty(), "{name}: {report:#?}");
        server.await_delivery();
        assert_eq!(sink.books(|books| books.taken().len()), 0, "{name}");
    }
}

#[test]
fn a_report_is_what_its_reader_expects() {
    let text = b"Message-ID: <1@home.test>\r\nSubject: lunch\r\n\r\nThe body.\r\n.\r\n";
    for (ret, original_type, has_body) in [
        (" RET=FULL", "message/rfc822", true),
        (" RET=HDRS", "text/rfc822-headers", false),
    ] {
        let sink = Sink::start(Script::smtp().at(Rcpt.of("b@hop.test"), "550 5.1.1 nobody here"));
        let server = relay(&sink.target()).start();
        let from = format!("<alice@home.test> ENVID=a+20b{ret}");
        let to = [
            "<a@hop.test>",
            "<b@hop.test> ORCPT=rfc822;b+40old@x.test",
            "<c@hop.test>",
        ];
        let id = send_as(&server, &from, &to, text);
        let report = only_report(&server);
        for (name, value) in [
            ("Return-Path", "<>"),
            ("To", "alice@home.test"),
            ("Auto-Submitted", "auto-replied"),
        ] {
            let seen = report.header.get(name);
            assert!(seen.contains(value), "{name}: {seen}");
        }
        assert!(
            report.header.get("From").contains("@mx.test"),
            "{report:#?}"
        );
        for name in ["Date", "Message-ID", "Subject", "MIME-Version"] {
            assert!(!report.header.get(name).is_empty(), "no {name}");
        }
        assert_eq!(report.message.get("Reporting-MTA"), "dns; mx.test");
        assert_eq!(report.message.get("Original-Envelope-Id"), "a b");
        assert!(!report.message.get("Arrival-Date").is_empty());
        assert_eq!(report.recipients.len(), 1);
        let told = report.of("b@hop.test");
        assert_eq!(told.get("Original-Recipient"), "rfc822;b@old@x.test");
        assert_eq!(told.get("Final-Recipient"), "rfc822; b@hop.test");
        for part in ["b@hop.test", "nobody here"] {
            assert!(report.text.contains(part), "{}", report.text);
        }
        assert!(!report.text.contains("a@hop.test"), "{}", report.text);
        assert_eq!(report.original_type, original_type);
        let original = String::from_utf8(report.original).unwrap();
        assert!(
            original.contains(&id) && original.contains("Subject: lunch"),
            "{original}"
        );
        assert_eq!(original.contains("The body.\n.\n"), has_body, "{original}");
    }
}

/// A sender elsewhere gets its report by the same way that all mail goes.
#[test]
fn a_report_to_elsewhere_is_sent_there() {
    let refusing = Sink::start(Script::smtp().at(EndOfData, "554 5.7.1 no"));
    let far = Sink::start(Script::smtp().without("CHUNKING"));
    let server = relay(&refusing.target())
        .also("--route", route("far.test", &far))
        .start();
    let eight = "Subject: x\r\n\r\n\u{e9}\r\n".as_bytes();
    send_as(
        &server,
        "<carol@far.test> BODY=8BITMIME",
        &["<bob@hop.test>"],
        eight,
    );
    let message = far.only();
    assert_eq!((message.from(), message.to()), ("", vec!["carol@far.test"]));
    assert!(
        Message::parameters(&message.mail).contains(&"BODY=8BITMIME"),
        "{}",
        message.mail
    );
    for line in message.octets.split_inclusive(|octet| *octet == b'\n') {
        assert!(
            line.len() <= 1_000 && line.ends_with(b"\r\n"),
            "{}",
            line.escape_ascii()
        );
    }
    let report = Report::read(&message.octets);
    assert_eq!(report.of("bob@hop.test").get("Status"), "5.7.1");
    assert!(report.original.ends_with(eight), "{report:#?}");
    server.await_delivery();
}

/// RFC 6533: an address that ASCII cannot hold.
#[test]
fn a_report_about_an_address_in_utf8() {
    let sink = Sink::start(Script::smtp().at(Rcpt, "550 5.1.1 nobody here"));
    let server = relay(&sink.target()).start();
    let to = ["<r\u{e9}my@hop.test>"];
    send_as(&server, "<alice@home.test> SMTPUTF8", &to, TEXT);
    let report = only_report(&server);
    let told = report.of("r\u{e9}my@hop.test");
    assert_eq!(told.get("Final-Recipient"), "utf-8; r\u{e9}my@hop.test");
    assert_eq!(told.get("Status"), "5.1.1");
    server.await_delivery();
}

/// Nothing that a hop says becomes a field or a part of the report.
#[test]
fn a_hops_words_stay_words() {
    let words = "550-5.1.1 no\r\n550-Subject: forged\r\n550-\r\n550---=_boundary\r\n550 5.1.1 \x1b[31m\u{1}";
    let sink = Sink::start(Script::smtp().at(Rcpt, words));
    let server = relay(&sink.target()).start();
    send(&server, &["bob@hop.test"], TEXT);
    let report = only_report(&server);
    assert!(
        !report.header.get("Subject").contains("forged"),
        "{report:#?}"
    );
    assert_eq!(report.recipients.len(), 1);
    assert_eq!(report.of("bob@hop.test").get("Subject"), "");
    assert!(
        report
            .of("bob@hop.test")
            .get("Diagnostic-Code")
            .contains("forged")
    );
    for line in server.log_to_end() {
        assert!(!line.contains('\x1b'), "{line}");
    }
}
