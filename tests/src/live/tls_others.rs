//! Libraries that Debian's own servers do not use: BoringSSL within a library of another name, OpenSSL 1.1,
//! `SSL_set_fd`, and rustls, which is looked into where it has the symbols of AWS-LC, and says so where not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::openssl;
use xtask::{maven, process, setup};

use super::compare::all_whole;
use super::rustls_server::{self, AWS_LC, RING};
use super::tls::{client, curl};
use super::tls_apart::{AT_CALLS, Server};
use crate::replay::{keywatch, scratch};

/// Netty with BoringSSL, as servers in Java have it.
const NETTY: &str = r#"
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.*;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.*;
import io.netty.handler.ssl.*;
import java.io.File;
import java.net.InetSocketAddress;
import java.util.Arrays;

public class Server {
  static class Answers extends SimpleChannelInboundHandler<FullHttpRequest> {
    protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
      int client = ((InetSocketAddress) context.channel().remoteAddress()).getPort();
      System.out.println("call " + client + " " + request.method() + " " + request.uri());
      byte[] body = new byte[request.uri().equals("/large") ? 20000000 : 2];
      Arrays.fill(body, (byte) 'k');
      FullHttpResponse response = new DefaultFullHttpResponse(
          HttpVersion.HTTP_1_1, HttpResponseStatus.OK, Unpooled.wrappedBuffer(body));
      HttpUtil.setContentLength(response, body.length);
      context.writeAndFlush(response);
    }
  }
  public static void main(String[] args) throws Exception {
    SslContext tls = SslContextBuilder.forServer(new File(args[1]), new File(args[2]))
        .sslProvider(SslProvider.OPENSSL).build();
    ChannelInitializer<SocketChannel> begin = new ChannelInitializer<SocketChannel>() {
      protected void initChannel(SocketChannel channel) {
        channel.pipeline().addLast(tls.newHandler(channel.alloc()), new HttpServerCodec(),
            new HttpObjectAggregator(1 << 30), new Answers());
      }
    };
    new ServerBootstrap().group(new NioEventLoopGroup(4)).channel(NioServerSocketChannel.class)
        .childHandler(begin).bind("127.0.0.1", Integer.parseInt(args[0])).sync()
        .channel().closeFuture().sync();
  }
}
"#;

/// Versions that belong together.
const NETTY_JARS: [&str; 2] = [
    "io.netty:netty-codec-http:4.1.112.Final",
    "io.netty:netty-tcnative-boringssl-static:2.0.65.Final:linux-x86_64",
];

/// BoringSSL with its symbols, linked into a library that Java has loaded and deleted.
pub(crate) fn netty() -> Result<()> {
    let dir = scratch()?;
    let source = dir.path().join("Server.java");
    fs::write(&source, NETTY)?;
    let mut java = Command::new(setup::find("java").context("no java")?);
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-cp"]);
    java.arg(maven::jars("netty-4.1.112-boringssl", &NETTY_JARS)?.join("*"));
    Server::start(java.arg(&source))?.seen_with_bodies()
}

/// One thread works at many connections. How one ends takes turns: with close_notify and `SSL_free`; freed
/// when its socket is closed already; never freed, but cleared and taken for another connection. Objects and
/// descriptors so come again all the time. Arguments: libssl, `accept` or `read`, whichever shakes hands, a
/// file for the address of each object, port, certificate, key.
const SET_FD: &str = r#"
import ctypes, select, socket, sys
lib = ctypes.CDLL(sys.argv[1])
shakes_hands, objects = sys.argv[2], open(sys.argv[3], "w", buffering=1)
port, cert, key = int(sys.argv[4]), sys.argv[5].encode(), sys.argv[6].encode()
P, I = ctypes.c_void_p, ctypes.c_int
def function(name, result, *arguments):
    found = getattr(lib, name)
    found.restype, found.argtypes = result, arguments
    return found
