//! Takes events to standard error without ever making a shard wait.
//!
//! ```text
//!  shard thread:  event ─▶ text ─▶ batch of the thread ─ 32 KiB or a tick ──┐
//!  other threads: event ─▶ text ─▶ batch of the thread ── at once ──────────┤
//!                                                      bounded channel ◀────┘
//!                                                             │ writer thread
//!                                                             ▼
//!                                                       standard error
//! ```
//!
//! Invariants:
//! - An event on a thread that batches makes no system call; a batch makes one at most, to wake
//!   the writer.
//! - Nothing waits for standard error but the writer's thread, and for at most
//!   `SETTLE_SECONDS_MAX` a panic and the end of the process. When the channel is full, a batch
//!   is dropped and counted.
//! - An event is one line, and its fields are what the program gave it: text from a peer is quoted
//!   so that it can neither end the line nor look like another field.
//!
//! Spans are not shown: what a line has to say is in its fields.

mod json;
mod text;

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder};
use tracing_subscriber::fmt::MakeWriter;

use super::metrics::{Kind, Metrics};
use crate::config::{LogFormat, LogLevel};

/// Whether the text form has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// The level has one.
    Yes,
    /// None.
    No,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is a subscriber already.
    #[error("cannot start logging: it was started before")]
    Started,
}

/// Keeps the log complete: when it is dropped, what was logged has been written, unless standard
/// error does not take it. Threads that batch must have ended by then, or have flushed.
#[derive(Debug)]
#[must_use = "dropping it is what completes the log"]
pub struct Guard {
    sink: &'static Sink,
}

/// Starts logging to standard error: events of `level` and above, panics included.
///
/// It starts a thread; an identity must have been assumed before.
pub fn init(format: LogFormat, level: LogLevel) -> Result<Guard, LogError> {
    let paint = if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Paint::Yes
    } else {
        Paint::No
    };
    let (dispatch, guard) = start(io::stderr(), format, level, paint);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Started)?;
    let sink = guard.sink;
    panic::set_hook(Box::new(move |info| log_panic(sink, info)));
    Ok(guard)
}

