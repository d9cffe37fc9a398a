//! What the tests of the load generator share: the program as a process, its sink as a server, its figures.
//!
//! Ports come from the kernel, files lie below a temporary directory, and only processes started here are signalled.

#![allow(
    dead_code,
    reason = "every test program compiles this module and uses a part of it"
)]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program.
pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringpost-loadgen"))
}

/// `ringpost-loadgen sink`, with its counts as JSON.
pub(crate) struct Sink {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it listens, in the order in which it says so.
    pub(crate) addresses: Vec<(SocketAddr, String)>,
}

impl Sink {
    /// One listener in clear and one in TLS.
    pub(crate) fn start(arguments: &[&str]) -> Sink {
        let listeners = ["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];
        Sink::start_at(&[&listeners, arguments].concat(), 2)
    }

    pub(crate) fn start_at(arguments: &[&str], listeners: usize) -> Sink {
        let mut command = binary();
        command.args(["sink", "--json", "-"]).args(arguments);
        Sink::spawn(&mut command, listeners)
    }

    pub(crate) fn spawn(command: &mut Command, listeners: usize) -> Sink {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let addresses = (0..listeners)
            .map(|_| {
                let mut line = String::new();
                stdout.read_line(&mut line).unwrap();
                let (address, speaks) = line
                    .strip_prefix("listening on ")
                    .and_then(|rest| rest.strip_suffix(")\n"))
                    .and_then(|rest| rest.split_once(" ("))
                    .unwrap_or_else(|| panic!("{line:?}"));
                (address.parse().unwrap(), speaks.to_owned())
            })
            .collect();
        Sink {
            child,
            stdout,
            addresses,
        }
    }

    pub(crate) fn clear(&self) -> SocketAddr {
        self.addresses[0].0
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.addresses[1].0
    }

    /// The listener for a mode of the load generator.
    pub(crate) fn at(&self, mode: &str) -> SocketAddr {
        match mode {
            "tls" => self.tls(),
            _ => self.clear(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Ends it, and gives what it counted.
    pub(crate) fn end(self) -> Value {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// What it counted, when it ends by itself.
    pub(crate) fn ended(self) -> Value {
        let text = self.ended_with_text();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn ended_with_text(mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{text}");
        text
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Runs a command of the program to its end, and gives what it put on standard output.
pub(crate) fn output(arguments: &[&str]) -> String {
    let output = binary().args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    assert_eq!(
        errors, "",
        "{arguments:?}: nothing on standard error in a pipe"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The same, where it must fail: the exit status and the one line that says why.
pub(crate) fn failure(arguments: &[&str]) -> (i32, String) {
    let output = binary().args(arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
    let line = errors
        .trim_end()
        .strip_prefix("ringpost-loadgen: ")
        .unwrap();
    (output.status.code().unwrap(), line.to_owned())
}

/// `run` on this server with these arguments: its one case.
pub(crate) fn run(target: impl Display, arguments: &str) -> Value {
    let output = loaded(target, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {errors}");
    assert_eq!(
        errors, "",
        "{arguments}: nothing on standard error in a pipe"
    );
    case(&output)
}

/// The same, where no message is taken: its one case, and the line that says so.
pub(crate) fn run_in_vain(target: impl Display, arguments: &str) -> (Value, String) {
    let output = loaded(target, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    (case(&output), errors)
}

fn loaded(target: impl Display, arguments: &str) -> Output {
    let mut command = binary();
    command.args(["run", "--json", "-", "--target", &target.to_string()]);
    command.args(arguments.split_whitespace()).output().unwrap()
}

fn case(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 1);
    cases[0].clone()
}

/// A number of the figures by its path, parts with slashes before them.
pub(crate) fn number(figures: &Value, pointer: &str) -> f64 {
    let value = figures.pointer(pointer);
    value
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("no number at {pointer} of {figures:#}"))
}

/// A count.
pub(crate) fn count(figures: &Value, pointer: &str) -> u64 {
    let value = figures.pointer(pointer);
    value
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no count at {pointer} of {figures:#}"))
}

/// Asks until there is an answer, and panics after a minute with what was awaited.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
