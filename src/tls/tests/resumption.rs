//! A client that uses each ticket once resumes every time: on any shard, after a restart, after a rotation.

use std::thread;
use std::time::SystemTime;

use super::*;
use crate::tls::context::Policy;
use crate::tls::{ClientCert, Rotation};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

fn with_tickets(tickets: usize) -> TlsSettings {
    TlsSettings {
        tickets,
        ..TlsSettings::default()
    }
}

#[test]
fn a_full_handshake_brings_exactly_the_tickets_asked_for() {
    // TLS 1.2 has room for one (RFC 5077 §3.3).
    let table = [
        ("TLS 1.3, none", SslVersion::TLS1_3, 0, 0),
        ("TLS 1.3, one", SslVersion::TLS1_3, 1, 1),
        ("TLS 1.3, two", SslVersion::TLS1_3, 2, 2),
        ("TLS 1.3, five", SslVersion::TLS1_3, 5, 5),
        ("TLS 1.2, one", SslVersion::TLS1_2, 1, 1),
        ("TLS 1.2, two", SslVersion::TLS1_2, 2, 1),
    ];
    for (name, version, tickets, expected) in table {
        let server = server(&with_tickets(tickets));
        assert_eq!(
            Client::version(version).full(&server).len(),
            expected,
            "{name}"
        );
    }
}

#[test]
fn each_ticket_used_once_resumes_every_time() {
    for version in VERSIONS {
        for tickets in [1, 2, 4] {
            let server = server(&with_tickets(tickets));
            let client = Client::version(version);
            let mut pool = client.full(&server);
            for turn in 0..10 {
                let ticket = pool
                    .pop()
                    .unwrap_or_else(|| panic!("turn {turn}: no ticket left"));
                let (resumed, fresh) = client.resume(&server, ticket);
                assert!(resumed, "{version:?}, {tickets} tickets, turn {turn}");
                assert_eq!(
                    fresh.len(),
                    1,
                    "{version:?}, {tickets} tickets, turn {turn}"
                );
                pool.extend(fresh);
            }
        }
    }
}

#[test]
fn without_tickets_nothing_is_resumed() {
    for version in VERSIONS {
        let ring = ring();
        let giving = ServerContexts::build(&pairs(), &with_tickets(1), Arc::clone(&ring)).unwrap();
        let not_giving = ServerContexts::build(&pairs(), &with_tickets(0), ring).unwrap();
        let client = Client::version(version);

        let mut dialogue = client.connect(&not_giving, None);
        let session = dialogue.client.ssl().session().unwrap().to_owned();
        dialogue.close();
        // In TLS 1.2 a session without ticket has no id here either.
        let (resumed, fresh) = client.resume(&not_giving, session);
        assert!(
            !resumed && fresh.iter().all(|session| session.id().is_empty()),
            "{version:?}"
        );

        let ticket = client.full(&giving).pop().unwrap();
        let (resumed, _) = client.resume(&not_giving, ticket);
        assert!(!resumed, "{version:?}: a ticket from before");
    }
}

#[test]
fn every_shard_takes_the_tickets_of_every_other() {
    for version in VERSIONS {
        let ring = ring();
        let shards: Vec<ServerContexts> = (0..4)
            .map(|_| ServerContexts::build(&pairs(), &with_tickets(1), Arc::clone(&ring)).unwrap())
            .collect();
        let client = Client::version(version);
        let mut pool = client.full(&shards[0]);
        for turn in 1..=10 {
            let (resumed, fresh) = client.resume(&shards[turn % 4], pool.pop().unwrap());
            assert!(resumed, "{version:?}, turn {turn}");
            pool.extend(fresh);
        }
    }
}

#[test]
fn tickets_of_another_ring_and_rubbish_lead_to_a_full_handshake() {
    for version in VERSIONS {
        let client = Client::version(version);
        let ticket = client.full(&server(&with_tickets(1))).pop().unwrap();
        let (resumed, fresh) = client.resume(&server(&with_tickets(1)), ticket);
        assert!(!resumed, "{version:?}");
        assert_eq!(fresh.len(), 1, "{version:?}");
    }
}

#[test]
fn a_restart_keeps_tickets_when_keys_are_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let start = || {
        let ring = Arc::new(TicketKeyRing::from_file(&file, LIFETIME).unwrap());
        ServerContexts::build(&pairs(), &with_tickets(1), ring).unwrap()
    };
    for version in VERSIONS {
        let client = Client::version(version);
        let mut pool = client.full(&start());
        for restart in 0..3 {
            let (resumed, fresh) = client.resume(&start(), pool.pop().unwrap());
            assert!(resumed, "{version:?}, restart {restart}");
            pool.extend(fresh);
        }
    }
}

