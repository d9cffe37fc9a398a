//! Mail through ringpost into next hops that nobody here wrote, found by a name server that nobody here wrote: what
//! they keep of a message, what they see of TLS, and what becomes of recipients whom they refuse.
//!
//! That ringpost does the right thing with what no such program says is asked of a sink elsewhere.

#![cfg(test)]

mod support;

use std::fs::{self, Permissions};
use std::iter;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::{Value, json};
use support::certificates::{Authority, KeyKind, Pair};
use support::hops::{Dovecot, Exim, NextHop, Postfix};
use support::housed::Arrived;
use support::names::NameServer;
use support::port_25::on_everybodys_port_25;
use support::programs::{program, run};
use support::report::Report;
use support::sending::{
    SENDER, assert_no_report, attempt, attempts, deferred, greeted, only_report, queue, queued,
    relay, send, send_as, spooled, submit,
};
use support::{Server, TEXT, eventually};

/// A next hop, and how ringpost is told of it.
struct Hop {
    program: Box<dyn NextHop>,
    target: String,
    domain: &'static str,
}

type Start = fn() -> Hop;

/// Each program, by every way it takes mail: BDAT, DATA, and LMTP over either socket.
const EVERY: [(&str, Start); 6] = [
    ("Postfix", || postfix("")),
    ("Postfix, DATA", || {
        postfix("smtpd_discard_ehlo_keywords = chunking")
    }),
    ("Exim", || exim("")),
    ("Exim, DATA", || exim("chunking_advertise_hosts =")),
    ("Dovecot, TCP", || {
        let dovecot = Dovecot::start();
        let target = format!("lmtp:{}", dovecot.address());
        Hop::new(dovecot, target, "dovecot.test")
    }),
    ("Dovecot, UNIX", || {
        let dovecot = Dovecot::start();
        let target = format!("lmtp:unix:{}", dovecot.socket().display());
        Hop::new(dovecot, target, "dovecot.test")
    }),
];

fn postfix(settings: &str) -> Hop {
    let postfix = Postfix::start_with(&certificate("mx.postfix.test"), settings);
    let target = format!("smtp:{}", postfix.address());
    Hop::new(postfix, target, "postfix.test")
}

fn exim(settings: &str) -> Hop {
    let exim = Exim::start_with(&certificate("mx.exim.test"), settings);
    let target = format!("smtp:{}", exim.address());
    Hop::new(exim, target, "exim.test")
}

fn certificate(name: &str) -> Pair {
    Authority::shared().issue(&[name, "127.0.0.1"], KeyKind::Ecdsa)
}

impl Hop {
    fn new(program: impl NextHop + 'static, target: String, domain: &'static str) -> Hop {
        Hop {
            program: Box::new(program),
            target,
            domain,
        }
    }

    fn mailbox(&self, user: &str) -> String {
        format!("{user}@{}", self.domain)
    }

    /// Waits until there are so many messages, and gives that for this user.
    fn message_for(&self, user: &str, count: usize) -> Arrived {
        let messages = self.program.await_messages(count);
        let to = self.mailbox(user);
        let found = messages.iter().find(|message| message.to == to);
        found.unwrap_or_else(|| panic!("none for {to}")).clone()
    }
}

/// Runs a test with each of these hops, side by side.
fn with_each(hops: &[(&str, Start)], test: impl Fn(&str, Hop) + Sync) {
    thread::scope(|scope| {
        for (name, start) in hops {
            let test = &test;
            scope.spawn(move || test(name, start()));
        }
    });
}

/// Name and octets of messages that a careless hand would change.
fn messages() -> [(&'static str, Vec<u8>); 2] {
    let small = b"Subject: 8-bit\r\n\r\n\xc3\xa9 \xe9 \xff\r\n.\r\n..\r\n.dot\r\n\r\n last \r\n";
    let base64 = "0123456789+/ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\r\n";
    let mut large = b"Subject: attached\r\nMIME-Version: 1.0\r\n\
        Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for line in iter::repeat_n([base64, base64, base64, ".\r\n", "..\r\n", ".x\r\n"], 1_500) {
        large.extend(line.concat().bytes());
    }
    assert!(large.len() > 300 * 1024);
    [("small", small.to_vec()), ("large", large)]
}

