//! HTTP/2 in its everyday forms, and one that is none.

use loona_hpack::Encoder;

use super::Case;
use super::conversation::Conversation;
use super::http::BINANCE_KEY;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![prior_knowledge(), h2c(), grpc(), midstream(), rapid_reset(), two_keys()]
}

/// Both ends of a connection, each with its header table.
struct Talk {
    conversation: Conversation,
    client: Encoder<'static>,
    server: Encoder<'static>,
}

impl Talk {
    fn new() -> Talk {
        Talk {
            conversation: Conversation::everyday(),
            client: Encoder::new(),
            server: Encoder::new(),
        }
    }

    /// With prefaces and settings of both.
    fn open() -> Talk {
        let mut talk = Talk::new();
        talk.conversation
            .open()
            .ask([PREFACE, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])].concat())
            .answer(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 128]))
            .ask(frame(SETTINGS, ACK, 0, b""))
            .answer(frame(SETTINGS, ACK, 0, b""));
        talk
    }

    fn ask(&mut self, stream: u32, method: &str, path: &str, more: &[(&str, &str)], body: &[u8]) {
        let own = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "api.example.com"),
            ("user-agent", "desk/2.0"),
        ];
        let block = self.client.encode(own.iter().chain(more).map(bytes));
        self.conversation.ask(message(stream, &block, body));
    }

    fn answer(&mut self, stream: u32, status: &str, more: &[(&str, &str)], body: &[u8]) {
        let own = [(":status", status), ("server", "exchange")];
        let block = self.server.encode(own.iter().chain(more).map(bytes));
        self.conversation.answer(message(stream, &block, body));
    }

    fn case(mut self, name: &'static str) -> Case {
        self.conversation.close();
        Case::new(name, self.conversation.packets())
    }
}

fn bytes<'a>((name, value): &'a (&str, &str)) -> (&'a [u8], &'a [u8]) {
    (name.as_bytes(), value.as_bytes())
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// A head, and a body if there is one.
fn message(stream: u32, block: &[u8], body: &[u8]) -> Vec<u8> {
    if body.is_empty() {
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    }
    let head = frame(HEADERS, END_HEADERS, stream, block);
    [head, frame(DATA, END_STREAM, stream, body)].concat()
}

/// Three calls whose answers come in another order, one of them refused.
fn prior_knowledge() -> Case {
    let mut talk = Talk::open();
    let key = [("x-mbx-apikey", BINANCE_KEY)];
    talk.ask(1, "GET", "/api/v3/account?timestamp=1&signature=sig-one", &key, b"");
    talk.ask(3, "POST", "/api/v3/order?symbol=BTCUSDT", &key, b"{\"quantity\":1}");
    talk.ask(5, "GET", "/api/v3/ping", &[], b"");
    talk.answer(5, "200", &[], b"{}");
    talk.answer(3, "401", &[], b"{\"code\":-2015,\"msg\":\"Invalid API-key\"}");
    talk.answer(1, "200", &[], b"{\"balances\":[]}");
    talk.case("http2")
}

/// The first call is asked in HTTP/1.1.
fn h2c() -> Case {
    let mut talk = Talk::new();
    talk.conversation
        .open()
        .ask(
            "GET /first HTTP/1.1\r\nHost: api.example.com\r\n\
             Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABk\r\n\r\n",
        )
        .answer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        .answer(frame(SETTINGS, 0, 0, b""))
        .ask([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
    talk.answer(1, "200", &[], b"first");
    talk.ask(3, "GET", "/second", &[], b"");
    talk.answer(3, "404", &[], b"");
    talk.case("http2-upgrade")
}

/// Messages both ways, then a call that is refused.
fn grpc() -> Case {
    let mut talk = Talk::open();
    let kind = [("content-type", "application/grpc")];
    let sent = [b"\0\0\0\0\x05first".as_slice(), b"\0\0\0\0\x06second"].concat();
    talk.ask(1, "POST", "/exchange.v1.Orders/Stream", &kind, &sent);
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let block = talk.server.encode(head.iter().map(bytes));
    talk.conversation
        .answer(frame(HEADERS, END_HEADERS, 1, &block))
        .answer(frame(DATA, 0, 1, b"\0\0\0\0\x03one"))
        .answer(frame(DATA, 0, 1, b"\0\0\0\0\x03two\0\0\0\0\x05three"));
    let trailers = talk.server.encode([("grpc-status", "0")].iter().map(bytes));
    talk.conversation.answer(frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers));
    talk.ask(3, "POST", "/exchange.v1.Orders/Cancel", &kind, b"\0\0\0\0\x01x");
    talk.answer(3, "200", &[("content-type", "application/grpc"), ("grpc-status", "16")], b"");
    talk.case("grpc")
}

/// The capture begins after two calls: what they told the header tables is unknown, what comes
/// later is not.
fn midstream() -> Case {
    let mut talk = Talk::open();
    let key = [("x-mbx-apikey", BINANCE_KEY), ("x-desk", "one")];
    talk.ask(1, "GET", "/api/v3/account", &key, b"");
    talk.answer(1, "200", &[("x-region", "a")], b"{\"balances\":[]}");
    talk.ask(3, "GET", "/api/v3/account", &key, b"");
    talk.answer(3, "200", &[("x-region", "a")], b"{\"balances\":[]}");
    let unseen = talk.conversation.packets().len();
    talk.ask(5, "GET", "/api/v3/account", &key, b"");
    talk.answer(5, "200", &[("x-region", "a")], b"{\"balances\":[]}");
    for stream in [7, 9] {
        talk.ask(stream, "GET", "/api/v3/time", &[("x-late", "two")], b"");
        talk.answer(stream, "200", &[("x-cache", "hit")], b"{\"time\":1}");
    }
    talk.conversation.close();
    Case::new("http2-midstream", talk.conversation.packets().split_off(unseen))
}

/// More requests than anyone has in flight, each taken back at once.
fn rapid_reset() -> Case {
    let mut talk = Talk::open();
    for stream in (0..110).map(|at| at * 2 + 1) {
        talk.ask(stream, "GET", "/", &[], b"");
        talk.conversation.ask(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    talk.case("http2-rapid-reset")
}

/// Two keys in turn over one connection, with answers in another order: each call has its own, and one
/// without a key has none.
fn two_keys() -> Case {
    let mut talk = Talk::open();
    let first = [("x-mbx-apikey", BINANCE_KEY)];
    let second = [("authorization", "Bearer tok-3f9a1c77d2")];
    talk.ask(1, "POST", "/api/v3/order?symbol=BTCUSDT&signature=sig-one", &first, b"");
    talk.ask(3, "GET", "/v1/me", &second, b"");
    talk.ask(5, "GET", "/api/v3/ping", &[], b"");
    talk.ask(7, "DELETE", "/api/v3/order?symbol=BTCUSDT&orderId=7", &first, b"");
    talk.answer(7, "200", &[], b"{}");
    talk.answer(3, "403", &[], b"{\"error\":\"ip not allowed\"}");
    talk.ask(9, "GET", "/v1/me", &second, b"");
    talk.answer(1, "200", &[], b"{\"orderId\":7}");
    talk.answer(9, "200", &[], b"{\"id\":7}");
    talk.answer(5, "200", &[], b"{}");
    talk.case("http2-two-keys")
}
