//! The flags that all commands which make load have in common.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::TypedValueParser;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslMethod, SslVersion};
use ringpost::cli::values::{choice, count, duration, mail_domain, server_address, yes_no};
use ringpost::smtp::client::Login;
use rustix::process::Pid;

use super::Failed;
use crate::mail::{Corpus, Generated, Mail, Sizes};
use crate::plan::{Envelope, Extent, Mode, Pace, Plan, TlsPlan};
use crate::process::{Cores, Watch, descriptors_open, parse_cores, raise_descriptors_max};

/// Whom a command loads.
#[derive(Debug, clap::Args)]
pub(super) struct TargetFlags {
    /// The server
    #[arg(long, value_name = "ADDR:PORT", value_parser = server_address, help_heading = "Load")]
    pub(super) target: SocketAddr,
    /// How TLS comes about: not at all, by STARTTLS, or from the first octet
    #[arg(long, value_name = "plain|starttls|tls", default_value = "plain", value_parser = mode(), help_heading = "Load")]
    pub(super) mode: Mode,
}

/// What sessions are like.
#[derive(Debug, clap::Args)]
pub(super) struct SessionFlags {
    /// Messages in each session; 0: as many as there are
    #[arg(long, value_name = "N", default_value = "1", value_parser = count(0..=u64::MAX), help_heading = "Load")]
    pub(super) messages_per_session: u64,
    /// Share of the sessions that offer a ticket, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share, help_heading = "TLS")]
    pub(super) resume: f64,
}

/// What is sent, by whom, over which connections.
#[derive(Debug, clap::Args)]
pub(super) struct LoadFlags {
    #[command(flatten)]
    mail: MailFlags,
    /// Connections at the same time
    #[arg(long, value_name = "N", default_value = "64", value_parser = count(1..=1_000_000_usize), help_heading = "Connections")]
    connections: usize,
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(flatten)]
    tls: TlsFlags,
    /// Threads that make load
    #[arg(long, value_name = "N", default_value = "1", value_parser = count(1..=1024_usize), help_heading = "Load generator")]
    threads: usize,
    #[command(flatten)]
    generator: GeneratorFlags,
}

/// What is sent.
#[derive(Debug, clap::Args)]
pub(super) struct MailFlags {
    /// Size of a message, header included: octets, or lognormal:MEDIAN,MOST (one in 1,000 is cut to MOST)
    #[arg(long, value_name = "SIZE", default_value = "2k", help_heading = "Mail")]
    size: Sizes,
    /// Send the files below this directory instead, in turn; line ends become CR LF
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "size",
        help_heading = "Mail"
    )]
    corpus: Option<PathBuf>,
    /// Address that messages are from
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "sender@loadgen.test",
        value_parser = mail_address,
        help_heading = "Mail"
    )]
    sender: String,
    /// Address that messages are for
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "you@localhost",
        value_parser = mail_address,
        help_heading = "Mail"
    )]
    recipient: String,
    /// Recipients of each message: the address, and others with -2, -3 … behind its local part
    #[arg(long, value_name = "N", default_value = "1", value_parser = count(1..=10_000_usize), help_heading = "Mail")]
    recipients_per_message: usize,
    /// Let commands leave together where the server lists PIPELINING
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_no(), action = clap::ArgAction::Set, help_heading = "Mail")]
    pipelining: bool,
    /// Send by BDAT where the server lists CHUNKING
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_no(), action = clap::ArgAction::Set, help_heading = "Mail")]
    chunking: bool,
}

/// How each connection is made.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionFlags {
    /// Name given in EHLO
    #[arg(long, value_name = "NAME", default_value = "loadgen.test", value_parser = mail_domain, help_heading = "Connections")]
    helo: String,
    /// Addresses that connections come from, in turn: one, or several with commas between them; A-B for a range
    #[arg(long, value_name = "LIST", value_parser = source_addresses, help_heading = "Connections")]
    pub(super) source_addresses: Option<SourceAddresses>,
    /// How long the server may take for a reply
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Connections")]
    timeout: Duration,
    /// Log in as USER, inside TLS, with the password in the first line of FILE
    #[arg(long, value_name = "USER:FILE", value_parser = login, help_heading = "Connections")]
    auth: Option<LoginFile>,
    /// Load other addresses than loopback ones: only servers that you may load
    #[arg(long, help_heading = "Connections")]
    allow_remote: bool,
}

