//! One flow: two streams, who is the server, and what they speak.

use std::sync::Arc;

use super::context::Shell;
use super::conversation::Conversation;
use super::sniff::{Look, Sniff};
use crate::call::Anomalies;
use crate::connection::Connection;
use crate::flows::identity::Ends;
use crate::flows::key::{PairKey, Side};
use crate::flows::stream::{Accepted, Run, Stream};
use crate::input::{Direction, Open, Segment, TcpFlags};
use crate::time::EventTime;

/// State of a flow.
pub(super) struct FlowState {
    pub(super) ends: Ends,
    /// Client's initial sequence number of a handshake that makes this another flow if it goes on.
    pub(super) other_isn: Option<u32>,
    /// Both streams are known from their first byte.
    pub(super) from_start: bool,
    pub(super) has_payload: bool,
    pub(super) life: Life,
    pub(super) streams: [Stream; 2],
    speaks: Speaks,
    account: Account,
}

/// What went over a flow.
#[derive(Default)]
struct Account {
    /// First payload byte.
    first: Option<EventTime>,
    last: EventTime,
    /// Payload bytes from each side.
    bytes: [u64; 2],
    missing_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Open,
    /// By FINs, or given up.
    Closed,
    /// By a RST, which the receiver may have refused (RFC 5961, 3.2).
    Reset,
}

enum Speaks {
    /// Not known yet.
    Unknown(Sniff),
    Known(Conversation),
}

impl FlowState {
    /// Nothing known but the addresses.
    pub(super) fn new(key: PairKey) -> FlowState {
        FlowState {
            ends: Ends::new(key),
            other_isn: None,
            from_start: false,
            has_payload: false,
            life: Life::Open,
            streams: Default::default(),
            speaks: Speaks::Unknown(Sniff::default()),
            account: Account::default(),
        }
    }

    /// A flow that the kernel side announces.
    pub(super) fn opened(key: PairKey, client: Side, open: &Open) -> FlowState {
        let mut flow = FlowState::new(key);
        flow.from_start = !open.midstream;
        flow.start(client, open);
        flow
    }

    /// The kernel side says where the streams stand.
    pub(super) fn start(&mut self, client: Side, open: &Open) {
        self.ends.connect(client, open.client_isn);
        self.streams[client.index()].start(open.client_next);
        self.streams[client.other().index()].start(open.server_next);
    }

    /// Bytes that wait for others, in both streams.
    pub(super) fn reorder_bytes(&self) -> usize {
        self.streams[0].held_bytes() + self.streams[1].held_bytes()
    }

