//! What the beginning of a request body, or of a message, says: a form or JSON.
//!
//! A body is told by its first bytes and walked once, two levels deep; of what is longer than
//! [`BODY_BYTES_MAX`] the beginning counts.

use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::credential::{self, Form, Keyring, Named};
use super::grant::{self, Grant, Parameters};
use super::graphql::Document;
use super::profile::{Parameter, Place, Source};
use super::{
    Identified, Identifier, OBJECT_IDS_MAX, Style, fields, operation, payload, percent, target,
};
use crate::call::{
    Anomalies, Detail, Key, OAuth, Operation, PARAMETERS_MAX, Request, Signed, Token,
};
use crate::json::{Kind, Names, Value};
use crate::plain::plain;

/// Bytes of a body that are looked at: four times a large order, and most of a batch.
pub(crate) const BODY_BYTES_MAX: usize = 4096;

/// Parameters or members of one level that are looked at: ten times what orders have.
const MEMBERS_MAX: usize = 128;

/// Orders of a batch that are looked into; all that are seen are counted.
const ORDERS_MAX: usize = 16;

/// A key that a message holds.
pub(crate) struct MessageKey {
    /// Who asks.
    pub(crate) key: Key,
    /// What its token says.
    pub(crate) token: Option<Arc<Token>>,
    /// It is the connection's from then on.
    pub(crate) stays: bool,
    /// Its style.
    pub(crate) style: Style,
}

/// What a walk finds.
#[derive(Default)]
struct Found {
    symbol: Option<CompactString>,
    object_ids: Vec<CompactString>,
    account: Option<CompactString>,
    amount: Option<CompactString>,
    parts: u32,
    name: Option<CompactString>,
    signed: Signed,
    /// An order in a list, or an object below the top, has two members of one name.
    repeats: bool,
    /// What the fields at the top are called.
    fields: fields::Named,
    /// One of them is of a request of OAuth 2.0.
    is_grant: bool,
    /// What it names of OAuth 2.0.
    oauth: Option<Box<OAuth>>,
}

impl Identifier {
    /// Adds what a request's body says to what its head said. `text` is its beginning.
    pub fn read_body(&self, request: &Request, identified: &mut Identified, text: &[u8]) {
        let text = text[..text.len().min(BODY_BYTES_MAX)].trim_ascii_start();
        if let Some(payload) = payload::of_body(text) {
            let detail = identified.detail.get_or_insert_with(Box::<Detail>::default);
            detail.payload = detail.payload.or(Some(payload));
        }
        match text.first() {
            Some(b'{' | b'[') => self.read_json_body(request, identified, text),
            Some(_) if is_form(text) => self.read_form(request, identified, text),
            Some(_) | None => {}
        }
    }

    fn read_form(&self, request: &Request, identified: &mut Identified, text: &[u8]) {
        let place = self.profiles.of_place(None, request.path.as_bytes());
        let place = if place == Style::GENERIC { identified.style } else { place };
        let mut keyring = Keyring::new(&self.hasher, &self.spellings, &self.profiles, place);
        let mut found = Found::default();
        for pair in text.split(|byte| *byte == b'&').take(MEMBERS_MAX) {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            found.is_grant |= is_of_grant(name);
            found.fields.add(name);
            let (parameter, stated) = self.look(name, identified.style);
            if let Some(stated) = stated {
                self.hasher.fingerprints.note(&mut found.signed, stated, value);
            }
            match parameter {
                Parameter::Key if !value.is_empty() => {
                    keyring.add_form(name, value);
                }
                Parameter::Secret | Parameter::Key => {}
                parameter @ (Parameter::Symbol
                | Parameter::Object
                | Parameter::Account
                | Parameter::Amount
                | Parameter::Plain) => {
                    found.take(parameter, || target::name_text(value));
                    found.count_encoded(value);
                    if let Some(survey) = &self.survey {
                        let style = identified.style;
                        survey.borrow_mut().field(&self.profiles, "form", name, value, style);
                    }
                }
            }
        }
        if identified.key.is_none()
            && let Some((number, named)) = keyring.into_best()
        {
            self.adopt(identified, number, named);
        }
        if found.is_grant || identified.op == Operation::Auth {
            self.read_grant(Parameters::Form(text), identified, &mut found);
        }
        self.merge(identified, found);
    }

