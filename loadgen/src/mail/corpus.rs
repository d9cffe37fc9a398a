//! Real messages: the files of a directory and of those below it, in the order of their names.
//!
//! Line ends become CR LF, as they travel (RFC 5321 §2.3.8): a Maildir has LF. Nothing else is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringpost::smtp::client::{ContentFacts, Scanner};

use super::Message;

/// The messages, in memory.
#[derive(Clone, Debug)]
pub struct Corpus(Arc<[Letter]>);

#[derive(Debug)]
struct Letter {
    content: Box<[u8]>,
    facts: ContentFacts,
}

/// Why a directory cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// It, or what is in it, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} holds no messages", .0.display())]
    Empty(PathBuf),
    /// It would fill the memory.
    #[error("{} holds more than {} MiB of mail", .0.display(), OCTETS_MAX >> 20)]
    TooLarge(PathBuf),
}

impl Corpus {
    /// Reads all files, but for hidden ones and empty ones.
    pub fn read(directory: &Path) -> Result<Corpus, CorpusError> {
        let mut paths = Vec::new();
        gather(directory, &mut paths)?;
        paths.sort();
        let mut letters = Vec::with_capacity(paths.len());
        let mut octets = 0_usize;
        for path in paths {
            let content = fs::read(&path).map_err(|source| CorpusError::Read { path, source })?;
            octets = octets.saturating_add(content.len());
            if octets > OCTETS_MAX {
                return Err(CorpusError::TooLarge(directory.to_owned()));
            }
            if !content.is_empty() {
                letters.push(Letter::new(&content));
            }
        }
        if letters.is_empty() {
            return Err(CorpusError::Empty(directory.to_owned()));
        }
        Ok(Corpus(letters.into()))
    }

    /// The message of this number: they come in turn, again and again.
    pub(super) fn message(&self, number: u64) -> Message<'_> {
        let count = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(number % count.max(1)).unwrap_or(0);
        let letter = self.0.get(index);
        Message {
            parts: [letter.map_or(&[], |letter| &letter.content), &[]],
            facts: letter.map_or_else(|| Scanner::new().facts(), |letter| letter.facts),
        }
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let octets: usize = self.0.iter().map(|letter| letter.content.len()).sum();
        let mean = octets / self.0.len().max(1);
        format!("{} real messages of {mean} octets on average", self.0.len())
    }
}

impl Letter {
    fn new(file: &[u8]) -> Letter {
        let mut content = Vec::with_capacity(file.len() + file.len() / 32 + 2);
        for line in file.split_inclusive(|octet| *octet == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            content.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
            content.extend_from_slice(b"\r\n");
        }
        let mut scanner = Scanner::new();
        scanner.read(&content);
        Letter {
            content: content.into(),
            facts: scanner.facts(),
        }
    }
}

fn gather(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<(), CorpusError> {
    let unreadable = |source| CorpusError::Read {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            gather(&entry.path(), paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// All of it lies in memory.
const OCTETS_MAX: usize = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_messages_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("1"), "A: b\n\nc").unwrap();
        fs::write(directory.path().join("2"), "A: \u{fc}\r\n\r\n.\r\n").unwrap();
        fs::write(directory.path().join("empty"), "").unwrap();
        fs::write(directory.path().join(".hidden"), "x").unwrap();
        let corpus = Corpus::read(directory.path()).unwrap();
        let contents: Vec<&[u8]> = (0..3)
            .map(|number| corpus.message(number).parts[0])
            .collect();
        let utf8 = "A: \u{fc}\r\n\r\n.\r\n".as_bytes();
        assert_eq!(contents, [utf8, b"A: b\r\n\r\nc\r\n", utf8]);
        assert!(corpus.message(0).facts.has_utf8_header);
        assert!(corpus.message(1).facts.is_seven_bit);
    }

    #[test]
    fn nothing_to_send_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Corpus::read(directory.path()).unwrap_err();
        assert!(error.to_string().ends_with("holds no messages"), "{error}");
        let error = Corpus::read(&directory.path().join("none")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read"), "{error}");
    }
}
