//! A file that comes to be whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Writes `content` to `path`; `-` is standard output.
///
/// A file is replaced by renaming, so that a reader, or a failure half-way, never finds a part of it. What is
/// no file (a pipe, a terminal) is written to as it is.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        out.write_all(content)?;
        return out.flush();
    }
    // A link stays a link: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => {
            let mut out = OpenOptions::new().write(true).open(&path)?;
            out.write_all(content)
        }
        Ok(_) | Err(_) => replace(&path, content),
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It is this process's own, and of no use any more.
        let _gone = fs::remove_file(&beside);
    }
    written
}

/// A name in the same directory, for a rename does not cross file systems.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this is no name of a file",
        ));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", process::id()));
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        write(&path, b"a first, longer text").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        write(&link, b"third").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("none/report"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        write(directory.path(), b"x").unwrap_err();
        write(Path::new("/dev/full"), b"x").unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
