//! What kind of thing a call does, read from its method and path.
//!
//! Public paths of the exchanges in common use were the model. What an exchange calls otherwise, its
//! profile says; this is for what no profile says.

use smallvec::SmallVec;

use super::percent;
use crate::call::Operation;

/// The operation. The most sensitive reading of a path that fits its method wins: reading a list of
/// withdrawals is a read, making one is not.
pub(super) fn classify(method: &str, raw_path: &[u8], has_key: bool) -> Operation {
    let words = Words::of(raw_path);
    let safe = matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE");
    let delete = method == "DELETE";
    // Below `private/` stand remote calls: Deribit's change things by GET, Kraken's read by POST.
    let reads = match (safe, words.has(PRIVATE)) {
        (true, true) => !words.has(VERB),
        (true, false) => true,
        (false, true) => words.has(READS),
        (false, false) => false,
    };
    let plain = if has_key { Operation::Read } else { Operation::Public };
    if reads {
        return if words.has(LOGIN) { Operation::Auth } else { plain };
    }
    if words.has(API_KEY) {
        Operation::KeyManagement
    } else if words.has(ADDRESS_BOOK) {
        Operation::AddressBook
    } else if words.has(WITHDRAW) {
        if words.has(LISTS) {
            plain
        } else if delete || words.has(CANCEL) {
            Operation::Cancel
        } else {
            Operation::Withdraw
        }
    } else if words.has(TRANSFER) {
        if words.has(LISTS) { plain } else { Operation::Transfer }
    } else if words.has(SUBACCOUNT) {
        Operation::Subaccount
    } else if words.has(CANCEL) || (delete && words.has(ORDER)) {
        Operation::Cancel
    } else if words.has(ORDER) && !words.has(LISTS) {
        Operation::Trade
    } else if words.has(LOGIN | TOKEN | FACTOR) {
        Operation::Auth
    } else {
        plain
    }
}

/// The operation of a message by the name of what it asks for. Names say themselves whether they
/// read; the last part says it: `allOrders`, `private/get_positions`, `order.status`.
pub(super) fn classify_message(name: &[u8], positional: bool, has_key: bool) -> Operation {
    let name: &[u8] = match name {
        b"on" | b"ou" | b"ox_multi" if positional => b"order",
        b"oc" | b"oc_multi" if positional => b"cancel",
        name => name,
    };
    let last = name.rsplit(|byte| b"/.:".contains(byte)).next().unwrap_or_default();
    let reads = ["get", "list", "query", "fetch", "all", "open", "my", "subscribe", "unsubscribe"]
        .iter()
        .any(|verb| match begins_with(last, verb) {
            // A word ends there: `allocate` is none of these.
            Some(rest) => rest.first().is_none_or(|next| !next.is_ascii_lowercase()),
            None => false,
        });
    let mut path: SmallVec<[u8; 64]> = SmallVec::from_slice(b"/");
    path.extend_from_slice(name);
    classify(if reads { "GET" } else { "POST" }, &path, has_key)
}

const API_KEY: u32 = 1 << 0;
const ADDRESS_BOOK: u32 = 1 << 1;
const WITHDRAW: u32 = 1 << 2;
const TRANSFER: u32 = 1 << 3;
const SUBACCOUNT: u32 = 1 << 4;
const CANCEL: u32 = 1 << 5;
const ORDER: u32 = 1 << 6;
const LOGIN: u32 = 1 << 7;
const TOKEN: u32 = 1 << 8;
/// The path asks for a list or a state, whatever the method.
const LISTS: u32 = 1 << 9;
/// A word that begins a reading remote call: `get_`, `Query…`.
const READS: u32 = 1 << 10;
const PRIVATE: u32 = 1 << 11;
/// A word that begins a changing remote call.
const VERB: u32 = 1 << 12;
/// A second factor. Reading about it is no login.
const FACTOR: u32 = 1 << 13;

const VERBS: &[&str] = &[
    "add_", "buy", "cancel", "change_", "close_", "convert", "create_", "delete_", "disable_",
    "edit", "enable_", "remove_", "reset_", "sell", "set_", "submit_", "toggle_",
];

/// The words found in a path, as bits.
struct Words(u32);

