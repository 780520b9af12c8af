//! HTTP/1.0 and HTTP/1.1 (RFC 9112) as seen from beside the wire.

mod body;
mod framing;
mod head;
mod message;
mod pairing;
mod resync;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use self::body::{Body, End};
use self::head::{HeadReader, Step};
use self::message::{Answered, Asked, Content, Kind, Requests, Responses};
use self::pairing::{Answer, Pairing, Pending, Turn};
use self::resync::Resync;
use super::Counters;
use crate::call::{Anomalies, ApiCall, Flow, Outcome, Response};
use crate::identity::Identifier;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// How a response begins, as far as all are alike.
const RESPONSE_START: &[u8] = b"HTTP/1.";

/// What a connection works with and does not own.
pub(crate) struct Context<'a> {
    /// Bounds.
    pub(crate) limits: &'a Limits,
    /// Finds credentials.
    pub(crate) identifier: &'a Identifier,
    /// What happened.
    pub(crate) counters: &'a mut Counters,
    /// Where finished calls go.
    pub(crate) calls: &'a mut VecDeque<ApiCall>,
    /// The connection as its calls name it.
    pub(crate) flow: &'a Arc<Flow>,
}

/// Both directions of a connection.
pub(crate) struct Connection {
    requests: Reader<Asked>,
    responses: Reader<Answered>,
    pairing: Pairing,
    answer: Option<Answering>,
}

/// One direction.
struct Reader<H> {
    state: State,
    head: HeadReader<H>,
    /// First byte of the current head.
    time: EventTime,
    /// For the next message, or the one under way.
    notes: Anomalies,
    /// The sender has ended.
    ended: bool,
}

enum State {
    Head,
    Body(Body),
    Resync(Resync),
    /// Another protocol, or nothing that could be understood.
    Tunnel,
}

/// A response under way.
struct Answering {
    answer: Answer,
    /// Whether it answers the front of the queue.
    paired: bool,
    /// It may answer a HEAD that was not seen and have no body whatever its head says: so many bytes
    /// of it so far are the beginning of another response.
    probe: Option<usize>,
    /// First bytes of an error body.
    prefix: Vec<u8>,
    /// Whether more of it may be kept.
    keeps_prefix: bool,
}

impl<H> Reader<H> {
    fn new(midstream: bool) -> Reader<H> {
        let (state, notes) = if midstream {
            (State::Resync(Resync::default()), Anomalies::MIDSTREAM)
        } else {
            (State::Head, Anomalies::empty())
        };
        let time = EventTime::default();
        Reader { state, head: HeadReader::default(), time, notes, ended: false }
    }

    fn resync(&mut self, resync: Resync, counters: &mut Counters) {
        counters.resyncs += 1;
        self.head.clear();
        self.state = State::Resync(resync);
    }

    fn is_between_messages(&self) -> bool {
        match self.state {
            State::Head => self.head.is_empty(),
            State::Resync(_) => true,
            State::Body(_) | State::Tunnel => false,
        }
    }

