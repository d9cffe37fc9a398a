//! `ringpost-loadgen run` from outside: that its figures are true.
//!
//! No figure depends on how fast the machine is: what is compared are counts, and times that a sink was told to
//! take, looked at from below.

#![cfg(test)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::{Sink, binary, count, failure, number, output, run, run_in_vain, send};

/// A sink that says nothing for a second, amid a schedule: who counts from when a message was due sees it, in the
/// 99th percentile, for a tenth of all messages were due meanwhile. Who counts from when a message was sent sees it
/// in a few, since only as many as there are connections were on their way.
#[test]
fn the_schedule_shows_a_stall_that_send_times_hide() {
    let sink = Sink::start(&["--stall", "3s:1s"]);
    let figures = run(
        sink.clear(),
        "--rate 200 --connections 4 --messages-per-session 0 --warmup 0s --duration 10s",
    );
    let due = number(&figures, "/latency_us/message_due/p99");
    assert!(
        due >= 700_000.0,
        "the stall is not in the times from when a message was due: {due}"
    );
    let due_p90 = number(&figures, "/latency_us/message_due/p90");
    let sent = number(&figures, "/latency_us/message/p99");
    assert!(
        sent < 500_000.0,
        "from sent, a stall of 4 in 2,000 messages is none of the 99 %: {sent}"
    );
    let sent_most = number(&figures, "/latency_us/message/greatest");
    assert!(
        sent_most >= 900_000.0,
        "those on their way felt it: {sent_most}"
    );
    assert!(due_p90 < due, "{due_p90} {due}");
    // Nothing that was due is missing.
    let taken = count(&figures, "/messages");
    assert_eq!(
        taken + count(&figures, "/failed") + count(&figures, "/unsent"),
        2000
    );
    assert_eq!(
        count(&figures, "/latency_us/message_due/count"),
        taken + count(&figures, "/unsent")
    );
    assert_eq!(count(&sink.end(), "/messages"), taken);
}

#[test]
fn counts_agree_with_the_sinks() {
    // The last session of the last row has 6 messages.
    #[rustfmt::skip] // a row a line; pipelining, chunking, messages a session, sessions, those with all their messages
    let rows = [
        ("plain", "yes", "no", 1, 300, 300),
        ("starttls", "yes", "yes", 4, 75, 75),
        ("tls", "no", "yes", 7, 43, 42),
    ];
    for (mode, pipelining, chunking, per_session, sessions, whole) in rows {
        let sink = Sink::start(&[]);
        let target = sink.at(mode);
        let figures = run(
            target,
            &format!(
                "--mode {mode} --closed --warmup 0s --messages 300 --messages-per-session {per_session} \
                 --connections 1 --recipients-per-message 3 --size 3000 --pipelining {pipelining} \
                 --chunking {chunking}"
            ),
        );
        let taken = sink.end();
        assert_eq!(count(&figures, "/messages"), 300, "{mode}");
        assert_eq!(count(&taken, "/messages"), 300, "{mode}");
        assert_eq!(count(&taken, "/recipients"), 900, "{mode}");
        assert_eq!(count(&figures, "/octets"), 900_000, "{mode}");
        assert_eq!(count(&taken, "/octets"), 900_000, "{mode}");
        assert_eq!(count(&figures, "/sessions"), sessions, "{mode}");
        assert_eq!(count(&taken, "/sessions_quit"), sessions, "{mode}");
        let handshakes = if mode == "plain" { 0 } else { sessions };
        assert_eq!(count(&figures, "/handshakes/full"), handshakes, "{mode}");
        assert_eq!(count(&taken, "/tls_full"), handshakes, "{mode}");
        assert_eq!(
            count(&figures, "/latency_us/session/count"),
            whole,
            "{mode}"
        );
        assert_eq!(count(&figures, "/latency_us/message/count"), 300, "{mode}");
        let has = |stage: &str| figures["latency_us"].get(stage).is_some();
        assert_eq!(has("starttls"), mode == "starttls");
        assert_eq!(has("handshake"), mode != "plain");
        assert!(!has("message_due"), "a closed loop has no schedule");
        assert_eq!(figures["errors"], serde_json::json!({}), "{mode}");
    }
}

