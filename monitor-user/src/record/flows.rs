//! The connections that are open, as far as a reader must know them who starts at a later file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monitor_core::input::{Direction, Endpoint, FlowKey, Open, Owner, Plain, Segment, TcpFlags};
use monitor_core::time::EventTime;

/// Twice what the Decoder holds, as in the reader of the rings. Beyond it a connection is recorded
/// all the same, and only not announced again.
const FLOWS_MAX: usize = 262_144;

/// After so long without traffic the Decoder has dropped a flow (the default of its limits).
const IDLE_MAX: Duration = Duration::from_secs(300);

/// What is known of open connections.
#[derive(Default)]
pub(super) struct Flows {
    known: HashMap<FlowKey, Known>,
}

/// A connection.
pub(super) struct Known {
    /// As it would be announced now.
    pub(super) open: Open,
    pub(super) owner: Option<Arc<Owner>>,
    used: EventTime,
}

impl Flows {
    pub(super) fn open(&mut self, open: &Open) {
        if self.known.len() >= FLOWS_MAX && !self.known.contains_key(&open.flow) {
            self.known.retain(|_, known| known.used.after(IDLE_MAX) >= open.time);
            if self.known.len() >= FLOWS_MAX {
                return;
            }
        }
        let known = Known { open: *open, owner: None, used: open.time };
        self.known.insert(open.flow, known);
    }

    pub(super) fn own(&mut self, flow: &FlowKey, owner: &Arc<Owner>) {
        if let Some(known) = self.known.get_mut(flow) {
            known.owner = Some(Arc::clone(owner));
        }
    }

    pub(super) fn segment(&mut self, segment: &Segment<'_>) {
        let Segment { source, target, scope, .. } = *segment;
        let (known, from_client) = match self.find(source, target, scope) {
            Some(found) => found,
            None => return,
        };
        known.used = known.used.max(segment.time);
        let length = segment.payload.len() as u64 + u64::from(segment.missing);
        // Before the first byte the connection can be announced as it began.
        known.open.midstream |= length > 0;
        let ends = segment.flags & (TcpFlags::SYN | TcpFlags::FIN);
        let beyond =
            segment.seq.wrapping_add(length as u32).wrapping_add(ends.iter().count() as u32);
        let next =
            if from_client { &mut known.open.client_next } else { &mut known.open.server_next };
        if (beyond.wrapping_sub(*next) as i32) > 0 {
            *next = beyond;
        }
    }

    pub(super) fn plain(&mut self, plain: &Plain<'_>) {
        let Some(known) = self.known.get_mut(&plain.flow) else { return };
        known.used = known.used.max(plain.time);
        known.open.midstream = true;
        let next = match plain.direction {
            Direction::ToServer => &mut known.open.client_next,
            Direction::ToClient => &mut known.open.server_next,
        };
        *next = next.wrapping_add(plain.payload.len() as u32).wrapping_add(plain.missing);
    }

    pub(super) fn lose(&mut self, flow: &FlowKey) {
        if let Some(known) = self.known.get_mut(flow) {
            known.open.midstream = true;
        }
    }

    pub(super) fn close(&mut self, flow: &FlowKey) {
        self.known.remove(flow);
    }

    /// Sequence and acknowledgement number that a segment in this direction would have.
    pub(super) fn next(&self, flow: &FlowKey, direction: Direction) -> (u32, u32) {
        let Some(known) = self.known.get(flow) else { return (0, 0) };
        match direction {
            Direction::ToServer => (known.open.client_next, known.open.server_next),
            Direction::ToClient => (known.open.server_next, known.open.client_next),
        }
    }

    /// Those that a reader may still meet, in an order that depends on them alone.
    pub(super) fn alive(&mut self, now: EventTime) -> Vec<Known> {
        self.known.retain(|_, known| known.used.after(IDLE_MAX) >= now);
        let mut alive: Vec<_> = self
            .known
            .values()
            .map(|known| Known { open: known.open, owner: known.owner.clone(), used: known.used })
            .collect();
        alive.sort_by_key(|known| {
            let FlowKey { client, server, scope } = known.open.flow;
            (known.open.time, client, server, scope)
        });
        alive
    }

    /// The connection, and whether its client is the source.
    fn find(
        &mut self,
        source: Endpoint,
        target: Endpoint,
        scope: u64,
    ) -> Option<(&mut Known, bool)> {
        let up = FlowKey { client: source, server: target, scope };
        let from_client = self.known.contains_key(&up);
        let flow = if from_client { up } else { FlowKey { client: target, server: source, scope } };
        Some((self.known.get_mut(&flow)?, from_client))
    }
}
