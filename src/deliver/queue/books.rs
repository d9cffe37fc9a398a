//! Which message stands where in the queue, and whose turn is next.
//!
//! ```text
//!  enter ─▶ ready ─▶ active ─▶ (final: gone)
//!             ▲        │
//!             │        ├─▶ due ──(its time comes)──▶ ready
//!             └────────┴─▶ held ──(an operator)────▶ ready
//! ```
//!
//! Ready messages stand in lanes, one for each target: a target that hangs has at most its share of the attempts,
//! and the others go on. In a lane first attempts and repeated ones take turns, so that new mail does not wait
//! behind all that ever failed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::schedule::RetrySchedule;
use super::request::{QueueState, Queued};
use crate::smtp::data::MailData;
use crate::spool::{Accepted, Held, Progress, QueueId, Recovered};

/// A message in the queue.
pub(super) struct Item {
    pub(super) accepted: Accepted,
    /// The target of its first recipient.
    pub(super) lane: usize,
    /// Which log has it; none while it is in memory alone, under `--durability none`.
    pub(super) log: Cell<Option<usize>>,
    pub(super) progress: RefCell<Progress>,
    /// Its data, as long as there is memory to keep it.
    pub(super) data: RefCell<Option<Rc<MailData>>>,
    standing: Cell<Standing>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// In a lane.
    Ready,
    /// In `due` under this time.
    Due(Instant),
    /// An attempt is under way; then it stands where its progress says.
    Active,
    /// An attempt is under way, and when it ends another is wanted at once.
    ActiveAgain,
    /// An operator keeps it.
    Held,
    /// Not in the queue any more; an attempt may be under way.
    Gone,
}

/// All messages of a queue.
pub(super) struct Books {
    items: BTreeMap<QueueId, Rc<Item>>,
    lanes: Vec<Lane>,
    /// The lane whose turn is next.
    turn: usize,
    /// By the time of the next attempt. Not by the clock: were it set back by a day, nothing would be tried for a
    /// day.
    due: BTreeSet<(Instant, QueueId)>,
}

/// The messages that wait for one target.
#[derive(Default)]
struct Lane {
    first: VecDeque<QueueId>,
    repeated: VecDeque<QueueId>,
    repeated_is_next: bool,
    active: usize,
}

impl Item {
    pub(super) fn new(
        message: Recovered,
        lane: usize,
        log: Option<usize>,
        data: Option<Rc<MailData>>,
    ) -> Item {
        Item {
            accepted: message.accepted,
            lane,
            log: Cell::new(log),
            progress: RefCell::new(message.progress),
            data: RefCell::new(data),
            standing: Cell::new(Standing::Gone),
        }
    }

    pub(super) fn id(&self) -> QueueId {
        self.accepted.id
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.get()
    }

    /// As an operator is shown it.
    pub(super) fn shown(&self) -> Queued {
        let progress = self.progress.borrow();
        let (state, next) = match (self.standing.get(), progress.attempts) {
            (Standing::Active | Standing::ActiveAgain, _) => (QueueState::Active, None),
            (Standing::Held, _) => (QueueState::Held, None),
            (Standing::Ready | Standing::Gone, 0) => {
                (QueueState::Waiting, Some(self.accepted.arrived_unix_ms))
            }
            // Its turn has come, whatever was noted before.
            (Standing::Ready | Standing::Gone, _) => {
                (QueueState::Deferred, Some(unix_ms(SystemTime::now())))
            }
            (Standing::Due(_), _) => (QueueState::Deferred, Some(progress.next_attempt_unix_ms)),
        };
        Queued::new(&self.accepted, &progress, state, next)
    }

    /// Gives its memory back, if the data can be read again.
    pub(super) fn forget_data(&self) {
        if self.log.get().is_some() {
            self.data.borrow_mut().take();
        }
    }
}

impl Books {
    /// Of a queue with so many lanes.
    pub(super) fn new(lanes: usize) -> Books {
        Books {
            items: BTreeMap::new(),
            lanes: std::iter::repeat_with(Lane::default)
                .take(lanes.max(1))
                .collect(),
            turn: 0,
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

    /// Messages that wait for their first attempt at this target.
    pub(super) fn first_attempts(&self, lane: usize) -> usize {
        self.lanes.get(lane).map_or(0, |lane| lane.first.len())
    }

    /// Takes an item in, to stand where its progress says.
    pub(super) fn enter(&mut self, item: Item, schedule: &RetrySchedule) {
        let item = Rc::new(item);
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
                let wait = wait.min(schedule.wait(attempts, item.id()));
                self.stand_due(&item, Instant::now() + wait);
            }
        }
        self.items.insert(item.id(), item);
    }

