//! Versions, groups and ciphers.

use super::*;
use crate::tls::{DEFAULT_GROUPS, Fault, MinVersion};

/// From OpenSSL 3.5 on.
fn has_mlkem() -> bool {
    SslContext::builder(SslMethod::tls_client())
        .unwrap()
        .set_groups_list("X25519MLKEM768")
        .is_ok()
}

#[test]
fn versions() {
    let (v2, v3) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    let table = [
        ("1.2 at 1.2", MinVersion::Tls12, v2, Some("TLSv1.2")),
        ("1.3 at 1.2", MinVersion::Tls12, v3, Some("TLSv1.3")),
        ("1.2 at 1.3", MinVersion::Tls13, v2, None),
        ("1.3 at 1.3", MinVersion::Tls13, v3, Some("TLSv1.3")),
        ("1.0 at 1.2", MinVersion::Tls12, SslVersion::TLS1, None),
        ("1.1 at 1.2", MinVersion::Tls12, SslVersion::TLS1_1, None),
    ];
    for (name, min, version, expected) in table {
        let server = server(&TlsSettings {
            min,
            ..TlsSettings::default()
        });
        let client = Client::with(|builder| {
            // TLS 1.0 and 1.1 are only to be had below security level 1.
            builder.set_security_level(0);
            builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            builder.set_min_proto_version(Some(version)).unwrap();
            builder.set_max_proto_version(Some(version)).unwrap();
        });
        let dialogue = client.connect(&server, None);
        match expected {
            Some(expected) => assert_eq!(dialogue.facts().version, expected, "{name}"),
            None => {
                assert_eq!(dialogue.failure().fault, Fault::Version, "{name}");
                let told = dialogue.client_done.unwrap().unwrap_err();
                assert!(told.contains("alert protocol version"), "{name}: {told}");
            }
        }
    }
}

#[test]
fn the_group_is_the_first_of_ours_that_the_client_has() {
    let default = if has_mlkem() {
        "X25519MLKEM768"
    } else {
        "x25519"
    };
    let table = [
        ("default", DEFAULT_GROUPS, DEFAULT_GROUPS, default),
        ("P-384 only", DEFAULT_GROUPS, "P-384", "secp384r1"),
        ("ours first", "P-256:X25519", "X25519:P-256", "secp256r1"),
    ];
    for (name, ours, theirs, expected) in table {
        let server = server(&TlsSettings {
            groups: ours.to_owned(),
            ..TlsSettings::default()
        });
        let client = Client::with(|builder| {
            let theirs = if has_mlkem() {
                theirs
            } else {
                theirs.trim_start_matches("X25519MLKEM768:")
            };
            builder.set_groups_list(theirs).unwrap();
        });
        let facts = client.connect(&server, None).facts();
        // OpenSSL 3.0 takes the client's share where it can; later ones the first of ours.
        if name != "ours first" {
            assert_eq!(facts.group.as_deref(), Some(expected), "{name}");
        }
    }
}

#[test]
fn no_group_in_common() {
    let server = server(&TlsSettings {
        groups: "X25519".to_owned(),
        ..TlsSettings::default()
    });
    let client = Client::with(|builder| builder.set_groups_list("P-256").unwrap());
    assert_eq!(
        client.connect(&server, None).failure().fault,
        Fault::NoSharedGroup
    );
}

#[test]
fn groups_that_do_not_exist_are_named() {
    let table = [
        (
            "X25519:NOPE",
            "--tls-groups X25519:NOPE: the linked OpenSSL has no group \"NOPE\"",
        ),
        ("", "--tls-groups : the linked OpenSSL has no group \"\""),
        (
            "X25519:",
            "--tls-groups X25519:: the linked OpenSSL has no group \"\"",
        ),
    ];
    for (groups, expected) in table {
        let settings = TlsSettings {
            groups: groups.to_owned(),
            ..TlsSettings::default()
        };
        match ServerContexts::build(&pairs(), &settings, ring()) {
            Err(error) => assert_eq!(error.to_string(), expected, "{groups}"),
            // Later versions of OpenSSL pass over a separator too many.
            Ok(_) => assert_eq!(groups, "X25519:"),
        }
    }
    let named = TlsSettings {
        groups: "X25519MLKEM768:X25519".to_owned(),
        ..TlsSettings::default()
    };
    let built = ServerContexts::build(&pairs(), &named, ring());
    assert_eq!(
        built.is_ok(),
        has_mlkem(),
        "only the default list leaves out what is not there"
    );
}

