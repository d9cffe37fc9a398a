//! `ringpost check`: what `serve` would run, or what keeps it from running.
//!
//! Claims: it takes the flags of `serve` and finds the faults of `serve`, by the same functions;
//! it makes and changes nothing. It does not promise that ports are free or that the ring is
//! allowed: another server may be running while its next configuration is checked.

use std::fmt::{Display, Write};

use super::serve::ServeFlags;
use super::values::{write_duration, write_octets};
use super::{Failed, print};
use crate::config::loaded::{Loaded, Purpose, development_directory};
use crate::config::{Config, Fault, LogFormat, LogLevel};
use crate::deliver::{Durability, OutTls};
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::server::{Anonymous, AuthOffer, ChannelPolicy, StartTls};
use crate::tls::material::KeyType;
use crate::tls::{ClientCert, MinVersion, Verify};

/// Prints the summary, or fails with a line for each fault.
pub(super) fn run(flags: ServeFlags) -> Result<(), Failed> {
    let (config, faults) = flags.resolve();
    let mut loaded = super::serve::load(&config, faults, Purpose::Check)?;
    let root = rustix::process::geteuid().is_root();
    if !root && (config.user.is_some() || config.group.is_some()) {
        let flag = if config.user.is_some() {
            "--user"
        } else {
            "--group"
        };
        loaded
            .warnings
            .push(Fault::new(flag, "only root can become somebody else"));
    }
    print(&summary(&config, &loaded))
}

/// What would run, in the order of the help.
fn summary(config: &Config, loaded: &Loaded) -> String {
    let mut summary = Summary(String::new());
    listening(config, &mut summary);
    tls(config, loaded, &mut summary);
    policy(config, loaded, &mut summary);
    limits(config, &mut summary);
    delivery(config, &mut summary);
    sending(config, &mut summary);
    process(config, &mut summary);
    if !loaded.warnings.is_empty() {
        summary.section("Warnings");
        for warning in &loaded.warnings {
            summary.line(warning);
        }
    }
    summary.0
}

fn listening(config: &Config, summary: &mut Summary) {
    summary.section("Listening");
    summary.entry(
        "greeting",
        format_args!("220 {} {}", config.hostname, config.smtp.greeting),
    );
    for address in &config.listen {
        summary.entry("TCP port", address);
    }
    for address in &config.listen_tls {
        let early = if config.early_greeting {
            ", greeting with the server's Finished"
        } else {
            ""
        };
        summary.entry("TLS port", format_args!("{address}{early}"));
    }
    summary.entry(
        "shards",
        format_args!(
            "{}{}, {} ring entries each{}",
            config.shards,
            if config.pin { ", pinned" } else { "" },
            config.ring_entries,
            if config.sqpoll {
                ", polled by the kernel"
            } else {
                ""
            },
        ),
    );
    summary.entry("backlog", config.backlog);
}

fn tls(config: &Config, loaded: &Loaded, summary: &mut Summary) {
    summary.section("TLS");
    let starttls = match config.smtp.starttls {
        StartTls::Off => "off",
        StartTls::On => "on",
        StartTls::Required => "required",
    };
    summary.entry("STARTTLS", starttls);
    for pair in &loaded.certified_keys {
        let names = if pair.names.is_empty() {
            "no name".to_owned()
        } else {
            pair.names.join(" ")
        };
        let until = jiff::Timestamp::try_from(pair.not_after).map_or_else(
            |_| "?".to_owned(),
            |time| time.strftime("%Y-%m-%d").to_string(),
        );
        summary.entry(
            "certificate",
            format_args!(
                "{} ({}, {names}, until {until})",
                pair.certificate_path.display(),
                write_key_type(pair.key_type)
            ),
        );
    }
    if loaded.certified_keys.is_empty() && config.speaks_tls() {
        summary.entry(
            "certificate",
            format_args!(
                "for development, made at the start in {}",
                development_directory(config).display()
            ),
        );
    }
    let min = match config.tls.min {
        MinVersion::Tls12 => "1.2",
        MinVersion::Tls13 => "1.3",
    };
    summary.entry("versions", format_args!("{min} and later"));
    summary.entry("groups", &config.tls.groups);
    summary.entry(
        "ciphers",
        config.tls.ciphers.as_deref().unwrap_or("OpenSSL's choice"),
    );
    let kept = match &config.ticket_keys {
        Some(path) if path.exists() => format!("keys in {}", path.display()),
        Some(path) => format!("keys in {}, made at the start", path.display()),
        None => "keys in memory".to_owned(),
    };
    summary.entry(
        "tickets",
        format_args!(
            "{}, good for {}, {kept}",
            config.tls.tickets,
            write_duration(config.tls.ticket_lifetime)
        ),
    );
    let client = match config.tls.client_cert {
        ClientCert::None => "not asked for",
        ClientCert::Request => "requested",
        ClientCert::Require => "required",
    };
    match &config.tls.client_ca {
        Some(path) => {
            summary.entry(
                "client's cert",
                format_args!("{client}, CAs in {}", path.display()),
            );
        }
        None => summary.entry("client's cert", client),
    }
}

