//! The messages of all shards in the order of their ids, of which no more than a page a shard lies in memory.
//!
//! Not promised: a picture of one moment. What comes or goes while it is read may be in it or not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::vec;

use crate::deliver::queue::request::Queued;
use crate::spool::QueueId;

/// A k-way merge of sorted pages. `ask` gives the next page of a shard, behind an id.
pub(super) struct Merge<A> {
    ask: A,
    pages: Vec<Page>,
    /// The first message of each page that has one left.
    heads: BinaryHeap<Reverse<(QueueId, usize)>>,
    /// Shards whose next page is to be asked for.
    starved: Vec<usize>,
}

/// What is left of the last page of a shard.
struct Page {
    left: vec::IntoIter<Queued>,
    after: Option<QueueId>,
}

impl<A, F, E> Merge<A>
where
    A: FnMut(usize, Option<QueueId>) -> F,
    F: Future<Output = Result<Vec<Queued>, E>>,
{
    /// Of so many shards.
    pub(super) fn new(shards: usize, ask: A) -> Merge<A> {
        let page = || Page {
            left: Vec::new().into_iter(),
            after: None,
        };
        Merge {
            ask,
            pages: std::iter::repeat_with(page).take(shards).collect(),
            heads: BinaryHeap::with_capacity(shards),
            starved: (0..shards).rev().collect(),
        }
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Option<Queued>, E> {
        while let Some(shard) = self.starved.pop() {
            self.next_page(shard).await?;
        }
        let Some(Reverse((_, shard))) = self.heads.pop() else {
            return Ok(None);
        };
        let Some(page) = self.pages.get_mut(shard) else {
            return Ok(None);
        };
        let message = page.left.next();
        match (page.left.as_slice().first(), page.after) {
            (Some(head), _) => self.heads.push(Reverse((head.id, shard))),
            (None, Some(_)) => self.starved.push(shard),
            (None, None) => {}
        }
        Ok(message)
    }

    async fn next_page(&mut self, shard: usize) -> Result<(), E> {
        let Some(page) = self.pages.get_mut(shard) else {
            return Ok(());
        };
        let messages = (self.ask)(shard, page.after).await?;
        debug_assert!(messages.is_sorted_by_key(|message| message.id));
        let last = messages.last().map(|message| message.id);
        // An empty page is the last. One that does not lead on is too: no shard makes this go in circles.
        page.after = last.filter(|_| last > page.after);
        page.left = messages.into_iter();
        if let Some(head) = page.left.as_slice().first() {
            self.heads.push(Reverse((head.id, shard)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use super::super::tests::{block_on, id, queued};
    use super::*;

    const PAGE: usize = 4;

    /// What a queue would answer.
    fn page(messages: &[u64], after: Option<QueueId>) -> Vec<Queued> {
        let behind = messages.iter().filter(|number| Some(id(**number)) > after);
        behind.take(PAGE).map(|number| queued(*number)).collect()
    }

    fn merged(shards: &[Vec<u64>]) -> Vec<QueueId> {
        let most = RefCell::new(0);
        let given = RefCell::new(0);
        let mut merge = Merge::new(shards.len(), |shard, after| {
            let page = page(&shards[shard], after);
            *given.borrow_mut() += page.len();
            ready(Ok::<_, ()>(page))
        });
        let mut ids = Vec::new();
        block_on(async {
            while let Some(message) = merge.next().await.unwrap() {
                ids.push(message.id);
                let held = *given.borrow() - ids.len();
                let most = &mut *most.borrow_mut();
                *most = held.max(*most);
            }
        });
        assert!(*most.borrow() <= shards.len() * PAGE);
        ids
    }

    #[test]
    fn every_message_comes_once_and_in_order() {
        let rows: &[(&str, &[&[u64]])] = &[
            ("no shard", &[]),
            ("empty ones", &[&[], &[]]),
            ("one", &[&[1, 2, 3]]),
            ("a page exactly", &[&[1, 2, 3, 4]]),
            ("a page and one", &[&[1, 2, 3, 4, 5]]),
            (
                "one behind the other",
                &[&[10, 11, 12, 13, 14], &[1, 2, 3, 4, 5, 6]],
            ),
            ("in turn", &[&[1, 4, 7], &[2, 5, 8], &[3, 6, 9]]),
            (
                "an empty one between",
                &[&[1, 3], &[], &[2, 4, 5, 6, 7, 8, 9, 10]],
            ),
        ];
        for (name, shards) in rows {
            let shards: Vec<Vec<u64>> = shards.iter().map(|shard| shard.to_vec()).collect();
            let mut expected: Vec<QueueId> =
                shards.concat().iter().map(|number| id(*number)).collect();
            expected.sort_unstable();
            assert_eq!(merged(&shards), expected, "{name}");
        }
    }

    #[test]
    fn random_shards_are_merged() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut shards = vec![Vec::new(); random.usize(1..6)];
            let messages = random.u64(..60);
            for number in 0..messages {
                let shard = random.usize(..shards.len());
                shards[shard].push(number);
            }
            let expected: Vec<QueueId> = (0..messages).map(id).collect();
            assert_eq!(merged(&shards), expected);
        }
    }

    #[test]
    fn a_shard_that_does_not_lead_on_is_left() {
        let mut merge = Merge::new(1, |_, _| {
            ready(Ok::<_, ()>(vec![
                queued(1),
                queued(2),
                queued(3),
                queued(4),
            ]))
        });
        block_on(async {
            for _ in 0..2 * PAGE {
                merge.next().await.unwrap().unwrap();
            }
            assert_eq!(merge.next().await.unwrap(), None);
        });
    }

    #[test]
    fn a_fault_of_one_shard_ends_it() {
        let mut merge = Merge::new(2, |shard, after| {
            ready(match shard {
                0 => Ok(page(&[1, 2, 3, 4, 5, 6], after)),
                _ => Err("gone"),
            })
        });
        block_on(async { assert_eq!(merge.next().await, Err("gone")) });
    }
}
