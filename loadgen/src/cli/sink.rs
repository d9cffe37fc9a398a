//! `ringpost-loadgen sink`: flags, and the life of the process around a [`Sink`].
//!
//! Claims: where it listens is on standard output, and flushed, once connections are taken; what was
//! counted is on standard output, or in the file of `--json`, whichever way it ends.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringpost::cli::values::{address, count, duration, duration_or_zero, yes_no};

use super::Failed;
use super::output::{cannot_write, print};
use crate::observe::Interrupt;
use crate::process::raise_descriptors_max;
use crate::sink::{
    Act, Channel, Counts, Extension, Extensions, Protocol, Refusal, Rule, Settings, Share, Sink,
    Stage, Stall,
};

/// The flags of `sink`.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Listen here in clear, with STARTTLS; may be repeated [default: 127.0.0.1:0, unless
    /// --listen-tls is given]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, help_heading = "Listening")]
    listen: Vec<SocketAddr>,
    /// Listen here with TLS from the first octet; may be repeated
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, help_heading = "Listening")]
    listen_tls: Vec<SocketAddr>,
    /// Listen on other than loopback addresses too
    #[arg(long, help_heading = "Listening")]
    allow_remote: bool,
    /// Threads, with a listening socket each for every address
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads(), help_heading = "Listening")]
    threads: NonZeroUsize,

    /// Speak LMTP: LHLO, and a final reply for each recipient
    #[arg(long, help_heading = "Protocol")]
    lmtp: bool,
    /// List STARTTLS in clear
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_no(), action = clap::ArgAction::Set, help_heading = "Protocol")]
    starttls: bool,
    /// Certificate chain, PEM; without it a certificate for localhost is made in memory
    #[arg(long, value_name = "FILE", help_heading = "Protocol")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", help_heading = "Protocol")]
    key: Option<PathBuf>,
    /// Neither list nor take this extension; may be repeated
    #[arg(long, value_name = "EXTENSION", value_parser = extension, help_heading = "Protocol")]
    hide: Vec<Extension>,

    /// Wait before the reply of a stage; may be repeated
    #[arg(long, value_name = "STAGE[:SHARE]=DUR", value_parser = delay, help_heading = "Misbehaviour")]
    delay: Vec<Rule>,
    /// Close the connection at a stage, without a reply; may be repeated
    #[arg(long, value_name = "STAGE[:SHARE]", value_parser = drop_at, help_heading = "Misbehaviour")]
    drop: Vec<Rule>,
    /// Answer a stage with this reply, of 4yz or 5yz; behind 421 the connection is closed. For
    /// handshake it is the number of a TLS alert. May be repeated
    #[arg(long, value_name = "STAGE[:SHARE]=REPLY", value_parser = refuse, help_heading = "Misbehaviour")]
    refuse: Vec<Rule>,
    /// Read and say nothing for DUR, AT after the first connection; may be repeated
    #[arg(long, value_name = "AT:DUR", value_parser = stall, help_heading = "Misbehaviour")]
    stall: Vec<Stall>,
    /// Chooses on which occurrences a share falls
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        help_heading = "Misbehaviour"
    )]
    seed: u64,

    /// End when so many messages were taken, and the sessions under way, within a second
    #[arg(long, value_name = "N", value_parser = count(1..=u64::MAX), help_heading = "End")]
    messages: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "DUR", value_parser = duration, help_heading = "End")]
    duration: Option<Duration>,
    /// End a connection whose peer is silent for so long
    #[arg(long, value_name = "DUR", default_value = "5m", value_parser = duration, help_heading = "End")]
    idle_timeout: Duration,
    /// Write the counts here as JSON, one line; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "End")]
    json: Option<PathBuf>,
}

