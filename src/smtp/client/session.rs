//! The dialogue as a state machine: from the greeting to a login, from message to message, to QUIT.
//!
//! Invariants:
//! - What is said is the same however the peer's octets are cut into reads.
//! - Credentials leave only inside TLS. What was known of the peer before TLS is forgotten
//!   (RFC 3207 §4.2), and what it said behind the 220 to STARTTLS is never read inside.
//! - A 421, wherever it comes, ends the connection and is no verdict on a message.
//! - What the session keeps of its peer's octets is bounded by the reader of replies.
//!
//! Not promised: that effects are performed in time. The caller asks for the deadline and says when
//! it has passed.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::extensions::Extensions;
use super::outcome::{After, Cause, Failure, Outcome, RecipientOutcome, Refusal};
use super::reply::{Kind, REPLY_TEXT_OCTETS_MAX, Replies, Reply};
use super::settings::{Dialect, Login, Settings, StartTls};
use super::terms::{self, Terms, Transaction};
use super::transaction::{Step, Transfer, Underway};
use crate::smtp::sasl::Secret;
use crate::smtp::status::{Class, Status};

/// Recipients of a transaction where the peer tells no limit: what every peer must take
/// (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS_MAX_DEFAULT: usize = 100;

/// Longest command line, CR LF included (RFC 5321 §4.5.3.1.4). It decides whether AUTH takes its
/// initial response along (RFC 4954 §4).
const COMMAND_OCTETS_MAX: usize = 512;

/// One connection's dialogue.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    channel: Channel,
    state: State,
    replies: Replies,
    extensions: Extensions,
    starttls_refusal: Option<Reply>,
    /// Transactions begun since the connection was made.
    transactions: usize,
    /// Whether the caller still holds octets that were not taken yet.
    input_left: bool,
    /// When the peer last did what its deadline asks for.
    waiting_since: Instant,
}

/// What octets come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Nothing.
    Clear,
    /// TLS.
    Tls,
}

/// What the session wants from outside. Before anything else, what it said is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// More of the peer's octets. What was given is used up.
    Input,
    /// A TLS handshake, then [`Session::secured`].
    Secure,
    /// A message for [`Session::begin`], or [`Session::quit`], or nothing for a while. If octets of
    /// the peer are left, they are to be given to [`Session::receive`] first.
    Ready,
    /// The content, through [`Session::content`], then [`Session::content_sent`]. What the peer says
    /// in the meantime may be given to [`Session::receive`] at once, or afterwards; at once a large
    /// message is spared that is refused half-way.
    Content(Transfer),
    /// The record of what came of the message. Content still being sent is of no use any more. Then
    /// the session is as [`After`] says; with [`After::Ready`] as with [`Effect::Ready`].
    Finished(Outcome),
    /// The end of the connection, which is of no use any more. What was said may be a QUIT, whose
    /// reply nobody needs.
    Over(Failure),
    /// The end of the connection, after [`Session::quit`].
    Closed,
}

/// Where the dialogue stands. Each variant owns what is known at that point and nothing more.
#[derive(Debug)]
enum State {
    /// Nothing said on either side.
    Greeting,
    /// EHLO, LHLO or HELO said; with what the reply lists so far.
    Hello(Hello, Extensions),
    /// STARTTLS said.
    StartTls,
    /// 220 to STARTTLS received. Wants no input.
    Securing,
    /// AUTH said.
    Login(LoginStep),
    /// Between transactions.
    Ready,
    /// A message under way.
    Transaction(Box<Underway>),
    /// QUIT said.
    Quitting,
    /// Nothing more to say, and why.
    Over(Box<Failure>),
    /// Everything is said.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    Ehlo,
    Lhlo,
    Helo,
}

/// What the next reply of AUTH is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginStep {
    /// `AUTH PLAIN`, without its response: it was too long for a command.
    Plain,
    /// `AUTH LOGIN`: asks for the name.
    Name,
    /// The name: asks for the password.
    Password,
    /// The last response.
    Verdict,
}

/// What a step leads to.
type Next = (State, Effect);

impl Hello {
    fn verb(self) -> &'static str {
        match self {
            Hello::Ehlo => "EHLO",
            Hello::Lhlo => "LHLO",
            Hello::Helo => "HELO",
        }
    }
}

