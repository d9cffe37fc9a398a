//! SIGHUP: new files for new sessions, open sessions undisturbed, and what does not load changes
//! nothing.

#![cfg(test)]

mod support;

use std::fs;

use openssl::hash::MessageDigest;
use rustix::process::Signal;
use support::programs::program;
use support::server::{Server, Setup, write_users};
use support::{Authority, Client, KeyKind, Running, eventually};

/// The certificate that a new connection to the TLS port is shown.
fn presented(server: &Server) -> Vec<u8> {
    let client = server.tls_client();
    let certificate = client.ssl().peer_certificate().unwrap();
    certificate
        .digest(MessageDigest::sha256())
        .unwrap()
        .to_vec()
}

/// Sends SIGHUP and waits for the server to log a failure that names the file.
fn reload_in_vain(server: &Server, file: &str) {
    let seen = server.log().lines().len();
    server.signal(Signal::HUP);
    server
        .log()
        .await_line_after(seen, "line that names the broken file", |line| {
            line.contains(file) && (line.contains("WARN") || line.contains("ERROR"))
        });
}

#[test]
fn certificates_are_reloaded_and_a_broken_one_is_not() {
    let setup = Setup::new();
    let (cert, key) = (setup.path("pair.crt"), setup.path("pair.key"));
    let authority = Authority::shared();
    let old = authority.issue(&["mx.test"], KeyKind::Ecdsa);
    old.write(&cert, &key);
    let server = setup.pair(&cert, &key).flag("--shards", "2").start();
    assert_eq!(presented(&server), old.digest());

    // Three sessions stay open over all of this.
    let mut held = [
        server.client(),
        server.client().starttls(),
        server.tls_client(),
    ];
    for client in &mut held {
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>").begins("250 2.1.0");
    }

    let new = authority.issue(&["mx.test"], KeyKind::Ecdsa);
    new.write(&cert, &key);
    server.signal(Signal::HUP);
    eventually("the new certificate", || {
        (presented(&server) == new.digest()).then_some(())
    });
    // On every shard: so many connections meet both.
    eventually("the new certificate on all shards", || {
        (0..32)
            .all(|_| presented(&server) == new.digest())
            .then_some(())
    });

    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nrubbish\n").unwrap();
    reload_in_vain(&server, cert.to_str().unwrap());
    assert_eq!(presented(&server), new.digest());

    // A key that is not the certificate's.
    let stranger = authority.issue(&["mx.test"], KeyKind::Ecdsa);
    new.write(&cert, &key);
    fs::write(&key, stranger.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    reload_in_vain(&server, "pair.");
    assert_eq!(presented(&server), new.digest());

    for client in &mut held {
        client.say("RCPT TO:<u@example.test>").begins("250 2.1.5");
        client.say("DATA").begins("354");
        client.send("Subject: x\r\n\r\nx\r\n.\r\n");
        client.reply().begins("250 2.0.0");
    }
    // The session that was in clear all the while gets the new pair now.
    let [clear, starttls, tls] = held;
    let client: Client = clear.starttls();
    let certificate = client.ssl().peer_certificate().unwrap();
    assert_eq!(
        certificate
            .digest(MessageDigest::sha256())
            .unwrap()
            .to_vec(),
        new.digest()
    );
    client.quit();
    starttls.quit();
    tls.quit();
    assert_eq!(server.maildir("example.test", "u").messages().len(), 3);
}

/// Whether AUTH as this user succeeds in a new session.
fn authenticates(server: &Server, credentials: &str) -> bool {
    let mut client = server.client();
    client.ehlo();
    let reply = client.say(&format!("AUTH PLAIN {credentials}"));
    assert!([235, 535].contains(&reply.code), "{reply:?}");
    client.quit();
    reply.code == 235
}

#[test]
fn users_are_reloaded_and_a_broken_file_is_not() {
    let alice = "AGFsaWNlAHdvbmRlcmxhbmQ=";
    let bob = "AGJvYgBidWlsZGVy";
    let server = Setup::new()
        .users(&[("alice", "wonderland")])
        .flag("--tcp-auth", "yes")
        .start();
    let users = server.path("users");
    assert!(authenticates(&server, alice) && !authenticates(&server, bob));

    write_users(&users, &[("bob", "builder")]);
    server.signal(Signal::HUP);
    eventually("bob is known", || authenticates(&server, bob).then_some(()));
    assert!(!authenticates(&server, alice), "alice was taken out");

    fs::write(&users, "carol:not a hash\n").unwrap();
    reload_in_vain(&server, users.to_str().unwrap());
    assert!(authenticates(&server, bob));
    fs::remove_file(&users).unwrap();
    reload_in_vain(&server, users.to_str().unwrap());
    assert!(authenticates(&server, bob));
}

/// The reply to a RCPT in a new session.
fn recipient(server: &Server, mailbox: &str) -> u16 {
    let mut client = server.client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250");
    let reply = client.say(&format!("RCPT TO:<{mailbox}>"));
    client.quit();
    reply.code
}

#[test]
fn recipients_are_reloaded_and_a_missing_file_is_not() {
    let setup = Setup::new();
    let path = setup.path("recipients");
    fs::write(&path, "one@example.test\n").unwrap();
    let server = setup.flag("--recipients", path.to_str().unwrap()).start();
    assert_eq!(recipient(&server, "one@example.test"), 250);
    assert_eq!(recipient(&server, "two@example.test"), 550);

    fs::write(&path, "two@example.test\n").unwrap();
    server.signal(Signal::HUP);
    eventually("two is known", || {
        (recipient(&server, "two@example.test") == 250).then_some(())
    });
    assert_eq!(recipient(&server, "one@example.test"), 550);

    fs::remove_file(&path).unwrap();
    reload_in_vain(&server, path.to_str().unwrap());
    assert_eq!(recipient(&server, "two@example.test"), 250);
}

/// Connects, waits for a line, connects with the ticket of before, and prints whether that was resumed.
/// In Python because the `openssl` crate sets a session by an `unsafe` call.
const RESUME_LATER: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
def connect(session):
    clear = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60)
    with context.wrap_socket(clear, server_hostname="mx.test", session=session) as tls:
        assert tls.recv(1000).startswith(b"220")
        return tls.session, tls.session_reused
session, _ = connect(None)
print("first", flush=True)
sys.stdin.readline()
print("resumed" if connect(session)[1] else "not resumed", flush=True)
"#;

/// The ticket that a client holds is good after a reload that found no file.
#[test]
fn a_ticket_key_file_that_went_is_made_again_from_the_keys_in_use() {
    let setup = Setup::new();
    let keys = setup.path("ticket-keys");
    let server = setup.flag("--ticket-keys", keys.to_str().unwrap()).start();
    let port = server.tls().port().to_string();
    let mut python = Running::start(
        program("python3")
            .args(["-c", RESUME_LATER, &port])
            .arg(server.path("ca.crt")),
    );
    python
        .out
        .await_line("first connection", |line| line == "first");

    let before = fs::read(&keys).unwrap();
    fs::remove_file(&keys).unwrap();
    server.signal(Signal::HUP);
    server
        .log()
        .await_line("reloaded", |line| line.contains(" reloaded"));
    let lines = server.log().lines();
    let told = |line: &String| line.contains("WARN") && line.contains(keys.to_str().unwrap());
    assert!(lines.iter().any(told), "{lines:#?}");
    assert!(fs::read(&keys).unwrap() == before);
    python.write("\n");
    let ended = python.wait().succeeded();
    assert!(ended.out.ends_with("\nresumed\n"), "{}", ended.out);
}
