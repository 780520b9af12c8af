//! Records that came before the secret which opens them. A server derives the client's secret when it reads
//! what the client's first records come with, so they are on the wire before it.

use super::record::Record;
use super::{Connection, State};
use crate::decode::context::Context;
use crate::input::Direction;
use crate::time::EventTime;

/// Those of a direction.
#[derive(Default)]
pub(super) struct Waiting {
    /// With when they were whole.
    records: Vec<(EventTime, Record)>,
    bytes: usize,
    /// The direction ends behind them.
    ends: bool,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// The direction ends: behind those that wait, if any do.
    pub(super) fn ends_behind(&mut self) -> bool {
        self.ends = !self.is_empty();
        self.ends
    }
}

impl Connection {
    /// A record waits for the secret that opens it, behind those that do already, as far as there is room.
    pub(super) fn wait(
        &mut self,
        direction: Direction,
        time: EventTime,
        record: Record,
        cx: &mut Context<'_>,
    ) {
        let side = &mut self.sides[direction as usize];
        side.records.confirm();
        side.waiting.bytes += record.bytes.len() + size_of::<(EventTime, Record)>();
        side.waiting.records.push((time, record));
        if side.waiting.bytes > cx.limits.tls_waiting_bytes_max {
            self.wait_no_more(direction, cx);
        }
    }

    /// Opens what waited for secrets which have come.
    pub(super) fn wake(&mut self, cx: &mut Context<'_>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let side = &self.sides[direction as usize];
            if !side.waiting.is_empty()
                && let State::Encrypted(protection) = &side.state
                && !protection.awaits(&self.session, cx.secrets)
            {
                self.wait_no_more(direction, cx);
            }
        }
    }

    /// Opens what waits in a direction, or goes on without it.
    pub(super) fn wait_no_more(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let waiting = std::mem::take(&mut self.sides[direction as usize].waiting);
        for (time, record) in waiting.records {
            match &self.sides[direction as usize].state {
                State::Encrypted(_) => self.open(direction, time, record, false, cx),
                State::Clear | State::Opaque | State::Ended => return,
            }
        }
        if waiting.ends {
            self.end(direction, cx);
        }
    }
}
