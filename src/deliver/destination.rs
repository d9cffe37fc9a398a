//! Where a recipient's mail goes next: what takes turns, what is limited, and what a back-off is for.
//!
//! Apart from the target because one target may be many destinations: under `mx` each domain has hosts of its own.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::settings::DeliverySettings;
use super::target::Target;
use crate::smtp::envelope::Recipient;
use crate::spool::{Accepted, Progress};

/// Where a recipient's mail goes next. Recipients of one destination share a connection.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// Its name: equal for recipients that can share a connection, and for no others.
    pub(super) key: Rc<str>,
    /// By which means.
    pub(super) way: Way,
}

/// How mail gets to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By files here, or not at all.
    Local,
    /// Over a connection.
    Hop,
}

/// The part of a message's way that is one destination's: it is tried, limited and judged by itself.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) destination: Destination,
    pub(super) recipients: Recipients,
}

/// Which recipients of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipients {
    /// Whoever is to be delivered to still: there is no other leg.
    All,
    /// Those at these places in the envelope.
    At(Box<[usize]>),
}

/// Names the destinations of recipients.
pub(super) struct Destinations {
    settings: Arc<DeliverySettings>,
    /// By the place of their target among all; none for `mx`, which is many.
    fixed: Vec<Option<Destination>>,
}

impl Destinations {
    pub(super) fn new(settings: Arc<DeliverySettings>) -> Destinations {
        let fixed = settings.routes.targets().map(|target| {
            let way = match target {
                Target::Mx => return None,
                Target::Maildir(_) | Target::Discard => Way::Local,
                Target::Smtp(_) | Target::Smtps(_) | Target::Lmtp(_) | Target::LmtpUnix(_) => {
                    Way::Hop
                }
            };
            let key = target.to_string().into();
            Some(Destination { key, way })
        });
        Destinations {
            fixed: fixed.collect(),
            settings,
        }
    }

    /// Where nothing goes.
    pub(super) fn nowhere(&self) -> Destination {
        Destination {
            key: Rc::from(""),
            way: Way::Local,
        }
    }

    /// Where the mail of a recipient goes.
    pub(super) fn of(&self, recipient: &Recipient) -> Destination {
        let domain = &*recipient.domain;
        let index = self.settings.routes.index(domain);
        let login = self.settings.sending.login_of_domain(domain);
        match (self.fixed.get(index), login) {
            (Some(Some(fixed)), Some(_)) if fixed.way == Way::Hop => Destination {
                // Who logs in for a domain does not share a connection with who does not.
                key: format!("{} for {domain}", fixed.key).into(),
                way: Way::Hop,
            },
            (Some(Some(fixed)), _) => fixed.clone(),
            (Some(None) | None, _) => Destination {
                key: format!("mx {domain}").into(),
                way: Way::Hop,
            },
        }
    }

    /// What is to be done for those recipients of a message that it has not reached.
    pub(super) fn legs(&self, accepted: &Accepted, progress: &Progress) -> Vec<Leg> {
        let mut legs = Vec::<(Destination, Vec<usize>)>::new();
        // A thousand recipients, each compared with all before it, would keep the shard for milliseconds.
        let mut by_key = HashMap::<Rc<str>, usize>::new();
        let recipients = accepted
            .envelope
            .recipients
            .iter()
            .zip(&progress.recipients);
        for (place, (recipient, fate)) in recipients.enumerate() {
            if fate.is_final() {
                continue;
            }
            let destination = self.of(recipient);
            if let [(only, places)] = &mut legs[..]
                && only.key == destination.key
            {
                places.push(place);
                continue;
            }
            if let [(only, _)] = &legs[..] {
                by_key.insert(Rc::clone(&only.key), 0);
            }
            let next = legs.len();
            let at = *by_key.entry(Rc::clone(&destination.key)).or_insert(next);
            match legs.get_mut(at) {
                Some((_, places)) => places.push(place),
                None => legs.push((destination, vec![place])),
            }
        }
        let is_only = legs.len() == 1;
        let legs = legs.into_iter().map(|(destination, places)| Leg {
            destination,
            recipients: match is_only {
                true => Recipients::All,
                false => Recipients::At(places.into()),
            },
        });
        legs.collect()
    }
}

