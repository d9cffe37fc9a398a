//! Which hosts take mail for a domain, and in which order they are tried (RFC 5321 §5.1).
//!
//! Addresses are looked up for the hosts of one preference at a time, all of them at once, when the caller comes to
//! them: a domain with many hosts costs two steps of lookups as long as the first ones take its mail. It takes all of one
//! preference, for if one of them is ourselves, none of them is for us to send to.
//!
//! ```text
//!   10 a, 10 b │ 20 c, 20 us │ 30 d
//!   looked up  │ not yet: us is found among them, and they and all behind them are dropped
//! ```
//!
//! A host whose addresses DNS does not tell is passed over. If that is ourselves by another name, mail may come back once
//! more; what bounds that are the trace fields that are counted at reception.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::servers::{Answer, Trouble};
use super::{
    Absence, Dns, absolute, all, bounded, host_name, is_of_a_host, no_such_name, not_a_name,
    unanswered, unroutable,
};
use crate::deliver::verdict::Failure;
use crate::smtp::status::Status;

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// Its name as MX has it, or the domain without one, in lower case and without a dot at the end; of an address
    /// literal the address.
    pub name: Box<str>,
    /// In the order to try; never empty, and never ours.
    pub addresses: Vec<IpAddr>,
}

/// The hosts that take mail for a domain, in the order to try; each is given once.
#[derive(Debug)]
pub struct Exchangers<'a> {
    dns: &'a Dns,
    /// With their addresses.
    found: VecDeque<Exchanger>,
    /// Without, each group of one preference.
    groups: VecDeque<Vec<Candidate>>,
}

/// A host without its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    preference: u16,
    name: Name,
    text: Box<str>,
}

/// What came of a group.
enum Step {
    /// Hosts.
    Found,
    /// None that can be used; the trouble, if DNS did not tell for one.
    Unusable(Option<(Box<str>, Trouble)>),
    /// We are in it: nothing is left.
    Ourselves,
    /// There was none left.
    End,
}

impl<'a> Exchangers<'a> {
    /// Looks up as much as it takes to give the first one.
    pub(super) async fn find(dns: &'a Dns, domain: &str) -> Result<Exchangers<'a>, Failure> {
        let mut exchangers = Exchangers {
            dns,
            found: VecDeque::new(),
            groups: VecDeque::new(),
        };
        if let Some(address) = literal(domain).filter(|address| is_of_a_host(*address)) {
            if dns.ourselves.listen_on(address) {
                return Err(loops(domain));
            }
            exchangers.found.push_back(Exchanger {
                name: address.to_string().into(),
                addresses: vec![address],
            });
            return Ok(exchangers);
        }
        let name = absolute(domain).ok_or_else(|| not_a_name(domain))?;
        let hosts = match dns.servers.ask(&name, RecordType::MX).await {
            Ok(Answer::Records(records)) => {
                let mut hosts = Vec::new();
                for record in records {
                    if let RData::MX(mx) = record.data {
                        hosts.push((mx.preference, mx.exchange));
                    }
                }
                hosts
            }
            Ok(Answer::NoRecords) => Vec::new(),
            Ok(Answer::NoName) => return Err(no_such_name("domain", domain)),
            Err(trouble) => return Err(unanswered("the mail exchangers", domain, &trouble)),
        };
        // RFC 7505 §3. Of preference 0 it should be, but a host it is with none.
        if !hosts.is_empty() && hosts.iter().all(|(_, name)| name.is_root()) {
            let text = format!("domain {domain} does not accept mail (null MX)");
            return Err(Failure::ours(Status::permanent(1, 10), text));
        }
        // RFC 5321 §5.1: an implicit MX only for a domain that has none at all, be they of no use.
        let implicit = hosts.is_empty();
        let hosts = match implicit {
            true => vec![(0, name)],
            false => hosts,
        };
        let ranked = ranked(hosts, &RandomState::new());
        let nearer = nearer(ranked.clone(), |name| dns.ourselves.are_named(name));
        if nearer.is_empty() && !ranked.is_empty() {
            return Err(loops(domain));
        }
        exchangers.groups = groups(&nearer);
        exchangers.begin(domain, implicit).await
    }

    /// Goes on to the first host that can be used.
    async fn begin(mut self, domain: &str, implicit: bool) -> Result<Exchangers<'a>, Failure> {
        let (mut unknown, mut passed) = (None, false);
        loop {
            match self.advance().await {
                Step::Found => return Ok(self),
                Step::Unusable(trouble) => {
                    unknown = unknown.or(trouble);
                    passed = true;
                }
                Step::Ourselves if !passed => return Err(loops(domain)),
                // A nearer host that nobody finds keeps its mail from looping, and from arriving.
                Step::Ourselves | Step::End => break,
            }
        }
        Err(match unknown {
            Some((host, trouble)) => unanswered("the address", &host, &trouble),
            None if implicit => unroutable(format!(
                "domain {domain} has neither a mail exchanger nor an address in DNS"
            )),
            None => unroutable(format!(
                "no mail exchanger of domain {domain} has an address in DNS"
            )),
        })
    }

