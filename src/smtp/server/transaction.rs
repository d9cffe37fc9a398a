//! One mail transaction: the envelope as it grows, and the message as it comes in
//! (RFC 5321 §3.3).
//!
//! Apart from the session because what is kept of a message, and why nothing is, is the same for
//! DATA and BDAT. Invariants:
//! - What is refused is not kept, and is read to its end all the same.
//! - The size of a message is counted whether or not it is kept, so the verdict does not depend on
//!   how the octets were cut.
//! - Nor does the place where a part of a message ends that is to be put away: no more is taken at
//!   once than up to the next octet that may be the last of one.
//!
//! ```text
//! put away before │ part in memory │ this input, cut at every `|` │ the rest of it
//!  stored_octets  │      part      │ ░░░░░░░░░|░░░░|░░|░|         │  stays with the caller
//!                                                      ^ part is due
//! ```

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::replies;
use super::settings::Settings;
use crate::smtp::chunk::Chunk;
use crate::smtp::command::Mail;
use crate::smtp::data::MailData;
use crate::smtp::end_of_data::{EndOfData, Progress};
use crate::smtp::envelope::Envelope;
use crate::smtp::hops::Hops;
use crate::smtp::reply::Reply;

/// From MAIL to its final reply.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Envelope,
    /// When MAIL was accepted.
    pub(super) started: Instant,
    /// Whether a RCPT was refused: what DATA says without recipients depends on it.
    pub(super) recipients_refused: RecipientsRefused,
    /// Octets of mail data so far, kept or not.
    pub(super) octets: u64,
    /// Octets the chunk under way was announced with.
    pub(super) chunk_octets: u64,
    /// `Received:` fields of chunks; [`EndOfData`] counts those of DATA.
    chunk_hops: Hops,
    octets_max: u64,
    part_octets_max: u64,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecipientsRefused {
    None,
    Some,
}

/// What is kept of the mail data.
#[derive(Debug)]
enum Kept {
    /// All of it: so many octets put away, and behind them those in memory.
    All { stored_octets: u64, part: MailData },
    /// Nothing, for the reason that this reply gives.
    Nothing(Reply),
}

/// What the mail data showed besides its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    hops: u32,
    stray_newline: StrayNewlineFound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StrayNewlineFound {
    No,
    /// One that makes the message refused.
    Refused,
}

impl From<&EndOfData> for Findings {
    fn from(end_of_data: &EndOfData) -> Findings {
        Findings {
            hops: end_of_data.hops(),
            stray_newline: if end_of_data.is_refused() {
                StrayNewlineFound::Refused
            } else {
                StrayNewlineFound::No
            },
        }
    }
}

impl Transaction {
    /// The transaction an accepted MAIL opens.
    pub(super) fn new(mail: &Mail<'_>, settings: &Settings, now: Instant) -> Transaction {
        let octets_max = settings.limits.message_octets_max;
        Transaction {
            envelope: Envelope::new(mail),
            started: now,
            recipients_refused: RecipientsRefused::None,
            octets: 0,
            chunk_octets: 0,
            chunk_hops: Hops::new(),
            octets_max,
            // A part has an octet, or there would be no end of empty ones.
            part_octets_max: settings.limits.message_memory_octets_max.max(1),
            kept: Kept::All {
                stored_octets: 0,
                part: MailData::new(&settings.budget, mail.parameters.declared_octets),
            },
        }
    }

    /// What DATA or BDAT gets without a recipient.
    pub(super) fn recipients_missing(&self) -> Option<Reply> {
        match (self.envelope.recipients.is_empty(), self.recipients_refused) {
            (false, RecipientsRefused::None | RecipientsRefused::Some) => None,
            (true, RecipientsRefused::None) => Some(replies::RCPT_MISSING),
            (true, RecipientsRefused::Some) => Some(replies::NO_RECIPIENTS),
        }
    }

    /// Hears that a chunk of so many octets comes. One that will be refused for its size takes no
    /// memory before.
    pub(super) fn announce(&mut self, octets: u64) {
        self.chunk_octets = octets;
        if self.octets.saturating_add(octets) > self.octets_max {
            self.kept = Kept::Nothing(replies::TOO_LARGE);
        }
    }

    /// Takes mail data behind 354: all input up to its end, or up to where a part is due.
    pub(super) fn receive(&mut self, end_of_data: &mut EndOfData, input: &mut &[u8]) -> Progress {
        let whole: &[u8] = input;
        let mut piece = first(whole, self.input_octets_max());
        let octets_before = piece.len();
        let progress = end_of_data.receive(&mut piece, |run| self.take(run));
        let octets = octets_before - piece.len();
        *input = whole.get(octets..).unwrap_or_default();
        self.forget_if_refused(Findings::from(&*end_of_data));
        progress
    }

    /// Takes mail data of a chunk: all input up to its end, or up to where a part is due.
    pub(super) fn receive_chunk(&mut self, chunk: &mut Chunk, input: &mut &[u8]) {
        let whole: &[u8] = input;
        let mut piece = first(whole, self.octets_before_look());
        let octets = chunk.take(&mut piece);
        *input = whole.get(octets.len()..).unwrap_or_default();
        self.chunk_hops.read(octets);
        self.take(octets);
        self.forget_if_refused(self.chunk_findings());
    }

