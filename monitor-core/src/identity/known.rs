//! Whom credentials name that were hashed lately, so that a busy key costs a hash once and not at every
//! call; a bearer token is not taken apart at every call either.
//!
//! A credential is known again by a 128-bit SipHash under a key of its own. Nothing of the credential
//! itself is kept, and without that key, and without ever seeing a hash, nobody can make two that are
//! taken for one (Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012).

use std::cell::RefCell;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::credential::{Form, Named};
use crate::call::KeyId;

/// Twice the keys that are busy at once on a large exchange edge host; 256 KiB and the tokens.
const SLOTS: usize = 4096;

/// A table with one place for each remainder of the hash: the last one there stays.
pub(super) struct Known {
    hash: SipHasher13,
    slots: RefCell<Box<[Slot]>>,
}

#[derive(Clone)]
struct Slot {
    /// 0 in an empty place: no more likely to be met than any other 128 bits.
    tag: u128,
    named: Named,
}

impl Known {
    /// Nothing known. `key` must come from the secret.
    pub(super) fn new(key: &[u8; 16]) -> Known {
        let empty = Slot { tag: 0, named: Named { id: KeyId(0), former: None, token: None } };
        Known {
            hash: SipHasher13::new_with_key(key),
            slots: RefCell::new(vec![empty; SLOTS].into()),
        }
    }

    /// Whom a credential in this form names: as before, or else as it is made now.
    pub(super) fn find(
        &self,
        form: Form,
        credential: &[u8],
        make: impl FnOnce() -> Option<Named>,
    ) -> Option<Named> {
        let mut hash = self.hash;
        hash.write_u8(form as u8);
        hash.write(credential);
        let tag = hash.finish128().as_u128();
        let place = (tag % SLOTS as u128) as usize;
        if let Some(slot) = self.slots.borrow().get(place)
            && slot.tag == tag
        {
            return Some(slot.named.clone());
        }
        let named = make()?;
        if let Some(slot) = self.slots.borrow_mut().get_mut(place) {
            *slot = Slot { tag, named: named.clone() };
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn named(number: u128) -> Option<Named> {
        Some(Named { id: KeyId(number), former: None, token: None })
    }

    #[test]
    fn a_credential_is_hashed_once_and_forms_are_kept_apart() {
        let known = Known::new(&[7; 16]);
        let made = Cell::new(0);
        let id = |form, credential: &[u8]| {
            let found = known.find(form, credential, || {
                made.set(made.get() + 1);
                named(made.get())
            });
            found.map(|it| it.id)
        };
        let first = id(Form::Plain, b"a");
        assert_eq!((id(Form::Plain, b"a"), made.get()), (first, 1));
        assert_ne!(id(Form::Encoded, b"a"), first);
        assert_ne!(id(Form::Plain, b"b"), first);
        assert_eq!(made.get(), 3);
    }

    #[test]
    fn what_has_no_id_is_asked_for_again() {
        let known = Known::new(&[7; 16]);
        let id = |made| known.find(Form::Basic, b"x", || made).map(|it| it.id.0);
        assert_eq!(id(None), None);
        assert_eq!(id(named(5)), Some(5));
        assert_eq!(id(None), Some(5));
    }

    #[test]
    fn a_full_table_forgets_and_never_mixes() {
        let known = Known::new(&[7; 16]);
        for _ in 0..2 {
            for number in 0..3 * SLOTS as u128 {
                let found = known.find(Form::Plain, &number.to_le_bytes(), || named(number));
                assert_eq!(found.map(|it| it.id.0), Some(number));
            }
        }
    }
}
