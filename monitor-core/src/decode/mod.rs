//! The Decoder: captured bytes in, API calls out.

mod content;
mod context;
mod conversation;
mod counters;
mod early;
mod fix;
mod flow;
mod grpc;
mod handshake;
mod http1;
pub mod http2;
mod preamble;
mod protobuf;
mod proxied;
mod sniff;
mod tap;
mod tls;
mod websocket;

use std::collections::{BTreeSet, VecDeque};

use self::context::Shell;
pub use self::counters::Counters;
use self::flow::{FlowState, Life};
use self::handshake::Handshake;
pub use self::proxied::behind_proxy_header;
use self::tap::Tap;
pub use self::tap::Tapped;
use self::tls::Secrets;
use crate::call::{Anomalies, ApiCall, FlowId};
use crate::connection::Connection;
use crate::flows::key::{PairKey, Side};
use crate::flows::stream::{Spare, Stream};
use crate::flows::table::{Keyed, Slot, Standing, Table};
use crate::identity::Identifier;
use crate::input::{Direction, Endpoint, FlowKey, Input, Open, Plain, Segment, TcpFlags};
use crate::limits::Limits;
use crate::time::EventTime;

/// Turns [`Input`] into [`ApiCall`]s. State per flow.
pub struct Decoder {
    limits: Limits,
    identifier: Identifier,
    secrets: Secrets,
    server_ports: Box<[u16]>,
    counters: Counters,
    bench: websocket::Bench,
    calls: VecDeque<ApiCall>,
    connections: VecDeque<Connection>,
    tap: Option<Tap>,
    table: Table<Tracked>,
    spare: Spare,
    /// Streams that wait for missing bytes, by when they stop to.
    deadlines: BTreeSet<(EventTime, Slot, Side)>,
    reorder_bytes: usize,
    held_bytes: usize,
    now: EventTime,
    /// No flow is due to be dropped before.
    expiry: EventTime,
}

/// What is known of a flow's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its id, which stays, and its client.
    As(FlowId, Endpoint),
    /// It is not clear yet which end is the client, or where it begins.
    NotYet,
}

/// A flow, and what the totals hold of it.
struct Tracked {
    flow: FlowState,
    reorder_bytes: usize,
    held_bytes: usize,
    /// For each side, where one waits, the deadline and the sequence number that it waits for.
    waits: Option<Box<Waits>>,
}

type Waits = [Option<(EventTime, u32)>; 2];

impl Keyed for Tracked {
    fn key(&self) -> &PairKey {
        self.flow.ends.key()
    }
}

impl Decoder {
    /// `server_ports`: which ports belong to servers, to tell client from server where no handshake
    /// was seen; empty when not known.
    pub fn new(limits: Limits, identifier: Identifier, server_ports: &[u16]) -> Decoder {
        Decoder {
            limits,
            identifier,
            secrets: Secrets::default(),
            server_ports: server_ports.into(),
            counters: Counters::default(),
            bench: websocket::Bench::default(),
            calls: VecDeque::new(),
            connections: VecDeque::new(),
            tap: None,
            table: Table::new(0),
            spare: Spare::default(),
            deadlines: BTreeSet::new(),
            reorder_bytes: 0,
            held_bytes: 0,
            now: EventTime::default(),
            expiry: EventTime::default(),
        }
    }

    /// With a seed for the hash of the flow table. It changes nothing that is given out; a random one
    /// keeps clients from choosing addresses that collide. To be set before the first input.
    pub fn with_hash_seed(mut self, seed: u64) -> Decoder {
        if self.table.len() == 0 {
            self.table = Table::new(seed);
        }
        self
    }

    /// Ports that belong to servers, besides those known before; for flows that begin later.
    pub fn add_server_ports(&mut self, ports: &[u16]) {
        let mut all = std::mem::take(&mut self.server_ports).into_vec();
        all.extend_from_slice(ports);
        all.sort_unstable();
        all.dedup();
        self.server_ports = all.into();
    }

    /// How credentials are found and calls classified: for other profiles, or to see what was noted.
    pub fn identifier(&mut self) -> &mut Identifier {
        &mut self.identifier
    }

