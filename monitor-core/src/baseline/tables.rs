//! What is known across keys, as it lies in a snapshot. Each table is bounded there; what is left out is
//! what says least.

use serde::{Deserialize, Serialize};

use super::accounts::{Owner, Owners};
use super::fleet::Fleet;
use super::market::{self, Uptake};
use super::parameters::{self, Parameters};
use super::sizes::Shared;
use super::sources::{self, Sources};

/// For a snapshot.
#[derive(Serialize)]
pub(crate) struct TablesRef<'a> {
    sources: sources::SavedRef<'a>,
    owners: Vec<(u64, &'a Owner)>,
    agents: Vec<(u16, &'a Uptake)>,
    audiences: Vec<(u16, &'a Uptake)>,
    market: market::SavedRef<'a>,
    sizes: Vec<(u64, &'a Shared)>,
    parameters: parameters::Saved,
}

/// The same, read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tables {
    sources: sources::Saved,
    owners: Vec<(u64, Owner)>,
    agents: Vec<(u16, Uptake)>,
    audiences: Vec<(u16, Uptake)>,
    market: market::Saved,
    sizes: Vec<(u64, Shared)>,
    parameters: parameters::Saved,
}

impl<'a> TablesRef<'a> {
    pub(crate) fn of(
        fleet: &'a Fleet,
        sources: &'a Sources,
        owners: &'a Owners,
        parameters: parameters::Saved,
    ) -> TablesRef<'a> {
        TablesRef {
            sources: sources.save(),
            owners: owners.save(),
            agents: fleet.agents.save(),
            audiences: fleet.audiences.save(),
            market: fleet.market.save(),
            sizes: fleet.endpoint_sizes.save(),
            parameters,
        }
    }
}

impl Tables {
    /// Goes on from them.
    pub(crate) fn restore(
        self,
        fleet: &mut Fleet,
        sources: &mut Sources,
        owners: &mut Owners,
        parameters: &mut Parameters,
    ) {
        sources.restore(self.sources);
        owners.restore(self.owners);
        fleet.agents.restore(self.agents);
        fleet.audiences.restore(self.audiences);
        fleet.market.restore(self.market);
        fleet.endpoint_sizes.restore(self.sizes);
        parameters.restore(self.parameters);
    }
}
