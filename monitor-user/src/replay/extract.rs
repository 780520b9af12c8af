//! `keywatch replay --extract`: one connection's traffic, as packets or as bytes in order.

mod streams;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use monitor_core::call::{Flow, FlowId};
use monitor_core::decode::{Decoder, Known};
use monitor_core::engine::Impairment;
use monitor_core::input::{Endpoint, FlowKey, Input, Segment};
use monitor_core::time::EventTime;

use self::streams::Streams;
use super::reading::Taker;
use crate::fault::tell;
use crate::record::{Recorder, Rotation};

/// Bytes of packets that wait for their connection's id: its client or its beginning is not clear
/// yet, which one packet with payload changes. Beyond it they are given up.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a waiting packet costs besides its payload.
const PACKET_BYTES: usize = 160;

/// Finds the packets of a connection while they are decoded.
pub(super) struct Extractor {
    wanted: FlowId,
    decoder: Decoder,
    output: Output,
    /// Packets of connections without an id.
    waiting: HashMap<Ends, Vec<Kept>>,
    waiting_bytes: usize,
    packets: u64,
    /// Packets that were given up.
    given_up: u64,
    calls: u64,
    failed: Option<anyhow::Error>,
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
    pub(super) fn create(wanted: FlowId, mut decoder: Decoder, out: &Path) -> Result<Extractor> {
        let name = out.to_string_lossy();
        let output = if name.ends_with(".pcapng") || name.ends_with(".pcapng.zst") {
            let recorder = Recorder::create(out, Rotation::default(), false, wanted.0, &[])?;
            Output::Packets(Box::new(recorder))
        } else {
            let streams = Streams::create(out)
                .with_context(|| format!("cannot extract to {}", out.display()))?;
            decoder.tap(wanted);
            Output::Streams(Box::new(streams))
        };
        Ok(Extractor {
            wanted,
            decoder,
            output,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            packets: 0,
            given_up: 0,
            calls: 0,
            failed: None,
        })
    }

    /// Takes one input of the capture.
    fn handle(&mut self, input: &Input<'_>) -> Result<()> {
        let ends = match input {
            Input::Segment(segment) => Some(ends_of(segment)),
            Input::Open(open) => Some(ends_of_flow(&open.flow)),
            Input::Plain(plain) => Some(ends_of_flow(&plain.flow)),
            Input::Owner { flow, .. } | Input::Lost { flow, .. } => Some(ends_of_flow(flow)),
            Input::Close { flow, .. } => Some(ends_of_flow(flow)),
            Input::Secrets(_) | Input::Tick(_) => None,
        };
        let known = |decoder: &mut Decoder| {
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
            Some(Known::As(id, client)) => {
                let wanted = (id == self.wanted).then_some(client);
                self.settle(ends, wanted)?;
                wanted.map_or(Ok(()), |client| self.write(input, client))
            }
            Some(Known::NotYet) => {
                self.wait(ends, input);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Nothing follows. Fails when there is no such connection.
    pub(super) fn finish(mut self, out: &Path, quiet: bool) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error.context("cannot extract"));
        }
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
            if self.given_up > 0 {
                tell(&format!(
                    "{} packets of connections that were not known yet were too many to keep; some \
                     may be missing",
                    self.given_up
                ));
            }
            if let Output::Streams(streams) = &self.output {
                streams.lines().iter().for_each(|line| tell(line));
            }
        }
        Ok(())
    }

    /// A record may name a connection whose packets still wait.
    fn told(&mut self) -> Result<()> {
        while let Some(tapped) = self.decoder.poll_tapped() {
            if let Output::Streams(streams) = &mut self.output {
                streams.plain(&tapped)?;
            }
        }
        while let Some(call) = self.decoder.poll_call() {
            self.calls += 1;
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
        let waiting: Vec<Ends> =
            self.waiting.keys().filter(|(waiting, _)| *waiting == ends).copied().collect();
        waiting.into_iter().try_for_each(|ends| self.settle(ends, Some(flow.client)))
    }

    /// The packets between some ends wait no longer: they are what was wanted, with its client, or not.
    fn settle(&mut self, ends: Ends, wanted: Option<Endpoint>) -> Result<()> {
        let Some(settled) = self.waiting.remove(&ends) else { return Ok(()) };
        self.waiting_bytes -= settled.iter().map(Kept::cost).sum::<usize>();
        let Some(client) = wanted else { return Ok(()) };
        settled.iter().try_for_each(|kept| {
            self.write(&Input::Segment(Segment { payload: &kept.payload, ..kept.head }), client)
        })
    }

    fn wait(&mut self, ends: Ends, input: &Input<'_>) {
        let Input::Segment(segment) = input else { return };
        let head = Segment { payload: &[], ..*segment };
        let kept = Kept { head, payload: segment.payload.into() };
        self.waiting_bytes += kept.cost();
        self.waiting.entry(ends).or_default().push(kept);
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.given_up += self.waiting.values().map(|kept| kept.len() as u64).sum::<u64>();
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
    }

    fn write(&mut self, input: &Input<'_>, client: Endpoint) -> Result<()> {
        self.packets += u64::from(matches!(input, Input::Segment(_)));
        match &mut self.output {
            Output::Packets(recorder) => recorder.input(input),
            Output::Streams(streams) => streams.take(input, client),
        }
    }
}

impl Taker for Extractor {
    fn input(&mut self, input: Input<'_>) -> ControlFlow<()> {
        match self.handle(&input) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn impairment(&mut self, _time: EventTime, _what: &Impairment) {}

    fn ports(&mut self, ports: &[u16]) {
        self.decoder.add_server_ports(ports);
    }

    fn calls(&self) -> u64 {
        self.calls
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
