//! Both ends of a TCP connection, written down as packets.

use std::net::SocketAddr;
use std::time::Duration;

use monitor_core::input::{Direction, TcpFlags};
use monitor_core::time::EventTime;

use super::capture::Packet;

/// Payload of a full segment on Ethernet with time stamps.
const SEGMENT_BYTES_MAX: usize = 1448;
/// Time between two packets.
const STEP: Duration = Duration::from_millis(1);
/// 2026-11-23T20:00:00Z: the beginning of every capture.
pub const START: EventTime = EventTime(1_795_464_000_000_000_000);

/// One connection. Every packet comes a millisecond after the one before.
pub struct Conversation {
    client: SocketAddr,
    server: SocketAddr,
    client_next: u32,
    server_next: u32,
    now: EventTime,
    packets: Vec<Packet>,
}

impl Conversation {
    /// With everyday addresses (documentation ranges) and sequence numbers.
    pub fn everyday() -> Conversation {
        Conversation::between("203.0.113.9:51512", "198.51.100.5:8080")
    }

    /// Between two `address:port`s.
    ///
    /// # Panics
    /// When one is not an address: they stand in this program.
    #[expect(clippy::expect_used, reason = "constants of this program")]
    pub fn between(client: &str, server: &str) -> Conversation {
        Conversation {
            client: client.parse().expect("an address"),
            server: server.parse().expect("an address"),
            client_next: 1_000,
            server_next: 900_000,
            now: START,
            packets: Vec::new(),
        }
    }

    /// Other initial sequence numbers.
    pub fn numbered(mut self, client: u32, server: u32) -> Conversation {
        (self.client_next, self.server_next) = (client, server);
        self
    }

    /// Begins so long after [`START`].
    pub fn at(mut self, after: Duration) -> Conversation {
        self.now = START.after(after);
        self
    }

    /// Time passes.
    pub fn wait(&mut self, duration: Duration) -> &mut Conversation {
        self.now = self.now.after(duration);
        self
    }

    /// SYN, SYN and ACK, ACK.
    pub fn open(&mut self) -> &mut Conversation {
        self.push(Direction::ToServer, TcpFlags::SYN, b"");
        self.client_next = self.client_next.wrapping_add(1);
        self.push(Direction::ToClient, TcpFlags::SYN | TcpFlags::ACK, b"");
        self.server_next = self.server_next.wrapping_add(1);
        self.push(Direction::ToServer, TcpFlags::ACK, b"");
        self
    }

    /// Client bytes, in segments.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> &mut Conversation {
        self.send(Direction::ToServer, bytes.as_ref())
    }

    /// Server bytes, in segments.
    pub fn answer(&mut self, bytes: impl AsRef<[u8]>) -> &mut Conversation {
        self.send(Direction::ToClient, bytes.as_ref())
    }

    /// Bytes that were sent and not captured.
    pub fn lose(&mut self, direction: Direction, bytes: impl AsRef<[u8]>) -> &mut Conversation {
        let kept = self.packets.len();
        self.send(direction, bytes.as_ref());
        self.packets.truncate(kept);
        self
    }

    /// FIN from both, client first.
    pub fn close(&mut self) -> &mut Conversation {
        self.finish(Direction::ToServer).finish(Direction::ToClient);
        self.push(Direction::ToServer, TcpFlags::ACK, b"");
        self
    }

    /// FIN from one.
    pub fn finish(&mut self, sender: Direction) -> &mut Conversation {
        self.push(sender, TcpFlags::FIN | TcpFlags::ACK, b"");
        *self.next(sender) = self.next(sender).wrapping_add(1);
        self
    }

    /// RST from the client.
    pub fn reset(&mut self) -> &mut Conversation {
        self.push(Direction::ToServer, TcpFlags::RST, b"");
        self
    }

    /// What was sent, in order of time.
    pub fn packets(&self) -> Vec<Packet> {
        self.packets.clone()
    }

    fn send(&mut self, direction: Direction, bytes: &[u8]) -> &mut Conversation {
        for piece in bytes.chunks(SEGMENT_BYTES_MAX) {
            self.push(direction, TcpFlags::ACK, piece);
            let len = u32::try_from(piece.len()).unwrap_or_default();
            *self.next(direction) = self.next(direction).wrapping_add(len);
        }
        self
    }

    fn next(&mut self, direction: Direction) -> &mut u32 {
        match direction {
            Direction::ToServer => &mut self.client_next,
            Direction::ToClient => &mut self.server_next,
        }
    }

    fn push(&mut self, direction: Direction, flags: TcpFlags, payload: &[u8]) {
        let (source, target, seq, ack) = match direction {
            Direction::ToServer => (self.client, self.server, self.client_next, self.server_next),
            Direction::ToClient => (self.server, self.client, self.server_next, self.client_next),
        };
        let payload = payload.to_vec();
        self.packets.push(Packet { time: self.now, source, target, seq, ack, flags, payload });
        self.now = self.now.after(STEP);
    }
}

/// Packets of several connections in order of time.
pub fn interleave(conversations: &[Conversation]) -> Vec<Packet> {
    let mut packets: Vec<Packet> = conversations.iter().flat_map(Conversation::packets).collect();
    packets.sort_by_key(|packet| packet.time);
    packets
}

/// The packet at `index` captured after the one that followed it; times stay where they were.
pub fn swap_with_next(packets: &mut [Packet], index: usize) {
    let (first, second) = (packets[index].time, packets[index + 1].time);
    packets.swap(index, index + 1);
    packets[index].time = first;
    packets[index + 1].time = second;
}
