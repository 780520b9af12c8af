//! Keywatch's records under the names of Suricata's EVE log.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::replayed::Replayed;

/// One record: EVE name in dotted form, value.
pub(super) type Record = Map<String, Value>;

/// Everything that Suricata would log of what was seen.
pub(super) fn records(replayed: &Replayed) -> Vec<Record> {
    let calls = replayed.calls.iter().filter_map(http);
    let connections = replayed.connections.iter().flat_map(|connection| {
        let summaries = [tls(connection), http2_settings(connection)];
        summaries.into_iter().flatten().chain(websocket(connection))
    });
    calls.chain(connections).collect()
}

/// A call of any version of HTTP; a WebSocket message is none.
fn http(call: &Value) -> Option<Record> {
    let protocol = call["protocol"].as_str()?;
    let version = match protocol {
        "grpc" => "2",
        _ => protocol.strip_prefix("http/")?,
    };
    let (request, response) = (&call["request"], &call["response"]);
    let mut record = begin("http", &call["flow"]);
    let mut set = |name: &str, value: Value| put(&mut record, &format!("http.{name}"), value);
    set("http_method", request["method"].clone());
    set("url", request["target"].clone());
    set("http_user_agent", request["user_agent"].clone());
    set("status", response["status"].clone());
    set("length", response["body_bytes"].as_u64().unwrap_or(0).into());
    if let Some(host) = request["host"].as_str() {
        let (name, port) = split_host(host);
        set("hostname", name.into());
        set("http_port", port.map_or(Value::Null, Into::into));
    }
    if version == "2" {
        set("version", version.into());
        set("http2.stream_id", call["stream_id"].clone());
    } else {
        set("protocol", format!("HTTP/{version}").into());
    }
    Some(record)
}

/// What both ends of an HTTP/2 connection said of themselves: Suricata logs it as stream 0.
fn http2_settings(connection: &Value) -> Option<Record> {
    let http2 = connection.get("http2").filter(|it| it.is_object())?;
    let mut record = begin("http", &connection["flow"]);
    put(&mut record, "http.http2.stream_id", json!(0));
    for (side, name) in [("request", "client"), ("response", "server")] {
        let end = &http2[name];
        let settings = end["settings"].as_array().into_iter().flatten();
        for (at, setting) in settings.enumerate() {
            let name = format!("http.http2.{side}.settings[{at}]");
            put(&mut record, &format!("{name}.settings_id"), setting_name(&setting["name"]));
            put(&mut record, &format!("{name}.settings_value"), setting["value"].clone());
        }
        put(&mut record, &format!("http.http2.{side}.error_code"), upper(&end["goaway"]));
    }
    Some(record)
}

/// `max_concurrent_streams` is SETTINGSMAXCONCURRENTSTREAMS.
fn setting_name(name: &Value) -> Value {
    let upper = upper(name);
    upper.as_str().map_or(Value::Null, |name| format!("SETTINGS{name}").into())
}

/// `no_error` is NOERROR.
fn upper(name: &Value) -> Value {
    match name.as_str() {
        Some(name) => name.replace('_', "").to_uppercase().into(),
        None => Value::Null,
    }
}

/// A TLS handshake.
fn tls(connection: &Value) -> Option<Record> {
    let tls = connection.get("tls").filter(|it| it.is_object())?;
    let certificate = &tls["certificate"];
    let mut record = begin("tls", &connection["flow"]);
    let mut set = |name: &str, value: Value| put(&mut record, &format!("tls.{name}"), value);
    set("version", tls["version"].clone());
    set("sni", tls["server_name"].clone());
    set("ja3.hash", tls["ja3"].clone());
    set("ja4", tls["ja4"].clone());
    set("subject", certificate["subject"].clone());
    set("issuerdn", certificate["issuer"].clone());
    set("serial", certificate["serial"].clone());
    set("fingerprint", certificate["fingerprint"].clone());
    set("notbefore", certificate["not_before"].clone());
    set("notafter", certificate["not_after"].clone());
    Some(record)
}

/// Frames of a WebSocket connection, as many as were counted.
fn websocket(connection: &Value) -> Vec<Record> {
    let summary = &connection["websocket"];
    let mut records = Vec::new();
    for side in ["client", "server"] {
        for opcode in ["text", "binary", "continuation", "close", "ping", "pong"] {
            let frames = summary[side][opcode]["frames"].as_u64().unwrap_or(0);
            for _ in 0..frames.min(FRAMES_MAX) {
                let mut record = begin("websocket", &connection["flow"]);
                put(&mut record, "websocket.opcode", opcode.into());
                records.push(record);
            }
        }
    }
    records
}

/// More frames of a kind than any expectation counts.
const FRAMES_MAX: u64 = 10_000;

fn begin(event_type: &str, flow: &Value) -> Record {
    let mut record = Record::new();
    put(&mut record, "event_type", event_type.into());
    put(&mut record, "proto", "TCP".into());
    for (side, name) in [("client", "src"), ("server", "dest")] {
        let address = flow[side].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(address) = address {
            put(&mut record, &format!("{name}_ip"), address.ip().to_string().into());
            put(&mut record, &format!("{name}_port"), address.port().into());
        }
    }
    record
}

/// What was not seen is not there.
fn put(record: &mut Record, name: &str, value: Value) {
    if !value.is_null() {
        record.insert(name.to_owned(), value);
    }
}

/// An address in its one canonical form; other texts as they are.
pub(super) fn canonical(value: &Value) -> Value {
    match value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(ip) => ip.to_string().into(),
        None => value.clone(),
    }
}

/// Name and port of a Host header.
fn split_host(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse().ok())
        }
        Some(_) | None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_an_http_event() {
        let call = json!({
            "flow": {"client": "[fe80::1]:5", "server": "10.0.0.1:80"},
            "protocol": "http/1.1",
            "request": {"method": "GET", "target": "/a", "host": "b:8080", "user_agent": null},
            "response": null,
        });
        let record = http(&call).unwrap();
        assert_eq!(record["src_ip"], "fe80::1");
        assert_eq!(record["dest_port"], 80);
        assert_eq!(record["http.hostname"], "b");
        assert_eq!(record["http.http_port"], 8080);
        assert_eq!(record["http.protocol"], "HTTP/1.1");
        assert!(
            !record.contains_key("http.status") && !record.contains_key("http.http_user_agent")
        );
    }

    #[test]
    fn hosts_lose_their_port() {
        assert_eq!(split_host("[::1]"), ("[::1]", None));
        assert_eq!(split_host("[::1]:80"), ("[::1]", Some(80)));
        assert_eq!(split_host("a.b"), ("a.b", None));
        assert_eq!(split_host("::1"), ("::1", None));
    }

    #[test]
    fn names_of_http2_lose_their_underscores() {
        assert_eq!(setting_name(&json!("max_concurrent_streams")), "SETTINGSMAXCONCURRENTSTREAMS");
        assert_eq!(upper(&json!("no_error")), "NOERROR");
    }
}
