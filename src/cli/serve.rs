//! `ringpost serve`: its flags, and how they become a [`Config`].
//!
//! The flags are the configuration's one schema: the command line, `@FILE`, the environment,
//! `check`, the help and the manual pages all come from the structs below.
//! Claims:
//! - Every flag takes a value, so a flag file is one `--flag value` a line.
//! - What one flag says wrongly is clap's error (exit status 2); what several say wrongly together
//!   is a [`Fault`] (exit status 1), found by `check` too.

mod sending;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args};
use ipnet::IpNet;

use self::sending::SendingFlags;
use super::{Failed, values};
use crate::config::loaded::{Loaded, Purpose};
use crate::config::{
    CertPair, Config, Fault, LogFormat, LogLevel, MESSAGE_MEMORY_OCTETS_MAX, SmtpSettings,
};
use crate::control::lock::private_dir;
use crate::control::privileges::{Identity, PrivilegesError};
use crate::deliver::Durability;
use crate::deliver::target::Target;
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::server::{
    Anonymous, AuthOffer, ChannelPolicy, DEFAULT_GREETING, Limits, StartTls,
};
use crate::tls::{ClientCert, DEFAULT_GROUPS, MinVersion, TlsSettings};

/// Runs the server until it is told to stop.
pub(super) fn run(flags: ServeFlags) -> Result<(), Failed> {
    let (config, faults) = flags.resolve();
    let loaded = load(&config, faults, Purpose::Serve)?;
    crate::control::server::run(config, loaded).map_err(Failed::because)
}

/// Reads what the flags name, after what they say wrongly themselves; for `serve` and `check`.
pub(super) fn load(
    config: &Config,
    mut faults: Vec<Fault>,
    purpose: Purpose,
) -> Result<Loaded, Failed> {
    let identity = match Identity::resolve(config.user.as_deref(), config.group.as_deref()) {
        Ok(identity) => identity,
        Err(error) => {
            let of_group = matches!(error, PrivilegesError::Group(_)) || config.user.is_none();
            let flag = if of_group { "--group" } else { "--user" };
            faults.push(Fault::new(flag, error.to_string()));
            None
        }
    };
    // A server that will not run makes no certificate and no key.
    let purpose = if faults.is_empty() {
        purpose
    } else {
        Purpose::Check
    };
    if purpose == Purpose::Serve {
        // Before the first file in it is made, so that it belongs to whom the server will run as. If it
        // cannot be made, loading says why.
        let _ = private_dir(&config.data_dir, identity.as_ref());
    }
    match Loaded::load(config, purpose) {
        Ok(loaded) if faults.is_empty() => Ok(loaded),
        Ok(_) => Err(Failed::of(&faults)),
        Err(more) => {
            faults.extend(more);
            Err(Failed::of(&faults))
        }
    }
}

