//! Plays dialogues against the session alone, their octets cut in every way.

use std::time::Instant;

use ringpost::smtp::command::Addresses;

use super::transcript::{Item, Kind, Transcript, Way};
use super::transcript_line::{Committed, Line, Outside, Scripted, piece_octets, shortened};
use super::transcript_match::{LastReply, Replies};

/// How a dialogue's octets are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// What the client says between two replies, in one piece.
    Whole,
    /// Each octet alone.
    Octets,
    /// Pieces of random length.
    Random(u64),
    /// All that the client says, in one piece, before it reads a reply; as far as a handshake or
    /// an event lets it.
    Pipelined,
    /// The same in pieces of random length.
    PipelinedRandom(u64),
}

impl Cutting {
    fn is_pipelined(self) -> bool {
        matches!(self, Cutting::Pipelined | Cutting::PipelinedRandom(_))
    }
}

/// What went wrong, and at which line.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Plays a transcript; gives all replies.
pub(crate) fn play(
    transcript: &Transcript,
    way: Way,
    cutting: Cutting,
    now: Instant,
) -> Result<Vec<u8>, Fault> {
    let fault_at = |line: usize| move |text: String| Fault { line, text };
    let first = &transcript.items[0];
    let wishes = &transcript.wishes;
    let mut line = Line::open(wishes, way, Scripted::new(wishes), now);
    if way == Way::StartTls {
        line.start_tls().map_err(fault_at(first.line))?;
    }
    let mut random = fastrand::Rng::with_seed(match cutting {
        Cutting::Random(seed) | Cutting::PipelinedRandom(seed) => seed,
        Cutting::Whole | Cutting::Octets | Cutting::Pipelined => 0,
    });
    let mut seen = Seen::default();
    let mut last_reply = LastReply::default();
    // The greeting is there, unless the handshake was after it; it is told of only if it matters.
    if way != Way::StartTls && !is_reply(first) {
        let greeting = Kind::WholeReply(String::from("220"));
        seen.update(&line.replies);
        last_reply
            .hold(&greeting, &mut seen)
            .map_err(fault_at(first.line))?;
    }
    let mut mails_seen = 0;
    let mut items = transcript.items.iter().peekable();
    if way == Way::StartTls && is_reply(first) {
        items.next();
    }
    let mut sent_ahead = false;
    while let Some(item) = items.next() {
        let fault = fault_at(item.line);
        seen.update(&line.replies);
        match &item.kind {
            Kind::Client(octets) => {
                let mut piece = octets.clone();
                if cutting.is_pipelined() {
                    if sent_ahead {
                        continue;
                    }
                    sent_ahead = true;
                    for ahead in items.clone().take_while(|item| !is_event(item)) {
                        if let Kind::Client(octets) = &ahead.kind {
                            piece.extend_from_slice(octets);
                        }
                    }
                } else {
                    seen.is_read().map_err(fault)?;
                    while let Some(Kind::Client(octets)) = items.peek().map(|next| &next.kind) {
                        piece.extend_from_slice(octets);
                        items.next();
                    }
                }
                send(&mut line, &piece, cutting, &mut random).map_err(fault)?;
            }
            Kind::Handshake => {
                seen.is_read().map_err(fault)?;
                sent_ahead = false;
                line.handshake().map_err(fault)?;
            }
            Kind::Expire => {
                seen.is_read().map_err(fault)?;
                sent_ahead = false;
                line.expire().map_err(fault)?;
            }
            Kind::Drain => {
                seen.is_read().map_err(fault)?;
                sent_ahead = false;
                line.drain().map_err(fault)?;
            }
            Kind::Close => {
                seen.is_read().map_err(fault)?;
                if !line.is_closed() {
                    return Err(fault(String::from("the session is not over")));
                }
            }
            Kind::Mail(expected) => {
                let Some(committed) = line.committed.get(mails_seen) else {
                    return Err(fault(String::from("nothing was committed")));
                };
                mails_seen += 1;
                compare(expected, committed).map_err(fault)?;
            }
            Kind::To {
                local_part,
                domain,
                dsn,
            } => {
                let recipients = &line.committed[mails_seen - 1].envelope.recipients;
                if !recipients.iter().any(|to| {
                    *to.local_part == **local_part
                        && *to.domain == **domain
                        && to.dsn.parameters(Addresses::Utf8) == *dsn
                }) {
                    return Err(fault(format!("not among {recipients:?}")));
                }
            }
            Kind::Reply { .. }
            | Kind::WholeReply(_)
            | Kind::MaybeReply(_)
            | Kind::Listed(_)
            | Kind::NotListed(_) => last_reply.hold(&item.kind, &mut seen).map_err(fault)?,
        }
    }
    let end = transcript.items.last().map_or(0, |item| item.line);
    seen.update(&line.replies);
    seen.is_read().map_err(fault_at(end))?;
    let has_close = transcript.items.iter().any(|item| item.kind == Kind::Close);
    if line.is_closed() && !has_close {
        return Err(fault_at(end)(String::from(
            "the session is over, and no CLOSE says so",
        )));
    }
    if line.committed.len() != mails_seen {
        let mail = &line.committed[mails_seen].envelope;
        return Err(fault_at(end)(format!(
            "committed, and no MAIL says so: {mail:?}"
        )));
    }
    line.hang_up();
    let (replies, committed) = line.close().map_err(fault_at(end))?;
    if committed.len() != mails_seen {
        return Err(fault_at(end)(String::from("committed after the hang-up")));
    }
    Ok(replies)
}

