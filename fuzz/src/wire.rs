//! A Decoder with one connection: what is sent becomes segments with proper numbers, and the bounds
//! are looked at after each.

use monitor_core::call::ApiCall;
use monitor_core::connection::Connection;
use monitor_core::decode::{Counters, Decoder};
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Direction, Endpoint, FlowKey, Input, Segment, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

/// Everything that a Decoder gave out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Output {
    pub(crate) calls: Vec<ApiCall>,
    pub(crate) connections: Vec<Connection>,
}

/// A Decoder that is looked at.
pub(crate) struct Watched {
    decoder: Decoder,
    limits: Limits,
    output: Output,
}

/// Bytes of a flow's own entry, without what it holds: more than any has.
const FLOW_BYTES_MAX: usize = 8192;

impl Watched {
    pub(crate) fn new(limits: Limits) -> Watched {
        let identifier = Identifier::new(Secret::new([7; 32]));
        let decoder = Decoder::new(limits.clone(), identifier, &[]);
        Watched { decoder, limits, output: Output::default() }
    }

    /// Feeds an input, takes what comes of it, and looks at the bounds.
    pub(crate) fn feed(&mut self, input: Input<'_>) {
        self.decoder.handle_input(input);
        self.take();
        let flows = self.decoder.flows();
        assert!(flows <= self.limits.flows_max, "{flows} flows");
        let bound = self.limits.held_bytes_max + flows * FLOW_BYTES_MAX;
        let held = self.decoder.held_bytes();
        assert!(held <= bound, "{held} bytes are held, more than {bound}");
    }

    /// Ends the input; nothing may be held then.
    pub(crate) fn finish(mut self) -> (Output, Counters) {
        self.decoder.finish();
        self.take();
        assert_eq!((self.decoder.held_bytes(), self.decoder.flows()), (0, 0), "left at the end");
        let counters = self.decoder.counters().clone();
        assert_eq!(counters.calls, self.output.calls.len() as u64);
        for call in &self.output.calls {
            serde_json_of(call);
        }
        (self.output, counters)
    }

    fn take(&mut self) {
        self.output.calls.extend(std::iter::from_fn(|| self.decoder.poll_call()));
        self.output.connections.extend(std::iter::from_fn(|| self.decoder.poll_connection()));
    }
}

/// A record is of use only when it can be written, and read again as the same.
fn serde_json_of(call: &ApiCall) {
    let line = serde_json::to_string(call).expect("a call is JSON");
    let again: ApiCall = serde_json::from_str(&line).expect("a call that was written is read");
    assert_eq!(&again, call, "{line}");
}

/// Addresses of a connection: the client's port is the higher one.
pub(crate) fn flow(port: u16) -> FlowKey {
    FlowKey {
        client: Endpoint::new([203, 0, 113, 9].into(), port),
        server: Endpoint::new([10, 0, 0, 5].into(), 8080),
        scope: 0,
    }
}

/// One connection over a [`Watched`] Decoder. All in one moment: times would tell where it was cut.
pub(crate) struct Wire {
    pub(crate) watched: Watched,
    flow: FlowKey,
    next: [u32; 2],
    cut: usize,
}

impl Wire {
    /// With a handshake. `cut`: bytes in a segment.
    pub(crate) fn open(limits: Limits, cut: usize) -> Wire {
        let mut wire = Wire::midstream(limits, cut);
        let back = |next: u32| next.wrapping_sub(1);
        let [client, server] = wire.next.map(back);
        let both = TcpFlags::SYN | TcpFlags::ACK;
        wire.segment(Direction::ToServer, client, 0, TcpFlags::SYN, b"");
        wire.segment(Direction::ToClient, server, wire.next[0], both, b"");
        wire.segment(Direction::ToServer, wire.next[0], wire.next[1], TcpFlags::ACK, b"");
        wire
    }

    /// Without one.
    pub(crate) fn midstream(limits: Limits, cut: usize) -> Wire {
        // The client's numbers wrap soon.
        let next = [u32::MAX - 100, 5000];
        Wire { watched: Watched::new(limits), flow: flow(50_000), next, cut }
    }

    pub(crate) fn send(&mut self, direction: Direction, bytes: &[u8]) {
        for piece in bytes.chunks(self.cut.max(1)) {
            let [seq, ack] = self.numbers(direction);
            self.segment(direction, seq, ack, TcpFlags::ACK, piece);
            self.pass(direction, piece.len());
        }
    }

    /// Bytes that were sent and not captured.
    pub(crate) fn lose(&mut self, direction: Direction, bytes: usize) {
        self.pass(direction, bytes);
    }

    /// FIN from both, the server first.
    pub(crate) fn close(mut self) -> (Output, Counters) {
        for direction in [Direction::ToClient, Direction::ToServer] {
            let [seq, ack] = self.numbers(direction);
            self.segment(direction, seq, ack, TcpFlags::FIN | TcpFlags::ACK, b"");
            self.pass(direction, 1);
        }
        self.watched.finish()
    }

    /// A segment with any numbers.
    pub(crate) fn segment(
        &mut self,
        direction: Direction,
        seq: u32,
        ack: u32,
        flags: TcpFlags,
        payload: &[u8],
    ) {
        let (source, target) = match direction {
            Direction::ToServer => (self.flow.client, self.flow.server),
            Direction::ToClient => (self.flow.server, self.flow.client),
        };
        let time = EventTime(1_795_464_000_000_000_000);
        let segment =
            Segment { time, source, target, scope: 0, seq, ack, flags, payload, missing: 0 };
        self.watched.feed(Input::Segment(segment));
    }

    /// Sequence numbers of the next byte of a direction, and of the other.
    pub(crate) fn numbers(&self, direction: Direction) -> [u32; 2] {
        let own = direction as usize;
        [self.next[own], self.next[1 - own]]
    }

    fn pass(&mut self, direction: Direction, bytes: usize) {
        let next = &mut self.next[direction as usize];
        *next = next.wrapping_add(bytes as u32);
    }
}
