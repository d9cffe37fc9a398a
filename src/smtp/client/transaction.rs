//! One message under way: which commands are said when, and whose reply a reply is.
//!
//! Apart from the session because this is where a reply could be taken for that of another
//! recipient. Invariants:
//! - Replies belong to commands in the order in which those were said (RFC 2920 §3.1). A reply that
//!   cannot stand where it comes ends the connection; none is skipped or guessed at.
//! - A recipient is accepted only by a 2yz to the content, said when all the content had left, after
//!   a 2yz to its RCPT and to MAIL.
//! - Whatever happens, each recipient gets one outcome.
//! - Behind a transaction that opened and did not end with its content comes RSET, so that the next
//!   one begins at a known place. RFC 3030 §2 asks for it after a refused chunk.
//!
//! ```text
//! commands    0      1 … n        n + 1           then
//!             MAIL   RCPT … RCPT  DATA or BDAT    replies to the content, RSET
//!                        ^ answered    ^ said
//! ```

use std::mem;
use std::time::Duration;

use super::outcome::{Cause, Failure, RecipientOutcome};
use super::reply::{Kind, Reply};
use super::settings::{Dialect, Timeouts};
use super::stuffing::Stuffer;
use super::terms::{Terms, Way};
use crate::smtp::status::Status;

/// How many RCPT leave together. RFC 2920 §3.1 has a client never fill both directions, or both
/// ends wait for ever; so many commands, and replies of the common length to them, fit any socket's
/// buffers.
const FLIGHT_RECIPIENTS_MAX: usize = 100;

/// A message under way.
#[derive(Debug)]
pub(super) struct Underway {
    dialect: Dialect,
    terms: Terms,
    octets: u64,
    recipients: Vec<Recipient>,
    /// Indices of the recipients that RCPT is said for.
    asked: Vec<usize>,
    /// How many commands were said, MAIL first; the one for the content is the last.
    said: usize,
    /// How many of them, without that for the content, were answered.
    answered: usize,
    mail: MailFate,
    content: Content,
    phase: Phase,
}

#[derive(Debug)]
struct Recipient {
    rcpt: String,
    fate: Fate,
}

/// What is known of a recipient.
#[derive(Debug)]
enum Fate {
    /// Nothing.
    Open,
    /// RCPT was accepted.
    Taken,
    /// All.
    Settled(RecipientOutcome),
}

/// What is known of MAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MailFate {
    Open,
    Taken,
    Refused,
    /// Refused, and behind it the peer took a recipient all the same.
    RefusedYetOpen,
}

/// How much of the content left.
#[derive(Debug)]
enum Content {
    None,
    Stuffing(Stuffer),
    /// With the octets sent so far.
    Chunk(u64),
    Sent,
}

/// Which reply comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To MAIL, RCPT or DATA.
    Commands,
    /// To the content.
    Verdict,
    /// To the content, which was refused before all of it was sent; now the rest is sent.
    Discarding,
    /// To the end of data behind a message of nothing for nobody.
    Empty,
    /// To RSET.
    Reset,
}

/// What a step leads to.
#[derive(Debug)]
pub(super) enum Step {
    /// The peer's turn.
    Wait,
    /// The content is to be sent.
    Content(Transfer),
    /// It is over, and the session ready.
    Done,
    /// It is over, and so is the session.
    Broken(Failure),
}

/// How content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// As mail data: [`Session::content`](super::Session::content) stuffs its dots.
    Data,
    /// As it is, to the octet as announced. What is not copied into the output by
    /// [`Session::content`](super::Session::content) is reported to
    /// [`Session::content_progress`](super::Session::content_progress).
    Chunk,
}

impl Underway {
    /// The transaction, with nothing said.
    pub(super) fn new(dialect: Dialect, mut terms: Terms, octets: u64) -> Underway {
        let mut asked = Vec::new();
        let recipients = mem::take(&mut terms.recipients);
        let recipients = recipients.into_iter().enumerate().map(|(index, rcpt)| {
            let (rcpt, fate) = match rcpt {
                Ok(rcpt) => {
                    asked.push(index);
                    (rcpt, Fate::Open)
                }
                Err(outcome) => (String::new(), Fate::Settled(outcome)),
            };
            Recipient { rcpt, fate }
        });
        let recipients = recipients.collect();
        Underway {
            dialect,
            terms,
            octets,
            recipients,
            asked,
            said: 0,
            answered: 0,
            mail: MailFate::Open,
            content: Content::None,
            phase: Phase::Commands,
        }
    }

