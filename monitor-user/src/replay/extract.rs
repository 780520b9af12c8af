//! `keywatch replay --extract`: one connection's traffic, as packets or as bytes in order.

mod streams;

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use monitor_core::call::{Flow, FlowId};
use monitor_core::decode::{Decoder, Known};
use monitor_core::input::{Endpoint, FlowKey, Input, Segment};

use self::streams::Streams;
use crate::fault::tell;
use crate::record::{Recorder, Rotation};

/// Bytes of packets that wait for their connection's id: its client or its beginning is not clear
/// yet, which one packet with payload changes.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a waiting packet costs besides its payload.
const PACKET_BYTES: usize = 160;

/// Finds the packets of a connection while they are decoded.
pub(super) struct Extractor {
    wanted: FlowId,
    decoder: Decoder,
    output: Output,
    /// Packets of connections without an id, oldest first.
    waiting: VecDeque<Kept>,
    waiting_bytes: usize,
    packets: u64,
}

enum Output {
    Packets(Box<Recorder>),
    Streams(Box<Streams>),
}

/// A segment with its payload.
struct Kept {
    head: Segment<'static>,
    payload: Box<[u8]>,
}

type Ends = ([Endpoint; 2], u64);

impl Extractor {
    /// Opens the output: packets when its name ends in `.pcapng` or `.pcapng.zst`.
    pub(super) fn create(wanted: FlowId, decoder: Decoder, out: &Path) -> Result<Extractor> {
        let name = out.to_string_lossy();
        let output = if name.ends_with(".pcapng") || name.ends_with(".pcapng.zst") {
            let recorder = Recorder::create(out, Rotation::default(), false, wanted.0, &[])?;
            Output::Packets(Box::new(recorder))
        } else {
            let streams = Streams::create(out)
                .with_context(|| format!("cannot extract to {}", out.display()))?;
            Output::Streams(Box::new(streams))
        };
        let (waiting, waiting_bytes) = (VecDeque::new(), 0);
        Ok(Extractor { wanted, decoder, output, waiting, waiting_bytes, packets: 0 })
    }

    /// Takes one input of the capture.
    pub(super) fn handle(&mut self, input: &Input<'_>) -> Result<()> {
        let ends = match input {
            Input::Segment(segment) => Some(ends_of(segment)),
            Input::Open(open) => Some(ends_of_flow(&open.flow)),
            Input::Owner { flow, .. } | Input::Lost { flow, .. } => Some(ends_of_flow(flow)),
            Input::Close { flow, .. } => Some(ends_of_flow(flow)),
            Input::Secrets(_) | Input::Tick(_) => None,
        };
        let mut known = |decoder: &mut Decoder| {
            ends.and_then(|(ends, scope)| decoder.flow_between(ends, scope))
        };
        // A closed connection is forgotten at once.
        let before = known(&mut self.decoder);
        self.decoder.handle_input(input.clone());
        self.told()?;
        let is_close = matches!(input, Input::Close { .. });
        let known = if is_close { before } else { known(&mut self.decoder) };
        let Some(ends) = ends else { return Ok(()) };
        match known {
            Some(Known::As(id)) => {
                self.settle(|kept| *kept == ends, id == self.wanted)?;
                if id == self.wanted { self.write(input) } else { Ok(()) }
            }
            Some(Known::NotYet) => {
                self.wait(input);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Nothing follows. Fails when there is no such connection.
    pub(super) fn finish(&mut self, out: &Path, quiet: bool) -> Result<()> {
        self.decoder.finish();
        self.told()?;
        let (wanted, packets) = (self.wanted, self.packets);
        match &mut self.output {
            Output::Packets(recorder) => recorder.finish()?,
            Output::Streams(streams) => streams.finish()?,
        }
        if packets == 0 {
            bail!("no such connection in the capture: {wanted}: --connections - lists them all");
        }
        if !quiet {
            tell(&format!("{wanted}: {packets} packets to {}", out.display()));
            if let Output::Streams(streams) = &self.output {
                streams.lines().iter().for_each(|line| tell(line));
            }
        }
        Ok(())
    }

    /// A record may name a connection whose packets still wait.
    fn told(&mut self) -> Result<()> {
        while let Some(call) = self.decoder.poll_call() {
            self.named(&call.flow)?;
        }
        while let Some(connection) = self.decoder.poll_connection() {
            self.named(&connection.flow)?;
        }
        Ok(())
    }

    fn named(&mut self, flow: &Flow) -> Result<()> {
        if flow.id != self.wanted || self.waiting.is_empty() {
            return Ok(());
        }
        let ends = sorted([flow.client, flow.server]);
        self.settle(|(kept, _)| *kept == ends, true)
    }

    /// The packets between some ends wait no longer: they are what was wanted, or not.
    fn settle(&mut self, is_of: impl Fn(&Ends) -> bool, wanted: bool) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let (settled, waiting): (VecDeque<Kept>, _) =
            self.waiting.drain(..).partition(|kept| is_of(&ends_of(&kept.head)));
        self.waiting = waiting;
        self.waiting_bytes = self.waiting.iter().map(Kept::cost).sum();
        for kept in settled.iter().filter(|_| wanted) {
            self.write(&Input::Segment(Segment { payload: &kept.payload, ..kept.head }))?;
        }
        Ok(())
    }

    fn wait(&mut self, input: &Input<'_>) {
        let Input::Segment(segment) = input else { return };
        let head = Segment { payload: &[], ..*segment };
        let kept = Kept { head, payload: segment.payload.into() };
        self.waiting_bytes += kept.cost();
        self.waiting.push_back(kept);
        while self.waiting_bytes > WAITING_BYTES_MAX {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= oldest.cost();
        }
    }

    fn write(&mut self, input: &Input<'_>) -> Result<()> {
        self.packets += u64::from(matches!(input, Input::Segment(_)));
        match &mut self.output {
            Output::Packets(recorder) => recorder.input(input),
            Output::Streams(streams) => streams.take(input),
        }
    }
}

impl Kept {
    fn cost(&self) -> usize {
        self.payload.len() + PACKET_BYTES
    }
}

fn ends_of(segment: &Segment<'_>) -> Ends {
    (sorted([segment.source, segment.target]), segment.scope)
}

fn ends_of_flow(flow: &FlowKey) -> Ends {
    (sorted([flow.client, flow.server]), flow.scope)
}

fn sorted(mut ends: [Endpoint; 2]) -> [Endpoint; 2] {
    ends.sort_unstable();
    ends
}
