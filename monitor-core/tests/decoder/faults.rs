//! Faults of HTTP/1 messages: each gives a call and a name, and nothing after it is hidden.

use monitor_core::call::{Anomalies, ApiCall, Protocol};
use monitor_core::input::Direction;
use proptest::prelude::*;

use crate::model::{self, Dice};
use crate::wire::{Wire, lines};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn talk(request: &str, response: &str, cut: usize) -> Vec<ApiCall> {
    let mut wire = Wire::open(1000, 2000);
    wire.cut = cut;
    wire.ask(request).answer(response).ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").answer(OK);
    wire.close().decode()
}

/// A request and a response, whatever the size of the pieces, and another after them.
fn check(request: &str, response: &str, expected: &str) {
    for cut in [usize::MAX, 1, 2, 3, 7, 16] {
        let calls = talk(request, response, cut);
        let seen = lines(&calls);
        assert_eq!(seen, [expected, "GET /next 0 > 200 2"], "{request:?} {response:?} by {cut}");
    }
}

/// The first call's anomalies, by what the request's head lacks or has.
fn odd(request: &str) -> Anomalies {
    talk(request, OK, usize::MAX)[0].anomalies
}

#[test]
fn line_ends_and_folds() {
    check("GET /a HTTP/1.1\nHost: h\n\n", OK, "GET /a 0 > 200 2 BARE_LF");
    check("GET /a HTTP/1.1\r\nHost: h\nA: b\r\n\r\n", OK, "GET /a 0 > 200 2 BARE_LF");
    check("GET /a HTTP/1.1\r\nA: b\rC: d\r\n\r\n", OK, "GET /a 0 > 200 2 BARE_CR");
    check("GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", OK, "GET /a 0 > 200 2 OBS_FOLD");
    check("GET /a HTTP/1.1\r\n A: b\r\nC: d\r\n\r\n", OK, "GET /a 0 > 200 2 OBS_FOLD");
    check("GET /a HTTP/1.1\r\nA: \0b\r\n\r\n", OK, "GET /a 0 > 200 2 CONTROL_BYTE");
    let folded = "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok";
    check(GET, folded, "GET /a 0 > 200 2 OBS_FOLD");
    let folded = "POST /a HTTP/1.1\r\nContent-Length:\r\n 3\r\n\r\nabc";
    check(folded, OK, "POST /a 3 > 200 2 OBS_FOLD");
}

#[test]
fn names_of_fields() {
    check("GET /a HTTP/1.1\r\nno colon\r\n\r\n", OK, "GET /a 0 > 200 2 BAD_FIELD_NAME");
    check("GET /a HTTP/1.1\r\nA b: c\r\n\r\n", OK, "GET /a 0 > 200 2 BAD_FIELD_NAME");
    let spaced = "POST /a HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc";
    check(spaced, OK, "POST /a 3 > 200 2 BAD_FIELD_NAME");
}

