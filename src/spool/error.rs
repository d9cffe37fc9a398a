//! What can go wrong with the spool.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was tried on which path, and the errno.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub struct DiskError {
    what: &'static str,
    path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl DiskError {
    /// What was tried on which path; to be given what the kernel said.
    pub fn of<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> DiskError + 'p {
        move |source| DiskError {
            what,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether something has run out that may be there again later.
    pub fn is_exhaustion(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::OutOfMemory
        ) || matches!(
            self.source.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE)
        )
    }
}

/// Why a message did not become durable. Every variant is answered with a 4yz reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The spool has as many octets as it may.
    #[error("the spool is full (--spool-max-bytes)")]
    Full,
    /// The queue has as many messages as it may.
    #[error("the queue is full (--queue-max-messages)")]
    QueueFull,
    /// The envelope alone is larger than a segment.
    #[error("the envelope does not fit into a segment")]
    EnvelopeTooLarge,
    /// The disk refused. Shared by all messages of a batch.
    #[error(transparent)]
    Disk(Arc<DiskError>),
    /// The server goes down.
    #[error("the spool is closed")]
    Closed,
}

impl From<DiskError> for CommitError {
    fn from(error: DiskError) -> CommitError {
        CommitError::Disk(Arc::new(error))
    }
}

impl CommitError {
    /// Whether something has run out that may be there again later.
    pub fn is_exhaustion(&self) -> bool {
        match self {
            CommitError::Full | CommitError::QueueFull | CommitError::EnvelopeTooLarge => true,
            CommitError::Disk(error) => error.is_exhaustion(),
            CommitError::Closed => false,
        }
    }
}

/// Why the data of a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is done, or was never there.
    #[error("no such message in the spool")]
    Gone,
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What lies there is not what was written.
    #[error("the message is damaged on disk: {}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}
