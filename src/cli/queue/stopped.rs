//! The queue of a stopped server, read from its directory.
//!
//! Takes no lock: a server that starts at that moment would be refused by it.

use std::fs;
use std::io;
use std::path::Path;

use crate::cli::Failed;
use crate::ring::{self, RingSettings};
use crate::spool::disk::on_ring::OnRing;
use crate::spool::{
    self, Damage, LogDirectory, Purpose, QueueId, Recovered, RecoveryError, spool_directory,
};

/// What the logs of all shards hold.
pub(super) struct Stopped {
    /// In the order of their ids.
    pub(super) messages: Vec<Recovered>,
    pub(super) damages: Vec<Damage>,
}

impl Stopped {
    pub(super) fn find(&self, id: QueueId) -> Option<&Recovered> {
        let place = self
            .messages
            .binary_search_by_key(&id, |message| message.accepted.id);
        place.ok().and_then(|place| self.messages.get(place))
    }
}

/// Reads the logs of a data directory and changes nothing.
pub(super) fn read(data_dir: &Path) -> Result<Stopped, Failed> {
    let directories = log_directories(data_dir)?;
    let mut stopped = Stopped {
        messages: Vec::new(),
        damages: Vec::new(),
    };
    if directories.is_empty() {
        return Ok(stopped);
    }
    let reading = async {
        for directory in directories {
            let log = spool::recover(&OnRing, directory, Purpose::Look).await?;
            stopped.messages.extend(log.messages);
            stopped.damages.extend(log.damages);
        }
        Ok::<_, RecoveryError>(())
    };
    ring::run(RING, reading)
        .map_err(Failed::because)?
        .map_err(|error| Failed::because(told(&error)))?;
    // Each log comes sorted: what there is to do is a merge, and the standard library's sort finds such runs.
    stopped.messages.sort_by_key(|message| message.accepted.id);
    Ok(stopped)
}

fn log_directories(data_dir: &Path) -> Result<Vec<LogDirectory>, Failed> {
    let unreadable = |path: &Path, error: io::Error| {
        Failed::because(format!(
            "--data-dir: cannot read {}: {error}",
            path.display()
        ))
    };
    fs::read_dir(data_dir).map_err(|error| unreadable(data_dir, error))?;
    let spool = spool_directory(data_dir);
    let names = match fs::read_dir(&spool) {
        Ok(names) => names,
        // A server that never ran.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&spool, error)),
    };
    let mut directories = Vec::new();
    for name in names {
        let name = name.map_err(|error| unreadable(&spool, error))?.file_name();
        if let Some(shard) = LogDirectory::shard_of(&name) {
            directories.push(LogDirectory::of_shard(&spool, shard));
        }
    }
    Ok(directories)
}

fn told(error: &RecoveryError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        source = error.source();
    }
    text
}

/// For one operation after the other.
const RING: RingSettings = RingSettings {
    entries: 8,
    sqpoll: false,
};
