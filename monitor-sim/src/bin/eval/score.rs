//! Which alerts are about which attacks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use monitor_core::alert::{Alert, AlertId, Entity};
use monitor_core::call::KeyId;
use monitor_core::time::EventTime;
use monitor_sim::{Kind, Truth};

/// An alert as the harness keeps it.
pub(crate) struct Raised {
    pub(crate) id: Option<AlertId>,
    pub(crate) time: EventTime,
    pub(crate) entity: Entity,
    /// With the time at which each spoke.
    pub(crate) detectors: Vec<(String, EventTime)>,
    pub(crate) text: String,
    /// Of an alert about a group: keys that it names.
    pub(crate) named: Vec<KeyId>,
}

/// Alerts that come as long after an attack still count: what is seen of it only when it is over.
pub(crate) const AFTER: u64 = 30 * 60 * 1_000_000_000;

/// Keeps a new alert, or what an update adds.
pub(crate) fn note(raised: &mut Vec<Raised>, alert: &Alert) {
    let detectors = alert.findings.iter().map(|f| (f.detector.to_string(), f.time));
    if let Some(known) = raised.iter_mut().rev().find(|known| known.id == Some(alert.id)) {
        for (detector, time) in detectors {
            if !known.detectors.iter().any(|(held, _)| *held == detector) {
                known.detectors.push((detector, time));
            }
        }
        return;
    }
    raised.push(Raised {
        id: Some(alert.id),
        time: alert.time,
        entity: alert.entity,
        detectors: detectors.collect(),
        text: format!("{:?} {}", alert.severity, alert.explanation),
        named: alert.findings.iter().flat_map(|finding| names(&finding.seen)).collect(),
    });
}

/// Ids of keys in a text.
fn names(text: &str) -> impl Iterator<Item = KeyId> + '_ {
    let ids = text.split("k_").skip(1).filter_map(|rest| rest.get(..32));
    ids.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(KeyId)
}

impl Raised {
    /// Of a group, half of the keys that it names must be of the attack.
    fn is_about(&self, truth: &Truth) -> bool {
        match self.entity {
            Entity::Group(_) => {
                let hits = self.named.iter().filter(|id| truth.keys.contains(id)).count();
                hits > 0 && 2 * hits >= self.named.len()
            }
            Entity::Key(_) | Entity::Client(_) | Entity::Network(_) | Entity::Host => {
                truth.is_of(&self.entity)
            }
        }
    }
}

/// How one set of alerts fits one world.
pub(crate) struct Score {
    /// By alert: the attack that it is about.
    pub(crate) about: Vec<Option<usize>>,
    /// By attack: how long after its first call the first alert came.
    pub(crate) caught: Vec<Option<Duration>>,
}

impl Score {
    pub(crate) fn of(raised: &[Raised], truths: &[Truth]) -> Score {
        let mut caught: Vec<Option<Duration>> = vec![None; truths.len()];
        let about = raised.iter().map(|alert| {
            let (at, span) = truths.iter().enumerate().find_map(|(at, truth)| {
                let span = truth.span_at(alert.time, AFTER)?;
                alert.is_about(truth).then_some((at, span))
            })?;
            let took = alert.time.since(span.start);
            caught[at] = Some(caught[at].map_or(took, |known| known.min(took)));
            Some(at)
        });
        let about = about.collect();
        Score { about, caught }
    }
}

/// How one detector, or all of them, did.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) attacks: u32,
    pub(crate) caught: u32,
    pub(crate) public: u32,
    pub(crate) public_caught: u32,
    pub(crate) true_alerts: u32,
    pub(crate) false_alerts: u32,
    pub(crate) false_key_alerts: u32,
    pub(crate) seconds: Vec<f64>,
    pub(crate) by_kind: BTreeMap<Kind, (u32, u32)>,
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) lines: BTreeMap<String, Line>,
    /// By detector: attacks that it spoke of, true and false alerts that it took part in.
    pub(crate) detectors: BTreeMap<String, (u32, u32, u32)>,
    pub(crate) calls: u64,
    pub(crate) spent: Duration,
    pub(crate) state_bytes: usize,
    pub(crate) keys: usize,
    pub(crate) key_days: f64,
}

impl Tally {
    pub(crate) fn add(&mut self, name: &str, raised: &[Raised], score: &Score, truths: &[Truth]) {
        let line = self.lines.entry(name.into()).or_default();
        for (truth, caught) in truths.iter().zip(&score.caught) {
            let hit = u32::from(caught.is_some());
            line.attacks += 1;
            line.caught += hit;
            line.public += u32::from(truth.public);
            line.public_caught += hit * u32::from(truth.public);
            line.seconds.extend(caught.map(|took| took.as_secs_f64()));
            let kind = line.by_kind.entry(truth.kind).or_default();
            *kind = (kind.0 + 1, kind.1 + hit);
        }
        let mut spoke: BTreeSet<(String, usize)> = BTreeSet::new();
        for (alert, about) in raised.iter().zip(&score.about) {
            let right = about.is_some();
            line.true_alerts += u32::from(right);
            line.false_alerts += u32::from(!right);
            let of_key = matches!(alert.entity, Entity::Key(_));
            line.false_key_alerts += u32::from(!right && of_key);
            for (detector, _) in &alert.detectors {
                let seen = self.detectors.entry(detector.clone()).or_default();
                seen.1 += u32::from(right);
                seen.2 += u32::from(!right);
                if let Some(attack) = about
                    && spoke.insert((detector.clone(), *attack))
                {
                    seen.0 += 1;
                }
            }
        }
    }
}
