//! Calls: sent in large batches, dropped and counted when Kafka cannot keep up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use monitor_core::call::ApiCall;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;

use super::watch::Chatter;
use super::{WhenFull, options, record};
use crate::config;
use crate::fault::Misuse;

pub(super) struct Activity {
    producer: ThreadedProducer<Counting>,
    dropped: Arc<AtomicU64>,
    topic: String,
    source: String,
    when_full: WhenFull,
    payload: Vec<u8>,
}

impl Activity {
    pub(super) fn start(set: &config::Kafka, host: &str, when_full: WhenFull) -> Result<Activity> {
        let dropped = Arc::new(AtomicU64::new(0));
        let context = Counting { dropped: Arc::clone(&dropped), log: Chatter::new() };
        let config = options::activity(set).map_err(Misuse)?;
        Ok(Activity {
            producer: config.create_with_context(context).map_err(options::refused)?,
            dropped,
            topic: set.activity_topic.clone(),
            source: record::source(host),
            when_full,
            payload: Vec::new(),
        })
    }

    /// Never waits, unless told so.
    pub(super) fn send(&mut self, call: &ApiCall, ordinal: u64) -> Result<()> {
        self.payload.clear();
        serde_json::to_writer(&mut self.payload, call).context("cannot write a call as JSON")?;
        let key = call.key.as_ref().map(|key| key.id.to_string());
        let mut record = BaseRecord::to(&self.topic)
            .payload(&self.payload)
            .headers(record::call_headers(call, &self.source, ordinal));
        record.key = key.as_ref();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, again))
                    if self.when_full == WhenFull::Wait
                        && error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = again;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err(_) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
    }

    /// Waits for what is on its way; what has not arrived by then counts as dropped.
    pub(super) fn finish(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.producer.flush(left).is_err() {
            let waiting = u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
            self.dropped.fetch_add(waiting, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Counts what did not arrive.
struct Counting {
    dropped: Arc<AtomicU64>,
    log: Chatter,
}

impl ClientContext for Counting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        self.log.write(RDKafkaLogLevel::Error, "ERROR", reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
