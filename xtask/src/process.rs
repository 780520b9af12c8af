//! Children, files they write, and waiting for both: nothing started here outlives its handle.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::setup;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition outside this process is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a child may take to end after SIGTERM before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// A child process with its output in a file; ended by its pid when dropped.
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Proc {
    /// Starts `command` with standard output and error in `log`. The child gets a process group of
    /// its own, so that Ctrl-C reaches only us and we end it in order, and it is told to end should
    /// this process be killed.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Proc> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut tied = tied_to_us(command);
        tied.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = tied.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Proc { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a line of its output starts with `prefix`; fails when it ends first.
    pub fn wait_for_line(&mut self, prefix: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait()?;
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.starts_with(prefix)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended early ({status}):\n{}", self.name, last_lines(&output, 12));
            }
            if Instant::now() > deadline {
                bail!("{} did not say `{prefix}` in {patience:?}:\n{output}", self.name);
            }
            pause()?;
        }
    }

    /// Waits until something listens on `address`; fails when the child ends first.
    pub fn wait_for_listener(&mut self, address: SocketAddr, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while TcpStream::connect_timeout(&address, POLL_INTERVAL).is_err() {
            if let Some(status) = self.child.try_wait()? {
                let output = self.output();
                bail!("{} ended early ({status}):\n{}", self.name, last_lines(&output, 12));
            }
            ensure!(Instant::now() < deadline, "{} does not listen on {address}", self.name);
            pause()?;
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(STOP_WAIT)
    }

    /// Waits for the end; fails when it does not come in time.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} (pid {}) did not end in {patience:?}",
                self.name,
                self.child.id()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// SIGKILL, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let _ = self.signal(Signal::TERM);
        if self.wait(STOP_WAIT).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end and gives its standard output; fails with its error output.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = if stderr.trim().is_empty() { stdout.as_str() } else { &stderr };
        bail!("{name} failed ({}):\n{}", output.status, last_lines(said, 20));
    }
    Ok(stdout)
}

/// A loopback port that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// One below the range from which the kernel takes client ports (32768 and up unless it is told
/// otherwise), so that no client is ever taken for this server. Never the same one twice.
pub fn free_server_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 14_000;
    // Another process that does the same begins elsewhere.
    let begin = u16::try_from(std::process::id() % 1000)? * 14;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

/// Waits until `ready` says so; fails with `what` when it does not in time.
pub fn wait_until(
    what: &str,
    patience: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !ready()? {
        ensure!(Instant::now() < deadline, "{what}: not in {patience:?}");
        pause()?;
    }
    Ok(())
}

/// Sleeps until `deadline`; ends early with an error on Ctrl-C.
pub fn sleep_until(deadline: Instant) -> Result<()> {
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        check_interrupted()?;
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
    Ok(())
}

/// From now on Ctrl-C and SIGTERM make waiting end with an error, so that every handle is dropped
/// and every child ended.
pub fn catch_interrupts() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted()).context("catching signals")?;
    }
    Ok(())
}

/// Fails when Ctrl-C was pressed.
pub fn check_interrupted() -> Result<()> {
    ensure!(!interrupted().load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// The flag that Ctrl-C sets.
fn interrupted() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    Arc::clone(FLAG.get_or_init(Arc::default))
}

fn pause() -> Result<()> {
    check_interrupted()?;
    std::thread::sleep(POLL_INTERVAL);
    Ok(())
}

/// The same command under `setpriv --pdeathsig`, which replaces itself with it: the pid stays.
fn tied_to_us(command: &Command) -> Command {
    use std::os::unix::process::CommandExt;
    let mut tied = match setup::find("setpriv") {
        Some(setpriv) => {
            let mut tied = Command::new(setpriv);
            tied.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program());
            tied
        }
        None => Command::new(command.get_program()),
    };
    tied.args(command.get_args()).process_group(0);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        tied.current_dir(dir);
    }
    tied
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_waited_for_and_ends_with_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; exec sleep 1000"]);
        let mut child = Proc::spawn("sh", &command, &dir.path().join("log")).unwrap();
        child.wait_for_line("ready", Duration::from_secs(60)).unwrap();
        let proc_dir = PathBuf::from(format!("/proc/{}", child.pid()));
        assert!(proc_dir.exists());
        drop(child);
        assert!(!proc_dir.exists());
    }

    #[test]
    fn a_child_that_ends_early_is_reported_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck; exit 3"]);
        let mut child = Proc::spawn("sh", &command, &dir.path().join("log")).unwrap();
        let error = child.wait_for_line("ready", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("no such luck"), "{error}");
    }
}
