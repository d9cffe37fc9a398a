//! The mail queue of one shard: what was accepted and is not delivered to all its recipients yet.
//!
//! ```text
//!  accept ──▶ spool: on stable storage ──▶ 250
//!                     │
//!                     ▼
//!   ready ──▶ attempt ──▶ all recipients final ──▶ note in the spool that it is done
//!     ▲          │
//!     └── due ◀──┴── some are not: note how far it came, wait as the schedule has it
//! ```
//!
//! Invariants:
//! - A message leaves the queue when each of its recipients is final, or by an operator's word, and not otherwise.
//! - What an attempt delivered is noted before the next attempt: a recipient gets a message twice only if a crash
//!   came between its delivery and the note.
//! - At most [`ATTEMPTS_MAX`] attempts of a shard are under way, and for one of several targets at most half.
//! - Messages that wait hold no memory for their data when that is short, but under `--durability none`.
//!
//! Not promised: an order. What comes first is mostly delivered first.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::books::{Books, Item, Standing, unix_ms};
pub use self::meters::QueueMeters;
use super::attempt::{self, Attempt};
use super::settings::{DeliverySettings, Durability};
use crate::smtp::data::{Budget, MailData};
use crate::smtp::message::Message;
use crate::smtp::trace::received_field;
use crate::spool::disk::on_ring::OnRing;
use crate::spool::{
    Accepted, CommitError, DiskError, Held, Log, LogSettings, OwnFile, Progress, QueueId, QueueIds,
    Recovered, RecoveredLog,
};

mod books;
mod meters;
mod operator;
pub mod request;

/// The queue of one shard. A clone is the same queue.
#[derive(Clone)]
pub struct Queue(Rc<Inner>);

/// A large message that is put away as it comes in.
pub type Stored = OwnFile<OnRing>;

/// What a shard's queue is opened with.
pub struct QueuePlan {
    /// The shard.
    pub shard: usize,
    /// Its own log first, then those that it adopts from shards that are no more.
    pub logs: Vec<RecoveredLog>,
    /// How logs are kept.
    pub log_settings: LogSettings,
    /// Memory for mail data.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub meters: Arc<QueueMeters>,
}

struct Inner {
    settings: Arc<DeliverySettings>,
    logs: Vec<Log<OnRing>>,
    ids: QueueIds,
    budget: Arc<Budget>,
    meters: Arc<QueueMeters>,
    /// Never borrowed over a wait.
    books: RefCell<Books>,
    /// No attempt is begun any more, and one under way stops where it can.
    ending: Cell<bool>,
    /// Something became ready, or the end is wanted.
    wake: Notify,
}

impl Queue {
    /// Opens the queue with what recovery found. [`Queue::run`] delivers it.
    pub async fn open(
        plan: QueuePlan,
        settings: Arc<DeliverySettings>,
    ) -> Result<Queue, DiskError> {
        let ids = QueueIds::new(plan.shard);
        let mut books = Books::new(settings.routes.targets());
        let mut logs = Vec::with_capacity(plan.logs.len());
        for (log, mut recovered) in plan.logs.into_iter().enumerate() {
            if let Some(newest) = recovered.newest {
                ids.go_on_behind(newest);
            }
            for message in std::mem::take(&mut recovered.messages) {
                let lane = settings.routes.first_target(&message.accepted.envelope);
                let item = Item::new(message, lane, Some(log), None);
                books.enter(item, &settings.schedule);
            }
            logs.push(Log::open(OnRing, recovered, plan.log_settings.clone()).await?);
        }
        plan.meters.found(books.len());
        Ok(Queue(Rc::new(Inner {
            settings,
            logs,
            ids,
            budget: plan.budget,
            meters: plan.meters,
            books: RefCell::new(books),
            ending: Cell::new(false),
            wake: Notify::new(),
        })))
    }

    /// Writes the logs and delivers, until [`Queue::end`]. To be spawned by the shard. Ends early only when one of
    /// our assertions is broken: a log that panicked answers nobody any more, and a message whose attempt did
    /// would wait for ever.
    pub async fn run(self) {
        let mut logs = JoinSet::new();
        for log in &self.0.logs {
            logs.spawn_local(log.clone().run());
        }
        tokio::select! {
            outcome = self.dispatch() => if outcome.is_err() { return },
            // It has said why by the panic hook.
            _ = logs.join_next(), if !logs.is_empty() => return,
        }
        self.put_away().await;
        for log in &self.0.logs {
            log.close();
        }
        while logs.join_next().await.is_some() {}
    }

    /// Has no attempt begun any more; [`Queue::run`] ends when those under way have, and all is noted.
    pub fn end(&self) {
        self.0.ending.set(true);
        self.0.wake.notify_one();
    }

    /// Has all that was noted so far written, for an end that does not wait for attempts under way: what was
    /// delivered is not to be delivered again.
    pub async fn flush(&self) {
        for log in &self.0.logs {
            log.flush().await;
        }
    }

