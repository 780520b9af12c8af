//! What detectors found that was not enough for an alert: how misses are looked into.

use std::collections::BTreeMap;

use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;
use monitor_core::engine::{Engine, Settings};
use monitor_core::time::EventTime;
use monitor_sim::{Truth, World};

use crate::score::{AFTER, Score};

/// An Engine that tells of everything but of novelty alone.
pub(crate) struct Ears {
    engine: Engine,
    heard: Vec<Alert>,
}

/// Incidents by their evidence, in steps of a half.
type Steps = [u32; 12];

impl Ears {
    pub(crate) fn new(settings: &Settings) -> Ears {
        let engine = Engine::new(Settings {
            alert_evidence_min: 0.1,
            alerts_per_day_max: u32::MAX,
            alerts_per_day_hard_max: u32::MAX,
            updates_max: u32::MAX,
            ..settings.clone()
        });
        Ears { engine, heard: Vec::new() }
    }

    pub(crate) fn handle_call(&mut self, call: &ApiCall, test: EventTime) {
        self.engine.handle_call(call);
        while let Some(alert) = self.engine.poll_alert() {
            if alert.time < test {
                continue;
            }
            match self.heard.iter_mut().rev().find(|known| known.id == alert.id) {
                Some(known) => *known = alert,
                None => self.heard.push(alert),
            }
        }
    }

    /// Of each miss what was found, and how often how much is found where there is no attack.
    pub(crate) fn explain(&self, seed: u64, score: &Score, truths: &[Truth], world: &World) {
        let is_about = |truth: &Truth, alert: &Alert| {
            let is_then = truth.spans.iter().any(|span| {
                alert.last_seen >= span.start && alert.first_seen.0 <= span.end.0 + AFTER
            });
            is_then && truth.is_of(&alert.entity)
        };
        let mut quiet: BTreeMap<String, Steps> = BTreeMap::new();
        let of_nobody = |alert: &&Alert| !truths.iter().any(|truth| is_about(truth, alert));
        for alert in self.heard.iter().filter(of_nobody) {
            let mut sum = 0.0;
            for finding in &alert.findings {
                sum += finding.evidence;
                quiet.entry(finding.detector.to_string()).or_default()[step(finding.evidence)] += 1;
            }
            quiet.entry("all".into()).or_default()[step(sum)] += 1;
        }
        for (detector, steps) in quiet {
            eprintln!("seed {seed}: no attack, {detector}: {steps:?} by halves of evidence");
        }
        let missed = truths.iter().zip(&score.caught).filter(|(_, caught)| caught.is_none());
        for (truth, _) in missed {
            let roles = world.roles().filter(|(id, _)| truth.keys.contains(id)).take(4);
            let roles: Vec<String> = roles.map(|(id, role)| format!("{id} {role:?}")).collect();
            let (kind, strength) = (truth.kind.as_str(), truth.strength);
            eprintln!("seed {seed}: of the missed {kind} of strength {strength:.2}, {roles:?}:");
            for alert in self.heard.iter().filter(|alert| is_about(truth, alert)) {
                let (entity, from, to) = (alert.entity, alert.first_seen, alert.last_seen);
                eprintln!("    {entity:?} from {from} to {to}");
                for found in &alert.findings {
                    let (id, evidence, seen) = (&found.detector, found.evidence, &found.seen);
                    eprintln!("        {id} {evidence:.2} {seen}; {}", found.expected);
                }
            }
        }
    }
}

fn step(evidence: f32) -> usize {
    ((evidence * 2.0).max(0.0) as usize).min(Steps::default().len() - 1)
}
