//! Makes the certificates of a first run: a CA of one's own, server certificates, a client's.
//!
//! Not for the internet: nobody outside trusts this CA, and its key lies beside it.
//! Invariants:
//! - No file that exists is changed. A set that is there is left alone; a part of one is an error.
//! - Keys are 0600, a directory made here is 0700.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder, X509Ref};

use super::failure::one_line;
use super::material::canonical_name;

/// What [`make`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// All files are new.
    New,
    /// All files were there and are as they were.
    AlreadyThere,
}

/// Why the certificates could not be made. One line, naming the file.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// Some files are there and some are not.
    #[error(
        "{} is missing beside {}: nothing is overwritten, so remove the rest or choose another directory",
        missing.display(),
        present.display()
    )]
    Incomplete {
        /// A file that is there.
        present: PathBuf,
        /// A file that is not.
        missing: PathBuf,
    },
    /// A name no certificate can be for.
    #[error("\"{0}\" is not a host name")]
    Name(String),
    /// A file or directory cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// OpenSSL failed.
    #[error("cannot make a certificate: {0}")]
    OpenSsl(String),
}

impl From<ErrorStack> for DevelopmentError {
    fn from(stack: ErrorStack) -> DevelopmentError {
        DevelopmentError::OpenSsl(one_line(&stack))
    }
}

/// The names of the server certificates, where no others are wanted.
pub const DEFAULT_NAMES: [&str; 2] = ["mx.test", "localhost"];

/// The certificate of the CA, which clients are to trust; also fit for `--client-ca`.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The key of the CA.
pub const CA_KEY: &str = "ca.key";
/// The server's ECDSA certificate.
pub const SERVER_ECDSA_CERTIFICATE: &str = "server-ecdsa.crt";
/// The key of the server's ECDSA certificate.
pub const SERVER_ECDSA_KEY: &str = "server-ecdsa.key";
/// The server's RSA certificate.
pub const SERVER_RSA_CERTIFICATE: &str = "server-rsa.crt";
/// The key of the server's RSA certificate.
pub const SERVER_RSA_KEY: &str = "server-rsa.key";
/// A client's certificate.
pub const CLIENT_CERTIFICATE: &str = "client.crt";
/// The key of the client's certificate.
pub const CLIENT_KEY: &str = "client.key";

/// All files of a set.
pub const FILES: [&str; 8] = [
    CA_CERTIFICATE,
    CA_KEY,
    SERVER_ECDSA_CERTIFICATE,
    SERVER_ECDSA_KEY,
    SERVER_RSA_CERTIFICATE,
    SERVER_RSA_KEY,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
];

/// Makes a set of certificates in `directory`, for servers of these names and of 127.0.0.1 and ::1.
pub fn make<Name: AsRef<str>>(directory: &Path, names: &[Name]) -> Result<Made, DevelopmentError> {
    let names = names
        .iter()
        .map(|name| {
            let name = name.as_ref();
            canonical_name(name)
                .filter(|canonical| !canonical.contains([',', ':', '\n']))
                .ok_or_else(|| DevelopmentError::Name(name.escape_default().to_string()))
        })
        .collect::<Result<Vec<String>, _>>()?;

    make_directory(directory)?;
    if present(directory)? {
        return Ok(Made::AlreadyThere);
    }

    let ca_key = ecdsa_key()?;
    let ca = authority(&ca_key)?;
    let issuer = Issuer {
        certificate: &ca,
        key: &ca_key,
    };
    let ecdsa_key = ecdsa_key()?;
    let rsa_key = PKey::from_rsa(Rsa::generate(RSA_BITS)?)?;
    let client_key = self::ecdsa_key()?;
    let server = Subject::Server(&names);

    for (name, pem, mode) in [
        (CA_KEY, ca_key.private_key_to_pem_pkcs8()?, KEY_MODE),
        (CA_CERTIFICATE, ca.to_pem()?, CERTIFICATE_MODE),
        (
            SERVER_ECDSA_KEY,
            ecdsa_key.private_key_to_pem_pkcs8()?,
            KEY_MODE,
        ),
        (
            SERVER_ECDSA_CERTIFICATE,
            issuer.issue(server, &ecdsa_key)?.to_pem()?,
            CERTIFICATE_MODE,
        ),
        (
            SERVER_RSA_KEY,
            rsa_key.private_key_to_pem_pkcs8()?,
            KEY_MODE,
        ),
        (
            SERVER_RSA_CERTIFICATE,
            issuer.issue(server, &rsa_key)?.to_pem()?,
            CERTIFICATE_MODE,
        ),
        (CLIENT_KEY, client_key.private_key_to_pem_pkcs8()?, KEY_MODE),
        (
            CLIENT_CERTIFICATE,
            issuer.issue(Subject::Client, &client_key)?.to_pem()?,
            CERTIFICATE_MODE,
        ),
    ] {
        write(&directory.join(name), &pem, mode)?;
    }
    Ok(Made::New)
}

