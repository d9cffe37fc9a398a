//! What a sender wants to be told about its message (RFC 3461): NOTIFY, RET, ENVID and ORCPT as values.
//!
//! Apart from the parameters because they travel: from the command into the spool, from there to the next hop or
//! into a report. Which values a command may have is the grammar's question ([`parameters`](super::parameters)).
//! Invariants:
//! - What the grammar let in holds no control character, as it came or decoded: it ends no line and no field.
//! - What `parameters` gives back for the next hop reads there as the same values.

use std::fmt;

use super::command::Addresses;

/// What MAIL says of reports about its message (RFC 3461 §4.3, §4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailDsn {
    /// RET: how much of the message goes into a report of failure.
    pub ret: Option<Ret>,
    /// ENVID: the sender's name of the transaction, in xtext as it came.
    pub envid: Option<Box<str>>,
}

/// What RCPT says of reports about its recipient (RFC 3461 §4.1, §4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptDsn {
    /// NOTIFY: which reports are wanted; `None` where the command had none, which leaves it to us: reports of
    /// failure, and of delay.
    pub notify: Option<Notify>,
    /// ORCPT: the recipient as the sender first had it, as it came: `rfc822;` and xtext, `utf-8;` and the forms
    /// of RFC 6533 §3, or another type and xtext.
    pub orcpt: Option<Box<str>>,
}

/// How much of a message is to come back (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header section.
    Headers,
}

/// Which reports are wanted for a recipient (RFC 3461 §4.1). All false is NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// When it was delivered.
    pub success: bool,
    /// When it was given up.
    pub failure: bool,
    /// When it is late.
    pub delay: bool,
}

impl MailDsn {
    /// ENVID as the sender had it, before xtext.
    pub fn envelope_id(&self) -> Option<String> {
        let octets = decode_xtext(self.envid.as_deref()?)?;
        String::from_utf8(octets).ok()
    }

    /// What goes behind the reverse-path of MAIL to a next hop that offers DSN, as in ` RET=HDRS ENVID=QQ314159`;
    /// empty if the message came without (RFC 3461 §5.2.1: a relay adds nothing).
    pub fn parameters(&self) -> String {
        let mut text = String::new();
        if let Some(ret) = self.ret {
            text.push_str(" RET=");
            text.push_str(ret.keyword());
        }
        if let Some(envid) = &self.envid {
            text.push_str(" ENVID=");
            text.push_str(envid);
        }
        text
    }
}

impl RcptDsn {
    /// Whether a failure is to be reported.
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }

    /// Whether a delay is to be reported.
    pub fn wants_delay(&self) -> bool {
        self.notify.is_none_or(|notify| notify.delay)
    }

    /// Whether a delivery is to be reported.
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// ORCPT as the sender had it: the type of the address in the case it came in, and the address decoded.
    pub fn original_recipient(&self) -> Option<(&str, String)> {
        let (addr_type, encoded) = self.orcpt.as_deref()?.split_once(';')?;
        let address = if is_utf_8(addr_type) {
            decode_utf_8_addr(encoded)?
        } else {
            String::from_utf8(decode_xtext(encoded)?).ok()?
        };
        Some((addr_type, address))
    }

    /// What goes behind the forward-path of RCPT to a next hop that offers DSN, as in
    /// ` NOTIFY=FAILURE ORCPT=rfc822;user@mx.test`; empty if the recipient came without (RFC 3461 §5.2.1: a relay
    /// adds nothing). `addresses` says what the transaction with the next hop lets in.
    ///
    /// UTF-8 that has to become ASCII grows. If ORCPT outgrows its limit by that it is left out: the mail matters
    /// more than what a report about it says, and the next hop might refuse it.
    pub fn parameters(&self, addresses: Addresses) -> String {
        let mut text = String::new();
        if let Some(notify) = self.notify {
            text.push_str(&format!(" NOTIFY={notify}"));
        }
        let orcpt = match (self.orcpt.as_deref(), addresses) {
            (None, _) => None,
            (Some(orcpt), Addresses::Ascii) if !orcpt.is_ascii() => {
                Some(without_utf_8(orcpt)).filter(|orcpt| orcpt.len() <= ORCPT_OCTETS_MAX)
            }
            (Some(orcpt), Addresses::Ascii | Addresses::Utf8) => Some(orcpt.to_owned()),
        };
        if let Some(orcpt) = orcpt {
            text.push_str(" ORCPT=");
            text.push_str(&orcpt);
        }
        text
    }
}