    fn held_bytes(&self) -> usize {
        let resync = match &self.state {
            State::Resync(resync) => resync.held_bytes(),
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

impl Connection {
    /// At its start, or somewhere in its middle.
    pub(crate) fn new(midstream: bool) -> Connection {
        Connection {
            requests: Reader::new(midstream),
            responses: Reader::new(midstream),
            pairing: Pairing::new(),
            answer: None,
        }
    }

    /// Memory held besides the connection itself, bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let prefix = self.answer.as_ref().map_or(0, |answer| answer.prefix.capacity());
        self.requests.held_bytes()
            + self.responses.held_bytes()
            + self.pairing.held_bytes()
            + prefix
    }

    /// Adds to the message under way in this direction, or to the next.
    pub(crate) fn note(&mut self, direction: Direction, what: Anomalies) {
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

    /// The next bytes of a direction.
    pub(crate) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        match direction {
            Direction::ToServer => self.request_data(time, chunk, cx),
            Direction::ToClient => self.response_data(time, chunk, cx),
        }
    }

    /// Bytes of a direction that are not there.
    pub(crate) fn gap(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        cx: &mut Context<'_>,
    ) {
        match direction {
            Direction::ToServer => self.request_gap(time, bytes, cx),
            Direction::ToClient => self.response_gap(bytes, cx),
        }
    }

    /// The sender of a direction has ended it in good order.
    pub(crate) fn end(&mut self, direction: Direction, cx: &mut Context<'_>) {
        match direction {
            Direction::ToServer => {
                self.requests.ended = true;
                if let Some(request) = self.pairing.open() {
                    cut(&mut request.complete, &mut request.anomalies);
                    self.close_request(cx);
                }
            }
            Direction::ToClient => {
                self.responses.ended = true;
                self.cut_answer(true, Anomalies::empty(), cx);
                self.give_up(true, Anomalies::empty(), cx);
            }
        }
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(crate) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        if let Some(request) = self.pairing.open() {
            cut(&mut request.complete, &mut request.anomalies);
        }
        self.cut_answer(false, why, cx);
        self.give_up(true, why, cx);
    }

    fn request_data(&mut self, time: EventTime, mut chunk: &[u8], cx: &mut Context<'_>) {
        while !chunk.is_empty() {
            match &mut self.requests.state {
                State::Tunnel => {
                    cx.counters.tunnel_bytes += chunk.len() as u64;
                    return;
                }
                State::Resync(_) => {
                    chunk = self.requests.search(Direction::ToServer, time, chunk, cx.counters);
                }
                State::Head => chunk = self.request_head(time, chunk, cx),
                State::Body(body) => {
                    let mut odd = Anomalies::empty();
                    let progress = body.advance(chunk, &mut odd);
                    chunk = &chunk[progress.used..];
                    if let Some(request) = self.pairing.open() {
                        request.last = request.last.max(time);
                        request.anomalies |= odd;
                        if let Some((asked, _)) = &mut request.asked {
                            asked.body_bytes += progress.content.len() as u64;
                        }
                        request.complete &= progress.end != End::Broken;
                    }
                    self.request_body_end(progress.end, cx);
                }
            }
        }
    }

    /// Reads at a request head; gives what is left of the chunk.
    fn request_head<'c>(
        &mut self,
        time: EventTime,
        chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> &'c [u8] {
        let reader = &mut self.requests;
        let mut chunk = chunk;
        if reader.head.is_empty() {
            chunk = skip_empty_lines(chunk);
            if chunk.is_empty() {
                return chunk;
            }
            reader.time = time;
        }
        match reader.head.read(&Requests(cx.identifier), chunk, cx.limits, cx.counters) {
            Step::More => &[],
            Step::Implausible(bytes) => {
                cx.counters.heads_bad += 1;
                reader.resync(Resync::after(bytes, reader.time), cx.counters);
                self.pairing.miss_requests();
                chunk
            }
            Step::Head(head, used) => {
                self.begin_request(head, time, cx);
                &chunk[used..]
            }
        }
    }

    fn begin_request(&mut self, mut asked: Asked, time: EventTime, cx: &mut Context<'_>) {
        let reader = &mut self.requests;
        let body = asked.body();
        asked.framing.odd |= mem::take(&mut reader.notes);
        let request = Pending::new(asked, reader.time, time, matches!(body, Ok(Some(_))));
        let open = request.open;
        let turn = match &self.answer {
            Some(Answering { probe: Some(_), .. }) => Turn::Between,
            Some(answering) if answering.paired => Turn::Paired,
            Some(_) => Turn::Unpaired,
            None if self.responses.is_between_messages() => Turn::Between,
            None => Turn::Paired,
        };
        let refused = self.pairing.ask(request, turn, cx.limits.pipeline_max);
        if let Some(mut request) = refused {
            cx.counters.pipeline_overflows += 1;
            request.anomalies |= Anomalies::PIPELINE_OVERFLOW;
            self.emit(Some(request), None, cx);
        }
        match body {
            Ok(Some(body)) => self.requests.state = State::Body(body),
            Ok(None) => {}
            Err(()) => {
                self.requests.resync(Resync::default(), cx.counters);
                self.pairing.miss_requests();
            }
        }
        if !open {
            self.close_request(cx);
        }
    }

    fn request_body_end(&mut self, end: End, cx: &mut Context<'_>) {
        match end {
            End::More => return,
            End::Complete => self.requests.state = State::Head,
            End::Broken => {
                self.requests.resync(Resync::default(), cx.counters);
                self.pairing.miss_requests();
            }
        }
        self.close_request(cx);
    }

    fn request_gap(&mut self, time: EventTime, bytes: u64, cx: &mut Context<'_>) {
        let end = match &mut self.requests.state {
            State::Tunnel => {
                cx.counters.tunnel_bytes += bytes;
                return;
            }
            State::Resync(resync) => {
                resync.gap();
                self.pairing.miss_requests();
                return;
            }
            State::Head => {
                cx.counters.heads_cut += u64::from(!self.requests.head.is_empty());
                End::Broken
            }
            State::Body(body) => {
                let skipped = body.skip(bytes);
                if let Some(request) = self.pairing.open() {
                    request.last = request.last.max(time);
                    request.anomalies |= Anomalies::GAP;
                    request.complete = false;
                    if let Some((asked, _)) = &mut request.asked {
                        asked.body_bytes += skipped.content;
                    }
                }
                if skipped.beyond > 0 { End::Broken } else { skipped.end }
            }
        };
        self.request_body_end(end, cx);
    }

    /// The request under way gets no more bytes.
    fn close_request(&mut self, cx: &mut Context<'_>) {
        if let Some((request, answer)) = self.pairing.close_request() {
            self.emit(Some(request), answer, cx);
        } else if self.responses.ended {
            self.give_up(true, Anomalies::empty(), cx);
        }
    }

    fn response_data(&mut self, time: EventTime, mut chunk: &[u8], cx: &mut Context<'_>) {
        while !chunk.is_empty() {
            match &mut self.responses.state {
                State::Tunnel => {
                    cx.counters.tunnel_bytes += chunk.len() as u64;
                    return;
                }
                State::Resync(_) => {
                    chunk = self.responses.search(Direction::ToClient, time, chunk, cx.counters);
                }
                State::Head => chunk = self.response_head(time, chunk, cx),
                State::Body(_) => {
                    let probe = self.answer.as_mut().and_then(|answering| answering.probe.as_mut());
                    chunk = match probe {
                        Some(_) => self.probe(time, chunk, cx),
                        None => self.response_body(chunk, cx),
                    };
                }
            }
        }
    }

    /// Reads at a response body; gives what is left of the chunk.
    fn response_body<'c>(&mut self, chunk: &'c [u8], cx: &mut Context<'_>) -> &'c [u8] {
        let State::Body(body) = &mut self.responses.state else { return chunk };
        let mut odd = Anomalies::empty();
        let progress = body.advance(chunk, &mut odd);
        if let Some(answering) = &mut self.answer {
            answering.take(progress.content, cx.limits.body_prefix_bytes);
            answering.answer.anomalies |= odd;
            answering.answer.complete &= progress.end != End::Broken;
        }
        self.response_body_end(progress.end, Anomalies::BAD_CHUNK, cx);
        &chunk[progress.used..]
    }

    /// Looks whether the response has a body or is followed by another one.
    fn probe<'c>(&mut self, time: EventTime, chunk: &'c [u8], cx: &mut Context<'_>) -> &'c [u8] {
        let Some(Answering { probe: Some(seen), .. }) = &mut self.answer else { return chunk };
        let start = *seen;
        if start == 0 {
            self.responses.time = time;
        }
        let same = chunk.iter().zip(&RESPONSE_START[start..]).take_while(|(a, b)| a == b).count();
        *seen += same;
        if *seen == RESPONSE_START.len() {
            self.finish_answer(cx);
            self.responses.state = State::Head;
            self.responses.head.begin(RESPONSE_START.into());
            return &chunk[same..];
        }
        if same == chunk.len() {
            return &[];
        }
        self.end_probe(cx);
        chunk
    }

    /// The response has a body, and what was probed belongs to it. A request that came meanwhile came
    /// before its turn, so it may not be the next in turn either.
    fn end_probe(&mut self, cx: &mut Context<'_>) {
        let Some(answering) = &mut self.answer else { return };
        let Some(seen) = answering.probe.take() else { return };
        let mut early = &RESPONSE_START[..seen];
        while !early.is_empty() {
            early = match self.responses.state {
                State::Body(_) => self.response_body(early, cx),
                State::Head | State::Resync(_) | State::Tunnel => return,
            };
        }
        if self.pairing.front().is_some() {
            self.pairing.miss_turn();
            self.give_up(false, Anomalies::empty(), cx);
        }
    }

    /// Reads at a response head; gives what is left of the chunk.
    fn response_head<'c>(
        &mut self,
        time: EventTime,
        chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> &'c [u8] {
        let reader = &mut self.responses;
        let mut chunk = chunk;
        if reader.head.is_empty() {
            chunk = skip_empty_lines(chunk);
            if chunk.is_empty() {
                return chunk;
            }
            reader.time = time;
        }
        match reader.head.read(&Responses, chunk, cx.limits, cx.counters) {
            Step::More => &[],
            Step::Implausible(bytes) => {
                cx.counters.heads_bad += 1;
                reader.resync(Resync::after(bytes, reader.time), cx.counters);
                self.lose_responses(Anomalies::BAD_HEAD, cx);
                chunk
            }
            Step::Head(head, used) => {
                self.begin_response(head, cx);
                &chunk[used..]
            }
        }
    }

