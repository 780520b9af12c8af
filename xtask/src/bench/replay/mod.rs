//! `cargo xtask bench replay`: how fast captures are read, and in how much memory, beside Suricata
//! and tshark on the same files, one thread each.

mod captures;
mod tools;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use self::captures::Capture;
use self::tools::{Bench, Run, Tool};
use super::{median, table};
use crate::build::{self, Profile, workspace_root};
use crate::setup::{self, Purpose};

/// How much.
#[derive(clap::Args)]
pub struct Options {
    /// Small calls in the capture
    #[arg(long, default_value_t = 400_000)]
    calls: u32,
    /// Rounds, in each of which every tool has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Connections that are open at once
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
    /// A tenth of everything, in two rounds: a minute
    #[arg(long)]
    quick: bool,
}

/// tshark takes a hundred times as long as the others: two rounds of it are enough to see that.
const TSHARK_ROUNDS: u32 = 2;
/// Of a call of WebSocket or HTTP/2 there are as many as of four small ones, and a large body for a
/// thousand.
const PER_STREAMED: u32 = 4;
const PER_LARGE: u32 = 1000;
/// Files whose sizes are compared.
const SIZES: u32 = 10;

/// Makes the captures, reads each with every tool in turn, and prints the medians.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure_for(&[Purpose::Build])?;
    if let Err(error) = setup::ensure_for(&[Purpose::Bench]) {
        println!("bench: some peers are missing: {error:#}");
    }
    let scale = if options.quick { 10 } else { 1 };
    let (calls, flows) = (options.calls / scale, options.flows / scale);
    let rounds = if options.quick { 2 } else { options.rounds.max(1) };
    println!("Building keywatch ...");
    let keywatch = build::keywatch(Profile::Release)?;
    let floor_program = httparse_floor()?;
    let scratch = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
    let dir = scratch.path();
    let bench = Bench { keywatch, dir: dir.to_owned() };
    println!("Making captures ...");
    let small = captures::small(dir, "small calls", calls)?;
    let captures = [
        captures::large(dir, calls.div_ceil(PER_LARGE))?,
        captures::http2(dir, calls / PER_STREAMED)?,
        captures::websocket(dir, calls / PER_STREAMED)?,
    ];
    let tools: Vec<Tool> = Tool::ALL.into_iter().filter(|tool| tool.is_there()).collect();
    let starts = starts(&bench, &tools, &captures::one(dir)?)?;
    header();
    let mut targets = Targets::default();
    let measured = measure(&bench, &tools, &starts, &small, rounds)?;
    let floor = floor(&floor_program, &small, rounds)?;
    targets.small(&measured, floor);
    for capture in &captures {
        let measured = measure(&bench, &tools, &starts, capture, rounds)?;
        targets.other(capture, &measured);
    }
    targets.instructions(&bench, &tools, &small)?;
    targets.memory(&bench, dir, calls, flows)?;
    table(&targets.rows);
    Ok(())
}

/// A capture of so many small calls in `dir`.
pub(super) fn small_calls(dir: &Path, calls: u32) -> Result<PathBuf> {
    Ok(captures::small(dir, "small calls", calls)?.file)
}

/// What a tool needed for a capture: the medians, without the time that it takes to start.
#[derive(Clone, Copy)]
struct Measured {
    tool: Tool,
    calls_per_sec: f64,
    bytes_per_sec: f64,
}

/// How long each tool takes for nothing.
fn starts(bench: &Bench, tools: &[Tool], one: &Capture) -> Result<Vec<f64>> {
    let start = |tool: &Tool| {
        let runs: Result<Vec<Run>> = (0..3).map(|_| tool.run(bench, one)).collect();
        Ok(median(&runs?.iter().map(|run| run.secs).collect::<Vec<_>>()))
    };
    tools.iter().map(start).collect()
}

fn header() {
    println!(
        "\n{:<14} {:<18} {:>10} {:>10} {:>8} {:>8}  saw",
        "capture", "tool", "calls/s", "MB/s", "secs", "max MB"
    );
}

/// Every tool in turn, some rounds of that.
fn measure(
    bench: &Bench,
    tools: &[Tool],
    starts: &[f64],
    capture: &Capture,
    rounds: u32,
) -> Result<Vec<Measured>> {
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); tools.len()];
    // Into the page cache, before anyone has to wait for it. Not into ours: what is resident here when
    // a child begins counts as the child's.
    let mut file = File::open(&capture.file).context("opening a capture")?;
    io::copy(&mut file, &mut io::sink()).context("reading a capture")?;
    for round in 0..rounds {
        for (tool, runs) in tools.iter().zip(&mut runs) {
            if *tool != Tool::Tshark || round < TSHARK_ROUNDS {
                runs.push(tool.run(bench, capture)?);
            }
        }
    }
    let mut measured = Vec::new();
    for ((tool, runs), start) in tools.iter().zip(&runs).zip(starts) {
        let of = |field: fn(&Run) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
        let all_secs = of(|run| run.secs);
        // Of what is hardly longer than the start nothing can be told.
        let secs = (all_secs - start).max(all_secs / 10.0);
        let saw = runs.first().map_or(0, |run| run.calls);
        let saw_text = if saw == capture.calls {
            "all".to_owned()
        } else {
            format!("{saw} OF {}", capture.calls)
        };
        // What it did not see it has not read, however fast.
        let calls_per_sec = saw as f64 / secs;
        let bytes_per_sec = capture.bytes as f64 / secs;
        println!(
            "{:<14} {:<18} {calls_per_sec:>10.0} {:>10.0} {secs:>8.2} {:>8.0}  {saw_text}",
            capture.name,
            tool.name(),
            bytes_per_sec / 1e6,
            of(|run| run.resident_mb_max),
        );
        measured.push(Measured { tool: *tool, calls_per_sec, bytes_per_sec });
    }
    Ok(measured)
}

