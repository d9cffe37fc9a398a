//! The greeting that leaves with the server's Finished.

use super::*;
use crate::tls::ClientCert;

const GREETING: &[u8] = b"220 mx.test ESMTP\r\n";

#[test]
fn leaves_before_the_clients_finished() {
    let settings = |client_cert| TlsSettings {
        client_cert,
        client_ca: Some(path(development::CA_CERTIFICATE)),
        ..TlsSettings::default()
    };
    let none = ClientCert::None;
    let request = ClientCert::Request;
    let require = ClientCert::Require;
    let plain = || Client::version(SslVersion::TLS1_3);
    // Its first share is of a group the server does not take: HelloRetryRequest (RFC 8446 §4.1.4).
    let retried = || Client::with(|builder| builder.set_groups_list("P-521:P-256").unwrap());
    let table = [
        ("TLS 1.3", none, plain(), GreetingSent::Yes, 2),
        ("TLS 1.3, retried", none, retried(), GreetingSent::Yes, 3),
        (
            "TLS 1.2",
            none,
            Client::version(SslVersion::TLS1_2),
            GreetingSent::No,
            2,
        ),
        ("request, has none", request, plain(), GreetingSent::Yes, 2),
        (
            "request, has one",
            request,
            Client::known(),
            GreetingSent::Yes,
            2,
        ),
        ("require", require, Client::known(), GreetingSent::No, 2),
    ];
    for (name, client_cert, client, expected, flights) in table {
        let server = server(&settings(client_cert));
        let dialogue = client.connect_greeted(&server, None, Some(GREETING));
        let facts = dialogue.facts();
        assert_eq!(dialogue.greeting_sent(), expected, "{name}");
        assert_eq!(dialogue.client_flights, flights, "{name}");
        let received: &[u8] = if expected == GreetingSent::Yes {
            GREETING
        } else {
            b""
        };
        assert_eq!(dialogue.received, received, "{name}");
        assert_eq!(
            dialogue.received_before_finished,
            expected == GreetingSent::Yes,
            "{name}"
        );
        assert_eq!(client.take_tickets().len(), 1, "{name}");
        assert_eq!(
            facts.peer_certificate.is_some(),
            name.ends_with("has one") || name == "require"
        );
    }
}

#[test]
fn works_with_resumption_and_brings_one_ticket_each_time() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_3);
    let mut pool = client.full(&server);
    for turn in 0..5 {
        let ticket = pool.pop();
        let mut dialogue = client.connect_greeted(&server, ticket, Some(GREETING));
        assert!(dialogue.facts().resumed, "turn {turn}");
        assert_eq!(dialogue.greeting_sent(), GreetingSent::Yes, "turn {turn}");
        assert!(dialogue.received_before_finished, "turn {turn}");
        dialogue.close();
        let fresh = client.take_tickets();
        assert_eq!(fresh.len(), 1, "turn {turn}");
        pool.extend(fresh);
    }
}

/// There our Finished precedes the client's too, but nothing may be written between them.
#[test]
fn stays_with_the_caller_in_a_tls_1_2_resumption() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_2);
    let ticket = client.full(&server).pop();
    let mut dialogue = client.connect_greeted(&server, ticket, Some(GREETING));
    assert!(dialogue.facts().resumed);
    assert_eq!(dialogue.greeting_sent(), GreetingSent::No);
    assert_eq!(dialogue.received, b"");
    dialogue.client.ssl_write(b"EHLO x\r\n").unwrap();
    dialogue.round();
    let mut plaintext = [0; 64];
    let read = dialogue.server.read(&mut plaintext);
    assert!(matches!(read, crate::tls::Read::Octets(8)), "{read:?}");
}

#[test]
fn a_client_without_the_required_certificate_gets_none() {
    let settings = TlsSettings {
        client_cert: ClientCert::Require,
        client_ca: Some(path(development::CA_CERTIFICATE)),
        ..TlsSettings::default()
    };
    let client = Client::version(SslVersion::TLS1_3);
    let dialogue = client.connect_greeted(&server(&settings), None, Some(GREETING));
    assert_eq!(dialogue.received, b"");
    assert_eq!(
        dialogue.failure().fault,
        crate::tls::Fault::ClientCertificate
    );
}

#[test]
fn the_dialogue_goes_on_behind_it() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_3);
    let mut dialogue = client.connect_greeted(&server, None, Some(GREETING));
    dialogue.client.ssl_write(b"EHLO x\r\n").unwrap();
    dialogue.round();
    let mut plaintext = [0; 64];
    let crate::tls::Read::Octets(octets) = dialogue.server.read(&mut plaintext) else {
        panic!()
    };
    assert_eq!(&plaintext[..octets], b"EHLO x\r\n");
    dialogue.server.write(b"250 mx.test\r\n").unwrap();
    dialogue.round();
    dialogue.round();
    assert_eq!(dialogue.received, b"220 mx.test ESMTP\r\n250 mx.test\r\n");
}

#[test]
fn a_command_in_one_segment_with_the_clients_finished_is_not_lost() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_3);
    let mut dialogue = Dialogue::new(&client, &server, None, Some(GREETING));
    dialogue.round();
    dialogue.client_step();
    assert_eq!(dialogue.received, GREETING);
    dialogue.client.ssl_write(b"EHLO x\r\n").unwrap();
    dialogue.round();
    assert_eq!(dialogue.greeting_sent(), GreetingSent::Yes);
    let mut plaintext = [0; 64];
    let crate::tls::Read::Octets(octets) = dialogue.server.read(&mut plaintext) else {
        panic!()
    };
    assert_eq!(&plaintext[..octets], b"EHLO x\r\n");
}
