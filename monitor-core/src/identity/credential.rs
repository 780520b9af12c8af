//! Credentials in header fields and parameters, hashed as they are found.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use compact_str::CompactString;
use hmac::{Hmac, KeyInit, Mac};
use httparse::Header;
use serde::Deserialize;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::known::Known;
use super::percent;
use crate::call::{Key, KeyId};

/// Names the use of the secret, so that no other use of it can give the same hash.
const DOMAIN: &[u8] = b"keywatch key id v1\0";
const DOMAIN_SUBJECT: &[u8] = b"keywatch token subject v1\0";
const DOMAIN_KNOWN: &[u8] = b"keywatch known credentials v1\0";

/// Credentials hashed in one request. Honest requests carry one or two; each costs a hash.
const CREDENTIALS_MAX: u8 = 4;

/// Bytes of a token's payload that are read for its subject; real ones are below 2 KiB.
const PAYLOAD_BYTES_MAX: usize = 4096;

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
}

/// Keyed hash with the key and the domain already taken in: a clone away from use.
pub(super) struct Hasher {
    key: Hmac<Sha256>,
    subject: Hmac<Sha256>,
    known: Known,
}

impl Hasher {
    pub(super) fn new(secret: &[u8; 32]) -> Hasher {
        // HMAC pads short keys with zeros to the block size (RFC 2104, 2).
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(secret);
        let keyed = Hmac::<Sha256>::new((&*block).into());
        Hasher {
            known: Known::new(&finish(keyed.clone().chain_update(DOMAIN_KNOWN)).0.to_be_bytes()),
            key: keyed.clone().chain_update(DOMAIN),
            subject: keyed.chain_update(DOMAIN_SUBJECT),
        }
    }

    /// The id of a credential; `None` when there is none in it.
    fn id(&self, form: Form, credential: &[u8]) -> Option<KeyId> {
        self.known.id(form, credential, || match form {
            Form::Plain => Some(self.hash(credential)),
            Form::Encoded => Some(self.hash_encoded(credential)),
            Form::Bearer => subject_of(credential, self).or_else(|| Some(self.hash(credential))),
            Form::Basic => user_of(credential, self),
        })
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

    fn hash_subject(&self, issuer: &str, subject: &str) -> KeyId {
        finish(self.subject.clone().chain_update(issuer).chain_update([0]).chain_update(subject))
    }
}

/// The first 128 bits.
fn finish(state: Hmac<Sha256>) -> KeyId {
    let digest: [u8; 32] = state.finalize().into_bytes().into();
    KeyId(digest[..16].iter().fold(0, |id, byte| id << 8 | u128::from(*byte)))
}

/// Where a credential stood. The first in this order counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Binance,
    ApiKeyHeader,
    Bearer,
    Basic,
    Query,
}

impl Place {
    fn source(self) -> &'static str {
        match self {
            Place::Binance => "header:x-mbx-apikey",
            Place::ApiKeyHeader => "header:x-api-key",
            Place::Bearer | Place::Basic => "header:authorization",
            Place::Query => "query:api_key",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Place::Binance => "binance",
            Place::ApiKeyHeader => "x-api-key",
            Place::Bearer => "bearer",
            Place::Basic => "basic",
            Place::Query => "query-key",
        }
    }
}

/// The credentials of one request.
pub(super) struct Keyring<'h> {
    hasher: &'h Hasher,
    best: Option<(Place, KeyId)>,
    seen: u8,
    /// Two credentials disagree.
    pub(super) conflict: bool,
}

impl<'h> Keyring<'h> {
    pub(super) fn new(hasher: &'h Hasher) -> Keyring<'h> {
        Keyring { hasher, best: None, seen: 0, conflict: false }
    }

    /// Header names are told apart by length first: most fields cost one compare.
    pub(super) fn read_headers(&mut self, headers: &[Header<'_>]) {
        for header in headers {
            match header.name.len() {
                9 if header.name.eq_ignore_ascii_case("x-api-key") => {
                    self.add(Place::ApiKeyHeader, header.value);
                }
                12 if header.name.eq_ignore_ascii_case("x-mbx-apikey") => {
                    self.add(Place::Binance, header.value);
                }
                13 if header.name.eq_ignore_ascii_case("authorization") => {
                    self.add_authorization(header.value);
                }
                _ => {}
            }
        }
    }

    /// A key in a parameter, still percent-encoded. `None` when there are too many to hash.
    pub(super) fn add_parameter(&mut self, value: &[u8]) -> Option<KeyId> {
        if !self.counted() {
            return None;
        }
        let id = self.hasher.id(Form::Encoded, value)?;
        self.insert(Place::Query, id);
        Some(id)
    }

    pub(super) fn is_binance(&self) -> bool {
        self.best.is_some_and(|(place, _)| place == Place::Binance)
    }

    pub(super) fn into_key(self) -> Option<Key> {
        self.best.map(|(place, id)| Key {
            id,
            source: CompactString::const_new(place.source()),
            profile: CompactString::const_new(place.profile()),
        })
    }

    fn add(&mut self, place: Place, value: &[u8]) {
        let value = value.trim_ascii();
        if !value.is_empty()
            && self.counted()
            && let Some(id) = self.hasher.id(Form::Plain, value)
        {
            self.insert(place, id);
        }
    }

    fn add_authorization(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        let Some(space) = value.iter().position(u8::is_ascii_whitespace) else { return };
        let (scheme, credential) = (&value[..space], value[space..].trim_ascii());
        if credential.is_empty() || !self.counted() {
            return;
        }
        let (place, form) = if scheme.eq_ignore_ascii_case(b"bearer") {
            (Place::Bearer, Form::Bearer)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            (Place::Basic, Form::Basic)
        } else {
            return;
        };
        if let Some(id) = self.hasher.id(form, credential) {
            self.insert(place, id);
        }
    }

    fn counted(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        // One more than is hashed cannot be compared with the others: it counts as a conflict.
        self.conflict |= self.seen > CREDENTIALS_MAX;
        self.seen <= CREDENTIALS_MAX
    }

    fn insert(&mut self, place: Place, id: KeyId) {
        match self.best {
            None => self.best = Some((place, id)),
            Some((best_place, best_id)) => {
                self.conflict |= best_id != id;
                if place < best_place {
                    self.best = Some((place, id));
                }
            }
        }
    }
}

/// `sub` and `iss` of a JSON web token (RFC 7519, 4.1), which stay while tokens come and go. The
/// signature is not checked: whether the server took it is in the outcome.
fn subject_of(token: &[u8], hasher: &Hasher) -> Option<KeyId> {
    #[derive(Deserialize)]
    struct Claims<'a> {
        #[serde(borrow)]
        sub: Cow<'a, str>,
        #[serde(borrow)]
        iss: Cow<'a, str>,
    }
    if !token.starts_with(b"eyJ") {
        return None;
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let claims: Claims<'_> = serde_json::from_slice(&json).ok()?;
    (!claims.sub.is_empty()).then(|| hasher.hash_subject(&claims.iss, &claims.sub))
}

/// The user part of Basic credentials (RFC 7617, 2); the password is never hashed.
fn user_of(encoded: &[u8], hasher: &Hasher) -> Option<KeyId> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let pair = Zeroizing::new(LENIENT.decode(encoded).ok()?);
    let user = pair.split(|byte| *byte == b':').next()?;
    (!user.is_empty()).then(|| hasher.hash(user))
}
