//! Decides on which terms a peer gets a message, or that it cannot, before a word of it leaves.
//!
//! Apart from the transaction because it is a table of what we have against what the peer offers,
//! and nothing of a dialogue. Invariants:
//! - No parameter is sent that the peer did not offer (RFC 5321 §2.2.1).
//! - The message is never rewritten. What a peer without an extension can take as it is goes there
//!   without the parameter; what it cannot take is refused here, not there.
//! - What is written into a command holds no control character, whoever made the transaction.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::extensions::Extensions;
use super::facts::ContentFacts;
use super::outcome::{Cause, Failure, RecipientOutcome, Refusal};
use super::settings::Dialect;
use crate::smtp::command::Addresses;
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::envelope::Body;
use crate::smtp::path;
use crate::smtp::status::Status;

/// Content up to this size leaves together with the commands, where the peer takes chunks and
/// pipelining: a message costs one round trip then. Should the peer refuse the message, so much was
/// sent in vain; larger content waits for the replies to RCPT.
pub const CONTENT_IN_FLIGHT_OCTETS_MAX: u64 = 64 * 1024;

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path without brackets; `None` is `<>`.
    pub reverse_path: Option<Box<str>>,
    /// Whom it goes to.
    pub recipients: Vec<TransactionRecipient>,
    /// Octets of the content, our trace header included.
    pub octets: u64,
    /// What MAIL declared of it.
    pub body: Body,
    /// Whether SMTPUTF8 was declared.
    pub smtputf8: bool,
    /// What the sender wants to be told.
    pub dsn: MailDsn,
    /// What the content is like, if somebody looked; asked for by
    /// [`Session::wants_facts`](super::Session::wants_facts). Unknown, the worst is assumed.
    pub facts: Option<ContentFacts>,
}

/// One recipient of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRecipient {
    /// The forward-path without brackets.
    pub path: Box<str>,
    /// What the sender wants to be told about it.
    pub dsn: RcptDsn,
}

/// How a message goes.
#[derive(Debug)]
pub(super) struct Terms {
    /// The MAIL command.
    pub(super) mail: String,
    /// For each recipient its RCPT command, or why there is none.
    pub(super) recipients: Vec<Result<String, RecipientOutcome>>,
    /// How the content travels.
    pub(super) way: Way,
    /// Whether commands leave without waiting for each other's replies.
    pub(super) pipelining: bool,
    /// Whether the peer knows DSN.
    pub(super) dsn: bool,
}

/// How the content travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// DATA.
    Data,
    /// BDAT together with the commands in front of it.
    ChunkInFlight,
    /// BDAT when the replies to them are there.
    ChunkAfterReplies,
}

/// Whether the message needs something that the peer does not offer, so that it can only go there
/// if its content is known to do without.
pub(super) fn wants_facts(transaction: &Transaction, extensions: &Extensions) -> bool {
    let body_fits = match transaction.body {
        Body::SevenBit => true,
        Body::EightBitMime => extensions.eight_bit_mime,
        Body::BinaryMime => takes_binary(extensions),
    };
    !body_fits || (!extensions.smtputf8 && needs_smtputf8(transaction))
}

/// Whether SMTPUTF8 was declared, or should have been.
fn needs_smtputf8(transaction: &Transaction) -> bool {
    let recipients = transaction.recipients.iter().map(|to| &to.path);
    let mut addresses = recipients.chain(&transaction.reverse_path);
    transaction.smtputf8 || addresses.any(|address| !address.is_ascii())
}

