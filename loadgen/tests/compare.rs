//! `ringpost-loadgen compare` from outside: every case is measured, on a server of its own and on one it is given.

#![cfg(test)]

mod support;

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{Sink, binary, count, failure, number, send};

/// Rounds as short as they may be: what is looked at is what was measured, not how fast it was.
const SHORT: [&str; 8] = [
    "--rounds",
    "2",
    "--duration",
    "300ms",
    "--warmup",
    "100ms",
    "--connections",
    "4",
];

fn compare(directory: &Path, arguments: &[&str]) -> Output {
    let output = binary()
        .current_dir(directory)
        .arg("compare")
        .args(SHORT)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    output
}

/// The same on a sink that is there.
fn compare_at(sink: &Sink, directory: &Path, arguments: &str) {
    let (target, target_tls) = (sink.clear().to_string(), sink.tls().to_string());
    let targets = ["--target", &*target, "--target-tls", &*target_tls];
    let others: Vec<&str> = arguments.split_whitespace().collect();
    compare(directory, &[&targets[..], &others].concat());
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The main question on a fresh clone: a ringpost is started, measured and ended; table, JSON and page are left.
#[test]
fn it_starts_a_server_and_leaves_table_json_and_page() {
    let directory = tempfile::tempdir().unwrap();
    let output = compare(directory.path(), &[]);
    let table = String::from_utf8(output.stdout).unwrap();
    let report = report(&directory.path().join("ringpost-compare.json"));
    let page = fs::read_to_string(directory.path().join("ringpost-compare.html")).unwrap();

    let cases = report["cases"].as_array().unwrap();
    let names: Vec<&str> = cases
        .iter()
        .map(|case| case["name"].as_str().unwrap())
        .collect();
    let wanted = [
        "plain 1/session",
        "starttls full 1/session",
        "tls full 1/session",
        "starttls resumed 1/session",
        "tls resumed 1/session",
        "plain 100/session",
        "starttls full 100/session",
        "tls full 100/session",
        "starttls resumed 100/session",
        "tls resumed 100/session",
    ];
    assert_eq!(names, wanted);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        assert!(count(case, "/messages") > 0, "{name}");
        assert_eq!(count(case, "/failed"), 0, "{name}: {}", case["errors"]);
        assert_eq!(case["errors"], serde_json::json!({}), "{name}");
        assert_eq!(case["rounds"].as_array().unwrap().len(), 2, "{name}");
        assert!(number(case, "/server/cpu_us") > 0.0, "{name}");
        assert!(number(case, "/server/memory_before") > 0.0, "{name}");
        let (full, resumed) = (
            count(case, "/handshakes/full"),
            count(case, "/handshakes/resumed"),
        );
        match (
            case["mode"].as_str().unwrap(),
            case["tickets"].as_str().unwrap(),
        ) {
            ("plain", "none") => assert_eq!((full, resumed), (0, 0), "{name}"),
            (_, "full") => assert_eq!(resumed, 0, "{name}"),
            // Each place's first session has no ticket; it may fall behind the short warm-up.
            (_, "resumed") => assert!(full <= 8 && resumed + full > 0, "{name}: {full}, {resumed}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(table.contains(name.split(' ').next().unwrap()));
    }
    let ratios = report["ratios"].as_array().unwrap();
    let of: Vec<(&str, u64)> = ratios
        .iter()
        .map(|ratio| {
            (
                ratio["tickets"].as_str().unwrap(),
                count(ratio, "/messages_per_session"),
            )
        })
        .collect();
    // Of 100 messages a session none may have ended in so short a time.
    assert!(of.starts_with(&[("full", 1), ("resumed", 1)]), "{of:?}");
    for ratio in ratios.iter().take(2) {
        let least = number(ratio, "/sessions_per_second/least");
        let median = number(ratio, "/sessions_per_second/median");
        let greatest = number(ratio, "/sessions_per_second/greatest");
        assert!(
            0.0 < least && least <= median && median <= greatest,
            "{ratio}"
        );
        assert_eq!(count(ratio, "/sessions_per_second/pairs"), 2);
        assert!(number(ratio, "/server_cpu_us_per_session/median") > 0.0);
    }
    let server = report["environment"]["server"].as_str().unwrap();
    assert!(
        server.starts_with("ringpost ") && server.contains("--durability none"),
        "{server}"
    );
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("<svg"),
        "a page with plots"
    );

    // The server is gone: nobody accepts at its ports.
    let port = server
        .split_once("--listen ")
        .unwrap()
        .1
        .split(' ')
        .next()
        .unwrap();
    assert!(std::net::TcpStream::connect(port).is_err(), "{port}");
}

#[test]
fn a_command_starts_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports();
    let program = env!("CARGO_BIN_EXE_ringpost-loadgen");
    let counts = directory.path().join("counts.json");
    let start = format!(
        "'{program}' sink --listen {} --listen-tls {} --json '{}'",
        ports[0],
        ports[1],
        counts.display()
    );
    let arguments = [
        "--target",
        &ports[0],
        "--target-tls",
        &ports[1],
        "--start",
        &start,
    ];
    let outputs = [
        "--json",
        "report.json",
        "--html",
        "report.html",
        "--messages-per-session-many",
        "5",
    ];
    compare(directory.path(), &[&arguments[..], &outputs].concat());
    let report = report(&directory.path().join("report.json"));
    // It was ended by SIGTERM, and told what it had counted: what was measured, warm-ups, and what ended later.
    let counts: Value = serde_json::from_slice(&fs::read(counts).unwrap()).unwrap();
    let measured: u64 = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| count(case, "/messages"))
        .sum();
    assert!(
        measured > 0 && count(&counts, "/messages") >= measured,
        "{measured} of {counts}"
    );
    assert!(number(&report, "/cases/0/server/cpu_us") > 0.0);
}

