//! Connections to next hops that nobody uses at the moment.
//!
//! Each is kept for [`KEPT`] behind its last message. Who waits for a connection to the same destination gets it at
//! once. If others wait for its slot, on another shard or for another destination, it ends, so that one destination's
//! rest keeps nobody waiting, and what it was handed to and fro here now and then comes to an end for them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::link::Link;
use crate::deliver::slots::{Slot, Slots};

/// The idle connections of a shard.
pub(super) struct Pool {
    slots: Arc<Slots>,
    idle: RefCell<HashMap<Rc<str>, Vec<Idle>>>,
    /// Who waits for one, on this shard.
    waiting: RefCell<HashMap<Rc<str>, VecDeque<Waiting>>>,
    /// One came.
    filled: Notify,
}

/// A connection, and the right to have it.
pub(super) struct Idle {
    pub(super) link: Link,
    pub(super) slot: Slot,
    until: Instant,
}

/// Who waits for a connection, or for a slot.
struct Waiting {
    give: oneshot::Sender<Idle>,
    /// It has one, though it may not have noticed.
    settled: Arc<AtomicBool>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Any connection to the destination.
    Either,
    /// A new one.
    Slot,
}

/// What came of waiting for a connection.
pub(super) enum Waited {
    /// The right to open one.
    Slot(Slot),
    /// One that was in use.
    Idle(Box<Idle>),
}

impl Idle {
    /// One that is in use.
    pub(super) fn in_use(link: Link, slot: Slot) -> Idle {
        Idle {
            link,
            slot,
            until: Instant::now(),
        }
    }
}

impl Pool {
    pub(super) fn new(slots: Arc<Slots>) -> Pool {
        Pool {
            slots,
            idle: RefCell::default(),
            waiting: RefCell::default(),
            filled: Notify::new(),
        }
    }

    /// Whether many connections are open, so that others may wait for one.
    pub(super) fn is_crowded(&self) -> bool {
        self.slots.are_crowded()
    }

    /// A connection to this destination that is good for another message; the one that was used last, so that the
    /// others can go.
    pub(super) fn take(&self, destination: &str) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let of_destination = idle.get_mut(destination)?;
        let found = loop {
            match of_destination.pop() {
                Some(idle) if idle.link.is_quiet() => break Some(idle),
                // It said farewell, or is gone.
                Some(gone) => farewell(gone),
                None => break None,
            }
        };
        if of_destination.is_empty() {
            idle.remove(destination);
        }
        found
    }

    /// Passes a connection on to who waits for it, or keeps it for a while.
    pub(super) fn give(&self, destination: &Rc<str>, link: Link, slot: Slot) {
        let is_wanted = self.slots.is_wanted(destination);
        let has_done_much = link.messages().is_multiple_of(MESSAGES_IN_A_ROW);
        let mut idle = Idle {
            link,
            slot,
            until: Instant::now() + KEPT,
        };
        while !(is_wanted && has_done_much)
            && let Some(waiting) = self.next_waiting(destination)
        {
            match waiting.give.send(idle) {
                Ok(()) => {
                    waiting.settled.store(true, Ordering::Relaxed);
                    return;
                }
                // It has another by now.
                Err(back) => idle = back,
            }
        }
        if is_wanted {
            farewell(idle);
            return;
        }
        let mut all = self.idle.borrow_mut();
        all.entry(Rc::clone(destination)).or_default().push(idle);
        self.filled.notify_one();
    }

    /// A connection that is given back, or a slot for a new one: whichever comes first, if either will do. What is
    /// left of waiting is to be tidied up, also when nobody waited to the end.
    pub(super) async fn wait(&self, destination: &Rc<str>, wants: Wants) -> Waited {
        let (give, given) = oneshot::channel();
        let settled = Arc::<AtomicBool>::default();
        let waiting = Waiting {
            give,
            settled: Arc::clone(&settled),
        };
        if wants == Wants::Either {
            self.line_up(destination, waiting);
        }
        tokio::select! {
            biased;
            Ok(idle) = given => Waited::Idle(Box::new(idle)),
            slot = self.slots.take(destination, settled) => Waited::Slot(slot),
        }
    }

    fn line_up(&self, destination: &Rc<str>, waiting: Waiting) {
        let mut all = self.waiting.borrow_mut();
        let line = all.entry(Rc::clone(destination)).or_default();
        line.push_back(waiting);
    }

    fn next_waiting(&self, destination: &str) -> Option<Waiting> {
        let mut all = self.waiting.borrow_mut();
        all.get_mut(destination)?.pop_front()
    }

    /// Forgets those who have what they waited for.
    pub(super) fn tidy(&self, destination: &str) {
        let mut all = self.waiting.borrow_mut();
        if let Some(waiting) = all.get_mut(destination) {
            waiting.retain(|waiting| !waiting.give.is_closed());
            if waiting.is_empty() {
                all.remove(destination);
            }
        }
    }

    /// Ends what nobody uses, as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            let wanted = self.slots.wanted();
            match self.end_idle(Instant::now()) {
                None => self.filled.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = wanted => {}
                        () = tokio::time::sleep_until(next.into()) => {}
                    }
                }
            }
        }
    }

    /// Ends those whose time is over and those that somebody wants. When the next one's time is.
    fn end_idle(&self, now: Instant) -> Option<Instant> {
        let mut all = self.idle.borrow_mut();
        let mut next = None;
        all.retain(|destination, idle| {
            let wanted = self.slots.is_wanted(destination);
            for gone in idle.extract_if(.., |idle| wanted || idle.until <= now) {
                farewell(gone);
            }
            let first = idle.iter().map(|idle| idle.until).min();
            next = next.into_iter().chain(first).min();
            !idle.is_empty()
        });
        next
    }

    /// Ends all of them, and waits for that.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.idle.borrow_mut());
        let mut ends = tokio::task::JoinSet::new();
        for idle in all.into_values().flatten() {
            ends.spawn_local(idle.link.quit());
        }
        while ends.join_next().await.is_some() {}
    }
}

/// Ends a connection, on its own time.
pub(super) fn farewell(idle: Idle) {
    let Idle { link, slot, .. } = idle;
    tokio::task::spawn_local(async move {
        link.quit().await;
        drop(slot);
    });
}

/// How long a connection is kept for the next message: long enough for mail that comes in a stream, and short for
/// the next hop, which has better use for its sessions.
const KEPT: Duration = Duration::from_secs(5);

/// Messages that go over a connection in a row while others wait for its slot: a shard with a stream of mail for a
/// destination leaves some of its connections to the others.
const MESSAGES_IN_A_ROW: u64 = 100;
