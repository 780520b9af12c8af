//! `cargo xtask bench live`: nginx, a loader and Keywatch on one machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernel::{Runs, Statistics, all_runs};
use super::usage::Usage;
use super::{median, table};
use crate::agent::{Agent, Setup};
use crate::build::{self, Profile};
use crate::nginx::{Nginx, Role};
use crate::process;
use crate::setup::{self, Purpose};

/// Connections of the loader.
const CLIENTS: u32 = 32;
/// Keys that the load is spread over.
const KEYS: u32 = 1000;

/// How long and how hard.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds at the steady rate.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Calls a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Pairs of runs at saturation, without and with Keywatch.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Seconds of each run at saturation.
    #[arg(long, default_value_t = 5)]
    saturation_seconds: u32,
}

/// Runs both parts.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure_for(&[Purpose::Build, Purpose::Live, Purpose::Bench])?;
    ensure!(setup::is_root(), "attaching to the kernel needs root (mend: run it with sudo -E)");
    println!("Building keywatch ...");
    let bench = Bench::prepare(build::keywatch(Profile::Release)?)?;
    let mut rows = bench.steady(options)?;
    rows.extend(bench.saturated(options)?);
    table(&rows);
    Ok(())
}

type Row = (String, String, &'static str);

/// What both parts need.
struct Bench {
    keywatch: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    fn prepare(keywatch: PathBuf) -> Result<Bench> {
        let dir = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
        Ok(Bench { keywatch, dir })
    }

    /// The steady rate: loss, processor time, memory.
    fn steady(&self, options: &Options) -> Result<Vec<Row>> {
        let (server, nginx) = self.nginx("steady", true)?;
        let _statistics = Statistics::on()?;
        let others = all_runs()?;
        let agent = self.agent("steady", server)?;
        let before = Usage::of(agent.pid())?;
        println!("{} calls a second for {} s ...", options.rate, options.seconds);
        load(server, options.rate, options.seconds, self.dir.path())?;
        let (mut runs, after) = (all_runs()?, Usage::of(agent.pid())?);
        // What was loaded with the agent is the agent's.
        runs.retain(|id, _| !others.contains_key(id));
        let log_file = self.dir.path().join("steady/keywatch.log");
        let status = agent.stop()?;
        ensure!(status.success(), "keywatch ended with {status}");
        let summary = summary(&log_file)?;
        let logged = nginx.stop()?.len() as u64;
        let seen = count(&summary, "/calls")?;
        let (lost_bytes, lost_events) =
            (count(&summary, "/lost/bytes")?, count(&summary, "/lost/events")?);
        let calls = logged.max(1) as f64;
        let user_us = (after.user_secs - before.user_secs) * 1e6 / calls;
        let system_us = (after.system_secs - before.system_secs) * 1e6 / calls;
        let mut rows: Vec<Row> = vec![
            ("calls a second asked for".into(), options.rate.to_string(), ""),
            ("calls in nginx's log".into(), logged.to_string(), ""),
            ("calls that Keywatch saw".into(), seen.to_string(), "the same"),
            ("bytes, events lost".into(), format!("{lost_bytes}, {lost_events}"), "0, 0"),
            ("incomplete calls".into(), count(&summary, "/incomplete")?.to_string(), "0"),
            ("agent user time, us a call".into(), format!("{user_us:.2}"), "at most 5"),
            ("agent system time, us a call".into(), format!("{system_us:.2}"), ""),
            (
                "resident memory at the end, most, MB".into(),
                format!("{:.0}, {:.0}", after.resident_mb, after.resident_mb_max),
                "100",
            ),
        ];
        let mut total = Runs::default();
        for (name, run) in runs.values().filter(|(_, run)| run.count > 0) {
            total.count += run.count;
            total.time_ns += run.time_ns;
            let each = run.time_ns as f64 / run.count as f64;
            rows.push((format!("  {name}, ns a run"), format!("{each:.0} x {}", run.count), ""));
        }
        // A call is two messages: what is asked and what is answered. With the loader on the same
        // host each of them passes both programs twice, once for either end's socket.
        let per_message = total.time_ns as f64 / (2.0 * calls);
        rows.push((
            "kernel time, ns a message, both ends".into(),
            format!("{per_message:.0}"),
            "at most 500",
        ));
        Ok(rows)
    }

    /// As fast as it goes, without and with Keywatch in turn.
    fn saturated(&self, options: &Options) -> Result<Vec<Row>> {
        let (server, nginx) = self.nginx("saturated", false)?;
        let mut ratios = Vec::new();
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for pair in 0..options.pairs {
            let alone = throughput(server, options.saturation_seconds)?;
            let agent = self.agent(&format!("saturated-{pair}"), server)?;
            let watched = throughput(server, options.saturation_seconds)?;
            agent.stop()?;
            println!("pair {}: {alone:.0} calls/s without, {watched:.0} with", pair + 1);
            ratios.push(watched / alone);
            without.push(alone);
            with.push(watched);
        }
        drop(nginx);
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let loss = (1.0 - median(&ratios)) * 100.0;
        Ok(vec![
            (
                "calls/s at saturation without, median".into(),
                format!("{:.0}", median(&without)),
                "",
            ),
            ("calls/s at saturation with, median".into(), format!("{:.0}", median(&with)), ""),
            (
                "throughput lost, % (of the median ratio)".into(),
                format!("{loss:.1} (ratios {least:.3} to {most:.3})"),
                "at most 3",
            ),
        ])
    }

    fn nginx(&self, name: &str, log: bool) -> Result<(SocketAddr, Nginx)> {
        let server = SocketAddr::from(([127, 0, 0, 1], process::free_server_port()?));
        let dir = self.dir.path().join(format!("{name}-nginx"));
        fs::create_dir_all(&dir)?;
        let log = if log { "" } else { "access_log off;" };
        let block =
            format!("    {log} location / {{ return 200 '{{\"price\":\"97250.10\"}}'; }}\n");
        Ok((server, Nginx::start(&[server.into()], &Role::Block(block), &dir, None)?))
    }

    fn agent(&self, name: &str, server: SocketAddr) -> Result<Agent> {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir)?;
        let args = ["--summary", "json", "--secret-file"].map(str::to_owned);
        let secret = self.dir.path().join("secret").display().to_string();
        let args: Vec<String> = args.into_iter().chain([secret]).collect();
        let ports = [server.port()];
        let setup =
            Setup { keywatch: &self.keywatch, dir: &dir, ports: &ports, args: &args, calls: false };
        Agent::start(&setup)
    }
}

