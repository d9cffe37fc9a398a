//! Which certificate a client gets: by the name it asks for, and by what it can verify.

use openssl::x509::X509;

use super::*;

fn presented(dialogue: &Dialogue) -> Vec<u8> {
    dialogue
        .client
        .ssl()
        .peer_certificate()
        .unwrap()
        .to_der()
        .unwrap()
}

fn unverified(configure: impl FnOnce(&mut SslContextBuilder)) -> Client {
    Client::with(|builder| {
        // The sets of certificates here have a CA each.
        builder.set_verify(SslVerifyMode::NONE);
        configure(builder);
    })
}

#[test]
fn the_name_leads_to_the_certificate() {
    let wild = certificates(&["*.wild.test", "bücher.test"]);
    let exact = certificates(&["exact.wild.test"]);
    let pairs = [
        ecdsa(CERTIFICATES.path()),
        rsa(CERTIFICATES.path()),
        ecdsa(wild.path()),
        ecdsa(exact.path()),
    ];
    let server = ServerContexts::build(&pairs, &TlsSettings::default(), ring()).unwrap();
    let table = [
        ("no name", None, 0),
        ("exact", Some("mx.test"), 0),
        ("case", Some("MX.Test"), 0),
        ("second name", Some("localhost"), 0),
        ("wildcard", Some("a.wild.test"), 2),
        ("wildcard is one label", Some("a.b.wild.test"), 0),
        ("wildcard is not no label", Some("wild.test"), 0),
        ("exact before wildcard", Some("exact.wild.test"), 3),
        ("the wildcard itself", Some("*.wild.test"), 2),
        ("A-label", Some("xn--bcher-kva.test"), 2),
        ("U-label", Some("bücher.test"), 2),
        ("unknown", Some("unknown.example"), 0),
        ("one label", Some("x"), 0),
        ("dot", Some("mx.test."), 0),
    ];
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (row, name, expected) in table {
            let mut client = unverified(|builder| {
                builder.set_max_proto_version(Some(version)).unwrap();
            });
            client.server_name = name;
            let mut dialogue = client.connect(&server, None);
            let facts = dialogue.facts();
            assert_eq!(facts.server_name.as_deref(), name, "{version:?}, {row}");
            let leaf = pairs[expected].leaf.to_der().unwrap();
            assert!(presented(&dialogue) == leaf, "{version:?}, {row}");

            // A ticket of any of the contexts is good.
            let ticket = dialogue.client.ssl().session().unwrap().to_owned();
            dialogue.close();
            let ticket = client.take_tickets().pop().unwrap_or(ticket);
            assert!(client.resume(&server, ticket).0, "{version:?}, {row}");
        }
    }
}

#[test]
fn the_key_type_goes_by_what_the_client_can_verify() {
    let other = certificates(&["other.test"]);
    let pairs = [
        ecdsa(CERTIFICATES.path()),
        rsa(other.path()),
        rsa(CERTIFICATES.path()),
        ecdsa(other.path()),
    ];
    let server = ServerContexts::build(&pairs, &TlsSettings::default(), ring()).unwrap();
    let v2 = SslVersion::TLS1_2;
    let v3 = SslVersion::TLS1_3;
    let ecdsa_only = "ECDSA+SHA256";
    let rsa_only = "rsa_pss_rsae_sha256:RSA+SHA256";
    let table = [
        ("mx, ECDSA", "mx.test", v3, ecdsa_only, 0),
        ("mx, RSA", "mx.test", v3, rsa_only, 2),
        ("mx, ECDSA, 1.2", "mx.test", v2, ecdsa_only, 0),
        ("mx, RSA, 1.2", "mx.test", v2, rsa_only, 2),
        ("other, ECDSA", "other.test", v3, ecdsa_only, 3),
        ("other, RSA", "other.test", v3, rsa_only, 1),
        ("unknown, RSA", "unknown.test", v3, rsa_only, 2),
    ];
    for (row, name, version, algorithms, expected) in table {
        let mut client = unverified(|builder| {
            builder.set_max_proto_version(Some(version)).unwrap();
            builder.set_sigalgs_list(algorithms).unwrap();
        });
        client.server_name = Some(name);
        let dialogue = client.connect(&server, None);
        dialogue.facts();
        assert!(
            presented(&dialogue) == pairs[expected].leaf.to_der().unwrap(),
            "{row}"
        );
    }
}

#[test]
fn each_key_type_has_its_own_chain() {
    // As a chain the CA itself serves: it needs not be sent, but it may.
    let directory = tempfile::tempdir().unwrap();
    let chained = directory.path().join("chained.crt");
    let mut pem = std::fs::read(path(development::SERVER_ECDSA_CERTIFICATE)).unwrap();
    pem.extend(std::fs::read(path(development::CA_CERTIFICATE)).unwrap());
    std::fs::write(&chained, pem).unwrap();
    let pairs = [
        CertifiedKey::load(&chained, &path(development::SERVER_ECDSA_KEY)).unwrap(),
        rsa(CERTIFICATES.path()),
    ];
    let server = ServerContexts::build(&pairs, &TlsSettings::default(), ring()).unwrap();
    let ca = X509::from_pem(&std::fs::read(path(development::CA_CERTIFICATE)).unwrap()).unwrap();
    for (row, algorithms, expected) in [
        ("ECDSA", "ECDSA+SHA256", vec![pairs[0].leaf.clone(), ca]),
        ("RSA", "rsa_pss_rsae_sha256", vec![pairs[1].leaf.clone()]),
    ] {
        let client = Client::with(|builder| builder.set_sigalgs_list(algorithms).unwrap());
        let dialogue = client.connect(&server, None);
        dialogue.facts();
        let chain = dialogue.client.ssl().peer_cert_chain().unwrap();
        let chain: Vec<Vec<u8>> = chain.iter().map(|sent| sent.to_der().unwrap()).collect();
        let expected: Vec<Vec<u8>> = expected.iter().map(|sent| sent.to_der().unwrap()).collect();
        assert!(chain == expected, "{row}: {} certificates", chain.len());
    }
}

#[test]
fn contexts_go_when_nobody_uses_them() {
    let ring = ring();
    let server =
        ServerContexts::build(&pairs(), &TlsSettings::default(), Arc::clone(&ring)).unwrap();
    let dialogue = Client::new().connect(&server, None);
    assert!(Arc::strong_count(&ring) > 1);
    drop(server);
    assert!(
        Arc::strong_count(&ring) > 1,
        "a connection keeps its context"
    );
    drop(dialogue);
    assert_eq!(Arc::strong_count(&ring), 1);
}

#[test]
fn without_a_certificate_there_is_no_context() {
    let error = ServerContexts::build(&[], &TlsSettings::default(), ring())
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "there is no certificate");
}
