//! A TCP connection to write to, whose segments can be cut, moved and lost before they are fed.

use monitor_core::call::{Anomalies, ApiCall};
use monitor_core::decode::{Counters, Decoder};
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Direction, Endpoint, FlowKey, Input, Segment, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

/// A segment that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) time: u64,
    pub(crate) direction: Direction,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: TcpFlags,
    pub(crate) payload: Vec<u8>,
    pub(crate) missing: u32,
}

/// Both ends of a connection: what is written becomes packets with proper numbers.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) flow: FlowKey,
    pub(crate) packets: Vec<Packet>,
    pub(crate) time: u64,
    next: [u32; 2],
    /// Bytes in a packet.
    pub(crate) cut: usize,
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

/// Addresses for tests: the client's port is the higher one.
pub(crate) fn flow(port: u16) -> FlowKey {
    FlowKey {
        client: Endpoint::new([203, 0, 113, 9].into(), port),
        server: Endpoint::new([10, 0, 0, 5].into(), 8080),
        scope: 0,
    }
}

impl Wire {
    /// Without a handshake.
    pub(crate) fn midstream(client_isn: u32, server_isn: u32) -> Wire {
        let next = [client_isn.wrapping_add(1), server_isn.wrapping_add(1)];
        Wire { flow: flow(50_000), packets: Vec::new(), time: 1_000_000, next, cut: usize::MAX }
    }

    /// With one.
    pub(crate) fn open(client_isn: u32, server_isn: u32) -> Wire {
        let mut wire = Wire::midstream(client_isn, server_isn);
        let packet = |direction, seq, ack, flags| Packet {
            time: 0,
            direction,
            seq,
            ack,
            flags,
            payload: Vec::new(),
            missing: 0,
        };
        let both = TcpFlags::SYN | TcpFlags::ACK;
        wire.packets = vec![
            packet(Direction::ToServer, client_isn, 0, TcpFlags::SYN),
            packet(Direction::ToClient, server_isn, client_isn.wrapping_add(1), both),
        ];
        wire.send(Direction::ToServer, b"");
        wire
    }

    /// Writes bytes as packets of at most `cut` bytes.
    pub(crate) fn send(&mut self, direction: Direction, bytes: &[u8]) -> &mut Wire {
        let mut rest = bytes;
        loop {
            let (payload, more) = rest.split_at(rest.len().min(self.cut));
            self.push(direction, payload, TcpFlags::ACK);
            rest = more;
            if rest.is_empty() {
                return self;
            }
        }
    }

    /// Request bytes.
    pub(crate) fn ask(&mut self, text: impl AsRef<[u8]>) -> &mut Wire {
        self.send(Direction::ToServer, text.as_ref())
    }

    /// Response bytes.
    pub(crate) fn answer(&mut self, text: impl AsRef<[u8]>) -> &mut Wire {
        self.send(Direction::ToClient, text.as_ref())
    }

    /// Ends a direction.
    pub(crate) fn fin(&mut self, direction: Direction) -> &mut Wire {
        self.push(direction, b"", TcpFlags::FIN | TcpFlags::ACK);
        let next = &mut self.next[index(direction)];
        *next = next.wrapping_add(1);
        self
    }

    /// Ends both, the server first.
    pub(crate) fn close(&mut self) -> &mut Wire {
        self.fin(Direction::ToClient).fin(Direction::ToServer)
    }

    /// Breaks the connection.
    pub(crate) fn reset(&mut self, direction: Direction) -> &mut Wire {
        self.push(direction, b"", TcpFlags::RST);
        self
    }

    /// Lets microseconds pass.
    pub(crate) fn wait(&mut self, micros: u64) -> &mut Wire {
        self.time += micros * 1000;
        self
    }

    fn push(&mut self, direction: Direction, payload: &[u8], flags: TcpFlags) {
        let seq = self.next[index(direction)];
        let ack = self.next[index(direction.reverse())];
        let payload = payload.to_vec();
        self.next[index(direction)] = seq.wrapping_add(payload.len() as u32);
        self.packets.push(Packet {
            time: self.time,
            direction,
            seq,
            ack,
            flags,
            payload,
            missing: 0,
        });
    }

    /// What the Decoder makes of the packets.
    pub(crate) fn decode(&self) -> Vec<ApiCall> {
        self.run().0
    }

    /// The same with its counters.
    pub(crate) fn run(&self) -> (Vec<ApiCall>, Counters) {
        let mut decoder = decoder(Limits::default());
        let calls = feed(&mut decoder, self.flow, &self.packets);
        (calls, decoder.counters().clone())
    }
}

/// A Decoder that knows no server ports.
pub(crate) fn decoder(limits: Limits) -> Decoder {
    Decoder::new(limits, Identifier::new(Secret::new([7; 32])), &[])
}

/// Feeds packets and ends the input.
pub(crate) fn feed(decoder: &mut Decoder, flow: FlowKey, packets: &[Packet]) -> Vec<ApiCall> {
    packets.iter().for_each(|packet| decoder.handle_input(packet.input(flow)));
    decoder.finish();
    std::iter::from_fn(|| decoder.poll_call()).collect()
}

impl Packet {
    /// As the Decoder takes it.
    pub(crate) fn input(&self, flow: FlowKey) -> Input<'_> {
        let (source, target) = match self.direction {
            Direction::ToServer => (flow.client, flow.server),
            Direction::ToClient => (flow.server, flow.client),
        };
        Input::Segment(Segment {
            time: EventTime(self.time),
            source,
            target,
            scope: flow.scope,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            payload: &self.payload,
            missing: self.missing,
        })
    }
}

/// One call in a line: method, path, body bytes, status, body bytes, oddities.
pub(crate) fn line(call: &ApiCall) -> String {
    let request = call.request.as_ref().map_or("-".into(), |request| {
        format!("{} {} {}", request.method, request.path, request.body_bytes)
    });
    let response = call
        .response
        .as_ref()
        .map_or("-".into(), |it| format!("{} {}", it.status.unwrap_or(0), it.body_bytes));
    // Most requests of these tests leave out the host.
    let odd = call.anomalies - Anomalies::BAD_HOST;
    let odd: Vec<_> = odd.iter_names().map(|(name, _)| name).collect();
    let complete = if call.complete { "" } else { " incomplete" };
    let odd = if odd.is_empty() { String::new() } else { format!(" {}", odd.join("+")) };
    format!("{request} > {response}{complete}{odd}")
}

/// All of them.
pub(crate) fn lines(calls: &[ApiCall]) -> Vec<String> {
    calls.iter().map(line).collect()
}