    /// Takes one input, in order of capture.
    pub fn handle_input(&mut self, input: Input<'_>) {
        match input {
            Input::Segment(segment) => self.segment(&segment),
            Input::Open(open) => self.open(&open),
            Input::Owner { flow, owner } => match self.table.find(&PairKey::of(&flow).0) {
                Some(slot) => {
                    if let Some(tracked) = self.table.at(slot) {
                        tracked.flow.ends.own(owner);
                    }
                }
                None => self.counters.owners_unknown += 1,
            },
            Input::Lost { time, flow, direction, bytes } => {
                self.lost(time, &flow, direction, bytes);
            }
            Input::Plain(plain) => self.plain(&plain),
            Input::Close { time, flow } => {
                self.pass(time);
                if let Some(slot) = self.table.find(&PairKey::of(&flow).0) {
                    self.remove(slot, Anomalies::empty());
                }
            }
            Input::Secrets(lines) => {
                let max = self.limits.tls_secrets_max;
                self.secrets.read(lines, max, &mut self.counters);
            }
            Input::Tick(time) => self.pass(time),
        }
        self.keep_bounds();
    }

    /// The next finished call.
    pub fn poll_call(&mut self) -> Option<ApiCall> {
        self.calls.pop_front()
    }

    /// All finished calls, in exchange for a list that was emptied; false when there are none.
    pub fn take_calls(&mut self, calls: &mut VecDeque<ApiCall>) -> bool {
        debug_assert!(calls.is_empty());
        let has_calls = !self.calls.is_empty();
        if has_calls {
            std::mem::swap(&mut self.calls, calls);
        }
        has_calls
    }

    /// The next connection that is over.
    pub fn poll_connection(&mut self) -> Option<Connection> {
        self.connections.pop_front()
    }

    /// No input follows: gives out what is still open, as incomplete as it is.
    pub fn finish(&mut self) {
        while self.finish_one() {}
    }

    /// The same for one flow; false when there is none. What was given out may be taken before the next.
    pub fn finish_one(&mut self) -> bool {
        let slot = self.table.victim();
        if let Some(slot) = slot {
            self.remove(slot, Anomalies::empty());
        }
        slot.is_some()
    }

    /// The flow that is known between two ends at present, whichever of them is the client.
    pub fn flow_between(&mut self, ends: [Endpoint; 2], scope: u64) -> Option<Known> {
        let slot = self.table.find(&PairKey::new(ends[0], ends[1], scope).0)?;
        let ends = &self.table.at(slot)?.flow.ends;
        let known = ends.known_id().zip(ends.client());
        Some(known.map_or(Known::NotYet, |(id, client)| Known::As(id, ends.key().endpoint(client))))
    }

    /// Asks for the plaintext inside a flow's encryption. It holds credentials, if the flow does.
    pub fn tap(&mut self, flow: FlowId) {
        self.tap = Some(Tap { flow, waiting: VecDeque::new() });
    }

    /// The next plaintext; to be taken after each input.
    pub fn poll_tapped(&mut self) -> Option<Tapped> {
        self.tap.as_mut()?.waiting.pop_front()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Flows that are known at present.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// Memory that depends on what was captured, about, in bytes; calls that wait to be polled aside.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes + self.table.len() * Table::<Tracked>::entry_bytes()
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.counters.segments += 1;
        self.counters.payload_bytes += segment.payload.len() as u64;
        self.pass(segment.time);
        let (key, side) = PairKey::new(segment.source, segment.target, segment.scope);
        let Some(slot) = self.slot_of(key, side, segment) else { return };
        self.with_flow(slot, |flow, shell| flow.segment(side, segment, shell));
    }

    /// The flow that a segment belongs to, a new one where there is none.
    fn slot_of(&mut self, key: PairKey, side: Side, segment: &Segment<'_>) -> Option<Slot> {
        let Some(slot) = self.table.find(&key) else {
            let is_empty = segment.payload.is_empty() && segment.missing == 0;
            if is_empty && !segment.flags.contains(TcpFlags::SYN) {
                self.counters.segments_unknown += 1;
                return None;
            }
            let flow = handshake::begin(key, side, segment, &self.server_ports);
            return Some(self.insert(flow));
        };
        let flow = &mut self.table.at(slot)?.flow;
        match handshake::judge(flow, side, segment) {
            Handshake::Same => Some(slot),
            Handshake::Another => {
                let next = handshake::succeed(flow, side, segment, &self.server_ports);
                self.remove(slot, Anomalies::empty());
                Some(self.insert(next))
            }
            Handshake::Unclear => {
                self.counters.syns_ignored += 1;
                None
            }
        }
    }

