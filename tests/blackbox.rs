//! SMTP clients that nobody here wrote, against the real binary: swaks, Postfix's smtp-source and
//! Python's smtplib. Those that speak TLS and leave SMTP to us are in `blackbox_tls.rs`.
//!
//! They read the RFCs without us, so they find what our own client and server would agree on
//! wrongly. `tests/run` installs them; a missing one fails, it is not skipped.

#![cfg(test)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use support::programs::{Ended, program, run};
use support::server::{Server, Setup};

fn setup() -> Setup {
    Setup::new()
        .users(&[("alice", "wonderland")])
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
}

// ---------------------------------------------------------------- swaks

/// A swaks command that checks the server's certificate wherever it meets one.
fn swaks(server: &Server, address: SocketAddr) -> Command {
    let mut command = program("swaks");
    command
        .args([
            "--server",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
        ])
        .args([
            "--ehlo",
            "client.test",
            "--from",
            "a@b.test",
            "--to",
            "u@example.test",
        ])
        .args(["--tls-verify", "--tls-ca-path"])
        .arg(server.path("ca.crt"))
        .args(["--tls-sni", "mx.test"])
        // No home directory's .swaksrc.
        .env("HOME", server.path("."));
    command
}

#[test]
fn swaks_delivers_in_clear_by_starttls_and_on_the_tls_port() {
    let server = setup().start();
    for (way, address, flag, with) in [
        ("clear", server.tcp(), None, "ESMTP"),
        ("starttls", server.tcp(), Some("--tls"), "ESMTPS"),
        ("tls port", server.tls(), Some("--tlsc"), "ESMTPS"),
    ] {
        let local_part = format!("u{}", fastrand::u32(..));
        let to = format!("{local_part}@example.test");
        let text = format!("Subject: {way}\n\n.\n..dots\nlast line, {way}\n");
        let mut command = swaks(&server, address);
        command.args(["--to", &to, "--data", "-"]).args(flag);
        run(&mut command, &text).succeeded();
        let maildir = server.maildir("example.test", &local_part);
        maildir.check();
        let delivered = maildir.only();
        let parts = delivered.parts();
        assert_eq!(parts.return_path, "Return-Path: <a@b.test>");
        assert_eq!(parts.with(), with);
        // swaks ends its text with an empty line of its own.
        let message = String::from_utf8_lossy(parts.message).into_owned();
        assert_eq!(message.trim_end(), text.trim_end(), "{way}");
    }
}

#[test]
fn swaks_authenticates_right_and_wrong() {
    let server = setup().start();
    for mechanism in ["PLAIN", "LOGIN"] {
        for flag in [None, Some("--tls"), Some("--tlsc")] {
            let address = if flag == Some("--tlsc") {
                server.tls()
            } else {
                server.tcp()
            };
            let mut command = swaks(&server, address);
            command
                .args(["--auth", mechanism, "--auth-user", "alice"])
                .args([
                    "--auth-password",
                    "wonderland",
                    "--to",
                    "far@elsewhere.test",
                ])
                .args(flag);
            let ended = run(&mut command, "").succeeded();
            assert!(ended.out.contains("235 2.7.0"), "{ended:#?}");

            let mut command = swaks(&server, address);
            command
                .args(["--auth", mechanism, "--auth-user", "alice"])
                .args(["--auth-password", "looking glass"])
                .args(flag);
            let ended = run(&mut command, "");
            assert_eq!(
                ended.code,
                Some(28),
                "28 is swaks' exit status for AUTH: {ended:#?}"
            );
            assert!(ended.out.contains("535 5.7.8"), "{ended:#?}");
        }
    }
    let relayed = server.maildir("elsewhere.test", "far").messages();
    assert_eq!(relayed.len(), 6);
    assert!(
        relayed
            .iter()
            .all(|message| message.parts().with().starts_with("ESMTP"))
    );
    assert!(server.maildir("example.test", "u").messages().is_empty());
}

#[test]
fn swaks_pipelines() {
    let server = setup().start();
    for flag in [None, Some("--tls"), Some("--tlsc")] {
        let address = if flag == Some("--tlsc") {
            server.tls()
        } else {
            server.tcp()
        };
        let mut command = swaks(&server, address);
        command.args([
            "--pipeline",
            "--to",
            "one@example.test,two@example.test,three@mx.test",
        ]);
        run(command.args(flag), "").succeeded();
    }
    for (domain, local_part) in [
        ("example.test", "one"),
        ("example.test", "two"),
        ("mx.test", "three"),
    ] {
        let maildir = server.maildir(domain, local_part);
        maildir.check();
        assert_eq!(maildir.messages().len(), 3, "{local_part}");
    }
    // A group with a refusal in it stays in step.
    let mut command = swaks(&server, server.tcp());
    command.args(["--pipeline", "--to", "one@example.test,u@elsewhere.test"]);
    let ended = run(&mut command, "").succeeded();
    assert!(ended.out.contains("550 5.7.1"), "{ended:#?}");
    assert_eq!(server.maildir("example.test", "one").messages().len(), 4);
}

