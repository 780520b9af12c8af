//! D28: capture itself is impaired: what is not seen cannot be judged.

use super::{Detector, Found, Layer, Report, Rule};
use crate::alert::{Entity, Severity};
use crate::engine::{CaptureSettings, Impairment, Settings};
use crate::time::EventTime;

pub(super) struct CaptureLoss;

static RULE: Rule = Rule {
    id: "D28",
    name: "capture impaired",
    layer: Layer::Invariant,
    attack: &["T1562"],
    owasp: &[],
};

const EVIDENCE: f32 = 5.5;

/// Losses of the running window.
#[derive(Default)]
pub(crate) struct Capture {
    window: u64,
    bytes: u64,
    events: u64,
    /// Bytes and events at which the next report is due.
    report_at: u64,
}

impl Detector for CaptureLoss {
    fn on_impairment(
        &self,
        now: EventTime,
        what: &Impairment,
        capture: &mut Capture,
        settings: &Settings,
        report: &mut Report,
    ) {
        match what {
            Impairment::Detached { program } => report.add(|| {
                found(
                    Severity::High,
                    true,
                    "every capture program attached".into(),
                    format!("{program} is no longer attached"),
                    format!("lost its capture program {program}"),
                )
            }),
            Impairment::Unseen { what } => report.add(|| {
                found(
                    Severity::Medium,
                    true,
                    "every TLS server on a watched port seen from within".into(),
                    format!("the calls inside TLS are not seen of {what}"),
                    format!("does not see inside TLS: {what}"),
                )
            }),
            Impairment::Lost { bytes, events } => {
                let limits = &settings.capture;
                let Some(severity) = capture.add(now, *bytes, *events, limits) else { return };
                let (bytes, events) = (capture.bytes, capture.events);
                report.add(|| {
                    found(
                        severity,
                        false,
                        "nothing lost between kernel and agent".into(),
                        format!("{bytes} bytes and {events} records lost within a minute"),
                        format!("lost {bytes} captured bytes and {events} records within a minute"),
                    )
                });
            }
        }
    }
}

impl Capture {
    /// How bad it is, at the window's first loss, at ten times what was last reported, and when it
    /// becomes severe.
    fn add(
        &mut self,
        now: EventTime,
        bytes: u64,
        events: u64,
        limits: &CaptureSettings,
    ) -> Option<Severity> {
        let window = now.secs() / limits.window_s.max(1);
        if window != self.window {
            *self = Capture { window, ..Capture::default() };
        }
        let was_high = self.is_high(limits);
        self.bytes = self.bytes.saturating_add(bytes);
        self.events = self.events.saturating_add(events);
        let (lost, is_high) = (self.bytes.saturating_add(self.events), self.is_high(limits));
        if lost == 0 || (lost < self.report_at && is_high == was_high) {
            return None;
        }
        self.report_at = lost.saturating_mul(10);
        Some(if is_high { Severity::High } else { Severity::Medium })
    }

    fn is_high(&self, limits: &CaptureSettings) -> bool {
        self.bytes >= limits.lost_bytes_high || self.events >= limits.lost_events_high
    }
}

fn found(severity: Severity, grown: bool, expected: String, seen: String, clause: String) -> Found {
    Found {
        entity: Entity::Host,
        rule: &RULE,
        evidence: EVIDENCE,
        severity,
        alone: true,
        grown,
        complete: false,
        calls: 0,
        expected,
        seen,
        clause,
        title: "Capture is impaired on this host",
        first_step: "Look at the host's load and at who changed its eBPF programs; \
                     calls in this time were seen in part",
    }
}