impl Ret {
    /// The value of RET.
    pub fn keyword(self) -> &'static str {
        match self {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        }
    }
}

impl Notify {
    /// No report at all.
    pub const NEVER: Notify = Notify {
        success: false,
        failure: false,
        delay: false,
    };
}

/// The value of NOTIFY.
impl fmt::Display for Notify {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Notify::NEVER {
            return formatter.write_str("NEVER");
        }
        let words = [
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ];
        let mut comma = "";
        for (wanted, word) in words {
            if wanted {
                write!(formatter, "{comma}{word}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// What `text` stands for; `None` if it is no xtext.
pub fn decode_xtext(text: &str) -> Option<Vec<u8>> {
    xtext(text).collect()
}

/// ```text
/// xtext   = *( xchar / hexchar )             ; RFC 3461 §4
/// xchar   = %d33-42 / %d44-60 / %d62-126
/// hexchar = "+" 2(%x30-39 / %x41-46)
/// ```
/// The octets it stands for, one after the other; `None` where it is no xtext.
pub(super) fn xtext(text: &str) -> impl Iterator<Item = Option<u8>> {
    let mut octets = text.bytes();
    std::iter::from_fn(move || {
        let octet = octets.next()?;
        Some(match octet {
            b'+' => {
                let mut digit = || hexdigit(octets.next()?);
                digit().and_then(|high| Some(high << 4 | digit()?))
            }
            b'=' => None,
            33..=126 => Some(octet),
            _ => None,
        })
    })
}

fn hexdigit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// The address in a `utf-8;` ORCPT.
///
/// ```text
/// utf-8-enc-addr      = utf-8-addr-xtext / utf-8-addr-unitext / utf-8-address    ; RFC 6533 §3
/// utf-8-addr-xtext    = 1*(QCHAR / EmbeddedUnicodeChar)
/// utf-8-addr-unitext  = 1*(QUCHAR / EmbeddedUnicodeChar)
/// QCHAR               = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e
/// QUCHAR              = QCHAR / UTF8-2 / UTF8-3 / UTF8-4
/// EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
/// ```
/// A `utf-8-address` alone could be taken for the other two, so that they decide what it may hold.
pub fn decode_utf_8_addr(text: &str) -> Option<String> {
    let mut address = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if let Some(embedded) = rest.strip_prefix("\\x{") {
            let (digits, behind) = embedded.split_once('}')?;
            address.push(hexpoint(digits)?);
            rest = behind;
            continue;
        }
        if !is_quchar(letter) {
            return None;
        }
        address.push(letter);
        rest = rest.get(letter.len_utf8()..)?;
    }
    (!address.is_empty()).then_some(address)
}

fn is_quchar(letter: char) -> bool {
    match letter {
        '+' | '=' | '\\' => false,
        '!'..='~' => true,
        _ => !letter.is_ascii() && !letter.is_control(),
    }
}

/// A character beyond ASCII, or one of ASCII that is not to stand for itself.
///
/// RFC 6533 §3 lets control characters in as well. No mailbox has one (RFC 5321 §4.1.2), and in a report it would end
/// the field: it is none here.
fn hexpoint(digits: &str) -> Option<char> {
    let holds = matches!(digits.len(), 2..=6)
        && digits.bytes().all(|octet| octet.is_ascii_hexdigit())
        && !digits.starts_with('0');
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| holds)?;
    let letter = char::from_u32(number)?;
    let stands_for_itself = letter.is_ascii() && is_quchar(letter);
    (!stands_for_itself && !letter.is_control()).then_some(letter)
}

fn push_embedded(text: &mut String, letter: char) {
    text.push_str(&format!("\\x{{{:02X}}}", u32::from(letter)));
}

/// An ORCPT in ASCII. Only a `utf-8;` one has anything else.
fn without_utf_8(orcpt: &str) -> String {
    let mut text = String::with_capacity(orcpt.len());
    for letter in orcpt.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            push_embedded(&mut text, letter);
        }
    }
    text
}

/// Whether the addresses of this type are those of RFC 6533.
pub(super) fn is_utf_8(addr_type: &str) -> bool {
    addr_type.eq_ignore_ascii_case("utf-8")
}

/// RFC 3461 §4.4, of ENVID before it is xtext.
pub const ENVID_OCTETS_MAX: usize = 100;

