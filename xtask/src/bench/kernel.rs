//! What the kernel side costs, by the kernel's own BPF run-time statistics.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Statistics are on while this lives. They cost some 20 to 30 ns a run themselves.
pub(super) struct Statistics {
    before: String,
}

/// Runs of one program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runs {
    /// How often.
    pub(super) count: u64,
    /// How long in all, nanoseconds.
    pub(super) time_ns: u64,
}

impl Statistics {
    /// Turns them on.
    pub(super) fn on() -> Result<Statistics> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Statistics { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.before.trim());
    }
}

/// Every program that is loaded now, by id, with its name.
pub(super) fn all_runs() -> Result<BTreeMap<u64, (String, Runs)>> {
    let text = process::run(Command::new("bpftool").args(["prog", "show", "--json"]))?;
    let programs: Vec<Value> = serde_json::from_str(&text).context("reading bpftool's answer")?;
    let runs = |program: &Value| {
        let count = program["run_cnt"].as_u64().unwrap_or(0);
        let time_ns = program["run_time_ns"].as_u64().unwrap_or(0);
        let name = program["name"].as_str().unwrap_or("?").to_owned();
        Some((program["id"].as_u64()?, (name, Runs { count, time_ns })))
    };
    Ok(programs.iter().filter_map(runs).collect())
}
