//! Any sequence of inputs: bounds hold after each, and twice the same gives twice the same.

use std::sync::Arc;
use std::time::Duration;

use monitor_core::input::{Direction, Input, Open, Owner, Plain, Segment, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

use crate::wire::{Output, Watched, flow};

/// Inputs of all kinds on a few connections.
pub fn decoder(data: &[u8]) {
    assert_eq!(play(data), play(data), "the same inputs gave another output");
}

fn play(data: &[u8]) -> Output {
    let mut bytes = Bytes(data);
    let mut watched = Watched::new(limits());
    let mut time = EventTime(1_795_464_000_000_000_000);
    while let Some(tag) = bytes.byte() {
        let flow = flow(50_000 + u16::from(tag >> 5));
        let direction = if tag & 16 == 0 { Direction::ToServer } else { Direction::ToClient };
        match tag & 15 {
            0 => watched.feed(Input::Lost { time, flow, direction, bytes: bytes.number().into() }),
            1 => watched.feed(Input::Close { time, flow }),
            2 => watched.feed(Input::Open(Open {
                time,
                flow,
                client_isn: bytes.number(),
                client_next: bytes.number(),
                server_next: bytes.number(),
                midstream: tag & 16 == 0,
            })),
            3 => {
                time = time.after(Duration::from_millis(u64::from(bytes.number()) >> 8));
                watched.feed(Input::Tick(time));
            }
            4 => {
                let owner = Owner { process: "server".into(), pid: 7, container: None };
                watched.feed(Input::Owner { flow, owner: Arc::new(owner) });
            }
            5 => {
                let length = bytes.byte().unwrap_or_default();
                watched.feed(Input::Secrets(bytes.take(usize::from(length))));
            }
            8 => {
                let length = bytes.byte().unwrap_or_default();
                watched.feed(Input::Plain(Plain {
                    time,
                    flow,
                    direction,
                    before: u64::from(bytes.byte().unwrap_or_default()) * 16,
                    missing: u32::from(bytes.byte().unwrap_or_default() & 3),
                    midstream: length & 1 == 1,
                    end: length & 2 == 2,
                    payload: bytes.take(usize::from(length)),
                }));
            }
            kind => {
                let (source, target) = match direction {
                    Direction::ToServer => (flow.client, flow.server),
                    Direction::ToClient => (flow.server, flow.client),
                };
                let flags = match kind {
                    6 => TcpFlags::from_bits_truncate(bytes.byte().unwrap_or_default()),
                    _ => TcpFlags::ACK,
                };
                // Mostly near the beginning, so that segments meet.
                let number = |bytes: &mut Bytes<'_>| match kind {
                    7 => bytes.number(),
                    _ => u32::from(bytes.byte().unwrap_or_default()) * 16,
                };
                let (seq, ack) = (number(&mut bytes), number(&mut bytes));
                let missing = if kind == 8 { bytes.number() } else { 0 };
                let length = bytes.byte().unwrap_or_default();
                let payload = bytes.take(usize::from(length));
                time = time.after(Duration::from_micros(1));
                watched.feed(Input::Segment(Segment {
                    time,
                    source,
                    target,
                    scope: 0,
                    seq,
                    ack,
                    flags,
                    payload,
                    missing,
                }));
            }
        }
    }
    watched.finish().0
}

/// Small, so that all of them are met.
fn limits() -> Limits {
    Limits {
        flows_max: 4,
        reorder_bytes_per_direction_max: 3000,
        reorder_bytes_max: 5000,
        reorder_wait_max: Duration::from_millis(50),
        head_bytes_max: 300,
        headers_max: 4,
        pipeline_max: 3,
        body_prefix_bytes: 16,
        idle_max: Duration::from_secs(5),
        closed_max: Duration::from_secs(1),
        held_bytes_max: 30_000,
        ..Limits::default()
    }
}

/// What is left of the input.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Zeros where the input has ended.
    fn number(&mut self) -> u32 {
        (0..4).fold(0, |number, _| number << 8 | u32::from(self.byte().unwrap_or_default()))
    }

    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