#[test]
fn swaks_is_refused_a_relay_and_an_oversized_message() {
    let server = setup().flag("--max-message-bytes", "4k").start();
    let ended = run(
        swaks(&server, server.tcp()).args(["--to", "u@elsewhere.test"]),
        "",
    );
    assert_eq!(
        ended.code,
        Some(24),
        "24 is swaks' exit status for RCPT: {ended:#?}"
    );
    // swaks announces no SIZE, so it is the data that is too long: found out while it comes, told
    // behind its end, and the dialogue keeps step until QUIT.
    let text = format!(
        "Subject: long\n\n{}",
        format!("{}\n", "x".repeat(70)).repeat(100)
    );
    fs::write(server.path("oversized"), text).unwrap();
    let oversized = format!("@{}", server.path("oversized").display());
    let mut command = swaks(&server, server.tcp());
    let ended = run(command.args(["--data", &oversized]), "");
    assert_eq!(
        ended.code,
        Some(26),
        "26 is swaks' exit status for DATA: {ended:#?}"
    );
    assert!(ended.out.contains("552 5.3.4"), "{ended:#?}");
    assert!(ended.out.contains("221 2.0.0"), "{ended:#?}");
    assert!(server.maildir("example.test", "u").messages().is_empty());
}

/// RFC 5321 §4.1.1.1 has HELO for those that know no EHLO.
#[test]
fn swaks_says_helo_and_meets_a_server_of_old() {
    let server = setup().start();
    run(
        swaks(&server, server.tcp()).args(["--protocol", "SMTP"]),
        "",
    )
    .succeeded();
    assert_eq!(
        server.maildir("example.test", "u").only().parts().with(),
        "SMTP"
    );
}

// ---------------------------------------------------------------- smtp-source

fn smtp_source(server: &Server, extra: &[&str]) -> Ended {
    let mut command = program("smtp-source");
    command
        .args(["-s", "20", "-m", "200", "-l", "2048", "-M", "client.test"])
        .args(["-f", "a@b.test", "-t", "u@example.test"])
        .args(extra)
        .arg(format!("127.0.0.1:{}", server.tcp().port()));
    run(&mut command, "").succeeded()
}

#[test]
fn smtp_source_to_discard_is_counted_exactly() {
    let setup = setup().flag("--deliver", "discard").flag("--shards", "2");
    let server = setup.flag("--durability", "none").start();
    // One connection a message, then twenty connections that stay.
    for (extra, sessions) in [([].as_slice(), 200), (["-d"].as_slice(), 20)] {
        let before = server.scrape();
        smtp_source(&server, extra);
        let after = support::eventually("all sessions closed", || {
            let scrape = server.scrape();
            (scrape.sum("ringpost_sessions_open", &[]) == 0).then_some(scrape)
        });
        let moved = |name: &str, labels: &[(&str, &str)]| {
            after.sum(name, labels) - before.sum(name, labels)
        };
        assert_eq!(moved("ringpost_messages_total", &[]), 200, "{extra:?}");
        assert_eq!(
            moved("ringpost_sessions_total", &[("listener", "tcp")]),
            sessions,
            "{extra:?}"
        );
        assert_eq!(
            moved(
                "ringpost_replies_total",
                &[("verb", "data-end"), ("code", "250")]
            ),
            200
        );
    }
    assert!(!server.path("mail").join("example.test").exists());
}

#[test]
fn smtp_source_to_a_maildir_loses_nothing() {
    let server = setup().flag("--shards", "2").start();
    smtp_source(&server, &["-r", "2"]);
    server.await_delivery();
    // With -r the recipients are 1u@… and 2u@….
    let mut count = 0;
    for directory in support::maildir::files(&server.path("mail/example.test")) {
        let maildir = support::Maildir::new(directory);
        maildir.check();
        let messages = maildir.messages();
        count += messages.len();
        for message in messages {
            let parts = message.parts();
            // It says HELO.
            assert_eq!(parts.with(), "SMTP");
            assert!(parts.message.len() > 1900, "{} octets", parts.message.len());
        }
    }
    assert_eq!(count, 400);
}

// ---------------------------------------------------------------- Python

const SMTPLIB: &str = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
tcp, tls, ca = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

class Named(smtplib.SMTP):
    "Connects to the loopback address and checks the certificate for mx.test."
    def connect(self, host="", port=0, source_address=None):
        answer = super().connect("127.0.0.1", port, source_address)
        self._host = "mx.test"
        return answer

