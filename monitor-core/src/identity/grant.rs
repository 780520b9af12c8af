//! Requests of OAuth 2.0: which grant tokens are asked for on, what is presented that is good for one client
//! or for one use, and where an answer is to go (RFC 6749, 4 and 6; RFC 7636; RFC 8628, 3; RFC 8693; RFC
//! 7523).

use std::borrow::Cow;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::percent;
use super::signing::{Fingerprints, Stated};
use crate::call::{Carried, OAuth, SignatureId, Signed};
use crate::json::{Value, unescape};
use crate::plain::plain;

/// Parameters that are looked at: twice what all of these RFCs have together.
const PARAMETERS_MAX: usize = 32;

/// A request for tokens.
pub(super) struct Grant {
    /// As a record names the call: `grant_type=refresh_token`.
    pub(super) name: &'static str,
    /// Of the code or token that it presents.
    pub(super) presents: Signed,
    /// An authorization code comes without a verifier, from a client that shows no secret beside it: whoever
    /// has the code has the tokens (RFC 9700, 2.1.1).
    pub(super) is_bare_code: bool,
}

/// Grants, as they are asked for and as records name them, and the parameter that each presents.
const KINDS: [(&[u8], &str, &[u8]); 7] = [
    (b"authorization_code", "grant_type=authorization_code", b"code"),
    (b"refresh_token", "grant_type=refresh_token", b"refresh_token"),
    (b"urn:ietf:params:oauth:grant-type:device_code", "grant_type=device_code", b"device_code"),
    (b"client_credentials", "grant_type=client_credentials", b""),
    (b"password", "grant_type=password", b""),
    (b"urn:ietf:params:oauth:grant-type:token-exchange", "grant_type=token_exchange", b""),
    (b"urn:ietf:params:oauth:grant-type:jwt-bearer", "grant_type=jwt_bearer", b"assertion"),
];

/// Where the parameters of a request stand.
#[derive(Clone, Copy)]
pub(super) enum Parameters<'t> {
    /// A form, or a query.
    Form(&'t [u8]),
    /// Members of an object, as some servers take them.
    Members(Value<'t>),
}

impl<'t> Parameters<'t> {
    /// The first of this name that is not empty.
    fn value(self, sought: &[u8]) -> Option<&'t [u8]> {
        match self {
            Parameters::Form(form) => {
                let mut pairs = form.split(|byte| *byte == b'&').take(PARAMETERS_MAX);
                pairs.find_map(|pair| {
                    let value = pair.strip_prefix(sought)?.strip_prefix(b"=")?;
                    (!value.is_empty()).then_some(value)
                })
            }
            Parameters::Members(object) => {
                let mut members = object.members().take(PARAMETERS_MAX);
                let value = members.find(|(name, _)| *name == sought)?.1.string()?;
                (!value.is_empty()).then_some(value)
            }
        }
    }

    /// The same, without what JSON puts before a slash.
    fn text(self, sought: &[u8]) -> Option<Cow<'t, [u8]>> {
        let value = self.value(sought)?;
        Some(match self {
            Parameters::Members(_) if value.contains(&b'\\') => {
                Cow::Owned(unescape(value).to_vec())
            }
            Parameters::Members(_) | Parameters::Form(_) => Cow::Borrowed(value),
        })
    }
}

/// What else a request names of OAuth 2.0; `None` when it is none of its requests.
pub(super) fn names(from: Parameters<'_>, fingerprints: &Fingerprints) -> Option<Box<OAuth>> {
    let (redirect, typed) = (from.text(b"redirect_uri"), from.value(b"user_code"));
    // A client that has registered one redirect need not name it.
    if redirect.is_none() && typed.is_none() && from.value(b"response_type").is_none() {
        return None;
    }
    Some(Box::new(OAuth {
        client: from.value(b"client_id").map(|raw| SignatureId(fingerprints.of(raw))),
        redirect: redirect.map(|raw| endpoint(&raw)),
        user_code: typed.map(|raw| user_code(raw, fingerprints)),
        ..OAuth::default()
    }))
}

/// An answer that a redirect carries.
pub(crate) struct Answer {
    pub(super) to: CompactString,
    pub(super) carries: Carried,
}

impl Answer {
    /// Of a `Location` field; `None` when it carries none.
    pub(crate) fn of(location: &[u8]) -> Option<Box<Answer>> {
        let location = &location[..location.len().min(LOCATION_BYTES_MAX)];
        let at = location.iter().position(|byte| matches!(byte, b'?' | b'#'))?;
        let pairs = location[at + 1..].split(|byte| matches!(byte, b'&' | b'#' | b'?'));
        let carries = pairs.take(PARAMETERS_MAX).filter_map(carried).min()?;
        Some(Box::new(Answer { to: endpoint(location), carries }))
    }
}

