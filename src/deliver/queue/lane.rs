//! What waits for one destination, and how that destination is doing.
//!
//! ```text
//!  answering ──(cannot be reached)──▶ left alone ──(its time is over)──▶ probing
//!      ▲                                  ▲                                │  │
//!      │                                  └────────(cannot be reached)─────┘  │
//!      └────────────────────────────(answers)─────────────────────────────────┘
//! ```
//!
//! A destination that cannot be reached costs one attempt, of one message, each time its patience is tried; all
//! others wait for what comes of that, and nothing is noted for them. One that answers is given more attempts at a
//! time with each that it answers.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::destination::{Destination, Recipients, Way};
use super::super::schedule::{RetrySchedule, jittered};
use super::super::slots::CROWDED_SHARE;
use crate::spool::QueueId;

/// The legs that wait for one destination.
pub(super) struct Lane {
    pub(super) destination: Destination,
    /// Whether it is among those that take turns.
    pub(super) in_turn: bool,
    first: VecDeque<Waiting>,
    repeated: VecDeque<Waiting>,
    repeated_is_next: bool,
    active: usize,
    health: Health,
}

/// A leg of a message that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: QueueId,
    /// Of the message: what waits from an earlier one has been called off.
    pub(super) round: u32,
    pub(super) recipients: Recipients,
    /// When it came to wait.
    pub(super) since: Instant,
}

/// How a destination is doing.
enum Health {
    /// So many attempts at a time.
    Answering { together: usize },
    /// No attempts.
    LeftAlone {
        failures: u32,
        until: Instant,
        reason: Box<str>,
    },
    /// One attempt.
    Probing { failures: u32, begun: bool },
}

/// Which time an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    Repeated,
}

/// What an attempt found out about a destination.
#[derive(Clone, Debug)]
pub(in super::super) enum News {
    /// It takes part in a dialogue, whatever it says of the message.
    Answered(Rc<str>),
    /// No dialogue came about, for this reason.
    Unreachable(Rc<str>, Box<str>),
}

/// How many attempts there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// Whether there are several targets on this machine.
    pub(super) local: LocalTargets,
    /// Attempts at other hosts, of one shard.
    pub(super) hops_max: usize,
    /// Those of them at one destination.
    pub(super) hop_max: usize,
}

/// How many targets are Maildirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalTargets {
    One,
    Several,
}

/// Attempts that are under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Active {
    local: usize,
    hops: usize,
}

impl Active {
    pub(super) fn begun(&mut self, way: Way) {
        *self.of(way) += 1;
    }

    pub(super) fn ended(&mut self, way: Way) {
        let count = self.of(way);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, way: Way) -> &mut usize {
        match way {
            Way::Local => &mut self.local,
            Way::Hop => &mut self.hops,
        }
    }
}

impl Shares {
    /// Whether no more attempts may begin this way, whatever the lane.
    pub(super) fn are_spent(self, way: Way, active: Active) -> bool {
        match way {
            Way::Local => active.local >= LOCAL_ATTEMPTS_MAX,
            Way::Hop => active.hops >= self.hops_max,
        }
    }

    /// Whether one more attempt may begin that somebody waits for: it may wait for a connection, so it counts more
    /// of them than there are, and leaves half to the others.
    pub(super) fn allow_waiting(self, lane: &Lane, active: Active) -> bool {
        let is_away = match lane.health {
            Health::Answering { .. } => false,
            Health::LeftAlone { .. } | Health::Probing { .. } => true,
        };
        !is_away && !self.are_spent(lane.way(), active) && lane.active < self.hops_max.div_ceil(2)
    }

    /// Whether one more attempt may begin for a lane.
    pub(super) fn allow(self, lane: &Lane, active: Active) -> bool {
        let share = match lane.way() {
            // One that hangs leaves half to the others.
            Way::Local => match self.local {
                LocalTargets::One => LOCAL_ATTEMPTS_MAX,
                LocalTargets::Several => LOCAL_ATTEMPTS_MAX.div_ceil(2),
            },
            // Many that hang leave half to those of which few attempts are under way.
            Way::Hop => {
                let is_crowded = active.hops.saturating_mul(2) >= self.hops_max;
                let share = if is_crowded {
                    CROWDED_SHARE
                } else {
                    self.hop_max
                };
                share.min(self.hop_max)
            }
        };
        !self.are_spent(lane.way(), active) && lane.active < share
    }
}

impl Lane {
    pub(super) fn new(destination: Destination) -> Lane {
        Lane {
            destination,
            in_turn: false,
            first: VecDeque::new(),
            repeated: VecDeque::new(),
            repeated_is_next: false,
            active: 0,
            health: Health::Answering {
                together: TOGETHER_FIRST,
            },
        }
    }

    pub(super) fn way(&self) -> Way {
        self.destination.way
    }