class NamedTls(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        import socket
        clear = socket.create_connection(("127.0.0.1", port), timeout)
        return self.context.wrap_socket(clear, server_hostname="mx.test")

context = ssl.create_default_context(cafile=ca)
eight_bit = b"Subject: eight bits\r\nContent-Type: text/plain; charset=latin-1\r\n\r\nGr\xfc\xdfe\r\n.\r\n..\r\n"

with Named("mx.test", tcp, timeout=60) as client:
    client.ehlo("client.test")
    assert client.has_extn("size") and client.has_extn("8bitmime") and client.has_extn("pipelining")
    client.starttls(context=context)
    client.ehlo("client.test")
    assert not client.has_extn("starttls")
    client.login("alice", "wonderland")
    refused = client.sendmail("a@b.test", ["starttls@example.test"], eight_bit, ["BODY=8BITMIME"])
    assert refused == {}, refused
    for mechanism in ("AUTH_PLAIN", "AUTH_LOGIN"):
        assert hasattr(client, mechanism.lower())

with NamedTls("mx.test", tls, timeout=60, context=context) as client:
    client.login("alice", "wonderland")
    message = EmailMessage(policy=SMTPUTF8)
    message["From"], message["To"] = "jos\u00e9@b.test", "gr\u00fc\u00dfe@example.test"
    message["Subject"] = "\u00dcber alles in der Welt: \u65e5\u672c"
    message.set_content("B\u00e4r\n", cte="8bit")
    assert client.has_extn("smtputf8")
    refused = client.send_message(message)
    assert refused == {}, refused

with NamedTls("mx.test", tls, timeout=60, context=context) as client:
    try:
        client.login("alice", "looking glass")
        raise SystemExit("a wrong password was good enough")
    except smtplib.SMTPAuthenticationError as error:
        assert error.smtp_code == 535, error

with smtplib.SMTP("127.0.0.1", tcp, timeout=60) as client:
    refused = client.sendmail("a@b.test", ["clear@example.test", "far@elsewhere.test"], eight_bit)
    assert list(refused) == ["far@elsewhere.test"] and refused["far@elsewhere.test"][0] == 550, refused
    assert client.vrfy("u")[0] == 252
    assert client.noop()[0] == 250 and client.rset()[0] == 250
    assert client.expn("u")[0] == 502
    assert client.help()
"#;

/// smtplib announces the size with MAIL (RFC 1870 §6.1): refused there, before any data.
#[test]
fn smtplib_announces_a_size_over_the_limit() {
    const SCRIPT: &str = r#"
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=60) as client:
    client.ehlo("client.test")
    assert client.esmtp_features["size"] == "4096", client.esmtp_features
    try:
        client.sendmail("a@b.test", ["u@example.test"], b"x" * 4097)
        raise SystemExit("it was accepted")
    except smtplib.SMTPSenderRefused as error:
        assert error.smtp_code == 552 and error.smtp_error.startswith(b"5.3.4 "), error
    assert client.sendmail("a@b.test", ["u@example.test"], b"x" * 4000) == {}
"#;
    let server = setup().flag("--max-message-bytes", "4k").start();
    let mut command = program("python3");
    command.args(["-c", SCRIPT, &server.tcp().port().to_string()]);
    run(&mut command, "").succeeded();
    let delivered = server.maildir("example.test", "u").only();
    assert!(delivered.parts().message.starts_with(b"xxxx"));
}

#[test]
fn smtplib_by_starttls_tls_and_clear() {
    let server = setup().start();
    let mut command = program("python3");
    command
        .args(["-c", SMTPLIB])
        .args([
            server.tcp().port().to_string(),
            server.tls().port().to_string(),
        ])
        .arg(server.path("ca.crt"));
    run(&mut command, "").succeeded();

    let eight_bit =
        b"Subject: eight bits\nContent-Type: text/plain; charset=latin-1\n\nGr\xfc\xdfe\n.\n..\n";
    let delivered = server.maildir("example.test", "starttls").only();
    let parts = delivered.parts();
    assert_eq!(
        (parts.with(), parts.message),
        ("ESMTPSA", eight_bit.as_slice())
    );
    let delivered = server.maildir("example.test", "clear").only();
    let parts = delivered.parts();
    assert_eq!(
        (parts.with(), parts.message),
        ("ESMTP", eight_bit.as_slice())
    );

    // A U-label's local part is a file name of UTF-8 or of %XX: of the two, the one that is there.
    let directories = support::maildir::files(&server.path("mail/example.test"));
    let utf8 = directories
        .iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("gr")
        })
        .unwrap_or_else(|| panic!("{directories:?}"));
    let maildir = support::Maildir::new(utf8.clone());
    maildir.check();
    let delivered = maildir.only();
    let parts = delivered.parts();
    assert_eq!(parts.with(), "UTF8SMTPSA");
    assert_eq!(parts.return_path, "Return-Path: <josé@b.test>");
    let message = String::from_utf8(parts.message.to_vec()).unwrap();
    assert!(
        message.contains("Über alles in der Welt: 日本") && message.contains("Bär"),
        "{message}"
    );
}
