//! One direction: bytes to frames, frames to messages.

use super::Bench;
use super::extension::Agreed;
use super::frame::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Head, Opcode};
use super::inflate::Inflate;
use super::message::Message;
use super::search::Search;
use crate::call::Anomalies;
use crate::connection::Traffic;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// Heads in a row that cannot be: what is read is not where frames are.
const ABSURD_MAX: u8 = 3;

/// One direction of a connection.
pub(super) struct Reader {
    direction: Direction,
    state: State,
    /// A head that is not whole yet.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Its first byte.
    time: EventTime,
    message: Option<Message>,
    /// The beginning of a message may have been missed.
    in_doubt: bool,
    absurd: u8,
    rules: Rules,
    inflate: Option<Inflate>,
    /// For the next message.
    notes: Anomalies,
    /// What went over it.
    pub(super) traffic: Traffic,
    /// What was odd about it.
    pub(super) anomalies: Anomalies,
}

/// What the reserved bits may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rules {
    /// RSV1 is permessage-deflate's, or nobody's.
    Known,
    /// Another extension may use them.
    Other,
    /// The handshake was not seen.
    Unseen,
}

enum State {
    Head,
    Payload(Payload),
    /// Where the next frame begins is not known.
    Search(Box<Search>),
    /// Nothing may follow the close frame.
    Closed,
}

struct Payload {
    left: u64,
    /// Bytes before.
    at: u64,
    mask: Option<[u8; 4]>,
    part: Part,
}

/// What payload is part of.
enum Part {
    /// The message under way.
    Data { fin: bool },
    /// A close frame: its payload, unless bytes of it are missing.
    Close(Option<Vec<u8>>),
    /// Nothing that is looked at.
    Other,
}

/// Something is whole.
pub(super) enum Event {
    /// A message, as far as it came.
    Message(Message),
    /// A close frame with its payload, if all of it was seen.
    Close(Option<Vec<u8>>),
}

impl Reader {
    /// At the first frame of a connection.
    pub(super) fn new(direction: Direction, agreed: &Agreed) -> Reader {
        let rules = if agreed.others { Rules::Other } else { Rules::Known };
        let inflate = agreed.deflate.as_ref().map(|deflate| {
            Inflate::new(deflate.takeover(direction), deflate.window_bytes(direction))
        });
        Reader::with(direction, State::Head, rules, inflate)
    }

    /// Somewhere in a connection whose handshake was not seen.
    pub(super) fn midstream(direction: Direction, search: Box<Search>) -> Reader {
        let mut reader = Reader::with(direction, State::Search(search), Rules::Unseen, None);
        reader.in_doubt = true;
        reader.notes = Anomalies::MIDSTREAM;
        reader.anomalies = Anomalies::MIDSTREAM;
        reader
    }

    fn with(direction: Direction, state: State, rules: Rules, inflate: Option<Inflate>) -> Reader {
        Reader {
            direction,
            state,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            time: EventTime::default(),
            message: None,
            in_doubt: false,
            absurd: 0,
            rules,
            inflate,
            notes: Anomalies::empty(),
            traffic: Traffic::default(),
            anomalies: Anomalies::empty(),
        }
    }

