//! One connection: moves octets between the ring, TLS and the protocol core, and performs its effects.
//!
//! ```text
//!  receive ─▶ [TLS] ─▶ Session::receive ─▶ Effect ─┬─ Input: send what was said, receive again
//!     ▲                                            ├─ Secure: handshake, then as new
//!     └───────────── replies ◀─────────────────────┼─ Verify, Store, Commit: wait, tell the session, go on
//!                                                  └─ Close: say the rest, terminate, join, close
//! ```
//!
//! Invariants:
//! - A receive buffer is given back in the step that took it. What the session leaves unread is copied, so no
//!   wait, however long, holds a buffer of the pool.
//! - Input is received when the replies to the last have left, so what is owed to a peer that does not read
//!   stays bounded.
//! - Every wait on the peer is an operation on its socket and ends by the deadline that `watch` enforces.
//! - A session ends as terminate, join, close: no send in flight is dropped, and a receive that still is cancelled with
//!   its receiver closes the socket when it is over.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::account::{Account, Ending, LastWords};
use super::limits::Admission;
use super::watch::Watched;
use super::{EarlyGreeting, Shard};
use crate::control::metrics::{AuthOutcome, HandshakeKind, Listener, TlsMeans, TlsVersion};
use crate::deliver::{AcceptError, Durability, Stored};
use crate::ring::{ReceiveBuffer, Sending, Sent, Socket};
use crate::smtp::data::MailData;
use crate::smtp::message::{Message, Security};
use crate::smtp::reply::Output;
use crate::smtp::sasl::Credentials;
use crate::smtp::server::{
    Channel, CommitFailure, Connection, Effect, Session, TlsAvailability, Verdict,
};
use crate::spool::CommitError;
use crate::tls::{self, Facts, GreetingSent, Handshake, Read};

/// A session and what it speaks through.
pub(super) struct Dialogue {
    shard: Rc<Shard>,
    watched: Rc<Watched>,
    account: Account,
    session: Session,
    channel: Wire,
    /// Plaintext that the session has not taken yet.
    unread: Vec<u8>,
    /// Replies that are not on their way yet.
    replies: Vec<u8>,
    sending: Option<Sending>,
    /// What was put away of the message under way.
    stored: Option<Box<Stored>>,
    drain: DrainNotice,
    /// How it ended, once it has. Boxed: an idle session is to be small.
    ending: Option<Box<Ending>>,
    _admission: Admission,
}

/// What octets go through.
enum Wire {
    Clear,
    Tls(Box<tls::Connection>),
}

/// Whether the session knows that the server goes down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DrainNotice {
    Due,
    Given,
}

impl Dialogue {
    pub(super) fn new(
        shard: Rc<Shard>,
        socket: Socket,
        peer: SocketAddr,
        local: SocketAddr,
        listener: Listener,
        admission: Admission,
    ) -> Box<Dialogue> {
        let now = Instant::now();
        let channel = match listener {
            Listener::Tcp => Channel::Clear,
            Listener::Tls => Channel::Tls(Security::default()),
        };
        let settings = shard.common.settings.load_full();
        let mut session = Session::new(
            settings,
            Connection {
                peer,
                local,
                channel,
            },
            now,
        );
        if shard.contexts.load().is_none() {
            session.set_tls_availability(TlsAvailability::Unavailable);
        }
        let watched = shard.watch.add(socket, &shard.intake, session.deadline());
        let id = shard.next_session();
        let account = Account::open(
            Rc::clone(&shard.metrics),
            id,
            listener,
            peer,
            local,
            now,
            shard.common.delivery.durability,
        );
        Box::new(Dialogue {
            shard,
            watched,
            account,
            session,
            channel: Wire::Clear,
            unread: Vec::new(),
            replies: Vec::new(),
            sending: None,
            stored: None,
            drain: DrainNotice::Due,
            ending: None,
            _admission: admission,
        })
    }

