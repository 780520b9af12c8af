//! Clients that look for what is not theirs to find: paths that are not there, and attacks in text.

use serde::{Deserialize, Serialize};

use super::{Slots, half_window};
use crate::call::Payload;
use crate::engine::ScanSettings;
use crate::time::EventTime;

/// Missing paths that are told apart in half a window.
const PATHS_MAX: usize = 64;

/// What one call showed.
pub(crate) struct Sign {
    /// A hash of the endpoint, when it is not there.
    pub(crate) missing: Option<u64>,
    /// It is one that scanners ask for.
    pub(crate) is_known: bool,
    /// The client says that it is a scanner.
    pub(crate) is_scanner: bool,
    /// An attack in its text.
    pub(crate) payload: Option<Payload>,
    /// The server did not refuse it.
    pub(crate) taken: bool,
}

/// What a client did within the window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probed {
    /// 1: it looks around; 2: it attacks; 3: in many ways, and something came of it.
    pub(crate) level: u8,
    /// Different paths that are not there, and calls for those that scanners ask for.
    pub(crate) missing: u64,
    pub(crate) known: u64,
    pub(crate) is_scanner: bool,
    /// Calls with an attack, and its kinds.
    pub(crate) payloads: u64,
    pub(crate) kinds: Vec<Payload>,
    pub(crate) calls: u64,
    pub(crate) since: EventTime,
}

/// Clients under suspicion.
pub(crate) struct Probes {
    clients: Slots<[u8; 16], Probe>,
}

#[derive(Default, Serialize, Deserialize)]
struct Probe {
    half: u64,
    first: EventTime,
    missing: [Vec<u32>; 2],
    known: [u16; 2],
    payloads: [u16; 2],
    taken: [u16; 2],
    calls: [u32; 2],
    kinds: u16,
    is_scanner: bool,
    told: u8,
}

impl Probes {
    pub(crate) fn new(settings: &ScanSettings) -> Probes {
        Probes { clients: Slots::new(settings.clients_max, |probe| probe.told > 0) }
    }

    /// Bytes held; walks over all clients.
    pub(crate) fn bytes(&self) -> usize {
        let of = |probe: &Probe| probe.missing.iter().map(|it| it.capacity() * 4).sum::<usize>();
        self.clients.bytes() + self.clients.values().map(of).sum::<usize>()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.clients.evicted
    }

    /// A call that showed something; tells when the client has become worse.
    pub(crate) fn note(
        &mut self,
        client: [u8; 16],
        sign: &Sign,
        time: EventTime,
        s: &ScanSettings,
    ) -> Option<Probed> {
        let half = half_window(time, s.window_s);
        let fresh = || Probe { half, first: time, ..Probe::default() };
        let probe = self.clients.find_or_insert(client, fresh);
        probe.advance(half, time);
        probe.add(sign);
        let level = probe.level(s);
        if level <= probe.told {
            return None;
        }
        probe.told = level;
        Some(Probed {
            level,
            missing: probe.missing.iter().map(|set| set.len() as u64).sum(),
            known: sum(probe.known),
            is_scanner: probe.is_scanner,
            payloads: sum(probe.payloads),
            kinds: probe.kinds().collect(),
            calls: probe.calls.iter().map(|calls| u64::from(*calls)).sum(),
            since: probe.first,
        })
    }
}

impl Probe {
    fn advance(&mut self, half: u64, time: EventTime) {
        if half == self.half {
            return;
        }
        if half != self.half + 1 {
            *self = Probe { half, first: time, ..Probe::default() };
            return;
        }
        self.half = half;
        self.missing.swap(0, 1);
        self.missing[0].clear();
        for pair in [&mut self.known, &mut self.payloads, &mut self.taken] {
            *pair = [0, pair[0]];
        }
        self.calls = [0, self.calls[0]];
    }

    fn add(&mut self, sign: &Sign) {
        let count = |counter: &mut u16, more: bool| {
            *counter = counter.saturating_add(u16::from(more));
        };
        self.calls[0] = self.calls[0].saturating_add(1);
        count(&mut self.known[0], sign.is_known);
        count(&mut self.payloads[0], sign.payload.is_some());
        count(&mut self.taken[0], sign.payload.is_some() && sign.taken);
        self.is_scanner |= sign.is_scanner;
        if let Some(kind) = sign.payload {
            self.kinds |= 1 << kind as u16;
        }
        if let Some(path) = sign.missing.map(|hash| hash as u32)
            && self.missing[0].len() < PATHS_MAX
            && !self.missing.iter().any(|set| set.contains(&path))
        {
            self.missing[0].push(path);
        }
    }

    fn level(&self, s: &ScanSettings) -> u8 {
        let missing = self.missing.iter().map(Vec::len).sum::<usize>() as u64;
        let looks = missing >= s.paths_min
            || sum(self.known) >= s.known_min
            || (self.is_scanner && self.calls.iter().sum::<u32>() as u64 >= s.known_min);
        let attacks = sum(self.payloads) >= s.payloads_min;
        let is_grave = self.kinds().any(|kind| kind <= Payload::Sql);
        if attacks
            && sum(self.taken) >= s.payloads_min
            && (self.kinds.count_ones() >= 3 || is_grave)
        {
            3
        } else if attacks {
            2
        } else {
            u8::from(looks)
        }
    }

    fn kinds(&self) -> impl Iterator<Item = Payload> {
        Payload::ALL.iter().copied().filter(|kind| self.kinds & 1 << *kind as u16 != 0)
    }
}

fn sum(pair: [u16; 2]) -> u64 {
    u64::from(pair[0]) + u64::from(pair[1])
}
