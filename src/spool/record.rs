//! What entries say: a message was accepted, how far its delivery has come, it is done.
//!
//! Apart from the frame (`entry`) because this is what a later version of the format adds to. Decoding takes
//! exactly what encoding gives, or gave; anything else is malformed, never guessed at.
//!
//! | kind | says | in segments since version |
//! |---|---|---|
//! | 1, 2 | a message, its data behind the record or in a file of their own | 1; not written any more |
//! | 3 | how far its delivery has come | 1; not written any more |
//! | 4 | it is done | 1 |
//! | 5, 6 | as 1 and 2, with what the sender wants to be told (RFC 3461) | 2 |
//! | 7 | as 3, with whether the sender was told that it is late | 2 |
//!
//! The kind alone tells the form, so that an entry moves to a younger segment as it is.

use std::sync::Arc;

use super::codec::{Malformed, Reader, Writer};
use super::queue_id::QueueId;
use crate::smtp::dsn::{MailDsn, Notify, RcptDsn, Ret};
use crate::smtp::envelope::{Body, Envelope, Recipient};

/// A message that was accepted, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub id: QueueId,
    /// When its end of data came, in milliseconds since 1970.
    pub arrived_unix_ms: u64,
    /// Where it came from and where it goes.
    pub envelope: Arc<Envelope>,
    /// The Received field that stands before the data (RFC 5321 §4.4).
    pub received: Arc<[u8]>,
    /// Octets of the data, without the Received field.
    pub data_octets: u64,
    /// CRC-32C of the data.
    pub data_crc: u32,
}

/// How far the delivery of a message has come. Each record of it replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempts that did not finish it.
    pub attempts: u32,
    /// When the next one is due, in milliseconds since 1970.
    pub next_attempt_unix_ms: u64,
    /// Whether an operator wants it kept back.
    pub held: Held,
    /// Whether the sender was told that it is late.
    pub delay_notified: bool,
    /// What became of each recipient, in the envelope's order.
    pub recipients: Vec<Fate>,
}

/// Whether an operator keeps a message back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// It is delivered when it is due.
    #[default]
    No,
    /// It waits for `ringpost queue release`.
    Yes,
}

/// What became of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// No attempt yet.
    #[default]
    Waiting,
    /// The last attempt failed for this reason, and there will be another.
    Deferred(Box<str>),
    /// Delivered.
    Delivered,
    /// It will not be delivered, for this reason.
    Bounced(Box<str>),
}

impl Fate {
    /// Whether nothing more is to be done.
    pub fn is_final(&self) -> bool {
        match self {
            Fate::Waiting | Fate::Deferred(_) => false,
            Fate::Delivered | Fate::Bounced(_) => true,
        }
    }
}

impl Progress {
    /// Nothing has been tried yet.
    pub fn begin(recipients: usize) -> Progress {
        Progress {
            recipients: vec![Fate::Waiting; recipients],
            ..Progress::default()
        }
    }

    /// Whether nothing more is to be done for any recipient.
    pub fn is_final(&self) -> bool {
        self.recipients.iter().all(Fate::is_final)
    }
}

/// Where the data of a message lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Behind the record.
    Inline,
    /// In a file of their own.
    OwnFile,
}

/// A record, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Message(Accepted, Data),
    Progress(QueueId, Progress),
    Done(QueueId),
}

impl Record {
    /// Which message it is about.
    pub(super) fn id(&self) -> QueueId {
        match self {
            Record::Message(accepted, _) => accepted.id,
            Record::Progress(id, _) | Record::Done(id) => *id,
        }
    }

