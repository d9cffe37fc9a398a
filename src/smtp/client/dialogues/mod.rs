//! Dialogues of the sending session, as tables with named rows.
//!
//! In a script `S:` is a line of the peer with its CR LF, `R:` octets of it as they are (with Rust's
//! escapes). `C:` is a line that the session sends, `c:` one without an end so far. `!` is something
//! that the caller does: `!secured`, `!begin`, `!quit`, `!closed`, `!expired`, `!hold` (content is
//! kept back from now on), `!part` and `!rest` (some of it, all of it), `!short` (it ends too early).
//! `=` is an effect: `=secure`, `=ready`, `=content`, `=over …`, `=closed`, and for a transaction a
//! line for each recipient, `=accepted REPLY` (`=accepted, told REPLY` with DSN), `=refused REPLY`,
//! `=unsent …`, then `=ready` or `=over …`. A message that is refused before MAIL is `=refusal …`.
//!
//! Lines of the peer without anything between them come together. Every script runs whole, cut into
//! pieces of every small size and at random, so that each row is also a test for the cuts.

mod between;
mod messages;
mod opening;
mod peers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::envelope::Body;
use crate::smtp::sasl::Secret;

const CONTENT: &[u8] = b"A: b\r\n\r\n.c\r\n";

fn settings(change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut settings = Settings {
        dialect: Dialect::Smtp,
        helo: String::from("me.test"),
        starttls: StartTls::Negotiated,
        login: None,
        ignored: Ignored::default(),
        timeouts: Timeouts::default(),
    };
    change(&mut settings);
    Arc::new(settings)
}

fn login(settings: &mut Settings) {
    settings.login = Some(Login {
        name: String::from("ann"),
        password: Secret::from(b"secret".to_vec()),
    });
}

fn message(change: impl FnOnce(&mut Transaction)) -> Transaction {
    let mut transaction = Transaction {
        reverse_path: Some("a@b".into()),
        recipients: vec![to("c@d")],
        octets: CONTENT.len() as u64,
        body: Body::SevenBit,
        smtputf8: false,
        dsn: MailDsn::default(),
        facts: None,
    };
    change(&mut transaction);
    transaction
}

fn to(path: &str) -> TransactionRecipient {
    TransactionRecipient {
        path: path.into(),
        dsn: RcptDsn::default(),
    }
}

/// Three recipients.
fn three(transaction: &mut Transaction) {
    transaction.recipients = vec![to("c@d"), to("e@f"), to("g@h")];
}

/// A session with an outside that performs what the script says.
struct Stage {
    session: Session,
    transaction: Transaction,
    now: Instant,
    out: Vec<u8>,
    log: Vec<String>,
    /// What is asked for once all input is read.
    pending: Option<Effect>,
    holds: bool,
    content_left: &'static [u8],
}

impl Stage {
    fn new(settings: &Arc<Settings>, channel: Channel, transaction: Transaction) -> Stage {
        let now = Instant::now();
        Stage {
            session: Session::new(Arc::clone(settings), channel, now),
            transaction,
            now,
            out: Vec::new(),
            log: Vec::new(),
            pending: None,
            holds: false,
            content_left: CONTENT,
        }
    }

    fn hear(&mut self, mut input: &[u8]) {
        loop {
            let effect = self.session.receive(self.now, &mut input, &mut self.out);
            self.take(effect);
            if input.is_empty() || self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.pending, Some(Effect::Over(_) | Effect::Closed))
    }

    /// Notes an effect; one that the peer's next octets may still change is not told yet.
    fn take(&mut self, effect: Effect) {
        if self.is_over() {
            if effect == Effect::Input || Some(&effect) == self.pending.as_ref() {
                return;
            }
            // A message for nobody, or QUIT to nobody.
            assert!(matches!(effect, Effect::Finished(_) | Effect::Closed));
        }
        match effect {
            Effect::Input => {}
            Effect::Secure | Effect::Content(_) => {
                self.pending = Some(effect);
            }
            Effect::Ready | Effect::Over(_) | Effect::Closed => {
                self.tell(&effect);
                self.pending = Some(effect);
            }
            Effect::Finished(Outcome {
                ref recipients,
                ref after,
            }) => {
                assert_eq!(recipients.len(), self.transaction.recipients.len());
                let after = match after {
                    After::Ready => Effect::Ready,
                    After::Over(failure) => Effect::Over(failure.clone()),
                };
                self.tell(&effect);
                self.pending = Some(after);
            }
        }
    }

