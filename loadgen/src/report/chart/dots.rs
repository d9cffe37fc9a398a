//! Dots with whiskers: a value and its spread, against a value that means "no difference".

use maud::{Markup, html};

use super::{Axis, Format, WIDTH, fitted, picture, px, text_width};

/// A plot of dots.
pub(in crate::report) struct Dots {
    /// What it shows, in words.
    pub(in crate::report) shows: String,
    /// What means no difference.
    pub(in crate::report) neutral: f64,
    /// What a dot to the left of it means, and one to the right.
    pub(in crate::report) sides: (&'static str, &'static str),
    pub(in crate::report) dots: Vec<Dot>,
    pub(in crate::report) tick: Format,
}

/// One of them.
pub(in crate::report) struct Dot {
    pub(in crate::report) name: String,
    pub(in crate::report) value: f64,
    /// The least and the greatest.
    pub(in crate::report) spread: Option<(f64, f64)>,
    /// The value and its spread in words.
    pub(in crate::report) text: String,
    pub(in crate::report) tip: String,
}

impl Dots {
    pub(in crate::report) fn draw(&self) -> Markup {
        let values = self.dots.iter().flat_map(|dot| {
            let (least, greatest) = dot.spread.unwrap_or((dot.value, dot.value));
            [dot.value, least, greatest]
        });
        let values = values.filter(|value| value.is_finite());
        // So that a hair's breadth does not fill the picture.
        let (mut least, mut greatest) = (self.neutral * 0.95, self.neutral * 1.05);
        for value in values {
            least = least.min(value);
            greatest = greatest.max(value);
        }
        let axis = if least > 0.0 && greatest / least > LOG_FROM {
            Axis::log(least, greatest)
        } else {
            Axis::linear(least, greatest, 6)
        };
        let x = |value: f64| LEFT + axis.place(value) * (RIGHT - LEFT);
        let mut rows = Vec::new();
        let mut y = 0.0;
        for dot in &self.dots {
            rows.push(self.row(dot, y, &axis));
            y += ROW;
        }
        let (below, above) = self.sides;
        let content = html! {
            @for row in &rows { (row) }
            @for tick in axis.ticks() {
                text.tick.middle x=(px(x(*tick))) y=(px(y + 12.0)) { ((self.tick)(*tick)) }
            }
            text.tick.middle x=(px(WIDTH / 2.0)) y=(px(y + 29.0)) { "◂ " (below) " · " (above) " ▸" }
        };
        picture(y + 34.0, &self.shows, &content)
    }

    fn row(&self, dot: &Dot, y: f64, axis: &Axis) -> Markup {
        let x = |value: f64| LEFT + axis.place(value) * (RIGHT - LEFT);
        let (top, middle, bottom) = (y + 20.0, y + 27.0, y + 34.0);
        let spread = dot
            .spread
            .filter(|(least, greatest)| least.is_finite() && greatest > least);
        html! {
            g {
                title { (dot.tip) }
                text.name x="0" y=(px(y + 13.0)) {
                    (fitted(&dot.name, WIDTH - text_width(&dot.text) - 14.0))
                }
                text.value.end x=(px(WIDTH)) y=(px(y + 13.0)) { (dot.text) }
                rect.band x="0" y=(px(top)) width=(px(WIDTH)) height=(px(bottom - top)) rx="2" {}
                @for tick in axis.ticks() {
                    line.grid x1=(px(x(*tick))) x2=(px(x(*tick))) y1=(px(top)) y2=(px(bottom)) {}
                }
                line.neutral x1=(px(x(self.neutral))) x2=(px(x(self.neutral)))
                    y1=(px(top - 1.0)) y2=(px(bottom + 1.0)) {}
                @if let Some((least, greatest)) = spread {
                    path.spread d=(format!(
                        "M{0} {3}V{4}M{0} {2}H{1}M{1} {3}V{4}",
                        px(x(least)), px(x(greatest)), px(middle), px(middle - 4.5), px(middle + 4.5)
                    )) {}
                }
                @if dot.value.is_finite() {
                    circle.dot r="4.5" cx=(px(x(dot.value))) cy=(px(middle)) {}
                }
            }
        }
    }
}

const LEFT: f64 = 14.0;
const RIGHT: f64 = WIDTH - 14.0;
const ROW: f64 = 42.0;

/// Ratios that differ by more than this go by powers of ten.
const LOG_FROM: f64 = 10.0;
