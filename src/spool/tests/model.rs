//! What a log was told and what it promised, to compare with what a recovery finds.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Accepted, Progress, QueueId, RecoveredLog};

/// All messages there ever were.
#[derive(Default)]
pub(super) struct Model {
    messages: BTreeMap<QueueId, Known>,
    has_begun: bool,
    /// Goes up with each thing that happens.
    now: u64,
}

struct Known {
    accepted: Accepted,
    state: State,
    progress: Vec<Progress>,
    /// The index of one that is durable; any behind it may be found instead.
    durable: usize,
}

/// What is to be there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Whole or not at all: handed in, and nothing was heard yet.
    Offered,
    /// The same, up to the next success.
    Refused { at: u64 },
    /// It is there.
    Acknowledged,
    /// It may be there.
    Finishing,
    /// It is not there.
    Gone,
}

/// What was handed in at some time.
pub(super) struct Before {
    progress: BTreeMap<QueueId, usize>,
    finishing: Vec<QueueId>,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn known(&mut self, id: QueueId) -> &mut Known {
        self.messages.get_mut(&id).expect("it was offered")
    }

    /// A message is handed in. Gives the time back.
    pub(super) fn offer(&mut self, accepted: &Accepted) -> u64 {
        let known = Known {
            progress: vec![Progress::begin(accepted.envelope.recipients.len())],
            durable: 0,
            accepted: accepted.clone(),
            state: State::Offered,
        };
        self.messages.insert(accepted.id, known);
        self.tick()
    }

    pub(super) fn refuse(&mut self, id: QueueId) {
        let at = self.tick();
        self.known(id).state = State::Refused { at };
    }

    /// A message that was handed in at `begun` was acknowledged: what was refused before then is out of the log.
    pub(super) fn acknowledge(&mut self, id: QueueId, begun: u64) {
        self.known(id).state = State::Acknowledged;
        for known in self.messages.values_mut() {
            if let State::Refused { at } = known.state
                && at < begun
            {
                known.state = State::Gone;
            }
        }
    }

    pub(super) fn note_progress(&mut self, id: QueueId, progress: Progress) {
        self.known(id).progress.push(progress);
    }

    pub(super) fn note_done(&mut self, id: QueueId) {
        self.known(id).state = State::Finishing;
    }

    /// What a flush that begins now is to cover.
    pub(super) fn before(&self) -> Before {
        let newest = |known: &Known| known.progress.len() - 1;
        let finishing = |known: &Known| known.state == State::Finishing;
        Before {
            progress: self
                .messages
                .iter()
                .map(|(id, known)| (*id, newest(known)))
                .collect(),
            finishing: self
                .messages
                .iter()
                .filter(|(_, known)| finishing(known))
                .map(|(id, _)| *id)
                .collect(),
        }
    }

    /// All of that is durable.
    pub(super) fn flushed(&mut self, before: Before) {
        for (id, newest) in before.progress {
            let known = self.known(id);
            known.durable = known.durable.max(newest);
        }
        for id in before.finishing {
            self.known(id).state = State::Gone;
        }
    }

    /// Messages that are there and stay there.
    pub(super) fn alive(&self) -> Vec<Accepted> {
        let alive = |known: &&Known| known.state == State::Acknowledged;
        self.messages
            .values()
            .filter(alive)
            .map(|known| known.accepted.clone())
            .collect()
    }

    /// Those, and messages of which nothing was heard.
    pub(super) fn perhaps(&self) -> Vec<Accepted> {
        let perhaps = |known: &&Known| match known.state {
            State::Acknowledged | State::Offered => true,
            State::Refused { .. } | State::Finishing | State::Gone => false,
        };
        let perhaps = self.messages.values().filter(perhaps);
        perhaps.map(|known| known.accepted.clone()).collect()
    }

    /// Whether a recovery went well before.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn is_alive(&self, id: QueueId) -> bool {
        self.messages
            .get(&id)
            .is_some_and(|known| known.state == State::Acknowledged)
    }

    /// Compares with what was found. From now on that is how it is.
    pub(super) fn check(&mut self, recovered: &RecoveredLog) {
        self.has_begun = true;
        let mut found = BTreeSet::new();
        for message in &recovered.messages {
            let id = message.accepted.id;
            assert!(found.insert(id), "{id} is there twice");
            let known = self.messages.get_mut(&id).expect("nobody offered it");
            assert!(known.state != State::Gone, "{id} came back");
            assert_eq!(known.accepted, message.accepted);
            let expected = &known.progress[known.durable..];
            let progress = &message.progress;
            assert!(
                expected.contains(progress),
                "{id}: {progress:?}, not one of {expected:?}"
            );
            known.state = State::Acknowledged;
            known.progress = vec![message.progress.clone()];
            known.durable = 0;
        }
        for (id, known) in &mut self.messages {
            if !found.contains(id) {
                assert!(known.state != State::Acknowledged, "{id} is lost");
                known.state = State::Gone;
            }
        }
    }
}
