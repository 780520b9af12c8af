//! Who calls, and a call made from it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use monitor_core::call::{
    Anomalies, ApiCall, Detail, Flow, FlowId, Key, KeyId, Outcome, Protocol, Quota, Request,
    Response, SignatureId, Signed, Token,
};
use monitor_core::input::Endpoint as Address;
use monitor_core::time::EventTime;

use crate::names::{self, Endpoint};
use crate::random::{Random, mixed};

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A key in a header, requests signed.
    ApiKey,
    /// A bearer token of a login.
    Login,
}

/// One connection of one client.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) key: Option<Key>,
    pub(crate) flow: Arc<Flow>,
    pub(crate) agent: CompactString,
    pub(crate) token: Option<Arc<Token>>,
}

pub(crate) fn key(id: KeyId, style: Style) -> Key {
    let (source, profile) = match style {
        Style::ApiKey => ("header:x-mbx-apikey", "binance"),
        Style::Login => ("header:authorization", "jwt"),
    };
    Key { id, source: source.into(), profile: profile.into(), former: None }
}

/// A connection from there with a program of this fingerprint; `n` tells it from others.
pub(crate) fn flow(ip: Ipv4Addr, ja4: &str, n: u64) -> Arc<Flow> {
    let id = mixed(u64::from(u32::from(ip)) ^ n.rotate_left(32));
    let port = 32_768 + (id % 28_000) as u16;
    Arc::new(Flow {
        id: FlowId(id),
        client: Address::new(IpAddr::V4(ip), port),
        server: Address::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), 443),
        proxied_for: None,
        tls: true,
        server_name: Some("api.example.com".into()),
        ja4: Some(ja4.into()),
        process: Some("gateway".into()),
        pid: Some(812),
        container: None,
    })
}

/// What is asked and how it ends.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) time: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) symbol: u16,
    pub(crate) object: Option<u64>,
    pub(crate) outcome: Outcome,
    /// How many times the usual the answer is.
    pub(crate) size: f64,
    /// Account in the request, where it names one.
    pub(crate) account: Option<u64>,
    /// What the client thinks that the time is, nanoseconds beside the truth.
    pub(crate) skew_ns: i64,
    /// Calls of this key in this minute so far.
    pub(crate) used: u32,
}

impl Ask {
    pub(crate) fn new(time: u64, endpoint: Endpoint) -> Ask {
        Ask {
            time,
            endpoint,
            symbol: 0,
            object: None,
            outcome: Outcome::Ok,
            size: 1.0,
            account: None,
            skew_ns: 0,
            used: 1,
        }
    }
}

pub(crate) fn call(face: &Face, ask: &Ask, random: &mut Random) -> ApiCall {
    let looks = ask.endpoint.looks();
    let is_ok = ask.outcome == Outcome::Ok;
    let symbol = looks.symbol.then(|| names::symbol(ask.symbol));
    let object = ask.object.filter(|_| looks.order).map(|n| format_compact!("{n}"));
    let mut target = CompactString::const_new(looks.path);
    let mut sign = if looks.path.contains('?') { '&' } else { '?' };
    let mut add = |name: &str, value: &str| {
        target.push(std::mem::replace(&mut sign, '&'));
        target.push_str(name);
        target.push('=');
        target.push_str(value);
    };
    if let Some(symbol) = &symbol {
        add("symbol", symbol);
    }
    if let Some(object) = &object {
        add("orderId", object);
    }
    let account = ask.account.filter(|_| looks.signed).map(|n| format_compact!("{n}"));
    if let Some(account) = &account {
        add("subAccountId", account);
    }
    let signed = (looks.signed && face.token.is_none()).then(|| {
        let stated_ms = ask.time.saturating_add_signed(ask.skew_ns) / 1_000_000;
        add("timestamp", &format_compact!("{stated_ms}"));
        add("signature", "[redacted]");
        let fingerprint = SignatureId(random.below(u64::MAX));
        let fingerprint = Some(fingerprint);
        Signed { fingerprint, stated_ms: Some(stated_ms), ..Signed::default() }
    });
    let path = looks.path.split('?').next().unwrap_or_default();
    let bytes = if is_ok { looks.bytes * ask.size * random.lognormal(1.0, 0.3) } else { 60.0 };
    ApiCall {
        time: EventTime(ask.time),
        flow: face.flow.clone(),
        protocol: Protocol::Http11,
        request: Some(Request {
            method: looks.method.into(),
            host: Some(CompactString::const_new("api.example.com")),
            target,
            path: CompactString::const_new(path),
            user_agent: Some(face.agent.clone()),
            header_order: None,
            body_bytes: 0,
        }),
        response: Some(Response {
            status: Some(status(ask.outcome, ask.endpoint)),
            body_bytes: bytes as u64,
            quota: Some(Quota { used: Some(ask.used), limit: Some(LIMIT), remaining: None }),
        }),
        latency_us: Some(random.lognormal(looks.latency_us, 0.5) as u64),
        key: face.key.clone(),
        op: looks.op,
        symbol,
        object_ids: object.into_iter().collect(),
        outcome: Some(ask.outcome),
        stream_id: None,
        grpc: None,
        token: face.token.clone(),
        detail: (account.is_some() || signed.is_some())
            .then(|| Box::new(Detail { account, signed, ..Detail::default() })),
        complete: true,
        anomalies: Anomalies::empty(),
    }
}

/// Calls a minute and key: the limit of the spot API of Binance is of this size.
pub(crate) const LIMIT: u32 = 1200;

fn status(outcome: Outcome, endpoint: Endpoint) -> u16 {
    match (outcome, endpoint) {
        (Outcome::Error, Endpoint::Probe(_)) => 404,
        (Outcome::Ok, _) => 200,
        (Outcome::BadKey | Outcome::IpDenied, _) => 401,
        (Outcome::PermissionDenied | Outcome::MfaRequired | Outcome::Locked, _) => 403,
        (Outcome::Throttled, _) => 429,
        (Outcome::Banned, _) => 418,
        (Outcome::BadSignature | Outcome::Skew | Outcome::ReplayedNonce, _) => 400,
        (Outcome::AddressNotAllowed | Outcome::Error, _) => 400,
    }
}
