//! Queue ids: the name under which a message was accepted.
//!
//! Ten or more digits of the time in microseconds and two of the shard, in Crockford's base 32, lower case.
//! Unique within a server because a shard never gives the same microsecond twice, and over restarts as long
//! as the clock does not go back.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// A shard's source of queue ids.
#[derive(Debug)]
pub struct QueueIds {
    shard: u64,
    last_microseconds: Cell<u64>,
}

impl QueueIds {
    /// For the shard of this number.
    pub fn new(shard: usize) -> QueueIds {
        let shard = u64::try_from(shard).unwrap_or(u64::MAX);
        QueueIds {
            shard,
            last_microseconds: Cell::new(0),
        }
    }

    /// A new id.
    pub fn next(&self, now: SystemTime) -> String {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let microseconds = now.max(self.last_microseconds.get().saturating_add(1));
        self.last_microseconds.set(microseconds);
        let mut id = String::with_capacity(13);
        push_digits(&mut id, microseconds, 10);
        push_digits(&mut id, self.shard, 2);
        id
    }
}

/// Appends `number` with at least `digits_min` digits.
fn push_digits(text: &mut String, number: u64, digits_min: u32) {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digits = (64 - number.leading_zeros()).div_ceil(5).max(digits_min);
    for place in (0..digits).rev() {
        let digit = number.checked_shr(place * 5).unwrap_or(0) % 32;
        let digit = usize::try_from(digit)
            .ok()
            .and_then(|digit| DIGITS.get(digit));
        text.push(char::from(digit.copied().unwrap_or(b'0')));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_differ_even_when_the_clock_stands_or_goes_back() {
        let (first, second) = (QueueIds::new(0), QueueIds::new(1));
        let now = UNIX_EPOCH + Duration::from_secs(1_795_500_000);
        let mut seen = HashSet::new();
        for step in 0..100 {
            let now = now - Duration::from_millis(step);
            assert!(seen.insert(first.next(now)));
            assert!(seen.insert(second.next(now)));
        }
    }

    #[test]
    fn ids_are_short_and_plain() {
        let id = QueueIds::new(3).next(UNIX_EPOCH + Duration::from_secs(1_795_500_000));
        assert!((12..=13).contains(&id.len()), "{id}");
        assert!(
            id.bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit())
        );
        assert!(id.ends_with("03"), "{id}");
    }
}
