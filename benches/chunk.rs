//! How fast mail data by BDAT is taken: counted off, looked through for `Received:` fields, and kept in blocks.
//!
//! As a session does it, but without its commands: those are in `dialogue`. The content is binary, as BDAT is for;
//! it comes in pieces of 16 KiB as a ring's buffers cut it, and all chunks end where they were announced to, inside
//! a piece. What is kept is compared octet by octet before the timing; its size, its checksum and its hops in
//! every timed round.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::smtp::chunk::Chunk;
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::hops::Hops;

const PIECE_OCTETS: usize = 16 * 1024;

const HOPS: u32 = 2;

const HEADER: &[u8] =
    b"Received: from out.example.com (out.example.com [192.0.2.1])\r\n\tby mx.example.org with ESMTPS id 4Vx1k\r\n\
    Received: from client.example.com ([192.0.2.2])\r\n\tby out.example.com with ESMTPSA id 4Vx2k\r\n\
    From: A Sender <sender@example.com>\r\nTo: user@example.org\r\nSubject: what was shown on Monday\r\n\
    MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n";

fn content(octets: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(2026);
    let mut content = HEADER.to_vec();
    content.resize_with(octets, || random.u8(..));
    content
}

/// Takes all of `content`, in chunks of `chunk_octets`.
fn take(content: &[u8], chunk_octets: usize, budget: &Arc<Budget>) -> (MailData, u32) {
    let mut data = MailData::new(budget, None);
    let mut hops = Hops::new();
    let mut announced = 0;
    let next = |announced: &mut usize| {
        let octets = chunk_octets.min(content.len() - *announced);
        *announced += octets;
        Chunk::new(octets as u64, *announced == content.len())
    };
    let mut chunk = next(&mut announced);
    for mut piece in content.chunks(PIECE_OCTETS) {
        while !piece.is_empty() {
            let octets = chunk.take(&mut piece);
            hops.read(octets);
            assert!(data.push(octets).is_ok(), "a budget without a bound");
            if chunk.is_complete() && !chunk.is_last() {
                chunk = next(&mut announced);
            }
        }
    }
    assert!(chunk.is_complete() && chunk.is_last());
    (data, hops.count())
}

fn chunk(criterion: &mut Criterion) {
    let budget = Budget::new(u64::MAX);
    let mut group = criterion.benchmark_group("chunk/take_and_keep");
    for (name, octets, chunk_octets) in [
        ("2 KiB", 2 * 1024, usize::MAX),
        ("1 MiB", 1024 * 1024, usize::MAX),
        ("1 MiB in chunks of 64 KiB", 1024 * 1024, 64 * 1024),
        ("1 MiB in chunks of 512", 1024 * 1024, 512),
    ] {
        let content = content(octets);
        let (kept, _) = take(&content, chunk_octets, &budget);
        assert!(
            kept.slices().flatten().eq(&content),
            "{name}: content differs"
        );
        drop(kept);
        let expected = (content.len() as u64, crc32c::crc32c(&content), HOPS);
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (kept, hops) = take(black_box(&content), chunk_octets, &budget);
                assert_eq!((kept.len(), kept.crc32c(), hops), expected);
                kept
            });
        });
        assert_eq!(budget.held(), 0);
    }
    group.finish();
}

criterion_group!(benches, chunk);
criterion_main!(benches);
