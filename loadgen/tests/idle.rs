//! `idle` from outside: a ringpost or a sink, sessions that rest, and what is told of them.
//!
//! Nothing is asserted of the speed of this machine: what is to take long takes at least that long.

#![cfg(test)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use support::{Sink, binary, count, failure, number, output, send};

/// A ringpost that keeps nothing.
struct Ringpost {
    child: Child,
    tcp: SocketAddr,
    tls: SocketAddr,
    _log: BufReader<ChildStderr>,
    _directory: TempDir,
}

impl Ringpost {
    fn start(flags: &[&str]) -> Ringpost {
        let directory = tempfile::tempdir().unwrap();
        let mut child = binary()
            .args(["server", "--listen", "127.0.0.1:0"])
            .args(["--listen-tls", "127.0.0.1:0", "--shards", "1"])
            .args(["--local-domain", "localhost", "--durability", "none"])
            .args(["--deliver", "discard", "--data-dir"])
            .arg(directory.path())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut tcp, mut tls) = (None, None);
        let mut line = String::new();
        while !line.contains(" ready ") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
            let address = line.trim_end().rsplit_once(" address=");
            match address {
                Some((head, address)) if head.ends_with("listener=tcp") => {
                    tcp = address.parse().ok();
                }
                Some((head, address)) if head.ends_with("listener=tls") => {
                    tls = address.parse().ok();
                }
                _ => {}
            }
        }
        Ringpost {
            child,
            tcp: tcp.unwrap(),
            tls: tls.unwrap(),
            _log: log,
            _directory: directory,
        }
    }

    fn target(&self, mode: &str) -> String {
        match mode {
            "tls" => self.tls.to_string(),
            _ => self.tcp.to_string(),
        }
    }

    /// `idle` with these arguments, and its figures.
    fn idle(&self, mode: &str, arguments: &[&str]) -> Value {
        let (target, pid) = (self.target(mode), self.child.id().to_string());
        let own = ["--target", &target, "--mode", mode, "--server-pid", &pid];
        idle(&[&own, arguments].concat())
    }
}

