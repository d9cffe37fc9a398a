//! TLS towards next hops: when it is used, what it proves, and what a failure leads to.

#![cfg(test)]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::LazyLock;

use openssl::ssl::SslVersion;
use rustix::process::Signal;
use support::dns::{Answer, Dns};
use support::sending::{
    attempt, attempts, relay, route, send, tls_failures, tls_sessions, tls_sessions_of_any_kind,
};
use support::sink::{Act, Point::*, Script, Tls, TlsSeen};
use support::{Authority, KeyKind, Pair, Setup, Sink, TEXT, eventually};

const BOB: &str = "bob@hop.test";

/// The hop's name. Not `localhost`, which has two addresses: a refusal by the other one would be told of as well.
const HOP: &str = "next.test";

/// Who knows that name; of the whole test program.
static NAMES: LazyLock<Dns> =
    LazyLock::new(|| Dns::start(&[(HOP, Answer::Address(Ipv4Addr::LOCALHOST.into()))]));

/// What one attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Sent inside TLS: the version, and whether the hop proved its name.
    Inside(&'static str, bool),
    /// Sent in clear, over the only connection or a second one.
    Clear { connections: usize },
    /// Not sent, without a handshake that failed.
    NoTls,
    /// Not sent, for the handshake failed: a part of the reason.
    Failed(&'static str),
}
use Outcome::*;

/// How the hop is named to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Name,
    Address,
}

struct Row {
    name: &'static str,
    script: Script,
    by: By,
    flags: &'static [(&'static str, &'static str)],
    outcome: Outcome,
}

fn row(
    name: &'static str,
    script: Script,
    flags: &'static [(&'static str, &'static str)],
    outcome: Outcome,
) -> Row {
    Row {
        name,
        script,
        by: By::Name,
        flags,
        outcome,
    }
}

fn valid() -> Pair {
    Authority::shared().issue(&[HOP, "127.0.0.1"], KeyKind::Ecdsa)
}

fn wrong_name() -> Pair {
    Authority::shared().issue(&["elsewhere.test"], KeyKind::Ecdsa)
}

fn unknown_ca() -> Pair {
    Authority::new("Other Root").issue(&[HOP], KeyKind::Ecdsa)
}

fn expired() -> Pair {
    Authority::shared().issue_expired(&[HOP])
}

fn self_signed() -> Pair {
    Pair::self_signed(&[HOP])
}

/// Offers STARTTLS with this certificate.
fn offers(pair: Pair) -> Script {
    Script::smtp().tls(Tls::with(&pair))
}

fn offers_at_most(version: SslVersion) -> Script {
    Script::smtp().tls(Tls::with(&valid()).at_most(version))
}

/// Lists STARTTLS and refuses it.
fn refuses(reply: &str) -> Script {
    offers(valid()).at(StartTls, reply)
}

/// Speaks TLS from the first octet.
fn at_once(pair: Pair) -> Script {
    Script::smtp().tls_at_once(Tls::with(&pair))
}

/// `--out-ca` of every row: the tests' own authority, and nothing of the system.
fn start(sink: &Sink, protocol: &str, by: By, flags: &[(&str, &str)]) -> Setup {
    let target = match by {
        By::Name => sink.target_named(protocol, HOP),
        By::Address => sink.target_by(protocol),
    };
    let setup = relay(&target).flag("--retry-schedule", "1h");
    let ca = setup.path("ca.crt").display().to_string();
    let setup = setup.flag("--out-ca", ca).flag("--dns", NAMES.address());
    let given = flags.iter();
    given.fold(setup, |setup, (flag, value)| setup.flag(flag, *value))
}

/// Plays every row: a message, its one attempt, and what the log, the metrics and the hop say of it.
fn play(protocol: &str, rows: Vec<Row>) {
    std::thread::scope(|scope| {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let part: Vec<Row> = rows.by_ref().take(6).collect();
            scope.spawn(move || part.into_iter().for_each(|row| play_one(protocol, row)));
        }
    });
}

