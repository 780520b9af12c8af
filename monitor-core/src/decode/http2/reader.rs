//! One direction: bytes to frames, header blocks to fields, however the bytes come.

use super::fields::FieldList;
use super::frame::{
    CONTENT_BYTES_DEFAULT, Fields, HEAD_BYTES, Head, Kind, Opening, SETTING_BYTES, setting,
};
use super::hpack::{Bounds, Decoder, Error};
use super::resync::{Found, Resync, SURE};
use crate::call::Anomalies;
use crate::decode::Counters;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// What a client sends first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_BYTES: usize = 24;

/// Reads one direction.
pub(super) struct Reader {
    state: State,
    /// What is collected of a head, or of the fields of a frame.
    part: [u8; PREFACE_BYTES],
    part_bytes: usize,
    /// First byte of the present frame.
    time: EventTime,
    hpack: Decoder,
    block: Option<Box<Block>>,
    /// What the other side takes; `None` when that was not seen.
    pub(super) content_bytes_max: Option<u32>,
}

enum State {
    /// Nothing was seen.
    Start(Direction),
    Head,
    /// The fields of a frame are being collected.
    Fields(Head),
    /// Its content is there next, then padding.
    Content {
        head: Head,
        left: u32,
        padding: u32,
    },
    /// The rest of a frame is of no interest.
    Skip(u32),
    Resync(Box<Resync>),
}

/// What a reader came upon.
pub(super) enum Event<'c> {
    /// A frame begins.
    Frame(Head),
    /// Content of a stream.
    Data {
        stream: u32,
        bytes: &'c [u8],
    },
    /// A DATA frame was the sender's last in its stream.
    EndStream {
        stream: u32,
    },
    /// A header block is over.
    Block(Box<Block>),
    Setting {
        id: u16,
        value: u32,
    },
    Reset {
        stream: u32,
    },
    GoAway {
        code: u32,
    },
    /// A frame that is not as it should be.
    Bad {
        stream: u32,
        what: Anomalies,
    },
    /// It is not known where the next frame begins; bytes that are to be looked at again.
    Lost(Option<(EventTime, Vec<u8>)>),
    /// It is known again; bytes that waited for that.
    Found(Found),
}

/// A header block.
pub(super) struct Block {
    pub(super) stream: u32,
    /// The stream that it promises.
    pub(super) promised: Option<u32>,
    pub(super) ends_stream: bool,
    /// First byte of its first frame.
    pub(super) time: EventTime,
    pub(super) fields: FieldList,
    /// It was read to its end.
    pub(super) whole: bool,
    /// Bytes of a field that is not whole.
    waiting: Vec<u8>,
    continuations: u32,
}

/// What a reader works with.
pub(super) struct Tools<'a> {
    pub(super) limits: &'a Limits,
    pub(super) counters: &'a mut Counters,
}

impl Reader {
    /// At the beginning, if that is what comes.
    pub(super) fn new(direction: Direction, limits: &Limits) -> Reader {
        let bounds = Bounds {
            table_bytes_max: limits.http2.table_bytes_max,
            string_bytes_max: limits.head_bytes_max,
        };
        Reader {
            state: State::Start(direction),
            part: [0; PREFACE_BYTES],
            part_bytes: 0,
            time: EventTime::default(),
            hpack: Decoder::new(bounds),
            block: None,
            content_bytes_max: Some(CONTENT_BYTES_DEFAULT),
        }
    }

    /// Somewhere in the middle.
    pub(super) fn midstream(&mut self, resync: Resync) {
        self.hpack.forget();
        self.state = State::Resync(Box::new(resync));
    }

    /// Settings of the other side were missed.
    pub(super) fn miss_settings(&mut self) {
        self.hpack.forget_allowed();
        self.content_bytes_max = None;
    }

    /// The other side allows a header table of that size.
    pub(super) fn allow_table(&mut self, bytes: u32) {
        self.hpack.allow(bytes);
    }

    /// A frame begins here.
    pub(super) fn resume(&mut self) {
        self.state = State::Head;
    }

