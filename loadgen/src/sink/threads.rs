//! The threads of a sink: a current-thread runtime each, with listeners of its own.
//!
//! Shared on a message's way: nothing but what a flag asked for (a bound on messages, a share).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use openssl::ssl::SslContext;
use tokio::sync::{Notify, watch};

use super::counts::Cells;
use super::dialogue::{Channel, Terms};
use super::listener;
use super::misbehaviour::Misbehaviour;
use super::stall::Stalls;

/// What all threads know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) terms: Arc<Terms>,
    pub(super) misbehaviour: Misbehaviour,
    pub(super) tls: Option<SslContext>,
    pub(super) idle: Duration,
    pub(super) stalls: Stalls,
    pub(super) messages_max: Option<u64>,
    /// Counted only if there is a bound on them.
    pub(super) messages: AtomicU64,
    /// Whether the phase is past [`Phase::Serving`], for where it is asked often.
    pub(super) draining: AtomicBool,
    pub(super) phase: watch::Sender<Phase>,
    /// Told of each connection closed while draining.
    pub(super) closed: Notify,
}

/// Where a sink stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// The bound on messages is reached: no connections and no messages more.
    Draining,
    Ended,
}

impl Shared {
    /// A message was counted.
    pub(super) fn message_taken(&self) {
        let Some(messages_max) = self.messages_max else {
            return;
        };
        if self.messages.fetch_add(1, Ordering::Relaxed) + 1 >= messages_max {
            self.advance(Phase::Draining);
        }
    }

    pub(super) fn connection_closed(&self) {
        if self.draining.load(Ordering::Relaxed) {
            self.closed.notify_one();
        }
    }

    pub(super) fn advance(&self, to: Phase) {
        self.draining.store(true, Ordering::Relaxed);
        self.phase.send_if_modified(|phase| {
            let advances = *phase < to;
            *phase = to.max(*phase);
            advances
        });
    }
}

/// One thread's place in a sink.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) counts: Cells,
}

/// Starts a thread that serves these listeners until [`Phase::Ended`].
pub(super) fn start(
    listeners: Vec<(TcpListener, Channel)>,
    place: Arc<Place>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listeners = {
        let _context = runtime.enter();
        listeners
            .into_iter()
            .map(|(listener, channel)| Ok((tokio::net::TcpListener::from_std(listener)?, channel)))
            .collect::<io::Result<Vec<_>>>()?
    };
    std::thread::Builder::new()
        .name(String::from("sink"))
        .spawn(move || runtime.block_on(serve(listeners, place)))
}

async fn serve(listeners: Vec<(tokio::net::TcpListener, Channel)>, place: Arc<Place>) {
    let mut phase = place.shared.phase.subscribe();
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|(listener, channel)| {
            tokio::spawn(listener::accept(listener, channel, Arc::clone(&place)))
        })
        .collect();
    let stalling = Arc::clone(&place);
    tokio::spawn(async move { stalling.shared.stalls.keep().await });

    // Fails only if the sender is gone, which `place` holds.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    for accept in accepting {
        accept.abort();
    }
    let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
}
