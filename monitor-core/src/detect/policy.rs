//! What the policy forbids and the server did all the same: D1, D5, D9, D16 and D18 by rule, without
//! learning. A call that was refused is none, but for D10, which grows by it.

use std::time::Duration;

use super::{Detector, Found, Layer, Report, Rule, Scene, granted, is_sensitive, op_words, span};
use crate::alert::{Entity, Severity};
use crate::call::Outcome;
use crate::policy::Granted;

pub(super) struct Forbidden;

static RATE: Rule = rule("D1", "rate above the policy", &["T1499.003"], &["API4"]);
static NETWORK: Rule = rule("D5", "network outside the policy", &["T1078.004"], &[]);
static OPERATION: Rule = rule("D9", "use outside the policy", &["T1098"], &["API5"]);
static REFUSED: Rule = rule("D10", "refused operation", &[], &["API5"]);
static REVOKED: Rule = rule("D16", "revoked key accepted", &["T1078"], &["API2"]);
static AGED: Rule = rule("D16", "key past its rotation age", &[], &["API2"]);
static SYMBOL: Rule = rule("D18", "symbol outside the policy", &["T1657"], &[]);

const fn rule(
    id: &'static str,
    name: &'static str,
    attack: &'static [&'static str],
    owasp: &'static [&'static str],
) -> Rule {
    Rule { id, name, layer: Layer::Invariant, attack, owasp }
}

/// The rule is the exchange's own: as sure as what a server refuses.
const EVIDENCE: f32 = 5.5;
/// A key that should be dead is in somebody's hands.
const EVIDENCE_REVOKED: f32 = 8.0;
/// What is forbidden was tried and refused.
const EVIDENCE_REFUSED: f32 = 2.5;
/// Old keys are many: one says little of an attack.
const EVIDENCE_AGED: f32 = 0.5;

/// How long a revocation may take to reach every server.
const REVOCATION_GRACE: Duration = Duration::from_secs(60);

/// What was broken, by the bit under which it is reported.
#[derive(Clone, Copy)]
enum Broken {
    Operation = 0,
    Network = 1,
    Symbol = 2,
    Hours = 3,
    Rate = 4,
    Revoked = 5,
    Aged = 6,
    Refused = 7,
}

/// How a breach is put.
struct Breach {
    rule: &'static Rule,
    severity: Severity,
    evidence: f32,
    alone: bool,
    expected: String,
    seen: String,
    clause: String,
    title: &'static str,
}

impl Detector for Forbidden {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        if scene.policy.is_empty() {
            return;
        }
        let Some((id, key)) = &mut scene.key else { return };
        let granted = granted(scene.policy, *id, scene.call);
        let calls = key.duty.count(scene.time);
        let (id, mut duty) = (*id, key.duty);
        let mut say = |broken: Broken, breach: &dyn Fn() -> Breach| {
            if !duty.is_news(broken as u32, scene.time) {
                return;
            }
            report.add(|| {
                let breach = breach();
                Found {
                    entity: Entity::Key(id),
                    rule: breach.rule,
                    evidence: breach.evidence * scene.weight,
                    severity: breach.severity,
                    alone: breach.alone,
                    grown: false,
                    complete: scene.call.complete,
                    calls: 1,
                    expected: breach.expected,
                    seen: breach.seen,
                    clause: breach.clause,
                    title: breach.title,
                    first_step: "Disable the key until its owner confirms that they did this; if \
                                 they may, mend the policy",
                }
            });
        };
        match scene.call.outcome {
            Some(Outcome::Ok) => served(scene, &granted, calls, &mut say),
            Some(Outcome::PermissionDenied | Outcome::IpDenied)
                if !granted.allows(scene.call.op) || !granted.allows_from(scene.call.client()) =>
            {
                say(Broken::Refused, &|| refused(scene));
            }
            Some(_) | None => {}
        }
        if let Some((_, key)) = &mut scene.key {
            key.duty = duty;
        }
    }
}

type Say<'a> = &'a mut dyn FnMut(Broken, &dyn Fn() -> Breach);

