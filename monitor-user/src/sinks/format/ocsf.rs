//! Open Cybersecurity Schema Framework 1.8.0 (<https://schema.ocsf.io/1.8.0>).

mod fields;

use monitor_core::alert::{Alert, Finding, Severity};
use monitor_core::call::{ApiCall, Key, Operation, Outcome};
use monitor_core::time::EventTime;
use serde::Serialize;

use self::fields::{
    Actor, Address, AlertRest, Analysis, Analytic, Api, ApiActivity, Attack, CallRest, Connections,
    DetectionFinding, Evidence, FindingInfo, HttpRequest, HttpResponse, Metadata, Named,
    Observable, Observed, PortAddress, Product, Reporter, Service, Session, Target, Text, Url,
    User,
};
use super::{PRODUCT, VERSION, Whom, operation, percent, severity_name};

/// An alert as Detection Finding, class 2004.
pub(super) fn finding<'a>(alert: &'a Alert, id: &'a str) -> impl Serialize + use<'a> {
    let activity_id = if alert.revision == 0 { CREATE } else { 2 };
    let whom = Whom::of(alert);
    let name = whom.name(alert).to_owned();
    let address = whom.address.clone();
    let strongest = alert.findings.first();
    let mut types: Vec<&str> = Vec::new();
    let mut attacks: Vec<Attack<'_>> = Vec::new();
    for finding in &alert.findings {
        for owasp in &finding.owasp {
            if !types.contains(&owasp.as_ref()) {
                types.push(owasp);
            }
        }
        for technique in &finding.attack {
            if !attacks.iter().any(|known| known.technique.uid == *technique) {
                attacks.push(Attack { technique: Named { uid: technique } });
            }
        }
    }
    DetectionFinding {
        activity_id,
        category_uid: 2,
        class_uid: 2004,
        type_uid: 200_400 + u32::from(activity_id),
        time: millis(alert.time),
        start_time: millis(alert.first_seen),
        end_time: millis(alert.last_seen),
        count: alert.calls,
        severity_id: severity_id(alert.severity),
        severity: severity_name(alert.severity),
        status_id: 1,
        is_alert: true,
        confidence_id: confidence_id(alert.confidence),
        confidence_score: percent(alert.confidence),
        message: &alert.explanation,
        metadata: metadata(id, &alert.host, alert.time),
        finding_info: FindingInfo {
            uid: alert.id.to_string(),
            title: &alert.title,
            desc: &alert.explanation,
            first_seen_time: millis(alert.first_seen),
            last_seen_time: millis(alert.last_seen),
            analytic: strongest.map(analytic),
            related_analytics: alert.findings.iter().skip(1).map(analytic).collect(),
            attacks,
            types,
        },
        remediation: Text { desc: &alert.first_step },
        observables: observables(&whom),
        evidences: [Evidence {
            name: "connections",
            actor: whom.key.as_ref().map(|key| Actor::of_key(key.clone())),
            src_endpoint: address.map(|ip| Address { ip }),
            data: Connections { flows: &alert.flows, calls: alert.calls, complete: alert.complete },
        }],
        anomaly_analyses: alert
            .findings
            .iter()
            .map(|finding| Analysis {
                analysis_targets: [Target { name: name.clone(), kind: target_kind(&whom) }],
                anomalies: [Observed::new(finding, &finding.seen)],
                baselines: [Observed::new(finding, &finding.expected)],
            })
            .collect(),
        unmapped: AlertRest {
            revision: alert.revision,
            network: whom.network.clone(),
            group: whom.group.clone(),
            part_of: alert.part_of.map(|group| group.to_string()),
        },
    }
}

