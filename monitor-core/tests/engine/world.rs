//! Simulated clients with habits, and an Engine that watches them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use monitor_core::alert::{Alert, Finding};
use monitor_core::call::{
    Anomalies, ApiCall, Flow, FlowId, Key, KeyId, Operation, Outcome, Protocol, Request,
};
use monitor_core::engine::{Engine, Settings};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;
/// 2026-11-02T00:00:00Z, a Monday.
pub(crate) const START: u64 = 1_793_577_600 * SECOND;

/// Knuth's 64-bit linear congruential generator; the high bits are good enough to simulate with.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        let (mut count, mut product, floor) = (0, self.unit(), (-mean).exp());
        while product > floor && count < 1_000 {
            count += 1;
            product *= self.unit();
        }
        count
    }
}

/// A client with a habit: so many calls a minute, busier by day, in bursts.
pub(crate) struct Client {
    pub(crate) key: u128,
    pub(crate) ip: Ipv4Addr,
    calls_per_minute: f64,
    burst: f64,
    pub(crate) withdraws: bool,
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) random: Random,
    pub(crate) clients: Vec<Client>,
    pub(crate) alerts: Vec<Alert>,
    pub(crate) learning: bool,
}

impl World {
    pub(crate) fn new(seed: u64, keys: u32) -> World {
        let clients = (0..keys).map(|n| Client {
            key: 1000 + u128::from(n),
            ip: Ipv4Addr::new(198, 51, n as u8, 10),
            calls_per_minute: [0.3, 1.0, 2.0, 4.0, 8.0, 3.0][n as usize % 6],
            burst: 1.0,
            withdraws: n % 6 == 5,
        });
        World {
            engine: Engine::new(Settings { host: "edge-1".into(), ..Settings::default() }),
            random: Random(seed),
            clients: clients.collect(),
            alerts: Vec::new(),
            learning: false,
        }
    }

    /// As `new`, but the least finding of one detector suffices for an alert.
    pub(crate) fn touchy(seed: u64, keys: u32) -> World {
        let settings = Settings { alert_evidence_min: 0.1, ..Settings::default() };
        World { engine: Engine::new(settings), ..World::new(seed, keys) }
    }

    pub(crate) fn feed(&mut self, call: &ApiCall) {
        if self.learning {
            self.engine.learn(call)
        } else {
            self.engine.handle_call(call)
        }
        while let Some(alert) = self.engine.poll_alert() {
            self.alerts.push(alert);
        }
    }

    /// Ordinary traffic from `from` on, `load` times as much as usual.
    pub(crate) fn ordinary(&mut self, from: u64, minutes: u64, load: f64) {
        for minute in 0..minutes {
            let calls = self.ordinary_minute(from + minute * MINUTE, load);
            calls.iter().for_each(|call| self.feed(call));
        }
    }

    pub(crate) fn ordinary_minute(&mut self, minute: u64, load: f64) -> Vec<ApiCall> {
        let hour = (minute / HOUR % 24) as f64;
        let random = &mut self.random;
        let mut calls = Vec::new();
        for (n, client) in self.clients.iter_mut().enumerate() {
            if random.below(30) == 0 {
                client.burst = [0.2, 0.5, 1.0, 1.0, 1.5, 3.0][random.below(6) as usize];
            }
            let phase = (hour + n as f64) / 24.0 * std::f64::consts::TAU;
            let mean = client.calls_per_minute * client.burst * load * (1.0 + 0.7 * phase.sin());
            for _ in 0..random.poisson(mean) {
                let time = minute + random.below(MINUTE);
                let op = match random.below(10_000) {
                    0..3 if client.withdraws => Operation::Withdraw,
                    0..7_000 => Operation::Read,
                    7_000..9_000 => Operation::Trade,
                    _ => Operation::Cancel,
                };
                let failed = random.below(50) == 0;
                let outcome = if failed { Outcome::Error } else { Outcome::Ok };
                calls.push(call(time, Some(client.key), client.ip, op, Some(outcome)));
            }
        }
        calls.sort_by_key(|call| call.time);
        calls
    }

    /// New alerts, updates aside.
    pub(crate) fn raised(&self) -> Vec<&Alert> {
        self.alerts.iter().filter(|alert| alert.revision == 0).collect()
    }
}

pub(crate) fn call(
    time: u64,
    key: Option<u128>,
    ip: Ipv4Addr,
    op: Operation,
    outcome: Option<Outcome>,
) -> ApiCall {
    let client = Endpoint::new(IpAddr::V4(ip), 40_000);
    let server = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), 443);
    ApiCall {
        time: EventTime(time),
        flow: Arc::new(Flow {
            id: FlowId(u64::from(u32::from(ip))),
            client,
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
        request: None,
        response: None,
        latency_us: None,
        key: key.map(|id| Key {
            id: KeyId(
                u128::from(mixed(id as u64)) << 64
                    | u128::from(mixed(!id as u64 ^ (id >> 64) as u64)),
            ),
            source: "header:x-api-key".into(),
            profile: "x-api-key".into(),
            former: None,
        }),
        op,
        symbol: None,
        object_ids: Vec::new(),
        outcome,
        complete: true,
        stream_id: None,
        grpc: None,
        token: None,
        detail: None,
        anomalies: Anomalies::empty(),
    }
}

/// The finish of SplitMix64: spread like a hash.
pub(crate) fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

pub(crate) fn detectors(alert: &Alert) -> Vec<&str> {
    let mut ids: Vec<&str> = alert.findings.iter().map(|finding| &*finding.detector).collect();
    ids.sort_unstable();
    ids
}

pub(crate) fn show(alerts: &[Alert]) -> String {
    alerts
        .iter()
        .map(|a| {
            format!(
                "{} r{} {:?} {} {:?} {} | {}\n",
                a.time, a.revision, a.severity, a.confidence, a.entity, a.title, a.explanation
            )
        })
        .collect()
}

/// The same call made with a client program.
pub(crate) fn with_agent(mut call: ApiCall, agent: &str) -> ApiCall {
    call.request = Some(Request {
        method: "GET".into(),
        host: None,
        target: "/".into(),
        path: "/".into(),
        user_agent: Some(agent.into()),
        header_order: None,
        body_bytes: 0,
    });
    call
}

/// The same call for a symbol.
pub(crate) fn with_symbol(mut call: ApiCall, symbol: &str) -> ApiCall {
    call.symbol = Some(symbol.into());
    call
}

/// What a detector found, in all alerts.
pub(crate) fn found<'a>(alerts: &'a [Alert], detector: &str) -> Vec<&'a Finding> {
    let all = alerts.iter().flat_map(|alert| &alert.findings);
    all.filter(|finding| finding.detector == detector).collect()
}
