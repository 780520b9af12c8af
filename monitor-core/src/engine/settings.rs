//! Thresholds and bounds of the Engine, each with where its number comes from.

use serde::{Deserialize, Serialize};

/// Bounds and thresholds of the Engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Host name that alerts carry.
    pub host: String,
    /// API keys that are known, about 1 KiB each: only keys that were accepted once are. A large exchange has about a million active keys.
    pub keys_max: usize,
    /// API keys beyond those that are known by a summary, about 150 B each with the table: the keys of
    /// years.
    pub cold_keys_max: usize,
    /// Client addresses with refused credentials that are held at once, 400 B to 2 KiB each: a
    /// botnet of 30,000 costs 60 MB at worst.
    pub clients_max: usize,
    /// Networks that are held at once, with refused credentials and as known places, as above.
    pub networks_max: usize,
    /// Accounts of which it is known whose keys name them, about 60 B each: as many as keys that
    /// name one.
    pub accounts_max: usize,
    /// Endpoints that are held at once, about 60 B each: a large API has a thousand on each of some
    /// hosts, and paths that look like others are as many again.
    pub endpoints_max: usize,
    /// Open incidents. Ten thousand at once is an attack on everybody.
    pub incidents_max: usize,
    /// Alerts that wait to be taken. One call makes two at most, and they are taken after each.
    pub alerts_waiting_max: usize,
    /// New alerts a day: what one analyst can look into (DETECTORS.md, layer 5). High invariants
    /// and critical alerts are not bound by it; of clients and networks that try keys, as many
    /// again are not.
    pub alerts_per_day_max: u32,
    /// New alerts a day, all counted: nobody reads more, and an attacker who can raise alerts could
    /// fill a disk.
    pub alerts_per_day_hard_max: u32,
    /// Updates of one alert, first raising aside: one a detector that can join.
    pub updates_max: u32,
    /// Connections named in an alert: enough to look one up.
    pub flows_per_alert_max: usize,
    /// Findings this close together are one incident, seconds (DETECTORS.md, layer 5).
    pub incident_window_s: u64,
    /// An incident that goes on longer is raised anew, seconds: somebody should look once a day.
    pub incident_max_s: u64,
    /// A call may come this much later than one with a later time, seconds. More means that the
    /// clock was set back. Captures of many CPUs are at most seconds apart.
    pub late_max_s: u64,
    /// Fused evidence at which an incident becomes an alert, natural log-odds. Prior odds of an
    /// attack behind any oddity are taken as about 1 to 20 (-3): 5 leaves 7 to 1 for it.
    pub alert_evidence_min: f32,
    /// A key younger than this is still showing what it does, seconds (DETECTORS.md, D5).
    pub young_key_s: u64,
    /// A key older than this has shown what it does, seconds: a week has every weekday.
    pub settled_key_s: u64,
    /// D1.
    pub rate: RateSettings,
    /// D2.
    pub errors: ErrorSettings,
    /// D3.
    pub stuffing: StuffingSettings,
    /// D12 and D13.
    pub replay: ReplaySettings,
    /// D25.
    pub scan: ScanSettings,
    /// D27.
    pub latency: LatencySettings,
    /// D20.
    pub synchrony: SynchronySettings,
    /// D28.
    pub capture: CaptureSettings,
}

/// Rate spikes (D1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// Chance that a usual minute is taken for a spike: 0.0014 false alarms a key-day
    /// (DETECTORS.md).
    pub tail_probability: f64,
    /// A spike must beat the key's own decayed largest surprise by this factor (DETECTORS.md).
    pub own_max_factor: f64,
    /// Slower is never a spike: what a person's script does in a minute.
    pub calls_per_minute_min: u32,
}

/// Error bursts (D2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorSettings {
    /// Chance that a usual minute is taken for a burst; as for rates.
    pub tail_probability: f64,
    /// As for rates.
    pub own_max_factor: f64,
    /// Fewer failures a minute are never a burst.
    pub errors_per_minute_min: u32,
}

/// Credential stuffing and key spraying (D3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StuffingSettings {
    /// How long tried keys count, seconds: botnets go slowly.
    pub window_s: u64,
    /// Different refused keys from one client: nobody mistypes twenty keys. A client with more
    /// accepted keys than this needs as many refused ones.
    pub keys_per_client_min: u64,
    /// Different refused keys from one network.
    pub keys_per_network_min: u64,
    /// Different refused keys that nobody knows, from everywhere: fewer are customers' mistakes.
    pub keys_in_all_min: u64,
    /// Clients of a network that must take part before it is blamed as a whole; networks, before a crowd
    /// is.
    pub clients_per_network_min: u64,
    /// Failed logins without a key from one client: a person gives up after a few.
    pub logins_per_client_min: u64,
    /// Failed logins without a key from one network.
    pub logins_per_network_min: u64,
}

/// Replayed signatures (D12) and clocks (D13).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplaySettings {
    /// Signed requests that are remembered, 8 B each: two million are half an hour at 1,000 a second,
    /// and most of a day at 30.
    pub requests_max: usize,
    /// A clock that is off by this much more than usual is another one, milliseconds: clocks that are
    /// kept differ by less than a tenth, round trips by less than half a second.
    pub drift_ms: u32,
}

