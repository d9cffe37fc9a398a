//! Files by way of the ring, so that no shard waits for a disk.
//!
//! Who drops a future gives up waiting for its operation, which goes on and may have succeeded.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::{opcode, squeue, types};

use super::descriptor::Descriptor;
use super::op;
use super::slices::{Lent, Slices};

/// A file or directory that is open on this ring. Cloning shares the descriptor, which closes with the last
/// share.
#[derive(Clone, Debug)]
pub struct File {
    descriptor: Descriptor,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Whether a write is a sync as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSync {
    /// Its octets are on stable storage when it is done.
    Yes,
    /// They are there some time, or after a sync.
    No,
}

impl File {
    /// Makes a new file of this mode for reading and writing; an existing one is `EEXIST`.
    pub async fn create_new(path: &Path, mode: u32) -> io::Result<File> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        open(path, flags, mode).await
    }

    /// Opens a file that is there; else `ENOENT`.
    pub async fn open(path: &Path, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => libc::O_RDONLY,
            Access::ReadWrite => libc::O_RDWR,
        };
        open(path, flags | libc::O_CLOEXEC, 0).await
    }

    /// Opens a directory, to sync it.
    pub async fn open_directory(path: &Path) -> io::Result<File> {
        open(
            path,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            0,
        )
        .await
    }

    /// Writes all of `octets` from `offset` on, and gives the vector back to be filled anew.
    pub async fn write_all_at(&self, octets: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
        let mut octets = octets;
        let mut written = 0;
        while written < octets.len() {
            let rest = octets.len() - written;
            // At most 1 GiB an operation: the kernel takes no more than 2 GiB at once.
            let length = u32::try_from(rest.min(1 << 30)).unwrap_or(0);
            // SAFETY: `written` is within the vector.
            let start = unsafe { octets.as_ptr().add(written) };
            let entry = opcode::Write::new(self.descriptor.target(), start, length)
                .offset(offset.saturating_add(written as u64))
                .build();
            // SAFETY: the pointer leads into the vector's heap memory; the operation owns it.
            let done = unsafe { op::submit((self.descriptor.clone(), octets), entry) }.await;
            octets = done.data.1;
            match done.result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => written += usize::try_from(count).unwrap_or(usize::MAX),
            }
        }
        Ok(octets)
    }

    /// Writes some of `source`, without its first `skip` octets, at `offset` (pwritev2(2)). Gives back how many
    /// octets were taken: fewer than there are if they are in more than 1024 slices, are more than 2 GiB, or the
    /// disk is full behind them.
    ///
    /// Under [`WriteSync::Yes`] what was taken is on stable storage, with the length of the file (`RWF_DSYNC`,
    /// Linux 4.7).
    pub async fn write_at<S: Slices>(
        &self,
        source: S,
        skip: usize,
        offset: u64,
        sync: WriteSync,
    ) -> (io::Result<usize>, S) {
        if let Err(error) = check_offset(offset) {
            return (Err(error), source);
        }
        let lent = Lent::new(source, skip);
        let list = lent.list();
        if list.is_empty() {
            return (Ok(0), lent.into_source());
        }
        let (rw_flags, how) = match sync {
            WriteSync::No => (0, squeue::Flags::empty()),
            // By a worker thread from the start. Where a file system takes a buffered write without one, the
            // kernel tries it while submitting, and nothing would keep it from waiting for the sync there.
            WriteSync::Yes => (libc::RWF_DSYNC, squeue::Flags::ASYNC),
        };
        let count = u32::try_from(list.len()).unwrap_or(0);
        let entry = opcode::Writev::new(self.descriptor.target(), list.as_ptr(), count)
            .offset(offset)
            .rw_flags(rw_flags)
            .build()
            .flags(how);
        // SAFETY: the list and what it leads to are heap memory of `lent`; the operation owns it and the
        // descriptor.
        let done = unsafe { op::submit((self.descriptor.clone(), lent), entry) }.await;
        (done.result.map(octets), done.data.1.into_source())
    }

    /// Appends to `into` what lies at `offset`, at most as many octets as its spare capacity (pread(2)). None:
    /// the end of the file, or there is no spare capacity.
    pub async fn read_at(&self, into: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        let mut into = into;
        if let Err(error) = check_offset(offset) {
            return (Err(error), into);
        }
        let spare = into.spare_capacity_mut();
        // At most 1 GiB, as in `write_all_at`.
        let length = u32::try_from(spare.len().min(1 << 30)).unwrap_or(0);
        let start = spare.as_mut_ptr().cast::<u8>();
        let entry = opcode::Read::new(self.descriptor.target(), start, length)
            .offset(offset)
            .build();
        // SAFETY: the pointer leads into the vector's heap memory; the operation owns it and the descriptor.
        let done = unsafe { op::submit((self.descriptor.clone(), into), entry) }.await;
        let mut into = done.data.1;
        let read = done.result.map(octets);
        if let Ok(read) = read {
            let filled = into.len().saturating_add(read);
            // SAFETY: the kernel has filled so many octets of the spare capacity, and not more than that.
            unsafe { into.set_len(filled) };
        }
        (read, into)
    }

    /// Has blocks for all octets up to `octets`, which becomes the file's length if it was less
    /// (fallocate(2)). What was not written reads as zeros.
    pub async fn reserve(&self, octets: u64) -> io::Result<()> {
        if octets == 0 {
            return Ok(()); // which the kernel refuses
        }
        let entry = opcode::Fallocate::new(self.descriptor.target(), octets).build();
        // SAFETY: no pointers; the operation owns a share of the descriptor.
        unsafe { op::submit(self.descriptor.clone(), entry) }
            .await
            .result
            .map(drop)
    }

    /// Octets up to the end.
    ///
    /// Not by way of the ring: a local file system answers from the inode, which is in memory while the file is
    /// open, whereas the ring has a worker thread do it, always.
    pub fn length(&self) -> io::Result<u64> {
        // SAFETY: `self` keeps the descriptor open over the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.descriptor.as_raw_fd()) };
        let status = rustix::fs::fstat(fd)?;
        u64::try_from(status.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Whether it has no name any more: its octets go with its last descriptor.
    pub fn is_removed(&self) -> io::Result<bool> {
        // SAFETY: `self` keeps the descriptor open over the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.descriptor.as_raw_fd()) };
        Ok(rustix::fs::fstat(fd)?.st_nlink == 0)
    }

    /// fdatasync(2): contents, and what it takes to read them, are on stable storage afterwards.
    pub async fn sync_data(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.descriptor.target())
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        // SAFETY: no pointers; the operation owns a share of the descriptor.
        unsafe { op::submit(self.descriptor.clone(), entry) }
            .await
            .result
            .map(drop)
    }

    /// fsync(2): contents and metadata are on stable storage afterwards.
    pub async fn sync(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.descriptor.target()).build();
        // SAFETY: no pointers; the operation owns a share of the descriptor.
        unsafe { op::submit(self.descriptor.clone(), entry) }
            .await
            .result
            .map(drop)
    }
}