    /// Writes what was said and the effect into the log.
    fn tell(&mut self, effect: &Effect) {
        self.flush();
        match effect {
            Effect::Input => {}
            Effect::Secure => self.log.push(String::from("=secure")),
            Effect::Ready => {
                assert!(self.session.is_ready());
                self.log.push(String::from("=ready"));
            }
            Effect::Content(Transfer::Data) => self.log.push(String::from("=content")),
            Effect::Content(Transfer::Chunk) => self.log.push(String::from("=chunk")),
            Effect::Over(failure) => self.log.push(format!("=over {}", shown(failure))),
            Effect::Closed => self.log.push(String::from("=closed")),
            Effect::Finished(Outcome { recipients, after }) => {
                self.log.extend(recipients.iter().map(shown_outcome));
                self.log.push(match after {
                    After::Ready => String::from("=ready"),
                    After::Over(failure) => format!("=over {}", shown(failure)),
                });
            }
        }
    }

    fn flush(&mut self) {
        let out = String::from_utf8(std::mem::take(&mut self.out)).unwrap();
        for line in out.split_inclusive('\n') {
            self.log.push(match line.strip_suffix("\r\n") {
                Some(line) => format!("C: {line}").trim_end().to_owned(),
                None => format!("c: {line}").trim_end().to_owned(),
            });
        }
    }

    /// All of a group was heard, or something done: what is pending is due now.
    fn settle(&mut self) {
        loop {
            match self.pending.take() {
                Some(effect @ Effect::Secure) => self.tell(&effect),
                Some(effect @ Effect::Content(transfer)) => {
                    if self.holds {
                        self.tell(&effect);
                    } else {
                        self.flush();
                        let effect = self.send_rest(transfer);
                        self.take(effect);
                        continue;
                    }
                }
                over @ Some(Effect::Over(_) | Effect::Closed) => {
                    self.flush();
                    self.pending = over;
                }
                Some(Effect::Input | Effect::Ready | Effect::Finished(_)) | None => self.flush(),
            }
            return;
        }
    }

    fn send_rest(&mut self, transfer: Transfer) -> Effect {
        let rest = std::mem::take(&mut self.content_left);
        match transfer {
            Transfer::Data => self.session.content(self.now, rest, &mut self.out),
            // The other way, without a copy.
            Transfer::Chunk => {
                self.out.extend_from_slice(rest);
                let octets = rest.len() as u64;
                self.session.content_progress(self.now, octets);
            }
        }
        self.session.content_sent(self.now, &mut self.out)
    }

    fn act(&mut self, act: &str) {
        let Stage {
            session, now, out, ..
        } = self;
        let effect = match act {
            "secured" => session.secured(*now, out),
            "begin" => {
                self.content_left = CONTENT;
                match session.begin(*now, &self.transaction, out) {
                    Ok(effect) => effect,
                    Err(Refusal { status, text }) => {
                        assert!(out.is_empty(), "nothing was said");
                        self.log.push(format!("=refusal {status} {text}"));
                        return;
                    }
                }
            }
            "quit" => session.quit(*now, out),
            "closed" => session.peer_closed(),
            "expired" => session.expired(),
            "hold" => {
                self.holds = true;
                return;
            }
            "part" => {
                let (part, rest) = self.content_left.split_at(3);
                self.content_left = rest;
                session.content(*now, part, out);
                Effect::Input
            }
            "rest" => {
                let rest = std::mem::take(&mut self.content_left);
                session.content(*now, rest, out);
                session.content_sent(*now, out)
            }
            "short" => session.content_sent(*now, out),
            other => panic!("!{other}"),
        };
        self.take(effect);
    }
}

fn shown(failure: &Failure) -> String {
    let Failure {
        cause,
        status,
        text,
        reply,
        again_now,
    } = failure;
    if let Some(reply) = reply {
        assert_eq!(reply.text, *text);
    }
    let again_now = if *again_now { ", again now" } else { "" };
    format!("{cause:?} {status}{again_now}: {text}")
}

