//! A message on its way out: what stands before its data, and the data, from memory or from the spool.

use std::borrow::Cow;
use std::rc::Rc;

use crate::smtp::data::MailData;
use crate::spool::disk::on_ring::{FileOnRing, OnRing};
use crate::spool::{Accepted, Log, ReadError, Reader};

/// Where a message is to be had. A clone is the same message.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) accepted: Accepted,
    /// Its data, if memory holds them.
    pub(super) data: Option<Rc<MailData>>,
    /// Where they are read otherwise.
    pub(super) log: Option<Log<OnRing>>,
}

impl Source {
    /// Octets of the message as it is passed on: the data behind our Received field.
    pub(super) fn octets(&self) -> u64 {
        let received = u64::try_from(self.accepted.received.len()).unwrap_or(u64::MAX);
        received.saturating_add(self.accepted.data_octets)
    }

    /// The data, from their begin.
    pub(super) async fn content(&self) -> Result<Content<'_>, ReadError> {
        match (&self.data, &self.log) {
            (Some(data), _) => Ok(Content::of(data)),
            (None, Some(log)) => Ok(Content::Spool(Box::new(log.read(&self.accepted).await?))),
            (None, None) => Err(ReadError::Gone),
        }
    }
}

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
