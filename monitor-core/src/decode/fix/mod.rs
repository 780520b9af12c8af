//! FIX 4.0 to 5.0 over FIXT 1.1, as seen from beside the wire (FIX Session Layer; FIX 5.0 SP2).
//!
//! A message of the client that asks for something is a call; what the server says of it first is its
//! answer. Who asks is said by the logon and holds until the session ends.

mod fields;
#[cfg(test)]
pub(super) mod fixture;
mod frame;
mod kind;

use std::collections::VecDeque;

use compact_str::CompactString;
use smallvec::SmallVec;

use self::fields::{Fields, shown};
use self::frame::{Frame, Reader};
use self::kind::{Kind, Told};
use super::context::Context;
use crate::call::{
    Anomalies, ApiCall, Detail, Key, Operation, Outcome, Protocol, Request, Response,
};
use crate::connection::{Fix, FixTraffic};
use crate::identity::{Identifier, Style};
use crate::input::Direction;
use crate::time::EventTime;

/// Bytes of an id by which an answer is known; the standard has no bound, exchanges allow 20 to 64.
const ID_BYTES_MAX: usize = 64;

/// Both directions of a session.
pub(in crate::decode) struct Connection {
    readers: [Reader; 2],
    sides: [Side; 2],
    version: Option<CompactString>,
    /// Who has logged on, and in what style.
    key: Option<Key>,
    style: Style,
    /// Who had before the logon that waits for its answer.
    before: Option<Key>,
    target: Option<CompactString>,
    waiting: VecDeque<Asked>,
    answers_unpaired: u64,
}

/// What one side has sent.
#[derive(Default)]
struct Side {
    next: Option<u64>,
    traffic: FixTraffic,
}

/// A message of the client that waits for its answer.
struct Asked {
    time: EventTime,
    last: EventTime,
    kind: Kind,
    method: CompactString,
    op: Operation,
    sequence: Option<u64>,
    id: SmallVec<[u8; 24]>,
    key: Option<Key>,
    symbol: Option<CompactString>,
    object_ids: Vec<CompactString>,
    detail: Option<Box<Detail>>,
    bytes: u64,
    anomalies: Anomalies,
    complete: bool,
    /// What keeps an answer from being seen.
    missed: Anomalies,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection {
            readers: Default::default(),
            sides: Default::default(),
            version: None,
            key: None,
            style: Style::GENERIC,
            before: None,
            target: None,
            waiting: VecDeque::new(),
            answers_unpaired: 0,
        }
    }
}