    /// Says the first commands.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) -> Step {
        if self.asked.is_empty() {
            return Step::Done;
        }
        self.say_more(out)
    }

    /// Takes the next reply.
    pub(super) fn receive(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        // RFC 5321 §3.8: wherever it comes, it is about the connection and not about the message.
        if reply.code == 421 {
            return Step::Broken(Failure::said(reply));
        }
        match self.phase {
            Phase::Commands if self.answered == 0 => self.mail_reply(reply, out),
            Phase::Commands if self.answered <= self.asked.len() => self.rcpt_reply(reply, out),
            Phase::Commands => self.data_reply(reply, out),
            Phase::Verdict => self.verdict(reply, out),
            Phase::Discarding => Step::Broken(Failure::out_of_place("the content again", &reply)),
            // The recipients have their refusals. Should the peer say that it took the message, it
            // took it for nobody.
            Phase::Empty => match reply.kind() {
                Kind::Completion | Kind::Transient | Kind::Permanent => Step::Done,
                Kind::Intermediate => {
                    Step::Broken(Failure::out_of_place("the end of data", &reply))
                }
            },
            Phase::Reset => match reply.kind() {
                Kind::Completion => Step::Done,
                Kind::Intermediate | Kind::Transient | Kind::Permanent => {
                    Step::Broken(Failure::out_of_place("RSET", &reply))
                }
            },
        }
    }

    /// Appends a part of the content.
    pub(super) fn content(&mut self, part: &[u8], out: &mut Vec<u8>) {
        match &mut self.content {
            Content::Stuffing(stuffer) => stuffer.part(part, out),
            Content::Chunk(_) => {
                out.extend_from_slice(part);
                self.content_progress(part.len() as u64);
            }
            Content::None | Content::Sent => {}
        }
    }

    /// Hears that so much of a chunk was sent.
    pub(super) fn content_progress(&mut self, octets: u64) {
        if let Content::Chunk(sent) = &mut self.content {
            *sent = sent.saturating_add(octets);
        }
    }

    /// Hears that all the content was handed over; ends it.
    pub(super) fn content_sent(&mut self, out: &mut Vec<u8>) -> Step {
        match mem::replace(&mut self.content, Content::Sent) {
            Content::Stuffing(stuffer) => stuffer.end(out),
            Content::Chunk(sent) if sent == self.octets => {}
            // The peer waits for octets that do not come, or takes octets for commands.
            Content::Chunk(sent) => {
                if sent < self.octets {
                    self.content = Content::None;
                }
                let octets = self.octets;
                let text = format!("{octets} octets of content were announced, {sent} were sent");
                let status = Status::temporary(3, 0);
                return Step::Broken(Failure::ours(Cause::Content, status, text));
            }
            unsent @ (Content::None | Content::Sent) => {
                self.content = unsent;
                return Step::Wait;
            }
        }
        match self.phase {
            Phase::Discarding => self.reset(out),
            Phase::Commands | Phase::Verdict | Phase::Empty | Phase::Reset => Step::Wait,
        }
    }

    /// Whether content is being sent.
    pub(super) fn is_sending(&self) -> bool {
        match self.content {
            Content::Stuffing(_) | Content::Chunk(_) => true,
            Content::None | Content::Sent => false,
        }
    }

    /// What the peer owes now, for people.
    pub(super) fn awaited(&self) -> &'static str {
        match self.phase {
            _ if self.is_sending() => "it to take the content",
            Phase::Commands if self.answered == 0 => "its reply to MAIL",
            Phase::Commands if self.answered <= self.asked.len() => "its reply to RCPT",
            Phase::Commands => "its reply to DATA",
            Phase::Verdict | Phase::Discarding => "its reply to the content",
            Phase::Empty => "its reply to the end of data",
            Phase::Reset => "its reply to RSET",
        }
    }

    /// How long it may take for that.
    pub(super) fn timeout(&self, timeouts: &Timeouts) -> Duration {
        match self.phase {
            _ if self.is_sending() => timeouts.data_block,
            Phase::Commands if self.answered == 0 => timeouts.mail,
            Phase::Commands if self.answered <= self.asked.len() => timeouts.rcpt,
            Phase::Commands => timeouts.data_init,
            Phase::Verdict | Phase::Discarding | Phase::Empty => timeouts.data_termination,
            Phase::Reset => timeouts.command,
        }
    }

    /// The outcome for each recipient. What nothing is known of was not sent, for `failure`.
    pub(super) fn settle(self, failure: Option<&Failure>) -> Vec<RecipientOutcome> {
        let unsent = match failure {
            // Once all of it is out, the peer may have it, whatever happened to its reply. A reply,
            // though, says what it says.
            Some(failure) if self.content_is_out() && failure.reply.is_none() => {
                let text = &failure.text;
                let text = format!("{text}; it is unknown whether it took the message");
                Failure {
                    text: text.into(),
                    ..failure.clone()
                }
            }
            Some(failure) => failure.clone(),
            // Does not happen: what ends well has settled all. Were it to, they are tried again.
            None => Failure::protocol("nothing was said of the recipient"),
        };
        let recipients = self.recipients.into_iter();
        let outcomes = recipients.map(|recipient| match recipient.fate {
            Fate::Settled(outcome) => outcome,
            Fate::Open | Fate::Taken => RecipientOutcome::Unsent(unsent.clone()),
        });
        outcomes.collect()
    }

    fn content_is_out(&self) -> bool {
        match self.content {
            Content::Sent => true,
            Content::None | Content::Stuffing(_) | Content::Chunk(_) => false,
        }
    }

    fn mail_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        match reply.kind() {
            Kind::Completion => self.mail = MailFate::Taken,
            Kind::Transient | Kind::Permanent => {
                self.mail = MailFate::Refused;
                self.refuse(&reply);
            }
            Kind::Intermediate => return Step::Broken(Failure::out_of_place("MAIL", &reply)),
        }
        self.command_answered(out)
    }

    fn rcpt_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        if reply.kind() == Kind::Intermediate {
            return Step::Broken(Failure::out_of_place("RCPT", &reply));
        }
        match self.mail {
            // It can only say that there was no MAIL. If it says something else it is not believed.
            MailFate::Refused | MailFate::RefusedYetOpen => {
                if !reply.refuses() {
                    self.mail = MailFate::RefusedYetOpen;
                }
            }
            MailFate::Open | MailFate::Taken => {
                let any_taken = self.any_taken();
                let fate = rcpt_fate(reply, any_taken);
                // The reply is that of the recipient whose turn it is.
                let index = self.answered.checked_sub(1);
                let index = index.and_then(|turn| self.asked.get(turn)).copied();
                if let Some(recipient) = index.and_then(|index| self.recipients.get_mut(index)) {
                    recipient.fate = fate;
                }
            }
        }
        self.command_answered(out)
    }

    fn data_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        if reply.refuses() {
            self.refuse(&reply);
            return self.give_up(out);
        }
        if reply.code != 354 {
            return Step::Broken(Failure::out_of_place("DATA", &reply));
        }
        if self.any_taken() {
            self.phase = Phase::Verdict;
            self.content = Content::Stuffing(Stuffer::new());
            return Step::Content(Transfer::Data);
        }
        match self.dialect {
            // RFC 2920 §3.1: DATA left with the rest, nobody is there to get the message, and the
            // peer wants it: then it gets none.
            Dialect::Smtp => {
                out.extend_from_slice(b".\r\n");
                self.phase = Phase::Empty;
                Step::Wait
            }
            // RFC 2033 §4.2 forbids that reply. What would follow is a reply for each of nobody.
            Dialect::Lmtp => Step::Broken(Failure::out_of_place("DATA for nobody", &reply)),
        }
    }

    /// Takes a reply to the content: the one for all, or under LMTP the next recipient's.
    fn verdict(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        let refused = match reply.kind() {
            // It cannot have taken what is still here.
            Kind::Completion if !self.is_sending() => false,
            Kind::Transient | Kind::Permanent => true,
            Kind::Completion | Kind::Intermediate => {
                return Step::Broken(Failure::out_of_place("the content", &reply));
            }
        };
        let dsn_passed = self.terms.dsn;
        let outcome = |reply: &Reply| {
            let reply = reply.clone();
            match refused {
                true => RecipientOutcome::Refused(reply),
                false => RecipientOutcome::Accepted { dsn_passed, reply },
            }
        };
        // RFC 2033 §4.2: under LMTP in the order of RCPT.
        let settles = match self.dialect {
            Dialect::Smtp => usize::MAX,
            Dialect::Lmtp => 1,
        };
        for recipient in self.taken().take(settles) {
            recipient.fate = Fate::Settled(outcome(&reply));
        }
        if self.any_taken() {
            return Step::Wait;
        }
        match &self.content {
            // The peer would take the rest of the content for commands, or drop it: that is not
            // worth finding out.
            Content::Stuffing(_) => Step::Broken(Failure::said(reply)),
            // It takes what was announced, and drops it (RFC 3030 §2).
            Content::Chunk(_) => {
                self.phase = Phase::Discarding;
                Step::Wait
            }
            Content::None | Content::Sent => match self.terms.way {
                Way::ChunkInFlight | Way::ChunkAfterReplies if refused => self.reset(out),
                Way::Data | Way::ChunkInFlight | Way::ChunkAfterReplies => Step::Done,
            },
        }
    }

    /// Counts the reply to MAIL or RCPT. When all that was said is answered, says more.
    fn command_answered(&mut self, out: &mut Vec<u8>) -> Step {
        self.answered += 1;
        let commands = 1 + self.asked.len();
        if self.answered == commands && self.said > commands {
            // Only the command for the content is left. BDAT is answered by its verdict.
            if self.terms.way != Way::Data {
                self.phase = Phase::Verdict;
            }
            return Step::Wait;
        }
        if self.answered < self.said {
            return Step::Wait;
        }
        match self.mail {
            MailFate::Refused | MailFate::RefusedYetOpen => self.give_up(out),
            MailFate::Open | MailFate::Taken => self.say_more(out),
        }
    }

    /// Says the next commands, as many as may leave now.
    fn say_more(&mut self, out: &mut Vec<u8>) -> Step {
        let commands = 1 + self.asked.len();
        let may_say = if self.terms.pipelining {
            FLIGHT_RECIPIENTS_MAX
        } else {
            1
        };
        let mut rcpts = 0;
        if self.said == 0 {
            out.extend_from_slice(self.terms.mail.as_bytes());
            self.said = 1;
            if !self.terms.pipelining {
                return Step::Wait;
            }
        }
        while self.said < commands && rcpts < may_say {
            let index = self.asked.get(self.said - 1);
            if let Some(recipient) = index.and_then(|index| self.recipients.get(*index)) {
                out.extend_from_slice(recipient.rcpt.as_bytes());
            }
            self.said += 1;
            rcpts += 1;
        }
        let all_answered = self.answered == commands;
        if self.said < commands {
            return Step::Wait;
        }
        if all_answered && !self.any_taken() {
            return self.give_up(out);
        }
        match self.terms.way {
            Way::Data if self.terms.pipelining || all_answered => {
                out.extend_from_slice(b"DATA\r\n");
                self.said += 1;
                Step::Wait
            }
            Way::ChunkInFlight => self.say_chunk(out),
            Way::ChunkAfterReplies if all_answered => self.say_chunk(out),
            Way::Data | Way::ChunkAfterReplies => Step::Wait,
        }
    }

    fn say_chunk(&mut self, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(format!("BDAT {} LAST\r\n", self.octets).as_bytes());
        self.said += 1;
        self.content = Content::Chunk(0);
        if self.answered > self.asked.len() {
            self.phase = Phase::Verdict;
        }
        Step::Content(Transfer::Chunk)
    }

    /// Ends a transaction whose content nobody gets.
    fn give_up(&mut self, out: &mut Vec<u8>) -> Step {
        match self.mail {
            MailFate::Open | MailFate::Refused => Step::Done,
            MailFate::Taken | MailFate::RefusedYetOpen => self.reset(out),
        }
    }

    fn reset(&mut self, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(b"RSET\r\n");
        self.phase = Phase::Reset;
        Step::Wait
    }

    /// The message is refused for all that are not settled.
    fn refuse(&mut self, reply: &Reply) {
        for recipient in &mut self.recipients {
            match recipient.fate {
                Fate::Open | Fate::Taken => {
                    let outcome = RecipientOutcome::Refused(reply.clone());
                    recipient.fate = Fate::Settled(outcome);
                }
                Fate::Settled(_) => {}
            }
        }
    }

    fn any_taken(&self) -> bool {
        let mut recipients = self.recipients.iter();
        recipients.any(|recipient| matches!(recipient.fate, Fate::Taken))
    }

    fn taken(&mut self) -> impl Iterator<Item = &mut Recipient> {
        let recipients = self.recipients.iter_mut();
        recipients.filter(|recipient| matches!(recipient.fate, Fate::Taken))
    }
}

