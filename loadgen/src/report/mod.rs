//! What a reader gets: a table on the terminal, JSON, and a page with plots that needs no network.
//!
//! All three are made of the same [`Report`]; none of them computes a figure that the others do not have.

mod chart;
mod environment;
mod file;
pub mod idle;
pub mod json;
pub mod page;
pub mod ramp;
mod rows;
pub mod table;
mod units;
mod words;

use serde::Serialize;

use crate::measure::{Figures, Stage};
use crate::plan::Mode;

/// Everything that one command found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Under which circumstances.
    pub environment: Environment,
    /// What was measured: one case for a run, several for a comparison.
    pub cases: Vec<Case>,
    /// Negotiated beside implicit TLS, where both were measured.
    pub ratios: Vec<Ratio>,
}

/// Under which circumstances something was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Environment {
    /// When it began: RFC 3339, UTC.
    pub date: String,
    /// Kernel and release.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// How many cores this machine has.
    pub cores: usize,
    /// The load generator's version.
    pub version: String,
    /// The OpenSSL that it is linked with.
    pub openssl: String,
    /// The command line.
    pub command: String,
    /// The server: its command line if it was started here, else its address.
    pub server: String,
    /// What the load was, in words: size, connections, pace.
    pub load: String,
}

/// What was measured in the same way, in one round or several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// For a row: `starttls resumed 1/session`.
    pub name: String,
    /// How TLS comes about.
    pub mode: Mode,
    /// Whether sessions are resumed.
    pub tickets: Tickets,
    /// Messages in each session; 0: as many as there are.
    pub messages_per_session: u64,
    /// All its rounds together: counts are sums, times those of all messages.
    #[serde(flatten)]
    pub figures: Figures,
    /// Each round for itself, in the order in which they ran.
    pub rounds: Vec<RoundFigures>,
}

/// Whether sessions are resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tickets {
    /// There is no TLS.
    None,
    /// Each session has a full handshake.
    Full,
    /// Each session offers a ticket, if there is one.
    Resumed,
    /// A share of the sessions offers one.
    Mixed,
}

/// The figures of one round that rounds are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundFigures {
    /// Sessions a second.
    pub sessions_per_second: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// The server's CPU time for each message, in microseconds, if it was watched.
    pub server_cpu_us_per_message: Option<f64>,
    /// The same for each session.
    pub server_cpu_us_per_session: Option<f64>,
    /// The 99th percentile of a whole session, in microseconds.
    pub session_p99_us: Option<f64>,
}

/// Negotiated : implicit TLS, all else being the same. Above 1 negotiated TLS has more of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Whether sessions were resumed.
    pub tickets: Tickets,
    /// Messages in each session.
    pub messages_per_session: u64,
    /// Of sessions a second.
    pub sessions_per_second: Spread,
    /// Of the server's CPU time a session, if it was watched.
    pub server_cpu_us_per_session: Option<Spread>,
    /// Of the median time of a whole session.
    pub session_p50: Option<f64>,
    /// Of the 99th percentile of it.
    pub session_p99: Option<f64>,
}

/// The ratios of pairs of rounds that ran one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The greatest.
    pub greatest: f64,
    /// How many pairs there are.
    pub pairs: usize,
}

impl RoundFigures {
    /// Those of a round.
    pub fn of(round: &Figures) -> RoundFigures {
        let server = round.server.as_ref();
        RoundFigures {
            sessions_per_second: round.sessions_per_second,
            messages_per_second: round.messages_per_second,
            server_cpu_us_per_message: server.and_then(|server| server.cpu_us_per_message),
            server_cpu_us_per_session: server.and_then(|server| server.cpu_us_per_session),
            session_p99_us: round.latency_us.get(&Stage::Session).map(|times| times.p99),
        }
    }
}

impl Spread {
    /// Of the pairs' ratios; none without pairs.
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut ratios: Vec<f64> = ratios
            .into_iter()
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let (Some(least), Some(greatest)) = (ratios.first(), ratios.last()) else {
            return None;
        };
        let upper = ratios.get(ratios.len() / 2)?;
        let lower = ratios.get((ratios.len() - 1) / 2)?;
        Some(Spread {
            least: *least,
            median: f64::midpoint(*lower, *upper),
            greatest: *greatest,
            pairs: ratios.len(),
        })
    }
}
