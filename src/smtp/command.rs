//! Reads one command line (RFC 5321 §4.1.1, and the extensions that bring verbs of their own).
//!
//! Apart from the session because the grammar knows no state: whether a command may be given now is
//! the session's question, whether it is one at all is answered here.
//! Invariants:
//! - A command borrows from its line; nothing is allocated but the A-label form of a domain that
//!   came in U-labels.
//! - Every fault names its verb, so that policy by verb (TLS first, AUTH not offered) can be
//!   applied before the fault is reported.
//!
//! Tolerated beyond the grammar, as every large receiver does: spaces behind `FROM:` and `TO:`,
//! and at the end of a line. Not tolerated: paths without angle brackets.

use std::fmt;

use super::parameters::{self, MailParameters, ParameterError};
use super::path::{self, ForwardPath, PathError, ReversePath};

/// What a reply answers: a command, or one of the moments without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// EHLO (RFC 5321 §4.1.1.1).
    Ehlo,
    /// HELO (RFC 5321 §4.1.1.1).
    Helo,
    /// MAIL (RFC 5321 §4.1.1.2).
    Mail,
    /// RCPT (RFC 5321 §4.1.1.3).
    Rcpt,
    /// DATA (RFC 5321 §4.1.1.4).
    Data,
    /// BDAT (RFC 3030 §2).
    Bdat,
    /// RSET (RFC 5321 §4.1.1.5).
    Rset,
    /// NOOP (RFC 5321 §4.1.1.9).
    Noop,
    /// QUIT (RFC 5321 §4.1.1.10).
    Quit,
    /// VRFY (RFC 5321 §4.1.1.6).
    Vrfy,
    /// EXPN (RFC 5321 §4.1.1.7).
    Expn,
    /// HELP (RFC 5321 §4.1.1.8).
    Help,
    /// STARTTLS (RFC 3207 §4).
    StartTls,
    /// AUTH (RFC 4954 §4).
    Auth,
    /// No command: the connection was opened.
    Greeting,
    /// No command: the end of mail data was read.
    EndOfData,
    /// A line that begins with no verb known here.
    Unknown,
}

impl Verb {
    /// Every verb, each at its own [`Verb::index`].
    pub const ALL: &'static [Verb] = &[
        Verb::Ehlo,
        Verb::Helo,
        Verb::Mail,
        Verb::Rcpt,
        Verb::Data,
        Verb::Bdat,
        Verb::Rset,
        Verb::Noop,
        Verb::Quit,
        Verb::Vrfy,
        Verb::Expn,
        Verb::Help,
        Verb::StartTls,
        Verb::Auth,
        Verb::Greeting,
        Verb::EndOfData,
        Verb::Unknown,
    ];

    /// The verb as written on the wire; the moments without a command in lower case.
    pub fn label(self) -> &'static str {
        match self {
            Verb::Ehlo => "EHLO",
            Verb::Helo => "HELO",
            Verb::Mail => "MAIL",
            Verb::Rcpt => "RCPT",
            Verb::Data => "DATA",
            Verb::Bdat => "BDAT",
            Verb::Rset => "RSET",
            Verb::Noop => "NOOP",
            Verb::Quit => "QUIT",
            Verb::Vrfy => "VRFY",
            Verb::Expn => "EXPN",
            Verb::Help => "HELP",
            Verb::StartTls => "STARTTLS",
            Verb::Auth => "AUTH",
            Verb::Greeting => "greeting",
            Verb::EndOfData => "data-end",
            Verb::Unknown => "unknown",
        }
    }

    /// This verb's place in a table with one row a verb.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The verb that `word` spells, in any case (RFC 5321 §2.4).
    pub fn of(word: &[u8]) -> Verb {
        if let Ok(mut word) = <[u8; 4]>::try_from(word) {
            word.make_ascii_uppercase();
            return match &word {
                b"EHLO" => Verb::Ehlo,
                b"HELO" => Verb::Helo,
                b"MAIL" => Verb::Mail,
                b"RCPT" => Verb::Rcpt,
                b"DATA" => Verb::Data,
                b"BDAT" => Verb::Bdat,
                b"RSET" => Verb::Rset,
                b"NOOP" => Verb::Noop,
                b"QUIT" => Verb::Quit,
                b"VRFY" => Verb::Vrfy,
                b"EXPN" => Verb::Expn,
                b"HELP" => Verb::Help,
                b"AUTH" => Verb::Auth,
                _ => Verb::Unknown,
            };
        }
        if word.eq_ignore_ascii_case(b"STARTTLS") {
            Verb::StartTls
        } else {
            Verb::Unknown
        }
    }
}

