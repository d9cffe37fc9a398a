//! A certificate authority for the tests, so that what the server presents is checked by a client
//! that was told what to trust, and no test depends on `ringpost dev-certs`.

use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Name};

/// A root that issues server and client certificates.
pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// The type of a leaf's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Ecdsa,
    Rsa,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

impl Authority {
    /// The one that every `Setup` takes its certificates from.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Authority> = LazyLock::new(|| Authority::new("Test Root"));
        &SHARED
    }

    pub(crate) fn new(common_name: &str) -> Self {
        let key = ecdsa_key();
        let name = name(common_name);
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&serial_number()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder
            .set_not_before(&Asn1Time::days_from_now(0).unwrap())
            .unwrap();
        builder
            .set_not_after(&Asn1Time::days_from_now(7).unwrap())
            .unwrap();
        builder.set_pubkey(&key).unwrap();
        builder
            .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        builder
            .append_extension(
                KeyUsage::new()
                    .critical()
                    .key_cert_sign()
                    .crl_sign()
                    .build()
                    .unwrap(),
            )
            .unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self {
            certificate: builder.build(),
            key,
        }
    }

    pub(crate) fn certificate_pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// A leaf for these names and addresses, good for servers and for clients.
    pub(crate) fn issue(&self, names: &[&str], kind: KeyKind) -> Pair {
        // One RSA key a test program: making them is the slowest thing here.
        static RSA_KEY: LazyLock<PKey<Private>> =
            LazyLock::new(|| PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());
        let key = match kind {
            KeyKind::Ecdsa => ecdsa_key(),
            KeyKind::Rsa => RSA_KEY.clone(),
        };
        leaf(Some(self), names, key, 0..7)
    }

    /// The same, but its time was over yesterday.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Pair {
        leaf(Some(self), names, ecdsa_key(), -3..-1)
    }

    /// A client's TLS settings that trust this authority and nothing else.
    pub(crate) fn connector(&self) -> SslConnectorBuilder {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(self.certificate.clone()).unwrap();
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_cert_store(store.build());
        connector
    }
}

impl Pair {
    /// A leaf that no authority stands behind.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        leaf(None, names, ecdsa_key(), 0..7)
    }

    /// Writes both files, the key private.
    pub(crate) fn write(&self, cert: &Path, key: &Path) {
        fs::write(cert, self.certificate.to_pem().unwrap()).unwrap();
        fs::write(key, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn digest(&self) -> Vec<u8> {
        self.certificate
            .digest(MessageDigest::sha256())
            .unwrap()
            .to_vec()
    }
}

/// A certificate good for so many days from today, by this authority or by itself.
fn leaf(
    authority: Option<&Authority>,
    names: &[&str],
    key: PKey<Private>,
    days: Range<i64>,
) -> Pair {
    let subject = name(names[0]);
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial_number()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    let issuer = authority.map_or(&*subject, |authority| authority.certificate.subject_name());
    builder.set_issuer_name(issuer).unwrap();
    let day = |day: i64| Asn1Time::from_unix(unix_seconds() + day * 86_400).unwrap();
    builder.set_not_before(&day(days.start)).unwrap();
    builder.set_not_after(&day(days.end)).unwrap();
    builder.set_pubkey(&key).unwrap();
    let mut alternatives = SubjectAlternativeName::new();
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(_) => alternatives.ip(name),
            Err(_) => alternatives.dns(name),
        };
    }
    let issuer = authority.map(|authority| &*authority.certificate);
    let alternatives = alternatives
        .build(&builder.x509v3_context(issuer, None))
        .unwrap();
    builder.append_extension(alternatives).unwrap();
    builder
        .append_extension(
            ExtendedKeyUsage::new()
                .server_auth()
                .client_auth()
                .build()
                .unwrap(),
        )
        .unwrap();
    let signs = authority.map_or(&key, |authority| &authority.key);
    builder.sign(signs, MessageDigest::sha256()).unwrap();
    Pair {
        certificate: builder.build(),
        key,
    }
}

fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().try_into().unwrap()
}

fn ecdsa_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn name(common_name: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)
        .unwrap();
    name.build()
}

fn serial_number() -> Asn1Integer {
    let mut number = BigNum::new().unwrap();
    number.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    number.to_asn1_integer().unwrap()
}