/// All connections end with the run: no session of the server's, and none that it had a second of.
#[test]
fn a_session_that_is_cut_short_is_no_rate() {
    let sink = Sink::start(&[]);
    let figures = run(
        sink.clear(),
        "--closed --warmup 0s --duration 500ms --messages-per-session 0",
    );
    assert!(number(&figures, "/messages_per_second") > 0.0);
    assert_eq!(count(&figures, "/sessions"), 64);
    assert_eq!(number(&figures, "/sessions_per_second"), 0.0);
    assert_eq!(count(&sink.end(), "/sessions_quit"), 64);
}

/// A run that is over before anybody could look at its beginning.
#[test]
fn a_short_run_has_its_rate() {
    let sink = Sink::start(&[]);
    let figures = run(
        sink.clear(),
        "--closed --warmup 0s --messages 5 --connections 5",
    );
    let seconds = number(&figures, "/seconds");
    assert!(seconds > 0.0);
    let rate = number(&figures, "/messages_per_second");
    assert!(
        (rate * seconds - 5.0).abs() < 1e-6,
        "{rate} a second in {seconds} s"
    );
}

#[test]
fn threads_share_the_work() {
    let sink = Sink::start(&[]);
    let figures = run(
        sink.clear(),
        "--rate 2000 --arrivals random --threads 3 --connections 7 --warmup 0s --messages 1000 --messages-per-session 50",
    );
    assert_eq!(count(&figures, "/messages"), 1000);
    assert_eq!(count(&figures, "/generator/threads"), 3);
    assert_eq!(count(&figures, "/latency_us/message_due/count"), 1000);
    assert_eq!(count(&sink.end(), "/messages"), 1000);
}

/// What belongs to the warm-up is sent and not counted.
#[test]
fn the_warm_up_does_not_count() {
    let sink = Sink::start(&[]);
    let figures = run(sink.clear(), "--rate 100 --warmup 1s --messages 50");
    assert_eq!(count(&figures, "/messages"), 50);
    assert_eq!(count(&figures, "/latency_us/message/count"), 50);
    assert_eq!(count(&sink.end(), "/messages"), 150);
}

#[test]
fn percentiles_agree_with_an_exact_computation() {
    let directory = tempfile::tempdir().unwrap();
    let samples = directory.path().join("samples.csv");
    let sink = Sink::start(&[]);
    let figures = run(
        sink.clear(),
        &format!(
            "--rate 500 --warmup 0s --messages 1500 --messages-per-session 10 --connections 8 --samples {}",
            samples.to_str().unwrap()
        ),
    );
    let text = fs::read_to_string(&samples).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("ended_ns,from_due_ns,from_sent_ns"));
    let rows: Vec<Vec<u64>> = lines
        .map(|line| {
            line.split(',')
                .map(|field| field.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), 1500);
    for (column, stage) in [(1, "message_due"), (2, "message")] {
        let mut times: Vec<u64> = rows.iter().map(|row| row[column]).collect();
        times.sort_unstable();
        for (field, of_1000) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99_9", 999)] {
            let rank = (of_1000 * times.len()).div_ceil(1000);
            let exact = times[rank - 1] as f64 / 1000.0;
            let found = number(&figures, &format!("/latency_us/{stage}/{field}"));
            let apart = (found / exact - 1.0).abs();
            assert!(apart <= 0.001, "{stage} {field}: {found}, exactly {exact}");
        }
        let mean = times.iter().sum::<u64>() as f64 / times.len() as f64 / 1000.0;
        let found = number(&figures, &format!("/latency_us/{stage}/mean"));
        assert!(
            (found / mean - 1.0).abs() <= 0.002,
            "{stage}: {found}, exactly {mean}"
        );
    }
}

