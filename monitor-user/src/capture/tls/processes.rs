//! Processes that hold the sockets of watched ports, and the TLS libraries in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, MMPermissions, MMapPath, MemoryMap, Process};

use super::library::{self, Functions};
use super::trace::{self, Trace};
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
#[derive(Default)]
pub struct Sight {
    /// The libraries in it.
    pub libraries: Vec<Found>,
    /// Why they must not be attached to.
    pub forbidden: Option<String>,
    /// Without any: what is there all the same, and what is wrong with it.
    pub unseen: Option<(Trace, Option<String>)>,
}

/// What was found in files: each is read once, not once a process.
#[derive(Default)]
pub struct Looked {
    /// Whether connections are opened with secrets, which some libraries tell that pass no plaintext on.
    secrets: bool,
    files: HashMap<Version, Content>,
}

/// Device, inode, bytes, and when it was changed: an inode may become another file's.
type Version = (u64, u64, u64, i64, i64);

/// What a file holds.
#[derive(Clone)]
struct Content {
    functions: Result<Option<Functions>, String>,
    /// Of a library whose functions are not there.
    trace: Option<Trace>,
}

/// Files that are remembered: programs that listen on one host, and their libraries, are fewer.
const FILES_MAX: usize = 2048;

/// Larger files are not looked into: programs with a library of their own have tens of megabytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Files of one process that are looked into: those of a large Java server are some hundred.
const MAPPED_MAX: usize = 1024;

