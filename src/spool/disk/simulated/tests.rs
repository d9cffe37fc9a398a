//! Shows that the disk is as nasty as it says: over seeds each outcome comes about, and none that must not.

use std::collections::BTreeSet;

use super::super::{read_up_to, write_all};
use super::*;

/// What a scenario leaves of a file after a crash; nothing if its name is gone.
fn after_crash(disk: &Simulated, path: &str) -> Option<Vec<u8>> {
    run(contents(&disk.crash(), path))
}

async fn contents(disk: &Simulated, path: &str) -> Option<Vec<u8>> {
    match disk.open(Path::new(path), Access::Read).await {
        Ok(file) => Some(read_up_to(&file, Vec::new(), 0, 1 << 20).await.unwrap()),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            None
        }
    }
}

/// A file with a name that lasts.
async fn lasting(disk: &Simulated, path: &str) -> SimulatedFile {
    let file = disk.create(Path::new(path)).await.unwrap();
    disk.sync_directory(Path::new("/")).await.unwrap();
    file
}

async fn put_in(file: &SimulatedFile, octet: u8, octets: usize, offset: u64, sync: WriteSync) {
    write_all(file, vec![octet; octets], offset, sync)
        .await
        .0
        .unwrap();
}

/// Each sector's octet; sectors are whole or the test fails.
fn sectors(contents: &[u8]) -> String {
    let mut text = String::new();
    for sector in contents.chunks(512) {
        assert!(
            sector.iter().all(|octet| *octet == sector[0]),
            "torn within a sector"
        );
        text.push(match sector[0] {
            0 => '0',
            octet => char::from(octet),
        });
    }
    text
}

/// What the seeds of a scenario come to.
fn outcomes<T: Ord>(outcome: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..400).map(outcome).collect()
}

fn errno<T>(outcome: io::Result<T>) -> i32 {
    match outcome {
        Ok(_) => panic!("went well"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

fn texts<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Four sectors of `a`, synced; then what the scenario makes of them.
async fn four_sectors(disk: &Simulated) -> SimulatedFile {
    let file = lasting(disk, "/f").await;
    put_in(&file, b'a', 2048, 0, WriteSync::No).await;
    file.sync().await.unwrap();
    file
}

#[test]
fn an_unsynced_write_is_kept_or_dropped_or_torn_at_any_sector() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 1536, 0, WriteSync::No).await;
        });
        sectors(&after_crash(&disk, "/f").unwrap())
    });
    let all = [
        "aaaa", "aaba", "abaa", "abba", "baaa", "baba", "bbaa", "bbba",
    ];
    assert_eq!(found, texts(all));
}

#[test]
fn a_later_write_is_there_without_an_earlier_one() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 512, 0, WriteSync::No).await;
            put_in(&file, b'c', 512, 512, WriteSync::No).await;
        });
        sectors(&after_crash(&disk, "/f").unwrap())
    });
    assert_eq!(found, texts(["aaaa", "acaa", "baaa", "bcaa"]));
}

#[test]
fn a_write_in_flight_is_unsynced_even_if_it_is_to_sync() {
    let before = {
        let disk = Simulated::new(0, CrashAfter::NEVER);
        run(four_sectors(&disk));
        disk.operations()
    };
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter(before + 1));
        let ended = run(disk.until_crash(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 1024, 0, WriteSync::Yes).await;
        }));
        assert_eq!(ended, None);
        sectors(&after_crash(&disk, "/f").unwrap())
    });
    assert_eq!(found, texts(["aaaa", "abaa", "baaa", "bbaa"]));
}