impl Terms {
    pub(super) fn new(
        transaction: &Transaction,
        extensions: &Extensions,
        dialect: Dialect,
    ) -> Result<Terms, Refusal> {
        if let Some(octets_max) = extensions.size.filter(|octets_max| *octets_max > 0)
            && transaction.octets > octets_max
        {
            let octets = transaction.octets;
            return Err(Refusal {
                status: Status::permanent(3, 4),
                text: format!(
                    "the message has {octets} octets, and the next hop takes {octets_max} at most"
                )
                .into(),
            });
        }
        let body = body(transaction, extensions)?;
        let utf8 = utf8(transaction, extensions)?;
        let reverse_path = transaction.reverse_path.as_deref().unwrap_or_default();
        let reverse_path = utf8.path(reverse_path).ok_or_else(|| Refusal {
            status: Status::permanent(1, 7),
            text: "the reverse-path cannot be written in a command".into(),
        })?;
        let mut mail = format!("MAIL FROM:<{reverse_path}>");
        if extensions.size.is_some() {
            // Writing to a string cannot fail.
            let _ = write!(mail, " SIZE={}", transaction.octets);
        }
        mail.push_str(match body {
            Body::SevenBit => "",
            Body::EightBitMime => " BODY=8BITMIME",
            Body::BinaryMime => " BODY=BINARYMIME",
        });
        if utf8 == Utf8::Offered {
            mail.push_str(" SMTPUTF8");
        }
        if extensions.dsn {
            mail.push_str(&in_command(transaction.dsn.parameters()));
        }
        mail.push_str("\r\n");
        let recipients = transaction.recipients.iter();
        let recipients = recipients.map(|recipient| rcpt(recipient, utf8, extensions.dsn));
        Ok(Terms {
            mail,
            recipients: recipients.collect(),
            way: way(body, transaction.octets, extensions, dialect),
            pipelining: extensions.pipelining,
            dsn: extensions.dsn,
        })
    }
}

/// Chunks where there is a choice: they cost no round trip more than DATA, nothing in them is
/// looked at or changed, and no octet of a message is ever part of the dialogue.
///
/// Not under LMTP, but for binary content: there the content is answered once for each accepted
/// recipient (RFC 2033 §4.2), and whether a chunk in flight for nobody is answered once or not at all
/// is not certain enough to keep step. Its paths are short, so little is lost.
fn way(body: Body, octets: u64, extensions: &Extensions, dialect: Dialect) -> Way {
    let is_small = octets <= CONTENT_IN_FLIGHT_OCTETS_MAX;
    match (dialect, body) {
        (Dialect::Lmtp, Body::BinaryMime) => Way::ChunkAfterReplies,
        (Dialect::Lmtp, Body::SevenBit | Body::EightBitMime) => Way::Data,
        (Dialect::Smtp, _) if !extensions.chunking => Way::Data,
        (Dialect::Smtp, _) if extensions.pipelining && is_small => Way::ChunkInFlight,
        (Dialect::Smtp, _) => Way::ChunkAfterReplies,
    }
}

fn takes_binary(extensions: &Extensions) -> bool {
    extensions.binary_mime && extensions.chunking
}

/// What BODY says to this peer; 7BIT is not said.
fn body(transaction: &Transaction, extensions: &Extensions) -> Result<Body, Refusal> {
    let facts = transaction.facts;
    let refusal = |text: &str| Refusal {
        // Conversion required but not supported: we never rewrite a message.
        status: Status::permanent(6, 3),
        text: text.into(),
    };
    match transaction.body {
        Body::SevenBit => return Ok(Body::SevenBit),
        Body::BinaryMime if takes_binary(extensions) => return Ok(Body::BinaryMime),
        Body::BinaryMime if !facts.is_some_and(|facts| facts.fits_data) => {
            return Err(refusal(
                "the message is binary, which the next hop does not take",
            ));
        }
        Body::EightBitMime | Body::BinaryMime => {}
    }
    if extensions.eight_bit_mime {
        Ok(Body::EightBitMime)
    } else if facts.is_some_and(|facts| facts.is_seven_bit) {
        Ok(Body::SevenBit)
    } else {
        Err(refusal(
            "the message has octets beyond ASCII, which the next hop does not take",
        ))
    }
}

/// How addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Utf8 {
    /// In ASCII, as they are.
    Unneeded,
    /// As they are, with SMTPUTF8.
    Offered,
    /// In ASCII, domains as A-labels; the peer knows nothing else.
    Missing,
}

