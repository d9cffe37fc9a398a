//! Plaintext in both directions, and the end of a connection.

use openssl::ssl::ShutdownState;

use super::*;
use crate::tls::Read;

fn open(version: SslVersion) -> Dialogue {
    let dialogue = Client::version(version).connect(&server(&TlsSettings::default()), None);
    dialogue.facts();
    dialogue
}

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

fn read_all(connection: &mut Connection, room: usize) -> (Vec<u8>, Read) {
    let mut all = Vec::new();
    let mut plaintext = vec![0; room];
    loop {
        match connection.read(&mut plaintext) {
            Read::Octets(octets) => all.extend_from_slice(&plaintext[..octets]),
            end @ (Read::WantsInput | Read::Closed | Read::Failed(_)) => return (all, end),
        }
    }
}

#[test]
fn any_amount_passes_in_any_cut() {
    let mail: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
    for version in VERSIONS {
        for (room, cut) in [(1 << 20, 1 << 20), (17, 1 << 20), (4096, 7), (16384, 1000)] {
            let mut dialogue = open(version);
            dialogue
                .client
                .ssl_write(&mail)
                .map(|_| ())
                .unwrap_or_default();
            // The wire takes all, but OpenSSL one record a call.
            let sent = dialogue.client.get_mut().outbound();
            let mut received = Vec::new();
            for piece in sent.chunks(cut) {
                dialogue.server.receive(piece);
                let (octets, end) = read_all(&mut dialogue.server, room);
                assert!(matches!(end, Read::WantsInput), "{end:?}");
                received.extend(octets);
            }
            assert!(
                mail.starts_with(&received) && !received.is_empty(),
                "{room} {cut}"
            );

            dialogue.server.write(&mail).unwrap();
            dialogue.round();
            dialogue.round();
            assert!(dialogue.received == mail, "{room} {cut}");
        }
    }
}

#[test]
fn close_notify_goes_both_ways() {
    for version in VERSIONS {
        let mut dialogue = open(version);
        dialogue.server.write(b"221 2.0.0 Bye\r\n").unwrap();
        dialogue.server.close();
        dialogue.server.close();
        assert!(!dialogue.server.peer_closed());
        dialogue.round();
        dialogue.client_step();
        assert_eq!(dialogue.received, b"221 2.0.0 Bye\r\n");
        assert!(
            dialogue
                .client
                .get_shutdown()
                .contains(ShutdownState::RECEIVED)
        );

        let _ = dialogue.client.shutdown();
        let octets = dialogue.client.get_mut().outbound();
        assert!(!octets.is_empty());
        dialogue.server.receive(&octets);
        let (_, end) = read_all(&mut dialogue.server, 100);
        assert!(matches!(end, Read::Closed), "{end:?}");
        assert!(dialogue.server.peer_closed());
        assert!(!dialogue.server.has_outbound());
    }
}

#[test]
fn the_peers_close_comes_behind_its_last_octets() {
    for version in VERSIONS {
        let mut dialogue = open(version);
        dialogue.client.ssl_write(b"QUIT\r\n").unwrap();
        let _ = dialogue.client.shutdown();
        let octets = dialogue.client.get_mut().outbound();
        dialogue.server.receive(&octets);
        let (octets, end) = read_all(&mut dialogue.server, 100);
        assert_eq!(octets, b"QUIT\r\n");
        assert!(matches!(end, Read::Closed), "{end:?}");
        // What was to be said is still said, and ours follows.
        dialogue.server.write(b"221 2.0.0 Bye\r\n").unwrap();
        dialogue.server.close();
        assert!(dialogue.server.has_outbound());
    }
}

#[test]
fn a_record_that_was_changed_on_the_way_is_refused_with_an_alert() {
    for version in VERSIONS {
        let mut dialogue = open(version);
        dialogue.client.ssl_write(b"MAIL FROM:<>\r\n").unwrap();
        let mut octets = dialogue.client.get_mut().outbound();
        *octets.last_mut().unwrap() ^= 1;
        dialogue.server.receive(&octets);
        let (plaintext, end) = read_all(&mut dialogue.server, 100);
        assert!(plaintext.is_empty());
        let Read::Failed(error) = end else {
            panic!("{end:?}")
        };
        assert!(!error.to_string().contains('\n'), "{error}");
        assert!(dialogue.server.has_outbound());
        assert!(dialogue.server.write(b"250").is_err());
        dialogue.server.close();
    }
}

#[test]
fn renegotiation_is_refused_and_the_dialogue_goes_on() {
    let mut dialogue = open(SslVersion::TLS1_2);
    super::super::ffi::renegotiate(dialogue.client.ssl());
    let _ = dialogue.client.do_handshake();
    let octets = dialogue.client.get_mut().outbound();
    assert!(!octets.is_empty(), "the client tried");
    dialogue.server.receive(&octets);
    let (plaintext, end) = read_all(&mut dialogue.server, 100);
    assert!(plaintext.is_empty());
    assert!(matches!(end, Read::WantsInput), "{end:?}");
    // A warning, no_renegotiation (RFC 5246 §7.2.2).
    assert!(dialogue.server.has_outbound());
}

#[test]
fn an_idle_connection_holds_no_octets() {
    for version in VERSIONS {
        let mut dialogue = open(version);
        dialogue.client.ssl_write(&[b'x'; 10_000]).unwrap();
        let octets = dialogue.client.get_mut().outbound();
        dialogue.server.receive(&octets);
        read_all(&mut dialogue.server, 100);
        dialogue.server.write(&[b'x'; 10_000]).unwrap();
        assert!(dialogue.server.outbound().len() > 10_000);
        assert_eq!(dialogue.server.buffered(), 0);
        assert!(!dialogue.server.keeps_key_share());
    }
}
