//! suricata-verify: each expectation names fields of Suricata's EVE log and how many records have
//! them. What Keywatch has under another name is compared; what only Suricata's rule engine, its
//! bookkeeping or its other parsers could say is left out, and counted by its reason.
//!
//! The expectations of a case come from runs under several versions and settings. Where these
//! disagree with each other, each of the counts is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::eve::{self, Record};
use super::row::redacted;
use super::{Score, folders, replayed};

/// One expectation.
#[derive(Deserialize)]
struct Check {
    count: u64,
    #[serde(rename = "match")]
    fields: Map<String, Value>,
}

/// What to look for: fields in dotted form, how often they may be found, and whether fields were
/// left out of it, so that more records may have what is left.
struct Wanted {
    fields: Map<String, Value>,
    counts: BTreeSet<u64>,
    weakened: bool,
}

/// Scores every case of which something can be compared.
pub(super) fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    let mut left_out: BTreeMap<&'static str, usize> = BTreeMap::new();
    for case in folders(dir)? {
        let name = replayed::name(&case);
        let expected = fs::read(case.join("expected.json")).with_context(|| name.clone())?;
        let checks: Vec<Check> = serde_json::from_slice(&expected).with_context(|| name.clone())?;
        let wanted = wanted(&checks, &mut left_out);
        if wanted.is_empty() {
            *left_out.entry("cases of which nothing is left").or_default() += 1;
            continue;
        }
        let replayed = replayed::replay(&replayed::capture_of(&case)?, None)?;
        let records = eve::records(&replayed);
        let missed: Vec<String> =
            wanted.iter().filter_map(|wanted| wanted.missed(&records)).collect();
        match replayed.unread() {
            None if missed.is_empty() => score.agree(),
            fault => {
                let mut how = missed.join("");
                how.extend(fault.map(|fault| format!("\n  {fault}")));
                score.disagree(&name, &how);
            }
        }
    }
    for (what, count) in left_out {
        println!("suricata-verify: left out: {what}: {count}");
    }
    Ok(score)
}

impl Wanted {
    /// How the records fall short, if they do.
    fn missed(&self, records: &[Record]) -> Option<String> {
        let found = records.iter().filter(|record| self.fits(record)).count() as u64;
        let fits = if self.weakened {
            self.counts.iter().any(|count| found >= *count)
        } else {
            self.counts.contains(&found)
        };
        if fits {
            return None;
        }
        let event_type = &self.fields["event_type"];
        let close: Vec<String> = records
            .iter()
            .filter(|record| record.get("event_type") == Some(event_type))
            .take(CLOSE_MAX)
            .map(|record| format!("\n    {}", Value::Object(record.clone())))
            .collect();
        Some(format!(
            "\n  {found} seen, {:?} expected: {}{}",
            self.counts,
            Value::Object(self.fields.clone()),
            close.concat()
        ))
    }

    fn fits(&self, record: &Record) -> bool {
        self.fields.iter().all(|(name, value)| record.get(name) == Some(value))
    }
}

/// Records shown of those that could have been meant.
const CLOSE_MAX: usize = 4;

/// What is left of the expectations of a case.
fn wanted(checks: &[Check], left_out: &mut BTreeMap<&'static str, usize>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for check in checks {
        let mut all = Map::new();
        flatten("", &check.fields, &mut all);
        let event_type = all.get("event_type").and_then(Value::as_str).unwrap_or_default();
        if !EVENT_TYPES.contains(&event_type) {
            *left_out.entry("events of which Keywatch has none").or_default() += 1;
            continue;
        }
        let (mut fields, mut reasons) = (Map::new(), BTreeSet::new());
        for (name, value) in all {
            match reason_to_leave_out(&name) {
                Some(reason) => drop(reasons.insert(reason)),
                None => drop(fields.insert(name, value)),
            }
        }
        for reason in &reasons {
            *left_out.entry(reason).or_default() += 1;
        }
        let weakened = !reasons.is_empty();
        // None may have them all: without one of them that says nothing.
        if weakened && (check.count == 0 || fields.len() <= 1) {
            continue;
        }
        redact(&mut fields);
        match wanted.iter_mut().find(|it| it.fields == fields && it.weakened == weakened) {
            Some(same) => drop(same.counts.insert(check.count)),
            None => wanted.push(Wanted { fields, counts: [check.count].into(), weakened }),
        }
    }
    wanted
}

const EVENT_TYPES: [&str; 3] = ["http", "tls", "websocket"];

