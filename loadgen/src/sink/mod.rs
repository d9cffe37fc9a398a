//! A receiving end for measuring senders: takes all mail, keeps none, counts, and misbehaves where
//! it is told to.
//!
//! | module | owns |
//! |---|---|
//! | `stage`, `misbehaviour`, `stall` | what can be done wrong, where, how often |
//! | `extensions` | what EHLO lists |
//! | `dialogue` | one connection's replies, without the connection |
//! | `wire`, `connection` | the connection: clear or TLS, deadlines, delays |
//! | `listener`, `threads` | sockets, and the threads that serve them |
//! | `certificate` | the TLS context |
//! | `counts` | what is reported at the end |
//!
//! Not promised: what a server must do for real mail. It knows no mailbox, and a 250 of it means
//! only that the message was counted.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;

use openssl::error::ErrorStack;
use tokio::sync::{Notify, watch};

mod certificate;
mod connection;
mod counts;
mod dialogue;
mod extensions;
mod listener;
mod misbehaviour;
mod stage;
mod stall;
mod threads;
mod wire;

pub use counts::Counts;
pub use dialogue::{Channel, Protocol};
pub use extensions::{Extension, Extensions};
pub use misbehaviour::{Act, Refusal, Rule, Share};
pub use stage::{ByStage, Stage};
pub use stall::Stall;

use self::counts::Cells;
use self::dialogue::Terms;
use self::listener::Port;
use self::misbehaviour::Misbehaviour;
use self::stall::Stalls;
use self::threads::{Phase, Place, Shared};

/// What a sink is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listeners: Vec<(SocketAddr, Channel)>,
    /// How many threads serve each listener.
    pub threads: NonZeroUsize,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it lists.
    pub extensions: Extensions,
    /// Files with its certificate chain and key; without them it makes itself a certificate.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What it does wrong.
    pub rules: Vec<Rule>,
    /// Chooses on which occurrences a share falls.
    pub seed: u64,
    /// When it says nothing.
    pub stalls: Vec<Stall>,
    /// How long a peer may be silent.
    pub idle: Duration,
    /// How many messages it takes before it ends by itself.
    pub messages_max: Option<u64>,
}

impl Default for Settings {
    /// One thread, SMTP in clear on a loopback port of the kernel's choice, everything listed, nothing done
    /// wrong, no end.
    fn default() -> Settings {
        Settings {
            listeners: vec![(SocketAddr::from(([127, 0, 0, 1], 0)), Channel::Clear)],
            threads: NonZeroUsize::MIN,
            protocol: Protocol::Smtp,
            extensions: Extensions::all_but(&[]),
            certificate: None,
            rules: Vec::new(),
            seed: 0,
            stalls: Vec::new(),
            // RFC 5321 §4.5.3.2.7: a server SHOULD wait that long at least.
            idle: Duration::from_secs(5 * 60),
            messages_max: None,
        }
    }
}

/// Why a sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key is no good.
    #[error("cannot use {}: {source}", path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// What OpenSSL said.
        source: ErrorStack,
    },
    /// OpenSSL failed.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] ErrorStack),
    /// No thread to be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A sink that runs.
#[derive(Debug)]
pub struct Sink {
    addresses: Vec<(SocketAddr, Channel)>,
    shared: Arc<Shared>,
    places: Vec<Arc<Place>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sink {
    /// Listens, and serves on threads of its own. When this returns, connections are taken.
    pub fn start(settings: &Settings) -> Result<Sink, StartError> {
        let speaks_tls = settings.extensions.has(Extension::StartTls)
            || settings
                .listeners
                .iter()
                .any(|(_, channel)| *channel == Channel::Tls);
        let files = settings.certificate.as_ref();
        let files = files.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let shared = Arc::new(Shared {
            terms: Arc::new(Terms::new(settings.protocol, settings.extensions)),
            misbehaviour: Misbehaviour::new(&settings.rules, settings.seed),
            tls: if speaks_tls {
                Some(certificate::context(files)?)
            } else {
                None
            },
            idle: settings.idle,
            stalls: Stalls::new(settings.stalls.clone()),
            messages_max: settings.messages_max,
            messages: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Serving),
            closed: Notify::new(),
        });

        let mut sink = Sink {
            addresses: settings.listeners.clone(),
            shared,
            places: Vec::new(),
            threads: Vec::new(),
        };
        let port = if settings.threads.get() == 1 {
            Port::Alone
        } else {
            Port::Shared
        };
        // All sockets before any thread: a connection is spread over those that listen when it comes.
        let mut sockets = Vec::new();
        for _ in 0..settings.threads.get() {
            let mut of_thread = Vec::new();
            for (address, channel) in &mut sink.addresses {
                let listen = |source| StartError::Listen {
                    address: *address,
                    source,
                };
                let listener = listener::bind(*address, port).map_err(listen)?;
                // A port that the kernel chose for the first is meant for all.
                *address = listener.local_addr().map_err(listen)?;
                of_thread.push((listener, *channel));
            }
            sockets.push(of_thread);
        }
        for of_thread in sockets {
            let place = Arc::new(Place {
                shared: Arc::clone(&sink.shared),
                counts: Cells::default(),
            });
            let thread = threads::start(of_thread, Arc::clone(&place));
            sink.places.push(place);
            sink.threads.push(thread.map_err(StartError::Thread)?);
        }
        Ok(sink)
    }

    /// Where it listens, ports of the kernel's choice filled in.
    pub fn addresses(&self) -> &[(SocketAddr, Channel)] {
        &self.addresses
    }

    /// What it counted so far.
    pub fn counts(&self) -> Counts {
        Counts::of(self.places.iter().map(|place| &place.counts))
    }

    /// Waits until the bound on messages is reached and the sessions under way have ended, for which
    /// they have a second. Never, without a bound.
    pub async fn drained(&self) {
        let mut phase = self.shared.phase.subscribe();
        // Fails only if the sender is gone, which is here.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
        let closed = async {
            loop {
                let counts = self.counts();
                if counts.closed == counts.connections {
                    return;
                }
                self.shared.closed.notified().await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, closed).await;
    }

    /// Ends it, whatever is under way.
    pub fn end(mut self) -> Counts {
        self.stop();
        self.counts()
    }

    fn stop(&mut self) {
        self.shared.advance(Phase::Ended);
        self.shared.stalls.end();
        for thread in self.threads.drain(..) {
            // A thread that panicked said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Enough for a QUIT, too short to be noticed.
const DRAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_sink_serves_until_it_is_ended() {
        let settings = Settings {
            threads: NonZeroUsize::new(2).unwrap(),
            ..Settings::default()
        };
        let sink = Sink::start(&settings).unwrap();
        let [(address, Channel::Clear)] = *sink.addresses() else {
            panic!("{:?}", sink.addresses());
        };
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"QUIT\r\n").unwrap();
        let mut heard = String::new();
        socket.read_to_string(&mut heard).unwrap();
        assert!(
            heard.starts_with("220 ") && heard.contains("\r\n221 "),
            "{heard}"
        );
        let so_far = sink.counts();
        assert_eq!((so_far.connections, so_far.sessions_quit), (1, 1));
        let counts = sink.end();
        assert_eq!((counts.connections, counts.closed), (1, 1));
    }
}
