//! Queue ids: the name under which a message was accepted.
//!
//! The time in microseconds, and the shard in the lowest ten bits; shown in Crockford's base 32, lower case,
//! so that ids sort by time as numbers and as texts. Unique within a server because a shard never gives the
//! same microsecond twice, and over restarts because it goes on behind the newest id that its log has.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of an accepted message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u64);

/// What is no queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id: one has {TEXT_OCTETS} letters and digits")]
pub struct NotAQueueId;

impl QueueId {
    /// The id with this number.
    pub(super) fn from_number(number: u64) -> QueueId {
        QueueId(number)
    }

    /// The number, by which ids sort.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_OCTETS];
        let mut number = self.0;
        for digit in text.iter_mut().rev() {
            let found = usize::try_from(number % 32)
                .ok()
                .and_then(|at| DIGITS.get(at));
            *digit = found.copied().unwrap_or(b'0');
            number /= 32;
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<QueueId, NotAQueueId> {
        if text.len() != TEXT_OCTETS {
            return Err(NotAQueueId);
        }
        let mut number: u64 = 0;
        for letter in text.bytes() {
            let letter = letter.to_ascii_lowercase();
            let digit = DIGITS.iter().position(|digit| *digit == letter);
            let digit = digit.and_then(|digit| u64::try_from(digit).ok());
            number = number
                .checked_mul(32)
                .and_then(|number| number.checked_add(digit?))
                .ok_or(NotAQueueId)?;
        }
        Ok(QueueId(number))
    }
}

/// Gives out queue ids for one shard.
#[derive(Debug)]
pub struct QueueIds {
    shard: u64,
    last_microseconds: Cell<u64>,
}

impl QueueIds {
    /// Ids of this shard.
    pub fn new(shard: usize) -> QueueIds {
        let shard = u64::try_from(shard).unwrap_or(u64::MAX);
        QueueIds {
            shard: shard % (1 << SHARD_BITS),
            last_microseconds: Cell::new(0),
        }
    }

    /// Gives no id up to `id`, whatever the clock says.
    pub fn go_on_behind(&self, id: QueueId) {
        let microseconds = id.0 >> SHARD_BITS;
        self.last_microseconds
            .set(self.last_microseconds.get().max(microseconds));
    }

    /// An id that was not given before.
    pub fn next(&self, now: SystemTime) -> QueueId {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let microseconds = now.max(self.last_microseconds.get().saturating_add(1));
        self.last_microseconds.set(microseconds);
        QueueId((microseconds << SHARD_BITS) | self.shard)
    }
}

/// Crockford's: no letter that passes for a digit.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 64 bits, five a digit.
const TEXT_OCTETS: usize = 13;

/// 1024 shards; the 54 bits above last until the year 2540.
const SHARD_BITS: u32 = 10;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_500_000)
    }

    #[test]
    fn ids_differ_even_when_the_clock_stands_or_goes_back() {
        let (first, second) = (QueueIds::new(0), QueueIds::new(1));
        let mut seen = HashSet::new();
        for step in 0..100 {
            let now = now() - Duration::from_millis(step);
            assert!(seen.insert(first.next(now)));
            assert!(seen.insert(second.next(now)));
        }
    }

    #[test]
    fn ids_go_on_behind_those_of_the_log_when_the_clock_went_back() {
        let before = QueueIds::new(3).next(now());
        let ids = QueueIds::new(3);
        ids.go_on_behind(before);
        let after = ids.next(now() - Duration::from_secs(3600));
        assert!(after > before, "{after} {before}");
    }

    #[test]
    fn ids_are_short_plain_sorted_and_parse() {
        let ids = QueueIds::new(1023);
        let mut last: Option<(QueueId, String)> = None;
        for step in 0..1000 {
            let id = ids.next(now() + Duration::from_micros(step * 37));
            let text = id.to_string();
            assert_eq!(text.len(), TEXT_OCTETS);
            assert!(
                text.bytes()
                    .all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit())
            );
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
            if let Some((id_before, text_before)) = last {
                assert!(id > id_before && text > text_before);
            }
            last = Some((id, text));
        }
    }

    #[test]
    fn what_is_no_id() {
        for text in [
            "",
            "0",
            "zzzzzzzzzzzzz",
            "00000000000000",
            "0000000000!00",
            "0000000000l00",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(NotAQueueId), "{text}");
        }
    }
}
