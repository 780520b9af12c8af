//! The record of a message and its reply.

use std::sync::Arc;

use compact_str::CompactString;

use super::message::Message;
use super::said::Said;
use super::waiting::{Asked, Awaited, is_answered_by_name};
use crate::call::{
    Anomalies, ApiCall, Detail, Flow, Key, Operation, Protocol, Request, Response, Token,
};
use crate::connection::{Close, Peer};
use crate::decode::conversation::Upgraded;
use crate::identity::{Identifier, Named, OBJECT_IDS_MAX, Style};
use crate::plain::{plain, plain_words};

/// What the HTTP request said that opened the connection.
pub(super) struct Handshake {
    request: Request,
    pub(super) key: Option<Key>,
    pub(super) style: Style,
}

impl Handshake {
    pub(super) fn of(upgraded: Upgraded) -> Handshake {
        let Upgraded { request, identified, .. } = upgraded;
        Handshake { request, key: identified.key, style: identified.style }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let Request { host, target, path, user_agent, .. } = &self.request;
        let optional = [host, user_agent].into_iter().flatten().map(|text| text.len());
        target.len() + path.len() + optional.sum::<usize>()
    }
}

/// Who sends a message.
pub(super) struct Who {
    pub(super) key: Option<Key>,
    pub(super) token: Option<Arc<Token>>,
    pub(super) style: Style,
    /// Of a login: whose the connection was before.
    pub(super) before: Option<Box<Option<Key>>>,
}

/// A reply.
#[derive(Clone, Copy)]
pub(super) struct Told<'m> {
    pub(super) message: &'m Message,
    pub(super) said: &'m Said<'m>,
}

/// The client asks for channels, or wants no more of them.
pub(super) fn subscribes(said: &Said<'_>) -> bool {
    let Some(name) = said.name() else { return false };
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    last.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"sub"))
}

/// A message of the client, and whether a reply to it can be told.
pub(super) fn asked(
    message: &Message,
    each: &[Said<'_>],
    who: Who,
    identifier: &Identifier,
) -> (Asked, bool) {
    let Who { key, token, style, before } = who;
    let has_key = key.is_some();
    let operation = |said: &Said<'_>| {
        let name = said.name().unwrap_or_default();
        identifier.message_operation(style, name, said.positional, has_key)
    };
    // Of a batch that what matters most: it stands for the rest.
    let chief = each.iter().rev().max_by_key(|said| operation(said).weight());
    let named = chief.and_then(|said| plain(said.name()?));
    let method = named.unwrap_or_else(|| if message.text { "TEXT" } else { "BINARY" }.into());
    let op = chief.map_or(Operation::Public, operation);
    let (mut symbol, mut object_ids) = (None, Vec::new());
    for said in each {
        symbol = symbol.or_else(|| name_objects(said, style, identifier, &mut object_ids));
    }
    let ids = each.iter().filter_map(Said::id).collect();
    let awaited = each.first().map_or(Awaited::NoName, Awaited::of);
    let by_name = chief.and_then(Said::name).is_some_and(is_answered_by_name);
    // Most messages ask for data that is everybody's.
    let fields = chief.filter(|_| op != Operation::Public);
    let fields = fields.and_then(|said| identifier.named(said.parameters()));
    let repeats = op != Operation::Public && each.iter().any(Said::repeats);
    let mut anomalies = message.anomalies;
    anomalies.set(Anomalies::DUPLICATE_MEMBER, repeats);
    let parts = (each.len() > 1).then(|| u32::try_from(each.len()).unwrap_or(u32::MAX));
    let asked = Asked {
        time: message.time,
        last: message.last,
        method,
        op,
        key,
        token,
        style,
        before,
        detail: (parts.is_some() || fields.is_some())
            .then(|| Box::new(Detail { parts, fields, ..Detail::default() })),
        symbol,
        object_ids,
        body_bytes: message.payload_bytes(),
        anomalies,
        complete: message.complete,
        missed: Anomalies::empty(),
        ids,
        awaited,
    };
    let changes = !matches!(op, Operation::Public | Operation::Read);
    let named = asked.awaited != Awaited::NoName;
    let waits = !asked.ids.is_empty() || by_name || named && changes;
    (asked, waits)
}

