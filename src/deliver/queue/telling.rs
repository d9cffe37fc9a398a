//! Tells senders what became of their messages: reports (RFC 3464), as messages of their own in this queue.
//!
//! A recipient is given up only behind this: the report is in the spool, or nobody is to get one. Should it not be
//! possible to keep the report, the recipient is tried again, and the report with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::content::Source;
use super::super::report::{self, Diagnostic, Kind, Original, Report, Reported};
use super::super::verdict::{Arrival, Failure, Verdict};
use super::Queue;
use super::books::{Item, unix_ms};
use super::judgement::{Judgement, waited};
use crate::smtp::data::{BudgetSpent, MailData};
use crate::smtp::dsn::{MailDsn, Ret};
use crate::smtp::envelope::{Envelope, Recipient};
use crate::smtp::path;
use crate::smtp::status::Status;
use crate::spool::{Accepted, CommitError, Fate};

/// Why a report could not be kept.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Memory(#[from] BudgetSpent),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Whether the sender was told, or will never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Sender,
    Nobody,
}

impl Queue {
    /// Tells the sender who has the message and who never will, and gives those up.
    pub(super) async fn tell_ends(&self, item: &Item, judgement: &Judgement, source: &Source) {
        let verdicts = &judgement.verdicts;
        if judgement.tally.failed > 0 && self.tell(Kind::Failure, verdicts, source).await.is_ok() {
            judgement.give_up(&mut item.progress.borrow_mut());
            self.0.meters.gave_up(judgement.tally.failed);
        }
        if judgement.tally.delivered > 0 {
            // Should there be no room for it, there is none: the message has arrived.
            let _ = self.tell(Kind::Success, verdicts, source).await;
        }
    }

    /// Tells the sender once who has not got the message yet, when that takes long.
    pub(super) async fn tell_delay(&self, item: &Item, source: &Source) -> Told {
        let is_late = (self.0.settings.sending).is_late(waited(&source.accepted));
        if !is_late || item.progress.borrow().delay_notified {
            return Told::Nobody;
        }
        let late: Vec<_> = {
            let progress = item.progress.borrow();
            let fates = progress.recipients.iter().enumerate();
            let late = fates.filter_map(|(place, fate)| match fate {
                Fate::Deferred(reason) => {
                    let failure = Failure::ours(Status::temporary(0, 0), reason.clone());
                    Some((place, Verdict::Deferred(failure)))
                }
                Fate::Waiting | Fate::Delivered | Fate::Bounced(_) => None,
            });
            late.collect()
        };
        if late.is_empty() || self.tell(Kind::Delay, &late, source).await.is_err() {
            return Told::Nobody;
        }
        item.progress.borrow_mut().delay_notified = true;
        Told::Sender
    }

    /// Keeps a report of this kind, if anybody wants one.
    async fn tell(
        &self,
        kind: Kind,
        verdicts: &[(usize, Verdict)],
        source: &Source,
    ) -> Result<(), TellError> {
        let outcome = self.try_to_tell(kind, verdicts, source).await;
        if let Err(error) = &outcome {
            let (queue_id, kind) = (source.accepted.id, kind.label());
            tracing::warn!(%queue_id, kind, %error, "report to the sender not kept");
        }
        outcome
    }

