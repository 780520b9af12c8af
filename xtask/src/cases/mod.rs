//! The captures of the case folders (`tests/cases/NAME/input.pcap`, or as `case.toml` names it): each is made by code here, so
//! that it can be read, changed and made again byte for byte. Where it holds TLS, its key log
//! (`keys.log`) stands beside it.

mod attacks;
pub mod capture;
mod container;
pub mod conversation;
mod exchanges;
mod fix;
mod http;
mod http2;
mod tcp;
mod tls;
mod websocket;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::workspace_root;
use capture::{Format, Link, Packet, pcap};
use container::Container;

/// No cut: larger than any packet.
const WHOLE: usize = 262_144;

/// A capture and how it is stored.
pub struct Case {
    /// Name of its folder.
    pub name: &'static str,
    /// What was on the wire, in order of capture.
    pub packets: Vec<Packet>,
    /// Link layer.
    pub link: Link,
    /// File format.
    pub format: Format,
    /// What the file is.
    pub container: Container,
    /// Bytes kept of each packet.
    pub snap_bytes: usize,
    /// Bytes cut off the end of the file.
    pub cut_bytes: usize,
    /// Key log of its TLS.
    pub keys: Option<&'static str>,
}

impl Case {
    fn new(name: &'static str, packets: Vec<Packet>) -> Case {
        Case {
            name,
            packets,
            link: Link::Ethernet,
            format: Format::LittleMicros,
            container: Container::Pcap,
            snap_bytes: WHOLE,
            cut_bytes: 0,
            keys: None,
        }
    }

    fn link(self, link: Link) -> Case {
        Case { link, ..self }
    }

    /// Whether the file holds every byte of its packets.
    pub fn is_whole(&self) -> bool {
        self.snap_bytes == WHOLE && self.cut_bytes == 0
    }

    /// The capture file.
    pub fn file(&self) -> Result<Vec<u8>> {
        let mut file = pcap(&self.packets, self.link, self.format, self.snap_bytes)?;
        file.truncate(file.len() - self.cut_bytes);
        self.container.pack(file, &self.packets)
    }

    /// Where that is.
    pub fn input(&self) -> PathBuf {
        self.dir().join(self.container.file_name())
    }

    /// Its folder.
    pub fn dir(&self) -> PathBuf {
        workspace_root().join("tests/cases").join(self.name)
    }
}

/// Every case.
pub fn all() -> Vec<Case> {
    let all = [
        http::all(),
        http2::all(),
        tcp::all(),
        tls::all(),
        websocket::all(),
        fix::all(),
        exchanges::all(),
        attacks::all(),
    ];
    all.into_iter().flatten().collect()
}

/// `cargo xtask make-cases`: writes every capture, and the key logs.
pub fn write_all() -> Result<()> {
    let cases = all();
    for case in &cases {
        let dir = case.dir();
        fs::create_dir_all(&dir)?;
        let file = case.input();
        fs::write(&file, case.file()?).with_context(|| format!("writing {}", file.display()))?;
        if let Some(keys) = case.keys {
            let file = dir.join("keys.log");
            fs::write(&file, keys).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    println!("{} captures under tests/cases; now KEYWATCH_BLESS=1 cargo xtask test", cases.len());
    Ok(())
}
