//! How Keywatch begins and ends: late, beside another, under load, without rights.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use monitor_core::call::{Anomalies, ApiCall};
use xtask::http::Connection;
use xtask::process;

use super::compare::{as_logged, same_calls};
use super::plain::owned_by;
use super::rig::{Rig, start_agent, stop_agent};
use crate::replay::{keywatch, run, scratch};

/// Two thousand calls take well under a second.
const LOAD_WAIT: Duration = Duration::from_secs(60);

/// A connection that is open and has been used before Keywatch starts: every call from then on.
pub(crate) fn opened_before_the_start() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let mut used = Connection::open(rig.server)?;
    used.call("GET", "/api/before", "", b"")?;
    let mut unused = Connection::open(rig.server)?;
    rig.start_agent(&[])?;
    for number in 0..20 {
        used.call("GET", &format!("/api/{number}"), "", b"")?;
        unused.call("POST", "/note", "", b"first on this connection")?;
    }
    drop((used, unused));
    let (calls, mut logged) = rig.finish()?;
    logged.retain(|line| line.target != "/api/before");
    ensure!(logged.len() == 40, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    let odd = calls.iter().find(|call| !Anomalies::MIDSTREAM.contains(call.anomalies));
    ensure!(odd.is_none(), "odd: {odd:?}");
    owned_by(&calls, "nginx")
}

/// SIGTERM while clients go on. Every call whose reply had reached its client before the signal is
/// there, whole; and nothing is there that nginx does not know of.
pub(crate) fn shutdown_under_load() -> Result<()> {
    let mut rig = Rig::start()?;
    let server = rig.server;
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (calls, answered, signalled) = std::thread::scope(|scope| {
        let (stop, answers) = (&stop, &answers);
        let clients: Vec<_> =
            (0..4).map(|number| scope.spawn(move || load(server, number, stop, answers))).collect();
        let going = process::wait_until("the load gets going", LOAD_WAIT, || {
            Ok(answers.load(Ordering::Relaxed) > 2000)
        });
        let signalled = Instant::now();
        let calls = rig.stop_agent();
        stop.store(true, Ordering::Release);
        let mut answered = Vec::new();
        for client in clients {
            match client.join() {
                Ok(done) => answered.extend(done?),
                Err(_) => bail!("a client panicked"),
            }
        }
        going?;
        Ok((calls?, answered, signalled))
    })?;
    // The kernel programs are detached one after the other: of the last request of each connection the
    // answer alone may be seen.
    let (calls, answers): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.request.is_some());
    ensure!(answers.len() <= 4, "{} answers without a request", answers.len());
    let seen: BTreeSet<String> = calls.iter().map(|call| as_logged(call).target).collect();
    let before: Vec<&String> =
        answered.iter().filter(|(at, _)| *at < signalled).map(|(_, target)| target).collect();
    let lost: Vec<_> = before.iter().filter(|target| !seen.contains(**target)).take(3).collect();
    ensure!(before.len() > 100, "only {} calls before the signal", before.len());
    ensure!(
        lost.is_empty(),
        "of {} calls before the signal these are lost: {lost:?}",
        before.len()
    );
    let known: BTreeSet<&String> = answered.iter().map(|(_, target)| target).collect();
    let invented = seen.iter().find(|target| !known.contains(target));
    ensure!(invented.is_none(), "not a call that was made: {invented:?}");
    Ok(())
}

/// Calls with a target of their own until told to stop; when each was answered.
fn load(
    server: SocketAddr,
    number: usize,
    stop: &AtomicBool,
    answers: &AtomicUsize,
) -> Result<Vec<(Instant, String)>> {
    let mut connection = Connection::open(server)?;
    let mut answered = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let target = format!("/api/{number}/{}", answered.len());
        connection.call("GET", &target, "", b"")?;
        answered.push((Instant::now(), target));
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(answered)
}

