//! The client's side of TLS: one context a thread, and the tickets that its sessions were given.
//!
//! Invariants:
//! - A TLS 1.3 ticket is offered once (RFC 8446 §C.4), a TLS 1.2 one for as long as no newer one came.
//! - Tickets belong to the thread. There is a lock because OpenSSL's callbacks may be called by any thread, as far
//!   as their type can tell; nobody ever waits for it.
//!
//! Not promised: that a ticket is there for each session that wants to offer one. A server that gives none in a
//! resumed session lets a client resume every second time; the figures tell what happened.

use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslMethod, SslMode, SslRef, SslSession, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use ringpost::tls::offer_ticket;

use crate::plan::TlsPlan;

/// The context of one thread.
pub(crate) struct TlsClient {
    context: SslContext,
    server_name: Option<String>,
    verifies: bool,
    tickets: Tickets,
    tickets_max: usize,
}

type Tickets = Arc<Mutex<Vec<SslSession>>>;

/// A connection that has yet to begin.
pub(crate) struct Beginning {
    /// To be connected.
    pub(crate) ssl: Ssl,
    /// Whether it offers a ticket.
    pub(crate) offers: bool,
}

/// What connections are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Messages: buffers are kept between them, and as many tickets as there are connections.
    Messages {
        /// How many there are.
        connections: usize,
    },
    /// To be left alone, in great numbers: what one keeps is kept small, and no ticket is.
    Rest,
}

impl TlsClient {
    /// A context for this plan.
    pub(crate) fn new(plan: &TlsPlan, purpose: Purpose) -> Result<TlsClient, ErrorStack> {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(plan.version.unwrap_or(SslVersion::TLS1_2)))?;
        builder.set_max_proto_version(plan.version)?;
        if let Some(groups) = &plan.groups {
            builder.set_groups_list(groups)?;
        }
        match &plan.ca {
            Some(path) => {
                builder.set_ca_file(path)?;
                builder.set_verify(SslVerifyMode::PEER);
            }
            None => builder.set_verify(SslVerifyMode::NONE),
        }
        builder.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
        let tickets = Tickets::default();
        let tickets_max = match purpose {
            Purpose::Messages { connections } => {
                let tickets_max = connections.max(1);
                // A record's header and its content come with one read.
                builder.set_read_ahead(true);
                let cache = SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL;
                builder.set_session_cache_mode(cache);
                let keep = Arc::clone(&tickets);
                builder.set_new_session_callback(move |_, session| {
                    keep_ticket(&keep, session, tickets_max);
                });
                tickets_max
            }
            Purpose::Rest => {
                builder.set_mode(SslMode::RELEASE_BUFFERS);
                builder.set_session_cache_mode(SslSessionCacheMode::OFF);
                0
            }
        };
        Ok(TlsClient {
            context: builder.build(),
            server_name: plan.server_name.clone(),
            verifies: plan.ca.is_some(),
            tickets,
            tickets_max,
        })
    }

    /// A connection that has yet to begin, with a ticket if one is wanted and there.
    pub(crate) fn begin(&self, wants_to_resume: bool) -> Result<Beginning, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_connect_state();
        if let Some(name) = &self.server_name {
            ssl.set_hostname(name)?;
            if self.verifies {
                ssl.param_mut().set_host(name)?;
            }
        }
        let ticket = if wants_to_resume {
            locked(&self.tickets).pop()
        } else {
            None
        };
        if let Some(ticket) = &ticket {
            offer_ticket(&mut ssl, ticket)?;
        }
        Ok(Beginning {
            ssl,
            offers: ticket.is_some(),
        })
    }

    /// Hears that a handshake is done; whether the session was resumed.
    pub(crate) fn done(&self, ssl: &SslRef) -> bool {
        let resumed = ssl.session_reused();
        if resumed
            && ssl.version2() != Some(SslVersion::TLS1_3)
            && let Some(session) = ssl.session()
        {
            // Below the newer ones: a renewed ticket came by the callback meanwhile.
            let mut tickets = locked(&self.tickets);
            if tickets.len() < self.tickets_max {
                tickets.insert(0, session.to_owned());
            }
        }
        resumed
    }
}

fn keep_ticket(tickets: &Tickets, session: SslSession, tickets_max: usize) {
    let mut tickets = locked(tickets);
    if tickets.len() >= tickets_max {
        // The oldest is the first to expire.
        tickets.remove(0);
    }
    tickets.push(session);
}

fn locked(tickets: &Tickets) -> std::sync::MutexGuard<'_, Vec<SslSession>> {
    tickets.lock().unwrap_or_else(PoisonError::into_inner)
}
