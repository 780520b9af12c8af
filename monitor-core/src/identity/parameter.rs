//! What a parameter's name says about its value.

use super::percent;

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// The API key itself.
    Key,
    /// A signature, token, password or code: never recorded.
    Secret,
    /// The traded instrument.
    Symbol,
    /// The id of an object.
    Object,
    /// Anything else.
    Plain,
}

/// Letters and digits of a name that are compared; the longest name below has 16. A longer name
/// is taken for a secret's: nothing is lost with it.
const NAME_BYTES_MAX: usize = 40;

/// What counts of a byte of a name: letters in lower case, digits and `%`; 0 of others.
const COMPARED: [u8; 256] = {
    let mut compared = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        if value.is_ascii_alphanumeric() || value == b'%' {
            compared[byte] = value.to_ascii_lowercase();
        }
        byte += 1;
    }
    compared
};

impl Parameter {
    /// From a name as it stands in a target. Percent-encoding, case and punctuation make no
    /// difference: `api_key`, `apiKey`, `api-key` and `api%4bey` are one name.
    pub(super) fn of(raw_name: &[u8]) -> Parameter {
        let mut name = [0; NAME_BYTES_MAX];
        let mut len = 0;
        for (_, byte) in percent::decoded(raw_name) {
            match COMPARED[usize::from(byte)] {
                0 => {}
                // Encoded twice: no server should read it, and nobody misses its value.
                b'%' => return Parameter::Secret,
                byte => {
                    let Some(place) = name.get_mut(len) else { return Parameter::Secret };
                    *place = byte;
                    len += 1;
                }
            }
        }
        Parameter::of_plain(&name[..len])
    }

    fn of_plain(name: &[u8]) -> Parameter {
        match name {
            b"apikey" => Parameter::Key,
            b"symbol" | b"instrument" | b"instrumentname" | b"pair" | b"market" | b"productid"
            | b"instid" => Parameter::Symbol,
            b"id" | b"orderid" | b"accountid" | b"clientorderid" | b"origclientorderid"
            | b"clientoid" | b"orderlistid" | b"userid" | b"subaccountid" | b"subid"
            | b"withdrawid" | b"withdrawalid" | b"transferid" | b"tranid" | b"tradeid" => {
                Parameter::Object
            }
            b"sign" | b"sig" | b"hmac" | b"code" | b"otp" | b"totp" | b"pin" | b"mfa" | b"2fa"
            | b"tfa" | b"key" | b"auth" | b"authorization" | b"authent" | b"jwt" | b"session"
            | b"sid" | b"cookie" | b"cookies" | b"pwd" | b"pass" | b"codeverifier"
            | b"credentials" | b"credential" | b"mnemonic" | b"seed" | b"listenkey" | b"nonce"
            | b"state" | b"verificationcode" | b"authcode" => Parameter::Secret,
            _ => match name.last() {
                // Most names end in another letter.
                Some(b'n' | b't' | b'd' | b'e' | b'y')
                    if SECRET_ENDS.iter().any(|end| name.ends_with(end)) =>
                {
                    Parameter::Secret
                }
                Some(_) | None => Parameter::Plain,
            },
        }
    }
}

/// A name that ends in one of these holds a secret: `refresh_token`, `client_secret`.
const SECRET_ENDS: &[&[u8]] = &[
    b"token",
    b"secret",
    b"password",
    b"passwd",
    b"passphrase",
    b"signature",
    b"apikey",
    b"accesskey",
    b"accesskeyid",
    b"privatekey",
    b"secretkey",
    b"sessionid",
    b"sessid",
    b"assertion",
    b"otpcode",
    b"mfacode",
    b"2facode",
    b"totpcode",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_end_is_looked_for() {
        for end in SECRET_ENDS {
            assert_eq!(Parameter::of_plain(&[b"x", *end].concat()), Parameter::Secret);
        }
    }

    #[test]
    fn one_name_in_many_spellings() {
        for name in ["api_key", "apikey", "apiKey", "API-KEY", "api%4bey", "api%5Fkey", "api.key"] {
            assert_eq!(Parameter::of(name.as_bytes()), Parameter::Key, "{name}");
        }
        for name in
            ["Signature", "access_token", "listenKey", "client%5fsecret", "%74otp", "a%2562"]
        {
            assert_eq!(Parameter::of(name.as_bytes()), Parameter::Secret, "{name}");
        }
        for name in ["timestamp", "recvWindow", "side", ""] {
            assert_eq!(Parameter::of(name.as_bytes()), Parameter::Plain, "{name}");
        }
        assert_eq!(Parameter::of(&[b'a'; 41]), Parameter::Secret);
        assert_eq!(Parameter::of(b"instrument_name"), Parameter::Symbol);
        assert_eq!(Parameter::of(b"orderId"), Parameter::Object);
    }
}
