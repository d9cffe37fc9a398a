//! Peers that are no script: this server's own receiving side, and ones that say anything.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::smtp::data::{Budget, MailData};
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::reply::{Output, TransactionRecord, Witness};
use crate::smtp::{command, reply as replies, server};

/// The receiving side of this server, with some of what it offers taken away.
struct OwnServer {
    session: server::Session,
    hidden: &'static [&'static str],
    stored: Vec<u8>,
    /// Reverse-path, recipients and content of what it took.
    taken: Vec<(String, Vec<String>, Vec<u8>)>,
}

struct Nobody;

impl Witness for Nobody {
    fn replied(&self, _: command::Verb, _: u16, _: Option<replies::Refusal>) {}
    fn transaction(&self, _: &TransactionRecord<'_>) {}
    fn ended(&self, _: replies::Refusal) {}
}

impl OwnServer {
    fn new(hidden: &'static [&'static str], now: Instant) -> OwnServer {
        let tls = server::ChannelPolicy {
            auth: server::AuthOffer::Yes,
            anonymous: server::Anonymous::No,
        };
        let settings = server::Settings {
            hostname: String::from("mx.test"),
            greeting: String::from(server::DEFAULT_GREETING),
            starttls: server::StartTls::On,
            tcp: server::ChannelPolicy::default(),
            tls,
            local_domains: server::LocalDomains::new("d", ["f"]).unwrap(),
            trusted_nets: Vec::new(),
            recipients: None,
            stray_newline: StrayNewline::Accept,
            limits: server::Limits::default(),
            budget: Budget::new(16 * 1024 * 1024),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 25));
        let connection = server::Connection {
            peer: address,
            local: address,
            channel: server::Channel::Clear,
        };
        OwnServer {
            session: server::Session::new(Arc::new(settings), connection, now),
            hidden,
            stored: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// What it says to `input`; nothing at all at first.
    fn hear(&mut self, now: Instant, mut input: &[u8]) -> Vec<u8> {
        let mut out = Output::new(Vec::new(), &Nobody);
        self.session.greet(now, &mut out);
        loop {
            match self.session.receive(now, &mut input, &mut out) {
                server::Effect::Input if !input.is_empty() => {}
                server::Effect::Input | server::Effect::Close => break,
                server::Effect::Secure => {
                    let security = crate::smtp::message::Security::default();
                    self.session.secured(now, security);
                }
                server::Effect::Verify(credentials) => {
                    assert_eq!(credentials.name, "ann");
                    assert_eq!(credentials.password.octets(), b"secret");
                    let verdict = server::Verdict::Accepted;
                    self.session.verified(now, verdict, &mut out);
                }
                server::Effect::Store(part) => {
                    self.keep(&part);
                    self.session.stored(now, Ok(()), &mut out);
                }
                server::Effect::Commit(message) => {
                    self.keep(&message.data);
                    let envelope = &message.envelope;
                    let recipients = envelope.recipients.iter();
                    self.taken.push((
                        envelope.reverse_path.as_deref().unwrap_or("<>").to_owned(),
                        recipients.map(|to| to.as_given.to_string()).collect(),
                        std::mem::take(&mut self.stored),
                    ));
                    self.session.committed(now, Ok("ID7"), &mut out);
                }
            }
        }
        let said = String::from_utf8(out.into_octets()).unwrap();
        let is_hidden = |line: &str| {
            let mut hidden = self.hidden.iter();
            hidden.any(|keyword| line.get(4..).is_some_and(|rest| rest.starts_with(keyword)))
        };
        let lines = said.split_inclusive('\n').filter(|line| !is_hidden(line));
        lines.collect::<String>().into_bytes()
    }

    fn keep(&mut self, data: &MailData) {
        self.stored.extend(data.slices().flatten());
    }
}

/// Both sides of this server speak to each other, on every way that content can take.
#[test]
fn with_our_own_receiving_side() {
    let small: &[u8] = b"A: b\r\n\r\n.\r\n..\r\nc\n.\r\n\r\n.\r\n";
    let large = small.repeat(40_000);
    // what the peer does not offer, how often the session waits for it from MAIL on
    #[rustfmt::skip] // a row a line
    let rows: &[(&[&str], &[u8], u32)] = &[
        (&[], small, 1),
        (&[], b"", 1),
        (&["PIPELINING"], small, 5),
        (&[], &large, 2),
        (&["CHUNKING", "BINARYMIME"], small, 2),
        (&["CHUNKING", "BINARYMIME"], &large, 2),
        (&["CHUNKING", "BINARYMIME", "PIPELINING"], small, 6),
        (&["CHUNKING", "BINARYMIME", "PIPELINING"], &large, 6),
    ];
    for (hidden, content, waits) in rows {
        let now = Instant::now();
        let mut peer = OwnServer::new(hidden, now);
        let mut session = Session::new(settings(login), Channel::Clear, now);
        let mut out = Vec::new();
        let mut waited = 0;
        let mut messages = 2;
        let mut said = peer.hear(now, b"");
        let mut effect = session.receive(now, &mut said.as_slice(), &mut out);
        loop {
            effect = match effect {
                Effect::Input => {
                    waited += 1;
                    said = peer.hear(now, &std::mem::take(&mut out));
                    session.receive(now, &mut said.as_slice(), &mut out)
                }
                Effect::Secure => session.secured(now, &mut out),
                Effect::Ready if messages == 0 => session.quit(now, &mut out),
                Effect::Ready => {
                    waited = 0;
                    let transaction = message(|transaction| {
                        transaction.octets = content.len() as u64;
                        transaction.recipients = vec![to("c@d"), to("e@elsewhere"), to("e@f")];
                    });
                    session.begin(now, &transaction, &mut out).unwrap()
                }
                Effect::Content(_) => {
                    for part in content.chunks(1000) {
                        session.content(now, part, &mut out);
                    }
                    session.content_sent(now, &mut out)
                }
                Effect::Finished(Outcome { recipients, after }) => {
                    assert_eq!(waited, *waits, "without {hidden:?}");
                    for outcome in recipients {
                        let shown = shown_outcome(&outcome);
                        assert!(shown.starts_with("=accepted, told 250 2.0.0"), "{shown}");
                    }
                    assert_eq!(after, After::Ready);
                    messages -= 1;
                    Effect::Ready
                }
                Effect::Closed => break,
                Effect::Over(failure) => panic!("{failure:?}"),
            };
        }
        assert_eq!(peer.taken.len(), 2, "without {hidden:?}");
        for (reverse_path, recipients, octets) in &peer.taken {
            assert_eq!(reverse_path, "a@b");
            assert_eq!(*recipients, ["c@d", "e@elsewhere", "e@f"]);
            assert!(octets == content, "without {hidden:?}");
        }
    }
}

/// One of some.
fn choose<'a>(random: &mut fastrand::Rng, of: &[&'a str]) -> &'a str {
    of[random.usize(..of.len())]
}

