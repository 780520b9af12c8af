//! Prints calls (some) and alerts (all) as Keywatch writes them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use monitor_core::alert::{Alert, Entity, Severity};
use monitor_core::call::{ApiCall, KeyId};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A person reads no more lines than this a second.
const CALLS_SHOWN_EVERY: Duration = Duration::from_millis(400);

/// Prints until stopped.
pub(super) struct Show {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Show {
    /// Follows both files; `names` says whose key an id is.
    pub(super) fn start(calls: PathBuf, alerts: PathBuf, names: HashMap<KeyId, String>) -> Show {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut calls = Tail::new(&calls);
            let mut alerts = Tail::new(&alerts);
            let mut shown = Shown { names, severities: HashMap::new(), next_call: Instant::now() };
            loop {
                let last = stopped.load(Ordering::Acquire);
                alerts.lines(|line| shown.alert(line));
                calls.lines(|line| shown.call(line));
                if last {
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Show { stop, thread: Some(thread) }
    }
}

/// Prints what is still there, then ends.
impl Drop for Show {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Shown {
    names: HashMap<KeyId, String>,
    severities: HashMap<u64, Severity>,
    next_call: Instant,
}

impl Shown {
    /// One call in a while.
    fn call(&mut self, line: &str) {
        if Instant::now() < self.next_call {
            return;
        }
        let Ok(call) = serde_json::from_str::<ApiCall>(line) else { return };
        let (Some(request), Some(response)) = (&call.request, &call.response) else { return };
        self.next_call = Instant::now() + CALLS_SHOWN_EVERY;
        println!(
            "  call   {:<12} {:>11}  {:<6} {:<38} {} {:<18} {:>6} us",
            call.key.as_ref().map_or("(no key)".into(), |key| self.name(key.id)),
            call.flow.client.ip(),
            request.method,
            request.path,
            response.status.map_or_else(|| "-".into(), |status| status.to_string()),
            call.outcome.map_or("", |outcome| outcome.as_str()),
            call.latency_us.unwrap_or(0),
        );
    }

    /// An alert when it is raised and when it gets worse.
    fn alert(&mut self, line: &str) {
        let Ok(alert) = serde_json::from_str::<Alert>(line) else { return };
        let before = self.severities.insert(alert.id.0, alert.severity);
        if before.is_some_and(|before| before >= alert.severity) {
            return;
        }
        let state = if before.is_some() { "worse" } else { "ALERT" };
        println!(
            "  {state}  {:?}, confidence {:.2}: {} [{}]",
            alert.severity,
            alert.confidence,
            alert.title,
            self.whom(&alert.entity)
        );
        println!("         {}", alert.explanation);
        for finding in &alert.findings {
            println!(
                "         {:<4} {}: expected {}; seen {}",
                finding.detector, finding.name, finding.expected, finding.seen
            );
        }
        println!("         first: {}", alert.first_step);
    }

    fn whom(&self, entity: &Entity) -> String {
        match entity {
            Entity::Key(id) => format!("key of {}", self.name(*id)),
            Entity::Client(ip) => format!("client {ip}"),
            Entity::Network(ip) => format!("network of {ip}"),
            Entity::Group(id) => format!("keys of {id}"),
            Entity::Host => "this host".to_owned(),
        }
    }

    fn name(&self, id: KeyId) -> String {
        let known = self.names.get(&id).cloned();
        known.unwrap_or_else(|| id.to_string().chars().take(10).collect())
    }
}

/// Whole lines as they are appended to a file.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: &Path) -> Tail {
        Tail { path: path.to_owned(), file: None, rest: Vec::new() }
    }

    fn lines(&mut self, mut each: impl FnMut(&str)) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        if file.read_to_end(&mut self.rest).is_err() {
            return;
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.rest.drain(..whole).as_slice().split(|byte| *byte == b'\n') {
            if let Ok(line) = std::str::from_utf8(line) {
                each(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_given_once_and_only_when_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::new(file.path());
        let mut seen = Vec::new();
        file.write_all(b"one\ntw").unwrap();
        tail.lines(|line| seen.push(line.to_owned()));
        file.write_all(b"o\n").unwrap();
        tail.lines(|line| seen.push(line.to_owned()));
        seen.retain(|line| !line.is_empty());
        assert_eq!(seen, ["one", "two"]);
    }
}
