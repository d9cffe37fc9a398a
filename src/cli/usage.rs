//! One line for whatever clap finds wrong with the arguments.
//!
//! clap's own rendering takes several lines and a usage summary; the contract promises one line
//! that names the flag, and a log collector wants no more.
//! Claims: the line holds no line end, names the flag first, and says where the value came from
//! when that was a flag file or the environment.

use clap::error::{ContextKind, ErrorKind};

use super::arguments::{Argument, Origin};

/// The line, without the program's name before it, for a program whose arguments all come from its command line.
pub fn plain_line(error: &clap::Error, program: &str) -> String {
    written(error, program, &[])
}

/// The line, without the program's name before it.
pub(super) fn line(error: &clap::Error, arguments: &[Argument]) -> String {
    written(error, parent(arguments), arguments)
}

fn written(error: &clap::Error, parent: &str, arguments: &[Argument]) -> String {
    let flag = context(error, ContextKind::InvalidArg);
    let value = context(error, ContextKind::InvalidValue);
    let flag_name = flag.as_deref().map(name_of).unwrap_or_default();
    let text = match error.kind() {
        ErrorKind::InvalidValue => match value.as_deref() {
            None | Some("") => format!("{flag_name}: a value is missing"),
            Some(value) => {
                let choices = context(error, ContextKind::ValidValue).unwrap_or_default();
                format!("{flag_name} {value:?}: must be one of {choices}")
            }
        },
        ErrorKind::ValueValidation => {
            let value = value.as_deref().unwrap_or_default();
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let reason = reason.unwrap_or_else(|| "is not valid".to_owned());
            format!("{flag_name} {value:?}: {reason}")
        }
        ErrorKind::UnknownArgument if flag_name.starts_with('-') => {
            match context(error, ContextKind::SuggestedArg) {
                Some(suggested) => {
                    format!(
                        "{flag_name}: no such flag; perhaps {} is meant",
                        name_of(&suggested)
                    )
                }
                None => format!("{flag_name}: no such flag; --help lists them"),
            }
        }
        ErrorKind::UnknownArgument => {
            let word = flag.as_deref().unwrap_or_default();
            format!("{word:?} is neither a flag nor a flag's value")
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("{word:?} is no command; {parent} --help lists them")
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("a command is missing; {parent} --help lists them")
        }
        ErrorKind::MissingRequiredArgument => {
            format!(
                "{}: is required",
                wanted(flag.as_deref().unwrap_or_default())
            )
        }
        ErrorKind::InvalidUtf8 => format!("{flag_name}: a value is not UTF-8"),
        ErrorKind::NoEquals
        | ErrorKind::TooManyValues
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::ArgumentConflict
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::Io
        | ErrorKind::Format
        | _ => {
            // What our flags do not raise: clap's own first line, without "error: ".
            let rendered = error.to_string();
            let first = rendered.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match origin(flag_name, value.as_deref(), arguments) {
        Some(Origin::File { path, line_number }) => {
            format!("{text} (@{} line {line_number})", path.display())
        }
        Some(Origin::Environment(name)) => format!("{text} (from {name})"),
        Some(Origin::CommandLine) | None => text,
    }
}

/// The command whose command is missing or wrong.
fn parent(arguments: &[Argument]) -> &'static str {
    match arguments.get(1).and_then(|argument| argument.text.to_str()) {
        Some("queue") => "ringpost queue",
        Some(_) | None => "ringpost",
    }
}

/// Where the wrong argument came from: the last one of this flag with this value.
fn origin<'a>(
    flag_name: &str,
    value: Option<&str>,
    arguments: &'a [Argument],
) -> Option<&'a Origin> {
    let long = flag_name
        .strip_prefix("--")
        .filter(|long| !long.is_empty())?;
    let candidates = arguments
        .iter()
        .rev()
        .filter(|argument| super::arguments::names_flag(&argument.text, long));
    let with_value = candidates.clone().find(|argument| match value {
        Some(value) => argument.text.to_string_lossy().ends_with(value),
        None => true,
    });
    with_value
        .or_else(|| candidates.clone().next())
        .map(|argument| &argument.origin)
}

/// `--pin <yes|no>` is called `--pin`, `<DIR>` stays.
fn name_of(flag: &str) -> &str {
    flag.split([' ', '=']).next().unwrap_or(flag)
}

/// What of a group of flags that exclude each other would do: `<--rate <R>|--closed>` is called `--rate or --closed`.
fn wanted(flag: &str) -> String {
    let first = flag.split(", ").next().unwrap_or(flag);
    let group = first
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let flags = group.map(|group| group.split('|').collect::<Vec<_>>());
    match flags {
        Some(flags) if flags.iter().all(|flag| flag.starts_with("--")) => {
            let names: Vec<&str> = flags.into_iter().map(name_of).collect();
            names.join(" or ")
        }
        Some(_) | None => name_of(first).to_owned(),
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    error.get(kind).map(ToString::to_string)
}
