//! The topic of alerts.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::Take;
use super::args::TailArgs;
use crate::config;
use crate::fault::{Misuse, tell};
use crate::sinks::kafka::consumer_options;

/// How long the brokers may take to name the partitions.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Gives every alert of the topic to `take`: new ones, or all with `--all`; until the end of every
/// partition with `--once`.
pub(super) fn read(set: &config::Kafka, args: &TailArgs, take: &mut Take<'_>) -> Result<()> {
    let brokers = set.brokers.join(",");
    let options = consumer_options(set).map_err(Misuse)?;
    let consumer: BaseConsumer = options
        .create()
        .map_err(|error| Misuse(format!("wrong value of sinks.kafka.options: {error}")))?;
    let metadata = match consumer.fetch_metadata(Some(&set.alerts_topic), ANSWER_MAX) {
        Ok(metadata) => metadata,
        Err(error) => bail!(
            "Kafka cannot be used: {brokers}: {error}: start it or correct sinks.kafka.brokers"
        ),
    };
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|topic| topic.name() == set.alerts_topic)
        .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
        .collect();
    if partitions.is_empty() {
        bail!(
            "there is no topic {} in Kafka at {brokers}: run a keywatch that sends there, or \
             correct sinks.kafka.alerts_topic",
            set.alerts_topic
        );
    }
    let from = if args.all { Offset::Beginning } else { Offset::End };
    let mut wanted = TopicPartitionList::new();
    for partition in &partitions {
        wanted.add_partition_offset(&set.alerts_topic, *partition, from)?;
    }
    consumer.assign(&wanted)?;
    let mut ended = HashSet::new();
    loop {
        match consumer.poll(Duration::from_millis(500)) {
            None => {}
            Some(Ok(message)) if take(message.payload().unwrap_or_default())?.is_break() => {
                return Ok(());
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
                if args.once && ended.len() == partitions.len() {
                    return Ok(());
                }
            }
            // librdkafka goes on by itself.
            Some(Err(error)) => tell(&format!("Kafka at {brokers}: {error}")),
        }
    }
}
