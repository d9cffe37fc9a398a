//! Ten thousand crash points, and what is there afterwards.
//!
//! A case is made from its seed alone: lives of one log, one after the other, each ended by a power cut, by a
//! kill of the process, or by a clean close. A failure prints its seed; `RINGPOST_CRASH_SEED` runs that one
//! alone and prints what the disk did. `RINGPOST_CRASH_SECONDS` goes on with other seeds for so long.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::super::disk::simulated::{CrashAfter, Simulated};
use super::life::{Plan, live};
use super::model::Model;
use super::{SEGMENT_OCTETS, run, shared};

#[test]
fn what_was_acknowledged_is_there_after_any_crash() {
    if let Some(seed) = number("RINGPOST_CRASH_SEED") {
        lives(seed, true);
        return;
    }
    let time = number("RINGPOST_CRASH_SECONDS").map(Duration::from_secs);
    let first = match time {
        Some(_) => fastrand::u64(..1_000_000_000),
        None => 0,
    };
    let begun = Instant::now();
    let mut points = 0;
    let case = AtomicU64::new(first);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            loop {
                let seed = case.load(Ordering::Relaxed);
                points += match catch_unwind(AssertUnwindSafe(|| lives(seed, false))) {
                    Ok(points) => points,
                    Err(panic) => {
                        eprintln!("found with RINGPOST_CRASH_SEED={seed}");
                        resume_unwind(panic);
                    }
                };
                case.fetch_add(1, Ordering::Relaxed);
                if time.map_or(points >= CRASH_POINTS, |time| begun.elapsed() >= time) {
                    return;
                }
            }
        });
        // A case that never ends cannot be unwound: tell which one it is, and end the process.
        let mut seen = (first, Instant::now());
        while !worker.is_finished() {
            thread::sleep(Duration::from_millis(20));
            let seed = case.load(Ordering::Relaxed);
            if seed != seen.0 {
                seen = (seed, Instant::now());
            } else if seen.1.elapsed() > CASE_MAX {
                eprintln!("does not end with RINGPOST_CRASH_SEED={seed}");
                std::process::abort();
            }
        }
        if let Err(panic) = worker.join() {
            resume_unwind(panic);
        }
    });
    println!("{points} crash points, {} seeds", case.into_inner() - first);
}

/// Lives of one log. Gives back how many of them a crash ended.
fn lives(seed: u64, prints: bool) -> u64 {
    let mut random = Rng::with_seed(seed);
    let mut disk = Simulated::new(seed, CrashAfter::NEVER);
    disk.set_wild(random.bool());
    let model = shared(Model::default());
    let number = shared(1);
    let mut crashes = 0;
    let segment_octets = SEGMENT_OCTETS << random.u8(0..4);
    let space_octets = match random.u8(0..4) {
        0 => segment_octets * random.u64(3..8),
        _ => u64::MAX,
    };
    let fails = random.bool();
    for _ in 0..LIVES {
        let at = match random.u8(0..8) {
            0 | 1 => random.u64(1..60),
            2..7 => random.u64(1..300),
            _ => OPERATIONS_MAX,
        };
        disk.set_crash(CrashAfter(at));
        let plan = Plan {
            // Now and then another size was set for the next start.
            segment_octets: match random.u8(0..8) {
                0 => SEGMENT_OCTETS << random.u8(0..4),
                _ => segment_octets,
            },
            space_octets,
            fails_at_start: fails && random.u8(0..4) == 0,
            fails,
            clients: random.usize(1..6),
            steps: random.usize(1..40),
            octets_max: 200 * 1024,
        };
        let shown = disk.clone();
        let life = live(
            disk.clone(),
            model.clone(),
            number.clone(),
            plan,
            random.fork(),
        );
        let ended = catch_unwind(AssertUnwindSafe(|| run(disk.until_crash(life))));
        if prints {
            eprintln!("{shown}");
        }
        let ended = ended.unwrap_or_else(|panic| {
            if prints {
                eprintln!("{shown}");
            }
            resume_unwind(panic)
        });
        if ended.is_none() {
            assert!(at < OPERATIONS_MAX, "it goes on and on");
            crashes += 1;
        }
        disk = match random.u8(0..3) {
            0 => disk.kill(),
            _ => disk.crash(),
        };
    }
    crashes
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// In the ordinary run.
const CRASH_POINTS: u64 = 10_000;

/// Of one log, one after the other.
const LIVES: usize = 6;

/// More than any life needs.
const OPERATIONS_MAX: u64 = 100_000;

/// Longer than any case takes, by far, on a slow machine under load.
const CASE_MAX: Duration = Duration::from_secs(60);
