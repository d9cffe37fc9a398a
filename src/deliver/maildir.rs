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

/// The name of a message's file: `SECONDS.PprocessQqueue-id_number.hostname`, as Maildir's convention has it.
///
/// `unique` is what no other message of this host has in this second. Of the host's name as much is taken as
/// fits, with `/` and `:` as `\057` and `\072`; its beginning tells hosts of one domain apart.
pub fn file_name(seconds: i64, unique: &str, hostname: &str) -> String {
    let mut name = format!("{seconds}.{unique}.");
    for letter in hostname.chars() {
        let mut plain = [0; 4];
        let safe = match letter {
            '/' => "\\057",
            ':' => "\\072",
            _ => letter.encode_utf8(&mut plain),
        };
        if name.len() + safe.len() > NAME_OCTETS_MAX {
            break;
        }
        name.push_str(safe);
    }
    name
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

/// A message as it lies in a Maildir: header and mail data, each CR LF as LF, converted a block at a time.
///
/// In blocks because a whole copy of a large message would be memory that no budget counts, and making it
/// would keep the shard from everybody else.
///
/// ```text
/// slices:  [header][4 KiB][8 KiB] … [256 KiB][256 KiB]
///              │ CR LF → LF, a CR at a slice's end held over
///              ▼
/// block:   [at most 256 KiB] ──▶ written at its offset ──▶ filled anew
/// ```
pub struct FileOctets<'m, S> {
    /// What is left of the slice under way.
    slice: &'m [u8],
    /// The slices behind it.
    slices: S,
    held_cr: bool,
    /// The first block's capacity: a message that fits into it is one write.
    block_octets: usize,
    block_octets_max: usize,
}

