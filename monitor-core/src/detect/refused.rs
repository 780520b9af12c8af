//! D10: a key asks for what it may not have.

use super::{Detector, Found, Layer, Report, Rule, Scene, is_sensitive, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::News;
use crate::call::{ApiCall, Outcome};

pub(super) struct Refused;

static RULE: Rule =
    Rule { id: "D10", name: "refused operation", layer: Layer::Invariant, attack: &[], owasp: &[] };

/// A withdrawal that is refused suffices alone.
const EVIDENCE_SENSITIVE: f32 = 5.5;
/// Unless this key is often refused: a job that nobody mends.
const EVIDENCE_HABITUAL: f32 = 1.5;
/// Refusals so rare for the key that one of them is news: one in twenty quarters of an hour.
const SURPRISE_SENSITIVE_MIN: f64 = 1.0;
/// For other operations a run of them is.
const SURPRISE_MIN: f64 = 2.0;
const EVIDENCE_PER_DECADE: f64 = 0.4;
const EVIDENCE_MAX: f64 = 3.5;

impl Detector for Refused {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if !is_refusal(scene.call) {
            return;
        }
        let sensitive = is_sensitive(scene.call.op);
        let refusals = if sensitive { &mut key.refused_sensitive } else { &mut key.refused };
        let quarter = u32::try_from(scene.time.secs() / 900).unwrap_or(u32::MAX);
        let (count, surprise) = refusals.add(quarter);
        let (earlier, per_day) = (refusals.earlier(), refusals.per_day());
        let (evidence, severity, alone) = if sensitive && surprise >= SURPRISE_SENSITIVE_MIN {
            // A key that was never accepted may be made up: it does not go past the budget.
            let severity = if key.calls == 0 { Severity::Medium } else { Severity::High };
            (EVIDENCE_SENSITIVE, severity, true)
        } else if sensitive {
            (EVIDENCE_HABITUAL, Severity::Medium, false)
        } else if surprise >= SURPRISE_MIN {
            let evidence = (surprise * EVIDENCE_PER_DECADE).min(EVIDENCE_MAX);
            (evidence as f32, Severity::Medium, false)
        } else {
            return;
        };
        // A run is news again each time that it doubles.
        if !key.is_news(News::Refused(scene.op)) && !count.is_power_of_two() {
            return;
        }
        let outcome = scene.call.outcome.map_or("refused", Outcome::as_str);
        let what = op_words(scene.call.op);
        let times = if count == 1 { String::new() } else { format!(" {count} times in 15 min") };
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity,
            alone,
            grown: false,
            complete: scene.call.complete,
            calls: u64::from(count),
            expected: if earlier == 0 {
                "none such from this key so far".to_owned()
            } else if per_day < 1.0 {
                format!("at most one such refusal in {:.0} days", 1.0 / per_day)
            } else {
                format!("about {per_day:.1} such refusals a day")
            },
            seen: format!("{what} refused with {outcome}{times}"),
            clause: format!("was refused {what} ({outcome}){times}"),
            title: if sensitive {
                "Withdrawal or key change refused"
            } else {
                "API key is refused"
            },
            first_step: "Disable the key until its owner confirms that they asked for this",
        });
    }
}

/// Whether a good key asked for what it may not have.
pub(crate) fn is_refusal(call: &ApiCall) -> bool {
    let Some(outcome) = call.outcome else { return false };
    match outcome {
        Outcome::PermissionDenied | Outcome::IpDenied | Outcome::AddressNotAllowed => true,
        // Binance's -2015 means key, address or permission alike; of a key that is known to be good
        // it means one of the others.
        Outcome::BadKey => {
            let is_binance = call.key.as_ref().is_some_and(|key| key.profile == "binance");
            is_binance && is_sensitive(call.op)
        }
        Outcome::Ok
        | Outcome::BadSignature
        | Outcome::Skew
        | Outcome::ReplayedNonce
        | Outcome::MfaRequired
        | Outcome::Throttled
        | Outcome::Banned
        | Outcome::Locked
        | Outcome::Error => false,
    }
}
