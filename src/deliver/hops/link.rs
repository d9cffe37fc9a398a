//! One connection to a next hop: moves octets between the ring, TLS and the dialogue (`smtp::client`), and
//! performs what the dialogue asks for.
//!
//! ```text
//!  connect ─▶ [TLS] ─▶ greeting, EHLO ─▶ [STARTTLS ─▶ TLS ─▶ EHLO] ─▶ [AUTH] ─▶ ready ─▶ messages ─▶ QUIT
//! ```
//!
//! Invariants:
//! - Every wait ends: by the dialogue's deadline, or a while after the end of the server is wanted.
//! - An operation in flight is joined before its buffer is used again: a wait that is over is cancelled first.
//! - What came in clear behind the reply to STARTTLS is never read inside TLS (RFC 3207 §6).

use std::borrow::Cow;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::super::content::Source;
use super::super::ending::Ending;
use super::endpoint::Endpoint;
use super::meters::HopMeters;
use crate::ring::{Sent, Socket};
use crate::smtp::client::{
    After, Cause, Channel, ContentFacts, Effect, Failure, Outcome, Refusal, Scanner, Session,
    Settings, Transaction,
};
use crate::smtp::status::Status;
use crate::spool::ReadError;
use crate::tls::{self, ClientContext, Facts, Handshake, PeerName, Read, Verification};

/// A connection that is greeted and ready for messages.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    channel: Channels,
    session: Session,
    /// Messages that were sent, or tried to be.
    messages: u64,
    /// Whether content of the last one may have left.
    content_begun: bool,
    /// How TLS came out, for people: the version, the cipher, whether the peer is who it should be.
    pub(super) security: Security,
}

/// Whether and how a connection is secured.
#[derive(Clone, Debug)]
pub(super) enum Security {
    /// In clear.
    Clear,
    /// By TLS.
    Tls(Box<Facts>),
}

/// What octets go through.
struct Channels {
    socket: Socket,
    tls: Option<Box<tls::Connection>>,
    ending: Rc<Ending>,
    /// Received octets lie here, one receive at a time.
    received: Vec<u8>,
    /// Plaintext, or octets in clear, that the dialogue has not taken.
    unread: Vec<u8>,
    /// What the dialogue said and is not sent.
    said: Vec<u8>,
    /// Whether the peer has ended TLS: no more will come.
    is_over: bool,
}

/// What opening a connection needs.
pub(super) struct Opening<'a> {
    pub(super) settings: Arc<Settings>,
    pub(super) context: &'a ClientContext,
    /// Under which name TLS sessions are kept.
    pub(super) sessions_key: &'a str,
    pub(super) handshake_timeout: Duration,
    pub(super) ending: &'a Rc<Ending>,
    pub(super) meters: &'a HopMeters,
}

/// Why a connection did not come to be ready, or broke.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The dialogue came to its end.
    Dialogue(Failure),
    /// The socket failed.
    Io(&'static str, io::Error),
    /// The handshake failed: a clear connection may be an answer to that.
    Handshake(String),
    /// TLS broke behind the handshake.
    Tls(String),
    /// The server goes down.
    Ending,
    /// The message cannot be read.
    Content(ReadError),
}

/// What came of a message.
pub(super) enum Sending {
    /// The dialogue decided about each recipient.
    Finished(Outcome),
    /// It cannot be sent to this peer at all.
    Unsendable(Refusal),
}

/// How a wait ended that was not to be waited for any longer.
enum Cut {
    Deadline,
    Ending,
}

impl Link {
    /// Connects and greets.
    pub(super) async fn open(endpoint: Endpoint, opening: &Opening<'_>) -> Result<Link, LinkError> {
        Link::greet(endpoint, opening)
            .await
            .map_err(|error| match error {
                // In TLS 1.3 a server that does not like our certificate says so behind the handshake.
                LinkError::Tls(reason) => LinkError::Handshake(reason),
                error @ (LinkError::Dialogue(_)
                | LinkError::Io(..)
                | LinkError::Handshake(_)
                | LinkError::Ending
                | LinkError::Content(_)) => error,
            })
    }

