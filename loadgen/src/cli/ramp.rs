//! `ringpost-loadgen ramp`: the highest rate of an open loop at which p99 stays under a bound.

use std::sync::Arc;
use std::time::Duration;

use ringpost::cli::values::{choice, duration, duration_or_zero};

use super::Failed;
use super::load::{Case, LoadFlags, SessionFlags, TargetFlags, WatchFlags, rate};
use super::output::JsonFlag;
use super::progress::Progress;
use crate::measure::Figures;
use crate::observe::{Interrupt, observe};
use crate::plan::{Arrivals, Extent, Pace, Plan};
use crate::ramp::{Bound, Search};
use crate::report::Environment;
use crate::report::ramp::{RampReport, RampStep, render};

/// The flags of `ramp`.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    #[command(flatten)]
    server: TargetFlags,
    /// What 99 % of the messages must stay under, from when they were due to their reply
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Load")]
    p99: Duration,
    /// Lowest rate, tried first: messages a second
    #[arg(long, value_name = "R", default_value = "100", value_parser = rate, help_heading = "Load")]
    from: f64,
    /// Highest rate
    #[arg(long, value_name = "R", default_value = "1000000", value_parser = rate, help_heading = "Load")]
    to: f64,
    /// How far the rate that is found may be below the highest that is held
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = precision, help_heading = "Load")]
    precision: f64,
    /// Measure each rate for so long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, help_heading = "Load")]
    step_duration: Duration,
    /// Load for so long before that, in each step
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_zero, help_heading = "Load")]
    warmup: Duration,
    /// How messages are spread: at equal distances, or at random (Poisson)
    #[arg(long, value_name = "even|random", default_value = "even", value_parser = choice([("even", Arrivals::Even), ("random", Arrivals::Random)]), help_heading = "Load")]
    arrivals: Arrivals,
    #[command(flatten)]
    sessions: SessionFlags,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(flatten)]
    output: JsonFlag,
}

/// Runs it.
pub(super) async fn run(flags: &Flags, command_line: &str) -> Result<(), Failed> {
    let (from, to) = (flags.from, flags.to);
    if from > to {
        return Err(Failed::Arguments(format!(
            "--from {from}: more than --to {to}"
        )));
    }
    let plan = flags.plan()?;
    flags.load.has_descriptors()?;
    let pace = format!(
        "open loop, from {from} messages a second up to {to} at {}",
        flags.arrivals.words()
    );
    let environment = Environment::read(
        command_line,
        flags.server.target.to_string(),
        format!(
            "{}: {}",
            flags.server.mode.name(),
            plan.describe_with(&pace)
        ),
    );
    let mut interrupt = Interrupt::new().map_err(|error| Failed::because(&error))?;
    let mut search = Search::new(from, to, flags.precision);
    let bound = Bound { p99: flags.p99 };
    let mut steps = Vec::new();
    while let Some(rate) = search.next_rate() {
        let name = format!("step {}: {rate:.0} messages/s", steps.len() + 1);
        let figures = flags.step(rate, &plan, &name, &mut interrupt).await?;
        // Of a step that was cut short nothing can be said.
        let Some(figures) = figures else { break };
        let judgement = bound.judge(rate, &figures);
        search.judged(judgement.verdict);
        steps.push(RampStep::new(rate, &figures, judgement));
    }
    let report = RampReport {
        environment,
        p99_bound_us: flags.p99.as_secs_f64() * 1e6,
        precision: flags.precision,
        steps,
        answer: search.answer(),
        held: search.held(),
    };
    flags.output.put(&report, || render(&report))
}

impl Flags {
    /// The plan of the lowest rate.
    fn plan(&self) -> Result<Arc<Plan>, Failed> {
        let mail = self.load.mail()?;
        let case = Case {
            target: self.server.target,
            mode: self.server.mode,
            messages_per_session: self.sessions.messages_per_session,
            pace: self.pace(self.from),
            extent: Extent::Duration(self.step_duration),
            warmup: self.warmup,
            resume: self.sessions.resume,
            samples: false,
            cores: None,
        };
        self.load.plan(&case, &mail)
    }

    fn pace(&self, rate: f64) -> Pace {
        Pace::Open {
            rate,
            arrivals: self.arrivals,
        }
    }

    /// One step; none if it was interrupted.
    async fn step(
        &self,
        rate: f64,
        plan: &Plan,
        name: &str,
        interrupt: &mut Interrupt,
    ) -> Result<Option<Figures>, Failed> {
        let plan = Arc::new(Plan {
            pace: self.pace(rate),
            ..plan.clone()
        });
        let watch = self.watch.watch();
        let mut progress = Progress::new(&plan, name);
        let observed = observe(&plan, watch.as_ref(), &mut progress, interrupt).await;
        let observation = observed.map_err(|error| Failed::because(&error))?;
        Ok((!interrupt.was_heard()).then(|| observation.figures(&plan)))
    }
}

/// A share in per cent, with the sign or without it.
fn precision(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let percent = number
        .parse()
        .ok()
        .filter(|percent| (1.0..=100.0).contains(percent));
    let percent: Option<f64> = percent;
    percent
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "must be from 1% to 100%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_a_share() {
        assert_eq!(precision("5%"), Ok(0.05));
        assert_eq!(precision("2.5"), Ok(0.025));
        assert_eq!(precision("100 %"), Ok(1.0));
        for wrong in ["", "%", "0.5%", "101%", "NaN", "five", "-5%"] {
            assert!(precision(wrong).is_err(), "{wrong}");
        }
    }
}
