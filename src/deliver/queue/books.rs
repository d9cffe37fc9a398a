//! Which message stands where in the queue, and whose turn is next.
//!
//! ```text
//!  enter ─▶ ready ─▶ active ─▶ (final: gone)
//!             ▲        │
//!             │        ├─▶ due ──(its time comes)──▶ ready
//!             └────────┴─▶ held ──(an operator)────▶ ready
//! ```
//!
//! A message that is ready has a leg for each destination of the recipients that it has not reached. A leg waits in
//! the lane of its destination, has its turn there, and is judged by itself: a destination that hangs keeps nobody
//! else's mail from being tried. When the last leg has ended the message waits for its time, and all that is left is tried again.
//!
//! Lanes take turns, and each has at most its share of the attempts. A destination that cannot be reached is left
//! alone for a while (`lane`). In a lane first attempts and repeated ones take turns, so that new mail does not wait
//! behind all that ever failed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::destination::{Destination, Destinations, Leg, Recipients, Way};
use super::super::schedule::RetrySchedule;
use super::lane::{Active, Lane, News, REMEMBERED, Shares, Turn, Waiting};
use super::request::{QueueState, Queued};
use crate::smtp::data::MailData;
use crate::spool::{Accepted, Held, Progress, QueueId, Recovered};

/// A message in the queue.
pub(super) struct Item {
    pub(super) accepted: Accepted,
    /// Which log has it; none while it is in memory alone, under `--durability none`.
    pub(super) log: Cell<Option<usize>>,
    pub(super) progress: RefCell<Progress>,
    /// Its data, as long as there is memory to keep it.
    pub(super) data: RefCell<Option<Rc<MailData>>>,
    standing: Cell<Standing>,
    /// Counts how often its legs were sent out: what comes of an earlier time is nothing any more.
    round: Cell<u32>,
    /// Whether any of them came to a verdict since they were sent out.
    was_tried: Cell<bool>,
    /// Legs that have not ended.
    legs_open: Cell<u32>,
    /// Those of them that are under way.
    legs_active: Cell<u32>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its legs wait in their lanes, those that have not ended.
    Ready,
    /// In `due` under this time.
    Due(Instant),
    /// A leg is under way.
    Active,
    /// A leg is under way, and when it ends all that is left is wanted at once.
    ActiveAgain,
    /// An operator keeps it.
    Held,
    /// Not in the queue any more; a leg may be under way.
    Gone,
}

/// A leg whose turn it is.
pub(super) struct Begun {
    pub(super) item: Rc<Item>,
    pub(super) recipients: Recipients,
    pub(super) how: How,
    pub(super) token: Began,
}

/// What is to be done with a leg.
#[derive(Debug)]
pub(super) enum How {
    /// It is tried.
    Attempt(Destination),
    /// It is not: its destination is left alone, for this reason.
    LeftAlone(Box<str>),
}

/// A leg under way.
#[derive(Debug)]
#[must_use = "it is to end"]
pub(super) struct Began {
    /// Where it counts as an attempt.
    lane: Option<LaneId>,
    round: u32,
}

/// What the end of a leg is for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegEnd {
    /// Others are under way, or wait.
    More,
    /// It was the last.
    Last,
    /// The message is gone.
    Gone,
}

/// A place in [`Books::lanes`].
type LaneId = usize;

/// Whose turn it is, by the way: when one has all that it may have, nobody looks through those that wait for it.
#[derive(Default)]
struct Turns {
    local: VecDeque<LaneId>,
    hops: VecDeque<LaneId>,
}

/// All messages of a queue.
pub(super) struct Books {
    destinations: Rc<Destinations>,
    /// Whether the sender of a message is to hear something if it is not delivered now.
    is_urgent: Box<dyn Fn(&Item) -> bool>,
    items: BTreeMap<QueueId, Rc<Item>>,
    /// Those in which something waits, or of which there is something to remember; a place is used again.
    lanes: Vec<Option<Lane>>,
    by_key: HashMap<Rc<str>, LaneId>,
    free: Vec<LaneId>,
    /// Lanes that may begin an attempt, as far as is known; each once.
    turns: Turns,
    /// Legs that are judged without being tried, and why.
    refused: VecDeque<(Waiting, Box<str>)>,
    /// How many of them are being judged: each may read its message for a report.
    judging: usize,
    /// Lanes that are left alone, by when that ends; and lanes of which there is only something to remember, by
    /// when it is forgotten.
    timed: BTreeSet<(Instant, LaneId)>,
    shares: Shares,
    /// Attempts that are under way.
    active: Active,
    /// When what has waited for too long is looked for.
    overdue_next: Instant,
    /// By the time of the next attempt. Not by the clock: were it set back by a day, nothing would be tried for a
    /// day.
    due: BTreeSet<(Instant, QueueId)>,
}

impl Turns {
    fn of(&mut self, way: Way) -> &mut VecDeque<LaneId> {
        match way {
            Way::Local => &mut self.local,
            Way::Hop => &mut self.hops,
        }
    }
}