/// Has swaks give a message to ringpost.
fn swaks(server: &Server, to: &str, text: &[u8]) {
    let mut command = program("swaks");
    command
        .args(["--ehlo", "client.test", "--from", SENDER, "--to", to])
        .args(["--server", &server.tcp().to_string(), "--data", "-"]);
    // It ends the last line itself.
    run(&mut command, text.strip_suffix(b"\r\n").unwrap()).succeeded();
}

#[track_caller]
fn assert_nothing_is_queued(server: &Server, name: &str) {
    assert_eq!(queued(&server.scrape()), 0, "{name}");
    let list = queue(server, &["list"]).succeeded().out;
    assert_eq!(list, "queue is empty\n", "{name}");
}

#[test]
fn messages_arrive_whole() {
    with_each(&EVERY, |name, hop| {
        let server = relay(&hop.target).start();
        for (count, (user, text)) in (1..).zip(messages()) {
            let to = hop.mailbox(user);
            swaks(&server, &to, &text);
            let message = hop.message_for(user, count);
            assert_eq!(message.from, SENDER, "{name}, {user}");
            let added = message.is(&text);
            assert!(added.contains("by mx.test"), "{name}, {user}: {added}");
            attempt(&server, &to, "delivered");
        }
        server.await_delivery();
        assert_nothing_is_queued(&server, name);
        assert_eq!(hop.program.messages().len(), messages().len(), "{name}");
        let address = hop.program.address();
        drop(hop);
        assert!(
            TcpStream::connect(address).is_err(),
            "{name} is still there"
        );
    });
}

/// The hop's word is ours: 250, and nothing was on the disk. But for a large message, which is put there as it comes.
#[test]
fn durability_is_the_next_hops() {
    let [(_, small), (_, large)] = messages();
    let rows = [
        // User, message, the code of our reply, and whether the disk had it.
        ("small", &small, 250, false),
        ("large", &large, 250, true),
        ("unknown", &small, 550, false),
        ("later", &small, 250, true),
    ];
    with_each(&EVERY, |name, hop| {
        let server = relay(&hop.target)
            .flag("--durability", "next-hop")
            .flag("--next-hop-timeout", "60s")
            .flag("--retry-schedule", "1h")
            .start();
        let mut on_disk = 0;
        for (user, text, code, is_on_disk) in rows {
            let to = format!("<{}>", hop.mailbox(user));
            let from = format!("<{SENDER}>");
            let reply = submit(&mut greeted(server.tcp()), &from, &[&to], text);
            assert_eq!(reply.code, code, "{name}, {user}: {reply:?}");
            on_disk += u64::from(is_on_disk);
            assert_eq!(spooled(&server.scrape()), on_disk, "{name}, {user}");
            if !is_on_disk {
                assert_nothing_is_queued(&server, name);
            } else if user == "large" {
                server.await_delivery();
            }
        }
        for (user, text) in [("small", &small), ("large", &large)] {
            hop.message_for(user, 2).is(text);
        }
        assert_eq!(hop.program.messages().len(), 2, "{name}");
        assert_eq!(queued(&server.scrape()), 1, "{name}");
    });
}