#[test]
fn a_server_that_does_not_start_is_one_line() {
    let ports = free_ports();
    let arguments = [
        "compare",
        "--target",
        &ports[0],
        "--target-tls",
        &ports[1],
        "--start",
    ];
    let (status, line) = failure(&[&arguments[..], &["echo no such thing >&2; exit 3"]].concat());
    assert_eq!(status, 1);
    assert!(line.contains("ended before it was ready"), "{line}");
    assert!(line.contains("no such thing"), "{line}");
}

/// In place of what the load generator found wrong without it.
#[test]
fn a_server_that_ends_too_early_is_named() {
    let ports = free_ports();
    let program = env!("CARGO_BIN_EXE_ringpost-loadgen");
    let [port, port_tls] = &ports;
    // Of what `sink` says at its end, the last line is shown.
    let start =
        format!("{program} sink --messages 10 --json - --listen {port} --listen-tls {port_tls}");
    let ports = ["compare", "--target", port, "--target-tls", port_tls];
    let nowhere = ["--json", "/dev/null", "--html", "/dev/null"];
    let (status, line) = failure(&[&ports[..], &SHORT, &nowhere, &["--start", &start]].concat());
    assert_eq!(status, 1);
    let begins = "the server ended amid the measurement (exit status: 0); it said last:";
    assert!(line.contains(begins), "{line}");
}

/// Killed before its server is ready: the server and its files go with it.
#[test]
fn a_killed_comparison_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let up = directory.path().join("up");
    // A server that is there for as long as it holds the pipe open, and listens at neither port.
    assert!(Command::new("mkfifo").arg(&up).status().unwrap().success());
    let [port, port_tls] = [0, 1].map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&address.into()).unwrap();
        socket
    });
    let address = |socket: &Socket| {
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        address.to_string()
    };
    let temporary = tempfile::tempdir_in(directory.path()).unwrap();
    let mut child = binary()
        .current_dir(directory.path())
        .env("TMPDIR", temporary.path())
        .args(["compare", "--target", &address(&port)])
        .args(["--target-tls", &address(&port_tls)])
        .arg("--start")
        .arg(format!("sleep 90 > {}", up.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = fs::File::open(&up).unwrap();
    // It is looked for when everything is there that would end it, and the other port keeps it from being ready.
    port.listen(1).unwrap();
    port.accept().unwrap();
    let left = || fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left(), 1);
    send(&child, Signal::KILL);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    let mut said = Vec::new();
    server.read_to_end(&mut said).unwrap();
    // The guard removes them right behind.
    let deadline = Instant::now() + Duration::from_secs(30);
    while left() > 0 {
        assert!(Instant::now() < deadline, "its files are left");
        thread::yield_now();
    }
}

