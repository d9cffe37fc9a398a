//! One Maildir a recipient, at `DIR/DOMAIN/LOCALPART/{tmp,new,cur}`.
//!
//! A message is written whole into `tmp`, synced, renamed into `new`, and the directory synced: a reader sees
//! all of it or nothing, and after a power cut what was reported is there. Lines end in LF in a Maildir; of
//! the message nothing else changes.

use std::io;
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::ring;
use crate::smtp::envelope::Recipient;

/// The directory of a recipient's Maildir, relative to the target's own: `DOMAIN/LOCALPART`, lower-cased,
/// with the octets that are unsafe in a file name as `%XX`.
///
/// Unsafe are `/` and NUL, controls and spaces, `%` itself, so that no two local parts meet, and a dot in
/// front, so that no name is `.` or `..` or hidden. The empty local part, `""`, is a lone `%`, which no other
/// one becomes: without a name of its own its Maildir would be the domain's directory.
pub fn mailbox_directory(recipient: &Recipient) -> PathBuf {
    [
        safe_name(&recipient.domain),
        safe_name(&recipient.local_part),
    ]
    .iter()
    .collect()
}

fn safe_name(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut safe = String::with_capacity(name.len());
    for letter in name.to_lowercase().chars() {
        let unsafe_here = matches!(letter, '/' | '\\' | '%' | '\u{0}'..=' ' | '\u{7f}')
            || (letter == '.' && safe.is_empty());
        if unsafe_here {
            // All of these are ASCII: one octet, two digits.
            safe.push_str(&format!("%{:02X}", u32::from(letter)));
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Appends `data` with each CR LF as LF. `held_cr` carries a CR at a slice's end over to the next slice.
fn append_with_lf(file: &mut Vec<u8>, data: &[u8], held_cr: &mut bool) {
    let mut data = data;
    if std::mem::take(held_cr) && data.first() != Some(&b'\n') {
        file.push(b'\r');
    }
    if let Some((b'\r', rest)) = data.split_last() {
        *held_cr = true;
        data = rest;
    }
    let mut kept_from = 0;
    for at in memmem::find_iter(data, b"\r\n") {
        file.extend_from_slice(data.get(kept_from..at).unwrap_or_default());
        kept_from = at + 1;
    }
    file.extend_from_slice(data.get(kept_from..).unwrap_or_default());
}

/// A message as it lies in a Maildir: `header` and `data`, each CR LF as LF.
pub fn file_octets<'d>(
    header: &[u8],
    data: impl Iterator<Item = &'d [u8]>,
    octets_hint: u64,
) -> Vec<u8> {
    let hint = usize::try_from(octets_hint).unwrap_or(0);
    let mut file = Vec::with_capacity(header.len() + hint);
    let mut held_cr = false;
    append_with_lf(&mut file, header, &mut held_cr);
    for slice in data {
        append_with_lf(&mut file, slice, &mut held_cr);
    }
    if held_cr {
        file.push(b'\r');
    }
    file
}

/// A message in `tmp`, not yet seen by readers.
#[derive(Debug)]
pub struct Prepared<'p> {
    root: &'p Path,
    directory: &'p Path,
    name: String,
}

/// Whether files and directories are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the next step is taken.
    Yes,
    /// When the kernel likes.
    No,
}

/// What was tried on which path, and the errno.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub struct MaildirError {
    what: &'static str,
    path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl MaildirError {
    fn of<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> MaildirError + 'p {
        move |source| MaildirError {
            what,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Writes `octets` into `tmp` of the Maildir `directory` below `root`, and makes the Maildir where it is missing.
pub async fn prepare<'p>(
    root: &'p Path,
    directory: &'p Path,
    name: String,
    octets: Vec<u8>,
    sync: Sync,
) -> Result<Prepared<'p>, MaildirError> {
    let prepared = Prepared {
        root,
        directory,
        name,
    };
    let path = prepared.path_in("tmp");
    let file = match ring::File::create_new(&path, FILE_MODE).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(root, directory, sync).await?;
            ring::File::create_new(&path, FILE_MODE).await
        }
        other => other,
    };
    let file = file.map_err(MaildirError::of("create", &path))?;
    let written = match file.write_all(octets).await {
        Ok(()) if sync == Sync::Yes => file.sync().await,
        other => other,
    };
    match written {
        Ok(()) => Ok(prepared),
        Err(source) => {
            prepared.discard().await;
            Err(MaildirError::of("write", &path)(source))
        }
    }
}

