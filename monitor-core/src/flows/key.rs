//! The key of a flow, the same for both directions.

use std::hash::{Hash, Hasher};

use crate::input::{Endpoint, FlowKey};

/// The two ends of a flow in address order, and the world in which they are unique.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PairKey {
    low: Endpoint,
    high: Endpoint,
    scope: u64,
}

/// One of the two ends of a [`PairKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    /// The lower endpoint.
    Low,
    /// The higher endpoint.
    High,
}

impl Side {
    /// Both ends, in the order of [`Side::index`].
    pub(crate) const BOTH: [Side; 2] = [Side::Low, Side::High];

    /// The other end.
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Low => Side::High,
            Side::High => Side::Low,
        }
    }

    /// 0 or 1, for arrays with one element per side.
    pub(crate) fn index(self) -> usize {
        match self {
            Side::Low => 0,
            Side::High => 1,
        }
    }
}

impl PairKey {
    /// The key of a flow between two endpoints, and which of its ends `source` is.
    pub(crate) fn new(source: Endpoint, target: Endpoint, scope: u64) -> (PairKey, Side) {
        if source <= target {
            (PairKey { low: source, high: target, scope }, Side::Low)
        } else {
            (PairKey { low: target, high: source, scope }, Side::High)
        }
    }

    /// The key of a flow whose server is known, and which of its ends the client is.
    pub(crate) fn of(flow: &FlowKey) -> (PairKey, Side) {
        PairKey::new(flow.client, flow.server, flow.scope)
    }

    /// The client's end as far as ports tell: servers have the lower ones.
    pub(crate) fn with_higher_port(&self) -> Side {
        if self.low.port > self.high.port { Side::Low } else { Side::High }
    }

    /// The client's end when exactly one of the ports is a server's.
    pub(crate) fn without_port(&self, server_ports: &[u16]) -> Option<Side> {
        match [self.low.port, self.high.port].map(|port| server_ports.contains(&port)) {
            [true, false] => Some(Side::High),
            [false, true] => Some(Side::Low),
            [true, true] | [false, false] => None,
        }
    }

    /// The endpoint at one side.
    pub(crate) fn endpoint(&self, side: Side) -> Endpoint {
        match side {
            Side::Low => self.low,
            Side::High => self.high,
        }
    }
}

/// Four words rather than byte slices with their lengths: this is done once for every segment.
impl Hash for PairKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.low.addr));
        state.write_u128(u128::from_ne_bytes(self.high.addr));
        state.write_u64(
            self.scope ^ (u64::from(self.low.port) << 48) ^ (u64::from(self.high.port) << 32),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let a = Endpoint::new([10, 0, 0, 1].into(), 443);
        let b = Endpoint::new([10, 0, 0, 2].into(), 50_000);
        let (there, from) = PairKey::new(a, b, 7);
        let (back, to) = PairKey::new(b, a, 7);
        assert_eq!((there, from), (back, to.other()));
        assert_eq!((there.endpoint(from), there.endpoint(to)), (a, b));
        assert_ne!(there, PairKey::new(a, b, 8).0);
    }
}