impl Words {
    fn of(raw_path: &[u8]) -> Words {
        if !raw_path.contains(&b'%') {
            return Words(scan(raw_path));
        }
        let decoded: SmallVec<[u8; 256]> = percent::decoded(raw_path).map(|(_, b)| b).collect();
        Words(scan(&decoded))
    }

    fn has(&self, any_of: u32) -> bool {
        self.0 & any_of != 0
    }
}

/// One pass: a byte that begins no word costs one jump.
fn scan(path: &[u8]) -> u32 {
    let mut found = remote_call(path);
    for at in 0..path.len() {
        if !begins_word(path[at], path.get(at + 1).copied().unwrap_or_default()) {
            continue;
        }
        let rest = &path[at..];
        let begins = at == 0 || !path[at - 1].is_ascii_alphanumeric();
        found |= match path[at] | 0x20 {
            b'2' if begins => part(rest, "2fa", FACTOR),
            b'a' => {
                bit(rest, "api~key", API_KEY)
                    | bit(rest, "address~book", ADDRESS_BOOK)
                    | bit(rest, "allow~list", ADDRESS_BOOK)
                    | bit(rest, "addorder", ORDER)
                    | if begins {
                        word(rest, "auth", LOGIN) | bit(rest, "authori", LOGIN)
                    } else {
                        0
                    }
            }
            b'b' if begins => word(rest, "buy", ORDER) | bit(rest, "batchorder", ORDER),
            b'c' => {
                bit(rest, "cancel", CANCEL)
                    | if begins { word(rest, "convert", ORDER) } else { 0 }
                    | bit(rest, "closedorders", READS)
            }
            b'f' if begins => bit(rest, "fido", FACTOR),
            b'g' if begins => bit(rest, "get", READS),
            b'h' => bit(rest, "history", LISTS | READS),
            b'i' => bit(rest, "iprestriction", API_KEY) | word(rest, "info", LISTS | READS),
            b'l' => {
                if begins {
                    bit(rest, "login", LOGIN)
                        | word(rest, "list", LISTS)
                        | bit(rest, "list_", READS)
                } else {
                    bit(rest, "logon", LOGIN)
                }
            }
            b'm' => {
                bit(rest, "methods", LISTS | READS)
                    | if begins { part(rest, "mfa", FACTOR) } else { 0 }
            }
            b'o' => {
                let book = bit(rest, "order~book", 1);
                let order = if book == 0 && (begins || path[at].is_ascii_uppercase()) {
                    bit(rest, "order", ORDER)
                } else {
                    0
                };
                let otp = if begins { part(rest, "otp", FACTOR) } else { 0 };
                order | otp | bit(rest, "oauth", LOGIN) | bit(rest, "openorders", READS)
            }
            b'p' if begins => bit(rest, "position", ORDER) | bit(rest, "passkey", FACTOR),
            b'q' => bit(rest, "query", READS),
            b'r' => bit(rest, "records", LISTS | READS),
            b's' => {
                bit(rest, "sub~account", SUBACCOUNT)
                    | bit(rest, "status", LISTS | READS)
                    | if begins {
                        bit(rest, "session", LOGIN)
                            | bit(rest, "sign~in", LOGIN)
                            | bit(rest, "step~up", FACTOR)
                            | word(rest, "sell", ORDER)
                    } else {
                        0
                    }
            }
            b't' => {
                bit(rest, "transfer", TRANSFER)
                    | if begins {
                        word(rest, "token", TOKEN)
                            | word(rest, "trade", ORDER)
                            | part(rest, "totp", FACTOR)
                            | part(rest, "tfa", FACTOR)
                            | bit(rest, "two~factor", FACTOR)
                    } else {
                        0
                    }
            }
            b'w' => {
                bit(rest, "withdraw", WITHDRAW)
                    | bit(rest, "whitelist", ADDRESS_BOOK)
                    | bit(rest, "withdrawaddresses", LISTS | READS)
                    | bit(rest, "webauthn", FACTOR)
            }
            _ => 0,
        };
    }
    found
}

/// The first two letters of every word above, as a bit set for each first letter: a word that is
/// added there begins here too.
const STARTS: [u32; 32] = {
    let pairs = b"apadalaububacoclcagehiipinlilomeoroaoppoqureststsusisetrtowiwhhi2ffimfotpatftwwe";
    let mut starts = [0; 32];
    let mut at = 0;
    while at < pairs.len() {
        starts[(pairs[at] & 31) as usize] |= 1 << (pairs[at + 1] & 31);
        at += 2;
    }
    starts
};

