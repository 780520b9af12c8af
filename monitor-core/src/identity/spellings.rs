//! What parameters of late were called, and what that said: clients spell the same few names at each call.

use std::cell::RefCell;

use super::Style;
use super::profile::{Parameter, Profiles};
use super::signing::Stated;

/// Several times the names in use on a busy host; 16 KiB.
const SLOTS: usize = 512;

/// Longer names are looked up each time.
const NAME_BYTES_MAX: usize = 16;

/// What a name says.
pub(super) type Meaning = (Parameter, Option<Stated>);

/// A table with one place for each remainder of a hash: the last name there stays.
pub(super) struct Spellings(RefCell<Box<[Slot]>>);

#[derive(Clone, Copy)]
struct Slot {
    spelling: Spelling,
    meaning: Meaning,
}

/// A name in full, and the style that it is read in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spelling {
    words: [u64; 2],
    /// 0 in an empty place.
    len: u8,
    style: Style,
}

impl Spellings {
    /// No name is known.
    pub(super) fn new() -> Spellings {
        let spelling = Spelling { words: [0; 2], len: 0, style: Style::GENERIC };
        let empty = Slot { spelling, meaning: (Parameter::Plain, None) };
        Spellings(RefCell::new(vec![empty; SLOTS].into()))
    }

    /// What a name says in a style: as before, or else as the profiles have it.
    #[inline]
    pub(super) fn look(&self, profiles: &Profiles, name: &[u8], style: Style) -> Meaning {
        self.find(name, style, || profiles.names.look(name, style))
    }

    #[inline]
    fn find(&self, name: &[u8], style: Style, look: impl FnOnce() -> Meaning) -> Meaning {
        let Some(spelling) = Spelling::new(name, style) else { return look() };
        let place = spelling.place();
        if let Some(slot) = self.0.borrow().get(place)
            && slot.spelling == spelling
        {
            return slot.meaning;
        }
        let meaning = look();
        if let Some(slot) = self.0.borrow_mut().get_mut(place) {
            *slot = Slot { spelling, meaning };
        }
        meaning
    }
}

impl Spelling {
    /// `None` when the name is empty or too long.
    #[inline]
    fn new(name: &[u8], style: Style) -> Option<Spelling> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        // Two words that overlap hold every byte of a name as long as one of them.
        let words = if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
        } else if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()]
        } else {
            [name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0]
        };
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        Some(Spelling { words, len, style })
    }

    fn place(&self) -> usize {
        /// 64 bits of pi, made odd.
        const FACTOR: u64 = 0x243f_6a88_85a3_08d3;
        let [first, last] = self.words;
        let mixed = (first ^ last.rotate_left(29) ^ u64::from(self.len)).wrapping_mul(FACTOR);
        (mixed >> 32) as usize % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identifier, RequestHead, Secret};
    use super::*;

    const KEY: Meaning = (Parameter::Key, None);
    const OTHER: Meaning = (Parameter::Plain, Some(Stated::Nonce));

    #[test]
    fn a_name_is_looked_up_once_and_styles_are_apart() {
        let spellings = Spellings::new();
        let (one, other) = (Style::GENERIC, Style(3));
        for len in 1..=NAME_BYTES_MAX {
            let name = &b"abcdefghijklmnop"[..len];
            assert_eq!(spellings.find(name, one, || KEY), KEY, "{len}");
            assert_eq!(spellings.find(name, one, || unreachable!()), KEY, "{len}");
            assert_eq!(spellings.find(name, other, || OTHER), OTHER, "{len}");
        }
    }

    #[test]
    fn other_profiles_say_other_things() {
        let mut identifier = Identifier::new(Secret::new([7; 32]));
        let target = |identifier: &Identifier| {
            let head = RequestHead { method: "GET", target: "/a?desk=blue", headers: &[] };
            identifier.identify(&head).target
        };
        assert_eq!(target(&identifier), "/a?desk=blue");
        let file = "name = \"own\"\ntitle = \"x\"\n[fields]\nsecret = [\"desk\"]\n";
        let Ok(profiles) = Profiles::with(&[("own.toml".into(), file.into())]) else { panic!() };
        identifier.set_profiles(std::sync::Arc::new(profiles));
        assert_eq!(target(&identifier), "/a?desk=[redacted]");
    }

    #[test]
    fn names_that_differ_in_a_byte_are_not_mixed() {
        for len in 1..=NAME_BYTES_MAX {
            let name = vec![b'a'; len];
            let known = Spelling::new(&name, Style::GENERIC);
            assert!(known.is_some());
            for at in 0..len {
                let mut next = name.clone();
                next[at] = b'b';
                assert!(known != Spelling::new(&next, Style::GENERIC), "{len} {at}");
            }
            // A byte more or less.
            assert!(known != Spelling::new(&name[1..], Style::GENERIC));
        }
    }

    #[test]
    fn what_is_empty_or_long_is_looked_up_each_time() {
        let spellings = Spellings::new();
        for name in [&b""[..], &[b'a'; NAME_BYTES_MAX + 1]] {
            assert_eq!(spellings.find(name, Style::GENERIC, || KEY), KEY);
            assert_eq!(spellings.find(name, Style::GENERIC, || OTHER), OTHER);
        }
    }
}
