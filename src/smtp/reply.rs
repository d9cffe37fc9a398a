//! Replies: what one is, the one gate they all leave by, and what is told to whoever counts them.
//!
//! Apart from the session because every reply must be written, counted and logged in the same
//! way, and because all replies to one batch of input leave together (RFC 2920 §3.2).
//! Invariants:
//! - A reply is in the output exactly when the witness was told of it.
//! - A reply to a pipelined group never waits for the next group: the caller sends what gathered
//!   here as soon as the session wants something.
//!
//! Not promised: that the peer ever reads it. Sending is the caller's business.

use std::time::Instant;

use super::command::Verb;
use super::envelope::Envelope;

/// A reply without what only the moment knows (a host name, a queue id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code (RFC 5321 §4.2.1).
    pub code: u16,
    /// The enhanced status code (RFC 3463, RFC 2034), empty where none belongs: 220 as greeting,
    /// 250 to EHLO and HELO, 334, 354.
    pub enhanced: &'static str,
    /// What follows, for people.
    pub text: &'static str,
    /// Why, if this reply refuses something.
    pub refusal: Option<Refusal>,
}

impl Reply {
    /// A reply that grants what was asked.
    pub const fn good(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
        Reply {
            code,
            enhanced,
            text,
            refusal: None,
        }
    }

    /// A reply that refuses it.
    pub const fn refusal(
        code: u16,
        enhanced: &'static str,
        text: &'static str,
        refusal: Refusal,
    ) -> Reply {
        Reply {
            code,
            enhanced,
            text,
            refusal: Some(refusal),
        }
    }
}

/// Why something was refused: the reason a metric names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The command or its argument does not follow the grammar.
    Syntax,
    /// A command or an exchange line longer than its limit, or one that does not end in CR LF.
    Line,
    /// The command may not come at this point.
    Sequence,
    /// The command or the mechanism does not exist here, or not on this channel.
    NotImplemented,
    /// A parameter that is not known, or known with a bad value.
    Parameter,
    /// An address this transaction may not carry (RFC 6531 §3.5).
    Address,
    /// A recipient elsewhere, named by a client that may not relay.
    Relay,
    /// A recipient of a local domain that does not exist.
    UnknownRecipient,
    /// One recipient more than a transaction takes.
    TooManyRecipients,
    /// The message is, or says it is, larger than the limit.
    TooLarge,
    /// A lone CR or LF in mail data that may have none.
    StrayNewline,
    /// The message went round too often.
    Loop,
    /// The process holds as much mail data as it may.
    MailDataMemory,
    /// The message could not be put away.
    CommitFailed,
    /// The next hop, to which the message was passed on at once, will never take it.
    NextHop,
    /// MAIL before AUTH on a channel for the authenticated only.
    AuthRequired,
    /// A command in clear where TLS is required.
    TlsRequired,
    /// The credentials are not good.
    AuthFailed,
    /// The credentials could not be checked.
    AuthUnavailable,
    /// No TLS to be had at the moment.
    TlsUnavailable,
    /// Octets came in clear behind STARTTLS. Ends the session without a reply.
    Injection,
    /// The session reached its number of errors.
    TooManyErrors,
    /// The peer was silent, or there, for too long.
    Timeout,
    /// The server is going down.
    Draining,
}

