//! What the benches of live capture have in common: nginx, a loader and Keywatch on one machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::agent::{Agent, Setup};
use crate::build::{self, Profile};
use crate::nginx::{Listen, Nginx, Role};
use crate::openssl;
use crate::process;
use crate::setup::{self, Purpose};

/// Connections of the loader.
pub(super) const CLIENTS: u32 = 32;
/// Keys that the load is spread over.
const KEYS: u32 = 1000;

/// A folder and a release build.
pub(super) struct Host {
    keywatch: PathBuf,
    dir: tempfile::TempDir,
}

/// How nginx serves its one small answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    /// Whether it writes its access log.
    pub(super) log: bool,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
}

impl Host {
    pub(super) fn prepare() -> Result<Host> {
        setup::ensure_for(&[Purpose::Build, Purpose::Live, Purpose::Load])?;
        ensure!(setup::is_root(), "attaching to the kernel needs root (mend: run it with sudo -E)");
        println!("Building keywatch ...");
        let keywatch = build::keywatch(Profile::Release)?;
        let dir = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
        Ok(Host { keywatch, dir })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn nginx(&self, name: &str, serving: Serving) -> Result<(SocketAddr, Nginx)> {
        let at = SocketAddr::from(([127, 0, 0, 1], process::free_server_port()?));
        let dir = self.dir().join(format!("{name}-nginx"));
        fs::create_dir_all(&dir)?;
        let certificate = if serving.tls { openssl::certificate(&dir)? } else { String::new() };
        let log = if serving.log { "" } else { "access_log off;" };
        let block = format!(
            "{certificate}    {log} location / {{ return 200 '{{\"price\":\"97250.10\"}}'; }}\n"
        );
        let listen = Listen { tls: serving.tls, ..at.into() };
        Ok((at, Nginx::start(&[listen], &Role::Block(block), &dir, None)?))
    }

    /// With its log in `NAME/keywatch.log`, and this in its config.
    pub(super) fn agent(&self, name: &str, server: SocketAddr, set: &str) -> Result<Agent> {
        let dir = self.dir().join(name);
        fs::create_dir_all(&dir)?;
        let config = dir.join("keywatch.toml");
        fs::write(&config, set)?;
        let args = ["--summary", "json", "--secret-file"].map(str::to_owned);
        let secret = self.dir().join("secret").display().to_string();
        let config = ["--config".to_owned(), config.display().to_string()];
        let args: Vec<String> = args.into_iter().chain([secret]).chain(config).collect();
        let ports = [server.port()];
        let setup =
            Setup { keywatch: &self.keywatch, dir: &dir, ports: &ports, args: &args, calls: false };
        Agent::start(&setup)
    }

    /// What the agent of that name has ended with, as [`summary`] gives it.
    pub(super) fn summary(&self, name: &str) -> Result<Value> {
        summary(&self.dir().join(name).join("keywatch.log"))
    }
}

/// A loader that makes calls at a steady rate over all keys in turn: h2load, over HTTP/1.1. `server` has
/// the scheme; `dir` is for its list of targets.
pub(super) fn steady_load(server: &str, rate: u32, seconds: u32, dir: &Path) -> Result<Command> {
    let list = dir.join("targets");
    let targets: String = (0..KEYS)
        .map(|key| format!("{server}/api/v3/account?api_key=bench-key-{key:08}\n"))
        .collect();
    fs::write(&list, targets)?;
    let mut h2load = Command::new("h2load");
    h2load.arg("--h1").arg("-t1").arg(format!("-c{CLIENTS}"));
    h2load.arg(format!("--rps={}", f64::from(rate) / f64::from(CLIENTS)));
    h2load.arg(format!("--duration={seconds}")).arg("-i").arg(&list);
    Ok(h2load)
}

/// A loader that makes calls as fast as it can, for [`rate_of`]. `server` has the scheme.
pub(super) fn full_load(server: &str, seconds: u32) -> Command {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CLIENTS}"), &format!("-d{seconds}s")]);
    wrk.args(["-H", "X-MBX-APIKEY: bench-key-00000000"]);
    wrk.arg(format!("{server}/api/v3/account"));
    wrk
}

/// Runs it and gives calls a second.
pub(super) fn rate_of(wrk: &mut Command) -> Result<f64> {
    let output = process::run(wrk)?;
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

/// A count in a summary.
pub(super) fn count(summary: &Value, pointer: &str) -> Result<u64> {
    let value = summary.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("the summary has no {pointer}"))
}
