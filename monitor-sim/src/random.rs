//! Seeded randomness, the same on every machine.

use rand_distr::{Distribution, Exp, Gamma, LogNormal, Pareto, Poisson};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

#[derive(Clone)]
pub(crate) struct Random(Pcg64Mcg);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Pcg64Mcg::seed_from_u64(seed))
    }

    /// At least 0, less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Less than `n`; 0 of nothing.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean < 1e-9 {
            return 0;
        }
        if mean < 12.0 {
            // Knuth's product; faster than the library for the small means that most minutes have.
            let (mut count, mut product, floor) = (0, self.unit(), (-mean).exp());
            while product > floor {
                count += 1;
                product *= self.unit();
            }
            return count;
        }
        Poisson::new(mean.min(1e6)).map_or(0, |law| law.sample(&mut self.0) as u64)
    }

    /// By its median and the deviation of its logarithm.
    pub(crate) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        LogNormal::new(median.ln(), sigma).map_or(median, |law| law.sample(&mut self.0))
    }

    pub(crate) fn pareto(&mut self, least: f64, shape: f64) -> f64 {
        Pareto::new(least, shape).map_or(least, |law| law.sample(&mut self.0))
    }

    /// Of mean 1.
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        Gamma::new(shape, 1.0 / shape).map_or(1.0, |law| law.sample(&mut self.0))
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        Exp::new(1.0 / mean).map_or(mean, |law| law.sample(&mut self.0))
    }

    /// One of them, by weight; the last when all weigh nothing.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(T, f64)]) -> T {
        let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
        let mut left = self.unit() * total;
        for (choice, weight) in choices {
            left -= weight;
            if left < 0.0 {
                return *choice;
            }
        }
        choices[choices.len() - 1].0
    }

    pub(crate) fn one<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The finish of SplitMix64: spread like a hash.
pub(crate) fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
