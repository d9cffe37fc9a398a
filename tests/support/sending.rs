//! What the tests of sending share: a server that relays, mail into it, and all that is told of the mail behind it.
//!
//! The names of log fields, metrics and JSON members that those tests rely on stand here and nowhere else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::client::{Client, Reply};
use super::eventually;
use super::metrics::Scrape;
use super::programs::{self, Ended};
use super::report::Report;
use super::server::{BINARY, Server, Setup, field};
use super::sink::Sink;

/// Who sends. Reports to it come into a Maildir of the server's own.
pub(crate) const SENDER: &str = "alice@home.test";

/// A server that sends all mail to this target, but that to `home.test`, and tries again at once.
pub(crate) fn relay(target: &str) -> Setup {
    let setup = Setup::new();
    let home = format!("home.test=maildir:{}", setup.path("mail").display());
    setup
        .flag("--deliver", target)
        .also("--route", home)
        .flag("--trusted-net", "127.0.0.0/8")
        .flag("--retry-schedule", "100ms")
}

/// Where the mail of a domain goes, as `--route` takes it.
pub(crate) fn route(domain: &str, sink: &Sink) -> String {
    format!("{domain}={}", sink.target())
}

/// Gives a message to a server octet for octet. `from` and `to` are what stands behind the colon, with parameters
/// or without: `<a@b.test> RET=HDRS`.
pub(crate) fn submit(client: &mut Client, from: &str, to: &[&str], text: &[u8]) -> Reply {
    let mut commands = format!("MAIL FROM:{from}\r\n");
    for recipient in to {
        commands += &format!("RCPT TO:{recipient}\r\n");
    }
    client.send(commands);
    for _ in 0..=to.len() {
        client.expect(250);
    }
    // By BDAT, which has no dots to stuff and no line end to add.
    client.send([format!("BDAT {} LAST\r\n", text.len()).as_bytes(), text].concat());
    client.reply()
}

/// A client of a relay that has said EHLO.
pub(crate) fn greeted(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.expect(220);
    client.ehlo();
    client
}

/// The same for one message; its queue id.
pub(crate) fn send_as(server: &Server, from: &str, to: &[&str], text: &[u8]) -> String {
    let mut client = greeted(server.tcp());
    let reply = submit(&mut client, from, to, text);
    reply.begins("250 2.0.0 Ok: queued as ");
    client.quit();
    reply.first().rsplit(' ').next().unwrap().to_owned()
}

/// A message from `SENDER` to mailboxes as they are.
pub(crate) fn send(server: &Server, to: &[&str], text: &[u8]) -> String {
    let to: Vec<String> = to.iter().map(|mailbox| format!("<{mailbox}>")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    send_as(server, &format!("<{SENDER}>"), &to, text)
}

/// A line of the log about an attempt for one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) target: String,
    pub(crate) hop: String,
    /// `none`, or version, cipher and whether the hop proved its name; empty where there was no connection.
    pub(crate) tls: String,
    pub(crate) reason: String,
}

impl Attempt {
    /// `None` for a line about something else, another recipient, or another outcome.
    fn read(line: &str, to: &str, outcome: &str) -> Option<Attempt> {
        let is = |name: &str, value: &str| field(line, name).as_deref() == Some(value);
        let matches =
            line.contains(" delivery ") && is(" to", &format!("<{to}>")) && is(" outcome", outcome);
        let text = |name: &str| field(line, name).unwrap_or_default();
        matches.then(|| Attempt {
            target: text(" target"),
            hop: text(" hop"),
            tls: String::new(),
            reason: text(" reason"),
        })
    }

    /// How the last connection to the same hop is secured: a line of its own says so, once a connection.
    fn with_tls(mut self, lines: &[String]) -> Attempt {
        let mut connected = lines.iter().rev().filter(|line| {
            line.contains(" next hop connected ") && field(line, " hop").as_ref() == Some(&self.hop)
        });
        let tls = connected.find_map(|line| field(line, " tls"));
        self.tls = tls.unwrap_or_default();
        self
    }

    pub(crate) fn is_clear(&self) -> bool {
        self.tls == "none"
    }

    /// Whether the hop proved its name; `None` in clear.
    pub(crate) fn is_verified(&self) -> Option<bool> {
        let proof = self.tls.splitn(3, ' ').nth(2)?;
        Some(proof == "verified")
    }

    /// As `TLSv1.3`.
    pub(crate) fn tls_version(&self) -> &str {
        self.tls.split(' ').next().unwrap_or("")
    }
}

