//! Which response answers which request.
//!
//! HTTP/1 answers in order, so counting is enough as long as every message is seen. After a gap that
//! may hide messages, pairing is in doubt. Requests that came before the gap keep their place; of what
//! comes after it nothing is paired until the client shows where it stands: a client that waits for
//! each answer before it asks again (every client but pipelining ones) has had all its answers when it
//! asks, so its next request opens a new count. A client that was seen to pipeline shows nothing of
//! the kind, and the rest of such a connection stays unpaired.

use std::collections::VecDeque;

use super::message::{Asked, GrpcAnswer, Kind};
use super::switch::Offer;
use crate::call::{Anomalies, ApiCall, Operation, Outcome, Protocol, Request, Response};
use crate::decode::context::Context;
use crate::decode::grpc::Talk;
use crate::identity::{BODY_BYTES_MAX, Identified, Identifier, Style};
use crate::time::EventTime;

/// A request that has no complete answer.
pub(super) struct Pending {
    pub(super) time: EventTime,
    /// Capture of its last byte so far.
    pub(super) last: EventTime,
    pub(super) asked: Option<Box<(Request, Identified)>>,
    pub(super) protocol: Protocol,
    pub(super) kind: Kind,
    /// Other protocols that it offers to change to.
    pub(super) offer: Option<Box<Offer>>,
    /// The messages of a gRPC-Web call.
    pub(super) grpc: Option<Box<Talk>>,
    /// It was one when it came.
    has_grpc: bool,
    pub(super) anomalies: Anomalies,
    /// Every byte was seen so far.
    pub(super) complete: bool,
    /// Its body goes on.
    pub(super) open: bool,
    /// Its answer has begun.
    pub(super) answered: bool,
    /// It came while pairing was in doubt: no response is taken for its answer.
    pub(super) doubtful: bool,
    /// A complete answer that came before the request was complete.
    answer: Option<Box<Answer>>,
    /// Requests after it that found no room.
    dropped_after: u32,
    /// The beginning of its body, until that has been read.
    body: Text,
    /// Memory that is accounted for, bytes.
    held_bytes: usize,
}

/// The beginning of a body. Nothing is copied of one that comes in one piece.
enum Text {
    Begun(Vec<u8>),
    Read,
}

/// A response.
pub(super) struct Answer {
    /// Capture of its first byte.
    pub(super) time: EventTime,
    pub(super) response: Response,
    pub(super) protocol: Protocol,
    /// `None` when there is no status to tell it by.
    pub(super) outcome: Option<Outcome>,
    pub(super) anomalies: Anomalies,
    /// Every byte was seen.
    pub(super) complete: bool,
}

impl Pending {
    /// A request whose head has been read.
    pub(super) fn new(asked: Asked, time: EventTime, last: EventTime, open: bool) -> Pending {
        Pending {
            time,
            last,
            asked: asked.parts,
            protocol: asked.protocol,
            kind: asked.kind,
            offer: asked.offer,
            has_grpc: asked.grpc.is_some(),
            grpc: asked.grpc.map(|flavour| Box::new(Talk::new(flavour))),
            anomalies: asked.framing.odd,
            complete: true,
            open,
            answered: false,
            doubtful: false,
            answer: None,
            dropped_after: 0,
            body: Text::Begun(Vec::new()),
            held_bytes: 0,
        }
    }

    /// Takes content of its body. `ended`: no more follows.
    pub(super) fn take(&mut self, content: &[u8], ended: bool, identifier: &Identifier) {
        let Text::Begun(text) = &mut self.body else { return };
        let room = BODY_BYTES_MAX - text.len();
        if !text.is_empty() || !ended && content.len() < room {
            text.extend_from_slice(&content[..content.len().min(room)]);
            if ended || text.len() == BODY_BYTES_MAX {
                self.read_body(identifier);
            }
            return;
        }
        self.body = Text::Read;
        self.read(content, identifier);
    }

    /// No more of its body follows, or none that follows what there is.
    pub(super) fn read_body(&mut self, identifier: &Identifier) {
        let Text::Begun(text) = std::mem::replace(&mut self.body, Text::Read) else { return };
        if !text.is_empty() {
            self.read(&text, identifier);
        }
    }

