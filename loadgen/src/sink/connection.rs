//! Drives one connection: reads, lets the dialogue answer, writes, and misbehaves as it was told.
//!
//! Invariants:
//! - All replies to what one read brought leave in one write (RFC 2920 §3.2), but for those in front of
//!   a delay, which do not wait for it.
//! - One buffer a connection, which never grows: a line is refused before it fills it.
//! - Whatever happens here ends this connection and no other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::dialogue::{Answer, Answered, Channel, Dialogue, Event, LINE_OCTETS_MAX};
use super::misbehaviour::{Ending, Refusal};
use super::stage::Stage;
use super::threads::Place;
use super::wire::{Patience, Wire, accept_tls};

/// Serves one connection, to its end.
pub(super) async fn serve(socket: TcpStream, channel: Channel, place: Arc<Place>) {
    let _guard = CloseGuard(&place);
    let mut patience = Patience::new(place.shared.idle);
    let wire = match channel {
        Channel::Clear => Some(Wire::Clear(socket)),
        Channel::Tls => handshake(socket, &mut patience, &place).await,
    };
    let Some(mut wire) = wire else { return };
    let mut connection = Connection {
        patience,
        dialogue: Dialogue::new(Arc::clone(&place.shared.terms), channel),
        buffer: Vec::with_capacity(BUFFER_OCTETS),
        out: Vec::with_capacity(REPLIES_OCTETS),
        place: &place,
    };
    loop {
        match connection.run(&mut wire).await {
            Ok(Next::Secure) => {
                let Wire::Clear(socket) = wire else { return };
                match handshake(socket, &mut connection.patience, &place).await {
                    Some(secured) => wire = secured,
                    None => return,
                }
                connection.dialogue.secured();
            }
            Ok(Next::Close(closing)) => return close(wire, closing).await,
            Err(Broken) => return,
        }
    }
}

/// A connection's dialogue; its wire is lent to it, because STARTTLS changes that.
struct Connection<'p> {
    patience: Patience,
    dialogue: Dialogue,
    /// What was read and is not run.
    buffer: Vec<u8>,
    /// Replies that are not sent.
    out: Vec<u8>,
    place: &'p Place,
}

/// What the dialogue comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A handshake.
    Secure,
    /// Its end.
    Close(Closing),
}

/// How to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Nothing more is expected of the peer.
    AtOnce,
    /// The peer may still be sending. Closed at once, its octets would be answered with a reset, which
    /// can overtake the last reply.
    Lingering,
}

/// The connection is closed without another word: it failed, or that was asked for.
struct Broken;

impl Connection<'_> {
    async fn run(&mut self, wire: &mut Wire) -> Result<Next, Broken> {
        loop {
            let event = self.converse(wire).await?;
            self.flush(wire).await?;
            match event {
                Event::Secure => return Ok(Next::Secure),
                Event::Close if self.buffer.is_empty() => return Ok(Next::Close(Closing::AtOnce)),
                Event::Close => return Ok(Next::Close(Closing::Lingering)),
                Event::Input | Event::Judge(_) => {}
            }
            match self.patience.wait(wire.read(&mut self.buffer)).await {
                Some(Ok(octets)) if octets > 0 => {}
                Some(Ok(_) | Err(_)) => return Err(Broken),
                None => {
                    self.place.counts.idle_timeouts.add(1);
                    self.dialogue.silent(&mut self.out);
                    self.flush(wire).await?;
                    return Ok(Next::Close(Closing::Lingering));
                }
            }
        }
    }

    /// Lets the dialogue run through what was read, up to an event that is not for it to settle here.
    async fn converse(&mut self, wire: &mut Wire) -> Result<Event, Broken> {
        let place = self.place;
        let (shared, counts) = (&place.shared, &place.counts);
        // Taken out meanwhile, so that the input can be lent while replies are sent.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut input = buffer.as_slice();
        let event = loop {
            let event = self.dialogue.receive(&mut input, counts, &mut self.out);
            let Event::Judge(stage) = event else {
                break event;
            };
            let mut answer = Answer::Grant;
            if let Some(judgement) = shared.misbehaviour.judge(stage) {
                if !judgement.delay.is_zero() {
                    self.flush(wire).await?;
                    tokio::time::sleep(judgement.delay).await;
                }
                match judgement.ending {
                    Ending::Grant => {}
                    Ending::Refuse(refusal) => answer = Answer::Refuse(refusal),
                    Ending::Drop => {
                        counts.dropped.of(stage).add(1);
                        self.flush(wire).await?;
                        return Err(Broken);
                    }
                }
            }
            if stage == Stage::Mail && shared.draining.load(Ordering::Relaxed) {
                answer = Answer::Closing;
            }
            match self.dialogue.answer(answer, counts, &mut self.out) {
                Answered::Reply => {}
                Answered::MessageTaken => shared.message_taken(),
            }
        };
        // buffer: | run | left: the beginning of a line, or what is behind the end |
        let left = input.len();
        let run = buffer.len() - left;
        if run > 0 {
            buffer.copy_within(run.., 0);
            buffer.truncate(left);
        }
        self.buffer = buffer;
        Ok(event)
    }

    /// Sends the replies that gathered.
    async fn flush(&mut self, wire: &mut Wire) -> Result<(), Broken> {
        if self.out.is_empty() {
            return Ok(());
        }
        match self.patience.wait(wire.write_all(&self.out)).await {
            Some(Ok(())) => {
                self.out.clear();
                Ok(())
            }
            Some(Err(_)) => Err(Broken),
            None => {
                self.place.counts.idle_timeouts.add(1);
                Err(Broken)
            }
        }
    }
}

