//! One TLS connection, of either side, over memory: the caller moves the octets.
//!
//! ```text
//!   ring ── receive(ciphertext) ──▶ ┌───────────┐ ── read() ──▶ session
//!                                   │ OpenSSL   │
//!   ring ◀── outbound() ─────────── └───────────┘ ◀── write() ── session
//! ```
//! Invariants:
//! - Nothing here waits. What cannot go on says `WantsInput`, and goes on after the next `receive`.
//! - After any call there may be octets to send, after a failure too: the alert that tells the peer why.
//! - A client that speaks plaintext gets no octet back, a server that does none behind our ClientHello.
//! - How a connection to a next hop ends, by us or by the network, does not spoil the sessions it brought.
//! - An idle connection holds no buffer of ours and no record buffer of OpenSSL's.
//!
//! It does not know time: a handshake's deadline is the caller's.

use openssl::error::ErrorStack;
use openssl::ssl::{Error, ErrorCode, ShutdownState, SslRef, SslStream, SslVersion};
use openssl::x509::X509VerifyResult;

use super::client::{self, ClientContext, PeerName};
use super::context::{ClientCert, ServerContexts, TlsError};
use super::facts::Facts;
use super::failure::{HandshakeError, Side, one_line};
use super::ffi;
use super::wire::Wire;

/// One TLS connection.
pub struct Connection {
    stream: SslStream<Wire>,
    stage: Stage,
}

/// Where the connection stands.
enum Stage {
    /// To a next hop: not an octet has come.
    Calling,
    /// From a client: not an octet has come.
    Silent { early_greeting: Option<Vec<u8>> },
    /// The handshake runs up to our Finished, behind which the greeting goes. `retried`: our first flight
    /// was a HelloRetryRequest.
    Greeting { greeting: Vec<u8>, retried: bool },
    /// The handshake runs.
    Handshaking(GreetingSent),
    /// Plaintext flows.
    Open(GreetingSent),
    /// The handshake failed.
    Failed(HandshakeError),
    /// Our close_notify is sent, or cannot be.
    Closed,
}

/// How far a handshake got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// It goes on when more octets come.
    WantsInput,
    /// It is finished.
    Done(GreetingSent),
    /// It failed. There may be an alert in `outbound`.
    Failed(HandshakeError),
}

/// Whether the early greeting has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GreetingSent {
    /// It left with our Finished.
    Yes,
    /// It is still the caller's to send.
    No,
}

/// What a read gave.
#[derive(Debug)]
pub enum Read {
    /// So many octets of plaintext.
    Octets(usize),
    /// There is none before more ciphertext comes.
    WantsInput,
    /// The peer has sent its close_notify: no more will come.
    Closed,
    /// The connection is broken.
    Failed(TlsError),
}

impl Connection {
    /// A connection whose client has yet to speak. With an `early_greeting`, and a client of TLS 1.3, these
    /// octets leave right behind our Finished, a round trip before the client's (RFC 8446 §4.4.4).
    ///
    /// At that moment nobody knows who the client is, or if it is there at all. A greeting tells it nothing
    /// that is not public, so that is no harm, unless a certificate is required: then nothing is said
    /// before it is there, and the greeting is left to the caller.
    pub fn accept(
        contexts: &ServerContexts,
        early_greeting: Option<Vec<u8>>,
    ) -> Result<Connection, TlsError> {
        let stream = contexts
            .new_ssl()
            .and_then(|ssl| SslStream::new(ssl, Wire::default()))
            .map_err(TlsError::openssl("start a TLS connection"))?;
        let early_greeting = early_greeting
            .filter(|greeting| !greeting.is_empty())
            .filter(|_| contexts.client_cert() != ClientCert::Require);
        Ok(Connection {
            stream,
            stage: Stage::Silent { early_greeting },
        })
    }

    /// A connection to a next hop. The first [`Connection::handshake`] puts the ClientHello into `outbound`.
    ///
    /// In TLS 1.3 a server says behind the handshake that it does not like our certificate: then
    /// [`Connection::read`] fails. Its tickets come there as well, so that who reads nothing resumes nothing.
    pub fn connect(context: &ClientContext, peer: &PeerName) -> Result<Connection, TlsError> {
        let stream = context.new_ssl(peer).and_then(|ssl| {
            SslStream::new(ssl, Wire::default())
                .map_err(TlsError::openssl("start a TLS connection"))
        })?;
        Ok(Connection {
            stream,
            stage: Stage::Calling,
        })
    }

