//! Where exactly a connection is made to.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use socket2::SockAddr;

use crate::ring::Socket;

/// One place that a destination is reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The host's name, or its address: what is asked for by SNI and is to be in the certificate.
    pub(super) name: Box<str>,
    pub(super) place: Place,
    /// Whether TLS is spoken from the first octet.
    pub(super) implicit_tls: bool,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// A socket that can be connected, and to what.
    pub(super) fn socket(&self) -> io::Result<(Socket, SockAddr)> {
        match self {
            Place::Tcp(address) => Ok((Socket::for_address(address)?, (*address).into())),
            Place::Unix(path) => Ok((Socket::for_unix()?, SockAddr::unix(path)?)),
        }
    }
}

/// `mx.test[192.0.2.1]:25`, `192.0.2.1:25`, `/run/lmtp`.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(formatter, "{}", path.display()),
            Place::Tcp(address) if self.name.parse() == Ok(address.ip()) => {
                write!(formatter, "{address}")
            }
            Place::Tcp(address) => {
                let (name, port) = (&self.name, address.port());
                match address.ip().to_canonical() {
                    IpAddr::V4(address) => write!(formatter, "{name}[{address}]:{port}"),
                    IpAddr::V6(address) => write!(formatter, "{name}[{address}]:{port}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_by_name_and_address() {
        let tcp = |name: &str, address: &str| Endpoint {
            name: name.into(),
            place: Place::Tcp(address.parse().unwrap()),
            implicit_tls: false,
        };
        let unix = Endpoint {
            name: "localhost".into(),
            place: Place::Unix("/run/lmtp".into()),
            implicit_tls: false,
        };
        for (endpoint, expected) in [
            (tcp("mx.test", "192.0.2.1:25"), "mx.test[192.0.2.1]:25"),
            (
                tcp("mx.test", "[2001:db8::1]:25"),
                "mx.test[2001:db8::1]:25",
            ),
            (tcp("192.0.2.1", "192.0.2.1:2525"), "192.0.2.1:2525"),
            (tcp("2001:db8::1", "[2001:db8::1]:25"), "[2001:db8::1]:25"),
            (unix, "/run/lmtp"),
        ] {
            assert_eq!(endpoint.to_string(), expected);
        }
    }
}
