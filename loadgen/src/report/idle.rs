//! What holding sessions came to: the server's memory a session, and how others were served meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::table::{drawn, pairs, section, table, wrapped};
use super::units::{NONE, count, counted, digits, octets, printable, time};
use super::{Environment, rows};
use crate::measure::{ErrorFigures, Percentiles, Stage};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdleReport {
    /// Under which circumstances.
    pub environment: Environment,
    /// What was found out.
    #[serde(flatten)]
    pub figures: IdleFigures,
    /// What a reader must know before believing a figure.
    pub warnings: Vec<String>,
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IdleFigures {
    /// Sessions that were to be opened.
    pub asked: u64,
    /// Those that were.
    pub opened: u64,
    /// Why others were not.
    pub not_opened: BTreeMap<String, ErrorFigures>,
    /// Whether so many failed in a row that the rest were not tried.
    pub gave_up: bool,
    /// How long opening took.
    pub opening_seconds: f64,
    /// How many that is a second.
    pub opened_per_second: f64,
    /// Times by stage of opening, in microseconds.
    pub opening_us: BTreeMap<Stage, Percentiles>,
    /// The server's memory, if it was watched.
    pub memory: Option<MemoryFigures>,
    /// How others were served before.
    pub served_before: ServedFigures,
    /// How they were served while sessions were held.
    pub served_while_held: ServedFigures,
    /// How long that was.
    pub held_seconds: f64,
    /// Sessions that the server closed meanwhile, and why.
    pub closed_by_server: BTreeMap<String, ErrorFigures>,
    /// Sessions that ended with a reply to QUIT.
    pub quit: u64,
    /// Sessions that ended without.
    pub aborted: u64,
    /// Whether it was cut short.
    pub is_interrupted: bool,
    /// What must be known of the machine while sessions were held.
    #[serde(skip)]
    pub machine_warnings: Vec<String>,
}

/// The server's memory, in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryFigures {
    /// Before any of the sessions was opened.
    pub before: u64,
    /// When the last one was.
    pub open: Option<u64>,
    /// When they had been held.
    pub held: Option<u64>,
    /// When they were gone.
    pub after: Option<u64>,
    /// What was added for each session, once all were open.
    pub per_session_open: Option<f64>,
    /// The same at the end, for each that was still open.
    pub per_session_held: Option<f64>,
}

/// How others were served: each with a connection, and a message, of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServedFigures {
    /// Messages that were taken.
    pub messages: u64,
    /// Messages that were not.
    pub failed: u64,
    /// Times by stage, in microseconds.
    pub latency_us: BTreeMap<Stage, Percentiles>,
    /// What went wrong.
    pub errors: BTreeMap<String, ErrorFigures>,
}