/// What a parameter of a redirect is.
fn carried(pair: &[u8]) -> Option<Carried> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&pair[..equals], &pair[equals + 1..]);
    match name {
        _ if value.is_empty() => None,
        b"access_token" | b"id_token" => Some(Carried::Token),
        b"code" => Some(Carried::Code),
        // All of the answer as a JSON web token (JARM, 2.3).
        b"response" if value.starts_with(b"eyJ") => Some(Carried::Code),
        b"error" => Some(Carried::Error),
        _ => None,
    }
}

/// What a device is told that asks to be let in: of the code that it shows to the server, and of the one that
/// it shows to a person (RFC 8628, 3.2).
pub(super) fn given(answer: &[u8], fingerprints: &Fingerprints) -> Option<(SignatureId, OAuth)> {
    // Nearly all answers are about something else.
    memchr::memmem::find(answer, b"\"user_code\"")?;
    let answer = Parameters::Members(Value::of(answer.trim_ascii_start())?);
    let user_code = Some(user_code(answer.value(b"user_code")?, fingerprints));
    let device_code = SignatureId(fingerprints.of(answer.value(b"device_code")?));
    Some((device_code, OAuth { user_code, ..OAuth::default() }))
}

/// Of a code as it is typed (RFC 8628, 6.1).
fn user_code(raw: &[u8], fingerprints: &Fingerprints) -> SignatureId {
    let typed = percent::decoded(raw).map(|(_, byte)| byte.to_ascii_uppercase());
    let typed = typed.filter(u8::is_ascii_alphanumeric).take(CODE_BYTES_MAX);
    SignatureId(fingerprints.of(&typed.collect::<SmallVec<[u8; CODE_BYTES_MAX]>>()))
}

/// Letters of a code that a person types.
const CODE_BYTES_MAX: usize = 32;

/// Bytes of a redirect that are looked at: as much as a target that is shown.
const LOCATION_BYTES_MAX: usize = 2048;

/// Bytes of an address that are looked at.
const ADDRESS_BYTES_MAX: usize = 256;

/// Where an answer is to go, without user part, query and fragment, and on this host itself without the
/// port, which programs choose anew (RFC 8252, 7.3); `?` for what is no plain address.
fn endpoint(raw: &[u8]) -> CompactString {
    // Browsers take one slash for the other.
    let decoded = percent::decoded(raw).map(|(_, byte)| if byte == b'\\' { b'/' } else { byte });
    let address: SmallVec<[u8; ADDRESS_BYTES_MAX]> =
        decoded.take_while(|byte| !matches!(byte, b'?' | b'#')).take(ADDRESS_BYTES_MAX).collect();
    let text = std::str::from_utf8(&address).unwrap_or_default();
    let known = match text.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            let host = match host.rsplit_once(':') {
                Some((own @ ("127.0.0.1" | "localhost"), _)) => own,
                Some(_) | None => host,
            };
            let origin = compact_str::format_compact!("{scheme}://{host}").to_ascii_lowercase();
            let whole = compact_str::format_compact!("{origin}{path}");
            // A path may hold what is not to be shown.
            plain(whole.as_bytes()).or_else(|| plain(origin.as_bytes()))
        }
        None => plain(text.as_bytes()),
    };
    known.unwrap_or_else(|| CompactString::const_new("?"))
}

