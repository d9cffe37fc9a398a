//! Logins wait for a thread that hashes; one address must not take all the places.

#![cfg(test)]

mod support;

use support::Client;
use support::server::Setup;

/// More than may wait.
const GUESSERS: usize = 100;

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
