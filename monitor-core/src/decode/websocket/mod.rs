//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692) as seen from beside the wire.
//!
//! Each message of the client is a call; what the server sends is a reply to one of them, or a push
//! that is counted by channel.

mod call;
mod channels;
mod extension;
mod frame;
mod inflate;
mod message;
mod reader;
mod said;
mod search;
mod waiting;

use flate2::Decompress;
use smallvec::SmallVec;

use self::call::{Handshake, Who};
use self::channels::Channels;
use self::extension::Agreed;
use self::message::Message;
use self::reader::{Event, Reader};
use self::said::Said;
use self::search::Search;
use self::waiting::{Asked, Waiting};
use super::context::Context;
use super::conversation::Upgraded;
use crate::call::{Anomalies, Key, Outcome};
use crate::connection::{Close, Deflate, Peer, WebSocket};
use crate::identity::Style;
use crate::input::Direction;
use crate::time::EventTime;

/// Tools that every connection uses in turn.
#[derive(Default)]
pub(in crate::decode) struct Bench {
    /// Inflaters that nobody needs just now.
    idle: Vec<Decompress>,
    /// What an inflater writes to.
    output: Vec<u8>,
    /// Compressed bytes without their mask.
    input: Vec<u8>,
    /// A buffer for the beginning of the next message.
    spare: Vec<u8>,
}

/// Both directions of a connection.
pub(in crate::decode) struct Connection {
    /// What was asked for in HTTP; `None` when that was not seen.
    handshake: Option<Handshake>,
    /// Whose it is now: of the handshake, or of the last login.
    key: Option<Key>,
    style: Style,
    readers: [Reader; 2],
    deflate: Option<Deflate>,
    waiting: Waiting,
    channels: Channels,
    close: Option<Close>,
    replies_unpaired: u64,
}

/// Bytes that may be those of a WebSocket connection whose handshake was not seen.
pub(in crate::decode) struct Suspicion {
    searches: [Box<Search>; 2],
}

/// Bytes of a direction that are looked at before a suspicion is dropped.
const SUSPECT_BYTES_MAX: u64 = 256 << 10;

impl Default for Suspicion {
    fn default() -> Suspicion {
        let search = |direction| Box::new(Search::new(direction, true));
        Suspicion { searches: [search(Direction::ToServer), search(Direction::ToClient)] }
    }
}

impl Suspicion {
    /// Memory held, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        self.searches.iter().map(|search| search.held_bytes()).sum()
    }

    /// Takes bytes; once it is sure, how many of them it took to be, and what is left of them.
    pub(in crate::decode) fn read<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &'c [u8],
    ) -> Option<(usize, &'c [u8])> {
        if self.is_vain() {
            return None;
        }
        let search = &mut self.searches[direction as usize];
        let start = search.bytes();
        let room = usize::try_from(SUSPECT_BYTES_MAX.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut within = &chunk[..chunk.len().min(room)];
        let length = within.len();
        if !search.read(time, &mut within) {
            return None;
        }
        let used = usize::try_from(search.judged().saturating_sub(start)).unwrap_or(usize::MAX);
        Some((used.min(length), &chunk[length - within.len()..]))
    }

    /// Bytes are missing.
    pub(in crate::decode) fn gap(&mut self, direction: Direction) {
        self.searches[direction as usize].gap();
    }

    /// Nothing speaks for it.
    fn is_vain(&self) -> bool {
        self.searches.iter().any(|search| search.bytes() >= SUSPECT_BYTES_MAX)
    }
}

impl Connection {
    /// After its handshake.
    pub(in crate::decode) fn new(upgraded: Upgraded, cx: &mut Context<'_>) -> Connection {
        cx.counters.websocket_flows += 1;
        let agreed = Agreed::parse(upgraded.extensions.as_deref().unwrap_or_default());
        let reader = |direction| Reader::new(direction, &agreed);
        let readers = [reader(Direction::ToServer), reader(Direction::ToClient)];
        Connection::with(Some(Handshake::of(upgraded)), readers, agreed.deflate)
    }

