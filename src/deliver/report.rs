//! Delivery status notifications as messages: what bounced, what is late, what arrived (RFC 3464, RFC 6522, RFC 6533).
//!
//! ```text
//!  multipart/report ─┬─ text/plain                text for people       (`people`)
//!                    ├─ message/delivery-status   the same as fields    (`fields`)
//!                    └─ message/rfc822, or        the message, or its   (`original`)
//!                       text/rfc822-headers       header section
//! ```
//!
//! Apart from the queue because here what peers said goes into a message of ours.
//! Invariants:
//! - A null reverse-path gets no report, ever (RFC 5321 §6.1).
//! - Nothing a peer said (reply, ENVID, ORCPT, header) ends a line, begins a field, or passes for a boundary.
//! - Every line ends in CR LF and has at most 998 octets before it.
//! - An embedded message has the octets that it would have been passed on with, never encoded (RFC 2046 §5.2.1).
//!   What cannot be embedded so, for stray newlines, NULs or overlong lines, is reported with its header alone.
//!
//! It does not promise that a report stays within seven bits: [`Report::body`] and [`Report::needs_smtputf8`] say.
//! Knows messages and verdicts; knows no socket, queue or disk.

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::text::Text;
use mail_builder::mime::MimePart;
use memchr::memmem;

use self::fields::Charset;
use self::original::Returned;
use super::verdict::{Arrival, Failure, Said, Verdict};
use crate::smtp::dsn::Ret;
use crate::smtp::envelope::{Body, Recipient};
use crate::smtp::status::{Class, Status};
use crate::spool::{Accepted, QueueId};

mod fields;
mod original;
mod people;
#[cfg(test)]
mod tests;

/// What is told to the sender of a message.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What about.
    pub kind: Kind,
    /// The message.
    pub accepted: &'a Accepted,
    /// Our name.
    pub hostname: &'a str,
    /// What became of whom.
    pub recipients: Vec<Reported<'a>>,
    /// What goes back.
    pub original: Original<'a>,
    /// The report's own name.
    pub id: QueueId,
    /// Now.
    pub now_unix_seconds: i64,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Recipients that will not get the message.
    Failure,
    /// Recipients that have not got it yet.
    Delay,
    /// Recipients that have got it, as far as we know.
    Success,
}

/// What a report says of one recipient.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// Whom.
    pub recipient: &'a Recipient,
    /// What happened.
    pub action: Action,
    /// The same as a code, of the class that the action has.
    pub status: Status,
    /// The next hop that said so, if it came to one: a name or an address, with or without a port.
    pub remote_mta: Option<&'a str>,
    /// The words behind the status, for programs.
    pub diagnostic: Option<Diagnostic<'a>>,
    /// The reason, for people; not looked at for what was delivered or relayed.
    pub text: &'a str,
    /// When it was tried last.
    pub last_attempt_unix_seconds: Option<i64>,
    /// When it will be given up; only looked at for what is delayed.
    pub retry_until_unix_seconds: Option<i64>,
}

/// What happened for a recipient (RFC 3464 §2.3.3). "expanded" is not among them: we have no lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet, and still tried.
    Delayed,
    /// In its mailbox.
    Delivered,
    /// At a next hop that knows no reports.
    Relayed,
}

impl Kind {
    /// For the log.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Failure => "failure",
            Kind::Delay => "delay",
            Kind::Success => "success",
        }
    }
}

impl Action {
    /// The status of it, where nobody said one.
    pub fn status(self) -> Status {
        match self {
            Action::Failed => Status::permanent(0, 0),
            Action::Delayed => Status::temporary(0, 0),
            Action::Delivered | Action::Relayed => Status::new(Class::Success, 0, 0),
        }
    }
}

