//! What the server was told to do: resolved and validated values, and nothing read from a file yet.
//!
//! Apart from the flags because the control thread and the shards read these values and must not
//! know clap. Plain data: every default is filled in, every text parsed.
//! Claims:
//! - [`Config::faults`] looks at the values alone; what the named files hold is `loaded`'s part.
//! - A fault stops `serve` and `check` alike, with the same line; a warning stops neither.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::deliver::target::Target;
use crate::deliver::{Durability, RetrySchedule, Sending};
use crate::smtp::data::Budget;
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::server::{
    Anonymous, AuthOffer, ChannelPolicy, KnownRecipients, Limits, LocalDomains, Settings,
    SettingsError, StartTls,
};
use crate::tls::{ClientCert, TlsSettings};

pub mod loaded;
mod sending;

/// Everything `serve` was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name in the greeting, in EHLO and in trace fields; an A-label form.
    pub hostname: String,
    /// TCP ports: listeners that greet in clear.
    pub listen: Vec<SocketAddr>,
    /// TLS ports: listeners that speak TLS from the first octet.
    pub listen_tls: Vec<SocketAddr>,
    /// Threads that run sessions.
    pub shards: NonZeroUsize,
    /// Whether a shard is pinned to its core.
    pub pin: bool,
    /// Submission entries of a shard's ring.
    pub ring_entries: u32,
    /// Whether a kernel thread polls the submission queue.
    pub sqpoll: bool,
    /// Connections the kernel holds for a listener until they are accepted.
    pub backlog: u32,
    /// Whether the greeting on a TLS port leaves with the server's Finished.
    pub early_greeting: bool,
    /// Certificates with their keys. Empty: a development certificate below `data_dir`.
    pub certs: Vec<CertPair>,
    /// How TLS is spoken.
    pub tls: TlsSettings,
    /// Where ticket keys are kept over restarts. `None`: in memory.
    pub ticket_keys: Option<PathBuf>,
    /// The `name:hash` file of those who may log in.
    pub users: Option<PathBuf>,
    /// The file of known addresses. `None`: every local part of a local domain is known.
    pub recipients: Option<PathBuf>,
    /// What the protocol core is told.
    pub smtp: SmtpSettings,
    /// Sessions open at a time, over all shards.
    pub sessions_max: usize,
    /// Sessions open at a time from one address; 0 means no limit.
    pub sessions_per_ip_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Octets of mail data held in memory by the whole process.
    pub mail_memory_octets: u64,
    /// Where everything of ours lies.
    pub data_dir: PathBuf,
    /// What 250 promises.
    pub durability: Durability,
    /// Octets that the spool may take on disk.
    pub spool_octets_max: u64,
    /// Messages that the queue may hold.
    pub queue_messages_max: u64,
    /// Octets of one segment of the spool.
    pub segment_octets: u64,
    /// Where mail goes that no route names.
    pub deliver: Target,
    /// Where mail for single domains goes; the domains are lower-case A-label forms.
    pub routes: Vec<(String, Target)>,
    /// When what could not be delivered is tried again.
    pub retry_schedule: RetrySchedule,
    /// How mail is sent on. The logins are still in their files.
    pub sending: Sending,
    /// Who is logged in as, and where the passwords lie.
    pub logins: Vec<LoginFile>,
    /// How long transactions under way may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// The user to become once the listeners are bound.
    pub user: Option<String>,
    /// The group to become once the listeners are bound.
    pub group: Option<String>,
    /// Where metrics and health are served.
    pub metrics: Option<SocketAddr>,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The least severe event that is logged.
    pub log_level: LogLevel,
}

/// A certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertPair {
    /// PEM: leaf first, then the chain.
    pub cert: PathBuf,
    /// PEM: the leaf's private key.
    pub key: PathBuf,
}

/// A login at a next hop, and the file that holds its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFile {
    /// The next hop's host, or a recipient domain: a name in lower-case A-labels, or an address without brackets.
    pub place: String,
    /// The name to log in by.
    pub name: String,
    /// The password is the first line.
    pub password: PathBuf,
}

/// What the protocol core is told, but for the files.
#[derive(Debug, Clone)]
pub struct SmtpSettings {
    /// The text behind the host name in the greeting.
    pub greeting: String,
    /// Whether a clear channel can or must become TLS.
    pub starttls: StartTls,
    /// The policy of clear channels.
    pub tcp: ChannelPolicy,
    /// The policy inside TLS, however it came about.
    pub tls: ChannelPolicy,
    /// Domains whose recipients anyone may name: lower-case A-label forms or address literals.
    pub local_domains: Vec<String>,
    /// Networks that may relay without AUTH.
    pub trusted_nets: Vec<IpNet>,
    /// What becomes of a lone CR or LF in DATA.
    pub stray_newline: StrayNewline,
    /// What a peer may use.
    pub limits: Limits,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe event that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures of the machine or of ours.
    Error,
    /// What an operator should look at.
    Warn,
    /// Sessions and transactions.
    Info,
    /// Steps inside a session.
    Debug,
    /// Everything.
    Trace,
}

