//! No credential leaves the Decoder: canaries in every place that any profile names, on every protocol
//! that has such a place, with replies that repeat them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use monitor_core::identity::Profiles;
use monitor_core::limits::Limits;

use crate::frames::{ACK, DATA, END_STREAM, Encoder, PREFACE, SETTINGS, frame, settings};
use crate::websocket_frames::{ask, handshake, tell};
use crate::wire::{Wire, decoder, feed};

/// Letters and digits in no order, as keys are. Not a key of anybody.
const CANARY: &str = "c4n4ryS3cr3tV4lu3X7Qz";

/// A request that holds canaries.
struct Planted {
    /// What it is of, for whoever reads a failure.
    place: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// What a profile's file names.
struct Named {
    profile: String,
    path: String,
    keys: Vec<toml::Table>,
    secrets: Vec<String>,
}

fn named() -> Vec<Named> {
    let profiles = Profiles::builtin();
    let read = |text: &str| text.parse::<toml::Table>().expect("a profile is TOML");
    let strings = |value: Option<&toml::Value>| -> Vec<String> {
        let list = value.and_then(toml::Value::as_array).into_iter().flatten();
        list.filter_map(toml::Value::as_str).map(str::to_owned).collect()
    };
    let each = profiles.iter().map(|profile| {
        let file = read(&profile.text);
        let fields = file.get("fields").and_then(toml::Value::as_table);
        let keys = file.get("keys").and_then(toml::Value::as_array).into_iter().flatten();
        let mut secrets = strings(fields.and_then(|it| it.get("secret")));
        let ends = strings(fields.and_then(|it| it.get("secret_ends")));
        secrets.extend(ends.into_iter().map(|end| format!("my_{end}")));
        Named {
            profile: profile.name.to_string(),
            path: strings(file.get("paths")).first().cloned().unwrap_or_else(|| "/v1/".into()),
            keys: keys.filter_map(|key| key.as_table().cloned()).collect(),
            secrets,
        }
    });
    each.collect()
}

fn text<'t>(key: &'t toml::Table, name: &str) -> Option<&'t str> {
    key.get(name).and_then(toml::Value::as_str)
}

/// JSON that has the canary at a path such as `args[0].apiKey`.
fn json_at(path: &str, message: Option<&str>) -> String {
    let mut value = format!("\"{CANARY}\"");
    for part in path.split('.').rev() {
        let (name, brackets) = part.split_at(part.find('[').unwrap_or(part.len()));
        for _ in brackets.matches('[') {
            value = format!("[{value}]");
        }
        if !name.is_empty() {
            value = format!("{{\"{name}\":{value}}}");
        }
    }
    let name = message.unwrap_or("order.place");
    let inner = value.strip_prefix('{').unwrap_or("}");
    format!(r#"{{"id":1,"method":"{name}","op":"{name}","secret":"{CANARY}",{inner}"#)
}

fn planted() -> Vec<Planted> {
    let mut all = Vec::new();
    for Named { profile, path, keys, secrets } in named() {
        let mut plant = |place: &str, target: String, headers: &[(&str, &str)], body: &str| {
            let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            all.push(Planted {
                place: format!("{profile} {place}"),
                target,
                headers: headers.collect(),
                body: body.into(),
            });
        };
        for key in &keys {
            if let Some(name) = text(key, "header") {
                let with = text(key, "with").unwrap_or("x-sign");
                let headers = [(name, CANARY), (with, CANARY)];
                plant(&format!("header {name}"), format!("{path}x"), &headers, "");
            } else if let Some(scheme) = text(key, "scheme") {
                let payload =
                    format!("{{\"sub\":\"{CANARY}\",\"iss\":\"cdp\",\"scope\":\"{CANARY}\"}}");
                let token = format!(
                    "eyJhbGciOiJub25lIn0.{}.{CANARY}",
                    URL_SAFE_NO_PAD.encode(payload.replace("cdp", CANARY))
                );
                let basic = STANDARD.encode(format!("{CANARY}:{CANARY}"));
                for value in [
                    format!("{scheme} {CANARY}"),
                    format!("{scheme} {token}"),
                    format!("{scheme} {basic}"),
                    format!("{scheme} id={CANARY},ts=1,sig={CANARY},nonce={CANARY}"),
                ] {
                    plant("scheme", format!("{path}x"), &[("Authorization", &value)], "");
                }
            } else if let Some(name) = text(key, "query") {
                plant("query", format!("{path}x?a=1&{name}={CANARY}&b=2"), &[], "");
            } else if let Some(name) = text(key, "form") {
                plant("form", format!("{path}x"), &[], &format!("{name}={CANARY}&symbol=A"));
            } else if let Some(name) = text(key, "cookie") {
                plant(
                    "cookie",
                    format!("{path}x"),
                    &[("Cookie", &format!("a=b; {name}={CANARY}"))],
                    "",
                );
            } else if let Some(member) = text(key, "member") {
                let body = json_at(member, text(key, "message"));
                plant(&format!("member {member}"), format!("{path}x"), &[], &body);
            }
        }
        for name in &secrets {
            let query = format!("{path}x?symbol=A&{name}={CANARY}");
            let body =
                format!("{{\"{name}\":\"{CANARY}\",\"params\":{{\"{name}\":\"{CANARY}\"}}}}");
            plant(&format!("secret {name} in JSON"), query.clone(), &[(name, CANARY)], &body);
            plant(&format!("secret {name} in a form"), query, &[], &format!("a=1&{name}={CANARY}"));
        }
    }
    all
}

fn look(place: &str, wire: &mut Wire) {
    wire.close();
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, &wire.packets);
    assert!(!calls.is_empty(), "{place}");
    let mut printed = String::new();
    for call in &calls {
        printed += &format!("{call:?}{}", serde_json::to_string(call).expect("JSON"));
    }
    while let Some(connection) = decoder.poll_connection() {
        printed += &format!("{connection:?}{}", serde_json::to_string(&connection).expect("JSON"));
    }
    printed += &format!("{:?}", decoder.counters());
    for secret in [CANARY.to_owned(), STANDARD.encode(format!("{CANARY}:{CANARY}"))] {
        assert!(!printed.contains(&secret), "{place}: {printed}");
    }
}

