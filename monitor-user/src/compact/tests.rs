//! Calls there and back, golden bytes, hostile bytes.

use monitor_core::call::{Carried, Detail, OAuth, Payload, Quota, SignatureId, Signed, Token};
use proptest::prelude::*;

use super::*;

/// A call with everything in it.
pub(crate) fn full() -> ApiCall {
    ApiCall {
        time: EventTime(1_795_464_000_123_456_789),
        flow: Arc::new(Flow {
            id: FlowId(0x6a4f_fe9c_13c7_fe69),
            client: Endpoint::new("203.0.113.9".parse().unwrap(), 51512),
            server: Endpoint::new("2001:db8::5".parse().unwrap(), 443),
            proxied_for: Some(Endpoint::new([203, 0, 113, 200].into(), 7)),
            tls: true,
            server_name: Some("api.example.com".into()),
            ja4: Some("t13d1516h2_8daaf6152771_02713d6af862".into()),
            process: Some("nginx".into()),
            pid: Some(812),
            container: Some("c0ffee".into()),
        }),
        protocol: Protocol::Grpc,
        request: Some(Request {
            method: "POST".into(),
            host: Some("api.example.com".into()),
            target: "/api/v3/order?symbol=BTCUSDT".into(),
            path: "/api/v3/order".into(),
            user_agent: Some("client/1".into()),
            header_order: Some(HeaderOrder(0x5eed_0001)),
            body_bytes: 120,
        }),
        response: Some(Response {
            status: Some(200),
            body_bytes: 70_000,
            quota: Some(Quota { used: Some(17), limit: Some(6000), remaining: None }),
        }),
        latency_us: Some(1830),
        key: Some(Key {
            id: KeyId(0x7f3a),
            source: "header:x-mbx-apikey".into(),
            profile: "binance".into(),
            former: Some([KeyId(7), KeyId(1 << 100)].into()),
        }),
        op: Operation::Trade,
        symbol: Some("BTCUSDT".into()),
        object_ids: vec!["1".into(), "zwei".into()],
        outcome: Some(Outcome::Ok),
        stream_id: Some(3),
        grpc: Some(Box::new(Grpc {
            service: "exchange.Orders".into(),
            method: "Place".into(),
            status: Some(0),
            sent: Messages { count: 1, bytes: 120 },
            received: Messages { count: 2, bytes: 70_000 },
        })),
        token: Some(Arc::new(Token {
            algorithm: Some("RS256".into()),
            issuer: Some("id.example.com".into()),
            client: Some("desk".into()),
            audience: vec!["api".into()],
            scope: vec!["read".into(), "trade".into()],
            expires: Some(1_795_467_600),
            not_before: None,
            issued: Some(1_795_464_000),
            auth_time: Some(-1),
            acr: Some("2".into()),
            amr: vec!["otp".into()],
        })),
        detail: Some(Box::new(Detail {
            forwarded_for: Some("2001:db8::7".parse().unwrap()),
            account: Some("main".into()),
            amount: Some("0.10".into()),
            parts: Some(2),
            name: Some("order.place".into()),
            signed: Some(Signed {
                fingerprint: Some(SignatureId(0x5167)),
                former: Some(SignatureId(0x5168)),
                nonce: Some(1_795_464_000_000_000),
                stated_ms: Some(1_795_464_000_100),
            }),
            payload: Some(Payload::Sql),
            fields: Some(Fields::from_iter(["symbol", "side"])),
            oauth: Some(Box::new(OAuth {
                client: Some(SignatureId(0xc11e)),
                redirect: Some("https://desk.example/cb".into()),
                user_code: Some(SignatureId(0xc0de)),
                answered: Some("https://desk.example/cb".into()),
                carries: Some(Carried::Code),
            })),
        })),
        complete: true,
        anomalies: Anomalies::GAP | Anomalies::EARLY_DATA,
    }
}

