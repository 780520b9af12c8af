//! Runs `keywatch replay` on capture files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use xtask::build::{self, Profile};

/// The secret of every test: key ids in expected files depend on it.
pub(crate) const SECRET: &str =
    "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0\n";
/// The config of every test: alerts carry the name of the host, and
/// the ring holds all that a live test sends, each packet in a record of up to twice its size, however long
/// other work keeps the agent from reading.
const CONFIG: &str = "[engine]\nhost = \"test\"\n[capture]\nring_bytes = \"256MiB\"\n";

/// What a replay wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// ApiCall lines.
    pub(crate) calls: String,
    /// Lines of connections that are over.
    pub(crate) connections: String,
    /// Alert lines.
    pub(crate) alerts: String,
    /// Exit code.
    pub(crate) exit: i32,
}

/// The binary under test, built once.
pub(crate) fn keywatch() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build::keywatch(Profile::Debug).map_err(|e| format!("{e:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// A folder with the config and the secret in it.
pub(crate) fn scratch() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("keywatch-test.").tempdir()?;
    fs::write(dir.path().join("keywatch.toml"), CONFIG)?;
    let secret = dir.path().join("secret");
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(secret)?;
    out.write_all(SECRET.as_bytes())?;
    Ok(dir)
}

/// The arguments that name config and secret of a scratch folder.
pub(crate) fn common_args(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec!["--config".into(), file("keywatch.toml"), "--secret-file".into(), file("secret")]
}

/// Replays `captures` and reads what came; fails unless it ends well.
pub(crate) fn replay(captures: &[&Path], args: &[String]) -> Result<Replayed> {
    let replayed = replay_however(captures, args)?;
    ensure!(replayed.exit == 0, "keywatch replay ended with {}", replayed.exit);
    Ok(replayed)
}

/// The same, however it ends.
pub(crate) fn replay_however(captures: &[&Path], args: &[String]) -> Result<Replayed> {
    let dir = scratch()?;
    let [calls, connections, alerts] = ["calls", "connections", "alerts"]
        .map(|name| dir.path().join(name).with_extension("jsonl"));
    let mut command = Command::new(keywatch()?);
    // A case may bring a config of its own.
    let own = usize::from(args.iter().any(|arg| arg == "--config")) * 2;
    command.arg("replay").args(&common_args(dir.path())[own..]).args(args);
    command.arg("--calls").arg(&calls).arg("--connections").arg(&connections);
    command.arg("--alerts").arg(&alerts).args(captures);
    let output = run(&mut command)?;
    let exit = output.status.code().with_context(|| format!("ended by {}", output.status))?;
    let read = |file| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        fs::read_to_string(file).with_context(|| format!("ended with {exit}: {said}"))
    };
    Ok(Replayed {
        calls: read(calls)?,
        connections: read(connections)?,
        alerts: read(alerts)?,
        exit,
    })
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("starting {}", command.get_program().display()))
}
