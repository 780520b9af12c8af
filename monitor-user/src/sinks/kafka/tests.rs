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

use super::record::tests::alert;
use super::*;

/// Far more than anything here takes; only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn broker() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("keywatch.alerts", 1, 1).unwrap();
    cluster.create_topic("keywatch.activity", 1, 1).unwrap();
    cluster
}

fn settings(brokers: String, spool: &Path, flush_max: Duration) -> config::Kafka {
    config::Kafka {
        brokers: brokers.split(',').map(str::to_owned).collect(),
        spool_dir: Some(spool.into()),
        flush_max,
        ..config::Kafka::default()
    }
}

fn open(set: &config::Kafka) -> Kafka {
    Kafka::open(set, "edge", WhenFull::Drop).unwrap()
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

fn spooled(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("alerts.jsonl")).unwrap()
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
    assert_eq!(spooled(dir.path()), "");
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
    assert_eq!(spooled(dir.path()).lines().count(), 3);
    drop(sink);

    let mut sink = open(&settings(cluster.bootstrap_servers(), dir.path(), PATIENCE));
    sink.alert(&alert(3)).unwrap();
    sink.finish().unwrap();
    assert_eq!(spooled(dir.path()), "");
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
    assert_eq!(spooled(dir.path()), "");
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
    assert_eq!(spooled(dir.path()), "");
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
    let rejected = std::fs::read_to_string(dir.path().join("rejected.jsonl")).unwrap();
    assert_eq!(serde_json::from_str::<Alert>(rejected.trim()).unwrap(), large);
}
