//! The sessions of a shard, their deadlines, and the tick that enforces them.
//!
//! A wait is a receive or an operation in flight on the session's socket. When a deadline has passed the tick marks
//! the session and interrupts the one or cancels the other; the session finds out why when its wait ends. A drain
//! interrupts those that wait for input, and nobody whose replies are on their way. So no wait needs a timer
//! of its own, and none is ever dropped with a buffer in it. A deadline is met within [`TICK`]; a tick looks
//! at each session once, some ten nanoseconds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::ring::{Intake, Receiver, Receiving, Sent, Socket};

/// How often deadlines are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// One session as the tick sees it.
pub(super) struct Watched {
    socket: Socket,
    receiver: Receiver,
    deadline: Cell<Instant>,
    expired: Cell<bool>,
    place: Cell<usize>,
}

/// All sessions of a shard.
#[derive(Default)]
pub(super) struct Watch {
    sessions: RefCell<Vec<Rc<Watched>>>,
    draining: Cell<bool>,
    all_gone: Notify,
}

impl Watch {
    /// Watches a new session.
    pub(super) fn add(&self, socket: Socket, intake: &Intake, deadline: Instant) -> Rc<Watched> {
        let mut sessions = self.sessions.borrow_mut();
        let watched = Rc::new(Watched {
            receiver: socket.receiver(intake),
            socket,
            deadline: Cell::new(deadline),
            expired: Cell::new(false),
            place: Cell::new(sessions.len()),
        });
        sessions.push(Rc::clone(&watched));
        watched
    }

    /// Watches it no more.
    pub(super) fn remove(&self, watched: &Watched) {
        let mut sessions = self.sessions.borrow_mut();
        let place = watched.place.get();
        if place < sessions.len() {
            sessions.swap_remove(place);
        }
        if let Some(moved) = sessions.get(place) {
            moved.place.set(place);
        }
        if sessions.is_empty() {
            self.all_gone.notify_waiters();
        }
    }

    /// Interrupts the sessions whose deadline has passed. One that is still there at the next tick, because it
    /// was between two operations, is interrupted again.
    pub(super) fn tick(&self, now: Instant) {
        for watched in self.sessions.borrow().iter() {
            if watched.deadline.get() <= now {
                watched.expired.set(true);
                watched.interrupt();
            }
        }
    }

    /// Wakes the sessions that wait for input, so that they can end. The others will look before they wait.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        for watched in self.sessions.borrow().iter() {
            watched.receiver.interrupt();
        }
    }

    /// Whether the server goes down.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Returns once there is no session.
    pub(super) async fn all_gone(&self) {
        loop {
            let gone = self.all_gone.notified();
            if self.sessions.borrow().is_empty() {
                return;
            }
            gone.await;
        }
    }
}

impl Watched {
    /// The session's socket.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Receives; what `ECANCELED` means is for the caller to find out.
    pub(super) fn receive(&self) -> Receiving<'_> {
        self.receiver.receive()
    }

    /// Sends, which a drain does not interrupt.
    pub(super) fn send(&self, octets: Vec<u8>) -> Sent {
        self.socket.send(octets)
    }

    /// Has what is waited for end with `ECANCELED`.
    fn interrupt(&self) {
        if !self.receiver.interrupt() {
            self.socket.cancel();
        }
    }

    /// Sets a new deadline, and forgets that the old one passed.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        self.deadline.set(deadline);
        self.expired.set(false);
    }

    /// Whether the deadline has passed.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.get()
    }
}
