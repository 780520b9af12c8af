//! What a message says of itself: which it is, what it asks, which one it answers, on what channel.
//!
//! Exchanges write JSON of many styles with the same few members in other spellings. Where a member
//! comes twice the last one counts, as in most parsers.

use smallvec::SmallVec;

use crate::json::{Kind, Names, Value, unescape};

/// Bytes of an id; the longest in use are UUIDs with a prefix.
const ID_BYTES_MAX: usize = 64;

/// Requests of a batch that are looked at.
pub(super) const BATCH_MAX: usize = 16;

/// Bytes of a bare word: `ping`.
const WORD_BYTES_MAX: usize = 16;

/// What tells a message from others: a number or a string, which are not the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Id(SmallVec<[u8; 24]>);

/// A message, looked into.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Said<'t> {
    id: Option<(u8, Value<'t>)>,
    name: Option<(u8, &'t [u8])>,
    /// The name of the channel, by one of its own members.
    channel: Option<&'t [u8]>,
    pub(super) number: Option<i64>,
    pub(super) params: Option<Value<'t>>,
    /// All of it, where it is an object.
    whole: Option<Value<'t>>,
    /// Of that, two members have one name.
    repeats: bool,
    channels: Option<Value<'t>>,
    symbol: Option<&'t [u8]>,
    error: Option<Value<'t>>,
    success: Option<Value<'t>>,
    code: Option<i64>,
    status: Option<Value<'t>>,
    result: bool,
    /// An array: `[0,"on",null,{}]`.
    pub(super) positional: bool,
}

impl<'t> Said<'t> {
    /// Of a message's first bytes. `glance`: the channel is all that is wanted.
    pub(super) fn read(text: &'t [u8], glance: bool) -> Said<'t> {
        let text = text.trim_ascii_start();
        // Socket.IO puts a number before its arrays.
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = match text.get(digits) {
            Some(b'[' | b'{') if digits <= 4 => &text[digits..],
            Some(_) | None => text,
        };
        match text.first() {
            Some(b'{') => Said::object(text, glance),
            Some(b'[') => Said::array(text),
            Some(_) if text.len() <= WORD_BYTES_MAX => Said::word(text),
            Some(_) | None => Said::default(),
        }
    }

    /// Every request of a batch, or the message itself.
    pub(super) fn each(text: &'t [u8]) -> SmallVec<[Said<'t>; 1]> {
        let first = Said::read(text, false);
        if !first.positional {
            return [first].into_iter().collect();
        }
        let Some(array) = Value::of(text) else { return [first].into_iter().collect() };
        let batch: SmallVec<[Said<'t>; 1]> = array
            .elements()
            .take(BATCH_MAX)
            .take_while(|element| element.kind == Kind::Object)
            .map(|element| Said::object(element.raw, false))
            .collect();
        if batch.is_empty() { [first].into_iter().collect() } else { batch }
    }

    fn word(text: &'t [u8]) -> Said<'t> {
        let word = text.trim_ascii();
        let plain = !word.is_empty() && word.iter().all(u8::is_ascii_alphabetic);
        Said { name: plain.then_some((0, word)), ..Said::default() }
    }

    fn object(text: &'t [u8], glance: bool) -> Said<'t> {
        let mut said = Said::default();
        let Some(object) = Value::of(text) else { return said };
        said.whole = Some(object);
        let mut names = Names::default();
        for (name, value) in object.members() {
            if !glance {
                names.add(name);
            }
            if name.contains(&b'\\') {
                said.member(&unescape(name), value);
            } else {
                said.member(name, value);
            }
            if glance && said.channel.is_some() {
                break;
            }
        }
        said.repeats = names.repeats;
        said
    }

    /// `[0,"on",null,{…}]`, `[340,{…},"ticker","XBT/USD"]`, `["event",{…}]`.
    fn array(text: &'t [u8]) -> Said<'t> {
        let mut said = Said { positional: true, ..Said::default() };
        let Some(array) = Value::of(text) else { return said };
        for (at, element) in array.elements().take(5).enumerate() {
            match element.kind {
                Kind::Number if at == 0 => said.number = element.integer(),
                Kind::String if said.name.is_none() => {
                    said.name = element.string().map(|name| (0, name));
                }
                Kind::Object if said.params.is_none() => said.params = Some(element),
                Kind::Array if said.name.is_some_and(|(_, name)| name == b"n") => {
                    said.notification(element);
                }
                Kind::Number
                | Kind::String
                | Kind::Object
                | Kind::Array
                | Kind::True
                | Kind::False
                | Kind::Null => {}
            }
        }
        said
    }

    /// Bitfinex's answer to an order: `[time,"on-req",…,"SUCCESS",text]`.
    fn notification(&mut self, element: Value<'t>) {
        for (at, value) in element.elements().take(7).enumerate() {
            match (at, value.string()) {
                (1, Some(name)) => self.name = Some((0, name)),
                (6, Some(_)) => self.status = Some(value),
                _ => {}
            }
        }
    }

    fn member(&mut self, name: &[u8], value: Value<'t>) {
        let (text, inner) = (value.string(), value);
        match name {
            b"id" => self.identify(0, inner),
            b"req_id" | b"reqid" | b"reqId" | b"request_id" | b"requestId" | b"cid"
            | b"clientId" => {
                self.identify(1, inner);
            }
            b"method" => self.call(0, text),
            b"op" => self.call(1, text),
            b"operation" | b"action" => self.call(2, text),
            b"event" => self.call(3, text),
            b"type" | b"cmd" | b"command" | b"request" => self.call(4, text),
            b"e" => self.call(5, text),
            // HTX names the channel where others name the operation.
            b"sub" | b"unsub" | b"subbed" | b"unsubbed" | b"req" | b"rep" if text.is_some() => {
                self.channel = text;
                self.call(
                    0,
                    Some(match name {
                        b"sub" => b"sub",
                        b"unsub" => b"unsub",
                        b"subbed" => b"subbed",
                        b"unsubbed" => b"unsubbed",
                        b"req" => b"req",
                        _ => b"rep",
                    }),
                );
            }
            b"stream" | b"topic" | b"channel" | b"ch" | b"table" | b"channelName" => {
                self.channel = text.or(self.channel);
            }
            b"chanId" | b"channelID" => self.number = inner.integer(),
            b"arg" | b"subscription" => self.arg(inner, true),
            b"params" | b"args" | b"payload" => {
                self.params = Some(inner);
                if inner.kind == Kind::Object {
                    self.arg(inner, false);
                }
            }
            b"channels" | b"topics" | b"streams" => self.channels = Some(inner),
            b"error" | b"err" | b"errorMessage" | b"err-msg" | b"errors" => {
                self.error = Some(inner)
            }
            b"success" => self.success = Some(inner),
            b"code" | b"ret_code" | b"retCode" => self.code = inner.integer(),
            b"status" => self.status = Some(inner),
            b"result" | b"header" => self.result = true,
            b"symbol" | b"instId" | b"instrument_name" | b"instrument" | b"product_id"
            | b"pair" | b"market" => self.symbol = first_text(inner).or(self.symbol),
            _ => {}
        }
    }

    /// The channel, where an object of its own names it.
    fn arg(&mut self, value: Value<'t>, of_channel: bool) {
        for (name, value) in value.members() {
            match name {
                b"channel" | b"topic" => self.channel = self.channel.or(value.string()),
                b"name" if of_channel => self.channel = self.channel.or(value.string()),
                b"req_id" | b"reqid" => self.identify(2, value),
                b"channels" => self.channels = self.channels.or(Some(value)),
                // What is named is named at the beginning; what follows may be long.
                b"data" | b"result" => break,
                _ => {}
            }
        }
    }

    fn identify(&mut self, rank: u8, value: Value<'t>) {
        let is_id = match value.kind {
            Kind::String => value.whole && !value.raw.is_empty(),
            Kind::Number => value.whole,
            Kind::True | Kind::False | Kind::Null | Kind::Object | Kind::Array => false,
        };
        let first = self.id.is_none_or(|(known, _)| rank <= known);
        if is_id && first && value.raw.len() <= ID_BYTES_MAX {
            self.id = Some((rank, value));
        }
    }

    fn call(&mut self, rank: u8, name: Option<&'t [u8]>) {
        let first = self.name.is_none_or(|(known, _)| rank <= known);
        if first && let Some(name) = name.filter(|name| !name.is_empty()) {
            self.name = Some((rank, name));
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> Option<Id> {
        let (_, value) = self.id?;
        let mark = if value.kind == Kind::String { b'"' } else { b'#' };
        Some(Id(std::iter::once(mark).chain(value.raw.iter().copied()).collect()))
    }

    /// What it asks for, or what it is.
    pub(super) fn name(&self) -> Option<&'t [u8]> {
        let (_, name) = self.name?;
        // Gate names the call in the channel.
        if name == b"api" { self.channel.or(Some(name)) } else { Some(name) }
    }

    /// The channel on which it is pushed, or which it is about.
    pub(super) fn channel(&self) -> Option<&'t [u8]> {
        self.channel
    }

    /// The channels that it asks for.
    pub(super) fn each_channel(&self, mut take: impl FnMut(&'t [u8])) {
        let lists = [self.channels, self.params].into_iter().flatten();
        let mut listed = false;
        for element in lists.flat_map(|list| list.elements()) {
            let named = |name: &[u8]| matches!(name, b"channel" | b"name" | b"topic");
            let name = element.string().or_else(|| {
                element.members().find(|(name, _)| named(name)).and_then(|(_, it)| it.string())
            });
            listed |= name.is_some();
            name.into_iter().for_each(&mut take);
        }
        if !listed {
            self.channel.into_iter().for_each(take);
        }
    }

    /// What its parameters are called: members of what it gives as such, of the first in a list of them, or
    /// else its own.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &'t [u8]> {
        let listed = |params: Value<'t>| match params.kind {
            Kind::Object => Some(params),
            Kind::Array => params.elements().find(|element| element.kind == Kind::Object),
            Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => None,
        };
        let holder = self.params.and_then(listed).or(self.whole);
        holder.into_iter().flat_map(|holder| holder.members()).map(|(name, _)| name)
    }

    /// Whether it, or what it gives, has two members of one name.
    pub(super) fn repeats(&self) -> bool {
        let orders = self.params.into_iter().flat_map(|params| params.elements().take(BATCH_MAX));
        self.repeats || self.params.into_iter().chain(orders).any(|object| object.repeats())
    }

    /// The instrument, where a member of the message itself names it.
    pub(super) fn symbol(&self) -> Option<&'t [u8]> {
        self.symbol
    }

    /// A status code in it.
    pub(super) fn status(&self) -> Option<u16> {
        let code = self.status.filter(|value| value.kind == Kind::Number)?.integer()?;
        u16::try_from(code).ok().filter(|code| (100..600).contains(code))
    }

    /// It says how something went.
    pub(super) fn is_verdict(&self) -> bool {
        self.result
            || self.error.is_some()
            || self.success.is_some()
            || self.code.is_some()
            || self.status.is_some()
    }

    /// It is an answer and nothing else.
    pub(super) fn is_answer(&self) -> bool {
        (self.result || self.error.is_some()) && self.id.is_some() && self.channel.is_none()
    }

    /// It says that something went wrong.
    pub(super) fn failed(&self) -> bool {
        let word = self.status.and_then(|value| value.string()).unwrap_or_default();
        let bad = |bad: &&str| word.eq_ignore_ascii_case(bad.as_bytes());
        self.error.is_some_and(|value| !value.is_empty())
            || self.success.is_some_and(|value| value.kind == Kind::False)
            || self.code.is_some_and(|code| !matches!(code, 0 | 200 | 200_000))
            || self.status().is_some_and(|status| status >= 400)
            || ["error", "err", "fail", "failed", "failure", "rejected"].iter().any(bad)
            || self.name.is_some_and(|(_, name)| name == b"error")
    }
}

/// A string, or the first of a list.
fn first_text<'t>(value: Value<'t>) -> Option<&'t [u8]> {
    value.string().or_else(|| value.elements().next()?.string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, id, channels, whether it is a verdict, whether it failed.
    fn check(text: &str, name: &str, id: &str, channels: &[&str], verdict: bool, failed: bool) {
        let said = Said::read(text.as_bytes(), false);
        let show =
            |raw: Option<&[u8]>| String::from_utf8_lossy(raw.unwrap_or_default()).into_owned();
        let mut seen = Vec::new();
        said.each_channel(|channel| seen.push(show(Some(channel))));
        let id_seen = said.id().map(|id| show(Some(&id.0))).unwrap_or_default();
        assert_eq!((show(said.name()).as_str(), id_seen.as_str()), (name, id), "{text}");
        assert_eq!(seen, channels, "{text}");
        assert_eq!((said.is_verdict(), said.failed()), (verdict, failed), "{text}");
    }

    #[test]
    fn requests_of_exchanges() {
        let ask = |text, name, id, channels: &[&str]| check(text, name, id, channels, false, false);
        ask(
            r#"{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","btcusdt@depth"],"id":1}"#,
            "SUBSCRIBE",
            "#1",
            &["btcusdt@aggTrade", "btcusdt@depth"],
        );
        ask(
            r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}"#,
            "subscribe",
            "",
            &["tickers"],
        );
        ask(
            r#"{"op":"subscribe","args":["orderbook.1.BTCUSDT"]}"#,
            "subscribe",
            "",
            &["orderbook.1.BTCUSDT"],
        );
        ask(
            r#"{"type":"subscribe","product_ids":["ETH-USD"],"channels":["level2",{"name":"ticker","product_ids":["ETH-BTC"]}]}"#,
            "subscribe",
            "",
            &["level2", "ticker"],
        );
        ask(
            r#"{"method":"subscribe","params":{"channel":"ticker","symbol":["ALGO/USD"]},"req_id":1}"#,
            "subscribe",
            "#1",
            &["ticker"],
        );
        ask(
            r#"{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"ohlc","interval":5},"reqid":3}"#,
            "subscribe",
            "#3",
            &["ohlc"],
        );
        ask(
            r#"{"sub":"market.btcusdt.kline.1min","id":"id1"}"#,
            "sub",
            "\"id1",
            &["market.btcusdt.kline.1min"],
        );
        ask(
            r#"{"time":1,"channel":"spot.order_place","event":"api","payload":{"req_id":"r1","req_param":{}}}"#,
            "spot.order_place",
            "\"r1",
            &["spot.order_place"],
        );
        ask(
            r#"{"jsonrpc":"2.0","id":5,"method":"private/buy","params":{"instrument_name":"ETH-PERPETUAL"}}"#,
            "private/buy",
            "#5",
            &[],
        );
        ask(r#"[0,"on",null,{"cid":12345}]"#, "on", "", &[]);
        ask(r#"42["order",{"id":4}]"#, "order", "", &[]);
        ask("ping", "ping", "", &[]);
        ask(r#"{"m\u0065thod":"private\/withdraw"}"#, r"private\/withdraw", "", &[]);
        ask(r#"{"id":null,"reqid":""}"#, "", "", &[]);
        ask("free text of any length", "", "", &[]);
        ask("", "", "", &[]);
    }

    #[test]
    fn replies_of_exchanges() {
        let told = |text, name, id, channels: &[&str], failed| {
            check(text, name, id, channels, true, failed);
        };
        told(r#"{"result":null,"id":1}"#, "", "#1", &[], false);
        told(r#"{"id":"e2a","status":200,"result":{},"rateLimits":[]}"#, "", "\"e2a", &[], false);
        told(
            r#"{"id":"e2a","status":400,"error":{"code":-2010,"msg":"x"}}"#,
            "",
            "\"e2a",
            &[],
            true,
        );
        told(
            r#"{"success":true,"ret_msg":"","op":"subscribe","req_id":""}"#,
            "subscribe",
            "",
            &[],
            false,
        );
        told(r#"{"event":"error","code":"60012","msg":"Invalid"}"#, "error", "", &[], true);
        told(r#"{"jsonrpc":"2.0","id":9,"result":[],"usIn":1,"usOut":2}"#, "", "#9", &[], false);
        told(
            r#"{"errorMessage":"bad","event":"subscriptionStatus","status":"error"}"#,
            "subscriptionStatus",
            "",
            &[],
            true,
        );
        told(
            r#"[0,"n",[1,"on-req",null,null,[1],null,"ERROR","Invalid price"]]"#,
            "on-req",
            "",
            &[],
            true,
        );
        let said = Said::read(br#"{"id":"a","status":429}"#, false);
        assert_eq!(said.status(), Some(429));
        let said = Said::read(br#"{"id":"a","status":"NEW"}"#, false);
        assert_eq!((said.status(), said.is_answer()), (None, false));
    }

    #[test]
    fn pushes_name_their_channel() {
        let check = |text: &str, expected: &str| {
            for glance in [false, true] {
                let said = Said::read(text.as_bytes(), glance);
                let channel = said.channel().or(said.name()).unwrap_or_default();
                assert_eq!(String::from_utf8_lossy(channel), expected, "{text}");
            }
        };
        check(r#"{"stream":"btcusdt@trade","data":{"e":"trade"}}"#, "btcusdt@trade");
        check(r#"{"e":"aggTrade","E":1,"s":"BTCUSDT"}"#, "aggTrade");
        check(r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{}]}"#, "tickers");
        check(r#"{"topic":"orderbook.50.BTCUSDT","type":"snapshot"}"#, "orderbook.50.BTCUSDT");
        check(r#"{"type":"ticker","product_id":"BTC-USD"}"#, "ticker");
        check(r#"{"channel":"ticker","type":"update","data":[]}"#, "ticker");
        check(
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC","data":[]}}"#,
            "trades.BTC",
        );
        check(r#"[340,{"a":1},"ticker","XBT/USD"]"#, "ticker");
        check(r#"{"table":"trade","action":"insert"}"#, "trade");
        check(r#"{"ch":"market.btcusdt","tick":{}}"#, "market.btcusdt");
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let text = br#"[{"method":"a","id":1},{"method":"b","id":2},7]"#;
        let names: Vec<_> = Said::each(text).iter().map(|said| said.name().unwrap()).collect();
        assert_eq!(names, [b"a", b"b"]);
        assert_eq!(Said::each(b"[1,2]").len(), 1);
    }
}
