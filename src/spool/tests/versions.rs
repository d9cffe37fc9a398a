//! Segments of every version of the format, octet by octet: what was written once must be read for ever.

use std::sync::Arc;

use super::super::disk::simulated::{CrashAfter, Simulated};
use super::super::disk::{Disk, WriteSync, write_all};
use super::super::entry::{InBatch, push_head};
use super::super::record::{Data, push_done, push_message, push_progress};
use super::super::segment::{Header, NoHeader, State};
use super::super::{Accepted, Fate, Held, Log, Progress, Purpose, QueueId, recover};
use super::messages::{append, message, read_on};
use super::{Running, SEGMENT_OCTETS, directory, run, settings};
use crate::smtp::dsn::{MailDsn, Notify, RcptDsn, Ret};
use crate::smtp::envelope::{Body, Envelope, Recipient};

/// A segment as it lies on the disk, in hexadecimal.
struct Pinned {
    version: u32,
    /// Of its first sector; zeros follow, and then the sector again.
    header: &'static str,
    /// Each with its padding.
    entries: [&'static str; 5],
}

impl Pinned {
    fn octets(&self) -> Vec<u8> {
        let mut octets = hexadecimal(self.header);
        octets.resize(512, 0);
        octets.extend_from_within(..);
        for entry in self.entries {
            octets.extend(hexadecimal(entry));
        }
        octets
    }

    /// On a disk: in a segment of the usual size, beside the file that it names.
    async fn disk(&self) -> Simulated {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let mut octets = self.octets();
        octets.resize(usize::try_from(SEGMENT_OCTETS).unwrap(), 0);
        let directory = directory();
        for path in [
            directory.path().parent().unwrap(),
            directory.path(),
            &directory.large(),
        ] {
            disk.make_directory(path).await.unwrap();
        }
        let id = QueueId::from_number(IN_OWN_FILE);
        let files = [
            (directory.segment(1), octets),
            (directory.own_file(id), OWN_FILE.to_vec()),
        ];
        for (path, octets) in files {
            let file = disk.create(&path).await.unwrap();
            let (written, _) = write_all(&file, octets, 0, WriteSync::Yes).await;
            written.unwrap();
        }
        disk
    }

