//! Whole sessions: what clients say in the transcripts, taken apart, mixed and damaged, with time
//! passing, drains, and an outside that fails. The invariants are those of the player.

use std::time::{Duration, Instant};

use ringpost::smtp::server::{CommitFailure, StartTls, Verdict};

use super::transcript::{Kind, Way, Wishes};
use super::transcript_line::{Line, Outside, piece_octets, shortened};
use super::{TOKENS, TRANSCRIPTS, cases, choose, mutate};

/// Something that happens to a session.
#[derive(Clone, Debug)]
enum Event {
    Octets(Vec<u8>),
    /// The handshake, if one is due; else nothing.
    Handshake,
    Pass(Duration),
    Expire,
    Drain,
}

#[test]
fn sessions() {
    cases("sessions", |random| {
        let wishes = wishes(random);
        let events = events(random);
        let way = *choose(
            random,
            &[Way::Clear, Way::Clear, Way::StartTls, Way::TlsPort],
        );
        let outside_seed = random.u64(..);
        let now = Instant::now();
        let run = |cut: &mut dyn FnMut(usize) -> usize| {
            let outside = Moody(fastrand::Rng::with_seed(outside_seed), wishes.clone());
            let mut line = Line::open(&wishes, way, outside, now);
            if way == Way::StartTls && wishes.starttls != StartTls::Off && !wishes.tls_unavailable {
                line.start_tls()?;
            }
            for event in &events {
                happen(&mut line, event, cut)?;
            }
            line.close()
        };
        let tell = |text: &str| format!("{text}\n{wishes:?}\n{way:?}\n{}", story(&events));
        let (replies, committed) = run(&mut |rest| rest).unwrap_or_else(|e| panic!("{}", tell(&e)));
        let committed: Vec<Vec<u8>> = committed.into_iter().map(|c| c.octets).collect();
        let compare = |cut: &mut dyn FnMut(usize) -> usize, how: &str| {
            let (again, committed_again) = run(cut).unwrap_or_else(|e| panic!("{}", tell(&e)));
            assert!(
                again == replies,
                "{}",
                tell(&format!(
                    "{how}:\n{}\n{}",
                    shortened(&again),
                    shortened(&replies)
                ))
            );
            let committed_again: Vec<Vec<u8>> =
                committed_again.into_iter().map(|c| c.octets).collect();
            assert!(committed_again == committed, "{}", tell(how));
        };
        let octets: usize = events
            .iter()
            .map(|event| match event {
                Event::Octets(octets) => octets.len(),
                _ => 0,
            })
            .sum();
        if octets < 20_000 {
            compare(&mut |_| 1, "octet by octet");
        }
        let mut cuts = random.fork();
        compare(&mut |rest| piece_octets(&mut cuts, rest), "in pieces");
    });
}

fn happen(
    line: &mut Line<Moody>,
    event: &Event,
    cut: &mut dyn FnMut(usize) -> usize,
) -> Result<(), String> {
    if line.is_closed() {
        return Ok(());
    }
    match event {
        Event::Octets(octets) => {
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cut(rest.len()));
                line.send(piece)?;
                rest = behind;
            }
            Ok(())
        }
        Event::Handshake if line.is_securing() => line.handshake(),
        Event::Handshake => Ok(()),
        Event::Pass(time) => {
            line.now += *time;
            Ok(())
        }
        Event::Expire if line.is_securing() => Ok(()),
        Event::Expire => line.expire(),
        Event::Drain => line.drain(),
    }
}

/// An outside that says yes and no as it likes, the same for every cutting.
struct Moody(fastrand::Rng, Wishes);

impl Outside for Moody {
    fn verify(&mut self, name: &str, password: &[u8]) -> Verdict {
        let is_good = self
            .1
            .users
            .iter()
            .any(|(user, known)| user == name && known.as_bytes() == password);
        match self.0.u8(..8) {
            0 => Verdict::Unavailable,
            1 => Verdict::Accepted,
            2 => Verdict::Refused,
            _ if is_good => Verdict::Accepted,
            _ => Verdict::Refused,
        }
    }

    fn store(&mut self) -> Option<CommitFailure> {
        match self.0.u8(..12) {
            0 => Some(CommitFailure::NoSpace),
            1 => Some(CommitFailure::Failed),
            _ => None,
        }
    }

