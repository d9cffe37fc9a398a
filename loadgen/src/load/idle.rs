//! Sessions that are opened and left alone, and others that send a message meanwhile.
//!
//! Apart from the threads of a run because here nobody waits for the next message: a session that rests has no task
//! and no buffer, so that tens of thousands of them do not make the load generator the thing that is measured.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::LoadError;
use super::dialler::{Dialler, Opening};
use super::link::{LinkError, Resting};
use super::sender::{Sender, refusal};
use super::tls::Purpose;
use crate::measure::ErrorKind;
use crate::plan::Plan;

/// Makes sessions of both kinds.
pub(crate) struct Visitors {
    plan: Arc<Plan>,
    dialler: Dialler,
    /// Addresses that sessions come from which are left alone, in turn.
    sources: Vec<IpAddr>,
    /// The one that the others come from.
    others_source: Option<IpAddr>,
    opened: Cell<usize>,
    sent: Cell<u64>,
    random: RefCell<SmallRng>,
}

/// The times of a session that sent a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// From connecting to being ready.
    pub(crate) ready: Duration,
    /// From MAIL to the final reply.
    pub(crate) message: Duration,
    /// From connecting to the reply to QUIT.
    pub(crate) session: Duration,
}

/// What went wrong in such a session, and its words.
pub(crate) type Unserved = (ErrorKind, String);

impl Visitors {
    /// For this plan. The last of several addresses is for the others: a server that limits how many sessions come from
    /// one address must not refuse them for the sake of those that rest.
    pub(crate) fn new(plan: &Arc<Plan>) -> Result<Visitors, LoadError> {
        let (sources, others_source) = match plan.source_addresses.as_slice() {
            [sources @ .., last] if !sources.is_empty() => (sources.to_vec(), Some(*last)),
            sources => (sources.to_vec(), sources.first().copied()),
        };
        Ok(Visitors {
            plan: Arc::clone(plan),
            dialler: Dialler::new(plan, Purpose::Rest).map_err(LoadError::Tls)?,
            sources,
            others_source,
            opened: Cell::new(0),
            sent: Cell::new(0),
            random: RefCell::new(SmallRng::seed_from_u64(plan.seed)),
        })
    }

    /// Opens a session up to where a message could be sent, and leaves it there.
    pub(crate) async fn open(&self) -> Result<(Resting, Opening), LinkError> {
        let turn = self.opened.get();
        self.opened.set(turn.wrapping_add(1));
        let turn = turn.checked_rem(self.sources.len());
        let source = turn.and_then(|turn| self.sources.get(turn)).copied();
        let link = self.dialler.open(source, false).await?;
        let opening = link.opening;
        Ok((link.rest()?, opening))
    }

    /// Sends a message over a connection of its own.
    pub(crate) async fn serve(&self) -> Result<Served, Unserved> {
        let number = self.sent.get();
        self.sent.set(number.wrapping_add(1));
        let broken = |error: LinkError| (error.kind(), error.to_string());
        let opened = self.dialler.open(self.others_source, false).await;
        let mut link = opened.map_err(broken)?;
        let ready = link.opening.ready;
        let began = Instant::now();
        let mut sender = Sender::new(&self.plan);
        let sent = sender.send(&mut link, number, &self.random).await;
        let outcome = sent.map_err(broken)?;
        let message = began.elapsed();
        if let Some((kind, text)) = refusal(&outcome) {
            let text = text.to_owned();
            link.abandon().await;
            return Err((kind, text));
        }
        Ok(Served {
            ready,
            message,
            session: link.quit().await.map_err(broken)?,
        })
    }
}
