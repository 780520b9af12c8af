//! D5: a key is used from where it never was. Evidence only: it never alerts alone.

use super::{Detector, Found, Layer, Report, Rule, Scene, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{News, Place, prefix};
use crate::call::Outcome;

pub(super) struct NewNetwork;

static RULE: Rule = Rule {
    id: "D5",
    name: "new network",
    layer: Layer::Novelty,
    attack: &["T1078.004"],
    owasp: &[],
};

/// The most that novelty may weigh: half of what an alert takes.
const EVIDENCE_MAX: f32 = 2.5;
/// While a key is young, new places are what it is for.
const EVIDENCE_YOUNG_MAX: f32 = 1.0;
/// An address in a network that is known.
const EVIDENCE_ADDRESS_MAX: f32 = 0.5;
/// Part of the log-odds that counts: hours of use are not independent of each other.
const TEMPER: f64 = 0.6;
/// Keys known in a network that make it a shared one: a broker's, a cloud's.
const SHARED_KEYS: u32 = 4;

impl Detector for NewNetwork {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if scene.place != Place::Known
            && scene.is_authentic
            && !key.familiar.is_empty()
            && key.is_news(News::NewNetwork)
        {
            let block = prefix(&scene.address);
            let client = scene.call.client();
            let age = scene.time.since(key.first_seen);
            let odds = -key.familiar.chance_of_new_network().ln() * TEMPER;
            let (what, max) = match scene.place {
                Place::NewNetwork if age.as_secs() < scene.settings.young_key_s => {
                    ("a network", EVIDENCE_YOUNG_MAX)
                }
                Place::NewNetwork => ("a network", EVIDENCE_MAX),
                Place::NewAddress | Place::Known => ("an address", EVIDENCE_ADDRESS_MAX),
            };
            let day = scene.now_s / 86_400;
            let is_shared = scene.fleet.keys_in_network(&block, day) >= SHARED_KEYS;
            let evidence = (odds as f32).clamp(0.0, max) * if is_shared { 0.5 } else { 1.0 };
            report.add(|| Found {
                entity: Entity::Key(*id),
                rule: &RULE,
                evidence: evidence * scene.weight,
                severity: Severity::Low,
                alone: false,
                grown: false,
                complete: scene.call.complete,
                calls: 1,
                expected: format!("addresses that the key used in {}", span(age)),
                seen: format!("{client}, {what} never used before"),
                clause: format!("was used from {client}, {what} never used before"),
                title: "API key used from a new network",
                first_step: "Ask the key's owner whether the new address is theirs; \
                             if not, disable the key",
            });
        }
        if scene.call.outcome == Some(Outcome::Ok) && key.familiar.learn(&scene.address) {
            scene.fleet.note_network(prefix(&scene.address), scene.now_s / 86_400);
        }
    }
}
