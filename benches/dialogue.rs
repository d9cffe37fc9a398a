//! How long a whole dialogue takes through the core: greeting to 221, one message of 2 KiB, by DATA and by BDAT.
//!
//! The outside is free here: a commit succeeds at once. What is timed is what a session costs
//! besides ring, TLS and disk. The replies are compared in every round, and so are the envelope, the size and the
//! checksum of the message that was to be committed.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::command::Verb;
use ringpost::smtp::data::Budget;
use ringpost::smtp::end_of_data::StrayNewline;
use ringpost::smtp::message::Message;
use ringpost::smtp::reply::{Output, Refusal, TransactionRecord, Witness};
use ringpost::smtp::server::{
    Channel, ChannelPolicy, Connection, DEFAULT_GREETING, Effect, Limits, LocalDomains, Session,
    Settings, StartTls,
};

struct Blind;

impl Witness for Blind {
    fn replied(&self, _: Verb, _: u16, _: Option<Refusal>) {}
    fn transaction(&self, _: &TransactionRecord<'_>) {}
    fn ended(&self, _: Refusal) {}
}

fn settings() -> Arc<Settings> {
    let Ok(local_domains) = LocalDomains::new("mx.test", []) else {
        unreachable!("a good domain");
    };
    Arc::new(Settings {
        hostname: String::from("mx.test"),
        greeting: String::from(DEFAULT_GREETING),
        starttls: StartTls::On,
        tcp: ChannelPolicy::default(),
        tls: ChannelPolicy::default(),
        local_domains,
        trusted_nets: Vec::new(),
        recipients: None,
        stray_newline: StrayNewline::Normalize,
        limits: Limits::default(),
        budget: Budget::new(1024 * 1024),
    })
}

/// A way to say it all, in the groups a pipelining client sends it in.
struct Way {
    name: &'static str,
    groups: Vec<Vec<u8>>,
    /// What the server says between the reply to EHLO and that to QUIT.
    replies: &'static str,
}

fn content() -> Vec<u8> {
    let line = b"The quick brown fox jumps over the lazy dog, and so do its friends.\r\n";
    let mut content = b"Subject: dialogue\r\nFrom: a@client.test\r\nTo: b@mx.test\r\n\r\n".to_vec();
    while content.len() < 2048 {
        content.extend_from_slice(line);
    }
    content
}

fn ways(content: &[u8]) -> [Way; 3] {
    const MAIL_AND_RCPT: &[u8] = b"MAIL FROM:<a@client.test> SIZE=2100\r\nRCPT TO:<b@mx.test>\r\n";
    let with_ends = |between: Vec<Vec<u8>>| {
        let mut groups = vec![b"EHLO client.test\r\n".to_vec()];
        groups.extend(between);
        groups.push(b"QUIT\r\n".to_vec());
        groups
    };
    let bdat = format!("BDAT {} LAST\r\n", content.len());
    let mut quarters = MAIL_AND_RCPT.to_vec();
    for (index, quarter) in content.chunks(content.len().div_ceil(4)).enumerate() {
        let last = if index == 3 { " LAST" } else { "" };
        quarters.extend(format!("BDAT {}{last}\r\n", quarter.len()).bytes());
        quarters.extend_from_slice(quarter);
    }
    [
        Way {
            name: "DATA",
            groups: with_ends(vec![
                [MAIL_AND_RCPT, b"DATA\r\n"].concat(),
                [content, b".\r\n"].concat(),
            ]),
            replies: "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n\
                250 2.0.0 Ok: queued as 4mXq1Z00\r\n",
        },
        Way {
            name: "BDAT",
            groups: with_ends(vec![[MAIL_AND_RCPT, bdat.as_bytes(), content].concat()]),
            replies: "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4mXq1Z00\r\n",
        },
        Way {
            name: "BDAT, four chunks",
            groups: with_ends(vec![quarters]),
            replies: "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 515 octets received\r\n\
                250 2.0.0 515 octets received\r\n250 2.0.0 515 octets received\r\n\
                250 2.0.0 Ok: queued as 4mXq1Z00\r\n",
        },
    ]
}

/// One dialogue, each group cut into pieces of `piece_octets`. Appends the replies to `octets`; shows `commit` the
/// message.
fn dialogue(
    settings: &Arc<Settings>,
    groups: &[Vec<u8>],
    piece_octets: usize,
    mut commit: impl FnMut(&Message),
    now: Instant,
    octets: Vec<u8>,
) -> Vec<u8> {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40000));
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 25));
    let connection = Connection {
        peer,
        local,
        channel: Channel::Clear,
    };
    let mut session = Session::new(Arc::clone(settings), connection, now);
    let mut out = Output::new(octets, &Blind);
    session.greet(now, &mut out);
    for piece in groups.iter().flat_map(|group| group.chunks(piece_octets)) {
        let mut input = black_box(piece);
        loop {
            match session.receive(now, &mut input, &mut out) {
                Effect::Input | Effect::Close => break,
                Effect::Commit(message) => {
                    commit(&message);
                    session.committed(now, Ok("4mXq1Z00"), &mut out);
                }
                Effect::Secure | Effect::Verify(_) | Effect::Store(_) => {
                    unreachable!("nobody asked for it")
                }
            }
        }
    }
    assert!(session.is_closing());
    out.into_octets()
}

const BEFORE: &str = "220 mx.test ESMTP ringpost\r\n\
    250-mx.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
    250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n250-STARTTLS\r\n\
    250 LIMITS RCPTMAX=1000\r\n";

const BEHIND: &str = "221 2.0.0 Bye\r\n";

fn dialogues(criterion: &mut Criterion) {
    let settings = settings();
    let content = content();
    let expected = (content.len() as u64, crc32c::crc32c(&content));
    let now = Instant::now();
    let mut group = criterion.benchmark_group("dialogue");
    group.throughput(Throughput::Elements(1));
    for way in ways(&content) {
        let replies = [BEFORE, way.replies, BEHIND].concat();
        for (cut, piece_octets) in [("whole", usize::MAX), ("by 100", 100), ("by 1", 1)] {
            let mut octets = Vec::new();
            group.bench_function(format!("{}, {cut}", way.name), |bencher| {
                bencher.iter(|| {
                    octets.clear();
                    let buffer = std::mem::take(&mut octets);
                    let mut commits = 0;
                    let commit = |message: &Message| {
                        commits += 1;
                        assert_eq!((message.octets(), message.data.crc32c()), expected);
                        let envelope = &message.envelope;
                        assert_eq!(envelope.reverse_path.as_deref(), Some("a@client.test"));
                        let recipients = envelope.recipients.iter().map(|to| &*to.as_given);
                        assert!(recipients.eq(["b@mx.test"]));
                    };
                    octets = dialogue(&settings, &way.groups, piece_octets, commit, now, buffer);
                    assert!(
                        octets == replies.as_bytes(),
                        "{}",
                        String::from_utf8_lossy(&octets)
                    );
                    assert_eq!(commits, 1);
                });
            });
        }
        assert_eq!(settings.budget.held(), 0);
    }
    group.finish();
}

criterion_group!(benches, dialogues);
criterion_main!(benches);
