//! The dialogue as a state machine.
//!
//! Invariants:
//! - The replies are the same however the input is cut into reads.
//! - RSET, EHLO, HELO, the end of a message and STARTTLS replace the state; nothing is cleared field
//!   by field, so nothing can be left behind.
//! - A message is handed out once: in parts, if it is large, in [`Effect::Store`], and what is left
//!   of it in [`Effect::Commit`]. It gets no 250 before [`Session::committed`].
//! - What the session keeps of its peer's octets is bounded by [`Limits`](super::Limits), the
//!   budget for mail data and the line limits. Idle it keeps the name the peer gave itself.
//!
//! Not promised: that effects are performed in time. While one is under way the session has no
//! deadline of its own.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::line::{Line, LineError, Partial};
use super::policy::{self, ChannelKind, Policy};
use super::replies;
use super::settings::Settings;
use super::transaction::{Findings, RecipientsRefused, Transaction};
use crate::smtp::chunk::Chunk;
use crate::smtp::command::{self, Addresses, Command, CommandError, Mail, Rcpt, Verb};
use crate::smtp::data::MailData;
use crate::smtp::end_of_data::{EndOfData, Progress};
use crate::smtp::envelope::{Body, Envelope, Recipient};
use crate::smtp::message::{Dialect, Message, Origin, Protocol, Security};
use crate::smtp::parameters::{MailParameters, RcptParameters};
use crate::smtp::path::ForwardPath;
use crate::smtp::reply::{OUTPUT_OCTETS_MAX, Outcome, Output, Refusal, Reply, TransactionRecord};
use crate::smtp::sasl::{Credentials, Exchange, ExchangeError, Mechanism, Step};

/// One connection's dialogue.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    address: SocketAddr,
    security: Option<Arc<Security>>,
    tls_availability: TlsAvailability,
    state: State,
    partial: Partial,
    opened: Instant,
    /// When the peer last did what its deadline asks for.
    waiting_since: Instant,
    /// Since the last accepted message.
    errors: u32,
    /// In all: an accepted message does not buy new guesses.
    auth_failures: u32,
    drain: Drain,
}

/// A connection as the listener accepted it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// What the octets come through.
    pub channel: Channel,
}

/// What octets come through at the beginning of a session.
#[derive(Clone, Debug)]
pub enum Channel {
    /// Nothing: a TCP port.
    Clear,
    /// TLS: a TLS port. If the greeting leaves before the handshake is over, what stands here is
    /// corrected by [`Session::secured`].
    Tls(Security),
}

/// What the session wants from outside.
#[derive(Debug)]
pub enum Effect {
    /// More input. What was given is used up, unless more than [`OUTPUT_OCTETS_MAX`] waits to be
    /// sent: then send it and come back with the rest.
    Input,
    /// A TLS handshake, after the replies are sent. Then [`Session::secured`]; if input was left,
    /// [`Session::injected`] instead.
    Secure,
    /// The check of these credentials, then [`Session::verified`].
    Verify(Credentials),
    /// This beginning, or next part, of the message under way to be put away, to make room for what
    /// comes behind it. Then [`Session::stored`]. Boxed: a shard keeps an effect with each session.
    Store(Box<MailData>),
    /// This message to be made durable, then [`Session::committed`].
    Commit(Box<Message>),
    /// The end of the connection, after the replies are sent.
    Close,
}

/// What the check of credentials found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are good.
    Accepted,
    /// They are not.
    Refused,
    /// They could not be checked.
    Unavailable,
}

/// Why a message, or a part of one, did not become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitFailure {
    /// No space for it at the moment.
    #[error("no space for the message")]
    NoSpace,
    /// Anything else.
    #[error("cannot store the message")]
    Failed,
}

/// Why a message was not committed.
enum Uncommitted<'a> {
    /// Of ours.
    Failure(CommitFailure),
    /// The next hop's.
    Refused(u16, &'a str),
}

/// Whether a handshake could be made at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsAvailability {
    /// There is a usable key.
    #[default]
    Available,
    /// There is none: STARTTLS gets 454 (RFC 3207 §4).
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    AfterTransaction,
}

/// Where the dialogue stands. Each variant owns what is known at that point and nothing more.
#[derive(Debug)]
enum State {
    /// Not greeted yet. Wants no input.
    Connected,
    /// The next line is a command.
    Commands(Stage),
    /// 334 sent: the next line belongs to AUTH.
    Authenticating(Peer, Exchange),
    /// Credentials handed out, given under this name. Wants no input.
    Verifying(Peer, Arc<str>),
    /// 354 sent: mail data, up to its end.
    Receiving(Peer, Box<Transaction>, EndOfData),
    /// Behind a BDAT: the octets of its chunk.
    ReceivingChunk(Peer, Box<Transaction>, Chunk),
    /// Behind a BDAT that is refused: its octets, then the reply, and on where it came from.
    SkippingChunk(Stage, Chunk, Reply),
    /// Part of the message handed out, with more to come. Wants no input.
    Storing(Peer, Box<Transaction>, Source),
    /// Message handed out. Wants no input.
    Committing(Committing),
    /// 220 to STARTTLS sent. Wants no input.
    Securing,
    /// Everything is said.
    Closing,
}

/// Where the rest of a message comes from.
#[derive(Debug)]
enum Source {
    /// DATA.
    Data(EndOfData),
    /// The chunk of a BDAT, not complete yet.
    Chunk(Chunk),
}

/// Where commands are taken.
#[derive(Debug)]
enum Stage {
    /// 220 sent or TLS negotiated, no EHLO since.
    Greeted,
    /// Between transactions.
    Idle(Peer),
    /// MAIL accepted; collecting forward-paths.
    Addressing(Peer, Box<Transaction>),
    /// Between two chunks of a message.
    Chunking(Peer, Box<Transaction>),
}

/// What is known of the client since its EHLO or HELO.
#[derive(Debug)]
struct Peer {
    greeted_as: Arc<str>,
    greeting: Greeting,
    authenticated: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Helo,
    Ehlo,
}