/// The handshake, from the first octet the peer sends for it.
async fn handshake(socket: TcpStream, patience: &mut Patience, place: &Place) -> Option<Wire> {
    let (shared, counts) = (&place.shared, &place.counts);
    let context = shared.tls.as_ref()?;
    let Some(readable) = patience.wait(socket.readable()).await else {
        counts.idle_timeouts.add(1);
        return None;
    };
    readable.ok()?;
    if let Some(judgement) = shared.misbehaviour.judge(Stage::Handshake) {
        tokio::time::sleep(judgement.delay).await;
        match judgement.ending {
            Ending::Grant => {}
            Ending::Drop => {
                counts.dropped.of(Stage::Handshake).add(1);
                return None;
            }
            Ending::Refuse(refusal) => {
                counts.refused.of(Stage::Handshake).add(1);
                alert(socket, refusal).await;
                return None;
            }
        }
    }
    match patience.wait(accept_tls(context, socket)).await {
        Some(Some(stream)) => {
            if stream.ssl().session_reused() {
                counts.tls_resumed.add(1);
            } else {
                counts.tls_full.add(1);
            }
            Some(Wire::Tls(stream))
        }
        Some(None) => {
            counts.tls_failed.add(1);
            None
        }
        None => {
            counts.idle_timeouts.add(1);
            None
        }
    }
}

/// Answers a ClientHello with a fatal alert, in clear as every alert is at that point.
async fn alert(mut socket: TcpStream, refusal: &Refusal) {
    let record = match refusal {
        // TLSPlaintext (RFC 8446 §5.1): alert(21), legacy version 1.2, two octets: fatal(2), which.
        Refusal::Alert(description) => [21, 3, 3, 0, 2, 2, *description],
        Refusal::Reply { .. } => return,
    };
    if socket.write_all(&record).await.is_ok() {
        close(Wire::Clear(socket), Closing::Lingering).await;
    }
}

/// Closes a connection on which all is said.
async fn close(mut wire: Wire, closing: Closing) {
    let farewell = async {
        match (&mut wire, closing) {
            (Wire::Clear(_), Closing::AtOnce) => {}
            (Wire::Tls(_), Closing::AtOnce) => drop(wire.shut_down().await),
            (_, Closing::Lingering) => {
                let _ = wire.shut_down().await;
                let socket = match &mut wire {
                    Wire::Clear(socket) => socket,
                    Wire::Tls(stream) => stream.get_mut(),
                };
                let mut discarded = [0; 4096];
                while matches!(socket.read(&mut discarded).await, Ok(octets) if octets > 0) {}
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// Counts the end of a connection, however it comes.
struct CloseGuard<'p>(&'p Place);

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        self.0.counts.closed.add(1);
        self.0.shared.connection_closed();
    }
}

/// Holds the longest line, and as much mail data as the kernel commonly has ready.
const BUFFER_OCTETS: usize = 16 * 1024;
const _: () = assert!(BUFFER_OCTETS > LINE_OCTETS_MAX);

/// The replies to a common group.
const REPLIES_OCTETS: usize = 256;

/// How long a peer is read past the end.
const LINGER: Duration = Duration::from_secs(1);
