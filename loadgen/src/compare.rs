//! The comparison: the same load in plain, negotiated and implicit TLS, in turn, and their ratios.
//!
//! Apart from a single run because a ratio is only worth something between runs that shared their circumstances.
//! Invariants:
//! - All cases take part in each round, one after the other, so that a disturbance hits them alike; a ratio is made
//!   of two rounds that ran next to each other.
//! - Negotiated and implicit TLS of one kind follow each other at once, in alternating order.

use std::fmt;

use crate::observe::Observation;
use crate::plan::{Mode, Plan};
use crate::report::{Case, Ratio, RoundFigures, Spread, Tickets};

/// One way of loading the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// How TLS comes about.
    pub mode: Mode,
    /// Whether sessions are resumed.
    pub tickets: Tickets,
    /// Messages in each session.
    pub messages_per_session: u64,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&name(self.mode, self.tickets, self.messages_per_session))
    }
}

/// All ways: plain, negotiated, implicit × full, resumed × one message, `many`.
pub fn ways(many: u64) -> Vec<Way> {
    let mut ways = Vec::new();
    for messages_per_session in [1, many] {
        let mut add = |mode, tickets| {
            ways.push(Way {
                mode,
                tickets,
                messages_per_session,
            });
        };
        add(Mode::Plain, Tickets::None);
        for tickets in [Tickets::Full, Tickets::Resumed] {
            add(Mode::Starttls, tickets);
            add(Mode::Tls, tickets);
        }
    }
    ways
}

/// The order of a round: as given, or with negotiated and implicit TLS of each kind changed about in every second
/// one, so that neither always comes first.
pub fn order(ways: &[Way], round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ways.len()).collect();
    if !round.is_multiple_of(2) {
        for first in 1..ways.len() {
            if let (Some(one), Some(other)) = (ways.get(first - 1), ways.get(first))
                && is_pair(one, other)
            {
                order.swap(first - 1, first);
            }
        }
    }
    order
}

fn is_pair(negotiated: &Way, implicit: &Way) -> bool {
    negotiated.mode == Mode::Starttls
        && implicit.mode == Mode::Tls
        && negotiated.tickets == implicit.tickets
        && negotiated.messages_per_session == implicit.messages_per_session
}

/// The case of a report, of all its rounds.
pub fn case(plan: &Plan, tickets: Tickets, rounds: &[Observation]) -> Case {
    let mut whole: Option<Observation> = None;
    for round in rounds {
        match &mut whole {
            None => whole = Some(round.clone()),
            Some(whole) => whole.then(round.clone()),
        }
    }
    let whole = whole.unwrap_or_default();
    Case {
        name: name(plan.mode, tickets, plan.messages_per_session),
        mode: plan.mode,
        tickets,
        messages_per_session: plan.messages_per_session,
        figures: whole.figures(plan),
        rounds: rounds
            .iter()
            .map(|round| RoundFigures::of(&round.figures(plan)))
            .collect(),
    }
}

/// Negotiated beside implicit TLS, wherever both are there.
pub fn ratios(cases: &[Case]) -> Vec<Ratio> {
    let negotiated = cases.iter().filter(|case| case.mode == Mode::Starttls);
    let pairs = negotiated.filter_map(|negotiated| {
        let implicit = cases.iter().find(|case| {
            case.mode == Mode::Tls
                && case.tickets == negotiated.tickets
                && case.messages_per_session == negotiated.messages_per_session
        })?;
        ratio(negotiated, implicit)
    });
    pairs.collect()
}

fn ratio(negotiated: &Case, implicit: &Case) -> Option<Ratio> {
    let of_rounds = |figure| spread(&negotiated.rounds, &implicit.rounds, figure);
    let session = |case: &Case| {
        case.figures
            .latency_us
            .get(&crate::measure::Stage::Session)
            .cloned()
    };
    let (of_negotiated, of_implicit) = (session(negotiated), session(implicit));
    let of_times = |at: fn(&crate::measure::Percentiles) -> f64| {
        Some(at(of_negotiated.as_ref()?) / at(of_implicit.as_ref()?))
    };
    Some(Ratio {
        tickets: negotiated.tickets,
        messages_per_session: negotiated.messages_per_session,
        // By their messages, of which each has as many: sessions of many messages end in bursts, all connections at
        // once, and how many bursts a round has is chance.
        sessions_per_second: of_rounds(|round| Some(round.messages_per_second))?,
        server_cpu_us_per_session: of_rounds(|round| round.server_cpu_us_per_message),
        session_p50: of_times(|times| times.p50),
        session_p99: of_times(|times| times.p99),
    })
}

/// The ratios of a figure over the pairs of rounds. A pair of which one took no mail is none: nothing was measured.
fn spread(
    negotiated: &[RoundFigures],
    implicit: &[RoundFigures],
    figure: fn(&RoundFigures) -> Option<f64>,
) -> Option<Spread> {
    let took = |round: &RoundFigures| round.messages_per_second > 0.0;
    let pairs = negotiated.iter().zip(implicit);
    let pairs = pairs.filter(|(one, other)| took(one) && took(other));
    Spread::of(pairs.filter_map(|(one, other)| Some(figure(one)? / figure(other)?)))
}

fn name(mode: Mode, tickets: Tickets, messages_per_session: u64) -> String {
    let tickets = match tickets {
        Tickets::None => "",
        Tickets::Full => " full",
        Tickets::Resumed => " resumed",
        Tickets::Mixed => " mixed",
    };
    let messages = match messages_per_session {
        0 => "endless".to_owned(),
        messages => format!("{messages}/session"),
    };
    format!("{}{tickets} {messages}", mode.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_there_once() {
        let ways = ways(100);
        assert_eq!(ways.len(), 10);
        for (number, way) in ways.iter().enumerate() {
            assert_eq!(ways.iter().position(|other| other == way), Some(number));
        }
    }

    #[test]
    fn pairs_change_about_and_stay_together() {
        let ways = ways(100);
        let even: Vec<usize> = (0..10).collect();
        assert_eq!(order(&ways, 0), even);
        assert_eq!(order(&ways, 1), [0, 2, 1, 4, 3, 5, 7, 6, 9, 8]);
        assert_eq!(order(&ways, 2), even);
    }

    #[test]
    fn a_round_that_took_nothing_is_no_ratio() {
        let round = |sessions_per_second: f64, cpu| RoundFigures {
            sessions_per_second,
            messages_per_second: sessions_per_second * 100.0,
            server_cpu_us_per_message: Some(cpu),
            server_cpu_us_per_session: Some(cpu * 100.0),
            session_p99_us: None,
        };
        let negotiated = [round(8.0, 11.0), round(0.0, 0.0), round(9.0, 12.0)];
        let implicit = [round(10.0, 10.0), round(10.0, 10.0), round(0.0, 0.0)];
        let rates = spread(&negotiated, &implicit, |round| {
            Some(round.messages_per_second)
        })
        .unwrap();
        assert_eq!((rates.pairs, rates.least), (1, 0.8));
        let cpu = spread(&negotiated, &implicit, |round| {
            round.server_cpu_us_per_message
        });
        assert_eq!(cpu.unwrap().least, 1.1);
        let none = spread(&negotiated[1..2], &implicit[1..2], |round| {
            Some(round.messages_per_second)
        });
        assert_eq!(none, None);
    }
}
