//! Binds what `--listen` and `--listen-tls` name, a socket for each shard.
//!
//! The shards' sockets share a port by `SO_REUSEPORT`, and the kernel spreads connections over them. That
//! option would also let a second server of the same user share the port in silence; so a socket without it
//! is bound first, and refused while anybody has the port.
//!
//! `[::]` takes IPv4 too, unless an IPv4 address of the same port is bound beside it: `0.0.0.0:25` and
//! `[::]:25` are what an operator writes for both.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::metrics::Listener;

/// The sockets of one address, one a shard.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; with port 0 asked for, the port that the kernel chose.
    pub address: SocketAddr,
    /// The kind of port.
    pub listener: Listener,
    /// One for each shard.
    pub sockets: Vec<TcpListener>,
}

/// Whose clients a wildcard IPv6 address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Those of IPv4 too.
    Both,
    /// Its own alone.
    Own,
}

impl Families {
    /// Those for `address` where all of `addresses` are to be bound.
    pub fn of(address: SocketAddr, addresses: impl IntoIterator<Item = SocketAddr>) -> Families {
        let ipv4_beside = addresses
            .into_iter()
            .any(|other| other.is_ipv4() && other.port() == address.port());
        if ipv4_beside {
            Families::Own
        } else {
            Families::Both
        }
    }
}

/// Why a port cannot be had, with what to change.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {source}{}", advice(.source))]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Binds `address` for as many shards as told; `families` says what else its port is bound for.
pub fn bind(
    flag: &'static str,
    listener: Listener,
    address: SocketAddr,
    families: Families,
    shards: usize,
    backlog: u32,
) -> Result<Bound, BindError> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    sockets(address, families, shards, backlog)
        .map(|(address, sockets)| Bound {
            address,
            listener,
            sockets,
        })
        .map_err(|source| BindError {
            flag,
            address,
            source,
        })
}

/// Binds one address that no shard serves, that of `--metrics`.
pub fn bind_one(flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|source| BindError {
        flag,
        address,
        source,
    })
}

fn sockets(
    address: SocketAddr,
    families: Families,
    shards: usize,
    backlog: i32,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if shards > 1 && address.port() != 0 {
        drop(socket(address, families, Sharing::No)?);
    }
    let sharing = if shards > 1 {
        Sharing::Yes
    } else {
        Sharing::No
    };
    let mut address = address;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(address, families, sharing)?;
        socket.listen(backlog)?;
        let socket = TcpListener::from(socket);
        // The kernel chooses once; the other shards take the same port.
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn socket(address: SocketAddr, families: Families, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Yes)?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::Own)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What the operator can change.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ": another program has this port",
        Some(libc::EADDRNOTAVAIL) => ": this machine has no such address",
        Some(libc::EACCES | libc::EPERM) => {
            ": ports below 1024 take root (with --user to give it up), CAP_NET_BIND_SERVICE, or a \
             lower sysctl net.ipv4.ip_unprivileged_port_start"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn bind_here(port: u16, shards: usize) -> Result<Bound, BindError> {
        bind(
            "--listen",
            Listener::Tcp,
            ([127, 0, 0, 1], port).into(),
            Families::Both,
            shards,
            16,
        )
    }

    #[test]
    fn all_shards_share_the_port_that_the_kernel_chose() {
        let bound = bind_here(0, 3).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
    }

    #[test]
    fn a_port_that_another_server_has_is_refused_with_advice() {
        for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let bound = bind_here(0, first).unwrap();
            let error = bind_here(bound.address.port(), second)
                .unwrap_err()
                .to_string();
            assert!(error.contains("--listen"), "{first}, {second}: {error}");
            assert!(error.contains("another program has this port"), "{error}");
        }
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_stand_side_by_side() {
        let both = |port: u16| {
            [
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            ]
        };
        for shards in [1, 2] {
            // A port that was free may be somebody else's a moment later, but not time and again.
            let bound = (0..20).find_map(|_| {
                let free = bind_here(0, 1).unwrap().address.port();
                let bind_one = |address| {
                    let families = Families::of(address, both(free));
                    bind("--listen", Listener::Tcp, address, families, shards, 16)
                };
                let bound: Result<Vec<Bound>, BindError> =
                    both(free).into_iter().map(bind_one).collect();
                bound.ok()
            });
            let bound = bound.expect("a port that both take");
            assert_eq!(bound.len(), 2);
            assert!(bound.iter().all(|bound| bound.sockets.len() == shards));
        }
        let [ipv4, ipv6] = both(25);
        assert_eq!(Families::of(ipv6, [ipv6]), Families::Both);
        assert_eq!(Families::of(ipv6, [ipv4, ipv6]), Families::Own);
    }
}
