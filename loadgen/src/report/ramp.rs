//! What a ramp came to: its steps, and the rate that was found.

use serde::Serialize;

use super::table::{drawn, pairs, section, table, wrapped};
use super::units::{NONE, count, digits, percent, time};
use super::{Environment, rows};
use crate::measure::{Figures, Stage};
use crate::ramp::{Answer, Judgement, Verdict};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RampReport {
    /// Under which circumstances.
    pub environment: Environment,
    /// What the 99th percentile had to stay under, in microseconds.
    pub p99_bound_us: f64,
    /// How far the rate that was found may be below the highest one, as a share of it.
    pub precision: f64,
    /// Each step, in the order in which they ran.
    pub steps: Vec<RampStep>,
    /// What was found; none if the search was interrupted.
    pub answer: Option<Answer>,
    /// The highest rate that held, confirmed or not.
    pub held: Option<f64>,
}

/// One step. Times are those of messages from when they were due, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RampStep {
    /// Messages a second that were due.
    pub rate: f64,
    /// Messages a second that got their reply.
    pub achieved: f64,
    /// Half took at most this.
    pub p50_us: Option<f64>,
    /// 99 % did.
    pub p99_us: Option<f64>,
    /// 99.9 % did.
    pub p99_9_us: Option<f64>,
    /// Messages that were taken.
    pub messages: u64,
    /// Messages that were refused or lost.
    pub failed: u64,
    /// Messages that were due and not begun at the end.
    pub unsent: u64,
    /// The share of its time that the busiest thread of load was running, 0 to 1.
    pub busiest_share: f64,
    /// How late the load generator was itself, at the 99th percentile.
    pub lateness_p99_us: Option<f64>,
    /// The server's CPU time for each message, if it was watched.
    pub server_cpu_us_per_message: Option<f64>,
    /// How it was judged.
    pub verdict: Verdict,
    /// The same in words.
    pub words: String,
    /// What a reader must know before believing a figure.
    pub warnings: Vec<String>,
}

impl RampStep {
    /// A run at this rate, and how it was judged.
    pub fn new(rate: f64, figures: &Figures, judgement: Judgement) -> RampStep {
        let due = figures.latency_us.get(&Stage::MessageDue);
        let lateness = figures.latency_us.get(&Stage::Lateness);
        let server = figures.server.as_ref();
        RampStep {
            rate,
            achieved: figures.messages_per_second,
            p50_us: due.map(|times| times.p50),
            p99_us: due.map(|times| times.p99),
            p99_9_us: due.map(|times| times.p99_9),
            messages: figures.messages,
            failed: figures.failed,
            unsent: figures.unsent,
            busiest_share: figures.generator.busiest_share,
            lateness_p99_us: lateness.map(|times| times.p99),
            server_cpu_us_per_message: server.and_then(|server| server.cpu_us_per_message),
            verdict: judgement.verdict,
            words: judgement.words,
            warnings: figures.warnings.clone(),
        }
    }
}

/// As text: the steps, and the answer in the last line.
pub fn render(report: &RampReport) -> String {
    let mut out = pairs(&rows::environment(&report.environment));
    let mut steps = table([
        "rate\n/s",
        "achieved\n/s",
        "p50",
        "p99",
        "p99.9",
        "failed",
        "unsent",
        "own\nshare",
        "CPU a\nmessage",
        "verdict",
    ]);
    for step in &report.steps {
        let time = |us: Option<f64>| us.map_or_else(|| NONE.to_owned(), time);
        steps.add_row([
            digits(step.rate),
            digits(step.achieved),
            time(step.p50_us),
            time(step.p99_us),
            time(step.p99_9_us),
            count(step.failed),
            count(step.unsent),
            percent(step.busiest_share),
            time(step.server_cpu_us_per_message),
            step.words.clone(),
        ]);
    }
    section(&mut out, "", &drawn(&steps));
    out.push_str("Times are those of messages from when they were due. CPU is the server's.\n");
    section(&mut out, "", &wrapped("", &report.sentence()));
    out
}

impl RampReport {
    /// The answer.
    fn sentence(&self) -> String {
        let a_second = |rate: f64| format!("{} messages a second", digits(rate));
        let bound = time(self.p99_bound_us);
        match (self.answer, self.held) {
            (Some(Answer::Highest { rate }), _) => format!(
                "{}: the highest rate at which p99 stays under {bound}, to {}.",
                a_second(rate),
                percent(self.precision)
            ),
            (Some(Answer::AtLeast { rate }), _) => format!(
                "At least {}, with p99 under {bound}: no higher rate was to be tried.",
                a_second(rate)
            ),
            (
                Some(Answer::OwnLimit {
                    at,
                    held: Some(rate),
                }),
                _,
            ) => format!(
                "At least {}, with p99 under {bound}: the load generator is the limit at {}.",
                a_second(rate),
                digits(at)
            ),
            (Some(Answer::OwnLimit { at, held: None }), _) => format!(
                "Not known: the load generator is the limit at {}, the first rate that was tried.",
                digits(at)
            ),
            (Some(Answer::None), _) => {
                format!("Not even the lowest rate holds with p99 under {bound}.")
            }
            (None, Some(rate)) => format!(
                "Interrupted; {} were held so far, with p99 under {bound}.",
                a_second(rate)
            ),
            (None, None) => "Interrupted before any rate was held.".to_owned(),
        }
    }
}