/// Whether the item is the greeting, when it is the first.
pub(crate) fn is_reply(item: &Item) -> bool {
    matches!(item.kind, Kind::Reply { .. })
}

/// Whether a client that sends ahead has to stop here.
fn is_event(item: &Item) -> bool {
    matches!(
        item.kind,
        Kind::Handshake | Kind::Expire | Kind::Drain | Kind::Close
    )
}

fn send<O: Outside>(
    line: &mut Line<O>,
    octets: &[u8],
    cutting: Cutting,
    random: &mut fastrand::Rng,
) -> Result<(), String> {
    match cutting {
        Cutting::Whole | Cutting::Pipelined => line.send(octets),
        Cutting::Octets => octets.chunks(1).try_for_each(|octet| line.send(octet)),
        Cutting::Random(_) | Cutting::PipelinedRandom(_) => {
            let mut rest = octets;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(piece_octets(random, rest.len()));
                line.send(piece)?;
                rest = behind;
            }
            Ok(())
        }
    }
}

/// Holds a committed message against its `MAIL` line.
fn compare(expected: &super::transcript::Mail, committed: &Committed) -> Result<(), String> {
    let Committed {
        envelope,
        origin,
        octets,
    } = committed;
    let differs = |what: &str, expected: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
        Err(format!("{what}: expected {expected:?}, got {got:?}"))
    };
    let reverse_path = envelope.reverse_path.as_deref().unwrap_or_default();
    if reverse_path != expected.reverse_path {
        return differs("reverse-path", &expected.reverse_path, &reverse_path);
    }
    let recipients: Vec<&str> = envelope.recipients.iter().map(|to| &*to.as_given).collect();
    if recipients != expected.recipients {
        return differs("recipients", &expected.recipients, &recipients);
    }
    if let Some(body) = expected.body
        && envelope.body != body
    {
        return differs("body", &body, &envelope.body);
    }
    if envelope.smtputf8 != expected.smtputf8 {
        return differs("smtputf8", &expected.smtputf8, &envelope.smtputf8);
    }
    let dsn = envelope.dsn.parameters();
    if dsn != expected.dsn {
        return differs("dsn", &expected.dsn, &dsn);
    }
    if let Some(protocol) = &expected.protocol
        && origin.protocol.label() != protocol
    {
        return differs("protocol", protocol, &origin.protocol.label());
    }
    if origin.authenticated.as_deref() != expected.authenticated.as_deref() {
        return differs(
            "authenticated",
            &expected.authenticated,
            &origin.authenticated,
        );
    }
    if let Some(name) = &expected.greeted_as
        && *origin.greeted_as != **name
    {
        return differs("greeted as", name, &origin.greeted_as);
    }
    if *octets != expected.octets {
        return Err(format!(
            "octets: expected \"{}\", got \"{}\"",
            shortened(&expected.octets),
            shortened(octets)
        ));
    }
    Ok(())
}

/// The replies so far, and how far they were read.
#[derive(Debug, Default)]
struct Seen {
    octets: Vec<u8>,
    read: usize,
}

impl Seen {
    fn update(&mut self, replies: &[u8]) {
        self.octets.extend_from_slice(&replies[self.octets.len()..]);
    }

    fn is_read(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(line) => Err(format!("a reply too many: {}", line.escape_ascii())),
        }
    }
}

impl Replies for Seen {
    fn peek(&mut self) -> Option<&[u8]> {
        let unread = &self.octets[self.read..];
        let end = unread.windows(2).position(|two| two == b"\r\n")?;
        Some(&unread[..end])
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.peek()?.to_vec();
        self.read += line.len() + 2;
        Some(line)
    }
}
