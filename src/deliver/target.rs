//! Where accepted mail goes: the TARGET of `--deliver` and `--route`.
//!
//! Apart from delivery itself because the flags need the grammar and nothing else.
//! Claims:
//! - What is written by `Display` parses to the same target.
//! - A target that only a later release can serve is refused by name, never taken and ignored.
//!
//! It does not promise that a Maildir can be written; that is found out at start.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One way for an accepted message to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One Maildir a recipient, at `DIR/DOMAIN/LOCALPART`.
    Maildir(PathBuf),
    /// Accepted and forgotten: for measurements.
    Discard,
}

/// Why a TARGET cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `maildir:` with nothing behind it.
    #[error("maildir: needs a directory, as in maildir:/var/mail")]
    NoDirectory,
    /// Sending onwards: known, but not yet there.
    #[error("this release cannot deliver to {0}, only to maildir:DIR and discard")]
    NotInThisRelease(&'static str),
    /// No form of TARGET begins like this.
    #[error("not a delivery target; one is maildir:DIR or discard")]
    Unknown,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if text == "discard" {
            return Ok(Target::Discard);
        }
        if text == "mx" {
            return Err(TargetError::NotInThisRelease("mx"));
        }
        match text.split_once(':') {
            Some(("maildir", "")) => Err(TargetError::NoDirectory),
            Some(("maildir", directory)) => Ok(Target::Maildir(PathBuf::from(directory))),
            Some(("smtp", _)) => Err(TargetError::NotInThisRelease("smtp:")),
            Some(("smtps", _)) => Err(TargetError::NotInThisRelease("smtps:")),
            Some(("lmtp", _)) => Err(TargetError::NotInThisRelease("lmtp:")),
            Some(_) | None => Err(TargetError::Unknown),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Maildir(directory) => write!(formatter, "maildir:{}", directory.display()),
            Target::Discard => formatter.write_str("discard"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let maildir = |directory: &str| Ok(Target::Maildir(PathBuf::from(directory)));
        let rows: &[(&str, &str, Result<Target, TargetError>)] = &[
            ("discard", "discard", Ok(Target::Discard)),
            (
                "absolute directory",
                "maildir:/var/mail",
                maildir("/var/mail"),
            ),
            ("relative directory", "maildir:./m", maildir("./m")),
            ("colon in the directory", "maildir:a:b", maildir("a:b")),
            ("no directory", "maildir:", Err(TargetError::NoDirectory)),
            ("no colon", "maildir", Err(TargetError::Unknown)),
            ("upper case", "Discard", Err(TargetError::Unknown)),
            (
                "smtp",
                "smtp:mx.test:25",
                Err(TargetError::NotInThisRelease("smtp:")),
            ),
            (
                "smtps",
                "smtps:mx.test:465",
                Err(TargetError::NotInThisRelease("smtps:")),
            ),
            (
                "lmtp",
                "lmtp:unix:/run/lmtp",
                Err(TargetError::NotInThisRelease("lmtp:")),
            ),
            ("mx", "mx", Err(TargetError::NotInThisRelease("mx"))),
            ("nothing", "", Err(TargetError::Unknown)),
            ("a bare path", "/var/mail", Err(TargetError::Unknown)),
        ];
        for (name, text, expected) in rows {
            assert_eq!(&text.parse::<Target>(), expected, "{name}");
            if let Ok(target) = expected {
                assert_eq!(
                    target.to_string().parse::<Target>().as_ref(),
                    Ok(target),
                    "{name}"
                );
            }
        }
    }
}
