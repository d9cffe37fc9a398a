//! What the flags of sending say wrongly together, and what they can hardly mean.
//!
//! Apart from the rest because a slip here does not show at the start: mail goes in a circle, a password leaves for
//! the wrong host, or a flag is believed in that does nothing.
//! Claims: the values alone are looked at. No name is looked up, so of a loop only the plain one is found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Config, Fault};
use crate::deliver::target::{Host, Target, without_brackets};
use crate::deliver::{Durability, OutTls};
use crate::tls::Verify;

impl Config {
    pub(super) fn sending_faults(&self, faults: &mut Vec<Fault>) {
        for (flag, target) in self.targets() {
            if let Some(listener) = target.host().and_then(|host| self.own_listener(host)) {
                let text =
                    format!("{target} is this server itself ({listener}), a circle for mail");
                faults.push(Fault::new(flag, text));
            }
        }
        let mut places: Vec<&str> = Vec::new();
        for login in &self.logins {
            let place = login.place.as_str();
            if places.contains(&place) {
                faults.push(Fault::new("--out-auth", format!("{place} is given twice")));
            }
            places.push(place);
            if !self.can_log_in(place) {
                let text = format!(
                    "{place}: credentials only leave inside TLS, and under --out-tls off only smtps: is TLS"
                );
                faults.push(Fault::new("--out-auth", text));
            }
        }
    }

    pub(super) fn sending_warnings(&self, warnings: &mut Vec<Fault>) {
        self.next_hop_warnings(warnings);
        self.out_tls_warnings(warnings);
        self.login_warnings(warnings);
        let mut warn = |flag, text: &str| warnings.push(Fault::new(flag, text));
        let sending = &self.sending;
        let next_hop = |wanted: fn(&Target) -> bool| self.targets().any(|(_, at)| wanted(at));
        let by_name = |target: &Target| {
            *target == Target::Mx || target.host().is_some_and(|host| address(host).is_none())
        };
        if sending.dns.is_some() && !next_hop(by_name) {
            warn("--dns", "not used: no next hop is found by its name");
        }
        if sending.helo != self.hostname && !next_hop(Target::is_next_hop) {
            warn("--out-helo", "not used: nothing is sent on");
        }
        if next_hop(|target| *target == Target::Mx) && !sending.helo.contains('.') {
            // RFC 5321 §4.1.1.1 asks for a fully-qualified name, and many look whether it is one.
            let text = format!(
                "many mail exchangers turn away who is called {}",
                sending.helo
            );
            let flag = match sending.helo == self.hostname {
                true => "--hostname",
                false => "--out-helo",
            };
            warn(flag, &text);
        }
        if sending.connections_per_hop_max > sending.connections_max {
            let text = "more than --out-connections allows for all next hops together";
            warn("--out-connections-per-hop", text);
        }
        if self.durability == Durability::NextHop {
            if !next_hop(Target::is_next_hop) {
                let text = "next-hop: nothing is sent on, every message is kept on disk";
                warn("--durability", text);
            }
            if sending.next_hop_timeout >= PATIENCE_OF_SENDERS {
                let text = "senders give up after 10m (RFC 5321 section 4.5.3.2.6) and send again";
                warn("--next-hop-timeout", text);
            }
        }
        let first = self.retry_schedule.waits().first();
        if first.is_some_and(|first| sending.queue_lifetime < *first) {
            let text = "ends before the first retry (--retry-schedule)";
            warn("--queue-lifetime", text);
        }
        if (sending.delay_notice).is_some_and(|notice| notice >= sending.queue_lifetime) {
            let text = "never comes: --queue-lifetime ends first";
            warn("--delay-notice", text);
        }
    }

    fn next_hop_warnings(&self, warnings: &mut Vec<Fault>) {
        for (flag, target) in self.targets() {
            let Some(Host { name, port }) = target.host() else {
                continue;
            };
            let mut ports = self.listen.iter().chain(&self.listen_tls);
            if *name == self.hostname && ports.any(|listener| listener.port() == *port) {
                let text = format!("{target} seems to be this server itself");
                warnings.push(Fault::new(flag, text));
            }
            let implicit_tls = match target {
                Target::Smtp(_) => *port == SUBMISSIONS_PORT,
                Target::Smtps(_) => SMTP_PORTS.contains(port),
                Target::Lmtp(_)
                | Target::LmtpUnix(_)
                | Target::Maildir(_)
                | Target::Mx
                | Target::Discard => false,
            };
            if implicit_tls {
                let (is, perhaps) = match target.negotiates_tls() {
                    true => ("is TLS from the first octet", "smtps"),
                    false => ("greets in clear", "smtp"),
                };
                let text = format!("port {port} mostly {is}; perhaps {perhaps}: is meant");
                warnings.push(Fault::new(flag, text));
            }
        }
    }

