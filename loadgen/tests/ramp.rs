//! `ramp` from outside, against sinks whose ceiling does not depend on this machine.

#![cfg(test)]

mod support;

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::{Sink, binary, count, failure, number, output, send};

/// `ramp --json -` with these arguments.
fn ramp(sink: &Sink, arguments: &[&str]) -> Value {
    let target = sink.clear().to_string();
    let own = ["ramp", "--json", "-", "--target", &target];
    serde_json::from_str(&output(&[&own, arguments].concat())).unwrap()
}

fn steps(report: &Value) -> &[Value] {
    report["steps"].as_array().unwrap()
}

#[test]
fn the_ceiling_of_a_slow_server_is_found() {
    // 8 connections that each wait 200 ms for a reply: 40 messages a second and no more.
    let sink = Sink::start(&["--delay", "content=200ms"]);
    let load = ["--connections", "8", "--messages-per-session", "0"];
    let search = ["--p99", "800ms", "--from", "10", "--precision", "25%"];
    let time = ["--step-duration", "3s", "--warmup", "1s"];
    let report = ramp(&sink, &[&load[..], &search, &time].concat());
    let answer = &report["answer"];
    assert_eq!(answer["kind"], "highest", "{report:#}");
    let rate = number(answer, "/rate");
    // Above 40 a queue grows, by 4 s × (rate - 40) in a step; what 40 a second take away in 600 ms may hide.
    assert!((10.0..=46.0).contains(&rate), "{report:#}");
    let steps = steps(&report);
    assert_eq!(number(&steps[0], "/rate"), 10.0);
    assert_eq!(number(&steps[1], "/rate"), 20.0);
    // Twice that rate cannot be.
    let failed = steps.iter().find(|step| number(step, "/rate") >= 80.0);
    let failed = failed.unwrap();
    assert_eq!(failed["verdict"], "failed", "{failed:#}");
    assert!(count(failed, "/unsent") > 0, "{failed:#}");
    let last = steps.last().unwrap();
    assert_eq!(last["verdict"], "held", "{last:#}");
    assert!((number(last, "/rate") - rate).abs() < 1e-9);
    assert!(number(last, "/p99_us") <= 800_000.0);
    assert!(number(last, "/p50_us") >= 200_000.0);
}

#[test]
fn the_highest_rate_allowed_is_a_lower_bound() {
    let sink = Sink::start(&[]);
    let search = [
        "--p99",
        "10s",
        "--from",
        "20",
        "--to",
        "50",
        "--arrivals",
        "random",
    ];
    let time = ["--step-duration", "500ms", "--warmup", "0s"];
    let report = ramp(&sink, &[&search[..], &time].concat());
    let answer = &report["answer"];
    assert_eq!(answer["kind"], "at_least", "{report:#}");
    assert_eq!(number(answer, "/rate"), 50.0);
    let rates: Vec<f64> = steps(&report)
        .iter()
        .map(|step| number(step, "/rate"))
        .collect();
    assert_eq!(rates, [20.0, 40.0, 50.0, 50.0]);
    // What was counted here the sink took, and no more.
    let counted: u64 = steps(&report)
        .iter()
        .map(|step| count(step, "/messages"))
        .sum();
    assert_eq!(count(&sink.end(), "/messages"), counted);
}

#[test]
fn a_server_that_refuses_holds_nothing() {
    let sink = Sink::start(&["--refuse", "rcpt=450 4.2.0 later"]);
    let report = ramp(&sink, &["--p99", "10s", "--step-duration", "300ms"]);
    assert_eq!(report["answer"]["kind"], "none", "{report:#}");
    let [step] = steps(&report) else {
        panic!("{report:#}");
    };
    assert_eq!(step["verdict"], "failed");
    assert!(count(step, "/failed") > 0, "{step:#}");
    assert_eq!(report["held"], Value::Null);
}

#[test]
fn the_last_line_is_the_answer() {
    let sink = Sink::start(&[]);
    let (target, pid) = (sink.clear().to_string(), sink.pid().to_string());
    let own = ["ramp", "--target", &target, "--server-pid", &pid];
    let search = ["--p99", "10s", "--from", "20", "--to", "20"];
    let time = ["--step-duration", "300ms", "--warmup", "0s"];
    let text = output(&[&own[..], &search, &time].concat());
    let answer =
        "At least 20.0 messages a second, with p99 under 10.0 s: no higher rate was to be tried.";
    assert_eq!(text.lines().last(), Some(answer), "{text}");
    let held = text.lines().filter(|line| line.ends_with(" held"));
    assert_eq!(held.count(), 2, "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 120),
        "{text}"
    );
}

#[test]
fn an_interrupt_ends_the_search() {
    let sink = Sink::start(&[]);
    let mut child = binary()
        .args(["ramp", "--json", "-", "--target", &sink.clear().to_string()])
        .args(["--p99", "1s", "--from", "50", "--step-duration", "1h"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !has_connection(&child, sink.clear().port()) {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until);
        thread::yield_now();
    }
    send(&child, Signal::INT);
    let report: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(report["answer"], Value::Null, "{report:#}");
    assert!(steps(&report).is_empty(), "{report:#}");
}

/// Whether a connection to this port is established, as seen from where the child is.
fn has_connection(child: &Child, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", child.id()));
    let port = format!(":{port:04X}");
    table.unwrap_or_default().lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port))
    })
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let target = ["ramp", "--target", "127.0.0.1:1"];
    for (arguments, part) in [
        (
            &["--p99", "1s", "--from", "200", "--to", "100"][..],
            "--from 200",
        ),
        (&["--p99", "1s", "--precision", "0.1%"], "--precision"),
        (&["--from", "200"], "--p99"),
    ] {
        let (status, line) = failure(&[&target[..], arguments].concat());
        assert_eq!(status, 2, "{line}");
        assert!(line.contains(part), "{line}");
    }
}
