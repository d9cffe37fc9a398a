//! The names in a spool's directory.
//!
//! ```text
//! spool/shard-0/segment-000001      a segment of the log, recycled
//!               large/06hq…         the data of one large message
//!               damaged/…           what recovery could not make sense of, for a person to look at
//! ```

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::queue_id::QueueId;

/// The directory of the spool, below the data directory.
pub fn spool_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

/// The directory of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirectory(PathBuf);

impl LogDirectory {
    /// That of a shard, below the directory of the spool.
    pub fn of_shard(spool: &Path, shard: usize) -> LogDirectory {
        LogDirectory(spool.join(format!("{SHARD}{shard}")))
    }

    /// The shard that a directory below that of the spool belongs to.
    pub fn shard_of(name: &OsStr) -> Option<usize> {
        let number = name.to_str()?.strip_prefix(SHARD)?;
        let shard: usize = number.parse().ok()?;
        // One spelling a shard.
        (shard.to_string() == number).then_some(shard)
    }

    /// This directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{SEGMENT}{number:06}"))
    }

    pub(super) fn segment_number(name: &OsStr) -> Option<u64> {
        name.to_str()?.strip_prefix(SEGMENT)?.parse().ok()
    }

    pub(super) fn large(&self) -> PathBuf {
        self.0.join("large")
    }

    pub(super) fn own_file(&self, id: QueueId) -> PathBuf {
        self.large().join(id.to_string())
    }

    pub(super) fn damaged(&self) -> PathBuf {
        self.0.join("damaged")
    }
}

const SHARD: &str = "shard-";
const SEGMENT: &str = "segment-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        let directory = LogDirectory::of_shard(Path::new("/data/spool"), 12);
        assert_eq!(directory.path(), Path::new("/data/spool/shard-12"));
        let shard_of = |name: &str| LogDirectory::shard_of(OsStr::new(name));
        assert_eq!(shard_of("shard-12"), Some(12));
        for name in ["shard-", "shard-012", "shard-x", "shard--1", "large", "12"] {
            assert_eq!(shard_of(name), None, "{name}");
        }
        for number in [1, 999_999, 1_000_000] {
            let path = directory.segment(number);
            let name = path.file_name().unwrap();
            assert_eq!(LogDirectory::segment_number(name), Some(number));
        }
    }
}
