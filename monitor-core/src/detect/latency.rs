//! D27: an endpoint answers far slower than it did: load, or an attack on what is expensive.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::Outcome;

pub(super) struct Latency;

static RULE: Rule = Rule {
    id: "D27",
    name: "latency degradation",
    layer: Layer::Behaviour,
    attack: &["T1499.003"],
    owasp: &["API4"],
};

/// Worth a line beside others; load alone does as much.
const EVIDENCE: f32 = 2.0;

impl Detector for Latency {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let (Some(latency_us), Some(request)) = (call.latency_us, &call.request) else { return };
        // Paths that are not there are no endpoints.
        if call.outcome != Some(Outcome::Ok) || request.path.is_empty() {
            return;
        }
        let (time_s, settings) = (scene.time.secs(), &scene.settings.latency);
        let routes = &mut scene.across.routes;
        let slow = routes.note(scene.named, request, latency_us, time_s, settings);
        let Some(slow) = slow else { return };
        report.add(|| Found {
            entity: Entity::Host,
            rule: &RULE,
            evidence: EVIDENCE,
            severity: Severity::Low,
            alone: true,
            grown: false,
            complete: call.complete,
            calls: u64::from(slow.calls),
            expected: format!("99 % of calls answered within {:.0} ms", slow.usual_ms),
            seen: format!(
                "{} {} and the like take {:.0} ms (99 % of {} calls)",
                request.method, request.path, slow.p99_ms, slow.calls
            ),
            clause: format!(
                "answers {} {} and the like within {:.0} ms only, {:.0} ms is usual",
                request.method, request.path, slow.p99_ms, slow.usual_ms
            ),
            title: "An endpoint answers far slower than usual",
            first_step: "Look at who calls it most, and at what stands behind it",
        });
    }
}
