//! One thread of load: its connections, each a task that takes message after message.
//!
//! Invariants:
//! - A thread shares nothing with others while a run goes on but its counters, which it alone writes.
//! - A message has one outcome: taken, failed, or unsent; so their sum is what was due.
//! - What belongs to the warm-up is done like all else and recorded nowhere.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringpost::smtp::client::{After, Outcome};
use tokio::runtime;
use tokio::task::LocalSet;

use super::dialler::Dialler;
use super::link::{Link, LinkError};
use super::schedule::Schedule;
use super::sender::{Sender, refusal};
use super::work::{Bounds, Due, Work};
use crate::measure::{ErrorKind, Live, Sample, Stage, Tally};
use crate::plan::{Pace, Plan};
use crate::process;

/// What a thread needs to know besides the plan.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Which thread this is.
    pub(super) thread: usize,
    /// Its share of the connections.
    pub(super) connections: usize,
    /// When the run begins.
    pub(super) start: Instant,
    /// From when on its messages count, and how long, or how many there are.
    pub(super) bounds: Bounds,
    /// Set when no more messages are to be begun.
    pub(super) stop: Arc<AtomicBool>,
}

/// Does a thread's share of the plan, and gives back what it measured.
pub(super) fn run(
    plan: &Arc<Plan>,
    order: &Order,
    live: &Arc<Live>,
    dialler: Dialler,
) -> io::Result<Tally> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = Rc::new(Thread::new(plan, order, live, dialler));
    let local = LocalSet::new();
    let worked = local.block_on(&runtime, Rc::clone(&thread).work(order));
    // Connections that did not end in time end here.
    drop(local);
    worked?;
    Ok(thread.into_tally())
}

struct Thread {
    plan: Arc<Plan>,
    start: Instant,
    counts_from: Instant,
    dialler: Dialler,
    work: Work,
    live: Arc<Live>,
    tally: RefCell<Tally>,
    random: RefCell<SmallRng>,
    /// Connections made so far, for the turns of the addresses they come from.
    made: Cell<usize>,
    /// The time and this thread's CPU time when what counts began.
    share_from: Cell<Option<(Instant, Duration)>>,
}

impl Thread {
    fn new(plan: &Arc<Plan>, order: &Order, live: &Arc<Live>, dialler: Dialler) -> Thread {
        let is_open = matches!(plan.pace, Pace::Open { .. });
        Thread {
            plan: Arc::clone(plan),
            start: order.start,
            counts_from: order.bounds.counts_from,
            dialler,
            work: Work::new(is_open, order.bounds, order.thread, plan.threads),
            live: Arc::clone(live),
            tally: RefCell::new(Tally {
                samples: plan.samples.then(Vec::new),
                ..Tally::default()
            }),
            random: RefCell::new(random(plan, order, 0)),
            made: Cell::new(order.thread),
            share_from: Cell::new(None),
        }
    }

    /// Until all connections have ended, or had their time to.
    async fn work(self: Rc<Self>, order: &Order) -> io::Result<()> {
        tokio::time::sleep_until(self.start.into()).await;
        let connections: Vec<_> = (0..order.connections)
            .map(|_| tokio::task::spawn_local(Rc::clone(&self).connection()))
            .collect();
        let clock =
            tokio::task::spawn_local(Rc::clone(&self).clock(random_schedule(&self.plan, order)));
        let watch = tokio::task::spawn_local(Rc::clone(&self).watch(Arc::clone(&order.stop)));
        let share = tokio::task::spawn_local(Rc::clone(&self).begin_share());
        let all_ended = async {
            for connection in connections {
                // A panic of one is a bug: it must not pass for a connection that ended.
                connection.await.map_err(io::Error::other)?;
            }
            io::Result::Ok(())
        };
        let out_of_time = async {
            self.work.stopped().await;
            self.measure_share();
            tokio::time::sleep(ENDING).await;
        };
        // Without its clock an open loop would wait for ever; and what it puts down last is still to be counted.
        let clock_ended = async {
            let ended = clock.await.map_err(io::Error::other);
            ended.and_then(|ended| ended)
        };
        tokio::select! {
            ended = async { tokio::try_join!(all_ended, clock_ended) } => { ended?; }
            () = out_of_time => {}
        }
        watch.abort();
        share.abort();
        self.work.stop();
        self.measure_share();
        Ok(())
    }

    /// Puts messages down when they are due.
    async fn clock(self: Rc<Self>, schedule: Option<Schedule>) -> io::Result<()> {
        match schedule {
            Some(schedule) => self.work.follow(self.start, schedule).await,
            None => Ok(()),
        }
    }

