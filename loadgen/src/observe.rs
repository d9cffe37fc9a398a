//! A run from outside: begun, looked at while it goes on, ended by time or by a key, made into figures.
//!
//! Apart from the load because it takes no part in it. Invariant: what the server took, what the load generator
//! took, and how many messages that was for are read at the same two moments: when the warm-up ends, and when no
//! more messages are begun.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::load::{LoadError, Running};
use crate::measure::{Figures, GeneratorFigures, Live, Seen, ServerFigures, Stage, Tally};
use crate::plan::{Pace, Plan};
use crate::process::{
    MachineError, MachineTimes, MachineUse, Usage, Watch, WatchError, process_cpu,
};

/// Why a run gave no figures.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// There was no load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server could not be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The machine could not.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Signals cannot be heard.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
}

/// Ctrl-C and SIGTERM. The first ends a run in order, a second one the process.
#[derive(Debug)]
pub struct Interrupt {
    int: Signal,
    term: Signal,
    was_heard: bool,
}

impl Interrupt {
    /// Listens from now on.
    pub fn new() -> Result<Interrupt, ObserveError> {
        let listen = |kind| signal(kind).map_err(ObserveError::Signals);
        Ok(Interrupt {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            was_heard: false,
        })
    }

    /// Waits for one.
    pub async fn heard(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
        if self.was_heard {
            std::process::exit(EXIT_INTERRUPTED);
        }
        self.was_heard = true;
    }

    /// Whether there was one.
    pub fn was_heard(&self) -> bool {
        self.was_heard
    }
}

/// Who is told how it goes.
pub trait Onlooker {
    /// So far.
    fn look(&mut self, phase: Phase, seen: Seen);
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Before anything counts.
    WarmUp,
    /// Sessions are opened that will be held.
    Opening,
    /// So much of its time is over.
    Measuring(Duration),
    /// No more messages are begun.
    Ending,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// What the threads measured.
    pub tally: Tally,
    /// What was read at both ends.
    pub window: Window,
    /// Why the server's part of that is not known, though it was watched: most often it ended.
    pub lost: Option<String>,
    /// Whether it ended before its time.
    pub is_interrupted: bool,
}

/// What lies between the two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Their distance.
    pub seconds: f64,
    /// What ended in between, by the counters.
    pub messages: u64,
    /// The same of sessions.
    pub sessions: u64,
    /// CPU time of the load generator.
    pub own_cpu: Duration,
    /// The server's, with its memory at both ends.
    pub server: Option<ServerWindow>,
    /// What became of the machine's time.
    pub machine: MachineUse,
}

/// What a server took.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerWindow {
    /// CPU time.
    pub cpu: Duration,
    /// Memory at the first moment, in octets.
    pub memory_before: u64,
    /// Memory at the last one, in octets.
    pub memory_after: u64,
}

