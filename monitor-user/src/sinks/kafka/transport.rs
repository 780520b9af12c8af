//! One producer: what one lane of the spool is sent with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::watch::{Delivery, NOBODY, Watch};
use super::{headers, options, topics};
use crate::config;
use crate::sinks::courier::{Fate, Report, Sent, Transport};
use crate::sinks::event::Event;
use crate::sinks::record::Kind;
use crate::sinks::spool::Which;

/// See the module.
pub(super) struct Kafka {
    producer: BaseProducer<Watch>,
    set: config::Kafka,
    source: String,
    in_flight_max: usize,
    /// Events that the dead-letter topic is told of before they count as refused.
    dead: VecDeque<(u64, String, Vec<u8>)>,
    trouble: Option<String>,
    /// Records go one by one, since a batch was larger than the broker takes.
    careful: bool,
    /// What was too large is out of the way; nothing new is taken until the rest has arrived.
    sorted: bool,
    /// How to send in batches again.
    batches: ClientConfig,
    /// Set for the transport after this one.
    careful_next: Arc<AtomicBool>,
}

/// How long the first question to the brokers may take.
const GREETING_MAX: Duration = Duration::from_secs(3);
/// Of a record that is too large, the dead-letter topic gets so much: enough to know it by, and little
/// enough for any broker.
const DEAD_HEAD_BYTES: usize = 512;

impl Kafka {
    /// Makes a producer, and topics where that is wanted. A broker that is away is no error.
    pub(super) fn connect(
        set: &config::Kafka,
        which: Which,
        source: &str,
        careful_next: Arc<AtomicBool>,
    ) -> Result<Kafka, String> {
        let (mut config, in_flight_max) = match which {
            Which::Alerts => (options::alerts(set)?, set.alerts_in_flight_max),
            Which::Activity => (options::activity(set)?, set.activity_queue_max),
        };
        let batches = config.clone();
        let careful = careful_next.swap(false, Ordering::Relaxed);
        if careful {
            config.set("batch.num.messages", "1");
        }
        let producer: BaseProducer<Watch> =
            config.create_with_context(Watch::new()).map_err(|error| options::reason(&error))?;
        let mut kafka = Kafka {
            producer,
            set: set.clone(),
            source: source.into(),
            in_flight_max: usize::try_from(in_flight_max).unwrap_or(usize::MAX),
            dead: VecDeque::new(),
            trouble: None,
            careful,
            sorted: false,
            batches,
            careful_next,
        };
        kafka.greet(&config, which);
        Ok(kafka)
    }

    fn greet(&mut self, config: &ClientConfig, which: Which) {
        let client = self.producer.client();
        // Of all topics: a question after one that is not there would make brokers make it.
        if client.fetch_metadata(None, GREETING_MAX).is_err() {
            self.trouble = Some(why_away(&self.producer));
        } else if self.set.make_topics {
            self.trouble = topics::make(config, &self.set, which).err();
        }
    }

    fn topic(&self, kind: Option<Kind>) -> &str {
        match kind {
            Some(Kind::Alert) | None => &self.set.alerts_topic,
            Some(Kind::Activity) => &self.set.activity_topic,
            Some(Kind::Health) => &self.set.health_topic,
        }
    }

    /// Tells the dead-letter topic of an event, which counts as refused once that has arrived.
    fn bury(&mut self, number: u64, key: &str, topic: &str, reason: String, body: Vec<u8>) {
        let head = &body[..body.len().min(DEAD_HEAD_BYTES)];
        let letter = serde_json::json!({
            "event": "dead_letter",
            "reason": reason,
            "topic": topic,
            "key": key,
            "bytes": body.len(),
            "head": String::from_utf8_lossy(head),
        });
        let letter = letter.to_string();
        let record = BaseRecord::with_opaque_to(&self.set.dlq_topic, DEAD | number as usize)
            .key(key)
            .payload(&letter);
        // When even that fails the event is put aside on this host.
        let _ = self.producer.send(record);
        self.dead.push_back((number, reason, body));
    }