impl Session {
    /// A session on a connection just made; [`Channel::Tls`] if TLS began with the first octet. The
    /// peer speaks first.
    pub fn new(settings: Arc<Settings>, channel: Channel, now: Instant) -> Session {
        Session {
            settings,
            channel,
            state: State::Greeting,
            replies: Replies::default(),
            extensions: Extensions::default(),
            starttls_refusal: None,
            transactions: 0,
            input_left: false,
            waiting_since: now,
        }
    }

    /// Takes octets of the peer; appends what is to be sent to `out`. Advances `input` past what was
    /// used: all of it, but for what came behind [`Effect::Ready`], [`Effect::Finished`] and the
    /// ends.
    pub fn receive(&mut self, now: Instant, input: &mut &[u8], out: &mut Vec<u8>) -> Effect {
        let effect = self.read(now, input, out);
        self.input_left = !input.is_empty();
        effect
    }

    fn read(&mut self, now: Instant, input: &mut &[u8], out: &mut Vec<u8>) -> Effect {
        // What is wanted once all input is read.
        let mut wanted = Effect::Input;
        loop {
            match &self.state {
                State::Over(failure) => return Effect::Over(Failure::clone(failure)),
                State::Closed => return Effect::Closed,
                State::Securing if input.is_empty() => return Effect::Secure,
                State::Securing => return self.over(injection()),
                State::Greeting
                | State::Hello(..)
                | State::StartTls
                | State::Login(_)
                | State::Ready
                | State::Transaction(_)
                | State::Quitting => {}
            }
            let state = &mut self.state;
            let next = self.replies.next(input, |number, text| {
                if let State::Hello(Hello::Ehlo | Hello::Lhlo, extensions) = state
                    && number > 0
                {
                    extensions.list(text);
                }
            });
            let reply = match next {
                None => return wanted,
                Some(Ok(reply)) => reply,
                Some(Err(error)) => return self.over(Failure::protocol(error.to_string())),
            };
            self.waiting_since = now;
            match self.reply(reply, out) {
                Effect::Input => {}
                // What is glued to the 354 is no reply to what was not sent yet.
                content @ Effect::Content(_) => wanted = content,
                // Only to look whether something is left: it would be an injection.
                Effect::Secure => {}
                effect @ (Effect::Ready
                | Effect::Finished(_)
                | Effect::Over(_)
                | Effect::Closed) => return effect,
            }
        }
    }

    /// Hears that the handshake is done. All that was known of the peer is forgotten.
    pub fn secured(&mut self, now: Instant, out: &mut Vec<u8>) -> Effect {
        if !matches!(self.state, State::Securing) {
            return self.as_it_stands();
        }
        self.waiting_since = now;
        self.channel = Channel::Tls;
        self.extensions = Extensions::default();
        self.replies = Replies::default();
        self.input_left = false;
        let (state, effect) = self.hello(out);
        self.state = state;
        effect
    }

    /// What the peer offers, by its last reply to EHLO.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Whether what is said is said inside TLS.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// The reply that refused STARTTLS, if the session goes on in clear because of one.
    pub fn starttls_refusal(&self) -> Option<&Reply> {
        self.starttls_refusal.as_ref()
    }

    /// How many recipients the peer takes in a transaction, for the caller to keep to: by LIMITS
    /// (RFC 9422), or [`RECIPIENTS_MAX_DEFAULT`].
    pub fn recipients_max(&self) -> usize {
        let told = self.extensions.limits.rcpt_max;
        told.unwrap_or(RECIPIENTS_MAX_DEFAULT)
    }

    /// Whether the session is between transactions and the peer's LIMITS allow another one.
    pub fn takes_another(&self) -> bool {
        let mail_max = self.extensions.limits.mail_max;
        self.is_ready() && mail_max.is_none_or(|mail_max| self.transactions < mail_max)
    }

    /// Whether the content of this message must be looked at ([`Scanner`](super::Scanner)) for
    /// [`Session::begin`] to know whether the peer can take it.
    pub fn wants_facts(&self, transaction: &Transaction) -> bool {
        terms::wants_facts(transaction, &self.extensions)
    }

