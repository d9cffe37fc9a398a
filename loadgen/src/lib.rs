//! The load generator for SMTP servers: negotiated against implicit TLS.
//!
//! | module | owns | must never know |
//! |---|---|---|
//! | [`plan`] | what a run is to do | how it is done |
//! | [`mail`] | what is sent | to whom, how |
//! | [`load`] | threads and connections that follow a plan | what becomes of what they measure |
//! | [`measure`] | times, counts, errors of a thread, and their sum | sockets |
//! | [`process`] | the server's processes: watched, or started here; own CPU time, cores, descriptors; the machine | sessions |

pub mod load;
pub mod mail;
pub mod measure;
pub mod plan;
pub mod process;
