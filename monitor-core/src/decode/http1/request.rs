//! The client's direction: request heads, their bodies, and what is missing of them.

use std::mem;

use super::body::End;
use super::message::{Asked, Requests};
use super::pairing::{GiveUp, Pending, Turn};
use super::resync::Resync;
use super::{Answering, Connection, Read, State};
use crate::call::{Anomalies, Protocol};
use crate::decode::context::Context;
use crate::input::Direction;
use crate::time::EventTime;

/// Reads requests of whoever is behind the connection.
fn requests<'a>(cx: &Context<'a>) -> Requests<'a> {
    Requests { identifier: cx.identifier, peer: cx.peer() }
}

impl Connection {
    pub(super) fn request_data(&mut self, time: EventTime, mut chunk: &[u8], cx: &mut Context<'_>) {
        while !chunk.is_empty() {
            match &mut self.requests.state {
                State::Tunnel => {
                    cx.counters.tunnel_bytes += chunk.len() as u64;
                    return;
                }
                State::Wait(_) => chunk = self.wait(time, chunk, cx),
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
                        if let Some((asked, _)) = request.asked.as_deref_mut() {
                            asked.body_bytes += progress.content.len() as u64;
                        }
                        if let Some(talk) = &mut request.grpc {
                            talk.send(progress.content);
                        }
                        request.complete &= progress.end != End::Broken;
                        request.take(progress.content, progress.end != End::More, cx.identifier);
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
        let (read, rest) =
            self.requests.read_head(&requests(cx), time, chunk, cx.limits, cx.counters);
        match read {
            Read::More => {}
            Read::Head(head) => self.begin_request(head, time, cx),
            Read::NoHead(bytes) => {
                self.requests.search_after(bytes, cx.counters);
                self.pairing.miss_requests();
            }
        }
        rest
    }

    fn begin_request(&mut self, mut asked: Asked, time: EventTime, cx: &mut Context<'_>) {
        let reader = &mut self.requests;
        let body = asked.body();
        let is_simple = asked.protocol == Protocol::Http09;
        asked.framing.odd |= reader.begin(asked.is_last || is_simple);
        if asked.framing.odd.contains(Anomalies::HEAD_TOO_LARGE) {
            asked.forget_order();
        }
        let mut request = Pending::new(asked, reader.time, time, matches!(body, Ok(Some(_))));
        // A body may follow, and how much of it is not known.
        request.complete = body.is_ok();
        let open = request.open;
        self.ask(request, cx);
        match body {
            Ok(Some(body)) => self.requests.state = State::Body(body),
            // Nothing can follow. What does is looked through.
            Ok(None) if is_simple => self.requests.resync(Resync::default(), cx.counters),
            Ok(None) => {}
            Err(()) => {
                self.requests.resync(Resync::default(), cx.counters);
                self.pairing.miss_requests();
            }
        }
        if !open {
            self.close_request(cx);
            self.begin_wait();
        }
    }

    /// A request takes its place in the queue.
    fn ask(&mut self, request: Pending, cx: &mut Context<'_>) {
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
    }

    /// The head under way gets no more bytes.
    pub(super) fn cut_request_head(&mut self, cx: &mut Context<'_>) {
        if let State::Head = self.requests.state {
            self.begin_cut_request(Anomalies::TRUNCATED, cx);
        }
    }

    /// What a head says that lacks its end, and `why` it does.
    fn begin_cut_request(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        let reader = &mut self.requests;
        let head = reader.head.cut(&requests(cx), cx.limits, cx.counters);
        let Some(mut asked) = head else { return };
        asked.framing.odd |= reader.begin(asked.is_last) | why;
        // It may have come in what is missing.
        asked.framing.odd -= Anomalies::BAD_HOST;
        asked.forget_order();
        let mut request = Pending::new(asked, reader.time, reader.time, false);
        request.complete = false;
        // It began before it is known: its answer may be what was missed since, or had no request.
        request.doubtful = self.pairing.is_in_doubt();
        self.ask(request, cx);
        self.close_request(cx);
    }

    /// What follows a whole request that may change the protocol waits for the answer.
    fn begin_wait(&mut self) {
        if self.waits && matches!(self.requests.state, State::Head) && self.pairing.awaits_switch()
        {
            self.requests.state = State::Wait(Box::default());
        }
    }

    /// Takes bytes that wait; gives those for which there is no room.
    fn wait<'c>(&mut self, time: EventTime, chunk: &'c [u8], cx: &mut Context<'_>) -> &'c [u8] {
        let State::Wait(early) = &mut self.requests.state else { return chunk };
        let room = cx.limits.early_bytes_max.saturating_sub(early.len()).min(chunk.len());
        early.add(time, &chunk[..room]);
        if room < chunk.len() {
            self.overflow_wait(cx);
        }
        &chunk[room..]
    }

    /// Nobody sends so much ahead of an answer: it was not seen, or these are requests.
    fn overflow_wait(&mut self, cx: &mut Context<'_>) {
        cx.counters.early_overflows += 1;
        if let Some(request) = self.pairing.last() {
            request.anomalies |= Anomalies::PIPELINE_OVERFLOW;
        }
        self.stop_wait(cx);
    }

    /// What waited is read as requests if the protocol stays as it is; what follows another of them
    /// that may change it waits again.
    pub(super) fn end_wait(&mut self, cx: &mut Context<'_>) {
        if matches!(self.requests.state, State::Wait(_)) && !self.pairing.awaits_switch() {
            self.read_early(cx);
        }
    }

    /// All that waited is read as requests.
    pub(super) fn stop_wait(&mut self, cx: &mut Context<'_>) {
        self.waits = false;
        self.read_early(cx);
        self.waits = true;
    }

    fn read_early(&mut self, cx: &mut Context<'_>) {
        let State::Wait(early) = &mut self.requests.state else { return };
        let early = mem::take(&mut **early);
        self.requests.state = State::Head;
        for piece in early.into_pieces() {
            self.request_data(piece.time, &piece.bytes, cx);
            if piece.missing_bytes > 0 {
                self.request_gap(piece.time, piece.missing_bytes, cx);
            }
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
        self.begin_wait();
    }

    pub(super) fn request_gap(&mut self, time: EventTime, bytes: u64, cx: &mut Context<'_>) {
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
            State::Wait(early) => {
                early.gap(time, bytes);
                if early.is_full(cx.limits.early_bytes_max) {
                    self.overflow_wait(cx);
                }
                return;
            }
            State::Head => {
                self.begin_cut_request(Anomalies::GAP, cx);
                End::Broken
            }
            State::Body(body) => {
                let skipped = body.skip(bytes);
                if let Some(request) = self.pairing.open() {
                    request.last = request.last.max(time);
                    request.anomalies |= Anomalies::GAP;
                    request.complete = false;
                    request.read_body(cx.identifier);
                    if let Some((asked, _)) = request.asked.as_deref_mut() {
                        asked.body_bytes += skipped.content;
                    }
                    if let Some(talk) = &mut request.grpc {
                        talk.miss_sent(skipped.content);
                    }
                }
                if skipped.beyond > 0 { End::Broken } else { skipped.end }
            }
        };
        self.request_body_end(end, cx);
    }

    /// The request under way gets no more bytes.
    pub(super) fn close_request(&mut self, cx: &mut Context<'_>) {
        if let Some((request, answer)) = self.pairing.close_request() {
            self.emit(Some(request), answer, cx);
        } else if self.responses.ended {
            self.give_up(GiveUp::Whole, Anomalies::empty(), cx);
        }
    }
}