/// A steady rate over all keys in turn.
pub(super) fn load(server: SocketAddr, rate: u32, seconds: u32, dir: &Path) -> Result<()> {
    let list = dir.join("targets");
    let targets: String = (0..KEYS)
        .map(|key| format!("http://{server}/api/v3/account?api_key=bench-key-{key:08}\n"))
        .collect();
    fs::write(&list, targets)?;
    let mut h2load = Command::new("h2load");
    h2load.arg("--h1").arg("-t1").arg(format!("-c{CLIENTS}"));
    h2load.arg(format!("--rps={}", f64::from(rate) / f64::from(CLIENTS)));
    h2load.arg(format!("--duration={seconds}")).arg("-i").arg(&list);
    process::run(&mut h2load).map(drop)
}

/// Calls a second as fast as wrk makes them.
fn throughput(server: SocketAddr, seconds: u32) -> Result<f64> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CLIENTS}"), &format!("-d{seconds}s")]);
    wrk.args(["-H", "X-MBX-APIKEY: bench-key-00000000"]);
    wrk.arg(format!("http://{server}/api/v3/account"));
    let output = process::run(&mut wrk)?;
    let line = output.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(line.context("wrk says no rate")?.trim().parse()?)
}

/// The JSON object that Keywatch ends with.
pub(super) fn summary(log: &Path) -> Result<Value> {
    let text = fs::read_to_string(log)?;
    let line = text.lines().rev().find_map(|line| line.find('{').map(|at| &line[at..]));
    let line = line.with_context(|| format!("no summary in {}", log.display()))?;
    serde_json::from_str(line).context("reading Keywatch's summary")
}

pub(super) fn count(summary: &Value, pointer: &str) -> Result<u64> {
    let value = summary.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("the summary has no {pointer}"))
}