fn play_one(protocol: &str, row: Row) {
    let Row {
        name,
        script,
        by,
        flags,
        outcome,
    } = row;
    let sink = Sink::start(script);
    let server = start(&sink, protocol, by, flags).start();
    let before = server.scrape();
    send(&server, &[BOB], TEXT);
    let expected = match outcome {
        Inside(..) | Clear { .. } => "delivered",
        NoTls | Failed(_) => "deferred",
    };
    let line = attempt(&server, BOB, expected);
    let scrape = server.scrape();
    let sessions = tls_sessions_of_any_kind(&scrape) - tls_sessions_of_any_kind(&before);
    let failures = tls_failures(&scrape) - tls_failures(&before);
    let connections = sink.books(|books| books.connections.len());
    match outcome {
        Inside(version, is_verified) => {
            assert!(sink.only().is_inside_tls, "{name}");
            assert_eq!(line.tls_version(), version, "{name}: {line:?}");
            assert_eq!(line.is_verified(), Some(is_verified), "{name}: {line:?}");
            let short = version.trim_start_matches("TLSv");
            assert_eq!(tls_sessions(&scrape, short, is_verified), 1, "{name}");
            assert_eq!((sessions, failures, connections), (1, 0, 1), "{name}");
        }
        Clear { connections: count } => {
            assert!(!sink.only().is_inside_tls, "{name}");
            assert!(line.is_clear(), "{name}: {line:?}");
            let failed = u64::from(count > 1);
            assert_eq!(
                (sessions, failures, connections),
                (0, failed, count),
                "{name}"
            );
        }
        NoTls | Failed(_) => {
            let (failed, reason) = match outcome {
                Failed(reason) => (1, reason),
                Inside(..) | Clear { .. } | NoTls => (0, ""),
            };
            let text = line.reason.to_ascii_lowercase();
            assert!(
                !text.is_empty() && text.contains(reason),
                "{name}: {line:?}"
            );
            assert_eq!((sessions, failures, connections), (0, failed, 1), "{name}");
            sink.books(|books| {
                let has_sent = books.connections.iter().any(|one| one.has_said("MAIL"));
                assert!(!has_sent && books.messages.is_empty(), "{name}");
            });
            assert_eq!(attempts(&server, BOB, "delivered"), 0, "{name}");
        }
    }
}

const OFF: &[(&str, &str)] = &[("--out-tls", "off")];
const NEGOTIATED: &[(&str, &str)] = &[];
const NEGOTIATED_VERIFIED: &[(&str, &str)] = &[("--out-verify", "yes")];
const REQUIRED: &[(&str, &str)] = &[("--out-tls", "required")];
const REQUIRED_UNVERIFIED: &[(&str, &str)] = &[("--out-tls", "required"), ("--out-verify", "no")];
const CLEAR_AFTER: &[(&str, &str)] = &[("--out-clear-after-tls-failure", "yes")];
const VERIFIED_CLEAR_AFTER: &[(&str, &str)] = &[
    ("--out-verify", "yes"),
    ("--out-clear-after-tls-failure", "yes"),
];
const REQUIRED_CLEAR_AFTER: &[(&str, &str)] = &[
    ("--out-tls", "required"),
    ("--out-clear-after-tls-failure", "yes"),
];

const ONE: Outcome = Clear { connections: 1 };
const SECOND: Outcome = Clear { connections: 2 };

