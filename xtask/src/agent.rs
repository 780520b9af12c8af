//! A running `keywatch run` and what it has written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;
use rustix::process::Signal;

use crate::process::Proc;

/// Attaching takes well under a second; learning two simulated weeks first takes a few more.
const ATTACH_WAIT: Duration = Duration::from_secs(120);
/// Keywatch may first wait for a broker that is slow to take the last alerts.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// How to start it.
pub struct Setup<'a> {
    /// The binary.
    pub keywatch: &'a Path,
    /// Folder for everything it writes; it exists already.
    pub dir: &'a Path,
    /// Server ports.
    pub ports: &'a [u16],
    /// More arguments.
    pub args: &'a [String],
    /// Whether calls are written to `calls.jsonl`.
    pub calls: bool,
}

/// An attached agent; ended when dropped.
pub struct Agent {
    child: Proc,
    dir: PathBuf,
}

impl Agent {
    /// Starts it and waits until it is attached.
    pub fn start(setup: &Setup<'_>) -> Result<Agent> {
        let mut command = Command::new(setup.keywatch);
        command.arg("run").args(setup.args).current_dir(setup.dir);
        // What it learns stays its own.
        command.env("STATE_DIRECTORY", setup.dir.join("state"));
        for port in setup.ports {
            command.arg("--port").arg(port.to_string());
        }
        if setup.calls {
            command.arg("--calls").arg(setup.dir.join("calls.jsonl"));
        }
        command.arg("--alerts").arg(setup.dir.join("alerts.jsonl"));
        let mut child = Proc::spawn("keywatch", &command, &setup.dir.join("keywatch.log"))?;
        child.wait_for_line("keywatch: watching port", ATTACH_WAIT)?;
        Ok(Agent { child, dir: setup.dir.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it printed.
    pub fn output(&self) -> String {
        self.child.output()
    }

    /// The file with the calls.
    pub fn calls_file(&self) -> PathBuf {
        self.dir.join("calls.jsonl")
    }

    /// The file with the alerts.
    pub fn alerts_file(&self) -> PathBuf {
        self.dir.join("alerts.jsonl")
    }

    /// Sends SIGHUP: profiles are read again.
    pub fn reload(&self) -> Result<()> {
        self.child.signal(Signal::HUP)
    }

    /// Kills it as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()
    }

    /// Sends SIGTERM and waits until everything is written.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.child.signal(Signal::TERM)?;
        self.child.wait(STOP_WAIT)
    }
}

/// Reads a file of ApiCall lines.
pub fn read_calls(file: &Path) -> Result<Vec<ApiCall>> {
    read_lines(file)
}

/// Reads a file of Alert lines.
pub fn read_alerts(file: &Path) -> Result<Vec<Alert>> {
    read_lines(file)
}

fn read_lines<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    text.lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))
        })
        .collect()
}
