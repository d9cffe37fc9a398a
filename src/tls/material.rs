//! Reads a certificate with its chain and its key, and says in one line which file is at fault.
//!
//! An expired certificate is no error here: peers that do not check it still take mail to us, so it is
//! for the caller to warn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Ref};

use super::failure::one_line;

/// A certificate, the chain behind it, and the key that proves it.
#[derive(Debug, Clone)]
pub struct CertifiedKey {
    /// Where the certificate was read from.
    pub certificate_path: PathBuf,
    /// Where the key was read from.
    pub key_path: PathBuf,
    /// The names it is for, lower-case A-labels, perhaps with a wildcard as first label.
    pub names: Vec<String>,
    /// The kind of key, by which a certificate is chosen beside others of the same name.
    pub key_type: KeyType,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ends to be valid.
    pub not_after: SystemTime,
    pub(super) leaf: X509,
    pub(super) chain: Vec<X509>,
    pub(super) key: PKey<Private>,
}

/// Kinds of keys that OpenSSL keeps side by side in one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RSA.
    Rsa,
    /// ECDSA on any curve.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// Another kind, by OpenSSL's number for it.
    Other(i32),
}

/// Why a certificate and its key cannot be used. One line, naming the file.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The file cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No PEM block of the kind that is looked for.
    #[error("{}: no {what} in PEM form in it", path.display())]
    NotPem {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A PEM block is there but OpenSSL cannot make sense of it.
    #[error("{}: not a usable {what}: {reason}", path.display())]
    Malformed {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// OpenSSL's reason.
        reason: String,
    },
    /// A server that starts by itself cannot ask for a passphrase.
    #[error("{}: the key is encrypted; a key without passphrase is needed", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key {} does not belong to the first certificate in {}{}",
        key.display(),
        certificate.display(),
        if *belongs_to_later { " but to a later one: the server's own must come first" } else { "" }
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Another certificate of the file has this key.
        belongs_to_later: bool,
    },
}

impl CertifiedKey {
    /// Reads a certificate (the server's own first, then its chain) and its key, both PEM. They may
    /// be in one file.
    pub fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, MaterialError> {
        let mut chain = read_certificates(certificate)?.into_iter();
        let Some(leaf) = chain.next() else {
            return Err(MaterialError::NotPem {
                what: CERTIFICATE,
                path: certificate.to_owned(),
            });
        };
        let chain: Vec<X509> = chain.collect();
        let private = read_key(key)?;

        let has_key = |candidate: &X509Ref| {
            candidate
                .public_key()
                .is_ok_and(|public| public.public_eq(&private))
        };
        if !has_key(&leaf) {
            return Err(MaterialError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                belongs_to_later: chain.iter().any(|candidate| has_key(candidate)),
            });
        }

        let time = |time: &Asn1TimeRef| {
            system_time(time).map_err(|error| malformed(CERTIFICATE, certificate, &error))
        };
        Ok(CertifiedKey {
            names: names(&leaf),
            key_type: KeyType::of(private.id()),
            not_before: time(leaf.not_before())?,
            not_after: time(leaf.not_after())?,
            certificate_path: certificate.to_owned(),
            key_path: key.to_owned(),
            leaf,
            chain,
            key: private,
        })
    }

    /// The certificate's time is over.
    pub fn expired(&self, now: SystemTime) -> bool {
        self.not_after < now
    }

    /// The certificate's time has not begun.
    pub fn premature(&self, now: SystemTime) -> bool {
        now < self.not_before
    }
}