#[test]
fn negotiated_takes_what_the_hop_offers() {
    let garbage = || offers(valid()).at(Handshake, "554 5.7.1 what is TLS?");
    let closes = || offers(valid()).at(Handshake, Act::Close);
    let injects = || offers(valid()).at(StartTls, "220 go on\r\n250 and this in clear");
    play(
        "smtp",
        vec![
            row(
                "listed",
                offers(valid()),
                NEGOTIATED,
                Inside("TLSv1.3", true),
            ),
            row(
                "TLS 1.2",
                offers_at_most(SslVersion::TLS1_2),
                NEGOTIATED,
                Inside("TLSv1.2", true),
            ),
            row(
                "wrong name",
                offers(wrong_name()),
                NEGOTIATED,
                Inside("TLSv1.3", false),
            ),
            row(
                "unknown CA",
                offers(unknown_ca()),
                NEGOTIATED,
                Inside("TLSv1.3", false),
            ),
            row(
                "self-signed",
                offers(self_signed()),
                NEGOTIATED,
                Inside("TLSv1.3", false),
            ),
            row(
                "expired",
                offers(expired()),
                NEGOTIATED,
                Inside("TLSv1.3", false),
            ),
            Row {
                by: By::Address,
                ..row(
                    "by address",
                    offers(valid()),
                    NEGOTIATED,
                    Inside("TLSv1.3", true),
                )
            },
            Row {
                by: By::Address,
                ..row(
                    "another address",
                    offers(expired()),
                    NEGOTIATED,
                    Inside("TLSv1.3", false),
                )
            },
            // RFC 3207 §4.2: what was listed in clear counts no more. The sink sees to that.
            row(
                "less inside",
                offers(valid()).inside(&[]),
                NEGOTIATED,
                Inside("TLSv1.3", true),
            ),
            row("not listed", Script::smtp(), NEGOTIATED, ONE),
            row(
                "HELO",
                offers(valid()).at(Ehlo, "502 5.5.1 what?"),
                NEGOTIATED,
                ONE,
            ),
            row("refused 454", refuses("454 4.7.0 not now"), NEGOTIATED, ONE),
            row("refused 502", refuses("502 5.5.1 never"), NEGOTIATED, ONE),
            row(
                "TLS 1.0",
                offers_at_most(SslVersion::TLS1),
                NEGOTIATED,
                Failed("version"),
            ),
            row(
                "TLS 1.1",
                offers_at_most(SslVersion::TLS1_1),
                NEGOTIATED,
                Failed("version"),
            ),
            row("garbage", garbage(), NEGOTIATED, Failed("")),
            row("closed", closes(), NEGOTIATED, Failed("")),
            // An injection (RFC 3207 §6) is no failure of TLS: there is no handshake, and no clear connection either.
            row("octets behind the 220", injects(), NEGOTIATED, NoTls),
            row(
                "octets behind the 220, no clear",
                injects(),
                CLEAR_AFTER,
                NoTls,
            ),
            row(
                "TLS 1.0, clear then",
                offers_at_most(SslVersion::TLS1),
                CLEAR_AFTER,
                SECOND,
            ),
            row("garbage, clear then", garbage(), CLEAR_AFTER, SECOND),
            row("closed, clear then", closes(), CLEAR_AFTER, SECOND),
            row(
                "no failure, no clear",
                offers(expired()),
                CLEAR_AFTER,
                Inside("TLSv1.3", false),
            ),
        ],
    );
}

#[test]
fn verified_takes_only_a_proven_name() {
    play(
        "smtp",
        vec![
            row(
                "valid",
                offers(valid()),
                NEGOTIATED_VERIFIED,
                Inside("TLSv1.3", true),
            ),
            row(
                "wrong name",
                offers(wrong_name()),
                NEGOTIATED_VERIFIED,
                Failed("name"),
            ),
            row(
                "unknown CA",
                offers(unknown_ca()),
                NEGOTIATED_VERIFIED,
                Failed("issuer"),
            ),
            row(
                "self-signed",
                offers(self_signed()),
                NEGOTIATED_VERIFIED,
                Failed("self-signed"),
            ),
            row(
                "expired",
                offers(expired()),
                NEGOTIATED_VERIFIED,
                Failed("expired"),
            ),
            Row {
                by: By::Address,
                ..row(
                    "by address",
                    offers(valid()),
                    NEGOTIATED_VERIFIED,
                    Inside("TLSv1.3", true),
                )
            },
            Row {
                by: By::Address,
                ..row(
                    "another address",
                    offers(wrong_name()),
                    NEGOTIATED_VERIFIED,
                    Failed("address"),
                )
            },
            row("not listed", Script::smtp(), NEGOTIATED_VERIFIED, ONE),
            row(
                "refused",
                refuses("454 4.7.0 not now"),
                NEGOTIATED_VERIFIED,
                ONE,
            ),
            row(
                "wrong name, clear then",
                offers(wrong_name()),
                VERIFIED_CLEAR_AFTER,
                SECOND,
            ),
        ],
    );
}

#[test]
fn required_sends_nothing_in_clear() {
    play(
        "smtp",
        vec![
            row("valid", offers(valid()), REQUIRED, Inside("TLSv1.3", true)),
            row("wrong name", offers(wrong_name()), REQUIRED, Failed("name")),
            row("expired", offers(expired()), REQUIRED, Failed("expired")),
            row(
                "not verified",
                offers(expired()),
                REQUIRED_UNVERIFIED,
                Inside("TLSv1.3", false),
            ),
            row("not listed", Script::smtp(), REQUIRED, NoTls),
            row(
                "EHLO refused",
                offers(valid()).at(Ehlo, "502 5.5.1 what?"),
                REQUIRED,
                NoTls,
            ),
            row("refused 454", refuses("454 4.7.0 not now"), REQUIRED, NoTls),
            row("refused 502", refuses("502 5.5.1 never"), REQUIRED, NoTls),
            row(
                "TLS 1.0",
                offers_at_most(SslVersion::TLS1),
                REQUIRED,
                Failed("version"),
            ),
            row(
                "TLS 1.0, clear then",
                offers_at_most(SslVersion::TLS1),
                REQUIRED_CLEAR_AFTER,
                Failed("version"),
            ),
        ],
    );
}

