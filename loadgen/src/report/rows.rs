//! What the tables say, cell by cell: the terminal's and the page's are made of the same.

use std::collections::BTreeMap;

use super::units::{NONE, count, counted, digits, octets, percent, printable, share, time};
use super::words::{message_stage, ratio};
use super::{Case, Environment, Ratio};
use crate::measure::{Figures, Percentiles, Stage};
use crate::plan::Mode;

/// A stage's times: how many, half, 90 %, 99 %, 99.9 %, the greatest.
pub(super) struct StageRow {
    pub(super) stage: Stage,
    pub(super) cells: [String; 6],
}

/// The columns of [`StageRow`].
pub(super) const STAGE_HEADINGS: [&str; 6] = ["count", "p50", "p90", "p99", "p99.9", "max"];

/// The stages that have times, in the order in which they come.
pub(super) fn stages(figures: &Figures) -> Vec<StageRow> {
    stages_of(&figures.latency_us)
}

/// Of these.
pub(super) fn stages_of(latency_us: &BTreeMap<Stage, Percentiles>) -> Vec<StageRow> {
    let times = |times: &Percentiles| {
        [
            count(times.count),
            time(times.p50),
            time(times.p90),
            time(times.p99),
            time(times.p99_9),
            time(times.greatest),
        ]
    };
    let stages = latency_us.iter();
    stages
        .map(|(stage, percentiles)| StageRow {
            stage: *stage,
            cells: times(percentiles),
        })
        .collect()
}

/// A case beside others.
pub(super) struct CaseRow {
    pub(super) name: String,
    pub(super) sessions_per_second: String,
    pub(super) messages_per_second: String,
    /// p50, p99, p99.9 in microseconds.
    pub(super) message_us: Option<[f64; 3]>,
    pub(super) session_us: Option<[f64; 3]>,
    pub(super) cpu_per_message: String,
    pub(super) cpu_per_session: String,
    pub(super) resumed: String,
    pub(super) errors: String,
}

/// One row a case.
pub(super) fn cases(cases: &[Case]) -> Vec<CaseRow> {
    let stage = message_stage(fall_due(cases));
    cases.iter().map(|case| row(case, stage)).collect()
}

/// Whether times of messages count from when these fell due: in a table of several cases, in all of them.
pub(super) fn fall_due(cases: &[Case]) -> bool {
    cases.iter().any(Case::falls_due)
}

fn row(case: &Case, message: Stage) -> CaseRow {
    let figures = &case.figures;
    let times = |stage| {
        let times = figures.latency_us.get(&stage)?;
        Some([times.p50, times.p99, times.p99_9])
    };
    let server = figures.server.as_ref();
    let handshakes = &figures.handshakes;
    CaseRow {
        name: printable(&case.name).into_owned(),
        sessions_per_second: digits(figures.sessions_per_second),
        messages_per_second: digits(figures.messages_per_second),
        message_us: times(message),
        session_us: times(Stage::Session),
        cpu_per_message: time_or_none(server.and_then(|server| server.cpu_us_per_message)),
        cpu_per_session: time_or_none(server.and_then(|server| server.cpu_us_per_session)),
        resumed: share(
            handshakes.resumed,
            handshakes.full.saturating_add(handshakes.resumed),
        )
        .map_or_else(|| NONE.to_owned(), percent),
        errors: count(errors_total(figures)),
    }
}

fn errors_total(figures: &Figures) -> u64 {
    let times = figures.errors.values().map(|error| error.times);
    times.fold(0, u64::saturating_add)
}

/// A ratio: of sessions a second, of the server's CPU a session, of the median and of the 99th percentile of a
/// session.
pub(super) fn ratio_cells(of: &Ratio) -> [String; 4] {
    let cpu = of.server_cpu_us_per_session.as_ref();
    let one = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), ratio);
    [
        of.sessions_per_second.text(),
        cpu.map_or_else(|| NONE.to_owned(), |spread| spread.text()),
        one(of.session_p50),
        one(of.session_p99),
    ]
}

/// The columns of [`ratio_cells`].
pub(super) const RATIO_HEADINGS: [&str; 4] = [
    "sessions/s",
    "server CPU a session",
    "session p50",
    "session p99",
];

