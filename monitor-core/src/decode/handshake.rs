//! Where one connection ends and the next between the same ports begins.

use super::flow::{FlowState, Life};
use crate::flows::key::{PairKey, Side};
use crate::input::{Segment, TcpFlags};

/// What a segment means for a flow that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handshake {
    /// It belongs to the flow.
    Same,
    /// It begins another one.
    Another,
    /// It may begin another one, or be there to deceive: what follows will tell.
    Unclear,
}

/// A flow as its first segment shows it.
pub(super) fn begin(key: PairKey, side: Side, segment: &Segment<'_>, ports: &[u16]) -> FlowState {
    let mut flow = FlowState::new(key);
    match client_isn(segment) {
        Some((isn, false)) => connect(&mut flow, side, isn),
        Some((isn, true)) => {
            connect(&mut flow, side.other(), isn);
            flow.streams[side.index()].start(segment.seq.wrapping_add(1));
        }
        None => {
            if let Some(client) = key.without_port(ports) {
                flow.ends.orient(|| client);
            }
        }
    }
    flow
}

/// The flow that follows another when [`judge`] says so.
pub(super) fn succeed(
    last: &FlowState,
    side: Side,
    segment: &Segment<'_>,
    ports: &[u16],
) -> FlowState {
    let mut next = begin(*last.ends.key(), side, segment, ports);
    if let (None, Some(isn)) = (next.ends.client_isn(), last.other_isn) {
        connect(&mut next, side, isn);
    }
    next
}

/// Whether a segment still belongs to the flow.
///
/// A SYN amid a connection that lives is refused by its server (RFC 5961, 4): it counts only when the
/// new connection goes on, with a SYN-ACK or with data.
pub(super) fn judge(flow: &mut FlowState, side: Side, segment: &Segment<'_>) -> Handshake {
    let Some((isn, is_reply)) = client_isn(segment) else {
        let next = flow.other_isn.map(|isn| isn.wrapping_add(1));
        let late = flow.life == Life::Open
            || segment.payload.is_empty()
            || !flow.streams[side.index()].is_elsewhere(segment.seq);
        return if late && next != Some(segment.seq) {
            Handshake::Same
        } else {
            Handshake::Another
        };
    };
    let is_first = !flow.has_payload && flow.life == Life::Open;
    if is_reply && flow.is_answered_by(side, segment.ack) {
        flow.streams[side.index()].restart(segment.seq.wrapping_add(1));
        return Handshake::Same;
    }
    if flow.ends.client_isn() == Some(isn) {
        return Handshake::Same;
    }
    if is_first && flow.crosses(side, segment.seq, is_reply) {
        return Handshake::Same;
    }
    let over = flow.life != Life::Open || !flow.has_payload;
    if over || (is_reply && flow.other_isn == Some(isn)) {
        return Handshake::Another;
    }
    if !is_reply {
        flow.other_isn = Some(isn);
    }
    Handshake::Unclear
}

fn connect(flow: &mut FlowState, client: Side, isn: u32) {
    flow.ends.connect(client, isn);
    flow.from_start = true;
    flow.streams[client.index()].start(isn.wrapping_add(1));
}

/// The client's initial sequence number in a SYN, or in the reply to one (then true).
fn client_isn(segment: &Segment<'_>) -> Option<(u32, bool)> {
    if !segment.flags.contains(TcpFlags::SYN) {
        return None;
    }
    let is_reply = segment.flags.contains(TcpFlags::ACK);
    Some(if is_reply { (segment.ack.wrapping_sub(1), true) } else { (segment.seq, false) })
}