    fn settle(&mut self, delivery: Delivery, reports: &mut Vec<Report>) {
        let number = (delivery.opaque & !DEAD) as u64;
        if delivery.opaque & DEAD != 0 {
            let place = self.dead.iter().position(|(dead, ..)| *dead == number);
            if let Some((_, reason, body)) = place.and_then(|place| self.dead.remove(place)) {
                let reason = match delivery.error {
                    None => reason,
                    Some(error) => format!(
                        "{reason}, and topic {} does not take word of it ({})",
                        self.set.dlq_topic,
                        options::reason(&error)
                    ),
                };
                reports.push(Report { number, fate: Fate::Refused { reason, body } });
            }
            return;
        }
        match delivery.error {
            None => reports.push(Report { number, fate: Fate::Arrived }),
            // A batch is judged as a whole: which of its records is too large shows when each goes alone.
            Some(error) if is_hopeless(&error) && !self.careful => {
                self.careful_next.store(true, Ordering::Relaxed);
                let reason = format!("{}: each goes alone now", options::reason(&error));
                reports.push(Report { number, fate: Fate::Failed(reason) });
            }
            Some(error) if is_hopeless(&error) => {
                let (topic, reason) = (delivery.topic, options::reason(&error));
                self.bury(number, &delivery.key, &topic, reason, delivery.body);
            }
            Some(error) => {
                let reason = format!("{}, topic {}", options::reason(&error), delivery.topic);
                reports.push(Report { number, fate: Fate::Failed(reason) });
            }
        }
    }
}

/// Why a question to the brokers had no answer.
pub(super) fn why_away(producer: &BaseProducer<Watch>) -> String {
    // Only polls bring what librdkafka has to say, one thing each.
    (0..EVENTS_MAX).for_each(|_| producer.poll(Duration::ZERO));
    producer.context().take_away().unwrap_or_else(|| NOBODY.into())
}

/// A broker that is tried for some seconds causes a few dozen events.
const EVENTS_MAX: usize = 1000;

/// Marks the dead letter of a record beside the record itself. Numbers never come near.
const DEAD: usize = 1 << (usize::BITS - 1);

impl Transport for Kafka {
    fn send(&mut self, number: u64, event: &Event) -> Sent {
        if self.sorted {
            return Sent::Full;
        }
        let topic = self.topic(event.kind);
        let mut record = BaseRecord::with_opaque_to(topic, number as usize)
            .payload(&event.body)
            .headers(headers::headers(event, &self.source));
        if !event.key.is_empty() {
            record = record.key(&event.key);
        }
        match self.producer.send(record) {
            Ok(()) => Sent::Taken,
            Err((error, _)) if is_full(&error) => Sent::Full,
            Err((error, _)) if is_hopeless(&error) => {
                let (topic, reason) = (topic.to_owned(), options::reason(&error));
                self.bury(number, &event.key, &topic, reason, event.body.clone());
                Sent::Taken
            }
            Err((error, _)) => Sent::Failed(options::reason(&error)),
        }
    }

    fn poll(&mut self, wait: Duration, reports: &mut Vec<Report>) {
        self.producer.poll(wait);
        for delivery in self.producer.context().take_deliveries() {
            self.settle(delivery, reports);
        }
        // Once what was on its way has been sorted out, batches are worth another try.
        let refused = reports.iter().any(|report| matches!(report.fate, Fate::Refused { .. }));
        self.sorted |= self.careful && refused;
        if self.sorted && self.producer.in_flight_count() == 0 && self.dead.is_empty() {
            self.sorted = false;
            if let Ok(producer) = self.batches.create_with_context(Watch::new()) {
                self.producer = producer;
                self.careful = false;
            }
        }
    }

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn trouble(&mut self) -> Option<String> {
        // An idle connection that ends is no trouble.
        let busy = self.producer.in_flight_count() > 0;
        let away = self.producer.context().take_away().filter(|_| busy);
        self.trouble.take().or(away)
    }
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

/// Errors of the record itself: no broker will ever take it.
fn is_hopeless(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}
