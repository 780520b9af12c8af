//! The fleet: members of a consumer group on a real Kafka.

use anyhow::Result;
use xtask::chaos::{self, Options};

use crate::replay::keywatch;

/// Members are killed and added while calls come in, the broker is killed and paused, and some records are
/// no calls: the alerts are those of a single Engine, each once.
pub(crate) fn members_come_and_go() -> Result<()> {
    let options = Options { activity: 20_000, alerts: 0, seconds: 40, nodes: 1, seed: 11 };
    chaos::fleet(&options, keywatch()?)?.check()
}

/// An agent and its broker are killed again and again: every alert that stands in a file arrives.
pub(crate) fn agents_die() -> Result<()> {
    let options = Options { activity: 0, alerts: 300, seconds: 30, nodes: 1, seed: 5 };
    chaos::agents(&options, keywatch()?)?.check()
}