    /// Begins a transaction, when ready. What the peer cannot take is refused before a word is said.
    /// On a session that is over, the outcome says why.
    pub fn begin(
        &mut self,
        now: Instant,
        transaction: &Transaction,
        out: &mut Vec<u8>,
    ) -> Result<Effect, Refusal> {
        let none = |failure: Failure| {
            let recipients = transaction.recipients.iter();
            Effect::Finished(Outcome {
                recipients: recipients
                    .map(|_| RecipientOutcome::Unsent(failure.clone()))
                    .collect(),
                after: After::Over(failure),
            })
        };
        if let State::Over(failure) = &self.state {
            return Ok(none(Failure::clone(failure)));
        }
        if !self.is_ready() {
            return Err(Refusal {
                status: Status::temporary(3, 0),
                text: "the connection was not ready for a message".into(),
            });
        }
        // It would be taken for the reply to MAIL, and all others for the next one's.
        if self.input_left || self.replies.is_amid_reply() {
            let failure = Failure::protocol("it said something without being asked");
            self.state = State::Over(Box::new(failure.clone()));
            return Ok(none(failure));
        }
        let dialect = self.settings.dialect;
        let terms = Terms::new(transaction, &self.extensions, dialect)?;
        self.waiting_since = now;
        self.transactions = self.transactions.saturating_add(1);
        let mut underway = Box::new(Underway::new(dialect, terms, transaction.octets));
        let step = underway.begin(out);
        Ok(self.take_step(underway, step))
    }

    /// Appends a part of the content to `out`, as the transfer needs it.
    pub fn content(&mut self, now: Instant, part: &[u8], out: &mut Vec<u8>) {
        if let State::Transaction(underway) = &mut self.state {
            self.waiting_since = now;
            underway.content(part, out);
        }
    }

    /// Hears that the peer took octets of content. Of those that did not go through
    /// [`Session::content`], which under [`Transfer::Chunk`] they need not, `octets` tells how many;
    /// else 0. Moves the deadline.
    pub fn content_progress(&mut self, now: Instant, octets: u64) {
        if let State::Transaction(underway) = &mut self.state
            && underway.is_sending()
        {
            self.waiting_since = now;
            underway.content_progress(octets);
        }
    }

    /// Hears that all octets of the content were handed over; appends what ends them.
    pub fn content_sent(&mut self, now: Instant, out: &mut Vec<u8>) -> Effect {
        let state = mem::replace(&mut self.state, State::Closed);
        if let State::Transaction(mut underway) = state {
            self.waiting_since = now;
            let step = underway.content_sent(out);
            self.take_step(underway, step)
        } else {
            self.state = state;
            self.as_it_stands()
        }
    }

    /// Says QUIT, between transactions. At any other point nothing is said, and what is under way is
    /// given up.
    pub fn quit(&mut self, now: Instant, out: &mut Vec<u8>) -> Effect {
        self.state = if self.is_ready() {
            self.waiting_since = now;
            out.extend_from_slice(b"QUIT\r\n");
            State::Quitting
        } else {
            State::Closed
        };
        self.as_it_stands()
    }

    /// Hears that the peer closed the connection, after all that it said was given to
    /// [`Session::receive`].
    pub fn peer_closed(&mut self) -> Effect {
        let text = format!(
            "it closed the connection, while waiting for {}",
            self.awaited()
        );
        self.lost(Failure::ours(Cause::Closed, Status::temporary(4, 2), text))
    }

    /// When the peer has had its time. Between transactions that is as long as for a command; how
    /// long a connection is kept is up to the caller.
    pub fn deadline(&self) -> Instant {
        let timeouts = &self.settings.timeouts;
        let timeout = match &self.state {
            State::Greeting => timeouts.greeting,
            State::Hello(..)
            | State::StartTls
            | State::Securing
            | State::Login(_)
            | State::Ready => timeouts.command,
            State::Transaction(underway) => underway.timeout(timeouts),
            State::Quitting => timeouts.quit,
            State::Over(_) | State::Closed => Duration::ZERO,
        };
        let deadline = self.waiting_since.checked_add(timeout);
        deadline.unwrap_or_else(|| self.waiting_since + NEVER)
    }

    /// Hears that the deadline has passed.
    pub fn expired(&mut self) -> Effect {
        let text = format!("it took too long, while waiting for {}", self.awaited());
        self.lost(Failure::ours(Cause::Timeout, Status::temporary(4, 2), text))
    }

