//! D6: a key is used with another kind of client program. Evidence only: it never alerts alone.
//!
//! Families count, not versions: an update of a library is no news. When many keys take up the same
//! family at once, they were told to. The order of header fields tells a program that calls itself what it
//! is not; a program has one for each kind of call, so that alone it says less.

use super::{Detector, Found, Layer, Report, Rule, Scene, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{News, Place};
use crate::call::{ApiCall, Outcome};

pub(super) struct NewAgent;

static RULE: Rule = Rule {
    id: "D6",
    name: "new client program",
    layer: Layer::Novelty,
    attack: &["T1078"],
    owasp: &["API2"],
};

/// The most that novelty may weigh, and that of a young key: as for networks (D5).
const EVIDENCE_MAX: f64 = 2.5;
const EVIDENCE_YOUNG_MAX: f64 = 0.5;
/// The most that an order of header fields may weigh alone.
const EVIDENCE_ORDER_MAX: f64 = 1.2;
/// Part of the log-odds that counts: hours of use are not independent of each other.
const TEMPER: f64 = 0.6;
/// Keys that take up the same family within two days, where they are at home, before it is a movement;
/// and what part of all. A thief of many keys is elsewhere.
const MOVING_KEYS: u32 = 3;
const MOVING_PART: u32 = 50;
/// What is left of the evidence then.
const MOVING_FACTOR: f64 = 0.2;

impl Detector for NewAgent {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        let learn = scene.call.outcome == Some(Outcome::Ok);
        let call = scene.call;
        let (is_first, is_first_order) = (key.agents.is_empty(), key.agents.has_no_order());
        let (of_program, of_order) = key.agents.chances_of_new(key.familiar.hours());
        let unknown = key.agents.look(scene.call, learn);
        if unknown.is_empty() {
            return;
        }
        let is_program = unknown.is_program();
        let chance = if is_program { of_program } else { of_order };
        let age = scene.time.since(key.first_seen);
        let is_young = age.as_secs() < scene.settings.young_key_s;
        let day = scene.now_s / 86_400;
        let mut rarity = 1.0f64;
        for mark in unknown.marks() {
            let (keys, recent) = scene.fleet.agents.uptake(mark.number(), day);
            let is_moving = recent >= MOVING_KEYS.max(scene.keys as u32 / MOVING_PART);
            let common = f64::from(keys) / (scene.keys as f64 + 1.0);
            let rare = (1.0 - common.min(1.0)) * if is_moving { MOVING_FACTOR } else { 1.0 };
            // Beside a new program a new order says nothing.
            if unknown.order != Some(mark) || !is_program {
                rarity = rarity.min(rare);
            }
            if learn {
                let at_home = scene.place != Place::NewNetwork;
                let is_move = !is_young && !is_first && at_home;
                scene.fleet.agents.note(mark.number(), day, is_move);
            }
        }
        if is_first || !is_program && is_first_order {
            return;
        }
        if is_program {
            scene.agent_rarity = rarity as f32;
        }
        if !key.is_news(if is_program { News::NewAgent } else { News::NewOrder }) {
            return;
        }
        let max = match (is_young, is_program) {
            (true, _) => EVIDENCE_YOUNG_MAX,
            (false, true) => EVIDENCE_MAX,
            (false, false) => EVIDENCE_ORDER_MAX,
        };
        let evidence = ((-chance.ln() * TEMPER).clamp(0.0, max) * rarity) as f32;
        let what = match (unknown.agent, unknown.tls) {
            (Some(_), Some(_)) => "user agent and TLS client",
            (Some(_), None) => "user agent",
            (None, Some(_)) => "TLS client",
            (None, None) => "order of header fields",
        };
        let named = if is_program { named(call) } else { order(call) };
        let n = if is_program { "" } else { "n" };
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity: Severity::Low,
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected: format!("the client programs that the key was used with in {}", span(age)),
            seen: format!("a{n} {what} never used before: {named}"),
            clause: format!("was used with a{n} {what} never used before ({named})"),
            title: "API key used with a new client program",
            first_step: "Ask the key's owner whether they changed their client; \
                         if not, disable the key",
        });
    }
}

/// The agent's first word, which clients choose freely, or the JA4.
fn named(call: &ApiCall) -> String {
    let request = call.request.as_ref();
    let agent = request.and_then(|request| request.user_agent.as_deref());
    let name = agent.or(call.flow.ja4.as_deref()).unwrap_or_default();
    let printable = |c: &char| c.is_ascii_graphic();
    name.split_whitespace().next().unwrap_or_default().chars().filter(printable).take(40).collect()
}

fn order(call: &ApiCall) -> String {
    let order = call.request.as_ref().and_then(|request| request.header_order);
    order.map(|order| order.to_string()).unwrap_or_default()
}
