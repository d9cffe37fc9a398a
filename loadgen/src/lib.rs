//! The load generator for SMTP servers: negotiated against implicit TLS.
//!
//! | module | owns | must never know |
//! |---|---|---|
//! | [`process`] | the server's processes: watched, or started here; own CPU time, cores, descriptors; the machine | sessions |

pub mod process;