    fn open(&mut self, open: &Open) {
        self.pass(open.time);
        let (key, client) = PairKey::of(&open.flow);
        if let Some(slot) = self.table.find(&key) {
            let Some(tracked) = self.table.at(slot) else { return };
            let isn = tracked.flow.ends.client_isn();
            if tracked.flow.life == Life::Open && isn.is_none_or(|isn| isn == open.client_isn) {
                tracked.flow.start(client, open);
                return;
            }
            self.remove(slot, Anomalies::empty());
        }
        self.insert(FlowState::opened(key, client, open));
    }

    fn lost(&mut self, time: EventTime, flow: &FlowKey, direction: Direction, bytes: u64) {
        self.counters.lost_bytes = self.counters.lost_bytes.saturating_add(bytes);
        self.pass(time);
        let (key, client) = PairKey::of(flow);
        let Some(slot) = self.table.find(&key) else { return };
        let side = match direction {
            Direction::ToServer => client,
            Direction::ToClient => client.other(),
        };
        self.with_flow(slot, |flow, shell| {
            flow.ends.orient(|| client);
            flow.streams[side.index()].lose(bytes);
            flow.pump(side, time, shell);
        });
    }

    /// Plaintext that the shell found elsewhere than on the wire.
    fn plain(&mut self, plain: &Plain<'_>) {
        self.counters.plain_bytes += plain.payload.len() as u64;
        self.pass(plain.time);
        let (key, client) = PairKey::of(&plain.flow);
        let slot = match self.table.find(&key) {
            Some(slot) => slot,
            // It was given up to make room, and goes on.
            None => self.insert(FlowState::new(key)),
        };
        self.with_flow(slot, |flow, shell| flow.plain(client, plain, shell));
    }

    /// Time goes on: what has waited too long is given up.
    fn pass(&mut self, time: EventTime) {
        if time <= self.now {
            return;
        }
        self.now = time;
        while let Some(&(deadline, slot, side)) = self.deadlines.first() {
            if deadline > time {
                break;
            }
            if self.wait_on(slot, side) {
                continue;
            }
            self.counters.reorder_timeouts += 1;
            self.with_flow(slot, |flow, shell| flow.give_up(side, time, shell));
        }
        if time > self.expiry {
            self.expire(time);
        }
    }

    /// Drops what has been without traffic for too long.
    fn expire(&mut self, time: EventTime) {
        // Whatever is used from now on is not due before this.
        let mut expiry = time.after(self.limits.closed_max.min(self.limits.idle_max));
        let bounds =
            [(Standing::Spare, self.limits.closed_max), (Standing::Kept, self.limits.idle_max)];
        for (standing, wait) in bounds {
            while let Some((slot, used)) = self.table.oldest(standing) {
                let due = used.after(wait);
                if due >= time {
                    expiry = expiry.min(due);
                    break;
                }
                let Some(Tracked { flow, .. }) = self.table.at(slot) else { break };
                self.counters.flows_expired += u64::from(flow.life == Life::Open);
                let ended = flow.has_ended_alone();
                self.remove(slot, if ended { Anomalies::empty() } else { Anomalies::EVICTED });
            }
        }
        self.expiry = expiry;
    }

    /// Gives a stream more time when the receiver waits as well: the bytes will be sent again.
    fn wait_on(&mut self, slot: Slot, side: Side) -> bool {
        let Some(tracked) = self.table.at(slot) else { return false };
        let wait = tracked.waits.as_mut().and_then(|waits| waits[side.index()].as_mut());
        let Some((deadline, _)) = wait else { return false };
        if !tracked.flow.streams[side.index()].is_asked_for() {
            return false;
        }
        let later = self.now.after(self.limits.reorder_wait_max);
        self.deadlines.remove(&(*deadline, slot, side));
        self.deadlines.insert((later, slot, side));
        *deadline = later;
        later > self.now
    }

