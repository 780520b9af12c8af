//! Wireshark's test captures: tshark with the same keys is the oracle.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::ndpi::is_capture;
use super::replayed::{self, Replayed};
use super::row::{Row, difference};
use super::tshark::{self, Settings};
use super::{Score, entries};
use crate::setup;

/// Where gRPC is in these captures.
const GRPC_PORT: u16 = 50051;

/// Scores every capture: the multiset of method, target and status of HTTP/1, HTTP/2 and gRPC, and
/// whether there are WebSocket messages.
pub(super) fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    if setup::find("tshark").is_none() {
        println!("conformance: wireshark is left out: no tshark (mend: apt-get install tshark)");
        return Ok(score);
    }
    for capture in entries(dir)?.iter().filter(|path| is_capture(path)) {
        let name = replayed::name(capture);
        let scratch = tempfile::tempdir()?;
        let keylog = keylog(capture, scratch.path())?;
        let replayed = replayed::replay(capture, keylog.as_deref())?;
        let ports = http2_ports(&replayed);
        let settings = Settings { keylog: keylog.as_deref(), http2_ports: &ports };
        let expected = tshark::read(capture, &settings)?;
        let rows = replayed.calls.iter().filter_map(Row::of);
        // tshark shows no row for a stream of which only content was captured.
        let seen: Vec<Row> = rows.filter(|row| !row.is_blank()).collect();
        let websocket =
            replayed.calls.iter().filter(|call| call["protocol"] == "websocket").count();
        let unread = expected.whole && replayed.exit != Some(0);
        let fault = replayed.fault().or_else(|| unread.then(|| replayed.said.trim().to_owned()));
        let how = fault.or_else(|| difference(&seen, &expected.rows)).or_else(|| {
            let frames = expected.websocket_frames;
            (websocket > frames).then(|| format!("{websocket} messages in {frames} frames"))
        });
        match how {
            None => score.agree(),
            Some(how) => score.disagree(&name, &how),
        }
    }
    Ok(score)
}

/// tshark looks for HTTP/2 in plain TCP where it is told to. It is told wherever Keywatch sees any,
/// and has its own view of what is there.
fn http2_ports(replayed: &Replayed) -> BTreeSet<u16> {
    let ports_of = |wanted: &dyn Fn(&str, &Value) -> bool| -> BTreeSet<u16> {
        let calls = replayed.calls.iter();
        let plain = calls.filter(|call| {
            call["flow"]["tls"] != true
                && call["protocol"].as_str().is_some_and(|it| wanted(it, call))
        });
        plain.filter_map(server_port).collect()
    };
    // gRPC-Web over HTTP/1: no stream.
    let is_web = |protocol: &str, call: &Value| protocol == "grpc" && call["stream_id"].is_null();
    let http1 =
        ports_of(&|protocol, call| protocol.starts_with("http/1") || is_web(protocol, call));
    let mut ports = ports_of(&|protocol, call| {
        matches!(protocol, "http/2" | "grpc") && !is_web(protocol, call)
    });
    // An upgrade begins as HTTP/1, and tshark follows it.
    ports.retain(|port| !http1.contains(port));
    ports.insert(GRPC_PORT);
    ports
}

fn server_port(call: &Value) -> Option<u16> {
    Some(call["flow"]["server"].as_str()?.parse::<SocketAddr>().ok()?.port())
}

/// The secrets that go with a capture, in one file: those of its own name, else those whose name
/// begins with it.
fn keylog(capture: &Path, scratch: &Path) -> Result<Option<PathBuf>> {
    let dir = capture.with_file_name("keys");
    if !dir.is_dir() {
        return Ok(None);
    }
    let stem = stem(capture);
    let files = entries(&dir)?;
    let own: Vec<&PathBuf> = files.iter().filter(|file| self::stem(file) == stem).collect();
    let kin = || files.iter().filter(|file| is_kin(&self::stem(file), &stem)).collect();
    let chosen: Vec<&PathBuf> = if own.is_empty() { kin() } else { own };
    if chosen.is_empty() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    for file in chosen {
        lines.extend(fs::read(file)?);
        lines.push(b'\n');
    }
    let keylog = scratch.join("keylog");
    fs::write(&keylog, lines)?;
    Ok(Some(keylog))
}

fn stem(path: &Path) -> String {
    let name = replayed::name(path);
    name.split('.').next().unwrap_or_default().to_owned()
}

fn is_kin(keys: &str, capture: &str) -> bool {
    keys.strip_prefix(capture).is_some_and(|rest| rest.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).unwrap();
        for name in ["a.keys", "a-2.keys", "b_keylog.dat", "c.keys"] {
            fs::write(keys.join(name), name).unwrap();
        }
        let read = |capture: &str| {
            let file = keylog(&dir.path().join(capture), dir.path()).unwrap();
            file.map(|file| fs::read_to_string(file).unwrap())
        };
        assert_eq!(read("a.pcap").as_deref(), Some("a.keys\n"));
        assert_eq!(read("b.pcapng.gz").as_deref(), Some("b_keylog.dat\n"));
        assert_eq!(read("d.pcap"), None);
    }

    #[test]
    fn tshark_is_told_where_http2_is() {
        let call = |protocol: &str, port: u16| {
            serde_json::json!({"protocol": protocol,
                               "flow": {"tls": false, "server": format!("10.0.0.1:{port}")}})
        };
        let calls =
            vec![call("http/2", 3000), call("http/1.1", 80), call("http/2", 80), call("grpc", 81)];
        let replayed = Replayed {
            calls,
            connections: vec![],
            summary: Value::Null,
            exit: Some(0),
            said: String::new(),
        };
        assert_eq!(http2_ports(&replayed), [3000, GRPC_PORT].into());
    }
}
