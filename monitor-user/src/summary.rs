//! What a run amounted to: counts, latencies and loss.

use std::fmt::Write;
use std::time::Instant;

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::{ApiCall, Outcome};
use monitor_core::connection::Connection;
use monitor_core::decode::Counters;
use monitor_core::time::EventTime;
use serde_json::{Map, Value, json};

use crate::breakdown::Breakdown;
use crate::capture::Health;
use crate::replay::Tally;
use crate::shown::span;
use crate::sinks;

/// Counts over a run.
pub struct Summary {
    /// Payload bytes lost between kernel and user side.
    pub lost_bytes: u64,
    /// Kernel events lost.
    pub lost_events: u64,
    /// Calls that did not reach a sink: it was away, and its spool was full.
    pub dropped_calls: u64,
    /// What each sink did that delivers over a network.
    pub sinks: Vec<sinks::Tally>,
    /// What the kernel side counted.
    pub capture: Option<Health>,
    /// Packets of a replay.
    pub replayed: Option<Tally>,
    /// Segments of ports that are not watched.
    pub other_ports: u64,
    calls: u64,
    incomplete: u64,
    outcomes: [u64; Outcome::ALL.len()],
    severities: [u64; SEVERITIES.len()],
    breakdown: Breakdown,
    first: Option<EventTime>,
    last: EventTime,
    started: Instant,
}

const SEVERITIES: [(Severity, &str); 4] = [
    (Severity::Critical, "critical"),
    (Severity::High, "high"),
    (Severity::Medium, "medium"),
    (Severity::Low, "low"),
];

impl Default for Summary {
    fn default() -> Summary {
        Summary {
            lost_bytes: 0,
            lost_events: 0,
            dropped_calls: 0,
            sinks: Vec::new(),
            capture: None,
            replayed: None,
            other_ports: 0,
            calls: 0,
            incomplete: 0,
            outcomes: [0; Outcome::ALL.len()],
            severities: [0; SEVERITIES.len()],
            breakdown: Breakdown::default(),
            first: None,
            last: EventTime(0),
            started: Instant::now(),
        }
    }
}

impl Summary {
    pub(crate) fn call(&mut self, call: &ApiCall) {
        self.calls += 1;
        self.incomplete += u64::from(!call.complete);
        if let Some(outcome) = call.outcome {
            self.outcomes[outcome as usize] += 1;
        }
        self.breakdown.call(call);
        self.first = Some(self.first.map_or(call.time, |first| first.min(call.time)));
        self.last = self.last.max(call.time);
    }

    pub(crate) fn connection(&mut self, connection: &Connection) {
        self.breakdown.connection(connection);
    }

    pub(crate) fn alert(&mut self, alert: &Alert) {
        let place = SEVERITIES.iter().position(|(severity, _)| *severity == alert.severity);
        if let Some(count) = place.and_then(|place| self.severities.get_mut(place)) {
            *count += 1;
        }
    }

    /// For machines: one JSON object, every figure in it.
    pub fn json(&self, counters: &Counters) -> Value {
        let outcomes = Outcome::ALL.iter().zip(self.outcomes);
        let outcomes: Map<_, _> =
            outcomes.map(|(outcome, count)| (outcome.to_string(), count.into())).collect();
        let severities = SEVERITIES.iter().zip(self.severities);
        let severities: Map<_, _> =
            severities.map(|((_, name), count)| (name.to_string(), count.into())).collect();
        let mut all = json!({
            "calls": self.calls,
            "incomplete": self.incomplete,
            "outcomes": outcomes,
            "alerts": severities,
            "first": self.first,
            "last": self.first.map(|_| self.last),
            "lost": { "bytes": self.lost_bytes, "events": self.lost_events },
            "dropped_calls": self.dropped_calls,
            "sinks": self.sinks,
            "capture": self.capture,
            "replayed": self.replayed,
            "other_ports": self.other_ports,
            "decoder": counters,
            "seconds": self.started.elapsed().as_secs_f64(),
        });
        if let Some(all) = all.as_object_mut() {
            all.extend(self.breakdown.json());
        }
        all
    }