    /// Memory held besides the table's entry, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let speaks = match &self.speaks {
            Speaks::Unknown(_) => 0,
            Speaks::Known(conversation) => conversation.held_bytes(),
        };
        self.reorder_bytes() + speaks
    }

    /// Drops something that can be done without, to make room; false when there is nothing.
    pub(super) fn shed(&mut self) -> bool {
        match &mut self.speaks {
            Speaks::Unknown(_) => false,
            Speaks::Known(conversation) => conversation.shed(),
        }
    }

    /// Takes a segment that belongs to the flow.
    pub(super) fn segment(&mut self, side: Side, segment: &Segment<'_>, shell: &mut Shell<'_>) {
        let Segment { time, flags, payload, missing, .. } = *segment;
        let syn = flags.contains(TcpFlags::SYN);
        let ack = flags.contains(TcpFlags::ACK).then_some(segment.ack);
        let seq = segment.seq.wrapping_add(u32::from(syn));
        let has_payload = !payload.is_empty() || missing > 0;
        self.has_payload |= has_payload;
        if !syn {
            self.ends.see(side, seq, ack);
        }
        self.account.last = self.account.last.max(time);
        if self.is_over() && !self.revive(side, seq, has_payload) {
            self.account.bytes[side.index()] += payload.len() as u64;
            if flags.intersects(TcpFlags::FIN | TcpFlags::RST) && self.life == Life::Open {
                self.finish(time, Anomalies::empty(), shell);
            }
            return;
        }
        if let Some(ack) = ack {
            let peer = &mut self.streams[side.other().index()];
            if self.from_start {
                peer.start(ack);
            }
            peer.acknowledge(ack);
            self.pump(side.other(), time, shell);
            // Only now: what was pumped may have moved this side on.
            if has_payload && self.streams[side.index()].is_next(seq) {
                self.settle(side.other(), ack, time, shell);
                self.pump(side.other(), time, shell);
            }
        }
        let fin = flags.contains(TcpFlags::FIN);
        let run = Run { time, seq, payload, missing, fin, ack };
        match self.streams[side.index()].accept(run, shell.counters) {
            Accepted::InOrder { payload, missing } => {
                self.deliver(side, time, payload, missing, shell);
            }
            Accepted::Held => {}
            Accepted::Absurd => {
                shell.counters.segments_absurd += 1;
                return;
            }
        }
        self.pump(side, time, shell);
        while self.streams[side.index()].held_bytes() > shell.limits.reorder_bytes_per_direction_max
        {
            shell.counters.reorder_evictions += 1;
            self.give_up(side, time, shell);
        }
        if flags.contains(TcpFlags::RST) {
            self.reset(side, seq, time, shell);
        }
    }

    /// Its bytes are of no interest any more.
    fn is_over(&self) -> bool {
        match &self.speaks {
            Speaks::Unknown(_) => false,
            Speaks::Known(conversation) => conversation.is_over(),
        }
    }

    /// A client that goes on after a reset has not taken it: neither did the server, then.
    fn revive(&mut self, side: Side, seq: u32, has_payload: bool) -> bool {
        let goes_on = self.life == Life::Reset
            && has_payload
            && self.ends.client() == Some(side)
            && self.streams[side.index()].expects(seq);
        if goes_on {
            (self.life, self.from_start) = (Life::Open, false);
            self.speaks = Speaks::Unknown(Sniff::default());
        }
        goes_on
    }

    /// Delivers a stream as far as `ack`, which the other side had received when it sent what is to
    /// be delivered next: an answer must not be looked at before what it answers. What has not been
    /// captured by now is missing.
    fn settle(&mut self, side: Side, ack: u32, time: EventTime, shell: &mut Shell<'_>) {
        while self.streams[side.index()].is_behind(ack) {
            let stream = &mut self.streams[side.index()];
            if !stream.has_next() {
                let Some(missing) = stream.give_up_to(ack) else { return };
                self.gap(side, time, missing, shell);
                continue;
            }
            self.deliver_held(side, shell);
        }
    }

    fn reset(&mut self, side: Side, seq: u32, time: EventTime, shell: &mut Shell<'_>) {
        if self.life != Life::Open {
            return;
        }
        if self.streams[side.index()].expects(seq) {
            self.finish(time, Anomalies::empty(), shell);
            self.life = Life::Reset;
        } else {
            shell.counters.resets_ignored += 1;
        }
    }

    /// Delivers what can be, and gives up what is waited for in vain.
    pub(super) fn pump(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        loop {
            let stream = &mut self.streams[side.index()];
            if stream.has_next() {
                if let Some(ack) = stream.held_ack() {
                    self.settle(side.other(), ack, time, shell);
                }
                self.deliver_held(side, shell);
            } else if stream.reach_fin() {
                self.end(side, time, shell);
            } else if stream.waits_in_vain() {
                self.skip_hole(side, time, shell);
            } else {
                return;
            }
        }
    }

    /// The hole in a stream will not be filled.
    pub(super) fn give_up(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        self.skip_hole(side, time, shell);
        self.pump(side, time, shell);
    }

    fn skip_hole(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        // The other direction first: part of the hole may belong before what waits there.
        let hole = self.streams[side.index()].next_seq();
        if let Some(ack) = self.streams[side.index()].held_ack() {
            self.settle(side.other(), ack, time, shell);
        }
        let stream = &mut self.streams[side.index()];
        if stream.next_seq() == hole
            && let Some(missing) = stream.give_up()
        {
            self.gap(side, time, missing, shell);
        }
    }

    fn deliver_held(&mut self, side: Side, shell: &mut Shell<'_>) {
        let Some(held) = self.streams[side.index()].next_held() else { return };
        if held.conflict
            && let Speaks::Known(conversation) = &mut self.speaks
        {
            conversation.note(self.ends.direction(side), Anomalies::OVERLAP_CONFLICT);
        }
        self.deliver(side, held.time, &held.data, held.missing, shell);
    }

    /// Nothing follows: gives out all there is.
    pub(super) fn finish(&mut self, time: EventTime, why: Anomalies, shell: &mut Shell<'_>) {
        let client = self.ends.client().unwrap_or(Side::Low);
        for side in [client, client.other()] {
            while self.streams[side.index()].waits() {
                self.give_up(side, time, shell);
            }
        }
        let over = Speaks::Known(Conversation::Other);
        let mut spoken = std::mem::replace(&mut self.speaks, over);
        match &mut spoken {
            Speaks::Known(conversation) => {
                conversation.abort(why, &mut shell.context(&mut self.ends));
            }
            Speaks::Unknown(_) => shell.counters.flows_not_http += u64::from(self.has_payload),
        }
        if self.life == Life::Open {
            self.life = Life::Closed;
        }
        self.conclude(&spoken, shell);
    }

    /// Gives out what the connection amounted to, once.
    fn conclude(&mut self, spoken: &Speaks, shell: &mut Shell<'_>) {
        let account = std::mem::take(&mut self.account);
        let Some(time) = account.first else { return };
        let bytes_of = |direction| {
            let sides = Side::BOTH.into_iter().zip(account.bytes);
            sides.filter(|(side, _)| self.ends.direction(*side) == direction).map(|(_, n)| n).sum()
        };
        let mut record = Connection {
            time,
            end: account.last,
            protocol: None,
            calls: self.ends.calls,
            bytes_to_server: bytes_of(Direction::ToServer),
            bytes_to_client: bytes_of(Direction::ToClient),
            missing_bytes: account.missing_bytes,
            websocket: None,
            flow: Arc::clone(self.ends.flow()),
        };
        match spoken {
            Speaks::Known(conversation) => conversation.describe(&mut record),
            Speaks::Unknown(_) => {}
        }
        shell.connections.push_back(record);
    }

    /// A side has sent its FIN.
    fn end(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        let direction = self.ends.direction(side);
        if let Speaks::Known(conversation) = &mut self.speaks {
            conversation.end(direction, &mut shell.context(&mut self.ends));
        }
        if self.streams[side.other().index()].finished() {
            self.finish(time, Anomalies::empty(), shell);
        }
    }

    fn deliver(
        &mut self,
        side: Side,
        time: EventTime,
        payload: &[u8],
        missing: u32,
        shell: &mut Shell<'_>,
    ) {
        let direction = self.ends.direction(side);
        self.account.bytes[side.index()] += payload.len() as u64;
        if !payload.is_empty() {
            self.account.first.get_or_insert(time);
        }
        match &mut self.speaks {
            Speaks::Known(conversation) => {
                let cx = &mut shell.context(&mut self.ends);
                conversation.data(direction, time, payload, cx);
                if conversation.is_over() {
                    self.streams = Default::default();
                }
            }
            Speaks::Unknown(_) => self.sniff(side, time, payload, shell),
        }
        if missing > 0 {
            self.gap(side, time, u64::from(missing), shell);
        }
    }

    fn gap(&mut self, side: Side, time: EventTime, bytes: u64, shell: &mut Shell<'_>) {
        shell.counters.gaps += 1;
        shell.counters.gap_bytes += bytes;
        self.account.missing_bytes = self.account.missing_bytes.saturating_add(bytes);
        let direction = self.ends.direction(side);
        match &mut self.speaks {
            Speaks::Known(conversation) => {
                conversation.gap(direction, time, bytes, &mut shell.context(&mut self.ends));
            }
            Speaks::Unknown(sniff) => {
                sniff.gap(side.index(), bytes);
                self.from_start = false;
            }
        }
    }

    /// Looks at first bytes: who is the server, if that is not known yet, and what do they speak?
    fn sniff(&mut self, side: Side, time: EventTime, payload: &[u8], shell: &mut Shell<'_>) {
        let Speaks::Unknown(sniff) = &mut self.speaks else { return };
        let Some(mut look) = sniff.look(side.index(), time, payload) else { return };
        let sniff = std::mem::take(sniff);
        let key = self.ends.key();
        let client = self.ends.orient(|| match look {
            Look::Request => side,
            Look::Response => side.other(),
            Look::Tls | Look::Other => key.with_higher_port(),
        });
        let fits = match look {
            Look::Request => client == side,
            Look::Response => client != side,
            Look::Tls | Look::Other => true,
        };
        if !fits {
            look = Look::Other;
        }
        let sides = [client.index(), client.other().index()];
        let direction = self.ends.direction(side);
        let cx = &mut shell.context(&mut self.ends);
        let midstream = !self.from_start;
        let mut conversation = Conversation::begin(look, &sniff, sides, midstream, time, cx);
        conversation.data(direction, time, payload, cx);
        if conversation.is_over() {
            self.streams = Default::default();
        }
        self.speaks = Speaks::Known(conversation);
    }
}
