//! `[fleet]`: the Engine over the calls of all hosts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// `[fleet]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Host that its alerts name: one name for all members, since ids of alerts are made with it.
    pub name: String,
    /// Consumer group of its members.
    pub group: String,
    /// What tells this member from others; empty: the name of this host.
    pub member: String,
    /// Topic in which members pass on what concerns addresses rather than keys.
    pub sources_topic: String,
    /// Topic in which members pass on what keys come to, for what many do at once.
    pub groups_topic: String,
    /// Compacted topic in which members keep what they have learnt.
    pub state_topic: String,
    /// How often what has changed is written there.
    #[serde(with = "units::duration")]
    pub state_interval: Duration,
    /// How far back a member reads that takes a partition over of which no state is there.
    #[serde(with = "units::duration")]
    pub warmup: Duration,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet {
            name: "fleet".into(),
            group: "keywatch-fleet".into(),
            member: String::new(),
            sources_topic: "keywatch.sources".into(),
            groups_topic: "keywatch.groups".into(),
            state_topic: "keywatch.state".into(),
            // What was read since then is read again by whoever takes over.
            state_interval: Duration::from_secs(60),
            // As long as the topic of calls that Keywatch makes keeps them.
            warmup: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Fleet {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (key, text) in [("fleet.name", &self.name), ("fleet.group", &self.group)] {
            if text.is_empty() || text.len() > 200 {
                faults.push((key, "must be 1 to 200 bytes".into()));
            }
        }
        if self.member.len() > 200 {
            faults.push(("fleet.member", "must be at most 200 bytes".into()));
        }
        let interval = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !interval.contains(&self.state_interval) {
            faults.push(("fleet.state_interval", "must be 1s to 1h".into()));
        }
        if self.warmup > Duration::from_secs(366 * 86_400) {
            faults.push(("fleet.warmup", "must be at most 366d".into()));
        }
        faults
    }
}
