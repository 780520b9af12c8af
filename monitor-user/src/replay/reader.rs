//! Capture files of every form to [`Input`]: a stream of packets in bounded memory.

use std::io::{Cursor, Read};
use std::ops::ControlFlow;

use monitor_core::input::{Input, Segment};
use monitor_core::time::EventTime;

use super::compressed::{self, Codec};
use super::dissect::Dissector;
use super::fault::Fault;
use super::tally::Tally;
use super::window::Window;
use super::{pcap, pcapng};

/// As many of the first bytes of a file as [`may_be_capture`] needs.
pub(super) const MAGIC_BYTES: u64 = compressed::MAGIC_BYTES as u64;

/// A frame of lz4.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Whether a file that begins so is a capture, or compressed and may hold one.
pub(super) fn may_be_capture(start: &[u8]) -> bool {
    let Some(magic) = start.first_chunk::<4>() else { return false };
    *magic == pcapng::MAGIC
        || pcap::Form::from_magic(*magic).is_some()
        || *magic == LZ4_MAGIC
        || Codec::of(start).is_some()
}

/// Takes each input; breaks when it is enough.
pub type Each<'e> = dyn FnMut(Input<'_>) -> ControlFlow<()> + 'e;

/// A packet of a recording of Keywatch's own.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// When it was recorded.
    pub time: EventTime,
    /// Number of its interface in the section.
    pub interface: u32,
    /// The comment of the packet, from `keywatch: ` on.
    pub comment: Option<&'a str>,
    /// The segment in the packet's bytes, if there is one.
    pub segment: Option<Segment<'a>>,
}

/// What a recorded packet stood for.
#[derive(Debug)]
pub enum Recalled<'a> {
    /// An input.
    Input(Input<'a>),
    /// Nothing more is to be done.
    Done,
    /// What any packet does.
    Packet,
}

/// Says what recorded packets stood for.
pub type Recall<'r> = dyn for<'a> FnMut(Recorded<'a>) -> Recalled<'a> + 'r;

/// Reads a capture to its end and gives out each TCP segment and the TLS secrets in it, in file
/// order. `tally` is added to, also when it ends in a fault: everything before the fault has then
/// been given out. Stops early and without fault when `each` breaks.
pub fn read(reader: impl Read, tally: &mut Tally, each: &mut Each<'_>) -> Result<(), Fault> {
    let mut captures = Captures::default();
    let result = captures.read(reader, tally, &mut |_| Recalled::Packet, each);
    captures.finish(tally);
    result
}

/// Captures that are read one after the other as one stream: a fragmented packet may begin in one
/// and end in the next.
#[derive(Default)]
pub struct Captures {
    dissector: Dissector,
}

impl Captures {
    /// As [`read`]. `recall` is asked about packets of recordings.
    pub fn read(
        &mut self,
        mut reader: impl Read,
        tally: &mut Tally,
        recall: &mut Recall<'_>,
        each: &mut Each<'_>,
    ) -> Result<(), Fault> {
        let mut start = [0; compressed::MAGIC_BYTES];
        let got = fill(&mut reader, &mut start).map_err(|error| Fault::reading(0, error))?;
        let reader = Cursor::new(start).take(got as u64).chain(reader);
        let Some(codec) = Codec::of(&start[..got]) else {
            return self.plain(&mut Window::new(reader), tally, recall, each);
        };
        let stream = compressed::decompress(codec, reader);
        let stream = stream.map_err(|error| Fault::reading(0, error))?;
        let result = self.plain(&mut Window::new(stream), tally, recall, each);
        result.map_err(|fault| fault.within(codec.name()))
    }

    /// No capture follows: what waits for missing pieces will not get them.
    pub fn finish(&mut self, tally: &mut Tally) {
        self.dissector.finish(tally);
    }

    fn plain<R: Read>(
        &mut self,
        window: &mut Window<R>,
        tally: &mut Tally,
        recall: &mut Recall<'_>,
        each: &mut Each<'_>,
    ) -> Result<(), Fault> {
        let failed = |error| Fault::reading(0, error);
        if !window.fill(4).map_err(failed)? {
            return Err(Fault::NoHeader(window.data().len()));
        }
        let magic = window.data().first_chunk::<4>().copied().unwrap_or_default();
        let result = if magic == pcapng::MAGIC {
            tally.files += 1;
            pcapng::read(window, &mut self.dissector, tally, recall, each)
        } else if let Some(form) = pcap::Form::from_magic(magic) {
            tally.files += 1;
            pcap::read(form, window, &mut self.dissector, tally, each)
        } else if window.fill(compressed::MAGIC_BYTES).map_err(failed)?
            && let Some(codec) = Codec::of(window.data())
        {
            Err(Fault::CompressedTwice(codec.name()))
        } else if magic == LZ4_MAGIC {
            Err(Fault::OtherCodec("lz4", "lz4cat"))
        } else {
            Err(Fault::NotCapture(magic))
        };
        tally.bytes += window.offset();
        result
    }
}

/// As many bytes as there are, up to the length of `buffer`.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
