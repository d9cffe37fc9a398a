//! One mail transaction: the envelope as it grows, and the message as it comes in
//! (RFC 5321 §3.3).
//!
//! Apart from the session because what is kept of a message, and why nothing is, is the same for
//! DATA and BDAT. Invariants:
//! - What is refused is not kept, and is read to its end all the same.
//! - The size of a message is counted whether or not it is kept, so the verdict does not depend on
//!   how the octets were cut.

use std::sync::Arc;
use std::time::Instant;

use super::replies;
use super::settings::Settings;
use crate::smtp::command::Mail;
use crate::smtp::data::MailData;
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
    /// Octets of mail data so far.
    pub(super) octets: u64,
    /// Octets the chunk under way was announced with.
    pub(super) chunk_octets: u64,
    /// `Received:` fields of chunks; [`crate::smtp::end_of_data::EndOfData`] counts those of DATA.
    pub(super) chunk_hops: Hops,
    octets_max: u64,
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
    /// All of it.
    All(MailData),
    /// Nothing: it is over the limit, or there was no memory.
    Nothing,
}

/// What the end of data showed besides the octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) hops: u32,
    pub(super) stray_newline: StrayNewlineFound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StrayNewlineFound {
    No,
    /// One that makes the message refused.
    Refused,
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
            kept: Kept::All(MailData::new(
                &settings.budget,
                mail.parameters.declared_octets,
            )),
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
            self.kept = Kept::Nothing;
        }
    }

    /// Takes mail data.
    pub(super) fn take(&mut self, octets: &[u8]) {
        self.octets = self.octets.saturating_add(octets.len() as u64);
        if self.octets > self.octets_max {
            self.kept = Kept::Nothing;
        }
        match &mut self.kept {
            Kept::All(data) => {
                if data.push(octets).is_err() {
                    self.kept = Kept::Nothing;
                }
            }
            Kept::Nothing => {}
        }
    }

    /// Takes mail data of a chunk.
    pub(super) fn take_chunk(&mut self, octets: &[u8]) {
        self.chunk_hops.read(octets);
        self.take(octets);
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
            Kept::All(_) => None,
            Kept::Nothing => Some(replies::MEMORY_SPENT),
        }
    }

    /// The whole message. Nothing if it was not kept, for which [`Transaction::refusal`] has the
    /// reason.
    pub(super) fn into_message(self) -> Option<(Arc<Envelope>, MailData)> {
        match self.kept {
            Kept::All(data) => Some((Arc::new(self.envelope), data)),
            Kept::Nothing => None,
        }
    }
}

/// `Received:` fields a message may have (RFC 5321 §6.3: at least 100).
const HOPS_MAX: u32 = 100;
