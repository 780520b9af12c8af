//! Where the cgroup v2 hierarchy is mounted, alone or beside v1 controllers.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Root of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts.
///
/// # Errors
///
/// When none is mounted, with the command that mounts one.
pub fn root() -> anyhow::Result<PathBuf> {
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    first_v2(&mounts).context(
        "no cgroup v2 hierarchy is mounted; mount one: \
         mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
    )
}

/// Refuses a directory of another file system, of cgroup v1 among them.
///
/// # Errors
///
/// One line with the mend.
pub(super) fn require_v2(directory: &File, path: &Path) -> anyhow::Result<()> {
    // linux/magic.h
    const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
    let kind = rustix::fs::fstatfs(directory).with_context(|| path.display().to_string())?.f_type;
    anyhow::ensure!(
        kind == CGROUP2_SUPER_MAGIC,
        "{} is not a cgroup v2 directory; leave --cgroup out to take the root of the hierarchy",
        path.display()
    );
    Ok(())
}

/// The first `cgroup2` line of a mount table (proc_mounts(5): device, mount point, type, …).
fn first_v2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        // Spaces in a mount point are written \040.
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_refused() {
        let refused = require_v2(&File::open("/proc").unwrap(), Path::new("/proc")).unwrap_err();
        assert!(refused.to_string().starts_with("/proc is not a cgroup v2 directory; "));
    }

    #[test]
    fn finds_the_unified_hierarchy_alone_and_in_hybrid() {
        let alone = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(first_v2(alone), Some("/sys/fs/cgroup".into()));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(first_v2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(first_v2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
        assert_eq!(first_v2("none /a\\040b cgroup2 rw 0 0"), Some("/a b".into()));
    }
}
