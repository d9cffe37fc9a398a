//! Connections to next hops: our client's side, against our own server's side and OpenSSL's.

use std::time::Instant;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{ShutdownState, SslOptions};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name, X509NameBuilder};

use super::*;
use crate::tls::{
    ClientCert, ClientContext, ClientMaterial, ClientSettings, Fault, MinVersion, PeerName, Read,
    TlsError, Verification, Verify,
};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// The server's end.
enum Hop {
    Ours(Connection),
    OpenSsl(Box<SslStream<Wire>>),
}

impl Hop {
    fn ours(contexts: &ServerContexts) -> Hop {
        Hop::Ours(Connection::accept(contexts, None).unwrap())
    }

    fn openssl(context: &SslContext) -> Hop {
        let mut ssl = Ssl::new(context).unwrap();
        ssl.set_accept_state();
        Hop::OpenSsl(Box::new(SslStream::new(ssl, Wire::default()).unwrap()))
    }

    /// Takes octets, and gives what it answers.
    fn answer(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut plaintext = [0; 4096];
        match self {
            Hop::Ours(connection) => {
                connection.receive(octets);
                if matches!(connection.handshake(), Handshake::Done(_)) {
                    while let Read::Octets(_) = connection.read(&mut plaintext) {}
                }
                connection.outbound()
            }
            Hop::OpenSsl(stream) => {
                stream.get_mut().receive(octets);
                if stream.do_handshake().is_ok() {
                    while let Ok(1..) = stream.ssl_read(&mut plaintext) {}
                }
                stream.get_mut().outbound()
            }
        }
    }

    fn write(&mut self, plaintext: &[u8]) {
        match self {
            Hop::Ours(connection) => connection.write(plaintext).unwrap(),
            Hop::OpenSsl(stream) => {
                assert_eq!(stream.ssl_write(plaintext).unwrap(), plaintext.len());
            }
        }
    }

    fn close(&mut self) {
        match self {
            Hop::Ours(connection) => connection.close(),
            Hop::OpenSsl(stream) => {
                let _ = stream.shutdown();
            }
        }
    }
}

/// One connection and both of its ends.
struct Call {
    client: Connection,
    hop: Hop,
    handshake: Handshake,
    /// Plaintext that came to the client, and why no more does.
    received: Vec<u8>,
    end: Option<Read>,
    /// Flights that the client sent.
    flights: usize,
}

impl Call {
    fn new(context: &ClientContext, peer: &PeerName, hop: Hop) -> Call {
        Call {
            client: Connection::connect(context, peer).unwrap(),
            hop,
            handshake: Handshake::WantsInput,
            received: Vec::new(),
            end: None,
            flights: 0,
        }
    }

    /// A connection on which nothing moves any more.
    fn made(context: &ClientContext, peer: &PeerName, hop: Hop) -> Call {
        let mut call = Call::new(context, peer, hop);
        call.run();
        call
    }

    fn run(&mut self) {
        loop {
            self.client_step();
            let flight = self.client.outbound();
            self.flights += usize::from(!flight.is_empty());
            let answer = self.hop.answer(&flight);
            self.client.receive(&answer);
            if flight.is_empty() && answer.is_empty() {
                return;
            }
        }
    }

    fn client_step(&mut self) {
        self.handshake = self.client.handshake();
        if !matches!(self.handshake, Handshake::Done(_)) {
            return;
        }
        let mut plaintext = [0; 4096];
        loop {
            match self.client.read(&mut plaintext) {
                Read::Octets(octets) => self.received.extend_from_slice(&plaintext[..octets]),
                end @ (Read::WantsInput | Read::Closed | Read::Failed(_)) => {
                    self.end = Some(end);
                    return;
                }
            }
        }
    }

    #[track_caller]
    fn facts(&self) -> Facts {
        assert_eq!(self.handshake, Handshake::Done(GreetingSent::No));
        self.client.facts()
    }

    #[track_caller]
    fn failure(&self) -> HandshakeError {
        let Handshake::Failed(error) = &self.handshake else {
            panic!("{:?}", self.handshake)
        };
        error.clone()
    }

    #[track_caller]
    fn hop_facts(&self) -> Facts {
        match &self.hop {
            Hop::Ours(connection) => connection.facts(),
            Hop::OpenSsl(_) => panic!("OpenSSL's end has no facts"),
        }
    }

    /// Why the server is not believed; none: it is.
    #[track_caller]
    fn doubt(&self) -> Option<String> {
        match self.facts().peer_certificate.unwrap().verification {
            Verification::Trusted => None,
            Verification::Untrusted(reason) => Some(reason.into()),
        }
    }
}