fn make_directory(directory: &Path) -> Result<(), DevelopmentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| DevelopmentError::Write {
            path: directory.to_owned(),
            source,
        })
}

/// True if the set is there, false if nothing of it is.
fn present(directory: &Path) -> Result<bool, DevelopmentError> {
    // A link that leads nowhere is there too: it would be written through.
    let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let (present, missing): (Vec<PathBuf>, Vec<PathBuf>) = FILES
        .iter()
        .map(|name| directory.join(name))
        .partition(is_there);
    match (present.into_iter().next(), missing.into_iter().next()) {
        (Some(present), Some(missing)) => Err(DevelopmentError::Incomplete { present, missing }),
        (Some(_), None) => Ok(true),
        (None, _) => Ok(false),
    }
}

fn write(path: &Path, octets: &[u8], mode: u32) -> Result<(), DevelopmentError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        })
        .map_err(|source| DevelopmentError::Write {
            path: path.to_owned(),
            source,
        })
}

fn ecdsa_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn authority(key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let mut builder = begin("ringpost development CA", key, CA_DAYS)?;
    let subject = common_name("ringpost development CA")?;
    builder.set_issuer_name(&subject)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(identifier)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

#[derive(Clone, Copy)]
enum Subject<'a> {
    Server(&'a [String]),
    Client,
}

struct Issuer<'a> {
    certificate: &'a X509Ref,
    key: &'a PKey<Private>,
}

impl Issuer<'_> {
    fn issue(&self, subject: Subject<'_>, key: &PKey<Private>) -> Result<X509, ErrorStack> {
        let name = match subject {
            Subject::Server(names) => names.first().map_or("localhost", String::as_str),
            Subject::Client => "ringpost development client",
        };
        let mut builder = begin(name, key, LEAF_DAYS)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;

        let mut usage = KeyUsage::new();
        usage.critical().digital_signature();
        if key.rsa().is_ok() {
            // For the key transport of TLS 1.2.
            usage.key_encipherment();
        }
        builder.append_extension(usage.build()?)?;

        let mut purpose = ExtendedKeyUsage::new();
        let mut alternative = SubjectAlternativeName::new();
        match subject {
            Subject::Server(names) => {
                purpose.server_auth();
                for name in names {
                    alternative.dns(name);
                }
                alternative.ip("127.0.0.1").ip("::1");
            }
            Subject::Client => {
                purpose.client_auth();
                alternative.dns("client.mx.test").email("client@mx.test");
            }
        }
        builder.append_extension(purpose.build()?)?;

        let context = builder.x509v3_context(Some(self.certificate), None);
        let extensions = [
            alternative.build(&context)?,
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
        ];
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        builder.sign(self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

/// Version, serial number, subject, validity and key.
fn begin(name: &str, key: &PKey<Private>, days: i64) -> Result<X509Builder, ErrorStack> {
    const X509_VERSION_3: i32 = 2;
    let mut builder = X509Builder::new()?;
    builder.set_version(X509_VERSION_3)?;
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    let subject = common_name(name)?;
    builder.set_subject_name(&subject)?;

    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2)
        });
    let not_before = Asn1Time::from_unix(now - CLOCK_SKEW_SECONDS)?;
    let not_after = Asn1Time::from_unix(now + days * DAY_SECONDS)?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn common_name(name: &str) -> Result<openssl::x509::X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    // The longest common name X.509 knows (ub-common-name, RFC 5280 §A.1); the SAN has it whole.
    // Names are ASCII here.
    builder.append_entry_by_nid(
        Nid::COMMONNAME,
        name.get(..COMMON_NAME_OCTETS_MAX).unwrap_or(name),
    )?;
    Ok(builder.build())
}

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

const RSA_BITS: u32 = 2048;

/// Ten years.
const CA_DAYS: i64 = 3650;
/// The longest that Apple's clients take.
const LEAF_DAYS: i64 = 825;
const DAY_SECONDS: i64 = 86_400;
/// A virtual machine's clock may be behind.
const CLOCK_SKEW_SECONDS: i64 = 3600;