    /// What is asked for by OAuth 2.0.
    fn read_grant(&self, from: Parameters<'_>, identified: &mut Identified, found: &mut Found) {
        let fingerprints = &self.hasher.fingerprints;
        if let Some(grant) = Grant::read(from, fingerprints) {
            (found.name, found.signed) = (Some(grant.name.into()), grant.presents);
            identified.op = Operation::Auth;
            if grant.is_bare_code && identified.key.is_none() {
                identified.anomalies |= Anomalies::NO_PKCE;
            }
        }
        found.oauth = grant::names(from, fingerprints);
        if found.oauth.as_ref().is_some_and(|oauth| oauth.user_code.is_some()) {
            identified.op = Operation::Auth;
        }
    }

    fn read_json_body(&self, request: &Request, identified: &mut Identified, text: &[u8]) {
        let Some(value) = Value::of(text) else { return };
        let mut found = Found::default();
        let first = if value.kind == Kind::Array { value.elements().next() } else { Some(value) };
        let called = first.and_then(|value| call_of(value, &request.method));
        let is_rpc = called.as_ref().is_some_and(|call| call.kind == Remote::Rpc);
        match first.filter(|_| is_rpc) {
            // Its other members are about the call itself.
            Some(call) => {
                let params = call.members().find(|(name, _)| *name == b"params");
                if let Some((_, params)) = params {
                    self.walk(params, identified.style, &mut found);
                }
            }
            None => self.walk(value, identified.style, &mut found),
        }
        if found.repeats || first.is_some_and(|call| is_rpc && call.repeats()) {
            identified.anomalies |= Anomalies::DUPLICATE_MEMBER;
        }
        if identified.key.is_none() {
            let name = called.as_ref().map(|call| &call.name[..]);
            let place = self.profiles.of_place(None, request.path.as_bytes());
            if let Some((number, named)) = self.message_source(first, name, place) {
                self.adopt(identified, number, named);
            }
        }
        if let Some(call) = called {
            let has_key = identified.key.is_some();
            let op = match call.kind {
                Remote::Rpc => self.message_operation(identified.style, &call.name, false, has_key),
                // Its name is the client's choice.
                Remote::Mutation => {
                    let names = call.fields.iter().copied().chain([&call.name[..]]);
                    let ops = names.map(|it| operation::classify_message(it, false, has_key));
                    ops.max_by_key(|op| op.weight()).unwrap_or(Operation::Read)
                }
                Remote::Query if has_key => Operation::Read,
                Remote::Query => Operation::Public,
            };
            identified.op = op;
            identified.is_remote = true;
            found.name = plain(&call.name);
        }
        let is_grant = found.is_grant || identified.op == Operation::Auth;
        if let Some(first) = first.filter(|_| is_grant && !is_rpc) {
            self.read_grant(Parameters::Members(first), identified, &mut found);
        }
        self.merge(identified, found);
    }

    /// The key that a message holds. `style`: what is known from before.
    pub(crate) fn message_key(
        &self,
        text: &[u8],
        name: Option<&[u8]>,
        style: Style,
    ) -> Option<MessageKey> {
        let value = Value::of(text.trim_ascii_start())?;
        let (number, named) = self.message_source(Some(value), name, style)?;
        let source = &self.profiles.sources[usize::from(number)];
        let of_exchange = self.profiles.profile(source.style).is_some_and(|it| it.is_exchange);
        Some(MessageKey {
            key: credential::key(&self.profiles, number, &named),
            token: named.token,
            stays: source.stays,
            style: if of_exchange { source.style } else { style },
        })
    }

