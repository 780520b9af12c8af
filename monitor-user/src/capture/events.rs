//! Records of the two rings, joined in order of time, become [`Input`].

mod handshakes;

use std::collections::{HashMap, VecDeque};

use aya::maps::{MapData, RingBuf};
use monitor_common::{
    CLOSED, Control, DataHeader, LISTENS, OPENED, OWNED, PLAIN_END, PLAIN_TO_CLIENT,
    PLAIN_TO_SERVER, TO_CLIENT, TO_SERVER, TlsSecret, Verdict,
};
use monitor_core::input::{Direction, Endpoint, FlowKey, Input, Open, Plain, Segment, TcpFlags};
use monitor_core::time::EventTime;

use self::handshakes::Derived;
use crate::capture::InsideTls;
use crate::capture::clock::{Clock, now_ns};
use crate::capture::keylog::KeyLogs;
use crate::capture::owner::Owners;
use crate::capture::secrets::Random;
use crate::capture::tls::{Process, Sealed};

/// Sockets that are tracked here for their losses and owners. Twice what the Decoder holds; beyond
/// it the kernel side's close events were lost, and the table starts anew.
const SOCKETS_MAX: usize = 262_144;

/// Reads the rings.
pub(super) struct Events {
    control: RingBuf<MapData>,
    /// Lifecycle events that wait for the payload before them to be read, in order of time.
    waiting: VecDeque<Event>,
    sockets: HashMap<u64, Socket>,
    /// By the random of its client's hello: the socket of a TLS connection.
    hellos: HashMap<Random, u64>,
    /// Those that came before their socket was made, or told of.
    early_hellos: HashMap<FlowKey, Random>,
    /// Secrets of such sockets, which are not told of yet.
    early_secrets: VecDeque<Box<Derived>>,
    /// The kernel side's list of those of which no more is wanted.
    unwanted: UnwantedMap,
    owners: Owners,
    clock: Clock,
    /// Whether TLS is looked into where it ends.
    tls: bool,
    /// Whether the Decoder knows that secrets will come, where they do.
    foretold: bool,
    /// Secrets of TLS.
    keylogs: KeyLogs,
    /// Records that wait for secrets, and their bytes.
    held: VecDeque<(DataHeader, Vec<u8>)>,
    held_bytes: usize,
    records: u64,
    payload_bytes: u64,
    plain_bytes: u64,
    plain_bytes_unknown: u64,
    secrets: u64,
    secrets_unknown: u64,
    /// Processes that have begun to listen, or to speak TLS.
    processes: Vec<Process>,
    sealed: Sealed,
    /// Closed TLS connections, by when they were closed: their process may still read what had come,
    /// and write what nobody takes.
    lingering: VecDeque<(u64, u64)>,
    lingering_flows: HashMap<FlowKey, u64>,
}

/// What secrets begin with, so that the first connection is not given up for want of them.
const FORETOLD: &[u8] = b"# as TLS libraries derive them\n";

/// Where it is told which TLS connections are of no use any more.
type UnwantedMap = aya::maps::HashMap<MapData, u64, u8>;

/// What comes through the control ring.
enum Event {
    Lifecycle(Control),
    Secret(Box<Derived>),
}

impl Event {
    fn time_ns(&self) -> u64 {
        match self {
            Event::Lifecycle(event) => event.time_ns,
            Event::Secret(secret) => secret.0.time_ns,
        }
    }
}

/// How long a closed TLS connection is still known. A process that takes longer to come to it has
/// other troubles.
const LINGER_NS: u64 = 1_000_000_000;

/// How long records wait for secrets: a server that is busy comes to the client's Finished, and an
/// asynchronous writer to its file, in a few milliseconds.
const HOLD_NS: u64 = 100_000_000;

/// Bytes of records that wait, some seconds of a busy host; with more, none waits.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Most processes of one look at the rings; those beyond it are met again.
const PROCESSES_MAX: usize = 1024;

