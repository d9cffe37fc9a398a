//! What a run came to, as figures: what the table, the JSON and the page are made of.
//!
//! Apart from the tally because figures are for readers: rates, percentiles, shares, with their units in their
//! names. The JSON is these types, field by field.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Handshakes, Moment, Percentiles, Stage};

/// One run, or all rounds of one case of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How long was measured, the warm-up aside.
    pub seconds: f64,
    /// Sessions that ended as they should.
    pub sessions: u64,
    /// Messages that were taken.
    pub messages: u64,
    /// Messages that were refused or lost.
    pub failed: u64,
    /// Messages that were due and not begun at the end. Their waiting is in the times from when they were due.
    pub unsent: u64,
    /// Octets of content that were taken.
    pub octets: u64,
    /// Sessions a second.
    pub sessions_per_second: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// Times by stage, in microseconds.
    pub latency_us: BTreeMap<Stage, Percentiles>,
    /// What went wrong, how often.
    pub errors: BTreeMap<String, ErrorFigures>,
    /// How TLS sessions came about.
    pub handshakes: Handshakes,
    /// What the load generator itself took.
    pub generator: GeneratorFigures,
    /// What the server took, if it was watched.
    pub server: Option<ServerFigures>,
    /// Rates over time.
    pub timeline: Vec<Moment>,
    /// What a reader must know before believing a figure.
    pub warnings: Vec<String>,
}

/// One kind of error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorFigures {
    /// How often.
    pub times: u64,
    /// The words of the first.
    pub first: String,
}

/// The load generator's own cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct GeneratorFigures {
    /// Threads that make load.
    pub threads: usize,
    /// CPU time of the whole process, in microseconds.
    pub cpu_us: f64,
    /// The same for each message that was taken, if one was.
    pub cpu_us_per_message: Option<f64>,
    /// The share of its time that the busiest of its threads was running, 0 to 1.
    pub busiest_share: f64,
}

/// The server's cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ServerFigures {
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: f64,
    /// The same for each message that was taken, if one was.
    pub cpu_us_per_message: Option<f64>,
    /// The same for each session that ended, if one did.
    pub cpu_us_per_session: Option<f64>,
    /// Cores that it kept busy.
    pub cores: f64,
    /// Its memory when measuring began, in octets.
    pub memory_before: u64,
    /// Its memory when measuring ended, in octets.
    pub memory_after: u64,
}
