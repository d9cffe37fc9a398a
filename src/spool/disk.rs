//! What the spool asks of a disk, so that the same code runs on the ring and on a disk that crashes on request.
//!
//! The trait promises as little as the kernel does, and the spool is to rely on no more:
//! - A write is in the file at once and on stable storage after a sync, in any part and in any order before.
//! - A write may take less than it was given. So may a read.
//! - A write that failed may have written some of it, and a reserve that failed may have reserved some.
//! - What was made, renamed or removed in a directory is there after a crash once the directory was synced.
//! - Who drops a future before it is done does not learn whether it was done: a file may have been made, octets
//!   may be written yet. What was lent is freed when the disk is done with it.
//! - A sync that failed tells nothing about what lies on the disk, and the next one that succeeds does not
//!   either: the kernel marks pages clean after it reported their loss once. What was to be synced has to be
//!   written again, elsewhere. So too with the sync within a write, and there with older unsynced octets in
//!   the pages of 4096 that it wrote to.
//! - A future that is dropped takes its operation back only perhaps.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::Path;

// The ring's, for it may not know the spool.
pub use crate::ring::{Access, Slices, WriteSync};

pub mod on_ring;
#[cfg(test)]
pub(crate) mod simulated;

/// Directories and the files in them. A clone is the same disk.
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names in a directory, without `.` and `..`, in any order.
    fn list(&self, directory: &Path) -> impl Future<Output = io::Result<Vec<OsString>>>;

    /// Makes a directory for the owner alone (0700). `AlreadyExists` if there is one.
    fn make_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes an empty directory.
    fn remove_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>>;

    /// What was made, renamed and removed in this directory before the call is on stable storage afterwards:
    /// the names, not what is in the files. The directory's own name is its parent's.
    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes a file for the owner alone (0600) and opens it for reading and writing. `AlreadyExists` if there
    /// is one.
    fn create(&self, path: &Path) -> impl Future<Output = io::Result<Self::File>>;

    /// Opens a file for reading and, under [`Access::ReadWrite`], writing.
    fn open(&self, path: &Path, access: Access) -> impl Future<Output = io::Result<Self::File>>;

    /// Renames a file; one that is at `to` is replaced. After a crash it has the old name or the new one, unless
    /// the old one was not on stable storage either.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file. Those who have it open keep it.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
}

/// An open file. A clone is the same open file, which closes with the last one.
#[expect(
    clippy::len_without_is_empty,
    reason = "nobody asks a file whether it is empty"
)]
pub trait DiskFile: Clone + 'static {
    /// Octets up to its end.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;

    /// Whether somebody removed it: what is written goes with the process then.
    fn is_removed(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Has blocks for all octets up to `octets`, which becomes the file's length if it was less; what was not
    /// written reads as zeros (fallocate). Zero octets: `InvalidInput`. Neither blocks nor length are on stable
    /// storage before a sync.
    fn reserve(&self, octets: u64) -> impl Future<Output = io::Result<()>>;

    /// Writes some of `source`, without its first `skip` octets, at `offset`. Gives back how many octets were
    /// taken, at least one unless there are none. `source` is lent to the disk until then.
    ///
    /// Under [`WriteSync::Yes`] what was taken is on stable storage, with as much of the file's length as it
    /// takes to reach it (RWF_DSYNC). Nothing else is: not what an earlier write left unsynced beside it.
    fn write<S: Slices>(
        &self,
        source: S,
        skip: usize,
        offset: u64,
        sync: WriteSync,
    ) -> impl Future<Output = (io::Result<usize>, S)>;

    /// Appends to `into` what lies at `offset`, at most as many octets as its spare capacity. None: the end of
    /// the file, or there is no spare capacity.
    fn read(
        &self,
        into: Vec<u8>,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;

    /// What was written before the call is on stable storage afterwards, and the file's length then (fdatasync).
    /// The file's name is its directory's.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;
}

/// Writes all of `source` at `offset`. With [`WriteSync::Yes`] all of it is on stable storage afterwards, each
/// part by the write that took it.
pub async fn write_all<F: DiskFile, S: Slices>(
    file: &F,
    source: S,
    offset: u64,
    sync: WriteSync,
) -> (io::Result<()>, S) {
    let mut source = source;
    let octets: usize = source.slices().map(<[u8]>::len).sum();
    let mut written = 0;
    while written < octets {
        let at = offset.saturating_add(written as u64);
        let (outcome, back) = file.write(source, written, at, sync).await;
        source = back;
        match outcome {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), source),
            Ok(taken) => written = written.saturating_add(taken),
            Err(error) => return (Err(error), source),
        }
    }
    (Ok(()), source)
}

/// Appends `octets` octets from `offset` on to `into`; fewer if the file ends before.
pub async fn read_up_to<F: DiskFile>(
    file: &F,
    into: Vec<u8>,
    offset: u64,
    octets: usize,
) -> io::Result<Vec<u8>> {
    let begin = into.len();
    let mut into = into;
    into.reserve_exact(octets);
    loop {
        let have = into.len().saturating_sub(begin);
        if have >= octets {
            // There may have been more room than was asked for.
            into.truncate(begin + octets);
            return Ok(into);
        }
        let (outcome, back) = file.read(into, offset.saturating_add(have as u64)).await;
        into = back;
        if outcome? == 0 {
            return Ok(into);
        }
    }
}
