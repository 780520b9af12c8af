//! From the config to librdkafka's options.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config;
use crate::fault::Misuse;

/// Options that have a key of their own in the config.
const ELSEWHERE: [(&str, &str); 2] =
    [("bootstrap.servers", "brokers"), ("metadata.broker.list", "brokers")];
/// Options on which the promise rests that no alert is dropped and none overtakes another.
const FIXED: [&str; 7] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "enable.gapless.guarantee",
];

/// Whether librdkafka knows every option; an error names the first that it does not take.
pub fn check_options(set: &config::Kafka) -> Result<(), String> {
    base(set).map(|_| ())
}

/// For the producer of alerts: small, quick, and it never gives up.
pub(super) fn alerts(set: &config::Kafka) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    // 0: no time limit. What is not delivered stays first in line.
    config.set("message.timeout.ms", "0");
    // Alerts are rare and urgent; librdkafka's own default.
    config.set("linger.ms", "5");
    config.set("queue.buffering.max.messages", set.alerts_in_flight_max.to_string());
    extend(config, set)
}

/// For the producer of calls: large batches, bounded in messages and bytes.
pub(super) fn activity(set: &config::Kafka) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    // Batches of 50 ms compress well and still arrive within the second.
    config.set("linger.ms", "50");
    config.set("queue.buffering.max.messages", set.activity_queue_max.to_string());
    config.set(
        "queue.buffering.max.kbytes",
        (set.activity_queue_bytes_max / 1024).clamp(1, i32::MAX as u64).to_string(),
    );
    extend(config, set)
}

/// For a reader of topics that belongs to no group.
pub(crate) fn consumer(set: &config::Kafka) -> Result<ClientConfig, String> {
    let mut config = base(set)?;
    // What only producers have; librdkafka would warn of each.
    for name in ["acks", "enable.idempotence", "compression.type"] {
        config.remove(name);
    }
    config.set("group.id", "keywatch-tail").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
    Ok(config)
}

/// For a member of the fleet's group: it keeps its partitions through rebalances, and is missed soon.
pub(crate) fn member(set: &config::Kafka, group: &str) -> Result<ClientConfig, String> {
    let mut defaults = ClientConfig::new();
    // A member that dies is replaced after this; brokers allow no less than 6 s.
    defaults.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "2000");
    // A rebalance waits for so long for a member that hangs.
    defaults.set("max.poll.interval.ms", "60000");
    // A broker that takes questions and does not answer is given up after this.
    defaults.set("socket.timeout.ms", "10000");
    // What is fetched ahead, of all partitions.
    defaults.set("queued.max.messages.kbytes", "32768");
    let mut config = extend(defaults, set)?;
    for name in ["acks", "enable.idempotence", "compression.type"] {
        config.remove(name);
    }
    config.set("group.id", group).set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false").set("allow.auto.create.topics", "false");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
    Ok(config)
}

/// For what a member of the fleet says: all of it together with how far it has read, or nothing.
pub(crate) fn transactions(set: &config::Kafka, id: &str) -> Result<ClientConfig, String> {
    let mut defaults = ClientConfig::new();
    defaults.set("linger.ms", "5").set("socket.timeout.ms", "10000");
    let mut config = extend(defaults, set)?;
    // What a member that died had begun is in the way of readers for so long.
    config.set("transactional.id", id).set("transaction.timeout.ms", "20000");
    Ok(config)
}

/// Client creation failed: a matter of options that do not go together.
pub(crate) fn refused(error: KafkaError) -> anyhow::Error {
    Misuse(format!("wrong value of sinks.kafka.options: {}", reason(&error))).into()
}

/// In words, without the wrapping that rdkafka puts around them.
pub(crate) fn reason(error: &KafkaError) -> String {
    if let KafkaError::ClientCreation(text) = error {
        return text.clone();
    }
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

fn extend(defaults: ClientConfig, set: &config::Kafka) -> Result<ClientConfig, String> {
    let mut config = base(set)?;
    for (name, value) in defaults.config_map() {
        if !set.options.contains_key(name) {
            config.set(name, value);
        }
    }
    Ok(config)
}

fn base(set: &config::Kafka) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    config
        .set("bootstrap.servers", set.brokers.join(","))
        .set("client.id", "keywatch")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("max.in.flight.requests.per.connection", "5")
        // Half of the default, so that a broker that comes back is not waited for long.
        .set("reconnect.backoff.max.ms", "5000");
    for (name, value) in &set.options {
        if let Some((_, key)) = ELSEWHERE.iter().find(|(option, _)| option == name) {
            return Err(format!("`{name}` has a key of its own: `{key}`"));
        }
        if FIXED.contains(&name.as_str()) {
            return Err(format!("`{name}` cannot be changed: alerts would no longer be safe"));
        }
        let value = value.to_string();
        // One by one, since librdkafka's message may quote a value, and that may be a password.
        match ClientConfig::new().set(name, &value).create_native_config() {
            Ok(_) => config.set(name, value),
            Err(error) => return Err(refusal(name, &error)),
        };
    }
    Ok(config)
}

fn refusal(name: &str, error: &KafkaError) -> String {
    let unknown =
        matches!(error, KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..));
    match unknown {
        true => format!("librdkafka has no option `{name}`"),
        false => format!("librdkafka does not take this value of `{name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaOption;

    fn with(name: &str, value: &str) -> config::Kafka {
        let mut set =
            config::Kafka { brokers: vec!["a:1".into(), "b:2".into()], ..Default::default() };
        set.options.insert(name.into(), KafkaOption::Text(value.into()));
        set
    }

    #[test]
    fn the_promise_is_in_the_options() {
        let config = alerts(&config::Kafka {
            brokers: vec!["a:1".into(), "b:2".into()],
            ..Default::default()
        })
        .unwrap();
        for (name, value) in [
            ("bootstrap.servers", "a:1,b:2"),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "0"),
            ("compression.type", "zstd"),
            ("max.in.flight.requests.per.connection", "5"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert!(config.create_native_config().is_ok());
    }

    #[test]
    fn options_of_the_user_win() {
        assert_eq!(activity(&with("linger.ms", "7")).unwrap().get("linger.ms"), Some("7"));
        assert_eq!(alerts(&with("client.id", "x")).unwrap().get("client.id"), Some("x"));
    }

    #[test]
    fn a_wrong_option_is_named_and_its_value_is_not() {
        for (name, value, reason) in [
            ("lingre.ms", "hunter2", "librdkafka has no option `lingre.ms`"),
            ("linger.ms", "hunter2", "librdkafka does not take this value of `linger.ms`"),
            ("acks", "1", "`acks` cannot be changed: alerts would no longer be safe"),
            ("bootstrap.servers", "c:3", "`bootstrap.servers` has a key of its own: `brokers`"),
        ] {
            assert_eq!(check_options(&with(name, value)), Err(reason.into()));
        }
    }
}