/// What is kept of a message while it is made durable.
#[derive(Debug)]
struct Committing {
    peer: Peer,
    verb: Verb,
    envelope: Arc<Envelope>,
    octets: u64,
    stored_octets: u64,
    started: Instant,
}

/// What a step leads to.
type Next = (State, Effect);

impl Session {
    /// A session on a connection just accepted. Nothing is said before [`Session::greet`].
    pub fn new(settings: Arc<Settings>, connection: Connection, now: Instant) -> Session {
        Session {
            settings,
            address: connection.peer,
            security: match connection.channel {
                Channel::Clear => None,
                Channel::Tls(security) => Some(Arc::new(security)),
            },
            tls_availability: TlsAvailability::default(),
            state: State::Connected,
            partial: Partial::default(),
            opened: now,
            waiting_since: now,
            errors: 0,
            auth_failures: 0,
            drain: Drain::No,
        }
    }

    /// Says the greeting. No input is taken before.
    pub fn greet(&mut self, now: Instant, out: &mut Output<'_>) {
        if matches!(self.state, State::Connected) {
            self.waiting_since = now;
            self.state = State::Commands(Stage::Greeted);
            let Settings {
                hostname, greeting, ..
            } = &*self.settings;
            out.reply_with(Verb::Greeting, replies::GREETING, hostname, greeting);
        }
    }

    /// Takes input and answers it. Advances `input` past what was used.
    ///
    /// After [`Effect::Input`] it is empty, or `out` holds more than [`OUTPUT_OCTETS_MAX`], or the
    /// session wants no input ([`Session::wants_input`]). After [`Effect::Close`] it is empty:
    /// nothing is run behind QUIT or a 421.
    pub fn receive(&mut self, now: Instant, input: &mut &[u8], out: &mut Output<'_>) -> Effect {
        if self.wants_input() && now >= self.session_deadline() {
            self.expired(now, out);
        }
        loop {
            // Not with nothing left to take: a reply may still be due to `BDAT 0`.
            if out.len() > OUTPUT_OCTETS_MAX && !input.is_empty() && !self.is_closing() {
                return Effect::Input;
            }
            // Neither a command nor mail data ends without an octet more.
            if input.is_empty() && matches!(self.state, State::Commands(_) | State::Receiving(..)) {
                return Effect::Input;
            }
            let verb;
            // The state is always put back or replaced; should it ever not be, the session ends.
            let next = match mem::replace(&mut self.state, State::Closing) {
                State::Commands(stage) => {
                    match self.partial.next(input, policy::command_octets_max) {
                        None => {
                            self.state = State::Commands(stage);
                            return Effect::Input;
                        }
                        Some(Ok(line)) => {
                            self.waiting_since = now;
                            let command = command::parse(line.octets(), stage.addresses());
                            verb = verb_of(&command);
                            self.command(now, stage, command, out)
                        }
                        Some(Err(error)) => {
                            self.waiting_since = now;
                            let reply;
                            (verb, reply) = line_refusal(error);
                            self.refuse(verb, reply, out);
                            (State::Commands(stage), Effect::Input)
                        }
                    }
                }
                State::Authenticating(peer, exchange) => {
                    verb = Verb::Auth;
                    match self.partial.next(input, |_| policy::AUTH_OCTETS_MAX) {
                        None => {
                            self.state = State::Authenticating(peer, exchange);
                            return Effect::Input;
                        }
                        Some(line) => {
                            self.waiting_since = now;
                            self.exchange_line(peer, exchange, line, out)
                        }
                    }
                }
                State::Receiving(peer, mut transaction, mut end_of_data) => {
                    verb = Verb::EndOfData;
                    self.waiting_since = now;
                    match transaction.receive(&mut end_of_data, input) {
                        Progress::More => match transaction.due_part() {
                            Some(part) => {
                                let source = Source::Data(end_of_data);
                                let state = State::Storing(peer, transaction, source);
                                (state, Effect::Store(part))
                            }
                            None => {
                                self.state = State::Receiving(peer, transaction, end_of_data);
                                continue;
                            }
                        },
                        Progress::Ended => {
                            let findings = Findings::from(&end_of_data);
                            self.message_ended(now, verb, peer, transaction, findings, out)
                        }
                    }
                }
                State::ReceivingChunk(peer, mut transaction, mut chunk) => {
                    verb = Verb::Bdat;
                    if !input.is_empty() {
                        self.waiting_since = now;
                    }
                    transaction.receive_chunk(&mut chunk, input);
                    if chunk.is_complete() {
                        self.chunk_ended(now, peer, transaction, chunk, out)
                    } else if let Some(part) = transaction.due_part() {
                        let source = Source::Chunk(chunk);
                        let state = State::Storing(peer, transaction, source);
                        (state, Effect::Store(part))
                    } else {
                        self.state = State::ReceivingChunk(peer, transaction, chunk);
                        if input.is_empty() {
                            return Effect::Input;
                        }
                        continue;
                    }
                }
                State::SkippingChunk(stage, mut chunk, reply) => {
                    verb = Verb::Bdat;
                    if !input.is_empty() {
                        self.waiting_since = now;
                    }
                    let _: &[u8] = chunk.take(input);
                    if !chunk.is_complete() {
                        self.state = State::SkippingChunk(stage, chunk, reply);
                        return Effect::Input;
                    }
                    self.refuse(verb, reply, out);
                    (State::Commands(stage), Effect::Input)
                }
                state @ (State::Connected
                | State::Verifying(..)
                | State::Storing(..)
                | State::Committing(_)
                | State::Securing) => {
                    self.state = state;
                    return Effect::Input;
                }
                State::Closing => {
                    *input = &[];
                    self.partial.clear();
                    return Effect::Close;
                }
            };
            let effect;
            (self.state, effect) = next;
            self.settle(now, verb, out);
            match effect {
                // Closing is seen, and the rest of the input dropped, in the next round.
                Effect::Input | Effect::Close => {}
                Effect::Secure | Effect::Verify(_) | Effect::Store(_) | Effect::Commit(_) => {
                    return effect;
                }
            }
        }
    }

