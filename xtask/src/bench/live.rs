//! `cargo xtask bench live`: nginx, a loader and Keywatch on one machine.

use anyhow::{Result, ensure};

use super::host::{Host, Serving, count, full_load, rate_of, steady_load};
use super::kernel::{Runs, Statistics, all_runs};
use super::usage::Usage;
use super::{median, range, table};
use crate::process;

/// How long and how hard.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds at the steady rate.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Calls a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Pairs of runs at saturation, without and with Keywatch.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Seconds of each run at saturation.
    #[arg(long, default_value_t = 5)]
    saturation_seconds: u32,
}

/// Runs both parts.
pub fn run(options: &Options) -> Result<()> {
    let host = Host::prepare()?;
    let mut rows = steady(&host, options)?;
    rows.extend(saturated(&host, options)?);
    table(&rows);
    Ok(())
}

type Row = (String, String, &'static str);

/// The steady rate: loss, processor time, memory.
fn steady(host: &Host, options: &Options) -> Result<Vec<Row>> {
    let (server, nginx) = host.nginx("steady", Serving { log: true, tls: false })?;
    let _statistics = Statistics::on()?;
    let others = all_runs()?;
    let agent = host.agent("steady", server, "")?;
    let before = Usage::of(agent.pid())?;
    println!("{} calls a second for {} s ...", options.rate, options.seconds);
    let at = format!("http://{server}");
    process::run(&mut steady_load(&at, options.rate, options.seconds, host.dir())?)?;
    let (mut runs, after) = (all_runs()?, Usage::of(agent.pid())?);
    // What was loaded with the agent is the agent's.
    runs.retain(|id, _| !others.contains_key(id));
    let status = agent.stop()?;
    ensure!(status.success(), "keywatch ended with {status}");
    let summary = host.summary("steady")?;
    let logged = nginx.stop()?.len() as u64;
    let seen = count(&summary, "/calls")?;
    let (lost_bytes, lost_events) =
        (count(&summary, "/lost/bytes")?, count(&summary, "/lost/events")?);
    let calls = logged.max(1) as f64;
    let user_us = (after.user_secs - before.user_secs) * 1e6 / calls;
    let system_us = (after.system_secs - before.system_secs) * 1e6 / calls;
    let mut rows: Vec<Row> = vec![
        ("calls a second asked for".into(), options.rate.to_string(), ""),
        ("calls in nginx's log".into(), logged.to_string(), ""),
        ("calls that Keywatch saw".into(), seen.to_string(), "the same"),
        ("bytes, events lost".into(), format!("{lost_bytes}, {lost_events}"), "0, 0"),
        ("incomplete calls".into(), count(&summary, "/incomplete")?.to_string(), "0"),
        ("agent user time, us a call".into(), format!("{user_us:.2}"), "at most 5"),
        ("agent system time, us a call".into(), format!("{system_us:.2}"), ""),
        (
            "resident memory at the end, most, MB".into(),
            format!("{:.0}, {:.0}", after.resident_mb, after.resident_mb_max),
            "100",
        ),
    ];
    let mut total = Runs::default();
    for (name, run) in runs.values().filter(|(_, run)| run.count > 0) {
        total.count += run.count;
        total.time_ns += run.time_ns;
        let each = run.time_ns as f64 / run.count as f64;
        rows.push((format!("  {name}, ns a run"), format!("{each:.0} x {}", run.count), ""));
    }
    // A call is two messages: what is asked and what is answered. With the loader on the same
    // host each of them passes both programs twice, once for either end's socket.
    let per_message = total.time_ns as f64 / (2.0 * calls);
    rows.push((
        "kernel time, ns a message, both ends".into(),
        format!("{per_message:.0}"),
        "at most 500",
    ));
    Ok(rows)
}

/// As fast as it goes, without and with Keywatch in turn.
fn saturated(host: &Host, options: &Options) -> Result<Vec<Row>> {
    let (server, nginx) = host.nginx("saturated", Serving { log: false, tls: false })?;
    let mut load = full_load(&format!("http://{server}"), options.saturation_seconds);
    let mut ratios = Vec::new();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        let alone = rate_of(&mut load)?;
        let agent = host.agent(&format!("saturated-{pair}"), server, "")?;
        let watched = rate_of(&mut load)?;
        agent.stop()?;
        println!("pair {}: {alone:.0} calls/s without, {watched:.0} with", pair + 1);
        ratios.push(watched / alone);
        without.push(alone);
        with.push(watched);
    }
    drop(nginx);
    let (least, most) = range(&ratios);
    let loss = (1.0 - median(&ratios)) * 100.0;
    Ok(vec![
        ("calls/s at saturation without, median".into(), format!("{:.0}", median(&without)), ""),
        ("calls/s at saturation with, median".into(), format!("{:.0}", median(&with)), ""),
        (
            "throughput lost, % (of the median ratio)".into(),
            format!("{loss:.1} (ratios {least:.3} to {most:.3})"),
            "at most 3",
        ),
    ])
}