/// RFC 3461 §4.2, of ORCPT as it is written.
pub const ORCPT_OCTETS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    /// `octets` in xtext.
    fn encode_xtext(octets: &[u8]) -> String {
        let mut text = String::with_capacity(octets.len());
        for octet in octets {
            match octet {
                b'+' | b'=' => push_hexchar(&mut text, *octet),
                33..=126 => text.push(char::from(*octet)),
                _ => push_hexchar(&mut text, *octet),
            }
        }
        text
    }

    fn push_hexchar(text: &mut String, octet: u8) {
        text.push_str(&format!("+{octet:02X}"));
    }

    /// `address` as a `utf-8-addr-xtext`: in ASCII.
    fn encode_utf_8_addr(address: &str) -> String {
        let mut text = String::with_capacity(address.len());
        for letter in address.chars() {
            if letter.is_ascii() && is_quchar(letter) {
                text.push(letter);
            } else {
                push_embedded(&mut text, letter);
            }
        }
        text
    }

    #[test]
    fn xtext_stands_for_octets() {
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, Option<&[u8]>)] = &[
            ("", Some(b"")),
            ("QQ314159", Some(b"QQ314159")),
            ("!*,<>~", Some(b"!*,<>~")),
            ("a+2Bb+3Dc+20d", Some(b"a+b=c d")),
            ("+00+7F+FF+0D+0A", Some(b"\0\x7f\xff\r\n")),
            ("+41", Some(b"A")),
            ("+", None),
            ("a+2", None),
            ("a+2b", None),
            ("a+G0", None),
            ("++2B", None),
            ("a=b", None),
            ("a b", None),
            ("a\x7f", None),
            ("ü", None),
        ];
        for (text, expected) in rows {
            assert_eq!(decode_xtext(text).as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn every_octet_survives_xtext() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode_xtext(&all);
        assert!(text.bytes().all(|octet| octet.is_ascii_graphic()), "{text}");
        assert_eq!(decode_xtext(&text), Some(all));
        assert_eq!(encode_xtext(b"a+b=c d~!"), "a+2Bb+3Dc+20d~!");
    }

    #[test]
    fn utf_8_addresses() {
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, Option<&str>)] = &[
            ("user@mx.test", Some("user@mx.test")),
            ("jörg@mx.test", Some("jörg@mx.test")),
            (r"j\x{F6}rg@mx.test", Some("jörg@mx.test")),
            (r"j\x{f6}rg@mx.test", Some("jörg@mx.test")),
            (r"\x{3B4}\x{4F8B}\x{1F600}\x{10FFFF}", Some("δ例😀\u{10ffff}")),
            (r"a\x{2B}b\x{3D}c\x{20}d\x{5C}e", Some(r"a+b=c d\e")),
            ("{x}", Some("{x}")),
            ("", None),
            ("a+b", None),
            ("a=b", None),
            ("a b", None),
            ("a\u{7f}", None),
            ("a\u{85}", None),
            (r"a\b", None),
            (r"a\x", None),
            (r"a\x{", None),
            (r"a\x{F6", None),
            (r"a\x{}", None),
            (r"a\x{F}", None),
            (r"a\x{+F6}", None),
            (r"a\x{0F6}", None),
            (r"a\x{41}", None),
            (r"a\x{0A}", None),
            (r"a\x{7F}", None),
            (r"a\x{85}", None),
            (r"a\x{D800}", None),
            (r"a\x{110000}", None),
            (r"a\x{1000000}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(decode_utf_8_addr(text).as_deref(), *expected, "{text:?}");
            if let Some(address) = expected {
                let encoded = encode_utf_8_addr(address);
                assert!(encoded.is_ascii(), "{encoded}");
                assert_eq!(
                    decode_utf_8_addr(&encoded).as_deref(),
                    *expected,
                    "{encoded}"
                );
            }
        }
    }

    #[test]
    fn what_the_sender_had() {
        let mail = |envid: &str| MailDsn {
            ret: None,
            envid: Some(envid.into()),
        };
        assert_eq!(mail("a+20b").envelope_id().as_deref(), Some("a b"));
        assert_eq!(mail("+").envelope_id(), None);
        assert_eq!(MailDsn::default().envelope_id(), None);
        #[rustfmt::skip] // a row a line
        let rows = [
            ("rfc822;a+2Bb@c", Some(("rfc822", "a+b@c"))),
            ("RFC822;a", Some(("RFC822", "a"))),
            (r"UTF-8;\x{FC}@c", Some(("UTF-8", "ü@c"))),
            ("utf-8;ü@c", Some(("utf-8", "ü@c"))),
            ("x400;/S=a", None),
            ("x400;/S+3Da;b", Some(("x400", "/S=a;b"))),
            ("rfc822;+FF", None),
            ("rfc822", None),
        ];
        for (orcpt, expected) in rows {
            let rcpt = RcptDsn {
                notify: None,
                orcpt: Some(orcpt.into()),
            };
            let expected = expected.map(|(addr_type, address)| (addr_type, address.to_owned()));
            assert_eq!(rcpt.original_recipient(), expected, "{orcpt}");
        }
        assert_eq!(RcptDsn::default().original_recipient(), None);
    }

    fn notify(success: bool, failure: bool, delay: bool) -> Option<Notify> {
        Some(Notify {
            success,
            failure,
            delay,
        })
    }

    #[test]
    fn parameters_of_mail_for_the_next_hop() {
        let envid = Some("QQ+20314159");
        let rows = [
            (None, None, ""),
            (Some(Ret::Full), None, " RET=FULL"),
            (None, envid, " ENVID=QQ+20314159"),
            (Some(Ret::Headers), envid, " RET=HDRS ENVID=QQ+20314159"),
        ];
        for (ret, envid, expected) in rows {
            let envid = envid.map(Box::from);
            assert_eq!(MailDsn { ret, envid }.parameters(), expected);
        }
    }

    #[test]
    fn parameters_of_rcpt_for_the_next_hop() {
        use Addresses::{Ascii, Utf8};
        let longest = format!("utf-8;{}", "ü".repeat(70));
        let longest_in_ascii = format!(" ORCPT=utf-8;{}", r"\x{FC}".repeat(70));
        let too_long = format!("utf-8;{}", "ü".repeat(83));
        let too_long_in_utf_8 = format!(" ORCPT={too_long}");
        let none = RcptDsn::default().notify;
        let never = notify(false, false, false);
        #[rustfmt::skip] // a row a line
        let rows = [
            (none, None, Ascii, ""),
            (never, None, Ascii, " NOTIFY=NEVER"),
            (notify(true, false, false), None, Ascii, " NOTIFY=SUCCESS"),
            (notify(false, true, true), None, Utf8, " NOTIFY=FAILURE,DELAY"),
            (notify(true, true, true), None, Utf8, " NOTIFY=SUCCESS,FAILURE,DELAY"),
            (none, Some("rfc822;a+2Bb@c"), Ascii, " ORCPT=rfc822;a+2Bb@c"),
            (never, Some("x;y"), Utf8, " NOTIFY=NEVER ORCPT=x;y"),
            (none, Some("utf-8;jörg@c"), Utf8, " ORCPT=utf-8;jörg@c"),
            (none, Some("utf-8;jörg@c"), Ascii, r" ORCPT=utf-8;j\x{F6}rg@c"),
            (none, Some(r"utf-8;ö\x{2B}@c"), Ascii, r" ORCPT=utf-8;\x{F6}\x{2B}@c"),
            (none, Some(longest.as_str()), Ascii, longest_in_ascii.as_str()),
            (none, Some(too_long.as_str()), Utf8, too_long_in_utf_8.as_str()),
            (never, Some(too_long.as_str()), Ascii, " NOTIFY=NEVER"),
        ];
        for (notify, orcpt, addresses, expected) in rows {
            let orcpt = orcpt.map(Box::from);
            assert_eq!(RcptDsn { notify, orcpt }.parameters(addresses), expected);
        }
    }

    #[test]
    fn reports_by_notify() {
        // NOTIFY, and whether a failure, a delay, a delivery is reported.
        let rows = [
            (None, [true, true, false]),
            (Some(Notify::NEVER), [false, false, false]),
            (notify(true, false, false), [false, false, true]),
            (notify(false, true, false), [true, false, false]),
            (notify(false, false, true), [false, true, false]),
        ];
        for (notify, expected) in rows {
            let rcpt = RcptDsn {
                notify,
                orcpt: None,
            };
            let found = [
                rcpt.wants_failure(),
                rcpt.wants_delay(),
                rcpt.wants_success(),
            ];
            assert_eq!(found, expected, "{notify:?}");
        }
    }

    /// There is one of these for each message in the queue, and for each of its recipients.
    #[test]
    fn they_are_small() {
        assert!(size_of::<MailDsn>() <= 24 && size_of::<RcptDsn>() <= 24);
    }
}
