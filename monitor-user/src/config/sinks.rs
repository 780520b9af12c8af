//! `[sinks.…]` other than Kafka and JSON lines.

use std::path::PathBuf;
use std::time::Duration;

use monitor_core::alert::Severity;
use serde::{Deserialize, Serialize};

use super::units;
use crate::sinks::{Format, Kind, Route};

/// `[sinks.file]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Where to; `None`: no such file.
    #[serde(with = "units::unset")]
    pub path: Option<PathBuf>,
    /// Form of the records.
    pub format: Format,
    /// What is written.
    pub kinds: Vec<Kind>,
    /// The least bad alert that is written.
    pub severity_min: Severity,
    /// The file is left for a new one at this size.
    #[serde(with = "units::size")]
    pub rotate_bytes: u64,
    /// Files that are kept besides it.
    pub keep: u32,
}

impl Default for File {
    fn default() -> File {
        File {
            path: None,
            format: Format::default(),
            kinds: vec![Kind::Alert],
            severity_min: Severity::Low,
            rotate_bytes: 100 << 20,
            keep: 10,
        }
    }
}

/// `[sinks.stdout]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stdout {
    /// Form of the records.
    pub format: Format,
    /// What is written; nothing: no output.
    pub kinds: Vec<Kind>,
    /// The least bad alert that is written.
    pub severity_min: Severity,
}

impl Default for Stdout {
    fn default() -> Stdout {
        Stdout { format: Format::default(), kinds: Vec::new(), severity_min: Severity::Low }
    }
}

/// `[sinks.syslog]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// `host:port`; empty: no syslog.
    pub address: String,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Certificates that are trusted; `None`: those of the system.
    #[serde(with = "units::unset")]
    pub ca_file: Option<PathBuf>,
    /// Form of the records.
    pub format: Format,
    /// What is sent.
    pub kinds: Vec<Kind>,
    /// The least bad alert that is sent.
    pub severity_min: Severity,
    /// How long the end of the program waits for the last deliveries.
    #[serde(with = "units::duration")]
    pub flush_max: Duration,
}

impl Default for Syslog {
    fn default() -> Syslog {
        Syslog {
            address: String::new(),
            tls: false,
            ca_file: None,
            format: Format::Cef,
            kinds: vec![Kind::Alert, Kind::Health],
            severity_min: Severity::Low,
            flush_max: Duration::from_secs(5),
        }
    }
}

/// `[sinks.webhook]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// Where to; empty: no webhook.
    pub url: String,
    /// File with the secret that requests are signed with; `None`: they are not signed.
    #[serde(with = "units::unset")]
    pub secret_file: Option<PathBuf>,
    /// Certificates that are trusted; `None`: those of the system.
    #[serde(with = "units::unset")]
    pub ca_file: Option<PathBuf>,
    /// Form of the records.
    pub format: Format,
    /// What is sent.
    pub kinds: Vec<Kind>,
    /// The least bad alert that is sent.
    pub severity_min: Severity,
    /// How long the end of the program waits for the last deliveries.
    #[serde(with = "units::duration")]
    pub flush_max: Duration,
}

impl Default for Webhook {
    fn default() -> Webhook {
        Webhook {
            url: String::new(),
            secret_file: None,
            ca_file: None,
            format: Format::default(),
            kinds: vec![Kind::Alert],
            severity_min: Severity::Low,
            flush_max: Duration::from_secs(5),
        }
    }
}

macro_rules! routed {
    ($($sink:ty),+) => {
        $(impl $sink {
            pub(crate) fn route(&self) -> Route {
                Route { kinds: self.kinds.clone(), severity_min: self.severity_min }
            }
        })+
    };
}
routed!(File, Stdout, Syslog, Webhook);

impl Syslog {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let has_port = self.address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        match self.address.is_empty() || has_port {
            true => Vec::new(),
            false => vec![("sinks.syslog.address", "must be \"host:port\"".into())],
        }
    }
}

impl Webhook {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        // Checked here, since a later refusal would quote it, and tokens often stand in it.
        let url = self.url.parse::<ureq::http::Uri>().ok();
        let scheme = url.as_ref().and_then(|url| url.scheme_str());
        match (self.url.is_empty(), scheme) {
            (true, _) | (false, Some("https" | "http")) => Vec::new(),
            (false, _) => {
                vec![(
                    "sinks.webhook.url",
                    "must be an address that begins with https:// (or http://)".into(),
                )]
            }
        }
    }
}
