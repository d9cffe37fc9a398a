//! Writes the time as text, cheaply: a log line needs it each time, and the date of a second once.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// Gives `write` the time as `2026-11-24T08:00:00.123Z`.
///
/// The text of the second is kept for each thread; within it only the last digits are new. A time
/// before 1970 or after 9999 is written as that of 1970.
pub(super) fn with_timestamp<T>(now: SystemTime, write: impl FnOnce(&str) -> T) -> T {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, millisecond) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    LAST.with(|last| {
        // Borrowed already: `write` logs. It then has a text of its own.
        let Ok(mut last) = last.try_borrow_mut() else {
            let mut own = Written {
                second: u64::MAX,
                text: String::new(),
            };
            own.set(second, millisecond);
            return write(&own.text);
        };
        last.set(second, millisecond);
        write(&last.text)
    })
}

/// What was written last.
struct Written {
    second: u64,
    text: String,
}

impl Written {
    fn set(&mut self, second: u64, millisecond: u32) {
        if self.second != second || self.text.len() != "2026-11-24T08:00:00.123Z".len() {
            let date = i64::try_from(second).ok().and_then(|second| {
                let date = jiff::Timestamp::from_second(second).ok()?.to_string();
                (date.len() == "2026-11-24T08:00:00Z".len()).then_some(date)
            });
            self.text.clear();
            self.text
                .push_str(date.as_deref().unwrap_or("1970-01-01T00:00:00Z"));
            self.second = second;
        }
        self.text.truncate("2026-11-24T08:00:00".len());
        self.text.push('.');
        for place in [100, 10, 1] {
            self.text
                .push(char::from_digit(millisecond / place % 10, 10).unwrap_or('0'));
        }
        self.text.push('Z');
    }
}

thread_local! {
    static LAST: RefCell<Written> = const {
        RefCell::new(Written { second: u64::MAX, text: String::new() })
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments() {
        let rows = [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (0, 7, "1970-01-01T00:00:00.007Z"),
            (1_795_507_200, 123, "2026-11-24T08:00:00.123Z"),
            (1_795_507_200, 999, "2026-11-24T08:00:00.999Z"),
            (1_795_507_201, 0, "2026-11-24T08:00:01.000Z"),
            (1_835_395_199, 50, "2028-02-28T23:59:59.050Z"),
            (1_835_481_599, 50, "2028-02-29T23:59:59.050Z"),
            (u64::MAX / 4, 0, "1970-01-01T00:00:00.000Z"),
        ];
        for (seconds, milliseconds, text) in rows {
            let Some(now) =
                UNIX_EPOCH.checked_add(Duration::new(seconds, milliseconds * 1_000_000))
            else {
                continue;
            };
            with_timestamp(now, |written| assert_eq!(written, text));
        }
    }

    #[test]
    fn a_writer_that_asks_again_gets_an_answer() {
        with_timestamp(UNIX_EPOCH, |outer| {
            with_timestamp(UNIX_EPOCH + Duration::from_secs(1), |inner| {
                assert_eq!(inner, "1970-01-01T00:00:01.000Z");
            });
            assert_eq!(outer, "1970-01-01T00:00:00.000Z");
        });
    }
}
