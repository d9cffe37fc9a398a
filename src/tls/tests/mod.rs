//! Whole handshakes in memory, against OpenSSL's client side.
//!
//! Here is the client; the files beside are sorted by what they pin.

mod clients;
mod faults;
mod greeting;
mod hops;
mod names;
mod negotiation;
mod resumption;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslSession,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use tempfile::TempDir;

use super::wire::Wire;
use super::{
    CertifiedKey, Connection, Facts, GreetingSent, Handshake, HandshakeError, ServerContexts,
    TicketKeyRing, TlsSettings, development,
};

/// The development certificates, made once.
static CERTIFICATES: LazyLock<TempDir> =
    LazyLock::new(|| certificates(&development::DEFAULT_NAMES));

fn certificates(names: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    development::make(directory.path(), names).unwrap();
    directory
}

fn path(name: &str) -> PathBuf {
    CERTIFICATES.path().join(name)
}

fn ecdsa(directory: &Path) -> CertifiedKey {
    CertifiedKey::load(
        &directory.join(development::SERVER_ECDSA_CERTIFICATE),
        &directory.join(development::SERVER_ECDSA_KEY),
    )
    .unwrap()
}

fn rsa(directory: &Path) -> CertifiedKey {
    CertifiedKey::load(
        &directory.join(development::SERVER_RSA_CERTIFICATE),
        &directory.join(development::SERVER_RSA_KEY),
    )
    .unwrap()
}

/// Both development certificates.
fn pairs() -> Vec<CertifiedKey> {
    vec![ecdsa(CERTIFICATES.path()), rsa(CERTIFICATES.path())]
}

fn ring() -> Arc<TicketKeyRing> {
    Arc::new(TicketKeyRing::ephemeral(LIFETIME).unwrap())
}

fn server(settings: &TlsSettings) -> ServerContexts {
    ServerContexts::build(&pairs(), settings, ring()).unwrap()
}

/// A client's program: its settings, and the tickets it was given.
struct Client {
    context: SslContext,
    tickets: Arc<Mutex<Vec<SslSession>>>,
    server_name: Option<&'static str>,
}

impl Client {
    fn new() -> Client {
        Client::with(|_| {})
    }

    fn version(version: SslVersion) -> Client {
        Client::with(|builder| {
            builder.set_min_proto_version(Some(version)).unwrap();
            builder.set_max_proto_version(Some(version)).unwrap();
        })
    }

    fn with(configure: impl FnOnce(&mut SslContextBuilder)) -> Client {
        let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::PEER);
        builder
            .set_ca_file(path(development::CA_CERTIFICATE))
            .unwrap();
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let tickets: Arc<Mutex<Vec<SslSession>>> = Arc::default();
        let into = Arc::clone(&tickets);
        builder.set_new_session_callback(move |_, session| into.lock().unwrap().push(session));
        configure(&mut builder);
        Client {
            context: builder.build(),
            tickets,
            server_name: Some("mx.test"),
        }
    }

    /// A client that presents a certificate.
    fn presenting(certificate: &Path, key: &Path) -> Client {
        Client::with(|builder| {
            builder.set_certificate_chain_file(certificate).unwrap();
            builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
        })
    }

    /// A client that presents the development certificate for clients.
    fn known() -> Client {
        Client::presenting(
            &path(development::CLIENT_CERTIFICATE),
            &path(development::CLIENT_KEY),
        )
    }

    /// Connects and reads until nothing comes any more, with the ticket if there is one.
    fn connect(&self, server: &ServerContexts, ticket: Option<SslSession>) -> Dialogue {
        self.connect_greeted(server, ticket, None)
    }

    fn connect_greeted(
        &self,
        server: &ServerContexts,
        ticket: Option<SslSession>,
        greeting: Option<&[u8]>,
    ) -> Dialogue {
        self.tickets.lock().unwrap().clear();
        let mut dialogue = Dialogue::new(self, server, ticket, greeting);
        while dialogue.round() {}
        dialogue
    }

    /// Whether the ticket is taken, and the tickets that come with that.
    fn resume(&self, server: &ServerContexts, ticket: SslSession) -> (bool, Vec<SslSession>) {
        let used = ticket.to_der().unwrap();
        let mut dialogue = self.connect(server, Some(ticket));
        let facts = dialogue.facts();
        assert_eq!(facts.resumed, dialogue.client.ssl().session_reused());
        let mut fresh = self.take_tickets();
        if facts.resumed && facts.version == "TLSv1.2" {
            // OpenSSL does not call back: the session itself has got the new ticket.
            assert!(fresh.is_empty());
            let session = dialogue.client.ssl().session().unwrap().to_owned();
            if session.to_der().unwrap() != used {
                fresh.push(session);
            }
        }
        dialogue.close();
        (facts.resumed, fresh)
    }

    /// The tickets of a full handshake.
    fn full(&self, server: &ServerContexts) -> Vec<SslSession> {
        let mut dialogue = self.connect(server, None);
        assert!(!dialogue.facts().resumed);
        dialogue.close();
        self.take_tickets()
    }

    fn take_tickets(&self) -> Vec<SslSession> {
        std::mem::take(&mut *self.tickets.lock().unwrap())
    }
}