#[test]
fn first_lines() {
    check("GET  /a HTTP/1.1\r\n\r\n", OK, "GET /a 0 > 200 2 LENIENT");
    check("GET /a HTTP/1.1 \r\n\r\n", OK, "GET /a 0 > 200 2 LENIENT");
    check("get /a HTTP/1.1\r\n\r\n", OK, "get /a 0 > 200 2 LENIENT");
    check("GET HTTP/1.1\r\n\r\n", OK, "GET  0 > 200 2 BAD_HEAD");
    check("GET /a HTTP/2.0\r\nContent-Length: 1\r\n\r\nx", OK, "GET /a 1 > 200 2 BAD_VERSION");
    check(" GET /a HTTP/1.1\r\n\r\n", OK, "GET /a 0 > 200 2 LENIENT");
    check("FOO bar\r\nHost: h\r\n\r\n", OK, "- > 200 2 incomplete BAD_HEAD");
    check(GET, "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", "GET /a 0 > 200 0 LENIENT");
    check(GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET /a 0 > 200 0");
    check(GET, "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", "GET /a 0 > 999 0 LENIENT");
    check(GET, "HTTP/1.1 20x x\r\nContent-Length: 1\r\n\r\nx", "GET /a 0 > 0 1 BAD_HEAD");
    check(GET, "HTTP/2 200 x\r\nContent-Length: 0\r\n\r\n", "GET /a 0 > 200 0 BAD_VERSION");
}

#[test]
fn text_that_is_none() {
    let mut wire = Wire::open(1, 2);
    let bytes = b"GET /\xff HTTP/1.1\r\nHost: a\xffb\r\nUser-Agent: \xff\r\n\r\n";
    wire.ask(bytes).answer(OK).close();
    let calls = wire.decode();
    let request = calls[0].request.as_ref().unwrap();
    assert_eq!((&request.path[..], request.host.as_deref()), ("/\u{fffd}", Some("a\u{fffd}b")));
    assert_eq!(request.user_agent.as_deref(), Some("\u{fffd}"));
    assert_eq!(calls[0].anomalies, Anomalies::NOT_UTF8 | Anomalies::LENIENT);
}

#[test]
fn hosts() {
    let (none, bad) = (Anomalies::empty(), Anomalies::BAD_HOST);
    assert_eq!(odd("GET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n"), none);
    assert_eq!(odd("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), none);
    assert_eq!(odd("GET / HTTP/1.0\r\n\r\n"), none);
    assert_eq!(odd("GET / HTTP/1.1\r\n\r\n"), bad);
    assert_eq!(odd("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), bad);
    for host in ["a b", "a@b", "a/b", "a\\b", "a?b"] {
        assert_eq!(odd(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), bad, "{host}");
    }
}

#[test]
fn shapes_of_request_smuggling_are_named() {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nX: ";
    let with = |fields: &str| {
        let length = smuggled.len();
        let fields = fields.replace("LENGTH", &length.to_string());
        format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{smuggled}")
    };
    let chunked = "Transfer-Encoding: chunked";
    let length = "Content-Length: LENGTH";
    let both = Anomalies::LENGTH_AND_CHUNKED;
    let coding = Anomalies::BAD_TRANSFER_ENCODING;
    let cases = [
        (format!("{length}\r\n{chunked}"), both),
        (format!("{chunked}\r\n{length}"), both),
        (format!("{chunked}\r\nTransfer-Encoding: x"), coding),
        (format!("Transfer-Encoding: x\r\n{length}"), coding | both),
        ("Transfer-Encoding: xchunked".into(), coding),
        ("Transfer-Encoding: chunked, identity".into(), coding),
        ("Transfer-Encoding:\u{b}chunked".into(), coding | Anomalies::CONTROL_BYTE),
        ("Transfer-Encoding : chunked".into(), Anomalies::BAD_FIELD_NAME),
        ("Transfer-Encoding\t: chunked".into(), Anomalies::BAD_FIELD_NAME),
        ("X: y\rTransfer-Encoding: chunked".into(), Anomalies::BARE_CR),
        ("X: y\nTransfer-Encoding: chunked".into(), Anomalies::BARE_LF),
        ("Transfer-Encoding:\r\n chunked".into(), Anomalies::OBS_FOLD),
        ("X: y\r\n Transfer-Encoding: chunked".into(), Anomalies::OBS_FOLD),
        (format!("{length}\r\nContent-Length: 3"), Anomalies::BAD_CONTENT_LENGTH),
        ("Content-Length: +3".into(), Anomalies::BAD_CONTENT_LENGTH),
        ("Content-Length: 3, LENGTH".into(), Anomalies::BAD_CONTENT_LENGTH),
    ];
    for (fields, expected) in cases {
        for cut in [usize::MAX, 1] {
            let calls = talk(&with(&fields), OK, cut);
            assert!(calls[0].anomalies.contains(expected), "{fields:?}: {:?}", lines(&calls));
        }
    }
    // What another reader takes for one request is seen as the second where framing says so.
    let calls = talk(&with(&format!("{length}\r\n{chunked}")), OK, 1);
    assert!(lines(&calls)[1].starts_with("GET /smuggled"), "{:?}", lines(&calls));
}

#[test]
fn transfer_codings_of_http10_are_named() {
    let request = "POST /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    check(request, OK, "POST /a 1 > 200 2 BAD_TRANSFER_ENCODING");
}

#[test]
fn a_message_after_the_last_one_is_named() {
    let last = "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n";
    let calls = lines(&talk(last, OK, 1));
    assert_eq!(calls, ["GET /a 0 > 200 2", "GET /next 0 > 200 2 LENIENT"]);
    let calls = lines(&talk("GET /a HTTP/1.0\r\n\r\n", OK, 1));
    assert_eq!(calls, ["GET /a 0 > 200 2", "GET /next 0 > 200 2 LENIENT"]);
    let calls = lines(&talk("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", OK, 1));
    assert_eq!(calls, ["GET /a 0 > 200 2", "GET /next 0 > 200 2"]);
}

#[test]
fn what_is_found_after_garbage_is_named() {
    let calls = lines(&talk(&format!("{GET}(garbage)\r\nGET /b HTTP/1.1\r\n\r\n"), OK, 1));
    assert!(calls.contains(&"GET /b 0 > - incomplete BAD_HEAD".into()), "{calls:?}");
}

#[test]
fn simple_requests_have_simple_answers() {
    for cut in [usize::MAX, 1, 2, 5] {
        for body in ["<p>text</p>", "Hello", "\r\n\r\nHTTP"] {
            let mut wire = Wire::open(1, 2);
            wire.cut = cut;
            wire.ask("GET /old?x\r\n").answer(body).fin(Direction::ToClient);
            let calls = wire.decode();
            assert_eq!(lines(&calls), [format!("GET /old 0 > 0 {}", body.len())]);
            assert_eq!((calls[0].protocol, calls[0].outcome), (Protocol::Http09, None));
        }
    }
    for cut in [usize::MAX, 1] {
        let mut wire = Wire::open(1, 2);
        wire.cut = cut;
        wire.ask("GET /\r\n").answer("<p>").close();
        assert_eq!(lines(&wire.decode()), ["GET / 0 > 0 3"]);
    }
    // With fields it is none, though servers may take it for one.
    let calls = lines(&talk("POST /a\r\nHost: h\r\n\r\n", OK, 1));
    assert_eq!(calls, ["POST /a 0 > 200 2 BAD_VERSION", "GET /next 0 > 200 2 LENIENT"]);
    // Servers may answer in their own way.
    let mut wire = Wire::open(1, 2);
    wire.ask("GET /old\r\n").answer(OK).close();
    assert_eq!(lines(&wire.decode()), ["GET /old 0 > 200 2"]);
}

#[test]
fn what_follows_a_simple_request_is_not_hidden() {
    for cut in [usize::MAX, 1] {
        let mut wire = Wire::open(1, 2);
        wire.cut = cut;
        wire.ask("GET /old\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\n\r\n").answer("text");
        wire.close();
        let calls = lines(&wire.decode());
        assert_eq!(calls, ["GET /old 0 > 0 4", "GET /b 0 > - incomplete LENIENT"]);
    }
}

#[test]
fn heads_that_do_not_end_are_read_as_far_as_they_go() {
    for cut in [usize::MAX, 1, 3] {
        let mut wire = Wire::open(1, 2);
        wire.cut = cut;
        wire.ask("GET /a HTTP/1.1\r\nUser-Agent: me\r\nHo").fin(Direction::ToServer);
        wire.answer("HTTP/1.1 408 x\r\nContent-Len").fin(Direction::ToClient);
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 408 0 incomplete TRUNCATED"]);
        let request = calls[0].request.as_ref().unwrap();
        assert_eq!((request.user_agent.as_deref(), request.host.as_deref()), (Some("me"), None));
        assert!(!calls[0].anomalies.contains(Anomalies::BAD_HOST));
        assert_eq!(counters.heads_cut, 2);
        // Of a line that is cut nothing is said, unless all of it is there.
        for (line, calls) in [("GET /a HTTP/1.", 0), ("GET /a HTTP/1.1", 1), ("GET /a", 0)] {
            let mut wire = Wire::open(1, 2);
            wire.cut = cut;
            wire.ask(line).reset(Direction::ToServer);
            assert_eq!(wire.decode().len(), calls, "{line}");
        }
    }
}

fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"GET /a\r\n",
        b"POST  http://h/ HTTP/1.0\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 4x4\n",
        b"Host: h\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length : 4\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Connection: close, upgrade\r\n",
        b"Upgrade: h2c\r\n",
        b"Content-Encoding: gzip, br\r\n",
        b" \t\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"\xff:",
        b"3;x\r\nabc\r\n0\r\n\r\n",
    ]);
    let piece = prop_oneof![
        8 => words.prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_heads_give_the_same_whatever_the_pieces(
        up in any_head(), down in any_head(), more in any_head(), piece in 1_usize..12, seed: u64,
    ) {
        let mut wire = Wire::open(5, 6);
        wire.ask(GET).ask(&up).wait(5).answer(&down).wait(5).ask(&more).answer(OK).close();
        let whole = wire.decode();
        wire.packets = model::cut(&wire.packets, piece, &mut Dice(seed));
        let pieces = wire.decode();
        prop_assert_eq!(lines(&whole), lines(&pieces));
        prop_assert_eq!(whole, pieces);
    }
}