    /// Reads a record behind a frame that says `data_octets` and `data_crc` of what follows it.
    pub(super) fn decode(
        octets: &[u8],
        data_octets: u64,
        data_crc: u32,
    ) -> Result<Record, Malformed> {
        let mut reader = Reader(octets);
        let kind = reader.u8()?;
        let id = QueueId::from_number(reader.u64()?);
        let (form, holds) = match kind {
            KIND_MESSAGE_1 => (Form::First, Holds::Message(Data::Inline)),
            KIND_MESSAGE_IN_OWN_FILE_1 => (Form::First, Holds::Message(Data::OwnFile)),
            KIND_PROGRESS_1 => (Form::First, Holds::Progress),
            KIND_DONE => (Form::First, Holds::Done),
            KIND_MESSAGE => (Form::WithDsn, Holds::Message(Data::Inline)),
            KIND_MESSAGE_IN_OWN_FILE => (Form::WithDsn, Holds::Message(Data::OwnFile)),
            KIND_PROGRESS => (Form::WithDsn, Holds::Progress),
            _ => return Err(Malformed),
        };
        let record = match holds {
            Holds::Message(data) => {
                let (octets, crc) = match data {
                    Data::Inline => (data_octets, data_crc),
                    Data::OwnFile => (reader.u64()?, reader.u32()?),
                };
                Record::Message(message(&mut reader, form, id, octets, crc)?, data)
            }
            Holds::Progress => Record::Progress(id, progress(&mut reader, form)?),
            Holds::Done => Record::Done(id),
        };
        reader.end()?;
        Ok(record)
    }
}

/// What a kind of record is made of.
enum Holds {
    Message(Data),
    Progress,
    Done,
}

/// What a kind of record has room for.
#[derive(Clone, Copy)]
enum Form {
    /// As in segments of version 1.
    First,
    /// Reports of delivery too, since version 2.
    WithDsn,
}

/// Appends the record of an accepted message.
pub(super) fn push_message(octets: &mut Vec<u8>, accepted: &Accepted, data: Data) {
    let mut writer = Writer(octets);
    match data {
        Data::Inline => {
            writer.u8(KIND_MESSAGE);
            writer.u64(accepted.id.number());
        }
        Data::OwnFile => {
            writer.u8(KIND_MESSAGE_IN_OWN_FILE);
            writer.u64(accepted.id.number());
            writer.u64(accepted.data_octets);
            writer.u32(accepted.data_crc);
        }
    }
    let envelope = &accepted.envelope;
    writer.u64(accepted.arrived_unix_ms);
    writer.u8(match envelope.body {
        Body::SevenBit => BODY_7BIT,
        Body::EightBitMime => BODY_8BITMIME,
        Body::BinaryMime => BODY_BINARYMIME,
    });
    writer.u8(u8::from(envelope.smtputf8));
    push_optional(&mut writer, envelope.reverse_path.as_deref());
    writer.u8(match envelope.dsn.ret {
        None => RET_ABSENT,
        Some(Ret::Full) => RET_FULL,
        Some(Ret::Headers) => RET_HDRS,
    });
    push_optional(&mut writer, envelope.dsn.envid.as_deref());
    writer.octets(&accepted.received);
    writer.length(envelope.recipients.len());
    for recipient in &envelope.recipients {
        writer.octets(recipient.as_given.as_bytes());
        writer.octets(recipient.local_part.as_bytes());
        writer.octets(recipient.domain.as_bytes());
        writer.u8(recipient.dsn.notify.map_or(NOTIFY_ABSENT, notify_octet));
        push_optional(&mut writer, recipient.dsn.orcpt.as_deref());
    }
}

/// Appends a record of how far delivery has come.
pub(super) fn push_progress(octets: &mut Vec<u8>, id: QueueId, progress: &Progress) {
    let mut writer = Writer(octets);
    writer.u8(KIND_PROGRESS);
    writer.u64(id.number());
    writer.u32(progress.attempts);
    writer.u64(progress.next_attempt_unix_ms);
    writer.u8(match progress.held {
        Held::No => 0,
        Held::Yes => 1,
    });
    writer.u8(u8::from(progress.delay_notified));
    writer.length(progress.recipients.len());
    for fate in &progress.recipients {
        let (kind, reason) = match fate {
            Fate::Waiting => (FATE_WAITING, ""),
            Fate::Deferred(reason) => (FATE_DEFERRED, &**reason),
            Fate::Delivered => (FATE_DELIVERED, ""),
            Fate::Bounced(reason) => (FATE_BOUNCED, &**reason),
        };
        writer.u8(kind);
        writer.octets(reason.as_bytes());
    }
}

