//! Who a flow is: its id, its ends and the process behind it.

use std::sync::Arc;

use compact_str::CompactString;
use sha2::{Digest, Sha256};

use super::key::{PairKey, Side};
use crate::call::{Flow, FlowId, Key};
use crate::input::{Direction, Endpoint, Owner};

/// The first 64 bits of a SHA-256 over both ends and the client's initial sequence number: the same
/// in a live run and in a replay of the same packets, whatever the clock or the scope says.
pub(crate) fn flow_id(client: Endpoint, server: Endpoint, client_isn: u32) -> FlowId {
    let mut hash = Sha256::new();
    hash.update(b"keywatch flow 1");
    for end in [client, server] {
        hash.update(end.addr);
        hash.update(end.port.to_be_bytes());
    }
    hash.update(client_isn.to_be_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    FlowId(u64::from_be_bytes(first))
}

/// The two ends of a flow and what its calls say about it; that is made when it is first needed.
pub(crate) struct Ends {
    key: PairKey,
    client: Option<Side>,
    client_isn: Option<u32>,
    tls: bool,
    /// How many tunnels the bytes are in.
    pub(crate) tunnels: u8,
    owner: Option<Arc<Owner>>,
    seldom: Option<Box<Seldom>>,
    /// Whom the client's certificate names.
    pub(crate) certificate: Option<Box<Key>>,
    /// Calls that were given out.
    pub(crate) calls: u64,
    id: Option<FlowId>,
    shared: Option<Arc<Flow>>,
}

/// First sequence number and first acknowledgement of a side.
type First = (Option<u32>, Option<u32>);

/// What most flows without TLS need not know.
#[derive(Default)]
struct Seldom {
    /// Of a flow whose handshake was not seen.
    first: [First; 2],
    proxied_for: Option<Endpoint>,
    server_name: Option<CompactString>,
    ja4: Option<CompactString>,
}

impl Ends {
    /// Nothing known but the addresses.
    pub(crate) fn new(key: PairKey) -> Ends {
        Ends {
            key,
            client: None,
            client_isn: None,
            tls: false,
            tunnels: 0,
            owner: None,
            seldom: None,
            certificate: None,
            calls: 0,
            id: None,
            shared: None,
        }
    }

    /// The addresses.
    pub(crate) fn key(&self) -> &PairKey {
        &self.key
    }

    /// Memory held besides the ends themselves, bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.seldom.as_ref().map_or(0, |_| size_of::<Seldom>())
    }

    /// Which end the client is, once known.
    pub(crate) fn client(&self) -> Option<Side> {
        self.client
    }

    /// The client's initial sequence number, when the handshake or the kernel told.
    pub(crate) fn client_isn(&self) -> Option<u32> {
        self.client_isn
    }

    /// Which end the client is, unless that is known better.
    pub(crate) fn orient(&mut self, client: impl FnOnce() -> Side) -> Side {
        *self.client.get_or_insert_with(client)
    }

    /// The handshake was seen, or the kernel told of it.
    pub(crate) fn connect(&mut self, client: Side, isn: u32) {
        (self.client, self.client_isn) = (Some(client), Some(isn));
    }

    /// Both ends called at the same moment (RFC 9293, 3.5): who asks will show who the client is.
    pub(crate) fn cross(&mut self, side: Side, isn: u32) {
        let (Some(client), Some(client_isn)) = (self.client.take(), self.client_isn.take()) else {
            return;
        };
        let first = &mut self.seldom.get_or_insert_default().first;
        first[client.index()] = (Some(client_isn.wrapping_add(1)), None);
        first[side.index()] = (Some(isn.wrapping_add(1)), None);
    }

    /// A segment was seen: without a handshake the first ones stand for it.
    pub(crate) fn see(&mut self, side: Side, seq: u32, ack: Option<u32>) {
        if self.client_isn.is_none() {
            let first = &mut self.seldom.get_or_insert_default().first;
            let (first_seq, first_ack) = &mut first[side.index()];
            first_seq.get_or_insert(seq);
            *first_ack = first_ack.or(ack);
        }
    }

    /// The way that bytes from one side go.
    pub(crate) fn direction(&self, side: Side) -> Direction {
        if self.client == Some(side) { Direction::ToServer } else { Direction::ToClient }
    }

    /// The process behind the server's socket is known, or another one, from here on.
    pub(crate) fn own(&mut self, owner: Arc<Owner>) {
        if self.owner.as_deref() != Some(&*owner) {
            self.owner = Some(owner);
            self.shared = None;
        }
    }

    /// Who is behind the connection, as far as a proxy has said so: as [`Flow::peer`].
    pub(crate) fn peer(&self) -> std::net::IpAddr {
        let client = self.key.endpoint(self.client.unwrap_or(Side::Low));
        self.seldom.as_ref().and_then(|seldom| seldom.proxied_for).unwrap_or(client).ip()
    }

    /// A proxy that is trusted says for whom it has connected.
    pub(crate) fn proxy(&mut self, client: Endpoint) {
        self.seldom.get_or_insert_default().proxied_for = Some(client);
        self.shared = None;
    }

    /// The wire carries TLS, from here on; what the client's hello says of it.
    pub(crate) fn secure(
        &mut self,
        server_name: Option<CompactString>,
        ja4: Option<CompactString>,
    ) {
        self.tls = true;
        if self.seldom.is_some() || server_name.is_some() || ja4.is_some() {
            let seldom = self.seldom.get_or_insert_default();
            (seldom.server_name, seldom.ja4) = (server_name, ja4);
        }
        self.shared = None;
    }

    /// Whether TLS was seen on it.
    pub(crate) fn is_secured(&self) -> bool {
        self.tls
    }

    /// The record that calls share.
    pub(crate) fn flow(&mut self) -> &Arc<Flow> {
        let side = self.client.unwrap_or(Side::Low);
        let (client, server) = (self.key.endpoint(side), self.key.endpoint(side.other()));
        let id = match self.id {
            Some(id) => id,
            None => flow_id(client, server, self.isn(side)),
        };
        self.id = Some(id);
        self.shared.get_or_insert_with(|| {
            let (owner, seldom) = (self.owner.as_deref(), self.seldom.as_deref());
            Arc::new(Flow {
                id,
                client,
                server,
                proxied_for: seldom.and_then(|seldom| seldom.proxied_for),
                tls: self.tls,
                server_name: seldom.and_then(|seldom| seldom.server_name.clone()),
                ja4: seldom.and_then(|seldom| seldom.ja4.clone()),
                process: owner.map(|owner| owner.process.clone()),
                pid: owner.map(|owner| owner.pid),
                container: owner.and_then(|owner| owner.container.clone()),
            })
        })
    }

    /// The id that [`flow`](Ends::flow) gives, as soon as what follows cannot change it.
    pub(crate) fn known_id(&self) -> Option<FlowId> {
        let client = self.client?;
        let (first_seq, _) = self.first(client);
        let settled = self.client_isn.is_some() || first_seq.is_some();
        let id = || {
            flow_id(self.key.endpoint(client), self.key.endpoint(client.other()), self.isn(client))
        };
        self.id.or_else(|| settled.then(id))
    }

    fn first(&self, side: Side) -> First {
        self.seldom.as_ref().map_or_else(First::default, |seldom| seldom.first[side.index()])
    }

    /// The client's initial sequence number, or what comes closest to it.
    fn isn(&self, client: Side) -> u32 {
        let (first_seq, _) = self.first(client);
        let (_, first_ack) = self.first(client.other());
        let before = |next: u32| next.wrapping_sub(1);
        self.client_isn.or(first_seq.map(before)).or(first_ack.map(before)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Endpoint, Endpoint) {
        (Endpoint::new([203, 0, 113, 9].into(), 51_512), Endpoint::new([10, 0, 0, 5].into(), 443))
    }

    #[test]
    fn the_id_depends_on_ends_and_initial_sequence_number() {
        let (client, server) = ends();
        let id = flow_id(client, server, 1);
        assert_ne!(id, flow_id(client, server, 2));
        assert_ne!(id, flow_id(server, client, 1));
        // Computed with Python's hashlib from the description above.
        assert_eq!(id.to_string(), "f_6a4ffe9c13c7fe69");
    }

    #[test]
    fn an_owner_changes_the_record_but_not_the_id() {
        let (client, server) = ends();
        let (key, side) = PairKey::new(client, server, 0);
        let mut ends = Ends::new(key);
        ends.connect(side, 1);
        let before = Arc::clone(ends.flow());
        assert_eq!((before.client, before.server, before.pid), (client, server, None));
        let owner = Owner { process: "nginx".into(), pid: 812, container: None };
        ends.own(Arc::new(owner.clone()));
        let after = Arc::clone(ends.flow());
        assert_eq!((before.id, after.pid), (after.id, Some(812)));
        assert_eq!(after.process.as_deref(), Some("nginx"));
        ends.own(Arc::new(owner));
        assert!(Arc::ptr_eq(&after, ends.flow()));
    }

    #[test]
    fn without_a_handshake_the_first_segments_stand_for_it() {
        let (client, server) = ends();
        let (key, side) = PairKey::new(client, server, 0);
        let check = |seen: &[(Side, u32, Option<u32>)], isn| {
            let mut ends = Ends::new(key);
            seen.iter().for_each(|(side, seq, ack)| ends.see(*side, *seq, *ack));
            assert_eq!(ends.known_id(), None);
            ends.orient(|| side);
            let id = flow_id(client, server, isn);
            let settled = seen.iter().any(|(from, ..)| *from == side);
            assert_eq!(ends.known_id(), settled.then_some(id));
            assert_eq!(ends.flow().id, id);
            assert_eq!(ends.known_id(), Some(id));
        };
        let (c, s) = (side, side.other());
        check(&[(c, 100, Some(7)), (c, 200, Some(7))], 99);
        check(&[(s, 7, Some(100))], 99);
        check(&[(s, 7, Some(300)), (c, 0, None)], u32::MAX);
        check(&[(s, 7, None)], 0);
    }
}