    /// Who logs on to a FIX session: by the first source that has something in its tag.
    pub(crate) fn fix_key<'m>(
        &self,
        target: &[u8],
        value: impl Fn(u16) -> &'m [u8],
    ) -> Option<(Key, Style)> {
        let place = self.profiles.of_fix(target);
        (0_u16..).zip(&self.profiles.sources).find_map(|(number, source)| {
            let Place::Fix(tag) = source.place else { return None };
            let credential = value(tag);
            if credential.is_empty() || source.on_paths && source.style != place {
                return None;
            }
            let named = self.hasher.name(Form::Plain, credential)?;
            Some((credential::key(&self.profiles, number, &named), source.style))
        })
    }

    /// Whether a connection has no key after a message of this name.
    pub(crate) fn logs_out(&self, style: Style, name: &[u8]) -> bool {
        let profile = self.profiles.profile(style);
        profile.is_some_and(|it| it.logout.iter().any(|known| known.as_bytes() == name))
    }

    fn message_source(
        &self,
        value: Option<Value<'_>>,
        name: Option<&[u8]>,
        place: Style,
    ) -> Option<(u16, Named)> {
        let value = value?;
        // Most messages have none of the members that may lead to a key.
        let mut firsts = SmallVec::<[&[u8]; 16]>::new();
        firsts.extend(value.members().take(MEMBERS_MAX).map(|(name, _)| name));
        self.profiles.in_messages.iter().find_map(|number| {
            let source: &Source = &self.profiles.sources[usize::from(*number)];
            let Place::Member { message, at } = &source.place else { return None };
            if !firsts.contains(&at.first()) || source.on_paths && source.style != place {
                return None;
            }
            if let Some(message) = message
                && name != Some(message.as_bytes())
            {
                return None;
            }
            let credential = at.of(value)?.string().filter(|it| !it.is_empty())?;
            let form = if source.token { Form::Bearer } else { Form::Plain };
            let named = self.hasher.name(form, credential)?;
            source.takes(named.token.as_ref()).then_some((*number, named))
        })
    }

    fn adopt(&self, identified: &mut Identified, number: u16, named: Named) {
        let key = credential::key(&self.profiles, number, &named);
        let style = self.profiles.sources[usize::from(number)].style;
        if self.profiles.profile(style).is_some_and(|profile| profile.is_exchange) {
            identified.style = style;
        }
        if identified.op == Operation::Public {
            identified.op = Operation::Read;
        }
        (identified.key, identified.token) = (Some(key), named.token);
    }

    fn merge(&self, identified: &mut Identified, found: Found) {
        identified.symbol = identified.symbol.take().or(found.symbol);
        for id in found.object_ids {
            if identified.object_ids.len() < OBJECT_IDS_MAX && !identified.object_ids.contains(&id)
            {
                identified.object_ids.push(id);
            }
        }
        let parts = (found.parts > 0).then_some(found.parts);
        let fields = self.fields.of(&found.fields);
        if found.account.is_some()
            || found.amount.is_some()
            || found.name.is_some()
            || parts.is_some()
            || found.signed != Signed::default()
            || fields.is_some()
            || found.oauth.is_some()
        {
            let detail = identified.detail.get_or_insert_with(Box::<Detail>::default);
            detail.account = detail.account.take().or(found.account);
            detail.amount = detail.amount.take().or(found.amount);
            detail.name = detail.name.take().or(found.name);
            detail.parts = detail.parts.or(parts);
            detail.fields = detail.fields.take().or(fields);
            detail.oauth = detail.oauth.take().or(found.oauth);
            if found.signed != Signed::default() {
                let signed = detail.signed.get_or_insert_default();
                if signed.fingerprint.is_none() {
                    signed.fingerprint = found.signed.fingerprint;
                    signed.former = found.signed.former;
                }
                signed.nonce = signed.nonce.or(found.signed.nonce);
                signed.stated_ms = signed.stated_ms.or(found.signed.stated_ms);
            }
        }
    }

    /// Members of the text, of its elements, and of what stands one level below.
    fn walk(&self, value: Value<'_>, style: Style, found: &mut Found) {
        if value.kind == Kind::Array {
            // Of a list, those of its first element.
            let first = value.elements().next();
            let first = first.filter(|first| first.kind == Kind::Object);
            let members = first.iter().flat_map(|first| first.members().take(MEMBERS_MAX));
            for (number, (name, _)) in members.enumerate() {
                found.is_grant |= is_of_grant(name);
                if number < PARAMETERS_MAX {
                    found.fields.add(name);
                }
            }
            return self.walk_list(value, style, found);
        }
        let mut names = Names::default();
        for (name, value) in value.members().take(MEMBERS_MAX) {
            names.add(name);
            found.is_grant |= is_of_grant(name);
            found.fields.add(name);
            match value.kind {
                Kind::Object => self.walk_object(value, style, found),
                Kind::Array => self.walk_list(value, style, found),
                Kind::String | Kind::Number => self.member(name, value, style, found),
                Kind::True | Kind::False | Kind::Null => {}
            }
        }
        found.repeats |= names.repeats;
    }

    /// A list of objects is a batch.
    fn walk_list(&self, list: Value<'_>, style: Style, found: &mut Found) {
        let mut orders = 0;
        for element in list.elements() {
            if element.kind != Kind::Object {
                break;
            }
            if orders < ORDERS_MAX {
                self.walk_object(element, style, found);
            }
            orders += 1;
        }
        found.parts = found.parts.max(u32::try_from(orders).unwrap_or(u32::MAX));
    }

    fn walk_object(&self, object: Value<'_>, style: Style, found: &mut Found) {
        let mut names = Names::default();
        for (name, value) in object.members().take(MEMBERS_MAX) {
            names.add(name);
            self.member(name, value, style, found);
        }
        found.repeats |= names.repeats;
    }

    fn member(&self, name: &[u8], value: Value<'_>, style: Style, found: &mut Found) {
        let Some(raw) = value.scalar() else { return };
        let (parameter, stated) = self.look(name, style);
        if let Some(stated) = stated {
            self.hasher.fingerprints.note(&mut found.signed, stated, raw);
        }
        found.take(parameter, || target::name_text(raw));
        if let Some(survey) = &self.survey {
            survey.borrow_mut().field(&self.profiles, "json", name, raw, style);
        }
    }
}

