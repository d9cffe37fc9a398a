//! Parameters of MAIL and RCPT (RFC 5321 §4.1.1.11; 1870, 6152, 3030, 6531, 4954).
//!
//! Apart from the command grammar because each extension adds its own here.
//! Invariants:
//! - What the EHLO reply does not offer is refused, never ignored.
//! - No parameter counts twice.

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
                .filter(|value| is_xtext(value))
                .ok_or(ParameterError::Bad)?;
            once(&mut parameters.auth, mailbox)?;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(parameters)
}

/// ```text
/// Rcpt-parameters = esmtp-param *(SP esmtp-param)
/// ```
/// No extension offered so far has one.
pub fn rcpt_parameters(text: &str) -> Result<(), ParameterError> {
    match esmtp_params(text)?.next() {
        None => Ok(()),
        Some(parameter) => esmtp_param(parameter).and(Err(ParameterError::Unknown)),
    }
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
/// xtext   = *( xchar / hexchar )             ; RFC 3461 §4
/// xchar   = %d33-42 / %d44-60 / %d62-126
/// hexchar = "+" 2(%x30-39 / %x41-46)
/// ```
fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let holds = match octet {
            b'+' => {
                let mut digit = || matches!(octets.next(), Some(b'0'..=b'9' | b'A'..=b'F'));
                digit() && digit()
            }
            33..=126 => octet != b'=',
            _ => false,
        };
        if !holds {
            return false;
        }
    }
    true
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
            ("unknown", " RET=HDRS", Err(Unknown)),
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
}