fn settings(verify: Verify) -> ClientSettings {
    ClientSettings {
        verify,
        ca: Some(path(development::CA_CERTIFICATE)),
        ..ClientSettings::default()
    }
}

fn client(settings: &ClientSettings) -> ClientContext {
    ClientContext::build(&ClientMaterial::read(settings).unwrap()).unwrap()
}

/// A client that has no version above this one.
fn client_of(version: SslVersion, settings: &ClientSettings) -> ClientContext {
    let material = ClientMaterial::read(settings).unwrap();
    ClientContext::build_up_to(Some(version), &material).unwrap()
}

fn peer(name: &str) -> PeerName {
    PeerName {
        name: name.into(),
        key: "25".into(),
    }
}

/// A server certificate that we need not have made ourselves.
struct Issued {
    leaf: X509,
    key: PKey<Private>,
    chain: Vec<X509>,
}

/// What is special about it.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Without one the common name is all there is.
    alternative: Option<&'a str>,
    /// From and until, in days from now.
    days: (i64, i64),
    self_signed: bool,
    rsa_bits: Option<u32>,
}

const WANTED: Wanted<'_> = Wanted {
    alternative: Some("mx.test"),
    days: (-1, 1),
    self_signed: false,
    rsa_bits: None,
};

fn common_name(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    builder.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    builder.build()
}

fn issue(wanted: Wanted<'_>) -> Issued {
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    let ca = X509::from_pem(&read(development::CA_CERTIFICATE)).unwrap();
    let ca_key = PKey::private_key_from_pem(&read(development::CA_KEY)).unwrap();
    let key = match wanted.rsa_bits {
        Some(bits) => PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap(),
        None => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
        }
    };
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(fastrand::u32(1..)).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    let subject = common_name("mx.test");
    builder.set_subject_name(&subject).unwrap();
    let now = i64::try_from(crate::tls::tickets::unix_seconds(
        std::time::SystemTime::now(),
    ))
    .unwrap();
    let day = |day: i64| Asn1Time::from_unix(now + day * 86_400).unwrap();
    builder.set_not_before(&day(wanted.days.0)).unwrap();
    builder.set_not_after(&day(wanted.days.1)).unwrap();
    builder.set_pubkey(&key).unwrap();
    if let Some(name) = wanted.alternative {
        let names = SubjectAlternativeName::new()
            .dns(name)
            .build(&builder.x509v3_context(Some(&ca), None))
            .unwrap();
        builder.append_extension(names).unwrap();
    }
    let (issuer, issuer_key) = if wanted.self_signed {
        (&*subject, &key)
    } else {
        (ca.subject_name(), &ca_key)
    };
    builder.set_issuer_name(issuer).unwrap();
    builder.sign(issuer_key, MessageDigest::sha256()).unwrap();
    Issued {
        leaf: builder.build(),
        key,
        chain: Vec::new(),
    }
}

fn of(pair: &CertifiedKey) -> Issued {
    Issued {
        leaf: pair.leaf.clone(),
        key: pair.key.clone(),
        chain: pair.chain.clone(),
    }
}

/// OpenSSL's server, with no more than it has by itself, and no rules about strength.
fn openssl_server(
    issued: &Issued,
    configure: impl FnOnce(&mut SslContextBuilder) -> Result<(), ErrorStack>,
) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_server()).unwrap();
    builder.set_security_level(0);
    builder.set_certificate(&issued.leaf).unwrap();
    builder.set_private_key(&issued.key).unwrap();
    for certificate in &issued.chain {
        builder.add_extra_chain_cert(certificate.clone()).unwrap();
    }
    builder.set_session_id_context(b"hop").unwrap();
    configure(&mut builder).unwrap();
    builder.build()
}

fn only(version: SslVersion) -> impl Fn(&mut SslContextBuilder) -> Result<(), ErrorStack> {
    move |builder| {
        builder.set_min_proto_version(Some(version))?;
        builder.set_max_proto_version(Some(version))
    }
}

