//! What is configured of TLS: key logs in place of probes, and how much of one call is carried.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use monitor_core::call::ApiCall;
use xtask::agent::Agent;
use xtask::openssl::{self, certificate};
use xtask::process::{self, Proc};

use super::compare::all_whole;
use super::rig::{capture_set, start_agent, stop_agent};
use super::tls::{client, curl, on_their_ports};
use super::tls_apart::AT_CALLS;
use super::tls_servers::{library_code, start_python};
use crate::replay::scratch;

/// Python's `ssl` writes a key log, which is put aside, cut and made anew: every call is seen, and the
/// server's library is as it was.
pub(crate) fn keylog() -> Result<()> {
    const CONNECTIONS: usize = 100;
    let dir = scratch()?;
    let keys = dir.path().join("keys.log");
    let (server, at) = start_server(dir.path(), Some(&keys))?;
    let code = library_code(server.pid())?;
    let set = format!("tls = \"keylog\"\ntls_keylogs = [\"{}\"]\n", keys.display());
    let agent = start_agent_with(dir.path(), at, &set)?;
    client(at, CONNECTIONS, 20, 3)?;
    // The server goes on writing to the file that was put aside.
    fs::rename(&keys, dir.path().join("keys.log.1"))?;
    client(at, CONNECTIONS, 20, 3)?;
    server.stop()?;
    let server = start_python(dir.path(), at, Some(dir.path()), Some(&keys))?;
    client(at, CONNECTIONS, 20, 3)?;
    // Cut in place, as copytruncate does.
    fs::File::options().write(true).open(&keys)?.set_len(0)?;
    client(at, CONNECTIONS, 20, 3)?;
    ensure!(library_code(server.pid())? == code, "a probe was set");
    let calls = stop_agent(agent)?;
    server.stop()?;
    ensure!(calls.len() == 4 * CONNECTIONS * 3, "{} calls", calls.len());
    all_whole(&calls)?;
    on_their_ports(&calls)?;
    let bare = calls.iter().find(|call| !call.flow.tls || call.flow.ja4.is_none());
    ensure!(bare.is_none(), "without its hello: {bare:?}");
    // A credential of the connection is in nothing that was written.
    let secret = fs::read_to_string(&keys)?;
    let secret = secret.lines().find_map(|line| line.split(' ').nth(2)).context("no secret")?;
    for file in ["calls.jsonl", "alerts.jsonl", "keywatch.log"] {
        let written = fs::read_to_string(dir.path().join(file))?;
        ensure!(!written.contains(secret), "a secret is in {file}");
    }
    Ok(())
}

/// A server of a port that is not watched has the same library: its secrets are taken nowhere.
pub(crate) fn secrets_of_others_stay() -> Result<()> {
    const CALLS: usize = 5;
    let dir = scratch()?;
    let keys = dir.path().join("keys.log");
    certificate(dir.path())?;
    let at = || -> Result<SocketAddr> {
        Ok(SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?))
    };
    let (watched, other) = (at()?, at()?);
    let servers = [
        start_python(dir.path(), watched, None, None)?,
        start_python(dir.path(), other, None, Some(&keys))?,
    ];
    let recording = dir.path().join("traffic.pcapng");
    let record = ["--record".to_owned(), recording.display().to_string()];
    let agent = start_agent(dir.path(), &[watched.port()], &record)?;
    for _ in 0..CALLS {
        for version in ["1.2", "1.3"] {
            curl(&watched, &["--http1.1", "--tls-max", version], "/watched")?;
            curl(&other, &["--http1.1", "--tls-max", version], "/other")?;
        }
    }
    let calls = stop_agent(agent)?;
    for server in servers {
        server.stop()?;
    }
    ensure!(calls.len() == 2 * CALLS, "{} calls", calls.len());
    all_whole(&calls)?;
    // One of each connection in TLS 1.2, four of TLS 1.3; of the other server none.
    let log = fs::read_to_string(dir.path().join("keywatch.log"))?;
    let expected = format!("secrets of TLS {}", CALLS * (1 + 4));
    ensure!(log.contains(&expected) && !log.contains("secrets of unknown"), "{log}");
    let recorded = fs::read(&recording)?;
    let has = |text: &str| memchr::memmem::find(&recorded, text.as_bytes()).is_some();
    ensure!(has("CLIENT_RANDOM ") && has("CLIENT_TRAFFIC_SECRET_0 "), "no secret was recorded");
    let logged = fs::read_to_string(&keys)?;
    let lines = logged.lines().filter(|line| !line.starts_with('#'));
    let randoms: Vec<&str> = lines.filter_map(|line| line.split(' ').nth(1)).collect();
    ensure!(randoms.len() >= 2 * CALLS, "the other server's key log: {logged}");
    ensure!(!randoms.iter().any(|random| has(random)), "a secret of the other server was recorded");
    Ok(())
}

