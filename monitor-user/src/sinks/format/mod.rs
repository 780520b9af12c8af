//! The forms in which records go out. `schemas/` at the root of the repository has a JSON Schema of
//! each, and docs/decisions/0031 says what may change in them.

mod cef;
mod ecs;
mod ocsf;
#[cfg(test)]
mod tests;

use monitor_core::alert::{Alert, Entity, Severity, network_name};
use monitor_core::call::ApiCall;
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::record::View;
use crate::compact;

/// Which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Open Cybersecurity Schema Framework 1.8.0: alerts are Detection Findings (class 2004), calls are
    /// API Activity (class 6003).
    #[default]
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
    /// Keywatch's own JSON, as `--calls` and `--alerts` write it.
    Native,
    /// Common Event Format: a line for syslog.
    Cef,
    /// Calls in the compact form between agents and the fleet's engine; the rest as `native`.
    Compact,
}

const JSON: &str = "application/json";

/// Event type and media type of calls in the compact form.
pub(crate) const COMPACT_CALL: (&str, &str) =
    ("keywatch.call.compact.v1", "application/vnd.keywatch.call");

/// Fills in what depends on the form: body, media type and event type. `event` has its id already.
pub(crate) fn write(format: Format, record: View<'_>, host: &str, event: &mut Event) {
    event.content_type = JSON;
    let Event { id, body, .. } = event;
    // Texts and numbers into memory: none of these fails.
    let (kind_name, _) = match (format, record) {
        (Format::Ocsf, View::Alert(alert)) => {
            ("keywatch.alert.ocsf.v1", serde_json::to_writer(body, &ocsf::finding(alert, id)))
        }
        (Format::Ecs, View::Alert(alert)) => {
            ("keywatch.alert.ecs.v1", serde_json::to_writer(body, &ecs::alert(alert, id)))
        }
        (Format::Native | Format::Compact, View::Alert(alert)) => {
            ("keywatch.alert.v1", serde_json::to_writer(body, alert))
        }
        (Format::Ocsf, View::Call { call, .. }) => {
            ("keywatch.call.ocsf.v1", serde_json::to_writer(body, &ocsf::activity(call, id, host)))
        }
        (Format::Ecs, View::Call { call, .. }) => {
            ("keywatch.call.ecs.v1", serde_json::to_writer(body, &ecs::call(call, id, host)))
        }
        (Format::Native, View::Call { call, .. }) => {
            ("keywatch.call.v1", serde_json::to_writer(body, call))
        }
        (Format::Compact, View::Call { call, .. }) => {
            event.content_type = COMPACT_CALL.1;
            compact::encode(call, body);
            (COMPACT_CALL.0, Ok(()))
        }
        (Format::Cef, _) => {
            event.content_type = "text/plain; charset=utf-8";
            body.extend_from_slice(cef::line(record, id, host).as_bytes());
            let kind_name = match record {
                View::Alert(_) => "keywatch.alert.cef.v1",
                View::Call { .. } => "keywatch.call.cef.v1",
                View::Gap(_) => "keywatch.gap.cef.v1",
            };
            (kind_name, Ok(()))
        }
        // About Keywatch itself: no other schema has a word for it.
        (_, View::Gap(gap)) => ("keywatch.gap.v1", serde_json::to_writer(body, gap)),
    };
    event.kind_name = kind_name;
}

const PRODUCT: &str = "Keywatch";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The entity as other schemas name it: a key, an address, a group of keys, or this host.
#[derive(Default)]
struct Whom {
    key: Option<String>,
    address: Option<String>,
    network: Option<String>,
    group: Option<String>,
}

impl Whom {
    fn of(alert: &Alert) -> Whom {
        match alert.entity {
            Entity::Key(id) => Whom { key: Some(id.to_string()), ..Whom::default() },
            Entity::Client(ip) => Whom { address: Some(ip.to_string()), ..Whom::default() },
            Entity::Network(first) => {
                Whom { network: Some(network_name(first)), ..Whom::default() }
            }
            Entity::Group(id) => Whom { group: Some(id.to_string()), ..Whom::default() },
            Entity::Host => Whom::default(),
        }
    }

    fn name<'a>(&'a self, alert: &'a Alert) -> &'a str {
        let known = [&self.key, &self.address, &self.network, &self.group];
        known.into_iter().flatten().next().map_or(&alert.host, String::as_str)
    }
}

/// From 0 to 100.
fn percent(share: f32) -> u8 {
    // A share is from 0 to 1; the cast takes care of what is not.
    (share * 100.0).round() as u8
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

/// What a call did, in a few words: `POST /api/v3/order`, `exchange.Orders/Place`.
fn operation(call: &ApiCall) -> String {
    if let Some(grpc) = &call.grpc {
        return format!("{}/{}", grpc.service, grpc.method);
    }
    match &call.request {
        Some(request) if request.method.is_empty() && request.path.is_empty() => {
            call.op.as_str().into()
        }
        Some(request) if request.path.is_empty() => request.method.as_str().into(),
        Some(request) if request.method.is_empty() => request.path.as_str().into(),
        Some(request) => format!("{} {}", request.method, request.path),
        None => call.op.as_str().into(),
    }
}