    /// Takes octets that came from the peer.
    pub fn receive(&mut self, ciphertext: &[u8]) {
        self.stream.get_mut().receive(ciphertext);
    }

    /// Goes on with the handshake as far as the octets at hand allow.
    pub fn handshake(&mut self) -> Handshake {
        loop {
            match self.step() {
                Ok(()) => {}
                Err(handshake) => return handshake,
            }
        }
    }

    /// One stage on, or the answer to the caller.
    fn step(&mut self) -> Result<(), Handshake> {
        match &mut self.stage {
            Stage::Calling => {
                if let Some(first) = self.stream.get_ref().waiting().first() {
                    if !may_answer_in_tls(*first) {
                        return Err(self.failed(HandshakeError::not_tls()));
                    }
                    self.stage = Stage::Handshaking(GreetingSent::No);
                    return Ok(());
                }
                match self.stream.do_handshake() {
                    // Not without an answer, but if it were it would be right.
                    Ok(()) => {
                        self.stage = Stage::Handshaking(GreetingSent::No);
                        Ok(())
                    }
                    Err(error) => Err(self.stopped(&error)),
                }
            }
            Stage::Silent { early_greeting } => {
                let Some(first) = self.stream.get_ref().waiting().first() else {
                    return Err(Handshake::WantsInput);
                };
                if !may_begin_tls(*first) {
                    return Err(self.failed(HandshakeError::not_tls()));
                }
                self.stage = match early_greeting.take() {
                    Some(greeting) => Stage::Greeting {
                        greeting,
                        retried: false,
                    },
                    None => Stage::Handshaking(GreetingSent::No),
                };
                Ok(())
            }
            Stage::Greeting { greeting, retried } => {
                let stopped = if *retried {
                    self.stream.do_handshake()
                } else {
                    // This is how OpenSSL lets a server write before the client's Finished. No early data
                    // is allowed, so there is none to read, and it comes back when our flight is written.
                    self.stream.read_early_data(&mut [0]).map(|_octets| ())
                };
                let ssl = self.stream.ssl();
                if ssl.is_init_finished() {
                    // TLS 1.2: the whole handshake is over, and there was no such moment in it.
                    self.stage = Stage::Handshaking(GreetingSent::No);
                    return Ok(());
                }
                // In a resumption TLS 1.2 has our Finished first as well, but takes no plaintext there; it
                // has to end by this same call, or OpenSSL refuses to read.
                let may_greet =
                    has_sent_finished(ssl) && ssl.version2() == Some(SslVersion::TLS1_3);
                if !may_greet {
                    // Either the client's flight is not complete, or ours was a HelloRetryRequest: then
                    // no key is agreed yet, and what is written now would leave in clear.
                    *retried |= stopped.is_ok();
                    return match stopped {
                        Ok(()) => Ok(()),
                        Err(error) => Err(self.stopped(&error)),
                    };
                }
                match stopped {
                    Err(error) if error.code() != ErrorCode::WANT_READ => {
                        return Err(self.stopped(&error));
                    }
                    Ok(()) | Err(_) => {}
                }
                if let Err(error) = self.stream.write_early_data(greeting) {
                    return Err(self.stopped(&error));
                }
                self.stage = Stage::Handshaking(GreetingSent::Yes);
                Ok(())
            }
            Stage::Handshaking(sent) => {
                let sent = *sent;
                if let Err(error) = self.stream.do_handshake() {
                    return Err(self.stopped(&error));
                }
                let ssl = self.stream.ssl();
                ffi::release_key_share(ssl);
                client::resumed(ssl);
                self.stage = Stage::Open(sent);
                Ok(())
            }
            Stage::Open(sent) => Err(Handshake::Done(*sent)),
            Stage::Failed(error) => Err(Handshake::Failed(error.clone())),
            Stage::Closed => Err(Handshake::Failed(HandshakeError::internal("closed by us"))),
        }
    }

    fn stopped(&mut self, error: &Error) -> Handshake {
        if error.code() == ErrorCode::WANT_READ {
            return Handshake::WantsInput;
        }
        let ssl = self.stream.ssl();
        let side = if ssl.is_server() {
            Side::Server
        } else {
            Side::Client
        };
        let verification = match ssl.verify_result() {
            X509VerifyResult::OK => None,
            result => Some(result.error_string()),
        };
        let failure = match error.ssl_error() {
            Some(stack) => HandshakeError::from_stack(side, stack, verification),
            None => HandshakeError::internal(&error.to_string()),
        };
        self.failed(failure)
    }

