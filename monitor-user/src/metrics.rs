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
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
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
    of: Of,
}

#[derive(Debug)]
enum Of {
    Counters(Labelled<u64>),
    Gauges(Labelled<u64>),
    /// Delays, in seconds.
    Histograms(Labelled<sinks::DelayCounts>),
}

/// Label and its value, where there is one, and the figure.
type Labelled<T> = Vec<(Option<(&'static str, String)>, T)>;

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
        self.add(name, help, Of::Counters(vec![(None, value)]));
    }

    /// A figure of now.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Of::Gauges(vec![(None, value)]));
    }

    fn add(&mut self, name: &'static str, help: &'static str, of: Of) {
        self.0.push(Family { name, help, of });
    }

    /// What the Decoder counted.
    pub(crate) fn decoder(&mut self, counters: &decode::Counters) {
        self.counter("calls", "Calls decoded", counters.calls);
        let each = counters.iter().map(|(what, count)| (Some(("what", what.into())), count));
        self.add(
            "decoder_events",
            "What the Decoder did, and bounds that it met",
            Of::Counters(each.collect()),
        );
    }

    /// What the Engine counted and holds.
    pub(crate) fn engine(&mut self, engine: &Engine) {
        let counters = engine.counters();
        self.counter("alerts", "Alerts given out, updates too", counters.alerts);
        let each = fields(&counters);
        self.add(
            "engine_events",
            "What the Engine did, and bounds that it met",
            Of::Counters(each),
        );
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
        type Pick = fn(&sinks::Tally) -> u64;
        let counters: [(&str, &str, Pick); 5] = [
            ("sink_arrived", "Records that arrived", |it| it.arrived),
            ("sink_refused", "Records that will never be taken", |it| it.refused),
            ("sink_failures", "Times that delivery began anew", |it| it.failures),
            ("sink_dropped_calls", "Calls that had no room in the spool", |it| it.dropped_calls),
            ("sink_lost_alerts", "Alerts that had no room in the spool", |it| it.lost_alerts),
        ];
        let gauges: [(&str, &str, Pick); 2] = [
            ("sink_spool_bytes", "Bytes that wait in the spool", |it| it.waiting_bytes),
            ("sink_slowest_microseconds", "The slowest delivery so far", |it| it.slowest_us),
        ];
        let label = |it: &sinks::Tally| Some(("sink", it.sink.to_owned()));
        let each = |of: Pick| tallies.iter().map(|it| (label(it), of(it))).collect();
        for (name, help, of) in counters {
            self.add(name, help, Of::Counters(each(of)));
        }
        for (name, help, of) in gauges {
            self.add(name, help, Of::Gauges(each(of)));
        }
        self.add(
            "sink_alert_seconds",
            "From the last byte behind an alert until the other side had confirmed it",
            Of::Histograms(tallies.iter().map(|it| (label(it), it.delays.clone())).collect()),
        );
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
        for Family { name, help, of } in &*lock(&self.0) {
            match of {
                Of::Counters(figures) => {
                    let family =
                        encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    write(family, figures, |it, place| ConstCounter::new(*it).encode(place))?;
                }
                Of::Gauges(figures) => {
                    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    write(family, figures, |it, place| ConstGauge::new(*it).encode(place))?;
                }
                Of::Histograms(figures) => {
                    let kind = MetricType::Histogram;
                    let family = encoder.encode_descriptor(name, help, None, kind)?;
                    write(family, figures, delays)?;
                }
            }
        }
        Ok(())
    }
}

fn write<T>(
    mut family: MetricEncoder<'_>,
    figures: &Labelled<T>,
    each: impl Fn(&T, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if let [(None, figure)] = figures.as_slice() {
        return each(figure, family);
    }
    for (label, figure) in figures {
        let labels: Vec<(&str, &str)> =
            label.iter().map(|(name, value)| (*name, value.as_str())).collect();
        each(figure, family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn delays(counts: &sinks::DelayCounts, mut place: MetricEncoder<'_>) -> fmt::Result {
    let ends = sinks::DELAY_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(counts.buckets).collect();
    let (sum, count) = (counts.sum_us as f64 / 1e6, counts.buckets.iter().sum());
    place.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
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
        let mut counts = [0; 13];
        (counts[0], counts[7], counts[12]) = (1, 2, 3);
        figures.sinks(&[sinks::Tally {
            sink: "kafka",
            waiting_bytes: 12,
            delays: sinks::DelayCounts { buckets: counts, sum_us: 2_500_000 },
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
            "\n# TYPE keywatch_sink_alert_seconds histogram\n",
            "\nkeywatch_sink_alert_seconds_sum{sink=\"kafka\"} 2.5\n",
            "\nkeywatch_sink_alert_seconds_count{sink=\"kafka\"} 6\n",
            "\nkeywatch_sink_alert_seconds_bucket{le=\"1.0\",sink=\"kafka\"} 3\n",
            "\nkeywatch_sink_alert_seconds_bucket{le=\"+Inf\",sink=\"kafka\"} 6\n",
            "\n# EOF\n",
        ] {
            assert!(reply.contains(line), "{line} in {reply}");
        }
    }
}
