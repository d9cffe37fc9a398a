//! Flag values: sizes, times, counts, addresses, networks, domains, choices.
//!
//! Apart from the flags because the same few forms serve all of them, and `check` writes values
//! back in the form in which they are read.
//! Claims:
//! - Every error text is one line, says what was expected, and leaves the flag's name to the caller.
//! - [`octets`] reads what [`write_octets`] writes, [`duration`] what [`write_duration`] writes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;

use crate::config::LoginFile;
use crate::deliver::RetrySchedule;
use crate::deliver::target::{Target, without_brackets};
use crate::smtp::server::LocalDomains;

/// A choice by name, shown in the help as the possible values.
pub fn choice<T, const COUNT: usize>(
    choices: [(&'static str, T); COUNT],
) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
    PossibleValuesParser::new(names).try_map(move |given| {
        let chosen = choices.iter().find(|(name, _)| *name == given);
        chosen
            .map(|(_, value)| value.clone())
            .ok_or("not one of the choices")
    })
}

/// `yes|no`.
pub fn yes_no() -> impl TypedValueParser<Value = bool> {
    choice([("yes", true), ("no", false)])
}

/// A size: plain octets, or with `k`, `M`, `G` (1024).
///
/// The letters are taken in either case: nginx and Postfix users write `10m`, and there is no
/// smaller unit to confuse it with.
pub fn octets(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let number: u64 = whole_number(number).ok_or(SIZE_FORM)?;
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(SIZE_FORM.to_owned()),
    };
    let octets = number
        .checked_mul(1 << shift)
        .filter(|octets| *octets <= OCTETS_MAX);
    match octets {
        None => Err("too large".to_owned()),
        Some(0) => Err("must be at least 1".to_owned()),
        Some(octets) => Ok(octets),
    }
}

/// A time longer than nothing: a number with `ms`, `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A time: a number with `ms`, `s`, `m`, `h` or `d`.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let number: u64 = whole_number(number).ok_or(TIME_FORM)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => DAY_MILLISECONDS,
        "" => return Err(format!("a unit is missing: {TIME_FORM}")),
        _ => return Err(TIME_FORM.to_owned()),
    };
    match number.checked_mul(milliseconds) {
        Some(total) if total <= TIME_MAX_DAYS * DAY_MILLISECONDS => {
            Ok(Duration::from_millis(total))
        }
        Some(_) | None => Err(format!("too long: at most {TIME_MAX_DAYS}d")),
    }
}

/// When a sender is told that its message waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    After(Duration),
    Never,
}

/// `DURATION|never`.
pub(super) fn notice(text: &str) -> Result<Notice, String> {
    if text == "never" {
        return Ok(Notice::Never);
    }
    let after = duration(text).map(Notice::After);
    after.map_err(|error| format!("{error}, or \"never\""))
}

/// Times between attempts, with commas between them.
pub(super) fn retry_schedule(text: &str) -> Result<RetrySchedule, String> {
    let waits: Result<Vec<Duration>, String> = text
        .split(',')
        .map(|wait| duration(wait.trim()).map_err(|error| format!("{wait:?}: {error}")))
        .collect();
    RetrySchedule::new(waits?).ok_or_else(|| "must have one time at least".to_owned())
}

/// A ticket's lifetime: RFC 8446 §4.6.1 allows no more than seven days.
pub(super) fn ticket_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
    if bounds.contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("must be between 1s and 7d (RFC 8446 section 4.6.1)".to_owned())
    }
}

/// A whole number within bounds.
pub fn count<T>(
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<u64> + Copy + PartialOrd + std::fmt::Display + Send + Sync + 'static,
{
    move |text| {
        let number = whole_number(text).and_then(|number| T::try_from(number).ok());
        match number {
            Some(number) if bounds.contains(&number) => Ok(number),
            Some(_) | None => Err(format!(
                "must be a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            )),
        }
    }
}

/// `N|cores`.
pub(super) fn shards(text: &str) -> Result<NonZeroUsize, String> {
    if text == "cores" {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    }
    let bounds = 1..=SHARDS_MAX;
    let number = whole_number(text).and_then(|number| usize::try_from(number).ok());
    number
        .filter(|number| bounds.contains(number))
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| format!("must be \"cores\" or a whole number from 1 to {SHARDS_MAX}"))
}

/// `ADDR:PORT`, an IPv6 address in brackets. Names are not looked up: no start waits for DNS.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be ADDR:PORT, as in 0.0.0.0:25 or [::]:25 (an address, not a name)".to_owned()
    })
}