    /// Hears that the handshake succeeded. After [`Effect::Secure`] the session is as new (RFC 3207
    /// §4.2). On a TLS port whose greeting left before the handshake was over, it gives the facts.
    pub fn secured(&mut self, now: Instant, security: Security) {
        self.waiting_since = now;
        self.security = Some(Arc::new(security));
        if matches!(self.state, State::Securing) {
            self.partial.clear();
            self.state = State::Commands(Stage::Greeted);
        }
    }

    /// Hears that octets came in clear behind STARTTLS: an attempt to have them run inside TLS.
    /// Ends the session; no reply is written, because whoever sent them is in between.
    pub fn injected(&mut self, now: Instant, out: &mut Output<'_>) {
        self.abandon(now, out);
        self.state = State::Closing;
        out.ended(Refusal::Injection);
    }

    /// Hears what the check of the credentials of [`Effect::Verify`] found.
    pub fn verified(&mut self, now: Instant, verdict: Verdict, out: &mut Output<'_>) -> Effect {
        self.state = match mem::replace(&mut self.state, State::Closing) {
            State::Verifying(peer, name) => {
                self.waiting_since = now;
                let authenticated = match verdict {
                    Verdict::Accepted => {
                        out.reply(Verb::Auth, replies::AUTHENTICATED);
                        out.authenticated(&name);
                        Some(name)
                    }
                    Verdict::Refused => {
                        self.refuse(Verb::Auth, replies::AUTH_FAILED, out);
                        None
                    }
                    Verdict::Unavailable => {
                        self.refuse(Verb::Auth, replies::AUTH_UNAVAILABLE, out);
                        None
                    }
                };
                State::Commands(Stage::Idle(Peer {
                    authenticated,
                    ..peer
                }))
            }
            other @ (State::Connected
            | State::Commands(_)
            | State::Authenticating(..)
            | State::Receiving(..)
            | State::ReceivingChunk(..)
            | State::SkippingChunk(..)
            | State::Storing(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing) => other,
        };
        self.settle(now, Verb::Auth, out)
    }

    /// Hears how putting away the part of [`Effect::Store`] went. If it failed, nothing more of the
    /// message is kept; the reply that says so comes at its end, as for any refused message.
    pub fn stored(
        &mut self,
        now: Instant,
        outcome: Result<(), CommitFailure>,
        out: &mut Output<'_>,
    ) -> Effect {
        let mut verb = Verb::EndOfData;
        self.state = match mem::replace(&mut self.state, State::Closing) {
            State::Storing(peer, mut transaction, source) => {
                self.waiting_since = now;
                match outcome {
                    Ok(()) => transaction.stored(),
                    Err(failure) => transaction.forget(failure_reply(failure)),
                }
                match source {
                    Source::Data(end_of_data) => State::Receiving(peer, transaction, end_of_data),
                    Source::Chunk(chunk) => {
                        verb = Verb::Bdat;
                        State::ReceivingChunk(peer, transaction, chunk)
                    }
                }
            }
            other @ (State::Connected
            | State::Commands(_)
            | State::Authenticating(..)
            | State::Verifying(..)
            | State::Receiving(..)
            | State::ReceivingChunk(..)
            | State::SkippingChunk(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing) => other,
        };
        self.settle(now, verb, out)
    }

    /// Hears how the commit of the message of [`Effect::Commit`] went: the queue id, or why not.
    pub fn committed(
        &mut self,
        now: Instant,
        outcome: Result<&str, CommitFailure>,
        out: &mut Output<'_>,
    ) -> Effect {
        self.conclude(now, outcome.map_err(Uncommitted::Failure), out)
    }

    /// Hears that the next hop will never take the message of [`Effect::Commit`], which is passed on while the
    /// peer waits: the peer gets that refusal. `text` has the enhanced code, is one line and has no control
    /// characters.
    pub fn refused_by_hop(
        &mut self,
        now: Instant,
        code: u16,
        text: &str,
        out: &mut Output<'_>,
    ) -> Effect {
        self.conclude(now, Err(Uncommitted::Refused(code, text)), out)
    }

    fn conclude(
        &mut self,
        now: Instant,
        outcome: Result<&str, Uncommitted<'_>>,
        out: &mut Output<'_>,
    ) -> Effect {
        let mut verb = Verb::EndOfData;
        self.state = match mem::replace(&mut self.state, State::Closing) {
            State::Committing(committing) => {
                self.waiting_since = now;
                verb = committing.verb;
                let outcome = match outcome {
                    Ok(queue_id) => {
                        self.errors = 0;
                        out.reply_with(verb, replies::QUEUED, "", queue_id);
                        Outcome::Accepted(queue_id)
                    }
                    Err(Uncommitted::Failure(failure)) => {
                        let reply = failure_reply(failure);
                        self.refuse(verb, reply, out);
                        Outcome::Refused(reply.code)
                    }
                    Err(Uncommitted::Refused(code, text)) => {
                        let reply = Reply {
                            code,
                            ..replies::REFUSED_BY_HOP
                        };
                        out.reply_with(verb, reply, "", text);
                        Outcome::Refused(code)
                    }
                };
                out.transaction(&TransactionRecord {
                    envelope: &committing.envelope,
                    octets: committing.octets,
                    outcome,
                    started: committing.started,
                    ended: now,
                });
                State::Commands(Stage::Idle(committing.peer))
            }
            other @ (State::Connected
            | State::Commands(_)
            | State::Authenticating(..)
            | State::Verifying(..)
            | State::Receiving(..)
            | State::ReceivingChunk(..)
            | State::SkippingChunk(..)
            | State::Storing(..)
            | State::Securing
            | State::Closing) => other,
        };
        self.settle(now, verb, out)
    }

    /// How many octets of the transaction under way were put away, from [`Session::stored`] to
    /// [`Session::committed`]. 0 when there are none, and when they are of no use any more because
    /// the message is refused or abandoned: then they can be removed. Asked after each call, it
    /// misses no change: no part of another transaction is put away in the same call.
    pub fn stored_octets(&self) -> u64 {
        match &self.state {
            State::Commands(
                Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction),
            )
            | State::SkippingChunk(
                Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction),
                ..,
            )
            | State::Receiving(_, transaction, _)
            | State::ReceivingChunk(_, transaction, _)
            | State::Storing(_, transaction, _) => transaction.stored_octets(),
            State::Committing(committing) => committing.stored_octets,
            State::Connected
            | State::Commands(Stage::Greeted | Stage::Idle(_))
            | State::SkippingChunk(Stage::Greeted | Stage::Idle(_), ..)
            | State::Authenticating(..)
            | State::Verifying(..)
            | State::Securing
            | State::Closing => 0,
        }
    }

