//! Figures as people read them: three digits that count, and the unit that keeps them short.
//!
//! Invariants: a figure that is none (not finite) is `–`, never `NaN`; what is rounded up to the next unit is
//! written in that unit; no control octet of a foreign text reaches a terminal.

use std::borrow::Cow;

/// What stands where there is no figure.
pub(super) const NONE: &str = "–";

/// A time that is given in microseconds.
pub(super) fn time(us: f64) -> String {
    let (value, unit) = scaled(us);
    with_unit(&digits(value), unit)
}

/// The same for an axis: without digits that say nothing.
pub(super) fn tick_time(us: f64) -> String {
    let (value, unit) = scaled(us);
    with_unit(trimmed(&digits(value)), unit)
}

/// Times in one cell. A unit stands behind the last of those that it belongs to: `420/980µs/1.31ms`.
pub(super) fn times(all_us: &[f64]) -> String {
    let mut cell = String::new();
    let mut all = all_us.iter().map(|us| scaled(*us)).peekable();
    while let Some((value, unit)) = all.next() {
        cell.push_str(&digits(value));
        let next = all.peek();
        if next.is_none_or(|(_, next)| *next != unit) && value.is_finite() {
            cell.push_str(unit);
        }
        if next.is_some() {
            cell.push('/');
        }
    }
    cell
}

/// A figure with three digits that count; all of its digits from a thousand on.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        NONE.to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if size >= 99.95 {
        grouped(&format!("{value:.0}"))
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.995 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// A figure of an axis: as short as it is exact.
pub(super) fn tick(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let text = format!("{value:.6}");
    grouped(trimmed(&text))
}

/// A number of things.
pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// A number of octets.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are written")]
pub(super) fn octets(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["octets", "KiB", "MiB", "GiB"] {
        if value < 1023.5 {
            return if unit == "octets" {
                format!("{number} octets")
            } else {
                with_unit(&digits(value), unit)
            };
        }
        value /= 1024.0;
    }
    with_unit(&digits(value), "TiB")
}

/// A share, 0 to 1, in per cent.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        NONE.to_owned()
    } else if value == 0.0 || value >= 100.0 {
        format!("{value:.0} %")
    } else if value < 9.95 {
        format!("{value:.1} %")
    } else if value < 98.95 {
        format!("{value:.0} %")
    } else {
        // Nearly all is not all.
        format!("{:.1} %", value.min(99.9))
    }
}

/// A part of a whole; none of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `1 message`, `7 messages`.
pub(super) fn counted(number: u64, one: &str, several: &str) -> String {
    format!(
        "{} {}",
        count(number),
        if number == 1 { one } else { several }
    )
}

/// A text of which nothing can move a cursor, ring a bell or break a line.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    // What turns the direction of writing could show a text as another one.
    let turns = |letter: char| matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let unfit = |letter: char| letter.is_control() || turns(letter);
    if text.contains(unfit) {
        Cow::Owned(text.replace(unfit, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A time in the unit in which it has at most three digits before the point.
fn scaled(us: f64) -> (f64, &'static str) {
    if us.abs() >= 999_500.0 {
        (us / 1_000_000.0, "s")
    } else if us.abs() >= 999.5 {
        (us / 1000.0, "ms")
    } else {
        (us, "µs")
    }
}

fn with_unit(value: &str, unit: &str) -> String {
    if value == NONE {
        value.to_owned()
    } else {
        format!("{value} {unit}")
    }
}

/// Without zeros at the end of a fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

/// With commas between thousands.
fn grouped(text: &str) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut out = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (us, text) in [
            (0.0, "0 µs"),
            (0.25, "0.250 µs"),
            (1.0, "1.00 µs"),
            (42.04, "42.0 µs"),
            (999.4, "999 µs"),
            (999.6, "1.00 ms"),
            (1_310.0, "1.31 ms"),
            (99_960.0, "100 ms"),
            (999_499.0, "999 ms"),
            (999_600.0, "1.00 s"),
            (3_600e6, "3,600 s"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(time(us), text, "{us}");
        }
        assert_eq!(tick_time(1000.0), "1 ms");
        assert_eq!(tick_time(1500.0), "1.5 ms");
        assert_eq!(tick_time(500.0), "500 µs");
        assert_eq!(tick_time(200_000.0), "200 ms");
    }

    #[test]
    fn a_unit_stands_once_for_several_times() {
        for (all, text) in [
            (&[420.0, 980.0, 1_310.0][..], "420/980µs/1.31ms"),
            (&[1_310.0, 2_000.0, 12_100.0], "1.31/2.00/12.1ms"),
            (&[900.0, 20_000.0, 2e6], "900µs/20.0ms/2.00s"),
            (&[f64::NAN, 1.0], "–/1.00µs"),
            (&[], ""),
        ] {
            assert_eq!(times(all), text);
        }
    }

    #[test]
    fn figures_keep_what_counts() {
        for (value, text) in [
            (0.0, "0"),
            (0.0312, "0.031"),
            (0.997, "1.00"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (12_345_678.0, "12,345,678"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(digits(value), text);
        }
        assert_eq!(tick(0.2), "0.2");
        assert_eq!(tick(15_000.0), "15,000");
        assert_eq!(tick(0.0), "0");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(123_456), "123,456");
        assert_eq!(octets(999), "999 octets");
        assert_eq!(octets(2048), "2.00 KiB");
        assert_eq!(octets(35 << 20), "35.0 MiB");
        assert_eq!(octets(5 << 40), "5.00 TiB");
    }

    #[test]
    fn nearly_all_is_not_all() {
        for (value, text) in [
            (0.0, "0 %"),
            (0.031, "3.1 %"),
            (0.5, "50 %"),
            (0.98, "98 %"),
            (0.997, "99.7 %"),
            (0.999_99, "99.9 %"),
            (1.0, "100 %"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(percent(value), text);
        }
        assert_eq!(share(1, 0), None);
        assert_eq!(share(1, 4), Some(0.25));
    }

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        assert_eq!(printable("ok · é"), "ok · é");
        assert_eq!(
            printable("\x1b[2J\r\nx\u{9b}y\u{202e}"),
            "\u{fffd}[2J\u{fffd}\u{fffd}x\u{fffd}y\u{fffd}"
        );
    }
}
