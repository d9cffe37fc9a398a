//! A Maildir as its reader finds it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One recipient's `{tmp,new,cur}`.
pub(crate) struct Maildir {
    root: PathBuf,
}

/// A delivered message as it lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    pub(crate) path: PathBuf,
    pub(crate) octets: Vec<u8>,
}

impl Maildir {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything in `new`, in no promised order.
    pub(crate) fn messages(&self) -> Vec<Delivered> {
        files(&self.root.join("new"))
            .into_iter()
            .map(|path| Delivered {
                octets: fs::read(&path).unwrap(),
                path,
            })
            .collect()
    }

    /// The one message in `new`.
    #[track_caller]
    pub(crate) fn only(&self) -> Delivered {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "messages below {}", self.root.display());
        messages.remove(0)
    }

    /// Expects the layout: three private directories, private files, nothing left in `tmp`.
    #[track_caller]
    pub(crate) fn check(&self) {
        for name in ["tmp", "new", "cur"] {
            let directory = self.root.join(name);
            let mode = fs::metadata(&directory).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
        }
        assert_eq!(files(&self.root.join("tmp")), Vec::<PathBuf>::new());
        assert_eq!(files(&self.root.join("cur")), Vec::<PathBuf>::new());
        for path in files(&self.root.join("new")) {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                !name.contains([':', '/']) && !name.starts_with('.'),
                "{name:?}"
            );
        }
    }
}

impl Delivered {
    /// Splits off the trace header fields that were added: Return-Path and one Received.
    #[track_caller]
    pub(crate) fn parts(&self) -> Parts<'_> {
        assert!(!self.octets.contains(&b'\r'), "a Maildir's lines end in LF");
        let return_path_end = line_end(&self.octets);
        let mut received_end = return_path_end;
        loop {
            received_end += line_end(&self.octets[received_end..]);
            if !matches!(self.octets.get(received_end), Some(b'\t' | b' ')) {
                break;
            }
        }
        let text = |range: &[u8]| String::from_utf8(range.to_vec()).unwrap();
        Parts {
            return_path: text(&self.octets[..return_path_end]).trim_end().to_owned(),
            received: text(&self.octets[return_path_end..received_end])
                .trim_end()
                .to_owned(),
            message: &self.octets[received_end..],
        }
    }
}

/// A delivered message: what the server added, and what the client sent.
pub(crate) struct Parts<'a> {
    pub(crate) return_path: String,
    pub(crate) received: String,
    pub(crate) message: &'a [u8],
}

impl Parts<'_> {
    /// The protocol keyword of the Received field (RFC 3848).
    pub(crate) fn with(&self) -> &str {
        let mut words = self.received.split_whitespace();
        words.find(|word| *word == "with").unwrap();
        words.next().unwrap()
    }
}

/// All files of a directory, none if it is not there.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn line_end(octets: &[u8]) -> usize {
    octets.iter().position(|octet| *octet == b'\n').unwrap() + 1
}
