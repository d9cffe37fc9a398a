//! `ringpost hash-password`: the hash for a line of `--users`.
//!
//! Claims: the password is asked for twice, without echo, on a terminal, and is the first line of
//! standard input otherwise; it is never an argument, where `ps` would show it.

use std::io::{self, BufRead, IsTerminal};

use super::{Failed, print};
use crate::auth::hash;
use crate::smtp::sasl::Secret;

/// Reads the password and prints its hash.
pub(super) fn run() -> Result<(), Failed> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        ask()?
    } else {
        first_line(stdin.lock())?
    };
    if password.octets().is_empty() {
        return Err(Failed::because("the password is empty"));
    }
    if password.octets().contains(&0) {
        // AUTH PLAIN parts its fields by NUL (RFC 4616 §2): this one could never be sent.
        return Err(Failed::because("a password cannot hold a NUL"));
    }
    let hash = hash::hash(password.octets()).map_err(Failed::because)?;
    print(&format!("{hash}\n"))
}

fn ask() -> Result<Secret, Failed> {
    let unreadable = |error| Failed::because(format!("cannot read the password: {error}"));
    let prompt = |text| {
        let password = rpassword::prompt_password(text).map_err(unreadable)?;
        Ok(Secret::from(password.into_bytes()))
    };
    let password = prompt("Password: ")?;
    if password == prompt("Again: ")? {
        Ok(password)
    } else {
        Err(Failed::because("the two passwords differ"))
    }
}

fn first_line(input: impl BufRead) -> Result<Secret, Failed> {
    // Room for all of it at once, so that growing leaves no copies behind.
    let mut line = Vec::with_capacity(PASSWORD_OCTETS_MAX + 2);
    let limit = u64::try_from(PASSWORD_OCTETS_MAX + 2).unwrap_or(u64::MAX);
    input
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failed::because(format!("cannot read the password: {error}")))?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() > PASSWORD_OCTETS_MAX {
        let text = format!("the password is longer than {PASSWORD_OCTETS_MAX} octets");
        return Err(Failed::because(text));
    }
    Ok(Secret::from(line))
}

/// A line of AUTH holds 12288 octets of base64 (RFC 4954 §4), so 9216 of name and password.
const PASSWORD_OCTETS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a str, &'a [u8], Option<&'a [u8]>);

    #[test]
    fn the_first_line_is_the_password() {
        let long = vec![b'a'; PASSWORD_OCTETS_MAX];
        let mut longer = long.clone();
        longer.push(b'a');
        let rows: &[Row<'_>] = &[
            ("ended by LF", b"secret\n", Some(b"secret")),
            ("ended by CR LF", b"secret\r\n", Some(b"secret")),
            ("not ended", b"secret", Some(b"secret")),
            ("a second line", b"secret\nother\n", Some(b"secret")),
            ("blanks are part of it", b" a b \n", Some(b" a b ")),
            ("not UTF-8", b"\xff\xfe\n", Some(b"\xff\xfe")),
            ("nothing", b"", Some(b"")),
            ("just short enough", &long, Some(&long)),
            ("too long", &longer, None),
        ];
        for (name, input, expected) in rows {
            let password = first_line(*input).ok();
            assert_eq!(password.as_ref().map(Secret::octets), *expected, "{name}");
        }
    }
}
