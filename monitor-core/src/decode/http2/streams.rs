//! The streams of a connection that are open, and which of the others were.

use std::collections::{BTreeMap, VecDeque};

use super::stream::Stream;
use crate::time::EventTime;

/// Streams that are remembered to be over where it cannot be told from their number: as many as may
/// be in flight.
const CLOSED_MAX: usize = 256;

/// Streams by number.
#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<u32, Box<Stream>>,
    /// Highest numbers seen: even ones are the server's, odd ones the client's.
    highest: [u32; 2],
    /// Streams with lower numbers may be open that were not seen.
    incomplete: bool,
    /// Streams that were over last, when `incomplete`.
    closed: VecDeque<u32>,
    held_bytes: usize,
}

/// What is known of a stream.
pub(super) enum Standing {
    Open,
    /// It was not seen before.
    New,
    Closed,
}

impl Streams {
    /// Streams were missed.
    pub(super) fn miss(&mut self) {
        self.incomplete = true;
    }

    /// Streams may be open that were not seen.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// How a stream stands.
    pub(super) fn standing(&self, id: u32) -> Standing {
        let was_seen = id <= self.highest[id as usize % 2];
        if self.open.contains_key(&id) {
            Standing::Open
        } else if was_seen && (!self.incomplete || self.closed.contains(&id)) {
            Standing::Closed
        } else {
            Standing::New
        }
    }

    /// An open stream.
    pub(super) fn at(&mut self, id: u32) -> Option<&mut Stream> {
        self.open.get_mut(&id).map(|stream| &mut **stream)
    }

    /// A new stream.
    pub(super) fn insert(&mut self, id: u32, stream: Stream) -> &mut Stream {
        let highest = &mut self.highest[id as usize % 2];
        *highest = id.max(*highest);
        self.open.entry(id).or_insert(Box::new(stream))
    }

    /// A new stream of which nothing is known.
    pub(super) fn begin(&mut self, id: u32, time: EventTime) -> &mut Stream {
        self.insert(id, Stream::new(time))
    }

    /// Adds up again what a stream holds.
    pub(super) fn measure(&mut self, id: u32) {
        if let Some(stream) = self.open.get_mut(&id) {
            let held_bytes = stream.measure();
            self.held_bytes = self.held_bytes - stream.held_bytes + held_bytes;
            stream.held_bytes = held_bytes;
        }
    }

    /// A stream is over.
    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.open.remove(&id)?;
        self.held_bytes -= stream.held_bytes;
        if self.closed.len() >= CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(id);
        Some(*stream)
    }

    /// The open streams, oldest first.
    pub(super) fn iter(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.open.iter_mut().map(|(id, stream)| (*id, &mut **stream))
    }

    /// The oldest open stream.
    pub(super) fn first(&self) -> Option<u32> {
        self.open.keys().next().copied()
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes + self.closed.capacity() * size_of::<u32>()
    }
}