/// Which octets a transaction's addresses may hold. MAIL says it for itself by its SMTPUTF8
/// parameter; for RCPT the transaction knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// ASCII only.
    Ascii,
    /// UTF-8 too: MAIL came with SMTPUTF8 (RFC 6531 §3.4).
    Utf8,
}

/// A command that follows its grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The name the peer gives itself: a domain, an address literal, or something like one.
    Ehlo(&'a str),
    /// As EHLO, from a peer without extensions.
    Helo(&'a str),
    /// Opens a transaction.
    Mail(Mail<'a>),
    /// Names one more recipient.
    Rcpt(Rcpt<'a>),
    /// Mail data follows the reply, up to its end.
    Data,
    /// `octets` octets of mail data follow this line at once.
    Bdat {
        /// Size of the chunk; more than fits is 2^64 - 1.
        octets: u64,
        /// Whether the chunk ends the mail data.
        last: bool,
    },
    /// Forgets the transaction.
    Rset,
    /// Nothing; its argument is ignored.
    Noop,
    /// Ends the session.
    Quit,
    /// Asks after a mailbox.
    Vrfy(&'a [u8]),
    /// Asks after a mailing list.
    Expn(&'a [u8]),
    /// Asks for help; its argument is ignored.
    Help,
    /// Asks for TLS on this connection.
    StartTls,
    /// Begins authentication.
    Auth {
        /// SASL mechanism, in the case the peer wrote it.
        mechanism: &'a str,
        /// Initial response, still in base64; `=` stands for an empty one (RFC 4954 §4).
        initial: Option<InitialResponse<'a>>,
    },
}

impl Command<'_> {
    /// The verb this command began with.
    pub fn verb(&self) -> Verb {
        match self {
            Command::Ehlo(_) => Verb::Ehlo,
            Command::Helo(_) => Verb::Helo,
            Command::Mail(_) => Verb::Mail,
            Command::Rcpt(_) => Verb::Rcpt,
            Command::Data => Verb::Data,
            Command::Bdat { .. } => Verb::Bdat,
            Command::Rset => Verb::Rset,
            Command::Noop => Verb::Noop,
            Command::Quit => Verb::Quit,
            Command::Vrfy(_) => Verb::Vrfy,
            Command::Expn(_) => Verb::Expn,
            Command::Help => Verb::Help,
            Command::StartTls => Verb::StartTls,
            Command::Auth { .. } => Verb::Auth,
        }
    }
}

/// A MAIL command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail<'a> {
    /// Who gets the bounce.
    pub reverse_path: ReversePath<'a>,
    /// What follows the path.
    pub parameters: MailParameters<'a>,
}

/// A RCPT command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// Who gets the mail.
    pub forward_path: ForwardPath<'a>,
}

/// The initial response of an AUTH command. Holds a password, hence shows nothing in `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InitialResponse<'a>(pub &'a [u8]);

impl fmt::Debug for InitialResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitialResponse(..)")
    }
}

/// Why a line is no command. Always the peer's fault, hence a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No verb known here.
    #[error("command not recognized")]
    Unknown,
    /// The verb wants an argument and has none.
    #[error("{} without its argument", .0.label())]
    ArgumentMissing(Verb),
    /// The verb takes no argument and has one.
    #[error("{} with an argument", .0.label())]
    ArgumentUnexpected(Verb),
    /// The argument does not follow the verb's grammar.
    #[error("{} with a malformed argument", .0.label())]
    Syntax(Verb),
    /// The path holds no mailbox by the grammar, or one over a limit of RFC 5321 §4.5.3.1.
    #[error("{} with a malformed address", .0.label())]
    BadAddress(Verb),
    /// The path holds octets beyond ASCII and the transaction is not SMTPUTF8.
    #[error("{} with an address beyond ASCII outside SMTPUTF8", .0.label())]
    NonAsciiAddress(Verb),
    /// A parameter that nothing in the EHLO reply offers.
    #[error("{} with an unknown parameter", .0.label())]
    UnknownParameter(Verb),
    /// A known parameter with a value outside its grammar.
    #[error("{} with a bad parameter value", .0.label())]
    BadParameter(Verb),
    /// A parameter given twice (RFC 5321 §4.1.1.11 leaves one value each).
    #[error("{} with a parameter twice", .0.label())]
    RepeatedParameter(Verb),
}