    fn begin_response(&mut self, head: Answered, cx: &mut Context<'_>) {
        let reader = &mut self.responses;
        if head.status == 0 {
            // What it was and where it ends cannot be told.
            reader.resync(Resync::default(), cx.counters);
            self.lose_responses(head.framing.odd, cx);
            return;
        }
        let front = self.pairing.front();
        let paired = front.is_some();
        let content = head.content(front.map_or(Kind::Other, |request| request.kind));
        let mut anomalies = head.framing.odd;
        let body = match content {
            // What was noted concerns the response that follows.
            Content::Interim => {
                reader.notes |= anomalies;
                return;
            }
            Content::Nothing => None,
            Content::Body(body) => Some(body),
            Content::Tunnel => {
                anomalies |= Anomalies::UPGRADED;
                cx.counters.upgraded_flows += 1;
                None
            }
        };
        if head.framing.coding == framing::Coding::Other && body == Some(Body::UntilClose) {
            anomalies |= Anomalies::BAD_TRANSFER_ENCODING;
        }
        anomalies |= mem::take(&mut reader.notes);
        self.answer = Some(Answering {
            answer: Answer {
                time: reader.time,
                response: Response { status: head.status, body_bytes: 0 },
                protocol: head.protocol,
                outcome: Outcome::Ok,
                anomalies,
                complete: true,
            },
            paired,
            probe: (!paired).then_some(0),
            prefix: Vec::new(),
            keeps_prefix: head.status >= 400,
        });
        match body {
            Some(body) => reader.state = State::Body(body),
            None => self.finish_answer(cx),
        }
        if content == Content::Tunnel {
            self.tunnel(cx);
        }
    }

