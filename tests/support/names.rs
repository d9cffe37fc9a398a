//! A name server that nobody here wrote, NSD, which knows what a test says and nothing else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::housed::{House, Housed};

/// A record: name, type, and data as in a zone file, names in the data with their final dot.
///
/// `("broken.test", "SERVFAIL", "")` has every question for this name, and below it, fail.
pub(crate) type Record<'a> = (&'a str, &'a str, &'a str);

/// Answers on one port, by UDP and TCP. It is authoritative for everything: who is not in the table
/// does not exist.
pub(crate) struct NameServer {
    housed: Housed,
}

impl NameServer {
    pub(crate) fn start(records: &[Record<'_>]) -> Self {
        let mut log = Vec::new();
        for _ in 0..PORTS_TRIED {
            let house = House::new();
            // The port is kept for TCP alone: another socket may have it for UDP.
            if UdpSocket::bind(house.address()).is_err() {
                continue;
            }
            configure(&house, records);
            let config = house.name("nsd.conf");
            let mut housed = house.start(&["nsd"], &["/usr/sbin/nsd", "-d", "-c", &config]);
            // It ends if its port is taken after all.
            if housed.await_answer(|house| answers(house.address()).unwrap_or(false)) {
                return Self { housed };
            }
            log = housed.log();
        }
        panic!("no name server on any of {PORTS_TRIED} ports: {log:#?}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.housed.house().address()
    }
}

fn configure(house: &House, records: &[Record<'_>]) {
    let mut zone = String::from(
        "$TTL 60
. SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 60
. NS ns.invalid.
",
    );
    let mut failing = String::new();
    for (name, kind, data) in records {
        if *kind == "SERVFAIL" {
            // A zone that was not loaded.
            failing += &format!("zone:\n name: \"{name}\"\n zonefile: \"none\"\n");
        } else {
            zone += &format!("{name}. {kind} {data}\n");
        }
    }
    house.write("zone", &zone);
    let (log, directory, port) = (house.name("log"), house.name(""), house.port);
    house.write(
        "nsd.conf",
        &format!(
            "server:
 ip-address: 127.0.0.1
 port: {port}
 server-count: 1
 username: \"\"
 zonesdir: \"{directory}\"
 logfile: \"{log}\"
 pidfile: \"\"
 database: \"\"
 xfrdfile: \"\"
 xfrdir: \"{directory}\"
 zonelistfile: \"{directory}zones\"
 minimal-responses: yes
 # All questions come from one address.
 rrl-ratelimit: 0
remote-control:
 control-enable: no
zone:
 name: \".\"
 zonefile: \"zone\"
{failing}"
        ),
    );
}

/// Whether it answers at all.
fn answers(server: SocketAddr) -> io::Result<bool> {
    // RFC 1035 §4.1: an identifier, no flags, one question: the root's SOA.
    let query = [0x52, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(UDP_PATIENCE))?;
    socket.send(&query)?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply)?;
    Ok(reply[..length].starts_with(&query[..2]))
}

/// How many ports are tried until one is free for UDP too.
const PORTS_TRIED: usize = 5;

/// On loopback a reply that is not there by then was lost, or nobody listens yet.
const UDP_PATIENCE: Duration = Duration::from_secs(5);
