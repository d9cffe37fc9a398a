//! TLS from outside: resumption with every ticket used once, the early greeting, the ways a session
//! ends, and what the server demands of a client's certificate.
//!
//! Python does the resumption: the `openssl` crate sets a session by an `unsafe` call, which stays
//! out of the tests. The cases with `openssl s_client` and GnuTLS are in `blackbox_tls.rs`.

#![cfg(test)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::{SslStream, SslVersion};
use support::programs::{program, run};
use support::server::{Server, Setup, field};
use support::{Authority, Client, KeyKind, PATIENCE, Pair};

/// Connects again and again, each time with the ticket of the connection before and never twice with
/// one. Prints `resumed N of M` and fails if a ticket came back.
const RESUME: &str = r#"
import socket, ssl, sys, pickle
port, starttls, version, count, ca = int(sys.argv[1]), sys.argv[2] == "starttls", sys.argv[3], int(sys.argv[4]), sys.argv[5]
context = ssl.create_default_context(cafile=ca)
wanted = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
context.minimum_version = context.maximum_version = wanted
session, seen, resumed = None, set(), 0

def reply(file):
    while True:
        line = file.readline()
        assert line, "closed"
        if line[3:4] != b"-":
            return line

def connect():
    global session, resumed
    clear = socket.create_connection(("127.0.0.1", port), timeout=60)
    clear.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if starttls:
        file = clear.makefile("rb")
        assert reply(file).startswith(b"220")
        clear.sendall(b"EHLO client.test\r\n")
        assert reply(file).startswith(b"250")
        clear.sendall(b"STARTTLS\r\n")
        assert reply(file).startswith(b"220")
    tls = context.wrap_socket(clear, server_hostname="mx.test", session=session)
    file = tls.makefile("rb")
    if not starttls:
        assert reply(file).startswith(b"220")
    tls.sendall(b"EHLO client.test\r\n")
    assert reply(file).startswith(b"250")
    if tls.session_reused:
        resumed += 1
    session = tls.session
    assert session.has_ticket, "no ticket"
    if version == "1.3":
        assert session.id not in seen, "the same ticket again"
        seen.add(session.id)
    tls.sendall(b"QUIT\r\n")
    assert reply(file).startswith(b"221")
    file.close()
    clear = tls.unwrap()
    clear.close()

connect()
print("first", flush=True)
if len(sys.argv) > 6:
    sys.stdin.readline()
    port = int(sys.stdin.readline())
for _ in range(count):
    connect()
print(f"resumed {resumed} of {count}")
"#;

fn resume(server: &Server, way: &str, version: &str, count: u32) -> String {
    let port = if way == "starttls" {
        server.tcp()
    } else {
        server.tls()
    }
    .port();
    let ended = run(
        program("python3")
            .args([
                "-c",
                RESUME,
                &port.to_string(),
                way,
                version,
                &count.to_string(),
            ])
            .arg(server.path("ca.crt")),
        "",
    )
    .succeeded();
    ended.out
}

/// Every ticket used once, every connection resumed: needs one fresh ticket a resumed session, and
/// keys shared by the shards (the kernel spreads connections over them).
#[test]
fn each_ticket_used_once_resumes_every_time_on_any_shard() {
    for shards in ["1", "2"] {
        let server = Setup::new().flag("--shards", shards).start();
        for version in ["1.3", "1.2"] {
            for way in ["implicit", "starttls"] {
                let printed = resume(&server, way, version, 40);
                assert!(
                    printed.contains("resumed 40 of 40"),
                    "{shards} {version} {way}: {printed}"
                );
            }
        }
        let scrape = server.scrape();
        assert_eq!(
            scrape.sum("ringpost_handshakes_total", &[("kind", "resumed")]),
            160
        );
        assert_eq!(
            scrape.sum("ringpost_handshakes_total", &[("kind", "full")]),
            4
        );
    }
}

