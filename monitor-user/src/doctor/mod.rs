//! `keywatch doctor`: whether this host is ready, a line for each thing that matters.

mod host;
mod listeners;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::config::{Config, TlsCapture};
use crate::fault::AlreadyTold;
use crate::sinks::kafka;
use crate::{capture, commands, secret};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it stands.
    pub verdict: Verdict,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do; nothing when all is well.
    pub mend: Option<String>,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// `keywatch run` works, with less.
    Warn,
    /// `keywatch run` will not work.
    Fail,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Check {
        Check { verdict: Verdict::Ok, what, found: found.into(), mend: None }
    }

    fn warn(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Warn, what, found: found.into(), mend: Some(mend.into()) }
    }

    fn fail(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Fail, what, found: found.into(), mend: Some(mend.into()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict}  {}: {}", self.what, self.found)?;
        match &self.mend {
            Some(mend) => write!(f, " -> {mend}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything and prints it.
pub(crate) fn doctor(args: &DoctorArgs, config: &Config) -> Result<()> {
    let ports = commands::watched(&args.ports, config);
    let mut checks = host::checks(config.capture.cgroup.as_deref());
    checks.extend(kernel_programs());
    checks.extend(listeners::checks(&ports));
    checks.extend(match config.capture.tls {
        TlsCapture::Auto => listeners::inside_tls(&ports, true),
        TlsCapture::Calls => listeners::inside_tls(&ports, false),
        TlsCapture::Keylog => config.capture.tls_keylogs.iter().map(|path| keylog(path)).collect(),
        TlsCapture::Off => vec![Check::ok("TLS", "not looked into, as the config says".to_owned())],
    });
    checks.push(secret_file(config));
    checks.extend(broker(config));
    let mut text = String::new();
    for check in &checks {
        match args.json {
            true => text.push_str(&serde_json::to_string(check)?),
            false => text.push_str(&check.to_string()),
        }
        text.push('\n');
    }
    commands::print(text.as_bytes())?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if failed { Err(AlreadyTold.into()) } else { Ok(()) }
}

/// Whether the kernel takes the programs and their maps. Capture goes on without its tracepoints.
fn kernel_programs() -> Vec<Check> {
    let check = |(what, result): (String, Result<(), String>)| match result {
        Ok(()) => Check::ok("kernel programs", what),
        Err(reason) if what.starts_with("probes") => Check::warn(
            "kernel programs",
            format!("{what}: {reason}"),
            "capture goes on without a look inside TLS",
        ),
        Err(reason) if what.starts_with("tracepoint") => Check::warn(
            "kernel programs",
            format!("{what}: {reason}"),
            "capture goes on without the process or the end of a connection; kernel 6.3 has both",
        ),
        Err(reason) => Check::fail(
            "kernel programs",
            format!("{what}: {reason}"),
            "see the lines above; run as root to rule out missing rights",
        ),
    };
    capture::probe().into_iter().map(check).collect()
}

fn keylog(path: &Path) -> Check {
    let shown = path.display().to_string();
    match capture::probe_keylog(path) {
        Ok(()) => Check::ok("key log", shown),
        Err(error) => Check::warn(
            "key log",
            format!("{shown}: {error}"),
            "have the server make it, readable for the user that Keywatch runs as",
        ),
    }
}

fn secret_file(config: &Config) -> Check {
    let path = secret::path(None, config);
    let shown = path.display().to_string();
    if !path.exists() {
        return Check::ok("secret", format!("{shown} is made at the first run"));
    }
    match secret::read(&path) {
        Ok(_) => Check::ok("secret", shown),
        Err(error) => Check::fail("secret", format!("{error:#}"), "mend the file as it says"),
    }
}

/// A metadata request to a broker in reach takes milliseconds.
const KAFKA_WAIT_MAX: Duration = Duration::from_secs(3);

fn broker(config: &Config) -> Option<Check> {
    let set = &config.sinks.kafka;
    if set.brokers.is_empty() {
        return None;
    }
    Some(match kafka::reach(set, KAFKA_WAIT_MAX) {
        Ok(()) => Check::ok("kafka", set.brokers.join(",")),
        // The run goes on without it, and alerts wait in the spool.
        Err(error) => Check::warn("kafka", format!("{error:#}"), "alerts wait until it is there"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line() {
        assert_eq!(Check::ok("BTF", "there").to_string(), "ok    BTF: there");
        assert_eq!(
            Check::fail("BTF", "missing", "a kernel with BTF").to_string(),
            "fail  BTF: missing -> a kernel with BTF"
        );
    }
}
