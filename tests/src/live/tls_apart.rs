//! Servers whose TLS library never touches a socket (memory BIOs), and Go, whose goroutines change
//! threads: every call on its own port, as many as the server has logged.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use monitor_core::call::{ApiCall, Protocol};
use xtask::openssl::certificate;
use xtask::process::{self, Proc};
use xtask::setup;

use super::compare::{all_whole, as_logged};
use super::rig::{capture_set, start_agent, stop_agent};
use super::tls::{client, curl, on_their_ports};
use crate::replay::scratch;

const CONNECTIONS: usize = 1000;
const CALLS: usize = 3;
/// Of the bodies that go up and down.
pub(super) const LARGE_BYTES: usize = 20_000_000;

/// Plaintext is taken at calls, also where connections could be opened with their secrets.
pub(super) const AT_CALLS: &str = "tls = \"calls\"\n";

/// Arguments of every server: port, certificate, key. For a call each prints its client's port, the
/// method and the target; `/large` is answered with 20 MB.
const NODE: &str = r#"
const https = require("https"), fs = require("fs");
const [port, cert, key] = process.argv.slice(-3);
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
https.createServer(options, (request, response) => {
  const client = request.socket.remotePort;
  request.resume();
  request.on("end", () => {
    console.log(`call ${client} ${request.method} ${request.url}`);
    if (request.url !== "/large") {
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": 2 });
      return response.end("{}");
    }
    response.writeHead(200, { "Content-Length": 20000000 });
    let left = 200;
    const more = () => {
      while (left > 0) {
        left -= 1;
        if (!response.write(Buffer.alloc(100000, "k"))) return response.once("drain", more);
      }
      response.end();
    };
    more();
  });
}).listen(Number(port), "127.0.0.1");
"#;

const NODE_HTTP2: &str = r#"
const http2 = require("http2"), fs = require("fs");
const [port, cert, key] = process.argv.slice(-3);
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const server = http2.createSecureServer(options);
server.on("stream", (stream, headers) => {
  console.log(`call ${stream.session.socket.remotePort} ${headers[":method"]} ${headers[":path"]}`);
  stream.respond({ ":status": 200, "content-type": "application/json" });
  stream.end("{}");
});
server.listen(Number(port), "127.0.0.1");
"#;

const ASYNCIO: &str = r#"
import asyncio, ssl, sys
async def serve(reader, writer):
    client = writer.get_extra_info("peername")[1]
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, rest = head.split(" ", 2)
            length = [line for line in rest.split("\r\n") if line.lower().startswith("content-length:")]
            await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
            print("call", client, method, target, flush=True)
            bodies = [b"k" * 100000] * 200 if target == "/large" else [b"{}"]
            length = sum(map(len, bodies))
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
            for body in bodies:
                writer.write(body)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), ssl=context)
    await server.serve_forever()
asyncio.run(main())
"#;

const AIOHTTP: &str = r#"
import ssl, sys
from aiohttp import web
async def serve(request):
    client = request.transport.get_extra_info("peername")[1]
    await request.read()
    print("call", client, request.method, request.path, flush=True)
    if request.path != "/large":
        return web.Response(text="{}", content_type="application/json")
    response = web.StreamResponse()
    response.content_length = 20000000
    await response.prepare(request)
    for _ in range(200):
        await response.write(b"k" * 100000)
    return response
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
app = web.Application(client_max_size=1 << 30)
app.router.add_route("*", "/{tail:.*}", serve)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), ssl_context=context, print=None)
"#;

const GO: &str = r#"
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		_, port, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Printf("call %s %s %s\n", port, r.Method, r.RequestURI)
		body := "{}"
		if r.RequestURI == "/large" {
			body = strings.Repeat("k", 20000000)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body)
	})
	at := "127.0.0.1:" + os.Args[1]
	fmt.Fprintln(os.Stderr, http.ListenAndServeTLS(at, os.Args[2], os.Args[3], nil))
}
"#;

/// Node's `https`, with an OpenSSL within its program.
pub(crate) fn node() -> Result<()> {
    let server = Server::start(&mut script("node", NODE)?)?;
    server.seen_with_bodies()
}

