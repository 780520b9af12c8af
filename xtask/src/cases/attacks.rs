//! Captures that end in an alert, and one that must not.

use std::ops::Range;
use std::time::Duration;

use super::Case;
use super::capture::Link;
use super::conversation::{Conversation, interleave};
use super::http::{BINANCE_KEY, get, ok, reply, request};

const ACCOUNT: &str = "/api/v3/account?timestamp=1795464000000&signature=00112233445566778899aabb";
const WITHDRAW: &str =
    "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1&address=bc1qdemo&signature=";

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![stuffing(), stolen_key(), ordinary()]
}

/// One client tries 300 keys that the exchange does not know, within half a minute.
fn stuffing() -> Case {
    let mut talk = Conversation::between("192.0.2.66:40000", "198.51.100.5:8080");
    talk.open();
    for number in 0..300_u64 {
        // Keys that look random and are the same every time (Knuth's multiplicative hash).
        let key = format!("{:064x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        talk.ask(get(ACCOUNT, &format!("X-MBX-APIKEY: {key}\r\n")))
            .answer(reply("401 Unauthorized", r#"{"code":-2014,"msg":"API-key format invalid."}"#))
            .wait(Duration::from_millis(80));
    }
    talk.close();
    Case::new("attack-stuffing", talk.packets()).link(Link::Raw)
}

/// Ten minutes of ordinary orders, then the same key from elsewhere: a burst of orders and two
/// withdrawals that are refused.
fn stolen_key() -> Case {
    let mut owner = Conversation::between("203.0.113.9:51512", "198.51.100.5:8080");
    trade(owner.open(), 0..120, Duration::from_secs(5));
    owner.close();
    let mut thief = Conversation::between("192.0.2.200:44444", "198.51.100.5:8080")
        .numbered(5, 6)
        .at(Duration::from_secs(620));
    trade(thief.open(), 120..220, Duration::from_millis(10));
    for number in 220..222 {
        let refusal = r#"{"code":-1002,"msg":"You are not authorized to execute this request."}"#;
        thief
            .ask(request("POST", &format!("{WITHDRAW}{}", signature(number)), &key_line(), ""))
            .answer(reply("403 Forbidden", refusal));
    }
    thief.close();
    Case::new("attack-stolen-key", interleave(&[owner, thief])).link(Link::Raw)
}

/// An hour of one key at work, with a mistake now and then: nothing to report.
fn ordinary() -> Case {
    let mut owner = Conversation::between("203.0.113.9:51512", "198.51.100.5:8080");
    owner.open();
    for hour_part in 0..6 {
        let orders = 20 * hour_part..20 * (hour_part + 1);
        trade(&mut owner, orders, Duration::from_secs(30));
        let mistake = r#"{"code":-1121,"msg":"Invalid symbol."}"#;
        owner
            .ask(get("/api/v3/ticker/price?symbol=NOPE", &key_line()))
            .answer(reply("400 Bad Request", mistake));
    }
    owner.close();
    Case::new("quiet-hour", owner.packets()).link(Link::Raw)
}

/// Orders by number, each signed for itself.
fn trade(talk: &mut Conversation, orders: Range<u64>, pause: Duration) {
    for number in orders {
        let target = format!(
            "/api/v3/order?symbol=BTCUSDT&side=BUY&quantity=0.{:03}&signature={}",
            number % 7 + 1,
            signature(number)
        );
        talk.ask(request("POST", &target, &key_line(), ""))
            .answer(ok(r#"{"orderId":1}"#))
            .wait(pause);
    }
}

/// Made up, and another for each request.
fn signature(number: u64) -> String {
    format!("{:016x}", (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn key_line() -> String {
    format!("X-MBX-APIKEY: {BINANCE_KEY}\r\n")
}
