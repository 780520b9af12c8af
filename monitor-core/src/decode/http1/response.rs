//! The server's direction: response heads, their bodies, and what is missing of them.

use std::mem;

use super::body::{Body, End};
use super::framing::Coding;
use super::message::{Answered, Content, Kind, Responses};
use super::pairing::{Answer, GiveUp};
use super::resync::Resync;
use super::switch::Upgrade;
use super::{Answering, Connection, Kept, Read, State, cut};
use crate::call::{Anomalies, Operation, Protocol, Response};
use crate::decode::content::{ContentCoding, Prefix, keeps};
use crate::decode::context::Context;
use crate::decode::conversation::{Next, Switch, Upgraded};
use crate::decode::early::Early;
use crate::identity::{Style, leaks};
use crate::input::Direction;
use crate::time::EventTime;

/// How a response begins, as far as all are alike.
const RESPONSE_START: &[u8] = b"HTTP/1.";

impl Connection {
    /// Reads on; says so when another protocol begins.
    pub(super) fn response_data<'c>(
        &mut self,
        time: EventTime,
        mut chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> Option<Switch<'c>> {
        while !chunk.is_empty() {
            match &mut self.responses.state {
                State::Tunnel => {
                    cx.counters.tunnel_bytes += chunk.len() as u64;
                    return None;
                }
                // The server waits for nobody.
                State::Wait(_) => return None,
                State::Resync(_) => {
                    chunk = self.responses.search(Direction::ToClient, time, chunk, cx.counters);
                }
                State::Head => {
                    chunk = self.response_head(time, chunk, cx);
                    if let Some(next) = self.next.take() {
                        let (next, early) = *next;
                        return Some(Switch { next, early, rest: chunk });
                    }
                    self.end_wait(cx);
                }
                State::Body(_) => {
                    let probe = self.answer.as_mut().and_then(|answering| answering.probe.as_mut());
                    chunk = match probe {
                        Some(_) => self.probe(time, chunk, cx),
                        None => self.response_body(chunk, cx),
                    };
                }
            }
        }
        None
    }

    /// Reads at a response body; gives what is left of the chunk.
    fn response_body<'c>(&mut self, chunk: &'c [u8], cx: &mut Context<'_>) -> &'c [u8] {
        let State::Body(body) = &mut self.responses.state else { return chunk };
        let mut odd = Anomalies::empty();
        let progress = body.advance(chunk, &mut odd);
        let mut whole: &[u8] = &[];
        if let Some(answering) = &mut self.answer {
            answering.answer.response.body_bytes += progress.content.len() as u64;
            if progress.end == End::Complete && matches!(answering.kept, Kept::Waiting) {
                whole = progress.content;
            } else {
                answering.kept.take(progress.content, cx.limits.body_prefix_bytes);
            }
            if answering.paired
                && let Some(talk) = self.pairing.talk()
            {
                talk.receive(progress.content);
            }
            answering.answer.anomalies |= odd;
            answering.answer.complete &= progress.end != End::Broken;
        }
        self.response_body_end(progress.end, whole, Anomalies::BAD_CHUNK, cx);
        &chunk[progress.used..]
    }

    /// Looks whether the response has a body or is followed by another one.
    fn probe<'c>(&mut self, time: EventTime, chunk: &'c [u8], cx: &mut Context<'_>) -> &'c [u8] {
        let Some(Answering { probe: Some(seen), .. }) = &mut self.answer else { return chunk };
        let start = usize::from(*seen);
        if start == 0 {
            self.responses.time = time;
        }
        let same = chunk.iter().zip(&RESPONSE_START[start..]).take_while(|(a, b)| a == b).count();
        if start + same == RESPONSE_START.len() {
            self.finish_answer(cx);
            self.responses.state = State::Head;
            self.responses.head.begin(RESPONSE_START.into());
            return &chunk[same..];
        }
        if same == chunk.len() {
            *seen += same as u8;
            return &[];
        }
        // What is alike in this chunk is still in it.
        self.end_probe(cx);
        chunk
    }

    /// The response has a body, and what was probed belongs to it. A request that came meanwhile came
    /// before its turn, so it may not be the next in turn either.
    fn end_probe(&mut self, cx: &mut Context<'_>) {
        let Some(answering) = &mut self.answer else { return };
        let Some(seen) = answering.probe.take() else { return };
        let mut early = &RESPONSE_START[..usize::from(seen)];
        while !early.is_empty() {
            early = match self.responses.state {
                State::Body(_) => self.response_body(early, cx),
                State::Head | State::Resync(_) | State::Wait(_) | State::Tunnel => return,
            };
        }
        if self.pairing.front().is_some() {
            self.pairing.miss_turn();
            self.give_up(GiveUp::Doubtful, Anomalies::empty(), cx);
        }
    }

    /// Reads at a response head; gives what is left of the chunk.
    fn response_head<'c>(
        &mut self,
        time: EventTime,
        chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> &'c [u8] {
        let front = self.pairing.front();
        let is_simple = front.is_some_and(|request| request.protocol == Protocol::Http09);
        if is_simple && self.responses.head.is_empty() && !chunk.starts_with(b"H") {
            self.responses.time = time;
            self.begin_simple(0, cx);
            return chunk;
        }
        let (read, rest) = self.responses.read_head(
            &Responses(cx.identifier),
            time,
            chunk,
            cx.limits,
            cx.counters,
        );
        match read {
            Read::More => {}
            Read::Head(head) => self.begin_response(head, cx),
            Read::NoHead(bytes) if is_simple => self.begin_simple(bytes.len(), cx),
            Read::NoHead(bytes) => {
                self.responses.search_after(bytes, cx.counters);
                self.lose_responses(Anomalies::BAD_HEAD, cx);
            }
        }
        rest
    }

    /// An answer without a head (RFC 1945, 4.1), of which so many bytes have passed.
    fn begin_simple(&mut self, bytes: usize, cx: &mut Context<'_>) {
        self.begin_answer(Answered::bare(Protocol::Http09, None), cx);
        if let Some(answering) = &mut self.answer {
            answering.answer.response.body_bytes += bytes as u64;
        }
        self.responses.head.clear();
        self.responses.state = State::Body(Body::UntilClose);
    }

    fn begin_response(&mut self, mut head: Answered, cx: &mut Context<'_>) {
        let kind = self.pairing.front().map_or(Kind::Other, |request| request.kind);
        let content = head.content(kind);
        let body = match content {
            // What was noted concerns the response that follows.
            Content::Interim => {
                self.responses.notes |= head.framing.odd;
                return;
            }
            Content::Tunnel => return self.switch(head, cx),
            Content::Body(Body::UntilClose) if head.status.is_none() => {
                // What it was and where it ends cannot be told.
                self.responses.resync(Resync::default(), cx.counters);
                self.lose_responses(head.framing.odd, cx);
                return;
            }
            Content::Nothing => None,
            Content::Body(body) => Some(body),
        };
        if head.framing.coding == Coding::Other && body == Some(Body::UntilClose) {
            head.framing.odd |= Anomalies::BAD_TRANSFER_ENCODING;
        }
        self.begin_answer(head, cx);
        match body {
            Some(body) => self.responses.state = State::Body(body),
            None => self.finish_answer(cx),
        }
    }

    fn begin_answer(&mut self, head: Answered, cx: &Context<'_>) {
        let reader = &mut self.responses;
        let anomalies = head.framing.odd | reader.begin(head.is_last);
        let (paired, asked) = match self.pairing.front() {
            Some(request) => {
                request.answered = true;
                request.answer_grpc(head.grpc);
                if let Some(redirect) = head.redirect
                    && let Some(identified) = request.identified()
                {
                    cx.identifier.note_redirect(identified, *redirect);
                }
                (true, request.asks())
            }
            None => {
                self.pairing.begin_unpaired();
                (false, (Style::GENERIC, Operation::Public))
            }
        };
        let keeps = head.status.is_some_and(|it| keeps(cx.identifier, asked, it, &head.coding));
        self.answer = Some(Answering {
            answer: Answer {
                time: reader.time,
                response: Response { status: head.status, body_bytes: 0, quota: head.quota },
                protocol: head.protocol,
                outcome: None,
                anomalies,
                complete: true,
            },
            paired,
            probe: (!paired).then_some(0),
            kept: match keeps {
                true => Kept::of(head.coding, cx.limits.body_prefix_bytes),
                false => Kept::Nothing,
            },
        });
    }

    /// The server agrees to another protocol.
    fn switch(&mut self, mut head: Answered, cx: &mut Context<'_>) {
        cx.counters.upgraded_flows += 1;
        let waits = matches!(self.requests.state, State::Wait(_));
        let request = self.pairing.front();
        let offer = request.and_then(|request| request.offer.as_deref());
        let upgrade = match &head.agreement {
            // Where the client's part begins is known only if it has waited for the answer.
            Some(agreement) if waits => agreement.to(offer),
            Some(_) => Upgrade::Other,
            // A tunnel: what follows says itself what it is.
            None => Upgrade::Tls,
        };
        let next = match upgrade {
            Upgrade::WebSocket => self.upgraded(&head, Anomalies::empty()).map(Next::WebSocket),
            Upgrade::Http2 => {
                self.upgraded(&head, self.responses.notes | head.framing.odd).map(Next::Http2)
            }
            Upgrade::Tls => Some(Next::Unknown),
            Upgrade::Other => None,
        };
        let early = self.take_early();
        match next {
            // The answer follows in the other protocol, and the call with it.
            Some(Next::Http2(_)) => drop(self.pairing.take_front()),
            Some(Next::WebSocket(_)) => self.answer_at_once(head, cx),
            Some(Next::Unknown) | None => {
                head.framing.odd |= Anomalies::UPGRADED;
                self.answer_at_once(head, cx);
            }
        }
        self.tunnel(cx);
        self.next = next.map(|next| Box::new((next, early)));
    }

    fn answer_at_once(&mut self, head: Answered, cx: &mut Context<'_>) {
        self.begin_answer(head, cx);
        self.finish_answer(cx);
    }

    /// The request that changes the protocol, for what takes over.
    fn upgraded(&mut self, head: &Answered, odd: Anomalies) -> Option<Box<Upgraded>> {
        let request = self.pairing.front()?;
        let (asked, identified) = request.asked.as_deref().cloned()?;
        Some(Box::new(Upgraded {
            request: asked,
            identified,
            time: request.time,
            last: request.last,
            body_complete: request.complete,
            anomalies: request.anomalies | odd,
            extensions: head.agreement.as_ref().and_then(|agreement| agreement.extensions.clone()),
            settings: request.offer.as_ref().and_then(|offer| offer.settings.clone()),
        }))
    }

    fn take_early(&mut self) -> Early {
        match &mut self.requests.state {
            State::Wait(early) => mem::take(&mut **early),
            State::Head | State::Body(_) | State::Resync(_) | State::Tunnel => Early::default(),
        }
    }

    /// From here on another protocol is spoken. The client may have begun to already.
    fn tunnel(&mut self, cx: &mut Context<'_>) {
        if let Some(request) = self.pairing.open() {
            cut(&mut request.complete, &mut request.anomalies);
        }
        self.give_up(GiveUp::All, Anomalies::UPGRADED, cx);
        self.requests.head.clear();
        self.requests.state = State::Tunnel;
        self.responses.state = State::Tunnel;
    }

    /// `whole`: all of the body, where it came at once and is kept nowhere.
    fn response_body_end(&mut self, end: End, whole: &[u8], why: Anomalies, cx: &mut Context<'_>) {
        match end {
            End::More => {}
            End::Complete => {
                self.responses.state = State::Head;
                self.finish_whole(whole, cx);
            }
            End::Broken => {
                self.responses.resync(Resync::default(), cx.counters);
                self.finish_answer(cx);
                self.lose_responses(why, cx);
            }
        }
    }

    pub(super) fn response_gap(&mut self, bytes: u64, cx: &mut Context<'_>) {
        match &mut self.responses.state {
            State::Tunnel => cx.counters.tunnel_bytes += bytes,
            State::Wait(_) => {}
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
                    answering.kept.end();
                    if answering.paired
                        && let Some(talk) = self.pairing.talk()
                    {
                        talk.miss_received(skipped.content);
                    }
                }
                let end = if skipped.beyond > 0 { End::Broken } else { skipped.end };
                self.response_body_end(end, &[], Anomalies::GAP, cx);
            }
        }
    }

    /// It is not known any more which response is next: no request in flight can be paired.
    fn lose_responses(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        self.pairing.miss_responses();
        self.give_up(GiveUp::Doubtful, why, cx);
    }

    /// The response under way gets no more bytes. `in_order`: the server ended it with a FIN.
    pub(super) fn cut_answer(&mut self, in_order: bool, why: Anomalies, cx: &mut Context<'_>) {
        self.end_probe(cx);
        if let Some(answering) = &mut self.answer {
            answering.answer.anomalies |= why;
            let whole = in_order && matches!(self.responses.state, State::Body(Body::UntilClose));
            if !whole {
                cut(&mut answering.answer.complete, &mut answering.answer.anomalies);
            }
            self.finish_answer(cx);
        }
        if matches!(self.responses.state, State::Head) {
            self.cut_response_head(why, cx);
        }
    }

    /// The head under way gets no more bytes.
    fn cut_response_head(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        let head = self.responses.head.cut(&Responses(cx.identifier), cx.limits, cx.counters);
        let Some(mut head) = head.filter(|head| !matches!(head.status, Some(100..=199))) else {
            return;
        };
        head.framing.odd |= why | Anomalies::TRUNCATED;
        self.begin_answer(head, cx);
        if let Some(answering) = &mut self.answer {
            answering.answer.complete = false;
        }
        self.finish_answer(cx);
    }

    fn finish_answer(&mut self, cx: &mut Context<'_>) {
        self.finish_whole(&[], cx);
    }

    /// The answer has ended. `whole`: its body, where it came at once and is kept nowhere.
    fn finish_whole(&mut self, whole: &[u8], cx: &mut Context<'_>) {
        let Some(Answering { mut answer, paired, mut kept, .. }) = self.answer.take() else {
            return;
        };
        let style = self.pairing.front().filter(|_| paired).map(|request| request.style());
        let style = style.unwrap_or(Style::GENERIC);
        if let Some(status) = answer.response.status {
            let bytes = match &mut kept {
                Kept::Begun(prefix) => prefix.bytes(),
                Kept::Nothing | Kept::Waiting => {
                    &whole[..whole.len().min(cx.limits.body_prefix_bytes)]
                }
            };
            answer.outcome = match self.pairing.talk().filter(|_| paired) {
                Some(talk) => talk.outcome(cx.identifier, style, Some(status), answer.complete),
                None => {
                    answer.anomalies |= leaks(bytes);
                    let request = self.pairing.front().filter(|_| paired);
                    let asked = request.and_then(|request| request.identified());
                    Some(cx.identifier.read_answer(asked, style, status, bytes))
                }
            };
        }
        if let Kept::Begun(prefix) = &mut kept {
            answer.anomalies |= prefix.anomalies();
        }
        if let Some((request, answer)) = self.pairing.answer(answer, paired) {
            self.emit(request, Some(answer), cx);
        }
    }
}

impl Kept {
    /// Of a body that is coded so.
    fn of(coding: ContentCoding, bytes_max: usize) -> Kept {
        if coding == ContentCoding::default() {
            return Kept::Waiting;
        }
        Kept::Begun(Box::new(Prefix::new(coding, bytes_max)))
    }

    /// Takes the next bytes, as far as they are among the first of so many.
    fn take(&mut self, content: &[u8], bytes_max: usize) {
        if let Kept::Waiting = self
            && !content.is_empty()
        {
            let prefix = Prefix::new(ContentCoding::default(), bytes_max);
            *self = Kept::Begun(Box::new(prefix));
        }
        if let Kept::Begun(prefix) = self {
            prefix.take(content);
        }
    }

    /// Bytes are missing: nothing more is taken.
    fn end(&mut self) {
        match self {
            Kept::Nothing => {}
            // Its beginning is what is missing.
            Kept::Waiting => *self = Kept::Nothing,
            Kept::Begun(prefix) => prefix.end(),
        }
    }
}
