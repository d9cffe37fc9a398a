//! Names to addresses, and domains to the hosts that take their mail (RFC 5321 §5.1, RFC 7505).
//!
//! Apart from sending because what a silent, a broken and a hostile DNS come to is decided once: a caller sees a
//! host with addresses to connect to, or a [`Failure`] that is for good or not.
//! Claims:
//! - Only absolute names are asked for: no search list turns a recipient's domain into another one.
//! - What DNS did not say for certain is temporary. NXDOMAIN, no records and a null MX alone are for good.
//! - A name from DNS that is none of a host is dropped, so it brings no control octet to a log or a report.
//! - No host is given that is ourselves, nor any that is no nearer to the domain than we are.
//! - A lookup ends in time, and asks for a bounded number of hosts; what is remembered is bounded too.
//!
//! It does not promise that an answer is true: nothing is validated by DNSSEC. Nor that two shards see the same:
//! each remembers its own answers.

mod exchangers;
mod ourselves;
mod servers;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf;

pub use self::exchangers::{Exchanger, Exchangers};
pub use self::ourselves::Ourselves;
use self::servers::{Answer, Servers, Trouble};
use super::verdict::Failure;
use crate::smtp::status::Status;

/// One shard's resolver.
#[derive(Debug)]
pub struct Dns {
    servers: Servers,
    ourselves: Ourselves,
    patience: Patience,
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's servers are in a file that cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file names no server that can be asked.
    #[error("cannot use {}", .path.display())]
    Use {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<NetError>,
    },
    /// The resolver refused its settings.
    #[error("cannot set up DNS")]
    SetUp {
        /// What it said.
        source: Box<NetError>,
    },
}

/// How long is waited for DNS.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For one server's answer to one question.
    query: Duration,
    /// For all that a caller asked for.
    lookup: Duration,
}

/// What DNS knows of a host.
#[derive(Debug)]
struct Host {
    /// As a sender should try them; never empty.
    addresses: Vec<IpAddr>,
    /// Whether it is us: by any of its addresses, also those beyond what is tried, or as an alias of our name.
    is_ourselves: bool,
}

/// Why a host has no addresses.
#[derive(Debug)]
enum Absence {
    /// There is no such name.
    NoName,
    /// There is, with no address that mail could be sent to.
    NoAddress,
    /// DNS did not tell.
    Unknown(Trouble),
}

impl Dns {
    /// Asks `server` and nothing else, by UDP and TCP; or, without one, the servers of `/etc/resolv.conf` once
    /// `/etc/hosts` does not know.
    pub fn new(server: Option<SocketAddr>, ourselves: Ourselves) -> Result<Dns, DnsError> {
        match server {
            Some(server) => {
                let servers = vec![at(server)];
                Dns::of(servers, ResolveHosts::Never, ourselves, PATIENCE)
            }
            None => Dns::of_system(Path::new(RESOLV_CONF), ourselves),
        }
    }

