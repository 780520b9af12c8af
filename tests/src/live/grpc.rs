//! gRPC by the implementation that most use, and gRPC-Web by one of its own: service, method, status and
//! messages are what the clients counted.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::call::{ApiCall, Messages, Protocol};
use serde::Deserialize;
use xtask::process::{self, Proc};
use xtask::setup;

use super::namespace::Namespace;
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

/// Unary and streamed either way, refused, empty and large.
pub(crate) fn calls() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let script = dir.path().join("grpc_calls.py");
    fs::write(&script, SCRIPT)?;
    let python = setup::python_with_grpc().context("no Python has the module sonora")?;
    let ports = [process::free_server_port()?, process::free_server_port()?];
    let place = [namespace.v4.to_string(), ports[0].to_string(), ports[1].to_string()];
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name]).arg(&python).arg(&script).arg("serve");
    command.args(&place);
    let mut server = Proc::spawn("gRPC servers", &command, &dir.path().join("server.log"))?;
    server.wait_for_line("listening", Duration::from_secs(20))?;
    let agent = start_agent(dir.path(), &ports, &[])?;
    let mut client = Command::new(&python);
    let told = process::run(client.arg(&script).arg("connect").args(&place))?;
    server.kill()?;
    let mut calls = stop_agent(agent)?;
    calls.sort_by_key(|call| call.time);
    let told: Vec<Told> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(calls.len() == told.len(), "{} calls, {} made", calls.len(), told.len());
    for (call, told) in calls.iter().zip(&told) {
        same(call, told, ports)
            .with_context(|| format!("{} {}: {call:?}", told.method, told.status))?;
    }
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