    fn read(&mut self, text: &[u8], identifier: &Identifier) {
        if let Some((request, identified)) = self.asked.as_deref_mut() {
            identifier.read_body(request, identified, text);
            self.anomalies |= identified.anomalies;
        }
    }

    /// The style in which its answer is read.
    pub(super) fn style(&self) -> Style {
        self.asked.as_ref().map_or(Style::GENERIC, |asked| asked.1.style)
    }

    /// The same, and what is asked for.
    pub(super) fn asks(&self) -> (Style, Operation) {
        let asked = self.asked.as_ref().map(|asked| (asked.1.style, asked.1.op));
        asked.unwrap_or((Style::GENERIC, Operation::Public))
    }

    /// Who asked for what; `None` when the head does not parse.
    pub(super) fn identified(&mut self) -> Option<&mut Identified> {
        self.asked.as_deref_mut().map(|(_, identified)| identified)
    }

    /// What the head of the answer says to a gRPC-Web call.
    pub(super) fn answer_grpc(&mut self, answered: GrpcAnswer) {
        let Some(talk) = &mut self.grpc else { return };
        if answered.is_coded {
            self.grpc = None;
            return;
        }
        match answered.flavour {
            Some(flavour) => talk.answers_in(flavour),
            None => talk.answers_otherwise(),
        }
        talk.end(answered.status, answered.message);
    }

    /// Memory, bytes, its body aside.
    fn measure(&self) -> usize {
        // As if it were full: it grows and shrinks while the request waits.
        let grpc = if self.has_grpc { Talk::HELD_BYTES_MAX } else { 0 };
        let Some((request, identified)) = self.asked.as_deref() else {
            return size_of::<Pending>();
        };
        let settings = self.offer.as_ref().and_then(|offer| offer.settings.as_ref());
        let offer = settings.map_or(0, |settings| settings.len());
        let optional = [&request.host, &request.user_agent, &identified.symbol];
        size_of::<Pending>()
            + size_of::<(Request, Identified)>()
            + offer
            + grpc
            + [&request.method, &request.target, &request.path]
                .map(|text| text.len())
                .iter()
                .sum::<usize>()
            + optional.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + identified.object_ids.iter().map(|id| id.len() + 24).sum::<usize>()
    }
}

/// Which requests wait in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GiveUp {
    /// Whole ones for which no answer will be taken.
    Doubtful,
    /// Whole ones: no response follows.
    Whole,
    /// All: nothing follows.
    All,
}

/// What the server is doing when a request begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It waits, as far as can be told.
    Between,
    /// It answers a request that is known.
    Paired,
    /// It answers a request that was not seen.
    Unpaired,
}

/// Whether counting tells which response answers which request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// Every message so far was seen.
    Sure,
    /// Messages were missed.
    Doubt {
        /// Requests were missed, and no response yet that could answer them.
        unanswered: bool,
        /// Requests since.
        asked: u64,
        /// Responses without a request since.
        unpaired: u64,
        /// Responses may have been missed since the last request.
        missed: bool,
    },
}

/// Requests in flight on one connection.
pub(super) struct Pairing {
    queue: VecDeque<Pending>,
    trust: Trust,
    pipelines: bool,
    /// Responses that belong to requests which found no room.
    skip_responses: u32,
    held_bytes: usize,
}

impl Pairing {
    /// Nothing in flight.
    pub(super) fn new() -> Pairing {
        Pairing {
            queue: VecDeque::new(),
            trust: Trust::Sure,
            pipelines: false,
            skip_responses: 0,
            held_bytes: 0,
        }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        // Only the last has a body that goes on, and perhaps an answer already.
        let last = self.queue.back().map_or(0, |request| {
            let text = match &request.body {
                Text::Begun(text) => text.capacity(),
                Text::Read => 0,
            };
            text + request.answer.as_ref().map_or(0, |_| size_of::<Answer>())
        });
        self.held_bytes + last + self.queue.capacity() * size_of::<Pending>()
    }

    /// The request whose body is being read.
    pub(super) fn open(&mut self) -> Option<&mut Pending> {
        self.queue.back_mut().filter(|request| request.open)
    }

    /// The request that came last.
    pub(super) fn last(&mut self) -> Option<&mut Pending> {
        self.queue.back_mut()
    }

