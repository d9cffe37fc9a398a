//! Logins wait for a thread that hashes; one address must not take all the places.

#![cfg(test)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::server::Setup;
use support::{Client, eventually};

/// More than may wait.
const GUESSERS: usize = 100;

/// Logins of one address, from asking to verdict: an eighth of 64.
const SHARE: u64 = 8;

/// How late the first answer comes that is not 235; the next ones come later by as much.
const DELAY: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// `\0anna\0wrong` and `\0anna\0right`.
const WRONG: &str = "AUTH PLAIN AGFubmEAd3Jvbmc=";
const RIGHT: &str = "AUTH PLAIN AGFubmEAcmlnaHQ=";

#[test]
fn guessers_at_one_address_keep_nobody_else_out() {
    let server = Setup::new()
        .users(&[("anna", "right")])
        .flag("--tcp-auth", "yes")
        .start();
    let mut guessers: Vec<Client> = (0..GUESSERS)
        .map(|_| Client::connect(server.tcp()))
        .collect();
    let mut owner = Client::connect_from([127, 0, 0, 2].into(), server.tcp());
    for client in guessers.iter_mut().chain([&mut owner]) {
        client.expect(220);
        client.ehlo();
    }
    for client in &mut guessers {
        client.send(format!("{WRONG}\r\n"));
    }
    owner.say(RIGHT).begins("235");
    let codes: Vec<u16> = guessers
        .iter_mut()
        .map(|client| client.reply().code)
        .collect();
    assert!(
        codes.iter().all(|code| [454, 535].contains(code)),
        "{codes:?}"
    );
    assert!(codes.contains(&535), "{codes:?}");
    let refused = server.scrape();
    let by_outcome = |outcome| refused.sum("ringpost_auth_total", &[("outcome", outcome)]);
    assert_eq!(by_outcome("accepted"), 1);
    assert_eq!(
        by_outcome("refused") + by_outcome("unavailable"),
        u64::try_from(GUESSERS).unwrap()
    );
}

/// Regression: a 454 came at once and the guesser asked again, thousands of times a second.
#[test]
fn a_454_comes_as_late_as_a_535_and_each_is_counted() {
    let server = Setup::new()
        .users(&[("anna", "right")])
        .flag("--tcp-auth", "yes")
        .start();
    let stop = AtomicBool::new(false);
    let open = |mut client: Client| {
        client.expect(220);
        client.ehlo();
        client
    };
    let replies: Vec<Vec<(u16, Duration)>> = thread::scope(|scope| {
        let guessers: Vec<_> = (0..GUESSERS)
            .map(|_| {
                scope.spawn(|| {
                    let client = open(Client::connect(server.tcp()));
                    guess(client, &stop)
                })
            })
            .collect();
        // Whatever fails below, the guessers end.
        let _stop = Stop(&stop);
        eventually("a guesser finds no place twice", || {
            let unavailable = [("outcome", "unavailable")];
            let refused = server.scrape().sum("ringpost_auth_total", &unavailable);
            (refused > GUESSERS as u64).then_some(())
        });
        for _ in 0..5 {
            let mut owner = open(Client::connect_from([127, 0, 0, 2].into(), server.tcp()));
            owner.say(RIGHT).begins("235");
            owner.quit();
            let waiting = server.scrape().sum("ringpost_auth_waiting", &[]);
            assert!(waiting <= SHARE, "{waiting} logins of one address wait");
        }
        stop.store(true, Ordering::Relaxed);
        guessers
            .into_iter()
            .map(|guesser| guesser.join().unwrap())
            .collect()
    });

    for replies in &replies {
        for ((code, took), nth) in replies.iter().zip(1..) {
            let due = (DELAY * nth).min(DELAY_MAX);
            assert!(*took >= due, "{code} as answer {nth} after {took:?}");
        }
    }
    let scrape = server.scrape();
    let count = |code| {
        let replies = replies.iter().flatten();
        u64::try_from(replies.filter(|(seen, _)| *seen == code).count()).unwrap()
    };
    for (code, outcome, reason, seen) in [
        (535, "refused", "auth-failed", count(535)),
        (454, "unavailable", "auth-unavailable", count(454)),
    ] {
        assert!(seen > 0, "no {code}");
        let verb_and_code = [("verb", "AUTH"), ("code", &*code.to_string())];
        for (name, labels) in [
            ("ringpost_auth_total", &[("outcome", outcome)][..]),
            ("ringpost_refusals_total", &[("reason", reason)]),
            ("ringpost_replies_total", &verb_and_code),
        ] {
            assert_eq!(scrape.sum(name, labels), seen, "{name} {labels:?}");
        }
    }
    let accepted = [("outcome", "accepted")];
    assert_eq!(scrape.sum("ringpost_auth_total", &accepted), 5);
    assert_eq!(scrape.sum("ringpost_auth_waiting", &[]), 0);
}

/// Guesses until told to stop: the codes of the replies, and how long each took.
fn guess(mut client: Client, stop: &AtomicBool) -> Vec<(u16, Duration)> {
    let mut replies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let reply = client.say(WRONG);
        replies.push((reply.code, asked.elapsed()));
    }
    client.quit();
    replies
}

/// Tells the guessers to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
