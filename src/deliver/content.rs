//! The data of a message on its way out: from memory, or from the spool.

use std::borrow::Cow;

use crate::smtp::data::MailData;
use crate::spool::disk::on_ring::FileOnRing;
use crate::spool::{ReadError, Reader};

/// Gives the data of a message, part by part, once.
pub enum Content<'m> {
    /// As it came in.
    Memory(Box<dyn Iterator<Item = &'m [u8]> + 'm>),
    /// From the spool.
    Spool(Box<Reader<FileOnRing>>),
}

impl<'m> Content<'m> {
    /// What is in memory.
    pub fn of(data: &'m MailData) -> Content<'m> {
        Content::Memory(Box::new(data.slices()))
    }

    /// The next part; none is empty.
    pub async fn next(&mut self) -> Result<Option<Cow<'m, [u8]>>, ReadError> {
        match self {
            Content::Memory(slices) => Ok(slices.next().map(Cow::Borrowed)),
            Content::Spool(reader) => Ok(reader.next(PART_OCTETS_MAX).await?.map(Cow::Owned)),
        }
    }
}

/// Read at once from the spool: about what a delivery has in memory beside.
const PART_OCTETS_MAX: usize = 256 * 1024;