impl Drop for Ringpost {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `idle --json -` with these arguments, others coming fast.
fn idle(arguments: &[&str]) -> Value {
    let own = [
        "idle",
        "--json",
        "-",
        "--before",
        "300ms",
        "--others-every",
        "100ms",
    ];
    serde_json::from_str(&output(&[&own, arguments].concat())).unwrap()
}

/// How often something went wrong, in a table of errors.
fn times(figures: &Value, table: &str, kind: &str) -> u64 {
    figures[table][kind]["times"].as_u64().unwrap_or(0)
}

fn total(figures: &Value, table: &str) -> u64 {
    let kinds = figures[table].as_object().unwrap().values();
    kinds.map(|kind| kind["times"].as_u64().unwrap()).sum()
}

fn has_warning(figures: &Value, part: &str) -> bool {
    let warnings = figures["warnings"].as_array().unwrap();
    let mut texts = warnings.iter().map(|warning| warning.as_str().unwrap());
    texts.any(|text| text.contains(part))
}

#[test]
fn sessions_rest_and_others_are_served() {
    // As many from one address as are opened there, so that the others need one of their own.
    let server = Ringpost::start(&["--max-sessions-per-ip", "50"]);
    for (mode, handshakes, starttls) in [("plain", 0, 0), ("starttls", 120, 120), ("tls", 120, 0)] {
        let figures = server.idle(mode, &["--sessions", "120", "--hold", "1s"]);
        assert_eq!(count(&figures, "/opened"), 120, "{mode}: {figures:#}");
        for table in ["not_opened", "closed_by_server"] {
            assert_eq!(total(&figures, table), 0, "{mode}: {figures:#}");
        }
        assert_eq!(
            (count(&figures, "/quit"), count(&figures, "/aborted")),
            (120, 0),
            "{mode}"
        );
        let stage = |stage: &str| figures["opening_us"][stage]["count"].as_u64();
        assert_eq!(stage("ready"), Some(120), "{mode}");
        assert_eq!(stage("handshake").unwrap_or(0), handshakes, "{mode}");
        assert_eq!(stage("starttls").unwrap_or(0), starttls, "{mode}");
        assert!(number(&figures, "/held_seconds") >= 1.0, "{mode}");
        for when in ["served_before", "served_while_held"] {
            let served = &figures[when];
            let messages = count(served, "/messages");
            assert!(messages > 0, "{mode} {when}: {served:#}");
            assert_eq!(count(served, "/failed"), 0, "{mode} {when}: {served:#}");
            for stage in ["ready", "message", "session"] {
                let pointer = format!("/latency_us/{stage}/count");
                assert_eq!(count(served, &pointer), messages, "{mode} {when}");
            }
        }
        for moment in ["before", "open", "held", "after"] {
            let pointer = format!("/memory/{moment}");
            assert!(count(&figures, &pointer) > 1 << 20, "{mode}: {figures:#}");
        }
        let each = (number(&figures, "/memory/open") - number(&figures, "/memory/before")) / 120.0;
        assert!((number(&figures, "/memory/per_session_open") - each).abs() < 1e-6);
    }
}

#[test]
fn memory_grows_with_tls_sessions() {
    let server = Ringpost::start(&[]);
    let figures = server.idle("tls", &["--sessions", "400", "--hold", "1s"]);
    assert_eq!(count(&figures, "/opened"), 400);
    // OpenSSL alone takes more; allocators differ in how they take it.
    let each = number(&figures, "/memory/per_session_held");
    assert!(each > 4096.0, "{figures:#}");
}

#[test]
fn what_the_server_closes_is_counted_with_its_reason() {
    let server = Ringpost::start(&["--command-timeout", "1s"]);
    for mode in ["plain", "tls"] {
        let figures = server.idle(mode, &["--sessions", "20", "--hold", "4s"]);
        assert_eq!(count(&figures, "/opened"), 20, "{mode}: {figures:#}");
        assert_eq!(
            times(&figures, "closed_by_server", "reply 421"),
            20,
            "{mode}: {figures:#}"
        );
        assert_eq!(count(&figures, "/quit"), 0, "{mode}");
        assert_eq!(count(&figures, "/served_while_held/failed"), 0, "{mode}");
        assert!(has_warning(&figures, "the server closed 20 sessions"));
        assert_eq!(
            figures.pointer("/memory/per_session_held"),
            Some(&Value::Null)
        );
    }
}

#[test]
fn sessions_that_end_without_a_word_are_counted() {
    let sink = Sink::start(&["--idle-timeout", "1s"]);
    let target = sink.clear().to_string();
    let figures = idle(&["--target", &target, "--sessions", "10", "--hold", "4s"]);
    assert_eq!(count(&figures, "/opened"), 10);
    assert_eq!(total(&figures, "closed_by_server"), 10, "{figures:#}");
    assert_eq!(figures["memory"], Value::Null);
    assert!(has_warning(&figures, "--server-pid or --server-cgroup"));
}

#[test]
fn sessions_that_are_refused_are_counted() {
    let sink = Sink::start(&["--refuse", "ehlo:0.5=421 4.3.2 busy"]);
    let target = sink.clear().to_string();
    let figures = idle(&["--target", &target, "--sessions", "100", "--hold", "300ms"]);
    let opened = count(&figures, "/opened");
    let refused = times(&figures, "not_opened", "reply 421");
    assert!(0 < opened && opened < 100, "{figures:#}");
    assert_eq!(opened + refused, 100, "{figures:#}");
    assert_eq!(count(&figures, "/quit"), opened);
    assert_eq!(figures["gave_up"], false);
    assert!(has_warning(&figures, "of 100 sessions were opened"));
}

#[test]
fn a_server_that_takes_no_more_is_not_asked_for_ever() {
    let sink = Sink::start(&["--refuse", "connect=421 4.3.2 busy"]);
    let target = sink.clear().to_string();
    let figures = idle(&["--target", &target, "--sessions", "5000", "--hold", "1h"]);
    assert_eq!(count(&figures, "/opened"), 0);
    assert_eq!(figures["gave_up"], true);
    // Those that were under way are waited for.
    let refused = times(&figures, "not_opened", "reply 421");
    assert!((256..=256 + 64).contains(&refused), "{refused}");
    assert_eq!(number(&figures, "/held_seconds"), 0.0);
}

#[test]
fn sessions_are_opened_no_faster_than_asked() {
    let sink = Sink::start(&[]);
    let target = sink.clear().to_string();
    let rate = ["--sessions", "21", "--open-rate", "40", "--hold", "100ms"];
    let figures = idle(&[&["--target", &target], &rate[..]].concat());
    assert_eq!(count(&figures, "/opened"), 21);
    assert!(number(&figures, "/opening_seconds") >= 0.5, "{figures:#}");
}

#[test]
fn an_interrupt_ends_it_and_tells_what_was_found() {
    let sink = Sink::start(&[]);
    let target = sink.clear().to_string();
    let mut child = binary()
        .args(["idle", "--json", "-", "--target", &target, "--hold", "1h"])
        .args(["--before", "100ms", "--sessions", "200"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // No more than 64 are under way, so more than 100 are open.
    let until = Instant::now() + Duration::from_secs(60);
    while sockets(&child) < 170 {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until);
        thread::yield_now();
    }
    send(&child, Signal::INT);
    let stdout = child.stdout.take().unwrap();
    let figures: Value = serde_json::from_reader(stdout).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(figures["is_interrupted"], true);
    let opened = count(&figures, "/opened");
    assert!((100..=200).contains(&opened), "{figures:#}");
    assert_eq!(count(&figures, "/aborted"), opened, "{figures:#}");
}

fn sockets(child: &Child) -> usize {
    let folder = format!("/proc/{}/fd", child.id());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn the_table_says_what_a_session_costs() {
    let server = Ringpost::start(&[]);
    let (target, pid) = (server.target("plain"), server.child.id().to_string());
    let own = ["idle", "--target", &target, "--server-pid", &pid];
    let rest = ["--sessions", "10", "--hold", "200ms", "--before", "100ms"];
    let text = output(&[&own[..], &rest[..]].concat());
    for part in [
        "sessions   10 of 10 opened, 0 failed\n",
        "\na session  ",
        "\nothers meanwhile: session ",
        "\nended      10 by QUIT, 0 without\n",
        "WARNING: 10 sessions are few",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 120),
        "{text}"
    );
}

#[test]
fn what_cannot_be_is_said_in_one_line_before() {
    // Nothing listens there: it is not asked.
    let target = ["idle", "--target", "127.0.0.1:1"];
    let (status, line) = failure(&[&target[..], &["--sessions", "0"]].concat());
    assert_eq!(status, 2, "{line}");
    let few = ["--source-addresses", "127.0.0.1", "--sessions", "100000"];
    let (status, line) = failure(&[&target[..], &few].concat());
    assert_eq!(status, 2, "{line}");
    assert!(line.contains("--source-addresses"), "{line}");
    let (status, line) = failure(&["idle", "--target", "192.0.2.1:25"]);
    assert_eq!(status, 2, "{line}");
    assert!(line.contains("--allow-remote"), "{line}");

    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]);
    shell.arg(binary().get_program()).args(target);
    let output = shell.args(["--sessions", "200"]).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("this process may have 200"), "{line}");
}