/// The instrument; ids of objects are added to those known.
fn name_objects(
    said: &Said<'_>,
    style: Style,
    identifier: &Identifier,
    object_ids: &mut Vec<CompactString>,
) -> Option<CompactString> {
    let mut symbol = said.symbol().and_then(plain);
    let Some(params) = said.params else { return symbol };
    // Either the parameters themselves, or a list of orders.
    let orders = params.elements().take(super::said::BATCH_MAX);
    for (name, value) in std::iter::once(params).chain(orders).flat_map(|it| it.members()) {
        match identifier.names(style, name) {
            Named::Symbol => {
                let text = value.string().or_else(|| value.elements().next()?.string());
                symbol = symbol.or_else(|| plain(text?));
            }
            Named::Object => {
                let id = value.scalar().filter(|raw| is_object_id(raw));
                let id = id.and_then(|raw| CompactString::from_utf8(raw).ok());
                if let Some(id) = id
                    && object_ids.len() < OBJECT_IDS_MAX
                    && !object_ids.contains(&id)
                {
                    object_ids.push(id);
                }
            }
            Named::Other => {}
        }
    }
    symbol
}

fn is_object_id(raw: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/:.".contains(byte);
    (1..=64).contains(&raw.len()) && raw.iter().all(plain)
}

/// The record.
pub(super) fn record(
    flow: Arc<Flow>,
    handshake: Option<&Handshake>,
    asked: Asked,
    told: Option<Told<'_>>,
    identifier: &Identifier,
) -> ApiCall {
    let mut anomalies = asked.anomalies;
    let response = told.map(|told| Response {
        status: told.said.status(),
        body_bytes: told.message.payload_bytes(),
        quota: None,
    });
    let latency_us = told.map(|told| told.message.time.micros_since(asked.last));
    let outcome = told.map(|told| {
        let style = asked.style;
        let status = told.said.status();
        identifier.reply_outcome(style, status, told.said.failed(), &told.message.prefix)
    });
    match &told {
        Some(told) => anomalies |= told.message.anomalies,
        None => anomalies |= asked.missed,
    }
    let request = Request {
        method: asked.method,
        host: handshake.and_then(|it| it.request.host.clone()),
        target: handshake.map(|it| it.request.target.clone()).unwrap_or_default(),
        path: handshake.map(|it| it.request.path.clone()).unwrap_or_default(),
        user_agent: handshake.and_then(|it| it.request.user_agent.clone()),
        header_order: None,
        body_bytes: asked.body_bytes,
    };
    ApiCall {
        time: asked.time,
        flow,
        protocol: Protocol::WebSocket,
        request: Some(request),
        response,
        latency_us,
        key: asked.key,
        op: asked.op,
        symbol: asked.symbol,
        object_ids: asked.object_ids,
        outcome,
        stream_id: None,
        grpc: None,
        token: asked.token,
        detail: asked.detail,
        complete: asked.complete && told.is_some_and(|told| told.message.complete),
        anomalies,
    }
}

/// What a close frame says, and whether that is in order (RFC 6455, 5.5.1 and 7.4).
pub(super) fn close(by: Peer, payload: Option<&[u8]>) -> (Close, bool) {
    let (code, reason) = match payload {
        None | Some([]) => return (Close { by, code: None, reason: None }, false),
        Some([_]) => return (Close { by, code: None, reason: None }, true),
        Some([high, low, reason @ ..]) => (u16::from_be_bytes([*high, *low]), reason),
    };
    let text = std::str::from_utf8(reason);
    let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    let odd = !allowed || text.is_err();
    let reason = text.ok().and_then(plain_words);
    (Close { by, code: Some(code), reason }, odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_frames() {
        let check = |payload: &[u8], code, reason: Option<&str>, odd| {
            let (close, seen) = close(Peer::Server, Some(payload));
            assert_eq!((close.code, close.reason.as_deref(), seen), (code, reason, odd));
        };
        check(b"", None, None, false);
        check(b"\x03", None, None, true);
        check(b"\x03\xe8", Some(1000), None, false);
        check(b"\x0f\xa1idle for too long", Some(4001), Some("idle for too long"), false);
        check(b"\x03\xed", Some(1005), None, true);
        check(b"\x03\xe8\xff", Some(1000), None, true);
        assert!(!super::close(Peer::Client, None).1);
    }
}
