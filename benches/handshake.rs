//! What a TLS handshake costs the server: full and resumed, ECDSA and RSA, TLS 1.2 and 1.3, with and
//! without X25519MLKEM768. And what a ticket costs of that.
//!
//! Client and server run in memory, in turns on one thread; only the server's turns are timed. Each
//! handshake's outcome is checked: a resumption that quietly became a full handshake would look like a
//! slow one. `cargo bench --bench handshake`.
//!
//! The ticket is one that OpenSSL made in a handshake. What is in it must be that handshake's session, down to the
//! master secret; it is compared in every round.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run has nothing to report"
)]

use std::fs;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslMethod, SslSession, SslSessionCacheMode, SslStream,
    SslVerifyMode, SslVersion,
};
use ringpost::tls::development::{self, make};
use ringpost::tls::{
    CertifiedKey, Connection, Handshake, Rotation, ServerContexts, TicketKeyRing, TlsSettings,
    offer_ticket,
};

const HYBRID: &str = "X25519MLKEM768";
const CLASSIC: &str = "X25519";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Resumed,
}

fn handshakes(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path(), &development::DEFAULT_NAMES).unwrap();
    let keys = [
        (
            "ecdsa",
            development::SERVER_ECDSA_CERTIFICATE,
            development::SERVER_ECDSA_KEY,
        ),
        (
            "rsa",
            development::SERVER_RSA_CERTIFICATE,
            development::SERVER_RSA_KEY,
        ),
    ];
    let exchanges = [
        ("tls1.3", SslVersion::TLS1_3, CLASSIC),
        ("tls1.3-mlkem", SslVersion::TLS1_3, HYBRID),
        ("tls1.2", SslVersion::TLS1_2, CLASSIC),
    ];
    let mut group = criterion.benchmark_group("handshake");
    for (key_type, certificate, key) in keys {
        let pair = CertifiedKey::load(
            &directory.path().join(certificate),
            &directory.path().join(key),
        )
        .unwrap();
        let server = server(pair, ring());
        for (exchange, version, groups) in exchanges {
            let Some(mut client) = Client::new(directory.path(), version, groups) else {
                eprintln!("handshake/{key_type}/{exchange}: the linked OpenSSL has no {groups}");
                continue;
            };
            for (name, kind) in [("full", Kind::Full), ("resumed", Kind::Resumed)] {
                group.bench_function(format!("{key_type}/{exchange}/{name}"), |bencher| {
                    // The ticket of the first resumption.
                    client.handshake(&server, Kind::Full);
                    bencher.iter_custom(|iterations| {
                        (0..iterations)
                            .map(|_| client.handshake(&server, kind))
                            .sum()
                    });
                });
            }
        }
    }
    group.finish();
}

fn tickets(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path(), &development::DEFAULT_NAMES).unwrap();
    let pair = CertifiedKey::load(
        &directory.path().join(development::SERVER_ECDSA_CERTIFICATE),
        &directory.path().join(development::SERVER_ECDSA_KEY),
    )
    .unwrap();
    let ring = ring();
    let server = server(pair, Arc::clone(&ring));
    let mut client = Client::new(directory.path(), SslVersion::TLS1_2, CLASSIC).unwrap();
    client.handshake(&server, Kind::Full);
    let ticket = client.ticket_in_clear.take().unwrap();
    let session = ring.open(&ticket).unwrap().unwrap();
    let secrets = [
        SslSession::from_der(&session).unwrap(),
        client.ticket.take().unwrap(),
    ]
    .map(|session| {
        let mut secret = [0; 48];
        assert_eq!(session.master_key(&mut secret), secret.len());
        secret
    });
    assert!(secrets[0] == secrets[1], "another session is in it");
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert!(ring.open(&changed).unwrap().is_none(), "octet {at}");
    }

    let mut group = criterion.benchmark_group("ticket");
    group.throughput(Throughput::Elements(1));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            let made = ring.seal(black_box(&session)).unwrap();
            assert_eq!(made.len(), ticket.len());
            made
        });
    });
    let made = ring.seal(&session).unwrap();
    assert!(made != ticket, "the IV is another");
    assert!(ring.open(&made).unwrap().as_ref() == Some(&session));
    let open = |ring: &TicketKeyRing| ring.open(black_box(&ticket)).unwrap();
    group.bench_function("open", |bencher| {
        bencher.iter(|| assert!(open(&ring).as_ref() == Some(&session)));
    });
    let later = SystemTime::now() + TlsSettings::default().ticket_lifetime;
    assert_eq!(ring.rotate_if_due(later).unwrap(), Rotation::Rotated);
    group.bench_function("open by the key before", |bencher| {
        bencher.iter(|| assert!(open(&ring).as_ref() == Some(&session)));
    });
    let another = self::ring();
    group.bench_function("without its key", |bencher| {
        bencher.iter(|| assert!(open(&another).is_none()));
    });
    group.finish();
}

