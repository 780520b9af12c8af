//! D15: a token was taken that should not have been (RFC 8725; OWASP API2:2023).
//!
//! Servers may pass over a token where they ask for none, and take an expired one to renew it. So only
//! calls that change something count. Where no policy names whom tokens are for, each key's tokens show it:
//! one for somebody whom hardly any key's tokens are for is evidence.

use super::{Detector, Found, Layer, Report, Rule, Scene, changes, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::{Audience, Mark, News, Place};
use crate::call::{Outcome, Token};
use crate::policy::HostRules;
use crate::time::EventTime;

pub(super) struct FaultyToken;

static RULE: Rule = Rule {
    id: "D15",
    name: "faulty token accepted",
    layer: Layer::Invariant,
    attack: &["T1606"],
    owasp: &["API2"],
};

/// Certain, but for clocks: past what any alert takes.
const EVIDENCE: f32 = 8.0;

/// For whom no token of the key was, and of hardly any other: with anything else it suffices. A new service
/// does as much.
const EVIDENCE_OTHER: f32 = 4.0;
/// Keys whose tokens are for somebody, before these are one of those that tokens are for.
const AUDIENCE_KEYS: u32 = 3;

/// How far the clocks of issuer, server and capture may be apart: the most that libraries are set to.
const SKEW_S: i64 = 300;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unsigned = 0,
    Expired = 1,
    NotYet = 2,
    /// For another API than this one, by the policy.
    Audience = 3,
    /// From who may not issue tokens for this one, by the policy.
    Issuer = 4,
    /// For whom no token was.
    OtherAudience = 5,
}

impl Detector for FaultyToken {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some(token) = &scene.call.token else { return };
        if scene.call.outcome != Some(Outcome::Ok) || !changes(scene.call.op) {
            return;
        }
        let host = scene.call.request.as_ref().and_then(|request| request.host.as_deref());
        let rules = host.and_then(|host| scene.policy.host(host));
        let by_policy = || rules.and_then(|rules| misplaced(token, rules));
        let fault = fault(token, scene.time).or_else(by_policy);
        let is_ruled = rules.is_some_and(|rules| !rules.audience.is_empty());
        let is_other = !is_ruled && !token.audience.is_empty() && is_other(scene, token);
        let Some(fault) = fault.or(is_other.then_some(Fault::OtherAudience)) else { return };
        let Some((id, key)) = &mut scene.key else { return };
        let (evidence, severity, alone) = match fault {
            Fault::OtherAudience => (EVIDENCE_OTHER, Severity::High, false),
            Fault::Unsigned | Fault::Expired | Fault::NotYet | Fault::Audience | Fault::Issuer => {
                (EVIDENCE, Severity::Critical, true)
            }
        };
        if !key.is_news(News::FaultyToken(fault as usize)) {
            return;
        }
        let what = op_words(scene.call.op);
        let (expected, seen) = words(fault, token, scene.time);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity,
            alone,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected,
            clause: format!("made {what} with {seen}"),
            seen,
            title: "Faulty token accepted",
            first_step: "Find the server that took the token and mend how it checks tokens; \
                         revoke what was issued to this subject",
        });
    }
}

/// Whether a token is for none of those that the key's were for, and that a few other keys' are for. What
/// comes from elsewhere makes nobody one of them.
fn is_other(scene: &mut Scene<'_>, token: &Token) -> bool {
    let Some((_, key)) = &mut scene.key else { return false };
    let day = scene.now_s / 86_400;
    let marks = token.audience.iter().map(|name| Mark::of(("audience", name.as_str())));
    let audiences = &mut scene.fleet.audiences;
    let (mark, is_other) = match key.sessions.note_audience(marks) {
        Audience::Known => return false,
        Audience::First(mark) => (mark, false),
        Audience::Other(mark) => {
            let (keys, _) = audiences.uptake(mark.number(), day);
            (mark, keys < AUDIENCE_KEYS)
        }
    };
    if scene.place != Place::NewNetwork || !is_other {
        audiences.note(mark.number(), day, true);
    }
    is_other
}

fn fault(token: &Token, now: EventTime) -> Option<Fault> {
    let now_s = i64::try_from(now.secs()).unwrap_or(i64::MAX);
    if token.algorithm.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("none")) {
        Some(Fault::Unsigned)
    } else if token.expires.is_some_and(|at| at.saturating_add(SKEW_S) < now_s) {
        Some(Fault::Expired)
    } else if token.not_before.is_some_and(|at| at.saturating_sub(SKEW_S) > now_s) {
        Some(Fault::NotYet)
    } else {
        None
    }
}

/// What a policy has against a token. One that names no audience or issuer is none of its matter.
fn misplaced(token: &Token, rules: &HostRules) -> Option<Fault> {
    let is_meant = |name| rules.audience.contains(name);
    if let Some(issuer) = &token.issuer
        && !rules.issuer.is_empty()
        && !rules
            .issuer
            .iter()
            .any(|known| known.trim_end_matches('/') == issuer.trim_end_matches('/'))
    {
        return Some(Fault::Issuer);
    }
    let judged = !rules.audience.is_empty() && !token.audience.is_empty();
    (judged && !token.audience.iter().any(is_meant)).then_some(Fault::Audience)
}

/// What was expected, and what was seen.
fn words(fault: Fault, token: &Token, now: EventTime) -> (String, String) {
    let now_s = i64::try_from(now.secs()).unwrap_or(i64::MAX);
    let ago = |at: i64| now_s.saturating_sub(at);
    match fault {
        Fault::Audience => (
            "a token for this host, by the policy".into(),
            format!("a token for {}", token.audience.join(", ")),
        ),
        Fault::OtherAudience => (
            "a token for those that the key's tokens were for".into(),
            format!("a token for {}", token.audience.join(", ")),
        ),
        Fault::Issuer => (
            "a token from an issuer that the policy names".into(),
            format!("a token issued by {}", token.issuer.as_deref().unwrap_or("nobody")),
        ),
        Fault::Unsigned => {
            ("a signed token".into(), "a token without a signature (alg none)".into())
        }
        Fault::Expired => (
            "a token that is still good".into(),
            format!("a token that expired {} s before", ago(token.expires.unwrap_or_default())),
        ),
        Fault::NotYet => (
            "a token that is good already".into(),
            format!(
                "a token that is good from {} s later",
                -ago(token.not_before.unwrap_or_default())
            ),
        ),
    }
}
