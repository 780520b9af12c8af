//! What goes out: a record in the form that a sink was told to use, with the key that keeps one
//! actor's records in order and what CloudEvents 1.0 says about it.

use std::fmt::Write;

use monitor_core::alert::{Alert, Entity, Severity, network_name};
use monitor_core::call::Key;
use monitor_core::time::EventTime;

use super::format::{self, Format};
use super::record::{self, Kind, View};
use super::spool::Head;
use crate::compact::Glance;

/// A record on its way out. Reused from record to record.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    /// What it is about.
    pub(crate) kind: Option<Kind>,
    /// How bad.
    pub(crate) severity: Option<Severity>,
    /// Records of one key stay in order; empty when it has none.
    pub(crate) key: String,
    /// The same for the same record, so that repeats can be told.
    pub(crate) id: String,
    /// Type of the event, for CloudEvents.
    pub(crate) kind_name: &'static str,
    /// When it happened.
    pub(crate) time: EventTime,
    /// Media type of the body.
    pub(crate) content_type: &'static str,
    /// In the form asked for.
    pub(crate) body: Vec<u8>,
}

/// Makes events of records.
pub(crate) struct Writer {
    format: Format,
    activity_format: Format,
    host: String,
}

impl Writer {
    /// `host` is the host that records name.
    pub(crate) fn new(format: Format, host: &str) -> Writer {
        Writer { format, activity_format: format, host: host.into() }
    }

    /// The same with another form of calls.
    pub(crate) fn with_calls_as(self, activity_format: Format) -> Writer {
        Writer { activity_format, ..self }
    }

    /// Fills `event` with a call that lies on disk in the form in which it goes out. False when it does
    /// not, and has to be read.
    pub(crate) fn forward(&self, head: Head, payload: &[u8], event: &mut Event) -> bool {
        if self.activity_format != Format::Compact {
            return false;
        }
        let Some((call, ordinal, bytes)) = record::packed(head, payload) else { return false };
        event.clear();
        (event.kind, event.severity) = (Some(Kind::Activity), None);
        let _ = event.name_call(call, ordinal);
        (event.kind_name, event.content_type) = format::COMPACT_CALL;
        event.body.extend_from_slice(bytes);
        true
    }

    /// Fills `event` with what is to be sent of `record`.
    pub(crate) fn write(&self, record: View<'_>, event: &mut Event) {
        event.kind = Some(record.kind());
        event.severity = record.severity();
        event.clear();
        // Writing to a text never fails.
        let _ = match record {
            View::Alert(alert) => {
                event.time = alert.time;
                alert_key(alert, &mut event.key)
                    .and_then(|()| write!(event.id, "{}.{}", alert.id, alert.revision))
            }
            View::Call { call, ordinal } => {
                // Before and after the secret changes a key has one partition.
                let key = call.key.as_ref().map(Key::lasting);
                event.name_call(Glance { time: call.time, flow: call.flow.id, key }, ordinal)
            }
            View::Gap(gap) => {
                event.time = gap.last.unwrap_or_default();
                let first = gap.first.unwrap_or_default().0;
                event.key.push_str(&gap.host);
                write!(event.id, "gap.{}.{first}.{}", gap.sink, gap.calls.unwrap_or(0))
            }
        };
        let format = match record {
            View::Call { .. } => self.activity_format,
            View::Alert(_) | View::Gap(_) => self.format,
        };
        format::write(format, record, &self.host, event);
    }
}

impl Event {
    fn clear(&mut self) {
        self.key.clear();
        self.id.clear();
        self.body.clear();
    }

    fn name_call(&mut self, call: Glance, ordinal: u64) -> std::fmt::Result {
        let Glance { time, flow, key } = call;
        self.time = time;
        key.map_or(Ok(()), |key| write!(self.key, "{key}"))?;
        write!(self.id, "{flow}.{}.{ordinal}", time.0)
    }
}

/// Records of one entity have one key, and so stay in order on one partition.
fn alert_key(alert: &Alert, key: &mut String) -> std::fmt::Result {
    match alert.entity {
        Entity::Key(id) => write!(key, "{id}"),
        Entity::Client(ip) => write!(key, "{ip}"),
        Entity::Network(first) => write!(key, "{}", network_name(first)),
        Entity::Group(id) => write!(key, "{id}"),
        Entity::Host => write!(key, "{}", alert.host),
    }
}