/// A call as API Activity, class 6003.
pub(super) fn activity<'a>(
    call: &'a ApiCall,
    id: &'a str,
    host: &'a str,
) -> impl Serialize + use<'a> {
    let activity_id = activity_of(call.op);
    let request = call.request.as_ref();
    let user = call.key.as_ref().map(|key| User { uid: key.id.to_string(), kind: "API key" });
    ApiActivity {
        activity_id,
        activity_name: (activity_id == OTHER).then_some(call.op.as_str()),
        category_uid: 6,
        class_uid: 6003,
        type_uid: 600_300 + u32::from(activity_id),
        time: millis(call.time),
        severity_id: 1,
        status_id: status_id(call.outcome),
        status_detail: call.outcome.map(Outcome::as_str),
        metadata: metadata(id, host, call.time),
        actor: Actor { user, session: Some(Session { uid: call.flow.id.to_string() }) },
        api: Api {
            operation: operation(call),
            service: request.and_then(|r| r.host.as_ref()).map(|name| Service { name }),
        },
        src_endpoint: PortAddress::of(&call.flow.client),
        dst_endpoint: PortAddress::of(&call.flow.server),
        http_request: request.map(|request| HttpRequest {
            http_method: Some(&*request.method).filter(|method| METHODS.contains(method)),
            url: (!request.path.is_empty()).then(|| Url {
                path: &request.path,
                hostname: request.host.as_deref(),
                query_string: request.target.split_once('?').map(|(_, query)| query),
            }),
            user_agent: request.user_agent.as_deref(),
            length: request.body_bytes,
        }),
        http_response: call.response.as_ref().and_then(|response| {
            response.status.map(|code| HttpResponse { code, length: response.body_bytes })
        }),
        unmapped: CallRest {
            protocol: call.protocol.as_str(),
            op: call.op,
            latency_us: call.latency_us,
            symbol: call.symbol.as_deref(),
            object_ids: call.object_ids.iter().map(|id| id.as_str()).collect(),
            key_source: call.key.as_ref().map(|key| &*key.source),
            profile: call.key.as_ref().map(|key| &*key.profile),
            former: call.key.as_ref().map_or(&[], Key::former),
            proxied_for: call.flow.proxied_for,
            tls: call.flow.tls,
            server_name: call.flow.server_name.as_deref(),
            ja4: call.flow.ja4.as_deref(),
            header_order: request.and_then(|request| request.header_order),
            process: call.flow.process.as_deref(),
            pid: call.flow.pid,
            container: call.flow.container.as_deref(),
            stream_id: call.stream_id,
            grpc: call.grpc.as_deref(),
            quota: call.response.as_ref().and_then(|response| response.quota),
            token: call.token.as_deref(),
            detail: call.detail.as_deref(),
            complete: call.complete,
            anomalies: call.anomalies,
        },
    }
}

const CREATE: u8 = 1;
const OTHER: u8 = 99;

fn activity_of(op: Operation) -> u8 {
    match op {
        Operation::Public | Operation::Read => 2,
        Operation::Trade | Operation::Transfer | Operation::Withdraw => CREATE,
        Operation::AddressBook | Operation::KeyManagement | Operation::Subaccount => 3,
        Operation::Cancel => 4,
        Operation::Auth => OTHER,
    }
}

fn status_id(outcome: Option<Outcome>) -> u8 {
    match outcome {
        None => 0,
        Some(Outcome::Ok) => 1,
        Some(_) => 2,
    }
}

fn severity_id(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

fn confidence_id(confidence: f32) -> u8 {
    match confidence {
        sure if sure >= 0.8 => 3,
        sure if sure >= 0.5 => 2,
        _ => 1,
    }
}

fn millis(time: EventTime) -> u64 {
    time.0 / 1_000_000
}

fn metadata<'a>(id: &'a str, host: &'a str, time: EventTime) -> Metadata<'a> {
    Metadata {
        version: "1.8.0",
        product: Product { name: PRODUCT, vendor_name: PRODUCT, version: VERSION },
        uid: id,
        original_time: time,
        reporter: Reporter { hostname: host, name: PRODUCT },
    }
}

fn analytic(finding: &Finding) -> Analytic<'_> {
    Analytic { uid: &finding.detector, name: &finding.name, type_id: 2 }
}

fn observables(whom: &Whom) -> Vec<Observable> {
    // Types: 31 is the uid of a user, 2 an IP address, 12 a subnet.
    let known = [
        (&whom.key, "evidences.actor.user.uid", 31),
        (&whom.address, "evidences.src_endpoint.ip", 2),
        (&whom.network, "unmapped.network", 12),
    ];
    let some = known.into_iter().filter_map(|(value, name, type_id)| {
        value.clone().map(|value| Observable { name, type_id, value })
    });
    some.collect()
}

fn target_kind(whom: &Whom) -> &'static str {
    match whom {
        Whom { key: Some(_), .. } => "API key",
        Whom { address: Some(_), .. } => "Client address",
        Whom { network: Some(_), .. } => "Client network",
        Whom { group: Some(_), .. } => "Group of API keys",
        Whom { .. } => "Host",
    }
}

/// What the schema lists; other methods stand in `api.operation` alone.
const METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
