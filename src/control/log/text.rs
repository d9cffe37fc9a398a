//! Events as lines for people and for grep.
//!
//! ```text
//! 2026-11-24T08:00:00.123Z INFO session session=1f listener=tcp peer=192.0.2.1:4711 ehlo="a b"
//! ```
//!
//! Invariants:
//! - ` key=` occurs in a line only where a field begins: a value without blanks stands as it is, any
//!   other in quotes, and there `=` is escaped.
//! - A line has graphic ASCII, blanks, and letters and digits of other scripts in quotes, nothing
//!   else: no control, no invisible and no direction-changing character reaches a terminal.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::control::time::with_timestamp;

/// The text form.
#[derive(Debug)]
pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        with_timestamp(SystemTime::now(), |time| out.write_str(time))?;
        let level = *event.metadata().level();
        if out.has_ansi_escapes() {
            write!(out, " \x1b[{}m{level}\x1b[0m", colour(level))?;
        } else {
            out.write_char(' ')?;
            out.write_str(level.as_str())?;
        }
        let mut fields = Fields {
            out,
            outcome: Ok(()),
        };
        event.record(&mut fields);
        fields.outcome?;
        fields.out.write_char('\n')
    }
}

struct Fields<'w> {
    out: Writer<'w>,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.outcome.is_ok() {
            self.outcome = write(&mut self.out);
        }
    }

    /// A value that needs no quotes whatever it is.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.write(|out| {
            begin(out, field.name())?;
            write!(out, "{value}")
        });
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(|out| {
            if field.name() == "message" && is_plain_message(value) {
                out.write_char(' ')?;
                return out.write_str(value);
            }
            begin(out, field.name())?;
            value_to(out, value)
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        with_rendered(format_args!("{value:?}"), |text| {
            self.record_str(field, text)
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        with_rendered(format_args!("{}", Chain(value)), |text| {
            self.record_str(field, text)
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }
}

/// An error and what it stems from, one behind the other.
pub(super) struct Chain<'e>(pub(super) &'e (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Gives `read` what `arguments` come to, in a buffer of the thread's.
pub(super) fn with_rendered(arguments: fmt::Arguments<'_>, read: impl FnOnce(&str)) {
    if let Some(text) = arguments.as_str() {
        return read(text);
    }
    RENDERED.with(|rendered| {
        // Borrowed already: a value logs while it is rendered.
        let mut own = String::new();
        let mut shared = rendered.try_borrow_mut();
        let text = shared.as_deref_mut().unwrap_or(&mut own);
        text.clear();
        // A value that cannot be rendered stands as far as it came.
        let _ = text.write_fmt(arguments);
        read(text);
        text.shrink_to(RENDERED_OCTETS_KEPT);
    });
}

thread_local! {
    static RENDERED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A buffer that grew beyond this for one value is made smaller again.
const RENDERED_OCTETS_KEPT: usize = 4096;

fn begin(out: &mut Writer<'_>, name: &str) -> fmt::Result {
    out.write_char(' ')?;
    out.write_str(name)?;
    out.write_char('=')
}

/// A message is written by us, and seldom needs to be quoted; but it must not look like a field.
fn is_plain_message(message: &str) -> bool {
    !message.is_empty()
        && message
            .bytes()
            .all(|octet| octet == b' ' || is_bare(octet) && octet != b'=')
}

/// What may stand in a value without quotes.
fn is_bare(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'"' && octet != b'\\'
}

fn value_to(out: &mut Writer<'_>, value: &str) -> fmt::Result {
    if !value.is_empty() && value.bytes().all(is_bare) {
        return out.write_str(value);
    }
    out.write_char('"')?;
    // Runs that need no escape are written whole.
    let mut rest = value;
    while let Some((at, found)) = rest.char_indices().find(|(_, c)| !is_quotable(*c)) {
        let (run, tail) = rest.split_at(at);
        out.write_str(run)?;
        match found {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            other => write!(out, "\\u{{{:x}}}", u32::from(other)),
        }?;
        rest = tail.get(found.len_utf8()..).unwrap_or_default();
    }
    out.write_str(rest)?;
    out.write_char('"')
}

/// What may stand in quotes as it is.
fn is_quotable(c: char) -> bool {
    match c {
        '"' | '\\' | '=' => false,
        ' '..='~' => true,
        other => other.is_alphanumeric(),
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}
