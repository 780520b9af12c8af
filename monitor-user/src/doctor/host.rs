//! The kernel and the rights to use it.

use std::fs;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};

use super::Check;

pub(super) fn checks(cgroup: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![kernel(), btf(), lockdown(), capabilities(), hierarchy(cgroup)];
    checks.extend([memlock(), jit()]);
    checks
}

/// The first cgroup v2 hierarchy in a mount table, also a hybrid one beside v1.
pub(super) fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // proc_pid_mounts(5): white space in names is written in octal.
        let target = target.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        (kind == "cgroup2").then(|| target.into())
    })
}

/// cgroup_skb links, ring buffers and the helpers that are used came by then.
const KERNEL_MIN: (u32, u32) = (5, 15);

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let (major, minor) = KERNEL_MIN;
    match version(&release) {
        Some(found) if found >= KERNEL_MIN => Check::ok("kernel", release),
        Some(_) => Check::fail("kernel", release, format!("use {major}.{minor} or later")),
        None => Check::warn("kernel", release, format!("make sure it is {major}.{minor} or later")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    match fs::metadata(path) {
        Ok(_) => Check::ok("BTF", path),
        Err(error) => Check::fail(
            "BTF",
            format!("{path}: {error}"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions ship them",
        ),
    }
}

fn lockdown() -> Check {
    let path = "/sys/kernel/security/lockdown";
    // Missing: securityfs is not mounted or the kernel has no lockdown.
    let text = fs::read_to_string(path).unwrap_or_default();
    let mode = text.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("none");
    match mode {
        "confidentiality" => Check::fail(
            "lockdown",
            mode,
            "boot with lockdown=integrity; confidentiality forbids BPF programs to read packets",
        ),
        mode => Check::ok("lockdown", mode),
    }
}

fn capabilities() -> Check {
    let needed = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];
    let held = match caps::read(None, CapSet::Effective) {
        Ok(held) => held,
        Err(error) => return Check::warn("capabilities", error.to_string(), "run as root"),
    };
    let missing: Vec<String> = needed
        .iter()
        // What CAP_SYS_ADMIN could do before the others came (Linux 5.8), it still can.
        .filter(|cap| !held.contains(cap))
        .filter(|cap| {
            **cap == Capability::CAP_NET_ADMIN || !held.contains(&Capability::CAP_SYS_ADMIN)
        })
        .map(Capability::to_string)
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN");
    }
    let list = missing.join(",").to_lowercase();
    Check::fail(
        "capabilities",
        format!("{} missing", missing.join(", ")),
        format!("run as root, or: setcap {list}+ep $(command -v keywatch)"),
    )
}

fn hierarchy(configured: Option<&Path>) -> Check {
    let found = match configured {
        Some(path) => Some(path.to_path_buf()),
        None => fs::read_to_string("/proc/self/mounts").ok().and_then(|text| cgroup2_mount(&text)),
    };
    let mend = "mount -t cgroup2 none /sys/fs/cgroup";
    let Some(path) = found else { return Check::fail("cgroup v2", "not mounted", mend) };
    let shown = path.display().to_string();
    // The core interface file of every v2 cgroup.
    match path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists() {
        true => Check::ok("cgroup v2", shown),
        false => Check::fail(
            "cgroup v2",
            format!("{shown} is no cgroup v2 directory"),
            "correct capture.cgroup in the config",
        ),
    }
}

/// Ring buffers count against this limit before Linux 5.11 only.
fn memlock() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let found = match limit.current {
        None => "unlimited".into(),
        Some(bytes) => format!("{} KiB", bytes / 1024),
    };
    Check::ok("memlock", format!("{found} (does not count for BPF since Linux 5.11)"))
}

fn jit() -> Check {
    let path = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(path).as_deref().map(str::trim) {
        Ok("0") => Check::warn(
            "BPF JIT",
            "off: the kernel programs run several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Check::ok("BPF JIT", "on"),
        // Kernels that always compile (CONFIG_BPF_JIT_ALWAYS_ON) may hide it from containers.
        Err(_) => Check::ok("BPF JIT", "not shown here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cgroup2_is_found_in_unified_and_hybrid_tables() {
        let unified = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup2_mount(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup2 /elsewhere cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("none /a\\040b cgroup2 rw 0 0"), Some("/a b".into()));
        assert_eq!(cgroup2_mount("cgroup /sys/fs/cgroup cgroup rw 0 0\nshort\n"), None);
    }

    #[test]
    fn releases_are_read_by_their_first_two_numbers() {
        assert_eq!(version("6.18.44-fc-v445"), Some((6, 18)));
        assert_eq!(version("5.15"), Some((5, 15)));
        assert_eq!(version("linux"), None);
    }
}