    /// Memory held besides the reader itself, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let state = match &self.state {
            State::Search(search) => search.held_bytes(),
            State::Payload(Payload { part: Part::Close(reason), .. }) => {
                reason.as_ref().map_or(0, Vec::capacity)
            }
            State::Head | State::Payload(_) | State::Closed => 0,
        };
        state
            + self.inflate.as_ref().map_or(0, Inflate::held_bytes)
            + self.message.as_ref().map_or(0, Message::held_bytes)
    }

    /// Adds to the message under way, or to the next.
    pub(super) fn note(&mut self, what: Anomalies) {
        self.anomalies |= what;
        match &mut self.message {
            Some(message) => message.anomalies |= what,
            None => self.notes |= what,
        }
    }

    /// Why the next message may not be seen.
    pub(super) fn doubt(&self) -> Anomalies {
        match (&self.state, self.rules) {
            (State::Search(_), Rules::Unseen) => Anomalies::MIDSTREAM,
            (State::Search(_), Rules::Known | Rules::Other) => Anomalies::GAP,
            (State::Head | State::Payload(_) | State::Closed, _) => Anomalies::empty(),
        }
    }

    /// Gives up its window; true when there was one.
    pub(super) fn shed(&mut self) -> bool {
        let Some(inflate) = self.inflate.as_mut().filter(|it| it.held_bytes() > 0) else {
            return false;
        };
        inflate.lose();
        if let Some(message) = &mut self.message {
            message.lose_content();
        }
        true
    }

    /// Reads on until something is whole; `None` once all was read.
    pub(super) fn read(
        &mut self,
        time: EventTime,
        chunk: &mut &[u8],
        bench: &mut Bench,
        limits: &Limits,
    ) -> Option<Event> {
        loop {
            match &mut self.state {
                State::Head => {
                    let head = self.read_head(time, chunk)?;
                    if let Some(event) = self.begin_frame(&head, time, bench) {
                        return Some(event);
                    }
                }
                State::Payload(payload) if payload.left == 0 => {
                    if let Some(event) = self.end_frame(bench, limits) {
                        return Some(event);
                    }
                }
                State::Payload(_) if chunk.is_empty() => return None,
                State::Payload(_) => self.read_payload(time, chunk, bench, limits),
                State::Search(search) => {
                    // What it finds, and then the rest of the chunk, is for the caller to feed.
                    search.read(time, chunk);
                    return None;
                }
                State::Closed => {
                    if !chunk.is_empty() {
                        self.traffic.bytes_after_close += chunk.len() as u64;
                        self.anomalies |= Anomalies::BAD_CLOSE;
                    }
                    return None;
                }
            }
        }
    }

    /// What a search has found: bytes that begin with a frame, each run with its time.
    pub(super) fn found(&mut self) -> Option<Vec<(EventTime, Vec<u8>)>> {
        let State::Search(search) = &mut self.state else { return None };
        let found = search.take_found()?;
        self.traffic.undecoded_bytes += found.skipped_bytes;
        self.state = State::Head;
        Some(found.runs)
    }

    /// A whole head, if there is one.
    fn read_head(&mut self, time: EventTime, chunk: &mut &[u8]) -> Option<Head> {
        if self.head_len == 0 {
            if chunk.is_empty() {
                return None;
            }
            self.time = time;
            if let Some(head) = Head::parse(chunk) {
                *chunk = &chunk[head.bytes..];
                return Some(head);
            }
        }
        let before = usize::from(self.head_len);
        let room = &mut self.head[before..];
        let taken = chunk.len().min(room.len());
        room[..taken].copy_from_slice(&chunk[..taken]);
        if let Some(head) = Head::parse(&self.head[..before + taken]) {
            *chunk = &chunk[head.bytes - before..];
            self.head_len = 0;
            return Some(head);
        }
        *chunk = &chunk[taken..];
        // At most one byte less than a head has: it would have been whole.
        self.head_len = (before + taken) as u8;
        None
    }

    fn begin_frame(&mut self, head: &Head, time: EventTime, bench: &mut Bench) -> Option<Event> {
        let odd = self.odd(head);
        self.traffic.frames += 1;
        if !odd.is_empty() {
            self.note(odd);
        }
        let absurd = odd.contains(Anomalies::BAD_FRAME);
        self.absurd = if absurd { self.absurd + 1 } else { 0 };
        if self.absurd >= ABSURD_MAX || head.length >> 63 != 0 {
            let cut = self.cut();
            self.search();
            return cut;
        }
        let mut cut = None;
        let part = match head.opcode {
            Opcode::Text | Opcode::Binary => {
                cut = self.cut();
                if cut.is_some() {
                    self.note(Anomalies::BAD_FRAGMENT);
                }
                self.in_doubt = false;
                self.begin_message(head, bench);
                Part::Data { fin: head.fin }
            }
            Opcode::Continuation => {
                self.traffic.continuation.add(head.length);
                if self.message.is_some() {
                    Part::Data { fin: head.fin }
                } else {
                    if !self.in_doubt {
                        self.note(Anomalies::BAD_FRAGMENT);
                    }
                    self.in_doubt &= !head.fin;
                    Part::Other
                }
            }
            Opcode::Close => {
                self.traffic.close.add(head.length);
                Part::Close(Some(Vec::new()))
            }
            Opcode::Ping => {
                self.traffic.ping.add(head.length);
                Part::Other
            }
            Opcode::Pong => {
                self.traffic.pong.add(head.length);
                Part::Other
            }
            Opcode::Reserved => {
                self.traffic.reserved.add(head.length);
                Part::Other
            }
        };
        if let (Part::Data { .. }, Some(message)) = (&part, &mut self.message) {
            message.last = time;
        }
        self.state = State::Payload(Payload { left: head.length, at: 0, mask: head.mask, part });
        cut
    }

    /// What is wrong with a head.
    fn odd(&self, head: &Head) -> Anomalies {
        let mut odd = Anomalies::empty();
        if head.mask.is_some() != (self.direction == Direction::ToServer) {
            odd |= Anomalies::BAD_MASKING;
        }
        if !head.minimal {
            odd |= Anomalies::LENGTH_NOT_MINIMAL;
        }
        let control = head.opcode.is_control();
        let begins = matches!(head.opcode, Opcode::Text | Opcode::Binary);
        let rsv = match self.rules {
            Rules::Known => head.rsv23 || head.rsv1 && !(begins && self.inflate.is_some()),
            Rules::Unseen => head.rsv23 || head.rsv1 && !begins,
            Rules::Other => false,
        };
        if rsv
            || control && (!head.fin || head.length > CONTROL_BYTES_MAX)
            || head.opcode == Opcode::Reserved
            || head.length >> 63 != 0
        {
            odd |= Anomalies::BAD_FRAME;
        }
        odd
    }

    fn begin_message(&mut self, head: &Head, bench: &mut Bench) {
        let text = head.opcode == Opcode::Text;
        let frames = if text { &mut self.traffic.text } else { &mut self.traffic.binary };
        frames.add(head.length);
        let mut message =
            Message::new(text, self.time, std::mem::take(&mut self.notes), &mut bench.spare);
        let coded = head.rsv1 || head.rsv23;
        match &mut self.inflate {
            Some(inflate) if head.rsv1 && !head.rsv23 => {
                message.compressed = true;
                if !inflate.begin(&mut bench.idle) {
                    message.lose_content();
                }
            }
            Some(_) | None if coded => {
                message.compressed = head.rsv1;
                message.lose_content();
            }
            Some(_) | None => {}
        }
        self.message = Some(message);
    }

    fn read_payload(
        &mut self,
        time: EventTime,
        chunk: &mut &[u8],
        bench: &mut Bench,
        limits: &Limits,
    ) {
        let State::Payload(payload) = &mut self.state else { return };
        let taken = usize::try_from(payload.left).unwrap_or(usize::MAX).min(chunk.len());
        let (bytes, rest) = chunk.split_at(taken);
        *chunk = rest;
        match (&mut payload.part, &mut self.message) {
            (Part::Data { .. }, Some(message)) => {
                message.last = time;
                let frame = (payload.mask, payload.at);
                message.take(bytes, frame, self.inflate.as_mut(), bench, limits);
            }
            (Part::Close(Some(reason)), _) => {
                let room = (CONTROL_BYTES_MAX as usize).saturating_sub(reason.len());
                let kept = &bytes[..taken.min(room)];
                super::frame::unmask(payload.mask, payload.at, kept, reason);
            }
            (Part::Data { .. } | Part::Close(None) | Part::Other, _) => {}
        }
        payload.left -= taken as u64;
        payload.at += taken as u64;
    }

    fn end_frame(&mut self, bench: &mut Bench, limits: &Limits) -> Option<Event> {
        let State::Payload(payload) = std::mem::replace(&mut self.state, State::Head) else {
            return None;
        };
        match payload.part {
            Part::Data { fin: true } => {
                let mut message = self.message.take()?;
                message.end(self.inflate.as_mut(), bench, limits);
                self.traffic.count(&message);
                self.anomalies |= message.anomalies;
                Some(Event::Message(message))
            }
            Part::Close(payload) => {
                self.state = State::Closed;
                Some(Event::Close(payload))
            }
            Part::Data { fin: false } | Part::Other => None,
        }
    }

    /// The message under way gets no more bytes.
    pub(super) fn cut(&mut self) -> Option<Event> {
        let mut message = self.message.take()?;
        message.complete = false;
        message.anomalies |= Anomalies::TRUNCATED;
        if message.compressed
            && let Some(inflate) = &mut self.inflate
        {
            inflate.lose();
        }
        self.traffic.count(&message);
        self.anomalies |= message.anomalies;
        Some(Event::Message(message))
    }

    /// Bytes that are not there.
    pub(super) fn gap(
        &mut self,
        time: EventTime,
        bytes: u64,
        bench: &mut Bench,
        limits: &Limits,
    ) -> Option<Event> {
        self.anomalies |= Anomalies::GAP;
        let covered = match &mut self.state {
            State::Search(search) => {
                search.gap();
                self.traffic.undecoded_bytes += bytes;
                return None;
            }
            State::Closed => {
                self.traffic.bytes_after_close += bytes;
                return None;
            }
            State::Payload(payload) if bytes <= payload.left => {
                payload.left -= bytes;
                payload.at += bytes;
                true
            }
            State::Payload(_) | State::Head => false,
        };
        if covered {
            let State::Payload(payload) = &mut self.state else { return None };
            if let (Part::Data { .. }, Some(message)) = (&payload.part, &mut self.message) {
                message.last = time;
                message.skip(bytes, self.inflate.as_mut());
            }
            if let Part::Close(reason) = &mut payload.part {
                *reason = None;
            }
            return if payload.left == 0 { self.end_frame(bench, limits) } else { None };
        }
        self.traffic.undecoded_bytes += bytes + u64::from(self.head_len);
        let cut = self.cut().map(|event| match event {
            Event::Message(mut message) => {
                message.anomalies |= Anomalies::GAP;
                Event::Message(message)
            }
            Event::Close(payload) => Event::Close(payload),
        });
        if let Some(inflate) = &mut self.inflate {
            inflate.lose();
        }
        self.notes |= Anomalies::GAP;
        self.search();
        cut
    }

    /// Nothing follows: what is under way is cut off.
    pub(super) fn finish(&mut self) -> Option<Event> {
        match &self.state {
            State::Search(search) => self.traffic.undecoded_bytes += search.bytes(),
            State::Head | State::Payload(_) | State::Closed => {
                self.traffic.undecoded_bytes += u64::from(self.head_len);
            }
        }
        self.state = State::Closed;
        self.cut()
    }

    fn search(&mut self) {
        self.head_len = 0;
        self.absurd = 0;
        self.in_doubt = true;
        self.state = State::Search(Box::new(Search::new(self.direction, false)));
    }
}
