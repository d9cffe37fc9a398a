//! What a delivery is told: routes, the promise, the schedule.

use std::collections::HashMap;

use super::schedule::RetrySchedule;
use super::target::Target;
use crate::smtp::envelope::Envelope;

/// What 250 to the end of data promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The message is on stable storage.
    Disk,
    /// The message is in memory: fast, and lost with the process.
    None,
}

impl Durability {
    /// Its name, as the flag has it.
    pub const fn label(self) -> &'static str {
        match self {
            Durability::Disk => "disk",
            Durability::None => "none",
        }
    }
}

/// Which target a domain's mail goes to.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Each target once; the first is the default.
    targets: Vec<Target>,
    /// Indices of `targets`.
    by_domain: HashMap<String, usize>,
}

impl Routes {
    /// `default` for every domain that has no target of its own.
    pub fn new(default: Target, by_domain: impl IntoIterator<Item = (String, Target)>) -> Routes {
        let mut targets = vec![default];
        let by_domain = by_domain.into_iter().map(|(domain, target)| {
            let known = targets.iter().position(|known| *known == target);
            let index = known.unwrap_or_else(|| {
                targets.push(target);
                targets.len() - 1
            });
            (domain, index)
        });
        let by_domain = by_domain.collect();
        Routes { targets, by_domain }
    }

    /// How many different targets there are.
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// The target of a domain, in lower case.
    pub fn target(&self, domain: &str) -> &Target {
        let index = self.by_domain.get(domain).copied().unwrap_or(0);
        self.targets.get(index).unwrap_or(&Target::Discard)
    }

    /// The index of the target that a message's first recipient has, among all targets.
    pub fn first_target(&self, envelope: &Envelope) -> usize {
        let first = envelope.recipients.first();
        let index = first.and_then(|recipient| self.by_domain.get(&*recipient.domain));
        index.copied().unwrap_or(0)
    }

    /// Whether nothing of a message goes anywhere.
    pub fn discard_all(&self, envelope: &Envelope) -> bool {
        let mut recipients = envelope.recipients.iter();
        recipients.all(|recipient| *self.target(&recipient.domain) == Target::Discard)
    }
}

/// What deliveries are told.
#[derive(Debug)]
pub struct DeliverySettings {
    /// The name in trace fields and file names.
    pub hostname: String,
    /// Where mail goes.
    pub routes: Routes,
    /// What 250 promises.
    pub durability: Durability,
    /// When what failed is tried again.
    pub schedule: RetrySchedule,
}
