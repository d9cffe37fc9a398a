//! TLS for both sides: OpenSSL contexts, and TLS over memory. It does no socket I/O and knows no shard.
//!
//! - [`material`] reads certificates and keys, and names the file that is at fault.
//! - [`context`] makes OpenSSL contexts of them for the server's side, and chooses one by the name the client asks for.
//! - [`client`] makes the one for next hops, which verifies them by
//!   `anchors`; `sessions` keeps what can be resumed there.
//! - [`tickets`] holds the keys of session tickets, shared by all shards, restarts and a fleet.
//! - [`connection`] is one TLS connection: ciphertext in, plaintext out, and the other way.
//! - [`facts`] is what became known by a handshake, [`failure`] why one failed.
//! - [`development`] makes the certificates of a first run.
//!
//! Files are read and written only by [`material`], `anchors`, [`tickets`] and [`development`], all of them from
//! the control thread or at the start; a shard meets only memory.

mod anchors;
pub mod client;
pub mod connection;
pub mod context;
pub mod development;
pub mod facts;
pub mod failure;
#[expect(unsafe_code, reason = "what the openssl crate does not bind")]
mod ffi;
pub mod material;
mod sessions;
#[cfg(test)]
mod tests;
pub mod tickets;
mod wire;

pub use client::{ClientContext, ClientMaterial, ClientSettings, ClientTlsError, PeerName, Verify};
pub use connection::{Connection, GreetingSent, Handshake, Read};
pub use context::{ClientCert, DEFAULT_GROUPS, MinVersion, ServerContexts, TlsError, TlsSettings};
pub use facts::{Facts, PeerCertificate, Verification};
pub use failure::{Fault, HandshakeError};
pub use ffi::offer_ticket;
pub use material::{CertifiedKey, MaterialError};
pub use tickets::{Rotation, TicketKeyRing, TicketKeysError};
