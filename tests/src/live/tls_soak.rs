//! Processes that come and go faster than they can be looked into.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::openssl::{self, certificate};
use xtask::process;

use super::compare::as_logged;
use super::rig::{start_agent, stop_agent};
use super::tls::curl;
use super::tls_servers::start_python;
use crate::replay::scratch;

/// Each begins to listen with a TLS library in it, and is gone. Arguments: port, how many.
const SHORT_LIVED: &str = r#"
import os, socket, ssl, sys
port, processes = int(sys.argv[1]), int(sys.argv[2])
for number in range(processes):
    child = os.fork()
    if child == 0:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        os._exit(0)
    os.waitpid(child, 0)
"#;

const PROCESSES: usize = 10_000;

/// Ten thousand of them beside a server: no file stays open, and a server that comes afterwards is found
/// and seen.
pub(crate) fn short_lived() -> Result<()> {
    let dir = scratch()?;
    certificate(dir.path())?;
    openssl::copy_libraries(dir.path())?;
    let at = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
    let [first, last] = [at(process::free_server_port()?), at(process::free_server_port()?)];
    let storm = process::free_server_port()?;
    let server = start_python(dir.path(), first, None, None)?;
    let ports = [first.port(), last.port(), storm];
    let agent = start_agent(dir.path(), &ports, &[])?;
    curl(&first, &["--http1.1"], "/api/before")?;
    let files =
        || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count()) };
    let before = files()?;
    let mut python = Command::new(xtask::setup::find("python3").context("no python3")?);
    python.args(["-c", SHORT_LIVED, &storm.to_string(), &PROCESSES.to_string()]);
    process::run(&mut python)?;
    // Those that are looked into have files open meanwhile.
    process::wait_until("files to be closed", Duration::from_secs(60), || Ok(files()? <= before))?;
    let attached = || agent.output().matches("looks inside TLS").count();
    let before_last = attached();
    let newcomer = start_python(dir.path(), last, Some(dir.path()), None)?;
    process::wait_until("Keywatch to find the last", Duration::from_secs(60), || {
        Ok(attached() > before_last)
    })?;
    for server in [&first, &last] {
        curl(server, &["--http1.1"], "/api/after")?;
    }
    let calls = stop_agent(agent)?;
    server.stop()?;
    newcomer.stop()?;
    let mut targets: Vec<_> = calls.iter().map(|call| as_logged(call).target).collect();
    targets.sort_unstable();
    ensure!(targets == ["/api/after", "/api/after", "/api/before"], "{calls:?}");
    Ok(())
}