    /// The request that the next response answers; `None` when it answers none that is known.
    pub(super) fn front(&mut self) -> Option<&mut Pending> {
        if self.skip_responses > 0 {
            return None;
        }
        self.queue.front_mut().filter(|request| !request.doubtful && request.answer.is_none())
    }

    /// Of the same request its gRPC-Web call.
    pub(super) fn talk(&mut self) -> Option<&mut Talk> {
        self.front()?.grpc.as_deref_mut()
    }

    /// Whether the last request is whole, may change the protocol, and has no answer yet.
    pub(super) fn awaits_switch(&self) -> bool {
        self.queue.back().is_some_and(|request| {
            let may_switch = request.kind == Kind::Connect || request.offer.is_some();
            may_switch && !request.open && !request.answered && !request.doubtful
        })
    }

    /// Whether counting does not tell which response answers which request.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.trust != Trust::Sure
    }

    /// Takes out the request that the response which begins answers.
    pub(super) fn take_front(&mut self) -> Option<Pending> {
        self.front()?;
        let request = self.queue.pop_front()?;
        self.gone(&request);
        Some(request)
    }

    /// A request begins. Gives it back when there is no room for it.
    pub(super) fn ask(
        &mut self,
        mut request: Pending,
        turn: Turn,
        pipeline_max: usize,
    ) -> Option<Pending> {
        if turn == Turn::Unpaired {
            self.miss_turn();
        }
        match &mut self.trust {
            Trust::Sure => self.pipelines |= !self.queue.is_empty() || self.skip_responses > 0,
            Trust::Doubt { .. } if request.doubtful => {}
            Trust::Doubt { unanswered, asked, unpaired, missed } => {
                self.pipelines |= *asked > *unpaired;
                let quiet = self.queue.is_empty() && turn == Turn::Between && *unpaired >= *asked;
                if quiet && !*unanswered && !self.pipelines {
                    self.trust = Trust::Sure;
                    self.skip_responses = 0;
                } else {
                    *asked += 1;
                    *missed = false;
                    request.doubtful = true;
                }
            }
        }
        if self.queue.len() >= pipeline_max {
            match self.queue.back_mut() {
                Some(last) if request.kind == Kind::Other => last.dropped_after += 1,
                Some(_) | None => self.miss_requests(),
            }
            return Some(request);
        }
        request.held_bytes = request.measure();
        self.held_bytes += request.held_bytes;
        if self.queue.capacity() == 0 {
            // Most clients have one request in flight, and most of the time none.
            self.queue.reserve_exact(1);
        }
        self.queue.push_back(request);
        None
    }

    /// The request whose body was being read is complete, or will get no more of it. Gives the request
    /// when there is nothing to wait for.
    pub(super) fn close_request(&mut self) -> Option<(Pending, Option<Answer>)> {
        let request = self.queue.back_mut()?;
        request.open = false;
        if !request.doubtful && request.answer.is_none() {
            return None;
        }
        let mut request = self.queue.pop_back()?;
        self.gone(&request);
        let answer = request.answer.take().map(|answer| *answer);
        Some((request, answer))
    }

    /// A response to no known request begins.
    pub(super) fn begin_unpaired(&mut self) {
        if self.skip_responses > 0 {
            return;
        }
        match &mut self.trust {
            Trust::Sure => {
                self.trust =
                    Trust::Doubt { unanswered: false, asked: 0, unpaired: 1, missed: false };
            }
            Trust::Doubt { unanswered, unpaired, .. } => {
                *unanswered = false;
                *unpaired += 1;
            }
        }
    }

    /// A response is complete; `paired` when it began as the answer to the front of the queue. Gives
    /// the call, unless the rest of its request must be awaited.
    pub(super) fn answer(
        &mut self,
        answer: Answer,
        paired: bool,
    ) -> Option<(Option<Pending>, Answer)> {
        let Some(front) = self.front().filter(|_| paired) else {
            self.skip_responses = self.skip_responses.saturating_sub(1);
            return Some((None, answer));
        };
        if front.open {
            front.answer = Some(Box::new(answer));
            return None;
        }
        let request = self.queue.pop_front()?;
        self.gone(&request);
        if let Trust::Doubt { unanswered, .. } = &mut self.trust {
            *unanswered = false;
        }
        Some((Some(request), answer))
    }

    /// Bytes are missing that may have held requests.
    pub(super) fn miss_requests(&mut self) {
        // A response that answered no request has its explanation here, and so have missed ones.
        let (extra, missed) = match self.trust {
            Trust::Sure => (false, false),
            Trust::Doubt { asked, unpaired, missed, .. } => (unpaired > asked, missed),
        };
        self.trust = Trust::Doubt {
            unanswered: !extra && !missed,
            asked: 0,
            unpaired: u64::from(extra),
            missed,
        };
    }

    /// Bytes are missing that may have held responses: no request in flight will be paired.
    pub(super) fn miss_responses(&mut self) {
        self.trust = Trust::Doubt { unanswered: false, asked: 0, unpaired: 0, missed: true };
        self.skip_responses = 0;
        self.queue.iter_mut().for_each(|request| request.doubtful = true);
    }

    /// A request came while one that was not seen was being answered: the client pipelines, and there
    /// may be more like that one.
    pub(super) fn miss_turn(&mut self) {
        self.pipelines = true;
        self.miss_responses();
    }

    /// Takes out the next request that waits in vain.
    pub(super) fn give_up(&mut self, which: GiveUp) -> Option<(Pending, Option<Answer>)> {
        let front = self.queue.front()?;
        let gives_up = match which {
            GiveUp::Doubtful => front.doubtful && !front.open,
            GiveUp::Whole => !front.open,
            GiveUp::All => true,
        };
        if !gives_up {
            return None;
        }
        let mut request = self.queue.pop_front()?;
        self.gone(&request);
        let answer = request.answer.take().map(|answer| *answer);
        Some((request, answer))
    }

    fn gone(&mut self, request: &Pending) {
        self.held_bytes -= request.held_bytes;
        self.skip_responses += request.dropped_after;
        if self.queue.is_empty() {
            // A burst once had should not be paid for ever.
            if self.queue.capacity() > 4 {
                self.queue = VecDeque::new();
            }
        }
    }
}

