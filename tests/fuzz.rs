//! Seeded fuzzing of the protocol core, in the ordinary test run.
//!
//! Each target runs for a second; `RINGPOST_FUZZ_SECONDS` gives it longer. A case is made from its
//! seed alone: a failure prints it, and `RINGPOST_FUZZ_SEED` makes it the first case again.
//!
//! What is looked for: a panic, a call that does not come back, an answer that depends on how the
//! octets were cut, a difference from a naive reading of the same rules, memory that is not given
//! back, and a message that was committed against the policy (see `support/transcript_line.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "whatever panics here is a failed test"
)]

#[allow(dead_code, reason = "the player of transcripts uses the rest")]
#[path = "support/transcript.rs"]
mod transcript;
#[allow(dead_code, reason = "the player of transcripts uses the rest")]
#[path = "support/transcript_line.rs"]
mod transcript_line;

#[path = "fuzz/bdat.rs"]
mod bdat;
#[path = "fuzz/commands.rs"]
mod commands;
#[path = "fuzz/end_of_data.rs"]
mod end_of_data;
#[path = "fuzz/paths.rs"]
mod paths;
#[path = "fuzz/sasl.rs"]
mod sasl;
#[path = "fuzz/sessions.rs"]
mod sessions;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use transcript::Transcript;

/// Longer than any case takes, by far, on a slow machine under load.
const CASE_SECONDS_MAX: u64 = 60;

static TRANSCRIPTS: LazyLock<Vec<Transcript>> = LazyLock::new(Transcript::all);

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Runs cases of a target until its time is over, each with a seed of its own.
fn cases(target: &str, case: impl Fn(&mut fastrand::Rng) + Sync) {
    let time = Duration::from_secs(number("RINGPOST_FUZZ_SECONDS").unwrap_or(1));
    let first = number("RINGPOST_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("{target}: RINGPOST_FUZZ_SEED={first}");
    let done = AtomicU64::new(0);
    let result = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let start = Instant::now();
            let mut seed = first;
            loop {
                let mut random = fastrand::Rng::with_seed(seed);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut random))) {
                    eprintln!("{target}: found with RINGPOST_FUZZ_SEED={seed}");
                    resume_unwind(panic);
                }
                done.fetch_add(1, Ordering::Relaxed);
                seed = seed.wrapping_add(1);
                if start.elapsed() >= time {
                    break;
                }
            }
        });
        // A case that never ends cannot be unwound: tell which one it is, and end the process.
        let mut seen = (0, Instant::now());
        while !worker.is_finished() {
            thread::sleep(Duration::from_millis(20));
            let count = done.load(Ordering::Relaxed);
            if count != seen.0 {
                seen = (count, Instant::now());
            } else if seen.1.elapsed() > Duration::from_secs(CASE_SECONDS_MAX) {
                let seed = first.wrapping_add(count);
                eprintln!("{target}: does not end with RINGPOST_FUZZ_SEED={seed}");
                std::process::abort();
            }
        }
        worker.join()
    });
    println!("{target}: {} cases", done.into_inner());
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// One of them.
fn choose<'a, T>(random: &mut fastrand::Rng, of: &'a [T]) -> &'a T {
    &of[random.usize(..of.len())]
}

/// Octets that parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b".",
    b"..",
    b" ",
    b"\t",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\r\n",
    b"<",
    b">",
    b"<>",
    b"\"",
    b"\\",
    b"@",
    b":",
    b",",
    b"[",
    b"]",
    b"%",
    b"!",
    b"=",
    b"+",
    b"-",
    b"*",
    b"\x7f",
    b"\xff",
    b"\xc3\xbc",
    b"\xe2\x80\xa8",
    b"\xc0\x80",
    b"0",
    b"00000000000000000000",
    b"18446744073709551616",
    b"-1",
    b"BDAT 5 LAST\r\n",
    b"BDAT 0\r\n",
    b"BDAT 18446744073709551615\r\n",
    b"RSET\r\n",
    b"STARTTLS\r\n",
    b"EHLO c.example\r\n",
    b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
    b"AUTH LOGIN\r\n",
    b"YWxpY2U=\r\n",
    b"QUIT\r\n",
    b"MAIL FROM:<a@b> SMTPUTF8\r\n",
    b"RCPT TO:<postmaster>\r\n",
    b"RCPT TO:<v@evil.example>\r\n",
    b"DATA\r\n",
    b"IPv6:",
    b"xn--",
    b"SIZE=",
    b"BODY=BINARYMIME",
    b" RET=HDRS",
    b" ENVID=",
    b" NOTIFY=SUCCESS,DELAY",
    b" ORCPT=rfc822;",
    b" ORCPT=utf-8;",
    b"\\x{FC}",
    b"+0D+0A",
    b"+2B",
    b"Received: x\r\n",
];

/// Changes octets in a few places.
fn mutate(random: &mut fastrand::Rng, octets: &mut Vec<u8>) {
    for _ in 0..random.usize(0..4) {
        let at = random.usize(..=octets.len());
        match random.u8(..6) {
            0 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet = random.u8(..);
                }
            }
            1 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << random.u8(..8);
                }
            }
            2 => {
                let end = (at + random.usize(1..9)).min(octets.len());
                octets.drain(at..end);
            }
            3 => {
                let end = (at + random.usize(1..40)).min(octets.len());
                let again = octets[at..end].to_vec();
                octets.splice(at..at, again);
            }
            4 => {
                let token = *choose(random, TOKENS);
                octets.splice(at..at, token.iter().copied());
            }
            _ => {
                let token = *choose(random, TOKENS);
                let times = random.usize(1..700);
                octets.splice(at..at, token.repeat(times));
            }
        }
    }
}

/// A command line of some transcript, without its line end.
fn line_of_transcripts(random: &mut fastrand::Rng) -> Vec<u8> {
    loop {
        let transcript = choose(random, &TRANSCRIPTS);
        let octets = transcript.client_octets();
        let lines: Vec<&[u8]> = octets.split(|octet| *octet == b'\n').collect();
        let line = *choose(random, &lines);
        if line.len() < 2000 {
            return line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        }
    }
}
