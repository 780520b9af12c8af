//! `cargo xtask bench kafka`: calls into Kafka, beside Kafka's own producer benchmark on the same broker.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{median, replay, table};
use crate::build::{self, Profile};
use crate::kafka::{self, Kafka};
use crate::process;
use crate::setup::{self, Purpose};

/// How much.
#[derive(clap::Args)]
pub struct Options {
    /// Calls in the capture
    #[arg(long, default_value_t = 1_000_000)]
    calls: u32,
    /// Rounds, in each of which both have their turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// About the size of a call in the compact form.
const RECORD_BYTES: &str = "200";
const PORT: u16 = 8080;

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure_for(&[Purpose::Build, Purpose::Kafka])?;
    println!("Building keywatch ...");
    let keywatch = build::keywatch(Profile::Release)?;
    let scratch = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
    let capture = replay::small_calls(scratch.path(), options.calls)?;
    let kafka = Kafka::start()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..options.rounds.max(1) {
        theirs.push(producer_perf_test(&kafka.bootstrap, scratch.path(), options.calls)?);
        ours.push(publish(&keywatch, &kafka, scratch.path(), &capture, round, options.calls)?);
    }
    let rate = |rates: &[f64]| format!("{:.0}/s", median(rates));
    table(&[
        ("calls decoded, judged and in Kafka".into(), rate(&ours), "at least 200,000/s"),
        ("kafka-producer-perf-test, 200 B, zstd, acks=all".into(), rate(&theirs), ""),
    ]);
    Ok(())
}

/// Records a second of a replay with `--publish`, from its start to its end.
fn publish(
    keywatch: &Path,
    kafka: &Kafka,
    dir: &Path,
    capture: &Path,
    round: u32,
    calls: u32,
) -> Result<f64> {
    let config = dir.join("keywatch.toml");
    let topic = format!("activity{round}");
    fs::write(
        &config,
        format!(
            "[sinks.spool]\ndir = \"{}\"\n[sinks.kafka]\nbrokers = [\"{}\"]\n\
             activity_format = \"compact\"\nactivity_topic = \"{topic}\"\nflush_max = \"120s\"\n",
            dir.join("spool").display(),
            kafka.bootstrap
        ),
    )?;
    let mut command = Command::new(keywatch);
    command.arg("--config").arg(&config).args(["-q", "replay", "--publish", "--no-table"]);
    command.arg("--secret-file").arg(dir.join("secret"));
    command.args(["--port", &PORT.to_string(), "--summary", "off"]).arg(capture);
    let begun = Instant::now();
    process::run(&mut command)?;
    let rate = f64::from(calls) / begun.elapsed().as_secs_f64();
    let arrived: u64 = kafka
        .kcat(&["-b", &kafka.bootstrap, "-C", "-e", "-q", "-t", &topic, "-f", "\n"])?
        .lines()
        .count() as u64;
    ensure!(arrived == u64::from(calls), "{arrived} of {calls} calls are in Kafka");
    Ok(rate)
}

/// Records a second of Kafka's own benchmark.
fn producer_perf_test(bootstrap: &str, dir: &Path, records: u32) -> Result<f64> {
    // Of the broker's folder it wants the logging alone, and its own is as good.
    fs::write(dir.join("log4j2.properties"), kafka::LOGGING)?;
    let mut java = kafka::java(dir)?;
    java.args(["org.apache.kafka.tools.ProducerPerformance", "--topic", "perf"]);
    java.args(["--num-records", &records.to_string(), "--record-size", RECORD_BYTES]);
    java.args([
        "--throughput",
        "-1",
        "--producer-props",
        &format!("bootstrap.servers={bootstrap}"),
    ]);
    java.args(["acks=all", "compression.type=zstd", "linger.ms=50", "batch.size=1000000"]);
    let said = process::run(&mut java)?;
    let last = said.lines().rfind(|line| line.contains("records/sec")).context("no figure")?;
    let rate = last.split(',').find_map(|part| part.trim().split_once(" records/sec"));
    let rate = rate.context("no figure")?.0;
    rate.parse().with_context(|| format!("not a figure: {rate}"))
}
