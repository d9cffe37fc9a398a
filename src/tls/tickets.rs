//! The keys that session tickets are protected with (RFC 5077 §4, RFC 8446 §4.6.1).
//!
//! A ticket holds the whole state of a session, encrypted to ourselves; nothing is kept here. All
//! shards share one ring of keys, a file keeps it over restarts, and a fleet may share the file. So a
//! client resumes on whatever shard, process or machine it lands.
//!
//! ```text
//!   key      starts        one lifetime later          two lifetimes later
//!    A  ──────┼── encrypts ────────┼── only decrypts ──────────┼ dropped
//!    B                    written ▸┼── encrypts ───────────────┼── only decrypts ── …
//! ```
//! A new key is written to the file [`SETTLE`] before it starts, so that every process has read it by the
//! time the first ticket under it comes in. A ticket is good for one lifetime; so a key that has
//! stopped encrypting is of use for one lifetime more.
//!
//! The file is lines of text, version 1:
//! ```text
//! ringpost-ticket-keys 1
//! # starts (seconds since 1970), name, AES-256 key, HMAC-SHA-256 key
//! 1790000000 <32 hexadecimal digits> <64> <64>
//! ```
//! Invariants:
//! - Whoever holds the file can read every session whose ticket it protects: a file that others may read
//!   is refused, and ours is made 0600.
//! - The file is replaced whole (new file, sync, rename, sync of the directory), never changed in place,
//!   and only under the lock `FILE.lock`: a reader sees the old keys or the new ones.
//! - A file that does not load leaves the ring as it was. One that is missing holds no keys at a start;
//!   at a reload it is made again from the keys in use, so that tickets go on working.
//! - Looking up a key takes no lock.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fmt, hint, thread};

use arc_swap::{ArcSwap, Guard};
use openssl::cipher::{Cipher, CipherRef};
use openssl::error::ErrorStack;
use rustix::fs::FlockOperation;

use super::failure::one_line;
use super::ffi;

/// The ticket keys of the whole process. One `Arc` of it goes to every context of every shard.
pub struct TicketKeyRing {
    keys: ArcSwap<Keys>,
    /// AES-256-CBC, fetched once: looking it up costs a ticket more than encrypting does.
    cipher: Cipher,
    lifetime_seconds: u64,
    file: Option<PathBuf>,
    /// Held while keys change. Nobody on a shard ever takes it.
    changing: Mutex<()>,
}

/// What [`TicketKeyRing::rotate_if_due`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The keys are as they were.
    NotDue,
    /// A new key was made here.
    Rotated,
    /// The file has other keys than before: another process rotated, or an operator did.
    Adopted,
    /// The file was missing, and was made again with the keys in use, and a new one if that was due.
    Restored,
}

/// Why ticket keys cannot be had. One line, naming the file.
#[derive(Debug, thiserror::Error)]
pub enum TicketKeysError {
    /// The file cannot be read.
    #[error("cannot read ticket keys {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file may be read by others.
    #[error(
        "ticket keys {} may be read by others (mode {mode:04o}): chmod 600 it, and better remove it before \
         a start, which makes new ones",
        path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not say what it should.
    #[error("ticket keys {}, line {line}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The file cannot be written.
    #[error("cannot write ticket keys {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has kept the lock for too long.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// OpenSSL gives no random octets, or has no AES.
    #[error("cannot make a ticket key: {0}")]
    OpenSsl(String),
}

impl TicketKeyRing {
    /// Keys that live as long as the process.
    pub fn ephemeral(lifetime: Duration) -> Result<TicketKeyRing, TicketKeysError> {
        let now = unix_seconds(SystemTime::now());
        TicketKeyRing::new(
            Keys::new(TicketKey::random(now)?, Vec::new()),
            lifetime,
            None,
        )
    }

