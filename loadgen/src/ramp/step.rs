//! Judges a step: whether the server held its rate, and whether the load generator did.
//!
//! Invariant: what is still under way, or waiting, when a step ends is no fault as long as it is no more than comes in
//! within the bound. So much there may be, by Little's law, at a server that keeps it.

use std::time::Duration;

use super::Verdict;
use crate::measure::{Figures, Stage};
use crate::observe::OWN_SHARE_MAX;

/// What a server must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// 99 % of the messages have their reply within so long of the moment when they were due.
    pub p99: Duration,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// For the search.
    pub verdict: Verdict,
    /// For a reader.
    pub words: String,
}

impl Bound {
    /// Judges a step at this rate.
    pub fn judge(&self, rate: f64, figures: &Figures) -> Judgement {
        let faults = self.faults(rate, figures);
        let held = faults.is_empty();
        let own_limit = self.own_limit(figures);
        let words = own_limit.iter().chain(&faults).map(String::as_str);
        let words: Vec<&str> = words.collect();
        Judgement {
            verdict: match (&own_limit, held) {
                (Some(_), held) => Verdict::OwnLimit { held },
                (None, true) => Verdict::Held,
                (None, false) => Verdict::Failed,
            },
            words: match words.as_slice() {
                [] => "held".to_owned(),
                words => words.join(", "),
            },
        }
    }

    /// Why the server did not hold the rate; nothing if it did.
    fn faults(&self, rate: f64, figures: &Figures) -> Vec<String> {
        let mut faults = Vec::new();
        let p99 = figures.latency_us.get(&Stage::MessageDue);
        if p99.is_some_and(|times| times.p99 > self.us()) {
            faults.push("p99 too long".to_owned());
        }
        if figures.failed > 0 {
            // The kind that most of them are of: a server that is gone is no server that is slow.
            let most = figures.errors.iter().max_by_key(|(_, error)| error.times);
            let kind = most.map_or_else(String::new, |(kind, _)| format!(" ({kind})"));
            faults.push(format!("{} failed{kind}", figures.failed));
        }
        // One more than the law says: where a bound has few messages, the last is due just before the end.
        let waiting_max = rate * self.p99.as_secs_f64() + 1.0;
        if as_f64(figures.unsent) > waiting_max {
            faults.push(format!("{} unsent", figures.unsent));
        }
        let due = as_f64(figures.messages + figures.failed + figures.unsent);
        let ended = figures.messages_per_second * figures.seconds;
        if figures.messages == 0 {
            faults.push("no message was taken".to_owned());
        } else if ended + waiting_max < due * ACHIEVED_MIN {
            faults.push("falls behind".to_owned());
        }
        faults
    }

    /// Why the load generator could not tell.
    fn own_limit(&self, figures: &Figures) -> Option<String> {
        let lateness = figures.latency_us.get(&Stage::Lateness);
        if figures.generator.busiest_share >= OWN_SHARE_MAX {
            Some("load generator busy".to_owned())
        } else if lateness.is_some_and(|times| times.p99 * LATENESS_PARTS > self.us()) {
            Some("load generator late".to_owned())
        } else {
            None
        }
    }

    fn us(&self) -> f64 {
        self.p99.as_secs_f64() * 1e6
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one step")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// The share of the messages due that must have ended.
const ACHIEVED_MIN: f64 = 0.99;

/// The load generator may take one part in so many of the bound for itself.
const LATENESS_PARTS: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::ErrorFigures;
    use crate::measure::Stages;

    /// 1,000 messages a second for 5 s, of which all had their reply after 4 ms.
    fn figures() -> Figures {
        let mut figures = Figures {
            seconds: 5.0,
            messages: 5000,
            messages_per_second: 1000.0,
            ..Figures::default()
        };
        times(&mut figures, Stage::MessageDue, 4000);
        times(&mut figures, Stage::Lateness, 200);
        figures
    }

    fn times(figures: &mut Figures, stage: Stage, us: u64) {
        let mut stages = Stages::default();
        stages.record(stage, Duration::from_micros(us));
        figures.latency_us.extend(stages.figures());
    }

    #[test]
    fn each_fault_has_its_words() {
        let bound = Bound {
            p99: Duration::from_millis(10),
        };
        let held = Verdict::OwnLimit { held: true };
        type Change = fn(&mut Figures);
        for (change, verdict, words) in [
            ((|_| {}) as Change, Verdict::Held, "held"),
            (
                |f| times(f, Stage::MessageDue, 10_100),
                Verdict::Failed,
                "p99 too long",
            ),
            (|f| f.failed = 1, Verdict::Failed, "1 failed"),
            // As many as come in 10 ms, and one.
            (|f| f.unsent = 11, Verdict::Held, "held"),
            (|f| f.unsent = 12, Verdict::Failed, "12 unsent"),
            // 5,000 less 1 %, less 11.
            (
                |f| f.messages_per_second = 4939.1 / 5.0,
                Verdict::Held,
                "held",
            ),
            (
                |f| f.messages_per_second = 4938.9 / 5.0,
                Verdict::Failed,
                "falls behind",
            ),
            (
                |f| {
                    *f = Figures {
                        failed: 5000,
                        ..Figures::default()
                    }
                },
                Verdict::Failed,
                "5000 failed, no message was taken",
            ),
            (
                |f| {
                    let so_often = |times| ErrorFigures {
                        times,
                        first: String::new(),
                    };
                    f.failed = 3;
                    f.errors.insert("reply 451".to_owned(), so_often(1));
                    f.errors.insert("reply 421".to_owned(), so_often(2));
                },
                Verdict::Failed,
                "3 failed (reply 421)",
            ),
            (
                |f| f.generator.busiest_share = 0.9,
                held,
                "load generator busy",
            ),
            (
                |f| times(f, Stage::Lateness, 1010),
                held,
                "load generator late",
            ),
            (
                |f| {
                    f.generator.busiest_share = 0.99;
                    times(f, Stage::MessageDue, 20_000);
                },
                Verdict::OwnLimit { held: false },
                "load generator busy, p99 too long",
            ),
        ] {
            let mut figures = figures();
            change(&mut figures);
            let judgement = bound.judge(1000.0, &figures);
            assert_eq!((judgement.verdict, &*judgement.words), (verdict, words));
        }
    }
}
