//! Which message a connection sends next, and when it was due.
//!
//! Invariants:
//! - In an open loop a message is put down when it is due, whatever connections do; in a closed one there is always
//!   a next one. Both end by the plan's extent or from outside.
//! - What was due before the end is put down, if only to be counted, though nobody had time to when it was.
//! - Waiting for a free connection is a message's own time. That the load generator itself was late is told apart:
//!   it is known only of messages that a connection was free for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::schedule::Schedule;

/// A message that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Which one.
    pub(super) number: u64,
    /// When it was due, in an open loop.
    pub(super) at: Option<Instant>,
    /// Whether a connection was free for it at that time.
    pub(super) had_connection: bool,
    /// Whether it counts, or belongs to the warm-up.
    pub(super) counts: bool,
}

/// The messages of one thread.
#[derive(Debug)]
pub(super) struct Work {
    source: Source,
    /// From when on messages count.
    counts_from: Instant,
    /// When no more are begun, if time decides.
    until: Option<Instant>,
    /// How many there may still be that count, if their number decides.
    left: Cell<Option<u64>>,
    numbers: Cell<Numbers>,
    phase: Cell<Phase>,
    /// When the last phase began.
    stopped_at: Cell<Option<Instant>>,
    idle: Cell<usize>,
    /// Wakes connections: one for each message, all when the phase changes.
    changed: Notify,
    /// Apart from the other, or who waits for the end would now and then be told of a message in a connection's place.
    ended: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Messages come.
    Running,
    /// No more become due; those that are, are still sent.
    Draining,
    /// None is begun.
    Stopped,
}

#[derive(Debug)]
enum Source {
    Closed,
    Open(RefCell<VecDeque<Due>>),
}

/// The threads share the numbers by turns.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    next: u64,
    step: u64,
}

/// How long, or how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// From when on messages count.
    pub(super) counts_from: Instant,
    /// When no more are begun.
    pub(super) until: Option<Instant>,
    /// How many count.
    pub(super) messages: Option<u64>,
}

impl Work {
    /// Of thread `thread` of `threads`.
    pub(super) fn new(is_open: bool, bounds: Bounds, thread: usize, threads: usize) -> Work {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Work {
            source: if is_open {
                Source::Open(RefCell::default())
            } else {
                Source::Closed
            },
            counts_from: bounds.counts_from,
            until: bounds.until,
            left: Cell::new(bounds.messages),
            numbers: Cell::new(Numbers {
                next: number(thread),
                step: number(threads),
            }),
            phase: Cell::new(Phase::Running),
            stopped_at: Cell::new(None),
            idle: Cell::new(0),
            changed: Notify::new(),
            ended: Notify::new(),
        }
    }

    /// The next message; none when there will be no more.
    pub(super) async fn next(&self) -> Option<Due> {
        loop {
            let changed = self.changed.notified();
            if self.until.is_some_and(|until| Instant::now() >= until) {
                self.stop();
            }
            match (self.phase.get(), &self.source) {
                (Phase::Stopped, _) | (Phase::Draining, Source::Closed) => return None,
                (Phase::Running, Source::Closed) => return self.due(None, true),
                (phase, Source::Open(queue)) => {
                    let due = queue.borrow_mut().pop_front();
                    if due.is_some() || phase == Phase::Draining {
                        return due;
                    }
                }
            }
            self.idle.set(self.idle.get() + 1);
            let _idle = Idle(&self.idle);
            changed.await;
        }
    }

    /// No more messages are begun. Those that are due stay, for [`Work::unsent`].
    pub(super) fn stop(&self) {
        self.enter(Phase::Stopped);
    }

    /// Waits until no more messages are begun because time is up, or because of [`Work::stop`].
    pub(super) async fn stopped(&self) {
        loop {
            let ended = self.ended.notified();
            if self.phase.get() == Phase::Stopped {
                return;
            }
            match self.until {
                // Connections that wait for replies do not look at the clock.
                Some(until) => {
                    if tokio::time::timeout_at(until.into(), ended).await.is_err() {
                        self.stop();
                    }
                }
                None => ended.await,
            }
        }
    }

