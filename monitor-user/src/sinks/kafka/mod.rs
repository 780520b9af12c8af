//! Apache Kafka: alerts that are never dropped, and calls that never stand in their way.

pub(crate) mod headers;
pub(crate) mod options;
#[cfg(test)]
mod tests;
pub(crate) mod topics;
mod transport;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::producer::{BaseProducer, Producer};

pub use options::check_options;
pub(crate) use options::consumer as consumer_options;

use self::transport::Kafka;
use super::Sink;
use super::courier::{Connect, Transport};
use super::network::{Network, Parts};
use super::spool::{WhenFull, Which};
use crate::config;
use crate::fault::Misuse;

/// Starts sending what an earlier run left in the spool. `host` is the source that records name.
pub(crate) fn open(
    sinks: &config::Sinks,
    spool_dir: &Path,
    host: &str,
    when_full: WhenFull,
) -> Result<Box<dyn Sink>> {
    let set = &sinks.kafka;
    // Before a thread is started, so that a wrong option ends the program at once.
    for config in [options::alerts(set), options::activity(set)] {
        let config = config.map_err(Misuse)?;
        config
            .create_with_context::<_, BaseProducer<watch::Quiet>>(watch::Quiet)
            .map_err(options::refused)?;
    }
    let parts = Parts {
        sink: "kafka",
        place: format!("Kafka at {}", set.brokers.join(",")),
        spool_dir,
        bounds: sinks.spool.bounds(),
        when_full,
        host: host.into(),
        format: set.format,
        activity_format: set.activity_format.unwrap_or(set.format),
        summary: Some(set.activity_summary).filter(|window| !window.is_zero()),
        route: set.route(),
        flush_max: set.flush_max,
    };
    let connect = |which: Which| -> Connect {
        let (set, source) = (set.clone(), super::event::source(host));
        let careful = Arc::new(AtomicBool::new(false));
        Box::new(move || {
            let kafka = Kafka::connect(&set, which, &source, Arc::clone(&careful))?;
            Ok(Box::new(kafka) as Box<dyn Transport>)
        })
    };
    Ok(Box::new(Network::start(parts, connect)?))
}

/// Asks the brokers for their topics, and makes none. Waits up to `timeout`.
pub fn reach(set: &config::Kafka, timeout: Duration) -> Result<()> {
    let config = options::alerts(set).map_err(Misuse)?;
    let producer: BaseProducer<watch::Watch> =
        config.create_with_context(watch::Watch::new()).map_err(options::refused)?;
    match producer.client().fetch_metadata(None, timeout) {
        Ok(_) => Ok(()),
        Err(_) => bail!(
            "Kafka cannot be used: {}: {}",
            set.brokers.join(","),
            transport::why_away(&producer)
        ),
    }
}
