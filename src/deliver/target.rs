//! Where accepted mail goes: the TARGET of `--deliver` and `--route`.
//!
//! ```text
//! TARGET = "maildir:" DIR / ("smtp:" / "smtps:" / "lmtp:") HOST ":" PORT / "lmtp:unix:" PATH / "mx" / "discard"
//! HOST   = name / IPv4 address / "[" IPv6 address "]"
//! PORT   = 1-65535, never left out: what a hop speaks cannot be told from its name
//! ```
//!
//! Apart from delivery itself because the flags need the grammar and nothing else.
//! Claims:
//! - What is written by `Display` parses to the same target.
//! - A host is kept in one spelling: names in lower-case A-labels, addresses in their shortest form. So two
//!   targets are one next hop when they are equal.
//!
//! It does not promise that a Maildir can be written, nor that a host is there; that is found out later.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// One way for an accepted message to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One Maildir a recipient, at `DIR/DOMAIN/LOCALPART`.
    Maildir(PathBuf),
    /// A host that is spoken to in SMTP, clear at first.
    Smtp(Host),
    /// A host that is spoken to in SMTP, inside TLS from the first octet.
    Smtps(Host),
    /// A host that is spoken to in LMTP.
    Lmtp(Host),
    /// A UNIX socket that is spoken to in LMTP.
    LmtpUnix(PathBuf),
    /// The mail exchangers of the recipient's domain, on port 25.
    Mx,
    /// Accepted and forgotten: for measurements.
    Discard,
}

/// A host and its port, as in `mx.test:25` or `[2001:db8::1]:25`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name in lower case, or an address without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
}

/// Why a TARGET cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `maildir:` with nothing behind it.
    #[error("maildir: needs a directory, as in maildir:/var/mail")]
    NoDirectory,
    /// `lmtp:unix:` with nothing behind it.
    #[error("lmtp:unix: needs a socket, as in lmtp:unix:/run/lmtp")]
    NoSocket,
    /// No socket can have so long a path (`sun_path`, unix(7)).
    #[error("a socket's path has at most {SOCKET_PATH_OCTETS_MAX} octets")]
    SocketPathLong,
    /// The host and port behind `smtp:`, `smtps:` or `lmtp:`.
    #[error("must be {scheme}:HOST:PORT; {fault}")]
    Host {
        /// What is to be spoken.
        scheme: &'static str,
        /// What is wrong behind it.
        fault: HostError,
    },
    /// No form of TARGET begins like this.
    #[error(
        "not a delivery target; one is maildir:DIR, smtp:HOST:PORT, smtps:HOST:PORT, lmtp:HOST:PORT, \
         lmtp:unix:PATH, mx or discard"
    )]
    Unknown,
}

/// Why a host and its port cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing before the port.
    #[error("the host is missing")]
    NoHost,
    /// Nothing behind the host.
    #[error("the port is missing")]
    NoPort,
    /// Not a port that a connection can go to.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Neither a name nor an address.
    #[error("the host must be a name, an IPv4 address, or an IPv6 address in brackets")]
    Name,
    /// Its colons cannot be told from that of the port.
    #[error("an IPv6 address stands in brackets")]
    NoBrackets,
    /// `[::1:25`
    #[error("the closing bracket is missing")]
    OpenBracket,
    /// Elsewhere `[mx.test]` asks for no MX records; that is what a HOST is here anyway.
    #[error("only an IPv6 address stands in brackets; no MX records are asked for a HOST")]
    Brackets,
    /// `lmtp:unix.:24`, which would be written as a socket's path.
    #[error("unix cannot be the host's name, it stands for a socket")]
    Unix,
}

