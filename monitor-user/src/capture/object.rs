//! Loads the kernel object and attaches its programs.

use std::fs::File;
use std::io;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::cgroup_skb::CgroupSkbLink;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError,
};
use aya::{Btf, Ebpf, EbpfLoader};
use monitor_common::{PORT_WORDS, TLS_CALL_BYTES_MAX};

use crate::capture::tls::{self, Process, Watcher};
use crate::capture::{InsideTls, Options, Ports};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KEYWATCH_BPF_OBJECT"));

/// The programs that see packets, and where they go. Capture cannot do without them.
const PACKETS: [(&str, CgroupSkbAttachType); 2] = [
    ("keywatch_ingress", CgroupSkbAttachType::Ingress),
    ("keywatch_egress", CgroupSkbAttachType::Egress),
];

/// The programs that see what happens to sockets, and their tracepoints. Without the first, a flow
/// ends by FIN, RST or idle time; without the second, its process is not known.
const LIFECYCLE: [(&str, &str); 2] =
    [("keywatch_state", "inet_sock_set_state"), ("keywatch_recv", "sock_recv_length")];

/// Brings what a TLS library sends together with its socket, and names the processes that call elsewhere.
const SENDS: (&str, &str) = ("keywatch_send", "sock_send_length");

/// Everything that capture keeps of the loaded object.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) data: RingBuf<MapData>,
    pub(super) control: RingBuf<MapData>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    /// Cookies of the TLS connections of which no more is wanted.
    pub(super) unwanted: HashMap<MapData, u64, u8>,
    pub(super) logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// Keeps the programs attached as long as it lives.
pub(super) struct Programs {
    /// Hold the tracepoint programs and their links.
    objects: Objects,
    packets: Vec<Packets>,
}

/// Who holds the object.
enum Objects {
    /// Its programs stay as they are.
    Kept { _object: Ebpf },
    /// Others are attached as processes come.
    Attaching(Watcher),
}

/// An attached packet program.
struct Packets {
    name: &'static str,
    program_id: u32,
    _link: CgroupSkbLink,
}

impl Programs {
    /// Files whose TLS library is looked into.
    pub(super) fn tls_libraries(&self) -> u64 {
        match &self.objects {
            Objects::Kept { .. } => 0,
            Objects::Attaching(watcher) => watcher.libraries(),
        }
    }

    /// Processes whose TLS is not, and why.
    pub(super) fn tls_unseen(&self) -> Vec<String> {
        match &self.objects {
            Objects::Kept { .. } => Vec::new(),
            Objects::Attaching(watcher) => watcher.unseen(),
        }
    }

    /// Looks for a TLS library in a process, soon.
    pub(super) fn look_into(&self, process: Process) {
        match &self.objects {
            Objects::Kept { .. } => {}
            Objects::Attaching(watcher) => watcher.look_into(process),
        }
    }

    /// Names of packet programs that somebody has detached, or whose cgroup is gone: their link is
    /// there, but holds no cgroup.
    pub(super) fn detached(&self) -> Vec<String> {
        let Ok(descriptors) = std::fs::read_dir("/proc/self/fdinfo") else { return Vec::new() };
        let loose: Vec<u32> = descriptors
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|description| program_of_loose_link(&description))
            .collect();
        let detached = self.packets.iter().filter(|packets| loose.contains(&packets.program_id));
        detached.map(|packets| packets.name.to_owned()).collect()
    }
}

