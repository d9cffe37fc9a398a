//! How fast content is made ready for a next hop: dots stuffed for DATA, and its facts found out, where a next hop
//! without 8BITMIME, CHUNKING or SMTPUTF8 makes them matter.
//!
//! The content comes in parts of 64 KiB. What is stuffed is compared octet by octet before the timing, and its size in
//! every timed round; the facts in every one.

mod texts;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::client::{ContentFacts, Scanner, Stuffer};
use texts::{base64, header, long_lines, prose, stuffed};

const PART_OCTETS: usize = 64 * 1024;

const MEBIBYTE: usize = 1024 * 1024;

struct Content {
    name: &'static str,
    octets: Vec<u8>,
    facts: ContentFacts,
}

fn contents() -> Vec<Content> {
    const PLAIN: ContentFacts = ContentFacts {
        is_seven_bit: true,
        fits_data: true,
        has_utf8_header: false,
    };
    let mut random = fastrand::Rng::with_seed(2026);
    let mut small = header();
    prose(&mut small, 2 * 1024, &mut random);
    let mut large = header();
    prose(&mut large, 64 * 1024, &mut random);
    base64(&mut large, MEBIBYTE, &mut random);
    let mut dots = header();
    dots.extend(b".\r\n".iter().cycle().take(MEBIBYTE / 3 * 3));
    let mut long = header();
    long_lines(&mut long, MEBIBYTE, &mut random);
    let mut eight_bit = "Subject: σήμερα\r\n".as_bytes().to_vec();
    eight_bit.extend(header());
    while eight_bit.len() < MEBIBYTE {
        eight_bit.extend_from_slice(
            "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.\r\n".as_bytes(),
        );
    }
    vec![
        Content {
            name: "2 KiB text",
            octets: small,
            facts: PLAIN,
        },
        Content {
            name: "1 MiB text and base64",
            octets: large,
            facts: PLAIN,
        },
        Content {
            name: "1 MiB lines of a dot",
            octets: dots,
            facts: PLAIN,
        },
        Content {
            name: "1 MiB long lines",
            octets: long,
            facts: ContentFacts {
                fits_data: false,
                ..PLAIN
            },
        },
        Content {
            name: "1 MiB UTF-8",
            octets: eight_bit,
            facts: ContentFacts {
                is_seven_bit: false,
                has_utf8_header: true,
                ..PLAIN
            },
        },
    ]
}

/// Stuffs all of `content`; the buffer is emptied as often as it would be sent. Gives how many octets there were.
fn stuff(content: &[u8], out: &mut Vec<u8>, mut send: impl FnMut(&[u8])) -> usize {
    let mut octets = 0;
    let mut stuffer = Stuffer::new();
    for part in content.chunks(PART_OCTETS) {
        out.clear();
        stuffer.part(part, out);
        octets += out.len();
        send(out);
    }
    out.clear();
    stuffer.end(out);
    send(out);
    octets + out.len()
}

fn stuffing(criterion: &mut Criterion) {
    let contents = contents();
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("content/stuff");
    for content in &contents {
        let wire = stuffed(&content.octets);
        let mut sent = Vec::new();
        stuff(&content.octets, &mut out, |octets| {
            sent.extend_from_slice(octets);
        });
        assert!(sent == wire, "{}: mail data differs", content.name);
        group.throughput(Throughput::Bytes(content.octets.len() as u64));
        group.bench_function(content.name, |bencher| {
            bencher.iter(|| {
                let octets = stuff(black_box(&content.octets), &mut out, |octets| {
                    black_box(octets);
                });
                assert_eq!(octets, wire.len());
            });
        });
    }
    group.finish();
}

fn facts(criterion: &mut Criterion) {
    let contents = contents();
    let mut group = criterion.benchmark_group("content/facts");
    for content in &contents {
        group.throughput(Throughput::Bytes(content.octets.len() as u64));
        group.bench_function(content.name, |bencher| {
            bencher.iter(|| {
                let mut scanner = Scanner::new();
                for part in black_box(&content.octets).chunks(PART_OCTETS) {
                    scanner.read(part);
                }
                assert_eq!(scanner.facts(), content.facts, "{}", content.name);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stuffing, facts);
criterion_main!(benches);