/// Where events of a host come from, as CloudEvents wants it: a URI reference.
pub(crate) fn source(host: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-._~".contains(c) { c } else { '_' };
    format!("/keywatch/{}", host.chars().map(legal).collect::<String>())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::borrow::Cow;

    use monitor_core::alert::{AlertId, Finding, GroupId};
    use monitor_core::call::KeyId;

    use super::*;
    use crate::compact::tests::{bare, full};

    /// An alert with this number.
    pub(crate) fn alert(number: u64) -> Alert {
        Alert {
            id: AlertId(number),
            revision: 2,
            time: EventTime(1_795_464_000_000_000_000),
            severity: Severity::High,
            confidence: 0.9,
            entity: Entity::Key(KeyId(7)),
            title: "Key used from a new network".into(),
            explanation: "This key did what it never did.".into(),
            first_step: "Lock the key.".into(),
            findings: vec![Finding {
                detector: Cow::Borrowed("D5"),
                name: Cow::Borrowed("new network"),
                time: EventTime(1_795_464_000_000_000_000),
                expected: "calls from 192.0.2.0/24".into(),
                seen: "a call from 203.0.113.9".into(),
                evidence: 5.5,
                severity: Severity::High,
                attack: vec![Cow::Borrowed("T1078.004")],
                owasp: vec![Cow::Borrowed("API2")],
            }],
            first_seen: EventTime(1_795_463_000_000_000_000),
            last_seen: EventTime(1_795_464_000_000_000_000),
            flows: vec![full().flow.id],
            calls: 1,
            complete: true,
            host: "edge 1".into(),
            part_of: None,
        }
    }

    #[test]
    fn what_is_forwarded_is_what_would_be_written() {
        let mut bytes = Vec::new();
        for call in [full(), bare()] {
            let head = record::call(&call, 3, &mut bytes);
            let writer = Writer::new(Format::Native, "edge");
            let mut forwarded = Event { severity: Some(Severity::Low), ..Event::default() };
            assert!(!writer.forward(head, &bytes, &mut forwarded), "it has to be read");
            let writer = writer.with_calls_as(Format::Compact);
            assert!(writer.forward(head, &bytes, &mut forwarded));
            let mut written = Event::default();
            writer.write(View::Call { call: &call, ordinal: 3 }, &mut written);
            assert_eq!(forwarded, written);
            assert!(!writer.forward(head, &bytes[..9], &mut forwarded), "a torn call");
        }
        let head = record::alert(&alert(1), EventTime(0), &mut bytes).unwrap();
        let writer = Writer::new(Format::Compact, "edge");
        assert!(!writer.forward(head, &bytes, &mut Event::default()), "an alert");
    }

    #[test]
    fn every_entity_has_a_key() {
        let key = |entity| {
            let mut key = String::new();
            alert_key(&Alert { entity, ..alert(1) }, &mut key).unwrap();
            key
        };
        assert_eq!(key(Entity::Key(KeyId(7))), "k_00000000000000000000000000000007");
        assert_eq!(key(Entity::Client("2001:db8::1".parse().unwrap())), "2001:db8::1");
        assert_eq!(key(Entity::Network("192.0.2.0".parse().unwrap())), "192.0.2.0/24");
        assert_eq!(key(Entity::Network("2001:db8::".parse().unwrap())), "2001:db8::/48");
        assert_eq!(key(Entity::Group(GroupId(7))), "g_0000000000000007");
        assert_eq!(key(Entity::Host), "edge 1");
    }

    #[test]
    fn an_event_says_what_it_is() {
        let writer = Writer::new(Format::Native, "edge 1");
        assert_eq!(source("edge 1"), "/keywatch/edge_1");
        let mut event = Event::default();
        writer.write(View::Alert(&alert(0xab)), &mut event);
        assert_eq!(event.id, "a_00000000000000ab.2");
        assert_eq!(event.kind_name, "keywatch.alert.v1");
        assert_eq!((event.kind, event.severity), (Some(Kind::Alert), Some(Severity::High)));
        assert_eq!(serde_json::from_slice::<Alert>(&event.body).unwrap(), alert(0xab));
        writer.write(View::Call { call: &full(), ordinal: 4 }, &mut event);
        assert_eq!(event.id, "f_6a4ffe9c13c7fe69.1795464000123456789.4");
        assert_eq!(event.key, "k_00000010000000000000000000000000", "the oldest id");
    }
}
