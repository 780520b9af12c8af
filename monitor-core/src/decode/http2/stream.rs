//! One stream: a request, its answer, and the call that they make.

use super::fields::{Answered, Asked};
use crate::call::{Anomalies, ApiCall, Operation, Outcome, Protocol, Quota, Request, Response};
use crate::decode::content::{Prefix, keeps};
use crate::decode::context::Context;
use crate::decode::conversation::Upgraded;
use crate::decode::grpc::{Flavour, Talk};
use crate::identity::{BODY_BYTES_MAX, Identified, Identifier, Style, leaks};
use crate::input::Direction;
use crate::time::EventTime;

/// A request and its answer, as far as they have come.
pub(super) struct Stream {
    /// First byte of the request; of the answer when the request was not seen.
    time: EventTime,
    /// Last byte of the request so far.
    last: EventTime,
    asked: Option<(Request, Identified)>,
    answer: Option<Answer>,
    /// What the client sent, then what the server sent.
    halves: [Half; 2],
    grpc: Option<Box<Talk>>,
    /// The beginning of a reply that says how it went.
    prefix: Option<Box<Prefix>>,
    /// The beginning of a request's content, until it has been read.
    text: Vec<u8>,
    is_read: bool,
    pub(super) anomalies: Anomalies,
    /// CONNECT: a good answer begins something else.
    tunnel: bool,
    /// The request said what its content is, or what it said is known to be nothing.
    is_typed: bool,
    /// HEAD, whose answer names the length of what is not there.
    bodiless: bool,
    /// What [`Stream::held_bytes`] was when it was last added up.
    pub(super) held_bytes: usize,
}

/// What one side sent in a stream.
#[derive(Clone, Copy, Default)]
struct Half {
    /// Its head was seen.
    begun: bool,
    ended: bool,
    /// Bytes of it are missing, or may be.
    damaged: bool,
    body_bytes: u64,
    content_length: Option<u64>,
}

struct Answer {
    /// First byte.
    time: EventTime,
    /// `None` when it is not known.
    status: Option<u16>,
    quota: Option<Quota>,
}

impl Stream {
    /// Nothing but that there is something.
    pub(super) fn new(time: EventTime) -> Stream {
        Stream {
            time,
            last: time,
            asked: None,
            answer: None,
            halves: [Half::default(); 2],
            grpc: None,
            prefix: None,
            text: Vec::new(),
            is_read: false,
            anomalies: Anomalies::empty(),
            tunnel: false,
            is_typed: false,
            bodiless: false,
            held_bytes: 0,
        }
    }

    /// The request of an upgrade, which is over (RFC 7540, 3.2).
    pub(super) fn upgraded(upgraded: Upgraded) -> Stream {
        let mut stream = Stream::new(upgraded.time);
        stream.last = upgraded.last;
        stream.anomalies = upgraded.anomalies;
        stream.bodiless = upgraded.request.method == "HEAD";
        stream.is_typed = true;
        let half = &mut stream.halves[0];
        (half.begun, half.ended) = (true, true);
        half.damaged = !upgraded.body_complete;
        half.body_bytes = upgraded.request.body_bytes;
        stream.asked = Some((upgraded.request, upgraded.identified));
        stream
    }

