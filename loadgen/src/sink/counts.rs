//! What a sink counts.
//!
//! Invariants:
//! - Whatever a peer has read the reply to is counted already.
//! - Each thread writes cells of its own; only a reader adds them up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::stage::{ByStage, Stage};

/// A number that one thread counts up and others read.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The cells of one thread.
#[derive(Debug, Default)]
#[repr(align(128))] // The cells of two threads lie on no common cache line, nor on neighbouring ones.
pub(super) struct Cells {
    pub(super) connections: Cell,
    pub(super) closed: Cell,
    pub(super) sessions_quit: Cell,
    pub(super) tls_full: Cell,
    pub(super) tls_resumed: Cell,
    pub(super) tls_failed: Cell,
    pub(super) authentications: Cell,
    pub(super) messages: Cell,
    pub(super) recipients: Cell,
    pub(super) octets: Cell,
    pub(super) refused: ByStage<Cell>,
    pub(super) dropped: ByStage<Cell>,
    pub(super) protocol_errors: Cell,
    pub(super) idle_timeouts: Cell,
    pub(super) accepts_failed: Cell,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections of those that are closed again.
    pub closed: u64,
    /// Sessions that reached QUIT.
    pub sessions_quit: u64,
    /// TLS sessions by a full handshake.
    pub tls_full: u64,
    /// TLS sessions that resumed an earlier one.
    pub tls_resumed: u64,
    /// Handshakes that failed.
    pub tls_failed: u64,
    /// AUTH exchanges that ended in 235.
    pub authentications: u64,
    /// Messages taken.
    pub messages: u64,
    /// Recipients of those.
    pub recipients: u64,
    /// Octets of their content, dot stuffing undone.
    pub octets: u64,
    /// Refusals that were asked for, by stage.
    #[serde(serialize_with = "by_stage")]
    pub refused: ByStage<u64>,
    /// Connections closed because that was asked for, by stage.
    #[serde(serialize_with = "by_stage")]
    pub dropped: ByStage<u64>,
    /// Negative replies, and ends of connections, that the peer brought on itself.
    pub protocol_errors: u64,
    /// Connections ended for silence.
    pub idle_timeouts: u64,
    /// Connections that could not be accepted, for want of descriptors for example.
    pub accepts_failed: u64,
}

impl Counts {
    /// Adds up the cells of all threads.
    pub(super) fn of<'c>(threads: impl IntoIterator<Item = &'c Cells>) -> Counts {
        let mut counts = Counts::default();
        for cells in threads {
            counts.connections += cells.connections.get();
            counts.closed += cells.closed.get();
            counts.sessions_quit += cells.sessions_quit.get();
            counts.tls_full += cells.tls_full.get();
            counts.tls_resumed += cells.tls_resumed.get();
            counts.tls_failed += cells.tls_failed.get();
            counts.authentications += cells.authentications.get();
            counts.messages += cells.messages.get();
            counts.recipients += cells.recipients.get();
            counts.octets += cells.octets.get();
            for stage in Stage::ALL {
                *counts.refused.of_mut(stage) += cells.refused.of(stage).get();
                *counts.dropped.of_mut(stage) += cells.dropped.of(stage).get();
            }
            counts.protocol_errors += cells.protocol_errors.get();
            counts.idle_timeouts += cells.idle_timeouts.get();
            counts.accepts_failed += cells.accepts_failed.get();
        }
        counts
    }
}

/// For people, a line each.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = |counts: &ByStage<u64>| {
            let named: Vec<String> = Stage::ALL
                .into_iter()
                .filter(|stage| *counts.of(*stage) > 0)
                .map(|stage| format!("{} {}", stage.label(), counts.of(stage)))
                .collect();
            if named.is_empty() {
                String::from("none")
            } else {
                named.join(", ")
            }
        };
        writeln!(f, "connections        {}", self.connections)?;
        writeln!(f, "sessions to QUIT   {}", self.sessions_quit)?;
        writeln!(
            f,
            "TLS sessions       {} full, {} resumed, {} failed",
            self.tls_full, self.tls_resumed, self.tls_failed
        )?;
        writeln!(f, "authentications    {}", self.authentications)?;
        writeln!(f, "messages           {}", self.messages)?;
        writeln!(f, "recipients         {}", self.recipients)?;
        writeln!(f, "octets of content  {}", self.octets)?;
        writeln!(f, "refused            {}", stages(&self.refused))?;
        writeln!(f, "dropped            {}", stages(&self.dropped))?;
        writeln!(f, "protocol errors    {}", self.protocol_errors)?;
        writeln!(f, "idle timeouts      {}", self.idle_timeouts)?;
        writeln!(f, "accepts failed     {}", self.accepts_failed)
    }
}

fn by_stage<S: Serializer>(counts: &ByStage<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(Stage::ALL.len()))?;
    for stage in Stage::ALL {
        map.serialize_entry(stage.label(), counts.of(stage))?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_of_all_threads_are_added_up() {
        let threads = [Cells::default(), Cells::default()];
        for (cells, count) in threads.iter().zip([1, 10]) {
            cells.messages.add(count);
            cells.refused.of(Stage::Rcpt).add(2 * count);
        }
        let counts = Counts::of(&threads);
        assert_eq!(counts.messages, 11);
        assert_eq!(*counts.refused.of(Stage::Rcpt), 22);
        assert_eq!(*counts.dropped.of(Stage::Rcpt), 0);

        let json = serde_json::to_value(&counts).unwrap();
        assert_eq!(json["messages"], 11);
        assert_eq!(json["refused"]["rcpt"], 22);
        assert_eq!(json["dropped"]["quit"], 0);
        let text = counts.to_string();
        assert!(
            text.contains("\nrefused            rcpt 22\ndropped            none\n"),
            "{text}"
        );
    }
}
