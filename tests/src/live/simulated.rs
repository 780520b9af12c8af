//! `keywatch simulate --against` a real nginx, with Keywatch on its port.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use xtask::process::{self, Proc};

use super::rig::Rig;
use crate::replay::keywatch;

const WAIT: Duration = Duration::from_secs(60);

fn against(url: &str, more: &[&str]) -> Result<Command> {
    let mut command = Command::new(keywatch()?);
    command.args([
        "simulate",
        "--keys",
        "20",
        "--days",
        "1",
        "--quiet-days",
        "0",
        "--against",
        url,
    ]);
    command.args(more);
    Ok(command)
}

/// What it says it made is what the server logged and what Keywatch saw, by key and client.
pub(crate) fn simulated_calls() -> Result<()> {
    let rig = Rig::start()?;
    let url = format!("http://{}", rig.server);
    let more = ["--speed", "20000", "--attacks", "path_scan,faulty_token"];
    let output = against(&url, &more)?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let server = rig.server.to_string();
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() > 1_000, "only {} calls", logged.len());
    ensure!(said.contains(&format!("keywatch: {} calls made: ", logged.len())), "{said}");
    ensure!(!said.contains("not answered"), "{said}");
    ensure!(calls.len() == logged.len(), "{} calls of {}", calls.len(), logged.len());
    let with_key = calls.iter().filter(|call| call.key.is_some()).count();
    ensure!(with_key * 2 > calls.len(), "{with_key} of {} with a key", calls.len());
    let hosts = calls.iter().filter_map(|call| call.request.as_ref()?.host.clone());
    for host in hosts {
        ensure!(host == server, "host {host}");
    }
    Ok(())
}

/// A server that is not there is named in one line; an interrupt ends it in good order.
pub(crate) fn simulation_refused_and_interrupted() -> Result<()> {
    let rig = Rig::without_agent()?;
    let nobody = format!("http://127.0.0.1:{}", process::free_server_port()?);
    let output = against(&nobody, &["--speed", "20000"])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
    ensure!(said.lines().count() == 1 && said.contains("no call is answered"), "{said}");
    ensure!(said.contains(&nobody), "{said}");

    let url = format!("http://{}", rig.server);
    let log = rig.dir().join("simulate.log");
    let mut running = Proc::spawn("keywatch simulate", &against(&url, &["--speed", "600"])?, &log)?;
    process::wait_until("calls come", WAIT, || Ok(rig.log()?.len() > 20))?;
    running.signal(Signal::INT)?;
    let status = running.wait(WAIT)?;
    let said = running.output();
    ensure!(status.success(), "{status:?}: {said}");
    let logged = rig.logged()?;
    ensure!(said.contains(&format!("keywatch: {} calls made: ", logged.len())), "{said}");
    Ok(())
}
