//! Key ids of credentials that were hashed lately, so that a busy key costs a hash once and not at
//! every call; a bearer token is not taken apart at every call either.
//!
//! A credential is known again by a 128-bit SipHash under a key of its own. Nothing of the credential
//! itself is kept, and without that key nobody can make two that are taken for one (Aumasson and
//! Bernstein, SipHash: a fast short-input PRF, 2012).

use std::cell::Cell;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::credential::Form;
use crate::call::KeyId;

/// Twice the keys that are busy at once on a large exchange edge host; 128 KiB.
const SLOTS: usize = 4096;

/// A table with one place for each remainder of the hash: the last one there stays.
pub(super) struct Known {
    hash: SipHasher24,
    slots: Box<[Cell<Slot>]>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// 0 in an empty place: no more likely to be met than any other 128 bits.
    tag: u128,
    id: KeyId,
}

impl Known {
    /// Nothing known. `key` must come from the secret.
    pub(super) fn new(key: &[u8; 16]) -> Known {
        let empty = Slot { tag: 0, id: KeyId(0) };
        Known {
            hash: SipHasher24::new_with_key(key),
            slots: (0..SLOTS).map(|_| Cell::new(empty)).collect(),
        }
    }

    /// The id of a credential in this form: the one made for it before, or else a new one.
    pub(super) fn id(
        &self,
        form: Form,
        credential: &[u8],
        make: impl FnOnce() -> Option<KeyId>,
    ) -> Option<KeyId> {
        let mut hash = self.hash;
        hash.write_u8(form as u8);
        hash.write(credential);
        let tag = hash.finish128().as_u128();
        let place = &self.slots[(tag % SLOTS as u128) as usize];
        let slot = place.get();
        if slot.tag == tag {
            return Some(slot.id);
        }
        let id = make()?;
        place.set(Slot { tag, id });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_hashed_once_and_forms_are_kept_apart() {
        let known = Known::new(&[7; 16]);
        let made = Cell::new(0);
        let id = |form, credential: &[u8]| {
            known.id(form, credential, || {
                made.set(made.get() + 1);
                Some(KeyId(made.get()))
            })
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
        assert_eq!(known.id(Form::Basic, b"x", || None), None);
        assert_eq!(known.id(Form::Basic, b"x", || Some(KeyId(5))), Some(KeyId(5)));
        assert_eq!(known.id(Form::Basic, b"x", || None), Some(KeyId(5)));
    }

    #[test]
    fn a_full_table_forgets_and_never_mixes() {
        let known = Known::new(&[7; 16]);
        for _ in 0..2 {
            for number in 0..3 * SLOTS as u128 {
                let id = known.id(Form::Plain, &number.to_le_bytes(), || Some(KeyId(number)));
                assert_eq!(id, Some(KeyId(number)));
            }
        }
    }
}
