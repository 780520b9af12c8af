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
use crate::input::{Direction, Open, Plain, Segment, TcpFlags};
use crate::time::EventTime;

/// A SYN carries at most one packet of data.
const EARLY_BYTES_MAX: u32 = 65_535;

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
    /// Segments came from these sides.
    seen: [bool; 2],
    /// Data on the client's SYN, until the server has said whether it takes it.
    early: Option<Box<Early>>,
    speaks: Speaks,
    account: Account,
}

/// Data that came with a SYN (RFC 7413), as captured.
struct Early {
    time: EventTime,
    data: Box<[u8]>,
    missing: u32,
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
    overlap_conflicts: u64,
}

impl Early {
    fn bytes(&self) -> u32 {
        (self.data.len() as u32).saturating_add(self.missing)
    }
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
            seen: [false; 2],
            early: None,
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
            Speaks::Unknown(sniff) => sniff.held_bytes(),
            Speaks::Known(conversation) => conversation.held_bytes(),
        };
        let kept: usize = self.streams.iter().map(Stream::kept_bytes).sum();
        let early = self.early.as_ref().map_or(0, |early| size_of::<Early>() + early.data.len());
        kept + early + speaks + self.ends.held_bytes()
    }

    /// Whether a SYN-ACK from `side` answers the client's SYN, and perhaps the data with it.
    pub(super) fn is_answered_by(&self, side: Side, ack: u32) -> bool {
        let (Some(client), Some(isn)) = (self.ends.client(), self.ends.client_isn()) else {
            return false;
        };
        let early = self.early.as_ref().map_or(0, |early| early.bytes());
        let sent = self.streams[client.index()].next_seq().wrapping_sub(isn.wrapping_add(1));
        let taken = ack.wrapping_sub(isn.wrapping_add(1));
        client != side && taken <= early.max(sent.min(EARLY_BYTES_MAX))
    }

    /// Whether a SYN, or its repetition with an ACK, makes the opening a simultaneous one.
    pub(super) fn crosses(&mut self, side: Side, isn: u32, is_reply: bool) -> bool {
        let stream = &self.streams[side.index()];
        if is_reply {
            let repeats = stream.started() && stream.next_seq() == isn.wrapping_add(1);
            return repeats && self.ends.client().is_none();
        }
        let crosses = self.ends.client() == Some(side.other()) && !stream.started();
        if crosses {
            self.ends.cross(side, isn);
            self.streams[side.index()].start(isn.wrapping_add(1));
        }
        crosses
    }

    /// Whether it may be dropped before others: nothing of use has come, or it is over as far as
    /// can be seen.
    pub(super) fn is_spare(&self) -> bool {
        self.life != Life::Open || !self.has_payload || self.has_ended_alone()
    }

    /// One direction has ended and the other was never captured.
    pub(super) fn has_ended_alone(&self) -> bool {
        Side::BOTH
            .into_iter()
            .any(|side| self.streams[side.index()].finished() && !self.seen[side.other().index()])
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
        let Segment { time, flags, mut payload, mut missing, .. } = *segment;
        let syn = flags.contains(TcpFlags::SYN);
        let ack = flags.contains(TcpFlags::ACK).then_some(segment.ack);
        let mut seq = segment.seq.wrapping_add(u32::from(syn));
        self.seen[side.index()] = true;
        if flags.contains(TcpFlags::RST) {
            // What a reset carries is no part of the stream (RFC 1122, 4.2.2.12).
            (payload, missing) = (&[], 0);
        }
        let fresh = self.streams[side.index()].is_fresh();
        if syn && ack.is_none() && fresh && (!payload.is_empty() || missing > 0) {
            let early = || Box::new(Early { time, data: payload.into(), missing });
            self.early.get_or_insert_with(early);
            (payload, missing) = (&[], 0);
        } else if self.early.is_some() {
            self.take_early(side, segment, shell);
        }
        let started = self.streams[side.index()].started();
        if payload == [0] && missing == 0 && !started && !self.is_over() {
            // A keep-alive probe of a connection that idled when the capture began.
            (payload, seq) = (&[], seq.wrapping_add(1));
        }
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
            // Also in the middle of a connection: what a sender of data had received came before.
            if self.from_start || has_payload {
                peer.start(ack);
            }
            peer.acknowledge(ack, shell.spare);
            self.pump(side.other(), time, shell);
            // Only now: what was pumped may have moved this side on.
            let has_fin = flags.contains(TcpFlags::FIN);
            if (has_payload || has_fin) && self.streams[side.index()].is_next(seq) {
                // A FIN may acknowledge one, too, which counts as a byte and is none.
                let received = ack.wrapping_sub(u32::from(!has_payload));
                self.settle(side.other(), received, time, shell);
                self.pump(side.other(), time, shell);
            }
        }
        if has_payload && flags.contains(TcpFlags::URG) {
            self.note(side, Anomalies::URGENT_DATA);
        }
        let fin = flags.contains(TcpFlags::FIN);
        let run = Run { time, seq, payload, missing, fin, ack };
        if !self.take(side, run, shell) {
            return;
        }
        while self.streams[side.index()].held_bytes() > shell.limits.reorder_bytes_per_direction_max
        {
            shell.counters.reorder_evictions += 1;
            self.give_up(side, time, shell);
        }
        if flags.contains(TcpFlags::RST) {
            self.reset(side, seq, time, shell);
        }
    }

    /// Takes plaintext that was found inside the encryption. From here on the wire is only counted.
    pub(super) fn plain(&mut self, client: Side, plain: &Plain<'_>, shell: &mut Shell<'_>) {
        let client = self.ends.orient(|| client);
        let side = match plain.direction {
            Direction::ToServer => client,
            Direction::ToClient => client.other(),
        };
        self.seen[side.index()] = true;
        self.has_payload = true;
        self.account.bytes[side.index()] += plain.payload.len() as u64;
        if !plain.payload.is_empty() {
            self.account.first.get_or_insert(plain.time);
        }
        self.account.last = self.account.last.max(plain.time);
        let cx = &mut shell.context(&mut self.ends);
        if let Speaks::Unknown(_) = self.speaks {
            self.speaks = Speaks::Known(Conversation::unseen_tls(cx));
        }
        let Speaks::Known(conversation) = &mut self.speaks else { return };
        let Some(missing) = conversation.plain(plain, cx) else {
            cx.counters.plain_bytes_astray += plain.payload.len() as u64;
            return;
        };
        if missing > 0 {
            shell.counters.gaps += 1;
            shell.counters.gap_bytes += missing;
            self.account.missing_bytes = self.account.missing_bytes.saturating_add(missing);
        }
        self.let_streams_go();
    }

    /// Takes bytes of one side; false when they cannot belong to it.
    fn take(&mut self, side: Side, run: Run<'_>, shell: &mut Shell<'_>) -> bool {
        let stream = &mut self.streams[side.index()];
        let accepted = stream.accept(run, shell.spare, shell.counters);
        if stream.take_conflict() {
            self.account.overlap_conflicts += 1;
            let direction = self.ends.direction(side);
            if let Speaks::Known(conversation) = &mut self.speaks {
                conversation.note_last(direction, Anomalies::OVERLAP_CONFLICT);
            }
        }
        match accepted {
            Accepted::InOrder { payload, missing } => {
                self.deliver(side, run.time, payload, missing, shell);
            }
            Accepted::Held => {}
            Accepted::Absurd => {
                shell.counters.segments_absurd += 1;
                return false;
            }
        }
        self.pump(side, run.time, shell);
        true
    }

    /// Takes as much of the data on the SYN as the server did: its acknowledgement shows that, or
    /// where the client goes on. A server that resets acknowledges what it throws away.
    fn take_early(&mut self, side: Side, segment: &Segment<'_>, shell: &mut Shell<'_>) {
        let Some(client) = self.ends.client() else { return };
        let start = self.streams[client.index()].next_seq();
        let at = if side == client {
            segment.seq
        } else if segment.flags.contains(TcpFlags::ACK) {
            segment.ack
        } else {
            return;
        };
        let Ok(taken) = u32::try_from(at.wrapping_sub(start).cast_signed()) else { return };
        let Some(early) = self.early.take() else { return };
        let reset = segment.flags.contains(TcpFlags::RST);
        let taken = if reset { 0 } else { taken.min(early.bytes()) };
        shell.counters.syn_bytes_refused += u64::from(early.bytes() - taken);
        if taken == 0 {
            return;
        }
        self.has_payload = true;
        let Early { time, data, .. } = *early;
        let payload = &data[..data.len().min(taken as usize)];
        let missing = taken - payload.len() as u32;
        let run = Run { time, seq: start, payload, missing, fin: false, ack: None };
        self.take(client, run, shell);
    }

    /// Adds to the message under way, or to the next.
    fn note(&mut self, side: Side, what: Anomalies) {
        let direction = self.ends.direction(side);
        if let Speaks::Known(conversation) = &mut self.speaks {
            conversation.note(direction, what);
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
            // A server that refused the SYN at first has missed nothing.
            self.from_start &= self.account.first.is_none();
            self.life = Life::Open;
            self.speaks = Speaks::Unknown(Sniff::default());
        }
        goes_on
    }

    /// Delivers a stream as far as `ack`, which the other side had received when it sent what is to
    /// be delivered next: an answer must not be looked at before what it answers. What has not been
    /// captured by now is missing.
    #[inline]
    fn settle(&mut self, side: Side, ack: u32, time: EventTime, shell: &mut Shell<'_>) {
        if self.streams[side.index()].is_behind(ack) {
            self.settle_behind(side, ack, time, shell);
        }
    }

    #[cold]
    fn settle_behind(&mut self, side: Side, ack: u32, time: EventTime, shell: &mut Shell<'_>) {
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
    #[inline]
    pub(super) fn pump(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        if !self.streams[side.index()].is_idle() {
            self.pump_held(side, time, shell);
        }
    }

    #[cold]
    fn pump_held(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
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
                self.skip_hole(side, Stream::give_up_vain, time, shell);
            } else {
                return;
            }
        }
    }

    /// The hole in a stream will not be filled.
    pub(super) fn give_up(&mut self, side: Side, time: EventTime, shell: &mut Shell<'_>) {
        self.skip_hole(side, Stream::give_up, time, shell);
        self.pump(side, time, shell);
    }

    fn skip_hole(
        &mut self,
        side: Side,
        give_up: impl FnOnce(&mut Stream) -> Option<u64>,
        time: EventTime,
        shell: &mut Shell<'_>,
    ) {
        // The other direction first: part of the hole may belong before what waits there.
        let hole = self.streams[side.index()].next_seq();
        if let Some(ack) = self.streams[side.index()].held_ack() {
            self.settle(side.other(), ack, time, shell);
        }
        let stream = &mut self.streams[side.index()];
        if stream.next_seq() == hole
            && let Some(missing) = give_up(stream)
        {
            self.gap(side, time, missing, shell);
        }
    }

    fn deliver_held(&mut self, side: Side, shell: &mut Shell<'_>) {
        let Some(held) = self.streams[side.index()].next_held(shell.spare) else { return };
        if held.conflict {
            self.account.overlap_conflicts += 1;
            self.note(side, Anomalies::OVERLAP_CONFLICT);
        }
        self.deliver(side, held.time, &held.data, held.missing, shell);
    }

    /// Nothing follows: gives out all there is.
    pub(super) fn finish(&mut self, time: EventTime, why: Anomalies, shell: &mut Shell<'_>) {
        if let Some(early) = self.early.take() {
            shell.counters.syn_bytes_refused += u64::from(early.bytes());
        }
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
            overlap_conflicts: account.overlap_conflicts,
            bytes_to_server: bytes_of(Direction::ToServer),
            bytes_to_client: bytes_of(Direction::ToClient),
            missing_bytes: account.missing_bytes,
            websocket: None,
            fix: None,
            flow: Arc::clone(self.ends.flow()),
            tls: None,
            http2: None,
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
                    self.let_streams_go();
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
    fn sniff(&mut self, side: Side, time: EventTime, mut payload: &[u8], shell: &mut Shell<'_>) {
        let Speaks::Unknown(sniff) = &mut self.speaks else { return };
        let Some(mut look) = sniff.look(side.index(), time, &mut payload) else { return };
        let sniff = std::mem::take(sniff);
        let key = *self.ends.key();
        let client = self.ends.orient(|| match look {
            Look::Request
            | Look::Command
            | Look::Preface
            | Look::Proxy(_)
            | Look::Tls(Some(Direction::ToServer)) => side,
            Look::Response | Look::Tls(Some(Direction::ToClient)) => side.other(),
            Look::Settings if self.from_start => side.other(),
            // The client logs on first.
            Look::Fix if self.from_start => side,
            Look::Settings | Look::Tls(None) | Look::Fix | Look::Sbe | Look::Other => {
                key.with_higher_port()
            }
        });
        let fits = match look {
            Look::Request | Look::Command | Look::Preface | Look::Proxy(_) => client == side,
            Look::Response => client != side,
            Look::Settings | Look::Tls(_) | Look::Fix | Look::Sbe | Look::Other => true,
        };
        if !fits {
            look = Look::Other;
        }
        let sides = [client.index(), client.other().index()];
        let direction = self.ends.direction(side);
        let cx = &mut shell.context(&mut self.ends);
        let midstream = !self.from_start;
        let mut conversation =
            Conversation::begin(look, &sniff, sides, direction, midstream, time, cx);
        conversation.data(direction, time, payload, cx);
        if conversation.is_over() {
            self.let_streams_go();
        }
        self.speaks = Speaks::Known(conversation);
    }

    /// From here on bytes are only counted, those that wait for others too.
    fn let_streams_go(&mut self) {
        let streams: [Stream; 2] = std::mem::take(&mut self.streams);
        for (bytes, stream) in self.account.bytes.iter_mut().zip(&streams) {
            *bytes += stream.held_payload_bytes();
        }
    }
}
