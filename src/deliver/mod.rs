//! Where accepted mail goes: the queue, attempts, targets, and a Maildir a recipient.
//!
//! Knows messages, the spool and files. It knows no session: what it tells one is that its message is safe.

mod attempt;
mod content;
pub mod dns;
mod events;
pub mod maildir;
pub mod queue;
pub mod report;
mod schedule;
mod settings;
pub mod target;
pub mod verdict;

pub use content::Content;
pub use queue::{Queue, QueueMeters, QueuePlan, Stored};
pub use schedule::RetrySchedule;
pub use settings::{DeliverySettings, Durability, Routes};