impl Prepared<'_> {
    /// Shows the message to readers. A Maildir that lost its `new` gets another. After an error the message
    /// may be shown or not: [`Prepared::withdraw`] it.
    pub async fn publish(&self, sync: Sync) -> Result<(), MaildirError> {
        match self.show(sync).await {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                make(self.root, self.directory, sync).await?;
                self.show(sync).await
            }
            other => other,
        }
    }

    async fn show(&self, sync: Sync) -> Result<(), MaildirError> {
        let new = self.root.join(self.directory).join("new");
        // Opened first: when descriptors have run out, the message is not shown yet.
        let directory = match sync {
            Sync::Yes => Some(open_directory(&new).await?),
            Sync::No => None,
        };
        let (from, to) = (self.path_in("tmp"), self.path_in("new"));
        ring::rename(&from, &to)
            .await
            .map_err(MaildirError::of("rename into place", &from))?;
        if let Some(directory) = directory {
            directory
                .sync()
                .await
                .map_err(MaildirError::of("sync", &new))?;
        }
        Ok(())
    }

    /// Takes a message away again that was not published, as far as the disk lets us.
    pub async fn discard(&self) {
        let _ = ring::remove_file(&self.path_in("tmp")).await;
    }

    /// Takes a message away again that may have been published, as far as the disk and readers let us.
    pub async fn withdraw(&self) {
        let _ = ring::remove_file(&self.path_in("new")).await;
        self.discard().await;
    }

    fn path_in(&self, part: &str) -> PathBuf {
        let mut path = self.root.join(self.directory);
        path.push(part);
        path.push(&self.name);
        path
    }
}

/// Makes the Maildir and what is missing above it, and syncs every directory that got an entry.
///
/// `tmp` comes last, when all else is synced: another message that finds it can rely on the way to `new`,
/// also while this one still waits for the disk.
async fn make(root: &Path, directory: &Path, sync: Sync) -> Result<(), MaildirError> {
    let mailbox = root.join(directory);
    let (new, cur) = (mailbox.join("new"), mailbox.join("cur"));
    let mut above: Vec<&Path> = mailbox
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    above.reverse();
    let mut to_sync = Vec::new();
    for path in above.into_iter().chain([new.as_path(), cur.as_path()]) {
        let made = create_directory(path).await?;
        // What another message has just made it may not have synced yet.
        if made == Made::Now || path.starts_with(root) {
            to_sync.extend(path.parent().map(or_here));
        }
    }
    if sync == Sync::Yes {
        to_sync.dedup();
        for path in to_sync {
            let directory = open_directory(path).await?;
            directory
                .sync()
                .await
                .map_err(MaildirError::of("sync", path))?;
        }
    }
    create_directory(&mailbox.join("tmp")).await.map(drop)
}

#[derive(PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

async fn create_directory(path: &Path) -> Result<Made, MaildirError> {
    match ring::create_directory(path, DIRECTORY_MODE).await {
        Ok(()) => Ok(Made::Now),
        // Another message may be making the same Maildir now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Before),
        Err(source) => Err(MaildirError::of("make the directory", path)(source)),
    }
}

/// The empty path names the working directory.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

async fn open_directory(path: &Path) -> Result<ring::File, MaildirError> {
    ring::File::open_directory(path)
        .await
        .map_err(MaildirError::of("open", path))
}