#[test]
fn off_never_asks() {
    play(
        "smtp",
        vec![
            row("listed", offers(valid()), OFF, ONE),
            row("not listed", Script::smtp(), OFF, ONE),
        ],
    );
}

#[test]
fn smtps_is_tls_from_the_first_octet() {
    play(
        "smtps",
        vec![
            row(
                "valid",
                at_once(valid()),
                NEGOTIATED,
                Inside("TLSv1.3", true),
            ),
            row(
                "expired",
                at_once(expired()),
                NEGOTIATED,
                Inside("TLSv1.3", false),
            ),
            row(
                "expired, verified",
                at_once(expired()),
                NEGOTIATED_VERIFIED,
                Failed("expired"),
            ),
            row(
                "valid, required",
                at_once(valid()),
                REQUIRED,
                Inside("TLSv1.3", true),
            ),
            row("valid, off", at_once(valid()), OFF, Inside("TLSv1.3", true)),
            row("a hop in clear", Script::smtp(), NEGOTIATED, Failed("")),
            // No port that greets in clear is known to go to.
            row(
                "a hop in clear, clear then",
                Script::smtp(),
                CLEAR_AFTER,
                Failed(""),
            ),
            row(
                "lists STARTTLS inside",
                at_once(valid()).inside(&["STARTTLS"]),
                NEGOTIATED,
                Inside("TLSv1.3", true),
            ),
        ],
    );
}

#[test]
fn a_refused_starttls_is_said_in_the_log() {
    let sink = Sink::start(refuses("454 4.7.0 not now"));
    let server = start(&sink, "smtp", By::Name, REQUIRED).start();
    send(&server, &[BOB], TEXT);
    let line = attempt(&server, BOB, "deferred");
    assert!(line.reason.contains("454 4.7.0 not now"), "{line:?}");

    // And where it goes on in clear.
    let server = start(&sink, "smtp", By::Name, NEGOTIATED).start();
    send(&server, &[BOB], TEXT);
    let refused = r#" tls=none starttls_refused="454 4.7.0 not now""#;
    server
        .log()
        .await_line("why it is clear", |line| line.contains(refused));
}

/// RFC 6066 §3: the name connected to, and never an address.
#[test]
fn sni_is_the_name_connected_to() {
    for (by, sni) in [(By::Name, Some(HOP)), (By::Address, None)] {
        for (protocol, script) in [("smtp", offers(valid())), ("smtps", at_once(valid()))] {
            let sink = Sink::start(script);
            let server = start(&sink, protocol, by, NEGOTIATED).start();
            send(&server, &[BOB], TEXT);
            sink.only();
            let seen = sink.connections(1)[0].tls.clone().unwrap();
            assert_eq!(seen.sni.as_deref(), sni, "{protocol} by {by:?}");
            server.await_delivery();
        }
    }
}