    async fn greet(endpoint: Endpoint, opening: &Opening<'_>) -> Result<Link, LinkError> {
        let (socket, address) = endpoint.place.socket().map_err(connecting)?;
        let mut channel = Channels {
            socket,
            tls: None,
            ending: Rc::clone(opening.ending),
            received: Vec::with_capacity(RECEIVED_OCTETS),
            unread: Vec::new(),
            said: Vec::new(),
            is_over: false,
        };
        channel.connect(address).await?;
        let now = Instant::now();
        let (begin, security) = match endpoint.implicit_tls {
            false => (Channel::Clear, Security::Clear),
            true => {
                let facts = channel.secure(&endpoint, opening).await?;
                (Channel::Tls, Security::Tls(facts))
            }
        };
        let mut link = Link {
            session: Session::new(Arc::clone(&opening.settings), begin, now),
            messages: 0,
            content_begun: false,
            endpoint,
            channel,
            security,
        };
        let mut effect = link.exchange().await?;
        loop {
            effect = match effect {
                Effect::Secure => link.negotiate(opening).await?,
                Effect::Input => link.exchange().await?,
                Effect::Ready => return Ok(link),
                Effect::Over(failure) => {
                    link.channel.say_the_rest().await;
                    return Err(LinkError::Dialogue(failure));
                }
                Effect::Closed | Effect::Content(_) | Effect::Finished(_) => {
                    return Err(LinkError::Dialogue(out_of_step()));
                }
            };
        }
    }

    /// STARTTLS was granted.
    async fn negotiate(&mut self, opening: &Opening<'_>) -> Result<Effect, LinkError> {
        assert!(
            self.channel.unread.is_empty(),
            "what came in clear is never read inside TLS"
        );
        let facts = self.channel.secure(&self.endpoint, opening).await?;
        self.security = Security::Tls(facts);
        let said = &mut self.channel.said;
        Ok(self.session.secured(Instant::now(), said))
    }

    /// Whether nothing has come meanwhile: no farewell, and no end.
    pub(super) fn is_quiet(&self) -> bool {
        self.channel.unread.is_empty() && self.channel.socket.is_quiet()
    }

    /// How TLS came out, for people: `none`, or `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`.
    pub(super) fn describe_tls(&self) -> String {
        match &self.security {
            Security::Clear => "none".to_owned(),
            Security::Tls(facts) => {
                let (version, cipher) = (facts.version, &facts.cipher);
                format!("{version} {cipher} {}", verification(facts))
            }
        }
    }

    /// What the next hop said to STARTTLS, if it listed and then refused it.
    pub(super) fn starttls_refusal(&self) -> Option<&str> {
        let reply = self.session.starttls_refusal();
        reply.map(|reply| &*reply.text)
    }

    /// Messages that were sent over it, or tried to be.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the peer may have content of the last message.
    pub(super) fn content_begun(&self) -> bool {
        self.content_begun
    }

    /// Recipients that one transaction takes.
    pub(super) fn recipients_max(&self) -> usize {
        self.session.recipients_max()
    }

    /// Whether another transaction may follow.
    pub(super) fn is_ready(&self) -> bool {
        self.session.takes_another()
    }

    /// Sends a message. The connection is then as good as [`Link::is_ready`] says.
    pub(super) async fn send(
        &mut self,
        mut transaction: Transaction,
        source: &Source,
    ) -> Result<Sending, LinkError> {
        self.messages += 1;
        self.content_begun = false;
        if self.session.wants_facts(&transaction) {
            transaction.facts = Some(scan(source).await.map_err(LinkError::Content)?);
        }
        let mut effect =
            match self
                .session
                .begin(Instant::now(), &transaction, &mut self.channel.said)
            {
                Ok(effect) => effect,
                Err(refusal) => return Ok(Sending::Unsendable(refusal)),
            };
        loop {
            effect = match effect {
                Effect::Input => self.exchange().await?,
                Effect::Content(_) => self.send_content(source).await?,
                Effect::Finished(outcome) => {
                    if let After::Over(_) = outcome.after {
                        self.channel.say_the_rest().await;
                    }
                    return Ok(Sending::Finished(outcome));
                }
                Effect::Over(failure) => return Err(LinkError::Dialogue(failure)),
                Effect::Secure | Effect::Ready | Effect::Closed => {
                    return Err(LinkError::Dialogue(out_of_step()));
                }
            };
        }
    }

