//! The port policy of the contract, each row and each line below it, against the real binary.
//!
//! Apart from the other tests because it is a promise made as a table: whoever changes a row finds
//! the test of the same number here. Not here: the 454 for a key that is unusable at that moment,
//! which nothing outside the process can bring about (a broken file at a reload leaves the old pair
//! in place); the protocol core's transcripts have it.

#![cfg(test)]

mod support;

use std::time::Duration;

use support::metrics::get;
use support::server::Setup;
use support::{Client, Reply, Server};

const AUTH_LINE: &str = "AUTH PLAIN LOGIN";
const NOT_IMPLEMENTED: &str = "502 5.5.1 Command not implemented";
/// NUL "alice" NUL "wonderland", in base64.
const ALICE_RIGHT: &str = "AGFsaWNlAHdvbmRlcmxhbmQ=";
/// NUL "alice" NUL "looking glass", in base64.
const ALICE_WRONG: &str = "AGFsaWNlAGxvb2tpbmcgZ2xhc3M=";

/// How a session came to stand where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Clear,
    Starttls,
    TlsPort,
}

fn open(server: &Server, way: Way) -> Client {
    match way {
        Way::Clear => server.client(),
        Way::Starttls => server.client().starttls(),
        Way::TlsPort => server.tls_client(),
    }
}

fn setup() -> Setup {
    Setup::new().users(&[("alice", "wonderland")])
}

/// What AUTH does where the policy offers it: right and wrong, by both mechanisms.
fn expect_auth(server: &Server, way: Way) {
    let context = format!("{way:?}");
    let mut client = open(server, way);
    assert!(client.ehlo().lists(AUTH_LINE), "{context}");
    client
        .say(&format!("AUTH PLAIN {ALICE_WRONG}"))
        .begins("535 5.7.8");
    client
        .say(&format!("AUTH PLAIN {ALICE_RIGHT}"))
        .begins("235 2.7.0");
    // RFC 4954 §4: no second AUTH in a session that has one.
    client
        .say(&format!("AUTH PLAIN {ALICE_RIGHT}"))
        .begins("503 5.5.1");
    client.quit();

    let mut client = open(server, way);
    client.ehlo();
    client.say("AUTH LOGIN").is("334 VXNlcm5hbWU6");
    client.say("YWxpY2U=").is("334 UGFzc3dvcmQ6");
    client.say("d29uZGVybGFuZA==").begins("235 2.7.0");
    client.quit();
}

/// What AUTH does where the policy does not offer it: as if it did not exist.
fn expect_no_auth(server: &Server, way: Way) {
    let mut client = open(server, way);
    assert!(!client.ehlo().lists_keyword("AUTH"), "{way:?}");
    client
        .say(&format!("AUTH PLAIN {ALICE_RIGHT}"))
        .is(NOT_IMPLEMENTED);
    client.say("AUTH LOGIN").is(NOT_IMPLEMENTED);
    client.quit();
}

/// Rows 1 to 5 as the whole 2 × 2 × 3 of settings and channels.
#[test]
fn rows_1_to_5_auth_by_setting_and_channel() {
    for tcp_auth in ["no", "yes"] {
        for tls_auth in ["no", "yes"] {
            let server = setup()
                .flag("--tcp-auth", tcp_auth)
                .flag("--tls-auth", tls_auth)
                .start();
            for way in [Way::Clear, Way::Starttls, Way::TlsPort] {
                let setting = if way == Way::Clear {
                    tcp_auth
                } else {
                    tls_auth
                };
                match setting {
                    "yes" => expect_auth(&server, way),
                    _ => expect_no_auth(&server, way),
                }
            }
        }
    }
}

#[test]
fn row_4_starttls_auth_needs_no_tls_port() {
    let server = setup()
        .without("--listen-tls")
        .flag("--tcp-auth", "no")
        .flag("--tls-auth", "yes")
        .start();
    assert_eq!(
        server.find_listener("tls"),
        None,
        "no TLS port was asked for"
    );
    expect_no_auth(&server, Way::Clear);
    expect_auth(&server, Way::Starttls);
}

#[test]
fn the_tls_port_needs_no_tcp_port() {
    let server = setup()
        .without("--listen")
        .flag("--tls-auth", "yes")
        .start();
    assert_eq!(
        server.find_listener("tcp"),
        None,
        "no TCP port was asked for"
    );
    expect_auth(&server, Way::TlsPort);
}

/// Row 6: each channel's own setting, the other one ignored.
#[test]
fn row_6_mail_before_auth_where_anonymous_is_no() {
    for (tcp_anonymous, tls_anonymous) in [("no", "yes"), ("yes", "no"), ("no", "no")] {
        let server = setup()
            .flag("--tcp-auth", "yes")
            .flag("--tls-auth", "yes")
            .flag("--tcp-anonymous", tcp_anonymous)
            .flag("--tls-anonymous", tls_anonymous)
            .start();
        for way in [Way::Clear, Way::Starttls, Way::TlsPort] {
            let anonymous = if way == Way::Clear {
                tcp_anonymous
            } else {
                tls_anonymous
            };
            let mut client = open(&server, way);
            client.ehlo();
            if anonymous == "yes" {
                client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
            } else {
                client
                    .say("MAIL FROM:<a@b.test>")
                    .is("530 5.7.0 Authentication required");
                client
                    .say(&format!("AUTH PLAIN {ALICE_RIGHT}"))
                    .begins("235 2.7.0");
                client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
            }
            client.quit();
        }
    }
}