#[test]
fn ticket_keys_outlive_a_restart() {
    for (kept, expected) in [(true, "resumed 10 of 10"), (false, "resumed 9 of 10")] {
        for version in ["1.3", "1.2"] {
            let mut setup = Setup::new();
            let keys = setup.path("ticket-keys");
            if kept {
                setup = setup.flag("--ticket-keys", keys.to_str().unwrap());
            }
            let server = setup.start();
            let mut python = support::Running::start(
                program("python3")
                    .args([
                        "-c",
                        RESUME,
                        &server.tls().port().to_string(),
                        "implicit",
                        version,
                    ])
                    .arg("10")
                    .arg(server.path("ca.crt"))
                    .arg("restart"),
            );
            python
                .out
                .await_line("first connection", |line| line == "first");
            let setup = server.stop();
            if kept {
                use std::os::unix::fs::PermissionsExt;
                let mode = fs::metadata(&keys).unwrap().permissions().mode();
                assert_eq!(
                    mode & 0o777,
                    0o600,
                    "a ticket-key file that is missing is made, private"
                );
            }
            let server = setup.start();
            python.write(format!("\n{}\n", server.tls().port()));
            let ended = python.wait().succeeded();
            assert!(
                ended.out.contains(expected),
                "{kept} {version}: {}",
                ended.out
            );
        }
    }
}

#[test]
fn two_servers_with_one_ticket_key_file_resume_each_others_sessions() {
    let setup = Setup::new();
    let keys = setup.path("ticket-keys");
    let setup = setup.flag("--ticket-keys", keys.to_str().unwrap());
    let second = setup
        .beside()
        .flag("--data-dir", setup.path("data-2").to_str().unwrap());
    let (first, second) = (setup.start(), second.start());
    let mut python = support::Running::start(
        program("python3")
            .args([
                "-c",
                RESUME,
                &first.tls().port().to_string(),
                "implicit",
                "1.3",
                "10",
            ])
            .arg(first.path("ca.crt"))
            .arg("other"),
    );
    python
        .out
        .await_line("first connection", |line| line == "first");
    python.write(format!("\n{}\n", second.tls().port()));
    let ended = python.wait().succeeded();
    assert!(ended.out.contains("resumed 10 of 10"), "{}", ended.out);
}

#[test]
fn a_ticket_key_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    let keys = setup.path("ticket-keys").to_str().unwrap().to_owned();
    // Made by the server itself first, so that only the mode is wrong.
    let setup = setup.flag("--ticket-keys", keys.as_str()).start().stop();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    for verb in ["check", "serve"] {
        let ended = setup.run(verb);
        assert_eq!(ended.code, Some(1), "{verb}: {ended:?}");
        assert!(
            ended.err.iter().any(|line| line.contains(&keys)),
            "{verb}: {ended:?}"
        );
    }
}

/// A client's wire that keeps back everything the client writes after its first flight.
#[derive(Debug)]
struct Held {
    stream: TcpStream,
    reading: bool,
    kept: Vec<u8>,
    open: bool,
}

impl Read for Held {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.reading = true;
        self.stream.read(octets)
    }
}

impl Write for Held {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        // The client's second flight begins with its first write after a read.
        if self.reading && !self.open {
            self.kept.extend_from_slice(octets);
            return Ok(octets.len());
        }
        self.stream.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Shakes hands by TLS 1.3 with the client's Finished kept back.
fn held_handshake(server: &Server) -> SslStream<Held> {
    let mut connector = Authority::shared().connector();
    connector
        .set_min_proto_version(Some(SslVersion::TLS1_3))
        .unwrap();
    let stream = TcpStream::connect(server.tls()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let wire = Held {
        stream,
        reading: false,
        kept: Vec::new(),
        open: false,
    };
    let tls = connector.build().connect("mx.test", wire).unwrap();
    assert!(
        !tls.get_ref().kept.is_empty(),
        "the client's Finished was to be kept back"
    );
    tls
}

#[test]
fn early_greeting_arrives_before_the_clients_finished_is_sent() {
    let server = Setup::new().flag("--early-greeting", "yes").start();
    let mut tls = held_handshake(&server);
    let mut octets = [0; 512];
    let count = tls.read(&mut octets).unwrap();
    let greeting = String::from_utf8_lossy(&octets[..count]).into_owned();
    assert!(
        greeting.starts_with("220 mx.test ESMTP") && greeting.ends_with("\r\n"),
        "{greeting:?}"
    );

    // Now the Finished, and the session goes on without a second greeting.
    let kept = std::mem::take(&mut tls.get_mut().kept);
    tls.get_mut().stream.write_all(&kept).unwrap();
    tls.get_mut().open = true;
    tls.write_all(b"NOOP\r\nQUIT\r\n").unwrap();
    let mut rest = String::new();
    tls.read_to_string(&mut rest).unwrap();
    let codes: Vec<&str> = rest.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "221"], "{rest:?}");
}