/// Fields that Keywatch's records have under another name.
const COMPARED: [&str; 30] = [
    "event_type",
    "proto",
    "src_ip",
    "src_port",
    "dest_ip",
    "dest_port",
    "http.hostname",
    "http.http_port",
    "http.url",
    "http.http_user_agent",
    "http.http_method",
    "http.protocol",
    "http.version",
    "http.status",
    "http.length",
    "http.http2.stream_id",
    "http.http2.request.error_code",
    "http.http2.response.error_code",
    "tls.version",
    "tls.sni",
    "tls.subject",
    "tls.issuerdn",
    "tls.serial",
    "tls.fingerprint",
    "tls.notbefore",
    "tls.notafter",
    "tls.ja3.hash",
    "tls.ja3.string",
    "tls.ja4",
    "websocket.opcode",
];

fn reason_to_leave_out(name: &str) -> Option<&'static str> {
    let settings = ["http.http2.request.settings[", "http.http2.response.settings["];
    if COMPARED.contains(&name) || settings.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    Some(if starts(&["tx_id", "pcap_cnt", "pkt_src", "flow_id", "community_id"]) {
        "fields of Suricata's bookkeeping"
    } else if starts(&["metadata", "alert", "flow", "stats", "anomaly", "fileinfo", "files"]) {
        "fields of Suricata's rule engine and limits"
    } else if starts(&["vlan"]) {
        "fields of the link layer"
    } else if starts(&["http.request_headers", "http.response_headers", "http.http_"]) {
        "header fields that no call keeps"
    } else {
        "other fields that no record has"
    })
}

/// `{"http": {"url": ..}}` and `{"http.url": ..}` are the same.
fn flatten(prefix: &str, fields: &Map<String, Value>, flat: &mut Map<String, Value>) {
    for (name, value) in fields {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(inner) => flatten(&format!("{name}."), inner, flat),
            Value::String(_) if name.ends_with("_ip") => {
                flat.insert(name, eve::canonical(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                flat.insert(name, value.clone());
            }
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for (at, item) in items.iter().enumerate() {
                    if let Value::Object(inner) = item {
                        flatten(&format!("{name}[{at}]."), inner, flat);
                    }
                }
            }
            Value::Array(_) => {
                flat.insert(name, value.clone());
            }
        }
    }
}

fn redact(fields: &mut Map<String, Value>) {
    let method = fields.get("http.http_method").and_then(Value::as_str).unwrap_or("GET").to_owned();
    if let Some(Value::String(url)) = fields.get_mut("http.url") {
        *url = redacted(&method, url);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checks(value: Value) -> Vec<Check> {
        serde_json::from_value(value).unwrap()
    }

    fn record(value: Value) -> Record {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn nested_and_dotted_fields_are_the_same() {
        let checks = checks(json!([
            {"count": 1, "match": {"event_type": "http", "http": {"url": "/", "status": 200}}},
            {"count": 2, "match": {"event_type": "http", "http.url": "/", "http.status": 200}},
        ]));
        let wanted = wanted(&checks, &mut BTreeMap::new());
        assert_eq!(wanted.len(), 1);
        let seen = record(json!({"event_type": "http", "http.url": "/", "http.status": 200}));
        assert_eq!(wanted[0].missed(std::slice::from_ref(&seen)), None, "either count is right");
        assert_eq!(wanted[0].missed(&[seen.clone(), seen.clone()]), None);
        assert!(wanted[0].missed(&[]).is_some());
        assert!(wanted[0].missed(&[seen.clone(), seen.clone(), seen]).is_some());
    }

    #[test]
    fn what_only_suricata_knows_is_left_out_and_counted() {
        let checks = checks(json!([
            {"count": 1, "match": {"event_type": "http", "tx_id": 0, "http.status": 200}},
            {"count": 0, "match": {"event_type": "http", "tx_id": 1, "http.status": 200}},
            {"count": 1, "match": {"event_type": "alert"}},
        ]));
        let mut left_out = BTreeMap::new();
        let wanted = wanted(&checks, &mut left_out);
        assert_eq!(wanted.len(), 1);
        let seen = record(json!({"event_type": "http", "http.status": 200}));
        assert_eq!(wanted[0].missed(&[seen.clone(), seen]), None, "one of them may be meant");
        assert!(wanted[0].missed(&[]).is_some());
        assert_eq!(left_out["fields of Suricata's bookkeeping"], 2);
        assert_eq!(left_out["events of which Keywatch has none"], 1);
    }

    #[test]
    fn addresses_have_one_form() {
        let mut flat = Map::new();
        let fields = record(json!({"src_ip": "fe80:0000:0000:0000:020c:29ff:faf2:ab42"}));
        flatten("", &fields, &mut flat);
        assert_eq!(flat["src_ip"], "fe80::20c:29ff:faf2:ab42");
    }
}
