//! Reads replies (RFC 5321 §4.2, RFC 2034).
//!
//! Apart from the session because everything a peer says comes through here.
//! Invariants:
//! - The replies are the same however the octets were cut into reads.
//! - What is kept of a reply is bounded by [`REPLY_LINE_OCTETS_MAX`] and [`REPLY_TEXT_OCTETS_MAX`],
//!   however many lines it has; a line that is whole in the input is read there.
//! - The text of a reply is one line without control characters, fit for a log and a report.
//! - An enhanced code counts only if it begins with the class of its reply (RFC 2034 §4).
//!
//! Laxer than the grammar where peers are: a line may end in a lone LF, a code may stand alone, the
//! lines of a reply may differ in their codes, of which the last counts.

use std::mem;

use crate::smtp::status::{Class, Status};

/// Longest line of a reply, line end included. RFC 5321 §4.5.3.1.5 has 512; a challenge of AUTH may
/// need 12288 (RFC 4954 §4).
pub const REPLY_LINE_OCTETS_MAX: usize = 12 * 1024;

/// Octets of all lines of a reply. Far over what any EHLO lists or any policy text says: it ends a
/// peer that goes on for ever, whom no timeout would end.
pub const REPLY_OCTETS_MAX: usize = 1024 * 1024;

/// Octets of a reply's text that are kept.
pub const REPLY_TEXT_OCTETS_MAX: usize = 1024;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code.
    pub code: u16,
    /// The enhanced status code, if it has a fitting one.
    pub status: Option<Status>,
    /// All of it as one line, beginning with the codes, as in `550 5.1.1 No such user`.
    pub text: Box<str>,
}

/// What the first digit of a code says (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2yz: done.
    Completion,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: not now.
    Transient,
    /// 5yz: never.
    Permanent,
}

impl Reply {
    /// What its first digit says. What is read here begins with 2 to 5.
    pub fn kind(&self) -> Kind {
        match self.code / 100 {
            2 => Kind::Completion,
            3 => Kind::Intermediate,
            4 => Kind::Transient,
            _ => Kind::Permanent,
        }
    }

    /// Its enhanced code, or `X.0.0` of its class if it has none (RFC 3463 §3.1). What only goes on
    /// is no success yet, and counts as temporary where it cannot stand.
    pub fn status_or_class(&self) -> Status {
        self.status.unwrap_or_else(|| {
            let class = match self.kind() {
                Kind::Completion => Class::Success,
                Kind::Intermediate | Kind::Transient => Class::Temporary,
                Kind::Permanent => Class::Permanent,
            };
            Status::new(class, 0, 0)
        })
    }

    /// Whether it refuses what was asked.
    pub(super) fn refuses(&self) -> bool {
        matches!(self.kind(), Kind::Transient | Kind::Permanent)
    }
}

/// Why what came is no reply. The connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line without a code of three digits, or with something glued to it.
    #[error("what it said is no reply")]
    Malformed,
    /// A line longer than [`REPLY_LINE_OCTETS_MAX`].
    #[error("a line of its reply is longer than {REPLY_LINE_OCTETS_MAX} octets")]
    LineTooLong,
    /// More octets than [`REPLY_OCTETS_MAX`].
    #[error("its reply is longer than {REPLY_OCTETS_MAX} octets")]
    TooLong,
}

/// The reader.
#[derive(Debug, Default)]
pub struct Replies {
    /// The beginning of a line, waiting for the rest.
    partial: Vec<u8>,
    /// The lines so far of a reply that goes on.
    gathered: Option<Gathered>,
}

/// What is kept of a reply's lines.
#[derive(Debug, Default)]
struct Gathered {
    lines: usize,
    octets: usize,
    status: Option<Status>,
    text: Vec<u8>,
}