#[test]
fn refusals_are_counted_by_code() {
    let sink = Sink::start(&["--refuse", "rcpt:0.5=450 4.2.0 busy"]);
    let figures = run(
        sink.clear(),
        "--closed --warmup 0s --messages 200 --messages-per-session 20",
    );
    let taken = sink.end();
    let refused = count(&taken, "/refused/rcpt");
    assert!(refused > 0, "{taken:#}");
    assert_eq!(count(&figures, "/errors/reply 450/times"), refused);
    assert_eq!(count(&figures, "/failed"), refused);
    assert_eq!(count(&figures, "/messages"), 200 - refused);
    assert_eq!(count(&taken, "/messages"), 200 - refused);
    let first = figures["errors"]["reply 450"]["first"].as_str().unwrap();
    assert!(first.contains("4.2.0 busy"), "{first}");
    let warnings = figures["warnings"].to_string();
    assert!(warnings.contains("messages failed"), "{warnings}");
}

#[test]
fn what_breaks_is_counted_by_kind() {
    #[rustfmt::skip] // a row a line
    let rows: [(&[&str], &str, &str, &str); 5] = [
        (&["--drop", "content"], "plain", "closed by the server", "60s"),
        (&["--refuse", "connect=554 5.7.1 go away"], "plain", "reply 554", "60s"),
        (&["--refuse", "handshake=40"], "tls", "TLS handshake failed", "60s"),
        (&["--starttls", "no"], "starttls", "STARTTLS is not offered", "60s"),
        (&["--delay", "mail=1h"], "plain", "no reply in time", "1s"),
    ];
    for (misbehaviour, mode, error, timeout) in rows {
        let sink = Sink::start(misbehaviour);
        let target = sink.at(mode);
        let (figures, line) = run_in_vain(
            target,
            &format!(
                "--mode {mode} --closed --warmup 0s --messages 3 --connections 3 --timeout {timeout}"
            ),
        );
        assert_eq!(
            count(&figures, &format!("/errors/{error}/times")),
            3,
            "{figures:#}"
        );
        assert!(line.contains(error), "{line}");
        assert_eq!(count(&figures, "/failed"), 3);
        assert_eq!(count(&figures, "/messages"), 0);
        assert_eq!(count(&sink.end(), "/messages"), 0);
    }
}

/// A server that has heard enough says so and closes the connection, whatever is still on its way to it.
#[test]
fn a_reply_amid_the_content_is_heard() {
    let server = scripted(|_, stream| {
        stream.take(DIALOGUE);
        stream.line();
        stream.say("552 5.3.4 too large");
    });
    let (figures, _) = run_in_vain(
        server,
        "--closed --warmup 0s --messages 1 --connections 1 --size 32M",
    );
    assert_eq!(count(&figures, "/errors/reply 552/times"), 1, "{figures:#}");
    assert_eq!(count(&figures, "/failed"), 1);
}

/// An open loop has connections that wait for their next message, and a server need not wait with them.
#[test]
fn a_server_may_leave_between_messages() {
    let server = scripted(|connection, stream| {
        stream.take(DIALOGUE);
        stream.content();
        match connection {
            0 => stream.say("421 4.4.2 that was long"),
            _ => stream.take(&[("QUIT", "221 bye")]),
        }
    });
    let figures = run(
        server,
        "--rate 1 --warmup 0s --messages 2 --messages-per-session 0 --connections 1",
    );
    assert_eq!(count(&figures, "/messages"), 2, "{figures:#}");
    assert_eq!(count(&figures, "/failed"), 0);
    assert_eq!(count(&figures, "/errors/reply 421/times"), 1);
    assert_eq!(count(&figures, "/sessions"), 1);
}

#[test]
fn without_a_reply_to_quit_a_session_did_not_end_well() {
    for (misbehaviour, error) in [
        (["--drop", "quit"], "unexpected end of file"),
        (["--delay", "quit=1h"], "timed out"),
    ] {
        let sink = Sink::start(&misbehaviour);
        let figures = run(
            sink.clear(),
            "--closed --warmup 0s --messages 3 --connections 3 --timeout 1s",
        );
        assert_eq!(count(&figures, "/messages"), 3);
        assert_eq!(count(&figures, "/sessions"), 0, "{figures:#}");
        let pointer = format!("/errors/connection broken: {error}/times");
        assert_eq!(count(&figures, &pointer), 3, "{figures:#}");
    }
}

/// Up to the content, without extensions.
const DIALOGUE: &[(&str, &str)] = &[
    ("", "220 ready"),
    ("EHLO", "250 hello"),
    ("MAIL", "250 ok"),
    ("RCPT", "250 ok"),
    ("DATA", "354 go on"),
];

