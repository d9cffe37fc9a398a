//! `ringpost completions`: what a shell needs to complete commands and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failed, print_octets};

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsFlags {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(flags: &CompletionsFlags, mut root: Command) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut root, "ringpost", &mut script);
    print_octets(&script)
}
