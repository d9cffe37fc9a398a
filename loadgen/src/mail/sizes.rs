//! How large generated messages are.

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand_distr::{Distribution, LogNormal};
use ringpost::cli::values;

use super::generated::MESSAGE_OCTETS_MIN;

/// How large messages are, header included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// All alike.
    Fixed(usize),
    /// Log-normal, as the sizes of real mail are.
    LogNormal {
        /// Half of them are smaller.
        median: usize,
        /// Of 1,000 one would be larger, and is cut to this.
        most: usize,
        /// The distribution that follows of these.
        distribution: LogNormal<f64>,
    },
}

impl Sizes {
    /// The largest there is.
    pub fn most(&self) -> usize {
        match self {
            Sizes::Fixed(octets) | Sizes::LogNormal { most: octets, .. } => *octets,
        }
    }

    /// One of them.
    pub fn draw(&self, random: &mut SmallRng) -> usize {
        match self {
            Sizes::Fixed(octets) => *octets,
            Sizes::LogNormal {
                most, distribution, ..
            } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and clamped right behind"
                )]
                let octets = distribution.sample(random) as usize;
                octets.clamp(MESSAGE_OCTETS_MIN, *most)
            }
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        let written =
            |octets: &usize| values::write_octets(u64::try_from(*octets).unwrap_or(u64::MAX));
        match self {
            Sizes::Fixed(octets) => format!("messages of {}", written(octets)),
            Sizes::LogNormal { median, most, .. } => format!(
                "messages of {} in the median and {} at most, log-normal",
                written(median),
                written(most)
            ),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// `SIZE`, or `lognormal:MEDIAN,MOST`.
    fn from_str(text: &str) -> Result<Sizes, String> {
        let Some(parameters) = text.strip_prefix("lognormal:") else {
            return size(text).map(Sizes::Fixed);
        };
        let Some((median, most)) = parameters.split_once(',') else {
            return Err(
                "must be a size, or lognormal:MEDIAN,MOST as in lognormal:20k,2M".to_owned(),
            );
        };
        let (median, most) = (size(median)?, size(most)?);
        if median >= most {
            return Err("the median must be smaller than the greatest size".to_owned());
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes have at most 31 bits")]
        let (location, greatest) = ((median as f64).ln(), (most as f64).ln());
        let distribution =
            LogNormal::new(location, (greatest - location) / DEVIATIONS_OF_1_IN_1000)
                .map_err(|error| error.to_string())?;
        Ok(Sizes::LogNormal {
            median,
            most,
            distribution,
        })
    }
}

fn size(text: &str) -> Result<usize, String> {
    let octets = values::octets(text)?;
    let octets = usize::try_from(octets).ok();
    octets
        .filter(|octets| (MESSAGE_OCTETS_MIN..=MESSAGE_OCTETS_MAX).contains(octets))
        .ok_or_else(|| format!("must be from {MESSAGE_OCTETS_MIN} (a header) to 1G"))
}

/// One in 1,000 of a normal distribution is more than so many standard deviations above its mean.
const DEVIATIONS_OF_1_IN_1000: f64 = 3.090_232;

/// All of a message lies in memory, once.
const MESSAGE_OCTETS_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn sizes_that_are_asked_for() {
        assert_eq!("2k".parse(), Ok(Sizes::Fixed(2048)));
        for wrong in [
            "",
            "100",
            "2G",
            "lognormal:",
            "lognormal:20k",
            "lognormal:2M,20k",
            "x",
        ] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_log_normal_has_its_median_and_its_end() {
        let sizes: Sizes = "lognormal:20k,2M".parse().unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let mut drawn: Vec<usize> = (0..100_000).map(|_| sizes.draw(&mut random)).collect();
        drawn.sort_unstable();
        let median = drawn[50_000];
        assert!((19_500..21_500).contains(&median), "{median}");
        let cut = drawn.iter().filter(|octets| **octets == 2 << 20).count();
        assert!(
            (60..150).contains(&cut),
            "{cut} of 100,000 are cut, not about 100"
        );
        assert_eq!(drawn.last(), Some(&(2 << 20)));
        assert!(drawn[0] >= MESSAGE_OCTETS_MIN);
    }
}