    /// Runs the session to its end. Boxed: a future keeps an argument twice, as given and as moved.
    pub(super) async fn run(mut self: Box<Self>) {
        // Only what an idle session waits in lies in its task; the rest is boxed for as long as it takes.
        let ending = match Box::pin(self.open()).await {
            Ok(()) => self.talk().await,
            Err(ending) => ending,
        };
        Box::pin(self.finish(ending)).await;
    }

    /// Comes as far as the greeting.
    async fn open(&mut self) -> Result<(), Ending> {
        match (self.account.listener(), self.shard.common.early_greeting) {
            (Listener::Tcp, _) => self.greet(),
            (Listener::Tls, EarlyGreeting::Yes) => {
                self.greet();
                let greeting = mem::take(&mut self.replies);
                Box::pin(self.secure(TlsMeans::Implicit, Some(greeting))).await?;
            }
            (Listener::Tls, EarlyGreeting::No) => {
                Box::pin(self.secure(TlsMeans::Implicit, None)).await?;
                self.greet();
            }
        }
        Ok(())
    }

    fn greet(&mut self) {
        self.tell(|session, now, out| session.greet(now, out));
    }

    /// The dialogue, from behind the greeting to its end.
    async fn talk(&mut self) -> Ending {
        // An early-greeted client's first commands ride behind its Finished, so they are inside TLS's
        // buffer already.
        let mut effect = self.pump();
        loop {
            effect = match effect {
                Ok(Effect::Input) if self.session.is_closing() => return Ending::Said,
                Ok(Effect::Input) if self.unread.is_empty() => match self.receive().await {
                    Ok(buffer) => self.take_in(buffer),
                    Err(ending) => Err(ending),
                },
                // The session wants its replies sent before it takes the rest.
                Ok(Effect::Input) => match Box::pin(self.flush()).await {
                    Ok(()) => self.pump(),
                    Err(ending) => Err(ending),
                },
                Ok(Effect::Secure) => match Box::pin(self.negotiate()).await {
                    Ok(()) => self.pump(),
                    Err(ending) => Err(ending),
                },
                Ok(Effect::Verify(credentials)) => {
                    Box::pin(self.verify(credentials)).await;
                    self.pump()
                }
                Ok(Effect::Store(part)) => {
                    Box::pin(self.store(*part)).await;
                    self.pump()
                }
                Ok(Effect::Commit(message)) => {
                    Box::pin(self.commit(message)).await;
                    self.pump()
                }
                Ok(Effect::Close) => return Ending::Said,
                Err(ending) => return ending,
            };
        }
    }

    /// Sends what was said and waits for the peer's next octets.
    async fn receive(&mut self) -> Result<ReceiveBuffer, Ending> {
        if self.stored.is_some() && self.session.stored_octets() == 0 {
            Box::pin(self.discard_stored()).await;
        }
        self.watched.set_deadline(self.session.deadline());
        self.start_sending().await?;
        self.sent().await?;
        loop {
            if self.watched.is_expired() {
                self.tell(|session, now, out| session.expired(now, out));
                return Err(Ending::Expired);
            }
            if self.shard.watch.is_draining() && self.drain == DrainNotice::Due {
                self.drain = DrainNotice::Given;
                if self.tell(|session, now, out| session.drain(now, out)) {
                    return Err(Ending::Drained);
                }
                self.watched.set_deadline(self.session.deadline());
            }
            match self.watched.receive().await {
                Ok(Some(buffer)) => {
                    self.account.received(buffer.len());
                    return Ok(buffer);
                }
                Ok(None) => return Err(Ending::PeerClosed),
                Err(error) => self.retry_receive(error)?,
            }
        }
    }

    /// Sorts a failed receive: nothing for one that is worth another try.
    fn retry_receive(&self, error: io::Error) -> Result<(), Ending> {
        match error.raw_os_error() {
            // Interrupted by the tick or by the drain; the caller looks which.
            Some(libc::ECANCELED) => Ok(()),
            Some(libc::ENOBUFS) => {
                self.account.metrics().receive_buffers_short();
                Ok(())
            }
            _ => Err(Ending::Lost(error)),
        }
    }

