//! The users file: who may log in, one `name:hash` a line, `#` comments.
//!
//! ```text
//! # made by: ringpost hash-password
//! anna:$argon2id$v=19$m=19456,t=2,p=1$…
//! shop@example.org:$argon2id$v=19$m=19456,t=2,p=1$…
//! ```
//!
//! Apart from the hashes because it holds the one thing a stranger must not learn: which names
//! there are. Claims:
//! - Names are compared octet by octet; no case, no Unicode form is taken for another.
//! - An unknown name costs as much as a known one: its password is hashed against a decoy.
//! - A file is taken whole or not at all; the error names its line.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::hash::{HashError, StoredHash};

/// Who may log in.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, StoredHash>,
    /// The same hashes in the file's order: decoys for unknown names.
    decoys: Vec<StoredHash>,
    /// Picks the decoy, the same one for the same name. Seeded at random, so that nobody outside
    /// can tell which cost an unknown name would have.
    pick: RandomState,
}

/// Why a users file cannot be used. One line, naming the file.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read users {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{} line {line_number}: {fault}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line_number: usize,
        /// What is wrong with the line.
        fault: LineFault,
    },
}

/// What is wrong with a line of a users file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// No colon.
    #[error("a line is name:hash")]
    Form,
    /// Nothing before the colon.
    #[error("the name is missing")]
    NoName,
    /// The name was there already.
    #[error("{0:?} is in the file twice")]
    Duplicate(String),
    /// The hash cannot be used.
    #[error(transparent)]
    Hash(#[from] HashError),
}

impl Users {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let text = fs::read_to_string(path).map_err(|source| UsersError::Read {
            path: path.to_owned(),
            source,
        })?;
        Users::parse(&text).map_err(|(line_number, fault)| UsersError::Line {
            path: path.to_owned(),
            line_number,
            fault,
        })
    }

    fn parse(text: &str) -> Result<Users, (usize, LineFault)> {
        let mut users = Users::default();
        for (line, line_number) in std::iter::zip(text.lines(), 1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            users.add(line).map_err(|fault| (line_number, fault))?;
        }
        Ok(users)
    }

    fn add(&mut self, line: &str) -> Result<(), LineFault> {
        // The last colon: a hash has none, and a name may.
        let (name, hash) = line.rsplit_once(':').ok_or(LineFault::Form)?;
        // A NUL marks a login that would act for another (see `smtp::sasl`): nobody is called so.
        if name.is_empty() || name.contains('\0') {
            return Err(LineFault::NoName);
        }
        let hash = StoredHash::parse(hash)?;
        if self.by_name.insert(name.into(), hash.clone()).is_some() {
            return Err(LineFault::Duplicate(name.to_owned()));
        }
        self.decoys.push(hash);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether the password is the name's. Takes milliseconds of a core and megabytes: not for a
    /// shard's thread.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        match self.by_name.get(name) {
            Some(hash) => hash.verify(password),
            None => {
                // Against the hash of somebody who exists: the costs of unknown names are then
                // spread as those of known ones are, also where the file mixes parameters.
                if let Some(decoy) = self.decoy(name) {
                    decoy.verify(password);
                }
                false
            }
        }
    }

    /// Somebody's hash, always the same one for the same name. With no users at all there is
    /// nothing to hide.
    fn decoy(&self, name: &str) -> Option<&StoredHash> {
        let count = u64::try_from(self.decoys.len()).ok()?;
        let index = self.pick.hash_one(name).checked_rem(count)?;
        self.decoys.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash::SECRET_HASH as HASH;

    #[test]
    fn files() {
        let good = format!("# staff\n\nanna:{HASH}\r\n  shop@example.org:{HASH}  \nimap:7:{HASH}");
        let users = Users::parse(&good).unwrap();
        assert_eq!(users.len(), 3);
        assert!(users.by_name.contains_key("imap:7"));
        assert!(Users::parse("").unwrap().is_empty());

        let rows: &[(&str, String, usize, &str)] = &[
            ("no colon", "\nanna".to_owned(), 2, "a line is name:hash"),
            ("no name", format!(":{HASH}"), 1, "the name is missing"),
            (
                "twice",
                format!("a:{HASH}\n#\na:{HASH}"),
                3,
                "\"a\" is in the file twice",
            ),
            (
                "a clear password",
                "anna:secret".to_owned(),
                1,
                "not a password hash",
            ),
            (
                "bcrypt",
                "anna:$2b$12$abcdefghijklmnopqrstuv".to_owned(),
                1,
                "scheme \"2b\"",
            ),
            ("no hash", "anna:".to_owned(), 1, "not a password hash"),
        ];
        for (name, text, line_number, expected) in rows {
            let (line, fault) = Users::parse(text).unwrap_err();
            assert_eq!(line, *line_number, "{name}");
            assert!(fault.to_string().contains(expected), "{name}: {fault}");
        }
    }

    #[test]
    fn names_are_compared_octet_by_octet() {
        let users = Users::parse(&format!("Anna:{HASH}\nbjo\u{308}rn:{HASH}")).unwrap();
        let rows = [
            ("as in the file", "Anna", "secret", true),
            ("another case", "anna", "secret", false),
            ("a blank behind", "Anna ", "secret", false),
            ("another password", "Anna", "Secret", false),
            ("no password", "Anna", "", false),
            ("decomposed as in the file", "bjo\u{308}rn", "secret", true),
            ("composed", "bj\u{f6}rn", "secret", false),
            (
                "unknown, with the decoy's own password",
                "bert",
                "secret",
                false,
            ),
            ("no name", "", "secret", false),
        ];
        for (name, user, password, expected) in rows {
            assert_eq!(users.verify(user, password.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_has_always_the_same_decoy() {
        let text: String = (0..20)
            .map(|number| format!("user{number}:{HASH}\n"))
            .collect();
        let users = Users::parse(&text).unwrap();
        let first = users.decoy("nobody").unwrap() as *const StoredHash;
        for _ in 0..100 {
            assert_eq!(users.decoy("nobody").unwrap() as *const StoredHash, first);
        }
        assert!(Users::default().decoy("nobody").is_none());
    }

    #[test]
    fn the_error_names_the_file() {
        let error = Users::load(Path::new("/nonexistent/users"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/users"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, "# first\nanna\n").unwrap();
        let error = Users::load(&path).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{} line 2: a line is name:hash", path.display())
        );
    }
}