impl Item {
    pub(super) fn new(message: Recovered, log: Option<usize>, data: Option<Rc<MailData>>) -> Item {
        Item {
            accepted: message.accepted,
            log: Cell::new(log),
            progress: RefCell::new(message.progress),
            data: RefCell::new(data),
            standing: Cell::new(Standing::Gone),
            round: Cell::new(0),
            was_tried: Cell::new(false),
            legs_open: Cell::new(0),
            legs_active: Cell::new(0),
        }
    }

    pub(super) fn id(&self) -> QueueId {
        self.accepted.id
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.get()
    }

    /// Whether anybody was tried since its legs were sent out.
    pub(super) fn was_tried(&self) -> bool {
        self.was_tried.get()
    }

    /// A leg came to a verdict.
    pub(super) fn set_tried(&self) {
        self.was_tried.set(true);
    }

    /// Gives its memory back, if the data can be read again.
    pub(super) fn forget_data(&self) {
        if self.log.get().is_some() {
            self.data.borrow_mut().take();
        }
    }

    /// Whether an operator wants it kept back.
    fn is_held(&self) -> bool {
        self.progress.borrow().held == Held::Yes
    }

    /// One more of its legs is under way.
    fn set_active(&self) {
        self.standing.set(match self.standing() {
            Standing::ActiveAgain => Standing::ActiveAgain,
            Standing::Ready
            | Standing::Due(_)
            | Standing::Active
            | Standing::Held
            | Standing::Gone => Standing::Active,
        });
        self.legs_active.update(|active| active + 1);
    }

    /// Calls off the legs that wait.
    fn call_off(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.legs_open.set(self.legs_active.get());
    }
}

impl Books {
    pub(super) fn new(
        destinations: Rc<Destinations>,
        shares: Shares,
        is_urgent: impl Fn(&Item) -> bool + 'static,
    ) -> Books {
        Books {
            destinations,
            is_urgent: Box::new(is_urgent),
            items: BTreeMap::new(),
            lanes: Vec::new(),
            by_key: HashMap::new(),
            free: Vec::new(),
            turns: Turns::default(),
            refused: VecDeque::new(),
            judging: 0,
            timed: BTreeSet::new(),
            shares,
            active: Active::default(),
            overdue_next: Instant::now() + OVERDUE_LOOKED_AT,
            due: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn find(&self, id: QueueId) -> Option<Rc<Item>> {
        self.items.get(&id).cloned()
    }

    /// The items behind one, in the order of their ids.
    pub(super) fn behind(&self, after: Option<QueueId>) -> impl Iterator<Item = &Rc<Item>> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.items
            .range((behind, Bound::Unbounded))
            .map(|(_, item)| item)
    }

    /// An item as an operator is shown it.
    pub(super) fn shown(&self, item: &Item) -> Queued {
        let progress = item.progress.borrow();
        let now = || unix_ms(SystemTime::now());
        // Its own, or that of the first destination that is.
        let left_alone = match item.standing() {
            Standing::Ready => self.first_left_alone(item, &progress),
            Standing::Due(_)
            | Standing::Active
            | Standing::ActiveAgain
            | Standing::Held
            | Standing::Gone => None,
        };
        let (state, next) = match (item.standing(), left_alone) {
            (Standing::Active | Standing::ActiveAgain, _) => (QueueState::Active, None),
            (Standing::Held, _) => (QueueState::Held, None),
            (Standing::Due(_), _) => (QueueState::Deferred, Some(progress.next_attempt_unix_ms)),
            (Standing::Ready | Standing::Gone, Some((until, _))) => {
                let wait = until.saturating_duration_since(Instant::now());
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                (QueueState::Deferred, Some(now().saturating_add(wait)))
            }
            (Standing::Ready | Standing::Gone, None) if progress.attempts == 0 => {
                (QueueState::Waiting, Some(item.accepted.arrived_unix_ms))
            }
            // Its turn has come, whatever was noted before.
            (Standing::Ready | Standing::Gone, None) => (QueueState::Deferred, Some(now())),
        };
        let mut shown = Queued::new(&item.accepted, &progress, state, next);
        if let Some((_, reason)) = left_alone {
            shown.explain_waiting(reason);
        }
        shown
    }

    fn first_left_alone(&self, item: &Item, progress: &Progress) -> Option<(Instant, &str)> {
        let legs = self.destinations.legs(&item.accepted, progress);
        let lanes = legs.iter().filter_map(|leg| {
            let id = self.by_key.get(&leg.destination.key)?;
            self.lane(*id)
        });
        let mut left_alone = lanes.map(Lane::left_alone);
        // What can be tried is tried soon.
        let first = left_alone.next()??;
        left_alone.all(|other| other.is_some()).then_some(first)
    }

    /// First attempts that wait for this destination.
    pub(super) fn first_attempts(&self, key: &str) -> usize {
        let lane = self.by_key.get(key).and_then(|id| self.lane(*id));
        lane.map_or(0, Lane::first_attempts)
    }

    /// Takes an item in, to stand where its progress says.
    pub(super) fn enter(&mut self, item: Item, schedule: &RetrySchedule) {
        let item = Rc::new(item);
        self.items.insert(item.id(), Rc::clone(&item));
        let (held, attempts, next) = {
            let progress = item.progress.borrow();
            (
                progress.held,
                progress.attempts,
                progress.next_attempt_unix_ms,
            )
        };
        match (held, attempts) {
            (Held::Yes, _) => item.standing.set(Standing::Held),
            (Held::No, 0) => self.stand_ready(&item),
            (Held::No, _) => {
                let now = unix_ms(SystemTime::now());
                let wait = Duration::from_millis(next.saturating_sub(now));
                // Noted by a clock that may have been set since: not later than from now on.
                let wait = wait.min(schedule.wait(attempts, item.id().number()));
                self.stand_due(&item, Instant::now() + wait);
            }
        }
    }

    /// Whether an attempt at this destination may begin at once that somebody waits for.
    pub(super) fn may_begin(&self, to: &Destination) -> bool {
        match self.by_key.get(&to.key).and_then(|id| self.lane(*id)) {
            Some(lane) => self.shares.allow_waiting(lane, self.active),
            None => !self.shares.are_spent(to.way, self.active),
        }
    }

    /// Takes an item in whose only leg is under way already.
    pub(super) fn enter_active(&mut self, item: Item, to: &Destination) -> Begun {
        let item = Rc::new(item);
        self.items.insert(item.id(), Rc::clone(&item));
        item.legs_open.set(1);
        let lane = self.lane_of(to);
        self.begin(item, lane, Recipients::All)
    }

    /// Takes an item out. Whether it was there.
    pub(super) fn remove(&mut self, item: &Item) -> bool {
        self.stand_nowhere(item);
        item.standing.set(Standing::Gone);
        self.items.remove(&item.id()).is_some()
    }

    /// Sends its legs out.
    pub(super) fn stand_ready(&mut self, item: &Rc<Item>) {
        self.stand_nowhere(item);
        item.standing.set(Standing::Ready);
        let (legs, turn) = {
            let progress = item.progress.borrow();
            let turn = match progress.attempts {
                0 => Turn::First,
                _ => Turn::Repeated,
            };
            (self.destinations.legs(&item.accepted, &progress), turn)
        };
        let count = u32::try_from(legs.len()).unwrap_or(u32::MAX);
        item.legs_open.set(count);
        item.was_tried.set(false);
        for leg in legs {
            let Leg {
                destination,
                recipients,
            } = leg;
            let id = self.lane_of(&destination);
            let waiting = Waiting {
                id: item.id(),
                round: item.round.get(),
                recipients,
                since: Instant::now(),
            };
            let cannot_wait = waiting.recipients != Recipients::All || (self.is_urgent)(item);
            let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut) else {
                continue;
            };
            match lane.left_alone() {
                Some((_, reason)) if cannot_wait => {
                    self.refused.push_back((waiting, reason.into()));
                }
                Some(_) | None => lane.push(waiting, turn),
            }
            self.offer_turn(id);
        }
    }