#[test]
fn are_verified_and_the_reason_is_the_same_whether_it_matters_or_not() {
    let ours = || of(&ecdsa(CERTIFICATES.path()));
    let elsewhere = certificates(&["mx.test"]);
    let with_root = Issued {
        chain: vec![
            X509::from_pem(
                &std::fs::read(elsewhere.path().join(development::CA_CERTIFICATE)).unwrap(),
            )
            .unwrap(),
        ],
        ..of(&ecdsa(elsewhere.path()))
    };
    let for_clients = CertifiedKey::load(
        &path(development::CLIENT_CERTIFICATE),
        &path(development::CLIENT_KEY),
    )
    .unwrap();
    let named = |name| {
        issue(Wanted {
            alternative: Some(name),
            ..WANTED
        })
    };
    let in_days = |days| issue(Wanted { days, ..WANTED });
    let self_signed = issue(Wanted {
        self_signed: true,
        ..WANTED
    });
    let common_name_only = issue(Wanted {
        alternative: None,
        ..WANTED
    });
    let weak = issue(Wanted {
        rsa_bits: Some(1024),
        ..WANTED
    });
    let table: [(&str, Issued, &str, Option<&str>); 20] = [
        ("verified", ours(), "mx.test", None),
        ("case and dot", ours(), "MX.Test.", None),
        ("second name", ours(), "localhost", None),
        ("IPv4", ours(), "127.0.0.1", None),
        ("IPv6", ours(), "::1", None),
        ("wildcard", named("*.wild.test"), "a.wild.test", None),
        ("common name alone", common_name_only, "mx.test", None),
        (
            "another name",
            ours(),
            "other.test",
            Some("hostname mismatch"),
        ),
        (
            "a name below",
            ours(),
            "a.mx.test",
            Some("hostname mismatch"),
        ),
        (
            "another address",
            ours(),
            "127.0.0.2",
            Some("IP address mismatch"),
        ),
        (
            "wildcard is one label",
            named("*.wild.test"),
            "a.b.wild.test",
            Some("hostname mismatch"),
        ),
        (
            "wildcard is a whole label",
            named("mx*.wild.test"),
            "mx1.wild.test",
            Some("hostname mismatch"),
        ),
        (
            "unknown CA",
            of(&ecdsa(elsewhere.path())),
            "mx.test",
            Some("unable to get local issuer certificate"),
        ),
        (
            "unknown CA, which is sent too",
            with_root,
            "mx.test",
            Some("self-signed certificate in certificate chain"),
        ),
        (
            "unknown CA and another name",
            of(&ecdsa(elsewhere.path())),
            "other.test",
            Some("unable to get local issuer certificate"),
        ),
        (
            "self-signed",
            self_signed,
            "mx.test",
            Some("self-signed certificate"),
        ),
        (
            "expired",
            in_days((-3, -1)),
            "mx.test",
            Some("certificate has expired"),
        ),
        (
            "too early",
            in_days((1, 3)),
            "mx.test",
            Some("certificate is not yet valid or the system clock is incorrect"),
        ),
        (
            "for clients only",
            of(&for_clients),
            "client.mx.test",
            Some("unsuitable certificate purpose"),
        ),
        (
            "weak key",
            weak,
            "mx.test",
            Some("EE certificate key too weak"),
        ),
    ];
    let lax = client(&settings(Verify::No));
    let strict = client(&settings(Verify::Yes));
    for version in VERSIONS {
        for (row, issued, name, expected) in &table {
            let server = openssl_server(issued, only(version));
            // The same key for all, so that a session that went astray would show.
            let peer = peer(name);
            let call = Call::made(&lax, &peer, Hop::openssl(&server));
            assert_eq!(call.doubt().as_deref(), *expected, "{version:?}, {row}");

            let mut call = Call::made(&strict, &peer, Hop::openssl(&server));
            match expected {
                None => assert_eq!(call.doubt(), None, "{version:?}, {row}"),
                Some(reason) => {
                    let error = call.failure();
                    assert_eq!(error.fault, Fault::ServerCertificate, "{version:?}, {row}");
                    assert_eq!(
                        error.to_string(),
                        format!("certificate verify failed: {reason}"),
                        "{version:?}, {row}"
                    );
                    assert_eq!(strict.sessions(&peer).0, 0, "{version:?}, {row}");
                    // The alert was sent, and nothing follows it.
                    assert!(call.flights > 1, "{version:?}, {row}");
                    call.client.close();
                    assert!(!call.client.has_outbound(), "{version:?}, {row}");
                }
            }
        }
    }
}

#[test]
fn without_trust_anchors_everything_is_doubted() {
    let other = certificates(&["mx.test"]);
    for ca in [None, Some(other.path().join(development::CA_CERTIFICATE))] {
        let context = client(&ClientSettings {
            ca,
            ..ClientSettings::default()
        });
        let call = Call::made(
            &context,
            &peer("mx.test"),
            Hop::ours(&server(&TlsSettings::default())),
        );
        assert_eq!(
            call.doubt().as_deref(),
            Some("unable to get local issuer certificate")
        );
    }
}

