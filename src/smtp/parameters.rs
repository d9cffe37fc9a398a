//! Parameters of MAIL and RCPT (RFC 5321 §4.1.1.11; 1870, 6152, 3030, 6531, 4954, 3461).
//!
//! Apart from the command grammar because each extension adds its own here.
//! Invariants:
//! - What the EHLO reply does not offer is refused, never ignored.
//! - No parameter counts twice.

use super::command::Addresses;
use super::dsn::{self, ENVID_OCTETS_MAX, MailDsn, Notify, ORCPT_OCTETS_MAX, RcptDsn, Ret};
use super::envelope::Body;

/// What a MAIL command may say behind its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters<'a> {
    /// SIZE: octets of mail data as the peer counts them (RFC 1870 §6).
    pub declared_octets: Option<u64>,
    /// BODY (RFC 6152 §3, RFC 3030 §3).
    pub body: Option<Body>,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// AUTH, still in xtext but checked to be that (RFC 4954 §5). Only the session knows whether
    /// it offered AUTH, without which this is an unknown parameter.
    pub auth: Option<&'a str>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, still in xtext but checked to be that (RFC 3461 §4.4).
    pub envid: Option<&'a str>,
}

impl MailParameters<'_> {
    /// What they say of reports.
    pub fn dsn(&self) -> MailDsn {
        MailDsn {
            ret: self.ret,
            envid: self.envid.map(Box::from),
        }
    }
}

/// What a RCPT command may say behind its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters<'a> {
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT, still encoded but checked to be that (RFC 3461 §4.2).
    pub orcpt: Option<&'a str>,
}

impl RcptParameters<'_> {
    /// What they say of reports.
    pub fn dsn(&self) -> RcptDsn {
        RcptDsn {
            notify: self.notify,
            orcpt: self.orcpt.map(Box::from),
        }
    }
}

/// Why parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Something follows the path without a space.
    #[error("no space behind the path")]
    NoSpace,
    /// A keyword that nothing offers.
    #[error("unknown parameter")]
    Unknown,
    /// A value outside its keyword's grammar, or a keyword outside the grammar of keywords.
    #[error("bad parameter")]
    Bad,
    /// A keyword for the second time.
    #[error("parameter given twice")]
    Repeated,
}

/// ```text
/// Mail-parameters = esmtp-param *(SP esmtp-param)
/// ```
pub fn mail_parameters(text: &str) -> Result<MailParameters<'_>, ParameterError> {
    let mut parameters = MailParameters::default();
    for parameter in esmtp_params(text)? {
        let (keyword, value) = esmtp_param(parameter)?;
        if keyword.eq_ignore_ascii_case("SIZE") {
            let octets = decimal(value.unwrap_or_default().as_bytes());
            once(
                &mut parameters.declared_octets,
                octets.ok_or(ParameterError::Bad)?,
            )?;
        } else if keyword.eq_ignore_ascii_case("BODY") {
            let body = body_value(value.unwrap_or_default());
            once(&mut parameters.body, body.ok_or(ParameterError::Bad)?)?;
        } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
            if value.is_some() {
                return Err(ParameterError::Bad);
            }
            if std::mem::replace(&mut parameters.smtputf8, true) {
                return Err(ParameterError::Repeated);
            }
        } else if keyword.eq_ignore_ascii_case("AUTH") {
            let mailbox = value
                .filter(|value| dsn::xtext(value).all(|octet| octet.is_some()))
                .ok_or(ParameterError::Bad)?;
            once(&mut parameters.auth, mailbox)?;
        } else if keyword.eq_ignore_ascii_case("RET") {
            let ret = ret_value(value.unwrap_or_default());
            once(&mut parameters.ret, ret.ok_or(ParameterError::Bad)?)?;
        } else if keyword.eq_ignore_ascii_case("ENVID") {
            let envid = value
                .filter(|value| is_envid(value))
                .ok_or(ParameterError::Bad)?;
            once(&mut parameters.envid, envid)?;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(parameters)
}

