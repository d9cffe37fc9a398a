//! What a run is to do, as a value: whom it loads, with what, how fast, and for how long.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::SslVersion;
use ringpost::smtp::client::Login;
use serde::Serialize;

use crate::mail::Mail;
use crate::process::Cores;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// How TLS comes about.
    pub mode: Mode,
    /// Connections at the same time, over all threads.
    pub connections: usize,
    /// Messages in each session; 0: as many as there are.
    pub messages_per_session: u64,
    /// When messages are sent.
    pub pace: Pace,
    /// When it ends.
    pub extent: Extent,
    /// What comes before anything counts.
    pub warmup: Duration,
    /// What is sent.
    pub mail: Arc<Mail>,
    /// From whom, to whom.
    pub envelope: Envelope,
    /// The name given in EHLO.
    pub helo: String,
    /// Whether commands may leave together (RFC 2920), where the server lists it.
    pub pipelining: bool,
    /// Whether messages leave by BDAT (RFC 3030), where the server lists it.
    pub chunking: bool,
    /// TLS, where there is any.
    pub tls: TlsPlan,
    /// The login, where there is one.
    pub login: Option<Login>,
    /// Threads that make load.
    pub threads: usize,
    /// The cores they may use; none: any.
    pub cores: Option<Cores>,
    /// The addresses that connections come from, in turn; none: the kernel's choice.
    pub source_addresses: Vec<IpAddr>,
    /// How long a reply may take.
    pub timeout: Duration,
    /// Where all that is random comes from.
    pub seed: u64,
    /// Whether each message's times are kept.
    pub samples: bool,
}

impl Plan {
    /// The load in words, for a report.
    pub fn describe(&self) -> String {
        self.describe_with(&match self.pace {
            Pace::Closed => "closed loop, as fast as replies come".to_owned(),
            Pace::Open { rate, arrivals } => {
                format!(
                    "open loop, {rate} messages a second at {}",
                    arrivals.words()
                )
            }
        })
    }

    /// The same for runs that differ in their pace.
    pub fn describe_with(&self, pace: &str) -> String {
        let recipients = match self.envelope.recipients.len() {
            1 => String::new(),
            recipients => format!(" to {recipients} recipients each"),
        };
        let several = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        format!(
            "{}{recipients}; {}, {}; {pace}",
            self.mail.describe(),
            several(self.connections, "connection"),
            several(self.threads, "thread")
        )
    }
}

/// How TLS comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not at all.
    Plain,
    /// Negotiated: STARTTLS on a TCP port (RFC 3207).
    Starttls,
    /// Implicit: from the first octet on a TLS port (RFC 8314 §3).
    Tls,
}

impl Mode {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Starttls => "starttls",
            Mode::Tls => "tls",
        }
    }
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends the next message when it has the reply to the last one: as fast as the server
    /// allows, so that a slow server is asked less.
    Closed,
    /// By a schedule, whatever the server does. A message counts from the moment when it was due.
    Open {
        /// Messages a second, over all threads.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
}

/// How messages are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Even,
    /// At random, independent of each other: a Poisson process, as mail from many senders comes.
    Random,
}

impl Arrivals {
    /// For a report.
    pub fn words(self) -> &'static str {
        match self {
            Arrivals::Even => "equal distances",
            Arrivals::Random => "random distances",
        }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After so long, the warm-up not counted.
    Duration(Duration),
    /// After so many messages, those of the warm-up not counted.
    Messages(u64),
}

/// From whom, to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path without brackets.
    pub sender: String,
    /// The forward-paths without brackets.
    pub recipients: Vec<String>,
}

impl Envelope {
    /// To so many recipients: the one that is given, and others by number in front of its `@`.
    pub fn new(sender: &str, recipient: &str, recipients: usize) -> Envelope {
        let (local, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
        let numbered = (2..=recipients).map(|number| format!("{local}-{number}@{domain}"));
        Envelope {
            sender: sender.to_owned(),
            recipients: std::iter::once(recipient.to_owned())
                .chain(numbered)
                .collect(),
        }
    }
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsPlan {
    /// The share of the sessions that offer a ticket, 0 to 1.
    pub resume: f64,
    /// The one version that is spoken; none: the best that both have.
    pub version: Option<SslVersion>,
    /// Groups, in OpenSSL's syntax; none: its default.
    pub groups: Option<String>,
    /// The name asked for (SNI), and verified with `ca`.
    pub server_name: Option<String>,
    /// Trust anchors; none: nobody is verified.
    pub ca: Option<PathBuf>,
}
