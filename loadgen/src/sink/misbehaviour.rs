//! What a sink was told to do wrong, and when.
//!
//! Invariants:
//! - Which occurrences of a stage a share falls on depends on the seed, the rule and the number of
//!   the occurrence, and on nothing else: neither on time nor on which thread met it.
//! - A stage without rules costs one look at an empty list.
//!
//! Not promised: the same choice by another release of the program.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::stage::{ByStage, Stage};

/// One thing to do wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Where.
    pub stage: Stage,
    /// How often.
    pub share: Share,
    /// What.
    pub act: Act,
}

/// A share of the occurrences of a stage, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// Every time.
    pub const ALL: Share = Share(1.0);

    /// A number from 0 to 1.
    pub fn new(share: f64) -> Option<Share> {
        (0.0..=1.0).contains(&share).then_some(Share(share))
    }
}

/// What to do instead of answering well and at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answers later.
    Delay(Duration),
    /// Closes the connection without an answer.
    Drop,
    /// Answers with this instead.
    Refuse(Refusal),
}

/// A negative answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A reply of one line, CR LF included.
    Reply {
        /// Its octets.
        octets: Box<[u8]>,
        /// Whether it is 421, behind which the connection is closed (RFC 5321 §3.8).
        closes: bool,
    },
    /// A fatal TLS alert (RFC 8446 §6.2), in place of a handshake.
    Alert(u8),
}

impl Refusal {
    /// The reply `text`, which begins with a code of 4yz or 5yz.
    pub fn reply(text: &str) -> Option<Refusal> {
        let code = text.get(..3)?;
        let holds = matches!(code.as_bytes(), [b'4' | b'5', b'0'..=b'5', b'0'..=b'9'])
            && matches!(text.as_bytes().get(3), None | Some(b' '))
            && text.bytes().all(|octet| matches!(octet, b' '..=b'~'))
            && text.len() + 2 <= REPLY_OCTETS_MAX;
        holds.then(|| Refusal::Reply {
            octets: format!("{text}\r\n").into_bytes().into_boxed_slice(),
            closes: code == "421",
        })
    }
}

/// RFC 5321 §4.5.3.1.5, CR LF included.
const REPLY_OCTETS_MAX: usize = 512;

/// What becomes of one occurrence of a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement<'r> {
    /// Waited before anything else.
    pub(super) delay: Duration,
    pub(super) ending: Ending<'r>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending<'r> {
    Grant,
    Drop,
    Refuse(&'r Refusal),
}

/// All rules, by stage.
#[derive(Debug, Default)]
pub(super) struct Misbehaviour(ByStage<Vec<Armed>>);

#[derive(Debug)]
struct Armed {
    rule: Rule,
    key: u64,
    /// Occurrences met so far. Shared by the threads, and touched for true shares only.
    met: AtomicU64,
}

impl Misbehaviour {
    pub(super) fn new(rules: &[Rule], seed: u64) -> Misbehaviour {
        let mut keys = SmallRng::seed_from_u64(seed);
        let mut by_stage = ByStage::<Vec<Armed>>::default();
        for rule in rules {
            by_stage.of_mut(rule.stage).push(Armed {
                rule: rule.clone(),
                key: keys.random(),
                met: AtomicU64::new(0),
            });
        }
        Misbehaviour(by_stage)
    }

    /// What becomes of the next occurrence of `stage`; nothing special where no rule is for it.
    /// All delays that apply add up; of drops and refusals the first that applies counts.
    pub(super) fn judge(&self, stage: Stage) -> Option<Judgement<'_>> {
        let rules = self.0.of(stage);
        if rules.is_empty() {
            return None;
        }
        let mut judgement = Judgement {
            delay: Duration::ZERO,
            ending: Ending::Grant,
        };
        for armed in rules {
            // Each rule counts each occurrence, whatever the rules before it chose.
            if !armed.applies() {
                continue;
            }
            match (&armed.rule.act, &judgement.ending) {
                (Act::Delay(delay), _) => judgement.delay += *delay,
                (Act::Drop, Ending::Grant) => judgement.ending = Ending::Drop,
                (Act::Refuse(refusal), Ending::Grant) => {
                    judgement.ending = Ending::Refuse(refusal);
                }
                (Act::Drop | Act::Refuse(_), Ending::Drop | Ending::Refuse(_)) => {}
            }
        }
        Some(judgement)
    }
}

