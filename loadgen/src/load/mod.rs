//! Load: threads that drive connections by a plan, and what comes of it.
//!
//! ```text
//!   Plan ──▶ Running ──▶ thread ── work ── schedule                  which message is due when
//!               │          │
//!               │          ├─ dialler ──▶ link ── exchange ── wire   the protocol core over TCP and TLS
//!               │          ├─ sender                                 messages as transactions
//!               │          └─ Tally                                  what this thread measured
//!               └── Live                                             what may be looked at meanwhile
//!
//!   idle: sessions that rest, by the same dialler and link
//! ```

mod dialler;
mod exchange;
mod idle;
mod link;
mod schedule;
mod sender;
mod thread;
mod tls;
mod wire;
mod work;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::measure::{Live, Tally};
use crate::plan::{Extent, Plan};
use crate::process;

use dialler::Dialler;
use tls::Purpose;
use work::Bounds;

pub(crate) use dialler::Opening;
pub(crate) use idle::{Served, Unserved, Visitors};
pub(crate) use link::{LinkError, Resting};

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// TLS is not possible as planned.
    #[error("{0}")]
    Tls(String),
    /// A thread could not run.
    #[error("a thread of load failed")]
    Thread(#[source] io::Error),
}

/// A run that goes on.
pub struct Running {
    threads: Vec<JoinHandle<io::Result<Tally>>>,
    live: Vec<Arc<Live>>,
    stop: Arc<AtomicBool>,
    counts_from: Instant,
    until: Option<Instant>,
}

impl Running {
    /// Begins.
    pub fn start(plan: &Arc<Plan>) -> Result<Running, LoadError> {
        let stop = Arc::new(AtomicBool::new(false));
        let live: Vec<Arc<Live>> = (0..plan.threads).map(|_| Arc::default()).collect();
        // All that can fail, and all that takes time, is done before the first moment that counts.
        let mut orders = Vec::with_capacity(plan.threads);
        for thread in 0..plan.threads {
            let connections = share(number(plan.connections), thread, plan.threads);
            let connections = usize::try_from(connections).unwrap_or(plan.connections);
            let dialler =
                Dialler::new(plan, Purpose::Messages { connections }).map_err(LoadError::Tls)?;
            orders.push((thread, connections, dialler));
        }
        let start = Instant::now() + LEAD;
        let counts_from = start + plan.warmup;
        let (until, messages) = match plan.extent {
            Extent::Duration(duration) => (Some(counts_from + duration), None),
            Extent::Messages(messages) => (None, Some(messages)),
        };
        let mut threads = Vec::with_capacity(plan.threads);
        for ((thread, connections, dialler), live) in orders.into_iter().zip(&live) {
            let order = thread::Order {
                thread,
                connections,
                start,
                bounds: Bounds {
                    counts_from,
                    until,
                    messages: messages.map(|messages| share(messages, thread, plan.threads)),
                },
                stop: Arc::clone(&stop),
            };
            let (plan, live) = (Arc::clone(plan), Arc::clone(live));
            let work = move || {
                if let Some(cores) = &plan.cores {
                    process::pin(cores).map_err(io::Error::other)?;
                }
                thread::run(&plan, &order, &live, dialler)
            };
            let name = format!("load {thread}");
            let spawned = std::thread::Builder::new().name(name).spawn(work);
            threads.push(spawned.map_err(LoadError::Thread)?);
        }
        Ok(Running {
            threads,
            live,
            stop,
            counts_from,
            until,
        })
    }

    /// When the warm-up ends.
    pub fn counts_from(&self) -> Instant {
        self.counts_from
    }

    /// When no more messages are begun, if time decides.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The counters, for whoever looks on.
    pub fn live(&self) -> &[Arc<Live>] {
        &self.live
    }

    /// No more messages are begun; what was begun ends.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether all threads have ended.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the threads, and adds up what they measured.
    pub fn join(self) -> Result<Tally, LoadError> {
        let mut sum = Tally::default();
        for thread in self.threads {
            let tally = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            sum.add(tally.map_err(LoadError::Thread)?);
        }
        Ok(sum)
    }
}

/// The part of `whole` that is thread `thread`'s: all parts together are the whole, and none is larger than another
/// by more than one.
fn share(whole: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (number(thread), number(threads.max(1)));
    whole / threads + u64::from(thread < whole % threads)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// From starting threads to the first moment of the run.
const LEAD: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for whole in 0..20 {
            for threads in 1..5 {
                let shares: Vec<u64> = (0..threads)
                    .map(|thread| share(whole, thread, threads))
                    .collect();
                assert_eq!(shares.iter().sum::<u64>(), whole);
                assert!(shares[0] - shares[threads - 1] <= 1, "{shares:?}");
            }
        }
    }
}
