//! Simulated calls as the packets in which they would have come: HTTP/1.1 over TCP, in order of time.

use std::collections::{BTreeMap, HashMap};

use monitor_core::call::{ApiCall, FlowId};
use monitor_core::input::{Endpoint, Segment, TcpFlags};
use monitor_core::time::EventTime;

use super::http;

/// Where the server listens for plain HTTP.
pub(crate) const PORT: u16 = 8080;
/// A connection is closed when it was not used for so long, nanoseconds: as proxies do after a minute.
const IDLE_NS: u64 = 60_000_000_000;
/// Payload bytes of one packet: as much as a host hands on at once.
const SEGMENT_BYTES: usize = 16_384;
/// Ports that clients take in turns (RFC 6335: the dynamic ones).
const CLIENT_PORTS: std::ops::Range<u16> = 49_152..65_535;

/// Connections that are open, and packets that are still to come.
#[derive(Default)]
pub(crate) struct Wire {
    lanes: HashMap<FlowId, Vec<Lane>>,
    /// By time, and in the order in which they were made.
    waiting: BTreeMap<(u64, u64), Packet>,
    made: u64,
    next_ports: HashMap<[u8; 16], u16>,
    swept: u64,
    /// Time of the last packet that was given.
    given: u64,
}

/// One connection. A client that has a question while another is not answered opens one more.
struct Lane {
    ends: [Endpoint; 2],
    /// Next sequence numbers of client and server.
    next: [u32; 2],
    /// When the last answer comes, nanoseconds.
    busy_until: u64,
}

struct Packet {
    ends: [Endpoint; 2],
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    payload: Vec<u8>,
}

impl Packet {
    fn segment(&self, time: u64) -> Segment<'_> {
        Segment {
            time: EventTime(time),
            source: self.ends[0],
            target: self.ends[1],
            scope: 0,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            payload: &self.payload,
            missing: 0,
        }
    }
}

impl Wire {
    /// One call; calls come in order of time. Gives `out` all packets before it.
    pub(crate) fn call<E>(
        &mut self,
        call: &ApiCall,
        out: &mut impl FnMut(&Segment<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = call.time.0;
        self.sweep(now);
        self.give(now, out)?;
        let answered = now.saturating_add(call.latency_us.unwrap_or(0).max(1) * 1_000);
        let mut lane = self.free_lane(call, now);
        lane.busy_until = answered;
        self.send(&mut lane, 0, now, &http::request(call));
        self.send(&mut lane, 1, answered, &http::response(call));
        self.lanes.entry(call.flow.id).or_default().push(lane);
        Ok(())
    }

    /// No call follows.
    pub(crate) fn finish<E>(
        &mut self,
        out: &mut impl FnMut(&Segment<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sweep(u64::MAX);
        self.give(u64::MAX, out)
    }

    fn give<E>(
        &mut self,
        until: u64,
        out: &mut impl FnMut(&Segment<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 < until
        {
            let time = first.key().0;
            self.given = time;
            out(&first.remove().segment(time))?;
        }
        Ok(())
    }

    fn free_lane(&mut self, call: &ApiCall, now: u64) -> Lane {
        let lanes = self.lanes.entry(call.flow.id).or_default();
        if let Some(at) = lanes.iter().position(|lane| lane.busy_until < now) {
            return lanes.swap_remove(at);
        }
        let client = call.flow.client;
        let port = self.next_ports.entry(client.addr).or_insert(CLIENT_PORTS.start);
        let ends =
            [Endpoint { port: *port, ..client }, Endpoint { port: PORT, ..call.flow.server }];
        *port = if *port + 1 < CLIENT_PORTS.end { *port + 1 } else { CLIENT_PORTS.start };
        // Sequence numbers follow the clock (RFC 9293, 3.4.1).
        let first = (now / 4_000) as u32;
        let mut lane = Lane { ends, next: [first, first ^ 0x5555_5555], busy_until: now };
        self.put(&mut lane, 0, now, TcpFlags::SYN, Vec::new());
        self.put(&mut lane, 1, now, TcpFlags::SYN | TcpFlags::ACK, Vec::new());
        self.put(&mut lane, 0, now, TcpFlags::ACK, Vec::new());
        lane
    }

    /// Closes what was not used for long; once a minute.
    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept) < IDLE_NS {
            return;
        }
        self.swept = now;
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut over: Vec<Lane> = Vec::new();
        for of_flow in lanes.values_mut() {
            let is_idle = |lane: &mut Lane| lane.busy_until.saturating_add(IDLE_NS) <= now;
            over.extend(of_flow.extract_if(.., is_idle));
        }
        lanes.retain(|_, of_flow| !of_flow.is_empty());
        self.lanes = lanes;
        // The same in every run, whatever the order of the table.
        over.sort_by_key(|lane| (lane.busy_until, lane.ends[0].addr, lane.ends[0].port));
        for mut lane in over {
            let at = lane.busy_until.saturating_add(IDLE_NS - 1).max(self.given);
            self.put(&mut lane, 0, at, TcpFlags::FIN | TcpFlags::ACK, Vec::new());
            self.put(&mut lane, 1, at, TcpFlags::FIN | TcpFlags::ACK, Vec::new());
            self.put(&mut lane, 0, at, TcpFlags::ACK, Vec::new());
        }
    }

    fn send(&mut self, lane: &mut Lane, from: usize, time: u64, bytes: &[u8]) {
        for part in bytes.chunks(SEGMENT_BYTES) {
            self.put(lane, from, time, TcpFlags::ACK, part.to_vec());
        }
    }

    /// A packet of the client (0) or the server (1).
    fn put(&mut self, lane: &mut Lane, from: usize, time: u64, flags: TcpFlags, payload: Vec<u8>) {
        let (seq, ack) = (lane.next[from], lane.next[1 - from]);
        let takes = u32::from(flags.intersects(TcpFlags::SYN | TcpFlags::FIN));
        lane.next[from] = seq.wrapping_add(payload.len() as u32).wrapping_add(takes);
        let ends = [lane.ends[from], lane.ends[1 - from]];
        let ack = if flags.contains(TcpFlags::ACK) { ack } else { 0 };
        self.waiting.insert((time, self.made), Packet { ends, seq, ack, flags, payload });
        self.made += 1;
    }
}
