//! What a Kafka record carries beside its JSON: the key that orders it, and CloudEvents headers.

use monitor_core::alert::{Alert, Entity};
use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;
use rdkafka::message::{Header, OwnedHeaders};

/// Records of one entity have one key, and so stay in order on one partition.
pub(super) fn alert_key(alert: &Alert) -> String {
    match alert.entity {
        Entity::Key(id) => id.to_string(),
        Entity::Client(ip) => ip.to_string(),
        Entity::Network(ip) if ip.is_ipv4() => format!("{ip}/24"),
        Entity::Network(ip) => format!("{ip}/48"),
        Entity::Host => alert.host.clone(),
    }
}

/// Headers of an alert. Each revision is an event of its own.
pub(super) fn alert_headers(alert: &Alert) -> OwnedHeaders {
    let id = format!("{}.{}", alert.id, alert.revision);
    headers(&id, &source(&alert.host), "keywatch.alert.v1", alert.time)
}

/// Headers of a call. `ordinal` tells apart calls that one packet carried.
pub(super) fn call_headers(call: &ApiCall, source: &str, ordinal: u64) -> OwnedHeaders {
    let id = format!("{}.{}.{ordinal}", call.flow.id, call.time.0);
    headers(&id, source, "keywatch.call.v1", call.time)
}

/// Where records come from, as CloudEvents wants it: a URI reference.
pub(super) fn source(host: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-._~".contains(c) { c } else { '_' };
    format!("/keywatch/{}", host.chars().map(legal).collect::<String>())
}

/// CloudEvents 1.0, Kafka protocol binding, binary content mode (3.2).
fn headers(id: &str, source: &str, kind: &str, time: EventTime) -> OwnedHeaders {
    let time = time.to_string();
    [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", source),
        ("ce_type", kind),
        ("ce_time", &time),
    ]
    .into_iter()
    .fold(OwnedHeaders::new_with_capacity(6), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use monitor_core::alert::{AlertId, Severity};
    use monitor_core::call::KeyId;
    use rdkafka::message::Headers;

    use super::*;

    /// An alert with this number.
    pub(in super::super) fn alert(number: u64) -> Alert {
        Alert {
            id: AlertId(number),
            revision: 2,
            time: EventTime(1_795_464_000_000_000_000),
            severity: Severity::High,
            confidence: 0.9,
            entity: Entity::Key(KeyId(7)),
            title: "Key used from a new network".into(),
            explanation: String::new(),
            first_step: "Lock the key.".into(),
            findings: Vec::new(),
            first_seen: EventTime(0),
            last_seen: EventTime(0),
            flows: Vec::new(),
            calls: 1,
            complete: true,
            host: "edge 1".into(),
        }
    }

    #[test]
    fn every_entity_has_a_key() {
        let key = |entity| alert_key(&Alert { entity, ..alert(1) });
        assert_eq!(key(Entity::Key(KeyId(7))), "k_00000000000000000000000000000007");
        assert_eq!(key(Entity::Client("2001:db8::1".parse().unwrap())), "2001:db8::1");
        assert_eq!(key(Entity::Network("192.0.2.0".parse().unwrap())), "192.0.2.0/24");
        assert_eq!(key(Entity::Network("2001:db8::".parse().unwrap())), "2001:db8::/48");
        assert_eq!(key(Entity::Host), "edge 1");
    }

    #[test]
    fn headers_are_those_of_a_cloud_event() {
        let headers = alert_headers(&alert(0xab));
        let shown: Vec<_> = headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                (header.key.to_owned(), value)
            })
            .collect();
        let expected = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", "a_00000000000000ab.2"),
            ("ce_source", "/keywatch/edge_1"),
            ("ce_type", "keywatch.alert.v1"),
            ("ce_time", "2026-11-23T20:00:00.000000000Z"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(shown, expected);
    }
}
