//! The command line: one file a command, one line for each error.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ringpost::cli::usage;

mod compare;
mod idle;
mod load;
mod output;
mod progress;
mod ramp;
mod run;
mod server;
mod sink;
mod started;

/// Measures SMTP servers: what negotiated TLS costs beside implicit TLS, and all else.
#[derive(Debug, Parser)]
#[command(
    name = "ringpost-loadgen",
    version,
    args_override_self = true,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a server in one way and say what it did
    #[command(args_override_self = true, next_line_help = true)]
    Run(Box<run::Flags>),
    /// Measure plain, negotiated and implicit TLS in turn, on one server
    #[command(args_override_self = true, next_line_help = true)]
    Compare(Box<compare::Flags>),
    /// Hold sessions open, and see what they cost the server and whether others are served
    #[command(args_override_self = true, next_line_help = true)]
    Idle(Box<idle::Flags>),
    /// Find the highest rate at which p99 stays under a bound
    #[command(args_override_self = true, next_line_help = true)]
    Ramp(Box<ramp::Flags>),
    /// Take mail and keep nothing, as the far end of a sender under measurement
    #[command(args_override_self = false, next_line_help = true, after_help = sink::FORMS_HELP)]
    Sink(Box<sink::Flags>),
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The arguments are wrong: exit status 2.
    Arguments(String),
    /// It failed while running: exit status 1.
    Running(String),
}

impl Failed {
    /// Of what an error says, and of what is behind it.
    pub(crate) fn because(error: &dyn std::error::Error) -> Failed {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Failed::Running(text)
    }
}

/// Runs the command that the arguments name; the whole program but its allocator.
///
/// Exit status 0: done; 1: failed while running; 2: the arguments are wrong. Both with one line on standard error.
pub fn run(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = command_line.into_iter().collect();
    // The server that `compare` starts when it is given none: ringpost, as it was built with this program.
    if let [program, command, flags @ ..] = &*words
        && command == server::COMMAND
    {
        return server::run(program, flags);
    }
    let mut command = CommandLine::command();
    let parsed = command
        .try_get_matches_from_mut(&words)
        .and_then(|mut matches| CommandLine::from_arg_matches_mut(&mut matches));
    let outcome = match parsed {
        Ok(parsed) => dispatch(parsed.command, &shown(&words)),
        Err(error) if !error.use_stderr() => {
            // --help and --version. A reader that closed the pipe has seen enough.
            let _ = error.print();
            Ok(())
        }
        Err(error) => Err(Failed::Arguments(usage::plain_line(&error, PROGRAM))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Running(text)) => {
            complain(&text);
            ExitCode::FAILURE
        }
        Err(Failed::Arguments(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command, command_line: &str) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::because(&error))?;
    match command {
        Command::Run(flags) => runtime.block_on(run::run(&flags, command_line)),
        Command::Compare(flags) => runtime.block_on(compare::run(&flags, command_line)),
        Command::Idle(flags) => runtime.block_on(idle::run(&flags, command_line)),
        Command::Ramp(flags) => runtime.block_on(ramp::run(&flags, command_line)),
        Command::Sink(flags) => runtime.block_on(sink::run(&flags)),
    }
}

/// The command line for a report: the program by its name alone, words quoted where a shell would need it.
fn shown(words: &[OsString]) -> String {
    let words = words.iter().skip(1).map(|word| quoted(word));
    let shown: Vec<String> = std::iter::once(PROGRAM.to_owned()).chain(words).collect();
    shown.join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_./:=,@+[]%".contains(&octet);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// One line on standard error, whatever a library put into the text. There is nowhere to report that it cannot be
/// written.
fn complain(text: &str) {
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {line}");
}

const PROGRAM: &str = "ringpost-loadgen";
