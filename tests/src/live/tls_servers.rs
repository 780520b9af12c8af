//! Servers with other ways to use a TLS library than nginx has: each call on its own port.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use monitor_core::call::ApiCall;
use xtask::openssl::{self, certificate};
use xtask::process::{self, Proc};

use super::compare::{all_whole, as_logged};
use super::rig::{start_agent, stop_agent};
use super::tls::{client, client_in_turns, curl, on_their_ports, patient};
use super::tls_apart::{LARGE_BYTES, Server};
use crate::replay::scratch;

/// A threaded server whose threads block in their library. Arguments: port, certificate, key, and maybe
/// a key log.
const PYTHON: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        # In one piece: its threads would write into each other's lines.
        print(f"call {self.client_address[1]} {self.command} {self.path}\n", end="", flush=True)
        # A number is the length of the body that is asked for, in one call of the library.
        asked = self.path[1:]
        bodies = [b"k" * int(asked) if asked.isdigit() else b"{}"]
        if asked == "large":
            bodies = [b"k" * 100000] * 200
        self.send_response(200)
        self.send_header("Content-Length", str(sum(map(len, bodies))))
        self.end_headers()
        for body in bodies:
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

/// Python's `ssl`, which calls `SSL_read_ex` and `SSL_write_ex`, and shakes hands within the first read.
pub(crate) fn python() -> Result<()> {
    let mut python = Command::new(xtask::setup::find("python3").context("no python3")?);
    Server::start(python.args(["-c", PYTHON]))?.seen_with_bodies()
}

