//! When messages are due in an open loop.
//!
//! Apart from the clock that follows it because this is what makes a measurement honest: the moments are fixed
//! before the server does anything. Invariant: together the threads' schedules have the rate that was asked for.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand_distr::{Distribution, Exp};

use crate::plan::Arrivals;

/// The moments of one thread, since the start. They have no end.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    spread: Spread,
    number: u64,
    random: SmallRng,
}

#[derive(Clone, Debug)]
enum Spread {
    /// Thread `first` of `threads` has every so many-th moment.
    Even { rate: f64, first: f64, threads: f64 },
    /// Thread-wise independent ones are one Poisson process together.
    Random { distances: Exp<f64>, last: f64 },
}

impl Schedule {
    /// The schedule of thread `thread` of `threads`, which make `rate` messages a second together. None if that is
    /// not a rate.
    pub(super) fn new(
        rate: f64,
        arrivals: Arrivals,
        thread: usize,
        threads: usize,
        random: SmallRng,
    ) -> Option<Schedule> {
        #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
        let (first, threads) = (thread as f64, threads as f64);
        let spread = match arrivals {
            Arrivals::Even => Spread::Even {
                rate,
                first,
                threads,
            },
            Arrivals::Random => Spread::Random {
                distances: Exp::new(rate / threads).ok()?,
                last: 0.0,
            },
        };
        (rate.is_finite() && rate > 0.0).then_some(Schedule {
            spread,
            number: 0,
            random,
        })
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.spread {
            Spread::Even {
                rate,
                first,
                threads,
            } => {
                // Multiplied, not added up: no error gathers in a long run.
                #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 messages")]
                let number = self.number as f64;
                (number * *threads + *first) / *rate
            }
            Spread::Random { distances, last } => {
                *last += distances.sample(&mut self.random);
                *last
            }
        };
        self.number += 1;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn moments(arrivals: Arrivals, threads: usize) -> Vec<Duration> {
        let mut moments: Vec<Duration> = (0..threads)
            .flat_map(|thread| {
                let random = SmallRng::seed_from_u64(thread as u64);
                let schedule = Schedule::new(1000.0, arrivals, thread, threads, random).unwrap();
                schedule.take_while(|due| *due < Duration::from_secs(20))
            })
            .collect();
        moments.sort_unstable();
        moments
    }

    #[test]
    fn even_arrivals_have_equal_distances_over_all_threads() {
        for threads in [1, 3] {
            let moments = moments(Arrivals::Even, threads);
            assert_eq!(moments.len(), 20_000);
            for (number, due) in moments.iter().enumerate() {
                let exact = number as f64 / 1000.0;
                assert!(
                    (due.as_secs_f64() - exact).abs() < 1e-8,
                    "{number}: {due:?}"
                );
            }
        }
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        for threads in [1, 3] {
            let moments = moments(Arrivals::Random, threads);
            // Five standard deviations of the number of arrivals.
            assert!(
                (19_300..20_700).contains(&moments.len()),
                "{}",
                moments.len()
            );
            let distances = moments.windows(2).map(|pair| pair[1] - pair[0]);
            let longer = distances
                .filter(|distance| distance.as_secs_f64() > 0.001)
                .count();
            let share = longer as f64 / moments.len() as f64;
            assert!((share - (-1.0_f64).exp()).abs() < 0.02, "{share}");
        }
    }

    #[test]
    fn no_rate_no_schedule() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for arrivals in [Arrivals::Even, Arrivals::Random] {
                let random = SmallRng::seed_from_u64(1);
                assert!(
                    Schedule::new(rate, arrivals, 0, 1, random).is_none(),
                    "{rate}"
                );
            }
        }
    }
}
