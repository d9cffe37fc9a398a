//! control

pub mod log;
pub mod metrics;
pub mod privileges;
mod time;

use crate::config::Config;
use crate::config::loaded::Loaded;

/// Why the server did not start, or ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing runs sessions yet.
    #[error("serve is not wired up yet")]
    NotWired,
}

/// Runs the server until it is told to stop.
pub fn run(_config: Config, _loaded: Loaded) -> Result<(), ServeError> {
    Err(ServeError::NotWired)
}
