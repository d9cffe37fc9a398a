//! `ringpost-loadgen run`: one load on one server.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringpost::cli::values::{choice, count, duration, duration_or_zero};

use super::Failed;
use super::load::{Case, LoadFlags, SessionFlags, TargetFlags, WatchFlags, rate};
use super::output::{OutputFlags, cannot_write};
use super::progress::Progress;
use crate::compare;
use crate::measure::Sample;
use crate::observe::{Interrupt, Observation, observe};
use crate::plan::{Arrivals, Extent, Mode, Pace, Plan};
use crate::report::{Environment, Report, Tickets};

/// The flags of `run`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("pace").required(true).args(["rate", "closed"])))]
pub(super) struct Flags {
    #[command(flatten)]
    server: TargetFlags,
    /// Open loop: messages a second by a schedule; times count from when a message was due
    #[arg(long, value_name = "R", value_parser = rate, help_heading = "Load")]
    rate: Option<f64>,
    /// Closed loop: each connection sends as fast as replies come
    #[arg(long, help_heading = "Load")]
    closed: bool,
    /// How an open loop spreads messages: at equal distances, or at random (Poisson)
    #[arg(long, value_name = "even|random", default_value = "even", requires = "rate", value_parser = choice([("even", Arrivals::Even), ("random", Arrivals::Random)]), help_heading = "Load")]
    arrivals: Arrivals,
    #[command(flatten)]
    sessions: SessionFlags,
    /// Measure for so long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, conflicts_with = "messages", help_heading = "Load")]
    duration: Duration,
    /// Measure so many messages
    #[arg(long, value_name = "N", value_parser = count(1..=u64::MAX), help_heading = "Load")]
    messages: Option<u64>,
    /// Load for so long before anything counts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_zero, help_heading = "Load")]
    warmup: Duration,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(flatten)]
    output: OutputFlags,
    /// Write each message's times to this file, as CSV
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    samples: Option<PathBuf>,
}

/// Runs it.
pub(super) async fn run(flags: &Flags, command_line: &str) -> Result<(), Failed> {
    let mail = flags.load.mail()?;
    let case = Case {
        target: flags.server.target,
        mode: flags.server.mode,
        messages_per_session: flags.sessions.messages_per_session,
        pace: match flags.rate {
            Some(rate) => Pace::Open {
                rate,
                arrivals: flags.arrivals,
            },
            None => Pace::Closed,
        },
        extent: match flags.messages {
            Some(messages) => Extent::Messages(messages),
            None => Extent::Duration(flags.duration),
        },
        warmup: flags.warmup,
        resume: flags.sessions.resume,
        samples: flags.samples.is_some(),
        cores: None,
    };
    let plan = flags.load.plan(&case, &mail)?;
    flags.load.has_descriptors()?;
    let watch = flags.watch.watch();
    let mut interrupt = Interrupt::new().map_err(|error| Failed::because(&error))?;
    let environment = Environment::read(
        command_line.to_owned(),
        flags.server.target.to_string(),
        plan.describe(),
    );

    let observed = {
        let mut progress = Progress::new(&plan, plan.mode.name());
        observe(&plan, watch.as_ref(), &mut progress, &mut interrupt).await
    };
    let observation = observed.map_err(|error| Failed::because(&error))?;

    let tickets = tickets(&plan);
    let observations = [observation];
    let put = flags.output.put(&Report {
        environment,
        cases: vec![compare::case(&plan, tickets, &observations)],
        ratios: Vec::new(),
    });
    // One file that cannot be written is no reason to lose the others.
    if let Some(path) = &flags.samples {
        let [Observation { tally, .. }] = &observations;
        let samples = tally.samples.as_deref().unwrap_or_default();
        write_samples(path, samples).map_err(|error| cannot_write(path, &error))?;
    }
    put?;
    let [observation] = &observations;
    observation
        .failure()
        .map_or(Ok(()), |failure| Err(Failed::Running(failure)))
}

fn tickets(plan: &Plan) -> Tickets {
    match plan.mode {
        Mode::Plain => Tickets::None,
        Mode::Starttls | Mode::Tls if plan.tls.resume <= 0.0 => Tickets::Full,
        Mode::Starttls | Mode::Tls if plan.tls.resume >= 1.0 => Tickets::Resumed,
        Mode::Starttls | Mode::Tls => Tickets::Mixed,
    }
}

fn write_samples(path: &Path, samples: &[Sample]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "ended_ns,from_due_ns,from_sent_ns")?;
    for sample in samples {
        let from_due = sample.from_due.map(|time| time.as_nanos().to_string());
        writeln!(
            file,
            "{},{},{}",
            sample.ended.as_nanos(),
            from_due.unwrap_or_default(),
            sample.from_sent.as_nanos()
        )?;
    }
    file.flush()
}
