//! The compact form of a call: what spools hold and agents send to the fleet's engine.
//!
//! A version byte, then presence bits, then fields in a fixed order. Numbers are LEB128 varints unless
//! said otherwise, texts a varint length and UTF-8. A later program may add fields behind those known
//! here, each with a presence bit of its own, without a new version: a reader passes over what it does
//! not know. A new version byte is for what old readers would misunderstand; they refuse it. So has a
//! `summary` of calls that were alike.

mod glance;
mod optional;
mod summary;

use std::sync::Arc;

use compact_str::CompactString;
use monitor_core::call::{
    Anomalies, ApiCall, Carried, Fields, Flow, FlowId, Grpc, HeaderOrder, Key, KeyId, Messages,
    Operation, Outcome, Protocol, Request, Response, SignatureId,
};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;
use thiserror::Error;

pub(crate) use glance::{Glance, glance};
pub(crate) use summary::{COUNT_MAX, Packed, Summary, decode_packed, encode_summary};

/// First byte of every record of a call.
const VERSION: u8 = 1;
/// First byte of a summary, and the newest version that is known.
const NEWEST: u8 = 2;

/// Why bytes are no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Written by a later program.
    #[error("it is of version {0}, and this keywatch knows {NEWEST}")]
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
        const FORMER_IDS = 1 << 26;
        const PROXIED_FOR = 1 << 27;
        const FIELDS = 1 << 28;
        const OAUTH = 1 << 29;
        const HEADER_ORDER = 1 << 30;
        const FORMER_SIGNATURE = 1 << 31;
        const ANSWERED = 1 << 32;
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
    let Flow { id, client, server, proxied_for, tls, server_name, ja4, process, pid, container } =
        &**flow;
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
    let former = key.as_ref().map_or(&[][..], Key::former);
    has.set(Has::FORMER_IDS, !former.is_empty());
    has.set(Has::PROXIED_FOR, proxied_for.is_some());
    let fields = detail.as_ref().and_then(|detail| detail.fields.as_ref());
    has.set(Has::FIELDS, fields.is_some());
    let oauth = detail.as_ref().and_then(|detail| detail.oauth.as_deref());
    has.set(Has::OAUTH, oauth.is_some());
    let order = request.as_ref().and_then(|request| request.header_order);
    has.set(Has::HEADER_ORDER, order.is_some());
    let signed = detail.as_ref().and_then(|detail| detail.signed);
    let former_signature = signed.and_then(|signed| signed.former);
    has.set(Has::FORMER_SIGNATURE, former_signature.is_some());
    let answered = oauth.and_then(|oauth| oauth.answered.as_ref().zip(oauth.carries));
    has.set(Has::ANSWERED, answered.is_some());
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
    if let Some(Request { method, host, target, path, user_agent, header_order: _, body_bytes }) =
        request
    {
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
    if let Some(Key { id, source, profile, former: _ }) = key {
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
    if !former.is_empty() {
        number(out, former.len() as u64);
        former.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
    }
    if let Some(Endpoint { addr, port }) = proxied_for {
        out.extend_from_slice(addr);
        out.extend_from_slice(&port.to_be_bytes());
    }
    if let Some(fields) = fields {
        number(out, fields.names().count() as u64);
        fields.names().for_each(|name| text(out, name));
    }
    oauth.iter().for_each(|oauth| optional::put_oauth(out, oauth));
    order.iter().for_each(|order| out.extend_from_slice(&order.0.to_le_bytes()));
    former_signature.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
    if let Some((to, carries)) = answered {
        text(out, to);
        out.push(carries as u8);
    }
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
    let proxied_for = None;
    let mut flow =
        Flow { id, client, server, proxied_for, tls, server_name, ja4, process, pid, container };
    let mut request = from.optional(has.contains(Has::REQUEST), |from| {
        let method = from.text()?;
        let target = from.text()?;
        let path = match usize::try_from(from.number()?).map_err(|_| Malformed::Short)? {
            0 => from.text()?,
            length => target.get(..length - 1).ok_or(Malformed::Short)?.into(),
        };
        let host = if_has(Has::HOST, from)?;
        let user_agent = if_has(Has::USER_AGENT, from)?;
        let body_bytes = from.number()?;
        Ok(Request { method, host, target, path, user_agent, header_order: None, body_bytes })
    })?;
    let mut response = from.optional(has.contains(Has::RESPONSE), |from| {
        let status = from.optional(has.contains(Has::STATUS), |from| from.narrow("status"))?;
        Ok(Response { status, body_bytes: from.number()?, quota: None })
    })?;
    let latency_us = from.optional(has.contains(Has::LATENCY), Reader::number)?;
    let mut key = from.optional(has.contains(Has::KEY), |from| {
        let id = KeyId(u128::from_le_bytes(from.array()?));
        Ok(Key { id, source: from.text()?, profile: from.text()?, former: None })
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
    let mut detail = from.optional(has.contains(Has::DETAIL), optional::detail)?.map(Box::new);
    let former = from.optional(has.contains(Has::FORMER_IDS), |from| {
        // Each is read, so that a made-up count ends with the bytes.
        let ids = (0..from.number()?).map(|_| from.array().map(u128::from_le_bytes).map(KeyId));
        ids.collect::<Result<Arc<[KeyId]>, Malformed>>()
    })?;
    if let Some(key) = &mut key {
        key.former = former.filter(|ids| !ids.is_empty());
    }
    flow.proxied_for =
        from.optional(has.contains(Has::PROXIED_FOR), |from| from.endpoint(false))?;
    let fields = from.optional(has.contains(Has::FIELDS), |from| {
        (0..from.number()?).map(|_| from.text()).collect::<Result<Fields, Malformed>>()
    })?;
    if let Some(fields) = fields {
        detail.get_or_insert_default().fields = Some(fields);
    }
    if let Some(oauth) = from.optional(has.contains(Has::OAUTH), optional::oauth)? {
        detail.get_or_insert_default().oauth = Some(Box::new(oauth));
    }
    let order = from.optional(has.contains(Has::HEADER_ORDER), |from| {
        from.array().map(u32::from_le_bytes).map(HeaderOrder)
    })?;
    if let Some(request) = &mut request {
        request.header_order = order;
    }
    let former_signature = from.optional(has.contains(Has::FORMER_SIGNATURE), |from| {
        from.array().map(u64::from_le_bytes).map(SignatureId)
    })?;
    if former_signature.is_some() {
        detail.get_or_insert_default().signed.get_or_insert_default().former = former_signature;
    }
    let answered = from.optional(has.contains(Has::ANSWERED), |from| {
        let to = from.text()?;
        Ok((to, *code(Carried::ALL, from.byte()?, "answer")?))
    })?;
    if let Some((to, carries)) = answered {
        let oauth = detail.get_or_insert_default().oauth.get_or_insert_default();
        (oauth.answered, oauth.carries) = (Some(to), Some(carries));
    }
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
pub(crate) mod tests;
