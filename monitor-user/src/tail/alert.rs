//! An alert out of a record, whatever form it has.

use monitor_core::alert::{Alert, Entity, Severity};
use serde_json::Value;

/// What is shown of an alert.
pub(super) struct Shown {
    /// With the revision: the same for the same record.
    pub(super) id: String,
    pub(super) is_update: bool,
    pub(super) time: String,
    pub(super) severity: Severity,
    pub(super) title: String,
    /// Whom it is about.
    pub(super) entity: String,
    pub(super) detectors: Vec<String>,
    pub(super) host: String,
    pub(super) explanation: String,
    pub(super) first_step: String,
}

impl Shown {
    /// `None`: it is no alert in a form that is known.
    pub(super) fn read(record: &[u8]) -> Option<Shown> {
        let value: Value = serde_json::from_slice(record).ok()?;
        if value["class_uid"] == 2004 {
            return of_ocsf(&value);
        }
        // ECS carries the alert as it is.
        let native = match value.get("keywatch").and_then(|ours| ours.get("alert")) {
            Some(alert) => alert.clone(),
            None => value,
        };
        serde_json::from_value::<Alert>(native).ok().map(of_native)
    }
}

fn of_native(alert: Alert) -> Shown {
    Shown {
        id: format!("{}.{}", alert.id, alert.revision),
        is_update: alert.revision > 0,
        time: alert.time.to_string(),
        severity: alert.severity,
        title: alert.title,
        entity: match alert.entity {
            Entity::Host => alert.host.clone(),
            Entity::Key(_) | Entity::Client(_) | Entity::Network(_) | Entity::Group(_) => {
                alert.entity.to_string()
            }
        },
        detectors: alert.findings.iter().map(|finding| finding.detector.to_string()).collect(),
        host: alert.host,
        explanation: alert.explanation,
        first_step: alert.first_step.into_owned(),
    }
}

fn of_ocsf(finding: &Value) -> Option<Shown> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let info = &finding["finding_info"];
    let first = std::iter::once(&info["analytic"]);
    let others = info["related_analytics"].as_array().into_iter().flatten();
    let host = text(&finding["metadata"]["reporter"]["hostname"]).unwrap_or_default();
    Some(Shown {
        id: text(&finding["metadata"]["uid"])?,
        is_update: finding["activity_id"] == 2,
        time: text(&finding["metadata"]["original_time"])?,
        severity: match finding["severity_id"].as_u64()? {
            0..=2 => Severity::Low,
            3 => Severity::Medium,
            4 => Severity::High,
            _ => Severity::Critical,
        },
        title: text(&info["title"])?,
        entity: text(&finding["observables"][0]["value"]).unwrap_or_else(|| host.clone()),
        detectors: first.chain(others).filter_map(|analytic| text(&analytic["uid"])).collect(),
        host,
        explanation: text(&info["desc"]).unwrap_or_default(),
        first_step: text(&finding["remediation"]["desc"]).unwrap_or_default(),
    })
}
