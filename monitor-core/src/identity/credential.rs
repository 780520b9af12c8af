//! Credentials in header fields, parameters and members, hashed as they are found.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use httparse::Header;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::known::Known;
use super::profile::{InRequest, Place, Profiles, Source, same_name};
use super::signing::{Fingerprints, Stated};
use super::spellings::{Meaning, Spellings};
use super::token::Claims;
use super::{Secret, Style, percent};
use crate::call::{Key, KeyId, Signed, Token};

/// Names the use of the secret, so that no other use of it can give the same hash.
const DOMAIN: &[u8] = b"keywatch key id v1\0";
const DOMAIN_SUBJECT: &[u8] = b"keywatch token subject v1\0";
const DOMAIN_CERTIFICATE: &[u8] = b"keywatch certificate v1\0";
const DOMAIN_SIGNATURE: &[u8] = b"keywatch signatures v1\0";
const DOMAIN_KNOWN: &[u8] = b"keywatch known credentials v1\0";
const DOMAIN_ROUTES: &[u8] = b"keywatch known routes v1\0";
const DOMAIN_CHECK: &[u8] = b"keywatch secret check v1\0";

/// Credentials hashed in one request. Honest requests carry one or two; each costs a hash.
const CREDENTIALS_MAX: u8 = 4;

/// Cookies of one request that are looked at: browsers keep 50 to 180 for a site.
const COOKIES_MAX: usize = 200;

/// What stands where a credential was found, and so how an id is made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// The key.
    Plain,
    /// The key, percent-encoded.
    Encoded,
    /// A bearer token.
    Bearer,
    /// User and password in base64.
    Basic,
    /// What a certificate says.
    Certificate,
}

/// Who a credential names.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) id: KeyId,
    /// Its ids under former secrets, the latest first.
    pub(super) former: Option<Arc<[KeyId]>>,
    /// What a token says of itself.
    pub(super) token: Option<Arc<Token>>,
}

/// Makes ids of credentials under the secret, and under those before it.
pub(super) struct Hasher {
    current: Epoch,
    /// The latest first.
    former: Box<[Epoch]>,
    known: Known,
    pub(super) fingerprints: Fingerprints,
}

/// Keyed hash under one secret, with the key and the domain already taken in: a clone away from use.
struct Epoch {
    key: Hmac<Sha256>,
    subject: Hmac<Sha256>,
    certificate: Hmac<Sha256>,
}

impl Hasher {
    pub(super) fn new(secret: &Secret) -> Hasher {
        let now = keyed(&secret.current);
        let signatures = derived(&now, DOMAIN_SIGNATURE);
        let former = secret.former.first().map(|former| derived(&keyed(former), DOMAIN_SIGNATURE));
        Hasher {
            known: Known::new(&derived(&now, DOMAIN_KNOWN)),
            fingerprints: Fingerprints::new(&signatures, former.as_ref()),
            current: Epoch::new(&secret.current),
            former: secret.former.iter().map(|secret| Epoch::new(secret)).collect(),
        }
    }

    /// Whom a credential names; `None` when there is none in it.
    pub(super) fn name(&self, form: Form, credential: &[u8]) -> Option<Named> {
        self.known.find(form, credential, || self.make(form, credential))
    }

    fn make(&self, form: Form, credential: &[u8]) -> Option<Named> {
        let (mut claims, mut user) = (None, None);
        match form {
            Form::Plain | Form::Encoded | Form::Certificate => {}
            Form::Bearer => claims = Claims::read(credential),
            Form::Basic => user = Some(user_of(credential)?),
        }
        let id = |epoch: &Epoch| match (claims.as_ref().and_then(Claims::who), &user) {
            (Some((issuer, subject)), _) => epoch.hash_subject(issuer, subject),
            (None, Some(user)) => epoch.hash(user),
            (None, None) if form == Form::Encoded => epoch.hash_encoded(credential),
            (None, None) if form == Form::Certificate => epoch.hash_certificate(credential),
            (None, None) => epoch.hash(credential),
        };
        Some(Named {
            id: id(&self.current),
            former: (!self.former.is_empty()).then(|| self.former.iter().map(id).collect()),
            token: claims.map(|claims| Arc::new(claims.token)),
        })
    }
}