struct Socket {
    flow: FlowKey,
    lost_bytes: [u64; 2],
    tls: bool,
    /// Plaintext of it was passed on by a library.
    inside: bool,
    /// Who received on it.
    pid: Option<u32>,
    /// Random of its client's hello.
    hello: Option<Random>,
    /// A bit for each label of which there is a secret.
    secrets: u8,
}

impl Socket {
    fn new(flow: FlowKey, tls: bool) -> Socket {
        let (lost_bytes, inside, pid, hello, secrets) = ([0; 2], false, None, None, 0);
        Socket { flow, lost_bytes, tls, inside, pid, hello, secrets }
    }
}

impl Events {
    pub(super) fn new(control: RingBuf<MapData>, unwanted: UnwantedMap, tls: &InsideTls) -> Events {
        Events {
            control,
            waiting: VecDeque::new(),
            sockets: HashMap::new(),
            hellos: HashMap::new(),
            early_hellos: HashMap::new(),
            early_secrets: VecDeque::new(),
            unwanted,
            owners: Owners::default(),
            clock: Clock::new(),
            tls: tls.at_libraries(),
            foretold: !tls.takes_secrets(),
            keylogs: keylogs(tls),
            held: VecDeque::new(),
            held_bytes: 0,
            records: 0,
            payload_bytes: 0,
            plain_bytes: 0,
            plain_bytes_unknown: 0,
            secrets: 0,
            secrets_unknown: 0,
            processes: Vec::new(),
            sealed: Sealed::default(),
            lingering: VecDeque::new(),
            lingering_flows: HashMap::new(),
        }
    }

    /// What keeps key logs from being read.
    pub(super) fn keylog_troubles(&self) -> Vec<String> {
        self.keylogs.troubles()
    }

    /// TLS connections that are over and were not seen from within.
    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Plaintext bytes of TLS connections read so far.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Those among them whose connection was not known.
    pub(super) fn plain_bytes_unknown(&self) -> u64 {
        self.plain_bytes_unknown
    }

    /// Secrets given out so far.
    pub(super) fn secrets(&self) -> u64 {
        self.secrets
    }

    /// Others: nobody knows whose they are.
    pub(super) fn secrets_unknown(&self) -> u64 {
        self.secrets_unknown
    }

    /// Processes to look into since the last time.
    pub(super) fn processes(&mut self) -> impl Iterator<Item = Process> {
        self.processes.drain(..)
    }

