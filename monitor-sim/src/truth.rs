//! What really happened.

use std::net::IpAddr;

use monitor_core::alert::Entity;
use monitor_core::call::KeyId;
use monitor_core::time::EventTime;
use serde::{Deserialize, Serialize};

use crate::attack::Kind;

/// One attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Its number in the world, from 1.
    pub id: u32,
    /// What was done.
    pub kind: Kind,
    /// Whether it is taken from a public incident.
    pub public: bool,
    /// Keys that were used or tried, oldest first; of made-up keys the first thousand.
    pub keys: Vec<KeyId>,
    /// Where from; the keys' own addresses only when the owner is the attacker.
    pub clients: Vec<IpAddr>,
    /// When it was going on.
    pub spans: Vec<Span>,
    /// How hard it was pushed, from 0 (hardly) to 1.
    pub strength: f64,
}

/// From the first call of a phase to its last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// First call, or earlier.
    pub start: EventTime,
    /// Last call, or later.
    pub end: EventTime,
}

impl Truth {
    /// The span that an alert of this time is about; `after_ns` for what is seen only afterwards.
    pub fn span_at(&self, time: EventTime, after_ns: u64) -> Option<&Span> {
        self.spans
            .iter()
            .rev()
            .find(|span| span.start <= time && time.0 <= span.end.0.saturating_add(after_ns))
    }

    /// Whether it is about this key, address or network.
    pub fn is_of(&self, entity: &Entity) -> bool {
        match entity {
            Entity::Key(id) => self.keys.contains(id),
            Entity::Client(ip) => self.clients.contains(ip),
            Entity::Network(ip) => self.clients.iter().any(|client| network(client) == *ip),
            // A group has no name outside of the Engine: its examples are looked at instead.
            Entity::Group(_) | Entity::Host => false,
        }
    }
}

/// The /24 or /48 of an address.
fn network(ip: &IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::V4([a, b, c, 0].into())
        }
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[3..].fill(0);
            IpAddr::V6(segments.into())
        }
    }
}
