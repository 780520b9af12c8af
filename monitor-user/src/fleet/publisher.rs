//! What a member says: alerts, calls passed on, and how far it has read, in one transaction.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, ToBytes};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::group::{Note, Place};
use super::partition::{Partition, Said, Stage};
use crate::config;
use crate::fault::{Misuse, tell};
use crate::sinks::event;
use crate::sinks::kafka::{headers, options};
use crate::sinks::lock;

/// How long the brokers may take for a step of a transaction, before it is tried again.
const STEP_MAX: Duration = Duration::from_secs(5);
/// For so long steps are tried again. While they are, this member answers no rebalance, and the whole group
/// waits for it; the brokers end the transaction after 20 s.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// How long brokers may be away at the start.
const START_MAX: Duration = Duration::from_secs(60);
/// A member that is pushed out so often has a double.
const FENCED_MAX: u32 = 5;
/// In this time.
const FENCED_WINDOW: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct Publisher {
    producer: BaseProducer<Deliveries>,
    config: ClientConfig,
    alerts_topic: String,
    sources_topic: String,
    groups_topic: String,
    state_topic: String,
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
    /// It may stand or not, for this reason: only the offsets that are committed tell, once transactions
    /// were begun anew.
    Unknown(String),
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
        let producer = match connect(&config, &fleet.state_topic, START_MAX) {
            Ok(producer) => producer,
            Err(error) => bail!("{place} allows no transactions: {}", options::reason(&error)),
        };
        Ok(Publisher {
            producer,
            config,
            alerts_topic: set.alerts_topic.clone(),
            sources_topic: fleet.sources_topic.clone(),
            groups_topic: fleet.groups_topic.clone(),
            state_topic: fleet.state_topic.clone(),
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
        Ok(match aborted {
            true => Published::Nothing(reason),
            false => Published::Unknown(reason),
        })
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
            for (key, value) in partition.round.iter().flat_map(|round| &round.records) {
                let record = BaseRecord::to(&self.state_topic).partition(*number).key(key);
                self.hand_over(match value {
                    Some(value) => record.payload(&**value),
                    None => record,
                })?;
            }
            let mut place = offsets.add_partition(topic, *number);
            place.set_offset(Offset::Offset(partition.next))?;
            let note = Note { time_ms: partition.last_ms, state: partition.state() };
            place.set_metadata(note.to_string());
        }
        retried(|| self.producer.send_offsets_to_transaction(&offsets, group, STEP_MAX))?;
        retried(|| self.producer.commit_transaction(STEP_MAX))
    }

    fn send(&self, said: &Said) -> Result<(), KafkaError> {
        match said {
            Said::Alert(event) => self.hand_over(
                BaseRecord::to(&self.alerts_topic)
                    .key(&event.key)
                    .payload(&event.body)
                    .headers(headers::headers(event, &self.source)),
            ),
            Said::Passed { to, key, bytes } => {
                let topic = match to {
                    Stage::Groups => &self.groups_topic,
                    Stage::Sources | Stage::Keys => &self.sources_topic,
                };
                self.hand_over(BaseRecord::to(topic).key(key).payload(bytes))
            }
        }
    }

    /// Offset behind the last record of a state that stands in a partition; `None` when none was written.
    pub(super) fn state_end(&self, partition: i32) -> Option<i64> {
        lock(&self.producer.context().ends).get(&partition).copied()
    }

    /// Waits while there is no room.
    fn hand_over<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, V>,
    ) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = back;
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// After an error from which a producer does not come back: another program has its name, or brokers
    /// were away for longer than a transaction may take. What was left open is ended.
    pub(super) fn begin_anew(&mut self, reason: &str) -> Result<()> {
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
        match connect(&self.config, &self.state_topic, START_MAX) {
            Ok(producer) => self.producer = producer,
            Err(error) => bail!("no transaction can be begun: {}", options::reason(&error)),
        }
        Ok(())
    }
}

fn connect(
    config: &ClientConfig,
    state_topic: &str,
    wait: Duration,
) -> Result<BaseProducer<Deliveries>, KafkaError> {
    let deliveries = Deliveries { state_topic: state_topic.into(), ends: Mutex::default() };
    let producer: BaseProducer<Deliveries> = config.create_with_context(deliveries)?;
    let deadline = Instant::now() + wait;
    loop {
        match producer.init_transactions(STEP_MAX) {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < deadline => {}
            result => return result.map(|()| producer),
        }
    }
}

/// Again while librdkafka says that it is worth it, for a while.
fn retried(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + AGAIN_MAX;
    loop {
        match step() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable()
                    && !error.txn_requires_abort()
                    && Instant::now() < deadline =>
            {
                tracing::debug!(%error, "a step of a transaction is tried again");
            }
            result => return result,
        }
    }
}

/// Deliveries are judged by their transaction; noted is where records of states came to stand.
struct Deliveries {
    state_topic: String,
    ends: Mutex<HashMap<i32, i64>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Silent.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Silent.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Ok(record) = result else { return };
        if record.topic() == self.state_topic {
            let mut ends = lock(&self.ends);
            let end = ends.entry(record.partition()).or_default();
            *end = (*end).max(record.offset() + 1);
        }
    }
}

/// Who polls hears of errors.
pub(super) struct Silent;

impl ClientContext for Silent {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", ?error, "{reason}");
    }
}

impl ConsumerContext for Silent {}
