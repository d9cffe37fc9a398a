//! What an attempt came to for one recipient, with all that a log, an operator and a report want to know.

use std::fmt;

use crate::smtp::status::{Class, Status};

/// What an attempt came to for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is where it was to go.
    Delivered(Arrival),
    /// Not now: another attempt may succeed.
    Deferred(Failure),
    /// Never.
    Failed(Failure),
}

impl Verdict {
    /// Whether the next hop said so.
    pub(super) fn is_said(&self) -> bool {
        match self {
            Verdict::Delivered(_) => true,
            Verdict::Deferred(failure) | Verdict::Failed(failure) => failure.said == Said::ByHop,
        }
    }
}

/// Where a delivered message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// In its mailbox, or thrown away as told: a last delivery (RFC 3464 §2.3.3, "delivered").
    Final,
    /// At a next hop that reports itself what the sender wants to know.
    Passed {
        /// The next hop.
        hop: Box<str>,
    },
    /// At a next hop that knows no reports (RFC 3464 §2.3.3, "relayed").
    Relayed {
        /// The next hop.
        hop: Box<str>,
    },
}

/// Why a recipient was not delivered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a report says: of the class that the verdict is, but for 4.4.7, which is said of what has expired
    /// (RFC 3463 §3.5).
    pub status: Status,
    /// What went wrong in our words, or the reply of the next hop; one line.
    pub text: Box<str>,
    /// Whose words they are.
    pub said: Said,
    /// The next hop, if it came to one.
    pub hop: Option<Box<str>>,
}

/// Whose words explain a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The next hop's reply, with its code.
    ByHop,
    /// Ours.
    ByUs,
}

impl Failure {
    /// A failure in our words.
    pub fn ours(status: Status, text: impl Into<Box<str>>) -> Failure {
        Failure {
            status,
            text: text.into(),
            said: Said::ByUs,
            hop: None,
        }
    }

    /// The same, of a next hop that it came to.
    pub fn at(self, hop: &str) -> Failure {
        Failure {
            hop: Some(hop.into()),
            ..self
        }
    }

    /// As a reply to whoever waits for the verdict: the next hop's own, or one of ours. Its code, and its text with
    /// the enhanced code.
    pub fn as_reply(&self) -> (u16, String) {
        let said = match self.said {
            Said::ByHop => self.text.split_once(' '),
            Said::ByUs => None,
        };
        let said = said.and_then(|(code, text)| Some((code.parse().ok()?, text)));
        match said {
            // Others would tell the sender what to do with the next hop: to log in there, for one.
            Some((code @ 550..=554, text)) => (code, self.fit(text)),
            // RFC 5321 §4.2.3: transaction failed.
            Some(_) | None => {
                let text = said.map_or(&*self.text, |(_, text)| text);
                (554, self.fit(text))
            }
        }
    }

    /// A text as our reply line can hold it: with an enhanced code, in ASCII, and not too long.
    fn fit(&self, text: &str) -> String {
        let status = Status::permanent(self.status.subject, self.status.detail);
        let first = text.split(' ').next().and_then(Status::parse);
        let text = match first {
            Some(known) if known.class == Class::Permanent => text.to_owned(),
            Some(_) | None => format!("{status} {text}"),
        };
        let ascii = text.chars().map(|letter| match letter {
            ' '..='~' => letter,
            _ => '?',
        });
        ascii.take(REPLY_TEXT_OCTETS_MAX).collect()
    }

    /// The verdict that its class makes it.
    pub fn verdict(self) -> Verdict {
        match self.status.class {
            Class::Permanent => Verdict::Failed(self),
            Class::Temporary | Class::Success => Verdict::Deferred(self),
        }
    }
}

/// As an operator reads it.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match (&self.hop, self.said) {
            (Some(hop), Said::ByHop) => write!(formatter, "{hop} said: {text}"),
            (Some(hop), Said::ByUs) => write!(formatter, "{hop}: {text}"),
            (None, Said::ByHop | Said::ByUs) => formatter.write_str(text),
        }
    }
}

/// RFC 5321 §4.5.3.1.5 has reply lines of 512 octets; the code and CR LF are part of that.
const REPLY_TEXT_OCTETS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_reply_of_ours() {
        let by_hop = |text: &str| Failure {
            said: Said::ByHop,
            ..Failure::ours(Status::permanent(1, 1), text)
        };
        let long = format!("550 5.7.1 {}", "x".repeat(600));
        let rows = [
            (by_hop("550 5.1.1 nobody here"), 550, "5.1.1 nobody here"),
            (by_hop("553 nobody"), 553, "5.1.1 nobody"),
            (by_hop("530 5.7.0 log in"), 554, "5.7.0 log in"),
            (
                by_hop("550 5.1.1 nicht gefunden: ü"),
                550,
                "5.1.1 nicht gefunden: ?",
            ),
            (
                Failure::ours(Status::permanent(3, 4), "too large"),
                554,
                "5.3.4 too large",
            ),
            (
                Failure::ours(Status::temporary(4, 7), "expired"),
                554,
                "5.4.7 expired",
            ),
        ];
        for (failure, code, text) in rows {
            assert_eq!(failure.as_reply(), (code, text.to_owned()), "{failure:?}");
        }
        assert_eq!(by_hop(&long).as_reply().1.len(), REPLY_TEXT_OCTETS_MAX);
    }
}