impl Grant {
    /// `None` when no tokens are asked for, or on a grant that is not known.
    pub(super) fn read(from: Parameters<'_>, fingerprints: &Fingerprints) -> Option<Grant> {
        let value = |sought: &[u8]| from.value(sought);
        let asked = value(b"grant_type")?;
        let is =
            |kind: &[u8]| percent::decoded(asked).map(|(_, byte)| byte).eq(kind.iter().copied());
        let (kind, name, presented) = KINDS.iter().find(|(kind, ..)| is(kind))?;
        let mut presents = Signed::default();
        if let Some(raw) = value(presented) {
            fingerprints.note(&mut presents, Stated::Signature, raw);
        }
        let has = |name: &[u8]| value(name).is_some();
        let is_bare_code = *kind == b"authorization_code"
            && !has(b"code_verifier")
            && !has(b"client_secret")
            && !has(b"client_assertion");
        Some(Grant { name, presents, is_bare_code })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(form: &str) -> Option<(&'static str, Option<crate::call::SignatureId>, bool)> {
        let prints = Fingerprints::new(&[7; 16], None);
        let grant = Grant::read(Parameters::Form(form.as_bytes()), &prints)?;
        Some((grant.name, grant.presents.fingerprint, grant.is_bare_code))
    }

    #[test]
    fn grants_are_told_and_what_they_present_is_known_again() {
        let (name, first, _) = read("grant_type=refresh_token&refresh_token=tok%2Da").unwrap();
        assert_eq!(name, "grant_type=refresh_token");
        let again = read("refresh_token=tok-a&client_id=x&grant_type=refresh_token").unwrap().1;
        assert!(first.is_some() && first == again);
        assert_ne!(read("grant_type=refresh_token&refresh_token=tok-b").unwrap().1, first);
        let device =
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d";
        let (name, code, _) = read(device).unwrap();
        assert!(name == "grant_type=device_code" && code.is_some());
        let (name, none, _) = read("grant_type=client_credentials&client_secret=s").unwrap();
        assert_eq!((name, none), ("grant_type=client_credentials", None));
        for form in
            ["", "a=b", "grant_type=", "grant_type=odd", "x=grant_type=password", "grant_type"]
        {
            assert_eq!(read(form), None, "{form}");
        }
    }

    #[test]
    fn tokens_may_be_asked_for_in_json() {
        let json = br#"{"grant_type":"refresh_token","refresh_token":"tok-a","client_id":"x"}"#;
        let prints = Fingerprints::new(&[7; 16], None);
        let members = Parameters::Members(Value::of(json).unwrap());
        let grant = Grant::read(members, &prints).unwrap();
        let form = read("grant_type=refresh_token&refresh_token=tok-a").unwrap();
        assert_eq!((grant.name, grant.presents.fingerprint), (form.0, form.1));
    }

    #[test]
    fn where_an_answer_goes_is_named_without_what_is_private() {
        for (raw, known) in [
            ("https%3A%2F%2FApp.example%2Fcb%3Fsession%3Ds", "https://app.example/cb"),
            ("https://user:pass@evil.example/cb#x", "https://evil.example/cb"),
            ("http://127.0.0.1:51004/cb", "http://127.0.0.1/cb"),
            ("http://localhost:8080", "http://localhost"),
            ("https://app.example\\@evil.example", "https://app.example/@evil.example"),
            ("https://app.example:8443/cb", "https://app.example:8443/cb"),
            ("com.example.app:/cb", "com.example.app:/cb"),
            ("https://a.example/vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv", "https://a.example"),
            ("%00\"", "?"),
        ] {
            assert_eq!(endpoint(raw.as_bytes()), known, "{raw}");
        }
    }

    #[test]
    fn a_redirect_says_where_it_goes_and_what_it_carries() {
        for (location, expected) in [
            (
                "https://app.example/cb?code=c0de&state=s",
                Some(("https://app.example/cb", Carried::Code)),
            ),
            (
                "https://app.example/cb?state=s#code=c&id_token=eyJ",
                Some(("https://app.example/cb", Carried::Token)),
            ),
            ("com.example.app:/cb#access_token=t", Some(("com.example.app:/cb", Carried::Token))),
            (
                "https://a:b@evil.example/?error=access_denied",
                Some(("https://evil.example/", Carried::Error)),
            ),
            (
                "https://app.example/cb?response=eyJh.e.s",
                Some(("https://app.example/cb", Carried::Code)),
            ),
            ("/cb?x=1&code=c", Some(("/cb", Carried::Code))),
            ("https://id.example/login?code_challenge=c&state=code=", None),
            ("https://app.example/cb?code=&error=", None),
            ("https://app.example/code=c", None),
            ("", None),
        ] {
            let answer = Answer::of(location.as_bytes());
            let seen = answer.as_ref().map(|answer| (&*answer.to, answer.carries));
            assert_eq!(seen, expected, "{location}");
        }
        let long = format!("https://app.example/?{}code=c", "a=b&".repeat(2_000));
        assert!(Answer::of(long.as_bytes()).is_none());
    }

    #[test]
    fn user_codes_are_one_however_typed() {
        let prints = Fingerprints::new(&[7; 16], None);
        let code = |form: &str| {
            let named = names(Parameters::Form(form.as_bytes()), &prints)?;
            Some((named.user_code?, named.client))
        };
        let (first, client) = code("user_code=WDJB-MJHT&client_id=tv").unwrap();
        assert!(client.is_some());
        assert_eq!(code("user_code=wdjbmjht").unwrap(), (first, None));
        assert_ne!(code("user_code=WDJB-MJHU").unwrap().0, first);
        assert_eq!(code("user_code=&a=b"), None);
        let answer = br#"{"device_code":"d-1","user_code":"WDJB-MJHT","interval":5}"#;
        let (device, told) = given(answer, &prints).unwrap();
        assert_eq!((device.0, told.user_code), (prints.of(b"d-1"), Some(first)));
        assert_eq!(given(br#"{"user_code":"x"}"#, &prints), None);
        assert_eq!(given(b"\"user_code\"", &prints), None);
    }

    #[test]
    fn a_code_alone_is_bare() {
        let is_bare =
            |more: &str| read(&format!("grant_type=authorization_code&code=c{more}")).unwrap().2;
        assert!(is_bare("") && is_bare("&redirect_uri=x") && is_bare("&code_verifier="));
        assert!(!is_bare("&code_verifier=v") && !is_bare("&client_secret=s"));
        assert!(!is_bare("&client_assertion=j"));
        assert!(!read("grant_type=refresh_token&refresh_token=r").unwrap().2);
    }

    proptest! {
        #[test]
        fn any_form_is_read(form in "[grant_type=&%a-f0-9:.]{0,80}") {
            read(&form);
            read(&format!("grant_type=password&{form}"));
            names(Parameters::Form(form.as_bytes()), &Fingerprints::new(&[7; 16], None));
            endpoint(form.as_bytes());
            Answer::of(form.as_bytes());
        }
    }
}