impl KeyType {
    fn of(id: Id) -> KeyType {
        if id == Id::RSA {
            KeyType::Rsa
        } else if id == Id::EC {
            KeyType::Ecdsa
        } else if id == Id::ED25519 {
            KeyType::Ed25519
        } else {
            KeyType::Other(id.as_raw())
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<X509>, MaterialError> {
    let pem = read(CERTIFICATE, path)?;
    if memchr::memmem::find(&pem, b"-----BEGIN ").is_none() {
        return Err(MaterialError::NotPem {
            what: CERTIFICATE,
            path: path.to_owned(),
        });
    }
    X509::stack_from_pem(&pem).map_err(|error| malformed(CERTIFICATE, path, &error))
}

/// Reads a bundle of CA certificates, PEM, one at least. What is wrong with it is told without the file's name,
/// which the caller puts behind its flag.
pub(super) fn read_authorities(path: &Path) -> Result<Vec<X509>, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    let certificates = X509::stack_from_pem(&pem).map_err(|error| one_line(&error))?;
    if certificates.is_empty() {
        return Err("no certificate in PEM form in it".to_owned());
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PKey<Private>, MaterialError> {
    let pem = read(KEY, path)?;
    if memchr::memmem::find(&pem, b"PRIVATE KEY-----").is_none() {
        return Err(MaterialError::NotPem {
            what: KEY,
            path: path.to_owned(),
        });
    }
    // Without a callback OpenSSL would ask for the passphrase on the terminal.
    let mut asked = false;
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        asked = true;
        Err(ErrorStack::get())
    });
    key.map_err(|error| {
        if asked {
            MaterialError::Encrypted {
                path: path.to_owned(),
            }
        } else {
            malformed(KEY, path, &error)
        }
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, MaterialError> {
    fs::read(path).map_err(|source| MaterialError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

fn malformed(what: &'static str, path: &Path, error: &ErrorStack) -> MaterialError {
    MaterialError::Malformed {
        what,
        path: path.to_owned(),
        reason: one_line(error),
    }
}

/// The DNS names of the certificate; the common name only where there are none (RFC 6125 §6.4.4).
fn names(certificate: &X509Ref) -> Vec<String> {
    let mut names: Vec<String> = certificate
        .subject_alt_names()
        .iter()
        .flatten()
        .filter_map(|name| canonical_name(name.dnsname()?))
        .collect();
    if names.is_empty() {
        names = certificate
            .subject_name()
            .entries_by_nid(Nid::COMMONNAME)
            .filter_map(|entry| canonical_name(&entry.data().to_string().ok()?))
            .collect();
    }
    names.sort();
    names.dedup();
    names
}

/// A host name as names are compared here: lower-case A-labels (RFC 5890 §2.3.2.1), no dot at the end.
pub(super) fn canonical_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return None;
    }
    if name.is_ascii() {
        return Some(name.to_ascii_lowercase());
    }
    // A wildcard is no IDNA label.
    match name.strip_prefix("*.") {
        Some(rest) => Some(format!("*.{}", idna::domain_to_ascii(rest).ok()?)),
        None => idna::domain_to_ascii(name).ok(),
    }
}

fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    const DAY_SECONDS: u64 = 86_400;
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let span = |days: i32, seconds: i32| {
        Duration::from_secs(
            u64::from(days.unsigned_abs()) * DAY_SECONDS + u64::from(seconds.unsigned_abs()),
        )
    };
    let span = span(since.days, since.secs);
    // Days and seconds never differ in sign.
    let time = if since.days < 0 || since.secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(span)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(span)
    };
    Ok(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

pub(super) const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";

#[cfg(test)]
mod tests {
    use openssl::symm::Cipher;

    use super::*;
    use crate::tls::development::{self, make};

    #[test]
    fn what_loads_and_what_it_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        make(
            directory.path(),
            &["MX.test", "*.wild.test", "bücher.test", "mx.test"],
        )
        .unwrap();
        let both = at("both.pem");
        let mut pem = fs::read(at(development::SERVER_RSA_KEY)).unwrap();
        pem.extend(b"some text around it\n");
        pem.extend(fs::read(at(development::SERVER_RSA_CERTIFICATE)).unwrap());
        pem.extend(fs::read(at(development::CA_CERTIFICATE)).unwrap());
        fs::write(&both, pem).unwrap();

        let ecdsa_files = (
            at(development::SERVER_ECDSA_CERTIFICATE),
            at(development::SERVER_ECDSA_KEY),
        );
        let table = [
            ("ECDSA", ecdsa_files, KeyType::Ecdsa, 0),
            (
                "RSA, chain and key in one file",
                (both.clone(), both),
                KeyType::Rsa,
                1,
            ),
        ];
        for (name, (certificate, key), key_type, chain) in table {
            let pair = CertifiedKey::load(&certificate, &key).unwrap();
            assert_eq!(
                pair.names,
                ["*.wild.test", "mx.test", "xn--bcher-kva.test"],
                "{name}"
            );
            assert_eq!(pair.key_type, key_type, "{name}");
            assert_eq!(pair.chain.len(), chain, "{name}");

            let now = SystemTime::now();
            let days = |days: u64| Duration::from_secs(days * 86_400);
            assert!(!pair.expired(now) && !pair.premature(now), "{name}");
            assert!(
                !pair.expired(now + days(824)) && pair.expired(now + days(826)),
                "{name}"
            );
            assert!(pair.premature(now - days(1)), "{name}");
        }
    }

    #[test]
    fn each_fault_is_one_line_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        make(directory.path(), &development::DEFAULT_NAMES).unwrap();
        let put = |name: &str, octets: &[u8]| {
            fs::write(at(name), octets).unwrap();
            name.to_owned()
        };
        let good = fs::read(at(development::SERVER_ECDSA_KEY)).unwrap();
        let key = PKey::private_key_from_pem(&good).unwrap();
        let cipher = Cipher::aes_128_cbc();
        let pkcs8 = key
            .private_key_to_pem_pkcs8_passphrase(cipher, b"secret")
            .unwrap();
        let traditional = key
            .ec_key()
            .unwrap()
            .private_key_to_pem_passphrase(cipher, b"secret")
            .unwrap();
        let mut wrong_order = fs::read(at(development::CA_CERTIFICATE)).unwrap();
        wrong_order.extend(fs::read(at(development::SERVER_ECDSA_CERTIFICATE)).unwrap());

        let broken_certificate = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let broken_key = b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
        let certificate = development::SERVER_ECDSA_CERTIFICATE.to_owned();
        let server_key = development::SERVER_ECDSA_KEY.to_owned();
        let table = [
            (
                "missing.crt".to_owned(),
                server_key.clone(),
                "missing.crt: No such file",
            ),
            (
                certificate.clone(),
                "missing.key".to_owned(),
                "missing.key: No such file",
            ),
            (".".to_owned(), server_key.clone(), "Is a directory"),
            (
                put("no-pem.crt", b"rubbish"),
                server_key.clone(),
                "no-pem.crt: no certificate in PEM form",
            ),
            (
                put("empty.crt", b""),
                server_key.clone(),
                "empty.crt: no certificate in PEM form",
            ),
            (
                server_key.clone(),
                server_key.clone(),
                "server-ecdsa.key: no certificate in PEM form",
            ),
            (
                certificate.clone(),
                certificate.clone(),
                "server-ecdsa.crt: no key in PEM form",
            ),
            (
                put("broken.crt", broken_certificate),
                server_key.clone(),
                "broken.crt: not a usable certificate: ",
            ),
            (
                certificate.clone(),
                put("broken.key", broken_key),
                "broken.key: not a usable key: ",
            ),
            (
                certificate.clone(),
                put("pkcs8.key", &pkcs8),
                "pkcs8.key: the key is encrypted",
            ),
            (
                certificate.clone(),
                put("old.key", &traditional),
                "old.key: the key is encrypted",
            ),
            (
                certificate.clone(),
                development::SERVER_RSA_KEY.to_owned(),
                "server-rsa.key does not belong to the first certificate in ",
            ),
            (
                put("order.crt", &wrong_order),
                server_key,
                "order.crt but to a later one: the server's own must come first",
            ),
        ];
        for (certificate, key, expected) in table {
            let error = CertifiedKey::load(&at(&certificate), &at(&key))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{expected:?} in {error:?}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn names_are_compared_as_lower_case_a_labels() {
        let table = [
            ("MX.Example", Some("mx.example")),
            ("mx.example.", Some("mx.example")),
            ("*.Example", Some("*.example")),
            ("BÜCHER.example", Some("xn--bcher-kva.example")),
            ("*.bücher.example", Some("*.xn--bcher-kva.example")),
            ("", None),
            (".", None),
        ];
        for (name, expected) in table {
            assert_eq!(canonical_name(name).as_deref(), expected, "{name}");
        }
    }
}
