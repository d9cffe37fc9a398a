//! How long replies take: the server's to write, the next hop's to read.
//!
//! What is written is compared octet by octet in every timed round, and the witness must have been told of each
//! reply. Of what is read, all of each reply is compared before the timing, and in every round code, enhanced code and
//! the number of lines. Octets are those of the replies; reading is whole, cut in the middle, and octet by octet.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::client::{Replies, Reply as Read};
use ringpost::smtp::command::Verb;
use ringpost::smtp::reply::{Output, Refusal, Reply, TransactionRecord, Witness};
use ringpost::smtp::status::{Class, Status};

/// Sums up the codes it is told.
#[derive(Default)]
struct Codes(Cell<u64>);

impl Witness for Codes {
    fn replied(&self, _: Verb, code: u16, _: Option<Refusal>) {
        self.0.set(self.0.get() + u64::from(code));
    }
    fn transaction(&self, _: &TransactionRecord<'_>) {}
    fn ended(&self, _: Refusal) {}
}

const RECIPIENT_OK: Reply = Reply::good(250, "2.1.5", "Ok");
const QUEUED: Reply = Reply::good(250, "2.0.0", "Ok: queued as");
const RECIPIENT_UNKNOWN: Reply =
    Reply::refusal(550, "5.1.1", "No such recipient", Refusal::UnknownRecipient);

const EHLO: &str = "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
    250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n250-STARTTLS\r\n\
    250 LIMITS RCPTMAX=1000\r\n";

fn one(out: &mut Output<'_>) {
    out.reply(Verb::Rcpt, black_box(RECIPIENT_OK));
}

fn refusal(out: &mut Output<'_>) {
    out.reply(Verb::Rcpt, black_box(RECIPIENT_UNKNOWN));
}

fn queued(out: &mut Output<'_>) {
    out.reply_with(
        Verb::EndOfData,
        black_box(QUEUED),
        "",
        black_box("4mXq1Z00"),
    );
}

/// The lines, as a session writes them to EHLO.
fn ehlo(out: &mut Output<'_>) {
    out.reply_lines(Verb::Ehlo, 250, |line| {
        line(&[black_box("mx.test")]);
        line(&["PIPELINING"]);
        line(&["SIZE ", &black_box(52_428_800_u64).to_string()]);
        line(&["8BITMIME"]);
        line(&["SMTPUTF8"]);
        line(&["ENHANCEDSTATUSCODES"]);
        line(&["CHUNKING"]);
        line(&["BINARYMIME"]);
        line(&["DSN"]);
        line(&["STARTTLS"]);
        line(&["LIMITS RCPTMAX=", &black_box(1_000_u64).to_string()]);
    });
}

fn hundred(out: &mut Output<'_>) {
    for _ in 0..100 {
        one(out);
    }
}

fn writing(criterion: &mut Criterion) {
    let hundred_lines = "250 2.1.5 Ok\r\n".repeat(100);
    type Row<'a> = (&'static str, fn(&mut Output<'_>), &'a str, u64);
    let rows: &[Row<'_>] = &[
        ("one line", one, "250 2.1.5 Ok\r\n", 250),
        ("refusal", refusal, "550 5.1.1 No such recipient\r\n", 550),
        (
            "with queue id",
            queued,
            "250 2.0.0 Ok: queued as 4mXq1Z00\r\n",
            250,
        ),
        ("EHLO", ehlo, EHLO, 250),
        ("group of 100", hundred, &hundred_lines, 25_000),
    ];
    let mut group = criterion.benchmark_group("reply/write");
    for (name, write, expected, codes) in rows {
        let mut octets = Vec::new();
        group.throughput(Throughput::Bytes(expected.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                octets.clear();
                let witness = Codes::default();
                let mut out = Output::new(std::mem::take(&mut octets), &witness);
                write(&mut out);
                octets = out.into_octets();
                assert_eq!(octets, expected.as_bytes());
                assert_eq!(witness.0.get(), *codes);
            });
        });
    }
    group.finish();
}

/// What is to be read: so many replies of this kind, of so many lines together.
struct Said {
    name: &'static str,
    octets: String,
    reply: Read,
    replies: usize,
    lines: usize,
}

fn said() -> Vec<Said> {
    let reply = |code, status, text: &str| Read {
        code,
        status,
        text: text.into(),
    };
    vec![
        Said {
            name: "one line",
            octets: String::from("250 2.1.5 Ok\r\n"),
            reply: reply(250, Some(Status::new(Class::Success, 1, 5)), "250 2.1.5 Ok"),
            replies: 1,
            lines: 1,
        },
        Said {
            name: "refusal of several lines",
            octets: String::from(
                "550-5.7.26 This mail has been blocked because the sender is unauthenticated.\r\n\
                 550-5.7.26 It must be signed with DKIM, or come from a host that SPF lists.\r\n\
                 550 5.7.26 See https://mx.test/help#4mXq1Z00\r\n",
            ),
            reply: reply(
                550,
                Some(Status::permanent(7, 26)),
                "550 5.7.26 This mail has been blocked because the sender is unauthenticated. \
                 It must be signed with DKIM, or come from a host that SPF lists. \
                 See https://mx.test/help#4mXq1Z00",
            ),
            replies: 1,
            lines: 3,
        },
        Said {
            name: "EHLO",
            octets: String::from(EHLO),
            reply: reply(
                250,
                None,
                "250 mx.test PIPELINING SIZE 52428800 8BITMIME SMTPUTF8 ENHANCEDSTATUSCODES CHUNKING \
                 BINARYMIME DSN STARTTLS LIMITS RCPTMAX=1000",
            ),
            replies: 1,
            lines: 11,
        },
        Said {
            name: "group of 100",
            octets: "250 2.1.5 Ok\r\n".repeat(100),
            reply: reply(250, Some(Status::new(Class::Success, 1, 5)), "250 2.1.5 Ok"),
            replies: 100,
            lines: 100,
        },
    ]
}

/// Reads all of `octets`, cut into pieces of `piece_octets`, and shows `each` the replies. Gives how many lines
/// they had.
fn read(octets: &[u8], piece_octets: usize, mut each: impl FnMut(&Read)) -> usize {
    let mut reader = Replies::default();
    let mut lines = 0;
    for mut piece in octets.chunks(piece_octets) {
        while let Some(reply) = reader.next(&mut piece, |_, _| lines += 1) {
            match reply {
                Ok(reply) => each(&reply),
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(!reader.is_amid_reply());
    lines
}

fn reading(criterion: &mut Criterion) {
    let said = said();
    let mut group = criterion.benchmark_group("reply/read");
    for said in &said {
        let octets = said.octets.as_bytes();
        group.throughput(Throughput::Bytes(octets.len() as u64));
        for (cut, piece_octets) in [
            ("whole", octets.len()),
            ("in two", octets.len() / 2 + 1),
            ("by 1", 1),
        ] {
            let lines = read(octets, piece_octets, |reply| assert_eq!(*reply, said.reply));
            assert_eq!(lines, said.lines, "{}", said.name);
            group.bench_function(format!("{}, {cut}", said.name), |bencher| {
                bencher.iter(|| {
                    let mut replies = 0;
                    let lines = read(black_box(octets), piece_octets, |reply| {
                        replies += 1;
                        assert!(reply.code == said.reply.code && reply.status == said.reply.status);
                    });
                    assert_eq!((replies, lines), (said.replies, said.lines));
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // Enough for what takes less than a microsecond.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = writing, reading
}
criterion_main!(benches);
