//! Where a key is used from: the addresses and networks that it is known at.

use serde::{Deserialize, Serialize};

use super::marks::{Mark, Marks};

/// What a key's use of an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Used from here before.
    Known,
    /// The network is known, the address is not.
    NewAddress,
    /// Never used from this network.
    NewNetwork,
}

/// Address and network sets of one key.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Familiar {
    last: [u8; 16],
    addresses: Marks<12>,
    networks: Marks,
    new_networks: u16,
    hours: u16,
    hour: u32,
    learnt_hour: u32,
}

impl Familiar {
    /// What a call from this address at this hour (since the epoch) means.
    pub(crate) fn judge(&mut self, address: &[u8; 16], hour: u32) -> Place {
        if hour != self.hour {
            self.hour = hour;
            self.hours = self.hours.saturating_add(1);
        }
        if *address == self.last {
            Place::Known
        } else if !self.networks.has(Mark::of(prefix(address))) {
            Place::NewNetwork
        } else if !self.addresses.has(Mark::of(address)) {
            Place::NewAddress
        } else {
            Place::Known
        }
    }

    /// The address of the last call that went well; all zeros before it.
    pub(crate) fn last(&self) -> [u8; 16] {
        self.last
    }

    /// True before the first call that went well.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Hours in which the key was used.
    pub(crate) fn hours(&self) -> u16 {
        self.hours
    }

    /// What is left of it in a summary: the most used.
    pub(crate) fn brief(&self) -> Brief {
        Brief {
            networks: self.networks.first(),
            addresses: self.addresses.first(),
            new_networks: self.new_networks,
            hours: self.hours,
        }
    }

    /// Goes on from a summary.
    pub(crate) fn from_brief(brief: &Brief) -> Familiar {
        Familiar {
            networks: Marks::of_first(&brief.networks),
            addresses: Marks::of_first(&brief.addresses),
            new_networks: brief.new_networks,
            hours: brief.hours,
            ..Familiar::default()
        }
    }

    /// Networks that it is known at.
    pub(crate) fn networks(&self) -> usize {
        self.networks.len()
    }

    /// The chance that an hour of use brings a new network, from those that did: (new + 1) of
    /// (hours + 2), Laplace's rule of succession.
    pub(crate) fn chance_of_new_network(&self) -> f64 {
        (f64::from(self.new_networks) + 1.0) / (f64::from(self.hours) + 2.0)
    }

    /// Remembers an address from which a call went well; true when its network is new.
    pub(crate) fn learn(&mut self, address: &[u8; 16]) -> bool {
        if *address == self.last && self.hour == self.learnt_hour {
            return false;
        }
        self.learnt_hour = self.hour;
        let first = self.is_empty();
        self.last = *address;
        self.addresses.add(Mark::of(address));
        let new = self.networks.add(Mark::of(prefix(address)));
        if new && !first {
            self.new_networks = self.new_networks.saturating_add(1);
        }
        new
    }
}

/// The /24 (IPv4, mapped) or /48 (IPv6) around an address: what is commonly given to one customer.
pub(crate) fn prefix(address: &[u8; 16]) -> [u8; 16] {
    let kept = if address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] { 15 } else { 6 };
    let mut prefix = *address;
    prefix[kept..].fill(0);
    prefix
}

/// The networks and addresses that a key used most, by their marks; 0 is none.
pub(crate) struct Brief {
    networks: [u16; 6],
    addresses: [u16; 2],
    new_networks: u16,
    hours: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
        std::net::Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets()
    }

    #[test]
    fn networks_then_addresses() {
        let mut familiar = Familiar::default();
        assert_eq!(familiar.judge(&v4(10, 0, 0, 1), 0), Place::NewNetwork);
        assert!(familiar.learn(&v4(10, 0, 0, 1)));
        assert_eq!(familiar.judge(&v4(10, 0, 0, 1), 0), Place::Known);
        assert_eq!(familiar.judge(&v4(10, 0, 0, 2), 0), Place::NewAddress);
        assert_eq!(familiar.judge(&v4(10, 0, 1, 1), 0), Place::NewNetwork);
        assert!(!familiar.learn(&v4(10, 0, 0, 2)));
        assert_eq!(familiar.judge(&v4(10, 0, 0, 1), 0), Place::Known);
        assert_eq!(familiar.new_networks, 0, "the first one is not new, it is the first");
    }

    #[test]
    fn roaming_makes_the_new_usual() {
        let mut familiar = Familiar::default();
        for hour in 0..200 {
            familiar.judge(&v4(10, 0, 0, 1), hour);
            familiar.learn(&v4(10, 0, 0, 1));
        }
        assert!(familiar.chance_of_new_network() < 0.01);
        for hour in 200..255 {
            familiar.judge(&v4(10, 0, hour as u8, 1), hour);
            assert!(familiar.learn(&v4(10, 0, hour as u8, 1)));
        }
        assert!(familiar.chance_of_new_network() > 0.2);
        assert_eq!(familiar.judge(&v4(10, 0, 0, 1), 255), Place::Known, "the most used stays");
    }
}
