//! D23: a key's operations follow each other in another order than they did.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::Operation;

pub(super) struct OddSequence;

static RULE: Rule = Rule {
    id: "D23",
    name: "odd sequence of operations",
    layer: Layer::Behaviour,
    attack: &["T1078"],
    owasp: &["API6"],
};

/// At the bar, for each natural power beyond it, and at most: a new client version does as much.
const EVIDENCE_MIN: f32 = 1.5;
const EVIDENCE_PER_POWER: f32 = 0.25;
const EVIDENCE_MAX: f32 = 3.0;

impl Detector for OddSequence {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        let Some(odd) = key.sequences.note(scene.op) else { return };
        if scene.time.since(key.first_seen).as_secs() < scene.settings.young_key_s {
            return;
        }
        let raw = EVIDENCE_MIN + EVIDENCE_PER_POWER * (odd.sum - odd.bar).max(0.0);
        let (from, to) = (Operation::ALL[odd.from], scene.call.op);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: raw.min(EVIDENCE_MAX) * scene.weight,
            severity: Severity::Medium,
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected: format!("runs of operations with a surprise of at most {:.0}", odd.bar),
            seen: format!("a run with a surprise of {:.0}, the last step {from} to {to}", odd.sum),
            clause: format!("made its calls in an unusual order ({from} before {to} and others)"),
            title: "API key makes its calls in another order",
            first_step: "Ask the key's owner whether they have a new client version; \
                         look at the calls before and after",
        });
    }
}
