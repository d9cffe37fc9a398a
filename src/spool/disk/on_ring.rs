//! The disk of this machine, by way of the ring of this thread.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::{Access, Disk, DiskFile, Slices, WriteSync};
use crate::ring::{self, File};

/// Directories and files of the kernel's.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnRing;

impl Disk for OnRing {
    type File = FileOnRing;

    /// Waits for the disk, for the ring has no operation that reads a directory. So it is for the start and for
    /// commands, and not for when mail flows.
    async fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    async fn make_directory(&self, directory: &Path) -> io::Result<()> {
        ring::create_directory(directory, DIRECTORY_MODE).await
    }

    async fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        ring::remove_directory(directory).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open_directory(directory).await?.sync().await
    }

    async fn create(&self, path: &Path) -> io::Result<FileOnRing> {
        File::create_new(path, FILE_MODE).await.map(FileOnRing)
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<FileOnRing> {
        File::open(path, access).await.map(FileOnRing)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        ring::rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        ring::remove_file(path).await
    }
}

/// An open file of [`OnRing`].
// Not `ring::File` itself, whose `sync` is fsync.
#[derive(Clone, Debug)]
pub struct FileOnRing(File);

impl DiskFile for FileOnRing {
    async fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.0.is_removed()
    }

    async fn reserve(&self, octets: u64) -> io::Result<()> {
        self.0.reserve(octets).await
    }

    async fn write<S: Slices>(
        &self,
        source: S,
        skip: usize,
        offset: u64,
        sync: WriteSync,
    ) -> (io::Result<usize>, S) {
        self.0.write_at(source, skip, offset, sync).await
    }

    async fn read(&self, into: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        self.0.read_at(into, offset).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync_data().await
    }
}