/// What is known about one case beside its times: name and value.
pub(super) fn facts(case: &Case) -> Vec<(&'static str, String)> {
    let figures = &case.figures;
    let mut facts = vec![
        ("measured", time(figures.seconds * 1e6)),
        (
            "messages",
            format!(
                "{}/s, {} in all, {} of content",
                digits(figures.messages_per_second),
                count(figures.messages),
                octets(figures.octets)
            ),
        ),
        (
            "sessions",
            format!(
                "{}/s, {} in all",
                digits(figures.sessions_per_second),
                count(figures.sessions)
            ),
        ),
    ];
    if figures.failed > 0 || figures.unsent > 0 {
        let (failed, unsent) = (count(figures.failed), count(figures.unsent));
        facts.push((
            "not taken",
            format!("{failed} refused or lost, {unsent} due and not begun"),
        ));
    }
    let handshakes = &figures.handshakes;
    let all = handshakes.full.saturating_add(handshakes.resumed);
    if case.mode != Mode::Plain {
        let resumed = share(handshakes.resumed, all).map_or_else(|| NONE.to_owned(), percent);
        facts.push((
            "handshakes",
            format!(
                "{} full, {} resumed ({resumed}), {} offered a ticket",
                count(handshakes.full),
                count(handshakes.resumed),
                count(handshakes.offered)
            ),
        ));
    }
    facts.push((
        "server",
        match &figures.server {
            Some(server) => format!(
                "CPU {} a message, {} a session, {} cores busy; memory {} before, {} after",
                time_or_none(server.cpu_us_per_message),
                time_or_none(server.cpu_us_per_session),
                digits(server.cores),
                octets(server.memory_before),
                octets(server.memory_after)
            ),
            None => "its CPU and memory were not watched".to_owned(),
        },
    ));
    let generator = &figures.generator;
    let threads = u64::try_from(generator.threads).unwrap_or(u64::MAX);
    facts.push((
        "load generator",
        format!(
            "CPU {} a message, {}, the busiest for {} of its time",
            time_or_none(generator.cpu_us_per_message),
            counted(threads, "thread", "threads"),
            percent(generator.busiest_share)
        ),
    ));
    facts
}

/// A time that need not be there.
pub(super) fn time_or_none(us: Option<f64>) -> String {
    us.map_or_else(|| NONE.to_owned(), time)
}

/// Under which circumstances: name and value.
pub(super) fn environment(of: &Environment) -> Vec<(&'static str, String)> {
    let printable = |text: &str| printable(text).into_owned();
    let cores = u64::try_from(of.cores).unwrap_or(u64::MAX);
    vec![
        ("date", printable(&of.date)),
        ("command", printable(&of.command)),
        ("server", printable(&of.server)),
        ("load", printable(&of.load)),
        (
            "machine",
            format!(
                "{}, {}, {}",
                printable(&of.processor),
                counted(cores, "core", "cores"),
                printable(&of.kernel)
            ),
        ),
        (
            "software",
            format!(
                "ringpost-loadgen {}, {}",
                printable(&of.version),
                printable(&of.openssl)
            ),
        ),
    ]
}

/// An error: the kind, how often, the words of the first.
pub(super) struct ErrorRow {
    pub(super) case: String,
    pub(super) kind: String,
    pub(super) times: String,
    pub(super) first: String,
}

/// What went wrong, in all cases.
pub(super) fn errors(cases: &[Case]) -> Vec<ErrorRow> {
    let mut rows = Vec::new();
    for case in cases {
        for (kind, error) in &case.figures.errors {
            rows.push(ErrorRow {
                case: printable(&case.name).into_owned(),
                kind: printable(kind).into_owned(),
                times: count(error.times),
                first: printable(&error.first).into_owned(),
            });
        }
    }
    rows
}

/// Each warning once, with the cases that it is about; with none where there is but one case.
pub(super) fn warnings(cases: &[Case]) -> Vec<(String, Vec<String>)> {
    let mut warnings: Vec<(String, Vec<String>)> = Vec::new();
    for case in cases {
        for warning in &case.figures.warnings {
            let warning = printable(warning).into_owned();
            let name = printable(&case.name).into_owned();
            match warnings.iter_mut().find(|(known, _)| *known == warning) {
                Some((_, about)) => about.push(name),
                None => warnings.push((warning, vec![name])),
            }
        }
    }
    if cases.len() < 2 {
        warnings.iter_mut().for_each(|(_, about)| about.clear());
    }
    warnings
}
