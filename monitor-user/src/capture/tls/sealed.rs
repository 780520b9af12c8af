//! TLS connections inside which nothing is seen.

use std::collections::HashMap;

use super::{processes, trace};

/// Connections by process.
#[derive(Default)]
pub(in crate::capture) struct Sealed {
    connections: u64,
    processes: HashMap<u32, Account>,
}

#[derive(Default)]
struct Account {
    seen: bool,
    sealed: u32,
}

/// Processes that are remembered: more than run on any API host.
const PROCESSES_MAX: usize = 4096;

/// Connections of a process, none of them seen, that are no accident: handshakes that fail pass no
/// plaintext either.
const TELLING: u32 = 10;

impl Sealed {
    /// A TLS connection of a process is over.
    pub(in crate::capture) fn close(&mut self, pid: Option<u32>, seen: bool) {
        self.connections += u64::from(!seen);
        if let Some(account) = self.account(pid) {
            account.seen |= seen;
            account.sealed = account.sealed.saturating_add(u32::from(!seen));
        }
    }

    /// Something was seen inside a connection of a process.
    pub(in crate::capture) fn see(&mut self, pid: Option<u32>) {
        if let Some(account) = self.account(pid) {
            account.seen = true;
        }
    }

    /// A connection has gone on beyond any handshake, and nothing was seen inside: it may stay open for days.
    pub(in crate::capture) fn go_on(&mut self, pid: Option<u32>) {
        if let Some(account) = self.account(pid) {
            account.sealed = account.sealed.max(TELLING);
        }
    }

    fn account(&mut self, pid: Option<u32>) -> Option<&mut Account> {
        let pid = pid?;
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&pid) {
            self.processes.clear();
        }
        Some(self.processes.entry(pid).or_default())
    }

    /// How many there were.
    pub(in crate::capture) fn connections(&self) -> u64 {
        self.connections
    }

    /// Processes of which not one connection was seen inside: a line each.
    pub(in crate::capture) fn unseen(&self) -> Vec<String> {
        let telling = |account: &Account| !account.seen && account.sealed >= TELLING;
        let unseen = self.processes.iter().filter(|(_, account)| telling(account));
        let mut lines: Vec<String> = unseen
            .filter(|(pid, _)| processes::exists(**pid))
            .map(|(pid, _)| {
                format!(
                    "{} (pid {pid}): nothing that its TLS library is given could be tied to its \
                     connections; if it brings another one, {}",
                    processes::name(*pid),
                    trace::BY_KEY_LOG
                )
            })
            .collect();
        lines.sort_unstable();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_when_nothing_of_it_is_seen() {
        let own = std::process::id();
        let mut sealed = Sealed::default();
        for _ in 0..TELLING - 1 {
            sealed.close(Some(own), false);
        }
        assert_eq!(sealed.unseen(), Vec::<String>::new());
        sealed.close(Some(own), false);
        // Above the largest process id that Linux gives (2^22): it is gone.
        (0..20).for_each(|_| sealed.close(Some(5_000_000), false));
        sealed.close(None, false);
        assert_eq!(sealed.connections(), 31);
        let lines = sealed.unseen();
        assert!(lines.len() == 1 && lines[0].contains(&format!("(pid {own}): ")), "{lines:?}");
        sealed.close(Some(own), true);
        assert_eq!(sealed.unseen(), Vec::<String>::new());
    }

    #[test]
    fn one_connection_that_goes_on_unseen_is_enough() {
        let own = Some(std::process::id());
        let mut sealed = Sealed::default();
        sealed.go_on(own);
        assert_eq!((sealed.unseen().len(), sealed.connections()), (1, 0));
        sealed.see(own);
        assert_eq!(sealed.unseen(), Vec::<String>::new());
    }

    #[test]
    fn processes_are_bounded() {
        let mut sealed = Sealed::default();
        (0..100_000).for_each(|pid| sealed.close(Some(pid), true));
        assert!(sealed.processes.len() <= PROCESSES_MAX);
    }
}
