//! D1: a key calls much faster than it does at this hour, while others do not.

use super::{Detector, Found, Layer, Report, Rule, Scene, span};
use crate::alert::{Entity, Severity};
use crate::baseline::Place;

pub(super) struct RateSpike;

static RULE: Rule = Rule {
    id: "D1",
    name: "rate spike",
    layer: Layer::Behaviour,
    attack: &["T1499.003"],
    owasp: &["API4"],
};

/// Evidence at the threshold: not enough alone; each further power of ten adds a little, so that
/// only a spike far beyond all before it alerts by itself.
const EVIDENCE_MIN: f32 = 3.5;
const EVIDENCE_PER_DECADE: f32 = 0.4;
const EVIDENCE_MAX: f32 = 5.5;
/// At least, where many keys come as far.
const EVIDENCE_FREQUENT: f32 = 2.5;
/// For a key that is not known yet: it has shown too little for more.
const EVIDENCE_UNKNOWN_MAX: f32 = 1.5;
/// Minutes after which a key's own rate is known a little.
const WINDOWS_MIN: u32 = 60;

impl Detector for RateSpike {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let (op, settings) = (scene.op, scene.settings);
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        if key.rate.count(op) {
            if key.rate.begins_to_be_busy(op, &settings.rate) {
                scene.fleet.note_busy();
            }
            let minute_share = (scene.time.0 % 60_000_000_000) as f64 / 6e10;
            let factor = scene.fleet.factor(op, &key.rate, minute_share);
            let in_minute = key.rate.check(op, factor, &settings.rate);
            let in_long = key.rate.check_long(factor, &settings.rate);
            let what = scene.call.op.as_str();
            for (spike, what, window) in
                [(in_minute, what, "a minute"), (in_long, "API", "10 minutes")]
            {
                let Some(spike) = spike else { continue };
                let age_s = scene.time.since(key.first_seen).as_secs();
                let known = if age_s < settings.young_key_s { 0.6 } else { 1.0 };
                let raw = EVIDENCE_MIN + EVIDENCE_PER_DECADE * spike.excess as f32;
                let max = if key.rate.windows_seen() < WINDOWS_MIN {
                    EVIDENCE_UNKNOWN_MAX
                } else {
                    EVIDENCE_MAX
                };
                let peaks = &mut scene.fleet.peaks;
                let rare = peaks.evidence(spike.excess as f32, scene.time, scene.keys);
                if age_s >= settings.settled_key_s && scene.place == Place::Known {
                    peaks.note(*id, spike.excess as f32, scene.time, scene.keys);
                }
                let took = span(scene.time.since(spike.since));
                let (count, usual) = (spike.count, spike.usual_max);
                report.add(|| Found {
                    entity: Entity::Key(*id),
                    rule: &RULE,
                    evidence: (raw.min(rare.max(EVIDENCE_FREQUENT)) * known).min(max) * scene.weight,
                    severity: Severity::Medium,
                    alone: false,
                    grown: false,
                    complete: scene.call.complete,
                    calls: u64::from(count),
                    expected: format!("at most {usual} {what} calls in {window} at this hour"),
                    seen: format!("{count} {what} calls in the last {took}"),
                    clause: format!(
                        "made {count} {what} calls in {took} where at most {usual} in {window} are usual"
                    ),
                    title: "API key calls far faster than usual",
                    first_step: "Ask the key's owner whether they started something new; \
                                 if not, disable the key",
                });
            }
        }
        if key.rate.is_ordinary(op) {
            scene.fleet.count(op);
        }
    }
}
