//! Which client holds the cookie or token of a key: fingerprints and networks last seen with it.

use serde::{Deserialize, Serialize};

/// Clients remembered a key: the one in use, the one before, and a thief's.
const HOLDERS: usize = 3;
/// Who was not seen for so long has given the session up, seconds.
const IN_USE_S: u16 = 600;

/// Who used a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Holder {
    /// Which token, where one key has several.
    pub(crate) session: u16,
    /// Hash of user agent and JA4; 0 is an empty place.
    pub(crate) print: u16,
    /// Hash of the network.
    pub(crate) network: u16,
}

/// Holders of a key's sessions, the last one first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sessions {
    holders: [Holder; HOLDERS],
    /// How long ago each was seen, seconds, at the time of the last call.
    ago_s: [u16; HOLDERS],
    last_s: u32,
}

impl Sessions {
    /// A call of a holder. True when it and another client elsewhere use one session in turns: it
    /// was here, then the other, and now it again, all within ten minutes.
    pub(crate) fn note(&mut self, holder: Holder, now_s: u32) -> bool {
        let passed = u16::try_from(now_s.saturating_sub(self.last_s)).unwrap_or(u16::MAX);
        self.last_s = now_s;
        if passed > 0 {
            self.ago_s.iter_mut().for_each(|ago| *ago = ago.saturating_add(passed));
        }
        if let Some(at) = self.holders.iter().position(|known| *known == holder) {
            let was_here = self.ago_s[at] <= IN_USE_S;
            let others = self.holders[..at].iter();
            let in_turns = was_here && others.into_iter().any(|other| other.shares_with(&holder));
            self.put_first(at, holder);
            return in_turns;
        }
        // Who only moved to another network stays one holder.
        let is_same =
            |known: &Holder| (known.session, known.print) == (holder.session, holder.print);
        let at = self.holders.iter().position(is_same).unwrap_or(HOLDERS - 1);
        self.put_first(at, holder);
        false
    }

    fn put_first(&mut self, at: usize, holder: Holder) {
        self.holders[..=at].rotate_right(1);
        self.ago_s[..=at].rotate_right(1);
        (self.holders[0], self.ago_s[0]) = (holder, 0);
    }
}

impl Holder {
    /// Whether another client elsewhere has the same session.
    fn shares_with(&self, other: &Holder) -> bool {
        self.print != 0
            && self.session == other.session
            && self.print != other.print
            && self.network != other.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_turns_and_elsewhere() {
        let holder = |print, network| Holder { session: 1, print, network };
        let mut sessions = Sessions::default();
        assert!(!sessions.note(holder(1, 1), 1_000));
        assert!(!sessions.note(holder(2, 2), 1_010), "an update, or a move");
        assert!(sessions.note(holder(1, 1), 1_020), "but this is still in use");
        assert!(sessions.note(holder(2, 2), 1_030));
        assert!(!sessions.note(holder(1, 1), 2_000), "long after");
        assert!(!sessions.note(holder(3, 1), 2_001));
        assert!(!sessions.note(holder(1, 1), 2_002), "two programs in one place");
        let other = Holder { session: 2, ..holder(2, 2) };
        assert!(!sessions.note(other, 2_003), "another session");
        assert!(!sessions.note(holder(1, 1), 2_004));
    }
}