    /// From here on another protocol is spoken. The client may have begun to already.
    fn tunnel(&mut self, cx: &mut Context<'_>) {
        self.give_up(true, Anomalies::UPGRADED, cx);
        self.requests.head.clear();
        self.requests.state = State::Tunnel;
        self.responses.state = State::Tunnel;
    }

    fn response_body_end(&mut self, end: End, why: Anomalies, cx: &mut Context<'_>) {
        match end {
            End::More => {}
            End::Complete => {
                self.responses.state = State::Head;
                self.finish_answer(cx);
            }
            End::Broken => {
                self.responses.resync(Resync::default(), cx.counters);
                self.finish_answer(cx);
                self.lose_responses(why, cx);
            }
        }
    }

    fn response_gap(&mut self, bytes: u64, cx: &mut Context<'_>) {
        match &mut self.responses.state {
            State::Tunnel => cx.counters.tunnel_bytes += bytes,
            State::Resync(resync) => {
                resync.gap();
                self.lose_responses(Anomalies::GAP, cx);
            }
            State::Head => {
                cx.counters.heads_cut += u64::from(!self.responses.head.is_empty());
                self.responses.resync(Resync::default(), cx.counters);
                self.lose_responses(Anomalies::GAP, cx);
            }
            State::Body(_) => {
                self.end_probe(cx);
                let State::Body(body) = &mut self.responses.state else { return };
                let skipped = body.skip(bytes);
                if let Some(answering) = &mut self.answer {
                    answering.answer.response.body_bytes += skipped.content;
                    answering.answer.anomalies |= Anomalies::GAP;
                    answering.answer.complete = false;
                    answering.keeps_prefix = false;
                }
                let end = if skipped.beyond > 0 { End::Broken } else { skipped.end };
                self.response_body_end(end, Anomalies::GAP, cx);
            }
        }
    }

