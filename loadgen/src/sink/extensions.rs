//! What a sink lists in its reply to EHLO.
//!
//! Invariant: what is listed works, and what is not listed is refused when it is used.

/// A service extension, by its EHLO keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 1870. No limit is named, and there is none.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531. Listed with 8BITMIME only (§3.1).
    SmtpUtf8,
    /// RFC 3030 §2.
    Chunking,
    /// RFC 3030 §3. Listed with CHUNKING only.
    BinaryMime,
    /// RFC 3461: its parameters are read. No report is ever due, because nothing is delivered.
    Dsn,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 3207. Listed in clear only.
    StartTls,
    /// RFC 4954, with PLAIN and LOGIN.
    Auth,
}

impl Extension {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Extension; 10] = [
        Extension::Pipelining,
        Extension::Size,
        Extension::EightBitMime,
        Extension::SmtpUtf8,
        Extension::Chunking,
        Extension::BinaryMime,
        Extension::Dsn,
        Extension::EnhancedStatusCodes,
        Extension::StartTls,
        Extension::Auth,
    ];

    /// Its EHLO keyword.
    pub const fn keyword(self) -> &'static str {
        match self {
            Extension::Pipelining => "PIPELINING",
            Extension::Size => "SIZE",
            Extension::EightBitMime => "8BITMIME",
            Extension::SmtpUtf8 => "SMTPUTF8",
            Extension::Chunking => "CHUNKING",
            Extension::BinaryMime => "BINARYMIME",
            Extension::Dsn => "DSN",
            Extension::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Extension::StartTls => "STARTTLS",
            Extension::Auth => "AUTH",
        }
    }

    /// The extension of that keyword, in any case.
    pub fn named(keyword: &str) -> Option<Extension> {
        Extension::ALL
            .into_iter()
            .find(|extension| extension.keyword().eq_ignore_ascii_case(keyword))
    }

    const fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// A set of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(u16);

impl Extensions {
    /// All but `hidden` and what cannot be listed without them.
    pub fn all_but(hidden: &[Extension]) -> Extensions {
        let mut extensions = Extensions(Extension::ALL.iter().fold(0, |all, one| all | one.bit()));
        for extension in hidden {
            extensions.remove(*extension);
        }
        // RFC 6531 §3.1: a server that lists SMTPUTF8 MUST list 8BITMIME.
        if !extensions.has(Extension::EightBitMime) {
            extensions.remove(Extension::SmtpUtf8);
        }
        // RFC 3030 §3: BINARYMIME is of use by BDAT only.
        if !extensions.has(Extension::Chunking) {
            extensions.remove(Extension::BinaryMime);
        }
        extensions
    }

    /// Whether `extension` is one of them.
    pub const fn has(self, extension: Extension) -> bool {
        self.0 & extension.bit() != 0
    }

    /// Takes `extension` out.
    pub const fn remove(&mut self, extension: Extension) {
        self.0 &= !extension.bit();
    }

    /// The reply to EHLO: a line of its own for `name`, then one an extension.
    pub(super) fn reply(self, name: &str) -> Vec<u8> {
        let mut lines = vec![name.to_owned()];
        for extension in Extension::ALL {
            if self.has(extension) {
                let keyword = extension.keyword();
                lines.push(match extension {
                    Extension::Auth => format!("{keyword} PLAIN LOGIN"),
                    Extension::Pipelining
                    | Extension::Size
                    | Extension::EightBitMime
                    | Extension::SmtpUtf8
                    | Extension::Chunking
                    | Extension::BinaryMime
                    | Extension::Dsn
                    | Extension::EnhancedStatusCodes
                    | Extension::StartTls => keyword.to_owned(),
                });
            }
        }
        let last = lines.len() - 1;
        lines
            .iter()
            .enumerate()
            .flat_map(|(at, line)| {
                let mark = if at == last { ' ' } else { '-' };
                format!("250{mark}{line}\r\n").into_bytes()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_listed_nor_what_leans_on_it() {
        let rows: &[(&[Extension], &[&str])] = &[
            (&[], &[]),
            (&[Extension::Size], &["SIZE"]),
            (&[Extension::EightBitMime], &["8BITMIME", "SMTPUTF8"]),
            (&[Extension::Chunking], &["CHUNKING", "BINARYMIME"]),
            (
                &[Extension::Auth, Extension::Dsn],
                &["AUTH PLAIN LOGIN", "DSN"],
            ),
        ];
        let all = String::from_utf8(Extensions::all_but(&[]).reply("x")).unwrap();
        assert_eq!(all.lines().count(), 1 + Extension::ALL.len());
        for (hidden, gone) in rows {
            let reply = String::from_utf8(Extensions::all_but(hidden).reply("x")).unwrap();
            let listed = |reply: &str| -> Vec<String> {
                reply.lines().map(|line| line[4..].to_owned()).collect()
            };
            let mut expected = listed(&all);
            expected.retain(|line| !gone.contains(&line.as_str()));
            assert_eq!(listed(&reply), expected);
            let (others, last) = reply.trim_end().rsplit_once("\r\n").unwrap();
            assert!(last.starts_with("250 "), "{reply}");
            let continued = others.lines().all(|line| line.starts_with("250-"));
            assert!(continued, "{reply}");
        }
        let none = Extensions::all_but(&Extension::ALL).reply("x");
        assert_eq!(none, b"250 x\r\n");
    }
}
