//! D11: a key goes through objects one after the other, its own or not (OWASP API1:2023).
//!
//! Ids of an exchange are given out over all its customers, so that nobody's own are neighbours, and
//! nobody is denied his own.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::baseline::Walk;
use crate::call::{ApiCall, Operation, Outcome};

pub(super) struct Enumeration;

static RULE: Rule = Rule {
    id: "D11",
    name: "object enumeration",
    layer: Layer::Behaviour,
    attack: &["T1530"],
    owasp: &["API1"],
};

/// More different objects than a screen shows.
const DISTINCT_MIN: u32 = 30;
/// Denials that are no mistake any more, and their part of all.
const DENIED_MIN: u16 = 10;
const DENIED_PART: u16 = 3;
/// Others' calls fail as well: an outage, not a denial.
const OUTAGE_SHARE: f64 = 0.3;
/// Neighbours in a row that are no accident, and so many that nothing else is left.
const RUN_MIN: u16 = 20;
const RUN_LONG: u16 = 100;
/// Times as many objects as ever before.
const TIMES_MOST: f32 = 4.0;

const EVIDENCE_DENIED: f32 = 3.5;
const EVIDENCE_RUN: f32 = 3.0;
const EVIDENCE_RUN_LONG: f32 = 4.0;
const EVIDENCE_MANY: f32 = 1.5;
/// What each further quarter of an hour with such denials adds for each natural power of how rare they were,
/// and all of them at most: a client that is broken for half an hour does not suffice.
const EVIDENCE_AGAIN: f32 = 0.1;
const EVIDENCE_AGAIN_MAX: f32 = 2.0;
/// No quarter is rarer than one in so many: two days of them.
const ODD_SHARE_MIN: f32 = 0.005;

impl Detector for Enumeration {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some(object) = call.object_ids.first() else { return };
        let Some((id, key)) = &mut scene.key else { return };
        let denied = is_denied(call) && scene.fleet.failure_share(&key.failures) < OUTAGE_SHARE;
        if !scene.is_authentic || !(denied || looks(call.op)) {
            return;
        }
        let route = scene.named.route as u32;
        let quarter = u32::try_from(scene.time.secs() / 900).unwrap_or(u32::MAX);
        let hash = FixedState::with_seed(u64::from(route)).hash_one(object.as_bytes());
        scene.across.walkers += usize::from(key.objects.is_none());
        let objects = key.objects.get_or_insert_default();
        let walk = objects.note(quarter, route, object, hash, denied);
        let (evidence, severity) = weigh(&walk);
        if severity == Severity::Low {
            return;
        }
        let (again, evidence) = if is_denied_often(&walk) {
            let (odd, share) = objects.note_odd();
            let rare = -share.clamp(ODD_SHARE_MIN, 1.0).ln();
            let more = EVIDENCE_AGAIN * rare * odd.saturating_sub(1) as f32;
            (odd, evidence + more.min(EVIDENCE_AGAIN_MAX))
        } else {
            (0, evidence)
        };
        if !objects.is_news(evidence) {
            return;
        }
        let again = match again {
            0 | 1 => String::new(),
            times => format!(", in {times} such times within 8 h"),
        };
        let Walk { distinct, most, run, asked, denied } = walk;
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity,
            alone: false,
            grown: false,
            complete: call.complete,
            calls: u64::from(asked),
            expected: format!("at most about {most:.0} different objects in 15 min, its own"),
            seen: format!(
                "{distinct} different objects in 15 min, {run} ids in a row, {denied} of {asked} denied{again}"
            ),
            clause: format!(
                "went through {distinct} objects ({run} ids in a row, {denied} of {asked} denied{again})"
            ),
            title: "API key goes through objects that may not be its own",
            first_step: "Check whose objects were given out, and let the server check ownership",
        });
    }
}

/// Evidence, and how bad: low says nothing.
fn weigh(walk: &Walk) -> (f32, Severity) {
    let is_denied = is_denied_often(walk);
    let in_a_row = match walk.run {
        RUN_LONG.. => EVIDENCE_RUN_LONG,
        RUN_MIN.. => EVIDENCE_RUN,
        _ => 0.0,
    };
    let is_many = walk.distinct >= DISTINCT_MIN && walk.distinct as f32 >= TIMES_MOST * walk.most;
    let denied = if is_denied { EVIDENCE_DENIED } else { 0.0 };
    let many = if is_many { EVIDENCE_MANY } else { 0.0 };
    let severity = match (is_denied, in_a_row > 0.0) {
        (true, true) => Severity::High,
        (true, false) if is_many => Severity::High,
        (true, false) | (false, true) => Severity::Medium,
        (false, false) => Severity::Low,
    };
    (denied + in_a_row + many, severity)
}

/// Denied more often than by mistake.
fn is_denied_often(walk: &Walk) -> bool {
    walk.denied >= DENIED_MIN
        && walk.denied >= walk.asked / DENIED_PART
        && walk.distinct >= u32::from(DENIED_MIN)
}

/// Whether the object is another's, or none: some answer 403 or 404, some 400 or even 200 with an error
/// in the body.
fn is_denied(call: &ApiCall) -> bool {
    let status = call.response.as_ref().and_then(|response| response.status);
    match call.outcome {
        Some(Outcome::PermissionDenied) => true,
        Some(Outcome::Error) => looks(call.op) && status.is_none_or(|status| status < 500),
        _ => matches!(status, Some(403 | 404)),
    }
}

/// Asks for what there is. Orders name ids that the client makes up itself.
fn looks(op: Operation) -> bool {
    match op {
        Operation::Read | Operation::Public | Operation::Subaccount => true,
        Operation::Trade
        | Operation::Cancel
        | Operation::Transfer
        | Operation::Withdraw
        | Operation::AddressBook
        | Operation::KeyManagement
        | Operation::Auth => false,
    }
}
