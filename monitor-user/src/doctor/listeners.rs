//! Who listens on the watched ports, and which TLS library it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, MMapPath, Process};

use super::Check;
use crate::capture::Ports;
use crate::capture::tls::{Looked, Sight, holding_ports, look_at, name};

pub(super) fn checks(ports: &Ports) -> Vec<Check> {
    if ports.all().is_empty() {
        return vec![Check::warn("ports", "none configured", "name them with --port")];
    }
    let sockets = listening();
    let owners = owners(&sockets);
    let mut checks = Vec::new();
    for &port in &ports.own {
        let inodes: Vec<u64> =
            sockets.iter().filter(|(_, at)| **at == port).map(|(inode, _)| *inode).collect();
        if inodes.is_empty() {
            checks.push(Check::warn(
                "port",
                format!("{port}: nobody listens here"),
                "start the server, or look in its network namespace",
            ));
            continue;
        }
        let listeners: Vec<_> =
            owners.iter().filter(|owner| inodes.contains(&owner.inode)).collect();
        let names: BTreeSet<String> =
            listeners.iter().map(|owner| format!("{} ({})", owner.name, owner.pid)).collect();
        let names: Vec<String> = names.into_iter().collect();
        checks.push(match names.as_slice() {
            [] => Check::warn(
                "port",
                format!("{port}: by a process that cannot be seen"),
                "run as root to see it",
            ),
            names => Check::ok("port", format!("{port}: {}", names.join(", "))),
        });
    }
    checks
}

/// Each process that holds a socket of a watched port: its TLS library, and whether it can be looked
/// into. Whether what is found there can be tied to connections, the live run tells.
pub(super) fn inside_tls(ports: &Ports) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut looked = Looked::default();
    for pid in holding_ports(ports).into_keys() {
        let who = format!("{} ({pid})", name(pid));
        let look = "see the reason; its connections are seen as lengths only";
        checks.extend(match look_at(pid, &mut looked) {
            Ok(Sight { libraries, forbidden: Some(reason) }) if !libraries.is_empty() => {
                Some(Check::warn("TLS", format!("{who}: {reason}"), look))
            }
            Ok(Sight { libraries, .. }) if !libraries.is_empty() => {
                let paths: Vec<String> =
                    libraries.iter().map(|found| found.path.display().to_string()).collect();
                Some(Check::ok("TLS", format!("{who}: {}: looked into", paths.join(", "))))
            }
            Ok(_) => tls(pid).map(|library| {
                let mend = "what it encrypts itself is seen as lengths only, for now";
                Check::warn("TLS", format!("{who}: {library}"), mend)
            }),
            Err(error) => Some(Check::warn("TLS", format!("{who}: {error:#}"), look)),
        });
    }
    checks
}

struct Owner {
    inode: u64,
    pid: i32,
    name: String,
}

/// Inode and port of each listening TCP socket in this network namespace.
fn listening() -> BTreeMap<u64, u16> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let listens = |entry: &TcpNetEntry| entry.state == TcpState::Listen;
    let entries = tables.into_iter().filter_map(Result::ok).flatten().filter(listens);
    entries.map(|entry| (entry.inode, entry.local_address.port())).collect()
}

fn owners(sockets: &BTreeMap<u64, u16>) -> Vec<Owner> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    let mut owners = Vec::new();
    // Processes come and go, and those of others may not be looked into.
    for process in processes.filter_map(Result::ok) {
        let Ok(open) = process.fd() else { continue };
        for file in open.filter_map(Result::ok) {
            if let FDTarget::Socket(inode) = file.target
                && sockets.contains_key(&inode)
            {
                let name = process.stat().map_or_else(|_| "?".into(), |stat| stat.comm);
                owners.push(Owner { inode, pid: process.pid, name });
            }
        }
    }
    owners
}

/// The TLS library in a process, by the files that it has mapped, or by what its program is.
fn tls(pid: u32) -> Option<String> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let mapped: BTreeSet<String> = process
        .maps()
        .ok()?
        .iter()
        .filter_map(|map| match &map.pathname {
            MMapPath::Path(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            MMapPath::Heap
            | MMapPath::Stack
            | MMapPath::TStack(_)
            | MMapPath::Vdso
            | MMapPath::Vvar
            | MMapPath::Vsyscall
            | MMapPath::Rollup
            | MMapPath::Anonymous
            | MMapPath::Vsys(_)
            | MMapPath::Other(_) => None,
        })
        .collect();
    let library = mapped.into_iter().find(|name| is_tls_library(name));
    library.or_else(|| built_in(&process).map(str::to_owned))
}

fn is_tls_library(name: &str) -> bool {
    ["libssl.so", "libssl3.so", "libgnutls.so", "libboringssl", "libnss3.so", "libmbedtls.so"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Libraries that are linked into the program, by what they leave in it.
fn built_in(process: &Process) -> Option<&'static str> {
    let file = File::open(format!("/proc/{}/exe", process.pid)).ok()?;
    let mut program = Vec::new();
    file.take(PROGRAM_BYTES_MAX).read_to_end(&mut program).ok()?;
    let holds = |needle: &[u8]| memchr::memmem::find(&program, needle).is_some();
    if holds(b"crypto/tls.(*Conn)") {
        return Some("Go crypto/tls, built in");
    }
    holds(b"rustls").then_some("rustls, built in")
}

/// Larger programs are searched this far: Go servers have tens of megabytes.
const PROGRAM_BYTES_MAX: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_own_listener_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Ports { own: vec![port], called: vec![] };
        let checks = checks(&ports);
        let own = format!("({})", std::process::id());
        assert!(checks[0].found.starts_with(&format!("{port}: ")), "{:?}", checks[0]);
        assert!(checks[0].found.contains(&own), "{:?}", checks[0]);
        drop(listener);
        let checks = super::checks(&ports);
        assert_eq!(checks[0].found, format!("{port}: nobody listens here"));
    }

    #[test]
    fn libraries_are_known_by_name() {
        for name in ["libssl.so.3", "libssl.so.1.1", "libgnutls.so.30.34.3", "libnss3.so"] {
            assert!(is_tls_library(name), "{name}");
        }
        for name in ["libc.so.6", "mylibssl.so", "libcrypto.so.3"] {
            assert!(!is_tls_library(name), "{name}");
        }
    }
}