impl Refusal {
    /// All of them, by [`Refusal::index`].
    pub const ALL: &'static [Refusal] = &[
        Refusal::Syntax,
        Refusal::Line,
        Refusal::Sequence,
        Refusal::NotImplemented,
        Refusal::Parameter,
        Refusal::Address,
        Refusal::Relay,
        Refusal::UnknownRecipient,
        Refusal::TooManyRecipients,
        Refusal::TooLarge,
        Refusal::StrayNewline,
        Refusal::Loop,
        Refusal::MailDataMemory,
        Refusal::CommitFailed,
        Refusal::NextHop,
        Refusal::AuthRequired,
        Refusal::TlsRequired,
        Refusal::AuthFailed,
        Refusal::AuthUnavailable,
        Refusal::TlsUnavailable,
        Refusal::Injection,
        Refusal::TooManyErrors,
        Refusal::Timeout,
        Refusal::Draining,
    ];

    /// Its place in [`Refusal::ALL`], for tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name a metric gives it.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::Syntax => "syntax",
            Refusal::Line => "line",
            Refusal::Sequence => "sequence",
            Refusal::NotImplemented => "not-implemented",
            Refusal::Parameter => "parameter",
            Refusal::Address => "address",
            Refusal::Relay => "relay",
            Refusal::UnknownRecipient => "unknown-recipient",
            Refusal::TooManyRecipients => "too-many-recipients",
            Refusal::TooLarge => "too-large",
            Refusal::StrayNewline => "stray-newline",
            Refusal::Loop => "loop",
            Refusal::MailDataMemory => "mail-data-memory",
            Refusal::CommitFailed => "commit-failed",
            Refusal::NextHop => "next-hop",
            Refusal::AuthRequired => "auth-required",
            Refusal::TlsRequired => "tls-required",
            Refusal::AuthFailed => "auth-failed",
            Refusal::AuthUnavailable => "auth-unavailable",
            Refusal::TlsUnavailable => "tls-unavailable",
            Refusal::Injection => "injection",
            Refusal::TooManyErrors => "too-many-errors",
            Refusal::Timeout => "timeout",
            Refusal::Draining => "draining",
        }
    }

    /// Whether it is an error of the peer's, of which a session has a limited number.
    ///
    /// What we ran out of is not the peer's fault. Nor is a recipient past the limit: RFC 5321
    /// §4.5.3.1.10 has the client send what was accepted and the others in a transaction of
    /// their own, and a pipelining client names all of them before it reads the first 452.
    pub const fn is_error_of_peer(self) -> bool {
        match self {
            Refusal::Syntax
            | Refusal::Line
            | Refusal::Sequence
            | Refusal::NotImplemented
            | Refusal::Parameter
            | Refusal::Address
            | Refusal::Relay
            | Refusal::UnknownRecipient
            | Refusal::TooLarge
            | Refusal::StrayNewline
            | Refusal::Loop
            | Refusal::AuthRequired
            | Refusal::TlsRequired
            | Refusal::AuthFailed => true,
            Refusal::TooManyRecipients
            | Refusal::MailDataMemory
            | Refusal::CommitFailed
            | Refusal::NextHop
            | Refusal::AuthUnavailable
            | Refusal::TlsUnavailable
            | Refusal::Injection
            | Refusal::TooManyErrors
            | Refusal::Timeout
            | Refusal::Draining => false,
        }
    }
}

/// Is told what happens in a dialogue, as it happens: counts and logs it.
pub trait Witness {
    /// A reply to `verb` was written.
    fn replied(&self, verb: Verb, code: u16, refusal: Option<Refusal>);

    /// A transaction came to its end.
    fn transaction(&self, record: &TransactionRecord<'_>);

    /// The session was ended without a reply ([`Refusal::Injection`]).
    fn ended(&self, refusal: Refusal);

    /// The peer gave itself this name, in EHLO or HELO.
    fn greeted(&self, _name: &str) {}

    /// AUTH proved this name.
    fn authenticated(&self, _name: &str) {}
}

/// A transaction that has ended.
#[derive(Clone, Copy, Debug)]
pub struct TransactionRecord<'a> {
    /// Reverse-path, forward-paths and parameters as far as they were accepted.
    pub envelope: &'a Envelope,
    /// Octets of mail data received, dot stuffing undone.
    pub octets: u64,
    /// How it ended.
    pub outcome: Outcome<'a>,
    /// When MAIL was accepted.
    pub started: Instant,
    /// When the final reply was written.
    pub ended: Instant,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// 250 to the end of data: accepted under this queue id.
    Accepted(&'a str),
    /// The end of data was answered with this code.
    Refused(u16),
    /// RSET, EHLO, STARTTLS, QUIT, a 421 or the end of the connection came first.
    Abandoned,
}

/// Gathers the replies to one batch of input.
pub struct Output<'w> {
    octets: Vec<u8>,
    witness: &'w dyn Witness,
}

