//! One connection's dialogue, without the connection: octets in, replies out.
//!
//! Apart from the connection so that what is said depends on the octets alone. The grammar is the
//! server's own ([`ringpost::smtp`]); what follows here is the least that a sink has to know of
//! the order of commands.
//! Invariants:
//! - The replies are the same however the input is cut.
//! - Before each reply of a [`Stage`] it stops and asks what to answer; nothing is counted or
//!   changed before it was told.
//! - What a peer does wrong only because it was refused something before is no protocol error.
//! - Nothing of a message is kept but its number of octets.

use std::sync::Arc;

use ringpost::smtp::chunk::Chunk;
use ringpost::smtp::command::{self, Addresses, Command, CommandError, Verb};
use ringpost::smtp::end_of_data::{EndOfData, Progress, StrayNewline};
use ringpost::smtp::envelope::Body;
use ringpost::smtp::parameters::{MailParameters, RcptParameters};
use ringpost::smtp::sasl::{Exchange, ExchangeError, Mechanism, Step};

use super::counts::Cells;
use super::extensions::{Extension, Extensions};
use super::misbehaviour::Refusal;
use super::stage::Stage;

/// Which protocol a sink speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// How a connection is spoken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// In clear.
    Clear,
    /// TLS, from the first octet on or since STARTTLS.
    Tls,
}

/// What all dialogues of a sink have in common.
#[derive(Debug)]
pub(super) struct Terms {
    protocol: Protocol,
    extensions: Extensions,
    ehlo_in_clear: Box<[u8]>,
    ehlo_in_tls: Box<[u8]>,
}

impl Terms {
    pub(super) fn new(protocol: Protocol, extensions: Extensions) -> Terms {
        let mut in_tls = extensions;
        in_tls.remove(Extension::StartTls);
        Terms {
            protocol,
            extensions,
            ehlo_in_clear: extensions.reply(HOST_NAME).into_boxed_slice(),
            ehlo_in_tls: in_tls.reply(HOST_NAME).into_boxed_slice(),
        }
    }
}

/// Why the dialogue stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It wants more input. Of what it was given, the beginning of a line may be left.
    Input,
    /// A reply is due: [`Dialogue::answer`] wants to know which.
    Judge(Stage),
    /// 220 to STARTTLS is written: the handshake comes next, then [`Dialogue::secured`].
    Secure,
    /// All is said.
    Close,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'r> {
    Grant,
    Refuse(&'r Refusal),
    /// 421: no more messages are taken.
    Closing,
}

#[derive(Debug)]
pub(super) struct Dialogue {
    terms: Arc<Terms>,
    channel: Channel,
    authenticated: bool,
    state: State,
}

/// Where the dialogue stands. Each variant owns what is known at that point.
#[derive(Debug)]
enum State {
    /// A reply waits for its answer.
    Asking(Asked),
    /// A command is next.
    Between(Point),
    /// After 334.
    Authenticating(Exchange),
    /// After 354.
    Receiving(Transaction, EndOfData),
    /// In a chunk of a message.
    Chunk(Transaction, Chunk),
    /// In a chunk that belongs to no message, and is read past.
    StrayChunk(Point, Chunk),
    /// 220 to STARTTLS is written.
    Securing,
    Closing,
}

/// A point at which a command is next.
#[derive(Debug)]
enum Point {
    /// The greeting was a refusal: everything but QUIT gets 503 (RFC 5321 §3.1).
    Unwelcome,
    /// No EHLO yet.
    Greeted,
    /// Between transactions.
    Idle(Before),
    /// MAIL accepted; collecting recipients.
    Addressing(Transaction),
    /// Between chunks.
    Chunking(Transaction),
}

impl Point {
    /// Whether a command that cannot come now can be explained by a refusal.
    fn before(&self) -> Before {
        match self {
            Point::Unwelcome => Before::Refusal,
            Point::Idle(before) => *before,
            Point::Addressing(transaction)
                if transaction.recipients == 0 && transaction.recipients_refused > 0 =>
            {
                Before::Refusal
            }
            Point::Greeted | Point::Addressing(_) | Point::Chunking(_) => Before::Nothing,
        }
    }
}

/// What came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A refusal, which makes the rest of a pipelined group pointless, but not wrong.
    Refusal,
}