/// The flags of `serve` and `check`.
#[derive(Debug, Args)]
pub(super) struct ServeFlags {
    #[command(flatten)]
    listening: ListeningFlags,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    policy: PolicyFlags,
    #[command(flatten)]
    relay: RelayFlags,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    delivery: DeliveryFlags,
    #[command(flatten)]
    sending: SendingFlags,
    #[command(flatten)]
    process: ProcessFlags,
    #[command(flatten)]
    watching: WatchingFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Listening")]
struct ListeningFlags {
    /// Name in the greeting, in EHLO and in trace fields [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = values::domain)]
    hostname: Option<String>,
    /// TCP port: greets in clear; port 0 lets the kernel choose; repeatable [default: 127.0.0.1:2525 if --listen-tls is not given either]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::address)]
    listen: Vec<SocketAddr>,
    /// TLS port: TLS from the first octet; port 0 lets the kernel choose; repeatable [default: 127.0.0.1:4650 if --listen is not given either]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::address)]
    listen_tls: Vec<SocketAddr>,
    /// Threads that run sessions: a number, or one for each core
    #[arg(long, value_name = "N|cores", default_value = "cores", value_parser = values::shards)]
    shards: NonZeroUsize,
    /// Pin each shard to a core of its own
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, action = ArgAction::Set, value_parser = values::yes_no())]
    pin: bool,
    /// Submission entries of each of a shard's two rings
    #[arg(long, value_name = "N", default_value = "1024", value_parser = values::count(RING_ENTRIES))]
    ring_entries: u32,
    /// Let a kernel thread poll the submission queue of what comes in (needs a core to spare for each shard)
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, action = ArgAction::Set, value_parser = values::yes_no())]
    sqpoll: bool,
    /// Connections the kernel holds for a listener until they are accepted (at most net.core.somaxconn)
    #[arg(long, value_name = "N", default_value = "1024", value_parser = values::count(1..=BACKLOG_MAX))]
    backlog: u32,
    /// Text behind the host name in the greeting
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_GREETING, value_parser = values::greeting)]
    greeting: String,
    /// On a TLS port with TLS 1.3, send the greeting with the server's own Finished, a round trip earlier
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, action = ArgAction::Set, value_parser = values::yes_no())]
    early_greeting: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsFlags {
    /// STARTTLS on TCP ports; required: nothing is accepted before it
    #[arg(long, value_name = "off|on|required", default_value = "on", hide_possible_values = true, value_parser = starttls())]
    starttls: StartTls,
    /// Certificate chain (PEM, leaf first); repeatable, each with its --key; chosen by SNI name and key type [default: a development certificate in the data directory]
    #[arg(long, value_name = "FILE")]
    cert: Vec<PathBuf>,
    /// Private key (PEM) of the --cert in the same place of the order; repeatable
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Oldest TLS version spoken
    #[arg(long, value_name = "1.2|1.3", default_value = "1.2", hide_possible_values = true, value_parser = tls_min())]
    tls_min: MinVersion,
    /// Key exchange groups in order of preference, separated by colons
    #[arg(long, value_name = "LIST", default_value = DEFAULT_GROUPS, value_parser = NonEmptyStringValueParser::new())]
    tls_groups: String,
    /// Ciphers in OpenSSL's notation, separated by colons [default: OpenSSL's choice]
    #[arg(long, value_name = "LIST", value_parser = NonEmptyStringValueParser::new())]
    tls_ciphers: Option<String>,
    /// Session tickets given out after a handshake; 0: no resumption
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count(0..=TICKETS_MAX))]
    tls_tickets: usize,
    /// Ticket keys kept over restarts and shared by a fleet (mode 0600; made if missing) [default: in memory only]
    #[arg(long, value_name = "FILE")]
    ticket_keys: Option<PathBuf>,
    /// How long a ticket can resume a session (at most 7d)
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = values::ticket_lifetime)]
    ticket_lifetime: Duration,
    /// Ask the peer for a certificate; require: no valid one, no session
    #[arg(long, value_name = "none|request|require", default_value = "none", hide_possible_values = true, value_parser = client_cert())]
    client_cert: ClientCert,
    /// Certificates (PEM) of those who may have signed the peer's certificate
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "AUTH and policy")]
struct PolicyFlags {
    /// Offer AUTH in clear (passwords cross the network readable)
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, value_parser = auth_offer())]
    tcp_auth: AuthOffer,
    /// Offer AUTH inside TLS, by STARTTLS or on a TLS port
    #[arg(long, value_name = "yes|no", default_value = "no", hide_possible_values = true, value_parser = auth_offer())]
    tls_auth: AuthOffer,
    /// Take mail without AUTH in clear
    #[arg(long, value_name = "yes|no", default_value = "yes", hide_possible_values = true, value_parser = anonymous())]
    tcp_anonymous: Anonymous,
    /// Take mail without AUTH inside TLS
    #[arg(long, value_name = "yes|no", default_value = "yes", hide_possible_values = true, value_parser = anonymous())]
    tls_anonymous: Anonymous,
    /// Who may log in: name:hash lines, # comments; hashes by ringpost hash-password [default: nobody]
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Who may send where")]
struct RelayFlags {
    /// Domain whose mail anyone may bring; repeatable [default: localhost and the host name]
    #[arg(long, value_name = "NAME", value_parser = values::mail_domain)]
    local_domain: Vec<String>,
    /// Network that may relay to any domain without AUTH; repeatable [default: none]
    #[arg(long, value_name = "CIDR", value_parser = values::network)]
    trusted_net: Vec<IpNet>,
    /// Known addresses, one a line, # comments; others get 550 5.1.1 [default: every address of a local domain]
    #[arg(long, value_name = "FILE")]
    recipients: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// A lone CR or LF in DATA: becomes CR LF, is kept, or the message gets 550 5.6.0
    #[arg(long, value_name = "normalize|accept|reject", default_value = "normalize", hide_possible_values = true, value_parser = stray_newline())]
    stray_newline: StrayNewline,
    /// Octets of one message
    #[arg(long, value_name = "SIZE", default_value = "50M", value_parser = values::octets)]
    max_message_bytes: u64,
    /// Recipients of one transaction
    #[arg(long, value_name = "N", default_value = "1000", value_parser = values::count(1..=RECIPIENTS_MAX))]
    max_recipients: usize,
    /// Sessions open at a time, over all shards
    #[arg(long, value_name = "N", default_value = "16384", value_parser = values::count(1..=SESSIONS_MAX))]
    max_sessions: usize,
    /// Sessions open at a time from one address; 0: no limit
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::count(0..=SESSIONS_MAX))]
    max_sessions_per_ip: usize,
    /// Errors after which a session is ended
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::count(1..=ERRORS_MAX))]
    max_errors: u32,
    /// How long the next command may take to come
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::duration)]
    command_timeout: Duration,
    /// How long mail data may pause
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::duration)]
    data_timeout: Duration,
    /// How long a session may last
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    session_timeout: Duration,
    /// How long a TLS handshake may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    handshake_timeout: Duration,
    /// Octets of mail data held in memory by the whole process; past it new data gets 452 4.3.1
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = values::octets)]
    mail_memory: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Mail's way")]