SSL_new = function("SSL_new", P, P)
SSL_set_fd = function("SSL_set_fd", I, P, I)
SSL_accept = function("SSL_accept", I, P)
SSL_set_accept_state = function("SSL_set_accept_state", None, P)
SSL_read = function("SSL_read", I, P, P, I)
SSL_write = function("SSL_write", I, P, ctypes.c_char_p, I)
SSL_pending = function("SSL_pending", I, P)
SSL_shutdown = function("SSL_shutdown", I, P)
SSL_clear = function("SSL_clear", I, P)
SSL_free = function("SSL_free", None, P)
context = function("SSL_CTX_new", P, P)(function("TLS_server_method", P)())
use = function("SSL_CTX_use_certificate_file", I, P, ctypes.c_char_p, I)
assert use(context, cert, 1) == 1
use = function("SSL_CTX_use_PrivateKey_file", I, P, ctypes.c_char_p, I)
assert use(context, key, 1) == 1
buffer = ctypes.create_string_buffer(16384)
listener = socket.create_server(("127.0.0.1", port), backlog=128)
open_, spare, ended = {}, [], 0
class Gone(Exception): pass
def read(ssl):
    count = SSL_read(ssl, buffer, len(buffer))
    if count <= 0: raise Gone
    return buffer.raw[:count]
def write(ssl, data):
    for start in range(0, len(data), 100000):
        part = data[start:start + 100000]
        if SSL_write(ssl, part, len(part)) != len(part): raise Gone