/// RFC 5280 §4.1.2.2: at most 20 octets, and positive.
const SERIAL_BITS: i32 = 159;
const COMMON_NAME_OCTETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::os::unix::fs::PermissionsExt;

    use openssl::stack::Stack;
    use openssl::x509::store::X509StoreBuilder;
    use openssl::x509::verify::X509VerifyParam;
    use openssl::x509::{X509PurposeId, X509StoreContext};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_set_is_private_and_verifies() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("deep/certs");
        assert_eq!(make(&directory, &DEFAULT_NAMES).unwrap(), Made::New);
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&parent.path().join("deep")), 0o700);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), FILES.len());
        let load = |name: &str| X509::from_pem(&fs::read(directory.join(name)).unwrap()).unwrap();
        for name in FILES {
            let expected = if name.ends_with(".key") {
                KEY_MODE
            } else {
                CERTIFICATE_MODE
            };
            assert_eq!(mode(&directory.join(name)), expected, "{name}");
        }

        let ipv4: IpAddr = Ipv4Addr::LOCALHOST.into();
        let ipv6: IpAddr = Ipv6Addr::LOCALHOST.into();
        let (server, client) = (X509PurposeId::SSL_SERVER, X509PurposeId::SSL_CLIENT);
        let table = [
            (
                SERVER_ECDSA_CERTIFICATE,
                server,
                Some("mx.test"),
                None,
                true,
            ),
            (
                SERVER_ECDSA_CERTIFICATE,
                server,
                Some("localhost"),
                None,
                true,
            ),
            (SERVER_RSA_CERTIFICATE, server, Some("mx.test"), None, true),
            (SERVER_RSA_CERTIFICATE, server, None, Some(ipv4), true),
            (SERVER_RSA_CERTIFICATE, server, None, Some(ipv6), true),
            (
                SERVER_RSA_CERTIFICATE,
                server,
                Some("other.test"),
                None,
                false,
            ),
            (SERVER_RSA_CERTIFICATE, client, None, None, false),
            (CLIENT_CERTIFICATE, client, None, None, true),
            (CLIENT_CERTIFICATE, server, None, None, false),
        ];
        for (name, purpose, host, address, expected) in table {
            let mut parameters = X509VerifyParam::new().unwrap();
            parameters.set_purpose(purpose).unwrap();
            if let Some(host) = host {
                parameters.set_host(host).unwrap();
            }
            if let Some(address) = address {
                parameters.set_ip(address).unwrap();
            }
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(load(CA_CERTIFICATE)).unwrap();
            store.set_param(&parameters).unwrap();
            let verified = X509StoreContext::new()
                .unwrap()
                .init(
                    &store.build(),
                    &load(name),
                    &Stack::new().unwrap(),
                    |context| context.verify_cert(),
                )
                .unwrap();
            assert_eq!(verified, expected, "{name} for {host:?} {address:?}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), &DEFAULT_NAMES).unwrap();
        let contents = || FILES.map(|name| fs::read(directory.path().join(name)).unwrap());
        let before = contents();
        assert_eq!(
            make(directory.path(), &["else.test"]).unwrap(),
            Made::AlreadyThere
        );
        assert!(before == contents());

        for name in FILES {
            let path = directory.path().join(name);
            let kept = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let error = make(directory.path(), &DEFAULT_NAMES)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("{} is missing", path.display())),
                "{error}"
            );
            assert!(!path.exists(), "{name}");
            fs::write(&path, kept).unwrap();
        }
        assert!(before == contents());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", "a,DNS:b.test", "IP:1.2.3.4", "a\nb"] {
            let error = make(directory.path(), &[name]).unwrap_err().to_string();
            assert!(error.ends_with("is not a host name"), "{error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_where_nothing_can_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = make(&file.join("certs"), &DEFAULT_NAMES)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot make {}", file.display())),
            "{error}"
        );
    }

    #[test]
    fn a_name_longer_than_a_common_name_may_be_is_kept_whole() {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
        make(directory.path(), &[&name]).unwrap();
        let pair = crate::tls::CertifiedKey::load(
            &directory.path().join(SERVER_ECDSA_CERTIFICATE),
            &directory.path().join(SERVER_ECDSA_KEY),
        )
        .unwrap();
        assert_eq!(pair.names, [name]);
    }
}