#[test]
fn a_write_that_another_operation_overtakes_is_not_durable_before_it_ends() {
    // The crash comes with another operation, so that the write may be at any point.
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        let ended = Rc::new(RefCell::new(false));
        run(disk.until_crash(async {
            let file = four_sectors(&disk).await;
            disk.set_crash(CrashAfter(disk.operations() + 3 + seed % 3));
            let (writer, told) = (file.clone(), Rc::clone(&ended));
            tokio::task::spawn_local(async move {
                put_in(&writer, b'b', 1024, 0, WriteSync::Yes).await;
                *told.borrow_mut() = true;
            });
            loop {
                file.len().await.unwrap();
            }
        }));
        (*ended.borrow(), sectors(&after_crash(&disk, "/f").unwrap()))
    });
    let acknowledged = found
        .iter()
        .filter(|(ended, _)| *ended)
        .map(|(_, text)| text.clone());
    let others = found
        .iter()
        .filter(|(ended, _)| !*ended)
        .map(|(_, text)| text.clone());
    assert_eq!(acknowledged.collect::<BTreeSet<_>>(), texts(["bbaa"]));
    assert_eq!(
        others.collect::<BTreeSet<_>>(),
        texts(["aaaa", "abaa", "baaa", "bbaa"])
    );
}

#[test]
fn a_write_that_syncs_does_so_for_its_own_octets_alone() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 512, 0, WriteSync::No).await;
            put_in(&file, b'c', 256, 256, WriteSync::Yes).await;
        });
        let found = after_crash(&disk, "/f").unwrap();
        assert!(found[256..512].iter().all(|octet| *octet == b'c'), "{disk}");
        char::from(found[0])
    });
    assert_eq!(found, BTreeSet::from(['a', 'b']));
}

#[test]
fn an_older_unsynced_write_does_not_come_over_a_synced_one() {
    for seed in 0..400 {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 2048, 0, WriteSync::No).await;
            put_in(&file, b'c', 1000, 100, WriteSync::Yes).await;
        });
        let found = after_crash(&disk, "/f").unwrap();
        assert!(
            found[100..1100].iter().all(|octet| *octet == b'c'),
            "{disk}"
        );
        assert!(
            found[..100]
                .iter()
                .all(|octet| matches!(octet, b'a' | b'b')),
            "{disk}"
        );
        assert!(
            found[1100..]
                .iter()
                .all(|octet| matches!(octet, b'a' | b'b')),
            "{disk}"
        );
    }
}

#[test]
fn a_sync_does_not_cover_what_takes_effect_after_its_begin() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        let written_first = run(async {
            let file = four_sectors(&disk).await;
            let sync = file.sync();
            tokio::pin!(sync);
            // The sync is asked first, so it begins before the write does.
            tokio::select! {
                biased;
                synced = &mut sync => {
                    synced.unwrap();
                    return false;
                }
                () = put_in(&file, b'b', 1024, 0, WriteSync::No) => {}
            }
            sync.await.unwrap();
            true
        });
        (written_first, sectors(&after_crash(&disk, "/f").unwrap()))
    });
    let kept = found
        .into_iter()
        .filter(|(written_first, _)| *written_first);
    let kept: BTreeSet<_> = kept.map(|(_, text)| text).collect();
    assert_eq!(kept, texts(["aaaa", "abaa", "baaa", "bbaa"]));
}

#[test]
fn an_unsynced_length_is_kept_or_dropped_or_in_between() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            file.reserve(10_000).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 10_000);
        });
        let found = after_crash(&disk, "/f").unwrap();
        assert!(found[2048..].iter().all(|octet| *octet == 0));
        found.len()
    });
    assert!(
        found.contains(&2048) && found.contains(&10_000) && found.len() > 2,
        "{found:?}"
    );
}

#[test]
fn a_write_that_syncs_takes_along_the_length_up_to_it() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = lasting(&disk, "/f").await;
            file.reserve(8192).await.unwrap();
            put_in(&file, b'b', 512, 4096, WriteSync::Yes).await;
        });
        let found = after_crash(&disk, "/f").unwrap();
        assert!(found[..4096].iter().all(|octet| *octet == 0));
        assert!(found[4096..4608].iter().all(|octet| *octet == b'b'));
        found.len()
    });
    assert!(found.contains(&4608) && found.contains(&8192), "{found:?}");
}

#[test]
fn what_lay_behind_a_lost_length_does_not_come_back() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 512, 2048, WriteSync::No).await;
        });
        let disk = disk.crash();
        run(async {
            let file = disk.open(Path::new("/f"), Access::ReadWrite).await.unwrap();
            let length = file.len().await.unwrap();
            file.reserve(2560).await.unwrap();
            let found = contents(&disk, "/f").await.unwrap();
            let behind = usize::try_from(length).unwrap();
            assert!(found[behind..].iter().all(|octet| *octet == 0), "{disk}");
            length
        })
    });
    assert!(found.contains(&2048) && found.contains(&2560), "{found:?}");
}