fn utf8(transaction: &Transaction, extensions: &Extensions) -> Result<Utf8, Refusal> {
    if !needs_smtputf8(transaction) {
        return Ok(Utf8::Unneeded);
    }
    if extensions.smtputf8 {
        return Ok(Utf8::Offered);
    }
    let header_is_ascii = transaction
        .facts
        .is_some_and(|facts| !facts.has_utf8_header);
    let reverse_path_is_ascii = transaction
        .reverse_path
        .as_deref()
        .is_none_or(|path| Utf8::Missing.path(path).is_some());
    let text = if !header_is_ascii {
        "the header of the message needs SMTPUTF8, which the next hop does not offer"
    } else if !reverse_path_is_ascii {
        "the reverse-path needs SMTPUTF8, which the next hop does not offer"
    } else {
        return Ok(Utf8::Missing);
    };
    Err(Refusal {
        status: Status::permanent(6, 7),
        text: text.into(),
    })
}

impl Utf8 {
    /// A path as a command can hold it (RFC 6531 §3.2: a domain in A-labels is the same domain).
    fn path(self, path: &str) -> Option<Cow<'_, str>> {
        if path.chars().any(char::is_control) {
            return None;
        }
        match self {
            Utf8::Unneeded | Utf8::Offered => Some(Cow::Borrowed(path)),
            Utf8::Missing if path.is_ascii() => Some(Cow::Borrowed(path)),
            Utf8::Missing => {
                let (local_part, domain) = path.rsplit_once('@')?;
                let domain = path::a_labels(domain)?;
                local_part
                    .is_ascii()
                    .then(|| format!("{local_part}@{domain}").into())
            }
        }
    }
}

/// The RCPT command of a recipient.
fn rcpt(
    recipient: &TransactionRecipient,
    utf8: Utf8,
    dsn: bool,
) -> Result<String, RecipientOutcome> {
    let Some(path) = utf8.path(&recipient.path) else {
        let (status, text) = if recipient.path.chars().any(char::is_control) {
            (
                Status::permanent(1, 3),
                "the address cannot be written in a command",
            )
        } else {
            (
                Status::permanent(6, 7),
                "the address needs SMTPUTF8, which the next hop does not offer",
            )
        };
        let failure = Failure::ours(Cause::Unsendable, status, text);
        return Err(RecipientOutcome::Unsent(failure));
    };
    let mut rcpt = format!("RCPT TO:<{path}>");
    if dsn {
        let addresses = match utf8 {
            Utf8::Offered => Addresses::Utf8,
            Utf8::Unneeded | Utf8::Missing => Addresses::Ascii,
        };
        rcpt.push_str(&in_command(recipient.dsn.parameters(addresses)));
    }
    rcpt.push_str("\r\n");
    Ok(rcpt)
}

