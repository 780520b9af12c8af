//! D6: a key is used with another kind of client program. Evidence only: it never alerts alone.
//!
//! Families count, not versions: an update of a library is no news. When many keys take up the same
//! family at once, they were told to.

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
        let chance = key.agents.chance_of_new(key.familiar.hours());
        let call = scene.call;
        let is_first = key.agents.is_empty();
        let unknown = key.agents.look(scene.call, learn);
        if unknown.is_empty() {
            return;
        }
        let age = scene.time.since(key.first_seen);
        let is_young = age.as_secs() < scene.settings.young_key_s;
        let day = scene.now_s / 86_400;
        let mut rarity = 1.0f64;
        for mark in unknown.marks() {
            let (keys, recent) = scene.fleet.agents.uptake(mark.number(), day);
            let is_moving = recent >= MOVING_KEYS.max(scene.keys as u32 / MOVING_PART);
            let common = f64::from(keys) / (scene.keys as f64 + 1.0);
            let rare = (1.0 - common.min(1.0)) * if is_moving { MOVING_FACTOR } else { 1.0 };
            rarity = rarity.min(rare);
            if learn {
                let at_home = scene.place != Place::NewNetwork;
                let is_move = !is_young && !is_first && at_home;
                scene.fleet.agents.note(mark.number(), day, is_move);
            }
        }
        if is_first {
            return;
        }
        scene.agent_rarity = rarity as f32;
        if !key.is_news(News::NewAgent) {
            return;
        }
        let max = if is_young { EVIDENCE_YOUNG_MAX } else { EVIDENCE_MAX };
        let evidence = ((-chance.ln() * TEMPER).clamp(0.0, max) * rarity) as f32;
        let what = match (unknown.agent, unknown.tls) {
            (Some(_), Some(_)) => "user agent and TLS client",
            (Some(_), None) => "user agent",
            (None, _) => "TLS client",
        };
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
            seen: format!("a {what} never used before: {}", named(call)),
            clause: format!("was used with a {what} never used before ({})", named(call)),
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
