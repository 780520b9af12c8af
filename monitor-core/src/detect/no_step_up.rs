//! D17: funds were moved out, or who may do so was changed, without a fresh second factor, by what the
//! token says of the login (OpenID Connect Core 1.0, 2; RFC 8176; RFC 9470).
//!
//! A token that says nothing of the login proves nothing: the second factor may have come otherwise.

use std::time::Duration;

use super::{Detector, Found, Layer, Report, Rule, Scene, is_sensitive, op_words, span};
use crate::alert::{Entity, Severity};
use crate::baseline::News;
use crate::call::{Outcome, Token};
use crate::time::EventTime;

pub(super) struct NoStepUp;

static RULE: Rule = Rule {
    id: "D17",
    name: "no step-up",
    layer: Layer::Invariant,
    attack: &["T1078"],
    owasp: &["API2", "API6"],
};

const EVIDENCE: f32 = 5.5;

/// How long a login stays fresh: the usual `max_age` of banks and exchanges is 5 to 15 minutes.
const FRESH: Duration = Duration::from_secs(3600);

/// Methods of RFC 8176 that are, or need, more than what is known.
const STRONG: &[&str] = &[
    "mfa", "otp", "hwk", "swk", "fpt", "face", "iris", "retina", "sc", "pop", "sms", "tel", "u2f",
    "webauthn", "fido",
];

impl Detector for NoStepUp {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some(token) = &scene.call.token else { return };
        if scene.call.outcome != Some(Outcome::Ok) || !is_sensitive(scene.call.op) {
            return;
        }
        let Some(seen) = weakness(token, scene.time) else { return };
        let Some((id, key)) = &mut scene.key else { return };
        if !key.is_news(News::NoStepUp) {
            return;
        }
        let what = op_words(scene.call.op);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: EVIDENCE * scene.weight,
            severity: Severity::High,
            alone: true,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected: "a login with a second factor in the last hour".into(),
            clause: format!("made {what} {seen}"),
            seen,
            title: "Withdrawal without step-up",
            first_step: "Ask the account's owner whether they did this; hold the withdrawal",
        });
    }
}

/// What the token says of a login that should not do.
fn weakness(token: &Token, now: EventTime) -> Option<String> {
    let strong = token.amr.iter().any(|method| STRONG.contains(&method.as_str()));
    if !token.amr.is_empty() && !strong {
        return Some(format!("after a login with {} alone", token.amr.join(", ")));
    }
    let login = u64::try_from(token.auth_time?).ok()?;
    let age = Duration::from_secs(now.secs().saturating_sub(login));
    (age > FRESH).then(|| format!("{} after the login", span(age)))
}