    /// Whether input would be taken now.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Commands(_)
            | State::Authenticating(..)
            | State::Receiving(..)
            | State::ReceivingChunk(..)
            | State::SkippingChunk(..) => true,
            State::Connected
            | State::Verifying(..)
            | State::Storing(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing => false,
        }
    }

    /// When [`Session::expired`] is due.
    ///
    /// A command has its time from the reply before it to its CR LF, so that single octets do not
    /// buy more of it; mail data may pause that long, and buys time by every octet. Above both
    /// stands the time of the session, absolute. While an effect is under way the peer is not to
    /// blame, and nothing is due.
    pub fn deadline(&self) -> Instant {
        let limits = &self.settings.limits;
        let due = match self.state {
            State::Commands(_) if self.is_drained() => self.waiting_since,
            State::Commands(_) | State::Authenticating(..) => {
                after(self.waiting_since, limits.command_timeout)
            }
            State::Receiving(..) | State::ReceivingChunk(..) | State::SkippingChunk(..) => {
                after(self.waiting_since, limits.data_timeout)
            }
            State::Connected
            | State::Verifying(..)
            | State::Storing(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing => return after(self.waiting_since, NEVER),
        };
        due.min(self.session_deadline())
    }

    /// Hears that the deadline has passed: says so and ends the session. While an effect is under
    /// way it does nothing, so that a message on its way to the disk still gets its reply.
    pub fn expired(&mut self, now: Instant, out: &mut Output<'_>) {
        let verb = match self.state {
            State::Commands(_) => Verb::Unknown,
            State::Authenticating(..) => Verb::Auth,
            State::Receiving(..) => Verb::EndOfData,
            State::ReceivingChunk(..) | State::SkippingChunk(..) => Verb::Bdat,
            State::Connected
            | State::Verifying(..)
            | State::Storing(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing => return,
        };
        let reply = if self.is_drained() {
            replies::GOING_DOWN
        } else {
            replies::TIMEOUT
        };
        self.close(now, verb, reply, out);
    }

    /// Hears that the server is going down. True: the session was between transactions, said so and
    /// is closing. False: it goes on to the end of its transaction and closes then by itself.
    pub fn drain(&mut self, now: Instant, out: &mut Output<'_>) -> bool {
        match &self.state {
            State::Connected
            | State::Commands(Stage::Greeted | Stage::Idle(_))
            | State::Authenticating(..)
            | State::SkippingChunk(Stage::Greeted | Stage::Idle(_), ..) => {
                self.close(now, Verb::Unknown, replies::GOING_DOWN, out);
                true
            }
            State::Closing => true,
            State::Commands(Stage::Addressing(..) | Stage::Chunking(..))
            | State::SkippingChunk(Stage::Addressing(..) | Stage::Chunking(..), ..)
            | State::Verifying(..)
            | State::Receiving(..)
            | State::ReceivingChunk(..)
            | State::Storing(..)
            | State::Committing(_)
            | State::Securing => {
                self.drain = Drain::AfterTransaction;
                false
            }
        }
    }

    /// Hears that the connection is gone. A message being committed stays so: the session still
    /// wants [`Session::committed`], to report it. A part being put away is of no use any more.
    pub fn lost(&mut self, now: Instant, out: &mut Output<'_>) {
        if !matches!(self.state, State::Committing(_)) {
            self.abandon(now, out);
            self.state = State::Closing;
            self.partial.clear();
        }
    }

    /// Whether everything is said.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    /// Says whether a handshake could be made from now on. If not, STARTTLS stays listed and gets
    /// 454, so that clients come back instead of taking the server for one without TLS.
    pub fn set_tls_availability(&mut self, availability: TlsAvailability) {
        self.tls_availability = availability;
    }

    /// Runs a command.
    fn command(
        &mut self,
        now: Instant,
        stage: Stage,
        command: Result<Command<'_>, CommandError>,
        out: &mut Output<'_>,
    ) -> Next {
        let verb = verb_of(&command);
        if let Err(reply) = self.policy().admits(verb) {
            return (
                self.turn_down(stage, command.as_ref().ok(), verb, reply, out),
                Effect::Input,
            );
        }
        let command = match command {
            Ok(command) => command,
            Err(error) => {
                self.refuse(verb, syntax_refusal(error), out);
                return (State::Commands(stage), Effect::Input);
            }
        };
        if policy::is_of_extension(verb) && !stage.has_extensions() {
            let reply = replies::EHLO_MISSING;
            return (
                self.turn_down(stage, Some(&command), verb, reply, out),
                Effect::Input,
            );
        }
        // Every state with every command: nothing here may come about by luck.
        let state = match (stage, command) {
            (Stage::Greeted, Command::Ehlo(name)) => self.ehlo(name, None, out),
            (Stage::Idle(peer), Command::Ehlo(name)) => self.ehlo(name, Some(peer), out),
            // RFC 5321 §4.1.4: as if by RSET.
            (
                Stage::Addressing(peer, transaction) | Stage::Chunking(peer, transaction),
                Command::Ehlo(name),
            ) => {
                report(&transaction, Outcome::Abandoned, now, out);
                self.ehlo(name, Some(peer), out)
            }

            (Stage::Greeted, Command::Helo(name)) => self.helo(name, None, out),
            (Stage::Idle(peer), Command::Helo(name)) => self.helo(name, Some(peer), out),
            (
                Stage::Addressing(peer, transaction) | Stage::Chunking(peer, transaction),
                Command::Helo(name),
            ) => {
                report(&transaction, Outcome::Abandoned, now, out);
                self.helo(name, Some(peer), out)
            }

            (Stage::Greeted, command @ (Command::Mail(_) | Command::Rcpt(_) | Command::Data)) => {
                let reply = replies::GREETING_MISSING;
                self.turn_down(Stage::Greeted, Some(&command), verb, reply, out)
            }

            (Stage::Idle(peer), Command::Mail(mail)) => self.mail(now, peer, &mail, out),
            (stage @ (Stage::Addressing(..) | Stage::Chunking(..)), Command::Mail(_)) => {
                self.refuse(verb, replies::MAIL_NESTED, out);
                State::Commands(stage)
            }

            (stage @ Stage::Idle(_), Command::Rcpt(_) | Command::Data) => {
                self.refuse(verb, replies::MAIL_MISSING, out);
                State::Commands(stage)
            }
            (Stage::Addressing(peer, transaction), Command::Rcpt(rcpt)) => {
                self.rcpt(peer, transaction, &rcpt, out)
            }
            (Stage::Addressing(peer, transaction), Command::Data) => {
                self.data(peer, transaction, out)
            }
            // RFC 3030 §2: DATA and BDAT do not mix, and the envelope is closed with the first
            // chunk.
            (stage @ Stage::Chunking(..), Command::Rcpt(_) | Command::Data) => {
                self.refuse(verb, replies::BDAT_UNDER_WAY, out);
                State::Commands(stage)
            }

            (stage @ Stage::Greeted, command @ Command::Bdat { .. }) => {
                self.turn_down(stage, Some(&command), verb, replies::EHLO_MISSING, out)
            }
            (stage @ Stage::Idle(_), command @ Command::Bdat { .. }) => {
                self.turn_down(stage, Some(&command), verb, replies::MAIL_MISSING, out)
            }
            (Stage::Addressing(peer, transaction), command @ Command::Bdat { octets, last }) => {
                match transaction.recipients_missing() {
                    Some(reply) => {
                        let stage = Stage::Addressing(peer, transaction);
                        self.turn_down(stage, Some(&command), verb, reply, out)
                    }
                    None => chunk(peer, transaction, octets, last),
                }
            }
            (Stage::Chunking(peer, transaction), Command::Bdat { octets, last }) => {
                chunk(peer, transaction, octets, last)
            }

            (stage @ (Stage::Greeted | Stage::Idle(_)), Command::Rset) => {
                out.reply(verb, replies::OK);
                State::Commands(stage)
            }
            (
                Stage::Addressing(peer, transaction) | Stage::Chunking(peer, transaction),
                Command::Rset,
            ) => {
                report(&transaction, Outcome::Abandoned, now, out);
                out.reply(verb, replies::OK);
                State::Commands(Stage::Idle(peer))
            }

            // RFC 5321 §4.1.4: these are for any time, and §4.1.1: leave everything as it is.
            (
                stage @ (Stage::Greeted
                | Stage::Idle(_)
                | Stage::Addressing(..)
                | Stage::Chunking(..)),
                Command::Noop,
            ) => {
                out.reply(verb, replies::OK);
                State::Commands(stage)
            }
            (
                stage @ (Stage::Greeted
                | Stage::Idle(_)
                | Stage::Addressing(..)
                | Stage::Chunking(..)),
                Command::Help,
            ) => {
                out.reply(verb, replies::HELP);
                State::Commands(stage)
            }
            (
                stage @ (Stage::Greeted
                | Stage::Idle(_)
                | Stage::Addressing(..)
                | Stage::Chunking(..)),
                Command::Vrfy(_),
            ) => {
                out.reply(verb, replies::NOT_VERIFIED);
                State::Commands(stage)
            }
            (
                stage @ (Stage::Greeted
                | Stage::Idle(_)
                | Stage::Addressing(..)
                | Stage::Chunking(..)),
                Command::Expn(_),
            ) => {
                self.refuse(verb, replies::NOT_IMPLEMENTED, out);
                State::Commands(stage)
            }

            (Stage::Greeted | Stage::Idle(_), Command::Quit) => {
                out.reply(verb, replies::BYE);
                return (State::Closing, Effect::Close);
            }
            (
                Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction),
                Command::Quit,
            ) => {
                report(&transaction, Outcome::Abandoned, now, out);
                out.reply(verb, replies::BYE);
                return (State::Closing, Effect::Close);
            }

            (stage @ Stage::Greeted, Command::StartTls | Command::Auth { .. }) => {
                self.refuse(verb, replies::EHLO_MISSING, out);
                State::Commands(stage)
            }
            (Stage::Idle(peer), Command::StartTls) => match self.tls_availability {
                TlsAvailability::Available => {
                    out.reply(verb, replies::START_TLS);
                    return (State::Securing, Effect::Secure);
                }
                TlsAvailability::Unavailable => {
                    self.refuse(verb, replies::TLS_UNAVAILABLE, out);
                    State::Commands(Stage::Idle(peer))
                }
            },
            (stage @ (Stage::Addressing(..) | Stage::Chunking(..)), Command::StartTls) => {
                self.refuse(verb, replies::TLS_IN_TRANSACTION, out);
                State::Commands(stage)
            }

            (Stage::Idle(peer), Command::Auth { mechanism, initial }) => {
                return self.auth(peer, mechanism, initial.map(|initial| initial.0), out);
            }
            (stage @ (Stage::Addressing(..) | Stage::Chunking(..)), Command::Auth { .. }) => {
                self.refuse(verb, replies::AUTH_IN_TRANSACTION, out);
                State::Commands(stage)
            }
        };
        (state, Effect::Input)
    }

    /// Refuses a command. If it was a BDAT, the octets behind it are mail data all the same, and
    /// must not be taken for commands: the reply waits behind them.
    fn turn_down(
        &mut self,
        stage: Stage,
        command: Option<&Command<'_>>,
        verb: Verb,
        reply: Reply,
        out: &mut Output<'_>,
    ) -> State {
        if let Some(Command::Bdat { octets, last }) = command {
            return State::SkippingChunk(stage, Chunk::new(*octets, *last), reply);
        }
        self.refuse(verb, reply, out);
        State::Commands(stage)
    }

    /// EHLO (RFC 5321 §4.1.1.1). What AUTH proved stays proved.
    fn ehlo(&mut self, name: &str, before: Option<Peer>, out: &mut Output<'_>) -> State {
        let settings = &self.settings;
        let policy = self.policy();
        out.reply_lines(Verb::Ehlo, replies::HELO.code, |line| {
            line(&[&settings.hostname]);
            line(&["PIPELINING"]);
            line(&["SIZE ", &settings.limits.message_octets_max.to_string()]);
            line(&["8BITMIME"]);
            line(&["SMTPUTF8"]);
            line(&["ENHANCEDSTATUSCODES"]);
            line(&["CHUNKING"]);
            line(&["BINARYMIME"]);
            line(&["DSN"]);
            if policy.offers_starttls() {
                line(&["STARTTLS"]);
            }
            if policy.offers_auth() {
                line(&["AUTH PLAIN LOGIN"]);
            }
            line(&[
                "LIMITS RCPTMAX=",
                &settings.limits.recipients_max.to_string(),
            ]);
        });
        out.greeted(name);
        State::Commands(Stage::Idle(Peer::new(name, Greeting::Ehlo, before)))
    }

    /// HELO (RFC 5321 §4.1.1.1).
    fn helo(&mut self, name: &str, before: Option<Peer>, out: &mut Output<'_>) -> State {
        out.reply_with(Verb::Helo, replies::HELO, &self.settings.hostname, "");
        out.greeted(name);
        State::Commands(Stage::Idle(Peer::new(name, Greeting::Helo, before)))
    }

    /// MAIL (RFC 5321 §4.1.1.2).
    fn mail(&mut self, now: Instant, peer: Peer, mail: &Mail<'_>, out: &mut Output<'_>) -> State {
        match self.mail_refusal(&peer, &mail.parameters) {
            Some(reply) => {
                self.refuse(Verb::Mail, reply, out);
                State::Commands(Stage::Idle(peer))
            }
            None => {
                let transaction = Box::new(Transaction::new(mail, &self.settings, now));
                out.reply(Verb::Mail, replies::SENDER_OK);
                State::Commands(Stage::Addressing(peer, transaction))
            }
        }
    }

    fn mail_refusal(&self, peer: &Peer, parameters: &MailParameters<'_>) -> Option<Reply> {
        let policy = self.policy();
        if policy.wants_auth() && peer.authenticated.is_none() {
            return Some(replies::AUTH_REQUIRED);
        }
        match peer.greeting {
            // RFC 5321 §2.2.1, §4.1.1.11: HELO opened no extension, and without one there are no
            // parameters to be recognized.
            Greeting::Helo if *parameters != MailParameters::default() => {
                return Some(replies::PARAMETERS_UNKNOWN);
            }
            // RFC 4954 §5: AUTH= belongs to the AUTH extension.
            Greeting::Ehlo if parameters.auth.is_some() && !policy.offers_auth() => {
                return Some(replies::PARAMETERS_UNKNOWN);
            }
            Greeting::Helo | Greeting::Ehlo => {}
        }
        // RFC 1870 §6.1.
        parameters
            .declared_octets
            .filter(|octets| *octets > self.settings.limits.message_octets_max)
            .map(|_| replies::TOO_LARGE)
    }

    /// RCPT (RFC 5321 §4.1.1.3).
    fn rcpt(
        &mut self,
        peer: Peer,
        mut transaction: Box<Transaction>,
        rcpt: &Rcpt<'_>,
        out: &mut Output<'_>,
    ) -> State {
        // As for MAIL: HELO opened no extension.
        if peer.greeting == Greeting::Helo && rcpt.parameters != RcptParameters::default() {
            self.refuse(Verb::Rcpt, replies::PARAMETERS_UNKNOWN, out);
            return State::Commands(Stage::Addressing(peer, transaction));
        }
        let count = transaction.envelope.recipients.len();
        let recipient = if count >= self.settings.limits.recipients_max {
            Err(replies::RECIPIENTS_TOO_MANY)
        } else {
            self.recipient(&peer, &rcpt.forward_path)
        };
        match recipient {
            Ok(recipient) => {
                transaction.envelope.recipients.push(Recipient {
                    dsn: rcpt.parameters.dsn(),
                    ..recipient
                });
                out.reply(Verb::Rcpt, replies::RECIPIENT_OK);
            }
            Err(reply) => {
                transaction.recipients_refused = RecipientsRefused::Some;
                self.refuse(Verb::Rcpt, reply, out);
            }
        }
        State::Commands(Stage::Addressing(peer, transaction))
    }

    /// Whether mail for `forward_path` is taken from `peer`.
    fn recipient(&self, peer: &Peer, forward_path: &ForwardPath<'_>) -> Result<Recipient, Reply> {
        let settings = &self.settings;
        let recipient = Recipient::new(forward_path, settings.local_domains.first());
        if settings.local_domains.contains(&recipient.domain) {
            // RFC 5321 §4.5.1: postmaster exists wherever mail is taken.
            let exists = recipient.local_part.eq_ignore_ascii_case("postmaster")
                || settings
                    .recipients
                    .as_ref()
                    .is_none_or(|known| known.contains(&recipient.local_part, &recipient.domain));
            return if exists {
                Ok(recipient)
            } else {
                Err(replies::RECIPIENT_UNKNOWN)
            };
        }
        if peer.authenticated.is_some() || settings.trusts(self.address.ip()) {
            return Ok(recipient);
        }
        Err(replies::RELAYING_DENIED)
    }

    /// DATA (RFC 5321 §4.1.1.4).
    fn data(&mut self, peer: Peer, transaction: Box<Transaction>, out: &mut Output<'_>) -> State {
        let reply = match (transaction.recipients_missing(), transaction.envelope.body) {
            (Some(reply), Body::SevenBit | Body::EightBitMime | Body::BinaryMime) => reply,
            (None, Body::BinaryMime) => replies::BINARY_WANTS_BDAT,
            (None, Body::SevenBit | Body::EightBitMime) => {
                out.reply(Verb::Data, replies::SEND_DATA);
                let end_of_data = EndOfData::new(self.settings.stray_newline);
                return State::Receiving(peer, transaction, end_of_data);
            }
        };
        self.refuse(Verb::Data, reply, out);
        State::Commands(Stage::Addressing(peer, transaction))
    }

    /// All octets of a chunk came.
    fn chunk_ended(
        &mut self,
        now: Instant,
        peer: Peer,
        transaction: Box<Transaction>,
        chunk: Chunk,
        out: &mut Output<'_>,
    ) -> Next {
        let findings = transaction.chunk_findings();
        // RFC 3030 §2: after a refused chunk the transaction is over; chunks sent on meanwhile are
        // read and get 503.
        if chunk.is_last() || transaction.refusal(findings).is_some() {
            return self.message_ended(now, Verb::Bdat, peer, transaction, findings, out);
        }
        out.reply_with(
            Verb::Bdat,
            replies::CHUNK_OK,
            &transaction.chunk_octets.to_string(),
            "",
        );
        (
            State::Commands(Stage::Chunking(peer, transaction)),
            Effect::Input,
        )
    }

    /// The message is there, or as much of it as decides its fate.
    fn message_ended(
        &mut self,
        now: Instant,
        verb: Verb,
        peer: Peer,
        transaction: Box<Transaction>,
        findings: Findings,
        out: &mut Output<'_>,
    ) -> Next {
        if let Some(reply) = transaction.refusal(findings) {
            self.refuse(verb, reply, out);
            report(&transaction, Outcome::Refused(reply.code), now, out);
            return (State::Commands(Stage::Idle(peer)), Effect::Input);
        }
        let Transaction {
            octets, started, ..
        } = *transaction;
        let Some((envelope, stored_octets, data)) = transaction.into_message() else {
            debug_assert!(false, "what is not kept is refused");
            return (State::Closing, Effect::Close);
        };
        let committing = Committing {
            verb,
            envelope: Arc::clone(&envelope),
            octets,
            stored_octets,
            started,
            peer,
        };
        let origin = self.origin(&committing.peer, &envelope);
        let message = Box::new(Message {
            envelope,
            stored_octets,
            data,
            origin,
        });
        (State::Committing(committing), Effect::Commit(message))
    }

    fn origin(&self, peer: &Peer, envelope: &Envelope) -> Origin {
        let dialect = match (peer.greeting, envelope.smtputf8) {
            (Greeting::Helo, _) => Dialect::Smtp,
            (Greeting::Ehlo, false) => Dialect::Esmtp,
            (Greeting::Ehlo, true) => Dialect::Utf8Smtp,
        };
        let security = self.security.as_deref();
        Origin {
            peer: self.address,
            greeted_as: Arc::clone(&peer.greeted_as),
            protocol: Protocol::of(dialect, security, peer.authenticated.as_deref()),
            security: self.security.clone(),
            authenticated: peer.authenticated.clone(),
        }
    }

    /// AUTH (RFC 4954 §4).
    fn auth(
        &mut self,
        peer: Peer,
        mechanism: &str,
        initial: Option<&[u8]>,
        out: &mut Output<'_>,
    ) -> Next {
        // RFC 4954 §4: after a successful AUTH no more may be issued.
        let refusal = if peer.authenticated.is_some() {
            replies::AUTH_TWICE
        } else if let Some(mechanism) = Mechanism::named(mechanism) {
            return self.exchange(peer, Exchange::start(mechanism, initial), out);
        } else {
            replies::MECHANISM_UNKNOWN
        };
        self.refuse(Verb::Auth, refusal, out);
        (State::Commands(Stage::Idle(peer)), Effect::Input)
    }

    /// A line of an AUTH exchange. One that is no line ends the exchange.
    fn exchange_line(
        &mut self,
        peer: Peer,
        exchange: Exchange,
        line: Result<Line<'_>, LineError>,
        out: &mut Output<'_>,
    ) -> Next {
        match line {
            Ok(line) => self.exchange(peer, exchange.receive(line.octets()), out),
            Err(error) => {
                let (_, reply) = line_refusal(error);
                self.refuse(Verb::Auth, reply, out);
                (State::Commands(Stage::Idle(peer)), Effect::Input)
            }
        }
    }

    fn exchange(
        &mut self,
        peer: Peer,
        step: Result<Step, ExchangeError>,
        out: &mut Output<'_>,
    ) -> Next {
        let refusal = match step {
            Ok(Step::Challenge(exchange, challenge)) => {
                out.reply_with(Verb::Auth, replies::CHALLENGE, challenge, "");
                return (State::Authenticating(peer, exchange), Effect::Input);
            }
            Ok(Step::Complete(credentials)) => {
                let name = Arc::from(credentials.name.as_str());
                return (State::Verifying(peer, name), Effect::Verify(credentials));
            }
            Err(ExchangeError::Cancelled) => replies::AUTH_CANCELLED,
            Err(ExchangeError::Malformed) => replies::AUTH_MALFORMED,
        };
        self.refuse(Verb::Auth, refusal, out);
        (State::Commands(Stage::Idle(peer)), Effect::Input)
    }

    /// Writes a refusal and counts it.
    fn refuse(&mut self, verb: Verb, reply: Reply, out: &mut Output<'_>) {
        out.reply(verb, reply);
        match reply.refusal {
            Some(Refusal::AuthFailed) => {
                self.auth_failures = self.auth_failures.saturating_add(1);
            }
            Some(refusal) if refusal.is_error_of_peer() => {
                self.errors = self.errors.saturating_add(1);
            }
            Some(_) | None => {}
        }
    }

    /// After each step: ends a session with too many errors, and one that had only its transaction
    /// to finish.
    fn settle(&mut self, now: Instant, verb: Verb, out: &mut Output<'_>) -> Effect {
        let errors = self.errors.saturating_add(self.auth_failures);
        if errors >= self.settings.limits.errors_max.max(1) {
            self.close(now, verb, replies::ERRORS_TOO_MANY, out);
        } else if self.is_drained() {
            self.close(now, verb, replies::GOING_DOWN, out);
        }
        if self.is_closing() {
            Effect::Close
        } else {
            Effect::Input
        }
    }

    /// Whether the server goes down and nothing is left to finish here.
    fn is_drained(&self) -> bool {
        match (self.drain, &self.state) {
            (Drain::AfterTransaction, State::Commands(Stage::Greeted | Stage::Idle(_))) => true,
            (
                Drain::No | Drain::AfterTransaction,
                State::Connected
                | State::Commands(_)
                | State::Authenticating(..)
                | State::Verifying(..)
                | State::Receiving(..)
                | State::ReceivingChunk(..)
                | State::SkippingChunk(..)
                | State::Storing(..)
                | State::Committing(_)
                | State::Securing
                | State::Closing,
            ) => false,
        }
    }

    /// Ends the session from this side, with a 421.
    fn close(&mut self, now: Instant, verb: Verb, reply: Reply, out: &mut Output<'_>) {
        if self.is_closing() {
            return;
        }
        self.abandon(now, out);
        self.state = State::Closing;
        self.partial.clear();
        let hostname = match reply.refusal {
            Some(Refusal::TooManyErrors) => "",
            Some(_) | None => self.settings.hostname.as_str(),
        };
        out.reply_with(verb, reply, hostname, "");
    }

    /// Reports a transaction that will not come to its end.
    fn abandon(&self, now: Instant, out: &mut Output<'_>) {
        match &self.state {
            State::Commands(
                Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction),
            )
            | State::SkippingChunk(
                Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction),
                ..,
            )
            | State::Receiving(_, transaction, _)
            | State::ReceivingChunk(_, transaction, _)
            | State::Storing(_, transaction, _) => {
                report(transaction, Outcome::Abandoned, now, out);
            }
            State::Connected
            | State::Commands(Stage::Greeted | Stage::Idle(_))
            | State::SkippingChunk(Stage::Greeted | Stage::Idle(_), ..)
            | State::Authenticating(..)
            | State::Verifying(..)
            | State::Committing(_)
            | State::Securing
            | State::Closing => {}
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            channel: match self.security {
                None => ChannelKind::Clear,
                Some(_) => ChannelKind::Tls,
            },
            starttls: self.settings.starttls,
            tcp: self.settings.tcp,
            tls: self.settings.tls,
        }
    }

    fn session_deadline(&self) -> Instant {
        after(self.opened, self.settings.limits.session_timeout)
    }
}