/// Whether a field is of a request that asks for tokens, or types the code of a device.
fn is_of_grant(name: &[u8]) -> bool {
    name == b"grant_type" || name == b"user_code"
}

impl Found {
    /// Takes what a member holds: only what is short and plain.
    fn take(&mut self, parameter: Parameter, text: impl Fn() -> Option<CompactString>) {
        match parameter {
            Parameter::Symbol if self.symbol.is_none() => self.symbol = text(),
            Parameter::Account if self.account.is_none() => {
                self.account = text().filter(|it| plain(it.as_bytes()).is_some());
            }
            Parameter::Amount if self.amount.is_none() => {
                self.amount = text().filter(|it| target::is_amount(it));
            }
            Parameter::Object if self.object_ids.len() < OBJECT_IDS_MAX => {
                self.object_ids.extend(text());
            }
            Parameter::Key
            | Parameter::Secret
            | Parameter::Symbol
            | Parameter::Account
            | Parameter::Amount
            | Parameter::Object
            | Parameter::Plain => {}
        }
    }

    fn count_encoded(&mut self, value: &[u8]) {
        self.parts = self.parts.max(encoded_orders(value));
    }
}

/// How many orders are in the list in a parameter: `batchOrders=%5B%7B…`.
pub(super) fn encoded_orders(value: &[u8]) -> u32 {
    if !(value.starts_with(b"[") || value.starts_with(b"%5B") || value.starts_with(b"%5b")) {
        return 0;
    }
    let value = &value[..value.len().min(BODY_BYTES_MAX)];
    let decoded: SmallVec<[u8; 256]> = percent::decoded(value).map(|(_, byte)| byte).collect();
    let Some(list) = Value::of(&decoded) else { return 0 };
    let orders = list.elements().filter(|element| element.kind == Kind::Object).count();
    u32::try_from(orders).unwrap_or(u32::MAX)
}

