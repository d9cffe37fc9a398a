//! What went wrong, by kind and reply code.
//!
//! Invariant: what a peer says is never a key, so a peer cannot grow the table: a code has three digits, and
//! all else is ours.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use ringpost::smtp::client::{Cause, Failure};

use super::figures::ErrorFigures;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection came about.
    Connect(io::ErrorKind),
    /// The connection broke.
    Broken(io::ErrorKind),
    /// No TLS came about.
    Handshake,
    /// The server refused service, or the message, with this reply code.
    Reply(u16),
    /// All else that ends a session.
    Session(&'static str),
}

impl ErrorKind {
    /// Of what the protocol core found.
    pub fn of(failure: &Failure) -> ErrorKind {
        if let Some(reply) = &failure.reply {
            return ErrorKind::Reply(reply.code);
        }
        ErrorKind::Session(match failure.cause {
            Cause::Refused => "refused",
            Cause::Closed => "closed by the server",
            Cause::Timeout => "no reply in time",
            Cause::Protocol => "not SMTP",
            Cause::Injection => "octets in clear behind STARTTLS",
            Cause::NoTls => "STARTTLS is not offered",
            Cause::Login => "login impossible",
            Cause::TooManyRecipients => "too many recipients",
            Cause::Unsendable | Cause::Content => "message not fit for this server",
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Connect(kind) => write!(formatter, "cannot connect: {kind}"),
            ErrorKind::Broken(kind) => write!(formatter, "connection broken: {kind}"),
            ErrorKind::Handshake => formatter.write_str("TLS handshake failed"),
            ErrorKind::Reply(code) => write!(formatter, "reply {code}"),
            ErrorKind::Session(what) => formatter.write_str(what),
        }
    }
}

/// How often what went wrong, and the words of the first of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<ErrorKind, Seen>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    times: u64,
    first: Box<str>,
}

impl Errors {
    /// Counts one. Its words are asked for once a kind.
    pub fn count<Words: fmt::Display>(&mut self, kind: ErrorKind, words: Words) {
        let seen = self.0.entry(kind).or_insert_with(|| Seen {
            times: 0,
            first: words.to_string().into(),
        });
        seen.times += 1;
    }

    /// Adds all of another table.
    pub fn add(&mut self, other: Errors) {
        for (kind, others) in other.0 {
            match self.0.get_mut(&kind) {
                Some(seen) => seen.times += others.times,
                None => drop(self.0.insert(kind, others)),
            }
        }
    }

    /// As figures, by what the kinds are called.
    pub fn figures(&self) -> BTreeMap<String, ErrorFigures> {
        let figures = self.iter().map(|(kind, times, first)| {
            let first = first.to_owned();
            (kind.to_string(), ErrorFigures { times, first })
        });
        figures.collect()
    }

    /// Each kind, how often, and the words of the first.
    pub fn iter(&self) -> impl Iterator<Item = (&ErrorKind, u64, &str)> {
        let seen = self.0.iter();
        seen.map(|(kind, seen)| (kind, seen.times, &*seen.first))
    }
}
