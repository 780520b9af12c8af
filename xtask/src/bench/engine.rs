//! `cargo xtask bench engine`: what a call and a key cost the Engine.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::table;

/// How many.
#[derive(clap::Args)]
pub struct Options {
    /// Keys that call all the time
    #[arg(long, default_value_t = 100_000)]
    active: u64,
    /// Calls that are timed
    #[arg(long, default_value_t = 5_000_000)]
    calls: u64,
    /// Keys that are known at the end
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
}

/// Runs the example of the core, which is built for it in release mode, and prints what it says.
pub fn run(options: &Options) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--release", "-p", "monitor-core", "--example", "engine_speed"])
        .arg("--")
        .args([options.active, options.calls, options.keys].map(|count| count.to_string()))
        .stderr(Stdio::inherit());
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "engine_speed failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let line = line.with_context(|| format!("engine_speed does not say: {name}"))?;
        line.parse().with_context(|| format!("engine_speed: {name}: {line}"))
    };
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64);
    table(&[
        (
            format!("calls a second on one core, {} active keys", options.active),
            figure("calls a second")?.to_string(),
            "1000000",
        ),
        ("alerts meanwhile".into(), figure("alerts")?.to_string(), "0"),
        ("keys known".into(), figure("keys")?.to_string(), ""),
        ("bytes by the Engine's own count".into(), gib(figure("state bytes")?), "1.2 GiB"),
        ("bytes resident".into(), gib(figure("resident bytes")?), "1.2 GiB"),
    ]);
    Ok(())
}
