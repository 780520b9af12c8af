//! What the Engine takes for a call, and for a key: `cargo run --release --example engine_speed`.
//!
//! Arguments: active keys, calls to time, keys to hold. `cargo xtask bench engine` prints it.
#![expect(clippy::print_stdout, reason = "a command for people")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use monitor_core::call::{
    Anomalies, ApiCall, Flow, FlowId, Key, KeyId, Operation, Outcome, Protocol, Request, Response,
};
use monitor_core::engine::{Engine, Settings};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;

/// 2026-11-02T00:00:00Z.
const START: u64 = 1_793_577_600_000_000_000;
/// What keys ask, each its own.
const ENDPOINTS: [(Operation, &str, &str); 4] = [
    (Operation::Trade, "POST", "/api/v3/order"),
    (Operation::Read, "GET", "/api/v3/account"),
    (Operation::Read, "GET", "/api/v3/openOrders"),
    (Operation::Public, "GET", "/api/v3/depth"),
];
/// Calls of a key in a minute.
const CALLS_PER_MINUTE: u64 = 10;
/// Minutes of history.
const WARM_MINUTES: u64 = 60;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let mut next = |default| args.next().and_then(Result::ok).unwrap_or(default);
    let (active, calls, held) = (next(100_000).max(1), next(5_000_000), next(1_000_000));
    let mut engine = Engine::new(Settings::default());
    let mut call = template();
    let mut time = START;
    for _ in 0..WARM_MINUTES {
        for key in 0..active {
            time += 60_000_000_000 / active;
            set(&mut call, key, time);
            engine.learn(&call);
        }
    }
    let step = 60_000_000_000 / (active * CALLS_PER_MINUTE);
    let begin = Instant::now();
    for n in 0..calls {
        time += step;
        set(&mut call, mixed(n) % active, time);
        engine.handle_call(&call);
    }
    let taken = begin.elapsed().as_secs_f64();
    let mut alerts = 0;
    while engine.poll_alert().is_some() {
        alerts += 1;
    }
    println!("calls a second: {:.0}", calls as f64 / taken);
    println!("alerts: {alerts}");
    for key in active..held {
        for _ in 0..2 {
            time += 1_000;
            set(&mut call, key, time);
            engine.learn(&call);
        }
    }
    println!("keys: {}", engine.keys());
    println!("state bytes: {}", engine.state_bytes());
    println!("resident bytes: {}", resident_bytes());
}

fn set(call: &mut ApiCall, key: u64, time: u64) {
    call.time = EventTime(time);
    if let Some(named) = &mut call.key {
        named.id = KeyId(u128::from(mixed(key)) << 64 | u128::from(mixed(!key)));
    }
    let (op, method, path) = ENDPOINTS[(key % ENDPOINTS.len() as u64) as usize];
    call.op = op;
    call.symbol = (op == Operation::Trade).then(|| "BTCUSDT".into());
    call.latency_us = Some(2_000 + mixed(time) % 1_000);
    if let Some(request) = &mut call.request {
        (request.method, request.path) = (method.into(), path.into());
    }
    if let Some(flow) = Arc::get_mut(&mut call.flow) {
        let ip = Ipv4Addr::from(0x0a00_0000 + (key as u32 & 0x00ff_ffff));
        flow.client = Endpoint::new(IpAddr::V4(ip), 40_000);
    }
}

fn template() -> ApiCall {
    let server = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), 443);
    ApiCall {
        time: EventTime(START),
        flow: Arc::new(Flow {
            id: FlowId(1),
            client: server,
            server,
            proxied_for: None,
            tls: false,
            server_name: None,
            ja4: None,
            process: None,
            pid: None,
            container: None,
        }),
        protocol: Protocol::Http11,
        request: Some(Request {
            method: "GET".into(),
            host: Some("api.example.com".into()),
            target: "/".into(),
            path: "/".into(),
            user_agent: Some("desk/1.0".into()),
            header_order: None,
            body_bytes: 0,
        }),
        response: Some(Response { status: Some(200), body_bytes: 512, quota: None }),
        latency_us: None,
        key: Some(Key {
            id: KeyId(0),
            source: "header:x-api-key".into(),
            profile: "x-api-key".into(),
            former: None,
        }),
        op: Operation::Read,
        symbol: None,
        object_ids: Vec::new(),
        outcome: Some(Outcome::Ok),
        complete: true,
        stream_id: None,
        grpc: None,
        token: None,
        detail: None,
        anomalies: Anomalies::empty(),
    }
}

/// The finish of SplitMix64: spread like a hash.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// From /proc/self/status; 0 where there is none.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
