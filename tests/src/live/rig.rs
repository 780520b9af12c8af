//! A namespace with nginx in it and Keywatch outside, ready for traffic.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use monitor_core::call::ApiCall;
use tempfile::TempDir;
use xtask::agent::{self, Agent, Setup};
use xtask::nginx::{Listen, Logged, Nginx, Role};
use xtask::openssl::certificate;
use xtask::process;

use super::namespace::Namespace;
use crate::replay::{common_args, keywatch, scratch};

/// Server lines of most tests: `/ok` with a small body, files below `/files/`, and POST anywhere.
pub(crate) const BLOCK: &str = "
    root html;
    location = /ok { return 200 '{\"ok\":true}'; }
    location = /denied { return 403 '{\"code\":-1002}'; }
    location /api/ { return 200 '{\"balances\":[]}'; }
    location /api/v3/ { return 401 '{\"code\":-2014,\"msg\":\"API-key format invalid.\"}'; }
    location /sapi/ { return 403 '{\"code\":-1002,\"msg\":\"You are not authorized to execute this request.\"}'; }
    location /note { return 201 'noted'; }
    location /files/ { sendfile on; }
";

/// nginx and, once started, Keywatch. Fields drop in this order.
pub(crate) struct Rig {
    agent: Option<Agent>,
    nginx: Nginx,
    /// The wire.
    pub(crate) namespace: Namespace,
    /// Where the server is reached over IPv4.
    pub(crate) server: SocketAddr,
    /// Where the server is reached over IPv6.
    pub(crate) server_v6: SocketAddr,
    /// Second port, served in the same way, not watched unless the test says so.
    pub(crate) other: SocketAddr,
    /// Third port, where HTTP/2 is spoken.
    pub(crate) http2: SocketAddr,
    /// Fourth port, where TLS is spoken, and in it HTTP/1 or HTTP/2.
    pub(crate) tls: SocketAddr,
    dir: TempDir,
}

impl Rig {
    /// nginx with [`BLOCK`] and Keywatch on its port.
    pub(crate) fn start() -> Result<Rig> {
        let mut rig = Rig::without_agent()?;
        rig.start_agent(&[])?;
        Ok(rig)
    }

    /// nginx alone.
    pub(crate) fn without_agent() -> Result<Rig> {
        let dir = scratch()?;
        let namespace = Namespace::new()?;
        let at = |ip: IpAddr| -> Result<SocketAddr> {
            Ok(SocketAddr::new(ip, process::free_server_port()?))
        };
        let [server, other] = [at(namespace.v4)?, at(namespace.v4)?];
        let [http2, tls] = [at(namespace.v4)?, at(namespace.v4)?];
        let server_v6 = SocketAddr::new(namespace.v6, server.port());
        let html = dir.path().join("html/files");
        fs::create_dir_all(&html)?;
        let role = Role::Block(BLOCK.to_owned() + &certificate(dir.path())?);
        let mut listen = [server, server_v6, other, http2, tls].map(Listen::from);
        listen[3].http2 = true;
        (listen[4].http2, listen[4].tls) = (true, true);
        let nginx = Nginx::start(&listen, &role, dir.path(), Some(&namespace.name))?;
        Ok(Rig { agent: None, nginx, namespace, server, server_v6, other, http2, tls, dir })
    }

    /// Attaches Keywatch to the server's port.
    pub(crate) fn start_agent(&mut self, more_args: &[String]) -> Result<()> {
        self.start_agent_on(&[self.server.port()], more_args)
    }

    /// Attaches Keywatch to some ports.
    pub(crate) fn start_agent_on(&mut self, ports: &[u16], more_args: &[String]) -> Result<()> {
        self.agent = Some(start_agent(self.dir.path(), ports, more_args)?);
        Ok(())
    }

    /// A file below `/files/` of so many bytes.
    pub(crate) fn file(&self, name: &str, len: usize) -> Result<()> {
        fs::write(self.dir.path().join("html/files").join(name), vec![b'k'; len])?;
        Ok(())
    }

    /// Everything this test writes.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The attached agent.
    pub(crate) fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("no agent was started")
    }

    /// Ends Keywatch in good order and gives its calls.
    pub(crate) fn stop_agent(&mut self) -> Result<Vec<ApiCall>> {
        stop_agent(self.take_agent()?)
    }

    /// The attached agent, to be ended by the test.
    pub(crate) fn take_agent(&mut self) -> Result<Agent> {
        self.agent.take().context("no agent was started")
    }

    /// Ends both and gives what each has seen.
    pub(crate) fn finish(mut self) -> Result<(Vec<ApiCall>, Vec<Logged>)> {
        let calls = self.stop_agent()?;
        Ok((calls, self.logged()?))
    }

    /// What nginx logged so far.
    pub(crate) fn log(&self) -> Result<Vec<Logged>> {
        self.nginx.log()
    }

    /// Ends nginx and gives what it logged.
    pub(crate) fn logged(self) -> Result<Vec<Logged>> {
        self.nginx.stop()
    }
}

/// Sets keys under `[capture]` in the config in `dir`.
pub(crate) fn capture_set(dir: &Path, lines: &str) -> Result<()> {
    let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
    let keys: Vec<_> = lines.lines().map(key).collect();
    let config = dir.join("keywatch.toml");
    let others = fs::read_to_string(&config)?;
    // It ends in that section.
    let others = others.lines().filter(|line| !keys.contains(&key(line)));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    Ok(fs::write(&config, others + lines)?)
}

/// Attaches Keywatch with its files in `dir`.
pub(crate) fn start_agent(dir: &Path, ports: &[u16], more_args: &[String]) -> Result<Agent> {
    let mut args = common_args(dir);
    args.extend_from_slice(more_args);
    Agent::start(&Setup { keywatch: keywatch()?, dir, ports, args: &args, calls: true })
}

/// Ends Keywatch in good order and gives its calls.
pub(crate) fn stop_agent(agent: Agent) -> Result<Vec<ApiCall>> {
    let file = agent.calls_file();
    let log = agent.output();
    let status = agent.stop()?;
    ensure!(status.code() == Some(0), "keywatch ended with {status}: {log}");
    agent::read_calls(&file)
}
