//! D15: a token was taken that should not have been (RFC 8725; OWASP API2:2023).
//!
//! Servers may pass over a token where they ask for none, and take an expired one to renew it. So only
//! calls that change something count.

use super::{Detector, Found, Layer, Report, Rule, Scene, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::News;
use crate::call::{Operation, Outcome, Token};
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

/// How far the clocks of issuer, server and capture may be apart: the most that libraries are set to.
const SKEW_S: i64 = 300;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unsigned,
    Expired,
    NotYet,
}

impl Detector for FaultyToken {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some(token) = &scene.call.token else { return };
        if scene.call.outcome != Some(Outcome::Ok) || !changes(scene.call.op) {
            return;
        }
        let Some(fault) = fault(token, scene.time) else { return };
        let Some((id, key)) = &mut scene.key else { return };
        if !key.is_news(News::FaultyToken(fault as usize)) {
            return;
        }
        let what = op_words(scene.call.op);
        let (expected, seen) = words(fault, token, scene.time);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: EVIDENCE * scene.weight,
            severity: Severity::Critical,
            alone: true,
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

/// What was expected, and what was seen.
fn words(fault: Fault, token: &Token, now: EventTime) -> (String, String) {
    let now_s = i64::try_from(now.secs()).unwrap_or(i64::MAX);
    let ago = |at: i64| now_s.saturating_sub(at);
    match fault {
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

/// Whether a call changes something.
fn changes(op: Operation) -> bool {
    match op {
        Operation::Public | Operation::Read | Operation::Auth => false,
        Operation::Trade
        | Operation::Cancel
        | Operation::Transfer
        | Operation::Withdraw
        | Operation::AddressBook
        | Operation::KeyManagement
        | Operation::Subaccount => true,
    }
}
