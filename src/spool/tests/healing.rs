//! Faults that end: the log goes on without a restart.

use std::rc::Rc;
use std::time::Duration;

use super::super::disk::simulated::{CrashAfter, Faults, Simulated};
use super::super::{Accepted, CommitError, Log, LogSettings, Space};
use super::messages::{append, check_content, content, mail_data, message};
use super::{Running, SEGMENT_OCTETS, octets_on_disk, run, settings};

#[test]
fn messages_go_in_again_when_the_fault_is_over() {
    let none = Faults::default();
    let rows = [
        (
            "EIO",
            Faults {
                write_errors: 1.0,
                ..none
            },
        ),
        (
            "failed syncs",
            Faults {
                sync_errors: 1.0,
                ..none
            },
        ),
        (
            "disk full",
            Faults {
                no_space: 1.0,
                ..none
            },
        ),
        (
            "no descriptors",
            Faults {
                no_descriptor: 1.0,
                ..none
            },
        ),
        (
            "all at once",
            Faults {
                write_errors: 0.5,
                sync_errors: 0.5,
                no_space: 0.5,
                no_descriptor: 0.5,
                ..none
            },
        ),
    ];
    for (name, faults) in rows {
        for seed in 0..20 {
            run(async {
                let disk = Simulated::new(seed, CrashAfter::NEVER);
                let settings = settings(SEGMENT_OCTETS);
                let (running, _) = Running::start(&disk, &settings).await;
                let log = &running.log;
                let mut kept = Vec::new();
                for number in 1..40 {
                    match number {
                        5 => disk.set_faults(faults),
                        35 => {
                            disk.set_faults(none);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                        _ => {}
                    }
                    let accepted = message(number, 9000);
                    match append(log, &accepted).await {
                        Ok(()) => kept.push(accepted),
                        Err(error) => assert!((5..35).contains(&number), "{name}: {error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
                for accepted in &kept {
                    check_content(log, accepted).await.unwrap();
                }
                assert_eq!(log.alive(), kept.len(), "{name}");
                running.close().await;
                assert_eq!(settings.space.taken(), octets_on_disk(&disk), "{name}");
            });
        }
    }
}

/// A spool that is full with six segments.
fn bounded() -> LogSettings {
    LogSettings {
        space: Space::new(6 * SEGMENT_OCTETS),
        ..settings(SEGMENT_OCTETS)
    }
}

/// Appends messages until the spool is full: those that it took, and the number of the last.
async fn fill(log: &Log<Simulated>) -> (Vec<Accepted>, u64) {
    let mut kept = Vec::new();
    for number in 1.. {
        let accepted = message(number, 9000);
        match append(log, &accepted).await {
            Ok(()) => kept.push(accepted),
            Err(error) => {
                assert!(matches!(error, CommitError::Full));
                return (kept, number);
            }
        }
    }
    unreachable!("a spool with a bound is full some time");
}

/// Messages come without a pause while the spool is full. What is done makes room all the same.
#[test]
fn a_full_spool_takes_mail_again_when_mail_is_done() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = bounded();
        let (running, _) = Running::start(&disk, &settings).await;
        let log = &running.log;
        let (kept, mut number) = fill(log).await;
        assert!(settings.space.taken() <= settings.space.octets_max());
        for accepted in &kept {
            log.note_done(accepted.id);
        }
        for _ in 0..10_000 {
            number += 1;
            if append(log, &message(number, 9000)).await.is_ok() {
                running.close().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never again");
    });
}

/// All that a full spool holds goes back to its senders: each report takes room before the message gives its own.
#[test]
fn a_full_spool_empties_when_each_message_is_replaced_by_a_report() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = bounded();
        let (running, _) = Running::start(&disk, &settings).await;
        let log = &running.log;
        let (kept, mut number) = fill(log).await;
        for accepted in kept {
            number += 1;
            let report = message(number, 10_000);
            let data = Rc::new(mail_data(content(&report)));
            log.append_in_place(report.clone(), data).await.unwrap();
            check_content(log, &report).await.unwrap();
            log.note_done(accepted.id);
            log.note_done(report.id);
            let most = settings.space.octets_max() + 2 * SEGMENT_OCTETS;
            assert!(settings.space.taken() <= most, "{}", settings.space.taken());
        }
        log.flush().await;
        assert_eq!(log.alive(), 0);
        running.close().await;
    });
}

/// Little by little is done, and more is offered than there is room for: where notes may go beyond the bound,
/// messages may not follow.
#[test]
fn a_full_spool_does_not_grow() {
    run(async {
        let disk = Simulated::new(1, CrashAfter::NEVER);
        let settings = bounded();
        let (running, _) = Running::start(&disk, &settings).await;
        let log = &running.log;
        let mut kept = std::collections::VecDeque::new();
        let mut number = 0;
        for _ in 0..30 {
            for _ in 0..100 {
                number += 1;
                let accepted = message(number, 9000);
                if append(log, &accepted).await.is_ok() {
                    kept.push_back(accepted);
                }
            }
            // The youngest: the oldest segments stay alive.
            if let Some(done) = kept.pop_back() {
                log.note_done(done.id);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let most = settings.space.octets_max() + SEGMENT_OCTETS;
            assert!(settings.space.taken() <= most, "{}", settings.space.taken());
        }
        for accepted in &kept {
            check_content(log, accepted).await.unwrap();
        }
        running.close().await;
    });
}