/// The words behind a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnostic<'a> {
    /// A reply in SMTP or LMTP, with its code.
    Smtp(&'a str),
    /// Ours.
    Ours(&'a str),
}

/// What is at hand of the message: its octets as they would be passed on, our Received field in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original<'a> {
    /// All of them. The report may still take the header section alone.
    Full(&'a [u8]),
    /// Those of the header section; what follows its empty line is not looked at.
    Headers(&'a [u8]),
}

/// Which recipients a report of this kind is for, by their index in the envelope, and what it says of them.
///
/// `verdicts` are those that came since the last report of this kind, each with the recipient's index. By NOTIFY
/// (RFC 3461 §4.1): without it failures and delays are reported, and nothing is under NEVER. A success that went to a
/// next hop which reports itself is that one's to report (§5.2.1); one that does not makes it "relayed" (§5.2.2).
pub fn wanted<'v>(
    kind: Kind,
    accepted: &Accepted,
    verdicts: impl IntoIterator<Item = (usize, &'v Verdict)>,
) -> Vec<(usize, Action)> {
    let envelope = &accepted.envelope;
    if envelope.reverse_path.is_none() {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for (index, verdict) in verdicts {
        let Some(recipient) = envelope.recipients.get(index) else {
            continue;
        };
        let (asked, action) = match (kind, verdict) {
            (Kind::Failure, Verdict::Failed(_)) => (recipient.dsn.wants_failure(), Action::Failed),
            (Kind::Delay, Verdict::Deferred(_)) => (recipient.dsn.wants_delay(), Action::Delayed),
            (Kind::Success, Verdict::Delivered(arrival)) => {
                let action = match arrival {
                    Arrival::Final => Action::Delivered,
                    Arrival::Relayed { .. } => Action::Relayed,
                    Arrival::Passed { .. } => continue,
                };
                (recipient.dsn.wants_success(), action)
            }
            (Kind::Failure, Verdict::Delivered(_) | Verdict::Deferred(_))
            | (Kind::Delay, Verdict::Delivered(_) | Verdict::Failed(_))
            | (Kind::Success, Verdict::Deferred(_) | Verdict::Failed(_)) => continue,
        };
        if asked {
            wanted.push((index, action));
        }
    }
    wanted
}

/// How much of a message a report of this kind takes: what is worth reading for it.
///
/// The whole of it only for a failure (RFC 3461 §4.3). Where RET leaves it to us, a short message goes back whole, and
/// of a long one the header section: who has it knows it by that, and who never wrote it is spared the rest. Nobody
/// can have more held in memory than [`RETURNED_OCTETS_MAX`], whatever RET says: a request, not an order.
pub fn returned(kind: Kind, accepted: &Accepted) -> Ret {
    let octets_max = match accepted.envelope.dsn.ret {
        Some(Ret::Full) => RETURNED_OCTETS_MAX,
        None => UNASKED_OCTETS_MAX,
        Some(Ret::Headers) => return Ret::Headers,
    };
    match kind {
        Kind::Failure if accepted.data_octets <= octets_max => Ret::Full,
        Kind::Failure | Kind::Delay | Kind::Success => Ret::Headers,
    }
}

impl Report<'_> {
    /// Where it goes: the reverse-path. `None`: nowhere, and it is not to be sent.
    pub fn recipient(&self) -> Option<&str> {
        self.accepted.envelope.reverse_path.as_deref()
    }

    /// Whether it can only be sent with SMTPUTF8: its own header section has an address beyond ASCII.
    ///
    /// A message within it whose header has UTF-8 does not ask for that: to a system that does not know
    /// message/global it is an attachment of eight bits (RFC 6532 §3.7).
    pub fn needs_smtputf8(&self) -> bool {
        self.recipient().is_some_and(|path| !path.is_ascii())
    }

    /// What its octets need.
    pub fn body(&self) -> Body {
        let beyond_ascii = self.needs_smtputf8()
            || self.charset() == Charset::Utf8
            || Returned::of(self).is_8bit();
        match beyond_ascii {
            true => Body::EightBitMime,
            false => Body::SevenBit,
        }
    }

    /// Its octets.
    ///
    /// `message/…` goes into the builder under a transfer encoding that we name, which makes it take the octets as
    /// they are: by itself it would choose base64, which RFC 2046 §5.2.1 and RFC 3464 §2.1 forbid.
    pub fn build(&self) -> Vec<u8> {
        let returned = Returned::of(self);
        let text = people::text(self, returned.scope);
        let charset = self.charset();
        let status = fields::status(self, charset);
        let boundary = self.boundary(&[text.as_bytes(), &status, returned.octets]);
        let (status_type, status_encoding) = match charset {
            Charset::Ascii => ("delivery-status", "7bit"),
            Charset::Utf8 => ("global-delivery-status", "8bit"),
        };
        // RFC 6522 §3: the report-type is the subtype of the second part.
        let content_type = ContentType::new("multipart/report")
            .attribute("report-type", status_type)
            .attribute("boundary", boundary);
        let is_8bit = charset == Charset::Utf8 || returned.is_8bit();
        let parts = vec![
            MimePart::new("text/plain", text),
            MimePart::new(format!("message/{status_type}"), status)
                .transfer_encoding(status_encoding),
            returned.part(),
        ];
        let mut body = MimePart::new(content_type, parts);
        if is_8bit {
            // RFC 2045 §6.4: what has a part of eight bits has eight bits.
            body = body.transfer_encoding("8bit");
        }
        let mut message = MessageBuilder::new()
            // RFC 3464 §2: a reply reaches somebody who looks after us.
            .from(Address::new_address(
                Some("Mail Delivery System"),
                format!("postmaster@{}", self.hostname),
            ));
        if let Some(recipient) = self.recipient() {
            message = message.to(Address::new_address(None::<&str>, recipient));
        }
        message = message
            .subject(Text::new(self.kind.subject()))
            .date(Date::new(self.now_unix_seconds))
            .message_id(MessageId::new(format!("{}@{}", self.id, self.hostname)))
            // RFC 3834 §5: nobody's vacation message answers it.
            .header("Auto-Submitted", Text::new("auto-replied"));
        if let Some(id) = original::message_id(returned.header) {
            message = message.in_reply_to(id).references(id);
        }
        let mut octets = Vec::new();
        message.body(body).serialize(&mut octets);
        octets
    }

    /// Whether the second part has something that only UTF-8 can say: the local part of a recipient.
    fn charset(&self) -> Charset {
        let mut recipients = self.recipients.iter();
        match recipients.all(|reported| reported.recipient.local_part.is_ascii()) {
            true => Charset::Ascii,
            false => Charset::Utf8,
        }
    }

    /// A boundary that none of the parts has, not even within a line. It ends: each try that fails has its octets in
    /// the parts, and who wrote them did not know the report's id.
    fn boundary(&self, parts: &[&[u8]]) -> String {
        let mut tries = 0u64;
        loop {
            let boundary = format!("report-{}-{tries}", self.id);
            let finder = memmem::Finder::new(&boundary);
            if parts.iter().all(|part| finder.find(part).is_none()) {
                return boundary;
            }
            tries += 1;
        }
    }
}

impl Kind {
    /// The same for every report of its kind, so that it can be sorted by.
    const fn subject(self) -> &'static str {
        match self {
            Kind::Failure => "Your message could not be delivered",
            Kind::Delay => "Your message is delayed",
            Kind::Success => "Delivery report for your message",
        }
    }
}

impl Diagnostic<'_> {
    /// That of a failure.
    pub fn of(failure: &Failure) -> Diagnostic<'_> {
        match failure.said {
            Said::ByHop => Diagnostic::Smtp(&failure.text),
            Said::ByUs => Diagnostic::Ours(&failure.text),
        }
    }
}

/// Octets of a message that goes back whole: with the report built around it, and once more in the spool, memory holds
/// it about three times.
pub const RETURNED_OCTETS_MAX: u64 = 4 * 1024 * 1024;

/// The same where RET does not ask for it.
pub const UNASKED_OCTETS_MAX: u64 = 64 * 1024;
