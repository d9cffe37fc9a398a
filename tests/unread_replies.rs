//! Peers that do not read what they are told: they wait alone.

#![cfg(test)]

mod support;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use support::server::{Server, Setup, field};
use support::{Client, PATIENCE};

/// More than a shard has receive buffers.
const PEERS: usize = 160;

/// A connection with the smallest window the kernel gives.
fn narrow(address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

/// Long enough that the answers to a full receive buffer go as one.
const LINE: &[u8] = b"HELP STARTTLS\r\n";

/// Asks for help until the server, whose answers nobody reads, takes no more. How many octets it took.
fn ask_until_stuck(client: &Client) -> usize {
    let questions = LINE.repeat(1000);
    let mut socket = client.socket();
    // The answers are on their way as long as there is room again within a moment.
    socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    loop {
        match socket.write(&questions[sent % LINE.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    assert!(sent > LINE.len() * 100, "stuck after {sent} octets");
    sent
}

fn one_shard() -> Server {
    Setup::new().flag("--shards", "1").start()
}

#[test]
fn others_are_served() {
    let server = one_shard();
    let peers: Vec<Client> = (0..PEERS).map(|_| narrow(server.tcp())).collect();
    thread::scope(|scope| {
        for peer in &peers {
            scope.spawn(|| ask_until_stuck(peer));
        }
    });
    for mut client in [server.client(), server.tls_client()] {
        client.ehlo();
        let reply = client.deliver("a@b.test", &["u@example.test"], b"Subject: x\r\n\r\nx\r\n");
        reply.begins("250 2.0.0");
        client.quit();
    }
    drop(peers);
}

#[test]
fn a_drain_lets_them_finish_their_transaction() {
    let server = one_shard();
    let mut client = narrow(server.tcp());
    client.expect(220);
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250");
    client.say("RCPT TO:<u@example.test>").begins("250");
    let asked = ask_until_stuck(&client);
    server.signal(Signal::TERM);
    server
        .log()
        .await_line("draining", |line| line.contains(" draining"));
    for _ in 0..asked / LINE.len() {
        client.expect(214);
    }
    if !asked.is_multiple_of(LINE.len()) {
        client.send(&LINE[asked % LINE.len()..]);
        client.expect(214);
    }
    client.say("DATA").begins("354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect(250);
    client.expect(421);
    client.expect_end();
    let server = server.ended().start();
    server.maildir("example.test", "u").only();
}

#[test]
fn their_end_is_a_timeout() {
    let server = Setup::new()
        .flag("--shards", "1")
        .flag("--command-timeout", "2s")
        .start();
    let before = server.scrape();
    let mut client = narrow(server.tcp());
    client.expect(220);
    client.ehlo();
    ask_until_stuck(&client);
    let line = server
        .log()
        .await_line("session", |line| line.contains(" INFO session "));
    assert_eq!(field(&line, "ended").as_deref(), Some("timeout"), "{line}");
    let timeouts = server
        .scrape()
        .sum("ringpost_refusals_total", &[("reason", "timeout")])
        - before.sum("ringpost_refusals_total", &[("reason", "timeout")]);
    assert_eq!(timeouts, 1);
}
