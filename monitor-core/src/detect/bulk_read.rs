//! D22: the answers to a key are far bigger than they were, and than they are for others there.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::{Operation, Outcome};

pub(super) struct BulkRead;

static RULE: Rule = Rule {
    id: "D22",
    name: "answers far bigger than usual",
    layer: Layer::Behaviour,
    attack: &["T1567"],
    owasp: &["API3", "API4"],
};

/// At the bar, for each natural power beyond it, and at most. Once a dozen pages of
/// history, as somebody takes for the tax office, do not suffice; hundreds do.
const EVIDENCE_MIN: f32 = 2.0;
const EVIDENCE_PER_POWER: f32 = 0.2;
const EVIDENCE_MAX: f32 = 5.5;
/// Smaller answers are never bulk, bytes: a page of a list.
const BYTES_MIN: f32 = 32_768.0;

impl Detector for BulkRead {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some((id, key)) = &mut scene.key else { return };
        let Some(response) = &call.response else { return };
        if call.outcome != Some(Outcome::Ok) {
            return;
        }
        let bytes = response.body_bytes;
        // What is small is learnt of the key alone: an endpoint is looked up for what is big.
        let is_big = bytes as f32 >= BYTES_MIN;
        let has_endpoint = is_big && call.request.is_some();
        let sizes = &mut scene.fleet.endpoint_sizes;
        let endpoint = if has_endpoint { sizes.most(scene.named, bytes, *id) } else { 0.0 };
        let is_read = matches!(call.op, Operation::Read | Operation::Public);
        let Some(bulk) = key.sizes.note(is_read, bytes, BYTES_MIN.ln(), endpoint) else { return };
        if scene.time.since(key.first_seen).as_secs() < scene.settings.young_key_s {
            return;
        }
        let raw = EVIDENCE_MIN + EVIDENCE_PER_POWER * (bulk.sum - bulk.bar).max(0.0);
        let usual = size(f64::from(bulk.usual_bytes));
        let seen = size(bytes as f64);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: raw.min(EVIDENCE_MAX) * scene.weight,
            severity: Severity::Medium,
            alone: false,
            grown: false,
            complete: call.complete,
            calls: 1,
            expected: format!("answers of at most {usual}"),
            seen: format!("several bigger ones, the last of {seen}"),
            clause: format!("got answers of up to {seen} where at most {usual} is usual"),
            title: "API key takes far more data than usual",
            first_step: "Look at what was read; ask the key's owner whether they exported their \
                         history",
        });
    }
}

/// Bytes in words.
fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e4 => format!("{bytes:.0} B"),
        bytes if bytes < 1e7 => format!("{:.0} kB", bytes / 1e3),
        bytes if bytes < 1e10 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.0} GB", bytes / 1e9),
    }
}
