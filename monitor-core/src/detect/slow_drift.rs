//! D21: a key does a little more every day, or stays just under its limit.
//!
//! The first is what the minutes of D1 get used to; days are held against the two months before,
//! divided by the growth of all keys. The second needs a server that tells what is used and allowed.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::call::Quota;

pub(super) struct SlowDrift;

static RULE: Rule = Rule {
    id: "D21",
    name: "low and slow",
    layer: Layer::Behaviour,
    attack: &["T1029"],
    owasp: &["API4", "OAT-011"],
};

/// A trend is mostly growth: it never suffices.
const EVIDENCE_TREND: f32 = 2.0;
/// Just under the limit, for one that never was.
const EVIDENCE_NEAR_MAX: f32 = 3.0;
/// Part of the log-odds that counts: minutes are not independent of each other.
const TEMPER: f32 = 0.5;
/// Less is nothing to scrape with, calls a day.
const CALLS_MIN: u32 = 500;

impl Detector for SlowDrift {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if !scene.is_authentic {
            return;
        }
        let day = scene.now_s / 86_400;
        scene.fleet.daily.count_all(day);
        if key.daily.begins(day) {
            scene.fleet.note_daily(key.is_login(), day);
        }
        let trend = key.daily.count(day, scene.fleet.daily.growth());
        let is_young = scene.time.since(key.first_seen).as_secs() < scene.settings.young_key_s;
        let entity = Entity::Key(*id);
        let found = |evidence: f32, expected, seen: String, clause| Found {
            entity,
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity: if evidence > EVIDENCE_TREND { Severity::Medium } else { Severity::Low },
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected,
            seen,
            clause,
            title: "API key does more and more, or just what it may",
            first_step: "Look at what it reads: a scraper takes one object after the other",
        };
        if let Some(trend) = trend
            && trend.now >= CALLS_MIN
            && !is_young
        {
            let (usual, now) = (trend.usual, trend.now);
            report.add(|| {
                found(
                    EVIDENCE_TREND,
                    format!("about {usual:.0} calls a day, as in the last two months"),
                    format!("more for days on end, {now} at last"),
                    format!(
                        "made more calls day after day, {now} at last where {usual:.0} are usual"
                    ),
                )
            });
        }
        let quota = scene.call.response.as_ref().and_then(|response| response.quota);
        let Some((used, limit)) = quota.and_then(used) else { return };
        let Some((minutes, part)) = key.nearness.note(used, limit, scene.now_s / 60) else {
            return;
        };
        if is_young {
            return;
        }
        let evidence = (-part.max(1e-6).ln() * TEMPER).clamp(0.0, EVIDENCE_NEAR_MAX);
        let percent = part * 100.0;
        report.add(|| {
            found(
                evidence,
                format!("just under the limit in {percent:.1} % of its minutes"),
                format!("85 to 99 % of the limit used, {minutes} minutes in a row"),
                format!("stayed at 85 to 99 % of its limit for {minutes} minutes"),
            )
        });
    }
}

/// Used and allowed; `None` when the server does not tell both.
fn used(quota: Quota) -> Option<(u64, u64)> {
    let wide = u64::from;
    match (quota.used, quota.limit, quota.remaining) {
        (Some(used), Some(limit), _) => Some((wide(used), wide(limit))),
        (Some(used), None, Some(left)) => Some((wide(used), wide(used) + wide(left))),
        (None, Some(limit), Some(left)) => Some((wide(limit.saturating_sub(left)), wide(limit))),
        (_, None, None) | (None, _, None) | (None, None, Some(_)) => None,
    }
    .filter(|(_, limit)| *limit > 0)
}
