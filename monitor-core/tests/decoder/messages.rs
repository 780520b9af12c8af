//! Message forms: each conversation is also cut into pieces of every size, with the same result.

use monitor_core::call::{Anomalies, ApiCall, Outcome, Protocol};
use monitor_core::input::Direction;

use crate::wire::{Wire, lines};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What `talk` comes to, whatever the size of the pieces.
fn check(talk: impl Fn(&mut Wire), expected: &[&str]) {
    for cut in [usize::MAX, 1, 2, 3, 5, 7, 16, 100] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        talk(&mut wire);
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), expected, "pieces of {cut} bytes");
        assert_eq!(counters.calls, expected.len() as u64);
        assert_eq!((counters.gaps, counters.flows_not_http), (0, 0));
    }
}

/// A request, a response.
fn check_one(request: &str, response: &str, expected: &str) {
    check(
        |wire| {
            wire.ask(request).answer(response).ask("GET /next HTTP/1.1\r\n\r\n").answer(OK).close();
        },
        &[expected, "GET /next 0 > 200 2"],
    );
}

#[test]
fn plain_calls() {
    check_one("GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n", OK, "GET /a 0 > 200 2");
    check_one("\r\n\r\nGET /a HTTP/1.1\r\n\r\n", OK, "GET /a 0 > 200 2");
    check_one("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", OK, "POST /a 5 > 200 2");
    let keep = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    check_one(keep, OK, "GET /a 0 > 200 2");
    check_one(
        "GET /a HTTP/1.1\n\n",
        "HTTP/1.1 200\nContent-Length:1\n\nx",
        "GET /a 0 > 200 1 BARE_LF",
    );
}

#[test]
fn responses_without_a_body() {
    let length = "Content-Length: 77\r\n\r\n";
    check_one(
        "HEAD /a HTTP/1.1\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{length}"),
        "HEAD /a 0 > 200 0",
    );
    check_one(
        "GET /a HTTP/1.1\r\n\r\n",
        &format!("HTTP/1.1 304 x\r\n{length}"),
        "GET /a 0 > 304 0",
    );
    check_one("GET /a HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "GET /a 0 > 204 0");
    let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    check_one("GET /a HTTP/1.1\r\n\r\n", &format!("{early}{early}{OK}"), "GET /a 0 > 200 2");
}

#[test]
fn chunked_bodies() {
    let request = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
                    A;x=\"y\"\r\n0123456789\r\n1\r\nx\r\n0\r\nTrailer: t\r\n\r\n";
    check_one(request, response, "POST /a 4 > 200 11");
}

