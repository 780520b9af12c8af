//! Where failed credentials come from: per client address and per network, over ten minutes.

use serde::{Deserialize, Serialize};

use super::Slots;
use super::crowd::{Crowd, Tide};
use super::distinct::Distinct;
use super::familiar::prefix;
use super::half_window;
use crate::call::KeyId;
use crate::engine::{Settings, StuffingSettings};
use crate::time::EventTime;

/// Refused keys for each accepted one that make the accepted one look guessed.
const ACCEPTED_WEIGHT: u64 = 10;

/// Clients and networks that had a credential refused. Others are not held.
pub(crate) struct Sources {
    clients: Slots<[u8; 16], Source>,
    networks: Slots<[u8; 16], Source>,
    /// All of them together.
    crowd: Crowd,
}

/// What a client or network did, in two halves of the window: the running one and the one before.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    half: u64,
    first: EventTime,
    refused: [Distinct; 2],
    accepted: [Distinct; 2],
    /// Of a network: clients with refused credentials.
    clients: [Distinct; 2],
    calls: [u32; 2],
    logins: [u32; 2],
    /// Things tried at which the next report is due; 0 before the first.
    report_at: u64,
}

/// A client or network that tries credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sprayed {
    /// Client, or the first address of the network.
    pub(crate) address: [u8; 16],
    /// Whether it is a network, and how many clients took part.
    pub(crate) network_clients: Option<u64>,
    /// Different keys that were refused.
    pub(crate) keys: u64,
    /// Logins without a key that failed.
    pub(crate) logins: u64,
    /// Calls behind it.
    pub(crate) calls: u64,
    /// Since when.
    pub(crate) since: EventTime,
    /// Not the first report: the count is ten times that of the last.
    pub(crate) grown: bool,
    /// Keys accepted at the same client.
    pub(crate) accepted: u64,
}

/// What was tried.
pub(crate) enum Tried {
    /// A key, by a hash of it.
    Key(u64),
    /// A login without a key.
    Login,
}

/// Clients, and networks, in a snapshot: as many as an incident of a botnet has, 2 KiB each at most.
const SAVED_MAX: usize = 2_048;

/// As they lie in a snapshot: those under suspicion.
#[derive(Serialize)]
pub(crate) struct SavedRef<'a> {
    clients: Vec<([u8; 16], &'a Source)>,
    networks: Vec<([u8; 16], &'a Source)>,
    crowd: &'a Crowd,
}

/// The same, read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    clients: Vec<([u8; 16], Source)>,
    networks: Vec<([u8; 16], Source)>,
    crowd: Crowd,
}

impl Sources {
    pub(crate) fn save(&self) -> SavedRef<'_> {
        SavedRef {
            clients: self.clients.to_save(SAVED_MAX),
            networks: self.networks.to_save(SAVED_MAX),
            crowd: &self.crowd,
        }
    }

    pub(crate) fn restore(&mut self, saved: Saved) {
        self.clients.take_back(saved.clients);
        self.networks.take_back(saved.networks);
        self.crowd = saved.crowd;
        self.crowd.mend();
    }

    pub(crate) fn new(settings: &Settings) -> Sources {
        // A source under suspicion is kept; one with a mistyped key may go.
        let keep = |source: &Source| source.tried() >= 8;
        Sources {
            clients: Slots::new(settings.clients_max, keep),
            networks: Slots::new(settings.networks_max, keep),
            crowd: Crowd::default(),
        }
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.clients.evicted + self.networks.evicted
    }

    /// Bytes held; walks over all sources.
    pub(crate) fn bytes(&self) -> usize {
        let sets = self.clients.values().chain(self.networks.values()).flat_map(Source::sets);
        self.clients.bytes()
            + self.networks.bytes()
            + self.crowd.bytes()
            + sets.map(Distinct::bytes).sum::<usize>()
    }

    /// A key was accepted: a client with many good keys is a broker, not an attacker.
    pub(crate) fn accepted(
        &mut self,
        address: &[u8; 16],
        key: u64,
        time: EventTime,
        s: &StuffingSettings,
    ) {
        if self.clients.is_empty() {
            return;
        }
        if let Some(client) = self.clients.find(address) {
            client.advance(time, s.window_s);
            client.insert(|source| &mut source.accepted, key);
        }
        if let Some(network) = self.networks.find(&prefix(address)) {
            network.advance(time, s.window_s);
            network.insert(|source| &mut source.accepted, key);
        }
    }

    /// A credential was refused.
    pub(crate) fn refused(
        &mut self,
        address: &[u8; 16],
        tried: &Tried,
        time: EventTime,
        s: &StuffingSettings,
    ) -> Option<Sprayed> {
        let fresh =
            || Source { first: time, half: half_window(time, s.window_s), ..Source::default() };
        let block = prefix(address);
        let network = self.networks.find_or_insert(block, fresh);
        network.advance(time, s.window_s);
        let client = self.clients.find_or_insert(*address, fresh);
        client.advance(time, s.window_s);
        client.refuse(tried);
        // A client that is reported by itself does not make its network guilty, and the other way
        // round: while a network is reported its clients are not.
        if client.report_at == 0 {
            network.refuse(tried);
            network.insert(|source| &mut source.clients, client_hash(address));
        }
        let clients = network.clients.iter().map(Distinct::count).max().unwrap_or(0);
        if network.report_at > 0 || clients >= s.clients_per_network_min {
            let found = network.report(block, s.keys_per_network_min, s.logins_per_network_min);
            if network.report_at > 0 {
                return found.map(|found| Sprayed { network_clients: Some(clients), ..found });
            }
        }
        client.report(*address, s.keys_per_client_min, s.logins_per_client_min)
    }

    /// A key that nobody knows was refused; tells when far more are than usual, beside those of clients and
    /// networks that are reported by themselves.
    pub(crate) fn refused_unknown(
        &mut self,
        address: &[u8; 16],
        key: KeyId,
        time: EventTime,
        watched_s: u32,
        s: &StuffingSettings,
    ) -> Option<Tide> {
        let block = prefix(address);
        let is_reported = |source: &mut Source| source.report_at > 0;
        if self.clients.find(address).is_some_and(is_reported)
            || self.networks.find(&block).is_some_and(is_reported)
        {
            return None;
        }
        self.crowd.note(key, client_hash(&block), time, watched_s, s)
    }

    /// True while this client is reported, and had far more keys refused than accepted: where many
    /// are accepted, one more says nothing.
    pub(crate) fn is_trying(&mut self, address: &[u8; 16]) -> bool {
        let is_trying = |client: &mut Source| {
            let accepted: u64 = client.accepted.iter().map(Distinct::count).sum();
            client.report_at > 0 && client.tried() >= ACCEPTED_WEIGHT * accepted
        };
        !self.clients.is_empty() && self.clients.find(address).is_some_and(is_trying)
    }
}

