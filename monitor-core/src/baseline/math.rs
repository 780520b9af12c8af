//! Tails of count distributions, in natural logarithms, finite whatever goes in.

/// Steps of the continued fraction: it needs about the square root of the larger parameter, and
/// counts a minute stay below a million.
const FRACTION_STEPS_MAX: u32 = 2_000;

/// Terms of the beta-binomial sum; what is left out is bounded and added.
const SUM_TERMS_MAX: u32 = 4_096;

/// The logarithm of a probability that is as good as zero.
const LN_LEAST: f64 = -700.0;

/// ln P(X >= `count`) for a negative binomial X with this `mean` and variance
/// `mean + dispersion * mean²`. Parameters that make no sense give 0: no surprise.
///
/// P(X >= k) = I_q(k, r) with r = 1 / dispersion and q = mean / (mean + r) (DLMF 8.17).
pub(crate) fn ln_tail_negative_binomial(count: u64, mean: f64, dispersion: f64) -> f64 {
    let sane = mean.is_finite() && dispersion.is_finite() && mean > 0.0 && dispersion > 0.0;
    if count == 0 || !sane {
        return 0.0;
    }
    let r = (1.0 / dispersion).clamp(1e-6, 1e9);
    let q = mean / (mean + r);
    tidy(ln_incomplete_beta(q, count as f64, r))
}

/// The least count whose tail is at most exp(`ln_p`), searched from `from` on.
pub(crate) fn quantile_negative_binomial(from: u64, mean: f64, dispersion: f64, ln_p: f64) -> u64 {
    let is_beyond = |count| ln_tail_negative_binomial(count, mean, dispersion) <= ln_p;
    let mut low = from.max(1);
    if is_beyond(low) {
        return low;
    }
    let mut high = low.saturating_mul(2);
    while !is_beyond(high) {
        low = high;
        high = high.saturating_mul(2);
        if high > 1 << 40 {
            return high;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_beyond(middle) { high = middle } else { low = middle }
    }
    high
}

/// ln P(X >= `count`) for X beta-binomial with `n` trials: a share that is itself Beta(a, b).
pub(crate) fn ln_tail_beta_binomial(count: u64, n: u64, a: f64, b: f64) -> f64 {
    let sane = a.is_finite() && b.is_finite() && a > 0.0 && b > 0.0;
    if count == 0 || !sane {
        return 0.0;
    }
    if count > n {
        return LN_LEAST;
    }
    let (k, trials) = (count as f64, n as f64);
    let ln_first = ln_gamma(trials + 1.0) - ln_gamma(k + 1.0) - ln_gamma(trials - k + 1.0)
        + ln_beta(k + a, trials - k + b)
        - ln_beta(a, b);
    let (mut term, mut sum, mut j) = (1.0, 1.0, k);
    for _ in 0..SUM_TERMS_MAX {
        if j >= trials || term < 1e-12 * sum {
            term = 0.0;
            break;
        }
        term *= (trials - j) / (j + 1.0) * (a + j) / (b + trials - j - 1.0);
        sum += term;
        j += 1.0;
    }
    tidy(ln_first + (sum + term * (trials - j).max(0.0)).ln())
}

/// ln Γ(x) for x > 0: Lanczos' approximation with g = 7 and nine terms (P. Godfrey's coefficients),
/// good to about 1e-14.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Γ(x) = Γ(x + 1) / x keeps clear of the pole at zero.
        return ln_gamma(x + 1.0) - x.ln();
    }
    let x = x - 1.0;
    let series = TERMS
        .iter()
        .zip(1u32..)
        .fold(0.999_999_999_999_809_9, |sum, (term, i)| sum + term / (x + f64::from(i)));
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + series.ln()
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// ln I_x(a, b), the regularised incomplete beta function (DLMF 8.17.22 where that converges fast,
/// 8.17.4 elsewhere).
fn ln_incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    let ln_front = a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b);
    if x < (a + 1.0) / (a + b + 2.0) {
        return ln_front - a.ln() + beta_fraction(x, a, b).ln();
    }
    let rest = ln_front - b.ln() + beta_fraction(1.0 - x, b, a).ln();
    (-rest.exp()).ln_1p()
}

