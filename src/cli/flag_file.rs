//! `@FILE`: flags read from a file, one a line. The file *is* the configuration file.
//!
//! ```text
//! # An MX behind a load balancer.
//! --hostname mx.example.org
//! --listen 0.0.0.0:25            # a comment may follow a value
//! --greeting "ESMTP # not a comment"
//! --route=example.net=maildir:/srv/mail
//! ```
//!
//! Apart from the flags, and our own in place of a crate's, because a line's number must survive
//! to the error that clap raises long after.
//! Claims:
//! - A line is `--flag value` or `--flag=value`; the value may stand in single or double quotes,
//!   inside which every character is itself.
//! - A flag file names no other flag file: what runs can be read in one place.
//! - Relative paths in it are relative to the working directory, as on the command line.

use std::path::{Path, PathBuf};

/// A flag of the file, as clap wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlagLine {
    /// `--flag=value`.
    pub(super) argument: String,
    /// Counted from 1.
    pub(super) line_number: usize,
}

/// Why a flag file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlagFileError {
    #[error("@{}: cannot be read: {source}", .path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("@{} line {line_number}: {fault}", .path.display())]
    Line {
        path: PathBuf,
        line_number: usize,
        fault: LineFault,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineFault {
    #[error("a line is --flag value")]
    NoFlag,
    #[error("the flag has no value")]
    NoValue,
    #[error("a flag file cannot name another one")]
    Nested,
    #[error("the closing quote is missing")]
    OpenQuote,
    #[error("something follows the closing quote")]
    BehindQuote,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Vec<FlagLine>, FlagFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FlagFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|(line_number, fault)| FlagFileError::Line {
        path: path.to_owned(),
        line_number,
        fault,
    })
}

fn parse(text: &str) -> Result<Vec<FlagLine>, (usize, LineFault)> {
    let mut flags = Vec::new();
    for (line, line_number) in std::iter::zip(text.lines(), 1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let argument = flag_line(line).map_err(|fault| (line_number, fault))?;
        flags.push(FlagLine {
            argument,
            line_number,
        });
    }
    Ok(flags)
}

/// `line` is trimmed, and neither empty nor a comment.
fn flag_line(line: &str) -> Result<String, LineFault> {
    if line.starts_with('@') {
        return Err(LineFault::Nested);
    }
    let name_octets = line.find(|sign: char| sign == '=' || sign.is_whitespace());
    let (flag, rest) = line.split_at(name_octets.unwrap_or(line.len()));
    if !flag.starts_with("--") || flag.len() == 2 {
        return Err(LineFault::NoFlag);
    }
    // After `--flag=` the value follows at once; after `--flag` blanks may come first.
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = rest.strip_prefix(quote).unwrap_or(rest);
            let (value, behind) = inner.split_once(quote).ok_or(LineFault::OpenQuote)?;
            if !without_comment(behind).is_empty() {
                return Err(LineFault::BehindQuote);
            }
            value
        }
        Some(_) | None => match without_comment(rest) {
            "" => return Err(LineFault::NoValue),
            value => value,
        },
    };
    Ok(format!("{flag}={value}"))
}

/// A `#` begins a comment at the start or behind a blank; inside a word it is itself.
fn without_comment(text: &str) -> &str {
    let mut behind_blank = true;
    for (offset, sign) in text.char_indices() {
        if sign == '#' && behind_blank {
            return text.get(..offset).unwrap_or(text).trim();
        }
        behind_blank = sign.is_whitespace();
    }
    text.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let rows: &[(&str, &str, Result<&str, LineFault>)] = &[
            ("blank between", "--pin yes", Ok("--pin=yes")),
            ("equals sign", "--pin=yes", Ok("--pin=yes")),
            ("many blanks", "--pin \t  yes", Ok("--pin=yes")),
            (
                "a comment behind",
                "--listen 0.0.0.0:25 # all",
                Ok("--listen=0.0.0.0:25"),
            ),
            (
                "a hash in a word",
                "--data-dir /srv/a#b",
                Ok("--data-dir=/srv/a#b"),
            ),
            (
                "double quotes",
                "--greeting \"ESMTP # 'x'\"",
                Ok("--greeting=ESMTP # 'x'"),
            ),
            (
                "single quotes",
                "--greeting 'a \"b\"'",
                Ok("--greeting=a \"b\""),
            ),
            (
                "quotes behind an equals sign",
                "--greeting=\"a b\"",
                Ok("--greeting=a b"),
            ),
            (
                "an unquoted value with blanks",
                "--greeting a b",
                Ok("--greeting=a b"),
            ),
            ("a quoted empty value", "--greeting \"\"", Ok("--greeting=")),
            (
                "quote, then comment",
                "--greeting 'a' # b",
                Ok("--greeting=a"),
            ),
            (
                "an equals sign in the value",
                "--route a=discard",
                Ok("--route=a=discard"),
            ),
            ("no value", "--pin", Err(LineFault::NoValue)),
            (
                "no value behind the equals sign",
                "--pin=",
                Err(LineFault::NoValue),
            ),
            (
                "a comment for a value",
                "--pin # yes",
                Err(LineFault::NoValue),
            ),
            ("no dashes", "pin yes", Err(LineFault::NoFlag)),
            ("one dash", "-p yes", Err(LineFault::NoFlag)),
            ("dashes alone", "-- yes", Err(LineFault::NoFlag)),
            ("another file", "@other", Err(LineFault::Nested)),
            ("an open quote", "--greeting \"a", Err(LineFault::OpenQuote)),
            (
                "a word behind the quote",
                "--greeting 'a' b",
                Err(LineFault::BehindQuote),
            ),
        ];
        for (name, line, expected) in rows {
            assert_eq!(flag_line(line), expected.map(str::to_owned), "{name}");
        }
    }

    #[test]
    fn line_numbers_count_every_line() {
        let flags = parse("# first\n\n  --pin yes\r\n\t# indented\n--sqpoll no\n").unwrap();
        let numbers: Vec<(usize, &str)> = flags
            .iter()
            .map(|flag| (flag.line_number, flag.argument.as_str()))
            .collect();
        assert_eq!(numbers, [(3, "--pin=yes"), (5, "--sqpoll=no")]);
        assert_eq!(parse("--pin yes\n\nfoo\n"), Err((3, LineFault::NoFlag)));
    }
}
