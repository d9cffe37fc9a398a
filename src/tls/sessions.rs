//! The sessions with next hops that can be resumed: kept as they come, taken for one connection each.
//!
//! Apart from the client because it is bookkeeping alone: it knows no OpenSSL, and time is an argument.
//! Invariants:
//! - What is taken is gone. A ticket of TLS 1.3 is for one use (RFC 8446 §C.4); a session of TLS 1.2 is put back
//!   by whoever has resumed it, so that one which makes a hop stumble is not offered twice.
//! - The newest of a key goes first, and none after its time.
//! - Neither keys, sessions of a key nor octets grow past their limits. What has waited longest goes.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The sessions of all keys. `Session` is OpenSSL's, but for the tests.
pub(super) struct Sessions<Session> {
    by_key: HashMap<Box<str>, Pool<Session>>,
    /// Of all sessions in `by_key`.
    octets: usize,
    /// Counts the sessions that came, so that keys have an age.
    turn: u64,
}

/// The sessions of one key, the newest last. Never empty.
struct Pool<Session> {
    kept: VecDeque<Kept<Session>>,
    /// When the newest came.
    turn: u64,
}

/// A session and what is known of it.
pub(super) struct Kept<Session> {
    pub(super) session: Session,
    /// When the full handshake was that it goes back to.
    pub(super) began: Instant,
    /// When it is of no more use.
    pub(super) expires: Instant,
    /// Its size, encoded.
    pub(super) octets: usize,
}

impl<Session> Sessions<Session> {
    pub(super) fn new() -> Sessions<Session> {
        Sessions {
            by_key: HashMap::new(),
            octets: 0,
            turn: 0,
        }
    }

    /// Keeps a session, unless it is too large.
    pub(super) fn keep(&mut self, key: &str, kept: Kept<Session>) {
        if kept.octets > SESSION_OCTETS_MAX {
            return;
        }
        self.turn += 1;
        self.octets += kept.octets;
        match self.by_key.get_mut(key) {
            Some(pool) => {
                pool.turn = self.turn;
                pool.kept.push_back(kept);
                if pool.kept.len() > SESSIONS_PER_KEY_MAX
                    && let Some(oldest) = pool.kept.pop_front()
                {
                    self.octets -= oldest.octets;
                }
            }
            None => {
                let pool = Pool {
                    kept: VecDeque::from([kept]),
                    turn: self.turn,
                };
                self.by_key.insert(key.into(), pool);
            }
        }
        while self.by_key.len() > KEYS_MAX || self.octets > OCTETS_MAX {
            self.forget_oldest();
        }
    }

    /// The newest session of the key that can still be used. It is the caller's from now on.
    pub(super) fn take(&mut self, key: &str, now: Instant) -> Option<Kept<Session>> {
        let pool = self.by_key.get_mut(key)?;
        let mut found = None;
        while found.is_none()
            && let Some(newest) = pool.kept.pop_back()
        {
            self.octets -= newest.octets;
            found = Some(newest).filter(|newest| now < newest.expires);
        }
        if pool.kept.is_empty() {
            self.by_key.remove(key);
        }
        found
    }

    /// Drops all sessions of the key.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(pool) = self.by_key.remove(key) {
            self.octets -= pool.kept.iter().map(|kept| kept.octets).sum::<usize>();
        }
    }

    /// Looks at every key, which is a few microseconds, a hundredth of the handshake that brought the session,
    /// and happens only while there are more next hops than keys.
    fn forget_oldest(&mut self) {
        let oldest = self.by_key.iter().min_by_key(|(_, pool)| pool.turn);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.forget(&key);
        }
    }

    /// How many sessions the key has.
    #[cfg(test)]
    pub(super) fn count(&self, key: &str) -> usize {
        self.by_key.get(key).map_or(0, |pool| pool.kept.len())
    }

    /// When the newest session of the key expires.
    #[cfg(test)]
    pub(super) fn expiry(&self, key: &str) -> Option<Instant> {
        Some(self.by_key.get(key)?.kept.back()?.expires)
    }
}

/// So many connections to one next hop resume at once; each brings what the next one needs.
pub(super) const SESSIONS_PER_KEY_MAX: usize = 4;

/// Next hops in a shard's memory. With a chain of three certificates and one ticket a key takes about 20 KiB.
pub(super) const KEYS_MAX: usize = 1024;

/// A ticket may have 64 KiB and a chain 100 KiB. Common are a few KiB, with certificates of post-quantum
/// signatures perhaps 20; whoever sends more gets full handshakes.
pub(super) const SESSION_OCTETS_MAX: usize = 32 * 1024;