/// rename(2): replaces what lies at `to`.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let entry = opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build();
    // SAFETY: both pointers lead into the strings' heap memory, which the operation owns.
    unsafe { op::submit((from, to), entry) }
        .await
        .result
        .map(drop)
}

/// mkdir(2).
pub async fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    let path = c_path(path)?;
    let entry = opcode::MkDirAt::new(HERE, path.as_ptr()).mode(mode).build();
    // SAFETY: the pointer leads into the string's heap memory, which the operation owns.
    unsafe { op::submit(path, entry) }.await.result.map(drop)
}

/// unlink(2).
pub async fn remove_file(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let entry = opcode::UnlinkAt::new(HERE, path.as_ptr()).build();
    // SAFETY: the pointer leads into the string's heap memory, which the operation owns.
    unsafe { op::submit(path, entry) }.await.result.map(drop)
}

/// rmdir(2).
pub async fn remove_directory(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let entry = opcode::UnlinkAt::new(HERE, path.as_ptr())
        .flags(libc::AT_REMOVEDIR)
        .build();
    // SAFETY: the pointer leads into the string's heap memory, which the operation owns.
    unsafe { op::submit(path, entry) }.await.result.map(drop)
}

async fn open(path: &Path, flags: i32, mode: u32) -> io::Result<File> {
    let path = c_path(path)?;
    let entry = opcode::OpenAt::new(HERE, path.as_ptr())
        .flags(flags)
        .mode(mode)
        .build();
    // SAFETY: the pointer leads into the string's heap memory, which the operation owns.
    let opening = unsafe { op::submit(path, entry) };
    // Awaited by a task, which is not dropped with this future: the descriptor is in the completion, and one
    // that nobody looks at would leave it open for good.
    let opened = tokio_uring::spawn(async move {
        let fd = opening.await.result?;
        let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel has just given us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(File {
            descriptor: Descriptor::new(fd),
        })
    });
    opened.await.map_err(io::Error::other)?
}

