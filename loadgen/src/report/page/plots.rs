//! Which plots a report has, and what of its cases each of them shows.
//!
//! Cases that differ only in how TLS comes about share a picture, so that negotiated stands beside implicit TLS;
//! without TLS they are there to be compared with.

use maud::Markup;

use super::super::chart::{Axis, Bar, BarGroup, Bars, Dot, Dots, Line, Lines, Look, Mark, nines};
use super::super::units::{digits, printable, tick, tick_time, time};
use super::super::words::{circumstances, messages, ratio};
use super::super::{Case, Ratio, RoundFigures, Spread, Tickets};
use crate::measure::{Moment, Percentiles, Stage};
use crate::plan::Mode;

/// A picture and what stands above it.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) picture: Markup,
}

/// Sessions a second and messages a second.
pub(super) fn throughput(cases: &[Case]) -> Vec<Plot> {
    let quantities = [
        Quantity {
            title: "Sessions a second",
            of: |case| Some(case.figures.sessions_per_second),
            round: |round| Some(round.sessions_per_second),
            text: digits,
            tick,
        },
        Quantity {
            title: "Messages a second",
            of: |case| Some(case.figures.messages_per_second),
            round: |round| Some(round.messages_per_second),
            text: digits,
            tick,
        },
    ];
    quantities
        .iter()
        .filter_map(|quantity| bars(cases, quantity))
        .collect()
}

/// The server's CPU time a session and a message, where it was watched.
pub(super) fn server(cases: &[Case]) -> Vec<Plot> {
    let quantities = [
        Quantity {
            title: "Server CPU a session",
            of: |case| case.figures.server.as_ref()?.cpu_us_per_session,
            round: |round| round.server_cpu_us_per_session,
            text: time,
            tick: tick_time,
        },
        Quantity {
            title: "Server CPU a message",
            of: |case| case.figures.server.as_ref()?.cpu_us_per_message,
            round: |round| round.server_cpu_us_per_message,
            text: time,
            tick: tick_time,
        },
    ];
    quantities
        .iter()
        .filter_map(|quantity| bars(cases, quantity))
        .collect()
}

/// A figure that cases are compared by.
struct Quantity {
    title: &'static str,
    of: fn(&Case) -> Option<f64>,
    round: fn(&RoundFigures) -> Option<f64>,
    text: fn(f64) -> String,
    tick: fn(f64) -> String,
}

fn bars(cases: &[Case], quantity: &Quantity) -> Option<Plot> {
    let mut groups: Vec<(u64, BarGroup)> = Vec::new();
    for case in cases {
        let Some(value) = (quantity.of)(case) else {
            continue;
        };
        let bar = bar(case, value, quantity, cases);
        let per_session = case.messages_per_session;
        match groups.iter_mut().find(|(known, _)| *known == per_session) {
            Some((_, group)) => group.bars.push(bar),
            None => {
                let title = messages(per_session);
                let bars = vec![bar];
                groups.push((per_session, BarGroup { title, bars }));
            }
        }
    }
    if groups.is_empty() {
        return None;
    }
    let bars = Bars {
        shows: format!("{} of each case, as bars", quantity.title),
        groups: groups.into_iter().map(|(_, group)| group).collect(),
        tick: quantity.tick,
    };
    Some(Plot {
        title: quantity.title.to_owned(),
        picture: bars.draw(),
    })
}

fn bar(case: &Case, value: f64, quantity: &Quantity, cases: &[Case]) -> Bar {
    let text = (quantity.text)(value);
    let rounds = case.rounds.iter().filter_map(quantity.round);
    let range = Spread::of(rounds)
        .filter(|rounds| rounds.pairs > 1)
        .map(|rounds| (rounds.least, rounds.greatest));
    let rounds = match range {
        Some((least, greatest)) => format!(
            "; rounds from {} to {}",
            (quantity.text)(least),
            (quantity.text)(greatest)
        ),
        None => String::new(),
    };
    let name = printable(&case.name);
    let alike = cases.iter().filter(|other| {
        (other.mode, other.tickets, other.messages_per_session)
            == (case.mode, case.tickets, case.messages_per_session)
    });
    Bar {
        name: if alike.count() > 1 {
            name.clone().into_owned()
        } else {
            match case.tickets {
                Tickets::None => case.mode.word().to_owned(),
                tickets @ (Tickets::Full | Tickets::Resumed | Tickets::Mixed) => {
                    format!("{}, {}", case.mode.word(), tickets.short())
                }
            }
        },
        look: look(case.mode),
        light: case.tickets == Tickets::Resumed,
        tip: format!("{name}: {text}{rounds}"),
        value,
        text,
        range,
    }
}