    /// Keys that live in a file, which is made if it is missing.
    pub fn from_file(path: &Path, lifetime: Duration) -> Result<TicketKeyRing, TicketKeysError> {
        let schedule = Schedule::new(lifetime_seconds(lifetime), SETTLE);
        let now = unix_seconds(SystemTime::now());
        let (stored, _) = refresh(path, schedule, now, &WhenMissing::Make(Vec::new()))?;
        let Some(keys) = select(stored, now) else {
            return Err(TicketKeysError::Format {
                path: path.to_owned(),
                line: 1,
                reason: NO_KEYS,
            });
        };
        TicketKeyRing::new(keys, lifetime, Some(path.to_owned()))
    }

    /// Reads such a file as a start does, but neither makes nor changes it, and takes no lock: how
    /// many keys are in it. For `check`, which may be run by another user than the server's.
    pub fn inspect(path: &Path) -> Result<usize, TicketKeysError> {
        read(path).map(|keys| keys.len())
    }

    /// The files that keeping keys at `path` leaves: the keys, and what their writers lock.
    pub fn files(path: &Path) -> [PathBuf; 2] {
        let target = target(path);
        let lock = with_suffix(&target, LOCK_SUFFIX);
        [target, lock]
    }

    /// Makes a new key when the newest has served its time, takes over what others wrote into the file,
    /// and drops what is too old. For the control thread, once a minute; it reads a small file.
    pub fn rotate_if_due(&self, now: SystemTime) -> Result<Rotation, TicketKeysError> {
        self.change(now, &WhenMissing::Refuse)
    }

    /// Reads the file anew, as after SIGHUP, making it again from the keys in use if it is missing. If it
    /// is at fault the keys stay as they were.
    pub fn reload(&self) -> Result<Rotation, TicketKeysError> {
        self.reload_at(SystemTime::now())
    }

    fn reload_at(&self, now: SystemTime) -> Result<Rotation, TicketKeysError> {
        let in_use = self.keys.load().all();
        self.change(now, &WhenMissing::Make(in_use))
    }

    /// A ticket around `session`, as OpenSSL makes one with this ring in a handshake. For benches.
    #[doc(hidden)]
    pub fn seal(&self, session: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        ffi::seal(self, session)
    }

    /// What [`TicketKeyRing::seal`] or a handshake put into `ticket`; nothing if no key of the ring made it as it is.
    /// For benches.
    #[doc(hidden)]
    pub fn open(&self, ticket: &[u8]) -> Result<Option<Vec<u8>>, ErrorStack> {
        ffi::open(self, ticket)
    }

    /// The keys of this moment. Takes no lock.
    pub(super) fn keys(&self) -> Guard<std::sync::Arc<Keys>> {
        self.keys.load()
    }

    pub(super) fn cipher(&self) -> &CipherRef {
        &self.cipher
    }

    fn new(
        keys: Keys,
        lifetime: Duration,
        file: Option<PathBuf>,
    ) -> Result<TicketKeyRing, TicketKeysError> {
        let cipher = Cipher::fetch(None, "AES-256-CBC", None)
            .map_err(|error| TicketKeysError::OpenSsl(one_line(&error)))?;
        Ok(TicketKeyRing {
            keys: ArcSwap::from_pointee(keys),
            cipher,
            lifetime_seconds: lifetime_seconds(lifetime),
            file,
            changing: Mutex::new(()),
        })
    }

