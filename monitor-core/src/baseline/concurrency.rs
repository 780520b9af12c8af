//! From how many networks a key is used at the same time, and how often it is: within a minute, and
//! within a quarter of an hour, in which slow keys make as many calls.

use serde::{Deserialize, Serialize};

use super::marks::Mark;

/// Networks told apart within a window.
const NETWORKS: usize = 4;
/// Changes between networks within a window that are use at once and not a move: there, back, and
/// there again.
const CHANGES_MIN: u8 = 3;
/// Of windows that were found odd, one in so many is learnt.
const ODD_LEARNT_PART: u8 = 4;

/// The running window, and the windows before it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Concurrency {
    /// 0 is an empty place; the last used comes first.
    networks: [u16; NETWORKS],
    /// Windows of use, and those with several networks at once.
    #[serde(alias = "minutes")]
    windows: u16,
    shared: u16,
    changes: u8,
    is_v6: bool,
    is_odd: bool,
    odd: u8,
}

impl Concurrency {
    /// A call from a network. Gives the number of networks when the key turns out to be used from
    /// several at once, and at each further one. A client that speaks IPv4 and IPv6 at once is in
    /// one place, so the family that came first in the window counts.
    pub(crate) fn note(&mut self, network: Mark, is_v6: bool) -> Option<usize> {
        let mark = network.number();
        let is_first = self.networks[0] == 0;
        if is_first {
            self.is_v6 = is_v6;
        } else if self.is_v6 != is_v6 {
            return None;
        }
        if self.networks[0] == mark {
            return None;
        }
        self.changes = self.changes.saturating_add(u8::from(!is_first));
        let known = self.networks.iter().position(|network| *network == mark);
        let at = known.unwrap_or(NETWORKS - 1);
        self.networks[..=at].rotate_right(1);
        self.networks[0] = mark;
        let is_news =
            self.changes == CHANGES_MIN || (known.is_none() && self.changes > CHANGES_MIN);
        is_news.then(|| self.networks.iter().filter(|network| **network != 0).count())
    }

    /// The running window does not fit: it is learnt in part.
    pub(crate) fn note_odd(&mut self) {
        self.is_odd = true;
    }

    /// Windows of use.
    pub(crate) fn windows(&self) -> u16 {
        self.windows
    }

    /// The chance that a window of use has several networks, by Laplace's rule of succession.
    pub(crate) fn chance(&self) -> f64 {
        (f64::from(self.shared) + 1.0) / (f64::from(self.windows) + 2.0)
    }

    /// The window is over.
    pub(crate) fn close(&mut self) {
        if self.networks[0] != 0 {
            if self.windows == u16::MAX {
                (self.windows, self.shared) = (self.windows / 2, self.shared / 2);
            }
            self.windows += 1;
            self.odd = self.odd.wrapping_add(u8::from(self.is_odd));
            let is_learnt = !self.is_odd || self.odd.is_multiple_of(ODD_LEARNT_PART);
            self.shared =
                self.shared.saturating_add(u16::from(self.changes >= CHANGES_MIN && is_learnt));
        }
        self.discard();
    }

    /// Forgets the running window.
    pub(crate) fn discard(&mut self) {
        (self.networks, self.changes, self.is_odd) = ([0; NETWORKS], 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_not_use_at_once() {
        let mut it = Concurrency::default();
        for c in [1, 1, 2, 2, 1] {
            assert_eq!(it.note(Mark::of(c), false), None);
        }
        assert_eq!(it.note(Mark::of(2), false), Some(2));
        assert_eq!(it.note(Mark::of(1), false), None);
        assert_eq!(it.note(Mark::of(3), false), Some(3));
        assert_eq!(it.note(Mark::of(4), true), None, "the other family");
        it.close();
        assert_eq!((it.windows, it.shared), (1, 1));
    }
}