/// Who offers STARTTLS and is who it should be gets the mail inside TLS, and sees who we are.
#[test]
fn both_ends_prove_who_they_are() {
    type Seen = [&'static str; 3];
    type Row = (&'static str, fn(&Pair) -> Box<dyn NextHop>, Seen);
    let rows: [Row; 2] = [
        (
            "postfix.test",
            |pair| Box::new(Postfix::start(pair)),
            ["TLSv1.3", "(Client CN \"client.test\"", "(verified OK)"],
        ),
        (
            "exim.test",
            |pair| Box::new(Exim::start(pair)),
            ["X=TLS1.3:", "CV=yes", "DN=\"CN=client.test\""],
        ),
    ];
    for (domain, start, seen) in rows {
        let host = format!("mx.{domain}");
        let names = NameServer::start(&[(&host, "A", "127.0.0.1")]);
        let stranger = Authority::new("Other Root").issue(&[&host], KeyKind::Ecdsa);
        for (pair, is_known) in [(certificate(&host), true), (stranger, false)] {
            let hop = start(&pair);
            let setup = relay(&format!("smtp:{host}:{}", hop.address().port()))
                .flag("--retry-schedule", "1h")
                .flag("--dns", names.address().to_string())
                .flag("--out-verify", "yes");
            let (cert, key) = (setup.path("client.crt"), setup.path("client.key"));
            certificate("client.test").write(&cert, &key);
            let ca = setup.path("ca.crt").display().to_string();
            let server = setup
                .flag("--out-ca", ca)
                .flag("--out-cert", cert.display().to_string())
                .flag("--out-key", key.display().to_string())
                .start();
            let to = format!("bob@{domain}");
            send(&server, &[&to], TEXT);
            if !is_known {
                let line = attempt(&server, &to, "deferred");
                assert!(line.reason.contains("issuer"), "{line:?}");
                assert_eq!(hop.messages().len(), 0, "{domain}");
                continue;
            }
            let line = attempt(&server, &to, "delivered");
            assert_eq!(line.tls_version(), "TLSv1.3", "{line:?}");
            assert_eq!(line.is_verified(), Some(true), "{line:?}");
            let message = hop.await_messages(1).remove(0);
            // One notes it in the message, the other in its log.
            let noted = message.is(TEXT).to_owned() + &hop.log().join("\n");
            for part in seen {
                assert!(noted.contains(part), "{domain}: no {part} in {noted}");
            }
        }
    }
}

/// Each recipient has its own fate, told of by `ringpost queue show` and, if for good, by a report.
#[test]
fn mixed_replies_have_mixed_ends() {
    // User, state, and the hop's words; the status of the report, where there is one.
    type Fate = (&'static str, &'static str, &'static str, &'static str);
    let postfix: &[Fate] = &[
        ("alice", "delivered", "", ""),
        ("unknown", "bounced", "550 5.1.1 ", "5.1.1"),
        ("later", "deferred", "450 4.2.1 ", ""),
    ];
    let exim: &[Fate] = &[
        ("alice", "delivered", "", ""),
        ("unknown", "bounced", "550 ", "5.0.0"),
        ("later", "deferred", "451 ", ""),
    ];
    let dovecot: &[Fate] = &[
        ("alice", "delivered", "", ""),
        ("unknown", "bounced", "550 5.1.1 ", "5.1.1"),
        ("later", "deferred", "451 4.3.0 ", ""),
        ("full", "deferred", "452 4.2.2 ", ""),
        ("over", "bounced", "552 5.2.2 ", "5.2.2"),
    ];
    with_each(&EVERY, |name, hop| {
        let fates = match hop.domain {
            "postfix.test" => postfix,
            "exim.test" => exim,
            _ => dovecot,
        };
        let server = relay(&hop.target).flag("--retry-schedule", "1h").start();
        let to: Vec<String> = fates.iter().map(|fate| hop.mailbox(fate.0)).collect();
        let id = send(
            &server,
            &to.iter().map(String::as_str).collect::<Vec<_>>(),
            TEXT,
        );
        let shown = deferred(&server, &id, 1).recipients();
        let report = only_report(&server);
        for (user, state, words, status) in fates {
            let to = hop.mailbox(user);
            let (shown_state, reason) = &shown[&to];
            assert_eq!(shown_state, state, "{name}, {user}: {reason}");
            assert!(reason.contains(words), "{name}, {user}: {reason}");
            if !status.is_empty() {
                let told = report.of(&to);
                assert_eq!(told.get("Status"), *status, "{name}, {user}");
                let diagnostic = told.get("Diagnostic-Code");
                let is_said = diagnostic.starts_with(&format!("smtp; {words}"));
                assert!(is_said, "{name}, {user}: {diagnostic}");
            }
        }
        let bounced = fates.iter().filter(|fate| fate.1 == "bounced");
        assert_eq!(report.recipients.len(), bounced.count(), "{name}");
        hop.message_for("alice", 1).is(TEXT);
        assert_eq!(hop.program.messages().len(), 1, "{name}");
    });
}

/// What a program's own settings limit or forbid, and what one attempt comes to then.
#[test]
fn hops_have_limits_of_their_own() {
    // Hop, outcome for each recipient, and words of the reason or, for what is delivered, the version of TLS.
    let rows: [(Start, &str, &str); 10] = [
        (
            || postfix("message_size_limit = 90\nvirtual_mailbox_limit = 90"),
            "bounced",
            "takes 90 at most",
        ),
        (
            || exim("message_size_limit = 90"),
            "bounced",
            "takes 90 at most",
        ),
        // The others are asked for in further transactions (RFC 5321 §4.5.3.1.10).
        (
            || postfix("smtpd_recipient_limit = 2"),
            "delivered",
            "TLSv1.3",
        ),
        (|| exim("recipients_max = 2"), "delivered", "TLSv1.3"),
        (
            || postfix("smtpd_tls_security_level = encrypt"),
            "delivered",
            "TLSv1.3",
        ),
        // A certificate is asked for, and we have none.
        (
            || postfix("smtpd_tls_security_level = encrypt\nsmtpd_tls_req_ccert = yes"),
            "deferred",
            "421 4.7.1 ",
        ),
        (
            || exim("tls_verify_hosts = *"),
            "deferred",
            "certificate required",
        ),
        (
            || postfix("smtpd_tls_protocols = TLSv1.2"),
            "delivered",
            "TLSv1.2",
        ),
        (
            || exim("tls_require_ciphers = NORMAL:-VERS-TLS1.3"),
            "delivered",
            "TLSv1.2",
        ),
        (
            || exim("tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS1.1"),
            "deferred",
            "unsupported protocol",
        ),
    ];
    for (start, outcome, words) in rows {
        let hop = start();
        let server = relay(&hop.target).flag("--retry-schedule", "1h").start();
        let to = ["a", "b", "c", "d", "e"].map(|user| hop.mailbox(user));
        send(&server, &to.each_ref().map(String::as_str), TEXT);
        let is_delivered = outcome == "delivered";
        for to in &to {
            let line = attempt(&server, to, outcome);
            let told = if is_delivered {
                line.tls_version()
            } else {
                &line.reason
            };
            assert!(told.contains(words), "{words}: {line:?}");
        }
        let messages = match is_delivered {
            true => hop.program.await_messages(to.len()),
            false => hop.program.messages(),
        };
        let mut taken: Vec<&str> = messages.iter().map(|one| one.to.as_str()).collect();
        taken.sort_unstable();
        let expected: &[String] = if is_delivered { &to } else { &[] };
        assert_eq!(taken, expected, "{outcome}, {words}");
    }
}

/// A hop ends connections that nobody uses; the next message is not held up by that.
#[test]
fn an_idle_connection_that_the_hop_ended_is_replaced() {
    let rows: [(Start, &str); 2] = [
        (|| postfix("smtpd_timeout = 1s"), "timeout after"),
        (|| exim("smtp_receive_timeout = 1s"), "command timeout"),
    ];
    for (start, words) in rows {
        let hop = start();
        let server = relay(&hop.target).flag("--retry-schedule", "1h").start();
        for count in 1..=3 {
            send(&server, &[&hop.mailbox("bob")], TEXT);
            assert_eq!(hop.program.await_messages(count).len(), count);
            eventually("the hop ends the connection", || {
                let lines = hop.program.log();
                let ended = lines.iter().filter(|line| line.contains(words)).count();
                (ended == count).then_some(())
            });
        }
        assert_eq!(attempts(&server, &hop.mailbox("bob"), "deferred"), 0);
    }
}

/// Who offers DSN (RFC 3461) tells of success itself; for who does not, ringpost says that it was relayed.
#[test]
fn success_is_reported_once() {
    with_each(&EVERY, |name, hop| {
        let server = relay(&hop.target).start();
        let hop_reports = hop.domain == "postfix.test";
        // Postfix knows the way to its own mailboxes alone.
        let (sender, action, reporter) = match hop_reports {
            true => ("carol@postfix.test", "delivered", "dns; mx.postfix.test"),
            false => (SENDER, "relayed", "dns; mx.test"),
        };
        let from = format!("<{sender}> RET=HDRS ENVID=lunch+2D1");
        let to = hop.mailbox("bob");
        let rcpt = format!("<{to}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bob@x.test");
        send_as(&server, &from, &[&rcpt], TEXT);
        let report = match hop_reports {
            true => Report::read(&hop.message_for("carol", 2).octets),
            false => only_report(&server),
        };
        let told = report.of(&to);
        for (fields, field, value) in [
            (&report.message, "Reporting-MTA", reporter),
            (&report.message, "Original-Envelope-Id", "lunch-1"),
            (told, "Original-Recipient", "rfc822;b+ob@x.test"),
            (told, "Action", action),
        ] {
            assert_eq!(fields.get(field), value, "{name}: {field}");
        }
        let count = if hop_reports { 2 } else { 1 };
        assert_eq!(hop.program.await_messages(count).len(), count, "{name}");
        if hop_reports {
            assert_no_report(&server);
        }
    });
}

/// Exim takes mail from who logs in, and lets nobody log in outside of TLS.
#[test]
fn a_login_opens_the_way() {
    let plain = "PLAIN\n  server_prompts = :
  server_condition = ${if and {{eq{$auth2}{anna}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2";
    let login = "LOGIN\n  server_prompts = Username:: : Password::
  server_condition = ${if and {{eq{$auth1}{anna}}{eq{$auth2}{secret}}}}
  server_set_id = $auth1";
    for (mechanism, password, outcome, words) in [
        (plain, "secret", "delivered", ""),
        (login, "secret", "delivered", ""),
        (plain, "wrong", "deferred", "535 "),
        (login, "wrong", "deferred", "535 "),
    ] {
        let hop = exim(&format!(
            "acl_smtp_mail = accept authenticated = *
begin authenticators
only:
  driver = plaintext
  server_advertise_condition = ${{if def:tls_in_cipher}}
  public_name = {mechanism}"
        ));
        let setup = relay(&hop.target).flag("--retry-schedule", "1h");
        let (ca, file) = (setup.path("ca.crt"), setup.path("password"));
        fs::write(&file, password).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let server = setup
            .flag("--out-ca", ca.display().to_string())
            .flag("--out-auth", format!("exim.test=anna:{}", file.display()))
            .start();
        let to = hop.mailbox("bob");
        send(&server, &[&to], TEXT);
        let line = attempt(&server, &to, outcome);
        assert!(line.reason.contains(words), "{line:?}");
        if outcome == "delivered" {
            hop.message_for("bob", 1).is(TEXT);
            let lines = hop.program.log();
            assert!(
                lines.iter().any(|line| line.contains(" A=only:anna ")),
                "{lines:#?}"
            );
        }
    }
}

/// What a domain's records come to, with NSD to ask and Postfix on port 25.
#[test]
fn mail_goes_where_its_mx_is() {
    on_everybodys_port_25("mail_goes_where_its_mx_is", || {
        let rows = [
            // Domain, outcome, and words of the reason.
            ("plain.test", "delivered", ""),
            ("alias.test", "delivered", ""),
            ("no-mx.test", "delivered", ""),
            // More records than a datagram holds, and only one host that is there.
            ("big.test", "delivered", ""),
            ("null.test", "bounced", "null MX"),
            ("absent.test", "bounced", "does not exist"),
            ("broken.test", "deferred", "SERVFAIL"),
        ];
        let mut records = vec![
            ("mx.postfix.test", "A", "127.0.0.1"),
            ("plain.test", "MX", "10 mx.postfix.test."),
            ("alias.test", "MX", "10 mx.alias.test."),
            ("mx.alias.test", "CNAME", "mx.postfix.test."),
            ("no-mx.test", "A", "127.0.0.1"),
            ("big.test", "MX", "10 mx.postfix.test."),
            ("null.test", "MX", "0 ."),
            ("broken.test", "SERVFAIL", ""),
        ];
        let others: Vec<String> = (0..300).map(|n| format!("20 mx{n}.big.test.")).collect();
        records.extend(others.iter().map(|data| ("big.test", "MX", data.as_str())));
        let names = NameServer::start(&records);
        let domains = rows.map(|row| row.0).join(", ");
        let settings = format!("virtual_mailbox_domains = {domains}");
        let postfix = Postfix::start_on_port_25(&certificate("mx.postfix.test"), &settings);
        let server = relay("mx")
            .flag("--dns", names.address().to_string())
            .flag("--retry-schedule", "1h")
            .start();
        let to = rows.map(|row| format!("bob@{}", row.0));
        send(&server, &to.each_ref().map(String::as_str), TEXT);
        for ((_, outcome, words), to) in rows.iter().zip(&to) {
            let line = attempt(&server, to, outcome);
            assert!(line.reason.contains(words), "{line:?}");
        }
        let taken = rows.iter().filter(|row| row.1 == "delivered").count();
        let messages = postfix.await_messages(taken);
        assert_eq!(messages.len(), taken);
        for message in &messages {
            assert!(to[..taken].contains(&message.to), "{}", message.to);
            message.is(TEXT);
        }
        let line = attempt(&server, &to[0], "delivered");
        assert_eq!(line.hop, "mx.postfix.test[127.0.0.1]:25");
    });
}

/// A report that travels as mail does, through Postfix, to a program that reads reports: Python's `email`.
#[test]
fn a_report_is_read_at_its_destination() {
    let text = b"Message-ID: <1@client.test>\r\nSubject: lunch\r\n\r\n.\r\n\xc3\xa9\r\n";
    for (ret, original_type, has_body) in [
        ("FULL", "message/rfc822", true),
        ("HDRS", "text/rfc822-headers", false),
    ] {
        let hop = postfix("");
        let server = relay(&hop.target).start();
        let from = format!("<carol@postfix.test> BODY=8BITMIME RET={ret} ENVID=lunch+2D1");
        send_as(&server, &from, &["<unknown@postfix.test>"], text);
        let report = hop.message_for("carol", 1);
        assert_eq!(report.from, "", "the reverse-path");
        let read = run(program("python3").args(["-c", READ_REPORT]), &report.octets).succeeded();
        let mut read: Value = serde_json::from_str(&read.out).unwrap();
        let words = read["recipients"][0]["Diagnostic-Code"].take();
        assert!(
            words.as_str().unwrap().starts_with("smtp; 550 5.1.1 "),
            "{words}"
        );
        let expected = json!({
            "type": "multipart/report",
            "report_type": "delivery-status",
            "to": "carol@postfix.test",
            "parts": ["text/plain", "message/delivery-status", original_type],
            "defects": [],
            "names_recipient": true,
            "message": {"Reporting-MTA": "dns; mx.test", "Original-Envelope-Id": "lunch-1"},
            "recipients": [{
                "Final-Recipient": "rfc822; unknown@postfix.test",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; [127.0.0.1]",
                "Diagnostic-Code": null,
            }],
            "original": {"Message-ID": "<1@client.test>", "Subject": "lunch"},
            "has_body": has_body,
        });
        assert_eq!(read, expected, "{ret}");
        server.await_delivery();
    }
}

/// Prints what it finds in the message on standard input.
const READ_REPORT: &str = r#"
import email, email.policy, json, sys

report = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
text, status, original = report.iter_parts()
message, *recipients = status.get_payload()
if original.get_content_type() == "message/rfc822":
    returned = original.get_content()
    has_body = returned.get_payload(decode=True) == b".\n\xc3\xa9\n"
else:
    returned = email.message_from_string(original.get_content(), policy=email.policy.default)
    has_body = bool(returned.get_payload().strip())

def some(fields, *names):
    return {name: fields[name] for name in names}

print(json.dumps({
    "type": report.get_content_type(),
    "report_type": report["Content-Type"].params["report-type"],
    "to": report["To"].addresses[0].addr_spec,
    "parts": [part.get_content_type() for part in report.iter_parts()],
    "defects": [repr(defect) for part in report.walk() for defect in part.defects],
    "names_recipient": "unknown@postfix.test" in text.get_content(),
    "message": some(message, "Reporting-MTA", "Original-Envelope-Id"),
    "recipients": [
        some(one, "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code") for one in recipients
    ],
    "original": some(returned, "Message-ID", "Subject"),
    "has_body": has_body,
}))
"#;
