//! The compact form of a call: what spools hold and agents send to the fleet's engine.
//!
//! A version byte, then presence bits, then fields in a fixed order. Numbers are LEB128 varints unless
//! said otherwise, texts a varint length and UTF-8. A later program may add fields behind those known
//! here, each with a presence bit of its own, without a new version: a reader passes over what it does
//! not know. A new version byte is for what old readers would misunderstand; they refuse it.

mod optional;

use std::sync::Arc;

use compact_str::CompactString;
use monitor_core::call::{
    Anomalies, ApiCall, Flow, FlowId, Grpc, Key, KeyId, Messages, Operation, Outcome, Protocol,
    Request, Response,
};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;
use thiserror::Error;

/// First byte of every record.
const VERSION: u8 = 1;

/// Why bytes are no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Written by a later program.
    #[error("it is of version {0}, and this keywatch knows {VERSION}")]
    Version(u8),
    /// They end too early.
    #[error("it is cut off")]
    Short,
    /// A text that is not UTF-8.
    #[error("a text in it is not UTF-8")]
    Text,
    /// A number that stands for nothing.
    #[error("its {0} is not known")]
    Code(&'static str),
}

bitflags::bitflags! {
    #[derive(Clone, Copy)]
    struct Has: u64 {
        const REQUEST = 1 << 0;
        const RESPONSE = 1 << 1;
        const LATENCY = 1 << 2;
        const KEY = 1 << 3;
        const SYMBOL = 1 << 4;
        const OBJECT_IDS = 1 << 5;
        const OUTCOME = 1 << 6;
        const STREAM_ID = 1 << 7;
        const GRPC = 1 << 8;
        const COMPLETE = 1 << 9;
        const TLS = 1 << 10;
        const SERVER_NAME = 1 << 11;
        const JA4 = 1 << 12;
        const PROCESS = 1 << 13;
        const PID = 1 << 14;
        const CONTAINER = 1 << 15;
        const HOST = 1 << 16;
        const USER_AGENT = 1 << 17;
        const STATUS = 1 << 18;
        const GRPC_STATUS = 1 << 19;
        const ANOMALIES = 1 << 20;
        const CLIENT_V4 = 1 << 21;
        const SERVER_V4 = 1 << 22;
        const QUOTA = 1 << 23;
        const TOKEN = 1 << 24;
        const DETAIL = 1 << 25;
    }
}

