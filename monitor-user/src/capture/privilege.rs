//! The rights that capture needs, and giving up all others.

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};

/// Load and attach: CAP_BPF for maps and programs, CAP_PERFMON for tracing programs, CAP_NET_ADMIN
/// for programs on sockets.
pub const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

/// Those of [`NEEDED`] that this process does not have. CAP_SYS_ADMIN stands for the first two, as
/// it does in the kernel.
pub fn missing() -> Vec<Capability> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|&needed| !has(needed) && (needed == Capability::CAP_NET_ADMIN || !admin))
        .collect()
}

/// Refuses to go on without the rights.
///
/// # Errors
///
/// One line with the missing rights and the mend.
pub fn require() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    anyhow::bail!(
        "capture: {} missing; run as root, or: setcap cap_bpf,cap_perfmon,cap_net_admin+ep $(command -v keywatch)",
        names.join(", ")
    )
}

/// Gives up every right but CAP_BPF, which kernels before 6.0 ask for to read counters, for this
/// thread and those it starts; and the way to gain any.
///
/// # Errors
///
/// When the kernel refuses.
pub fn drop_all_but_reading() -> anyhow::Result<()> {
    keep_only(CapsHashSet::from([Capability::CAP_BPF]))
}

/// Gives up every right of this thread but those that it takes to find TLS libraries in processes of
/// others and to attach to them.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn drop_all_but_attaching() -> anyhow::Result<()> {
    keep_only(CapsHashSet::from([
        // For probes in processes the kernel asks for no less; it stands for CAP_BPF and CAP_PERFMON.
        Capability::CAP_SYS_ADMIN,
        // To see what a process has mapped, and to open it.
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
    ]))
}

fn keep_only(keep: CapsHashSet) -> anyhow::Result<()> {
    let had = caps::read(None, CapSet::Permitted).context("reading capabilities")?;
    let keep: CapsHashSet = keep.intersection(&had).copied().collect();
    if had.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            // A kernel older than this list does not know the newest; it cannot grant them either.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    let none = CapsHashSet::new();
    for (set, rights) in [
        (CapSet::Ambient, &none),
        (CapSet::Inheritable, &none),
        (CapSet::Effective, &keep),
        (CapSet::Permitted, &keep),
    ] {
        caps::set(None, set, rights).with_context(|| format!("dropping {set:?} capabilities"))?;
    }
    // SAFETY: takes no pointers.
    let refused = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    anyhow::ensure!(refused == 0, "PR_SET_NO_NEW_PRIVS: {}", std::io::Error::last_os_error());
    Ok(())
}