fn policy(config: &Config, loaded: &Loaded, summary: &mut Summary) {
    summary.section("AUTH and policy");
    let clear = if config.smtp.starttls == StartTls::Required {
        "nothing is accepted".to_owned()
    } else {
        write_policy(config.smtp.tcp)
    };
    if !config.listen.is_empty() {
        summary.entry("in clear", clear);
    }
    if config.speaks_tls() {
        summary.entry("inside TLS", write_policy(config.smtp.tls));
    }
    match &config.users {
        Some(path) => {
            summary.entry(
                "users",
                format_args!("{} in {}", loaded.users.len(), path.display()),
            );
        }
        None => summary.entry("users", "none"),
    }

    summary.section("Who may send where");
    summary.entry(
        "from anyone",
        format_args!("to {}", config.smtp.local_domains.join(" ")),
    );
    let relays: Vec<String> = config
        .smtp
        .trusted_nets
        .iter()
        .map(ToString::to_string)
        .collect();
    if !relays.is_empty() {
        summary.entry("anywhere", format_args!("from {}", relays.join(" ")));
    }
    if [config.smtp.tcp.auth, config.smtp.tls.auth].contains(&AuthOffer::Yes) {
        summary.entry("anywhere", "after AUTH");
    }
    match (&config.recipients, &loaded.recipients) {
        (Some(path), Some(recipients)) => summary.entry(
            "recipients",
            format_args!("{} in {}", recipients.len(), path.display()),
        ),
        (_, _) => summary.entry("recipients", "all of these domains"),
    }
}

fn limits(config: &Config, summary: &mut Summary) {
    summary.section("Limits");
    let smtp = &config.smtp.limits;
    let stray = match config.smtp.stray_newline {
        StrayNewline::Normalize => "becomes CR LF",
        StrayNewline::Accept => "is kept",
        StrayNewline::Reject => "refuses the message",
    };
    summary.entry("lone CR or LF", stray);
    summary.entry(
        "message",
        format_args!(
            "{} octets, {} recipients",
            write_octets(smtp.message_octets_max),
            smtp.recipients_max
        ),
    );
    summary.entry(
        "mail in memory",
        format_args!("{} octets", write_octets(config.mail_memory_octets)),
    );
    let per_ip = match config.sessions_per_ip_max {
        0 => "any number".to_owned(),
        max => max.to_string(),
    };
    summary.entry(
        "sessions",
        format_args!("{}, {per_ip} from one address", config.sessions_max),
    );
    summary.entry("errors", format_args!("{} end a session", smtp.errors_max));
    summary.entry(
        "timeouts",
        format_args!(
            "command {}, data {}, session {}, handshake {}",
            write_duration(smtp.command_timeout),
            write_duration(smtp.data_timeout),
            write_duration(smtp.session_timeout),
            write_duration(config.handshake_timeout)
        ),
    );
}

fn delivery(config: &Config, summary: &mut Summary) {
    summary.section("Mail's way");
    summary.entry("data directory", config.data_dir.display());
    let durability = match config.durability {
        Durability::Disk => "on stable storage",
        Durability::NextHop => "the next hop has it, or on stable storage",
        Durability::None => "received",
    };
    summary.entry("250 means", durability);
    for (domain, target) in &config.routes {
        summary.entry("deliver", format_args!("{domain} to {target}"));
    }
    let rest = if config.routes.is_empty() {
        "everything"
    } else {
        "everything else"
    };
    summary.entry("deliver", format_args!("{rest} to {}", config.deliver));
}

