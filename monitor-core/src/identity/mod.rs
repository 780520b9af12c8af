//! Who asks for what: credentials become keyed hashes here and go no further.

mod body;
mod credential;
mod fields;
mod grant;
mod graphql;
mod known;
mod leak;
mod operation;
mod order;
mod outcome;
mod payload;
mod percent;
mod profile;
mod proxies;
mod routes;
mod signing;
mod spellings;
mod survey;
mod target;
mod token;

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use httparse::Header;
use zeroize::Zeroizing;

pub use self::leak::leaks;
pub use self::profile::{Fault, Profile, Profiles};
pub use self::proxies::{Network, Proxies};
pub use self::survey::Survey;

use crate::ascii::{Ascii, is_name};
use crate::call::{
    Anomalies, Detail, Fields, HeaderOrder, Key, KeyId, Operation, Outcome, PARAMETERS_MAX, Quota,
    Signed, Token,
};
use crate::connection::Certificate;
pub(crate) use body::BODY_BYTES_MAX;
use credential::{Hasher, Keyring};
pub(crate) use grant::Answer;
pub(crate) use order::Order;
use profile::{Count, Parameter};
use routes::{Does, Routes};
use spellings::{Meaning, Spellings};
use target::Scan;

/// The HMAC-SHA-256 secret under which credentials are hashed, and those before it. Never printed;
/// wiped when dropped.
pub struct Secret {
    current: Zeroizing<[u8; 32]>,
    former: Vec<Zeroizing<[u8; 32]>>,
}

/// Former secrets that count at once: each costs a hash when a credential is met that is not known.
pub const FORMER_SECRETS_MAX: usize = 3;

impl Secret {
    /// From 32 random bytes that are kept outside the data.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret { current: Zeroizing::new(bytes), former: Vec::new() }
    }

    /// With one that was in use before it and before those added so far: a key is known again by its
    /// id under that. Beyond [`FORMER_SECRETS_MAX`] none is added.
    pub fn after(mut self, bytes: [u8; 32]) -> Secret {
        let former = Zeroizing::new(bytes);
        if self.former.len() < FORMER_SECRETS_MAX {
            self.former.push(former);
        }
        self
    }

    /// Tells whether two secrets are the same, and nothing else of them: 32 bits of a keyed hash.
    pub fn check(&self) -> u32 {
        credential::check(&self.current)
    }
}

/// A request head as it stood on the wire.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method token.
    pub method: &'a str,
    /// Request target, credentials and all.
    pub target: &'a str,
    /// Header fields, in order.
    pub headers: &'a [Header<'a>],
}

/// Sizes only: target and headers hold credentials.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method_bytes", &self.method.len())
            .field("target_bytes", &self.target.len())
            .field("headers", &self.headers.len())
            .finish()
    }
}

/// What a request says about itself, without its credentials.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who asks.
    pub key: Option<Key>,
    /// What a bearer token says of itself.
    pub token: Option<Arc<Token>>,
    /// The target with credentials replaced, cut at [`TARGET_BYTES_MAX`].
    pub target: CompactString,
    /// The path part of it; empty for CONNECT.
    pub path: CompactString,
    /// What kind of thing is asked.
    pub op: Operation,
    /// Traded instrument.
    pub symbol: Option<CompactString>,
    /// Objects named, at most [`OBJECT_IDS_MAX`].
    pub object_ids: Vec<CompactString>,
    /// What else it says; the rest may stand in the body.
    pub detail: Option<Box<Detail>>,
    /// In which order its header fields stand.
    pub header_order: Option<HeaderOrder>,
    /// Its body is a remote call, whose answer says in itself whether it failed.
    pub is_remote: bool,
    /// Oddities of the credentials.
    pub anomalies: Anomalies,
    /// How replies in this API style are read.
    pub style: Style,
}

/// Of a request that was not seen.
impl Default for Identified {
    fn default() -> Identified {
        Identified {
            key: None,
            token: None,
            target: CompactString::default(),
            path: CompactString::default(),
            op: Operation::Public,
            symbol: None,
            object_ids: Vec::new(),
            detail: None,
            header_order: None,
            is_remote: false,
            anomalies: Anomalies::empty(),
            style: Style::GENERIC,
        }
    }
}

/// Bytes of a target that go into a record, the mark of the cut aside. Browsers and proxies have
/// long treated 2 KiB as the longest URL to rely on; longer ones are seldom read by a person.
pub const TARGET_BYTES_MAX: usize = 2048;

/// The profile of keys that are certificates: in TLS, or as a proxy in front says.
pub(crate) const CERTIFICATE_PROFILE: &str = "client-certificate";

/// As a record names the call of a device that asks to be let in.
pub(crate) const DEVICE_AUTHORIZATION: &str = "device_authorization";