fn ring() -> Arc<TicketKeyRing> {
    Arc::new(TicketKeyRing::ephemeral(TlsSettings::default().ticket_lifetime).unwrap())
}

fn server(pair: CertifiedKey, ring: Arc<TicketKeyRing>) -> ServerContexts {
    ServerContexts::build(&[pair], &TlsSettings::default(), ring).unwrap()
}

struct Client {
    context: SslContext,
    version: SslVersion,
    group: &'static str,
    given: Arc<Mutex<Vec<SslSession>>>,
    ticket: Option<SslSession>,
    /// The server's last ticket as it went over the wire, where that is in clear.
    ticket_in_clear: Option<Vec<u8>>,
}

impl Client {
    /// None if the linked OpenSSL does not have the group.
    fn new(directory: &Path, version: SslVersion, group: &'static str) -> Option<Client> {
        let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
        // P-256 is the curve of the ECDSA key: in TLS 1.2 the client must know that too.
        builder.set_groups_list(&format!("{group}:P-256")).ok()?;
        builder.set_verify(SslVerifyMode::PEER);
        let ca = directory.join(development::CA_CERTIFICATE);
        assert!(fs::exists(&ca).unwrap());
        builder.set_ca_file(ca).unwrap();
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let given: Arc<Mutex<Vec<SslSession>>> = Arc::default();
        let into = Arc::clone(&given);
        builder.set_new_session_callback(move |_, session| into.lock().unwrap().push(session));
        Some(Client {
            context: builder.build(),
            version,
            group,
            given,
            ticket: None,
            ticket_in_clear: None,
        })
    }

    /// One handshake, and what it cost the server.
    fn handshake(&mut self, contexts: &ServerContexts, kind: Kind) -> Duration {
        let mut ssl = Ssl::new(&self.context).unwrap();
        ssl.set_connect_state();
        ssl.set_hostname("mx.test").unwrap();
        if kind == Kind::Resumed {
            offer_ticket(&mut ssl, &self.ticket.take().unwrap()).unwrap();
        }
        let mut client = SslStream::new(ssl, Memory::default()).unwrap();

        let mut cost = Duration::ZERO;
        let begun = Instant::now();
        let mut server = Connection::accept(contexts, None).unwrap();
        cost += begun.elapsed();
        let mut ended = Handshake::WantsInput;
        for _ in 0..ROUNDS_MAX {
            if let Err(error) = client.do_handshake() {
                assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}");
            }
            let flight = std::mem::take(&mut client.get_mut().outbound);
            if flight.is_empty() {
                break;
            }
            let begun = Instant::now();
            server.receive(&flight);
            ended = server.handshake();
            let answer = server.outbound();
            cost += begun.elapsed();
            if let Some(ticket) = ticket_in(&answer) {
                self.ticket_in_clear = Some(ticket.to_vec());
            }
            client.get_mut().inbound.extend(answer);
        }

        assert!(matches!(ended, Handshake::Done(_)), "{ended:?}");
        // Tickets come behind the handshake in TLS 1.3.
        let read = client.ssl_read(&mut [0]);
        assert_eq!(read.unwrap_err().code(), ErrorCode::WANT_READ);
        let facts = server.facts();
        assert_eq!(facts.resumed, kind == Kind::Resumed);
        assert_eq!(
            facts.version == "TLSv1.3",
            self.version == SslVersion::TLS1_3
        );
        if let Some(group) = facts.group {
            assert!(group.eq_ignore_ascii_case(self.group), "{group}");
        }
        self.ticket = self.given.lock().unwrap().drain(..).next_back();
        if self.ticket.is_none() {
            // A resumed TLS 1.2 session has its new ticket in itself.
            self.ticket = client.ssl().session().map(ToOwned::to_owned);
        }
        // A session without close_notify is not good any more.
        let _ = client.shutdown();
        cost
    }
}

/// The ticket that a flight begins with: TLS 1.2 sends it in clear, in a record of its own.
///
/// ```text
/// record:  22  3 3  length(2)   NewSessionTicket:  4  length(3)  lifetime(4)  length(2)  ticket     RFC 5077 §3.3
/// ```
fn ticket_in(flight: &[u8]) -> Option<&[u8]> {
    let (head, rest) = flight.split_first_chunk()?;
    let &[22, 3, 3, _, _, 4, _, _, _, _, _, _, _, high, low] = head else {
        return None;
    };
    rest.get(..usize::from(u16::from_be_bytes([high, low])))
}

/// The client's two buffers.
#[derive(Default)]
struct Memory {
    inbound: std::collections::VecDeque<u8>,
    outbound: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.inbound.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inbound.read(into)
    }
}

impl Write for Memory {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.outbound.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handshake has two or three.
const ROUNDS_MAX: usize = 6;

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = handshakes, tickets
}
criterion_main!(benches);
