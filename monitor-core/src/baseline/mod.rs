//! What is usual: per key, per client, and over all keys of the host.

mod accounts;
mod across;
mod agents;
mod cold;
mod concurrency;
mod crowd;
mod distinct;
mod drift;
mod endpoints;
mod familiar;
mod fleet;
mod grants;
mod key;
mod market;
mod marks;
pub(crate) mod math;
mod mix;
mod names;
mod objects;
mod outcomes;
mod parameters;
mod peaks;
mod presence;
mod probes;
mod quoting;
mod rarity;
mod rate;
mod replays;
mod routes;
pub(crate) mod saved;
mod seen;
mod sequences;
mod sessions;
mod signing;
mod sizes;
mod slots;
mod sources;
mod symbols;
mod synchrony;
mod tables;

pub(crate) use accounts::{Account, Owners};
pub(crate) use across::Across;
pub(crate) use agents::{family, print};
pub(crate) use cold::Cold;
pub(crate) use crowd::Tide;
pub(crate) use endpoints::{Endpoint, Host, Inventory};
pub(crate) use familiar::{Place, prefix};
pub(crate) use fleet::Fleet;
pub(crate) use grants::Standing as RedirectStanding;
pub(crate) use key::{KeyState, News};
pub use key::{KeyView, OperationView};
pub(crate) use market::Market;
pub(crate) use marks::Mark;
pub(crate) use names::{Named, Names};
pub(crate) use objects::Walk;
pub(crate) use presence::Revival;
pub(crate) use probes::{Probed, Sign};
pub(crate) use replays::Again;
pub(crate) use sessions::{Audience, Held, Holder};
pub(crate) use signing::Signing;
pub(crate) use slots::Slots;
pub(crate) use sources::{Sources, Sprayed, Tried};
pub(crate) use symbols::Familiarity;
pub(crate) use synchrony::{
    AWAY_MAX, Edge, Kind, Saved as Groups, SavedRef as GroupsRef, Standing, Synchrony, Together,
};
pub(crate) use tables::{Tables, TablesRef};

use crate::call::Operation;
use crate::time::EventTime;

/// Number of the half window that a time is in.
fn half_window(time: EventTime, window_s: u64) -> u64 {
    time.secs() / (window_s / 2).max(1)
}

/// Operation classes.
pub(crate) const OPS: usize = 10;
const _: () = assert!(Operation::ALL.len() == OPS);

/// Place of an operation in a table of [`OPS`].
pub(crate) fn op_index(op: Operation) -> usize {
    match op {
        Operation::Public => 0,
        Operation::Read => 1,
        Operation::Trade => 2,
        Operation::Cancel => 3,
        Operation::Transfer => 4,
        Operation::Withdraw => 5,
        Operation::AddressBook => 6,
        Operation::KeyManagement => 7,
        Operation::Subaccount => 8,
        Operation::Auth => 9,
    }
}
