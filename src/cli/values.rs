//! Flag values: sizes, times, counts, addresses, networks, domains, choices.
//!
//! Apart from the flags because the same few forms serve all of them, and `check` writes values
//! back in the form in which they are read.
//! Claims:
//! - Every error text is one line, says what was expected, and leaves the flag's name to the caller.
//! - [`octets`] reads what [`write_octets`] writes, [`duration`] what [`write_duration`] writes.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;

use crate::deliver::target::Target;
use crate::smtp::server::LocalDomains;

/// A choice by name, shown in the help as the possible values.
pub(super) fn choice<T, const COUNT: usize>(
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
pub(super) fn yes_no() -> impl TypedValueParser<Value = bool> {
    choice([("yes", true), ("no", false)])
}

/// A size: plain octets, or with `k`, `M`, `G` (1024).
///
/// The letters are taken in either case: nginx and Postfix users write `10m`, and there is no
/// smaller unit to confuse it with.
pub(super) fn octets(text: &str) -> Result<u64, String> {
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
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A time: a number with `ms`, `s`, `m`, `h` or `d`.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
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
pub(super) fn count<T>(
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
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be ADDR:PORT, as in 0.0.0.0:25 or [::]:25 (an address, not a name)".to_owned()
    })
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
pub(super) fn domain(text: &str) -> Result<String, String> {
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
pub(super) fn mail_domain(text: &str) -> Result<String, String> {
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

/// `maildir:DIR` or `discard`.
pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse::<Target>().map_err(|error| error.to_string())
}

/// `DOMAIN=TARGET`.
pub(super) fn route(text: &str) -> Result<(String, Target), String> {
    let (name, way) = text.split_once('=').ok_or("must be DOMAIN=TARGET")?;
    Ok((mail_domain(name)?, target(way)?))
}

/// A size in the largest unit that divides it.
pub(super) fn write_octets(octets: u64) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "k")] {
        if octets != 0 && octets.trailing_zeros() >= shift {
            return format!("{}{unit}", octets >> shift);
        }
    }
    octets.to_string()
}

/// A time in the largest unit that divides it.
pub(super) fn write_duration(duration: Duration) -> String {
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
const DOMAIN_FORM: &str = "must be a domain name, as in mx.example.org";

/// A pebibyte: far beyond any message, and sums of a few cannot overflow.
const OCTETS_MAX: u64 = 1 << 50;

/// Ten years: a deadline that far ahead can still be added to a clock.
const TIME_MAX_DAYS: u64 = 3650;
const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

/// More threads than any machine this was thought for has cores.
const SHARDS_MAX: usize = 1024;