#[test]
fn starttls_is_listed_in_clear_by_ehlo_only() {
    for starttls in ["on", "required", "off"] {
        let server = Setup::new().flag("--starttls", starttls).start();
        let mut client = server.client();
        assert_eq!(
            client.ehlo().lists("STARTTLS"),
            starttls != "off",
            "{starttls}"
        );
        let helo = client.say("HELO client.test");
        assert_eq!((helo.code, helo.lines.len()), (250, 1), "{helo:?}");
        client.quit();

        let mut client = server.tls_client();
        assert!(
            !client.ehlo().lists_keyword("STARTTLS"),
            "TLS port, {starttls}"
        );
        client.quit();
        if starttls != "off" {
            let mut client = server.client().starttls();
            assert!(
                !client.ehlo().lists_keyword("STARTTLS"),
                "inside TLS, {starttls}"
            );
            client.quit();
        }
    }
}

#[test]
fn starttls_out_of_place() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.say("STARTTLS").begins("503 5.5.1");
    client.ehlo();
    client.say("STARTTLS now").begins("501 5.5.4");
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client.say("STARTTLS").begins("503 5.5.1");
    client.say("RSET").begins("250 2.0.0");
    client.say("STARTTLS").is("220 2.0.0 Ready to start TLS");
    let mut client = client.secure();

    // The session is as new (RFC 3207 §4.2): what was said in clear is forgotten.
    client.say("MAIL FROM:<a@b.test>").begins("503 5.5.1");
    client.ehlo();
    client.say("STARTTLS").begins("503 5.5.1");
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client.quit();

    // The TLS port has TLS already.
    let mut client = server.tls_client();
    client.ehlo();
    client.say("STARTTLS").begins("503 5.5.1");
    client.quit();
}

#[test]
fn starttls_off_is_not_implemented() {
    let server = Setup::new().flag("--starttls", "off").start();
    let mut client = server.client();
    client.ehlo();
    client.say("STARTTLS").begins("502 5.5.1");
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client.quit();
}

#[test]
fn starttls_required_accepts_nothing_in_clear() {
    let server = setup()
        .flag("--starttls", "required")
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
        .start();
    let mut client = server.client();
    assert!(client.ehlo().lists("STARTTLS"));
    for (line, reply) in [
        ("NOOP", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("HELP", "214 2.0.0"),
        (
            "MAIL FROM:<a@b.test>",
            "530 5.7.0 Must issue a STARTTLS command first",
        ),
        (
            "RCPT TO:<u@example.test>",
            "530 5.7.0 Must issue a STARTTLS command first",
        ),
        ("DATA", "530 5.7.0 Must issue a STARTTLS command first"),
        ("VRFY u", "530 5.7.0 Must issue a STARTTLS command first"),
        ("EXPN u", "530 5.7.0 Must issue a STARTTLS command first"),
    ] {
        client.say(line).begins(reply);
    }
    // BDAT's octets follow it in the stream whatever it is told: they must not be run as commands.
    client.send("BDAT 6 LAST\r\nQUIT\r\n");
    client
        .reply()
        .is("530 5.7.0 Must issue a STARTTLS command first");
    client.say("STARTTLS").is("220 2.0.0 Ready to start TLS");
    let mut client = client.secure();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], b"Subject: x\r\n\r\nx\r\n")
        .begins("250 2.0.0");
    client.quit();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 1);

    // The TLS port is inside TLS from the first octet: nothing more is required there.
    let mut client = server.tls_client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    client.quit();
}

/// CVE-2011-0411 and its kin: commands that came in clear behind STARTTLS.
#[test]
fn injection_behind_starttls_in_one_segment() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    client.send(
        "STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<u@example.test>\r\n\
         DATA\r\nSubject: injected\r\n\r\nx\r\n.\r\n",
    );
    let rest = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    assert!(
        rest.is_empty() || rest == "220 2.0.0 Ready to start TLS\r\n",
        "{rest:?}"
    );
    assert!(server.maildir("example.test", "u").messages().is_empty());
    let scrape = server.scrape();
    assert_eq!(
        scrape.sum("ringpost_refusals_total", &[("reason", "injection")]),
        1
    );
    server.log().await_line("line about the injection", |line| {
        line.to_ascii_lowercase().contains("inject") || line.contains("behind STARTTLS")
    });
}

