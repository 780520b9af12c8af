//! The fleet: members of a consumer group on a real Kafka.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::alert::Alert;
use serde_json::{Value, json};
use xtask::chaos::{self, Options};
use xtask::kafka::{Kafka, kcat};
use xtask::process::{self, Proc};

use crate::replay::keywatch;

/// Joining, taking over and a round of states, on a busy machine.
const WAIT: Duration = Duration::from_secs(90);

/// Members are killed and added while calls come in, the broker is killed and paused, and some records are
/// no calls: the alerts are those of a single Engine, each once.
pub(crate) fn members_come_and_go() -> Result<()> {
    let options =
        Options { activity: 20_000, alerts: 0, seconds: 40, nodes: 1, part: None, seed: 11 };
    chaos::fleet(&options, keywatch()?)?.check()
}

/// An agent and its broker are killed again and again: every alert that stands in a file arrives.
pub(crate) fn agents_die() -> Result<()> {
    let options = Options { activity: 0, alerts: 300, seconds: 30, nodes: 1, part: None, seed: 5 };
    chaos::agents(&options, keywatch()?)?.check()
}

/// A member that has learnt a key for ten days is killed, and the calls that it learnt from are no longer
/// in their topic: who takes its place knows the thief. Who begins with nothing does not.
pub(crate) fn what_was_learnt_outlives_a_member() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start()?;
    put(dir.path(), &kafka, &ten_days())?;
    let mut first = member(dir.path(), &kafka, "fleet", "first")?;
    wait_for_state(&kafka, "fleet", &[0xcd, 0x01, 0xe0])?; // 480
    first.kill()?;
    for topic in ["keywatch.activity", "fleet.sources", "fleet.groups"] {
        kafka.forget(topic)?;
    }

    let second = member(dir.path(), &kafka, "fleet", "second")?;
    put(dir.path(), &kafka, &[withdrawal(10, "203.0.113.66:40000")])?;
    let alerts = || kafka.read_topic("keywatch.alerts");
    process::wait_until("an alert", WAIT, || Ok(!alerts()?.is_empty()))?;
    second.stop()?;
    ensure!(read_of_state(dir.path(), "second")? >= 2, "it had no copy of the state");
    let known = alerts()?;
    for needed in ["D5", "D9"] {
        ensure!(speaks(&known, needed)?, "{needed} takes a baseline: {known:?}");
    }
    judged_one_call(dir.path(), "second")?;

    // The same withdrawal, where nobody has learnt anything.
    let third = member(dir.path(), &kafka, "another", "third")?;
    wait_for_state(&kafka, "another", &[1])?;
    third.stop()?;
    judged_one_call(dir.path(), "third")?;
    ensure!(!speaks(&alerts()?[known.len()..], "D9")?, "D9 took no baseline");

    // The second comes back, and goes on from what it has on its disk: 480, the one then, and this one.
    let again = member(dir.path(), &kafka, "fleet", "second")?;
    put(dir.path(), &kafka, &[withdrawal(11, "203.0.113.66:40000")])?;
    wait_for_state(&kafka, "fleet", &[0xcd, 0x01, 0xe2])?;
    again.stop()?;
    ensure!(read_of_state(dir.path(), "second")? == 0, "what it has was read from the topic again");
    Ok(())
}

/// A member that ended has judged one call and nothing that was there before: by its key, and perhaps by
/// its network, its operation, as a newcomer to that network, and as one that was flagged there.
fn judged_one_call(dir: &Path, name: &str) -> Result<()> {
    let log = fs::read_to_string(dir.join(format!("{name}.log")))?;
    let summary = log.lines().find_map(|line| line.strip_prefix("keywatch: fleet: "));
    let summary = summary.with_context(|| format!("no summary: {log}"))?;
    let is_so = (1..=5).any(|n| summary.starts_with(&format!("{n} calls judged, 0 read again")));
    ensure!(is_so, "it read something else: {log}");
    Ok(())
}

/// How many records of the state a member has read from its topic when it began.
fn read_of_state(dir: &Path, name: &str) -> Result<u64> {
    let log = fs::read_to_string(dir.join(format!("{name}.log")))?;
    let counts = log.lines().filter(|line| line.contains("states read from fleet.state"));
    let records = |line: &str| line.split("records=").nth(1)?.split(' ').next()?.parse().ok();
    let counts: Option<Vec<u64>> = counts.map(records).collect();
    Ok(counts.with_context(|| format!("no number of records: {log}"))?.iter().sum())
}