/// Finds the TLS libraries in a process: in the files named like one, in the program itself, and in
/// libraries of other names that have one in them.
///
/// # Errors
///
/// When the process is gone, or may not be looked into, or a file that is named like a TLS library cannot.
pub fn look_at(pid: u32, looked: &mut Looked) -> anyhow::Result<Sight> {
    let process = Process::new(i32::try_from(pid)?).context("it is gone")?;
    let maps = process.maps().context("what it has mapped cannot be read; run as root")?;
    let mut sight = Sight::default();
    let mut seen = BTreeSet::new();
    for map in maps.iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE)) {
        let MMapPath::Path(path) = &map.pathname else { continue };
        if map.inode == 0 || seen.len() >= MAPPED_MAX || !seen.insert((map.dev, map.inode)) {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let opened = match looked.open(pid, map, path.clone()) {
            Ok(opened) => opened,
            Err(error) if is_library(&name) => return Err(error),
            // Most have none, and some are no files that can be read.
            Err(_) => continue,
        };
        let Opened { file, id, content } = opened;
        match content.functions {
            Ok(Some(functions))
                if functions.is_library()
                    || makes_randoms(&name)
                    // The trace is that of rustls: by itself it is no more than what it is built with.
                    || looked.secrets
                        && functions.tells_secrets_alone()
                        && content.trace.is_some() =>
            {
                sight.libraries.push(Found { path: path.clone(), file, id, functions });
            }
            Err(reason) if is_library(&name) => anyhow::bail!("{}: {reason}", path.display()),
            functions => {
                let trace = content.trace.or_else(|| trace::by_name(&name));
                let unseen = trace.map(|trace| (trace, functions.err()));
                sight.unseen = sight.unseen.or(unseen);
            }
        }
    }
    let is_seen = |it: &Functions| it.is_library() || it.tells_secrets_alone();
    if sight.libraries.iter().any(|found| is_seen(&found.functions)) {
        sight.unseen = None;
        sight.forbidden = forbidden(&process);
    } else {
        sight.libraries.clear();
    }
    Ok(sight)
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

/// A file, and what is in it.
struct Opened {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    content: Content,
}

impl Found {
    /// Whether its connections are opened with the secrets that are derived in it, or in the file beside it.
    pub fn is_opened(&self) -> bool {
        let functions = &self.functions;
        let of_go = functions.go.as_ref().is_some_and(|go| go.secret.is_some());
        functions.is_derived || of_go || functions.tells_secrets_alone()
    }
}

impl Looked {
    /// Nothing yet.
    pub fn new(secrets: bool) -> Looked {
        Looked { secrets, files: HashMap::new() }
    }

    /// Through the mapping: the file that is in use, whatever has become of its name, and in whatever
    /// mount namespace it is.
    fn open(&mut self, pid: u32, map: &MemoryMap, path: PathBuf) -> anyhow::Result<Opened> {
        let (start, end) = map.address;
        self.open_at(format!("/proc/{pid}/map_files/{start:x}-{end:x}"), &path)
    }

    /// The TLS library, or part of one, in the file at a path of this host.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no ELF file of this machine.
    pub(super) fn open_path(&mut self, path: PathBuf) -> anyhow::Result<Option<Found>> {
        let Opened { file, id, content } = self.open_at(&path, &path)?;
        let functions = content.functions.map_err(anyhow::Error::msg);
        let functions = functions.with_context(|| path.display().to_string())?;
        Ok(functions.map(|functions| Found { path, file, id, functions }))
    }

    /// `path`: what it is called.
    fn open_at(&mut self, at: impl AsRef<Path>, path: &Path) -> anyhow::Result<Opened> {
        let shown = || path.display().to_string();
        let file = File::open(at).with_context(shown)?;
        let about = file.metadata().with_context(shown)?;
        anyhow::ensure!(about.is_file(), "{}: no regular file", shown());
        let bytes = about.len();
        anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{}: {bytes} bytes are too many", shown());
        let id = (about.dev(), about.ino());
        let version = (id.0, id.1, bytes, about.mtime(), about.mtime_nsec());
        if let Some(content) = self.files.get(&version) {
            return Ok(Opened { file, id, content: content.clone() });
        }
        let content = read(&file).with_context(shown)?;
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert(version, content.clone());
        Ok(Opened { file, id, content })
    }
}

fn read(file: &File) -> anyhow::Result<Content> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let functions = library::functions(&bytes).map_err(|error| format!("{error:#}"));
    let is_library =
        functions.as_ref().is_ok_and(|it| it.as_ref().is_some_and(Functions::is_library));
    let trace = if is_library { None } else { trace::in_program(&bytes) };
    Ok(Content { functions, trace })
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

/// A process, unless it is gone.
fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// When a process was started, ticks since the boot; `None` when it is gone, a zombie among them.
pub(super) fn started(pid: u32) -> Option<u64> {
    let stat = process(pid)?.stat().ok()?;
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

/// Inodes of the connections of these ports that are open in any process.
pub(super) fn connections(ports: &Ports) -> BTreeSet<u64> {
    let Ok(processes) = procfs::process::all_processes() else { return BTreeSet::new() };
    let mut seen = BTreeSet::new();
    let mut inodes = BTreeSet::new();
    for process in processes.filter_map(Result::ok) {
        let namespace = std::fs::metadata(format!("/proc/{}/ns/net", process.pid));
        if namespace.is_ok_and(|about| seen.insert(about.ino())) {
            inodes.extend(connections_of(&process, ports));
        }
    }
    inodes
}

/// Those that a process holds.
pub(super) fn connections_in(pid: u32, ports: &Ports) -> BTreeSet<u64> {
    let Some(process) = process(pid) else { return BTreeSet::new() };
    let open: BTreeSet<u64> = connections_of(&process, ports).collect();
    sockets_in(&process).into_iter().filter(|inode| open.contains(inode)).collect()
}

/// Those in its network namespace.
fn connections_of(process: &Process, ports: &Ports) -> impl Iterator<Item = u64> {
    let is_open = |entry: &TcpNetEntry| entry.state == TcpState::Established && entry.inode != 0;
    watched(process, ports).filter(move |(entry, _)| is_open(entry)).map(|(entry, _)| entry.inode)
}

/// Whether a process holds a socket of one of the ports.
pub(super) fn holds_port(pid: u32, ports: &Ports) -> bool {
    let Some(process) = process(pid) else { return false };
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
    watched(process, ports).map(|(entry, port)| (entry.inode, port)).collect()
}

/// Those sockets, each with its port.
fn watched(process: &Process, ports: &Ports) -> impl Iterator<Item = (TcpNetEntry, u16)> {
    let tables = [process.tcp(), process.tcp6()];
    tables.into_iter().filter_map(Result::ok).flatten().filter_map(|entry| {
        let [local, remote] = [entry.local_address.port(), entry.remote_address.port()];
        let port = ports.watched(local, remote)?;
        Some((entry, port))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

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
    fn connections_are_those_that_are_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Ports { own: vec![port], called: vec![] };
        // Who listens is no connection.
        assert!(connections_in(std::process::id(), &ports).is_empty());
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The client's end is none of the server's port.
        let held = connections_in(std::process::id(), &ports);
        assert_eq!(held.len(), 1);
        assert_eq!(connections(&ports), held);
        drop((client, server));
        assert!(connections(&ports).is_empty());
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
    fn processes_that_end_meanwhile_are_no_trouble() {
        let mut looked = Looked::default();
        let (mut gone, mut seen) = (0, 0);
        // Twenty, and more where every look came too early or too late for its library.
        for number in 0..2_000 {
            if number >= 20 && seen > 0 {
                break;
            }
            let child = Command::new("openssl").arg("version").stdout(Stdio::null()).spawn();
            let Ok(mut child) = child else { return };
            // From before it has mapped its libraries until it is a zombie, and none after that.
            for _ in 0..10_000 {
                match look_at(child.id(), &mut looked) {
                    Ok(sight) => seen += sight.libraries.len(),
                    Err(_) => gone += 1,
                }
                if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                    break;
                }
            }
            assert!(child.wait().unwrap().success());
            assert!(look_at(child.id(), &mut looked).is_err());
        }
        assert!(seen > 0, "no library was seen in {gone} looks that failed, and others");
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