/// Negotiated : implicit, a picture for each of what they are compared by.
pub(super) fn ratios(ratios: &[Ratio]) -> Vec<Plot> {
    type Of = fn(&Ratio) -> Option<(f64, Option<Spread>)>;
    let of: [(&str, (&str, &str), Of); 4] = [
        (
            "Sessions a second",
            ("negotiated has fewer", "negotiated has more"),
            |ratio| {
                let spread = ratio.sessions_per_second;
                Some((spread.median, Some(spread)))
            },
        ),
        (
            "Server CPU a session",
            ("negotiated is cheaper", "negotiated is dearer"),
            |ratio| {
                let spread = ratio.server_cpu_us_per_session?;
                Some((spread.median, Some(spread)))
            },
        ),
        (
            "Median time of a session",
            ("negotiated is faster", "negotiated is slower"),
            |ratio| Some((ratio.session_p50?, None)),
        ),
        (
            "99th percentile of a session",
            ("negotiated is faster", "negotiated is slower"),
            |ratio| Some((ratio.session_p99?, None)),
        ),
    ];
    let mut plots = Vec::new();
    for (title, sides, of) in of {
        let dots: Vec<Dot> = ratios
            .iter()
            .filter_map(|ratio| of(ratio).map(|(value, spread)| dot(ratio, value, spread)))
            .collect();
        if !dots.is_empty() {
            let dots = Dots {
                shows: format!("{title}, negotiated : implicit TLS"),
                neutral: 1.0,
                sides,
                dots,
                tick,
            };
            plots.push(Plot {
                title: title.to_owned(),
                picture: dots.draw(),
            });
        }
    }
    plots
}

fn dot(of: &Ratio, value: f64, spread: Option<Spread>) -> Dot {
    let name = circumstances(of.tickets, of.messages_per_session);
    let text = spread.map_or_else(|| ratio(value), |spread| spread.text());
    let pairs = match spread {
        Some(spread) => format!(", {} pairs of rounds", spread.pairs),
        None => String::new(),
    };
    Dot {
        tip: format!("{name}: {text}{pairs}"),
        name,
        value,
        spread: spread.map(|spread| (spread.least, spread.greatest)),
        text,
    }
}

/// How times are distributed: of a single case all stages in one picture, else stage by stage.
pub(super) fn latency(cases: &[Case]) -> Vec<(Option<Stage>, Vec<Plot>)> {
    if let [case] = cases {
        return vec![(None, stages_of(case))];
    }
    let compared = [
        Stage::Session,
        Stage::MessageDue,
        Stage::Message,
        Stage::Ready,
    ];
    let by_stage = compared.into_iter().map(|stage| {
        let percentiles = |case: &&Case| case.figures.latency_us.contains_key(&stage);
        let with_times: Vec<&Case> = cases.iter().filter(percentiles).collect();
        (Some(stage), stage_of(&with_times, stage))
    });
    by_stage.filter(|(_, plots)| !plots.is_empty()).collect()
}

fn stage_of(cases: &[&Case], stage: Stage) -> Vec<Plot> {
    let plots = panels(cases).into_iter().map(|panel| {
        // The same axes wherever sessions have as many messages: full handshakes and resumed ones.
        let alike = cases
            .iter()
            .filter(|case| case.messages_per_session == panel.per_session);
        let alike: Vec<&Percentiles> = alike.filter_map(|case| times(case, stage)).collect();
        let lines = panel.cases.iter().filter_map(|case| {
            let name = case.mode.word();
            Some(distribution(name, look(case.mode), times(case, stage)?))
        });
        Plot {
            picture: latency_lines(
                format!("{}: distribution of times, {}", stage.title(), panel.title),
                latency_axes(&alike),
                lines.collect(),
            ),
            title: panel.title,
        }
    });
    plots.collect()
}

fn times(case: &Case, stage: Stage) -> Option<&Percentiles> {
    case.figures.latency_us.get(&stage)
}

fn stages_of(case: &Case) -> Vec<Plot> {
    let stages: Vec<_> = case.figures.latency_us.iter().collect();
    let groups: [(&str, &[Stage]); 2] = [
        (
            "Messages and sessions",
            &[Stage::MessageDue, Stage::Message, Stage::Session],
        ),
        (
            "Until the first message",
            &[
                Stage::Greeting,
                Stage::Starttls,
                Stage::Handshake,
                Stage::Ready,
                Stage::Lateness,
            ],
        ),
    ];
    let all: Vec<&Percentiles> = stages.iter().map(|(_, times)| *times).collect();
    let axes = latency_axes(&all);
    let mut plots = Vec::new();
    for (title, group) in groups {
        let looks = Look::ALL.into_iter().skip(1);
        let shown = stages.iter().filter(|(stage, _)| group.contains(stage));
        let lines: Vec<Line> = shown
            .zip(looks)
            .map(|((stage, times), look)| distribution(stage.word(), look, times))
            .collect();
        if !lines.is_empty() {
            plots.push(Plot {
                title: title.to_owned(),
                picture: latency_lines(
                    format!("{title}: distribution of times"),
                    axes.clone(),
                    lines,
                ),
            });
        }
    }
    plots
}