/// One connection and both of its ends.
struct Dialogue {
    client: SslStream<Wire>,
    server: Connection,
    /// How the client's handshake ended.
    client_done: Option<Result<(), String>>,
    server_handshake: Handshake,
    /// Plaintext that came to the client, and whether its own Finished had left before the first of it.
    received: Vec<u8>,
    received_before_finished: bool,
    /// Octets that the server sent.
    server_octets: usize,
    /// Flights that the client sent.
    client_flights: usize,
}

impl Dialogue {
    fn new(
        program: &Client,
        server: &ServerContexts,
        ticket: Option<SslSession>,
        greeting: Option<&[u8]>,
    ) -> Dialogue {
        let mut ssl = Ssl::new(&program.context).unwrap();
        ssl.set_connect_state();
        if let Some(name) = program.server_name {
            ssl.set_hostname(name).unwrap();
        }
        if let Some(ticket) = ticket {
            super::offer_ticket(&mut ssl, &ticket).unwrap();
        }
        Dialogue {
            client: SslStream::new(ssl, Wire::default()).unwrap(),
            server: Connection::accept(server, greeting.map(Into::into)).unwrap(),
            client_done: None,
            server_handshake: Handshake::WantsInput,
            received: Vec::new(),
            received_before_finished: false,
            server_octets: 0,
            client_flights: 0,
        }
    }

    /// The client does what it can, then the server. False when nothing moved.
    fn round(&mut self) -> bool {
        self.client_step();
        let flight = self.client.get_mut().outbound();
        self.server.receive(&flight);
        self.client_flights += usize::from(!flight.is_empty());
        self.server_handshake = self.server.handshake();
        let answer = self.server.outbound();
        self.server_octets += answer.len();
        self.client.get_mut().receive(&answer);
        !flight.is_empty() || !answer.is_empty()
    }

    fn client_step(&mut self) {
        if self.client_done.is_none() {
            match self.client.do_handshake() {
                Ok(()) => self.client_done = Some(Ok(())),
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => self.client_done = Some(Err(error.to_string())),
            }
        }
        if self.client_done == Some(Ok(())) {
            let mut plaintext = [0; 4096];
            while let Ok(octets @ 1..) = self.client.ssl_read(&mut plaintext) {
                // Its Finished is still among what it has to send, or even later.
                self.received_before_finished |=
                    self.received.is_empty() && self.client.get_ref().has_outbound();
                self.received.extend_from_slice(&plaintext[..octets]);
            }
        }
    }

    #[track_caller]
    fn facts(&self) -> Facts {
        assert!(
            matches!(self.server_handshake, Handshake::Done(_)),
            "{:?}, client {:?}",
            self.server_handshake,
            self.client_done
        );
        assert_eq!(self.client_done, Some(Ok(())));
        self.server.facts()
    }

    #[track_caller]
    fn greeting_sent(&self) -> GreetingSent {
        let Handshake::Done(sent) = &self.server_handshake else {
            panic!("{:?}, client {:?}", self.server_handshake, self.client_done)
        };
        *sent
    }

    #[track_caller]
    fn failure(&self) -> HandshakeError {
        let Handshake::Failed(error) = &self.server_handshake else {
            panic!("{:?}, client {:?}", self.server_handshake, self.client_done)
        };
        error.clone()
    }

    /// Both say close_notify, so that the client's session stays good.
    fn close(&mut self) {
        let _ = self.client.shutdown();
        self.server.close();
        while self.round() {}
    }
}

const LIFETIME: Duration = Duration::from_secs(3600);
