//! Peers that are slow or say nothing: served as long as the limits let them, then sent away.

#![cfg(test)]

mod support;

use std::time::{Duration, Instant};

use support::server::{Server, Setup};
use support::{Client, PATIENCE, TEXT};

#[test]
fn a_slow_peer_octet_by_octet_is_served() {
    let server = Setup::new().start();
    let mut client = server.client();
    for octet in b"EHLO slow.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n" {
        client.send([*octet]);
    }
    for code in [250, 250, 250, 354] {
        client.expect(code);
    }
    for octet in [TEXT, b"..\r\n.\r\n"].concat() {
        client.send([octet]);
    }
    client.expect(250);
    client.quit();
    let delivered = server.maildir("example.test", "u").only();
    assert_eq!(delivered.parts().message, b"Subject: x\n\nx\n.\n");
}

/// The same inside TLS: a record an octet.
#[test]
fn a_slow_peer_inside_tls_is_served() {
    let server = Setup::new().start();
    let mut client = server.tls_client();
    for octet in b"EHLO slow.test\r\nNOOP\r\n" {
        client.send([*octet]);
    }
    client.expect(250);
    client.expect(250);
    client.quit();
}

#[test]
fn the_command_timeout_is_421() {
    let server = Setup::new().flag("--command-timeout", "1s").start();
    for connect in [Server::client, Server::tls_client] {
        // One after the other: a second client would run out of time while the first one waits.
        let mut client = connect(&server);
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>").begins("250");
        let started = Instant::now();
        client.reply().begins("421 4.4.2 mx.test");
        client.expect_end();
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(900), "after {waited:?}");
    }
}

#[test]
fn the_data_timeout_is_421_and_keeps_nothing() {
    let server = Setup::new().flag("--data-timeout", "500ms").start();
    let mut client = Client::in_data(server.tcp());
    client.send("Subject: never finished\r\n");
    client.reply().begins("421 4.4.2");
    client.expect_end();
    assert!(server.maildir("example.test", "u").messages().is_empty());
}

#[test]
fn the_session_timeout_ends_even_a_busy_session() {
    let server = Setup::new().flag("--session-timeout", "500ms").start();
    let mut client = server.client();
    let started = Instant::now();
    let reply = loop {
        client.send("NOOP\r\n");
        let reply = client.reply();
        if reply.code != 250 {
            break reply;
        }
        assert!(started.elapsed() < PATIENCE, "NOOP for ever");
    };
    reply.begins("421 4.4.2");
    client.read_to_end();
}

#[test]
fn the_handshake_timeout_ends_a_silent_and_a_slow_handshake() {
    let server = Setup::new().flag("--handshake-timeout", "300ms").start();
    let before = server.descriptors();
    // Says nothing at all on the TLS port.
    let mut silent = Client::connect(server.tls());
    silent.read_to_end();
    // Begins a record and keeps the rest to itself.
    let mut partial = Client::connect(server.tls());
    partial.send([22, 3, 1, 2, 0, 1]);
    partial.read_to_end();
    // STARTTLS, and then nothing.
    let mut starttls = server.client();
    starttls.ehlo();
    starttls.say("STARTTLS").begins("220");
    starttls.read_to_end();
    server.await_descriptors(before);
}