#[test]
fn both_ends_know_the_same() {
    let server = server(&TlsSettings::default());
    let table = [
        (
            SslVersion::TLS1_2,
            "TLSv1.2",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        (SslVersion::TLS1_3, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ];
    for (version, name, cipher) in table {
        let context = client_of(
            version,
            &ClientSettings {
                groups: "P-256".to_owned(),
                ..settings(Verify::Yes)
            },
        );
        for resumed in [false, true, true] {
            let call = Call::made(&context, &peer("mx.test"), Hop::ours(&server));
            let mut ours = call.facts();
            assert_eq!(ours.version, name);
            assert_eq!(&*ours.cipher, cipher);
            assert_eq!(ours.bits, 256);
            assert_eq!(ours.resumed, resumed);
            let exchange = !resumed || version == SslVersion::TLS1_3;
            let group = exchange.then_some("secp256r1");
            assert_eq!(ours.group.as_deref(), group, "{name}, {resumed}");
            let certificate = ours.peer_certificate.take().unwrap();
            assert_eq!(&*certificate.subject, "CN=mx.test");
            let names: Vec<&str> = certificate.names.iter().map(|name| &**name).collect();
            assert_eq!(names, ["mx.test", "localhost", "127.0.0.1", "::1"]);
            assert_eq!(certificate.verification, Verification::Trusted);
            assert_eq!(ours, call.hop_facts(), "{name}, {resumed}");
        }
    }
}

#[test]
fn are_asked_for_the_name_connected_to_and_for_no_address() {
    let server = server(&TlsSettings::default());
    let context = client(&settings(Verify::No));
    let table = [
        ("mx.test", Some("mx.test")),
        ("MX.Test.", Some("mx.test")),
        ("bücher.test", Some("xn--bcher-kva.test")),
        ("unknown.example", Some("unknown.example")),
        ("127.0.0.1", None),
        ("::1", None),
    ];
    for (name, expected) in table {
        let call = Call::made(&context, &peer(name), Hop::ours(&server));
        call.facts();
        assert_eq!(call.hop_facts().server_name.as_deref(), expected, "{name}");
    }
    let error = Connection::connect(&context, &peer(".test")).err().unwrap();
    assert!(matches!(error, TlsError::PeerName(_)), "{error}");
}

#[test]
fn versions_in_common_and_none() {
    let issued = of(&rsa(CERTIFICATES.path()));
    let (v1_0, v1_1) = (SslVersion::TLS1, SslVersion::TLS1_1);
    let (v1_2, v1_3) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    let (min12, min13) = (MinVersion::Tls12, MinVersion::Tls13);
    let table = [
        ("1.3", min12, v1_3, Some("TLSv1.3")),
        ("1.2", min12, v1_2, Some("TLSv1.2")),
        ("1.1", min12, v1_1, None),
        ("1.0", min12, v1_0, None),
        ("1.3 wanted and there", min13, v1_3, Some("TLSv1.3")),
        ("1.3 wanted", min13, v1_2, None),
    ];
    for (row, min, version, expected) in table {
        let context = client(&ClientSettings {
            min,
            ..settings(Verify::No)
        });
        let server = openssl_server(&issued, |builder| {
            builder.set_cipher_list("ALL:@SECLEVEL=0")?;
            only(version)(builder)
        });
        let call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        match expected {
            Some(version) => assert_eq!(call.facts().version, version, "{row}"),
            None => assert_eq!(call.failure().fault, Fault::Version, "{row}"),
        }
    }

    // A server from before `supported_versions` does not say so, but begins.
    let mut hello = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x13, 0]);
    let mut connection =
        Connection::connect(&client(&settings(Verify::No)), &peer("mx.test")).unwrap();
    assert_eq!(connection.handshake(), Handshake::WantsInput);
    connection.outbound();
    connection.receive(&hello);
    let Handshake::Failed(error) = connection.handshake() else {
        panic!()
    };
    assert_eq!(error.fault, Fault::Version, "{error}");
    assert!(connection.has_outbound());
}

#[test]
fn nothing_in_common() {
    let issued = of(&ecdsa(CERTIFICATES.path()));
    let context = client(&ClientSettings {
        groups: "P-384".to_owned(),
        ..settings(Verify::No)
    });
    let server = openssl_server(&issued, |builder| builder.set_groups_list("X25519"));
    let error = Call::made(&context, &peer("mx.test"), Hop::openssl(&server)).failure();
    assert_eq!(error.fault, Fault::PeerAlert(40), "{error}");
}

