//! How a call ended, read from the status and the first bytes of the body.

use memchr::memmem;
use smallvec::SmallVec;

use super::Style;
use super::profile::{Profiles, Replies};
use crate::call::Outcome;
use crate::json::{Kind, Value};

/// Bytes of a body that are searched, whatever the caller kept.
const BODY_BYTES_MAX: usize = 512;

/// By the profile's codes and words; where they say nothing, by the status and words that are common.
pub(super) fn read(profiles: &Profiles, style: Style, status: u16, body: &[u8]) -> Outcome {
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    let replies = profiles.profile(style).map(|profile| &profile.replies);
    if status < 400 {
        let failed = replies.filter(|it| it.reads_good()).and_then(|it| failure(it, body));
        return failed.unwrap_or(Outcome::Ok);
    }
    let by_code = replies.and_then(|replies| {
        // A ban carries the code of the limit that led to it.
        let by_status = replies.status.iter().find(|(known, _)| *known == status);
        let by_code = || codes(replies, body).find_map(|code| by_code(replies, code));
        match by_status {
            Some((_, outcome)) if matches!(outcome, Outcome::Banned) => Some(*outcome),
            Some((_, outcome)) => by_code().or(Some(*outcome)),
            None => by_code().or_else(|| by_word(replies, body)),
        }
    });
    by_code.unwrap_or_else(|| generic(status, body))
}

/// What a body says that came with a good status; `None` when all went well.
pub(super) fn failure(replies: &Replies, body: &[u8]) -> Option<Outcome> {
    let value = Value::of(body)?;
    let failed = replies.failed.iter().any(|(member, bad)| {
        member.of(value).is_some_and(|it| it.whole && it.raw == bad.as_bytes())
    });
    if replies.ok.is_empty() && !failed {
        return None;
    }
    let mut found = None;
    for code in codes(replies, body) {
        if replies.ok.iter().any(|ok| ok.as_bytes() == code) && !failed {
            return None;
        }
        found = found.or(Some(Outcome::Error));
        if let Some(outcome) = by_code(replies, code) {
            return Some(outcome);
        }
    }
    if found.is_none() && !failed {
        return None;
    }
    by_word(replies, body).or_else(|| Some(by_words(body)))
}

/// Whether an answer names an error (JSON-RPC 2.0, 5; GraphQL of October 2021, 7.1.2).
pub(super) fn has_error(body: &[u8]) -> bool {
    let members = Value::of(body.trim_ascii_start()).into_iter().flat_map(|value| value.members());
    let mut errors = members.filter(|(name, _)| *name == b"error" || *name == b"errors");
    errors.any(|(_, error)| match error.kind {
        Kind::Object | Kind::Array | Kind::String => !error.is_empty(),
        Kind::Number | Kind::True => true,
        Kind::False | Kind::Null => false,
    })
}

/// How a message ended, from its reply. A status says it as in HTTP; where it says no more than that
/// it failed, or there is none, codes and words do.
pub(super) fn read_reply(
    profiles: &Profiles,
    style: Style,
    status: Option<u16>,
    failed: bool,
    body: &[u8],
) -> Outcome {
    let by_status = status.map_or(Outcome::Ok, |status| read(profiles, style, status, body));
    if by_status != Outcome::Error && (by_status != Outcome::Ok || !failed) {
        return by_status;
    }
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    if let Some(replies) = profiles.profile(style).map(|profile| &profile.replies)
        && let Some(outcome) = codes(replies, body).find_map(|code| by_code(replies, code))
    {
        return outcome;
    }
    let plain = || common_codes(body).find_map(|code| profiles.plain_code(code));
    match plain() {
        Some(outcome) => outcome,
        None => by_words(body),
    }
}

/// The codes in a body, the one that says most first; an empty list is an empty code.
fn codes<'b>(replies: &'b Replies, body: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    let value = Value::of(body);
    replies.code.iter().filter_map(move |member| {
        let value = member.of(value?)?;
        match value.kind {
            Kind::String | Kind::Number if value.whole => Some(value.raw),
            Kind::Array if value.is_empty() => Some(&b""[..]),
            Kind::String
            | Kind::Number
            | Kind::Array
            | Kind::Object
            | Kind::True
            | Kind::False
            | Kind::Null => None,
        }
    })
}

fn by_code(replies: &Replies, code: &[u8]) -> Option<Outcome> {
    let known = replies.codes.iter().find(|(known, _)| known.as_bytes() == code);
    known.map(|(_, outcome)| *outcome)
}

fn by_word(replies: &Replies, body: &[u8]) -> Option<Outcome> {
    if replies.words.is_empty() {
        return None;
    }
    let lower = Lower::of(body);
    replies.words.iter().find(|(word, _)| lower.has(word)).map(|(_, outcome)| *outcome)
}