#[test]
fn ciphers_of_both_versions_come_in_one_list() {
    const V2: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";
    const V3: &str = "TLS_CHACHA20_POLY1305_SHA256";
    let table = [
        (
            "one of each",
            "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256",
            V2,
            V3,
        ),
        (
            "commas",
            "ECDHE-ECDSA-AES128-GCM-SHA256,TLS_CHACHA20_POLY1305_SHA256",
            V2,
            V3,
        ),
        (
            "1.2 only",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            V2,
            "TLS_AES_256_GCM_SHA384",
        ),
        (
            "the registry's name",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            V2,
            "TLS_AES_256_GCM_SHA384",
        ),
        ("1.3 only", V3, "ECDHE-ECDSA-AES256-GCM-SHA384", V3),
        (
            "an expression",
            "ECDHE+AES128:!SHA1:@STRENGTH",
            V2,
            "TLS_AES_256_GCM_SHA384",
        ),
    ];
    for (name, ciphers, v2, v3) in table {
        let settings = TlsSettings {
            ciphers: Some(ciphers.to_owned()),
            ..TlsSettings::default()
        };
        let server = server(&settings);
        for (version, expected) in [(SslVersion::TLS1_2, v2), (SslVersion::TLS1_3, v3)] {
            let facts = Client::version(version).connect(&server, None).facts();
            assert_eq!(&*facts.cipher, expected, "{name}");
            assert!([128, 256].contains(&facts.bits), "{name}");
        }
    }
}

#[test]
fn ciphers_that_do_not_exist_are_named() {
    let table = [
        ("NOPE", "NOPE"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256:NOPE", "NOPE"),
        ("TLS_AES_256_GCM_SHA384:TLS_NOPE", "TLS_NOPE"),
        ("HIGH:!HIGH", "HIGH:!HIGH"),
        ("", ""),
    ];
    for (ciphers, at_fault) in table {
        let settings = TlsSettings {
            ciphers: Some(ciphers.to_owned()),
            ..TlsSettings::default()
        };
        let error = ServerContexts::build(&pairs(), &settings, ring())
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            format!("--tls-ciphers {ciphers}: the linked OpenSSL has no cipher \"{at_fault}\"")
        );
    }
}

#[test]
fn no_cipher_in_common() {
    let ciphers = Some("ECDHE-ECDSA-AES128-GCM-SHA256".to_owned());
    let server = server(&TlsSettings {
        ciphers,
        ..TlsSettings::default()
    });
    let client = Client::with(|builder| {
        builder
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
        builder
            .set_cipher_list("ECDHE-RSA-AES128-GCM-SHA256")
            .unwrap();
    });
    let dialogue = client.connect(&server, None);
    assert_eq!(dialogue.failure().fault, Fault::NoSharedCipher);
    assert_eq!(dialogue.failure().to_string(), "no shared cipher");
}

#[test]
fn the_facts_of_a_handshake() {
    let server = server(&TlsSettings::default());
    let client = Client::version(SslVersion::TLS1_3);
    let mut dialogue = client.connect(&server, None);
    let facts = dialogue.facts();
    let group = if has_mlkem() {
        "X25519MLKEM768"
    } else {
        "x25519"
    };
    assert_eq!(
        facts,
        Facts {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            bits: 256,
            // What a client of OpenSSL offers first.
            group: Some(group.into()),
            resumed: false,
            server_name: Some("mx.test".into()),
            peer_certificate: None,
        }
    );
    dialogue.close();
    let ticket = client.take_tickets().pop().unwrap();
    assert_eq!(
        client.connect(&server, Some(ticket)).facts(),
        Facts {
            resumed: true,
            ..facts
        }
    );
}