/// The same axes for all, so that pictures can be compared.
fn latency_axes(all: &[&Percentiles]) -> (Axis, Axis) {
    let nines_max = all.iter().map(|times| certain_nines(times.count));
    let least = all.iter().flat_map(|times| {
        times
            .curve
            .first()
            .map(|point| point.us)
            .or(Some(times.p50))
    });
    let greatest = all.iter().map(|times| times.greatest);
    (
        Axis::shares(nines_max.fold(0.0, f64::max)),
        Axis::times(
            least.fold(f64::INFINITY, f64::min),
            greatest.fold(0.0, f64::max),
        ),
    )
}

fn latency_lines(shows: String, (across, up): (Axis, Axis), lines: Vec<Line>) -> Markup {
    let lines = Lines {
        shows,
        across,
        across_tick: share_of_nines,
        across_unit: "share of the times that were at most so long",
        up,
        up_tick: tick_time,
        lines,
    };
    lines.draw()
}

/// A distribution as a line. It ends where there is one time of its kind: at 99.9 % of a thousand.
fn distribution(name: &str, look: Look, times: &Percentiles) -> Line {
    let last = certain_nines(times.count);
    let known = [
        (0.5, times.p50),
        (0.9, times.p90),
        (0.99, times.p99),
        (0.999, times.p99_9),
    ];
    let known: Vec<(f64, f64)> = known
        .into_iter()
        .filter(|(share, _)| nines(*share) < last)
        .collect();
    let curve = times.curve.iter().map(|point| (point.share, point.us));
    let curve = curve.filter(|(share, _)| nines(*share) < last);
    let mut points: Vec<(f64, f64)> = curve
        .chain(known.iter().copied())
        .map(|(share, us)| (nines(share), us))
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
    points.push((last, times.greatest));
    let mut marks: Vec<Mark> = known
        .into_iter()
        .map(|(share, us)| Mark {
            at: (nines(share), us),
            shown: true,
            tip: format!(
                "{name}: {} at most {}",
                share_of_nines(nines(share)),
                time(us)
            ),
        })
        .collect();
    marks.push(Mark {
        at: (last, times.greatest),
        shown: true,
        tip: format!("{name}: the longest {}", time(times.greatest)),
    });
    Line {
        name: name.to_owned(),
        look,
        points,
        marks,
    }
}

/// Up to how many nines so many times tell anything.
#[expect(clippy::cast_precision_loss, reason = "for a logarithm")]
fn certain_nines(count: u64) -> f64 {
    (count.max(1) as f64).log10()
}

/// `99.9 %` for 3.
fn share_of_nines(nines: f64) -> String {
    let share = 100.0 * (1.0 - 10_f64.powf(-nines));
    format!("{} %", tick(share))
}

/// Rates over time.
pub(super) fn over_time(cases: &[Case]) -> Vec<Plot> {
    let with_times: Vec<&Case> = cases
        .iter()
        .filter(|case| !case.figures.timeline.is_empty())
        .collect();
    let mut plots = Vec::new();
    if let [case] = cases {
        if with_times.is_empty() {
            return plots;
        }
        let rates = [
            (
                "messages",
                (|moment| moment.messages_per_second) as OfMoment,
            ),
            ("sessions", |moment| moment.sessions_per_second),
        ];
        let moments = &case.figures.timeline;
        let lines = rates
            .into_iter()
            .zip(Look::ALL.into_iter().skip(1))
            .map(|((name, of), look)| (name, look, moments.as_slice(), of));
        let lines: Vec<_> = lines.collect();
        plots.push(Plot {
            title: "Messages and sessions a second".to_owned(),
            picture: timeline("Messages and sessions a second", &lines, tick),
        });
        let slowest: [Timed<'_>; 1] = [("slowest", Look::NEGOTIATED, moments, |moment| {
            moment.slowest_us
        })];
        plots.push(Plot {
            title: "Slowest message of each moment".to_owned(),
            picture: timeline("Slowest message of each moment", &slowest, tick_time),
        });
        return plots;
    }
    for panel in panels(&with_times) {
        let lines: Vec<Timed<'_>> = panel
            .cases
            .iter()
            .map(|case| {
                let of: OfMoment = |moment| moment.messages_per_second;
                let moments = case.figures.timeline.as_slice();
                (case.mode.word(), look(case.mode), moments, of)
            })
            .collect();
        let shows = format!("Messages a second, {}", panel.title);
        plots.push(Plot {
            picture: timeline(&shows, &lines, tick),
            title: shows,
        });
    }
    plots
}