#[test]
fn injection_behind_starttls_in_two_segments() {
    let server = Setup::new().start();
    let mut client = server.client();
    client.ehlo();
    client.send("STARTTLS\r\n");
    // Before the handshake but in a segment of its own; whether it meets the server before or after
    // its 220 is the network's choice.
    client.send("EHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\n");
    let rest = client.read_to_end();
    let ready = b"220 2.0.0 Ready to start TLS\r\n";
    let rest = rest.strip_prefix(ready.as_slice()).unwrap_or(&rest);
    expect_no_smtp(rest);

    // And with a handshake behind it: the session must not get as far as that.
    let mut client = server.client();
    client.ehlo();
    client.say("STARTTLS").is("220 2.0.0 Ready to start TLS");
    client.send("MAIL FROM:<evil@b.test>\r\n");
    let connector = support::Authority::shared().connector().build();
    let outcome = client.secure_with(connector.configure().unwrap(), "mx.test");
    assert!(
        outcome.is_err(),
        "the handshake went through with clear octets before it"
    );

    let mut client = server.client();
    client.ehlo();
    client.quit();
}

#[test]
fn plaintext_on_the_tls_port_gets_no_smtp_reply() {
    let server = Setup::new().start();
    for octets in [
        "EHLO client.test\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "QUIT\r\n",
        "\r\n\r\n\r\n",
    ] {
        let mut client = Client::connect(server.tls());
        client.send(octets);
        client.shutdown_writing();
        expect_no_smtp(&client.read_to_end());
    }
    // It is silent until the client speaks, too.
    let mut client = Client::connect(server.tls());
    assert!(client.silent_for(Duration::from_millis(200)));
    let mut client = client.secure();
    client.expect(220);
    client.quit();
}

/// Nothing at all, or a TLS alert record (RFC 8446 §5.1: type 21, version 3.x).
#[track_caller]
fn expect_no_smtp(octets: &[u8]) {
    assert!(
        octets.is_empty() || octets.starts_with(&[21, 3]),
        "{:?}",
        String::from_utf8_lossy(octets)
    );
}

#[test]
fn relay_is_open_to_nobody_anonymous() {
    let server = setup()
        .flag("--tcp-auth", "yes")
        .flag("--tls-auth", "yes")
        .start();
    for way in [Way::Clear, Way::Starttls, Way::TlsPort] {
        let mut client = open(&server, way);
        client.ehlo();
        client.say("MAIL FROM:<a@example.test>").begins("250 2.1.0");
        client.say("RCPT TO:<u@elsewhere.test>").begins("550 5.7.1");
        client
            .say("RCPT TO:<u%elsewhere.test@other.test>")
            .begins("550 5.7.1");
        client
            .say("RCPT TO:<@example.test:u@elsewhere.test>")
            .begins("550 5.7.1");
        client
            .say("RCPT TO:<u@example.test.elsewhere.test>")
            .begins("550 5.7.1");
        client.say("RCPT TO:<u@[192.0.2.1]>").begins("550 5.7.1");
        client.say("RCPT TO:<u@EXAMPLE.test>").begins("250 2.1.5");
        client.say("RSET").begins("250 2.0.0");
        client
            .say(&format!("AUTH PLAIN {ALICE_RIGHT}"))
            .begins("235 2.7.0");
        client
            .say("MAIL FROM:<alice@example.test>")
            .begins("250 2.1.0");
        client.say("RCPT TO:<u@elsewhere.test>").begins("250 2.1.5");
        client.quit();
    }
}

#[test]
fn a_trusted_net_may_relay_without_auth() {
    for (net, code) in [("127.0.0.0/8", 250), ("192.0.2.0/24", 550)] {
        let server = Setup::new().flag("--trusted-net", net).start();
        let mut client = server.client();
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
        let reply: Reply = client.say("RCPT TO:<u@elsewhere.test>");
        assert_eq!(reply.code, code, "{net}: {reply:?}");
        client.quit();
    }
}

#[test]
fn auth_failures_are_ended_after_max_errors() {
    let server = setup()
        .flag("--tls-auth", "yes")
        .flag("--max-errors", "3")
        .start();
    let mut client = server.tls_client();
    client.ehlo();
    let mut replies = Vec::new();
    while let Some(code) = try_auth(&mut client) {
        replies.push(code);
        assert!(replies.len() <= 3, "{replies:?}");
    }
    assert_eq!(replies.first(), Some(&535), "{replies:?}");
    client.read_to_end();
    let (status, _) = get(server.listener("metrics"), "/healthz");
    assert_eq!(status, 200);
}

/// One wrong AUTH; `None` once the server has said 421.
fn try_auth(client: &mut Client) -> Option<u16> {
    let reply = client.say(&format!("AUTH PLAIN {ALICE_WRONG}"));
    if reply.code == 421 {
        reply.begins("421 4.7.0");
        return None;
    }
    if reply.code == 535 && client.silent_for(Duration::from_millis(50)) {
        return Some(535);
    }
    // The 421 may ride behind the last 535.
    client.expect(421).begins("421 4.7.0");
    None
}