/// Adds a call to `out`.
pub fn encode(call: &ApiCall, out: &mut Vec<u8>) {
    // Every field is named, so that a new one is not forgotten here.
    let ApiCall {
        time,
        flow,
        protocol,
        request,
        response,
        latency_us,
        key,
        op,
        symbol,
        object_ids,
        outcome,
        stream_id,
        grpc,
        token,
        detail,
        complete,
        anomalies,
    } = call;
    let Flow { id, client, server, tls, server_name, ja4, process, pid, container } = &**flow;
    out.push(VERSION);
    let mut has = Has::empty();
    has.set(Has::REQUEST, request.is_some());
    has.set(Has::RESPONSE, response.is_some());
    has.set(Has::LATENCY, latency_us.is_some());
    has.set(Has::KEY, key.is_some());
    has.set(Has::SYMBOL, symbol.is_some());
    has.set(Has::OBJECT_IDS, !object_ids.is_empty());
    has.set(Has::OUTCOME, outcome.is_some());
    has.set(Has::STREAM_ID, stream_id.is_some());
    has.set(Has::GRPC, grpc.is_some());
    has.set(Has::COMPLETE, *complete);
    has.set(Has::TLS, *tls);
    has.set(Has::SERVER_NAME, server_name.is_some());
    has.set(Has::JA4, ja4.is_some());
    has.set(Has::PROCESS, process.is_some());
    has.set(Has::PID, pid.is_some());
    has.set(Has::CONTAINER, container.is_some());
    has.set(Has::HOST, request.as_ref().is_some_and(|r| r.host.is_some()));
    has.set(Has::USER_AGENT, request.as_ref().is_some_and(|r| r.user_agent.is_some()));
    has.set(Has::STATUS, response.as_ref().is_some_and(|r| r.status.is_some()));
    has.set(Has::GRPC_STATUS, grpc.as_ref().is_some_and(|g| g.status.is_some()));
    has.set(Has::ANOMALIES, !anomalies.is_empty());
    has.set(Has::CLIENT_V4, is_v4(client));
    has.set(Has::SERVER_V4, is_v4(server));
    let quota = response.as_ref().and_then(|response| response.quota.as_ref());
    has.set(Has::QUOTA, quota.is_some());
    has.set(Has::TOKEN, token.is_some());
    has.set(Has::DETAIL, detail.is_some());
    number(out, has.bits());
    out.extend_from_slice(&time.0.to_le_bytes());
    out.extend_from_slice(&id.0.to_le_bytes());
    endpoint(out, client);
    endpoint(out, server);
    out.push(protocol_code(*protocol));
    out.push(op_code(*op));
    for known in [server_name, ja4, process, container].into_iter().flatten() {
        text(out, known);
    }
    pid.iter().for_each(|pid| number(out, u64::from(*pid)));
    if let Some(Request { method, host, target, path, user_agent, body_bytes }) = request {
        text(out, method);
        text(out, target);
        // Most often the target up to its query.
        match target.strip_prefix(path.as_str()) {
            Some(_) => number(out, path.len() as u64 + 1),
            None => {
                number(out, 0);
                text(out, path);
            }
        }
        [host, user_agent].into_iter().flatten().for_each(|known| text(out, known));
        number(out, *body_bytes);
    }
    if let Some(Response { status, body_bytes, quota: _ }) = response {
        status.iter().for_each(|status| number(out, u64::from(*status)));
        number(out, *body_bytes);
    }
    latency_us.iter().for_each(|latency| number(out, *latency));
    if let Some(Key { id, source, profile }) = key {
        out.extend_from_slice(&id.0.to_le_bytes());
        text(out, source);
        text(out, profile);
    }
    symbol.iter().for_each(|symbol| text(out, symbol));
    if !object_ids.is_empty() {
        number(out, object_ids.len() as u64);
        object_ids.iter().for_each(|id| text(out, id));
    }
    outcome.iter().for_each(|outcome| out.push(outcome_code(*outcome)));
    stream_id.iter().for_each(|id| number(out, u64::from(*id)));
    if let Some(grpc) = grpc {
        let Grpc { service, method, status, sent, received } = &**grpc;
        text(out, service);
        text(out, method);
        status.iter().for_each(|status| number(out, u64::from(*status)));
        for Messages { count, bytes } in [sent, received] {
            number(out, *count);
            number(out, *bytes);
        }
    }
    if !anomalies.is_empty() {
        number(out, anomalies.bits());
    }
    quota.into_iter().for_each(|quota| optional::put_quota(out, quota));
    token.iter().for_each(|token| optional::put_token(out, token));
    detail.iter().for_each(|detail| optional::put_detail(out, detail));
}

