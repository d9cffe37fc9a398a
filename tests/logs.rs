//! What the log says of a session and a message, and what it must not say.

#![cfg(test)]

mod support;

use std::thread;

use support::server::{Setup, field};
use support::{Client, TEXT};

/// All dialogues at once: the server takes its time over each refused password.
#[test]
fn credentials_and_mail_are_never_in_a_log() {
    thread::scope(|scope| {
        for (format, level) in [("text", "trace"), ("json", "trace"), ("text", "info")] {
            scope.spawn(move || says_no_secret(format, level));
        }
    });
}

fn says_no_secret(format: &str, level: &str) {
    let server = Setup::new()
        .users(&[("alice", "wonderland")])
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
        .flag("--log-format", format)
        .flag("--log-level", level)
        .start();
    let clients = [
        server.client(),
        server.client().starttls(),
        server.tls_client(),
    ];
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| tell_secrets(client));
        }
    });
    let log = server.log_to_end();
    let transactions = log.iter().filter(|line| line.contains("a@b.test")).count();
    assert_eq!(transactions, 3, "{log:#?}");
    for line in &log {
        for secret in [
            "wonderland",
            "looking glass",
            "d29uZGVybGFuZA",
            "bG9va2luZyBnbGFzcw",
            "AGFsaWNlAHdvbmRlcmxhbmQ",
            "AGFsaWNlAGxvb2tpbmcgZ2xhc3M",
            "argon2id",
            "sesame",
        ] {
            assert!(!line.contains(secret), "{secret:?} is in {line:?}");
        }
    }
}

fn tell_secrets(mut client: Client) {
    client.ehlo();
    client
        .say("AUTH PLAIN AGFsaWNlAGxvb2tpbmcgZ2xhc3M=")
        .begins("535");
    // Not base64, no credentials, a line that is not one of AUTH's: all must stay unsaid.
    client.say("AUTH PLAIN wonderland!").begins("501");
    client.say("AUTH LOGIN").begins("334");
    client.say("YWxpY2U=").begins("334");
    client.say("bG9va2luZyBnbGFzcw==").begins("535");
    client.say("AUTH PLAIN").begins("334");
    client.say("AGFsaWNlAHdvbmRlcmxhbmQ=").begins("235");
    let text = b"Subject: sesame\r\n\r\nopen sesame\r\n";
    client
        .deliver("a@b.test", &["u@example.test"], text)
        .begins("250");
    client.quit();
}

/// One line a session, one a transaction and one a delivery, with what an operator looks for; the first two are
/// joined by the session's name, the last two by the queue id.
#[test]
fn a_session_a_transaction_and_a_delivery_are_one_line_each() {
    let server = Setup::new().start();
    let mut client = server.client();
    let peer = client.socket().local_addr().unwrap().to_string();
    client.ehlo();
    let reply = client.deliver("a@b.test", &["u@example.test"], TEXT);
    let queue_id = reply.first().rsplit(' ').next().unwrap().to_owned();
    client.quit();
    server.await_delivery();
    let target = format!("maildir:{}", server.path("mail").display());
    let log = server.log_to_end();
    let about = |what: &str, word: &str| {
        let what = format!(" {what} ");
        let about = |line: &&String| line.contains(&what) && line.contains(word);
        let mut lines = log.iter().filter(about);
        let line = lines.next().unwrap_or_else(|| panic!("{word}: {log:#?}"));
        assert!(lines.next().is_none(), "{word} twice: {log:#?}");
        line
    };
    let transaction = about("INFO transaction", &queue_id);
    let session = about("INFO session", &peer);
    let delivery = about("INFO delivery", &queue_id);
    let with_id = log.iter().filter(|line| line.contains(&queue_id)).count();
    assert_eq!(with_id, 2, "{log:#?}");
    for (name, value) in [
        ("queue_id", queue_id.as_str()),
        ("to", "<u@example.test>"),
        ("target", target.as_str()),
        ("outcome", "delivered"),
    ] {
        let logged = field(delivery, name);
        assert_eq!(logged.as_deref(), Some(value), "{name}: {delivery}");
    }
    for (name, value) in [
        ("queue_id", queue_id.as_str()),
        ("from", "<a@b.test>"),
        ("to", "<u@example.test>"),
        ("recipients", "1"),
        ("outcome", "accepted"),
        ("reply", "250"),
        ("durability", "disk"),
        ("octets", "17"),
    ] {
        let logged = field(transaction, name);
        assert_eq!(logged.as_deref(), Some(value), "{name}: {transaction}");
    }
    for (name, value) in [
        ("listener", "tcp"),
        ("peer", peer.as_str()),
        ("ehlo", "client.test"),
        ("messages", "1"),
        ("ended", "quit"),
    ] {
        let logged = field(session, name);
        assert_eq!(logged.as_deref(), Some(value), "{name}: {session}");
    }
    assert_eq!(field(transaction, "session"), field(session, "session"));
}

#[test]
fn json_log_lines_are_json() {
    let server = Setup::new().flag("--log-format", "json").start();
    server.client().quit();
    let log = server.log_to_end().join("\n");
    let script = "import json, sys\nfor line in sys.stdin:\n    json.loads(line)\n";
    support::programs::run(support::program("python3").args(["-c", script]), log).succeeded();
}
