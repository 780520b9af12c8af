//! Calls by what they have in common, counted as they pass.

use std::collections::HashMap;
use std::fmt::Write;

use compact_str::CompactString;
use hdrhistogram::Histogram;
use monitor_core::call::{Anomalies, ApiCall, Operation, Protocol};
use monitor_core::connection::Connection;
use serde_json::{Map, Value, json};

use crate::shown::{Bytes, Micros, harmless};

/// Hosts that are counted by name; an exchange has a few, and a scan makes them up.
const HOSTS_MAX: usize = 4096;
/// Status codes have three digits (RFC 9110, 15); replies in other protocols may have any.
const STATUSES: usize = 1000;
/// How many of a kind the text names.
const SHOWN: usize = 5;

/// An hour: longer calls count as this long.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Latencies of calls, microseconds.
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        // Three digits: 190 KiB, and exact below 2 ms, where fast servers are.
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Latency(histogram.expect("the bounds are constants that fit"))
    }
}

/// Those quantiles of a latency that people ask for.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Latency {
    fn record(&mut self, latency_us: u64) {
        self.0.saturating_record(latency_us);
    }

    fn json(&self) -> Value {
        let at = QUANTILES.iter().map(|(name, quantile)| {
            (name.to_string(), Value::from(self.0.value_at_quantile(*quantile)))
        });
        let mut object: Map<String, Value> = at.collect();
        object.insert("count".into(), self.0.len().into());
        object.insert("max".into(), self.0.max().into());
        object.into()
    }

    /// `None` when there is none.
    fn text(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut text = String::new();
        for (name, quantile) in QUANTILES {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name} {}, ", Micros(self.0.value_at_quantile(quantile)));
        }
        let _ = write!(text, "max {}", Micros(self.0.max()));
        Some(text)
    }
}

/// Counts of calls and connections.
pub(crate) struct Breakdown {
    /// Calls and latency of each [`Protocol`].
    protocols: [(u64, Option<Box<Latency>>); Protocol::ALL.len()],
    operations: [u64; Operation::ALL.len()],
    statuses: Box<[u64; STATUSES]>,
    statuses_other: u64,
    /// By bit.
    anomalies: [u64; 64],
    hosts: Hosts,
    connections: u64,
    bytes_to_server: u64,
    bytes_to_client: u64,
    missing_bytes: u64,
}

impl Default for Breakdown {
    fn default() -> Breakdown {
        Breakdown {
            protocols: Default::default(),
            operations: Default::default(),
            statuses: Box::new([0; STATUSES]),
            statuses_other: 0,
            anomalies: [0; 64],
            hosts: Hosts::default(),
            connections: 0,
            bytes_to_server: 0,
            bytes_to_client: 0,
            missing_bytes: 0,
        }
    }
}

impl Breakdown {
    pub(crate) fn call(&mut self, call: &ApiCall) {
        let (calls, latency) = &mut self.protocols[call.protocol as usize];
        *calls += 1;
        if let Some(latency_us) = call.latency_us {
            latency.get_or_insert_default().record(latency_us);
        }
        self.operations[call.op as usize] += 1;
        if let Some(status) = call.response.as_ref().and_then(|response| response.status) {
            match self.statuses.get_mut(usize::from(status)) {
                Some(count) => *count += 1,
                None => self.statuses_other += 1,
            }
        }
        let mut bits = call.anomalies.bits();
        while bits != 0 {
            self.anomalies[bits.trailing_zeros() as usize] += 1;
            bits &= bits - 1;
        }
        if let Some(host) = call.request.as_ref().and_then(|request| request.host.as_ref()) {
            self.hosts.count(host);
        }
    }

    pub(crate) fn connection(&mut self, connection: &Connection) {
        self.connections += 1;
        for (sum, bytes) in [
            (&mut self.bytes_to_server, connection.bytes_to_server),
            (&mut self.bytes_to_client, connection.bytes_to_client),
            (&mut self.missing_bytes, connection.missing_bytes),
        ] {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// For machines: what is added to the summary.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let protocols: Map<_, _> = self
            .protocols()
            .map(|(protocol, calls, latency)| {
                let latency = latency.map(Latency::json);
                (protocol.to_string(), json!({ "calls": calls, "latency_us": latency }))
            })
            .collect();
        let counts = |counts: Vec<(String, u64)>| -> Value {
            counts
                .into_iter()
                .map(|(name, count)| (name, count.into()))
                .collect::<Map<_, _>>()
                .into()
        };
        let connections = json!({
            "count": self.connections,
            "bytes_to_server": self.bytes_to_server,
            "bytes_to_client": self.bytes_to_client,
            "missing_bytes": self.missing_bytes,
        });
        [
            ("latency_us", self.latency().json()),
            ("protocols", protocols.into()),
            ("hosts", counts(self.hosts())),
            ("hosts_beyond_limit", self.hosts.settled().beyond.into()),
            ("statuses", counts(self.statuses())),
            ("operations", counts(self.operations())),
            ("anomalies", counts(self.anomalies())),
            ("connections", connections),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }

    /// For people: lines of a name and what there is to say, without what is zero.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(latency) = self.latency().text() {
            lines.push(("latency", latency));
        }
        let spoken: Vec<_> = self.protocols().collect();
        for (protocol, calls, latency) in &spoken {
            // Of one alone the line above says it.
            let latency = latency.filter(|_| spoken.len() > 1).and_then(Latency::text);
            let latency = latency.map(|text| format!(": {text}")).unwrap_or_default();
            lines.push(("protocol", format!("{protocol} {calls}{latency}")));
        }
        for (name, counts) in [
            ("hosts", self.hosts()),
            ("statuses", self.statuses()),
            ("operations", self.operations()),
            ("anomalies", self.anomalies()),
        ] {
            if let Some(text) = top(counts) {
                lines.push((name, text));
            }
        }
        if self.connections > 0 {
            let (up, down) = (Bytes(self.bytes_to_server), Bytes(self.bytes_to_client));
            let mut text = format!("{}, {up}B to servers, {down}B to clients", self.connections);
            if self.missing_bytes > 0 {
                let _ = write!(text, ", {}B missing", Bytes(self.missing_bytes));
            }
            lines.push(("connections", text));
        }
        lines
    }

