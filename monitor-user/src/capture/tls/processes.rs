//! Processes that hold the sockets of watched ports, and the TLS libraries in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use procfs::process::{FDTarget, MMPermissions, MMapPath, MemoryMap, Process};

use super::library::{self, Functions};
use crate::capture::Ports;

/// A TLS library in a file that a process has mapped.
pub struct Found {
    /// As the process names it.
    pub path: PathBuf,
    /// The file itself, also when it was replaced.
    pub(super) file: File,
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// What is in it.
    pub(super) functions: Functions,
}

/// What is known of a process.
pub struct Sight {
    /// The libraries in it.
    pub libraries: Vec<Found>,
    /// Why they must not be attached to.
    pub forbidden: Option<String>,
}

/// What was found in files: each is read once, not once a process.
#[derive(Default)]
pub struct Looked {
    files: HashMap<Version, Option<Functions>>,
}

/// Device, inode, bytes, and when it was changed: an inode may become another file's.
type Version = (u64, u64, u64, i64, i64);

/// Files that are remembered: programs that listen on one host are fewer.
const FILES_MAX: usize = 1024;

/// Larger files are not looked into: programs with a library of their own have tens of megabytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Finds the TLS libraries in a process: files named like one, or else the program itself.
///
/// # Errors
///
/// When the process is gone, or may not be looked into.
pub fn look_at(pid: u32, looked: &mut Looked) -> anyhow::Result<Sight> {
    let process = Process::new(i32::try_from(pid)?).context("it is gone")?;
    let maps = process.maps().context("what it has mapped cannot be read; run as root")?;
    let code: Vec<&MemoryMap> = maps
        .iter()
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE) && map.inode != 0)
        .collect();
    let mut libraries = looked.open_named(pid, &code, is_library)?;
    if !libraries.is_empty() {
        libraries.extend(looked.open_named(pid, &code, makes_randoms)?);
    }
    if libraries.is_empty()
        && let Ok(program) = process.exe()
        && let Some(map) = code.iter().find(|map| map.pathname == MMapPath::Path(program.clone()))
    {
        // Most programs have none, and some are no files that can be read.
        let found = looked.open(pid, map, program).ok().flatten();
        libraries.extend(found.filter(|found| found.functions.is_library()));
    }
    let forbidden = if libraries.is_empty() { None } else { forbidden(&process) };
    Ok(Sight { libraries, forbidden })
}

/// `libssl.so.3`, `libgnutls.so.30` and their like, with a version or a hash in the name too.
pub(super) fn is_library(name: &str) -> bool {
    // NSS has a libssl3.so, which is another library.
    let rest = ["libssl", "libgnutls"].iter().find_map(|known| name.strip_prefix(known));
    rest.is_some_and(|rest| rest.starts_with(['.', '-']) && rest.contains(".so"))
}

/// OpenSSL's other half, `libcrypto.so.3` and its like.
pub(super) fn makes_randoms(name: &str) -> bool {
    name.strip_prefix("libcrypto")
        .is_some_and(|rest| rest.starts_with(['.', '-']) && rest.contains(".so"))
}

impl Looked {
    /// The files of some name that hold something of a TLS library, each once.
    fn open_named(
        &mut self,
        pid: u32,
        code: &[&MemoryMap],
        is_named: fn(&str) -> bool,
    ) -> anyhow::Result<Vec<Found>> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for map in code {
            let MMapPath::Path(path) = &map.pathname else { continue };
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if is_named(&name) && seen.insert((map.dev, map.inode)) {
                found.extend(self.open(pid, map, path.clone())?);
            }
        }
        Ok(found)
    }

    /// Through the mapping: the file that is in use, whatever has become of its name, and in whatever
    /// mount namespace it is.
    fn open(&mut self, pid: u32, map: &MemoryMap, path: PathBuf) -> anyhow::Result<Option<Found>> {
        let (start, end) = map.address;
        self.open_at(&format!("/proc/{pid}/map_files/{start:x}-{end:x}"), path)
    }

    /// The TLS library, or part of one, in the file at a path of this host.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no ELF file of this machine.
    pub(super) fn open_path(&mut self, path: PathBuf) -> anyhow::Result<Option<Found>> {
        self.open_at(&path.clone(), path)
    }

    /// `path`: what it is called.
    fn open_at(&mut self, at: impl AsRef<Path>, path: PathBuf) -> anyhow::Result<Option<Found>> {
        let shown = path.display().to_string();
        let file = File::open(at).with_context(|| shown.clone())?;
        let about = file.metadata().with_context(|| shown.clone())?;
        anyhow::ensure!(about.is_file(), "{shown}: no regular file");
        let bytes = about.len();
        anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{shown}: {bytes} bytes are too many");
        let id = (about.dev(), about.ino());
        let version = (id.0, id.1, bytes, about.mtime(), about.mtime_nsec());
        let functions = match self.files.get(&version) {
            Some(functions) => functions.clone(),
            None => {
                let functions = read(&file).with_context(|| shown)?;
                if self.files.len() >= FILES_MAX {
                    self.files.clear();
                }
                self.files.insert(version, functions.clone());
                functions
            }
        };
        Ok(functions.map(|functions| Found { path, file, id, functions }))
    }
}

