//! The places that a destination is reached at, in the order to try.

use std::collections::VecDeque;

use super::endpoint::{Endpoint, Place};
use crate::deliver::dns::Exchangers;

/// Gives one place after the other; those of a domain's next hosts are looked up when it comes to them.
pub(super) struct Hosts<'d> {
    pub(super) known: VecDeque<Endpoint>,
    pub(super) exchangers: Option<Exchangers<'d>>,
}

impl Hosts<'_> {
    pub(super) fn none() -> Self {
        Hosts {
            known: VecDeque::new(),
            exchangers: None,
        }
    }

    pub(super) fn of(endpoint: Endpoint) -> Self {
        Hosts {
            known: VecDeque::from([endpoint]),
            exchangers: None,
        }
    }

    /// The next place.
    pub(super) async fn next(&mut self) -> Option<Endpoint> {
        if self.known.is_empty()
            && let Some(exchangers) = &mut self.exchangers
            && let Some(exchanger) = exchangers.next().await
        {
            let endpoint = |address| Endpoint {
                name: exchanger.name.clone(),
                place: Place::Tcp((address, SMTP_PORT).into()),
                implicit_tls: false,
            };
            self.known
                .extend(exchanger.addresses.into_iter().map(endpoint));
        }
        self.known.pop_front()
    }
}

/// RFC 5321 §4.5.4.2: where mail exchangers are reached.
const SMTP_PORT: u16 = 25;
