//! Both directions of a connection: frames to streams, streams to calls.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bucket::Bucket;
use super::frame::{Head, Kind, SETTING_BYTES, setting};
use super::reader::{Block, Event, Reader, Tools};
use super::resync::{Found, Resync};
use super::stream::Stream;
use super::streams::{Standing, Streams};
use crate::call::Anomalies;
use crate::connection::{Http2, Http2Side};
use crate::decode::context::Context;
use crate::decode::conversation::Upgraded;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// `SETTINGS_HEADER_TABLE_SIZE` and `SETTINGS_MAX_FRAME_SIZE` (RFC 9113, 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const MAX_FRAME_SIZE: u16 = 5;

/// Ids of settings that are kept: seven are in use.
const SETTINGS_MAX: usize = 16;

/// GOAWAY frames that are kept: an orderly end has two.
const GOAWAY_MAX: usize = 4;

/// An HTTP/2 connection.
pub(in crate::decode) struct Connection {
    readers: [Reader; 2],
    streams: Streams,
    rates: [Rates; 2],
    /// The beginning was not seen.
    midstream: bool,
    /// For the next stream.
    notes: Anomalies,
    summary: Box<Http2>,
}

/// How often a side does what costs the other more than itself.
#[derive(Default)]
struct Rates {
    resets: Bucket,
    settings: Bucket,
    pings: Bucket,
    empty: Bucket,
}

impl Connection {
    /// From its first bytes on, if those are what comes.
    pub(in crate::decode) fn new(midstream: bool, limits: &Limits) -> Connection {
        let mut streams = Streams::default();
        if midstream {
            streams.miss();
        }
        Connection {
            readers: [Direction::ToServer, Direction::ToClient].map(|it| Reader::new(it, limits)),
            streams,
            rates: Default::default(),
            midstream,
            notes: Anomalies::empty(),
            summary: Box::default(),
        }
    }

    /// In the middle: bytes of each direction that wait for the beginning of a frame.
    pub(super) fn searching(searches: [Resync; 2], limits: &Limits) -> Connection {
        let mut connection = Connection::new(true, limits);
        for (reader, search) in connection.readers.iter_mut().zip(searches) {
            reader.midstream(search);
            reader.miss_settings();
        }
        connection
    }

    /// After an upgrade from HTTP/1.1: its request is stream 1 (RFC 7540, 3.2).
    pub(in crate::decode) fn upgraded(upgraded: Upgraded, limits: &Limits) -> Connection {
        let mut connection = Connection::new(false, limits);
        if let Some(text) = &upgraded.settings {
            let bytes = URL_SAFE_NO_PAD.decode(text.trim_ascii_end()).unwrap_or_default();
            for bytes in bytes.as_chunks::<SETTING_BYTES>().0 {
                let (id, value) = setting(bytes);
                connection.setting(Direction::ToServer, id, value);
            }
        }
        connection.streams.insert(1, Stream::upgraded(upgraded));
        connection.streams.measure(1);
        connection.summary.client.streams += 1;
        connection
    }