    /// Sends what was said, and brings the dialogue what comes, until it wants something else.
    async fn exchange(&mut self) -> Result<Effect, LinkError> {
        loop {
            let deadline = self.session.deadline();
            match self.channel.flush(deadline).await {
                Ok(Ok(())) => {}
                Ok(Err(cut)) => return self.cut(cut),
                // A peer that has had enough says why, and closes.
                Err(LinkError::Io(..) | LinkError::Tls(_)) => return Ok(self.last_words().await),
                Err(error) => return Err(error),
            }
            loop {
                let now = Instant::now();
                let unread = std::mem::take(&mut self.channel.unread);
                let mut input = &unread[..];
                let effect = self
                    .session
                    .receive(now, &mut input, &mut self.channel.said);
                self.channel.unread.extend_from_slice(input);
                if effect != Effect::Input {
                    return Ok(effect);
                }
                if !self.channel.pump()? {
                    break;
                }
            }
            if self.channel.said.is_empty() {
                match self.channel.receive(self.session.deadline()).await? {
                    Ok(Arrived::Octets) => {}
                    Ok(Arrived::End) => return Ok(self.session.peer_closed()),
                    Err(cut) => return self.cut(cut),
                }
            }
        }
    }

    fn cut(&mut self, cut: Cut) -> Result<Effect, LinkError> {
        match cut {
            Cut::Deadline => Ok(self.session.expired()),
            Cut::Ending => Err(LinkError::Ending),
        }
    }

    /// Sends the content, and its end.
    async fn send_content(&mut self, source: &Source) -> Result<Effect, LinkError> {
        let mut content = source.content().await.map_err(LinkError::Content)?;
        self.content_begun = true;
        let received = Cow::Borrowed(&*source.accepted.received);
        let mut part = Some(received);
        while let Some(octets) = part.take() {
            for slice in octets.chunks(SENT_OCTETS) {
                let said = &mut self.channel.said;
                self.session.content(Instant::now(), slice, said);
                if self.channel.said.len() >= SENT_OCTETS
                    && let Some(effect) = self.send_part().await?
                {
                    return Ok(effect);
                }
            }
            part = content.next().await.map_err(LinkError::Content)?;
        }
        let said = &mut self.channel.said;
        let effect = self.session.content_sent(Instant::now(), said);
        if effect != Effect::Input {
            return Ok(effect);
        }
        self.exchange().await
    }

    /// Sends a part of the content. What the peer says to that, if it wants no more.
    async fn send_part(&mut self) -> Result<Option<Effect>, LinkError> {
        let deadline = self.session.deadline();
        match self.channel.flush(deadline).await {
            Ok(Ok(())) => {
                self.session.content_progress(Instant::now(), 0);
                Ok(None)
            }
            Ok(Err(cut)) => self.cut(cut).map(Some),
            // A peer that has had enough says why, and closes.
            Err(LinkError::Io(..) | LinkError::Tls(_)) => Ok(Some(self.last_words().await)),
            Err(error) => Err(error),
        }
    }

    /// What the peer said before it closed the connection.
    async fn last_words(&mut self) -> Effect {
        let until = Instant::now() + LAST_WORDS;
        while let Ok(Ok(Arrived::Octets)) = self.channel.receive(until).await {
            while let Ok(true) = self.channel.pump() {}
        }
        let unread = std::mem::take(&mut self.channel.unread);
        let (mut input, said) = (&unread[..], &mut Vec::new());
        match self.session.receive(Instant::now(), &mut input, said) {
            effect @ (Effect::Finished(_) | Effect::Over(_)) => effect,
            Effect::Input
            | Effect::Secure
            | Effect::Ready
            | Effect::Content(_)
            | Effect::Closed => self.session.peer_closed(),
        }
    }

    /// Says farewell, and does not wait long for it to be heard.
    pub(super) async fn quit(mut self) {
        let said = &mut self.channel.said;
        if self.session.quit(Instant::now(), said) == Effect::Input {
            // The reply tells nothing that matters any more.
            let _ = self.exchange().await;
        }
        self.channel.say_the_rest().await;
    }
}

/// What a receive came to.
enum Arrived {
    Octets,
    End,
}

impl Channels {
    async fn connect(&mut self, address: SockAddr) -> Result<(), LinkError> {
        let deadline = Instant::now() + CONNECT_MAX;
        let socket = self.socket.clone();
        match self.bounded(deadline, socket.connect(address)).await {
            Ok(outcome) => outcome.map_err(connecting),
            Err(Cut::Deadline) => Err(connecting(io::ErrorKind::TimedOut.into())),
            Err(Cut::Ending) => Err(LinkError::Ending),
        }
    }

