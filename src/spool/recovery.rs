//! Reads what a log's directory holds after a stop, whatever stopped it.
//!
//! What lies in one segment is tabled in [`segment`](super::segment). What lies in the directory:
//!
//! | found | how | becomes |
//! |---|---|---|
//! | no directory, or an empty one | first start, or the cut came in it | made |
//! | a used segment | it was written to | its entries count |
//! | a free segment | all its messages are done | recycled |
//! | a segment of zeros, or empty | made, and the cut came before its first batch | removed: its name may not last |
//! | a segment whose header is damaged | the disk lost what it had acknowledged | set aside, reported |
//! | a used segment of an older version | the release before wrote it | its entries count; it takes no more of them |
//! | a segment of an unknown version | another release wrote it | the start is refused |
//! | a file in `large/` that an entry names, with its length | the message is whole | kept; its checksum is looked at when it is read |
//! | one that no entry names | never acknowledged, or its message is done | removed; next to damage, set aside |
//! | an entry that names a file which is missing or short | the disk lost it | set aside, reported |
//! | a message twice | the cut came while it moved to a younger segment | the younger one counts |
//! | `done` or `progress` of no message | its segment was freed | nothing |
//!
//! Invariants:
//! - Nothing is written before everything is read: a fault leaves the directory as it was.
//! - What the log goes on from is on stable storage: the newest batch and what says that a segment is free are
//!   written again, and directories synced. The last process may have been killed before they were.
//! - Reading alone ([`Purpose::Look`]) changes nothing, so it can be done beside a stopped server's files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::batch::Lies;
use super::disk::{Access, Disk, DiskFile, WriteSync, read_up_to, write_all};
use super::entry::Entry;
use super::error::DiskError;
use super::layout::LogDirectory;
use super::log::Place;
use super::queue_id::QueueId;
use super::record::{self, Accepted, Data, Progress, Record};
use super::segment::{
    Before, Extent, HEADER_OCTETS, Header, NoHeader, State, VERSION, VERSION_OLDEST, walk,
};

/// Whether the log is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is: what is missing is made, what is left over removed, what is damaged set aside.
    GoOn,
    /// It is only looked at.
    Look,
}

/// What a log's directory held.
pub struct RecoveredLog {
    pub(super) directory: LogDirectory,
    pub(super) segments: Vec<RecoveredSegment>,
    pub(super) free: Vec<PathBuf>,
    pub(super) places: HashMap<QueueId, Place>,
    pub(super) sequence_next: u64,
    pub(super) file_next: u64,
    /// What is not done, the oldest first.
    pub messages: Vec<Recovered>,
    /// The newest id that was ever seen here.
    pub newest: Option<QueueId>,
    /// What was acknowledged and is not whole any more.
    pub damages: Vec<Damage>,
}

/// A message that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The message.
    pub accepted: Accepted,
    /// How far its delivery has come.
    pub progress: Progress,
}

/// Something that the disk lost or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it was.
    pub path: PathBuf,
    /// Which octets of the file.
    pub place: Range<u64>,
    /// The message, where that is known.
    pub id: Option<QueueId>,
}

pub(super) struct RecoveredSegment {
    pub(super) path: PathBuf,
    pub(super) file_octets: u64,
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    pub(super) end: u64,
    pub(super) before: Option<Before>,
    pub(super) messages: Vec<QueueId>,
    pub(super) alive: usize,
    pub(super) alive_octets: u64,
}

/// Why a log cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another release wrote it.
    #[error(
        "{} has version {version} of the spool's format, this release knows {VERSION_OLDEST} to {VERSION}",
        .path.display()
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
}

impl RecoveredLog {
    /// Removes a log that holds nothing any more, with its directory; what was set aside stays.
    pub async fn remove<D: Disk>(self, disk: &D) -> Result<(), DiskError> {
        let used = self.segments.iter().map(|segment| &segment.path);
        // The oldest first, and the free ones last: what is done must not come back by a crash in between.
        for path in used.chain(&self.free) {
            let removed = disk.remove(path).await;
            removed.map_err(DiskError::of("remove", path))?;
            let directory = self.directory.path();
            let synced = disk.sync_directory(directory).await;
            synced.map_err(DiskError::of("sync", directory))?;
        }
        // Something set aside lies in there: then they stay.
        let _ = disk.remove_directory(&self.directory.large()).await;
        let _ = disk.remove_directory(self.directory.path()).await;
        Ok(())
    }
}