/// A call with as little in it as there can be.
pub(crate) fn bare() -> ApiCall {
    ApiCall {
        flow: Arc::new(Flow {
            proxied_for: None,
            tls: false,
            server_name: None,
            ja4: None,
            process: None,
            pid: None,
            container: None,
            ..(*full().flow).clone()
        }),
        protocol: Protocol::Http11,
        request: None,
        response: None,
        latency_us: None,
        key: None,
        op: Operation::Public,
        symbol: None,
        object_ids: Vec::new(),
        outcome: None,
        stream_id: None,
        grpc: None,
        token: None,
        detail: None,
        complete: false,
        anomalies: Anomalies::empty(),
        ..full()
    }
}

fn encoded(call: &ApiCall) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(call, &mut bytes);
    bytes
}

#[test]
fn calls_come_back_as_they_were() {
    let v6 = Endpoint::new("2001:db8::9".parse().unwrap(), 1);
    let odd_path = Request { path: "/elsewhere".into(), ..full().request.unwrap() };
    let unseen = Request {
        method: "".into(),
        target: "".into(),
        path: "".into(),
        host: None,
        user_agent: None,
        header_order: None,
        body_bytes: 0,
    };
    let empty = Response { status: None, body_bytes: u64::MAX, quota: Some(Quota::default()) };
    for call in [
        full(),
        bare(),
        ApiCall { flow: Arc::new(Flow { client: v6, ..(*full().flow).clone() }), ..full() },
        ApiCall { request: Some(odd_path), ..full() },
        ApiCall { request: Some(unseen), ..bare() },
        ApiCall { response: Some(empty), ..bare() },
        ApiCall { token: Some(Arc::default()), detail: Some(Box::default()), ..bare() },
    ] {
        let bytes = encoded(&call);
        let seen = Glance {
            time: call.time,
            flow: call.flow.id,
            key: call.key.as_ref().map(Key::lasting),
        };
        assert_eq!(glance(&bytes), Ok(seen));
        assert_eq!(decode(&bytes), Ok(call));
    }
}

