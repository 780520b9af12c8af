//! Whose a WebSocket message is: of the handshake, of a login, of its own members.

use monitor_core::call::{ApiCall, Outcome};
use monitor_core::identity::Proxies;
use monitor_core::limits::Limits;

use crate::websocket::see;
use crate::websocket_frames::{ask, handshake, tell};
use crate::wire::{Wire, decoder, feed};

const CANARY: &str = "c4n4ryS3cr3tV4lu3";

/// Messages and replies; gives the calls, the same however they are cut.
fn talk(lines: &[(&str, &str)]) -> Vec<ApiCall> {
    let run = |cut: usize| {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        handshake(&mut wire, "");
        for (asked, told) in lines {
            wire.ask(ask(&asked.replace("CANARY", CANARY))).wait(10);
            if !told.is_empty() {
                wire.answer(tell(told));
            }
        }
        wire.close();
        let seen = see(&wire, decoder(Limits::default()));
        let calls: Vec<ApiCall> = seen.messages().into_iter().cloned().collect();
        assert!(!format!("{:?}{:?}", seen.calls, seen.connection).contains(CANARY));
        calls
    };
    let calls = run(usize::MAX);
    assert_eq!(run(3), calls);
    calls
}

fn source(call: &ApiCall) -> String {
    let key = call.key.as_ref();
    key.map(|key| format!("{} {}", key.profile, key.source)).unwrap_or_default()
}

#[test]
fn a_login_is_the_connections_until_the_next() {
    let login = |key: &str| {
        format!(
            r#"{{"op":"login","args":[{{"apiKey":"{key}","passphrase":"CANARY","sign":"CANARY"}}]}}"#
        )
    };
    let good = r#"{"event":"login","code":"0","msg":""}"#;
    let bad = r#"{"event":"error","code":"60005","msg":"Invalid apiKey"}"#;
    let order = r#"{"id":"ID","op":"order","args":[{"instId":"BTC-USDT","sz":"1"}]}"#;
    let done = r#"{"id":"ID","op":"order","code":"0","data":[{"ordId":"1"}]}"#;
    let orders: Vec<(String, String)> =
        ["1", "2", "3", "4"].map(|id| (order.replace("ID", id), done.replace("ID", id))).to_vec();
    let (one, two) = (login("one"), login("two"));
    let wrong = login("CANARY");
    let calls = talk(&[
        (&orders[0].0, &orders[0].1),
        (&one, good),
        (&orders[1].0, &orders[1].1),
        (&two, good),
        (&orders[2].0, &orders[2].1),
        (&wrong, bad),
        (&orders[3].0, &orders[3].1),
    ]);
    let keys: Vec<_> = calls.iter().map(|call| call.key.as_ref().map(|key| key.id)).collect();
    assert!(keys[0].is_some() && keys[0] != keys[1], "of the handshake");
    assert_eq!(source(&calls[1]), "okx message:args[0].apiKey");
    assert_eq!((keys[1], keys[3]), (keys[2], keys[4]));
    assert_ne!(keys[2], keys[4]);
    assert_eq!(calls[5].outcome, Some(Outcome::BadKey));
    assert_eq!(keys[6], keys[4], "a refused login changes nothing");
}

#[test]
fn styles_log_in_each_in_their_way() {
    for (message, expect) in [
        (
            r#"{"id":1,"method":"session.logon","params":{"apiKey":"CANARY","signature":"CANARY"}}"#,
            "binance message:params.apiKey",
        ),
        (
            r#"{"id":9,"jsonrpc":"2.0","method":"public/auth","params":{"grant_type":"client_credentials","client_id":"CANARY","client_secret":"CANARY"}}"#,
            "deribit message:params.client_id",
        ),
        (
            r#"{"id":9,"method":"private/buy","params":{"access_token":"CANARY","instrument_name":"BTC-PERPETUAL","amount":1}}"#,
            "deribit message:params.access_token",
        ),
        (
            r#"{"event":"auth","apiKey":"CANARY","authSig":"CANARY","authNonce":"1","authPayload":"AUTH1"}"#,
            "bitfinex message:apiKey",
        ),
        (
            r#"{"op":"authKeyExpires","args":["CANARY",1600000000,"CANARY"]}"#,
            "bitmex message:args[0]",
        ),
        (r#"{"event":"challenge","api_key":"CANARY"}"#, "kraken-futures message:api_key"),
        (
            r#"{"method":"add_order","params":{"symbol":"BTC/USD","token":"CANARY"},"req_id":3}"#,
            "kraken message:params.token",
        ),
        (
            r#"{"time":1,"channel":"spot.login","event":"api","payload":{"api_key":"CANARY","signature":"CANARY","req_id":"a"}}"#,
            "gate message:payload.api_key",
        ),
        (
            r#"{"type":"subscribe","channels":["user"],"key":"CANARY","passphrase":"CANARY","signature":"CANARY"}"#,
            "coinbase-exchange message:key",
        ),
    ] {
        let calls = talk(&[(message, "")]);
        assert_eq!(calls.len(), 1, "{message}");
        assert_eq!(source(&calls[0]), expect, "{message}");
    }
}

#[test]
fn a_proxy_is_believed_where_it_is_trusted() {
    let client = |trusted: &str, fields: &str| {
        let mut wire = Wire::open(1000, 2000);
        wire.ask(format!("GET /a HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n{fields}\r\n"));
        wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close();
        let mut decoder = decoder(Limits::default());
        decoder.identifier().set_proxies(Proxies::new(vec![trusted.parse().expect("a network")]));
        let calls = feed(&mut decoder, wire.flow, &wire.packets);
        (calls[0].client().to_string(), calls[0].detail.is_some())
    };
    let flow = Wire::open(1000, 2000).flow;
    let peer = flow.client.ip().to_string();
    let forwarded = "X-Forwarded-For: 6.6.6.6, 198.51.100.77\r\n";
    assert_eq!(client(&peer, forwarded), ("198.51.100.77".into(), true));
    assert_eq!(client("192.0.2.99", forwarded), (peer.clone(), false), "anybody can write that");
    assert_eq!(client(&peer, "X-Forwarded-For: nonsense\r\n"), (peer.clone(), false));
    assert_eq!(client(&peer, "Forwarded: for=198.51.100.77\r\n"), ("198.51.100.77".into(), true));
    assert_eq!(client(&peer, ""), (peer.clone(), false));
}
