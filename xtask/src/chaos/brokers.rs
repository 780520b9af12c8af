//! A cluster of which one node at a time is killed or paused.

use std::collections::HashMap;

use anyhow::Result;
use fastrand::Rng;

use crate::cluster::Cluster;

/// See the module.
pub(super) struct Brokers {
    pub(super) cluster: Cluster,
    down: Option<Down>,
    /// What was done how often.
    pub(super) done: HashMap<&'static str, usize>,
}

enum Down {
    Killed(usize),
    Paused(usize),
}

impl Brokers {
    pub(super) fn start(nodes: usize) -> Result<Brokers> {
        Ok(Brokers { cluster: Cluster::start(nodes)?, down: None, done: HashMap::new() })
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Mends what was broken before, and kills or pauses a node.
    pub(super) fn breaks(&mut self, rng: &mut Rng) -> Result<()> {
        self.mend()?;
        let node = rng.usize(0..self.cluster.nodes());
        if rng.bool() {
            self.cluster.kill(node)?;
            self.down = Some(Down::Killed(node));
            self.note("brokers killed");
        } else {
            self.cluster.pause(node)?;
            self.down = Some(Down::Paused(node));
            self.note("brokers paused");
        }
        Ok(())
    }

    /// Every node runs again.
    pub(super) fn mend(&mut self) -> Result<()> {
        match self.down.take() {
            None => Ok(()),
            Some(Down::Killed(node)) => {
                self.cluster.launch(node)?;
                self.cluster.wait_until_ready()
            }
            Some(Down::Paused(node)) => self.cluster.resume(node),
        }
    }
}
