//! Apache Kafka: alerts that are never dropped, and calls that never stand in their way.

mod activity;
mod alerts;
mod options;
mod record;
mod seldom;
mod spool;
#[cfg(test)]
mod tests;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;
use rdkafka::producer::{BaseProducer, Producer};

pub use options::check_options;

use self::activity::Activity;
use self::alerts::Alerts;
use super::Sink;
use crate::config;
use crate::fault::Misuse;

/// What happens to a call when the queue of calls is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Live: it is dropped and counted.
    Drop,
    /// Replay: everything waits for Kafka.
    Wait,
}

/// Sends alerts and calls on a producer each.
pub struct Kafka {
    brokers: String,
    flush_max: Duration,
    alerts: Alerts,
    activity: Option<Activity>,
}

impl Kafka {
    /// Starts sending what an earlier run left in the spool. `host` is the source that records name.
    pub fn open(set: &config::Kafka, host: &str, when_full: WhenFull) -> Result<Kafka> {
        let alerts = Alerts::start(set)?;
        let activity = match set.activity {
            true => Some(Activity::start(set, host, when_full)?),
            false => None,
        };
        Ok(Kafka { brokers: set.brokers.join(","), flush_max: set.flush_max, alerts, activity })
    }
}

/// Asks the brokers for their topics. Waits up to `timeout`.
pub fn reach(set: &config::Kafka, timeout: Duration) -> Result<()> {
    let config = options::alerts(set).map_err(Misuse)?;
    let producer: BaseProducer<watch::Quiet> =
        config.create_with_context(watch::Quiet).map_err(options::refused)?;
    match producer.client().fetch_metadata(Some(&set.alerts_topic), timeout) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "Kafka does not answer: {}: {}: start it or correct sinks.kafka.brokers",
            set.brokers.join(","),
            options::reason(&error)
        ),
    }
}

impl Sink for Kafka {
    fn name(&self) -> String {
        format!("Kafka at {}", self.brokers)
    }

    fn call(&mut self, call: &ApiCall, ordinal: u64) -> Result<()> {
        match &mut self.activity {
            Some(activity) => activity.send(call, ordinal),
            None => Ok(()),
        }
    }

    fn alert(&mut self, alert: &Alert) -> Result<()> {
        self.alerts.send(alert)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.flush_max;
        // Alerts first: they matter more, and what is left of the time is for calls.
        let result = self.alerts.finish(deadline);
        if let Some(activity) = &mut self.activity {
            activity.finish(deadline);
        }
        result
    }

    fn dropped(&self) -> u64 {
        self.activity.as_ref().map_or(0, Activity::dropped)
    }
}