/// A remote call in a body.
struct Call<'t> {
    name: SmallVec<[u8; 64]>,
    kind: Remote,
    /// What a GraphQL document asks for, whatever it is called.
    fields: SmallVec<[&'t [u8]; 4]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Remote {
    /// JSON-RPC 2.0, or one of its kind.
    Rpc,
    /// GraphQL (specification of October 2021, 2.3).
    Query,
    Mutation,
}

/// Bytes of the name of a call.
const CALL_BYTES_MAX: usize = 64;

fn call_of<'t>(value: Value<'t>, method: &str) -> Option<Call<'t>> {
    let text = |sought: &[u8]| {
        let mut members = value.members().take(MEMBERS_MAX);
        members.find(|(name, _)| *name == sought).and_then(|(_, value)| value.string())
    };
    let name = |raw: &[u8]| SmallVec::from_slice(&raw[..raw.len().min(CALL_BYTES_MAX)]);
    let has = |sought: &[u8]| value.members().take(MEMBERS_MAX).any(|(name, _)| name == sought);
    if let Some(raw) = text(b"method")
        && method == "POST"
        && (has(b"jsonrpc") || has(b"params") || has(b"id"))
    {
        return Some(Call { name: name(raw), kind: Remote::Rpc, fields: SmallVec::new() });
    }
    let own = text(b"operationName").filter(|it| !it.is_empty());
    let document = Document::read(text(b"query")?, own)?;
    let shown = own.or(document.name).or(document.fields.first().copied());
    Some(Call {
        name: name(shown.unwrap_or(b"graphql")),
        kind: if document.is_mutation { Remote::Mutation } else { Remote::Query },
        fields: document.fields,
    })
}

/// A name, and an equals sign behind it.
fn is_form(text: &[u8]) -> bool {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.%[]+".contains(byte);
    let len = text.iter().take(64).take_while(|byte| name(byte)).count();
    len > 0 && text.get(len) == Some(&b'=')
}

#[cfg(test)]
mod tests {
    use httparse::Header;
    use proptest::prelude::*;

    use super::super::{RequestHead, Secret};
    use super::*;

