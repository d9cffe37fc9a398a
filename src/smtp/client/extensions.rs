//! What the reply to EHLO lists (RFC 5321 §4.1.1.1), as far as anybody here asks.
//!
//! Invariants:
//! - Keywords count in any case. What is unknown, or known with a bad value, is as if not listed:
//!   the peer may offer more than we know (RFC 5321 §2.2.1).
//! - Nothing of the text is kept, so the list costs the same however long it is.

use super::settings::Ignored;
use crate::smtp::parameters::decimal;

/// What a peer offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message it takes; 0 is no limit that it tells.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030). Means nothing without CHUNKING.
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// AUTH (RFC 4954).
    pub auth: AuthMechanisms,
    /// LIMITS (RFC 9422).
    pub limits: Limits,
}

/// Mechanisms of AUTH that are known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthMechanisms {
    /// PLAIN (RFC 4616).
    pub plain: bool,
    /// LOGIN.
    pub login: bool,
}

/// What a peer says it will not go beyond (RFC 9422 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: transactions in a session.
    pub mail_max: Option<usize>,
    /// RCPTMAX: recipients in a transaction.
    pub rcpt_max: Option<usize>,
    /// RCPTDOMAINMAX: different domains among them.
    pub rcpt_domain_max: Option<usize>,
}

impl Extensions {
    /// The same, as if those were not listed.
    pub(super) fn without(self, ignored: Ignored) -> Extensions {
        Extensions {
            pipelining: self.pipelining && !ignored.pipelining,
            chunking: self.chunking && !ignored.chunking,
            binary_mime: self.binary_mime && !ignored.chunking,
            ..self
        }
    }

    /// Takes a line of the reply to EHLO, but not the first, which names the peer.
    ///
    /// ```text
    /// ehlo-line    = ehlo-keyword *( SP ehlo-param )
    /// ```
    pub(super) fn list(&mut self, line: &[u8]) {
        let Ok(line) = str::from_utf8(line) else {
            return;
        };
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else {
            return;
        };
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        if is("PIPELINING") {
            self.pipelining = true;
        } else if is("SIZE") {
            self.size = words
                .next()
                .map_or(Some(0), |octets| decimal(octets.as_bytes()));
        } else if is("8BITMIME") {
            self.eight_bit_mime = true;
        } else if is("SMTPUTF8") {
            self.smtputf8 = true;
        } else if is("CHUNKING") {
            self.chunking = true;
        } else if is("BINARYMIME") {
            self.binary_mime = true;
        } else if is("DSN") {
            self.dsn = true;
        } else if is("STARTTLS") {
            self.starttls = true;
        } else if is("ENHANCEDSTATUSCODES") {
            self.enhanced_status_codes = true;
        } else if is("AUTH") {
            words.for_each(|mechanism| self.auth.list(mechanism));
        } else if is("LIMITS") {
            words.for_each(|limit| self.limits.list(limit));
        } else if let Some((name, first)) = keyword.split_once('=')
            && name.eq_ignore_ascii_case("AUTH")
        {
            // As servers wrote it before RFC 2554, some to this day.
            self.auth.list(first);
            words.for_each(|mechanism| self.auth.list(mechanism));
        }
    }
}

impl AuthMechanisms {
    fn list(&mut self, mechanism: &str) {
        self.plain |= mechanism.eq_ignore_ascii_case("PLAIN");
        self.login |= mechanism.eq_ignore_ascii_case("LOGIN");
    }
}

impl Limits {
    /// ```text
    /// limit       = limit-name "=" limit-value
    /// limit-value = %x31-39 *DIGIT           ; of the three known ones: 1*6DIGIT, not 0
    /// ```
    fn list(&mut self, limit: &str) {
        let Some((name, value)) = limit.split_once('=') else {
            return;
        };
        let value = decimal(value.as_bytes()).filter(|value| *value > 0);
        let Some(value) = value.and_then(|value| usize::try_from(value).ok()) else {
            return;
        };
        if name.eq_ignore_ascii_case("MAILMAX") {
            self.mail_max = Some(value);
        } else if name.eq_ignore_ascii_case("RCPTMAX") {
            self.rcpt_max = Some(value);
        } else if name.eq_ignore_ascii_case("RCPTDOMAINMAX") {
            self.rcpt_domain_max = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ehlo() {
        type Change = fn(&mut Extensions);
        let of = |change: Change| {
            let mut extensions = Extensions::default();
            change(&mut extensions);
            extensions
        };
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, Change)] = &[
            ("nothing", "", |_| {}),
            ("spaces", "  ", |_| {}),
            ("unknown", "XCLIENT NAME ADDR", |_| {}),
            ("a known one's beginning", "PIPE", |_| {}),
            ("beyond ASCII", "DSÑ", |_| {}),
            ("PIPELINING", "PIPELINING", |e| e.pipelining = true),
            ("any case", "pipeLining", |e| e.pipelining = true),
            ("with what it has not", "PIPELINING yes", |e| e.pipelining = true),
            ("SIZE", "SIZE 9000", |e| e.size = Some(9000)),
            ("SIZE 0", "SIZE 0", |e| e.size = Some(0)),
            ("SIZE alone", "SIZE", |e| e.size = Some(0)),
            ("SIZE beyond 64 bits", "SIZE 99999999999999999999", |e| e.size = Some(u64::MAX)),
            ("SIZE of no number", "SIZE big", |_| {}),
            ("8BITMIME", "8BITMIME", |e| e.eight_bit_mime = true),
            ("SMTPUTF8", "SMTPUTF8", |e| e.smtputf8 = true),
            ("CHUNKING", "CHUNKING", |e| e.chunking = true),
            ("BINARYMIME", "BINARYMIME", |e| e.binary_mime = true),
            ("DSN", "DSN", |e| e.dsn = true),
            ("STARTTLS", "STARTTLS", |e| e.starttls = true),
            ("ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES", |e| e.enhanced_status_codes = true),
            ("AUTH", "AUTH CRAM-MD5 PLAIN", |e| e.auth.plain = true),
            ("AUTH of both", "AUTH login plain", |e| e.auth = AuthMechanisms { plain: true, login: true }),
            ("AUTH of nothing", "AUTH", |_| {}),
            ("AUTH with an equals sign", "AUTH=LOGIN PLAIN", |e| e.auth = AuthMechanisms { plain: true, login: true }),
            ("another with an equals sign", "XAUTH=LOGIN PLAIN", |_| {}),
            ("LIMITS", "LIMITS MAILMAX=10 rcptmax=20 RCPTDOMAINMAX=1 X=7", |e| {
                e.limits = Limits { mail_max: Some(10), rcpt_max: Some(20), rcpt_domain_max: Some(1) };
            }),
            ("LIMITS of 0", "LIMITS RCPTMAX=0", |_| {}),
            ("LIMITS of no number", "LIMITS RCPTMAX=a MAILMAX", |_| {}),
        ];
        for (name, line, change) in rows {
            let mut extensions = Extensions::default();
            extensions.list(line.as_bytes());
            assert_eq!(extensions, of(*change), "{name}");
        }
        let mut extensions = Extensions::default();
        extensions.list(b"DSN \xff");
        assert_eq!(extensions, Extensions::default(), "not UTF-8");
    }
}