/// Object ids of one call: batch endpoints name more, and eight show which object was meant.
pub const OBJECT_IDS_MAX: usize = 8;

/// API style that decides how a call is read: the profile of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style(u8);

impl Style {
    /// None that is known: status codes, and a few words of the body.
    pub const GENERIC: Style = Style(u8::MAX);
}

/// What a member of a message holds, as far as records show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The traded instrument.
    Symbol,
    /// The id of an object.
    Object,
    /// Anything else.
    Other,
}

/// Whether a status sends whoever asked elsewhere (RFC 9110, 15.4).
pub(crate) fn is_redirect(status: Option<u16>) -> bool {
    matches!(status, Some(301..=303 | 307 | 308))
}

/// How something ended of which the server says why in words.
pub(crate) fn words_outcome(text: &[u8]) -> Outcome {
    outcome::by_words(text)
}

/// Finds credentials, hashes them, classifies calls.
///
/// Where a request carries more than one credential, the first source in the order of the profiles
/// counts: what names one API comes before what a gateway in front may have added. Credentials that
/// disagree set [`Anomalies::KEY_CONFLICT`].
pub struct Identifier {
    hasher: Hasher,
    profiles: Arc<Profiles>,
    routes: Routes,
    spellings: Spellings,
    fields: fields::Shared,
    proxies: Proxies,
    /// What was seen, when that is asked for.
    survey: Option<Box<RefCell<Survey>>>,
}

impl Identifier {
    /// With the secret for key ids, and the profiles that come with Keywatch.
    pub fn new(secret: Secret) -> Identifier {
        Identifier {
            hasher: Hasher::new(&secret),
            profiles: Profiles::builtin(),
            routes: Routes::new(&credential::routes_key(&secret.current)),
            spellings: Spellings::new(),
            fields: fields::Shared::new(),
            proxies: Proxies::default(),
            survey: None,
        }
    }

    /// With another secret from now on: keys have other ids. Where the one in use is among its former
    /// ones, they are known again.
    pub fn set_secret(&mut self, secret: &Secret) {
        self.hasher = Hasher::new(secret);
        self.routes = Routes::new(&credential::routes_key(&secret.current));
    }

    /// With other profiles from now on. Replies to what was asked before are read as if in no style.
    pub fn set_profiles(&mut self, profiles: Arc<Profiles>) {
        self.profiles = profiles;
        self.routes.clear();
        self.spellings = Spellings::new();
    }

    /// The id of a raw credential, as calls with it carry it. A JSON web token has that of its subject.
    pub fn key_id(&self, credential: &[u8]) -> Option<KeyId> {
        if credential.is_empty() {
            return None;
        }
        self.hasher.name(credential::Form::Bearer, credential).map(|named| named.id)
    }

    /// Whom a client's certificate names: issuer and subject, which stay when it is renewed.
    pub(crate) fn certificate_key(&self, certificate: &Certificate) -> Option<Key> {
        let Certificate { issuer, subject, sha256, .. } = certificate;
        let text = match (issuer, subject) {
            (Some(issuer), Some(subject)) => format_compact!("{issuer}\n{subject}"),
            (_, _) => sha256.clone(),
        };
        let named = self.hasher.name(credential::Form::Certificate, text.as_bytes())?;
        Some(Key {
            id: named.id,
            source: CompactString::const_new("tls:certificate"),
            profile: CompactString::const_new(CERTIFICATE_PROFILE),
            former: named.former,
        })
    }

    /// With proxies whose word counts for who asks.
    pub fn set_proxies(&mut self, proxies: Proxies) {
        self.proxies = proxies;
    }

    pub(crate) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Notes from now on what the profiles make of requests.
    pub fn begin_survey(&mut self) {
        self.survey = Some(Box::default());
    }

    /// What was noted; `None` when it was not asked for.
    pub fn survey(&self) -> Option<Survey> {
        self.survey.as_ref().map(|survey| survey.borrow().clone())
    }

    /// Who asks for what, where whoever asks is believed to be a proxy.
    pub fn identify(&self, head: &RequestHead<'_>) -> Identified {
        self.identify_from(head, None, Order::default().of(head.headers))
    }

