//! D2: far more of a key's calls fail than usual, while others' do not.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::Outcome;

pub(super) struct ErrorBurst;

static RULE: Rule =
    Rule { id: "D2", name: "error burst", layer: Layer::Behaviour, attack: &["T1110"], owasp: &[] };

/// At the threshold; a client's deployment does as much, so it never suffices alone.
const EVIDENCE_MIN: f32 = 2.0;
const EVIDENCE_PER_DECADE: f32 = 0.15;
const EVIDENCE_MAX: f32 = 4.0;

impl Detector for ErrorBurst {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        let Some(outcome) = scene.call.outcome else { return };
        let failed = outcome != Outcome::Ok;
        if key.failures.count(failed) {
            let others = scene.fleet.failure_share(&key.failures);
            if let Some(burst) = key.failures.check(others, &scene.settings.errors) {
                let age_s = scene.time.since(key.first_seen).as_secs();
                let known = if age_s < scene.settings.young_key_s { 0.5 } else { 1.0 };
                let raw = EVIDENCE_MIN + EVIDENCE_PER_DECADE * burst.excess as f32;
                let (failed, calls, percent) = (burst.failed, burst.calls, burst.share * 100.0);
                report.add(|| Found {
                    entity: Entity::Key(*id),
                    rule: &RULE,
                    evidence: raw.min(EVIDENCE_MAX) * known * scene.weight,
                    severity: Severity::Medium,
                    alone: false,
                    grown: false,
                    complete: scene.call.complete,
                    calls: u64::from(calls),
                    expected: format!("about {percent:.1} % of calls fail"),
                    seen: format!("{failed} of {calls} calls failed within a minute, last: {outcome}"),
                    clause: format!(
                        "had {failed} of {calls} calls fail within a minute where {percent:.1} % is usual"
                    ),
                    title: "API key's calls fail far more than usual",
                    first_step: "Look at what fails: a new client version fails one way, \
                                 a thief who tries things out fails in many",
                });
            }
        }
        if scene.is_authentic {
            scene.fleet.count_outcome(failed);
        }
    }
}