fn sending(config: &Config, summary: &mut Summary) {
    summary.section("Sending");
    let sending = &config.sending;
    let waits = config.retry_schedule.waits().iter().copied();
    let waits: Vec<String> = waits.map(write_duration).collect();
    summary.entry(
        "retries",
        format_args!("after {}, the last goes on", waits.join(", ")),
    );
    let notice = match sending.delay_notice {
        Some(wait) => format!("its sender told after {}", write_duration(wait)),
        None => "its sender not told before".to_owned(),
    };
    let lifetime = write_duration(sending.queue_lifetime);
    summary.entry("given up", format_args!("after {lifetime}, {notice}"));
    if !config.targets().any(|(_, target)| target.is_next_hop()) {
        summary.entry("next hops", "none");
        return;
    }
    summary.entry("EHLO", &sending.helo);
    let tls = match sending.tls {
        OutTls::Off => "never asked for",
        OutTls::Negotiated => "where it is offered, in clear elsewhere",
        OutTls::Required => "required, without it mail waits",
    };
    summary.entry("STARTTLS", tls);
    if sending.clear_after_tls_failure && sending.tls == OutTls::Negotiated {
        summary.entry("handshake fails", "a new connection, in clear");
    }
    let verify = match sending.client.verify {
        Verify::Yes => "must prove its name",
        Verify::No => "need not prove its name",
    };
    match &sending.client.ca {
        Some(path) => summary.entry(
            "next hop",
            format_args!("{verify}, CAs in {}", path.display()),
        ),
        None => summary.entry("next hop", format_args!("{verify}, the system's CAs")),
    }
    if let Some((certificate, _)) = &sending.client.certificate {
        summary.entry(
            "our certificate",
            format_args!("{}, if asked for", certificate.display()),
        );
    }
    for login in &config.logins {
        let (place, name, password) = (&login.place, &login.name, login.password.display());
        summary.entry(
            "login",
            format_args!("{place} as {name}, password in {password}"),
        );
    }
    summary.entry(
        "connections",
        format_args!(
            "{}, {} to one next hop",
            sending.connections_max, sending.connections_per_hop_max
        ),
    );
    match sending.dns {
        Some(server) => summary.entry("DNS", server),
        None => summary.entry("DNS", "the system's"),
    }
    if config.durability == Durability::NextHop {
        let wait = write_duration(sending.next_hop_timeout);
        summary.entry(
            "senders wait",
            format_args!("{wait} for the next hop, then its copy is on disk"),
        );
    }
}

fn process(config: &Config, summary: &mut Summary) {
    summary.section("Process");
    summary.entry(
        "drain",
        format_args!("at most {}", write_duration(config.drain_timeout)),
    );
    if let Some(user) = &config.user {
        summary.entry("user", user);
    }
    if let Some(group) = &config.group {
        summary.entry("group", group);
    }

    summary.section("Watching");
    match config.metrics {
        Some(address) => summary.entry("metrics", format_args!("http://{address}/metrics")),
        None => summary.entry("metrics", "off"),
    }
    let format = match config.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "JSON",
    };
    let level = match config.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    summary.entry("log", format_args!("{format}, {level} and worse"));
}

fn write_policy(policy: ChannelPolicy) -> String {
    let auth = match policy.auth {
        AuthOffer::Yes => "AUTH offered",
        AuthOffer::No => "no AUTH",
    };
    let anonymous = match policy.anonymous {
        Anonymous::Yes => "mail without AUTH taken",
        Anonymous::No => "no mail without AUTH",
    };
    format!("{auth}, {anonymous}")
}

fn write_key_type(key_type: KeyType) -> String {
    match key_type {
        KeyType::Rsa => "RSA".to_owned(),
        KeyType::Ecdsa => "ECDSA".to_owned(),
        KeyType::Ed25519 => "Ed25519".to_owned(),
        KeyType::Other(number) => format!("key type {number}"),
    }
}

/// The text, by sections of labelled lines. Writing to a `String` cannot fail.
struct Summary(String);

impl Summary {
    fn section(&mut self, title: &str) {
        let _ = writeln!(self.0, "{title}");
    }

    fn entry(&mut self, label: &str, value: impl Display) {
        let _ = writeln!(self.0, "  {label:<16}{value}");
    }

    fn line(&mut self, value: impl Display) {
        let _ = writeln!(self.0, "  {value}");
    }
}