    /// What the chunks so far showed. Newlines mean nothing in them (RFC 3030 §2).
    pub(super) fn chunk_findings(&self) -> Findings {
        Findings {
            hops: self.chunk_hops.count(),
            stray_newline: StrayNewlineFound::No,
        }
    }

    fn take(&mut self, octets: &[u8]) {
        self.octets = self.octets.saturating_add(octets.len() as u64);
        if self.octets > self.octets_max {
            self.kept = Kept::Nothing(replies::TOO_LARGE);
        }
        match &mut self.kept {
            Kept::All { part, .. } => {
                if part.push(octets).is_err() {
                    self.kept = Kept::Nothing(replies::MEMORY_SPENT);
                }
            }
            Kept::Nothing(_) => {}
        }
    }

    fn forget_if_refused(&mut self, findings: Findings) {
        if let Some(reply) = self.refusal(findings) {
            self.kept = Kept::Nothing(reply);
        }
    }

    /// Whether the part in memory is to be put away before more is taken.
    fn is_part_due(&self) -> bool {
        match &self.kept {
            Kept::All { part, .. } => {
                part.len() >= self.part_octets_max
                    || (part.len() >= TIGHT_PART_OCTETS && part.is_budget_tight())
            }
            Kept::Nothing(_) => false,
        }
    }

    /// How many octets of the message may come before [`Transaction::is_part_due`] is to be asked
    /// again: up to the first that can change what it says.
    fn octets_before_look(&self) -> u64 {
        if self.is_part_due() {
            return 0;
        }
        match &self.kept {
            Kept::All { part, .. } => {
                let by_size = self.part_octets_max - part.len();
                let by_budget = match TIGHT_PART_OCTETS.saturating_sub(part.len()) {
                    // From here on the budget counts, and the next block may make it tight.
                    0 => part.room().max(1),
                    octets => octets,
                };
                by_size.min(by_budget)
            }
            Kept::Nothing(_) => u64::MAX,
        }
    }

    /// The same in octets behind 354, which hand on twice as many if each is a stray LF, and one
    /// more if a CR was withheld before them (see [`EndOfData`]).
    fn input_octets_max(&self) -> u64 {
        match self.octets_before_look() {
            0 => 0,
            octets => ((octets - 1) / 2).max(1),
        }
    }

    /// The part in memory, if it is to be put away before more is taken. After it comes
    /// [`Transaction::stored`].
    pub(super) fn due_part(&mut self) -> Option<Box<MailData>> {
        if !self.is_part_due() {
            return None;
        }
        match &mut self.kept {
            Kept::All { part, .. } => {
                let behind = part.continuing();
                Some(Box::new(mem::replace(part, behind)))
            }
            Kept::Nothing(_) => None,
        }
    }

    /// Hears that the part of [`Transaction::due_part`] was put away.
    pub(super) fn stored(&mut self) {
        match &mut self.kept {
            // What is not in memory now is there.
            Kept::All {
                stored_octets,
                part,
            } => *stored_octets = self.octets.saturating_sub(part.len()),
            Kept::Nothing(_) => {}
        }
    }

    /// Hears that nothing of the message is to be kept any more, and what it gets at its end.
    pub(super) fn forget(&mut self, reply: Reply) {
        self.kept = Kept::Nothing(reply);
    }

    /// Octets put away that are still of use.
    pub(super) fn stored_octets(&self) -> u64 {
        match self.kept {
            Kept::All { stored_octets, .. } => stored_octets,
            Kept::Nothing(_) => 0,
        }
    }

    /// Why the message cannot be accepted, as far as it has come. What is the message's fault goes
    /// before what is ours: a client that tries again would fail again.
    pub(super) fn refusal(&self, findings: Findings) -> Option<Reply> {
        if self.octets > self.octets_max {
            return Some(replies::TOO_LARGE);
        }
        match findings.stray_newline {
            StrayNewlineFound::Refused => return Some(replies::STRAY_NEWLINE),
            StrayNewlineFound::No => {}
        }
        if findings.hops > HOPS_MAX {
            return Some(replies::LOOP);
        }
        match self.kept {
            Kept::All { .. } => None,
            Kept::Nothing(reply) => Some(reply),
        }
    }

    /// The whole message: its envelope, how much of it was put away, and what follows that. Nothing
    /// if it was not kept, for which [`Transaction::refusal`] has the reason.
    pub(super) fn into_message(self) -> Option<(Arc<Envelope>, u64, MailData)> {
        match self.kept {
            Kept::All {
                stored_octets,
                part,
            } => Some((Arc::new(self.envelope), stored_octets, part)),
            Kept::Nothing(_) => None,
        }
    }
}

/// At most so many octets of `input`.
fn first(input: &[u8], octets_max: u64) -> &[u8] {
    let octets_max = usize::try_from(octets_max).unwrap_or(usize::MAX);
    input.get(..octets_max).unwrap_or(input)
}

/// The least that is put away because the budget is tight: the largest first block. Below it a write
/// costs more than the memory is worth.
const TIGHT_PART_OCTETS: u64 = 16 * 1024;

/// `Received:` fields a message may have (RFC 5321 §6.3: at least 100).
const HOPS_MAX: u32 = 100;
