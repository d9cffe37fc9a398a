//! How fast mail data is searched for its end, unstuffed and copied into blocks.
//!
//! The texts are made from a seed: a small mail of text, a large one with a base64 part,
//! lines longer than any read, and what costs most, mail whose every line ends in a lone LF. Each is read in
//! pieces of 16 KiB as a ring's buffers cut it. What comes out is compared octet by octet before
//! the timing, and its size, its `Received:` fields and its end in every timed round; of what is kept its
//! checksum, too.

mod texts;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::end_of_data::{EndOfData, Progress, StrayNewline};
use texts::{base64, header, long_lines, prose, stuffed};

const PIECE_OCTETS: usize = 16 * 1024;

/// Message content, and the same as it goes over the wire.
struct Text {
    name: &'static str,
    content: Vec<u8>,
    wire: Vec<u8>,
}

fn texts() -> Vec<Text> {
    let mut random = fastrand::Rng::with_seed(2026);
    let mut small = header();
    prose(&mut small, 2 * 1024, &mut random);
    let mut large = header();
    prose(&mut large, 64 * 1024, &mut random);
    base64(&mut large, 1024 * 1024, &mut random);
    let mut long = header();
    long_lines(&mut long, 1024 * 1024, &mut random);
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
        let expected = (text.content.len() as u64, crc32c::crc32c(&text.content));
        group.throughput(Throughput::Bytes(text.wire.len() as u64));
        group.bench_function(text.name, |bencher| {
            bencher.iter(|| {
                let mut data = MailData::new(&budget, None);
                read(black_box(&text.wire), |run| {
                    if data.push(run).is_err() {
                        panic!("no budget");
                    }
                });
                assert_eq!((data.len(), data.crc32c()), expected);
                data
            });
        });
    }
    group.finish();
}

criterion_group!(benches, end_of_data);
criterion_main!(benches);
