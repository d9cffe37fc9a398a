//! The sink from outside: the real binary, sockets, and clients that nobody here wrote.
//!
//! Time is looked at from below only: what was to take long took at least that long. What is to
//! happen at once is told apart from what never would, by delays of an hour.

#![cfg(test)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use rustix::process::Signal;
use serde_json::Value;
use support::{Sink, binary};

/// How long anything may take that is to happen at once, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

// ---------------------------------------------------------------- a peer

enum Stream {
    Clear(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
    /// Lost in a handshake.
    Gone,
}

/// A client that reads no further than it is told to.
struct Peer {
    stream: Stream,
    read: Vec<u8>,
    /// How the last reading ended, for who wonders why.
    ended: Option<io::Error>,
}

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer {
            stream: Stream::Clear(socket),
            read: Vec::new(),
            ended: None,
        }
    }

    /// Connected, with EHLO said.
    fn greeted(address: SocketAddr) -> Peer {
        let mut peer = Peer::connect(address);
        peer.expect("220");
        peer.say("EHLO peer.test", "250");
        peer
    }

    fn secure(&mut self) -> Result<(), String> {
        let Stream::Clear(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            panic!("not in clear");
        };
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        let stream = connector.build().connect("localhost", socket);
        self.stream = Stream::Tls(Box::new(stream.map_err(|error| error.to_string())?));
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Clear(socket) => socket,
            Stream::Tls(stream) => stream.get_ref(),
            Stream::Gone => panic!("gone"),
        }
    }

    fn write(&mut self, octets: impl AsRef<[u8]>) {
        self.try_write(octets.as_ref()).unwrap();
    }

    fn try_write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(socket) => socket.write_all(octets),
            Stream::Tls(stream) => stream.write_all(octets),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// One read, of however much there is.
    fn read_once(&mut self) -> io::Result<usize> {
        let mut octets = [0; 16_384];
        let count = loop {
            let outcome = match &mut self.stream {
                Stream::Clear(socket) => socket.read(&mut octets),
                Stream::Tls(stream) => stream.read(&mut octets),
                Stream::Gone => Ok(0),
            };
            match outcome {
                // A read with a timeout is not taken up again by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.read.extend_from_slice(&octets[..count]);
        Ok(count)
    }

    /// The next reply, all its lines; none if the connection ends first.
    fn reply(&mut self) -> Option<String> {
        let mut from = 0;
        loop {
            while let Some(at) = self.read[from..].iter().position(|octet| *octet == b'\n') {
                let line = &self.read[from..from + at + 1];
                assert!(line.len() >= 6, "{:?}", line.escape_ascii().to_string());
                from += at + 1;
                if line[3] != b'-' {
                    let reply = self.read.drain(..from).collect();
                    return Some(String::from_utf8(reply).unwrap());
                }
            }
            match self.read_once() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no reply"),
                Err(error) => {
                    self.ended = Some(error);
                    return None;
                }
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, code: &str) -> String {
        let reply = self.reply();
        let Some(reply) = reply else {
            panic!("closed instead of {code}: {:?}", self.ended);
        };
        assert!(reply.starts_with(code), "{reply:?} instead of {code}");
        reply
    }

    #[track_caller]
    fn say(&mut self, line: &str, code: &str) -> String {
        self.write(format!("{line}\r\n"));
        self.expect(code)
    }

    #[track_caller]
    fn expect_end(&mut self) {
        assert_eq!(self.reply(), None);
    }

    /// One message, by DATA.
    #[track_caller]
    fn send(&mut self, content: &str) {
        self.say("MAIL FROM:<a@x.test>", "250");
        self.say("RCPT TO:<b@y.test>", "250");
        self.say("DATA", "354");
        self.say(&format!("{content}\r\n."), "250");
    }

    /// Takes one more step of [`STEPS`]; gives the reply, `None` if the connection ended.
    fn step(&mut self, step: Step) -> Option<String> {
        let line = match step {
            Step::Connect => return self.reply(),
            Step::Handshake => return self.secure().is_ok().then(|| String::from("handshake")),
            Step::Ehlo => "EHLO peer.test",
            Step::StartTls => "STARTTLS",
            Step::Auth => "AUTH PLAIN AHUAcA==",
            Step::Mail => "MAIL FROM:<a@x.test>",
            Step::Rcpt => "RCPT TO:<b@y.test>",
            Step::Data => "DATA",
            Step::Content => "x\r\n.",
            Step::Quit => "QUIT",
        };
        self.try_write(format!("{line}\r\n").as_bytes()).ok()?;
        self.reply()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Ehlo,
    StartTls,
    Handshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    Content,
    Quit,
}

/// A session that comes by every stage, with what it reads there when all goes well.
const STEPS: [(Step, &str, &str); 11] = [
    (Step::Connect, "connect", "220"),
    (Step::Ehlo, "ehlo", "250"),
    (Step::StartTls, "starttls", "220"),
    (Step::Handshake, "handshake", "handshake"),
    (Step::Ehlo, "ehlo", "250"),
    (Step::Auth, "auth", "235"),
    (Step::Mail, "mail", "250"),
    (Step::Rcpt, "rcpt", "250"),
    (Step::Data, "data", "354"),
    (Step::Content, "content", "250"),
    (Step::Quit, "quit", "221"),
];

/// Walks [`STEPS`] up to the first of `stage`, whose outcome it gives.
#[track_caller]
fn walk_to(peer: &mut Peer, stage: &str) -> Option<String> {
    for (step, name, good) in STEPS {
        let reply = peer.step(step);
        if name == stage {
            return reply;
        }
        assert!(
            reply
                .as_deref()
                .is_some_and(|reply| reply.starts_with(good)),
            "{name}: {reply:?}"
        );
    }
    panic!("no stage {stage}");
}

const STAGES: [&str; 10] = [
    "connect",
    "ehlo",
    "starttls",
    "handshake",
    "auth",
    "mail",
    "rcpt",
    "data",
    "content",
    "quit",
];

/// The counts of all stages, in order.
fn by_stage(counts: &Value, kind: &str) -> Vec<u64> {
    STAGES
        .iter()
        .map(|stage| counts[kind][stage].as_u64().unwrap())
        .collect()
}

fn only(stage: &str) -> Vec<u64> {
    STAGES
        .iter()
        .map(|other| u64::from(*other == stage))
        .collect()
}

// ---------------------------------------------------------------- what is taken

#[test]
fn what_is_sent_is_counted() {
    let sink = Sink::start(&[]);
    assert_eq!(sink.addresses[0].1, "smtp");
    assert_eq!(sink.addresses[1].1, "smtps");
    let mut peer = Peer::connect(sink.clear());
    for (step, name, good) in STEPS {
        let reply = peer.step(step).unwrap();
        assert!(reply.starts_with(good), "{name}: {reply}");
    }
    peer.expect_end();

    let mut peer = Peer::connect(sink.tls());
    peer.secure().unwrap();
    peer.expect("220");
    let listed = peer.say("EHLO peer.test", "250");
    assert!(!listed.contains("STARTTLS"), "{listed}");
    peer.say("MAIL FROM:<> BODY=BINARYMIME SIZE=9 RET=HDRS", "250");
    peer.say("RCPT TO:<a@y.test> NOTIFY=NEVER", "250");
    peer.say("RCPT TO:<b@y.test>", "250");
    peer.write("BDAT 4\r\n\r\n.\r");
    peer.expect("250");
    peer.write("BDAT 5 LAST\r\nQUIT\n");
    peer.expect("250");
    // Left without a QUIT.
    drop(peer);

    let counts = sink.end();
    for (name, expected) in [
        ("connections", 2),
        ("sessions_quit", 1),
        ("tls_full", 2),
        ("tls_resumed", 0),
        ("tls_failed", 0),
        ("authentications", 1),
        ("messages", 2),
        ("recipients", 3),
        ("octets", 3 + 9),
        ("protocol_errors", 0),
        ("idle_timeouts", 0),
        ("accepts_failed", 0),
    ] {
        assert_eq!(counts[name], expected, "{name}: {counts}");
    }
    assert_eq!(by_stage(&counts, "refused"), [0; 10]);
    assert_eq!(by_stage(&counts, "dropped"), [0; 10]);
}

/// Over TLS a write is a record, and a read gives no more than one.
#[test]
fn a_pipelined_group_is_answered_in_one_write() {
    let sink = Sink::start(&[]);
    let mut peer = Peer::connect(sink.tls());
    peer.secure().unwrap();
    peer.expect("220");
    peer.say("EHLO peer.test", "250");
    peer.write("MAIL FROM:<>\r\nRCPT TO:<a@y.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    peer.read_once().unwrap();
    let replies = String::from_utf8(peer.read.clone()).unwrap();
    assert_eq!(replies.lines().count(), 4, "{replies}");
    assert!(
        replies.lines().last().unwrap().starts_with("354 "),
        "{replies}"
    );
    peer.read.clear();
    peer.write(".\r\nMAIL FROM:<>\r\nRCPT TO:<a@y.test>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\nQUIT\r\n");
    peer.read_once().unwrap();
    let replies = String::from_utf8(peer.read.clone()).unwrap();
    assert_eq!(replies.lines().count(), 6, "{replies}");
    assert_eq!(sink.end()["messages"], 2);
}

#[test]
fn a_session_cut_octet_by_octet_reads_the_same() {
    const SESSION: &str = "EHLO a\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n..\r\n\r.\n\r\n.\r\n\
                           FOO\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nBDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\n.\rQUIT\r\n";
    let sink = Sink::start(&[]);
    let mut heard = Vec::new();
    for pieces in [1, SESSION.len()] {
        let mut peer = Peer::connect(sink.clear());
        for piece in SESSION.as_bytes().chunks(pieces) {
            peer.write(piece);
        }
        while peer.read_once().unwrap() > 0 {}
        heard.push(String::from_utf8(peer.read).unwrap());
    }
    assert_eq!(heard[0], heard[1]);
    assert!(heard[0].ends_with("\r\n221 2.0.0 Bye\r\n"), "{}", heard[0]);
    let counts = sink.end();
    assert_eq!(counts["messages"], 4);
    assert_eq!(counts["octets"], 2 * (8 + 8));
    assert_eq!(counts["protocol_errors"], 2);
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let sink = Sink::start(&["--lmtp", "--refuse", "content:0.5=452 4.2.2 full"]);
    assert_eq!(sink.addresses[0].1, "lmtp");
    assert_eq!(sink.addresses[1].1, "lmtps");
    let mut peer = Peer::connect(sink.clear());
    peer.expect("220");
    peer.say("EHLO peer.test", "500");
    peer.say("LHLO peer.test", "250");
    peer.say("MAIL FROM:<>", "250");
    for at in 0..64 {
        peer.say(&format!("RCPT TO:<r{at}@y.test>"), "250");
    }
    peer.say("DATA", "354");
    peer.write(".\r\n");
    let replies: Vec<String> = (0..64).map(|_| peer.reply().unwrap()).collect();
    peer.say("QUIT", "221");
    let granted = replies
        .iter()
        .filter(|reply| reply.starts_with("250"))
        .count();
    assert!((1..64).contains(&granted), "{granted}");
    let counts = sink.end();
    assert_eq!(counts["messages"], 1);
    assert_eq!(counts["recipients"], granted);
    assert_eq!(counts["refused"]["content"], 64 - granted);
}

#[test]
fn what_is_hidden_is_not_listed() {
    let sink = Sink::start(&["--hide", "PIPELINING", "--hide", "size", "--starttls", "no"]);
    let mut peer = Peer::connect(sink.clear());
    peer.expect("220");
    let listed = peer.say("EHLO peer.test", "250");
    for keyword in ["PIPELINING", "SIZE", "STARTTLS"] {
        assert!(!listed.contains(keyword), "{listed}");
    }
    assert!(listed.contains("CHUNKING"), "{listed}");
    peer.say("STARTTLS", "502");
    peer.say("MAIL FROM:<> SIZE=1", "555");
    assert_eq!(sink.end()["protocol_errors"], 2);
}

// ---------------------------------------------------------------- misbehaviour

#[test]
fn every_stage_can_be_refused() {
    for stage in STAGES {
        let reply = if stage == "handshake" {
            "40"
        } else {
            "450 4.7.9 no"
        };
        let sink = Sink::start(&["--refuse", &format!("{stage}={reply}")]);
        let mut peer = Peer::connect(sink.clear());
        if stage == "handshake" {
            for (step, _, _) in &STEPS[..3] {
                peer.step(*step).unwrap();
            }
            let error = peer.secure().unwrap_err();
            assert!(error.contains("handshake failure"), "{error}");
        } else {
            let heard = walk_to(&mut peer, stage);
            assert_eq!(heard.as_deref(), Some("450 4.7.9 no\r\n"), "{stage}");
            if stage == "quit" {
                peer.expect_end();
            } else {
                // It stays, and knows what it said.
                peer.say("QUIT", "221");
            }
        }
        let counts = sink.end();
        assert_eq!(by_stage(&counts, "refused"), only(stage), "{stage}");
        assert_eq!(by_stage(&counts, "dropped"), [0; 10], "{stage}");
        assert_eq!(counts["messages"], u64::from(stage == "quit"), "{stage}");
        assert_eq!(counts["protocol_errors"], 0, "{stage}");
    }
}

#[test]
fn every_stage_can_be_dropped() {
    for stage in STAGES {
        let sink = Sink::start(&["--drop", stage]);
        let mut peer = Peer::connect(sink.clear());
        assert_eq!(walk_to(&mut peer, stage), None, "{stage}");
        let counts = sink.end();
        assert_eq!(by_stage(&counts, "dropped"), only(stage), "{stage}");
        assert_eq!(by_stage(&counts, "refused"), [0; 10], "{stage}");
        assert_eq!(counts["tls_failed"], 0, "{stage}");
        assert_eq!(counts["messages"], u64::from(stage == "quit"), "{stage}");
    }
}

#[test]
fn every_stage_can_be_delayed() {
    const DELAY: Duration = Duration::from_millis(40);
    let mut arguments = Vec::new();
    for stage in STAGES {
        arguments.extend([String::from("--delay"), format!("{stage}=40ms")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sink = Sink::start(&arguments);
    let mut started = Instant::now();
    let mut peer = Peer::connect(sink.clear());
    for (step, name, good) in STEPS {
        let reply = peer.step(step).unwrap();
        assert!(reply.starts_with(good), "{name}: {reply}");
        assert!(started.elapsed() >= DELAY, "{name}");
        started = Instant::now();
    }
    let counts = sink.end();
    assert_eq!(counts["messages"], 1);
    assert_eq!(counts["sessions_quit"], 1);
}

#[test]
fn a_delay_holds_up_neither_what_was_answered_before_nor_others() {
    let sink = Sink::start(&["--delay", "rcpt=1h"]);
    let mut held = Peer::greeted(sink.clear());
    held.write("MAIL FROM:<>\r\nRCPT TO:<a@y.test>\r\n");
    held.expect("250");
    let mut other = Peer::greeted(sink.clear());
    other.say("MAIL FROM:<>", "250");
    other.say("QUIT", "221");
    held.socket().set_nonblocking(true).unwrap();
    let nothing = held.read_once().unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    let counts = sink.end();
    assert_eq!(
        (&counts["connections"], &counts["recipients"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn a_drop_comes_behind_what_was_answered_before() {
    let sink = Sink::start(&["--drop", "rcpt"]);
    let mut peer = Peer::greeted(sink.clear());
    peer.write("NOOP\r\nMAIL FROM:<>\r\nRCPT TO:<a@y.test>\r\n");
    peer.expect("250 2.0.0");
    peer.expect("250 2.1.0");
    peer.expect_end();
    assert_eq!(sink.end()["dropped"]["rcpt"], 1);
}

#[test]
fn chunks_come_by_data_and_the_last_by_content_too() {
    let sink = Sink::start(&["--refuse", "data=451 4.3.0 later"]);
    let mut peer = Peer::greeted(sink.clear());
    for chunk in ["BDAT 3\r\nabc", "BDAT 3 LAST\r\nabc"] {
        peer.say("MAIL FROM:<>", "250");
        peer.say("RCPT TO:<a@y.test>", "250");
        peer.write(chunk);
        peer.expect("451");
    }
    assert_eq!(sink.end()["refused"]["data"], 2);

    let sink = Sink::start(&["--refuse", "content=451 4.3.0 later"]);
    let mut peer = Peer::greeted(sink.clear());
    peer.say("MAIL FROM:<>", "250");
    peer.say("RCPT TO:<a@y.test>", "250");
    peer.write("BDAT 3\r\nabc");
    peer.expect("250");
    peer.write("BDAT 3 LAST\r\nabc");
    peer.expect("451");
    let counts = sink.end();
    assert_eq!(
        (&counts["refused"]["content"], &counts["messages"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn rules_of_one_stage_meet_in_their_order() {
    let sink = Sink::start(&[
        "--refuse",
        "mail=451 4.3.0 first",
        "--refuse",
        "mail=452 4.3.1 second",
        "--refuse",
        "rcpt:0=450 4.2.0 never",
        "--drop",
        "quit",
        "--refuse",
        "quit=500 5.5.0 not reached",
    ]);
    let mut peer = Peer::greeted(sink.clear());
    let reply = peer.say("MAIL FROM:<>", "451");
    assert_eq!(reply, "451 4.3.0 first\r\n");
    peer.write("QUIT\r\n");
    peer.expect_end();
    let counts = sink.end();
    assert_eq!(by_stage(&counts, "refused"), only("mail"));
    assert_eq!(by_stage(&counts, "dropped"), only("quit"));
}

#[test]
fn a_refusal_with_421_ends_the_connection() {
    let sink = Sink::start(&["--refuse", "rcpt=421 4.3.2 bye"]);
    let mut peer = Peer::greeted(sink.clear());
    peer.say("MAIL FROM:<>", "250");
    peer.write("RCPT TO:<a@y.test>\r\nRCPT TO:<b@y.test>\r\n");
    peer.expect("421");
    peer.expect_end();
    assert_eq!(sink.end()["refused"]["rcpt"], 1);
}

#[test]
fn a_share_falls_where_the_seed_says() {
    let pattern = |seed: &str| {
        let rule = "rcpt:0.25=450 4.2.0 busy";
        let sink = Sink::start(&["--threads", "2", "--seed", seed, "--refuse", rule]);
        let mut refused = Vec::new();
        for _ in 0..4 {
            let mut peer = Peer::greeted(sink.clear());
            peer.say("MAIL FROM:<>", "250");
            for _ in 0..50 {
                peer.write("RCPT TO:<a@y.test>\r\n");
                refused.push(peer.reply().unwrap().starts_with("450"));
            }
        }
        let count = refused.iter().filter(|refused| **refused).count();
        assert_eq!(sink.end()["refused"]["rcpt"], count);
        // Five standard deviations.
        assert!((20..=80).contains(&count), "{count}");
        refused
    };
    assert_eq!(pattern("7"), pattern("7"));
    assert_ne!(pattern("7"), pattern("8"));
}

/// Each of several clients, on whichever thread it lands, waits through all of the stall at once.
#[test]
fn a_stall_silences_all_threads_at_once() {
    const STALL: Duration = Duration::from_millis(1500);
    for count in ["1", "2"] {
        let sink = Sink::start(&["--threads", count, "--stall", "100ms:1500ms"]);
        let address = sink.clear();
        let started = Instant::now();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let asked = Instant::now();
                    let mut peer = Peer::greeted(address);
                    let mut longest = asked.elapsed();
                    while started.elapsed() < Duration::from_millis(100) + STALL {
                        let asked = Instant::now();
                        peer.say("NOOP", "250");
                        longest = longest.max(asked.elapsed());
                    }
                    peer.say("QUIT", "221");
                    longest
                })
            })
            .collect();
        for client in clients {
            let longest = client.join().unwrap();
            // A client may be late for the beginning, but not by that much.
            assert!(longest >= STALL / 2, "{longest:?}");
        }
        assert_eq!(sink.end()["sessions_quit"], 4);
    }
}

#[test]
fn during_a_stall_connections_are_taken_and_a_signal_ends_it() {
    let sink = Sink::start(&["--stall", "50ms:1h"]);
    let started = Instant::now();
    let mut peer = Peer::greeted(sink.clear());
    peer.socket()
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    loop {
        peer.write("NOOP\r\n");
        if peer.read_once().is_err() && started.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    // By the kernel, not by the sink.
    let _other = Peer::connect(sink.clear());
    let counts = sink.end();
    assert_eq!(counts["connections"], 1);
}

// ---------------------------------------------------------------- TLS

#[test]
fn what_is_injected_behind_starttls_is_not_run() {
    let sink = Sink::start(&[]);
    let mut peer = Peer::greeted(sink.clear());
    peer.write("STARTTLS\r\nMAIL FROM:<>\r\n");
    peer.expect("220");
    peer.expect_end();

    // Too late to be seen behind STARTTLS: it is no handshake either.
    let mut peer = Peer::greeted(sink.clear());
    peer.say("STARTTLS", "220");
    peer.write("EHLO a\r\nMAIL FROM:<>\r\n");
    while matches!(peer.read_once(), Ok(octets) if octets > 0) {}
    assert!(!peer.read.starts_with(b"250"), "{:?}", peer.read);

    let mut peer = Peer::connect(sink.tls());
    peer.write("EHLO a\r\nMAIL FROM:<>\r\n");
    while matches!(peer.read_once(), Ok(octets) if octets > 0) {}
    assert!(!peer.read.starts_with(b"2"), "{:?}", peer.read);

    let counts = sink.end();
    assert_eq!(counts["protocol_errors"], 1);
    assert_eq!(counts["tls_failed"], 2);
    assert_eq!(counts["tls_full"], 0);
}

#[test]
fn sessions_are_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = directory.path().join("ticket");
    let sink = Sink::start(&["--threads", "2"]);
    let connect = |version: &str, arguments: &[&str]| {
        let (address, starttls): (_, &[&str]) = match version {
            "-tls1_2" => (sink.clear(), &["-starttls", "smtp"]),
            _ => (sink.tls(), &[]),
        };
        let mut command = Command::new("openssl");
        command
            .args([
                "s_client",
                "-quiet",
                version,
                "-connect",
                &address.to_string(),
            ])
            .args(starttls)
            .args(arguments)
            .arg("-sess_out")
            .arg(&ticket);
        let output = run(&mut command, "NOOP\r\nQUIT\r\n");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("221 2.0.0 Bye"), "{output:?}");
    };
    for version in ["-tls1_2", "-tls1_3"] {
        connect(version, &[]);
        for _ in 0..4 {
            connect(version, &["-sess_in", ticket.to_str().unwrap()]);
        }
    }
    let counts = sink.end();
    assert_eq!(counts["tls_full"], 2);
    assert_eq!(counts["tls_resumed"], 8);
}

#[test]
fn a_given_certificate_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("crt"), directory.path().join("key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=sink.test",
        ])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let sink = Sink::start(&["--cert", text(&certificate), "--key", text(&key)]);
    let mut peer = Peer::connect(sink.tls());
    peer.secure().unwrap();
    let Stream::Tls(stream) = &peer.stream else {
        panic!("not in TLS");
    };
    let shown = stream.ssl().peer_certificate().unwrap().to_pem().unwrap();
    assert_eq!(shown, fs::read(&certificate).unwrap());
}

// ---------------------------------------------------------------- bad peers

#[test]
fn a_line_too_long_is_refused_and_ends_the_connection() {
    let sink = Sink::start(&[]);
    for octets in [12_289, 1_000_000] {
        let mut peer = Peer::greeted(sink.clear());
        // The last of it may meet a closed connection.
        let _ = peer.try_write(&vec![b'x'; octets]);
        peer.expect("500 5.5.2");
        peer.expect_end();
    }
    let mut peer = Peer::greeted(sink.clear());
    peer.say(&"x".repeat(12_286), "500 5.5.1");
    peer.say("QUIT", "221");
    assert_eq!(sink.end()["protocol_errors"], 3);
}

#[test]
fn a_broken_connection_ends_only_itself() {
    let sink = Sink::start(&[]);
    let mut good = Peer::greeted(sink.clear());
    for _ in 0..20 {
        let mut bad = Peer::greeted(sink.clear());
        bad.say("MAIL FROM:<>", "250");
        bad.say("RCPT TO:<a@y.test>", "250");
        bad.say("DATA", "354");
        bad.write("half a mess");
        // Closed with a reset.
        socket2::SockRef::from(bad.socket())
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(bad);
        good.say("NOOP", "250");
    }
    good.send("x");
    good.say("QUIT", "221");
    let counts = sink.end();
    assert_eq!(counts["messages"], 1);
    assert_eq!(counts["sessions_quit"], 1);
    assert_eq!(counts["connections"], 21);
}

#[test]
fn silence_ends_a_connection() {
    let sink = Sink::start(&["--idle-timeout", "100ms"]);
    let started = Instant::now();
    let mut peer = Peer::connect(sink.clear());
    peer.expect("220");
    peer.expect("421 4.4.2");
    peer.expect_end();
    assert!(started.elapsed() >= Duration::from_millis(100));
    // No handshake comes.
    let mut peer = Peer::connect(sink.tls());
    peer.expect_end();
    assert_eq!(sink.end()["idle_timeouts"], 2);
}

#[test]
fn a_peer_that_reads_no_replies_is_given_up() {
    let sink = Sink::start(&["--idle-timeout", "200ms"]);
    let mut peer = Peer::greeted(sink.clear());
    peer.socket().set_write_timeout(Some(PATIENCE)).unwrap();
    let group = "NOOP\r\n".repeat(1000);
    let error = loop {
        if let Err(error) = peer.try_write(group.as_bytes()) {
            break error;
        }
    };
    // Closed by the sink, not merely full.
    assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(sink.end()["idle_timeouts"], 1);
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 24 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_ringpost-loadgen"))
        .args(["sink", "--json", "-"]);
    let started = Instant::now();
    let sink = Sink::spawn(&mut command, 1);
    let mut peers: Vec<Peer> = (0..40).map(|_| Peer::connect(sink.clear())).collect();
    for peer in &peers {
        peer.socket()
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
    }
    let greeted = peers
        .iter_mut()
        .map(|peer| peer.read_once().is_ok())
        .take_while(|greeted| *greeted)
        .count();
    assert!((1..40).contains(&greeted), "{greeted}");
    // Room for the others.
    drop(peers.drain(..greeted));
    peers[0].socket().set_read_timeout(Some(PATIENCE)).unwrap();
    peers[0].expect("220");
    let elapsed = started.elapsed().as_millis();
    let failed = u128::from(sink.end()["accepts_failed"].as_u64().unwrap());
    assert!(
        (1..=1 + elapsed / 100).contains(&failed),
        "{failed} in {elapsed} ms"
    );
}

// ---------------------------------------------------------------- its end

#[test]
fn signals_end_it_with_its_counts() {
    for signal in [Signal::TERM, Signal::INT] {
        let sink = Sink::start(&[]);
        let mut peer = Peer::greeted(sink.clear());
        peer.send("x");
        sink.signal(signal);
        let counts = sink.ended();
        assert_eq!(counts["messages"], 1, "{signal:?}");
        assert_eq!(counts["sessions_quit"], 0, "{signal:?}");
    }
}

#[test]
fn a_number_of_messages_ends_it() {
    let sink = Sink::start(&["--messages", "3"]);
    let mut other = Peer::greeted(sink.clear());
    let mut peer = Peer::greeted(sink.clear());
    for _ in 0..3 {
        peer.send("x");
    }
    other.say("MAIL FROM:<>", "421");
    other.expect_end();
    peer.say("QUIT", "221");
    let counts = sink.ended();
    assert_eq!(counts["messages"], 3);
    assert_eq!(counts["sessions_quit"], 1);
}

#[test]
fn a_time_ends_it() {
    let started = Instant::now();
    let sink = Sink::start(&["--duration", "200ms"]);
    let counts = sink.ended();
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(counts["connections"], 0);
}

#[test]
fn counts_are_text_and_in_a_file_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counts.json");
    let mut command = binary();
    command.args(["sink", "--json", text(&file)]);
    let sink = Sink::spawn(&mut command, 1);
    let mut peer = Peer::greeted(sink.clear());
    peer.send("x");
    peer.say("QUIT", "221");
    sink.signal(Signal::TERM);
    let printed = sink.ended_with_text();
    assert!(printed.contains("\nmessages           1\n"), "{printed}");
    let counts: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(counts["messages"], 1);
}

// ---------------------------------------------------------------- flags

#[test]
fn a_bad_flag_is_one_line_and_exit_status_2() {
    for (arguments, names) in [
        (&["--listen", "localhost:25"][..], "--listen"),
        (
            &["--listen", "0.0.0.0:0"],
            "--listen 0.0.0.0:0: not a loopback",
        ),
        (
            &["--listen-tls", "[::]:0"],
            "--listen-tls [::]:0: not a loopback",
        ),
        (&["--threads", "0"], "--threads"),
        (&["--starttls", "maybe"], "--starttls"),
        (&["--cert", "file"], "--key"),
        (&["--key", "file"], "--cert"),
        (&["--hide", "XCLIENT"], "--hide"),
        (&["--delay", "rcpt"], "--delay"),
        (&["--delay", "rcpt=5"], "--delay"),
        (&["--delay", "rcpt=0s"], "--delay"),
        (&["--delay", "rset=5s"], "--delay"),
        (&["--delay", "rcpt:2=5s"], "--delay"),
        (&["--drop", "everywhere"], "--drop"),
        (&["--drop", "rcpt:x"], "--drop"),
        (&["--refuse", "rcpt"], "--refuse"),
        (&["--refuse", "rcpt=250 2.0.0 fine"], "--refuse"),
        (&["--refuse", "rcpt=busy"], "--refuse"),
        (&["--refuse", "handshake=450 4.2.0 busy"], "--refuse"),
        (&["--refuse", "handshake=256"], "--refuse"),
        (&["--stall", "1s"], "--stall"),
        (&["--stall", "1s:0s"], "--stall"),
        (&["--seed", "x"], "--seed"),
        (&["--messages", "0"], "--messages"),
        (&["--duration", "0s"], "--duration"),
        (&["--idle-timeout", "soon"], "--idle-timeout"),
        (&["--bogus"], "--bogus"),
    ] {
        let output = binary().arg("sink").args(arguments).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{arguments:?}: {line}");
        assert!(line.contains(names), "{arguments:?}: {line}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_had_is_one_line_and_exit_status_1() {
    let sink = Sink::start(&[]);
    let taken = sink.clear().to_string();
    let directory = tempfile::tempdir().unwrap();
    let nothing = directory.path().join("nothing");
    let garbage = directory.path().join("garbage");
    fs::write(&garbage, "garbage").unwrap();
    let below = garbage.join("x");
    for (arguments, names) in [
        (&["--listen", &taken][..], taken.as_str()),
        (
            &["--cert", text(&nothing), "--key", text(&garbage)],
            text(&nothing),
        ),
        (
            &["--cert", text(&garbage), "--key", text(&garbage)],
            text(&garbage),
        ),
        (&["--json", text(&below)], text(&below)),
    ] {
        let output = binary().arg("sink").args(arguments).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{arguments:?}: {line}");
        assert!(line.contains(names), "{arguments:?}: {line}");
    }
}

#[test]
fn other_addresses_are_listened_on_when_that_is_allowed() {
    let sink = Sink::start_at(&["--allow-remote", "--listen", "0.0.0.0:0"], 1);
    let mut peer = Peer::greeted(SocketAddr::from(([127, 0, 0, 1], sink.clear().port())));
    peer.send("x");
    assert_eq!(sink.end()["messages"], 1);
}

#[test]
fn several_listeners_of_a_kind_serve_at_once() {
    let several = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"];
    let sink = Sink::start_at(&several, 2);
    for (address, speaks) in &sink.addresses {
        assert_eq!(speaks, "smtp");
        Peer::greeted(*address).say("QUIT", "221");
    }
    assert_eq!(sink.end()["sessions_quit"], 2);
}

// ---------------------------------------------------------------- clients that nobody here wrote

#[test]
fn swaks_sends_by_every_way() {
    let sink = Sink::start(&[]);
    let (clear, tls) = (
        sink.clear().port().to_string(),
        sink.tls().port().to_string(),
    );
    for (port, arguments) in [
        (&clear, &["-tls", "-au", "u", "-ap", "p", "-a", "LOGIN"][..]),
        (&clear, &["-pipeline"]),
        (&tls, &["-tlsc", "-au", "u", "-ap", "p", "-a", "PLAIN"]),
    ] {
        let mut command = Command::new("swaks");
        command
            .args(["--server", "127.0.0.1", "--port", port])
            .args(["--from", "a@x.test", "--to", "b@y.test,c@y.test"])
            .args(arguments);
        let output = run(&mut command, "");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let counts = sink.end();
    for (name, expected) in [
        ("messages", 3),
        ("recipients", 6),
        ("sessions_quit", 3),
        ("tls_full", 2),
        ("authentications", 2),
        ("protocol_errors", 0),
    ] {
        assert_eq!(counts[name], expected, "{name}: {counts}");
    }
}

#[test]
fn smtp_source_is_counted_exactly() {
    for (arguments, connections) in [(&["-d"][..], 8), (&[], 400)] {
        let sink = Sink::start(&["--threads", "2"]);
        let mut command = smtp_source();
        command
            .args(["-s", "8", "-m", "400", "-l", "2048", "-r", "3"])
            .args(["-f", "a@x.test", "-t", "b@y.test"])
            .args(arguments)
            .arg(format!("inet:{}", sink.clear()));
        let output = run(&mut command, "");
        assert!(output.status.success(), "{output:?}");
        let counts = sink.end();
        assert_eq!(counts["messages"], 400, "{counts}");
        assert_eq!(counts["recipients"], 1200, "{counts}");
        assert_eq!(counts["connections"], connections, "{counts}");
        assert_eq!(counts["protocol_errors"], 0, "{counts}");
    }
}

/// Postfix's load generator, where `tests/run` unpacks it or from the system.
fn smtp_source() -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-programs");
    let candidates = [
        unpacked.join("usr/sbin/smtp-source"),
        PathBuf::from("/usr/sbin/smtp-source"),
    ];
    let Some(found) = candidates.iter().find(|candidate| candidate.is_file()) else {
        panic!("smtp-source is not installed: run tests/run");
    };
    let mut command = Command::new(found);
    if found.starts_with(&unpacked) {
        // Taken out of its package without installing that: its libraries lie beside it.
        command.env("LD_LIBRARY_PATH", unpacked.join("usr/lib/postfix"));
    }
    command
}

/// Runs a program with this standard input, closed behind it.
fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already: then its exit status tells.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