/// Runs a sink to its end and tells what it counted.
pub(super) async fn run(flags: &Flags) -> Result<(), Failed> {
    let settings = flags.settings()?;
    let report = Report::open(flags.json.as_deref())?;
    // As many connections as the system allows us. Fewer are no reason not to run.
    let _ = raise_descriptors_max();
    // Before anyone can know that we run: a signal must not end us without the counts.
    let mut interrupt = Interrupt::new().map_err(|error| Failed::because(&error))?;
    let sink = Sink::start(&settings).map_err(|error| Failed::Running(error.to_string()))?;
    print(&listening(&sink, settings.protocol))?;
    let time_is_up = async {
        match flags.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = interrupt.heard() => {}
        () = time_is_up => {}
        () = sink.drained() => {}
    }
    let counts = sink.end();
    report.write(&counts)
}

impl Flags {
    fn settings(&self) -> Result<Settings, Failed> {
        let mut listeners: Vec<(SocketAddr, Channel)> = Vec::new();
        listeners.extend(self.listen.iter().map(|address| (*address, Channel::Clear)));
        listeners.extend(
            self.listen_tls
                .iter()
                .map(|address| (*address, Channel::Tls)),
        );
        if listeners.is_empty() {
            listeners.push((SocketAddr::from(([127, 0, 0, 1], 0)), Channel::Clear));
        }
        for (address, channel) in &listeners {
            if !self.allow_remote && !address.ip().is_loopback() {
                let flag = match channel {
                    Channel::Clear => "--listen",
                    Channel::Tls => "--listen-tls",
                };
                return Err(Failed::Arguments(format!(
                    "{flag} {address}: not a loopback address; --allow-remote permits it"
                )));
            }
        }
        let certificate = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Failed::Arguments(String::from("--cert: needs --key too")));
            }
            (None, Some(_)) => {
                return Err(Failed::Arguments(String::from("--key: needs --cert too")));
            }
        };
        let mut hidden = self.hide.clone();
        if !self.starttls {
            hidden.push(Extension::StartTls);
        }
        Ok(Settings {
            listeners,
            threads: self.threads,
            protocol: if self.lmtp {
                Protocol::Lmtp
            } else {
                Protocol::Smtp
            },
            extensions: Extensions::all_but(&hidden),
            certificate,
            rules: [&self.delay, &self.drop, &self.refuse]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            seed: self.seed,
            stalls: self.stall.clone(),
            idle: self.idle_timeout,
            messages_max: self.messages,
        })
    }
}

/// Where the counts go.
enum Report {
    Text,
    JsonToStdout,
    JsonToFile(PathBuf, File),
}

impl Report {
    /// A file is made at once: that it cannot be is not to be found out at the end of a long run.
    fn open(json: Option<&Path>) -> Result<Report, Failed> {
        match json {
            None => Ok(Report::Text),
            Some(path) if path == Path::new("-") => Ok(Report::JsonToStdout),
            Some(path) => match File::create(path) {
                Ok(file) => Ok(Report::JsonToFile(path.to_owned(), file)),
                Err(error) => Err(cannot_write(path, &error)),
            },
        }
    }

    fn write(self, counts: &Counts) -> Result<(), Failed> {
        let json = || {
            serde_json::to_string(counts)
                .map(|line| line + "\n")
                .map_err(|error| Failed::Running(format!("cannot write the counts: {error}")))
        };
        match self {
            Report::Text => print(&counts.to_string()),
            Report::JsonToStdout => print(&json()?),
            Report::JsonToFile(path, mut file) => {
                file.write_all(json()?.as_bytes())
                    .map_err(|error| cannot_write(&path, &error))?;
                print(&counts.to_string())
            }
        }
    }
}

/// A line a listener.
fn listening(sink: &Sink, protocol: Protocol) -> String {
    let line = |(address, channel): &(SocketAddr, Channel)| {
        let speaks = match (protocol, channel) {
            (Protocol::Smtp, Channel::Clear) => "smtp",
            (Protocol::Smtp, Channel::Tls) => "smtps",
            (Protocol::Lmtp, Channel::Clear) => "lmtp",
            (Protocol::Lmtp, Channel::Tls) => "lmtps",
        };
        format!("listening on {address} ({speaks})\n")
    };
    sink.addresses().iter().map(line).collect()
}

