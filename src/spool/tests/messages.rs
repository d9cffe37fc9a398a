//! Messages whose every octet follows from their id.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use fastrand::Rng;

use super::super::disk::simulated::{Simulated, SimulatedFile};
use super::super::{Accepted, CommitError, Fate, Held, Log, Progress, QueueId, ReadError, Reader};
use crate::smtp::data::{Budget, MailData};
use crate::smtp::dsn::{MailDsn, Notify, RcptDsn, Ret};
use crate::smtp::envelope::{Body, Envelope, Recipient};

/// The message with this number, of so many octets.
pub(super) fn message(number: u64, octets: usize) -> Accepted {
    let mut random = Rng::with_seed(number);
    let recipient = |index: usize| Recipient {
        as_given: format!("r{index}@Example.test").into(),
        local_part: format!("r{index}").into(),
        domain: "example.test".into(),
        dsn: RcptDsn {
            notify: (index > 0).then_some(Notify {
                success: index > 1,
                failure: true,
                delay: false,
            }),
            orcpt: (index > 1).then(|| "rfc822;x@example.org".into()),
        },
    };
    let id = QueueId::from_number(number);
    Accepted {
        id,
        arrived_unix_ms: random.u64(..),
        envelope: Arc::new(Envelope {
            reverse_path: random.bool().then(|| format!("{id}@example.test").into()),
            recipients: (0..random.usize(1..4)).map(recipient).collect(),
            body: Body::EightBitMime,
            smtputf8: random.bool(),
            declared_octets: None,
            dsn: MailDsn {
                ret: random.bool().then_some(Ret::Headers),
                envid: random.bool().then(|| format!("{id}").into()),
            },
        }),
        received: format!("Received: {id}\r\n").into_bytes().into(),
        data_octets: octets as u64,
        data_crc: crc32c::crc32c(octets_of(number, octets)),
    }
}

/// Cut out of random octets, whose making would take longer than all the rest.
fn octets_of(number: u64, octets: usize) -> &'static [u8] {
    static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut pool = vec![0; 1 << 20];
        Rng::with_seed(7).fill(&mut pool);
        pool
    });
    let begin = Rng::with_seed(number).usize(..POOL.len() - octets);
    &POOL[begin..begin + octets]
}

pub(super) fn content(accepted: &Accepted) -> &'static [u8] {
    let octets = usize::try_from(accepted.data_octets).unwrap();
    octets_of(accepted.id.number(), octets)
}

pub(super) fn mail_data(octets: &[u8]) -> MailData {
    let mut data = MailData::new(&Budget::new(u64::MAX), Some(octets.len() as u64));
    data.push(octets).unwrap();
    data
}

/// Appends a message from memory.
pub(super) async fn append(log: &Log<Simulated>, accepted: &Accepted) -> Result<(), CommitError> {
    let data = Rc::new(mail_data(content(accepted)));
    log.append(accepted.clone(), data).await
}

/// Appends a message through a file of its own, in parts.
pub(super) async fn append_by_parts(
    log: &Log<Simulated>,
    accepted: &Accepted,
    random: &mut Rng,
) -> Result<(), CommitError> {
    let mut own_file = log.begin_own_file(accepted.id).await?;
    let octets = content(accepted);
    let mut rest = octets;
    for _ in 0..random.usize(0..4) {
        let (part, later) = rest.split_at(random.usize(0..=rest.len()));
        rest = later;
        if let Err(error) = own_file.append(mail_data(part)).await {
            own_file.discard().await;
            return Err(error);
        }
    }
    log.append_stored(accepted.clone(), mail_data(rest), own_file)
        .await
}

/// Reads all that is left of a message.
pub(super) async fn read_on(
    reader: &mut Reader<SimulatedFile>,
    octets_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    while let Some(block) = reader.next(octets_max).await? {
        content.extend_from_slice(&block);
    }
    Ok(content)
}

/// Reads a message whole, and looks at what it is.
pub(super) async fn check_content(
    log: &Log<Simulated>,
    accepted: &Accepted,
) -> Result<(), ReadError> {
    let mut reader = log.read(accepted).await?;
    let octets = read_on(&mut reader, 64 * 1024).await?;
    assert!(
        octets == content(accepted),
        "{} reads otherwise",
        accepted.id
    );
    Ok(())
}

/// Progress that differs from all that was before.
pub(super) fn progress(attempts: u32, accepted: &Accepted, random: &mut Rng) -> Progress {
    let mut fate = |_: &Recipient| match random.u8(0..4) {
        0 => Fate::Waiting,
        1 => Fate::Delivered,
        2 => Fate::Deferred("4.4.1 no answer".repeat(random.usize(1..5)).into()),
        _ => Fate::Bounced("5.1.1 unknown".into()),
    };
    Progress {
        attempts,
        next_attempt_unix_ms: u64::from(attempts) * 1000,
        recipients: accepted.envelope.recipients.iter().map(&mut fate).collect(),
        held: Held::No,
        delay_notified: attempts.is_multiple_of(2),
    }
}
