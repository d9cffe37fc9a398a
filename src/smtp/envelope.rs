//! What a transaction says about its mail, outside the mail (RFC 5321 §2.3.1).

use super::command::Mail;
use super::dsn::{MailDsn, RcptDsn};
use super::path::{ForwardPath, ReversePath};

/// Reverse-path and recipients of one transaction, with what MAIL declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where a bounce goes, as written; `None` is the null reverse-path `<>`.
    pub reverse_path: Option<Box<str>>,
    /// The accepted forward-paths, in the order given.
    pub recipients: Vec<Recipient>,
    /// What the mail data may hold.
    pub body: Body,
    /// Whether addresses and header fields may hold UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// SIZE as declared; a hint, never trusted.
    pub declared_octets: Option<u64>,
    /// What the sender wants to be told.
    pub dsn: MailDsn,
}

impl Envelope {
    /// The envelope an accepted MAIL opens, still without a recipient.
    pub fn new(mail: &Mail<'_>) -> Envelope {
        Envelope {
            reverse_path: match &mail.reverse_path {
                ReversePath::Null => None,
                ReversePath::Mailbox(mailbox) => Some(mailbox.as_given().into()),
            },
            recipients: Vec::new(),
            body: mail.parameters.body.unwrap_or_default(),
            smtputf8: mail.parameters.smtputf8,
            declared_octets: mail.parameters.declared_octets,
            dsn: mail.parameters.dsn(),
        }
    }
}

/// One accepted forward-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox as written, without brackets and source route; `postmaster` for the bare one.
    pub as_given: Box<str>,
    /// The local part without quotes, for comparison and delivery. Its case is the peer's.
    pub local_part: Box<str>,
    /// The domain in lower-case A-labels, or the address literal in its brackets, lower-case and
    /// the address in its shortest form. For the bare postmaster the first local domain.
    pub domain: Box<str>,
    /// What the sender wants to be told about this recipient.
    pub dsn: RcptDsn,
}

impl Recipient {
    /// The recipient that `forward_path` names, of whom nothing is said about reports;
    /// `postmaster_domain` is where the bare postmaster lives (RFC 5321 §2.3.5: this host's own).
    pub fn new(forward_path: &ForwardPath<'_>, postmaster_domain: &str) -> Recipient {
        match forward_path {
            ForwardPath::Postmaster => Recipient {
                as_given: "postmaster".into(),
                local_part: "postmaster".into(),
                domain: postmaster_domain.into(),
                dsn: RcptDsn::default(),
            },
            ForwardPath::Mailbox(mailbox) => Recipient {
                as_given: mailbox.as_given().into(),
                local_part: mailbox.local_part().unquoted().into(),
                domain: mailbox.domain().comparable().into(),
                dsn: RcptDsn::default(),
            },
        }
    }
}

/// BODY of a MAIL command: what the mail data may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// ASCII in lines; what MAIL means without BODY.
    #[default]
    SevenBit,
    /// Any octet in lines (RFC 6152).
    EightBitMime,
    /// Any octet, no lines; by BDAT only (RFC 3030 §3).
    BinaryMime,
}

#[cfg(test)]
mod tests {
    use super::super::command::{self, Addresses, Command};
    use super::super::dsn::Ret;
    use super::*;

    #[test]
    fn recipients_are_kept_as_given_and_for_comparison() {
        // name, RCPT line, as given, local part, domain
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, [&str; 3])] = &[
            ("plain", "RCPT TO:<a@b>", ["a@b", "a", "b"]),
            ("case of the domain", "RCPT TO:<Ab@C.ORG>", ["Ab@C.ORG", "Ab", "c.org"]),
            ("bare postmaster", "RCPT TO:<POSTMASTER>", ["postmaster", "postmaster", "first.test"]),
            ("quoted", "RCPT TO:<\"a\\ b\"@c>", ["\"a\\ b\"@c", "a b", "c"]),
            ("a source route", "RCPT TO:<@x.org:a@b>", ["a@b", "a", "b"]),
            ("a U-label", "RCPT TO:<a@BÜ.de>", ["a@BÜ.de", "a", "xn--b-eha.de"]),
            ("a literal", "RCPT TO:<a@[IPV6:0::1]>", ["a@[IPV6:0::1]", "a", "[ipv6:::1]"]),
        ];
        for (name, line, expected) in rows {
            let Ok(Command::Rcpt(rcpt)) = command::parse(line.as_bytes(), Addresses::Utf8) else {
                panic!("{name}")
            };
            let recipient = Recipient::new(&rcpt.forward_path, "first.test");
            let found = [
                &*recipient.as_given,
                &*recipient.local_part,
                &*recipient.domain,
            ];
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn mail_opens_an_envelope_without_recipients() {
        let line = b"MAIL FROM:<a@b> SIZE=7 BODY=BINARYMIME RET=FULL ENVID=a+20b";
        let Ok(Command::Mail(mail)) = command::parse(line, Addresses::Ascii) else {
            panic!()
        };
        let expected = Envelope {
            reverse_path: Some("a@b".into()),
            recipients: Vec::new(),
            body: Body::BinaryMime,
            smtputf8: false,
            declared_octets: Some(7),
            dsn: MailDsn {
                ret: Some(Ret::Full),
                envid: Some("a+20b".into()),
            },
        };
        assert_eq!(Envelope::new(&mail), expected);
    }
}
