//! The config file: TOML, every key optional, unknown keys refused.

mod fleet;
mod kafka;
pub(crate) mod read;
mod sinks;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use monitor_core::engine;
use monitor_core::identity::Network;
use monitor_core::limits::Limits;
use serde::{Deserialize, Serialize};

pub use fleet::Fleet;
pub use kafka::{Kafka, KafkaOption, Spool};
pub use read::{Faults, load, parse};
pub use sinks::{File, Stdout, Syslog, Webhook};

use crate::cli::LogFormat;
use crate::sinks::Format;

/// Where the config is looked for when `--config` does not say.
pub const DEFAULT_PATH: &str = "/etc/keywatch/keywatch.toml";

/// Everything that can be set. `config/keywatch.toml` explains each key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is captured.
    pub capture: Capture,
    /// How API keys are named.
    pub identity: Identity,
    /// What keys may do.
    pub policy: Policy,
    /// Bounds of the Decoder.
    pub limits: DecoderLimits,
    /// The Engine.
    pub engine: engine::Settings,
    /// Where what was learnt is kept.
    pub baseline: Baseline,
    /// Where records go.
    pub sinks: Sinks,
    /// The Engine over all hosts.
    pub fleet: Fleet,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// What Keywatch says about itself.
    pub log: Log,
}

/// `[capture]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// Server ports to watch.
    pub ports: Vec<Port>,
    /// Ports of servers elsewhere that this host's processes call.
    pub outbound_ports: Vec<Port>,
    /// cgroup v2 directory; `None`: the root of the hierarchy.
    #[serde(with = "units::unset")]
    pub cgroup: Option<PathBuf>,
    /// Ring buffer for payload, bytes.
    #[serde(with = "units::size")]
    pub ring_bytes: u32,
    /// Ring buffer for control events, bytes.
    #[serde(with = "units::size")]
    pub control_ring_bytes: u32,
    /// Whether a connection is given up when its first bytes are no API protocol.
    pub first_bytes: bool,
    /// How TLS is looked into.
    pub tls: TlsCapture,
    /// Files to which servers write their TLS secrets.
    pub tls_keylogs: Vec<PathBuf>,
    /// Bytes of one call into a TLS library that are carried.
    #[serde(with = "units::size")]
    pub tls_call_bytes_max: u32,
    /// Log of the kernel programs.
    pub kernel_log: LogLevel,
}

/// Key logs that are followed at once: each costs two system calls every few milliseconds.
const KEYLOGS_MAX: usize = 16;

/// How TLS is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsCapture {
    /// By the secrets that the servers' TLS libraries derive, where that is known; else as by calls.
    Auto,
    /// At the calls into those libraries, by the plaintext that is given and taken there.
    Calls,
    /// By the secrets that servers write to key logs.
    Keylog,
    /// Not at all.
    Off,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture {
            ports: Vec::new(),
            outbound_ports: Vec::new(),
            cgroup: None,
            ring_bytes: 16 << 20,
            control_ring_bytes: 4 << 20,
            first_bytes: true,
            tls: TlsCapture::Auto,
            tls_keylogs: Vec::new(),
            tls_call_bytes_max: 4 << 20,
            kernel_log: LogLevel::Off,
        }
    }
}

/// A TCP port: 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct Port(u16);

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(number: i64) -> Result<Port, String> {
        match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(Port(port)),
            Ok(_) | Err(_) => Err(format!("{number} is not a port; write 1 to 65535")),
        }
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> u16 {
        port.0
    }
}

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// File of the secret under which keys are hashed; `None`: in the state directory.
    #[serde(with = "units::unset")]
    pub secret_file: Option<PathBuf>,
    /// How long a secret is kept once there is another.
    #[serde(with = "units::duration")]
    pub former_secret_max: Duration,
    /// Folder of profiles, besides those that come with Keywatch; `None`: those alone.
    #[serde(with = "units::unset")]
    pub profiles: Option<PathBuf>,
    /// Networks of proxies whose `X-Forwarded-For` and `Forwarded` count.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            secret_file: None,
            // A quarter: every key that is in use at all is met again in it.
            former_secret_max: Duration::from_secs(90 * 86_400),
            profiles: None,
            trusted_proxies: Vec::new(),
        }
    }
}

/// A network, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustedProxy {
    text: String,
    network: Network,
}

impl TrustedProxy {
    /// The network.
    pub fn network(&self) -> Network {
        self.network
    }
}

impl TryFrom<String> for TrustedProxy {
    type Error = String;