#[test]
fn with_1024_bits_of_dh_are_better_than_none() {
    let server = openssl_server(&of(&rsa(CERTIFICATES.path())), |builder| {
        builder.set_cipher_list("DHE-RSA-AES256-GCM-SHA384")?;
        builder.set_tmp_dh(&*Dh::get_1024_160()?)?;
        only(SslVersion::TLS1_2)(builder)
    });
    let call = |verify| {
        let context = client(&settings(verify));
        Call::made(&context, &peer("mx.test"), Hop::openssl(&server))
    };
    assert_eq!(call(Verify::No).doubt(), None);
    let error = call(Verify::Yes).failure();
    assert_eq!(error.fault, Fault::NoSharedGroup, "{error}");
}

#[test]
fn classic_servers_need_no_second_hello() {
    let issued = of(&ecdsa(CERTIFICATES.path()));
    let context = client(&settings(Verify::No));
    // What the server takes, and the flights of the client: a hello, perhaps another, Finished.
    let table = [
        ("X25519MLKEM768", 2),
        ("X25519", 2),
        ("X25519:X25519MLKEM768", 2),
        ("P-256", 3),
        ("P-384", 3),
    ];
    for (groups, flights) in table {
        let server = openssl_server(&issued, |builder| builder.set_groups_list(groups));
        let call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        call.facts();
        assert_eq!(call.flights, flights, "{groups}");
    }
}

#[test]
fn are_shown_our_certificate_when_they_ask() {
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Nobody,
        Trusted,
        Untrusted,
        Refused,
    }
    use Seen::{Nobody, Refused, Trusted, Untrusted};
    let elsewhere = certificates(&["elsewhere.test"]);
    let showing = |version, directory: Option<&Path>| {
        let certificate = directory.map(|directory| {
            (
                directory.join(development::CLIENT_CERTIFICATE),
                directory.join(development::CLIENT_KEY),
            )
        });
        client_of(
            version,
            &ClientSettings {
                certificate,
                ..settings(Verify::Yes)
            },
        )
    };
    let clients = [
        ("none", None),
        ("known", Some(CERTIFICATES.path())),
        ("stranger", Some(elsewhere.path())),
    ];
    let table = [
        (ClientCert::None, [Nobody, Nobody, Nobody]),
        (ClientCert::Request, [Nobody, Trusted, Untrusted]),
        (ClientCert::Require, [Refused, Trusted, Refused]),
    ];
    for (client_cert, row) in &table {
        let server = server(&TlsSettings {
            client_cert: *client_cert,
            client_ca: Some(path(development::CA_CERTIFICATE)),
            ..TlsSettings::default()
        });
        for ((who, directory), expected) in clients.into_iter().zip(row) {
            for version in VERSIONS {
                let context = showing(version, directory);
                let call = Call::made(&context, &peer("mx.test"), Hop::ours(&server));
                let seen = match (&call.handshake, &call.end) {
                    // TLS 1.2: our side is not done before the server is.
                    (Handshake::Failed(error), _) => {
                        assert_eq!(version, SslVersion::TLS1_2, "{error}");
                        assert!(matches!(error.fault, Fault::PeerAlert(_)), "{error}");
                        Refused
                    }
                    // TLS 1.3: it is, and finds the alert when it reads.
                    (_, Some(Read::Failed(error))) => {
                        assert_eq!(version, SslVersion::TLS1_3, "{error}");
                        assert!(error.to_string().contains("alert"), "{error}");
                        Refused
                    }
                    (_, _) => match call.hop_facts().peer_certificate {
                        None => Nobody,
                        Some(certificate) => match certificate.verification {
                            Verification::Trusted => Trusted,
                            Verification::Untrusted(_) => Untrusted,
                        },
                    },
                };
                assert_eq!(seen, *expected, "{version:?}, {client_cert:?}, {who}");
            }
        }
    }
}

#[test]
fn get_our_chain_too() {
    let directory = tempfile::tempdir().unwrap();
    let chained = directory.path().join("chained.crt");
    let mut pem = std::fs::read(path(development::CLIENT_CERTIFICATE)).unwrap();
    pem.extend(std::fs::read(path(development::CA_CERTIFICATE)).unwrap());
    std::fs::write(&chained, pem).unwrap();
    let context = client(&ClientSettings {
        certificate: Some((chained, path(development::CLIENT_KEY))),
        ..settings(Verify::No)
    });
    let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), |builder| {
        builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        Ok(())
    });
    let call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
    call.facts();
    let Hop::OpenSsl(stream) = &call.hop else {
        panic!()
    };
    // On the server's side the client's own certificate is not part of it.
    assert_eq!(stream.ssl().peer_cert_chain().unwrap().len(), 1);
}

/// How a connection goes.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// A close_notify from both.
    Closed,
    /// Ours is the only one, and nobody reads it.
    OurClose,
    /// The network is gone.
    Dropped,
}