    /// Nobody is ready.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.repeated.is_empty()
    }

    /// Nothing waits in it, nothing of it is on its way, and there is nothing to remember.
    pub(super) fn is_unused(&self) -> bool {
        let has_trouble = match self.health {
            Health::Answering { .. } => false,
            Health::LeftAlone { .. } | Health::Probing { .. } => true,
        };
        self.is_empty() && self.active == 0 && !has_trouble
    }

    /// Forgets that the destination was away, unless it is being tried. Whether nothing is left to forget.
    pub(super) fn forget(&mut self) -> bool {
        match self.health {
            Health::Answering { .. } => return true,
            Health::LeftAlone { .. } | Health::Probing { .. } => {}
        }
        let is_idle = self.is_empty() && self.active == 0;
        if is_idle {
            self.health = Health::Answering {
                together: TOGETHER_FIRST,
            };
        }
        is_idle
    }

    pub(super) fn first_attempts(&self) -> usize {
        self.first.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting, turn: Turn) {
        match turn {
            Turn::First => self.first.push_back(waiting),
            Turn::Repeated => self.repeated.push_back(waiting),
        }
    }

    /// Takes out what waits, as far as it is such.
    pub(super) fn take_out(&mut self, is_such: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for waiting in [&mut self.first, &mut self.repeated] {
            if waiting.iter().any(&is_such) {
                let all = std::mem::take(waiting).into_iter();
                let (such, others): (Vec<_>, Vec<_>) = all.partition(&is_such);
                *waiting = others.into();
                taken.extend(such);
            }
        }
        taken
    }

    /// Takes out what stands first, as far as it is such.
    pub(super) fn take_front(&mut self, is_such: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for waiting in [&mut self.first, &mut self.repeated] {
            while waiting.front().is_some_and(&is_such) {
                taken.extend(waiting.pop_front());
            }
        }
        taken
    }

    pub(super) fn next(&mut self) -> Option<Waiting> {
        let repeated = self.repeated_is_next;
        self.repeated_is_next = !repeated;
        let (one, other) = match repeated {
            true => (&mut self.repeated, &mut self.first),
            false => (&mut self.first, &mut self.repeated),
        };
        one.pop_front().or_else(|| other.pop_front())
    }

    /// Whether the destination is in a state to be tried.
    pub(super) fn may_begin(&self) -> bool {
        match &self.health {
            Health::Answering { together } => self.way() == Way::Local || self.active < *together,
            Health::LeftAlone { .. } => false,
            Health::Probing { begun, .. } => !begun,
        }
    }

    /// An attempt began.
    pub(super) fn begun(&mut self) {
        self.active += 1;
        if let Health::Probing { begun, .. } = &mut self.health {
            *begun = true;
        }
    }

    /// An attempt ended; what came of it, if it told anything, is heard behind this.
    pub(super) fn ended(&mut self) {
        self.active = self.active.saturating_sub(1);
        if let Health::Probing { begun, .. } = &mut self.health {
            *begun = false;
        }
    }

    /// The destination answered.
    pub(super) fn answered(&mut self) {
        let together = match self.health {
            Health::Answering { together } => together.saturating_add(1),
            Health::LeftAlone { .. } | Health::Probing { .. } => TOGETHER_FIRST,
        };
        self.health = Health::Answering { together };
    }

    /// The destination could not be reached. Until when it is left alone, unless it was already.
    pub(super) fn unreachable(
        &mut self,
        reason: Box<str>,
        now: Instant,
        schedule: &RetrySchedule,
    ) -> Option<Instant> {
        let failures = match self.health {
            Health::Answering { .. } => 1,
            Health::Probing { failures, .. } => failures.saturating_add(1),
            // Attempts of the same time tell the same.
            Health::LeftAlone { .. } => return None,
        };
        let seed = RandomState::new().hash_one(failures);
        let doubled = LEFT_ALONE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let wait = jittered(doubled.min(LEFT_ALONE_MAX), seed).min(schedule.wait(failures, seed));
        let until = now + wait;
        self.health = Health::LeftAlone {
            failures,
            until,
            reason,
        };
        Some(until)
    }

    /// Until when the destination is left alone, and why.
    pub(super) fn left_alone(&self) -> Option<(Instant, &str)> {
        match &self.health {
            Health::LeftAlone { until, reason, .. } => Some((*until, reason)),
            Health::Answering { .. } | Health::Probing { .. } => None,
        }
    }

    /// It may be tried again. Until when it was to be left alone, if it was.
    pub(super) fn end_suspension(&mut self) -> Option<Instant> {
        let Health::LeftAlone {
            failures, until, ..
        } = self.health
        else {
            return None;
        };
        self.health = Health::Probing {
            failures,
            begun: false,
        };
        Some(until)
    }
}

impl News {
    /// The destination.
    pub(super) fn key(&self) -> &str {
        match self {
            News::Answered(key) | News::Unreachable(key, _) => key,
        }
    }
}

/// Attempts of one shard at targets on this machine: enough to keep a disk busy, and few descriptors.
const LOCAL_ATTEMPTS_MAX: usize = 64;

/// Attempts at a time at a destination that nothing is known of yet.
const TOGETHER_FIRST: usize = 5;

/// How long a destination is left alone at first; doubled each time that it does not answer.
const LEFT_ALONE_FIRST: Duration = Duration::from_secs(5);

/// How long it is remembered that a destination was away, when nothing waits for it.
pub(super) const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How long at most. What is back is found out soon enough, and one attempt costs little.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(15 * 60);