/// Reads a call. Bytes behind it are those of a later program, and passed over.
///
/// # Errors
///
/// When the bytes are no call, whatever they are.
pub fn decode(bytes: &[u8]) -> Result<ApiCall, Malformed> {
    let mut from = Reader(bytes);
    match from.byte()? {
        VERSION => {}
        other => return Err(Malformed::Version(other)),
    }
    let has = Has::from_bits_retain(from.number()?);
    let time = EventTime(u64::from_le_bytes(from.array()?));
    let id = FlowId(u64::from_le_bytes(from.array()?));
    let client = from.endpoint(has.contains(Has::CLIENT_V4))?;
    let server = from.endpoint(has.contains(Has::SERVER_V4))?;
    let protocol = *code(&Protocol::ALL, from.byte()?, "protocol")?;
    let op = *code(Operation::ALL, from.byte()?, "operation")?;
    let if_has = |bit: Has, from: &mut Reader<'_>| match has.contains(bit) {
        true => from.text().map(Some),
        false => Ok(None),
    };
    let server_name = if_has(Has::SERVER_NAME, &mut from)?;
    let ja4 = if_has(Has::JA4, &mut from)?;
    let process = if_has(Has::PROCESS, &mut from)?;
    let container = if_has(Has::CONTAINER, &mut from)?;
    let pid = from.optional(has.contains(Has::PID), |from| from.narrow("process id"))?;
    let tls = has.contains(Has::TLS);
    let flow = Flow { id, client, server, tls, server_name, ja4, process, pid, container };
    let request = from.optional(has.contains(Has::REQUEST), |from| {
        let method = from.text()?;
        let target = from.text()?;
        let path = match usize::try_from(from.number()?).map_err(|_| Malformed::Short)? {
            0 => from.text()?,
            length => target.get(..length - 1).ok_or(Malformed::Short)?.into(),
        };
        let host = if_has(Has::HOST, from)?;
        let user_agent = if_has(Has::USER_AGENT, from)?;
        Ok(Request { method, host, target, path, user_agent, body_bytes: from.number()? })
    })?;
    let mut response = from.optional(has.contains(Has::RESPONSE), |from| {
        let status = from.optional(has.contains(Has::STATUS), |from| from.narrow("status"))?;
        Ok(Response { status, body_bytes: from.number()?, quota: None })
    })?;
    let latency_us = from.optional(has.contains(Has::LATENCY), Reader::number)?;
    let key = from.optional(has.contains(Has::KEY), |from| {
        let id = KeyId(u128::from_le_bytes(from.array()?));
        Ok(Key { id, source: from.text()?, profile: from.text()? })
    })?;
    let symbol = if_has(Has::SYMBOL, &mut from)?;
    let mut object_ids = Vec::new();
    if has.contains(Has::OBJECT_IDS) {
        // Each takes a byte at least, so that a made-up count costs nothing.
        for _ in 0..from.number()? {
            object_ids.push(from.text()?);
        }
    }
    let outcome = from.optional(has.contains(Has::OUTCOME), |from| {
        code(Outcome::ALL, from.byte()?, "outcome").copied()
    })?;
    let stream_id = from.optional(has.contains(Has::STREAM_ID), |from| from.narrow("stream"))?;
    let grpc = from.optional(has.contains(Has::GRPC), |from| {
        let (service, method) = (from.text()?, from.text()?);
        let has_status = has.contains(Has::GRPC_STATUS);
        let status = from.optional(has_status, |from| from.narrow("gRPC status"))?;
        let mut messages = || Ok(Messages { count: from.number()?, bytes: from.number()? });
        let (sent, received) = (messages()?, messages()?);
        Ok(Box::new(Grpc { service, method, status, sent, received }))
    })?;
    let anomalies = from.optional(has.contains(Has::ANOMALIES), Reader::number)?.unwrap_or(0);
    let quota = from.optional(has.contains(Has::QUOTA), optional::quota)?;
    if let Some(response) = &mut response {
        response.quota = quota;
    }
    let token = from.optional(has.contains(Has::TOKEN), optional::token)?.map(Arc::new);
    let detail = from.optional(has.contains(Has::DETAIL), optional::detail)?.map(Box::new);
    Ok(ApiCall {
        time,
        flow: Arc::new(flow),
        protocol,
        request,
        response,
        latency_us,
        key,
        op,
        symbol,
        object_ids,
        outcome,
        stream_id,
        grpc,
        token,
        detail,
        complete: has.contains(Has::COMPLETE),
        // Those that only a later program knows are left out.
        anomalies: Anomalies::from_bits_truncate(anomalies),
    })
}

/// LEB128.
pub(crate) fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn is_v4(endpoint: &Endpoint) -> bool {
    endpoint.addr[..12] == V4_MAPPED
}

/// `::ffff:0:0/96` (RFC 4291, 2.5.5.2).
const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

fn endpoint(out: &mut Vec<u8>, endpoint: &Endpoint) {
    let from = if is_v4(endpoint) { V4_MAPPED.len() } else { 0 };
    out.extend_from_slice(&endpoint.addr[from..]);
    out.extend_from_slice(&endpoint.port.to_be_bytes());
}

/// Codes are places in `ALL`; a test holds them fast.
fn protocol_code(protocol: Protocol) -> u8 {
    Protocol::ALL.iter().position(|known| *known == protocol).unwrap_or(0xff) as u8
}

