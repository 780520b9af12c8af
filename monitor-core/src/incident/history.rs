//! Alerts that were raised: listed, dismissed, and kept over a restart so that none is raised twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verdicts::SavedVerdict;
use super::{Budget, Incident, Incidents, campaign};
use crate::alert::{AlertId, Entity, Severity};
use crate::engine::Settings;
use crate::time::EventTime;

/// How long an alert is remembered: an analyst on holiday comes back within three weeks.
const REMEMBERED: Duration = Duration::from_secs(21 * 86_400);
/// Alerts in a snapshot, the newest: three weeks of a spent budget of 100 a day.
const SAVED_MAX: usize = 2_000;

/// An alert that was raised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Past {
    /// Its id.
    pub id: AlertId,
    /// Whom it is about.
    pub entity: Entity,
    /// How bad it was at last.
    pub severity: Severity,
    /// Event time of the first finding.
    pub first_seen: EventTime,
    /// Event time of the last.
    pub last_seen: EventTime,
    /// Ids of the detectors that spoke.
    pub detectors: Vec<String>,
    /// One sentence.
    pub explanation: String,
    /// The alert about many keys that it is part of.
    pub part_of: Option<Entity>,
    /// Why somebody dismissed it.
    pub dismissed: Option<String>,
}

/// What a dismissal teaches: a detector's id, and how many calls were behind what it found.
pub(crate) struct Lesson {
    pub(crate) entity: Entity,
    pub(crate) findings: Vec<(String, u64)>,
    pub(crate) addresses: Vec<[u8; 16]>,
    /// A bit an operation.
    pub(crate) ops: u16,
}

/// As it lies in a snapshot.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    open: Vec<(Entity, Incident)>,
    budget: Budget,
    verdicts: Vec<SavedVerdict>,
    campaigns: campaign::Saved,
}

impl Incidents {
    /// Alerts that are remembered, oldest first.
    pub(crate) fn past(&self) -> Vec<Past> {
        let mut past: Vec<Past> = self
            .open
            .iter()
            .filter_map(|(entity, incident)| {
                let raised = incident.raised.as_ref()?;
                let mut findings: Vec<_> = incident.findings.iter().collect();
                findings.sort_by(|a, b| a.finding.detector.cmp(&b.finding.detector));
                Some(Past {
                    id: raised.id,
                    entity: *entity,
                    severity: raised.severity,
                    first_seen: incident.first,
                    last_seen: incident.last,
                    detectors: findings.iter().map(|it| it.finding.detector.to_string()).collect(),
                    explanation: super::explanation(*entity, &findings),
                    part_of: incident.part_of,
                    dismissed: incident.dismissed.clone(),
                })
            })
            .collect();
        past.sort_by_key(|past| (past.first_seen, past.id.0));
        past
    }

    /// Somebody says that an alert was of no interest. `None` when there is no such alert.
    pub(crate) fn dismiss(&mut self, id: AlertId, time: EventTime, why: &str) -> Option<Lesson> {
        let is_it = |incident: &Incident| incident.raised.as_ref().is_some_and(|it| it.id == id);
        let entity = self.open.iter().find(|(_, it)| is_it(it)).map(|(entity, _)| *entity)?;
        let incident = self.open.find(&entity)?;
        incident.dismissed = Some(why.to_owned());
        let said = |held: &super::Held| (held.finding.detector.to_string(), held.calls);
        let findings: Vec<_> = incident.findings.iter().map(said).collect();
        for (detector, _) in &findings {
            self.verdicts.dismiss(entity, detector, time);
        }
        let (addresses, ops) = (incident.addresses.clone(), incident.ops);
        Some(Lesson { entity, findings, addresses, ops })
    }

    /// Nobody wants to hear of this until then.
    pub(crate) fn mute(&mut self, entity: Entity, detector: Option<&str>, until: EventTime) {
        self.verdicts.mute(entity, detector, until);
    }

    /// What people said of an entity counts for another from now on: it is the same one.
    pub(crate) fn follow(&mut self, from: Entity, to: Entity) {
        self.verdicts.follow(from, to);
    }

    /// What a snapshot keeps: alerts that were raised, oddities that may still become one, the budget and
    /// what people said.
    pub(crate) fn save(&self, now: EventTime, settings: &Settings) -> Saved {
        let is_kept = |incident: &Incident| {
            // An oddity waits for another as long as the window of an incident.
            let window = Duration::from_secs(settings.incident_window_s);
            let kept = if incident.raised.is_some() { REMEMBERED } else { window };
            now.since(incident.last) <= kept
        };
        let mut kept: Vec<_> = self.open.iter().filter(|(_, it)| is_kept(it)).collect();
        kept.sort_by_key(|(entity, incident)| (incident.last, **entity));
        let newest = kept.split_off(kept.len().saturating_sub(SAVED_MAX));
        Saved {
            open: newest.into_iter().map(|(entity, it)| (*entity, it.clone())).collect(),
            budget: self.budget.clone(),
            verdicts: self.verdicts.save(),
            campaigns: self.campaigns.save(),
        }
    }

    /// Goes on from a snapshot, with nothing that was open before.
    pub(crate) fn restore(&mut self, saved: Saved) {
        self.open.clear();
        for (entity, mut incident) in saved.open {
            for held in &mut incident.findings {
                crate::baseline::saved::mend(&mut held.evidence, -1e3..=1e3, 0.0);
            }
            *self.open.find_or_insert(entity, Incident::default) = incident;
        }
        self.budget = saved.budget;
        self.verdicts.restore(saved.verdicts);
        self.campaigns.restore(saved.campaigns);
    }
}