    /// Runs the session over octets that arrived. The buffer goes back on return.
    fn take_in(&mut self, buffer: ReceiveBuffer) -> Result<Effect, Ending> {
        match &mut self.channel {
            Wire::Clear => Ok(self.digest(&buffer)),
            Wire::Tls(connection) => {
                connection.receive(&buffer);
                drop(buffer);
                self.pump()
            }
        }
    }

    /// Runs the session over what it has not taken yet, as far as that goes without new octets.
    fn pump(&mut self) -> Result<Effect, Ending> {
        let shard = Rc::clone(&self.shard);
        loop {
            let effect = if self.unread.is_empty() {
                let Wire::Tls(connection) = &mut self.channel else {
                    return Ok(Effect::Input);
                };
                let mut plaintext = shard.plaintext.borrow_mut();
                match connection.read(&mut plaintext) {
                    Read::Octets(count) => self.digest(plaintext.get(..count).unwrap_or_default()),
                    Read::WantsInput => return Ok(Effect::Input),
                    Read::Closed => return Err(Ending::PeerClosed),
                    Read::Failed(error) => return Err(Ending::Tls(error)),
                }
            } else {
                let rest = mem::take(&mut self.unread);
                self.digest(&rest)
            };
            match effect {
                // More than fits into one send: the rest waits for that.
                Effect::Input if !self.unread.is_empty() => return Ok(Effect::Input),
                Effect::Input if self.session.is_closing() => return Ok(Effect::Close),
                Effect::Input => {}
                Effect::Secure
                | Effect::Verify(_)
                | Effect::Store(_)
                | Effect::Commit(_)
                | Effect::Close => return Ok(effect),
            }
        }
    }

    /// Gives plaintext to the session; what it does not take is kept.
    fn digest(&mut self, plaintext: &[u8]) -> Effect {
        let mut input = plaintext;
        let effect = self.tell(|session, now, out| session.receive(now, &mut input, out));
        self.unread.extend_from_slice(input);
        effect
    }

    /// Calls the session with the time and a place for its replies.
    fn tell<T>(&mut self, call: impl FnOnce(&mut Session, Instant, &mut Output<'_>) -> T) -> T {
        let mut replies = mem::take(&mut self.replies);
        if replies.capacity() == 0 {
            replies = self.shard.take_vector();
        }
        let mut out = Output::new(replies, &self.account);
        let outcome = call(&mut self.session, Instant::now(), &mut out);
        self.replies = out.into_octets();
        outcome
    }

    /// Puts the replies on their way, behind those that are.
    async fn start_sending(&mut self) -> Result<(), Ending> {
        let replies = mem::take(&mut self.replies);
        let octets = match &mut self.channel {
            Wire::Clear => replies,
            Wire::Tls(connection) => {
                let written = connection.write(&replies);
                self.shard.give_vector(replies);
                written.map_err(Ending::Tls)?;
                connection.outbound()
            }
        };
        if octets.is_empty() {
            self.shard.give_vector(octets);
            return Ok(());
        }
        self.sent().await?;
        self.send(octets)
    }

    /// Sends octets behind which nothing else is on its way.
    fn send(&mut self, octets: Vec<u8>) -> Result<(), Ending> {
        self.account.sent(octets.len());
        match self.watched.send(octets) {
            Sent::AtOnce(octets) => self.shard.give_vector(octets),
            Sent::InFlight(sending) => self.sending = Some(sending),
            Sent::Failed(error) => return Err(Ending::Lost(error)),
        }
        Ok(())
    }

    /// Waits until what is on its way has left.
    async fn sent(&mut self) -> Result<(), Ending> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let (octets, outcome) = sending.await;
        self.sending = None;
        self.shard.give_vector(octets);
        match outcome {
            Err(_cancelled) if self.watched.is_expired() => Err(Ending::Unread),
            other => other.map_err(Ending::Lost),
        }
    }

