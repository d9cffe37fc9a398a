//! Lines over an axis, each with its name at its end.

use maud::{Markup, html};

use super::{Axis, BOLD, Format, LETTER, Look, WIDTH, bold_width, fitted, picture, px, text_width};

/// A plot of lines.
pub(in crate::report) struct Lines {
    /// What it shows, in words.
    pub(in crate::report) shows: String,
    pub(in crate::report) across: Axis,
    pub(in crate::report) across_tick: Format,
    /// What the ticks across are.
    pub(in crate::report) across_unit: &'static str,
    pub(in crate::report) up: Axis,
    pub(in crate::report) up_tick: Format,
    pub(in crate::report) lines: Vec<Line>,
}

/// One of them.
pub(in crate::report) struct Line {
    pub(in crate::report) name: String,
    pub(in crate::report) look: Look,
    pub(in crate::report) points: Vec<(f64, f64)>,
    /// Points that tell their values.
    pub(in crate::report) marks: Vec<Mark>,
}

/// A point that tells its value.
pub(in crate::report) struct Mark {
    pub(in crate::report) at: (f64, f64),
    /// To be seen without being looked for.
    pub(in crate::report) shown: bool,
    pub(in crate::report) tip: String,
}

impl Lines {
    pub(in crate::report) fn draw(&self) -> Markup {
        let up_ticks: Vec<(f64, String)> = self
            .up
            .ticks()
            .iter()
            .map(|tick| (*tick, (self.up_tick)(*tick)))
            .collect();
        let widest = up_ticks.iter().map(|(_, text)| text_width(text));
        let left = widest.fold(20.0, f64::max) + 8.0;
        let names = self.lines.iter().map(|line| bold_width(&line.name));
        let names = names.fold(0.0, f64::max).min(NAMES_MAX);
        let right = WIDTH - names - 12.0;
        let x = |value: f64| left + self.across.place(value) * (right - left);
        let y = |value: f64| BOTTOM - self.up.place(value) * (BOTTOM - TOP);

        let mut ends: Vec<f64> = self
            .lines
            .iter()
            .map(|line| line.points.last().map_or(BOTTOM, |(_, up)| y(*up)))
            .collect();
        apart(&mut ends, NAME_ROW, TOP, BOTTOM);
        let content = html! {
            @for (tick, text) in &up_ticks {
                line.grid x1=(px(left)) x2=(px(right)) y1=(px(y(*tick))) y2=(px(y(*tick))) {}
                text.tick.end x=(px(left - 6.0)) y=(px(y(*tick) + 4.0)) { (text) }
            }
            @for (at, text) in self.across_ticks(&x, left) {
                line.grid x1=(px(x(at))) x2=(px(x(at))) y1=(px(TOP)) y2=(px(BOTTOM)) {}
                @if let Some(text) = text {
                    @if at == 0.0 {
                        text.tick.end x=(px(x(at) + 6.0)) y=(px(BOTTOM + 17.0)) { (text) }
                    } @else {
                        text.tick.middle x=(px(x(at))) y=(px(BOTTOM + 17.0)) { (text) }
                    }
                }
            }
            text.tick.middle x=(px(f64::midpoint(left, right))) y=(px(BOTTOM + 33.0)) { (self.across_unit) }
            line.zero x1=(px(left)) x2=(px(right)) y1=(px(BOTTOM)) y2=(px(BOTTOM)) {}
            @for (line, end) in self.lines.iter().zip(&ends) {
                (drawn(line, *end, right, &x, &y))
            }
        };
        picture(HEIGHT, &self.shows, &content)
    }

    /// The ticks, with texts where these do not lie over each other. The right ones matter more: there are the
    /// rare times.
    fn across_ticks(&self, x: &impl Fn(f64) -> f64, left: f64) -> Vec<(f64, Option<String>)> {
        let mut free_until = f64::INFINITY;
        let mut ticks = Vec::new();
        for tick in self.across.ticks().iter().rev() {
            let text = (self.across_tick)(*tick);
            let half = text_width(&text) / 2.0;
            // The first may reach out to the left, below the other axis.
            let ends = if *tick == 0.0 {
                left + 6.0
            } else {
                x(*tick) + half
            };
            if ends <= free_until {
                free_until = x(*tick) - half - LETTER / 2.0;
                ticks.push((*tick, Some(text)));
            } else {
                ticks.push((*tick, None));
            }
        }
        ticks
    }
}

fn drawn(
    line: &Line,
    name_y: f64,
    right: f64,
    x: &impl Fn(f64) -> f64,
    y: &impl Fn(f64) -> f64,
) -> Markup {
    let mut path = String::new();
    for (index, (across, up)) in line.points.iter().enumerate() {
        path.push(if index == 0 { 'M' } else { 'L' });
        path.push_str(&format!("{} {}", px(x(*across)), px(y(*up))));
    }
    html! {
        g class=(line.look.0) {
            path.line d=(path) { title { (line.name) } }
            @for mark in &line.marks {
                circle.mark.hidden[!mark.shown] r="3.2" cx=(px(x(mark.at.0))) cy=(px(y(mark.at.1))) {
                    title { (mark.tip) }
                }
            }
            text.label x=(px(right + 7.0)) y=(px(name_y + 4.0)) {
                title { (line.name) }
                (fitted(&line.name, NAMES_MAX / BOLD))
            }
        }
    }
}

/// Moves what is too close apart, without changing the order, as far as the room allows.
fn apart(places: &mut [f64], distance: f64, top: f64, bottom: f64) {
    let mut order: Vec<usize> = (0..places.len()).collect();
    let at = |places: &[f64], index: usize| places.get(index).copied().unwrap_or(top);
    order.sort_by(|one, other| at(places, *one).total_cmp(&at(places, *other)));
    let mut least = top;
    for index in &order {
        if let Some(place) = places.get_mut(*index) {
            *place = place.max(least);
            least = *place + distance;
        }
    }
    let mut greatest = bottom;
    for index in order.iter().rev() {
        if let Some(place) = places.get_mut(*index) {
            *place = place.min(greatest);
            greatest = *place - distance;
        }
    }
}

const HEIGHT: f64 = 270.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 232.0;

/// What names may take of the width.
const NAMES_MAX: f64 = 110.0;

/// What a name takes of the height.
const NAME_ROW: f64 = 14.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_apart_and_in_order() {
        for (places, wanted) in [
            (&[100.0, 50.0][..], &[100.0, 50.0][..]),
            (&[100.0, 101.0, 99.0], &[114.0, 128.0, 100.0]),
            (&[228.0, 230.0, 231.0], &[204.0, 218.0, 232.0]),
            (&[], &[]),
        ] {
            let mut moved = places.to_vec();
            apart(&mut moved, 14.0, 10.0, 232.0);
            for (one, other) in moved.iter().zip(wanted) {
                assert!((one - other).abs() < 2.0, "{places:?}: {moved:?}");
            }
        }
        let mut many = vec![f64::NAN, f64::INFINITY, 0.0, -5.0];
        apart(&mut many, 14.0, 10.0, 232.0);
        assert!(
            many.iter().all(|place| (10.0..=232.0).contains(place)),
            "{many:?}"
        );
    }
}