    fn change(&self, now: SystemTime, missing: &WhenMissing) -> Result<Rotation, TicketKeysError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_seconds(now);
        let (stored, written) = match &self.file {
            Some(path) => refresh(
                path,
                Schedule::new(self.lifetime_seconds, SETTLE),
                now,
                missing,
            )?,
            None => {
                // All shards see a new key at the same moment: it need not settle.
                let schedule = Schedule::new(self.lifetime_seconds, Duration::ZERO);
                let mut keys = self.keys.load().all();
                schedule.prune(&mut keys, now);
                let new = schedule
                    .next_start(&keys, now)
                    .map(TicketKey::random)
                    .transpose()?;
                let written = new.as_ref().map(|_| Written::NewKey);
                keys.extend(new);
                (keys, written)
            }
        };
        let Some(keys) = select(stored, now) else {
            return Ok(Rotation::NotDue);
        };
        let before = self.keys.load();
        let rotation = match written {
            Some(Written::NewKey) => Rotation::Rotated,
            Some(Written::Again) => Rotation::Restored,
            None if keys.names_missing_in(&before) => Rotation::Adopted,
            None => Rotation::NotDue,
        };
        // Even then another key may have come to encrypt, and an old one gone.
        self.keys.store(std::sync::Arc::new(keys));
        Ok(rotation)
    }
}

impl fmt::Debug for TicketKeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeyRing")
            .field("file", &self.file)
            .field("keys", &self.keys.load())
            .finish_non_exhaustive()
    }
}

/// The keys of one moment.
#[derive(Debug)]
pub(super) struct Keys {
    encrypting: TicketKey,
    /// Those that only decrypt: older ones, and one that is about to take over.
    decrypting: Vec<TicketKey>,
}

impl Keys {
    fn new(encrypting: TicketKey, decrypting: Vec<TicketKey>) -> Keys {
        Keys {
            encrypting,
            decrypting,
        }
    }

    pub(super) fn encrypting(&self) -> &TicketKey {
        &self.encrypting
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<&TicketKey> {
        self.iter().find(|key| key.name == name)
    }

    fn iter(&self) -> impl Iterator<Item = &TicketKey> {
        std::iter::once(&self.encrypting).chain(&self.decrypting)
    }

    fn all(&self) -> Vec<TicketKey> {
        self.iter().cloned().collect()
    }

    fn names_missing_in(&self, other: &Keys) -> bool {
        self.iter().any(|key| other.find(&key.name).is_none())
    }
}

/// One key. Its octets are wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TicketKey {
    /// From when on it encrypts, in seconds since 1970.
    starts: u64,
    pub(super) name: [u8; KEY_NAME_OCTETS],
    pub(super) cipher_key: [u8; SECRET_OCTETS],
    pub(super) mac_key: [u8; SECRET_OCTETS],
}

impl TicketKey {
    fn random(starts: u64) -> Result<TicketKey, TicketKeysError> {
        let mut key = TicketKey {
            starts,
            name: [0; KEY_NAME_OCTETS],
            cipher_key: [0; SECRET_OCTETS],
            mac_key: [0; SECRET_OCTETS],
        };
        // The name goes over the network in clear; the keys come from the generator for secrets.
        openssl::rand::rand_bytes(&mut key.name)
            .and_then(|()| openssl::rand::rand_priv_bytes(&mut key.cipher_key))
            .and_then(|()| openssl::rand::rand_priv_bytes(&mut key.mac_key))
            .map_err(|error| TicketKeysError::OpenSsl(one_line(&error)))?;
        Ok(key)
    }

    /// `starts name cipher-key mac-key`
    fn parse(line: &str) -> Result<TicketKey, &'static str> {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || {
            fields
                .next()
                .ok_or("a key is four fields: start, name and two keys")
        };
        let key = TicketKey {
            starts: next()?
                .parse()
                .map_err(|_| "the start is not a number of seconds")?,
            name: from_hex(next()?).ok_or("the name is not 32 hexadecimal digits")?,
            cipher_key: from_hex(next()?).ok_or("the AES key is not 64 hexadecimal digits")?,
            mac_key: from_hex(next()?).ok_or("the HMAC key is not 64 hexadecimal digits")?,
        };
        if fields.next().is_some() {
            return Err("a key is four fields: start, name and two keys");
        }
        Ok(key)
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.cipher_key.fill(0);
        self.mac_key.fill(0);
        // So that the compiler does not leave out stores nobody reads.
        hint::black_box(&self.cipher_key);
        hint::black_box(&self.mac_key);
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("starts", &self.starts)
            .finish_non_exhaustive()
    }
}