/// The same with `capture.tls = "calls"`: the plaintext itself, tied to its connections by their hellos.
pub(crate) fn node_at_calls() -> Result<()> {
    Server::start_with(&mut script("node", NODE)?, AT_CALLS)?.seen_with_bodies()
}

/// Node's `http2`.
pub(crate) fn node_http2() -> Result<()> {
    let server = Server::start(&mut script("node", NODE_HTTP2)?)?;
    server.seen_with_http2()
}

/// Python's asyncio, by its streams.
pub(crate) fn asyncio() -> Result<()> {
    let server = Server::start(&mut script("python3", ASYNCIO)?)?;
    server.seen_with_bodies()
}

/// aiohttp, which is among what ccxt needs.
pub(crate) fn aiohttp() -> Result<()> {
    let python = setup::python_with_ccxt().context("no Python with aiohttp")?;
    let mut command = Command::new(python);
    Server::start(command.args(["-c", AIOHTTP]))?.seen_with_bodies()
}

/// Go's net/http, as `go build` makes it.
pub(crate) fn go() -> Result<()> {
    let dir = scratch()?;
    Server::start(&mut built(dir.path(), &[])?)?.seen_with_bodies()?;
    Server::start(&mut built(dir.path(), &[])?)?.seen_with_http2()
}

/// The same with `capture.tls = "calls"`.
pub(crate) fn go_at_calls() -> Result<()> {
    let dir = scratch()?;
    Server::start_with(&mut built(dir.path(), &[])?, AT_CALLS)?.seen_with_bodies()
}

/// Go's net/http without symbols.
pub(crate) fn go_stripped() -> Result<()> {
    let dir = scratch()?;
    Server::start(&mut built(dir.path(), &["-trimpath", "-ldflags", "-s -w"])?)?.seen_with_bodies()
}

fn script(program: &str, source: &str) -> Result<Command> {
    let mut command = Command::new(setup::find(program).context("no such program")?);
    command.args([if program == "node" { "-e" } else { "-c" }, source]);
    Ok(command)
}

fn built(dir: &Path, args: &[&str]) -> Result<Command> {
    let (source, program) = (dir.join("server.go"), dir.join("server"));
    fs::write(&source, GO)?;
    let mut go = Command::new(setup::find("go").context("no go")?);
    go.current_dir(dir).env("GO111MODULE", "off").arg("build").args(args);
    process::run(go.arg("-o").arg(&program).arg(&source)).context("building with Go")?;
    Ok(Command::new(program))
}

/// A server and Keywatch on its port.
pub(super) struct Server {
    process: Proc,
    agent: xtask::agent::Agent,
    at: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    /// `command` is given port, certificate and key, and prints `call`, its client's port, method and target.
    pub(super) fn start(command: &mut Command) -> Result<Server> {
        Server::start_with(command, "")
    }

    /// The same, with lines under `[capture]` in Keywatch's config.
    pub(super) fn start_with(command: &mut Command, set: &str) -> Result<Server> {
        Server::start_as(command, set, |command, dir, at| {
            command.arg(at.port().to_string()).arg(dir.join("tls.pem")).arg(dir.join("tls.key"));
            Ok(())
        })
    }

    /// A server that is told otherwise where it listens, by `configure`, and where its certificate is: in
    /// `tls.pem` and `tls.key` of the folder. What it logs, it prints or writes to `server.log` there.
    pub(super) fn configured(
        program: &str,
        configure: impl FnOnce(&mut Command, &Path, SocketAddr) -> Result<()>,
    ) -> Result<Server> {
        let mut command = Command::new(setup::find(program).context("no such program")?);
        Server::start_as(&mut command, "", configure)
    }

