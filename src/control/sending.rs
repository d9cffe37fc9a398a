//! What all shards share to send mail on: the connections there may be, and what is counted about them.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::metrics::{Kind, Metrics};
use crate::config::Config;
use crate::deliver::dns::Ourselves;
use crate::deliver::slots::Slots;
use crate::deliver::{HopMeters, HopsPlan};
use crate::tls::ClientMaterial;

/// For a server that listens on these addresses.
pub(super) fn plan(
    config: &Config,
    material: ClientMaterial,
    listening: impl Iterator<Item = SocketAddr>,
) -> HopsPlan {
    let sending = &config.sending;
    // By MX mail is sent to port 25 and no other.
    let smtp = listening.filter(|address| address.port() == 25);
    HopsPlan {
        slots: Slots::new(sending.connections_max, sending.connections_per_hop_max),
        meters: Arc::new(HopMeters::default()),
        material: Arc::new(ArcSwap::from_pointee(material)),
        ourselves: Ourselves {
            hostname: config.hostname.clone(),
            addresses: smtp.map(|address| address.ip()).collect(),
        },
    }
}

/// Has `metrics` tell of connections to next hops.
pub(super) fn watch(metrics: &Metrics, hops: &HopsPlan) {
    let slots = |read: fn(&Slots) -> usize| {
        let slots = Arc::clone(&hops.slots);
        move || u64::try_from(read(&slots)).unwrap_or(u64::MAX)
    };
    metrics.watch(
        Kind::Gauge,
        "ringpost_out_connections_open",
        "Connections to next hops now.",
        slots(Slots::out),
    );
    metrics.watch(
        Kind::Gauge,
        "ringpost_out_connections_max",
        "Connections to next hops that there may be.",
        slots(Slots::max),
    );
    for (name, help, read) in [
        (
            "ringpost_out_connections",
            "Connections to next hops that became ready.",
            HopMeters::opened as fn(&HopMeters) -> u64,
        ),
        (
            "ringpost_out_connections_failed",
            "Connections to next hops that did not become ready.",
            HopMeters::failed,
        ),
        (
            "ringpost_out_connections_reused",
            "Times that a connection to a next hop was used again.",
            HopMeters::reused,
        ),
        (
            "ringpost_out_connections_clear",
            "Connections to next hops that stayed in clear.",
            HopMeters::clear,
        ),
        (
            "ringpost_out_tls_resumed",
            "TLS sessions with next hops that were resumed.",
            HopMeters::resumed,
        ),
    ] {
        let meters = Arc::clone(&hops.meters);
        metrics.watch(Kind::Counter, name, help, move || read(&meters));
    }
    let meters = Arc::clone(&hops.meters);
    metrics.watch_rows(
        "ringpost_out_tls_sessions",
        "TLS sessions with next hops, by version and whether the next hop is who it should be.",
        move || {
            let sessions = meters.sessions().map(|(version, verified, count)| {
                (vec![("version", version), ("verified", verified)], count)
            });
            sessions.collect()
        },
    );
    let meters = Arc::clone(&hops.meters);
    metrics.watch_rows(
        "ringpost_out_tls_failures",
        "TLS handshakes with next hops that failed.",
        move || {
            let failures = meters.handshakes_failed();
            failures
                .map(|(reason, count)| (vec![("reason", reason)], count))
                .collect()
        },
    );
}
