//! What a member says: alerts, calls passed on, and how far it has read, in one transaction.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::group::{Place, note_of};
use super::partition::{Partition, Said};
use crate::config;
use crate::fault::{Misuse, tell};
use crate::sinks::event;
use crate::sinks::kafka::{headers, options};

/// How long the brokers may take for a step of a transaction, before it is tried again.
const STEP_MAX: Duration = Duration::from_secs(10);
/// How long brokers may be away at the start.
const START_MAX: Duration = Duration::from_secs(60);
/// A member that is pushed out so often has a double.
const FENCED_MAX: u32 = 5;
/// In this time.
const FENCED_WINDOW: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct Publisher {
    producer: BaseProducer<Silent>,
    config: ClientConfig,
    alerts_topic: String,
    sources_topic: String,
    source: String,
    member: String,
    fenced: u32,
    fenced_since: Instant,
}

/// What became of a transaction.
pub(super) enum Published {
    /// It stands.
    All,
    /// It never was, and this is why.
    Nothing(String),
    /// It may stand or not: only the offsets that are committed tell.
    Unknown,
}

impl Publisher {
    /// Ends what an earlier member of this name left open.
    pub(super) fn start(
        set: &config::Kafka,
        fleet: &config::Fleet,
        place: &str,
    ) -> Result<Publisher> {
        let id = format!("{}.{}", fleet.group, fleet.member);
        let config = options::transactions(set, &id).map_err(Misuse)?;
        let producer = match connect(&config, START_MAX) {
            Ok(producer) => producer,
            Err(error) => bail!("{place} allows no transactions: {}", options::reason(&error)),
        };
        Ok(Publisher {
            producer,
            config,
            alerts_topic: set.alerts_topic.clone(),
            sources_topic: fleet.sources_topic.clone(),
            source: event::source(&fleet.name),
            member: fleet.member.clone(),
            fenced: 0,
            fenced_since: Instant::now(),
        })
    }

    /// Says what partitions have to say. An error is final.
    pub(super) fn publish<'a>(
        &mut self,
        partitions: impl Iterator<Item = (&'a Place, &'a Partition)>,
        group: &ConsumerGroupMetadata,
    ) -> Result<Published> {
        let mut partitions = partitions.peekable();
        if partitions.peek().is_none() {
            return Ok(Published::All);
        }
        let error = match self.attempt(partitions, group) {
            Ok(()) => return Ok(Published::All),
            Err(error) => error,
        };
        let reason = options::reason(&error);
        let is_final = matches!(&error, KafkaError::Transaction(error) if error.is_fatal());
        let aborted = !is_final && retried(|| self.producer.abort_transaction(STEP_MAX)).is_ok();
        if !aborted {
            self.begin_anew(&reason)?;
            return Ok(Published::Unknown);
        }
        Ok(Published::Nothing(reason))
    }

    fn attempt<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a Place, &'a Partition)>,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        self.producer.begin_transaction()?;
        let mut offsets = TopicPartitionList::new();
        for ((topic, number), partition) in partitions {
            for said in &partition.waiting {
                self.send(said)?;
            }
            let mut place = offsets.add_partition(topic, *number);
            place.set_offset(Offset::Offset(partition.next))?;
            place.set_metadata(note_of(partition.last_ms));
        }
        retried(|| self.producer.send_offsets_to_transaction(&offsets, group, STEP_MAX))?;
        retried(|| self.producer.commit_transaction(STEP_MAX))
    }

    fn send(&self, said: &Said) -> Result<(), KafkaError> {
        loop {
            let sent = match said {
                Said::Alert(event) => self.producer.send(
                    BaseRecord::to(&self.alerts_topic)
                        .key(&event.key)
                        .payload(&event.body)
                        .headers(headers::headers(event, &self.source)),
                ),
                Said::Source { key, call } => self.producer.send(
                    BaseRecord::to(&self.sources_topic)
                        .key(key)
                        .payload(call)
                        .headers(OwnedHeaders::new()),
                ),
            };
            match sent {
                Ok(()) => return Ok(()),
                Err((error, _))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// After an error from which a producer does not come back: another program has its name, or brokers
    /// were away for longer than a transaction may take.
    fn begin_anew(&mut self, reason: &str) -> Result<()> {
        if self.fenced_since.elapsed() > FENCED_WINDOW {
            (self.fenced, self.fenced_since) = (0, Instant::now());
        }
        self.fenced += 1;
        if self.fenced >= FENCED_MAX {
            bail!(
                "another member of the fleet has the name {}: give each its own with --member \
                 ({reason})",
                self.member
            );
        }
        tell(&format!("transactions begin anew: {reason}"));
        match connect(&self.config, START_MAX) {
            Ok(producer) => self.producer = producer,
            Err(error) => bail!("no transaction can be begun: {}", options::reason(&error)),
        }
        Ok(())
    }
}

fn connect(config: &ClientConfig, wait: Duration) -> Result<BaseProducer<Silent>, KafkaError> {
    let producer: BaseProducer<Silent> = config.create_with_context(Silent)?;
    let deadline = Instant::now() + wait;
    loop {
        match producer.init_transactions(STEP_MAX) {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < deadline => {}
            result => return result.map(|()| producer),
        }
    }
}

/// Again while librdkafka says that it is worth it, as long as a member may stay away from its group.
fn retried(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match step() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable()
                    && !error.txn_requires_abort()
                    && Instant::now() < deadline => {}
            result => return result,
        }
    }
}

/// Deliveries are judged by their transaction.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", ?error, "{reason}");
    }
}

impl ProducerContext<NoCustomPartitioner> for Silent {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