/// A server that is there is measured as it is, and left running.
#[test]
fn a_server_that_is_there_stays() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&[]);
    compare_at(&sink, directory.path(), "--rounds 1");
    let report = report(&directory.path().join("ringpost-compare.json"));
    assert_eq!(report["cases"].as_array().unwrap().len(), 10);
    assert!(
        report["cases"][0]["server"].is_null(),
        "nobody said whom to watch"
    );
    let taken = sink.end();
    assert_eq!(count(&taken, "/protocol_errors"), 0, "{taken}");
}

/// Ctrl-C: what was measured so far is printed, and the server that was started is ended.
#[test]
fn an_interrupted_comparison_prints_what_it_measured() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports();
    // The sink ends by itself behind so many messages, and the marker is written: then something was measured.
    let program = env!("CARGO_BIN_EXE_ringpost-loadgen");
    let sink = Sink::spawn(
        Command::new(program)
            .args(["sink", "--json", "-", "--messages", "100"])
            .args(["--listen", &ports[0], "--listen-tls", &ports[1]]),
        2,
    );
    let child = binary()
        .current_dir(directory.path())
        .args([
            "compare",
            "--duration",
            "1h",
            "--warmup",
            "0s",
            "--connections",
            "4",
        ])
        .args(["--target", &ports[0], "--target-tls", &ports[1]])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sink.ended();
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report = report(&directory.path().join("ringpost-compare.json"));
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 1, "the first case alone was begun");
    assert!(count(&cases[0], "/messages") >= 100);
    let warnings = cases[0]["warnings"].to_string();
    assert!(warnings.contains("interrupted"), "{warnings}");
}

/// A server that ends meanwhile: what was measured before is printed, and the failure is told.
#[test]
fn a_server_that_ends_ends_the_comparison() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&["--messages", "300"]);
    let (target, target_tls) = (sink.clear().to_string(), sink.tls().to_string());
    let output = binary()
        .current_dir(directory.path())
        .args([
            "compare",
            "--rounds",
            "3",
            "--duration",
            "1s",
            "--warmup",
            "0s",
        ])
        .args([
            "--connections",
            "4",
            "--server-pid",
            &sink.pid().to_string(),
        ])
        .args(["--target", &target, "--target-tls", &target_tls])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("is gone"), "{errors}");
    let report = report(&directory.path().join("ringpost-compare.json"));
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 1, "the server ended in the first case");
    assert!(count(&cases[0], "/messages") > 0);
    assert!(cases[0]["warnings"].to_string().contains("is gone"));
    assert!(count(&sink.ended(), "/messages") >= 300);
}

/// Where sessions log in there is no case in clear.
#[test]
fn logins_are_compared_inside_tls() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let sink = Sink::start(&[]);
    let arguments = format!("--rounds 1 --auth ann:{}", password.display());
    compare_at(&sink, directory.path(), &arguments);
    let report = report(&directory.path().join("ringpost-compare.json"));
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    assert!(cases.iter().all(|case| case["mode"] != "plain"));
    assert!(count(&sink.end(), "/authentications") > 0);
}

/// Interrupted while the server starts, nothing is left: no server, and no report in place of an older one.
#[test]
fn an_interrupt_while_the_server_starts_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports();
    let began = directory.path().join("began");
    let start = format!("sh -c 'echo $$ >{}; exec sleep 300'", began.display());
    let child = binary()
        .current_dir(directory.path())
        .args(["compare", "--target", &ports[0], "--target-tls", &ports[1]])
        .args(["--start", &start])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = support::eventually("the server began", || {
        let text = fs::read_to_string(&began).ok()?;
        text.trim().parse::<i32>().ok()
    });
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("interrupted before anything was measured"),
        "{errors}"
    );
    assert!(!directory.path().join("ringpost-compare.json").exists());
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "the server is gone"
    );
}

fn free_ports() -> [String; 2] {
    let listeners = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}