    /// Whether the session is between transactions.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// What the peer owes now, for people.
    fn awaited(&self) -> &'static str {
        match &self.state {
            State::Greeting => "its greeting",
            State::Hello(Hello::Ehlo, _) => "its reply to EHLO",
            State::Hello(Hello::Lhlo, _) => "its reply to LHLO",
            State::Hello(Hello::Helo, _) => "its reply to HELO",
            State::StartTls => "its reply to STARTTLS",
            State::Securing => "the TLS handshake",
            State::Login(_) => "its reply to AUTH",
            State::Ready => "the next message",
            State::Transaction(underway) => underway.awaited(),
            State::Quitting | State::Over(_) | State::Closed => "the end",
        }
    }

    /// What is wanted where nothing happened.
    fn as_it_stands(&self) -> Effect {
        match &self.state {
            State::Greeting
            | State::Hello(..)
            | State::StartTls
            | State::Login(_)
            | State::Transaction(_)
            | State::Quitting => Effect::Input,
            State::Securing => Effect::Secure,
            State::Ready => Effect::Ready,
            State::Over(failure) => Effect::Over(Failure::clone(failure)),
            State::Closed => Effect::Closed,
        }
    }

    /// The connection is gone.
    fn lost(&mut self, failure: Failure) -> Effect {
        match self.state {
            State::Over(_) | State::Closed => self.as_it_stands(),
            // Nobody needs the reply to QUIT.
            State::Quitting => {
                self.state = State::Closed;
                Effect::Closed
            }
            State::Greeting
            | State::Hello(..)
            | State::StartTls
            | State::Securing
            | State::Login(_)
            | State::Ready
            | State::Transaction(_) => self.over(failure),
        }
    }

    /// Ends the session, and the transaction under way with it.
    fn over(&mut self, failure: Failure) -> Effect {
        let state = State::Over(Box::new(failure.clone()));
        match mem::replace(&mut self.state, state) {
            State::Transaction(underway) => Effect::Finished(Outcome {
                recipients: underway.settle(Some(&failure)),
                after: After::Over(failure),
            }),
            State::Greeting
            | State::Hello(..)
            | State::StartTls
            | State::Securing
            | State::Login(_)
            | State::Ready
            | State::Quitting
            | State::Over(_)
            | State::Closed => Effect::Over(failure),
        }
    }

    /// Takes a reply. The state is always put back or replaced; should it ever not be, the session
    /// ends.
    fn reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Effect {
        let (state, effect) = match mem::replace(&mut self.state, State::Closed) {
            State::Transaction(mut underway) => {
                let step = underway.receive(reply, out);
                return self.take_step(underway, step);
            }
            State::Quitting => (State::Closed, Effect::Closed),
            State::Login(step) => self.login_reply(step, reply, out),
            _ if reply.code == 421 => over(Failure::said(reply)),
            State::Greeting => self.greeting(reply, out),
            State::Hello(hello, extensions) => self.hello_reply(hello, extensions, reply, out),
            State::StartTls => self.starttls_reply(reply, out),
            // Unasked for. Most often it says why the peer closes the connection.
            State::Ready if reply.refuses() => over(Failure::said(reply)),
            State::Ready => over(Failure::out_of_place("nothing", &reply)),
            State::Securing => over(injection()),
            State::Over(failure) => over(*failure),
            State::Closed => (State::Closed, Effect::Closed),
        };
        self.state = state;
        effect
    }

    fn take_step(&mut self, underway: Box<Underway>, step: Step) -> Effect {
        let (state, effect) = match step {
            Step::Wait => (State::Transaction(underway), Effect::Input),
            Step::Content(transfer) => (State::Transaction(underway), Effect::Content(transfer)),
            Step::Done => {
                let outcome = Outcome {
                    recipients: underway.settle(None),
                    after: After::Ready,
                };
                (State::Ready, Effect::Finished(outcome))
            }
            Step::Broken(failure) => {
                let outcome = Outcome {
                    recipients: underway.settle(Some(&failure)),
                    after: After::Over(failure.clone()),
                };
                (State::Over(Box::new(failure)), Effect::Finished(outcome))
            }
        };
        self.state = state;
        effect
    }

    fn greeting(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        if reply.refuses() {
            return give_up(Failure::said(reply), out);
        }
        if reply.code != 220 {
            return over(Failure::out_of_place("the connection", &reply));
        }
        self.hello(out)
    }

    /// Says who we are.
    fn hello(&self, out: &mut Vec<u8>) -> Next {
        let hello = match self.settings.dialect {
            Dialect::Smtp => Hello::Ehlo,
            Dialect::Lmtp => Hello::Lhlo,
        };
        self.say_hello(hello, out)
    }

    fn say_hello(&self, hello: Hello, out: &mut Vec<u8>) -> Next {
        say(&[hello.verb(), " ", &self.settings.helo], out);
        (State::Hello(hello, Extensions::default()), Effect::Input)
    }

    fn hello_reply(
        &mut self,
        hello: Hello,
        extensions: Extensions,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Next {
        match (hello, reply.kind()) {
            (_, Kind::Completion) if reply.code == 250 => {
                self.extensions = extensions.without(self.settings.ignored);
                self.secure_or_go_on(out)
            }
            (_, Kind::Completion | Kind::Intermediate) => {
                over(Failure::out_of_place(hello.verb(), &reply))
            }
            // RFC 5321 §3.2: a peer that does not know EHLO may know HELO. It knows neither TLS nor
            // AUTH, so where one is a must it is of no use, which is our decision.
            (Hello::Ehlo, Kind::Permanent) => {
                let needs_tls =
                    self.settings.starttls == StartTls::Required && self.channel == Channel::Clear;
                if needs_tls {
                    let text = format!("TLS is required, and EHLO was refused: {}", reply.text);
                    give_up(no_tls(text), out)
                } else if self.settings.login.is_some() {
                    let text = format!("a login is due, and EHLO was refused: {}", reply.text);
                    give_up(no_login(Status::temporary(7, 4), text), out)
                } else {
                    self.say_hello(Hello::Helo, out)
                }
            }
            // Somebody named a peer for LMTP that does not speak it: to be mended there, and no word about mail.
            (Hello::Lhlo, Kind::Permanent) if matches!(reply.code, 500 | 502) => {
                let text = format!("it does not speak LMTP: {}", reply.text);
                give_up(Failure::protocol(text), out)
            }
            (Hello::Ehlo, Kind::Transient)
            | (Hello::Lhlo | Hello::Helo, Kind::Transient | Kind::Permanent) => {
                give_up(Failure::said(reply), out)
            }
        }
    }

    /// Behind the reply to EHLO: STARTTLS, if it is wanted and to be had.
    fn secure_or_go_on(&mut self, out: &mut Vec<u8>) -> Next {
        match (self.channel, self.settings.starttls) {
            (Channel::Tls, _) | (Channel::Clear, StartTls::Off) => self.log_in_or_go_on(out),
            (Channel::Clear, StartTls::Negotiated | StartTls::Required)
                if self.extensions.starttls =>
            {
                say(&["STARTTLS"], out);
                (State::StartTls, Effect::Input)
            }
            (Channel::Clear, StartTls::Negotiated) => self.log_in_or_go_on(out),
            (Channel::Clear, StartTls::Required) => {
                let text = "TLS is required, and STARTTLS is not offered";
                give_up(no_tls(text), out)
            }
        }
    }

    fn starttls_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Next {
        if reply.code == 220 {
            return (State::Securing, Effect::Secure);
        }
        if !reply.refuses() {
            return over(Failure::out_of_place("STARTTLS", &reply));
        }
        if self.settings.starttls == StartTls::Required {
            let text = format!("TLS is required, and STARTTLS was refused: {}", reply.text);
            return give_up(no_tls(text), out);
        }
        // The connection is as it was, and so is what the peer offers (RFC 3207 §4).
        self.starttls_refusal = Some(reply);
        self.log_in_or_go_on(out)
    }

    /// Behind TLS, or without: AUTH, if there is a login.
    fn log_in_or_go_on(&mut self, out: &mut Vec<u8>) -> Next {
        let Some(login) = &self.settings.login else {
            return (State::Ready, Effect::Ready);
        };
        let mechanisms = self.extensions.auth;
        let step = match self.channel {
            Channel::Clear => {
                let text = "a login is due, which leaves only inside TLS, and there is none";
                return give_up(no_login(Status::temporary(7, 11), text), out);
            }
            Channel::Tls if mechanisms.plain => {
                let response = plain(login);
                let octets = b"AUTH PLAIN \r\n".len() + response.octets().len();
                if octets <= COMMAND_OCTETS_MAX {
                    out.extend_from_slice(b"AUTH PLAIN ");
                    say_secret(&response, out);
                    LoginStep::Verdict
                } else {
                    say(&["AUTH PLAIN"], out);
                    LoginStep::Plain
                }
            }
            Channel::Tls if mechanisms.login => {
                say(&["AUTH LOGIN"], out);
                LoginStep::Name
            }
            Channel::Tls => {
                let text = "a login is due, and neither AUTH PLAIN nor AUTH LOGIN is offered";
                return give_up(no_login(Status::temporary(7, 4), text), out);
            }
        };
        (State::Login(step), Effect::Input)
    }

    fn login_reply(&mut self, step: LoginStep, reply: Reply, out: &mut Vec<u8>) -> Next {
        // Without a login nothing of AUTH was said.
        let Some(login) = &self.settings.login else {
            return (State::Ready, Effect::Ready);
        };
        let reply = without_secrets(reply, login);
        if reply.code == 421 {
            return over(Failure::said(reply));
        }
        if reply.refuses() {
            // A wrong password is ours to mend: no mail goes back for it, whatever the class.
            let text = format!("the login was refused: {}", reply.text);
            return give_up(no_login(Status::temporary(7, 8), text), out);
        }
        let step = match (step, reply.code) {
            (LoginStep::Plain, 334) => {
                say_secret(&plain(login), out);
                LoginStep::Verdict
            }
            // What it asks for is known by the order; peers word it as they like.
            (LoginStep::Name, 334) => {
                say_secret(&encoded(login.name.as_bytes()), out);
                LoginStep::Password
            }
            (LoginStep::Password, 334) => {
                say_secret(&encoded(login.password.octets()), out);
                LoginStep::Verdict
            }
            (LoginStep::Verdict, 235) => return (State::Ready, Effect::Ready),
            (
                LoginStep::Plain | LoginStep::Name | LoginStep::Password | LoginStep::Verdict,
                code,
            ) => {
                let text = format!("it answered AUTH with {code}");
                return over(Failure::protocol(text));
            }
        };
        (State::Login(step), Effect::Input)
    }
}

