//! Clients that sign as the library does that most trading programs use: key, operation, instrument and
//! outcome of twelve styles, and none of their secrets in anything that is written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::call::{ApiCall, Operation, Outcome};
use serde::Deserialize;
use xtask::process::{self, Proc};
use xtask::setup;

use super::namespace::Namespace;
use super::rig::{start_agent, stop_agent};
use crate::replay::scratch;

/// Server and clients.
const SCRIPT: &str = include_str!("exchanges.py");

/// A call as its client tells of it.
#[derive(Deserialize)]
struct Told {
    exchange: String,
    method: String,
    profile: String,
    op: Operation,
    symbol: Option<String>,
    outcome: Outcome,
}

/// Every call is what its client says, whatever status it was answered with.
pub(crate) fn as_ccxt_signs() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let script = dir.path().join("exchanges.py");
    fs::write(&script, SCRIPT)?;
    let python = setup::python_with_ccxt().context("no Python has the module ccxt")?;
    let host = namespace.v4.to_string();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name]).arg(&python).arg(&script);
    command.args(["serve", &host]);
    let mut server = Proc::spawn("stub of exchanges", &command, &dir.path().join("server.log"))?;
    let line = server.wait_for_line("listening ", Duration::from_secs(20))?;
    let port: u16 = line.trim().rsplit(' ').next().context("the stub names no port")?.parse()?;
    let connections = dir.path().join("connections.jsonl");
    let more = ["--connections".to_owned(), connections.display().to_string()];
    let agent = start_agent(dir.path(), &[port], &more)?;
    let mut client = Command::new(&python);
    client.arg(&script).args(["connect", &host, &port.to_string()]);
    let told = process::run(&mut client)?;
    server.kill()?;
    let mut calls = stop_agent(agent)?;
    calls.sort_by_key(|call| call.time);
    let told: Vec<Told> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(calls.len() == told.len(), "{} calls, {} made", calls.len(), told.len());
    for (call, told) in calls.iter().zip(&told) {
        same(call, told).with_context(|| format!("{} {}: {call:?}", told.exchange, told.method))?;
    }
    let secrets = process::run(Command::new(&python).arg(&script).arg("secrets"))?;
    without_secrets(dir.path(), &script, &secrets)
}

fn same(call: &ApiCall, told: &Told) -> Result<()> {
    let key = call.key.as_ref().context("no key")?;
    ensure!(key.profile == told.profile, "profile {}", key.profile);
    ensure!(call.op == told.op, "operation {}", call.op);
    ensure!(call.symbol.as_deref() == told.symbol.as_deref(), "symbol {:?}", call.symbol);
    ensure!(call.outcome == Some(told.outcome), "outcome {:?}", call.outcome);
    ensure!(call.complete && call.anomalies.is_empty(), "{:?}", call.anomalies);
    Ok(())
}

/// What was written to the folder, the script aside, holds no line of `secrets`.
fn without_secrets(dir: &Path, script: &Path, secrets: &str) -> Result<()> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path == script || !path.is_file() {
            continue;
        }
        let text = fs::read(&path)?;
        let text = String::from_utf8_lossy(&text);
        for secret in secrets.lines() {
            ensure!(secret.len() > 8 && !text.contains(secret), "a secret in {}", path.display());
        }
        files += 1;
    }
    ensure!(files >= 2, "only {files} files were written");
    Ok(())
}