    /// Makes the handshake. Whatever keeps it from its end is its failure.
    async fn secure(
        &mut self,
        endpoint: &Endpoint,
        opening: &Opening<'_>,
    ) -> Result<Box<Facts>, LinkError> {
        match self.shake_hands(endpoint, opening).await {
            Err(LinkError::Io(doing, error)) => {
                opening.meters.handshake_failed(tls::Fault::Protocol);
                Err(LinkError::Handshake(format!("cannot {doing}: {error}")))
            }
            outcome => outcome,
        }
    }

    async fn shake_hands(
        &mut self,
        endpoint: &Endpoint,
        opening: &Opening<'_>,
    ) -> Result<Box<Facts>, LinkError> {
        let peer = PeerName {
            name: endpoint.name.clone(),
            key: opening.sessions_key.into(),
        };
        let deadline = Instant::now() + opening.handshake_timeout;
        let connection = tls::Connection::connect(opening.context, &peer)
            .map_err(|error| LinkError::Handshake(error.to_string()))?;
        let mut connection = Box::new(connection);
        loop {
            let step = connection.handshake();
            self.said = connection.outbound();
            match step {
                Handshake::Done(_) => {
                    let facts = Box::new(connection.facts());
                    self.tls = Some(connection);
                    // What is left to be sent goes as it is: it is ciphertext already.
                    let flushed = self.flush_raw(deadline).await?;
                    flushed.map_err(|cut| handshake_cut(&cut))?;
                    opening.meters.secured(&facts);
                    return Ok(facts);
                }
                Handshake::Failed(error) => {
                    // The alert tells the peer why; whether it arrives changes nothing.
                    let _ = self.flush_raw(Instant::now() + LAST_WORDS).await;
                    opening.meters.handshake_failed(error.fault);
                    return Err(LinkError::Handshake(error.to_string()));
                }
                Handshake::WantsInput => {
                    let flushed = self.flush_raw(deadline).await?;
                    flushed.map_err(|cut| handshake_cut(&cut))?;
                    match self.receive_raw(deadline).await? {
                        Ok(Arrived::Octets) => connection.receive(&self.received),
                        Ok(Arrived::End) => {
                            opening.meters.handshake_failed(tls::Fault::Protocol);
                            return Err(LinkError::Handshake(
                                "it closed the connection in the handshake".to_owned(),
                            ));
                        }
                        Err(cut) => {
                            if let Cut::Deadline = cut {
                                opening.meters.handshake_late();
                            }
                            return Err(handshake_cut(&cut));
                        }
                    }
                }
            }
        }
    }

    /// Sends what was said.
    async fn flush(&mut self, deadline: Instant) -> Result<Result<(), Cut>, LinkError> {
        if let Some(connection) = &mut self.tls
            && !self.said.is_empty()
        {
            let said = std::mem::take(&mut self.said);
            connection
                .write(&said)
                .map_err(|error| LinkError::Tls(error.to_string()))?;
            self.said = connection.outbound();
        }
        self.flush_raw(deadline).await
    }

    async fn flush_raw(&mut self, deadline: Instant) -> Result<Result<(), Cut>, LinkError> {
        if self.said.is_empty() {
            return Ok(Ok(()));
        }
        match self.socket.send(std::mem::take(&mut self.said)) {
            Sent::AtOnce(mut octets) => {
                octets.clear();
                self.said = octets;
                Ok(Ok(()))
            }
            Sent::InFlight(sending) => match self.bounded(deadline, sending).await {
                Ok((mut octets, outcome)) => {
                    octets.clear();
                    self.said = octets;
                    outcome.map_err(sending_failed)?;
                    Ok(Ok(()))
                }
                Err(cut) => Ok(Err(cut)),
            },
            Sent::Failed(error) => Err(sending_failed(error)),
        }
    }

    /// Receives into `unread`.
    async fn receive(&mut self, deadline: Instant) -> Result<Result<Arrived, Cut>, LinkError> {
        if self.is_over {
            return Ok(Ok(Arrived::End));
        }
        let arrived = self.receive_raw(deadline).await?;
        if let Ok(Arrived::Octets) = arrived {
            match &mut self.tls {
                None => self.unread.extend_from_slice(&self.received),
                Some(connection) => connection.receive(&self.received),
            }
            self.pump()?;
        }
        Ok(arrived)
    }