impl Target {
    /// The host that it names.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Target::Smtp(host) | Target::Smtps(host) | Target::Lmtp(host) => Some(host),
            Target::Maildir(_) | Target::LmtpUnix(_) | Target::Mx | Target::Discard => None,
        }
    }

    /// Whether reaching it may take DNS.
    pub fn needs_dns(&self) -> bool {
        match self {
            Target::Mx => true,
            Target::Smtp(host) | Target::Smtps(host) | Target::Lmtp(host) => {
                host.name.parse::<IpAddr>().is_err()
            }
            Target::Maildir(_) | Target::LmtpUnix(_) | Target::Discard => false,
        }
    }

    /// Whether mail for it goes to another server.
    pub fn is_next_hop(&self) -> bool {
        match self {
            Target::Smtp(_)
            | Target::Smtps(_)
            | Target::Lmtp(_)
            | Target::LmtpUnix(_)
            | Target::Mx => true,
            Target::Maildir(_) | Target::Discard => false,
        }
    }

    /// Whether it is spoken to over the network in clear first, so that `--out-tls` decides.
    pub fn negotiates_tls(&self) -> bool {
        match self {
            Target::Smtp(_) | Target::Lmtp(_) | Target::Mx => true,
            Target::Smtps(_) | Target::LmtpUnix(_) | Target::Maildir(_) | Target::Discard => false,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let host = |scheme, rest: &str| {
            let host = rest.parse::<Host>();
            host.map_err(|fault| TargetError::Host { scheme, fault })
        };
        match text.split_once(':') {
            None if text == "discard" => Ok(Target::Discard),
            None if text == "mx" => Ok(Target::Mx),
            Some(("maildir", "")) => Err(TargetError::NoDirectory),
            Some(("maildir", directory)) => Ok(Target::Maildir(PathBuf::from(directory))),
            Some(("smtp", rest)) => host("smtp", rest).map(Target::Smtp),
            Some(("smtps", rest)) => host("smtps", rest).map(Target::Smtps),
            Some(("lmtp", "unix" | "unix:")) => Err(TargetError::NoSocket),
            Some(("lmtp", rest)) => match rest.strip_prefix("unix:") {
                Some(path) if path.len() > SOCKET_PATH_OCTETS_MAX => {
                    Err(TargetError::SocketPathLong)
                }
                Some(path) => Ok(Target::LmtpUnix(PathBuf::from(path))),
                None => match host("lmtp", rest)? {
                    named if named.name == "unix" => Err(TargetError::Host {
                        scheme: "lmtp",
                        fault: HostError::Unix,
                    }),
                    host => Ok(Target::Lmtp(host)),
                },
            },
            Some(_) | None => Err(TargetError::Unknown),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Host, HostError> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, behind) = rest.split_once(']').ok_or(HostError::OpenBracket)?;
                let address: Ipv6Addr = address.parse().map_err(|_| HostError::Brackets)?;
                let port = behind.strip_prefix(':').ok_or(HostError::NoPort)?;
                (address.to_string(), port)
            }
            None => {
                let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
                let before_port = text.rsplit_once(':').map(|(before, _)| before);
                if is_ipv6(text) || before_port.is_some_and(is_ipv6) {
                    return Err(HostError::NoBrackets);
                }
                let (name, port) = text.split_once(':').unwrap_or((text, ""));
                if name.is_empty() {
                    return Err(HostError::NoHost);
                }
                (name_or_ipv4(name).ok_or(HostError::Name)?, port)
            }
        };
        if port.is_empty() {
            return Err(HostError::NoPort);
        }
        // `parse` would take a sign.
        let digits = port.bytes().all(|octet| octet.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Host { name, port }),
            Ok(_) | Err(_) => Err(HostError::Port),
        }
    }
}

/// A recipient's domain as the name of a host: an address literal loses its brackets, and the tag of RFC 5321 §4.1.3.
pub fn without_brackets(domain: &str) -> &str {
    let inner = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inner.map(|inner| match inner.split_at_checked("ipv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address,
        Some(_) | None => inner,
    });
    address.unwrap_or(domain)
}

/// In the spelling by which hosts are compared.
fn name_or_ipv4(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let name = idna::domain_to_ascii_strict(name).ok()?;
    // No top-level domain is a number (RFC 3696 section 2): this is an address with a digit too many or too few,
    // and some resolvers would guess what it means.
    let last_label = name.rsplit('.').next()?;
    let is_number = last_label.bytes().all(|octet| octet.is_ascii_digit());
    (!is_number).then_some(name)
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Maildir(directory) => write!(formatter, "maildir:{}", directory.display()),
            Target::Smtp(host) => write!(formatter, "smtp:{host}"),
            Target::Smtps(host) => write!(formatter, "smtps:{host}"),
            Target::Lmtp(host) => write!(formatter, "lmtp:{host}"),
            Target::LmtpUnix(path) => write!(formatter, "lmtp:unix:{}", path.display()),
            Target::Mx => formatter.write_str("mx"),
            Target::Discard => formatter.write_str("discard"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { name, port } = self;
        match name.contains(':') {
            true => write!(formatter, "[{name}]:{port}"),
            false => write!(formatter, "{name}:{port}"),
        }
    }
}