fn shown_outcome(outcome: &RecipientOutcome) -> String {
    match outcome {
        RecipientOutcome::Accepted { dsn_passed, reply } => {
            let told = if *dsn_passed { ", told" } else { "" };
            format!("=accepted{told} {}", reply.text)
        }
        RecipientOutcome::Refused(reply) => format!("=refused {}", reply.text),
        RecipientOutcome::Unsent(failure) => format!("=unsent {}", shown(failure)),
    }
}

/// One row: what is set, what is sent, what happens.
struct Row {
    name: &'static str,
    change: fn(&mut Settings),
    channel: Channel,
    transaction: fn(&mut Transaction),
    /// What EHLO listed before the script begins; none: it begins with the greeting.
    offered: Option<&'static str>,
    script: &'static str,
}

fn row(name: &'static str, script: &'static str) -> Row {
    Row {
        name,
        change: |_| {},
        channel: Channel::Clear,
        transaction: |_| {},
        offered: None,
        script,
    }
}

/// A row that begins with a session that is ready.
fn offered(offered: &'static str, name: &'static str, script: &'static str) -> Row {
    Row {
        offered: Some(offered),
        ..row(name, script)
    }
}

impl Row {
    fn set(self, change: fn(&mut Settings)) -> Row {
        Row { change, ..self }
    }

    fn tls(self) -> Row {
        let channel = Channel::Tls;
        Row { channel, ..self }
    }

    fn message(self, transaction: fn(&mut Transaction)) -> Row {
        Row {
            transaction,
            ..self
        }
    }
}

/// What happens, with what is expected behind it.
enum Event {
    Heard(Vec<u8>),
    Done(String),
}

fn events(script: &str) -> Vec<(Event, Vec<String>)> {
    let mut events: Vec<(Event, Vec<String>)> = Vec::new();
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    for line in lines {
        let heard = if let Some(text) = line.strip_prefix("S: ") {
            [text.as_bytes(), b"\r\n"].concat()
        } else if let Some(text) = line.strip_prefix("R: ") {
            text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
        } else if let Some(act) = line.strip_prefix('!') {
            events.push((Event::Done(act.to_owned()), Vec::new()));
            continue;
        } else {
            events.last_mut().unwrap().1.push(line.to_owned());
            continue;
        };
        match events.last_mut() {
            Some((Event::Heard(octets), expected)) if expected.is_empty() => octets.extend(heard),
            _ => events.push((Event::Heard(heard), Vec::new())),
        }
    }
    events
}

/// Plays a script; `cut` says how many octets come next, of so many.
fn play(row: &Row, how: &str, cut: &mut dyn FnMut(usize) -> usize) {
    let settings = settings(row.change);
    let mut stage = Stage::new(&settings, row.channel, message(row.transaction));
    if let Some(offered) = row.offered {
        let keywords = offered
            .split(';')
            .map(|keyword| format!("250-{keyword}\r\n"));
        let preface = format!(
            "220 mx\r\n250-mx\r\n{}250 X\r\n",
            keywords.collect::<String>()
        );
        stage.hear(preface.as_bytes());
        stage.settle();
        let log = std::mem::take(&mut stage.log);
        assert_eq!(log.last().unwrap(), "=ready", "{}", row.name);
    }
    for (number, (event, expected)) in events(row.script).into_iter().enumerate() {
        match event {
            Event::Heard(octets) => {
                let mut rest = octets.as_slice();
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
                    stage.hear(piece);
                    rest = behind;
                }
            }
            Event::Done(act) => stage.act(&act),
        }
        stage.settle();
        let log = std::mem::take(&mut stage.log);
        assert_eq!(log, expected, "{}, {how}, event {number}", row.name);
    }
}

fn run(rows: &[Row]) {
    for row in rows {
        play(row, "whole", &mut |whole| whole);
        for piece_octets in [1, 2, 3, 5, 7, 64] {
            play(row, &format!("by {piece_octets}"), &mut |_| piece_octets);
        }
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            play(row, &format!("seed {seed}"), &mut |whole| {
                random.usize(1..=whole)
            });
        }
    }
}

fn lmtp(settings: &mut Settings) {
    settings.dialect = Dialect::Lmtp;
}

fn required(settings: &mut Settings) {
    settings.starttls = StartTls::Required;
}