fn op_code(op: Operation) -> u8 {
    Operation::ALL.iter().position(|known| *known == op).unwrap_or(0xff) as u8
}

fn outcome_code(outcome: Outcome) -> u8 {
    Outcome::ALL.iter().position(|known| *known == outcome).unwrap_or(0xff) as u8
}

fn code<'a, T>(all: &'a [T], code: u8, what: &'static str) -> Result<&'a T, Malformed> {
    all.get(usize::from(code)).ok_or(Malformed::Code(what))
}

/// Bytes that are not read yet.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Code("number"))
    }

    fn narrow<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Malformed> {
        T::try_from(self.number()?).map_err(|_| Malformed::Code(what))
    }

    fn text(&mut self) -> Result<CompactString, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed::Short)?;
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes).map(CompactString::new).map_err(|_| Malformed::Text)
    }

    fn endpoint(&mut self, is_v4: bool) -> Result<Endpoint, Malformed> {
        let mut addr = [0; 16];
        if is_v4 {
            addr[..12].copy_from_slice(&V4_MAPPED);
            addr[12..].copy_from_slice(&self.array::<4>()?);
        } else {
            addr = self.array()?;
        }
        Ok(Endpoint { addr, port: u16::from_be_bytes(self.array()?) })
    }

    fn optional<T>(
        &mut self,
        is_there: bool,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if is_there { read(self).map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use monitor_core::call::{Detail, Quota, Token};
    use proptest::prelude::*;

    use super::*;

    /// A call with everything in it.
    pub(crate) fn full() -> ApiCall {
        ApiCall {
            time: EventTime(1_795_464_000_123_456_789),
            flow: Arc::new(Flow {
                id: FlowId(0x6a4f_fe9c_13c7_fe69),
                client: Endpoint::new("203.0.113.9".parse().unwrap(), 51512),
                server: Endpoint::new("2001:db8::5".parse().unwrap(), 443),
                tls: true,
                server_name: Some("api.example.com".into()),
                ja4: Some("t13d1516h2_8daaf6152771_02713d6af862".into()),
                process: Some("nginx".into()),
                pid: Some(812),
                container: Some("c0ffee".into()),
            }),
            protocol: Protocol::Grpc,
            request: Some(Request {
                method: "POST".into(),
                host: Some("api.example.com".into()),
                target: "/api/v3/order?symbol=BTCUSDT".into(),
                path: "/api/v3/order".into(),
                user_agent: Some("client/1".into()),
                body_bytes: 120,
            }),
            response: Some(Response {
                status: Some(200),
                body_bytes: 70_000,
                quota: Some(Quota { used: Some(17), limit: Some(6000), remaining: None }),
            }),
            latency_us: Some(1830),
            key: Some(Key {
                id: KeyId(0x7f3a),
                source: "header:x-mbx-apikey".into(),
                profile: "binance".into(),
            }),
            op: Operation::Trade,
            symbol: Some("BTCUSDT".into()),
            object_ids: vec!["1".into(), "zwei".into()],
            outcome: Some(Outcome::Ok),
            stream_id: Some(3),
            grpc: Some(Box::new(Grpc {
                service: "exchange.Orders".into(),
                method: "Place".into(),
                status: Some(0),
                sent: Messages { count: 1, bytes: 120 },
                received: Messages { count: 2, bytes: 70_000 },
            })),
            token: Some(Arc::new(Token {
                algorithm: Some("RS256".into()),
                issuer: Some("id.example.com".into()),
                client: Some("desk".into()),
                audience: vec!["api".into()],
                scope: vec!["read".into(), "trade".into()],
                expires: Some(1_795_467_600),
                not_before: None,
                issued: Some(1_795_464_000),
                auth_time: Some(-1),
                acr: Some("2".into()),
                amr: vec!["otp".into()],
            })),
            detail: Some(Box::new(Detail {
                forwarded_for: Some("2001:db8::7".parse().unwrap()),
                account: Some("main".into()),
                amount: Some("0.10".into()),
                parts: Some(2),
                name: Some("order.place".into()),
            })),
            complete: true,
            anomalies: Anomalies::GAP | Anomalies::EARLY_DATA,
        }
    }

    /// A call with as little in it as there can be.
    pub(crate) fn bare() -> ApiCall {
        ApiCall {
            flow: Arc::new(Flow {
                tls: false,
                server_name: None,
                ja4: None,
                process: None,
                pid: None,
                container: None,
                ..(*full().flow).clone()
            }),
            protocol: Protocol::Http11,
            request: None,
            response: None,
            latency_us: None,
            key: None,
            op: Operation::Public,
            symbol: None,
            object_ids: Vec::new(),
            outcome: None,
            stream_id: None,
            grpc: None,
            token: None,
            detail: None,
            complete: false,
            anomalies: Anomalies::empty(),
            ..full()
        }
    }

    fn encoded(call: &ApiCall) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(call, &mut bytes);
        bytes
    }

    #[test]
    fn calls_come_back_as_they_were() {
        let v6 = Endpoint::new("2001:db8::9".parse().unwrap(), 1);
        let odd_path = Request { path: "/elsewhere".into(), ..full().request.unwrap() };
        let unseen = Request {
            method: "".into(),
            target: "".into(),
            path: "".into(),
            host: None,
            user_agent: None,
            body_bytes: 0,
        };
        let empty = Response { status: None, body_bytes: u64::MAX, quota: Some(Quota::default()) };
        for call in [
            full(),
            bare(),
            ApiCall { flow: Arc::new(Flow { client: v6, ..(*full().flow).clone() }), ..full() },
            ApiCall { request: Some(odd_path), ..full() },
            ApiCall { request: Some(unseen), ..bare() },
            ApiCall { response: Some(empty), ..bare() },
            ApiCall { token: Some(Arc::default()), detail: Some(Box::default()), ..bare() },
        ] {
            assert_eq!(decode(&encoded(&call)), Ok(call));
        }
    }

    #[test]
    fn records_of_version_1_stay_readable() {
        let bytes = encoded(&full());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Written down once: what programs of today write must be readable for ever.
        let golden = include_str!("compact/golden-v1.hex").trim();
        assert_eq!(hex, golden, "a record of version 1 is written otherwise");
        assert_eq!(decode(&bytes), Ok(full()));
        // As a later program may write it: with another field.
        let mut later = bytes.clone();
        later.extend_from_slice(b"news");
        assert_eq!(decode(&later), Ok(full()));
    }

    #[test]
    fn codes_never_change_their_meaning() {
        let names = Protocol::ALL.map(Protocol::as_str);
        let known = ["http/0.9", "http/1.0", "http/1.1", "http/2", "grpc", "websocket", "fix"];
        assert_eq!(names[..known.len()], known);
        let names: Vec<_> = Operation::ALL.iter().map(|op| op.as_str()).collect();
        let known = [
            "public",
            "read",
            "trade",
            "cancel",
            "transfer",
            "withdraw",
            "address_book",
            "key_management",
            "subaccount",
            "auth",
        ];
        assert_eq!(names[..known.len()], known);
        let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let known = [
            "ok",
            "bad_key",
            "bad_signature",
            "skew",
            "replayed_nonce",
            "ip_denied",
            "permission_denied",
            "mfa_required",
            "address_not_allowed",
            "throttled",
            "banned",
            "locked",
            "error",
        ];
        assert_eq!(names[..known.len()], known);
    }

    #[test]
    fn a_later_version_is_refused() {
        let mut bytes = encoded(&bare());
        bytes[0] = 2;
        assert_eq!(decode(&bytes), Err(Malformed::Version(2)));
        assert_eq!(decode(&[]), Err(Malformed::Short));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let bytes = encoded(&full());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            at in 0..400_usize,
            byte in any::<u8>(),
        ) {
            let _ = decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode(&bytes);
            let mut near = encoded(&full());
            let at = at % near.len();
            near[at] = byte;
            if let Ok(call) = decode(&near) {
                prop_assert_eq!(decode(&encoded(&call)), Ok(call));
            }
        }
    }
}
