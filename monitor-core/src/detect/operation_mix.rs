//! D8: a key's calls are of other kinds than they were.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::Operation;

pub(super) struct OperationMix;

static RULE: Rule = Rule {
    id: "D8",
    name: "change of operation mix",
    layer: Layer::Behaviour,
    attack: &["T1078"],
    owasp: &["API6"],
};

/// At the bar, for each tenth beyond it, and at most: a new strategy does as much.
const EVIDENCE_MIN: f32 = 1.5;
const EVIDENCE_PER_TENTH: f32 = 0.4;
const EVIDENCE_MAX: f32 = 3.0;

impl Detector for OperationMix {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        let Some(shift) = key.mix.count(scene.op) else { return };
        if scene.time.since(key.first_seen).as_secs() < scene.settings.young_key_s {
            return;
        }
        let raw =
            EVIDENCE_MIN + EVIDENCE_PER_TENTH * 10.0 * (shift.divergence - shift.bar).max(0.0);
        let op = Operation::ALL[shift.op];
        let (usual, now) = (shift.usual * 100.0, shift.now * 100.0);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: raw.min(EVIDENCE_MAX) * scene.weight,
            severity: if raw >= EVIDENCE_MAX { Severity::Medium } else { Severity::Low },
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 128,
            expected: format!(
                "about {usual:.0} % {op} calls; a divergence of at most {:.2}",
                shift.bar
            ),
            seen: format!(
                "{now:.0} % {op} calls among its last 64; a divergence of {:.2}",
                shift.divergence
            ),
            clause: format!("made {now:.0} % {op} calls where {usual:.0} % are usual"),
            title: "API key is used for other things than before",
            first_step: "Ask the key's owner whether they changed what their program does",
        });
    }
}
