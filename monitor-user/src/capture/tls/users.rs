//! Processes that use a file, as long as they are there.

use std::collections::HashMap;

use super::processes;

/// Processes by id, with when they were started: an id may become another's.
#[derive(Default)]
pub(super) struct Users(HashMap<u32, u64>);

/// Users of one file that are remembered; of those beyond, one look at who holds the ports tells.
const USERS_MAX: usize = 1024;

impl Users {
    /// A process uses the file.
    pub(super) fn add(&mut self, pid: u32) {
        if self.0.len() < USERS_MAX {
            self.0.extend(processes::started(pid).map(|started| (pid, started)));
        }
    }

    /// Whether any of them is there still; those that are gone are forgotten.
    pub(super) fn are_there(&mut self) -> bool {
        self.0.retain(|pid, started| processes::started(*pid) == Some(*started));
        !self.0.is_empty()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn users_are_forgotten_when_they_are_gone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut users = Users::default();
        assert!(!users.are_there());
        users.add(child.id());
        assert!(users.are_there());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!users.are_there() && users.is_empty());
        // Gone before it was added.
        users.add(child.id());
        assert!(users.is_empty());
    }

    #[test]
    fn an_id_that_has_become_anothers_is_no_user() {
        let own = std::process::id();
        let mut users = Users(HashMap::from([(own, 1)]));
        assert!(!users.are_there());
        users.add(own);
        assert!(users.are_there());
    }
}