/// What a reply is due to.
#[derive(Debug)]
enum Asked {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Mail(Transaction),
    Rcpt(Transaction),
    Data(Transaction),
    Chunk(Transaction, Chunk),
    /// So many final replies are due.
    Content(Transaction, u64),
    Quit,
}

impl Asked {
    fn stage(&self) -> Stage {
        match self {
            Asked::Greeting => Stage::Connect,
            Asked::Ehlo | Asked::Helo => Stage::Ehlo,
            Asked::StartTls => Stage::StartTls,
            Asked::Auth => Stage::Auth,
            Asked::Mail(_) => Stage::Mail,
            Asked::Rcpt(_) => Stage::Rcpt,
            Asked::Data(_) | Asked::Chunk(..) => Stage::Data,
            Asked::Content(..) => Stage::Content,
            Asked::Quit => Stage::Quit,
        }
    }
}

#[derive(Debug)]
struct Transaction {
    addresses: Addresses,
    body: Body,
    /// Accepted.
    recipients: u64,
    recipients_refused: u64,
    octets: u64,
    /// Whether it is counted as a message: some recipient was granted.
    counted: bool,
}

impl Dialogue {
    pub(super) fn new(terms: Arc<Terms>, channel: Channel) -> Dialogue {
        Dialogue {
            terms,
            channel,
            authenticated: false,
            state: State::Asking(Asked::Greeting),
        }
    }

    /// TLS is up: the session is as new, but without another greeting (RFC 3207 §4.2).
    pub(super) fn secured(&mut self) {
        debug_assert!(matches!(self.state, State::Securing), "nothing to secure");
        self.channel = Channel::Tls;
        self.authenticated = false;
        self.state = State::Between(Point::Greeted);
    }

    /// The peer was silent for too long.
    pub(super) fn silent(&mut self, out: &mut Vec<u8>) {
        self.say(out, b"421", b"4.4.2", b"Idle for too long");
        self.state = State::Closing;
    }

    /// Reads on, up to the next event.
    pub(super) fn receive(
        &mut self,
        input: &mut &[u8],
        counts: &Cells,
        out: &mut Vec<u8>,
    ) -> Event {
        loop {
            let (state, event) = match self.take() {
                State::Asking(asked) => {
                    let stage = asked.stage();
                    (State::Asking(asked), Some(Event::Judge(stage)))
                }
                State::Between(point) => match self.line(input, counts, out) {
                    Line::Whole(line) => (self.run(point, line, counts, out), None),
                    Line::Cut => (State::Between(point), Some(Event::Input)),
                    Line::TooLong => (State::Closing, None),
                },
                State::Authenticating(exchange) => match self.line(input, counts, out) {
                    Line::Whole(line) => {
                        let step = exchange.receive(line);
                        (self.exchange(step, counts, out), None)
                    }
                    Line::Cut => (State::Authenticating(exchange), Some(Event::Input)),
                    Line::TooLong => (State::Closing, None),
                },
                State::Receiving(mut transaction, mut end_of_data) => {
                    match end_of_data.receive(input, |_| {}) {
                        Progress::More => (
                            State::Receiving(transaction, end_of_data),
                            Some(Event::Input),
                        ),
                        Progress::Ended => {
                            transaction.octets = end_of_data.octets();
                            (self.finish(transaction), None)
                        }
                    }
                }
                State::Chunk(mut transaction, mut chunk) => {
                    transaction.octets += chunk.take(input).len() as u64;
                    if chunk.is_complete() {
                        (State::Asking(Asked::Chunk(transaction, chunk)), None)
                    } else {
                        (State::Chunk(transaction, chunk), Some(Event::Input))
                    }
                }
                State::StrayChunk(point, mut chunk) => {
                    chunk.take(input);
                    if chunk.is_complete() {
                        (self.out_of_sequence(point, counts, out), None)
                    } else {
                        (State::StrayChunk(point, chunk), Some(Event::Input))
                    }
                }
                State::Securing if input.is_empty() => (State::Securing, Some(Event::Secure)),
                State::Securing => {
                    // Sent in clear behind STARTTLS, where anyone could have put it: never run
                    // inside TLS (RFC 3207 §5; CVE-2011-0411).
                    counts.protocol_errors.add(1);
                    (State::Closing, None)
                }
                State::Closing => (State::Closing, Some(Event::Close)),
            };
            self.state = state;
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Cuts the next command line from `input`. What cannot be one is answered.
    fn line<'i>(&self, input: &mut &'i [u8], counts: &Cells, out: &mut Vec<u8>) -> Line<'i> {
        loop {
            let whole: &'i [u8] = input;
            // Looked at from its beginning again when more comes: few lines are cut.
            let end = whole.iter().position(|octet| *octet == b'\n');
            if end.map_or(whole.len(), |at| at + 1) > LINE_OCTETS_MAX {
                counts.protocol_errors.add(1);
                self.say(out, b"500", b"5.5.2", b"Line too long");
                return Line::TooLong;
            }
            let Some((line, rest)) = end.and_then(|at| whole.split_at_checked(at + 1)) else {
                return Line::Cut;
            };
            *input = rest;
            if let Some(line) = line.strip_suffix(b"\r\n") {
                return Line::Whole(line);
            }
            counts.protocol_errors.add(1);
            self.say(out, b"500", b"5.5.2", b"Line does not end in CR LF");
        }
    }