#[test]
fn without_early_greeting_nothing_is_said_before_the_clients_finished() {
    let server = Setup::new().flag("--early-greeting", "no").start();
    let mut tls = held_handshake(&server);
    tls.get_ref()
        .stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut octets = [0; 512];
    let error = tls
        .read(&mut octets)
        .expect_err("a greeting without the client's Finished");
    assert!(
        error.to_string().contains("try again")
            || error.kind() == io::ErrorKind::WouldBlock
            || error.to_string().contains("unavailable"),
        "{error}"
    );
    let kept = std::mem::take(&mut tls.get_mut().kept);
    tls.get_mut().stream.write_all(&kept).unwrap();
    tls.get_mut().open = true;
    tls.get_ref()
        .stream
        .set_read_timeout(Some(PATIENCE))
        .unwrap();
    let count = tls.read(&mut octets).unwrap();
    assert!(octets[..count].starts_with(b"220 mx.test"));
}

/// TLS 1.2 has no such data; the greeting comes behind the handshake. Resumed 1.3 has it too.
#[test]
fn early_greeting_with_tls_1_2_and_with_resumption() {
    let server = Setup::new().flag("--early-greeting", "yes").start();
    for version in ["1.2", "1.3"] {
        let printed = resume(&server, "implicit", version, 10);
        assert!(printed.contains("resumed 10 of 10"), "{version}: {printed}");
    }
}

#[test]
fn close_notify_comes_before_the_end_on_both_ports() {
    let server = Setup::new().start();
    for mut client in [server.tls_client(), server.client().starttls()] {
        client.ehlo();
        assert_eq!(client.say("QUIT").code, 221);
        client.expect_end();
        assert!(
            client.was_notified(),
            "the stream ended without close_notify"
        );
    }
    // And the server answers the client's.
    for mut client in [server.tls_client(), server.client().starttls()] {
        client.ehlo();
        client.close_notify();
    }
}

#[test]
fn versions_below_the_minimum_are_refused() {
    let server = Setup::new().flag("--tls-min", "1.3").start();
    let mut connector = Authority::shared().connector();
    connector
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    let outcome = Client::connect(server.tls())
        .secure_with(connector.build().configure().unwrap(), "mx.test");
    assert!(outcome.is_err(), "TLS 1.2 below --tls-min 1.3");
    server.tls_client().quit();
}

/// A client that offers one group can only get through by it, and the server says which it was.
#[test]
fn each_group_is_negotiated_the_hybrid_one_too() {
    let server = Setup::new().start();
    for group in ["X25519MLKEM768", "X25519", "P-256", "P-384"] {
        let mut connector = Authority::shared().connector();
        if let Err(error) = connector.set_groups_list(group) {
            let is_vendored = cfg!(feature = "vendored-openssl");
            assert!(!is_vendored, "OpenSSL 3.5 and later know {group}: {error}");
            eprintln!("skipped: this distribution's OpenSSL does not know {group}");
            continue;
        }
        let connector = connector.build();
        for starttls in [false, true] {
            let client = if starttls {
                let mut client = server.client();
                client.ehlo();
                client.say("STARTTLS").begins("220 2.0.0");
                client
            } else {
                Client::connect(server.tls())
            };
            let seen = server.log().lines().len();
            let client = client.secure_with(connector.configure().unwrap(), "mx.test");
            let mut client = client.unwrap_or_else(|error| panic!("{group}: {error}"));
            if !starttls {
                client.expect(220);
            }
            client.quit();
            let what = format!("session of {group}");
            let line = server.log().await_line_after(seen, &what, |line| {
                line.contains(" session ") && line.contains(" tls=TLSv1.3 ")
            });
            // OpenSSL's names: "X25519MLKEM768", "x25519", "secp256r1" or "prime256v1".
            let logged = field(&line, "group").unwrap();
            let names = [group.to_lowercase(), group.replace("P-", "secp") + "r1"];
            assert!(names.contains(&logged.to_lowercase()), "{line}");
        }
    }
}