impl Replies {
    /// Takes the next reply from `input`, or all of `input` if none ends there. `line` is shown each
    /// line as it is read: its number in the reply, from 0, and its text behind the code.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        mut line: impl FnMut(usize, &[u8]),
    ) -> Option<Result<Reply, ReplyError>> {
        loop {
            let whole: &[u8] = input;
            let Some(at) = memchr::memchr(b'\n', whole) else {
                *input = &[];
                if self.partial.len() + whole.len() > REPLY_LINE_OCTETS_MAX {
                    return Some(Err(ReplyError::LineTooLong));
                }
                self.partial.extend_from_slice(whole);
                return None;
            };
            let (lent, rest) = whole.split_at_checked(at + 1)?;
            *input = rest;
            let read = if self.partial.is_empty() {
                self.line(lent, &mut line)
            } else {
                let mut joined = mem::take(&mut self.partial);
                joined.extend_from_slice(lent);
                self.line(&joined, &mut line)
            };
            if let Some(reply) = read.transpose() {
                return Some(reply);
            }
        }
    }

    /// Whether the beginning of a reply was read.
    pub fn is_amid_reply(&self) -> bool {
        !self.partial.is_empty() || self.gathered.is_some()
    }

    /// Reads one line, with its end; gives the reply if that is its last.
    fn line(
        &mut self,
        octets: &[u8],
        show: &mut impl FnMut(usize, &[u8]),
    ) -> Result<Option<Reply>, ReplyError> {
        if octets.len() > REPLY_LINE_OCTETS_MAX {
            return Err(ReplyError::LineTooLong);
        }
        let line = reply_line(octets)?;
        let mut gathered = self.gathered.take().unwrap_or_default();
        gathered.octets += octets.len();
        if gathered.octets > REPLY_OCTETS_MAX {
            return Err(ReplyError::TooLong);
        }
        show(gathered.lines, line.text);
        gathered.lines += 1;
        let (status, text) = status_and_text(line.code, line.text);
        gathered.keep(status, text);
        if line.is_last {
            return Ok(Some(gathered.reply(line.code)));
        }
        self.gathered = Some(gathered);
        Ok(None)
    }
}

impl Gathered {
    fn keep(&mut self, status: Option<Status>, text: &[u8]) {
        self.status = status.or(self.status);
        let room = REPLY_TEXT_OCTETS_MAX.saturating_sub(self.text.len());
        if room == 0 || text.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b' ');
        }
        self.text
            .extend_from_slice(text.get(..room).unwrap_or(text));
    }

    fn reply(self, code: u16) -> Reply {
        // A reply whose lines differ in class has the class of its last line.
        let status = self.status.filter(|status| fits(*status, code));
        let mut text = code.to_string();
        if let Some(status) = status {
            text.push(' ');
            text.push_str(&status.to_string());
        }
        let said = String::from_utf8_lossy(&self.text);
        if !said.is_empty() {
            text.push(' ');
            text.extend(said.chars().map(|character| match character {
                // Line and paragraph separator: controls in all but name.
                '\u{2028}' | '\u{2029}' => ' ',
                _ if character.is_control() => ' ',
                _ => character,
            }));
        }
        let mut end = text.len().min(REPLY_TEXT_OCTETS_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.truncate(text.trim_end().len());
        Reply {
            code,
            status,
            text: text.into(),
        }
    }
}

/// A line of a reply.
struct Line<'a> {
    code: u16,
    is_last: bool,
    text: &'a [u8],
}

/// ```text
/// Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
/// Reply-code = %x32-35 %x30-35 %x30-39
/// ```
/// The second digit is taken as far as 9: nothing here looks at it.
fn reply_line(line: &[u8]) -> Result<Line<'_>, ReplyError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some((&[class @ b'2'..=b'5', subject, detail], rest)) = line.split_first_chunk() else {
        return Err(ReplyError::Malformed);
    };
    let (is_last, text) = match rest {
        [] => (true, rest),
        [b' ', text @ ..] => (true, text),
        [b'-', text @ ..] => (false, text),
        _ => return Err(ReplyError::Malformed),
    };
    if !subject.is_ascii_digit() || !detail.is_ascii_digit() {
        return Err(ReplyError::Malformed);
    }
    let [class, subject, detail] = [class, subject, detail].map(|digit| u16::from(digit - b'0'));
    Ok(Line {
        code: class * 100 + subject * 10 + detail,
        is_last,
        text,
    })
}

/// The enhanced code that a line's text begins with, if it fits, and what stands behind it.
fn status_and_text(code: u16, text: &[u8]) -> (Option<Status>, &[u8]) {
    let text = text.trim_ascii();
    let word_octets = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(word_octets).unwrap_or((text, &[]));
    let status = str::from_utf8(word).ok().and_then(Status::parse);
    match status.filter(|status| fits(*status, code)) {
        Some(status) => (Some(status), rest.trim_ascii_start()),
        None => (None, text),
    }
}

