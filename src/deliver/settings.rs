//! What a delivery is told: routes, the promise, the schedule.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::schedule::RetrySchedule;
use super::target::{Target, without_brackets};
use crate::smtp::envelope::Envelope;
use crate::tls::ClientSettings;

/// What 250 to the end of data promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The message is on stable storage.
    Disk,
    /// The next hop has taken the message; where there is none, or none that takes it in time, as [`Durability::Disk`].
    NextHop,
    /// The message is in memory: fast, and lost with the process.
    None,
}

impl Durability {
    /// Its name, as the flag has it.
    pub const fn label(self) -> &'static str {
        match self {
            Durability::Disk => "disk",
            Durability::NextHop => "next-hop",
            Durability::None => "none",
        }
    }
}

/// Which target a domain's mail goes to.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Each target once; the first is the default.
    targets: Vec<Target>,
    /// Indices of `targets`.
    by_domain: HashMap<String, usize>,
}

impl Routes {
    /// `default` for every domain that has no target of its own.
    pub fn new(default: Target, by_domain: impl IntoIterator<Item = (String, Target)>) -> Routes {
        let mut targets = vec![default];
        let by_domain = by_domain.into_iter().map(|(domain, target)| {
            let known = targets.iter().position(|known| *known == target);
            let index = known.unwrap_or_else(|| {
                targets.push(target);
                targets.len() - 1
            });
            (domain, index)
        });
        let by_domain = by_domain.collect();
        Routes { targets, by_domain }
    }

    /// Each target once; the first is the default.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter()
    }

    /// The place of a domain's target, in lower case, among all.
    pub fn index(&self, domain: &str) -> usize {
        self.by_domain.get(domain).copied().unwrap_or(0)
    }

    /// The target of a domain, in lower case.
    pub fn target(&self, domain: &str) -> &Target {
        let target = self.targets.get(self.index(domain));
        target.unwrap_or(&Target::Discard)
    }

    /// Whether nothing of a message goes anywhere.
    pub fn discard_all(&self, envelope: &Envelope) -> bool {
        let mut recipients = envelope.recipients.iter();
        recipients.all(|recipient| *self.target(&recipient.domain) == Target::Discard)
    }
}

/// What deliveries are told.
#[derive(Debug)]
pub struct DeliverySettings {
    /// The name in trace fields and file names.
    pub hostname: String,
    /// Where mail goes.
    pub routes: Routes,
    /// What 250 promises.
    pub durability: Durability,
    /// When what failed is tried again.
    pub schedule: RetrySchedule,
    /// How mail is sent on.
    pub sending: Sending,
}

/// How mail is sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// `--out-helo`: the name given in EHLO.
    pub helo: String,
    /// `--out-tls`
    pub tls: OutTls,
    /// What is shown to next hops and verified of them.
    pub client: ClientSettings,
    /// `--out-clear-after-tls-failure`: whether a new connection goes on in clear when a handshake failed under
    /// `--out-tls negotiated`.
    pub clear_after_tls_failure: bool,
    /// `--out-auth`: what is proved by AUTH, by next hop or recipient domain: a name in lower case, or an address
    /// without brackets. [`Sending::login`] finds the one that counts.
    pub logins: HashMap<String, Login>,
    /// `--dns`: the server that is asked; none: the system's.
    pub dns: Option<SocketAddr>,
    /// `--out-connections`: connections to next hops at a time, of the whole process.
    pub connections_max: usize,
    /// `--out-connections-per-hop`: those of them to one next hop.
    pub connections_per_hop_max: usize,
    /// `--handshake-timeout`: how long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// `--queue-lifetime`: how long a message is tried before it goes back.
    pub queue_lifetime: Duration,
    /// `--delay-notice`: how long a message waits before its sender is told; none: never.
    pub delay_notice: Option<Duration>,
    /// `--next-hop-timeout`: how long a sender waits for the next hop under `--durability next-hop`.
    pub next_hop_timeout: Duration,
}

impl Sending {
    /// The login for a host that is connected to (a name, or an address without brackets) with mail for `domain`, as
    /// [`Recipient::domain`] has it.
    ///
    /// The domain's comes first, as its `--route` comes before `--deliver`: one relay may know us by several names.
    ///
    /// [`Recipient::domain`]: crate::smtp::envelope::Recipient::domain
    pub fn login(&self, host: &str, domain: &str) -> Option<&Login> {
        let of_domain = self.login_of_domain(domain);
        of_domain.or_else(|| self.logins.get(host))
    }

    /// Whether a message that came so long ago goes back.
    pub(super) fn is_expired(&self, waited: Duration) -> bool {
        waited >= self.queue_lifetime
    }

    /// Whether the sender of a message that came so long ago is to hear that it still waits.
    pub(super) fn is_late(&self, waited: Duration) -> bool {
        self.delay_notice.is_some_and(|notice| waited >= notice)
    }

    /// The login with mail for `domain`, whatever the host.
    pub(super) fn login_of_domain(&self, domain: &str) -> Option<&Login> {
        match self.logins.is_empty() {
            true => None,
            false => self.logins.get(without_brackets(domain)),
        }
    }
}

impl Default for Sending {
    fn default() -> Sending {
        Sending {
            helo: "localhost".to_owned(),
            tls: OutTls::Negotiated,
            client: ClientSettings::default(),
            clear_after_tls_failure: false,
            logins: HashMap::new(),
            dns: None,
            connections_max: 256,
            connections_per_hop_max: 20,
            handshake_timeout: Duration::from_secs(30),
            // RFC 5321 §4.5.4.1: to give up takes at least 4 to 5 days.
            queue_lifetime: Duration::from_secs(5 * 24 * 60 * 60),
            delay_notice: Some(Duration::from_secs(4 * 60 * 60)),
            next_hop_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether the next hop is spoken to inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutTls {
    /// STARTTLS is never sent.
    Off,
    /// Where the next hop offers it.
    Negotiated,
    /// Always: without TLS no mail.
    Required,
}

/// A name and its password for AUTH. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_that_counts() {
        let login = |name: &str| Login {
            name: name.to_owned(),
            password: "secret".to_owned(),
        };
        let places = ["relay.test", "a.test", "192.0.2.1", "2001:db8::1"];
        let sending = Sending {
            logins: places.map(|place| (place.to_owned(), login(place))).into(),
            ..Sending::default()
        };
        let rows = [
            ("of the host", "relay.test", "b.test", Some("relay.test")),
            ("of an address", "192.0.2.1", "b.test", Some("192.0.2.1")),
            (
                "of an IPv6 address",
                "2001:db8::1",
                "b.test",
                Some("2001:db8::1"),
            ),
            ("of the domain", "mx.test", "a.test", Some("a.test")),
            (
                "the domain's before the host's",
                "relay.test",
                "a.test",
                Some("a.test"),
            ),
            ("of a literal", "mx.test", "[192.0.2.1]", Some("192.0.2.1")),
            (
                "of an IPv6 literal",
                "mx.test",
                "[ipv6:2001:db8::1]",
                Some("2001:db8::1"),
            ),
            ("of neither", "mx.test", "b.test", None),
            ("of a domain above", "sub.relay.test", "sub.a.test", None),
        ];
        for (name, host, domain, expected) in rows {
            let found = sending.login(host, domain);
            assert_eq!(found.map(|login| login.name.as_str()), expected, "{name}");
        }
        assert!(!format!("{sending:?}").contains("secret"));
    }
}
