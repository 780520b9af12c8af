//! `[fleet]`: the Engine over the calls of all hosts.

use std::path::PathBuf;
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
    /// Topic in which members pass on what concerns addresses rather than keys. Of this and the two below:
    /// empty for one that is named after the group, so that each group has its own.
    pub sources_topic: String,
    /// Topic in which members pass on what keys come to, for what many do at once.
    pub groups_topic: String,
    /// Compacted topic in which members keep what they have learnt.
    pub state_topic: String,
    /// How often what has changed is written there.
    #[serde(with = "units::duration")]
    pub state_interval: Duration,
    /// Folder for copies of that on this disk, so that a member that comes back has little to read; empty:
    /// none.
    pub state_dir: PathBuf,
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
            sources_topic: String::new(),
            groups_topic: String::new(),
            state_topic: String::new(),
            // What was read since then is read again by whoever takes over.
            state_interval: Duration::from_secs(60),
            state_dir: "/var/lib/keywatch/fleet".into(),
            // As long as the topic of calls that Keywatch makes keeps them.
            warmup: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Fleet {
    /// With names for topics that have none: `keywatch-fleet` has `keywatch.state`, any other group `X` has
    /// `X.state`.
    pub(crate) fn with_topics(&self) -> Fleet {
        let mut named = self.clone();
        let begin = self.group.strip_suffix("-fleet").unwrap_or(&self.group);
        for (topic, end) in [
            (&mut named.sources_topic, "sources"),
            (&mut named.groups_topic, "groups"),
            (&mut named.state_topic, "state"),
        ] {
            if topic.is_empty() {
                *topic = format!("{begin}.{end}");
            }
        }
        named
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_topics_of_their_own() {
        let topics = |group: &str, state_topic: &str| {
            let set =
                Fleet { group: group.into(), state_topic: state_topic.into(), ..Fleet::default() };
            let Fleet { sources_topic, groups_topic, state_topic, .. } = set.with_topics();
            [sources_topic, groups_topic, state_topic]
        };
        let usual = ["keywatch.sources", "keywatch.groups", "keywatch.state"];
        assert_eq!(topics("keywatch-fleet", ""), usual);
        assert_eq!(topics("trial", ""), ["trial.sources", "trial.groups", "trial.state"]);
        assert_eq!(topics("trial", "mine"), ["trial.sources", "trial.groups", "mine"]);
    }
}