#[test]
fn a_rotated_key_still_decrypts_and_the_new_one_renews() {
    for version in VERSIONS {
        let ring = ring();
        let server = ServerContexts::build(&pairs(), &with_tickets(1), Arc::clone(&ring)).unwrap();
        let client = Client::version(version);
        let old = client.full(&server).pop().unwrap();
        let spare = client.full(&server).pop().unwrap();

        let now = SystemTime::now();
        assert_eq!(
            ring.rotate_if_due(now + LIFETIME).unwrap(),
            Rotation::Rotated
        );
        let (resumed, mut fresh) = client.resume(&server, old);
        assert!(resumed, "{version:?}: under the old key");

        // The old key goes; the renewed ticket is under the new one.
        assert_eq!(
            ring.rotate_if_due(now + 2 * LIFETIME).unwrap(),
            Rotation::Rotated
        );
        let (resumed, _) = client.resume(&server, spare);
        assert!(!resumed, "{version:?}: the old key is gone");
        let (resumed, _) = client.resume(&server, fresh.pop().unwrap());
        assert!(resumed, "{version:?}: the ticket was renewed");
    }
}

#[test]
fn an_expired_ticket_is_refused() {
    let settings = TlsSettings {
        ticket_lifetime: Duration::from_secs(1),
        ..TlsSettings::default()
    };
    for version in VERSIONS {
        let server = server(&settings);
        let client = Client::version(version);
        let ticket = client.full(&server).pop().unwrap();
        assert_eq!(
            super::super::ffi::lifetime_hint(&ticket),
            1,
            "{version:?}: the client is told"
        );
        thread::sleep(Duration::from_millis(2100));
        let (resumed, fresh) = client.resume(&server, ticket);
        assert!(!resumed, "{version:?}");
        assert_eq!(fresh.len(), 1, "{version:?}");
    }
}

#[test]
fn fresh_tickets_do_not_keep_a_session_for_ever() {
    for version in VERSIONS {
        let mut policy = Policy::resolve(&TlsSettings::default(), ring()).unwrap();
        policy.session_seconds_max = 1;
        let server = ServerContexts::under(&policy, &pairs()).unwrap();
        let client = Client::version(version);
        let ticket = client.full(&server).pop().unwrap();
        let (resumed, mut fresh) = client.resume(&server, ticket);
        assert!(resumed, "{version:?}: at once");
        thread::sleep(Duration::from_millis(2100));
        let (resumed, fresh) = client.resume(&server, fresh.pop().unwrap());
        assert!(
            !resumed,
            "{version:?}: the ticket is good but the session is old"
        );
        assert_eq!(fresh.len(), 1, "{version:?}");
        let (resumed, _) = client.resume(&server, fresh.into_iter().next().unwrap());
        assert!(resumed, "{version:?}: its time begins anew");
    }
}

#[test]
fn how_long_a_session_may_go_on() {
    const WEEK: u64 = 7 * 86_400;
    let (none, request, require) = (ClientCert::None, ClientCert::Request, ClientCert::Require);
    let table = [(none, WEEK), (request, 3600), (require, 3600)];
    for (client_cert, expected) in table {
        let settings = TlsSettings {
            ticket_lifetime: LIFETIME,
            client_cert,
            client_ca: Some(path(development::CA_CERTIFICATE)),
            ..TlsSettings::default()
        };
        let policy = Policy::resolve(&settings, ring()).unwrap();
        assert_eq!(policy.session_seconds_max, expected, "{client_cert:?}");
    }
}

#[test]
fn a_ticket_does_not_get_past_another_policy() {
    let ca = Some(path(development::CA_CERTIFICATE));
    let open = TlsSettings::default();
    let requesting = TlsSettings {
        client_cert: ClientCert::Request,
        client_ca: ca.clone(),
        ..TlsSettings::default()
    };
    let requiring = TlsSettings {
        client_cert: ClientCert::Require,
        client_ca: ca,
        ..TlsSettings::default()
    };
    for version in VERSIONS {
        let ring = ring();
        let build = |settings: &TlsSettings| {
            ServerContexts::build(&pairs(), settings, Arc::clone(&ring)).unwrap()
        };
        for (name, settings) in [("none", &open), ("request", &requesting)] {
            let client = Client::version(version);
            let ticket = client.full(&build(settings)).pop().unwrap();
            let dialogue = client.connect(&build(&requiring), Some(ticket));
            assert!(
                matches!(dialogue.server_handshake, Handshake::Failed(_)),
                "{version:?}: {name}"
            );
        }
    }
}
