//! What both directions of a connection speak: one protocol, or the next one inside or after it.

use compact_str::CompactString;

use super::context::Context;
use super::early::Early;
use super::fix;
use super::http1;
use super::http2::{self, Midstream};
use super::preamble::{Beginning, Preamble, Verdict};
use super::proxied::{self, Header};
use super::sniff::{Look, Sniff};
use super::tls;
use super::websocket;
use crate::call::{Anomalies, Protocol, Request};
use crate::connection::Connection;
use crate::identity::Identified;
use crate::input::{Direction, Plain};
use crate::limits::Limits;
use crate::time::EventTime;

/// A protocol that is spoken, with its state.
pub(super) enum Conversation {
    Http1(Box<http1::Connection>),
    /// With what is spoken inside.
    Tls(Box<tls::Connection>),
    Http2(Box<http2::Connection>),
    WebSocket(Box<websocket::Connection>),
    Fix(Box<fix::Connection>),
    /// From somewhere in the middle: whichever shows itself first.
    Midstream(Box<Search>),
    /// Not known yet, between a client and a server that are: inside a tunnel.
    Unknown(Sniff),
    /// Not known yet: a proxy in front says who asks.
    Proxied(Box<Proxied>),
    /// The client's first bytes begin no request; a server of HTTP may have answered them all the same.
    NoRequest(Box<Refusal>),
    /// Nothing that is decoded, so far; it may go over to TLS.
    Preamble(Box<Preamble>),
    /// Nothing that is decoded.
    Other,
}

/// What the server of a client that makes no request is seen to answer.
#[derive(Default)]
pub(super) struct Refusal {
    sniff: Sniff,
    /// Sent by the client so far, captured or not.
    client_bytes: u64,
    /// When it is no HTTP, TLS may follow, until this is vain.
    preamble: Preamble,
}

/// What a connection that began unseen is searched for.
pub(super) struct Search {
    http: Midstream,
    websocket: websocket::Suspicion,
    /// TLS, which may follow in its first bytes that are seen.
    preamble: Option<Preamble>,
}

/// The header of a proxy in front, and what is known of that which follows it.
pub(super) struct Proxied {
    header: Header,
    sniff: Sniff,
}

/// What is spoken after an upgrade.
pub(super) enum Next {
    /// Anything: a tunnel.
    Unknown,
    /// RFC 6455.
    WebSocket(Box<Upgraded>),
    /// RFC 9113, after an upgrade from HTTP/1.1 (RFC 7540, 3.2): the request is its stream 1.
    Http2(Box<Upgraded>),
}

/// The request that changed the protocol.
pub(super) struct Upgraded {
    pub(super) request: Request,
    pub(super) identified: Identified,
    /// First byte of the request.
    pub(super) time: EventTime,
    /// Last byte of it.
    pub(super) last: EventTime,
    /// Every byte of it was seen.
    pub(super) body_complete: bool,
    /// What was odd about it, and about the answer when that is no call of its own.
    pub(super) anomalies: Anomalies,
    /// `Sec-WebSocket-Extensions` of the answer.
    pub(super) extensions: Option<CompactString>,
    /// `HTTP2-Settings` of the request, as it stood there (RFC 7540, 3.2.1).
    pub(super) settings: Option<Box<[u8]>>,
}

/// A connection goes over to another protocol.
pub(super) struct Switch<'c> {
    /// Which.
    pub(super) next: Next,
    /// Bytes that the client sent of it before the server had agreed.
    pub(super) early: Early,
    /// What is left of the chunk that completed the switch.
    pub(super) rest: &'c [u8],
}