type OfMoment = fn(&Moment) -> f64;

/// A line over time: its name, its look, its moments, and what of them.
type Timed<'a> = (&'a str, Look, &'a [Moment], OfMoment);

fn timeline(shows: &str, lines: &[Timed<'_>], format: fn(f64) -> String) -> Markup {
    let moments = || lines.iter().flat_map(|(_, _, moments, _)| *moments);
    let until = moments().map(|moment| moment.until_seconds);
    let until = until.filter(|until| until.is_finite()).fold(0.0, f64::max);
    let values = lines
        .iter()
        .flat_map(|(_, _, moments, of)| moments.iter().map(of));
    let values = values.filter(|value| value.is_finite());
    let greatest = values.fold(0.0, f64::max);
    let lines = Lines {
        shows: format!("{shows}, over time"),
        across: Axis::from_zero(until, 6),
        across_tick: tick,
        across_unit: "seconds since the start",
        up: Axis::from_zero(greatest, 5),
        up_tick: format,
        lines: lines
            .iter()
            .map(|(name, look, moments, of)| over(name, *look, moments, *of, format))
            .collect(),
    };
    lines.draw()
}

/// A rate holds from the end of the moment before to the end of its own.
fn over(
    name: &str,
    look: Look,
    moments: &[Moment],
    of: OfMoment,
    format: fn(f64) -> String,
) -> Line {
    let mut points = Vec::new();
    let mut marks = Vec::new();
    let each = moments.len().div_ceil(MARKS_MAX).max(1);
    let mut from = 0.0;
    for (index, moment) in moments.iter().enumerate() {
        let value = of(moment);
        points.push((from, value));
        points.push((moment.until_seconds, value));
        if index % each == each / 2 {
            marks.push(Mark {
                at: (f64::midpoint(from, moment.until_seconds), value),
                shown: false,
                tip: format!(
                    "{name}: {} until {} s",
                    format(value),
                    digits(moment.until_seconds)
                ),
            });
        }
        from = moment.until_seconds;
    }
    Line {
        name: name.to_owned(),
        look,
        points,
        marks,
    }
}

/// Points of a line over time that tell their values; more could not be met with a pointer.
const MARKS_MAX: usize = 60;

/// Cases for one picture.
struct Panel<'a> {
    title: String,
    tickets: Tickets,
    per_session: u64,
    cases: Vec<&'a Case>,
}

/// Those together that differ only in how TLS comes about. Those without TLS are in each that they can be
/// compared in.
fn panels<'a>(cases: &[&'a Case]) -> Vec<Panel<'a>> {
    let (plain, with_tls): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| case.mode == Mode::Plain);
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for case in with_tls {
        let shared = panels
            .iter_mut()
            .find(|panel| panel.tickets == case.tickets && panel.takes(case));
        match shared {
            Some(panel) => panel.cases.push(case),
            None => panels.push(Panel::of(case)),
        }
    }
    for case in plain {
        let mut alone = true;
        for panel in panels.iter_mut().filter(|panel| panel.takes(case)) {
            panel.cases.insert(0, case);
            alone = false;
        }
        if alone {
            panels.push(Panel::of(case));
        }
    }
    let all: Vec<_> = panels.iter().map(Panel::circumstances).collect();
    for panel in &mut panels {
        let own = panel.circumstances();
        panel.title = match panel.cases.as_slice() {
            [case] => printable(&case.name).into_owned(),
            // Two of a kind are told apart by their names.
            cases if all.iter().filter(|other| **other == own).count() > 1 => {
                let names: Vec<_> = cases.iter().map(|case| printable(&case.name)).collect();
                names.join(", ")
            }
            _ => circumstances(panel.tickets, panel.per_session),
        };
    }
    panels
}

impl<'a> Panel<'a> {
    fn of(case: &'a Case) -> Panel<'a> {
        Panel {
            title: String::new(),
            tickets: case.tickets,
            per_session: case.messages_per_session,
            cases: vec![case],
        }
    }

    fn circumstances(&self) -> (Tickets, u64) {
        (self.tickets, self.per_session)
    }

    /// Whether a case is as the others are but for how TLS comes about.
    fn takes(&self, case: &Case) -> bool {
        self.per_session == case.messages_per_session
            && self.cases.iter().all(|other| other.mode != case.mode)
    }
}

fn look(mode: Mode) -> Look {
    match mode {
        Mode::Plain => Look::PLAIN,
        Mode::Starttls => Look::NEGOTIATED,
        Mode::Tls => Look::IMPLICIT,
    }
}
