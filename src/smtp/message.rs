//! A message ready to be committed, and where it came from.
//!
//! The session makes it, delivery and the trace header read it. Nothing here changes afterwards.

use std::net::SocketAddr;
use std::sync::Arc;

use super::data::MailData;
use super::envelope::Envelope;

/// One message whose end was read and that no rule refused.
#[derive(Debug)]
pub struct Message {
    /// Who sent it to whom. Shared with the session, which reports it when the commit is done.
    pub envelope: Arc<Envelope>,
    /// How many of its octets were put away as they came in, all before `data`.
    pub stored_octets: u64,
    /// Its octets behind those, mostly all of them; without dot stuffing, without our trace header.
    /// The checksum of `data` is that of the whole message, what was put away included.
    pub data: MailData,
    /// The session that brought it.
    pub origin: Origin,
}

impl Message {
    /// How many octets it has, put away and in memory.
    pub fn octets(&self) -> u64 {
        self.stored_octets.saturating_add(self.data.len())
    }
}

/// What the trace header tells about the session that brought a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The peer's address.
    pub peer: SocketAddr,
    /// What the peer called itself in EHLO or HELO. Shared with the session, as is what follows.
    pub greeted_as: Arc<str>,
    /// The `with` of the trace header.
    pub protocol: Protocol,
    /// The TLS layer, if the channel has one.
    pub security: Option<Arc<Security>>,
    /// The name AUTH proved, if any.
    pub authenticated: Option<Arc<str>>,
}

/// What is known about a channel's TLS layer: by default nothing, as on a TLS port before the end of
/// the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite.
    pub cipher: Box<str>,
    /// Strength of the cipher's key.
    pub bits: u32,
    /// Whether a ticket saved the full handshake.
    pub resumed: bool,
    /// Subject of the peer's certificate, if it showed one.
    pub client_subject: Option<Box<str>>,
}

/// How a message came in, as the `with` clause names it (RFC 3848 §1, RFC 6531 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// After HELO. There is no form of it for TLS or AUTH.
    Smtp,
    /// After EHLO.
    Esmtp,
    /// After EHLO, inside TLS.
    Esmtps,
    /// After EHLO and AUTH.
    Esmtpa,
    /// After EHLO and AUTH, inside TLS.
    Esmtpsa,
    /// With SMTPUTF8.
    Utf8Smtp,
    /// With SMTPUTF8, inside TLS.
    Utf8Smtps,
    /// With SMTPUTF8, after AUTH.
    Utf8Smtpa,
    /// With SMTPUTF8, after AUTH, inside TLS.
    Utf8Smtpsa,
}

/// Which greeting and which MAIL a transaction began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO, and MAIL with SMTPUTF8.
    Utf8Smtp,
}

impl Protocol {
    /// The protocol of a transaction in `dialect` over a channel with this TLS and this AUTH.
    pub fn of(dialect: Dialect, security: Option<&Security>, authenticated: Option<&str>) -> Self {
        match (dialect, security.is_some(), authenticated.is_some()) {
            (Dialect::Smtp, _, _) => Protocol::Smtp,
            (Dialect::Esmtp, false, false) => Protocol::Esmtp,
            (Dialect::Esmtp, true, false) => Protocol::Esmtps,
            (Dialect::Esmtp, false, true) => Protocol::Esmtpa,
            (Dialect::Esmtp, true, true) => Protocol::Esmtpsa,
            (Dialect::Utf8Smtp, false, false) => Protocol::Utf8Smtp,
            (Dialect::Utf8Smtp, true, false) => Protocol::Utf8Smtps,
            (Dialect::Utf8Smtp, false, true) => Protocol::Utf8Smtpa,
            (Dialect::Utf8Smtp, true, true) => Protocol::Utf8Smtpsa,
        }
    }

    /// The registered name.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Smtp => "SMTP",
            Protocol::Esmtp => "ESMTP",
            Protocol::Esmtps => "ESMTPS",
            Protocol::Esmtpa => "ESMTPA",
            Protocol::Esmtpsa => "ESMTPSA",
            Protocol::Utf8Smtp => "UTF8SMTP",
            Protocol::Utf8Smtps => "UTF8SMTPS",
            Protocol::Utf8Smtpa => "UTF8SMTPA",
            Protocol::Utf8Smtpsa => "UTF8SMTPSA",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_dialect_channel_and_auth() {
        let tls = Security {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            bits: 256,
            resumed: false,
            client_subject: None,
        };
        let (clear, tls, anonymous, known) = (None, Some(&tls), None, Some("ann"));
        let rows: &[(&str, Dialect, Option<&Security>, Option<&str>)] = &[
            ("SMTP", Dialect::Smtp, clear, anonymous),
            ("SMTP", Dialect::Smtp, tls, anonymous),
            ("ESMTP", Dialect::Esmtp, clear, anonymous),
            ("ESMTPS", Dialect::Esmtp, tls, anonymous),
            ("ESMTPA", Dialect::Esmtp, clear, known),
            ("ESMTPSA", Dialect::Esmtp, tls, known),
            ("UTF8SMTP", Dialect::Utf8Smtp, clear, anonymous),
            ("UTF8SMTPS", Dialect::Utf8Smtp, tls, anonymous),
            ("UTF8SMTPA", Dialect::Utf8Smtp, clear, known),
            ("UTF8SMTPSA", Dialect::Utf8Smtp, tls, known),
        ];
        for (label, dialect, security, authenticated) in rows {
            assert_eq!(
                Protocol::of(*dialect, *security, *authenticated).label(),
                *label
            );
        }
    }
}
