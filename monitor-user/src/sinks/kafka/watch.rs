//! What librdkafka tells back: deliveries, troubles, and its own log.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::seldom::Seldom;

/// Which record of which producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(pub(super) u64);

/// A record arrived, or will not.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) ticket: Ticket,
    pub(super) error: Option<KafkaError>,
}

/// Collects reports for the thread that polls.
pub(super) struct Watch {
    reports: Mutex<Vec<Report>>,
    away: AtomicBool,
    log: Chatter,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { reports: Mutex::default(), away: AtomicBool::new(false), log: Chatter::new() }
    }

    /// Reports since the last call, in order.
    pub(super) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut lock(&self.reports))
    }

    /// Whether no broker could be reached when librdkafka last said something about it; forgets it.
    pub(super) fn take_away(&self) -> bool {
        self.away.swap(false, Ordering::Relaxed)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.away.store(true, Ordering::Relaxed);
        }
        self.log.write(RDKafkaLogLevel::Error, "ERROR", reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Watch {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        lock(&self.reports).push(Report { ticket: *ticket, error });
    }
}

/// librdkafka's log, at debug level and not too much of it.
pub(super) struct Chatter(Mutex<Seldom>);

impl Chatter {
    pub(super) fn new() -> Chatter {
        Chatter(Mutex::new(Seldom::new(Duration::from_secs(1))))
    }

    pub(super) fn write(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(held_back) = lock(&self.0).allow(Instant::now()) {
            tracing::debug!(target: "librdkafka", ?level, facility, held_back, "{message}");
        }
    }
}

/// Says nothing: for a single question to the brokers.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext<NoCustomPartitioner> for Quiet {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A panic elsewhere leaves the data as good as it was.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
