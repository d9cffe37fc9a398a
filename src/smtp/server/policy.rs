//! Who may say what on which channel, as data.
//!
//! Apart from the session because it is what an operator configures and an auditor reads: a table
//! with one row a verb, and one small policy for each of the two channels.
//! Invariants:
//! - Inside TLS, however it came about, only the TLS policy is asked.
//! - A new verb does not compile without its row.

use super::replies;
use crate::smtp::command::Verb;
use crate::smtp::dsn::{ENVID_OCTETS_MAX, ORCPT_OCTETS_MAX};
use crate::smtp::reply::Reply;

/// Whether a TCP port offers TLS (RFC 3207).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// Not offered.
    Off,
    /// Offered.
    #[default]
    On,
    /// Offered, and nothing is accepted in clear.
    Required,
}

/// Whether AUTH is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthOffer {
    /// It is.
    Yes,
    /// The verb does not exist.
    #[default]
    No,
}

/// Whether mail is taken without AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// It is.
    #[default]
    Yes,
    /// MAIL wants AUTH before it.
    No,
}

/// What holds on one of the two channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// Whether AUTH is offered.
    pub auth: AuthOffer,
    /// Whether mail is taken without it.
    pub anonymous: Anonymous,
}

/// The two channels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelKind {
    Clear,
    Tls,
}

/// What the policy makes of a verb where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VerbPolicy {
    in_clear_under_required: InClear,
    belongs_to: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InClear {
    Allowed,
    Refused,
}

/// Which greeting opens a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// RFC 5321 itself: EHLO and HELO do, where one is needed.
    Base,
    /// An extension: EHLO alone (RFC 5321 §2.2.1).
    Extension,
}

impl VerbPolicy {
    /// The table.
    fn of(verb: Verb) -> VerbPolicy {
        use InClear::{Allowed, Refused};
        use Protocol::{Base, Extension};
        let (in_clear_under_required, belongs_to) = match verb {
            // RFC 3207 §4 lets EHLO, NOOP, QUIT and STARTTLS through. HELO, RSET and HELP say and
            // change nothing either.
            Verb::Ehlo => (Allowed, Base),
            Verb::Helo => (Allowed, Base),
            Verb::Mail => (Refused, Base),
            Verb::Rcpt => (Refused, Base),
            Verb::Data => (Refused, Base),
            Verb::Bdat => (Refused, Extension),
            Verb::Rset => (Allowed, Base),
            Verb::Noop => (Allowed, Base),
            Verb::Quit => (Allowed, Base),
            Verb::Vrfy => (Refused, Base),
            Verb::Expn => (Refused, Base),
            Verb::Help => (Allowed, Base),
            Verb::StartTls => (Allowed, Extension),
            Verb::Auth => (Refused, Extension),
            // Not a command; the opening of a connection is never refused.
            Verb::Greeting => (Allowed, Base),
            Verb::EndOfData => (Refused, Base),
            // RFC 3207 §4: 530 to every other command, known or not.
            Verb::Unknown => (Refused, Base),
        };
        VerbPolicy {
            in_clear_under_required,
            belongs_to,
        }
    }
}

/// The policy of one session's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) channel: ChannelKind,
    pub(super) starttls: StartTls,
    pub(super) tcp: ChannelPolicy,
    pub(super) tls: ChannelPolicy,
}

impl Policy {
    /// What holds on the channel as it is now.
    fn here(&self) -> ChannelPolicy {
        match self.channel {
            ChannelKind::Clear => self.tcp,
            ChannelKind::Tls => self.tls,
        }
    }

    /// Whether the policy lets AUTH be used here. Where nothing but STARTTLS works, it does not.
    pub(super) fn offers_auth(&self) -> bool {
        match (self.channel, self.starttls, self.here().auth) {
            (ChannelKind::Clear, StartTls::Required, AuthOffer::Yes | AuthOffer::No) => false,
            (ChannelKind::Clear, StartTls::Off | StartTls::On, AuthOffer::Yes)
            | (
                ChannelKind::Tls,
                StartTls::Off | StartTls::On | StartTls::Required,
                AuthOffer::Yes,
            ) => true,
            (ChannelKind::Clear, StartTls::Off | StartTls::On, AuthOffer::No)
            | (
                ChannelKind::Tls,
                StartTls::Off | StartTls::On | StartTls::Required,
                AuthOffer::No,
            ) => false,
        }
    }

    /// Whether EHLO lists STARTTLS (RFC 3207 §4.2: never inside TLS).
    pub(super) fn offers_starttls(&self) -> bool {
        match (self.channel, self.starttls) {
            (ChannelKind::Clear, StartTls::On | StartTls::Required) => true,
            (ChannelKind::Clear, StartTls::Off)
            | (ChannelKind::Tls, StartTls::Off | StartTls::On | StartTls::Required) => false,
        }
    }

    /// Whether MAIL wants AUTH before it.
    pub(super) fn wants_auth(&self) -> bool {
        self.here().anonymous == Anonymous::No
    }

