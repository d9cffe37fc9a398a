//! TLS for the server's side: OpenSSL contexts, and TLS over memory. It does no socket I/O and knows no shard.

pub mod development;
pub mod failure;
pub mod material;

pub use failure::{Fault, HandshakeError};
pub use material::{CertifiedKey, MaterialError};
