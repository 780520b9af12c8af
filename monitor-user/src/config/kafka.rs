//! `[sinks.kafka]`, and where records wait for it and other network sinks: `[sinks.spool]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use monitor_core::alert::Severity;
use serde::{Deserialize, Serialize};

use super::units;
use crate::sinks::{Bounds, Format, Kind, Route};

/// `[sinks.spool]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Folder with a spool for each sink; `None`: in the state directory.
    #[serde(with = "units::unset")]
    pub dir: Option<PathBuf>,
    /// One spool on disk.
    #[serde(with = "units::size")]
    pub bytes_max: u64,
    /// The part of it that calls may not take.
    #[serde(with = "units::size")]
    pub alerts_reserve_bytes: u64,
}

impl Default for Spool {
    fn default() -> Spool {
        // A million alerts of a kilobyte. A monitor must not fill the disk of the host that it guards.
        Spool { dir: None, bytes_max: 1 << 30, alerts_reserve_bytes: 64 << 20 }
    }
}

impl Spool {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { bytes_max: self.bytes_max, reserve_bytes: self.alerts_reserve_bytes }
    }
}

/// `[sinks.kafka]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port` each; none: no Kafka.
    pub brokers: Vec<String>,
    /// Topic of alerts.
    pub alerts_topic: String,
    /// Topic of calls.
    pub activity_topic: String,
    /// Topic of what Keywatch says about itself.
    pub health_topic: String,
    /// Topic of records that Kafka does not take.
    pub dlq_topic: String,
    /// Form of the records.
    pub format: Format,
    /// Form of calls; `None`: that of the other records. The fleet's engine reads `compact` and `native`.
    #[serde(with = "units::unset")]
    pub activity_format: Option<Format>,
    /// The least bad alert that is sent.
    pub severity_min: Severity,
    /// Whether topics that are not there are made.
    pub make_topics: bool,
    /// Partitions of a topic that is made.
    pub partitions: u32,
    /// Replicas of a topic that is made; 0: as the brokers are set.
    pub replication: u32,
    /// How long alerts are kept in a topic that is made.
    #[serde(with = "units::duration")]
    pub alerts_retention: Duration,
    /// How long calls are kept in a topic that is made.
    #[serde(with = "units::duration")]
    pub activity_retention: Duration,
    /// Whether calls are sent too.
    pub activity: bool,
    /// How long plain reads that are alike are taken together as one record; 0: each is sent.
    #[serde(with = "units::duration")]
    pub activity_summary: Duration,
    /// Calls that wait to be sent; more are dropped and counted.
    pub activity_queue_max: u32,
    /// The same in bytes.
    #[serde(with = "units::size")]
    pub activity_queue_bytes_max: u64,
    /// Alerts on their way at once; more wait in the spool.
    pub alerts_in_flight_max: u32,
    /// How long the end of the program waits for the last deliveries.
    #[serde(with = "units::duration")]
    pub flush_max: Duration,
    /// Passed to librdkafka.
    pub options: BTreeMap<String, KafkaOption>,
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            brokers: Vec::new(),
            alerts_topic: "keywatch.alerts".into(),
            activity_topic: "keywatch.activity".into(),
            health_topic: "keywatch.health".into(),
            dlq_topic: "keywatch.dlq".into(),
            format: Format::default(),
            activity_format: None,
            severity_min: Severity::Low,
            make_topics: true,
            partitions: 6,
            replication: 0,
            alerts_retention: Duration::from_secs(90 * 86_400),
            activity_retention: Duration::from_secs(7 * 86_400),
            activity: true,
            activity_summary: Duration::ZERO,
            activity_queue_max: 100_000,
            activity_queue_bytes_max: 32 << 20,
            alerts_in_flight_max: 1_000,
            flush_max: Duration::from_secs(5),
            options: BTreeMap::new(),
        }
    }
}

impl Kafka {
    pub(crate) fn route(&self) -> Route {
        let mut kinds = vec![Kind::Alert, Kind::Health];
        kinds.extend(self.activity.then_some(Kind::Activity));
        Route { kinds, severity_min: self.severity_min }
    }
}

/// The value of a librdkafka option: text, a number or a truth value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KafkaOption {
    /// `true`
    Bool(bool),
    /// `5`
    Number(i64),
    /// `"zstd"`
    Text(String),
}

impl std::fmt::Display for KafkaOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KafkaOption::Bool(value) => value.fmt(f),
            KafkaOption::Number(value) => value.fmt(f),
            KafkaOption::Text(value) => value.fmt(f),
        }
    }
}
