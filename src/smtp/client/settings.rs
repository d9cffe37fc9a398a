//! What a sending session is told: the dialect, its own name, TLS, a login, timeouts.
//!
//! Apart from the session because one value serves all connections to a next hop.

use std::fmt;
use std::time::Duration;

use crate::smtp::sasl::Secret;

/// Everything a session must know besides its connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is spoken.
    pub dialect: Dialect,
    /// The name given in EHLO, HELO or LHLO.
    pub helo: String,
    /// Whether TLS is asked for on a channel that is clear.
    pub starttls: StartTls,
    /// What is proved by AUTH before the first message.
    pub login: Option<Login>,
    /// What is not used although the peer lists it.
    pub ignored: Ignored,
    /// How long the peer may take.
    pub timeouts: Timeouts,
}

/// Extensions that count as not listed: for whoever measures what they are worth, or has a peer whose word
/// is not to be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING, and BINARYMIME with it (RFC 3030).
    pub chunking: bool,
}

/// The protocol spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and a reply for each recipient behind the content.
    Lmtp,
}

/// Whether STARTTLS is sent (RFC 3207).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// Never.
    Off,
    /// Where it is listed. What is refused with a reply goes on in clear.
    #[default]
    Negotiated,
    /// No mail without it.
    Required,
}

/// A name and its password for AUTH. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login")
    }
}

/// How long the peer may take for what it owes. RFC 5321 §4.5.3.2 has the floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting (§4.5.3.2.1).
    pub greeting: Duration,
    /// For the reply to EHLO, HELO, LHLO, STARTTLS, AUTH and RSET, for which the RFC has no time of
    /// their own; and for a handshake.
    pub command: Duration,
    /// For the reply to MAIL (§4.5.3.2.2).
    pub mail: Duration,
    /// For the reply to RCPT (§4.5.3.2.3): each of them.
    pub rcpt: Duration,
    /// For the reply to DATA (§4.5.3.2.4).
    pub data_init: Duration,
    /// For taking a part of the content (§4.5.3.2.5).
    pub data_block: Duration,
    /// For the reply to the content (§4.5.3.2.6). Too short, it makes duplicates.
    pub data_termination: Duration,
    /// For the reply to QUIT. Nothing depends on it, so it is short.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        const MINUTE: Duration = Duration::from_secs(60);
        Timeouts {
            greeting: 5 * MINUTE,
            command: 5 * MINUTE,
            mail: 5 * MINUTE,
            rcpt: 5 * MINUTE,
            data_init: 2 * MINUTE,
            data_block: 3 * MINUTE,
            data_termination: 10 * MINUTE,
            quit: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_not_shown() {
        let login = Login {
            name: String::from("ann"),
            password: Secret::from(b"secret".to_vec()),
        };
        assert_eq!(format!("{login:?}"), "Login");
    }
}
