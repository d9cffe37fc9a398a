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
//! - A recipient is given up when the report about it is in the spool, or nobody wants one.
//! - Attempts are bounded, in all and for each destination: one that hangs leaves room to the others.
//! - Messages that wait hold no memory for their data when that is short, but under `--durability none`.
//!
//! Not promised: an order. What comes first is mostly delivered first.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::books::{Began, Begun, Books, How, Item, LegEnd, Standing, unix_ms};
use self::judgement::Judgement;
pub(super) use self::lane::News;
use self::lane::{LocalTargets, Shares};
pub use self::meters::QueueMeters;
pub use self::passing::AcceptError;
use self::telling::Told;
use super::attempt::{Attempt, Left, Tried};
use super::content::Source;
use super::destination::Destinations;
use super::ending::Ending;
use super::hops::{Hops, HopsError, HopsPlan};
use super::settings::{DeliverySettings, Durability};
use super::target::Target;
use super::verdict::{Failure, Verdict};
use crate::smtp::data::{Budget, MailData};
use crate::smtp::message::Message;
use crate::smtp::status::Status;
use crate::smtp::trace::received_field;
use crate::spool::disk::on_ring::OnRing;
use crate::spool::{
    Accepted, CommitError, DiskError, Held, Log, LogSettings, OwnFile, Progress, QueueId, QueueIds,
    Recovered, RecoveredLog,
};

