//! What an attempt comes to: who has the message, who waits, who is to be given up.
//!
//! Apart from the queue because it decides without waiting for anything. A recipient who is to be given up stays
//! deferred until the report about it is safe: a crash before that leads to another attempt, not to a message that
//! vanished.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::attempt::{Left, Tried};
use super::super::events;
use super::super::settings::DeliverySettings;
use super::super::verdict::{Failure, Verdict};
use crate::smtp::status::Status;
use crate::spool::{Accepted, Fate, Progress};

/// An attempt that came to its end, before anything follows from that.
pub(super) struct Judgement {
    /// By the recipient's place in the envelope.
    pub(super) verdicts: Vec<(usize, Verdict)>,
    pub(super) tally: Tally,
    pub(super) left: Left,
}

/// Recipients by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Tally {
    pub(in super::super) delivered: u64,
    pub(in super::super) deferred: u64,
    pub(in super::super) failed: u64,
}

impl Tally {
    /// Nobody was delivered to or given up.
    pub(super) fn is_fruitless(self) -> bool {
        self.delivered == 0 && self.failed == 0
    }
}

impl Judgement {
    /// Of what was tried for a message.
    pub(super) fn of(settings: &DeliverySettings, accepted: &Accepted, tried: Tried) -> Judgement {
        let expired = settings.sending.is_expired(waited(accepted));
        let mut tally = Tally::default();
        let mut verdicts = tried.verdicts;
        for (place, verdict) in &mut verdicts {
            if let Verdict::Deferred(failure) = verdict
                && expired
            {
                // A message that was tried for as long as it may be goes back (RFC 3463 §3.5: delivery time
                // expired).
                failure.status = Status::temporary(4, 7);
                *verdict = Verdict::Failed(failure.clone());
            }
            log(settings, accepted, *place, verdict);
            *match verdict {
                Verdict::Delivered(_) => &mut tally.delivered,
                Verdict::Deferred(_) => &mut tally.deferred,
                Verdict::Failed(_) => &mut tally.failed,
            } += 1;
        }
        Judgement {
            verdicts,
            tally,
            left: tried.left,
        }
    }

    /// Notes what is known. Those to be given up are deferred until [`Judgement::give_up`].
    pub(super) fn note(&self, progress: &mut Progress) {
        for (place, verdict) in &self.verdicts {
            if let Some(fate) = progress.recipients.get_mut(*place) {
                *fate = match verdict {
                    Verdict::Delivered(_) => Fate::Delivered,
                    Verdict::Deferred(failure) | Verdict::Failed(failure) => {
                        Fate::Deferred(reason(failure))
                    }
                };
            }
        }
    }

    /// Those to be given up are: somebody knows, or nobody wants to.
    pub(super) fn give_up(&self, progress: &mut Progress) {
        for (place, verdict) in &self.verdicts {
            if let Verdict::Failed(failure) = verdict
                && let Some(fate) = progress.recipients.get_mut(*place)
            {
                *fate = Fate::Bounced(reason(failure));
            }
        }
    }

    /// Why the first of those to be given up is.
    pub(super) fn first_failure(&self) -> Option<Failure> {
        self.verdicts.iter().find_map(|(_, verdict)| match verdict {
            Verdict::Failed(failure) => Some(failure.clone()),
            Verdict::Delivered(_) | Verdict::Deferred(_) => None,
        })
    }
}

fn log(settings: &DeliverySettings, accepted: &Accepted, place: usize, verdict: &Verdict) {
    let Some(recipient) = accepted.envelope.recipients.get(place) else {
        return;
    };
    events::recipient(&events::Recipient {
        queue_id: accepted.id,
        to: &recipient.as_given,
        target: settings.routes.target(&recipient.domain),
        verdict,
        waited: waited(accepted),
    });
}

/// Since a message came.
pub(super) fn waited(accepted: &Accepted) -> Duration {
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(Duration::from_millis(accepted.arrived_unix_ms))
}

/// A reason is kept with each recipient, and shown in one line.
fn reason(failure: &Failure) -> Box<str> {
    let mut text = failure.to_string();
    let too_long = |(begin, letter): &(usize, char)| begin + letter.len_utf8() > REASON_OCTETS_MAX;
    if let Some((end, _)) = text.char_indices().find(too_long) {
        text.truncate(end);
    }
    text.into()
}

/// Of the reason why a recipient waits: a segment of the spool has room for a message with one for each of its
/// recipients.
const REASON_OCTETS_MAX: usize = 400;