    fn try_from(text: String) -> Result<TrustedProxy, String> {
        Ok(TrustedProxy { network: text.parse()?, text })
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> String {
        proxy.text
    }
}

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The policy file; `None`: none.
    #[serde(with = "units::unset")]
    pub file: Option<PathBuf>,
    /// Registry of keys: a file, or an `http://` or `https://` address; empty: none.
    pub registry: String,
    /// How often an address is asked.
    #[serde(with = "units::duration")]
    pub registry_poll: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { file: None, registry: String::new(), registry_poll: Duration::from_secs(60) }
    }
}

/// `[limits]`: those of [`Limits`] that a host may want otherwise; it says where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderLimits {
    /// See [`Limits::flows_max`].
    pub flows_max: usize,
    /// See [`Limits::reorder_bytes_per_direction_max`].
    #[serde(with = "units::size")]
    pub reorder_bytes_per_direction_max: usize,
    /// See [`Limits::reorder_bytes_max`].
    #[serde(with = "units::size")]
    pub reorder_bytes_max: usize,
    /// See [`Limits::reorder_wait_max`].
    #[serde(with = "units::duration")]
    pub reorder_wait_max: Duration,
    /// See [`Limits::head_bytes_max`].
    #[serde(with = "units::size")]
    pub head_bytes_max: usize,
    /// See [`Limits::headers_max`].
    pub headers_max: usize,
    /// See [`Limits::pipeline_max`].
    pub pipeline_max: usize,
    /// See [`Limits::early_bytes_max`].
    #[serde(with = "units::size")]
    pub early_bytes_max: usize,
    /// See [`Limits::tunnels_max`].
    pub tunnels_max: u8,
    /// See [`Limits::body_prefix_bytes`].
    #[serde(with = "units::size")]
    pub body_prefix_bytes: usize,
    /// See [`Limits::idle_max`].
    #[serde(with = "units::duration")]
    pub idle_max: Duration,
    /// See [`Limits::closed_max`].
    #[serde(with = "units::duration")]
    pub closed_max: Duration,
    /// See [`Limits::held_bytes_max`].
    #[serde(with = "units::size")]
    pub held_bytes_max: usize,
}

impl Default for DecoderLimits {
    fn default() -> DecoderLimits {
        let limits = Limits::default();
        DecoderLimits {
            flows_max: limits.flows_max,
            reorder_bytes_per_direction_max: limits.reorder_bytes_per_direction_max,
            reorder_bytes_max: limits.reorder_bytes_max,
            reorder_wait_max: limits.reorder_wait_max,
            head_bytes_max: limits.head_bytes_max,
            headers_max: limits.headers_max,
            pipeline_max: limits.pipeline_max,
            early_bytes_max: limits.early_bytes_max,
            tunnels_max: limits.tunnels_max,
            body_prefix_bytes: limits.body_prefix_bytes,
            idle_max: limits.idle_max,
            closed_max: limits.closed_max,
            held_bytes_max: limits.held_bytes_max,
        }
    }
}

impl From<&DecoderLimits> for Limits {
    fn from(set: &DecoderLimits) -> Limits {
        Limits {
            flows_max: set.flows_max,
            reorder_bytes_per_direction_max: set.reorder_bytes_per_direction_max,
            reorder_bytes_max: set.reorder_bytes_max,
            reorder_wait_max: set.reorder_wait_max,
            head_bytes_max: set.head_bytes_max,
            headers_max: set.headers_max,
            pipeline_max: set.pipeline_max,
            early_bytes_max: set.early_bytes_max,
            tunnels_max: set.tunnels_max,
            body_prefix_bytes: set.body_prefix_bytes,
            idle_max: set.idle_max,
            closed_max: set.closed_max,
            held_bytes_max: set.held_bytes_max,
            // The others follow from protocols, not from hosts.
            ..Limits::default()
        }
    }
}

/// `[baseline]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Baseline {
    /// Whether `keywatch run` keeps what it learns.
    pub keep: bool,
    /// Where; `None`: in the state directory.
    #[serde(with = "units::unset")]
    pub file: Option<PathBuf>,
}

impl Default for Baseline {
    fn default() -> Baseline {
        Baseline { keep: true, file: None }
    }
}

/// `[sinks]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// Where records wait for network sinks.
    pub spool: Spool,
    /// JSON lines.
    pub jsonl: JsonLines,
    /// Apache Kafka.
    pub kafka: Kafka,
    /// A file in any form.
    pub file: File,
    /// Standard output in any form.
    pub stdout: Stdout,
    /// Syslog.
    pub syslog: Syslog,
    /// Webhook.
    pub webhook: Webhook,
}

