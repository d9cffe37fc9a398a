//! ringpost: an SMTP edge server on io_uring and OpenSSL.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod deliver;
#[allow(unsafe_code)]
pub mod ring;
pub mod shard;
pub mod smtp;
pub mod tls;
