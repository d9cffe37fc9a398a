//! Sessions that rest, from outside: opened, held while others are served, ended; made into figures.
//!
//! Apart from [`crate::observe`] because a run counts what happens in a span of time, and here nothing is to happen.
//! Invariants:
//! - The server's memory is read when it has served some, when all sessions are open, when they were held, and when
//!   they are gone: what the first message costs it is not taken for a session's.
//! - The others come in the same way and at the same pace before and while sessions are held, each whether or not the
//!   one before was served.
//! - A session has one outcome: not opened, closed by the server while it was held, or ended here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Interval, MissedTickBehavior, interval, interval_at};

use crate::load::{LinkError, Opening, Resting, Served, Unserved, Visitors};
use crate::measure::{Errors, Live, Stage, Tally};
use crate::observe::{Interrupt, ObserveError, Onlooker, Phase, machine_warnings, per};
use crate::plan::Plan;
use crate::process::{MachineTimes, Usage, Watch, WatchError, process_cpu};
use crate::report::idle::{IdleFigures, MemoryFigures, ServedFigures};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct IdlePlan {
    /// Its connections are the sessions that rest. What it says of messages is for the others.
    pub plan: Arc<Plan>,
    /// How long sessions are held.
    pub hold: Duration,
    /// So many are opened a second at most.
    pub open_rate: Option<f64>,
    /// The distance between the others.
    pub served_every: Duration,
    /// How long others are served before, to compare.
    pub before: Duration,
}

/// Does all of that. Interrupted, it ends early and tells what it found out.
pub async fn idle(
    plan: &IdlePlan,
    watch: Option<&Watch>,
    onlooker: &mut dyn Onlooker,
    interrupt: &mut Interrupt,
) -> Result<IdleFigures, ObserveError> {
    let mut looks = interval(LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let run = Run {
        visitors: Rc::new(Visitors::new(&plan.plan)?),
        plan,
        watch,
        onlooker,
        interrupt,
        looks,
        live: Live::default(),
        held: Vec::new(),
        found: Found::default(),
    };
    LocalSet::new().run_until(run.run()).await
}

struct Run<'a> {
    visitors: Rc<Visitors>,
    plan: &'a IdlePlan,
    watch: Option<&'a Watch>,
    onlooker: &'a mut dyn Onlooker,
    interrupt: &'a mut Interrupt,
    looks: Interval,
    live: Live,
    held: Vec<Resting>,
    found: Found,
}

/// What was found out so far.
#[derive(Default)]
struct Found {
    opened: u64,
    not_opened: Errors,
    gave_up: bool,
    /// Times of opening.
    opening: Tally,
    opening_took: Duration,
    before: Tally,
    while_held: Tally,
    held_for: Duration,
    /// What must be known of the machine in that time.
    machine_warnings: Vec<String>,
    closed_by_server: Errors,
    quit: u64,
    aborted: u64,
    memory: Memory,
}

/// In octets, with the number of sessions that were open.
#[derive(Default)]
struct Memory {
    before: Option<u64>,
    open: Option<(u64, u64)>,
    held: Option<(u64, u64)>,
    after: Option<u64>,
}

/// Who has kept the machine busy.
struct Busy {
    machine: MachineTimes,
    own_cpu: Duration,
    server: Option<Usage>,
}

impl Busy {
    fn read(watch: Option<&Watch>) -> Result<Busy, ObserveError> {
        Ok(Busy {
            machine: MachineTimes::read()?,
            own_cpu: process_cpu(),
            server: watch.map(Watch::read).transpose()?,
        })
    }

    fn warnings_since(&self, earlier: &Busy) -> Vec<String> {
        let own_cpu = self.own_cpu.saturating_sub(earlier.own_cpu);
        let server = self.server.zip(earlier.server);
        let known = server.map(|(now, earlier)| own_cpu + now.cpu_since(&earlier));
        machine_warnings(&self.machine.since(&earlier.machine), known)
    }
}

/// Which of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    WhileHeld,
}