impl Epoch {
    fn new(secret: &[u8; 32]) -> Epoch {
        let keyed = keyed(secret);
        Epoch {
            key: keyed.clone().chain_update(DOMAIN),
            subject: keyed.clone().chain_update(DOMAIN_SUBJECT),
            certificate: keyed.chain_update(DOMAIN_CERTIFICATE),
        }
    }

    fn hash(&self, credential: &[u8]) -> KeyId {
        finish(self.key.clone().chain_update(credential))
    }

    fn hash_encoded(&self, credential: &[u8]) -> KeyId {
        if !credential.contains(&b'%') {
            return self.hash(credential);
        }
        let mut state = self.key.clone();
        percent::decoded(credential).for_each(|(_, byte)| state.update(&[byte]));
        finish(state)
    }

    fn hash_certificate(&self, names: &[u8]) -> KeyId {
        finish(self.certificate.clone().chain_update(names))
    }

    fn hash_subject(&self, issuer: &[u8], subject: &[u8]) -> KeyId {
        finish(self.subject.clone().chain_update(issuer).chain_update([0]).chain_update(subject))
    }
}

fn keyed(secret: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC pads short keys with zeros to the block size (RFC 2104, 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(secret);
    Hmac::<Sha256>::new((&*block).into())
}

/// A key of its own for each use of the secret.
fn derived(keyed: &Hmac<Sha256>, domain: &[u8]) -> [u8; 16] {
    finish(keyed.clone().chain_update(domain)).0.to_be_bytes()
}

/// What servers and paths are hashed under in memory.
pub(super) fn routes_key(secret: &[u8; 32]) -> [u8; 16] {
    derived(&keyed(secret), DOMAIN_ROUTES)
}

/// Of a secret, to tell it from others.
pub(super) fn check(secret: &[u8; 32]) -> u32 {
    (finish(keyed(secret).chain_update(DOMAIN_CHECK)).0 >> 96) as u32
}

/// The first 128 bits.
fn finish(state: Hmac<Sha256>) -> KeyId {
    let digest: [u8; 32] = state.finalize().into_bytes().into();
    KeyId(digest[..16].iter().fold(0, |id, byte| id << 8 | u128::from(*byte)))
}

/// The credentials of one request.
pub(super) struct Keyring<'h> {
    hasher: &'h Hasher,
    spellings: &'h Spellings,
    pub(super) profiles: &'h Profiles,
    /// What server and path say.
    place: Style,
    /// The first source in order, and whom it names.
    best: Option<(u16, Named)>,
    seen: u8,
    /// Two credentials disagree.
    pub(super) conflict: bool,
    /// The style whose fields count for nothing, and whether there were any.
    unbelieved: Option<Style>,
    pub(super) disbelieved: bool,
    /// How the request is signed.
    pub(super) signed: Signed,
}