    fn commit(&mut self) -> Option<CommitFailure> {
        match self.0.u8(..6) {
            0 => Some(CommitFailure::NoSpace),
            1 => Some(CommitFailure::Failed),
            _ => None,
        }
    }
}

/// The settings of some transcript, bent a little.
fn wishes(random: &mut fastrand::Rng) -> Wishes {
    let mut wishes = choose(random, &TRANSCRIPTS).wishes.clone();
    if random.bool() {
        wishes.users = vec![(String::from("alice"), String::from("secret"))];
        wishes.tcp_auth = random.bool();
        wishes.tls_auth = random.bool();
    }
    if random.u8(..4) == 0 {
        wishes.tcp_anonymous = random.bool();
        wishes.tls_anonymous = random.bool();
        wishes.starttls = *choose(random, &[StartTls::Off, StartTls::On, StartTls::Required]);
    }
    if random.u8(..4) == 0 {
        wishes.message_octets_max = Some(random.u64(..200));
        wishes.recipients_max = Some(random.usize(1..4));
        wishes.mail_memory = Some(random.u64(..20_000));
    }
    // Mostly so little that common messages have parts; now and then what a memory that is short
    // comes to is seen besides.
    if random.bool() {
        let octets_max = *choose(random, &[8, 100, 2_000, u64::MAX]);
        wishes.message_memory_octets_max = Some(random.u64(..octets_max));
    }
    if random.u8(..8) == 0 {
        wishes.mail_memory = Some(random.u64(10_000..100_000));
    }
    if random.bool() {
        wishes.errors_max = Some(random.u32(0..50));
    }
    wishes
}

/// A dialogue of some transcripts, parts of it moved, doubled, lost and damaged.
fn events(random: &mut fastrand::Rng) -> Vec<Event> {
    let mut events = vec![Event::Octets(b"EHLO c.example\r\n".to_vec())];
    for _ in 0..random.usize(1..4) {
        let transcript = choose(random, &TRANSCRIPTS);
        let from = random.usize(..transcript.items.len());
        let whole = random.bool();
        for item in &transcript.items[if whole { 0 } else { from }..] {
            match &item.kind {
                // The largest would take all the time there is.
                Kind::Client(octets) if octets.len() > 4000 && random.u8(..50) != 0 => {}
                Kind::Client(octets) => {
                    let mut octets = octets.clone();
                    if random.u8(..10) == 0 {
                        mutate(random, &mut octets);
                    }
                    match random.u8(..40) {
                        0 => {}
                        1 => {
                            let again = octets.clone();
                            events.push(Event::Octets(again));
                            events.push(Event::Octets(octets));
                        }
                        2 => {
                            let at = random.usize(..=events.len());
                            events.insert(at, Event::Octets(octets));
                        }
                        _ => events.push(Event::Octets(octets)),
                    }
                }
                Kind::Handshake => events.push(Event::Handshake),
                _ => {}
            }
            match random.u8(..) {
                0 => events.push(Event::Expire),
                1 => events.push(Event::Drain),
                2..6 => events.push(Event::Pass(Duration::from_secs(random.u64(..400)))),
                6..12 => events.push(Event::Octets(choose(random, TOKENS).to_vec())),
                12..18 => {
                    events.push(Event::Octets(b"STARTTLS\r\n".to_vec()));
                    events.push(Event::Handshake);
                    events.push(Event::Octets(b"EHLO c.example\r\n".to_vec()));
                }
                18..22 => events.push(Event::Octets(
                    b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n".to_vec(),
                )),
                _ => {}
            }
        }
    }
    // Most handshakes would come as an injection if what was said before were in one piece with them.
    if random.bool() { join(events) } else { events }
}

/// Runs of octets in one piece.
fn join(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Octets(before)), Event::Octets(octets)) => {
                before.extend_from_slice(&octets);
            }
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn story(events: &[Event]) -> String {
    let lines: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Octets(octets) => shortened(octets),
            Event::Handshake | Event::Pass(_) | Event::Expire | Event::Drain => {
                format!("{event:?}")
            }
        })
        .collect();
    lines.join("\n")
}