struct DeliveryFlags {
    /// Where everything of the server's own lies; made if missing (mode 0700)
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// What 250 promises: disk: on stable storage; next-hop: the next hop has it, or as disk; none: nothing (for measurements)
    #[arg(long, value_name = "disk|next-hop|none", default_value = "disk", hide_possible_values = true, value_parser = durability())]
    durability: Durability,
    /// Octets that the spool may take on disk, in the whole process; past it new mail gets 452 4.3.1
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = values::octets)]
    spool_max_bytes: u64,
    /// Messages that the queue may hold, in the whole process; past it new mail gets 452 4.3.1
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = values::count(1..=QUEUE_MESSAGES_MAX))]
    queue_max_messages: u64,
    /// Octets of one segment of the spool's log; a shard has two at least
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = values::octets)]
    spool_segment_bytes: u64,
    /// Where mail goes; the forms are below [default: maildir:DATA_DIR/maildir]
    #[arg(long, value_name = "TARGET", value_parser = values::target)]
    deliver: Option<Target>,
    /// Where mail for one domain goes instead; repeatable [default: none]
    #[arg(long, value_name = "DOMAIN=TARGET", value_parser = values::route)]
    route: Vec<(String, Target)>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct ProcessFlags {
    /// How long transactions under way may take to finish after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration_or_zero)]
    drain_timeout: Duration,
    /// User to become once the listeners are bound: a name or a number [default: stay]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// Group to become once the listeners are bound: a name or a number [default: the user's]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    group: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Watching")]
struct WatchingFlags {
    /// Serve /metrics, /healthz and /readyz over HTTP there [default: off]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::address)]
    metrics: Option<SocketAddr>,
    /// Form of the log lines on standard error
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true, value_parser = log_format())]
    log_format: LogFormat,
    /// Least severe event that is logged
    #[arg(long, value_name = "error|warn|info|debug|trace", default_value = "info", hide_possible_values = true, value_parser = log_level())]
    log_level: LogLevel,
}