    /// It is not known where the next frame begins.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Resync(_))
    }

    /// Bytes wait that may turn out to be frames.
    pub(super) fn may_be_found(&self) -> bool {
        matches!(&self.state, State::Resync(resync) if resync.has_chain())
    }

    /// Nothing was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.state, State::Start(_))
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let resync = match &self.state {
            State::Resync(resync) => size_of::<Resync>() + resync.held_bytes(),
            State::Start(_)
            | State::Head
            | State::Fields(_)
            | State::Content { .. }
            | State::Skip(_) => 0,
        };
        let block = self.block.as_ref().map_or(0, |block| {
            size_of::<Block>() + block.waiting.capacity() + block.fields.held_bytes()
        });
        self.hpack.held_bytes() + resync + block
    }

    /// The stream of the frame under way, and of the header block.
    pub(super) fn under_way(&self) -> Option<u32> {
        match &self.state {
            State::Fields(head) | State::Content { head, .. } => Some(head.stream),
            State::Start(_) | State::Head | State::Skip(_) | State::Resync(_) => {
                self.block.as_ref().map(|block| block.stream)
            }
        }
    }

    /// First byte of the frame under way.
    pub(super) fn frame_time(&self) -> EventTime {
        self.time
    }

    /// Reads on; `None` when the chunk is used up.
    pub(super) fn next<'c>(
        &mut self,
        time: EventTime,
        chunk: &mut &'c [u8],
        tools: &mut Tools<'_>,
    ) -> Option<Event<'c>> {
        loop {
            match &mut self.state {
                State::Start(_) if chunk.is_empty() => return None,
                State::Start(direction) => {
                    let direction = *direction;
                    if let Some(event) = self.start(direction, time, chunk, tools) {
                        return Some(event);
                    }
                }
                State::Resync(_) if chunk.is_empty() => return None,
                State::Resync(resync) => {
                    let bytes = std::mem::take(chunk);
                    let found = resync.search(time, bytes)?;
                    *chunk = &bytes[found.used..];
                    tools.counters.skipped_bytes += found.skipped_bytes;
                    self.state = State::Head;
                    return Some(Event::Found(found));
                }
                State::Skip(left) => {
                    take(chunk, left);
                    if *left > 0 {
                        return None;
                    }
                    self.state = State::Head;
                }
                State::Head => {
                    if self.part_bytes == 0 && !chunk.is_empty() {
                        self.time = time;
                    }
                    self.collect(HEAD_BYTES, chunk)?;
                    let bytes = self.part.first_chunk::<HEAD_BYTES>()?;
                    let head = Head::parse(bytes);
                    self.part_bytes = 0;
                    return self.begin(&head, tools);
                }
                State::Fields(head) => {
                    let head = *head;
                    if let Some(event) = self.broken_off(&head, tools) {
                        return Some(event);
                    }
                    self.collect(head.fields_bytes(), chunk)?;
                    self.part_bytes = 0;
                    if let Some(event) = self.open(&head, tools) {
                        return Some(event);
                    }
                }
                State::Content { head, left, .. } if *left > 0 => {
                    let head = *head;
                    if chunk.is_empty() {
                        return None;
                    }
                    if let Some(event) = self.content(&head, chunk, tools) {
                        return Some(event);
                    }
                }
                State::Content { head, padding, .. } => {
                    let head = *head;
                    take(chunk, padding);
                    if *padding > 0 {
                        return None;
                    }
                    self.state = State::Head;
                    if let Some(event) = self.finish(&head, tools) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The first bytes: the preface, or SETTINGS, or else the beginning was missed.
    fn start<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &mut &'c [u8],
        tools: &mut Tools<'_>,
    ) -> Option<Event<'c>> {
        if self.part_bytes == 0 {
            self.time = time;
        }
        let before = self.part_bytes;
        let room = match direction {
            Direction::ToServer => PREFACE_BYTES,
            Direction::ToClient => HEAD_BYTES,
        } - before;
        let (bytes, rest) = chunk.split_at(chunk.len().min(room));
        self.part[before..before + bytes.len()].copy_from_slice(bytes);
        self.part_bytes += bytes.len();
        *chunk = rest;
        let part = &self.part[..self.part_bytes];
        let is_start = match direction {
            Direction::ToServer => PREFACE.starts_with(part).then_some(part.len() == PREFACE_BYTES),
            Direction::ToClient => match part.first_chunk::<HEAD_BYTES>() {
                None => Some(false),
                Some(bytes) => {
                    let head = Head::parse(bytes);
                    let fits = head.kind == Kind::Settings && head.check(u32::MAX).is_ok();
                    (fits && !head.is_ack()).then_some(true)
                }
            },
        };
        match (is_start, direction) {
            (Some(false), _) => {}
            (Some(true), Direction::ToServer) => {
                self.part_bytes = 0;
                self.state = State::Head;
            }
            // What was collected is the head of the first frame.
            (Some(true), Direction::ToClient) => self.state = State::Head,
            (None, _) => {
                let again = (self.time, part.to_vec());
                self.lose(tools);
                return Some(Event::Lost(Some(again)));
            }
        }
        None
    }

    /// Collects so many bytes; `None` until they are there.
    fn collect(&mut self, bytes: usize, chunk: &mut &[u8]) -> Option<()> {
        let taken = chunk.len().min(bytes.saturating_sub(self.part_bytes));
        let (now, rest) = chunk.split_at(taken);
        self.part[self.part_bytes..self.part_bytes + taken].copy_from_slice(now);
        self.part_bytes += taken;
        *chunk = rest;
        (self.part_bytes >= bytes).then_some(())
    }

    /// A head is there.
    fn begin<'c>(&mut self, head: &Head, tools: &mut Tools<'_>) -> Option<Event<'c>> {
        tools.counters.http2_frames += 1;
        let most = self.content_bytes_max.unwrap_or(CONTENT_BYTES_DEFAULT);
        let is_known = !matches!(head.kind, Kind::Other(_));
        if head.check(if is_known { u32::MAX } else { most }).is_ok() {
            self.state = State::Fields(*head);
            return Some(Event::Frame(*head));
        }
        tools.counters.http2_frames_bad += 1;
        if head.has_block() {
            self.hpack.forget();
        }
        if head.length > most {
            // Hardly a head at all.
            return Some(self.lose(tools));
        }
        self.state = State::Skip(head.length);
        Some(Event::Bad { stream: head.stream, what: Anomalies::BAD_FRAME })
    }

    /// A header block that another frame breaks off (RFC 9113, 6.10), or a continuation of none.
    fn broken_off<'c>(&mut self, head: &Head, tools: &mut Tools<'_>) -> Option<Event<'c>> {
        if self.part_bytes > 0 {
            return None;
        }
        let is_continuation = head.kind == Kind::Continuation;
        match &self.block {
            Some(block) if is_continuation && head.stream == block.stream => None,
            Some(_) => Some(self.give_up_block(Anomalies::BAD_FRAME, tools)?),
            None if is_continuation => {
                tools.counters.http2_frames_bad += 1;
                self.hpack.forget();
                self.state = State::Skip(head.length);
                Some(Event::Bad { stream: head.stream, what: Anomalies::BAD_FRAME })
            }
            None => None,
        }
    }

    /// The rest of a header block will not be read.
    pub(super) fn give_up_block<'c>(
        &mut self,
        why: Anomalies,
        tools: &mut Tools<'_>,
    ) -> Option<Event<'c>> {
        let mut block = self.block.take()?;
        self.hpack.forget();
        tools.counters.http2_blocks_bad += 1;
        block.fields.odd |= Anomalies::BAD_HEADER_BLOCK | why;
        block.whole = false;
        Some(Event::Block(block))
    }

    /// The fields before the content are there.
    fn open<'c>(&mut self, head: &Head, tools: &mut Tools<'_>) -> Option<Event<'c>> {
        let opening = match Opening::parse(head, &self.part[..head.fields_bytes()]) {
            Ok(opening) => opening,
            Err(_) => {
                tools.counters.http2_frames_bad += 1;
                if head.has_block() {
                    self.hpack.forget();
                }
                self.state = State::Skip(head.length - head.fields_bytes() as u32);
                return Some(Event::Bad { stream: head.stream, what: Anomalies::BAD_FRAME });
            }
        };
        let (left, padding) = (opening.content_bytes, opening.padding_bytes.unwrap_or(0));
        self.state = State::Content { head: *head, left, padding: u32::from(padding) };
        if matches!(head.kind, Kind::Headers | Kind::PushPromise) {
            let promised = match opening.fields {
                Fields::Promised(stream) => Some(stream),
                Fields::None
                | Fields::Priority(_)
                | Fields::Code(_)
                | Fields::Opaque(_)
                | Fields::GoAway { .. }
                | Fields::Increment(_) => None,
            };
            self.block = Some(Box::new(Block {
                stream: head.stream,
                promised,
                ends_stream: head.ends_stream(),
                time: self.time,
                fields: FieldList::default(),
                whole: true,
                waiting: Vec::new(),
                continuations: 0,
            }));
        }
        if let (Kind::Continuation, Some(block)) = (head.kind, &mut self.block) {
            block.continuations += 1;
            if block.continuations == tools.limits.http2.continuations_max + 1 {
                tools.counters.http2_floods += 1;
                block.fields.odd |= Anomalies::CONTINUATION_FLOOD;
            }
        }
        let event = match opening.fields {
            Fields::Code(_) => Event::Reset { stream: head.stream },
            Fields::GoAway { code, .. } => Event::GoAway { code },
            Fields::None
            | Fields::Priority(_)
            | Fields::Promised(_)
            | Fields::Opaque(_)
            | Fields::Increment(_) => return self.too_large(head, tools),
        };
        Some(event)
    }

    fn too_large<'c>(&mut self, head: &Head, tools: &mut Tools<'_>) -> Option<Event<'c>> {
        let is_large = self.content_bytes_max.is_some_and(|most| head.length > most);
        is_large.then(|| {
            tools.counters.http2_frames_too_large += 1;
            Event::Bad { stream: head.stream, what: Anomalies::FRAME_TOO_LARGE }
        })
    }

    /// Reads content, of which there is some.
    fn content<'c>(
        &mut self,
        head: &Head,
        chunk: &mut &'c [u8],
        tools: &mut Tools<'_>,
    ) -> Option<Event<'c>> {
        let State::Content { left, .. } = &mut self.state else { return None };
        match head.kind {
            Kind::Data => {
                let bytes = take(chunk, left);
                Some(Event::Data { stream: head.stream, bytes })
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                let bytes = take(chunk, left);
                let is_last = *left == 0 && head.ends_headers();
                self.read_block(bytes, is_last, tools);
                None
            }
            Kind::Settings => {
                let mut now =
                    u32::try_from(SETTING_BYTES - self.part_bytes).unwrap_or(0).min(*left);
                let before = *left - now;
                let bytes = take(chunk, &mut now);
                *left = before + now;
                self.part[self.part_bytes..self.part_bytes + bytes.len()].copy_from_slice(bytes);
                self.part_bytes += bytes.len();
                let whole = self.part.first_chunk::<SETTING_BYTES>();
                let whole = whole.filter(|_| self.part_bytes == SETTING_BYTES)?;
                self.part_bytes = 0;
                let (id, value) = setting(whole);
                Some(Event::Setting { id, value })
            }
            Kind::Priority
            | Kind::ResetStream
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Other(_) => {
                take(chunk, left);
                None
            }
        }
    }

    /// Reads a piece of a header block.
    fn read_block(&mut self, bytes: &[u8], is_last: bool, tools: &mut Tools<'_>) {
        let Some(block) = self.block.as_deref_mut() else { return };
        if !block.whole {
            return;
        }
        let Block { waiting, fields, .. } = block;
        let Tools { limits, counters } = tools;
        let sink = |field: super::hpack::Field<'_>| fields.push(field, limits, counters);
        let read = if waiting.is_empty() {
            self.hpack.read(bytes, is_last, sink).map(|used| {
                waiting.extend_from_slice(&bytes[used..]);
            })
        } else {
            waiting.extend_from_slice(bytes);
            self.hpack.read(waiting, is_last, sink).map(|used| drop(waiting.drain(..used)))
        };
        counters.http2_entries_dropped += self.hpack.take_dropped();
        let Err(error) = read else { return };
        counters.http2_blocks_bad += 1;
        block.waiting = Vec::new();
        block.whole = false;
        block.fields.odd |= Anomalies::BAD_HEADER_BLOCK;
        if error == Error::StringTooLong {
            counters.heads_too_large += 1;
            block.fields.odd |= Anomalies::HEAD_TOO_LARGE;
        }
    }

    /// A frame has ended.
    fn finish<'c>(&mut self, head: &Head, tools: &mut Tools<'_>) -> Option<Event<'c>> {
        self.part_bytes = 0;
        if head.ends_headers() {
            // An empty last piece ends a block as well.
            self.read_block(&[], true, tools);
            return self.block.take().map(Event::Block);
        }
        let ends = head.kind == Kind::Data && head.ends_stream();
        ends.then_some(Event::EndStream { stream: head.stream })
    }

    /// From here on it is not known where a frame begins.
    fn lose<'c>(&mut self, tools: &mut Tools<'_>) -> Event<'c> {
        tools.counters.resyncs += 1;
        self.part_bytes = 0;
        self.midstream(Resync::new(SURE, tools.limits.http2.search_bytes_max));
        Event::Lost(None)
    }

    /// Bytes are missing. Gives how many of them are content of a stream, and what is left of the
    /// gap; where that is not 0, or is `None`, the reader must be told by [`Reader::fall_off`] once
    /// what the frame under way ends has been read with an empty chunk.
    pub(super) fn gap(&mut self, bytes: u64) -> Missing {
        let mut missing = Missing { stream: None, content_bytes: 0, beyond: bytes, hit: None };
        match &mut self.state {
            State::Start(_) | State::Head | State::Fields(_) => {}
            State::Resync(resync) => resync.gap(),
            State::Skip(left) => missing.beyond -= pass(left, bytes),
            State::Content { head, left, padding } => {
                missing.hit = Some(head.stream);
                let content_bytes = pass(left, bytes);
                missing.beyond -= content_bytes;
                missing.beyond -= pass(padding, missing.beyond);
                if head.kind == Kind::Data {
                    (missing.stream, missing.content_bytes) = (Some(head.stream), content_bytes);
                }
                self.part_bytes = 0;
                if head.has_block() && content_bytes > 0 {
                    self.hpack.forget();
                    if let Some(block) = &mut self.block {
                        block.whole = false;
                        block.waiting = Vec::new();
                        block.fields.odd |= Anomalies::GAP | Anomalies::BAD_HEADER_BLOCK;
                    }
                }
            }
        }
        missing
    }

    /// The gap goes on beyond what is known of the present frame.
    pub(super) fn fall_off(&mut self, tools: &mut Tools<'_>) -> Event<'static> {
        if self.is_lost() {
            return Event::Lost(None);
        }
        self.lose(tools)
    }
}

/// What a gap took.
pub(super) struct Missing {
    /// The stream whose content is missing.
    pub(super) stream: Option<u32>,
    pub(super) content_bytes: u64,
    /// Bytes beyond the frame under way.
    pub(super) beyond: u64,
    /// The stream of the frame that the gap began in.
    pub(super) hit: Option<u32>,
}

/// Takes at most `left` bytes.
fn take<'c>(chunk: &mut &'c [u8], left: &mut u32) -> &'c [u8] {
    let count = chunk.len().min(*left as usize);
    let (now, rest) = chunk.split_at(count);
    *chunk = rest;
    *left -= count as u32;
    now
}

/// Passes over bytes that are not there.
fn pass(left: &mut u32, bytes: u64) -> u64 {
    let passed = bytes.min(u64::from(*left));
    *left -= passed as u32;
    passed
}