    /// Ends the work when the run is stopped from outside.
    async fn watch(self: Rc<Self>, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(STOP_LOOKS).await;
        }
        self.work.stop();
    }

    /// Notes how much this thread had run when what counts began.
    async fn begin_share(self: Rc<Self>) {
        tokio::time::sleep_until(self.counts_from.into()).await;
        self.share_from
            .set(Some((Instant::now(), process::thread_cpu())));
    }

    /// The share of its time that this thread has run since then, once.
    fn measure_share(&self) {
        if let Some((since, cpu)) = self.share_from.take() {
            let ran = process::thread_cpu().saturating_sub(cpu);
            let share = ran.as_secs_f64() / since.elapsed().as_secs_f64().max(1e-9);
            self.tally.borrow_mut().busiest_share = share;
        }
    }

    /// One place for a connection, and the sessions that follow each other in it.
    async fn connection(self: Rc<Self>) {
        let mut sender = Sender::new(&self.plan);
        let mut head_start = self.head_start();
        while let Some(due) = self.work.next().await {
            let under_way = self.begun(due);
            match self.open().await {
                Ok(link) => {
                    let sent = if due.counts {
                        0
                    } else {
                        mem::take(&mut head_start)
                    };
                    self.session(link, under_way, sent, &mut sender).await;
                }
                Err(error) => {
                    self.failed(under_way, error.kind(), &error);
                    // A server that is away is asked again, and not without pause.
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
            }
        }
    }

    /// How many messages fewer a place's first session has, if that belongs to the warm-up. They all begin together,
    /// and would go on to end together: in bursts, of which a second has one more or less by chance.
    fn head_start(&self) -> u64 {
        let each = self.plan.messages_per_session;
        if each < 2 || self.plan.warmup.is_zero() {
            return 0;
        }
        self.random.borrow_mut().random_range(0..each)
    }

    async fn open(&self) -> Result<Link, LinkError> {
        let resume = self.plan.tls.resume;
        let wants_to_resume = resume > 0.0 && self.random.borrow_mut().random_bool(resume.min(1.0));
        let link = self.dialler.open(self.source(), wants_to_resume).await?;
        self.live.opened();
        if link.began >= self.counts_from {
            link.opening.record(&mut self.tally.borrow_mut());
        }
        Ok(link)
    }

    /// Sends this message and others over a connection, and ends it. So many count as sent before.
    async fn session(
        &self,
        mut link: Link,
        first: UnderWay<'_>,
        mut sent: u64,
        sender: &mut Sender,
    ) {
        let mut under_way = first;
        let end = loop {
            let sent_at = Instant::now();
            let number = under_way.due.number;
            let outcome = sender.send(&mut link, number, &self.random).await;
            let is_ready = self.judge(under_way, sent_at, sender.octets(), outcome);
            sent += 1;
            if !is_ready {
                break End::Broken;
            }
            if sent == self.plan.messages_per_session {
                break End::Whole;
            }
            if !link.takes_another() {
                break End::Limited;
            }
            let next = tokio::select! {
                biased;
                next = self.work.next() => next,
                // It may have waited long enough. No message is lost by that, for the next one has a new connection.
                error = link.left() => {
                    self.went_wrong(link.began, error.kind(), &error);
                    break End::Broken;
                }
            };
            match next {
                Some(next) => under_way = self.begun(next),
                None => break End::CutShort,
            }
        };
        let began = link.began;
        match end {
            End::Whole | End::Limited | End::CutShort => match link.quit().await {
                Ok(took) => self.session_ended(began, took, end),
                Err(error) => self.went_wrong(began, error.kind(), &error),
            },
            End::Broken => link.abandon().await,
        }
        self.live.closed();
    }

    /// Records what became of a message; whether the connection can take another.
    fn judge(
        &self,
        under_way: UnderWay<'_>,
        sent_at: Instant,
        octets: u64,
        outcome: Result<Outcome, LinkError>,
    ) -> bool {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failed(under_way, error.kind(), &error);
                return false;
            }
        };
        let is_ready = outcome.after == After::Ready;
        match refusal(&outcome) {
            Some((kind, text)) => self.failed(under_way, kind, text),
            None => self.taken(under_way, sent_at, octets),
        }
        is_ready
    }

    fn begun(&self, due: Due) -> UnderWay<'_> {
        if due.counts
            && due.had_connection
            && let Some(at) = due.at
        {
            let mut tally = self.tally.borrow_mut();
            tally.stages.record(Stage::Lateness, at.elapsed());
        }
        UnderWay {
            thread: self,
            due,
            is_settled: false,
        }
    }

    fn taken(&self, under_way: UnderWay<'_>, sent_at: Instant, octets: u64) {
        self.live.message();
        let due = under_way.settle();
        if !due.counts {
            return;
        }
        let now = Instant::now();
        let from_sent = now - sent_at;
        let from_due = due.at.map(|at| now - at);
        let mut tally = self.tally.borrow_mut();
        tally.messages += 1;
        tally.octets += octets;
        tally.stages.record(Stage::Message, from_sent);
        if let Some(from_due) = from_due {
            tally.stages.record(Stage::MessageDue, from_due);
        }
        let ended = now.saturating_duration_since(self.counts_from);
        tally.last_reply = ended;
        tally.timeline.message(ended, from_due.unwrap_or(from_sent));
        if let Some(samples) = &mut tally.samples {
            samples.push(Sample {
                ended,
                from_due,
                from_sent,
            });
        }
    }

    fn failed(&self, under_way: UnderWay<'_>, kind: ErrorKind, words: impl std::fmt::Display) {
        self.live.failed();
        let due = under_way.settle();
        if due.counts {
            let mut tally = self.tally.borrow_mut();
            tally.failed += 1;
            // A refusal is quick, and would make the server look so. What it never answered took so long at least.
            if let Some(at) = due.at
                && !matches!(kind, ErrorKind::Reply(_))
            {
                tally.stages.record(Stage::MessageDue, at.elapsed());
            }
            tally.errors.count(kind, words);
        }
    }

    fn session_ended(&self, began: Instant, took: Duration, end: End) {
        // All connections end when the run does. Those that are seen to would be a burst that the server never had.
        if end != End::CutShort {
            self.live.session();
        }
        if began >= self.counts_from {
            let mut tally = self.tally.borrow_mut();
            tally.sessions += 1;
            tally.limited += u64::from(end == End::Limited);
            // With fewer messages than the others it would pass for a fast one.
            if end != End::CutShort || self.plan.messages_per_session == 0 {
                tally.stages.record(Stage::Session, took);
            }
            let ended = (began + took).saturating_duration_since(self.counts_from);
            tally.timeline.session(ended);
        }
    }

    fn went_wrong(&self, began: Instant, kind: ErrorKind, words: impl std::fmt::Display) {
        self.live.failed();
        if began >= self.counts_from {
            self.tally.borrow_mut().errors.count(kind, words);
        }
    }

    fn source(&self) -> Option<IpAddr> {
        let addresses = &self.plan.source_addresses;
        let made = self.made.get();
        self.made.set(made.wrapping_add(self.plan.threads));
        let turn = made.checked_rem(addresses.len())?;
        addresses.get(turn).copied()
    }

    /// What was measured, and what was never begun.
    fn into_tally(self: Rc<Self>) -> Tally {
        let mut tally = self.tally.take();
        for waited in self.work.unsent() {
            tally.unsent += 1;
            // So long it took at least. Leaving it out would hide what the schedule is there to show.
            tally.stages.record(Stage::MessageDue, waited);
        }
        tally
    }
}