    fn run(&self, point: Point, line: &[u8], counts: &Cells, out: &mut Vec<u8>) -> State {
        let addresses = match &point {
            Point::Addressing(transaction) => transaction.addresses,
            Point::Unwelcome | Point::Greeted | Point::Idle(_) | Point::Chunking(_) => {
                Addresses::Ascii
            }
        };
        let lhlo;
        let parsed = match self.terms.protocol {
            Protocol::Smtp => command::parse(line, addresses),
            Protocol::Lmtp => {
                lhlo = as_ehlo(line);
                match command::parse(lhlo.as_deref().unwrap_or(line), addresses) {
                    // RFC 2033 §4.1: LHLO stands in their place.
                    Ok(Command::Ehlo(_) | Command::Helo(_)) if lhlo.is_none() => {
                        Err(CommandError::Unknown)
                    }
                    parsed => parsed,
                }
            }
        };
        match parsed {
            Ok(command) => self.command(point, command, counts, out),
            Err(error) => self.fault(point, error, counts, out),
        }
    }

    /// What a good command leads to at this point.
    fn command(
        &self,
        point: Point,
        command: Command<'_>,
        counts: &Cells,
        out: &mut Vec<u8>,
    ) -> State {
        match (point, command) {
            (_, Command::Quit) => State::Asking(Asked::Quit),
            (point, Command::Bdat { octets, last }) if self.lists(Extension::Chunking) => {
                let chunk = Chunk::new(octets, last);
                match point {
                    Point::Addressing(transaction) if transaction.recipients > 0 => {
                        State::Chunk(transaction, chunk)
                    }
                    Point::Chunking(transaction) => State::Chunk(transaction, chunk),
                    Point::Unwelcome | Point::Greeted | Point::Idle(_) | Point::Addressing(_) => {
                        State::StrayChunk(point, chunk)
                    }
                }
            }
            (Point::Unwelcome, _) => self.out_of_sequence(Point::Unwelcome, counts, out),
            (_, Command::Ehlo(_)) => State::Asking(Asked::Ehlo),
            (_, Command::Helo(_)) => State::Asking(Asked::Helo),
            (point, Command::Noop) => {
                self.say(out, b"250", b"2.0.0", b"OK");
                State::Between(point)
            }
            (point, Command::Help) => {
                self.say(out, b"214", b"2.0.0", b"RFC 5321");
                State::Between(point)
            }
            (point, Command::Vrfy(_)) => {
                self.say(out, b"252", b"2.5.0", b"Send some mail, it will be taken");
                State::Between(point)
            }
            (point, Command::Rset) => {
                self.say(out, b"250", b"2.0.0", b"OK");
                State::Between(match point {
                    Point::Greeted => Point::Greeted,
                    Point::Unwelcome
                    | Point::Idle(_)
                    | Point::Addressing(_)
                    | Point::Chunking(_) => Point::Idle(Before::Nothing),
                })
            }
            (point, Command::Expn(_) | Command::Bdat { .. }) => {
                self.not_implemented(point, counts, out)
            }
            (point, Command::StartTls) if !self.lists(Extension::StartTls) => {
                self.not_implemented(point, counts, out)
            }
            (point, Command::Auth { .. }) if !self.lists(Extension::Auth) => {
                self.not_implemented(point, counts, out)
            }
            (Point::Idle(_), Command::StartTls) if self.channel == Channel::Clear => {
                State::Asking(Asked::StartTls)
            }
            (Point::Idle(before), Command::Auth { mechanism, initial }) if !self.authenticated => {
                match Mechanism::named(mechanism) {
                    Some(mechanism) => {
                        let step = Exchange::start(mechanism, initial.map(|given| given.0));
                        self.exchange(step, counts, out)
                    }
                    None => {
                        counts.protocol_errors.add(1);
                        self.say(out, b"504", b"5.5.4", b"Mechanism not known");
                        State::Between(Point::Idle(before))
                    }
                }
            }
            (Point::Idle(before), Command::Mail(mail)) => {
                if self.lists_all_of_mail(&mail.parameters) {
                    State::Asking(Asked::Mail(Transaction::new(&mail.parameters)))
                } else {
                    let error = CommandError::UnknownParameter(Verb::Mail);
                    self.fault(Point::Idle(before), error, counts, out)
                }
            }
            (Point::Addressing(transaction), Command::Rcpt(rcpt)) => {
                if self.lists_all_of_rcpt(&rcpt.parameters) {
                    State::Asking(Asked::Rcpt(transaction))
                } else {
                    let error = CommandError::UnknownParameter(Verb::Rcpt);
                    self.fault(Point::Addressing(transaction), error, counts, out)
                }
            }
            // RFC 3030 §3: BINARYMIME by BDAT only.
            (Point::Addressing(transaction), Command::Data)
                if transaction.recipients > 0 && transaction.body != Body::BinaryMime =>
            {
                State::Asking(Asked::Data(transaction))
            }
            (
                point,
                Command::StartTls
                | Command::Auth { .. }
                | Command::Mail(_)
                | Command::Rcpt(_)
                | Command::Data,
            ) => self.out_of_sequence(point, counts, out),
        }
    }

