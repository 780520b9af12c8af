//! D13: the clock behind a key's signatures is suddenly another. Evidence only.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};

pub(super) struct ClockDrift;

static RULE: Rule = Rule {
    id: "D13",
    name: "time stamp drift",
    layer: Layer::Novelty,
    attack: &["T1078"],
    owasp: &["API2"],
};

/// Another machine has another clock; but clocks are set, and networks slow down.
const EVIDENCE: f32 = 1.0;

impl Detector for ClockDrift {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        let signed = scene.call.detail.as_ref().and_then(|detail| detail.signed);
        // A time that is not signed may be what is asked about.
        let Some(stated_ms) =
            signed.filter(|it| it.fingerprint.is_some()).and_then(|it| it.stated_ms)
        else {
            return;
        };
        if !scene.is_authentic {
            return;
        }
        let received_ms = scene.time.0 as f64 / 1e6;
        let skew_ms = (received_ms - stated_ms as f64) as f32;
        let drift_ms = scene.settings.replay.drift_ms;
        if let Some((usual, running)) = key.signing.note_skew(skew_ms, drift_ms as f32) {
            report.add(|| Found {
                entity: Entity::Key(*id),
                rule: &RULE,
                evidence: EVIDENCE * scene.weight,
                severity: Severity::Low,
                alone: false,
                grown: false,
                complete: scene.call.complete,
                calls: 1,
                expected: format!("requests {usual:.0} ms after the time they state"),
                seen: format!("they come {running:.0} ms after it"),
                clause: format!(
                    "was signed by a clock that is off by {:.1} s more than usual",
                    (running - usual) / 1_000.0
                ),
                title: "API key is used by another clock",
                first_step: "Ask the key's owner whether they moved to another machine",
            });
        }
    }
}
