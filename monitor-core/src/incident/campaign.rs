//! Many keys with one cause: what they have in common is told of, and not each of them.

use serde::{Deserialize, Serialize};

use super::verdicts::rule;
use crate::alert::Severity;
use crate::baseline::Slots;
use crate::call::KeyId;
use crate::engine::Settings;
use crate::time::EventTime;

/// Keys that are told of each by itself; with one more they are a group: as few as D20 takes for a crowd
/// when all of them are away from home.
pub(crate) const KEYS_MIN: usize = 4;
/// A group takes in more keys for so long after the last, seconds.
const GOES_ON_S: u64 = 3_600;
/// Keys of a group that are told apart, 24 B each; more are at least as many.
const KEYS_MAX: usize = 1_024;
/// Networks and programs that are watched at once: all from which alerts of an hour may come.
const CAMPAIGNS_MAX: usize = 2_048;
/// Of those a snapshot keeps.
const SAVED_MAX: usize = 256;
/// Keys that an alert names.
const EXAMPLES_MAX: usize = 4;

/// What keys have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Tie {
    /// The network that they are used from.
    Network([u8; 16]),
    /// A client program that is new to each of them, by its family.
    Program(u16),
}

/// A key that has an alert or would have one, and one of its ties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) key: KeyId,
    pub(crate) tie: Tie,
    /// The detector that has most to say beside what is merely new, and all others that have something.
    pub(crate) detector: String,
    pub(crate) others: Vec<String>,
    /// What that detector found, in a few words.
    pub(crate) title: String,
    pub(crate) severity: Severity,
}

/// What many keys did, as somebody is told of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) tie: Tie,
    pub(crate) detector: String,
    pub(crate) title: String,
    pub(crate) keys: u64,
    pub(crate) examples: Vec<KeyId>,
    pub(crate) severity: Severity,
    pub(crate) since: EventTime,
    /// It was told of before, with fewer keys or less bad.
    pub(crate) has_grown: bool,
}

/// Keys that are tied together, by tie and detector.
pub(crate) struct Campaigns(Slots<Id, Campaign>);

type Id = (Tie, [u8; 4]);

/// As they lie in a snapshot.
pub(crate) type Saved = Vec<(Id, Campaign)>;

/// Keys that one detector flagged in one network, or with one program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Campaign {
    /// Oldest first.
    keys: Vec<(KeyId, EventTime)>,
    /// Detectors that spoke of the first of them: what the group explains.
    detectors: Vec<String>,
    severity: Option<Severity>,
    last: EventTime,
    is_group: bool,
    /// Keys at which somebody is told the next time.
    tell_at: u64,
}

impl Campaigns {
    pub(crate) fn new() -> Campaigns {
        Campaigns(Slots::new(CAMPAIGNS_MAX, |campaign| campaign.is_group))
    }

    pub(crate) fn bytes(&self) -> usize {
        let of = |campaign: &Campaign| campaign.keys.capacity() * size_of::<(KeyId, EventTime)>();
        self.0.bytes() + self.0.values().map(of).sum::<usize>()
    }

    /// A key has an alert, or would have one; what there is to tell of its group now.
    pub(crate) fn note(
        &mut self,
        member: &Member,
        time: EventTime,
        settings: &Settings,
    ) -> Option<Told> {
        let id = (member.tie, rule(&member.detector));
        let campaign = self.0.find_or_insert(id, Campaign::default);
        campaign.forget(time, settings);
        campaign.add(member, time);
        campaign.tell(member)
    }

    /// Keys of a member's group, oldest first; none while there is no group.
    pub(crate) fn keys_with(&self, member: &Member) -> Vec<KeyId> {
        let campaign = self.0.peek(&(member.tie, rule(&member.detector)));
        let group = campaign.filter(|campaign| campaign.is_group);
        group.map_or_else(Vec::new, |group| group.keys.iter().map(|(key, _)| *key).collect())
    }

    /// Whether what is known of a key is what its group is about. A withdrawal that was refused is always the
    /// key's own.
    pub(crate) fn explains(&self, member: &Member) -> bool {
        let Some(campaign) = self.0.peek(&(member.tie, rule(&member.detector))) else {
            return false;
        };
        let is_known = |detector: &String| campaign.detectors.contains(detector);
        campaign.is_group && is_known(&member.detector) && member.others.iter().all(is_known)
    }

    pub(crate) fn save(&self) -> Saved {
        let kept = self.0.to_save(SAVED_MAX);
        kept.into_iter().map(|(id, campaign)| (id, campaign.clone())).collect()
    }

    /// Goes on from a snapshot, whatever wrote it.
    pub(crate) fn restore(&mut self, saved: Saved) {
        self.0.clear();
        for (id, mut campaign) in saved {
            campaign.keys.truncate(KEYS_MAX);
            *self.0.find_or_insert(id, Campaign::default) = campaign;
        }
    }
}

impl Campaign {
    /// What is too long ago has another cause.
    fn forget(&mut self, time: EventTime, settings: &Settings) {
        let Some((_, first)) = self.keys.first() else { return };
        let is_over = time.since(self.last).as_secs() > GOES_ON_S
            || time.since(*first).as_secs() > settings.incident_max_s;
        if self.is_group && is_over {
            *self = Campaign::default();
        }
        if !self.is_group {
            self.keys.retain(|(_, at)| time.since(*at).as_secs() <= settings.incident_window_s);
        }
        if self.keys.is_empty() {
            self.detectors.clear();
            self.severity = None;
        }
    }

    fn add(&mut self, member: &Member, time: EventTime) {
        if !self.is_group {
            for detector in std::iter::once(&member.detector).chain(&member.others) {
                if !self.detectors.contains(detector) {
                    self.detectors.push(detector.clone());
                }
            }
        }
        if self.keys.len() < KEYS_MAX && !self.keys.iter().any(|(key, _)| *key == member.key) {
            self.keys.push((member.key, time));
            self.last = self.last.max(time);
        }
        self.is_group |= self.keys.len() >= KEYS_MIN;
    }

    /// When there are twice as many keys as at last, or one is worse off.
    fn tell(&mut self, member: &Member) -> Option<Told> {
        let (severity, keys) = (Some(member.severity).max(self.severity), self.keys.len() as u64);
        let is_worse = severity > self.severity;
        self.severity = severity;
        if !self.is_group || (keys < self.tell_at && !is_worse) {
            return None;
        }
        let has_grown = self.tell_at > 0;
        self.tell_at = keys.saturating_mul(2);
        Some(Told {
            tie: member.tie,
            detector: member.detector.clone(),
            title: member.title.clone(),
            keys,
            examples: self.keys.iter().take(EXAMPLES_MAX).map(|(key, _)| *key).collect(),
            severity: severity.unwrap_or(member.severity),
            since: self.keys.first().map_or(EventTime(0), |(_, at)| *at),
            has_grown,
        })
    }
}
