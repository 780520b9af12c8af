//! A cluster of which one node at a time is killed, paused or cut off from the network.

use std::collections::HashMap;

use anyhow::Result;
use fastrand::Rng;

use crate::cluster::Cluster;
use crate::setup;

/// See the module.
pub(super) struct Brokers {
    pub(super) cluster: Cluster,
    down: Option<Down>,
    /// What was done how often.
    done: HashMap<&'static str, usize>,
}

enum Down {
    Killed(usize),
    Paused(usize),
    CutOff(usize),
}

impl Brokers {
    pub(super) fn start(nodes: usize) -> Result<Brokers> {
        // A single node that is cut off is as good as paused.
        let cluster = match nodes > 1 && setup::is_root() {
            true => Cluster::start_on_a_network(nodes)?,
            false => Cluster::start(nodes)?,
        };
        Ok(Brokers { cluster, down: None, done: HashMap::new() })
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// What was done how often, for people.
    pub(super) fn done(&self) -> String {
        let mut done: Vec<String> =
            self.done.iter().map(|(what, count)| format!("{what} {count}")).collect();
        done.sort_unstable();
        done.join(", ")
    }

    /// Mends what was broken before, and kills, pauses or cuts off a node.
    pub(super) fn breaks(&mut self, rng: &mut Rng) -> Result<()> {
        self.mend()?;
        let node = rng.usize(0..self.cluster.nodes());
        match rng.u8(0..if self.cluster.is_on_a_network() { 3 } else { 2 }) {
            0 => {
                self.cluster.kill(node)?;
                self.down = Some(Down::Killed(node));
                self.note("brokers killed");
            }
            1 => {
                self.cluster.pause(node)?;
                self.down = Some(Down::Paused(node));
                self.note("brokers paused");
            }
            _ => {
                self.cluster.cut(node)?;
                self.down = Some(Down::CutOff(node));
                self.note("brokers cut off");
            }
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
            Some(Down::CutOff(node)) => self.cluster.join(node),
        }
    }
}
