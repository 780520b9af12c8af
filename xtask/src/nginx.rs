//! A private nginx: own config, own pid, own folder, and an access log that can be compared.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::process::{self, Proc};
use crate::setup;

const START_WAIT: Duration = Duration::from_secs(20);

/// What one server block does.
#[derive(Clone, Debug)]
pub enum Role {
    /// Passes everything on to this address over kept connections.
    Proxy(SocketAddr),
    /// These lines stand in the server block.
    Block(String),
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Address and port.
    pub at: SocketAddr,
    /// Whether it speaks HTTP/2 there, and nothing else.
    pub http2: bool,
    /// Whether it speaks TLS; then HTTP/2 is one choice, and HTTP/1 another. The role names the
    /// certificate.
    pub tls: bool,
    /// Whether a header of the PROXY protocol comes first; who it names is logged as the client.
    pub proxied: bool,
}

impl From<SocketAddr> for Listen {
    fn from(at: SocketAddr) -> Listen {
        Listen { at, http2: false, tls: false, proxied: false }
    }
}

/// A running nginx; ended when dropped.
pub struct Nginx {
    child: Proc,
    dir: PathBuf,
}

/// One line of its access log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Logged {
    /// Client address and port.
    pub client: SocketAddr,
    /// Method.
    pub method: String,
    /// Request target as it came.
    pub target: String,
    /// Status sent.
    pub status: u16,
    /// Body bytes sent, after transfer coding has been taken off where nginx added none.
    pub body_bytes_sent: u64,
    /// Body bytes received.
    pub body_bytes_received: u64,
}

impl Nginx {
    /// Starts it on `listen`, in `dir`, inside a network namespace if one is named.
    pub fn start(
        listen: &[Listen],
        role: &Role,
        dir: &Path,
        namespace: Option<&str>,
    ) -> Result<Nginx> {
        let config = dir.join("nginx.conf");
        fs::write(&config, config_text(listen, role, dir))?;
        let nginx =
            setup::find("nginx").context("nginx is missing (mend: apt-get install nginx-light)")?;
        let mut command = match namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(nginx);
                command
            }
            None => Command::new(nginx),
        };
        command.arg("-p").arg(dir).arg("-c").arg(&config).arg("-e").arg(dir.join("error.log"));
        let mut child = Proc::spawn("nginx", &command, &dir.join("nginx.log"))?;
        match namespace {
            // A listener in another namespace cannot be reached from here; its pid file can be seen.
            Some(_) => process::wait_until("nginx starts", START_WAIT, || {
                Ok(dir.join("nginx.pid").metadata().is_ok_and(|file| file.len() > 0))
            })?,
            None => child.wait_for_listener(listen[0].at, START_WAIT)?,
        }
        Ok(Nginx { child, dir: dir.to_owned() })
    }

    /// Process ids of its workers, which do the work.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let pid = self.child.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .context("reading nginx's workers")?;
        children.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Lets open requests end, then stops: afterwards the access log is whole.
    pub fn stop(mut self) -> Result<Vec<Logged>> {
        self.child.signal(Signal::QUIT)?;
        self.child.wait(START_WAIT)?;
        self.log()
    }

    /// Its access log so far.
    pub fn log(&self) -> Result<Vec<Logged>> {
        let file = self.log_file();
        let text = fs::read_to_string(&file)?;
        text.lines()
            .map(|line| parse(line).with_context(|| format!("{}: {line}", file.display())))
            .collect()
    }

    /// Where its access log is.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("access.log")
    }
}

/// Fields are parted by tabs: a request target holds none.
fn parse(line: &str) -> Option<Logged> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    Some(Logged {
        client: next()?.parse().ok()?,
        method: next()?.to_owned(),
        target: next()?.to_owned(),
        status: next()?.parse().ok()?,
        body_bytes_sent: next()?.parse().ok()?,
        body_bytes_received: match next()? {
            "" | "-" => 0,
            length => length.parse().ok()?,
        },
    })
}

fn config_text(listen: &[Listen], role: &Role, dir: &Path) -> String {
    let listen: String = listen
        .iter()
        .map(|Listen { at, http2, tls, proxied }| {
            let tls = if *tls { "ssl " } else { "" };
            let http2 = if *http2 { "http2 " } else { "" };
            let proxied = if *proxied { "proxy_protocol " } else { "" };
            format!("    listen {at} {tls}{http2}{proxied}backlog=4096;\n")
        })
        .collect();
    let (upstream, block) = match role {
        Role::Proxy(to) => (
            format!("  upstream exchange {{ server {to}; keepalive 64; }}\n"),
            "    location / {\n      proxy_pass http://exchange;\n      proxy_http_version 1.1;\n      \
             proxy_set_header Connection \"\";\n    }\n"
                .to_owned(),
        ),
        Role::Block(block) => (String::new(), block.clone()),
    };
    let user = if setup::is_root() { "user root;\n" } else { "" };
    let dir = dir.display();
    format!(
        "{user}daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         \x20 log_format calls '$remote_log\\t$request_method\\t$request_uri\\t$status\\t\
         $body_bytes_sent\\t$content_length';\n\
         \x20 map $remote_addr $remote_log {{ ~: '[$remote_addr]:$remote_port'; \
         default '$remote_addr:$remote_port'; }}\n\
         \x20 access_log {dir}/access.log calls;\n\
         \x20 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; \
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; \
         scgi_temp_path {dir}/scgi;\n\
         \x20 keepalive_requests 1000000; client_max_body_size 0; types {{ }} \
         default_type application/json; server_tokens off;\n\
         {upstream}\
         \x20 server {{\n{listen}{block}  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_either_family() {
        let line = "127.0.0.1:5000\tGET\t/a?b=c\t200\t12\t-";
        let logged = parse(line).unwrap();
        assert_eq!(
            (logged.status, logged.body_bytes_sent, logged.body_bytes_received),
            (200, 12, 0)
        );
        let six = parse("[fd00::1]:5000\tPOST\t/\t413\t0\t77").unwrap();
        assert_eq!((six.client.port(), six.body_bytes_received), (5000, 77));
        assert!(parse("garbage").is_none());
    }
}