    fn of_system(path: &Path, ourselves: Ourselves) -> Result<Dns, DnsError> {
        let text = std::fs::read(path).map_err(|source| DnsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let parsed = system_conf::parse_resolv_conf(text).map_err(|source| DnsError::Use {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        // Of its options none: how long is waited, and how often asked, does not differ from `--dns`.
        let (_domain, _search, servers) = parsed.0.into_parts();
        Dns::of(servers, ResolveHosts::Always, ourselves, PATIENCE)
    }

    fn of(
        servers: Vec<NameServerConfig>,
        hosts: ResolveHosts,
        ourselves: Ourselves,
        patience: Patience,
    ) -> Result<Dns, DnsError> {
        let servers =
            Servers::new(servers, hosts, patience.query).map_err(|source| DnsError::SetUp {
                source: Box::new(source),
            })?;
        Ok(Dns {
            servers,
            ourselves,
            patience,
        })
    }

    /// All addresses of a host, in the order to try; an address in text is given back. Never empty.
    ///
    /// A name that does not exist is a failure for good, as it is for a recipient's domain. For a host that an
    /// operator named it is a mistake of theirs, which the caller should not let bounce mail.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let lookup = async {
            let name = absolute(host).ok_or_else(|| not_a_name(host))?;
            let found = bounded(self.patience.lookup, self.host(&name)).await;
            match found.unwrap_or_else(|trouble| Err(Absence::Unknown(trouble))) {
                Ok(found) => Ok(found.addresses),
                Err(Absence::NoName) => Err(no_such_name("host", host)),
                Err(Absence::NoAddress) => {
                    Err(unroutable(format!("host {host} has no address in DNS")))
                }
                Err(Absence::Unknown(trouble)) => Err(unanswered("the address", host, &trouble)),
            }
        };
        lookup.await.inspect_err(|failure| log(host, failure))
    }

    /// The hosts that take mail for a domain, in the order to try; there is at least one.
    ///
    /// The domain is in lower-case A-labels, or an address literal, as an envelope has it.
    pub async fn exchangers(&self, domain: &str) -> Result<Exchangers<'_>, Failure> {
        let lookup = bounded(self.patience.lookup, Exchangers::find(self, domain)).await;
        lookup
            .unwrap_or_else(|trouble| Err(unanswered("the mail exchangers", domain, &trouble)))
            .inspect_err(|failure| log(domain, failure))
    }

    /// Asks for both kinds of addresses at once. One kind is enough: a server that is broken for the other keeps
    /// no mail.
    async fn host(&self, name: &Name) -> Result<Host, Absence> {
        let (ipv6, ipv4) = tokio::join!(
            self.servers.ask(name, RecordType::AAAA),
            self.servers.ask(name, RecordType::A),
        );
        let no_such_name = [&ipv6, &ipv4]
            .iter()
            .all(|answer| matches!(answer, Ok(Answer::NoName)));
        let (mut addresses, mut aliased_to) = (Vec::new(), Vec::new());
        let mut unknown = None;
        for answer in [ipv6, ipv4] {
            match answer {
                Ok(Answer::Records(records)) => {
                    for record in records.into_iter().take(RECORDS_MAX) {
                        if let RData::AAAA(AAAA(address)) = record.data {
                            addresses.push(IpAddr::V6(address));
                        } else if let RData::A(A(address)) = record.data {
                            addresses.push(IpAddr::V4(address));
                        } else if let RData::CNAME(CNAME(name)) = record.data {
                            aliased_to.push(name);
                        }
                    }
                }
                Ok(Answer::NoName | Answer::NoRecords) => {}
                Err(trouble) => unknown = Some(trouble),
            }
        }
        let is_ourselves = self.ourselves.are_among(&aliased_to)
            || addresses
                .iter()
                .any(|address| self.ourselves.listen_on(*address));
        let addresses = in_order(addresses, ourselves::has_route);
        match (addresses.is_empty(), unknown) {
            (false, _) => Ok(Host {
                addresses,
                is_ourselves,
            }),
            (true, Some(trouble)) => Err(Absence::Unknown(trouble)),
            (true, None) if no_such_name => Err(Absence::NoName),
            (true, None) => Err(Absence::NoAddress),
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absence::NoName => formatter.write_str("no such name"),
            Absence::NoAddress => formatter.write_str("no address"),
            Absence::Unknown(trouble) => trouble.fmt(formatter),
        }
    }
}

