//! AUTH towards next hops: credentials leave inside TLS only, and a wrong password loses no mail.

#![cfg(test)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::sending::{assert_no_report, attempt, attempts, queue, relay, send};
use support::sink::{Login, Point::*, Script, Tls};
use support::{Authority, KeyKind, Setup, Sink, TEXT};

const BOB: &str = "bob@hop.test";

fn tls() -> Tls {
    Tls::with(&Authority::shared().issue(&["localhost"], KeyKind::Ecdsa))
}

/// A relay that logs in at `domain` as anna, with this password.
fn logs_in(sink: &Sink, protocol: &str, domain: &str, password: &str) -> Setup {
    let setup = relay(&sink.target_named(protocol, "localhost")).flag("--retry-schedule", "1h");
    let file = setup.path("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let ca = setup.path("ca.crt").display().to_string();
    setup
        .flag("--out-ca", ca)
        .flag("--out-auth", format!("{domain}=anna:{}", file.display()))
}

fn login(mechanism: &str) -> Login {
    Login {
        mechanism: mechanism.to_owned(),
        name: "anna".to_owned(),
        password: "secret".to_owned(),
        is_inside_tls: true,
    }
}

#[test]
fn the_login_of_a_hop_or_a_domain_is_used_inside_tls() {
    let script = || Script::smtp().tls(tls()).auth("anna", "secret");
    let at_once = || Script::smtp().tls_at_once(tls()).auth("anna", "secret");
    let rows = [
        ("by the hop", "smtp", "localhost", script(), "PLAIN"),
        (
            "by the recipient's domain",
            "smtp",
            "hop.test",
            script(),
            "PLAIN",
        ),
        ("whatever the case", "smtp", "LocalHost", script(), "PLAIN"),
        ("smtps", "smtps", "localhost", at_once(), "PLAIN"),
        (
            "LOGIN alone",
            "smtp",
            "localhost",
            script().with("AUTH LOGIN"),
            "LOGIN",
        ),
        (
            "among others",
            "smtp",
            "localhost",
            script().with("AUTH CRAM-MD5 LOGIN PLAIN"),
            "PLAIN",
        ),
        (
            "listed inside only",
            "smtp",
            "localhost",
            script().without("AUTH").inside(&["AUTH PLAIN"]),
            "PLAIN",
        ),
    ];
    for (name, protocol, domain, script, mechanism) in rows {
        let sink = Sink::start(script);
        let server = logs_in(&sink, protocol, domain, "secret").start();
        send(&server, &[BOB], TEXT);
        assert!(sink.only().is_inside_tls, "{name}");
        assert_eq!(sink.connections(1)[0].logins, [login(mechanism)], "{name}");
        for line in server.log_to_end() {
            assert!(
                !line.contains("secret") && !line.contains("c2VjcmV0"),
                "{name}: {line}"
            );
        }
    }
}

/// Without TLS there is no login, and without the login no mail.
#[test]
fn a_password_never_leaves_in_clear() {
    let wants = || Script::smtp().auth("anna", "secret");
    let rows = [
        ("not listed", wants()),
        (
            "refused",
            wants().tls(tls()).at(StartTls, "454 4.7.0 not now"),
        ),
        (
            "handshake failed",
            wants().tls(tls()).at(Handshake, "what?"),
        ),
    ];
    for (name, script) in rows {
        for clear_after in ["no", "yes"] {
            let sink = Sink::start(script.clone());
            let server = logs_in(&sink, "smtp", "localhost", "secret")
                .flag("--out-clear-after-tls-failure", clear_after)
                .start();
            send(&server, &[BOB], TEXT);
            let line = attempt(&server, BOB, "deferred");
            assert!(!line.reason.is_empty(), "{name}");
            sink.books(|books| {
                let said = |beginning| books.connections.iter().any(|one| one.has_said(beginning));
                assert!(!said("AUTH") && !said("MAIL"), "{name}");
            });
        }
    }
}

#[test]
fn a_login_that_fails_defers_the_mail() {
    let script = || Script::smtp().tls(tls()).auth("anna", "secret");
    let rows = [
        ("wrong password", script(), "wrong"),
        (
            "unavailable",
            script().at(Auth.first(1), "454 4.7.0 no verdict"),
            "secret",
        ),
        ("no AUTH listed", script().without("AUTH"), "secret"),
        (
            "no mechanism of ours",
            script().with("AUTH CRAM-MD5"),
            "secret",
        ),
    ];
    for (name, script, password) in rows {
        let sink = Sink::start(script);
        let server = logs_in(&sink, "smtp", "localhost", password).start();
        let id = send(&server, &[BOB], TEXT);
        let line = attempt(&server, BOB, "deferred");
        assert!(!line.reason.contains(password), "{name}: {line:?}");
        sink.books(|books| {
            let has_sent = books.connections.iter().any(|one| one.has_said("MAIL"));
            assert!(!has_sent, "{name}");
        });
        assert_eq!(attempts(&server, BOB, "bounced"), 0, "{name}");
        sink.play(Script::smtp().tls(tls()).auth("anna", password));
        queue(&server, &["retry", &id]).succeeded();
        sink.only();
        server.await_delivery();
        assert_no_report(&server);
    }
}

/// Another hop's login is nobody else's.
#[test]
fn a_hop_without_a_login_gets_none() {
    let sink = Sink::start(Script::smtp().tls(tls()).with("AUTH PLAIN"));
    let server = logs_in(&sink, "smtp", "elsewhere.test", "secret").start();
    send(&server, &[BOB], TEXT);
    assert!(sink.only().is_inside_tls);
    assert_eq!(sink.connections(1)[0].logins, []);
}
