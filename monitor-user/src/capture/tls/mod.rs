//! Finds the TLS libraries of the servers and attaches probes to them, once a file.

mod go;
mod library;
mod processes;
mod prologue;
mod sealed;
mod system;
mod trace;
mod users;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::UProbe;
use aya::programs::uprobe::{
    UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeLinkId, UProbeScope,
};
use monitor_common::OLDER;

use self::library::{Derivation, Deriving, Function, Functions, Random};
pub use self::processes::{Found, Looked, Sight, holding_ports, look_at, name};
pub(super) use self::sealed::Sealed;
use self::users::Users;
use super::object::{told, uninterrupted};
use super::{Ports, privilege};

/// A process that begins to listen, or to speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// It has received on a connection that speaks TLS: its library should be there.
    pub(super) speaks_tls: bool,
    /// It is known to hold a socket of a watched port.
    pub(super) is_sure: bool,
}

/// The programs that probes run.
const CALL: &str = "keywatch_tls_call";
const RETURN: &str = "keywatch_tls_return";
const FREE: &str = "keywatch_tls_free";
const RANDOM: &str = "keywatch_tls_random";
const RANDOM_EX: &str = "keywatch_tls_random_ex";
const RANDOM_RETURN: &str = "keywatch_tls_random_return";
const GO_WRITE: &str = "keywatch_go_write";
const GO_READ: &str = "keywatch_go_read";
const GO_DECRYPTED: &str = "keywatch_go_decrypted";
const KDF: &str = "keywatch_kdf";
const HKDF: &str = "keywatch_hkdf";
const PRF: &str = "keywatch_prf";
const KDF_RETURN: &str = "keywatch_kdf_return";
const GO_SECRET: &str = "keywatch_go_secret";
const ALL: [&str; 14] = [
    CALL,
    RETURN,
    FREE,
    RANDOM,
    RANDOM_EX,
    RANDOM_RETURN,
    GO_WRITE,
    GO_READ,
    GO_DECRYPTED,
    KDF,
    HKDF,
    PRF,
    KDF_RETURN,
    GO_SECRET,
];

/// Files that are attached to: servers with a library each are few on a host.
const LIBRARIES_MAX: usize = 256;
/// Processes whose TLS is not seen that are named.
const UNSEEN_MAX: usize = 64;
/// Processes that wait to be looked into.
const WAITING_MAX: usize = 4096;
/// How often it is looked whether files are used still: a server that is started again is there before.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How long what clients bring themselves stays attached to after the last of them: their next comes by
/// the day's clock (a job of every hour), and has ended before it could be looked into.
const CLIENTS_KEPT: Duration = Duration::from_secs(2 * 3600);