impl Conversation {
    /// As its first bytes show it, the last of them in `direction`. `sides` are the directions of what
    /// `sniff` holds, the client's first; `midstream`: bytes were missed before.
    pub(super) fn begin(
        look: Look,
        sniff: &Sniff,
        sides: [usize; 2],
        direction: Direction,
        midstream: bool,
        time: EventTime,
        cx: &mut Context<'_>,
    ) -> Conversation {
        let mut conversation = match look {
            Look::Request | Look::Response => {
                Conversation::Http1(Box::new(http1::Connection::new(midstream)))
            }
            Look::Command if !midstream => {
                Conversation::Http1(Box::new(http1::Connection::new(false)))
            }
            Look::Preface | Look::Settings => {
                cx.counters.http2_connections += 1;
                Conversation::Http2(Box::new(http2::Connection::new(midstream, cx.limits)))
            }
            Look::Fix => {
                cx.counters.fix_flows += 1;
                Conversation::Fix(Box::default())
            }
            Look::Sbe => {
                cx.counters.sbe_flows += 1;
                return Conversation::other(cx);
            }
            Look::Proxy(version) if !midstream => {
                if !enter(cx) {
                    return Conversation::Other;
                }
                let (header, sniff) = (Header::new(version), Sniff::default());
                Conversation::Proxied(Box::new(Proxied { header, sniff }))
            }
            // In the middle of a connection anything may be a body.
            Look::Other | Look::Proxy(_) | Look::Command if midstream => {
                let http = Midstream::new(cx.limits);
                let (websocket, preamble) = (Default::default(), Some(Preamble::default()));
                Conversation::Midstream(Box::new(Search { http, websocket, preamble }))
            }
            Look::Tls(_) => Conversation::secured(cx),
            Look::Other if direction == Direction::ToServer => {
                Conversation::NoRequest(Box::default())
            }
            Look::Other | Look::Proxy(_) | Look::Command => Conversation::Preamble(Box::default()),
        };
        // Responses first: missed ones explain why missed requests have no answer.
        for direction in [Direction::ToClient, Direction::ToServer] {
            let bytes = sniff.missing_bytes(sides[direction as usize]);
            if bytes > 0 {
                conversation.gap(direction, time, bytes, cx);
            }
        }
        // What decides comes last, however many of its bytes came before those of the other side.
        for direction in [direction.reverse(), direction] {
            let side = sides[direction as usize];
            let (time, bytes) = sniff.start(side);
            conversation.note(direction, sniff.notes(side));
            conversation.data(direction, time, bytes, cx);
        }
        conversation
    }

    /// TLS of which nothing was seen on the wire.
    pub(super) fn unseen_tls(cx: &mut Context<'_>) -> Conversation {
        cx.counters.tls_flows += 1;
        cx.ends.secure(None, None);
        Conversation::Tls(Box::default())
    }

    /// Plaintext from inside, and how many bytes of it are missing; `None`: this is no TLS.
    pub(super) fn plain(&mut self, plain: &Plain<'_>, cx: &mut Context<'_>) -> Option<u64> {
        match self {
            Conversation::Tls(connection) => Some(connection.plain(plain, cx)),
            Conversation::Other | Conversation::Preamble(_) => {
                let Conversation::Tls(mut connection) = Conversation::unseen_tls(cx) else {
                    return None;
                };
                let missing = connection.plain(plain, cx);
                *self = Conversation::Tls(connection);
                Some(missing)
            }
            Conversation::Http1(_)
            | Conversation::Http2(_)
            | Conversation::WebSocket(_)
            | Conversation::Fix(_)
            | Conversation::Midstream(_)
            | Conversation::Unknown(_)
            | Conversation::Proxied(_)
            | Conversation::NoRequest(_) => None,
        }
    }

    fn other(cx: &mut Context<'_>) -> Conversation {
        cx.counters.flows_not_http += 1;
        Conversation::Other
    }

    /// TLS. Inside TLS it counts as a tunnel: a capture may bring the keys of any number of them.
    fn secured(cx: &mut Context<'_>) -> Conversation {
        if cx.ends.is_secured() && !enter(cx) {
            return Conversation::Other;
        }
        cx.counters.tls_flows += 1;
        cx.ends.secure(None, None);
        Conversation::Tls(Box::default())
    }

