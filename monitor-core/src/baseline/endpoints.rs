//! The endpoints that answer, by host and route template: with a key, or to anybody
//! (DETECTORS.md, D24; OWASP API9:2023).
//!
//! Only calls that went well count, so that a scan makes no endpoints.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use super::Slots;
use crate::time::EventTime;

/// Hosts at once: names that one server answers to.
const HOSTS_MAX: usize = 1024;

/// Parts of a path that make a template; deeper ones are one.
const PARTS_MAX: usize = 16;

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
    pub(crate) fn note(
        &mut self,
        host: &str,
        method: &str,
        path: &str,
        has_key: bool,
        time: EventTime,
    ) -> Known<'_> {
        let host_hash = name_hash(host);
        let first = || Host { keyed: 0, calls: 0, first_s: time.secs() };
        let of_host = self.hosts.find_or_insert(host_hash, first);
        let known_host = *of_host;
        of_host.calls = of_host.calls.saturating_add(1);
        of_host.keyed = of_host.keyed.saturating_add(u32::from(has_key));
        let mut is_new = false;
        let hash = template_hash(host_hash, method, path);
        let endpoint = self.endpoints.find_or_insert(hash, || {
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

fn name_hash(host: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    let lower: SmallVec<[u8; 64]> = host.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    hasher.write(&lower);
    hasher.finish()
}

/// `GET /orders/17` and `GET /orders/18` are one: parts that look like ids all count as the same.
fn template_hash(host: u64, method: &str, path: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(host, 0);
    hasher.write(method.as_bytes());
    for part in path.split('/').take(PARTS_MAX) {
        hasher.write_u8(b'/');
        if is_id(part) {
            hasher.write_u8(b'*');
        } else {
            hasher.write(part.as_bytes());
        }
    }
    hasher.finish()
}

/// Numbers, hexadecimal ids, UUIDs, addresses, and names too long for an endpoint's.
fn is_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    part.len() > 32 || (digits > 0 && digits == part.len()) || (digits >= 2 && part.len() >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_left_out_of_templates() {
        let same = |a: &str, b: &str| template_hash(1, "GET", a) == template_hash(1, "GET", b);
        assert!(same("/orders/17", "/orders/4711"));
        assert!(same("/o/0a1b2c3d4e5f", "/o/ffeeddccbb00"));
        assert!(same(
            "/a/6ba7b810-9dad-11d1-80b4-00c04fd430c8/b",
            "/a/6ba7b811-9dad-11d1-80b4-00c04fd430c8/b"
        ));
        assert!(!same("/api/v1/orders", "/api/v2/orders"));
        assert!(!same("/orders/17", "/fills/17"));
        assert!(template_hash(1, "GET", "/a") != template_hash(1, "POST", "/a"));
        assert!(template_hash(1, "GET", "/a") != template_hash(2, "GET", "/a"));
    }

    #[test]
    fn a_host_is_one_in_any_case() {
        let mut inventory = Inventory::new(10);
        inventory.note("API.example", "GET", "/a", true, EventTime(0)).endpoint.count(true);
        let known = inventory.note("api.example", "GET", "/a", false, EventTime(0));
        assert!(!known.is_new);
        assert_eq!((known.host.keyed, known.endpoint.keyed), (1, 1));
    }
}
