//! Who listens on the watched ports, and which TLS library it uses.

use std::collections::{BTreeMap, BTreeSet};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;

use super::Check;
use crate::capture::Ports;
use crate::capture::tls::{Found, Looked, Sight, holding_ports, look_at, name};

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
/// `secrets`: with the secrets that it derives, where that is known.
pub(super) fn inside_tls(ports: &Ports, secrets: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut looked = Looked::new(secrets);
    for pid in holding_ports(ports).into_keys() {
        let who = format!("{} ({pid})", name(pid));
        let look = "see the reason; its connections are seen as lengths only";
        checks.extend(match look_at(pid, &mut looked) {
            Ok(Sight { libraries, forbidden: Some(reason), .. }) if !libraries.is_empty() => {
                Some(Check::warn("TLS", format!("{who}: {reason}"), look))
            }
            Ok(Sight { libraries, .. }) if !libraries.is_empty() => {
                let paths: Vec<String> =
                    libraries.iter().map(|found| found.path.display().to_string()).collect();
                let is_opened = secrets && libraries.iter().any(Found::is_opened);
                let how = if is_opened { "by its secrets" } else { "at its calls" };
                Some(Check::ok("TLS", format!("{who}: {}: looked into, {how}", paths.join(", "))))
            }
            Ok(Sight { unseen, .. }) => unseen.map(|(trace, reason)| {
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                let found = format!("{who}: {}: not looked into{reason}", trace.library);
                Check::warn("TLS", found, trace.mend)
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
}
