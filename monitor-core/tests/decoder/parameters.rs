//! What the parameters of messages are called: of a WebSocket's and of gRPC's.

use monitor_core::call::{Anomalies, ApiCall, Fields};
use monitor_core::limits::Limits;

use crate::frames::{DATA, END_STREAM, Encoder, PREFACE, frame, settings};
use crate::websocket::see;
use crate::websocket_frames::{ask, handshake};
use crate::wire::{Wire, decoder};

fn names(call: &ApiCall) -> Vec<String> {
    let fields = call.detail.as_ref().and_then(|detail| detail.fields.as_ref());
    fields.into_iter().flat_map(Fields::names).map(String::from).collect()
}

#[test]
fn a_message_names_what_it_gives() {
    let secret = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv";
    let odd = format!(r#"{{"id":1,"method":"order.place","params":{{"{secret}":1,"a b":2}}}}"#);
    for (message, expected) in [
        // Members of an object.
        (
            r#"{"id":1,"method":"order.place","params":{"symbol":"BTCUSDT","side":"BUY","feeTier":9}}"#,
            &["symbol", "side", "feeTier"][..],
        ),
        // Of the first in a list of them.
        (
            r#"{"id":"2","op":"order","args":[{"instId":"BTC-USDT","sz":"1"},{"x":1}]}"#,
            &["instId", "sz"],
        ),
        // Its own.
        (
            r#"{"event":"addOrder","token":"t","pair":"XBT/USD","isAdmin":true}"#,
            &["event", "token", "pair", "isAdmin"],
        ),
        (
            r#"[0,"on",null,{"cid":1,"symbol":"tBTCUSD","amount":"1"}]"#,
            &["cid", "symbol", "amount"],
        ),
        (&odd, &["?", "?"]),
    ] {
        let mut wire = Wire::open(1000, 2000);
        handshake(&mut wire, "");
        wire.ask(ask(message)).close();
        let seen = see(&wire, decoder(Limits::default()));
        assert_eq!(names(seen.messages()[0]), expected, "{message}");
    }
}

/// Of a call whose client sends these bytes, in frames of so many.
fn grpc(body: &[u8], piece: usize) -> Vec<String> {
    let mut wire = Wire::open(1000, 2000);
    wire.ask([PREFACE, &settings(&[])].concat()).answer(settings(&[]));
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pkg.Orders/Place"),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("x-api-key", "live-0a1b2c3d4e5f"),
    ];
    wire.ask(Encoder::new().headers(1, false, &fields));
    for piece in body.chunks(piece) {
        wire.ask(frame(DATA, 0, 1, piece));
    }
    wire.ask(frame(DATA, END_STREAM, 1, b""));
    let mut server = Encoder::new();
    wire.answer(server.headers(
        1,
        false,
        &[(":status", "200"), ("content-type", "application/grpc")],
    ));
    wire.answer(server.headers(1, true, &[("grpc-status", "0")])).close();
    names(&wire.decode()[0])
}

#[test]
fn the_first_message_of_a_grpc_call_has_numbers() {
    let message = |flag: u8, content: &[u8]| {
        [&[flag][..], &(content.len() as u32).to_be_bytes(), content].concat()
    };
    let order = message(0, b"\x0a\x07BTCUSDT\x10\x96\x01\xfa\x01\x01x");
    let other = message(0, b"\x48\x01");
    for piece in [1, 3, 1000] {
        assert_eq!(grpc(&order, piece), ["1", "2", "31"]);
        assert_eq!(grpc(&[&order[..], &other].concat(), piece), ["1", "2", "31"]);
    }
    let compressed = message(1, b"\x0a\x01x");
    for unknown in [&order[..order.len() - 1], &message(0, b""), &message(0, b"{}"), &compressed] {
        assert!(grpc(unknown, 1000).is_empty(), "{unknown:?}");
    }
}

#[test]
fn a_member_that_comes_twice_is_named() {
    let http = |body: &str| {
        let mut wire = Wire::open(1000, 2000);
        let head = "POST /v1/orders HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n";
        wire.ask(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close();
        wire.decode()[0].anomalies
    };
    let websocket = |message: &str| {
        let mut wire = Wire::open(1000, 2000);
        handshake(&mut wire, "");
        wire.ask(ask(message)).close();
        let seen = see(&wire, decoder(Limits::default()));
        seen.messages()[0].anomalies & Anomalies::DUPLICATE_MEMBER
    };
    for twice in [
        r#"{"symbol":"A","side":"BUY","symbol":"B"}"#,
        r#"[{"symbol":"A"},{"symbol":"A","symbol":"B"}]"#,
        r#"{"category":"x","request":[{"symbol":"A","symbol":"B"}]}"#,
        r#"{"jsonrpc":"2.0","method":"private/buy","id":1,"params":{"amount":1,"amount":100}}"#,
    ] {
        assert_eq!(http(twice), Anomalies::DUPLICATE_MEMBER, "{twice}");
    }
    assert_eq!(http(r#"{"symbol":"A","more":{"symbol":"B"}}"#), Anomalies::empty());
    let order = |more: &str| {
        format!(r#"{{"id":1,"method":"order.place","params":{{"symbol":"A"{more}}}}}"#)
    };
    assert_eq!(websocket(&order("")), Anomalies::empty());
    assert_eq!(websocket(&order(r#","symbol":"B""#)), Anomalies::DUPLICATE_MEMBER);
    assert_eq!(
        websocket(r#"{"op":"order","op":"order","args":[{}]}"#),
        Anomalies::DUPLICATE_MEMBER
    );
}