    /// Moves plaintext that TLS has to `unread`. Whether there was any.
    fn pump(&mut self) -> Result<bool, LinkError> {
        let Some(connection) = &mut self.tls else {
            return Ok(false);
        };
        let before = self.unread.len();
        // No more than a record at a time, so that what is unread stays bounded.
        self.unread.resize(before + PLAINTEXT_OCTETS, 0);
        let room = self.unread.get_mut(before..).unwrap_or_default();
        let read = match connection.read(room) {
            Read::Octets(octets) => octets,
            Read::WantsInput => 0,
            Read::Closed => {
                self.is_over = true;
                0
            }
            Read::Failed(error) => {
                self.unread.truncate(before);
                return Err(LinkError::Tls(error.to_string()));
            }
        };
        self.unread.truncate(before + read);
        Ok(read > 0)
    }

    async fn receive_raw(&mut self, deadline: Instant) -> Result<Result<Arrived, Cut>, LinkError> {
        let buffer = std::mem::take(&mut self.received);
        let socket = self.socket.clone();
        match self.bounded(deadline, socket.receive_into(buffer)).await {
            Ok((buffer, outcome)) => {
                self.received = buffer;
                match outcome {
                    Ok(()) if self.received.is_empty() => Ok(Ok(Arrived::End)),
                    Ok(()) => Ok(Ok(Arrived::Octets)),
                    // A reset is an end that was not waited for.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        Ok(Ok(Arrived::End))
                    }
                    Err(error) => Err(LinkError::Io("receive from it", error)),
                }
            }
            Err(cut) => {
                self.received = Vec::with_capacity(RECEIVED_OCTETS);
                Ok(Err(cut))
            }
        }
    }

    /// Waits for an operation on the socket, not beyond `deadline`: then it is cancelled, and joined.
    async fn bounded<T>(
        &self,
        deadline: Instant,
        operation: impl Future<Output = T>,
    ) -> Result<T, Cut> {
        let mut operation = std::pin::pin!(operation);
        let cut = tokio::select! {
            biased;
            outcome = &mut operation => return Ok(outcome),
            () = tokio::time::sleep_until(deadline.into()) => Cut::Deadline,
            () = self.ending.is_due() => Cut::Ending,
        };
        self.socket.cancel();
        operation.await;
        Err(cut)
    }

    /// Sends the last of what was said, and what TLS says at its end.
    async fn say_the_rest(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        if self.flush(deadline).await.is_err() {
            return;
        }
        if let Some(connection) = &mut self.tls {
            connection.close();
            self.said = connection.outbound();
            let _ = self.flush_raw(deadline).await;
        }
    }
}

/// Looks at a message from its begin to its end.
async fn scan(source: &Source) -> Result<ContentFacts, ReadError> {
    let mut scanner = Scanner::new();
    scanner.read(&source.accepted.received);
    let mut content = source.content().await?;
    while let Some(part) = content.next().await? {
        scanner.read(&part);
        // A large message is looked at in steps.
        tokio::task::yield_now().await;
    }
    Ok(scanner.facts())
}

fn connecting(error: io::Error) -> LinkError {
    LinkError::Io("connect", error)
}

fn sending_failed(error: io::Error) -> LinkError {
    LinkError::Io("send to it", error)
}

fn handshake_cut(cut: &Cut) -> LinkError {
    match cut {
        Cut::Deadline => LinkError::Handshake("the handshake took too long".to_owned()),
        Cut::Ending => LinkError::Ending,
    }
}

/// The dialogue wants what it cannot want here: ours is the fault, and the message is tried again.
fn out_of_step() -> Failure {
    Failure {
        cause: Cause::Protocol,
        status: Status::temporary(5, 0),
        text: "the dialogue is out of step".into(),
        reply: None,
        again_now: false,
    }
}

fn verification(facts: &Facts) -> String {
    let certificate = facts.peer_certificate.as_ref();
    match certificate.map(|certificate| &certificate.verification) {
        Some(Verification::Trusted) => "verified".to_owned(),
        Some(Verification::Untrusted(reason)) => format!("not verified: {reason}"),
        None => "not verified".to_owned(),
    }
}

/// Whether the peer is who it should be.
pub(super) fn is_verified(facts: &Facts) -> bool {
    let certificate = facts.peer_certificate.as_ref();
    certificate.is_some_and(|certificate| certificate.verification == Verification::Trusted)
}

/// How long a connection may take to come about. RFC 5321 knows no time for it; a host that does not answer
/// within this is not going to.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// How long is waited for what changes nothing any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Replies are short: this is some hundred of them.
const RECEIVED_OCTETS: usize = 16 * 1024;

/// One TLS record's plaintext (RFC 8446 §5.1).
const PLAINTEXT_OCTETS: usize = 16 * 1024;

/// Octets of content that are sent together.
const SENT_OCTETS: usize = 64 * 1024;