    /// Whether `verb` exists on this channel at all. Asked before its argument is looked at: a
    /// verb that is not offered has no syntax to get wrong.
    pub(super) fn admits(&self, verb: Verb) -> Result<(), Reply> {
        let row = VerbPolicy::of(verb);
        if self.channel == ChannelKind::Clear
            && self.starttls == StartTls::Required
            && row.in_clear_under_required == InClear::Refused
        {
            // RFC 3207 §4.
            return Err(replies::TLS_REQUIRED);
        }
        if verb == Verb::Auth && !self.offers_auth() {
            return Err(replies::NOT_IMPLEMENTED);
        }
        if verb == Verb::StartTls && !self.offers_starttls() {
            return Err(match self.channel {
                ChannelKind::Clear => replies::NOT_IMPLEMENTED,
                ChannelKind::Tls => replies::TLS_ACTIVE,
            });
        }
        Ok(())
    }
}

/// Whether `verb` is one that only EHLO opens.
pub(super) fn is_of_extension(verb: Verb) -> bool {
    VerbPolicy::of(verb).belongs_to == Protocol::Extension
}

/// How long a line may be that begins with `head`, its CR LF included.
pub(super) fn command_octets_max(head: &[u8]) -> usize {
    match head.get(..4) {
        Some(word) if word.eq_ignore_ascii_case(b"MAIL") => MAIL_OCTETS_MAX,
        Some(word) if word.eq_ignore_ascii_case(b"RCPT") => RCPT_OCTETS_MAX,
        Some(word) if word.eq_ignore_ascii_case(b"AUTH") => AUTH_OCTETS_MAX,
        Some(_) | None => COMMAND_OCTETS_MAX,
    }
}

/// RFC 5321 §4.5.3.1.4.
pub(super) const COMMAND_OCTETS_MAX: usize = 512;

/// MAIL with its parameters: SIZE (RFC 1870 §3), BODY (RFC 6152 §2 and 3030 §3), SMTPUTF8 (RFC 6531
/// §3.1), AUTH (RFC 4954 §3), RET (RFC 3461 §4.3), ENVID (§4.4; all of it may be in hexchars).
pub(super) const MAIL_OCTETS_MAX: usize = COMMAND_OCTETS_MAX
    + 26
    + 17
    + 10
    + 500
    + " RET=FULL".len()
    + " ENVID=".len()
    + "+20".len() * ENVID_OCTETS_MAX;

/// RCPT with its parameters: NOTIFY (RFC 3461 §4.1), ORCPT (§4.2).
pub(super) const RCPT_OCTETS_MAX: usize =
    COMMAND_OCTETS_MAX + " NOTIFY=SUCCESS,FAILURE,DELAY".len() + " ORCPT=".len() + ORCPT_OCTETS_MAX;

/// AUTH and every line of its exchange: RFC 4954 §4 holds 12288 octets to be enough, and as that is
/// a round number of base64, CR LF comes on top.
pub(super) const AUTH_OCTETS_MAX: usize = 12288 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(channel: ChannelKind, starttls: StartTls) -> Policy {
        let none = ChannelPolicy::default();
        Policy {
            channel,
            starttls,
            tcp: none,
            tls: none,
        }
    }

    #[test]
    fn required_tls_leaves_a_few_verbs_in_clear() {
        let allowed = [
            Verb::Ehlo,
            Verb::Helo,
            Verb::Noop,
            Verb::Quit,
            Verb::Rset,
            Verb::Help,
            Verb::StartTls,
            Verb::Greeting,
        ];
        for verb in Verb::ALL {
            let admitted = policy(ChannelKind::Clear, StartTls::Required).admits(*verb);
            if allowed.contains(verb) {
                assert_eq!(admitted, Ok(()), "{}", verb.label());
            } else {
                assert_eq!(admitted, Err(replies::TLS_REQUIRED), "{}", verb.label());
            }
        }
    }

    #[test]
    fn starttls_by_channel() {
        use ChannelKind::{Clear, Tls};
        let rows = [
            (Clear, StartTls::Off, Err(replies::NOT_IMPLEMENTED)),
            (Clear, StartTls::On, Ok(())),
            (Clear, StartTls::Required, Ok(())),
            (Tls, StartTls::Off, Err(replies::TLS_ACTIVE)),
            (Tls, StartTls::On, Err(replies::TLS_ACTIVE)),
            (Tls, StartTls::Required, Err(replies::TLS_ACTIVE)),
        ];
        for (channel, starttls, wanted) in rows {
            let policy = policy(channel, starttls);
            assert_eq!(
                policy.admits(Verb::StartTls),
                wanted,
                "{channel:?} {starttls:?}"
            );
            assert_eq!(
                policy.offers_starttls(),
                wanted.is_ok(),
                "{channel:?} {starttls:?}"
            );
        }
    }

    #[test]
    fn line_limits_by_verb() {
        let rows: [(&[u8], usize); 8] = [
            (b"", 512),
            (b"MAI", 512),
            (b"mail from:<>", 1381),
            (b"RCPT TO:<>", 1048),
            (b"rcpt", 1048),
            (b"AUTH PLAIN", 12290),
            (b"auth", 12290),
            (b"NOOP", 512),
        ];
        for (head, wanted) in rows {
            assert_eq!(command_octets_max(head), wanted, "{}", head.escape_ascii());
        }
    }
}
