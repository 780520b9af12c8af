//! D9: a key does a kind of thing that it never did.

use super::{Detector, Found, Layer, Report, Rule, Scene, is_login, is_sensitive, op_words, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{News, Place};
use crate::call::{Operation, Outcome};

pub(super) struct FirstUse;

static RULE: Rule = Rule {
    id: "D9",
    name: "first use of an operation",
    layer: Layer::Behaviour,
    attack: &["T1098"],
    owasp: &["API5"],
};

/// How well a key is known, from 0 to 1, when it counts among those that have shown what they do.
const SETTLED: f32 = 0.8;
/// Calls after which a key has shown what it is for.
const CALLS_SETTLED: f32 = 100.0;

impl Detector for FirstUse {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let (op, settings) = (scene.op, scene.settings);
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        if !key.is_login() && is_login(scene.call) {
            key.set_login();
            scene.fleet.note_login(key);
        }
        let now_s = u32::try_from(scene.time.secs()).unwrap_or(u32::MAX).max(1);
        if key.first_used_s[op] != 0 {
            // Only what was kept up for a day is a habit: many keys stolen at once are not.
            let held_s = u64::from(now_s.saturating_sub(key.first_used_s[op]));
            if !key.has_habit(op) && held_s >= settings.young_key_s {
                key.set_habit(op);
                scene.fleet.note_user(op, key.is_login());
            }
            return;
        }
        let weight = weight(scene.call.op);
        if weight > 0.0 && key.calls > 0 && key.is_news(News::FirstUse(op)) {
            let age = scene.time.since(key.first_seen);
            let maturity = settled(age.as_secs_f32(), settings.settled_key_s, key.calls);
            // What most keys of its kind do is no surprise of any; what a few do still is.
            let share = scene.fleet.share_using(op, key.is_login(), scene.keys) as f32;
            let rarity = 1.0 - share * share;
            // Where settled keys of its kind often come to it from where they are at home, one more is one of
            // them.
            let day = now_s / 86_400;
            let (first_uses, keys) = scene.fleet.first_uses(op, key.is_login());
            let weight = weight.min(first_uses.evidence(day, keys));
            if maturity >= SETTLED && scene.place == Place::Known {
                first_uses.note(day, keys);
            }
            let what = op_words(scene.call.op);
            let (calls, age) = (key.calls, span(age));
            report.add(|| Found {
                entity: Entity::Key(*id),
                rule: &RULE,
                evidence: weight * maturity * rarity * scene.weight,
                severity: severity(scene.call.op, maturity * rarity),
                alone: false,
                grown: false,
                complete: scene.call.complete,
                calls: 1,
                expected: format!("no {} in {age} and {calls} calls", bare(what)),
                seen: format!("{what}, for the first time"),
                clause: format!("tried {what} for the first time in {age}"),
                title: "API key does what it never did",
                first_step: "Ask the key's owner whether they meant to do this; \
                             if not, disable the key",
            });
        }
        if scene.call.outcome == Some(Outcome::Ok) {
            key.first_used_s[op] = now_s;
        }
    }
}

/// Evidence when a settled key is the only one to do it.
fn weight(op: Operation) -> f32 {
    match op {
        Operation::Withdraw | Operation::AddressBook | Operation::KeyManagement => 5.5,
        Operation::Transfer | Operation::Subaccount => 3.0,
        Operation::Trade | Operation::Cancel => 2.0,
        Operation::Public | Operation::Read | Operation::Auth => 0.0,
    }
}

/// How well a key is known, from 0 to 1. The root gives a two-day-old key half of the weight.
fn settled(age_s: f32, settled_key_s: u64, calls: u64) -> f32 {
    let by_age = (age_s / settled_key_s.max(1) as f32).clamp(0.0, 1.0).sqrt();
    by_age * (calls as f32 / CALLS_SETTLED).clamp(0.0, 1.0)
}

fn severity(op: Operation, known: f32) -> Severity {
    match (is_sensitive(op), known) {
        (true, known) if known > 0.6 => Severity::High,
        (true, known) if known > 0.3 => Severity::Medium,
        (false, known) if known > 0.6 => Severity::Medium,
        (true | false, _) => Severity::Low,
    }
}

/// Without its article.
fn bare(what: &'static str) -> &'static str {
    what.split_once(' ').map_or(what, |(_, bare)| bare)
}