impl<'w> Output<'w> {
    /// Appends to `octets`, a buffer that is used again and again.
    pub fn new(octets: Vec<u8>, witness: &'w dyn Witness) -> Output<'w> {
        Output { octets, witness }
    }

    /// Gives the buffer with all replies back.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// How many octets wait to be sent.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Writes `reply` to `verb`.
    pub fn reply(&mut self, verb: Verb, reply: Reply) {
        self.reply_with(verb, reply, "", "");
    }

    /// Writes `reply` with `before` and `after` around its text: the host name of a 421, the
    /// queue id of a 250.
    pub fn reply_with(&mut self, verb: Verb, reply: Reply, before: &str, after: &str) {
        self.push_code(reply.code, b' ');
        let mut pieces = [reply.enhanced, before, reply.text, after]
            .into_iter()
            .filter(|piece| !piece.is_empty());
        if let Some(first) = pieces.next() {
            self.octets.extend_from_slice(first.as_bytes());
        }
        for piece in pieces {
            self.octets.push(b' ');
            self.octets.extend_from_slice(piece.as_bytes());
        }
        self.octets.extend_from_slice(b"\r\n");
        self.witness.replied(verb, reply.code, reply.refusal);
    }

    /// Writes a reply of several lines (RFC 5321 §4.2.1): all but the last have `-` behind the
    /// code. `lines` calls what it is given once a line, with the pieces the line is made of.
    pub fn reply_lines(
        &mut self,
        verb: Verb,
        code: u16,
        lines: impl FnOnce(&mut dyn FnMut(&[&str])),
    ) {
        let mut last_line_at = None;
        lines(&mut |pieces| {
            last_line_at = Some(self.octets.len());
            self.push_code(code, b'-');
            for piece in pieces {
                self.octets.extend_from_slice(piece.as_bytes());
            }
            self.octets.extend_from_slice(b"\r\n");
        });
        // Which line is the last is known afterwards only.
        if let Some(mark) = last_line_at.and_then(|at| self.octets.get_mut(at + CODE_OCTETS)) {
            *mark = b' ';
        }
        self.witness.replied(verb, code, None);
    }

    /// Passes the end of a transaction on to the witness.
    pub fn transaction(&self, record: &TransactionRecord<'_>) {
        self.witness.transaction(record);
    }

    /// Passes the end of a session without a reply on to the witness.
    pub fn ended(&self, refusal: Refusal) {
        self.witness.ended(refusal);
    }

    /// Passes the peer's name for itself on to the witness.
    pub fn greeted(&self, name: &str) {
        self.witness.greeted(name);
    }

    /// Passes the name that AUTH proved on to the witness.
    pub fn authenticated(&self, name: &str) {
        self.witness.authenticated(name);
    }

    fn push_code(&mut self, code: u16, mark: u8) {
        debug_assert!(
            (200..600).contains(&code),
            "RFC 5321 §4.2: codes have three digits"
        );
        let digit = |place| {
            let digit = b"0123456789".get(usize::from(code / place % 10));
            digit.copied().unwrap_or_default()
        };
        self.octets
            .extend_from_slice(&[digit(100), digit(10), digit(1), mark]);
    }
}

/// Octets of a reply code; the mark (space or `-`) comes behind them.
const CODE_OCTETS: usize = 3;

/// The session stops reading commands while more than this waits to be sent. A peer that sends
/// commands and reads no replies thus costs a bounded buffer. 32 KiB hold the replies to about a
/// thousand pipelined RCPTs.
pub const OUTPUT_OCTETS_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct Seen(RefCell<Vec<(Verb, u16, Option<Refusal>)>>);

    impl Witness for Seen {
        fn replied(&self, verb: Verb, code: u16, refusal: Option<Refusal>) {
            self.0.borrow_mut().push((verb, code, refusal));
        }
        fn transaction(&self, _: &TransactionRecord<'_>) {}
        fn ended(&self, _: Refusal) {}
    }

    #[test]
    fn replies_are_written_and_witnessed() {
        let full = Reply::refusal(421, "4.3.2", "Going down", Refusal::Draining);
        let bare = Reply::good(334, "", "");
        let named = Reply::good(250, "2.0.0", "Ok: queued as");
        let rows: [(&str, Reply, &str, &str, &str); 4] = [
            (
                "a host name before",
                full,
                "mx.test",
                "",
                "421 4.3.2 mx.test Going down\r\n",
            ),
            (
                "an id behind",
                named,
                "",
                "ABC",
                "250 2.0.0 Ok: queued as ABC\r\n",
            ),
            // RFC 4954 §4: an empty challenge is "334" SP.
            (
                "an empty challenge keeps its space",
                bare,
                "",
                "",
                "334 \r\n",
            ),
            (
                "only a name",
                Reply::good(250, "", ""),
                "mx.test",
                "",
                "250 mx.test\r\n",
            ),
        ];
        for (name, reply, before, after, wanted) in rows {
            let seen = Seen::default();
            let mut out = Output::new(Vec::new(), &seen);
            out.reply_with(Verb::Noop, reply, before, after);
            assert_eq!(
                String::from_utf8(out.into_octets()).unwrap(),
                wanted,
                "{name}"
            );
            assert_eq!(
                seen.0.into_inner(),
                [(Verb::Noop, reply.code, reply.refusal)],
                "{name}"
            );
        }
    }

    #[test]
    fn only_the_last_line_has_a_space() {
        let seen = Seen::default();
        let mut out = Output::new(b"before\r\n".to_vec(), &seen);
        out.reply_lines(Verb::Ehlo, 250, |line| {
            line(&["mx.test"]);
            line(&["SIZE ", "10"]);
            line(&["LIMITS RCPTMAX=", "7"]);
        });
        assert_eq!(
            out.into_octets(),
            b"before\r\n250-mx.test\r\n250-SIZE 10\r\n250 LIMITS RCPTMAX=7\r\n"
        );
        assert_eq!(seen.0.into_inner(), [(Verb::Ehlo, 250, None)]);
    }

    #[test]
    fn refusals_know_their_place() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index, "{refusal:?}");
        }
    }
}
