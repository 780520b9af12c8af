//! HTTP/2 in the clear, from a client and a server of other hands.

use std::process::Command;

use anyhow::{Result, ensure};
use monitor_core::call::{ApiCall, Protocol};
use xtask::http::Connection;
use xtask::process;

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
    let odd = || calls.iter().find(|call| !call.complete);
    ensure!(
        uploads.len() == 20,
        "{} uploads and {} others: {:?}",
        uploads.len(),
        calls.len(),
        odd()
    );
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

/// Two keys over one connection inside TLS, twenty streams at once: each call has its own.
pub(crate) fn two_keys_on_one_connection() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.start_agent_on(&[rig.tls.port()], &[])?;
    let url = format!("https://{}/api/", rig.tls);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--parallel", "--insecure", "--http2"]);
    for number in 0..20 {
        let key = format!("X-API-Key: made-up-key-{}", number % 2);
        curl.args(["--output", "/dev/null", "--header", &key]).arg(format!("{url}{number}"));
        if number < 19 {
            curl.args(["--next", "--silent", "--fail", "--insecure", "--http2"]);
        }
    }
    process::run(&mut curl)?;
    let calls = rig.stop_agent()?;
    ensure!(calls.len() == 20, "{} calls", calls.len());
    all_whole(&calls)?;
    let mut keys = [None, None];
    for call in &calls {
        ensure!(call.flow.id == calls[0].flow.id, "another connection: {call:?}");
        let number: usize = as_logged(call).target.trim_start_matches("/api/").parse()?;
        let key = call.key.as_ref().map(|key| key.id);
        ensure!(key.is_some(), "no key: {call:?}");
        let expected = *keys[number % 2].get_or_insert(key);
        ensure!(key == expected, "the key of another stream: {call:?}");
    }
    ensure!(keys[0] != keys[1], "one key alone");
    Ok(())
}