impl Armed {
    fn applies(&self) -> bool {
        let Share(share) = self.rule.share;
        if share >= 1.0 {
            return true;
        }
        let occurrence = self.met.fetch_add(1, Ordering::Relaxed);
        SmallRng::seed_from_u64(self.key ^ occurrence).random_bool(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(share: f64) -> Rule {
        Rule {
            stage: Stage::Rcpt,
            share: Share::new(share).unwrap(),
            act: Act::Refuse(Refusal::reply("450 4.2.0 busy").unwrap()),
        }
    }

    fn refused(misbehaviour: &Misbehaviour, occurrences: usize) -> Vec<bool> {
        (0..occurrences)
            .map(|_| {
                let judgement = misbehaviour.judge(Stage::Rcpt).unwrap();
                matches!(judgement.ending, Ending::Refuse(_))
            })
            .collect()
    }

    #[test]
    fn a_share_is_kept_and_follows_the_seed() {
        for share in [0.0, 0.1, 0.5, 0.99, 1.0] {
            let first = refused(&Misbehaviour::new(&[busy(share)], 7), 10_000);
            let again = refused(&Misbehaviour::new(&[busy(share)], 7), 10_000);
            assert_eq!(first, again, "{share}");
            let count = first.iter().filter(|refused| **refused).count();
            let expected = share * 10_000.0;
            // Five standard deviations of a binomial distribution.
            let slack = 5.0 * (10_000.0 * share * (1.0 - share)).sqrt();
            assert!((count as f64 - expected).abs() <= slack, "{share}: {count}");
        }
        let one = refused(&Misbehaviour::new(&[busy(0.5)], 1), 100);
        let other = refused(&Misbehaviour::new(&[busy(0.5)], 2), 100);
        assert_ne!(one, other);
    }

    #[test]
    fn delays_add_up_and_the_first_ending_counts() {
        let second = |act| Rule { act, ..busy(1.0) };
        let rules = [
            second(Act::Delay(Duration::from_millis(2))),
            busy(1.0),
            second(Act::Drop),
            second(Act::Delay(Duration::from_millis(3))),
        ];
        let misbehaviour = Misbehaviour::new(&rules, 0);
        let judgement = misbehaviour.judge(Stage::Rcpt).unwrap();
        assert_eq!(judgement.delay, Duration::from_millis(5));
        assert!(matches!(judgement.ending, Ending::Refuse(_)));
        assert_eq!(misbehaviour.judge(Stage::Mail), None);
    }

    #[test]
    fn what_can_be_a_refusal() {
        let longest = format!("550 {}", "x".repeat(506));
        let too_long = format!("550 {}", "x".repeat(507));
        for (text, holds) in [
            ("450 4.2.0 busy", true),
            ("554", true),
            ("421 4.3.2 closing", true),
            (&longest, true),
            (&too_long, false),
            ("250 2.0.0 fine", false),
            ("45", false),
            ("450-4.2.0 busy", false),
            ("4500 busy", false),
            ("460 busy", false),
            ("450 a\r\n250 b", false),
            ("450 \u{fc}", false),
            ("", false),
        ] {
            assert_eq!(Refusal::reply(text).is_some(), holds, "{text:?}");
        }
        assert!(matches!(
            Refusal::reply("421 bye"),
            Some(Refusal::Reply { closes: true, octets }) if *octets == *b"421 bye\r\n"
        ));
    }

    #[test]
    fn shares_are_numbers_from_0_to_1() {
        for (share, holds) in [
            (0.0, true),
            (1.0, true),
            (-0.1, false),
            (1.1, false),
            (f64::NAN, false),
        ] {
            assert_eq!(Share::new(share).is_some(), holds, "{share}");
        }
    }
}
