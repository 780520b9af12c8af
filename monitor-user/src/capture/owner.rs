//! Which process and container a socket belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use monitor_core::input::Owner;
use monitor_core::time::EventTime;

/// Processes that are remembered: more than run on any API host.
const PROCESSES_MAX: usize = 4096;

/// How long a process id is believed to be the same process.
const BELIEVED_SECS: u64 = 10;

/// Processes by id, looked up in /proc at most once in a while.
#[derive(Default)]
pub(super) struct Owners {
    known: HashMap<u32, (EventTime, Arc<Owner>)>,
}

impl Owners {
    /// The process `pid`; `command` is the name of the thread that used the socket, which stands in
    /// when the process is gone already.
    pub(super) fn owner(&mut self, now: EventTime, pid: u32, command: &[u8]) -> Arc<Owner> {
        if let Some((seen, owner)) = self.known.get(&pid)
            && now.since(*seen).as_secs() < BELIEVED_SECS
        {
            return owner.clone();
        }
        if self.known.len() >= PROCESSES_MAX {
            self.known.clear();
        }
        let owner = Arc::new(look_up(pid, command));
        self.known.insert(pid, (now, owner.clone()));
        owner
    }
}

fn look_up(pid: u32, command: &[u8]) -> Owner {
    let process = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_else(|_| command.to_vec());
    let text = CompactString::from_utf8_lossy(&process);
    let process = CompactString::from(text.trim_end_matches(['\n', '\0']));
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Owner { process, pid, container: container_of(&cgroups) }
}

/// The container id in a process's cgroup paths: Docker, containerd, CRI-O and Podman all name the
/// cgroup after the 64 hexadecimal digits of the container, with a prefix or a suffix.
fn container_of(cgroups: &str) -> Option<CompactString> {
    const ID_LEN: usize = 64;
    cgroups
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|part| part.len() == ID_LEN)
        .map(CompactString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_name() {
        let own = Owners::default().owner(EventTime(0), std::process::id(), b"other\0");
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(own.process, comm.trim_end());
    }

    #[test]
    fn a_process_that_is_gone_keeps_the_name_that_the_kernel_gave() {
        // Above the largest process id that Linux gives (2^22).
        let gone = Owners::default().owner(EventTime(0), u32::MAX, b"nginx\0\0\0");
        assert_eq!((gone.process.as_str(), gone.container.as_ref()), ("nginx", None));
    }

    #[test]
    fn containers_are_found_in_every_runtime_s_path() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("0::/docker/{id}\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:cpu:/kubepods/pod1/{id}\n0::/\n"),
            format!("0::/kubepods.slice/cri-containerd-{id}.scope\n"),
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
        ] {
            assert_eq!(container_of(&path).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_of("0::/user.slice/user-1000.slice\n"), None);
    }
}
