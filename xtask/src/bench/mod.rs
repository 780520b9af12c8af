//! `cargo xtask bench`: speed, loss and memory, beside the figures to reach. Never part of a test.

mod engine;
mod host;
mod identity;
mod kafka;
mod kernel;
mod latency;
mod live;
mod replay;
mod tls;
mod usage;

use anyhow::Result;

/// What to measure.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Speed of detection over many keys, and what a key takes in memory.
    Engine(engine::Options),
    /// Calls into Kafka, beside its own benchmark on the same broker.
    Kafka(kafka::Options),
    /// nginx under load with Keywatch beside it on the same machine.
    Live(live::Options),
    /// Who asks, what for, and how it ended, for a mix of API styles.
    Identity(identity::Options),
    /// `keywatch replay` on captures made for it.
    Replay(replay::Options),
    /// nginx with HTTPS under load with Keywatch, tcpdump or a script of bpftrace beside it.
    Tls(tls::Options),
}

/// Measures and prints a table.
pub fn run(bench: &Bench) -> Result<()> {
    crate::process::catch_interrupts()?;
    match bench {
        Bench::Engine(options) => engine::run(options),
        Bench::Identity(options) => identity::run(options),
        Bench::Kafka(options) => kafka::run(options),
        Bench::Live(options) => live::run(options),
        Bench::Replay(options) => replay::run(options),
        Bench::Tls(options) => tls::run(options),
    }
}

/// Prints rows of what was measured, the figure, and the target.
fn table(rows: &[(String, String, &str)]) {
    println!("\n{:<46} {:>26}  target", "what", "measured");
    for (what, measured, target) in rows {
        println!("{what:<46} {measured:>26}  {target}");
    }
}

/// The least and the most.
fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(0.0, f64::max))
}

/// The middle one, or the mean of the middle two; 0 of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
