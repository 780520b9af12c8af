//! The order of header fields: the same for one program whatever it asks, and never guessed.

use monitor_core::call::{ApiCall, HeaderOrder};
use monitor_core::identity::Proxies;
use monitor_core::limits::Limits;

use crate::frames::{DATA, END_STREAM, Encoder, PREFACE, frame, settings};
use crate::wire::{Wire, decoder, feed};

fn order(call: &ApiCall) -> Option<HeaderOrder> {
    call.request.as_ref().and_then(|request| request.header_order)
}

/// Of one request of HTTP/1.1 with these fields, however it is cut.
fn http1(fields: &str) -> Option<HeaderOrder> {
    let of = |cut| {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        wire.ask(format!("GET /a HTTP/1.1\r\n{fields}\r\n"));
        order(&wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close().decode()[0])
    };
    assert_eq!(of(usize::MAX), of(1));
    of(7)
}

const USUAL: &str = "Host: a\r\nUser-Agent: desk/1.0\r\nAccept: */*\r\nX-MBX-APIKEY: k\r\n";

#[test]
fn what_varies_with_the_call_does_not_count() {
    let usual = http1(USUAL);
    assert!(usual.is_some());
    for varying in [
        "Content-Type: application/json\r\nIf-None-Match: x\r\n",
        "Cookie: a=b\r\nConnection: keep-alive\r\n",
        "Authorization: Basic YTpi\r\nTraceparent: 00-1-2-3\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nVia: 1.1 x\r\n",
    ] {
        assert_eq!(http1(&format!("{USUAL}{varying}")), usual, "{varying}");
        assert_eq!(http1(&format!("{varying}{USUAL}")), usual, "{varying}");
    }
    assert_eq!(http1(&USUAL.to_lowercase()), usual);
    let turned = "User-Agent: desk/1.0\r\nHost: a\r\nAccept: */*\r\nX-MBX-APIKEY: k\r\n";
    assert_ne!(http1(turned), usual);
    assert_ne!(http1(&format!("{USUAL}Accept-Encoding: gzip\r\n")), usual);
    assert_eq!(http1("Connection: close\r\n"), None, "nothing of the program's");
}

#[test]
fn what_was_not_seen_whole_has_none() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(format!("GET /a HTTP/1.1\r\n{USUAL}Accept-Enc")).close();
    assert_eq!(order(&wire.decode()[0]), None);
    let mut wire = Wire::open(1000, 2000);
    wire.ask(format!("GET /a HTTP/1.1\r\n{USUAL}X: {}\r\n\r\n", "x".repeat(70_000)));
    let limits = Limits { head_bytes_max: 16_384, ..Limits::default() };
    let calls = feed(&mut decoder(limits), wire.flow, &wire.close().packets);
    assert_eq!((calls.len(), order(&calls[0])), (1, None));
}

/// Of one request of HTTP/2.
fn http2(fields: &[(&str, &str)]) -> Option<HeaderOrder> {
    let mut wire = Wire::open(1000, 2000);
    wire.ask([PREFACE, &settings(&[])].concat()).answer(settings(&[]));
    wire.ask(Encoder::new().headers(1, true, fields));
    wire.answer(Encoder::new().headers(1, false, &[(":status", "200")]));
    order(&wire.answer(frame(DATA, END_STREAM, 1, b"x")).close().decode()[0])
}

#[test]
fn pseudo_fields_belong_to_it() {
    let (method, path) = ((":method", "GET"), (":path", "/a"));
    let (scheme, authority) = ((":scheme", "https"), (":authority", "a"));
    let (agent, cookie) = (("user-agent", "desk/1.0"), ("cookie", "a=b"));
    let browser = http2(&[method, authority, scheme, path, agent]);
    assert!(browser.is_some());
    assert_eq!(http2(&[method, authority, scheme, path, cookie, agent]), browser);
    assert_ne!(http2(&[method, path, authority, scheme, agent]), browser);
    assert_ne!(http2(&[method, authority, scheme, path]), browser);
}

#[test]
fn a_trusted_proxy_writes_fields_in_its_own_order() {
    let of = |trusted: &str| {
        let mut wire = Wire::open(1000, 2000);
        wire.ask(format!("GET /a HTTP/1.1\r\n{USUAL}X-Forwarded-For: 198.51.100.7\r\n\r\n"));
        wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close();
        let mut decoder = decoder(Limits::default());
        decoder.identifier().set_proxies(Proxies::new(vec![trusted.parse().expect("a network")]));
        order(&feed(&mut decoder, wire.flow, &wire.packets)[0])
    };
    let peer = Wire::open(1000, 2000).flow.client.ip().to_string();
    assert_eq!(of(&peer), None);
    assert_eq!(of("192.0.2.99"), http1(USUAL), "anybody can write that he is a proxy");
}