impl Stage {
    /// Which octets an address may have here (RFC 6531 §3.4: what MAIL said holds for RCPT).
    fn addresses(&self) -> Addresses {
        match self {
            Stage::Addressing(_, transaction) | Stage::Chunking(_, transaction)
                if transaction.envelope.smtputf8 =>
            {
                Addresses::Utf8
            }
            Stage::Greeted | Stage::Idle(_) | Stage::Addressing(..) | Stage::Chunking(..) => {
                Addresses::Ascii
            }
        }
    }

    fn has_extensions(&self) -> bool {
        self.peer()
            .is_some_and(|peer| peer.greeting == Greeting::Ehlo)
    }

    fn peer(&self) -> Option<&Peer> {
        match self {
            Stage::Greeted => None,
            Stage::Idle(peer) | Stage::Addressing(peer, _) | Stage::Chunking(peer, _) => Some(peer),
        }
    }
}

impl Peer {
    fn new(name: &str, greeting: Greeting, before: Option<Peer>) -> Peer {
        let authenticated = before.and_then(|peer| peer.authenticated);
        Peer {
            greeted_as: Arc::from(name),
            greeting,
            authenticated,
        }
    }
}

/// BDAT (RFC 3030 §2) that may come.
fn chunk(peer: Peer, mut transaction: Box<Transaction>, octets: u64, last: bool) -> State {
    transaction.announce(octets);
    State::ReceivingChunk(peer, transaction, Chunk::new(octets, last))
}

