//! Requests and responses of simulated calls, with credentials made from the numbers of their keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use monitor_core::call::{ApiCall, Key, KeyId, Outcome, Token};
use serde_json::{Map, Value};

/// What a customer of this number has for a key.
pub(super) fn credential(number: KeyId) -> String {
    format!("simulated-key-{:016x}", number.0)
}

/// The token of a login; without `token` only with what it is known by.
pub(super) fn web_token(number: KeyId, token: Option<&Token>) -> String {
    let known = Token::default();
    let token = token.unwrap_or(&known);
    let algorithm = token.algorithm.as_deref().unwrap_or("RS256");
    let issuer = token.issuer.as_deref().unwrap_or("id.example.com");
    let mut claims = Map::new();
    claims.insert("iss".into(), format!("https://{issuer}").into());
    claims.insert("sub".into(), credential(number).into());
    if !token.audience.is_empty() {
        let audience: Vec<Value> = token.audience.iter().map(|it| it.as_str().into()).collect();
        claims.insert("aud".into(), audience.into());
    }
    let client = token.client.as_deref().map(Value::from);
    let times = [("exp", token.expires), ("nbf", token.not_before), ("iat", token.issued)];
    let times = times.map(|(name, at)| (name, at.map(Value::from)));
    for (name, value) in [("client_id", client)].into_iter().chain(times) {
        claims.extend(value.map(|value| (name.to_owned(), value)));
    }
    let coded = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let header = coded(serde_json::json!({ "alg": algorithm, "typ": "JWT" }).to_string());
    let signature = if algorithm == "none" { "" } else { "c2ltdWxhdGVk" };
    format!("{header}.{}.{signature}", coded(Value::Object(claims).to_string()))
}

/// Whether a key shows itself by the token of a login.
pub(super) fn is_login(key: &Key) -> bool {
    key.profile == "jwt"
}

/// What a client says, without the name of the host.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// `None` of a call whose request was not seen.
pub(super) fn asked(call: &ApiCall) -> Option<Asked> {
    let request = call.request.as_ref()?;
    let mut headers = Vec::new();
    if let Some(agent) = &request.user_agent {
        headers.push(("User-Agent", agent.to_string()));
    }
    match &call.key {
        Some(key) if is_login(key) => {
            let token = web_token(key.id, call.token.as_deref());
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        Some(key) => headers.push(("X-MBX-APIKEY", credential(key.id))),
        None => {}
    }
    let target = target(call, &request.target);
    Some(Asked { method: request.method.to_string(), target, headers })
}

pub(super) fn request(call: &ApiCall) -> Vec<u8> {
    let (Some(request), Some(asked)) = (&call.request, asked(call)) else { return Vec::new() };
    let mut text = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    let mut header = |name: &str, value: &str| {
        text.push_str(&[name, ": ", value, "\r\n"].concat());
    };
    header("Host", request.host.as_deref().unwrap_or("api.example.com"));
    for (name, value) in &asked.headers {
        header(name, value);
    }
    if asked.method == "POST" {
        header("Content-Length", "0");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The target with a signature in it, and nothing that a request line cannot hold.
fn target(call: &ApiCall, target: &str) -> String {
    let signed = call.detail.as_ref().and_then(|detail| detail.signed.as_ref());
    let signature = signed.and_then(|signed| signed.fingerprint).map_or(0, |it| it.0);
    // As long as an HMAC-SHA-256; the same for a request that is sent again.
    let target = target.replace("[redacted]", &format!("{signature:016x}").repeat(4));
    let mut text = String::with_capacity(target.len());
    for c in target.chars() {
        match c {
            '<' | '>' | '{' | '}' | '"' | '`' | ' ' => {
                let _ = write!(text, "%{:02X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

pub(super) fn response(call: &ApiCall) -> Vec<u8> {
    let Some(response) = &call.response else { return Vec::new() };
    let status = response.status.unwrap_or(200);
    let mut body = match call.outcome {
        Some(Outcome::Ok) | None => "{\"data\":\"".to_owned(),
        Some(outcome) => format!("{{\"code\":{},\"msg\":\"", code(outcome)),
    };
    let bytes = usize::try_from(response.body_bytes).unwrap_or(usize::MAX);
    let room = bytes.saturating_sub(body.len() + 2);
    body.extend(std::iter::repeat_n('x', room));
    body.push_str("\"}");
    let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    if let Some(used) = response.quota.as_ref().and_then(|quota| quota.used) {
        let _ = write!(text, "X-MBX-USED-WEIGHT-1M: {used}\r\n");
    }
    text.push_str("\r\n");
    text.push_str(&body);
    text.into_bytes()
}

/// What Binance calls it (public error codes of its spot API).
fn code(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::BadKey | Outcome::IpDenied => -2015,
        Outcome::BadSignature => -1022,
        Outcome::Skew | Outcome::ReplayedNonce => -1021,
        Outcome::PermissionDenied | Outcome::MfaRequired | Outcome::Locked => -1002,
        Outcome::AddressNotAllowed => -4035,
        Outcome::Throttled | Outcome::Banned => -1003,
        Outcome::Error => -1013,
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        418 => "I'm a teapot",
        429 => "Too Many Requests",
        _ => "Bad Request",
    }
}
