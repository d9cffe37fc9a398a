//! The search for the highest rate that holds: doubled until a step fails, then bisected, then confirmed.
//!
//! Apart from the steps because where to look next depends on nothing but what was found so far. It takes for granted
//! that a server which holds a rate holds lower ones too. Invariants:
//! - A rate is found only after two steps at it held, or one did after a higher one that had held once.
//! - Every step but a repeated one is closer to the end, so there is one: doubling ends at the highest rate allowed, bisection at the
//!   precision, and each step down is twice as wide as the one before.
//! - Where the load generator was the limit itself, twice at one rate, nothing above is looked at, for that would
//!   measure it, not the server. What is known by then is a lower bound. Once may be chance: something else ran.

use serde::Serialize;

/// What is known so far, and where to look next.
#[derive(Clone, Debug)]
pub struct Search {
    from: f64,
    to: f64,
    /// How far apart, by their ratio, the highest that held and the lowest that failed may be at the end.
    precision: f64,
    /// The rates that held and did not fail later.
    held: Vec<f64>,
    /// The lowest that failed.
    failed: Option<f64>,
    /// Where the load generator was the limit last.
    limited_at: Option<f64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Twice the last rate, until one fails.
    Doubling { rate: f64 },
    /// Between one that held and one that failed.
    Bisecting { rate: f64 },
    /// The best one again. If it fails, on to one that is lower by `step`.
    Confirming { rate: f64, step: f64 },
    /// Done.
    Over(Answer),
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The server kept up.
    Held,
    /// It did not.
    Failed,
    /// The load generator was the limit.
    OwnLimit {
        /// Whether the server kept up all the same.
        held: bool,
    },
}

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// This rate is held, and one that is higher by the precision is not.
    Highest {
        /// Messages a second.
        rate: f64,
    },
    /// The highest rate that was allowed is held.
    AtLeast {
        /// Messages a second.
        rate: f64,
    },
    /// The load generator was the limit.
    OwnLimit {
        /// At this rate.
        at: f64,
        /// The highest that was held, if any was.
        held: Option<f64>,
    },
    /// Not even the lowest rate is held.
    None,
}

impl Search {
    /// From a rate up to another one.
    pub fn new(from: f64, to: f64, precision: f64) -> Search {
        Search {
            from,
            to,
            precision,
            held: Vec::new(),
            failed: None,
            limited_at: None,
            stage: Stage::Doubling { rate: from },
        }
    }

    /// The rate of the next step; none when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        match self.stage {
            Stage::Doubling { rate }
            | Stage::Bisecting { rate }
            | Stage::Confirming { rate, .. } => Some(rate),
            Stage::Over(_) => None,
        }
    }

    /// What it came to, once it is over.
    pub fn answer(&self) -> Option<Answer> {
        match self.stage {
            Stage::Over(answer) => Some(answer),
            Stage::Doubling { .. } | Stage::Bisecting { .. } | Stage::Confirming { .. } => None,
        }
    }

    /// The highest rate that held, confirmed or not: all that is known if the search ends early.
    pub fn held(&self) -> Option<f64> {
        self.held.iter().copied().reduce(f64::max)
    }

    /// Hears how the step at [`Search::next_rate`] went.
    pub fn judged(&mut self, verdict: Verdict) {
        let Some(rate) = self.next_rate() else {
            return;
        };
        match verdict {
            Verdict::Held | Verdict::OwnLimit { held: true } => self.held.push(rate),
            // It says nothing about the server.
            Verdict::OwnLimit { held: false } => {}
            // What held once and fails now is not known to hold.
            Verdict::Failed => {
                self.held.retain(|held| *held < rate);
                self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
            }
        }
        self.stage = match (self.stage, verdict) {
            (Stage::Over(answer), _) => Stage::Over(answer),
            (stage, Verdict::OwnLimit { .. }) if self.limited_at != Some(rate) => {
                self.limited_at = Some(rate);
                stage
            }
            (_, Verdict::OwnLimit { .. }) => Stage::Over(Answer::OwnLimit {
                at: rate,
                held: self.held(),
            }),
            (Stage::Doubling { .. }, Verdict::Held) if rate < self.to => Stage::Doubling {
                rate: (rate * 2.0).min(self.to),
            },
            (Stage::Doubling { .. } | Stage::Bisecting { .. }, _) => self.between(),
            (Stage::Confirming { .. }, Verdict::Held) => Stage::Over(if rate < self.to {
                Answer::Highest { rate }
            } else {
                Answer::AtLeast { rate }
            }),
            (Stage::Confirming { step, .. }, Verdict::Failed) => self.down(rate, step),
        };
    }

    /// The middle between what held and what failed, or the confirmation if they are close.
    fn between(&self) -> Stage {
        let Some(held) = self.held() else {
            return Stage::Over(Answer::None);
        };
        let confirming = Stage::Confirming {
            rate: held,
            step: self.precision,
        };
        match self.failed {
            Some(failed) if failed / held > 1.0 + self.precision => {
                let middle = (held * failed).sqrt();
                // As a person would write it, if that is still in between.
                let rounded = middle.round();
                let rate = if rounded >= ROUNDED_FROM && held < rounded && rounded < failed {
                    rounded
                } else {
                    middle
                };
                Stage::Bisecting { rate }
            }
            Some(_) | None => confirming,
        }
    }

    /// A step below a rate that held once and then failed.
    fn down(&self, rate: f64, step: f64) -> Stage {
        if rate <= self.from {
            return Stage::Over(Answer::None);
        }
        Stage::Confirming {
            rate: (rate / (1.0 + step)).max(self.from),
            step: step * 2.0,
        }
    }
}