    /// In its middle, where a suspicion was right.
    pub(in crate::decode) fn midstream(suspicion: Suspicion, cx: &mut Context<'_>) -> Connection {
        cx.counters.websocket_flows += 1;
        let [mut to_server, mut to_client] = suspicion.searches;
        to_server.settle();
        to_client.settle();
        let readers = [
            Reader::midstream(Direction::ToServer, to_server),
            Reader::midstream(Direction::ToClient, to_client),
        ];
        let mut connection = Connection::with(None, readers, None);
        for direction in [Direction::ToServer, Direction::ToClient] {
            let runs = connection.readers[direction as usize].found();
            for (time, bytes) in runs.into_iter().flatten() {
                connection.data(direction, time, &bytes, cx);
            }
        }
        connection
    }

    fn with(
        handshake: Option<Handshake>,
        readers: [Reader; 2],
        deflate: Option<Deflate>,
    ) -> Connection {
        Connection {
            key: handshake.as_ref().and_then(|it| it.key.clone()),
            style: handshake.as_ref().map_or(Style::GENERIC, |it| it.style),
            handshake,
            readers,
            deflate,
            waiting: Waiting::default(),
            channels: Channels::default(),
            close: None,
            replies_unpaired: 0,
        }
    }

    /// Memory held besides the connection itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        self.readers.iter().map(Reader::held_bytes).sum::<usize>()
            + self.waiting.held_bytes()
            + self.channels.held_bytes()
            + self.handshake.as_ref().map_or(0, Handshake::held_bytes)
    }

    /// Drops a window to make room, the server's first; false when there is none.
    pub(in crate::decode) fn shed(&mut self) -> bool {
        let [to_server, to_client] = &mut self.readers;
        to_client.shed() || to_server.shed()
    }

    /// The next bytes of a direction.
    pub(in crate::decode) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        // First, so that a reply comes too late however it is cut.
        self.expire(time, cx);
        let mut again = Vec::new();
        self.read(direction, time, chunk, &mut again, cx);
        while let Some((time, bytes)) = again.pop() {
            self.read(direction, time, &bytes, &mut again, cx);
        }
    }

    /// Reads on. What a search has gone over is to be read again, last things first.
    fn read(
        &mut self,
        direction: Direction,
        time: EventTime,
        mut chunk: &[u8],
        again: &mut Vec<(EventTime, Vec<u8>)>,
        cx: &mut Context<'_>,
    ) {
        let place = direction as usize;
        while let Some(event) = self.readers[place].read(time, &mut chunk, cx.bench, cx.limits) {
            self.handle(direction, event, cx);
        }
        if let Some(runs) = self.readers[place].found() {
            if !chunk.is_empty() {
                again.push((time, chunk.to_vec()));
            }
            again.extend(runs.into_iter().rev());
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
        if direction == Direction::ToClient {
            self.waiting.doubt(Anomalies::GAP);
        }
        let event = self.readers[direction as usize].gap(time, bytes, cx.bench, cx.limits);
        if let Some(event) = event {
            self.handle(direction, event, cx);
        }
    }

    /// Adds to the message under way in a direction, or to the next.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        self.readers[direction as usize].note(what);
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(in crate::decode) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let reader = &mut self.readers[direction as usize];
            let event = reader.finish();
            cx.counters.websocket_undecoded_bytes += reader.traffic.undecoded_bytes;
            if let Some(event) = event {
                self.handle(direction, event, cx);
            }
        }
        while let Some(mut asked) = self.waiting.pop() {
            asked.anomalies |= why;
            self.give_up(asked, cx);
        }
    }

    /// What it amounted to.
    pub(in crate::decode) fn summary(&self) -> WebSocket {
        let [to_server, to_client] = &self.readers;
        WebSocket {
            sent: to_server.traffic.clone(),
            received: to_client.traffic.clone(),
            deflate: self.deflate.clone(),
            close: self.close.clone(),
            channels: self.channels.list(),
            channels_beyond: self.channels.beyond,
            replies_unpaired: self.replies_unpaired,
            anomalies: to_server.anomalies | to_client.anomalies,
        }
    }

    fn handle(&mut self, direction: Direction, event: Event, cx: &mut Context<'_>) {
        match event {
            Event::Message(message) => {
                cx.counters.websocket_messages += 1;
                cx.counters.websocket_unreadable += u64::from(!message.readable);
                cx.counters.websocket_bombs +=
                    u64::from(message.anomalies.contains(Anomalies::DEFLATE_BOMB));
                match direction {
                    Direction::ToServer => self.asked(&message, cx),
                    Direction::ToClient => self.told(&message, cx),
                }
                let mut spare = message.prefix;
                spare.clear();
                cx.bench.spare = spare;
            }
            Event::Close(payload) => self.closed(direction, payload.as_deref()),
        }
    }

    /// A message of the client.
    fn asked(&mut self, message: &Message, cx: &mut Context<'_>) {
        let each = Said::each(message.words());
        for said in each.iter().filter(|said| call::subscribes(said)) {
            said.each_channel(|name| self.channels.subscribe(name, cx.limits.channels_max));
        }
        let who = self.who(message, &each, cx);
        let (mut asked, waits) = call::asked(message, &each, who, cx.identifier);
        asked.missed = self.readers[Direction::ToClient as usize].doubt();
        if !waits {
            return self.give_up(asked, cx);
        }
        while self.waiting.len() >= cx.limits.replies_awaited_max.max(1) {
            let Some(mut oldest) = self.waiting.pop() else { break };
            cx.counters.replies_overflows += 1;
            oldest.anomalies |= Anomalies::PIPELINE_OVERFLOW;
            self.give_up(oldest, cx);
        }
        self.waiting.push(asked);
    }

    /// Whose a message is. A login counts at once; when it is refused, what was before counts again.
    fn who(&mut self, message: &Message, each: &[Said<'_>], cx: &Context<'_>) -> Who {
        let name = each.first().and_then(Said::name);
        let of_message = cx.identifier.message_key(message.words(), name, self.style);
        let mut who = Who { key: None, token: None, style: self.style, before: None };
        match of_message {
            Some(found) => {
                (who.style, who.token) = (found.style, found.token);
                if found.stays {
                    self.style = found.style;
                    let before = self.key.replace(found.key.clone());
                    who.before = Some(Box::new(before));
                }
                who.key = Some(found.key);
            }
            None => {
                who.key = self.key.clone();
                if name.is_some_and(|name| cx.identifier.logs_out(self.style, name)) {
                    self.key = self.handshake.as_ref().and_then(|it| it.key.clone());
                }
            }
        }
        who
    }

    /// A message of the server.
    fn told(&mut self, message: &Message, cx: &mut Context<'_>) {
        if !message.readable {
            return self.waiting.doubt(message.anomalies | Anomalies::CONTENT_UNKNOWN);
        }
        let awaited = self.waiting.len() > 0;
        let said = Said::read(message.words(), !awaited);
        if awaited && (said.id().is_some() || said.name().is_some() || said.positional) {
            let each = if said.positional {
                Said::each(message.words())
            } else {
                SmallVec::from_elem(said, 1)
            };
            if let Some(asked) = self.waiting.answered_by(&each) {
                self.channels.learn(&said, cx.limits.channels_max);
                let told = call::Told { message, said: &each[0] };
                return self.emit(asked, Some(told), cx);
            }
        }
        if said.is_answer() {
            self.replies_unpaired += 1;
        } else if !self.channels.push(&said, message.payload_bytes(), cx.limits.channels_max) {
            cx.counters.channels_overflows += 1;
        }
    }

    fn closed(&mut self, direction: Direction, payload: Option<&[u8]>) {
        let by = match direction {
            Direction::ToServer => Peer::Client,
            Direction::ToClient => Peer::Server,
        };
        let (close, odd) = call::close(by, payload);
        if odd {
            self.readers[direction as usize].anomalies |= Anomalies::BAD_CLOSE;
        }
        self.close.get_or_insert(close);
    }

    /// Replies that have not come in time will not come.
    fn expire(&mut self, time: EventTime, cx: &mut Context<'_>) {
        let wait = cx.limits.reply_wait_max;
        while let Some(asked) = self.waiting.pop_expired(time, wait) {
            cx.counters.replies_timeouts += 1;
            self.give_up(asked, cx);
        }
    }

    fn give_up(&mut self, asked: Asked, cx: &mut Context<'_>) {
        self.emit(asked, None, cx);
    }

    fn emit(&mut self, mut asked: Asked, told: Option<call::Told<'_>>, cx: &mut Context<'_>) {
        let before = asked.before.take();
        let call = call::record(cx.flow(), self.handshake.as_ref(), asked, told, cx.identifier);
        let refused = call.outcome.is_some_and(|outcome| outcome != Outcome::Ok);
        if let Some(before) = before.filter(|_| refused && self.key == call.key) {
            self.key = *before;
        }
        cx.emit(call);
    }
}
