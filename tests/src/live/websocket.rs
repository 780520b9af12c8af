//! WebSocket by an implementation of its own, with compression in every agreement: what was seen is
//! what the clients counted.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::call::{Anomalies, ApiCall, Protocol};
use monitor_core::connection::{Connection, Deflate, Peer, Traffic, WebSocket};
use serde::Deserialize;
use xtask::nginx::{Listen, Nginx, Role};
use xtask::openssl::certificate;
use xtask::process::{self, Proc};
use xtask::setup;

use super::namespace::Namespace;
use super::patient::Patient;
use super::rig::{start_agent, stop_agent};
use crate::replay::scratch;

/// Server and clients.
const SCRIPT: &str = include_str!("websocket.py");

/// Connections that the clients make, each with another agreement on compression.
const CONNECTIONS: usize = 6;

/// A connection as its client tells of it.
#[derive(Deserialize)]
struct Told {
    client: String,
    calls: Vec<Exchange>,
    pushes: u64,
    sent: Side,
    received: Side,
    deflate: Option<Deflate>,
}

/// Name of a message, its bytes, and those of its reply.
type Exchange = (String, u64, Option<u64>);

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Side {
    text: u64,
    binary: u64,
    payload: u64,
    pings: u64,
    pongs: u64,
    continuations: u64,
}

/// What is between the clients and the server's code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// The server's own TLS, on memory BIOs.
    Tls,
    /// nginx, which ends TLS and passes on what is inside.
    Nginx,
}

/// How much of a connection there was to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Whole,
    FromTheMiddle,
}

impl Seen {
    /// What is said of it.
    fn anomalies(self) -> Anomalies {
        match self {
            Seen::Whole => Anomalies::empty(),
            Seen::FromTheMiddle => Anomalies::MIDSTREAM,
        }
    }
}

/// Fragments, pings between, large messages, replies out of order.
pub(crate) fn calls_and_counts() -> Result<()> {
    seen_as_counted(Between::Nothing)
}

/// The same over TLS.
pub(crate) fn over_tls() -> Result<()> {
    seen_as_counted(Between::Tls)
}

/// The same with nginx in front.
pub(crate) fn behind_nginx() -> Result<()> {
    seen_as_counted(Between::Nginx)
}

fn seen_as_counted(between: Between) -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let script = dir.path().join("websocket.py");
    fs::write(&script, SCRIPT)?;
    let tls = between == Between::Tls;
    let (mut server, mut port) = start_server(&namespace, &script, dir.path(), tls)?;
    let mut front = None;
    if between == Between::Nginx {
        let behind = SocketAddr::new(namespace.v4, port);
        port = process::free_server_port()?;
        front = Some(start_front(&namespace, dir.path(), behind, port)?);
    }
    let connections = dir.path().join("connections.jsonl");
    let more = ["--connections".to_owned(), connections.display().to_string()];
    let agent = start_agent(dir.path(), &[port], &more)?;
    let mut client = Command::new(python()?);
    client.arg(&script).args(["connect", &namespace.v4.to_string(), &port.to_string()]);
    client.arg(if between == Between::Nothing { "ws" } else { "wss" });
    let told = process::run(&mut client)?;
    server.kill()?;
    drop(front);
    let calls = stop_agent(agent)?;
    let told: Vec<Told> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(told.len() == CONNECTIONS, "{} clients", told.len());
    let seen = fs::read_to_string(&connections)?;
    let seen = seen.lines().map(serde_json::from_str::<Connection>);
    let mut seen: HashMap<String, Connection> =
        seen.map(|it| it.map(|it| (it.flow.client.to_string(), it))).collect::<Result<_, _>>()?;
    ensure!(seen.len() == CONNECTIONS, "{} connections", seen.len());
    for told in &told {
        let connection = seen.remove(&told.client).context("a connection was not seen")?;
        same_calls(&calls, told, Seen::Whole)
            .with_context(|| format!("with {:?}", told.deflate))?;
        same_counts(&connection, told, Seen::Whole)
            .with_context(|| format!("with {:?}", told.deflate))?;
    }
    let handshakes = calls.iter().filter(|call| call.protocol == Protocol::Http11).count();
    ensure!(handshakes == CONNECTIONS, "{handshakes} handshakes");
    let exchanges: usize = told.iter().map(|told| told.calls.len()).sum();
    ensure!(calls.len() == handshakes + exchanges, "{} calls", calls.len());
    Ok(())
}

/// A connection that was in use before the start: every message from then on.
pub(crate) fn opened_before_the_start() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let script = dir.path().join("websocket.py");
    fs::write(&script, SCRIPT)?;
    let (mut server, port) = start_server(&namespace, &script, dir.path(), false)?;
    let mut client = Command::new(python()?);
    client.arg(&script).args(["stay", &namespace.v4.to_string(), &port.to_string()]);
    let client = Patient::start(&mut client)?;
    let connections = dir.path().join("connections.jsonl");
    let more = ["--connections".to_owned(), connections.display().to_string()];
    let agent = start_agent(dir.path(), &[port], &more)?;
    let told = client.go_on()?;
    server.kill()?;
    let calls = stop_agent(agent)?;
    let told = serde_json::from_str(&told)?;
    same_calls(&calls, &told, Seen::FromTheMiddle)?;
    let seen = fs::read_to_string(&connections)?;
    same_counts(&serde_json::from_str(&seen)?, &told, Seen::FromTheMiddle)?;
    Ok(())
}

