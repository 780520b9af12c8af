//! Alerts of keys that have a cause in common are folded into one about it.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::campaign::{Member, Tie, Told};
use super::{Held, Incident, Incidents, Place};
use crate::alert::{Entity, Severity, network_of};
use crate::baseline::prefix;
use crate::call::KeyId;
use crate::detect::{self, Found, Layer, synchrony};
use crate::engine::{Counters, Settings};
use crate::input::Endpoint;
use crate::time::EventTime;

/// Findings with less than this are not what an incident is about: as for those that agree.
const EVIDENCE_MIN: f32 = 1.0;
/// The detector of refused operations.
const REFUSED: &str = "D10";

impl Incidents {
    /// From now on keys that may be of a group are noted, for [`poll_tied`](Incidents::poll_tied).
    pub(crate) fn note_tied(&mut self) {
        self.tied.get_or_insert_default();
    }

    pub(crate) fn poll_tied(&mut self) -> Option<Member> {
        self.tied.as_mut().and_then(VecDeque::pop_front)
    }

    /// A key of another Engine may be of a group.
    pub(crate) fn add_tied(
        &mut self,
        member: &Member,
        time: EventTime,
        place: &Place,
        settings: &Settings,
        counters: &mut Counters,
    ) {
        if let Some(told) = self.campaigns.note(member, time, settings) {
            let found = SmallVec::from_iter([found(&told, time)]);
            self.add(found, time, Some(place), settings, counters);
        }
    }

    /// A key has an alert, or would have one. True when it is told of with its group; what there is to tell
    /// of that goes into `groups`.
    pub(super) fn fold(
        &mut self,
        members: &[Member],
        time: EventTime,
        groups: &mut SmallVec<[Found; 2]>,
        settings: &Settings,
        counters: &mut Counters,
    ) -> bool {
        for member in members {
            let told = self.campaigns.note(member, time, settings);
            if let Some(tied) = &mut self.tied {
                tied.push_back(member.clone());
            }
            let is_first = told.as_ref().is_some_and(|told| !told.has_grown);
            groups.extend(told.map(|told| found(&told, time)));
            if !self.campaigns.explains(member) {
                continue;
            }
            let keys = if is_first { self.campaigns.keys_with(member) } else { vec![member.key] };
            let group = entity(member.tie, &member.detector);
            for key in keys {
                self.fold_key(Entity::Key(key), group, time, settings, counters);
            }
            return true;
        }
        false
    }

    fn fold_key(
        &mut self,
        key: Entity,
        group: Entity,
        time: EventTime,
        settings: &Settings,
        counters: &mut Counters,
    ) {
        let Some(incident) = self.open.find(&key) else { return };
        let stays = incident.part_of.is_some()
            || incident.is_over(time, settings)
            || incident.has_own_refusal();
        if stays {
            return;
        }
        incident.part_of = Some(group);
        counters.folded += 1;
        if incident.raised.as_ref().is_some_and(|raised| raised.revision < settings.updates_max) {
            self.give_out(key, time, settings, counters);
        }
    }
}

impl Incident {
    /// What this key may have in common with others; nothing when it has more to say than they.
    pub(super) fn ties(&self, key: KeyId, place: &Place, severity: Severity) -> Vec<Member> {
        let is_told = |held: &&Held| {
            held.layer != Layer::Novelty && (held.evidence >= EVIDENCE_MIN || held.alone)
        };
        let mut told: Vec<&Held> = self.findings.iter().filter(is_told).collect();
        told.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
        let Some((first, others)) = told.split_first() else { return Vec::new() };
        if self.has_own_refusal() {
            return Vec::new();
        }
        let id = |held: &Held| held.finding.detector.to_string();
        let with = |tie| Member {
            key,
            tie,
            detector: id(first),
            others: others.iter().map(|held| id(held)).collect(),
            title: first.title.to_string(),
            severity,
        };
        // Behind the edge stands a proxy of many.
        let network = (!detect::is_inside(&place.address)).then(|| prefix(&place.address));
        let program = self.has_new_program().then_some(place.program);
        let ties = [network.map(Tie::Network), program.map(Tie::Program)];
        ties.into_iter().flatten().map(with).collect()
    }

    /// A withdrawal or a change of keys was refused: that is nobody else's.
    fn has_own_refusal(&self) -> bool {
        self.findings.iter().any(|held| held.alone && held.finding.detector == REFUSED)
    }
}

/// Whom the alert of a group is about.
fn entity(tie: Tie, detector: &str) -> Entity {
    match tie {
        Tie::Network(addr) => Entity::Network(network_of(Endpoint { addr, port: 0 }.ip())),
        Tie::Program(family) => {
            Entity::Group(detect::group(detector.as_bytes(), u64::from(family)))
        }
    }
}

fn found(told: &Told, time: EventTime) -> Found {
    synchrony::flagged_together(entity(told.tie, &told.detector), told, time)
}