    /// What takes over.
    fn after(next: Next, cx: &mut Context<'_>) -> Conversation {
        match next {
            Next::Unknown if enter(cx) => Conversation::Unknown(Sniff::default()),
            Next::Unknown => Conversation::Other,
            Next::Http2(upgraded) => {
                cx.counters.http2_connections += 1;
                let connection = http2::Connection::upgraded(*upgraded, cx.limits);
                Conversation::Http2(Box::new(connection))
            }
            Next::WebSocket(upgraded) => {
                Conversation::WebSocket(Box::new(websocket::Connection::new(*upgraded, cx)))
            }
        }
    }

    /// The next bytes of a direction.
    pub(super) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        let switch = match self {
            Conversation::Http1(connection) => connection.data(direction, time, chunk, cx),
            Conversation::WebSocket(connection) => {
                connection.data(direction, time, chunk, cx);
                None
            }
            Conversation::Tls(connection) => {
                connection.data(direction, time, chunk, cx);
                None
            }
            Conversation::Fix(connection) => {
                connection.data(direction, time, chunk, cx);
                None
            }
            Conversation::Http2(connection) => {
                connection.data(direction, time, chunk, cx);
                None
            }
            Conversation::Midstream(search) => {
                let Search { http, websocket, preamble } = &mut **search;
                let sure = websocket.read(direction, time, chunk);
                // What is found first counts, however the bytes are cut.
                let first = sure.map_or(chunk.len(), |(used, _)| used);
                let tls = begins(preamble, direction, time, chunk, cx.limits);
                let tls = tls.filter(|beginning| chunk.len() - beginning.rest.len() <= first);
                let first = tls.as_ref().map_or(first, |it| chunk.len() - it.rest.len());
                match http.data(direction, time, &chunk[..first], cx) {
                    http2::Verdict::Open => {
                        if let Some(beginning) = tls {
                            return self.begin_tls(direction, time, *beginning, cx);
                        }
                        let Some((_, rest)) = sure else { return };
                        let websocket = std::mem::take(websocket);
                        let mut found = websocket::Connection::midstream(websocket, cx);
                        found.data(direction, time, rest, cx);
                        *self = Conversation::WebSocket(Box::new(found));
                        return;
                    }
                    http2::Verdict::Http1(connection, switch) => {
                        *self = Conversation::Http1(connection);
                        match switch {
                            Some(Switch { next, early, rest }) => {
                                let rest = &chunk[first - rest.len()..];
                                Some(Switch { next, early, rest })
                            }
                            None => return self.data(direction, time, &chunk[first..], cx),
                        }
                    }
                    http2::Verdict::Http2(connection) => {
                        *self = Conversation::Http2(connection);
                        return self.data(direction, time, &chunk[first..], cx);
                    }
                }
            }
            Conversation::Unknown(sniff) => {
                let side = direction as usize;
                let mut chunk = chunk;
                let Some(look) = sniff.look(side, time, &mut chunk) else { return };
                let sniff = std::mem::take(sniff);
                let missed = [0, 1].iter().any(|side| sniff.missing_bytes(*side) > 0);
                *self = Conversation::begin(look, &sniff, [0, 1], direction, missed, time, cx);
                return self.data(direction, time, chunk, cx);
            }
            Conversation::Proxied(_) if chunk.is_empty() => return,
            Conversation::Proxied(proxied) => {
                let verdict = match direction {
                    Direction::ToServer => proxied.header.data(chunk),
                    // A server that speaks before the header is over does not read it.
                    Direction::ToClient => proxied::Verdict::Bad(chunk),
                };
                let (notes, rest) = match verdict {
                    proxied::Verdict::Open => return,
                    proxied::Verdict::Over(says, rest) => (cx.proxied(says), rest),
                    proxied::Verdict::Bad(rest) => (Anomalies::BAD_PROXY_HEADER, rest),
                };
                let mut sniff = std::mem::take(&mut proxied.sniff);
                sniff.note(Direction::ToServer as usize, notes);
                *self = Conversation::Unknown(sniff);
                return self.data(direction, time, rest, cx);
            }
            Conversation::NoRequest(refusal) => {
                let mut rest = chunk;
                let look = refusal.data(direction, time, &mut rest, cx.limits);
                let Some(look) = look else { return };
                if look != Look::Response {
                    *self = Conversation::Preamble(Box::new(std::mem::take(&mut refusal.preamble)));
                    return self.data(direction, time, chunk, cx);
                }
                let (first, start) = refusal.sniff.start(direction as usize);
                let mut connection = http1::Connection::answered(cx.counters);
                connection.note(direction, refusal.sniff.notes(direction as usize));
                // Fewer bytes than a head has: nothing changes the protocol.
                connection.data(direction, first, start, cx);
                *self = Conversation::Http1(Box::new(connection));
                return self.data(direction, time, rest, cx);
            }
            Conversation::Preamble(preamble) => {
                match preamble.data(direction, time, chunk, cx.limits) {
                    Verdict::Open => {}
                    Verdict::Vain => *self = Conversation::other(cx),
                    Verdict::Tls(beginning) => self.begin_tls(direction, time, *beginning, cx),
                }
                return;
            }
            Conversation::Other => None,
        };
        if let Some(Switch { next, early, rest }) = switch {
            *self = Conversation::after(next, cx);
            self.say_again(early, cx);
            self.data(direction, time, rest, cx);
        }
    }

    /// TLS begins, with a hello of the client and the beginning of another.
    fn begin_tls(
        &mut self,
        direction: Direction,
        time: EventTime,
        beginning: Beginning<'_>,
        cx: &mut Context<'_>,
    ) {
        *self = Conversation::secured(cx);
        self.say_again(beginning.hello, cx);
        self.data(direction, beginning.time, &beginning.reply, cx);
        self.data(direction, time, beginning.rest, cx);
    }

    /// What the client sent before it was known whose it is.
    fn say_again(&mut self, early: Early, cx: &mut Context<'_>) {
        for piece in early.into_pieces() {
            self.data(Direction::ToServer, piece.time, &piece.bytes, cx);
            if piece.missing_bytes > 0 {
                self.gap(Direction::ToServer, piece.time, piece.missing_bytes, cx);
            }
        }
    }

    /// Bytes of a direction that are not there.
    pub(super) fn gap(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        cx: &mut Context<'_>,
    ) {
        match self {
            Conversation::Http1(connection) => connection.gap(direction, time, bytes, cx),
            Conversation::Tls(connection) => connection.gap(direction, time, bytes, cx),
            Conversation::Http2(connection) => connection.gap(direction, time, bytes, cx),
            Conversation::Midstream(search) => {
                let Search { http, websocket, preamble } = &mut **search;
                websocket.gap(direction);
                http.gap(direction, time, bytes, cx);
                let is_vain = |it: &mut Preamble| it.gap(direction, time, bytes, cx.limits);
                if preamble.as_mut().is_some_and(is_vain) {
                    *preamble = None;
                }
            }
            Conversation::Fix(connection) => connection.gap(direction, time, bytes, cx),
            Conversation::WebSocket(connection) => connection.gap(direction, time, bytes, cx),
            Conversation::Unknown(sniff) => sniff.gap(direction as usize, bytes),
            Conversation::Proxied(proxied) => {
                // Where what follows the header begins is not known any more.
                let mut sniff = std::mem::take(&mut proxied.sniff);
                sniff.gap(direction as usize, bytes);
                *self = Conversation::Unknown(sniff);
            }
            Conversation::NoRequest(refusal) => {
                if refusal.gap(direction, time, bytes, cx.limits) {
                    *self = Conversation::Preamble(Box::new(std::mem::take(&mut refusal.preamble)));
                }
            }
            Conversation::Preamble(preamble) => {
                if preamble.gap(direction, time, bytes, cx.limits) {
                    *self = Conversation::other(cx);
                }
            }
            Conversation::Other => {}
        }
    }

    /// Adds to the message under way in a direction, or to the next.
    pub(super) fn note(&mut self, direction: Direction, what: Anomalies) {
        match self {
            Conversation::Fix(connection) => connection.note(direction, what),
            Conversation::WebSocket(connection) => connection.note(direction, what),
            Conversation::Http1(connection) => connection.note(direction, what),
            Conversation::Http2(connection) => connection.note(direction, what),
            Conversation::Midstream(search) => search.http.note(direction, what),
            Conversation::Tls(connection) => connection.note(direction, what),
            Conversation::Unknown(sniff) => sniff.note(direction as usize, what),
            Conversation::Proxied(proxied) => proxied.sniff.note(direction as usize, what),
            Conversation::NoRequest(refusal) => refusal.sniff.note(direction as usize, what),
            Conversation::Preamble(_) | Conversation::Other => {}
        }
    }

    /// Adds to the message under way in a direction, or else to the last one, if that is still here.
    pub(super) fn note_last(&mut self, direction: Direction, what: Anomalies) {
        if let Conversation::Http1(connection) = self {
            connection.note_last(direction, what);
        }
    }

    /// The sender of a direction has ended it in good order.
    pub(super) fn end(&mut self, direction: Direction, cx: &mut Context<'_>) {
        match self {
            Conversation::Http1(connection) => connection.end(direction, cx),
            Conversation::Tls(connection) => connection.end(direction, cx),
            Conversation::Http2(connection) => connection.end(direction, cx),
            Conversation::WebSocket(_)
            | Conversation::Fix(_)
            | Conversation::Midstream(_)
            | Conversation::Unknown(_)
            | Conversation::Proxied(_)
            | Conversation::NoRequest(_)
            | Conversation::Preamble(_)
            | Conversation::Other => {}
        }
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(super) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        match self {
            Conversation::Fix(connection) => connection.abort(why, cx),
            Conversation::WebSocket(connection) => connection.abort(why, cx),
            Conversation::Http1(connection) => connection.abort(why, cx),
            Conversation::Tls(connection) => connection.abort(why, cx),
            Conversation::Http2(connection) => connection.abort(why, cx),
            Conversation::Midstream(search) => {
                if let Some(mut connection) = search.http.abort(why, cx) {
                    connection.abort(why, cx);
                    *self = Conversation::Http2(connection);
                }
            }
            Conversation::NoRequest(_) | Conversation::Preamble(_) => {
                *self = Conversation::other(cx);
            }
            Conversation::Unknown(_) | Conversation::Proxied(_) | Conversation::Other => {}
        }
    }

    /// Nothing more can be learnt from its bytes.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Conversation::Http1(_)
            | Conversation::Http2(_)
            | Conversation::WebSocket(_)
            | Conversation::Fix(_)
            | Conversation::Midstream(_)
            | Conversation::Unknown(_)
            | Conversation::Proxied(_)
            | Conversation::NoRequest(_)
            | Conversation::Preamble(_) => false,
            Conversation::Tls(connection) => connection.is_over(),
            Conversation::Other => true,
        }
    }

    /// Says in the connection's record what was spoken.
    pub(super) fn describe(&self, record: &mut Connection) {
        match self {
            Conversation::Http1(_) => record.protocol = Some(Protocol::Http11),
            Conversation::Tls(connection) => connection.describe(record),
            Conversation::Http2(connection) => {
                record.protocol = Some(Protocol::Http2);
                record.http2 = Some(connection.summary());
            }
            Conversation::WebSocket(connection) => {
                record.protocol = Some(Protocol::WebSocket);
                record.websocket = Some(Box::new(connection.summary()));
            }
            Conversation::Fix(connection) => {
                record.protocol = Some(Protocol::Fix);
                record.fix = Some(Box::new(connection.summary()));
            }
            Conversation::Midstream(_)
            | Conversation::Unknown(_)
            | Conversation::Proxied(_)
            | Conversation::NoRequest(_)
            | Conversation::Preamble(_)
            | Conversation::Other => {}
        }
    }

    /// Drops something that can be done without, to make room; false when there is nothing.
    pub(super) fn shed(&mut self) -> bool {
        match self {
            Conversation::WebSocket(connection) => connection.shed(),
            Conversation::Tls(connection) => connection.shed(),
            Conversation::Http1(_)
            | Conversation::Http2(_)
            | Conversation::Fix(_)
            | Conversation::Midstream(_)
            | Conversation::Unknown(_)
            | Conversation::Proxied(_)
            | Conversation::NoRequest(_)
            | Conversation::Preamble(_)
            | Conversation::Other => false,
        }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Conversation::Http1(connection) => {
                size_of::<http1::Connection>() + connection.held_bytes()
            }
            Conversation::Tls(connection) => size_of::<tls::Connection>() + connection.held_bytes(),
            Conversation::Http2(connection) => {
                size_of::<http2::Connection>() + connection.held_bytes()
            }
            Conversation::WebSocket(connection) => {
                size_of::<websocket::Connection>() + connection.held_bytes()
            }
            Conversation::Fix(connection) => size_of::<fix::Connection>() + connection.held_bytes(),
            Conversation::Midstream(search) => {
                let Search { http, websocket, preamble } = &**search;
                let preamble = preamble.as_ref().map_or(0, Preamble::held_bytes);
                size_of::<Search>() + http.held_bytes() + websocket.held_bytes() + preamble
            }
            Conversation::NoRequest(refusal) => {
                let held = refusal.preamble.held_bytes() + refusal.sniff.held_bytes();
                size_of::<Refusal>() + held
            }
            Conversation::Preamble(preamble) => size_of::<Preamble>() + preamble.held_bytes(),
            Conversation::Proxied(proxied) => size_of::<Proxied>() + proxied.sniff.held_bytes(),
            Conversation::Unknown(sniff) => sniff.held_bytes(),
            Conversation::Other => 0,
        }
    }
}

