//! The protocol core: grammar, session and mail data, without a socket, a file or a clock.

pub mod chunk;
pub mod command;
pub mod data;
pub mod end_of_data;
pub mod envelope;
pub mod hops;
pub mod message;
pub mod parameters;
pub mod path;
pub mod trace;
