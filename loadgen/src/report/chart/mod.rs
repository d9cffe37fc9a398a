//! Plots as inline SVG: bars, lines, and dots with whiskers.
//!
//! Apart from the page because a plot knows no case and no stage: it draws values, names and tooltips. Invariants:
//! - What is drawn has finite coordinates inside of its picture, whatever the values are.
//! - Nothing is told apart by colour alone: lines differ in their dashes and carry their names, bars stand
//!   beside theirs.
//! - Text is text; its escaping is maud's.
//!
//! Pictures are [`WIDTH`] units wide and scale with the column that they stand in: about one unit a CSS pixel.

mod bars;
mod dots;
mod lines;
mod scale;

use maud::{Markup, html};

pub(super) use bars::{Bar, BarGroup, Bars};
pub(super) use dots::{Dot, Dots};
pub(super) use lines::{Line, Lines, Mark};
pub(super) use scale::{Axis, nines};

/// How a case or a stage looks, in every plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look(&'static str);

impl Look {
    /// The classes of the style sheet, with their colours and dashes.
    pub(super) const ALL: [Look; 8] = [
        Look("l0"),
        Look("l1"),
        Look("l2"),
        Look("l3"),
        Look("l4"),
        Look("l5"),
        Look("l6"),
        Look("l7"),
    ];
    /// Without TLS.
    pub(super) const PLAIN: Look = Look("l0");
    /// Negotiated TLS.
    pub(super) const NEGOTIATED: Look = Look("l1");
    /// Implicit TLS.
    pub(super) const IMPLICIT: Look = Look("l2");
}

/// What to write at the ticks of an axis.
pub(super) type Format = fn(f64) -> String;

/// A coordinate: a tenth of a unit is exact enough, and what is no number lies at the edge.
fn px(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// The picture, with what it shows in words for those who do not see it.
fn picture(height: f64, shows: &str, content: &Markup) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label=(shows)
            viewBox=(format!("0 0 {} {}", px(WIDTH), px(height))) {
            (content)
        }
    }
}

/// About how wide a text is.
#[expect(clippy::cast_precision_loss, reason = "names are short")]
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// The same in bold.
fn bold_width(text: &str) -> f64 {
    text_width(text) * BOLD
}

/// A text that fits into so many units; what is cut off is replaced by an ellipsis.
fn fitted(text: &str, width: f64) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut fits = String::new();
    for letter in text.chars() {
        if text_width(&fits) + 2.0 * LETTER > width {
            break;
        }
        fits.push(letter);
    }
    format!("{}…", fits.trim_end())
}

/// Units of a picture from side to side.
const WIDTH: f64 = 480.0;

/// What a letter takes of it on average, in the size of labels and in a wide font.
const LETTER: f64 = 6.6;

/// What bold letters are wider by.
const BOLD: f64 = 1.17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_numbers() {
        for (value, text) in [
            (1.0, "1"),
            (1.26, "1.3"),
            (-0.5, "-0.5"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(px(value), text);
        }
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(fitted("short", 100.0), "short");
        let cut = fitted(&"näme ".repeat(40), 100.0);
        assert!(cut.ends_with('…') && text_width(&cut) <= 100.0, "{cut}");
    }
}
