//! The endpoints that answer, by host, method and route: with a key, or to anybody
//! (DETECTORS.md, D24; OWASP API9:2023).
//!
//! Only calls that went well count, so that a scan makes no endpoints.

use serde::{Deserialize, Serialize};

use super::Slots;
use super::names::Named;
use crate::time::EventTime;

/// Hosts at once: names that one server answers to.
const HOSTS_MAX: usize = 1024;

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
    /// Hour in which something was last reported.
    reported_hour: u32,
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

/// An endpoint and its host, before the call that is judged.
pub(crate) struct Known<'a> {
    pub(crate) endpoint: &'a mut Endpoint,
    pub(crate) host: Host,
    /// Never seen before.
    pub(crate) is_new: bool,
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

    /// Counts a call that went well; what was known before.
    pub(crate) fn note(&mut self, named: Named, has_key: bool, time: EventTime) -> Known<'_> {
        let first = || Host { keyed: 0, calls: 0, first_s: time.secs() };
        let of_host = self.hosts.find_or_insert(named.host, first);
        let known_host = *of_host;
        of_host.calls = of_host.calls.saturating_add(1);
        of_host.keyed = of_host.keyed.saturating_add(u32::from(has_key));
        let mut is_new = false;
        let endpoint = self.endpoints.find_or_insert(named.at_host(), || {
            is_new = true;
            Endpoint { keyed: 0, open: 0, reported_hour: 0 }
        });
        Known { endpoint, host: known_host, is_new }
    }
}

impl Endpoint {
    /// Counts the call.
    pub(crate) fn count(&mut self, has_key: bool) {
        let counter = if has_key { &mut self.keyed } else { &mut self.open };
        *counter = counter.saturating_add(1);
    }

    /// True the first time in an hour.
    pub(crate) fn is_news(&mut self, time: EventTime) -> bool {
        let hour = u32::try_from(time.secs() / 3600).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.reported_hour, hour) != hour
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
        inventory.note(named("API.example", "/a/1"), true, EventTime(0)).endpoint.count(true);
        let known = inventory.note(named("api.example", "/a/2"), false, EventTime(0));
        assert!(!known.is_new);
        assert_eq!((known.host.keyed, known.endpoint.keyed), (1, 1));
        let known = inventory.note(named("www.example", "/a/2"), false, EventTime(0));
        assert!(known.is_new);
        assert_eq!(known.host.calls, 0);
    }
}