    async fn try_to_tell(
        &self,
        kind: Kind,
        verdicts: &[(usize, Verdict)],
        source: &Source,
    ) -> Result<(), TellError> {
        let accepted = &source.accepted;
        let judged = verdicts.iter().map(|(place, verdict)| (*place, verdict));
        let wanted = report::wanted(kind, accepted, judged);
        let Some(to) = (!wanted.is_empty())
            .then(|| self.sender(accepted))
            .flatten()
        else {
            return Ok(());
        };
        let now = SystemTime::now();
        let now_unix_seconds = seconds(unix_ms(now));
        let lifetime = self.0.settings.sending.queue_lifetime;
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let given_up = seconds(accepted.arrived_unix_ms.saturating_add(lifetime));
        let by_place: HashMap<_, _> = verdicts
            .iter()
            .map(|(place, verdict)| (*place, verdict))
            .collect();
        let mut recipients = Vec::with_capacity(wanted.len());
        for (place, action) in wanted {
            let recipient = accepted.envelope.recipients.get(place);
            let verdict = by_place.get(&place);
            let (Some(recipient), Some(verdict)) = (recipient, verdict) else {
                continue;
            };
            let (failure, hop) = match verdict {
                Verdict::Deferred(failure) | Verdict::Failed(failure) => {
                    (Some(failure), failure.hop.as_deref())
                }
                Verdict::Delivered(Arrival::Passed { hop } | Arrival::Relayed { hop }) => {
                    (None, Some(&**hop))
                }
                Verdict::Delivered(Arrival::Final) => (None, None),
            };
            recipients.push(Reported {
                recipient,
                action,
                status: failure.map_or(action.status(), |failure| failure.status),
                remote_mta: hop,
                diagnostic: failure.map(Diagnostic::of),
                text: failure.map_or("", |failure| &failure.text),
                last_attempt_unix_seconds: Some(now_unix_seconds),
                retry_until_unix_seconds: Some(given_up),
            });
        }
        let mut ret = report::returned(kind, accepted);
        loop {
            let original = self.original(ret, source).await;
            let report = Report {
                kind,
                accepted,
                hostname: &self.0.settings.hostname,
                recipients: recipients.clone(),
                original: match ret {
                    Ret::Full => Original::Full(&original),
                    Ret::Headers => Original::Headers(&original),
                },
                id: self.0.ids.next(now),
                now_unix_seconds,
            };
            match self.keep_report(&report, to.clone()).await {
                // A small segment has no room for the message that comes back.
                Err(TellError::Commit(CommitError::EnvelopeTooLarge)) if ret == Ret::Full => {
                    ret = Ret::Headers;
                }
                outcome => return outcome,
            }
        }
    }

    async fn keep_report(&self, report: &Report<'_>, to: Recipient) -> Result<(), TellError> {
        let envelope = Envelope {
            reverse_path: None,
            recipients: vec![to],
            body: report.body(),
            smtputf8: report.needs_smtputf8(),
            declared_octets: None,
            dsn: MailDsn::default(),
        };
        let octets = report.build();
        let mut data = MailData::new(&self.0.budget, u64::try_from(octets.len()).ok());
        data.push(&octets)?;
        let told = Accepted {
            id: report.id,
            arrived_unix_ms: unix_ms(SystemTime::now()),
            envelope: Arc::new(envelope),
            received: [].into(),
            data_octets: data.len(),
            data_crc: data.crc32c(),
        };
        self.keep_our_own(told, data).await?;
        let (queue_id, id, kind) = (report.accepted.id, report.id, report.kind.label());
        tracing::info!(%queue_id, report = %id, kind, "report to the sender");
        Ok(())
    }

    /// Who is told.
    fn sender(&self, accepted: &Accepted) -> Option<Recipient> {
        let reverse_path = accepted.envelope.reverse_path.as_deref()?;
        let path = format!("<{reverse_path}>");
        let (path, _) = path::forward_path(&path).ok()?;
        Some(Recipient::new(&path, &self.0.settings.hostname))
    }

    /// What of the message goes back.
    async fn original(&self, ret: Ret, source: &Source) -> Vec<u8> {
        let mut octets = source.accepted.received.to_vec();
        // Without what cannot be read a report still tells what happened.
        if let Ok(mut content) = source.content().await {
            while let Ok(Some(part)) = content.next().await {
                let begin = octets.len().saturating_sub(END_OF_HEADER.len());
                octets.extend_from_slice(&part);
                let rest = octets.get(begin..).unwrap_or_default();
                let in_header = memchr::memmem::find(rest, END_OF_HEADER).is_none();
                if ret == Ret::Headers && (!in_header || octets.len() > HEADER_OCTETS_MAX) {
                    break;
                }
            }
        }
        octets
    }
}

fn seconds(unix_ms: u64) -> i64 {
    let seconds = Duration::from_millis(unix_ms).as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// An empty line.
const END_OF_HEADER: &[u8] = b"\r\n\r\n";

/// Of a header section that goes back.
const HEADER_OCTETS_MAX: usize = 64 * 1024;
