//! Keeps a data directory to one server.
//!
//! The lock is on the open file `lock` in the directory, so the kernel gives it back however the
//! process ends. The file stays: were it removed, two servers could each lock a file of that name.
//! It holds the process id of the server, for the message to the second one and for nothing else.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::privileges::Identity;

/// The lock on a data directory, held until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the directory to the next server"]
pub struct DataDirLock {
    /// Closing it unlocks.
    _file: File,
}

/// Why the data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A server runs on it.
    #[error("{} is in use by another ringpost{}", .dir.display(), in_brackets(.pid))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The process that has it, if that could be read.
        pid: Option<u32>,
    },
    /// The directory cannot be made.
    #[error("cannot make the directory {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file `lock` cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl DataDirLock {
    /// Makes `dir` if it is missing, for the owner alone, and locks it.
    ///
    /// Taken by root on behalf of `identity`, what is made belongs to that identity. A directory
    /// that is there stays as it is.
    pub fn take(dir: &Path, identity: Option<&Identity>) -> Result<Self, LockError> {
        private_dir(dir, identity).map_err(|source| LockError::Directory {
            path: dir.into(),
            source,
        })?;
        let path = dir.join("lock");
        let fault = |source| LockError::File {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fault)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::InUse {
                    dir: dir.into(),
                    pid: read_pid(&mut file),
                });
            }
            Err(error) => return Err(fault(error.into())),
        }
        if let Some(identity) = identity {
            identity.own(&path).map_err(fault)?;
        }
        file.set_len(0).map_err(fault)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
            .map_err(fault)?;
        Ok(Self { _file: file })
    }
}

/// Makes `dir` and what is missing above it, for the owner alone (0700), who is `identity` if
/// there is one. What is there stays as it is. What was made outlives a power cut: mail below it is to.
pub fn private_dir(dir: &Path, identity: Option<&Identity>) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        private_dir(parent, identity)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some(identity) = identity {
                identity.own(dir)?;
            }
            let parent = dir
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()
        }
        // Somebody made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// `None` while the other server has not written it yet.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn in_brackets(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_second_server_is_refused_in_one_line() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("a/data");
        let lock = DataDirLock::take(&dir, None).unwrap();
        // A second open file: flock treats it as it would another process's.
        let error = DataDirLock::take(&dir, None).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            error,
            format!(
                "{} is in use by another ringpost (pid {pid})",
                dir.display()
            )
        );
        drop(lock);
        let _lock = DataDirLock::take(&dir, None).unwrap();
    }

    #[test]
    fn a_second_process_is_refused() {
        const DIR: &str = "RINGPOST_TEST_LOCK_DIR";
        if let Some(dir) = std::env::var_os(DIR) {
            let refused = matches!(
                DataDirLock::take(Path::new(&dir), None),
                Err(LockError::InUse { pid: Some(pid), .. }) if pid != std::process::id()
            );
            std::process::exit(if refused { 17 } else { 18 });
        }
        let dir = tempfile::tempdir().unwrap();
        let _lock = DataDirLock::take(dir.path(), None).unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "control::lock::tests::a_second_process_is_refused",
                "--exact",
            ])
            .env(DIR, dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(17));
    }

    #[test]
    fn the_holder_may_not_have_told_its_pid() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = DataDirLock::take(dir.path(), None).unwrap();
        for content in ["", "none\n"] {
            fs::write(dir.path().join("lock"), content).unwrap();
            let error = DataDirLock::take(dir.path(), None).unwrap_err().to_string();
            assert!(error.ends_with(" is in use by another ringpost"), "{error}");
        }
    }

    #[test]
    fn what_is_made_is_private_and_what_was_there_stays() {
        let above = tempfile::tempdir().unwrap();
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dir = above.path().join("a/data");
        let _lock = DataDirLock::take(&dir, None).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(dir.parent().unwrap()), 0o700);
        assert_eq!(mode(&dir.join("lock")), 0o600);
        assert_eq!(mode(above.path()), 0o755);
    }

    #[test]
    fn faults_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDirLock::take(&file, None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot make the directory {}: ", file.display())));
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("lock")).unwrap();
        let error = DataDirLock::take(&data, None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot lock {}: ", data.join("lock").display())));
    }
}