/// RFC 3461 §5.2.1: passed on as they came, and none where none came. What cannot stand in a command is left out, as
/// if it had not come: it only concerns reports.
fn in_command(parameters: String) -> String {
    match parameters.chars().any(char::is_control) {
        true => String::new(),
        false => parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::dsn::{Notify, Ret};

    /// Everything offered, but what `change` takes away.
    fn offering(change: impl FnOnce(&mut Extensions)) -> Extensions {
        let mut extensions = Extensions {
            pipelining: true,
            size: Some(100_000),
            eight_bit_mime: true,
            smtputf8: true,
            chunking: true,
            binary_mime: true,
            dsn: true,
            ..Extensions::default()
        };
        change(&mut extensions);
        extensions
    }

    fn message(change: impl FnOnce(&mut Transaction)) -> Transaction {
        let mut transaction = Transaction {
            reverse_path: Some("a@b.test".into()),
            recipients: vec![to("c@d.test")],
            octets: 1000,
            body: Body::SevenBit,
            smtputf8: false,
            dsn: MailDsn::default(),
            facts: None,
        };
        change(&mut transaction);
        transaction
    }

    fn to(path: &str) -> TransactionRecipient {
        TransactionRecipient {
            path: path.into(),
            dsn: RcptDsn::default(),
        }
    }

    fn facts(is_seven_bit: bool, fits_data: bool, has_utf8_header: bool) -> Option<ContentFacts> {
        Some(ContentFacts {
            is_seven_bit,
            fits_data,
            has_utf8_header,
        })
    }

    /// The commands, or what is said instead of one.
    fn said(transaction: &Transaction, extensions: &Extensions) -> Vec<String> {
        match Terms::new(transaction, extensions, Dialect::Smtp) {
            Err(Refusal { status, .. }) => vec![format!("refused {status}")],
            Ok(terms) => {
                let rcpts = terms.recipients.into_iter().map(|rcpt| match rcpt {
                    Ok(rcpt) => rcpt,
                    Err(RecipientOutcome::Unsent(failure)) => {
                        assert_eq!(failure.cause, Cause::Unsendable);
                        format!("unsent {}\r\n", failure.status)
                    }
                    Err(other) => panic!("{other:?}"),
                });
                let commands = std::iter::once(terms.mail).chain(rcpts);
                let stripped =
                    commands.map(|command| command.strip_suffix("\r\n").unwrap().to_owned());
                stripped.collect()
            }
        }
    }

    #[test]
    fn what_a_peer_is_told() {
        use Body::{BinaryMime, EightBitMime};
        type Row = (
            &'static str,
            fn(&mut Transaction),
            fn(&mut Extensions),
            &'static [&'static str],
        );
        #[rustfmt::skip] // a row a line
        let rows: &[Row] = &[
            ("plain", |_| {}, |_| {}, &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("plain, nothing offered", |_| {}, |e| *e = Extensions::default(),
                &["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"]),
            ("null reverse-path", |t| t.reverse_path = None, |_| {},
                &["MAIL FROM:<> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("postmaster", |t| t.recipients = vec![to("postmaster")], |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<postmaster>"]),
            ("a quoted local part", |t| t.recipients = vec![to("\"c> @\"@d.test")], |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<\"c> @\"@d.test>"]),
            // SIZE
            ("as large as it takes", |t| t.octets = 100_000, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=100000", "RCPT TO:<c@d.test>"]),
            ("larger", |t| t.octets = 100_001, |_| {}, &["refused 5.3.4"]),
            ("no limit told", |t| t.octets = 100_001, |e| e.size = Some(0),
                &["MAIL FROM:<a@b.test> SIZE=100001", "RCPT TO:<c@d.test>"]),
            // BODY
            ("8BITMIME", |t| t.body = EightBitMime, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 BODY=8BITMIME", "RCPT TO:<c@d.test>"]),
            ("8BITMIME not offered", |t| t.body = EightBitMime, |e| e.eight_bit_mime = false, &["refused 5.6.3"]),
            ("8BITMIME not offered, 8 bit",
                |t| { t.body = EightBitMime; t.facts = facts(false, true, false); },
                |e| e.eight_bit_mime = false, &["refused 5.6.3"]),
            ("8BITMIME not offered, 7 bit",
                |t| { t.body = EightBitMime; t.facts = facts(true, false, false); },
                |e| e.eight_bit_mime = false, &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("BINARYMIME", |t| t.body = BinaryMime, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 BODY=BINARYMIME", "RCPT TO:<c@d.test>"]),
            ("BINARYMIME not offered", |t| t.body = BinaryMime, |e| e.binary_mime = false, &["refused 5.6.3"]),
            ("BINARYMIME not offered, in lines",
                |t| { t.body = BinaryMime; t.facts = facts(false, true, false); },
                |e| e.binary_mime = false,
                &["MAIL FROM:<a@b.test> SIZE=1000 BODY=8BITMIME", "RCPT TO:<c@d.test>"]),
            ("BINARYMIME not offered, not in lines",
                |t| { t.body = BinaryMime; t.facts = facts(true, false, false); },
                |e| e.binary_mime = false, &["refused 5.6.3"]),
            ("BINARYMIME without CHUNKING, 7 bit in lines",
                |t| { t.body = BinaryMime; t.facts = facts(true, true, false); },
                |e| { e.chunking = false; e.eight_bit_mime = false; },
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("BINARYMIME without CHUNKING, 8 bit in lines",
                |t| { t.body = BinaryMime; t.facts = facts(false, true, false); },
                |e| { e.chunking = false; e.eight_bit_mime = false; }, &["refused 5.6.3"]),
            // SMTPUTF8
            ("SMTPUTF8", |t| { t.smtputf8 = true; t.recipients = vec![to("ü@bücher.test")]; }, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 SMTPUTF8", "RCPT TO:<ü@bücher.test>"]),
            ("SMTPUTF8 undeclared", |t| t.recipients = vec![to("ü@bücher.test")], |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 SMTPUTF8", "RCPT TO:<ü@bücher.test>"]),
            ("SMTPUTF8 not offered", |t| t.smtputf8 = true, |e| e.smtputf8 = false, &["refused 5.6.7"]),
            ("SMTPUTF8 not offered, UTF-8 in the header",
                |t| { t.smtputf8 = true; t.facts = facts(false, true, true); },
                |e| e.smtputf8 = false, &["refused 5.6.7"]),
            ("SMTPUTF8 not offered, all in ASCII",
                |t| { t.smtputf8 = true; t.facts = facts(true, true, false); },
                |e| e.smtputf8 = false, &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("SMTPUTF8 not offered, domains beyond ASCII",
                |t| {
                    t.facts = facts(true, true, false);
                    t.reverse_path = Some("a@Bücher.test".into());
                    t.recipients = vec![to("\"c@\"@bücher.test"), to("d@[192.0.2.1]")];
                },
                |e| e.smtputf8 = false,
                &["MAIL FROM:<a@xn--bcher-kva.test> SIZE=1000",
                    "RCPT TO:<\"c@\"@xn--bcher-kva.test>", "RCPT TO:<d@[192.0.2.1]>"]),
            ("SMTPUTF8 not offered, a local part beyond ASCII",
                |t| { t.facts = facts(true, true, false); t.recipients = vec![to("ü@d.test"), to("c@d.test")]; },
                |e| e.smtputf8 = false,
                &["MAIL FROM:<a@b.test> SIZE=1000", "unsent 5.6.7", "RCPT TO:<c@d.test>"]),
            ("SMTPUTF8 not offered, a domain that has no A-labels",
                |t| { t.facts = facts(true, true, false); t.recipients = vec![to("c@\u{200d}ü.test")]; },
                |e| e.smtputf8 = false, &["MAIL FROM:<a@b.test> SIZE=1000", "unsent 5.6.7"]),
            ("SMTPUTF8 not offered, a reverse-path beyond ASCII",
                |t| { t.facts = facts(true, true, false); t.reverse_path = Some("ü@b.test".into()); },
                |e| e.smtputf8 = false, &["refused 5.6.7"]),
            ("SMTPUTF8 not offered, a null reverse-path",
                |t| { t.facts = facts(true, true, false); t.smtputf8 = true; t.reverse_path = None; },
                |e| e.smtputf8 = false, &["MAIL FROM:<> SIZE=1000", "RCPT TO:<c@d.test>"]),
            // DSN
            ("DSN",
                |t| {
                    t.dsn = MailDsn { ret: Some(Ret::Full), envid: Some("Q+2B1".into()) };
                    t.recipients[0].dsn = RcptDsn {
                        notify: Some(Notify { success: true, failure: true, delay: false }),
                        orcpt: Some("rfc822;x+2By@d.test".into()),
                    };
                },
                |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 RET=FULL ENVID=Q+2B1",
                    "RCPT TO:<c@d.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+2By@d.test"]),
            ("DSN not offered",
                |t| {
                    t.dsn = MailDsn { ret: Some(Ret::Headers), envid: Some("Q1".into()) };
                    t.recipients[0].dsn = RcptDsn { notify: Some(Notify::default()), orcpt: Some("rfc822;x@y".into()) };
                },
                |e| e.dsn = false, &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("RET of the header", |t| t.dsn.ret = Some(Ret::Headers), |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 RET=HDRS", "RCPT TO:<c@d.test>"]),
            ("NOTIFY never", |t| t.recipients[0].dsn.notify = Some(Notify::default()), |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test> NOTIFY=NEVER"]),
            ("ENVID that is no value", |t| t.dsn.envid = Some("a\r\nRSET".into()), |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test>"]),
            ("ORCPT in UTF-8, with SMTPUTF8",
                |t| { t.smtputf8 = true; t.recipients[0].dsn.orcpt = Some("utf-8;ü@d".into()); }, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000 SMTPUTF8", "RCPT TO:<c@d.test> ORCPT=utf-8;ü@d"]),
            ("ORCPT in UTF-8, without",
                |t| { t.recipients[0].dsn.orcpt = Some("UTF-8;ü€@d".into()); }, |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "RCPT TO:<c@d.test> ORCPT=UTF-8;\\x{FC}\\x{20AC}@d"]),
            // what cannot be written
            ("a reverse-path with a line end", |t| t.reverse_path = Some("a@b>\r\nRSET".into()), |_| {},
                &["refused 5.1.7"]),
            ("a forward-path with a line end", |t| t.recipients = vec![to("c@d>\r\nRSET"), to("c@d")], |_| {},
                &["MAIL FROM:<a@b.test> SIZE=1000", "unsent 5.1.3", "RCPT TO:<c@d>"]),
        ];
        for (name, change, offer, wanted) in rows {
            assert_eq!(said(&message(change), &offering(offer)), *wanted, "{name}");
        }
    }

    #[test]
    fn ways_of_the_content() {
        use Body::{BinaryMime, EightBitMime, SevenBit};
        use Dialect::{Lmtp, Smtp};
        const SMALL: u64 = CONTENT_IN_FLIGHT_OCTETS_MAX;
        // dialect, body, octets, CHUNKING, PIPELINING
        #[rustfmt::skip] // a row a line
        let rows = [
            (Smtp, SevenBit, 0, true, true, Way::ChunkInFlight),
            (Smtp, EightBitMime, SMALL, true, true, Way::ChunkInFlight),
            (Smtp, BinaryMime, SMALL, true, true, Way::ChunkInFlight),
            (Smtp, SevenBit, SMALL + 1, true, true, Way::ChunkAfterReplies),
            (Smtp, SevenBit, SMALL, true, false, Way::ChunkAfterReplies),
            (Smtp, BinaryMime, SMALL + 1, true, true, Way::ChunkAfterReplies),
            (Smtp, SevenBit, SMALL, false, true, Way::Data),
            (Smtp, SevenBit, SMALL, false, false, Way::Data),
            (Lmtp, SevenBit, SMALL, true, true, Way::Data),
            (Lmtp, EightBitMime, SMALL, true, true, Way::Data),
            (Lmtp, BinaryMime, SMALL, true, true, Way::ChunkAfterReplies),
        ];
        for (dialect, body, octets, chunking, pipelining, wanted) in rows {
            let extensions = offering(|extensions| {
                extensions.chunking = chunking;
                extensions.pipelining = pipelining;
            });
            let found = way(body, octets, &extensions, dialect);
            assert_eq!(
                found, wanted,
                "{dialect:?} {body:?} {octets} {chunking} {pipelining}"
            );
        }
    }

    #[test]
    fn facts_are_wanted_where_something_is_missing() {
        use Body::{BinaryMime, EightBitMime};
        type Row = (
            &'static str,
            fn(&mut Transaction),
            fn(&mut Extensions),
            bool,
        );
        #[rustfmt::skip] // a row a line
        let rows: &[Row] = &[
            ("plain", |_| {}, |e| *e = Extensions::default(), false),
            ("8BITMIME", |t| t.body = EightBitMime, |_| {}, false),
            ("8BITMIME missing", |t| t.body = EightBitMime, |e| e.eight_bit_mime = false, true),
            ("BINARYMIME", |t| t.body = BinaryMime, |_| {}, false),
            ("BINARYMIME missing", |t| t.body = BinaryMime, |e| e.binary_mime = false, true),
            ("CHUNKING missing", |t| t.body = BinaryMime, |e| e.chunking = false, true),
            ("SMTPUTF8", |t| t.smtputf8 = true, |_| {}, false),
            ("SMTPUTF8 missing", |t| t.smtputf8 = true, |e| e.smtputf8 = false, true),
            ("SMTPUTF8 undeclared and missing", |t| t.recipients = vec![to("ü@d")], |e| e.smtputf8 = false, true),
            ("the same for the reverse-path", |t| t.reverse_path = Some("ü@d".into()), |e| e.smtputf8 = false, true),
        ];
        for (name, change, offer, wanted) in rows {
            let wants = wants_facts(&message(change), &offering(offer));
            assert_eq!(wants, *wanted, "{name}");
        }
    }
}
