//! The endpoints that answer, by host, method and route: with a key, or to anybody
//! (DETECTORS.md, D24; OWASP API9:2023).
//!
//! Only calls that went well count, so that a scan makes no endpoints.

use serde::{Deserialize, Serialize};

use super::Slots;
use super::names::Named;
use crate::call::KeyId;
use crate::time::EventTime;

/// Hosts at once: names that one server answers to.
const HOSTS_MAX: usize = 1024;

/// An endpoint has shown what it is given: so many calls with keys, of so many keys at least.
const SHOWN_CALLS: u32 = 500;
const SHOWN_KEYS: u32 = 6;

/// Calls after which an endpoint, or a host, is worth keeping.
const WORTH_CALLS: u32 = 32;

/// What is known of endpoints.
pub(crate) struct Inventory {
    endpoints: Slots<u64, Endpoint>,
    hosts: Slots<u64, Host>,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Calls with a key that went well; and without.
    pub(crate) keyed: u32,
    pub(crate) open: u32,
    /// First call that went well, seconds since the epoch.
    pub(crate) first_s: u64,
    /// Of its keys, a bit each by their hash.
    keys: u64,
    /// Hour in which something was last reported.
    reported_hour: u32,
    /// Day in which an answer was last reported.
    leaked_day: u32,
}

/// One host.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Calls with a key that went well.
    pub(crate) keyed: u32,
    pub(crate) calls: u32,
    /// First call that went well, seconds since the epoch.
    pub(crate) first_s: u64,
}

/// An endpoint and its host.
pub(crate) struct Known<'a> {
    pub(crate) endpoint: &'a mut Endpoint,
    pub(crate) host: &'a mut Host,
}

impl Inventory {
    pub(crate) fn new(max: usize) -> Inventory {
        Inventory {
            endpoints: Slots::new(max, |it| it.keyed.saturating_add(it.open) >= WORTH_CALLS),
            hosts: Slots::new(HOSTS_MAX, |host| host.calls >= WORTH_CALLS),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.endpoints.bytes() + self.hosts.bytes()
    }

    /// What is known of where a request went, as yet without it.
    pub(crate) fn at(&mut self, named: Named) -> Known<'_> {
        let unknown = || Host { keyed: 0, calls: 0, first_s: 0 };
        let host = self.hosts.find_or_insert(named.host, unknown);
        let unknown =
            || Endpoint { keyed: 0, open: 0, first_s: 0, keys: 0, reported_hour: 0, leaked_day: 0 };
        let endpoint = self.endpoints.find_or_insert(named.at_host(), unknown);
        Known { endpoint, host }
    }

    /// An endpoint where calls went well, by its hash with that of its host.
    pub(crate) fn endpoint(&self, at_host: u64) -> Option<&Endpoint> {
        self.endpoints.peek(&at_host)
    }
}

impl Known<'_> {
    /// Counts a call that went well.
    pub(crate) fn count(&mut self, key: Option<KeyId>, time: EventTime) {
        let Known { endpoint, host } = self;
        if host.calls == 0 {
            host.first_s = time.secs();
        }
        if endpoint.is_new() {
            endpoint.first_s = time.secs();
        }
        let counter = if key.is_some() { &mut endpoint.keyed } else { &mut endpoint.open };
        *counter = counter.saturating_add(1);
        // An id is a keyed hash already.
        endpoint.keys |= key.map_or(0, |key| 1 << (key.0 & 63));
        host.calls = host.calls.saturating_add(1);
        host.keyed = host.keyed.saturating_add(u32::from(key.is_some()));
    }
}

impl Endpoint {
    /// No call to it ever went well.
    pub(crate) fn is_new(&self) -> bool {
        self.keyed == 0 && self.open == 0
    }

    /// How many keys it has at least; many count as fewer.
    pub(crate) fn keys(&self) -> u32 {
        self.keys.count_ones()
    }

    /// Whether it has shown what it is given, which takes so many seconds at least.
    pub(crate) fn has_shown(&self, now_s: u64, young_s: u64) -> bool {
        self.keyed >= SHOWN_CALLS
            && self.keys() >= SHOWN_KEYS
            && now_s.saturating_sub(self.first_s) >= young_s
    }

    /// True the first time in an hour.
    pub(crate) fn is_news(&mut self, time: EventTime) -> bool {
        let hour = u32::try_from(time.secs() / 3600).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.reported_hour, hour) != hour
    }

    /// The same of what its answers hold, in a day: it stays so until the server is changed.
    pub(crate) fn leaks_anew(&mut self, time: EventTime) -> bool {
        let day = u32::try_from(time.secs() / 86_400).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.leaked_day, day) != day
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{Names, tests::request};
    use super::*;

    #[test]
    fn endpoints_are_counted_by_host() {
        let (mut inventory, mut names) = (Inventory::new(10), Names::new());
        let mut named = |host, path| names.of(&request(host, "GET", path));
        let first = named("API.example", "/a/1");
        // What does not go well is looked at, and makes no endpoint.
        assert!(inventory.at(first).endpoint.is_new());
        assert!(inventory.at(first).endpoint.is_new());
        inventory.at(first).count(Some(KeyId(1)), EventTime(7_000_000_000));
        let known = inventory.at(named("api.example", "/a/2"));
        assert!(!known.endpoint.is_new());
        assert_eq!((known.host.keyed, known.endpoint.keyed, known.host.first_s), (1, 1, 7));
        let known = inventory.at(named("www.example", "/a/2"));
        assert!(known.endpoint.is_new());
        assert_eq!(known.host.calls, 0);
    }
}