/// ```text
/// Rcpt-parameters = esmtp-param *(SP esmtp-param)
/// ```
pub fn rcpt_parameters(
    text: &str,
    addresses: Addresses,
) -> Result<RcptParameters<'_>, ParameterError> {
    let mut parameters = RcptParameters::default();
    for parameter in esmtp_params(text)? {
        let (keyword, value) = esmtp_param(parameter)?;
        if keyword.eq_ignore_ascii_case("NOTIFY") {
            let notify = notify_esmtp_value(value.unwrap_or_default());
            once(&mut parameters.notify, notify.ok_or(ParameterError::Bad)?)?;
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let orcpt = value
                .filter(|value| is_original_recipient_address(value, addresses))
                .ok_or(ParameterError::Bad)?;
            once(&mut parameters.orcpt, orcpt)?;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(parameters)
}

/// The parameters in `text`, which is empty or begins with the space that sets them off.
fn esmtp_params(text: &str) -> Result<impl Iterator<Item = &str>, ParameterError> {
    if !text.is_empty() && !text.starts_with(' ') {
        return Err(ParameterError::NoSpace);
    }
    Ok(text.split(' ').filter(|parameter| !parameter.is_empty()))
}

/// ```text
/// esmtp-param   = esmtp-keyword ["=" esmtp-value]
/// esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
/// esmtp-value   = 1*(%d33-60 / %d62-126)     ; and UTF-8 beyond ASCII, RFC 6531 §3.3
/// ```
fn esmtp_param(text: &str) -> Result<(&str, Option<&str>), ParameterError> {
    let (keyword, value) = match text.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (text, None),
    };
    let keyword_holds = keyword.starts_with(|first: char| first.is_ascii_alphanumeric())
        && keyword
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let value_holds = value.is_none_or(|value| {
        !value.is_empty()
            && value
                .bytes()
                .all(|octet| matches!(octet, 33..=60 | 62..=126 | 128..))
    });
    if keyword_holds && value_holds {
        Ok((keyword, value))
    } else {
        Err(ParameterError::Bad)
    }
}

/// ```text
/// body-value = "7BIT" / "8BITMIME" / "BINARYMIME"
/// ```
fn body_value(value: &str) -> Option<Body> {
    if value.eq_ignore_ascii_case("7BIT") {
        Some(Body::SevenBit)
    } else if value.eq_ignore_ascii_case("8BITMIME") {
        Some(Body::EightBitMime)
    } else if value.eq_ignore_ascii_case("BINARYMIME") {
        Some(Body::BinaryMime)
    } else {
        None
    }
}

/// ```text
/// ret-value = "FULL" / "HDRS"                ; RFC 3461 §4.3
/// ```
fn ret_value(value: &str) -> Option<Ret> {
    [Ret::Full, Ret::Headers]
        .into_iter()
        .find(|ret| value.eq_ignore_ascii_case(ret.keyword()))
}

/// ```text
/// envid-parameter = "ENVID=" xtext           ; RFC 3461 §4.4
/// ```
/// What it stands for goes into a field of a report, hence printable ASCII alone.
fn is_envid(value: &str) -> bool {
    let mut octets = 0;
    dsn::xtext(value).all(|octet| {
        octets += 1;
        octets <= ENVID_OCTETS_MAX && octet.is_some_and(is_printable)
    })
}

/// ```text
/// notify-esmtp-value  = "NEVER" / 1#notify-list-element      ; RFC 3461 §4.1
/// notify-list-element = "SUCCESS" / "FAILURE" / "DELAY"
/// ```
/// A word may come twice, an empty one not at all: `1#` would let it in (RFC 822 §2.7), and nobody sends it.
fn notify_esmtp_value(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify = Notify::NEVER;
    for word in value.split(',') {
        let wanted = if word.eq_ignore_ascii_case("SUCCESS") {
            &mut notify.success
        } else if word.eq_ignore_ascii_case("FAILURE") {
            &mut notify.failure
        } else if word.eq_ignore_ascii_case("DELAY") {
            &mut notify.delay
        } else {
            return None;
        };
        *wanted = true;
    }
    Some(notify)
}

/// ```text
/// original-recipient-address = addr-type ";" xtext           ; RFC 3461 §4.2
/// addr-type                  = atom                          ; RFC 822 §3.3
/// ```
/// Behind `utf-8;` stands what RFC 6533 §3 has instead of xtext, beyond ASCII only under SMTPUTF8. Any type is taken,
/// for whether it is a registered one makes no difference here. What the address stands for goes into a field of a
/// report, hence printable characters alone, and there is one.
fn is_original_recipient_address(value: &str, addresses: Addresses) -> bool {
    let Some((addr_type, address)) = value.split_once(';') else {
        return false;
    };
    let type_holds = !addr_type.is_empty() && addr_type.bytes().all(is_of_atom);
    let address_holds = if dsn::is_utf_8(addr_type) {
        (addresses == Addresses::Utf8 || address.is_ascii())
            && dsn::decode_utf_8_addr(address).is_some()
    } else {
        !address.is_empty() && dsn::xtext(address).all(|octet| octet.is_some_and(is_printable))
    };
    value.len() <= ORCPT_OCTETS_MAX && type_holds && address_holds
}

