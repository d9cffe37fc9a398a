//! One Maildir a recipient, at `DIR/DOMAIN/LOCALPART/{tmp,new,cur}`.
//!
//! A message is written whole into `tmp`, synced, renamed into `new`, and the directory synced: a reader sees
//! all of it or nothing, and after a power cut what was reported is there. Lines end in LF in a Maildir; of
//! the message nothing else changes.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use memchr::memmem;

use super::content::Content;
use crate::ring;
use crate::smtp::envelope::Recipient;
use crate::spool::ReadError;

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

/// The name of a message's file: `SECONDS.Qqueue-id_number.hostname`, as Maildir's convention has it.
///
/// `seconds` are those of the message's arrival and `unique` is what no other message of this host has, so that
/// the name is the same with each attempt, and a second one replaces what the first has left. Of the host's name as much is taken as
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

/// A block of a message's file: what was put in, each CR LF as LF.
///
/// In blocks because a whole copy of a large message would be memory that no budget counts, and making it
/// would keep the shard from everybody else.
///
/// ```text
/// parts:  [header][4 KiB][8 KiB] … [256 KiB][256 KiB]
///             │ CR LF → LF, a CR at a part's end held over
///             ▼
/// block:  [at most 256 KiB] ──▶ written at its offset ──▶ filled anew
/// ```
struct Block {
    octets: Vec<u8>,
    held_cr: bool,
    octets_max: usize,
}

impl Block {
    fn new(octets_max: usize) -> Block {
        debug_assert!(octets_max >= 2);
        Block {
            octets: Vec::new(),
            held_cr: false,
            octets_max,
        }
    }

    /// Takes in what there is room for, and gives back the rest. There is a rest only if the block is full.
    ///
    /// Nothing becomes longer, a CR held over apart: so as much is taken as there is room for, and again, until
    /// CR LFs have left no room unused.
    fn fill<'o>(&mut self, octets: &'o [u8]) -> &'o [u8] {
        let mut rest = octets;
        loop {
            let room = self.octets_max.saturating_sub(self.octets.len());
            let room = room.saturating_sub(usize::from(self.held_cr));
            if room == 0 || rest.is_empty() {
                return rest;
            }
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            append_with_lf(&mut self.octets, now, &mut self.held_cr);
            rest = later;
        }
    }

    /// Nothing comes any more: a CR that was held over stands alone.
    fn end(&mut self) {
        if std::mem::take(&mut self.held_cr) {
            self.octets.push(b'\r');
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

/// Why a message does not lie in a Maildir.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The Maildir refused it.
    #[error(transparent)]
    Maildir(#[from] MaildirError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Writes a message into `tmp` of the Maildir `directory` below `root`, and makes the Maildir where it is
/// missing. A file of the same name that an attempt left there is replaced.
pub async fn prepare<'p>(
    root: &'p Path,
    directory: &'p Path,
    name: String,
    header: &[u8],
    content: Content<'_>,
    sync: Sync,
) -> Result<Prepared<'p>, PrepareError> {
    let prepared = Prepared {
        root,
        directory,
        name,
    };
    let path = prepared.path_in("tmp");
    let file = match create(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(root, directory, sync).await?;
            create(&path).await
        }
        other => other,
    };
    let file = file.map_err(MaildirError::of("create", &path))?;
    let written = match write(&file, &path, header, content).await {
        Ok(()) if sync == Sync::Yes => {
            let synced = file.sync().await;
            synced.map_err(|error| MaildirError::of("write", &path)(error).into())
        }
        other => other,
    };
    match written {
        Ok(()) => Ok(prepared),
        Err(error) => {
            prepared.discard().await;
            Err(error)
        }
    }
}

/// A name is one message's alone: what is there was left by an attempt that a crash ended.
async fn create(path: &Path) -> io::Result<ring::File> {
    match ring::File::create_new(path, FILE_MODE).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            ring::remove_file(path).await?;
            ring::File::create_new(path, FILE_MODE).await
        }
        other => other,
    }
}

/// Writes block after block; while the kernel has one, the shard serves others.
async fn write(
    file: &ring::File,
    path: &Path,
    header: &[u8],
    mut content: Content<'_>,
) -> Result<(), PrepareError> {
    let mut block = Block::new(BLOCK_OCTETS_MAX);
    let mut offset = 0;
    let flush = async |block: &mut Block, offset: &mut u64| {
        let octets = std::mem::take(&mut block.octets);
        let written = octets.len() as u64;
        let octets = file.write_all_at(octets, *offset).await;
        block.octets = octets.map_err(MaildirError::of("write", path))?;
        block.octets.clear();
        *offset += written;
        Ok::<_, MaildirError>(())
    };
    let mut part = Some(Cow::Borrowed(header));
    while let Some(octets) = part {
        let mut rest = block.fill(&octets);
        while !rest.is_empty() {
            flush(&mut block, &mut offset).await?;
            rest = block.fill(rest);
        }
        part = content.next().await?;
    }
    block.end();
    flush(&mut block, &mut offset).await?;
    Ok(())
}