    /// The next host to try. This may look it up, which takes as long as any lookup at most.
    pub async fn next(&mut self) -> Option<Exchanger> {
        while self.found.is_empty() {
            match bounded(self.dns.patience.lookup, self.advance()).await {
                // Out of time, the group is given up as one that DNS does not tell of.
                Ok(Step::Found | Step::Unusable(_)) | Err(_) => {}
                Ok(Step::Ourselves | Step::End) => return None,
            }
        }
        self.found.pop_front()
    }

    /// Looks up the hosts of the next group.
    async fn advance(&mut self) -> Step {
        let Some(group) = self.groups.pop_front() else {
            return Step::End;
        };
        let dns = self.dns;
        let hosts = all(group.iter().map(|candidate| dns.host(&candidate.name))).await;
        let mut unknown = None;
        for (candidate, host) in group.into_iter().zip(hosts) {
            let name = candidate.text;
            match host {
                Ok(host) if host.is_ourselves => {
                    self.found.clear();
                    self.groups.clear();
                    return Step::Ourselves;
                }
                Ok(host) => self.found.push_back(Exchanger {
                    name,
                    addresses: host.addresses,
                }),
                Err(absence) => {
                    tracing::debug!(name = &*name, reason = %absence, "mail exchanger passed over");
                    if let Absence::Unknown(trouble) = absence {
                        unknown = Some((name, trouble));
                    }
                }
            }
        }
        match self.found.is_empty() {
            true => Step::Unusable(unknown),
            false => Step::Found,
        }
    }
}

/// The address of an address literal, as an envelope has it: `[192.0.2.1]`, `[ipv6:2001:db8::1]`.
fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.strip_prefix("ipv6:") {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => inner.parse().ok().map(IpAddr::V4),
    }
}

/// The hosts by preference, those of equal preference in an order that `state` decides (RFC 5321 §5.1: they are to
/// share the load), each once. What is no host's name is left out, a null MX among others too (RFC 7505 §3).
fn ranked(hosts: Vec<(u16, Name)>, state: &impl BuildHasher) -> Vec<Candidate> {
    let candidate = |(preference, name): (u16, Name)| {
        let text = host_name(&name)?;
        Some(Candidate {
            preference,
            name,
            text,
        })
    };
    let mut candidates: Vec<_> = hosts.into_iter().filter_map(candidate).collect();
    candidates.sort_by_cached_key(|candidate| {
        let lot = state.hash_one(&candidate.text);
        (candidate.preference, lot)
    });
    let mut seen = HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.text.clone()));
    candidates
}

/// Those that are nearer to the domain than ourselves: mail goes to a lower preference only, or two hosts could pass it
/// to each other for ever (RFC 5321 §5.1).
fn nearer(ranked: Vec<Candidate>, is_ours: impl Fn(&str) -> bool) -> Vec<Candidate> {
    let ours = ranked.iter().find(|candidate| is_ours(&candidate.text));
    let end = ours.map(|candidate| candidate.preference);
    let is_nearer = |candidate: &Candidate| end.is_none_or(|end| candidate.preference < end);
    ranked.into_iter().filter(is_nearer).collect()
}

/// The best ones, by preference.
fn groups(ranked: &[Candidate]) -> VecDeque<Vec<Candidate>> {
    let of_one_preference = |a: &Candidate, b: &Candidate| a.preference == b.preference;
    let best = ranked.get(..EXCHANGERS_MAX).unwrap_or(ranked);
    best.chunk_by(of_one_preference)
        .map(<[Candidate]>::to_vec)
        .collect()
}

/// "Routing loop detected" (RFC 3463 §3.5).
fn loops(domain: &str) -> Failure {
    let text = format!("mail for {domain} loops back to us");
    Failure::ours(Status::permanent(4, 6), text)
}