#[test]
fn a_sync_that_failed_loses_what_is_not_written_again() {
    let failing = Faults {
        sync_errors: 1.0,
        ..Faults::default()
    };
    // Whether the octets are written again, and how they were to be synced the first time.
    for (again, sync) in [
        (false, WriteSync::No),
        (false, WriteSync::Yes),
        (true, WriteSync::No),
    ] {
        let found = outcomes(|seed| {
            let disk = Simulated::new(seed, CrashAfter::NEVER);
            run(async {
                let file = four_sectors(&disk).await;
                disk.set_faults(failing);
                let (written, _) = file.write(vec![b'b'; 1024], 0, 2048, sync).await;
                match sync {
                    WriteSync::Yes => assert_eq!(errno(written), libc::EIO),
                    WriteSync::No => assert_eq!(errno(file.sync().await), libc::EIO),
                }
                disk.set_faults(Faults::default());
                let seen = contents(&disk, "/f").await.unwrap();
                assert_eq!(sectors(&seen), "aaaabb", "reads see it all the same");
                if again {
                    put_in(&file, b'b', 1024, 2048, WriteSync::No).await;
                }
                file.sync().await.unwrap();
            });
            let mut found = after_crash(&disk, "/f").unwrap();
            // A torn length may end within a sector.
            found.truncate(found.len() / 512 * 512);
            sectors(&found)
        });
        match again {
            true => assert_eq!(found, texts(["aaaabb"])),
            false => {
                for expected in ["aaaa", "aaaa00", "aaaab0", "aaaa0b", "aaaabb"] {
                    assert!(found.contains(expected), "{expected} not among {found:?}");
                }
            }
        }
    }
}

#[test]
fn a_sync_that_failed_within_a_write_takes_along_its_pages() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let file = four_sectors(&disk).await;
            put_in(&file, b'b', 512, 0, WriteSync::No).await;
            disk.set_faults(Faults {
                sync_errors: 1.0,
                ..Faults::default()
            });
            let (outcome, _) = file.write(vec![b'c'; 512], 0, 512, WriteSync::Yes).await;
            assert_eq!(errno(outcome), libc::EIO);
            disk.set_faults(Faults::default());
            file.sync().await.unwrap();
        });
        sectors(&after_crash(&disk, "/f").unwrap())
    });
    assert_eq!(found, texts(["aaaa", "acaa", "baaa", "bcaa"]));
}

/// Which of some names are there after a crash.
fn names_after_crash(disk: &Simulated, directory: &str) -> String {
    let disk = disk.crash();
    let mut names = run(disk.list(Path::new(directory))).unwrap();
    names.sort();
    names.iter().map(|name| name.to_str().unwrap()).collect()
}

#[test]
fn unsynced_names_are_kept_as_a_journal_or_wildly() {
    for (wild, expected) in [
        (false, texts(["", "a", "ab", "abc"])),
        (true, texts(["", "a", "b", "c", "ab", "ac", "bc", "abc"])),
    ] {
        let found = outcomes(|seed| {
            let disk = Simulated::new(seed, CrashAfter::NEVER);
            disk.set_wild(wild);
            run(async {
                for path in ["/a", "/b", "/c"] {
                    let file = disk.create(Path::new(path)).await.unwrap();
                    // Does nothing for the name.
                    file.sync().await.unwrap();
                }
            });
            names_after_crash(&disk, "/")
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn a_removed_file_may_come_back_with_what_was_in_it() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            four_sectors(&disk).await;
            disk.remove(Path::new("/f")).await.unwrap();
            assert_eq!(contents(&disk, "/f").await, None);
        });
        after_crash(&disk, "/f").map(|found| sectors(&found))
    });
    assert_eq!(found, BTreeSet::from([None, Some("aaaa".to_owned())]));
}