/// `ADDR:PORT` of a server that is asked.
pub fn server_address(text: &str) -> Result<SocketAddr, String> {
    match address(text)? {
        server if server.port() == 0 => Err("the port must be a number from 1 to 65535".to_owned()),
        server => Ok(server),
    }
}

/// `ADDR/BITS`, or one address.
///
/// Set bits behind the prefix are refused as Postfix refuses them: the writer meant another
/// network or another length, and a guess would open a relay.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().map_err(|_| {
            "must be ADDR/BITS or an address, as in 192.0.2.0/24 or 2001:db8::/32".to_owned()
        })?),
    };
    if network.addr() == network.network() {
        Ok(network)
    } else {
        Err(format!(
            "has bits set behind its prefix; perhaps {} is meant",
            network.trunc()
        ))
    }
}

/// A domain name, kept as a lower-case A-label form (RFC 5890) without a closing dot.
pub fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let ascii = idna::domain_to_ascii_strict(name).map_err(|_| DOMAIN_FORM.to_owned())?;
    // An address would pass the rules for labels, but it is not a name of anything.
    if ascii.is_empty() || ascii.parse::<std::net::IpAddr>().is_ok() {
        return Err(DOMAIN_FORM.to_owned());
    }
    Ok(ascii)
}

/// A domain name, or an address literal in brackets (RFC 5321 §4.1.3), in the form in which the
/// session compares the domains of recipients.
pub fn mail_domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match LocalDomains::new(name, []) {
        Ok(domains) => Ok(domains.first().to_owned()),
        Err(_) => Err(
            "must be a domain name, as in example.org, or an address literal, as in \
                       [192.0.2.1]"
                .to_owned(),
        ),
    }
}

/// The text behind the host name in the greeting: `textstring` of RFC 5321 §4.2.
pub(super) fn greeting(text: &str) -> Result<String, String> {
    if text
        .bytes()
        .all(|octet| octet == b'\t' || (b' '..=b'~').contains(&octet))
    {
        Ok(text.to_owned())
    } else {
        Err("must be printable ASCII on one line (RFC 5321 section 4.2)".to_owned())
    }
}

/// A way for mail to go; [`Target`] has the grammar.
pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse::<Target>().map_err(|error| error.to_string())
}

/// `DOMAIN=TARGET`.
pub(super) fn route(text: &str) -> Result<(String, Target), String> {
    let (name, way) = text.split_once('=').ok_or("must be DOMAIN=TARGET")?;
    Ok((mail_domain(name)?, target(way)?))
}

/// `DOMAIN=USER:FILE`. The user's name may hold an `@`, the path a colon.
pub(super) fn login(text: &str) -> Result<LoginFile, String> {
    let (place, login) = text.split_once('=').ok_or(LOGIN_FORM)?;
    let (name, password) = login.split_once(':').ok_or(LOGIN_FORM)?;
    let place = match without_brackets(place).parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => domain(place)?,
    };
    if name.is_empty() {
        return Err("the user's name is missing".to_owned());
    }
    // NUL divides the fields of PLAIN (RFC 4616 §2), and `check` prints the name on a line.
    if name.contains(char::is_control) {
        return Err("the user's name cannot hold control characters".to_owned());
    }
    if password.is_empty() {
        return Err("the file with the password is missing".to_owned());
    }
    let (name, password) = (name.to_owned(), password.into());
    Ok(LoginFile {
        place,
        name,
        password,
    })
}

