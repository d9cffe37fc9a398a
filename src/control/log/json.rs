//! Events as JSON (RFC 8259), an object a line.
//!
//! ```text
//! {"timestamp":"2026-11-24T08:00:00.123Z","level":"INFO","target":"ringpost::…","message":"session","session":"1f"}
//! ```
//!
//! Written here, and not with a library: it is strings and numbers only, and each shard writes two
//! of these a message.

use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::text::{Chain, with_rendered};
use crate::control::time::with_timestamp;

/// The JSON form.
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
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
        out.write_str("{\"timestamp\":\"")?;
        with_timestamp(SystemTime::now(), |time| out.write_str(time))?;
        out.write_str("\",\"level\":\"")?;
        out.write_str(event.metadata().level().as_str())?;
        out.write_str("\",\"target\":")?;
        string_to(&mut out, event.metadata().target())?;
        let mut fields = Fields {
            out,
            outcome: Ok(()),
        };
        event.record(&mut fields);
        fields.outcome?;
        fields.out.write_str("}\n")
    }
}

struct Fields<'w> {
    out: Writer<'w>,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn member(&mut self, name: &str, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.outcome.is_ok() {
            self.outcome = (|| {
                self.out.write_char(',')?;
                string_to(&mut self.out, name)?;
                self.out.write_char(':')?;
                value(&mut self.out)
            })();
        }
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.member(field.name(), |out| write!(out, "{value}"));
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), |out| string_to(out, value));
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

    /// RFC 8259 §6: there is no infinity, and no NaN.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.member(field.name(), |out| out.write_str("null"));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }
}

/// RFC 8259 §7. Beyond what it demands, DEL, the C1 controls and the two line separators are
/// escaped: some readers of lines take them for an end of line.
fn string_to(out: &mut Writer<'_>, value: &str) -> fmt::Result {
    out.write_char('"')?;
    // Nearly every string: known to need no escape without being decoded.
    if value
        .bytes()
        .all(|octet| matches!(octet, b' '..=b'~') && octet != b'"' && octet != b'\\')
    {
        out.write_str(value)?;
        return out.write_char('"');
    }
    let mut rest = value;
    while let Some((at, found)) = rest.char_indices().find(|(_, c)| needs_escape(*c)) {
        let (run, tail) = rest.split_at(at);
        out.write_str(run)?;
        match found {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            // All that need it are in the basic plane: one code unit.
            other => write!(out, "\\u{:04x}", u32::from(other)),
        }?;
        rest = tail.get(found.len_utf8()..).unwrap_or_default();
    }
    out.write_str(rest)?;
    out.write_char('"')
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}') || c.is_control()
}