impl Run<'_> {
    async fn run(mut self) -> Result<IdleFigures, ObserveError> {
        self.serve(When::Before).await;
        self.found.memory.before = self.memory()?;
        if !self.interrupt.was_heard() {
            self.open().await;
            self.found.memory.open = self.memory()?.zip(self.count());
        }
        if !self.interrupt.was_heard() && !self.held.is_empty() {
            let before = Busy::read(self.watch)?;
            self.serve(When::WhileHeld).await;
            self.found.machine_warnings = Busy::read(self.watch)?.warnings_since(&before);
            self.sweep().await;
            self.found.memory.held = self.memory()?.zip(self.count());
        }
        self.end().await;
        self.found.memory.after = self.memory_at_rest().await?;
        Ok(self.figures())
    }

    fn memory(&self) -> Result<Option<u64>, WatchError> {
        let usage = self.watch.map(Watch::read).transpose()?;
        Ok(usage.map(|usage| usage.memory_octets))
    }

    /// Memory when it does not fall any more: a server hears of the end of a session after we do, and may give memory
    /// back later still.
    async fn memory_at_rest(&mut self) -> Result<Option<u64>, WatchError> {
        let until = Instant::now() + REST_WITHIN;
        let mut last = self.memory()?;
        while let Some(before) = last
            && Instant::now() < until
            && !self.interrupt.was_heard()
        {
            tokio::select! {
                () = self.interrupt.heard() => {}
                () = tokio::time::sleep(REST_LOOKS) => {}
            }
            last = self.memory()?;
            if last.is_some_and(|now| now >= before - before / REST_PARTS) {
                break;
            }
        }
        Ok(last)
    }

    fn count(&self) -> Option<u64> {
        u64::try_from(self.held.len()).ok()
    }

    fn look(&mut self, phase: Phase) {
        self.onlooker.look(phase, Live::sum([&self.live]));
    }

    /// Opens sessions, a bounded number at the same time, until all are open or nothing comes of it.
    async fn open(&mut self) {
        let began = Instant::now();
        let wanted = self.plan.plan.connections;
        let mut begun = 0_usize;
        let mut under_way = JoinSet::new();
        let mut failures = 0;
        loop {
            // From here on none is begun.
            let is_over = begun == wanted || self.interrupt.was_heard() || self.found.gave_up;
            if is_over && under_way.is_empty() {
                break;
            }
            let due = began + self.due(begun);
            let may_begin = !is_over && under_way.len() < OPENING_MAX;
            if may_begin && Instant::now() >= due {
                let visitors = Rc::clone(&self.visitors);
                under_way.spawn_local(async move { visitors.open().await });
                begun += 1;
                continue;
            }
            tokio::select! {
                biased;
                () = self.interrupt.heard() => under_way.abort_all(),
                Some(opened) = under_way.join_next() => {
                    // One that was given up is not counted.
                    let Ok(opened) = opened else { continue };
                    failures = if opened.is_ok() { 0 } else { failures + 1 };
                    self.found.gave_up |= failures == FAILURES_MAX;
                    self.opened(opened);
                }
                () = tokio::time::sleep_until(due.into()), if may_begin => {}
                _ = self.looks.tick() => self.look(Phase::Opening),
            }
        }
        self.found.opening_took = began.elapsed();
    }

    /// When this session may be begun, since the first.
    fn due(&self, number: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a number of descriptors")]
        let number = number as f64;
        let after = self.plan.open_rate.map(|rate| number / rate);
        let after = after.and_then(|after| Duration::try_from_secs_f64(after).ok());
        after.unwrap_or_default()
    }

    fn opened(&mut self, opened: Result<(Resting, Opening), LinkError>) {
        match opened {
            Ok((session, opening)) => {
                self.live.opened();
                self.found.opened += 1;
                opening.record(&mut self.found.opening);
                self.held.push(session);
            }
            Err(error) => {
                self.live.failed();
                self.found.not_opened.count(error.kind(), &error);
            }
        }
    }

    /// Has others served for a while, and looks after the sessions that rest.
    async fn serve(&mut self, when: When) {
        let (lasts, phase): (_, fn(Duration) -> Phase) = match when {
            When::Before => (self.plan.before, |_| Phase::WarmUp),
            When::WhileHeld => (self.plan.hold, Phase::Measuring),
        };
        if when == When::Before {
            // The first makes the server do what it does once. It is not counted.
            let visitors = Rc::clone(&self.visitors);
            tokio::select! {
                () = self.interrupt.heard() => return,
                _uncounted = visitors.serve() => {}
            }
        }
        let began = Instant::now();
        let mut dues = interval(self.plan.served_every);
        dues.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Between the others, where they come every second.
        let mut sweeps = interval_at((began + SWEEPS / 2).into(), SWEEPS);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = JoinSet::new();
        let mut is_over = lasts.is_zero();
        while !is_over || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = self.interrupt.heard() => break,
                () = tokio::time::sleep_until((began + lasts).into()), if !is_over => is_over = true,
                Some(served) = under_way.join_next() => {
                    if let Ok(served) = served {
                        self.served(when, served);
                    }
                }
                _ = dues.tick(), if !is_over => {
                    let visitors = Rc::clone(&self.visitors);
                    under_way.spawn_local(async move { visitors.serve().await });
                }
                _ = sweeps.tick() => self.sweep().await,
                _ = self.looks.tick() => self.look(phase(began.elapsed())),
            }
        }
        if when == When::WhileHeld {
            self.found.held_for = began.elapsed();
        }
    }

    fn served(&mut self, when: When, served: Result<Served, Unserved>) {
        let tally = match when {
            When::Before => &mut self.found.before,
            When::WhileHeld => &mut self.found.while_held,
        };
        match served {
            Ok(served) => {
                self.live.message();
                self.live.session();
                tally.messages += 1;
                tally.stages.record(Stage::Ready, served.ready);
                tally.stages.record(Stage::Message, served.message);
                tally.stages.record(Stage::Session, served.session);
            }
            Err((kind, words)) => {
                self.live.failed();
                tally.failed += 1;
                tally.errors.count(kind, words);
            }
        }
    }

    /// Finds the sessions that the server closed. In slices: the others must not wait for all of them.
    async fn sweep(&mut self) {
        let mut next = 0;
        while let Some(session) = self.held.get_mut(next) {
            match session.over() {
                None => next += 1,
                Some(error) => {
                    self.live.closed();
                    self.found.closed_by_server.count(error.kind(), &error);
                    drop(self.held.swap_remove(next));
                }
            }
            if next.is_multiple_of(SLICE) {
                yield_now().await;
            }
        }
    }

    /// Says QUIT in each session. Once somebody wants it to end, those that are left are dropped.
    async fn end(&mut self) {
        let mut under_way = JoinSet::new();
        let mut ended_here = Vec::new();
        std::mem::swap(&mut ended_here, &mut self.held);
        let mut left = ended_here.into_iter();
        while !self.interrupt.was_heard() {
            if under_way.len() < OPENING_MAX
                && let Some(session) = left.next()
            {
                under_way.spawn_local(async move { session.wake().quit().await });
                continue;
            }
            tokio::select! {
                biased;
                () = self.interrupt.heard() => {}
                ended = under_way.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(_))) => {
                        self.live.closed();
                        self.found.quit += 1;
                    }
                    Some(_) => {
                        self.live.closed();
                        self.found.aborted += 1;
                    }
                },
                _ = self.looks.tick() => self.look(Phase::Ending),
            }
        }
        let left = left.count() + under_way.len();
        self.found.aborted += u64::try_from(left).unwrap_or(u64::MAX);
    }

    fn figures(self) -> IdleFigures {
        let found = self.found;
        let asked = u64::try_from(self.plan.plan.connections).unwrap_or(u64::MAX);
        let memory = &found.memory;
        IdleFigures {
            asked,
            opened: found.opened,
            not_opened: found.not_opened.figures(),
            gave_up: found.gave_up,
            opening_seconds: found.opening_took.as_secs_f64(),
            opened_per_second: per(found.opened, found.opening_took.as_secs_f64()),
            opening_us: found.opening.stages.figures(),
            memory: memory.before.map(|before| MemoryFigures {
                before,
                open: memory.open.map(|(octets, _)| octets),
                held: memory.held.map(|(octets, _)| octets),
                after: memory.after,
                per_session_open: memory.open.and_then(|open| a_session(before, open)),
                per_session_held: memory.held.and_then(|held| a_session(before, held)),
            }),
            served_before: served_figures(&found.before),
            served_while_held: served_figures(&found.while_held),
            held_seconds: found.held_for.as_secs_f64(),
            closed_by_server: found.closed_by_server.figures(),
            quit: found.quit,
            aborted: found.aborted,
            is_interrupted: self.interrupt.was_heard(),
            machine_warnings: found.machine_warnings,
        }
    }
}