/// Program id of a cgroup link that holds no cgroup, from its file in /proc/PID/fdinfo.
fn program_of_loose_link(description: &str) -> Option<u32> {
    let field = |name: &str| {
        description
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let loose = field("link_type") == Some("cgroup") && field("cgroup_id") == Some("0");
    loose.then(|| field("prog_id")?.parse().ok()).flatten()
}

pub(super) fn load_and_attach(options: &Options, cgroup: &File) -> anyhow::Result<Loaded> {
    let mut object = load(options)?;
    watch_ports(&mut object, "PORTS", &options.ports.own)?;
    watch_ports(&mut object, "OUTBOUND_PORTS", &options.ports.called)?;
    let mut packets = Vec::new();
    for (name, attach_type) in PACKETS {
        let program: &mut CgroupSkb = program(&mut object, name)?;
        let link = program
            .attach(cgroup, attach_type, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .with_context(|| format!("attaching {name}"))?;
        let program_id = program.info().with_context(|| format!("asking about {name}"))?.id();
        packets.push(Packets { name, program_id, _link: link });
    }
    let sends = options.tls.at_libraries() || !options.ports.called.is_empty();
    let attached = attach_lifecycle(&mut object, sends);
    let logger = match &options.kernel_log {
        Some(_) => Some(aya_log::EbpfLogger::init(&mut object).context("reading the kernel log")?),
        None => None,
    };
    let mut take = |name| object.take_map(name).with_context(|| format!("map {name}"));
    let data = take("DATA")?.try_into()?;
    let control = take("CONTROL")?.try_into()?;
    let counters = take("COUNTERS")?.try_into()?;
    let unwanted = take("TLS_SEALED")?.try_into()?;
    let objects = if options.tls.at_libraries() {
        let secrets = options.tls.takes_secrets();
        Objects::Attaching(Watcher::start(object, &options.ports, secrets, attached)?)
    } else {
        Objects::Kept { _object: object }
    };
    Ok(Loaded {
        data,
        control,
        counters,
        unwanted,
        programs: Programs { objects, packets },
        logger,
    })
}

/// Loads object and packet programs, with the network namespace told by the kernel if it can
/// (6.15 and later), else with cgroups in its place.
fn load(options: &Options) -> anyhow::Result<Ebpf> {
    load_with(options, true).or_else(|_| load_with(options, false))
}

fn load_with(options: &Options, has_netns_cookie: bool) -> anyhow::Result<Ebpf> {
    let level = options.kernel_log.as_deref().map_or(Ok(0), log_level)?;
    let (inside, call_bytes_max) = match options.tls {
        InsideTls::Off => (monitor_common::InsideTls::Off, 0),
        InsideTls::Libraries { call_bytes_max, secrets: false } => {
            (monitor_common::InsideTls::Libraries, call_bytes_max)
        }
        InsideTls::Libraries { call_bytes_max, secrets: true } => {
            (monitor_common::InsideTls::Secrets, call_bytes_max)
        }
        InsideTls::KeyLogs(_) => (monitor_common::InsideTls::Wire, 0),
    };
    let mut object = EbpfLoader::new()
        .override_global("HAS_NETNS_COOKIE", &u8::from(has_netns_cookie), true)
        .override_global("FIRST_BYTES", &u8::from(options.first_bytes), true)
        .override_global("WATCHES_OUTBOUND", &u8::from(!options.ports.called.is_empty()), true)
        .override_global("INSIDE_TLS", &(inside as u8), true)
        .override_global("TLS_CALL_BYTES_MAX", &call_bytes_max, true)
        .override_global("AYA_LOG_LEVEL", &level, true)
        .map_max_entries("DATA", ring_size(options.ring_bytes)?)
        .map_max_entries("CONTROL", ring_size(options.control_ring_bytes)?)
        .load(OBJECT)
        .context("loading the kernel object")?;
    for (name, _) in PACKETS {
        let program: &mut CgroupSkb = program(&mut object, name)?;
        uninterrupted(|| program.load()).with_context(|| format!("loading {name}"))?;
    }
    Ok(object)
}

/// Loads a program. The kernel gives up checking it when a signal comes, and says to try again.
pub(super) fn uninterrupted(
    load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    let is_interruption = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    again_while(
        load,
        |error| matches!(error, ProgramError::LoadError { io_error, .. } if is_interruption(io_error)),
    )
}

/// Tries again, as often as libbpf does, while what goes wrong is passing.
fn again_while<E>(
    mut attempt: impl FnMut() -> Result<(), E>,
    is_passing: impl Fn(&E) -> bool,
) -> Result<(), E> {
    const ATTEMPTS: usize = 5;
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if is_passing(&error) => {}
            done => return done,
        }
    }
    attempt()
}

/// Ring sizes are powers of two of whole pages; 64 KiB pages are the largest in use.
fn ring_size(bytes: u32) -> anyhow::Result<u32> {
    const RING_BYTES_MIN: u32 = 1 << 16;
    const RING_BYTES_MAX: u32 = 1 << 30;
    anyhow::ensure!(
        bytes <= RING_BYTES_MAX,
        "a ring of {bytes} bytes is more than the {RING_BYTES_MAX} that the kernel gives"
    );
    Ok(bytes.max(RING_BYTES_MIN).next_power_of_two())
}

/// Levels as the kernel side numbers them.
fn log_level(name: &str) -> anyhow::Result<u8> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let index = LEVELS.iter().position(|level| *level == name);
    index
        .and_then(|index| u8::try_from(index + 1).ok())
        .with_context(|| format!("kernel log level `{name}`: use one of {}", LEVELS.join(", ")))
}

fn watch_ports(object: &mut Ebpf, map: &str, ports: &[u16]) -> anyhow::Result<()> {
    let mut words = [0_u64; PORT_WORDS];
    for port in ports {
        words[usize::from(port / 64)] |= 1 << (port % 64);
    }
    let map = object.map_mut(map).with_context(|| format!("map {map}"))?;
    let mut map: Array<_, u64> = map.try_into()?;
    for (index, word) in (0..).zip(words).filter(|(_, word)| *word != 0) {
        map.set(index, word, 0).context("setting the watched ports")?;
    }
    Ok(())
}

