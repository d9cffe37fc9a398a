//! How connections come about: connecting, greeting, EHLO, STARTTLS, handshake, AUTH, each of them timed.
//!
//! Invariant: each stage is timed from the event that begins it to the one that ends it, both taken at the socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost::smtp::client::{
    Channel, Dialect, Effect, Ignored, Session, Settings, StartTls, Timeouts,
};
use tokio::net::TcpStream;

use super::exchange::{Exchange, Until};
use super::link::{Link, LinkError};
use super::tls::{Purpose, TlsClient};
use super::wire::{self, Wire};
use crate::measure::{Stage, Tally};
use crate::plan::{Mode, Plan};

/// What all connections of a thread have in common.
pub(crate) struct Dialler {
    target: SocketAddr,
    mode: Mode,
    settings: Arc<Settings>,
    tls: Option<TlsClient>,
    timeout: Duration,
}

impl Dialler {
    /// For this plan.
    pub(crate) fn new(plan: &Plan, purpose: Purpose) -> Result<Dialler, String> {
        let timeout = plan.timeout;
        let settings = Settings {
            helo: plan.helo.clone(),
            starttls: match plan.mode {
                Mode::Starttls => StartTls::Required,
                Mode::Plain | Mode::Tls => StartTls::Off,
            },
            login: plan.login.clone(),
            ignored: Ignored {
                pipelining: !plan.pipelining,
                chunking: !plan.chunking,
            },
            dialect: Dialect::Smtp,
            timeouts: Timeouts {
                greeting: timeout,
                command: timeout,
                mail: timeout,
                rcpt: timeout,
                data_init: timeout,
                data_block: timeout,
                data_termination: timeout,
                quit: timeout,
            },
        };
        let tls = match plan.mode {
            Mode::Plain => None,
            Mode::Starttls | Mode::Tls => {
                let client = TlsClient::new(&plan.tls, purpose);
                Some(client.map_err(|error| format!("cannot set up TLS: {error}"))?)
            }
        };
        Ok(Dialler {
            target: plan.target,
            mode: plan.mode,
            settings: Arc::new(settings),
            tls,
            timeout,
        })
    }

    /// Connects, and goes on until a message can be sent.
    pub(crate) async fn open(
        &self,
        from: Option<IpAddr>,
        wants_to_resume: bool,
    ) -> Result<Link, LinkError> {
        let began = Instant::now();
        let stream =
            match tokio::time::timeout(self.timeout, wire::connect(self.target, from)).await {
                Ok(connected) => connected.map_err(LinkError::Connect)?,
                Err(_) => return Err(LinkError::Connect(io::ErrorKind::TimedOut.into())),
            };
        let mut opening = Opening::default();
        let (wire, channel) = match self.mode {
            Mode::Plain | Mode::Starttls => (Wire::Clear(stream), Channel::Clear),
            Mode::Tls => {
                let wire = self.secure(stream, wants_to_resume, &mut opening).await?;
                (wire, Channel::Tls)
            }
        };
        let mut session = Session::new(Arc::clone(&self.settings), channel, began);
        let mut io = Exchange::new(wire, self.timeout);

        // Nothing is said before the greeting is there.
        let mut effect = io.exchange(&mut session, Until::Said).await?;
        opening.greeting = began.elapsed();
        loop {
            match effect {
                Effect::Input => effect = io.exchange(&mut session, Until::Effect).await?,
                Effect::Secure => {
                    opening.starttls = Some(io.said_at.elapsed());
                    let Wire::Clear(stream) = io.wire else {
                        return Err(LinkError::Handshake("STARTTLS inside TLS".to_owned()));
                    };
                    let wire = self.secure(stream, wants_to_resume, &mut opening).await?;
                    io = Exchange::new(wire, self.timeout);
                    effect = session.secured(Instant::now(), &mut io.out);
                }
                Effect::Ready => break,
                Effect::Over(failure) => return Err(LinkError::Session(failure)),
                Effect::Content(_) | Effect::Finished(_) | Effect::Closed => {
                    return Err(LinkError::Broken(io::ErrorKind::InvalidData.into()));
                }
            }
        }
        opening.ready = began.elapsed();
        Ok(Link {
            io,
            session,
            began,
            opening,
        })
    }

    async fn secure(
        &self,
        stream: TcpStream,
        wants_to_resume: bool,
        opening: &mut Opening,
    ) -> Result<Wire, LinkError> {
        let failed = |error: &dyn fmt::Display| LinkError::Handshake(error.to_string());
        let Some(tls) = &self.tls else {
            return Err(failed(&"TLS was not set up"));
        };
        let began = Instant::now();
        let beginning = tls.begin(wants_to_resume).map_err(|error| failed(&error))?;
        let secured = tokio::time::timeout(self.timeout, Wire::secure(stream, beginning.ssl)).await;
        let wire = match secured {
            Ok(wire) => wire.map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&"no answer in time")),
        };
        let resumed = match &wire {
            Wire::Tls(stream) => tls.done(stream.ssl()),
            Wire::Clear(_) => false,
        };
        opening.handshake = Some(HandshakeTimes {
            took: began.elapsed(),
            offered: beginning.offers,
            resumed,
        });
        Ok(wire)
    }
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// From connecting to the greeting.
    pub(crate) greeting: Duration,
    /// From STARTTLS to its reply.
    pub(crate) starttls: Option<Duration>,
    /// The handshake.
    pub(crate) handshake: Option<HandshakeTimes>,
    /// From connecting to being ready.
    pub(crate) ready: Duration,
}

impl Opening {
    /// Adds it to what was measured.
    pub(crate) fn record(&self, tally: &mut Tally) {
        let Tally {
            stages, handshakes, ..
        } = tally;
        stages.record(Stage::Greeting, self.greeting);
        stages.record(Stage::Ready, self.ready);
        if let Some(starttls) = self.starttls {
            stages.record(Stage::Starttls, starttls);
        }
        if let Some(handshake) = self.handshake {
            stages.record(Stage::Handshake, handshake.took);
            handshakes.full += u64::from(!handshake.resumed);
            handshakes.resumed += u64::from(handshake.resumed);
            handshakes.offered += u64::from(handshake.offered);
        }
    }
}

/// A handshake that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandshakeTimes {
    /// How long it took.
    pub(crate) took: Duration,
    /// Whether it offered a ticket.
    pub(crate) offered: bool,
    /// Whether the session was resumed.
    pub(crate) resumed: bool,
}
