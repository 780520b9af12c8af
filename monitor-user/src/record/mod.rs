//! Recording: the Input stream as pcapng files, from which a replay gives what the live run gave.

pub(crate) mod command;
mod files;
mod flows;
pub(crate) mod mark;
mod packet;
mod pcapng;

pub(crate) use files::Rotation;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use monitor_core::engine::{Feedback, Impairment};
use monitor_core::input::{Direction, Endpoint, FlowKey, Input, Open, Plain, Segment, TcpFlags};
use monitor_core::time::EventTime;

use self::files::Files;
use self::flows::Flows;
use self::mark::Mark;
use self::packet::Headers;

/// Scopes (network namespaces) of one section; an interface each. More than run on any host at
/// once; beyond it the section is ended and its successor declares those in use anew.
const SCOPES_MAX: usize = 4096;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Packets, those that stand for events included.
    pub(crate) packets: u64,
    /// Bytes before compression.
    pub(crate) bytes: u64,
    /// Files begun.
    pub(crate) files: u64,
}

/// Takes the Input stream and writes it.
pub(crate) struct Recorder {
    files: Files,
    /// Tells this recording's files from those of others.
    id: u64,
    ports: Vec<u16>,
    /// Sections begun, over all files.
    sections: u64,
    /// Interface of each scope in this section.
    scopes: HashMap<u64, u32>,
    flows: Flows,
    /// Time of the last input that has one.
    now: EventTime,
    /// When the present file was begun; `None` before its first packet.
    begun: Option<EventTime>,
    rotation: Rotation,
    block: Vec<u8>,
    totals: Totals,
}

impl Recorder {
    /// Opens the first file. `id` is random; `ports` are those that the live run watches.
    ///
    /// # Errors
    ///
    /// When the file is there already or cannot be made.
    pub(crate) fn create(
        path: &Path,
        rotation: Rotation,
        zstd: bool,
        id: u64,
        ports: &[u16],
    ) -> Result<Recorder> {
        let files = Files::create(path, rotation, zstd)
            .with_context(|| format!("cannot make the recording: {}", path.display()))?;
        Ok(Recorder {
            files,
            id,
            ports: ports.to_vec(),
            sections: 0,
            scopes: HashMap::new(),
            flows: Flows::default(),
            now: EventTime(0),
            begun: None,
            rotation,
            block: Vec::new(),
            totals: Totals { files: 1, ..Totals::default() },
        })
    }

    /// Checks that further files can be made with the rights that are left.
    pub(crate) fn check_rights(&self) -> Result<()> {
        self.files.check_rights()
    }

    /// The file that is being written.
    pub(crate) fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// Time of the last input that has one.
    pub(crate) fn now(&self) -> EventTime {
        self.now
    }

    /// What was written so far.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Takes one input, before the Decoder does.
    ///
    /// # Errors
    ///
    /// When it cannot be written: the recording ends there.
    pub(crate) fn input(&mut self, input: &Input<'_>) -> Result<()> {
        match input {
            Input::Segment(segment) => {
                self.turn(segment.time)?;
                self.segment(segment)?;
                self.flows.segment(segment);
            }
            Input::Open(open) => {
                self.turn(open.time)?;
                self.open(open, false)?;
                self.flows.open(open);
            }
            Input::Owner { flow, owner } => {
                self.turn(self.now)?;
                self.mark(
                    flow,
                    Direction::ToServer,
                    &Mark::Owner { owner: (**owner).clone(), again: false },
                )?;
                self.flows.own(flow, owner);
            }
            Input::Lost { time, flow, direction, bytes } => {
                self.turn(*time)?;
                self.mark(flow, *direction, &Mark::Lost { direction: *direction, bytes: *bytes })?;
                self.flows.lose(flow);
            }
            Input::Plain(plain) => {
                self.turn(plain.time)?;
                self.plain(plain)?;
                self.flows.plain(plain);
            }
            Input::Close { time, flow } => {
                self.turn(*time)?;
                self.mark(flow, Direction::ToServer, &Mark::Close)?;
                self.flows.close(flow);
            }
            Input::Secrets(lines) => {
                self.turn(self.now)?;
                self.block.clear();
                pcapng::secrets(&mut self.block, lines);
                self.write()?;
            }
            Input::Tick(time) => {
                self.turn(*time)?;
                self.event(&Mark::Tick)?;
            }
        }
        Ok(())
    }

    /// Takes what the Engine is told of capture itself.
    pub(crate) fn impairment(&mut self, now: EventTime, what: &Impairment) -> Result<()> {
        self.turn(now)?;
        self.event(&Mark::Impaired(what.clone()))
    }

    /// Takes what the Engine was told that somebody said, at the place in the stream where it was.
    pub(crate) fn feedback(&mut self, feedback: &Feedback) -> Result<()> {
        // Nothing was seen yet: then it is as late as when it was said.
        let is_first = self.now == EventTime(0);
        self.turn(if is_first { feedback.time } else { self.now })?;
        self.event(&Mark::Said(feedback.clone()))
    }

