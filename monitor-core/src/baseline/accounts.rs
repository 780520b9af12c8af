//! Which accounts a key names, and whose keys name an account (DETECTORS.md, D26).

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::Slots;
use crate::call::KeyId;

/// Accounts of one key (DETECTORS.md, D26); a key with more acts for many, and one more says nothing unless
/// it is another's.
const ACCOUNTS: usize = 8;

/// Accounts of others that a key is remembered to have named.
const OTHERS: usize = 4;

/// Calls with an account after which a key has shown its own (DETECTORS.md, D26).
const SETTLED_CALLS: u8 = 50;

/// And after which another key's account is no beginner's mistake any more.
const SHOWN_CALLS: u8 = 8;

/// Calls that make an account a key's own, for other keys to keep off.
const OWNED_CALLS: u32 = 8;

/// Who did not use an account for so long has given it up, seconds: a month.
const GIVEN_UP_S: u32 = 30 * 86_400;

/// Accounts that a key names, by hashes of their ids.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Accounts {
    known: [u32; ACCOUNTS],
    len: u8,
    calls: u8,
    many: bool,
    /// Accounts of others that it named, the latest first, how many there were, and the last day of one.
    #[serde(default)]
    others: [u32; OTHERS],
    #[serde(default)]
    others_named: u16,
    #[serde(default)]
    others_day: u32,
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
    /// The key names so many that it may be its own as well.
    OfMany,
}

/// An account of another that a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Others {
    /// It named others' before, so many times.
    pub(crate) before: u16,
    /// The first of them on this day.
    pub(crate) is_first_today: bool,
}

impl Accounts {
    /// Judges an account of a call that went well, and learns it.
    pub(crate) fn judge(&mut self, account: &str) -> Account {
        let hash = (account_hash(account) as u32).max(1);
        let known = &self.known[..usize::from(self.len)];
        let settled = self.calls >= SETTLED_CALLS;
        self.calls = self.calls.saturating_add(1);
        if known.contains(&hash) {
            return Account::Own;
        }
        if self.many {
            return Account::OfMany;
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
            (_, _) if self.many => Account::OfMany,
            (0, _) => Account::Own,
            (_, true) => Account::New(before),
            (_, false) if self.calls > SHOWN_CALLS => Account::Early(before),
            (_, false) => Account::Own,
        }
    }

    /// Notes an account of another; `None` when the key named it lately.
    pub(crate) fn note_others(&mut self, account: &str, day: u32) -> Option<Others> {
        let hash = (account_hash(account) as u32).max(1);
        if self.others.contains(&hash) {
            return None;
        }
        self.others.rotate_right(1);
        self.others[0] = hash;
        let is_first_today = std::mem::replace(&mut self.others_day, day) != day;
        let before = self.others_named;
        self.others_named = before.saturating_add(1);
        Some(Others { before, is_first_today })
    }
}

/// Whose key named an account first, and kept on naming it.
pub(crate) struct Owners(Slots<u64, Owner>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    key: KeyId,
    calls: u32,
    /// Its last call, second of the epoch.
    last_s: u32,
}

/// Accounts in a snapshot, 45 B each.
const SAVED_MAX: usize = 16_384;

impl Owners {
    /// For a snapshot: accounts that are some key's own.
    pub(crate) fn save(&self) -> Vec<(u64, &Owner)> {
        self.0.to_save(SAVED_MAX)
    }

    pub(crate) fn restore(&mut self, saved: Vec<(u64, Owner)>) {
        self.0.take_back(saved);
    }

    pub(crate) fn new(max: usize) -> Owners {
        Owners(Slots::new(max, |owner| owner.calls >= OWNED_CALLS))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Notes that a key named an account and was served; the other key that owns it, if one does.
    pub(crate) fn note(
        &mut self,
        account: &str,
        key: KeyId,
        former: &[KeyId],
        now_s: u32,
    ) -> Option<KeyId> {
        let fresh = || Owner { key, calls: 0, last_s: now_s };
        let owner = self.0.find_or_insert(account_hash(account), fresh);
        if owner.key == key || former.contains(&owner.key) {
            owner.key = key;
            owner.calls = owner.calls.saturating_add(1);
            owner.last_s = now_s;
            return None;
        }
        if now_s.saturating_sub(owner.last_s) >= GIVEN_UP_S {
            *owner = Owner { key, calls: 1, last_s: now_s };
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
    fn a_key_of_many_accounts_gets_more_and_is_asked_about_those_of_others() {
        let mut accounts = Accounts::default();
        for n in 0..200 {
            let of_many = accounts.judge(&n.to_string());
            assert_eq!(of_many == Account::OfMany, n >= 8, "{n}: {of_many:?}");
        }
        let first = Others { before: 0, is_first_today: true };
        assert_eq!(accounts.note_others("a", 1), Some(first));
        assert_eq!(accounts.note_others("a", 1), None, "said once");
        let second = Others { before: 1, is_first_today: false };
        assert_eq!(accounts.note_others("b", 1), Some(second));
    }

    #[test]
    fn an_account_is_owned_by_who_keeps_on_naming_it() {
        let mut owners = Owners::new(10);
        for _ in 0..7 {
            assert_eq!(owners.note("a", KeyId(1), &[], 9), None);
        }
        assert_eq!(owners.note("a", KeyId(2), &[], 9), None);
        owners.note("a", KeyId(1), &[], 9);
        assert_eq!(owners.note("a", KeyId(2), &[], 9), Some(KeyId(1)));
        assert_eq!(owners.note("a", KeyId(3), &[KeyId(7), KeyId(1)], 9), None, "the same key");
        assert_eq!(owners.note("a", KeyId(2), &[], 9), Some(KeyId(3)));
        assert_eq!(owners.note("a", KeyId(4), &[], 9 + GIVEN_UP_S), None, "given up");
        for _ in 0..7 {
            owners.note("a", KeyId(4), &[], 10 + GIVEN_UP_S);
        }
        assert_eq!(owners.note("a", KeyId(3), &[], 11 + GIVEN_UP_S), Some(KeyId(4)));
    }
}