/// The figures that are to be reached.
#[derive(Default)]
struct Targets {
    rows: Vec<(String, String, &'static str)>,
}

impl Targets {
    fn add(&mut self, what: impl Into<String>, measured: String, target: &'static str) {
        self.rows.push((what.into(), measured, target));
    }

    fn small(&mut self, measured: &[Measured], floor: f64) {
        let rate = |tool| {
            let of = measured.iter().find(|measured| measured.tool == tool);
            of.map(|measured| measured.calls_per_sec).filter(|rate| *rate > 0.0)
        };
        let Some(keywatch) = rate(Tool::Keywatch) else { return };
        self.add("small calls, calls/s", format!("{keywatch:.0}"), "at least 600,000");
        self.add("httparse alone, calls/s", format!("{floor:.0}"), "");
        self.add("  times what Keywatch does", format!("{:.1}", floor / keywatch), "");
        for (peer, target) in [(Tool::Suricata, "at least 10"), (Tool::Tshark, "at least 50")] {
            let Some(peer_rate) = rate(peer) else {
                self.add(format!("times {}", peer.name()), "not there".into(), target);
                continue;
            };
            self.add(
                format!("times {}", peer.name()),
                format!("{:.1}", keywatch / peer_rate),
                target,
            );
            if let Some(writing) = rate(Tool::KeywatchCalls) {
                self.add(
                    format!("times {}, every call written", peer.name()),
                    format!("{:.1}", writing / peer_rate),
                    "",
                );
            }
        }
    }

    fn other(&mut self, capture: &Capture, measured: &[Measured]) {
        let Some(keywatch) = measured.iter().find(|measured| measured.tool == Tool::Keywatch)
        else {
            return;
        };
        if capture.name == "large bodies" {
            let rate = format!("{:.0}", keywatch.bytes_per_sec / 1e6);
            self.add("large bodies, MB/s of capture", rate, "at least 1,000");
        } else {
            let rate = format!("{:.0}", keywatch.calls_per_sec);
            self.add(format!("{}, calls/s", capture.name), rate, "");
        }
    }

    fn instructions(&mut self, bench: &Bench, tools: &[Tool], small: &Capture) -> Result<()> {
        for tool in tools.iter().filter(|tool| **tool != Tool::Tshark) {
            let Some(count) = tool.instructions(bench, &small.file)? else {
                self.add("instructions a call", "no counter here".into(), "");
                return Ok(());
            };
            let each = count as f64 / small.calls.max(1) as f64;
            self.add(
                format!("instructions a small call, {}", tool.name()),
                format!("{each:.0}"),
                "",
            );
        }
        Ok(())
    }

    /// Keywatch's memory against the size of the file, and against connections that are open.
    fn memory(&mut self, bench: &Bench, dir: &Path, calls: u32, flows: u32) -> Result<()> {
        let resident = |capture: &Capture| -> Result<f64> {
            let run = Tool::Keywatch.run(bench, capture)?;
            ensure!(run.calls == capture.calls, "{} of {} calls", run.calls, capture.calls);
            Ok(run.resident_mb_max)
        };
        let tenth = resident(&captures::small(dir, "a tenth", calls / SIZES)?)?;
        let whole = resident(&captures::small(dir, "small calls", calls)?)?;
        let what = "most memory, a file and one of 10 times that, MB";
        self.add(what, format!("{tenth:.0}, {whole:.0}"), "the same");
        let nothing = resident(&captures::one(dir)?)?;
        let open = resident(&captures::concurrent(dir, flows)?)?;
        self.add(format!("{flows} open connections, MB"), format!("{open:.0}"), "100");
        let each = (open - nothing) * 1e6 / f64::from(flows.max(1));
        self.add("  bytes each, a request in flight", format!("{each:.0}"), "");
        Ok(())
    }
}

fn floor(program: &Path, capture: &Capture, rounds: u32) -> Result<f64> {
    let rates: Result<Vec<f64>> =
        (0..rounds).map(|_| tools::floor(program, &capture.file)).collect();
    Ok(median(&rates?))
}

fn httparse_floor() -> Result<PathBuf> {
    let mut cargo = build::cargo();
    cargo.args(["build", "--quiet", "--release", "-p", "monitor-core"]);
    cargo.args(["--example", "httparse_floor", "--message-format", "json-render-diagnostics"]);
    let text = crate::process::run(&mut cargo)?;
    let messages =
        text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = messages
        .filter(|message| message["target"]["name"] == "httparse_floor")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.with_context(|| format!("no httparse_floor in {}", workspace_root().display()))
}