    /// Sends what was said and waits until it has left.
    async fn flush(&mut self) -> Result<(), Ending> {
        self.watched
            .set_deadline(self.session.deadline().min(Instant::now() + FLUSH_MAX));
        self.start_sending().await?;
        self.sent().await
    }

    /// STARTTLS was granted (RFC 3207 §4).
    async fn negotiate(&mut self) -> Result<(), Ending> {
        self.flush().await?;
        if !self.unread.is_empty() {
            return Err(self.injected());
        }
        match Box::pin(self.secure(TlsMeans::StartTls, None)).await {
            // What came first was not TLS: the same attack in a segment of its own.
            Err(Ending::Handshake(error)) if error.fault == tls::Fault::NotTls => {
                Err(self.injected())
            }
            other => other,
        }
    }

    fn injected(&mut self) -> Ending {
        self.unread = Vec::new();
        self.tell(|session, now, out| session.injected(now, out));
        Ending::Injected
    }

    /// Makes the handshake and puts the session behind it.
    async fn secure(&mut self, means: TlsMeans, greeting: Option<Vec<u8>>) -> Result<(), Ending> {
        let started = Instant::now();
        self.watched
            .set_deadline(started + self.shard.common.handshake_timeout);
        let later = greeting.clone();
        let (connection, greeting_sent) = match self.handshake(greeting).await {
            Ok(done) => done,
            Err(ending) => {
                if let Some(failure) = ending.handshake_failure() {
                    self.account.metrics().handshake_failed(failure);
                }
                // Counted as what it is; it was no reply that the peer did not read.
                let unread = matches!(ending, Ending::Unread);
                return Err(if unread { Ending::Expired } else { ending });
            }
        };
        let facts = connection.facts();
        let now = Instant::now();
        let kind = if facts.resumed {
            HandshakeKind::Resumed
        } else {
            HandshakeKind::Full
        };
        self.account.metrics().handshake(kind, now - started);
        self.account
            .metrics()
            .tls_session(TlsVersion::of(facts.version), means);
        self.session.secured(now, security_of(&facts));
        self.account.secured(facts);
        // What is left to be sent, tickets above all, leaves with the next replies.
        self.channel = Wire::Tls(connection);
        if let (GreetingSent::No, Some(greeting)) = (greeting_sent, later) {
            self.replies = greeting;
        }
        Ok(())
    }

    async fn handshake(
        &mut self,
        greeting: Option<Vec<u8>>,
    ) -> Result<(Box<tls::Connection>, GreetingSent), Ending> {
        let connection = match self.shard.contexts.load().as_ref() {
            None => return Err(Ending::NoTls),
            Some(contexts) => tls::Connection::accept(contexts, greeting).map_err(|error| {
                tracing::error!(session = %self.account.id(), %error, "no TLS for a session");
                Ending::NoTls
            })?,
        };
        let mut connection = Box::new(connection);
        loop {
            match connection.handshake() {
                Handshake::Done(greeting_sent) => return Ok((connection, greeting_sent)),
                Handshake::WantsInput => {
                    self.send_ciphertext(&mut connection).await?;
                    let buffer = self.receive_handshake().await?;
                    connection.receive(&buffer);
                }
                Handshake::Failed(error) => {
                    // In clear nothing is said, not even an alert, to one who does not speak TLS. An alert
                    // that does not leave changes nothing about the fault.
                    if error.fault != tls::Fault::NotTls {
                        let _ = self.send_ciphertext(&mut connection).await;
                    }
                    return Err(Ending::Handshake(error));
                }
            }
        }
    }

    /// Sends what TLS has to say, and waits until it has left.
    async fn send_ciphertext(&mut self, connection: &mut tls::Connection) -> Result<(), Ending> {
        if connection.has_outbound() {
            self.send(connection.outbound())?;
        }
        self.sent().await
    }