/// Both ends left to their defaults agree on the hybrid group, in one round trip.
#[test]
fn the_hybrid_group_is_the_default() {
    if !cfg!(feature = "vendored-openssl") {
        eprintln!("skipped: a distribution's OpenSSL need not have it");
        return;
    }
    let server = Setup::new().start();
    let mut client = server.tls_client();
    client.ehlo();
    client.quit();
    server.log().await_line("hybrid session", |line| {
        line.contains(" session ") && field(line, "group").as_deref() == Some("X25519MLKEM768")
    });
}

fn presented(server: &Server, name: &str, sigalgs: &str) -> Result<Vec<u8>, String> {
    let mut connector = Authority::shared().connector();
    connector.set_sigalgs_list(sigalgs).unwrap();
    let configuration = connector
        .build()
        .configure()
        .unwrap()
        .verify_hostname(false);
    let mut client = Client::connect(server.tls()).secure_with(configuration, name)?;
    client.expect(220);
    let certificate = client.ssl().peer_certificate().unwrap();
    let digest = certificate
        .digest(openssl::hash::MessageDigest::sha256())
        .unwrap();
    client.quit();
    Ok(digest.to_vec())
}

const ANY_SIGALG: &str = "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256";

/// Two names, each with both key types; a wildcard; and a name nobody has.
#[test]
fn certificates_are_chosen_by_name_and_key_type() {
    let authority = Authority::shared();
    let mut setup = Setup::new().without("--cert").without("--key");
    let mut pairs: Vec<(&str, KeyKind, Pair)> = Vec::new();
    for (index, (name, kind)) in [
        ("mx.test", KeyKind::Ecdsa),
        ("mx.test", KeyKind::Rsa),
        ("other.test", KeyKind::Rsa),
        ("other.test", KeyKind::Ecdsa),
        ("*.wild.test", KeyKind::Ecdsa),
    ]
    .into_iter()
    .enumerate()
    {
        let pair = authority.issue(&[name], kind);
        let (cert, key) = (
            setup.path(&format!("{index}.crt")),
            setup.path(&format!("{index}.key")),
        );
        pair.write(&cert, &key);
        setup = setup
            .also("--cert", cert.to_str().unwrap())
            .also("--key", key.to_str().unwrap());
        pairs.push((name, kind, pair));
    }
    let server = setup.start();
    let pair = |name: &str, kind: KeyKind| {
        pairs
            .iter()
            .find(|known| known.0 == name && known.1 == kind)
            .unwrap()
            .2
            .digest()
    };
    for (asked, sigalgs, expected) in [
        ("mx.test", "ECDSA+SHA256", pair("mx.test", KeyKind::Ecdsa)),
        (
            "mx.test",
            "RSA-PSS+SHA256:RSA+SHA256",
            pair("mx.test", KeyKind::Rsa),
        ),
        (
            "other.test",
            "ECDSA+SHA256",
            pair("other.test", KeyKind::Ecdsa),
        ),
        (
            "OTHER.test",
            "ECDSA+SHA256",
            pair("other.test", KeyKind::Ecdsa),
        ),
        (
            "other.test",
            "RSA-PSS+SHA256:RSA+SHA256",
            pair("other.test", KeyKind::Rsa),
        ),
        (
            "a.wild.test",
            ANY_SIGALG,
            pair("*.wild.test", KeyKind::Ecdsa),
        ),
        (
            "unknown.test",
            "ECDSA+SHA256",
            pair("mx.test", KeyKind::Ecdsa),
        ),
        (
            "unknown.test",
            "RSA-PSS+SHA256:RSA+SHA256",
            pair("mx.test", KeyKind::Rsa),
        ),
    ] {
        let got = presented(&server, asked, sigalgs);
        assert_eq!(got, Ok(expected), "{asked} with {sigalgs}");
    }
    // A wildcard stands for one label (RFC 9525 §6.3): neither none nor two.
    for asked in ["wild.test", "a.b.wild.test"] {
        let got = presented(&server, asked, ANY_SIGALG);
        assert_ne!(got, Ok(pair("*.wild.test", KeyKind::Ecdsa)), "{asked}");
    }
}

