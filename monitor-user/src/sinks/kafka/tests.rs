//! The sink against librdkafka's own mock broker: away, back, and slow.

use std::path::Path;
use std::time::{Duration, Instant};

use monitor_core::alert::Alert;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::*;
use crate::compact;
use crate::compact::tests::full;
use crate::sinks::event::tests::alert;

/// Far more than anything here takes; only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn broker() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("keywatch.alerts", 1, 1).unwrap();
    cluster.create_topic("keywatch.activity", 1, 1).unwrap();
    cluster
}

struct Settings {
    sinks: config::Sinks,
    spools: std::path::PathBuf,
}

fn settings(brokers: String, spools: &Path, flush_max: Duration) -> Settings {
    let kafka = config::Kafka {
        brokers: brokers.split(',').map(str::to_owned).collect(),
        flush_max,
        format: crate::sinks::Format::Native,
        // The mock broker makes topics by itself and nobody else's.
        make_topics: false,
        ..config::Kafka::default()
    };
    let spool = config::Spool { alerts_reserve_bytes: 1 << 20, ..config::Spool::default() };
    Settings {
        sinks: config::Sinks { kafka, spool, ..config::Sinks::default() },
        spools: spools.into(),
    }
}

fn open(set: &Settings) -> Box<dyn Sink> {
    loop {
        match super::open(&set.sinks, &set.spools, "edge", WhenFull::Drop) {
            // A child that another test is starting holds the lock a moment longer.
            Err(error) if error.to_string().starts_with("another keywatch") => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Reads `count` alerts back: their numbers in order of arrival, and the last one's key and type.
fn arrived(cluster: &MockCluster<'_, DefaultProducerContext>, count: usize) -> (Vec<u64>, String) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "unused")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("keywatch.alerts", 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut numbers = Vec::new();
    let mut about = String::new();
    while numbers.len() < count && Instant::now() < deadline {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let alert: Alert = serde_json::from_slice(message.payload().unwrap()).unwrap();
        numbers.push(alert.id.0);
        let headers = message.headers().unwrap();
        let kind = headers.iter().find(|header| header.key == "ce_type").unwrap();
        about = format!(
            "{} {}",
            String::from_utf8_lossy(message.key().unwrap()),
            String::from_utf8_lossy(kind.value.unwrap())
        );
    }
    (numbers, about)
}

/// Segments in the spool.
fn spooled(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("kafka")).unwrap();
    entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "seg")).count()
}

#[test]
fn alerts_arrive_and_leave_the_spool() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    for number in 0..50 {
        sink.alert(&alert(number)).unwrap();
    }
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), 0);
    let (numbers, about) = arrived(&cluster, 50);
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(about, "k_00000000000000000000000000000007 keywatch.alert.v1");
}

#[test]
fn alerts_outlive_a_run_without_a_broker() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on port 1.
    let away = settings("127.0.0.1:1".into(), dir.path(), Duration::ZERO);
    let mut sink = open(&away);
    for number in 0..3 {
        sink.alert(&alert(number)).unwrap();
    }
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), 1);
    drop(sink);

    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    sink.alert(&alert(3)).unwrap();
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), 0);
    assert_eq!(arrived(&cluster, 4).0, [0, 1, 2, 3]);
}

#[test]
fn delivery_goes_on_when_the_broker_is_back() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    sink.alert(&alert(0)).unwrap();
    assert_eq!(arrived(&cluster, 1).0, [0]);
    cluster.broker_down(1).unwrap();
    for number in 1..20 {
        sink.alert(&alert(number)).unwrap();
    }
    cluster.broker_up(1).unwrap();
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), 0);
    assert_eq!(arrived(&cluster, 20).0, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_refusal_is_not_the_end() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    // As before somebody has given the right to write to the topic.
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    for number in 0..5 {
        sink.alert(&alert(number)).unwrap();
    }
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), 0);
    let (numbers, _) = arrived(&cluster, 5);
    let first_of_each: Vec<u64> =
        (0..5).filter_map(|number| numbers.iter().find(|got| **got == number)).copied().collect();
    assert_eq!(first_of_each, (0..5).collect::<Vec<_>>(), "{numbers:?}");
}

#[test]
fn an_alert_that_no_broker_takes_does_not_block_the_others() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    let large = Alert { explanation: "x".repeat(2_000_000), ..alert(1) };
    for alert in [&alert(0), &large, &alert(2)] {
        sink.alert(alert).unwrap();
    }
    sink.finish().unwrap();
    assert_eq!(arrived(&cluster, 2).0, [0, 2]);
    let refused = std::fs::read_to_string(dir.path().join("kafka/refused")).unwrap();
    assert_eq!(serde_json::from_str::<Alert>(refused.trim()).unwrap(), large);
    let letters = values(&cluster, "keywatch.dlq", 1);
    let letter: serde_json::Value = serde_json::from_slice(&letters[0].1).unwrap();
    assert_eq!(letter["topic"], "keywatch.alerts");
    assert_eq!(letter["bytes"], refused.trim().len());
    assert!(letter["reason"].as_str().unwrap().contains("too large"), "{letter}");
}

#[test]
fn calls_arrive_in_the_form_asked_for() {
    let cluster = broker();
    let dir = tempfile::tempdir().unwrap();
    let mut set = settings(cluster.bootstrap_servers(), dir.path(), PATIENCE);
    set.sinks.kafka.format = crate::sinks::Format::Compact;
    let mut sink = open(&set);
    for ordinal in 0..1000 {
        sink.call(&full(), ordinal).unwrap();
    }
    sink.finish().unwrap();
    let calls = values(&cluster, "keywatch.activity", 1000);
    assert_eq!(calls.len(), 1000);
    assert_eq!(String::from_utf8_lossy(&calls[0].0), full().key.unwrap().lasting().to_string());
    assert!(calls.iter().all(|(_, call)| compact::decode(call) == Ok(full())));
    assert_eq!((sink.dropped(), spooled(dir.path())), (0, 0));
}

/// Keys and values of a topic's first records.
fn values(
    cluster: &MockCluster<'_, DefaultProducerContext>,
    topic: &str,
    count: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "unused")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..if topic == "keywatch.dlq" { 4 } else { 1 } {
        partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut values = Vec::new();
    while values.len() < count && Instant::now() < deadline {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let part = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
        values.push((part(message.key()), part(message.payload())));
    }
    values
}