/// How TLS is spoken.
#[derive(Debug, clap::Args)]
pub(super) struct TlsFlags {
    /// TLS version, one alone [default: the best that both have]
    #[arg(long, value_name = "1.2|1.3", value_parser = tls_version(), help_heading = "TLS")]
    tls_version: Option<SslVersion>,
    /// Groups for the key exchange, in OpenSSL's syntax [default: OpenSSL's]
    #[arg(long, value_name = "LIST", help_heading = "TLS")]
    tls_groups: Option<String>,
    /// Name that the server is asked for (SNI)
    #[arg(long, value_name = "NAME", value_parser = server_name, help_heading = "TLS")]
    server_name: Option<String>,
    /// Verify the server by these trust anchors, PEM, and its name if --server-name is given [default: it is not
    /// verified]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    ca: Option<PathBuf>,
}

/// The load generator itself.
#[derive(Debug, clap::Args)]
pub(super) struct GeneratorFlags {
    /// Cores that it may use, as in 1 or 0,2-3 [default: all]
    #[arg(long, value_name = "LIST", value_parser = cores, help_heading = "Load generator")]
    pub(super) load_cores: Option<Cores>,
    /// Where all that is random comes from
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        help_heading = "Load generator"
    )]
    seed: u64,
}

/// Whose CPU time and memory are read.
#[derive(Debug, clap::Args)]
pub(super) struct WatchFlags {
    /// Read CPU time and memory of this process and of those that descend from it
    #[arg(long, value_name = "PID", value_parser = pid, conflicts_with = "server_cgroup", help_heading = "Server")]
    pub(super) server_pid: Option<Pid>,
    /// Read them of this control group, a folder of cgroup version 2
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub(super) server_cgroup: Option<PathBuf>,
}

impl WatchFlags {
    /// Whom they name.
    pub(super) fn watch(&self) -> Option<Watch> {
        match (&self.server_cgroup, self.server_pid) {
            (Some(folder), _) => Some(Watch::Cgroup(folder.clone())),
            (None, Some(pid)) => Some(Watch::Pid(pid)),
            (None, None) => None,
        }
    }
}

/// What one run has of its own.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) target: SocketAddr,
    pub(super) mode: Mode,
    pub(super) messages_per_session: u64,
    pub(super) pace: Pace,
    pub(super) extent: Extent,
    pub(super) warmup: Duration,
    pub(super) resume: f64,
    pub(super) samples: bool,
    /// The cores that load may use where no flag names them.
    pub(super) cores: Option<Cores>,
}

impl TlsFlags {
    /// Has OpenSSL try what it will be told. It says little itself.
    fn check(&self) -> Result<(), Failed> {
        let wrong = |text: String| Failed::Arguments(text);
        let openssl = |error: ErrorStack| Failed::because(&error);
        let mut context = SslContext::builder(SslMethod::tls_client()).map_err(openssl)?;
        if let Some(groups) = &self.tls_groups {
            context
                .set_groups_list(groups)
                .map_err(|_| wrong(format!("--tls-groups {groups}: OpenSSL has no such groups")))?;
        }
        if let Some(path) = &self.ca {
            let shown = path.display();
            fs::read(path).map_err(|error| wrong(format!("--ca: cannot read {shown}: {error}")))?;
            context
                .set_ca_file(path)
                .map_err(|_| wrong(format!("--ca {shown}: holds no certificate in PEM")))?;
        }
        Ok(())
    }
}

impl LoadFlags {
    /// Whether sessions log in.
    pub(super) fn logs_in(&self) -> bool {
        self.connection.auth.is_some()
    }

    /// What is sent.
    pub(super) fn mail(&self) -> Result<Arc<Mail>, Failed> {
        self.mail.mail(&self.generator)
    }

    /// Makes sure that all connections can be open at the same time.
    ///
    /// Not before a server is started: it would have the raised limit too.
    pub(super) fn has_descriptors(&self) -> Result<(), Failed> {
        let spare = self.threads.saturating_mul(DESCRIPTORS_PER_THREAD) + DESCRIPTORS_SPARE;
        has_descriptors("--connections", self.connections, spare)
    }

    /// The plan of a run.
    pub(super) fn plan(&self, case: &Case, mail: &Arc<Mail>) -> Result<Arc<Plan>, Failed> {
        let crowd = Crowd {
            connections: self.connections,
            threads: self.threads,
        };
        let groups = Groups {
            mail: &self.mail,
            connection: &self.connection,
            tls: &self.tls,
            generator: &self.generator,
        };
        groups.plan(crowd, case, mail)
    }
}

impl MailFlags {
    /// What is sent, made or read once for all runs.
    pub(super) fn mail(&self, generator: &GeneratorFlags) -> Result<Arc<Mail>, Failed> {
        let mail = match &self.corpus {
            Some(directory) => {
                let corpus = Corpus::read(directory);
                Mail::Corpus(corpus.map_err(|error| Failed::because(&error))?)
            }
            None => {
                let run = std::time::UNIX_EPOCH
                    .elapsed()
                    .unwrap_or_default()
                    .as_nanos();
                Mail::Generated(Generated::new(
                    self.size,
                    u64::try_from(run).unwrap_or(generator.seed),
                ))
            }
        };
        Ok(Arc::new(mail))
    }
}

