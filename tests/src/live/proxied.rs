//! A proxy in front that speaks the PROXY protocol: who asks is who nginx says it was.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::http::Connection;
use xtask::nginx::{Listen, Nginx, Role};
use xtask::openssl::certificate;
use xtask::process::{self, Proc};

use super::compare::as_logged;
use super::namespace::Namespace;
use super::rig::{BLOCK, start_agent, stop_agent};
use crate::replay::scratch;

const START_WAIT: Duration = Duration::from_secs(20);
/// nginx takes who the header names for the client, and logs it.
const NAMED: &str = "    set_real_ip_from 198.18.0.0/15;\n    real_ip_header proxy_protocol;\n";

/// Version 1 before HTTP/1, version 2 before HTTP/2 and, with what HAProxy adds to it, before TLS; from two
/// clients each.
pub(crate) fn by_haproxy() -> Result<()> {
    let dir = scratch()?;
    let namespace = Namespace::new()?;
    let place = || -> Result<SocketAddr> {
        Ok(SocketAddr::new(namespace.v4, process::free_server_port()?))
    };
    let behind = [place()?, place()?, place()?];
    let mut listen = behind.map(Listen::from);
    listen.iter_mut().for_each(|listen| listen.proxied = true);
    listen[1].http2 = true;
    (listen[2].http2, listen[2].tls) = (true, true);
    fs::create_dir_all(dir.path().join("html/files"))?;
    let role = Role::Block(BLOCK.to_owned() + NAMED + &certificate(dir.path())?);
    let nginx = Nginx::start(&listen, &role, dir.path(), Some(&namespace.name))?;
    let local = IpAddr::from([127, 0, 0, 1]);
    let front = [0, 1, 2].map(|_| process::free_server_port().map(|it| SocketAddr::new(local, it)));
    let [first, second, third] = front;
    let front = [first?, second?, third?];
    let mut haproxy = haproxy(dir.path(), &front, &behind)?;
    haproxy.wait_for_listener(front[0], START_WAIT)?;
    let mut config = fs::read_to_string(dir.path().join("keywatch.toml"))?;
    config.push_str("[identity]\ntrusted_proxies = [\"198.18.0.0/15\"]\n");
    fs::write(dir.path().join("keywatch.toml"), config)?;
    let agent = start_agent(dir.path(), &behind.map(|it| it.port()), &[])?;
    for client in ["127.0.0.9", "127.0.0.10"] {
        let mut connection = Connection::open_from(Some(client.parse()?), front[0])?;
        for number in 0..3 {
            connection.call("GET", &format!("/api/{number}"), "X-API-Key: made-up\r\n", b"")?;
        }
        for (scheme, at, http2) in [
            ("http", front[1], "--http2-prior-knowledge"),
            ("https", front[2], "--http2"),
            ("https", front[2], "--http1.1"),
        ] {
            // Of HTTP/2 in the clear some versions of curl can make one call only.
            for path in ["a", "b"] {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--fail", "--insecure", "--interface", client, http2]);
                process::run(curl.arg(format!("{scheme}://{at}/api/{path}")))?;
            }
        }
    }
    haproxy.kill()?;
    let calls = stop_agent(agent)?;
    let mut logged = BTreeMap::new();
    for line in nginx.stop()? {
        *logged.entry((line.client, line.target)).or_insert(0) += 1;
    }
    let mut seen = BTreeMap::new();
    for call in &calls {
        let client = call.flow.proxied_for.with_context(|| format!("no client: {call:?}"))?;
        let client = SocketAddr::new(client.ip(), client.port);
        ensure!(call.client() == client.ip() && call.complete, "{call:?}");
        ensure!(call.anomalies.is_empty(), "{:?}", call.anomalies);
        *seen.entry((client, as_logged(call).target)).or_insert(0) += 1;
    }
    ensure!(calls.len() == 18, "{} calls", calls.len());
    ensure!(seen == logged, "seen {seen:?}, logged {logged:?}");
    ensure!(calls.iter().filter(|call| call.flow.tls).count() == 8, "TLS is not seen as such");
    Ok(())
}

fn haproxy(
    dir: &std::path::Path,
    front: &[SocketAddr; 3],
    behind: &[SocketAddr; 3],
) -> Result<Proc> {
    let mut config = "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout client 30s\n  \
                      timeout server 30s\n  timeout connect 5s\n"
        .to_owned();
    let says = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"];
    for (number, ((front, behind), says)) in front.iter().zip(behind).zip(says).enumerate() {
        config.push_str(&format!(
            "listen l{number}\n  bind {front}\n  unique-id-format %ID\n  server s {behind} {says}\n"
        ));
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new("haproxy");
    Proc::spawn("haproxy", command.arg("-f").arg(&file), &dir.join("haproxy.log"))
}
