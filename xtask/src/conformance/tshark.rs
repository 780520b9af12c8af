//! tshark as an oracle: what it reads out of a capture in two passes, as rows of HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::row::{Row, redacted};

/// What tshark reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Requests with their responses.
    pub(super) rows: Vec<Row>,
    /// WebSocket frames.
    pub(super) websocket_frames: usize,
    /// The file was read to its end.
    pub(super) whole: bool,
}

/// How to read.
pub(super) struct Settings<'a> {
    /// NSS key log.
    pub(super) keylog: Option<&'a Path>,
    /// Ports whose TCP payload is HTTP/2 from the first byte: it does not look for it by itself.
    pub(super) http2_ports: &'a BTreeSet<u16>,
}

/// Reads a capture, or as far as it can be read.
pub(super) fn read(capture: &Path, settings: &Settings<'_>) -> Result<Reading> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-2", "-T", "pdml", "-r"]).arg(capture);
    // As its own tests do for captures out of order.
    tshark.args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
    for port in settings.http2_ports {
        tshark.args(["-d", &format!("tcp.port=={port},http2")]);
    }
    if let Some(keylog) = settings.keylog {
        tshark.args(["-o", &format!("tls.keylog_file:{}", keylog.display())]);
    }
    let output = tshark.stdin(Stdio::null()).output().context("starting tshark")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let reading = Reading::of(text.lines().filter_map(field));
    Ok(Reading { whole: output.status.success(), ..reading })
}

/// Name and value of a line of its XML, which has a field on each.
fn field(line: &str) -> Option<(&str, String)> {
    let name = attribute(line, "name=\"")?;
    Some((name, unescaped(attribute(line, " show=\"").unwrap_or_default())))
}

fn attribute<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(start)?;
    rest.split_once('"').map(|(value, _)| value)
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Requests and responses of a connection or stream, in order.
#[derive(Default)]
struct Exchange {
    requests: Vec<(String, String)>,
    statuses: Vec<String>,
}

impl Reading {
    /// From fields in order of the file.
    fn of<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> Reading {
        let mut websocket_frames = 0;
        let mut exchanges: BTreeMap<(u64, Option<u64>), Exchange> = BTreeMap::new();
        let (mut tcp, mut stream) = (0, None);
        let mut method = None;
        // In HTTP/2 it may come before the method.
        let mut path = None;
        for (name, value) in fields {
            match name {
                "tcp.stream" => (tcp, stream) = (value.parse().unwrap_or(0), None),
                // The protocol's own line, before its fields.
                "http" => stream = None,
                "http2.streamid" => (stream, method, path) = (value.parse().ok(), None, None),
                "http.request.method" => method = Some(value),
                "http2.headers.method" => match path.take() {
                    Some(path) => {
                        let exchange = exchanges.entry((tcp, stream)).or_default();
                        exchange.requests.push((value, path));
                    }
                    None => method = Some(value),
                },
                "http.request.uri" | "http2.headers.path" => {
                    let exchange = exchanges.entry((tcp, stream)).or_default();
                    match method.take() {
                        Some(method) => exchange.requests.push((method, value)),
                        None if stream.is_some() => path = Some(value),
                        None => {}
                    }
                }
                "http2.headers.authority" if method.as_deref() == Some("CONNECT") => {
                    let exchange = exchanges.entry((tcp, stream)).or_default();
                    exchange.requests.extend(method.take().map(|method| (method, value)));
                }
                "http.response.code" | "http2.headers.status" => {
                    // What is only on the way to an answer is none.
                    let interim = value.len() == 3 && value.starts_with('1') && value != "101";
                    if !interim {
                        exchanges.entry((tcp, stream)).or_default().statuses.push(value);
                    }
                }
                "websocket.opcode" => websocket_frames += 1,
                _ => {}
            }
        }
        let rows = exchanges.into_values().flat_map(Exchange::rows).collect();
        Reading { rows, websocket_frames, whole: false }
    }
}

impl Exchange {
    fn rows(self) -> Vec<Row> {
        let none = || "-".to_owned();
        let count = self.requests.len().max(self.statuses.len());
        let (mut requests, mut statuses) = (self.requests.into_iter(), self.statuses.into_iter());
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let status = statuses.next().unwrap_or_else(none);
            rows.push(match requests.next() {
                Some((method, target)) => {
                    Row { target: redacted(&method, &target), method, status }
                }
                None => Row { method: none(), target: none(), status },
            });
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Reading {
        Reading::of(lines.iter().filter_map(|line| field(line)))
    }

    #[test]
    fn responses_go_to_requests_in_order() {
        let reading = read(&[
            r#"<field name="tcp.stream" showname="x" size="0" pos="34" show="0"/>"#,
            r#"<proto name="http" showname="x">"#,
            r#"<field name="http.request.method" size="3" pos="54" show="GET" value="474554"/>"#,
            r#"<field name="http.request.uri" size="3" pos="54" show="/?a&amp;b" value="2f"/>"#,
            r#"<field name="tcp.stream" show="0"/>"#,
            r#"<field name="http.response.code" show="100"/>"#,
            r#"<field name="http.response.code" show="200"/>"#,
            r#"<field name="tcp.stream" show="1"/>"#,
            r#"<field name="http.response.code" show="404"/>"#,
        ]);
        let rows: Vec<String> = reading
            .rows
            .iter()
            .map(|row| format!("{} {} {}", row.method, row.target, row.status))
            .collect();
        assert_eq!(rows, ["GET /?a&b 200", "- - 404"]);
    }

    #[test]
    fn streams_of_a_connection_are_apart() {
        let reading = read(&[
            r#"<field name="tcp.stream" show="0"/>"#,
            r#"<field name="http2.streamid" show="3"/>"#,
            r#"<field name="http2.headers.method" show="POST"/>"#,
            r#"<field name="http2.headers.path" show="/b"/>"#,
            r#"<field name="http2.streamid" show="1"/>"#,
            r#"<field name="http2.headers.path" show="/a"/>"#,
            r#"<field name="http2.headers.method" show="GET"/>"#,
            r#"<field name="http2.streamid" show="3"/>"#,
            r#"<field name="http2.headers.status" show="201"/>"#,
        ]);
        let statuses: Vec<&str> = reading.rows.iter().map(|row| &*row.status).collect();
        assert_eq!(statuses, ["-", "201"]);
    }
}
