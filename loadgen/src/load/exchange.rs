//! The socket of a connection: what was read, what is to be said, and the protocol core in between.
//!
//! Invariants:
//! - What the core says leaves in one write, content and commands together, as far as it says it together.
//! - A server that stops reading or saying anything is given up after the plan's timeout.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringpost::smtp::client::{Effect, Session};
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use super::link::LinkError;
use super::wire::Wire;
use crate::mail::Message;

/// The socket, with what was read and what is to be said.
pub(super) struct Exchange {
    pub(super) wire: Wire,
    pub(super) input: Box<[u8; INPUT_OCTETS]>,
    /// How much of `input` is not used up, and where.
    pub(super) unread: Range<usize>,
    pub(super) out: Vec<u8>,
    /// How the server went away, when it did.
    pub(super) lost: Option<io::ErrorKind>,
    /// When something was said last.
    pub(super) said_at: Instant,
    /// How long the server may take for anything.
    pub(super) timeout: Duration,
    /// Fires when a deadline may have passed. That one moves with each step, this is set again only when it fired.
    alarm: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The core wants something else than input.
    Effect,
    /// That, or it has something to say.
    Said,
}

impl Exchange {
    pub(super) fn new(wire: Wire, timeout: Duration) -> Exchange {
        let now = Instant::now();
        Exchange {
            wire,
            input: Box::new([0; INPUT_OCTETS]),
            unread: 0..0,
            out: Vec::with_capacity(OUT_OCTETS),
            lost: None,
            said_at: now,
            timeout,
            alarm: Box::pin(tokio::time::sleep_until((now + timeout).into())),
        }
    }

    /// Says what is to be said and gives the core what comes, until it wants something else.
    pub(super) async fn exchange(
        &mut self,
        session: &mut Session,
        until: Until,
    ) -> Result<Effect, LinkError> {
        loop {
            if let Err(error) = self.say().await {
                return self.last_words(session, error).await;
            }
            if self.unread.is_empty() {
                match self.read(session.deadline()).await {
                    Ok(Some(octets)) => self.unread = 0..octets,
                    Ok(None) => {
                        self.lost = Some(io::ErrorKind::TimedOut);
                        return Ok(session.expired());
                    }
                    Err(error) => return Err(LinkError::Broken(error)),
                }
                if self.unread.is_empty() {
                    self.lost = Some(io::ErrorKind::UnexpectedEof);
                    return Ok(session.peer_closed());
                }
            }
            let effect = self.receive(session);
            let said = until == Until::Said && !self.out.is_empty();
            if effect != Effect::Input || said {
                return Ok(effect);
            }
        }
    }

    /// Gives the core what was read.
    pub(super) fn receive(&mut self, session: &mut Session) -> Effect {
        let mut input = self.input.get(self.unread.clone()).unwrap_or_default();
        let effect = session.receive(Instant::now(), &mut input, &mut self.out);
        self.unread.start = self.unread.end - input.len();
        effect
    }

    /// Says the content but for its end. What the server says meanwhile is read afterwards.
    pub(super) async fn say_content(
        &mut self,
        session: &mut Session,
        message: &Message<'_>,
    ) -> io::Result<()> {
        for part in message.parts {
            for piece in part.chunks(PIECE_OCTETS) {
                if self.out.len() > PIECE_OCTETS {
                    self.say().await?;
                }
                session.content(self.said_at, piece, &mut self.out);
            }
        }
        Ok(())
    }

    /// What the server said before nothing could be said to it any more, as a reply that refuses a message half-way;
    /// else the error.
    pub(super) async fn last_words(
        &mut self,
        session: &mut Session,
        error: io::Error,
    ) -> Result<Effect, LinkError> {
        let mut was_heard = false;
        loop {
            if !self.unread.is_empty() {
                was_heard = true;
                match self.receive(session) {
                    Effect::Input | Effect::Content(_) => {}
                    effect @ (Effect::Secure
                    | Effect::Ready
                    | Effect::Finished(_)
                    | Effect::Over(_)
                    | Effect::Closed) => return Ok(effect),
                }
            }
            match tokio::time::timeout(LAST_WORDS, self.hear()).await {
                Ok(Ok(octets)) if octets > 0 => self.unread = 0..octets,
                Ok(_) | Err(_) if was_heard => return Ok(session.peer_closed()),
                Ok(_) | Err(_) => return Err(LinkError::Broken(error)),
            }
        }
    }

    /// Reads what comes, whenever that is. Nothing is lost if nobody waits for it to the end.
    pub(super) async fn hear(&mut self) -> io::Result<usize> {
        let Exchange { wire, input, .. } = self;
        poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut input[..]);
            let read = wire.poll_read(context, &mut buffer);
            read.map_ok(|()| buffer.filled().len())
        })
        .await
    }

    /// Reads what comes; `None` if nothing did by the deadline.
    async fn read(&mut self, deadline: Instant) -> io::Result<Option<usize>> {
        let Exchange {
            wire, input, alarm, ..
        } = self;
        poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut input[..]);
            if let Poll::Ready(read) = wire.poll_read(context, &mut buffer) {
                return Poll::Ready(read.map(|()| Some(buffer.filled().len())));
            }
            poll_deadline(alarm, deadline, context).map(|()| Ok(None))
        })
        .await
    }

    /// Writes all that is to be said. A peer that takes nothing for too long is a broken connection.
    async fn say(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let Exchange {
            wire, out, alarm, ..
        } = self;
        let deadline = Instant::now() + self.timeout;
        let mut written = 0;
        let result = poll_fn(|context| {
            while let Some(rest) = out.get(written..).filter(|rest| !rest.is_empty()) {
                match wire.poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(octets)) => written += octets,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        return poll_deadline(alarm, deadline, context)
                            .map(|()| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        self.out.clear();
        self.said_at = Instant::now();
        result
    }
}

/// Whether the deadline has passed; else the task is woken when it may have.
fn poll_deadline(
    alarm: &mut Pin<Box<Sleep>>,
    deadline: Instant,
    context: &mut Context<'_>,
) -> Poll<()> {
    while alarm.as_mut().poll(context).is_ready() {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline.into());
    }
    Poll::Pending
}

/// What was said before a connection broke is here already. Where none broke, and nothing could be said for too long,
/// it makes that hardly longer.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Replies of a pipelined group to a few recipients; more takes another read.
const INPUT_OCTETS: usize = 2048;

/// Commands and a small message.
const OUT_OCTETS: usize = 4096;

/// Content is copied in pieces of this size, and so much of it waits for the socket at most twice over.
const PIECE_OCTETS: usize = 64 * 1024;
