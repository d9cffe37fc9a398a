//! `ringpost man`: the manual pages, one a command, made of the same flags as the help.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

use super::{Failed, print};

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct ManFlags {
    /// Where the pages go; made if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages and prints their names.
pub(super) fn run(flags: &ManFlags, mut root: Command) -> Result<(), Failed> {
    let directory = &flags.dir;
    fs::create_dir_all(directory).map_err(|error| {
        Failed::because(format!("cannot make {}: {error}", directory.display()))
    })?;
    // Gives the commands their full names, `ringpost-serve`.
    root.build();
    let mut written = String::new();
    let mut commands = VecDeque::from([root]);
    while let Some(command) = commands.pop_front() {
        commands.extend(command.get_subcommands().cloned());
        let page = Man::new(command)
            .date(PAGES_DATE)
            .source(concat!("ringpost ", env!("CARGO_PKG_VERSION")))
            .manual("ringpost");
        let path = page.generate_to(directory).map_err(|error| {
            Failed::because(format!(
                "cannot write a page in {}: {error}",
                directory.display()
            ))
        })?;
        // Writing to a `String` cannot fail.
        let _ = writeln!(written, "{}", path.display());
    }
    print(&written)
}

/// Fixed, so that the same version makes the same pages.
const PAGES_DATE: &str = "2026-11-24";
