//! What the fields of a body are called. Most bodies are orders of a few kinds, so the names of each kind
//! are kept once and shared by its calls.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::call::{Fields, PARAMETERS_MAX, list_name};
use crate::plain::{RANDOM_BYTES_MIN, plain};

/// Kinds of bodies that are kept, each in the one place that it may have: 4 KiB, and 100 B each.
const SLOTS: usize = 256;

/// Bytes of the names of one body, with what is between them.
const BYTES_MAX: usize = 512;

/// Letters of the longest names in use, and one.
const LETTERS_MAX: usize = 25;

/// Names of one body, as they are met.
#[derive(Default)]
pub(super) struct Named {
    joined: SmallVec<[u8; 128]>,
    count: usize,
}

impl Named {
    /// Adds a name as it stands in a form or in JSON. What the other elements of a list are called is
    /// left out.
    pub(super) fn add(&mut self, raw_name: &[u8]) {
        let name = list_name(raw_name);
        if self.count == PARAMETERS_MAX {
            return;
        }
        let shown;
        let name = if is_word(name) {
            name
        } else {
            shown = plain(name).filter(|name| !name.contains(','));
            shown.as_ref().map_or(Fields::ODD.as_bytes(), |name| name.as_bytes())
        };
        if self.joined.len() + name.len() >= BYTES_MAX {
            return;
        }
        self.count += 1;
        if !self.joined.is_empty() {
            self.joined.push(b',');
        }
        self.joined.extend_from_slice(name);
    }
}

/// Most names are: none this short looks like a secret, and none without digits that is not much longer
/// (`selfTradePreventionMode`).
fn is_word(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let max = if name.iter().any(u8::is_ascii_digit) { RANDOM_BYTES_MIN } else { LETTERS_MAX };
    !name.is_empty() && name.len() < max && name.iter().all(is_part)
}

/// Names that are shared.
pub(super) struct Shared {
    slots: RefCell<Box<[Option<Arc<str>>]>>,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared { slots: RefCell::new(vec![None; SLOTS].into()) }
    }

    /// The names of a body; `None` when it has none.
    pub(super) fn of(&self, named: &Named) -> Option<Fields> {
        let text = std::str::from_utf8(&named.joined).ok().filter(|text| !text.is_empty())?;
        let place = FixedState::with_seed(0).hash_one(text) as usize % SLOTS;
        let slot = &mut self.slots.borrow_mut()[place];
        let shared = match slot {
            Some(known) if **known == *text => known.clone(),
            Some(_) | None => slot.insert(text.into()).clone(),
        };
        Some(Fields::new(shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&str]) -> Option<Fields> {
        let mut named = Named::default();
        names.iter().for_each(|name| named.add(name.as_bytes()));
        Shared::new().of(&named)
    }

    #[test]
    fn names_are_shown_and_what_is_none_is_not() {
        let of = |names: &[&str]| {
            let fields = fields(names)?;
            Some(fields.names().map(str::to_owned).collect::<Vec<_>>())
        };
        let known = of(&["symbol", "newClientOrderId", "ids[0]"]).unwrap();
        assert_eq!(known, ["symbol", "newClientOrderId", "ids"]);
        for odd in ["vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv", "a,b", "", "two words", "\u{1b}[2J"] {
            assert_eq!(of(&[odd]).unwrap(), ["?"], "{odd}");
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_flood_of_names_is_cut() {
        let names: Vec<String> = (0..1_000).map(|n| format!("name{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(fields(&names).unwrap().names().count(), PARAMETERS_MAX);
        let long = "a-b-c-d-".repeat(8);
        assert!(
            fields(&[long.as_str(); 32]).unwrap().names().map(str::len).sum::<usize>() < BYTES_MAX
        );
    }

    #[test]
    fn bodies_of_one_kind_share_their_names() {
        let shared = Shared::new();
        let of = |name: &str| {
            let mut named = Named::default();
            named.add(name.as_bytes());
            shared.of(&named).unwrap()
        };
        let first = of("symbol");
        let more = (0..1_000).map(|n| of(&format!("n{n}"))).count();
        assert_eq!((of("symbol"), more), (first, 1_000));
    }
}
