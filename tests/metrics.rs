//! Metrics count exactly: over a dialogue each counter moves by what happened, and no other does.

#![cfg(test)]

mod support;

use support::metrics::{get, request};
use support::server::Setup;
use support::{Scrape, eventually};

/// Waits until the server has seen the end of every session, so that two scrapes can be compared.
fn settled(server: &support::Server) -> Scrape {
    eventually("all sessions closed", || {
        let scrape = server.scrape();
        (scrape.sum("ringpost_sessions_open", &[]) == 0).then_some(scrape)
    })
}

#[test]
fn a_dialogue_moves_each_counter_by_what_happened() {
    let server = Setup::new()
        .flag("--shards", "2")
        .users(&[("alice", "wonderland")])
        .flag("--tls-auth", "yes")
        .start();
    let before = settled(&server);

    // One session in clear: EHLO, MAIL, a relay refused, a recipient, DATA, a message, nonsense, QUIT.
    let mut client = server.client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.test>").begins("250");
    client.say("RCPT TO:<u@elsewhere.test>").begins("550");
    client.say("RCPT TO:<u@example.test>").begins("250");
    client.say("DATA").begins("354");
    let text = "Subject: x\r\n\r\n0123456789\r\n";
    client.send(text);
    client.send(".\r\n");
    client.reply().begins("250");
    client.say("NONSENSE").begins("500");
    client.quit();
    // One by STARTTLS: AUTH wrong, AUTH right, two recipients.
    let mut client = server.client().starttls();
    client.ehlo();
    client
        .say("AUTH PLAIN AGFsaWNlAGxvb2tpbmcgZ2xhc3M=")
        .begins("535");
    client
        .say("AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=")
        .begins("235");
    client
        .deliver(
            "a@b.test",
            &["u@example.test", "v@example.test"],
            text.as_bytes(),
        )
        .begins("250");
    client.quit();
    // One on the TLS port: greeted, EHLO, QUIT.
    let mut client = server.tls_client();
    client.ehlo();
    client.quit();

    let after = settled(&server);
    let moved =
        |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    for (name, labels, by) in [
        ("ringpost_sessions_total", vec![("listener", "tcp")], 2),
        ("ringpost_sessions_total", vec![("listener", "tls")], 1),
        ("ringpost_handshakes_total", vec![("kind", "full")], 2),
        ("ringpost_handshakes_total", vec![("kind", "resumed")], 0),
        ("ringpost_handshake_seconds_count", vec![], 2),
        ("ringpost_handshake_failures_total", vec![], 0),
        (
            "ringpost_tls_sessions_total",
            vec![("version", "1.3"), ("means", "starttls")],
            1,
        ),
        (
            "ringpost_tls_sessions_total",
            vec![("version", "1.3"), ("means", "implicit")],
            1,
        ),
        ("ringpost_tls_sessions_total", vec![], 2),
        ("ringpost_messages_total", vec![], 2),
        ("ringpost_recipients_total", vec![], 3),
        ("ringpost_message_bytes_total", vec![], 2 * 26),
        (
            "ringpost_transactions_total",
            vec![("outcome", "accepted")],
            2,
        ),
        ("ringpost_transactions_total", vec![], 2),
        ("ringpost_auth_total", vec![("outcome", "accepted")], 1),
        ("ringpost_auth_total", vec![("outcome", "refused")], 1),
        ("ringpost_auth_total", vec![], 2),
        (
            "ringpost_replies_total",
            vec![("verb", "EHLO"), ("code", "250")],
            4,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "greeting"), ("code", "220")],
            3,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "STARTTLS"), ("code", "220")],
            1,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "MAIL"), ("code", "250")],
            2,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "RCPT"), ("code", "250")],
            3,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "RCPT"), ("code", "550")],
            1,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "DATA"), ("code", "354")],
            2,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "data-end"), ("code", "250")],
            2,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "AUTH"), ("code", "535")],
            1,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "AUTH"), ("code", "235")],
            1,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "unknown"), ("code", "500")],
            1,
        ),
        (
            "ringpost_replies_total",
            vec![("verb", "QUIT"), ("code", "221")],
            3,
        ),
        // …and no reply that is not in this list.
        ("ringpost_replies_total", vec![], 24),
        ("ringpost_refusals_total", vec![("reason", "relay")], 1),
        (
            "ringpost_refusals_total",
            vec![("reason", "auth-failed")],
            1,
        ),
        ("ringpost_refusals_total", vec![("reason", "syntax")], 1),
        ("ringpost_refusals_total", vec![], 3),
        ("ringpost_connections_refused_total", vec![], 0),
        ("ringpost_accept_errors_total", vec![], 0),
    ] {
        assert_eq!(
            moved(name, &labels),
            by,
            "{name} {labels:?}: {:#?}",
            after.since(&before)
        );
    }
}

#[test]
fn a_scrape_moves_nothing() {
    let server = Setup::new().start();
    server.client().quit();
    let before = settled(&server);
    let after = settled(&server);
    let changed: Vec<String> = after
        .since(&before)
        .into_keys()
        .filter(|name| name.starts_with("ringpost_") && !name.starts_with("ringpost_log_lines"))
        .collect();
    assert_eq!(changed, Vec::<String>::new());
}

#[test]
fn open_sessions_are_a_gauge() {
    let server = Setup::new().start();
    let held = [server.client(), server.client()];
    let tls = server.tls_client();
    let scrape = server.scrape();
    assert_eq!(
        scrape.sum("ringpost_sessions_open", &[("listener", "tcp")]),
        2
    );
    assert_eq!(
        scrape.sum("ringpost_sessions_open", &[("listener", "tls")]),
        1
    );
    drop((held, tls));
    settled(&server);
}

#[test]
fn health_readiness_and_what_is_not_there() {
    let server = Setup::new().start();
    let address = server.listener("metrics");
    assert_eq!(get(address, "/healthz").0, 200);
    assert_eq!(get(address, "/readyz").0, 200);
    assert_eq!(get(address, "/nothing").0, 404);
    assert_eq!(request(address, "POST", "/metrics").0, 405);
}

/// The text format, by its own rules: a HELP and a TYPE before each family, no series twice.
#[test]
fn the_text_is_well_formed() {
    let server = Setup::new().start();
    server.client().quit();
    let (_, text) = get(server.listener("metrics"), "/metrics");
    let mut series: Vec<&str> = Vec::new();
    let mut families: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (name, _) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(
                families.iter().any(|known| family.starts_with(known)),
                "{line}"
            );
            series.push(name);
        }
    }
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "a series appears twice");
    assert!(
        all > 0
            && families
                .iter()
                .all(|name| name.starts_with("ringpost_") || name.starts_with("process_")),
        "{families:?}"
    );
}