fn fits(status: Status, code: u16) -> bool {
    let digit = match status.class {
        Class::Success => 2,
        Class::Temporary => 4,
        Class::Permanent => 5,
    };
    code / 100 == digit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of `input` cut into pieces of `piece_octets`: a text for each reply, with its
    /// code and its enhanced code in front; an error ends it.
    fn read(input: &[u8], piece_octets: usize) -> Vec<String> {
        let mut replies = Replies::default();
        let mut texts = Vec::new();
        for mut piece in input.chunks(piece_octets) {
            while let Some(reply) = replies.next(&mut piece, |_, _| {}) {
                match reply {
                    Ok(Reply { code, status, text }) => {
                        let status = status.map_or(String::from("-"), |status| status.to_string());
                        texts.push(format!("{code} {status}: {text}"));
                    }
                    Err(error) => {
                        texts.push(format!("{error:?}"));
                        return texts;
                    }
                }
            }
            assert!(piece.is_empty(), "what is no reply yet is taken");
        }
        if replies.is_amid_reply() {
            texts.push(String::from("…"));
        }
        texts
    }

    #[test]
    fn replies_however_cut() {
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &[u8], &[&str])] = &[
            ("one line", b"250 ok\r\n", &["250 -: 250 ok"]),
            ("with an enhanced code", b"250 2.1.0 ok\r\n", &["250 2.1.0: 250 2.1.0 ok"]),
            ("an enhanced code alone", b"550 5.1.1\r\n", &["550 5.1.1: 550 5.1.1"]),
            ("a code alone", b"250\r\n", &["250 -: 250"]),
            ("a code and a space", b"250 \r\n", &["250 -: 250"]),
            ("a lone LF", b"250 ok\n", &["250 -: 250 ok"]),
            ("two replies", b"250 a\r\n354 b\r\n", &["250 -: 250 a", "354 -: 354 b"]),
            ("lines", b"550-5.1.1 no\r\n550-5.1.1\r\n550 5.1.1 such\r\n",
                &["550 5.1.1: 550 5.1.1 no such"]),
            ("an enhanced code in the first line", b"550-5.1.1 no\r\n550 such\r\n",
                &["550 5.1.1: 550 5.1.1 no such"]),
            ("an enhanced code in the last line", b"550-no\r\n550 5.1.1 such\r\n",
                &["550 5.1.1: 550 5.1.1 no such"]),
            ("enhanced codes that differ", b"550-5.1.1 a\r\n550 5.7.1 b\r\n",
                &["550 5.7.1: 550 5.7.1 a b"]),
            ("an enhanced code of another class", b"550 4.1.1 no\r\n", &["550 -: 550 4.1.1 no"]),
            ("an enhanced code where none can be", b"354 2.0.0 go\r\n", &["354 -: 354 2.0.0 go"]),
            ("codes that differ", b"250-2.0.0 a\r\n550 b\r\n", &["550 -: 550 a b"]),
            ("codes that differ, both enhanced", b"250-2.0.0 a\r\n550 5.0.0 b\r\n",
                &["550 5.0.0: 550 5.0.0 a b"]),
            ("control characters", b"250 a\tb\0c\x1b[m\x7f\r\n", &["250 -: 250 a b c [m"]),
            ("a CR inside", b"250 a\rb\r\n", &["250 -: 250 a b"]),
            ("UTF-8", "250 grüß\u{85}\u{2028}x\r\n".as_bytes(), &["250 -: 250 grüß  x"]),
            ("not UTF-8", b"250 a\xffb\r\n", &["250 -: 250 a\u{fffd}b"]),
            ("a second digit of 9", b"290 a\r\n", &["290 -: 290 a"]),
            ("not its end yet", b"250-a\r\n", &["…"]),
            ("not its line's end yet", b"250 a", &["…"]),
            ("empty", b"\r\n", &["Malformed"]),
            ("two digits", b"25\r\n", &["Malformed"]),
            ("letters", b"HTTP/1.1 400 Bad Request\r\n", &["Malformed"]),
            ("a code under 200", b"150 a\r\n", &["Malformed"]),
            ("a code over 599", b"650 a\r\n", &["Malformed"]),
            ("a letter in the code", b"2x0 a\r\n", &["Malformed"]),
            ("a letter at the code's end", b"25x a\r\n", &["Malformed"]),
            ("something glued to the code", b"250ok\r\n", &["Malformed"]),
            ("four digits", b"2500 ok\r\n", &["Malformed"]),
            ("garbage behind a reply", b"250 a\r\n?\r\n", &["250 -: 250 a", "Malformed"]),
            ("garbage in a reply", b"250-a\r\n?\r\n", &["Malformed"]),
        ];
        for (name, input, wanted) in rows {
            for piece_octets in 1..=input.len() {
                let found = read(input, piece_octets);
                assert_eq!(found, *wanted, "{name}, by {piece_octets}");
            }
        }
    }

    #[test]
    fn random_octets_however_cut() {
        const TOKENS: [&[u8]; 12] = [
            b"250", b"550", b" ", b"-", b"\r\n", b"\r\n", b"\n", b"\r", b"5.1.1", b"text", b"\0",
            b"\xff",
        ];
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let input: Vec<u8> = (0..random.usize(..30))
                .flat_map(|_| TOKENS[random.usize(..TOKENS.len())])
                .copied()
                .collect();
            let whole = read(&input, usize::MAX);
            for piece_octets in 1..8 {
                assert_eq!(read(&input, piece_octets), whole, "seed {seed}");
            }
        }
    }

    #[test]
    fn kinds_and_their_statuses() {
        let rows = [
            ("250 ok", Kind::Completion, "2.0.0", false),
            ("250 2.1.5 ok", Kind::Completion, "2.1.5", false),
            ("354 go", Kind::Intermediate, "4.0.0", false),
            ("451 later", Kind::Transient, "4.0.0", true),
            ("550 never", Kind::Permanent, "5.0.0", true),
            ("550 5.7.1 never", Kind::Permanent, "5.7.1", true),
        ];
        for (line, kind, status, refuses) in rows {
            let octets = [line.as_bytes(), b"\r\n"].concat();
            let reply = Replies::default().next(&mut octets.as_slice(), |_, _| {});
            let reply = reply.unwrap().unwrap();
            assert_eq!(reply.kind(), kind, "{line}");
            assert_eq!(reply.status_or_class().to_string(), status, "{line}");
            assert_eq!(reply.refuses(), refuses, "{line}");
        }
    }

    #[test]
    fn lines_are_shown_as_they_come() {
        let mut shown = Vec::new();
        let mut input: &[u8] = b"250-mx.test\r\n250-SIZE 5\r\n250 DSN\r\n250 next\r\n";
        let reply = Replies::default().next(&mut input, |number, text| {
            shown.push((number, String::from_utf8_lossy(text).into_owned()));
        });
        assert_eq!(&*reply.unwrap().unwrap().text, "250 mx.test SIZE 5 DSN");
        let wanted = [(0, "mx.test"), (1, "SIZE 5"), (2, "DSN")];
        assert_eq!(
            shown,
            wanted.map(|(number, text)| (number, text.to_owned()))
        );
        assert_eq!(input, b"250 next\r\n");
    }

    #[test]
    fn many_lines_are_a_reply_of_bounded_memory() {
        let mut replies = Replies::default();
        let mut lines = 0;
        for number in 0..10_000 {
            let line = format!("250-line {number} of a long reply\r\n");
            let next = replies.next(&mut line.as_bytes(), |_, _| lines += 1);
            assert!(next.is_none());
            let gathered = replies.gathered.as_ref().unwrap();
            assert!(gathered.text.capacity() <= 4 * REPLY_TEXT_OCTETS_MAX);
            assert_eq!(replies.partial.capacity(), 0);
        }
        let reply = replies.next(&mut b"250 end\r\n".as_slice(), |_, _| lines += 1);
        let text = reply.unwrap().unwrap().text;
        assert!(text.starts_with("250 line 0 of a long reply line 1 of"));
        assert!(text.len() <= REPLY_TEXT_OCTETS_MAX);
        assert_eq!(lines, 10_001);
    }

    #[test]
    fn what_has_no_end_is_ended() {
        let filled = |octets: usize, end: &str| {
            format!("250-{}{end}", "x".repeat(octets - 4 - end.len())).into_bytes()
        };
        let line_at_the_limit = filled(REPLY_LINE_OCTETS_MAX, "\r\n");
        let line_over = filled(REPLY_LINE_OCTETS_MAX + 1, "\r\n");
        let unended_at_the_limit = filled(REPLY_LINE_OCTETS_MAX, "");
        let unended_over = filled(REPLY_LINE_OCTETS_MAX + 1, "");
        let lines = filled(1024, "\n").repeat(REPLY_OCTETS_MAX / 1024);
        let lines_over = [lines.as_slice(), b"250 x\r\n"].concat();
        let rows: [(&str, &[u8], &str); 6] = [
            ("a line at the limit", &line_at_the_limit, "…"),
            ("a line over it", &line_over, "LineTooLong"),
            (
                "a line without end at the limit",
                &unended_at_the_limit,
                "…",
            ),
            ("a line without end over it", &unended_over, "LineTooLong"),
            ("lines at the limit", &lines, "…"),
            ("lines over it", &lines_over, "TooLong"),
        ];
        for (name, input, wanted) in rows {
            for piece_octets in [1, 7, 1000, usize::MAX] {
                assert_eq!(read(input, piece_octets), [wanted], "{name}");
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for padding in 0..3 {
            let line = format!("250 {}{}\r\n", "x".repeat(padding), "ü€".repeat(500));
            let reply = Replies::default().next(&mut line.as_bytes(), |_, _| {});
            let text = reply.unwrap().unwrap().text;
            assert!((REPLY_TEXT_OCTETS_MAX - 3..=REPLY_TEXT_OCTETS_MAX).contains(&text.len()));
        }
    }
}