#[test]
fn records_of_version_1_stay_readable() {
    let bytes = encoded(&full());
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Written down once: what programs of today write must be readable for ever.
    let golden = include_str!("golden-v1.hex").trim();
    assert_eq!(hex, golden, "a record of version 1 is written otherwise");
    assert_eq!(decode(&bytes), Ok(full()));
    // As written before it was told where answers of OAuth 2.0 went.
    let mut unanswered = full();
    let oauth = unanswered.detail.as_mut().unwrap().oauth.as_mut().unwrap();
    (oauth.answered, oauth.carries) = (None, None);
    // As written before the order of header fields was told, and what a signature was under the secret
    // before.
    let mut orderless = unanswered.clone();
    orderless.request.as_mut().unwrap().header_order = None;
    orderless.detail.as_mut().unwrap().signed.as_mut().unwrap().former = None;
    // As written before the fields of bodies were named.
    let mut nameless = orderless.clone();
    let detail = nameless.detail.as_mut().unwrap();
    (detail.fields, detail.oauth) = (None, None);
    // As written before keys had former ids and proxies said for whom they connect, and before calls said
    // how they were signed.
    let mut direct = nameless.clone();
    direct.flow = Arc::new(Flow { proxied_for: None, ..(*direct.flow).clone() });
    direct.key = direct.key.map(|key| Key { former: None, ..key });
    let mut unsigned = direct.clone();
    let detail = unsigned.detail.as_mut().unwrap();
    (detail.signed, detail.payload) = (None, None);
    for (golden, call) in [
        (include_str!("golden-v1-unanswered.hex"), unanswered),
        (include_str!("golden-v1-orderless.hex"), orderless),
        (include_str!("golden-v1-nameless.hex"), nameless),
        (include_str!("golden-v1-direct.hex"), direct),
        (include_str!("golden-v1-unsigned.hex"), unsigned),
    ] {
        let bytes: Vec<u8> = (0..golden.trim().len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(decode(&bytes), Ok(call.clone()));
        assert_eq!(encoded(&call), bytes);
    }
    // As a later program may write it: with another field.
    let mut later = bytes.clone();
    later.extend_from_slice(b"news");
    assert_eq!(decode(&later), Ok(full()));
}

fn summary() -> Summary {
    Summary { call: full(), count: 300, span_ns: 29_000_000_000 }
}

#[test]
fn summaries_of_version_2_stay_readable() {
    let mut bytes = Vec::new();
    encode_summary(&summary(), &mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("golden-v2.hex").trim();
    assert_eq!(hex, golden, "a record of version 2 is written otherwise");
    assert_eq!(decode_packed(&bytes), Ok(Packed::Summary(summary())));
    let seen = Glance {
        time: full().time,
        flow: full().flow.id,
        key: full().key.map(|key| key.lasting()),
    };
    assert_eq!(glance(&bytes), Ok(seen));
    // What knows calls alone does not take it for one.
    assert_eq!(decode(&bytes), Err(Malformed::Version(2)));
    assert_eq!(decode_packed(&encoded(&bare())), Ok(Packed::Call(bare())));
    for length in 0..bytes.len() {
        assert!(decode_packed(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_summary_stands_for_its_calls() {
    let calls: Vec<ApiCall> = summary().calls().collect();
    assert_eq!(calls.len(), 300);
    assert_eq!(calls[0], full());
    assert_eq!(calls[299].time.0 - calls[0].time.0, 29_000_000_000);
    assert!(calls.is_sorted_by(|a, b| a.time < b.time));
    let at_once = Summary { span_ns: 0, count: 2, ..summary() };
    assert!(at_once.calls().all(|call| call == full()));
    assert_eq!(Summary { count: 1, span_ns: u64::MAX, ..summary() }.calls().count(), 1);
    // One that claims too many is none.
    let mut bytes = Vec::new();
    encode_summary(&Summary { count: COUNT_MAX + 1, ..summary() }, &mut bytes);
    assert_eq!(decode_packed(&bytes), Err(Malformed::Code("number of calls")));
}

#[test]
fn codes_never_change_their_meaning() {
    let names = Protocol::ALL.map(Protocol::as_str);
    let known = ["http/0.9", "http/1.0", "http/1.1", "http/2", "grpc", "websocket", "fix"];
    assert_eq!(names[..known.len()], known);
    let names: Vec<_> = Operation::ALL.iter().map(|op| op.as_str()).collect();
    let known = [
        "public",
        "read",
        "trade",
        "cancel",
        "transfer",
        "withdraw",
        "address_book",
        "key_management",
        "subaccount",
        "auth",
    ];
    assert_eq!(names[..known.len()], known);
    let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    let known = [
        "ok",
        "bad_key",
        "bad_signature",
        "skew",
        "replayed_nonce",
        "ip_denied",
        "permission_denied",
        "mfa_required",
        "address_not_allowed",
        "throttled",
        "banned",
        "locked",
        "error",
    ];
    assert_eq!(names[..known.len()], known);
}

#[test]
fn payload_codes_never_change_their_meaning() {
    let names: Vec<_> = Payload::ALL.iter().map(|payload| payload.as_str()).collect();
    let known = [
        "lookup",
        "xml_entity",
        "command",
        "sql",
        "template",
        "nosql",
        "ldap",
        "path",
        "script",
        "introspection",
    ];
    assert_eq!(names[..known.len()], known);
}

#[test]
fn a_later_version_is_refused() {
    let mut bytes = encoded(&bare());
    bytes[0] = 3;
    assert_eq!(decode(&bytes), Err(Malformed::Version(3)));
    assert_eq!(decode_packed(&bytes), Err(Malformed::Version(3)));
    assert_eq!(decode(&[]), Err(Malformed::Short));
}

#[test]
fn what_is_cut_off_is_refused() {
    let bytes = encoded(&full());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        at in 0..400_usize,
        byte in any::<u8>(),
    ) {
        let _ = decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let _ = (decode(&bytes), glance(&bytes));
        if let Some(first) = bytes.first_mut() {
            *first = NEWEST;
        }
        let _ = (decode_packed(&bytes), glance(&bytes));
        let mut near = encoded(&full());
        let at = at % near.len();
        near[at] = byte;
        if let Ok(call) = decode(&near) {
            prop_assert_eq!(decode(&encoded(&call)), Ok(call));
        }
    }
}
