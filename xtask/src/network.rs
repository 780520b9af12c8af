//! A network of its own for servers: a bridge, and namespaces with a wire to it that can be cut.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};

use crate::process;

/// See the module. Removed when dropped.
pub struct Lan {
    bridge: String,
    /// First three bytes of all addresses; this host has the first.
    prefix: [u8; 3],
    hosts: Vec<Host>,
}

struct Host {
    namespace: String,
    /// The end of its wire at the bridge.
    device: String,
}

impl Lan {
    /// Makes one with so many hosts. Needs root.
    pub fn new(hosts: u8) -> Result<Lan> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
        let prefix = [198, 18 | (high & 1), low.wrapping_add(number)];
        // Device names have at most 15 bytes.
        let short = format!("{:x}{number:x}", std::process::id() % 0x10_0000);
        let mut lan = Lan { bridge: format!("kwb{short}"), prefix, hosts: Vec::new() };
        ip(&["link", "add", &lan.bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", lan.place(1)), "dev", &lan.bridge])?;
        ip(&["link", "set", &lan.bridge, "up"])?;
        for number in 0..hosts {
            let namespace = format!("keywatch-{short}-{number}");
            let device = format!("kwv{short}-{number}");
            ip(&["netns", "add", &namespace])?;
            lan.hosts.push(Host { namespace, device });
            let Host { namespace, device } = &lan.hosts[usize::from(number)];
            ip(&[
                "link", "add", device, "type", "veth", "peer", "name", "wire", "netns", namespace,
            ])?;
            ip(&["link", "set", device, "master", &lan.bridge, "up"])?;
            let address = format!("{}/24", lan.address(number.into()));
            ip(&["-n", namespace, "addr", "add", &address, "dev", "wire"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", "wire", "up"])?;
        }
        Ok(lan)
    }

    /// Address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.place(u8::try_from(host).unwrap_or(u8::MAX).saturating_add(10))
    }

    /// What starts a program on a host: to be followed by the program.
    pub fn on(&self, host: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[host].namespace]);
        command
    }

    /// From now on what a host sends and is sent gets lost, without a word to either side.
    pub fn cut(&self, host: usize) -> Result<()> {
        ip(&["link", "set", &self.hosts[host].device, "nomaster"])
    }

    /// The wire is whole again.
    pub fn mend(&self, host: usize) -> Result<()> {
        ip(&["link", "set", &self.hosts[host].device, "master", &self.bridge])
    }

    fn place(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for Host { namespace, device } in &self.hosts {
            let _ = ip(&["link", "del", device]);
            let _ = ip(&["netns", "del", namespace]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

/// Runs `ip` of iproute2.
pub fn ip(args: &[&str]) -> Result<()> {
    let done = process::run(Command::new("ip").args(args)).map(drop);
    done.with_context(|| format!("ip {}", args.join(" ")))
}
