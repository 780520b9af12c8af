//! Runs `keywatch replay` on a capture and reads what it says, as JSON and no more: the records may
//! have fields that this program does not know.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::build::{self, Profile};
use crate::process::Proc;

/// The secret under which keys are hashed, so that expected targets can be redacted in the same way.
pub(super) const SECRET: [u8; 32] = [0x2c; 32];

/// Longer than any capture here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of a capture.
pub(super) struct Replayed {
    /// ApiCall records.
    pub(super) calls: Vec<Value>,
    /// Connection records.
    pub(super) connections: Vec<Value>,
    /// The summary; null when it came to none.
    pub(super) summary: Value,
    /// Exit code; `None` when a signal ended it, or it was not over in time.
    pub(super) exit: Option<i32>,
    /// What it said: log, faults.
    pub(super) said: String,
}

impl Replayed {
    /// An exit that is no crash: all read, or a line that says what could not be.
    pub(super) fn fault(&self) -> Option<String> {
        match self.exit {
            Some(0) => None,
            Some(1) if self.has_plain_line() => None,
            Some(code) => Some(format!("exit code {code}: {}", self.said.trim())),
            None => Some(format!("ended by a signal or not at all: {}", self.said.trim())),
        }
    }

    /// The same, and something must have been read.
    pub(super) fn unread(&self) -> Option<String> {
        let nothing = self.calls.is_empty() && self.connections.is_empty();
        let refused = self.exit != Some(0) && nothing;
        self.fault().or_else(|| refused.then(|| self.said.trim().to_owned()))
    }

    fn has_plain_line(&self) -> bool {
        let said = self.said.trim();
        !said.contains("panicked") && said.lines().any(|line| line.starts_with("keywatch: "))
    }
}

/// Replays a capture, with a key log where there is one.
pub(super) fn replay(capture: &Path, keylog: Option<&Path>) -> Result<Replayed> {
    let dir = tempfile::Builder::new().prefix("keywatch-conformance.").tempdir()?;
    let file = |name: &str| dir.path().join(name);
    fs::write(file("keywatch.toml"), "")?;
    let secret: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut out = fs::OpenOptions::new();
    let mut out = out.write(true).create_new(true).mode(0o600).open(file("secret"))?;
    writeln!(out, "{secret}")?;
    let mut command = Command::new(keywatch()?);
    command.arg("replay").arg("--config").arg(file("keywatch.toml"));
    command.arg("--secret-file").arg(file("secret")).args(["--summary", "json"]);
    command.arg("--calls").arg(file("calls")).arg("--connections").arg(file("connections"));
    if let Some(keylog) = keylog {
        command.arg("--keylog").arg(keylog);
    }
    command.arg(capture);
    let mut child = Proc::spawn("keywatch", &command, &file("log"))?;
    let exit = child.wait(PATIENCE).ok().and_then(|status| status.code());
    let output = child.output();
    let (summaries, said): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| line.starts_with('{'));
    Ok(Replayed {
        calls: lines(&file("calls"))?,
        connections: lines(&file("connections"))?,
        summary: summaries.last().map_or(Ok(Value::Null), |line| serde_json::from_str(line))?,
        exit,
        said: said.join("\n"),
    })
}

/// Name of a file or folder.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The capture of a case folder, in whatever format.
pub(super) fn capture_of(dir: &Path) -> Result<PathBuf> {
    let found = super::entries(dir)?;
    found
        .into_iter()
        .find(|path| name(path).starts_with("input."))
        .with_context(|| format!("no input in {}", dir.display()))
}

/// Built once: with checks on, which is how faults of arithmetic show.
fn keywatch() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build::keywatch(Profile::Debug).map_err(|e| format!("{e:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

/// A file that was never made, because the arguments were refused, has no lines.
fn lines(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