    /// Of what waits for a destination that is left alone, takes out what cannot wait: legs whose message has
    /// others, which are not to wait for this one, and messages whose sender is to hear of it now.
    fn refuse_some(&mut self, id: LaneId) {
        let (items, is_urgent) = (&self.items, &self.is_urgent);
        let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        let Some(reason) = lane
            .left_alone()
            .map(|(_, reason)| Box::<str>::from(reason))
        else {
            return;
        };
        let refused = lane.take_out(|waiting| {
            let item = items.get(&waiting.id);
            let item = item.filter(|item| item.round.get() == waiting.round);
            item.is_some_and(|item| waiting.recipients != Recipients::All || is_urgent(item))
        });
        let refused = refused.into_iter();
        self.refused
            .extend(refused.map(|waiting| (waiting, reason.clone())));
    }

    /// Takes out, in whatever lane, what stands first and has waited for its turn for so long that the sender is to
    /// hear of it. What has not waited long has its turn, however old it is.
    fn refuse_overdue(&mut self, now: Instant) {
        let (items, is_urgent) = (&self.items, &self.is_urgent);
        for lane in self.lanes.iter_mut().flatten() {
            let is_away = lane.left_alone().is_some();
            let overdue = lane.take_front(|waiting| {
                let item = items.get(&waiting.id);
                let has_waited = is_away || now.duration_since(waiting.since) >= TURN_MAX;
                // What was called off is in nobody's way here either.
                item.is_none_or(|item| {
                    item.round.get() != waiting.round || (has_waited && is_urgent(item))
                })
            });
            let reason = lane.left_alone().map_or(CROWDED, |(_, reason)| reason);
            let reason = Box::<str>::from(reason);
            let overdue = overdue.into_iter();
            self.refused
                .extend(overdue.map(|waiting| (waiting, reason.clone())));
        }
        for id in 0..self.lanes.len() {
            self.drop_unused(id);
        }
    }

    pub(super) fn stand_due(&mut self, item: &Rc<Item>, at: Instant) {
        self.stand_nowhere(item);
        item.standing.set(Standing::Due(at));
        self.due.insert((at, item.id()));
    }

    pub(super) fn stand_held(&mut self, item: &Item) {
        self.stand_nowhere(item);
        item.standing.set(Standing::Held);
    }

    /// All that is left is to be tried behind the leg that is under way.
    pub(super) fn again(&self, item: &Item) {
        item.standing.set(Standing::ActiveAgain);
    }

