//! Common Event Format, version 0: a line that every SIEM reads, for syslog.

use std::fmt::Write;

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::{ApiCall, Outcome};
use monitor_core::time::EventTime;

use super::{PRODUCT, VERSION, Whom, operation};
use crate::sinks::record::{ActivityGap, View};

/// One line, without its end.
pub(super) fn line(record: View<'_>, id: &str, host: &str) -> String {
    let mut line = Line::default();
    match record {
        View::Alert(alert) => of_alert(&mut line, alert, id),
        View::Call { call, .. } => of_call(&mut line, call, id, host),
        View::Gap(gap) => of_gap(&mut line, gap, id),
    }
    line.0
}

fn of_alert(line: &mut Line, alert: &Alert, id: &str) {
    let strongest = alert.findings.first().map_or("", |finding| &finding.detector);
    let severity = match alert.severity {
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    };
    line.head(strongest, &alert.title, severity);
    line.field("externalId", id);
    line.time("rt", alert.time);
    line.time("start", alert.first_seen);
    line.time("end", alert.last_seen);
    line.field("cnt", &alert.calls.to_string());
    line.field("dvchost", &alert.host);
    let whom = Whom::of(alert);
    whom.key.iter().for_each(|key| line.field("suser", key));
    whom.address.iter().for_each(|address| line.field("src", address));
    if let Some(network) = &whom.network {
        line.field("cs1Label", "network");
        line.field("cs1", network);
    } else if let Some(group) = &whom.group {
        line.field("cs1Label", "group");
        line.field("cs1", group);
    }
    let detectors: Vec<&str> = alert.findings.iter().map(|f| f.detector.as_ref()).collect();
    line.field("cs2Label", "detectors");
    line.field("cs2", &detectors.join(","));
    line.field("cs3Label", "firstStep");
    line.field("cs3", &alert.first_step);
    line.field("msg", &alert.explanation);
}

fn of_call(line: &mut Line, call: &ApiCall, id: &str, host: &str) {
    line.head("call", &operation(call), 0);
    line.field("externalId", id);
    line.time("rt", call.time);
    line.field("dvchost", host);
    line.field("src", &call.flow.client.ip().to_string());
    line.field("spt", &call.flow.client.port.to_string());
    line.field("dst", &call.flow.server.ip().to_string());
    line.field("dpt", &call.flow.server.port.to_string());
    line.field("app", call.protocol.as_str());
    call.key.iter().for_each(|key| line.field("suser", &key.id.to_string()));
    if let Some(request) = &call.request {
        line.field("requestMethod", &request.method);
        line.field("request", &request.target);
    }
    line.field("act", call.op.as_str());
    line.field("outcome", call.outcome.map_or("", Outcome::as_str));
}

fn of_gap(line: &mut Line, gap: &ActivityGap, id: &str) {
    line.head(&gap.event, "Calls are missing from this stream", 5);
    line.field("externalId", id);
    gap.last.iter().for_each(|time| line.time("rt", *time));
    line.field("dvchost", &gap.host);
    line.field("cnt", &gap.calls.map(|calls| calls.to_string()).unwrap_or_default());
    line.field("reason", &gap.reason);
}

#[derive(Default)]
struct Line(String);

impl Line {
    fn head(&mut self, class: &str, name: &str, severity: u8) {
        // Writing to a text never fails, here and below.
        let _ = write!(self.0, "CEF:0|{PRODUCT}|{PRODUCT}|{VERSION}|");
        for part in [class, name] {
            for c in part.chars() {
                match c {
                    '|' | '\\' => self.0.extend(['\\', c]),
                    c if c.is_control() => self.0.push(' '),
                    c => self.0.push(c),
                }
            }
            self.0.push('|');
        }
        let _ = write!(self.0, "{severity}|");
    }

    /// Nothing for what is empty.
    fn field(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.ends_with('|') || self.0.ends_with("\\|") {
            self.0.push(' ');
        }
        let _ = write!(self.0, "{name}=");
        for c in value.chars() {
            match c {
                '=' | '\\' => self.0.extend(['\\', c]),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                c if c.is_control() => self.0.push(' '),
                c => self.0.push(c),
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    fn time(&mut self, name: &str, time: EventTime) {
        self.field(name, &(time.0 / 1_000_000).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::event::tests::alert;

    #[test]
    fn an_alert_is_a_line() {
        let alert = alert(1);
        assert_eq!(
            line(View::Alert(&alert), "a_0000000000000001.2", "edge"),
            "CEF:0|Keywatch|Keywatch|0.1.0|D5|Key used from a new network|8|\
             externalId=a_0000000000000001.2 rt=1795464000000 start=1795463000000 \
             end=1795464000000 cnt=1 dvchost=edge 1 suser=k_00000000000000000000000000000007 \
             cs2Label=detectors cs2=D5 cs3Label=firstStep cs3=Lock the key. \
             msg=This key did what it never did."
        );
    }

    #[test]
    fn hostile_text_stays_in_its_field() {
        let hostile = Alert {
            title: "a|b\\c\nCEF:0|x".into(),
            explanation: "x=y\\z\r\nsrc=1.2.3.4\u{1b}[31m".into(),
            ..alert(1)
        };
        let line = line(View::Alert(&hostile), "id", "edge");
        assert!(line.contains("|a\\|b\\\\c CEF:0\\|x|8|externalId=id "), "{line}");
        assert!(line.ends_with("msg=x\\=y\\\\z\\r\\nsrc\\=1.2.3.4 [31m"), "{line}");
        assert!(!line.contains(|c: char| c.is_control()));
    }
}