#[test]
fn a_rename_is_pending_until_its_directory_is_synced() {
    for (synced, expected) in [(false, texts(["f", "g"])), (true, texts(["g"]))] {
        let found = outcomes(|seed| {
            let disk = Simulated::new(seed, CrashAfter::NEVER);
            run(async {
                four_sectors(&disk).await;
                disk.rename(Path::new("/f"), Path::new("/g")).await.unwrap();
                if synced {
                    disk.sync_directory(Path::new("/")).await.unwrap();
                }
                assert_eq!(sectors(&contents(&disk, "/g").await.unwrap()), "aaaa");
            });
            names_after_crash(&disk, "/")
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn a_rename_between_directories_is_not_undone_by_what_was_before() {
    for seed in 0..400 {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        disk.set_wild(seed % 2 == 0);
        run(async {
            for path in ["/a", "/b"] {
                disk.make_directory(Path::new(path)).await.unwrap();
            }
            disk.sync_directory(Path::new("/")).await.unwrap();
            disk.create(Path::new("/a/f")).await.unwrap();
            disk.rename(Path::new("/a/f"), Path::new("/b/f"))
                .await
                .unwrap();
            disk.sync_directory(Path::new("/b")).await.unwrap();
        });
        let disk = disk.crash();
        run(async {
            assert!(
                disk.list(Path::new("/a")).await.unwrap().is_empty(),
                "{disk}"
            );
            assert_eq!(disk.list(Path::new("/b")).await.unwrap().len(), 1, "{disk}");
        });
    }
}

#[test]
fn a_sync_of_a_directory_that_failed_loses_names_for_good() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            disk.create(Path::new("/a")).await.unwrap();
            disk.set_faults(Faults {
                sync_errors: 1.0,
                ..Faults::default()
            });
            assert_eq!(errno(disk.sync_directory(Path::new("/")).await), libc::EIO);
            disk.set_faults(Faults::default());
            assert_eq!(disk.list(Path::new("/")).await.unwrap(), ["a"]);
            disk.create(Path::new("/b")).await.unwrap();
            disk.sync_directory(Path::new("/")).await.unwrap();
        });
        names_after_crash(&disk, "/")
    });
    assert_eq!(found, texts(["ab", "b"]));
}

#[test]
fn a_directory_is_lost_with_all_in_it_unless_its_own_name_is_synced() {
    let found = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            disk.make_directory(Path::new("/d")).await.unwrap();
            disk.create(Path::new("/d/f")).await.unwrap();
            disk.sync_directory(Path::new("/d")).await.unwrap();
        });
        names_after_crash(&disk, "/")
    });
    assert_eq!(found, texts(["", "d"]));
}

#[test]
fn errors_are_those_of_the_system() {
    let disk = Simulated::new(0, CrashAfter::NEVER);
    run(async {
        let path = Path::new;
        disk.make_directory(path("/d")).await.unwrap();
        let file = disk.create(path("/d/f")).await.unwrap();
        let reader = disk.open(path("/d/f"), Access::Read).await.unwrap();
        let write = |file: &SimulatedFile| {
            let file = file.clone();
            async move { file.write(vec![1], 0, u64::MAX, WriteSync::No).await.0 }
        };
        for (case, found, expected) in [
            (
                "make what is there",
                errno(disk.make_directory(path("/d")).await),
                libc::EEXIST,
            ),
            (
                "create what is there",
                errno(disk.create(path("/d/f")).await),
                libc::EEXIST,
            ),
            (
                "create in nothing",
                errno(disk.create(path("/e/f")).await),
                libc::ENOENT,
            ),
            (
                "create in a file",
                errno(disk.create(path("/d/f/g")).await),
                libc::ENOTDIR,
            ),
            (
                "open nothing",
                errno(disk.open(path("/g"), Access::Read).await),
                libc::ENOENT,
            ),
            (
                "open a directory",
                errno(disk.open(path("/d"), Access::Read).await),
                libc::EISDIR,
            ),
            (
                "list nothing",
                errno(disk.list(path("/e")).await),
                libc::ENOENT,
            ),
            (
                "remove nothing",
                errno(disk.remove(path("/d/g")).await),
                libc::ENOENT,
            ),
            (
                "remove a directory",
                errno(disk.remove(path("/d")).await),
                libc::EISDIR,
            ),
            (
                "remove a full one",
                errno(disk.remove_directory(path("/d")).await),
                libc::ENOTEMPTY,
            ),
            (
                "remove no one",
                errno(disk.remove_directory(path("/e")).await),
                libc::ENOENT,
            ),
            (
                "no directory",
                errno(disk.remove_directory(path("/d/f")).await),
                libc::ENOTDIR,
            ),
            (
                "over one",
                errno(disk.rename(path("/d/f"), path("/d")).await),
                libc::EISDIR,
            ),
            (
                "step up",
                errno(disk.list(path("/d/../d")).await),
                libc::EINVAL,
            ),
            (
                "reserve nothing",
                errno(file.reserve(0).await),
                libc::EINVAL,
            ),
            (
                "reserve unasked",
                errno(reader.reserve(1).await),
                libc::EBADF,
            ),
            ("write unasked", errno(write(&reader).await), libc::EBADF),
            ("write too far", errno(write(&file).await), libc::EFBIG),
        ] {
            assert_eq!(found, expected, "{case}");
        }
        disk.rename(path("/d/f"), path("/d/f")).await.unwrap();
        disk.remove(path("/d/f")).await.unwrap();
        put_in(&file, b'a', 10, 0, WriteSync::Yes).await;
        assert_eq!(
            reader.read(Vec::with_capacity(20), 4).await.1,
            b"aaaaaa",
            "still open"
        );
        disk.remove_directory(path("/d")).await.unwrap();
    });
}

