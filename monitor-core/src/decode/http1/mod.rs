//! HTTP/1.0 and HTTP/1.1 (RFC 9112) as seen from beside the wire.

mod body;
mod framing;
mod head;
mod known;
mod line;
mod message;
mod odd;
mod pairing;
mod request;
mod response;
mod resync;
mod switch;

use self::body::Body;
use self::head::{HeadReader, Parse, Step};
use self::message::{Answered, Asked, RequestFields, ResponseFields};
use self::pairing::{Answer, GiveUp, Pairing, Pending};
use self::resync::Resync;
use super::Counters;
use super::content::Prefix;
use super::context::Context;
use super::conversation::{Next, Switch};
use super::early::Early;
use crate::call::Anomalies;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// Both directions of a connection.
pub(in crate::decode) struct Connection {
    requests: Reader<Asked, RequestFields>,
    responses: Reader<Answered, ResponseFields>,
    pairing: Pairing,
    answer: Option<Answering>,
    /// Whether client bytes wait for an answer that may change the protocol.
    waits: bool,
    /// What is spoken from here on, and what the client has said of it.
    next: Option<Box<(Next, Early)>>,
}

/// One direction.
struct Reader<H, F> {
    state: State,
    head: HeadReader<H, F>,
    /// First byte of the current head.
    time: EventTime,
    /// For the next message, or the one under way.
    notes: Anomalies,
    /// The last message said that none follows.
    is_last: bool,
    /// The sender has ended.
    ended: bool,
}

enum State {
    Head,
    Body(Body),
    Resync(Box<Resync>),
    /// The last request may have changed the protocol: whose these bytes are its answer will tell.
    Wait(Box<Early>),
    /// Another protocol, or nothing that could be understood.
    Tunnel,
}

/// What came of reading at a head.
enum Read<H> {
    /// It goes on.
    More,
    /// It is whole.
    Head(H),
    /// These bytes, and what is left of the chunk, are none.
    NoHead(Vec<u8>),
}

/// A response under way.
struct Answering {
    answer: Answer,
    /// Whether it answers the front of the queue.
    paired: bool,
    /// It may answer a HEAD that was not seen and have no body whatever its head says: so many bytes
    /// of it so far are the beginning of another response.
    probe: Option<u8>,
    kept: Kept,
}

/// First bytes of a body.
enum Kept {
    /// They say nothing.
    Nothing,
    /// None has come. When all of them come at once they are read where they are.
    Waiting,
    Begun(Box<Prefix>),
}

impl<H, F: Clone> Reader<H, F> {
    fn new(midstream: bool) -> Reader<H, F> {
        let (state, notes) = if midstream {
            (State::Resync(Box::default()), Anomalies::MIDSTREAM)
        } else {
            (State::Head, Anomalies::empty())
        };
        let time = EventTime::default();
        let head = HeadReader::default();
        Reader { state, head, time, notes, is_last: false, ended: false }
    }

    /// Reads at a head: what came of it, and what is left of the chunk.
    fn read_head<'c, P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        time: EventTime,
        mut chunk: &'c [u8],
        limits: &Limits,
        counters: &mut Counters,
    ) -> (Read<H>, &'c [u8]) {
        if self.head.is_empty() {
            chunk = skip_empty_lines(chunk);
            if let [b' ' | b'\t', ..] = chunk {
                chunk = skip_space(chunk);
                self.notes |= Anomalies::LENIENT;
            }
            if chunk.is_empty() {
                return (Read::More, chunk);
            }
            self.time = time;
        }
        match self.head.read(parser, chunk, limits, counters) {
            Step::More => (Read::More, &[]),
            Step::Head(head, used) => (Read::Head(head), &chunk[used..]),
            Step::Implausible(bytes) => (Read::NoHead(bytes), chunk),
        }
    }

    /// What was noted for the message that begins, of which `is_last` says that it is the last.
    fn begin(&mut self, is_last: bool) -> Anomalies {
        let mut notes = std::mem::take(&mut self.notes);
        if std::mem::replace(&mut self.is_last, is_last) {
            // Strict readers have gone.
            notes |= Anomalies::LENIENT;
        }
        notes
    }

    /// After bytes that are no head the next one is searched for.
    fn search_after(&mut self, bytes: Vec<u8>, counters: &mut Counters) {
        counters.heads_bad += 1;
        self.notes |= Anomalies::BAD_HEAD;
        self.resync(Resync::after(bytes, self.time), counters);
    }

    fn resync(&mut self, resync: Resync, counters: &mut Counters) {
        counters.resyncs += 1;
        self.head.clear();
        self.state = State::Resync(Box::new(resync));
    }

    fn is_between_messages(&self) -> bool {
        match &self.state {
            State::Head => self.head.is_empty(),
            State::Resync(_) => true,
            State::Wait(early) => early.len() == 0,
            State::Body(_) | State::Tunnel => false,
        }
    }

    fn held_bytes(&self) -> usize {
        let resync = match &self.state {
            State::Resync(resync) => size_of::<Resync>() + resync.held_bytes(),
            State::Wait(early) => size_of::<Early>() + early.held_bytes(),
            State::Head | State::Body(_) | State::Tunnel => 0,
        };
        self.head.held_bytes() + resync
    }

    /// Looks for a message; gives what is left of the chunk once one was found.
    fn search<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &'c [u8],
        counters: &mut Counters,
    ) -> &'c [u8] {
        let State::Resync(resync) = &mut self.state else { return chunk };
        let Some(found) = resync.search(direction, time, chunk) else { return &[] };
        counters.skipped_bytes += found.skipped_bytes;
        if found.skipped_bytes == 0 {
            // The capture began late and yet missed nothing of this message.
            self.notes -= Anomalies::MIDSTREAM;
        }
        self.time = found.time;
        self.head.begin(found.line);
        self.state = State::Head;
        &chunk[found.used..]
    }
}

