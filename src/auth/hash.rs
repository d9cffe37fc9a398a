//! One password hash: argon2 (RFC 9106) as a PHC string, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
//!
//! Apart from the users file because `hash-password` writes what the file's reader checks.
//! Claims:
//! - A hash that can be loaded can be verified: scheme, version, parameters, salt and output are
//!   looked at once, at load.
//! - No loaded hash costs more than [`MEMORY_KIB_MAX`] and [`WORK_KIB_MAX`] allow, so a users file
//!   cannot make every login stall the machine.
//!
//! argon2i and argon2d hashes are read too; ours are argon2id.

use std::fmt;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{self, PasswordHash, PasswordHashString, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

/// Memory one verification may take. RFC 9106 §4 recommends 64 MiB where memory is short; its
/// other recommendation, 2 GiB a login, is for disks and not for servers that strangers reach.
pub const MEMORY_KIB_MAX: u32 = 256 * 1024;

/// Memory times passes: a second or so of a core.
pub const WORK_KIB_MAX: u64 = 1024 * 1024;

/// Lanes are computed one after the other here, so more of them only cost.
const LANES_MAX: u32 = 64;

/// Why a hash cannot be used, or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not of the form `$scheme$…`.
    #[error("not a password hash (ringpost hash-password makes one)")]
    Malformed,
    /// A scheme that is not argon2.
    #[error("hash scheme {0:?} is not known, only argon2id, argon2i and argon2d")]
    Scheme(String),
    /// argon2, but not as it can be computed.
    #[error("the argon2 hash is broken: {0}")]
    Broken(password_hash::Error),
    /// No salt or no output in it: nothing to compare with.
    #[error("the argon2 hash has no salt or no output")]
    Incomplete,
    /// It would cost too much.
    #[error(
        "m={memory_kib},t={passes},p={lanes} costs too much for a server: at most \
         m={MEMORY_KIB_MAX}, m times t {WORK_KIB_MAX}, p={LANES_MAX}"
    )]
    Costly {
        /// KiB of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes of it.
        lanes: u32,
    },
    /// The password cannot be hashed.
    #[error("the password cannot be hashed: {0}")]
    Password(password_hash::Error),
}

/// The argon2id hash of a password with a fresh salt, as a PHC string.
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
        .hash_password(password, &salt)
        .map_err(HashError::Password)?;
    Ok(hash.to_string())
}

/// A hash that was looked at and can be verified.
#[derive(Clone)]
pub struct StoredHash(PasswordHashString);

impl StoredHash {
    /// Reads a PHC string.
    pub fn parse(text: &str) -> Result<StoredHash, HashError> {
        if !text.starts_with('$') {
            return Err(HashError::Malformed);
        }
        let hash = match PasswordHash::new(text) {
            Ok(hash) => hash,
            // bcrypt's `$2b$…` and crypt's `$6$…` are no PHC strings; name the scheme all the same.
            Err(error) => {
                let scheme = text.split('$').nth(1).unwrap_or_default();
                return Err(if scheme.starts_with("argon2") {
                    HashError::Broken(error)
                } else {
                    HashError::Scheme(scheme.to_owned())
                });
            }
        };
        Algorithm::try_from(hash.algorithm)
            .map_err(|_| HashError::Scheme(hash.algorithm.to_string()))?;
        // Without one it would be version 16, but the argon2 crate would compute version 19.
        let version = hash
            .version
            .ok_or(HashError::Broken(password_hash::Error::Version))?;
        Version::try_from(version).map_err(|_| HashError::Broken(password_hash::Error::Version))?;
        let params = Params::try_from(&hash).map_err(HashError::Broken)?;
        let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        let work_kib = u64::from(memory_kib) * u64::from(passes);
        if memory_kib > MEMORY_KIB_MAX || work_kib > WORK_KIB_MAX || lanes > LANES_MAX {
            return Err(HashError::Costly {
                memory_kib,
                passes,
                lanes,
            });
        }
        let (Some(salt), Some(_)) = (hash.salt, hash.hash) else {
            return Err(HashError::Incomplete);
        };
        let mut salt_octets = [0; 64];
        salt.decode_b64(&mut salt_octets)
            .map_err(HashError::Broken)?;
        Ok(StoredHash(hash.serialize()))
    }