impl Recipients {
    /// Their places in the envelope.
    pub(super) fn places(&self, progress: &Progress) -> Vec<usize> {
        let is_open = |place: &usize| {
            let fate = progress.recipients.get(*place);
            fate.is_some_and(|fate| !fate.is_final())
        };
        match self {
            Recipients::All => (0..progress.recipients.len()).filter(is_open).collect(),
            Recipients::At(places) => places.iter().copied().filter(is_open).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Durability, Login, Routes, Sending};
    use super::super::target::Host;
    use super::super::{DeliverySettings, RetrySchedule};
    use super::*;
    use crate::smtp::dsn::{MailDsn, RcptDsn};
    use crate::smtp::envelope::{Body, Envelope};
    use crate::spool::{Fate, QueueIds};

    fn destinations() -> Destinations {
        let host = |name: &str| Host {
            name: name.to_owned(),
            port: 25,
        };
        let routes = [
            ("here.test", Target::Maildir("/mail".into())),
            ("nowhere.test", Target::Discard),
            ("inner.test", Target::Smtp(host("mx.inner.test"))),
            ("known.test", Target::Smtp(host("mx.inner.test"))),
        ];
        let routes = routes.map(|(domain, target)| (domain.to_owned(), target));
        let login = Login {
            name: "ann".to_owned(),
            password: "secret".to_owned(),
        };
        Destinations::new(Arc::new(DeliverySettings {
            hostname: "mx.test".to_owned(),
            routes: Routes::new(Target::Mx, routes),
            durability: Durability::Disk,
            schedule: RetrySchedule::new(vec![std::time::Duration::from_secs(1)]).unwrap(),
            sending: Sending {
                logins: HashMap::from([("known.test".to_owned(), login)]),
                ..Sending::default()
            },
        }))
    }

    fn accepted(domains: &[&str]) -> Accepted {
        let recipients = domains.iter().map(|domain| Recipient {
            as_given: format!("a@{domain}").into(),
            local_part: "a".into(),
            domain: (*domain).into(),
            dsn: RcptDsn::default(),
        });
        Accepted {
            id: QueueIds::new(0).next(std::time::SystemTime::now()),
            arrived_unix_ms: 0,
            envelope: Arc::new(Envelope {
                reverse_path: None,
                recipients: recipients.collect(),
                body: Body::SevenBit,
                smtputf8: false,
                declared_octets: None,
                dsn: MailDsn::default(),
            }),
            received: [].into(),
            data_octets: 0,
            data_crc: 0,
        }
    }

    #[test]
    fn recipients_share_a_leg_by_where_their_mail_goes() {
        let destinations = destinations();
        type Row<'r> = (&'r str, &'r [&'r str], &'r [(&'r str, &'r [usize])]);
        let rows: &[Row<'_>] = &[
            ("nobody", &[], &[]),
            ("one", &["here.test"], &[("maildir:/mail", &[0])]),
            (
                "all the same",
                &["inner.test", "inner.test"],
                &[("smtp:mx.inner.test:25", &[0, 1])],
            ),
            (
                "each domain of mx is one",
                &["a.test", "b.test", "a.test", "b.test"],
                &[("mx a.test", &[0, 2]), ("mx b.test", &[1, 3])],
            ),
            (
                "a login has connections of its own",
                &["inner.test", "known.test", "nowhere.test", "inner.test"],
                &[
                    ("smtp:mx.inner.test:25", &[0, 3]),
                    ("smtp:mx.inner.test:25 for known.test", &[1]),
                    ("discard", &[2]),
                ],
            ),
        ];
        for (name, domains, expected) in rows {
            let accepted = accepted(domains);
            let mut progress = Progress::begin(domains.len());
            let legs = destinations.legs(&accepted, &progress);
            assert_eq!(legs.len(), expected.len(), "{name}");
            for (leg, (key, places)) in legs.iter().zip(*expected) {
                assert_eq!(&*leg.destination.key, *key, "{name}");
                assert_eq!(leg.recipients.places(&progress), *places, "{name}");
            }
            // Who has it is in no leg.
            progress.recipients.fill(Fate::Delivered);
            assert!(destinations.legs(&accepted, &progress).is_empty(), "{name}");
            assert!(
                legs.iter()
                    .all(|leg| leg.recipients.places(&progress).is_empty())
            );
        }
    }
}
