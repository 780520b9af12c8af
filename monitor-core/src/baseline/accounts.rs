//! Which accounts a key names, and whose keys name an account (DETECTORS.md, D26).

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::Slots;
use crate::call::KeyId;

/// Accounts of one key (DETECTORS.md, D26); a key with more acts for many, and one more says nothing.
const ACCOUNTS: usize = 8;

/// Calls with an account after which a key has shown its own (DETECTORS.md, D26).
const SETTLED_CALLS: u8 = 50;

/// And after which another key's account is no beginner's mistake any more.
const SHOWN_CALLS: u8 = 8;

/// Calls that make an account a key's own, for other keys to keep off.
const OWNED_CALLS: u32 = 8;

/// Accounts that a key names, by hashes of their ids.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Accounts {
    known: [u32; ACCOUNTS],
    len: u8,
    calls: u8,
    many: bool,
}

const _: () = assert!(size_of::<Accounts>() <= 64, "DETECTORS.md: 64 B a key at most");

/// What an account means for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// Its own, or the key is too young to tell.
    Own,
    /// The key has shown its own, so many of them.
    New(u8),
    /// It has shown some of its own, so many of them.
    Early(u8),
}

impl Accounts {
    /// Judges an account of a call that went well, and learns it.
    pub(crate) fn judge(&mut self, account: &str) -> Account {
        let hash = (account_hash(account) as u32).max(1);
        let known = &self.known[..usize::from(self.len)];
        let settled = self.calls >= SETTLED_CALLS;
        self.calls = self.calls.saturating_add(1);
        if self.many || known.contains(&hash) {
            return Account::Own;
        }
        let before = self.len;
        match self.known.get_mut(usize::from(self.len)) {
            Some(slot) => {
                *slot = hash;
                self.len += 1;
            }
            None => self.many = true,
        }
        match (before, settled) {
            (_, _) if self.many => Account::Own,
            (0, _) => Account::Own,
            (_, true) => Account::New(before),
            (_, false) if self.calls > SHOWN_CALLS => Account::Early(before),
            (_, false) => Account::Own,
        }
    }
}

/// Whose key named an account first, and kept on naming it.
pub(crate) struct Owners(Slots<u64, Owner>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    key: KeyId,
    calls: u32,
}

impl Owners {
    pub(crate) fn new(max: usize) -> Owners {
        Owners(Slots::new(max, |owner| owner.calls >= OWNED_CALLS))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Notes that a key named an account and was served; the other key that owns it, if one does.
    pub(crate) fn note(&mut self, account: &str, key: KeyId, former: &[KeyId]) -> Option<KeyId> {
        let owner = self.0.find_or_insert(account_hash(account), || Owner { key, calls: 0 });
        if owner.key == key || former.contains(&owner.key) {
            owner.key = key;
            owner.calls = owner.calls.saturating_add(1);
            return None;
        }
        (owner.calls >= OWNED_CALLS).then_some(owner.key)
    }
}

/// The same in every run: it is kept.
fn account_hash(account: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(account.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_new_once_the_key_has_shown_its_own() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.judge("early"), Account::Own);
        for _ in 0..49 {
            assert_eq!(accounts.judge("own"), Account::Own);
        }
        assert_eq!(accounts.judge("foreign"), Account::New(2));
        assert_eq!(accounts.judge("foreign"), Account::Own, "said once");
    }

    #[test]
    fn a_key_of_many_accounts_is_not_judged() {
        let mut accounts = Accounts::default();
        for n in 0..200 {
            assert_eq!(accounts.judge(&n.to_string()), Account::Own);
        }
    }

    #[test]
    fn an_account_is_owned_by_who_keeps_on_naming_it() {
        let mut owners = Owners::new(10);
        for _ in 0..7 {
            assert_eq!(owners.note("a", KeyId(1), &[]), None);
        }
        assert_eq!(owners.note("a", KeyId(2), &[]), None);
        owners.note("a", KeyId(1), &[]);
        assert_eq!(owners.note("a", KeyId(2), &[]), Some(KeyId(1)));
        assert_eq!(owners.note("a", KeyId(3), &[KeyId(7), KeyId(1)]), None, "the same key");
        assert_eq!(owners.note("a", KeyId(2), &[]), Some(KeyId(3)));
    }
}