impl<'m, S: Iterator<Item = &'m [u8]>> FileOctets<'m, S> {
    /// The file of `header` and `data`, which has `data_octets`.
    pub fn new(header: &'m [u8], data: S, data_octets: u64) -> FileOctets<'m, S> {
        let octets = usize::try_from(data_octets)
            .unwrap_or(usize::MAX)
            .saturating_add(header.len());
        FileOctets {
            slice: header,
            slices: data,
            held_cr: false,
            block_octets: octets.min(BLOCK_OCTETS_MAX),
            block_octets_max: BLOCK_OCTETS_MAX,
        }
    }

    /// Fills the empty `block`. It stays empty when nothing is left.
    ///
    /// No slice becomes longer, a CR held over apart: so as much of it is taken as there is room for, and
    /// again, until CR LFs have left no room unused.
    fn fill(&mut self, block: &mut Vec<u8>) {
        debug_assert!(block.is_empty() && self.block_octets_max >= 2);
        loop {
            let room = self.block_octets_max.saturating_sub(block.len());
            let room = room.saturating_sub(usize::from(self.held_cr));
            if room == 0 {
                return;
            }
            if self.slice.is_empty() {
                let Some(next) = self.slices.next() else {
                    break;
                };
                self.slice = next;
                continue;
            }
            let (now, later) = self
                .slice
                .split_at_checked(room)
                .unwrap_or((self.slice, &[]));
            append_with_lf(block, now, &mut self.held_cr);
            self.slice = later;
        }
        if std::mem::take(&mut self.held_cr) {
            block.push(b'\r');
        }
    }
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
pub async fn prepare<'p, 'm>(
    root: &'p Path,
    directory: &'p Path,
    name: String,
    octets: FileOctets<'m, impl Iterator<Item = &'m [u8]>>,
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
    let written = match write(&file, octets).await {
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

/// Writes block after block; while the kernel has one, the shard serves others.
async fn write<'m>(
    file: &ring::File,
    mut octets: FileOctets<'m, impl Iterator<Item = &'m [u8]>>,
) -> io::Result<()> {
    let mut block = Vec::with_capacity(octets.block_octets);
    let mut offset = 0;
    loop {
        octets.fill(&mut block);
        if block.is_empty() {
            return Ok(());
        }
        let written = block.len() as u64;
        block = file.write_all_at(block, offset).await?;
        offset += written;
        block.clear();
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

/// What a delivery has in memory beside the message, and what its shard converts before it looks at others:
/// some tens of microseconds. As large as the largest block of [`MailData`](crate::smtp::data::MailData), so
/// that large mail is about as many writes as it is slices.
const BLOCK_OCTETS_MAX: usize = 256 * 1024;

/// A file name has 255 octets at most; a reader appends to it, as `,S=20480,W=20800:2,FRS`.
const NAME_OCTETS_MAX: usize = 255 - 63;

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
    fn a_file_name_fits_whatever_the_host_is_called() {
        let label = "a".repeat(63);
        let long = format!("mx1.{label}.{label}.{label}.{}", "b".repeat(52));
        assert_eq!(long.len(), 248);
        let unique = "P4194304Q1k11n8g4mtr00_99";
        let start = "1790000000.P4194304Q1k11n8g4mtr00_99.";
        let room = NAME_OCTETS_MAX - start.len();
        let cut = |host: &str| host[..room].to_owned();
        for (name, hostname, expected) in [
            ("plain", "mx.test".to_owned(), "mx.test".to_owned()),
            ("long", long.clone(), cut(&long)),
            ("just fits", "h".repeat(room), "h".repeat(room)),
            ("one too many", "h".repeat(room + 1), "h".repeat(room)),
            ("unsafe", "a/b:c".to_owned(), "a\\057b\\072c".to_owned()),
            (
                "no half escape",
                "h".repeat(room - 3) + "/",
                "h".repeat(room - 3),
            ),
            (
                "no half letter",
                "h".repeat(room - 1) + "ö",
                "h".repeat(room - 1),
            ),
        ] {
            let file = file_name(1_790_000_000, unique, &hostname);
            assert_eq!(file, format!("{start}{expected}"), "{name}");
        }
    }

    /// The file of one slice.
    fn octets(data: &[u8]) -> FileOctets<'_, impl Iterator<Item = &[u8]>> {
        FileOctets::new(b"", Some(data).into_iter(), data.len() as u64)
    }

    /// All blocks of a file, none of them larger than it may be.
    fn joined<'m>(mut octets: FileOctets<'m, impl Iterator<Item = &'m [u8]>>) -> Vec<u8> {
        let mut file = Vec::new();
        let mut block = Vec::new();
        loop {
            octets.fill(&mut block);
            assert!(block.len() <= octets.block_octets_max);
            if block.is_empty() {
                return file;
            }
            file.append(&mut block);
        }
    }

    #[test]
    fn only_cr_lf_becomes_lf_however_the_data_is_cut() {
        let data = b"a\r\nb\rc\nd\r\r\n\r\n\r";
        let expected = b"H: x\na\nb\rc\nd\r\n\n\r";
        for cut in 0..=data.len() {
            for next in cut..=data.len() {
                for block_octets_max in (2..32).chain([BLOCK_OCTETS_MAX]) {
                    let slices = [&data[..cut], &data[cut..next], &data[next..]];
                    let mut octets = FileOctets::new(b"H: x\r\n", slices.into_iter(), 16);
                    octets.block_octets_max = block_octets_max;
                    let name = format!("cut at {cut} and {next}, blocks of {block_octets_max}");
                    assert_eq!(joined(octets), expected, "{name}");
                }
            }
        }
    }

    /// `octets` of mail: lines, with a lone CR and LF here and there, ending as `end` says.
    fn mail(octets: usize, end: &[u8]) -> Vec<u8> {
        let mut mail = b"Subject: x\r\n\r\n".to_vec();
        while mail.len() < octets {
            match fastrand::u8(..20) {
                0 => mail.push(b'\r'),
                1 => mail.push(b'\n'),
                _ => {
                    let letters = std::iter::repeat_n(b'x', fastrand::usize(..200));
                    mail.extend(letters.chain(*b"\r\n"));
                }
            }
        }
        mail.truncate(octets - end.len());
        mail.extend_from_slice(end);
        mail
    }

    fn on_a_ring<T>(future: impl Future<Output = T>) -> T {
        let settings = ring::RingSettings {
            entries: 8,
            sqpoll: false,
        };
        ring::run(settings, future).unwrap()
    }

    #[test]
    fn a_message_is_the_same_in_one_block_and_in_several() {
        fastrand::seed(7);
        let root = tempfile::tempdir().unwrap();
        let kib = 1024;
        let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
        for octets in [20, 255 * kib, 256 * kib, 257 * kib, 600 * kib] {
            messages.push((format!("{octets}"), mail(octets, b"\r\n")));
        }
        // With the header's 17 octets, of which one goes: each in turn is the last of the first block.
        for octets in BLOCK_OCTETS_MAX - 20..=BLOCK_OCTETS_MAX + 3 {
            messages.push((format!("{octets}, mixed"), mail(octets, b"\r\n")));
            for (name, end) in [
                ("no line end", &b"xx"[..]),
                ("CR", b"\r"),
                ("CR LF", b"\r\n"),
                ("CR CR LF", b"\r\r\n"),
                ("CR LF x", b"\r\nx"),
                ("CR x", b"\rx"),
            ] {
                // One line: what is read in is as long as what is written.
                let mut text = vec![b'x'; octets - end.len()];
                text.extend_from_slice(end);
                messages.push((format!("{octets}, {name}"), text.clone()));
                text.extend_from_slice(b"the next block\r\n\r");
                messages.push((format!("{octets}, {name}, more"), text));
            }
        }
        let header = b"Return-Path: <>\r\n";
        for (number, (name, text)) in messages.iter().enumerate() {
            let whole = [header, text.as_slice()].concat();
            let expected = String::from_utf8(whole).unwrap().replace("\r\n", "\n");
            let cut = fastrand::usize(..=text.len());
            let (head, tail) = text.split_at(cut);
            on_a_ring(async {
                let slices = [head, tail].into_iter();
                let octets = FileOctets::new(header, slices, text.len() as u64);
                let directory = Path::new("d/l");
                let prepared =
                    prepare(root.path(), directory, number.to_string(), octets, Sync::No)
                        .await
                        .unwrap();
                prepared.publish(Sync::No).await.unwrap();
            });
            let path = root.path().join("d/l/new").join(number.to_string());
            assert!(
                std::fs::read(path).unwrap() == expected.as_bytes(),
                "{name}, cut at {cut}"
            );
        }
    }

    #[test]
    fn a_block_is_no_larger_than_the_message_or_the_most() {
        for (data_octets, block_octets) in [
            (0, 6),
            (1000, 1006),
            (BLOCK_OCTETS_MAX as u64, BLOCK_OCTETS_MAX),
            (u64::MAX, BLOCK_OCTETS_MAX),
        ] {
            let octets = FileOctets::new(b"H: x\r\n", [].into_iter(), data_octets);
            assert_eq!(octets.block_octets, block_octets, "{data_octets}");
        }
    }

    #[test]
    fn a_message_appears_in_new_and_nothing_stays_in_tmp() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("mail");
        let directory = PathBuf::from("mx.test/user");
        on_a_ring(async {
            for name in ["1", "2"] {
                let octets = octets(b"Subject: x\r\n\r\nbody\r\n");
                let prepared = prepare(&root, &directory, name.into(), octets, Sync::Yes)
                    .await
                    .unwrap();
                prepared.publish(Sync::Yes).await.unwrap();
            }
            let prepared = prepare(&root, &directory, "3".into(), octets(b"x"), Sync::No)
                .await
                .unwrap();
            prepared.discard().await;
        });
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
        on_a_ring(async {
            let name = String::from("1");
            let prepared = prepare(&root, Path::new("d/l"), name, octets(b"x"), Sync::Yes)
                .await
                .unwrap();
            prepared.publish(Sync::Yes).await.unwrap();
        });
        assert_eq!(std::fs::read(root.join("d/l/new/1")).unwrap(), b"x");
    }

    #[test]
    fn a_withdrawn_message_is_gone_published_or_not() {
        let root = tempfile::tempdir().unwrap();
        on_a_ring(async {
            for name in ["published", "prepared"] {
                let octets = octets(b"x");
                let prepared =
                    prepare(root.path(), Path::new("d/l"), name.into(), octets, Sync::No)
                        .await
                        .unwrap();
                if name == "published" {
                    prepared.publish(Sync::No).await.unwrap();
                }
                prepared.withdraw().await;
            }
        });
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
            on_a_ring(async {
                let octets = octets(b"x\n");
                let prepared = prepare(root.path(), directory, "1".into(), octets, Sync::Yes)
                    .await
                    .unwrap();
                prepared.publish(Sync::Yes).await.unwrap();
            });
            assert!(mailbox.join("new/1").exists(), "{there:?} were there");
            assert!(mailbox.join("cur").exists(), "{there:?} were there");
        }
    }

    #[test]
    fn an_error_names_what_was_tried_on_which_path() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("mail");
        std::fs::write(&blocked, b"a file").unwrap();
        let error = on_a_ring(async {
            prepare(
                &blocked,
                Path::new("d/l"),
                "1".into(),
                octets(b""),
                Sync::No,
            )
            .await
            .unwrap_err()
        });
        let text = error.to_string();
        assert!(
            text.contains("cannot ") && text.contains(&blocked.display().to_string()),
            "{text}"
        );
    }
}
