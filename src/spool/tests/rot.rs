//! Octets that change on a disk whose server is down.

use std::path::PathBuf;

use fastrand::Rng;

use super::super::disk::Disk;
use super::super::disk::simulated::{CrashAfter, Simulated};
use super::super::{Accepted, Purpose, ReadError, recover};
use super::messages::{append, append_by_parts, check_content, content, message};
use super::{Running, SEGMENT_OCTETS, directory, run, settings};

/// Messages one after the other, in batches of their own; every third has a file. The last two are not looked at.
async fn filled(disk: &Simulated, random: &mut Rng) -> Vec<Accepted> {
    let (running, _) = Running::start(disk, &settings(SEGMENT_OCTETS)).await;
    let mut messages = Vec::new();
    for number in 1..14 {
        let accepted = message(number, random.usize(200..20_000));
        match number % 3 {
            0 => append_by_parts(&running.log, &accepted, random)
                .await
                .unwrap(),
            _ => append(&running.log, &accepted).await.unwrap(),
        }
        messages.push(accepted);
    }
    running.close().await;
    messages.truncate(11);
    messages
}

fn segments(disk: &Simulated) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for name in disk.names(directory().path()).unwrap() {
        if name.to_str().unwrap().starts_with("segment-") {
            paths.push(directory().path().join(name));
        }
    }
    paths
}

/// The segment that holds these octets, and where.
fn place(disk: &Simulated, octets: &[u8]) -> (PathBuf, u64) {
    let found = segments(disk).into_iter().find_map(|path| {
        let at = memchr::memmem::find(&disk.contents(&path).unwrap(), octets)?;
        Some((path, at as u64))
    });
    found.expect("it was written")
}

#[test]
fn one_entry_is_damaged_and_all_others_are_there() {
    for seed in 0..100 {
        let mut random = Rng::with_seed(seed);
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        let messages = run(filled(&disk, &mut random));
        let victim = messages[random.usize(..messages.len())].clone();
        // In its envelope, or in its data.
        let in_data = random.bool() && victim.id.number() % 3 != 0;
        let octets = match in_data {
            true => content(&victim).to_vec(),
            false => victim.received.to_vec(),
        };
        let (path, at) = place(&disk, &octets);
        disk.rot(&path, at + 5..at + 6);
        let rotten = disk.contents(&path).unwrap();
        run(async {
            let recovered = recover(&disk, directory(), Purpose::GoOn).await.unwrap();
            for accepted in &messages {
                let found = recovered.messages.iter().any(|it| it.accepted == *accepted);
                assert_eq!(found, *accepted != victim, "seed {seed}, {}", accepted.id);
            }
            let [damage] = recovered.damages.as_slice() else {
                panic!("seed {seed}: {:?}", recovered.damages);
            };
            assert!(
                damage.path == path && damage.place.contains(&(at + 5)),
                "{damage:?}"
            );
            // What is left of it lies where nothing is written over it, after a power cut too.
            let disk = disk.crash();
            let aside = disk.names(&directory().damaged()).unwrap();
            let aside = aside.iter().map(|name| directory().damaged().join(name));
            let aside: Vec<_> = aside.map(|path| disk.contents(&path).unwrap()).collect();
            let place = usize::try_from(damage.place.start).unwrap()
                ..usize::try_from(damage.place.end).unwrap();
            assert!(aside.contains(&rotten[place].to_vec()), "seed {seed}");
            if victim.id.number() % 3 == 0 {
                assert!(aside.iter().any(|it| it == content(&victim)), "seed {seed}");
            }
            // The next start sees the same, and the log goes on.
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            for found in &recovered.messages {
                check_content(&running.log, &found.accepted).await.unwrap();
                running.log.note_done(found.accepted.id);
            }
            append(&running.log, &message(100, 10)).await.unwrap();
            running.close().await;
        });
    }
}

#[test]
fn data_of_a_large_message_is_damaged_when_it_is_read() {
    let disk = Simulated::new(0, CrashAfter::NEVER);
    let messages = run(filled(&disk, &mut Rng::with_seed(0)));
    let large = &messages[2];
    disk.rot(&directory().own_file(large.id), 100..101);
    run(async {
        let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
        let mut reader = running.log.read(large).await.unwrap();
        let outcome = super::messages::read_on(&mut reader, 1 << 20).await;
        assert!(matches!(outcome, Err(ReadError::Damaged { .. })));
        running.close().await;
    });
}

#[test]
fn a_large_message_whose_file_is_gone_is_reported() {
    let disk = Simulated::new(0, CrashAfter::NEVER);
    let messages = run(filled(&disk, &mut Rng::with_seed(0)));
    let large = &messages[2];
    run(async {
        disk.remove(&directory().own_file(large.id)).await.unwrap();
        let recovered = recover(&disk, directory(), Purpose::GoOn).await.unwrap();
        assert_eq!(recovered.damages.len(), 1);
        assert_eq!(recovered.damages[0].id, Some(large.id));
        assert_eq!(recovered.messages.len(), 12);
    });
}

/// One sector of a header is enough; without both the segment is set aside whole, and nothing is removed.
#[test]
fn a_header_is_damaged() {
    for (rot, damages) in [(0..512, 0), (512..1024, 0), (0..1024, 1)] {
        let disk = Simulated::new(0, CrashAfter::NEVER);
        let messages = run(filled(&disk, &mut Rng::with_seed(0)));
        let (path, _) = place(&disk, &messages[0].received);
        // Not the version: another one is another release's.
        disk.rot(&path, rot.start + 12..rot.start + 100);
        disk.rot(&path, rot.end - 500..rot.end);
        let rotten = disk.contents(&path).unwrap();
        run(async {
            let recovered = recover(&disk, directory(), Purpose::GoOn).await.unwrap();
            assert_eq!(recovered.damages.len(), damages);
            let all = recovered.messages.len() == 13;
            assert_eq!(all, damages == 0);
            if damages > 0 {
                let disk = disk.crash();
                let aside = directory().damaged();
                let names = disk.names(&aside).unwrap();
                let mut contents = names
                    .iter()
                    .map(|it| disk.contents(&aside.join(it)).unwrap());
                assert!(contents.any(|octets| octets == rotten));
            }
        });
    }
}

#[test]
fn rot_anywhere_never_panics_and_gives_no_false_mail() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let disk = Simulated::new(seed, CrashAfter::NEVER);
        run(filled(&disk, &mut random));
        for path in segments(&disk) {
            let octets = disk.contents(&path).unwrap().len() as u64;
            for _ in 0..random.u8(0..20) {
                let begin = random.u64(..octets);
                disk.rot(&path, begin..(begin + random.u64(1..50)).min(octets));
            }
        }
        run(async {
            let Ok(look) = recover(&disk, directory(), Purpose::Look).await else {
                return; // A version that nobody knows.
            };
            let recovered = recover(&disk, directory(), Purpose::GoOn).await.unwrap();
            assert_eq!(look.messages, recovered.messages);
            assert_eq!(look.damages, recovered.damages);
            for found in &recovered.messages {
                let octets = usize::try_from(found.accepted.data_octets).unwrap();
                assert_eq!(found.accepted, message(found.accepted.id.number(), octets));
            }
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            for found in &recovered.messages {
                check_content(&running.log, &found.accepted).await.unwrap();
            }
            append(&running.log, &message(100, 10)).await.unwrap();
            running.close().await;
        });
    }
}