#[test]
fn each_fault_comes_when_it_is_asked_for() {
    let errors = outcomes(|seed| {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(async {
            let path = Path::new("/f");
            let file = four_sectors(&disk).await;
            let only = |fault: fn(&mut Faults)| {
                let mut faults = Faults::default();
                fault(&mut faults);
                disk.set_faults(faults);
            };

            only(|faults| faults.short_writes = 1.0);
            let taken = file
                .write(vec![b'b'; 100], 10, 0, WriteSync::No)
                .await
                .0
                .unwrap();
            assert!((1..90).contains(&taken), "{taken}");
            only(|faults| faults.short_reads = 1.0);
            let read = file.read(Vec::with_capacity(100), 0).await.0.unwrap();
            assert!((1..100).contains(&read), "{read}");
            only(|faults| faults.no_descriptor = 1.0);
            assert_eq!(errno(disk.open(path, Access::Read).await), libc::EMFILE);
            assert_eq!(errno(disk.create(Path::new("/g")).await), libc::EMFILE);
            only(|faults| faults.no_space = 1.0);
            assert_eq!(errno(disk.create(Path::new("/g")).await), libc::ENOSPC);
            assert_eq!(
                errno(disk.make_directory(Path::new("/g")).await),
                libc::ENOSPC
            );
            assert_eq!(errno(file.reserve(100_000).await), libc::ENOSPC);
            put_in(&file, b'a', 2048, 0, WriteSync::No).await;
            let (outcome, _) = file.write(vec![b'a'], 0, 200_000, WriteSync::No).await;
            assert_eq!(errno(outcome), libc::ENOSPC);
            only(|faults| faults.write_errors = 1.0);
            let (outcome, _) = file.write(vec![b'b'; 2048], 0, 0, WriteSync::Yes).await;
            assert_eq!(errno(outcome), libc::EIO);

            only(|_| {});
            let found = contents(&disk, "/f").await.unwrap();
            let written = found.iter().take_while(|octet| **octet == b'b').count();
            (written > 0, found.len() > 2048)
        })
    });
    let all = [(false, false), (false, true), (true, false), (true, true)];
    assert_eq!(
        errors,
        BTreeSet::from(all),
        "a part written, a part reserved"
    );
}

