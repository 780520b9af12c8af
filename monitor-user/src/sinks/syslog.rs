//! Syslog: RFC 5424 messages over TCP (RFC 6587, 3.4.1: octet counting) or TLS (RFC 5425).
//!
//! Syslog has no acknowledgement: a record counts as arrived when the kernel took it for a connection
//! that the other side has not closed. What was in flight when it breaks may be lost; Kafka and the
//! webhook do not have this gap.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use monitor_core::alert::Severity;

use super::Sink;
use super::courier::{Connect, Fate, Report, Sent, Transport};
use super::event::Event;
use super::network::{Network, Parts};
use super::spool::WhenFull;
use super::tls;
use crate::config;

/// Starts sending what an earlier run left in the spool.
pub(crate) fn open(
    sinks: &config::Sinks,
    spool_dir: &Path,
    host: &str,
    when_full: WhenFull,
) -> Result<Box<dyn Sink>> {
    let set = &sinks.syslog;
    let connector = match set.tls {
        true => Some(tls::connector(set.ca_file.as_deref(), "sinks.syslog.ca_file")?),
        false => None,
    };
    let parts = Parts {
        sink: "syslog",
        place: format!("syslog at {}", set.address),
        spool_dir,
        bounds: sinks.spool.bounds(),
        when_full,
        host: host.into(),
        format: set.format,
        activity_format: set.format,
        summary: None,
        route: set.route(),
        flush_max: set.flush_max,
    };
    let (address, host) = (set.address.clone(), name(host));
    let connect = move |_| -> Connect {
        let (address, host, connector) = (address.clone(), host.clone(), connector.clone());
        Box::new(move || {
            let stream = connect(&address, connector.as_ref())?;
            let syslog = Syslog { stream, host: host.clone(), line: Vec::new(), done: Vec::new() };
            Ok(Box::new(syslog) as Box<dyn Transport>)
        })
    };
    Ok(Box::new(Network::start(parts, connect)?))
}

/// A server in reach answers within a fraction of this; one that does not is tried again later.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A server that takes nothing for so long is given up, and tried again later.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Plain or TLS.
trait Stream: Read + Write + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for native_tls::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref()
    }
}

struct Syslog {
    stream: Box<dyn Stream>,
    host: String,
    line: Vec<u8>,
    /// Written, not reported yet.
    done: Vec<u64>,
}

fn connect(
    address: &str,
    connector: Option<&native_tls::TlsConnector>,
) -> Result<Box<dyn Stream>, String> {
    let mut last = "it has no address".to_owned();
    for socket in address.to_socket_addrs().map_err(|error| error.to_string())? {
        let stream = match TcpStream::connect_timeout(&socket, CONNECT_MAX) {
            Ok(stream) => stream,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let limits = stream
            .set_write_timeout(Some(WRITE_MAX))
            .and_then(|()| stream.set_read_timeout(Some(CONNECT_MAX)))
            .and_then(|()| stream.set_nodelay(true));
        limits.map_err(|error| error.to_string())?;
        let Some(connector) = connector else { return Ok(Box::new(stream)) };
        let domain = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let domain = domain.trim_matches(['[', ']']);
        return match connector.connect(domain, stream) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("TLS: {error}")),
        };
    }
    Err(last)
}

impl Syslog {
    /// Whether the other side has closed the connection. A syslog server says nothing.
    fn is_closed(&mut self) -> bool {
        if self.stream.tcp().set_nonblocking(true).is_err() {
            return true;
        }
        let mut byte = [0];
        let closed = match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.tcp().set_nonblocking(false).is_err() || closed
    }
}

impl Transport for Syslog {
    fn send(&mut self, number: u64, event: &Event) -> Sent {
        if self.is_closed() {
            return Sent::Failed("it has closed the connection".into());
        }
        write_message(&mut self.line, event, &self.host);
        let written = self.stream.write_all(&self.line).and_then(|()| self.stream.flush());
        match written {
            Ok(()) => {
                self.done.push(number);
                Sent::Taken
            }
            Err(error) => Sent::Failed(error.to_string()),
        }
    }

