//! What shares a sync, and what waits for none.

use std::time::Duration;

use tokio::time::Instant;

use super::super::disk::simulated::{CrashAfter, Simulated};
use super::super::{Purpose, recover};
use super::messages::{append, message, progress};
use super::{Running, directory, run, settings};

#[test]
fn many_messages_share_a_sync_and_a_lone_one_has_its_own() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = settings(1 << 20);
        let (running, _) = Running::start(&disk, &settings).await;
        // Until the segments are made and filled; the clock is a simulated one.
        for number in 0..4 {
            append(&running.log, &message(number, 100)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let meters = settings.meters;
        for number in 4..10 {
            let before = (meters.syncs().get(), meters.batches().get());
            append(&running.log, &message(number, 100)).await.unwrap();
            assert_eq!(
                (meters.syncs().get(), meters.batches().get()),
                (before.0 + 1, before.1 + 1)
            );
        }
        let before = meters.syncs().get();
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let log = running.log.clone();
                tokio::task::spawn_local(async move {
                    for number in 0..10 {
                        append(&log, &message(1000 + client * 10 + number, 100))
                            .await
                            .unwrap();
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        let syncs = meters.syncs().get() - before;
        assert!(syncs <= 30, "{syncs} syncs for 640 messages");
        assert_eq!(meters.messages().get(), 650);
        running.close().await;
    });
}

#[test]
fn notes_wait_100_ms_for_company_and_no_longer() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = settings(1 << 20);
        let (running, _) = Running::start(&disk, &settings).await;
        let messages = [message(1, 100), message(2, 100)];
        for accepted in &messages {
            append(&running.log, accepted).await.unwrap();
        }
        let noted = progress(1, &messages[0], &mut fastrand::Rng::with_seed(1));
        let batches = settings.meters.batches().get();
        let begun = Instant::now();
        running.log.note_progress(messages[0].id, &noted);
        tokio::time::sleep(Duration::from_millis(90)).await;
        assert_eq!(settings.meters.batches().get(), batches);
        running.log.note_done(messages[1].id);
        while settings.meters.batches().get() == batches {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(
            begun.elapsed() <= Duration::from_millis(110),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(running.log.alive(), 1);
        let disk = disk.crash();
        let recovered = recover(&disk, directory(), Purpose::Look).await.unwrap();
        assert_eq!(recovered.messages.len(), 1);
        assert_eq!(recovered.messages[0].progress, noted);
    });
}