#[test]
fn a_full_disk_takes_what_has_blocks_and_heals_on_removal() {
    let disk = Simulated::new(0, CrashAfter::NEVER);
    disk.set_capacity(4 * 4096 + 100);
    run(async {
        let file = lasting(&disk, "/f").await;
        file.reserve(2 * 4096).await.unwrap();
        let other = lasting(&disk, "/g").await;
        let (taken, source) = other.write(vec![1; 20_000], 0, 0, WriteSync::No).await;
        assert_eq!(taken.unwrap(), 2 * 4096, "as much as there is");
        let (outcome, _) = other.write(source, 0, 2 * 4096, WriteSync::No).await;
        assert_eq!(errno(outcome), libc::ENOSPC);
        assert_eq!(errno(file.reserve(3 * 4096).await), libc::ENOSPC);
        assert_eq!(errno(disk.create(Path::new("/h")).await), libc::ENOSPC);
        put_in(&file, 2, 2 * 4096, 0, WriteSync::Yes).await;

        disk.remove(Path::new("/g")).await.unwrap();
        assert_eq!(
            errno(file.reserve(3 * 4096).await),
            libc::ENOSPC,
            "still open"
        );
        drop(other);
        file.reserve(4 * 4096).await.unwrap();
    });
}

#[test]
fn from_the_crash_on_nothing_ends() {
    let disk = Simulated::new(3, CrashAfter(5));
    let ended = run(disk.until_crash(async {
        let file = lasting(&disk, "/f").await;
        for _ in 0..10 {
            tokio::task::spawn_local({
                let file = file.clone();
                async move { file.len().await.unwrap() }
            });
        }
        pending::<()>().await;
    }));
    assert_eq!(ended, None);
    assert_eq!(disk.operations(), 5);

    let next = disk.crash();
    run(async {
        disk.crashed().await;
        let late = disk.list(Path::new("/"));
        let others = async {
            for _ in 0..100 {
                next.list(Path::new("/")).await.unwrap();
            }
        };
        tokio::select! {
            biased;
            _ = late => panic!("a disk without power answers"),
            () = others => {}
        }
    });
    assert_eq!((disk.operations(), next.operations()), (5, 100));
}

/// Tasks that get in each other's way, with faults; all that happened, as text.
fn busy(seed: u64, crash: CrashAfter) -> (String, u64) {
    let disk = Simulated::new(seed, crash);
    disk.set_faults(Faults {
        short_writes: 0.2,
        short_reads: 0.2,
        write_errors: 0.1,
        sync_errors: 0.1,
        no_space: 0.1,
        no_descriptor: 0.1,
    });
    run(disk.until_crash(async {
        let notify = Rc::new(Notify::new());
        let mut tasks = Vec::new();
        for number in 0..4u8 {
            let (disk, notify) = (disk.clone(), Rc::clone(&notify));
            tasks.push(tokio::task::spawn_local(async move {
                let path = format!("/{}", number / 2);
                let path = Path::new(&path);
                let file = match disk.create(path).await {
                    Ok(file) => file,
                    Err(_) => match disk.open(path, Access::ReadWrite).await {
                        Ok(file) => file,
                        Err(_) => return,
                    },
                };
                for round in 0..4 {
                    let offset = round * 700;
                    let _ = write_all(&file, vec![number; 1500], offset, WriteSync::Yes).await;
                    let _ = read_up_to(&file, Vec::new(), 0, 5000).await;
                    let _ = file.sync().await;
                    notify.notify_one();
                }
            }));
        }
        notify.notified().await;
        for task in tasks {
            task.await.unwrap();
        }
    }));
    let operations = disk.operations();
    let next = disk.crash();
    for path in ["/0", "/1"] {
        run(contents(&next, path));
    }
    (next.to_string(), operations)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut runs = BTreeSet::new();
    for seed in 0..50 {
        let (whole, operations) = busy(seed, CrashAfter::NEVER);
        assert_eq!(busy(seed, CrashAfter::NEVER).0, whole);
        for crash in (1..=operations).step_by(7) {
            let (cut, count) = busy(seed, CrashAfter(crash));
            assert_eq!(busy(seed, CrashAfter(crash)).0, cut);
            assert_eq!(count, crash);
            let before = cut.lines().take_while(|line| !line.starts_with("-----"));
            // The last operation may have taken effect, at once.
            let same = before
                .zip(whole.lines())
                .filter(|(cut, whole)| cut != whole)
                .count();
            assert!(same <= 1, "up to its crash a run is like the one without");
        }
        runs.insert(whole);
    }
    assert_eq!(runs.len(), 50, "each seed has a run of its own");
}