/// Mail is private.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(local_part: &str, domain: &str) -> Recipient {
        Recipient {
            as_given: format!("{local_part}@{domain}").into(),
            local_part: local_part.into(),
            domain: domain.into(),
        }
    }

    #[test]
    fn names_are_lower_cased_and_safe() {
        for (name, local_part, expected) in [
            ("plain", "user", "mx.test/user"),
            ("upper case", "User", "mx.test/user"),
            ("a slash", "a/b", "mx.test/a%2Fb"),
            ("the directory above", "..", "mx.test/%2E."),
            ("a hidden file", ".bashrc", "mx.test/%2Ebashrc"),
            ("dots within", "first.last", "mx.test/first.last"),
            ("a percent sign", "a%b", "mx.test/a%25b"),
            ("a tag", "user+tag", "mx.test/user+tag"),
            ("a space", "a b", "mx.test/a%20b"),
            ("NUL and DEL", "\u{0}\u{7f}", "mx.test/%00%7F"),
            ("an at sign", "a@b", "mx.test/a@b"),
            ("nothing at all", "", "mx.test/%"),
            ("letters beyond ASCII", "Jörg", "mx.test/jörg"),
        ] {
            let directory = mailbox_directory(&recipient(local_part, "mx.test"));
            assert_eq!(directory, Path::new(expected), "{name}");
        }
    }

    #[test]
    fn only_cr_lf_becomes_lf_however_the_data_is_cut() {
        let data = b"a\r\nb\rc\nd\r\r\n\r\n\r";
        let expected = b"H: x\na\nb\rc\nd\r\n\n\r";
        for cut in 0..=data.len() {
            let (head, tail) = data.split_at(cut);
            let octets = file_octets(b"H: x\r\n", [head, tail].into_iter(), 16);
            assert_eq!(octets, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_appears_in_new_and_nothing_stays_in_tmp() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("mail");
        let directory = PathBuf::from("mx.test/user");
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        ring::run(settings, async {
            for name in ["1", "2"] {
                let octets = b"Subject: x\n\nbody\n".to_vec();
                let prepared = prepare(&root, &directory, name.into(), octets, Sync::Yes)
                    .await
                    .unwrap();
                prepared.publish(Sync::Yes).await.unwrap();
            }
            let prepared = prepare(&root, &directory, "3".into(), b"x".to_vec(), Sync::No)
                .await
                .unwrap();
            prepared.discard().await;
        })
        .unwrap();
        let mailbox = root.join(directory);
        let names = |part: &str| std::fs::read_dir(mailbox.join(part)).unwrap().count();
        assert_eq!((names("tmp"), names("new"), names("cur")), (0, 2, 0));
        assert_eq!(
            std::fs::read(mailbox.join("new/1")).unwrap(),
            b"Subject: x\n\nbody\n"
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&mailbox.join("new/2")), 0o600);
        assert_eq!(mode(&mailbox.join("new")), 0o700);
        assert_eq!(mode(&root), 0o700);
    }

    #[test]
    fn what_is_missing_above_is_made_too() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("x/y/mail");
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        ring::run(settings, async {
            let name = String::from("1");
            let prepared = prepare(&root, Path::new("d/l"), name, b"x".to_vec(), Sync::Yes)
                .await
                .unwrap();
            prepared.publish(Sync::Yes).await.unwrap();
        })
        .unwrap();
        assert_eq!(std::fs::read(root.join("d/l/new/1")).unwrap(), b"x");
    }

    #[test]
    fn a_withdrawn_message_is_gone_published_or_not() {
        let root = tempfile::tempdir().unwrap();
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        ring::run(settings, async {
            for name in ["published", "prepared"] {
                let octets = b"x".to_vec();
                let prepared =
                    prepare(root.path(), Path::new("d/l"), name.into(), octets, Sync::No)
                        .await
                        .unwrap();
                if name == "published" {
                    prepared.publish(Sync::No).await.unwrap();
                }
                prepared.withdraw().await;
            }
        })
        .unwrap();
        for part in ["tmp", "new"] {
            let directory = root.path().join("d/l").join(part);
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "{part}");
        }
    }

    #[test]
    fn a_half_made_maildir_is_completed() {
        for there in [
            &[][..],
            &["tmp"],
            &["new"],
            &["tmp", "cur"],
            &["new", "cur"],
        ] {
            let root = tempfile::tempdir().unwrap();
            let directory = Path::new("mx.test/user");
            let mailbox = root.path().join(directory);
            std::fs::create_dir_all(&mailbox).unwrap();
            for part in there {
                std::fs::create_dir(mailbox.join(part)).unwrap();
            }
            let settings = ring::RingSettings {
                entries: 8,
                sqpoll: false,
            };
            ring::run(settings, async {
                let octets = b"x\n".to_vec();
                let prepared = prepare(root.path(), directory, "1".into(), octets, Sync::Yes)
                    .await
                    .unwrap();
                prepared.publish(Sync::Yes).await.unwrap();
            })
            .unwrap();
            assert!(mailbox.join("new/1").exists(), "{there:?} were there");
            assert!(mailbox.join("cur").exists(), "{there:?} were there");
        }
    }

    #[test]
    fn an_error_names_what_was_tried_on_which_path() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("mail");
        std::fs::write(&blocked, b"a file").unwrap();
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        let error = ring::run(settings, async {
            prepare(&blocked, Path::new("d/l"), "1".into(), Vec::new(), Sync::No)
                .await
                .unwrap_err()
        })
        .unwrap();
        let text = error.to_string();
        assert!(
            text.contains("cannot ") && text.contains(&blocked.display().to_string()),
            "{text}"
        );
    }
}