    /// Hands on what waits in buffers, so that it can be read even if nothing follows.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.files.flush().with_context(|| self.files.shown())
    }

    /// Nothing follows.
    pub(crate) fn finish(&mut self) -> Result<()> {
        // A recording of nothing is a file that opens all the same.
        if self.begun.is_none() {
            self.turn(self.now)?;
        }
        self.files.finish().with_context(|| self.files.shown())
    }

    /// Time is now `time`: the first section is begun, or the next file.
    fn turn(&mut self, time: EventTime) -> Result<()> {
        self.now = time;
        let Some(begun) = self.begun else {
            self.begun = Some(time);
            return self.section();
        };
        let late = self.rotation.time.is_some_and(|most| time.since(begun) >= most);
        let large = self.rotation.bytes.is_some_and(|most| self.files.bytes() >= most);
        if late || large {
            self.files.next().with_context(|| self.files.shown())?;
            self.totals.files += 1;
            self.begun = Some(time);
            self.section()?;
        }
        Ok(())
    }

    /// Begins a section: a reader that starts here knows all that it needs.
    fn section(&mut self) -> Result<()> {
        self.sections += 1;
        self.scopes.clear();
        self.block.clear();
        pcapng::section(&mut self.block);
        self.write()?;
        // Scope 0 is interface 0: that of events which belong to no connection.
        self.interface(0)?;
        let mark =
            Mark::Section { recording: self.id, number: self.sections, ports: self.ports.clone() };
        self.event(&mark)?;
        for known in self.flows.alive(self.now) {
            self.open(&known.open, true)?;
            if let Some(owner) = &known.owner {
                let mark = Mark::Owner { owner: (**owner).clone(), again: true };
                self.mark(&known.open.flow, Direction::ToServer, &mark)?;
            }
        }
        // What is announced anew does not count towards the size, or a small one would be full at once.
        self.files.count_from_here();
        Ok(())
    }

    /// The interface that stands for a scope.
    fn interface(&mut self, scope: u64) -> Result<u32> {
        if let Some(&interface) = self.scopes.get(&scope) {
            return Ok(interface);
        }
        if self.scopes.len() >= SCOPES_MAX {
            self.section()?;
            if let Some(&interface) = self.scopes.get(&scope) {
                return Ok(interface);
            }
        }
        let interface = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX);
        self.scopes.insert(scope, interface);
        self.block.clear();
        pcapng::interface(&mut self.block, scope);
        self.write()?;
        if scope != 0 {
            self.headers(interface, self.now, &packet::EVENT, &[], 0, Some(&Mark::Scope(scope)))?;
        }
        Ok(interface)
    }

    fn segment(&mut self, segment: &Segment<'_>) -> Result<()> {
        let interface = self.interface(segment.scope)?;
        let headers = Headers::of(segment);
        self.headers(interface, segment.time, &headers, segment.payload, segment.missing, None)
    }

    /// Plaintext is drawn where the encrypted bytes would stand that were not recorded.
    fn plain(&mut self, plain: &Plain<'_>) -> Result<()> {
        let Plain { time, flow, direction, before, payload, missing, midstream, end } = *plain;
        let interface = self.interface(flow.scope)?;
        let (seq, ack) = self.flows.next(&flow, direction);
        let (source, target) = match direction {
            Direction::ToServer => (flow.client, flow.server),
            Direction::ToClient => (flow.server, flow.client),
        };
        let headers = Headers::new(source, target, seq, ack, TcpFlags::ACK);
        let mark = Mark::Plain { direction, before, midstream, end };
        self.headers(interface, time, &headers, payload, missing, Some(&mark))
    }

    /// A new connection is drawn as its handshake, one that was open before as an empty segment.
    fn open(&mut self, open: &Open, again: bool) -> Result<()> {
        let interface = self.interface(open.flow.scope)?;
        let Open { time, flow, client_isn, client_next, server_next, midstream } = *open;
        let mark = Mark::Open { client_isn, client_next, server_next, midstream, again };
        let time = if again { self.now } else { time };
        let FlowKey { client, server, scope: _ } = flow;
        if midstream {
            let up = Headers::new(client, server, client_next, server_next, TcpFlags::ACK);
            return self.headers(interface, time, &up, &[], 0, Some(&mark));
        }
        let up = Headers::new(client, server, client_isn, 0, TcpFlags::SYN);
        self.headers(interface, time, &up, &[], 0, Some(&mark))?;
        let (seq, ack) = (server_next.wrapping_sub(1), client_isn.wrapping_add(1));
        let down = Headers::new(server, client, seq, ack, TcpFlags::SYN | TcpFlags::ACK);
        self.headers(interface, time, &down, &[], 0, Some(&Mark::Drawn))
    }

    /// An empty segment of a connection that stands for an event.
    fn mark(&mut self, flow: &FlowKey, direction: Direction, mark: &Mark) -> Result<()> {
        let interface = self.interface(flow.scope)?;
        let (seq, ack) = self.flows.next(flow, direction);
        let (source, target): (Endpoint, Endpoint) = match direction {
            Direction::ToServer => (flow.client, flow.server),
            Direction::ToClient => (flow.server, flow.client),
        };
        let headers = Headers::new(source, target, seq, ack, TcpFlags::ACK);
        self.headers(interface, self.now, &headers, &[], 0, Some(mark))
    }

    /// A packet that stands for an event of no connection.
    fn event(&mut self, mark: &Mark) -> Result<()> {
        self.headers(0, self.now, &packet::EVENT, &[], 0, Some(mark))
    }

    fn headers(
        &mut self,
        interface: u32,
        time: EventTime,
        headers: &Headers,
        payload: &[u8],
        missing: u32,
        mark: Option<&Mark>,
    ) -> Result<()> {
        self.block.clear();
        let head = headers.bytes(payload, missing);
        let comment = mark.map(Mark::to_string);
        pcapng::packet(
            &mut self.block,
            interface,
            time,
            [head.as_slice(), payload],
            missing,
            comment.as_deref(),
        );
        self.totals.packets += 1;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.totals.bytes += self.block.len() as u64;
        self.files.write(&self.block).with_context(|| self.files.shown())
    }
}

#[cfg(test)]
mod tests;