/// Gives out the record of a request and its response, or of what there is of the two.
pub(super) fn emit(request: Option<Pending>, answer: Option<Answer>, cx: &mut Context<'_>) {
    let first = request.as_ref().map(|request| (request.time, request.protocol));
    let first = first.or(answer.as_ref().map(|answer| (answer.time, answer.protocol)));
    let Some((time, protocol)) = first else { return };
    let both = request.as_ref().zip(answer.as_ref());
    // From the last byte of the request to the first of the response.
    let latency_us = both.map(|(request, answer)| answer.time.micros_since(request.last));
    let complete =
        request.as_ref().is_some_and(|request| request.complete && request.asked.is_some())
            && answer.as_ref().is_some_and(|answer| answer.complete);
    let mut anomalies = request.as_ref().map_or(Anomalies::UNPAIRED_RESPONSE, |r| r.anomalies);
    if let Some(answer) = &answer {
        anomalies |= answer.anomalies;
    }
    let (asked, talk) = request.map_or((None, None), |request| (request.asked, request.grpc));
    let is_asked = asked.is_some();
    // Its parts go from where they are to where they stay.
    let mut asked = asked.unwrap_or_default();
    let fields = talk.as_ref().and_then(|talk| talk.fields(cx.identifier));
    if fields.is_some() {
        asked.1.detail.get_or_insert_default().fields = fields;
    }
    let grpc = talk.map(|talk| Box::new(talk.record(&asked.0.path)));
    let (response, outcome) = answer.map(|answer| (answer.response, answer.outcome)).unzip();
    let flow = cx.flow();
    cx.emit(ApiCall {
        time,
        flow,
        protocol: if grpc.is_some() { Protocol::Grpc } else { protocol },
        request: is_asked.then_some(asked.0),
        response,
        latency_us,
        key: asked.1.key,
        op: asked.1.op,
        symbol: asked.1.symbol,
        object_ids: asked.1.object_ids,
        outcome: outcome.flatten(),
        stream_id: None,
        grpc,
        token: asked.1.token,
        detail: asked.1.detail,
        complete,
        anomalies,
    });
}