    /// Makes a message safe, as far as `--durability` has it, and has it delivered. `stored` is the part of it
    /// that was put away.
    pub async fn accept(
        &self,
        message: Message,
        stored: Option<Stored>,
    ) -> Result<QueueId, CommitError> {
        let inner = &*self.0;
        let discarded = inner.settings.routes.discard_all(&message.envelope);
        let place = match discarded {
            true => None,
            false => Some(Place::take(&inner.meters)?),
        };
        let now = SystemTime::now();
        let id = match &stored {
            Some(stored) => stored.id(),
            None => inner.ids.next(now),
        };
        let seconds = i64::try_from(unix_ms(now) / 1000).unwrap_or(i64::MAX);
        let hostname = &inner.settings.hostname;
        let received = received_field(&message, hostname, &id.to_string(), seconds);
        let accepted = Accepted {
            id,
            arrived_unix_ms: unix_ms(now),
            envelope: Arc::clone(&message.envelope),
            received: received.into(),
            data_octets: message.octets(),
            data_crc: message.data.crc32c(),
        };
        let (log, data) = match (stored, inner.settings.durability) {
            (Some(stored), _) => {
                let log = self.own_log()?;
                log.append_stored(accepted.clone(), message.data, stored)
                    .await?;
                (Some(0), None)
            }
            (None, Durability::None) => (None, Some(Rc::new(message.data))),
            (None, Durability::Disk) => {
                let data = Rc::new(message.data);
                let log = self.own_log()?;
                log.append(accepted.clone(), Rc::clone(&data)).await?;
                (Some(0), Some(data))
            }
        };
        match place {
            Some(place) => {
                self.enter(accepted, log, data);
                place.keep();
            }
            None => {
                inner.meters.discarded(accepted.envelope.recipients.len());
                if log.is_some() {
                    self.own_log()?.note_done(id);
                }
            }
        }
        Ok(id)
    }

    /// A place for a large message that is on its way.
    pub async fn begin_stored(&self) -> Result<Stored, CommitError> {
        let id = self.0.ids.next(SystemTime::now());
        self.own_log()?.begin_own_file(id).await
    }

    fn own_log(&self) -> Result<&Log<OnRing>, CommitError> {
        self.0.logs.first().ok_or(CommitError::Closed)
    }

    fn log_of(&self, item: &Item) -> Option<&Log<OnRing>> {
        item.log.get().and_then(|log| self.0.logs.get(log))
    }

    fn enter(&self, accepted: Accepted, log: Option<usize>, data: Option<Rc<MailData>>) {
        let inner = &*self.0;
        let lane = inner.settings.routes.first_target(&accepted.envelope);
        let mut books = inner.books.borrow_mut();
        // What it keeps is to be no reason for sessions to put mail away.
        let keep = log.is_none()
            || (books.first_attempts(lane) < KEPT_IN_MEMORY_MAX && !inner.budget.is_half_spent());
        let progress = Progress::begin(accepted.envelope.recipients.len());
        let message = Recovered { accepted, progress };
        let item = Item::new(message, lane, log, data.filter(|_| keep));
        books.enter(item, &inner.settings.schedule);
        drop(books);
        inner.wake.notify_one();
    }

    /// Begins attempts as they become due, until the end. An error: an attempt panicked.
    async fn dispatch(&self) -> Result<(), tokio::task::JoinError> {
        let mut attempts = JoinSet::new();
        loop {
            if self.0.ending.get() {
                while let Some(ended) = attempts.join_next().await {
                    ended?;
                }
                return Ok(());
            }
            let next_due = {
                let mut books = self.0.books.borrow_mut();
                let next_due = books.make_ready(Instant::now());
                while let Some(item) = books.take_ready(ATTEMPTS_MAX) {
                    attempts.spawn_local(self.clone().attempt(item));
                }
                next_due
            };
            // Without one it looks again some time, which costs nothing.
            let next_due = next_due.unwrap_or_else(|| Instant::now() + LOOKED_AT);
            tokio::select! {
                () = self.0.wake.notified() => {}
                Some(ended) = attempts.join_next() => ended?,
                () = tokio::time::sleep_until(next_due.into()) => {}
            }
        }
    }

    /// What is in memory alone goes into the log, for the next start.
    async fn put_away(&self) {
        let items: Vec<_> = self.0.books.borrow().behind(None).cloned().collect();
        for item in items.iter().filter(|item| item.log.get().is_none()) {
            match self.log_item(item).await {
                Ok(()) => self.note(item),
                Err(error) => {
                    // Under `--durability none` nothing was promised.
                    tracing::error!(queue_id = %item.id(), %error, "message lost from memory");
                    self.drop_item(item);
                }
            }
        }
    }

