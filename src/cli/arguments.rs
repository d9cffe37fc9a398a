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
    let mut arguments: Vec<Argument> = Vec::new();
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
                // `--max-errors -1`: clap would look for a flag called -1, and name that one.
                if let Some(flag) = arguments.last_mut().filter(|_| is_value)
                    && octets.starts_with(b"-")
                    && !octets.starts_with(b"--")
                {
                    flag.text.push("=");
                    flag.text.push(&text);
                    is_value = false;
                    continue;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn root() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        Command::new("ringpost").subcommand(
            Command::new("serve")
                .arg(flag("pin"))
                .arg(flag("greeting"))
                .arg(flag("max-errors"))
                .arg(Arg::new("listen").long("listen").action(ArgAction::Append)),
        )
    }

    fn gathered(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let words = std::iter::once(&"ringpost")
            .chain(words)
            .map(OsString::from);
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let arguments = gather(words, variable, &root()).unwrap();
        let texts = arguments
            .into_iter()
            .map(|argument| argument.text.into_string().unwrap());
        texts.skip(1).collect()
    }

    #[test]
    fn variables() {
        type Row<'a> = (
            &'a str,
            &'a [&'a str],
            &'a [(&'a str, &'a str)],
            &'a [&'a str],
        );
        let rows: &[Row<'_>] = &[
            (
                "before the command line, which then wins",
                &["serve", "--pin", "no"],
                &[("RINGPOST_PIN", "yes")],
                &["serve", "--pin=yes", "--pin", "no"],
            ),
            (
                "hyphens are underscores",
                &["serve"],
                &[("RINGPOST_MAX_ERRORS", "5")],
                &["serve", "--max-errors=5"],
            ),
            (
                "a repeatable flag's variable is a list",
                &["serve"],
                &[("RINGPOST_LISTEN", "a,b c,\n d")],
                &[
                    "serve",
                    "--listen=a",
                    "--listen=b",
                    "--listen=c",
                    "--listen=d",
                ],
            ),
            (
                "a repeatable flag on the command line replaces the list",
                &["serve", "--listen", "x"],
                &[("RINGPOST_LISTEN", "a,b")],
                &["serve", "--listen", "x"],
            ),
            (
                "a single value keeps its blanks and commas",
                &["serve"],
                &[("RINGPOST_GREETING", "a, b")],
                &["serve", "--greeting=a, b"],
            ),
            (
                "an empty one is unset",
                &["serve"],
                &[("RINGPOST_PIN", "")],
                &["serve"],
            ),
            (
                "no command takes none",
                &["--help"],
                &[("RINGPOST_PIN", "yes")],
                &["--help"],
            ),
            (
                "an unknown command takes none",
                &["x"],
                &[("RINGPOST_PIN", "yes")],
                &["x"],
            ),
        ];
        for (name, words, variables, expected) in rows {
            assert_eq!(gathered(words, variables), *expected, "{name}");
        }
    }

    #[test]
    fn flag_files_are_expanded_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mx.conf");
        std::fs::write(&path, "# one\n--listen a\n--pin yes\n").unwrap();
        let file = format!("@{}", path.display());
        let rows: [(&str, &[&str], &[&str]); 4] = [
            (
                "between flags",
                &["serve", "--listen", "x", &file, "--pin", "no"],
                &[
                    "serve",
                    "--listen",
                    "x",
                    "--listen=a",
                    "--pin=yes",
                    "--pin",
                    "no",
                ],
            ),
            (
                "a flag's value is a text",
                &["serve", "--greeting", &file],
                &["serve", "--greeting", &file],
            ),
            (
                "behind --flag=value",
                &["serve", "--pin=no", &file],
                &["serve", "--pin=no", "--listen=a", "--pin=yes"],
            ),
            ("before a command it is a word", &[&file], &[&file]),
        ];
        for (name, words, expected) in rows {
            assert_eq!(gathered(words, &[]), *expected, "{name}");
        }
        // The file counts as the command line: it replaces a list from the environment.
        let with_variable = gathered(&["serve", &file], &[("RINGPOST_LISTEN", "b")]);
        assert_eq!(with_variable, ["serve", "--listen=a", "--pin=yes"]);
    }

    #[test]
    fn flags_are_named_whole() {
        let rows = [
            ("--listen", "listen", true),
            ("--listen=x", "listen", true),
            ("--listen-tls", "listen", false),
            ("--listen-tls=x", "listen-tls", true),
            ("-listen", "listen", false),
            ("listen", "listen", false),
        ];
        for (text, long, expected) in rows {
            assert_eq!(names_flag(OsStr::new(text), long), expected, "{text}");
        }
    }
}