/// From here on a whole number is close enough to any rate, for the finest precision.
const ROUNDED_FROM: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Failed, Held};

    const OWN_LIMIT: Verdict = Verdict::OwnLimit { held: false };
    const OWN_LIMIT_HELD: Verdict = Verdict::OwnLimit { held: true };

    #[test]
    fn each_verdict_leads_to_the_next_rate() {
        let own = |at, held| Answer::OwnLimit { at, held };
        for (what, steps, answer) in [
            (
                "doubled, bisected, confirmed",
                &[
                    (100.0, Held),
                    (200.0, Held),
                    (400.0, Failed),
                    (283.0, Held),
                    (336.0, Failed),
                    (308.0, Held),
                    (322.0, Failed),
                    (308.0, Held),
                ][..],
                Answer::Highest { rate: 308.0 },
            ),
            ("the first fails", &[(100.0, Failed)], Answer::None),
            (
                "all hold",
                &[
                    (100.0, Held),
                    (200.0, Held),
                    (400.0, Held),
                    (800.0, Held),
                    (1000.0, Held),
                    (1000.0, Held),
                ],
                Answer::AtLeast { rate: 1000.0 },
            ),
            (
                "the highest allowed held by chance",
                &[
                    (100.0, Held),
                    (200.0, Held),
                    (400.0, Held),
                    (800.0, Held),
                    (1000.0, Held),
                    (1000.0, Failed),
                    (1000.0 / 1.05, Held),
                ],
                Answer::Highest {
                    rate: 1000.0 / 1.05,
                },
            ),
            (
                "not confirmed, and a step down not either",
                &[
                    (100.0, Held),
                    (200.0, Failed),
                    (141.0, Held),
                    (168.0, Failed),
                    (154.0, Failed),
                    (147.0, Failed),
                    (141.0, Failed),
                    (141.0 / 1.05, Failed),
                    (141.0 / 1.05 / 1.1, Held),
                ],
                Answer::Highest {
                    rate: 141.0 / 1.05 / 1.1,
                },
            ),
            (
                "no step down holds",
                &[
                    (100.0, Held),
                    (200.0, Failed),
                    (141.0, Failed),
                    (119.0, Failed),
                    (109.0, Failed),
                    (104.0, Failed),
                    (100.0, Failed),
                ],
                Answer::None,
            ),
            (
                "the load generator is the limit while doubling",
                &[(100.0, Held), (200.0, OWN_LIMIT), (200.0, OWN_LIMIT)],
                own(200.0, Some(100.0)),
            ),
            (
                "and is so though the server kept up",
                &[
                    (100.0, Held),
                    (200.0, OWN_LIMIT_HELD),
                    (200.0, OWN_LIMIT_HELD),
                ],
                own(200.0, Some(200.0)),
            ),
            (
                "and while bisecting",
                &[
                    (100.0, Held),
                    (200.0, Failed),
                    (141.0, OWN_LIMIT),
                    (141.0, OWN_LIMIT),
                ],
                own(141.0, Some(100.0)),
            ),
            (
                "but not if that was chance",
                &[
                    (100.0, OWN_LIMIT),
                    (100.0, Held),
                    (200.0, OWN_LIMIT_HELD),
                    (200.0, Failed),
                    (141.0, Failed),
                    (119.0, Failed),
                    (109.0, Failed),
                    (104.0, Failed),
                    (100.0, Held),
                ],
                Answer::Highest { rate: 100.0 },
            ),
            (
                "and from the start",
                &[(100.0, OWN_LIMIT), (100.0, OWN_LIMIT)],
                own(100.0, None),
            ),
            (
                "and only when the best is to be confirmed",
                &[
                    (100.0, Held),
                    (200.0, Failed),
                    (141.0, Held),
                    (168.0, Failed),
                    (154.0, Failed),
                    (147.0, Failed),
                    (141.0, OWN_LIMIT),
                    (141.0, OWN_LIMIT),
                ],
                own(141.0, Some(141.0)),
            ),
            (
                "and after the best was not confirmed",
                &[
                    (100.0, Held),
                    (200.0, Failed),
                    (141.0, Held),
                    (168.0, Failed),
                    (154.0, Failed),
                    (147.0, Failed),
                    (141.0, Failed),
                    (141.0 / 1.05, OWN_LIMIT),
                    (141.0 / 1.05, OWN_LIMIT),
                ],
                own(141.0 / 1.05, Some(100.0)),
            ),
        ] {
            let mut search = Search::new(100.0, 1000.0, 0.05);
            for (rate, verdict) in steps {
                assert_eq!(search.answer(), None, "{what}: {search:?}");
                let next = search.next_rate().unwrap();
                assert!((next - rate).abs() < 0.01, "{what}: {next}, not {rate}");
                search.judged(*verdict);
            }
            assert_eq!(search.next_rate(), None, "{what}");
            match (search.answer(), answer) {
                (Some(Answer::Highest { rate: found }), Answer::Highest { rate }) => {
                    assert!((found - rate).abs() < 0.01, "{what}: {found}");
                }
                (
                    Some(Answer::OwnLimit { at, held }),
                    Answer::OwnLimit {
                        at: rate,
                        held: wanted,
                    },
                ) => {
                    assert!(
                        (at - rate).abs() < 0.01 && held == wanted,
                        "{what}: {held:?}"
                    );
                }
                (found, answer) => assert_eq!(found, Some(answer), "{what}"),
            }
        }
    }

    #[test]
    fn whatever_a_server_holds_is_found_within_the_precision() {
        for precision in [0.01, 0.05, 0.5] {
            for limit in [1.0, 1.003, 1.7, 42.0, 99.9, 100.4, 12_345.6, 900_000.0] {
                let mut search = Search::new(1.0, 1e6, precision);
                let mut steps = 0;
                while let Some(rate) = search.next_rate() {
                    search.judged(if rate <= limit { Held } else { Failed });
                    steps += 1;
                    assert!(steps < 60, "{limit}: {search:?}");
                }
                let Some(Answer::Highest { rate: found }) = search.answer() else {
                    panic!("{limit}: {search:?}");
                };
                assert!(
                    found <= limit && limit < found * (1.0 + precision),
                    "{limit}: {found}"
                );
            }
        }
    }

    #[test]
    fn a_search_that_ends_early_knows_what_held() {
        let mut search = Search::new(100.0, 1000.0, 0.05);
        assert_eq!(search.held(), None);
        search.judged(Held);
        search.judged(Failed);
        assert_eq!((search.held(), search.answer()), (Some(100.0), None));
    }
}