/// In all, encoded; in memory it is about three times as much. What the two limits above leave to a peer
/// with many names is more than a shard should give.
pub(super) const OCTETS_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Sessions are numbers here; each is good for `seconds`.
    fn kept(session: u32, now: Instant, seconds: u64, octets: usize) -> Kept<u32> {
        Kept {
            session,
            began: now,
            expires: now + second(seconds),
            octets,
        }
    }

    /// Takes until nothing is left.
    fn drain(sessions: &mut Sessions<u32>, key: &str, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| sessions.take(key, now).map(|kept| kept.session)).collect()
    }

    #[test]
    fn what_is_given_out() {
        let now = Instant::now();
        /// A name; the sessions, each a number and how long it is good; what is taken at second 10.
        type Row<'a> = (&'a str, &'a [(u32, u64)], &'a [u32]);
        let table: [Row<'_>; 8] = [
            ("nothing", &[], &[]),
            ("one", &[(1, 60)], &[1]),
            ("the newest first", &[(1, 60), (2, 60), (3, 60)], &[3, 2, 1]),
            ("four", &[(1, 60), (2, 60), (3, 60), (4, 60)], &[4, 3, 2, 1]),
            (
                "the oldest of five goes",
                &[(1, 60), (2, 60), (3, 60), (4, 60), (5, 60)],
                &[5, 4, 3, 2],
            ),
            ("an expired one is passed over", &[(1, 60), (2, 9)], &[1]),
            ("its last moment is over", &[(1, 10), (2, 11)], &[2]),
            ("all expired", &[(1, 1), (2, 1)], &[]),
        ];
        for (name, given, expected) in table {
            let mut sessions = Sessions::new();
            for (session, seconds) in given {
                sessions.keep("mx", kept(*session, now, *seconds, 100));
            }
            assert_eq!(sessions.take("other", now).map(|kept| kept.session), None);
            assert_eq!(
                drain(&mut sessions, "mx", now + second(10)),
                expected,
                "{name}"
            );
            assert!(sessions.by_key.is_empty(), "{name}");
            assert_eq!(sessions.octets, 0, "{name}");
        }
    }

    #[test]
    fn what_is_forgotten_is_one_key() {
        let now = Instant::now();
        let mut sessions = Sessions::new();
        for session in 0..3 {
            sessions.keep("a", kept(session, now, 60, 100));
            sessions.keep("b", kept(session, now, 60, 100));
        }
        sessions.forget("a");
        sessions.forget("never there");
        assert_eq!(sessions.octets, 300);
        assert_eq!(drain(&mut sessions, "a", now), [0; 0]);
        assert_eq!(drain(&mut sessions, "b", now), [2, 1, 0]);
    }

    #[test]
    fn the_key_that_waited_longest_goes_first() {
        let now = Instant::now();
        let mut sessions = Sessions::new();
        let key = |number: usize| format!("mx{number}");
        for number in 0..KEYS_MAX {
            sessions.keep(&key(number), kept(1, now, 60, 100));
        }
        assert_eq!(sessions.by_key.len(), KEYS_MAX);
        // The very first key has something new, so the second is the oldest.
        sessions.keep(&key(0), kept(2, now, 60, 100));
        assert_eq!(sessions.by_key.len(), KEYS_MAX);
        sessions.keep(&key(KEYS_MAX), kept(1, now, 60, 100));
        assert_eq!(sessions.by_key.len(), KEYS_MAX);
        assert_eq!(sessions.count(&key(0)), 2);
        assert_eq!(sessions.count(&key(1)), 0);
        assert_eq!(sessions.count(&key(2)), 1);
        assert_eq!(sessions.count(&key(KEYS_MAX)), 1);
    }

    #[test]
    fn octets_are_bounded() {
        let now = Instant::now();
        let mut sessions = Sessions::new();
        sessions.keep("too large", kept(1, now, 60, SESSION_OCTETS_MAX + 1));
        assert_eq!((sessions.count("too large"), sessions.octets), (0, 0));

        let room = OCTETS_MAX / SESSION_OCTETS_MAX;
        for number in 0..=room {
            sessions.keep(&format!("mx{number}"), kept(1, now, 60, SESSION_OCTETS_MAX));
        }
        assert_eq!(sessions.octets, OCTETS_MAX);
        assert_eq!(sessions.count("mx0"), 0);
        assert_eq!(sessions.count("mx1"), 1);
        // Small ones make room by as much as is needed, and no more.
        sessions.keep("small", kept(1, now, 60, 1));
        assert_eq!(sessions.octets, OCTETS_MAX - SESSION_OCTETS_MAX + 1);
        assert_eq!(sessions.count("mx1"), 0);
        assert_eq!(sessions.count("mx2"), 1);
    }
}
