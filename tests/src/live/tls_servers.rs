//! Servers with other ways to use a TLS library than nginx has: each call on its own port.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use monitor_core::call::ApiCall;
use xtask::openssl::{self, certificate};
use xtask::process::{self, Proc};

use super::compare::{all_whole, as_logged};
use super::rig::{start_agent, stop_agent};
use super::tls::{client, curl, on_their_ports};
use crate::replay::scratch;

/// All at once.
const CONNECTIONS: usize = 1000;
const CALLS: usize = 3;

/// A threaded server whose threads block in their library. Arguments: port, certificate, key, and maybe
/// a key log.
const PYTHON: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        # A number is the length of the body that is asked for.
        asked = self.path[1:]
        body = b"k" * int(asked) if asked.isdigit() else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
if len(sys.argv) > 4:
    context.keylog_filename = sys.argv[4]
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// Python's `ssl`, which calls `SSL_read_ex` and `SSL_write_ex`.
pub(crate) fn python() -> Result<()> {
    seen_whole("python3", |command, dir, at| {
        command.args(["-c", PYTHON, &at.port().to_string()]);
        command.arg(dir.join("tls.pem")).arg(dir.join("tls.key"));
        Ok(())
    })
}

/// HAProxy, whose library works on a BIO of its own.
pub(crate) fn haproxy() -> Result<()> {
    seen_whole("haproxy", |command, dir, at| {
        let config = dir.join("haproxy.cfg");
        let both = [dir.join("tls.pem"), dir.join("tls.key")].map(fs::read);
        let [certificate, key] = both;
        fs::write(dir.join("both.pem"), [certificate?, key?].concat())?;
        fs::write(
            &config,
            format!(
                "global\n  nbthread 2\ndefaults\n  mode http\n  timeout client 30s\n  \
                 timeout server 30s\n  timeout connect 5s\nfrontend exchange\n  \
                 bind {at} ssl crt {} alpn http/1.1\n  option http-buffer-request\n  \
                 http-request return status 200 content-type application/json string \"{{}}\"\n",
                dir.join("both.pem").display()
            ),
        )?;
        command.arg("-f").arg(config);
        Ok(())
    })
}

/// Apache httpd with threads that take turns at a connection.
pub(crate) fn apache() -> Result<()> {
    // With more it ends connections that are kept open, to have its threads for others.
    const AT_ONCE: usize = 20;
    let arguments = |command: &mut Command, dir: &Path, at: SocketAddr| -> Result<()> {
        let config = dir.join("apache.conf");
        let shown = dir.display();
        let modules: String = ["mpm_event", "authz_core", "ssl", "rewrite"]
            .iter()
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .collect();
        fs::write(
            &config,
            format!(
                "ServerRoot {shown}\nPidFile {shown}/apache.pid\nListen {at}\n{modules}\
                 ErrorLog {shown}/apache.error\nServerName exchange.test\nUser #65534\n\
                 Group #65534\nKeepAlive on\nMaxKeepAliveRequests 0\nSSLEngine on\n\
                 SSLCertificateFile {shown}/tls.pem\nSSLCertificateKeyFile {shown}/tls.key\n\
                 RewriteEngine on\nRewriteRule .* - [R=200]\n"
            ),
        )?;
        command.arg("-f").arg(config).arg("-DFOREGROUND");
        Ok(())
    };
    seen("apache2", arguments, [CONNECTIONS, AT_ONCE, CALLS])
}

/// GnuTLS in its own server, which answers one call on a connection, and resets some of many.
pub(crate) fn gnutls() -> Result<()> {
    const AT_ONCE: usize = 20;
    let arguments = |command: &mut Command, dir: &Path, at: SocketAddr| {
        command.args(["--http", "--quiet", "--port", &at.port().to_string()]);
        command.arg("--x509certfile").arg(dir.join("tls.pem"));
        command.arg("--x509keyfile").arg(dir.join("tls.key"));
        Ok(())
    };
    seen("gnutls-serv", arguments, [CONNECTIONS, AT_ONCE, 1])
}

/// Starts [`PYTHON`] with the certificate in `dir`. `libraries`: a folder with those that it has to itself;
/// `keys`: its key log.
pub(super) fn start_python(
    dir: &Path,
    at: SocketAddr,
    libraries: Option<&Path>,
    keys: Option<&Path>,
) -> Result<Proc> {
    let mut command = Command::new(xtask::setup::find("python3").context("no python3")?);
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.args(["-c", PYTHON, &at.port().to_string()]);
    command.arg(dir.join("tls.pem")).arg(dir.join("tls.key")).args(keys);
    let log = dir.join(format!("server-{}.log", at.port()));
    let mut server = Proc::spawn("python3", &command, &log)?;
    server.wait_for_listener(at, Duration::from_secs(20))?;
    Ok(server)
}

/// Starts a server and Keywatch, and makes calls; each is seen whole, on the port that it names.
fn seen_whole(
    program: &str,
    arguments: impl FnOnce(&mut Command, &Path, SocketAddr) -> Result<()>,
) -> Result<()> {
    seen(program, arguments, [CONNECTIONS, CONNECTIONS, CALLS])
}