/// Numbers that stand where most exchanges put their codes.
fn common_codes(body: &[u8]) -> impl Iterator<Item = &str> {
    let value = Value::of(body);
    let top = value.into_iter().flat_map(|value| value.members());
    let inner = value
        .into_iter()
        .flat_map(|value| value.members())
        .filter(|(name, _)| *name == b"error")
        .flat_map(|(_, value)| value.members());
    top.chain(inner)
        .filter(|(name, _)| *name == b"code")
        .filter_map(|(_, value)| std::str::from_utf8(value.scalar()?).ok())
}

/// Text in lower case, to be searched more than once.
struct Lower(SmallVec<[u8; BODY_BYTES_MAX]>);

impl Lower {
    fn of(body: &[u8]) -> Lower {
        let mut lower = SmallVec::from_slice(&body[..body.len().min(BODY_BYTES_MAX)]);
        lower.make_ascii_lowercase();
        Lower(lower)
    }

    fn has(&self, word: &str) -> bool {
        memmem::find(&self.0, word.as_bytes()).is_some()
    }

    /// As [`Lower::has`], between bytes that are neither letters nor digits: "ip" is not in "recipient".
    fn has_word(&self, word: &str) -> bool {
        let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        memmem::find_iter(&self.0, word.as_bytes()).any(|start| {
            let before = start.checked_sub(1).and_then(|at| self.0.get(at));
            is_edge(before) && is_edge(self.0.get(start + word.len()))
        })
    }

    fn mentions_mfa(&self) -> bool {
        self.has("2fa") || self.has("two_factor") || self.has_word("mfa") || self.has_word("otp")
    }
}

