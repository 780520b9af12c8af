//! From how many networks a key is used at the same time, and how often it is.

use serde::{Deserialize, Serialize};

use super::familiar::prefix;
use super::marks::Mark;

/// Networks told apart within a minute.
const NETWORKS: usize = 4;
/// Changes between networks within a minute that are use at once and not a move: there, back, and
/// there again.
const CHANGES_MIN: u8 = 3;
/// Of minutes that were found odd, one in so many is learnt.
const ODD_LEARNT_PART: u8 = 4;

/// The running minute, and the minutes before it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Concurrency {
    /// 0 is an empty place; the last used comes first.
    networks: [u16; NETWORKS],
    /// Minutes of use, and those with several networks at once.
    minutes: u16,
    shared: u16,
    changes: u8,
    is_v6: bool,
    is_odd: bool,
    odd: u8,
}

impl Concurrency {
    /// A call from an address. Gives the number of networks when the key turns out to be used from
    /// several at once, and at each further one. A client that speaks IPv4 and IPv6 at once is in
    /// one place, so the family that came first in the minute counts.
    pub(crate) fn note(&mut self, address: &[u8; 16]) -> Option<usize> {
        let is_v6 = address[..10] != [0; 10];
        let is_first = self.networks[0] == 0;
        if is_first {
            self.is_v6 = is_v6;
        } else if self.is_v6 != is_v6 {
            return None;
        }
        let mark = Mark::of(prefix(address)).number();
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

    /// The running minute does not fit: it is learnt in part.
    pub(crate) fn note_odd(&mut self) {
        self.is_odd = true;
    }

    /// Minutes of use.
    pub(crate) fn minutes(&self) -> u16 {
        self.minutes
    }

    /// The chance that a minute of use has several networks, by Laplace's rule of succession.
    pub(crate) fn chance(&self) -> f64 {
        (f64::from(self.shared) + 1.0) / (f64::from(self.minutes) + 2.0)
    }

    /// The minute is over.
    pub(crate) fn close(&mut self) {
        if self.networks[0] != 0 {
            if self.minutes == u16::MAX {
                (self.minutes, self.shared) = (self.minutes / 2, self.shared / 2);
            }
            self.minutes += 1;
            self.odd = self.odd.wrapping_add(u8::from(self.is_odd));
            let is_learnt = !self.is_odd || self.odd.is_multiple_of(ODD_LEARNT_PART);
            self.shared =
                self.shared.saturating_add(u16::from(self.changes >= CHANGES_MIN && is_learnt));
        }
        self.discard();
    }

    /// Forgets the running minute.
    pub(crate) fn discard(&mut self) {
        (self.networks, self.changes, self.is_odd) = ([0; NETWORKS], 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(c: u8) -> [u8; 16] {
        std::net::Ipv4Addr::new(10, 0, c, 1).to_ipv6_mapped().octets()
    }

    #[test]
    fn a_move_is_not_use_at_once() {
        let mut it = Concurrency::default();
        for c in [1, 1, 2, 2, 1] {
            assert_eq!(it.note(&v4(c)), None);
        }
        assert_eq!(it.note(&v4(2)), Some(2));
        assert_eq!(it.note(&v4(1)), None);
        assert_eq!(it.note(&v4(3)), Some(3));
        assert_eq!(it.note(&[0x20; 16]), None, "the other family");
        it.close();
        assert_eq!((it.minutes, it.shared), (1, 1));
    }
}