/// Runs a plan to its end.
pub async fn observe(
    plan: &Arc<Plan>,
    server: Option<&Watch>,
    onlooker: &mut dyn Onlooker,
    interrupt: &mut Interrupt,
) -> Result<Observation, ObserveError> {
    // One that is not there is told before anything is loaded.
    server.map(Watch::read).transpose()?;
    let running = Running::start(plan)?;
    let mut looks = tokio::time::interval(LOOKS);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut first = match plan.warmup.is_zero() {
        // All that happens counts, from the first message on: to look when it has begun is too late.
        true => Some(Moment {
            at: running.counts_from(),
            seen: Seen::default(),
            ..Moment::read(&running, server)?
        }),
        false => None,
    };
    let mut last: Option<Moment> = None;
    let mut is_interrupted = false;
    loop {
        let begins = tokio::time::sleep_until(running.counts_from().into());
        let ends = async {
            match running.until() {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = begins, if first.is_none() && last.is_none() => first = Some(Moment::read(&running, server)?),
            () = ends, if last.is_none() => last = Some(Moment::read(&running, server)?),
            () = interrupt.heard() => {
                running.stop();
                is_interrupted |= last.is_none();
                last = match last {
                    Some(last) => Some(last),
                    None => Some(Moment::read(&running, server)?),
                };
            }
            _ = looks.tick() => {
                if running.has_ended() {
                    break;
                }
                let phase = match (&first, &last) {
                    (_, Some(_)) => Phase::Ending,
                    (Some(first), None) => Phase::Measuring(first.at.elapsed()),
                    (None, None) => Phase::WarmUp,
                };
                onlooker.look(phase, Live::sum(running.live().iter().map(|live| &**live)));
            }
        }
    }
    let (last, is_late) = match last {
        Some(last) => (last, false),
        // A run by number was found to have ended, some time later.
        None => (Moment::read(&running, server)?, true),
    };
    let counts_from = running.counts_from();
    let tally = running.join()?;
    // Interrupted in its warm-up, nothing was measured.
    let first = first.unwrap_or_else(|| last.clone());
    let mut window = first.until(&last);
    if is_late {
        let until = (counts_from + tally.last_reply).saturating_duration_since(first.at);
        window.seconds = until.as_secs_f64();
    }
    let lost = [&first, &last]
        .into_iter()
        .find_map(|moment| moment.server.lost());
    Ok(Observation {
        tally,
        window,
        lost,
        is_interrupted,
    })
}

/// What is read at once.
#[derive(Clone)]
struct Moment {
    at: Instant,
    seen: Seen,
    own_cpu: Duration,
    server: Reading,
    machine: MachineTimes,
}

/// What the server has taken.
#[derive(Clone)]
enum Reading {
    /// Nobody watches it.
    Unwatched,
    Usage(Usage),
    /// It could not be read any more. What the load measured is still worth something.
    Lost(String),
}

impl Reading {
    fn of(server: Option<&Watch>) -> Reading {
        match server.map(Watch::read) {
            None => Reading::Unwatched,
            Some(Ok(usage)) => Reading::Usage(usage),
            Some(Err(error)) => Reading::Lost(error.to_string()),
        }
    }

    fn usage(&self) -> Option<&Usage> {
        match self {
            Reading::Usage(usage) => Some(usage),
            Reading::Unwatched | Reading::Lost(_) => None,
        }
    }

    fn lost(&self) -> Option<String> {
        match self {
            Reading::Lost(reason) => Some(reason.clone()),
            Reading::Unwatched | Reading::Usage(_) => None,
        }
    }
}

impl Moment {
    fn read(running: &Running, server: Option<&Watch>) -> Result<Moment, ObserveError> {
        Ok(Moment {
            at: Instant::now(),
            seen: Live::sum(running.live().iter().map(|live| &**live)),
            own_cpu: process_cpu(),
            server: Reading::of(server),
            machine: MachineTimes::read()?,
        })
    }

    fn until(&self, last: &Moment) -> Window {
        Window {
            seconds: (last.at - self.at).as_secs_f64(),
            messages: last.seen.messages - self.seen.messages,
            sessions: last.seen.sessions - self.seen.sessions,
            own_cpu: last.own_cpu.saturating_sub(self.own_cpu),
            server: self
                .server
                .usage()
                .zip(last.server.usage())
                .map(|(before, after)| ServerWindow {
                    cpu: after.cpu_since(before),
                    memory_before: before.memory_octets,
                    memory_after: after.memory_octets,
                }),
            machine: last.machine.since(&self.machine),
        }
    }
}

impl Observation {
    /// Adds a later round of the same.
    pub fn then(&mut self, later: Observation) {
        self.tally.then(later.tally, self.window.seconds);
        self.is_interrupted |= later.is_interrupted;
        let (window, other) = (&mut self.window, later.window);
        window.seconds += other.seconds;
        window.messages += other.messages;
        window.sessions += other.sessions;
        window.own_cpu += other.own_cpu;
        window.server = window
            .server
            .zip(other.server)
            .map(|(own, others)| ServerWindow {
                cpu: own.cpu + others.cpu,
                memory_before: own.memory_before,
                memory_after: others.memory_after,
            });
        window.machine = window.machine.and(&other.machine);
        self.lost = self.lost.take().or(later.lost);
    }

    /// As figures for a reader.
    pub fn figures(&self, plan: &Plan) -> Figures {
        let Observation { tally, window, .. } = self;
        let own_us = microseconds(window.own_cpu);
        Figures {
            seconds: window.seconds,
            sessions: tally.sessions,
            messages: tally.messages,
            failed: tally.failed,
            unsent: tally.unsent,
            octets: tally.octets,
            sessions_per_second: per(window.sessions, window.seconds),
            messages_per_second: per(window.messages, window.seconds),
            latency_us: tally.stages.figures(),
            errors: tally.errors.figures(),
            handshakes: tally.handshakes,
            generator: GeneratorFigures {
                threads: plan.threads,
                cpu_us: own_us,
                cpu_us_per_message: each(own_us, window.messages),
                busiest_share: tally.busiest_share,
            },
            server: window.server.map(|server| {
                let cpu_us = microseconds(server.cpu);
                ServerFigures {
                    cpu_us,
                    cpu_us_per_message: each(cpu_us, window.messages),
                    cpu_us_per_session: each(cpu_us, window.sessions),
                    cores: server.cpu.as_secs_f64() / window.seconds.max(1e-9),
                    memory_before: server.memory_before,
                    memory_after: server.memory_after,
                }
            }),
            timeline: tally.timeline.moments(window.seconds),
            warnings: self.warnings(plan),
        }
    }

    /// Why the run failed as a whole, if it did: whoever runs it from a script looks at no warnings.
    pub fn failure(&self) -> Option<String> {
        let Observation { tally, .. } = self;
        if tally.messages > 0 || self.is_interrupted {
            return None;
        }
        let commonest = tally.errors.iter().max_by_key(|(_, times, _)| *times);
        let reason =
            commonest.map(|(kind, times, first)| format!(": {times} times {kind} ({first})"));
        Some(format!(
            "no message was taken{}",
            reason.unwrap_or_default()
        ))
    }

    /// What a reader must know before believing a figure.
    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let Observation {
            tally,
            window,
            lost,
            ..
        } = self;
        let mut warnings: Vec<String> = lost.iter().cloned().collect();
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        if self.is_interrupted {
            warnings.push("interrupted: the figures are of what was done by then".to_owned());
        }
        if tally.messages == 0 {
            warnings.push("no message was taken: the figures say nothing".to_owned());
        }
        if tally.busiest_share >= OWN_SHARE_MAX {
            warnings.push(format!(
                "the load generator was the limit, not the server: its busiest thread ran {} of the time; \
                 give it more --threads, or cores",
                percent(tally.busiest_share)
            ));
        }
        if tally.failed > 0 {
            let begun = tally.failed + tally.messages;
            let share = percent(per(tally.failed, as_f64(begun)));
            warnings.push(format!(
                "{} of {begun} messages failed ({share})",
                tally.failed
            ));
        }
        if tally.limited > 0 {
            warnings.push(format!(
                "{} sessions had fewer than {} messages: the server takes no more (LIMITS, RFC 9422)",
                tally.limited, plan.messages_per_session
            ));
        }
        if let Pace::Open { rate, .. } = plan.pace {
            if tally.unsent > 0 {
                warnings.push(format!(
                    "{} messages were due and not begun: the server, or {} connections, cannot keep up with {rate} \
                     messages a second",
                    tally.unsent, plan.connections
                ));
            }
            let latencies = tally.stages.figures();
            if let Some(lateness) = latencies.get(&Stage::Lateness)
                && lateness.p99 > LATENESS_US_MAX
            {
                warnings.push(format!(
                    "the load generator was late itself, by {:.1} ms at the 99th percentile: that is in the times \
                     from when a message was due",
                    lateness.p99 / 1000.0
                ));
            }
        }
        if plan.tls.resume >= 1.0 {
            let handshakes = tally.handshakes;
            let all = handshakes.full + handshakes.resumed;
            // Where the warm-up is short, first sessions without a ticket are among them.
            if handshakes.resumed * 100 < all * RESUMED_PERCENT_MIN {
                warnings.push(format!(
                    "only {} of {all} sessions were resumed, of {} that offered a ticket",
                    handshakes.resumed, handshakes.offered
                ));
            }
        }
        let known = window.server.map(|server| window.own_cpu + server.cpu);
        warnings.extend(machine_warnings(&window.machine, known));
        warnings
    }
}