/// `[sinks.jsonl]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonLines {
    /// Every call; `-` is stdout.
    #[serde(with = "units::unset")]
    pub calls: Option<PathBuf>,
    /// Every alert; `-` is stdout.
    #[serde(with = "units::unset")]
    pub alerts: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where they are asked for over HTTP: an address of this host that others do not reach; `None`:
    /// nowhere.
    #[serde(with = "units::unset")]
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Least serious line that is written.
    pub level: LogLevel,
    /// Form of the lines.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// And what may fail.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And every packet.
    Trace,
}

impl LogLevel {
    /// As filters write it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl Config {
    /// Settings of the Engine, with the name of this host where none is given.
    pub fn engine_settings(&self) -> engine::Settings {
        let mut settings = self.engine.clone();
        if settings.host.is_empty() {
            settings.host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        settings
    }

    /// The effective settings as TOML, without secrets.
    pub fn show(&self) -> String {
        let mut shown = self.clone();
        if !shown.sinks.webhook.url.is_empty() {
            // Tokens often stand in it.
            shown.sinks.webhook.url = "[redacted]".into();
        }
        for (name, value) in &mut shown.sinks.kafka.options {
            if ["password", "secret", "key.pem", "jaas", "oauth"].iter().any(|s| name.contains(s)) {
                *value = KafkaOption::Text("[redacted]".into());
            }
        }
        toml::to_string(&shown).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// Values that have the right type and cannot work: key and reason.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut check = |key, ok: bool, reason: &str| {
            if !ok {
                faults.push((key, reason.to_owned()));
            }
        };
        // bpf(2): the size of a ring buffer is a power of two and a multiple of the page size.
        let ring = |bytes: u32| bytes.is_power_of_two() && (64 << 10..=1 << 30).contains(&bytes);
        let ring_mend = "must be a power of two from 64KiB to 1GiB";
        check("capture.ring_bytes", ring(self.capture.ring_bytes), ring_mend);
        check("capture.control_ring_bytes", ring(self.capture.control_ring_bytes), ring_mend);
        let years = Duration::from_secs(10 * 366 * 86_400);
        let kept_ok = self.identity.former_secret_max <= years;
        check("identity.former_secret_max", kept_ok, "must be at most 3660d");
        let (by_keylog, keylogs) =
            (self.capture.tls == TlsCapture::Keylog, &self.capture.tls_keylogs);
        let named = by_keylog != keylogs.is_empty();
        let mend = "goes with `tls = \"keylog\"`, which needs files here";
        check("capture.tls_keylogs", named, mend);
        check("capture.tls_keylogs", keylogs.len() <= KEYLOGS_MAX, "must be 16 files at most");
        let call = 64 << 10..=monitor_common::TLS_CALL_BYTES_MAX;
        let call = call.contains(&(self.capture.tls_call_bytes_max as usize));
        check("capture.tls_call_bytes_max", call, "must be from 64KiB to 16MiB");
        let poll = Duration::from_secs(1)..=Duration::from_secs(86_400);
        let poll_ok = poll.contains(&self.policy.registry_poll);
        check("policy.registry_poll", poll_ok, "must be from 1s to 1d");
        let limits = &self.limits;
        for (key, value) in [
            ("limits.flows_max", limits.flows_max),
            ("limits.reorder_bytes_per_direction_max", limits.reorder_bytes_per_direction_max),
            ("limits.reorder_bytes_max", limits.reorder_bytes_max),
            ("limits.head_bytes_max", limits.head_bytes_max),
            ("limits.headers_max", limits.headers_max),
            ("limits.pipeline_max", limits.pipeline_max),
            ("limits.held_bytes_max", limits.held_bytes_max),
        ] {
            check(key, value > 0, "must be more than 0");
        }
        let engine = &self.engine;
        for (key, value) in [
            ("engine.keys_max", engine.keys_max),
            ("engine.cold_keys_max", engine.cold_keys_max),
            ("engine.clients_max", engine.clients_max),
            ("engine.networks_max", engine.networks_max),
            ("engine.accounts_max", engine.accounts_max),
            ("engine.endpoints_max", engine.endpoints_max),
            ("engine.incidents_max", engine.incidents_max),
            ("engine.replay.requests_max", engine.replay.requests_max),
            ("engine.scan.clients_max", engine.scan.clients_max),
            ("engine.latency.endpoints_max", engine.latency.endpoints_max),
            ("engine.synchrony.targets_max", engine.synchrony.targets_max),
            ("engine.synchrony.edges_max", engine.synchrony.edges_max),
            ("engine.alerts_waiting_max", engine.alerts_waiting_max),
        ] {
            check(key, value > 0, "must be more than 0");
        }
        let evidence = engine.alert_evidence_min.is_finite();
        check("engine.alert_evidence_min", evidence, "must be a number");
        for (key, chance) in [
            ("engine.rate.tail_probability", engine.rate.tail_probability),
            ("engine.errors.tail_probability", engine.errors.tail_probability),
            ("engine.synchrony.tail_probability", engine.synchrony.tail_probability),
        ] {
            // Doubles cannot tell a smaller tail from none.
            check(key, (1e-15..=0.5).contains(&chance), "must be from 1e-15 to 0.5");
        }
        for (key, factor) in [
            ("engine.rate.own_max_factor", engine.rate.own_max_factor),
            ("engine.errors.own_max_factor", engine.errors.own_max_factor),
        ] {
            check(key, (1.0..=1e6).contains(&factor), "must be from 1 to 1000000");
        }
        for (key, window_s) in [
            ("engine.incident_window_s", engine.incident_window_s),
            ("engine.stuffing.window_s", engine.stuffing.window_s),
            ("engine.scan.window_s", engine.scan.window_s),
            ("engine.latency.window_s", engine.latency.window_s),
            ("engine.synchrony.window_s", engine.synchrony.window_s),
            ("engine.capture.window_s", engine.capture.window_s),
        ] {
            check(key, (1..=604_800).contains(&window_s), "must be from 1 s to a week");
        }
        let loopback = self.metrics.listen.is_none_or(|listen| listen.ip().is_loopback());
        check("metrics.listen", loopback, "must be a loopback address, such as 127.0.0.1:9464");
        let kafka = &self.sinks.kafka;
        let brokers_ok = kafka.brokers.iter().all(|broker| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains(',') && port.parse::<u16>().is_ok_and(|p| p > 0)
            })
        });
        check("sinks.kafka.brokers", brokers_ok, "must be a list of \"host:port\"");
        let topic_mend = "must be 1 to 249 letters, digits, `.`, `_` or `-`";
        check("sinks.kafka.alerts_topic", is_topic(&kafka.alerts_topic), topic_mend);
        check("sinks.kafka.activity_topic", is_topic(&kafka.activity_topic), topic_mend);
        check("sinks.kafka.health_topic", is_topic(&kafka.health_topic), topic_mend);
        let fleet = self.fleet.with_topics();
        check("fleet.sources_topic", is_topic(&fleet.sources_topic), topic_mend);
        check("fleet.groups_topic", is_topic(&fleet.groups_topic), topic_mend);
        check("fleet.state_topic", is_topic(&fleet.state_topic), topic_mend);
        check("sinks.kafka.dlq_topic", is_topic(&kafka.dlq_topic), topic_mend);
        check(
            "sinks.kafka.partitions",
            (1..=10_000).contains(&kafka.partitions),
            "must be 1 to 10000",
        );
        // Half of what a call may be late: its summary comes at the end of the window.
        let most = Duration::from_secs(engine.late_max_s / 2);
        check(
            "sinks.kafka.activity_summary",
            kafka.activity_summary <= most,
            "must be at most half of engine.late_max_s",
        );
        let is_compact = kafka.activity_format.unwrap_or(kafka.format) == Format::Compact;
        check(
            "sinks.kafka.activity_summary",
            kafka.activity_summary.is_zero() || is_compact,
            "takes activity_format = \"compact\": other forms cannot say it",
        );
        check("sinks.kafka.replication", kafka.replication <= 100, "must be 0 to 100");
        let spool = &self.sinks.spool;
        let bounds_ok = spool.bytes_max >= 32 << 20 && spool.bytes_max <= 16 << 30;
        check("sinks.spool.bytes_max", bounds_ok, "must be 32MiB to 16GiB");
        let reserve_ok = spool.alerts_reserve_bytes <= spool.bytes_max / 2;
        check(
            "sinks.spool.alerts_reserve_bytes",
            reserve_ok,
            "must be at most half of sinks.spool.bytes_max",
        );
        for (key, value) in [
            ("sinks.kafka.activity_queue_max", kafka.activity_queue_max),
            ("sinks.kafka.alerts_in_flight_max", kafka.alerts_in_flight_max),
        ] {
            // librdkafka's own upper bound of queue.buffering.max.messages is higher.
            check(key, (1..=10_000_000).contains(&value), "must be 1 to 10000000");
        }
        let queue = (1 << 20..=2 << 30).contains(&kafka.activity_queue_bytes_max);
        check("sinks.kafka.activity_queue_bytes_max", queue, "must be 1MiB to 2GiB");
        faults.extend(self.fleet.faults());
        faults.extend(self.sinks.syslog.faults());
        faults.extend(self.sinks.webhook.faults());
        if let Err(fault) = crate::sinks::kafka::check_options(kafka) {
            faults.push(("sinks.kafka.options", fault));
        }
        faults
    }
}

/// Kafka's rule (org.apache.kafka.common.internals.Topic).
fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal)
}