/// What [`init`] starts, with any writer in place of standard error and for whoever uses the
/// dispatch. For benches and tests: its thread and its buffers stay until the process ends.
pub fn start(
    to: impl Write + Send + 'static,
    format: LogFormat,
    level: LogLevel,
    paint: Paint,
) -> (Dispatch, Guard) {
    let sink = Sink::start(to, BATCHES_MAX);
    (
        dispatch(format, filter(level), Batching(sink), paint),
        Guard { sink },
    )
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// From now on this thread gathers its events, and calls [`flush`] on a tick of its own.
pub fn batch() {
    let _ = BATCH.try_with(|batch| {
        if let Ok(mut batch) = batch.try_borrow_mut() {
            batch.mode = Mode::Gather;
        }
    });
}

/// Hands what this thread has gathered to the writer.
pub fn flush() {
    let _ = BATCH.try_with(|batch| {
        if let Ok(mut batch) = batch.try_borrow_mut() {
            batch.flush();
        }
    });
}

impl Guard {
    /// Has `metrics` tell how many lines there were, and how many of them were lost.
    pub fn watch(&self, metrics: &Metrics) {
        let sink = self.sink;
        metrics.watch(
            Kind::Counter,
            "ringpost_log_lines",
            "Lines logged.",
            move || sink.lines.load(Ordering::Relaxed),
        );
        metrics.watch(
            Kind::Counter,
            "ringpost_log_lines_written",
            "Lines written to standard error.",
            move || sink.written.lines.load(Ordering::Relaxed),
        );
        metrics.watch(
            Kind::Counter,
            "ringpost_log_batches_dropped",
            "Batches of lines dropped since standard error was not read fast enough.",
            move || sink.batches_dropped(),
        );
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
        self.sink.settle(SETTLE_SECONDS_MAX);
    }
}

/// The way to standard error. There is one in a process, and it is never freed.
#[derive(Debug)]
struct Sink {
    channel: NonBlocking,
    dropped: ErrorCounter,
    /// Batches handed to the channel, dropped ones included.
    batches: AtomicU64,
    /// Lines in these batches.
    lines: AtomicU64,
    written: Arc<Written>,
}

/// What the writer's thread has done.
#[derive(Debug, Default)]
struct Written {
    /// Batches taken from the channel and dealt with, whether or not they could be written.
    batches: AtomicU64,
    /// Lines written.
    lines: AtomicU64,
}

impl Sink {
    fn start(to: impl Write + Send + 'static, batches_max: usize) -> &'static Self {
        let written = Arc::new(Written::default());
        let (channel, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(batches_max)
            .thread_name("ringpost-log")
            .finish(Counting {
                to,
                written: Arc::clone(&written),
            });
        // `settle` waits for the writer, and says nothing on standard output when it cannot.
        std::mem::forget(guard);
        Box::leak(Box::new(Self {
            dropped: channel.error_counter(),
            channel,
            batches: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            written,
        }))
    }

    fn hand_over(&self, batch: &[u8]) {
        let lines = memchr::memchr_iter(b'\n', batch).count();
        self.lines
            .fetch_add(u64::try_from(lines).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        // Never fails: a full channel drops the batch and counts it.
        let _ = self.channel.clone().write_all(batch);
    }

    fn batches_dropped(&self) -> u64 {
        u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }

    /// Waits until what was handed over before the call is written, or dropped.
    fn settle(&self, seconds_max: u64) {
        let batches = self.batches.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(seconds_max);
        while self.written.batches.load(Ordering::Acquire) + self.batches_dropped() < batches
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes whole batches, and counts them.
struct Counting<W> {
    to: W,
    written: Arc<Written>,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
        let outcome = write_whole(&mut self.to, batch);
        if outcome.is_ok() {
            let lines = memchr::memchr_iter(b'\n', batch).count();
            let lines = u64::try_from(lines).unwrap_or(u64::MAX);
            self.written.lines.fetch_add(lines, Ordering::Relaxed);
        }
        self.written.batches.fetch_add(1, Ordering::Release);
        outcome.map(|()| batch.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// As `write_all`, but it also waits for a descriptor that somebody made non-blocking: standard
/// error shares that flag with whoever else holds the pipe.
fn write_whole(to: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When a thread's events leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each at once.
    Pass,
    /// When they are many, or when the thread says so.
    Gather,
}

/// The lines that a thread has gathered.
struct Batch {
    octets: Vec<u8>,
    mode: Mode,
    /// Where they go: known from the first line on.
    sink: Option<&'static Sink>,
}

impl Batch {
    fn add(&mut self, sink: &'static Sink, line: &[u8]) {
        self.sink = Some(sink);
        self.octets.extend_from_slice(line);
        if self.mode == Mode::Pass || self.octets.len() > BATCH_OCTETS_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(sink) = self.sink
            && !self.octets.is_empty()
        {
            sink.hand_over(&self.octets);
            self.octets.clear();
        }
    }
}

impl Drop for Batch {
    /// The thread ends.
    fn drop(&mut self) {
        self.flush();
    }
}

thread_local! {
    static BATCH: RefCell<Batch> = const {
        RefCell::new(Batch { octets: Vec::new(), mode: Mode::Pass, sink: None })
    };
}

/// Gives each event a writer that adds to the thread's batch.
#[derive(Debug, Clone, Copy)]
struct Batching(&'static Sink);

impl MakeWriter<'_> for Batching {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Batching {
    /// `line` is a whole event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let added = BATCH.try_with(|batch| match batch.try_borrow_mut() {
            Ok(mut batch) => {
                batch.add(self.0, line);
                true
            }
            Err(_) => false,
        });
        // The thread is at its end, or panicked in the midst of adding: the line goes by itself.
        if added != Ok(true) {
            self.0.hand_over(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dispatch<W>(format: LogFormat, level: LevelFilter, writer: W, paint: Paint) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(paint == Paint::Yes);
    match format {
        LogFormat::Text => Dispatch::new(builder.event_format(text::Text).finish()),
        LogFormat::Json => Dispatch::new(builder.event_format(json::Json).finish()),
    }
}

fn log_panic(sink: &Sink, info: &panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    let thread = thread::current();
    let location = info.location().map(tracing::field::display);
    // Taken only if RUST_BACKTRACE says so.
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
        .then(|| tracing::field::display(backtrace));
    tracing::error!(text, thread = thread.name(), location, backtrace, "panic");
    flush();
    // Whoever panicked may well end the process next.
    sink.settle(SETTLE_SECONDS_MAX);
}

/// A batch goes when it is larger, and with the tick anyhow. Some hundred lines: each hand-over wakes the
/// writer, which costs more than all that is done for one line.
const BATCH_OCTETS_MAX: usize = 32 * 1024;

/// Batches that wait for the writer: 8 MiB of them when shards are busy and nobody reads standard
/// error.
const BATCHES_MAX: usize = 256;

/// How long a panic or the end of the process waits for standard error.
const SETTLE_SECONDS_MAX: u64 = 1;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    /// Standard error, as the tests see it.
    #[derive(Debug, Clone, Default)]
    struct Taken(Arc<Mutex<Vec<u8>>>);

    impl Taken {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Taken {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Taken {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// What `events` write, without the time of the text form.
    fn logged(format: LogFormat, paint: Paint, events: impl FnOnce()) -> String {
        let taken = Taken::default();
        let dispatch = dispatch(format, LevelFilter::INFO, taken.clone(), paint);
        tracing::dispatcher::with_default(&dispatch, events);
        taken.text()
    }

    pub(crate) fn text(events: impl FnOnce()) -> String {
        let line = logged(LogFormat::Text, Paint::No, events);
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-24T08:00:00.123Z".len());
        rest.to_owned()
    }

    pub(crate) fn json(events: impl FnOnce()) -> String {
        let line = logged(LogFormat::Json, Paint::No, events);
        let rest = line.strip_prefix("{\"timestamp\":\"").unwrap();
        assert!(rest.is_char_boundary(24));
        rest[24..].to_owned()
    }

    #[test]
    fn a_text_line() {
        let none: Option<&str> = None;
        let line = text(|| {
            tracing::info!(
                listener = "tcp",
                peer = %"192.0.2.1:4711",
                none,
                count = 3u64,
                less = -3i64,
                seconds = 0.25,
                yes = true,
                "session"
            );
        });
        assert_eq!(
            line,
            "INFO session listener=tcp peer=192.0.2.1:4711 count=3 less=-3 seconds=0.25 yes=true\n"
        );
    }

    #[test]
    fn a_json_line() {
        let line = json(|| {
            tracing::warn!(
                target: "ringpost::x",
                peer = %"192.0.2.1:4711",
                count = 3u64,
                seconds = 0.25,
                bad = f64::NAN,
                yes = true,
                "a \"session\""
            );
        });
        assert_eq!(
            line,
            "\",\"level\":\"WARN\",\"target\":\"ringpost::x\",\"message\":\"a \\\"session\\\"\",\
             \"peer\":\"192.0.2.1:4711\",\"count\":3,\"seconds\":0.25,\"bad\":null,\"yes\":true}\n"
        );
    }

    #[test]
    fn levels_below_the_chosen_one_are_not_logged() {
        assert_eq!(
            logged(LogFormat::Text, Paint::No, || tracing::debug!("no")),
            ""
        );
    }

    #[test]
    fn an_error_is_written_with_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot load x.crt")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no such\nfile"));
        let log = || tracing::error!(error = &error as &dyn std::error::Error, "reload");
        assert_eq!(
            text(log),
            "ERROR reload error=\"cannot load x.crt: no such\\nfile\"\n"
        );
        assert!(json(log).ends_with("\"error\":\"cannot load x.crt: no such\\nfile\"}\n"));
    }

    /// What a peer may say, and how it stands in the two forms.
    const SAID: &[(&str, &str, &str)] = &[
        ("mx.test", "mx.test", "mx.test"),
        ("", "\"\"", ""),
        ("a b", "\"a b\"", "a b"),
        // Forged fields and lines.
        ("x auth=root", "\"x auth\\u{3d}root\"", "x auth=root"),
        (
            "x\" auth=root y=\"",
            "\"x\\\" auth\\u{3d}root y\\u{3d}\\\"\"",
            "x\\\" auth=root y=\\\"",
        ),
        (
            "x\r\n2026-01-01T00:00:00.000Z INFO",
            "\"x\\r\\n2026-01-01T00:00:00.000Z INFO\"",
            "x\\r\\n2026-01-01T00:00:00.000Z INFO",
        ),
        (
            "x\",\"auth\":\"root",
            "\"x\\\",\\\"auth\\\":\\\"root\"",
            "x\\\",\\\"auth\\\":\\\"root",
        ),
        ("ends in \\", "\"ends in \\\\\"", "ends in \\\\"),
        // Without a blank it cannot look like a field.
        ("prvs=1=a@b.test", "prvs=1=a@b.test", "prvs=1=a@b.test"),
        // Controls: NUL, ESC of a terminal, DEL, C1 CSI, line separators, right-to-left override.
        ("\0", "\"\\u{0}\"", "\\u0000"),
        ("\x1b[31m", "\"\\u{1b}[31m\"", "\\u001b[31m"),
        ("\x7f", "\"\\u{7f}\"", "\\u007f"),
        ("\u{9b}2J", "\"\\u{9b}2J\"", "\\u009b2J"),
        (
            "a\u{85}b\u{2028}c\u{2029}d",
            "\"a\\u{85}b\\u{2028}c\\u{2029}d\"",
            "a\\u0085b\\u2028c\\u2029d",
        ),
        ("a\u{202e}b", "\"a\\u{202e}b\"", "a\u{202e}b"),
        ("a\u{a0}b=c", "\"a\\u{a0}b\\u{3d}c\"", "a\u{a0}b=c"),
        // Other scripts are legible.
        ("用户@例え.test", "\"用户@例え.test\"", "用户@例え.test"),
    ];

    #[test]
    fn a_peer_cannot_end_a_line_or_forge_a_field() {
        for (said, in_text, in_json) in SAID {
            let as_string = || tracing::info!(ehlo = *said, next = 1, "session");
            let as_display = || tracing::info!(ehlo = %said, next = 1, "session");
            let expected = format!("INFO session ehlo={in_text} next=1\n");
            assert_eq!([text(as_string), text(as_display)], [expected.as_str(); 2]);
            let tail = format!(",\"ehlo\":\"{in_json}\",\"next\":1}}\n");
            assert!(json(as_string).ends_with(&tail), "{}", json(as_string));
            assert!(json(as_display).ends_with(&tail));
        }
    }

    #[test]
    fn no_octet_sequence_makes_a_second_line_or_field() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces = [
            " ", "=", "\"", "\\", "\n", "\r", "a", " auth=x", "\u{2028}", "é", "}", "{",
        ];
        for _ in 0..2000 {
            let said: String = (0..random.usize(..12))
                .map(|_| random.choice(pieces).unwrap())
                .collect();
            let line = text(|| tracing::info!(ehlo = said.as_str(), end = 1, "session"));
            let rest = line.strip_prefix("INFO session ehlo=").unwrap();
            let value = rest.strip_suffix(" end=1\n").unwrap();
            assert!(!value.contains(['\n', '\r', '\u{2028}']), "{value:?}");
            if value.starts_with('"') {
                assert!(!value.contains('='), "{value:?}");
            } else {
                assert!(!value.contains([' ', '"']), "{value:?}");
            }
        }
    }

    #[test]
    fn a_message_with_a_value_in_it_cannot_forge_a_field() {
        let name = "x auth=root";
        assert_eq!(
            text(|| tracing::info!("cannot read {name}")),
            "INFO message=\"cannot read x auth\\u{3d}root\"\n"
        );
        assert_eq!(text(|| tracing::info!("two words")), "INFO two words\n");
        assert_eq!(
            text(|| tracing::info!("two\n{}", "lines")),
            "INFO message=\"two\\nlines\"\n"
        );
    }

    #[test]
    fn colours_only_the_level() {
        let line = logged(LogFormat::Text, Paint::Yes, || {
            tracing::info!(a = "\x1b[1m", "x")
        });
        assert!(
            line.ends_with(" \x1b[32mINFO\x1b[0m x a=\"\\u{1b}[1m\"\n"),
            "{line:?}"
        );
    }

    /// Runs `events` on a thread of its own, whose batch is its own, and whose end flushes it.
    fn on_a_thread(sink: &'static Sink, events: impl FnOnce() + Send) {
        let dispatch = dispatch(
            LogFormat::Text,
            LevelFilter::INFO,
            Batching(sink),
            Paint::No,
        );
        thread::scope(|scope| {
            let thread = scope.spawn(|| tracing::dispatcher::with_default(&dispatch, events));
            // The scope by itself waits for the closure only, not for what the thread still drops.
            thread.join().unwrap();
        });
    }

    #[test]
    fn other_threads_pass_each_event_on_at_once() {
        let taken = Taken::default();
        let sink = Sink::start(taken.clone(), 16);
        on_a_thread(sink, || {
            tracing::info!("one");
            tracing::info!("two");
            assert_eq!(sink.batches.load(Ordering::Relaxed), 2);
            sink.settle(5);
            assert_eq!(taken.text().lines().count(), 2);
        });
    }

    #[test]
    fn a_batch_goes_on_a_flush_when_it_is_large_and_when_its_thread_ends() {
        let taken = Taken::default();
        let sink = Sink::start(taken.clone(), 16);
        let batches = || sink.batches.load(Ordering::Relaxed);
        on_a_thread(sink, || {
            batch();
            tracing::info!("one");
            tracing::info!("two");
            assert_eq!(batches(), 0);
            flush();
            flush();
            assert_eq!(batches(), 1);
            let long = "x".repeat(BATCH_OCTETS_MAX / 2);
            tracing::info!(long, "three");
            assert_eq!(batches(), 1);
            tracing::info!(long, "four");
            assert_eq!(batches(), 2);
            tracing::info!("five");
        });
        sink.settle(5);
        assert_eq!(batches(), 3);
        assert_eq!(sink.lines.load(Ordering::Relaxed), 5);
        assert_eq!(sink.written.lines.load(Ordering::Relaxed), 5);
        let words = taken.text();
        let words: Vec<_> = words
            .lines()
            .map(|line| line.split(' ').nth(2).unwrap())
            .collect();
        assert_eq!(words, ["one", "two", "three", "four", "five"]);
    }

    /// Standard error that nobody reads, until it is let go.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_pipe_drops_batches_counts_them_and_holds_nobody_up() {
        let (let_go, stuck) = mpsc::channel();
        let sink = Sink::start(Stuck(stuck), 4);
        let metrics = crate::control::metrics::tests::metrics();
        Guard { sink }.watch(&metrics);
        let begun = Instant::now();
        on_a_thread(sink, || (0..100).for_each(|_| tracing::info!("line")));
        assert!(begun.elapsed() < Duration::from_secs(5));
        // Four in the channel, one in the writer's hands, unless it had not come to it yet.
        let dropped = sink.batches_dropped();
        assert!((95..=96).contains(&dropped), "{dropped}");
        drop(let_go);
        sink.settle(5);
        let samples = crate::control::metrics::tests::parse(&metrics.encode().unwrap());
        let written = samples["ringpost_log_lines_written_total"];
        assert_eq!(samples["ringpost_log_lines_total"], 100.0);
        assert_eq!(
            samples["ringpost_log_batches_dropped_total"],
            100.0 - written
        );
    }

    #[test]
    fn a_writer_that_errs_or_is_slow_gets_every_octet_it_takes() {
        /// Takes three octets at a time, after a refusal each.
        struct Slow(Vec<u8>, u32);
        impl Write for Slow {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    _ => self.0.write(&octets[..octets.len().min(3)]),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), 0);
        write_whole(&mut slow, b"a line of some length\n").unwrap();
        assert_eq!(slow.0, b"a line of some length\n");
    }

    /// The whole of it, with the real standard error: in a process of its own, since the
    /// subscriber and the hook of a process are set once.
    #[test]
    fn a_process_logs_its_panics_and_its_last_words() {
        const CHILD: &str = "RINGPOST_TEST_LOG_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let guard = init(LogFormat::Text, LogLevel::Info).unwrap();
            assert!(init(LogFormat::Text, LogLevel::Info).is_err());
            batch();
            tracing::info!("first");
            let _ = thread::Builder::new()
                .name("shard-7".into())
                .spawn(|| panic!("broken {}\ninvariant", 1 + 1))
                .unwrap()
                .join();
            tracing::info!("last");
            drop(guard);
            std::process::exit(0);
        }
        let name = "control::log::tests::a_process_logs_its_panics_and_its_last_words";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "yes")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(lines.len(), 3, "{text}");
        let panic = lines
            .iter()
            .find(|line| line.starts_with("ERROR panic "))
            .unwrap();
        assert!(
            panic.starts_with(
                "ERROR panic text=\"broken 2\\ninvariant\" thread=shard-7 location=src/control/log.rs:"
            ),
            "{panic}"
        );
        assert!(lines.contains(&"INFO first"));
        assert_eq!(lines.last(), Some(&"INFO last"));
    }
}
