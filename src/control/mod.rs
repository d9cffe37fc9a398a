//! The control thread: what a running server is watched and steered by.
//!
//! It runs on an ordinary tokio runtime of one thread, apart from the shards, and touches no
//! session. It owns:
//! - [`metrics`]: counters that shards write and a scrape adds up;
//! - [`http`]: `/metrics`, `/healthz`, `/readyz`, with [`readiness`] behind the last;
//! - [`log`]: from events to lines on standard error; [`events`]: the lines of sessions and
//!   transactions, and the names of their fields;
//! - [`signals`]: drain, stop, reload; [`socket`]: what `ringpost queue` asks of the shards;
//! - [`lock`]: one server a data directory; [`privileges`]: who the process is, how many
//!   descriptors it has.
//!
//! It must never know how a message is taken or put away: shards tell it what happened, and it
//! tells them to drain or to look at new files.

pub mod events;
pub mod http;
pub mod listeners;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod privileges;
pub mod readiness;
mod sending;
pub mod server;
pub mod signals;
pub mod socket;
pub mod spool;
mod time;
