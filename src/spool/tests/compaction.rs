//! Old segments that a few messages keep alive.

use std::time::Duration;

use super::super::disk::simulated::{CrashAfter, Simulated};
use super::super::{Fate, LogSettings, Progress};
use super::messages::{append, check_content, message};
use super::{Running, SEGMENT_OCTETS, run, settings};

#[test]
fn a_few_messages_move_and_their_segments_are_free() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = settings(SEGMENT_OCTETS);
        let (running, _) = Running::start(&disk, &settings).await;
        let log = &running.log;
        for number in 1..200 {
            append(log, &message(number, 6000)).await.unwrap();
            if number % 50 != 0 {
                log.note_done(message(number, 6000).id);
            }
        }
        log.flush().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (used, free) = log.segments();
        assert!(used <= 4 && free <= 5, "{used} used, {free} free");
        for number in [50, 100, 150] {
            check_content(log, &message(number, 6000)).await.unwrap();
        }
        running.close().await;
    });
}

/// Each start opens another segment, and leaves the rest of the one before empty.
#[test]
fn starts_do_not_pile_segments_up() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        for number in 1..40 {
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            append(&running.log, &message(number, 1000)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (used, _) = running.log.segments();
            assert!(used <= 5, "{used} segments in use");
            running.close().await;
        }
    });
}

/// The records of progress are larger than the messages: to move them wins nothing.
#[test]
fn it_comes_to_an_end_with_much_progress_and_little_mail() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
        for number in 1..300 {
            let accepted = message(number, 10);
            append(&running.log, &accepted).await.unwrap();
            let reason = Fate::Deferred("4.4.1 ".repeat(200).into());
            let progress = Progress {
                recipients: vec![reason; accepted.envelope.recipients.len()],
                ..Progress::begin(0)
            };
            running.log.note_progress(accepted.id, &progress);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let operations = disk.operations();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(disk.operations(), operations, "it goes on and on");
        running.close().await;
    });
}

#[test]
fn a_message_larger_than_a_segment_stays_where_it_is() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let (running, _) = Running::start(&disk, &settings(4 * SEGMENT_OCTETS)).await;
        append(&running.log, &message(1, 100_000)).await.unwrap();
        running.close().await;
        let settings = LogSettings {
            ..settings(SEGMENT_OCTETS)
        };
        let (running, _) = Running::start(&disk, &settings).await;
        for number in 2..100 {
            append(&running.log, &message(number, 6000)).await.unwrap();
            running.log.note_done(message(number, 6000).id);
        }
        running.log.flush().await;
        let before = settings.meters.batches().get();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(settings.meters.batches().get() - before < 10);
        check_content(&running.log, &message(1, 100_000))
            .await
            .unwrap();
        running.log.note_done(message(1, 0).id);
        running.log.flush().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        append(&running.log, &message(1000, 10)).await.unwrap();
        let (used, free) = running.log.segments();
        assert!(used <= 2 && free <= 5, "{used} used, {free} free");
        running.close().await;
    });
}