/// When keys come and go.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    lifetime: u64,
    /// How long before its start a key is made.
    settle: u64,
}

impl Schedule {
    fn new(lifetime: u64, settle: Duration) -> Schedule {
        Schedule {
            lifetime,
            settle: settle.as_secs().min(lifetime / 4),
        }
    }

    fn prune(self, keys: &mut Vec<TicketKey>, now: u64) {
        keys.retain(|key| {
            let over = key.starts.saturating_add(self.lifetime.saturating_mul(2));
            // A start so far ahead was written while a clock was wrong; waiting for it would
            // stop rotation.
            let ahead = now
                .saturating_add(self.lifetime)
                .saturating_add(self.settle);
            now < over && key.starts <= ahead
        });
    }

    /// When the key that is now to be made shall start, if one is to be made.
    fn next_start(self, keys: &[TicketKey], now: u64) -> Option<u64> {
        let Some(newest) = keys.iter().map(|key| key.starts).max() else {
            return Some(now);
        };
        let takeover = newest.saturating_add(self.lifetime);
        (takeover <= now.saturating_add(self.settle)).then(|| takeover.max(now))
    }
}

/// The keys with the one that encrypts picked: the newest that has started, else the one that starts
/// first.
fn select(mut keys: Vec<TicketKey>, now: u64) -> Option<Keys> {
    keys.sort_by_key(|key| key.starts);
    let started = keys.iter().rposition(|key| key.starts <= now).unwrap_or(0);
    if keys.is_empty() {
        return None;
    }
    let encrypting = keys.remove(started);
    // The newest first: most tickets are found at once.
    keys.reverse();
    Some(Keys::new(encrypting, keys))
}

/// What to do about a file that is missing.
#[derive(Debug)]
enum WhenMissing {
    /// Make it, with those of these keys that are not too old.
    Make(Vec<TicketKey>),
    Refuse,
}

/// Why the file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// A key was due.
    NewKey,
    /// It was missing.
    Again,
}

/// The keys of the file without those that are too old, after adding a new one if that is due, and whether
/// the file was written.
fn refresh(
    path: &Path,
    schedule: Schedule,
    now: u64,
    missing: &WhenMissing,
) -> Result<(Vec<TicketKey>, Option<Written>), TicketKeysError> {
    // The keys, and why to write them.
    let load = || {
        let (mut keys, written) = match (read(path), missing) {
            (Err(TicketKeysError::Read { source, .. }), WhenMissing::Make(keys))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                (keys.clone(), Some(Written::Again))
            }
            (read, _) => (read?, None),
        };
        schedule.prune(&mut keys, now);
        let next = schedule.next_start(&keys, now);
        Ok((keys, next, written.or(next.map(|_| Written::NewKey))))
    };
    let (keys, _, written) = load()?;
    if written.is_none() {
        return Ok((keys, None));
    }

    let target = target(path);
    let _lock = lock(&target)?;
    // Whoever had the lock before may have done it.
    let (mut keys, next, written) = load()?;
    if written.is_none() {
        return Ok((keys, None));
    }
    if let Some(start) = next {
        keys.push(TicketKey::random(start)?);
    }
    write(&target, &keys).map_err(|source| TicketKeysError::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok((keys, written))
}