fn threads() -> impl Fn(&str) -> Result<NonZeroUsize, String> + Clone + Send + Sync + 'static {
    let number = count(1..=THREADS_MAX);
    move |text| number(text).map(|number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
}

fn extension(text: &str) -> Result<Extension, String> {
    Extension::named(text).ok_or_else(|| {
        let keywords = Extension::ALL.map(Extension::keyword);
        format!("must be one of {}", keywords.join(", "))
    })
}

/// `STAGE[:SHARE]`.
fn occurrences(text: &str) -> Result<(Stage, Share), String> {
    let (stage, share) = match text.split_once(':') {
        None => (text, Share::ALL),
        Some((stage, share)) => {
            let share = share.parse().ok().and_then(Share::new);
            let share = share.ok_or("the share must be a number from 0 to 1")?;
            (stage, share)
        }
    };
    let stage = Stage::named(stage).ok_or_else(|| {
        let names = Stage::ALL.map(Stage::label);
        format!("the stage must be one of {}", names.join(", "))
    })?;
    Ok((stage, share))
}

/// `STAGE[:SHARE]=VALUE`.
fn with_value<'t>(text: &'t str, value: &str) -> Result<(Stage, Share, &'t str), String> {
    let (place, given) = text
        .split_once('=')
        .ok_or_else(|| format!("must be STAGE[:SHARE]={value}"))?;
    let (stage, share) = occurrences(place)?;
    Ok((stage, share, given))
}

fn delay(text: &str) -> Result<Rule, String> {
    let (stage, share, given) = with_value(text, "DUR")?;
    let act = Act::Delay(duration(given)?);
    Ok(Rule { stage, share, act })
}

fn drop_at(text: &str) -> Result<Rule, String> {
    let (stage, share) = occurrences(text)?;
    let act = Act::Drop;
    Ok(Rule { stage, share, act })
}

fn refuse(text: &str) -> Result<Rule, String> {
    let (stage, share, given) = with_value(text, "REPLY")?;
    let refusal = match stage {
        Stage::Handshake => given
            .parse()
            .map(Refusal::Alert)
            .map_err(|_| "for handshake it must be a TLS alert, as in 40 (handshake_failure)")?,
        Stage::Connect
        | Stage::Ehlo
        | Stage::StartTls
        | Stage::Auth
        | Stage::Mail
        | Stage::Rcpt
        | Stage::Data
        | Stage::Content
        | Stage::Quit => Refusal::reply(given).ok_or(
            "the reply must be one line of ASCII with a code of 4yz or 5yz, as in 450 4.2.0 busy",
        )?,
    };
    let act = Act::Refuse(refusal);
    Ok(Rule { stage, share, act })
}

fn stall(text: &str) -> Result<Stall, String> {
    let (at, lasts) = text.split_once(':').ok_or("must be AT:DUR, as in 5s:1s")?;
    Ok(Stall {
        at: duration_or_zero(at)?,
        lasts: duration(lasts)?,
    })
}

/// What the values of flags look like, for `--help`.
pub(super) const FORMS_HELP: &str = "\
Forms:
  STAGE     connect (before the greeting), ehlo, starttls, handshake, auth, mail, rcpt, data (the
            reply to DATA, or to a BDAT chunk), content (the final reply, behind the last chunk
            too), quit
  SHARE     of the stage's occurrences, 0 to 1; without it all. Which ones, --seed decides
  REPLY     as in '450 4.2.0 busy'
  DUR, AT   a number with ms, s, m, h or d
  EXTENSION a keyword of the EHLO reply
Delays of one stage add up and come first; of its drops and refusals the first one given counts,
drops before refusals.";

const THREADS_MAX: usize = 256;