/// A server of a few connections, one after the other; the number of each is given.
fn scripted(serve: impl Fn(usize, &mut Scripted) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            serve(number, &mut Scripted(BufReader::new(stream.unwrap())));
        }
    });
    address
}

struct Scripted(BufReader<TcpStream>);

impl Scripted {
    /// To each command its reply.
    fn take(&mut self, dialogue: &[(&str, &str)]) {
        for (command, reply) in dialogue {
            if !command.is_empty() {
                let line = self.line();
                assert!(line.starts_with(command), "{command}: {line:?}");
            }
            self.say(reply);
        }
    }

    fn say(&mut self, reply: &str) {
        let octets = format!("{reply}\r\n");
        self.0.get_mut().write_all(octets.as_bytes()).unwrap();
    }

    fn content(&mut self) {
        while self.line() != ".\r\n" {}
        self.say("250 taken");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error_of_each_message() {
    // Bound and not listening: nobody else gets the port, and connecting is refused.
    let held = bound();
    let (figures, line) = run_in_vain(&held.1, "--closed --warmup 0s --messages 5 --connections 5");
    assert_eq!(
        count(&figures, "/errors/cannot connect: connection refused/times"),
        5
    );
    assert!(
        figures["warnings"]
            .to_string()
            .contains("no message was taken")
    );
    assert!(
        line.contains("no message was taken: 5 times cannot connect"),
        "{line}"
    );
    drop(held);
}

fn bound() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address.to_string())
}

/// Each session but a place's first has a ticket to offer, in both versions, and gets another.
#[test]
fn sessions_are_resumed_as_asked() {
    for version in ["1.2", "1.3"] {
        for mode in ["starttls", "tls"] {
            let sink = Sink::start(&[]);
            let target = sink.at(mode);
            let figures = run(
                target,
                &format!(
                    "--mode {mode} --closed --warmup 0s --messages 60 --connections 3 --resume 1 --tls-version {version}"
                ),
            );
            let taken = sink.end();
            let resumed = count(&figures, "/handshakes/resumed");
            let full = count(&figures, "/handshakes/full");
            assert_eq!(resumed + full, 60, "{mode} {version}");
            assert!((1..=3).contains(&full), "{mode} {version}: {full} full");
            assert_eq!(
                count(&figures, "/handshakes/offered"),
                resumed,
                "{mode} {version}"
            );
            assert_eq!(count(&taken, "/tls_resumed"), resumed, "{mode} {version}");
            assert_eq!(count(&taken, "/tls_full"), full, "{mode} {version}");
        }
    }
}

#[test]
fn a_share_of_the_sessions_is_resumed() {
    let sink = Sink::start(&[]);
    let figures = run(
        sink.tls(),
        "--mode tls --closed --warmup 0s --messages 300 --connections 2 --resume 0.5",
    );
    let resumed = count(&figures, "/handshakes/resumed");
    // Five standard deviations around a half; the seed is fixed, so it is the same each time.
    assert!((107..=193).contains(&resumed), "{resumed}");
    assert_eq!(count(&sink.end(), "/tls_resumed"), resumed);
}

#[test]
fn the_servers_cpu_time_and_memory_are_read() {
    let sink = Sink::start(&[]);
    let figures = run(
        sink.clear(),
        &format!(
            "--closed --warmup 0s --duration 2s --server-pid {}",
            sink.pid()
        ),
    );
    let messages = count(&figures, "/messages");
    let cpu = number(&figures, "/server/cpu_us");
    assert!(cpu > 0.0 && cpu < 60e6, "{cpu}");
    let each = number(&figures, "/server/cpu_us_per_message");
    assert!(
        (each * messages as f64 / cpu - 1.0).abs() < 0.2,
        "{each} µs, {messages}, {cpu} µs"
    );
    assert!(number(&figures, "/server/memory_after") > 100_000.0);
    let own = number(&figures, "/generator/cpu_us");
    assert!(own > 0.0, "{own}");
    let busiest = number(&figures, "/generator/busiest_share");
    assert!(busiest > 0.0 && busiest <= 1.05, "{busiest}");
}