/// A thread that attaches to the libraries of processes as they come, and keeps the rights for it.
pub(super) struct Watcher {
    orders: Option<Sender<Process>>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

/// What others may ask for.
#[derive(Default)]
struct State {
    libraries: u64,
    waiting: usize,
    /// By process: a line.
    unseen: HashMap<u32, String>,
}

impl Watcher {
    /// Attaches to what is there already, then goes on by itself. `secrets`: to what derives secrets, where
    /// that is known, in place of what passes plaintext on. `tracepoints`: what is missing of those that the
    /// probes need.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(super) fn start(
        mut object: Ebpf,
        ports: &Ports,
        secrets: bool,
        tracepoints: Result<(), String>,
    ) -> anyhow::Result<Watcher> {
        let state = Arc::new(Mutex::new(State::default()));
        let ready = tracepoints.and_then(|()| load(&mut object).map_err(|error| told(&error)));
        if let Err(reason) = &ready {
            tracing::warn!("TLS is not looked into: {reason}");
        }
        let mut attacher = Attacher {
            object,
            ready,
            attached: HashMap::new(),
            ports: ports.clone(),
            secrets,
            looked: Looked::new(secrets),
            starting: true,
            state: state.clone(),
        };
        for pid in holding_ports(ports).into_keys() {
            attacher.look_into(Process { pid, speaks_tls: false, is_sure: true });
        }
        attacher.attach_to_system();
        attacher.starting = false;
        let (orders, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("keywatch-tls".to_owned())
            .spawn(move || attacher.run(&waiting))
            .context("starting the thread that attaches to TLS libraries")?;
        Ok(Watcher { orders: Some(orders), state, thread: Some(thread) })
    }

    /// Looks for a TLS library in a process, soon.
    pub(super) fn look_into(&self, process: Process) {
        let Some(orders) = &self.orders else { return };
        let mut state = lock(&self.state);
        // Whoever speaks TLS and is not seen is met again with its next connection.
        if state.waiting < WAITING_MAX && orders.send(process).is_ok() {
            state.waiting += 1;
        }
    }

    /// Files that are attached to.
    pub(super) fn libraries(&self) -> u64 {
        lock(&self.state).libraries
    }

    /// Processes whose TLS is not seen, and why.
    pub(super) fn unseen(&self) -> Vec<String> {
        let mut lines: Vec<_> = lock(&self.state).unseen.values().cloned().collect();
        lines.sort_unstable();
        lines
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that attaches to TLS libraries had failed");
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads the programs that probes run.
pub(super) fn load(object: &mut Ebpf) -> anyhow::Result<()> {
    for name in ALL {
        let program = program(object, name)?;
        uninterrupted(|| program.load()).with_context(|| format!("loading {name}"))?;
    }
    Ok(())
}

/// `false` only when no probe at a call is there.
fn set_calls_attached(object: &mut Ebpf, attached: bool) -> anyhow::Result<()> {
    const NAME: &str = "CALLS_ATTACHED";
    let map = object.map_mut(NAME).with_context(|| format!("map {NAME}"))?;
    let mut map: Array<_, u32> = map.try_into()?;
    map.set(0, u32::from(attached), 0).with_context(|| format!("writing {NAME}"))
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut UProbe> {
    let program = object.program_mut(name);
    Ok(program.with_context(|| format!("the kernel object has no program {name}"))?.try_into()?)
}

/// What the thread works with. Dropped, everything is detached.
struct Attacher {
    object: Ebpf,
    /// Why nothing can be attached.
    ready: Result<(), String>,
    /// By file.
    attached: HashMap<FileId, Attached>,
    ports: Ports,
    /// Whether it attaches to what derives secrets.
    secrets: bool,
    looked: Looked,
    /// What is there at the start has connections that were open before.
    starting: bool,
    state: Arc<Mutex<State>>,
}

/// Device and inode.
type FileId = (u64, u64);

/// A file that was attached to, or cannot be.
struct Attached {
    path: PathBuf,
    probes: Result<Vec<UProbeLink>, String>,
    /// Whether they are where plaintext passes, not where secrets are derived.
    at_calls: bool,
    /// For connections that were open before, and whose secrets were derived before.
    older: Option<Older>,
    users: Users,
    /// When a process with it was met last.
    met: Instant,
}

/// What sees connections that were open before the probes were there which their secrets come from.
struct Older {
    /// Never read: they hold the probes.
    _probes: Vec<UProbeLink>,
    /// Inodes of the connections.
    connections: BTreeSet<u64>,
}

impl Attacher {
    fn run(mut self, orders: &Receiver<Process>) {
        if let Err(error) = privilege::drop_all_but_attaching() {
            tracing::error!("the thread that attaches to TLS libraries ends: {error:#}");
            return;
        }
        let mut swept = Instant::now();
        loop {
            match orders.recv_timeout(SWEEP_EVERY) {
                Ok(process) => {
                    {
                        let mut state = lock(&self.state);
                        state.waiting = state.waiting.saturating_sub(1);
                    }
                    self.look_into(process);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    /// Clients come and go, each in a moment: what they share is attached to before the first of them.
    /// Gives the files, those that were replaced since the last time among them.
    fn attach_to_system(&mut self) -> Vec<FileId> {
        if self.ports.called.is_empty() || self.ready.is_err() {
            return Vec::new();
        }
        let mut files = Vec::new();
        for path in system::libraries() {
            match self.looked.open_path(path) {
                Ok(Some(found)) => {
                    files.push(found.id);
                    // What cannot be attached to has its line in the log, and one for each process.
                    let _ = self.attach_once(&found);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!("not attached to: {error:#}"),
            }
        }
        self.take_stock();
        files
    }

    /// Detaches from files that no process uses any more. A process that begins to use one meanwhile waits
    /// to be looked into, and has it attached to anew.
    fn sweep(&mut self) {
        self.let_go_of_older();
        let of_system = self.attach_to_system();
        let kept = if self.ports.called.is_empty() { Duration::ZERO } else { CLIENTS_KEPT };
        let mut is_one_unused = false;
        for file in self.attached.values_mut() {
            is_one_unused |= !file.users.are_there();
        }
        if !is_one_unused {
            return;
        }
        // Children of those that are gone may hold their sockets, and not have been met yet.
        for pid in holding_ports(&self.ports).into_keys() {
            let Ok(sight) = look_at(pid, &mut self.looked) else { continue };
            for found in sight.libraries {
                if let Some(file) = self.attached.get_mut(&found.id) {
                    file.users.add(pid);
                }
            }
        }
        self.attached.retain(|id, file| {
            let is_kept = of_system.contains(id) || file.met.elapsed() < kept;
            let is_used = !file.users.is_empty() || is_kept;
            if !is_used {
                tracing::info!(path = %file.path.display(), "no longer used, detached");
            }
            is_used
        });
        self.take_stock();
    }

    /// Takes out the probes at calls once the connections are over that were open before.
    fn let_go_of_older(&mut self) {
        if self.attached.values().all(|file| file.older.is_none()) {
            return;
        }
        let open = processes::connections(&self.ports);
        for file in self.attached.values_mut() {
            let Some(older) = &mut file.older else { continue };
            older.connections.retain(|inode| open.contains(inode));
            if older.connections.is_empty() {
                file.older = None;
                let path = file.path.display();
                tracing::info!(%path, "the connections from before are over: its calls are left alone");
            }
        }
        self.take_stock();
    }

    /// Of a process's connections that were open before what derives secrets was attached to, plaintext is
    /// taken at the calls of its library, as long as there are any.
    fn see_older(&mut self, pid: u32, found: &Found) -> anyhow::Result<()> {
        let has_calls = found.functions.is_derived && !found.functions.calls.is_empty();
        if !self.secrets || !has_calls {
            return Ok(());
        }
        let connections = processes::connections_in(pid, &self.ports);
        if connections.is_empty() {
            return Ok(());
        }
        let probes = match self.attached.get_mut(&found.id) {
            Some(Attached { older: Some(older), .. }) => {
                older.connections.extend(connections);
                return Ok(());
            }
            Some(Attached { probes: Ok(_), .. }) => {
                set_calls_attached(&mut self.object, true)?;
                self.attach_to_calls(found, OLDER)?
            }
            Some(_) | None => return Ok(()),
        };
        if let Some(file) = self.attached.get_mut(&found.id) {
            let path = file.path.display();
            let (probes_count, open) = (probes.len(), connections.len());
            tracing::info!(%path, probes = probes_count, open, "sees connections from before");
            file.older = Some(Older { _probes: probes, connections });
        }
        Ok(())
    }

    /// Counts what is attached to, and lets the kernel side look for calls that are under way, or not any more.
    fn take_stock(&mut self) {
        let is_at_calls = |file: &Attached| file.at_calls && file.probes.is_ok();
        let attached = self.attached.values().any(|file| file.older.is_some() || is_at_calls(file));
        if let Err(error) = set_calls_attached(&mut self.object, attached) {
            tracing::error!("calls into TLS libraries are not seen: {error:#}");
        }
        let libraries = self.attached.values().filter(|file| file.probes.is_ok()).count();
        lock(&self.state).libraries = libraries as u64;
    }

    fn look_into(&mut self, process: Process) {
        let Process { pid, speaks_tls, is_sure } = process;
        if !is_sure && !processes::holds_port(pid, &self.ports) {
            return;
        }
        let seen = match &self.ready {
            Ok(()) => self.try_look_into(pid),
            Err(reason) => Err(reason.clone()),
        };
        self.take_stock();
        let mut state = lock(&self.state);
        let trouble = match seen {
            Ok(Seen::Attached | Seen::Gone) => None,
            // Most processes that listen have none.
            Ok(Seen::NoLibrary(reason)) => speaks_tls.then_some(reason),
            Err(reason) => Some(reason),
        };
        match trouble {
            None => drop(state.unseen.remove(&pid)),
            Some(reason) => {
                if state.unseen.len() >= UNSEEN_MAX {
                    state.unseen.retain(|pid, _| processes::exists(*pid));
                }
                if state.unseen.len() < UNSEEN_MAX {
                    let line = format!("{} (pid {pid}): {reason}", processes::name(pid));
                    state.unseen.insert(pid, line);
                }
            }
        }
    }

    fn try_look_into(&mut self, pid: u32) -> Result<Seen, String> {
        let sight = match look_at(pid, &mut self.looked) {
            Ok(sight) => sight,
            Err(_) if !processes::exists(pid) => return Ok(Seen::Gone),
            Err(error) => return Err(format!("{error:#}")),
        };
        let mut seen = match sight.unseen {
            Some((trace, None)) => Seen::NoLibrary(format!("{}; {}", trace.library, trace.mend)),
            Some((trace, Some(reason))) => {
                Seen::NoLibrary(format!("{}: {reason}; {}", trace.library, trace.mend))
            }
            None => Seen::NoLibrary("no TLS library that is known".to_owned()),
        };
        for found in sight.libraries {
            if let Some(reason) = &sight.forbidden {
                return Err(reason.clone());
            }
            let is_new = !self.attached.contains_key(&found.id);
            self.attach_once(&found)?;
            if self.starting || is_new {
                self.see_older(pid, &found).map_err(|error| format!("{error:#}"))?;
            }
            let file = self.attached.get_mut(&found.id).ok_or_else(|| "not attached".to_owned())?;
            file.users.add(pid);
            file.met = Instant::now();
            match &file.probes {
                Ok(_) => seen = Seen::Attached,
                Err(reason) => return Err(format!("{}: {reason}", file.path.display())),
            }
        }
        Ok(seen)
    }

    /// A file that is attached to, or was tried: at most once.
    fn attach_once(&mut self, found: &Found) -> Result<(), String> {
        if !self.attached.contains_key(&found.id) {
            if self.attached.len() >= LIBRARIES_MAX {
                return Err(format!("{LIBRARIES_MAX} files are attached to already"));
            }
            let probes = self.attach(found).map_err(|error| format!("{error:#}"));
            let path = found.path.display();
            match &probes {
                Ok(probes) => tracing::info!(%path, probes = probes.len(), "looks inside TLS"),
                Err(reason) => tracing::warn!(%path, "not attached: {reason}"),
            }
            let (users, met) = (Users::default(), Instant::now());
            let (path, older, at_calls) = (found.path.clone(), None, self.is_at_calls(found));
            let file = Attached { path, probes, at_calls, older, users, met };
            self.attached.insert(found.id, file);
        }
        Ok(())
    }

    /// Attaches to every function of a library, or to none.
    fn attach(&mut self, found: &Found) -> anyhow::Result<Vec<UProbeLink>> {
        let Functions { derivations, go, .. } = &found.functions;
        let path = path_of(found);
        let mut links = Vec::new();
        if self.is_at_calls(found) {
            // Before the first of them.
            set_calls_attached(&mut self.object, true)?;
        }
        if self.secrets {
            for &Derivation { by, offset } in derivations {
                let begin = match by {
                    Deriving::Kdf => KDF,
                    Deriving::Hkdf => HKDF,
                    Deriving::Prf => PRF,
                };
                links.push(self.probe(begin, offset, &path, None)?);
                if by != Deriving::Prf {
                    links.push(self.probe(KDF_RETURN, offset, &path, None)?);
                }
            }
            if let Some(secret) = go.as_ref().and_then(|go| go.secret) {
                links.push(self.probe(GO_SECRET, secret, &path, None)?);
            }
        }
        if !self.is_at_calls(found) {
            return Ok(links);
        }
        if let Some(go) = go {
            // Entries alone, never a return probe: the stack it would change may move.
            links.push(self.probe(GO_WRITE, go.write, &path, None)?);
            links.push(self.probe(GO_READ, go.read, &path, None)?);
            for &offset in &go.decrypted {
                links.push(self.probe(GO_DECRYPTED, offset, &path, None)?);
            }
        }
        links.extend(self.attach_to_calls(found, 0)?);
        Ok(links)
    }

    /// Whether a file is attached to where plaintext passes.
    fn is_at_calls(&self, found: &Found) -> bool {
        !self.secrets || !found.is_opened()
    }

    /// Attaches to what passes plaintext on. `which`: [`OLDER`], or 0.
    fn attach_to_calls(&mut self, found: &Found, which: u64) -> anyhow::Result<Vec<UProbeLink>> {
        let path = path_of(found);
        let mut links = Vec::new();
        for &Function { call, offset } in &found.functions.calls {
            let cookie = Some(call as u64 | which);
            links.push(self.probe(CALL, offset, &path, cookie)?);
            if call != monitor_common::TlsCall::Shutdown {
                links.push(self.probe(RETURN, offset, &path, cookie)?);
            }
        }
        for &Random { with_context, offset } in &found.functions.randoms {
            let begin = if with_context { RANDOM_EX } else { RANDOM };
            links.push(self.probe(begin, offset, &path, None)?);
            links.push(self.probe(RANDOM_RETURN, offset, &path, None)?);
        }
        for &offset in &found.functions.free {
            links.push(self.probe(FREE, offset, &path, None)?);
        }
        Ok(links)
    }

    fn probe(
        &mut self,
        name: &str,
        offset: u64,
        path: &str,
        cookie: Option<u64>,
    ) -> anyhow::Result<UProbeLink> {
        let program = program(&mut self.object, name)?;
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let point = UProbeAttachPoint { location, cookie };
        let link: UProbeLinkId = program
            .attach(point, path, UProbeScope::AllProcesses)
            .with_context(|| format!("attaching {name} at {offset:#x}"))?;
        Ok(program.take_link(link)?)
    }
}

/// By descriptor: also of a file that was replaced, or is in another mount namespace.
fn path_of(found: &Found) -> String {
    format!("/proc/self/fd/{}", found.file.as_raw_fd())
}

/// How it stands with a process.
enum Seen {
    Attached,
    /// None that can be looked into: which is there, and how it is seen all the same.
    NoLibrary(String),
    Gone,
}