fn report(transaction: &Transaction, outcome: Outcome<'_>, now: Instant, out: &mut Output<'_>) {
    out.transaction(&TransactionRecord {
        envelope: &transaction.envelope,
        octets: transaction.octets,
        outcome,
        started: transaction.started,
        ended: now,
    });
}

fn failure_reply(failure: CommitFailure) -> Reply {
    match failure {
        CommitFailure::NoSpace => replies::NO_SPACE,
        CommitFailure::Failed => replies::COMMIT_FAILED,
    }
}

fn verb_of(command: &Result<Command<'_>, CommandError>) -> Verb {
    match command {
        Ok(command) => command.verb(),
        Err(error) => error.verb(),
    }
}

fn syntax_refusal(error: CommandError) -> Reply {
    let refusal = match error {
        CommandError::Unknown
        | CommandError::ArgumentMissing(_)
        | CommandError::ArgumentUnexpected(_)
        | CommandError::Syntax(_)
        | CommandError::BadAddress(_) => Refusal::Syntax,
        CommandError::NonAsciiAddress(_) => Refusal::Address,
        CommandError::UnknownParameter(_)
        | CommandError::BadParameter(_)
        | CommandError::RepeatedParameter(_) => Refusal::Parameter,
    };
    Reply::refusal(error.code(), error.enhanced(), error.text(), refusal)
}

fn line_refusal(error: LineError) -> (Verb, Reply) {
    match error {
        LineError::TooLong {
            octets_max: policy::AUTH_OCTETS_MAX,
        } => (Verb::Auth, replies::AUTH_LINE_TOO_LONG),
        LineError::TooLong {
            octets_max: policy::MAIL_OCTETS_MAX,
        } => (Verb::Mail, replies::LINE_TOO_LONG),
        LineError::TooLong {
            octets_max: policy::RCPT_OCTETS_MAX,
        } => (Verb::Rcpt, replies::LINE_TOO_LONG),
        LineError::TooLong { .. } => (Verb::Unknown, replies::LINE_TOO_LONG),
        LineError::EndsInLf => (Verb::Unknown, replies::LINE_END),
    }
}

/// `instant` and `wait` later, or much later if that cannot be said.
fn after(instant: Instant, wait: Duration) -> Instant {
    instant.checked_add(wait).unwrap_or(instant + NEVER)
}

/// Longer than any session: a year.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
