//! What librdkafka tells back: deliveries, troubles, and its own log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message};

use crate::sinks::seldom::Seldom;
use crate::sinks::spool::lock;

/// A record arrived, or will not.
#[derive(Debug)]
pub(super) struct Delivery {
    /// What the record was sent with.
    pub(super) opaque: usize,
    pub(super) error: Option<KafkaError>,
    /// Of a record that did not arrive: where it was to go, its key and its value.
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) body: Vec<u8>,
}

/// Collects reports for the thread that polls.
pub(super) struct Watch {
    deliveries: Mutex<Vec<Delivery>>,
    away: Mutex<Option<String>>,
    log: Chatter,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { deliveries: Mutex::default(), away: Mutex::default(), log: Chatter::new() }
    }

    /// Deliveries since the last call, in order.
    pub(super) fn take_deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut lock(&self.deliveries))
    }

    /// Why no broker can be used, if librdkafka said so since the last call.
    pub(super) fn take_away(&self) -> Option<String> {
        lock(&self.away).take()
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.write(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut away = lock(&self.away);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                away.get_or_insert_with(|| NOBODY.into());
            }
            // These say more than that no broker can be used, which follows them.
            Some(RDKafkaErrorCode::Authentication) => {
                let mend = "correct the sasl options in sinks.kafka.options";
                *away = Some(format!("{}: {mend}", plain(reason)));
            }
            // A broker that refuses our certificate says so after the handshake (TLS 1.3).
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure)
                if reason.contains("SSL") =>
            {
                let mend = "correct the certificates in sinks.kafka.options";
                *away = Some(format!("{}: {mend}", plain(reason)));
            }
            Some(_) | None => {}
        }
        drop(away);
        self.log.write(RDKafkaLogLevel::Error, "ERROR", reason);
    }
}

/// What is said when nobody is there, or somebody who says nothing.
pub(super) const NOBODY: &str = "no broker answers: start Kafka or correct sinks.kafka.brokers";

/// Without the address before it, and without what librdkafka says about its own timing.
fn plain(reason: &str) -> String {
    let reason = reason.split_once(": ").map_or(reason, |(_, reason)| reason);
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    reason.trim_end_matches([' ', ':', '.']).into()
}

impl ProducerContext<NoCustomPartitioner> for Watch {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let delivery = match result {
            Ok(_) => Delivery {
                opaque,
                error: None,
                topic: String::new(),
                key: String::new(),
                body: Vec::new(),
            },
            Err((error, message)) => Delivery {
                opaque,
                error: Some(error.clone()),
                topic: message.topic().into(),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                body: message.payload().unwrap_or_default().to_vec(),
            },
        };
        lock(&self.deliveries).push(delivery);
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