/// The groups of flags that a plan is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups<'a> {
    pub(super) mail: &'a MailFlags,
    pub(super) connection: &'a ConnectionFlags,
    pub(super) tls: &'a TlsFlags,
    pub(super) generator: &'a GeneratorFlags,
}

/// How many make load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) connections: usize,
    pub(super) threads: usize,
}

impl Groups<'_> {
    /// The plan of a run.
    pub(super) fn plan(
        &self,
        crowd: Crowd,
        case: &Case,
        mail: &Arc<Mail>,
    ) -> Result<Arc<Plan>, Failed> {
        let Groups {
            mail: of_mail,
            connection,
            tls,
            generator,
        } = self;
        let wrong = |text: String| Err(Failed::Arguments(text));
        let address = case.target;
        if !connection.allow_remote && !address.ip().to_canonical().is_loopback() {
            return wrong(format!(
                "--target {address}: is no loopback address; --allow-remote loads others"
            ));
        }
        if connection.auth.is_some() && case.mode == Mode::Plain {
            return wrong(
                "--auth: passwords leave only inside TLS: --mode starttls or tls".to_owned(),
            );
        }
        let Crowd {
            connections,
            threads,
        } = crowd;
        if threads > connections {
            return wrong(format!(
                "--threads {threads}: more than --connections {connections}"
            ));
        }
        let sources = connection.source_addresses.iter().flat_map(|list| &list.0);
        for source in sources {
            if source.is_ipv4() != address.is_ipv4() {
                return wrong(format!(
                    "--source-addresses {source}: nothing at {address} is reached from there: one is IPv4, the other IPv6"
                ));
            }
        }
        if case.mode != Mode::Plain {
            tls.check()?;
        }
        let login = match &connection.auth {
            Some(login) => Some(login.read()?),
            None => None,
        };
        Ok(Arc::new(Plan {
            target: address,
            mode: case.mode,
            connections,
            messages_per_session: case.messages_per_session,
            pace: case.pace,
            extent: case.extent,
            warmup: case.warmup,
            mail: Arc::clone(mail),
            envelope: Envelope::new(
                &of_mail.sender,
                &of_mail.recipient,
                of_mail.recipients_per_message,
            ),
            helo: connection.helo.clone(),
            pipelining: of_mail.pipelining,
            chunking: of_mail.chunking,
            tls: TlsPlan {
                resume: case.resume,
                version: tls.tls_version,
                groups: tls.tls_groups.clone(),
                server_name: tls.server_name.clone(),
                ca: tls.ca.clone(),
            },
            login,
            threads,
            cores: generator.load_cores.clone().or_else(|| case.cores.clone()),
            source_addresses: connection
                .source_addresses
                .clone()
                .map_or_else(Vec::new, |list| list.0),
            timeout: connection.timeout,
            seed: generator.seed,
            samples: case.samples,
        }))
    }
}

/// Makes sure that so many connections can be open at the same time, and `spare` other descriptors.
pub(super) fn has_descriptors(flag: &str, connections: usize, spare: usize) -> Result<(), Failed> {
    let open = descriptors_open().map_err(|error| Failed::because(&error))?;
    fits_descriptors(flag, connections, spare, open, raise_descriptors_max())
}

fn fits_descriptors(
    flag: &str,
    connections: usize,
    spare: usize,
    open: u64,
    most: u64,
) -> Result<(), Failed> {
    let needed = u64::try_from(connections.saturating_add(spare))
        .unwrap_or(u64::MAX)
        .saturating_add(open);
    if needed <= most {
        return Ok(());
    }
    Err(Failed::Arguments(format!(
        "{flag} {connections}: takes {needed} descriptors and this process may have {most}; raise its hard limit (ulimit -Hn)"
    )))
}

/// An address as it stands in MAIL and RCPT. Whether it is one the server decides; here it must not end the command.
fn mail_address(text: &str) -> Result<String, String> {
    let is_odd =
        |letter: char| letter.is_control() || letter.is_whitespace() || "<>".contains(letter);
    match text.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !text.contains(is_odd) =>
        {
            Ok(text.to_owned())
        }
        Some(_) | None => Err("must be LOCAL@DOMAIN, without blanks and brackets".to_owned()),
    }
}

/// A name, and where its password is.
#[derive(Clone, Debug)]
struct LoginFile {
    name: String,
    path: PathBuf,
}