impl Prepared<'_> {
    /// Shows the message to readers, in the place of the same one that an attempt may have shown before. A Maildir
    /// that lost its `new` gets another. After an error the message may be shown or not.
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
    use crate::smtp::dsn::RcptDsn;

    fn recipient(local_part: &str, domain: &str) -> Recipient {
        Recipient {
            as_given: format!("{local_part}@{domain}").into(),
            local_part: local_part.into(),
            domain: domain.into(),
            dsn: RcptDsn::default(),
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
        let unique = "Q1k11n8g4mtr00_99";
        let start = "1790000000.Q1k11n8g4mtr00_99.";
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

    /// The data of one slice.
    fn content(data: &[u8]) -> Content<'_> {
        Content::Memory(Box::new(Some(data).into_iter()))
    }

    /// All blocks of a file, none of them larger than it may be.
    fn joined(octets_max: usize, parts: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut block = Block::new(octets_max);
        for part in parts {
            let mut rest = block.fill(part);
            while !rest.is_empty() {
                assert!(block.octets.len() + usize::from(block.held_cr) == octets_max);
                file.append(&mut block.octets);
                rest = block.fill(rest);
            }
        }
        block.end();
        assert!(block.octets.len() <= octets_max);
        file.append(&mut block.octets);
        file
    }

    #[test]
    fn only_cr_lf_becomes_lf_however_the_data_is_cut() {
        let data = b"a\r\nb\rc\nd\r\r\n\r\n\r";
        let expected = b"H: x\na\nb\rc\nd\r\n\n\r";
        for cut in 0..=data.len() {
            for next in cut..=data.len() {
                for block_octets_max in (2..32).chain([BLOCK_OCTETS_MAX]) {
                    let parts = [b"H: x\r\n", &data[..cut], &data[cut..next], &data[next..]];
                    let name = format!("cut at {cut} and {next}, blocks of {block_octets_max}");
                    assert_eq!(joined(block_octets_max, &parts), expected, "{name}");
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
                let content = Content::Memory(Box::new([head, tail].into_iter()));
                let (root, name) = (root.path(), number.to_string());
                let prepared = prepare(root, Path::new("d/l"), name, header, content, Sync::No)
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
    fn a_message_appears_in_new_and_nothing_stays_in_tmp() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("mail");
        let directory = PathBuf::from("mx.test/user");
        on_a_ring(async {
            for name in ["1", "2"] {
                let text = content(b"Subject: x\r\n\r\nbody\r\n");
                let prepared = prepare(&root, &directory, name.into(), b"", text, Sync::Yes)
                    .await
                    .unwrap();
                prepared.publish(Sync::Yes).await.unwrap();
            }
            let prepared = prepare(&root, &directory, "3".into(), b"", content(b"x"), Sync::No)
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
            let prepared = prepare(&root, Path::new("d/l"), name, b"", content(b"x"), Sync::Yes)
                .await
                .unwrap();
            prepared.publish(Sync::Yes).await.unwrap();
        });
        assert_eq!(std::fs::read(root.join("d/l/new/1")).unwrap(), b"x");
    }

    /// A crash between delivery and its record, and another attempt.
    #[test]
    fn an_attempt_replaces_what_the_one_before_has_left() {
        let root = tempfile::tempdir().unwrap();
        on_a_ring(async {
            for (number, text) in ["first", "second", "third"].iter().enumerate() {
                let (root, directory) = (root.path(), Path::new("d/l"));
                let text = content(text.as_bytes());
                let prepared = prepare(root, directory, "1".into(), b"", text, Sync::No)
                    .await
                    .unwrap();
                // The second one comes as far as `tmp`.
                if number != 1 {
                    prepared.publish(Sync::No).await.unwrap();
                }
            }
        });
        let new = root.path().join("d/l/new");
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 1);
        assert_eq!(std::fs::read(new.join("1")).unwrap(), b"third");
        let tmp = root.path().join("d/l/tmp");
        assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
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
                let text = content(b"x\n");
                let prepared = prepare(root.path(), directory, "1".into(), b"", text, Sync::Yes)
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
                b"",
                content(b""),
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
