//! Syslog over TLS and webhooks over HTTPS, received by Python.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::kafka::Secured;
use xtask::process::Proc;

use crate::replay::{common_args, keywatch, scratch};

/// A signing secret of thirty-two made-up bytes.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Far beyond what starting Python takes on a busy machine.
const START_WAIT: Duration = Duration::from_secs(30);

/// A file with the signing secret.
pub(super) fn signing_secret(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("signing-secret");
    fs::write(&path, SECRET)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// Every alert arrives at both, in CEF and in OCSF; a certificate that is not trusted is refused, and
/// the alerts are kept for the next run.
pub(crate) fn syslog_and_webhook() -> Result<()> {
    let dir = scratch()?;
    let secured = Secured::prepare(dir.path())?;
    let secret = signing_secret(dir.path())?;
    let (_syslog, syslog_port) = receiver(dir.path(), "syslog", &secured)?;
    let (_webhook, webhook_port) = receiver(dir.path(), "webhook", &secured)?;
    let config = |ca: &str, flush: &str| {
        format!(
            "[engine]\nhost = \"test\"\n[sinks.spool]\ndir = \"{dir}/spool\"\n\
             [sinks.syslog]\naddress = \"127.0.0.1:{syslog_port}\"\ntls = true\nca_file = \"{ca}\"\n\
             flush_max = \"{flush}\"\n\
             [sinks.webhook]\nurl = \"https://127.0.0.1:{webhook_port}/alerts\"\nca_file = \"{ca}\"\n\
             secret_file = \"{secret}\"\nflush_max = \"{flush}\"\n\
             [sinks.file]\npath = \"{dir}/ecs.jsonl\"\nformat = \"ecs\"\n",
            dir = dir.path().display(),
            secret = secret.display(),
        )
    };
    // First with an authority that did not sign their certificates.
    fs::write(dir.path().join("keywatch.toml"), config(&secured.file("other-ca.pem"), "3s"))?;
    let (alerts, said) = publish(dir.path())?;
    for sink in ["syslog at", "the webhook at https://"] {
        let line = said.lines().find(|line| line.starts_with(&format!("keywatch: {sink}")));
        let line = line.with_context(|| format!("nothing is said of {sink}: {said}"))?;
        ensure!(line.to_lowercase().contains("certificate"), "{line}");
    }
    ensure!(
        received(dir.path(), "syslog").is_empty() && received(dir.path(), "webhook").is_empty()
    );
    // Then with the right one: those of both runs arrive, in order.
    fs::write(dir.path().join("keywatch.toml"), config(&secured.file("ca.pem"), "60s"))?;
    let (again, said) = publish(dir.path())?;
    ensure!(!alerts.is_empty() && alerts == again, "{said}");
    let expected: Vec<String> = alerts.iter().chain(&again).cloned().collect();
    let webhook = received(dir.path(), "webhook");
    let ids: Vec<&str> = webhook.iter().filter_map(|line| line.split(' ').next()).collect();
    ensure!(ids == expected, "{ids:?} instead of {expected:?}: {said}");
    for line in &webhook {
        let body: Value = serde_json::from_str(line.split_once(' ').unwrap_or_default().1)?;
        ensure!(body["class_uid"] == 2004, "{body}");
    }
    let syslog = received(dir.path(), "syslog");
    ensure!(syslog.len() == expected.len(), "{syslog:?}");
    for (line, id) in syslog.iter().zip(&expected) {
        ensure!(line.starts_with('<') && line.contains("CEF:0|Keywatch|"), "{line}");
        ensure!(line.contains(&format!("externalId={id} ")), "{line}");
    }
    let ecs = fs::read_to_string(dir.path().join("ecs.jsonl"))?;
    ensure!(ecs.lines().count() == expected.len(), "{ecs}");
    Ok(())
}

pub(super) fn receiver(dir: &Path, kind: &str, secured: &Secured) -> Result<(Proc, u16)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/receivers.py");
    let mut command = Command::new("python3");
    command.arg("-u").arg(script).arg(kind);
    command.arg(secured.file("broker.pem")).arg(secured.file("broker.key"));
    command.arg(dir.join(format!("{kind}.txt"))).arg(SECRET);
    let mut receiver = Proc::spawn(kind, &command, &dir.join(format!("{kind}.log")))?;
    let port = receiver.wait_for_line("", START_WAIT)?;
    Ok((receiver, port.trim().parse().context("the receiver printed no port")?))
}

fn received(dir: &Path, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(format!("{kind}.txt"))).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Replays a capture with alerts in it: the ids of the alerts, and what was said.
fn publish(dir: &Path) -> Result<(Vec<String>, String)> {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/attack-stuffing/input.pcap");
    let file = dir.join("alerts.jsonl");
    let mut command = Command::new(keywatch()?);
    command.arg("replay").args(common_args(dir)).args(["--quiet", "--publish", "--port", "8080"]);
    let output = command.arg("--alerts").arg(&file).arg(case).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ended with {}: {said}", output.status);
    let mut ids = Vec::new();
    for line in fs::read_to_string(&file)?.lines() {
        let alert: Value = serde_json::from_str(line)?;
        ids.push(format!("{}.{}", alert["id"].as_str().unwrap_or_default(), alert["revision"]));
    }
    Ok((ids, said))
}
