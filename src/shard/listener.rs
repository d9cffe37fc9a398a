//! Accepting: how connections become sessions, and what happens when there is no room for one.
//!
//! A few single accepts are armed on each listener. A connection over a limit is told 421 (RFC 5321 §4.2.3)
//! and closed. When descriptors run out, the spare one is given up: the next connection gets its number, is
//! told the same, and gives it back. Accepting pauses then: it never spins, and goes on by itself.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::dialogue::Dialogue;
use super::limits::Refused;
use crate::control::metrics::{ConnectionRefusal, Listener as Kind};
use crate::ring::{Accepted, Listener, Socket};

/// Accepts armed on each listener of a shard: enough that a burst finds one, each costs a task.
pub(super) const ACCEPTS_ARMED: usize = 8;

/// How long accepting pauses when descriptors or memory ran out.
const PAUSE: Duration = Duration::from_millis(100);

impl Shard {
    /// Accepts connections until the server drains.
    pub(super) async fn accept(self: Rc<Shard>, listener: Listener, kind: Kind) {
        let acceptor = listener.acceptor(&self.intake);
        while !self.watch.is_draining() {
            match acceptor.accept().await {
                Ok(accepted) => {
                    if self.spare.is_kept() {
                        self.begin(&listener, kind, accepted);
                    } else {
                        self.refuse(kind, accepted.socket, ConnectionRefusal::Descriptors);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // The server drains.
                    Some(libc::ECANCELED) => {}
                    // The connection broke before it was accepted (accept(2), "Error handling").
                    Some(libc::ECONNABORTED) => self.metrics.accept_failed(),
                    Some(libc::EMFILE | libc::ENFILE) if self.spare.give_up() => {
                        self.metrics.accept_failed();
                    }
                    _ => {
                        self.metrics.accept_failed();
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        if let Some(late) = acceptor.close().await {
            // It is told that we go down, as others are.
            self.begin(&listener, kind, late);
        }
    }

    /// Makes a session of a connection, within the limits.
    fn begin(self: &Rc<Shard>, listener: &Listener, kind: Kind, accepted: Accepted) {
        let Accepted { socket, peer } = accepted;
        match self.common.limits.try_admit(peer.ip()) {
            Ok(admission) => {
                let local = listener_or_socket_address(listener, &socket);
                let dialogue = Dialogue::new(Rc::clone(self), socket, peer, local, kind, admission);
                tokio_uring::spawn(dialogue.run());
            }
            Err(Refused::Sessions) => self.refuse(kind, socket, ConnectionRefusal::MaxSessions),
            Err(Refused::PerIp) => self.refuse(kind, socket, ConnectionRefusal::PerIp),
        }
    }

    /// Says 421 and closes; says nothing on a TLS port, where nothing can be said in clear.
    fn refuse(&self, kind: Kind, socket: Socket, reason: ConnectionRefusal) {
        self.metrics.connection_refused(reason);
        let text = match reason {
            ConnectionRefusal::MaxSessions => "Too many sessions",
            ConnectionRefusal::PerIp => "Too many sessions from your address",
            ConnectionRefusal::Descriptors => "Out of resources",
        };
        match kind {
            Kind::Tls => {}
            Kind::Tcp => {
                let hostname = &self.common.settings.load().hostname;
                let reply = format!("421 4.3.2 {hostname} {text}\r\n");
                // A fresh connection's send buffer takes one line at once, whoever reads it.
                let _ = socket.send(reply.into_bytes());
            }
        }
    }
}

/// The address the peer connected to: the listener's, unless that is a wildcard.
fn listener_or_socket_address(listener: &Listener, socket: &Socket) -> std::net::SocketAddr {
    let address = listener.address();
    if address.ip().is_unspecified() {
        socket.local_address().unwrap_or(address)
    } else {
        address
    }
}

/// A descriptor kept for the moment when there is no other.
pub(super) struct Spare(RefCell<Option<File>>);

impl Spare {
    pub(super) fn new() -> Spare {
        Spare(RefCell::new(open_spare().ok()))
    }

    /// Gives the descriptor up. False: there was none any more.
    fn give_up(&self) -> bool {
        self.0.borrow_mut().take().is_some()
    }

    /// Whether there is one, after trying to have one again.
    fn is_kept(&self) -> bool {
        let mut spare = self.0.borrow_mut();
        if spare.is_none() {
            *spare = open_spare().ok();
        }
        spare.is_some()
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}