    /// Writes the reply that waits.
    pub(super) fn answer(
        &mut self,
        answer: Answer<'_>,
        counts: &Cells,
        out: &mut Vec<u8>,
    ) -> Answered {
        let asked = match self.take() {
            State::Asking(asked) => asked,
            state @ (State::Between(_)
            | State::Authenticating(_)
            | State::Receiving(..)
            | State::Chunk(..)
            | State::StrayChunk(..)
            | State::Securing
            | State::Closing) => {
                debug_assert!(false, "nothing was asked: {state:?}");
                self.state = state;
                return Answered::Reply;
            }
        };
        let (state, answered) = match answer {
            Answer::Grant => self.grant(asked, counts, out),
            Answer::Refuse(refusal) => {
                counts.refused.of(asked.stage()).add(1);
                let state = Self::refused(asked, counts);
                let state = match refusal {
                    Refusal::Reply { octets, closes } => {
                        out.extend_from_slice(octets);
                        if *closes { State::Closing } else { state }
                    }
                    // Belongs to the handshake, of which nothing is said here.
                    Refusal::Alert(_) => State::Closing,
                };
                (state, Answered::Reply)
            }
            Answer::Closing => {
                self.say(out, b"421", b"4.3.2", b"Taking no more mail");
                (State::Closing, Answered::Reply)
            }
        };
        self.state = state;
        answered
    }

