//! How the server starts, or refuses to in one line, and how it drains and ends.

#![cfg(test)]

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::maildir::files;
use support::metrics::get;
use support::server::Setup;
use support::{Client, PATIENCE, eventually};

/// A failure to start: this exit status, and one line that is not a log line and names the cause.
#[track_caller]
fn expect_refusal(setup: &Setup, code: i32, named: &[&str]) {
    let started = Instant::now();
    let ended = setup.run("serve");
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert!(started.elapsed() < PATIENCE);
    assert!(
        !ended.err.iter().any(|line| line.contains("panicked")),
        "{ended:#?}"
    );
    let last = ended.err.last().unwrap();
    for word in named {
        assert!(last.contains(word), "{word:?} is not in {last:?}");
    }
    let others = ended
        .err
        .iter()
        .filter(|line| !line.contains(" INFO "))
        .count();
    assert_eq!(others, 1, "one line is enough: {ended:#?}");
}

#[test]
fn a_second_server_on_the_same_data_directory_is_refused() {
    let setup = Setup::new();
    let second = setup.beside();
    let data = setup.path("data").to_str().unwrap().to_owned();
    let server = setup.start();
    expect_refusal(&second, 1, &[&data]);
    server.client().quit();
    // The lock dies with its holder, however that ended.
    let setup = server.kill();
    setup.start().client().quit();
}

#[test]
fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--listen-tls", "--metrics"] {
        expect_refusal(&Setup::new().flag(flag, address.as_str()), 1, &[&address]);
    }
}

/// `SO_REUSEPORT` would let a second server of the same user share the port in silence.
#[test]
fn a_port_in_use_by_another_ringpost_is_one_line() {
    let server = Setup::new().start();
    let address = server.tcp().to_string();
    expect_refusal(
        &Setup::new().flag("--listen", address.as_str()),
        1,
        &[&address],
    );
}

#[test]
fn a_missing_certificate_is_one_line_for_check_and_serve_alike() {
    let setup = Setup::new();
    let nowhere = setup.path("nowhere.crt");
    let key = setup.path("ecdsa.key");
    let setup = setup.pair(&nowhere, &key);
    let cert = nowhere.to_str().unwrap();
    expect_refusal(&setup, 1, &[cert]);
    let checked = setup.run("check");
    assert_eq!(checked.code, Some(1), "{checked:#?}");
    assert!(
        checked
            .err
            .iter()
            .chain(&checked.out)
            .any(|line| line.contains(cert)),
        "{checked:#?}"
    );
}

#[test]
fn sigterm_lets_a_transaction_finish_and_refuses_new_ones() {
    for shards in ["1", "2"] {
        let server = Setup::new().flag("--shards", shards).start();
        let metrics = server.listener("metrics");
        let mut busy = Client::in_data(server.tcp());
        busy.send("Subject: under way\r\n");
        let mut idle = server.client();
        idle.ehlo();
        let mut tls_idle = server.tls_client();
        tls_idle.ehlo();
        assert_eq!(get(metrics, "/readyz").0, 200);

        server.signal(Signal::TERM);
        idle.reply().begins("421 4.3.2");
        idle.expect_end();
        tls_idle.reply().begins("421 4.3.2");
        tls_idle.expect_end();
        assert_eq!(get(metrics, "/readyz").0, 503);
        assert_eq!(get(metrics, "/healthz").0, 200);
        eventually("new connections are refused", || {
            match TcpStream::connect(server.tcp()) {
                Err(_) => Some(()),
                Ok(stream) => {
                    let mut client = Client::over(stream);
                    let said = client.read_some();
                    (said.is_empty() || said.starts_with(b"421")).then_some(())
                }
            }
        });

        busy.send("\r\nx\r\n.\r\n");
        busy.reply().begins("250 2.0.0");
        busy.reply().begins("421 4.3.2");
        busy.expect_end();
        // Delivered, or kept for the next start.
        let server = server.ended().start();
        assert_eq!(server.maildir("example.test", "u").messages().len(), 1);
    }
}

#[test]
fn sigint_drains_as_well() {
    let mut server = Setup::new().start();
    server.signal(Signal::INT);
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn the_drain_timeout_bounds_the_drain() {
    let mut server = Setup::new().flag("--drain-timeout", "300ms").start();
    let mut busy = Client::in_data(server.tcp());
    let started = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(
        started.elapsed() >= Duration::from_millis(250),
        "it did not wait"
    );
    busy.read_to_end();
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Setup::new().flag("--drain-timeout", "10m").start();
    let mut busy = Client::in_data(server.tcp());
    server.signal(Signal::TERM);
    eventually("draining", || {
        (get(server.listener("metrics"), "/readyz").0 == 503).then_some(())
    });
    assert!(!server.has_exited());
    server.signal(Signal::TERM);
    let setup = server.ended();
    busy.read_to_end();
    // Neither delivered nor kept: it never got a 250.
    let server = setup.start();
    assert!(server.maildir("example.test", "u").messages().is_empty());
    assert_eq!(files(&server.path("mail")), Vec::<PathBuf>::new());
}
