//! What a start finds that this release, these settings, or this process did not write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::disk::simulated::{CrashAfter, Simulated};
use super::super::disk::{Access, Disk, WriteSync, write_all};
use super::super::{Log, LogDirectory, Purpose, RecoveryError, recover};
use super::messages::{append, append_by_parts, check_content, message};
use super::{Running, SEGMENT_OCTETS, directory, octets_on_disk, run, settings};

fn all_files(disk: &Simulated, directory: &Path, into: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for name in disk.names(directory).unwrap() {
        let path = directory.join(name);
        let contents = disk.contents(&path).ok();
        if contents.is_none() {
            all_files(disk, &path, into);
        }
        into.insert(path, contents);
    }
}

fn everything(disk: &Simulated) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut files = BTreeMap::new();
    all_files(disk, Path::new("/"), &mut files);
    files
}

#[test]
fn a_look_changes_nothing() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Simulated::new(seed, CrashAfter(random.u64(1..200)));
        run(disk.until_crash(async {
            let look = recover(&disk, directory(), Purpose::Look).await.unwrap();
            assert_eq!(look.messages, []);
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            for number in 1..30 {
                append(&running.log, &message(number, 5000)).await.unwrap();
                append_by_parts(
                    &running.log,
                    &message(number + 100, 5000),
                    &mut random.fork(),
                )
                .await
                .unwrap();
                running.log.note_done(message(number / 2, 0).id);
            }
        }));
        let disk = disk.crash();
        if random.bool() {
            for name in disk.names(directory().path()).unwrap_or_default() {
                let path = directory().path().join(name);
                if disk.contents(&path).is_ok_and(|octets| octets.len() > 3000) {
                    disk.rot(&path, 2000..2100);
                }
            }
        }
        let before = everything(&disk);
        run(async {
            recover(&disk, directory(), Purpose::Look).await.unwrap();
        });
        assert!(everything(&disk) == before, "seed {seed}");
    }
}

#[test]
fn another_version_is_refused_by_its_path() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
        append(&running.log, &message(1, 10)).await.unwrap();
        running.close().await;
        let path = directory().path().join("segment-000001");
        let path = match disk.contents(&path).unwrap().starts_with(b"ringpost") {
            true => path,
            false => directory().path().join("segment-000002"),
        };
        let file = disk.open(&path, Access::ReadWrite).await.unwrap();
        for sector in [0, 512] {
            write_all(&file, vec![99, 0, 0, 0], sector + 8, WriteSync::Yes)
                .await
                .0
                .unwrap();
        }
        let before = everything(&disk);
        for purpose in [Purpose::Look, Purpose::GoOn] {
            let Err(error) = recover(&disk, directory(), purpose).await else {
                panic!("it started");
            };
            assert!(matches!(error, RecoveryError::Version { version: 99, .. }));
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
        }
        assert!(everything(&disk) == before);
    });
}

#[test]
fn segments_of_another_size_are_used_up_and_removed() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let mut number = 0;
        for size in [2, 1, 4, 1, 2] {
            let settings = settings(size * SEGMENT_OCTETS);
            let (running, look) = Running::start(&disk, &settings).await;
            for found in &look.messages {
                check_content(&running.log, &found.accepted).await.unwrap();
            }
            for _ in 0..30 {
                number += 1;
                append(&running.log, &message(number, 6000)).await.unwrap();
                if number > 10 {
                    running.log.note_done(message(number - 10, 0).id);
                }
            }
            running.log.flush().await;
            append(&running.log, &message(number + 1000, 10))
                .await
                .unwrap();
            running.log.note_done(message(number + 1000, 0).id);
            running.close().await;
            assert_eq!(settings.space.taken(), octets_on_disk(&disk));
        }
        let look = recover(&disk, directory(), Purpose::Look).await.unwrap();
        assert_eq!(look.messages.len(), 10);
    });
}

#[test]
fn logs_of_many_shards_share_a_disk_and_the_space() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = settings(SEGMENT_OCTETS);
        let mut running = Vec::new();
        for shard in 0..4 {
            let directory = LogDirectory::of_shard(Path::new("/spool"), shard);
            let recovered = recover(&disk, directory, Purpose::GoOn).await.unwrap();
            let log = Log::open(disk.clone(), recovered, settings.clone())
                .await
                .unwrap();
            let run = tokio::task::spawn_local(log.clone().run());
            append(&log, &message(100 + shard as u64, 10))
                .await
                .unwrap();
            running.push(Running { log, run });
        }
        for it in running {
            it.close().await;
        }
        // One that is written to, one behind it, and perhaps one that was filled meanwhile.
        let taken = settings.space.taken();
        assert!(
            (4 * 2..=4 * 3).contains(&(taken / SEGMENT_OCTETS)),
            "{taken}"
        );
        let disk = disk.crash();
        for shard in 0..4 {
            let directory = LogDirectory::of_shard(Path::new("/spool"), shard);
            let look = recover(&disk, directory, Purpose::Look).await.unwrap();
            assert_eq!(look.messages.len(), 1);
            assert_eq!(look.messages[0].accepted, message(100 + shard as u64, 10));
        }
    });
}