    /// Whether this is the password's hash. Takes the hash's full cost either way, and compares
    /// in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        Argon2::default()
            .verify_password(password, &self.0.password_hash())
            .is_ok()
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A hash in a log is half a password.
        formatter.write_str("StoredHash(..)")
    }
}

/// "secret" with little memory, so that tests are quick; computed by OpenSSL's argon2.
#[cfg(test)]
pub(super) const SECRET_HASH: &str = "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$FVyC9Idb/zXNhNsyjuyraWKeAc/n1whEQMvwuzK+mFo";

#[cfg(test)]
mod tests {
    use super::*;

    /// "secret", computed by OpenSSL's argon2.
    const OTHERS: [(&str, &str); 3] = [
        ("argon2id", SECRET_HASH),
        (
            "argon2i",
            "$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$NT3HDqwlcYWoE8KsPuen7yL1bb4nJ7CI+YmVzQG20uU",
        ),
        (
            "argon2d",
            "$argon2d$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$jke7JKHVy5vqDAGun01PqWgyp3eDX3kbTX6gTE+fNv4",
        ),
    ];

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let text = hash(b"correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m="), "{text}");
        assert_ne!(
            text,
            hash(b"correct horse").unwrap(),
            "a fresh salt each time"
        );
        let stored = StoredHash::parse(&text).unwrap();
        assert!(stored.verify(b"correct horse"));
        assert!(!stored.verify(b"correct horse "));
        assert!(!stored.verify(b""));
        assert!(!format!("{stored:?}").contains("argon2"));
    }

    #[test]
    fn every_kind_of_argon2_is_read() {
        for (name, text) in OTHERS {
            let stored = StoredHash::parse(text).unwrap();
            assert!(stored.verify(b"secret"), "{name}");
            assert!(!stored.verify(b"Secret"), "{name}");
        }
    }

    #[test]
    fn refused_at_load() {
        let rows: &[(&str, &str, &str)] = &[
            ("nothing", "", "not a password hash"),
            ("a clear password", "secret", "not a password hash"),
            ("bcrypt", "$2b$12$abcdefghijklmnopqrstuv", "scheme \"2b\""),
            ("sha512-crypt", "$6$salt$abcdefgh", "scheme \"6\""),
            (
                "scrypt",
                "$scrypt$ln=16,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "scheme \"scrypt\"",
            ),
            ("no salt", "$argon2id$v=19$m=256,t=1,p=1", "no salt"),
            (
                "no output",
                "$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ",
                "no salt or no output",
            ),
            (
                "a future version",
                "$argon2id$v=20$m=256,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "broken",
            ),
            (
                "too little memory",
                "$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "broken",
            ),
            (
                "memory at the limit",
                "$argon2id$v=19$m=262144,t=4,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "",
            ),
            (
                "memory over the limit",
                "$argon2id$v=19$m=262145,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "costs too much",
            ),
            (
                "work over the limit",
                "$argon2id$v=19$m=262144,t=5,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "costs too much",
            ),
            (
                "passes without end",
                "$argon2id$v=19$m=256,t=4294967295,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "costs too much",
            ),
            (
                "too many lanes",
                "$argon2id$v=19$m=1024,t=1,p=65$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "costs too much",
            ),
            (
                "a truncated hash",
                "$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ$aGFz",
                "broken",
            ),
        ];
        for (name, text, expected) in rows {
            match StoredHash::parse(text) {
                Ok(_) => assert_eq!(*expected, "", "{name} was accepted"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !expected.is_empty() && error.contains(expected),
                        "{name}: {error}"
                    );
                    assert_eq!(error.lines().count(), 1, "{name}");
                }
            }
        }
    }
}