/// Something that keeps the server from running as told: one line, naming the flag, and the file
/// where it is one's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The flag to change, with its dashes.
    pub flag: &'static str,
    /// What is wrong, and in which file.
    pub text: String,
}

impl Fault {
    /// A fault of the flag's value, of its combination with others, or of the file it names.
    pub fn new(flag: &'static str, text: impl Into<String>) -> Fault {
        let text = text.into();
        // Some errors name their flag themselves; once is enough.
        let rest = text
            .strip_prefix(flag)
            .map(|rest| rest.trim_start_matches([':', ' ']));
        Fault {
            flag,
            text: rest.map(str::to_owned).unwrap_or(text),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts come from libraries too, and a fault is one line whatever they say.
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(formatter, "{}: {text}", self.flag)
    }
}

impl Config {
    /// What cannot be run, as far as the values alone show it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.listener_faults(&mut faults);
        if self.tls.client_cert == ClientCert::Require && self.tls.client_ca.is_none() {
            faults.push(Fault::new(
                "--client-cert",
                "require needs --client-ca, else nobody could come in",
            ));
        }
        if let Err(error) = self.local_domains() {
            faults.push(Fault::new("--local-domain", error.to_string()));
        }
        let greeting_octets = "220  \r\n".len() + self.hostname.len() + self.smtp.greeting.len();
        if greeting_octets > REPLY_LINE_OCTETS_MAX {
            faults.push(Fault::new(
                "--greeting",
                format!(
                    "makes a greeting of {greeting_octets} octets, \
                     a reply line has at most {REPLY_LINE_OCTETS_MAX}"
                ),
            ));
        }
        self.spool_faults(&mut faults);
        let mut routed: Vec<&str> = Vec::new();
        for (domain, _) in &self.routes {
            if routed.contains(&domain.as_str()) {
                faults.push(Fault::new("--route", format!("{domain} is routed twice")));
            }
            routed.push(domain);
        }
        self.sending_faults(&mut faults);
        faults
    }