impl<'h> Keyring<'h> {
    pub(super) fn new(
        hasher: &'h Hasher,
        spellings: &'h Spellings,
        profiles: &'h Profiles,
        place: Style,
    ) -> Keyring<'h> {
        Keyring {
            hasher,
            spellings,
            profiles,
            place,
            best: None,
            seen: 0,
            conflict: false,
            unbelieved: None,
            disbelieved: false,
            signed: Signed::default(),
        }
    }

    /// What the name of a parameter says.
    pub(super) fn look(&self, name: &[u8], style: Style) -> Meaning {
        self.spellings.look(self.profiles, name, style)
    }

    /// Fields of this style count for nothing.
    pub(super) fn disbelieve(&mut self, style: Option<Style>) {
        self.unbelieved = style;
    }

    /// The style of the key if it is an exchange's, or else of the server and path.
    pub(super) fn style(&self) -> Style {
        let of_key = self.best.as_ref().and_then(|(number, _)| {
            let style = self.source(*number).style;
            self.profiles.profile(style).filter(|profile| profile.is_exchange).map(|_| style)
        });
        of_key.unwrap_or(self.place)
    }

    /// Most fields cost one look at a table.
    pub(super) fn read_headers(&mut self, headers: &[Header<'_>]) {
        for header in headers {
            match self.profiles.headers.find(header.name) {
                None | Some(InRequest::Host) => {}
                Some(InRequest::Key(number)) => self.add_header(number, header, headers),
                Some(InRequest::Authorization) => self.add_authorization(header.value),
                Some(InRequest::Cookie) => self.add_cookies(header.value),
                Some(InRequest::Signing(what)) => self.note_signed(what, header.value),
            }
        }
    }

    /// What a field says of the signing.
    pub(super) fn note_signed(&mut self, what: Stated, raw: &[u8]) {
        self.hasher.fingerprints.note(&mut self.signed, what, raw);
    }

    fn add_header(&mut self, first: u16, header: &Header<'_>, headers: &[Header<'_>]) {
        let value = header.value.trim_ascii();
        if value.is_empty() {
            return;
        }
        let found = self.find(first, |source| {
            let Place::Header { name, with } = &source.place else { return false };
            let has = |with: &str| headers.iter().any(|it| it.name.eq_ignore_ascii_case(with));
            name.eq_ignore_ascii_case(header.name) && with.as_deref().is_none_or(has)
        });
        if let Some(number) = found {
            if self.unbelieved == Some(self.source(number).style) {
                self.disbelieved = true;
            } else if self.counted()
                && let Some(named) = self.hasher.name(Form::Plain, value)
            {
                self.insert(number, named);
            }
        }
    }

    fn add_authorization(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        let Some(space) = value.iter().position(u8::is_ascii_whitespace) else { return };
        let (scheme, credential) = (&value[..space], value[space..].trim_ascii());
        let is_scheme = |source: &Source| {
            matches!(&source.place, Place::Scheme { name, .. }
                if name.as_bytes().eq_ignore_ascii_case(scheme))
        };
        if credential.is_empty() {
            return;
        }
        let Some(first) = self.find(0, is_scheme) else { return };
        if !self.counted() {
            return;
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            if let Some(named) = self.hasher.name(Form::Basic, credential) {
                self.insert(first, named);
            }
            return;
        }
        let bearer = self.hasher.name(Form::Bearer, credential);
        let token = bearer.as_ref().and_then(|named| named.token.as_ref());
        let found = self.find(first, |source| is_scheme(source) && source.takes(token));
        let Some(number) = found else { return };
        let named = if let Place::Scheme { parameter: Some(name), .. } = &self.source(number).place
        {
            self.note_parameters(credential);
            parameter(credential, name).and_then(|key| self.hasher.name(Form::Plain, key))
        } else {
            bearer
        };
        if let Some(named) = named {
            self.insert(number, named);
        }
    }

    /// Signature, nonce and time among the parameters of credentials.
    fn note_parameters(&mut self, credential: &[u8]) {
        for (name, value) in parameters(credential) {
            if let Some(what) = self.look(name, Style::GENERIC).1 {
                self.note_signed(what, value);
            }
        }
    }

    /// Names of session cookies are told apart by case (RFC 6265, 5.3).
    fn add_cookies(&mut self, value: &[u8]) {
        for pair in value.split(|byte| *byte == b';').take(COOKIES_MAX) {
            let pair = pair.trim_ascii();
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            let found = self.find(
                0,
                |it| matches!(&it.place, Place::Cookie(known) if known.as_bytes() == name),
            );
            if let Some(number) = found.filter(|_| !value.is_empty())
                && self.counted()
                && let Some(named) = self.hasher.name(Form::Plain, value)
            {
                self.insert(number, named);
            }
        }
    }

    /// A key in a parameter of the query, still percent-encoded. `None` when it is no key here, or
    /// there are too many to hash.
    pub(super) fn add_parameter(&mut self, name: &[u8], value: &[u8]) -> Option<KeyId> {
        let found = self.find(0, |source| {
            matches!(&source.place, Place::Query(known) if same_name(name, known.as_bytes()))
        });
        self.add_encoded(found?, value)
    }

    /// The same of a form.
    pub(super) fn add_form(&mut self, name: &[u8], value: &[u8]) -> Option<KeyId> {
        let found = self.find(0, |source| {
            matches!(&source.place, Place::Form(known) if same_name(name, known.as_bytes()))
        });
        self.add_encoded(found?, value)
    }

    fn add_encoded(&mut self, number: u16, value: &[u8]) -> Option<KeyId> {
        if !self.counted() {
            return None;
        }
        let named = self.hasher.name(Form::Encoded, value)?;
        let id = named.id;
        self.insert(number, named);
        Some(id)
    }

    /// The source, and whom it names.
    pub(super) fn into_best(self) -> Option<(u16, Named)> {
        self.best
    }

    fn source(&self, number: u16) -> &'h Source {
        &self.profiles.sources[usize::from(number)]
    }

    /// The first source from a number on that fits and counts here.
    fn find(&self, first: u16, fits: impl Fn(&Source) -> bool) -> Option<u16> {
        (first..)
            .zip(&self.profiles.sources[usize::from(first)..])
            .find(|(_, source)| fits(source) && (!source.on_paths || source.style == self.place))
            .map(|(number, _)| number)
    }

    fn counted(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        // One more than is hashed cannot be compared with the others: it counts as a conflict.
        self.conflict |= self.seen > CREDENTIALS_MAX;
        self.seen <= CREDENTIALS_MAX
    }

    fn insert(&mut self, number: u16, named: Named) {
        match &self.best {
            None => self.best = Some((number, named)),
            Some((best, known)) => {
                self.conflict |= known.id != named.id;
                if number < *best {
                    self.best = Some((number, named));
                }
            }
        }
    }
}