#[test]
fn continue_comes_between_head_and_body() {
    check(
        |wire| {
            wire.ask("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
                .answer("HTTP/1.1 100 Continue\r\n\r\n")
                .ask("abc")
                .answer(OK)
                .close();
        },
        &["PUT /a 3 > 200 2"],
    );
}

#[test]
fn an_early_answer_waits_for_the_rest_of_the_request() {
    check(
        |wire| {
            wire.ask("PUT /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc")
                .answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                .ask("def")
                .ask("GET /b HTTP/1.1\r\n\r\n")
                .answer(OK)
                .close();
        },
        &["PUT /a 6 > 413 0", "GET /b 0 > 200 2"],
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    check(
        |wire| {
            wire.ask("GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n")
                .answer(format!(
                    "{OK}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 404 No\r\n"
                ))
                .answer("Content-Length: 3\r\n\r\nabc")
                .close();
        },
        &["GET /1 0 > 200 2", "HEAD /2 0 > 200 0", "GET /3 0 > 404 3"],
    );
}

#[test]
fn a_body_until_close_ends_with_the_fin() {
    let response = "HTTP/1.0 200 OK\r\n\r\nall the rest";
    check(
        |wire| {
            wire.ask("GET /a HTTP/1.0\r\n\r\n").answer(response).close();
        },
        &["GET /a 0 > 200 12"],
    );
    check(
        |wire| {
            wire.ask("GET /a HTTP/1.0\r\n\r\n").answer(response).reset(Direction::ToClient);
        },
        &["GET /a 0 > 200 12 incomplete TRUNCATED"],
    );
    check(
        |wire| {
            wire.ask("GET /a HTTP/1.0\r\n\r\n").answer(response);
        },
        &["GET /a 0 > 200 12 incomplete TRUNCATED"],
    );
}

#[test]
fn what_is_cut_off_is_noted() {
    check(
        |wire| {
            wire.ask("POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").close();
        },
        &["POST /a 3 > - incomplete TRUNCATED"],
    );
    check(
        |wire| {
            wire.ask("GET /a HTTP/1.1\r\n\r\n")
                .answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                .close();
        },
        &["GET /a 0 > 200 3 incomplete TRUNCATED"],
    );
    check(
        |wire| {
            wire.ask("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
                .answer(OK)
                .reset(Direction::ToServer);
        },
        &["GET /a 0 > 200 2", "GET /b 0 > - incomplete"],
    );
}

#[test]
fn other_protocols_take_over() {
    for cut in [usize::MAX, 1] {
        let mut wire = Wire::open(1, 2);
        wire.cut = cut;
        wire.ask("GET /a HTTP/1.1\r\nUpgrade: other\r\n\r\n");
        wire.answer("HTTP/1.1 101 Switching Protocols\r\n\r\n");
        wire.ask("GET /no HTTP/1.1\r\n\r\n").answer(OK).close();
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 101 0 UPGRADED"]);
        assert_eq!((counters.upgraded_flows, counters.tunnel_bytes), (1, 20 + OK.len() as u64));
    }
}

#[test]
fn a_tunnel_is_looked_into() {
    for cut in [usize::MAX, 1] {
        let mut wire = Wire::open(1, 2);
        wire.cut = cut;
        wire.ask("CONNECT h:443 HTTP/1.1\r\n\r\n");
        wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
        wire.ask("GET /in HTTP/1.1\r\n\r\n").answer(OK).close();
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), ["CONNECT  0 > 200 0 UPGRADED", "GET /in 0 > 200 2"]);
        assert_eq!(counters.upgraded_flows, 1);
    }
}

#[test]
fn a_response_without_a_request_is_a_record() {
    check(
        |wire| {
            wire.answer("HTTP/1.1 408 Request Timeout\r\nContent-Length: 1\r\n\r\nx").close();
        },
        &["- > 408 1 incomplete UNPAIRED_RESPONSE"],
    );
}

#[test]
fn a_body_may_begin_as_a_response_does() {
    check(
        |wire| {
            wire.answer("HTTP/1.1 408 x\r\nContent-Length: 6\r\n\r\nHTTPS!").close();
        },
        &["- > 408 6 incomplete UNPAIRED_RESPONSE"],
    );
}

#[test]
fn lengths_that_make_no_sense() {
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    check_one(&format!("POST /a HTTP/1.1\r\n{both}"), OK, "POST /a 1 > 200 2 LENGTH_AND_CHUNKED");
    let two = "Content-Length: 2\r\nContent-Length: 3\r\n\r\nab";
    check_one(&format!("POST /a HTTP/1.1\r\n{two}"), OK, "POST /a 2 > 200 2 BAD_CONTENT_LENGTH");
    let sign = "Content-Length: +2\r\n\r\n";
    check_one(&format!("POST /a HTTP/1.1\r\n{sign}"), OK, "POST /a 0 > 200 2 BAD_CONTENT_LENGTH");
    check(
        |wire| {
            wire.ask("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n")
                .answer("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
                .ask("GET /b HTTP/1.1\r\n\r\n")
                .answer(OK)
                .close();
        },
        &["POST /a 0 > 400 0 incomplete BAD_CHUNK", "GET /b 0 > 200 2"],
    );
}

#[test]
fn a_head_that_is_too_large_is_read_as_far_as_it_goes() {
    let fill = "X-Fill: 0123456789012345678901234567890123456789\r\n".repeat(1000);
    let request = format!("POST /a HTTP/1.1\r\n{fill}Content-Length: 3\r\n\r\nabc");
    check_one(&request, OK, "POST /a 3 > 200 2 HEAD_TOO_LARGE+TOO_MANY_HEADERS");
    let response = format!("HTTP/1.1 200 OK\r\n{fill}Content-Length: 3\r\n\r\nabc");
    let get = "GET /a HTTP/1.1\r\n\r\n";
    check_one(get, &response, "GET /a 0 > 200 3 HEAD_TOO_LARGE+TOO_MANY_HEADERS");
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(40_000));
    check_one(&target, OK, "- > 200 2 incomplete HEAD_TOO_LARGE+BAD_HEAD");
}

#[test]
fn many_header_fields_are_read_and_noted() {
    let fields = |count| format!("GET /a HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    check_one(&fields(128), OK, "GET /a 0 > 200 2");
    check_one(&fields(129), OK, "GET /a 0 > 200 2 TOO_MANY_HEADERS");
}

#[test]
fn fields_of_a_call() {
    let mut wire = Wire::open(1, 2);
    wire.wait(10)
        .ask("GET http://u:p@a.b:80/x HTTP/1.0\r\nHost: c.d\r\nUser-Agent: test\r\n\r\n")
        .wait(250)
        .answer(OK)
        .close();
    let calls = wire.decode();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    let request = call.request.as_ref().unwrap();
    assert_eq!(call.protocol, Protocol::Http10);
    assert_eq!(call.latency_us, Some(250));
    assert_eq!(call.time.0, 1_010_000);
    assert_eq!(request.host.as_deref(), Some("a.b:80"));
    assert_eq!((call.flow.client, call.flow.server), (wire.flow.client, wire.flow.server));
}

#[test]
fn the_beginning_of_an_error_body_is_decoded() {
    let coded = |coding: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 400 No\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut wire = Wire::open(1, 2);
        wire.ask("GET /api/v3/order HTTP/1.1\r\nHost: h\r\nX-MBX-APIKEY: k\r\n\r\n");
        wire.answer([head.as_bytes(), body].concat()).close();
        let calls = wire.decode();
        (calls[0].outcome, calls[0].anomalies, calls[0].response.as_ref().map(|it| it.body_bytes))
    };
    let text = br#"{"code":-1021}"#;
    // Both as raw DEFLATE and in a stored block (RFC 1951, 3.2.4).
    let stored = [&[1, 14, 0, 0xf1, 0xff], &text[..]].concat();
    let none = Anomalies::empty();
    assert_eq!(coded("identity", text), (Some(Outcome::Skew), none, Some(14)));
    assert_eq!(coded("deflate", &stored), (Some(Outcome::Skew), none, Some(19)));
    let bad = Anomalies::BAD_CONTENT_CODING;
    assert_eq!(coded("gzip", text), (Some(Outcome::Skew), bad, Some(14)));
}

/// Each head three times with another first line, so that its fields are known from the one before: as
/// if it came in pieces, which are always parsed.
#[test]
fn fields_that_come_again_are_read_as_ever() {
    let fields = [
        "Host: a.example\r\nUser-Agent: bot/1\r\nX-MBX-APIKEY: made-up-key-of-somebody\r\n",
        "host:  b.example \r\nuser-agent:\r\n",
        "Host: c\r\nHost: d\r\n",
        "User-Agent: none\r\n",
        "Host: e\r\nConnection: keep-alive\r\nAuthorization: Bearer made-up-token-1\r\n",
        "Host: \u{e9}\r\nUser-Agent: \u{e9}\r\n",
        "Host: f\nUser-Agent: bare\r\n",
        "Host: g\r\nContent-Length: 3\r\n",
        "Host: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        "Host: i\r\nTransfer-Encoding: gzip\r\n",
    ];
    let answers = [
        "X-MBX-USED-WEIGHT-1M: 7\r\n",
        "Server: x\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/json\r\nRetry-After: 5\r\n",
        "Connection: keep-alive\n",
    ];
    let talk = |wire: &mut Wire| {
        for (number, fields) in fields.iter().enumerate() {
            let answer = answers[number % answers.len()];
            let body = if fields.contains("Content-Length") { "abc" } else { "" };
            for again in 0..3 {
                let status = [200, 403, 500][again];
                wire.ask(format!("POST /n{number}/{again} HTTP/1.1\r\n{fields}\r\n{body}"));
                let head = format!("HTTP/1.1 {status} X\r\n{answer}Content-Length: 2\r\n");
                wire.answer(format!("{head}\r\n{{}}"));
            }
        }
        wire.close();
    };
    let run = |cut| {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        talk(&mut wire);
        let told = |call: &ApiCall| {
            format!(
                "{:?} {:?} {:?} {:?} {:?}",
                call.request, call.response, call.key, call.anomalies, call.outcome
            )
        };
        wire.run().0.iter().map(told).collect::<Vec<String>>()
    };
    let (whole, pieces) = (run(usize::MAX), run(1));
    assert_eq!(whole, pieces);
    assert!(whole.len() >= 27, "{}", whole.len());
    let all_have = |calls: &[String], what: &str| calls.iter().all(|call| call.contains(what));
    assert!(all_have(&whole[..3], "header:x-mbx-apikey"), "{:?}", &whole[..3]);
    assert!(all_have(&whole[6..9], "BAD_HOST"), "{:?}", &whole[6..9]);
}
