//! How many connections to next hops there may be: of the whole process, and to one destination.
//!
//! Apart from the connections because it is the one thing about sending that shards share. A lock is taken when a
//! connection is opened or closed, and not on the way of a message over one that is open.
//!
//! Invariants:
//! - No more slots are out than there are, in all and for each destination.
//! - Who waits is served in order, but for those whose destination has its share: the others go past them.
//! - Who waits is not kept waiting by a connection that nobody uses: its keeper is told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// The slots of the process.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    per_destination_max: usize,
    table: Mutex<Table>,
    /// Somebody waits: connections that nobody uses are to be closed.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Table {
    out: usize,
    by_destination: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    destination: Arc<str>,
    give: oneshot::Sender<Slot>,
    settled: Arc<AtomicBool>,
}

impl Waiting {
    /// Whether it needs no slot any more.
    fn is_over(&self) -> bool {
        self.give.is_closed() || self.settled.load(Ordering::Relaxed)
    }
}

/// The right to one connection to one destination; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    destination: Arc<str>,
}

impl Slots {
    /// So many in all, and so many for one destination.
    pub fn new(max: usize, per_destination_max: usize) -> Arc<Slots> {
        Arc::new(Slots {
            max,
            per_destination_max,
            table: Mutex::default(),
            wanted: Notify::new(),
        })
    }

    /// How many are out: connections that are open, or about to be.
    pub fn out(&self) -> usize {
        self.table().out
    }

    /// How many there are.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A slot for this destination, as soon as there is one. Once `settled` is set, who waits has come by a
    /// connection another way: nobody is to make room for it, and it may get none.
    pub async fn take(self: &Arc<Slots>, destination: &str, settled: Arc<AtomicBool>) -> Slot {
        let destination = Arc::<str>::from(destination);
        let given = {
            let mut table = self.table();
            if table.has_room(self, &destination) {
                return table.hand_out(self, destination);
            }
            let (give, given) = oneshot::channel();
            table.waiting.push_back(Waiting {
                destination: Arc::clone(&destination),
                give,
                settled,
            });
            given
        };
        self.wanted.notify_waiters();
        match given.await {
            Ok(slot) => slot,
            // Nobody drops a place in the line but who stands in it.
            Err(_never) => std::future::pending().await,
        }
    }

    /// Whether half of them are out: who holds one is not to be waited for as long as otherwise.
    pub fn are_crowded(&self) -> bool {
        self.out().saturating_mul(2) >= self.max
    }

    /// Whether somebody waits for what a connection to this destination takes.
    pub fn is_wanted(&self, destination: &str) -> bool {
        let table = self.table();
        let mut waiting = table.waiting.iter();
        waiting.any(|waiting| {
            let same = *waiting.destination == *destination;
            !waiting.is_over() && (same || table.out >= self.max)
        })
    }

    /// Resolves when somebody begins to wait.
    pub fn wanted(&self) -> tokio::sync::futures::Notified<'_> {
        self.wanted.notified()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn has_room(&self, slots: &Slots, destination: &str) -> bool {
        let of_destination = self.by_destination.get(destination).copied().unwrap_or(0);
        // Many destinations that hang leave half to those that have few.
        let is_crowded = self.out.saturating_mul(2) >= slots.max;
        let share = match is_crowded {
            true => slots.per_destination_max.min(CROWDED_SHARE),
            false => slots.per_destination_max,
        };
        self.out < slots.max && of_destination < share
    }

    fn hand_out(&mut self, slots: &Arc<Slots>, destination: Arc<str>) -> Slot {
        self.out += 1;
        let count = self.by_destination.entry(Arc::clone(&destination));
        *count.or_default() += 1;
        Slot {
            slots: Arc::clone(slots),
            destination,
        }
    }

    fn take_back(&mut self, destination: &str) {
        self.out = self.out.saturating_sub(1);
        if let Some(count) = self.by_destination.get_mut(destination) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_destination.remove(destination);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = Arc::clone(&self.slots);
        let mut table = slots.table();
        table.take_back(&self.destination);
        // Slots whose receivers are gone come back here when the lock is free again.
        let mut unclaimed = Vec::new();
        while let Some(place) = table
            .waiting
            .iter()
            .position(|waiting| table.has_room(&slots, &waiting.destination))
            && let Some(waiting) = table.waiting.remove(place)
        {
            if waiting.is_over() {
                continue;
            }
            let slot = table.hand_out(&slots, waiting.destination);
            if let Err(slot) = waiting.give.send(slot) {
                unclaimed.push(slot);
            }
        }
        drop(table);
        drop(unclaimed);
    }
}

/// Connections to one destination while half of what there may be are out.
pub(super) const CROWDED_SHARE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a slot is to be had at once; it is kept in `held`.
    async fn take_now(slots: &Arc<Slots>, destination: &str, held: &mut Vec<Slot>) -> bool {
        tokio::select! {
            biased;
            slot = slots.take(destination, Arc::default()) => {
                held.push(slot);
                true
            }
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn bounds_hold_in_all_and_for_each() {
        let slots = Slots::new(8, 3);
        let mut held = Vec::new();
        for (destination, expected, out) in [
            ("a", true, 1),
            ("a", true, 2),
            ("a", true, 3),
            ("a", false, 3),
            ("b", true, 4),
            ("b", true, 5),
            // Half are out.
            ("b", false, 5),
            ("c", true, 6),
            ("c", true, 7),
            ("c", false, 7),
            ("d", true, 8),
            ("e", false, 8),
        ] {
            assert_eq!(take_now(&slots, destination, &mut held).await, expected);
            assert_eq!(slots.out(), out, "{destination}");
        }
        held.clear();
        assert_eq!(slots.out(), 0);
        assert!(slots.table().by_destination.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_order_and_past_those_with_their_share() {
        let slots = Slots::new(2, 1);
        let a = slots.take("a", Arc::default()).await;
        let b = slots.take("b", Arc::default()).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for destination in ["a", "c", "d"] {
            let (slots, order) = (Arc::clone(&slots), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let slot = slots.take(destination, Arc::default()).await;
                order.lock().unwrap().push(destination);
                slot
            }));
            tokio::task::yield_now().await;
        }
        assert!(slots.is_wanted("a") && slots.is_wanted("x"));
        drop(b);
        tokio::task::yield_now().await;
        assert_eq!(*order.lock().unwrap(), ["c"]);
        drop(a);
        tokio::task::yield_now().await;
        assert_eq!(*order.lock().unwrap(), ["c", "a"]);
        // The last gives up: nothing is lost with it.
        let last = tasks.pop().unwrap();
        last.abort();
        assert!(last.await.unwrap_err().is_cancelled());
        for task in tasks {
            drop(task.await.unwrap());
        }
        assert_eq!(slots.out(), 0);
        assert!(!slots.is_wanted("d"));
    }

    #[tokio::test]
    async fn a_slot_on_its_way_to_one_who_left_goes_to_the_next() {
        let slots = Slots::new(1, 1);
        let first = slots.take("a", Arc::default()).await;
        let mut waiting = Box::pin(slots.take("a", Arc::default()));
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let other = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take("a", Arc::default()).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        // It has the slot and does not know yet.
        drop(waiting);
        drop(other.await.unwrap());
        assert_eq!(slots.out(), 0);
    }
}