/// A year: longer than any session lasts.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn say(parts: &[&str], out: &mut Vec<u8>) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn say_secret(secret: &Secret, out: &mut Vec<u8>) {
    out.extend_from_slice(secret.octets());
    out.extend_from_slice(b"\r\n");
}

fn over(failure: Failure) -> Next {
    let state = State::Over(Box::new(failure.clone()));
    (state, Effect::Over(failure))
}

/// Ends a session whose peer can still be told.
fn give_up(failure: Failure, out: &mut Vec<u8>) -> Next {
    say(&["QUIT"], out);
    over(failure)
}

fn injection() -> Failure {
    let text = "it sent octets in clear behind its reply to STARTTLS";
    Failure::ours(Cause::Injection, Status::temporary(7, 0), text)
}

fn no_tls(text: impl Into<Box<str>>) -> Failure {
    Failure::ours(Cause::NoTls, Status::temporary(7, 10), text)
}

fn no_login(status: Status, text: impl Into<Box<str>>) -> Failure {
    debug_assert!(status.class == Class::Temporary);
    Failure::ours(Cause::Login, status, text)
}

/// The response of PLAIN, in base64.
///
/// ```text
/// message   = [authzid] UTF8NUL authcid UTF8NUL passwd     ; RFC 4616 §2
/// ```
fn plain(login: &Login) -> Secret {
    let name = login.name.as_bytes();
    let password = login.password.octets();
    let message = Secret::from([b"\0", name, b"\0", password].concat());
    encoded(message.octets())
}

fn encoded(octets: &[u8]) -> Secret {
    Secret::from(BASE64.encode(octets).into_bytes())
}

/// A reply to AUTH, with its codes alone where the text repeats what was sent. So it is where the
/// text was cut: what was repeated may be cut as well.
fn without_secrets(reply: Reply, login: &Login) -> Reply {
    let repeats = |secret: &[u8]| {
        !secret.is_empty() && memchr::memmem::find(reply.text.as_bytes(), secret).is_some()
    };
    let is_cut = reply.text.len() + 4 > REPLY_TEXT_OCTETS_MAX;
    if is_cut
        || repeats(login.password.octets())
        || repeats(encoded(login.password.octets()).octets())
        || repeats(plain(login).octets())
    {
        let text = match reply.status {
            Some(status) => format!("{} {status}", reply.code),
            None => reply.code.to_string(),
        };
        let text = text.into();
        Reply { text, ..reply }
    } else {
        reply
    }
}