/// The Python with the WebSocket library.
fn python() -> Result<std::path::PathBuf> {
    setup::python_with("websockets").context("no Python has the module websockets")
}

/// A server in the namespace, and its port.
fn start_server(
    namespace: &Namespace,
    script: &Path,
    dir: &Path,
    tls: bool,
) -> Result<(Proc, u16)> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name]).arg(python()?).arg(script);
    command.args(["serve", &namespace.v4.to_string()]);
    if tls {
        certificate(dir)?;
        command.args([dir.join("tls.pem"), dir.join("tls.key")]);
    }
    let mut server = Proc::spawn("websocket server", &command, &dir.join("server.log"))?;
    let line = server.wait_for_line("listening ", Duration::from_secs(20))?;
    let port = line.trim().rsplit(' ').next().context("the server names no port")?.parse()?;
    Ok((server, port))
}

/// nginx in the namespace, with TLS on this port, that passes everything on.
fn start_front(namespace: &Namespace, dir: &Path, to: SocketAddr, port: u16) -> Result<Nginx> {
    let block = format!(
        "{}    location / {{ proxy_pass http://{to}; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}\n",
        certificate(dir)?
    );
    let at = SocketAddr::new(namespace.v4, port);
    let listen = Listen { tls: true, ..Listen::from(at) };
    Nginx::start(&[listen], &Role::Block(block), dir, Some(&namespace.name))
}

/// Every message of the client is a call with the reply that came.
fn same_calls(calls: &[ApiCall], told: &Told, how: Seen) -> Result<()> {
    let path = if how == Seen::Whole { "/ws" } else { "" };
    let mut seen = Vec::new();
    let of_client = |call: &&ApiCall| {
        call.protocol == Protocol::WebSocket && call.flow.client.to_string() == told.client
    };
    for call in calls.iter().filter(of_client) {
        let request = call.request.as_ref().context("a call without a request")?;
        let reply = call.response.as_ref().map(|response| response.body_bytes);
        ensure!(request.path == path && how.anomalies().contains(call.anomalies), "{call:?}");
        ensure!(call.complete == reply.is_some(), "{call:?}");
        ensure!(call.latency_us.is_some() == reply.is_some(), "{call:?}");
        seen.push((request.method.to_string(), request.body_bytes, reply));
    }
    let mut expected = told.calls.clone();
    seen.sort();
    expected.sort();
    ensure!(seen.len() == expected.len(), "{} calls, {} made", seen.len(), expected.len());
    for (seen, expected) in seen.iter().zip(&expected) {
        ensure!(seen == expected, "seen {seen:?}, made {expected:?}");
    }
    Ok(())
}

/// The record of the connection counts what the client counted.
fn same_counts(connection: &Connection, told: &Told, how: Seen) -> Result<()> {
    let websocket = connection.websocket.as_ref().context("no record of a WebSocket")?;
    let WebSocket { sent, received, deflate, close, channels, anomalies, .. } = &**websocket;
    ensure!(connection.missing_bytes == 0 && *anomalies == how.anomalies(), "{connection:?}");
    ensure!(*deflate == told.deflate, "agreed {:?}, seen {deflate:?}", told.deflate);
    for (name, seen, told) in [("sent", sent, &told.sent), ("received", received, &told.received)] {
        ensure!(side(seen) == *told, "{name} {told:?}, seen {seen:?}");
        let messages = seen.text_messages + seen.binary_messages;
        let compressed = if deflate.is_some() { messages } else { 0 };
        ensure!(seen.compressed_messages == compressed, "{name}: {seen:?}");
        ensure!(seen.unreadable_messages + seen.undecoded_bytes == 0, "{name}: {seen:?}");
        ensure!(seen.close.count == 1 && seen.bytes_after_close == 0, "{name}: {seen:?}");
    }
    let close = close.as_ref().context("no close was seen")?;
    ensure!((close.by, close.code) == (Peer::Client, Some(1000)), "{close:?}");
    let pushes: Vec<_> = channels.iter().map(|it| (it.name.as_str(), it.pushes)).collect();
    // The bytes that the server sent back belong to no channel.
    let pushes = pushes.into_iter().find(|(name, _)| *name == "ticks");
    ensure!(pushes == Some(("ticks", told.pushes)), "{} pushes: {channels:?}", told.pushes);
    Ok(())
}

fn side(traffic: &Traffic) -> Side {
    Side {
        text: traffic.text_messages,
        binary: traffic.binary_messages,
        payload: traffic.payload_bytes,
        pings: traffic.ping.count,
        pongs: traffic.pong.count,
        continuations: traffic.continuation.count,
    }
}