/// Appends the record that a message is done.
pub(super) fn push_done(octets: &mut Vec<u8>, id: QueueId) {
    let mut writer = Writer(octets);
    writer.u8(KIND_DONE);
    writer.u64(id.number());
}

fn push_optional(writer: &mut Writer<'_>, text: Option<&str>) {
    match text {
        None => writer.u8(0),
        Some(text) => {
            writer.u8(1);
            writer.octets(text.as_bytes());
        }
    }
}

fn notify_octet(notify: Notify) -> u8 {
    let reports = [
        (notify.success, NOTIFY_SUCCESS),
        (notify.failure, NOTIFY_FAILURE),
        (notify.delay, NOTIFY_DELAY),
    ];
    let wanted = reports.iter().filter(|(wanted, _)| *wanted);
    wanted.fold(NOTIFY_GIVEN, |octet, (_, report)| octet | report)
}

fn message(
    reader: &mut Reader<'_>,
    form: Form,
    id: QueueId,
    data_octets: u64,
    data_crc: u32,
) -> Result<Accepted, Malformed> {
    let arrived_unix_ms = reader.u64()?;
    let body = match reader.u8()? {
        BODY_7BIT => Body::SevenBit,
        BODY_8BITMIME => Body::EightBitMime,
        BODY_BINARYMIME => Body::BinaryMime,
        _ => return Err(Malformed),
    };
    let smtputf8 = flag(reader)?;
    let reverse_path = optional(reader)?;
    let dsn = match form {
        Form::First => MailDsn::default(),
        Form::WithDsn => MailDsn {
            ret: ret(reader)?,
            envid: optional(reader)?,
        },
    };
    let received = reader.octets()?.into();
    let count = reader.count(RECIPIENT_OCTETS_MIN)?;
    let mut recipients = Vec::with_capacity(count);
    for _ in 0..count {
        recipients.push(Recipient {
            as_given: reader.text()?.into(),
            local_part: reader.text()?.into(),
            domain: reader.text()?.into(),
            dsn: match form {
                Form::First => RcptDsn::default(),
                Form::WithDsn => RcptDsn {
                    notify: notify(reader)?,
                    orcpt: optional(reader)?,
                },
            },
        });
    }
    Ok(Accepted {
        id,
        arrived_unix_ms,
        envelope: Arc::new(Envelope {
            reverse_path,
            recipients,
            body,
            smtputf8,
            declared_octets: None,
            dsn,
        }),
        received,
        data_octets,
        data_crc,
    })
}

fn ret(reader: &mut Reader<'_>) -> Result<Option<Ret>, Malformed> {
    match reader.u8()? {
        RET_ABSENT => Ok(None),
        RET_FULL => Ok(Some(Ret::Full)),
        RET_HDRS => Ok(Some(Ret::Headers)),
        _ => Err(Malformed),
    }
}

fn notify(reader: &mut Reader<'_>) -> Result<Option<Notify>, Malformed> {
    let octet = reader.u8()?;
    if octet == NOTIFY_ABSENT {
        return Ok(None);
    }
    let notify = Notify {
        success: octet & NOTIFY_SUCCESS != 0,
        failure: octet & NOTIFY_FAILURE != 0,
        delay: octet & NOTIFY_DELAY != 0,
    };
    if notify_octet(notify) == octet {
        Ok(Some(notify))
    } else {
        Err(Malformed)
    }
}

