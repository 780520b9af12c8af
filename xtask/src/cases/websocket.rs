//! WebSocket as exchanges speak it, and as nobody should.

use std::time::Duration;

use monitor_core::input::Direction::{self, ToClient, ToServer};

use super::Case;
use super::conversation::Conversation;
use super::http::BINANCE_KEY;
use crate::encode::websocket::{CLOSE, PING, RESPONSE, TEXT, message, request};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const PONG: u8 = 10;

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![json_rpc(), subscriptions(), deflate(), fragments(), masking(), midstream(), gap()]
}

fn frame(direction: Direction, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mask = (direction == ToServer).then_some(MASK);
    message(opcode, mask, payload.as_ref())
}

fn ask(text: &str) -> Vec<u8> {
    frame(ToServer, TEXT, text)
}

fn tell(text: &str) -> Vec<u8> {
    frame(ToClient, TEXT, text)
}

/// A connection that is upgraded, with a key.
fn upgraded() -> Conversation {
    let mut talk = Conversation::everyday();
    let key = format!("X-MBX-APIKEY: {BINANCE_KEY}\r\n");
    talk.open().ask(request("/ws-api/v3", &key)).answer(RESPONSE);
    talk
}

/// The closing handshake and the end of the connection.
fn close(talk: &mut Conversation) {
    let code = 1000_u16.to_be_bytes();
    talk.ask(frame(ToServer, CLOSE, code)).answer(frame(ToClient, CLOSE, code)).close();
}

