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
//! and white space at the end of a line. Not tolerated: paths without angle brackets.

use std::fmt;

use super::parameters::{self, MailParameters, ParameterError, RcptParameters};
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
    /// What follows the path.
    pub parameters: RcptParameters<'a>,
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
            // RFC 6531 §3.5: 550 to MAIL ("mailbox unavailable"), 553 to RCPT ("mailbox name not
            // allowed"), both with X.6.7.
            CommandError::NonAsciiAddress(Verb::Mail) => 550,
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
    let line = trim_end_white_space(line);
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
    let parameters = parameters::rcpt_parameters(rest, addresses)
        .map_err(|error| parameter_fault(verb, error))?;
    if addresses == Addresses::Ascii && !before(text, rest).is_ascii() {
        return Err(CommandError::NonAsciiAddress(verb));
    }
    Ok(Command::Rcpt(Rcpt {
        forward_path,
        parameters,
    }))
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

fn trim_end_white_space(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::dsn::{Notify, Ret};
    use super::super::envelope::Body;
    use super::*;

    fn ascii(line: &[u8]) -> Result<Command<'_>, CommandError> {
        parse(line, Addresses::Ascii)
    }

    #[test]
    fn verbs_stand_at_their_index_under_labels_of_their_own() {
        for (at, verb) in Verb::ALL.iter().enumerate() {
            assert_eq!(verb.index(), at, "{}", verb.label());
            let same = Verb::ALL
                .iter()
                .filter(|other| other.label() == verb.label());
            assert_eq!(same.count(), 1, "{}", verb.label());
        }
    }

    #[test]
    fn plain_commands_are_read() {
        let auth = |mechanism, initial: Option<&'static [u8]>| Command::Auth {
            mechanism,
            initial: initial.map(InitialResponse),
        };
        let bdat = |octets, last| Command::Bdat { octets, last };
        let longest = format!("EHLO {}", "x".repeat(255));
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &[u8], Command<'_>)] = &[
            ("EHLO with a domain", b"EHLO mx.example", Command::Ehlo("mx.example")),
            ("verbs in any case", b"eHlO mx.example", Command::Ehlo("mx.example")),
            ("EHLO with a literal", b"EHLO [192.0.2.1]", Command::Ehlo("[192.0.2.1]")),
            ("EHLO with IPv6", b"EHLO [IPv6:::1]", Command::Ehlo("[IPv6:::1]")),
            ("EHLO with an underscore", b"EHLO my_pc", Command::Ehlo("my_pc")),
            ("EHLO with an odd name", b"EHLO (none)", Command::Ehlo("(none)")),
            ("EHLO of 255 octets", longest.as_bytes(), Command::Ehlo(&longest[5..])),
            ("HELO", b"HELO a", Command::Helo("a")),
            ("trailing spaces", b"HELO a   ", Command::Helo("a")),
            ("trailing white space", b"RSET \t", Command::Rset),
            ("DATA", b"DATA", Command::Data),
            ("DATA and a space", b"data ", Command::Data),
            ("BDAT", b"BDAT 86", bdat(86, false)),
            ("BDAT LAST", b"BDAT 0 last", bdat(0, true)),
            ("BDAT of more than 64 bits", b"BDAT 99999999999999999999", bdat(u64::MAX, false)),
            ("RSET", b"RSET", Command::Rset),
            ("NOOP", b"NOOP", Command::Noop),
            ("NOOP with an argument", b"NOOP \xff anything", Command::Noop),
            ("QUIT", b"QUIT", Command::Quit),
            ("VRFY", b"VRFY a b", Command::Vrfy(b"a b")),
            ("EXPN", b"EXPN list", Command::Expn(b"list")),
            ("HELP", b"HELP", Command::Help),
            ("HELP with an argument", b"HELP MAIL", Command::Help),
            ("STARTTLS", b"starttls", Command::StartTls),
            ("AUTH", b"AUTH LOGIN", auth("LOGIN", None)),
            ("AUTH with a response", b"AUTH plain AGEAYg==", auth("plain", Some(b"AGEAYg=="))),
            ("AUTH with an empty response", b"AUTH X-Y_1 =", auth("X-Y_1", Some(b"="))),
        ];
        for (name, line, command) in rows {
            assert_eq!(ascii(line).as_ref(), Ok(command), "{name}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        use CommandError::{
            ArgumentMissing, ArgumentUnexpected, BadAddress, BadParameter, NonAsciiAddress,
            RepeatedParameter, Syntax, Unknown, UnknownParameter,
        };
        let utf8_mail = "MAIL FROM:<ü@b>".as_bytes();
        let utf8_route = "MAIL FROM:<@bü.example:a@b>".as_bytes();
        let utf8_rcpt = "RCPT TO:<ü@b>".as_bytes();
        let utf8_orcpt = "RCPT TO:<a@b> ORCPT=utf-8;ü@b".as_bytes();
        let too_long = format!("EHLO {}", "x".repeat(256));
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &[u8], CommandError, &str)] = &[
            ("nothing", b"", Unknown, "500 5.5.1"),
            ("spaces", b"   ", Unknown, "500 5.5.1"),
            ("an unknown verb", b"XYZZY a", Unknown, "500 5.5.1"),
            ("a space in front", b" NOOP", Unknown, "500 5.5.1"),
            ("a tab for a space", b"HELO\ta", Unknown, "500 5.5.1"),
            ("a verb and more", b"DATAX", Unknown, "500 5.5.1"),
            ("an HTTP request", b"GET / HTTP/1.1", Unknown, "500 5.5.1"),
            ("a label of no command", b"greeting", Unknown, "500 5.5.1"),
            ("a NUL in the verb", b"NOO\0", Unknown, "500 5.5.1"),
            ("EHLO without a name", b"EHLO", ArgumentMissing(Verb::Ehlo), "501 5.5.4"),
            ("HELO with a space for a name", b"HELO ", ArgumentMissing(Verb::Helo), "501 5.5.4"),
            ("EHLO with two names", b"EHLO a b", Syntax(Verb::Ehlo), "501 5.5.4"),
            ("EHLO with two spaces", b"EHLO  a", Syntax(Verb::Ehlo), "501 5.5.4"),
            ("EHLO with a control octet", b"EHLO a\rb", Syntax(Verb::Ehlo), "501 5.5.4"),
            ("EHLO with NUL", b"EHLO a\0", Syntax(Verb::Ehlo), "501 5.5.4"),
            ("EHLO with U-labels", "EHLO bü.example".as_bytes(), Syntax(Verb::Ehlo), "501 5.5.4"),
            ("EHLO of 256 octets", too_long.as_bytes(), Syntax(Verb::Ehlo), "501 5.5.4"),
            ("DATA with an argument", b"DATA x", ArgumentUnexpected(Verb::Data), "501 5.5.4"),
            ("RSET with an argument", b"RSET x", ArgumentUnexpected(Verb::Rset), "501 5.5.4"),
            ("QUIT with an argument", b"QUIT x", ArgumentUnexpected(Verb::Quit), "501 5.5.4"),
            ("STARTTLS x", b"STARTTLS x", ArgumentUnexpected(Verb::StartTls), "501 5.5.4"),
            ("VRFY alone", b"VRFY", ArgumentMissing(Verb::Vrfy), "501 5.5.4"),
            ("EXPN alone", b"EXPN", ArgumentMissing(Verb::Expn), "501 5.5.4"),
            ("AUTH alone", b"AUTH", ArgumentMissing(Verb::Auth), "501 5.5.4"),
            ("AUTH with three words", b"AUTH PLAIN a b", Syntax(Verb::Auth), "501 5.5.4"),
            ("AUTH with a bad mechanism", b"AUTH PL:AIN", Syntax(Verb::Auth), "501 5.5.4"),
            ("AUTH with 21 octets", b"AUTH AAAAAAAAAABBBBBBBBBBC", Syntax(Verb::Auth), "501 5.5.4"),
            ("BDAT alone", b"BDAT", ArgumentMissing(Verb::Bdat), "501 5.5.4"),
            ("BDAT without a size", b"BDAT LAST", Syntax(Verb::Bdat), "501 5.5.4"),
            ("BDAT below zero", b"BDAT -1", Syntax(Verb::Bdat), "501 5.5.4"),
            ("BDAT with another marker", b"BDAT 1 FIRST", Syntax(Verb::Bdat), "501 5.5.4"),
            ("BDAT LAST twice", b"BDAT 1 LAST LAST", Syntax(Verb::Bdat), "501 5.5.4"),
            ("BDAT of 21 digits", b"BDAT 000000000000000000001", Syntax(Verb::Bdat), "501 5.5.4"),
            ("MAIL alone", b"MAIL", ArgumentMissing(Verb::Mail), "501 5.5.4"),
            ("MAIL without FROM", b"MAIL <a@b>", Syntax(Verb::Mail), "501 5.5.4"),
            ("MAIL with a space in FROM:", b"MAIL FROM :<a@b>", Syntax(Verb::Mail), "501 5.5.4"),
            ("MAIL without brackets", b"MAIL FROM:a@b", Syntax(Verb::Mail), "501 5.5.4"),
            ("MAIL without a path", b"MAIL FROM:", Syntax(Verb::Mail), "501 5.5.4"),
            ("MAIL glued to SIZE", b"MAIL FROM:<a@b>SIZE=1", Syntax(Verb::Mail), "501 5.5.4"),
            ("MAIL with a half path", b"MAIL FROM:<a@b", BadAddress(Verb::Mail), "501 5.1.7"),
            ("MAIL without a domain", b"MAIL FROM:<a>", BadAddress(Verb::Mail), "501 5.1.7"),
            ("MAIL from the bare postmaster", b"MAIL FROM:<postmaster>", BadAddress(Verb::Mail), "501 5.1.7"),
            ("MAIL in Latin-1", b"MAIL FROM:<\xfc@b>", BadAddress(Verb::Mail), "501 5.1.7"),
            ("MAIL in overlong UTF-8", b"MAIL FROM:<\xc0\xae@b> SMTPUTF8", BadAddress(Verb::Mail), "501 5.1.7"),
            ("MAIL in UTF-8 without SMTPUTF8", utf8_mail, NonAsciiAddress(Verb::Mail), "550 5.6.7"),
            ("MAIL with a U-label in its route", utf8_route, NonAsciiAddress(Verb::Mail), "550 5.6.7"),
            ("an unknown parameter", b"MAIL FROM:<a@b> REQUIRETLS", UnknownParameter(Verb::Mail), "555 5.5.4"),
            ("a bad value", b"MAIL FROM:<a@b> SIZE=x", BadParameter(Verb::Mail), "501 5.5.4"),
            ("a parameter twice", b"MAIL FROM:<a@b> SIZE=1 SIZE=1", RepeatedParameter(Verb::Mail), "501 5.5.4"),
            ("RCPT alone", b"RCPT", ArgumentMissing(Verb::Rcpt), "501 5.5.4"),
            ("RCPT FROM", b"RCPT FROM:<a@b>", Syntax(Verb::Rcpt), "501 5.5.4"),
            ("RCPT to nobody", b"RCPT TO:<>", BadAddress(Verb::Rcpt), "501 5.1.3"),
            ("RCPT with a line feed", b"RCPT TO:<a\n@b>", BadAddress(Verb::Rcpt), "501 5.1.3"),
            ("RCPT in UTF-8 outside SMTPUTF8", utf8_rcpt, NonAsciiAddress(Verb::Rcpt), "553 5.6.7"),
            ("RCPT with a parameter of MAIL", b"RCPT TO:<a@b> SIZE=1", UnknownParameter(Verb::Rcpt), "555 5.5.4"),
            ("RCPT with a bad value", b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", BadParameter(Verb::Rcpt), "501 5.5.4"),
            ("RCPT with a parameter twice", b"RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", RepeatedParameter(Verb::Rcpt), "501 5.5.4"),
            ("ORCPT in UTF-8 outside SMTPUTF8", utf8_orcpt, BadParameter(Verb::Rcpt), "501 5.5.4"),
            ("RCPT with a malformed parameter", b"RCPT TO:<a@b> =", BadParameter(Verb::Rcpt), "501 5.5.4"),
        ];
        for (name, line, error, reply) in rows {
            let found = ascii(line);
            assert_eq!(found.as_ref(), Err(error), "{name}");
            assert_eq!(
                format!("{} {}", error.code(), error.enhanced()),
                *reply,
                "{name}"
            );
            assert!(
                !error.text().is_empty() && error.text().is_ascii(),
                "{name}"
            );
        }
    }

    #[test]
    fn mail_gives_path_and_parameters() {
        let none = MailParameters::default();
        let utf8 = MailParameters {
            smtputf8: true,
            ..none.clone()
        };
        let all = MailParameters {
            declared_octets: Some(100),
            body: Some(Body::EightBitMime),
            smtputf8: true,
            auth: Some("<>"),
            ret: Some(Ret::Headers),
            envid: Some("QQ314159"),
        };
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, &str, MailParameters<'_>)] = &[
            ("plain", "MAIL FROM:<a@b.example>", "a@b.example", none.clone()),
            ("any case", "mail from:<a@b.example>", "a@b.example", none.clone()),
            ("null", "MAIL FROM:<>", "", none.clone()),
            ("a space in front of the path", "MAIL FROM: <a@b>", "a@b", none.clone()),
            ("spaces behind", "MAIL FROM:<a@b>  ", "a@b", none.clone()),
            ("a source route", "MAIL FROM:<@x,@y:a@b>", "a@b", none.clone()),
            ("all parameters", "MAIL FROM:<> size=100 BODY=8bitmime AUTH=<> smtputf8 RET=HDRS ENVID=QQ314159", "", all),
            ("UTF-8 under SMTPUTF8", "MAIL FROM:<ü@bü.example> SMTPUTF8", "ü@bü.example", utf8),
        ];
        for (name, line, address, parameters) in rows {
            let Ok(Command::Mail(mail)) = ascii(line.as_bytes()) else {
                panic!("{name}")
            };
            let found = match &mail.reverse_path {
                ReversePath::Null => "",
                ReversePath::Mailbox(mailbox) => mailbox.as_given(),
            };
            assert_eq!((found, &mail.parameters), (*address, parameters), "{name}");
        }
    }

    #[test]
    fn rcpt_gives_path_and_parameters() {
        let none = RcptParameters::default();
        let all = RcptParameters {
            notify: Some(Notify::NEVER),
            orcpt: Some("utf-8;ü@c"),
        };
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, &str, RcptParameters<'_>)] = &[
            ("plain", "RCPT TO:<a@b.example>", "a@b.example", none.clone()),
            ("a space in front of the path", "RCPT TO: <a@b>", "a@b", none.clone()),
            ("the postmaster", "rcpt to:<PostMaster>", "postmaster", none.clone()),
            ("a postmaster", "RCPT TO:<postmaster@b>", "postmaster@b", none.clone()),
            ("UTF-8 in an SMTPUTF8 transaction", "RCPT TO:<ü@b>", "ü@b", none.clone()),
            ("a quoted at sign", "RCPT TO:<\"a@b\"@c>", "\"a@b\"@c", none.clone()),
            ("the percent hack is a local part", "RCPT TO:<a%b@c>", "a%b@c", none),
            ("all parameters", "RCPT TO:<a@b> ORCPT=utf-8;ü@c notify=never", "a@b", all),
        ];
        for (name, line, address, parameters) in rows {
            let Ok(Command::Rcpt(rcpt)) = parse(line.as_bytes(), Addresses::Utf8) else {
                panic!("{name}")
            };
            let found = match &rcpt.forward_path {
                ForwardPath::Postmaster => "postmaster",
                ForwardPath::Mailbox(mailbox) => mailbox.as_given(),
            };
            assert_eq!((found, &rcpt.parameters), (*address, parameters), "{name}");
        }
    }

    #[test]
    fn no_secret_shows_in_debug() {
        let command = ascii(b"AUTH PLAIN AGEAc2VjcmV0").unwrap();
        assert!(!format!("{command:?}").contains("AGEA"));
    }

    /// Lines put together from what the grammar is made of: never a panic, and what is accepted
    /// names no octet that could end a line.
    #[test]
    fn random_lines_do_no_harm() {
        #[rustfmt::skip]
        const PARTS: &[&[u8]] = &[
            b"MAIL FROM:", b"RCPT TO:", b"BDAT ", b"AUTH ", b"EHLO ", b"VRFY ", b"<", b">", b"@",
            b":", b",", b".", b"\"", b"\\", b"[", b"]", b"IPv6:", b"1.2.3.4", b"::", b"a", b"B-",
            b"xn--", b"postmaster", b" ", b"SIZE=", b"BODY=", b"SMTPUTF8", b"=", b"+2B", b"99",
            b"LAST", b"\r", b"\n", b"\0", b"\xff", b"\xc3\xbc", b"\xe2\x80\xa8", b"\xef\xbc\xa0",
            b"RET=", b"ENVID=", b"NOTIFY=", b"NEVER", b"ORCPT=", b"utf-8;", b"rfc822;", b"\\x{", b"}",
        ];
        let seed = 5321;
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..40_000 {
            let mut line = PARTS[random.usize(..6)].to_vec();
            for _ in 0..random.usize(..12) {
                line.extend_from_slice(PARTS[random.usize(..PARTS.len())]);
            }
            let addresses = [Addresses::Ascii, Addresses::Utf8][random.usize(..2)];
            let Ok(command) = parse(&line, addresses) else {
                continue;
            };
            let shown = match command {
                Command::Mail(Mail {
                    reverse_path: ReversePath::Mailbox(mailbox),
                    ..
                })
                | Command::Rcpt(Rcpt {
                    forward_path: ForwardPath::Mailbox(mailbox),
                    ..
                }) => {
                    assert!(
                        mailbox.domain().comparable().is_ascii(),
                        "seed {seed} round {round}"
                    );
                    mailbox.as_given()
                }
                Command::Ehlo(name)
                | Command::Helo(name)
                | Command::Auth {
                    mechanism: name, ..
                } => name,
                Command::Mail(Mail {
                    reverse_path: ReversePath::Null,
                    ..
                })
                | Command::Rcpt(Rcpt {
                    forward_path: ForwardPath::Postmaster,
                    ..
                })
                | Command::Data
                | Command::Bdat { .. }
                | Command::Rset
                | Command::Noop
                | Command::Quit
                | Command::Vrfy(_)
                | Command::Expn(_)
                | Command::Help
                | Command::StartTls => "",
            };
            assert!(
                !shown.chars().any(char::is_control),
                "seed {seed} round {round}: {shown:?}"
            );
        }
    }
}