/// A message that is begun. Dropped without an outcome, as it is when its connection has no more time to end, it failed.
struct UnderWay<'a> {
    thread: &'a Thread,
    due: Due,
    is_settled: bool,
}

impl UnderWay<'_> {
    /// It has its outcome.
    fn settle(mut self) -> Due {
        self.is_settled = true;
        self.due
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            let again = UnderWay { ..*self };
            let kind = ErrorKind::Session("no reply when the run ended");
            self.thread
                .failed(again, kind, "the connection was given up");
        }
    }
}

/// How a session comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It had all messages that it is to have.
    Whole,
    /// It had all that the server takes over one connection.
    Limited,
    /// There are no more.
    CutShort,
    /// The connection is of no use any more.
    Broken,
}

fn random_schedule(plan: &Plan, order: &Order) -> Option<Schedule> {
    match plan.pace {
        Pace::Closed => None,
        Pace::Open { rate, arrivals } => {
            let random = random(plan, order, 1);
            Schedule::new(rate, arrivals, order.thread, plan.threads, random)
        }
    }
}

/// A stream of numbers of its own for each purpose of each thread.
fn random(plan: &Plan, order: &Order, purpose: u64) -> SmallRng {
    let thread = u64::try_from(order.thread).unwrap_or(0);
    SmallRng::seed_from_u64(plan.seed ^ (thread << 8 | purpose).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// How long a place waits when no connection came about.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How long messages under way have to end when no more are begun.
const ENDING: Duration = Duration::from_secs(10);

/// How often a thread looks whether it shall stop: soon for whoever pressed a key, and nothing beside the load.
const STOP_LOOKS: Duration = Duration::from_millis(50);
