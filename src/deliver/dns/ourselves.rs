//! Who we are, so that mail does not come back to us (RFC 5321 §5.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use hickory_resolver::proto::rr::Name;

use super::host_name;

/// Who we are, so that mail does not come back to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ourselves {
    /// `--hostname`
    pub hostname: String,
    /// Where we listen on port 25, for mail is sent to no other port by MX. 0.0.0.0 and `::` are all addresses that
    /// the machine has at the time, of both kinds.
    pub addresses: Vec<IpAddr>,
}

impl Ourselves {
    /// Whether it is our name. It may be all there is to go by: behind a translation of addresses we do not know those
    /// that DNS has.
    pub(super) fn are_named(&self, name: &str) -> bool {
        let ours = self.hostname.strip_suffix('.').unwrap_or(&self.hostname);
        ours.eq_ignore_ascii_case(name)
    }

    /// Whether one of the names is ours.
    pub(super) fn are_among(&self, names: &[Name]) -> bool {
        let mut names = names.iter().filter_map(host_name);
        names.any(|name| self.are_named(&name))
    }

    /// Whether mail that is sent to the address comes to us.
    pub(super) fn listen_on(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut ours = self.addresses.iter();
        ours.any(|ours| match ours.is_unspecified() {
            true => is_of_this_machine(address),
            false => ours.to_canonical() == address,
        })
    }
}

/// Whether the machine has the address now.
///
/// The system is asked and not the interfaces listed: a source address is chosen for each destination, and for one of
/// the machine's own it is that itself. Trying to bind it would not tell where `ip_nonlocal_bind` is set.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || source_towards(address).is_ok_and(|source| source == address)
}

/// Whether the machine could send to the address. Where that cannot be told, it could: connecting will tell.
pub(super) fn has_route(address: IpAddr) -> bool {
    !source_towards(address).is_err_and(|error| tells_no_route(&error))
}

/// The last two: IPv6 is switched off for the interfaces, or for the kernel.
fn tells_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// The address that the machine would send from. Connecting a datagram socket sends nothing and waits for nothing.
fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, SMTP_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Any would do; a rule of the firewall or of routing by port most likely knows this one.
const SMTP_PORT: u16 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn our_names() {
        for (hostname, name, expected) in [
            ("mx.test", "mx.test", true),
            ("MX.Test.", "mx.test", true),
            ("mx.test", "mx.test.org", false),
            ("", "mx.test", false),
        ] {
            let ourselves = Ourselves {
                hostname: hostname.to_owned(),
                addresses: Vec::new(),
            };
            assert_eq!(ourselves.are_named(name), expected, "{hostname} {name}");
            let names = [
                Name::from_ascii("other.test.").unwrap(),
                Name::from_ascii(name).unwrap(),
            ];
            assert_eq!(ourselves.are_among(&names), expected, "{hostname} {name}");
        }
    }

    #[test]
    fn our_addresses() {
        let rows: &[(&str, &[&str], &str, bool)] = &[
            ("not on port 25", &[], "127.0.0.1", false),
            ("the same", &["192.0.2.1"], "192.0.2.1", true),
            ("one of two", &["192.0.2.1", "::1"], "::1", true),
            ("another", &["192.0.2.1"], "192.0.2.2", false),
            ("mapped", &["192.0.2.1"], "::ffff:192.0.2.1", true),
            (
                "the listener mapped",
                &["::ffff:192.0.2.1"],
                "192.0.2.1",
                true,
            ),
            ("any, loopback", &["0.0.0.0"], "127.0.0.1", true),
            ("any, loopback's net", &["0.0.0.0"], "127.9.9.9", true),
            ("any, foreign", &["0.0.0.0"], "192.0.2.1", false),
            ("any by IPv6, IPv4", &["::"], "127.0.0.1", true),
            ("any by IPv6, loopback", &["::"], "::1", true),
            ("any by IPv6, foreign", &["::"], "2001:db8::1", false),
        ];
        for (name, listeners, given, expected) in rows {
            let ourselves = Ourselves {
                hostname: "mx.test".to_owned(),
                addresses: listeners.iter().map(|text| address(text)).collect(),
            };
            assert_eq!(ourselves.listen_on(address(given)), *expected, "{name}");
        }
    }

    #[test]
    fn only_a_missing_route_is_none() {
        for (errno, expected) in [
            (libc::ENETUNREACH, true),
            (libc::EHOSTUNREACH, true),
            (libc::EADDRNOTAVAIL, true),
            (libc::EAFNOSUPPORT, true),
            (libc::EMFILE, false),
            (libc::EACCES, false),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(tells_no_route(&error), expected, "{error}");
        }
        assert!(has_route(address("127.0.0.1")));
    }

    /// As /proc/net/fib_trie has them: a line with the address, and one below it that tells what it is.
    #[test]
    fn each_address_of_the_machine_is_known() {
        let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        let lines: Vec<_> = trie.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if let Some(text) = pair[0].strip_prefix("|-- ")
                && pair[1] == "/32 host LOCAL"
            {
                assert!(is_of_this_machine(address(text)), "{text}");
                assert!(has_route(address(text)), "{text}");
            }
        }
    }
}
