//! Requests for tokens: which grant they are made on, and what they present that is good for one client or
//! for one use (RFC 6749, 4 and 6; RFC 7636; RFC 8628, 3.4; RFC 8693; RFC 7523).

use super::percent;
use super::signing::{Fingerprints, Stated};
use crate::call::Signed;

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

impl Grant {
    /// Out of a form; `None` when it asks for no tokens, or on a grant that is not known.
    pub(super) fn read(form: &[u8], fingerprints: &Fingerprints) -> Option<Grant> {
        let parameters = || {
            let pairs = form.split(|byte| *byte == b'&').take(PARAMETERS_MAX);
            pairs.filter_map(|pair| {
                let equals = pair.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (&pair[..equals], &pair[equals + 1..]);
                (!name.is_empty() && !value.is_empty()).then_some((name, value))
            })
        };
        let value =
            |sought: &[u8]| parameters().find(|(name, _)| *name == sought).map(|(_, value)| value);
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
        let grant = Grant::read(form.as_bytes(), &Fingerprints::new(&[7; 16]))?;
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
        }
    }
}
