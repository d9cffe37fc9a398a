//! How fast mail data is searched for its end, unstuffed and copied into blocks.
//!
//! The texts are made here, from a seed: a small mail of text, a large one with a base64 part,
//! lines longer than any read, and what costs most, mail whose every line ends in a lone LF. Each is read in
//! pieces of 16 KiB as a ring's buffers cut it. What comes out is compared octet by octet before
//! the timing, and its size, its `Received:` fields and its end in every timed round.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::end_of_data::{EndOfData, Progress, StrayNewline};

const PIECE_OCTETS: usize = 16 * 1024;

/// Message content, and the same as it goes over the wire.
struct Text {
    name: &'static str,
    content: Vec<u8>,
    wire: Vec<u8>,
}

fn header() -> Vec<u8> {
    let mut header = String::new();
    for hop in 1..=3 {
        header.push_str(&format!(
            "Received: from out{hop}.example.com (out{hop}.example.com [192.0.2.{hop}])\r\n\
             \tby mx{hop}.example.org (Postfix) with ESMTPS id 4Vx{hop}k\r\n\
             \tfor <user@example.org>; Tue, 24 Nov 2026 08:00:0{hop} +0000\r\n"
        ));
    }
    header.push_str(
        "From: A Sender <sender@example.com>\r\nTo: user@example.org\r\n\
         Subject: what was said on Monday\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n",
    );
    header.into_bytes()
}

/// Lines of words, one in fifty beginning with a dot.
fn prose(content: &mut Vec<u8>, octets: usize, random: &mut fastrand::Rng) {
    while content.len() < octets {
        if random.u8(..50) == 0 {
            content.push(b'.');
        }
        let line_octets = random.usize(20..78);
        content.extend((0..line_octets).filter_map(|_| random.choice(b"etaoin shrdlu.,".iter())));
        content.extend_from_slice(if random.u8(..8) == 0 {
            b"\r\n\r\n"
        } else {
            b"\r\n"
        });
    }
}

fn base64(content: &mut Vec<u8>, octets: usize, random: &mut fastrand::Rng) {
    while content.len() < octets {
        content.extend((0..76).map(|_| random.alphanumeric() as u8));
        content.extend_from_slice(b"\r\n");
    }
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

fn texts() -> Vec<Text> {
    let mut random = fastrand::Rng::with_seed(2026);
    let mut small = header();
    prose(&mut small, 2 * 1024, &mut random);
    let mut large = header();
    prose(&mut large, 64 * 1024, &mut random);
    base64(&mut large, 1024 * 1024, &mut random);
    let mut long = header();
    while long.len() < 1024 * 1024 {
        long.extend((0..100_000).map(|_| random.alphanumeric() as u8));
        long.extend_from_slice(b"\r\n");
    }
    let crlf = |(name, content): (&'static str, Vec<u8>)| Text {
        name,
        wire: stuffed(&content),
        content,
    };
    let mut texts: Vec<Text> = [
        ("2 KiB text", small),
        ("1 MiB text and base64", large),
        ("1 MiB long lines", long),
    ]
    .map(crlf)
    .into();
    // The same large mail with lone LFs for line ends: dots behind them are not stuffing, and all
    // of it comes out with CR LF.
    let mut content = Vec::new();
    let mut wire = Vec::new();
    if let Some(large) = texts.get(1) {
        content.extend_from_slice(&large.content);
        wire.extend(large.content.iter().filter(|octet| **octet != b'\r'));
        wire.extend_from_slice(b"\r\n.\r\n");
        content.extend_from_slice(b"\r\n");
    }
    texts.push(Text {
        name: "1 MiB lone line feeds",
        content,
        wire,
    });
    texts
}

/// Reads all of `wire`; gives size and hops of what it held.
fn read(wire: &[u8], mut sink: impl FnMut(&[u8])) -> (u64, u32) {
    let mut end_of_data = EndOfData::new(StrayNewline::Normalize);
    let mut progress = Progress::More;
    for mut piece in wire.chunks(PIECE_OCTETS) {
        progress = end_of_data.receive(&mut piece, &mut sink);
        assert!(piece.is_empty(), "the end is the end");
    }
    assert_eq!(progress, Progress::Ended);
    (end_of_data.octets(), end_of_data.hops())
}

fn end_of_data(criterion: &mut Criterion) {
    let texts = texts();
    let budget = Budget::new(u64::MAX);
    for text in &texts {
        let mut found = Vec::new();
        read(&text.wire, |run| found.extend_from_slice(run));
        assert!(found == text.content, "{}: content differs", text.name);
    }
    let mut group = criterion.benchmark_group("end_of_data/search");
    for text in &texts {
        let expected = (text.content.len() as u64, 3);
        group.throughput(Throughput::Bytes(text.wire.len() as u64));
        group.bench_function(text.name, |bencher| {
            bencher.iter(|| {
                let found = read(black_box(&text.wire), |run| {
                    black_box(run);
                });
                assert_eq!(found, expected);
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("end_of_data/search_and_keep");
    for text in &texts {
        let expected = text.content.len() as u64;
        group.throughput(Throughput::Bytes(text.wire.len() as u64));
        group.bench_function(text.name, |bencher| {
            bencher.iter(|| {
                let mut data = MailData::new(&budget, None);
                read(black_box(&text.wire), |run| {
                    if data.push(run).is_err() {
                        panic!("no budget");
                    }
                });
                assert_eq!(data.len(), expected);
                data
            });
        });
    }
    group.finish();
}

criterion_group!(benches, end_of_data);
criterion_main!(benches);