    async fn attempt(self, item: Rc<Item>) {
        self.0.meters.attempt_begins();
        let mut progress = item.progress.borrow().clone();
        let outcome = self.deliver(&item, &mut progress).await;
        self.0
            .meters
            .attempt_ends(outcome.delivered, outcome.deferred);
        self.attempted(&item, progress, &outcome).await;
        self.0.books.borrow_mut().attempt_ended(&item);
    }

    /// Attempts what is not final, and notes it in `progress`.
    async fn deliver(&self, item: &Item, progress: &mut Progress) -> attempt::Outcome {
        let data = item.data.borrow().clone();
        let attempt = Attempt {
            settings: &self.0.settings,
            accepted: &item.accepted,
            data: data.as_deref(),
            log: self.log_of(item),
            ending: &self.0.ending,
        };
        attempt.deliver(progress).await
    }

    /// What comes of an item behind an attempt.
    async fn attempted(&self, item: &Rc<Item>, progress: Progress, outcome: &attempt::Outcome) {
        if item.standing() == Standing::Gone {
            return;
        }
        if progress.is_final() {
            self.forget(item);
            return;
        }
        let id = item.id();
        let mut progress = progress;
        // Meanwhile an operator may have had it held, or released.
        progress.held = item.progress.borrow().held;
        if outcome.unreadable {
            progress.held = Held::Yes;
        }
        let mut next = Instant::now();
        if !outcome.cut_short {
            progress.attempts = progress.attempts.saturating_add(1);
            let wait = self.0.settings.schedule.wait(progress.attempts, id);
            next += wait;
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let now = unix_ms(SystemTime::now());
            progress.next_attempt_unix_ms = now.saturating_add(wait);
        }
        *item.progress.borrow_mut() = progress;
        let was_logged = item.log.get().is_some();
        if let Err(error) = self.log_item(item).await {
            tracing::warn!(queue_id = %id, %error, "message stays in memory");
        }
        if item.standing() == Standing::Gone {
            return;
        }
        match was_logged {
            true => self.note_attempt(item, outcome),
            // The log knows of no attempt before, and of no word of an operator.
            false => self.note(item),
        }
        let held = item.progress.borrow().held;
        let mut books = self.0.books.borrow_mut();
        match (held, item.standing()) {
            (Held::Yes, _) => books.stand_held(item),
            (Held::No, Standing::ActiveAgain) => books.stand_ready(item),
            (Held::No, _) => books.stand_due(item, next),
        }
    }

    /// Sees to it that a log has the item, though not how far it has come, and gives its memory back. After an
    /// error it stays there, as long as the process does.
    async fn log_item(&self, item: &Item) -> Result<(), CommitError> {
        item.forget_data();
        let Some(data) = item.data.borrow().clone() else {
            return Ok(());
        };
        let log = self.own_log()?;
        log.append(item.accepted.clone(), data).await?;
        item.log.set(Some(0));
        item.forget_data();
        if item.standing() == Standing::Gone {
            // Removed while it was being written: the log does not know yet.
            self.forget(item);
        }
        Ok(())
    }

    /// Notes in its log how far an item has come.
    fn note(&self, item: &Item) {
        if let Some(log) = self.log_of(item) {
            log.note_progress(item.id(), &item.progress.borrow());
        }
    }

    /// The same behind an attempt.
    fn note_attempt(&self, item: &Item, outcome: &attempt::Outcome) {
        let Some(log) = self.log_of(item) else {
            return;
        };
        let progress = item.progress.borrow();
        if outcome.delivered == 0 && !outcome.unreadable {
            log.note_attempt(item.id(), &progress);
        } else {
            log.note_progress(item.id(), &progress);
        }
    }

    /// Nothing more is to be done for an item.
    fn forget(&self, item: &Item) {
        if let Some(log) = self.log_of(item) {
            log.note_done(item.id());
        }
        self.drop_item(item);
    }

    fn drop_item(&self, item: &Item) {
        if self.0.books.borrow_mut().remove(item) {
            self.0.meters.leave();
        }
    }
}

/// A place in the queues of the process, given back unless a message has it.
struct Place<'m>(Option<&'m QueueMeters>);

impl<'m> Place<'m> {
    fn take(meters: &'m QueueMeters) -> Result<Place<'m>, CommitError> {
        meters.enter().map_err(|_full| CommitError::QueueFull)?;
        Ok(Place(Some(meters)))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(meters) = self.0 {
            meters.leave();
        }
    }
}

/// Attempts of one shard that are under way: enough to keep a disk busy, and few descriptors.
const ATTEMPTS_MAX: usize = 64;

/// Messages of one target that wait for their first attempt with their data in memory; the others are read again.
const KEPT_IN_MEMORY_MAX: usize = 1024;

/// How long the dispatcher waits when nothing is due.
const LOOKED_AT: Duration = Duration::from_secs(3600);
