//! HTTPS with nginx, seen from within: on the right connection, whole, and as nginx logged it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use monitor_core::call::{ApiCall, Operation, Protocol};
use rustix::process::Signal;
use xtask::nginx::{Listen, Nginx, Role};
use xtask::openssl::certificate;
use xtask::process::{self, Proc};

use super::compare::{all_whole, as_logged, same_calls};
use super::namespace::Namespace;
use super::patient::Patient;
use super::plain::owned_by;
use super::recording;
use super::rig::{BLOCK, Rig, start_agent, stop_agent};
use crate::replay::{replay, scratch};

/// A client of many connections at once: each call names the port that it comes from. When all are to be
/// at once, none makes a call before every one is open.
/// Arguments: address, port, connections, connections at once, calls on each, how many open at a time.
const CLIENT: &str = r#"
import http.client, socket, ssl, sys, threading
address, port, connections, at_once, calls, opening = sys.argv[1], *map(int, sys.argv[2:])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
todo, lock, failed = list(range(connections)), threading.Lock(), []
opened = threading.Barrier(connections if at_once == connections else 1, timeout=120)
turns = threading.Semaphore(opening)
def work():
    while True:
        with lock:
            if not todo or failed: return
            number = todo.pop()
        try:
            with turns:
                plain = socket.create_connection((address, port), timeout=120)
                wire = context.wrap_socket(plain, server_hostname="exchange.test")
            own = wire.getsockname()[1]
            opened.wait()
            connection = http.client.HTTPConnection("exchange.test")
            connection.sock = wire
            # A connection that the server has ended is an error, not one to open again.
            connection.auto_open = 0
            for call in range(calls):
                body = b"b" * (number % 7 * 1000) if call % 2 else None
                target = f"/note/{own}/{call}" if call % 2 else f"/api/{own}/{call}"
                connection.request("POST" if call % 2 else "GET", target, body)
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 201), answer.status
            connection.close()
        except Exception as error:
            failed.append(repr(error))
            opened.abort()
            return
threads = [threading.Thread(target=work) for _ in range(at_once)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit("; ".join(sorted(set(failed))) if failed else 0)
"#;

const CONNECTIONS: usize = 1000;
const CALLS: usize = 3;

/// A thousand connections at once, three calls on each: every call on its own port.
pub(crate) fn https_calls() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.start_agent_on(&[rig.tls.port()], &[])?;
    client(rig.tls, CONNECTIONS, CONNECTIONS, CALLS)?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == CONNECTIONS * CALLS, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    on_their_ports(&calls)?;
    ensure!(calls.iter().all(|call| call.latency_us.is_some()), "a call without latency");
    secured(&calls)
}

pub(super) fn client(
    server: SocketAddr,
    connections: usize,
    at_once: usize,
    calls: usize,
) -> Result<()> {
    client_in_turns(server, connections, at_once, calls, at_once)
}

/// The same for a server that takes in no more than `opening` connections at a time.
pub(super) fn client_in_turns(
    server: SocketAddr,
    connections: usize,
    at_once: usize,
    calls: usize,
    opening: usize,
) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-c", CLIENT, &server.ip().to_string(), &server.port().to_string()]);
    python.args([connections, at_once, calls, opening].map(|number| number.to_string()));
    process::run(&mut python).map(drop).context("the client")
}

/// The port in the target is that of the connection.
pub(super) fn on_their_ports(calls: &[ApiCall]) -> Result<()> {
    for call in calls {
        let target = as_logged(call).target;
        let named = target.split('/').nth(2).and_then(|port| port.parse().ok());
        ensure!(named == Some(call.flow.client.port), "on another connection: {call:?}");
    }
    Ok(())
}

/// What the hello says is in every call, and whose socket it was.
fn secured(calls: &[ApiCall]) -> Result<()> {
    for call in calls {
        let flow = &call.flow;
        ensure!(flow.tls && flow.ja4.is_some(), "no hello: {call:?}");
        ensure!(flow.server_name.as_deref() == Some("exchange.test"), "server name: {call:?}");
    }
    owned_by(calls, "nginx")
}

/// Agreed on by ALPN; streams side by side, bodies both ways.
pub(crate) fn http2_calls() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("large", 1_000_000)?;
    rig.start_agent_on(&[rig.tls.port()], &[])?;
    let url = |path: &str| format!("https://{}{path}", rig.tls);
    let load = |args: &[&str], urls: &[String]| -> Result<()> {
        let said = process::run(Command::new("h2load").args(args).args(urls))?;
        ensure!(said.contains(" 0 errored"), "h2load: {said}");
        Ok(())
    };
    load(&["-n", "800", "-c", "20", "-m", "16"], &[url("/ok"), url("/api/7"), url("/denied")])?;
    load(&["-n", "12", "-c", "2", "-m", "3"], &[url("/files/large")])?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 812, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    let other = calls.iter().find(|call| call.protocol != Protocol::Http2 || !call.flow.tls);
    ensure!(other.is_none(), "not HTTP/2 in TLS: {other:?}");
    owned_by(&calls, "nginx")
}