fn is_printable(octet: u8) -> bool {
    matches!(octet, b' '..=b'~')
}

/// ```text
/// atom     = 1*<any CHAR except specials, SPACE and CTLs>
/// specials = "(" / ")" / "<" / ">" / "@" / "," / ";" / ":" / "\" / <"> / "." / "[" / "]"
/// ```
fn is_of_atom(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&octet)
}

/// ```text
/// size-value = 1*20DIGIT
/// ```
/// Twenty digits can say more than 64 bits hold. Such a number is over every limit, so it becomes
/// the largest there is: refusing it as malformed would put a BDAT dialogue out of step.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => Some(
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0')),
        ),
        _ => None,
    })
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ParameterError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParameterError::Repeated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_mail() {
        use ParameterError::{Bad, NoSpace, Repeated, Unknown};
        let none = MailParameters::default();
        let size = |octets| {
            Ok(MailParameters {
                declared_octets: Some(octets),
                ..none.clone()
            })
        };
        let body = |body| {
            Ok(MailParameters {
                body: Some(body),
                ..none.clone()
            })
        };
        let auth = |auth| {
            Ok(MailParameters {
                auth: Some(auth),
                ..none.clone()
            })
        };
        let utf8 = Ok(MailParameters {
            smtputf8: true,
            ..none.clone()
        });
        let dsn = |ret, envid| {
            Ok(MailParameters {
                ret,
                envid,
                ..none.clone()
            })
        };
        let envid = |octets: usize| format!(" ENVID={}", "x".repeat(octets));
        let (envid_100, envid_101) = (envid(100), envid(101));
        let encoded = |octets: usize| format!(" ENVID={}", "+2B".repeat(octets));
        let (encoded_100, encoded_101) = (encoded(100), encoded(101));
        let value = |text: &'static str| dsn(None, Some(text));
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, Result<MailParameters<'_>, ParameterError>)] = &[
            ("none", "", Ok(none.clone())),
            ("none but a space", " ", Ok(none.clone())),
            ("glued on", "SIZE=1", Err(NoSpace)),
            ("SIZE", " SIZE=1", size(1)),
            ("SIZE in any case", " size=1", size(1)),
            ("SIZE 0", " SIZE=0", size(0)),
            ("several spaces", "   SIZE=1", size(1)),
            ("SIZE of 64 bits", " SIZE=18446744073709551615", size(u64::MAX)),
            ("SIZE beyond 64 bits", " SIZE=18446744073709551616", size(u64::MAX)),
            ("SIZE of 21 digits", " SIZE=184467440737095516150", Err(Bad)),
            ("SIZE without a value", " SIZE", Err(Bad)),
            ("SIZE with an empty value", " SIZE=", Err(Bad)),
            ("SIZE with a sign", " SIZE=+1", Err(Bad)),
            ("SIZE with a letter", " SIZE=1k", Err(Bad)),
            ("SIZE twice", " SIZE=1 SIZE=2", Err(Repeated)),
            ("BODY=7BIT", " BODY=7BIT", body(Body::SevenBit)),
            ("BODY=8BITMIME", " BODY=8BITMIME", body(Body::EightBitMime)),
            ("BODY=BINARYMIME", " body=binarymime", body(Body::BinaryMime)),
            ("BODY with another value", " BODY=9BIT", Err(Bad)),
            ("BODY without a value", " BODY", Err(Bad)),
            ("BODY twice", " BODY=7BIT BODY=8BITMIME", Err(Repeated)),
            ("SMTPUTF8", " SMTPUTF8", utf8),
            ("SMTPUTF8 with a value", " SMTPUTF8=yes", Err(Bad)),
            ("SMTPUTF8 twice", " SMTPUTF8 SMTPUTF8", Err(Repeated)),
            ("AUTH of nobody", " AUTH=<>", auth("<>")),
            ("AUTH in xtext", " AUTH=e+3Dmc2@example.com", auth("e+3Dmc2@example.com")),
            ("AUTH with a half hexchar", " AUTH=e+3", Err(Bad)),
            ("AUTH with a lower-case hexchar", " AUTH=e+3d", Err(Bad)),
            ("AUTH without a value", " AUTH", Err(Bad)),
            ("AUTH beyond ASCII", " AUTH=ü", Err(Bad)),
            ("AUTH twice", " AUTH=<> AUTH=<>", Err(Repeated)),
            ("RET=FULL", " RET=FULL", dsn(Some(Ret::Full), None)),
            ("RET=HDRS in any case", " ret=hdrs", dsn(Some(Ret::Headers), None)),
            ("RET with another value", " RET=HEADERS", Err(Bad)),
            ("RET without a value", " RET", Err(Bad)),
            ("RET twice", " RET=FULL RET=FULL", Err(Repeated)),
            ("ENVID", " ENVID=QQ314159", value("QQ314159")),
            ("ENVID keeps its case and its xtext", " envid=Q+2Bq+20;,<", value("Q+2Bq+20;,<")),
            ("ENVID of 100 octets", &envid_100, dsn(None, envid_100.get(7..))),
            ("ENVID of 101 octets", &envid_101, Err(Bad)),
            ("ENVID of 100 octets in xtext", &encoded_100, dsn(None, encoded_100.get(7..))),
            ("ENVID of 101 octets in xtext", &encoded_101, Err(Bad)),
            ("ENVID without a value", " ENVID", Err(Bad)),
            ("ENVID with an empty value", " ENVID=", Err(Bad)),
            ("ENVID with a half hexchar", " ENVID=a+2", Err(Bad)),
            ("ENVID with a line end in xtext", " ENVID=a+0D+0Ab", Err(Bad)),
            ("ENVID with DEL in xtext", " ENVID=a+7F", Err(Bad)),
            ("ENVID beyond ASCII in xtext", " ENVID=+C3+BC", Err(Bad)),
            ("ENVID beyond ASCII", " ENVID=ü SMTPUTF8", Err(Bad)),
            ("ENVID twice", " ENVID=a ENVID=a", Err(Repeated)),
            ("RET and ENVID", " ENVID=a RET=HDRS", dsn(Some(Ret::Headers), Some("a"))),
            ("one of RCPT", " NOTIFY=NEVER", Err(Unknown)),
            ("unknown without a value", " REQUIRETLS", Err(Unknown)),
            ("a known one's beginning", " SIZ=1", Err(Unknown)),
            ("no keyword", " =1", Err(Bad)),
            ("a keyword that is none", " SI_ZE=1", Err(Bad)),
            ("a keyword beyond ASCII", " größe=1", Err(Bad)),
            ("a control octet", " X=\u{1}", Err(Bad)),
            ("a tab between", " SIZE=1\tBODY=7BIT", Err(Bad)),
            ("two equals signs", " X=a=b", Err(Bad)),
        ];
        for (name, text, expected) in rows {
            assert_eq!(mail_parameters(text), *expected, "{name}");
        }
    }
    #[test]
    fn parameters_of_rcpt() {
        use Addresses::{Ascii, Utf8};
        use ParameterError::{Bad, NoSpace, Repeated, Unknown};
        let none = RcptParameters::default();
        let notify = |success, failure, delay| {
            let notify = Some(Notify {
                success,
                failure,
                delay,
            });
            let orcpt = None;
            Ok(RcptParameters { notify, orcpt })
        };
        let never = || notify(false, false, false);
        let orcpt = |text| {
            let (notify, orcpt) = (None, Some(text));
            Ok(RcptParameters { notify, orcpt })
        };
        let both = RcptParameters {
            notify: Some(Notify::NEVER),
            orcpt: Some("rfc822;a@b"),
        };
        let long = |octets: usize| format!(" ORCPT=rfc822;{}", "x".repeat(octets - 7));
        let (orcpt_500, orcpt_501) = (long(500), long(501));
        let orcpt_500_value = orcpt_500.strip_prefix(" ORCPT=").unwrap();
        #[rustfmt::skip] // a row a line
        let rows: &[(&str, &str, Addresses, Result<RcptParameters<'_>, ParameterError>)] = &[
            ("none", "", Ascii, Ok(none.clone())),
            ("none but spaces", "  ", Ascii, Ok(none)),
            ("glued on", "NOTIFY=NEVER", Ascii, Err(NoSpace)),
            ("NEVER", " NOTIFY=NEVER", Ascii, never()),
            ("NEVER in any case", " notify=Never", Ascii, never()),
            ("SUCCESS", " NOTIFY=SUCCESS", Ascii, notify(true, false, false)),
            ("FAILURE", " NOTIFY=FAILURE", Ascii, notify(false, true, false)),
            ("DELAY", " NOTIFY=delay", Ascii, notify(false, false, true)),
            ("all in any order", " NOTIFY=delay,Success,FAILURE", Ascii, notify(true, true, true)),
            ("a word twice", " NOTIFY=DELAY,DELAY", Ascii, notify(false, false, true)),
            ("NEVER in front of another", " NOTIFY=NEVER,DELAY", Ascii, Err(Bad)),
            ("NEVER behind another", " NOTIFY=DELAY,NEVER", Ascii, Err(Bad)),
            ("NEVER twice", " NOTIFY=NEVER,NEVER", Ascii, Err(Bad)),
            ("an empty word", " NOTIFY=DELAY,,SUCCESS", Ascii, Err(Bad)),
            ("a comma at the end", " NOTIFY=DELAY,", Ascii, Err(Bad)),
            ("a comma alone", " NOTIFY=,", Ascii, Err(Bad)),
            ("another word", " NOTIFY=ALWAYS", Ascii, Err(Bad)),
            ("NOTIFY without a value", " NOTIFY", Ascii, Err(Bad)),
            ("NOTIFY with an empty value", " NOTIFY=", Ascii, Err(Bad)),
            ("NOTIFY twice", " NOTIFY=NEVER NOTIFY=NEVER", Ascii, Err(Repeated)),
            ("ORCPT", " ORCPT=rfc822;User@mx.test", Ascii, orcpt("rfc822;User@mx.test")),
            ("ORCPT in any case", " orcpt=RFC822;a@b", Ascii, orcpt("RFC822;a@b")),
            ("ORCPT in xtext", " ORCPT=rfc822;a+2Bb+20@c", Ascii, orcpt("rfc822;a+2Bb+20@c")),
            ("ORCPT of another type", " ORCPT=x-401;+2FS+3Da;b", Ascii, orcpt("x-401;+2FS+3Da;b")),
            ("ORCPT of 500 octets", &orcpt_500, Ascii, orcpt(orcpt_500_value)),
            ("ORCPT of 501 octets", &orcpt_501, Ascii, Err(Bad)),
            ("ORCPT without a type", " ORCPT=a@b", Ascii, Err(Bad)),
            ("ORCPT with an empty type", " ORCPT=;a@b", Ascii, Err(Bad)),
            ("ORCPT with a type that is no atom", " ORCPT=rfc.822;a@b", Ascii, Err(Bad)),
            ("ORCPT with a type beyond ASCII", " ORCPT=rfcü;a@b", Utf8, Err(Bad)),
            ("ORCPT without an address", " ORCPT=rfc822;", Ascii, Err(Bad)),
            ("ORCPT with a half hexchar", " ORCPT=rfc822;a+2", Ascii, Err(Bad)),
            ("ORCPT with a line end in xtext", " ORCPT=rfc822;a+0D+0Ab", Ascii, Err(Bad)),
            ("ORCPT beyond ASCII in xtext", " ORCPT=rfc822;+C3+BC@b", Utf8, Err(Bad)),
            ("ORCPT beyond ASCII", " ORCPT=rfc822;ü@b", Utf8, Err(Bad)),
            ("ORCPT with a bare plus", " ORCPT=rfc822;a+b@c", Ascii, Err(Bad)),
            ("ORCPT without a value", " ORCPT", Ascii, Err(Bad)),
            ("ORCPT twice", " ORCPT=rfc822;a ORCPT=rfc822;a", Ascii, Err(Repeated)),
            ("utf-8", " ORCPT=utf-8;ü@b", Utf8, orcpt("utf-8;ü@b")),
            ("utf-8 in any case", " ORCPT=UTF-8;ü@b", Utf8, orcpt("UTF-8;ü@b")),
            ("utf-8 outside SMTPUTF8", " ORCPT=utf-8;ü@b", Ascii, Err(Bad)),
            ("utf-8 in ASCII", r" ORCPT=utf-8;\x{FC}@b", Ascii, orcpt(r"utf-8;\x{FC}@b")),
            ("utf-8 in xtext", " ORCPT=utf-8;+C3+BC@b", Utf8, Err(Bad)),
            ("utf-8 with a line end", r" ORCPT=utf-8;\x{0A}@b", Utf8, Err(Bad)),
            ("utf-8 without an address", " ORCPT=utf-8;", Utf8, Err(Bad)),
            ("both", " ORCPT=rfc822;a@b NOTIFY=NEVER", Ascii, Ok(both)),
            ("one of MAIL", " RET=HDRS", Ascii, Err(Unknown)),
            ("unknown behind a known one", " NOTIFY=NEVER X", Ascii, Err(Unknown)),
            ("no keyword", " =", Ascii, Err(Bad)),
        ];
        for (name, text, addresses, expected) in rows {
            assert_eq!(rcpt_parameters(text, *addresses), *expected, "{name}");
        }
    }
}