/// Waits for an attempt with this outcome: `delivered`, `deferred` or `bounced`.
pub(crate) fn attempt(server: &Server, to: &str, outcome: &str) -> Attempt {
    let what = format!("attempt for {to} that is {outcome}");
    let line = server
        .log()
        .await_line(&what, |line| Attempt::read(line, to, outcome).is_some());
    let attempt = Attempt::read(&line, to, outcome).unwrap();
    attempt.with_tls(&server.log().lines())
}

/// How many attempts with this outcome the log tells of so far. It may be late: `Tally` is not.
pub(crate) fn attempts(server: &Server, to: &str, outcome: &str) -> usize {
    Tally(server.log().lines()).count(to, outcome)
}

/// All attempts of a server that has ended.
pub(crate) struct Tally(Vec<String>);

impl Tally {
    pub(crate) fn of(server: Server) -> Tally {
        Tally(server.log_to_end())
    }

    pub(crate) fn count(&self, to: &str, outcome: &str) -> usize {
        let lines = self.0.iter();
        lines
            .filter(|line| Attempt::read(line, to, outcome).is_some())
            .count()
    }
}

pub(crate) fn tls_sessions(scrape: &Scrape, version: &str, is_verified: bool) -> u64 {
    let verified = if is_verified { "yes" } else { "no" };
    scrape.sum(
        "ringpost_out_tls_sessions_total",
        &[("version", version), ("verified", verified)],
    )
}

pub(crate) fn tls_sessions_of_any_kind(scrape: &Scrape) -> u64 {
    scrape.sum("ringpost_out_tls_sessions_total", &[])
}

pub(crate) fn tls_failures(scrape: &Scrape) -> u64 {
    scrape.sum("ringpost_out_tls_failures_total", &[])
}

pub(crate) fn queued(scrape: &Scrape) -> u64 {
    scrape.sum("ringpost_queue_messages", &[])
}

/// How many messages were put into the spool.
pub(crate) fn spooled(scrape: &Scrape) -> u64 {
    scrape.sum("ringpost_spool_messages_total", &[])
}

/// Runs `ringpost queue` on the server's data directory.
pub(crate) fn queue(server: &Server, arguments: &[&str]) -> Ended {
    let mut command = Command::new(BINARY);
    command.arg("queue").args(arguments);
    command.arg("--data-dir").arg(server.path("data"));
    programs::run(&mut command, "")
}

/// A message in the queue as an operator is shown it.
#[derive(Clone, Debug)]
pub(crate) struct Shown(pub(crate) Value);

impl Shown {
    pub(crate) fn state(&self) -> &str {
        self.0["state"].as_str().unwrap()
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.0["attempts"].as_u64().unwrap()
    }

    pub(crate) fn has_next_attempt(&self) -> bool {
        self.0["next_attempt"].is_string()
    }

    /// State and reason of each recipient.
    pub(crate) fn recipients(&self) -> BTreeMap<String, (String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let recipients = self.0["recipients"].as_array().unwrap().iter();
        recipients
            .map(|one| {
                (
                    text(&one["to"]),
                    (text(&one["state"]), text(&one["reason"])),
                )
            })
            .collect()
    }
}

/// Waits until a message in the queue is shown as wanted.
pub(crate) fn shown(server: &Server, id: &str, wanted: impl Fn(&Shown) -> bool) -> Shown {
    eventually(&format!("{id} is shown so"), || {
        let ended = queue(server, &["show", id, "--json"]);
        let shown = Shown(serde_json::from_str(&ended.out).ok()?);
        wanted(&shown).then_some(shown)
    })
}

/// Waits until a message was tried so often, and waits for its next attempt.
pub(crate) fn deferred(server: &Server, id: &str, attempts: u64) -> Shown {
    shown(server, id, |shown| {
        shown.state() == "deferred" && shown.attempts() == attempts
    })
}

/// Waits for so many reports to `SENDER`, and gives them.
pub(crate) fn reports(server: &Server, count: usize) -> Vec<Report> {
    let maildir = super::Maildir::new(server.path("mail/home.test/alice"));
    let messages = eventually(&format!("{count} reports"), || {
        let messages = maildir.messages();
        (messages.len() >= count).then_some(messages)
    });
    assert_eq!(messages.len(), count, "reports");
    messages
        .iter()
        .map(|message| Report::read(&message.octets))
        .collect()
}

/// Waits for the only report, and gives it.
pub(crate) fn only_report(server: &Server) -> Report {
    reports(server, 1).remove(0)
}

/// Once all is delivered: expects that nothing was reported.
#[track_caller]
pub(crate) fn assert_no_report(server: &Server) {
    assert!(server.maildir("home.test", "alice").messages().is_empty());
}
