//! The protocol core: grammar, session and mail data, without a socket, a file or a clock.
//!
//! | module | owns |
//! |---|---|
//! | [`command`], [`path`], [`parameters`] | the grammar of one command line |
//! | [`envelope`] | what a transaction says about its mail |
//! | [`dsn`] | what a sender wants to be told about its message |
//! | [`data`] | mail data in memory, and the budget of the process for it |
//! | [`end_of_data`], [`chunk`], [`hops`] | where mail data ends, by DATA and by BDAT; loops |
//! | [`message`], [`trace`] | a complete message with its origin, and the header written above it |
//! | [`reply`] | what a reply is, the one gate they leave by, and who is told |
//! | [`status`] | enhanced status codes |
//! | [`sasl`] | the exchanges of AUTH |
//! | [`server`] | the session: state, policy, limits |
//! | [`client`] | the sending session: what a peer is told, and what it makes of it |
//!
//! Must never know: a ring, a TLS library, a file, a shard. Time is an argument.

pub mod chunk;
pub mod client;
pub mod command;
pub mod data;
pub mod dsn;
pub mod end_of_data;
pub mod envelope;
pub mod hops;
pub mod message;
pub mod parameters;
pub mod path;
pub mod reply;
pub mod sasl;
pub mod server;
pub mod status;
pub mod trace;