/// Tells what it takes to look inside TLS and is not there. `sends`: also [`SENDS`].
fn attach_lifecycle(object: &mut Ebpf, sends: bool) -> Result<(), String> {
    let btf = match Btf::from_sys_fs() {
        Ok(btf) => btf,
        Err(error) => {
            tracing::warn!(%error, "no BTF: processes of sockets stay unknown");
            return Err(format!("no BTF: {error}"));
        }
    };
    let mut missing = Ok(());
    for (name, tracepoint) in LIFECYCLE.into_iter().chain(sends.then_some(SENDS)) {
        if let Err(error) = attach_tracepoint(object, name, tracepoint, &btf) {
            tracing::warn!(tracepoint, "not attached; goes on without it: {}", told(&error));
            missing = Err(format!("no tracepoint {tracepoint} (kernel 6.3 has it)"));
        }
    }
    missing
}

fn attach_tracepoint(
    object: &mut Ebpf,
    name: &str,
    tracepoint: &str,
    btf: &Btf,
) -> anyhow::Result<()> {
    let program: &mut BtfTracePoint = program(object, name)?;
    uninterrupted(|| program.load(tracepoint, btf)).context("loading")?;
    program.attach().context("attaching")?;
    Ok(())
}

fn program<'a, P>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = object.program_mut(name);
    Ok(program.with_context(|| format!("the kernel object has no program {name}"))?.try_into()?)
}

/// In one line: what the verifier says of a program has thousands, and goes to the log at debug level.
pub(super) fn told(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if !rest.is_empty() {
        tracing::debug!("{rest}");
    }
    first.to_owned()
}

/// One entry a part: the rings with the packet programs, and each tracepoint.
pub(super) fn probe() -> Vec<(String, Result<(), String>)> {
    let mut parts = Vec::new();
    let options = Options {
        // With the most that it may hold.
        ports: Ports { own: Vec::new(), called: vec![443] },
        cgroup: None,
        ring_bytes: 0,
        control_ring_bytes: 0,
        kernel_log: None,
        first_bytes: true,
        tls: InsideTls::Libraries { call_bytes_max: TLS_CALL_BYTES_MAX as u32, secrets: true },
    };
    let mut object = match load(&options) {
        Ok(object) => object,
        Err(error) => {
            parts.push(("rings and packet programs".to_owned(), Err(told(&error))));
            return parts;
        }
    };
    parts.push(("rings and packet programs".to_owned(), Ok(())));
    for (name, tracepoint) in LIFECYCLE.into_iter().chain([SENDS]) {
        let attached = Btf::from_sys_fs()
            .context("reading BTF")
            .and_then(|btf| attach_tracepoint(&mut object, name, tracepoint, &btf));
        parts.push((format!("tracepoint {tracepoint}"), attached.map_err(|error| told(&error))));
    }
    let probes = tls::load(&mut object).map_err(|error| told(&error));
    parts.push(("probes of TLS libraries".to_owned(), probes));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_what_the_kernel_takes() {
        assert_eq!(ring_size(0).unwrap(), 65_536);
        assert_eq!(ring_size(16 << 20).unwrap(), 16 << 20);
        assert_eq!(ring_size((16 << 20) + 1).unwrap(), 32 << 20);
        assert!(ring_size(u32::MAX).is_err());
    }

    #[test]
    fn a_signal_while_a_program_is_checked_is_no_failure() {
        let attempts = |errors: &[i32]| {
            let mut left = errors.iter();
            let attempt = || left.next().map_or(Ok(()), Err);
            let result = again_while(attempt, |error| **error == 11);
            (result.is_ok(), errors.len() - left.len())
        };
        assert_eq!(attempts(&[11, 11]), (true, 2));
        assert_eq!(attempts(&[13, 11]), (false, 1));
        assert_eq!(attempts(&[11; 9]), (false, 5));
    }

    #[test]
    fn a_loose_link_is_told_from_a_held_one() {
        let held = "pos:\t0\nlink_type:\tcgroup\nprog_id:\t7\ncgroup_id:\t1\nattach_type:\t0\n";
        assert_eq!(program_of_loose_link(held), None);
        let loose = held.replace("cgroup_id:\t1", "cgroup_id:\t0");
        assert_eq!(program_of_loose_link(&loose), Some(7));
        assert_eq!(program_of_loose_link("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn log_levels_are_numbered_from_error() {
        assert_eq!((log_level("error").unwrap(), log_level("trace").unwrap()), (1, 5));
        assert!(log_level("loud").unwrap_err().to_string().contains("error, warn"));
    }
}