/// By UDP, and by TCP what does not fit.
fn at(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

/// The addresses that mail can be sent to, IPv6 and IPv4 by turns, IPv6 first (RFC 8305 §4), each kind in DNS's
/// order (RFC 5321 §5.1): when one kind is broken, every other attempt is still of use.
///
/// IPv6 that the machine has no route to is left out where there is IPv4: connecting would fail at once, but "network
/// unreachable" would hide what IPv4 met. It stays when it is all there is, so that the failure is the network's own.
fn in_order(addresses: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut kinds = (Vec::new(), Vec::new());
    for address in addresses {
        // An IPv4 address in IPv6's clothes could pass for none of ours.
        let address = address.to_canonical();
        let kind = match address {
            IpAddr::V6(_) => &mut kinds.0,
            IpAddr::V4(_) => &mut kinds.1,
        };
        if is_of_a_host(address) && !kind.contains(&address) && kind.len() < ADDRESSES_MAX {
            kind.push(address);
        }
    }
    let (mut ipv6, ipv4) = kinds;
    if !ipv4.is_empty() {
        ipv6.retain(|address| has_route(*address));
    }
    let turns = ipv6.len().max(ipv4.len());
    (0..turns)
        .flat_map(|turn| [ipv6.get(turn), ipv4.get(turn)])
        .flatten()
        .take(ADDRESSES_MAX)
        .copied()
        .collect()
}

/// Whether one host can be reached by it. To the system 0.0.0.0 and `::` are this host, which nobody means.
fn is_of_a_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// A host's name as DNS is asked for it.
fn absolute(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if !text.split('.').map(str::as_bytes).all(is_label) {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name from DNS in text, in lower case and without its last dot; `None` if it is none of a host.
fn host_name(name: &Name) -> Option<Box<str>> {
    if name.is_root() || !name.iter().all(is_label) {
        return None;
    }
    let labels: Vec<_> = name
        .iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect();
    Some(labels.join(".").into())
}

/// Of a host's name (RFC 1123 §2.1); the underscore is none, and yet in use.
fn is_label(label: &[u8]) -> bool {
    let of_a_name = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    !label.is_empty() && label.iter().all(of_a_name)
}

/// What `future` comes to, if it does in time.
async fn bounded<T>(max: Duration, future: impl Future<Output = T>) -> Result<T, Trouble> {
    let outcome = tokio::time::timeout(max, future).await;
    outcome.map_err(|_| Trouble::new(format!("no answer in {} s", max.as_secs_f64())))
}

/// What all `futures` come to, in their order, waiting for them at the same time.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<_> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// "Bad destination system address" (RFC 3463 §3.2).
fn no_such_name(what: &str, name: &str) -> Failure {
    let text = format!("{what} {name} does not exist in DNS");
    Failure::ours(Status::permanent(1, 2), text)
}

/// As [`no_such_name`]; what stands there is not shown as it is.
fn not_a_name(text: &str) -> Failure {
    let text = format!("\"{}\" names no host", text.escape_debug());
    Failure::ours(Status::permanent(1, 2), text)
}

/// "Unable to route", whose example is a domain with nothing but an SOA record (RFC 3463 §3.5).
fn unroutable(text: String) -> Failure {
    Failure::ours(Status::permanent(4, 4), text)
}

/// "Directory server failure" (RFC 3463 §3.5).
fn unanswered(what: &str, name: &str, trouble: &Trouble) -> Failure {
    let text = format!("cannot look up {what} of {name}: {trouble}");
    Failure::ours(Status::temporary(4, 3), text)
}

fn log(name: &str, failure: &Failure) {
    let Failure { status, text, .. } = failure;
    tracing::debug!(name, %status, reason = %text, "lookup failed");
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A server of the neighbourhood answers in less than a second even when it has to ask around, or not at all. A
/// lookup is a few questions, one behind the other where there are aliases; a message can wait for its next attempt
/// better than a connection's place can wait for DNS.
const PATIENCE: Patience = Patience {
    query: Duration::from_secs(3),
    lookup: Duration::from_secs(20),
};

/// Addresses of one host that are tried: more is a mistake or an attack, and each can cost a whole timeout.
const ADDRESSES_MAX: usize = 10;

/// Records of one answer that are looked at: each can cost three system calls to tell whether it is ours, and an answer
/// by TCP has room for thousands.
const RECORDS_MAX: usize = 100;