impl Source {
    fn advance(&mut self, time: EventTime, window_s: u64) {
        let now = half_window(time, window_s);
        // What comes late counts in the half that runs.
        if now == self.half || now + 1 == self.half {
            return;
        }
        if self.half.checked_add(1) == Some(now) {
            for pair in [&mut self.refused, &mut self.accepted, &mut self.clients] {
                pair[1] = std::mem::take(&mut pair[0]);
            }
            (self.calls, self.logins) = ([0, self.calls[0]], [0, self.logins[0]]);
            self.half = now;
            return;
        }
        // Long quiet, or the clock was set back: a new beginning.
        *self = Source { first: time, half: now, ..Source::default() };
    }

    fn refuse(&mut self, tried: &Tried) {
        self.calls[0] = self.calls[0].saturating_add(1);
        match tried {
            Tried::Key(key) => self.insert(|source| &mut source.refused, *key),
            Tried::Login => self.logins[0] = self.logins[0].saturating_add(1),
        }
    }

    /// Into the running half, unless it is known from the one before.
    fn insert(&mut self, of: impl Fn(&mut Source) -> &mut [Distinct; 2], hash: u64) {
        let [running, before] = of(self);
        if !before.contains(hash) {
            running.insert(hash);
        }
    }

    fn sets(&self) -> impl Iterator<Item = &Distinct> {
        [&self.refused, &self.accepted, &self.clients].into_iter().flatten()
    }

    fn keys(&self) -> u64 {
        self.refused.iter().map(Distinct::count).sum()
    }

    fn tried(&self) -> u64 {
        self.keys() + self.logins.iter().map(|logins| u64::from(*logins)).sum::<u64>()
    }

    fn report(&mut self, address: [u8; 16], keys_min: u64, logins_min: u64) -> Option<Sprayed> {
        let keys = self.keys();
        let logins = self.logins.iter().map(|logins| u64::from(*logins)).sum::<u64>();
        let accepted = self.accepted.iter().map(Distinct::count).sum::<u64>();
        let grown = self.report_at > 0;
        if grown {
            if keys + logins < self.report_at {
                return None;
            }
        } else if keys < keys_min.max(accepted) && logins < logins_min.max(4 * accepted) {
            return None;
        }
        self.report_at = (keys + logins).saturating_mul(10);
        let calls = self.calls.iter().map(|calls| u64::from(*calls)).sum();
        Some(Sprayed {
            address,
            network_clients: None,
            keys,
            logins,
            calls,
            since: self.first,
            grown,
            accepted,
        })
    }
}

fn client_hash(address: &[u8; 16]) -> u64 {
    use std::hash::BuildHasher;
    foldhash::quality::FixedState::with_seed(0).hash_one(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_counts_and_takes_nothing_away() {
        let settings = Settings::default();
        let s = &settings.stuffing;
        let (mut sources, address) = (Sources::new(&settings), [7; 16]);
        let half = s.window_s / 2 * 1_000_000_000;
        let mut refused =
            |key: u64, time: u64| sources.refused(&address, &Tried::Key(key), EventTime(time), s);
        for key in 1..s.keys_per_client_min - 1 {
            assert_eq!(refused(key, 1_000 * half + key), None);
        }
        // From a host, or a part of the fleet, that lags behind.
        assert_eq!(refused(100, 1_000 * half - 1), None);
        let found = refused(101, 1_000 * half + 500).expect("all of them count");
        assert_eq!(found.keys, s.keys_per_client_min);
        // A clock that was set back is another matter.
        assert_eq!(refused(102, 990 * half), None);
        assert_eq!(refused(103, 990 * half), None);
    }
}
