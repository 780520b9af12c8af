//! The same traffic twice: live, and from a capture that tcpdump took beside.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::call::ApiCall;
use rustix::process::Signal;
use serde_json::Value;
use xtask::http::{Connection, request};
use xtask::process::{self, Proc};

use super::compare::same_calls;
use super::rig::Rig;
use crate::replay::replay;

/// The live run and the replay give the same calls, whatever is not of the wire set aside.
pub(crate) fn replay_of_tcpdump() -> Result<()> {
    let rig = Rig::start()?;
    rig.file("some", 300_000)?;
    let port = rig.server.port();
    let capture = rig.dir().join("traffic.pcap");
    let tcpdump = start_tcpdump(&rig, &capture)?;
    let answers = traffic(rig.server)?;
    // On a signal tcpdump leaves what it has not read yet: it must have written the last answer.
    process::wait_until("tcpdump to write every answer", Duration::from_secs(20), || {
        Ok(count(&std::fs::read(&capture)?, b"HTTP/1.1 ") >= answers)
    })?;
    let dropped = stop_tcpdump(tcpdump)?;
    let (live, logged) = rig_calls(rig, &capture)?;
    let (live_calls, replayed) = live;
    ensure!(dropped == 0, "tcpdump dropped {dropped} packets: nothing can be said");
    same_calls(&live_calls, &logged)?;
    let (one, other) = (stripped(&live_calls)?, stripped(&replayed)?);
    ensure!(one.len() == other.len(), "live {} calls, replayed {}", one.len(), other.len());
    for (live, replayed) in one.iter().zip(&other) {
        ensure!(live == replayed, "port {port}\n    live: {live}\nreplayed: {replayed}");
    }
    Ok(())
}

type Both = (Vec<ApiCall>, Vec<ApiCall>);

fn rig_calls(rig: Rig, capture: &std::path::Path) -> Result<(Both, Vec<xtask::nginx::Logged>)> {
    let args = ["--port".to_owned(), rig.server.port().to_string()];
    let replayed = replay(&[capture], &args)?;
    let replayed: Vec<ApiCall> =
        replayed.calls.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (live, logged) = rig.finish()?;
    Ok(((live, replayed), logged))
}

/// Some of everything: short and long connections, pipelining, bodies both ways, keys. Gives the
/// number of calls.
fn traffic(server: SocketAddr) -> Result<usize> {
    const CONNECTIONS: usize = 20;
    for number in 0..CONNECTIONS {
        let mut connection = Connection::open(server)?;
        for call in 0..10 {
            let key = format!("X-MBX-APIKEY: replay-test-key-{number}\r\n");
            connection.call("GET", &format!("/api/{number}/{call}"), &key, b"")?;
        }
        connection.call("POST", "/note", "", &vec![b'n'; number * 999])?;
        connection.call("GET", "/files/some", "", b"")?;
        let three: Vec<u8> =
            ["/ok", "/denied", "/ok"].iter().flat_map(|to| request("GET", to, "", b"")).collect();
        connection.send(&three)?;
        for _ in 0..3 {
            connection.reply("GET")?;
        }
    }
    Ok(CONNECTIONS * (10 + 2 + 3))
}

/// How often `part` stands in `bytes`.
fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|window| *window == part).count()
}

fn start_tcpdump(rig: &Rig, capture: &std::path::Path) -> Result<Proc> {
    let mut command = Command::new("tcpdump");
    // Megabytes of buffer, each packet handed over at once, nothing resolved.
    command.args(["-i", &rig.namespace.device, "-s", "0", "-B", "65536", "-n", "-U", "-Z", "root"]);
    command.arg("--immediate-mode").arg("-w").arg(capture);
    command.args(["tcp", "port", &rig.server.port().to_string()]);
    let mut child = Proc::spawn("tcpdump", &command, &rig.dir().join("tcpdump.log"))?;
    child.wait_for_line("tcpdump: listening on", Duration::from_secs(20))?;
    Ok(child)
}

/// Ends it and gives the packets that it lost.
fn stop_tcpdump(mut tcpdump: Proc) -> Result<u64> {
    tcpdump.signal(Signal::INT)?;
    tcpdump.wait(Duration::from_secs(20))?;
    process::check_interrupted()?;
    let output = tcpdump.output();
    let line = output.lines().find(|line| line.contains("dropped by kernel"));
    let count = line.and_then(|line| line.split(' ').next()).context("tcpdump says no count")?;
    Ok(count.parse()?)
}

/// Calls without what only the live run can know (process) or what clocks decide (time, latency),
/// in an order that does not depend on them. The order within a connection stays.
fn stripped(calls: &[ApiCall]) -> Result<Vec<Value>> {
    let mut calls: Vec<(String, usize, Value)> = calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            let mut value = serde_json::to_value(call)?;
            for field in ["time", "latency_us"] {
                value[field] = Value::Null;
            }
            for field in ["process", "pid", "container"] {
                value["flow"][field] = Value::Null;
            }
            Ok((call.flow.client.to_string(), index, value))
        })
        .collect::<Result<_>>()?;
    calls.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    Ok(calls.into_iter().map(|(_, _, value)| value).collect())
}