    /// How long each message that counts and was not begun had waited when it came to that.
    pub(super) fn unsent(&self) -> Vec<Duration> {
        let Source::Open(queue) = &self.source else {
            return Vec::new();
        };
        let stopped_at = self.stopped_at.get().unwrap_or_else(Instant::now);
        let queue = queue.borrow();
        let unsent = queue.iter().filter(|due| due.counts);
        unsent
            .filter_map(|due| Some(stopped_at.saturating_duration_since(due.at?)))
            .collect()
    }

    /// Puts messages down when they are due, until there are no more.
    pub(super) async fn follow(&self, start: Instant, schedule: Schedule) -> io::Result<()> {
        let Source::Open(queue) = &self.source else {
            return Ok(());
        };
        let mut alarm = Alarm::new()?;
        for due in schedule {
            let due = start + due;
            let wake = self.until.map_or(due, |until| due.min(until));
            // Without a look at the clock first, each of many that are due together would make the rest late.
            while self.phase.get() == Phase::Running && Instant::now() < wake {
                tokio::select! {
                    waited = alarm.wait_until(wake) => waited?,
                    () = self.ended.notified() => {}
                }
            }
            if self.until.is_some_and(|until| due >= until) {
                self.stop();
            }
            // A thread that was too busy to come here in time still owes what became due before the end.
            let had_connection = self.idle.get() > queue.borrow().len();
            let Some(due) = self.due(Some(due), had_connection) else {
                break;
            };
            queue.borrow_mut().push_back(due);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The next message, if there may be one.
    fn due(&self, at: Option<Instant>, had_connection: bool) -> Option<Due> {
        let may_be = match (self.phase.get(), at) {
            (Phase::Running, _) => true,
            (Phase::Stopped, Some(at)) => self.stopped_at.get().is_some_and(|stop| at < stop),
            (Phase::Stopped, None) | (Phase::Draining, _) => false,
        };
        if !may_be {
            return None;
        }
        let counts = at.unwrap_or_else(Instant::now) >= self.counts_from;
        if counts && let Some(left) = self.left.get() {
            let Some(left) = left.checked_sub(1) else {
                self.enter(Phase::Draining);
                return None;
            };
            self.left.set(Some(left));
            if left == 0 {
                // Nobody need wait until one more would be due.
                self.enter(Phase::Draining);
            }
        }
        let Numbers { next, step } = self.numbers.get();
        self.numbers.set(Numbers {
            next: next.wrapping_add(step),
            step,
        });
        Some(Due {
            number: next,
            at,
            had_connection,
            counts,
        })
    }

    fn enter(&self, phase: Phase) {
        // The last one is never left.
        if self.phase.get() != Phase::Stopped && self.phase.replace(phase) != phase {
            if phase == Phase::Stopped {
                let now = Instant::now();
                let stopped_at = self.until.map_or(now, |until| until.min(now));
                self.stopped_at.set(Some(stopped_at));
                self.ended.notify_waiters();
            }
            self.changed.notify_waiters();
        }
    }
}

/// One that waits, for as long as it does.
struct Idle<'a>(&'a Cell<usize>);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Wakes at a moment, to some tens of microseconds. The runtime's own timers know milliseconds.
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "sound for an OwnedFd, whose descriptor never changes; its replacement is unsafe"
        )]
        AsyncFd::new(timer).map(Alarm)
    }

    async fn wait_until(&mut self, moment: Instant) -> io::Result<()> {
        // At least a nanosecond: nothing would disarm it.
        let wait = moment.saturating_duration_since(Instant::now());
        let wait = wait.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        // Setting it again clears what it has to say, so it need not be read.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use tokio::task::{JoinSet, LocalSet};

    use super::*;
    use crate::plan::Arrivals;

    fn schedule(rate: f64) -> Schedule {
        let random = SmallRng::seed_from_u64(1);
        Schedule::new(rate, Arrivals::Even, 0, 1, random).unwrap()
    }

    fn work(bounds: Bounds) -> Rc<Work> {
        Rc::new(Work::new(true, bounds, 0, 1))
    }

    #[test]
    fn a_message_wakes_a_connection_though_another_waits_for_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let start = Instant::now();
            let bounds = Bounds {
                counts_from: start,
                until: None,
                messages: None,
            };
            let work = Rc::new(Work::new(true, bounds, 0, 1));
            let mut waiting = JoinSet::new();
            let end = Rc::clone(&work);
            waiting.spawn_local(async move { end.stopped().await });
            let connection = Rc::clone(&work);
            let connection = tokio::task::spawn_local(async move { connection.next().await });
            // The first message is due at once. The second one would wake everybody, in a quarter of an hour.
            let schedule = Schedule::new(0.001, Arrivals::Even, 0, 1, SmallRng::seed_from_u64(1));
            let clock = Rc::clone(&work);
            waiting.spawn_local(async move {
                clock.follow(start, schedule.unwrap()).await.unwrap();
            });
            let due = tokio::time::timeout(Duration::from_secs(30), connection).await;
            let due = due.expect("nobody was woken").unwrap().unwrap();
            assert_eq!((due.number, due.had_connection), (0, true));
        });
    }

    /// A closed loop whose connections all wait for a server that says nothing.
    #[tokio::test]
    async fn time_is_up_whether_or_not_a_connection_asks() {
        let start = Instant::now();
        let bounds = Bounds {
            counts_from: start,
            until: Some(start + Duration::from_millis(10)),
            messages: None,
        };
        let work = Work::new(false, bounds, 0, 1);
        assert!(work.next().await.is_some());
        let stopped = tokio::time::timeout(PATIENCE, work.stopped()).await;
        assert!(stopped.is_ok());
        assert_eq!(work.next().await, None);
    }

    /// At an hour's distance, neither the last message nor the end from outside waits for the next one.
    #[tokio::test]
    async fn a_slow_schedule_ends_at_once() {
        for messages in [Some(1), None] {
            let start = Instant::now();
            let work = work(Bounds {
                counts_from: start,
                until: None,
                messages,
            });
            let local = LocalSet::new();
            let clock = Rc::clone(&work);
            let clock =
                local.spawn_local(async move { clock.follow(start, schedule(1.0 / 3600.0)).await });
            let ended = local.run_until(tokio::time::timeout(PATIENCE, async {
                assert!(work.next().await.is_some());
                if messages.is_none() {
                    work.stop();
                }
                assert_eq!(work.next().await, None);
                clock.await.unwrap().unwrap();
            }));
            assert!(ended.await.is_ok(), "{messages:?}");
        }
    }

    /// Connections that keep their thread busy see the end before the clock does.
    #[tokio::test]
    async fn what_was_due_before_the_end_is_put_down_after_it() {
        let start = Instant::now() - Duration::from_secs(2);
        let until = Some(start + Duration::from_secs(1));
        let by_time = Bounds {
            counts_from: start,
            until,
            messages: None,
        };
        let by_number = Bounds {
            until: None,
            messages: Some(7),
            ..by_time
        };
        for (bounds, unsent) in [(by_time, 10), (by_number, 7)] {
            let work = work(bounds);
            work.stop();
            assert_eq!(work.next().await, None);
            work.follow(start, schedule(10.0)).await.unwrap();
            let waited = work.unsent();
            assert_eq!(waited.len(), unsent, "{bounds:?}");
            let since_first = work.stopped_at.get().unwrap() - start;
            assert_eq!(waited.first(), Some(&since_first));
            assert_eq!(work.next().await, None);
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);
}
