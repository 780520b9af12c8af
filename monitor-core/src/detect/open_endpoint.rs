//! D24: what should need a key was done without one; an endpoint answers that should not be there
//! (OWASP API2:2023, API9:2023).
//!
//! A server whose credentials no profile knows looks like one that asks for none. So a call without
//! a key alerts alone only where keys are known to be used.

use super::{Detector, Found, Layer, Report, Rule, Scene, changes, ip, is_sensitive, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::{Endpoint, Host};
use crate::call::{Anomalies, ApiCall, Operation, Outcome, Protocol};

pub(super) struct OpenEndpoint;

static OPEN: Rule = Rule {
    id: "D24",
    name: "success without a key",
    layer: Layer::Invariant,
    attack: &["T1190"],
    owasp: &["API2"],
};

static INVENTORY: Rule = Rule {
    id: "D24",
    name: "shadow or zombie endpoint",
    layer: Layer::Invariant,
    attack: &["T1190"],
    owasp: &["API9"],
};

static LEAK: Rule = Rule {
    id: "D24",
    name: "secrets in a response",
    layer: Layer::Invariant,
    attack: &["T1552"],
    owasp: &["API3"],
};

static NEW: Rule =
    Rule { id: "D24", name: "new endpoint", layer: Layer::Novelty, attack: &[], owasp: &["API9"] };

const EVIDENCE: f32 = 5.5;
/// Keys may be where no profile looks.
const EVIDENCE_UNSURE: f32 = 3.0;
/// A new version of the API brings many.
const EVIDENCE_NEW: f32 = 0.5;

/// Calls with a key that went well before an endpoint counts as one that needs it.
const KEYED_MIN: u32 = 5;

/// Calls of a host before a new endpoint is news.
const HOST_CALLS_MIN: u32 = 1000;

impl Detector for OpenEndpoint {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let (is_judged, leaks) = (is_judged(call), leaks(call));
        if !is_judged && leaks.is_none() {
            return;
        }
        let Some(request) = &call.request else { return };
        let host = request.host.as_deref().unwrap_or_default();
        let key = call.key.as_ref().map(|key| key.id);
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let mut known = scene.inventory.at(scene.named);
        let (endpoint, of_host) = (*known.endpoint, *known.host);
        if is_judged {
            known.count(key, scene.time);
        }
        let leaks = leaks.filter(|_| known.endpoint.leaks_anew(scene.time));
        if !is_judged && leaks.is_none() {
            return;
        }
        let found = leaks
            .map(|what| leak(what, method, path))
            .or_else(|| by_policy(scene.policy.host(host), method, path))
            .or_else(|| without_key(call, &endpoint, &of_host))
            .or_else(|| {
                let age_s = scene.time.secs().saturating_sub(of_host.first_s);
                let settled = age_s >= scene.settings.settled_key_s;
                let is_news = endpoint.is_new() && settled && of_host.calls >= HOST_CALLS_MIN;
                is_news.then(|| new_endpoint(method, path))
            });
        let Some(problem) = found else { return };
        if leaks.is_none() && !known.endpoint.is_news(scene.time) {
            return;
        }
        let entity = match &scene.key {
            Some((id, _)) => Entity::Key(*id),
            None => Entity::Client(ip(&scene.address)),
        };
        report.add(|| Found {
            entity,
            rule: problem.rule,
            evidence: problem.evidence * scene.weight,
            severity: problem.severity,
            alone: problem.alone,
            grown: false,
            complete: call.complete,
            calls: 1,
            expected: problem.expected.into(),
            clause: format!("was served {}", problem.seen),
            seen: problem.seen,
            title: problem.title,
            first_step: "Find the server that answered and what it checks; close the endpoint until \
                         it is mended",
        });
    }
}

/// What a response gives away. Logins give tokens, and who makes a key is shown its secret once.
fn leaks(call: &ApiCall) -> Option<&'static str> {
    if matches!(call.op, Operation::Auth | Operation::KeyManagement) {
        return None;
    }
    if call.anomalies.contains(Anomalies::CARD_IN_RESPONSE) {
        return Some("the number of a card");
    }
    call.anomalies.contains(Anomalies::SECRET_IN_RESPONSE).then_some("a secret")
}

fn leak(what: &str, method: &str, path: &str) -> Problem {
    Problem {
        rule: &LEAK,
        evidence: EVIDENCE,
        severity: Severity::Medium,
        alone: true,
        expected: "no secrets in what is answered",
        seen: format!("{what} by {method} {}", short(path)),
        title: "Response holds secrets or personal data",
    }
}

struct Problem {
    rule: &'static Rule,
    evidence: f32,
    severity: Severity,
    alone: bool,
    expected: &'static str,
    seen: String,
    title: &'static str,
}

/// A request over HTTP that was seen whole and went well. On other protocols the key came earlier,
/// and may not have been seen.
fn is_judged(call: &ApiCall) -> bool {
    let is_http = match call.protocol {
        Protocol::Http09 | Protocol::WebSocket | Protocol::Fix => false,
        Protocol::Http10 | Protocol::Http11 | Protocol::Http2 | Protocol::Grpc => true,
    };
    let unseen = Anomalies::GAP | Anomalies::UNKNOWN_HEADER | Anomalies::HEAD_TOO_LARGE;
    is_http
        && call.outcome == Some(Outcome::Ok)
        && call.complete
        && !call.anomalies.intersects(unseen | Anomalies::BAD_HEADER_BLOCK)
        && call.request.as_ref().is_some_and(|request| !request.path.is_empty())
}

fn without_key(call: &ApiCall, endpoint: &Endpoint, host: &Host) -> Option<Problem> {
    if call.key.is_some() {
        return None;
    }
    let mixed = endpoint.keyed >= KEYED_MIN;
    let sure = mixed || (is_sensitive(call.op) && host.keyed >= KEYED_MIN);
    let what = op_words(call.op);
    if changes(call.op) {
        return Some(Problem {
            rule: &OPEN,
            evidence: if sure { EVIDENCE } else { EVIDENCE_UNSURE },
            severity: if sure { Severity::High } else { Severity::Medium },
            alone: sure,
            expected: if mixed { "a key, as with all calls before" } else { "a key" },
            seen: format!("{what} without a key"),
            title: "Sensitive endpoint open to anybody",
        });
    }
    None
}

/// What the policy says of the endpoint.
fn by_policy(
    rules: Option<&crate::policy::HostRules>,
    method: &str,
    path: &str,
) -> Option<Problem> {
    let rules = rules?;
    let (expected, kind, title) = if rules.retired.iter().any(|it| it.is(method, path)) {
        ("no answer: the policy says it is retired", "retired", "Retired endpoint answers")
    } else if !rules.endpoints.is_empty() && !rules.endpoints.iter().any(|it| it.is(method, path)) {
        ("an endpoint that the policy names", "unknown", "Unknown endpoint answers")
    } else {
        return None;
    };
    Some(Problem {
        rule: &INVENTORY,
        evidence: EVIDENCE,
        severity: Severity::Medium,
        alone: true,
        expected,
        seen: format!("the {kind} endpoint {method} {}", short(path)),
        title,
    })
}

fn new_endpoint(method: &str, path: &str) -> Problem {
    Problem {
        rule: &NEW,
        evidence: EVIDENCE_NEW,
        severity: Severity::Low,
        alone: false,
        expected: "an endpoint that was used before",
        seen: format!("the new endpoint {method} {}", short(path)),
        title: "New endpoint",
    }
}

/// As much of a path as an alert needs.
fn short(path: &str) -> &str {
    &path[..path.floor_char_boundary(120)]
}
