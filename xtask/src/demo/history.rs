//! Two simulated weeks of what the dozen usually do, as the records that Keywatch itself writes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use monitor_core::call::{
    ApiCall, Flow, FlowId, Outcome, Protocol, Request as CallRequest, Response,
};
use monitor_core::identity::Identifier;
use monitor_core::time::EventTime;

use super::actors::Actor;

/// Long enough for hour-of-day factors and for the detectors that want seven days.
const DAYS: u64 = 14;
/// Bouts of work a day and key, at its busiest hour's rate for the whole day.
const BOUTS_PER_DAY: u32 = 18;
/// How long a bout lasts, seconds: the live part of the demo is one more such bout.
const BOUT_SECS: std::ops::Range<u64> = 20..45;
const HOUR: Duration = Duration::from_secs(3600);

/// Writes the history that ends at `end`; gives the number of calls.
pub(super) fn write(
    file: &Path,
    actors: &[Actor],
    identifier: &Identifier,
    server_port: u16,
    end: EventTime,
    rng: &mut Rng,
) -> Result<usize> {
    let server = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server_port);
    let mut calls = Vec::new();
    for actor in actors {
        let phase = rng.f64() * 4.0 - 2.0;
        for hours_ago in 0..DAYS * 24 {
            let busy = busyness(hours_ago as f64 + phase);
            let chance = busy * f64::from(BOUTS_PER_DAY) / 24.0;
            if rng.f64() < chance {
                let back = HOUR * u32::try_from(hours_ago)? + HOUR.mul_f64(0.1 + 0.8 * rng.f64());
                let start = EventTime(end.0 - u64::try_from(back.as_nanos())?);
                bout(actor, identifier, server, start, rng, &mut calls);
            }
        }
    }
    calls.sort_by_key(|call| call.time);
    let out = File::create(file).with_context(|| format!("creating {}", file.display()))?;
    let mut out = BufWriter::new(out);
    for call in &calls {
        serde_json::to_writer(&mut out, call)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(calls.len())
}

/// From 0.2 to 1: busiest at the hour of the day at which the demo runs, so that traffic now is
/// what these keys do at this hour.
fn busyness(hours_ago: f64) -> f64 {
    0.6 + 0.4 * (hours_ago * std::f64::consts::TAU / 24.0).cos()
}

/// One bout: a connection with some seconds of calls.
fn bout(
    actor: &Actor,
    identifier: &Identifier,
    server: SocketAddr,
    start: EventTime,
    rng: &mut Rng,
    calls: &mut Vec<ApiCall>,
) {
    let flow = Arc::new(Flow {
        id: FlowId(rng.u64(..)),
        client: SocketAddr::new(actor.home, rng.u16(32768..60999)).into(),
        server: server.into(),
        proxied_for: None,
        tls: false,
        server_name: None,
        ja4: None,
        process: Some("nginx".into()),
        pid: Some(1000),
        container: None,
    });
    let end = start.after(Duration::from_secs(rng.u64(BOUT_SECS)));
    let mut time = start;
    while time < end {
        calls.push(call(actor, identifier, &flow, server.ip(), time, rng));
        time = time.after(pause(actor.role.calls_per_second(), rng));
    }
}

/// Time to the next call of a Poisson process.
pub(super) fn pause(calls_per_second: f64, rng: &mut Rng) -> Duration {
    Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / calls_per_second)
}

fn call(
    actor: &Actor,
    identifier: &Identifier,
    flow: &Arc<Flow>,
    host: IpAddr,
    time: EventTime,
    rng: &mut Rng,
) -> ApiCall {
    let asked = actor.next_request(rng);
    let identified = actor.identify(identifier, &asked);
    ApiCall {
        time,
        flow: Arc::clone(flow),
        protocol: Protocol::Http11,
        request: Some(CallRequest {
            method: asked.method.into(),
            host: Some(compact_str::format_compact!("{host}")),
            target: identified.target,
            path: identified.path,
            user_agent: Some(actor.user_agent.into()),
            header_order: None,
            body_bytes: 0,
        }),
        response: Some(Response {
            status: Some(200),
            body_bytes: asked.response_bytes,
            quota: None,
        }),
        latency_us: Some(rng.u64(150..1500)),
        key: identified.key,
        op: identified.op,
        symbol: identified.symbol,
        object_ids: identified.object_ids,
        outcome: Some(Outcome::Ok),
        stream_id: None,
        grpc: None,
        token: None,
        detail: None,
        complete: true,
        anomalies: identified.anomalies,
    }
}