    fn grant(&mut self, asked: Asked, counts: &Cells, out: &mut Vec<u8>) -> (State, Answered) {
        let state = match asked {
            Asked::Greeting => {
                out.extend_from_slice(match self.terms.protocol {
                    Protocol::Smtp => GREETING_SMTP,
                    Protocol::Lmtp => GREETING_LMTP,
                });
                State::Between(Point::Greeted)
            }
            Asked::Ehlo => {
                out.extend_from_slice(match self.channel {
                    Channel::Clear => &self.terms.ehlo_in_clear,
                    Channel::Tls => &self.terms.ehlo_in_tls,
                });
                State::Between(Point::Idle(Before::Nothing))
            }
            Asked::Helo => {
                self.say(out, b"250", b"", HOST_NAME.as_bytes());
                State::Between(Point::Idle(Before::Nothing))
            }
            Asked::StartTls => {
                self.say(out, b"220", b"2.0.0", b"Ready to start TLS");
                State::Securing
            }
            Asked::Auth => {
                counts.authentications.add(1);
                self.authenticated = true;
                self.say(out, b"235", b"2.7.0", b"Authentication successful");
                State::Between(Point::Idle(Before::Nothing))
            }
            Asked::Mail(transaction) => {
                self.say(out, b"250", b"2.1.0", b"OK");
                State::Between(Point::Addressing(transaction))
            }
            Asked::Rcpt(mut transaction) => {
                transaction.recipients += 1;
                self.say(out, b"250", b"2.1.5", b"OK");
                State::Between(Point::Addressing(transaction))
            }
            Asked::Data(transaction) => {
                self.say(out, b"354", b"", b"End data with <CR><LF>.<CR><LF>");
                // A stray newline is counted as it came.
                State::Receiving(transaction, EndOfData::new(StrayNewline::Accept))
            }
            Asked::Chunk(transaction, chunk) if chunk.is_last() => self.finish(transaction),
            Asked::Chunk(transaction, _) => {
                self.say(out, b"250", b"2.0.0", b"OK");
                State::Between(Point::Chunking(transaction))
            }
            Asked::Content(transaction, due) => {
                self.say(out, b"250", b"2.0.0", b"OK");
                return self.taken(transaction, due, counts);
            }
            Asked::Quit => {
                counts.sessions_quit.add(1);
                self.say(out, b"221", b"2.0.0", b"Bye");
                State::Closing
            }
        };
        (state, Answered::Reply)
    }

    /// Where a refusal leads to.
    fn refused(asked: Asked, counts: &Cells) -> State {
        match asked {
            Asked::Greeting => State::Between(Point::Unwelcome),
            Asked::Ehlo | Asked::Helo => State::Between(Point::Greeted),
            Asked::StartTls | Asked::Auth => State::Between(Point::Idle(Before::Nothing)),
            Asked::Mail(_) | Asked::Data(_) | Asked::Chunk(..) => {
                State::Between(Point::Idle(Before::Refusal))
            }
            Asked::Rcpt(mut transaction) => {
                transaction.recipients_refused += 1;
                State::Between(Point::Addressing(transaction))
            }
            Asked::Content(transaction, due) => after_final_reply(transaction, due),
            // RFC 5321 §4.1.1.10: the peer is gone, whatever it was told.
            Asked::Quit => {
                counts.sessions_quit.add(1);
                State::Closing
            }
        }
    }

    /// All octets of a message are there.
    fn finish(&self, transaction: Transaction) -> State {
        let due = match self.terms.protocol {
            Protocol::Smtp => 1,
            // RFC 2033 §4.2: one reply for each recipient that was accepted.
            Protocol::Lmtp => transaction.recipients,
        };
        State::Asking(Asked::Content(transaction, due))
    }

    /// A final reply grants the message.
    fn taken(&self, mut transaction: Transaction, due: u64, counts: &Cells) -> (State, Answered) {
        counts.recipients.add(match self.terms.protocol {
            Protocol::Smtp => transaction.recipients,
            Protocol::Lmtp => 1,
        });
        let answered = if transaction.counted {
            Answered::Reply
        } else {
            counts.messages.add(1);
            counts.octets.add(transaction.octets);
            transaction.counted = true;
            Answered::MessageTaken
        };
        (after_final_reply(transaction, due), answered)
    }

    fn exchange(
        &self,
        step: Result<Step, ExchangeError>,
        counts: &Cells,
        out: &mut Vec<u8>,
    ) -> State {
        match step {
            Ok(Step::Challenge(exchange, challenge)) => {
                self.say(out, b"334", b"", challenge.as_bytes());
                return State::Authenticating(exchange);
            }
            // Whoever it is.
            Ok(Step::Complete(_)) => return State::Asking(Asked::Auth),
            Err(ExchangeError::Cancelled) => {
                self.say(out, b"501", b"5.7.0", b"Authentication cancelled");
            }
            Err(ExchangeError::Malformed) => {
                counts.protocol_errors.add(1);
                self.say(out, b"501", b"5.5.2", b"Cannot decode this");
            }
        }
        State::Between(Point::Idle(Before::Nothing))
    }

