//! `ringpost-loadgen idle`: what sessions that do nothing cost the server, and whether others are served meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ringpost::cli::values::{count, duration, duration_or_zero, write_duration};

use super::Failed;
use super::load::{
    Case, ConnectionFlags, Crowd, GeneratorFlags, Groups, MailFlags, TargetFlags, TlsFlags,
    WatchFlags, has_descriptors, rate,
};
use super::output::JsonFlag;
use super::progress::Progress;
use crate::idle::{IdlePlan, idle};
use crate::observe::Interrupt;
use crate::plan::{Extent, Pace, Plan};
use crate::process::{pin, ports_per_address};
use crate::report::Environment;
use crate::report::idle::render;

/// The flags of `idle`.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    #[command(flatten)]
    server: TargetFlags,
    /// Sessions that are opened and held
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count(1..=1_000_000_usize), help_heading = "Load")]
    sessions: usize,
    /// How long they are held
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Load")]
    hold: Duration,
    /// Open so many a second at most [default: as fast as it goes, 64 at the same time]
    #[arg(long, value_name = "R", value_parser = open_rate, help_heading = "Load")]
    open_rate: Option<f64>,
    /// Distance of the others, each of which sends a message over a connection of its own
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, help_heading = "Load")]
    others_every: Duration,
    /// How long others are served before sessions are opened, to compare
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration_or_zero, help_heading = "Load")]
    before: Duration,
    #[command(flatten)]
    mail: MailFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    generator: GeneratorFlags,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(flatten)]
    output: JsonFlag,
}

/// Runs it.
pub(super) async fn run(flags: &Flags, command_line: &str) -> Result<(), Failed> {
    let plan = flags.plan()?;
    let addresses = plan.source_addresses.len();
    let sessions = flags.sessions;
    // Of several addresses one is for the others.
    fits_ports(
        sessions,
        addresses.saturating_sub(1).max(1),
        ports_per_address(),
    )?;
    has_descriptors("--sessions", sessions, DESCRIPTORS_SPARE)?;
    if let Some(cores) = &plan.cores {
        pin(cores).map_err(|error| Failed::because(&error))?;
    }

    let watch = flags.watch.watch();
    let mut interrupt = Interrupt::new().map_err(|error| Failed::because(&error))?;
    let from = match addresses {
        0 => String::new(),
        1 => " from one address".to_owned(),
        addresses => format!(" from {addresses} addresses"),
    };
    let load = format!(
        "{}: {sessions} sessions{from}, held for {}; others every {} with {}",
        flags.server.mode.name(),
        write_duration(flags.hold),
        write_duration(flags.others_every),
        plan.mail.describe()
    );
    let environment = Environment::read(command_line, flags.server.target.to_string(), load);
    let idle_plan = IdlePlan {
        plan: Arc::clone(&plan),
        hold: flags.hold,
        open_rate: flags.open_rate,
        served_every: flags.others_every,
        before: flags.before,
    };
    let figures = {
        let name = format!("{} sessions, {}", sessions, flags.server.mode.name());
        let mut progress = Progress::new(&plan, &name);
        idle(&idle_plan, watch.as_ref(), &mut progress, &mut interrupt).await
    };
    let figures = figures.map_err(|error| Failed::because(&error))?;
    let report = figures.report(environment);
    flags.output.put(&report, || render(&report))
}

impl Flags {
    fn plan(&self) -> Result<Arc<Plan>, Failed> {
        let groups = Groups {
            mail: &self.mail,
            connection: &self.connection,
            tls: &self.tls,
            generator: &self.generator,
        };
        let crowd = Crowd {
            connections: self.sessions,
            threads: 1,
        };
        let case = Case {
            target: self.server.target,
            mode: self.server.mode,
            messages_per_session: 1,
            pace: Pace::Closed,
            extent: Extent::Duration(self.hold),
            warmup: self.before,
            resume: 0.0,
            samples: false,
            cores: None,
        };
        let mail = self.mail.mail(&self.generator)?;
        let plan = groups.plan(crowd, &case, &mail)?;
        if !plan.source_addresses.is_empty() {
            return Ok(plan);
        }
        Ok(Arc::new(Plan {
            source_addresses: loopback_addresses(self.server.target.ip(), self.sessions),
            ..Plan::clone(&plan)
        }))
    }
}

/// Addresses for so many sessions, and one for the others; none if the target is not in 127.0.0.0/8.
fn loopback_addresses(target: IpAddr, sessions: usize) -> Vec<IpAddr> {
    let IpAddr::V4(target) = target.to_canonical() else {
        return Vec::new();
    };
    if !target.is_loopback() {
        return Vec::new();
    }
    let addresses = sessions.div_ceil(SESSIONS_PER_ADDRESS) + 1;
    let numbers = u32::from(Ipv4Addr::new(127, 0, 1, 1))..;
    let addresses = numbers.take(addresses);
    addresses.map(|number| IpAddr::V4(number.into())).collect()
}

fn fits_ports(sessions: usize, addresses: usize, ports: usize) -> Result<(), Failed> {
    if sessions <= addresses.saturating_mul(ports) {
        return Ok(());
    }
    Err(Failed::Arguments(format!(
        "--sessions {sessions}: more than {addresses} source addresses have ports for, {ports} each; \
         name more by --source-addresses"
    )))
}

fn open_rate(text: &str) -> Result<f64, String> {
    rate(text).map_err(|_| "must be a number of sessions a second, 0.001 or more".to_owned())
}

/// Some servers limit the sessions of one address, to 50 where they do so unasked.
const SESSIONS_PER_ADDRESS: usize = 50;

/// For the others, of which some may be open at the same time, and for what is read of the server.
const DESCRIPTORS_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_many_addresses_and_the_others_one() {
        let loopback = "127.0.0.1".parse().unwrap();
        for (sessions, addresses) in [(1, 2), (50, 2), (51, 3), (100_000, 2001)] {
            let list = loopback_addresses(loopback, sessions);
            assert_eq!(list.len(), addresses, "{sessions}");
            assert!(list.iter().all(IpAddr::is_loopback));
        }
        for other in ["::1", "192.0.2.1"] {
            assert!(loopback_addresses(other.parse().unwrap(), 100).is_empty());
        }
    }

    #[test]
    fn what_does_not_fit_is_said_before() {
        assert!(fits_ports(28_232, 1, 28_232).is_ok());
        assert!(fits_ports(28_233, 1, 28_232).is_err());
        assert!(fits_ports(28_233, 2, 28_232).is_ok());
    }
}