    /// What it says, without what its version had no room for.
    fn messages(&self) -> Vec<(Accepted, Progress)> {
        let mut messages = [(inline(), progress()), (in_own_file(), Progress::begin(1))];
        for (accepted, progress) in &mut messages {
            if self.version < 2 {
                let envelope = Arc::get_mut(&mut accepted.envelope).unwrap();
                envelope.dsn = MailDsn::default();
                for recipient in &mut envelope.recipients {
                    recipient.dsn = RcptDsn::default();
                }
                progress.delay_notified = false;
            }
        }
        messages.into()
    }
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

const NONCE: u64 = 0x0123_4567_89ab_cdef;
const INLINE: u64 = 0x1001;
const BOUNCE: u64 = 0x1002;
const IN_OWN_FILE: u64 = 0x1003;
const INLINE_DATA: &[u8] = b"Subject: a\r\n\r\nfirst\r\n";
const BOUNCE_DATA: &[u8] = b"second\r\n";
const OWN_FILE: &[u8] = b"in a file of its own\n";

fn accepted(number: u64, envelope: Envelope, data: &[u8]) -> Accepted {
    Accepted {
        id: QueueId::from_number(number),
        arrived_unix_ms: 1_795_500_000_000 + number,
        envelope: Arc::new(envelope),
        received: b"Received: from x\r\n"[..].into(),
        data_octets: data.len() as u64,
        data_crc: crc32c::crc32c(data),
    }
}

fn recipient(local_part: &str, notify: Option<Notify>, orcpt: Option<&str>) -> Recipient {
    Recipient {
        as_given: format!("{local_part}@Mx.test").into(),
        local_part: local_part.into(),
        domain: "mx.test".into(),
        dsn: RcptDsn {
            notify,
            orcpt: orcpt.map(Box::from),
        },
    }
}

fn inline() -> Accepted {
    let delay = Notify {
        delay: true,
        ..Notify::NEVER
    };
    let others = Notify {
        success: true,
        failure: true,
        delay: false,
    };
    let envelope = Envelope {
        reverse_path: Some("a@x.test".into()),
        recipients: vec![
            recipient("w", None, None),
            recipient("d", Some(Notify::NEVER), None),
            recipient("ü", Some(delay), Some("utf-8;ü@x.test")),
            recipient("b", Some(others), Some("rfc822;a+2Bb@x.test")),
        ],
        body: Body::EightBitMime,
        smtputf8: true,
        declared_octets: None,
        dsn: MailDsn {
            ret: Some(Ret::Full),
            envid: Some("QQ314159".into()),
        },
    };
    accepted(INLINE, envelope, INLINE_DATA)
}

fn bounce() -> Accepted {
    let envelope = Envelope {
        reverse_path: None,
        recipients: vec![recipient("b", None, None)],
        body: Body::SevenBit,
        smtputf8: false,
        declared_octets: None,
        dsn: MailDsn::default(),
    };
    accepted(BOUNCE, envelope, BOUNCE_DATA)
}

fn in_own_file() -> Accepted {
    let envelope = Envelope {
        reverse_path: Some("c@x.test".into()),
        recipients: vec![recipient("postmaster", None, None)],
        body: Body::BinaryMime,
        smtputf8: false,
        declared_octets: None,
        dsn: MailDsn {
            ret: Some(Ret::Headers),
            envid: None,
        },
    };
    accepted(IN_OWN_FILE, envelope, OWN_FILE)
}

fn progress() -> Progress {
    Progress {
        attempts: 3,
        next_attempt_unix_ms: 1_795_500_060_000,
        held: Held::Yes,
        delay_notified: true,
        recipients: vec![
            Fate::Waiting,
            Fate::Deferred("452 later".into()),
            Fate::Delivered,
            Fate::Bounced("550 no".into()),
        ],
    }
}

/// What this release writes for all that.
fn written() -> Vec<u8> {
    let header = Header {
        state: State::Used,
        sequence: 1,
        nonce: NONCE,
        before: None,
    };
    let mut octets = header.encode();
    let mut push = |stands: (u32, u16, bool), data: &[u8], record: &dyn Fn(&mut Vec<u8>)| {
        let (batch, index, last) = stands;
        let stands = InBatch { batch, index, last };
        let crc = crc32c::crc32c(data);
        let zeros = push_head(&mut octets, NONCE, stands, data.len() as u64, crc, record);
        octets.extend_from_slice(data);
        octets.resize(octets.len() + zeros, 0);
    };
    push((0, 0, false), INLINE_DATA, &|octets| {
        push_message(octets, &inline(), Data::Inline);
    });
    push((0, 1, true), BOUNCE_DATA, &|octets| {
        push_message(octets, &bounce(), Data::Inline);
    });
    push((1, 0, true), b"", &|octets| {
        push_message(octets, &in_own_file(), Data::OwnFile);
    });
    push((2, 0, false), b"", &|octets| {
        push_progress(octets, inline().id, &progress());
    });
    push((2, 1, true), b"", &|octets| {
        push_done(octets, bounce().id);
    });
    octets
}

async fn check_data(log: &Log<Simulated>, accepted: &Accepted) {
    let mut reader = log.read(accepted).await.unwrap();
    let data = read_on(&mut reader, 1024).await.unwrap();
    let expected = match accepted.id.number() {
        IN_OWN_FILE => OWN_FILE,
        _ => INLINE_DATA,
    };
    assert_eq!(data, expected, "{}", accepted.id);
}

/// Whoever sees this fail has changed the format: the version is to be raised, and the segment that was pinned here
/// stays beside a new one.
#[test]
fn what_is_written_is_what_was_pinned() {
    let [.., newest] = PINNED;
    let written = written();
    let shown = || {
        written
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect::<String>()
    };
    assert!(written == newest.octets(), "{}", shown());
}

#[test]
fn every_version_is_read() {
    for pinned in PINNED {
        run(async {
            let version = pinned.version;
            let disk = pinned.disk().await;
            for purpose in [Purpose::Look, Purpose::GoOn] {
                let recovered = recover(&disk, directory(), purpose).await.unwrap();
                assert_eq!(recovered.damages, [], "version {version}");
                let messages = recovered.messages.into_iter();
                let messages: Vec<_> = messages.map(|it| (it.accepted, it.progress)).collect();
                assert_eq!(messages, pinned.messages(), "version {version}");
            }
        });
    }
}

/// Entries move as they are, into segments that say the newest version.
#[test]
fn every_version_is_emptied_into_the_newest() {
    for pinned in PINNED {
        run(async {
            let version = pinned.version;
            let disk = pinned.disk().await;
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            for (accepted, _) in pinned.messages() {
                check_data(&running.log, &accepted).await;
            }
            for number in 1..100 {
                append(&running.log, &message(number, 6000)).await.unwrap();
                running.log.note_done(message(number, 6000).id);
            }
            running.log.flush().await;
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            running.close().await;
            let old = disk.contents(&directory().segment(1)).unwrap();
            let header = Header::decode(&old);
            assert!(
                !matches!(
                    header,
                    Ok(Header {
                        state: State::Used,
                        sequence: 1,
                        ..
                    })
                ),
                "version {version} is still in use: {header:?}"
            );
            let (running, look) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            assert_eq!(look.damages, [], "version {version}");
            let messages = look.messages.iter();
            let messages: Vec<_> = messages
                .map(|it| (it.accepted.clone(), it.progress.clone()))
                .collect();
            assert_eq!(messages, pinned.messages(), "version {version}");
            for (accepted, _) in &messages {
                check_data(&running.log, accepted).await;
            }
            running.close().await;
        });
    }
}

#[test]
fn the_next_version_is_refused() {
    let [.., newest] = PINNED;
    let mut octets = newest.octets();
    let next = u8::try_from(newest.version + 1).unwrap();
    for sector in [0, 512] {
        octets[sector + 8] = next;
    }
    let expected = Err(NoHeader::Version(u32::from(next)));
    assert_eq!(Header::decode(&octets), expected);
}

const PINNED: [Pinned; 2] = [VERSION_1, VERSION_2];

/// Before reports of delivery.
const VERSION_1: Pinned = Pinned {
    version: 1,
    header: "72696e67706f737401000000dd5e393e01000000000000000100000000000000efcdab8967452301\
        00000000000000000000000000000000",
    entries: [
        // A message to four recipients, its data behind it.
        "52506531ca11d624efcdab89674523010000000000000000b00000004637fcdd15000000000000000101100000000000\
         0001d3230ca2010000010101080000006140782e746573741200000052656365697665643a2066726f6d20780d0a0400\
         00000900000077404d782e746573740100000077070000006d782e746573740900000064404d782e7465737401000000\
         64070000006d782e746573740a000000c3bc404d782e7465737402000000c3bc070000006d782e746573740900000062\
         404d782e746573740100000062070000006d782e746573745375626a6563743a20610d0a0d0a66697273740d0a000000",
        // A bounce.
        "52506531455c3353efcdab896745230100000000010001004b000000b65412ed08000000000000000102100000000000\
         0002d3230ca20100000000001200000052656365697665643a2066726f6d20780d0a010000000900000062404d782e74\
         6573740100000062070000006d782e746573747365636f6e640d0a0000000000",
        // One whose data are in a file of their own.
        "525065311dbb120eefcdab89674523010100000001000000750000000000000000000000000000000203100000000000\
         001500000000000000b2e0fc0303d3230ca2010000020001080000006340782e74657374120000005265636569766564\
         3a2066726f6d20780d0a0100000012000000706f73746d6173746572404d782e746573740a000000706f73746d617374\
         6572070000006d782e74657374000000",
        // Progress of the first.
        "52506531c0faee07efcdab896745230102000000000000003d0000000000000000000000000000000301100000000000\
         000300000060ad240ca2010000010400000000000000000109000000343532206c617465720200000000030600000035\
         3530206e6f000000",
        // The second is done.
        "52506531423dafe3efcdab89674523010200000001000100090000000000000000000000000000000402100000000000\
         0000000000000000",
    ],
};

/// With them.
const VERSION_2: Pinned = Pinned {
    version: 2,
    header: "72696e67706f737402000000dd5e393e01000000000000000100000000000000efcdab8967452301\
        00000000000000000000000000000000",
    entries: [
        // A message to four recipients, its data behind it.
        "52506531ea85c727efcdab89674523010000000000000000f00000004637fcdd15000000000000000501100000000000\
         0001d3230ca2010000010101080000006140782e74657374010108000000515133313431353912000000526563656976\
         65643a2066726f6d20780d0a040000000900000077404d782e746573740100000077070000006d782e74657374000009\
         00000064404d782e746573740100000064070000006d782e7465737401000a000000c3bc404d782e7465737402000000\
         c3bc070000006d782e7465737409010f0000007574662d383bc3bc40782e746573740900000062404d782e7465737401\
         00000062070000006d782e746573740701130000007266633832323b612b32426240782e746573745375626a6563743a\
         20610d0a0d0a66697273740d0a000000",
        // A bounce.
        "52506531ae546a26efcdab896745230100000000010001004f000000b65412ed08000000000000000502100000000000\
         0002d3230ca201000000000000001200000052656365697665643a2066726f6d20780d0a010000000900000062404d78\
         2e746573740100000062070000006d782e7465737400007365636f6e640d0a00",
        // One whose data are in a file of their own.
        "525065315d2f4868efcdab89674523010100000001000000790000000000000000000000000000000603100000000000\
         001500000000000000b2e0fc0303d3230ca2010000020001080000006340782e74657374020012000000526563656976\
         65643a2066726f6d20780d0a0100000012000000706f73746d6173746572404d782e746573740a000000706f73746d61\
         73746572070000006d782e74657374000000000000000000",
        // Progress of the first.
        "5250653187814875efcdab896745230102000000000000003e0000000000000000000000000000000701100000000000\
         000300000060ad240ca201000001010400000000000000000109000000343532206c6174657202000000000306000000\
         353530206e6f0000",
        // The second is done.
        "52506531423dafe3efcdab89674523010200000001000100090000000000000000000000000000000402100000000000\
         0000000000000000",
    ],
};