impl Source {
    /// Whether a token, or none, is what this source is for.
    pub(super) fn takes(&self, token: Option<&Arc<Token>>) -> bool {
        if !self.token {
            return true;
        }
        let Some(token) = token else { return false };
        let issuer = token.issuer.as_deref().unwrap_or_default();
        self.issuers.is_empty() || self.issuers.iter().any(|known| **known == *issuer)
    }
}

/// The key as records show it.
pub(super) fn key(profiles: &Profiles, number: u16, named: &Named) -> Key {
    let source = &profiles.sources[usize::from(number)];
    let profile = profiles.profile(source.style).map(|it| it.name.clone()).unwrap_or_default();
    Key { id: named.id, source: source.shown.clone(), profile, former: named.former.clone() }
}

/// A parameter of credentials.
fn parameter<'c>(credential: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let mut all = parameters(credential);
    let same = |known: &[u8]| known.eq_ignore_ascii_case(name.as_bytes());
    all.find_map(|(known, value)| (same(known) && !value.is_empty()).then_some(value))
}

/// Parameters of credentials (RFC 9110, 11.4): `id=…,ts=…`, in quotes or not.
fn parameters(credential: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    credential.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        Some((pair[..equals].trim_ascii(), value))
    })
}

/// The user part of Basic credentials (RFC 7617, 2); the password is never hashed.
fn user_of(encoded: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let mut pair = Zeroizing::new(LENIENT.decode(encoded).ok()?);
    let user_bytes = pair.iter().position(|byte| *byte == b':').unwrap_or(pair.len());
    pair[user_bytes..].zeroize();
    pair.truncate(user_bytes);
    (!pair.is_empty()).then_some(pair)
}
