//! `run` ends after `close`, whatever the log is at.

use std::time::Duration;

use super::super::CommitError;
use super::super::disk::simulated::{CrashAfter, Faults, Simulated};
use super::messages::{append, message};
use super::{Running, SEGMENT_OCTETS, octets_on_disk, run, settings};

#[test]
fn nothing_is_taken_after_the_close_and_nobody_waits() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = settings(SEGMENT_OCTETS);
        let (running, _) = Running::start(&disk, &settings).await;
        let log = running.log.clone();
        let accepted = message(1, 1000);
        append(&log, &accepted).await.unwrap();
        log.note_done(accepted.id);
        running.close().await;
        assert_eq!(log.alive(), 0, "the note was written");
        let outcome = append(&log, &message(2, 1)).await;
        assert!(matches!(outcome, Err(CommitError::Closed)));
        let own_file = log.begin_own_file(message(3, 1).id).await.unwrap();
        let data = super::messages::mail_data(super::messages::content(&message(3, 1)));
        let outcome = log.append_stored(message(3, 1), data, own_file).await;
        assert!(matches!(outcome, Err(CommitError::Closed)));
        log.flush().await;
        log.close();
        assert_eq!(settings.space.taken(), octets_on_disk(&disk));
    });
}

#[test]
fn what_was_handed_in_before_is_written() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
        let log = running.log.clone();
        let waiting = tokio::task::spawn_local(async move { append(&log, &message(1, 10)).await });
        tokio::task::yield_now().await;
        running.close().await;
        waiting.await.unwrap().unwrap();
    });
}

/// The disk fails for good: with messages waiting, with notes waiting, and with nothing.
#[test]
fn a_disk_that_fails_for_good_does_not_keep_it_open() {
    for (messages, notes) in [(true, false), (false, true), (true, true), (false, false)] {
        run(async {
            let disk = Simulated::new(1, CrashAfter::NEVER);
            let (running, _) = Running::start(&disk, &settings(SEGMENT_OCTETS)).await;
            let log = running.log.clone();
            let accepted = message(1, 1000);
            append(&log, &accepted).await.unwrap();
            disk.set_faults(Faults {
                write_errors: 1.0,
                ..Faults::default()
            });
            if notes {
                log.note_done(accepted.id);
            }
            let waiting = messages.then(|| {
                let log = log.clone();
                tokio::task::spawn_local(async move { append(&log, &message(2, 10)).await })
            });
            tokio::task::yield_now().await;
            let flushing = tokio::task::spawn_local(async move { log.flush().await });
            tokio::task::yield_now().await;
            tokio::time::timeout(Duration::from_secs(60), running.close())
                .await
                .unwrap();
            flushing.await.unwrap();
            if let Some(waiting) = waiting {
                waiting.await.unwrap().unwrap_err();
            }
        });
    }
}
