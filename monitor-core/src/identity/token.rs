//! JSON web tokens, read without trust (RFC 7519; RFC 8725 says what to be careful with).
//!
//! Nobody's signature is checked: whether the server took a token is in the outcome. What a token says
//! is kept beside the call, so that one that should not have been taken can be seen. Its subject is
//! hashed like a key and never kept.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use compact_str::CompactString;
use zeroize::Zeroizing;

use crate::call::Token;
use crate::json::{Kind, Value, unescape};
use crate::plain::plain;

/// Bytes of a token's parts that are read; real ones are below 2 KiB.
const PART_BYTES_MAX: usize = 4096;

/// Audiences, scopes and methods that are kept.
const ITEMS_MAX: usize = 8;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A token's claims, with those that stay within the step that hashes them.
pub(super) struct Claims {
    pub(super) token: Token,
    /// Issuer and subject, as they stand there.
    issuer: Option<Zeroizing<Vec<u8>>>,
    subject: Option<Zeroizing<Vec<u8>>>,
}

impl Claims {
    /// `None` for what is no token: three parts, of which the second is a JSON object.
    pub(super) fn read(text: &[u8]) -> Option<Claims> {
        if !text.starts_with(b"eyJ") {
            return None;
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (head, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || payload.len() > PART_BYTES_MAX || head.len() > PART_BYTES_MAX {
            return None;
        }
        let payload = Zeroizing::new(BASE64.decode(payload).ok()?);
        let claims =
            Value::of(&payload).filter(|value| value.kind == Kind::Object && value.whole)?;
        let mut token = Token::default();
        let (mut issuer, mut subject) = (None, None);
        for (name, value) in claims.members() {
            let text = || value.string().map(|raw| Zeroizing::new(unescape(raw).to_vec()));
            let shown = || value.string().and_then(plain);
            let seconds = || value.seconds();
            match name {
                b"iss" => {
                    issuer = text();
                    token.issuer = value.string().and_then(issuer_name);
                }
                b"sub" => subject = text(),
                b"client_id" | b"azp" | b"cid" => token.client = shown().or(token.client),
                b"aud" => token.audience = items(value),
                b"scope" | b"scp" => token.scope = items(value),
                b"exp" => token.expires = seconds(),
                b"nbf" => token.not_before = seconds(),
                b"iat" => token.issued = seconds(),
                b"auth_time" => token.auth_time = seconds(),
                b"acr" => token.acr = shown(),
                b"amr" => token.amr = items(value),
                _ => {}
            }
        }
        if let Ok(head) = BASE64.decode(head)
            && let Some(head) = Value::of(&head)
        {
            let alg = head.members().find(|(name, _)| *name == b"alg");
            token.algorithm = alg.and_then(|(_, value)| plain(value.string()?));
        }
        Some(Claims { token, issuer, subject })
    }

    /// Issuer and subject, which stay while tokens come and go.
    pub(super) fn who(&self) -> Option<(&[u8], &[u8])> {
        let (issuer, subject) = (self.issuer.as_ref()?, self.subject.as_ref()?);
        (!subject.is_empty()).then_some((issuer, subject))
    }
}

/// An issuer is an address (RFC 7519, 4.1.1) or a word; what else it may hold is not shown.
fn issuer_name(raw: &[u8]) -> Option<CompactString> {
    let text = unescape(raw);
    let text = std::str::from_utf8(&text).ok()?;
    let name = text.strip_prefix("https://").unwrap_or(text);
    let name = plain(name.split(['?', '#', '@']).next()?.as_bytes())?;
    Some(name)
}

/// A text with spaces between its items, or a list.
fn items(value: Value<'_>) -> Vec<CompactString> {
    let words = value.string().unwrap_or_default().split(|byte| *byte == b' ');
    let listed = value.elements().filter_map(|element| element.string());
    words.chain(listed).filter(|word| !word.is_empty()).filter_map(plain).take(ITEMS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(head: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", BASE64.encode(head), BASE64.encode(payload))
    }

    #[test]
    fn claims_are_read() {
        let text = token(
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"iss":"https://id.example.com/realms/x","sub":"u-1","azp":"desk","aud":["api","b"],
               "scope":"read trade","exp":1795464060,"iat":1795464000.5,"auth_time":1795460000,
               "acr":"2","amr":["pwd","otp"],"nbf":-1}"#,
        );
        let claims = Claims::read(text.as_bytes()).unwrap();
        let it = &claims.token;
        assert_eq!(it.algorithm.as_deref(), Some("none"));
        assert_eq!(it.issuer.as_deref(), Some("id.example.com/realms/x"));
        assert_eq!(it.client.as_deref(), Some("desk"));
        assert_eq!((it.audience.len(), it.scope.len(), it.amr.len()), (2, 2, 2));
        assert_eq!((it.expires, it.issued), (Some(1_795_464_060), Some(1_795_464_000)));
        assert_eq!((it.auth_time, it.not_before), (Some(1_795_460_000), Some(-1)));
        assert_eq!(it.acr.as_deref(), Some("2"));
        let (issuer, subject) = claims.who().unwrap();
        assert_eq!((issuer, subject), (&b"https://id.example.com/realms/x"[..], &b"u-1"[..]));
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "eyJ", "eyJ.e30", "eyJ.e30.s.t", "abc.e30.s", "eyJ.W10.s", "eyJ.!!.s"] {
            assert!(Claims::read(text.as_bytes()).is_none(), "{text}");
        }
        let long = token("{}", &format!("{{\"a\":\"{}\"}}", "x".repeat(5000)));
        assert!(Claims::read(long.as_bytes()).is_none());
        let deep = token("{}", &format!("{{\"a\":{}", "[".repeat(2000)));
        assert!(Claims::read(deep.as_bytes()).is_none());
        let odd = token(r#"{"alg":7}"#, r#"{"exp":"soon","iss":7,"sub":"a","exp2":1e400}"#);
        let claims = Claims::read(odd.as_bytes()).unwrap();
        assert_eq!((claims.token.expires, claims.who()), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in "[{}\\[\\]\":,a-c0-9.eE+-]{0,80}", head in "[ -~]{0,20}") {
            if let Some(claims) = Claims::read(token(&head, &payload).as_bytes()) {
                claims.who();
            }
        }
    }
}
