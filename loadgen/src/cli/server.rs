//! `ringpost-loadgen server FLAGS`: ringpost itself, from the library that this program is built with.
//!
//! Hidden, for `compare` on a fresh clone: `cargo run -p ringpost-loadgen` builds no server, and one that lies about
//! may be another version. With `--start` any program can be measured instead.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// The word on the command line.
pub(super) const COMMAND: &str = "server";

/// Runs `ringpost serve` with these flags.
pub(super) fn run(program: &OsStr, flags: &[OsString]) -> ExitCode {
    let words = [program.to_owned(), "serve".into()];
    ringpost::cli::run(words.into_iter().chain(flags.iter().cloned()))
}