/// With so many connections, so many at once, and so many calls on each.
fn seen(
    program: &str,
    arguments: impl FnOnce(&mut Command, &Path, SocketAddr) -> Result<()>,
    [connections, at_once, on_each]: [usize; 3],
) -> Result<()> {
    let dir = scratch()?;
    certificate(dir.path())?;
    let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
    let mut command = Command::new(xtask::setup::find(program).unwrap_or_else(|| program.into()));
    arguments(&mut command, dir.path(), at)?;
    let mut server = Proc::spawn(program, &command, &dir.path().join("server.log"))?;
    server.wait_for_listener(at, Duration::from_secs(20))?;
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    client(at, connections, at_once, on_each)?;
    let calls = stop_agent(agent)?;
    server.stop()?;
    ensure!(calls.len() == connections * on_each, "{} calls", calls.len());
    all_whole(&calls)?;
    on_their_ports(&calls)?;
    once_each(&calls)
}

/// No call was seen twice.
fn once_each(calls: &[ApiCall]) -> Result<()> {
    let mut targets: Vec<_> =
        calls.iter().filter_map(|call| call.request.as_ref()).map(|it| &it.target).collect();
    targets.sort_unstable();
    targets.dedup();
    ensure!(targets.len() == calls.len(), "{} calls, {} targets", calls.len(), targets.len());
    Ok(())
}

/// Twenty agents come and go while one server works: its code is as it was, and calls go on. Twenty
/// servers come and go under one agent: it holds no more files open than after the first, lets go of what
/// nobody uses, and finds it again. The server has a library of its own, which no other test attaches to.
pub(crate) fn nothing_is_left() -> Result<()> {
    let dir = scratch()?;
    certificate(dir.path())?;
    let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
    // Of their own: a test beside this one may probe those of the system.
    let other = scratch()?;
    openssl::copy_libraries(dir.path())?;
    openssl::copy_libraries(other.path())?;
    let server_at =
        |at: SocketAddr, libraries: &Path| start_python(dir.path(), at, Some(libraries), None);
    let server = || server_at(at, dir.path());
    let running = server()?;
    let before = library_code(running.pid())?;
    for round in 0..20 {
        let agent = start_agent(dir.path(), &[at.port()], &[])?;
        ensure!(library_code(running.pid())? != before, "round {round}: no probe was set");
        client(at, 2, 2, 2)?;
        stop_agent(agent)?;
        // The kernel takes probes out a little after their file is closed.
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while library_code(running.pid())? != before {
            ensure!(std::time::Instant::now() < end, "round {round}: a probe was left");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    running.stop()?;
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    let files =
        || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count()) };
    // That a process has gone is noticed a while later.
    let settled = || -> Result<usize> {
        let (mut last, mut same) = (files()?, 0);
        for _ in 0..120 {
            std::thread::sleep(Duration::from_millis(500));
            let now = files()?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if same == 8 {
                return Ok(now);
            }
        }
        bail!("the number of files that the agent holds goes on changing: {last}")
    };
    let said = |what: &str| agent.output().matches(what).count();
    let detached = || {
        process::wait_until("Keywatch to detach", Duration::from_secs(60), || {
            let attached = said("looks inside TLS");
            Ok(attached > 0 && said("no longer used, detached") == attached)
        })
    };
    let mut after_first = 0;
    for round in 0..20 {
        let running = server()?;
        client(at, 2, 2, 2)?;
        running.stop()?;
        if round == 0 {
            detached()?;
            after_first = settled()?;
        }
    }
    detached()?;
    let after_all = settled()?;
    // What was detached is attached to again.
    let before_again = said("looks inside TLS");
    let running = server()?;
    process::wait_until("Keywatch to find it again", Duration::from_secs(20), || {
        Ok(said("looks inside TLS") > before_again)
    })?;
    curl(&at, &["--http1.1"], "/api/again")?;
    running.stop()?;
    detached()?;
    ensure!(after_all == after_first, "{after_all} files, {after_first} after the first");
    // One that listens on no watched port is left alone.
    let elsewhere = SocketAddr::new(at.ip(), process::free_server_port()?);
    let stranger = server_at(elsewhere, other.path())?;
    client(elsewhere, 2, 2, 2)?;
    let with_stranger = settled()?;
    ensure!(with_stranger == after_all, "{with_stranger} files, {after_all} before the stranger");
    ensure!(library_code(stranger.pid())? == before, "a probe in a server of another port");
    stranger.stop()?;
    let calls = stop_agent(agent)?;
    let again = |call: &&ApiCall| as_logged(call).target == "/api/again";
    let again = calls.iter().find(again).context("it was not seen again")?;
    ensure!(again.complete, "not whole: {again:?}");
    Ok(())
}

/// The bytes of the TLS library's code in a process.
pub(super) fn library_code(pid: u32) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut code = Vec::new();
    for map in maps.lines().filter(|map| map.contains("libssl") && map.contains("r-xp")) {
        let range = map.split(' ').next().unwrap_or_default();
        let (start, end) = range.split_once('-').unwrap_or_default();
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut bytes = vec![0; usize::try_from(end - start)?];
        memory.read_exact_at(&mut bytes, start)?;
        code.extend(bytes);
    }
    ensure!(!code.is_empty(), "no TLS library in {pid}");
    Ok(code)
}
