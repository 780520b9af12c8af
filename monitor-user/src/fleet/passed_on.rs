//! What partitions of keys pass on to stages that see what concerns all of them.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use monitor_core::alert::{network_name, network_of};
use monitor_core::call::{ApiCall, KeyId, Operation, Outcome};
use monitor_core::engine::{Joined, Settings};
use monitor_core::time::EventTime;
use rdkafka::Message;

use crate::compact;

/// The network that an address is blamed with: records of one stay together.
pub(super) fn network(client: IpAddr) -> String {
    network_name(network_of(client))
}

/// What a key came to, and with which call: the length of the first (u16, little-endian), the first, the
/// call in the compact form.
pub(super) fn pack_joined(joined: Joined, call: &ApiCall) -> Vec<u8> {
    let first = joined.to_bytes();
    let mut bytes = Vec::with_capacity(2 + first.len());
    bytes.extend_from_slice(&u16::try_from(first.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&first);
    compact::encode(call, &mut bytes);
    bytes
}

pub(super) fn read_joined(message: &impl Message) -> Result<(Joined, ApiCall), String> {
    let bytes = message.payload().ok_or("it is empty")?;
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or("it is cut off")?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (first, call) = rest.split_at_checked(length).ok_or("it is cut off")?;
    let joined = Joined::from_bytes(first).map_err(|_| "it is not what a key came to")?;
    Ok((joined, compact::decode(call).map_err(|error| error.to_string())?))
}

/// Which calls concern addresses: refused credentials, and of those that were accepted the first of each
/// key and client in half a window, which is all that is counted of them. In the same way of what keys come
/// to: newcomers, and of regulars the first time.
pub(super) struct PassedOn {
    clients: Once<(KeyId, IpAddr)>,
    regulars: Once<(KeyId, u64)>,
}

/// What was there in the running half of a window.
struct Once<T> {
    half_s: u64,
    half: u64,
    seen: HashSet<T>,
}

/// Above this all are passed on: it costs records, and nothing is missed. 16 MiB.
const SEEN_MAX: usize = 250_000;

impl PassedOn {
    pub(super) fn new(settings: &Settings) -> PassedOn {
        PassedOn {
            clients: Once::new(settings.stuffing.window_s),
            regulars: Once::new(settings.synchrony.window_s),
        }
    }

    pub(super) fn wants(&mut self, call: &ApiCall) -> bool {
        let key = call.key.as_ref().map(|key| key.id);
        if call.outcome.is_some_and(Outcome::refuses_credential) {
            return key.is_some() || call.op == Operation::Auth;
        }
        let Some(key) = key.filter(|_| call.outcome == Some(Outcome::Ok)) else { return false };
        self.clients.is_first(call.time, (key, call.client()))
    }

    pub(super) fn wants_joined(&mut self, joined: &Joined, call: &ApiCall) -> bool {
        let Some(key) = &call.key else { return false };
        joined.is_newcomer() || self.regulars.is_first(call.time, (key.id, joined.group()))
    }
}

impl<T: Eq + Hash> Once<T> {
    fn new(window_s: u64) -> Once<T> {
        Once { half_s: (window_s / 2).max(1), half: 0, seen: HashSet::new() }
    }

    fn is_first(&mut self, time: EventTime, what: T) -> bool {
        let half = time.secs() / self.half_s;
        if half != self.half {
            self.half = half;
            self.seen.clear();
        }
        self.seen.len() >= SEEN_MAX || self.seen.insert(what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::tests::call;
    use super::*;

    #[test]
    fn of_accepted_keys_the_first_in_five_minutes_is_passed_on() {
        let mut settings = Settings::default();
        settings.stuffing.window_s = 600;
        let mut passed_on = PassedOn::new(&settings);
        let mut wants = |call: &ApiCall| passed_on.wants(call);
        let accepted = call(1, Outcome::Ok);
        assert!(wants(&accepted));
        assert!(!wants(&accepted));
        assert!(wants(&call(2, Outcome::Ok)), "another key");
        let mut later = accepted;
        later.time = EventTime(later.time.0 + 6 * 60_000_000_000);
        assert!(wants(&later));
        assert!(wants(&call(1, Outcome::BadSignature)) && wants(&call(1, Outcome::BadSignature)));
        assert!(!wants(&call(1, Outcome::Throttled)));
    }

    #[test]
    fn a_network_has_one_name() {
        for (ip, name) in [
            ("192.0.2.66", "192.0.2.0/24"),
            ("::ffff:192.0.2.66", "192.0.2.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ] {
            assert_eq!(network(ip.parse().unwrap()), name);
        }
    }
}
