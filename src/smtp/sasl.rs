//! The exchanges of AUTH: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login, never an RFC,
//! kept alive by mail clients), in the SMTP profile of RFC 4954 §4.
//!
//! Apart from the session because an exchange is a small protocol of its own: it takes lines
//! and ends in credentials or in an error. Invariants:
//! - Nothing here is printed: `Debug` of [`Secret`] and [`Credentials`] shows no password.
//! - Every copy of a password made here is overwritten when it is dropped.
//!
//! Not promised: whether the credentials are any good. That is found out elsewhere.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Octets that are overwritten when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The octets themselves.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(octets: Vec<u8>) -> Secret {
        // A shrinking buffer would leave a copy behind; decoded lines are allocated to fit, or
        // within two octets of it, and are copied by hand when they are not.
        if octets.len() == octets.capacity() {
            Secret(octets.into_boxed_slice())
        } else {
            let secret = Secret(Box::from(octets.as_slice()));
            wipe(octets);
            secret
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may leave the writes out.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Overwrites octets nobody needs any more: a line that carried a password.
pub(super) fn wipe(mut octets: Vec<u8>) {
    octets.fill(0);
    std::hint::black_box(&octets);
}

/// A name and the password that is to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The authentication identity. One that would act for another holds a NUL, which no user's name does.
    pub name: String,
    /// Its password.
    pub password: Secret,
}

/// A mechanism EHLO lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Name and password, each on a line.
    Login,
}

impl Mechanism {
    /// The mechanism of that name, in any case (RFC 4422 §3.1 has them in upper case; clients
    /// differ).
    pub fn named(name: &str) -> Option<Mechanism> {
        if name.eq_ignore_ascii_case("PLAIN") {
            Some(Mechanism::Plain)
        } else if name.eq_ignore_ascii_case("LOGIN") {
            Some(Mechanism::Login)
        } else {
            None
        }
    }
}

/// Where an exchange stands: what the next line will be.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    /// PLAIN's one message.
    Plain,
    /// LOGIN's name.
    LoginName,
    /// LOGIN's password, with the name before it.
    LoginPassword(Box<str>),
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Another line is wanted; the text is the challenge, in base64 already.
    Challenge(Exchange, &'static str),
    /// All is said.
    Complete(Credentials),
}

/// Why an exchange came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// `*` (RFC 4954 §4).
    #[error("the client cancelled the exchange")]
    Cancelled,
    /// Not base64, or not the message the mechanism has at this point.
    #[error("the line is not what the mechanism has at this point")]
    Malformed,
}

impl Exchange {
    /// Begins an exchange; `initial` is the response sent along with AUTH, still in base64.
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> Result<Step, ExchangeError> {
        let exchange = match mechanism {
            Mechanism::Plain => Exchange::Plain,
            Mechanism::Login => Exchange::LoginName,
        };
        match initial {
            None => {
                let challenge = exchange.challenge();
                Ok(Step::Challenge(exchange, challenge))
            }
            // RFC 4954 §4: "=" is an initial response of no octets, in AUTH itself only.
            Some(b"=") => exchange.take(Secret::from(Vec::new())),
            Some(response) => exchange.receive_base64(response),
        }
    }

    /// Takes the answer to the last challenge.
    pub fn receive(self, line: &[u8]) -> Result<Step, ExchangeError> {
        // RFC 4954 §4: "*" cancels.
        if line == b"*" {
            return Err(ExchangeError::Cancelled);
        }
        self.receive_base64(line)
    }

    fn receive_base64(self, response: &[u8]) -> Result<Step, ExchangeError> {
        let octets = BASE64
            .decode(response)
            .map_err(|_| ExchangeError::Malformed)?;
        self.take(Secret::from(octets))
    }

    fn take(self, message: Secret) -> Result<Step, ExchangeError> {
        match self {
            Exchange::Plain => plain(message.octets()).map(Step::Complete),
            Exchange::LoginName => {
                let next = Exchange::LoginPassword(Box::from(identity(message.octets())?));
                let challenge = next.challenge();
                Ok(Step::Challenge(next, challenge))
            }
            Exchange::LoginPassword(name) => Ok(Step::Complete(Credentials {
                name: String::from(name),
                password: message,
            })),
        }
    }

    /// What 334 carries before the next line.
    fn challenge(&self) -> &'static str {
        match self {
            Exchange::Plain => "",
            Exchange::LoginName => "VXNlcm5hbWU6", // "Username:"
            Exchange::LoginPassword(_) => "UGFzc3dvcmQ6", // "Password:"
        }
    }
}

