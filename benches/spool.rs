//! What it costs to put messages on stable storage: by the spool, in batches of what comes together, and beside it
//! as one file and one fsync each.
//!
//! So many sessions each append a message of 2 KiB, wait until it is durable, and append the next. The time is
//! that of a round, in which each session appends one; elements are messages. They are noted as done, as if they
//! had been delivered; segments are recycled. In the end the log is read again, and every message that was
//! not done must be there.
//!
//! The directory lies in the target directory: a disk, where the tree is on one.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ringpost::ring::{self, RingSettings};
use ringpost::smtp::data::{Budget, MailData};
use ringpost::smtp::dsn::{MailDsn, RcptDsn};
use ringpost::smtp::envelope::{Body, Envelope, Recipient};
use ringpost::spool::disk::on_ring::OnRing;
use ringpost::spool::disk::{Disk, WriteSync, write_all};
use ringpost::spool::{
    Accepted, Log, LogDirectory, LogSettings, Meters, Purpose, QueueId, QueueIds, Space, recover,
};

const MESSAGE_OCTETS: usize = 2048;

/// Time for the log to make its segments and to fill one.
const WARM_UP: Duration = Duration::from_millis(300);

const FILE_OCTETS: usize = 16 * 1024 * 1024;

/// Messages of each session that stay in the queue; those before are done.
const LEFT_PER_SESSION: u64 = 1;

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope {
        reverse_path: Some("sender@client.test".into()),
        recipients: vec![Recipient {
            as_given: "user@mx.test".into(),
            local_part: "user".into(),
            domain: "mx.test".into(),
            dsn: RcptDsn::default(),
        }],
        body: Body::SevenBit,
        smtputf8: false,
        declared_octets: None,
        dsn: MailDsn::default(),
    })
}

fn data(budget: &Arc<Budget>) -> MailData {
    let mut data = MailData::new(budget, None);
    let Ok(()) = data.push(&[b'm'; MESSAGE_OCTETS]) else {
        unreachable!("a budget without a bound");
    };
    data
}

async fn append_one(
    log: &Log<OnRing>,
    ids: &QueueIds,
    budget: &Arc<Budget>,
    envelope: &Arc<Envelope>,
) -> QueueId {
    let data = data(budget);
    let accepted = Accepted {
        id: ids.next(SystemTime::UNIX_EPOCH),
        arrived_unix_ms: 0,
        envelope: Arc::clone(envelope),
        received: [b'R'; 150].into(),
        data_octets: data.len(),
        data_crc: data.crc32c(),
    };
    let id = accepted.id;
    expect(log.append(accepted, Rc::new(data)).await);
    id
}

