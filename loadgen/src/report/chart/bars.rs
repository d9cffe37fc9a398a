//! Bars from zero, in groups, each with its name before it and its value behind it.

use maud::{Markup, html};

use super::{Axis, Format, Look, WIDTH, fitted, picture, px, text_width};

/// A plot of bars.
pub(in crate::report) struct Bars {
    /// What it shows, in words.
    pub(in crate::report) shows: String,
    pub(in crate::report) groups: Vec<BarGroup>,
    /// Values at the ticks.
    pub(in crate::report) tick: Format,
}

/// Bars that belong together.
pub(in crate::report) struct BarGroup {
    pub(in crate::report) title: String,
    pub(in crate::report) bars: Vec<Bar>,
}

/// One of them.
pub(in crate::report) struct Bar {
    pub(in crate::report) name: String,
    pub(in crate::report) look: Look,
    /// Drawn lighter: the second of a kind.
    pub(in crate::report) light: bool,
    pub(in crate::report) value: f64,
    /// The value in words.
    pub(in crate::report) text: String,
    /// From the least to the greatest of the rounds.
    pub(in crate::report) range: Option<(f64, f64)>,
    pub(in crate::report) tip: String,
}

impl Bars {
    pub(in crate::report) fn draw(&self) -> Markup {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let widest = bars().map(|bar| text_width(&bar.name)).fold(0.0, f64::max);
        let left = (widest + 12.0).clamp(40.0, NAMES_MAX);
        let texts = bars().map(|bar| text_width(&bar.text)).fold(0.0, f64::max);
        let right = WIDTH - texts.max(24.0) - 14.0;
        let greatest = bars()
            .flat_map(|bar| [bar.value, bar.range.map_or(0.0, |(_, greatest)| greatest)])
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max);
        let axis = Axis::from_zero(greatest, 4);
        let x = |value: f64| left + axis.place(value) * (right - left);

        let mut rows = Vec::new();
        let mut y = 0.0;
        for group in &self.groups {
            rows.push(html! { text.group x="0" y=(px(y + 15.0)) { (group.title) } });
            y += 24.0;
            let top = y - 3.0;
            let mut drawn = Vec::new();
            for bar in &group.bars {
                drawn.push(row(bar, y, left, &x));
                y += ROW;
            }
            let bottom = y - 2.0;
            rows.push(html! {
                @for tick in axis.ticks() {
                    line.grid x1=(px(x(*tick))) x2=(px(x(*tick))) y1=(px(top)) y2=(px(bottom)) {}
                }
                @for bar in &drawn { (bar) }
                line.zero x1=(px(left)) x2=(px(left)) y1=(px(top)) y2=(px(bottom)) {}
            });
            y += 10.0;
        }
        let content = html! {
            @for row in &rows { (row) }
            @for tick in axis.ticks() {
                text.tick.middle x=(px(x(*tick))) y=(px(y + 4.0)) { ((self.tick)(*tick)) }
            }
        };
        picture(y + 12.0, &self.shows, &content)
    }
}

fn row(bar: &Bar, y: f64, left: f64, x: &impl Fn(f64) -> f64) -> Markup {
    let middle = y + THICK / 2.0;
    let range = bar
        .range
        .filter(|(least, greatest)| least.is_finite() && greatest > least);
    let end = range.map_or(x(bar.value), |(_, greatest)| x(greatest).max(x(bar.value)));
    let classes = format!(
        "bar {}{}",
        bar.look.0,
        if bar.light { " light" } else { "" }
    );
    html! {
        g {
            title { (bar.tip) }
            text.name.end x=(px(left - 7.0)) y=(px(middle + 4.0)) { (fitted(&bar.name, left - 8.0)) }
            rect class=(classes) x=(px(left)) y=(px(y)) height=(px(THICK)) rx="1.5"
                width=(px(x(bar.value) - left)) {}
            @if let Some((least, greatest)) = range {
                path.whisker d=(format!(
                    "M{0} {3}V{4}M{0} {2}H{1}M{1} {3}V{4}",
                    px(x(least)), px(x(greatest)), px(middle), px(middle - 3.5), px(middle + 3.5)
                )) {}
            }
            text.value x=(px(end + 6.0)) y=(px(middle + 4.0)) { (bar.text) }
        }
    }
}

const THICK: f64 = 15.0;
const ROW: f64 = 20.0;

/// What names may take of the width.
const NAMES_MAX: f64 = 170.0;
