//! Servers that move their bytes in other ways than nginx does: each logs what it served.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail, ensure};
use io_uring::{IoUring, opcode, squeue, types};
use xtask::http::Connection;
use xtask::nginx::Logged;
use xtask::process;

use super::compare::{all_whole, same_calls};
use super::rig::{start_agent, stop_agent};
use crate::replay::scratch;

const CONNECTIONS: usize = 5;
const CALLS: usize = 40;
/// Odd, and more than one segment.
const BODY_BYTES: usize = 5001;

/// Head and body leave in one writev(2).
pub(crate) fn writev_server() -> Result<()> {
    watched(|listener| {
        let mut logged = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut stream, client) = listener.accept()?;
            serve(client, &mut logged, &mut |step| match step {
                Step::Read(buffer) => Ok(stream.read(buffer)?),
                Step::Write(head, body) => {
                    // A short write would show: the client waits for the rest for ever.
                    let len = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
                    stream.write_all(&body[len - head.len()..])?;
                    Ok(len)
                }
            })?;
        }
        Ok(logged)
    })
}

/// Every byte moves by io_uring.
pub(crate) fn io_uring_server() -> Result<()> {
    watched(|listener| {
        let mut ring = IoUring::new(8).context("setting up io_uring")?;
        let mut logged = Vec::new();
        for _ in 0..CONNECTIONS {
            let (stream, client) = listener.accept()?;
            serve(client, &mut logged, &mut |step| match step {
                Step::Read(buffer) => receive(&mut ring, &stream, buffer),
                Step::Write(head, body) => {
                    let bytes = [head, body].concat();
                    let mut sent = 0;
                    while sent < bytes.len() {
                        sent += send(&mut ring, &stream, &bytes[sent..])?;
                    }
                    Ok(sent)
                }
            })?;
        }
        Ok(logged)
    })
}

/// Runs a server and its clients under Keywatch and compares.
fn watched(server: impl FnOnce(TcpListener) -> Result<Vec<Logged>> + Send) -> Result<()> {
    let dir = scratch()?;
    let port = process::free_server_port()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(address)?;
    let agent = start_agent(dir.path(), &[port], &[])?;
    let logged = std::thread::scope(|scope| {
        let serving = scope.spawn(move || server(listener));
        for number in 0..CONNECTIONS {
            let mut connection = Connection::open(address)?;
            for call in 0..CALLS {
                let body = vec![b'q'; call * 50];
                let reply = connection.call("POST", &format!("/{number}/{call}"), "", &body)?;
                ensure!(reply.body.len() == BODY_BYTES, "{} bytes came", reply.body.len());
            }
        }
        match serving.join() {
            Ok(logged) => logged,
            Err(_) => bail!("the server panicked"),
        }
    })?;
    let calls = stop_agent(agent)?;
    ensure!(logged.len() == CONNECTIONS * CALLS, "the server logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// What a server wants of its socket.
enum Step<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8], &'a [u8]),
}

/// Answers the requests of one connection until the client closes it.
fn serve(
    client: SocketAddr,
    logged: &mut Vec<Logged>,
    io: &mut dyn FnMut(Step<'_>) -> Result<usize>,
) -> Result<()> {
    let body = vec![b'w'; BODY_BYTES];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let mut pending = Vec::new();
    loop {
        let mut buffer = vec![0; 16 << 10];
        let len = io(Step::Read(&mut buffer))?;
        if len == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..len]);
        while let Some((method, target, length, end)) = whole_request(&pending)? {
            pending.drain(..end);
            io(Step::Write(head.as_bytes(), &body))?;
            logged.push(Logged {
                client,
                method,
                target,
                status: 200,
                body_bytes_sent: BODY_BYTES as u64,
                body_bytes_received: length as u64,
            });
        }
    }
}

/// Method, target, length of the body and end of the first request, when it is there to its end.
fn whole_request(bytes: &[u8]) -> Result<Option<(String, String, usize, usize)>> {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_end])?;
    let mut words = head.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { bail!("no request") };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(Ok(0), str::parse)?;
    let end = head_end + 4 + length;
    Ok((bytes.len() >= end).then(|| (method.into(), target.into(), length, end)))
}

fn receive(ring: &mut IoUring, stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let len = u32::try_from(buffer.len())?;
    let fd = types::Fd(stream.as_raw_fd());
    let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), len).build();
    complete(ring, &entry)
}

fn send(ring: &mut IoUring, stream: &TcpStream, bytes: &[u8]) -> Result<usize> {
    let len = u32::try_from(bytes.len())?;
    let fd = types::Fd(stream.as_raw_fd());
    let entry = opcode::Send::new(fd, bytes.as_ptr(), len).build();
    complete(ring, &entry)
}

/// Submits one operation and waits for its end.
fn complete(ring: &mut IoUring, entry: &squeue::Entry) -> Result<usize> {
    // SAFETY: the callers borrow the socket and the buffer named in the entry until this returns,
    // and this returns only once the kernel has completed the operation.
    unsafe { ring.submission().push(entry) }.context("the submission queue is full")?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().context("no completion")?;
    let result = done.result();
    ensure!(result >= 0, "io_uring: {}", std::io::Error::from_raw_os_error(-result));
    Ok(usize::try_from(result)?)
}