mod books;
mod judgement;
mod lane;
mod meters;
mod operator;
mod passing;
pub mod request;
mod telling;

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
    /// How mail is sent on.
    pub hops: HopsPlan,
}

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The spool.
    #[error("cannot open the spool: {0}")]
    Spool(#[from] DiskError),
    /// What next hops are reached by.
    #[error("cannot send mail on: {0}")]
    Hops(#[from] HopsError),
}

struct Inner {
    settings: Arc<DeliverySettings>,
    logs: Vec<Log<OnRing>>,
    ids: QueueIds,
    budget: Arc<Budget>,
    meters: Arc<QueueMeters>,
    destinations: Rc<Destinations>,
    hops: Rc<Hops>,
    /// Never borrowed over a wait.
    books: RefCell<Books>,
    /// No attempt is begun any more, and one under way stops where it can.
    ending: Rc<Ending>,
    /// Something became ready, or the end is wanted.
    wake: Notify,
    /// Attempts that senders wait for, or waited for. Never borrowed over a wait.
    passing: RefCell<JoinSet<()>>,
}

impl Queue {
    /// Opens the queue with what recovery found. [`Queue::run`] delivers it.
    pub async fn open(
        plan: QueuePlan,
        settings: Arc<DeliverySettings>,
    ) -> Result<Queue, OpenError> {
        let ids = QueueIds::new(plan.shard);
        let destinations = Rc::new(Destinations::new(Arc::clone(&settings)));
        let told = Arc::clone(&settings);
        let mut books = Books::new(Rc::clone(&destinations), shares(&settings), move |item| {
            let waited = judgement::waited(&item.accepted);
            let is_late = told.sending.is_late(waited) && !item.progress.borrow().delay_notified;
            told.sending.is_expired(waited) || is_late
        });
        let mut logs = Vec::with_capacity(plan.logs.len());
        for (log, mut recovered) in plan.logs.into_iter().enumerate() {
            if let Some(newest) = recovered.newest {
                ids.go_on_behind(newest);
            }
            let messages = std::mem::take(&mut recovered.messages);
            let opened = Log::open(OnRing, recovered, plan.log_settings.clone()).await?;
            for message in messages {
                // A crash came before the note that it is done.
                if message.progress.is_final() {
                    opened.note_done(message.accepted.id);
                    continue;
                }
                let item = Item::new(message, Some(log), None);
                books.enter(item, &settings.schedule);
            }
            logs.push(opened);
        }
        plan.meters.found(books.len());
        let ending = Rc::<Ending>::default();
        let hops = Hops::new(plan.hops, Arc::clone(&settings), Rc::clone(&ending))?;
        Ok(Queue(Rc::new(Inner {
            settings,
            destinations,
            hops: Rc::new(hops),
            logs,
            ids,
            budget: plan.budget,
            meters: plan.meters,
            books: RefCell::new(books),
            ending,
            wake: Notify::new(),
            passing: RefCell::new(JoinSet::new()),
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
            () = self.0.hops.keep() => {}
            // It has said why by the panic hook.
            _ = logs.join_next(), if !logs.is_empty() => return,
        }
        self.0.hops.close().await;
        self.put_away().await;
        for log in &self.0.logs {
            log.close();
        }
        while logs.join_next().await.is_some() {}
    }

    /// Has no attempt begun any more; [`Queue::run`] ends when those under way have, and all is noted.
    pub fn end(&self) {
        self.0.ending.want();
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
    ) -> Result<QueueId, AcceptError> {
        let inner = &*self.0;
        let now = SystemTime::now();
        let discarded = inner.settings.routes.discard_all(&message.envelope);
        if discarded && stored.is_none() && inner.settings.durability == Durability::None {
            // What would be written of it is read by nobody.
            inner.meters.discarded(message.envelope.recipients.len());
            return Ok(inner.ids.next(now));
        }
        let place = match discarded {
            true => None,
            false => Some(Place::take(&inner.meters)?),
        };
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
            (None, durability @ (Durability::Disk | Durability::NextHop)) => {
                let data = Rc::new(message.data);
                if durability == Durability::NextHop
                    && let Some(to) = self.passes_to(&accepted)
                {
                    if let Some(place) = place {
                        place.keep();
                    }
                    self.pass_on(&to, accepted, data).await?;
                    return Ok(id);
                }
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
                self.own_log()?.note_done(id);
            }
        }
        Ok(id)
    }

    /// Keeps a message of our own, as far as `--durability` has it, and has it delivered. It takes the place of what
    /// it is about, so there is one for it.
    async fn keep_our_own(&self, accepted: Accepted, data: MailData) -> Result<(), CommitError> {
        let data = Rc::new(data);
        let log = match self.0.settings.durability {
            Durability::None => None,
            Durability::Disk | Durability::NextHop => {
                let log = self.own_log()?;
                log.append_in_place(accepted.clone(), Rc::clone(&data))
                    .await?;
                Some(0)
            }
        };
        self.0.meters.enter_anyway();
        self.enter(accepted, log, Some(data));
        Ok(())
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
        let progress = Progress::begin(accepted.envelope.recipients.len());
        let first = accepted.envelope.recipients.first();
        let first = first.map(|recipient| inner.destinations.of(recipient));
        let mut books = inner.books.borrow_mut();
        // What it keeps is to be no reason for sessions to put mail away.
        let waiting = first.map_or(0, |first| books.first_attempts(&first.key));
        let keep = log.is_none() || (waiting < KEPT_IN_MEMORY_MAX && !inner.budget.is_half_spent());
        let message = Recovered { accepted, progress };
        let item = Item::new(message, log, data.filter(|_| keep));
        books.enter(item, &inner.settings.schedule);
        drop(books);
        inner.wake.notify_one();
    }

    /// Begins attempts as they become due, until the end. An error: an attempt panicked.
    async fn dispatch(&self) -> Result<(), tokio::task::JoinError> {
        let mut attempts = JoinSet::new();
        loop {
            if self.0.ending.is_wanted() {
                while let Some(ended) = attempts.join_next().await {
                    ended?;
                }
                while let Some(ended) = self.next_passing().await {
                    ended?;
                }
                return Ok(());
            }
            let next_due = {
                let mut books = self.0.books.borrow_mut();
                let next_due = books.make_ready(Instant::now());
                while let Some(begun) = books.take_ready() {
                    attempts.spawn_local(self.clone().attempt(begun));
                }
                next_due
            };
            // Without one it looks again some time, which costs nothing.
            let next_due = next_due.unwrap_or_else(|| Instant::now() + LOOKED_AT);
            tokio::select! {
                () = self.0.wake.notified() => {}
                Some(ended) = attempts.join_next() => ended?,
                Some(ended) = self.next_passing() => ended?,
                () = tokio::time::sleep_until(next_due.into()) => {}
            }
        }
    }

    /// An attempt that a sender waits for, or waited for, ended. None: there is none.
    async fn next_passing(&self) -> Option<Result<(), tokio::task::JoinError>> {
        let passing = &self.0.passing;
        std::future::poll_fn(|context| passing.borrow_mut().poll_join_next(context)).await
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

    async fn attempt(self, begun: Begun) {
        let item = Rc::clone(&begun.item);
        let ended = self.attempt_once(begun).await;
        self.settle(&item, ended).await;
    }

    async fn attempt_once(&self, begun: Begun) -> Ended {
        let inner = &*self.0;
        inner.meters.attempt_begins();
        let Begun {
            item,
            recipients,
            how,
            token,
        } = begun;
        let source = self.source(&item);
        let places = recipients.places(&item.progress.borrow());
        let mut tried = match how {
            How::Attempt(destination) => {
                let attempt = Attempt {
                    settings: &inner.settings,
                    hops: &inner.hops,
                    source: &source,
                    ending: &inner.ending,
                };
                attempt.deliver(&destination, places).await
            }
            How::LeftAlone(reason) => {
                // RFC 3463 §3.5: no answer from host.
                let failure = Failure::ours(Status::temporary(4, 1), reason);
                let mut tried = Tried::default();
                tried.judge(places, &Verdict::Deferred(failure));
                tried
            }
        };
        let news = tried.news.take();
        let judgement = Judgement::of(&inner.settings, &item.accepted, tried);
        inner.meters.attempt_ends(judgement.tally);
        Ended {
            judgement,
            news,
            source,
            token,
        }
    }

    /// Does what follows from an attempt.
    async fn settle(&self, item: &Rc<Item>, ended: Ended) {
        let Ended {
            judgement,
            news,
            source,
            token,
        } = ended;
        if item.standing() != Standing::Gone {
            judgement.note(&mut item.progress.borrow_mut());
            if !judgement.verdicts.is_empty() {
                item.set_tried();
            }
            if judgement.left == Left::Unreadable {
                // Nobody gets it before an operator has looked.
                item.progress.borrow_mut().held = Held::Yes;
            }
            self.tell_ends(item, &judgement, &source).await;
        }
        match self.leg_ended(item, token, news) {
            LegEnd::Gone => {}
            LegEnd::More if judgement.tally.is_fruitless() && judgement.left == Left::Nobody => {}
            // A slow destination is not to keep a crash from knowing what was done.
            LegEnd::More => self.note(item),
            LegEnd::Last => {
                let told = self.tell_delay(item, &source).await;
                drop(source);
                let can_be_spared = judgement.tally.is_fruitless() && told == Told::Nobody;
                self.attempted(item, can_be_spared).await;
            }
        }
    }

    fn leg_ended(&self, item: &Rc<Item>, token: Began, news: Option<News>) -> LegEnd {
        let mut books = self.0.books.borrow_mut();
        let end = books.leg_ended(item, token, news, &self.0.settings.schedule);
        drop(books);
        self.0.wake.notify_one();
        end
    }

    fn source(&self, item: &Item) -> Source {
        Source {
            accepted: item.accepted.clone(),
            data: item.data.borrow().clone(),
            log: self.log_of(item).cloned(),
        }
    }

    /// What comes of an item whose legs have all ended.
    async fn attempted(&self, item: &Rc<Item>, can_be_spared: bool) {
        if item.progress.borrow().is_final() {
            self.forget(item);
            return;
        }
        let mut next = Instant::now();
        {
            let mut progress = item.progress.borrow_mut();
            if item.was_tried() {
                progress.attempts = progress.attempts.saturating_add(1);
                let wait = self.wait(item, progress.attempts);
                next += wait;
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let now = unix_ms(SystemTime::now());
                progress.next_attempt_unix_ms = now.saturating_add(wait);
            }
        }
        let was_logged = item.log.get().is_some();
        if let Err(error) = self.log_item(item).await {
            tracing::warn!(queue_id = %item.id(), %error, "message stays in memory");
        }
        if item.standing() == Standing::Gone {
            return;
        }
        match was_logged {
            // All that a crash would lose is that there was an attempt.
            true if can_be_spared && item.progress.borrow().held == Held::No => {
                self.note_attempt(item);
            }
            // Or the log knows of no attempt before, and of no word of an operator.
            true | false => self.note(item),
        }
        let held = item.progress.borrow().held;
        let mut books = self.0.books.borrow_mut();
        match (held, item.standing()) {
            (Held::Yes, _) => books.stand_held(item),
            (Held::No, Standing::ActiveAgain) => books.stand_ready(item),
            (Held::No, _) => books.stand_due(item, next),
        }
        drop(books);
        self.0.wake.notify_one();
    }

    /// How long an item waits behind its attempts: not longer than it is tried.
    fn wait(&self, item: &Item, attempts: u32) -> Duration {
        let settings = &self.0.settings;
        let wait = settings.schedule.wait(attempts, item.id().number());
        let waited = judgement::waited(&item.accepted);
        match settings.sending.queue_lifetime.checked_sub(waited) {
            // The last attempt, as it ends.
            Some(left) if left > Duration::ZERO => wait.min(left),
            Some(_) | None => wait,
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

    /// The same, where it can be spared.
    fn note_attempt(&self, item: &Item) {
        if let Some(log) = self.log_of(item) {
            log.note_attempt(item.id(), &item.progress.borrow());
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

/// An attempt that came to its end, before anything follows from that.
struct Ended {
    judgement: Judgement,
    /// What was found out about the destination.
    news: Option<News>,
    /// The message that it was of.
    source: Source,
    token: Began,
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

/// How many attempts there may be at a time.
fn shares(settings: &DeliverySettings) -> Shares {
    let is_local = |target: &&Target| matches!(target, Target::Maildir(_) | Target::Discard);
    let sending = &settings.sending;
    Shares {
        local: match settings.routes.targets().filter(is_local).count() {
            0 | 1 => LocalTargets::One,
            _ => LocalTargets::Several,
        },
        hops_max: sending.connections_max,
        hop_max: sending.connections_per_hop_max,
    }
}

/// Messages of one target that wait for their first attempt with their data in memory; the others are read again.
const KEPT_IN_MEMORY_MAX: usize = 1024;

/// How long the dispatcher waits when nothing is due.
const LOOKED_AT: Duration = Duration::from_secs(3600);