/// The secret changes while a connection goes on: keys have other ids from the next call on, and say
/// which they had.
pub(crate) fn secret_is_read_again() -> Result<()> {
    let mut rig = Rig::start()?;
    let file = rig.agent()?.calls_file();
    let mut connection = Connection::open(rig.server)?;
    let mut ask = |calls: usize| {
        connection.call("GET", "/ok", "X-API-Key: made-up\r\n", b"")?;
        process::wait_until("the call is written", LOAD_WAIT, || {
            Ok(fs::read_to_string(&file).unwrap_or_default().lines().count() >= calls)
        })
    };
    ask(1)?;
    let mut rotate = Command::new(keywatch()?);
    let said =
        run(rotate.args(["secret", "rotate", "--secret-file"]).arg(rig.dir().join("secret")))?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    ask(2)?;
    rig.agent()?.reload()?;
    process::wait_until("the secret is read again", LOAD_WAIT, || {
        Ok(rig.agent()?.output().contains("secret read again"))
    })?;
    ask(3)?;
    let calls = rig.stop_agent()?;
    let keys: Vec<_> = calls.iter().filter_map(|call| call.key.as_ref()).collect();
    let [first, second, third] = keys[..] else { bail!("{} keys", keys.len()) };
    ensure!(first == second && first.former().is_empty(), "{first:?} {second:?}");
    ensure!(third.id != first.id && third.former() == [first.id], "{third:?}");
    ensure!(calls[0].flow.id == calls[2].flow.id, "not one connection");
    Ok(())
}

/// As nobody: it ends at once and names what it lacks.
pub(crate) fn no_rights() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch()?;
    for name in ["", "keywatch.toml"] {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path().join(name), all)?;
    }
    // The build folder may be closed to others.
    let binary = dir.path().join("keywatch");
    std::fs::copy(keywatch()?, &binary)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&binary);
    command.args(["run", "--port", "8080"]).env("HOME", "/nonexistent");
    let output = run(&mut command)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    ensure!(matches!(code, Some(1 | 2)), "ended with {}: {stderr}", output.status);
    for capability in ["CAP_BPF", "CAP_NET_ADMIN"] {
        ensure!(stderr.to_uppercase().contains(capability), "{capability} is not named: {stderr}");
    }
    ensure!(!stderr.contains("panicked"), "a panic: {stderr}");
    Ok(())
}

/// Two agents on one port see the same and do not disturb each other.
pub(crate) fn two_agents_at_once() -> Result<()> {
    let rig = Rig::start()?;
    let dir = scratch()?;
    let second = start_agent(dir.path(), &[rig.server.port()], &[])?;
    let mut connection = Connection::open(rig.server)?;
    for number in 0..100 {
        connection.call("GET", &format!("/api/{number}"), "", b"")?;
    }
    let seen_by_second = stop_agent(second)?;
    connection.call("GET", "/ok", "", b"")?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 101, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    same_calls(&seen_by_second, &logged[..100])
}

/// SIGHUP reads the profiles again; wrong ones change nothing and are told in a line.
pub(crate) fn profiles_are_read_again() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let profiles = rig.dir().join("profiles");
    fs::create_dir(&profiles)?;
    let config = rig.dir().join("keywatch.toml");
    fs::write(&config, format!("[identity]\nprofiles = {:?}\n", profiles.display().to_string()))?;
    rig.start_agent(&[])?;
    let file = rig.agent()?.calls_file();
    // What was captured before the signal may be decoded after it.
    let ask = |calls: usize| {
        Connection::open(rig.server)?.call("GET", "/ok", "X-Desk-Key: made-up\r\n", b"")?;
        process::wait_until("the call is written", LOAD_WAIT, || {
            Ok(fs::read_to_string(&file).unwrap_or_default().lines().count() >= calls)
        })
    };
    let reload = |text: &str, line: &str| -> Result<()> {
        fs::write(profiles.join("desk.toml"), text)?;
        let agent = rig.agent()?;
        let before = agent.output().matches(line).count();
        agent.reload()?;
        process::wait_until("profiles are read again", LOAD_WAIT, || {
            Ok(agent.output().matches(line).count() > before)
        })
    };
    ask(1)?;
    let good = "name = \"desk\"\nkeys = [{ header = \"X-Desk-Key\" }]\n";
    reload(good, "profiles read again")?;
    ask(2)?;
    reload("name = \"desk\"\nkeys = [{}]\n", "desk.toml:2: wrong key: name one place")?;
    ask(3)?;
    let calls = rig.stop_agent()?;
    let profile = |call: &ApiCall| call.key.as_ref().map(|key| key.profile.to_string());
    let seen: Vec<Option<String>> = calls.iter().map(profile).collect();
    ensure!(seen == [None, Some("desk".into()), Some("desk".into())], "{seen:?}");
    Ok(())
}
