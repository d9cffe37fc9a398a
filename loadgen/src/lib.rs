//! The load generator for SMTP servers: negotiated against implicit TLS.
//!
//! | module | owns | must never know |
//! |---|---|---|
//! | [`plan`] | what a run is to do | how it is done |
//! | [`mail`] | what is sent | to whom, how |
//! | [`load`] | threads and connections that follow a plan | what becomes of what they measure |
//! | [`measure`] | times, counts, errors of a thread, and their sum | sockets |
//! | [`process`] | the server's processes: watched, or started here; own CPU time, cores, descriptors; the machine | sessions |
//! | [`observe`] | a run from outside: its ends, its onlookers, its figures | flags |
//! | [`compare`] | which ways are compared, in which order; ratios | how a run is made |
//! | [`idle`] | sessions that rest, from outside | flags |
//! | [`ramp`] | which rates are tried, what it takes to hold one | how a run is made |
//! | [`report`] | figures for readers: table, JSON, page | how they came about |
//! | [`sink`] | a receiving end that takes mail, misbehaves as told, and counts | who sends, and why |
//! | [`cli`] | flags, one file a command | everything but what a command calls |

pub mod cli;
pub mod compare;
pub mod idle;
pub mod load;
pub mod mail;
pub mod measure;
pub mod observe;
pub mod plan;
pub mod process;
pub mod ramp;
pub mod report;
pub mod sink;
