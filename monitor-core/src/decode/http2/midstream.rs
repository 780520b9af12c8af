//! A connection that began unseen: HTTP/1 or HTTP/2, whichever shows itself first.

use super::connection::Connection;
use super::resync::{DOUBTFUL, Found, Resync};
use crate::call::Anomalies;
use crate::decode::context::Context;
use crate::decode::conversation::Switch;
use crate::decode::http1;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// Looks for both at once.
pub(in crate::decode) struct Midstream {
    http1: Box<http1::Connection>,
    searches: [Resync; 2],
}

/// What came of it.
pub(in crate::decode) enum Verdict<'c> {
    /// It is not known yet.
    Open,
    /// HTTP/1; it may be over already.
    Http1(Box<http1::Connection>, Option<Switch<'c>>),
    /// HTTP/2.
    Http2(Box<Connection>),
}

impl Midstream {
    /// Nothing was seen.
    pub(in crate::decode) fn new(limits: &Limits) -> Midstream {
        let search = || Resync::new(DOUBTFUL, limits.http2.search_bytes_max);
        Midstream { http1: Box::new(http1::Connection::new(true)), searches: [search(), search()] }
    }

    /// Memory held besides itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        let searches: usize = self.searches.iter().map(Resync::held_bytes).sum();
        searches + size_of::<http1::Connection>() + self.http1.held_bytes()
    }

    /// The next bytes of a direction.
    pub(in crate::decode) fn data<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &'c [u8],
        cx: &mut Context<'_>,
    ) -> Verdict<'c> {
        let found = self.searches[direction as usize].search(time, chunk);
        // What HTTP/1 finds first counts, however the bytes are cut.
        let first = found.as_ref().map_or(chunk.len(), |found| found.used);
        let switch = self.http1.data(direction, time, &chunk[..first], cx);
        if !self.http1.is_searching() || switch.is_some() {
            let mut http1 = self.take_http1();
            if let Some(switch) = switch {
                let rest = &chunk[first - switch.rest.len()..];
                return Verdict::Http1(http1, Some(Switch { rest, ..switch }));
            }
            let switch = http1.data(direction, time, &chunk[first..], cx);
            return Verdict::Http1(http1, switch);
        }
        match found {
            Some(found) => {
                let mut connection = self.decide(Some((direction, found)), cx);
                connection.data(direction, time, &chunk[first..], cx);
                Verdict::Http2(connection)
            }
            None => Verdict::Open,
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
        self.searches[direction as usize].gap();
        self.http1.gap(direction, time, bytes, cx);
    }

    /// Adds to the next message.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        self.http1.note(direction, what);
    }

    /// Nothing follows: what was seen so far must do.
    pub(in crate::decode) fn abort(
        &mut self,
        why: Anomalies,
        cx: &mut Context<'_>,
    ) -> Option<Box<Connection>> {
        if !self.searches.iter().any(Resync::is_likely) {
            self.http1.abort(why, cx);
            return None;
        }
        Some(self.decide(None, cx))
    }

    /// HTTP/2 it is.
    fn decide(
        &mut self,
        found: Option<(Direction, Found)>,
        cx: &mut Context<'_>,
    ) -> Box<Connection> {
        let fresh = Midstream::new(cx.limits);
        let mut searches = std::mem::replace(self, fresh).searches;
        let mut starts: [Option<Found>; 2] = searches.each_mut().map(Resync::relent);
        if let Some((direction, found)) = found {
            starts[direction as usize] = Some(found);
        }
        let mut connection = Box::new(Connection::searching(searches, cx.limits));
        for (direction, start) in [Direction::ToServer, Direction::ToClient].into_iter().zip(starts)
        {
            if let Some(found) = start {
                connection.resume(direction, found, cx);
            }
        }
        cx.counters.http2_connections += 1;
        connection
    }

    fn take_http1(&mut self) -> Box<http1::Connection> {
        std::mem::replace(&mut self.http1, Box::new(http1::Connection::new(true)))
    }
}
