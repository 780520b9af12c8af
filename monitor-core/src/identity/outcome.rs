//! How a call ended, read from the status and the first bytes of the body.

use super::Style;
use crate::call::Outcome;

/// Bytes of a body that are searched, whatever the caller kept.
const BODY_BYTES_MAX: usize = 512;

/// Below 400 it went well. Styles that report failures with status 200 need a profile that says so.
pub(super) fn read(style: Style, status: u16, body: &[u8]) -> Outcome {
    if status < 400 {
        return Outcome::Ok;
    }
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    let by_code = match style {
        Style::Generic => None,
        // A ban carries the code of the limit that led to it.
        Style::Binance if status == 418 => None,
        Style::Binance => binance(body),
    };
    by_code.unwrap_or_else(|| generic(status, body))
}

/// How a message ended, from its reply. A status says it as in HTTP; where it says no more than that
/// it failed, or there is none, codes and words do.
pub(super) fn read_reply(style: Style, status: Option<u16>, failed: bool, body: &[u8]) -> Outcome {
    let by_status = status.map_or(Outcome::Ok, |status| read(style, status, body));
    if by_status != Outcome::Error && (by_status != Outcome::Ok || !failed) {
        return by_status;
    }
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    binance(body).unwrap_or_else(|| by_words(body))
}

fn by_words(body: &[u8]) -> Outcome {
    let has = |words: &[&str]| words.iter().any(|word| contains(body, word));
    if has(&["signature", "invalid sign"]) {
        Outcome::BadSignature
    } else if has(&["nonce"]) {
        Outcome::ReplayedNonce
    } else if has(&["timestamp", "recvwindow", "recv_window"]) {
        Outcome::Skew
    } else if has(&["too many", "rate limit", "rate_limit", "ratelimit", "too_many"]) {
        Outcome::Throttled
    } else if mentions_mfa(body) {
        Outcome::MfaRequired
    } else if has(&["api key", "api-key", "apikey", "api_key", "credential", "unauthorized"]) {
        Outcome::BadKey
    } else if has(&["permission", "forbidden", "not allowed"]) {
        Outcome::PermissionDenied
    } else {
        Outcome::Error
    }
}

fn generic(status: u16, body: &[u8]) -> Outcome {
    match status {
        401 if contains(body, "signature") => Outcome::BadSignature,
        401 if contains(body, "nonce") => Outcome::ReplayedNonce,
        401 if contains(body, "timestamp") => Outcome::Skew,
        401 => Outcome::BadKey,
        402 | 403 if mentions_mfa(body) => Outcome::MfaRequired,
        403 if contains_word(body, "ip") => Outcome::IpDenied,
        403 if contains(body, "address") || contains(body, "whitelist") => {
            Outcome::AddressNotAllowed
        }
        403 => Outcome::PermissionDenied,
        418 => Outcome::Banned,
        423 => Outcome::Locked,
        429 => Outcome::Throttled,
        _ => Outcome::Error,
    }
}

fn mentions_mfa(body: &[u8]) -> bool {
    contains(body, "2fa")
        || contains(body, "two_factor")
        || contains_word(body, "mfa")
        || contains_word(body, "otp")
}

/// By Binance's error code, where it says more than the status. -2015 covers key, address and
/// permission alike and its text names all three ("Invalid API-key, IP, or permissions for
/// action"): it is read as `bad_key`, the commonest of them.
fn binance(body: &[u8]) -> Option<Outcome> {
    match code(body)? {
        -1003 | -1015 => Some(Outcome::Throttled),
        -1021 => Some(Outcome::Skew),
        -1022 => Some(Outcome::BadSignature),
        -1002 => Some(Outcome::PermissionDenied),
        -2008 | -2014 | -2015 => Some(Outcome::BadKey),
        -4035 => Some(Outcome::AddressNotAllowed),
        _ => None,
    }
}

/// The number after `"code":`.
fn code(body: &[u8]) -> Option<i32> {
    let at = find(body, "\"code\"")?;
    let rest = body[at + 6..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let len = rest.iter().take_while(|byte| **byte == b'-' || byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..len]).ok()?.parse().ok()
}

fn contains(body: &[u8], lower: &str) -> bool {
    find(body, lower).is_some()
}