fn progress(reader: &mut Reader<'_>, form: Form) -> Result<Progress, Malformed> {
    let attempts = reader.u32()?;
    let next_attempt_unix_ms = reader.u64()?;
    let held = match flag(reader)? {
        false => Held::No,
        true => Held::Yes,
    };
    let delay_notified = match form {
        Form::First => false,
        Form::WithDsn => flag(reader)?,
    };
    let count = reader.count(FATE_OCTETS_MIN)?;
    let mut recipients = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.u8()?;
        let reason = reader.text()?;
        recipients.push(match (kind, reason) {
            (FATE_WAITING, "") => Fate::Waiting,
            (FATE_DEFERRED, reason) => Fate::Deferred(reason.into()),
            (FATE_DELIVERED, "") => Fate::Delivered,
            (FATE_BOUNCED, reason) => Fate::Bounced(reason.into()),
            _ => return Err(Malformed),
        });
    }
    Ok(Progress {
        attempts,
        next_attempt_unix_ms,
        held,
        delay_notified,
        recipients,
    })
}

fn optional(reader: &mut Reader<'_>) -> Result<Option<Box<str>>, Malformed> {
    match flag(reader)? {
        false => Ok(None),
        true => Ok(Some(reader.text()?.into())),
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

// On disk: never to be given another meaning.
const KIND_MESSAGE_1: u8 = 1;
const KIND_MESSAGE_IN_OWN_FILE_1: u8 = 2;
const KIND_PROGRESS_1: u8 = 3;
const KIND_DONE: u8 = 4;
const KIND_MESSAGE: u8 = 5;
const KIND_MESSAGE_IN_OWN_FILE: u8 = 6;
const KIND_PROGRESS: u8 = 7;

const BODY_7BIT: u8 = 0;
const BODY_8BITMIME: u8 = 1;
const BODY_BINARYMIME: u8 = 2;

const RET_ABSENT: u8 = 0;
const RET_FULL: u8 = 1;
const RET_HDRS: u8 = 2;

const NOTIFY_ABSENT: u8 = 0;
/// Alone it is NEVER.
const NOTIFY_GIVEN: u8 = 1;
const NOTIFY_SUCCESS: u8 = 2;
const NOTIFY_FAILURE: u8 = 4;
const NOTIFY_DELAY: u8 = 8;

const FATE_WAITING: u8 = 0;
const FATE_DEFERRED: u8 = 1;
const FATE_DELIVERED: u8 = 2;
const FATE_BOUNCED: u8 = 3;

/// Three lengths; in later forms more, but what is less is refused at its end.
const RECIPIENT_OCTETS_MIN: usize = 12;

/// A kind and a length.
const FATE_OCTETS_MIN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::dsn::ORCPT_OCTETS_MAX;
    use crate::smtp::path::{DOMAIN_OCTETS_MAX, LOCAL_PART_OCTETS_MAX, PATH_OCTETS_MAX};

    /// One that says of reports what its local part is.
    fn recipient(local_part: &str) -> Recipient {
        let reports = ["success", "failure", "delay"].map(|report| local_part.contains(report));
        let [success, failure, delay] = reports;
        let notify = Notify {
            success,
            failure,
            delay,
        };
        Recipient {
            as_given: format!("{local_part}@Mx.test").into(),
            local_part: local_part.into(),
            domain: "mx.test".into(),
            dsn: RcptDsn {
                notify: (local_part == "never" || notify != Notify::NEVER).then_some(notify),
                orcpt: local_part.contains("was").then(|| "rfc822;a+20b".into()),
            },
        }
    }

    fn accepted(reverse_path: Option<&str>, recipients: &[&str], body: Body) -> Accepted {
        Accepted {
            id: QueueId::from_number(0x1234_5678_9abc),
            arrived_unix_ms: 1_795_500_000_123,
            envelope: Arc::new(Envelope {
                reverse_path: reverse_path.map(Box::from),
                recipients: recipients.iter().map(|name| recipient(name)).collect(),
                body,
                smtputf8: body == Body::EightBitMime,
                declared_octets: None,
                dsn: match body {
                    Body::SevenBit => MailDsn::default(),
                    Body::EightBitMime => MailDsn {
                        ret: Some(Ret::Full),
                        envid: Some("QQ314159".into()),
                    },
                    Body::BinaryMime => MailDsn {
                        ret: Some(Ret::Headers),
                        envid: None,
                    },
                },
            }),
            received: b"Received: from x\r\n"[..].into(),
            data_octets: 77,
            data_crc: 0xdead_beef,
        }
    }

    fn records() -> Vec<(&'static str, Record)> {
        let id = QueueId::from_number(u64::MAX >> 3);
        vec![
            (
                "a message",
                Record::Message(
                    accepted(Some("a@b"), &["x", "ü"], Body::EightBitMime),
                    Data::Inline,
                ),
            ),
            (
                "all reports there are",
                Record::Message(
                    accepted(
                        Some("a@b"),
                        &[
                            "never",
                            "success",
                            "failure was",
                            "delay",
                            "success,failure,delay was",
                            "was",
                        ],
                        Body::SevenBit,
                    ),
                    Data::Inline,
                ),
            ),
            (
                "a bounce",
                Record::Message(accepted(None, &["x"], Body::SevenBit), Data::Inline),
            ),
            (
                "a large one",
                Record::Message(accepted(Some(""), &["x"], Body::BinaryMime), Data::OwnFile),
            ),
            (
                "progress",
                Record::Progress(
                    id,
                    Progress {
                        attempts: 3,
                        next_attempt_unix_ms: 9,
                        held: Held::Yes,
                        delay_notified: true,
                        recipients: vec![
                            Fate::Waiting,
                            Fate::Deferred("disk full".into()),
                            Fate::Delivered,
                            Fate::Bounced("no such".into()),
                        ],
                    },
                ),
            ),
            ("done", Record::Done(id)),
        ]
    }

    fn encoded(record: &Record) -> Vec<u8> {
        let mut octets = Vec::new();
        match record {
            Record::Message(accepted, data) => push_message(&mut octets, accepted, *data),
            Record::Progress(id, progress) => push_progress(&mut octets, *id, progress),
            Record::Done(id) => push_done(&mut octets, *id),
        }
        octets
    }

    #[test]
    fn records_read_as_they_were_written() {
        for (name, record) in records() {
            let decoded = Record::decode(&encoded(&record), 77, 0xdead_beef);
            assert_eq!(decoded.as_ref(), Ok(&record), "{name}");
        }
    }

    #[test]
    fn no_beginning_of_a_record_is_one_and_nothing_may_follow() {
        for (name, record) in records() {
            let mut octets = encoded(&record);
            for end in 0..octets.len() {
                let part = Record::decode(&octets[..end], 77, 0xdead_beef);
                assert_eq!(part, Err(Malformed), "{name} cut at {end}");
            }
            octets.push(0);
            assert_eq!(
                Record::decode(&octets, 77, 0xdead_beef),
                Err(Malformed),
                "{name}"
            );
        }
    }

    /// With no more than is reckoned for it where a segment is held against `--max-recipients`.
    #[test]
    fn the_longest_recipient() {
        let recipient = Recipient {
            as_given: "x".repeat(PATH_OCTETS_MAX).into(),
            local_part: "x".repeat(LOCAL_PART_OCTETS_MAX).into(),
            domain: "x".repeat(DOMAIN_OCTETS_MAX).into(),
            dsn: RcptDsn {
                notify: Some(Notify::NEVER),
                orcpt: Some("x".repeat(ORCPT_OCTETS_MAX).into()),
            },
        };
        let of = |recipients: Vec<Recipient>| {
            let mut accepted = accepted(None, &[], Body::SevenBit);
            Arc::get_mut(&mut accepted.envelope).unwrap().recipients = recipients;
            encoded(&Record::Message(accepted, Data::Inline)).len()
        };
        let octets = of(vec![recipient]) - of(Vec::new());
        assert!(octets <= 1024 + 512, "{octets}");
    }

    #[test]
    fn random_octets_never_panic() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let samples: Vec<Vec<u8>> = records()
            .iter()
            .map(|(_, record)| encoded(record))
            .collect();
        for _ in 0..20_000 {
            let mut octets = samples[random.usize(..samples.len())].clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..octets.len());
                octets[at] = random.u8(..);
            }
            // Whatever it is, it was read or refused.
            let _ = Record::decode(&octets, 77, 0xdead_beef);
        }
        println!("seed {seed}");
    }
}