/// Whether two bytes may begin one of the words; some others pass too.
fn begins_word(first: u8, second: u8) -> bool {
    STARTS[usize::from(first & 31)] & (1 << (second & 31)) != 0
}

/// What follows `private/`, when something does.
fn remote_call(path: &[u8]) -> u32 {
    let Some(at) = path.windows(9).position(|w| w.eq_ignore_ascii_case(b"/private/")) else {
        return 0;
    };
    let call = &path[at + 9..];
    let changes = VERBS.iter().any(|verb| begins_with(call, verb).is_some())
        || word(call, "withdraw", VERB) != 0;
    if changes { PRIVATE | VERB } else { PRIVATE }
}

/// `value` when `text` begins with `pattern` in any case; `~` stands for a dash, an underscore or
/// nothing.
fn bit(text: &[u8], pattern: &str, value: u32) -> u32 {
    if begins_with(text, pattern).is_some() { value } else { 0 }
}

/// As [`bit`], but the word ends there.
fn word(text: &[u8], pattern: &str, value: u32) -> u32 {
    match begins_with(text, pattern) {
        Some(rest) if rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()) => value,
        Some(_) | None => 0,
    }
}

/// As [`word`], and a capital may follow: `otpVerify`, but no number that begins like it.
fn part(text: &[u8], pattern: &str, value: u32) -> u32 {
    let goes_on = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match begins_with(text, pattern) {
        Some(rest) if !rest.first().is_some_and(goes_on) => value,
        Some(_) | None => 0,
    }
}

