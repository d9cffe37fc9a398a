//! Enhanced status codes as values (RFC 3463 §2): what a next hop said, and what a report says.

use std::fmt;

/// `class.subject.detail`, as in 5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Success, and the two kinds of failure.
    pub class: Class,
    /// What it is about: 1 the address, 4 the network, 7 security, and so on.
    pub subject: u16,
    /// What about that.
    pub detail: u16,
}

/// The first digit of a status and of a reply code (RFC 3463 §2, RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2: done.
    Success,
    /// 4: not now.
    Temporary,
    /// 5: never.
    Permanent,
}

impl Status {
    /// A status of this class.
    pub const fn new(class: Class, subject: u16, detail: u16) -> Status {
        Status {
            class,
            subject,
            detail,
        }
    }

    /// A failure that another attempt may heal.
    pub const fn temporary(subject: u16, detail: u16) -> Status {
        Status::new(Class::Temporary, subject, detail)
    }

    /// A failure for good.
    pub const fn permanent(subject: u16, detail: u16) -> Status {
        Status::new(Class::Permanent, subject, detail)
    }

    /// ```text
    /// status-code = class "." subject "." detail
    /// class       = "2" / "4" / "5"
    /// subject     = 1*3digit
    /// detail      = 1*3digit
    /// ```
    pub fn parse(text: &str) -> Option<Status> {
        let mut parts = text.split('.');
        let class = match parts.next()? {
            "2" => Class::Success,
            "4" => Class::Temporary,
            "5" => Class::Permanent,
            _ => return None,
        };
        let mut number = || {
            let digits = parts.next()?;
            let holds =
                matches!(digits.len(), 1..=3) && digits.bytes().all(|octet| octet.is_ascii_digit());
            holds.then(|| digits.parse().ok()).flatten()
        };
        let status = Status::new(class, number()?, number()?);
        parts.next().is_none().then_some(status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Success => 2,
            Class::Temporary => 4,
            Class::Permanent => 5,
        };
        write!(formatter, "{class}.{}.{}", self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_numbers() {
        let rows = [
            ("2.0.0", Some(Status::new(Class::Success, 0, 0))),
            ("4.4.7", Some(Status::temporary(4, 7))),
            ("5.1.10", Some(Status::permanent(1, 10))),
            ("5.999.999", Some(Status::permanent(999, 999))),
            ("3.1.1", None),
            ("5.1", None),
            ("5.1.1.1", None),
            ("5..1", None),
            ("5.1.1000", None),
            ("5.1.+1", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(Status::parse(text), expected, "{text}");
            if let Some(status) = expected {
                assert_eq!(status.to_string(), text);
            }
        }
    }
}