pub(super) fn by_words(body: &[u8]) -> Outcome {
    let lower = Lower::of(body);
    let has = |words: &[&str]| words.iter().any(|word| lower.has(word));
    if has(&["signature", "invalid sign"]) {
        Outcome::BadSignature
    } else if has(&["nonce"]) {
        Outcome::ReplayedNonce
    } else if has(&["timestamp", "recvwindow", "recv_window"]) {
        Outcome::Skew
    } else if has(&["too many", "rate limit", "rate_limit", "ratelimit", "too_many"]) {
        Outcome::Throttled
    } else if lower.mentions_mfa() {
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
    let lower = Lower::of(body);
    match status {
        401 if lower.has("signature") => Outcome::BadSignature,
        401 if lower.has("nonce") => Outcome::ReplayedNonce,
        401 if lower.has("timestamp") => Outcome::Skew,
        401 => Outcome::BadKey,
        402 | 403 if lower.mentions_mfa() => Outcome::MfaRequired,
        403 if lower.has_word("ip") => Outcome::IpDenied,
        403 if lower.has("address") || lower.has("whitelist") => Outcome::AddressNotAllowed,
        403 => Outcome::PermissionDenied,
        418 => Outcome::Banned,
        423 => Outcome::Locked,
        429 => Outcome::Throttled,
        _ => Outcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(style: &str, status: u16, body: &str) -> Outcome {
        let profiles = Profiles::builtin();
        let style = profiles.style(style).unwrap_or(Style::GENERIC);
        read(&profiles, style, status, body.as_bytes())
    }

    #[test]
    fn by_status_and_words() {
        let check = |status, body: &str, expect| {
            assert_eq!(outcome("", status, body), expect, "{status} {body}");
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
    fn remote_calls_fail_with_a_good_status() {
        let check = |style: &str, body: &str, expect| {
            let profiles = Profiles::builtin();
            let style = profiles.style(style).unwrap_or(Style::GENERIC);
            let failed = has_error(body.as_bytes());
            let seen = read_reply(&profiles, style, Some(200), failed, body.as_bytes());
            assert_eq!(seen, expect, "{body}");
        };
        check("", r#"{"data":{"me":{"id":1}}}"#, Outcome::Ok);
        check("", r#"{"data":{},"errors":[]}"#, Outcome::Ok);
        check("", r#"{"jsonrpc":"2.0","error":null,"result":{"error":{}}}"#, Outcome::Ok);
        check("", r#" {"errors":[{"message":"x"}],"data":null}"#, Outcome::Error);
        check("", r#"{"errors":[{"message":"permission denied"}]}"#, Outcome::PermissionDenied);
        check("", r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"x"}}"#, Outcome::Error);
        check(
            "",
            r#"{"error":{"code":-2014,"message":"API-key format invalid"}}"#,
            Outcome::BadKey,
        );
        check("deribit", r#"{"error":{"code":13004,"message":"x"}}"#, Outcome::BadKey);
        check("", "errors", Outcome::Ok);
    }

    #[test]
    fn by_binance_code() {
        let check = |status, body: &str, expect| {
            assert_eq!(outcome("binance", status, body), expect, "{status} {body}");
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
    fn good_statuses_hide_failures() {
        for (style, body, expect) in [
            ("okx", r#"{"code":"0","data":[],"msg":""}"#, Outcome::Ok),
            ("okx", r#"{"code":"50111","data":[],"msg":"Invalid OK-ACCESS-KEY"}"#, Outcome::BadKey),
            ("okx", r#"{"code":"50102","msg":"Timestamp request expired"}"#, Outcome::Skew),
            (
                "okx",
                r#"{"code":"1","data":[{"sCode":"60023","sMsg":"x"}],"msg":""}"#,
                Outcome::AddressNotAllowed,
            ),
            ("okx", r#"{"code":"51008","msg":"Insufficient balance"}"#, Outcome::Error),
            ("bybit", r#"{"retCode":0,"retMsg":"OK","result":{}}"#, Outcome::Ok),
            ("bybit", r#"{"retCode":10003,"retMsg":"x"}"#, Outcome::BadKey),
            ("bybit", r#"{"retCode":10010,"retMsg":"x"}"#, Outcome::IpDenied),
            ("kraken", r#"{"error":[],"result":{}}"#, Outcome::Ok),
            ("kraken", r#"{"error":["EAPI:Invalid nonce"]}"#, Outcome::ReplayedNonce),
            ("kraken", r#"{"error":["EGeneral:Temporary lockout"]}"#, Outcome::Locked),
            ("kraken", r#"{"error":["EOrder:Insufficient funds"]}"#, Outcome::Error),
            ("kraken-futures", r#"{"result":"success","serverTime":"x"}"#, Outcome::Ok),
            (
                "kraken-futures",
                r#"{"result":"error","error":"apiLimitExceeded"}"#,
                Outcome::Throttled,
            ),
            ("kucoin", r#"{"code":"200000","data":{}}"#, Outcome::Ok),
            ("kucoin", r#"{"code":"400005","msg":"Invalid KC-API-SIGN"}"#, Outcome::BadSignature),
            ("coinbase-advanced", r#"{"success":true,"error":""}"#, Outcome::Ok),
            ("coinbase-advanced", r#"{"success":false,"failure_reason":"X"}"#, Outcome::Error),
            ("bitfinex", r#"[[1,"exchange",2]]"#, Outcome::Ok),
            ("binance", r#"{"code":-1021}"#, Outcome::Ok),
            ("okx", "not json", Outcome::Ok),
            ("okx", r#"{"code":"501"#, Outcome::Ok),
        ] {
            assert_eq!(outcome(style, 200, body), expect, "{style} {body}");
        }
    }

    #[test]
    fn every_style_has_its_codes() {
        for (style, status, body, expect) in [
            ("okx", 401, r#"{"msg":"Invalid Sign","code":"50113"}"#, Outcome::BadSignature),
            ("okx", 429, r#"{"msg":"Too Many Requests","code":"50011"}"#, Outcome::Throttled),
            ("coinbase-exchange", 401, r#"{"message":"Invalid API Key"}"#, Outcome::BadKey),
            ("coinbase-exchange", 401, r#"{"message":"invalid signature"}"#, Outcome::BadSignature),
            (
                "coinbase-advanced",
                402,
                r#"{"errors":[{"id":"two_factor_required"}]}"#,
                Outcome::MfaRequired,
            ),
            ("bybit", 403, "", Outcome::IpDenied),
            ("deribit", 400, r#"{"error":{"code":13004,"message":"x"}}"#, Outcome::BadKey),
            ("deribit", 400, r#"{"error":{"message":"x","code":10028}}"#, Outcome::Throttled),
            ("bitfinex", 500, r#"["error",10100,"apikey: invalid"]"#, Outcome::BadKey),
            ("bitfinex", 500, r#"["error",10114,"nonce: small"]"#, Outcome::ReplayedNonce),
            ("bitfinex", 429, r#"["error",11010,"ratelimit: error"]"#, Outcome::Throttled),
            ("gate", 403, r#"{"label":"IP_FORBIDDEN","message":"x"}"#, Outcome::IpDenied),
            ("gate", 403, r#"{"label":"READ_ONLY"}"#, Outcome::PermissionDenied),
            (
                "bitmex",
                401,
                r#"{"error":{"message":"This key is disabled.","name":"HTTPError"}}"#,
                Outcome::BadKey,
            ),
            (
                "bitmex",
                401,
                r#"{"error":{"message":"Signature not valid.","name":"HTTPError"}}"#,
                Outcome::BadSignature,
            ),
            ("kucoin", 401, r#"{"code":"411100","msg":"locked"}"#, Outcome::Locked),
        ] {
            assert_eq!(outcome(style, status, body), expect, "{style} {status} {body}");
        }
    }

    #[test]
    fn replies() {
        let check = |status, failed, body: &str, expect| {
            let profiles = Profiles::builtin();
            let seen = read_reply(&profiles, Style::GENERIC, status, failed, body.as_bytes());
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
        assert_eq!(outcome("", 401, std::str::from_utf8(&body).unwrap()), Outcome::BadKey);
    }
}
