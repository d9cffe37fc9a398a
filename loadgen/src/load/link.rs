//! One connection to the server that is ready for messages: what is sent over it, and how it ends.
//!
//! Apart from what is done with connections because loading, ramping and idling drive the same.

use std::fmt;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringpost::smtp::client::{After, Cause, Effect, Failure, Outcome, Session, Transaction};
use tokio::io::ReadBuf;

use super::dialler::Opening;
use super::exchange::{Exchange, Until};
use super::wire::Wire;
use crate::mail::Message;
use crate::measure::ErrorKind;

/// A connection that is ready for messages.
pub(crate) struct Link {
    pub(super) io: Exchange,
    pub(super) session: Session,
    /// When connecting began.
    pub(crate) began: Instant,
    /// How it came about.
    pub(crate) opening: Opening,
}

impl Link {
    /// Sends a message; what became of it for each recipient, and whether the connection can take another.
    pub(crate) async fn send(
        &mut self,
        transaction: &Transaction,
        message: &Message<'_>,
    ) -> Result<Outcome, LinkError> {
        let Link { io, session, .. } = self;
        let now = Instant::now();
        let mut effect = match session.begin(now, transaction, &mut io.out) {
            Ok(effect) => effect,
            Err(refusal) => {
                // It cannot be sent over any connection to this server.
                return Ok(Outcome {
                    recipients: Vec::new(),
                    after: After::Over(Failure {
                        cause: Cause::Unsendable,
                        status: refusal.status,
                        text: refusal.text,
                        reply: None,
                        again_now: false,
                    }),
                });
            }
        };
        loop {
            match effect {
                Effect::Input => effect = io.exchange(session, Until::Effect).await?,
                Effect::Content(_) => {
                    effect = match io.say_content(session, message).await {
                        Ok(()) => session.content_sent(Instant::now(), &mut io.out),
                        Err(error) => io.last_words(session, error).await?,
                    };
                }
                Effect::Finished(outcome) => return Ok(outcome),
                Effect::Over(failure) => return Err(LinkError::Session(failure)),
                Effect::Secure | Effect::Ready | Effect::Closed => {
                    return Err(LinkError::Broken(io::ErrorKind::InvalidData.into()));
                }
            }
        }
    }

    /// Whether the server takes another message over this connection, by its LIMITS.
    pub(crate) fn takes_another(&self) -> bool {
        self.session.takes_another()
    }

    /// Waits until the server ends the connection, or says something without being asked, between messages. Nothing is
    /// lost if nobody waits for it to the end.
    pub(crate) async fn left(&mut self) -> LinkError {
        let Link { io, session, .. } = self;
        loop {
            let effect = if io.unread.is_empty() {
                match io.hear().await {
                    Ok(0) => session.peer_closed(),
                    Ok(octets) => {
                        io.unread = 0..octets;
                        continue;
                    }
                    Err(error) => return LinkError::Broken(error),
                }
            } else {
                io.receive(session)
            };
            if let Some(error) = end(effect) {
                return error;
            }
        }
    }

    /// Says QUIT and waits for the reply; how long the whole session took.
    pub(crate) async fn quit(mut self) -> Result<Duration, LinkError> {
        let mut effect = self.session.quit(Instant::now(), &mut self.io.out);
        while effect == Effect::Input {
            effect = self.io.exchange(&mut self.session, Until::Effect).await?;
        }
        let took = self.began.elapsed();
        self.io.wire.close().await;
        // For the core the end is as good as a reply to QUIT.
        if let Some(lost) = self.io.lost {
            return Err(LinkError::Broken(lost.into()));
        }
        match effect {
            Effect::Over(failure) => Err(LinkError::Session(failure)),
            Effect::Input
            | Effect::Secure
            | Effect::Ready
            | Effect::Content(_)
            | Effect::Finished(_)
            | Effect::Closed => Ok(took),
        }
    }

    /// Ends it without a word of SMTP.
    pub(crate) async fn abandon(self) {
        self.io.wire.close().await;
    }

    /// Puts it aside for long, between transactions.
    pub(crate) fn rest(self) -> Result<Resting, LinkError> {
        let Link {
            io, mut session, ..
        } = self;
        let mut input = io.input.get(io.unread).unwrap_or_default();
        if let Some(error) = heard(&mut session, &mut input) {
            return Err(error);
        }
        let mut resting = Resting {
            wire: io.wire,
            session,
            began: self.began,
            timeout: io.timeout,
        };
        // TLS may have read more than it gave.
        match resting.hear() {
            None => Ok(resting),
            Some(error) => Err(error),
        }
    }
}

/// A connection that nobody waits for: without buffers and an alarm, which are the most of what one takes here.
pub(crate) struct Resting {
    wire: Wire,
    session: Session,
    began: Instant,
    timeout: Duration,
}

impl Resting {
    /// Why it is of no use any more, once that is so. To ask costs next to nothing while the server is silent.
    pub(crate) fn over(&mut self) -> Option<LinkError> {
        if self.wire.is_quiet() {
            return None;
        }
        self.hear()
    }

    /// Takes in what the server said unasked, or that it closed.
    fn hear(&mut self) -> Option<LinkError> {
        let mut octets = [0; HEARD_OCTETS];
        // Nobody is to be woken: it is asked again.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let mut buffer = ReadBuf::new(&mut octets);
            match self.wire.poll_read(&mut context, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(LinkError::Broken(error)),
                Poll::Ready(Ok(())) => {}
            }
            let mut input = buffer.filled();
            if input.is_empty() {
                return end(self.session.peer_closed());
            }
            if let Some(error) = heard(&mut self.session, &mut input) {
                return Some(error);
            }
        }
    }

    /// Makes it fit for messages again.
    pub(crate) fn wake(self) -> Link {
        Link {
            io: Exchange::new(self.wire, self.timeout),
            session: self.session,
            began: self.began,
            opening: Opening::default(),
        }
    }
}

/// Gives the core what came unasked; the end that it may be.
fn heard(session: &mut Session, input: &mut &[u8]) -> Option<LinkError> {
    if input.is_empty() {
        return None;
    }
    end(session.receive(Instant::now(), input, &mut Vec::new()))
}

/// The end of a connection between messages, if that is what the core wants.
fn end(effect: Effect) -> Option<LinkError> {
    match effect {
        Effect::Input | Effect::Ready => None,
        Effect::Over(failure) => Some(LinkError::Session(failure)),
        // None of them has a place there.
        Effect::Secure | Effect::Content(_) | Effect::Finished(_) | Effect::Closed => {
            Some(LinkError::Broken(io::ErrorKind::InvalidData.into()))
        }
    }
}

/// Why a connection is of no use.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// It did not come about.
    Connect(io::Error),
    /// It broke.
    Broken(io::Error),
    /// TLS did not come about.
    Handshake(String),
    /// By the protocol, with the core's words.
    Session(Failure),
}

impl LinkError {
    /// What it counts as.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            LinkError::Connect(error) => ErrorKind::Connect(error.kind()),
            LinkError::Broken(error) => ErrorKind::Broken(error.kind()),
            LinkError::Handshake(_) => ErrorKind::Handshake,
            LinkError::Session(failure) => ErrorKind::of(failure),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Connect(error) | LinkError::Broken(error) => error.fmt(formatter),
            LinkError::Handshake(text) => formatter.write_str(text),
            LinkError::Session(failure) => formatter.write_str(&failure.text),
        }
    }
}

/// A reply that ends a session.
const HEARD_OCTETS: usize = 1024;
