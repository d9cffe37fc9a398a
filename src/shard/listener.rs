//! Accepting: how connections become sessions, and what happens when there is no room for one.
//!
//! A few single accepts are armed on each listener. A connection over a limit is told 421 (RFC 5321 §4.2.3)
//! and closed. When descriptors run out, the spare one is given up to say the same to whoever waits, and
//! accepting pauses: it never spins, and goes on by itself.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::dialogue::Dialogue;
use super::limits::Refused;
use crate::control::metrics::{ConnectionRefusal, Listener as Kind};
use crate::ring::{Accepted, Listener, Sent, Socket};

/// Accepts armed on each listener of a shard: enough that a burst finds one, each costs a task.
pub(super) const ACCEPTS_ARMED: usize = 8;

/// How long accepting pauses when descriptors or memory ran out.
const PAUSE: Duration = Duration::from_millis(100);

impl Shard {
    /// Accepts connections until the server drains.
    pub(super) async fn accept(self: Rc<Shard>, listener: Listener, kind: Kind) {
        while !self.watch.is_draining() {
            match listener.accept().await {
                Ok(Accepted { socket, peer }) => match self.common.limits.try_admit(peer.ip()) {
                    Ok(admission) => {
                        let local = listener_or_socket_address(&listener, &socket);
                        let dialogue =
                            Dialogue::new(Rc::clone(&self), socket, peer, local, kind, admission);
                        tokio_uring::spawn(dialogue.run());
                    }
                    Err(refused) => {
                        let (reason, text) = match refused {
                            Refused::Sessions => {
                                (ConnectionRefusal::MaxSessions, "Too many sessions")
                            }
                            Refused::PerIp => (
                                ConnectionRefusal::PerIp,
                                "Too many sessions from your address",
                            ),
                        };
                        self.metrics.connection_refused(reason);
                        tokio_uring::spawn(turn_away(socket, self.refusal(kind, text)));
                    }
                },
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECANCELED) => {}
                    Some(libc::EMFILE | libc::ENFILE) => {
                        self.metrics.accept_failed();
                        self.out_of_descriptors(&listener, kind);
                        tokio::time::sleep(PAUSE).await;
                    }
                    Some(libc::ENOBUFS | libc::ENOMEM) => {
                        self.metrics.accept_failed();
                        tokio::time::sleep(PAUSE).await;
                    }
                    // The connection broke before it was accepted (accept(2), "Error handling").
                    _ => self.metrics.accept_failed(),
                },
            }
        }
    }

    /// What a connection that does not become a session is told: nothing on a TLS port, where nothing can be
    /// said in clear.
    fn refusal(&self, kind: Kind, text: &str) -> Vec<u8> {
        match kind {
            Kind::Tcp => {
                let hostname = &self.common.settings.load().hostname;
                format!("421 4.3.2 {hostname} {text}\r\n").into_bytes()
            }
            Kind::Tls => Vec::new(),
        }
    }

    /// Gives up the spare descriptor to tell those who wait that there is none.
    fn out_of_descriptors(&self, listener: &Listener, kind: Kind) {
        let octets = self.refusal(kind, "Out of resources");
        let told = self.spare.lend(|| match listener.accept_now() {
            Some(fd) => {
                tell(fd, &octets);
                true
            }
            None => false,
        });
        if told {
            self.metrics
                .connection_refused(ConnectionRefusal::Descriptors);
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

/// Says `octets` and closes.
async fn turn_away(socket: Socket, octets: Vec<u8>) {
    if !octets.is_empty() {
        // A fresh connection's send buffer takes one line at once, whoever reads it.
        if let Sent::InFlight(sending) = socket.send(octets) {
            let _ = sending.await;
        }
    }
}

/// The same without the ring, on a non-blocking socket.
fn tell(fd: OwnedFd, octets: &[u8]) {
    let mut stream = TcpStream::from(fd);
    // Whether it arrives is up to the peer.
    let _ = stream.write(octets);
}

/// A descriptor kept for the moment when there is no other.
pub(super) struct Spare(RefCell<Option<File>>);

impl Spare {
    pub(super) fn new() -> Spare {
        Spare(RefCell::new(open_spare().ok()))
    }

    /// Runs `with` while the spare descriptor is free, if there was one to free.
    fn lend(&self, with: impl FnOnce() -> bool) -> bool {
        let lent = self.0.borrow_mut().take().is_some();
        let outcome = lent && with();
        *self.0.borrow_mut() = open_spare().ok();
        outcome
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}
