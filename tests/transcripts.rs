//! Plays every dialogue of `tests/transcripts`: against the session alone, whole, octet by octet, at
//! random cuts and sent ahead, in clear and inside TLS; and against the real server over sockets.
//!
//! The replies must be those of the transcript, and the same to the octet however its lines were
//! cut. `RINGPOST_TRANSCRIPT_SEED` sets the random cuts; a failure prints the seed it had.
//! `RINGPOST_TRANSCRIPT` plays only the files whose name contains its value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "whatever panics here is a failed test"
)]

#[allow(dead_code, reason = "the fuzzer uses the rest")]
#[path = "support/transcript.rs"]
mod transcript;
#[allow(dead_code, reason = "the fuzzer uses the rest")]
#[path = "support/transcript_line.rs"]
mod transcript_line;
#[path = "support/transcript_match.rs"]
mod transcript_match;
#[path = "support/transcript_play.rs"]
mod transcript_play;
#[path = "support/transcript_sockets.rs"]
mod transcript_sockets;

use std::env;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use transcript::{Kind, Transcript, Way};
use transcript_line::shortened;
use transcript_play::{Cutting, Fault, play};
use transcript_sockets::{Flags, Pace, Server};

/// The transcripts to be played.
fn chosen() -> Vec<Transcript> {
    let wanted = env::var("RINGPOST_TRANSCRIPT").unwrap_or_default();
    Transcript::all()
        .into_iter()
        .filter(|transcript| transcript.name().contains(&wanted))
        .collect()
}

fn seed() -> u64 {
    match env::var("RINGPOST_TRANSCRIPT_SEED") {
        Ok(seed) => seed.parse().expect("RINGPOST_TRANSCRIPT_SEED is a number"),
        Err(_) => fastrand::u64(..1_000_000),
    }
}

#[test]
fn there_are_enough_of_them() {
    let transcripts = Transcript::all();
    assert!(transcripts.len() >= 130, "{}", transcripts.len());
    for transcript in &transcripts {
        let has_replies = transcript.items.iter().any(|item| {
            matches!(
                item.kind,
                Kind::Reply { .. } | Kind::WholeReply(_) | Kind::Close
            )
        });
        assert!(has_replies, "{} expects nothing", transcript.name());
    }
}