    /// Payload records read so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Payload bytes in them.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// See [`Capture::drain`](super::Capture::drain). `last`: nothing is added to the rings any more.
    ///
    /// A lifecycle event is given out before the first payload that is later than it: what belongs
    /// to a socket is so in order, since the kernel puts it into the rings in order.
    pub(super) fn drain(
        &mut self,
        data: &mut RingBuf<MapData>,
        max: usize,
        last: bool,
        each: &mut dyn FnMut(Input<'_>),
    ) -> usize {
        self.clock.refresh();
        if !self.foretold {
            self.foretold = true;
            each(Input::Secrets(FORETOLD));
        }
        if !self.keylogs.is_empty() {
            self.hold(data);
            let is_over = last || self.held_bytes >= HELD_BYTES_MAX;
            let until = if is_over { u64::MAX } else { now_ns().saturating_sub(HOLD_NS) };
            // Also without a record, to tell of what is wrong with them.
            self.keylogs.read(&mut |lines| each(Input::Secrets(lines)));
            return self.give_held(max, until, each);
        }
        self.pull();
        let mut pulled_before = self.waiting.len();
        let mut records = 0;
        while records < max {
            let Some(record) = data.next() else { break };
            records += 1;
            self.pull();
            let Some((header, payload)) = split(&record) else { continue };
            pulled_before = pulled_before.saturating_sub(self.give(&header, payload, each));
        }
        if records < max {
            // The ring was empty after these were pulled: all payload before them was read.
            let ready = if last { self.waiting.len() } else { pulled_before };
            (0..ready).for_each(|_| self.give_first_waiting(each));
            self.end_lingering(if last { u64::MAX } else { now_ns() }, each);
        }
        records
    }

    /// Takes what the rings hold, to wait for the secrets which open it.
    fn hold(&mut self, data: &mut RingBuf<MapData>) {
        while self.held_bytes < HELD_BYTES_MAX
            && let Some(record) = data.next()
        {
            let Some((header, payload)) = split(&record) else { continue };
            self.held_bytes += payload.len() + size_of::<DataHeader>();
            self.held.push_back((header, payload.to_vec()));
        }
        self.pull();
    }

    /// Gives up to `max` records that waited and came until then, and the lifecycle events around them: how
    /// many records.
    fn give_held(&mut self, max: usize, until: u64, each: &mut dyn FnMut(Input<'_>)) -> usize {
        let mut records = 0;
        while records < max
            && let Some((header, payload)) = self.held.pop_front_if(|it| it.0.time_ns <= until)
        {
            records += 1;
            self.held_bytes -= payload.len() + size_of::<DataHeader>();
            self.give(&header, &payload, each);
        }
        if records < max {
            while self.waiting.front().is_some_and(|event| event.time_ns() <= until) {
                self.give_first_waiting(each);
            }
            self.end_lingering(until, each);
        }
        records
    }

    /// Gives a record, and the lifecycle events before it: how many there were.
    fn give(
        &mut self,
        header: &DataHeader,
        payload: &[u8],
        each: &mut dyn FnMut(Input<'_>),
    ) -> usize {
        self.end_lingering(header.time_ns, each);
        let mut events = 0;
        while self.waiting.front().is_some_and(|event| event.time_ns() <= header.time_ns) {
            self.give_first_waiting(each);
            events += 1;
        }
        self.records += 1;
        self.payload_bytes += payload.len() as u64;
        match header.direction {
            PLAIN_TO_SERVER | PLAIN_TO_CLIENT => self.give_plain(header, payload, each),
            _ => self.give_payload(header, payload, each),
        }
        events
    }

    fn pull(&mut self) {
        while let Some(record) = self.control.next() {
            let event = if record.len() == size_of::<TlsSecret>() {
                read(&record).map(|secret| Event::Secret(Box::new(Derived(secret))))
            } else {
                read(&record).map(Event::Lifecycle)
            };
            match event {
                Some(event) => {
                    // A CPU takes the time before it comes to the ring: another may be faster.
                    let is_later = |it: &Event| it.time_ns() > event.time_ns();
                    let later = self.waiting.iter().rev().take_while(|it| is_later(it)).count();
                    self.waiting.insert(self.waiting.len() - later, event);
                }
                None => tracing::warn!(bytes = record.len(), "a lifecycle record has a wrong size"),
            }
        }
    }

    fn give_payload(
        &mut self,
        header: &DataHeader,
        payload: &[u8],
        each: &mut dyn FnMut(Input<'_>),
    ) {
        let time = self.clock.event_time(header.time_ns);
        let source = Endpoint { addr: header.source, port: header.source_port };
        let target = Endpoint { addr: header.target, port: header.target_port };
        if header.before != 0 {
            let (client, server) =
                if header.direction == TO_SERVER { (source, target) } else { (target, source) };
            let flow = FlowKey { client, server, scope: header.scope };
            let socket =
                self.sockets.entry(header.cookie).or_insert_with(|| Socket::new(flow, false));
            socket.notice_loss(time, header.direction, header.before, each);
        }
        if header.stage != 0 && self.tls {
            self.look_at_hello(header, payload);
        }
        let mut flags = TcpFlags::from_bits_truncate(header.tcp_flags);
        if flags.intersects(TcpFlags::FIN | TcpFlags::RST)
            && self.sockets.get(&header.cookie).is_some_and(Socket::ends_when_closed)
        {
            flags.remove(TcpFlags::FIN | TcpFlags::RST);
            if payload.is_empty() {
                return;
            }
        }
        each(Input::Segment(Segment {
            time,
            source,
            target,
            scope: header.scope,
            seq: header.seq,
            ack: header.ack,
            flags,
            payload,
            missing: header.missing,
        }));
    }

    fn give_plain(&mut self, header: &DataHeader, payload: &[u8], each: &mut dyn FnMut(Input<'_>)) {
        self.plain_bytes += payload.len() as u64;
        let Some(socket) = self.sockets.get_mut(&header.cookie) else {
            self.plain_bytes_unknown += payload.len() as u64 + u64::from(header.missing);
            return;
        };
        if !socket.is_seen() {
            self.sealed.see(socket.pid);
        }
        socket.inside = true;
        each(Input::Plain(Plain {
            time: self.clock.event_time(header.time_ns),
            flow: socket.flow,
            direction: match header.direction {
                PLAIN_TO_SERVER => Direction::ToServer,
                _ => Direction::ToClient,
            },
            before: header.before,
            payload,
            missing: header.missing,
            midstream: header.midstream != 0,
            end: header.tcp_flags & PLAIN_END != 0,
        }));
    }

    fn give_first_waiting(&mut self, each: &mut dyn FnMut(Input<'_>)) {
        let event = match self.waiting.pop_front() {
            Some(Event::Lifecycle(event)) => event,
            Some(Event::Secret(secret)) => return self.give_secret(secret, each),
            None => return,
        };
        let time = self.clock.event_time(event.time_ns);
        match event.kind {
            OPENED => self.open(time, &event, each),
            OWNED => {
                let speaks_tls = event.verdict == Verdict::Tls as u8;
                self.meet(Process { pid: event.pid, speaks_tls, is_sure: true });
                self.own(time, &event, each);
            }
            // On whichever port.
            LISTENS => {
                self.meet(Process { pid: event.pid, speaks_tls: false, is_sure: false });
            }
            CLOSED => self.close(time, &event, each),
            kind => tracing::warn!(kind, "a lifecycle record of an unknown kind"),
        }
    }

    fn meet(&mut self, process: Process) {
        if self.processes.len() < PROCESSES_MAX && !self.processes.contains(&process) {
            self.processes.push(process);
        }
    }

    fn open(&mut self, time: EventTime, event: &Control, each: &mut dyn FnMut(Input<'_>)) {
        let tls = event.verdict == Verdict::Tls as u8 && self.tls;
        if event.verdict != Verdict::Watch as u8 && !tls {
            return;
        }
        let flow = FlowKey {
            client: Endpoint { addr: event.client, port: event.client_port },
            server: Endpoint { addr: event.server, port: event.server_port },
            scope: event.scope,
        };
        // Both directions may have told of it at the same time.
        if self.sockets.contains_key(&event.cookie) {
            return;
        }
        // The same addresses again: the one before is over.
        if let Some(before) = self.lingering_flows.remove(&flow) {
            self.end(before, time, each);
        }
        if event.cookie != 0 {
            if self.sockets.len() >= SOCKETS_MAX {
                tracing::warn!(SOCKETS_MAX, "too many sockets; their table starts anew");
                self.sockets.clear();
                self.hellos.clear();
                self.lingering.clear();
                self.lingering_flows.clear();
            }
            let mut socket = Socket::new(flow, tls);
            socket.hello = self.early_hellos.remove(&flow);
            if let Some(random) = socket.hello {
                self.hellos.insert(random, event.cookie);
            }
            self.sockets.insert(event.cookie, socket);
        }
        each(Input::Open(Open {
            time,
            flow,
            client_isn: event.client_isn,
            client_next: event.client_next,
            server_next: event.server_next,
            midstream: event.midstream != 0,
        }));
        if event.cookie != 0 && !self.early_secrets.is_empty() {
            self.give_early_secrets(event.cookie, event.time_ns, each);
        }
    }

    fn own(&mut self, time: EventTime, event: &Control, each: &mut dyn FnMut(Input<'_>)) {
        let Some(socket) = self.sockets.get_mut(&event.cookie) else { return };
        socket.pid = Some(event.pid);
        if socket.is_seen() {
            self.sealed.see(socket.pid);
        }
        let owner = self.owners.owner(time, event.pid, &event.command);
        each(Input::Owner { flow: socket.flow, owner });
    }

    fn close(&mut self, time: EventTime, event: &Control, each: &mut dyn FnMut(Input<'_>)) {
        let Some(socket) = self.sockets.get_mut(&event.cookie) else { return };
        for (direction, lost) in [TO_SERVER, TO_CLIENT].into_iter().zip(event.lost_bytes) {
            socket.notice_loss(time, direction, lost, each);
        }
        if socket.tls {
            self.lingering.push_back((event.time_ns, event.cookie));
            self.lingering_flows.insert(socket.flow, event.cookie);
        } else {
            self.end(event.cookie, time, each);
        }
    }

    /// Ends connections that were closed long enough before.
    fn end_lingering(&mut self, now_ns: u64, each: &mut dyn FnMut(Input<'_>)) {
        while let Some(&(closed_ns, cookie)) = self.lingering.front() {
            let end_ns = closed_ns.saturating_add(LINGER_NS);
            if end_ns > now_ns {
                break;
            }
            self.lingering.pop_front();
            self.end(cookie, self.clock.event_time(end_ns), each);
        }
    }

    /// Nothing follows of a connection.
    fn end(&mut self, cookie: u64, time: EventTime, each: &mut dyn FnMut(Input<'_>)) {
        let Some(socket) = self.sockets.remove(&cookie) else { return };
        if let Some(random) = socket.hello {
            self.hellos.remove(&random);
        }
        if socket.tls {
            self.lingering_flows.remove(&socket.flow);
            self.sealed.close(socket.pid, socket.is_seen());
        }
        each(Input::Close { time, flow: socket.flow });
    }
}

impl Socket {
    /// Whether anything was seen inside its TLS.
    fn is_seen(&self) -> bool {
        self.inside || self.secrets != 0
    }

    /// Whether what its library gives out of the last packets may come after them.
    fn ends_when_closed(&self) -> bool {
        self.tls && self.secrets == 0
    }

    /// Tells of bytes lost since the last time; `total` counts from the socket's beginning.
    fn notice_loss(
        &mut self,
        time: EventTime,
        direction: u8,
        total: u64,
        each: &mut dyn FnMut(Input<'_>),
    ) {
        let known = &mut self.lost_bytes[usize::from(direction == TO_CLIENT)];
        let bytes = total.saturating_sub(*known);
        if bytes > 0 {
            *known = total;
            let direction =
                if direction == TO_SERVER { Direction::ToServer } else { Direction::ToClient };
            each(Input::Lost { time, flow: self.flow, direction, bytes });
        }
    }
}

fn keylogs(tls: &InsideTls) -> KeyLogs {
    match tls {
        InsideTls::KeyLogs(paths) => KeyLogs::new(paths),
        InsideTls::Off | InsideTls::Libraries { .. } => KeyLogs::new(&[]),
    }
}

/// Header and payload of a data record; a record of a size class is longer than its payload.
fn split(record: &[u8]) -> Option<(DataHeader, &[u8])> {
    let whole = read::<DataHeader>(record).and_then(|header| {
        let payload = record[size_of::<DataHeader>()..].get(..header.payload_len as usize)?;
        Some((header, payload))
    });
    if whole.is_none() {
        tracing::warn!(bytes = record.len(), "a record in the ring has a wrong size");
    }
    whole
}

/// Types that are valid for any bytes.
trait AnyBytes: Copy {}
impl AnyBytes for DataHeader {}
impl AnyBytes for Control {}
impl AnyBytes for TlsSecret {}

fn read<T: AnyBytes>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, and by its trait the type takes any.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