/// `sun_path` has 108 octets, a NUL among them.
const SOCKET_PATH_OCTETS_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    #[test]
    fn hosts() {
        let long_label = format!("{}.test:25", "a".repeat(64));
        let rows: &[(&str, &str, Result<Host, HostError>)] = &[
            ("a name", "mx.test:25", Ok(host("mx.test", 25))),
            ("one label", "localhost:25", Ok(host("localhost", 25))),
            ("upper case", "MX.Test:25", Ok(host("mx.test", 25))),
            ("a closing dot", "mx.test.:25", Ok(host("mx.test", 25))),
            (
                "U-labels",
                "b\u{fc}cher.example:25",
                Ok(host("xn--bcher-kva.example", 25)),
            ),
            ("IPv4", "192.0.2.1:25", Ok(host("192.0.2.1", 25))),
            ("IPv6", "[2001:DB8:0::1]:25", Ok(host("2001:db8::1", 25))),
            ("the lowest port", "mx.test:1", Ok(host("mx.test", 1))),
            ("the highest", "mx.test:65535", Ok(host("mx.test", 65535))),
            ("one over it", "mx.test:65536", Err(HostError::Port)),
            ("port 0", "mx.test:0", Err(HostError::Port)),
            ("a signed port", "mx.test:+25", Err(HostError::Port)),
            ("a service", "mx.test:smtp", Err(HostError::Port)),
            ("two ports", "mx.test:25:25", Err(HostError::Port)),
            ("no port", "mx.test", Err(HostError::NoPort)),
            (
                "no port behind the colon",
                "mx.test:",
                Err(HostError::NoPort),
            ),
            (
                "no port behind the bracket",
                "[::1]",
                Err(HostError::NoPort),
            ),
            (
                "no colon behind the bracket",
                "[::1]25",
                Err(HostError::NoPort),
            ),
            ("no host", ":25", Err(HostError::NoHost)),
            ("nothing", "", Err(HostError::NoHost)),
            ("an underscore", "my_host:25", Err(HostError::Name)),
            ("an empty label", "mx..test:25", Err(HostError::Name)),
            ("a hyphen in front", "-mx.test:25", Err(HostError::Name)),
            ("a label too long", &long_label, Err(HostError::Name)),
            ("a blank", "mx test:25", Err(HostError::Name)),
            ("a dot alone", ".:25", Err(HostError::Name)),
            ("an octet too large", "192.0.2.256:25", Err(HostError::Name)),
            ("an octet too few", "192.0.2:25", Err(HostError::Name)),
            ("a number", "25:25", Err(HostError::Name)),
            (
                "IPv6 without brackets",
                "2001:db8::1:25",
                Err(HostError::NoBrackets),
            ),
            ("IPv6 with neither", "::1", Err(HostError::NoBrackets)),
            ("an open bracket", "[::1:25", Err(HostError::OpenBracket)),
            (
                "a name in brackets",
                "[mx.test]:25",
                Err(HostError::Brackets),
            ),
            (
                "IPv4 in brackets",
                "[192.0.2.1]:25",
                Err(HostError::Brackets),
            ),
            ("a zone", "[fe80::1%eth0]:25", Err(HostError::Brackets)),
        ];
        for (name, text, expected) in rows {
            assert_eq!(&text.parse::<Host>(), expected, "{name}");
            if let Ok(host) = expected {
                assert_eq!(host.to_string().parse().as_ref(), Ok(host), "{name}");
            }
        }
    }

    #[test]
    fn literals_as_hosts() {
        let rows = [
            ("mx.test", "mx.test"),
            ("[192.0.2.1]", "192.0.2.1"),
            ("[ipv6:2001:db8::1]", "2001:db8::1"),
            ("[IPv6:2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[::1", "[::1"),
            ("[]", ""),
            ("", ""),
        ];
        for (domain, expected) in rows {
            assert_eq!(without_brackets(domain), expected, "{domain}");
        }
    }

    #[test]
    fn kinds() {
        let rows = [
            ("maildir:/m", false, false, None),
            ("discard", false, false, None),
            ("mx", true, true, None),
            ("lmtp:unix:/s", true, false, None),
            ("smtp:a.test:25", true, true, Some("a.test")),
            ("lmtp:a.test:24", true, true, Some("a.test")),
            ("smtps:a.test:465", true, false, Some("a.test")),
        ];
        for (text, next_hop, negotiates_tls, host) in rows {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.is_next_hop(), next_hop, "{text}");
            assert_eq!(target.negotiates_tls(), negotiates_tls, "{text}");
            let name = target.host().map(|host| host.name.as_str());
            assert_eq!(name, host, "{text}");
        }
    }

    #[test]
    fn targets() {
        let maildir = |directory: &str| Ok(Target::Maildir(PathBuf::from(directory)));
        let longest = format!("lmtp:unix:{}", "s".repeat(107));
        let too_long = format!("{longest}s");
        let rows: &[(&str, &str, Result<Target, TargetError>)] = &[
            ("discard", "discard", Ok(Target::Discard)),
            (
                "absolute directory",
                "maildir:/var/mail",
                maildir("/var/mail"),
            ),
            ("relative directory", "maildir:./m", maildir("./m")),
            ("colon in the directory", "maildir:a:b", maildir("a:b")),
            ("no directory", "maildir:", Err(TargetError::NoDirectory)),
            ("no colon", "maildir", Err(TargetError::Unknown)),
            ("upper case", "Discard", Err(TargetError::Unknown)),
            ("mx", "mx", Ok(Target::Mx)),
            ("mx with more", "mx:mx.test", Err(TargetError::Unknown)),
            (
                "smtp",
                "smtp:mx.test:25",
                Ok(Target::Smtp(host("mx.test", 25))),
            ),
            (
                "smtps",
                "smtps:mx.test:465",
                Ok(Target::Smtps(host("mx.test", 465))),
            ),
            ("lmtp", "lmtp:[::1]:24", Ok(Target::Lmtp(host("::1", 24)))),
            (
                "lmtp to a socket",
                "lmtp:unix:/run/lmtp",
                Ok(Target::LmtpUnix("/run/lmtp".into())),
            ),
            (
                "a colon in the socket's path",
                "lmtp:unix:24:a",
                Ok(Target::LmtpUnix("24:a".into())),
            ),
            ("no socket", "lmtp:unix:", Err(TargetError::NoSocket)),
            (
                "no socket, no colon",
                "lmtp:unix",
                Err(TargetError::NoSocket),
            ),
            (
                "the longest path",
                &longest,
                Ok(Target::LmtpUnix("s".repeat(107).into())),
            ),
            ("a longer one", &too_long, Err(TargetError::SocketPathLong)),
            (
                "a host that would be a socket",
                "lmtp:Unix.:24",
                Err(TargetError::Host {
                    scheme: "lmtp",
                    fault: HostError::Unix,
                }),
            ),
            (
                "such a host elsewhere",
                "smtp:unix:25",
                Ok(Target::Smtp(host("unix", 25))),
            ),
            (
                "smtp without a port",
                "smtp:mx.test",
                Err(TargetError::Host {
                    scheme: "smtp",
                    fault: HostError::NoPort,
                }),
            ),
            (
                "smtps without a host",
                "smtps:",
                Err(TargetError::Host {
                    scheme: "smtps",
                    fault: HostError::NoHost,
                }),
            ),
            (
                "an address of the web",
                "smtp://mx.test:25",
                Err(TargetError::Host {
                    scheme: "smtp",
                    fault: HostError::Name,
                }),
            ),
            (
                "an upper-case scheme",
                "SMTP:mx.test:25",
                Err(TargetError::Unknown),
            ),
            (
                "another scheme",
                "http:mx.test:80",
                Err(TargetError::Unknown),
            ),
            ("nothing", "", Err(TargetError::Unknown)),
            ("a bare path", "/var/mail", Err(TargetError::Unknown)),
        ];
        for (name, text, expected) in rows {
            assert_eq!(&text.parse::<Target>(), expected, "{name}");
            if let Ok(target) = expected {
                assert_eq!(
                    target.to_string().parse::<Target>().as_ref(),
                    Ok(target),
                    "{name}"
                );
            }
        }
    }
}