/// How a client with, without and with a stranger's certificate fares under each `--client-cert`.
#[test]
fn client_certificates_none_request_require() {
    let authority = Authority::shared();
    let ours = authority.issue(&["client.mx.test"], KeyKind::Ecdsa);
    let foreign = Authority::new("Somebody Else").issue(&["foreign.test"], KeyKind::Ecdsa);
    for (demand, without_one, with_ours) in [
        ("none", true, true),
        ("request", true, true),
        ("require", false, true),
    ] {
        let setup = Setup::new().flag("--client-cert", demand);
        let ca = setup.path("ca.crt");
        let server = match demand {
            "none" => setup.start(),
            _ => setup.flag("--client-ca", ca.to_str().unwrap()).start(),
        };
        assert_eq!(gets_in(&server, None), without_one, "{demand}, without");
        assert_eq!(gets_in(&server, Some(&ours)), with_ours, "{demand}, with");
        if demand == "require" {
            assert!(
                !gets_in(&server, Some(&foreign)),
                "a stranger's certificate"
            );
        }
        if demand != "none" {
            server
                .log()
                .await_line("the client's subject and name", |line| {
                    line.contains("client.mx.test")
                });
        }
    }
}

/// Whether a TLS 1.3 and a TLS 1.2 client with this certificate are greeted; both must agree.
fn gets_in(server: &Server, pair: Option<&Pair>) -> bool {
    let outcomes = [SslVersion::TLS1_2, SslVersion::TLS1_3].map(|version| {
        let mut connector = Authority::shared().connector();
        connector.set_min_proto_version(Some(version)).unwrap();
        connector.set_max_proto_version(Some(version)).unwrap();
        if let Some(pair) = pair {
            connector.set_certificate(&pair.certificate).unwrap();
            connector.set_private_key(&pair.key).unwrap();
        }
        let configuration = connector.build().configure().unwrap();
        match Client::connect(server.tls()).secure_with(configuration, "mx.test") {
            // A TLS 1.3 client believes in the handshake before the server has seen its certificate.
            Ok(mut client) => client.read_some().starts_with(b"220 "),
            Err(_) => false,
        }
    });
    assert_eq!(outcomes[0], outcomes[1], "TLS 1.2 against TLS 1.3");
    outcomes[0]
}

#[test]
fn a_client_certificate_is_required_behind_starttls_too() {
    let setup = Setup::new().flag("--client-cert", "require");
    let ca = setup.path("ca.crt");
    let server = setup.flag("--client-ca", ca.to_str().unwrap()).start();
    let mut client = server.client();
    client.ehlo();
    client.say("STARTTLS").is("220 2.0.0 Ready to start TLS");
    let mut connector = Authority::shared().connector();
    connector
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    let outcome = client.secure_with(connector.build().configure().unwrap(), "mx.test");
    assert!(outcome.is_err(), "no certificate, and yet a session");
}

/// RFC 8446 §5.2: a record that does not decrypt is answered with bad_record_mac.
#[test]
fn a_forged_record_is_answered_with_an_alert() {
    let server = Setup::new().start();
    let mut client = server.tls_client();
    client.ehlo();
    let forged = [&[23, 3, 3, 0, 32][..], &[0x5a; 32]].concat();
    client.socket().write_all(&forged).unwrap();
    let failure = client.failure();
    assert!(failure.contains("bad record mac"), "{failure}");
    let line = server
        .log()
        .await_line("session", |line| line.contains(" INFO session "));
    assert_eq!(field(&line, "ended").as_deref(), Some("broken"), "{line}");
}