impl CommandError {
    /// The verb the line began with.
    pub fn verb(self) -> Verb {
        match self {
            CommandError::Unknown => Verb::Unknown,
            CommandError::ArgumentMissing(verb)
            | CommandError::ArgumentUnexpected(verb)
            | CommandError::Syntax(verb)
            | CommandError::BadAddress(verb)
            | CommandError::NonAsciiAddress(verb)
            | CommandError::UnknownParameter(verb)
            | CommandError::BadParameter(verb)
            | CommandError::RepeatedParameter(verb) => verb,
        }
    }

    /// Reply code (RFC 5321 §4.2.2).
    pub fn code(self) -> u16 {
        match self {
            CommandError::Unknown => 500,
            CommandError::ArgumentMissing(_)
            | CommandError::ArgumentUnexpected(_)
            | CommandError::Syntax(_)
            | CommandError::BadAddress(_)
            | CommandError::BadParameter(_)
            | CommandError::RepeatedParameter(_) => 501,
            // RFC 6531 §3.5: 553 with X.6.7 to MAIL and to RCPT.
            CommandError::NonAsciiAddress(_) => 553,
            // RFC 5321 §4.1.1.11.
            CommandError::UnknownParameter(_) => 555,
        }
    }

    /// Enhanced status code (RFC 3463, RFC 5248).
    pub fn enhanced(self) -> &'static str {
        match self {
            CommandError::Unknown => "5.5.1",
            CommandError::BadAddress(Verb::Mail) => "5.1.7",
            CommandError::BadAddress(_) => "5.1.3",
            CommandError::NonAsciiAddress(_) => "5.6.7",
            CommandError::ArgumentMissing(_)
            | CommandError::ArgumentUnexpected(_)
            | CommandError::Syntax(_)
            | CommandError::UnknownParameter(_)
            | CommandError::BadParameter(_)
            | CommandError::RepeatedParameter(_) => "5.5.4",
        }
    }

    /// Reply text: what would have been right, where a line can say it.
    pub fn text(self) -> &'static str {
        match self {
            CommandError::Unknown => "Command not recognized",
            CommandError::ArgumentMissing(verb)
            | CommandError::ArgumentUnexpected(verb)
            | CommandError::Syntax(verb) => syntax(verb),
            CommandError::BadAddress(Verb::Mail) => "Bad sender address syntax",
            CommandError::BadAddress(_) => "Bad recipient address syntax",
            CommandError::NonAsciiAddress(_) => "Non-ASCII address needs SMTPUTF8",
            CommandError::UnknownParameter(_) => "Parameter not recognized",
            CommandError::BadParameter(_) => "Bad parameter value",
            CommandError::RepeatedParameter(_) => "Parameter given twice",
        }
    }
}

/// The reply text that shows a verb's grammar.
fn syntax(verb: Verb) -> &'static str {
    match verb {
        Verb::Ehlo => "Syntax: EHLO hostname",
        Verb::Helo => "Syntax: HELO hostname",
        Verb::Mail => "Syntax: MAIL FROM:<address>",
        Verb::Rcpt => "Syntax: RCPT TO:<address>",
        Verb::Data => "Syntax: DATA",
        Verb::Bdat => "Syntax: BDAT size [LAST]",
        Verb::Rset => "Syntax: RSET",
        Verb::Noop => "Syntax: NOOP [text]",
        Verb::Quit => "Syntax: QUIT",
        Verb::Vrfy => "Syntax: VRFY address",
        Verb::Expn => "Syntax: EXPN list",
        Verb::Help => "Syntax: HELP [verb]",
        Verb::StartTls => "Syntax: STARTTLS",
        Verb::Auth => "Syntax: AUTH mechanism [initial-response]",
        Verb::Greeting | Verb::EndOfData | Verb::Unknown => "Syntax error",
    }
}