    /// What runs, but hardly as meant.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = Vec::new();
        let mut warn = |flag, text: &str| warnings.push(Fault::new(flag, text));
        let smtp = &self.smtp;
        let clear = !self.listen.is_empty() && smtp.starttls != StartTls::Required;
        let secure = self.speaks_tls();
        if smtp.tcp.auth == AuthOffer::Yes {
            if smtp.starttls == StartTls::Required {
                warn("--tcp-auth", "without effect under --starttls required");
            } else {
                warn("--tcp-auth", "passwords cross the network in clear");
            }
        }
        if self.users.is_none() {
            if smtp.tls.auth == AuthOffer::Yes {
                warn("--tls-auth", "without --users every login fails");
            }
            if smtp.tcp.auth == AuthOffer::Yes {
                warn("--tcp-auth", "without --users every login fails");
            }
        }
        let silent = |policy: ChannelPolicy| {
            policy.auth == AuthOffer::No && policy.anonymous == Anonymous::No
        };
        if clear && silent(smtp.tcp) {
            warn(
                "--tcp-anonymous",
                "with --tcp-auth no, no mail is taken in clear",
            );
        }
        if secure && silent(smtp.tls) {
            warn(
                "--tls-anonymous",
                "with --tls-auth no, no mail is taken inside TLS",
            );
        }
        if !secure && !self.certs.is_empty() {
            warn("--cert", "not used: --starttls off and no TLS port");
        }
        if self.tls.client_cert == ClientCert::Request && self.tls.client_ca.is_none() {
            warn(
                "--client-cert",
                "without --client-ca a certificate proves nothing, it is logged",
            );
        }
        if self.tls.client_cert == ClientCert::None && self.tls.client_ca.is_some() {
            warn("--client-ca", "not used under --client-cert none");
        }
        if self.early_greeting && self.listen_tls.is_empty() {
            warn("--early-greeting", "without effect: no TLS port");
        }
        if smtp.limits.recipients_max < RECIPIENTS_FLOOR {
            warn(
                "--max-recipients",
                "RFC 5321 section 4.5.3.1.8 asks for at least 100",
            );
        }
        if self.mail_memory_octets < MESSAGE_MEMORY_OCTETS_MAX {
            warn(
                "--mail-memory",
                "less than is held of one large message (256k): mail gets 452 early",
            );
        }
        if self.durability == Durability::None {
            warn(
                "--durability",
                "none: accepted mail may be lost with the power",
            );
        }
        self.sending_warnings(&mut warnings);
        warnings
    }

    /// Every target, with the flag that names it.
    pub fn targets(&self) -> impl Iterator<Item = (&'static str, &Target)> {
        let routes = self.routes.iter().map(|(_, target)| ("--route", target));
        std::iter::once(("--deliver", &self.deliver)).chain(routes)
    }

    /// Whether any channel can be TLS; without one no certificate is needed.
    pub fn speaks_tls(&self) -> bool {
        !self.listen_tls.is_empty()
            || (!self.listen.is_empty() && self.smtp.starttls != StartTls::Off)
    }

    /// What a shard tells its sessions, with the file that is loaded and the budget that all
    /// shards share.
    pub fn session_settings(
        &self,
        recipients: Option<KnownRecipients>,
        budget: Arc<Budget>,
    ) -> Result<Settings, SettingsError> {
        Ok(Settings {
            hostname: self.hostname.clone(),
            greeting: self.smtp.greeting.clone(),
            starttls: self.smtp.starttls,
            tcp: self.smtp.tcp,
            tls: self.smtp.tls,
            local_domains: self.local_domains()?,
            trusted_nets: self.smtp.trusted_nets.clone(),
            recipients,
            stray_newline: self.smtp.stray_newline,
            limits: self.smtp.limits,
            budget,
        })
    }

    fn local_domains(&self) -> Result<LocalDomains, SettingsError> {
        let mut names = self.smtp.local_domains.iter().map(String::as_str);
        LocalDomains::new(names.next().unwrap_or(&self.hostname), names)
    }

    fn spool_faults(&self, faults: &mut Vec<Fault>) {
        let recipients = u64::try_from(self.smtp.limits.recipients_max).unwrap_or(u64::MAX);
        let entry_max = recipients
            .saturating_mul(RECIPIENT_OCTETS_MAX)
            .saturating_add(MESSAGE_MEMORY_OCTETS_MAX)
            .saturating_add(ENTRY_OCTETS_BESIDE);
        if self.segment_octets < entry_max {
            faults.push(Fault::new(
                "--spool-segment-bytes",
                format!(
                    "{} octets do not hold a message for {recipients} recipients \
                     (--max-recipients), which takes up to {entry_max}",
                    self.segment_octets
                ),
            ));
        }
        let shards = u64::try_from(self.shards.get()).unwrap_or(u64::MAX);
        let least = self
            .segment_octets
            .saturating_mul(shards)
            .saturating_mul(SEGMENTS_MIN);
        if self.spool_octets_max < least {
            faults.push(Fault::new(
                "--spool-max-bytes",
                format!(
                    "must be at least {least}: {SEGMENTS_MIN} segments (--spool-segment-bytes) \
                     for each of {shards} shards (--shards)"
                ),
            ));
        }
    }

    fn listener_faults(&self, faults: &mut Vec<Fault>) {
        let listeners = (self.listen.iter().map(|address| ("--listen", address)))
            .chain(
                self.listen_tls
                    .iter()
                    .map(|address| ("--listen-tls", address)),
            )
            .chain(self.metrics.iter().map(|address| ("--metrics", address)));
        let mut bound: Vec<(&str, &SocketAddr)> = Vec::new();
        for (flag, address) in listeners {
            // Port 0 is another port each time.
            if address.port() != 0
                && let Some((first, _)) = bound.iter().find(|(_, other)| *other == address)
            {
                let text = if *first == flag {
                    format!("{address} is given twice")
                } else {
                    format!("{address} is already taken by {first}")
                };
                faults.push(Fault::new(flag, text));
            }
            bound.push((flag, address));
        }
    }
}

/// Octets of one message that are held in memory while it comes in; a larger one goes to a file of its own.
pub const MESSAGE_MEMORY_OCTETS_MAX: u64 = 256 * 1024;

/// Of one recipient in the spool: the path as given, local part and domain; ORCPT and NOTIFY; and why it waits, each
/// with its length. When a message moves to another segment all of it goes there at once.
const RECIPIENT_OCTETS_MAX: u64 = 1024 + 512 + 512;

/// The rest of an entry in the spool: heads, the reverse-path, ENVID, the Received field, and what one block of
/// mail data may go over the bound.
const ENTRY_OCTETS_BESIDE: u64 = 512 * 1024;

/// One that is written to, and one behind it.
const SEGMENTS_MIN: u64 = 2;

/// RFC 5321 §4.5.3.1.5, CR LF included.
const REPLY_LINE_OCTETS_MAX: usize = 512;

/// RFC 5321 §4.5.3.1.8.
const RECIPIENTS_FLOOR: usize = 100;
