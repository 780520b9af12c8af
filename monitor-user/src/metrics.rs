//! `[metrics]`: figures for Prometheus over HTTP, on this host alone.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use monitor_core::decode;
use monitor_core::engine::Engine;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::capture::Health;
use crate::sinks::{self, lock};

/// OpenMetrics 1.0, which Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The latest figures: written a few times a second by whoever works, read whenever somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Vec<Family>>>);

/// Figures of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    /// Label and its value, where there is one, and the figure.
    figures: Vec<(Option<(&'static str, String)>, u64)>,
}

/// Answers `GET /metrics` in a thread of its own.
pub(crate) fn serve(listen: SocketAddr) -> Result<Board> {
    let what = || format!("cannot listen for metrics: {listen}: choose another metrics.listen");
    let listener = TcpListener::bind(listen).with_context(what)?;
    listener.set_nonblocking(true).with_context(what)?;
    let board = Board::default();
    let mut registry = Registry::with_prefix("keywatch");
    registry.register_collector(Box::new(board.clone()));
    let registry = Arc::new(registry);
    let answer = move || {
        let registry = Arc::clone(&registry);
        async move {
            let mut body = String::new();
            // Writing to a text never fails.
            let _ = text::encode(&mut body, &registry);
            ([(CONTENT_TYPE, OPEN_METRICS)], body)
        }
    };
    let router = Router::new().route("/metrics", get(answer));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router).await
    };
    let run = move || {
        if let Err(error) = runtime.block_on(work) {
            tracing::error!("metrics are no longer answered: {error}");
        }
    };
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(run)
        .context("cannot start a thread")?;
    Ok(board)
}

/// Figures that are being put together.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Family>);

impl Board {
    /// Shows these from now on.
    pub(crate) fn show(&self, figures: Figures) {
        *lock(&self.0) = figures.0;
    }
}

impl Figures {
    /// A figure that only grows.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, true, vec![(None, value)]);
    }

    /// A figure of now.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, false, vec![(None, value)]);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        is_counter: bool,
        figures: Vec<(Option<(&'static str, String)>, u64)>,
    ) {
        self.0.push(Family { name, help, is_counter, figures });
    }

    /// What the Decoder counted.
    pub(crate) fn decoder(&mut self, counters: &decode::Counters) {
        self.counter("calls", "Calls decoded", counters.calls);
        let each = counters.iter().map(|(what, count)| (Some(("what", what.into())), count));
        self.add(
            "decoder_events",
            "What the Decoder did, and bounds that it met",
            true,
            each.collect(),
        );
    }

    /// What the Engine counted and holds.
    pub(crate) fn engine(&mut self, engine: &Engine) {
        let counters = engine.counters();
        self.counter("alerts", "Alerts given out, updates too", counters.alerts);
        let each = fields(&counters);
        self.add("engine_events", "What the Engine did, and bounds that it met", true, each);
        self.gauge("engine_keys", "API keys that are known", engine.keys() as u64);
    }

    /// What the kernel side counted.
    pub(crate) fn capture(&mut self, health: &Health) {
        self.counter("capture_records", "Records from the kernel side", health.events);
        self.counter("capture_payload_bytes", "Payload from the kernel side", health.payload_bytes);
        let lost = health.lost_events.saturating_add(health.lost_controls);
        self.counter("capture_lost_records", "Records that did not fit into a ring", lost);
        self.counter(
            "capture_lost_bytes",
            "Payload that did not fit into a ring",
            health.lost_bytes,
        );
        self.gauge("capture_detached", "Kernel programs gone", health.detached.len() as u64);
        self.gauge("capture_sockets", "Connections in plain text", health.sockets);
        self.gauge("capture_sockets_tls", "Connections that speak TLS", health.sockets_tls);
    }

    /// What sinks did that deliver over a network.
    pub(crate) fn sinks(&mut self, tallies: &[sinks::Tally]) {
        type Of = fn(&sinks::Tally) -> u64;
        let all: [(&str, &str, bool, Of); 7] = [
            ("sink_arrived", "Records that arrived", true, |it| it.arrived),
            ("sink_refused", "Records that will never be taken", true, |it| it.refused),
            ("sink_failures", "Times that delivery began anew", true, |it| it.failures),
            ("sink_dropped_calls", "Calls that had no room in the spool", true, |it| {
                it.dropped_calls
            }),
            ("sink_lost_alerts", "Alerts that had no room in the spool", true, |it| it.lost_alerts),
            ("sink_spool_bytes", "Bytes that wait in the spool", false, |it| it.waiting_bytes),
            ("sink_slowest_microseconds", "The slowest delivery so far", false, |it| it.slowest_us),
        ];
        for (name, help, is_counter, of) in all {
            let each = tallies.iter().map(|it| (Some(("sink", it.sink.to_owned())), of(it)));
            self.add(name, help, is_counter, each.collect());
        }
    }
}

/// The fields of a struct of counters.
fn fields(counters: &impl Serialize) -> Vec<(Option<(&'static str, String)>, u64)> {
    let Ok(serde_json::Value::Object(all)) = serde_json::to_value(counters) else {
        return Vec::new();
    };
    let count = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    all.into_iter().map(|(what, value)| (Some(("what", what)), count(&value))).collect()
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { name, help, is_counter, figures } in &*lock(&self.0) {
            let kind = match is_counter {
                true => ConstCounter::new(0_u64).metric_type(),
                false => ConstGauge::new(0_u64).metric_type(),
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            let write = |place: MetricEncoder<'_>, value: u64| match is_counter {
                true => ConstCounter::new(value).encode(place),
                false => ConstGauge::new(value).encode(place),
            };
            if let [(None, value)] = figures.as_slice() {
                write(family, *value)?;
                continue;
            }
            for (label, value) in figures {
                let labels: Vec<(&str, &str)> =
                    label.iter().map(|(name, value)| (*name, value.as_str())).collect();
                write(family.encode_family(&labels)?, *value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn figures_are_served_as_open_metrics() {
        // A free port; should another program take it meanwhile, the next is as good.
        let (address, board) = loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            if let Ok(board) = serve(free) {
                break (free, board);
            }
        };
        let mut figures = Figures::default();
        figures.counter("calls", "Calls decoded", 7);
        figures.sinks(&[sinks::Tally {
            sink: "kafka",
            waiting_bytes: 12,
            ..sinks::Tally::default()
        }]);
        board.show(figures);
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        for line in [
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
            "\nkeywatch_calls_total 7\n",
            "\n# TYPE keywatch_sink_spool_bytes gauge\n",
            "\nkeywatch_sink_spool_bytes{sink=\"kafka\"} 12\n",
            "\n# EOF\n",
        ] {
            assert!(reply.contains(line), "{line} in {reply}");
        }
    }
}