    async fn receive_handshake(&mut self) -> Result<ReceiveBuffer, Ending> {
        loop {
            if self.watched.is_expired() {
                return Err(Ending::Expired);
            }
            if self.shard.watch.is_draining() {
                return Err(Ending::Drained);
            }
            match self.watched.receive().await {
                Ok(Some(buffer)) => {
                    self.account.received(buffer.len());
                    return Ok(buffer);
                }
                Ok(None) => return Err(Ending::PeerClosed),
                Err(error) => self.retry_receive(error)?,
            }
        }
    }

    /// Has credentials checked off the shard's thread. A failure is answered late, and later each time.
    async fn verify(&mut self, credentials: Credentials) {
        self.watched.set_deadline(Instant::now() + EFFECT_MAX);
        let common = &self.shard.common;
        let users = common.users.load_full();
        let queued = common.verifier.verify(
            users,
            self.account.peer().ip(),
            &credentials.name,
            credentials.password,
        );
        let verdict = match queued {
            Err(_busy) => Verdict::Unavailable,
            Ok(checked) => match checked.await {
                Ok(true) => Verdict::Accepted,
                Ok(false) => Verdict::Refused,
                Err(_gone) => Verdict::Unavailable,
            },
        };
        self.account.metrics().auth(match verdict {
            Verdict::Accepted => AuthOutcome::Accepted,
            Verdict::Refused => AuthOutcome::Refused,
            Verdict::Unavailable => AuthOutcome::Unavailable,
        });
        // 454 comes late as well: asking again at once is to be of no use.
        if verdict != Verdict::Accepted {
            tokio::time::sleep(self.account.auth_failed()).await;
        }
        self.tell(|session, now, out| session.verified(now, verdict, out));
    }

    /// Has a message made safe.
    async fn commit(&mut self, message: Box<Message>) {
        let started = Instant::now();
        self.watched.set_deadline(started + EFFECT_MAX);
        if message.stored_octets == 0 {
            self.discard_stored().await;
        }
        let stored = self.stored.take().map(|stored| *stored);
        if self.shard.common.delivery.durability == Durability::NextHop {
            // The next hop may take its time, and what was said before is not to wait for it. A peer that is gone
            // is noticed with the next reply.
            let _ = self.start_sending().await;
        }
        let queue = self.shard.queue.clone();
        let outcome = queue.accept(*message, stored).await;
        self.account.metrics().commit(started.elapsed());
        match outcome {
            Ok(queue_id) => {
                let queue_id = queue_id.to_string();
                self.tell(|session, now, out| session.committed(now, Ok(&queue_id), out));
            }
            Err(error) => {
                tracing::warn!(session = %self.account.id(), %error, "message not accepted");
                self.tell(|session, now, out| match &error {
                    AcceptError::Commit(error) => {
                        session.committed(now, Err(failure_of(error)), out)
                    }
                    AcceptError::Refused(failure) => {
                        let (code, text) = failure.as_reply();
                        session.refused_by_hop(now, code, &text, out)
                    }
                });
            }
        }
    }

