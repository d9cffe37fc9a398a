//! The command line: one file a command, each flag a struct field, one line for each error.
//!
//! Owns everything clap knows. Gives [`Config`](crate::config::Config) to the control thread and
//! an exit status to `main`; no other module sees a flag.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Fault;

mod arguments;
mod check;
mod completions;
mod dev_certs;
mod flag_file;
mod hash_password;
mod man;
mod queue;
mod serve;
pub mod usage;
pub mod values;

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
    /// Say what serve would run with these flags, or what is wrong with them
    #[command(args_override_self = true, next_line_help = true, before_help = CHECK_HELP, after_help = FORMS_HELP)]
    Check(Box<serve::ServeFlags>),
    /// See and steer the messages that wait to be delivered
    #[command(arg_required_else_help = false, disable_help_subcommand = true)]
    Queue(queue::QueueFlags),
    /// Read a password from standard input, print its hash for --users
    HashPassword,
    /// Make a development CA, server certificates and a client certificate
    #[command(args_override_self = true)]
    DevCerts(dev_certs::DevCertsFlags),
    /// Write the manual pages
    Man(man::ManFlags),
    /// Print the completions of a shell
    Completions(completions::CompletionsFlags),
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
    let outcome = match command {
        Command::Serve(flags) => serve::run(*flags),
        Command::Check(flags) => check::run(*flags),
        Command::Queue(flags) => queue::run(&flags),
        Command::HashPassword => hash_password::run(),
        Command::DevCerts(flags) => dev_certs::run(&flags),
        Command::Man(flags) => man::run(&flags, CommandLine::command()),
        Command::Completions(flags) => completions::run(&flags, CommandLine::command()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(lines)) => {
            for line in lines {
                complain(&line);
            }
            ExitCode::FAILURE
        }
    }
}

/// Why a command failed while running: lines for standard error, one a fault.
#[derive(Debug)]
struct Failed(Vec<String>);

impl Failed {
    fn because(reason: impl ToString) -> Failed {
        Failed(vec![reason.to_string()])
    }

    fn of(faults: &[Fault]) -> Failed {
        Failed(faults.iter().map(ToString::to_string).collect())
    }
}

/// Writes to standard output. A reader that closed the pipe has seen enough.
fn print(text: &str) -> Result<(), Failed> {
    print_octets(text.as_bytes())
}

fn print_octets(octets: &[u8]) -> Result<(), Failed> {
    to_stdout(octets).map_err(Failed::because)
}

/// Writes to standard output; the error is one line. A reader that closed the pipe has seen enough.
pub fn to_stdout(octets: &[u8]) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(octets).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn wrong_arguments(line: &str) -> ExitCode {
    complain(line);
    ExitCode::from(2)
}

/// One line on standard error, whatever a library put into the text. There is nowhere to report
/// that it cannot be written.
fn complain(text: &str) {
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "ringpost: {line}");
}

const FORMS_HELP: &str = "\
Forms:
  SIZE      octets, or a number with k, M or G (1024): 50M
  DURATION  a number with ms, s, m, h or d: 300s
  TARGET    maildir:DIR (a Maildir for each recipient), smtp:HOST:PORT, smtps:HOST:PORT
            (TLS from the first octet), lmtp:HOST:PORT, lmtp:unix:PATH, mx (the domain's
            mail exchangers), discard; HOST is a name, an IPv4 address, or an IPv6
            address in brackets
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

const CHECK_HELP: &str = "\
Takes the flags of serve, reads every file they name, makes and changes nothing. Prints what would
run and exits 0; or exits 1 with one line for each fault, naming the flag and the file.";
