//! The server under measurement: one that is there, one that a command starts, or a ringpost of our own.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::load::cores;
use super::server;
use super::{Failed, quoted};
use crate::observe::Interrupt;
use crate::process::{
    Cores, Output, ServerCommand, ServerError, StartedServer, StoppedBy, Watch, cores_allowed,
    nobody_accepts,
};

/// How the server comes about.
#[derive(Debug, clap::Args)]
pub(super) struct StartFlags {
    /// Start the server by this command, and end it by SIGTERM
    #[arg(long, value_name = "CMD", requires = "target", help_heading = "Server")]
    start: Option<String>,
    /// Cores that a server which is started may use, as in 0 or 0,2-3 [default: the first; load gets the others]
    #[arg(long, value_name = "LIST", value_parser = cores, help_heading = "Server")]
    server_cores: Option<Cores>,
}

/// The server under measurement.
#[derive(Debug)]
pub(super) struct Subject {
    /// Its TCP port.
    pub(super) target: SocketAddr,
    /// Its TLS port.
    pub(super) target_tls: SocketAddr,
    /// For a report.
    pub(super) title: String,
    /// The cores that are left to the load, if it was started here.
    pub(super) load_cores: Option<Cores>,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    server: StartedServer,
    /// Where it keeps what it keeps; goes with it.
    _directory: TempDir,
}

impl StartFlags {
    /// Has a server at these two ports, or at two that are free.
    pub(super) async fn start(
        &self,
        targets: Option<(SocketAddr, SocketAddr)>,
        interrupt: &mut Interrupt,
    ) -> Result<Subject, Failed> {
        if let (Some((target, target_tls)), None) = (targets, &self.start) {
            return Ok(Subject {
                target,
                target_tls,
                title: format!("{target}, TLS port {target_tls}"),
                load_cores: None,
                started: None,
            });
        }
        let directory = tempfile::tempdir().map_err(|error| Failed::because(&error))?;
        let (target, target_tls) = match targets {
            Some(targets) => targets,
            None => free_ports().map_err(|error| Failed::because(&error))?,
        };
        let (line, title) = match &self.start {
            Some(command) => (command.clone(), command.clone()),
            None => {
                let flags = ringpost_flags(target, target_tls);
                let program = std::env::current_exe().map_err(|error| Failed::because(&error))?;
                let title = format!("ringpost {} {flags}", env!("CARGO_PKG_VERSION"));
                let line = format!(
                    "{} {} {flags}",
                    quoted(program.as_os_str()),
                    server::COMMAND
                );
                (
                    format!("{line} --data-dir {}", quoted(directory.path().as_os_str())),
                    title,
                )
            }
        };
        let addresses = [target, target_tls];
        nobody_accepts(&addresses).map_err(|error| Failed::because(&error))?;
        let (server_cores, load_cores) = self.cores();
        let started = StartedServer::start(&ServerCommand {
            line,
            cores: server_cores,
            output: Output::File(directory.path().join("output")),
            directory: Some(directory.path().to_owned()),
        });
        let mut server = started.map_err(|error| Failed::because(&error))?;
        wait_ready(&mut server, &addresses, interrupt).await?;
        Ok(Subject {
            target,
            target_tls,
            title,
            load_cores,
            started: Some(Started {
                server,
                _directory: directory,
            }),
        })
    }

    /// The server's cores and the load's: apart, if there is more than one.
    fn cores(&self) -> (Option<Cores>, Option<Cores>) {
        let allowed = cores_allowed();
        let server = match (&self.server_cores, allowed.first()) {
            (Some(cores), _) => cores.clone(),
            (None, Some(first)) if allowed.len() > 1 => Cores::from(*first),
            (None, _) => return (None, None),
        };
        let others = allowed
            .into_iter()
            .filter(|core| !server.iter().any(|taken| taken == *core));
        let load = Cores::all(others);
        (Some(server), load)
    }
}

impl Subject {
    /// Whom to watch, if it was started here.
    pub(super) fn watch(&self) -> Option<Watch> {
        let started = self.started.as_ref()?;
        Some(Watch::Pid(started.server.pid()))
    }

    /// Ends it, if it was started here. It fails if it had ended before: then it was not measured to the end.
    pub(super) fn stop(self) -> Result<(), Failed> {
        let Some(Started { server, _directory }) = self.started else {
            return Ok(());
        };
        let last_lines = server.last_lines();
        let stopped = server.stop().map_err(|error| Failed::because(&error))?;
        match stopped.how {
            StoppedBy::Itself => Err(Failed::Running(format!(
                "the server ended amid the measurement ({}){last_lines}",
                stopped.status
            ))),
            StoppedBy::Asking | StoppedBy::Killing => Ok(()),
        }
    }
}

/// Waits until the server accepts connections, and hears when somebody does not want to.
async fn wait_ready(
    server: &mut StartedServer,
    addresses: &[SocketAddr],
    interrupt: &mut Interrupt,
) -> Result<(), Failed> {
    let began = Instant::now();
    loop {
        let error = match server.wait_ready(addresses, LOOKS) {
            Ok(()) => return Ok(()),
            Err(ServerError::NotReady {
                address,
                last_lines,
                ..
            }) => ServerError::NotReady {
                address,
                waited: began.elapsed(),
                last_lines,
            },
            Err(error) => return Err(Failed::because(&error)),
        };
        if began.elapsed() >= READY_WITHIN {
            return Err(Failed::because(&error));
        }
        if tokio::time::timeout(Duration::from_millis(1), interrupt.heard())
            .await
            .is_ok()
        {
            return Err(Failed::Running(
                "interrupted before anything was measured".to_owned(),
            ));
        }
    }
}

/// One shard, and nothing behind the 250: what is compared is TLS.
fn ringpost_flags(target: SocketAddr, target_tls: SocketAddr) -> String {
    format!(
        "--listen {target} --listen-tls {target_tls} --shards 1 --local-domain localhost \
         --deliver discard --durability none --log-level warn"
    )
}

/// Two ports of 127.0.0.1 that are free now.
fn free_ports() -> std::io::Result<(SocketAddr, SocketAddr)> {
    // Both are held until both are known, or they might be the same.
    let (one, other) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    Ok((one.local_addr()?, other.local_addr()?))
}

/// How often it is looked for an interrupt meanwhile.
const LOOKS: Duration = Duration::from_millis(100);

/// A first start makes keys.
const READY_WITHIN: Duration = Duration::from_secs(30);