    /// Memory held, bytes.
    pub(super) fn measure(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |(request, identified)| {
            let optional = [&request.host, &request.user_agent, &identified.symbol];
            request.method.len()
                + request.target.len()
                + request.path.len()
                + optional.into_iter().flatten().map(|text| text.len()).sum::<usize>()
                + identified.object_ids.iter().map(|id| id.len() + 24).sum::<usize>()
        });
        let grpc = self.grpc.as_ref().map_or(0, |grpc| grpc.held_bytes());
        size_of::<Stream>()
            + asked
            + grpc
            + self.text.capacity()
            + self.prefix.as_ref().map_or(0, |prefix| size_of::<Prefix>() + prefix.held_bytes())
    }

    /// The client's head was seen.
    pub(super) fn is_asked(&self) -> bool {
        self.halves[0].begun
    }

    fn style(&self) -> Style {
        self.asked.as_ref().map_or(Style::GENERIC, |(_, identified)| identified.style)
    }

    /// The server's head was seen.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The request's head.
    pub(super) fn ask(&mut self, asked: Asked, time: EventTime, last: EventTime) {
        let Asked { request, identified, tunnel, content_length, content_type } = asked;
        if self.answer.is_none() {
            self.time = time;
        }
        self.last = last;
        self.tunnel = tunnel;
        self.bodiless = request.method == "HEAD";
        self.halves[0].begun = true;
        self.halves[0].content_length = content_length;
        let is_known = !self.anomalies.contains(Anomalies::UNKNOWN_HEADER);
        self.is_typed = content_type.is_some() || is_known;
        let flavour = content_type.as_deref().and_then(Flavour::of);
        self.grpc = flavour.map(|flavour| Box::new(Talk::new(flavour)));
        self.asked = Some((request, identified));
    }

    /// A head of the server that begins its answer. Interim ones are no answer.
    pub(super) fn answer(&mut self, mut answered: Answered, time: EventTime, cx: &Context<'_>) {
        if matches!(answered.status, Some(100..=199)) {
            return;
        }
        match (&mut self.grpc, answered.content_type.as_deref().map(Flavour::of)) {
            (Some(talk), Some(Some(flavour))) => talk.answers_in(flavour),
            (Some(talk), Some(None)) => talk.answers_otherwise(),
            // The request's content type was not seen.
            (None, Some(Some(flavour))) if !self.is_typed => {
                let talk = self.grpc.insert(Box::new(Talk::new(flavour)));
                if self.halves[0].body_bytes > 0 {
                    talk.miss_sent(u64::MAX);
                }
            }
            (_, None) | (None, Some(_)) => {}
        }
        if self.tunnel && matches!(answered.status, Some(200..=299)) {
            self.anomalies |= Anomalies::UPGRADED;
        }
        if !self.is_asked() && self.answer.is_none() && self.halves[0].body_bytes == 0 {
            self.time = time;
        }
        self.answer = Some(Answer { time, status: answered.status, quota: answered.quota });
        if let Some(redirect) = answered.redirect.take()
            && let Some((_, identified)) = &mut self.asked
        {
            cx.identifier.note_redirect(identified, *redirect);
        }
        let asked = self.asked.as_ref().map(|(_, identified)| (identified.style, identified.op));
        let asked = asked.unwrap_or((Style::GENERIC, Operation::Public));
        let keeps =
            |status| self.grpc.is_none() && keeps(cx.identifier, asked, status, &answered.coding);
        self.prefix = (answered.status.is_some_and(keeps))
            .then(|| Box::new(Prefix::new(answered.coding, cx.limits.body_prefix_bytes)));
        let half = &mut self.halves[1];
        half.begun = true;
        if !self.bodiless && answered.status != Some(304) {
            half.content_length = answered.content_length;
        }
        self.trailers(answered);
    }

    /// Fields after the server's content, or in its only head.
    pub(super) fn trailers(&mut self, answered: Answered) {
        if let Some(talk) = &mut self.grpc {
            talk.end(answered.grpc_status, answered.grpc_message);
        } else if answered.grpc_status.is_some() && !self.is_typed {
            let mut talk = Talk::new(Flavour::Plain);
            talk.miss_sent(u64::MAX);
            talk.miss_received(u64::MAX);
            talk.end(answered.grpc_status, answered.grpc_message);
            self.grpc = Some(Box::new(talk));
        }
    }

    /// Content; true when more is held than before.
    pub(super) fn take(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: &[u8],
        identifier: &Identifier,
    ) -> bool {
        self.halves[direction as usize].body_bytes += bytes.len() as u64;
        match direction {
            Direction::ToServer => {
                self.last = time;
                match &mut self.grpc {
                    Some(talk) => talk.send(bytes),
                    None if self.is_read => {}
                    None => {
                        let room = BODY_BYTES_MAX - self.text.len();
                        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
                        if self.text.len() == BODY_BYTES_MAX {
                            self.read_text(identifier);
                        }
                        return true;
                    }
                }
            }
            Direction::ToClient => {
                if let Some(talk) = &mut self.grpc {
                    talk.receive(bytes);
                }
                if let Some(prefix) = &mut self.prefix {
                    let before = prefix.held_bytes();
                    prefix.take(bytes);
                    return prefix.held_bytes() != before;
                }
            }
        }
        false
    }

    /// No more content of the request follows what there is of it.
    fn read_text(&mut self, identifier: &Identifier) {
        self.is_read = true;
        let text = std::mem::take(&mut self.text);
        if let Some((request, identified)) = &mut self.asked
            && !text.is_empty()
        {
            identifier.read_body(request, identified, &text);
            self.anomalies |= identified.anomalies;
        }
    }

    /// Content that is missing.
    pub(super) fn miss(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        identifier: &Identifier,
    ) {
        self.halves[direction as usize].body_bytes += bytes;
        self.damage(direction, Anomalies::GAP);
        if let Some(talk) = &mut self.grpc {
            match direction {
                Direction::ToServer => talk.miss_sent(bytes),
                Direction::ToClient => talk.miss_received(bytes),
            }
        }
        match (direction, &mut self.prefix) {
            (Direction::ToServer, _) => {
                self.last = time;
                self.read_text(identifier);
            }
            (Direction::ToClient, Some(prefix)) => prefix.end(),
            (Direction::ToClient, None) => {}
        }
    }

    /// Bytes of a side are missing, or may be.
    pub(super) fn damage(&mut self, direction: Direction, why: Anomalies) {
        let half = &mut self.halves[direction as usize];
        if !half.ended {
            half.damaged = true;
            self.anomalies |= why;
        }
    }

    /// A side has ended.
    pub(super) fn end(&mut self, direction: Direction, time: EventTime) {
        self.halves[direction as usize].ended = true;
        if direction == Direction::ToServer {
            self.last = time;
        }
    }

    /// Whether the call is over. `may_ask`: a request may still turn up.
    pub(super) fn is_over(&self, may_ask: bool) -> bool {
        let [request, response] = &self.halves;
        // The end of a request may have been missed; an answer that has ended says enough.
        let asked = request.ended || request.damaged || (!request.begun && !may_ask);
        response.ended && asked
    }

    /// The record; the stream is over or will not be heard of again.
    pub(super) fn into_call(mut self, id: u32, cx: &mut Context<'_>) -> Option<ApiCall> {
        let [request_half, response_half] = self.halves;
        self.read_text(cx.identifier);
        self.check_lengths();
        for half in self.halves {
            if half.begun && !half.ended && !self.anomalies.contains(Anomalies::STREAM_RESET) {
                self.anomalies |= Anomalies::TRUNCATED;
            }
        }
        if self.asked.is_none() && self.answer.is_none() && response_half.body_bytes == 0 {
            return None;
        }
        if self.asked.is_none() && !self.anomalies.contains(Anomalies::BAD_HEADER_BLOCK) {
            self.anomalies |= Anomalies::UNPAIRED_RESPONSE;
        }
        let whole = |half: &Half| half.begun && half.ended && !half.damaged;
        let complete = self.asked.is_some()
            && whole(&request_half)
            && whole(&response_half)
            && !self.anomalies.intersects(Anomalies::UNKNOWN_HEADER | Anomalies::BAD_HEADER_BLOCK);
        let answer = self.answer.as_ref().filter(|_| self.asked.is_some());
        let latency_us = answer.map(|answer| answer.time.micros_since(self.last));
        let style = self.style();
        // Content without its head is an answer all the same.
        let status = self.answer.as_ref().map(|answer| answer.status);
        let status = status.or((response_half.body_bytes > 0).then_some(None));
        let outcome = match (&self.grpc, status.flatten()) {
            (Some(talk), status) => {
                talk.outcome(cx.identifier, style, status, whole(&response_half))
            }
            (None, Some(status)) => {
                let text = self.prefix.as_mut().map(|prefix| prefix.bytes()).unwrap_or_default();
                self.anomalies |= leaks(text);
                let asked = self.asked.as_mut().map(|(_, identified)| identified);
                Some(cx.identifier.read_answer(asked, style, status, text))
            }
            (None, None) => None,
        };
        let quota = self.answer.as_ref().and_then(|answer| answer.quota);
        let response =
            status.map(|status| Response { status, body_bytes: response_half.body_bytes, quota });
        if let Some(prefix) = &mut self.prefix {
            self.anomalies |= prefix.anomalies();
        }
        let outcome: Option<Outcome> = outcome.filter(|_| response.is_some());
        let (request, identified) = self.asked.unzip();
        let Identified { key, op, symbol, object_ids, token, mut detail, .. } =
            identified.unwrap_or_default();
        let request =
            request.map(|request| Request { body_bytes: request_half.body_bytes, ..request });
        let path = request.as_ref().map_or("", |request| request.path.as_str());
        let grpc = self.grpc.as_ref().map(|talk| Box::new(talk.record(path)));
        if let Some(fields) = self.grpc.as_ref().and_then(|talk| talk.fields(cx.identifier)) {
            detail.get_or_insert_default().fields = Some(fields);
        }
        Some(ApiCall {
            time: self.time,
            flow: cx.flow(),
            protocol: if grpc.is_some() { Protocol::Grpc } else { Protocol::Http2 },
            request,
            response,
            latency_us,
            key,
            op,
            symbol,
            object_ids,
            outcome,
            stream_id: Some(id),
            grpc,
            token,
            detail,
            complete,
            anomalies: self.anomalies,
        })
    }

    /// A length that is named must be that of the content (RFC 9113, 8.1.1).
    fn check_lengths(&mut self) {
        for half in self.halves {
            let differs = half.content_length.is_some_and(|length| length != half.body_bytes);
            if differs && half.ended && !half.damaged {
                self.anomalies |= Anomalies::BAD_CONTENT_LENGTH;
            }
        }
    }
}