/// A link, as secrets are often mounted, is followed and not replaced.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn read(path: &Path) -> Result<Vec<TicketKey>, TicketKeysError> {
    let unreadable = |source| TicketKeysError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TicketKeysError::NotPrivate {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(FILE_OCTETS_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    parse(&text).map_err(|(line, reason)| TicketKeysError::Format {
        path: path.to_owned(),
        line,
        reason,
    })
}

fn parse(text: &str) -> Result<Vec<TicketKey>, (usize, &'static str)> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let Some((line, header)) = lines.next() else {
        return Err((
            1,
            "not a file of ticket keys: it must begin with `ringpost-ticket-keys 1`",
        ));
    };
    match header
        .split_ascii_whitespace()
        .collect::<Vec<_>>()
        .as_slice()
    {
        [MAGIC, VERSION] => {}
        [MAGIC, ..] => return Err((line, "this version of the file is not known here")),
        _ => {
            return Err((
                line,
                "not a file of ticket keys: it must begin with `ringpost-ticket-keys 1`",
            ));
        }
    }
    let keys: Vec<TicketKey> = lines
        .map(|(line, text)| TicketKey::parse(text).map_err(|reason| (line, reason)))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err((line, NO_KEYS));
    }
    Ok(keys)
}

/// Replaces the file. The caller has the lock, so nobody else writes to `FILE.new`.
fn write(path: &Path, keys: &[TicketKey]) -> io::Result<()> {
    let mut text = format!(
        "{MAGIC} {VERSION}\n# starts (seconds since 1970), name, AES-256 key, HMAC-SHA-256 key\n"
    );
    for key in keys {
        let (name, cipher, mac) = (hex(&key.name), hex(&key.cipher_key), hex(&key.mac_key));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {name} {cipher} {mac}", key.starts);
    }

    let new = with_suffix(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory(path))?.sync_all()
}

/// Takes the lock that every writer of the file takes; it goes when the handle does.
fn lock(path: &Path) -> Result<File, TicketKeysError> {
    let path = with_suffix(path, LOCK_SUFFIX);
    let failed = |source| TicketKeysError::Lock {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(failed(error.into())),
        }
    }
    Err(failed(io::Error::new(
        io::ErrorKind::WouldBlock,
        "another process holds it",
    )))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// OpenSSL counts in whole seconds; less than one would be no lifetime at all.
fn lifetime_seconds(lifetime: Duration) -> u64 {
    lifetime.as_secs().max(1)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn from_hex<const OCTETS: usize>(text: &str) -> Option<[u8; OCTETS]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * OCTETS {
        return None;
    }
    let mut octets = [0; OCTETS];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            *octet = *octet << 4 | value;
        }
    }
    Some(octets)
}

/// `TLSEXT_KEYNAME_LENGTH`.
pub(super) const KEY_NAME_OCTETS: usize = 16;
const SECRET_OCTETS: usize = 32;

/// Twice the minute between two calls of [`TicketKeyRing::rotate_if_due`].
const SETTLE: Duration = Duration::from_secs(120);

/// A file of ours has two or three keys of 180 octets each.
const FILE_OCTETS_MAX: u64 = 64 * 1024;

const LOCK_SUFFIX: &str = ".lock";
const LOCK_ATTEMPTS_MAX: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

