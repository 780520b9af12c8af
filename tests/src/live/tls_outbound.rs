//! Calls that processes of this host make to servers elsewhere: seen as the client sends and receives them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use monitor_core::call::{ApiCall, Protocol};
use xtask::nginx::Logged;
use xtask::openssl::{self, certificate};
use xtask::process;

use super::compare::{all_whole, as_logged, same_calls};
use super::plain::owned_by;
use super::rig::{Rig, capture_set, start_agent, stop_agent};
use super::tls::{client, curl, on_their_ports};
use super::tls_servers::start_python;
use crate::replay::scratch;

/// nginx in another network, with Keywatch on the port as this host calls it.
fn calling(port: impl Fn(&Rig) -> SocketAddr) -> Result<Rig> {
    let mut rig = Rig::without_agent()?;
    capture_set(rig.dir(), &format!("outbound_ports = [{}]\n", port(&rig).port()))?;
    rig.start_agent_on(&[], &[])?;
    Ok(rig)
}

/// What was seen is what the server has logged, whole, with the client's own port.
fn same_and_whole(rig: Rig, expected: usize) -> Result<Vec<ApiCall>> {
    let (calls, logged): (_, Vec<Logged>) = rig.finish()?;
    ensure!(logged.len() == expected, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    Ok(calls)
}

fn inside_tls(calls: &[ApiCall]) -> Result<()> {
    let bare = calls.iter().find(|call| !call.flow.tls || call.flow.ja4.is_none());
    ensure!(bare.is_none(), "without its hello: {bare:?}");
    Ok(())
}

/// curl, whose every process makes few calls and is gone: HTTP/1.1 and HTTP/2, 20 MB either way.
pub(crate) fn curl_calls() -> Result<()> {
    const BYTES: usize = 20_000_000;
    let rig = calling(|rig| rig.tls)?;
    rig.file("large", BYTES)?;
    for version in ["--http1.1", "--http2"] {
        for number in 0..20 {
            curl(&rig.tls, &[version], &format!("/api/{number}"))?;
        }
        curl(&rig.tls, &[version], "/files/large")?;
    }
    let large = format!("@{}", rig.dir().join("html/files/large").display());
    curl(&rig.tls, &["--http1.1", "-H", "Expect:", "--data-binary", &large], "/note")?;
    let calls = same_and_whole(rig, 43)?;
    let http2 = calls.iter().filter(|call| call.protocol == Protocol::Http2).count();
    ensure!(http2 == 21, "{http2} calls by HTTP/2");
    let named = |call: &ApiCall| call.flow.server_name.as_deref() == Some("exchange.test");
    ensure!(calls.iter().all(named), "server name: {calls:?}");
    inside_tls(&calls)?;
    owned_by(&calls, "curl")
}

/// `openssl s_client`, and a thousand connections of Python's `ssl` at once.
pub(crate) fn other_clients() -> Result<()> {
    let rig = calling(|rig| rig.tls)?;
    for number in 0..10 {
        s_client(rig.tls, &format!("/api/{number}"))?;
    }
    client(rig.tls, 1000, 1000, 3)?;
    let calls = same_and_whole(rig, 3010)?;
    inside_tls(&calls)?;
    let (openssl, python): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| as_logged(call).target.matches('/').count() == 2);
    ensure!(openssl.len() == 10, "{} calls of s_client", openssl.len());
    owned_by(&openssl, "openssl")?;
    owned_by(&python, "python3")?;
    on_their_ports(&python)
}

fn s_client(server: SocketAddr, path: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-ign_eof", "-connect", &server.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting openssl")?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: exchange.test\r\nConnection: close\r\n\r\n");
    child.stdin.take().context("no input")?.write_all(request.as_bytes())?;
    let said = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.starts_with("HTTP/1.1 200"), "s_client: {said:?}");
    Ok(())
}

/// The same in plain text.
pub(crate) fn plain_calls() -> Result<()> {
    let rig = calling(|rig| rig.server)?;
    rig.file("large", 3_000_000)?;
    for path in ["/ok", "/api/1", "/denied", "/files/large"] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--output", "/dev/null"]);
        process::run(curl.arg(format!("http://{}{path}", rig.server)))?;
    }
    let calls = same_and_whole(rig, 4)?;
    // The answer may come before the client's own system call has ended: then nobody is named.
    let (owned, nobodys): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.flow.process.is_some());
    ensure!(!owned.is_empty(), "nobody is named: {nobodys:?}");
    owned_by(&owned, "curl")
}

/// For each line of input one call of that target, on a connection of its own. Arguments: address, port.
const CALLER: &str = r#"
import http.client, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for line in sys.stdin:
    connection = http.client.HTTPSConnection(sys.argv[1], int(sys.argv[2]), context=context)
    connection.request("GET", line.strip())
    assert connection.getresponse().read()
    connection.close()
    print("called", flush=True)
"#;

/// A client with a library of its own is met at its first call, and seen from the next one on.
pub(crate) fn own_library() -> Result<()> {
    let rig = calling(|rig| rig.tls)?;
    openssl::copy_libraries(rig.dir())?;
    let mut python = Command::new("python3");
    python.args(["-c", CALLER, &rig.tls.ip().to_string(), &rig.tls.port().to_string()]);
    python.env("LD_LIBRARY_PATH", rig.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = python.spawn()?;
    let mut input = client.stdin.take().context("no input")?;
    let mut output = BufReader::new(client.stdout.take().context("no output")?);
    let mut call = |target: &str| -> Result<()> {
        writeln!(input, "{target}")?;
        let mut said = String::new();
        output.read_line(&mut said)?;
        ensure!(said == "called\n", "the client said {said:?}");
        Ok(())
    };
    call("/api/first")?;
    let own = rig.dir().join("libssl.so.3").display().to_string();
    process::wait_until("Keywatch to find its library", Duration::from_secs(20), || {
        Ok(rig.agent()?.output().contains(&format!("looks inside TLS path={own}")))
    })?;
    let targets: Vec<String> = (0..10).map(|number| format!("/api/{number}")).collect();
    for target in &targets {
        call(target)?;
    }
    drop(input);
    ensure!(client.wait()?.success(), "the client failed");
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 11, "nginx logged {}", logged.len());
    all_whole(&calls)?;
    owned_by(&calls, "python3")?;
    let mut seen: Vec<_> = calls.iter().map(|call| as_logged(call).target).collect();
    seen.retain(|target| target != "/api/first");
    ensure!(seen == targets, "seen: {seen:?}");
    Ok(())
}

/// A port that is served here and called here: over the loopback device a call is one, and the server's.
pub(crate) fn served_and_called() -> Result<()> {
    let dir = scratch()?;
    certificate(dir.path())?;
    // Of its own: a test beside this one may probe those of the system.
    openssl::copy_libraries(dir.path())?;
    let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
    let server = start_python(dir.path(), at, Some(dir.path()), None)?;
    capture_set(dir.path(), &format!("outbound_ports = [{}]\n", at.port()))?;
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    client(at, 50, 5, 3)?;
    let calls = stop_agent(agent)?;
    ensure!(calls.len() == 150, "{} calls", calls.len());
    all_whole(&calls)?;
    on_their_ports(&calls)?;
    let pid = server.pid();
    let other = calls.iter().find(|call| call.flow.pid != Some(pid));
    ensure!(other.is_none(), "not the server's: {other:?}");
    server.stop()?;
    ensure!(!fs::read_to_string(dir.path().join("keywatch.log"))?.contains("WARN"), "a warning");
    Ok(())
}
