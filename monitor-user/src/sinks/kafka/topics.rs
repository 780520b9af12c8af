//! Topics that are not there yet, made as the config says.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

use super::{options, watch};
use crate::config;
use crate::fault::Misuse;
use crate::sinks::spool::Which;

/// How long the controller may take.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Before topics are asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Makes what is missing for a lane; an error is a line that says what to do by hand.
pub(super) fn make(config: &ClientConfig, set: &config::Kafka, which: Which) -> Result<(), String> {
    make_all(config, &plans(set, which))
}

/// Makes what the fleet needs: what it reads, and what it writes.
pub(crate) fn make_for_fleet(
    config: &ClientConfig,
    set: &config::Kafka,
    fleet: &config::Fleet,
) -> Result<(), String> {
    let mut all = plans(set, Which::Activity);
    all.push(Plan { topic: &fleet.sources_topic, ..all[0].clone() });
    all.push(Plan { topic: &fleet.groups_topic, ..all[0].clone() });
    all.push(Plan { topic: &fleet.state_topic, is_compacted: true, ..all[0].clone() });
    all.extend(plans(set, Which::Alerts));
    make_all(config, &all)
}

/// In how many partitions calls are, once every topic is there. States need a place beside each partition
/// that is read.
pub(crate) fn check_for_fleet(
    config: &ClientConfig,
    set: &config::Kafka,
    fleet: &config::Fleet,
) -> anyhow::Result<u32> {
    let read = [&set.activity_topic, &fleet.sources_topic, &fleet.groups_topic];
    let begun = Instant::now();
    let (parts, there) = loop {
        let (_, metadata) = known(config).map_err(|reason| anyhow!("{reason}"))?;
        let partitions = |topic: &str| {
            let found = metadata.topics().iter().find(|known| known.name() == topic);
            let count = found.map(|topic| topic.partitions().len()).filter(|count| *count > 0);
            count.ok_or_else(|| topic.to_owned())
        };
        let all: Result<Vec<usize>, String> = read.iter().map(|topic| partitions(topic)).collect();
        match all.and_then(|all| Ok((all, partitions(&fleet.state_topic)?))) {
            Ok(found) => break found,
            // Brokers hear one after the other of topics that were made just now.
            Err(_) if set.make_topics && begun.elapsed() < WAIT_MAX => {
                std::thread::sleep(AGAIN_AFTER)
            }
            Err(missing) => {
                let line = format!(
                    "topic {missing} is not there: make it by hand, or set \
                     sinks.kafka.make_topics = true"
                );
                return Err(Misuse(line).into());
            }
        }
    };
    let needed = parts.iter().copied().fold(0, usize::max);
    if there < needed {
        let line = format!(
            "topic {} has {there} partitions, and others have {needed}: make it by hand with as many, \
             and cleanup.policy=compact",
            fleet.state_topic
        );
        return Err(Misuse(line).into());
    }
    Ok(u32::try_from(parts[0])?)
}

/// Who can make topics, and those that there are.
fn known(config: &ClientConfig) -> Result<(AdminClient<watch::Quiet>, Metadata), String> {
    let admin: AdminClient<watch::Quiet> =
        config.create_with_context(watch::Quiet).map_err(|error| options::reason(&error))?;
    let metadata =
        admin.inner().fetch_metadata(None, WAIT_MAX).map_err(|error| options::reason(&error))?;
    Ok((admin, metadata))
}

fn make_all(config: &ClientConfig, plans: &[Plan<'_>]) -> Result<(), String> {
    let (admin, metadata) = known(config)?;
    let there: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    let missing: Vec<&Plan<'_>> =
        plans.iter().filter(|plan| !there.contains(&plan.topic)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let topics: Vec<NewTopic<'_>> = missing.iter().map(|plan| plan.new_topic()).collect();
    let options =
        AdminOptions::new().operation_timeout(Some(WAIT_MAX)).request_timeout(Some(WAIT_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let results = runtime
        .block_on(admin.create_topics(&topics, &options))
        .map_err(|error| options::reason(&error))?;
    for (plan, result) in missing.iter().zip(results) {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(format!(
                    "topic {topic} is not there and cannot be made ({code}): make it by hand with \
                     {} partitions, or set sinks.kafka.make_topics = false",
                    plan.partitions
                ));
            }
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Plan<'a> {
    topic: &'a str,
    partitions: i32,
    replication: i32,
    retention_ms: String,
    /// The last record of each key stays, whatever its age.
    is_compacted: bool,
}

fn plans(set: &config::Kafka, which: Which) -> Vec<Plan<'_>> {
    let plan = |topic, retention: Duration| Plan {
        topic,
        partitions: i32::try_from(set.partitions).unwrap_or(i32::MAX),
        replication: i32::try_from(set.replication).unwrap_or(i32::MAX),
        retention_ms: retention.as_millis().to_string(),
        is_compacted: false,
    };
    match which {
        Which::Alerts => {
            let topics = [&set.alerts_topic, &set.health_topic, &set.dlq_topic];
            topics.map(|topic| plan(topic, set.alerts_retention)).into()
        }
        Which::Activity => vec![plan(&set.activity_topic, set.activity_retention)],
    }
}

impl Plan<'_> {
    fn new_topic(&self) -> NewTopic<'_> {
        // KIP-464: -1 is what the broker is set to.
        let replication = if self.replication == 0 { -1 } else { self.replication };
        let topic =
            NewTopic::new(self.topic, self.partitions, TopicReplication::Fixed(replication));
        if self.is_compacted {
            // Only what stands in a closed segment is compacted, and only when a fifth of it is old: by
            // default a gigabyte, and half. Whoever takes over reads all of it.
            topic
                .set("cleanup.policy", "compact")
                .set("segment.bytes", "33554432")
                .set("min.cleanable.dirty.ratio", "0.2")
        } else {
            topic.set("retention.ms", &self.retention_ms)
        }
    }
}