    fn insert(&mut self, flow: FlowState) -> Slot {
        while self.table.len() >= self.limits.flows_max.max(1) {
            let Some(slot) = self.table.victim() else { break };
            let open = self.table.at(slot).is_some_and(|it| it.flow.life == Life::Open);
            self.counters.flows_evicted += u64::from(open);
            self.remove(slot, Anomalies::EVICTED);
        }
        self.counters.flows_opened += 1;
        self.counters.flows_midstream += u64::from(!flow.from_start);
        let tracked = Tracked { flow, reorder_bytes: 0, held_bytes: 0, waits: None };
        self.table.insert(self.now, tracked)
    }

    fn remove(&mut self, slot: Slot, why: Anomalies) {
        let now = self.now;
        self.with_flow(slot, |flow, shell| flow.finish(now, why, shell));
        if let Some(tracked) = self.table.remove(slot) {
            self.reorder_bytes -= tracked.reorder_bytes;
            self.held_bytes -= tracked.held_bytes;
            for (side, wait) in
                Side::BOTH.into_iter().zip(tracked.waits.as_deref().copied().unwrap_or_default())
            {
                if let Some((deadline, _)) = wait {
                    self.deadlines.remove(&(deadline, slot, side));
                }
            }
        }
    }

    /// Does something with a flow and keeps the accounts.
    fn with_flow(&mut self, slot: Slot, act: impl FnOnce(&mut FlowState, &mut Shell<'_>)) {
        let Some(tracked) = self.table.at(slot) else { return };
        let mut shell = Shell {
            limits: &self.limits,
            identifier: &self.identifier,
            secrets: &self.secrets,
            counters: &mut self.counters,
            bench: &mut self.bench,
            calls: &mut self.calls,
            connections: &mut self.connections,
            tap: &mut self.tap,
            spare: &mut self.spare,
        };
        act(&mut tracked.flow, &mut shell);
        let flow = &tracked.flow;
        let (reorder_bytes, held_bytes) = (flow.reorder_bytes(), flow.held_bytes());
        self.reorder_bytes = self.reorder_bytes - tracked.reorder_bytes + reorder_bytes;
        self.held_bytes = self.held_bytes - tracked.held_bytes + held_bytes;
        (tracked.reorder_bytes, tracked.held_bytes) = (reorder_bytes, held_bytes);
        if tracked.waits.is_some() || flow.streams.iter().any(Stream::waits) {
            let waits = tracked.waits.get_or_insert_default();
            for side in Side::BOTH {
                let wait = &mut waits[side.index()];
                let stream = &flow.streams[side.index()];
                let seq = stream.waits().then(|| stream.next_seq());
                if wait.map(|(_, seq)| seq) != seq {
                    if let Some((deadline, _)) = wait.take() {
                        self.deadlines.remove(&(deadline, slot, side));
                    }
                    *wait = seq.map(|seq| (self.now.after(self.limits.reorder_wait_max), seq));
                    if let Some((deadline, _)) = wait {
                        self.deadlines.insert((*deadline, slot, side));
                    }
                }
            }
            if **waits == Waits::default() {
                tracked.waits = None;
            }
        }
        let standing = if flow.is_spare() { Standing::Spare } else { Standing::Kept };
        self.table.touch(slot, self.now, standing);
    }

    /// Makes room without giving up the flow; false when it holds nothing that it can do without.
    fn shed(&mut self, slot: Slot) -> bool {
        let Some(tracked) = self.table.at(slot) else { return false };
        let before = tracked.held_bytes;
        if !tracked.flow.shed() {
            return false;
        }
        tracked.held_bytes = tracked.flow.held_bytes();
        self.held_bytes = self.held_bytes - before + tracked.held_bytes;
        self.counters.windows_dropped += 1;
        true
    }

    /// Gives up holes, then flows, until what is held is within its bounds.
    fn keep_bounds(&mut self) {
        while self.reorder_bytes > self.limits.reorder_bytes_max {
            let Some(&(_, slot, side)) = self.deadlines.first() else { break };
            self.counters.reorder_evictions += 1;
            let now = self.now;
            self.with_flow(slot, |flow, shell| flow.give_up(side, now, shell));
        }
        while self.held_bytes > self.limits.held_bytes_max {
            let Some((slot, _)) = self.table.oldest(Standing::Kept) else { break };
            if self.shed(slot) {
                continue;
            }
            self.counters.flows_evicted += 1;
            self.counters.flows_evicted_for_memory += 1;
            self.remove(slot, Anomalies::EVICTED);
        }
    }
}