/// What a call has beyond its bound is missing with its exact length; what is within a larger bound is
/// there.
pub(crate) fn bound_of_a_call() -> Result<()> {
    const SMALL: u64 = 64 << 10;
    let calls =
        downloads(&format!("{AT_CALLS}tls_call_bytes_max = \"64KiB\"\n"), &[SMALL, 1_000_000])?;
    let bodies: Vec<_> = calls.iter().map(body_bytes).collect();
    ensure!(bodies == [SMALL, 1_000_000], "bodies: {bodies:?}");
    ensure!(calls[0].complete, "not whole: {:?}", calls[0]);
    ensure!(!calls[1].complete, "more than the bound was carried: {:?}", calls[1]);
    let calls = downloads(&format!("{AT_CALLS}tls_call_bytes_max = \"16MiB\"\n"), &[12_000_000])?;
    let bodies: Vec<_> = calls.iter().map(body_bytes).collect();
    ensure!(bodies == [12_000_000], "bodies: {bodies:?}");
    all_whole(&calls)
}

/// A ring in which not one large piece has room: what is lost is missing with its exact length, and calls
/// that fit are whole.
pub(crate) fn full_ring() -> Result<()> {
    const BYTES: [u64; 4] = [20_000_000, 100, 1_000_000, 5];
    let calls = downloads(&format!("{AT_CALLS}ring_bytes = \"64KiB\"\n"), &BYTES)?;
    let bodies: Vec<_> = calls.iter().map(body_bytes).collect();
    ensure!(bodies == BYTES, "bodies: {bodies:?}");
    let whole: Vec<_> = calls.iter().map(|call| call.complete).collect();
    ensure!(whole == [false, true, false, true], "{calls:?}");
    Ok(())
}

fn body_bytes(call: &ApiCall) -> u64 {
    call.response.as_ref().map_or(0, |response| response.body_bytes)
}

/// Bodies of so many bytes, each written in one call.
fn downloads(set: &str, bytes: &[u64]) -> Result<Vec<ApiCall>> {
    let dir = scratch()?;
    let (server, at) = start_server(dir.path(), None)?;
    let agent = start_agent_with(dir.path(), at, set)?;
    for bytes in bytes {
        curl(&at, &["--http1.1"], &format!("/{bytes}"))?;
    }
    let calls = stop_agent(agent)?;
    server.stop()?;
    ensure!(calls.len() == bytes.len(), "{} calls", calls.len());
    Ok(calls)
}

/// Starts Keywatch with these lines under `[capture]`.
fn start_agent_with(dir: &Path, at: SocketAddr, set: &str) -> Result<Agent> {
    capture_set(dir, set)?;
    start_agent(dir, &[at.port()], &[])
}

fn start_server(dir: &Path, keys: Option<&Path>) -> Result<(Proc, SocketAddr)> {
    certificate(dir)?;
    // Of its own: a test beside this one may probe those of the system.
    openssl::copy_libraries(dir)?;
    let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
    Ok((start_python(dir, at, Some(dir), keys)?, at))
}
