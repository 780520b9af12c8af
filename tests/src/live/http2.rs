//! HTTP/2 in the clear, from a client and a server of other hands.

use std::process::Command;

use anyhow::{Result, ensure};
use monitor_core::call::{ApiCall, Protocol};
use xtask::http::Connection;

use super::compare::{all_whole, as_logged, same_calls};
use super::rig::Rig;

/// Four connections with sixteen streams at once, small bodies and large ones; then uploads, of which
/// nginx logs what was announced: it answers before they are sent, and that ends them.
pub(crate) fn http2_calls() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("large", 3_000_000)?;
    rig.file("upload", 70_000)?;
    rig.start_agent_on(&[rig.http2.port()], &[])?;
    let url = |path: &str| format!("http://{}{path}", rig.http2);
    load(&["-n", "800", "-c", "4", "-m", "16"], &[url("/ok"), url("/api/7"), url("/denied")])?;
    load(&["-n", "12", "-c", "2", "-m", "3"], &[url("/files/large")])?;
    let upload = rig.dir().join("html/files/upload").display().to_string();
    load(&["-n", "20", "-c", "1", "-m", "5", "-d", &upload], &[url("/note")])?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 832, "nginx logged {}", logged.len());
    let (uploads, calls): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| as_logged(call).method == "POST");
    ensure!(uploads.len() == 20, "{} uploads", uploads.len());
    let sent = |call: &ApiCall| as_logged(call).body_bytes_received;
    ensure!(uploads.iter().all(|call| sent(call) <= 70_000), "longer than what was uploaded");
    let downloads: Vec<_> = logged.into_iter().filter(|line| line.method == "GET").collect();
    same_calls(&calls, &downloads)?;
    all_whole(&calls)?;
    let other = calls.iter().find(|call| call.protocol != Protocol::Http2);
    ensure!(other.is_none(), "not HTTP/2: {other:?}");
    ensure!(calls.iter().all(|call| call.stream_id.is_some()), "a call without its stream");
    Ok(())
}

fn load(args: &[&str], urls: &[String]) -> Result<()> {
    let output = Command::new("h2load").args(args).args(urls).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains(" 0 errored"), "h2load: {said}");
    Ok(())
}

/// A port that speaks HTTP/2 is asked in HTTP/1: the refusal is no HTTP/2 call.
pub(crate) fn http1_on_an_http2_port() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.start_agent_on(&[rig.http2.port()], &[])?;
    // nginx answers with frames: what comes back is no HTTP/1 response.
    drop(Connection::open(rig.http2)?.call("GET", "/ok", "", b""));
    let calls = rig.stop_agent()?;
    ensure!(calls.len() == 1, "{calls:?}");
    ensure!(calls[0].protocol == Protocol::Http11 && calls[0].response.is_none(), "{calls:?}");
    Ok(())
}