    /// Puts a part of a large message away.
    async fn store(&mut self, part: MailData) {
        self.watched.set_deadline(Instant::now() + EFFECT_MAX);
        let outcome = match self.store_part(part).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(session = %self.account.id(), %error, "message not accepted");
                Err(failure_of(&error))
            }
        };
        self.tell(|session, now, out| session.stored(now, outcome, out));
    }

    async fn store_part(&mut self, part: MailData) -> Result<(), CommitError> {
        if self.session.stored_octets() == 0 {
            // What there may be is of a message before.
            self.discard_stored().await;
        }
        let mut stored = match self.stored.take() {
            Some(stored) => stored,
            None => Box::new(self.shard.queue.begin_stored().await?),
        };
        let outcome = stored.append(part).await;
        self.stored = Some(stored);
        outcome.map(drop)
    }

    /// Removes what was put away of a message that does not come any more.
    async fn discard_stored(&mut self) {
        if let Some(stored) = self.stored.take() {
            stored.discard().await;
        }
    }

    /// Says the rest, then terminates, joins what is in flight, and closes.
    async fn finish(mut self: Box<Self>, ending: Ending) {
        self.tell(|session, now, out| session.lost(now, out));
        self.watched.set_deadline(Instant::now() + LAST_WORDS_MAX);
        let said = match ending.last_words() {
            LastWords::Replies => self.flush_last().await.is_ok(),
            LastWords::Alert => self.alert().await.is_ok(),
            LastWords::None => false,
        };
        self.ending = Some(Box::new(ending));
        self.discard_stored().await;
        if said && self.peer_may_be_writing() {
            self.linger().await;
        }
        if self.sending.is_some() {
            // Join: the operation completes by the cancellation, if not by itself.
            self.watched.socket().cancel();
            let _ = self.sent().await;
        }
        // Close: the last share of the socket does it. It goes with us, or with the receive that is cancelled
        // when we go.
    }

    /// Sends what TLS says of its own end, and no reply behind it (RFC 8446 §6.2).
    async fn alert(&mut self) -> Result<(), Ending> {
        self.sent().await?;
        if let Wire::Tls(connection) = &mut self.channel {
            let alert = connection.outbound();
            if !alert.is_empty() {
                self.send(alert)?;
            }
        }
        self.sent().await
    }

    /// Sends the replies that are left, and the end of TLS.
    async fn flush_last(&mut self) -> Result<(), Ending> {
        if let Wire::Tls(connection) = &mut self.channel {
            let replies = mem::take(&mut self.replies);
            let _ = connection.write(&replies);
            connection.close();
        }
        self.start_sending().await?;
        self.sent().await
    }

    /// Whether octets may still come: not after QUIT in clear, when the peer only waits for our end; inside TLS
    /// its close_notify is due.
    fn peer_may_be_writing(&self) -> bool {
        !self.account.ended_by_quit() || matches!(self.channel, Wire::Tls(_))
    }

    /// Waits, for a while, until the peer has seen the end: closing with octets unread would reset the
    /// connection and could take our last reply from it.
    async fn linger(&mut self) {
        self.watched.socket().shutdown().await;
        self.watched.set_deadline(Instant::now() + LINGER_MAX);
        let mut octets = 0;
        while octets < LINGER_OCTETS_MAX && !self.watched.is_expired() {
            match self.watched.receive().await {
                Ok(Some(buffer)) => octets += buffer.len(),
                Ok(None) => return,
                Err(error) => {
                    if self.retry_receive(error).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Drop for Dialogue {
    /// Also when the task panicked: the session is gone from the books, and its peer is not kept waiting.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.watched.socket().cancel();
        }
        self.shard.watch.remove(&self.watched);
        let ending = self.ending.as_deref();
        self.account.close(ending.unwrap_or(&Ending::TornDown));
    }
}

/// What the peer is told of it.
fn failure_of(error: &CommitError) -> CommitFailure {
    if error.is_exhaustion() {
        CommitFailure::NoSpace
    } else {
        CommitFailure::Failed
    }
}

fn security_of(facts: &Facts) -> Security {
    Security {
        version: facts.version,
        cipher: facts.cipher.clone(),
        bits: facts.bits,
        resumed: facts.resumed,
        client_subject: facts
            .peer_certificate
            .as_ref()
            .map(|client| client.subject.clone()),
    }
}

/// Bounds a flush in the middle of a dialogue.
const FLUSH_MAX: Duration = Duration::from_secs(300);

/// Effects have bounds of their own; the tick is to leave them alone.
const EFFECT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a peer has to take our last reply.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// How long, and for how many octets, we wait for the peer's end behind ours.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_OCTETS_MAX: usize = 1024 * 1024;
