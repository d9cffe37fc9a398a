//! Passes a message on while its sender waits: `--durability next-hop`.
//!
//! ```text
//!  accept ─▶ attempt ──┬─ the next hop took it ─────────────────▶ 250, and nothing is kept here
//!                      ├─ it never will ────────────────────────▶ its refusal, and nothing is kept here
//!                      ├─ not now, or not for all ──▶ commit ───▶ 250, and the queue has the rest
//!                      └─ slower than the sender is to wait ──▶ commit ──▶ 250; the attempt goes on
//! ```
//!
//! What is slow is not begun again: the attempt that the sender did not wait for is the message's first one, and
//! what it comes to is noted like any other. So a slow next hop gets no second copy.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::super::destination::{Destination, Way};
use super::super::target::Target;
use super::super::verdict::Failure;
use super::books::{Begun, Item};
use super::{Ended, Queue};
use crate::smtp::data::MailData;
use crate::spool::{Accepted, CommitError, Progress, Recovered};

/// Why a message is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The next hop will never take it.
    #[error("refused by the next hop: {0}")]
    Refused(Failure),
}

/// What comes of a message whose sender does not wait for the attempt any more.
#[derive(Default)]
struct Fallback {
    decided: Cell<Option<Kept>>,
    told: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

impl Queue {
    /// The one next hop that all of a message goes to, if it is not known to be away, and has not its share of
    /// attempts under way.
    pub(super) fn passes_to(&self, accepted: &Accepted) -> Option<Destination> {
        let inner = &*self.0;
        let recipients = &accepted.envelope.recipients;
        let mut destinations = recipients.iter().map(|recipient| {
            let target = inner.settings.routes.target(&recipient.domain);
            let destination = inner.destinations.of(recipient);
            (*target != Target::Mx && destination.way == Way::Hop).then_some(destination)
        });
        let first = destinations.next()??;
        let all_same = destinations.all(|other| other.is_some_and(|other| other.key == first.key));
        (all_same && inner.books.borrow().may_begin(&first)).then_some(first)
    }

    /// Has a message taken by its next hop while the sender waits, or makes it durable.
    pub(super) async fn pass_on(
        &self,
        to: &Destination,
        accepted: Accepted,
        data: Rc<MailData>,
    ) -> Result<(), AcceptError> {
        let inner = &*self.0;
        let progress = Progress::begin(accepted.envelope.recipients.len());
        let item = Item::new(Recovered { accepted, progress }, None, Some(data));
        let begun = inner.books.borrow_mut().enter_active(item, to);
        let item = Rc::clone(&begun.item);
        let fallback = Rc::<Fallback>::default();
        let (tell, mut told) = oneshot::channel();
        let attempt = self
            .clone()
            .attempt_for_sender(begun, tell, Rc::clone(&fallback));
        inner.passing.borrow_mut().spawn_local(attempt);
        inner.wake.notify_one();
        let patience = inner.settings.sending.next_hop_timeout;
        let ended = match tokio::time::timeout(patience, &mut told).await {
            Ok(ended) => ended.ok(),
            Err(_slow) => {
                told.close();
                told.try_recv().ok()
            }
        };
        let outcome = match ended {
            Some(ended) => return self.passed(&item, ended).await,
            None => self.log_item(&item).await,
        };
        fallback.decide(match outcome {
            Ok(()) => {
                // Meanwhile an operator may have had it held.
                self.note(&item);
                Kept::Yes
            }
            Err(_) => {
                // The sender hears that it has it still, and sends it once more.
                self.drop_item(&item);
                Kept::No
            }
        });
        Ok(outcome?)
    }

    /// An attempt that the sender waits for, and that goes on by itself when that takes too long.
    async fn attempt_for_sender(
        self,
        begun: Begun,
        tell: oneshot::Sender<Ended>,
        fallback: Rc<Fallback>,
    ) {
        let item = Rc::clone(&begun.item);
        let ended = self.attempt_once(begun).await;
        let Err(ended) = tell.send(ended) else {
            return;
        };
        match fallback.decision().await {
            Kept::Yes => self.settle(&item, ended).await,
            Kept::No => self.call_off(&item, ended),
        }
    }

    /// An attempt that the sender waited for came to its end.
    async fn passed(&self, item: &Rc<Item>, ended: Ended) -> Result<(), AcceptError> {
        let recipients = item.accepted.envelope.recipients.len();
        let tally = ended.judgement.tally;
        let all = u64::try_from(recipients).unwrap_or(u64::MAX);
        if tally.failed == all
            && let Some(failure) = ended.judgement.first_failure()
        {
            self.call_off(item, ended);
            return Err(AcceptError::Refused(failure));
        }
        if tally.delivered < all
            && let Err(error) = self.log_item(item).await
        {
            self.call_off(item, ended);
            return Err(error.into());
        }
        self.settle(item, ended).await;
        Ok(())
    }

    /// The message is not ours; what the attempt found out about the next hop is.
    fn call_off(&self, item: &Rc<Item>, ended: Ended) {
        self.drop_item(item);
        self.leg_ended(item, ended.token, ended.news);
    }
}

impl Fallback {
    fn decide(&self, kept: Kept) {
        self.decided.set(Some(kept));
        self.told.notify_one();
    }

    async fn decision(&self) -> Kept {
        loop {
            match self.decided.get() {
                Some(kept) => return kept,
                None => self.told.notified().await,
            }
        }
    }
}
