//! Reads the data of a message back, block by block, and its checksum with it.

use std::path::PathBuf;
use std::rc::Rc;

use super::disk::{DiskFile, read_up_to};
use super::error::{DiskError, ReadError};

/// The data of one message on disk. While it is there, the segment is not recycled.
pub struct Reader<F> {
    path: PathBuf,
    file: F,
    _in_use: Option<Rc<()>>,
    offset: u64,
    left: u64,
    crc: u32,
    crc_expected: u32,
}

impl<F: DiskFile> Reader<F> {
    pub(super) fn new(
        path: PathBuf,
        file: F,
        in_use: Option<Rc<()>>,
        offset: u64,
        octets: u64,
        crc_expected: u32,
    ) -> Reader<F> {
        Reader {
            path,
            file,
            _in_use: in_use,
            offset,
            left: octets,
            crc: 0,
            crc_expected,
        }
    }

    /// The next octets, at most `octets_max`; none: that was all, and the checksum fits.
    ///
    /// The last block is given out only if it does.
    pub async fn next(&mut self, octets_max: usize) -> Result<Option<Vec<u8>>, ReadError> {
        if self.left == 0 {
            return Ok(None);
        }
        let octets = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(octets_max);
        let block = Vec::with_capacity(octets);
        let block = read_up_to(&self.file, block, self.offset, octets)
            .await
            .map_err(DiskError::of("read", &self.path))?;
        let read = block.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &block);
        self.offset += read;
        self.left = self.left.saturating_sub(read);
        if block.len() < octets || (self.left == 0 && self.crc != self.crc_expected) {
            return Err(ReadError::Damaged {
                path: self.path.clone(),
            });
        }
        Ok(Some(block))
    }
}