def serve(plain, ssl):
    data = read(ssl)
    while b"\r\n\r\n" not in data: data += read(ssl)
    head, body = data.split(b"\r\n\r\n", 1)
    method, target, rest = head.decode().split(" ", 2)
    lengths = [line for line in rest.split("\r\n") if line.lower().startswith("content-length:")]
    left = (int(lengths[0].split(":")[1]) if lengths else 0) - len(body)
    while left > 0: left -= len(read(ssl))
    print("call", plain.getpeername()[1], method, target, flush=True)
    answer = b"k" * (20000000 if target == "/large" else 2)
    write(ssl, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
def end(plain, ssl):
    global ended
    ended += 1
    if ended % 3 == 0:
        SSL_shutdown(ssl)
        SSL_free(ssl)
        plain.close()
    elif ended % 3 == 1:
        plain.close()
        SSL_free(ssl)
    else:
        plain.close()
        spare.append(ssl)
while True:
    for ready in select.select([listener, *open_], [], [])[0]:
        if ready is listener:
            plain, _ = listener.accept()
            ssl = spare.pop(0) if spare else SSL_new(context)
            assert SSL_clear(ssl) == 1
            print(ssl, file=objects)
            SSL_set_fd(ssl, plain.fileno())
            if shakes_hands == "read":
                SSL_set_accept_state(ssl)
                open_[plain] = ssl
            elif SSL_accept(ssl) == 1: open_[plain] = ssl
            else: end(plain, ssl)
            continue
        ssl = open_[ready]
        try:
            serve(ready, ssl)
            while SSL_pending(ssl): serve(ready, ssl)
        except Gone:
            del open_[ready]
            end(ready, ssl)
"#;

/// `SSL_set_fd` with the system's OpenSSL 3.
pub(crate) fn set_fd() -> Result<()> {
    with_set_fd(&mut python()?, &openssl::library("libssl.so.3")?, "accept")
}

/// OpenSSL 1.1.
pub(crate) fn openssl_1_1() -> Result<()> {
    let dir = scratch()?;
    let library = openssl::copy_openssl_1_1(dir.path())?;
    // Its other half is beside it.
    for shakes_hands in ["accept", "read"] {
        let mut python = python()?;
        python.env("LD_LIBRARY_PATH", dir.path());
        with_set_fd(&mut python, &library.display().to_string(), shakes_hands)?;
    }
    Ok(())
}

/// BoringSSL as Debian has it.
pub(crate) fn boringssl() -> Result<()> {
    with_set_fd(&mut python()?, &openssl::library(openssl::BORINGSSL)?, "accept")
}

/// A server that never asks for a handshake: it is part of the first `SSL_read`, in every library.
pub(crate) fn handshake_in_a_read() -> Result<()> {
    for library in ["libssl.so.3", openssl::BORINGSSL] {
        with_set_fd(&mut python()?, &openssl::library(library)?, "read").context(library)?;
    }
    Ok(())
}

fn python() -> Result<Command> {
    Ok(Command::new(setup::find("python3").context("no python3")?))
}

/// `shakes_hands`: the function that does.
fn with_set_fd(python: &mut Command, library: &str, shakes_hands: &str) -> Result<()> {
    let dir = scratch()?;
    let objects = dir.path().join("objects");
    python.args(["-c", SET_FD, library, shakes_hands]).arg(&objects);
    // By secrets it would not matter which object is whose.
    Server::start_with(python, AT_CALLS)?.seen_whole(50)?;
    let objects = fs::read_to_string(&objects)?;
    let objects: Vec<_> = objects.lines().collect();
    let addresses: BTreeSet<_> = objects.iter().collect();
    // Few are open at once, many came.
    let again = objects.len() - addresses.len();
    ensure!(
        again > objects.len() / 2,
        "{} objects at {} addresses",
        objects.len(),
        addresses.len()
    );
    Ok(())
}

fn rustls_server(program: &Path, provider: &str) -> Command {
    let mut command = Command::new(program);
    command.args([rustls_server::ARGUMENT, provider]);
    command
}

/// A server with rustls over AWS-LC, which has its symbols: every call, whole, of TLS 1.2 as well.
pub(crate) fn rustls_aws_lc() -> Result<()> {
    let program = std::env::current_exe()?;
    Server::start(&mut rustls_server(&program, AWS_LC))?.seen_with_bodies()?;
    let server = Server::start(&mut rustls_server(&program, AWS_LC))?;
    for call in 0..5 {
        curl(&server.at(), &["--http1.1", "--tls-max", "1.2"], &format!("/api/{call}"))?;
    }
    let (calls, _) = server.ended()?;
    ensure!(calls.len() == 5, "{} calls of TLS 1.2", calls.len());
    all_whole(&calls)
}

/// A server with rustls that writes a key log: every call, whole, with no probe.
pub(crate) fn rustls_keylog() -> Result<()> {
    let dir = scratch()?;
    let keys = dir.path().join("keys.log");
    fs::write(&keys, "")?;
    let set = format!("tls = \"keylog\"\ntls_keylogs = [\"{}\"]\n", keys.display());
    let mut server = rustls_server(&std::env::current_exe()?, RING);
    Server::start_with(server.env("SSLKEYLOGFILE", &keys), &set)?.seen_with_bodies()
}

/// One that does not, and has no symbols: `doctor` and the live run say what it is and what helps. What is
/// of no use is not delivered for long.
pub(crate) fn rustls_is_named() -> Result<()> {
    let dir = scratch()?;
    let program = dir.path().join("server");
    let mut strip = Command::new(setup::find("strip").context("no strip")?);
    process::run(strip.arg("-o").arg(&program).arg(std::env::current_exe()?))?;
    let server = Server::start(&mut rustls_server(&program, RING))?;
    let (who, expected) = (server.pid(), "rustls, built in");
    let mut doctor = Command::new(keywatch()?);
    doctor.args(["doctor", "--port", &server.at().port().to_string()]);
    let said = String::from_utf8(doctor.output()?.stdout)?;
    let line = said.lines().find(|line| line.contains(&format!("({who}): {expected}: not looked")));
    let line = line.with_context(|| format!("no such process in: {said}"))?;
    ensure!(line.starts_with("warn") && line.contains("KeyLogFile"), "{line}");
    client(server.at(), 20, 2, 1)?;
    let alerts = server.dir().join("alerts.jsonl");
    process::wait_until("an alert that names it", Duration::from_secs(60), || {
        let alerts = fs::read_to_string(&alerts).unwrap_or_default();
        Ok(alerts.lines().any(|line| line.contains("D28") && line.contains(expected)))
    })?;
    // Twice on one connection: Keywatch has said in between that it wants no more of it.
    const PATIENT: &str = r#"
import http.client, ssl, sys, time
context = ssl._create_unverified_context()
client = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
for _ in range(2):
    client.request("GET", "/large")
    assert len(client.getresponse().read()) == 20_000_000
    time.sleep(1)
"#;
    let mut python = Command::new("python3");
    process::run(python.args(["-c", PATIENT, &server.at().port().to_string()]))?;
    let (calls, dir) = server.stopped()?;
    ensure!(calls.is_empty(), "calls of what is not looked into");
    let log = fs::read_to_string(dir.path().join("keywatch.log"))?;
    let delivered = log.split("payload bytes ").nth(1).context("no summary")?;
    let delivered: u64 = delivered.split([',', '\n']).next().unwrap_or_default().parse()?;
    ensure!(delivered < 21_000_000, "{delivered} bytes were delivered");
    Ok(())
}