/// What HAProxy answers, and says of each call. What it logs by itself it drops when its threads are at it
/// at the same time.
const HAPROXY: &str = r#"
io.stdout:setvbuf("line")
core.register_service("serve", "http", function(applet)
  applet:receive()
  print("call " .. applet.sf:src_port() .. " " .. applet.method .. " " .. applet.path)
  local bodies = { "{}" }
  if applet.path == "/large" then
    for number = 1, 200 do bodies[number] = string.rep("k", 100000) end
  end
  applet:set_status(200)
  applet:add_header("content-length", tostring(#bodies * #bodies[1]))
  applet:start_response()
  for _, body in ipairs(bodies) do applet:send(body) end
end)
"#;

/// HAProxy, whose library works on a BIO of its own.
pub(crate) fn haproxy() -> Result<()> {
    let server = Server::configured("haproxy", |command, dir, at| {
        let [config, script, both] =
            ["haproxy.cfg", "serve.lua", "both.pem"].map(|it| dir.join(it));
        let [certificate, key] = [dir.join("tls.pem"), dir.join("tls.key")].map(fs::read);
        fs::write(&both, [certificate?, key?].concat())?;
        fs::write(&script, HAPROXY)?;
        fs::write(
            &config,
            format!(
                "global\n  nbthread 2\n  lua-load {}\ndefaults\n  mode http\n  timeout client 30s\n  \
                 timeout server 30s\n  timeout connect 5s\nfrontend exchange\n  \
                 bind {at} ssl crt {} alpn http/1.1\n  http-request use-service lua.serve\n",
                script.display(),
                both.display()
            ),
        )?;
        command.arg("-f").arg(config);
        Ok(())
    })?;
    server.seen_with_bodies()
}

/// Apache httpd with threads that take turns at a connection. Each of two processes has one for every
/// connection, whichever of them takes it in: with fewer they end what is kept open, to have its thread.
pub(crate) fn apache() -> Result<()> {
    let server = Server::configured("apache2", |command, dir, at| {
        let config = dir.join("apache.conf");
        let shown = dir.display();
        let modules: String = ["mpm_event", "authz_core", "ssl", "rewrite"]
            .iter()
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .collect();
        pages(dir)?;
        fs::write(
            &config,
            format!(
                "ServerRoot {shown}\nPidFile {shown}/apache.pid\nListen {at}\n{modules}\
                 ErrorLog {shown}/apache.error\nServerName exchange.test\nUser #65534\n\
                 Group #65534\nListenBacklog 1024\nServerLimit 2\nStartServers 2\n\
                 ThreadLimit 1024\nThreadsPerChild 1024\nMaxRequestWorkers 2048\n\
                 MaxSpareThreads 2048\nKeepAlive on\nKeepAliveTimeout 120\n\
                 MaxKeepAliveRequests 0\nLogFormat \"call %{{remote}}p %m %U\" calls\n\
                 CustomLog /dev/stdout calls\nSSLEngine on\n\
                 SSLCertificateFile {shown}/tls.pem\nSSLCertificateKeyFile {shown}/tls.key\n\
                 DocumentRoot {shown}/html\nRewriteEngine on\n\
                 RewriteRule ^/(api|note) /ok\n"
            ),
        )?;
        command.arg("-f").arg(config).arg("-DFOREGROUND");
        Ok(())
    })?;
    server.seen_with_bodies()
}

/// lighttpd, which never calls `SSL_do_handshake`: its library shakes hands within `SSL_read`.
pub(crate) fn lighttpd() -> Result<()> {
    let server = Server::configured("lighttpd", |command, dir, at| {
        let config = dir.join("lighttpd.conf");
        let shown = dir.display();
        pages(dir)?;
        // What is not read of a body would have it end the connection.
        let take = "cat > /dev/null\nprintf 'Content-Length: 2\\r\\n\\r\\n{}'\n";
        fs::write(dir.join("html/take.cgi"), take)?;
        fs::write(
            &config,
            format!(
                "server.modules = (\"mod_openssl\", \"mod_accesslog\", \"mod_rewrite\", \"mod_cgi\")\n\
                 server.bind = \"{}\"\nserver.port = {}\nserver.document-root = \"{shown}/html\"\n\
                 server.upload-dirs = (\"{shown}\")\nserver.errorlog = \"{shown}/lighttpd.error\"\n\
                 server.max-fds = 8192\nserver.max-connections = 4096\n\
                 server.listen-backlog = 1024\nserver.max-keep-alive-idle = 120\n\
                 server.feature-flags = (\"server.h2proto\" => \"disable\")\n\
                 ssl.engine = \"enable\"\nssl.pemfile = \"{shown}/tls.pem\"\n\
                 ssl.privkey = \"{shown}/tls.key\"\naccesslog.filename = \"{shown}/server.log\"\n\
                 accesslog.format = \"call %{{remote}}p %r\"\n\
                 url.rewrite-once = (\"^/note\" => \"/take.cgi\", \"^/api/\" => \"/ok\")\n\
                 cgi.assign = (\".cgi\" => \"/bin/sh\")\n",
                at.ip(),
                at.port()
            ),
        )?;
        command.arg("-D").arg("-f").arg(config);
        Ok(())
    })?;
    server.seen_with_bodies()
}

/// 20 MB in `html/large` and a short answer in `html/ok`, for a server that runs as nobody.
fn pages(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(dir.join("html"))?;
    fs::write(dir.join("html/ok"), "{}")?;
    Ok(fs::write(dir.join("html/large"), vec![b'k'; LARGE_BYTES])?)
}

/// GnuTLS in its own server. It answers one call on a connection, with a page of its own, and takes no body
/// but what comes with the head: so no 20 MB here. It has room for ten connections that it has not accepted,
/// and what comes beyond these the kernel drops: a thousand are at once open, but opened a few at a time.
pub(crate) fn gnutls() -> Result<()> {
    const AT_ONCE: usize = 1000;
    const OPENING: usize = 8;
    let server = Server::configured("gnutls-serv", |command, dir, at| {
        command.args(["--http", "--port", &at.port().to_string()]);
        command.arg("--x509certfile").arg(dir.join("tls.pem"));
        command.arg("--x509keyfile").arg(dir.join("tls.key"));
        Ok(())
    })?;
    client_in_turns(server.at(), AT_ONCE, AT_ONCE, 1, OPENING)?;
    let (calls, log) = server.ended()?;
    // `* Accepted connection from IPv4 127.0.0.1 port 37936 on …`
    let port = |line: &str| line.split_once(" port ")?.1.split(' ').next()?.parse::<u16>().ok();
    let accepted = log.lines().filter(|line| line.starts_with("* Accepted connection"));
    let mut logged: Vec<_> = accepted.filter_map(port).collect();
    // One more asked whether it listens.
    ensure!(logged.len() == AT_ONCE + 1, "the server logged {}", logged.len());
    let mut seen: Vec<_> = calls.iter().map(|call| call.flow.client.port).collect();
    logged.sort_unstable();
    seen.sort_unstable();
    seen.dedup();
    ensure!(calls.len() == AT_ONCE && seen.len() == AT_ONCE, "{} calls", calls.len());
    ensure!(seen.iter().all(|port| logged.binary_search(port).is_ok()), "ports: {seen:?}");
    all_whole(&calls)?;
    on_their_ports(&calls)
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
    let attached_beyond = |before: usize| {
        process::wait_until("Keywatch to look inside", Duration::from_secs(20), || {
            Ok(said("looks inside TLS") > before)
        })
    };
    let mut after_first = 0;
    for round in 0..20 {
        let running = server()?;
        client(at, 2, 2, 2)?;
        if round == 0 {
            attached_beyond(0)?;
        }
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
    attached_beyond(before_again)?;
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

/// A connection that was open before the start is seen at its library's calls; when it is over, those are
/// left alone, and new connections are seen by their secrets as before.
pub(crate) fn calls_are_left_alone() -> Result<()> {
    let dir = scratch()?;
    certificate(dir.path())?;
    openssl::copy_libraries(dir.path())?;
    let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
    let server = start_python(dir.path(), at, Some(dir.path()), None)?;
    let code = || code_of(server.pid(), &["libssl"]);
    let before = code()?;
    let patient = patient(at)?;
    let agent = start_agent(dir.path(), &[at.port()], &[])?;
    ensure!(code()? != before, "no probe for the connection that is open");
    client(at, 20, 2, 3)?;
    patient.go_on()?;
    process::wait_until("its calls are left alone", Duration::from_secs(60), || {
        Ok(code()? == before)
    })?;
    client(at, 20, 2, 3)?;
    let calls = stop_agent(agent)?;
    server.stop()?;
    // Of the older one nobody saw the hello.
    let (newer, older): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.flow.ja4.is_some());
    let is_asked = |call: &&ApiCall| as_logged(call).target.starts_with("/api/");
    let asked = older.iter().filter(is_asked).count();
    // The first may go before the socket is known.
    ensure!((9..=10).contains(&asked), "{asked} calls of the older connection: {older:?}");
    ensure!(newer.len() == 2 * 20 * 3, "{} calls of newer connections", newer.len());
    all_whole(&newer)?;
    on_their_ports(&newer)?;
    Ok(())
}

/// The bytes of the TLS library's code in a process, both its files.
pub(super) fn library_code(pid: u32) -> Result<Vec<u8>> {
    code_of(pid, &["libssl", "libcrypto"])
}

/// Of files with these names.
fn code_of(pid: u32, names: &[&str]) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut code = Vec::new();
    let is_named = |map: &&str| names.iter().any(|name| map.contains(name));
    for map in maps.lines().filter(is_named).filter(|map| map.contains("r-xp")) {
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
