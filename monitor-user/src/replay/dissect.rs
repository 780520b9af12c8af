//! Packets to segments: headers taken off, fragments put together, everything counted.

use std::ops::ControlFlow;

use monitor_core::input::{Input, Segment};
use monitor_core::time::EventTime;

use super::fragments::Fragments;
use super::link::Link;
use super::packet::{Found, Fragment, Layer, Skipped, find};
use super::reader::Each;
use super::tally::{Tally, Tunnels};

/// A packet as it stands in a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    pub(super) link: Link,
    pub(super) time: EventTime,
    pub(super) bytes: &'a [u8],
    /// How many bytes the snap length cut off.
    pub(super) missing: u32,
}

/// The segment of a packet that is neither a fragment nor something else.
pub(super) fn plain_segment(packet: Captured<'_>) -> Option<Segment<'_>> {
    let Captured { link, time, bytes, missing } = packet;
    match find(Layer::Link(link), time, bytes, missing, &mut Tunnels::default()) {
        Ok(Found::Segment(segment)) => Some(segment),
        Ok(Found::Fragment(_)) | Err(_) => None,
    }
}

/// What is remembered from packet to packet.
#[derive(Default)]
pub(super) struct Dissector {
    fragments: Fragments,
}

impl Dissector {
    /// Takes a packet, and gives out the segment in it if there is one.
    pub(super) fn packet(
        &mut self,
        packet: Captured<'_>,
        tally: &mut Tally,
        each: &mut Each<'_>,
    ) -> ControlFlow<()> {
        let Captured { link, time, bytes, missing } = packet;
        match find(Layer::Link(link), time, bytes, missing, &mut tally.tunnels) {
            Ok(Found::Segment(segment)) => {
                tally.segments += 1;
                each(Input::Segment(segment))
            }
            Ok(Found::Fragment(fragment)) => self.fragment(time, &fragment, tally, each),
            Err(skipped) => skip(skipped, tally),
        }
    }

    /// No packet follows.
    pub(super) fn finish(&mut self, tally: &mut Tally) {
        self.fragments.finish(&mut tally.reassembly);
    }

    #[cold]
    fn fragment(
        &mut self,
        time: EventTime,
        fragment: &Fragment<'_>,
        tally: &mut Tally,
        each: &mut Each<'_>,
    ) -> ControlFlow<()> {
        let Some(whole) = self.fragments.add(time, fragment, &mut tally.reassembly) else {
            tally.fragments += 1;
            return ControlFlow::Continue(());
        };
        let layer = Layer::Transport {
            ends: whole.of.ends,
            protocol: whole.protocol,
            sent: Some(whole.sent),
        };
        let missing = u32::try_from(whole.sent - whole.bytes.len()).unwrap_or(u32::MAX);
        match find(layer, time, &whole.bytes, missing, &mut tally.tunnels) {
            Ok(Found::Segment(segment)) => {
                tally.segments += 1;
                each(Input::Segment(segment))
            }
            // Fragments of fragments, in tunnels: each time round they are shorter.
            Ok(Found::Fragment(fragment)) => self.fragment(time, &fragment, tally, each),
            Err(skipped) => skip(skipped, tally),
        }
    }
}

fn skip(skipped: Skipped, tally: &mut Tally) -> ControlFlow<()> {
    match skipped {
        Skipped::NotTcp => tally.not_tcp += 1,
        Skipped::Malformed => tally.malformed += 1,
        Skipped::Unread(link) => tally.unread(link),
    }
    ControlFlow::Continue(())
}