/// Reads the log in `directory`.
pub async fn recover<D: Disk>(
    disk: &D,
    directory: LogDirectory,
    purpose: Purpose,
) -> Result<RecoveredLog, RecoveryError> {
    if purpose == Purpose::GoOn {
        make_directories(disk, &directory).await?;
    }
    let files = Files::read(disk, &directory).await?;
    let mut found = Found::default();
    let mut damaged = Vec::new();
    for (index, (file, header)) in files.used.iter().enumerate() {
        let younger = files
            .used
            .get(index + 1)
            .and_then(|(_, younger)| younger.before);
        let extent = match younger {
            Some(before) if before.sequence == header.sequence => Extent::Until(before.end),
            Some(_) | None => Extent::Open,
        };
        let octets = file.content(disk).await?;
        damaged.extend(found.read_segment(file, header, extent, &octets));
    }
    let own_files = own_files(disk, &directory).await?;
    damaged.extend(found.take_lost(&directory, &own_files));
    let mut damages: Vec<Damage> = damaged.iter().map(|it| it.damage.clone()).collect();
    damages.extend(files.damaged.iter().map(SegmentFile::all_damaged));
    let mut log = RecoveredLog {
        directory,
        segments: found.segments,
        free: files.free.iter().map(|(path, _)| path.clone()).collect(),
        places: found.places,
        sequence_next: files.sequence_newest.saturating_add(1),
        file_next: files.number_newest.saturating_add(1),
        messages: Vec::with_capacity(found.messages.len()),
        newest: found.newest,
        damages,
    };
    log.messages = found.messages.into_values().collect();
    log.messages
        .sort_unstable_by_key(|message| message.accepted.id);
    if purpose == Purpose::GoOn {
        put_aside(disk, &log.directory, damaged, &files.damaged).await?;
        write_again(disk, &files, found.newest_batch).await?;
        remove_left_over(disk, &log, &own_files).await?;
        for path in &files.blank {
            let removed = disk.remove(path).await;
            removed.map_err(DiskError::of("remove", path))?;
        }
    }
    Ok(log)
}

/// What is damaged, and how it is set aside.
struct Damaged {
    damage: Damage,
    /// The name in the directory of what is damaged.
    name: String,
    /// What is left of it; the file itself otherwise.
    octets: Option<Vec<u8>>,
}

/// A segment's file.
struct SegmentFile {
    path: PathBuf,
    octets: u64,
}

impl SegmentFile {
    async fn content<D: Disk>(&self, disk: &D) -> Result<Vec<u8>, DiskError> {
        let file = disk.open(&self.path, Access::Read).await;
        let file = file.map_err(DiskError::of("open", &self.path))?;
        let octets = usize::try_from(self.octets).unwrap_or(usize::MAX);
        let content = read_up_to(&file, Vec::new(), 0, octets).await;
        content.map_err(DiskError::of("read", &self.path))
    }

