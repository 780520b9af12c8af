//! The workspace and the `keywatch` binary built from it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Which way to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build, checks on.
    Debug,
    /// As shipped.
    Release,
}

/// The folder that holds the workspace's Cargo.toml.
pub fn workspace_root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Builds `keywatch` and says where it is. `KEYWATCH_BIN` names one that is built already.
pub fn keywatch(profile: Profile) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KEYWATCH_BIN") {
        return Ok(path.into());
    }
    let mut cargo = cargo();
    // Not `--package`: with other packages chosen, dependencies would be built with other features.
    cargo.args(["build", "--quiet", "--bin", "keywatch"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    match profile {
        Profile::Debug => {}
        Profile::Release => {
            cargo.arg("--release");
        }
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "keywatch does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "keywatch")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where it put keywatch")
}

/// Cargo at the workspace root: the one that runs us, where that is known.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace_root());
    command
}