    /// Of all protocols together.
    fn latency(&self) -> Latency {
        let mut all = Latency::default();
        for (_, latency) in &self.protocols {
            if let Some(Latency(histogram)) = latency.as_deref() {
                // All have the same bounds: it cannot fail.
                let _ = all.0.add(histogram);
            }
        }
        all
    }

    fn protocols(&self) -> impl Iterator<Item = (Protocol, u64, Option<&Latency>)> {
        let all = Protocol::ALL.iter().zip(&self.protocols);
        all.filter(|(_, (calls, _))| *calls > 0)
            .map(|(protocol, (calls, latency))| (*protocol, *calls, latency.as_deref()))
    }

    fn hosts(&self) -> Vec<(String, u64)> {
        let Hosts { counts, .. } = self.hosts.settled();
        sorted(counts.iter().map(|(host, count)| (host.to_string(), *count)).collect())
    }

    fn statuses(&self) -> Vec<(String, u64)> {
        let known = self.statuses.iter().enumerate();
        let mut counts: Vec<_> =
            known.map(|(status, count)| (status.to_string(), *count)).collect();
        counts.push(("other".into(), self.statuses_other));
        sorted(counts)
    }

    fn operations(&self) -> Vec<(String, u64)> {
        let all = Operation::ALL.iter().zip(self.operations);
        sorted(all.map(|(operation, count)| (operation.to_string(), count)).collect())
    }

    fn anomalies(&self) -> Vec<(String, u64)> {
        let named = Anomalies::all().iter_names().map(|(name, bit)| {
            let place = bit.bits().trailing_zeros() as usize;
            (name.to_lowercase(), self.anomalies.get(place).copied().unwrap_or_default())
        });
        sorted(named.collect())
    }
}

/// Most first, then by name; without zeros.
fn sorted(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.retain(|(_, count)| *count > 0);
    counts
        .sort_by(|(name, count), (other_name, other)| other.cmp(count).then(name.cmp(other_name)));
    counts
}

/// The first few; `None` when there is none.
fn top(counts: Vec<(String, u64)>) -> Option<String> {
    let named: Vec<String> = counts
        .iter()
        .take(SHOWN)
        .map(|(name, count)| format!("{} {count}", harmless(name)))
        .collect();
    let more = counts.len().saturating_sub(SHOWN);
    match more {
        0 if named.is_empty() => None,
        0 => Some(named.join(", ")),
        more => Some(format!("{}, and {more} more", named.join(", "))),
    }
}

/// Calls by host.
#[derive(Default)]
struct Hosts {
    counts: HashMap<CompactString, u64, foldhash::fast::RandomState>,
    /// Calls to hosts that came when there were too many.
    beyond: u64,
    /// The host of the last call, and its calls that are not in `counts` yet: most connections have
    /// one host alone.
    last: (CompactString, u64),
}

impl Hosts {
    fn count(&mut self, host: &CompactString) {
        let (last, calls) = &mut self.last;
        if last == host {
            *calls += 1;
            return;
        }
        let before = std::mem::replace(&mut self.last, (host.clone(), 1));
        self.add(before);
    }

    fn add(&mut self, (host, calls): (CompactString, u64)) {
        if calls == 0 {
            return;
        }
        if let Some(count) = self.counts.get_mut(&host) {
            *count += calls;
        } else if self.counts.len() < HOSTS_MAX {
            self.counts.insert(host, calls);
        } else {
            self.beyond += calls;
        }
    }

    /// Nothing is left out of `counts` and `beyond`.
    fn settled(&self) -> Hosts {
        let mut settled =
            Hosts { counts: self.counts.clone(), beyond: self.beyond, last: Default::default() };
        settled.add(self.last.clone());
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_and_operations_stand_at_their_own_place() {
        for (place, protocol) in Protocol::ALL.iter().enumerate() {
            assert_eq!(*protocol as usize, place);
        }
        for (place, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, place);
        }
    }

    #[test]
    fn the_few_largest_are_named() {
        let counts = (0..8).map(|number| (format!("h{number}"), number)).collect();
        let text = top(sorted(counts)).unwrap();
        assert_eq!(text, "h7 7, h6 6, h5 5, h4 4, h3 3, and 2 more");
        assert_eq!(
            top(sorted(vec![("b".into(), 1), ("a\x1b".into(), 1)])).unwrap(),
            "a\\u{1b} 1, b 1"
        );
        assert_eq!(top(sorted(vec![("none".into(), 0)])), None);
    }

    #[test]
    fn made_up_hosts_are_bounded() {
        let mut hosts = Hosts::default();
        for number in 0..HOSTS_MAX + 3 {
            hosts.count(&CompactString::from(format!("{number}.example.com")));
        }
        hosts.count(&"0.example.com".into());
        let hosts = hosts.settled();
        assert_eq!((hosts.counts.len(), hosts.beyond), (HOSTS_MAX, 3));
        assert_eq!(hosts.counts["0.example.com"], 2);
    }
}
