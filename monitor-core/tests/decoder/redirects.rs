//! Where answers of OAuth 2.0 are sent: the address and what it carries, and nothing of that itself.

use monitor_core::call::{ApiCall, Carried};

use crate::frames::{Encoder, PREFACE, settings};
use crate::wire::Wire;

const CANARY: &str = "c4n4ryS3cr3tV4lu3X7Qz";
const ASKED: &str = "/oauth/authorize?response_type=code&client_id=desk&redirect_uri=https%3A%2F%2Fdesk.example%2Fcb";

/// Redirect that was asked for, where the answer went, and what it carries.
fn seen(call: &ApiCall) -> (Option<String>, Option<String>, Option<Carried>) {
    assert!(!format!("{call:?}").contains(CANARY), "{call:?}");
    let Some(oauth) = call.detail.as_ref().and_then(|detail| detail.oauth.as_ref()) else {
        return (None, None, None);
    };
    assert!(oauth.client.is_some());
    let text = |known: &Option<_>| known.as_ref().map(ToString::to_string);
    (text(&oauth.redirect), text(&oauth.answered), oauth.carries)
}

fn http1(
    target: &str,
    status: &str,
    location: &str,
) -> (Option<String>, Option<String>, Option<Carried>) {
    let of = |cut| {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        wire.ask(format!("GET {target} HTTP/1.1\r\nHost: id.example\r\n\r\n"));
        let head =
            format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        seen(&wire.answer(head).close().decode()[0])
    };
    assert_eq!(of(usize::MAX), of(1));
    of(7)
}

fn http2(
    target: &str,
    status: &str,
    location: &str,
) -> (Option<String>, Option<String>, Option<Carried>) {
    let mut wire = Wire::open(1000, 2000);
    wire.ask([PREFACE, &settings(&[])].concat()).answer(settings(&[]));
    let fields =
        [(":method", "GET"), (":scheme", "https"), (":path", target), (":authority", "id.example")];
    wire.ask(Encoder::new().headers(1, true, &fields));
    wire.answer(Encoder::new().headers(1, true, &[(":status", status), ("location", location)]));
    seen(&wire.close().decode()[0])
}

#[test]
fn an_answer_is_named_by_where_it_goes() {
    let code = format!("https://desk.example.evil.example/cb?code={CANARY}&state={CANARY}");
    let evil = || Some("https://desk.example.evil.example/cb".to_owned());
    let own = || Some("https://desk.example/cb".to_owned());
    for (status, short) in [("302 Found", "302"), ("303 See Other", "303"), ("301 M", "301")] {
        let expected = (own(), evil(), Some(Carried::Code));
        assert_eq!(http1(ASKED, status, &code), expected);
        assert_eq!(http2(ASKED, short, &code), expected);
    }
    // A client that names no redirect, and a token in the fragment.
    let bare = "/oauth/authorize?response_type=token&client_id=desk";
    let token = format!("https://desk.example/cb#access_token={CANARY}&token_type=bearer");
    assert_eq!(http1(bare, "302 Found", &token), (None, own(), Some(Carried::Token)));
    assert_eq!(http2(bare, "302", &token), (None, own(), Some(Carried::Token)));
    // Nothing is given, or it is no redirect.
    let login = "https://id.example/login?return_to=x";
    assert_eq!(http1(ASKED, "302 Found", login), (own(), None, None));
    assert_eq!(http1(ASKED, "201 Created", &code), (own(), None, None));
    assert_eq!(http2(ASKED, "201", &code), (own(), None, None));
    // Of what is no request of OAuth nothing is said.
    assert_eq!(http1("/v1/orders?client_id=a", "302 Found", &code), (None, None, None));
}
