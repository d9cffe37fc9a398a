//! Holds replies against what a transcript expects.
//!
//! Apart from the players because the session's replies and a server's are held to the same rules:
//! besides what the transcript says, every line is well-formed (RFC 5321 §4.2, §4.5.3.1.5) and its
//! enhanced code has the class of its code (RFC 2034 §4).

use super::transcript::Kind;

/// Where reply lines come from, CR LF taken off. None: no line comes.
pub(crate) trait Replies {
    fn peek(&mut self) -> Option<&[u8]>;
    fn take(&mut self) -> Option<Vec<u8>>;
}

/// The lines of the reply last seen, for `S+` and `S-`.
#[derive(Debug, Default)]
pub(crate) struct LastReply {
    lines: Vec<String>,
    is_complete: bool,
}

impl LastReply {
    /// Holds `replies` against one item, if that is about replies. An error tells what is wrong.
    pub(crate) fn hold(&mut self, kind: &Kind, replies: &mut dyn Replies) -> Result<(), String> {
        match kind {
            Kind::Reply { pattern, count } => {
                for _ in 0..*count {
                    let line = self.take(pattern, replies)?;
                    if !matches(pattern, &line) {
                        return Err(format!("expected {pattern:?}, got {line:?}"));
                    }
                }
            }
            Kind::WholeReply(code) => loop {
                let pattern = format!("{code}-…");
                let line = self.take(&pattern, replies)?;
                if !line.starts_with(code.as_str()) {
                    return Err(format!("expected {pattern:?}, got {line:?}"));
                }
                if self.is_complete {
                    break;
                }
            },
            Kind::MaybeReply(pattern) => {
                let is_there = replies
                    .peek()
                    .is_some_and(|line| matches(pattern, &String::from_utf8_lossy(line)));
                if is_there {
                    self.take(pattern, replies)?;
                }
            }
            Kind::Listed(keyword) => {
                if !self.lists(keyword) {
                    return Err(format!("{keyword:?} is not in {:?}", self.lines));
                }
            }
            Kind::NotListed(keyword) => {
                if self.lists(keyword) {
                    return Err(format!("{keyword:?} is in {:?}", self.lines));
                }
            }
            Kind::Client(_)
            | Kind::Handshake
            | Kind::Close
            | Kind::Expire
            | Kind::Drain
            | Kind::Mail(_)
            | Kind::To { .. } => {}
        }
        Ok(())
    }

    fn take(&mut self, pattern: &str, replies: &mut dyn Replies) -> Result<String, String> {
        let octets = replies
            .take()
            .ok_or_else(|| format!("expected {pattern:?}, got no reply"))?;
        let line = well_formed(&octets)?;
        if self.is_complete {
            self.lines.clear();
        }
        if let Some(first) = self.lines.first()
            && first[..3] != line[..3]
        {
            return Err(format!("{line:?} goes on with {first:?}"));
        }
        self.is_complete = line.as_bytes()[3] == b' ';
        self.lines.push(line.clone());
        Ok(line)
    }

    fn lists(&self, keyword: &str) -> bool {
        self.lines.iter().any(|line| matches(keyword, &line[4..]))
    }
}

/// What every reply line must be, whatever it says.
pub(crate) fn well_formed(octets: &[u8]) -> Result<String, String> {
    let shown = octets.escape_ascii().to_string();
    let Ok(line) = String::from_utf8(octets.to_vec()) else {
        return Err(format!("not UTF-8: {shown}"));
    };
    // Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    if octets.len() < 4
        || !matches!(octets[0], b'2'..=b'5')
        || !octets[1..3].iter().all(u8::is_ascii_digit)
        || !matches!(octets[3], b' ' | b'-')
    {
        return Err(format!("no reply line: {shown}"));
    }
    if octets.len() + 2 > 512 {
        return Err(format!("longer than 512 octets: {shown}"));
    }
    if !octets
        .iter()
        .all(|octet| matches!(octet, b'\t' | b' '..=b'~'))
    {
        return Err(format!("not text: {shown}"));
    }
    if let Some((class, _)) = enhanced_code(&line[4..])
        && class.as_bytes()[0] != octets[0]
    {
        return Err(format!("code and enhanced code of two classes: {shown}"));
    }
    Ok(line)
}

/// `class "." subject "." detail` (RFC 3463 §2) at the beginning of a text.
fn enhanced_code(text: &str) -> Option<(&str, &str)> {
    let (code, text) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = code.split('.');
    let class = numbers.next()?;
    let is_code = matches!(class, "2" | "4" | "5")
        && numbers.clone().count() == 2
        && numbers.all(|number| {
            matches!(number.len(), 1..=3) && number.bytes().all(|digit| digit.is_ascii_digit())
        });
    is_code.then_some((class, text))
}

/// Whether a line is, or begins at a word's end with, the pattern or one of its alternatives.
pub(crate) fn matches(pattern: &str, line: &str) -> bool {
    pattern.split(" | ").any(|pattern| {
        glob(pattern.as_bytes(), line.as_bytes())
            || glob(format!("{pattern} *").as_bytes(), line.as_bytes())
    })
}

/// `*` stands for any octets, none among them.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        Some((first, rest)) => text.first() == Some(first) && glob(rest, &text[1..]),
    }
}

#[test]
fn patterns() {
    for (pattern, line, wanted) in [
        ("250 2.0.0", "250 2.0.0 Ok", true),
        ("250 2.0.0", "250 2.0.0", true),
        ("250 2.0.0", "250 2.0.01", false),
        ("250 2.0.0", "250-2.0.0", false),
        ("334", "334 ", true),
        ("501 5.*", "501 5.1.3 Bad address", true),
        ("501 5.*", "501 4.1.3 Bad address", false),
        (
            "503 5.5.1 | 554 5.5.1",
            "554 5.5.1 No valid recipients",
            true,
        ),
        ("503 5.5.1 | 554 5.5.1", "553 5.5.1", false),
        ("5*", "5", true),
        ("AUTH", "AUTH PLAIN", true),
        ("AUTH", "AUTHOR", false),
    ] {
        assert_eq!(matches(pattern, line), wanted, "{pattern:?} {line:?}");
    }
}

#[test]
fn reply_lines() {
    for (line, wanted) in [
        (&b"250 2.0.0 Ok"[..], true),
        (b"334 ", true),
        (b"250-SIZE 10", true),
        (b"220 mx.test ESMTP", true),
        (b"250 5.0.0 Ok", false),
        (b"550 4.7.1 No", false),
        (b"250", false),
        (b"150 x", false),
        (b"250 a\rb", false),
        (b"250 \xc3\xbc", false),
    ] {
        assert_eq!(well_formed(line).is_ok(), wanted, "{}", line.escape_ascii());
    }
    assert!(well_formed(&[b"250 ", &[b'a'; 507][..]].concat()).is_err());
}
