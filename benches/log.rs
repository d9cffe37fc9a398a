//! What an event costs the thread that logs it, with ten fields as a session's line has.
//!
//! `stock` is tracing-subscriber's own formatting into the same kind of buffer, to compare.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringpost::config::{LogFormat, LogLevel};
use ringpost::control::log::{self, Paint};
use tracing_subscriber::fmt::MakeWriter;

/// A batch that is forgotten at 8 KiB.
struct Forgetful;

thread_local! {
    static BATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Write for Forgetful {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BATCH.with_borrow_mut(|batch| {
            if batch.len() > 8192 {
                batch.clear();
            }
            batch.extend_from_slice(line);
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Forgetful {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

fn event(peer: SocketAddr, ehlo: &str) {
    tracing::info!(
        session = %format_args!("{:x}", 0x1234_5678_u64),
        listener = "tcp",
        peer = %peer,
        tls = "TLSv1.3",
        ehlo,
        messages = 1u64,
        commands = 6u64,
        octets_in = 2300u64,
        ended = "quit",
        seconds = 0.012_345,
        "session"
    );
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(1));
    group.measurement_time(Duration::from_secs(3));
    let peer: SocketAddr = ([192, 0, 2, 1], 40_000).into();
    let mut run = |name: &str, dispatch: tracing::Dispatch, ehlo: &str| {
        tracing::dispatcher::with_default(&dispatch, || {
            group.bench_function(name, |bencher| {
                bencher.iter(|| event(peer, black_box(ehlo)))
            });
        });
    };
    let stock = || {
        tracing_subscriber::fmt()
            .with_writer(Forgetful)
            .with_ansi(false)
    };
    run(
        "stock text",
        tracing::Dispatch::new(stock().finish()),
        "mx.test",
    );
    run(
        "stock json",
        tracing::Dispatch::new(stock().json().finish()),
        "mx.test",
    );
    log::batch();
    for (name, format, ehlo) in [
        ("text", LogFormat::Text, "mx.test"),
        ("text, quoted name", LogFormat::Text, "mx test \"x\" a=b"),
        ("json", LogFormat::Json, "mx.test"),
    ] {
        let (dispatch, _guard) = log::start(io::sink(), format, LogLevel::Info, Paint::No);
        run(name, dispatch, ehlo);
        log::flush();
    }
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
