//! One flow: two streams, who is the server, and what they speak.

use std::collections::VecDeque;

use super::Counters;
use super::http1::{Connection, Context};
use super::sniff::{Look, Sniff};
use crate::call::{Anomalies, ApiCall};
use crate::flows::identity::Ends;
use crate::flows::key::{PairKey, Side};
use crate::flows::stream::{Accepted, Run, Stream};
use crate::identity::Identifier;
use crate::input::{Open, Segment, TcpFlags};
use crate::limits::Limits;
use crate::time::EventTime;

/// What flows work with and do not own.
pub(super) struct Shell<'a> {
    pub(super) limits: &'a Limits,
    pub(super) identifier: &'a Identifier,
    pub(super) counters: &'a mut Counters,
    pub(super) calls: &'a mut VecDeque<ApiCall>,
}

impl Shell<'_> {
    fn context<'a>(&'a mut self, ends: &'a mut Ends) -> Context<'a> {
        Context {
            limits: self.limits,
            identifier: self.identifier,
            counters: self.counters,
            calls: self.calls,
            flow: ends.flow(),
        }
    }
}

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
    Http1(Box<Connection>),
    /// Nothing that is decoded.
    Other,
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
            Speaks::Unknown(_) | Speaks::Other => 0,
            Speaks::Http1(connection) => size_of::<Connection>() + connection.held_bytes(),
        };
        self.reorder_bytes() + speaks
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
        if matches!(self.speaks, Speaks::Other) && !self.revive(side, seq, has_payload) {
            if flags.intersects(TcpFlags::FIN | TcpFlags::RST) && self.life == Life::Open {
                self.life = Life::Closed;
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
            && let Speaks::Http1(connection) = &mut self.speaks
        {
            connection.note(self.ends.direction(side), Anomalies::OVERLAP_CONFLICT);
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
        match std::mem::replace(&mut self.speaks, Speaks::Other) {
            Speaks::Http1(mut connection) => {
                connection.abort(why, &mut shell.context(&mut self.ends));
            }
            Speaks::Unknown(_) => shell.counters.flows_not_http += u64::from(self.has_payload),
            Speaks::Other => {}
        }
        if self.life == Life::Open {
            self.life = Life::Closed;
        }
    }

    /// A side has sent its FIN.
    fn end(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        let direction = self.ends.direction(side);
        if let Speaks::Http1(connection) = &mut self.speaks {
            connection.end(direction, &mut shell.context(&mut self.ends));
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
        match &mut self.speaks {
            Speaks::Http1(connection) => {
                let cx = &mut shell.context(&mut self.ends);
                connection.data(direction, time, payload, cx);
            }
            Speaks::Unknown(_) => self.sniff(side, time, payload, shell),
            Speaks::Other => {}
        }
        if missing > 0 {
            self.gap(side, time, u64::from(missing), shell);
        }
    }

    fn gap(&mut self, side: Side, time: EventTime, bytes: u64, shell: &mut Shell<'_>) {
        shell.counters.gaps += 1;
        shell.counters.gap_bytes += bytes;
        let direction = self.ends.direction(side);
        match &mut self.speaks {
            Speaks::Http1(connection) => {
                connection.gap(direction, time, bytes, &mut shell.context(&mut self.ends));
            }
            Speaks::Unknown(sniff) => {
                sniff.gap(side, bytes);
                self.from_start = false;
            }
            Speaks::Other => {}
        }
    }

    /// Looks at first bytes: who is the server, if that is not known yet, and what do they speak?
    fn sniff(&mut self, side: Side, time: EventTime, payload: &[u8], shell: &mut Shell<'_>) {
        let Speaks::Unknown(sniff) = &mut self.speaks else { return };
        let Some(look) = sniff.look(side, time, payload) else { return };
        let sniff = std::mem::take(sniff);
        let key = self.ends.key();
        let client = self.ends.orient(|| match look {
            Look::Request => side,
            Look::Response => side.other(),
            Look::Tls | Look::Other => key.with_higher_port(),
        });
        let is_http = match look {
            Look::Request => client == side || !self.from_start,
            Look::Response => client != side || !self.from_start,
            Look::Tls => false,
            // In the middle of a connection anything may be a body.
            Look::Other => !self.from_start,
        };
        if !is_http {
            match look {
                Look::Tls => shell.counters.tls_flows += 1,
                Look::Request | Look::Response | Look::Other => {
                    shell.counters.flows_not_http += 1;
                }
            }
            self.speaks = Speaks::Other;
            self.streams = Default::default();
            return;
        }
        let mut connection = Box::new(Connection::new(!self.from_start));
        let directions = Side::BOTH.map(|side| self.ends.direction(side));
        let cx = &mut shell.context(&mut self.ends);
        // Responses first: missed ones explain why missed requests have no answer.
        for missed in [client.other(), client] {
            let bytes = sniff.missing_bytes(missed);
            if bytes > 0 {
                connection.gap(directions[missed.index()], time, bytes, cx);
            }
        }
        for early in [client, client.other()] {
            let (time, bytes) = sniff.start(early);
            connection.data(directions[early.index()], time, bytes, cx);
        }
        connection.data(directions[side.index()], time, payload, cx);
        self.speaks = Speaks::Http1(connection);
    }
}