/// What a reply to RCPT makes of its recipient. `any_taken`: whether one was accepted before.
///
/// RFC 5321 §4.5.3.1.10: "too many recipients" is 452, once was 552, and in neither case is it about
/// the recipient. With another enhanced code, or for the first one, 552 says what it says.
fn rcpt_fate(reply: Reply, any_taken: bool) -> Fate {
    let outcome = match (reply.kind(), too_many(&reply)) {
        (Kind::Completion, _) => return Fate::Taken,
        (_, TooMany::Surely) => too_many_outcome(reply, any_taken),
        (_, TooMany::BehindOthers) if any_taken => too_many_outcome(reply, true),
        (_, TooMany::BehindOthers | TooMany::No) => RecipientOutcome::Refused(reply),
    };
    Fate::Settled(outcome)
}

/// Whether a reply to RCPT says "too many recipients".
enum TooMany {
    Surely,
    /// If others were accepted.
    BehindOthers,
    No,
}

fn too_many(reply: &Reply) -> TooMany {
    let status = reply.status.map(|status| (status.subject, status.detail));
    match (reply.code, status) {
        (452 | 552, Some((5, 3))) => TooMany::Surely,
        (452 | 552, None) => TooMany::BehindOthers,
        _ => TooMany::No,
    }
}

fn too_many_outcome(reply: Reply, again_now: bool) -> RecipientOutcome {
    RecipientOutcome::Unsent(Failure {
        cause: Cause::TooManyRecipients,
        status: Status::temporary(5, 3),
        again_now,
        ..Failure::said(reply)
    })
}