/// Mail is its owner's alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;
    use crate::ring::RingSettings;
    use crate::spool::disk::{read_up_to, write_all};

    fn on_a_ring<T>(future: impl Future<Output = T>) -> T {
        let settings = RingSettings {
            entries: 8,
            sqpoll: false,
        };
        ring::run(settings, future).unwrap()
    }

    /// A directory that goes with the first value, and a path in it.
    fn a_path(name: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        (directory, path)
    }

    /// Octets that differ from their neighbours, so that a shift shows.
    fn octets(count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| fastrand::u8(..))
            .take(count)
            .collect()
    }

    /// Says when it goes.
    struct Pieces {
        pieces: Vec<Vec<u8>>,
        gone: Rc<Cell<bool>>,
    }

    impl Pieces {
        fn new(pieces: Vec<Vec<u8>>) -> Pieces {
            Pieces {
                pieces,
                gone: Rc::default(),
            }
        }
    }

    impl Slices for Pieces {
        fn slices(&self) -> impl Iterator<Item = &[u8]> {
            self.pieces.iter().map(Vec::as_slice)
        }
    }

    impl Drop for Pieces {
        fn drop(&mut self) {
            self.gone.set(true);
        }
    }

    /// Octets in the value itself and not behind a pointer.
    struct Inline([u8; 64]);

    impl Slices for Inline {
        fn slices(&self) -> impl Iterator<Item = &[u8]> {
            self.0.chunks(7)
        }
    }

    #[test]
    fn a_directory_is_made_filled_listed_emptied_and_removed() {
        let (_keep, directory) = a_path("spool");
        let (a, b) = (directory.join("a"), directory.join("b"));
        on_a_ring(async {
            OnRing.make_directory(&directory).await.unwrap();
            assert!(OnRing.list(&directory).await.unwrap().is_empty());
            OnRing.create(&a).await.unwrap();
            OnRing.create(&b).await.unwrap();
            OnRing.sync_directory(&directory).await.unwrap();
            let mut names = OnRing.list(&directory).await.unwrap();
            names.sort();
            assert_eq!(names, ["a", "b"]);
            OnRing.rename(&a, &b).await.unwrap();
            assert_eq!(OnRing.list(&directory).await.unwrap(), ["b"]);
            OnRing.remove(&b).await.unwrap();
            OnRing.remove_directory(&directory).await.unwrap();
        });
        assert!(!directory.exists());
    }

    #[test]
    fn what_is_made_is_for_the_owner_alone() {
        let (_keep, directory) = a_path("spool");
        let path = directory.join("a");
        on_a_ring(async {
            OnRing.make_directory(&directory).await.unwrap();
            OnRing.create(&path).await.unwrap();
        });
        for (path, expected) in [(&directory, 0o700), (&path, 0o600)] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected);
        }
    }

    #[test]
    fn a_file_that_replaced_another_is_the_one_that_was_renamed() {
        let (keep, from) = a_path("from");
        let to = keep.path().join("to");
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        on_a_ring(async {
            let old = OnRing.open(&to, Access::Read).await.unwrap();
            OnRing.rename(&from, &to).await.unwrap();
            let read = read_up_to(&old, Vec::new(), 0, 9).await.unwrap();
            assert_eq!(read, b"old", "who has it open keeps it");
        });
        assert_eq!(fs::read(&to).unwrap(), b"new");
    }

    #[test]
    fn a_new_file_is_read_and_written_through_every_clone() {
        let (_keep, path) = a_path("a");
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            let clone = file.clone();
            let (outcome, _) = write_all(&file, b"0123".to_vec(), 0, WriteSync::No).await;
            outcome.unwrap();
            drop(file);
            assert_eq!(clone.len().await.unwrap(), 4);
            let (read, into) = clone.read(Vec::with_capacity(9), 1).await;
            assert_eq!(read.unwrap(), 3);
            assert_eq!(into, b"123");
            clone.sync().await.unwrap();
        });
    }

    #[test]
    fn three_thousand_slices_of_any_size_are_read_back_equal() {
        let (_keep, path) = a_path("a");
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            for (offset, sync) in [
                (0, WriteSync::No),
                (1, WriteSync::Yes),
                (4_097, WriteSync::No),
                (1_000_003, WriteSync::Yes),
            ] {
                let pieces: Vec<Vec<u8>> = (0..3000)
                    .map(|_| match fastrand::u8(..4) {
                        0 => Vec::new(),
                        1 => octets(fastrand::usize(..5000)),
                        _ => octets(fastrand::usize(..40)),
                    })
                    .collect();
                let expected = pieces.concat();
                let (outcome, back) = write_all(&file, Pieces::new(pieces), offset, sync).await;
                outcome.unwrap();
                assert!(back.pieces.concat() == expected);
                let read = read_up_to(&file, Vec::new(), offset, expected.len()).await;
                assert!(read.unwrap() == expected, "{offset} {sync:?}");
            }
        });
    }

    #[test]
    fn a_write_begins_behind_what_is_skipped_and_says_what_it_took() {
        let (_keep, path) = a_path("a");
        let pieces = |pieces: &[&str]| {
            Pieces::new(
                pieces
                    .iter()
                    .map(|piece| piece.as_bytes().to_vec())
                    .collect(),
            )
        };
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            for (skip, taken) in [(0, 6), (1, 5), (3, 3), (5, 1), (6, 0), (7, 0)] {
                let source = pieces(&["ab", "", "c", "def"]);
                let (outcome, _) = file.write(source, skip, 0, WriteSync::Yes).await;
                assert_eq!(outcome.unwrap(), taken, "{skip}");
            }
            let source = Pieces::new(vec![b"x".to_vec(); 1500]);
            let (outcome, _) = file.write(source, 0, 0, WriteSync::No).await;
            assert_eq!(outcome.unwrap(), 1024, "IOV_MAX");
        });
        assert_eq!(fs::read(&path).unwrap(), [b'x'; 1024]);
    }

    #[test]
    fn octets_in_the_value_itself_are_written_too() {
        let (_keep, path) = a_path("a");
        let mut inline = Inline([0; 64]);
        inline.0.copy_from_slice(&octets(64));
        let expected = inline.0;
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            // Each time the value moves somewhere else.
            let (outcome, back) = write_all(&file, inline, 0, WriteSync::No).await;
            outcome.unwrap();
            let (outcome, _) = Box::pin(write_all(&file, back, 64, WriteSync::Yes)).await;
            outcome.unwrap();
        });
        assert_eq!(fs::read(&path).unwrap(), [expected, expected].concat());
    }

    #[test]
    fn reads_stop_at_the_end_and_at_what_there_is_room_for() {
        let (_keep, path) = a_path("a");
        fs::write(&path, "0123456789").unwrap();
        on_a_ring(async {
            let file = OnRing.open(&path, Access::Read).await.unwrap();
            for (name, offset, room, expected) in [
                ("all", 0, 64, "0123456789"),
                ("a part", 3, 2, "34"),
                ("over the end", 8, 64, "89"),
                ("at the end", 10, 64, ""),
                ("beyond the end", 11, 64, ""),
                ("far beyond", 1 << 40, 64, ""),
                ("no room", 0, 0, ""),
            ] {
                let mut into = Vec::with_capacity(2 + room);
                into.extend_from_slice(b">>");
                // The allocator may give more than was asked for.
                let room = into.capacity() - 2;
                let (outcome, into) = file.read(into, offset).await;
                assert_eq!(outcome.unwrap(), expected.len().min(room), "{name}");
                assert_eq!(into, [">>", expected].concat().as_bytes(), "{name}");

                let into = read_up_to(&file, b">>".to_vec(), offset, room).await;
                assert_eq!(
                    into.unwrap(),
                    [">>", expected].concat().as_bytes(),
                    "{name}"
                );
            }
        });
    }

    #[test]
    fn an_offset_that_is_no_offset_is_refused() {
        let (_keep, path) = a_path("a");
        fs::write(&path, "0123").unwrap();
        on_a_ring(async {
            let file = OnRing.open(&path, Access::ReadWrite).await.unwrap();
            // The first is "where the descriptor stands" to the ring.
            for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
                let (outcome, into) = file.read(Vec::with_capacity(9), offset).await;
                assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EINVAL));
                assert!(into.is_empty());
                let (outcome, _) = file.write(b"x".to_vec(), 0, offset, WriteSync::No).await;
                assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EINVAL));
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"0123");
    }

    #[test]
    fn reserving_makes_the_length_and_never_shrinks() {
        let (_keep, path) = a_path("a");
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            for (reserved, length) in [(0, 0), (100_000, 100_000), (5, 100_000), (0, 100_000)] {
                file.reserve(reserved).await.unwrap();
                assert_eq!(file.len().await.unwrap(), length);
            }
            let (outcome, _) = write_all(&file, b"abc".to_vec(), 50_000, WriteSync::Yes).await;
            outcome.unwrap();
            file.reserve(200_000).await.unwrap();
            let read = read_up_to(&file, Vec::new(), 0, 1 << 20).await.unwrap();
            let mut expected = vec![0; 200_000];
            expected[50_000..50_003].copy_from_slice(b"abc");
            assert!(read == expected);
        });
    }

    #[test]
    fn refusals_come_with_their_errno() {
        let (keep, path) = a_path("a");
        let (directory, missing) = (keep.path(), keep.path().join("missing"));
        fs::write(&path, "0123").unwrap();
        let errno = |outcome: io::Result<()>| outcome.unwrap_err().raw_os_error().unwrap();
        on_a_ring(async {
            let read_only = OnRing.open(&path, Access::Read).await.unwrap();
            let full = OnRing.open(Path::new("/dev/full"), Access::ReadWrite);
            let full = full.await.unwrap();
            let octets = b"abc".to_vec();
            for (name, outcome, expected) in [
                ("make", OnRing.make_directory(directory).await, libc::EEXIST),
                ("create", OnRing.create(&path).await.map(drop), libc::EEXIST),
                (
                    "open",
                    OnRing.open(&missing, Access::Read).await.map(drop),
                    libc::ENOENT,
                ),
                (
                    "open to write",
                    OnRing.open(&missing, Access::ReadWrite).await.map(drop),
                    libc::ENOENT,
                ),
                ("list", OnRing.list(&missing).await.map(drop), libc::ENOENT),
                ("sync", OnRing.sync_directory(&missing).await, libc::ENOENT),
                (
                    "sync a file",
                    OnRing.sync_directory(&path).await,
                    libc::ENOTDIR,
                ),
                ("rename", OnRing.rename(&missing, &path).await, libc::ENOENT),
                ("remove", OnRing.remove(&missing).await, libc::ENOENT),
                (
                    "remove a directory",
                    OnRing.remove(directory).await,
                    libc::EISDIR,
                ),
                (
                    "remove no directory",
                    OnRing.remove_directory(&missing).await,
                    libc::ENOENT,
                ),
                (
                    "remove a file as a directory",
                    OnRing.remove_directory(&path).await,
                    libc::ENOTDIR,
                ),
                (
                    "remove a directory with a file",
                    OnRing.remove_directory(directory).await,
                    libc::ENOTEMPTY,
                ),
                (
                    "a path with a NUL",
                    OnRing
                        .remove(Path::new("a\0b"))
                        .await
                        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)),
                    libc::EINVAL,
                ),
                (
                    "write what is open for reading",
                    write_all(&read_only, octets.clone(), 0, WriteSync::No)
                        .await
                        .0,
                    libc::EBADF,
                ),
                (
                    "write to a full disk",
                    write_all(&full, octets.clone(), 0, WriteSync::No).await.0,
                    libc::ENOSPC,
                ),
                (
                    "write to a full disk and sync",
                    write_all(&full, octets.clone(), 0, WriteSync::Yes).await.0,
                    libc::ENOSPC,
                ),
                (
                    "reserve more than there can be",
                    OnRing
                        .open(&path, Access::ReadWrite)
                        .await
                        .unwrap()
                        .reserve(1 << 62)
                        .await,
                    libc::EFBIG,
                ),
            ] {
                assert_eq!(errno(outcome), expected, "{name}");
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"0123");
    }

    #[test]
    fn a_write_that_nobody_waits_for_keeps_its_memory_and_arrives() {
        let (_keep, path) = a_path("a");
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            for (round, sync) in [(0, WriteSync::No), (1, WriteSync::Yes)] {
                let source = Pieces::new(vec![vec![b'a' + round; 4096]; 1000]);
                let gone = Rc::clone(&source.gone);
                {
                    let mut write = pin!(file.write(source, 0, 0, sync));
                    let submitted = std::future::poll_fn(|cx| {
                        Poll::Ready(write.as_mut().poll(cx).is_pending())
                    });
                    assert!(submitted.await, "it is in flight");
                }
                assert!(!gone.get(), "the kernel has it");
                while !gone.get() {
                    tokio::task::yield_now().await;
                    // Lets the ring submit and reap.
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                let read = read_up_to(&file, Vec::new(), 0, 1 << 23).await.unwrap();
                assert!(read == vec![b'a' + round; 4_096_000], "{sync:?}");
            }
        });
    }

    #[test]
    fn a_write_may_be_in_flight_when_the_ring_ends() {
        let (_keep, path) = a_path("a");
        let source = Pieces::new(vec![vec![b'a'; 4096]; 1000]);
        let gone = Rc::clone(&source.gone);
        on_a_ring(async {
            let file = OnRing.create(&path).await.unwrap();
            let mut write = pin!(file.write(source, 0, 0, WriteSync::Yes));
            std::future::poll_fn(|cx| {
                assert!(write.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        });
        assert!(!gone.get(), "it is the kernel's for good");
    }
}
