//! Handshakes that fail: why, and what the peer gets.

use openssl::x509::store::X509StoreBuilder;

use super::*;
use crate::tls::Fault;

#[test]
fn plaintext_gets_no_octet_back() {
    let table: [(&str, &[u8]); 9] = [
        ("EHLO", b"EHLO client.example\r\n"),
        ("one octet", b"E"),
        ("lower case", b"quit\r\n"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("HTTP proxy", b"CONNECT mx.test:465 HTTP/1.1\r\n\r\n"),
        ("line end", b"\r\n"),
        ("zeros", &[0; 64]),
        ("SSH", b"SSH-2.0-x\r\n"),
        ("UTF-8", "ÜBER ALLES\r\n".as_bytes()),
    ];
    let server = server(&TlsSettings::default());
    for greeting in [None, Some(b"220 mx.test ESMTP\r\n".to_vec())] {
        for (name, octets) in table {
            let mut connection = Connection::accept(&server, greeting.clone()).unwrap();
            connection.receive(octets);
            let Handshake::Failed(error) = connection.handshake() else {
                panic!("{name}")
            };
            if name != "UTF-8" {
                assert_eq!(error.fault, Fault::NotTls, "{name}");
                assert_eq!(error.to_string(), "plaintext where TLS was due", "{name}");
            }
            assert!(!connection.has_outbound(), "{name}");
            // It stays failed.
            connection.receive(octets);
            assert_eq!(connection.handshake(), Handshake::Failed(error), "{name}");
            connection.close();
            assert!(connection.outbound().is_empty(), "{name}");
        }
    }
}

#[test]
fn nothing_fails_before_the_first_octet() {
    let mut connection = Connection::accept(&server(&TlsSettings::default()), None).unwrap();
    assert_eq!(connection.handshake(), Handshake::WantsInput);
    connection.receive(b"");
    assert_eq!(connection.handshake(), Handshake::WantsInput);
    assert!(!connection.has_outbound());
}

#[test]
fn the_clients_alert_is_told_by_its_number() {
    const UNKNOWN_CA: u8 = 48;
    let client = Client::with(|builder| {
        builder.set_cert_store(X509StoreBuilder::new().unwrap().build());
    });
    let dialogue = client.connect(&server(&TlsSettings::default()), None);
    assert_eq!(dialogue.failure().fault, Fault::PeerAlert(UNKNOWN_CA));
    assert!(
        dialogue.failure().to_string().contains("unknown ca"),
        "{}",
        dialogue.failure()
    );
}

#[test]
fn rubbish_in_the_midst_is_answered_by_an_alert() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_3);
    let mut dialogue = Dialogue::new(&client, &server, None, None);
    dialogue.round();
    dialogue.server.receive(&[0x17, 3, 3, 0, 32]);
    dialogue.server.receive(&[0x55; 32]);
    let Handshake::Failed(error) = dialogue.server.handshake() else {
        panic!()
    };
    assert_eq!(error.fault, Fault::Protocol, "{error}");
    assert!(dialogue.server.has_outbound());
}

#[test]
fn texts_are_one_line() {
    assert_eq!(HandshakeError::internal("a\nb").to_string(), "a\\nb");
}

/// Any octets at all: never a panic, and the same end however they are cut.
#[test]
fn random_octets_never_hang_or_panic() {
    let server = server(&TlsSettings::default());
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut octets = vec![0; random.usize(1..600)];
        random.fill(&mut octets);
        if round % 2 == 0 {
            // The head of a handshake record, so that more of it is read.
            octets.splice(0..0, [22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]);
        }
        let mut whole = Connection::accept(&server, None).unwrap();
        whole.receive(&octets);
        let mut cut = Connection::accept(&server, None).unwrap();
        let mut last = Handshake::WantsInput;
        for octet in &octets {
            cut.receive(std::slice::from_ref(octet));
            last = cut.handshake();
        }
        assert_eq!(whole.handshake(), last, "round {round}");
    }
}
