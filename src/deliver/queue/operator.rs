//! What an operator has done to the queue: `ringpost queue`.

use std::rc::Rc;

use super::Queue;
use super::books::{Item, Standing};
use super::request::{QueueState, Queued, Reply, Request};
use crate::spool::{Held, QueueId};

impl Queue {
    /// Does what an operator asks for. What is held, released or removed is so on stable storage when this returns.
    pub async fn answer(&self, request: Request) -> Reply {
        let find = |id| self.0.books.borrow().find(id);
        let (id, change): (QueueId, Change) = match request {
            Request::List { after, count } => return Reply::Listed(self.list(after, count)),
            Request::Show(id) => {
                return Reply::Shown(
                    find(id).map(|item| Box::new(self.0.books.borrow().shown(&item))),
                );
            }
            Request::RetryAll => return Reply::Done(self.retry_all().await),
            Request::Retry(id) => (id, Queue::retry),
            Request::Remove(id) => (id, Queue::remove),
            Request::Hold(id) => (id, Queue::hold),
            Request::Release(id) => (id, Queue::release),
        };
        let Some(item) = find(id) else {
            return Reply::Done(0);
        };
        // Removed, it is in no log any more.
        let log = self.log_of(&item).cloned();
        match change(self, &item) {
            Changed::Not(state) => return Reply::Passed(state),
            Changed::InMemory => {}
            Changed::Noted => {
                if let Some(log) = log {
                    log.flush().await;
                }
            }
        }
        self.0.wake.notify_one();
        Reply::Done(1)
    }

    fn list(&self, after: Option<QueueId>, count: usize) -> Vec<Queued> {
        let books = self.0.books.borrow();
        let mut recipients = 0;
        let page = books.behind(after).take(count).take_while(|item| {
            let room = recipients < PAGE_RECIPIENTS;
            recipients += item.accepted.envelope.recipients.len();
            room
        });
        page.map(|item| books.shown(item)).collect()
    }

    /// In steps: a million messages are not to keep the sessions waiting.
    async fn retry_all(&self) -> usize {
        let (mut after, mut count) = (None, 0);
        loop {
            let step: Vec<_> = {
                let books = self.0.books.borrow();
                books.behind(after).take(STEP_MESSAGES).cloned().collect()
            };
            let Some(last) = step.last() else {
                return count;
            };
            after = Some(last.id());
            let hurried = step.iter().map(|item| self.retry(item));
            count += hurried
                .filter(|changed| *changed == Changed::InMemory)
                .count();
            self.0.wake.notify_one();
            tokio::task::yield_now().await;
        }
    }

    fn retry(&self, item: &Rc<Item>) -> Changed {
        if item.progress.borrow().held == Held::Yes {
            return Changed::Not(QueueState::Held);
        }
        let mut books = self.0.books.borrow_mut();
        match item.standing() {
            Standing::Due(_) | Standing::Ready => books.hurry(item),
            Standing::Active => books.again(item),
            Standing::ActiveAgain => {}
            Standing::Held => return Changed::Not(QueueState::Held),
            Standing::Gone => return Changed::Not(QueueState::Active),
        }
        Changed::InMemory
    }

    fn remove(&self, item: &Rc<Item>) -> Changed {
        self.forget(item);
        Changed::Noted
    }

    fn hold(&self, item: &Rc<Item>) -> Changed {
        item.progress.borrow_mut().held = Held::Yes;
        self.note(item);
        match item.standing() {
            Standing::Ready | Standing::Due(_) => {
                self.0.books.borrow_mut().stand_held(item);
                item.forget_data();
            }
            // It is held behind the attempt that is under way.
            Standing::Active | Standing::ActiveAgain | Standing::Held | Standing::Gone => {}
        }
        Changed::Noted
    }

    fn release(&self, item: &Rc<Item>) -> Changed {
        if item.progress.borrow().held == Held::No {
            return Changed::Not(self.0.books.borrow().shown(item).state);
        }
        item.progress.borrow_mut().held = Held::No;
        self.note(item);
        let mut books = self.0.books.borrow_mut();
        match item.standing() {
            Standing::Held => books.stand_ready(item),
            Standing::Active => books.again(item),
            Standing::Ready | Standing::Due(_) | Standing::ActiveAgain | Standing::Gone => {}
        }
        Changed::Noted
    }
}

/// What is done to one message.
type Change = fn(&Queue, &Rc<Item>) -> Changed;

/// What came of an operator's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    /// Nothing, since the message stands so.
    Not(QueueState),
    /// When its turn is.
    InMemory,
    /// What its log is to know.
    Noted,
}

/// A page ends behind so many recipients: what a shard tells between two steps of its sessions.
const PAGE_RECIPIENTS: usize = 4096;

/// Messages of one step through the whole queue.
const STEP_MESSAGES: usize = 256;
