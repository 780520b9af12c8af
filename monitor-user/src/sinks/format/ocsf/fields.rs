//! The fields of both classes that are filled, in the order in which they are written.

use std::net::IpAddr;

use monitor_core::alert::Finding;
use monitor_core::call::{
    Anomalies, Detail, FlowId, Grpc, HeaderOrder, KeyId, Operation, Quota, Token,
};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct DetectionFinding<'a> {
    pub(super) activity_id: u8,
    pub(super) category_uid: u8,
    pub(super) class_uid: u16,
    pub(super) type_uid: u32,
    pub(super) time: u64,
    pub(super) start_time: u64,
    pub(super) end_time: u64,
    pub(super) count: u64,
    pub(super) severity_id: u8,
    pub(super) severity: &'static str,
    pub(super) status_id: u8,
    pub(super) is_alert: bool,
    pub(super) confidence_id: u8,
    pub(super) confidence_score: u8,
    pub(super) message: &'a str,
    pub(super) metadata: Metadata<'a>,
    pub(super) finding_info: FindingInfo<'a>,
    pub(super) remediation: Text<'a>,
    pub(super) observables: Vec<Observable>,
    pub(super) evidences: [Evidence<'a>; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) anomaly_analyses: Vec<Analysis<'a>>,
    pub(super) unmapped: AlertRest,
}

#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) version: &'static str,
    pub(super) product: Product,
    pub(super) uid: &'a str,
    pub(super) original_time: EventTime,
    pub(super) reporter: Reporter<'a>,
}

#[derive(Serialize)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) vendor_name: &'static str,
    pub(super) version: &'static str,
}

#[derive(Serialize)]
pub(super) struct Reporter<'a> {
    pub(super) hostname: &'a str,
    pub(super) name: &'static str,
}

#[derive(Serialize)]
pub(super) struct FindingInfo<'a> {
    pub(super) uid: String,
    pub(super) title: &'a str,
    pub(super) desc: &'a str,
    pub(super) first_seen_time: u64,
    pub(super) last_seen_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) analytic: Option<Analytic<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) related_analytics: Vec<Analytic<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) attacks: Vec<Attack<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) types: Vec<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Analytic<'a> {
    pub(super) uid: &'a str,
    pub(super) name: &'a str,
    pub(super) type_id: u8,
}

#[derive(Serialize)]
pub(super) struct Attack<'a> {
    pub(super) technique: Named<'a>,
}

#[derive(Serialize)]
pub(super) struct Named<'a> {
    pub(super) uid: &'a str,
}

#[derive(Serialize)]
pub(super) struct Text<'a> {
    pub(super) desc: &'a str,
}

#[derive(Serialize)]
pub(super) struct Observable {
    pub(super) name: &'static str,
    pub(super) type_id: u8,
    pub(super) value: String,
}

#[derive(Serialize)]
pub(super) struct Evidence<'a> {
    pub(super) name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_endpoint: Option<Address>,
    pub(super) data: Connections<'a>,
}

#[derive(Serialize)]
pub(super) struct Connections<'a> {
    pub(super) flows: &'a [FlowId],
    pub(super) calls: u64,
    pub(super) complete: bool,
}

#[derive(Serialize)]
pub(super) struct Actor {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<Session>,
}

impl Actor {
    pub(super) fn of_key(uid: String) -> Actor {
        Actor { user: Some(User { uid, kind: "API key" }), session: None }
    }
}

#[derive(Serialize)]
pub(super) struct User {
    pub(super) uid: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Session {
    pub(super) uid: String,
}

#[derive(Serialize)]
pub(super) struct Address {
    pub(super) ip: String,
}

#[derive(Serialize)]
pub(super) struct PortAddress {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

impl PortAddress {
    pub(super) fn of(endpoint: &Endpoint) -> PortAddress {
        PortAddress { ip: endpoint.ip(), port: endpoint.port }
    }
}

#[derive(Serialize)]
pub(super) struct Analysis<'a> {
    pub(super) analysis_targets: [Target; 1],
    pub(super) anomalies: [Observed<'a>; 1],
    pub(super) baselines: [Observed<'a>; 1],
}

#[derive(Serialize)]
pub(super) struct Target {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Observed<'a> {
    pub(super) observation_parameter: &'a str,
    pub(super) observations: [Observation<'a>; 1],
}

impl<'a> Observed<'a> {
    pub(super) fn new(finding: &'a Finding, value: &'a str) -> Observed<'a> {
        Observed { observation_parameter: &finding.name, observations: [Observation { value }] }
    }
}

#[derive(Serialize)]
pub(super) struct Observation<'a> {
    pub(super) value: &'a str,
}

#[derive(Serialize)]
pub(super) struct AlertRest {
    pub(super) revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part_of: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ApiActivity<'a> {
    pub(super) activity_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activity_name: Option<&'static str>,
    pub(super) category_uid: u8,
    pub(super) class_uid: u16,
    pub(super) type_uid: u32,
    pub(super) time: u64,
    pub(super) severity_id: u8,
    pub(super) status_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_detail: Option<&'static str>,
    pub(super) metadata: Metadata<'a>,
    pub(super) actor: Actor,
    pub(super) api: Api<'a>,
    pub(super) src_endpoint: PortAddress,
    pub(super) dst_endpoint: PortAddress,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_request: Option<HttpRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_response: Option<HttpResponse>,
    pub(super) unmapped: CallRest<'a>,
}

#[derive(Serialize)]
pub(super) struct Api<'a> {
    pub(super) operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Service<'a>>,
}

#[derive(Serialize)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<Url<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<&'a str>,
    pub(super) length: u64,
}

#[derive(Serialize)]
pub(super) struct Url<'a> {
    pub(super) path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) query_string: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct HttpResponse {
    pub(super) code: u16,
    pub(super) length: u64,
}

/// What the class has no place for.
#[derive(Serialize)]
pub(super) struct CallRest<'a> {
    pub(super) protocol: &'static str,
    pub(super) op: Operation,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) symbol: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) object_ids: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<&'a str>,
    #[serde(skip_serializing_if = "<[KeyId]>::is_empty")]
    pub(super) former: &'a [KeyId],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxied_for: Option<Endpoint>,
    pub(super) tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ja4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) header_order: Option<HeaderOrder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grpc: Option<&'a Grpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<Quota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<&'a Detail>,
    pub(super) complete: bool,
    pub(super) anomalies: Anomalies,
}
