//! The command line: one file a command, each flag a struct field, one line for each error.
//!
//! Owns everything clap knows. Gives [`Config`](crate::config::Config) to the control thread and
//! an exit status to `main`; no other module sees a flag.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod arguments;
mod flag_file;
mod serve;
mod usage;
mod values;

/// An SMTP edge server on io_uring and OpenSSL.
#[derive(Debug, Parser)]
#[command(
    name = "ringpost",
    version,
    args_override_self = true,
    arg_required_else_help = false,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(args_override_self = true, next_line_help = true, before_help = SERVE_HELP, after_help = FORMS_HELP)]
    Serve(Box<serve::ServeFlags>),
}

/// Runs the command that the arguments name; the whole program but its allocator.
///
/// Exit status 0: done; 1: failed while running, with one line for each fault on standard error;
/// 2: the arguments are wrong, with one line that names the flag.
pub fn run(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut root = CommandLine::command();
    let gathered = match arguments::gather(command_line, |name| std::env::var_os(name), &root) {
        Ok(gathered) => gathered,
        Err(error) => return wrong_arguments(&error.to_string()),
    };
    let words = gathered.iter().map(|argument| argument.text.as_os_str());
    let parsed = root
        .try_get_matches_from_mut(words)
        .and_then(|mut matches| CommandLine::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(parsed) => dispatch(parsed.command),
        Err(error) if !error.use_stderr() => {
            // --help and --version. A reader that closed the pipe has seen enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => wrong_arguments(&usage::line(&error, &gathered)),
    }
}

fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Serve(flags) => {
            let (config, faults) = flags.resolve();
            println!("{config:#?}");
            for fault in faults {
                complain(&fault.to_string());
            }
            ExitCode::SUCCESS
        }
    }
}

fn wrong_arguments(line: &str) -> ExitCode {
    complain(line);
    ExitCode::from(2)
}

/// One line on standard error. There is nowhere to report that it cannot be written.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "ringpost: {line}");
}

const FORMS_HELP: &str = "\
Forms:
  SIZE      octets, or a number with k, M or G (1024): 50M
  DURATION  a number with ms, s, m, h or d: 300s
  @FILE     in place of flags reads flags from FILE, one a line, # begins a comment;
            a line is --flag value or --flag=value, the value may stand in quotes
  Each flag can also come from the environment as RINGPOST_ and its name, upper-case and
  with _ for -: RINGPOST_MAX_ERRORS=5. The command line and flag files win. A repeatable
  flag's variable is a list with commas or blanks. Of a flag given twice the last one counts,
  unless it is repeatable.";

const SERVE_HELP: &str = "\
With no flag it listens on 127.0.0.1:2525 and 127.0.0.1:4650, makes itself a development
certificate, takes mail for localhost and the host name, and delivers to a Maildir below
./ringpost-data.";