    fn out_tls_warnings(&self, warnings: &mut Vec<Fault>) {
        let mut warn = |flag, text: &str| warnings.push(Fault::new(flag, text));
        let (sending, client) = (&self.sending, &self.sending.client);
        let some = |wanted: fn(&Target) -> bool| self.targets().any(|(_, target)| wanted(target));
        let (negotiates, implicit) = (some(Target::negotiates_tls), some(is_smtps));
        if sending.tls == OutTls::Off && implicit && !negotiates {
            warn(
                "--out-tls",
                "without effect: smtps: is TLS from the first octet",
            );
        }
        if sending.clear_after_tls_failure {
            let why = match sending.tls {
                OutTls::Off => Some("without effect under --out-tls off"),
                OutTls::Required => Some("without effect under --out-tls required"),
                OutTls::Negotiated if !negotiates => {
                    Some("without effect: no next hop is asked for STARTTLS")
                }
                OutTls::Negotiated if sending.client.verify == Verify::Yes => {
                    Some("who does not prove its name (--out-verify yes) gets mail in clear")
                }
                OutTls::Negotiated => None,
            };
            why.into_iter()
                .for_each(|why| warn("--out-clear-after-tls-failure", why));
        }
        if !implicit && (sending.tls == OutTls::Off || !negotiates) {
            let unused = [
                ("--out-verify", client.verify == Verify::Yes),
                ("--out-cert", client.certificate.is_some()),
                ("--out-ca", client.ca.is_some()),
            ];
            for (flag, _) in unused.into_iter().filter(|(_, given)| *given) {
                // Under required it is what follows of that, and nobody's word.
                if flag != "--out-verify" || sending.tls != OutTls::Required {
                    warn(flag, "not used: nothing is sent inside TLS");
                }
            }
        }
    }

    fn login_warnings(&self, warnings: &mut Vec<Fault>) {
        let mut warn = |text: String| warnings.push(Fault::new("--out-auth", text));
        for login in &self.logins {
            let place = &login.place;
            if self.targets_of_login(place).next().is_none() {
                warn(format!(
                    "{place} is neither a next hop nor routed to one: not used"
                ));
            }
        }
        if !self.logins.is_empty() && self.sending.client.verify == Verify::No {
            let text =
                "without --out-verify yes, who pretends to be the next hop gets the password";
            warn(text.to_owned());
        }
    }

    /// Whether the credentials for `place` can ever leave. Of those that go nowhere another line tells, as long as
    /// there is TLS for any.
    fn can_log_in(&self, place: &str) -> bool {
        if self.sending.tls != OutTls::Off {
            return true;
        }
        let mut of_login = self.targets_of_login(place).peekable();
        match of_login.peek() {
            Some(_) => of_login.any(is_smtps),
            None => self.targets().any(|(_, target)| is_smtps(target)),
        }
    }

    /// The next hops that a login for `place` is for: those of that name, that its domain's mail goes to, and `mx`,
    /// which may lead to a host of any name.
    fn targets_of_login(&self, place: &str) -> impl Iterator<Item = &Target> {
        let is_place = move |domain: &String| without_brackets(domain) == place;
        let routed = self.routes.iter().any(|(domain, _)| is_place(domain));
        // Who may relay names any domain.
        let any_domain = !self.smtp.trusted_nets.is_empty() || self.users.is_some();
        let of_default = !routed && (any_domain || self.smtp.local_domains.iter().any(is_place));
        let default = (&self.deliver, of_default);
        let routes = (self.routes.iter()).map(move |(domain, target)| (target, is_place(domain)));
        let all = std::iter::once(default).chain(routes);
        let counts = move |(target, by_domain): &(&Target, bool)| match target {
            Target::Smtp(host) | Target::Smtps(host) | Target::Lmtp(host) => {
                *by_domain || host.name == place
            }
            Target::Mx => true,
            Target::LmtpUnix(_) | Target::Maildir(_) | Target::Discard => false,
        };
        all.filter(counts).map(|(target, _)| target)
    }

    /// The listener that takes connections to this host, as far as its address shows.
    fn own_listener(&self, host: &Host) -> Option<SocketAddr> {
        let addresses: &[IpAddr] = match address(host) {
            Some(address) => &[reached(address)],
            None if host.name == "localhost" => &[IPV4_LOOPBACK, IPV6_LOOPBACK],
            None => &[],
        };
        let all = || self.listen.iter().chain(&self.listen_tls);
        let mut of_port = all().filter(|listener| listener.port() == host.port);
        let ipv4_beside = of_port.clone().any(SocketAddr::is_ipv4);
        let takes = |listener: &&SocketAddr| {
            let ip = listener.ip().to_canonical();
            addresses.iter().any(|address| match ip.is_unspecified() {
                false => ip == *address,
                // Another address of the machine cannot be told from a foreign one.
                true if !address.is_loopback() => false,
                true if ip.is_ipv4() => address.is_ipv4(),
                // It takes IPv4 too, unless that has a listener of its own (`control::listeners`).
                true => address.is_ipv6() || !ipv4_beside,
            })
        };
        of_port.find(takes).copied()
    }
}

fn is_smtps(target: &Target) -> bool {
    matches!(target, Target::Smtps(_))
}

fn address(host: &Host) -> Option<IpAddr> {
    host.name.parse().ok()
}

/// Where a connection to this address goes: Linux takes the unspecified one for itself.
fn reached(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match (address.is_unspecified(), address.is_ipv4()) {
        (true, true) => IPV4_LOOPBACK,
        (true, false) => IPV6_LOOPBACK,
        (false, _) => address,
    }
}

const IPV4_LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6_LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// TLS from the first octet (RFC 8314 §7.3).
const SUBMISSIONS_PORT: u16 = 465;

/// Relay and submission, both clear at first (RFC 5321 §4.5.4.2, RFC 6409 §3.1).
const SMTP_PORTS: [u16; 2] = [25, 587];

/// How long a sender waits for the reply to its mail data (RFC 5321 §4.5.3.2.6).
const PATIENCE_OF_SENDERS: Duration = Duration::from_secs(10 * 60);