impl ServeFlags {
    /// Fills in the defaults that depend on other flags or on the host, and names what the flags
    /// say wrongly together. The values come back with faults too, so that `check` can go on.
    pub(super) fn resolve(self) -> (Config, Vec<Fault>) {
        let ServeFlags {
            listening,
            tls,
            policy,
            relay,
            limits,
            delivery,
            sending,
            process,
            watching,
        } = self;
        let hostname = listening.hostname.unwrap_or_else(host_name);
        let (listen, listen_tls) = if listening.listen.is_empty() && listening.listen_tls.is_empty()
        {
            (vec![DEFAULT_LISTEN], vec![DEFAULT_LISTEN_TLS])
        } else {
            (listening.listen, listening.listen_tls)
        };
        let mut local_domains = relay.local_domain;
        if local_domains.is_empty() {
            local_domains = vec!["localhost".to_owned(), hostname.clone()];
        }
        let local_domains = without_repetition(local_domains);
        let unpaired = unpaired(&tls.cert, &tls.key);
        let deliver = delivery
            .deliver
            .unwrap_or_else(|| Target::Maildir(delivery.data_dir.join("maildir")));
        let tls_settings = TlsSettings {
            min: tls.tls_min,
            groups: tls.tls_groups,
            ciphers: tls.tls_ciphers,
            tickets: tls.tls_tickets,
            ticket_lifetime: tls.ticket_lifetime,
            client_cert: tls.client_cert,
            client_ca: tls.client_ca,
        };
        let retry_schedule = sending.retry_schedule.clone();
        let (sending, logins, out_unpaired) =
            sending.resolve(&hostname, &tls_settings, limits.handshake_timeout);
        let config = Config {
            hostname,
            listen,
            listen_tls,
            shards: listening.shards,
            pin: listening.pin,
            ring_entries: listening.ring_entries,
            sqpoll: listening.sqpoll,
            backlog: listening.backlog,
            early_greeting: listening.early_greeting,
            certs: std::iter::zip(tls.cert, tls.key)
                .map(|(cert, key)| CertPair { cert, key })
                .collect(),
            tls: tls_settings,
            ticket_keys: tls.ticket_keys,
            users: policy.users,
            recipients: relay.recipients,
            smtp: SmtpSettings {
                greeting: listening.greeting,
                starttls: tls.starttls,
                tcp: ChannelPolicy {
                    auth: policy.tcp_auth,
                    anonymous: policy.tcp_anonymous,
                },
                tls: ChannelPolicy {
                    auth: policy.tls_auth,
                    anonymous: policy.tls_anonymous,
                },
                local_domains,
                trusted_nets: relay.trusted_net,
                stray_newline: limits.stray_newline,
                limits: Limits {
                    message_octets_max: limits.max_message_bytes,
                    message_memory_octets_max: MESSAGE_MEMORY_OCTETS_MAX,
                    recipients_max: limits.max_recipients,
                    errors_max: limits.max_errors,
                    command_timeout: limits.command_timeout,
                    data_timeout: limits.data_timeout,
                    session_timeout: limits.session_timeout,
                },
            },
            sessions_max: limits.max_sessions,
            sessions_per_ip_max: limits.max_sessions_per_ip,
            handshake_timeout: limits.handshake_timeout,
            mail_memory_octets: limits.mail_memory,
            data_dir: delivery.data_dir,
            durability: delivery.durability,
            spool_octets_max: delivery.spool_max_bytes,
            segment_octets: delivery.spool_segment_bytes,
            queue_messages_max: delivery.queue_max_messages,
            deliver,
            routes: delivery.route,
            retry_schedule,
            sending,
            logins,
            drain_timeout: process.drain_timeout,
            user: process.user,
            group: process.group,
            metrics: watching.metrics,
            log_format: watching.log_format,
            log_level: watching.log_level,
        };
        let unpaired = unpaired.into_iter().chain(out_unpaired);
        let faults = unpaired.chain(config.faults()).collect();
        (config, faults)
    }
}

/// What the memory of a large machine has room for.
const QUEUE_MESSAGES_MAX: u64 = 1_000_000_000;

fn starttls() -> impl clap::builder::TypedValueParser<Value = StartTls> {
    values::choice([
        ("off", StartTls::Off),
        ("on", StartTls::On),
        ("required", StartTls::Required),
    ])
}

