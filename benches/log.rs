//! What an event costs the thread that logs it, with ten fields as a session's line has.
//!
//! `stock` is tracing-subscriber's own formatting into the same kind of buffer, to compare. Every line that comes to
//! the writer's thread is compared behind its time; of the stock ones the last is.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Takes what the writer's thread writes, and counts the lines that end as they should, and those that do not.
struct Reader {
    end: &'static str,
    read: Arc<Read>,
}

#[derive(Default)]
struct Read {
    right: AtomicU64,
    wrong: AtomicU64,
}

impl Write for Reader {
    fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
        for line in batch.split_inclusive(|octet| *octet == b'\n') {
            let count = match line.ends_with(self.end.as_bytes()) {
                true => &self.read.right,
                false => &self.read.wrong,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(batch.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    let peer: SocketAddr = ([192, 0, 2, 1], 40_000).into();
    // Gives how many events there were.
    let mut run = |name: &str, dispatch: tracing::Dispatch, ehlo: &str| {
        let mut events = 0_u64;
        tracing::dispatcher::with_default(&dispatch, || {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    events += 1;
                    event(peer, black_box(ehlo));
                });
            });
        });
        events
    };
    let stock = || {
        tracing_subscriber::fmt()
            .with_writer(Forgetful)
            .with_ansi(false)
    };
    for (name, dispatch, end) in [
        (
            "stock text",
            tracing::Dispatch::new(stock().finish()),
            STOCK_TEXT_END,
        ),
        (
            "stock json",
            tracing::Dispatch::new(stock().json().finish()),
            STOCK_JSON_END,
        ),
    ] {
        let events = run(name, dispatch, "mx.test");
        let batch = BATCH.take();
        // No event, if a filter left it out.
        assert!(
            events == 0 || batch.ends_with(end.as_bytes()),
            "{name}: {}",
            String::from_utf8_lossy(&batch)
        );
    }
    log::batch();
    for (name, format, ehlo, end) in [
        ("text", LogFormat::Text, "mx.test", TEXT_END),
        (
            "text, quoted name",
            LogFormat::Text,
            "mx test \"x\" a=b",
            QUOTED_TEXT_END,
        ),
        ("json", LogFormat::Json, "mx.test", JSON_END),
    ] {
        let read = Arc::new(Read::default());
        let reader = Reader {
            end,
            read: Arc::clone(&read),
        };
        let (dispatch, guard) = log::start(reader, format, LogLevel::Info, Paint::No);
        let events = run(name, dispatch, ehlo);
        log::flush();
        // Waits until the writer's thread is done.
        drop(guard);
        let [right, wrong] = [&read.right, &read.wrong].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(wrong, 0, "{name}: lines are not what was logged");
        // Not all, if the writer's thread did not keep up: batches are dropped then.
        assert!(
            right <= events && (right > 0 || events == 0),
            "{name}: {right} lines of {events} events"
        );
    }
    group.finish();
}

const STOCK_TEXT_END: &str = "Z  INFO log: session session=12345678 listener=\"tcp\" peer=192.0.2.1:40000 \
    tls=\"TLSv1.3\" ehlo=\"mx.test\" messages=1 commands=6 octets_in=2300 ended=\"quit\" seconds=0.012345\n";
const STOCK_JSON_END: &str = concat!(
    r#"Z","level":"INFO","fields":{"message":"session","session":"12345678","listener":"tcp","#,
    r#""peer":"192.0.2.1:40000","tls":"TLSv1.3","ehlo":"mx.test","messages":1,"commands":6,"#,
    r#""octets_in":2300,"ended":"quit","seconds":0.012345},"target":"log"}"#,
    "\n"
);
const TEXT_END: &str = "Z INFO session session=12345678 listener=tcp peer=192.0.2.1:40000 tls=TLSv1.3 ehlo=mx.test \
    messages=1 commands=6 octets_in=2300 ended=quit seconds=0.012345\n";
const QUOTED_TEXT_END: &str = concat!(
    "Z INFO session session=12345678 listener=tcp peer=192.0.2.1:40000 tls=TLSv1.3 ",
    r#"ehlo="mx test \"x\" a\u{3d}b" messages=1 commands=6 octets_in=2300 ended=quit seconds=0.012345"#,
    "\n"
);
const JSON_END: &str = concat!(
    r#"Z","level":"INFO","target":"log","message":"session","session":"12345678","listener":"tcp","#,
    r#""peer":"192.0.2.1:40000","tls":"TLSv1.3","ehlo":"mx.test","messages":1,"commands":6,"#,
    r#""octets_in":2300,"ended":"quit","seconds":0.012345}"#,
    "\n"
);

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = events
}
criterion_main!(benches);