fn read(file: &File) -> anyhow::Result<Option<Functions>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    library::functions(&bytes)
}

/// Kernels from 6.11 on return from a return probe by a system call, which a filter may end the
/// process for; from 6.14 on filters let it pass.
fn forbidden(process: &Process) -> Option<String> {
    const FILTERED: u32 = 2;
    let filtered = process.status().ok()?.seccomp == Some(FILTERED);
    let release = procfs::sys::kernel::Version::current().ok()?;
    let kernel = (release.major, release.minor);
    (filtered && ((6, 11)..(6, 14)).contains(&kernel)).then(|| {
        format!(
            "a seccomp filter, which kernel {}.{} would end it for; kernel 6.14 does not",
            release.major, release.minor
        )
    })
}

/// Whether there is such a process.
pub(super) fn exists(pid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// When a process was started, ticks since the boot; `None` when it is gone, a zombie among them.
pub(super) fn started(pid: u32) -> Option<u64> {
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

/// The command name of a process; empty when it is gone.
pub fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Processes that hold a socket of one of the ports, listening or connected, in whatever network
/// namespace; with the ports.
pub fn holding_ports(ports: &Ports) -> BTreeMap<u32, BTreeSet<u16>> {
    let Ok(processes) = procfs::process::all_processes() else { return BTreeMap::new() };
    let mut tables: BTreeMap<u64, BTreeMap<u64, u16>> = BTreeMap::new();
    let mut holders: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    // Processes come and go, and those of others may not be looked into.
    for process in processes.filter_map(Result::ok) {
        let sockets = sockets_in(&process);
        if sockets.is_empty() {
            continue;
        }
        let Ok(about) = std::fs::metadata(format!("/proc/{}/ns/net", process.pid)) else {
            continue;
        };
        let table = tables.entry(about.ino()).or_insert_with(|| sockets_of(&process, ports));
        let Ok(pid) = u32::try_from(process.pid) else { continue };
        for inode in sockets {
            if let Some(port) = table.get(&inode) {
                holders.entry(pid).or_default().insert(*port);
            }
        }
    }
    holders
}

/// Whether a process holds a socket of one of the ports.
pub(super) fn holds_port(pid: u32, ports: &Ports) -> bool {
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let Some(process) = process else { return false };
    let table = sockets_of(&process, ports);
    !table.is_empty() && sockets_in(&process).iter().any(|inode| table.contains_key(inode))
}

/// Inodes of the sockets that a process holds; none of one that may not be looked into.
fn sockets_in(process: &Process) -> Vec<u64> {
    let open = process.fd().into_iter().flatten().filter_map(Result::ok);
    open.filter_map(|file| {
        let FDTarget::Socket(inode) = file.target else { return None };
        Some(inode)
    })
    .collect()
}

/// Inode and port of the sockets of these ports in a process's network namespace.
fn sockets_of(process: &Process, ports: &Ports) -> BTreeMap<u64, u16> {
    let tables = [process.tcp(), process.tcp6()];
    let entries = tables.into_iter().filter_map(Result::ok).flatten();
    entries
        .filter_map(|entry| {
            let [local, remote] = [entry.local_address.port(), entry.remote_address.port()];
            Some((entry.inode, ports.watched(local, remote)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_own_listener_is_held_by_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Ports { own: vec![port], called: vec![] };
        let holders = holding_ports(&ports);
        assert_eq!(holders.get(&std::process::id()), Some(&BTreeSet::from([port])));
        drop(listener);
        assert!(holding_ports(&ports).is_empty());
    }

    #[test]
    fn who_has_connected_holds_what_it_calls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Ports { own: vec![], called: vec![port] };
        // Whoever listens does not call.
        assert!(holding_ports(&ports).is_empty());
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let holders = holding_ports(&ports);
        assert_eq!(holders.get(&std::process::id()), Some(&BTreeSet::from([port])));
        assert!(holds_port(std::process::id(), &ports));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the largest process id that Linux gives (2^22).
        assert!(look_at(5_000_000, &mut Looked::default()).is_err());
        assert!(!exists(5_000_000));
    }

    #[test]
    fn libraries_are_known_by_name() {
        for name in ["libssl.so.3", "libssl.so.1.1", "libssl-3f2a.so.3", "libgnutls.so.30"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["libssl3.so", "libcrypto.so.3", "mylibssl.so", "libssl.a"] {
            assert!(!is_library(name), "{name}");
        }
    }
}
