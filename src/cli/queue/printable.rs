//! Text of peers and next hops, made fit for a terminal.
//!
//! Invariant: what comes out has graphic ASCII, blanks, and letters and digits of other scripts, as in the log: no
//! control, no invisible and no direction-changing character.

use std::borrow::Cow;
use std::io;

/// `text` with what is not printable written as `\n` or `\u{9b}`.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_printable(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// JSON in which everything that is not printable stands as `\u009b`, beyond what RFC 8259 §7 demands.
pub(super) struct PrintableJson;

impl serde_json::ser::Formatter for PrintableJson {
    /// A part of a string without what JSON itself escapes.
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| !is_printable(*c)) {
            let (run, tail) = rest.split_at(at);
            writer.write_all(run.as_bytes())?;
            let mut units = [0; 2];
            for unit in found.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = tail.get(found.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        other => other.is_alphanumeric(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[test]
    fn nothing_but_text_comes_out() {
        let rows = [
            ("plain", "a@b.test", "a@b.test", "a@b.test"),
            ("quoted", "\"a b\"@c", "\"a b\"@c", "\\\"a b\\\"@c"),
            ("letters", "ü字", "ü字", "ü字"),
            ("ESC", "\x1b[2J", "\\u{1b}[2J", "\\u001b[2J"),
            ("lines", "a\r\nb", "a\\r\\nb", "a\\r\\nb"),
            ("DEL", "\x7f", "\\u{7f}", "\\u007f"),
            ("C1", "\u{9b}1m", "\\u{9b}1m", "\\u009b1m"),
            ("direction", "a\u{202e}b", "a\\u{202e}b", "a\\u202eb"),
            ("beyond", "\u{e0041}", "\\u{e0041}", "\\udb40\\udc41"),
        ];
        for (name, text, shown, in_json) in rows {
            assert_eq!(printable(text), shown, "{name}");
            let mut json = Vec::new();
            let mut to = serde_json::Serializer::with_formatter(&mut json, PrintableJson);
            text.serialize(&mut to).unwrap();
            let json = String::from_utf8(json).unwrap();
            assert_eq!(json, format!("\"{in_json}\""), "{name}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
