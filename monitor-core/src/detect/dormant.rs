//! D4: a key comes back after it was not used for far longer than ever before.

use std::time::Duration;

use super::{Detector, Found, Layer, Report, Rule, Scene, is_sensitive, op_words, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{News, Revival};
use crate::call::{Operation, Outcome};

pub(super) struct Dormant;

static RULE: Rule = Rule {
    id: "D4",
    name: "dormant key revived",
    layer: Layer::Behaviour,
    attack: &["T1078"],
    owasp: &["API2"],
};

/// A key that is merely read with: a quarterly report does as much.
const EVIDENCE_READ: f32 = 2.5;
/// One that changes orders or moves funds inside: with anything else it suffices.
const EVIDENCE_TRADE: f32 = 4.0;
/// And never did before, in all that is known of it.
const EVIDENCE_FIRST_TRADE: f32 = 5.0;
/// One that moves funds out or lets others do so.
const EVIDENCE_SENSITIVE: f32 = 5.5;
/// Part of it that counts for an absence of a week, a holiday as likely as not; all of it from six
/// weeks on.
const SHORT_FACTOR: f32 = 0.6;
/// Six weeks, seconds: no holiday lasts longer.
const LONG_S: f32 = 42.0 * 86_400.0;

impl Detector for Dormant {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if scene.call.outcome != Some(Outcome::Ok) {
            return;
        }
        let Some(revival) = key.presence.note(scene.now_s, scene.watched_since_s) else { return };
        let is_first = key.first_used_s[scene.op] == 0;
        let (how_bad, evidence, severity) = weight(scene.call.op, is_first);
        if !key.is_news(News::Revived(how_bad)) {
            return;
        }
        let Revival { gap_s, earlier_gap_s } = revival;
        let away = words(gap_s);
        let what = op_words(scene.call.op);
        let length = SHORT_FACTOR + (1.0 - SHORT_FACTOR) * (gap_s as f32 / LONG_S).min(1.0);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * length * scene.weight,
            severity,
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected: match earlier_gap_s {
                0 => "in use all the time".into(),
                gap_s => format!("never away for more than {}", words(gap_s)),
            },
            seen: format!("{what} after {away} without use"),
            clause: format!("came back after {away} without use and made {what}"),
            title: "Dormant API key is in use again",
            first_step: "Ask the key's owner whether they use it again; if not, disable the key",
        });
    }
}

fn weight(op: Operation, is_first: bool) -> (usize, f32, Severity) {
    match op {
        op if is_sensitive(op) => (2, EVIDENCE_SENSITIVE, Severity::High),
        Operation::Trade | Operation::Transfer if is_first => {
            (1, EVIDENCE_FIRST_TRADE, Severity::High)
        }
        Operation::Trade | Operation::Transfer => (1, EVIDENCE_TRADE, Severity::High),
        Operation::Public
        | Operation::Read
        | Operation::Cancel
        | Operation::Withdraw
        | Operation::AddressBook
        | Operation::KeyManagement
        | Operation::Subaccount
        | Operation::Auth => (0, EVIDENCE_READ, Severity::Medium),
    }
}

fn words(seconds: u32) -> String {
    span(Duration::from_secs(u64::from(seconds)))
}
