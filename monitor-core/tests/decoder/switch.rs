//! Upgrades and tunnels: whose the bytes are that come before the answer.

use monitor_core::call::Protocol;
use monitor_core::input::Direction;
use monitor_core::limits::Limits;

use crate::websocket_frames::ask;
use crate::wire::{Wire, decoder, feed, lines};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const H2C: &str = "GET /h2 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
/// A masked ping without content.
const PING: &[u8] = &[0x89, 0x80, 1, 2, 3, 4];

/// What `talk` comes to, whatever the size of the pieces.
fn check(talk: impl Fn(&mut Wire), expected: &[&str]) {
    for cut in [usize::MAX, 1, 2, 3, 7, 100] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        talk(&mut wire);
        assert_eq!(lines(&wire.decode()), expected, "pieces of {cut} bytes");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn a_websocket_takes_over() {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n";
    check(
        |wire| {
            wire.ask(WEBSOCKET).answer(agreed).ask(PING).answer([0x8a, 0x00]).close();
        },
        &["GET /ws 0 > 101 0"],
    );
    check(
        |wire| {
            wire.ask(WEBSOCKET).ask(PING).answer(agreed).close();
        },
        &["GET /ws 0 > 101 0"],
    );
    let other = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n";
    check(
        |wire| {
            wire.ask(WEBSOCKET).answer(other).ask(get("/no")).close();
        },
        &["GET /ws 0 > 101 0 UPGRADED"],
    );
}

/// In the middle of a connection, when a chunk holds both.
#[test]
fn what_shows_itself_first_is_spoken() {
    let frames =
        [ask("{\"id\":1,\"method\":\"a\"}"), ask("{\"id\":2}"), ask("{\"id\":3,\"x\":1}")].concat();
    let length = frames.len();
    let post = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let tail = b"\x01\x02\x03 the end of a body".as_slice();
    for cut in [usize::MAX, 1, 2, 7, 60, 100, 150] {
        let decode = |parts: &[&[u8]]| {
            let mut wire = Wire::midstream(1000, 2000);
            wire.cut = cut;
            wire.ask(parts.concat()).close();
            wire.run()
        };
        let (calls, counters) = decode(&[tail, post.as_bytes(), &frames]);
        assert_eq!(counters.websocket_flows, 0, "pieces of {cut} bytes");
        let whole = format!("POST /a {length} > - incomplete MIDSTREAM");
        assert_eq!(lines(&calls), [whole], "pieces of {cut} bytes");
        let (calls, counters) = decode(&[tail, &frames, get("/b").as_bytes()]);
        assert_eq!(counters.websocket_flows, 1, "pieces of {cut} bytes");
        assert!(calls.iter().all(|call| call.protocol == Protocol::WebSocket));
    }
}

#[test]
fn http2_takes_over_with_the_call() {
    for cut in [usize::MAX, 1] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        wire.ask(H2C).answer("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        wire.close();
        let (calls, counters) = wire.run();
        assert!(calls.iter().all(|call| call.protocol != Protocol::Http11), "{:?}", lines(&calls));
        assert_eq!(counters.upgraded_flows, 1);
    }
}

#[test]
fn what_follows_a_refused_upgrade_is_requests() {
    let refused = "HTTP/1.1 426 No\r\nContent-Length: 1\r\n\r\nx";
    for offer in [WEBSOCKET, H2C, "CONNECT h:1 HTTP/1.1\r\n\r\n"] {
        for early in [true, false] {
            let first = match &offer[..7] {
                "CONNECT" => "CONNECT  0 > 426 1",
                "GET /h2" => "GET /h2 0 > 426 1",
                _ => "GET /ws 0 > 426 1",
            };
            check(
                |wire| {
                    wire.wait(10).ask(offer);
                    if early {
                        wire.wait(1).ask(get("/b")).ask(get("/c"));
                        wire.wait(10).answer(format!("{refused}{OK}{OK}"));
                    } else {
                        wire.answer(refused).ask(get("/b")).answer(OK).ask(get("/c")).answer(OK);
                    }
                    wire.close();
                },
                &[first, "GET /b 0 > 200 2", "GET /c 0 > 200 2"],
            );
        }
    }
}

#[test]
fn early_requests_keep_their_time() {
    let mut wire = Wire::open(1, 2);
    wire.wait(10).ask(H2C).wait(20).ask(get("/b")).wait(30).answer(format!("{OK}{OK}")).close();
    let calls = wire.decode();
    assert_eq!(calls.iter().map(|call| call.latency_us).collect::<Vec<_>>(), [Some(50), Some(30)]);
    assert_eq!(calls[1].time.0, calls[0].time.0 + 20_000);
}

#[test]
fn a_client_need_not_wait_for_its_tunnel() {
    check(
        |wire| {
            wire.ask("CONNECT h:80 HTTP/1.1\r\n\r\n")
                .ask(get("/in"))
                .answer("HTTP/1.1 200 Established\r\n\r\n")
                .answer(OK)
                .ask(get("/more"))
                .answer(OK)
                .close();
        },
        &["CONNECT  0 > 200 0 UPGRADED", "GET /in 0 > 200 2", "GET /more 0 > 200 2"],
    );
}

#[test]
fn an_interim_answer_decides_nothing() {
    check(
        |wire| {
            wire.ask(H2C).ask(get("/b")).answer("HTTP/1.1 103 Early\r\n\r\n").answer(OK).answer(OK);
            wire.close();
        },
        &["GET /h2 0 > 200 2", "GET /b 0 > 200 2"],
    );
}

#[test]
fn without_an_answer_all_are_requests() {
    check(
        |wire| {
            wire.ask(H2C).ask(get("/b")).ask(WEBSOCKET).ask(get("/c"));
            wire.fin(Direction::ToClient);
        },
        &[
            "GET /h2 0 > - incomplete",
            "GET /b 0 > - incomplete",
            "GET /ws 0 > - incomplete",
            "GET /c 0 > - incomplete",
        ],
    );
    check(
        |wire| {
            wire.ask(H2C).ask(get("/b"));
        },
        &["GET /h2 0 > - incomplete", "GET /b 0 > - incomplete"],
    );
}

#[test]
fn more_than_is_kept_ahead_of_an_answer_is_named() {
    let mut wire = Wire::open(1, 2);
    wire.ask(H2C);
    wire.ask(get("/b").repeat(5));
    wire.answer(OK.repeat(6)).close();
    let bytes = get("/b").len();
    for (max, overflows) in [(5 * bytes, 0), (5 * bytes - 1, 1), (0, 1)] {
        let mut decoder = decoder(Limits { early_bytes_max: max, ..Limits::default() });
        let calls = feed(&mut decoder, wire.flow, &wire.packets);
        let odd = if overflows > 0 { " PIPELINE_OVERFLOW" } else { "" };
        assert_eq!(lines(&calls)[0], format!("GET /h2 0 > 200 2{odd}"));
        assert_eq!(lines(&calls)[1..], ["GET /b 0 > 200 2"; 5]);
        assert_eq!(decoder.counters().early_overflows, overflows, "{max}");
    }
}

#[test]
fn tunnels_within_tunnels_are_looked_into_so_deep() {
    let connect = "CONNECT h:80 HTTP/1.1\r\n\r\n";
    let agreed = "HTTP/1.1 200 OK\r\n\r\n";
    let depth = usize::from(Limits::default().tunnels_max);
    let mut wire = Wire::open(1, 2);
    // All at once: neither side waits.
    wire.ask(connect.repeat(100)).answer(agreed.repeat(100)).close();
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), vec!["CONNECT  0 > 200 0 UPGRADED"; depth + 1]);
    assert_eq!((counters.tunnels_too_deep, counters.upgraded_flows), (1, depth as u64 + 1));
}

#[test]
fn requests_for_tunnels_without_end_are_bounded() {
    let connect = "CONNECT h:80 HTTP/1.1\r\n\r\n";
    for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"] {
        let mut wire = Wire::open(1, 2);
        wire.ask(connect.repeat(5000)).answer(answer.repeat(5000)).close();
        let (calls, counters) = wire.run();
        assert!(counters.early_overflows > 0 && calls.len() >= 1024, "{counters:?}");
    }
}