/// Waits until a key's state says, in MessagePack, that it has made so many calls.
fn wait_for_state(kafka: &Kafka, group: &str, calls: &[u8]) -> Result<()> {
    let said = [&b"\xa5calls"[..], calls].concat();
    process::wait_until("a state of the key", WAIT, || {
        let mut read = kcat()?;
        read.args(["-b", &kafka.bootstrap, "-t", &format!("{group}.state"), "-C", "-e", "-q"]);
        let output = read.output().context("starting kcat")?;
        Ok(output.stdout.windows(said.len()).any(|bytes| bytes == said))
    })
}

/// Whether some alert has a finding of this detector.
fn speaks(alerts: &[String], detector: &str) -> Result<bool> {
    for line in alerts {
        let alert: Alert = serde_json::from_str(line).with_context(|| format!("alert {line}"))?;
        if alert.findings.iter().any(|found| found.detector == detector) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn member(dir: &Path, kafka: &Kafka, group: &str, name: &str) -> Result<Proc> {
    let config = dir.join(format!("{name}.toml"));
    fs::write(
        &config,
        format!(
            "[sinks.kafka]\nbrokers = [\"{}\"]\nformat = \"native\"\n\
             [fleet]\ngroup = \"{group}\"\nstate_interval = \"1s\"\n\
             state_dir = \"{}\"\n",
            kafka.bootstrap,
            dir.join("states").display()
        ),
    )?;
    let mut command = Command::new(keywatch()?);
    command.arg("--config").arg(&config).args(["fleet", "--member", name]);
    let mut member = Proc::spawn(name, &command, &dir.join(format!("{name}.log")))?;
    member.wait_for_line("keywatch: fleet member", WAIT)?;
    Ok(member)
}

/// Puts calls into the topic as an agent would.
fn put(dir: &Path, kafka: &Kafka, calls: &[Value]) -> Result<()> {
    let file = dir.join("calls");
    let lines: String = calls.iter().map(|call| format!("{KEY}\t{call}\n")).collect();
    fs::write(&file, lines)?;
    let file = file.to_str().context("a folder that is no text")?;
    kafka.kcat(&[
        "-b",
        &kafka.bootstrap,
        "-P",
        "-t",
        "keywatch.activity",
        "-K",
        "\t",
        "-l",
        file,
    ])?;
    Ok(())
}

/// 2026-11-23T20:00:00Z, seconds.
const BEGIN_S: u64 = 1_795_464_000;
const DAY_S: u64 = 86_400;
const KEY: &str = "k_000102030405060708090a0b0c0d0e0f";

/// Of one key: two reads an hour from one address.
fn ten_days() -> Vec<Value> {
    let times = (0..10 * DAY_S).step_by(1_800);
    times.map(|time| call(BEGIN_S + time, "192.0.2.9:40000", "read", "ok")).collect()
}

/// From another network, and nothing that the key ever did.
fn withdrawal(day: u64, from: &str) -> Value {
    call(BEGIN_S + day * DAY_S, from, "withdraw", "ok")
}

fn call(time_s: u64, client: &str, op: &str, outcome: &str) -> Value {
    let (method, path) = match op {
        "withdraw" => ("POST", "/sapi/v1/capital/withdraw/apply"),
        _ => ("GET", "/api/v3/account"),
    };
    json!({
        "time": monitor_core::time::EventTime(time_s * 1_000_000_000),
        "flow": {
            "id": format!("f_{time_s:016x}"), "client": client, "server": "10.255.0.5:443",
            "tls": true, "process": null, "pid": null, "container": null,
        },
        "protocol": "http/1.1",
        "request": {
            "method": method, "host": "api.example.com", "target": path, "path": path,
            "user_agent": null, "body_bytes": 0,
        },
        "response": { "status": 200, "body_bytes": 20 },
        "latency_us": 900,
        "key": {
            "id": KEY, "source": "header:x-mbx-apikey",
            "profile": "binance",
        },
        "op": op, "symbol": null, "object_ids": [], "outcome": outcome,
        "complete": true, "anomalies": [],
    })
}