    fn failed(&mut self, error: HandshakeError) -> Handshake {
        self.stream.get_mut().discard_inbound();
        client::failed(self.stream.ssl());
        self.stage = Stage::Failed(error.clone());
        Handshake::Failed(error)
    }

    /// Gives plaintext, as much as there is room for. Call it until it wants input: octets that it has not
    /// given yet are not announced again.
    pub fn read(&mut self, plaintext: &mut [u8]) -> Read {
        if plaintext.is_empty() {
            return Read::Octets(0);
        }
        match self.stream.ssl_read(plaintext) {
            Ok(octets) => Read::Octets(octets),
            Err(error) if error.code() == ErrorCode::WANT_READ => Read::WantsInput,
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => Read::Closed,
            Err(error) => Read::Failed(broken("read from the TLS connection", &error)),
        }
    }

    /// Takes all of the plaintext, to be sent as ciphertext.
    pub fn write(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        const DOING: &str = "write to the TLS connection";
        let mut rest = plaintext;
        while !rest.is_empty() {
            let written = self
                .stream
                .ssl_write(rest)
                .map_err(|error| broken(DOING, &error))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Queues our close_notify (RFC 8446 §6.1), once. It does not wait for the peer's: `read` may go on until
    /// that comes. During a handshake there is nothing to queue.
    pub fn close(&mut self) {
        if matches!(self.stage, Stage::Open(_)) {
            // A connection that is broken already has sent its alert.
            let _ = self.stream.shutdown();
            self.stage = Stage::Closed;
        }
    }

    /// The peer has sent its close_notify.
    pub fn peer_closed(&mut self) -> bool {
        self.stream.get_shutdown().contains(ShutdownState::RECEIVED)
    }

    /// Takes the ciphertext that is to be sent.
    pub fn outbound(&mut self) -> Vec<u8> {
        self.stream.get_mut().outbound()
    }

    /// There is ciphertext to be sent.
    pub fn has_outbound(&self) -> bool {
        self.stream.get_ref().has_outbound()
    }

    /// Octets of memory that our buffers hold.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.stream.get_ref().capacity()
    }

    /// OpenSSL still keeps the client's key share.
    #[cfg(test)]
    pub(super) fn keeps_key_share(&self) -> bool {
        let of_no_type = openssl::pkey::Id::from_raw(0);
        self.stream
            .ssl()
            .peer_tmp_key()
            .is_ok_and(|share| share.id() != of_no_type)
    }

    /// What the handshake made known. Before its end most of it is empty.
    pub fn facts(&self) -> Facts {
        Facts::of(self.stream.ssl())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // OpenSSL takes a session for spoilt, the one we keep as well, whose connection goes without a close_notify
        // of ours. TLS 1.0 asked for that; since TLS 1.1 (RFC 4346 §7.2.1) an unclean end is no reason. One
        // that ended in a fatal alert is marked already, and stays so (RFC 5246 §7.2.2).
        if !self.stream.ssl().is_server() {
            self.stream.set_shutdown(ShutdownState::SENT);
        }
    }
}

/// What a server answers a ClientHello with: a handshake record (22), or an alert (21). OpenSSL would call
/// plaintext there a wrong version, and send an alert.
fn may_answer_in_tls(first: u8) -> bool {
    first == 22 || first == 21
}

/// A TLS connection begins with a handshake record (22); OpenSSL also reads a ClientHello in the form of
/// SSL 2, whose first octet has its top bit set, and an alert (21). Everything else is looked at no further:
/// OpenSSL would wait for five octets, and then might answer.
fn may_begin_tls(first: u8) -> bool {
    first == 22 || first == 21 || first >= 0x80
}

/// Our Finished has left, so that what is written now is encrypted for the client alone.
fn has_sent_finished(ssl: &SslRef) -> bool {
    ssl.finished(&mut []) > 0
}

fn broken(doing: &'static str, error: &Error) -> TlsError {
    let reason = match error.ssl_error() {
        Some(stack) => one_line(stack),
        None => one_line(&ErrorStack::get()),
    };
    TlsError::OpenSsl { doing, reason }
}