    /// It is not known any more which response is next: no request in flight can be paired.
    fn lose_responses(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        self.pairing.miss_responses();
        self.give_up(false, why, cx);
    }

    /// The response under way gets no more bytes. `in_order`: the server ended it with a FIN.
    fn cut_answer(&mut self, in_order: bool, why: Anomalies, cx: &mut Context<'_>) {
        self.end_probe(cx);
        if let Some(answering) = &mut self.answer {
            answering.answer.anomalies |= why;
            let whole = in_order && matches!(self.responses.state, State::Body(Body::UntilClose));
            if !whole {
                cut(&mut answering.answer.complete, &mut answering.answer.anomalies);
            }
            self.finish_answer(cx);
        }
        if !matches!(self.responses.state, State::Tunnel) {
            cx.counters.heads_cut += u64::from(!self.responses.head.is_empty());
            self.responses.head.clear();
        }
    }

    fn finish_answer(&mut self, cx: &mut Context<'_>) {
        let Some(Answering { mut answer, paired, prefix, .. }) = self.answer.take() else { return };
        let style = self.pairing.front().filter(|_| paired).map(|request| request.style());
        let style = style.unwrap_or(crate::identity::Style::Generic);
        answer.outcome = cx.identifier.outcome(style, answer.response.status, &prefix);
        if let Some((request, answer)) = self.pairing.answer(answer, paired) {
            self.emit(request, Some(answer), cx);
        }
    }

    /// Gives out requests whose answer will not be known.
    fn give_up(&mut self, all: bool, why: Anomalies, cx: &mut Context<'_>) {
        while let Some((mut request, answer)) = self.pairing.give_up(all) {
            request.anomalies |= why;
            self.emit(Some(request), answer, cx);
        }
    }

    fn emit(&self, request: Option<Pending>, answer: Option<Answer>, cx: &mut Context<'_>) {
        cx.counters.requests_unanswered += u64::from(answer.is_none());
        cx.counters.responses_unpaired += u64::from(request.is_none());
        cx.counters.calls += 1;
        cx.calls.extend(pairing::call(Arc::clone(cx.flow), request, answer));
    }
}

impl Answering {
    fn take(&mut self, content: &[u8], prefix_bytes_max: usize) {
        self.answer.response.body_bytes += content.len() as u64;
        if self.keeps_prefix {
            let room = prefix_bytes_max.saturating_sub(self.prefix.len()).min(content.len());
            self.prefix.extend_from_slice(&content[..room]);
        }
    }
}

fn cut(complete: &mut bool, anomalies: &mut Anomalies) {
    *complete = false;
    *anomalies |= Anomalies::TRUNCATED;
}
