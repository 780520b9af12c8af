//! A small HTTP/1.1 client that can choose its source address and what it puts on the wire.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// A server on the same machine that says nothing for so long is broken.
const READ_WAIT: Duration = Duration::from_secs(30);
/// More than any header block that our own servers send.
const HEADERS_MAX: usize = 64;

/// One keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body bytes.
    pub body: Vec<u8>,
    /// The server will close after it.
    pub closes: bool,
}

impl Connection {
    /// Connects from any address.
    pub fn open(server: SocketAddr) -> Result<Connection> {
        Connection::open_from(None, server)
    }

    /// Connects from a given local address.
    pub fn open_from(source: Option<IpAddr>, server: SocketAddr) -> Result<Connection> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = source {
            socket
                .bind(&SocketAddr::new(source, 0).into())
                .with_context(|| format!("binding to {source}"))?;
        }
        socket.connect(&server.into()).with_context(|| format!("connecting to {server}"))?;
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_WAIT))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// The address that the server sees.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending a request")
    }

    /// Sends a request and reads its answer.
    pub fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Reply> {
        self.send(&request(method, target, headers, body))?;
        self.reply(method)
    }

    /// Reads the answer to a request that was sent with `method`.
    pub fn reply(&mut self, method: &str) -> Result<Reply> {
        loop {
            let (head_len, status, framing, closes) = self.head()?;
            self.buffer.drain(..head_len);
            if (100..200).contains(&status) {
                continue;
            }
            let body = match framing {
                _ if method == "HEAD" || status == 204 || status == 304 => Vec::new(),
                Framing::Length(len) => self.take(len)?,
                Framing::Chunked => self.take_chunks()?,
                Framing::UntilClose => {
                    self.stream.read_to_end(&mut self.buffer)?;
                    std::mem::take(&mut self.buffer)
                }
            };
            return Ok(Reply { status, body, closes });
        }
    }

    fn head(&mut self) -> Result<(usize, u16, Framing, bool)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(len) = response.parse(&self.buffer)? {
                let status = response.code.context("a response without status")?;
                let value = |name: &str| {
                    let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                    found.map(|h| String::from_utf8_lossy(h.value).to_ascii_lowercase())
                };
                let framing = match (value("transfer-encoding"), value("content-length")) {
                    (Some(_), _) => Framing::Chunked,
                    (None, Some(len)) => Framing::Length(len.trim().parse()?),
                    (None, None) => Framing::UntilClose,
                };
                let closes = value("connection").is_some_and(|v| v.contains("close"));
                return Ok((len, status, framing, closes));
            }
            self.fill()?;
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < len {
            self.fill()?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn take_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((used, len))) => {
                    self.take(used)?;
                    body.extend(self.take(usize::try_from(len)?)?);
                    ensure!(self.take(2)? == b"\r\n", "a chunk does not end with CRLF");
                    if len == 0 {
                        return Ok(body);
                    }
                }
                Ok(httparse::Status::Partial) => self.fill()?,
                Err(error) => bail!("reading a chunk size: {error}"),
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 64 << 10];
        let len = self.stream.read(&mut chunk).context("reading a response")?;
        ensure!(len > 0, "the server closed the connection within a response");
        self.buffer.extend_from_slice(&chunk[..len]);
        Ok(())
    }
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A request's bytes. `headers` is whole lines, each with its CRLF.
pub fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: exchange.test\r\n{headers}");
    if !body.is_empty() || method == "POST" {
        bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