/// Scanners and attacks in text (D25).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanSettings {
    /// How long what a client did counts, seconds.
    pub window_s: u64,
    /// Different paths that are not there: a wrong client tries a few.
    pub paths_min: u64,
    /// Calls for what scanners ask for: a browser asks for one or two.
    pub known_min: u64,
    /// Calls with an attack in their text: one may be a name.
    pub payloads_min: u64,
    /// Clients that are held at once, 200 to 500 B each.
    pub clients_max: usize,
}

/// Latency of endpoints (D27).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatencySettings {
    /// How long latencies are taken together, seconds.
    pub window_s: u64,
    /// Fewer calls of a window have no 99th of a hundred.
    pub calls_min: u32,
    /// Windows that must be known: a day of five minutes.
    pub windows_min: u32,
    /// Slow is so many times the usual; a busy hour is twice.
    pub factor: f64,
    /// And at least so much slower, milliseconds: less nobody notices.
    pub slower_ms: u32,
    /// Endpoints that are held at once, 350 B each: large APIs have 500.
    pub endpoints_max: usize,
}

/// Fleet synchrony (D20).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynchronySettings {
    /// How close together is at once, seconds: thieves act before owners wake. Binance's had two
    /// minutes in 2018; who looks into what leaked takes an hour.
    pub window_s: u64,
    /// Fewer keys are a coincidence; half as many when all of them are at networks new to them.
    pub keys_min: u64,
    /// Chance that usual newcomers are taken for a crowd.
    pub tail_probability: f64,
    /// A key known for less may still move from where it was set up to where it runs, seconds.
    pub key_age_min_s: u64,
    /// Symbols, networks and operations with newcomers that are counted at once, about 400 B each:
    /// exchanges list a few thousand symbols.
    pub targets_max: usize,
    /// Pairs of key and symbol that are remembered, 4 B each: a million keys with four each.
    pub edges_max: usize,
}

/// Capture impairment (D28).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSettings {
    /// How long losses add up, seconds.
    pub window_s: u64,
    /// Lost bytes in that time that make it severe: a thousand calls of 1 KiB.
    pub lost_bytes_high: u64,
    /// Lost records in that time that make it severe.
    pub lost_events_high: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: String::new(),
            keys_max: 1_000_000,
            cold_keys_max: 1_000_000,
            clients_max: 32_768,
            networks_max: 16_384,
            accounts_max: 65_536,
            endpoints_max: 16_384,
            incidents_max: 10_000,
            alerts_waiting_max: 10_000,
            alerts_per_day_max: 20,
            alerts_per_day_hard_max: 1_000,
            updates_max: 8,
            flows_per_alert_max: 16,
            incident_window_s: 900,
            incident_max_s: 86_400,
            late_max_s: 60,
            alert_evidence_min: 5.0,
            young_key_s: 86_400,
            settled_key_s: 7 * 86_400,
            rate: RateSettings::default(),
            errors: ErrorSettings::default(),
            stuffing: StuffingSettings::default(),
            replay: ReplaySettings::default(),
            scan: ScanSettings::default(),
            latency: LatencySettings::default(),
            synchrony: SynchronySettings::default(),
            capture: CaptureSettings::default(),
        }
    }
}

impl Default for RateSettings {
    fn default() -> RateSettings {
        RateSettings { tail_probability: 1e-6, own_max_factor: 1.25, calls_per_minute_min: 20 }
    }
}

impl Default for ErrorSettings {
    fn default() -> ErrorSettings {
        ErrorSettings { tail_probability: 1e-6, own_max_factor: 1.25, errors_per_minute_min: 10 }
    }
}

impl Default for StuffingSettings {
    fn default() -> StuffingSettings {
        StuffingSettings {
            window_s: 3_600,
            keys_per_client_min: 20,
            keys_per_network_min: 60,
            keys_in_all_min: 30,
            clients_per_network_min: 4,
            logins_per_client_min: 60,
            logins_per_network_min: 200,
        }
    }
}

impl Default for ReplaySettings {
    fn default() -> ReplaySettings {
        ReplaySettings { requests_max: 2_097_152, drift_ms: 1_500 }
    }
}

impl Default for ScanSettings {
    fn default() -> ScanSettings {
        ScanSettings {
            window_s: 600,
            paths_min: 20,
            known_min: 5,
            payloads_min: 3,
            clients_max: 16_384,
        }
    }
}

impl Default for LatencySettings {
    fn default() -> LatencySettings {
        LatencySettings {
            window_s: 300,
            calls_min: 100,
            windows_min: 288,
            factor: 4.0,
            slower_ms: 50,
            endpoints_max: 4_096,
        }
    }
}

impl Default for SynchronySettings {
    fn default() -> SynchronySettings {
        SynchronySettings {
            window_s: 1_800,
            keys_min: 8,
            tail_probability: 1e-6,
            key_age_min_s: 3_600,
            targets_max: 16_384,
            edges_max: 4_194_304,
        }
    }
}

impl Default for CaptureSettings {
    fn default() -> CaptureSettings {
        CaptureSettings { window_s: 60, lost_bytes_high: 1_000_000, lost_events_high: 1_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_default_and_what_is_unknown_is_refused() {
        let settings: Settings =
            serde_json::from_str(r#"{"rate":{"calls_per_minute_min":5}}"#).unwrap();
        assert_eq!(settings.rate.calls_per_minute_min, 5);
        assert_eq!(Settings { rate: RateSettings::default(), ..settings }, Settings::default());
        assert!(serde_json::from_str::<Settings>(r#"{"keys":1}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"rate":{"keys":1}}"#).is_err());
    }
}