fn begins_with<'a>(text: &'a [u8], pattern: &str) -> Option<&'a [u8]> {
    let mut text = text;
    for want in pattern.bytes() {
        match (want, text) {
            (b'~', [b'-' | b'_', rest @ ..]) => text = rest,
            (b'~', _) => {}
            (_, [byte, rest @ ..]) if byte.eq_ignore_ascii_case(&want) => text = rest,
            _ => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expect: Operation) {
        assert_eq!(classify(method, path.as_bytes(), true), expect, "{method} {path}");
    }

    #[test]
    fn binance_paths() {
        check("GET", "/api/v3/account", Operation::Read);
        check("POST", "/api/v3/order", Operation::Trade);
        check("DELETE", "/api/v3/openOrders", Operation::Cancel);
        check("POST", "/api/v3/order/cancelReplace", Operation::Cancel);
        check("POST", "/sapi/v1/capital/withdraw/apply", Operation::Withdraw);
        check("GET", "/sapi/v1/capital/withdraw/history", Operation::Read);
        check("POST", "/sapi/v1/asset/transfer", Operation::Transfer);
        check("POST", "/sapi/v1/sub-account/universalTransfer", Operation::Transfer);
        check("POST", "/sapi/v1/sub-account/virtualSubAccount", Operation::Subaccount);
        check("POST", "/sapi/v2/sub-account/subAccountApi/ipRestriction", Operation::KeyManagement);
        check("POST", "/api/v3/userDataStream", Operation::Read);
    }

    #[test]
    fn messages() {
        let check = |name: &str, positional, expect| {
            let seen = classify_message(name.as_bytes(), positional, true);
            assert_eq!(seen, expect, "{name}");
        };
        check("order.place", false, Operation::Trade);
        check("order.cancelReplace", false, Operation::Cancel);
        check("order.status", false, Operation::Read);
        check("openOrders.status", false, Operation::Read);
        check("openOrders.cancelAll", false, Operation::Cancel);
        check("allOrders", false, Operation::Read);
        check("orderList.place.oco", false, Operation::Trade);
        check("session.logon", false, Operation::Auth);
        check("private/buy", false, Operation::Trade);
        check("private/get_open_orders_by_currency", false, Operation::Read);
        check("private/withdraw", false, Operation::Withdraw);
        check("public/auth", false, Operation::Auth);
        check("get_orders", false, Operation::Read);
        check("order", false, Operation::Trade);
        check("batch-orders", false, Operation::Trade);
        check("amend-order", false, Operation::Trade);
        check("cancel-order", false, Operation::Cancel);
        check("order.create", false, Operation::Trade);
        check("add_order", false, Operation::Trade);
        check("spot.order_place", false, Operation::Trade);
        check("login", false, Operation::Auth);
        check("auth", false, Operation::Auth);
        check("SUBSCRIBE", false, Operation::Read);
        check("allocateOrder", false, Operation::Trade);
        check("on", true, Operation::Trade);
        check("oc_multi", true, Operation::Cancel);
        check("on", false, Operation::Read);
        check("", false, Operation::Read);
    }

    #[test]
    fn other_exchanges() {
        check("GET", "/api/v2/private/withdraw", Operation::Withdraw);
        check("GET", "/api/v2/private/get_withdrawals", Operation::Read);
        check("GET", "/api/v2/private/create_api_key", Operation::KeyManagement);
        check("GET", "/api/v2/private/add_to_address_book", Operation::AddressBook);
        check("GET", "/api/v2/private/buy", Operation::Trade);
        check("GET", "/api/private/orders", Operation::Read);
        check("GET", "/private/withdrawals", Operation::Read);
        check("GET", "/api/v2/public/auth", Operation::Auth);
        check("POST", "/0/private/Withdraw", Operation::Withdraw);
        check("POST", "/0/private/WithdrawStatus", Operation::Read);
        check("POST", "/0/private/AddOrder", Operation::Trade);
        check("POST", "/0/private/OpenOrders", Operation::Read);
        check("POST", "/0/private/CancelOrder", Operation::Cancel);
        check("POST", "/0/private/Balance", Operation::Read);
        check("POST", "/api/v5/asset/withdrawal", Operation::Withdraw);
        check("POST", "/api/v5/users/subaccount/modify-apikey", Operation::KeyManagement);
        check("POST", "/v5/asset/withdraw/create", Operation::Withdraw);
        check("POST", "/withdrawals/crypto", Operation::Withdraw);
        check("POST", "/address-book", Operation::AddressBook);
        check("DELETE", "/withdrawals/42", Operation::Cancel);
        check("POST", "/api/v1/user/requestWithdrawal", Operation::Withdraw);
        check("POST", "/v2/auth/w/order/submit", Operation::Trade);
        check("PUT", "/orders/7", Operation::Trade);
        check("DELETE", "/orders/7", Operation::Cancel);
        check("POST", "/oauth/token", Operation::Auth);
        check("POST", "/login", Operation::Auth);
        check("GET", "/tokens", Operation::Read);
        check("POST", "/authors", Operation::Read);
    }

    #[test]
    fn second_factors_are_logins_and_what_they_confirm_is_not() {
        for path in [
            "/mfa/verify",
            "/v1/2fa",
            "/auth/otp",
            "/user/totp:verify",
            "/webauthn/assertion/finish",
            "/passkeys/login/finish",
            "/account/two-factor/confirm",
            "/twoFactor",
            "/step-up",
            "/stepup",
            "/otpVerify",
            "/fido2/assertion/result",
            "/tfa",
        ] {
            check("POST", path, Operation::Auth);
        }
        check("GET", "/mfa/methods", Operation::Read);
        check("GET", "/webauthn/credentials", Operation::Read);
        check("POST", "/withdrawals/7/otp", Operation::Withdraw);
        check("POST", "/orders/2fa9c3", Operation::Trade);
        check("POST", "/notes/2fa9c3", Operation::Read);
        check("POST", "/options", Operation::Read);
        assert_eq!(classify_message(b"private/verify_otp", false, true), Operation::Auth);
    }

    #[test]
    fn encoding_and_case_hide_nothing() {
        check("POST", "/sapi/v1/capital/withd%72aw/apply", Operation::Withdraw);
        check("POST", "/WITHDRAWALS", Operation::Withdraw);
        check("POST", "/a/../Api_Keys/", Operation::KeyManagement);
    }

    #[test]
    fn without_a_key_reads_are_public() {
        assert_eq!(classify("GET", b"/api/v3/depth", false), Operation::Public);
        assert_eq!(classify("GET", b"/api/v3/orderbook", false), Operation::Public);
        assert_eq!(classify("POST", b"/withdraw", false), Operation::Withdraw);
        assert_eq!(classify("", b"", false), Operation::Public);
    }
}