/// 20 MB up and 20 MB down, over each version of TLS that is in use: every byte is counted.
pub(crate) fn bodies() -> Result<()> {
    const BYTES: usize = 20_000_000;
    let mut rig = Rig::without_agent()?;
    rig.file("large", BYTES)?;
    rig.start_agent_on(&[rig.tls.port()], &[])?;
    let large = format!("@{}", rig.dir().join("html/files/large").display());
    for version in ["1.2", "1.3"] {
        curl(&rig.tls, &["--http1.1", "--tls-max", version], "/files/large")?;
        // Without waiting for `100 Continue`, which nginx would send before it answers.
        let upload = ["--http1.1", "--tls-max", version, "-H", "Expect:", "--data-binary", &large];
        curl(&rig.tls, &upload, "/note")?;
    }
    let (calls, logged) = rig.finish()?;
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    let bytes = BYTES as u64;
    let sizes = |call: &ApiCall| {
        let logged = as_logged(call);
        logged.body_bytes_sent == bytes || logged.body_bytes_received == bytes
    };
    ensure!(calls.len() == 4 && calls.iter().all(sizes), "{calls:?}");
    Ok(())
}

pub(super) fn curl(server: &SocketAddr, args: &[&str], path: &str) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--output", "/dev/null"]);
    let at = format!("exchange.test:{}:{}", server.port(), server.ip());
    curl.args(["--resolve", &at]).args(args);
    process::run(curl.arg(format!("https://exchange.test:{}{path}", server.port()))).map(drop)
}

/// Keywatch is there before the server: whoever begins to listen is looked into.
pub(crate) fn server_comes_later() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let at = SocketAddr::new(namespace.v4, process::free_server_port()?);
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    let role = Role::Block(BLOCK.to_owned() + &certificate(dir.path())?);
    let listen = Listen { tls: true, ..Listen::from(at) };
    fs::create_dir_all(dir.path().join("html"))?;
    let nginx = Nginx::start(&[listen], &role, dir.path(), Some(&namespace.name))?;
    process::wait_until("Keywatch to find it", Duration::from_secs(20), || {
        Ok(agent.output().contains("looks inside TLS"))
    })?;
    for number in 0..10 {
        curl(&at, &[], &format!("/api/{number}"))?;
    }
    let calls = stop_agent(agent)?;
    let logged = nginx.stop()?;
    ensure!(logged.len() == 10, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    secured(&calls)
}

/// A client that shows a certificate is known by it, over TLS 1.2, where the certificate goes in the clear:
/// on every connection the same, unless it also sends a key.
pub(crate) fn client_certificate() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let at = SocketAddr::new(namespace.v4, process::free_server_port()?);
    let block =
        BLOCK.to_owned() + &certificate(dir.path())? + "    ssl_verify_client optional_no_ca;\n";
    fs::create_dir_all(dir.path().join("html"))?;
    let listen = Listen { tls: true, ..Listen::from(at) };
    let nginx = Nginx::start(&[listen], &Role::Block(block), dir.path(), Some(&namespace.name))?;
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    let [pem, key] = ["tls.pem", "tls.key"].map(|name| dir.path().join(name).display().to_string());
    let shown = ["--tls-max", "1.2", "--cert", &pem, "--key", &key];
    let with_key = [&shown[..], &["--header", "X-API-Key: made-up"]].concat();
    for args in [&shown[..], &shown, &with_key, &["--tls-max", "1.2"]] {
        curl(&at, args, "/api/1")?;
    }
    let mut calls = stop_agent(agent)?;
    let logged = nginx.stop()?;
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    calls.sort_by_key(|call| call.time);
    let keys: Vec<_> = calls.iter().map(|call| call.key.as_ref()).collect();
    let [Some(first), Some(second), Some(sent), None] = keys[..] else { bail!("{keys:?}") };
    ensure!(first.source == "tls:certificate" && first == second, "{first:?} {second:?}");
    ensure!(sent.source == "header:x-api-key" && sent.id != first.id, "{sent:?}");
    ensure!(calls[0].op == Operation::Read, "with a key: {}", calls[0].op);
    Ok(())
}

/// A recording of plaintext gives, when it is replayed, the same bytes as the live run.
pub(crate) fn replay_gives_the_same_bytes() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let port = rig.tls.port();
    recording::start_on(&mut rig, port, &[])?;
    client(rig.tls, 60, 6, 4)?;
    let calls = rig.stop_agent()?;
    ensure!(calls.len() == 240, "{} calls", calls.len());
    all_whole(&calls)?;
    recording::same_bytes(&rig, &[rig.dir().join("traffic.pcapng")])
}