#[test]
fn the_session_alone_keeps_every_dialogue() {
    let seed = seed();
    let mut faults = Vec::new();
    for transcript in chosen() {
        for way in transcript.ways() {
            if let Err(fault) = keeps(&transcript, *way, seed) {
                faults.push(fault);
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn the_server_keeps_every_dialogue_over_sockets() {
    let seed = seed();
    let groups = Mutex::new(transcript_sockets::by_flags(chosen()));
    let faults = Mutex::new(Vec::new());
    // Servers mostly wait for their clients, and those for them.
    const SERVERS_AT_ONCE: usize = 12;
    thread::scope(|scope| {
        for _ in 0..SERVERS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((flags, transcripts)) = groups.lock().unwrap().pop() else {
                        return;
                    };
                    let found = keeps_over_sockets(&flags, &transcripts, seed);
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Plays transcripts of the same flags against one server, each in all its ways.
fn keeps_over_sockets(flags: &Flags, transcripts: &[Transcript], seed: u64) -> Vec<String> {
    let mut server = match Server::start(flags) {
        Ok(server) => server,
        Err(fault) => return vec![format!("{}: {fault}", transcripts[0].name())],
    };
    let mut faults = Vec::new();
    for transcript in transcripts {
        for way in transcript.ways() {
            for pace in [Pace::Turns, Pace::Pieces(seed), Pace::Ahead] {
                // The server takes its time over each refused password: three times, not nine.
                if pace != Pace::Turns && transcript.expects("535") {
                    continue;
                }
                if let Err(Fault { line, text }) = server.play(transcript, *way, pace) {
                    faults.push(format!(
                        "{}:{line}: over sockets, {way:?}, {pace:?} \
                         (RINGPOST_TRANSCRIPT_SEED={seed}): {text}\n{}",
                        transcript.path.display(),
                        server.log()
                    ));
                }
            }
        }
        if !server.is_running() {
            faults.push(format!("the server is gone:\n{}", server.log()));
            break;
        }
    }
    faults
}

/// A player that lets everything pass proves nothing.
#[test]
fn a_dialogue_that_is_wrong_is_found_out() {
    let opening = "# rows\nC: EHLO c.example\nS: 250-…\n";
    let delivery = "C: MAIL FROM:<a@c.example>\nS: 250 2.1.0\nC: RCPT TO:<b@mx.test>\n\
                    S: 250 2.1.5\nC: DATA\nS: 354\nC: x\nC: .\nS: 250 2.0.0\n";
    let mail = "MAIL <a@c.example> -> <b@mx.test> \"x\\r\\n\"\n";
    let rows = [
        ("nothing wrong", String::new(), None),
        (
            "another code",
            String::from("C: NOOP\nS: 251 2.0.0\n"),
            Some("expected"),
        ),
        (
            "a reply too few",
            String::from("C: NOOP\nS: 250\nS: 250\n"),
            Some("no reply"),
        ),
        (
            "a reply too many",
            String::from("C: NOOP\nC: NOOP\nS: 250\n"),
            Some("too many"),
        ),
        (
            "a reply nobody expects",
            String::from("C: NOOP\n"),
            Some("too many"),
        ),
        ("listed", String::from("S+ AUTH\n"), Some("is not in")),
        ("not listed", String::from("S- CHUNKING\n"), Some("is in")),
        ("no end", String::from("CLOSE\n"), Some("not over")),
        (
            "an end",
            String::from("C: QUIT\nS: 221\n"),
            Some("no CLOSE"),
        ),
        ("no handshake", String::from("TLS\n"), Some("no handshake")),
        ("mail", format!("{delivery}{mail}"), None),
        ("mail nobody names", String::from(delivery), Some("no MAIL")),
        ("no mail", String::from(mail), Some("nothing was committed")),
        (
            "other octets",
            format!("{delivery}{}", mail.replace("x\\r", "y\\r")),
            Some("octets"),
        ),
        (
            "another sender",
            format!("{delivery}{}", mail.replace("a@", "z@")),
            Some("reverse"),
        ),
        (
            "another recipient",
            format!("{delivery}{}", mail.replace("b@", "z@")),
            Some("recip"),
        ),
        (
            "SMTPUTF8",
            format!("{delivery}{}", mail.replace("> \"", "> smtputf8 \"")),
            Some("utf8"),
        ),
        (
            "a name",
            format!("{delivery}{}", mail.replace("> \"", "> auth=a \"")),
            Some("auth"),
        ),
        (
            "a protocol",
            format!("{delivery}{}", mail.replace("> \"", "> with=LMTP \"")),
            Some("prot"),
        ),
    ];
    for (name, text, wanted) in rows {
        let text = format!("{opening}{text}");
        let transcript = Transcript::parse(Path::new(name), &text).unwrap();
        let got = keeps(&transcript, Way::Clear, 1);
        match wanted {
            None => assert_eq!(got, Ok(()), "{name}"),
            Some(wanted) => {
                let got = got.expect_err(name);
                assert!(got.contains(wanted), "{name}: {got}");
            }
        }
    }
}

/// Plays one transcript in one way at all cuttings; the first fault is told.
fn keeps(transcript: &Transcript, way: Way, seed: u64) -> Result<(), String> {
    let now = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cuttings = vec![Cutting::Whole, Cutting::Pipelined, Cutting::Octets];
    for _ in 0..4 {
        cuttings.push(Cutting::Random(random.u64(..)));
    }
    for _ in 0..2 {
        cuttings.push(Cutting::PipelinedRandom(random.u64(..)));
    }
    let mut first: Option<Vec<u8>> = None;
    for cutting in cuttings {
        let place = |line: usize| {
            format!(
                "{}:{line}: {way:?}, {cutting:?} (RINGPOST_TRANSCRIPT_SEED={seed})",
                transcript.path.display()
            )
        };
        let replies = play(transcript, way, cutting, now)
            .map_err(|Fault { line, text }| format!("{}: {text}", place(line)))?;
        match &first {
            None => first = Some(replies),
            Some(first) if *first != replies => {
                return Err(format!(
                    "{}: the replies differ from those to the whole:\n  {}\n  {}",
                    place(1),
                    shortened(first),
                    shortened(&replies)
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
