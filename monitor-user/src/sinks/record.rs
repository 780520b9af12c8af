//! What waits in a spool: the forms in which records lie on disk, whatever the sink makes of them.

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;
use serde::{Deserialize, Serialize};

use super::spool::{Gap, Head};
use crate::compact::{self, Glance, Packed, Summary};

/// A record that a sink delivers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// An alert, or a later state of one.
    Alert(Box<Alert>),
    /// A call; `ordinal` tells apart calls that one packet carried.
    Call { call: Box<ApiCall>, ordinal: u64 },
    /// Calls that were given up.
    Gap(ActivityGap),
}

/// Calls that a sink had no room for: they are missing from its activity, not from detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActivityGap {
    /// Always `activity_gap`.
    pub(crate) event: String,
    /// Which sink.
    pub(crate) sink: String,
    /// Host that saw them.
    pub(crate) host: String,
    /// How many; `None` when that is not known.
    pub(crate) calls: Option<u64>,
    /// Time of the first, if known.
    pub(crate) first: Option<EventTime>,
    /// Time of the last, if known.
    pub(crate) last: Option<EventTime>,
    /// Why, in words.
    pub(crate) reason: String,
}

impl ActivityGap {
    pub(crate) fn new(gap: Gap, sink: &str, host: &str) -> ActivityGap {
        let time = |time| Some(EventTime(time));
        ActivityGap {
            event: "activity_gap".into(),
            sink: sink.into(),
            host: host.into(),
            calls: (gap.calls > 0).then_some(gap.calls),
            first: gap.times.and_then(|(first, _)| time(first)),
            last: gap.times.and_then(|(_, last)| time(last)),
            reason: gap.reason.into(),
        }
    }
}

/// What a record is about, for routing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Alerts.
    Alert,
    /// Calls.
    Activity,
    /// Trouble with Keywatch itself.
    Health,
}

/// Kinds on disk.
const ALERT: u8 = 1;
const CALL: u8 = 2;
const GAP: u8 = 3;

/// Writes an alert into `out`; `seen` is the time of the bytes that it came of.
pub(crate) fn alert(alert: &Alert, seen: EventTime, out: &mut Vec<u8>) -> serde_json::Result<Head> {
    out.clear();
    serde_json::to_writer(out, alert)?;
    Ok(Head { time: seen.0, kind: ALERT })
}

/// Writes a call into `out`.
pub(crate) fn call(call: &ApiCall, ordinal: u64, out: &mut Vec<u8>) -> Head {
    out.clear();
    compact::number(out, ordinal);
    compact::encode(call, out);
    Head { time: call.time.0, kind: CALL }
}

/// Writes calls that were alike into `out`.
pub(crate) fn summary(summary: &Summary, ordinal: u64, out: &mut Vec<u8>) -> Head {
    out.clear();
    compact::number(out, ordinal);
    compact::encode_summary(summary, out);
    Head { time: summary.call.time.0, kind: CALL }
}

/// Writes a gap into `out`.
pub(crate) fn gap(gap: &ActivityGap, out: &mut Vec<u8>) -> serde_json::Result<Head> {
    out.clear();
    serde_json::to_writer(out, gap)?;
    Ok(Head { time: gap.last.unwrap_or_default().0, kind: GAP })
}

/// A call as it lies on disk: what it is sent with, its ordinal and its compact form. `None` when it is
/// no call, or none that can be read.
pub(crate) fn packed(head: Head, payload: &[u8]) -> Option<(Glance, u64, &[u8])> {
    if head.kind != CALL {
        return None;
    }
    let mut reader = compact::Reader(payload);
    let ordinal = reader.number().ok()?;
    let glance = compact::glance(reader.0).ok()?;
    Some((glance, ordinal, reader.0))
}

impl Record {
    /// Reads a record back; an error says in a few words what is wrong with it.
    pub(crate) fn read(head: Head, payload: &[u8]) -> Result<Record, String> {
        let json = |error: serde_json::Error| error.to_string();
        match head.kind {
            ALERT => serde_json::from_slice(payload).map(Record::Alert).map_err(json),
            GAP => serde_json::from_slice(payload).map(Record::Gap).map_err(json),
            CALL => {
                let mut reader = compact::Reader(payload);
                let ordinal = reader.number().map_err(|error| error.to_string())?;
                match compact::decode_packed(reader.0).map_err(|error| error.to_string())? {
                    Packed::Call(call) => Ok(Record::Call { call: Box::new(call), ordinal }),
                    Packed::Summary(it) => Err(format!(
                        "it stands for {} calls, which only the compact form can say",
                        it.count
                    )),
                }
            }
            kind => Err(format!("records of kind {kind} are not known")),
        }
    }

    /// To look at.
    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Record::Alert(alert) => View::Alert(alert),
            Record::Call { call, ordinal } => View::Call { call, ordinal: *ordinal },
            Record::Gap(gap) => View::Gap(gap),
        }
    }
}

/// A record that belongs to somebody else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// See [`Record::Alert`].
    Alert(&'a Alert),
    /// See [`Record::Call`].
    Call { call: &'a ApiCall, ordinal: u64 },
    /// See [`Record::Gap`].
    Gap(&'a ActivityGap),
}

impl View<'_> {
    /// What it is about.
    pub(crate) fn kind(self) -> Kind {
        match self {
            View::Alert(_) => Kind::Alert,
            View::Call { .. } => Kind::Activity,
            View::Gap(_) => Kind::Health,
        }
    }

    /// How bad it is; a gap is worth a look today.
    pub(crate) fn severity(self) -> Option<Severity> {
        match self {
            View::Alert(alert) => Some(alert.severity),
            View::Call { .. } => None,
            View::Gap(_) => Some(Severity::Medium),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::tests::full;
    use crate::sinks::event::tests::alert as an_alert;

    #[test]
    fn records_come_back_as_they_were() {
        let mut bytes = Vec::new();
        let head = alert(&an_alert(7), EventTime(9), &mut bytes).unwrap();
        assert_eq!(head.time, 9);
        assert_eq!(Record::read(head, &bytes), Ok(Record::Alert(Box::new(an_alert(7)))));
        let head = call(&full(), 300, &mut bytes);
        let expected = Record::Call { call: Box::new(full()), ordinal: 300 };
        assert_eq!(Record::read(head, &bytes), Ok(expected));
        let lost = Gap { calls: 0, times: Some((1, 2)), reason: "the spool is full" };
        let lost = ActivityGap::new(lost, "kafka", "edge");
        let head = gap(&lost, &mut bytes).unwrap();
        assert_eq!(Record::read(head, &bytes), Ok(Record::Gap(lost)));
    }

    #[test]
    fn what_is_no_record_is_named() {
        let read =
            |kind, payload: &[u8]| Record::read(Head { time: 0, kind }, payload).unwrap_err();
        assert_eq!(read(9, b""), "records of kind 9 are not known");
        assert_eq!(read(CALL, b""), "it is cut off");
        assert!(read(ALERT, b"{").starts_with("EOF while parsing"));
    }
}