    /// Has its turn at once, if it waits for its time; its destinations are tried again whatever came of the last
    /// time.
    pub(super) fn hurry(&mut self, item: &Rc<Item>) {
        if let Standing::Due(_) = item.standing() {
            self.stand_ready(item);
        }
        let legs = {
            let progress = item.progress.borrow();
            self.destinations.legs(&item.accepted, &progress)
        };
        for leg in legs {
            if let Some(id) = self.by_key.get(&leg.destination.key).copied() {
                self.end_suspension(id);
            }
        }
    }

    /// Takes an item out of where it waits. What of it waits in lanes is passed over when its turn comes.
    fn stand_nowhere(&mut self, item: &Item) {
        if let Standing::Due(at) = item.standing.get() {
            self.due.remove(&(at, item.id()));
        }
        item.call_off();
    }

    /// Makes ready what is due, some at a time. When the next is due; `now`, if that is already.
    pub(super) fn make_ready(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.overdue_next {
            self.refuse_overdue(now);
            self.overdue_next = now + OVERDUE_LOOKED_AT;
        }
        while let Some((at, lane)) = self.timed.first().copied()
            && at <= now
        {
            self.timed.pop_first();
            self.time_is_over(lane, now);
        }
        for _ in 0..MADE_READY_MAX {
            match self.due.first().copied() {
                Some((at, id)) if at <= now => {
                    self.due.pop_first();
                    if let Some(item) = self.find(id) {
                        self.stand_ready(&item);
                    }
                }
                Some(_) | None => break,
            }
        }
        let due = self.due.first().map(|(at, _)| *at);
        let timed = self.timed.first().map(|(at, _)| *at);
        let overdue = (!self.by_key.is_empty()).then_some(self.overdue_next);
        due.into_iter().chain(timed).chain(overdue).min()
    }

    /// The next leg whose turn it is, for an attempt. None: nobody is ready, or who is has its share under way.
    pub(super) fn take_ready(&mut self) -> Option<Begun> {
        while self.judging < JUDGED_MAX
            && let Some((waiting, reason)) = self.refused.pop_front()
        {
            let item = self.items.get(&waiting.id);
            let is_wanted = |item: &&Rc<Item>| item.round.get() == waiting.round && !item.is_held();
            if let Some(item) = item.filter(is_wanted) {
                item.set_active();
                self.judging += 1;
                return Some(Begun {
                    item: Rc::clone(item),
                    recipients: waiting.recipients,
                    how: How::LeftAlone(reason),
                    token: Began {
                        lane: None,
                        round: waiting.round,
                    },
                });
            }
        }
        self.take_of(Way::Local).or_else(|| self.take_of(Way::Hop))
    }

