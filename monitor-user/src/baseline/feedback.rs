//! What people say of alerts, as lines of a file that is only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use monitor_core::engine::{Engine, Feedback};

use crate::fault::tell;

/// Some ten thousand lines: years of dismissals by hand.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A reason is at most 1 KiB of it.
pub(super) const REASON_BYTES_MAX: usize = 1 << 10;
/// A line with the longest reason, every character escaped.
const LINE_BYTES_MAX: usize = 8 << 10;

/// The file, and how far it was read.
pub(super) struct Log {
    path: PathBuf,
    seen: u64,
    has_told: bool,
}

impl Log {
    /// `seen` bytes were taken before.
    pub(super) fn new(path: PathBuf, seen: u64) -> Log {
        Log { path, seen, has_told: false }
    }

    /// Bytes that were taken.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes what was said since the last time, and gives what the Engine took of it. A line that is no
    /// feedback is named and passed over.
    pub(super) fn read(&mut self, engine: &mut Engine) -> Vec<Feedback> {
        match self.new_lines() {
            Ok(lines) => {
                self.has_told = false;
                let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                return lines.filter_map(|line| self.take(line, engine)).collect();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_told, true) {
                    tell(&format!("feedback is not taken: {}: {error:#}", self.path.display()));
                }
            }
        }
        Vec::new()
    }

    fn take(&self, line: &[u8], engine: &mut Engine) -> Option<Feedback> {
        let feedback = match serde_json::from_slice::<Feedback>(line) {
            Ok(feedback) if line.len() <= LINE_BYTES_MAX => feedback,
            Ok(_) | Err(_) => {
                let shown = self.path.display();
                tell(&format!(
                    "feedback is passed over: {shown}: a line is not as `keywatch alert` writes it"
                ));
                return None;
            }
        };
        match engine.handle_feedback(&feedback) {
            Ok(()) => {
                tracing::info!(?feedback, "feedback taken");
                Some(feedback)
            }
            Err(error) => {
                tell(&format!("feedback is passed over: {error}"));
                None
            }
        }
    }

    /// Whole lines after what was seen.
    fn new_lines(&mut self) -> Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let about = file.metadata()?;
        check_owner(&about, &self.path)?;
        if about.len() < self.seen {
            // Somebody began a new one.
            self.seen = 0;
        }
        if about.len() == self.seen {
            return Ok(Vec::new());
        }
        file.seek(SeekFrom::Start(self.seen))?;
        let mut lines = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut lines)?;
        // The rest of a line that is being written comes next time.
        lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        self.seen += lines.len() as u64;
        Ok(lines)
    }
}

/// Appends what somebody says.
pub(super) fn append(path: &Path, feedback: &Feedback) -> Result<()> {
    let shown = path.display();
    let cannot = || format!("cannot write feedback: {shown}");
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).with_context(cannot)?;
    let about = file.metadata().with_context(cannot)?;
    check_owner(&about, path)?;
    if about.len() > FILE_BYTES_MAX {
        bail!("cannot write feedback: {shown} is full: remove it; what it said is learnt already");
    }
    let mut line = serde_json::to_vec(feedback)?;
    line.push(b'\n');
    file.write_all(&line).and_then(|()| file.sync_all()).with_context(cannot)
}

/// Whoever can write it can silence the agent.
fn check_owner(about: &std::fs::Metadata, path: &Path) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if about.mode() & 0o022 != 0 {
        bail!("others can write to it: chmod 600 {}", path.display());
    }
    if about.uid() != user && about.uid() != 0 {
        bail!("it is another user's: chown it to the agent's, or remove it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use monitor_core::call::KeyId;
    use monitor_core::engine::{Said, Settings};
    use monitor_core::time::EventTime;

    use super::*;

    fn mute() -> Feedback {
        let said = Said::Mute { key: KeyId(7), detector: None, until: EventTime(9) };
        Feedback { time: EventTime(1), said }
    }

    #[test]
    fn each_line_is_taken_once_and_half_a_line_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.jsonl");
        let mut engine = Engine::new(Settings::default());
        let mut log = Log::new(path.clone(), 0);
        log.read(&mut engine);
        assert_eq!(log.seen(), 0, "there is none yet");
        append(&path, &mute()).unwrap();
        assert_eq!(log.read(&mut engine), [mute()]);
        let one = log.seen();
        assert_eq!(one, std::fs::metadata(&path).unwrap().len());
        append(&path, &mute()).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"ti").unwrap();
        log.read(&mut engine);
        assert_eq!(log.seen(), 2 * one);
        assert_eq!(log.new_lines().unwrap(), b"");
        std::fs::write(&path, b"nonsense\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), b"nonsense\n", "a new file");
        assert_eq!(log.take(b"nonsense", &mut engine), None);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.jsonl");
        append(&path, &mute()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Log::new(path.clone(), 0).new_lines().is_err());
        assert!(append(&path, &mute()).is_err());
    }
}