/// Writes a client certificate of this name over what is there, and names it.
fn client_pair(directory: &Path, name: &str) -> [(&'static str, String); 2] {
    let (cert, key) = (directory.join("client.crt"), directory.join("client.key"));
    Authority::shared()
        .issue(&[name], KeyKind::Ecdsa)
        .write(&cert, &key);
    let path = |path: &Path| path.display().to_string();
    [("--out-cert", path(&cert)), ("--out-key", path(&key))]
}

#[test]
fn a_certificate_is_shown_to_who_asks() {
    let asks = || Script::smtp().tls(Tls::with(&valid()).asking());
    for (name, script, has_pair, client) in [
        ("asked", asks(), true, Some("client.test")),
        ("asked, and there is none", asks(), false, None),
        ("not asked", offers(valid()), true, None),
    ] {
        let sink = Sink::start(script);
        let mut setup = start(&sink, "smtp", By::Name, NEGOTIATED);
        if has_pair {
            for (flag, value) in client_pair(setup.directory(), "client.test") {
                setup = setup.flag(flag, value);
            }
        }
        let server = setup.start();
        send(&server, &[BOB], TEXT);
        assert!(sink.only().is_inside_tls, "{name}");
        let seen = sink.connections(1)[0].tls.clone().unwrap();
        assert_eq!(seen.client.as_deref(), client, "{name}");
    }
}

/// SIGHUP: a new certificate to show, new authorities to trust; a pair that does not load changes nothing.
#[test]
fn a_reload_counts_for_the_next_connection() {
    let last = || Act::Last("250 2.0.0 taken, and bye".to_owned());
    let asks = Tls::with(&unknown_ca()).asking().forgetful();
    let sink = Sink::start(Script::smtp().tls(asks).at(EndOfData, last()));
    let mut setup = start(&sink, "smtp", By::Name, NEGOTIATED);
    let directory = setup.directory().to_owned();
    for (flag, value) in client_pair(&directory, "old.test") {
        setup = setup.flag(flag, value);
    }
    let server = setup.start();
    let reload = |outcome: &str| {
        let count = || {
            server
                .scrape()
                .sum("ringpost_reloads_total", &[("outcome", outcome)])
        };
        let before = count();
        server.signal(Signal::HUP);
        eventually("a reload", || (count() > before).then_some(()));
    };
    let mut seen = Vec::new();
    for client in ["old.test", "new.test", "new.test"] {
        if client == "new.test" && seen.len() == 1 {
            client_pair(&directory, client);
            reload("done");
        } else if seen.len() == 2 {
            fs::write(directory.join("client.key"), "no key").unwrap();
            reload("failed");
        }
        send(&server, &[BOB], TEXT);
        sink.messages(seen.len() + 1);
        server.await_delivery();
        let connection = &sink.connections(seen.len() + 1)[seen.len()];
        let TlsSeen { client, .. } = connection.tls.clone().unwrap();
        seen.push(client.unwrap());
    }
    assert_eq!(seen, ["old.test", "new.test", "new.test"]);
}

/// A ticket is used once, and each connection brings the next: every connection but the first resumes.
#[test]
fn sessions_are_resumed() {
    for (version, name) in [
        (SslVersion::TLS1_3, "TLSv1.3"),
        (SslVersion::TLS1_2, "TLSv1.2"),
    ] {
        let last = || Act::Last("250 2.0.0 taken, and bye".to_owned());
        let script = offers_at_most(version).at(EndOfData, last());
        let sink = Sink::start(script);
        let server = start(&sink, "smtp", By::Name, NEGOTIATED_VERIFIED).start();
        let count = 8;
        for number in 0..count {
            send(&server, &[BOB], TEXT);
            sink.ended(number);
            server.await_delivery();
        }
        let connections = sink.connections(count);
        let resumed: Vec<bool> = connections
            .iter()
            .map(|connection| connection.tls.as_ref().unwrap().is_resumed)
            .collect();
        assert!(!resumed[0], "{name}");
        assert!(
            resumed[1..].iter().all(|resumed| *resumed),
            "{name}: {resumed:?}"
        );
        // A resumed session proves what the first one did.
        let short = name.trim_start_matches("TLSv");
        assert_eq!(
            tls_sessions(&server.scrape(), short, true),
            count as u64,
            "{name}"
        );
    }
}

/// A hop that forgot its tickets, or never gives any, is spoken to by a whole handshake.
#[test]
fn what_cannot_be_resumed_is_made_anew() {
    let last = || Act::Last("250 2.0.0 taken, and bye".to_owned());
    let tls = Tls::with(&valid()).forgetful();
    let sink = Sink::start([
        offers(valid()).at(EndOfData, last()),
        Script::smtp().tls(tls).at(EndOfData, last()),
    ]);
    let server = start(&sink, "smtp", By::Name, NEGOTIATED_VERIFIED).start();
    for number in 0..3 {
        send(&server, &[BOB], TEXT);
        let tls = sink.ended(number).tls.unwrap();
        assert!(!tls.is_resumed, "connection {number}");
        server.await_delivery();
    }
}

/// A hop that stands still in the handshake holds up nobody else's mail.
#[test]
fn a_handshake_that_stands_still_delays_nobody_else() {
    let still = Sink::start(offers(valid()).at(Handshake, Act::Silence));
    let other = Sink::start(offers(valid()));
    let server = start(&still, "smtp", By::Name, NEGOTIATED)
        .also("--route", route("other.test", &other))
        .start();
    for _ in 0..20 {
        send(&server, &[BOB], TEXT);
    }
    still.connections(1);
    for _ in 0..20 {
        send(&server, &["carol@other.test"], TEXT);
    }
    assert_eq!(other.messages(20).len(), 20);
    still.books(|books| assert_eq!(books.messages.len(), 0));
}
