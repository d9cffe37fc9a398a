//! Gathers a command's arguments from the command line, flag files and the environment.
//!
//! Apart from clap because clap forgets where a value came from, and an operator wants to know.
//! Claims:
//! - An `@FILE` is read where a flag could stand, and nowhere else: `--greeting @home` is a text.
//! - `RINGPOST_` + a flag's name, upper-case and with `_`, is that flag; what the command line or
//!   a flag file says wins. An empty variable is an unset one.
//! - A repeatable flag's variable is split at commas and blanks, and counts only if the flag is
//!   given nowhere else: it replaces the default, it does not add to the command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command};

use super::flag_file::{self, FlagFileError};

/// An argument for clap, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) text: OsString,
    pub(super) origin: Origin,
}

/// Where an argument came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    CommandLine,
    File { path: PathBuf, line_number: usize },
    Environment(String),
}

/// Everything clap is to parse, the program's name first.
///
/// Variables are put before the command line's own flags, so that the last one given wins.
pub(super) fn gather(
    command_line: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
    root: &Command,
) -> Result<Vec<Argument>, FlagFileError> {
    let mut words = command_line.into_iter();
    let mut arguments: Vec<Argument> = Vec::new();
    let from_command_line = |text| Argument {
        text,
        origin: Origin::CommandLine,
    };
    arguments.extend(words.by_ref().take(2).map(from_command_line));
    let command = arguments
        .get(1)
        .and_then(|argument| argument.text.to_str())
        .and_then(|name| root.find_subcommand(name));
    let Some(command) = command else {
        arguments.extend(words.map(from_command_line));
        return Ok(arguments);
    };
    let given = expand(words)?;
    arguments.extend(from_environment(command, &given, variable));
    arguments.extend(given);
    Ok(arguments)
}

/// Puts a file's flags in the place of its `@FILE`.
fn expand(words: impl Iterator<Item = OsString>) -> Result<Vec<Argument>, FlagFileError> {
    let mut arguments = Vec::new();
    let mut is_value = false;
    for text in words {
        match flag_file_path(&text) {
            Some(path) if !is_value => {
                for flag in flag_file::read(&path)? {
                    let origin = Origin::File {
                        path: path.clone(),
                        line_number: flag.line_number,
                    };
                    arguments.push(Argument {
                        text: flag.argument.into(),
                        origin,
                    });
                }
            }
            Some(_) | None => {
                let octets = text.as_encoded_bytes();
                // No flag of ours but --help stands without a value.
                is_value =
                    octets.starts_with(b"--") && octets != b"--help" && !octets.contains(&b'=');
                arguments.push(Argument {
                    text,
                    origin: Origin::CommandLine,
                });
            }
        }
    }
    Ok(arguments)
}

/// The path behind the `@`.
fn flag_file_path(text: &OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = text.as_bytes().strip_prefix(b"@")?;
    Some(Path::new(OsStr::from_bytes(path)).to_owned())
}

fn from_environment(
    command: &Command,
    given: &[Argument],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<Argument> {
    let mut arguments = Vec::new();
    for flag in command.get_arguments() {
        let Some(long) = flag.get_long() else {
            continue;
        };
        let repeatable = matches!(flag.get_action(), ArgAction::Append);
        if !repeatable && !matches!(flag.get_action(), ArgAction::Set) {
            continue;
        }
        let name = variable_name(long);
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let is_this = |argument: &Argument| names_flag(&argument.text, long);
        let values: Vec<OsString> = match value.to_str() {
            Some(_) if repeatable && given.iter().any(is_this) => Vec::new(),
            Some(text) if repeatable => text
                .split(|sign: char| sign == ',' || sign.is_whitespace())
                .filter(|part| !part.is_empty())
                .map(OsString::from)
                .collect(),
            Some(_) | None => vec![value],
        };
        for value in values {
            let mut text = OsString::from(format!("--{long}="));
            text.push(value);
            arguments.push(Argument {
                text,
                origin: Origin::Environment(name.clone()),
            });
        }
    }
    arguments
}

/// `--max-errors` is `RINGPOST_MAX_ERRORS`.
fn variable_name(long: &str) -> String {
    format!("RINGPOST_{}", long.to_ascii_uppercase().replace('-', "_"))
}

/// Whether the argument is `--long` or `--long=…`.
pub(super) fn names_flag(text: &OsStr, long: &str) -> bool {
    let rest = text.as_encoded_bytes().strip_prefix(b"--");
    let rest = rest.and_then(|rest| rest.strip_prefix(long.as_bytes()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}