/// What a completion counts.
fn octets(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The ring takes an offset of -1 for the descriptor's own position, and one that is read from a broken disk
/// must not become that. The kernel refuses the others that are negative to it.
fn check_offset(offset: u64) -> io::Result<()> {
    i64::try_from(offset)
        .map(drop)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Paths are relative to the working directory, as everywhere.
const HERE: types::Fd = types::Fd(libc::AT_FDCWD);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::ring::{RingSettings, run};

    fn on_a_ring<T>(future: impl Future<Output = T>) -> T {
        run(
            RingSettings {
                entries: 8,
                sqpoll: false,
            },
            future,
        )
        .unwrap()
    }

    #[test]
    fn a_file_is_written_synced_and_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        let octets: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(300_000)
            .collect();
        on_a_ring(async {
            let file = File::create_new(&from, 0o600).await.unwrap();
            // The blocks behind first: an offset leads to where it says.
            let block = octets[100_000..].to_vec();
            let mut block = file.write_all_at(block, 100_000).await.unwrap();
            assert_eq!(block, octets[100_000..]);
            block.clear();
            block.extend_from_slice(&octets[..100_000]);
            file.write_all_at(block, 0).await.unwrap();
            file.sync().await.unwrap();
            rename(&from, &to).await.unwrap();
            File::open_directory(directory.path())
                .await
                .unwrap()
                .sync()
                .await
                .unwrap();
        });
        assert!(std::fs::read(&to).unwrap() == octets);
        assert_eq!(
            std::fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn refusals_come_with_their_errno() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().join("there");
        on_a_ring(async {
            create_directory(&there, 0o700).await.unwrap();
            let again = create_directory(&there, 0o700).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            let gone = remove_file(&directory.path().join("gone"))
                .await
                .unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
            let file = File::create_new(&there.join("f"), 0o600).await.unwrap();
            file.write_all_at(Vec::new(), 0).await.unwrap();
            let twice = File::create_new(&there.join("f"), 0o600)
                .await
                .err()
                .unwrap();
            assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
        });
        assert!(there.join("f").exists());
    }

    #[test]
    fn an_opening_that_nobody_waits_for_leaves_no_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let is_open = || {
            std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                .any(|target| target == directory.path())
        };
        on_a_ring(async {
            for _ in 0..100 {
                let mut opening = Box::pin(File::open_directory(directory.path()));
                std::future::poll_fn(|cx| {
                    assert!(opening.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            while op::in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!is_open());
            let _open = File::open_directory(directory.path()).await.unwrap();
            assert!(is_open(), "or this test sees nothing");
        });
    }
}
