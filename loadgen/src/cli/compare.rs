//! `ringpost-loadgen compare`: plain, negotiated and implicit TLS in turn, on one server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringpost::cli::values::{count, duration, duration_or_zero, server_address};

use super::Failed;
use super::load::{Case, LoadFlags, WatchFlags};
use super::output::OutputFlags;
use super::progress::Progress;
use super::started::StartFlags;
use crate::compare::{Way, case, order, ratios, ways};
use crate::mail::Mail;
use crate::observe::{Interrupt, Observation, observe};
use crate::plan::{Extent, Mode, Pace, Plan};
use crate::process::{Cores, Watch};
use crate::report::{Environment, Report, Tickets};

/// The flags of `compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// The server's TCP port, in clear and with STARTTLS [default: a ringpost that is started for the purpose]
    #[arg(long, value_name = "ADDR:PORT", value_parser = server_address, requires = "target_tls", help_heading = "Load")]
    target: Option<SocketAddr>,
    /// The server's TLS port
    #[arg(long, value_name = "ADDR:PORT", value_parser = server_address, requires = "target", help_heading = "Load")]
    target_tls: Option<SocketAddr>,
    /// Rounds: each measures every case once
    #[arg(long, value_name = "N", default_value = "3", value_parser = count(1..=1000_usize), help_heading = "Load")]
    rounds: usize,
    /// Measure each case for so long in each round
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration, help_heading = "Load")]
    duration: Duration,
    /// Load for so long before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_zero, help_heading = "Load")]
    warmup: Duration,
    /// Messages in each session of the cases that have several
    #[arg(long, value_name = "N", default_value = "100", value_parser = count(2..=u64::MAX), help_heading = "Load")]
    messages_per_session_many: u64,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    start: StartFlags,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub(super) async fn run(flags: &Flags, command_line: &str) -> Result<(), Failed> {
    let mail = flags.load.mail()?;
    let mut ways = ways(flags.messages_per_session_many);
    if flags.load.logs_in() {
        // Passwords leave only inside TLS.
        ways.retain(|way| way.mode != Mode::Plain);
    }
    let targets = flags.target.zip(flags.target_tls);
    // What is wrong with the flags is said before a server is started.
    if let Some((target, target_tls)) = targets {
        flags.plans(&ways, target, target_tls, None, &mail)?;
    }
    flags.load.has_descriptors()?;
    let mut interrupt = Interrupt::new().map_err(|error| Failed::because(&error))?;

    let subject = flags.start.start(targets, &mut interrupt).await?;
    let cores = subject.load_cores.as_ref();
    let plans = flags.plans(&ways, subject.target, subject.target_tls, cores, &mail)?;
    let load = plans
        .first()
        .map(|plan| plan.describe())
        .unwrap_or_default();
    let environment = Environment::read(command_line, subject.title.as_str(), load);
    let watch = flags.watch.watch().or_else(|| subject.watch());
    let (observations, failure) = flags
        .measure(&ways, &plans, watch.as_ref(), &mut interrupt)
        .await;
    let stopped = subject.stop();

    let with_rounds = ways.iter().zip(&plans).zip(&observations);
    let cases: Vec<_> = with_rounds
        .filter(|(_, rounds)| !rounds.is_empty())
        .map(|((way, plan), rounds)| case(plan, way.tickets, rounds))
        .collect();
    // Figures of an earlier comparison are worth more than none.
    let is_measured = !cases.is_empty();
    if is_measured {
        let ratios = ratios(&cases);
        flags.output.or(JSON, HTML).put(&Report {
            environment,
            cases,
            ratios,
        })?;
    }
    // A server that is gone explains what else went wrong.
    stopped?;
    match failure {
        Some(failure) => Err(failure),
        None if !is_measured => Err(Failed::Running("nothing was measured".to_owned())),
        None => Ok(()),
    }
}

impl Flags {
    /// A plan for each way.
    fn plans(
        &self,
        ways: &[Way],
        target: SocketAddr,
        target_tls: SocketAddr,
        cores: Option<&Cores>,
        mail: &Arc<Mail>,
    ) -> Result<Vec<Arc<Plan>>, Failed> {
        let plan = |way: &Way| {
            let case = Case {
                target: match way.mode {
                    Mode::Plain | Mode::Starttls => target,
                    Mode::Tls => target_tls,
                },
                mode: way.mode,
                messages_per_session: way.messages_per_session,
                pace: Pace::Closed,
                extent: Extent::Duration(self.duration),
                warmup: self.warmup,
                resume: match way.tickets {
                    Tickets::Resumed => 1.0,
                    Tickets::None | Tickets::Full | Tickets::Mixed => 0.0,
                },
                samples: false,
                cores: cores.cloned(),
            };
            self.load.plan(&case, mail)
        };
        ways.iter().map(plan).collect()
    }

    /// The rounds of each way, and why there are fewer than were asked for, if something failed.
    async fn measure(
        &self,
        ways: &[Way],
        plans: &[Arc<Plan>],
        watch: Option<&Watch>,
        interrupt: &mut Interrupt,
    ) -> (Vec<Vec<Observation>>, Option<Failed>) {
        let mut observations: Vec<Vec<Observation>> = ways.iter().map(|_| Vec::new()).collect();
        let mut failure = None;
        for round in 0..self.rounds {
            let mut of_round: Vec<Option<Observation>> = ways.iter().map(|_| None).collect();
            for index in order(ways, round) {
                let (Some(way), Some(plan), Some(place)) =
                    (ways.get(index), plans.get(index), of_round.get_mut(index))
                else {
                    continue;
                };
                let name = format!("round {} of {}: {way}", round + 1, self.rounds);
                let mut progress = Progress::new(plan, &name);
                match observe(plan, watch, &mut progress, interrupt).await {
                    Ok(observation) => {
                        // A server that is gone would be measured as one that refuses everything.
                        failure = observation.lost.clone().map(Failed::Running);
                        *place = Some(observation);
                    }
                    Err(error) => failure = Some(Failed::because(&error)),
                }
                if interrupt.was_heard() || failure.is_some() {
                    break;
                }
            }
            // Of a round that was cut short a first one is still better than nothing.
            let is_whole = !interrupt.was_heard() && failure.is_none();
            if is_whole || round == 0 {
                for (all, one) in observations.iter_mut().zip(of_round) {
                    all.extend(one);
                }
            }
            if !is_whole {
                // Whether or not a part of that round is among them.
                for last in observations.iter_mut().filter_map(|all| all.last_mut()) {
                    last.is_interrupted = true;
                }
                break;
            }
        }
        (observations, failure)
    }
}

/// Where the figures go when no flag says it.
const JSON: &str = "ringpost-compare.json";
const HTML: &str = "ringpost-compare.html";