impl Call {
    fn end(mut self, ending: Ending) {
        match ending {
            Ending::Closed => {
                self.client.close();
                self.run();
                self.hop.close();
                self.run();
            }
            Ending::OurClose => self.client.close(),
            Ending::Dropped => {}
        }
        // Nor does the hop hold it against us.
        if let Hop::OpenSsl(stream) = &mut self.hop {
            stream.set_shutdown(ShutdownState::SENT);
        }
    }
}

#[test]
fn resume_in_a_row_however_a_connection_ends() {
    let issued = of(&ecdsa(CERTIFICATES.path()));
    let stranger = of(&ecdsa(certificates(&["mx.test"]).path()));
    let tickets = |issued: &Issued, version| openssl_server(issued, only(version));
    let cache = |issued: &Issued, version| {
        openssl_server(issued, |builder| {
            builder.set_options(SslOptions::NO_TICKET);
            builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
            only(version)(builder)
        })
    };
    for version in VERSIONS {
        let ours = server(&TlsSettings::default());
        let two = server(&TlsSettings {
            tickets: 2,
            ..TlsSettings::default()
        });
        let with_tickets = tickets(&issued, version);
        let with_cache = cache(&issued, version);
        let unknown = tickets(&stranger, version);
        let hops: [(&str, &dyn Fn() -> Hop, Verify, bool); 6] = [
            ("ours", &|| Hop::ours(&ours), Verify::Yes, true),
            ("ours, two tickets", &|| Hop::ours(&two), Verify::Yes, true),
            ("ours, lax", &|| Hop::ours(&ours), Verify::No, true),
            (
                "OpenSSL's, tickets",
                &|| Hop::openssl(&with_tickets),
                Verify::Yes,
                true,
            ),
            (
                "OpenSSL's, a cache",
                &|| Hop::openssl(&with_cache),
                Verify::Yes,
                true,
            ),
            (
                "OpenSSL's, unverified",
                &|| Hop::openssl(&unknown),
                Verify::No,
                false,
            ),
        ];
        for (row, hop, verify, trusted) in hops {
            for ending in [Ending::Closed, Ending::OurClose, Ending::Dropped] {
                let context = client_of(version, &settings(verify));
                for turn in 0..10 {
                    let call = Call::made(&context, &peer("mx.test"), hop());
                    let facts = call.facts();
                    let place = format!("{version:?}, {row}, {ending:?}, turn {turn}");
                    assert_eq!(facts.resumed, turn > 0, "{place}");
                    assert_eq!(call.doubt().is_none(), trusted, "{place}");
                    let certificate = facts.peer_certificate.unwrap();
                    assert_eq!(&*certificate.subject, "CN=mx.test", "{place}");
                    call.end(ending);
                }
            }
        }
    }
}

#[test]
fn resume_side_by_side_as_far_as_tickets_go() {
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), only(version));
        let context = client(&settings(Verify::No));
        let call = || Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        // Six at a time: the first six have nothing to resume with, of the next six four have.
        let first: Vec<Call> = (0..6)
            .map(|_| Call::new(&context, &peer("mx.test"), Hop::openssl(&server)))
            .collect();
        for mut call in first {
            call.run();
            assert!(!call.facts().resumed, "{version:?}");
        }
        assert_eq!(context.sessions(&peer("mx.test")).0, 4, "{version:?}");
        let next: Vec<Call> = (0..6)
            .map(|_| Call::new(&context, &peer("mx.test"), Hop::openssl(&server)))
            .collect();
        assert_eq!(context.sessions(&peer("mx.test")).0, 0, "{version:?}");
        let resumed = next.into_iter().map(|mut call| {
            call.run();
            call.facts().resumed
        });
        assert_eq!(
            resumed.collect::<Vec<bool>>(),
            [true, true, true, true, false, false],
            "{version:?}"
        );
        assert_eq!(context.sessions(&peer("mx.test")).0, 4, "{version:?}");
        assert!(call().facts().resumed, "{version:?}");
    }
}

#[test]
fn resume_under_the_same_name_and_key_and_context_only() {
    let unknown = certificates(&["mx.test", "other.test"]);
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(unknown.path())), only(version));
        let context = client(&settings(Verify::No));
        let call = |context: &ClientContext, name: &str, key: &str| {
            let peer = PeerName {
                name: name.into(),
                key: key.into(),
            };
            Call::made(context, &peer, Hop::openssl(&server))
        };
        assert!(!call(&context, "mx.test", "25").facts().resumed);
        assert!(!call(&context, "mx.test", "25 user").facts().resumed);
        assert!(!call(&context, "other.test", "25").facts().resumed);
        assert!(!call(&context, "127.0.0.1", "25").facts().resumed);
        // A handle of it is the same context.
        assert!(call(&context.clone(), "mx.test", "25").facts().resumed);
        // After a reload nothing of what was made under other rules is left.
        let strict = client(&settings(Verify::Yes));
        let error = call(&strict, "mx.test", "25").failure();
        assert_eq!(error.fault, Fault::ServerCertificate, "{version:?}");
    }
}

