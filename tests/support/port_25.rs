//! Hops on port 25, where `mx` looks for them, for whoever runs the tests.
//!
//! Each hop has a loopback address of its own, so that tests run side by side. Who may not bind the port runs the
//! test once more inside a user and network namespace, where everybody is root; where there is none to be had, the
//! test says so and is skipped.

use std::env;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use super::programs::{program, run};
use super::sink::{Script, Sink};

/// Runs the body of the test of this name here or in a namespace.
pub(crate) fn on_port_25(test: &str, body: impl FnOnce()) {
    if TcpListener::bind((some_loopback(), 25)).is_ok() {
        return body();
    }
    assert!(!is_inside(), "no port 25 in a namespace either");
    again_inside(test);
}

/// Runs it in a namespace in any case: there port 25 is free on all addresses, for who is not root there as well.
pub(crate) fn on_everybodys_port_25(test: &str, body: impl FnOnce()) {
    if is_inside() {
        return body();
    }
    again_inside(test);
}

fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

fn again_inside(test: &str) {
    let probe = run(program("unshare").args(["-Urn", "true"]), "");
    if probe.code != Some(0) {
        eprintln!(
            "skipped: port 25 is not ours, and no namespace to be had: {}",
            probe.err.trim()
        );
        return;
    }
    // The second is not to be had in every container, nor needed by all.
    let script = "ip link set lo up
        echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
        exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = program("unshare");
    command
        .args(["-Urn", "sh", "-c", script])
        .arg(env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "yes");
    let ended = run(&mut command, "");
    assert!(
        ended.code == Some(0) && ended.out.contains("1 passed"),
        "{}",
        ended.text()
    );
}

/// A sink on port 25 of an address that nobody else has.
pub(crate) fn hop(scripts: impl Into<Vec<Script>>) -> Sink {
    Sink::start_at(unused_loopback(), 25, scripts)
}

/// The same, but it refuses connections until it wakes.
pub(crate) fn hop_asleep() -> Sink {
    Sink::asleep_at(unused_loopback(), 25)
}

/// An address where port 25 is free. Another test that draws the same in the same moment is one in a million.
pub(crate) fn unused_loopback() -> IpAddr {
    loop {
        let ip = some_loopback();
        if TcpListener::bind((ip, 25)).is_ok() {
            return ip.into();
        }
    }
}

/// Not of 127.0/16, where everything else listens.
fn some_loopback() -> Ipv4Addr {
    Ipv4Addr::new(
        127,
        fastrand::u8(1..),
        fastrand::u8(..),
        fastrand::u8(1..255),
    )
}

const INSIDE: &str = "RINGPOST_TEST_INSIDE_A_NAMESPACE";
