//! Every record of every case folder, and some that no folder has, in every form: each fits its schema.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use monitor_core::alert::{Alert, AlertId, Entity, GroupId};
use monitor_core::call::ApiCall;
use serde_json::Value;

use super::*;
use crate::compact::tests::{bare, full};
use crate::sinks::event::Writer;
use crate::sinks::event::tests::alert;
use crate::sinks::record::{ActivityGap, Record};
use crate::sinks::spool::Gap;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Schemas by the type of event that they are for: `keywatch.alert.v1` is in `alert.v1.json`.
fn schemas() -> BTreeMap<String, Validator> {
    let folder = root().join("schemas");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let schema: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (format!("keywatch.{name}"), jsonschema::validator_for(&schema).unwrap())
        })
        .collect()
}

/// Calls and alerts that the case folders expect.
fn recorded() -> Vec<Record> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/cases")).unwrap() {
        let path = entry.unwrap().path().join("expected.jsonl");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for line in text.lines() {
            if let Ok(call) = serde_json::from_str::<ApiCall>(line) {
                records.push(Record::Call { call: Box::new(call), ordinal: records.len() as u64 });
            } else if let Ok(alert) = serde_json::from_str::<Alert>(line) {
                records.push(Record::Alert(Box::new(alert)));
            }
        }
    }
    assert!(records.len() > 200, "{}", records.len());
    assert!(records.iter().any(|record| matches!(record, Record::Alert(_))));
    records
}

fn folded() -> Alert {
    Alert { part_of: Some(Entity::Network("192.0.2.0".parse().unwrap())), ..alert(3) }
}

fn made_up() -> Vec<Record> {
    let entities = [
        Entity::Client("192.0.2.1".parse().unwrap()),
        Entity::Network("2001:db8::".parse().unwrap()),
        Entity::Network("192.0.2.0".parse().unwrap()),
        Entity::Group(GroupId(3)),
        Entity::Host,
    ];
    let mut records: Vec<Record> = entities
        .map(|entity| Alert { entity, id: AlertId(9), ..alert(1) })
        .into_iter()
        .chain([alert(1), Alert { findings: Vec::new(), revision: 0, ..alert(2) }, folded()])
        .map(|alert| Record::Alert(Box::new(alert)))
        .collect();
    for call in [full(), bare()] {
        records.push(Record::Call { call: Box::new(call), ordinal: 7 });
    }
    for gap in [
        Gap { calls: 0, times: None, reason: "the run before was killed" },
        Gap { calls: 5, times: Some((1, 2)), reason: "the spool is full" },
    ] {
        records.push(Record::Gap(ActivityGap::new(gap, "kafka", "edge")));
    }
    records
}

const JSON_FORMS: [Format; 3] = [Format::Ocsf, Format::Ecs, Format::Native];

#[test]
fn every_record_fits_its_schema() {
    let schemas = schemas();
    let mut used = BTreeMap::new();
    for record in recorded().iter().chain(&made_up()) {
        for format in JSON_FORMS {
            let mut event = Event::default();
            Writer::new(format, "edge").write(record.view(), &mut event);
            let schema = schemas.get(event.kind_name).expect(event.kind_name);
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            if let Err(error) = schema.validate(&body) {
                panic!("{}: {error} at {}: {body}", event.kind_name, error.instance_path());
            }
            *used.entry(event.kind_name.to_owned()).or_insert(0) += 1;
        }
    }
    let unused: Vec<_> = schemas.keys().filter(|name| !used.contains_key(*name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn schemas_refuse_what_is_not_in_them() {
    let schemas = schemas();
    for record in made_up() {
        for format in JSON_FORMS {
            let mut event = Event::default();
            Writer::new(format, "edge").write(record.view(), &mut event);
            let schema = &schemas[event.kind_name];
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            let mut more = body.clone();
            more["more"] = Value::Null;
            assert!(!schema.is_valid(&more), "{}", event.kind_name);
            for field in body.as_object().unwrap().keys() {
                let mut wrong = body.clone();
                wrong[field] = serde_json::json!({ "wrong": -0.5 });
                assert!(!schema.is_valid(&wrong), "{} {field}", event.kind_name);
            }
        }
    }
}

#[test]
fn a_finding_says_what_was_expected_and_what_was_seen() {
    let mut event = Event::default();
    Writer::new(Format::Ocsf, "edge").write(View::Alert(&alert(0xab)), &mut event);
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["type_uid"], 200_402, "revision 2 is an update");
    assert_eq!(body["finding_info"]["uid"], "a_00000000000000ab");
    assert_eq!(body["metadata"]["uid"], "a_00000000000000ab.2");
    assert_eq!(body["time"], 1_795_464_000_000_u64);
    let analysis = &body["anomaly_analyses"][0];
    assert_eq!(analysis["analysis_targets"][0]["name"], "k_00000000000000000000000000000007");
    assert_eq!(analysis["anomalies"][0]["observations"][0]["value"], "a call from 203.0.113.9");
    assert_eq!(analysis["baselines"][0]["observations"][0]["value"], "calls from 192.0.2.0/24");
}

#[test]
fn a_call_says_who_asked_what_and_how_it_ended() {
    let mut event = Event::default();
    let record = Record::Call { call: Box::new(full()), ordinal: 0 };
    Writer::new(Format::Ocsf, "edge").write(record.view(), &mut event);
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["actor"]["user"]["uid"], full().key.unwrap().id.to_string());
    assert_eq!(body["api"]["operation"], "exchange.Orders/Place");
    assert_eq!(body["src_endpoint"]["ip"], "203.0.113.9");
    assert_eq!((&body["status_id"], &body["http_response"]["code"]), (&1.into(), &200.into()));
    Writer::new(Format::Ecs, "edge").write(record.view(), &mut event);
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["event"]["outcome"], "success");
    assert_eq!(body["event"]["duration"], 1_830_000);
    assert_eq!(body["url"]["original"], "/api/v3/order?symbol=BTCUSDT");
}
