//! Who asked through a proxy: `X-Forwarded-For`, and `Forwarded` (RFC 7239), as far as they can be
//! believed.
//!
//! Every hop adds the address that it was asked from, at the right end. So the list is read from there:
//! what a proxy that is trusted has added is true, and the first address that is no such proxy's is the
//! client's. What stands left of it anybody can have written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hops that are looked at; more than a handful are in no honest list.
const HOPS_MAX: usize = 32;

/// A network: an address, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    bits: u128,
    length: u8,
}

impl FromStr for Network {
    type Err = String;

    /// `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
    fn from_str(text: &str) -> Result<Network, String> {
        let wrong =
            || format!("`{text}` is no network: write 10.0.0.0/8, 2001:db8::/32 or an address");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (most, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = match length {
            Some(length) => length.parse::<u8>().ok().filter(|it| *it <= most).ok_or_else(wrong)?,
            None => most,
        };
        let length = length + before;
        Ok(Network { bits: bits(address) & mask(length), length })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// As [`Network::from_str`] reads it, with the length.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped().filter(|_| self.length >= 96) {
            Some(address) => write!(f, "{address}/{}", self.length - 96),
            None => write!(f, "{address}/{}", self.length),
        }
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & mask(self.length) == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Proxies whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// Those in these networks.
    pub fn new(networks: Vec<Network>) -> Proxies {
        Proxies(networks)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the word of who has this address counts.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client, by one field's list, asked by a proxy that is trusted. `None` where the list says
    /// nothing that can be believed.
    pub(super) fn client(&self, list: &[u8], read: fn(&str) -> Option<IpAddr>) -> Option<IpAddr> {
        let list = std::str::from_utf8(list).ok()?;
        let mut farthest = None;
        for hop in list.rsplit(',').take(HOPS_MAX) {
            let address = read(hop.trim())?;
            farthest = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        farthest
    }
}

/// An address in `X-Forwarded-For`, with a port or without.
pub(super) fn plain_hop(hop: &str) -> Option<IpAddr> {
    if let Some(inner) = hop.strip_prefix('[') {
        return inner.split_once(']')?.0.parse().ok();
    }
    hop.parse().ok().or_else(|| hop.rsplit_once(':')?.0.parse().ok())
}

/// The `for` of an element of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`.
pub(super) fn forwarded_hop(hop: &str) -> Option<IpAddr> {
    hop.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| plain_hop(value.trim().trim_matches('"')))?
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies() -> Proxies {
        Proxies::new(["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec())
    }

    #[test]
    fn networks_are_read() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3/8", "10.9.9.9"), "bits beyond the length do not count");
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "::1"));
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "203.0.113.1"));
        for text in ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0", "192.0.2.7/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_that_is_no_proxy_from_the_right_is_the_client() {
        let client = |list: &str| {
            let found = proxies().client(list.as_bytes(), plain_hop);
            found.map(|address| address.to_string())
        };
        assert_eq!(client("203.0.113.7").as_deref(), Some("203.0.113.7"));
        assert_eq!(client("6.6.6.6, 203.0.113.7, 10.0.0.2").as_deref(), Some("203.0.113.7"));
        assert_eq!(client("203.0.113.7:4711,10.0.0.2:80").as_deref(), Some("203.0.113.7"));
        assert_eq!(client("[2001:db9::1]:443, 2001:db8::2").as_deref(), Some("2001:db9::1"));
        assert_eq!(client("10.0.0.3, 10.0.0.2").as_deref(), Some("10.0.0.3"));
        for list in ["", "unknown", "203.0.113.7, unknown, 10.0.0.2", "203.0.113.7,"] {
            assert_eq!(client(list), None, "{list}");
        }
        let forwarded = r#"for=6.6.6.6, For="[2001:db9::17]:4711";proto=https;by=x, for=10.0.0.2"#;
        let found = proxies().client(forwarded.as_bytes(), forwarded_hop);
        assert_eq!(found.unwrap().to_string(), "2001:db9::17");
        assert_eq!(proxies().client(b"for=_hidden", forwarded_hop), None);
        assert_eq!(proxies().client(&b"10.0.0.1,".repeat(10_000), plain_hop), None);
    }

    #[test]
    fn a_certificate_in_a_field_counts_when_a_proxy_sends_it() {
        use super::super::{Identifier, RequestHead, Secret};
        use crate::call::{Anomalies, Operation};
        let mut identifier = Identifier::new(Secret::new([7; 32]));
        identifier.set_proxies(proxies());
        let asked = |peer: &str, headers: &[(&'static str, &'static [u8])]| {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| httparse::Header { name, value }).collect();
            let head = RequestHead { method: "GET", target: "/v1/me", headers: &headers };
            let identified = identifier.identify_from(&head, Some(peer.parse().unwrap()), None);
            let profile = identified.key.as_ref().map(|key| key.profile.to_string());
            let is_forged = identified.anomalies.contains(Anomalies::UNTRUSTED_PROXY_HEADER);
            (profile, identified.op, is_forged)
        };
        let field = ("X-SSL-Client-S-DN", &b"CN=desk"[..]);
        let cookie = ("Cookie", &b"session=made-up-session-of-somebody"[..]);
        let certificate = Some("client-certificate".to_owned());
        assert_eq!(asked("10.0.0.1", &[field]), (certificate, Operation::Read, false));
        assert_eq!(asked("203.0.113.9", &[field]), (None, Operation::Public, true));
        let session = (Some("session".to_owned()), Operation::Read, true);
        assert_eq!(asked("203.0.113.9", &[field, cookie]), session, "it hides no other key");
    }

    proptest! {
        #[test]
        fn any_list_is_read(list in "[0-9a-f:.,\\[\\]\" for=;]{0,60}") {
            proxies().client(list.as_bytes(), plain_hop);
            proxies().client(list.as_bytes(), forwarded_hop);
        }
    }
}