/// What a peer says, and what is done in between: anything, half of it behind something that is
/// nearly right, so that they come to a message, or to a handshake.
fn story(random: &mut fastrand::Rng) -> Vec<Event> {
    #[rustfmt::skip]
    const TOKENS: [&str; 24] = [
        "220 mx\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "250-", "250-PIPELINING\r\n",
        "250-CHUNKING\r\n", "250-STARTTLS\r\n", "250-BINARYMIME\r\n", "250 AUTH PLAIN LOGIN\r\n",
        "354 go\r\n", "354 go\r\n", "334 \r\n", "235 ok\r\n", "421 bye\r\n", "450 4.1.1 later\r\n",
        "550 5.1.1 no\r\n", "452 4.5.3 many\r\n", "503 order\r\n", "\r\n", "2", "\n", "x", " ",
    ];
    const ACTS: [&str; 9] = [
        "begin", "begin", "begin", "secured", "part", "rest", "quit", "closed", "expired",
    ];
    let heard = |said: String| Event::Heard(said.into_bytes());
    let done = |act: &str| Event::Done(act.to_owned());
    let mut story = match random.u8(..4) {
        0 => vec![
            heard(String::from("220 mx\r\n250-mx\r\n250 STARTTLS\r\n")),
            heard(String::from("220 go\r\n") + choose(random, &["", "", "250 ok\r\n", "x"])),
        ],
        1 | 2 => {
            let mut preface = String::from("220 mx\r\n250-mx\r\n");
            for keyword in ["PIPELINING", "CHUNKING", "DSN"] {
                if random.bool() {
                    preface.push_str(&format!("250-{keyword}\r\n"));
                }
            }
            preface.push_str("250 X\r\n");
            let good = "250 ok\r\n";
            let other = ["550 5.1.1 no\r\n", "450 later\r\n", "452 many\r\n", ""];
            let mut replies = String::new();
            for _ in 0..4 {
                let is_good = random.u8(..4) > 0;
                replies.push_str(if is_good {
                    good
                } else {
                    choose(random, &other)
                });
            }
            let go = ["354 go\r\n", "354 go\r\n", "503 order\r\n", ""];
            replies.push_str(choose(random, &go));
            let verdict = [good, good, "554 no\r\n", "452 full\r\n", "354 go\r\n"];
            let verdict = choose(random, &verdict);
            vec![
                heard(preface),
                done("begin"),
                heard(replies),
                done(choose(random, &["rest", "part"])),
                heard(verdict.repeat(random.usize(1..4))),
            ]
        }
        _ => Vec::new(),
    };
    for _ in 0..random.usize(1..12) {
        let tokens = (0..random.usize(..8)).map(|_| choose(random, &TOKENS));
        let said = tokens.collect();
        story.extend([heard(said), done(choose(random, &ACTS))]);
    }
    story
}