#[test]
fn are_offered_nothing_after_its_time() {
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    let issued = of(&ecdsa(CERTIFICATES.path()));
    let (v2, v3) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    // What the server says of its tickets, and how long they are good for us.
    let table = [
        ("an hour", v2, Some(3600), HOUR),
        ("an hour", v3, Some(3600), HOUR),
        ("a week", v2, Some(7 * 86_400), DAY),
        ("a week", v3, Some(7 * 86_400), DAY),
        ("nothing", v2, None, DAY),
    ];
    for (row, version, seconds, expected) in table {
        let server = openssl_server(&issued, |builder| {
            match seconds {
                Some(seconds) => super::super::ffi::set_session_lifetime(builder, seconds),
                None => {
                    builder.set_options(SslOptions::NO_TICKET);
                    builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
                }
            }
            only(version)(builder)
        });
        let context = client(&settings(Verify::No));
        let resumed = || {
            let call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
            let resumed = call.facts().resumed;
            call.end(Ending::Dropped);
            resumed
        };
        let before = Instant::now();
        assert!(!resumed());
        let expires = context.sessions(&peer("mx.test")).1.unwrap();
        let span = expires.duration_since(before);
        // The server's seconds are whole ones, and may have begun before ours.
        let least = expected - Duration::from_secs(2);
        assert!(least <= span, "{version:?}, {row}: {span:?}");
        assert!(expires <= Instant::now() + expected, "{version:?}, {row}");

        assert!(resumed(), "{version:?}, {row}");
        let renewed = context.sessions(&peer("mx.test")).1.unwrap();
        if expected == DAY {
            // However fresh the ticket, the certificate has to be shown again.
            assert!(renewed <= expires, "{version:?}, {row}");
        }
    }
}

#[test]
fn that_fail_are_not_offered_what_is_left() {
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), only(version));
        let context = client(&settings(Verify::No));
        for _ in 0..2 {
            let (one, other) = (
                Call::new(&context, &peer("mx.test"), Hop::openssl(&server)),
                Call::new(&context, &peer("mx.test"), Hop::openssl(&server)),
            );
            for mut call in [one, other] {
                call.run();
                call.facts();
            }
        }
        assert!(context.sessions(&peer("mx.test")).0 > 1, "{version:?}");
        let mut connection = Connection::connect(&context, &peer("mx.test")).unwrap();
        assert_eq!(connection.handshake(), Handshake::WantsInput);
        // handshake_failure
        connection.receive(&[21, 3, 3, 0, 2, 2, 40]);
        let Handshake::Failed(error) = connection.handshake() else {
            panic!("{version:?}")
        };
        assert_eq!(error.fault, Fault::PeerAlert(40), "{version:?}");
        assert_eq!(context.sessions(&peer("mx.test")).0, 0, "{version:?}");
        let call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        assert!(!call.facts().resumed, "{version:?}");
    }
}

#[test]
fn whose_connection_ended_in_an_alert_are_met_anew() {
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), |builder| {
            builder.set_num_tickets(1)?;
            only(version)(builder)
        });
        let context = client(&settings(Verify::No));
        let mut call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        call.facts();
        call.client.receive(&[0x17, 3, 3, 0, 32]);
        call.client.receive(&[0x55; 32]);
        call.client_step();
        assert!(matches!(call.end, Some(Read::Failed(_))), "{:?}", call.end);
        assert!(call.client.has_outbound(), "{version:?}");
        drop(call);
        let resumed = |context: &ClientContext| {
            let call = Call::made(context, &peer("mx.test"), Hop::openssl(&server));
            call.facts().resumed
        };
        assert!(!resumed(&context), "{version:?}");
        assert!(resumed(&context), "{version:?}");
    }
}

