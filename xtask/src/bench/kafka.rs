//! `cargo xtask bench kafka`: calls into Kafka, beside Kafka's own producer benchmark on the same broker.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use wait4::Wait4;

use super::usage::Usage;
use super::{latency, median, replay, table};
use crate::build::{self, Profile};
use crate::kafka::{self, Jvm, Kafka};
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
    /// Seconds in which alerts are timed; 0 leaves them out
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Calls a second meanwhile
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
}

/// About the size of a call in the compact form.
const RECORD_BYTES: &str = "200";
const PORT: u16 = 8080;

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let latency = options.seconds > 0;
    let needed = [Purpose::Build, Purpose::Kafka, Purpose::Live];
    setup::ensure_for(if latency { &needed } else { &needed[..2] })?;
    println!("Building keywatch ...");
    let keywatch = build::keywatch(Profile::Release)?;
    let scratch = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
    let dir = scratch.path();
    println!("Making a capture ...");
    let capture = replay::small_calls(dir, options.calls)?;
    let kafka = Kafka::start_for_speed()?;
    // A broker compiles what it runs often; neither of the two pays for that.
    producer_perf_test(&kafka.bootstrap, dir, options.calls)?;
    let (mut ours, mut theirs, mut cores) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        theirs.push(producer_perf_test(&kafka.bootstrap, dir, options.calls)?);
        let before = Usage::of(kafka.pid()?)?;
        let (rate, secs, used) = publish(&keywatch, &kafka, dir, &capture, round, options.calls)?;
        let broker = Usage::of(kafka.pid()?)?.secs() - before.secs();
        println!("round {}: {:.0}/s beside {:.0}/s", round + 1, rate, theirs[round as usize]);
        ours.push(rate);
        cores.push([used / secs, broker / secs]);
    }
    let rate = |rates: &[f64]| format!("{:.0}/s", median(rates));
    let cores =
        |of: usize| format!("{:.2}", median(&cores.iter().map(|it| it[of]).collect::<Vec<_>>()));
    let mut rows = Vec::new();
    if options.rounds > 0 {
        rows.push(("calls decoded, judged and in Kafka".into(), rate(&ours), "at least 200,000/s"));
        rows.push((
            format!("kafka-producer-perf-test, {RECORD_BYTES} B, zstd, acks=all"),
            rate(&theirs),
            "",
        ));
        rows.push(("cores that keywatch used meanwhile".into(), cores(0), ""));
        rows.push(("cores that the broker used meanwhile".into(), cores(1), "both on 2"));
    }
    if latency {
        rows.extend(latency::measure(&keywatch, &kafka, dir, options.seconds, options.rate)?);
    }
    table(&rows);
    Ok(())
}

/// Records a second of a replay with `--publish`, from its start to its end; seconds, and those of a core.
fn publish(
    keywatch: &Path,
    kafka: &Kafka,
    dir: &Path,
    capture: &Path,
    round: u32,
    calls: u32,
) -> Result<(f64, f64, f64)> {
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
    let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let used = child.wait4()?;
    let secs = begun.elapsed().as_secs_f64();
    ensure!(used.status.success(), "keywatch ended with {}", used.status);
    let cpu_secs = (used.rusage.utime + used.rusage.stime).as_secs_f64();
    let arrived: u64 = kafka
        .kcat(&["-b", &kafka.bootstrap, "-C", "-e", "-q", "-t", &topic, "-f", "\n"])?
        .lines()
        .count() as u64;
    ensure!(arrived == u64::from(calls), "{arrived} of {calls} calls are in Kafka");
    Ok((f64::from(calls) / secs, secs, cpu_secs))
}

/// Records a second of Kafka's own benchmark.
fn producer_perf_test(bootstrap: &str, dir: &Path, records: u32) -> Result<f64> {
    // Of the broker's folder it wants the logging alone, and its own is as good.
    fs::write(dir.join("log4j2.properties"), kafka::LOGGING)?;
    let mut java = kafka::java(dir, Jvm::Fast)?;
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
