//! The reverse of [`record`](crate::record): packets of a recording and their comments become what
//! the live run took.

use std::collections::HashMap;
use std::sync::Arc;

use monitor_core::engine::{Feedback, Impairment};
use monitor_core::input::{Direction, FlowKey, Input, Open, Plain, Segment};
use monitor_core::time::EventTime;

use super::reader::{Recalled, Recorded};
use crate::record::mark::Mark;

/// Ports of one live run: more than any host serves.
const PORTS_MAX: usize = 1024;
/// Interfaces with a scope in one section: twice what a recording declares; those beyond it have
/// scope 0.
const SCOPES_MAX: usize = 8192;

/// What is told besides inputs; in order with them.
#[derive(Debug, PartialEq)]
pub(crate) enum Aside {
    /// Capture was impaired.
    Impairment(EventTime, Impairment),
    /// The live run watched these ports.
    Ports(Vec<u16>),
    /// Somebody said something of an alert.
    Said(Feedback),
}

/// What one packet needs to know of those before it, over all files of a replay.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Recording and number of the section.
    section: Option<(u64, u64)>,
    /// It follows the one before it: what is announced again is known.
    follows: bool,
    scopes: HashMap<u32, u64>,
}

impl Recording {
    /// What a packet stands for. What is no input is added to `asides`.
    pub(crate) fn recall<'a>(
        &mut self,
        packet: Recorded<'a>,
        asides: &mut Vec<Aside>,
    ) -> Recalled<'a> {
        let Recorded { time, interface, comment, segment } = packet;
        let scope = self.scopes.get(&interface).copied().unwrap_or(0);
        let segment = segment.map(|segment| Segment { scope, ..segment });
        let mark = comment.and_then(Mark::parse);
        let flow = |direction| {
            let Segment { source, target, scope, .. } = segment?;
            Some(match direction {
                Direction::ToServer => FlowKey { client: source, server: target, scope },
                Direction::ToClient => FlowKey { client: target, server: source, scope },
            })
        };
        let input = match mark {
            None => segment.map(Input::Segment),
            Some(Mark::Section { recording, number, mut ports }) => {
                let before = number.checked_sub(1).map(|number| (recording, number));
                self.follows = before.is_some() && self.section == before;
                self.section = Some((recording, number));
                self.scopes.clear();
                ports.truncate(PORTS_MAX);
                asides.push(Aside::Ports(ports));
                return Recalled::Done;
            }
            Some(Mark::Scope(scope)) => {
                if self.scopes.len() < SCOPES_MAX {
                    self.scopes.insert(interface, scope);
                }
                return Recalled::Done;
            }
            Some(Mark::Drawn) => return Recalled::Done,
            Some(Mark::Open { again: true, .. } | Mark::Owner { again: true, .. })
                if self.follows =>
            {
                return Recalled::Done;
            }
            Some(Mark::Open { client_isn, client_next, server_next, midstream, again: _ }) => {
                flow(Direction::ToServer).map(|flow| {
                    Input::Open(Open {
                        time,
                        flow,
                        client_isn,
                        client_next,
                        server_next,
                        midstream,
                    })
                })
            }
            Some(Mark::Owner { owner, again: _ }) => {
                flow(Direction::ToServer).map(|flow| Input::Owner { flow, owner: Arc::new(owner) })
            }
            Some(Mark::Lost { direction, bytes }) => {
                flow(direction).map(|flow| Input::Lost { time, flow, direction, bytes })
            }
            Some(Mark::Plain { direction, before, midstream, end }) => {
                flow(direction).zip(segment).map(|(flow, Segment { payload, missing, .. })| {
                    Input::Plain(Plain {
                        time,
                        flow,
                        direction,
                        before,
                        payload,
                        missing,
                        midstream,
                        end,
                    })
                })
            }
            Some(Mark::Close) => flow(Direction::ToServer).map(|flow| Input::Close { time, flow }),
            Some(Mark::Tick) => Some(Input::Tick(time)),
            Some(Mark::Said(feedback)) => {
                asides.push(Aside::Said(feedback));
                return Recalled::Done;
            }
            Some(Mark::Impaired(what)) => {
                asides.push(Aside::Impairment(time, what));
                return Recalled::Done;
            }
        };
        // A mark on a packet that cannot carry it: whatever that is, it is counted as a packet.
        input.map_or(Recalled::Packet, Recalled::Input)
    }
}
