//! Plaintext that a TLS library passed on, in place of what would be decrypted.

use super::Connection;
use crate::connection::Sealed;
use crate::decode::context::Context;
use crate::input::{Direction, Plain};
use crate::time::EventTime;

/// Where both directions stand.
pub(super) struct Given {
    /// Bytes so far, those that are missing too; `None` until some came where the start is unknown.
    passed: [Option<u64>; 2],
}

/// Bytes before the first that is known: at least one, and nobody knows how many.
const UNKNOWN_BYTES: u64 = 1;

/// No hole is larger: two minutes at 80 Gbit/s. A position beyond it is none.
const HOLE_BYTES_MAX: u64 = 1 << 40;

impl Connection {
    /// Takes plaintext; gives how many bytes of it were found to be missing.
    pub(in crate::decode) fn plain(&mut self, plain: &Plain<'_>, cx: &mut Context<'_>) -> u64 {
        let Plain { time, direction, before, payload, missing, midstream, end, flow: _ } = *plain;
        if self.given.is_none() {
            // Of a flow that was given up and goes on no hello is known either.
            let unknown = midstream || (self.session.client.is_none() && before > 0);
            self.turn_to_given(unknown, time, cx);
        }
        let Some(given) = &mut self.given else { return 0 };
        let passed = given.passed[direction as usize].get_or_insert(before);
        let hole = before.saturating_sub(*passed);
        if hole > HOLE_BYTES_MAX {
            cx.counters.segments_absurd += 1;
            return 0;
        }
        let again = usize::try_from(passed.saturating_sub(before)).unwrap_or(usize::MAX);
        let beyond = before.saturating_add(payload.len() as u64).saturating_add(missing.into());
        let missing = u64::from(missing).min(beyond.saturating_sub(*passed));
        *passed = beyond.max(*passed);
        self.lose_given(direction, time, hole, cx);
        if let Some(payload) = payload.get(again..)
            && !payload.is_empty()
        {
            self.opened += 1;
            self.plaintext(direction, time, time, payload, cx);
        }
        self.lose_given(direction, time, missing, cx);
        if end && let Some(inner) = &mut self.inner {
            inner.end(direction, cx);
        }
        hole.saturating_add(missing)
    }

    /// From here on the records are not looked into.
    fn turn_to_given(&mut self, midstream: bool, time: EventTime, cx: &mut Context<'_>) {
        self.close_eyes();
        // That there are no keys does not matter any more.
        self.summary.sealed = midstream.then_some(Sealed::NoHandshake);
        self.given = Some(Box::new(Given { passed: [(!midstream).then_some(0); 2] }));
        if midstream {
            // Responses first: missed ones explain why missed requests have no answer.
            self.lose(Direction::ToClient, time, UNKNOWN_BYTES, cx);
            self.lose(Direction::ToServer, time, UNKNOWN_BYTES, cx);
        }
    }

    fn lose_given(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        cx: &mut Context<'_>,
    ) {
        if bytes > 0 {
            self.summary.sealed.get_or_insert(Sealed::Loss);
            self.lose(direction, time, bytes, cx);
        }
    }
}