    /// Who asks for what. `peer`: who sends it. Of who is no proxy that is trusted, where there are any,
    /// fields that name a client or a certificate are what anybody may write, and count for nothing.
    /// `order`: of the fields, as whoever sends them wrote them.
    pub(crate) fn identify_from(
        &self,
        head: &RequestHead<'_>,
        peer: Option<IpAddr>,
        order: Option<HeaderOrder>,
    ) -> Identified {
        let is_believed =
            self.proxies.is_empty() || peer.is_none_or(|peer| self.proxies.trusts(peer));
        let profiles = &*self.profiles;
        let host = head.headers.iter().find(|it| is_name(it.name.as_bytes(), b"Host"));
        let host = host.map(|it| it.value);
        let path = target::path_of(head.target);
        let route = self.routes.find(host, path, || profiles.of_place(host, path));
        let mut keyring = Keyring::new(&self.hasher, &self.spellings, profiles, route.place);
        if !is_believed {
            keyring.disbelieve(profiles.style(CERTIFICATE_PROFILE));
        }
        keyring.read_headers(head.headers);
        let known = if route.is_plain { path.len() } else { 0 };
        let scanned = Scan::run(head, known, &mut keyring);
        let mut anomalies = Anomalies::empty();
        anomalies.set(Anomalies::KEY_CONFLICT, keyring.conflict);
        anomalies.set(Anomalies::UNTRUSTED_PROXY_HEADER, keyring.disbelieved);
        let style = keyring.style();
        let signed = (keyring.signed != Signed::default()).then_some(keyring.signed);
        let (key, token) = match keyring.into_best() {
            Some((number, named)) => (Some(credential::key(profiles, number, &named)), named.token),
            None => (None, None),
        };
        let asked = (head.method, style, key.is_some());
        let find = || {
            let raw_path = scanned.raw_path;
            let ruled = profiles.operation(style, head.method, raw_path);
            let op =
                ruled.unwrap_or_else(|| operation::classify(head.method, raw_path, key.is_some()));
            Does { op, is_ruled: ruled.is_some() }
        };
        // A target of another form may have its path elsewhere than at first sight.
        let is_route = std::ptr::eq(scanned.raw_path, path);
        let Does { op, is_ruled } =
            if is_route { self.routes.does(route, asked, find) } else { find() };
        let names_client = is_believed && !self.proxies.is_empty();
        let forwarded_for = if names_client { self.forwarded_for(head.headers) } else { None };
        // A proxy writes fields in an order of its own.
        let header_order = order.filter(|_| !names_client);
        let payload = payload::of_target(head.target);
        let query = if op == Operation::Auth { head.target.split_once('?') } else { None };
        let oauth = query.and_then(|(_, query)| {
            let query = grant::Parameters::Form(query.as_bytes());
            grant::names(query, &self.hasher.fingerprints)
        });
        let parts = (scanned.parts > 0).then_some(scanned.parts);
        let says = scanned.account.is_some()
            || parts.is_some()
            || scanned.amount.is_some()
            || forwarded_for.is_some()
            || signed.is_some()
            || payload.is_some()
            || oauth.is_some();
        let detail = says.then(|| {
            Box::new(Detail {
                forwarded_for,
                account: scanned.account,
                amount: scanned.amount,
                parts,
                signed,
                payload,
                oauth,
                ..Detail::default()
            })
        });
        let identified = Identified {
            key,
            token,
            target: scanned.target,
            path: scanned.path,
            op,
            symbol: scanned.symbol,
            object_ids: scanned.object_ids,
            detail,
            header_order,
            is_remote: false,
            anomalies,
            style,
        };
        if let Some(survey) = &self.survey {
            survey.borrow_mut().request(profiles, head, &identified, is_ruled);
        }
        identified
    }

    /// The client by the last field that says so; `X-Forwarded-For` before `Forwarded`.
    fn forwarded_for(&self, headers: &[Header<'_>]) -> Option<IpAddr> {
        let last = |name: &str| headers.iter().rfind(|it| it.name.eq_ignore_ascii_case(name));
        if let Some(header) = last("x-forwarded-for") {
            return self.proxies.client(header.value, proxies::plain_hop);
        }
        self.proxies.client(last("forwarded")?.value, proxies::forwarded_hop)
    }

    /// What a message asks for by name: `order.place`, `private/withdraw`. `positional`: of a style
    /// that shortens names, `on` for a new order.
    pub(crate) fn message_operation(
        &self,
        style: Style,
        name: &[u8],
        positional: bool,
        has_key: bool,
    ) -> Operation {
        let known = self.profiles.message(style, name);
        known.unwrap_or_else(|| operation::classify_message(name, positional, has_key))
    }

    /// What the name of a parameter or member says.
    fn look(&self, name: &[u8], style: Style) -> Meaning {
        self.spellings.look(&self.profiles, name, style)
    }

    /// What a member of this name holds.
    pub(crate) fn names(&self, style: Style, name: &[u8]) -> Named {
        match self.look(name, style).0 {
            Parameter::Symbol => Named::Symbol,
            Parameter::Object => Named::Object,
            Parameter::Key
            | Parameter::Secret
            | Parameter::Account
            | Parameter::Amount
            | Parameter::Plain => Named::Other,
        }
    }

    /// The names of a message's parameters, as they stand there; `None` when it has none.
    pub(crate) fn named<'n>(&self, names: impl Iterator<Item = &'n [u8]>) -> Option<Fields> {
        let mut named = fields::Named::default();
        names.take(PARAMETERS_MAX).for_each(|name| named.add(name));
        self.fields.of(&named)
    }

