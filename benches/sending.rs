//! How long the dialogue with a next hop takes through the core: greeting to the reply to QUIT, one message of 2 KiB.
//!
//! The next hop is a list of replies, at hand as soon as they are wanted. What is timed is what a connection and its
//! message cost besides ring, TLS, DNS and queue. Each way that content can travel, one command at a time and
//! pipelined. All that the session said is compared in every round, and so is what came of the message.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::client::{
    After, Channel, Dialect, Effect, Ignored, Outcome, RecipientOutcome, Session, Settings,
    StartTls, Timeouts, Transaction, TransactionRecipient, Transfer,
};
use ringpost::smtp::dsn::{MailDsn, RcptDsn};
use ringpost::smtp::envelope::Body;

/// One way to send a message.
struct Way {
    name: &'static str,
    /// What the next hop says, in the groups it says it in: each as soon as the session waits.
    replies: &'static [&'static str],
    /// What the session says in front of the content, and behind it.
    before: &'static str,
    behind: &'static str,
}

const WAYS: &[Way] = &[
    Way {
        name: "DATA",
        replies: &[
            "220 next.test ESMTP\r\n",
            "250-next.test\r\n250-8BITMIME\r\n250 SIZE 52428800\r\n",
            "250 2.1.0 Ok\r\n",
            "250 2.1.5 Ok\r\n",
            "354 Go ahead\r\n",
            "250 2.0.0 Ok: queued as 7D1F2A\r\n",
            "221 2.0.0 Bye\r\n",
        ],
        before: "EHLO mx.test\r\nMAIL FROM:<a@client.test> SIZE=2048\r\nRCPT TO:<b@next.test>\r\nDATA\r\n",
        behind: ".\r\nQUIT\r\n",
    },
    Way {
        name: "DATA, pipelined",
        replies: &[
            "220 next.test ESMTP\r\n",
            "250-next.test\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SIZE 52428800\r\n",
            "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go ahead\r\n",
            "250 2.0.0 Ok: queued as 7D1F2A\r\n",
            "221 2.0.0 Bye\r\n",
        ],
        before: "EHLO mx.test\r\nMAIL FROM:<a@client.test> SIZE=2048\r\nRCPT TO:<b@next.test>\r\nDATA\r\n",
        behind: ".\r\nQUIT\r\n",
    },
    Way {
        name: "BDAT",
        replies: &[
            "220 next.test ESMTP\r\n",
            "250-next.test\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SIZE 52428800\r\n",
            "250 2.1.0 Ok\r\n",
            "250 2.1.5 Ok\r\n",
            "250 2.0.0 Ok: queued as 7D1F2A\r\n",
            "221 2.0.0 Bye\r\n",
        ],
        before: "EHLO mx.test\r\nMAIL FROM:<a@client.test> SIZE=2048\r\nRCPT TO:<b@next.test>\r\nBDAT 2048 LAST\r\n",
        behind: "QUIT\r\n",
    },
    Way {
        name: "BDAT, pipelined",
        replies: &[
            "220 next.test ESMTP\r\n",
            "250-next.test\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 52428800\r\n",
            "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 7D1F2A\r\n",
            "221 2.0.0 Bye\r\n",
        ],
        before: "EHLO mx.test\r\nMAIL FROM:<a@client.test> SIZE=2048\r\nRCPT TO:<b@next.test>\r\nBDAT 2048 LAST\r\n",
        behind: "QUIT\r\n",
    },
];

const ACCEPTED: &str = "250 2.0.0 Ok: queued as 7D1F2A";

const CONTENT_OCTETS: usize = 2048;

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        dialect: Dialect::Smtp,
        helo: String::from("mx.test"),
        starttls: StartTls::Off,
        login: None,
        ignored: Ignored::default(),
        timeouts: Timeouts::default(),
    })
}

fn transaction() -> Transaction {
    Transaction {
        reverse_path: Some("a@client.test".into()),
        recipients: vec![TransactionRecipient {
            path: "b@next.test".into(),
            dsn: RcptDsn::default(),
        }],
        octets: CONTENT_OCTETS as u64,
        body: Body::SevenBit,
        smtputf8: false,
        dsn: MailDsn::default(),
        facts: None,
    }
}