    fn take_of(&mut self, way: Way) -> Option<Begun> {
        if self.shares.are_spent(way, self.active) {
            return None;
        }
        // Those whose turn is over while the others still have theirs.
        let mut passed = Vec::new();
        let mut taken = None;
        while let Some(id) = self.turns.of(way).pop_front() {
            let (shares, active) = (self.shares, self.active);
            let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut) else {
                continue;
            };
            lane.in_turn = false;
            if lane.is_empty() || !lane.may_begin() {
                // Its turn is offered again when that changes.
                self.drop_unused(id);
                continue;
            }
            if !shares.allow(lane, active) {
                passed.push(id);
                continue;
            }
            let items = &self.items;
            // What was held or removed meanwhile is passed over.
            let found = std::iter::from_fn(|| lane.next()).find_map(|waiting| {
                let item = items.get(&waiting.id)?;
                let is_wanted = item.round.get() == waiting.round && !item.is_held();
                is_wanted.then(|| (Rc::clone(item), waiting.recipients))
            });
            match found {
                Some((item, recipients)) => {
                    taken = Some(self.begin(item, id, recipients));
                    break;
                }
                None => self.drop_unused(id),
            }
        }
        for id in passed {
            self.offer_turn(id);
        }
        taken
    }

    /// A leg ended, with this news of its destination.
    pub(super) fn leg_ended(
        &mut self,
        item: &Rc<Item>,
        began: Began,
        news: Option<News>,
        schedule: &RetrySchedule,
    ) -> LegEnd {
        let Began { lane: id, round } = began;
        if let Some(id) = id {
            let active = &mut self.active;
            if let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut) {
                lane.ended();
                active.ended(lane.way());
            }
            if let Some(news) = news {
                self.heard(news, schedule);
            }
            self.refuse_some(id);
            self.drop_unused(id);
            self.offer_turn(id);
        } else {
            self.judging = self.judging.saturating_sub(1);
        }
        item.legs_active.update(|active| active.saturating_sub(1));
        if item.standing() == Standing::Gone || item.round.get() != round {
            return LegEnd::Gone;
        }
        item.legs_open.update(|open| open.saturating_sub(1));
        match (item.legs_active.get(), item.legs_open.get()) {
            (0, 0) => LegEnd::Last,
            (0, _) if item.progress.borrow().held == Held::Yes => {
                self.stand_held(item);
                LegEnd::More
            }
            (0, _) if item.standing() == Standing::ActiveAgain => {
                self.stand_ready(item);
                LegEnd::More
            }
            (0, _) => {
                item.standing.set(Standing::Ready);
                LegEnd::More
            }
            (_, _) => LegEnd::More,
        }
    }

    fn heard(&mut self, news: News, schedule: &RetrySchedule) {
        let Some(id) = self.by_key.get(news.key()).copied() else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        match news {
            News::Answered(_) => {
                let until = lane.end_suspension();
                lane.answered();
                if let Some(until) = until {
                    self.timed.remove(&(until, id));
                }
            }
            News::Unreachable(_, reason) => {
                if let Some(until) = lane.unreachable(reason, Instant::now(), schedule) {
                    self.timed.insert((until, id));
                }
            }
        }
    }

    /// The time of a lane is over: that of its being left alone, or that of its being remembered.
    fn time_is_over(&mut self, id: LaneId, now: Instant) {
        let Some(lane) = self.lane_mut(id) else {
            return;
        };
        let left_alone_until = lane.left_alone().map(|(until, _)| until);
        let is_remembered = match left_alone_until {
            // Meanwhile it was found to be away once more.
            Some(until) if until > now => return,
            Some(_) => lane.end_suspension().is_some(),
            None => !lane.forget(),
        };
        if is_remembered {
            self.timed.insert((now + REMEMBERED, id));
        }
        self.drop_unused(id);
        self.offer_turn(id);
    }

    fn end_suspension(&mut self, id: LaneId) {
        if let Some(until) = self.lane_mut(id).and_then(Lane::end_suspension) {
            self.timed.remove(&(until, id));
            self.timed.insert((Instant::now() + REMEMBERED, id));
        }
        self.offer_turn(id);
    }

    fn begin(&mut self, item: Rc<Item>, id: LaneId, recipients: Recipients) -> Begun {
        item.set_active();
        let active = &mut self.active;
        let destination = match self.lanes.get_mut(id).and_then(Option::as_mut) {
            Some(lane) => {
                lane.begun();
                active.begun(lane.way());
                lane.destination.clone()
            }
            None => self.destinations.nowhere(),
        };
        self.offer_turn(id);
        let round = item.round.get();
        Begun {
            item,
            recipients,
            how: How::Attempt(destination),
            token: Began {
                lane: Some(id),
                round,
            },
        }
    }

    /// Has a lane take its turn, if there is something it could begin.
    fn offer_turn(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(id).and_then(Option::as_mut)
            && !lane.in_turn
            && !lane.is_empty()
            && lane.may_begin()
        {
            lane.in_turn = true;
            self.turns.of(lane.way()).push_back(id);
        }
    }

    /// The lane of a destination, made if there is none.
    fn lane_of(&mut self, to: &Destination) -> LaneId {
        if let Some(id) = self.by_key.get(&to.key) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            self.lanes.len() - 1
        });
        if let Some(place) = self.lanes.get_mut(id) {
            *place = Some(Lane::new(to.clone()));
        }
        self.by_key.insert(Rc::clone(&to.key), id);
        id
    }

    /// A lane goes when nothing is in it and nothing is to be remembered.
    fn drop_unused(&mut self, id: LaneId) {
        let Some(place) = self.lanes.get_mut(id) else {
            return;
        };
        let Some(lane) = place.take_if(|lane| lane.is_unused()) else {
            return;
        };
        self.by_key.remove(&lane.destination.key);
        if lane.in_turn {
            let turns = self.turns.of(lane.way());
            turns.retain(|other| *other != id);
        }
        self.free.push(id);
    }

    fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id).and_then(Option::as_ref)
    }

    fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id).and_then(Option::as_mut)
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How often what has waited for too long is looked for.
const OVERDUE_LOOKED_AT: Duration = Duration::from_secs(15);

/// How long a message waits for its turn at a destination that answers, before its sender is told instead.
const TURN_MAX: Duration = Duration::from_secs(10 * 60);

/// Legs that are judged at a time without being tried.
const JUDGED_MAX: usize = 64;

/// Why a message was not tried that has waited for too long.
const CROWDED: &str = "its turn has not come: attempts for this destination take long";