    /// The same where they have numbers.
    pub(crate) fn numbered<T: Copy + Into<u32>>(&self, numbers: &[T]) -> Option<Fields> {
        let mut named = fields::Named::default();
        for number in numbers {
            let mut text = Ascii::<10>::new();
            text.padded((*number).into(), 1);
            named.add(text.as_str().as_bytes());
        }
        self.fields.of(&named)
    }

    /// How a message ended to which the reply begins with `body`. `failed`: the reply says so.
    pub(crate) fn reply_outcome(
        &self,
        style: Style,
        status: Option<u16>,
        failed: bool,
        body: &[u8],
    ) -> Outcome {
        outcome::read_reply(&self.profiles, style, status, failed, body)
    }

    /// Whether the beginning of a response body is needed to tell how a call ended.
    #[inline]
    pub fn reads_reply(&self, style: Style, status: u16) -> bool {
        status >= 400
            || self.profiles.profile(style).is_some_and(|profile| profile.replies.reads_good())
    }

    /// Whether the beginning of a body that came with a good status is looked through for what should not
    /// stand there. What an exchange shows to everybody is not: it is most of the bytes, and the same for
    /// all.
    #[inline]
    pub fn looks_for_leaks(&self, style: Style, op: Operation) -> bool {
        op != Operation::Public || style == Style::GENERIC
    }

    /// How a call ended whose answer begins with `text`. What else that says is added to what was `asked`.
    pub(crate) fn read_answer(
        &self,
        asked: Option<&mut Identified>,
        style: Style,
        status: u16,
        text: &[u8],
    ) -> Outcome {
        let Some(identified) = asked else { return self.outcome(style, status, text) };
        if identified.op == Operation::Auth {
            self.note_given(identified, text);
        }
        if identified.is_remote {
            // It may fail with a good status: GraphQL and JSON-RPC.
            let failed = outcome::has_error(text);
            return outcome::read_reply(&self.profiles, style, Some(status), failed, text);
        }
        self.outcome(style, status, text)
    }

    /// Adds what an answer of OAuth 2.0 gives.
    fn note_given(&self, identified: &mut Identified, text: &[u8]) {
        let Some((code, oauth)) = grant::given(text, &self.hasher.fingerprints) else { return };
        let detail = identified.detail.get_or_insert_default();
        detail.name = Some(CompactString::const_new(DEVICE_AUTHORIZATION));
        detail.signed.get_or_insert_default().fingerprint = Some(code);
        detail.oauth = Some(Box::new(oauth));
    }

    /// Adds where the answer to a request of OAuth 2.0 went.
    pub(crate) fn note_redirect(&self, identified: &mut Identified, answer: Answer) {
        if identified.op == Operation::Auth {
            let oauth = identified.detail.get_or_insert_default().oauth.get_or_insert_default();
            (oauth.answered, oauth.carries) = (Some(answer.to), Some(answer.carries));
        }
    }

    /// What a response's header fields say of calls used and allowed.
    pub(crate) fn quota(&self, headers: &[Header<'_>]) -> Option<Quota> {
        let mut quota = None;
        headers.iter().for_each(|header| self.count(header.name, header.value, &mut quota));
        quota
    }

    /// Adds what one of them says. Where a server counts in several windows, the first one counts.
    #[inline]
    pub(crate) fn count(&self, name: &str, value: &[u8], quota: &mut Option<Quota>) {
        let Some(count) = self.profiles.counts.find(name) else { return };
        // `100, 100;w=60`: the number comes first.
        let digits = value.trim_ascii_start();
        let digits = &digits[..digits.iter().take_while(|byte| byte.is_ascii_digit()).count()];
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u32>().ok());
        let Some(number) = number else { return };
        let quota = quota.get_or_insert_default();
        match count {
            Count::Used => quota.used = quota.used.or(Some(number)),
            Count::Limit => quota.limit = quota.limit.or(Some(number)),
            Count::Remaining => quota.remaining = quota.remaining.or(Some(number)),
        }
    }

    /// How a call ended. `body` is the beginning of the response body, kept only when
    /// [`Identifier::reads_reply`] asks for it.
    pub fn outcome(&self, style: Style, status: u16, body: &[u8]) -> Outcome {
        outcome::read(&self.profiles, style, status, body)
    }
}

#[cfg(test)]
mod canary;