/// What a session makes of a story that is heard in pieces; a `-` behind each event.
fn told(
    story: &[Event],
    piece_octets: usize,
    settings: &Arc<Settings>,
    channel: Channel,
    holds: bool,
) -> Vec<String> {
    let mut stage = Stage::new(settings, channel, message(three));
    stage.holds = holds;
    let mut log = Vec::new();
    for event in story {
        match event {
            Event::Heard(octets) => {
                octets
                    .chunks(piece_octets)
                    .for_each(|piece| stage.hear(piece));
            }
            Event::Done(act) if act == "part" && stage.content_left.len() < 3 => {}
            Event::Done(act) => stage.act(act),
        }
        stage.settle();
        log.append(&mut stage.log);
        log.push(String::from("-"));
    }
    let has_credentials = log.iter().any(|line| line.starts_with("C: AUTH"));
    assert!(!has_credentials || stage.session.channel() == Channel::Tls);
    log
}

/// Peers that say anything: never a panic, nothing without end, one outcome for each recipient,
/// nobody accepted without a 2yz, no credentials in clear, and all the same however it is cut.
#[test]
fn random_peers() {
    #[rustfmt::skip]
    const KINDS: [&str; 14] = [
        "=accepted 2", "=accepted, told 2", "=refused 4", "=refused 5", "=unsent Refused",
        "=unsent Closed", "=unsent TooMany", "=over Injection", "=over Login", "=over NoTls",
        "=secure", "=content", "=chunk", "C: RSET",
    ];
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for seed in 0..4000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let story = story(&mut random);
        let settings = settings(|settings| {
            settings.dialect = [Dialect::Smtp, Dialect::Smtp, Dialect::Lmtp][random.usize(..3)];
            settings.starttls =
                [StartTls::Off, StartTls::Negotiated, StartTls::Required][random.usize(..3)];
            if random.u8(..4) == 0 {
                login(settings);
            }
        });
        let channel = [Channel::Clear, Channel::Tls][random.usize(..2)];
        let holds = random.bool();
        let whole = told(&story, usize::MAX, &settings, channel, holds);
        for piece_octets in [1, 2, 3, 7] {
            let cut = told(&story, piece_octets, &settings, channel, holds);
            assert_eq!(cut, whole, "seed {seed}, by {piece_octets}");
        }
        for line in &whole {
            if let Some(kind) = KINDS.iter().find(|kind| line.starts_with(**kind)) {
                *seen.entry(kind).or_default() += 1;
            }
            // Whatever was said, only a 2yz accepts.
            let accepted = line.starts_with("=accepted");
            assert!(!accepted || KINDS[..2].iter().any(|kind| line.starts_with(kind)));
        }
    }
    // They come to everything that can happen.
    for kind in KINDS {
        let times = seen.get(kind).copied().unwrap_or_default();
        assert!(times > 20, "{kind}: {times}");
    }
}
