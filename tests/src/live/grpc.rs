//! gRPC by the implementation that most use, and gRPC-Web by one of its own: service, method, status and
//! messages are what the clients counted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::call::{Anomalies, ApiCall, Messages, Protocol};
use serde::Deserialize;
use tempfile::TempDir;
use xtask::agent::Agent;
use xtask::openssl::certificate;
use xtask::process::{self, Proc};
use xtask::setup;

use super::namespace::Namespace;
use super::patient::Patient;
use super::rig::{start_agent, stop_agent};
use crate::replay::scratch;

/// Servers and clients.
const SCRIPT: &str = include_str!("grpc_calls.py");

/// A call as its client tells of it.
#[derive(Deserialize)]
struct Told {
    service: String,
    method: String,
    status: u32,
    /// gRPC-Web.
    web: bool,
    sent: Messages,
    received: Messages,
}

/// Servers that run, and what their clients are.
struct Servers {
    dir: TempDir,
    _namespace: Namespace,
    server: Proc,
    ports: [u16; 2],
    python: PathBuf,
    place: Vec<String>,
}

impl Servers {
    fn start() -> Result<Servers> {
        let (port, web_port) = (process::free_server_port()?, process::free_server_port()?);
        Servers::serve("serve", [port, web_port], scratch()?, vec![web_port.to_string()])
    }

    /// One, over TLS that cannot be seen into.
    fn start_sealed() -> Result<Servers> {
        let (dir, port) = (scratch()?, process::free_server_port()?);
        certificate(dir.path())?;
        let pair = ["tls.pem", "tls.key"].map(|name| dir.path().join(name).display().to_string());
        Servers::serve("serve_sealed", [port, port], dir, pair.to_vec())
    }

    /// Runs `what` of the script; `more` follows address and port.
    fn serve(what: &str, ports: [u16; 2], dir: TempDir, more: Vec<String>) -> Result<Servers> {
        let namespace = Namespace::new()?;
        let script = dir.path().join("grpc_calls.py");
        fs::write(&script, SCRIPT)?;
        let python = setup::python_with_grpc().context("no Python has the module sonora")?;
        let mut place = vec![namespace.v4.to_string(), ports[0].to_string()];
        place.extend(more);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]).arg(&python).arg(&script).arg(what);
        command.args(&place);
        let mut server = Proc::spawn("gRPC servers", &command, &dir.path().join("server.log"))?;
        server.wait_for_line("listening", Duration::from_secs(20))?;
        Ok(Servers { dir, _namespace: namespace, server, ports, python, place })
    }

    /// A client that does `what`.
    fn client(&self, what: &str) -> Command {
        let mut client = Command::new(&self.python);
        client.arg(self.dir.path().join("grpc_calls.py")).arg(what).args(&self.place);
        client
    }

    /// Ends servers and Keywatch; the calls that were seen in order of time, and what was told of them.
    fn finish(mut self, agent: Agent, told: &str) -> Result<Vec<(ApiCall, Told)>> {
        self.server.kill()?;
        let mut calls = stop_agent(agent)?;
        calls.sort_by_key(|call| call.time);
        let told: Vec<Told> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(calls.len() == told.len(), "{} calls, {} made", calls.len(), told.len());
        Ok(calls.into_iter().zip(told).collect())
    }
}

/// Unary and streamed either way, refused, empty and large.
pub(crate) fn calls() -> Result<()> {
    seen_as_told("connect")
}

/// Many connections, on each of which the server speaks at the same time as the client.
pub(crate) fn servers_that_speak_first() -> Result<()> {
    seen_as_told("connect_often")
}

fn seen_as_told(what: &str) -> Result<()> {
    let servers = Servers::start()?;
    let ports = servers.ports;
    let agent = start_agent(servers.dir.path(), &ports, &[])?;
    let told = process::run(&mut servers.client(what))?;
    for (call, told) in servers.finish(agent, &told)? {
        same(&call, &told, ports)
            .with_context(|| format!("{} {}: {call:?}", told.method, told.status))?;
    }
    Ok(())
}

/// A channel that was in use before the start: every call from then on, and of its fields those that can be
/// known.
pub(crate) fn opened_before_the_start() -> Result<()> {
    let servers = Servers::start()?;
    let client = Patient::start(&mut servers.client("stay"))?;
    let agent = start_agent(servers.dir.path(), &servers.ports, &[])?;
    let told = client.go_on()?;
    for (call, told) in servers.finish(agent, &told)? {
        as_far_as_known(&call, &told)
            .with_context(|| format!("{} {}: {call:?}", told.method, told.status))?;
    }
    Ok(())
}

/// A server whose one connection stays open and is seen by nobody: it is named meanwhile.
pub(crate) fn sealed_is_named() -> Result<()> {
    let servers = Servers::start_sealed()?;
    let alerts = servers.dir.path().join("alerts.jsonl");
    let agent = start_agent(servers.dir.path(), &servers.ports, &[])?;
    let client = Patient::start(&mut servers.client("stay_sealed"))?;
    let expected = format!("(pid {}): nothing that its TLS library is given", servers.server.pid());
    process::wait_until("an alert that names it", Duration::from_secs(60), || {
        let alerts = fs::read_to_string(&alerts).unwrap_or_default();
        Ok(alerts.lines().any(|line| line.contains("D28") && line.contains(&expected)))
    })?;
    client.go_on()?;
    servers.finish(agent, "")?;
    Ok(())
}

fn same(call: &ApiCall, told: &Told, ports: [u16; 2]) -> Result<()> {
    let port = ports[usize::from(told.web)];
    ensure!(call.flow.server.port == port, "port {}", call.flow.server.port);
    ensure!(call.protocol == Protocol::Grpc, "protocol {:?}", call.protocol);
    let grpc = call.grpc.as_deref().context("no gRPC")?;
    ensure!((grpc.service.as_str(), grpc.method.as_str()) == (&*told.service, &*told.method));
    ensure!(grpc.status == Some(told.status), "status {:?}", grpc.status);
    ensure!(grpc.sent == told.sent, "sent {:?}, not {:?}", grpc.sent, told.sent);
    ensure!(
        grpc.received == told.received,
        "received {:?}, not {:?}",
        grpc.received,
        told.received
    );
    ensure!(call.complete && call.anomalies.is_empty(), "{:?}", call.anomalies);
    Ok(())
}

/// Fields that the client sends by their number in its table are unknown, and nothing else is.
fn as_far_as_known(call: &ApiCall, told: &Told) -> Result<()> {
    let was_called_before = told.method == "Place";
    let path = format!("/{}/{}", told.service, told.method);
    let request = call.request.as_ref().context("no request")?;
    ensure!(request.path == if was_called_before { "" } else { &path }, "path {}", request.path);
    ensure!(request.body_bytes == framed_bytes(&told.sent), "sent {:?}", told.sent);
    let response = call.response.as_ref().context("no response")?;
    ensure!(response.body_bytes == framed_bytes(&told.received), "received {:?}", told.received);
    ensure!(matches!(call.protocol, Protocol::Grpc | Protocol::Http2), "{:?}", call.protocol);
    // A refusal was not among the first call's fields.
    let status = call.grpc.as_ref().and_then(|grpc| grpc.status);
    ensure!(status == Some(told.status) || (status.is_none() && told.status == 0));
    ensure!(!call.complete && call.anomalies == Anomalies::UNKNOWN_HEADER, "{:?}", call.anomalies);
    Ok(())
}

/// With the five bytes before each message.
fn framed_bytes(messages: &Messages) -> u64 {
    messages.bytes + 5 * messages.count
}