/// Hosts of one domain that are looked at: the largest providers have five, and each can cost a connection's timeout.
const EXCHANGERS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    type Unseeded = BuildHasherDefault<DefaultHasher>;

    /// `10 a.test., 20 b.test.`; a `|` is a dot within a label.
    fn hosts(text: &str) -> Vec<(u16, Name)> {
        let host = |text: &str| {
            let (preference, name) = text.split_once(' ').unwrap();
            let labels = name.split_terminator('.');
            let labels = labels.map(|label| label.replace('|', ".").into_bytes());
            let name = Name::from_labels(labels.filter(|label| !label.is_empty()));
            (preference.parse().unwrap(), name.unwrap())
        };
        text.split(", ").map(host).collect()
    }

    fn shown(candidates: &[Candidate]) -> String {
        let shown: Vec<_> = candidates
            .iter()
            .map(|candidate| format!("{} {}", candidate.preference, candidate.text))
            .collect();
        shown.join(", ")
    }

    #[test]
    fn ranks() {
        for (name, given, expected) in [
            ("one", "10 a.test.", "10 a.test"),
            (
                "by preference",
                "30 a.test., 5 b.test., 10 c.test.",
                "5 b.test, 10 c.test, 30 a.test",
            ),
            (
                "from end to end",
                "65535 a.test., 0 b.test.",
                "0 b.test, 65535 a.test",
            ),
            ("lower case", "10 MX.Test.", "10 mx.test"),
            (
                "twice, by its better one",
                "20 a.test., 10 A.test.",
                "10 a.test",
            ),
            (
                "twice, of one preference",
                "10 a.test., 10 a.test.",
                "10 a.test",
            ),
            ("a null MX among others", "0 ., 10 a.test.", "10 a.test"),
            ("an underscore", "10 mx_1.test.", "10 mx_1.test"),
            ("a line break", "10 a\nb.test., 20 b.test.", "20 b.test"),
            ("a space", "10 a b.test.", ""),
            ("a dot in a label", "10 a|b.test.", ""),
            ("octets beyond ASCII", "10 ü.test.", ""),
        ] {
            let ranked = ranked(hosts(given), &Unseeded::default());
            assert_eq!(shown(&ranked), expected, "{name}");
        }
    }

    #[test]
    fn equal_preferences_share_the_load() {
        let names = "10 a.test., 10 b.test., 10 c.test., 20 d.test.";
        let one = |state: &RandomState| shown(&ranked(hosts(names), state));
        let seeds: Vec<_> = (0..200).map(|_| RandomState::new()).collect();
        let orders: HashSet<_> = seeds.iter().map(one).collect();
        assert_eq!(orders.len(), 6, "{orders:?}");
        assert!(orders.iter().all(|order| order.ends_with(", 20 d.test")));
        for seed in seeds {
            assert_eq!(one(&seed), one(&seed), "one seed, one order");
        }
    }

    #[test]
    fn only_nearer_hosts_are_left() {
        for (name, given, expected) in [
            (
                "we are none",
                "10 a.test., 20 b.test.",
                "10 a.test, 20 b.test",
            ),
            ("we are the best", "10 us.test., 20 b.test.", ""),
            (
                "in the middle",
                "10 a.test., 20 us.test., 30 b.test.",
                "10 a.test",
            ),
            (
                "one of two equals",
                "10 a.test., 20 us.test., 20 b.test.",
                "10 a.test",
            ),
            (
                "twice",
                "5 a.test., 30 us.test., 10 us.test., 20 b.test.",
                "5 a.test",
            ),
            ("alone", "10 us.test.", ""),
        ] {
            let ranked = ranked(hosts(given), &Unseeded::default());
            let nearer = nearer(ranked, |name| name == "us.test");
            assert_eq!(shown(&nearer), expected, "{name}");
        }
    }

    #[test]
    fn groups_are_of_one_preference_and_bounded() {
        let many = |count: u16, each: u16| {
            let hosts = (0..count).map(|n| {
                let name = Name::from_ascii(format!("h{n}.test.")).unwrap();
                (n / each, name)
            });
            ranked(hosts.collect(), &Unseeded::default())
        };
        for (name, count, each, expected) in [
            ("none", 0, 1, vec![]),
            ("one", 1, 1, vec![1]),
            ("pairs", 5, 2, vec![2, 2, 1]),
            ("as many as may be", 20, 10, vec![10, 10]),
            ("one too many", 21, 10, vec![10, 10]),
            ("cut within a group", 64, 64, vec![20]),
        ] {
            let groups = groups(&many(count, each));
            let lengths: Vec<_> = groups.iter().map(Vec::len).collect();
            assert_eq!(lengths, expected, "{name}");
        }
    }

    #[test]
    fn literals() {
        for (text, expected) in [
            ("[192.0.2.1]", Some("192.0.2.1")),
            ("[ipv6:2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]", None),
            ("[ipv6:192.0.2.1]", None),
            ("[192.0.2.1", None),
            ("192.0.2.1", None),
            ("[]", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(literal(text), expected, "{text}");
        }
    }
}
