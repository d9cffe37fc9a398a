//! Where accepted mail goes: the queue, attempts, targets, a Maildir a recipient, and next hops.
//!
//! ```text
//!  accept ─▶ queue ─▶ attempt ─┬─▶ maildir
//!               ▲              └─▶ hops ─▶ dns ─▶ connections ─▶ smtp::client
//!               │                    │
//!               └── report ◀── verdicts, recipient by recipient
//! ```
//!
//! Knows messages, the spool, files and next hops. It knows no session of ours with a sender: what it tells one is that its
//! message is safe, or under `--durability next-hop` that the next hop will never take it.

mod attempt;
mod content;
mod destination;
pub mod dns;
mod ending;
mod events;
mod hops;
pub mod maildir;
pub mod queue;
pub mod report;
mod schedule;
mod settings;
pub mod slots;
pub mod target;
pub mod verdict;

pub use content::Content;
pub use hops::{HopMeters, HopsError, HopsPlan};
pub use queue::{AcceptError, OpenError, Queue, QueueMeters, QueuePlan, Stored};
pub use schedule::RetrySchedule;
pub use settings::{DeliverySettings, Durability, Login, OutTls, Routes, Sending};