impl Connection {
    /// Memory held besides the connection itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        self.readers.iter().map(Reader::held_bytes).sum::<usize>()
            + self.waiting.capacity() * size_of::<Asked>()
    }

    /// The next bytes of a direction.
    pub(in crate::decode) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        // First, so that an answer comes too late however it is cut.
        self.expire(time, cx);
        self.with_reader(direction, |reader, give| reader.read(time, chunk, give), cx);
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
            self.waiting.iter_mut().for_each(|asked| asked.missed |= Anomalies::GAP);
        }
        self.with_reader(direction, |reader, give| reader.gap(time, bytes, give), cx);
    }

    /// Adds to the message under way in a direction, or to the next.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        self.readers[direction as usize].note(what);
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(in crate::decode) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.with_reader(direction, |reader, give| reader.finish(give), cx);
            cx.counters.fix_skipped_bytes += self.readers[direction as usize].skipped_bytes;
        }
        while let Some(mut asked) = self.waiting.pop_front() {
            asked.anomalies |= why;
            self.give_up(asked, cx);
        }
    }

    /// What it amounted to.
    pub(in crate::decode) fn summary(&self) -> Fix {
        let [to_server, to_client] = &self.sides;
        Fix {
            version: self.version.clone(),
            target: self.target.clone(),
            sent: to_server.traffic.clone(),
            received: to_client.traffic.clone(),
            answers_unpaired: self.answers_unpaired,
        }
    }

    fn with_reader(
        &mut self,
        direction: Direction,
        act: impl FnOnce(&mut Reader, &mut dyn FnMut(Frame<'_>)),
        cx: &mut Context<'_>,
    ) {
        let mut reader = std::mem::take(&mut self.readers[direction as usize]);
        act(&mut reader, &mut |frame| self.message(direction, &frame, cx));
        self.readers[direction as usize] = reader;
    }

    fn message(&mut self, direction: Direction, frame: &Frame<'_>, cx: &mut Context<'_>) {
        cx.counters.fix_messages += 1;
        let fields = Fields::read(frame.bytes, direction == Direction::ToServer);
        if self.version.is_none() {
            self.version = shown(fields.version);
        }
        let odd = frame.anomalies | self.sides[direction as usize].count(&fields, frame);
        match direction {
            Direction::ToServer => self.asked(&fields, frame, odd, cx),
            Direction::ToClient => self.told(&fields, frame, odd, cx),
        }
    }

    fn asked(
        &mut self,
        fields: &Fields<'_>,
        frame: &Frame<'_>,
        odd: Anomalies,
        cx: &mut Context<'_>,
    ) {
        let (name, kind) = kind::of(fields.kind);
        let op = match kind {
            Kind::Session => return,
            Kind::Order(op) | Kind::Request(op) => op,
            Kind::Logon | Kind::Logout => Operation::Auth,
            Kind::Other => Operation::Read,
        };
        if kind == Kind::Logon {
            self.logon(fields, cx);
        }
        let id = match kind {
            Kind::Order(_) => fields.client_order,
            Kind::Request(_) => fields.request,
            Kind::Logon | Kind::Logout | Kind::Session | Kind::Other => b"",
        };
        let mut asked = Asked {
            time: frame.time,
            last: frame.last,
            kind,
            method: if name.is_empty() {
                shown(fields.kind).unwrap_or_default()
            } else {
                name.into()
            },
            op,
            sequence: fields.sequence,
            id: SmallVec::from_slice(&id[..id.len().min(ID_BYTES_MAX)]),
            key: self.key.clone(),
            symbol: shown(fields.symbol),
            object_ids: fields.object_ids(),
            detail: detail(fields, cx.identifier),
            bytes: frame.length,
            anomalies: odd,
            complete: frame.complete,
            missed: Anomalies::empty(),
        };
        if kind == Kind::Logout {
            self.key = None;
        }
        while self.waiting.len() >= cx.limits.replies_awaited_max.max(1) {
            let Some(mut oldest) = self.waiting.pop_front() else { break };
            cx.counters.replies_overflows += 1;
            oldest.anomalies |= Anomalies::PIPELINE_OVERFLOW;
            self.give_up(oldest, cx);
        }
        if fields.again {
            // A message that is sent again is no second call, but it may be the first that is seen.
            let same = |other: &Asked| other.sequence == asked.sequence;
            if self.waiting.iter().any(same) {
                return;
            }
            asked.anomalies |= Anomalies::RESENT;
        }
        self.waiting.push_back(asked);
    }

    fn logon(&mut self, fields: &Fields<'_>, cx: &mut Context<'_>) {
        self.target = shown(fields.target);
        self.before = self.key.take();
        let found = cx.identifier.fix_key(fields.target, |tag| fields.named_by(tag));
        (self.key, self.style) = match found {
            Some((key, style)) => (Some(key), style),
            None => (None, Style::GENERIC),
        };
    }

    fn told(
        &mut self,
        fields: &Fields<'_>,
        frame: &Frame<'_>,
        odd: Anomalies,
        cx: &mut Context<'_>,
    ) {
        let told = kind::told(fields.kind);
        let place = self.waiting.iter().position(|asked| asked.is_answered_by(told, fields));
        let Some(asked) = place.and_then(|place| self.waiting.remove(place)) else {
            let is_answer =
                matches!(told, Told::Reject | Told::BusinessReject | Told::CancelReject);
            self.answers_unpaired += u64::from(is_answer);
            return;
        };
        let outcome = outcome(told, fields, asked.kind);
        if asked.kind == Kind::Logon && outcome != Outcome::Ok {
            self.key = self.before.take();
        }
        let answer = Answer { time: frame.time, bytes: frame.length, odd, outcome };
        let complete = frame.complete;
        self.emit(asked, Some(answer), complete, cx);
    }

    /// Answers that have not come in time will not come.
    fn expire(&mut self, time: EventTime, cx: &mut Context<'_>) {
        let wait = cx.limits.reply_wait_max;
        while self.waiting.front().is_some_and(|asked| asked.last.after(wait) < time) {
            let Some(asked) = self.waiting.pop_front() else { break };
            cx.counters.replies_timeouts += 1;
            self.give_up(asked, cx);
        }
    }

    fn give_up(&mut self, asked: Asked, cx: &mut Context<'_>) {
        self.emit(asked, None, false, cx);
    }

    fn emit(&self, asked: Asked, answer: Option<Answer>, complete: bool, cx: &mut Context<'_>) {
        let latency_us = answer.as_ref().map(|answer| answer.time.micros_since(asked.last));
        let odd = answer.as_ref().map_or(asked.missed, |answer| answer.odd);
        let flow = cx.flow();
        cx.emit(ApiCall {
            time: asked.time,
            flow,
            protocol: Protocol::Fix,
            request: Some(Request {
                method: asked.method,
                host: self.target.clone(),
                target: CompactString::default(),
                path: CompactString::default(),
                user_agent: None,
                header_order: None,
                body_bytes: asked.bytes,
            }),
            response: answer.as_ref().map(|answer| Response {
                status: None,
                body_bytes: answer.bytes,
                quota: None,
            }),
            latency_us,
            key: asked.key,
            op: asked.op,
            symbol: asked.symbol,
            object_ids: asked.object_ids,
            outcome: answer.map(|answer| answer.outcome),
            stream_id: None,
            grpc: None,
            token: None,
            detail: asked.detail,
            complete: asked.complete && complete,
            anomalies: asked.anomalies | odd,
        });
    }
}

struct Answer {
    time: EventTime,
    bytes: u64,
    odd: Anomalies,
    outcome: Outcome,
}

impl Asked {
    fn is_answered_by(&self, told: Told, fields: &Fields<'_>) -> bool {
        let same = |id: &[u8]| !self.id.is_empty() && *self.id == id[..id.len().min(ID_BYTES_MAX)];
        match (told, self.kind) {
            (Told::Reject | Told::BusinessReject, _) => {
                let by_number = fields.of_sequence.is_some() && fields.of_sequence == self.sequence;
                by_number || fields.of_sequence.is_none() && same(fields.rejected)
            }
            (Told::Logon | Told::Logout, Kind::Logon) => true,
            (Told::Logout, Kind::Logout) => true,
            (Told::Execution | Told::CancelReject, Kind::Order(_)) => same(fields.client_order),
            (Told::Answer | Told::Refusal, Kind::Request(_)) => same(fields.request),
            (
                Told::Logon
                | Told::Logout
                | Told::Execution
                | Told::CancelReject
                | Told::Answer
                | Told::Refusal
                | Told::Session
                | Told::Push,
                _,
            ) => false,
        }
    }
}

impl Side {
    /// Counts a message; says whether its number is the next one.
    fn count(&mut self, fields: &Fields<'_>, frame: &Frame<'_>) -> Anomalies {
        let traffic = &mut self.traffic;
        traffic.messages += 1;
        traffic.bytes += frame.length;
        traffic.heartbeats += u64::from(fields.kind == b"0");
        traffic.resends += u64::from(fields.kind == b"2");
        traffic.bad_checksums += u64::from(frame.anomalies.contains(Anomalies::BAD_CHECKSUM));
        let Some(number) = fields.sequence else { return Anomalies::BAD_SEQUENCE };
        let starts_again = fields.kind == b"A" && (fields.resets || number == 1);
        let odd = match self.next {
            Some(next) if number != next && !fields.again && !starts_again => {
                traffic.sequence_breaks += 1;
                Anomalies::BAD_SEQUENCE
            }
            Some(_) | None => Anomalies::empty(),
        };
        let next = match fields.next_sequence {
            Some(next) if fields.kind == b"4" => next,
            Some(_) | None => number.saturating_add(1),
        };
        if !fields.again || fields.kind == b"4" {
            self.next = Some(next);
        }
        odd
    }
}

/// Account, amount, orders of a list, and its tags.
fn detail(fields: &Fields<'_>, identifier: &Identifier) -> Option<Box<Detail>> {
    let number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let amount = shown(fields.quantity).filter(|it| it.as_bytes().iter().all(number));
    let (account, parts) = (shown(fields.account), fields.orders);
    let tags = identifier.numbered(fields.tags());
    if account.is_none() && amount.is_none() && parts.is_none() && tags.is_none() {
        return None;
    }
    Some(Box::new(Detail { account, amount, parts, fields: tags, ..Detail::default() }))
}

/// How it went: statuses and reasons of FIX 5.0 SP2, and the words of the text where those say little.
fn outcome(told: Told, fields: &Fields<'_>, asked: Kind) -> Outcome {
    let by_words = || crate::identity::words_outcome(fields.text);
    let known = match (told, fields.reason) {
        (Told::Logout, _) if asked == Kind::Logout => Some(Outcome::Ok),
        // SessionStatus (1409).
        (Told::Logout, Some(5 | 8)) => Some(Outcome::BadKey),
        (Told::Logout, Some(6)) => Some(Outcome::Locked),
        // OrdStatus (39): rejected.
        (Told::Execution, _) if fields.status != b"8" => Some(Outcome::Ok),
        (Told::Logon | Told::Answer | Told::Session | Told::Push, _) => Some(Outcome::Ok),
        // SessionRejectReason (373).
        (Told::Reject, Some(8)) => Some(Outcome::BadSignature),
        (Told::Reject, Some(9)) => Some(Outcome::BadKey),
        (Told::Reject, Some(10)) => Some(Outcome::Skew),
        // BusinessRejectReason (380).
        (Told::BusinessReject, Some(6)) => Some(Outcome::PermissionDenied),
        (Told::BusinessReject, Some(8)) => Some(Outcome::Throttled),
        // OrdRejReason (103): exceeds a limit is the order's fault, not a rate.
        (
            Told::Logout
            | Told::Execution
            | Told::Reject
            | Told::BusinessReject
            | Told::CancelReject
            | Told::Refusal,
            _,
        ) => None,
    };
    known.unwrap_or_else(by_words)
}

#[cfg(test)]
mod tests;
