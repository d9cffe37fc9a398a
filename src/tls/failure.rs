//! Why a handshake failed, sorted by what an operator would do about it.
//!
//! OpenSSL leaves a stack of errors; the first of them that has a meaning here decides.
//! Invariant: a text is one line without control characters, as it goes into a log.

use std::borrow::Cow;
use std::fmt;

use openssl::error::{Error, ErrorStack};

/// A handshake that failed. Its text is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeError {
    /// What kind of failure it was.
    pub fault: Fault,
    text: String,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer does not speak TLS: plaintext came.
    NotTls,
    /// The peer has no version that we take.
    Version,
    /// No cipher suite, or no signature algorithm for our keys, in common.
    NoSharedCipher,
    /// No group for the key exchange in common.
    NoSharedGroup,
    /// The client's certificate is missing or is not to be trusted, and one is required.
    ClientCertificate,
    /// The server's certificate is not to be trusted, and `--out-verify yes` asks for one that is.
    ServerCertificate,
    /// The peer gave up with this alert (RFC 8446 §6); often it does not like our certificate.
    PeerAlert(u8),
    /// The peer broke the protocol.
    Protocol,
    /// The fault is ours: no memory, or an error inside OpenSSL.
    Internal,
}

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A client came to us.
    Server,
    /// We went to a next hop.
    Client,
}

impl HandshakeError {
    pub(super) fn not_tls() -> HandshakeError {
        HandshakeError {
            fault: Fault::NotTls,
            text: "plaintext where TLS was due".to_owned(),
        }
    }

    /// What OpenSSL left behind, and what it found wrong with the peer's certificate, if anything.
    pub(super) fn from_stack(
        side: Side,
        stack: &ErrorStack,
        verification: Option<&str>,
    ) -> HandshakeError {
        let fault_of = |error| fault_of(side, error);
        let fault = stack.errors().iter().find_map(fault_of).unwrap_or_else(|| {
            if stack
                .errors()
                .iter()
                .any(|error| error.library_code() == ERR_LIB_SSL)
            {
                Fault::Protocol
            } else {
                Fault::Internal
            }
        });
        let mut text = one_line(stack);
        if let (Fault::ClientCertificate | Fault::ServerCertificate, Some(verification)) =
            (fault, verification)
        {
            text.push_str(": ");
            text.push_str(verification);
        }
        HandshakeError { fault, text }
    }

    pub(super) fn internal(text: &str) -> HandshakeError {
        HandshakeError {
            fault: Fault::Internal,
            text: escaped(text).into_owned(),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HandshakeError {}

/// The reasons of an error stack as one line, without the file and line of OpenSSL's source.
pub(super) fn one_line(stack: &ErrorStack) -> String {
    let mut line = String::new();
    for error in stack.errors() {
        let reason = error.reason().unwrap_or("unknown error");
        // A failing provider, store or decoder repeats itself on every level.
        if line.ends_with(reason) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(reason);
        if let Some(data) = error.data().filter(|data| !data.is_empty()) {
            line.push_str(" (");
            line.push_str(&escaped(data));
            line.push(')');
        }
    }
    if line.is_empty() {
        line.push_str("OpenSSL gives no reason");
    }
    line
}

/// A peer's text made fit for one line of a log.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(char::escape_default)
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

fn fault_of(side: Side, error: &Error) -> Option<Fault> {
    if error.library_code() != ERR_LIB_SSL {
        return None;
    }
    let reason = error.reason_code();
    if reason & FATAL_FLAG != 0 {
        return Some(Fault::Internal);
    }
    if let Some(alert) = reason.checked_sub(ALERT_REASON_OFFSET)
        && let Ok(alert) = u8::try_from(alert)
    {
        return Some(match (side, alert) {
            // RFC 8446 §4.2.1: this is how a server says that it has none of the versions offered.
            (Side::Client, PROTOCOL_VERSION) => Fault::Version,
            (Side::Client | Side::Server, alert) => Fault::PeerAlert(alert),
        });
    }
    if reason == CERTIFICATE_VERIFY_FAILED {
        return Some(match side {
            Side::Server => Fault::ClientCertificate,
            Side::Client => Fault::ServerCertificate,
        });
    }
    REASONS
        .iter()
        .find(|(code, _)| *code == reason)
        .map(|(_, fault)| *fault)
}

/// `ERR_LIB_SSL` of `openssl/err.h`.
const ERR_LIB_SSL: i32 = 20;

/// `SSL_AD_REASON_OFFSET` of `openssl/sslerr.h`: an alert from the peer is a reason above it.
const ALERT_REASON_OFFSET: i32 = 1000;

/// The alert `protocol_version` (RFC 8446 §6.2).
const PROTOCOL_VERSION: u8 = 70;

/// `SSL_R_CERTIFICATE_VERIFY_FAILED` of `openssl/sslerr.h`, the one reason that either side can have.
const CERTIFICATE_VERIFY_FAILED: i32 = 134;

/// `ERR_RFLAG_FATAL` of `openssl/err.h`: out of memory, internal error, called wrongly.
const FATAL_FLAG: i32 = 1 << 18;

/// Reason codes of `openssl/sslerr.h`; they are part of OpenSSL's binary interface and stay the same
/// in all of 3.x.
const REASONS: &[(i32, Fault)] = &[
    (155, Fault::NotTls),            // HTTPS_PROXY_REQUEST
    (156, Fault::NotTls),            // HTTP_REQUEST
    (258, Fault::Version),           // UNSUPPORTED_PROTOCOL
    (267, Fault::Version),           // WRONG_VERSION_NUMBER
    (252, Fault::Version),           // UNKNOWN_PROTOCOL
    (396, Fault::Version),           // VERSION_TOO_LOW
    (166, Fault::Version),           // VERSION_TOO_HIGH
    (373, Fault::Version),           // INAPPROPRIATE_FALLBACK
    (193, Fault::NoSharedCipher),    // NO_SHARED_CIPHER
    (183, Fault::NoSharedCipher),    // NO_CIPHERS_SPECIFIED
    (118, Fault::NoSharedCipher),    // NO_SUITABLE_SIGNATURE_ALGORITHM
    (376, Fault::NoSharedCipher),    // NO_SHARED_SIGNATURE_ALGORITHMS
    (101, Fault::NoSharedGroup),     // NO_SUITABLE_KEY_SHARE
    (295, Fault::NoSharedGroup),     // NO_SUITABLE_GROUPS
    (410, Fault::NoSharedGroup),     // NO_SHARED_GROUPS
    (394, Fault::NoSharedGroup),     // DH_KEY_TOO_SMALL
    (199, Fault::ClientCertificate), // PEER_DID_NOT_RETURN_A_CERTIFICATE
];