const MAGIC: &str = "ringpost-ticket-keys";
const VERSION: &str = "1";
const NO_KEYS: &str = "there is no key in it";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn key(starts: u64) -> TicketKey {
        TicketKey::random(starts).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// The name of the key that encrypts, and all names.
    fn names(ring: &TicketKeyRing) -> ([u8; KEY_NAME_OCTETS], Vec<[u8; KEY_NAME_OCTETS]>) {
        let keys = ring.keys();
        (
            keys.encrypting().name,
            keys.iter().map(|key| key.name).collect(),
        )
    }

    fn put(path: &Path, text: &str, mode: u32) {
        let _ = fs::remove_file(path);
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn which_key_encrypts() {
        let now = 10_000;
        let table: [(&str, &[u64], Option<u64>); 6] = [
            ("none", &[], None),
            ("one", &[9_000], Some(9_000)),
            (
                "the newest that has started",
                &[8_000, 9_000, 11_000],
                Some(9_000),
            ),
            ("just started", &[9_000, 10_000], Some(10_000)),
            ("none has started", &[12_000, 11_000], Some(11_000)),
            ("one, not started", &[11_000], Some(11_000)),
        ];
        for (name, starts, expected) in table {
            let keys = select(starts.iter().map(|starts| key(*starts)).collect(), now);
            assert_eq!(
                keys.as_ref().map(|keys| keys.encrypting().starts),
                expected,
                "{name}"
            );
            assert_eq!(
                keys.map_or(0, |keys| keys.all().len()),
                starts.len(),
                "{name}"
            );
        }
    }

    #[test]
    fn when_keys_come_and_go() {
        let schedule = Schedule::new(3600, SETTLE);
        let now = 100_000;
        // Ages in seconds, negative: starts in the future.
        type Ages = &'static [i64];
        let table: [(&str, Ages, Ages, Option<u64>); 9] = [
            ("nothing there", &[], &[], Some(0)),
            ("fresh", &[0], &[0], None),
            ("long before its end", &[3479], &[3479], None),
            ("the next must settle", &[3480], &[3480], Some(120)),
            ("the next is there", &[3500, -100], &[3500, -100], None),
            ("its time is over", &[3600], &[3600], Some(0)),
            ("late", &[5000], &[5000], Some(0)),
            ("of no more use", &[7200, 3000], &[3000], None),
            (
                "written while a clock was wrong",
                &[3000, -9000],
                &[3000],
                None,
            ),
        ];
        for (name, ages, kept, next) in table {
            let at = |age: &i64| u64::try_from(now - age).unwrap();
            let mut keys: Vec<TicketKey> = ages.iter().map(|age| key(at(age))).collect();
            let now = at(&0);
            schedule.prune(&mut keys, now);
            let left: Vec<u64> = keys.iter().map(|key| key.starts).collect();
            assert_eq!(left, kept.iter().map(at).collect::<Vec<_>>(), "{name}");
            assert_eq!(
                schedule.next_start(&keys, now).map(|start| start - now),
                next,
                "{name}"
            );
        }
    }

    #[test]
    fn keys_in_memory_rotate_every_lifetime() {
        let ring = TicketKeyRing::ephemeral(LIFETIME).unwrap();
        let now = SystemTime::now();
        let (first, _) = names(&ring);
        assert_eq!(
            ring.rotate_if_due(now + LIFETIME - MINUTE).unwrap(),
            Rotation::NotDue
        );
        assert_eq!(
            ring.rotate_if_due(now + LIFETIME).unwrap(),
            Rotation::Rotated
        );
        let (second, all) = names(&ring);
        assert!(second != first && all == [second, first]);
        assert_eq!(
            ring.rotate_if_due(now + LIFETIME).unwrap(),
            Rotation::NotDue
        );
        assert_eq!(
            ring.rotate_if_due(now + 2 * LIFETIME).unwrap(),
            Rotation::Rotated
        );
        let (third, all) = names(&ring);
        assert!(all == [third, second], "the first is two lifetimes old");
        assert_eq!(ring.reload().unwrap(), Rotation::NotDue);
        // After a long sleep of the machine nothing old is left.
        assert_eq!(
            ring.rotate_if_due(now + 10 * LIFETIME).unwrap(),
            Rotation::Rotated
        );
        assert_eq!(names(&ring).1.len(), 1);
    }

    #[test]
    fn a_missing_file_is_made_private_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let ring = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("ringpost-ticket-keys 1\n")
        );
        let again = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        assert_eq!(names(&ring), names(&again));
        assert_eq!(again.reload().unwrap(), Rotation::NotDue);
        assert!(!with_suffix(&path, ".new").exists());
        for file in TicketKeyRing::files(&path) {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn processes_that_share_a_file_change_over_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let one = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        let other = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        let (first, _) = names(&one);
        let now = SystemTime::now();

        // Shortly before the end one of them makes the next key, and the other takes it over.
        let soon = now + LIFETIME - MINUTE;
        assert_eq!(one.rotate_if_due(soon).unwrap(), Rotation::Rotated);
        assert_eq!(other.rotate_if_due(soon).unwrap(), Rotation::Adopted);
        assert_eq!(other.rotate_if_due(soon).unwrap(), Rotation::NotDue);
        for ring in [&one, &other] {
            let (encrypting, all) = names(ring);
            assert!(
                encrypting == first && all.len() == 2,
                "it has not started yet"
            );
        }
        // Then it encrypts in both, and the first still decrypts.
        for ring in [&one, &other] {
            assert_eq!(
                ring.rotate_if_due(now + LIFETIME + MINUTE).unwrap(),
                Rotation::NotDue
            );
            let (encrypting, all) = names(ring);
            assert!(encrypting != first && all.contains(&first));
        }
        assert_eq!(names(&one), names(&other));
    }

    #[test]
    fn many_that_rotate_at_once_make_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let rings: Vec<Arc<TicketKeyRing>> = thread::scope(|scope| {
            let start = || Arc::new(TicketKeyRing::from_file(&path, LIFETIME).unwrap());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let (first, _) = names(&rings[0]);
        assert!(rings.iter().all(|ring| names(ring).0 == first));

        let due = SystemTime::now() + LIFETIME;
        let rotated = thread::scope(|scope| {
            let threads: Vec<_> = rings
                .iter()
                .map(|ring| scope.spawn(move || ring.rotate_if_due(due).unwrap()))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| (thread.join().unwrap() == Rotation::Rotated).then_some(()))
                .count()
        });
        assert_eq!(rotated, 1);
        assert!(rings.iter().all(|ring| names(ring) == names(&rings[0])));
    }

    #[test]
    fn a_file_at_fault_is_named_and_leaves_the_ring_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let ring = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        let before = names(&ring);
        let good = fs::read_to_string(&path).unwrap();
        let line = good.lines().last().unwrap().to_owned();
        let with = |line: &str| format!("ringpost-ticket-keys 1\n{line}\n");

        let table = [
            (
                "others may read it",
                good.clone(),
                0o640,
                "may be read by others (mode 0640)",
            ),
            ("all may read it", good.clone(), 0o644, "chmod 600"),
            (
                "empty",
                String::new(),
                0o600,
                "line 1: not a file of ticket keys",
            ),
            (
                "something else",
                "-----BEGIN".to_owned(),
                0o600,
                "line 1: not a file of ticket keys",
            ),
            (
                "octets",
                "\u{0}\u{1}".to_owned(),
                0o600,
                "line 1: not a file of ticket keys",
            ),
            (
                "next version",
                "ringpost-ticket-keys 2\n".to_owned(),
                0o600,
                "line 1: this version",
            ),
            (
                "no version",
                "ringpost-ticket-keys\n".to_owned(),
                0o600,
                "line 1: this version",
            ),
            (
                "no key",
                "# x\nringpost-ticket-keys 1\n".to_owned(),
                0o600,
                "line 2: there is no key",
            ),
            (
                "torn",
                good[..good.len() - 30].to_owned(),
                0o600,
                "line 3: the HMAC key is not 64",
            ),
            (
                "torn early",
                with("17"),
                0o600,
                "line 2: a key is four fields",
            ),
            (
                "five fields",
                with(&format!("{line} 0")),
                0o600,
                "line 2: a key is four fields",
            ),
            (
                "start",
                with(&format!("-{line}")),
                0o600,
                "line 2: the start is not a number",
            ),
            (
                "not hex",
                with(&line.replacen(' ', " z", 1)),
                0o600,
                "line 2: the name is not 32",
            ),
        ];
        for (name, text, mode, expected) in table {
            put(&path, &text, mode);
            let errors = [
                ring.reload().unwrap_err(),
                ring.rotate_if_due(SystemTime::now()).unwrap_err(),
                TicketKeyRing::from_file(&path, LIFETIME).unwrap_err(),
            ];
            for error in errors {
                let text = error.to_string();
                assert!(text.contains(expected), "{name}: {text}");
                assert!(text.contains(&path.display().to_string()), "{name}: {text}");
                assert!(!text.contains('\n'), "{name}: {text}");
            }
            assert_eq!(names(&ring), before, "{name}");
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                text,
                "{name}: it is not touched"
            );
        }
        put(&path, &good.replace('\n', "\r\n\r\n# x\n"), 0o400);
        assert_eq!(
            ring.reload().unwrap(),
            Rotation::NotDue,
            "blank lines and comments"
        );
    }

    #[test]
    fn a_file_that_went_is_made_again_from_the_keys_in_use_at_a_reload_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let ring = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        let now = SystemTime::now();
        let soon = now + LIFETIME - MINUTE;
        assert_eq!(ring.rotate_if_due(soon).unwrap(), Rotation::Rotated);
        let before = names(&ring);
        assert_eq!(before.1.len(), 2);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(ring.rotate_if_due(soon).is_err());
        assert!(!path.exists());

        assert_eq!(ring.reload_at(soon).unwrap(), Rotation::Restored);
        assert_eq!(names(&ring), before);
        assert_eq!(mode(&path), 0o600);
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let again = fs::read_to_string(&path).unwrap();
        assert_eq!(lines(&again), lines(&text));
        assert_eq!(ring.reload_at(soon).unwrap(), Rotation::NotDue);

        // A key that is due comes into the file that is made again; one that is too old does not.
        fs::remove_file(&path).unwrap();
        let late = now + 2 * LIFETIME;
        assert_eq!(ring.reload_at(late).unwrap(), Rotation::Restored);
        let (encrypting, all) = names(&ring);
        assert!(!before.1.contains(&encrypting) && all.len() == 2);
        assert!(all.iter().any(|name| before.1.contains(name)));

        // A start has no keys in use.
        fs::remove_file(&path).unwrap();
        let new = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        assert!(names(&new).1.iter().all(|name| !all.contains(name)));
        // What another process has made in the meantime is taken over.
        assert_eq!(ring.reload().unwrap(), Rotation::Adopted);
        assert_eq!(names(&ring), names(&new));
    }

    #[test]
    fn keys_stay_in_use_when_their_file_cannot_be_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("there/keys");
        fs::create_dir(directory.path().join("there")).unwrap();
        let ring = TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        let before = names(&ring);
        fs::remove_dir_all(directory.path().join("there")).unwrap();
        let error = ring.reload().unwrap_err().to_string();
        assert!(error.contains("there/keys"), "{error}");
        assert_eq!(names(&ring), before);
    }

    #[test]
    fn a_place_where_no_file_can_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("nowhere/keys");
        let error = TicketKeyRing::from_file(&nowhere, LIFETIME)
            .unwrap_err()
            .to_string();
        assert!(error.contains("nowhere/keys"), "{error}");
        let error = TicketKeyRing::from_file(directory.path(), LIFETIME)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_lock_that_another_holds_is_waited_for_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let held = lock(&path).unwrap();
        let error = TicketKeyRing::from_file(&path, LIFETIME)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("keys.lock: another process holds it"),
            "{error}"
        );
        drop(held);
        TicketKeyRing::from_file(&path, LIFETIME).unwrap();
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("keys"), directory.path().join("link"));
        TicketKeyRing::from_file(&path, LIFETIME).unwrap();
        symlink(&path, &link).unwrap();
        let ring = TicketKeyRing::from_file(&link, LIFETIME).unwrap();
        ring.rotate_if_due(SystemTime::now() + LIFETIME).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
    }

    #[test]
    fn secrets_are_not_shown() {
        let ring = TicketKeyRing::ephemeral(LIFETIME).unwrap();
        let shown = format!("{ring:?}");
        assert!(shown.contains("TicketKey { starts: "), "{shown}");
        assert!(
            !shown.contains("cipher_key") && !shown.contains("mac_key"),
            "{shown}"
        );
    }
}
