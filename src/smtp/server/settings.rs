//! What a session is told about the machine it serves: names, policy, limits.
//!
//! Apart from the session because it is shared by all of them, made once and never changed.
//! Plain values: the files behind some of them are read elsewhere and come here as text.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::policy::{ChannelPolicy, StartTls};
use crate::smtp::data::Budget;
use crate::smtp::end_of_data::StrayNewline;
use crate::smtp::path::{self, ForwardPath};

/// Everything a session must know besides its connection.
#[derive(Debug)]
pub struct Settings {
    /// The name this server gives itself.
    pub hostname: String,
    /// What the greeting says behind the host name; [`DEFAULT_GREETING`] unless told.
    pub greeting: String,
    /// Whether TLS is offered, or required, on a TCP port.
    pub starttls: StartTls,
    /// What holds in clear.
    pub tcp: ChannelPolicy,
    /// What holds inside TLS, however it came about.
    pub tls: ChannelPolicy,
    /// Domains mail is taken for from anybody.
    pub local_domains: LocalDomains,
    /// Networks whose clients may relay without AUTH.
    pub trusted_nets: Vec<IpNet>,
    /// The addresses that exist in the local domains; `None`: all do.
    pub recipients: Option<KnownRecipients>,
    /// What becomes of a lone CR or LF in mail data.
    pub stray_newline: StrayNewline,
    /// What a peer may use.
    pub limits: Limits,
    /// Octets of mail data the whole process may hold.
    pub budget: Arc<Budget>,
}

impl Settings {
    /// Whether the client at `address` may relay without AUTH.
    pub fn trusts(&self, address: IpAddr) -> bool {
        // A listener on [::] sees IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.trusted_nets.iter().any(|net| net.contains(&address))
    }
}

/// What follows the host name in the greeting, unless told otherwise. RFC 5321 §4.3.1 asks for
/// "ESMTP" there.
pub const DEFAULT_GREETING: &str = "ESMTP ringpost";

/// What one session may use. RFC 5321 §4.5.3.1 has the floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of mail data in a message, dot stuffing undone.
    pub message_octets_max: u64,
    /// Octets of mail data of one message that are held in memory. When so many have come in they
    /// are put away, and again behind them.
    pub message_memory_octets_max: u64,
    /// Recipients of a transaction (RFC 5321 §4.5.3.1.8: at least 100).
    pub recipients_max: usize,
    /// Errors in a session; the last of them ends it.
    pub errors_max: u32,
    /// How long a command may take to arrive (RFC 5321 §4.5.3.2.7: 5 minutes).
    pub command_timeout: Duration,
    /// How long mail data may pause.
    pub data_timeout: Duration,
    /// How long a session may last in all.
    pub session_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_octets_max: 50 * 1024 * 1024,
            message_memory_octets_max: 256 * 1024,
            recipients_max: 1000,
            errors_max: 20,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(5 * 60),
            session_timeout: Duration::from_secs(60 * 60),
        }
    }
}

/// The domains whose mail ends here. There is always one: `<postmaster>` needs a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDomains {
    first: Box<str>,
    all: HashSet<Box<str>>,
}

impl LocalDomains {
    /// `first` is the domain of `<postmaster>`; `others` may name it again.
    pub fn new<'a>(
        first: &'a str,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Result<LocalDomains, SettingsError> {
        let first = normal_domain(first)?;
        let mut all = HashSet::from([first.clone()]);
        for domain in others {
            all.insert(normal_domain(domain)?);
        }
        Ok(LocalDomains { first, all })
    }

    /// The domain of `<postmaster>`.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// Whether `domain`, in lower case and A-labels, is one of them.
    pub fn contains(&self, domain: &str) -> bool {
        // Mostly it is the first, and to compare costs less than to hash.
        *self.first == *domain || self.all.contains(domain)
    }
}

/// The addresses that exist in the local domains.
///
/// One a line; `#` begins a comment; `@domain` means every local part of that domain. Local
/// parts are compared without regard to case, as the Maildir names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRecipients {
    by_domain: HashMap<Box<str>, LocalParts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LocalParts {
    all: bool,
    named: HashSet<Box<str>>,
}