/// As [`contains`], between bytes that are neither letters nor digits: "ip" is not in "recipient".
fn contains_word(body: &[u8], lower: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let mut from = 0;
    while let Some(found) = find(&body[from..], lower) {
        let start = from + found;
        let before = start.checked_sub(1).and_then(|at| body.get(at));
        if is_edge(before) && is_edge(body.get(start + lower.len())) {
            return true;
        }
        from = start + 1;
    }
    false
}

fn find(body: &[u8], lower: &str) -> Option<usize> {
    body.windows(lower.len()).position(|window| window.eq_ignore_ascii_case(lower.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_status_and_words() {
        let check = |status, body: &str, expect| {
            assert_eq!(read(Style::Generic, status, body.as_bytes()), expect, "{status} {body}");
        };
        check(200, "signature", Outcome::Ok);
        check(302, "", Outcome::Ok);
        check(400, "", Outcome::Error);
        check(401, "", Outcome::BadKey);
        check(401, "Invalid SIGNATURE", Outcome::BadSignature);
        check(401, "invalid nonce", Outcome::ReplayedNonce);
        check(402, "two_factor_required", Outcome::MfaRequired);
        check(403, "", Outcome::PermissionDenied);
        check(403, "IP not allowed", Outcome::IpDenied);
        check(403, r#"{"error":"ip_denied"}"#, Outcome::IpDenied);
        check(403, "multiple recipients", Outcome::PermissionDenied);
        check(403, "2FA required", Outcome::MfaRequired);
        check(403, "withdrawal address not on whitelist", Outcome::AddressNotAllowed);
        check(418, "", Outcome::Banned);
        check(423, "", Outcome::Locked);
        check(429, "", Outcome::Throttled);
        check(500, "", Outcome::Error);
        check(u16::MAX, "", Outcome::Error);
    }

    #[test]
    fn by_binance_code() {
        let check = |status, body: &str, expect| {
            assert_eq!(read(Style::Binance, status, body.as_bytes()), expect, "{status} {body}");
        };
        check(400, r#"{"code":-1021,"msg":"ahead of the server's time"}"#, Outcome::Skew);
        check(400, r#"{"code": -1022}"#, Outcome::BadSignature);
        check(400, r#"{"code":-1003}"#, Outcome::Throttled);
        check(418, r#"{"code":-1003}"#, Outcome::Banned);
        check(401, r#"{"code":-2015,"msg":"Invalid API-key, IP, or …"}"#, Outcome::BadKey);
        check(400, r#"{"code":"-4035"}"#, Outcome::AddressNotAllowed);
        check(400, r#"{"code":-1100}"#, Outcome::Error);
        check(429, "", Outcome::Throttled);
        check(400, r#"{"code":999999999999}"#, Outcome::Error);
        check(400, r#""code"#, Outcome::Error);
    }

    #[test]
    fn replies() {
        let check = |status, failed, body: &str, expect| {
            let seen = read_reply(Style::Generic, status, failed, body.as_bytes());
            assert_eq!(seen, expect, "{body}");
        };
        check(None, false, r#"{"id":1,"result":"signature"}"#, Outcome::Ok);
        check(Some(200), false, "", Outcome::Ok);
        check(Some(429), true, "", Outcome::Throttled);
        check(Some(400), true, r#"{"status":400,"error":{"code":-1021}}"#, Outcome::Skew);
        check(Some(400), true, r#"{"status":400,"error":{}}"#, Outcome::Error);
        check(Some(200), true, r#"{"status":200,"error":"nonce"}"#, Outcome::ReplayedNonce);
        check(None, true, r#"{"id":1,"error":{"code":-1022,"msg":"x"}}"#, Outcome::BadSignature);
        check(None, true, r#"{"event":"error","msg":"Invalid sign"}"#, Outcome::BadSignature);
        check(
            None,
            true,
            r#"{"error":{"code":10028,"message":"too_many_requests"}}"#,
            Outcome::Throttled,
        );
        check(
            None,
            true,
            r#"{"error":{"code":13004,"message":"invalid_credentials"}}"#,
            Outcome::BadKey,
        );
        check(None, true, r#"{"success":false,"ret_msg":"error:request expired"}"#, Outcome::Error);
    }

    #[test]
    fn the_search_is_bounded() {
        let mut body = vec![b' '; BODY_BYTES_MAX];
        body.extend_from_slice(b"signature");
        assert_eq!(read(Style::Generic, 401, &body), Outcome::BadKey);
    }
}
