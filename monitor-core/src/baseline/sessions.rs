//! Which client holds the cookie or token of a key: fingerprints and networks last seen with it.

use serde::{Deserialize, Serialize};

use super::marks::{Mark, Marks};

/// Clients remembered a key: the one in use, the one before, and a thief's.
const HOLDERS: usize = 3;
/// Who was not seen for so long has given the session up, seconds.
const IN_USE_S: u16 = 600;

/// Whom a key's token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// For the same as others before.
    Known,
    /// The first that the key shows.
    First(Mark),
    /// For another than all before.
    Other(Mark),
}

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
    /// Whom its tokens are for.
    audiences: Marks<2>,
}

/// What a call tells of who holds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// One client, as far as is known.
    ByOne,
    /// This call's client and another elsewhere use it in turns: it was here, then the other, and now it
    /// again, all within ten minutes.
    InTurns,
    /// Another client elsewhere had it before, and this one never.
    Passed,
}

impl Sessions {
    /// A call of a holder.
    pub(crate) fn note(&mut self, holder: Holder, now_s: u32) -> Held {
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
            return if in_turns { Held::InTurns } else { Held::ByOne };
        }
        let is_passed = self.holders.iter().any(|other| other.shares_with(&holder));
        // Who only moved to another network stays one holder.
        let is_same =
            |known: &Holder| (known.session, known.print) == (holder.session, holder.print);
        let known = self.holders.iter().position(is_same);
        self.put_first(known.unwrap_or(HOLDERS - 1), holder);
        if known.is_none() && is_passed { Held::Passed } else { Held::ByOne }
    }

    /// A token for these was taken: what is said of the first that the key's tokens were never for, while
    /// none is one that they were for.
    pub(crate) fn note_audience(&mut self, audience: impl Iterator<Item = Mark>) -> Audience {
        let (mut unknown, mut is_known) = (None, false);
        let is_first = self.audiences.is_empty();
        for mark in audience {
            if self.audiences.has(mark) {
                is_known = true;
            } else {
                unknown = unknown.or(Some(mark));
            }
            self.audiences.add(mark);
        }
        match unknown {
            Some(mark) if is_first => Audience::First(mark),
            Some(mark) if !is_known => Audience::Other(mark),
            Some(_) | None => Audience::Known,
        }
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
        assert_eq!(sessions.note(holder(1, 1), 1_000), Held::ByOne);
        assert_eq!(sessions.note(holder(2, 2), 1_010), Held::Passed, "or an update");
        assert_eq!(sessions.note(holder(1, 1), 1_020), Held::InTurns, "but this is still in use");
        assert_eq!(sessions.note(holder(2, 2), 1_030), Held::InTurns);
        assert_eq!(sessions.note(holder(1, 1), 2_000), Held::ByOne, "long after");
        assert_eq!(
            sessions.note(holder(3, 1), 2_001),
            Held::Passed,
            "who has (2, 2) may be a thief"
        );
        assert_eq!(sessions.note(holder(1, 1), 2_002), Held::ByOne, "two programs in one place");
        let other = Holder { session: 2, ..holder(2, 2) };
        assert_eq!(sessions.note(other, 2_003), Held::ByOne, "another session");
        assert_eq!(sessions.note(holder(1, 1), 2_004), Held::ByOne);
    }
}