#[test]
fn that_speak_plaintext_get_no_octet_of_ours_behind_the_hello() {
    let table: [(&str, &[u8]); 6] = [
        ("greeting", b"220 mx.test ESMTP\r\n"),
        ("refusal", b"454 4.7.0 TLS not available\r\n"),
        ("one octet", b"5"),
        ("line end", b"\r\n"),
        ("zeros", &[0; 64]),
        ("SSL 2", &[0x80, 0x2e, 4, 0, 1]),
    ];
    let context = client(&settings(Verify::No));
    for (name, octets) in table {
        for hello_first in [true, false] {
            let mut connection = Connection::connect(&context, &peer("mx.test")).unwrap();
            if hello_first {
                assert_eq!(connection.handshake(), Handshake::WantsInput, "{name}");
                assert_eq!(connection.outbound().first(), Some(&22), "{name}");
                assert_eq!(connection.handshake(), Handshake::WantsInput, "{name}");
                assert!(!connection.has_outbound(), "{name}: one hello is enough");
            }
            connection.receive(octets);
            let Handshake::Failed(error) = connection.handshake() else {
                panic!("{name}")
            };
            assert_eq!(error.fault, Fault::NotTls, "{name}");
            assert_eq!(error.to_string(), "plaintext where TLS was due", "{name}");
            assert!(!connection.has_outbound(), "{name}");
            // It stays failed.
            connection.receive(octets);
            assert_eq!(connection.handshake(), Handshake::Failed(error), "{name}");
            connection.close();
            assert!(!connection.has_outbound(), "{name}");
        }
    }
}

#[test]
fn that_send_rubbish_in_the_midst_get_an_alert() {
    let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), |_| Ok(()));
    let context = client(&settings(Verify::No));
    let mut call = Call::new(&context, &peer("mx.test"), Hop::openssl(&server));
    call.client_step();
    // The ServerHello is whole, what follows is changed.
    let mut answer = call.hop.answer(&call.client.outbound());
    *answer.last_mut().unwrap() ^= 1;
    call.client.receive(&answer);
    let Handshake::Failed(error) = call.client.handshake() else {
        panic!()
    };
    assert_eq!(error.fault, Fault::Protocol, "{error}");
    assert!(call.client.has_outbound());
}

/// Any octets at all: never a panic, and the same end however they are cut.
#[test]
fn random_octets_never_hang_or_panic() {
    let context = client(&settings(Verify::No));
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut octets = vec![0; random.usize(1..600)];
        random.fill(&mut octets);
        if round % 2 == 0 {
            // The head of a ServerHello, so that more of it is read.
            octets.splice(0..0, [22, 3, 3, 1, 0, 2, 0, 0, 252, 3, 3]);
        }
        let connect = || {
            let mut connection = Connection::connect(&context, &peer("mx.test")).unwrap();
            assert_eq!(connection.handshake(), Handshake::WantsInput);
            connection
        };
        let mut whole = connect();
        whole.receive(&octets);
        let mut cut = connect();
        let mut last = Handshake::WantsInput;
        for octet in &octets {
            cut.receive(std::slice::from_ref(octet));
            last = cut.handshake();
        }
        assert_eq!(whole.handshake(), last, "round {round}");
    }
}

#[test]
fn are_left_before_and_after() {
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), only(version));
        let context = client(&settings(Verify::No));
        let new = || Call::new(&context, &peer("mx.test"), Hop::openssl(&server));

        let mut before = new();
        before.client.close();
        assert!(!before.client.has_outbound(), "{version:?}");
        before.client_step();
        let hello = before.client.outbound();
        before.client.close();
        assert!(!before.client.has_outbound(), "{version:?}: in the midst");
        let answer = before.hop.answer(&hello);
        before.client.receive(&answer);
        before.run();
        before.facts();

        // The server says its last words and leaves, and we answer that.
        let mut after = new();
        after.run();
        after.hop.write(b"221 2.0.0 Bye\r\n");
        after.hop.close();
        after.run();
        assert_eq!(after.received, b"221 2.0.0 Bye\r\n", "{version:?}");
        assert!(matches!(after.end, Some(Read::Closed)), "{:?}", after.end);
        assert!(after.client.peer_closed(), "{version:?}");
        after.client.close();
        assert!(after.client.has_outbound(), "{version:?}");
        after.client.outbound();
        after.client.close();
        assert!(!after.client.has_outbound(), "{version:?}: once");
        assert!(
            matches!(after.client.handshake(), Handshake::Failed(_)),
            "{version:?}"
        );
    }
}

#[test]
fn cost_no_octets_while_nothing_is_said() {
    for version in VERSIONS {
        let server = openssl_server(&of(&ecdsa(CERTIFICATES.path())), only(version));
        let context = client(&settings(Verify::No));
        let mut call = Call::made(&context, &peer("mx.test"), Hop::openssl(&server));
        call.client.write(&[b'x'; 10_000]).unwrap();
        call.run();
        call.hop.write(&[b'y'; 10_000]);
        call.run();
        assert_eq!(call.received, [b'y'; 10_000], "{version:?}");
        assert_eq!(call.client.buffered(), 0, "{version:?}");
        assert!(!call.client.keeps_key_share(), "{version:?}");
    }
}