/// The same traffic from tcpdump's capture and the client's key log.
pub(crate) fn key_log_gives_the_same_calls() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("some", 300_000)?;
    let port = rig.tls.port();
    rig.start_agent_on(&[port], &[])?;
    let (capture, keys) = (rig.dir().join("traffic.pcap"), rig.dir().join("keys.log"));
    let mut command = Command::new("tcpdump");
    command.args(["-i", &rig.namespace.device, "-s", "0", "-B", "65536", "-n", "-U", "-Z", "root"]);
    command.arg("--immediate-mode").arg("-w").arg(&capture);
    command.args(["tcp", "port", &port.to_string()]);
    let mut tcpdump = Proc::spawn("tcpdump", &command, &rig.dir().join("tcpdump.log"))?;
    tcpdump.wait_for_line("tcpdump: listening on", Duration::from_secs(20))?;
    for version in ["--http1.1", "--http2"] {
        // nginx answers a POST before its body, which HTTP/2 then may leave out.
        let body = (version == "--http1.1").then_some("body=1");
        for (path, body) in [("/ok", None), ("/files/some", None), ("/note", body)] {
            let mut args = vec![version];
            args.extend(body.iter().flat_map(|body| ["--data", body]));
            curl_with_keys(&rig.tls, &args, path, &keys)?;
        }
    }
    // The client ends every connection when it has its answer, one way or another.
    let ends = format!("dst port {port} and tcp[tcpflags] & (tcp-fin | tcp-rst) != 0");
    process::wait_until("tcpdump to write all", Duration::from_secs(20), || {
        let mut reader = Command::new("tcpdump");
        reader.args(["-n", "-Z", "root", "-r"]).arg(&capture).arg(&ends);
        let said = process::run(&mut reader)?;
        // Time, `IP`, the client's address and port.
        let clients: BTreeSet<_> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        Ok(clients.len() >= 6)
    })?;
    tcpdump.signal(Signal::INT)?;
    tcpdump.wait(Duration::from_secs(20))?;
    let args = ["--port", &port.to_string(), "--keylog", &keys.display().to_string()];
    let replayed = replay(&[&capture], &args.map(str::to_owned))?;
    let replayed: Vec<ApiCall> =
        replayed.calls.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (live, logged) = rig.finish()?;
    ensure!(logged.len() == 6, "nginx logged {}", logged.len());
    for calls in [&live, &replayed] {
        same_calls(calls, &logged)?;
        all_whole(calls)?;
    }
    for (one, other) in in_order(&live).iter().zip(in_order(&replayed)) {
        ensure!(one.flow.id == other.flow.id, "{one:?}\n{other:?}");
        ensure!(one.flow.ja4 == other.flow.ja4, "{one:?}\n{other:?}");
        ensure!((&one.key, one.op) == (&other.key, other.op), "{one:?}\n{other:?}");
    }
    Ok(())
}

fn curl_with_keys(server: &SocketAddr, args: &[&str], path: &str, keys: &Path) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.env("SSLKEYLOGFILE", keys);
    curl.args(["--silent", "--show-error", "--insecure", "--output", "/dev/null"]).args(args);
    process::run(curl.arg(format!("https://{server}{path}"))).map(drop)
}

/// By connection, then by time.
fn in_order(calls: &[ApiCall]) -> Vec<&ApiCall> {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by_key(|call| (call.flow.client, call.time));
    calls
}

/// A client with one connection: its first call made, and ten later.
pub(super) fn patient(server: SocketAddr) -> Result<Patient> {
    let mut python = Command::new("python3");
    python.args(["-c", PATIENT, &server.ip().to_string(), &server.port().to_string()]);
    Patient::start(&mut python)
}

/// Arguments: address and port of the server.
const PATIENT: &str = r#"
import http.client, socket, ssl, sys
address, port = sys.argv[1], int(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPConnection("exchange.test")
connection.sock = context.wrap_socket(socket.create_connection((address, port), timeout=60))
def call(target):
    connection.request("GET", target)
    assert connection.getresponse().read()
call("/api/before")
print("open", flush=True)
sys.stdin.readline()
for number in range(10):
    call(f"/api/{number}")
"#;

/// A connection that was open before the start is taken from the middle, on its own port.
pub(crate) fn opened_before_the_start() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let client = patient(rig.tls)?;
    rig.start_agent_on(&[rig.tls.port()], &[])?;
    client.go_on()?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 11, "nginx logged {}", logged.len());
    let seen = |line: &&xtask::nginx::Logged| calls.iter().any(|call| as_logged(call) == **line);
    let missing: Vec<_> = logged.iter().skip(1).filter(|line| !seen(line)).collect();
    // The first may go before the socket is known: bytes of unknown connections are counted.
    ensure!(missing.len() <= 1, "not seen: {missing:?}\nseen: {calls:?}");
    ensure!(calls.iter().all(|call| call.flow.tls), "not known as TLS: {calls:?}");
    owned_by(&calls, "nginx")
}
