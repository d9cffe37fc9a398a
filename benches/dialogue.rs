//! How long a whole dialogue takes through the core: greeting to 221, one message of 2 KiB.
//!
//! The outside is free here: a commit succeeds at once. What is timed is what a session costs
//! besides ring, TLS and disk. The replies are compared in every round.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::command::Verb;
use ringpost::smtp::data::Budget;
use ringpost::smtp::end_of_data::StrayNewline;
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

/// What the client sends, in the groups a pipelining client sends it in.
fn groups() -> Vec<Vec<u8>> {
    let line = b"The quick brown fox jumps over the lazy dog, and so do its friends.\r\n";
    let mut data = b"Subject: dialogue\r\nFrom: a@client.test\r\nTo: b@mx.test\r\n\r\n".to_vec();
    while data.len() < 2048 {
        data.extend_from_slice(line);
    }
    data.extend_from_slice(b".\r\n");
    vec![
        b"EHLO client.test\r\n".to_vec(),
        b"MAIL FROM:<a@client.test> SIZE=2100\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n".to_vec(),
        data,
        b"QUIT\r\n".to_vec(),
    ]
}

/// One dialogue, each group cut into pieces of `piece_octets`. Appends the replies to `octets`.
fn dialogue(
    settings: &Arc<Settings>,
    groups: &[Vec<u8>],
    piece_octets: usize,
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
                    drop(black_box(message));
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

const REPLIES: &str = "220 mx.test ESMTP ringpost\r\n\
    250-mx.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
    250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n250-STARTTLS\r\n\
    250 LIMITS RCPTMAX=1000\r\n\
    250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n\
    250 2.0.0 Ok: queued as 4mXq1Z00\r\n221 2.0.0 Bye\r\n";

fn dialogues(criterion: &mut Criterion) {
    let settings = settings();
    let groups = groups();
    let now = Instant::now();
    let mut group = criterion.benchmark_group("dialogue");
    group.throughput(Throughput::Elements(1));
    for (name, piece_octets) in [("whole", usize::MAX), ("by 100", 100), ("by 1", 1)] {
        let mut octets = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                octets.clear();
                let buffer = std::mem::take(&mut octets);
                octets = dialogue(&settings, &groups, piece_octets, now, buffer);
                assert_eq!(octets, REPLIES.as_bytes());
            });
        });
        assert_eq!(settings.budget.held(), 0);
    }
    group.finish();
}

criterion_group!(benches, dialogues);
criterion_main!(benches);
