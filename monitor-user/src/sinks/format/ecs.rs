//! Elastic Common Schema (<https://www.elastic.co/docs/reference/ecs>). Fields of our own stand under
//! `keywatch`.

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::{ApiCall, Outcome};
use serde_json::{Map, Value, json};

use super::{PRODUCT, VERSION, Whom, operation, percent};

/// Version of the schema that is followed.
const ECS: &str = "8.17.0";

/// An alert: `event.kind` is `alert`.
pub(super) fn alert(alert: &Alert, id: &str) -> Value {
    let whom = Whom::of(alert);
    let of = |pick: fn(&monitor_core::alert::Finding) -> &[std::borrow::Cow<'static, str>]| {
        let mut all: Vec<&str> = Vec::new();
        for one in alert.findings.iter().flat_map(pick) {
            if !all.contains(&one.as_ref()) {
                all.push(one);
            }
        }
        all
    };
    let mut record = json!({
        "@timestamp": alert.time,
        "ecs": { "version": ECS },
        "message": alert.explanation,
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection"],
            "type": ["info"],
            "module": "keywatch",
            "dataset": "keywatch.alert",
            "id": id,
            "severity": severity(alert.severity),
            "risk_score": percent(alert.confidence),
            "start": alert.first_seen,
            "end": alert.last_seen,
            "reason": alert.explanation,
        },
        "host": { "name": alert.host },
        "observer": { "vendor": PRODUCT, "product": PRODUCT, "version": VERSION },
        "keywatch": { "alert": alert },
    });
    if let Some(strongest) = alert.findings.first() {
        record["rule"] = json!({ "id": strongest.detector, "name": strongest.name });
    }
    let techniques = of(|finding| &finding.attack);
    if !techniques.is_empty() {
        record["threat"] =
            json!({ "framework": "MITRE ATT&CK", "technique": { "id": techniques } });
    }
    if let Some(key) = &whom.key {
        record["user"] = json!({ "id": key });
    }
    if let Some(group) = &whom.group {
        record["group"] = json!({ "id": group });
    }
    if let Some(address) = &whom.address {
        record["source"] = json!({ "ip": address, "address": address });
    } else if let Some(network) = &whom.network {
        record["source"] = json!({ "address": network });
    }
    record
}

/// A call: `event.category` is `api` and `web`.
pub(super) fn call(call: &ApiCall, id: &str, host: &str) -> Value {
    let flow = &call.flow;
    let end = |endpoint: &monitor_core::input::Endpoint| json!({ "ip": endpoint.ip(), "address": endpoint.ip(), "port": endpoint.port });
    let mut record = json!({
        "@timestamp": call.time,
        "ecs": { "version": ECS },
        "event": {
            "kind": "event",
            "category": ["api", "web"],
            "type": ["access"],
            "module": "keywatch",
            "dataset": "keywatch.call",
            "id": id,
            "action": operation(call),
            "outcome": outcome(call.outcome),
        },
        "host": { "name": host },
        "observer": { "vendor": PRODUCT, "product": PRODUCT, "version": VERSION },
        "source": end(&flow.client),
        "destination": end(&flow.server),
        "network": { "transport": "tcp", "protocol": network_protocol(call) },
        "keywatch": { "call": call },
    });
    if let Some(latency_us) = call.latency_us {
        record["event"]["duration"] = json!(latency_us.saturating_mul(1000));
    }
    if let Some(key) = &call.key {
        record["user"] = json!({ "id": key.id });
    }
    let mut http = Map::new();
    if let Some(request) = &call.request {
        let mut asked = json!({ "body": { "bytes": request.body_bytes } });
        if !request.method.is_empty() {
            asked["method"] = json!(request.method);
        }
        http.insert("request".into(), asked);
        let mut url = Map::new();
        if !request.target.is_empty() {
            url.insert("original".into(), json!(request.target));
        }
        if !request.path.is_empty() {
            url.insert("path".into(), json!(request.path));
        }
        if let Some(domain) = &request.host {
            url.insert("domain".into(), json!(domain));
        }
        if !url.is_empty() {
            record["url"] = Value::Object(url);
        }
        if let Some(agent) = &request.user_agent {
            record["user_agent"] = json!({ "original": agent });
        }
    }
    if let Some(response) = &call.response {
        let mut answered = json!({ "body": { "bytes": response.body_bytes } });
        if let Some(status) = response.status {
            answered["status_code"] = json!(status);
        }
        http.insert("response".into(), answered);
    }
    if !http.is_empty() {
        record["http"] = Value::Object(http);
    }
    if let Some(client) = &flow.proxied_for {
        record["client"] = end(client);
    }
    if flow.tls {
        let mut client = Map::new();
        if let Some(name) = &flow.server_name {
            client.insert("server_name".into(), json!(name));
        }
        record["tls"] = json!({ "established": true, "client": client });
    }
    record
}

/// The schema leaves the scale to its user; Elastic's own rules use these.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

fn outcome(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "unknown",
        Some(Outcome::Ok) => "success",
        Some(_) => "failure",
    }
}

fn network_protocol(call: &ApiCall) -> &'static str {
    match call.protocol.as_str() {
        http if http.starts_with("http/") => "http",
        other => other,
    }
}
