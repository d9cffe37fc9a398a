//! Messages as transactions: what is sent to whom, and why it was not taken.
//!
//! Invariant: what all messages of a run have in common is made once, for each place that sends.

use std::cell::RefCell;
use std::sync::Arc;

use rand::rngs::SmallRng;
use ringpost::smtp::client::{
    After, ContentFacts, Outcome, RecipientOutcome, Transaction, TransactionRecipient,
};
use ringpost::smtp::dsn::{MailDsn, RcptDsn};
use ringpost::smtp::envelope::Body;

use super::link::{Link, LinkError};
use crate::measure::ErrorKind;
use crate::plan::Plan;

/// Makes transactions.
pub(super) struct Sender {
    plan: Arc<Plan>,
    transaction: Transaction,
    head: Vec<u8>,
    octets: u64,
}

impl Sender {
    /// For this plan.
    pub(super) fn new(plan: &Arc<Plan>) -> Sender {
        let recipients = plan.envelope.recipients.iter();
        Sender {
            plan: Arc::clone(plan),
            transaction: Transaction {
                reverse_path: Some(plan.envelope.sender.as_str().into()),
                recipients: recipients
                    .map(|path| TransactionRecipient {
                        path: path.as_str().into(),
                        dsn: RcptDsn::default(),
                    })
                    .collect(),
                octets: 0,
                body: Body::SevenBit,
                smtputf8: false,
                dsn: MailDsn::default(),
                facts: None,
            },
            head: Vec::new(),
            octets: 0,
        }
    }

    /// Octets of the last message.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Sends the message of this number over a connection.
    pub(super) async fn send(
        &mut self,
        link: &mut Link,
        number: u64,
        random: &RefCell<SmallRng>,
    ) -> Result<Outcome, LinkError> {
        let mail = &self.plan.mail;
        let message = mail.message(number, &mut random.borrow_mut(), &mut self.head);
        self.octets = message.octets();
        self.transaction.octets = self.octets;
        self.transaction.body = body(&message.facts);
        self.transaction.smtputf8 = message.facts.has_utf8_header;
        self.transaction.facts = Some(message.facts);
        link.send(&self.transaction, &message).await
    }
}

fn body(facts: &ContentFacts) -> Body {
    match facts {
        ContentFacts {
            fits_data: false, ..
        } => Body::BinaryMime,
        ContentFacts {
            is_seven_bit: true, ..
        } => Body::SevenBit,
        ContentFacts { .. } => Body::EightBitMime,
    }
}

/// Why a message was not taken for all its recipients, if it was not.
pub(super) fn refusal(outcome: &Outcome) -> Option<(ErrorKind, &str)> {
    let mut recipients = outcome.recipients.iter();
    let refused = recipients.find_map(|recipient| match recipient {
        RecipientOutcome::Accepted { .. } => None,
        RecipientOutcome::Refused(reply) => Some((ErrorKind::Reply(reply.code), &*reply.text)),
        RecipientOutcome::Unsent(failure) => Some((ErrorKind::of(failure), &*failure.text)),
    });
    match &outcome.after {
        After::Over(failure) if outcome.recipients.is_empty() => {
            Some((ErrorKind::of(failure), &*failure.text))
        }
        After::Ready | After::Over(_) => refused,
    }
}