/// A size in the largest unit that divides it.
pub fn write_octets(octets: u64) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "k")] {
        if octets != 0 && octets.trailing_zeros() >= shift {
            return format!("{}{unit}", octets >> shift);
        }
    }
    octets.to_string()
}

/// A time in the largest unit that divides it.
pub fn write_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units: [(u128, &str); 4] = [
        (DAY_MILLISECONDS as u128, "d"),
        (60 * 60 * 1000, "h"),
        (60 * 1000, "m"),
        (1000, "s"),
    ];
    for (unit_milliseconds, unit) in units {
        if milliseconds != 0 && milliseconds.is_multiple_of(unit_milliseconds) {
            return format!("{}{unit}", milliseconds / unit_milliseconds);
        }
    }
    if milliseconds == 0 {
        "0s".to_owned()
    } else {
        format!("{milliseconds}ms")
    }
}

/// Parts "15ms" behind its digits.
fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).unwrap_or((text, ""))
}

/// Digits only: `u64::from_str` alone would take "+5".
fn whole_number(text: &str) -> Option<u64> {
    if text.bytes().all(|octet| octet.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

const SIZE_FORM: &str = "must be a number of octets, or a number with k, M or G, as in 50M";
const TIME_FORM: &str = "must be a number with ms, s, m, h or d, as in 300s";
const LOGIN_FORM: &str = "must be DOMAIN=USER:FILE, as in mx.example.org=us:/etc/password";
const DOMAIN_FORM: &str = "must be a domain name, as in mx.example.org";

/// A pebibyte: far beyond any message, and sums of a few cannot overflow.
const OCTETS_MAX: u64 = 1 << 50;

/// Ten years: a deadline that far ahead can still be added to a clock.
const TIME_MAX_DAYS: u64 = 3650;
const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

/// More threads than any machine this was thought for has cores.
const SHARDS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let rows: &[(&str, &str, Option<u64>)] = &[
            ("octets", "512", Some(512)),
            ("k", "5k", Some(5 << 10)),
            ("M", "50M", Some(50 << 20)),
            ("G", "2G", Some(2 << 30)),
            ("upper-case K", "5K", Some(5 << 10)),
            ("lower-case m", "50m", Some(50 << 20)),
            ("leading zeros", "007", Some(7)),
            ("the largest", "1048576G", Some(1 << 50)),
            ("one over it", "1125899906842625", None),
            ("overflowing the unit", "18446744073709551615G", None),
            ("overflowing the number", "18446744073709551616", None),
            ("nothing of it", "0", None),
            ("nothing of a unit", "0M", None),
            ("empty", "", None),
            ("a unit alone", "M", None),
            ("a sign", "+5", None),
            ("negative", "-5", None),
            ("a fraction", "1.5M", None),
            ("two letters", "5MB", None),
            ("an unknown unit", "5T", None),
            ("a blank", "5 M", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(octets(text).ok(), *expected, "{name}");
        }
    }

    #[test]
    fn times() {
        let rows: &[(&str, &str, Option<u64>)] = &[
            ("ms", "250ms", Some(250)),
            ("s", "300s", Some(300_000)),
            ("m", "5m", Some(300_000)),
            ("h", "1h", Some(3_600_000)),
            ("d", "2d", Some(172_800_000)),
            ("the longest", "3650d", Some(3650 * 86_400_000)),
            ("one over it", "3651d", None),
            ("overflowing", "18446744073709551615d", None),
            ("no unit", "300", None),
            ("zero", "0s", None),
            ("two units", "1h30m", None),
            ("upper case", "5M", None),
            ("a unit alone", "s", None),
            ("empty", "", None),
            ("a fraction", "1.5h", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(
                duration(text).ok(),
                expected.map(Duration::from_millis),
                "{name}"
            );
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        let missing = duration("300").unwrap_err();
        assert!(
            missing.contains("unit") && missing.contains("ms, s, m, h or d"),
            "{missing}"
        );
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for size in [
            1,
            512,
            1023,
            1024,
            1025,
            5 << 20,
            1 << 30,
            (1 << 30) + 1,
            1 << 50,
        ] {
            assert_eq!(octets(&write_octets(size)), Ok(size));
        }
        for milliseconds in [
            0, 1, 999, 1000, 60_000, 90_000, 3_600_000, 86_400_000, 86_400_001,
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(duration_or_zero(&write_duration(time)), Ok(time));
        }
        assert_eq!(write_octets(50 << 20), "50M");
        assert_eq!(write_duration(Duration::from_secs(300)), "5m");
    }

    #[test]
    fn ticket_lifetimes() {
        for (text, valid) in [
            ("1s", true),
            ("7d", true),
            ("999ms", false),
            ("169h", false),
        ] {
            assert_eq!(ticket_lifetime(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn counts() {
        let small = count(1_u32..=10);
        let rows = [
            ("1", true),
            ("10", true),
            ("0", false),
            ("11", false),
            ("-1", false),
            ("", false),
        ];
        for (text, valid) in rows {
            assert_eq!(small(text).is_ok(), valid, "{text:?}");
        }
        assert!(count(0_u32..=u32::MAX)("4294967296").is_err());
        assert!(shards("cores").is_ok());
        for (text, valid) in [("1", true), ("1024", true), ("1025", false), ("0", false)] {
            assert_eq!(shards(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn addresses() {
        let rows = [
            ("IPv4", "0.0.0.0:25", true),
            ("port 0", "127.0.0.1:0", true),
            ("IPv6 in brackets", "[::1]:25", true),
            ("IPv6 without brackets", "::1:25", false),
            ("no port", "127.0.0.1", false),
            ("a port alone", ":25", false),
            ("a name", "localhost:25", false),
            ("a port too high", "127.0.0.1:65536", false),
        ];
        for (name, text, valid) in rows {
            assert_eq!(address(text).is_ok(), valid, "{name}");
            let asked = valid && !text.ends_with(":0");
            assert_eq!(server_address(text).is_ok(), asked, "{name}");
        }
    }

    #[test]
    fn networks() {
        let rows = [
            ("a network", "192.0.2.0/24", Ok("192.0.2.0/24")),
            ("one address", "192.0.2.1", Ok("192.0.2.1/32")),
            ("one IPv6 address", "2001:db8::1", Ok("2001:db8::1/128")),
            ("everything", "0.0.0.0/0", Ok("0.0.0.0/0")),
            ("bits behind the prefix", "10.0.0.1/8", Err("10.0.0.0/8")),
            ("a prefix too long", "10.0.0.0/33", Err("must be")),
            ("brackets", "[::1]/128", Err("must be")),
            ("a name", "example.org", Err("must be")),
        ];
        for (name, text, expected) in rows {
            match (network(text), expected) {
                (Ok(network), Ok(expected)) => assert_eq!(network.to_string(), expected, "{name}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{name}: {error}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn domains() {
        let rows = [
            ("a name", "mx.example.org", Some("mx.example.org")),
            ("one label", "localhost", Some("localhost")),
            ("upper case", "MX.Example.ORG", Some("mx.example.org")),
            ("a closing dot", "mx.example.org.", Some("mx.example.org")),
            (
                "U-labels",
                "b\u{fc}cher.example",
                Some("xn--bcher-kva.example"),
            ),
            ("an underscore", "my_host", None),
            ("an empty label", "mx..org", None),
            ("a hyphen in front", "-mx.org", None),
            ("a blank", "mx example", None),
            ("an address", "192.0.2.1", None),
            ("an address literal", "[192.0.2.1]", None),
            ("empty", "", None),
            ("a line end", "mx\r\nexample", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(domain(text).ok().as_deref(), expected, "{name}");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert!(domain(&long).is_err());
    }

    #[test]
    fn mail_domains() {
        let rows = [
            ("a name", "Example.ORG", Some("example.org")),
            ("a closing dot", "example.org.", Some("example.org")),
            ("an address literal", "[192.0.2.1]", Some("[192.0.2.1]")),
            ("a mailbox", "a@example.org", None),
            ("a path's end", "example.org>", None),
            ("empty", "", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(mail_domain(text).ok().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn logins() {
        let rows = [
            ("a host", "mx.test=us:f", Ok(("mx.test", "us", "f"))),
            ("upper case", "MX.Test=Us:F", Ok(("mx.test", "Us", "F"))),
            (
                "U-labels",
                "b\u{fc}cher.test=us:f",
                Ok(("xn--bcher-kva.test", "us", "f")),
            ),
            (
                "a mailbox's name",
                "mx.test=us@a.test:f",
                Ok(("mx.test", "us@a.test", "f")),
            ),
            (
                "a sign in the name",
                "mx.test=u=s:f",
                Ok(("mx.test", "u=s", "f")),
            ),
            (
                "a colon in the path",
                "mx.test=us:a:b",
                Ok(("mx.test", "us", "a:b")),
            ),
            ("an address", "192.0.2.1=us:f", Ok(("192.0.2.1", "us", "f"))),
            (
                "a literal",
                "[192.0.2.1]=us:f",
                Ok(("192.0.2.1", "us", "f")),
            ),
            ("IPv6", "2001:DB8::1=us:f", Ok(("2001:db8::1", "us", "f"))),
            (
                "IPv6 as in a target",
                "[2001:db8::1]=us:f",
                Ok(("2001:db8::1", "us", "f")),
            ),
            (
                "IPv6 as in a mailbox",
                "[IPv6:2001:db8::1]=us:f",
                Ok(("2001:db8::1", "us", "f")),
            ),
            ("no sign", "mx.test:us:f", Err("must be DOMAIN=USER:FILE")),
            ("no colon", "mx.test=us", Err("must be DOMAIN=USER:FILE")),
            ("no domain", "=us:f", Err("must be a domain name")),
            ("a port", "mx.test:25=us:f", Err("must be a domain name")),
            (
                "a name in brackets",
                "[mx.test]=us:f",
                Err("must be a domain name"),
            ),
            ("no name", "mx.test=:f", Err("the user's name is missing")),
            ("no file", "mx.test=us:", Err("the file with the password")),
            ("a tab", "mx.test=u\ts:f", Err("the user's name cannot")),
        ];
        for (name, text, expected) in rows {
            match (login(text), expected) {
                (Ok(login), Ok(expected)) => {
                    let password = login.password.to_str().unwrap();
                    let got = (login.place.as_str(), login.name.as_str(), password);
                    assert_eq!(got, expected, "{name}");
                }
                (Err(error), Err(expected)) => {
                    assert!(error.starts_with(expected), "{name}: {error}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn notices() {
        let hour = Notice::After(Duration::from_secs(3600));
        let rows = [
            ("1h", Ok(hour)),
            ("never", Ok(Notice::Never)),
            ("0s", Err("must be longer than 0, or \"never\"")),
            (
                "Never",
                Err("must be a number with ms, s, m, h or d, as in 300s, or \"never\""),
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(notice(text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn greetings() {
        for (text, valid) in [
            ("ESMTP ringpost", true),
            ("tab\tand ~", true),
            ("", true),
            ("two\r\nlines", false),
            ("gr\u{fc}\u{df}e", false),
            ("\u{7f}", false),
        ] {
            assert_eq!(greeting(text).is_ok(), valid, "{text:?}");
        }
    }

    #[test]
    fn routes() {
        let discard = || Some(("example.org".to_owned(), Target::Discard));
        let rows = [
            ("a domain", "example.org=discard", discard()),
            ("upper case", "Example.Org=discard", discard()),
            ("no target", "example.org", None),
            ("an unknown target", "example.org=nowhere", None),
            ("no domain", "=discard", None),
            (
                "an address literal to a host",
                "[192.0.2.1]=smtp:[::1]:25",
                Some(("[192.0.2.1]".to_owned(), "smtp:[::1]:25".parse().unwrap())),
            ),
            ("a host without a port", "example.org=smtp:mx.test", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(route(text).ok(), expected, "{name}");
        }
        let with_sign = route("example.org=maildir:/a=b").unwrap();
        assert_eq!(with_sign.1.to_string(), "maildir:/a=b");
    }
}