    /// Takes an item out. Whether it was there.
    pub(super) fn remove(&mut self, item: &Item) -> bool {
        self.stand_nowhere(item);
        item.standing.set(Standing::Gone);
        self.items.remove(&item.id()).is_some()
    }

    pub(super) fn stand_ready(&mut self, item: &Rc<Item>) {
        item.standing.set(Standing::Ready);
        let first = item.progress.borrow().attempts == 0;
        if let Some(lane) = self.lanes.get_mut(item.lane) {
            match first {
                true => lane.first.push_back(item.id()),
                false => lane.repeated.push_back(item.id()),
            }
        }
    }

    pub(super) fn stand_due(&mut self, item: &Rc<Item>, at: Instant) {
        item.standing.set(Standing::Due(at));
        self.due.insert((at, item.id()));
    }

    pub(super) fn stand_held(&mut self, item: &Item) {
        self.stand_nowhere(item);
        item.standing.set(Standing::Held);
    }

    /// An attempt is to follow the one under way.
    pub(super) fn again(&self, item: &Item) {
        item.standing.set(Standing::ActiveAgain);
    }

    /// Has its turn at once, if it waits for its time.
    pub(super) fn hurry(&mut self, item: &Rc<Item>) {
        self.stand_nowhere(item);
        self.stand_ready(item);
    }

    /// Takes an item out of where it waits. In a lane it is passed over when its turn comes.
    fn stand_nowhere(&mut self, item: &Item) {
        if let Standing::Due(at) = item.standing.get() {
            self.due.remove(&(at, item.id()));
        }
    }