/// Reads `line`, which comes without its CR LF.
pub fn parse(line: &[u8], addresses: Addresses) -> Result<Command<'_>, CommandError> {
    // RFC 5321 §4.1.1: receivers SHOULD tolerate trailing white space.
    let line = trim_end_spaces(line);
    let (word, argument) = match memchr::memchr(b' ', line).and_then(|at| line.split_at_checked(at))
    {
        Some((word, argument)) => (word, argument.get(1..)),
        None => (line, None),
    };
    let verb = Verb::of(word);
    match verb {
        Verb::Ehlo => Ok(Command::Ehlo(peer_name(verb, argument)?)),
        Verb::Helo => Ok(Command::Helo(peer_name(verb, argument)?)),
        Verb::Mail => mail(argument),
        Verb::Rcpt => rcpt(argument, addresses),
        Verb::Data => alone(verb, argument, Command::Data),
        Verb::Bdat => bdat(argument),
        Verb::Rset => alone(verb, argument, Command::Rset),
        Verb::Noop => Ok(Command::Noop),
        Verb::Quit => alone(verb, argument, Command::Quit),
        Verb::Vrfy => Ok(Command::Vrfy(
            argument.ok_or(CommandError::ArgumentMissing(verb))?,
        )),
        Verb::Expn => Ok(Command::Expn(
            argument.ok_or(CommandError::ArgumentMissing(verb))?,
        )),
        Verb::Help => Ok(Command::Help),
        Verb::StartTls => alone(verb, argument, Command::StartTls),
        Verb::Auth => auth(argument),
        Verb::Greeting | Verb::EndOfData | Verb::Unknown => Err(CommandError::Unknown),
    }
}

/// A verb that takes no argument.
fn alone<'a>(
    verb: Verb,
    argument: Option<&[u8]>,
    command: Command<'a>,
) -> Result<Command<'a>, CommandError> {
    match argument {
        None => Ok(command),
        Some(_) => Err(CommandError::ArgumentUnexpected(verb)),
    }
}

/// ```text
/// ehlo = "EHLO" SP ( Domain / address-literal ) CRLF
/// helo = "HELO" SP Domain CRLF
/// ```
/// Looser than that: clients call themselves by whatever their machine is called, and RFC 5321
/// §4.1.4 forbids to refuse mail for a name that does not verify. One printable ASCII word it must
/// be; RFC 6531 §3.7.1 keeps U-labels out of it.
fn peer_name(verb: Verb, argument: Option<&[u8]>) -> Result<&str, CommandError> {
    let name = argument.ok_or(CommandError::ArgumentMissing(verb))?;
    if name.len() > path::DOMAIN_OCTETS_MAX || !name.iter().all(u8::is_ascii_graphic) {
        return Err(CommandError::Syntax(verb));
    }
    std::str::from_utf8(name).map_err(|_| CommandError::Syntax(verb))
}

/// ```text
/// mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
/// ```
fn mail(argument: Option<&[u8]>) -> Result<Command<'_>, CommandError> {
    let verb = Verb::Mail;
    let text = path_text(verb, argument, b"FROM:")?;
    let (reverse_path, rest) = path::reverse_path(text).map_err(|error| path_fault(verb, error))?;
    let parameters =
        parameters::mail_parameters(rest).map_err(|error| parameter_fault(verb, error))?;
    if !parameters.smtputf8 && !before(text, rest).is_ascii() {
        return Err(CommandError::NonAsciiAddress(verb));
    }
    Ok(Command::Mail(Mail {
        reverse_path,
        parameters,
    }))
}

/// ```text
/// rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path )
///        [SP Rcpt-parameters] CRLF
/// ```
fn rcpt(argument: Option<&[u8]>, addresses: Addresses) -> Result<Command<'_>, CommandError> {
    let verb = Verb::Rcpt;
    let text = path_text(verb, argument, b"TO:")?;
    let (forward_path, rest) = path::forward_path(text).map_err(|error| path_fault(verb, error))?;
    parameters::rcpt_parameters(rest).map_err(|error| parameter_fault(verb, error))?;
    if addresses == Addresses::Ascii && !before(text, rest).is_ascii() {
        return Err(CommandError::NonAsciiAddress(verb));
    }
    Ok(Command::Rcpt(Rcpt { forward_path }))
}

