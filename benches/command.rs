//! How long a command line takes to read, by verb.
//!
//! Each line's outcome is checked before it is timed, and again inside the timing loop as far as
//! that costs one comparison.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::command::{Addresses, CommandError, Verb, parse};

type Row = (&'static str, &'static [u8], Result<Verb, CommandError>);

const LINES: &[Row] = &[
    ("EHLO", b"EHLO mail-lj1-f174.example.com", Ok(Verb::Ehlo)),
    (
        "MAIL",
        b"MAIL FROM:<bounce+5f2c=user=example.org@lists.example.com> SIZE=48213 BODY=8BITMIME",
        Ok(Verb::Mail),
    ),
    (
        "RCPT",
        b"RCPT TO:<first.last@mail.example.org>",
        Ok(Verb::Rcpt),
    ),
    (
        "RCPT quoted",
        b"RCPT TO:<\"first \\\"x\\\" last\"@Mail.Example.org>",
        Ok(Verb::Rcpt),
    ),
    (
        "RCPT literal",
        b"RCPT TO:<postmaster@[IPv6:2001:db8::25]>",
        Ok(Verb::Rcpt),
    ),
    (
        "RCPT international",
        "RCPT TO:<δοκιμή@παράδειγμα.δοκιμή>".as_bytes(),
        Ok(Verb::Rcpt),
    ),
    ("DATA", b"DATA", Ok(Verb::Data)),
    ("BDAT", b"BDAT 86000 LAST", Ok(Verb::Bdat)),
    (
        "unknown",
        b"GET /index.html HTTP/1.1",
        Err(CommandError::Unknown),
    ),
];

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    for (name, line, expected) in LINES {
        let read = || parse(black_box(line), Addresses::Utf8).map(|command| command.verb());
        assert_eq!(read(), *expected, "{name}");
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| assert!(read() == *expected))
        });
    }
    group.finish();
}

criterion_group!(benches, command);
criterion_main!(benches);
