//! Keeps what was accepted through a power cut.
//!
//! ```text
//!  smtp: end of data ──▶ append ─┐
//!  smtp: end of data ──▶ append ─┼─▶ batch ──▶ one write, one sync ──▶ 250 to all of them
//!  deliver: done, progress ──────┘      │
//!                                       ▼
//!              spool/shard-N/segment-000001   [header│a│b│c│done a│d│…]     recycled when all is done
//!                            large/06hq…      a message that is too large for memory, written as it comes
//! ```
//!
//! What 250 to the end of data means: the message, its envelope and its name were handed to the disk, and the disk
//! said that it has them on stable storage. It survives the end of the process and the loss of power, as far as
//! the disk keeps what it acknowledged; where it did not, recovery says so ([`Damage`]).
//!
//! | file | has |
//! |---|---|
//! | `log` | the log of a shard: group commit (`writer`), what lies where (`books`), what waits for nobody (`housekeeper`) |
//! | `batch` | one write put together and taken apart |
//! | `segment` | a segment's header, and **the table of what may lie in a segment** with the walk that mirrors it |
//! | `recovery` | **the table of what may lie in a log's directory**, and the code that mirrors it |
//! | `entry` | the frame of an entry: lengths, checksums, nonce |
//! | `record` | what entries say |
//! | `own_file` | the file of one large message |
//! | `reader` | a message's data, read back |
//! | [`disk`] | what is asked of a disk: the ring, and in tests one that crashes and fails by seed |
//!
//! It knows no session, and not where mail goes.

mod batch;
mod codec;
pub mod disk;
mod entry;
mod error;
mod layout;
mod log;
mod meters;
mod own_file;
mod queue_id;
mod reader;
mod record;
mod recovery;
mod segment;
mod space;
#[cfg(test)]
mod tests;

pub use error::{CommitError, DiskError, ReadError};
pub use layout::{LogDirectory, spool_directory};
pub use log::{Log, LogSettings};
pub use meters::{Meter, Meters};
pub use own_file::OwnFile;
pub use queue_id::{NotAQueueId, QueueId, QueueIds};
pub use reader::Reader;
pub use record::{Accepted, Fate, Held, Progress};
pub use recovery::{Damage, Purpose, Recovered, RecoveredLog, RecoveryError, recover};
pub use space::{Space, SpaceSpent};