/// Has `sessions` append `messages` in all to a log in `directory`, and gives back how long that took.
fn append(directory: &Path, sessions: usize, messages: u64, sync: WriteSync) -> Duration {
    let settings = RingSettings {
        entries: 256,
        sqpoll: false,
    };
    let outcome = ring::run(settings, async {
        let own = || LogDirectory::of_shard(directory, 0);
        let recovered = recover(&OnRing, own(), Purpose::GoOn).await;
        let log_settings = LogSettings {
            segment_octets: 64 * 1024 * 1024,
            sync,
            space: Space::new(u64::MAX),
            meters: Arc::new(Meters::default()),
        };
        let Ok(log) = Log::open(OnRing, expect(recovered), log_settings).await else {
            panic!("the log was not opened");
        };
        let writing = tokio_uring::spawn(log.clone().run());
        let (left, ids) = (Rc::new(Cell::new(messages)), Rc::new(QueueIds::new(0)));
        let budget = Budget::new(u64::MAX);
        // Segments are made, and filled in the background.
        let warm = Instant::now();
        while is_measured() && warm.elapsed() < WARM_UP {
            let id = append_one(&log, &ids, &budget, &envelope()).await;
            log.note_done(id);
        }
        log.flush().await;
        let begun = Instant::now();
        let tasks: Vec<_> = (0..sessions)
            .map(|_| {
                let (log, left, ids) = (log.clone(), Rc::clone(&left), Rc::clone(&ids));
                let (budget, envelope) = (Arc::clone(&budget), envelope());
                tokio_uring::spawn(async move {
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        let id = append_one(&log, &ids, &budget, &envelope).await;
                        if rest >= sessions as u64 * LEFT_PER_SESSION {
                            log.note_done(id);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            expect(task.await);
        }
        let lasted = begun.elapsed();
        log.close();
        expect(writing.await);
        let again = expect(recover(&OnRing, own(), Purpose::Look).await);
        let expected = messages.min(sessions as u64 * LEFT_PER_SESSION);
        assert_eq!(
            again.messages.len() as u64,
            expected,
            "messages are in the log"
        );
        lasted
    });
    expect(outcome)
}

/// As many octets as a message takes, written and synced by one operation of the ring, one after the other, over
/// blocks that were written before: what no log on the ring can do without.
fn ring_alone(directory: &Path, messages: u64) -> Duration {
    let settings = RingSettings {
        entries: 8,
        sqpoll: false,
    };
    let outcome = ring::run(settings, async {
        let file = expect(OnRing.create(&directory.join("file")).await);
        let (outcome, _) = write_all(&file, vec![0; FILE_OCTETS], 0, WriteSync::Yes).await;
        expect(outcome);
        let mut octets = vec![b'm'; MESSAGE_OCTETS + 400];
        let mut offset = 0;
        let begun = Instant::now();
        for number in 0..messages {
            offset = (number * octets.len() as u64) % (FILE_OCTETS as u64 / 2);
            let outcome;
            (outcome, octets) = write_all(&file, octets, offset, WriteSync::Yes).await;
            expect(outcome);
        }
        let lasted = begun.elapsed();
        let written = expect(fs::read(directory.join("file")));
        assert_eq!(written.len(), FILE_OCTETS);
        let last = written
            .iter()
            .skip(usize::try_from(offset).unwrap_or(FILE_OCTETS));
        assert!(last.take(octets.len()).eq(&octets), "what was written last");
        lasted
    });
    expect(outcome)
}

/// Each message a file of its own, synced with its directory before the next: what 250 costs without batches.
fn files(directory: &Path, messages: u64) -> Duration {
    let octets = vec![b'm'; MESSAGE_OCTETS + 150];
    let begun = Instant::now();
    for number in 0..messages {
        let path = directory.join(number.to_string());
        let mut file = expect(fs::File::create_new(path));
        expect(file.write_all(&octets));
        expect(file.sync_all());
        expect(expect(fs::File::open(directory)).sync_all());
    }
    let lasted = begun.elapsed();
    let sizes = expect(fs::read_dir(directory)).map(|file| expect(expect(file).metadata()).len());
    let (count, sum) = sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
    assert_eq!((count, sum), (messages, messages * octets.len() as u64));
    lasted
}

/// Whether cargo asked for figures (`cargo bench`), and not only whether all this runs (`cargo test`).
fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

fn expect<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

fn spool(criterion: &mut Criterion) {
    let scratch = || expect(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")));
    let mut group = criterion.benchmark_group("spool");
    group.sampling_mode(SamplingMode::Flat);
    for sessions in [1, 4, 16, 64, 256] {
        group.throughput(Throughput::Elements(sessions as u64));
        for (name, sync) in [("synced", WriteSync::Yes), ("not_synced", WriteSync::No)] {
            group.bench_function(format!("{name}/{sessions}_sessions"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let directory = scratch();
                    let messages = rounds * sessions as u64;
                    append(&directory.path().join("spool"), sessions, messages, sync)
                });
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("ring_alone_write_and_sync", |bencher| {
        bencher.iter_custom(|messages| ring_alone(scratch().path(), messages));
    });
    group.bench_function("file_and_fsync_each", |bencher| {
        bencher.iter_custom(|messages| files(scratch().path(), messages));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // Each sample makes and warms up a spool of its own.
    config = Criterion::default().sample_size(20);
    targets = spool
}
criterion_main!(benches);