/// Empty lines before a message are passed over (RFC 9112, 2.2).
fn skip_empty_lines(chunk: &[u8]) -> &[u8] {
    let start = chunk.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &chunk[start.unwrap_or(chunk.len())..]
}

/// Space before a message, which only lenient readers pass over.
fn skip_space(chunk: &[u8]) -> &[u8] {
    let start = chunk.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &chunk[start.unwrap_or(chunk.len())..]
}

impl Connection {
    /// At its start, or somewhere in its middle.
    pub(in crate::decode) fn new(midstream: bool) -> Connection {
        Connection {
            requests: Reader::new(midstream),
            responses: Reader::new(midstream),
            pairing: Pairing::new(),
            answer: None,
            waits: true,
            next: None,
        }
    }

    /// At its start, after client bytes that are no request.
    pub(in crate::decode) fn answered(counters: &mut Counters) -> Connection {
        let mut connection = Connection::new(false);
        connection.requests.search_after(Vec::new(), counters);
        connection.pairing.miss_requests();
        connection
    }

    /// Memory held besides the connection itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        let prefix = match self.answer.as_ref().map(|answering| &answering.kept) {
            Some(Kept::Begun(prefix)) => size_of::<Prefix>() + prefix.held_bytes(),
            Some(Kept::Nothing | Kept::Waiting) | None => 0,
        };
        self.requests.held_bytes()
            + self.responses.held_bytes()
            + self.pairing.held_bytes()
            + prefix
    }

    /// No message is known in either direction.
    pub(in crate::decode) fn is_searching(&self) -> bool {
        matches!(self.requests.state, State::Resync(_))
            && matches!(self.responses.state, State::Resync(_))
    }

    /// Adds to the message under way in this direction, or to the next.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        match direction {
            Direction::ToServer => match self.pairing.open() {
                Some(request) => request.anomalies |= what,
                None => self.requests.notes |= what,
            },
            Direction::ToClient => match &mut self.answer {
                Some(answering) => answering.answer.anomalies |= what,
                None => self.responses.notes |= what,
            },
        }
    }

    /// Adds to the message under way in this direction, or else to the last one, if that is still here.
    pub(in crate::decode) fn note_last(&mut self, direction: Direction, what: Anomalies) {
        match direction {
            Direction::ToServer if self.requests.head.is_empty() => {
                if let Some(request) = self.pairing.last() {
                    request.anomalies |= what;
                }
            }
            Direction::ToClient if self.answer.is_none() && self.responses.head.is_empty() => {}
            Direction::ToServer | Direction::ToClient => self.note(direction, what),
        }
    }

    /// The next bytes of a direction.
    pub(in crate::decode) fn data<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> Option<Switch<'c>> {
        match direction {
            Direction::ToServer => {
                self.request_data(time, chunk, cx);
                None
            }
            Direction::ToClient => self.response_data(time, chunk, cx),
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
        match direction {
            Direction::ToServer => self.request_gap(time, bytes, cx),
            Direction::ToClient => {
                self.response_gap(bytes, cx);
                self.end_wait(cx);
            }
        }
    }

    /// The sender of a direction has ended it in good order.
    pub(in crate::decode) fn end(&mut self, direction: Direction, cx: &mut Context<'_>) {
        match direction {
            Direction::ToServer => {
                self.requests.ended = true;
                if let Some(request) = self.pairing.open() {
                    cut(&mut request.complete, &mut request.anomalies);
                    self.close_request(cx);
                }
                self.cut_request_head(cx);
            }
            Direction::ToClient => {
                self.responses.ended = true;
                self.cut_answer(true, Anomalies::empty(), cx);
                self.give_up(GiveUp::Whole, Anomalies::empty(), cx);
                self.end_wait(cx);
            }
        }
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(in crate::decode) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        if let Some(request) = self.pairing.open() {
            cut(&mut request.complete, &mut request.anomalies);
        }
        self.cut_answer(false, why, cx);
        self.stop_wait(cx);
        self.cut_request_head(cx);
        self.give_up(GiveUp::All, why, cx);
    }

    /// Gives out requests whose answer will not be known.
    fn give_up(&mut self, which: GiveUp, why: Anomalies, cx: &mut Context<'_>) {
        while let Some((mut request, answer)) = self.pairing.give_up(which) {
            request.anomalies |= why;
            self.emit(Some(request), answer, cx);
        }
    }

    fn emit(&self, mut request: Option<Pending>, answer: Option<Answer>, cx: &mut Context<'_>) {
        if let Some(request) = &mut request {
            request.read_body(cx.identifier);
        }
        pairing::emit(request, answer, cx);
    }
}

fn cut(complete: &mut bool, anomalies: &mut Anomalies) {
    *complete = false;
    *anomalies |= Anomalies::TRUNCATED;
}