/// What a reader must know of the machine. `known` is the CPU time of the server and the load generator.
pub(crate) fn machine_warnings(machine: &MachineUse, known: Option<Duration>) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut warnings = Vec::new();
    let others = known.map_or(0.0, |known| machine.others_share(known));
    if others > OTHERS_SHARE_MAX {
        warnings.push(format!(
            "others kept this machine busy, {} of it",
            percent(others)
        ));
    }
    if machine.stolen_share > OTHERS_SHARE_MAX {
        warnings.push(format!(
            "the host of this virtual machine took {} of its time",
            percent(machine.stolen_share)
        ));
    }
    warnings
}

/// As often a second, or as large a part.
pub(crate) fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        as_f64(count) / seconds
    } else {
        0.0
    }
}

/// The part of each; of nothing there is none.
fn each(whole: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| whole / as_f64(count))
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// How often somebody looks. A run by number ends so much later at most.
const LOOKS: Duration = Duration::from_millis(100);

/// A thread that runs so much of its time adds waiting of its own to what it measures.
pub(crate) const OWN_SHARE_MAX: f64 = 0.9;

/// A millisecond.
const LATENESS_US_MAX: f64 = 1000.0;

const RESUMED_PERCENT_MIN: u64 = 95;

const OTHERS_SHARE_MAX: f64 = 0.1;

/// As shells report an end by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;