/// ```text
/// bdat-cmd   = "BDAT" SP chunk-size [ SP end-marker ] CR LF
/// chunk-size = 1*DIGIT
/// end-marker = "LAST"
/// ```
fn bdat(argument: Option<&[u8]>) -> Result<Command<'_>, CommandError> {
    let argument = argument.ok_or(CommandError::ArgumentMissing(Verb::Bdat))?;
    let (size, last) =
        match memchr::memchr(b' ', argument).and_then(|at| argument.split_at_checked(at)) {
            None => (argument, false),
            Some((size, marker)) if marker.eq_ignore_ascii_case(b" LAST") => (size, true),
            Some(_) => return Err(CommandError::Syntax(Verb::Bdat)),
        };
    let octets = parameters::decimal(size).ok_or(CommandError::Syntax(Verb::Bdat))?;
    Ok(Command::Bdat { octets, last })
}

/// ```text
/// auth-command = "AUTH" SP sasl-mech [SP initial-response] *(CRLF [base64]) [CRLF cancel-response]
/// sasl-mech    = 1*20(%x41-5A / DIGIT / "-" / "_")      ; RFC 4422 §3.1, here in any case
/// ```
/// Base64 is left to whoever decodes it.
fn auth(argument: Option<&[u8]>) -> Result<Command<'_>, CommandError> {
    let argument = argument.ok_or(CommandError::ArgumentMissing(Verb::Auth))?;
    let (mechanism, initial) =
        match memchr::memchr(b' ', argument).and_then(|at| argument.split_at_checked(at)) {
            None => (argument, None),
            Some((mechanism, initial)) => (mechanism, initial.get(1..)),
        };
    let mechanism_holds = (1..=20).contains(&mechanism.len())
        && mechanism
            .iter()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(octet));
    let initial_holds = initial.is_none_or(|initial| initial.iter().all(u8::is_ascii_graphic));
    if !mechanism_holds || !initial_holds {
        return Err(CommandError::Syntax(Verb::Auth));
    }
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| CommandError::Syntax(Verb::Auth))?;
    Ok(Command::Auth {
        mechanism,
        initial: initial.map(InitialResponse),
    })
}

/// What follows `FROM:` or `TO:`, spaces skipped.
fn path_text<'a>(
    verb: Verb,
    argument: Option<&'a [u8]>,
    keyword: &[u8],
) -> Result<&'a str, CommandError> {
    let argument = argument.ok_or(CommandError::ArgumentMissing(verb))?;
    match argument.split_at_checked(keyword.len()) {
        Some((word, path)) if word.eq_ignore_ascii_case(keyword) => {
            // RFC 5321 §3.3: no space here by the grammar, and half the world's scripts put one.
            let path = trim_start_spaces(path);
            std::str::from_utf8(path).map_err(|_| CommandError::BadAddress(verb))
        }
        _ => Err(CommandError::Syntax(verb)),
    }
}

fn path_fault(verb: Verb, error: PathError) -> CommandError {
    match error {
        PathError::NoBrackets => CommandError::Syntax(verb),
        PathError::Malformed | PathError::TooLong => CommandError::BadAddress(verb),
    }
}

fn parameter_fault(verb: Verb, error: ParameterError) -> CommandError {
    match error {
        ParameterError::NoSpace => CommandError::Syntax(verb),
        ParameterError::Unknown => CommandError::UnknownParameter(verb),
        ParameterError::Bad => CommandError::BadParameter(verb),
        ParameterError::Repeated => CommandError::RepeatedParameter(verb),
    }
}

/// The part of `text` in front of `rest`, which is its end.
fn before<'a>(text: &'a str, rest: &str) -> &'a str {
    text.get(..text.len() - rest.len()).unwrap_or(text)
}

fn trim_start_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

fn trim_end_spaces(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = line {
        line = rest;
    }
    line
}
