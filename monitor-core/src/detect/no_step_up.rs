//! D17: funds were moved out, or who may do so was changed, without a fresh second factor, by what the
//! token says of the login (OpenID Connect Core 1.0, 2; RFC 8176; RFC 9470).
//!
//! A token that says nothing of the login proves nothing: the second factor may have come otherwise.

use std::time::Duration;

use super::{Detector, Found, Layer, Report, Rule, Scene, granted, is_sensitive, op_words, span};
use crate::alert::{Entity, Severity};
use crate::baseline::News;
use crate::call::{Operation, Outcome, Token};
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
        if scene.call.outcome != Some(Outcome::Ok) {
            return;
        }
        note_second_factor(scene);
        if !is_sensitive(scene.call.op) {
            return;
        }
        let token = scene.call.token.as_deref();
        let Some((id, key)) = &mut scene.key else { return };
        let weak = token.and_then(|token| weakness(token, scene.time));
        let Some(seen) = weak.or_else(|| {
            let proven = token.is_some_and(|token| proves(token, scene.time))
                || was_lately(key.duty.second_factor_s, scene.time);
            let is_bare = granted(scene.policy, *id, scene.call).needs_step_up() && !proven;
            is_bare.then(|| "without the second factor that its policy asks for".to_owned())
        }) else {
            return;
        };
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
            expected: "a second factor in the last hour".into(),
            clause: format!("made {what} {seen}"),
            seen,
            title: "Withdrawal without step-up",
            first_step: "Ask the account's owner whether they did this; hold the withdrawal",
        });
    }
}

/// A login, or a code that is checked, that goes well at an endpoint for second factors counts for the
/// key. To read about factors, to take one away or to ask for a challenge proves nothing.
fn note_second_factor(scene: &mut Scene<'_>) {
    if scene.call.op != Operation::Auth {
        return;
    }
    let method = scene.call.request.as_ref().map_or("", |request| request.method.as_str());
    if matches!(method, "GET" | "HEAD" | "OPTIONS" | "DELETE") {
        return;
    }
    let Some((_, key)) = &mut scene.key else { return };
    let path = scene.call.request.as_ref().map(|request| request.path.as_str());
    let name = scene.call.detail.as_ref().and_then(|detail| detail.name.as_deref());
    if [path, name].into_iter().flatten().any(names_second_factor) {
        key.duty.second_factor_s = u32::try_from(scene.time.secs()).unwrap_or(u32::MAX);
    }
}

/// Whether a path or method is one for second factors.
fn names_second_factor(text: &str) -> bool {
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
    let any = |known: &[&str]| words().any(|word| known.iter().any(|it| begins(word, it)));
    any(FACTORS) && !any(FIRST_STEPS)
}

fn begins(word: &str, with: &str) -> bool {
    let begin = word.as_bytes().get(..with.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
}

/// Words in paths of second factors.
const FACTORS: &[&str] = &[
    "mfa",
    "2fa",
    "otp",
    "totp",
    "webauthn",
    "passkey",
    "fido",
    "stepup",
    "twofactor",
    "assertion",
];

/// Beginnings of words for what comes before a factor is checked, or for what changes it: the options of a
/// ceremony (Web Authentication, 7), a code that is sent, one that is set up.
const FIRST_STEPS: &[&str] = &[
    "option",
    "begin",
    "start",
    "challenge",
    "enrol",
    "regist",
    "attest",
    "setup",
    "send",
    "resend",
    "request",
    "generat",
    "init",
    "enabl",
    "disabl",
    "reset",
    "delete",
    "remove",
];

/// Whether a moment, in seconds, is fresh.
fn was_lately(at_s: u32, now: EventTime) -> bool {
    at_s != 0 && now.secs().saturating_sub(u64::from(at_s)) <= FRESH.as_secs()
}

/// Whether the token says that there was a second factor, and lately.
fn proves(token: &Token, now: EventTime) -> bool {
    let strong = token.amr.iter().any(|method| STRONG.contains(&method.as_str()));
    let at = token.auth_time.or(token.issued).and_then(|at| u32::try_from(at).ok());
    strong && at.is_some_and(|at| was_lately(at, now))
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
