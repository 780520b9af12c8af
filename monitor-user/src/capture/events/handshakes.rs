//! Whose a secret is: connections by the hellos of their clients.

use monitor_common::{BEGINS, DataHeader, GOES_ON, TO_SERVER, TlsSecret};
use monitor_core::input::{Endpoint, FlowKey, Input};
use zeroize::Zeroize as _;

use super::{Events, LINGER_NS};
use crate::capture::secrets;

/// A secret; wiped when it is dropped.
pub(super) struct Derived(pub(super) TlsSecret);

impl Drop for Derived {
    fn drop(&mut self) {
        self.0.secret.zeroize();
    }
}

/// Connections whose hello came before their socket, or secrets: a burst of new ones.
const EARLY_MAX: usize = 4096;

impl Events {
    /// Keeps whose hello it was; and says, later, that a connection of which nothing was opened is of no use.
    pub(super) fn look_at_hello(&mut self, header: &DataHeader, payload: &[u8]) {
        let Some(socket) = self.sockets.get_mut(&header.cookie) else {
            if self.early_hellos.len() >= EARLY_MAX {
                self.early_hellos.clear();
            }
            if let Some(random) = secrets::client_random(payload) {
                let client = Endpoint { addr: header.source, port: header.source_port };
                let server = Endpoint { addr: header.target, port: header.target_port };
                let flow = FlowKey { client, server, scope: header.scope };
                self.early_hellos.insert(flow, random);
            }
            return;
        };
        if header.stage == BEGINS && header.direction == TO_SERVER && socket.hello.is_none() {
            socket.hello = secrets::client_random(payload);
            if let Some(random) = socket.hello {
                self.hellos.insert(random, header.cookie);
            }
        } else if header.stage == GOES_ON && socket.tls && socket.secrets == 0 {
            // Of one that was open before the start, its library's calls may be attached to just now.
            if !socket.inside && socket.hello.is_some() {
                self.sealed.go_on(socket.pid);
            }
            // Without room there it goes on to be delivered, in vain.
            if let Err(error) = self.unwanted.insert(header.cookie, 0, 0) {
                tracing::debug!(%error, "a connection that is of no use stays");
            }
        }
    }

    /// Gives a secret to the connection whose hello it follows.
    pub(super) fn give_secret(&mut self, derived: Box<Derived>, each: &mut dyn FnMut(Input<'_>)) {
        let secret = &derived.0;
        let by_random = secret.has_random == 1;
        let cookie = if by_random { self.hellos.get(&secret.random) } else { Some(&secret.cookie) };
        let Some(socket) = cookie.and_then(|cookie| self.sockets.get_mut(cookie)) else {
            if self.early_secrets.len() >= EARLY_MAX {
                self.early_secrets.pop_front();
                self.secrets_unknown += 1;
            }
            return self.early_secrets.push_back(derived);
        };
        let bit = 1 << (secret.label & 7);
        // One that has its own already is not meant.
        let is_its_own = by_random || socket.secrets & bit == 0;
        let hello = socket.hello.filter(|_| is_its_own);
        let Some(line) = hello.and_then(|random| secrets::line(secret, &random)) else {
            self.secrets_unknown += 1;
            return;
        };
        if !socket.is_seen() {
            self.sealed.see(socket.pid);
        }
        socket.secrets |= bit;
        self.secrets += 1;
        each(Input::Secrets(&line));
    }

    /// Gives what came before its socket was told of, and gives up what came long before: it is of connections
    /// that are not watched.
    pub(super) fn give_early_secrets(
        &mut self,
        cookie: u64,
        now_ns: u64,
        each: &mut dyn FnMut(Input<'_>),
    ) {
        let hello = self.sockets.get(&cookie).and_then(|socket| socket.hello);
        for secret in std::mem::take(&mut self.early_secrets) {
            let is_of_hello = secret.0.has_random == 1 && hello == Some(secret.0.random);
            if is_of_hello || secret.0.has_random == 0 && secret.0.cookie == cookie {
                self.give_secret(secret, each);
            } else if secret.0.time_ns.saturating_add(LINGER_NS) > now_ns {
                self.early_secrets.push_back(secret);
            } else {
                self.secrets_unknown += 1;
            }
        }
    }
}