fn served_figures(tally: &Tally) -> ServedFigures {
    ServedFigures {
        messages: tally.messages,
        failed: tally.failed,
        latency_us: tally.stages.figures(),
        errors: tally.errors.figures(),
    }
}

/// The octets of one session, which are less than none if the server gave back more than it took.
#[expect(clippy::cast_precision_loss, reason = "octets of memory")]
fn a_session(before: u64, (octets, sessions): (u64, u64)) -> Option<f64> {
    (sessions > 0).then(|| (octets as f64 - before as f64) / sessions as f64)
}

/// How often somebody looks on.
const LOOKS: Duration = Duration::from_millis(100);

/// How often sessions are looked after.
const SWEEPS: Duration = Duration::from_millis(500);

/// So many are looked after at once. Each is out of the cache by then, so that this takes some ten microseconds.
const SLICE: usize = 64;

/// Sessions that are opened at the same time: enough to keep a server busy, and fewer than any backlog of its.
const OPENING_MAX: usize = 64;

/// After so many failures in a row the server has as many sessions as it takes.
const FAILURES_MAX: usize = 256;

/// How long memory has to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked at.
const REST_LOOKS: Duration = Duration::from_millis(250);

/// It rests when it falls by less than one part in so many.
const REST_PARTS: u64 = 100;