    fn start_as(
        command: &mut Command,
        set: &str,
        configure: impl FnOnce(&mut Command, &Path, SocketAddr) -> Result<()>,
    ) -> Result<Server> {
        let dir = scratch()?;
        capture_set(dir.path(), set)?;
        certificate(dir.path())?;
        let at = SocketAddr::new([127, 0, 0, 1].into(), process::free_server_port()?);
        configure(command, dir.path(), at)?;
        let mut process = Proc::spawn("server", command, &dir.path().join("server.log"))?;
        // Java compiles what it is given first.
        process.wait_for_listener(at, Duration::from_secs(60))?;
        let agent = start_agent(dir.path(), &[at.port()], &[])?;
        Ok(Server { process, agent, at, dir })
    }

    /// Process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it listens.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Everything that it and Keywatch write.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends both; what was seen, and what the server has logged.
    pub(super) fn ended(self) -> Result<(Vec<ApiCall>, String)> {
        let (calls, dir) = self.stopped()?;
        Ok((calls, fs::read_to_string(dir.path().join("server.log"))?))
    }

    /// Ends both; what was seen, and where everything was written.
    pub(super) fn stopped(self) -> Result<(Vec<ApiCall>, tempfile::TempDir)> {
        let calls = stop_agent(self.agent)?;
        self.process.stop()?;
        Ok((calls, self.dir))
    }

    /// A thousand connections at once, three calls on each; then 20 MB up and 20 MB down.
    pub(super) fn seen_with_bodies(self) -> Result<()> {
        self.seen_whole(CONNECTIONS)
    }

    /// The same with so many at once.
    pub(super) fn seen_whole(self, at_once: usize) -> Result<()> {
        client(self.at, CONNECTIONS, at_once, CALLS)?;
        let large = self.dir.path().join("large");
        fs::write(&large, vec![b'k'; LARGE_BYTES])?;
        let upload = format!("@{}", large.display());
        curl(&self.at, &["--http1.1"], "/large")?;
        curl(&self.at, &["--http1.1", "-H", "Expect:", "--data-binary", &upload], "/note")?;
        let calls = self.calls(CONNECTIONS * CALLS + 2)?;
        let (bodies, calls): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|call| as_logged(call).target.matches('/').count() == 1);
        on_their_ports(&calls)?;
        let mut bodies: Vec<_> = bodies
            .iter()
            .map(as_logged)
            .map(|call| (call.body_bytes_received, call.body_bytes_sent))
            .collect();
        bodies.sort_unstable();
        let large = LARGE_BYTES as u64;
        ensure!(bodies == [(0, large), (large, 2)], "bodies: {bodies:?}");
        Ok(())
    }

    /// Fifty connections with streams side by side.
    fn seen_with_http2(self) -> Result<()> {
        let url = format!("https://{}/api/7", self.at);
        let mut load = Command::new("h2load");
        let said = process::run(load.args(["-n", "1000", "-c", "50", "-m", "8", &url]))?;
        ensure!(said.contains("1000 succeeded"), "h2load: {said}");
        let calls = self.calls(1000)?;
        let other = calls.iter().find(|call| call.protocol != Protocol::Http2);
        ensure!(other.is_none(), "not HTTP/2: {other:?}");
        Ok(())
    }

    /// Ends both; what was seen is what the server has logged, whole.
    fn calls(self, expected: usize) -> Result<Vec<ApiCall>> {
        let (calls, log) = self.ended()?;
        let lines = log.lines().filter_map(|line| line.strip_prefix("call "));
        // Some name the version as well.
        let three = |line: &str| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let mut logged: Vec<String> = lines.map(three).collect();
        ensure!(logged.len() == expected, "the server logged {}: {log}", logged.len());
        let mut seen: Vec<String> = calls
            .iter()
            .map(|call| {
                let line = as_logged(call);
                format!("{} {} {}", call.flow.client.port, line.method, line.target)
            })
            .collect();
        logged.sort_unstable();
        seen.sort_unstable();
        let different = logged.iter().zip(&seen).find(|(logged, seen)| logged != seen);
        ensure!(
            logged == seen,
            "{} calls were seen, {} logged: {different:?}",
            seen.len(),
            logged.len()
        );
        all_whole(&calls)?;
        let bare = calls.iter().find(|call| !call.flow.tls || call.flow.ja4.is_none());
        ensure!(bare.is_none(), "without its hello: {bare:?}");
        Ok(calls)
    }
}
