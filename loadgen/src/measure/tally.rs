//! What one thread measured, and the sum over threads.

use std::time::Duration;

use super::errors::Errors;
use super::stage::Stages;
use super::timeline::Timeline;

/// Everything that is measured in the sessions of a thread, or of all.
///
/// What was due, or begun where nothing is due, before the warm-up ended is not in it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Times.
    pub stages: Stages,
    /// Counts by time.
    pub timeline: Timeline,
    /// How often what went wrong.
    pub errors: Errors,
    /// Sessions that ended as they should: with a reply to QUIT.
    pub sessions: u64,
    /// Sessions among them that the server's LIMITS ended before they had all their messages.
    pub limited: u64,
    /// Messages that were taken for all their recipients.
    pub messages: u64,
    /// Messages that were refused, for one recipient or for all, or lost with their connection.
    pub failed: u64,
    /// Messages that were due and not begun when the run ended.
    pub unsent: u64,
    /// Octets of content of the messages that were taken.
    pub octets: u64,
    /// TLS handshakes.
    pub handshakes: Handshakes,
    /// When the last message got its reply, since what counts began.
    pub last_reply: Duration,
    /// The share of its time that the thread, or the busiest of all, was running, 0 to 1.
    pub busiest_share: f64,
    /// For `--samples`: each message's times, if they are wanted.
    pub samples: Option<Vec<Sample>>,
}

/// How TLS sessions came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Handshakes {
    /// By a full handshake.
    pub full: u64,
    /// Resumed from a ticket.
    pub resumed: u64,
    /// How many of all offered a ticket.
    pub offered: u64,
}

/// The times of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it got its final reply, since the start.
    pub ended: Duration,
    /// From when it was due, in an open loop.
    pub from_due: Option<Duration>,
    /// From when it was sent.
    pub from_sent: Duration,
}

impl Tally {
    /// Adds what another thread measured since the same start.
    pub fn add(&mut self, other: Tally) {
        self.timeline.add(&other.timeline);
        self.add_all_else(other);
    }

    /// Adds what was measured afterwards, in a round that began `seconds` after this one.
    pub fn then(&mut self, later: Tally, seconds: f64) {
        self.timeline.then(&later.timeline, seconds);
        self.add_all_else(later);
    }

    fn add_all_else(&mut self, other: Tally) {
        self.stages.add(&other.stages);
        self.errors.add(other.errors);
        self.sessions += other.sessions;
        self.limited += other.limited;
        self.messages += other.messages;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.octets += other.octets;
        self.handshakes.add(other.handshakes);
        self.last_reply = self.last_reply.max(other.last_reply);
        self.busiest_share = self.busiest_share.max(other.busiest_share);
        if let Some(samples) = other.samples {
            self.samples.get_or_insert_default().extend(samples);
        }
    }
}

impl Handshakes {
    /// Adds others.
    pub fn add(&mut self, other: Handshakes) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.offered += other.offered;
    }
}