impl LoginFile {
    fn read(&self) -> Result<Login, Failed> {
        let text = fs::read_to_string(&self.path).map_err(|error| {
            Failed::Arguments(format!(
                "--auth: cannot read {}: {error}",
                self.path.display()
            ))
        })?;
        let password = text.lines().next().unwrap_or_default();
        if password.is_empty() {
            let path = self.path.display();
            return Err(Failed::Arguments(format!(
                "--auth: the first line of {path} is empty"
            )));
        }
        Ok(Login {
            name: self.name.clone(),
            password: password.as_bytes().to_vec().into(),
        })
    }
}

fn login(text: &str) -> Result<LoginFile, String> {
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(LoginFile {
            name: name.to_owned(),
            path: path.into(),
        }),
        Some(_) | None => Err("must be USER:FILE".to_owned()),
    }
}

/// Addresses in turn. A type of its own, or clap would take the list for a repeated flag.
#[derive(Clone, Debug)]
pub(super) struct SourceAddresses(pub(super) Vec<IpAddr>);

fn source_addresses(text: &str) -> Result<SourceAddresses, String> {
    let address = |text: &str| {
        text.trim()
            .parse::<IpAddr>()
            .map_err(|_| format!("{text:?} is no address"))
    };
    let mut addresses = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => addresses.push(address(part)?),
            Some((first, last)) => match (address(first)?, address(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    let numbers = u32::from(first)..=u32::from(last);
                    addresses.extend(
                        numbers
                            .take(SOURCES_MAX + 1)
                            .map(|number| IpAddr::V4(number.into())),
                    );
                }
                (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                    let numbers = u128::from(first)..=u128::from(last);
                    addresses.extend(
                        numbers
                            .take(SOURCES_MAX + 1)
                            .map(|number| IpAddr::V6(number.into())),
                    );
                }
                _ => return Err(format!("{part:?} is no range")),
            },
        }
    }
    if addresses.len() > SOURCES_MAX {
        return Err(format!("must be {SOURCES_MAX} addresses at most"));
    }
    Ok(SourceAddresses(addresses))
}

/// A list of cores.
pub(super) fn cores(text: &str) -> Result<Cores, String> {
    parse_cores(text).map_err(|error| error.to_string())
}

fn pid(text: &str) -> Result<Pid, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .and_then(Pid::from_raw)
        .ok_or_else(|| "must be the id of a process".to_owned())
}

/// A name as a handshake has it (RFC 6066 §3).
fn server_name(text: &str) -> Result<String, String> {
    if (1..=SERVER_NAME_OCTETS_MAX).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_graphic())
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be a host name of {SERVER_NAME_OCTETS_MAX} characters at most"
        ))
    }
}

/// `1.2|1.3`.
fn tls_version() -> impl TypedValueParser<Value = SslVersion> {
    choice([("1.2", SslVersion::TLS1_2), ("1.3", SslVersion::TLS1_3)])
}

/// `plain|starttls|tls`.
fn mode() -> impl TypedValueParser<Value = Mode> {
    choice([
        ("plain", Mode::Plain),
        ("starttls", Mode::Starttls),
        ("tls", Mode::Tls),
    ])
}

/// Part of a whole: 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// So many a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate >= 0.001 && *rate <= 1e7);
    rate.ok_or_else(|| "must be a number of messages a second, 0.001 or more".to_owned())
}

/// OpenSSL sends no longer one.
const SERVER_NAME_OCTETS_MAX: usize = 255;

/// A thread's runtime and its clock.
const DESCRIPTORS_PER_THREAD: usize = 8;

/// For what is read of the machine and the server, and for files that are written.
const DESCRIPTORS_SPARE: usize = 8;

const SOURCES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_of_addresses() {
        let list = source_addresses("127.0.0.1,127.0.0.254-127.0.1.1,::1").unwrap();
        let shown: Vec<String> = list.0.iter().map(ToString::to_string).collect();
        let wanted = [
            "127.0.0.1",
            "127.0.0.254",
            "127.0.0.255",
            "127.0.1.0",
            "127.0.1.1",
            "::1",
        ];
        assert_eq!(shown, wanted);
        for wrong in [
            "",
            "127.0.0.1-",
            "127.0.0.2-127.0.0.1",
            "127.0.0.1-::1",
            "::-ffff::",
            "x",
        ] {
            assert!(source_addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn descriptors_that_are_not_there_are_said_before() {
        assert!(fits_descriptors("--sessions", 926, 64, 10, 1000).is_ok());
        let Err(Failed::Arguments(text)) = fits_descriptors("--sessions", 927, 64, 10, 1000) else {
            panic!("it does not fit");
        };
        assert!(
            text.contains("takes 1001 descriptors and this process may have 1000"),
            "{text}"
        );
    }

    #[test]
    fn shares_and_rates() {
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["-0.1", "1.1", "NaN", "x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "inf", "NaN", "1e9"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