/// Orders of which two are answered out of order and one is refused; a batch; a login.
fn json_rpc() -> Case {
    let mut talk = upgraded();
    let order = |id: u32| {
        ask(&format!(
            r#"{{"id":{id},"method":"order.place","params":{{"symbol":"BTCUSDT","newClientOrderId":"c{id}","signature":"sig-one"}}}}"#
        ))
    };
    talk.ask(order(1)).ask(order(2));
    talk.answer(tell(r#"{"id":2,"status":200,"result":{"orderId":12}}"#));
    talk.answer(tell(r#"{"id":1,"status":400,"error":{"code":-1021,"msg":"Timestamp"}}"#));
    let batch = r#"[{"jsonrpc":"2.0","id":7,"method":"public/get_time"},{"jsonrpc":"2.0","id":8,"method":"private/withdraw","params":{"currency":"BTC"}}]"#;
    talk.ask(ask(batch));
    talk.answer(tell(
        r#"[{"jsonrpc":"2.0","id":8,"result":{}},{"jsonrpc":"2.0","id":7,"result":1}]"#,
    ));
    let login = format!(
        r#"{{"op":"login","args":[{{"apiKey":"{BINANCE_KEY}","passphrase":"pass-one","sign":"s3cr3t"}}]}}"#
    );
    talk.ask(ask(&login))
        .answer(tell(r#"{"event":"error","code":"60009","msg":"Login failed: Invalid sign"}"#));
    talk.ask(ask("ping")).answer(tell("pong"));
    close(&mut talk);
    Case::new("websocket-json-rpc", talk.packets())
}

/// Acknowledgements in the styles of several exchanges; pushes between them make no lines.
fn subscriptions() -> Case {
    let mut talk = upgraded();
    for (asked, told) in [
        (
            r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#,
            r#"{"result":null,"id":1}"#,
        ),
        (
            r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}"#,
            r#"{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#,
        ),
        (
            r#"{"op":"subscribe","args":["orderbook.1.BTCUSDT"],"req_id":"r1"}"#,
            r#"{"success":true,"ret_msg":"","conn_id":"c","req_id":"r1","op":"subscribe"}"#,
        ),
        (
            r#"{"type":"subscribe","product_ids":["ETH-USD"],"channels":["level2"]}"#,
            r#"{"type":"subscriptions","channels":[{"name":"level2","product_ids":["ETH-USD"]}]}"#,
        ),
        (
            r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]},"req_id":3}"#,
            r#"{"method":"subscribe","result":{"channel":"book"},"success":true,"req_id":3}"#,
        ),
        (
            r#"{"event":"subscribe","channel":"candles","key":"trade:1m:tBTCUSD"}"#,
            r#"{"event":"subscribed","channel":"candles","chanId":343351,"key":"trade:1m:tBTCUSD"}"#,
        ),
    ] {
        talk.ask(ask(asked));
        talk.answer(tell(r#"{"stream":"btcusdt@trade","data":{"e":"trade","p":"1"}}"#));
        talk.answer(tell(told));
        talk.answer(tell(r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{}]}"#));
        talk.answer(tell(r#"[343351,[1574698200000,1,2,3,4,5]]"#));
    }
    close(&mut talk);
    Case::new("websocket-subscriptions", talk.packets())
}

/// The window of a message goes over to the next (RFC 7692, 7.2.3.2): `ping` thrice, `pong` thrice.
/// Fixed bytes, so that the capture is the same with every version of every compressor.
fn deflate() -> Case {
    let mut talk = Conversation::everyday();
    let agreed = RESPONSE.replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n\r\n",
    );
    talk.open().ask(request("/ws", "")).answer(agreed);
    // A stored block, as no compressor writes it for so little and every one may.
    let stored = |text: &str| {
        let len = text.len() as u16;
        [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), text.as_bytes(), &[0]].concat()
    };
    let compressed = |direction, payload: &[u8]| {
        let mut bytes = frame(direction, TEXT, payload);
        bytes[0] |= 0x40;
        bytes
    };
    let order = r#"{"id":1,"method":"order.cancel","params":{"symbol":"ETHUSDT"}}"#;
    talk.ask(compressed(ToServer, &stored(order)));
    talk.answer(compressed(ToClient, &stored(r#"{"id":1,"status":200,"result":{}}"#)));
    // `Hello` by literals, and again by reference to the first.
    talk.ask(compressed(ToServer, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]));
    talk.ask(compressed(ToServer, &[0xf2, 0x00, 0x11, 0x00, 0x00]));
    // What refers to nothing that was sent.
    talk.answer(compressed(ToClient, &[0xff; 9]));
    talk.answer(compressed(ToClient, &stored("lost")));
    close(&mut talk);
    Case::new("websocket-deflate", talk.packets())
}

/// A message in three parts with a ping between, another of 70,000 bytes in one.
fn fragments() -> Case {
    let mut talk = upgraded();
    let mut first = frame(ToServer, TEXT, r#"{"id":1,"met"#);
    first[0] &= 0x7f;
    let mut second = frame(ToServer, 0, r#"hod":"order.place","par"#);
    second[0] &= 0x7f;
    talk.ask(first).ask(frame(ToServer, PING, "hi")).answer(frame(ToClient, PONG, "hi"));
    talk.ask(second).ask(frame(ToServer, 0, r#"ams":{"symbol":"BTCUSDT"}}"#));
    talk.answer(tell(r#"{"id":1,"status":200,"result":{}}"#));
    let large = format!(r#"{{"id":2,"method":"order.place","note":"{}"}}"#, "x".repeat(70_000));
    talk.ask(ask(&large)).answer(tell(r#"{"id":2,"status":200,"result":{}}"#));
    close(&mut talk);
    Case::new("websocket-fragments", talk.packets())
}

/// A client that does not mask, a server that does, a length of more bytes than it needs, a reserved
/// opcode; each is named and costs nothing that follows.
fn masking() -> Case {
    let mut talk = upgraded();
    let time = |id: u32| format!(r#"{{"id":{id},"method":"time"}}"#);
    let reply = |id: u32| format!(r#"{{"id":{id},"result":{{}}}}"#);
    talk.ask(message(TEXT, None, time(1).as_bytes())).answer(tell(&reply(1)));
    talk.ask(ask(&time(2))).answer(message(TEXT, Some(MASK), reply(2).as_bytes()));
    let mut long = vec![0x81, 0x80 | 126, 0, time(3).len() as u8];
    long.extend(&ask(&time(3))[2..]);
    talk.ask(long).answer(tell(&reply(3)));
    talk.ask(frame(ToServer, 3, "what")).ask(ask(&time(4))).answer(tell(&reply(4)));
    close(&mut talk);
    Case::new("websocket-faults", talk.packets())
}

/// The capture begins in the middle of a push: no host, no target, no key.
fn midstream() -> Case {
    let mut talk = Conversation::everyday().numbered(70_000, 80_000);
    talk.answer(&tell(&format!(r#"{{"channel":"ticker","d":"{}"}}"#, "x".repeat(200)))[90..]);
    for id in 0..4 {
        talk.ask(ask(&format!(r#"{{"id":{id},"method":"order.place","params":{{}}}}"#)));
        talk.answer(tell(&format!(r#"{{"id":{id},"status":200,"result":{{}}}}"#)));
        talk.answer(tell(r#"{"channel":"ticker","d":"1"}"#));
    }
    close(&mut talk);
    Case::new("websocket-midstream", talk.packets())
}

/// A segment is missing within a message, and a whole reply.
fn gap() -> Case {
    let mut talk = upgraded();
    let large = format!(r#"{{"id":1,"method":"order.place","note":"{}"}}"#, "x".repeat(5000));
    let bytes = ask(&large);
    talk.ask(&bytes[..1448]).lose(ToServer, &bytes[1448..2896]).ask(&bytes[2896..]);
    talk.answer(tell(r#"{"id":1,"status":200,"result":{}}"#));
    talk.ask(ask(r#"{"id":2,"method":"order.place"}"#));
    talk.lose(ToClient, tell(r#"{"id":2,"status":200,"result":{}}"#));
    for _ in 0..3 {
        talk.wait(Duration::from_millis(100)).answer(tell(r#"{"channel":"ticker","d":"1"}"#));
    }
    talk.ask(ask(r#"{"id":3,"method":"order.cancel"}"#));
    talk.answer(tell(r#"{"id":3,"status":200,"result":{}}"#));
    close(&mut talk);
    Case::new("websocket-gap", talk.packets())
}