fn tls_min() -> impl clap::builder::TypedValueParser<Value = MinVersion> {
    values::choice([("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
}

fn client_cert() -> impl clap::builder::TypedValueParser<Value = ClientCert> {
    values::choice([
        ("none", ClientCert::None),
        ("request", ClientCert::Request),
        ("require", ClientCert::Require),
    ])
}

fn auth_offer() -> impl clap::builder::TypedValueParser<Value = AuthOffer> {
    values::choice([("yes", AuthOffer::Yes), ("no", AuthOffer::No)])
}

fn anonymous() -> impl clap::builder::TypedValueParser<Value = Anonymous> {
    values::choice([("yes", Anonymous::Yes), ("no", Anonymous::No)])
}

fn stray_newline() -> impl clap::builder::TypedValueParser<Value = StrayNewline> {
    values::choice([
        ("normalize", StrayNewline::Normalize),
        ("accept", StrayNewline::Accept),
        ("reject", StrayNewline::Reject),
    ])
}

fn durability() -> impl clap::builder::TypedValueParser<Value = Durability> {
    values::choice([
        ("disk", Durability::Disk),
        ("next-hop", Durability::NextHop),
        ("none", Durability::None),
    ])
}

fn log_format() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    values::choice([("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn log_level() -> impl clap::builder::TypedValueParser<Value = LogLevel> {
    values::choice([
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ])
}

/// The host's name, if it could stand in a greeting. Containers and desktops are often called
/// something with an underscore; then the server is "localhost" until told better.
fn host_name() -> String {
    let name = gethostname::gethostname();
    name.to_str()
        .and_then(|name| values::domain(name).ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The fault of a certificate without a key, or of a key without a certificate.
fn unpaired(certs: &[PathBuf], keys: &[PathBuf]) -> Option<Fault> {
    let (cert_count, key_count) = (certs.len(), keys.len());
    if let Some(cert) = certs.get(key_count) {
        let text = format!(
            "{} has no --key: {cert_count} --cert, {key_count} --key",
            cert.display()
        );
        return Some(Fault::new("--cert", text));
    }
    let key = keys.get(cert_count)?;
    let text = format!(
        "{} has no --cert: {key_count} --key, {cert_count} --cert",
        key.display()
    );
    Some(Fault::new("--key", text))
}

fn without_repetition(names: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// Also where `queue` looks for a server.
pub(super) const DEFAULT_DATA_DIR: &str = "./ringpost-data";

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);
const DEFAULT_LISTEN_TLS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4650);

/// The kernel takes 32768 submission and 65536 completion entries, and we ask for four times as
/// many completion as submission entries. Below 32 a shard's own standing operations do not fit.
const RING_ENTRIES: std::ops::RangeInclusive<u32> = 32..=16384;

/// The kernel caps it at net.core.somaxconn anyway, 4096 by default.
const BACKLOG_MAX: u32 = 65535;

/// A client keeps one or two; each costs the server an encryption and some 250 octets.
const TICKETS_MAX: usize = 16;

/// Bounds of counts: above what a machine can serve, below what overflows in sums.
const RECIPIENTS_MAX: usize = 1_000_000;
const SESSIONS_MAX: usize = 10_000_000;
const ERRORS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    pub(super) fn resolved(words: &[&str]) -> (Config, Vec<Fault>) {
        let command = ServeFlags::augment_args(clap::Command::new("serve"))
            .args_override_self(true)
            .no_binary_name(true);
        let matches = command.try_get_matches_from(words).unwrap();
        ServeFlags::from_arg_matches(&matches).unwrap().resolve()
    }

    pub(super) fn written(faults: &[Fault]) -> Vec<String> {
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_flags() {
        let (config, faults) = resolved(&["--hostname", "mx.test"]);
        assert_eq!(faults, []);
        assert_eq!(config.listen, [DEFAULT_LISTEN]);
        assert_eq!(config.listen_tls, [DEFAULT_LISTEN_TLS]);
        assert_eq!(config.smtp.local_domains, ["localhost", "mx.test"]);
        assert_eq!(
            config.deliver,
            Target::Maildir("./ringpost-data/maildir".into())
        );
        assert_eq!(config.smtp.tcp, ChannelPolicy::default());
        assert_eq!(config.smtp.tls, ChannelPolicy::default());
        // The core has these defaults too; the flags must not drift from them.
        assert_eq!(config.smtp.limits, Limits::default());
        assert_eq!(config.smtp.stray_newline, StrayNewline::default());
        assert_eq!(config.tls, TlsSettings::default());
        assert_eq!(config.handshake_timeout, Duration::from_secs(30));
        assert_eq!(config.mail_memory_octets, 256 << 20);
        assert_eq!(
            (config.sessions_max, config.sessions_per_ip_max),
            (16384, 0)
        );
        assert_eq!(config.warnings(), []);
    }

    #[test]
    fn a_listener_of_one_kind_leaves_the_other_kind_out() {
        let (config, _) = resolved(&["--listen", "0.0.0.0:25", "--listen", "[::]:25"]);
        assert_eq!((config.listen.len(), config.listen_tls.len()), (2, 0));
        let (config, _) = resolved(&["--listen-tls", "0.0.0.0:465"]);
        assert_eq!((config.listen.len(), config.listen_tls.len()), (0, 1));
    }

    #[test]
    fn the_last_one_of_a_single_flag_counts() {
        let (config, _) = resolved(&["--pin", "yes", "--max-errors", "3", "--pin", "no"]);
        assert!(!config.pin);
        assert_eq!(config.smtp.limits.errors_max, 3);
    }

    #[test]
    fn pairs_and_derived_values() {
        let (config, faults) = resolved(&[
            "--cert",
            "a.crt",
            "--key",
            "a.key",
            "--key",
            "b.key",
            "--cert",
            "b.crt",
            "--data-dir",
            "/srv/mail",
            "--local-domain",
            "a.test",
            "--local-domain",
            "A.test.",
        ]);
        assert_eq!(faults, []);
        let pair = |cert: &str, key: &str| CertPair {
            cert: cert.into(),
            key: key.into(),
        };
        assert_eq!(
            config.certs,
            [pair("a.crt", "a.key"), pair("b.crt", "b.key")]
        );
        assert_eq!(config.deliver, Target::Maildir("/srv/mail/maildir".into()));
        assert_eq!(config.smtp.local_domains, ["a.test"]);
    }

    #[test]
    fn faults() {
        let long_greeting = "x".repeat(600);
        let rows: &[(&str, &[&str], &str)] = &[
            (
                "a cert without a key",
                &["--cert", "a.crt"],
                "--cert: a.crt has no --key",
            ),
            (
                "a key without a cert",
                &["--key", "a.key"],
                "--key: a.key has no --cert",
            ),
            (
                "two of one kind",
                &["--listen", "[::1]:25", "--listen", "[::1]:25"],
                "--listen: [::1]:25 is given twice",
            ),
            (
                "a TLS port on a TCP port",
                &["--listen", "[::1]:25", "--listen-tls", "[::1]:25"],
                "--listen-tls: [::1]:25 is already taken by --listen",
            ),
            (
                "metrics on a TCP port",
                &["--listen", "[::1]:25", "--metrics", "[::1]:25"],
                "--metrics: [::1]:25 is already taken by --listen",
            ),
            (
                "nobody to check against",
                &["--client-cert", "require"],
                "--client-cert: require needs",
            ),
            (
                "a greeting too long",
                &["--greeting", &long_greeting],
                "--greeting: makes a greeting of",
            ),
            (
                "a domain routed twice",
                &["--route", "a.test=discard", "--route", "A.test=discard"],
                "--route: a.test is routed twice",
            ),
        ];
        for (name, words, expected) in rows {
            let (_, faults) = resolved(words);
            let faults = written(&faults);
            assert_eq!(faults.len(), 1, "{name}: {faults:?}");
            assert!(faults[0].starts_with(expected), "{name}: {faults:?}");
        }
        let (_, faults) = resolved(&["--listen", "[::1]:0", "--listen", "[::1]:0"]);
        assert_eq!(faults, [], "port 0 is another port each time");
    }

    #[test]
    fn warnings() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "users are missing inside TLS",
                &["--tls-auth", "yes"],
                &["--tls-auth: without --users"],
            ),
            (
                "passwords in clear",
                &["--tcp-auth", "yes", "--users", "u"],
                &["--tcp-auth: passwords cross"],
            ),
            (
                "AUTH in clear that never comes to pass",
                &[
                    "--tcp-auth",
                    "yes",
                    "--users",
                    "u",
                    "--starttls",
                    "required",
                ],
                &["--tcp-auth: without effect"],
            ),
            (
                "nobody can send",
                &["--tcp-anonymous", "no", "--tls-anonymous", "no"],
                &[
                    "--tcp-anonymous: with --tcp-auth no",
                    "--tls-anonymous: with --tls-auth no",
                ],
            ),
            (
                "a certificate without TLS",
                &[
                    "--listen",
                    "[::1]:25",
                    "--starttls",
                    "off",
                    "--cert",
                    "c",
                    "--key",
                    "k",
                ],
                &["--cert: not used"],
            ),
            (
                "CAs without a question",
                &["--client-ca", "ca"],
                &["--client-ca: not used"],
            ),
            (
                "a question without CAs",
                &["--client-cert", "request"],
                &["--client-cert: without --client-ca"],
            ),
            (
                "an early greeting without a TLS port",
                &["--listen", "[::1]:25", "--early-greeting", "yes"],
                &["--early-greeting: without effect"],
            ),
            (
                "few recipients",
                &["--max-recipients", "99"],
                &["--max-recipients: RFC 5321"],
            ),
            ("enough recipients", &["--max-recipients", "100"], &[]),
            (
                "one large message beyond memory",
                &["--mail-memory", "255k"],
                &["--mail-memory: less than"],
            ),
            ("one large message", &["--mail-memory", "256k"], &[]),
            (
                "mail not synced",
                &["--durability", "none"],
                &["--durability: none"],
            ),
        ];
        for (name, words, expected) in rows {
            let (config, faults) = resolved(words);
            assert_eq!(faults, [], "{name}");
            let warnings = written(&config.warnings());
            assert_eq!(warnings.len(), expected.len(), "{name}: {warnings:?}");
            for (warning, expected) in std::iter::zip(&warnings, *expected) {
                assert!(warning.starts_with(expected), "{name}: {warning}");
            }
        }
    }
}
