//! Gathers a command's arguments from the command line, flag files and the environment.
//!
//! Apart from clap because clap forgets where a value came from, and an operator wants to know.
//! Claims:
//! - An `@FILE` is read where a flag could stand, and nowhere else: `--greeting @home` is a text.
//! - A command of `queue` takes the server's flag file, and passes over what is for `serve` alone.
//! - `RINGPOST_` + a flag's name, upper-case and with `_`, is that flag; what the command line or
//!   a flag file says wins. An empty variable is an unset one.
//! - A repeatable flag's variable is split at commas and blanks, and counts only if the flag is
//!   given nowhere else: it replaces the default, it does not add to the command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};

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
    let mut words = command_line.into_iter().peekable();
    let mut arguments: Vec<Argument> = Vec::new();
    let from_command_line = |text| Argument {
        text,
        origin: Origin::CommandLine,
    };
    arguments.extend(words.by_ref().take(1).map(from_command_line));
    let mut commands = vec![root];
    while let Some(command) = words.peek().and_then(|word| named(&commands, word)) {
        commands.push(command);
        arguments.extend(words.next().map(from_command_line));
    }
    let [root, .., command] = commands.as_slice() else {
        arguments.extend(words.map(from_command_line));
        return Ok(arguments);
    };
    // One within another command, as `queue list`, is not what the server's flag file is for.
    let passed_over = match commands.len() {
        0..=2 => None,
        _ => root.find_subcommand("serve"),
    };
    let given = expand(words, command, passed_over)?;
    arguments.extend(from_environment(command, &given, variable));
    arguments.extend(given);
    Ok(arguments)
}

/// The command of the last one of `commands` that `word` names.
fn named<'c>(commands: &[&'c Command], word: &OsStr) -> Option<&'c Command> {
    commands.last()?.find_subcommand(word)
}

/// Puts a file's flags in the place of its `@FILE`, without those that only `passed_over` has.
fn expand(
    words: impl Iterator<Item = OsString>,
    command: &Command,
    passed_over: Option<&Command>,
) -> Result<Vec<Argument>, FlagFileError> {
    let passes_over = |text: &OsStr| {
        flag_of(command, text).is_none()
            && passed_over.is_some_and(|other| flag_of(other, text).is_some())
    };
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
                    let text = OsString::from(flag.argument);
                    if !passes_over(&text) {
                        arguments.push(Argument { text, origin });
                    }
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
                // clap's own --help is not among the command's.
                let is_switch = |flag: &Arg| !flag.get_action().takes_values();
                is_value = octets.starts_with(b"--")
                    && octets != b"--help"
                    && !octets.contains(&b'=')
                    && !flag_of(command, &text).is_some_and(is_switch);
                arguments.push(Argument {
                    text,
                    origin: Origin::CommandLine,
                });
            }
        }
    }
    Ok(arguments)
}

/// The flag of `command` that an argument gives.
fn flag_of<'c>(command: &'c Command, text: &OsStr) -> Option<&'c Arg> {
    command
        .get_arguments()
        .find(|flag| flag.get_long().is_some_and(|long| names_flag(text, long)))
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

    fn root() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        let serve = Command::new("serve")
            .arg(flag("pin"))
            .arg(flag("greeting"))
            .arg(flag("max-errors"))
            .arg(flag("data-dir"))
            .arg(Arg::new("listen").long("listen").action(ArgAction::Append));
        let list = Command::new("list")
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
            .arg(flag("data-dir"));
        Command::new("ringpost")
            .subcommand(serve)
            .subcommand(Command::new("queue").subcommand(list))
            .subcommand(Command::new("dev-certs").arg(flag("dir")))
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
    fn a_command_within_another_takes_what_is_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mx.conf");
        std::fs::write(&path, "--listen a\n--data-dir d\n--nope 1\n").unwrap();
        let file = format!("@{}", path.display());
        let variables = [("RINGPOST_DATA_DIR", "v"), ("RINGPOST_PIN", "yes")];
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "its variables",
                &["queue", "list"],
                &["queue", "list", "--data-dir=v"],
            ),
            (
                "behind a flag without a value comes a file; what serve alone has is passed over",
                &["queue", "list", "--json", &file],
                &[
                    "queue",
                    "list",
                    "--data-dir=v",
                    "--json",
                    "--data-dir=d",
                    "--nope=1",
                ],
            ),
            (
                "a value is a text",
                &["queue", "list", "--data-dir", &file],
                &["queue", "list", "--data-dir=v", "--data-dir", &file],
            ),
            ("no such command", &["queue", "lost"], &["queue", "lost"]),
            (
                "another command takes all",
                &["dev-certs", &file],
                &["dev-certs", "--listen=a", "--data-dir=d", "--nope=1"],
            ),
        ];
        for (name, words, expected) in rows {
            assert_eq!(gathered(words, &variables), *expected, "{name}");
        }
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
