//! Mail handed to an LMTP server (RFC 2033): a reply for each recipient, over TCP and over a UNIX socket.

#![cfg(test)]

mod support;

use support::sending::{
    Tally, assert_no_report, attempt, only_report, queue, relay, send, send_as,
};
use support::sink::{Act, Point::*, Script, Way};
use support::{Setup, Sink, TEXT};

/// The same for either socket.
fn over_both(script: impl Fn() -> Script, test: impl Fn(&str, Sink, Setup)) {
    let tcp = Sink::start(script());
    let setup = relay(&tcp.target_by("lmtp"));
    test("tcp", tcp, setup);
    let directory = tempfile::tempdir().unwrap();
    let unix = Sink::start_unix(&directory.path().join("lmtp"), script());
    let setup = relay(&unix.target_by("lmtp"));
    test("unix", unix, setup);
}

#[test]
fn a_message_is_handed_over_octet_for_octet() {
    let text = b"Subject: x\r\n\r\n.\r\n..\r\n\xe9";
    for without in ["DSN", "CHUNKING"] {
        let script = || Script::lmtp().without(without);
        over_both(script, |name, sink, setup| {
            let server = setup.start();
            let to = ["<a@hop.test>", "<b@hop.test>"];
            send_as(&server, "<> BODY=8BITMIME", &to, text);
            let message = sink.only();
            assert_eq!(message.from(), "", "{name}");
            let (_, content) = message.parts();
            let end = if message.way == Way::Data {
                &b"\r\n"[..]
            } else {
                b""
            };
            assert_eq!(content, [text, end].concat(), "{name}");
            server.await_delivery();
            assert_eq!(
                sink.only().taken_for,
                ["a@hop.test", "b@hop.test"],
                "{name}"
            );
            assert_eq!(sink.connections(1)[0].verbs()[0], "LHLO", "{name}");
            let delivered = attempt(&server, "b@hop.test", "delivered");
            assert!(delivered.target.starts_with("lmtp:"), "{delivered:?}");
        });
    }
}

/// Each recipient has its own fate, whichever reply it came from.
#[test]
fn mixed_replies_have_mixed_ends() {
    let script = || {
        Script::lmtp()
            .at(Rcpt.of("unknown@hop.test"), "550 5.1.1 nobody here")
            .at(EndOfData.of("full@hop.test").first(1), "452 4.2.2 full")
            .at(EndOfData.of("never@hop.test"), "554 5.7.1 not this one")
    };
    over_both(script, |name, sink, setup| {
        let server = setup.start();
        let to =
            ["unknown", "taken", "full", "never", "last"].map(|user| format!("{user}@hop.test"));
        send(&server, &to.each_ref().map(String::as_str), TEXT);
        server.await_delivery();
        let messages = sink.messages(2);
        assert_eq!(
            messages[0].taken_for,
            ["taken@hop.test", "last@hop.test"],
            "{name}"
        );
        assert_eq!(messages[1].to(), ["full@hop.test"], "{name}");
        assert_eq!(sink.books(|books| books.messages.len()), 2, "{name}");
        let report = only_report(&server);
        assert_eq!(report.recipients.len(), 2, "{name}");
        for (user, status) in [("unknown", "5.1.1"), ("never", "5.7.1")] {
            let told = report.of(&format!("{user}@hop.test"));
            assert_eq!(told.get("Status"), status, "{name}: {user}");
        }
        let tally = Tally::of(server);
        let outcomes = [
            ("unknown", [0, 0, 1]),
            ("taken", [1, 0, 0]),
            ("full", [1, 1, 0]),
            ("never", [0, 0, 1]),
            ("last", [1, 0, 0]),
        ];
        for (user, expected) in outcomes {
            let to = format!("{user}@hop.test");
            let seen =
                ["delivered", "deferred", "bounced"].map(|outcome| tally.count(&to, outcome));
            assert_eq!(seen, expected, "{name}: {user}");
        }
    });
}

/// The connection ends among the replies: who has one keeps it, the others are tried again.
#[test]
fn replies_that_came_before_the_end_are_kept() {
    let script = || Script::lmtp().at(EndOfData.of("b@hop.test").first(1), Act::Close);
    over_both(script, |name, sink, setup| {
        let server = setup.start();
        send(&server, &["a@hop.test", "b@hop.test", "c@hop.test"], TEXT);
        server.await_delivery();
        let messages = sink.messages(2);
        assert_eq!(messages[0].taken_for, ["a@hop.test"], "{name}");
        assert_eq!(
            messages[1].taken_for,
            ["b@hop.test", "c@hop.test"],
            "{name}"
        );
        server.await_delivery();
        assert_no_report(&server);
    });
}

#[test]
fn an_lhlo_that_is_refused_is_followed_by_no_other_greeting() {
    let script = || Script::lmtp().at(Lhlo.first(1), "500 5.5.1 what is that?");
    over_both(script, |name, sink, setup| {
        let server = setup.start();
        send(&server, &["bob@hop.test"], TEXT);
        sink.only();
        let first = sink.ended(0).verbs();
        assert!(
            ["EHLO", "HELO"]
                .iter()
                .all(|verb| !first.contains(&(*verb).to_owned())),
            "{name}: {first:?}"
        );
        server.await_delivery();
        let deferred = Tally::of(server).count("bob@hop.test", "deferred");
        assert_eq!(deferred, 1, "{name}");
    });
}

/// No socket yet: the message waits for it.
#[test]
fn a_unix_socket_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let server = relay(&format!("lmtp:unix:{}", path.display())).start();
    let id = send(&server, &["bob@hop.test"], TEXT);
    let deferred = attempt(&server, "bob@hop.test", "deferred");
    assert!(!deferred.reason.is_empty());
    let sink = Sink::start_unix(&path, Script::lmtp());
    queue(&server, &["retry", &id]);
    sink.only();
    server.await_delivery();
}