/// Whether TLS begins in a preamble, as long as that may be.
fn begins<'c>(
    preamble: &mut Option<Preamble>,
    direction: Direction,
    time: EventTime,
    chunk: &'c [u8],
    limits: &Limits,
) -> Option<Box<Beginning<'c>>> {
    match preamble.as_mut()?.data(direction, time, chunk, limits) {
        Verdict::Open => None,
        Verdict::Vain => {
            *preamble = None;
            None
        }
        Verdict::Tls(beginning) => Some(beginning),
    }
}

/// Into one more tunnel; false when that would be too deep.
fn enter(cx: &mut Context<'_>) -> bool {
    let has_room = cx.ends.tunnels < cx.limits.tunnels_max;
    cx.ends.tunnels += u8::from(has_room);
    cx.counters.tunnels_too_deep += u64::from(!has_room);
    has_room
}

impl Refusal {
    /// What is spoken, once that can be told: then the preamble has not taken the chunk yet.
    fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        rest: &mut &[u8],
        limits: &Limits,
    ) -> Option<Look> {
        let chunk = *rest;
        let look = match direction {
            Direction::ToServer => self.pass(chunk.len() as u64, limits).then_some(Look::Other),
            Direction::ToClient => self.sniff.look(direction as usize, time, rest),
        };
        if look.is_none() {
            // TLS cannot begin here: fewer bytes than a hello has tell what the server speaks.
            self.preamble.data(direction, time, chunk, limits);
        }
        look
    }

    /// Whether it cannot be told any more.
    fn gap(&mut self, direction: Direction, time: EventTime, bytes: u64, limits: &Limits) -> bool {
        self.preamble.gap(direction, time, bytes, limits);
        match direction {
            Direction::ToServer => self.pass(bytes, limits),
            Direction::ToClient => true,
        }
    }

    /// Whether the client has sent more than a server of HTTP reads before it answers: a head.
    fn pass(&mut self, bytes: u64, limits: &Limits) -> bool {
        self.client_bytes = self.client_bytes.saturating_add(bytes);
        self.client_bytes > limits.head_bytes_max as u64
    }
}
