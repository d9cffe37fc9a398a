//! Certificates of clients: not asked for, requested, required.

use super::*;
use crate::tls::{ClientCert, Fault, TlsError, Verification};

fn settings(client_cert: ClientCert) -> TlsSettings {
    TlsSettings {
        client_cert,
        client_ca: Some(path(development::CA_CERTIFICATE)),
        ..TlsSettings::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Nobody,
    Trusted,
    Untrusted,
    Refused,
}

#[test]
fn are_asked_for_as_the_policy_says() {
    use Expected::{Nobody, Refused, Trusted, Untrusted};
    let elsewhere = certificates(&["elsewhere.test"]);
    let of = |name: &str| elsewhere.path().join(name);
    let anonymous = Client::new();
    let known = Client::known();
    let stranger = Client::presenting(
        &of(development::CLIENT_CERTIFICATE),
        &of(development::CLIENT_KEY),
    );
    // Signed by the right CA, but for servers only.
    let wrong_purpose = Client::presenting(
        &path(development::SERVER_ECDSA_CERTIFICATE),
        &path(development::SERVER_ECDSA_KEY),
    );
    let table = [
        ("none", ClientCert::None, [Nobody, Nobody, Nobody, Nobody]),
        (
            "request",
            ClientCert::Request,
            [Nobody, Trusted, Untrusted, Untrusted],
        ),
        (
            "require",
            ClientCert::Require,
            [Refused, Trusted, Refused, Refused],
        ),
    ];
    let clients = [
        ("anonymous", &anonymous),
        ("known", &known),
        ("stranger", &stranger),
        ("wrong purpose", &wrong_purpose),
    ];
    for (policy, client_cert, row) in table {
        let server = server(&settings(client_cert));
        for ((who, client), expected) in clients.into_iter().zip(row) {
            let dialogue = client.connect(&server, None);
            let got = match &dialogue.server_handshake {
                Handshake::Failed(error) => {
                    assert_eq!(
                        error.fault,
                        Fault::ClientCertificate,
                        "{policy}, {who}: {error}"
                    );
                    Refused
                }
                Handshake::Done(_) => match dialogue.server.facts().peer_certificate {
                    None => Nobody,
                    Some(certificate) => match certificate.verification {
                        Verification::Trusted => Trusted,
                        Verification::Untrusted(_) => Untrusted,
                    },
                },
                Handshake::WantsInput => panic!("{policy}, {who}"),
            };
            assert_eq!(got, expected, "{policy}, {who}");
        }
    }
}

#[test]
fn are_told_by_subject_and_names_also_when_resumed() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for client_cert in [ClientCert::Request, ClientCert::Require] {
            let server = server(&settings(client_cert));
            let client = Client::with(|builder| {
                builder.set_max_proto_version(Some(version)).unwrap();
                builder
                    .set_certificate_chain_file(path(development::CLIENT_CERTIFICATE))
                    .unwrap();
                builder
                    .set_private_key_file(path(development::CLIENT_KEY), SslFiletype::PEM)
                    .unwrap();
            });
            let mut ticket = None;
            for resumed in [false, true, true] {
                let mut dialogue = client.connect(&server, ticket);
                let facts = dialogue.facts();
                assert_eq!(facts.resumed, resumed);
                let certificate = facts.peer_certificate.unwrap();
                assert_eq!(&*certificate.subject, "CN=ringpost development client");
                let names: Vec<&str> = certificate.names.iter().map(|name| &**name).collect();
                assert_eq!(names, ["client.mx.test", "client@mx.test"]);
                assert_eq!(certificate.verification, Verification::Trusted);
                ticket = dialogue.client.ssl().session().map(ToOwned::to_owned);
                dialogue.close();
                ticket = client.take_tickets().pop().or(ticket);
            }
        }
    }
}

#[test]
fn a_refused_client_is_told_by_an_alert() {
    let dialogue = Client::new().connect(&server(&settings(ClientCert::Require)), None);
    assert_eq!(
        dialogue.failure().to_string(),
        "peer did not return a certificate"
    );
    // TLS 1.3: the client has finished, and finds the alert when it reads.
    assert!(dialogue.server_octets > 0);
}

#[test]
fn the_file_of_cas_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let rubbish = directory.path().join("rubbish");
    std::fs::write(&rubbish, "rubbish").unwrap();
    let missing = directory.path().join("missing");
    let table = [
        (
            "no file",
            ClientCert::Require,
            None,
            "--client-cert require needs --client-ca FILE",
        ),
        (
            "missing",
            ClientCert::Request,
            Some(missing),
            "No such file",
        ),
        (
            "rubbish",
            ClientCert::Request,
            Some(rubbish.clone()),
            "no certificate in PEM form",
        ),
        (
            "not used",
            ClientCert::None,
            Some(rubbish),
            "no certificate in PEM form",
        ),
    ];
    for (name, client_cert, client_ca, expected) in table {
        let settings = TlsSettings {
            client_cert,
            client_ca,
            ..TlsSettings::default()
        };
        let error: TlsError = ServerContexts::build(&pairs(), &settings, ring())
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.starts_with("--client-c"),
            "{name}: {text}"
        );
    }
}
