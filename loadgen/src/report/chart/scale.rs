//! Axes: where a value lies, and at which round numbers the ticks stand.
//!
//! Invariants: ticks are 1, 2 or 5 times a power of ten, or multiples of such a step; the first and the last
//! enclose all values that the axis was made for; a value's place is from 0 to 1, outliers at the ends.

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Axis {
    kind: Kind,
    least: f64,
    greatest: f64,
    ticks: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
}

impl Axis {
    /// From zero to the greatest value, with about so many ticks.
    pub(in crate::report) fn from_zero(greatest: f64, ticks: u32) -> Axis {
        let greatest = if greatest.is_finite() && greatest > 0.0 {
            greatest
        } else {
            1.0
        };
        Axis::linear(0.0, greatest, ticks)
    }

    /// From somewhat below the least to somewhat above the greatest.
    pub(in crate::report) fn linear(least: f64, greatest: f64, ticks: u32) -> Axis {
        let step = step(greatest - least, ticks);
        let first = (least / step + SLACK).floor();
        let last = (greatest / step - SLACK).ceil().max(first + 1.0);
        let mut all = Vec::new();
        let mut index = first;
        while index <= last && all.len() < TICKS_MAX {
            // Multiplied, not added up: 0.1 ten times is not 1. A zero has no sign.
            all.push(index * step + 0.0);
            index += 1.0;
        }
        Axis {
            kind: Kind::Linear,
            least: first * step,
            greatest: last * step,
            ticks: all,
        }
    }

    /// By powers of ten; both ends above zero.
    pub(in crate::report) fn log(least: f64, greatest: f64) -> Axis {
        let least = if least.is_finite() {
            least.max(f64::MIN_POSITIVE)
        } else {
            1.0
        };
        let greatest = if greatest.is_finite() {
            greatest.max(least)
        } else {
            least
        };
        let (mut first, last) = (round_down(least), round_up(greatest));
        if first >= last {
            first = round_down(last / 1.5);
        }
        let decades = (last / first).log10();
        let steps: &[f64] = if decades <= 4.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        let mut power = first.log10().floor();
        while power <= last.log10().ceil() && ticks.len() < TICKS_MAX {
            for times in steps {
                let tick = times * 10_f64.powf(power);
                if tick >= first * (1.0 - SLACK) && tick <= last * (1.0 + SLACK) {
                    ticks.push(tick);
                }
            }
            power += 1.0;
        }
        Axis {
            kind: Kind::Log,
            least: first,
            greatest: last,
            ticks,
        }
    }

    /// For times that are not negative: by powers of ten where they differ by more than that, else from zero.
    pub(in crate::report) fn times(least: f64, greatest: f64) -> Axis {
        if least > 0.0 && greatest / least > LOG_FROM {
            Axis::log(least, greatest)
        } else {
            Axis::from_zero(greatest, 5)
        }
    }

    /// For shares of a distribution, as [`nines`], up to so many of them.
    pub(in crate::report) fn shares(nines_max: f64) -> Axis {
        let greatest = if nines_max.is_finite() {
            nines_max.clamp(1.0, NINES_MAX)
        } else {
            1.0
        };
        let mut ticks = vec![0.0, nines(0.5)];
        let mut nines = 1.0;
        while nines <= greatest + SLACK {
            ticks.push(nines);
            nines += 1.0;
        }
        Axis {
            kind: Kind::Linear,
            least: 0.0,
            greatest,
            ticks,
        }
    }

    /// Where a value lies, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match self.kind {
            Kind::Linear => (value - self.least) / (self.greatest - self.least),
            Kind::Log => (value / self.least).log10() / (self.greatest / self.least).log10(),
        };
        if place.is_nan() {
            0.0
        } else {
            place.clamp(0.0, 1.0)
        }
    }

    /// Round values along it.
    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }
}

/// A share of a distribution by how rare the rest is: 0 for 0 %, 1 for 90 %, 2 for 99 %.
pub(in crate::report) fn nines(share: f64) -> f64 {
    if share >= 1.0 {
        return f64::INFINITY;
    }
    -(1.0 - share.max(0.0)).log10() + 0.0
}

/// The least of 1, 2 and 5 times the powers of ten of which `ticks` span the whole.
fn step(span: f64, ticks: u32) -> f64 {
    let least = span / f64::from(ticks.max(1));
    if least.is_finite() && least > 0.0 {
        round_up(least)
    } else {
        1.0
    }
}

fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let found = times.map(|times| times * power);
    let mut fitting = found.into_iter();
    fitting
        .find(|round| *round >= value * (1.0 - SLACK))
        .unwrap_or(value)
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let times = [10.0, 5.0, 2.0, 1.0];
    let found = times.map(|times| times * power);
    let mut fitting = found.into_iter();
    fitting
        .find(|round| *round <= value * (1.0 + SLACK))
        .unwrap_or(value)
}

/// What powers of ten may be off by.
const SLACK: f64 = 1e-9;

/// No axis has more; a guard against odd values.
const TICKS_MAX: usize = 50;

/// Beyond this, what is small could not be seen on an axis from zero.
const LOG_FROM: f64 = 20.0;

/// More than a run has messages for.
const NINES_MAX: f64 = 7.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: &[f64], wanted: &[f64]) -> bool {
        found.len() == wanted.len()
            && found
                .iter()
                .zip(wanted)
                .all(|(one, other)| (one - other).abs() <= 1e-9 * other.abs())
    }

    #[test]
    fn ticks_are_round() {
        for (axis, ticks) in [
            (
                Axis::from_zero(9302.0, 5),
                &[0.0, 2e3, 4e3, 6e3, 8e3, 1e4][..],
            ),
            (Axis::from_zero(10.0, 5), &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (Axis::from_zero(1.1, 3), &[0.0, 0.5, 1.0, 1.5]),
            (Axis::from_zero(0.3, 3), &[0.0, 0.1, 0.2, 0.3]),
            (Axis::from_zero(0.0, 2), &[0.0, 0.5, 1.0]),
            (Axis::from_zero(f64::NAN, 2), &[0.0, 0.5, 1.0]),
            (
                Axis::linear(0.93, 1.11, 5),
                &[0.9, 0.95, 1.0, 1.05, 1.1, 1.15],
            ),
            (Axis::linear(1.0, 1.0, 5), &[1.0, 2.0]),
            (Axis::log(130.0, 900.0), &[100.0, 200.0, 500.0, 1000.0]),
            (Axis::log(210.0, 4900.0), &[200.0, 500.0, 1e3, 2e3, 5e3]),
            (Axis::log(3.0, 3e5), &[10.0, 100.0, 1e3, 1e4, 1e5]),
            (Axis::log(5.0, 5.0), &[2.0, 5.0]),
        ] {
            assert!(near(axis.ticks(), ticks), "{ticks:?}: {axis:?}");
        }
    }

    #[test]
    fn an_axis_encloses_its_values() {
        for (least, greatest) in [
            (0.1, 0.9),
            (3.0, 3e5),
            (7.0, 7.1),
            (1e-7, 1e12),
            (1.0, 1e300),
        ] {
            for axis in [
                Axis::linear(least, greatest, 5),
                Axis::log(least, greatest),
                Axis::times(least, greatest),
            ] {
                assert!(
                    axis.least <= least && axis.greatest >= greatest * (1.0 - 1e-9),
                    "{axis:?}"
                );
                assert!((2..=TICKS_MAX).contains(&axis.ticks.len()), "{axis:?}");
                assert!(axis.place(least) <= axis.place(greatest));
            }
        }
    }

    #[test]
    fn a_place_is_on_the_axis() {
        let axis = Axis::log(100.0, 10_000.0);
        assert!((axis.place(1000.0) - 0.5).abs() < 1e-9);
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e9] {
            assert!((0.0..=1.0).contains(&axis.place(odd)), "{odd}");
        }
        assert_eq!(Axis::from_zero(10.0, 5).place(f64::INFINITY), 1.0);
    }

    #[test]
    fn times_that_differ_much_go_by_powers_of_ten() {
        let kind = |least, greatest| Axis::times(least, greatest).kind;
        assert_eq!(kind(100.0, 900.0), Kind::Linear);
        assert_eq!(kind(100.0, 90_000.0), Kind::Log);
        assert_eq!(kind(0.0, 90_000.0), Kind::Linear);
    }

    #[test]
    fn shares_go_by_nines() {
        assert_eq!(nines(0.0), 0.0);
        assert!((nines(0.999) - 3.0).abs() < 1e-9);
        assert_eq!(nines(1.0), f64::INFINITY);
        let axis = Axis::shares(4.3);
        assert!(near(axis.ticks(), &[0.0, nines(0.5), 1.0, 2.0, 3.0, 4.0]));
        assert_eq!(Axis::shares(f64::INFINITY).ticks().len(), 3);
        assert_eq!(axis.place(nines(1.0)), 1.0);
    }
}
