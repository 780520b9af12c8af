//! What a conversation works with and does not own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::Counters;
use super::proxied::Says;
use super::tap::{Tap, Tapped};
use super::tls::Secrets;
use super::websocket::Bench;
use crate::call::{Anomalies, ApiCall, Flow, Key, Operation};
use crate::connection::Connection;
use crate::flows::identity::Ends;
use crate::flows::stream::Spare;
use crate::identity::Identifier;
use crate::input::Direction;
use crate::limits::Limits;

/// What all flows share.
pub(super) struct Shell<'a> {
    pub(super) limits: &'a Limits,
    pub(super) identifier: &'a Identifier,
    pub(super) secrets: &'a Secrets,
    pub(super) counters: &'a mut Counters,
    pub(super) bench: &'a mut Bench,
    /// Where finished calls go.
    pub(super) calls: &'a mut VecDeque<ApiCall>,
    /// Where connections go that are over.
    pub(super) connections: &'a mut VecDeque<Connection>,
    pub(super) tap: &'a mut Option<Tap>,
    /// Buffers of streams.
    pub(super) spare: &'a mut Spare,
}

/// The same, for one flow.
pub(super) struct Context<'a> {
    pub(super) limits: &'a Limits,
    pub(super) identifier: &'a Identifier,
    pub(super) secrets: &'a Secrets,
    pub(super) counters: &'a mut Counters,
    pub(super) bench: &'a mut Bench,
    calls: &'a mut VecDeque<ApiCall>,
    tap: &'a mut Option<Tap>,
    pub(super) ends: &'a mut Ends,
}

impl Shell<'_> {
    pub(super) fn context<'a>(&'a mut self, ends: &'a mut Ends) -> Context<'a> {
        Context {
            limits: self.limits,
            identifier: self.identifier,
            secrets: self.secrets,
            counters: self.counters,
            bench: self.bench,
            calls: self.calls,
            tap: self.tap,
            ends,
        }
    }
}

impl Context<'_> {
    /// The connection as its calls name it.
    pub(super) fn flow(&mut self) -> Arc<Flow> {
        Arc::clone(self.ends.flow())
    }

    /// Who is behind the connection; `None` where nothing depends on that.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        (!self.identifier.proxies().is_empty()).then(|| self.ends.peer())
    }

    /// Plaintext of this flow, before it is looked at.
    pub(super) fn tap(&mut self, direction: Direction, bytes: &[u8]) {
        if let Some(tap) = self.tap
            && self.ends.known_id() == Some(tap.flow)
        {
            tap.waiting.push_back(Tapped { direction, bytes: bytes.into() });
        }
    }

    /// A header before all else names the client. What is odd about it: who is no proxy that is trusted
    /// speaks for itself alone.
    pub(super) fn proxied(&mut self, says: Says) -> Anomalies {
        let Says::Client(client) = says else { return Anomalies::empty() };
        let proxies = self.identifier.proxies();
        if proxies.trusts(self.ends.peer()) {
            self.ends.proxy(client);
        } else if !proxies.is_empty() {
            return Anomalies::UNTRUSTED_PROXY_HEADER;
        }
        Anomalies::empty()
    }

    /// Gives out a finished call.
    pub(super) fn emit(&mut self, mut call: ApiCall) {
        if call.key.is_none()
            && call.request.is_some()
            && let Some(key) = &self.ends.certificate
        {
            call.key = Some(Key::clone(key));
            if call.op == Operation::Public {
                call.op = Operation::Read;
            }
        }
        self.counters.requests_unanswered += u64::from(call.response.is_none());
        self.counters.responses_unpaired +=
            u64::from(call.anomalies.contains(Anomalies::UNPAIRED_RESPONSE));
        self.counters.calls += 1;
        self.ends.calls += 1;
        self.calls.push_back(call);
    }
}