    fn poll(&mut self, _wait: Duration, reports: &mut Vec<Report>) {
        let arrived = |number| Report { number, fate: Fate::Arrived };
        reports.extend(self.done.drain(..).map(arrived));
    }

    fn in_flight_max(&self) -> usize {
        // Each is written before the next: this is how many are written before reports are taken.
        1000
    }
}

/// `local0` (RFC 5424, 6.2.1).
const FACILITY: u8 = 16;

fn write_message(out: &mut Vec<u8>, event: &Event, host: &str) {
    let severity = match event.severity {
        Some(Severity::Critical) => 2,
        Some(Severity::High) => 3,
        Some(Severity::Medium) => 4,
        Some(Severity::Low) => 5,
        None => 6,
    };
    // RFC 5424, 6.2.3: no more than microseconds.
    let time = event.time.to_string();
    let time = &time[..time.len().saturating_sub(4)];
    let kind = event.kind_name;
    let priority = FACILITY * 8 + severity;
    let head = format!("<{priority}>1 {time}Z {host} keywatch {} {kind} - ", std::process::id());
    out.clear();
    // Writing to memory never fails.
    let _ = write!(out, "{} {head}", head.len() + event.body.len());
    out.extend_from_slice(&event.body);
}

/// RFC 5424, 6: printable ASCII without spaces, at most 255.
fn name(host: &str) -> String {
    let legal: String = host.chars().filter(|c| c.is_ascii_graphic()).take(255).collect();
    if legal.is_empty() { "-".into() } else { legal }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sinks::event::tests::alert;

    #[test]
    fn messages_are_counted_and_dated() {
        let event = Event {
            severity: Some(Severity::High),
            kind_name: "keywatch.alert.cef.v1",
            time: alert(1).time,
            body: b"CEF:0|...".to_vec(),
            ..Event::default()
        };
        let mut line = Vec::new();
        write_message(&mut line, &event, &name("edge 1"));
        let text = String::from_utf8(line).unwrap();
        let (length, message) = text.split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(message.len()));
        let pid = std::process::id();
        assert_eq!(
            message,
            format!(
                "<131>1 2026-11-23T20:00:00.000000Z edge1 keywatch {pid} keywatch.alert.cef.v1 - \
                 CEF:0|..."
            )
        );
    }

    /// Reads messages until the other side ends.
    fn messages(stream: &mut impl Read) -> Vec<String> {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let mut rest = &bytes[..];
        let mut messages = Vec::new();
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            let Some(message) = rest.get(space + 1..space + 1 + length) else { break };
            messages.push(String::from_utf8(message.to_vec()).unwrap());
            rest = &rest[space + 1 + length..];
        }
        messages
    }

    #[test]
    fn alerts_arrive_in_order_also_when_the_server_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        // A port that nobody listens on yet.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let sinks = config::Sinks {
            syslog: config::Syslog {
                address: address.to_string(),
                flush_max: Duration::from_secs(60),
                ..config::Syslog::default()
            },
            spool: config::Spool { alerts_reserve_bytes: 1 << 20, ..config::Spool::default() },
            ..config::Sinks::default()
        };
        let mut sink = open(&sinks, dir.path(), "edge", WhenFull::Drop).unwrap();
        for number in 0..50 {
            sink.alert(&alert(number)).unwrap();
        }
        let listener = TcpListener::bind(address).unwrap();
        let server = std::thread::spawn(move || messages(&mut listener.accept().unwrap().0));
        sink.finish().unwrap();
        drop(sink);
        let got = server.join().unwrap();
        assert_eq!(got.len(), 50);
        for (number, message) in got.iter().enumerate() {
            assert!(message.contains(&format!("externalId=a_{number:016x}.2 ")), "{message}");
        }
    }
}
