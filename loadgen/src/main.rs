//! The load generator's place in the workspace; measuring is not built yet.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("ringpost-loadgen: not built yet; this release measures nothing");
    ExitCode::FAILURE
}