    /// For people: a few lines, without what is zero.
    pub fn text(&self, counters: &Counters) -> String {
        let mut text = String::new();
        let elapsed = span(self.started.elapsed());
        line(&mut text, format_args!("{} calls in {elapsed}", self.calls));
        if let Some(first) = self.first {
            let spanned = span(self.last.since(first));
            line(&mut text, format_args!("from {first} to {} ({spanned})", self.last));
        }
        let outcomes = Outcome::ALL.iter().map(|outcome| outcome.as_str()).zip(self.outcomes);
        list(&mut text, "outcomes", outcomes.chain([("incomplete", self.incomplete)]));
        for (name, content) in self.breakdown.lines() {
            line(&mut text, format_args!("{name}: {content}"));
        }
        let alerts: u64 = self.severities.iter().sum();
        if alerts == 0 {
            line(&mut text, format_args!("no alerts"));
        }
        let severities = SEVERITIES.iter().map(|(_, name)| *name).zip(self.severities);
        list(&mut text, "alerts", severities);
        if let Some(tally) = &self.replayed {
            list(&mut text, "files", tally.files().into_iter());
            let of_other_ports = ("of other ports", self.other_ports);
            list(&mut text, "packets", tally.packets().into_iter().chain([of_other_ports]));
            list(&mut text, "fragmented packets", tally.reassembly().into_iter());
            list(&mut text, "tunnels taken off", tally.tunnels().into_iter());
            for (number, packets) in &tally.unread_links {
                let packets = [("packets", *packets)].into_iter();
                list(&mut text, &format!("link type {number} is not read"), packets);
            }
        }
        if let Some(health) = &self.capture {
            let seen = [
                ("records", health.events),
                ("payload bytes", health.payload_bytes),
                ("plain connections", health.sockets),
                ("TLS connections", health.sockets_tls),
                ("TLS connections not seen inside", health.tls_sealed),
                ("TLS libraries", health.tls_libraries),
                ("plaintext bytes of TLS", health.tls_bytes),
                ("plaintext bytes not carried", health.tls_bytes_missing),
                ("plaintext bytes of unknown connections", health.tls_bytes_unknown),
                ("secrets of TLS", health.tls_secrets),
                ("secrets of unknown connections", health.tls_secrets_unknown),
                ("TLS connections of two sockets", health.tls_ambiguous),
                ("TLS calls missed", health.tls_calls_missed),
                ("connections of another kind", health.sockets_ignored),
                ("bytes passed over in connections older than this run", health.skipped_bytes),
                ("malformed packets", health.malformed),
                ("packets that the kernel had no memory for", health.untracked),
            ];
            list(&mut text, "capture", seen.into_iter());
        }
        let lost = [
            ("bytes", self.lost_bytes),
            ("events", self.lost_events),
            ("calls that did not reach a sink", self.dropped_calls),
        ];
        list(&mut text, "lost", lost.into_iter());
        for tally in &self.sinks {
            let counts = [
                ("arrived", tally.arrived),
                ("refused", tally.refused),
                ("failures", tally.failures),
                ("slowest in microseconds", tally.slowest_us),
                ("lost alerts", tally.lost_alerts),
                ("bytes that wait", tally.waiting_bytes),
            ];
            list(&mut text, tally.sink, counts.into_iter());
        }
        let counters = serde_json::to_value(counters).unwrap_or_default();
        let counters = counters.as_object().into_iter().flatten();
        let counters = counters.filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?)));
        list(&mut text, "decoder", counters);
        text
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "keywatch: {content}");
}

fn list<'a>(text: &mut String, name: &str, counts: impl Iterator<Item = (&'a str, u64)>) {
    let shown: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    if !shown.is_empty() {
        line(text, format_args!("{name}: {}", shown.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_zero_is_shown() {
        let mut counters = Counters::default();
        counters.calls += 3;
        let summary = Summary { lost_bytes: 7, ..Summary::default() };
        let text = summary.text(&counters);
        assert!(text.contains("keywatch: lost: bytes 7\n"), "{text}");
        assert!(text.contains("keywatch: decoder: calls 3\n"), "{text}");
        assert!(text.contains("keywatch: no alerts\n"), "{text}");
        assert!(!text.contains("outcomes"), "{text}");
    }

    #[test]
    fn outcomes_stand_at_their_own_place() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
    }
}
