//! What the names of parameters and members say about their values.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::super::Style;
use super::super::percent;
use super::super::signing::Stated;

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Parameter {
    /// The API key itself, by some profile.
    Key,
    /// A signature, token, password or code: never recorded.
    Secret,
    /// The traded instrument.
    Symbol,
    /// The id of an object.
    Object,
    /// An account or sub-account.
    Account,
    /// How much.
    Amount,
    /// Anything else.
    Plain,
}

/// Letters and digits of a name that are compared; the longest in use have 25. A longer name is
/// taken for a secret's: nothing is lost with it.
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

/// Every name that a profile mentions.
#[derive(Debug, Default)]
pub(in crate::identity) struct Names {
    map: HashMap<Box<[u8]>, Entry, FixedState>,
    /// A name that ends in one of these holds a secret.
    ends: Vec<Box<[u8]>>,
    /// Their last bytes, a bit each.
    last_bytes: u128,
}

#[derive(Debug, Default)]
struct Entry {
    key: bool,
    secret: bool,
    stated: Option<Stated>,
    common: Option<Parameter>,
    of_styles: SmallVec<[(Style, Parameter); 2]>,
}

impl Names {
    /// A name of one style, or of all.
    pub(super) fn add(&mut self, name: &str, style: Option<Style>, parameter: Parameter) {
        let entry = self.map.entry(compared(name)).or_default();
        match (parameter, style) {
            (Parameter::Key, _) => entry.key = true,
            // What is a secret somewhere is shown nowhere.
            (Parameter::Secret, _) => entry.secret = true,
            (_, None) => entry.common = Some(parameter),
            (_, Some(style)) => entry.of_styles.push((style, parameter)),
        }
    }

    /// A name of what a client states when it signs; a signature is a secret too.
    pub(super) fn add_stated(&mut self, name: &str, stated: Stated) {
        let entry = self.map.entry(compared(name)).or_default();
        entry.stated = entry.stated.or(Some(stated));
        entry.secret |= stated == Stated::Signature;
    }

    /// The end of every name of a secret.
    pub(super) fn add_end(&mut self, end: &str) {
        let end = compared(end);
        self.last_bytes |= end.last().map_or(0, |last| bit(*last));
        self.ends.push(end);
    }

    /// From a name as it stands in a target, a form or JSON. Percent-encoding, case and punctuation
    /// make no difference: `api_key`, `apiKey`, `api-key` and `api%4bey` are one name.
    pub(in crate::identity) fn of(&self, raw_name: &[u8], style: Style) -> Parameter {
        self.look(raw_name, style).0
    }

    /// The same, and what it says of the signing.
    pub(in crate::identity) fn look(
        &self,
        raw_name: &[u8],
        style: Style,
    ) -> (Parameter, Option<Stated>) {
        let mut name = [0; NAME_BYTES_MAX];
        let mut len = 0;
        // Nearly all names are plain.
        if raw_name.len() <= NAME_BYTES_MAX {
            let mut is_encoded = false;
            for byte in raw_name {
                let byte = COMPARED[usize::from(*byte)];
                name[len] = byte;
                len += usize::from(byte != 0);
                is_encoded |= byte == b'%';
            }
            if !is_encoded {
                return self.of_compared(&name[..len], style);
            }
            len = 0;
        }
        for (_, byte) in percent::decoded(raw_name) {
            match COMPARED[usize::from(byte)] {
                0 => {}
                // Encoded twice: no server should read it, and nobody misses its value.
                b'%' => return (Parameter::Secret, None),
                byte => {
                    let Some(place) = name.get_mut(len) else { return (Parameter::Secret, None) };
                    *place = byte;
                    len += 1;
                }
            }
        }
        self.of_compared(&name[..len], style)
    }

    fn of_compared(&self, name: &[u8], style: Style) -> (Parameter, Option<Stated>) {
        let entry = self.map.get(name);
        let stated = entry.and_then(|entry| entry.stated);
        let known = match entry {
            Some(entry) if entry.key => Some(Parameter::Key),
            Some(entry) if entry.secret => Some(Parameter::Secret),
            Some(entry) => {
                let own = entry.of_styles.iter().find(|(of, _)| *of == style);
                let known = own.map(|(_, it)| *it).or(entry.common);
                // The end of its name counts when only its signing is known.
                known.or(entry.stated.is_none().then_some(Parameter::Plain))
            }
            None => None,
        };
        let parameter = match known {
            Some(known) => known,
            None => match name.last() {
                Some(last)
                    if self.last_bytes & bit(*last) != 0
                        && self.ends.iter().any(|end| name.ends_with(end)) =>
                {
                    Parameter::Secret
                }
                Some(_) | None => Parameter::Plain,
            },
        };
        (parameter, stated)
    }
}

/// Names that are compared are ASCII.
fn bit(byte: u8) -> u128 {
    1 << (byte & 0x7f)
}

/// Whether two names are one.
pub(in crate::identity) fn same_name(raw_name: &[u8], known: &[u8]) -> bool {
    let mut known = known.iter().map(|byte| COMPARED[usize::from(*byte)]).filter(|it| *it != 0);
    let seen = percent::decoded(raw_name).map(|(_, byte)| COMPARED[usize::from(byte)]);
    let mut seen = seen.filter(|it| *it != 0);
    loop {
        match (seen.next(), known.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            (_, _) => return false,
        }
    }
}

fn compared(name: &str) -> Box<[u8]> {
    name.bytes().map(|byte| COMPARED[usize::from(byte)]).filter(|byte| *byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Profiles;
    use super::*;

    #[test]
    fn one_name_in_many_spellings() {
        let profiles = Profiles::builtin();
        let of = |name: &str| profiles.names.of(name.as_bytes(), Style::GENERIC);
        for name in ["api_key", "apikey", "apiKey", "API-KEY", "api%4bey", "api%5Fkey", "api.key"] {
            assert_eq!(of(name), Parameter::Key, "{name}");
            assert!(same_name(name.as_bytes(), b"api_key"), "{name}");
        }
        for name in [
            "Signature",
            "access_token",
            "listenKey",
            "client%5fsecret",
            "%74otp",
            "a%2562",
            "signature",
            "x2facode",
            "xjsessionid",
        ] {
            assert_eq!(of(name), Parameter::Secret, "{name}");
        }
        for name in ["timestamp", "recvWindow", "side", "", "text"] {
            assert_eq!(of(name), Parameter::Plain, "{name}");
        }
        assert_eq!(of(&"a".repeat(41)), Parameter::Secret);
        assert_eq!(of("instrument_name"), Parameter::Symbol);
        assert_eq!(of("orderId"), Parameter::Object);
        assert!(!same_name(b"api_key", b"api_keys"));
    }

    #[test]
    fn a_name_may_mean_more_in_a_style() {
        let profiles = Profiles::builtin();
        let gate = profiles.style("gate").unwrap();
        assert_eq!(profiles.names.of(b"text", gate), Parameter::Object);
        assert_eq!(profiles.names.of(b"currency_pair", gate), Parameter::Symbol);
    }
}