    fn read(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Identified {
        let identifier = Identifier::new(Secret::new([7; 32]));
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let mut identified =
            identifier.identify(&RequestHead { method, target, headers: &headers });
        let request = Request {
            method: method.into(),
            host: None,
            target: "".into(),
            path: identified.path.clone(),
            user_agent: None,
            header_order: None,
            body_bytes: 0,
        };
        identifier.read_body(&request, &mut identified, body.as_bytes());
        identified
    }

    fn source(identified: &Identified) -> String {
        identified
            .key
            .as_ref()
            .map(|key| format!("{} {}", key.profile, key.source))
            .unwrap_or_default()
    }

    #[test]
    fn orders_say_what_they_are_about() {
        let okx = [("OK-ACCESS-KEY", "k")];
        let body = r#"{"instId":"BTC-USDT","side":"buy","sz":"0.5","clOrdId":"b15"}"#;
        let it = read("POST", "/api/v5/trade/order", &okx, body);
        assert_eq!((it.op, it.symbol.as_deref()), (Operation::Trade, Some("BTC-USDT")));
        assert_eq!(it.object_ids, ["b15"]);
        assert_eq!(it.detail.unwrap().amount.as_deref(), Some("0.5"));
        let batch = r#"[{"instId":"A-B","sz":"1"},{"instId":"C-D","sz":"2"}]"#;
        let it = read("POST", "/api/v5/trade/batch-orders", &okx, batch);
        assert_eq!((it.symbol.as_deref(), it.detail.unwrap().parts), (Some("A-B"), Some(2)));
        let kraken = [("API-Key", "k"), ("API-Sign", "s")];
        let it = read("POST", "/0/private/AddOrder", &kraken, "nonce=1&pair=XBTUSD&volume=1.25");
        assert_eq!((it.op, it.symbol.as_deref()), (Operation::Trade, Some("XBTUSD")));
        assert_eq!(it.detail.unwrap().amount.as_deref(), Some("1.25"));
        let binance = [("X-MBX-APIKEY", "k")];
        let orders = "batchOrders=%5B%7B%22symbol%22%3A%22A%22%7D%2C%7B%7D%5D&signature=s";
        let it = read("POST", "/fapi/v1/batchOrders", &binance, orders);
        assert_eq!(it.detail.unwrap().parts, Some(2));
        let it = read("POST", &format!("/fapi/v1/batchOrders?{orders}"), &binance, "");
        assert_eq!(it.detail.unwrap().parts, Some(2), "in the query too");
    }

    #[test]
    fn keys_in_bodies() {
        let it = read("POST", "/v2/private/order/create", &[], "api_key=k&symbol=A&sign=s");
        assert_eq!(source(&it), "bybit form:api_key");
        let it = read("POST", "/v1/x", &[], r#"{"apiKey":"k","signature":"s"}"#);
        assert_eq!(source(&it), "body-key message:apiKey");
        let rpc = r#"{"jsonrpc":"2.0","id":1,"method":"public/auth","params":{"client_id":"c","client_secret":"s"}}"#;
        let it = read("POST", "/api/v2/", &[], rpc);
        assert_eq!(
            (source(&it).as_str(), it.op),
            ("deribit message:params.client_id", Operation::Auth)
        );
        let it = read("POST", "/v1/x", &[("x-api-key", "h")], r#"{"apiKey":"k"}"#);
        assert_eq!(source(&it), "x-api-key header:x-api-key", "the head counts first");
    }

    #[test]
    fn remote_calls_are_operations() {
        let rpc = |name: &str| format!(r#"{{"jsonrpc":"2.0","method":"{name}","params":{{}}}}"#);
        let it = read("POST", "/api/v2/private/x", &[], &rpc("private/withdraw"));
        assert_eq!(it.op, Operation::Withdraw);
        let key = [("x-api-key", "k")];
        let op = |query: &str| {
            let it = read("POST", "/graphql", &key, query);
            (it.op, it.detail.unwrap().name.unwrap().to_string())
        };
        assert_eq!(
            op(r#"{"query":"mutation CreateWithdrawal($a:Int){x}"}"#),
            (Operation::Withdraw, "CreateWithdrawal".into())
        );
        assert_eq!(
            op(r#"{"operationName":"Positions","query":"query Positions { x }"}"#),
            (Operation::Read, "Positions".into())
        );
        assert_eq!(op(r#"{"query":"{ me { id } }"}"#), (Operation::Read, "me".into()));
        // Whatever the client calls it, or does not.
        for (query, name) in [
            ("mutation { createWithdrawal(amount: 1) { id } }", "createWithdrawal"),
            ("mutation ListOrders { ... on M { a: createWithdrawal { id } } }", "ListOrders"),
            ("query A { me } mutation B { cancelOrder createWithdrawal }", "B"),
        ] {
            let chosen = if name == "B" { r#","operationName":"B""# } else { "" };
            let body = format!(r#"{{"query":"{query}"{chosen}}}"#);
            assert_eq!(op(&body), (Operation::Withdraw, name.into()), "{query}");
        }
    }

    #[test]
    fn a_secret_in_the_place_of_a_name_is_not_kept() {
        let secret = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv";
        let it = read(
            "POST",
            "/api/v5/x",
            &[("OK-ACCESS-KEY", "k")],
            &format!(r#"{{"subAcct":"{secret}","amt":"{secret}"}}"#),
        );
        assert!(!format!("{it:?}").contains(secret));
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in "[\\[\\]{}\":,a-c0-2\\\\=&% meth]{0,80}") {
            read("POST", "/api/v5/trade/order", &[], &body);
        }
    }
}
