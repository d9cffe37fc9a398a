//! What the tests from outside share: the server as a process, a client that says exactly what it is
//! told to, other people's programs, certificates, metrics and Maildirs.
//!
//! Invariants:
//! - Nothing here uses the library: a test sees what the operator and the peer see.
//! - No sleep stands for an event. Waiting is for a line, a reply, an exit, or a bounded poll of a
//!   condition with a deadline.
//! - Ports come from the kernel, files lie below one temporary directory a test, and only processes
//!   started here are signalled.

#![allow(
    dead_code,
    unused_imports,
    reason = "every test program compiles this module and uses a part of it"
)]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod hops;
pub(crate) mod housed;
pub(crate) mod maildir;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod names;
pub(crate) mod numbered;
pub(crate) mod port_25;
pub(crate) mod programs;
pub(crate) mod report;
pub(crate) mod sending;
pub(crate) mod server;
pub(crate) mod sink;

pub(crate) use certificates::{Authority, KeyKind, Pair};
pub(crate) use client::{Client, Reply};
pub(crate) use hops::{Dovecot, Exim, NextHop, Postfix};
pub(crate) use maildir::{Delivered, Maildir};
pub(crate) use metrics::Scrape;
pub(crate) use mount::Mount;
pub(crate) use names::NameServer;
pub(crate) use numbered::{Ledger, Load};
pub(crate) use programs::{Running, program};
pub(crate) use server::{Server, Setup};
pub(crate) use sink::Sink;

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long anything may take before the test calls it hung. Generous: two busy cores share it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A message that is as good as any: 17 octets.
pub(crate) const TEXT: &[u8] = b"Subject: x\r\n\r\nx\r\n";

/// Asks `condition` until it answers, and panics after `PATIENCE` with what was awaited.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Lets this process, whose sockets are clients', hold as many descriptors as the machine allows it:
/// 1,024, the usual soft limit, is less than some tests hold.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A hard limit above fs.nr_open is refused; the test may get by with what there is.
    let _ = setrlimit(Resource::Nofile, raised);
}