    fn damage(&self, header: &Header, place: &Range<usize>, octets: &[u8]) -> Damaged {
        let segment = self.name();
        Damaged {
            damage: Damage {
                path: self.path.clone(),
                place: place.start as u64..place.end as u64,
                id: None,
            },
            // The same name at the next start, and another when the file was recycled.
            name: format!("{segment}-{}-{}", header.sequence, place.start),
            octets: octets.get(place.clone()).map(<[u8]>::to_vec),
        }
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    fn all_damaged(&self) -> Damage {
        Damage {
            path: self.path.clone(),
            place: 0..self.octets,
            id: None,
        }
    }
}

/// The segments of a directory, by what their headers say.
#[derive(Default)]
struct Files {
    /// In the order of use.
    used: Vec<(SegmentFile, Header)>,
    free: Vec<(PathBuf, Header)>,
    /// Never used. Nobody knows whether their names are on stable storage: a sync that failed may have lost
    /// them, and one now would not tell.
    blank: Vec<PathBuf>,
    damaged: Vec<SegmentFile>,
    sequence_newest: u64,
    number_newest: u64,
}

impl Files {
    async fn read<D: Disk>(disk: &D, directory: &LogDirectory) -> Result<Files, RecoveryError> {
        let mut files = Files::default();
        for name in list(disk, directory.path()).await? {
            let Some(number) = LogDirectory::segment_number(&name) else {
                continue;
            };
            files.number_newest = files.number_newest.max(number);
            let path = directory.path().join(&name);
            let file = disk.open(&path, Access::Read).await;
            let file = file.map_err(DiskError::of("open", &path))?;
            let octets = file.len().await.map_err(DiskError::of("look at", &path))?;
            let sector = read_up_to(&file, Vec::new(), 0, HEADER_OCTETS).await;
            let sector = sector.map_err(DiskError::of("read", &path))?;
            match Header::decode(&sector) {
                Ok(header) => {
                    files.sequence_newest = files.sequence_newest.max(header.sequence);
                    match header.state {
                        State::Used => files.used.push((SegmentFile { path, octets }, header)),
                        State::Free => files.free.push((path, header)),
                    }
                }
                Err(NoHeader::Blank) => files.blank.push(path),
                Err(NoHeader::Damaged) => files.damaged.push(SegmentFile { path, octets }),
                Err(NoHeader::Version(version)) => {
                    return Err(RecoveryError::Version { path, version });
                }
            }
        }
        files
            .used
            .sort_unstable_by_key(|(_, header)| header.sequence);
        // In this order the newest is used again first.
        files.free.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(files)
    }
}

/// What the entries say, one after the other.
#[derive(Default)]
struct Found {
    segments: Vec<RecoveredSegment>,
    places: HashMap<QueueId, Place>,
    messages: HashMap<QueueId, Recovered>,
    newest: Option<QueueId>,
    newest_batch: Option<Unsure>,
}

/// Octets as they were read, which may not be on stable storage.
struct Unsure {
    path: PathBuf,
    offset: u64,
    octets: Vec<u8>,
}

impl Found {
    /// Reads the next segment, and gives back what is damaged in it.
    fn read_segment(
        &mut self,
        file: &SegmentFile,
        header: &Header,
        extent: Extent,
        octets: &[u8],
    ) -> Vec<Damaged> {
        let walk = walk(octets, header, extent);
        self.segments.push(RecoveredSegment {
            path: file.path.clone(),
            file_octets: file.octets,
            sequence: header.sequence,
            nonce: header.nonce,
            end: walk.end as u64,
            before: header.before,
            messages: Vec::new(),
            alive: 0,
            alive_octets: 0,
        });
        let newest_batch = walk.newest_batch();
        self.newest_batch = Some(Unsure {
            path: file.path.clone(),
            offset: newest_batch.start as u64,
            octets: octets.get(newest_batch).unwrap_or_default().to_vec(),
        });
        let mut damaged: Vec<Damaged> = walk
            .damaged
            .iter()
            .map(|place| file.damage(header, place, octets))
            .collect();
        for entry in &walk.entries {
            let data_octets = entry.data.len() as u64;
            match Record::decode(entry.record, data_octets, entry.data_crc) {
                Ok(record) => self.apply(record, entry, header.sequence),
                // Under a checksum that fits: of a release that did not raise the version.
                Err(_) => damaged.push(file.damage(header, &entry.place, octets)),
            }
        }
        damaged
    }

