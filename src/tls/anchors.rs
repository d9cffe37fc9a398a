//! The trust anchors that next hops are verified against: of `--out-ca`, or the system's.
//!
//! Apart from the client because here files are read, all of them at once: OpenSSL would open those of a
//! hashed directory one by one in the midst of a handshake, and a shard must not wait for a disk.
//! Claims:
//! - A file that an operator names is taken whole or refused.
//! - Of what the system has, everything that is usable is taken; that there is nothing is no error here.
//! - Of a directory only `HASH.N` files count, as for OpenSSL: `/etc/pki/tls/certs` may hold a server's own
//!   certificate as well, which is no authority.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl_probe::ProbeResult;

use super::failure::one_line;
use super::material::read_authorities;

/// Certificates that others are believed by. Encoded, since each shard has copies of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Anchors {
    encoded: HashSet<Vec<u8>>,
}

impl Anchors {
    /// All of a bundle in PEM form. An error does not name the file.
    pub(super) fn read(path: &Path) -> Result<Anchors, String> {
        let encoded = read_authorities(path)?
            .iter()
            .map(|certificate| certificate.to_der())
            .collect::<Result<HashSet<Vec<u8>>, ErrorStack>>()
            .map_err(|error| one_line(&error))?;
        Ok(Anchors { encoded })
    }

    /// What lies in these places, which `SSL_CERT_FILE` and `SSL_CERT_DIR` may have named. The bundle and the
    /// directory mostly hold the same, but for what an administrator has put into one of them.
    pub(super) fn of_system(places: &ProbeResult) -> Anchors {
        let mut anchors = Anchors::default();
        if let Some(file) = &places.cert_file {
            anchors.add_usable(file);
        }
        for directory in &places.cert_dir {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(is_hashed) {
                    anchors.add_usable(&entry.path());
                }
            }
        }
        anchors
    }

    /// Certificate by certificate: one that this OpenSSL cannot read does not cost the others.
    fn add_usable(&mut self, path: &Path) {
        let Ok(pem) = fs::read(path) else {
            return;
        };
        let blocks = memchr::memmem::find_iter(&pem, b"-----BEGIN ");
        let certificates = blocks.filter_map(|start| X509::from_pem(pem.get(start..)?).ok());
        self.encoded
            .extend(certificates.filter_map(|certificate| certificate.to_der().ok()));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.encoded.len()
    }

    /// A store that shares nothing with another.
    pub(super) fn store(&self) -> Result<X509Store, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in &self.encoded {
            store.add_cert(X509::from_der(certificate)?)?;
        }
        Ok(store.build())
    }
}

/// `9d66eef0.0`, as `openssl rehash` names them.
fn is_hashed(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|octet| octet.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|octet| octet.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tls::development::{self, CA_CERTIFICATE};

    #[test]
    fn names_in_a_hashed_directory() {
        let table = [
            ("9d66eef0.0", true),
            ("9D66EEF0.12", true),
            ("9d66eef0.r0", false),
            ("9d66eef0.", false),
            ("9d66eef0", false),
            ("9d66eef.0", false),
            ("9d66eef00.0", false),
            ("gd66eef0.0", false),
            ("ca-certificates.crt", false),
            ("localhost.crt", false),
            (".0", false),
            ("", false),
        ];
        for (name, expected) in table {
            assert_eq!(is_hashed(name), expected, "{name}");
        }
    }

    #[test]
    fn what_a_system_has() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pem = |directory: &tempfile::TempDir| {
            development::make(directory.path(), &["mx.test"]).unwrap();
            fs::read(directory.path().join(CA_CERTIFICATE)).unwrap()
        };
        let (one, other) = (pem(&one), pem(&other));
        let broken = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_vec();

        // Each row: the bundle, if there is one; the files of a directory; how many anchors that is.
        type Row<'a> = (&'a str, Option<Vec<u8>>, &'a [(&'a str, &'a [u8])], usize);
        let table: [Row<'_>; 9] = [
            ("nothing", None, &[], 0),
            ("a bundle", Some([&*one, &*other].concat()), &[], 2),
            ("twice the same", Some([&*one, &*one].concat()), &[], 1),
            ("a directory", None, &[("00000000.0", &one)], 1),
            (
                "both, and the same in both",
                Some(one.clone()),
                &[("00000000.0", &one), ("00000001.0", &other)],
                2,
            ),
            (
                "a broken one among them",
                Some([&*one, &*broken, &*other].concat()),
                &[],
                2,
            ),
            ("rubbish", Some(b"rubbish".to_vec()), &[], 0),
            ("an empty bundle", Some(Vec::new()), &[], 0),
            ("other files", None, &[("localhost.crt", &one)], 0),
        ];
        for (name, bundle, files, expected) in table {
            let directory = tempfile::tempdir().unwrap();
            let cert_file = bundle.map(|pem| {
                let path = directory.path().join("bundle");
                fs::write(&path, pem).unwrap();
                path
            });
            for (file, pem) in files {
                fs::write(directory.path().join(file), pem).unwrap();
            }
            let places = ProbeResult {
                cert_file,
                cert_dir: vec![directory.path().to_owned()],
            };
            let anchors = Anchors::of_system(&places);
            assert_eq!(anchors.count(), expected, "{name}");
            assert_eq!(anchors.store().unwrap().all_certificates().len(), expected);
        }
        let gone = ProbeResult {
            cert_file: Some(PathBuf::from("/nonexistent/bundle")),
            cert_dir: vec![PathBuf::from("/nonexistent")],
        };
        assert_eq!(Anchors::of_system(&gone).count(), 0);
    }
}