/// `message = [authzid] UTF8NUL authcid UTF8NUL passwd` (RFC 4616 §2)
fn plain(message: &[u8]) -> Result<Credentials, ExchangeError> {
    let mut parts = message.split(|octet| *octet == 0);
    let (Some(authorization), Some(name), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ExchangeError::Malformed);
    };
    let name = identity(name)?;
    let name = if authorization.is_empty() || authorization == name.as_bytes() {
        String::from(name)
    } else {
        // Acting for another is granted to nobody. It is a name that nobody can have, so that it is refused
        // as late as any other, and counts like one.
        format!("{}\0{name}", String::from_utf8_lossy(authorization))
    };
    Ok(Credentials {
        name,
        password: Secret::from(password.to_vec()),
    })
}

/// `authcid = 1*SAFE` (RFC 4616 §2): UTF-8, at least one character, no NUL.
fn identity(octets: &[u8]) -> Result<&str, ExchangeError> {
    match std::str::from_utf8(octets) {
        Ok(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
        Ok(_) | Err(_) => Err(ExchangeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(octets: &[u8]) -> String {
        BASE64.encode(octets)
    }

    fn complete(name: &str, password: &[u8]) -> Result<Step, ExchangeError> {
        Ok(Step::Complete(Credentials {
            name: String::from(name),
            password: Secret::from(password.to_vec()),
        }))
    }

    #[test]
    fn plain_messages() {
        type Row = (&'static str, &'static [u8], Result<Step, ExchangeError>);
        let rows: [Row; 11] = [
            (
                "without identity",
                b"\0tim\0tanstaaf",
                complete("tim", b"tanstaaf"),
            ),
            (
                "with the same identity",
                b"tim\0tim\0tanstaaf",
                complete("tim", b"tanstaaf"),
            ),
            ("an empty password", b"\0tim\0", complete("tim", b"")),
            (
                "any octets as password",
                b"\0tim\0\xff\x01",
                complete("tim", b"\xff\x01"),
            ),
            (
                "UTF-8",
                "\0tïm\0pä".as_bytes(),
                complete("tïm", "pä".as_bytes()),
            ),
            (
                "another identity",
                b"root\0tim\0x",
                complete("root\0tim", b"x"),
            ),
            ("no name", b"\0\0x", Err(ExchangeError::Malformed)),
            (
                "a name that is not UTF-8",
                b"\0\xff\0x",
                Err(ExchangeError::Malformed),
            ),
            ("one NUL", b"tim\0x", Err(ExchangeError::Malformed)),
            ("three NULs", b"\0tim\0x\0y", Err(ExchangeError::Malformed)),
            ("nothing", b"", Err(ExchangeError::Malformed)),
        ];
        for (name, message, wanted) in rows {
            let line = encoded(message);
            assert_eq!(Exchange::Plain.receive(line.as_bytes()), wanted, "{name}");
            let initial = if line.is_empty() { "=" } else { line.as_str() };
            let started = Exchange::start(Mechanism::Plain, Some(initial.as_bytes()));
            assert_eq!(started, wanted, "{name}, initial");
        }
    }

    #[test]
    fn login_exchange() {
        let Ok(Step::Challenge(exchange, "VXNlcm5hbWU6")) = Exchange::start(Mechanism::Login, None)
        else {
            panic!("the name is asked for");
        };
        let Ok(Step::Challenge(exchange, "UGFzc3dvcmQ6")) = exchange.receive(b"dGlt") else {
            panic!("the password is asked for");
        };
        assert_eq!(
            exchange.receive(b"dGFuc3RhYWY="),
            complete("tim", b"tanstaaf")
        );
        let started = Exchange::start(Mechanism::Login, Some(b"dGlt"));
        let name = Exchange::LoginPassword("tim".into());
        assert_eq!(started, Ok(Step::Challenge(name, "UGFzc3dvcmQ6")));
    }

    #[test]
    fn lines_that_end_an_exchange() {
        let rows: [(&str, &[u8], ExchangeError); 7] = [
            ("cancelled", b"*", ExchangeError::Cancelled),
            ("not base64", b"!!!!", ExchangeError::Malformed),
            ("padding missing", b"dGltbQ", ExchangeError::Malformed),
            (
                "padding in the middle",
                b"dG==dGlt",
                ExchangeError::Malformed,
            ),
            ("a space", b"dGlt ", ExchangeError::Malformed),
            (
                "an equals sign behind a challenge",
                b"=",
                ExchangeError::Malformed,
            ),
            ("an empty name", b"", ExchangeError::Malformed),
        ];
        for (name, line, wanted) in rows {
            assert_eq!(Exchange::LoginName.receive(line), Err(wanted), "{name}");
        }
        // The "*" of AUTH itself is a bad response, not a cancellation.
        let started = Exchange::start(Mechanism::Plain, Some(b"*"));
        assert_eq!(started, Err(ExchangeError::Malformed));
    }

    #[test]
    fn secrets_are_not_printed() {
        let Ok(step) = Exchange::Plain.receive(encoded(b"\0tim\0tanstaaf").as_bytes()) else {
            panic!("good credentials");
        };
        assert!(!format!("{step:?}").contains("tanstaaf"));
    }
}