/// What a call breaks that went well.
fn served(scene: &Scene<'_>, granted: &Granted<'_>, calls: u32, say: Say<'_>) {
    let call = scene.call;
    let what = op_words(call.op);
    let severity = if is_sensitive(call.op) { Severity::High } else { Severity::Medium };
    if !granted.allows(call.op) {
        let allowed = granted.operations().unwrap_or_default();
        let allowed: Vec<&str> = allowed.iter().map(|op| op.as_str()).collect();
        say(Broken::Operation, &|| Breach {
            expected: match allowed.as_slice() {
                [] => "no call at all, by the policy".into(),
                allowed => format!("{} alone, by the policy", allowed.join(", ")),
            },
            seen: what.into(),
            clause: format!("made {what}, which its policy forbids"),
            title: "API key did what its policy forbids",
            ..breach(&OPERATION, severity)
        });
    }
    if !granted.allows_from(call.client()) {
        say(Broken::Network, &|| Breach {
            expected: "the networks of its policy".into(),
            seen: format!("a call from {}", call.client()),
            clause: format!("was used from {}, which its policy forbids", call.client()),
            title: "API key used from a forbidden network",
            ..breach(&NETWORK, severity)
        });
    }
    if let Some(symbol) = &call.symbol
        && super::changes(call.op)
        && !granted.allows_symbol(symbol)
    {
        say(Broken::Symbol, &|| Breach {
            expected: "the symbols of its policy".into(),
            seen: format!("{what} on {symbol}"),
            clause: format!("made {what} on {symbol}, which its policy forbids"),
            title: "API key traded what its policy forbids",
            ..breach(&SYMBOL, severity)
        });
    }
    if let Some(hours) = granted.outside_hours(scene.time) {
        say(Broken::Hours, &|| Breach {
            expected: format!("use from {hours} UTC, by the policy"),
            seen: format!("{what} at another time"),
            clause: format!("made {what} outside {hours} UTC, the hours of its policy"),
            title: "API key used outside its hours",
            ..breach(&OPERATION, severity)
        });
    }
    if granted.calls_per_minute_max().is_some_and(|most| calls > most) {
        let most = granted.calls_per_minute_max().unwrap_or_default();
        say(Broken::Rate, &|| Breach {
            expected: format!("at most {most} calls a minute, by the policy"),
            seen: format!("{calls} calls in a minute"),
            clause: format!("made more than the {most} calls a minute of its policy"),
            title: "API key called more often than its policy allows",
            ..breach(&RATE, Severity::Medium)
        });
    }
    let revoked = granted.revoked().map(|at| at.time());
    if let Some(age) = revoked
        .filter(|at| scene.time > at.after(REVOCATION_GRACE))
        .map(|at| span(scene.time.since(at)))
    {
        let bad = is_sensitive(call.op) || super::changes(call.op);
        let severity = if bad { Severity::Critical } else { Severity::High };
        say(Broken::Revoked, &|| Breach {
            expected: "no accepted call after the revocation".into(),
            seen: format!("{what} accepted {age} after it"),
            clause: format!("made {what} {age} after it was revoked"),
            title: "Revoked key accepted",
            evidence: EVIDENCE_REVOKED,
            ..breach(&REVOKED, severity)
        });
    } else if let Some(overdue) = granted.overdue(scene.time) {
        say(Broken::Aged, &|| Breach {
            expected: "a key that is replaced in time, by the policy".into(),
            seen: format!("a key {} past its rotation age", span(overdue)),
            clause: format!("should have been replaced {} ago", span(overdue)),
            title: "API key is past its rotation age",
            evidence: EVIDENCE_AGED,
            alone: false,
            ..breach(&AGED, Severity::Low)
        });
    }
}

fn refused(scene: &Scene<'_>) -> Breach {
    let what = op_words(scene.call.op);
    Breach {
        expected: "not even a try, by the policy".into(),
        seen: format!("{what} that its policy forbids, refused"),
        clause: format!("was refused {what}, which its policy forbids too"),
        title: "API key tries what its policy forbids",
        evidence: EVIDENCE_REFUSED,
        alone: false,
        ..breach(&REFUSED, Severity::Medium)
    }
}

fn breach(rule: &'static Rule, severity: Severity) -> Breach {
    Breach {
        rule,
        severity,
        evidence: EVIDENCE,
        alone: true,
        expected: String::new(),
        seen: String::new(),
        clause: String::new(),
        title: "",
    }
}
