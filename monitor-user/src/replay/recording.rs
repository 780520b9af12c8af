//! The reverse of [`record`](crate::record): packets of a recording and their comments become what
//! the live run took.

use std::collections::HashMap;
use std::sync::Arc;

use monitor_core::engine::Impairment;
use monitor_core::input::{Direction, FlowKey, Input, Open, Segment};
use monitor_core::time::EventTime;

use super::packet::{Link, Skipped, segment};
use crate::record::mark::Mark;

/// Interfaces with a scope in one section: twice what a recording declares; those beyond it have
/// scope 0.
const SCOPES_MAX: usize = 8192;

/// A packet of a section that `keywatch` has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// When.
    pub(crate) time: EventTime,
    /// Its interface within the section.
    pub(crate) interface: u32,
    /// Bytes from the IP header on.
    pub(crate) data: &'a [u8],
    /// Bytes after them that were on the wire.
    pub(crate) missing: u32,
    /// Its first comment.
    pub(crate) comment: Option<&'a str>,
}

/// What a packet stood for.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// An input of the Decoder.
    Input(Input<'a>),
    /// Capture was impaired.
    Impairment(EventTime, Impairment),
    /// The live run watched these ports.
    Ports(Vec<u16>),
    /// Nothing that is not known already.
    Nothing,
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
    /// What a packet stands for.
    pub(crate) fn event<'a>(&mut self, packet: Packet<'a>) -> Result<Event<'a>, Skipped> {
        let Packet { time, interface, data, missing, comment } = packet;
        let mark = comment.and_then(Mark::parse);
        let flow = |direction| {
            self.segment(interface, time, data, missing).map(|segment| {
                let Segment { source, target, scope, .. } = segment;
                match direction {
                    Direction::ToServer => FlowKey { client: source, server: target, scope },
                    Direction::ToClient => FlowKey { client: target, server: source, scope },
                }
            })
        };
        Ok(match mark {
            None => Event::Input(Input::Segment(self.segment(interface, time, data, missing)?)),
            Some(Mark::Section { recording, number, ports }) => {
                let before = number.checked_sub(1).map(|number| (recording, number));
                self.follows = before.is_some() && self.section == before;
                self.section = Some((recording, number));
                self.scopes.clear();
                Event::Ports(ports)
            }
            Some(Mark::Scope(scope)) => {
                if self.scopes.len() < SCOPES_MAX {
                    self.scopes.insert(interface, scope);
                }
                Event::Nothing
            }
            Some(Mark::Open { again: true, .. } | Mark::Owner { again: true, .. })
                if self.follows =>
            {
                Event::Nothing
            }
            Some(Mark::Open { client_isn, client_next, server_next, midstream, again: _ }) => {
                let flow = flow(Direction::ToServer)?;
                let open = Open { time, flow, client_isn, client_next, server_next, midstream };
                Event::Input(Input::Open(open))
            }
            Some(Mark::Drawn) => Event::Nothing,
            Some(Mark::Owner { owner, again: _ }) => {
                let flow = flow(Direction::ToServer)?;
                Event::Input(Input::Owner { flow, owner: Arc::new(owner) })
            }
            Some(Mark::Lost { direction, bytes }) => {
                Event::Input(Input::Lost { time, flow: flow(direction)?, direction, bytes })
            }
            Some(Mark::Close) => {
                Event::Input(Input::Close { time, flow: flow(Direction::ToServer)? })
            }
            Some(Mark::Tick) => Event::Input(Input::Tick(time)),
            Some(Mark::Impaired(what)) => Event::Impairment(time, what),
        })
    }

    fn segment<'a>(
        &self,
        interface: u32,
        time: EventTime,
        data: &'a [u8],
        missing: u32,
    ) -> Result<Segment<'a>, Skipped> {
        let scope = self.scopes.get(&interface).copied().unwrap_or(0);
        Ok(Segment { scope, ..segment(Link::Raw, time, data, missing)? })
    }
}
