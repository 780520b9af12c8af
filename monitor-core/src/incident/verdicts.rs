//! What people said of alerts: which findings are of no interest for a while, and which weigh less.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alert::Entity;
use crate::detect::Found;
use crate::time::EventTime;

/// Entities and detectors with a verdict: more than anybody passes by hand in a year.
const VERDICTS_MAX: usize = 10_000;
/// After a dismissal the same finding is of no interest for a day: the same cause repeats itself.
const DISMISSED_FOR: Duration = Duration::from_secs(86_400);
/// Then it weighs half as much with each dismissal, and never less than an eighth: somebody who is
/// tired of alerts is not always right.
const WEIGHT_STEP: f32 = 0.5;
const WEIGHT_MIN: f32 = 0.125;

/// First bytes of a detector's id; none: any detector.
type Rule = [u8; 4];

/// By entity and detector.
#[derive(Clone, Default)]
pub(super) struct Verdicts(BTreeMap<(Entity, Rule), Verdict>);

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Verdict {
    muted_until: EventTime,
    weight: f32,
}

/// As it lies in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedVerdict(Entity, Rule, Verdict);

impl Verdicts {
    /// False when nobody wants to hear of it now; weighs it as was said.
    pub(super) fn lets_pass(&self, found: &mut Found, time: EventTime) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let of = |detector: Rule| self.0.get(&(found.entity, detector));
        let (any, this) = (of(Rule::default()), of(rule(found.rule.id)));
        if [any, this].into_iter().flatten().any(|verdict| time < verdict.muted_until) {
            return false;
        }
        found.evidence *= this.map_or(1.0, |verdict| verdict.weight);
        true
    }

    /// Nothing of this detector, or of any, until then. The past undoes it.
    pub(super) fn mute(&mut self, entity: Entity, detector: Option<&str>, until: EventTime) {
        self.at(entity, detector.map_or(Rule::default(), rule)).muted_until = until;
    }

    /// An alert with this detector was dismissed.
    pub(super) fn dismiss(&mut self, entity: Entity, detector: &str, time: EventTime) {
        let verdict = self.at(entity, rule(detector));
        verdict.muted_until = verdict.muted_until.max(time.after(DISMISSED_FOR));
        verdict.weight = (verdict.weight * WEIGHT_STEP).max(WEIGHT_MIN);
    }

    pub(super) fn save(&self) -> Vec<SavedVerdict> {
        self.0.iter().map(|((entity, rule), it)| SavedVerdict(*entity, *rule, *it)).collect()
    }

    pub(super) fn restore(&mut self, saved: Vec<SavedVerdict>) {
        for SavedVerdict(entity, rule, mut verdict) in saved.into_iter().take(VERDICTS_MAX) {
            crate::baseline::saved::mend(&mut verdict.weight, WEIGHT_MIN..=1.0, 1.0);
            self.0.insert((entity, rule), verdict);
        }
    }

    /// What was said of an entity is said of another from now on, unless it has its own.
    pub(super) fn follow(&mut self, from: Entity, to: Entity) {
        let (first, last) = (Rule::default(), [u8::MAX; 4]);
        let said: Vec<_> = self.0.extract_if((from, first)..=(from, last), |_, _| true).collect();
        for ((_, rule), verdict) in said {
            self.0.entry((to, rule)).or_insert(verdict);
        }
    }

    fn at(&mut self, entity: Entity, rule: Rule) -> &mut Verdict {
        if self.0.len() >= VERDICTS_MAX && !self.0.contains_key(&(entity, rule)) {
            let first_over = self.0.iter().min_by_key(|(_, verdict)| verdict.muted_until);
            if let Some(key) = first_over.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
        let fresh = Verdict { muted_until: EventTime(0), weight: 1.0 };
        self.0.entry((entity, rule)).or_insert(fresh)
    }
}

pub(super) fn rule(id: &str) -> Rule {
    let mut rule = Rule::default();
    rule.iter_mut().zip(id.bytes()).for_each(|(place, byte)| *place = byte);
    rule
}