#[test]
fn the_history_tells_what_became_of_each_write() {
    let texts: String = (0..20).map(|seed| busy(seed, CrashAfter(40)).0).collect();
    for expected in [
        "simulated disk, seed 7\n",
        "    1 create /0\n",
        "write /1 at 700, 1500 octets, synced\n",
        " .. in effect\n",
        " -> 1500\n",
        " -> Input/output error (os error 5)\n",
        "----- power cut\n",
        " torn, kept sectors ",
        " dropped\n",
        " !! entry lost\n",
        " !! entry kept\n",
        "----- reboot\n",
    ] {
        assert!(texts.contains(expected), "{expected:?} is not in {texts}");
    }
}

/// For each octet of a file what it may be after a crash, kept without knowing how the disk goes about it.
struct Model {
    octets: Vec<MayBe>,
    /// The file is at least as long.
    length: usize,
}

#[derive(Clone, Copy)]
struct MayBe {
    /// One bit for each value.
    values: u32,
    now: u8,
    /// A sync that failed covered it, so that the next one says nothing.
    is_lost: bool,
}

impl Model {
    fn wrote(&mut self, octet: u8, range: Range<usize>, sync: WriteSync) {
        for may_be in &mut self.octets[range.clone()] {
            let before = match sync {
                WriteSync::Yes => 0,
                WriteSync::No => may_be.values,
            };
            *may_be = MayBe {
                values: before | 1 << octet,
                now: octet,
                is_lost: false,
            };
        }
        if sync == WriteSync::Yes {
            self.length = self.length.max(range.end);
        }
    }

    /// `seen` is what a read gives now.
    fn failed_to_write(&mut self, octet: u8, range: Range<usize>, seen: &[u8]) {
        for (may_be, now) in self.octets[range].iter_mut().zip(seen) {
            *may_be = MayBe {
                values: may_be.values | 1 << octet,
                now: *now,
                is_lost: true,
            };
        }
        self.failed_to_sync();
    }

    fn synced(&mut self) {
        for (at, may_be) in self
            .octets
            .iter_mut()
            .enumerate()
            .filter(|(_, it)| !it.is_lost)
        {
            if may_be.values.count_ones() > 1 {
                self.length = self.length.max(at + 1);
            }
            may_be.values = 1 << may_be.now;
        }
    }

    fn failed_to_sync(&mut self) {
        for may_be in &mut self.octets {
            may_be.is_lost |= may_be.values.count_ones() > 1;
        }
    }
}

#[test]
fn over_many_operations_only_what_may_be_is_there() {
    const OCTETS: usize = 16 * 1024;
    for seed in 0..1000 {
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        let mut rng = Rng::with_seed(!seed);
        let unwritten = MayBe {
            values: 1,
            now: 0,
            is_lost: false,
        };
        let mut model = Model {
            octets: vec![unwritten; OCTETS],
            length: 0,
        };
        run(async {
            let file = lasting(&disk, "/f").await;
            disk.set_faults(Faults {
                short_writes: 0.2,
                sync_errors: 0.1,
                ..Faults::default()
            });
            for octet in 1..rng.u8(2..30) {
                let begin = rng.usize(0..OCTETS);
                let octets = rng.usize(1..=(OCTETS - begin).min(5000));
                let sync = if rng.bool() {
                    WriteSync::Yes
                } else {
                    WriteSync::No
                };
                match file
                    .write(vec![octet; octets], 0, begin as u64, sync)
                    .await
                    .0
                {
                    Ok(taken) => model.wrote(octet, begin..begin + taken, sync),
                    Err(_) => {
                        let seen = read_up_to(&file, Vec::new(), begin as u64, octets).await;
                        model.failed_to_write(octet, begin..begin + octets, &seen.unwrap());
                    }
                }
                if rng.u8(0..8) == 0 {
                    match file.sync().await {
                        Ok(()) => model.synced(),
                        Err(_) => model.failed_to_sync(),
                    }
                }
            }
        });
        let found = after_crash(&disk, "/f").unwrap();
        assert!(
            found.len() >= model.length,
            "seed {seed}: too short\n{disk}"
        );
        for (at, (octet, may_be)) in found.iter().zip(&model.octets).enumerate() {
            assert!(
                may_be.values & 1 << octet != 0,
                "seed {seed}: {octet} at {at}\n{disk}"
            );
        }
    }
}