    fn apply(&mut self, record: Record, entry: &Entry<'_>, sequence: u64) {
        self.newest = self.newest.max(Some(record.id()));
        match record {
            Record::Message(accepted, data) => {
                let lies = Lies {
                    offset: entry.place.start as u64,
                    octets: entry.place.len() as u64,
                    data_offset: entry.data.start as u64,
                    data_octets: entry.data.len() as u64,
                    data_crc: entry.data_crc,
                };
                let id = accepted.id;
                // It moved here: the record of its progress came along.
                self.remove(id);
                let recipients = accepted.envelope.recipients.len();
                let place = Place {
                    sequence,
                    lies,
                    own_file: match data {
                        Data::Inline => None,
                        Data::OwnFile => Some(accepted.data_octets),
                    },
                    progress: None,
                };
                if let Some(segment) = self.segment(sequence) {
                    segment.messages.push(id);
                    segment.alive += 1;
                    segment.alive_octets += lies.octets;
                }
                self.places.insert(id, place);
                let progress = Progress::begin(recipients);
                self.messages.insert(id, Recovered { accepted, progress });
            }
            Record::Progress(id, progress) => {
                let (Some(place), Some(message)) =
                    (self.places.get_mut(&id), self.messages.get_mut(&id))
                else {
                    return;
                };
                if progress.recipients.len() != message.accepted.envelope.recipients.len() {
                    return;
                }
                let mut octets = Vec::new();
                record::push_progress(&mut octets, id, &progress);
                let before = place.octets();
                place.progress = Some(octets.into_boxed_slice());
                let (sequence, after) = (place.sequence, place.octets());
                message.progress = progress;
                if let Some(segment) = self.segment(sequence) {
                    segment.alive_octets = segment.alive_octets - before + after;
                }
            }
            Record::Done(id) => self.remove(id),
        }
    }

    fn remove(&mut self, id: QueueId) {
        self.messages.remove(&id);
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        if let Some(segment) = self.segment(place.sequence) {
            segment.alive -= 1;
            segment.alive_octets -= place.octets();
        }
    }

    fn segment(&mut self, sequence: u64) -> Option<&mut RecoveredSegment> {
        self.segments
            .iter_mut()
            .rfind(|segment| segment.sequence == sequence)
    }

    /// Takes out the messages whose own file is not what it was.
    fn take_lost(
        &mut self,
        directory: &LogDirectory,
        own_files: &BTreeMap<QueueId, u64>,
    ) -> Vec<Damaged> {
        let mut lost: Vec<QueueId> = self
            .places
            .iter()
            .filter(|(id, place)| {
                let there = own_files.get(id);
                place
                    .own_file
                    .is_some_and(|octets| there.is_none_or(|there| *there != octets))
            })
            .map(|(id, _)| *id)
            .collect();
        lost.sort_unstable();
        lost.into_iter()
            .map(|id| {
                self.remove(id);
                let there = own_files.get(&id).copied().unwrap_or(0);
                let damage = Damage {
                    path: directory.own_file(id),
                    place: 0..there,
                    id: Some(id),
                };
                Damaged {
                    damage,
                    name: id.to_string(),
                    octets: None,
                }
            })
            .collect()
    }
}

/// Has the directories of the log, on stable storage: one that is there may have been made by a process that
/// was killed before it synced the one above.
pub(super) async fn make_directories<D: Disk>(
    disk: &D,
    directory: &LogDirectory,
) -> Result<(), DiskError> {
    let large = directory.large();
    let path = directory.path();
    for path in path.parent().into_iter().chain([path, large.as_path()]) {
        let made = disk.make_directory(path).await;
        match &made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Ok(()) => {}
            Err(_) => return made.map_err(DiskError::of("make the directory", path)),
        }
        if let Some(parent) = path.parent() {
            let synced = disk.sync_directory(parent).await;
            if synced.is_err() && made.is_ok() {
                // A later sync would report success over its loss.
                let _ = disk.remove_directory(path).await;
            }
            synced.map_err(DiskError::of("sync", parent))?;
        }
    }
    // The names in them too: it may be all that the last process left to do.
    for path in [path, large.as_path()] {
        let synced = disk.sync_directory(path).await;
        synced.map_err(DiskError::of("sync", path))?;
    }
    Ok(())
}

async fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<std::ffi::OsString>, DiskError> {
    match disk.list(directory).await {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(DiskError::of("list", directory)(source)),
    }
}

/// The files of large messages, with their lengths.
async fn own_files<D: Disk>(
    disk: &D,
    directory: &LogDirectory,
) -> Result<BTreeMap<QueueId, u64>, DiskError> {
    let mut files = BTreeMap::new();
    for name in list(disk, &directory.large()).await? {
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let path = directory.own_file(id);
        let file = disk.open(&path, Access::Read).await;
        let file = file.map_err(DiskError::of("open", &path))?;
        let octets = file.len().await.map_err(DiskError::of("look at", &path))?;
        files.insert(id, octets);
    }
    Ok(files)
}