/// The continued fraction, by Lentz's method as modified by Thompson and Barnett.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let guard = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..=FRACTION_STEPS_MAX {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < 1e-12 {
            break;
        }
    }
    fraction
}

fn tidy(ln_p: f64) -> f64 {
    if ln_p.is_nan() { 0.0 } else { ln_p.clamp(LN_LEAST, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(seen: f64, expected: f64) {
        assert!((seen - expected).abs() < 1e-9 * expected.abs().max(1.0), "{seen} != {expected}");
    }

    #[test]
    fn gamma_of_whole_and_half_numbers() {
        close(ln_gamma(1.0), 0.0);
        close(ln_gamma(5.0), 24f64.ln());
        close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln());
        close(ln_gamma(0.25), 3.625_609_908_221_908_f64.ln());
        close(ln_gamma(171.0), (1..=170).map(|n| f64::from(n).ln()).sum());
    }

    /// Summed directly from the recurrence of the probabilities.
    fn direct(count: u64, mean: f64, dispersion: f64) -> f64 {
        let (r, q) = (1.0 / dispersion, mean / (mean + 1.0 / dispersion));
        let mut p = (r * (1.0 - q).ln()).exp();
        let mut below = 0.0;
        for k in 0..count {
            below += p;
            p *= (r + k as f64) / (k as f64 + 1.0) * q;
        }
        (1.0 - below).ln()
    }

    #[test]
    fn negative_binomial_tails() {
        // Geometric: P(X >= k) = q^k.
        close(ln_tail_negative_binomial(10, 1.0, 1.0), 10.0 * 0.5f64.ln());
        close(ln_tail_negative_binomial(400, 9.0, 1.0), 400.0 * 0.9f64.ln());
        for (count, mean, dispersion) in
            [(3, 2.0, 0.5), (1, 5.0, 4.0), (30, 14.0, 0.3), (80, 100.0, 0.05)]
        {
            close(
                ln_tail_negative_binomial(count, mean, dispersion),
                direct(count, mean, dispersion),
            );
        }
    }

    #[test]
    fn the_quantile_is_the_first_beyond() {
        for (mean, dispersion) in [(0.02, 50.0), (5.0, 1.0), (100.0, 0.05), (4000.0, 0.3)] {
            let ln_p = 1e-6f64.ln();
            let count = quantile_negative_binomial(1, mean, dispersion, ln_p);
            assert!(ln_tail_negative_binomial(count, mean, dispersion) <= ln_p);
            assert!(ln_tail_negative_binomial(count - 1, mean, dispersion) > ln_p);
        }
    }

    #[test]
    fn beta_binomial_tails() {
        // Beta(1, 1): every count from 0 to n is as likely.
        close(ln_tail_beta_binomial(8, 9, 1.0, 1.0), 0.2f64.ln());
        close(ln_tail_beta_binomial(1, 1, 2.0, 6.0), 0.25f64.ln());
        // Beta(1, 2), n = 2: P(2) = B(3, 2) / B(1, 2) = 1/6.
        close(ln_tail_beta_binomial(2, 2, 1.0, 2.0), (1.0 / 6.0f64).ln());
        let long = ln_tail_beta_binomial(10, 1_000_000, 0.5, 0.5);
        assert!((-0.1..=0.0).contains(&long), "{long}");
    }

    proptest! {
        #[test]
        fn finite_whatever_goes_in(count: u64, n: u64, a: f64, b: f64) {
            for ln_p in [ln_tail_negative_binomial(count, a, b), ln_tail_beta_binomial(count, n, a, b)] {
                prop_assert!((LN_LEAST..=0.0).contains(&ln_p), "{ln_p}");
            }
            quantile_negative_binomial(count, a, b, -14.0);
        }
    }
}