/// Whole lines, none of which begins with a dot: by either way the same octets.
fn content() -> Vec<u8> {
    let line = b"The quick brown fox jumps over the lazy dog, and so do its friends.\r\n";
    let mut content =
        b"Subject: dialogue\r\nFrom: a@client.test\r\nTo: b@next.test\r\n\r\n".to_vec();
    while content.len() + line.len() < CONTENT_OCTETS {
        content.extend_from_slice(line);
    }
    content.resize(CONTENT_OCTETS - 2, b'x');
    content.extend_from_slice(b"\r\n");
    content
}

/// Sends `transaction`, with each group of replies cut into pieces of `piece_octets`. Appends to `out` what was said.
fn dialogue(
    settings: &Arc<Settings>,
    transaction: &Transaction,
    content: &[u8],
    replies: &[&str],
    piece_octets: usize,
    now: Instant,
    out: &mut Vec<u8>,
) -> Option<Outcome> {
    let mut session = Session::new(Arc::clone(settings), Channel::Clear, now);
    let mut pieces = replies
        .iter()
        .flat_map(|group| group.as_bytes().chunks(piece_octets));
    let mut came_of_it = None;
    let mut effect = Effect::Input;
    loop {
        effect = match effect {
            Effect::Input => {
                let Some(mut input) = pieces.next() else {
                    panic!("it waits for more replies than there are");
                };
                let effect = session.receive(now, black_box(&mut input), out);
                assert!(input.is_empty(), "a piece ends where something else begins");
                effect
            }
            Effect::Ready if came_of_it.is_none() => {
                assert!(!session.wants_facts(transaction));
                match session.begin(now, transaction, out) {
                    Ok(effect) => effect,
                    Err(refusal) => panic!("{}", refusal.text),
                }
            }
            Effect::Ready => session.quit(now, out),
            Effect::Content(Transfer::Data) => {
                session.content(now, black_box(content), out);
                session.content_sent(now, out)
            }
            Effect::Content(Transfer::Chunk) => {
                // The other way, as the queue sends it.
                out.extend_from_slice(black_box(content));
                session.content_progress(now, content.len() as u64);
                session.content_sent(now, out)
            }
            Effect::Finished(outcome) => {
                came_of_it = Some(outcome);
                Effect::Ready
            }
            Effect::Closed => break,
            Effect::Secure => unreachable!("nobody asked for it"),
            Effect::Over(failure) => panic!("{}", failure.text),
        };
    }
    assert!(pieces.next().is_none(), "all replies were waited for");
    came_of_it
}

/// The one recipient's message was taken, and the connection was good for another.
fn is_accepted(outcome: Option<&Outcome>) -> bool {
    let Some(Outcome { recipients, after }) = outcome else {
        return false;
    };
    let accepted = matches!(
        recipients.as_slice(),
        [RecipientOutcome::Accepted { reply, .. }] if &*reply.text == ACCEPTED
    );
    accepted && *after == After::Ready
}

fn dialogues(criterion: &mut Criterion) {
    let (settings, transaction, content) = (settings(), transaction(), content());
    let now = Instant::now();
    let mut group = criterion.benchmark_group("sending");
    group.throughput(Throughput::Elements(1));
    for way in WAYS {
        let said = [way.before.as_bytes(), &content, way.behind.as_bytes()].concat();
        for (cut, piece_octets) in [("whole", usize::MAX), ("by 1", 1)] {
            let mut out = Vec::new();
            group.bench_function(format!("{}, {cut}", way.name), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let outcome = dialogue(
                        &settings,
                        &transaction,
                        &content,
                        way.replies,
                        piece_octets,
                        now,
                        &mut out,
                    );
                    assert!(is_accepted(outcome.as_ref()), "{outcome:?}");
                    assert!(out == said, "{}", String::from_utf8_lossy(&out));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, dialogues);
criterion_main!(benches);