#[test]
fn real_messages_are_sent_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("1"),
        "Subject: one\n\n.dots\nand lines\n",
    )
    .unwrap();
    fs::write(
        directory.path().join("2"),
        "Subject: t\u{fc}\r\n\r\nzw\u{f6}lf\r\n",
    )
    .unwrap();
    for chunking in ["yes", "no"] {
        let sink = Sink::start(&[]);
        let figures = run(
            sink.clear(),
            &format!(
                "--closed --warmup 0s --messages 4 --connections 1 --chunking {} --corpus {}",
                chunking,
                directory.path().to_str().unwrap()
            ),
        );
        let octets = 2
            * ("Subject: one\r\n\r\n.dots\r\nand lines\r\n".len()
                + "Subject: t\u{fc}\r\n\r\nzw\u{f6}lf\r\n".len()) as u64;
        assert_eq!(count(&figures, "/messages"), 4, "{figures:#}");
        assert_eq!(count(&figures, "/octets"), octets);
        assert_eq!(count(&sink.end(), "/octets"), octets);
    }
}

#[test]
fn logins_leave_inside_tls() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let login = format!("ann:{}", password.display());
    let sink = Sink::start(&[]);
    let common = "--closed --warmup 0s --messages 2 --connections 1";
    let figures = run(
        sink.clear(),
        &format!("{common} --mode starttls --auth {login}"),
    );
    assert_eq!(count(&figures, "/messages"), 2);
    let target = sink.clear().to_string();
    let (status, line) = failure(&["run", "--target", &target, "--closed", "--auth", &login]);
    assert_eq!(status, 2);
    assert!(
        line.starts_with("--auth: passwords leave only inside TLS"),
        "{line}"
    );
    assert_eq!(count(&sink.end(), "/authentications"), 2);
}