/// Puts what is damaged where nothing is written over it.
async fn put_aside<D: Disk>(
    disk: &D,
    directory: &LogDirectory,
    damaged: Vec<Damaged>,
    segments: &[SegmentFile],
) -> Result<(), DiskError> {
    if damaged.is_empty() && segments.is_empty() {
        return Ok(());
    }
    let aside = directory.damaged();
    match disk.make_directory(&aside).await {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(DiskError::of("make the directory", &aside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    for Damaged {
        damage,
        name,
        octets,
    } in damaged
    {
        let to = aside.join(name);
        match octets {
            Some(octets) => write_aside(disk, &to, octets).await?,
            None => match disk.rename(&damage.path, &to).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                moved => moved.map_err(DiskError::of("set aside", &damage.path))?,
            },
        }
    }
    let mut taken = list(disk, &aside).await?;
    for file in segments {
        // Numbers are given again; what lies there already is of another time.
        let name = (1..)
            .map(|time| format!("{}-{time}", file.name()).into())
            .find(|name| !taken.contains(name))
            .unwrap_or_default();
        let moved = disk.rename(&file.path, &aside.join(&name)).await;
        moved.map_err(DiskError::of("set aside", &file.path))?;
        taken.push(name);
    }
    Ok(())
}

async fn write_aside<D: Disk>(disk: &D, to: &Path, octets: Vec<u8>) -> Result<(), DiskError> {
    let file = match disk.create(to).await {
        // Set aside by the last start, and perhaps not to its end.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.open(to, Access::ReadWrite).await
        }
        other => other,
    };
    let file = file.map_err(DiskError::of("create", to))?;
    let (written, _) = write_all(&file, octets, 0, WriteSync::Yes).await;
    written.map_err(DiskError::of("write", to))
}

/// Writes again what this start relies on and the last process may have left in the page cache alone: it was
/// killed during the write, or its sync failed. A power cut later would take it back, when what it replaces is
/// gone.
async fn write_again<D: Disk>(
    disk: &D,
    files: &Files,
    newest_batch: Option<Unsure>,
) -> Result<(), DiskError> {
    let marks = files.free.iter().map(|(path, header)| Unsure {
        path: path.clone(),
        offset: 0,
        octets: header.encode(),
    });
    for unsure in marks.chain(newest_batch) {
        let path = unsure.path.as_path();
        let file = disk.open(path, Access::ReadWrite).await;
        let file = file.map_err(DiskError::of("open", path))?;
        let (written, _) = write_all(&file, unsure.octets, unsure.offset, WriteSync::Yes).await;
        written.map_err(DiskError::of("write again", path))?;
    }
    Ok(())
}

/// Removes the files that no entry names. Next to damage they are set aside: it may have been the entry. What was
/// set aside has its names on stable storage then.
async fn remove_left_over<D: Disk>(
    disk: &D,
    log: &RecoveredLog,
    own_files: &BTreeMap<QueueId, u64>,
) -> Result<(), DiskError> {
    let set_aside: HashSet<QueueId> = log.damages.iter().filter_map(|damage| damage.id).collect();
    for id in own_files.keys() {
        let named = log
            .places
            .get(id)
            .is_some_and(|place| place.own_file.is_some());
        if named || set_aside.contains(id) {
            continue;
        }
        let path = log.directory.own_file(*id);
        if log.damages.is_empty() {
            let removed = disk.remove(&path).await;
            removed.map_err(DiskError::of("remove", &path))?;
        } else {
            let to = log.directory.damaged().join(id.to_string());
            let moved = disk.rename(&path, &to).await;
            moved.map_err(DiskError::of("set aside", &path))?;
        }
    }
    if log.damages.is_empty() {
        return Ok(());
    }
    let directory = &log.directory;
    for path in [
        directory.damaged(),
        directory.large(),
        directory.path().to_path_buf(),
    ] {
        let synced = disk.sync_directory(&path).await;
        synced.map_err(DiskError::of("sync", &path))?;
    }
    Ok(())
}