impl KnownRecipients {
    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Result<KnownRecipients, SettingsError> {
        let mut known = KnownRecipients::default();
        for (index, line) in text.lines().enumerate() {
            let address = line
                .split_once('#')
                .map_or(line, |(before, _)| before)
                .trim();
            if address.is_empty() {
                continue;
            }
            let fault = || SettingsError::Recipient {
                line: index + 1,
                text: String::from(address),
            };
            if let Some(domain) = address.strip_prefix('@') {
                let domain = normal_domain(domain).map_err(|_| fault())?;
                known.by_domain.entry(domain).or_default().all = true;
                continue;
            }
            let path = format!("<{address}>");
            let Ok((ForwardPath::Mailbox(mailbox), "")) = path::forward_path(&path) else {
                return Err(fault());
            };
            let domain = Box::from(mailbox.domain().comparable());
            let local_part = mailbox.local_part().unquoted().to_lowercase();
            known
                .by_domain
                .entry(domain)
                .or_default()
                .named
                .insert(local_part.into_boxed_str());
        }
        Ok(known)
    }

    /// Whether `local_part` (without quotes) exists at `domain` (in lower case and A-labels).
    pub fn contains(&self, local_part: &str, domain: &str) -> bool {
        let Some(known) = self.by_domain.get(domain) else {
            return false;
        };
        // Most clients write addresses as the file has them: no copy for those.
        known.all
            || known.named.contains(local_part)
            || known.named.contains(local_part.to_lowercase().as_str())
    }

    /// How many addresses there are, an `@domain` line being one.
    pub fn len(&self) -> usize {
        self.by_domain
            .values()
            .map(|known| known.named.len() + usize::from(known.all))
            .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_domain.is_empty()
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not a domain.
    #[error("{0:?} is not a domain")]
    Domain(String),
    /// A line of the recipients file that is no address.
    #[error("line {line}: {text:?} is not an address")]
    Recipient {
        /// Which line, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
}

/// The form in which domains are compared: A-labels in lower case; an address literal in its
/// brackets. By the grammar of paths, so that the same things are domains here and there.
fn normal_domain(domain: &str) -> Result<Box<str>, SettingsError> {
    let path = format!("<postmaster@{domain}>");
    match path::forward_path(&path) {
        Ok((ForwardPath::Mailbox(mailbox), "")) => Ok(Box::from(mailbox.domain().comparable())),
        Ok(_) | Err(_) => Err(SettingsError::Domain(String::from(domain))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_domains_are_compared_in_a_labels() {
        let domains = LocalDomains::new("MX.Test", ["bücher.example", "[192.0.2.1]"]).unwrap();
        assert_eq!(domains.first(), "mx.test");
        let rows = [
            ("mx.test", true),
            ("xn--bcher-kva.example", true),
            ("[192.0.2.1]", true),
            ("sub.mx.test", false),
            ("", false),
        ];
        for (domain, wanted) in rows {
            assert_eq!(domains.contains(domain), wanted, "{domain}");
        }
        for bad in ["", "a b", "a..b", "-a.test"] {
            assert!(LocalDomains::new(bad, []).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn known_recipients() {
        let text = "# who lives here\nTim@mx.test\n\n a@Bücher.example # a comment\n@all.test\r\n";
        let known = KnownRecipients::parse(text).unwrap();
        assert_eq!(known.len(), 3);
        let rows = [
            ("tim", "mx.test", true),
            ("TIM", "mx.test", true),
            ("tom", "mx.test", false),
            ("a", "xn--bcher-kva.example", true),
            ("any", "all.test", true),
            ("tim", "other.test", false),
        ];
        for (local_part, domain, wanted) in rows {
            assert_eq!(
                known.contains(local_part, domain),
                wanted,
                "{local_part}@{domain}"
            );
        }
    }

    #[test]
    fn a_line_that_is_no_address_is_named() {
        for text in [
            "a@mx.test\nnobody\n",
            "a@mx.test\na b@mx.test\n",
            "a@mx.test\nb@\n",
        ] {
            let Err(SettingsError::Recipient { line, .. }) = KnownRecipients::parse(text) else {
                panic!("{text:?} was accepted");
            };
            assert_eq!(line, 2, "{text:?}");
        }
    }

    #[test]
    fn trusted_networks_hold_mapped_addresses_too() {
        let settings = crate::smtp::server::dialogues::settings(|settings| {
            settings.trusted_nets = vec!["192.0.2.0/24".parse().unwrap()];
        });
        let rows = [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("192.0.3.1", false),
        ];
        for (address, wanted) in rows {
            assert_eq!(
                settings.trusts(address.parse().unwrap()),
                wanted,
                "{address}"
            );
        }
    }
}