/// Ctrl-C: what was measured so far is printed, messages under way end, the exit status is 0.
#[test]
fn an_interrupted_run_prints_what_it_measured() {
    let sink = Sink::start(&["--messages", "200"]);
    let child = binary()
        .args([
            "run",
            "--closed",
            "--json",
            "-",
            "--duration",
            "1h",
            "--warmup",
            "0s",
        ])
        .args([
            "--target",
            &sink.clear().to_string(),
            "--messages-per-session",
            "0",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The sink ends by itself when it has taken so many: then something was measured.
    let taken = sink.ended();
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &report["cases"][0];
    assert!(count(figures, "/messages") >= 200, "{figures:#}");
    assert!(count(&taken, "/messages") >= 200);
    let seconds = number(figures, "/seconds");
    assert!(seconds > 0.0 && seconds < 3000.0, "{seconds}");
    let warnings = figures["warnings"].to_string();
    assert!(warnings.contains("interrupted"), "{warnings}");
}

#[test]
fn only_loopback_is_loaded_unless_told() {
    let arguments = ["run", "--closed", "--messages", "1", "--target"];
    for target in [
        "192.0.2.1:25",
        "[2001:db8::1]:25",
        "0.0.0.0:25",
        "[::ffff:192.0.2.1]:25",
    ] {
        let (status, line) = failure(&[&arguments[..], &[target]].concat());
        assert_eq!(status, 2, "{target}");
        assert!(line.contains("--allow-remote"), "{target}: {line}");
    }
    let (status, line) = failure(&[
        "compare",
        "--target",
        "192.0.2.1:25",
        "--target-tls",
        "192.0.2.1:465",
    ]);
    assert_eq!(status, 2);
    assert!(line.contains("--allow-remote"), "{line}");
}

#[test]
fn wrong_flags_are_one_line_that_names_the_flag() {
    #[rustfmt::skip] // a row a line
    let rows: [(&[&str], &str); 18] = [
        (&[], "--target"),
        (&["--target", "127.0.0.1:1"], "--rate or --closed: is required"),
        (&["--target", "127.0.0.1:1", "--rate", "0"], "--rate"),
        (&["--target", "127.0.0.1:1", "--rate", "5", "--closed"], "--rate"),
        (&["--target", "localhost:1", "--closed"], "--target"),
        (&["--target", "127.0.0.1:1", "--closed", "--size", "10"], "--size"),
        (&["--target", "127.0.0.1:1", "--closed", "--resume", "2"], "--resume"),
        (&["--target", "127.0.0.1:1", "--closed", "--duration", "5"], "--duration"),
        (&["--target", "127.0.0.1:1", "--closed", "--threads", "3", "--connections", "2"], "--threads"),
        (&["--target", "127.0.0.1:1", "--closed", "--source-addresses", "x"], "--source-addresses"),
        (&["--target", "127.0.0.1:1", "--closed", "--source-addresses", "127.0.0.1,::1"], "--source-addresses ::1"),
        (&["--target", "[::1]:1", "--closed", "--source-addresses", "127.0.0.1"], "--source-addresses 127.0.0.1"),
        (&["--target", "127.0.0.1:1", "--closed", "--tls-groups", "none-such", "--mode", "tls"], "--tls-groups none-such"),
        (&["--target", "127.0.0.1:1", "--closed", "--ca", "/none/at/all", "--mode", "tls"], "--ca: cannot read /none/at/all"),
        (&["--target", "127.0.0.1:1", "--closed", "--ca", "/dev/null", "--mode", "tls"], "--ca /dev/null"),
        (&["--target", "127.0.0.1:1", "--closed", "--server-name", "", "--mode", "tls"], "--server-name"),
        (&["--target", "127.0.0.1:1", "--closed", "--auth", "x", "--mode", "tls"], "--auth"),
        (&["--target", "127.0.0.1:1", "--closed", "--auth", "x:/none", "--mode", "tls"], "--auth"),
    ];
    for (arguments, flag) in rows {
        let (status, line) = failure(&[&["run"], arguments].concat());
        assert_eq!(status, 2, "{arguments:?}: {line}");
        assert!(line.contains(flag), "{arguments:?}: {line}");
    }
    let (status, line) = failure(&[
        "run",
        "--target",
        "127.0.0.1:1",
        "--closed",
        "--corpus",
        "/none/at/all",
    ]);
    assert_eq!(status, 1);
    assert_eq!(line.matches("/none/at/all").count(), 1, "{line}");
    assert_eq!(line.matches("No such file").count(), 1, "{line}");
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_others() {
    let sink = Sink::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let output = binary()
        .args(["run", "--closed", "--messages", "1", "--warmup", "0s"])
        .args(["--target", &sink.clear().to_string()])
        .args(["--json", "/dev/full", "--samples", "/dev/full"])
        .arg("--html")
        .arg(&page)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("cannot write /dev/full"), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("1 in all"), "{table}");
    assert!(page.exists());
}

/// Else it would find out amid the run, and lose what it had measured.
#[test]
fn descriptors_for_all_connections_are_asked_for_before() {
    let program = env!("CARGO_BIN_EXE_ringpost-loadgen");
    let command = "ulimit -n 50 && exec \"$0\" run --target 127.0.0.1:1 --closed --connections 500";
    let run = Command::new("sh").args(["-c", command, program]).output();
    let output = run.unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.contains("--connections 500: takes"), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

/// Connections come from all addresses in turn.
#[test]
fn connections_come_from_the_addresses_that_are_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let accepted = std::thread::spawn(move || {
        // None is answered before all are there: it would make room for another one.
        let peers: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
        let mut addresses: Vec<_> = peers
            .iter()
            .map(|(_, peer)| peer.ip().to_string())
            .collect();
        addresses.sort_unstable();
        addresses
    });
    let (figures, _) = run_in_vain(
        target,
        "--closed --warmup 0s --messages 4 --connections 4 --source-addresses 127.0.0.2-127.0.0.5",
    );
    assert_eq!(
        accepted.join().unwrap(),
        ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
    );
    assert_eq!(count(&figures, "/failed"), 4);
}

#[test]
fn the_table_says_what_was_done() {
    let sink = Sink::start(&[]);
    let table = output(&[
        "run",
        "--target",
        &sink.clear().to_string(),
        "--closed",
        "--warmup",
        "0s",
        "--messages",
        "20",
        "--mode",
        "starttls",
    ]);
    for words in [
        "closed loop",
        "TLS handshake",
        "STARTTLS to its reply",
        "session, connect to QUIT",
    ] {
        assert!(table.contains(words), "no {words:?} in\n{table}");
    }
}