#[test]
fn canaries_over_http1() {
    for Planted { place, target, headers, body } in planted() {
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let mut wire = Wire::open(1000, 2000);
        wire.ask(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        ));
        let told = format!("{{\"code\":\"{CANARY}\",\"error\":[\"{CANARY}\"]}}");
        let length = told.len();
        wire.answer(format!("HTTP/1.1 401 {CANARY}\r\nContent-Length: {length}\r\n\r\n{told}"));
        look(&place, &mut wire);
    }
}

#[test]
fn canaries_over_http2() {
    for Planted { place, target, headers, body } in planted() {
        let mut wire = Wire::open(1000, 2000);
        let (mut client, mut server) = (Encoder::new(), Encoder::new());
        wire.ask([PREFACE, &settings(&[])].concat());
        wire.answer(settings(&[])).ask(frame(SETTINGS, ACK, 0, b""));
        let lower: Vec<(String, &str)> =
            headers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        let mut fields =
            vec![(":method", "POST"), (":scheme", "http"), (":path", &target), (":authority", "a")];
        fields.extend(lower.iter().map(|(name, value)| (name.as_str(), *value)));
        wire.ask(client.headers(1, false, &fields));
        wire.ask(frame(DATA, END_STREAM, 1, body.as_bytes()));
        wire.answer(server.headers(1, false, &[(":status", "401")]));
        wire.answer(frame(DATA, END_STREAM, 1, format!("{{\"code\":\"{CANARY}\"}}").as_bytes()));
        look(&place, &mut wire);
    }
}

#[test]
fn canaries_over_websocket() {
    for Planted { place, body, .. } in planted() {
        let mut wire = Wire::open(1000, 2000);
        handshake(&mut wire, "");
        wire.ask(ask(&body));
        wire.answer(tell(&format!(
            "{{\"id\":1,\"error\":{{\"code\":1,\"message\":\"{CANARY}\"}}}}"
        )));
        wire.answer(tell(&format!("{{\"channel\":\"{CANARY}\",\"data\":[]}}")));
        look(&place, &mut wire);
    }
}

#[test]
fn canaries_over_fix() {
    // Sender, user, password, raw data, encrypted password, account, text, ids that look like keys.
    for tag in [49, 50, 553, 554, 925, 96, 1402, 1404, 1, 58, 142] {
        let mut wire = Wire::open(1000, 2000);
        let message = |fields: String| {
            let body = fields.replace('|', "\u{1}");
            let mut bytes = format!("8=FIX.4.4\u{1}9={}\u{1}{body}", body.len());
            let sum = bytes.bytes().fold(0_u8, |sum, byte| sum.wrapping_add(byte));
            bytes += &format!("10={sum:03}\u{1}");
            bytes
        };
        wire.ask(message(format!("35=A|34=1|56=SPOT|{tag}={CANARY}|")));
        wire.answer(message(format!("35=5|34=1|58=bad {CANARY}|")));
        wire.ask(message(format!("35=D|34=2|11=a|55=B|{tag}={CANARY}|")));
        wire.answer(message(format!("35=8|34=2|11=a|39=8|58={CANARY}|")));
        look(&format!("tag {tag}"), &mut wire);
    }
}

#[test]
fn every_profile_is_planted() {
    let places: Vec<String> = planted().into_iter().map(|planted| planted.place).collect();
    for profile in Profiles::builtin().iter() {
        let start = format!("{} ", profile.name);
        let is_fix = profile.name == "fix";
        assert!(is_fix || places.iter().any(|place| place.starts_with(&start)), "{start}");
    }
    assert!(places.len() > 100, "{}", places.len());
}
