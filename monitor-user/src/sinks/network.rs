//! A sink behind a spool: what all sinks that can be away have in common.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use monitor_core::alert::{Alert, Severity};
use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;
use serde::{Deserialize, Serialize};

use super::courier::{Connect, Counts, Courier, Shared, tell_gap};
use super::event::Writer;
use super::format::Format;
use super::record::{self, Kind};
use super::reducer::{Out, Reducer};
use super::spool::{Bounds, Spool, WhenFull, Which, lock};
use super::{Sink, Tally};
use crate::fault::tell;

/// Which records a sink gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// What they are about.
    pub kinds: Vec<Kind>,
    /// The least bad alert or health event.
    pub severity_min: Severity,
}

impl Route {
    /// Whether a record of this kind and severity belongs there.
    pub(crate) fn takes(&self, kind: Kind, severity: Option<Severity>) -> bool {
        self.kinds.contains(&kind) && severity.is_none_or(|it| it >= self.severity_min)
    }
}

/// What a sink behind a spool is made of.
pub(crate) struct Parts<'a> {
    /// In records and folders: `kafka`.
    pub(crate) sink: &'static str,
    /// In messages: `Kafka at …`.
    pub(crate) place: String,
    /// Folder of all spools.
    pub(crate) spool_dir: &'a Path,
    pub(crate) bounds: Bounds,
    pub(crate) when_full: WhenFull,
    /// Host that records name.
    pub(crate) host: String,
    pub(crate) format: Format,
    /// Form of calls.
    pub(crate) activity_format: Format,
    /// How long plain reads that are alike are taken together; only in the compact form.
    pub(crate) summary: Option<Duration>,
    pub(crate) route: Route,
    /// How long the end waits for the last deliveries.
    pub(crate) flush_max: Duration,
}

/// See the module.
pub(crate) struct Network {
    sink: &'static str,
    place: String,
    host: String,
    route: Route,
    flush_max: Duration,
    shared: Arc<Shared>,
    couriers: Vec<JoinHandle<()>>,
    reducer: Option<Reduced>,
    seen: EventTime,
    bytes: Vec<u8>,
}

/// Calls that are taken together, and since when by this host's clock: nothing else may come for long.
struct Reduced {
    reducer: Reducer,
    window: Duration,
    since: Instant,
}

impl Network {
    /// Starts sending what an earlier run left in the spool. `connect` makes the transport of a lane.
    pub(crate) fn start(parts: Parts<'_>, connect: impl Fn(Which) -> Connect) -> Result<Network> {
        let dir = parts.spool_dir.join(parts.sink);
        let shared = Arc::new(Shared {
            spool: Spool::open(&dir, parts.bounds, parts.when_full)?,
            counts: Counts::default(),
            deadline: Mutex::new(None),
        });
        let start = |which| {
            let courier = Courier {
                shared: Arc::clone(&shared),
                which,
                place: parts.place.clone(),
                sink: parts.sink,
                host: parts.host.clone(),
                writer: Writer::new(parts.format, &parts.host).with_calls_as(parts.activity_format),
                route: parts.route.clone(),
                connect: connect(which),
            };
            let name = format!("{}-{which:?}", parts.sink).to_lowercase();
            std::thread::Builder::new()
                .name(name)
                .spawn(move || courier.run())
                .with_context(|| format!("cannot start a thread of {}", parts.place))
        };
        let mut couriers = vec![start(Which::Alerts)?];
        // Also for what an earlier run left, when calls are no longer wanted.
        if parts.route.kinds.contains(&Kind::Activity) || !shared.spool.is_empty(Which::Activity) {
            couriers.push(start(Which::Activity)?);
        }
        let Parts { sink, place, host, route, flush_max, summary, .. } = parts;
        let reducer = summary.map(|window| Reduced {
            reducer: Reducer::new(window),
            window,
            since: Instant::now(),
        });
        Ok(Network {
            sink,
            place,
            host,
            route,
            flush_max,
            shared,
            couriers,
            reducer,
            seen: EventTime(0),
            bytes: Vec::new(),
        })
    }

    /// Sends what is taken together so far.
    fn end_window(&mut self) {
        if let Some(Reduced { reducer, since, .. }) = &mut self.reducer {
            *since = Instant::now();
            reducer.finish(|out, ordinal| put(&self.shared.spool, out, ordinal, &mut self.bytes));
        }
    }

    fn say_what_is_left(&self, alerts: u64, calls: u64) {
        if alerts + calls > 0 {
            tell(&format!(
                "{alerts} alerts and {calls} calls wait for {}: {}: the next run sends them",
                self.place,
                self.shared.spool.dir().display()
            ));
        }
    }
}

impl Sink for Network {
    fn name(&self) -> String {
        self.place.clone()
    }

    fn call(&mut self, call: &ApiCall, ordinal: u64) -> Result<()> {
        if !self.route.takes(Kind::Activity, None) {
            return Ok(());
        }
        let Network { shared, bytes, reducer, .. } = self;
        let mut put = |out: Out<'_>, ordinal| put(&shared.spool, out, ordinal, bytes);
        match reducer {
            Some(Reduced { reducer, since, .. }) => {
                if reducer.take(call, ordinal, put) {
                    *since = Instant::now();
                }
            }
            None => put(Out::Call(call), ordinal),
        }
        Ok(())
    }

    fn seen(&mut self, time: EventTime) {
        self.seen = time;
    }

    fn alert(&mut self, alert: &Alert) -> Result<()> {
        if self.route.takes(Kind::Alert, Some(alert.severity)) {
            let head = record::alert(alert, self.seen, &mut self.bytes);
            let head = head.context("cannot write an alert as JSON")?;
            self.shared.spool.put_alert(head, &self.bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.reducer.as_ref().is_some_and(|it| it.since.elapsed() >= it.window) {
            self.end_window();
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.couriers.is_empty() {
            return Ok(());
        }
        self.end_window();
        *lock(&self.shared.deadline) = Some(Instant::now() + self.flush_max);
        let spool = &self.shared.spool;
        spool.wake(Which::Alerts);
        spool.wake(Which::Activity);
        let mut broke_off = false;
        for courier in self.couriers.drain(..) {
            broke_off |= courier.join().is_err();
        }
        spool.settle();
        tell_gap(spool, self.sink, &self.host);
        let (alerts, calls) = spool.close()?;
        self.say_what_is_left(alerts, calls);
        let dir = spool.dir().display();
        if broke_off {
            bail!("a thread of it broke off; what it did not send stays in {dir}");
        }
        match spool.lost() {
            0 => Ok(()),
            lost => bail!("{lost} alerts did not fit into the spool at {dir}"),
        }
    }

    fn dropped(&self) -> u64 {
        self.shared.spool.dropped()
    }

    fn tally(&self) -> Option<Tally> {
        let (counts, spool) = (&self.shared.counts, &self.shared.spool);
        Some(Tally {
            sink: self.sink,
            arrived: counts.arrived.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            failures: counts.failures.load(Ordering::Relaxed),
            slowest_us: counts.slowest_us.load(Ordering::Relaxed),
            dropped_calls: spool.dropped(),
            lost_alerts: spool.lost(),
            waiting_bytes: spool.bytes(),
            delays: counts.delays.counts(),
        })
    }
}

fn put(spool: &Spool, out: Out<'_>, ordinal: u64, bytes: &mut Vec<u8>) {
    let head = match out {
        Out::Call(call) => record::call(call, ordinal, bytes),
        Out::Summary(summary) => record::summary(summary, ordinal, bytes),
    };
    spool.put_activity(head, bytes);
}
