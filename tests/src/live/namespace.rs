//! A network namespace with a wire to this one, removed when dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;
use xtask::network::ip;

/// The namespace in which a test's server lives.
pub(crate) struct Namespace {
    /// Its name, for `ip netns exec`.
    pub(crate) name: String,
    /// The server's addresses, seen from the client.
    pub(crate) v4: IpAddr,
    /// The same, IPv6.
    pub(crate) v6: IpAddr,
    /// Our end of the wire.
    pub(crate) device: String,
}

impl Namespace {
    /// Makes one with a veth pair and addresses of its own.
    pub(crate) fn new() -> Result<Namespace> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("keywatch-{process}-{number}");
        // Device names have at most 15 bytes.
        let device = format!("kw{:x}-{number}", process % 0x10_0000);
        ip(&["netns", "add", &name])?;
        // 198.18.0.0/15 is set aside for such tests (RFC 2544), 2001:db8::/32 for examples.
        let [_, _, high, low] = process.to_be_bytes();
        let ours = Ipv4Addr::new(198, 18 | (high & 1), low, number << 2 | 1);
        let theirs = Ipv4Addr::new(198, 18 | (high & 1), low, number << 2 | 2);
        let ours_v6 = Ipv6Addr::new(
            0x2001,
            0xdb8,
            u16::from_be_bytes([high, low]),
            number.into(),
            0,
            0,
            0,
            1,
        );
        let theirs_v6 = Ipv6Addr::new(
            0x2001,
            0xdb8,
            u16::from_be_bytes([high, low]),
            number.into(),
            0,
            0,
            0,
            2,
        );
        let namespace = Namespace { name, v4: theirs.into(), v6: theirs_v6.into(), device };
        let (name, device) = (&namespace.name, &namespace.device);
        ip(&["link", "add", device, "type", "veth", "peer", "name", "wire", "netns", name])?;
        ip(&["addr", "add", &format!("{ours}/30"), "dev", device])?;
        ip(&["addr", "add", &format!("{ours_v6}/64"), "dev", device, "nodad"])?;
        ip(&["link", "set", device, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{theirs}/30"), "dev", "wire"])?;
        ip(&["-n", name, "addr", "add", &format!("{theirs_v6}/64"), "dev", "wire", "nodad"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", "wire", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.device]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}