    /// Whether all that a MAIL says behind its path is listed.
    fn lists_all_of_mail(&self, given: &MailParameters<'_>) -> bool {
        let body_by = match given.body {
            None => None,
            Some(Body::SevenBit | Body::EightBitMime) => Some(Extension::EightBitMime),
            Some(Body::BinaryMime) => Some(Extension::BinaryMime),
        };
        let dsn = given.ret.is_some() || given.envid.is_some();
        [
            given.declared_octets.map(|_| Extension::Size),
            body_by,
            given.smtputf8.then_some(Extension::SmtpUtf8),
            given.auth.map(|_| Extension::Auth),
            dsn.then_some(Extension::Dsn),
        ]
        .into_iter()
        .flatten()
        .all(|extension| self.lists(extension))
    }

    fn lists_all_of_rcpt(&self, given: &RcptParameters<'_>) -> bool {
        (given.notify.is_none() && given.orcpt.is_none()) || self.lists(Extension::Dsn)
    }

    fn lists(&self, extension: Extension) -> bool {
        self.terms.extensions.has(extension)
    }

    /// A good command at the wrong time.
    fn out_of_sequence(&self, point: Point, counts: &Cells, out: &mut Vec<u8>) -> State {
        match point.before() {
            Before::Nothing => counts.protocol_errors.add(1),
            Before::Refusal => {}
        }
        self.say(out, b"503", b"5.5.1", b"Bad sequence of commands");
        State::Between(point)
    }

    fn not_implemented(&self, point: Point, counts: &Cells, out: &mut Vec<u8>) -> State {
        counts.protocol_errors.add(1);
        self.say(out, b"502", b"5.5.1", b"Command not implemented");
        State::Between(point)
    }

    /// No command.
    fn fault(&self, point: Point, error: CommandError, counts: &Cells, out: &mut Vec<u8>) -> State {
        counts.protocol_errors.add(1);
        let code = error.code().to_string();
        let text = error.text().as_bytes();
        self.say(out, code.as_bytes(), error.enhanced().as_bytes(), text);
        State::Between(point)
    }

    /// Writes a reply. An enhanced status code is part of it only where those are listed.
    fn say(&self, out: &mut Vec<u8>, code: &[u8], enhanced: &[u8], text: &[u8]) {
        out.extend_from_slice(code);
        out.push(b' ');
        if !enhanced.is_empty() && self.lists(Extension::EnhancedStatusCodes) {
            out.extend_from_slice(enhanced);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    /// Takes the state out, to be replaced before the next event.
    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closing)
    }
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Answered {
    /// A reply is written, or another is asked for.
    Reply,
    /// A message is counted, its first positive final reply written.
    MessageTaken,
}

/// The next line of the input.
enum Line<'i> {
    /// Without its CR LF.
    Whole(&'i [u8]),
    /// Not there yet, or only its beginning.
    Cut,
    /// Longer than any may be.
    TooLong,
}

impl Transaction {
    fn new(given: &MailParameters<'_>) -> Transaction {
        Transaction {
            addresses: if given.smtputf8 {
                Addresses::Utf8
            } else {
                Addresses::Ascii
            },
            body: given.body.unwrap_or_default(),
            recipients: 0,
            recipients_refused: 0,
            octets: 0,
            counted: false,
        }
    }
}

/// What follows a final reply, when `due` were due with it.
fn after_final_reply(transaction: Transaction, due: u64) -> State {
    match due {
        0 | 1 => State::Between(Point::Idle(Before::Nothing)),
        more => State::Asking(Asked::Content(transaction, more - 1)),
    }
}

/// LHLO has the grammar of EHLO (RFC 2033 §4.1).
fn as_ehlo(line: &[u8]) -> Option<Vec<u8>> {
    let (verb, argument) = line.split_at_checked(4)?;
    verb.eq_ignore_ascii_case(b"LHLO")
        .then(|| [b"EHLO", argument].concat())
}

const HOST_NAME: &str = "localhost";
const GREETING_SMTP: &[u8] = b"220 localhost ESMTP ringpost-loadgen sink\r\n";
const GREETING_LMTP: &[u8] = b"220 localhost LMTP ringpost-loadgen sink\r\n";

/// The longest command line, CR LF included: what RFC 4954 §4 asks for a line of AUTH.
pub(super) const LINE_OCTETS_MAX: usize = 12_288;

#[cfg(test)]
mod tests;