    /// Memory held besides the connection itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        let readers: usize = self.readers.iter().map(Reader::held_bytes).sum();
        readers + self.streams.held_bytes() + size_of::<Http2>()
    }

    /// What the connection amounted to.
    pub(in crate::decode) fn summary(&self) -> Box<Http2> {
        self.summary.clone()
    }

    /// The next bytes of a direction.
    pub(in crate::decode) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        let mut rest = chunk;
        loop {
            let mut tools = Tools { limits: cx.limits, counters: cx.counters };
            let reader = &mut self.readers[direction as usize];
            let Some(event) = reader.next(time, &mut rest, &mut tools) else { return };
            self.handle(direction, time, event, cx);
        }
    }

    /// Bytes of a direction that are not there.
    pub(in crate::decode) fn gap(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        cx: &mut Context<'_>,
    ) {
        let was_fresh = self.readers[direction as usize].is_fresh();
        let missing = self.readers[direction as usize].gap(bytes);
        if let Some(id) = missing.stream
            && let Some(stream) = self.known(id, direction, time, cx)
        {
            stream.miss(direction, time, missing.content_bytes, cx.identifier);
            self.side(direction).data_bytes += missing.content_bytes;
        } else if let Some(stream) = missing.hit.and_then(|id| self.streams.at(id)) {
            stream.damage(direction, Anomalies::GAP);
        }
        // What ended within the gap.
        self.data(direction, time, &[], cx);
        if missing.beyond == 0 {
            return;
        }
        self.midstream |= was_fresh;
        let mut tools = Tools { limits: cx.limits, counters: cx.counters };
        let reader = &mut self.readers[direction as usize];
        let block = reader.give_up_block(Anomalies::GAP, &mut tools);
        let lost = reader.fall_off(&mut tools);
        for event in block.into_iter().chain([lost]) {
            self.handle(direction, time, event, cx);
        }
    }

    /// Adds to the message under way in this direction, or to the next.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        let stream = self.readers[direction as usize].under_way();
        match stream.and_then(|id| self.streams.at(id)) {
            Some(stream) => stream.anomalies |= what,
            None => self.notes |= what,
        }
    }

    /// The sender of a direction has ended it in good order: what it has not ended stays as it is.
    pub(in crate::decode) fn end(&mut self, direction: Direction, cx: &mut Context<'_>) {
        if direction == Direction::ToClient {
            self.give_up(Anomalies::empty(), cx);
        }
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(in crate::decode) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let mut tools = Tools { limits: cx.limits, counters: cx.counters };
            let reader = &mut self.readers[direction as usize];
            let time = reader.frame_time();
            if let Some(block) = reader.give_up_block(Anomalies::TRUNCATED, &mut tools) {
                self.handle(direction, time, block, cx);
            }
        }
        self.give_up(why, cx);
    }

    fn give_up(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        while let Some(id) = self.streams.first() {
            if let Some(stream) = self.streams.at(id) {
                stream.anomalies |= why;
            }
            self.close(id, cx);
        }
    }

    fn handle(
        &mut self,
        direction: Direction,
        time: EventTime,
        event: Event<'_>,
        cx: &mut Context<'_>,
    ) {
        match event {
            Event::Frame(head) => self.begin_frame(direction, time, &head, cx),
            Event::Data { stream: id, bytes } => {
                self.side(direction).data_bytes += bytes.len() as u64;
                if let Some(stream) = self.known(id, direction, time, cx)
                    && stream.take(direction, time, bytes, cx.identifier)
                {
                    self.streams.measure(id);
                }
            }
            Event::EndStream { stream: id } => {
                if let Some(stream) = self.known(id, direction, time, cx) {
                    stream.end(direction, time);
                    self.settle(id, cx);
                }
            }
            Event::Block(block) => self.block(direction, time, *block, cx),
            Event::Setting { id, value } => self.setting(direction, id, value),
            Event::Reset { stream: id } => self.reset(direction, time, id, cx),
            Event::GoAway { code } => {
                let codes = &mut self.side(direction).goaway;
                if codes.len() < GOAWAY_MAX {
                    codes.push(code);
                }
            }
            Event::Bad { stream: id, what } => match self.streams.at(id) {
                Some(stream) => stream.anomalies |= what,
                None => self.odd(what),
            },
            Event::Lost(again) => {
                self.lose(direction, cx);
                if let Some((time, bytes)) = again {
                    self.data(direction, time, &bytes, cx);
                }
            }
            Event::Found(found) => self.found(direction, found, cx),
        }
    }

    fn side(&mut self, direction: Direction) -> &mut Http2Side {
        match direction {
            Direction::ToServer => &mut self.summary.client,
            Direction::ToClient => &mut self.summary.server,
        }
    }

    /// Something that concerns no stream in particular.
    fn odd(&mut self, what: Anomalies) {
        self.notes |= what;
        self.summary.anomalies |= what;
    }

    fn begin_frame(
        &mut self,
        direction: Direction,
        time: EventTime,
        head: &Head,
        cx: &mut Context<'_>,
    ) {
        let side = self.side(direction);
        side.frames += 1;
        side.pings += u64::from(head.kind == Kind::Ping && !head.is_ack());
        let rates = &mut self.rates[direction as usize];
        let is_empty = head.length == 0 && !head.ends_stream() && !head.ends_headers();
        let (bucket, what) = match head.kind {
            Kind::Settings if !head.is_ack() => (&mut rates.settings, Anomalies::SETTINGS_FLOOD),
            Kind::Ping if !head.is_ack() => (&mut rates.pings, Anomalies::PING_FLOOD),
            Kind::Data | Kind::Headers | Kind::Continuation if is_empty => {
                (&mut rates.empty, Anomalies::EMPTY_FRAMES)
            }
            Kind::Data
            | Kind::Headers
            | Kind::Priority
            | Kind::ResetStream
            | Kind::Settings
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Other(_) => return,
        };
        let limits = &cx.limits.http2;
        if !bucket.take(time, limits.controls_burst, limits.controls_per_second) {
            cx.counters.http2_floods += 1;
            self.odd(what);
        }
    }

    fn setting(&mut self, direction: Direction, id: u16, value: u32) {
        let settings = &mut self.side(direction).settings;
        match settings.iter().position(|(known, _)| *known == id) {
            Some(at) => settings[at].1 = value,
            None if settings.len() < SETTINGS_MAX => settings.push((id, value)),
            None => {}
        }
        let other = &mut self.readers[direction.reverse() as usize];
        match id {
            HEADER_TABLE_SIZE => other.allow_table(value),
            // A smaller one holds once it has been acknowledged; nothing is odd before that.
            MAX_FRAME_SIZE => {
                other.content_bytes_max = other.content_bytes_max.map(|most| most.max(value));
            }
            _ => {}
        }
    }

    /// The stream that a frame with content belongs to, if it is of interest.
    fn known(
        &mut self,
        id: u32,
        direction: Direction,
        time: EventTime,
        cx: &mut Context<'_>,
    ) -> Option<&mut Stream> {
        match self.streams.standing(id) {
            Standing::Open => {}
            Standing::Closed => {
                cx.counters.http2_frames_late += 1;
                return None;
            }
            Standing::New => {
                // Its head was missed.
                let midstream = self.midstream;
                let stream = self.begin(id, time, cx);
                stream.damage(
                    direction,
                    if midstream { Anomalies::MIDSTREAM } else { Anomalies::GAP },
                );
            }
        }
        self.streams.at(id)
    }

    /// A new stream, for which there must be room.
    fn begin(&mut self, id: u32, time: EventTime, cx: &mut Context<'_>) -> &mut Stream {
        while self.streams.len() >= cx.limits.http2.streams_max.max(1) {
            let Some(oldest) = self.streams.first() else { break };
            cx.counters.http2_streams_evicted += 1;
            let is_heard = !self.readers[Direction::ToClient as usize].is_fresh();
            if let Some(stream) = self.streams.at(oldest) {
                stream.anomalies |= Anomalies::EVICTED;
                // Where no answers are seen it is no wonder that there are many.
                if is_heard {
                    stream.anomalies |= Anomalies::TOO_MANY_STREAMS;
                }
            }
            self.close(oldest, cx);
        }
        let (side, pushed) = match id % 2 {
            0 => (&mut self.summary.server, Anomalies::PUSHED),
            _ => (&mut self.summary.client, Anomalies::empty()),
        };
        side.streams += 1;
        let notes = std::mem::take(&mut self.notes);
        let stream = self.streams.begin(id, time);
        stream.anomalies |= notes | pushed;
        stream
    }

    fn block(
        &mut self,
        direction: Direction,
        last: EventTime,
        mut block: Block,
        cx: &mut Context<'_>,
    ) {
        let id = block.promised.unwrap_or(block.stream);
        let is_new = match self.streams.standing(id) {
            Standing::Open => false,
            Standing::New => true,
            Standing::Closed => {
                cx.counters.http2_frames_late += 1;
                return;
            }
        };
        let asks = direction == Direction::ToServer || block.promised.is_some();
        let midstream = self.midstream;
        let incomplete = self.streams.is_incomplete();
        if is_new {
            let stream = self.begin(id, block.time, cx);
            if midstream && !asks {
                stream.anomalies |= Anomalies::MIDSTREAM;
            }
        }
        let identifier = cx.identifier;
        let Some(stream) = self.streams.at(id) else { return };
        let may_begin = block.fields.may_begin();
        if asks {
            // Trailers have no pseudo-fields; a bad request may have none either.
            if !stream.is_asked() && block.fields.is_empty() && !block.whole {
                stream.damage(direction, Anomalies::BAD_HEADER_BLOCK);
            } else if !stream.is_asked() && (may_begin || (is_new && !incomplete)) {
                let asked = block.fields.request(identifier, cx.peer());
                stream.anomalies |= block.fields.odd;
                stream.ask(asked, block.time, last);
            }
        } else {
            let answered = block.fields.response(identifier);
            if may_begin && (!stream.is_answered() || answered.status.is_some()) {
                stream.answer(answered, block.time, cx);
            } else {
                stream.trailers(answered);
            }
        }
        stream.anomalies |= block.fields.odd;
        if block.promised.is_some() {
            stream.end(Direction::ToServer, last);
        } else if block.ends_stream {
            stream.end(direction, last);
        }
        self.streams.measure(id);
        self.settle(id, cx);
    }

    fn reset(&mut self, direction: Direction, time: EventTime, id: u32, cx: &mut Context<'_>) {
        self.side(direction).resets += 1;
        let limits = &cx.limits.http2;
        let bucket = &mut self.rates[direction as usize].resets;
        let is_rapid = !bucket.take(time, limits.resets_burst, limits.resets_per_second);
        if is_rapid {
            cx.counters.http2_floods += 1;
            self.summary.anomalies |= Anomalies::RAPID_RESET;
        }
        let Some(stream) = self.streams.at(id) else { return };
        stream.anomalies |= Anomalies::STREAM_RESET;
        if is_rapid {
            stream.anomalies |= Anomalies::RAPID_RESET;
        }
        self.close(id, cx);
    }

    /// Gives out the call if it is over.
    fn settle(&mut self, id: u32, cx: &mut Context<'_>) {
        let may_ask = self.readers[Direction::ToServer as usize].may_be_found();
        if self.streams.at(id).is_some_and(|stream| stream.is_over(may_ask)) {
            self.close(id, cx);
        }
    }

    /// Gives out calls that only waited for a request to turn up.
    fn settle_all(&mut self, cx: &mut Context<'_>) {
        let over = self.streams.iter().filter(|(_, stream)| stream.is_over(false));
        let over: Vec<u32> = over.map(|(id, _)| id).collect();
        over.into_iter().for_each(|id| self.close(id, cx));
    }

    fn close(&mut self, id: u32, cx: &mut Context<'_>) {
        let Some(stream) = self.streams.remove(id) else { return };
        if let Some(call) = stream.into_call(id, cx) {
            cx.emit(call);
        }
    }

    /// It is not known where the next frame begins, nor what was missed.
    fn lose(&mut self, direction: Direction, cx: &mut Context<'_>) {
        self.streams.miss();
        self.readers[direction.reverse() as usize].miss_settings();
        for (_, stream) in self.streams.iter() {
            stream.damage(direction, Anomalies::GAP);
        }
        if direction == Direction::ToServer {
            // The end of these may be among what was lost.
            self.settle_all(cx);
        }
    }

    fn found(&mut self, direction: Direction, found: Found, cx: &mut Context<'_>) {
        for (time, bytes) in found.pieces {
            self.data(direction, time, &bytes, cx);
        }
        if direction == Direction::ToServer {
            self.settle_all(cx);
        }
    }

    /// Bytes of a direction from where a frame begins.
    pub(super) fn resume(&mut self, direction: Direction, found: Found, cx: &mut Context<'_>) {
        cx.counters.skipped_bytes += found.skipped_bytes;
        self.readers[direction as usize].resume();
        self.found(direction, found, cx);
    }
}