    /// Makes ready what is due, some at a time. When the next is due; `now`, if that is already.
    pub(super) fn make_ready(&mut self, now: Instant) -> Option<Instant> {
        for _ in 0..MADE_READY_MAX {
            match self.due.first().copied() {
                Some((at, id)) if at <= now => {
                    self.due.pop_first();
                    if let Some(item) = self.find(id) {
                        self.stand_ready(&item);
                    }
                }
                Some((at, _)) => return Some(at),
                None => return None,
            }
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// The next item whose turn it is, for an attempt. None: nobody is ready, or who is has its share under way.
    pub(super) fn take_ready(&mut self, active_max: usize) -> Option<Rc<Item>> {
        // Where there are several targets, one that hangs leaves half to the others.
        let share = match self.lanes.len() {
            1 => active_max,
            _ => active_max.div_ceil(2),
        };
        let active: usize = self.lanes.iter().map(|lane| lane.active).sum();
        if active >= active_max {
            return None;
        }
        for _ in 0..self.lanes.len() {
            let turn = self.turn % self.lanes.len();
            self.turn = turn + 1;
            while let Some(lane) = self.lanes.get_mut(turn)
                && lane.active < share
                && let Some(id) = lane.next()
            {
                let item = self.items.get(&id);
                // What was held or removed meanwhile, or stood here twice, is passed over.
                if let Some(item) = item.filter(|item| item.standing.get() == Standing::Ready) {
                    item.standing.set(Standing::Active);
                    lane.active += 1;
                    return Some(Rc::clone(item));
                }
            }
        }
        None
    }

    /// An attempt at this item ended.
    pub(super) fn attempt_ended(&mut self, item: &Item) {
        if let Some(lane) = self.lanes.get_mut(item.lane) {
            lane.active = lane.active.saturating_sub(1);
        }
    }
}

impl Lane {
    fn next(&mut self) -> Option<QueueId> {
        let repeated = self.repeated_is_next;
        self.repeated_is_next = !repeated;
        let (one, other) = match repeated {
            true => (&mut self.repeated, &mut self.first),
            false => (&mut self.first, &mut self.repeated),
        };
        one.pop_front().or_else(|| other.pop_front())
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Made ready in one step: little beside what sessions do.
const MADE_READY_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::smtp::dsn::MailDsn;
    use crate::smtp::envelope::{Body, Envelope};
    use crate::spool::QueueIds;

    fn schedule() -> RetrySchedule {
        RetrySchedule::new(vec![Duration::from_secs(60)]).unwrap()
    }

    fn item(ids: &QueueIds, lane: usize, attempts: u32, held: Held) -> Item {
        let accepted = Accepted {
            id: ids.next(SystemTime::now()),
            arrived_unix_ms: 7,
            envelope: Arc::new(Envelope {
                reverse_path: None,
                recipients: Vec::new(),
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
            delay_notified: false,
            recipients: Vec::new(),
        };
        Item::new(Recovered { accepted, progress }, lane, Some(0), None)
    }

    /// Enters items and gives back their ids.
    fn enter(books: &mut Books, items: Vec<Item>) -> Vec<QueueId> {
        let ids = items.iter().map(Item::id).collect();
        for item in items {
            books.enter(item, &schedule());
        }
        ids
    }

    fn take(books: &mut Books, active_max: usize) -> Option<QueueId> {
        books.take_ready(active_max).map(|item| item.id())
    }

    #[test]
    fn a_message_stands_where_its_progress_says() {
        let ids = QueueIds::new(0);
        let mut books = Books::new(1);
        let entered = enter(
            &mut books,
            vec![
                item(&ids, 0, 0, Held::No),
                item(&ids, 0, 2, Held::No),
                item(&ids, 0, 0, Held::Yes),
                item(&ids, 0, 5, Held::Yes),
            ],
        );
        let states: Vec<QueueState> = books.behind(None).map(|item| item.shown().state).collect();
        let held = QueueState::Held;
        assert_eq!(
            states,
            [QueueState::Waiting, QueueState::Deferred, held, held]
        );
        assert_eq!(take(&mut books, 9), Some(entered[0]));
        assert_eq!(take(&mut books, 9), None);
        // Noted for the end of time: not later than the schedule has it.
        let due = books.make_ready(Instant::now()).unwrap();
        assert!(due <= Instant::now() + Duration::from_secs(66));
        assert_eq!(books.make_ready(due), None);
        assert_eq!(take(&mut books, 9), Some(entered[1]));
    }

    #[test]
    fn one_target_has_its_share_and_no_more() {
        let ids = QueueIds::new(0);
        let mut books = Books::new(2);
        let hanging = (0..10).map(|_| item(&ids, 0, 0, Held::No)).collect();
        let hanging = enter(&mut books, hanging);
        for number in [0, 1] {
            assert_eq!(take(&mut books, 4), Some(hanging[number]));
        }
        assert_eq!(take(&mut books, 4), None);
        let other = (0..3).map(|_| item(&ids, 1, 0, Held::No)).collect();
        let other = enter(&mut books, other);
        assert_eq!(take(&mut books, 4), Some(other[0]));
        assert_eq!(take(&mut books, 4), Some(other[1]));
        assert_eq!(take(&mut books, 4), None);
        books.attempt_ended(&books.find(other[0]).unwrap());
        assert_eq!(take(&mut books, 4), Some(other[2]));
        // Alone it has all.
        let mut books = Books::new(1);
        enter(
            &mut books,
            (0..10).map(|_| item(&ids, 0, 0, Held::No)).collect(),
        );
        assert_eq!((0..9).filter_map(|_| take(&mut books, 4)).count(), 4);
    }

    #[test]
    fn first_attempts_and_repeated_ones_take_turns() {
        let ids = QueueIds::new(0);
        let mut books = Books::new(1);
        let old = (0..3).map(|_| item(&ids, 0, 1, Held::No)).collect();
        let old = enter(&mut books, old);
        books.make_ready(Instant::now() + Duration::from_secs(100));
        let new = (0..2).map(|_| item(&ids, 0, 0, Held::No)).collect();
        let new = enter(&mut books, new);
        let is_new: Vec<bool> = std::iter::from_fn(|| take(&mut books, 9))
            .inspect(|id| assert!(new.contains(id) || old.contains(id)))
            .map(|id| new.contains(&id))
            .collect();
        assert_eq!(is_new, [true, false, true, false, false]);
    }

    #[test]
    fn who_was_held_or_removed_is_passed_over() {
        let ids = QueueIds::new(0);
        let mut books = Books::new(1);
        let items = (0..4).map(|_| item(&ids, 0, 0, Held::No)).collect();
        let entered = enter(&mut books, items);
        let item = |books: &Books, number: usize| books.find(entered[number]).unwrap();
        let (first, second) = (item(&books, 0), item(&books, 1));
        books.stand_held(&first);
        assert!(books.remove(&second));
        assert!(!books.remove(&second));
        assert_eq!(books.len(), 3);
        assert_eq!(take(&mut books, 9), Some(entered[2]));
        // Released, it stands in the lane twice and has one turn.
        books.stand_ready(&first);
        books.stand_ready(&first);
        assert_eq!(take(&mut books, 9), Some(entered[3]));
        assert_eq!(take(&mut books, 9), Some(entered[0]));
        assert_eq!(take(&mut books, 9), None);
    }
}
