//! D26: a request has a parameter that its endpoint is not given (OWASP API3:2023, mass assignment).
//!
//! What an endpoint is given is learnt from all keys. Once it has shown that, a parameter that no other
//! key gives is odd: a field of the server's own that somebody tries to set, or a search for one. When
//! a third key gives it, it belongs to a new version of the API or of a client. How often keys come to such
//! parameters is counted over all of them: where that is common, one more weighs little.

use smallvec::SmallVec;

use super::{Detector, Found, Layer, Report, Rule, Scene, changes, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::News;
use crate::call::{Outcome, Protocol};
use crate::plain::plain;

pub(super) struct OddParameter;

static RULE: Rule = Rule {
    id: "D26",
    name: "unknown parameter",
    layer: Layer::Behaviour,
    attack: &["T1190"],
    owasp: &["API3"],
};

/// The most that a call which changes nothing weighs: it may be a filter that nobody used before.
const EVIDENCE_READ: f32 = 2.5;
/// More weigh this much: a search goes through hundreds, and no client has so many of its own.
const MANY: usize = 6;
const EVIDENCE_MANY: f32 = 5.5;

/// Words in names of what a server keeps for itself, as those who try to set it write them.
const PRIVILEGES: [&str; 8] =
    ["admin", "role", "permission", "privilege", "superuser", "bypass", "verified", "internal"];

/// Names in an alert.
const SHOWN_MAX: usize = 4;

impl Detector for OddParameter {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        if call.outcome != Some(Outcome::Ok) || !call.complete {
            return;
        }
        let Some((id, key)) = &mut scene.key else { return };
        let endpoint = scene.named.at_host();
        let (inventory, settings, now) = (&scene.inventory, scene.settings, scene.time.secs());
        let is_known = || {
            let known = inventory.endpoint(endpoint);
            known.is_some_and(|known| known.has_shown(now, settings.young_key_s))
        };
        let names = call.parameters();
        let unknown = scene.across.parameters.note(endpoint, *id, names, is_known);
        if unknown.is_empty() || !key.is_news(News::Parameter) {
            return;
        }
        let (day, keys) = (scene.now_s / 86_400, scene.keys);
        let rarity = &mut scene.fleet.new_parameters;
        let rare = rarity.evidence(day, keys);
        rarity.note(day, keys);
        let is_privilege = unknown.iter().any(|name| {
            let name = name.to_ascii_lowercase();
            PRIVILEGES.iter().any(|word| name.contains(word))
        });
        let changes = changes(call.op);
        let evidence = match (unknown.len() >= MANY, changes || is_privilege) {
            (true, _) => EVIDENCE_MANY,
            (false, true) => rare,
            (false, false) => rare.min(EVIDENCE_READ),
        };
        let is_bad = is_privilege || unknown.len() >= MANY;
        let shown = shown(&unknown);
        let what = op_words(call.op);
        let noun = match call.protocol {
            Protocol::Fix => "tag",
            Protocol::Grpc => "field number",
            Protocol::Http09
            | Protocol::Http10
            | Protocol::Http11
            | Protocol::Http2
            | Protocol::WebSocket => "parameter",
        };
        let plural = if unknown.len() == 1 { "" } else { "s" };
        let many = format!("the {noun}{plural}");
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity: if is_bad && changes { Severity::High } else { Severity::Medium },
            alone: false,
            grown: false,
            complete: call.complete,
            calls: 1,
            expected: "the parameters that others give to the endpoint".into(),
            seen: format!("{what} with {many} {shown}"),
            clause: format!("made {what} with {many} {shown}, which no other key gives there"),
            title: "Parameter that the endpoint is not given",
            first_step: "Check whether the server took it, and what it set; if it did, refuse unknown \
                         parameters there and undo what was set",
        });
    }
}

/// Names in words; what is no plain name is not shown.
fn shown(names: &[&str]) -> String {
    let shown = names.iter().take(SHOWN_MAX);
    let mut shown: SmallVec<[String; SHOWN_MAX]> = shown
        .map(|name| plain(name.as_bytes()).map_or_else(|| "?".into(), |name| name.to_string()))
        .collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("and {} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}