/// Made ready in one step: little beside what sessions do.
const MADE_READY_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::settings::{DeliverySettings, Durability, Routes, Sending};
    use super::super::super::target::Target;
    use super::super::lane::LocalTargets;
    use super::*;
    use crate::smtp::dsn::{MailDsn, RcptDsn};
    use crate::smtp::envelope::{Body, Envelope, Recipient};
    use crate::spool::{Fate, QueueIds};

    fn schedule() -> RetrySchedule {
        RetrySchedule::new(vec![Duration::from_secs(60)]).unwrap()
    }

    /// Books of a queue with so many attempts at hops, and so many of them at one.
    fn books(hops_max: usize, hop_max: usize) -> Books {
        let maildir = (HERE.to_owned(), Target::Maildir("/mail".into()));
        let settings = DeliverySettings {
            hostname: "mx.test".to_owned(),
            routes: Routes::new(Target::Mx, [maildir]),
            durability: Durability::Disk,
            schedule: schedule(),
            sending: Sending::default(),
        };
        let shares = Shares {
            local: LocalTargets::Several,
            hops_max,
            hop_max,
        };
        let destinations = Destinations::new(Arc::new(settings));
        let mut books = Books::new(Rc::new(destinations), shares, |item| {
            item.progress.borrow().attempts == OLD
        });
        books.overdue_next = Instant::now() + FAR;
        books
    }

    /// Longer than anything here waits.
    const FAR: Duration = Duration::from_secs(24 * 60 * 60);

    /// When something is due next, what has waited for too long apart.
    fn due_next(books: &mut Books, now: Instant) -> Option<Instant> {
        let next = books.make_ready(now);
        next.filter(|next| *next < now + FAR / 2)
    }

    /// Attempts of a message whose sender is to hear of it.
    const OLD: u32 = 99;

    /// A domain whose mail stays on this machine; that of all others goes to hops of their own.
    const HERE: &str = "here.test";

    fn item(ids: &QueueIds, domains: &[&str], attempts: u32, held: Held) -> Item {
        let accepted = Accepted {
            id: ids.next(SystemTime::now()),
            arrived_unix_ms: 7,
            envelope: Arc::new(Envelope {
                reverse_path: None,
                recipients: domains.iter().map(|domain| recipient(domain)).collect(),
                body: Body::SevenBit,
                smtputf8: false,
                declared_octets: None,
                dsn: MailDsn::default(),
            }),
            received: [].into(),
            data_octets: 0,
            data_crc: 0,
        };
        let progress = Progress {
            attempts,
            held,
            next_attempt_unix_ms: u64::MAX,
            ..Progress::begin(domains.len())
        };
        Item::new(Recovered { accepted, progress }, Some(0), None)
    }

    fn recipient(domain: &str) -> Recipient {
        Recipient {
            as_given: format!("a@{domain}").into(),
            local_part: "a".into(),
            domain: domain.into(),
            dsn: RcptDsn::default(),
        }
    }

    /// Enters items and gives back their ids.
    fn enter(books: &mut Books, items: Vec<Item>) -> Vec<QueueId> {
        let ids = items.iter().map(Item::id).collect();
        for item in items {
            books.enter(item, &schedule());
        }
        ids
    }

    /// Enters so many new messages to these domains.
    fn fresh(books: &mut Books, ids: &QueueIds, domains: &[&str], count: usize) -> Vec<QueueId> {
        let items = (0..count).map(|_| item(ids, domains, 0, Held::No));
        enter(books, items.collect())
    }

    /// Begins all attempts that may begin.
    fn take_all(books: &mut Books) -> Vec<Begun> {
        std::iter::from_fn(|| books.take_ready()).collect()
    }

    fn numbers(taken: &[Begun]) -> Vec<QueueId> {
        taken.iter().map(|begun| begun.item.id()).collect()
    }

    fn end(books: &mut Books, begun: Begun, news: Option<News>) -> LegEnd {
        books.leg_ended(&begun.item, begun.token, news, &schedule())
    }

    fn unreachable(domain: &str) -> Option<News> {
        let key = format!("mx {domain}").into();
        Some(News::Unreachable(key, "connection refused".into()))
    }

    fn answered(domain: &str) -> Option<News> {
        Some(News::Answered(format!("mx {domain}").into()))
    }

    #[test]
    fn a_message_stands_where_its_progress_says() {
        let ids = QueueIds::new(0);
        let mut books = books(9, 9);
        let items = [(0, Held::No), (2, Held::No), (0, Held::Yes), (5, Held::Yes)];
        let items = items.map(|(attempts, held)| item(&ids, &[HERE], attempts, held));
        let entered = enter(&mut books, items.into());
        let states: Vec<QueueState> = books
            .behind(None)
            .map(|item| books.shown(item).state)
            .collect();
        let held = QueueState::Held;
        assert_eq!(
            states,
            [QueueState::Waiting, QueueState::Deferred, held, held]
        );
        assert_eq!(numbers(&take_all(&mut books)), [entered[0]]);
        // Noted for the end of time: not later than the schedule has it.
        let due = due_next(&mut books, Instant::now()).unwrap();
        assert!(due <= Instant::now() + Duration::from_secs(66));
        assert_eq!(due_next(&mut books, due), None);
        assert_eq!(numbers(&take_all(&mut books)), [entered[1]]);
    }

    #[test]
    fn one_hop_has_its_share_and_the_others_theirs() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 3);
        fresh(&mut books, &ids, &["hangs.test"], 10);
        let hanging = take_all(&mut books);
        assert_eq!(hanging.len(), 3);
        let other = fresh(&mut books, &ids, &["other.test"], 2);
        fresh(&mut books, &ids, &[HERE], 100);
        let taken = take_all(&mut books);
        assert_eq!(taken.len(), 2 + 32, "half of what a machine does at once");
        assert!(other.iter().all(|id| numbers(&taken).contains(id)));
        // One ends, another begins.
        end(&mut books, hanging.into_iter().next().unwrap(), None);
        assert_eq!(take_all(&mut books).len(), 1);
    }

    #[test]
    fn many_hops_that_hang_leave_half_to_the_rest() {
        let ids = QueueIds::new(0);
        let mut books = books(20, 4);
        let mut active = 0;
        for number in 0..4 {
            fresh(&mut books, &ids, &[&format!("hangs{number}.test")], 10);
            active += take_all(&mut books).len();
        }
        assert_eq!(active, 4 + 4 + 2 + 2);
        for number in 0..4 {
            fresh(&mut books, &ids, &[&format!("other{number}.test")], 3);
        }
        let taken = take_all(&mut books);
        assert_eq!(taken.len(), 8, "two each");
        assert!(take_all(&mut books).is_empty(), "20 are all there are");
        for begun in taken {
            end(&mut books, begun, None);
        }
        assert_eq!(take_all(&mut books).len(), 4, "what hangs has no more");
    }

    #[test]
    fn a_destination_that_hangs_keeps_no_other_part_of_a_message() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 3);
        fresh(&mut books, &ids, &["hangs.test", "well.test", HERE], 30);
        let mut ended = 0;
        let mut hanging = Vec::new();
        loop {
            let taken = take_all(&mut books);
            if taken.is_empty() {
                break;
            }
            for begun in taken {
                match &begun.how {
                    How::Attempt(to) if &*to.key == "mx hangs.test" => hanging.push(begun),
                    How::Attempt(_) | How::LeftAlone(_) => {
                        ended += 1;
                        assert_eq!(end(&mut books, begun, answered("well.test")), LegEnd::More);
                    }
                }
            }
        }
        assert_eq!((ended, hanging.len()), (60, 3));
        let first = hanging.remove(0);
        let item = Rc::clone(&first.item);
        assert_eq!(first.recipients, Recipients::At([0].into()));
        assert_eq!(end(&mut books, first, None), LegEnd::Last);
        // What is left is tried when its time comes, and nothing else.
        item.progress.borrow_mut().recipients[1] = Fate::Delivered;
        item.progress.borrow_mut().recipients[2] = Fate::Delivered;
        books.stand_ready(&item);
        assert_eq!(item.legs_open.get(), 1);
    }

    #[test]
    fn a_hop_that_is_away_costs_one_attempt_each_time_it_is_tried() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 20);
        let entered = fresh(&mut books, &ids, &["away.test"], 50);
        let first = take_all(&mut books);
        assert_eq!(first.len(), 5, "nothing is known of it yet");
        for begun in first {
            end(&mut books, begun, unreachable("away.test"));
        }
        assert!(take_all(&mut books).is_empty());
        let shown = books.shown(&books.find(entered[30]).unwrap());
        assert_eq!(shown.state, QueueState::Deferred);
        assert_eq!(
            shown.recipients[0].reason.as_deref(),
            Some("connection refused")
        );
        assert!(shown.next_attempt_unix_ms.unwrap() > unix_ms(SystemTime::now()));
        // Attempts of the same time tell the same: it was left alone once.
        let mut waits = Vec::new();
        for _ in 0..3 {
            let until = due_next(&mut books, Instant::now()).unwrap();
            waits.push(until - Instant::now());
            books.make_ready(until);
            let mut probe = take_all(&mut books);
            assert_eq!(probe.len(), 1, "one looks whether it is back");
            end(&mut books, probe.pop().unwrap(), unreachable("away.test"));
        }
        assert!(waits.is_sorted() && waits[2] > 3 * waits[0], "{waits:?}");
        // It is back.
        let until = due_next(&mut books, Instant::now()).unwrap();
        books.make_ready(until);
        let probe = take_all(&mut books).pop().unwrap();
        end(&mut books, probe, answered("away.test"));
        assert_eq!(take_all(&mut books).len(), 5);
    }

    #[test]
    fn what_cannot_wait_for_a_hop_that_is_away_is_judged_without_it() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 20);
        fresh(&mut books, &ids, &["away.test"], 1);
        let both = fresh(&mut books, &ids, &["away.test", HERE], 9);
        let old = (0..3).map(|_| item(&ids, &["away.test"], OLD, Held::No));
        let old = enter(&mut books, old.collect());
        books.make_ready(Instant::now() + Duration::from_secs(100));
        let patient = fresh(&mut books, &ids, &["away.test"], 4);
        let mut taken = take_all(&mut books);
        let (here, away): (Vec<_>, Vec<_>) = taken
            .drain(..)
            .partition(|begun| matches!(&begun.how, How::Attempt(to) if to.way == Way::Local));
        assert_eq!((here.len(), away.len()), (9, 5));
        let tried = numbers(&away);
        for begun in away {
            end(&mut books, begun, unreachable("away.test"));
        }
        let judged = take_all(&mut books);
        let reasons = judged.iter().map(|begun| match &begun.how {
            How::LeftAlone(reason) => &**reason,
            How::Attempt(_) => "",
        });
        assert!(
            reasons
                .into_iter()
                .all(|reason| reason == "connection refused")
        );
        let mut expected: Vec<_> = both.iter().chain(&old).copied().collect();
        expected.retain(|id| !tried.contains(id));
        let mut found = numbers(&judged);
        found.sort_unstable();
        assert_eq!(found, expected, "and none of {patient:?}");
        for begun in judged {
            let is_only = old.contains(&begun.item.id());
            let last = end(&mut books, begun, None);
            assert_eq!(last == LegEnd::Last, is_only);
        }
        // So is what comes while it is left alone.
        fresh(&mut books, &ids, &["away.test", HERE], 1);
        assert_eq!(take_all(&mut books).len(), 2);
    }

    #[test]
    fn what_has_waited_for_too_long_is_judged_whatever_its_hop_does() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 1);
        let hanging = fresh(&mut books, &ids, &["hangs.test"], 1);
        assert_eq!(numbers(&take_all(&mut books)), hanging);
        let old = (0..3).map(|_| item(&ids, &["hangs.test"], OLD, Held::No));
        let old = enter(&mut books, old.collect());
        books.make_ready(Instant::now() + Duration::from_secs(100));
        fresh(&mut books, &ids, &["hangs.test"], 3);
        assert!(take_all(&mut books).is_empty(), "it has its share");
        books.make_ready(Instant::now() + FAR);
        let judged = take_all(&mut books);
        let mut found = numbers(&judged);
        found.sort_unstable();
        assert_eq!(found, old);
        let is_crowded =
            |begun: &Begun| matches!(&begun.how, How::LeftAlone(reason) if **reason == *CROWDED);
        assert!(judged.iter().all(is_crowded));
    }

    #[test]
    fn an_operator_has_a_hop_tried_again_at_once() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 20);
        let entered = fresh(&mut books, &ids, &["away.test"], 9);
        for begun in take_all(&mut books) {
            end(&mut books, begun, unreachable("away.test"));
        }
        assert!(take_all(&mut books).is_empty());
        let waiting = books.find(entered[8]).unwrap();
        books.hurry(&waiting);
        assert_eq!(take_all(&mut books).len(), 1);
    }

    #[test]
    fn a_lane_goes_when_there_is_nothing_to_remember() {
        let ids = QueueIds::new(0);
        let mut books = books(100, 20);
        for round in 0..3 {
            for number in 0..5 {
                let domain = format!("{round}.{number}.test");
                let entered = fresh(&mut books, &ids, &[&domain], 2);
                let mut taken = take_all(&mut books).into_iter();
                let news = (number == 0).then(|| unreachable(&domain)).flatten();
                end(&mut books, taken.next().unwrap(), news);
                for id in entered {
                    assert!(books.remove(&books.find(id).unwrap()));
                }
                // An attempt outlives its message.
                let late = end(&mut books, taken.next().unwrap(), None);
                assert_eq!(late, LegEnd::Gone);
            }
        }
        assert_eq!(books.len(), 0);
        assert_eq!(books.by_key.len(), 3, "those that were away are remembered");
        assert!(books.lanes.len() <= 4, "a place is used again");
        // First they may be tried again, then it is forgotten that they were away.
        let mut now = Instant::now();
        for _ in 0..2 {
            now += Duration::from_secs(16 * 60);
            books.make_ready(now);
        }
        assert!(books.by_key.is_empty() && books.timed.is_empty());
        assert!(books.turns.local.is_empty() && books.turns.hops.is_empty());
    }

    #[test]
    fn first_attempts_and_repeated_ones_take_turns() {
        let ids = QueueIds::new(0);
        let mut books = books(9, 9);
        let old = (0..3).map(|_| item(&ids, &[HERE], 1, Held::No)).collect();
        let old = enter(&mut books, old);
        books.make_ready(Instant::now() + Duration::from_secs(100));
        let new = fresh(&mut books, &ids, &[HERE], 2);
        let taken = numbers(&take_all(&mut books));
        assert!(taken.iter().all(|id| new.contains(id) || old.contains(id)));
        let is_new: Vec<bool> = taken.iter().map(|id| new.contains(id)).collect();
        assert_eq!(is_new, [true, false, true, false, false]);
    }

    #[test]
    fn who_was_held_or_removed_is_passed_over() {
        let ids = QueueIds::new(0);
        let mut books = books(9, 9);
        let entered = fresh(&mut books, &ids, &[HERE], 4);
        let item = |books: &Books, number: usize| books.find(entered[number]).unwrap();
        let (first, second) = (item(&books, 0), item(&books, 1));
        books.stand_held(&first);
        assert!(books.remove(&second));
        assert!(!books.remove(&second));
        assert_eq!(books.len(), 3);
        assert_eq!(books.take_ready().unwrap().item.id(), entered[2]);
        // Released twice, it waits in the lane three times and has one turn.
        books.stand_ready(&first);
        books.stand_ready(&first);
        assert_eq!(numbers(&take_all(&mut books)), [entered[3], entered[0]]);
    }

    #[test]
    fn what_is_held_while_a_leg_is_under_way_is_held_behind_it() {
        let ids = QueueIds::new(0);
        let mut books = books(1, 1);
        fresh(&mut books, &ids, &["one.test", "two.test"], 1);
        let begun = books.take_ready().unwrap();
        assert!(
            books.take_ready().is_none(),
            "one connection is all there is"
        );
        let item = Rc::clone(&begun.item);
        item.progress.borrow_mut().held = Held::Yes;
        assert_eq!(end(&mut books, begun, answered("one.test")), LegEnd::More);
        assert_eq!(item.standing(), Standing::Held);
        assert!(books.take_ready().is_none());
        // Wanted again while a leg is under way, all that is left goes out anew.
        item.progress.borrow_mut().held = Held::No;
        books.stand_ready(&item);
        let begun = books.take_ready().unwrap();
        books.again(&item);
        assert_eq!(end(&mut books, begun, None), LegEnd::More);
        assert_eq!(item.legs_open.get(), 2);
        assert!(books.take_ready().is_some());
    }
}