impl IdleFigures {
    /// As a report.
    pub fn report(self, environment: Environment) -> IdleReport {
        IdleReport {
            environment,
            warnings: self.warnings(),
            figures: self,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_interrupted {
            warnings.push("interrupted: the figures are of what was done by then".to_owned());
        }
        if self.gave_up {
            warnings
                .push("so many sessions were refused in a row that the rest were not tried".into());
        } else if self.opened < self.asked && !self.is_interrupted {
            warnings.push(format!(
                "only {} of {} sessions were opened",
                count(self.opened),
                count(self.asked)
            ));
        }
        let closed = total(&self.closed_by_server);
        if closed > 0 {
            warnings.push(format!(
                "the server closed {} while held",
                counted(closed, "session", "sessions")
            ));
        }
        let unserved = self.served_while_held.failed;
        if unserved > 0 {
            warnings.push(format!(
                "{} of others failed while sessions were held",
                counted(unserved, "message", "messages")
            ));
        }
        if self.memory.is_none() {
            let text = "the memory a session is not known: name the server by --server-pid or --server-cgroup";
            warnings.push(text.to_owned());
        } else if self.opened < SESSIONS_MIN {
            warnings.push(format!(
                "{} are few: what other things take of the server's memory may be more",
                counted(self.opened, "session", "sessions")
            ));
        }
        warnings.extend(self.machine_warnings.iter().cloned());
        warnings
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let failed = total(&self.not_opened);
        let mut facts = vec![
            (
                "sessions",
                format!(
                    "{} of {} opened, {} failed",
                    count(self.opened),
                    count(self.asked),
                    count(failed)
                ),
            ),
            (
                "opening",
                format!(
                    "{}, {} sessions/s",
                    time(self.opening_seconds * 1e6),
                    digits(self.opened_per_second)
                ),
            ),
        ];
        if let Some(memory) = &self.memory {
            let known = |number: Option<u64>| number.map_or_else(|| NONE.to_owned(), octets);
            facts.push((
                "memory",
                format!(
                    "{} before, {} with all open, {} when held, {} when gone",
                    octets(memory.before),
                    known(memory.open),
                    known(memory.held),
                    known(memory.after)
                ),
            ));
            let each = |number: Option<f64>| number.map_or_else(|| NONE.to_owned(), signed_octets);
            facts.push((
                "a session",
                format!(
                    "{} with all open, {} when held",
                    each(memory.per_session_open),
                    each(memory.per_session_held)
                ),
            ));
        }
        facts.push((
            "held",
            format!(
                "{}, {} closed by the server",
                time(self.held_seconds * 1e6),
                count(total(&self.closed_by_server))
            ),
        ));
        facts.push((
            "ended",
            format!(
                "{} by QUIT, {} without",
                count(self.quit),
                count(self.aborted)
            ),
        ));
        facts
    }
}

/// As text: facts, how others were served, what went wrong.
pub fn render(report: &IdleReport) -> String {
    let figures = &report.figures;
    let mut out = pairs(&rows::environment(&report.environment));
    section(&mut out, "", &pairs(&figures.facts()));

    let mut times = table(std::iter::once("stage").chain(rows::STAGE_HEADINGS));
    let (before, held) = (&figures.served_before, &figures.served_while_held);
    for (what, latencies) in [
        ("opening", &figures.opening_us),
        ("others before", &before.latency_us),
        ("others meanwhile", &held.latency_us),
    ] {
        for row in rows::stages_of(latencies) {
            let name = format!("{what}: {}", row.stage.word());
            times.add_row(std::iter::once(name).chain(row.cells));
        }
    }
    section(&mut out, "", &drawn(&times));
    out.push_str(
        "Greeting and ready are from connecting on, a session from connecting to the reply to QUIT.\n",
    );
    out.push_str(&wrapped(
        "",
        &format!(
            "Others have a connection and a message each: {} before, {} failed; {} meanwhile, {} failed.",
            count(before.messages + before.failed),
            count(before.failed),
            count(held.messages + held.failed),
            count(held.failed)
        ),
    ));

    let mut errors = String::new();
    for (what, kinds) in [
        ("not opened", &figures.not_opened),
        ("closed while held", &figures.closed_by_server),
        ("others before", &before.errors),
        ("others meanwhile", &held.errors),
    ] {
        for (kind, error) in kinds {
            let head = format!("  {:>9} × ", count(error.times));
            let text = format!("{what}: {kind}, first: {}", printable(&error.first));
            errors.push_str(&wrapped(&head, &text));
        }
    }
    if !errors.is_empty() {
        section(&mut out, "errors", &errors);
    }
    if !report.warnings.is_empty() {
        out.push('\n');
        for warning in &report.warnings {
            // Writing to a `String` cannot fail.
            let _written = write!(out, "{}", wrapped("WARNING: ", warning));
        }
    }
    out
}

fn total(errors: &BTreeMap<String, ErrorFigures>) -> u64 {
    errors.values().map(|error| error.times).sum()
}

/// A difference of memory.
fn signed_octets(number: f64) -> String {
    let sign = if number < 0.0 { "-" } else { "" };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, not negative, and saturating"
    )]
    let size = number.abs().round() as u64;
    format!("{sign}{}", octets(size))
}

/// Fewer say little about one.
const SESSIONS_MIN: u64 = 1000;
