//! `keywatch run`: live capture, decoded and judged.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::baseline::{self, Baseline};
use crate::capture::{Capture, InsideTls, Options, Ports, privilege};
use crate::cli::{LiveArgs, RunArgs};
use crate::commands::{self, Outputs};
use crate::config::{Config, LogLevel, TlsCapture};
use crate::fault::{AlreadyTold, Misuse};
use crate::live::{self, Stop};
use crate::metrics;
use crate::notify::notify;
use crate::record;
use crate::secret::Count;
use crate::sinks::{OnFailure, WhenFull, jsonl};

/// Watches until a signal, the end of `--duration`, or a failure.
pub(crate) fn run(args: &RunArgs, config: &Config, quiet: bool) -> Result<()> {
    let ports = watched_ports(&args.common.ports, config)?;
    let servers = ports.all();
    // Before anything is made or read that is of no use without them.
    privilege::require()?;
    let mut driver = commands::driver(&args.common, config, &servers, &outputs(args, config))?;
    if let Some(path) = &args.record {
        driver.record(record::command::recorder(path, &args.recording, &servers)?);
    }
    let options = options(&args.live, config, ports);
    let runtime = runtime()?;
    let _inside = runtime.enter();
    // Before attaching, so that no signal finds the programs attached and nobody listening.
    let stop = Stop::new(args.live.duration)?;
    let capture = Capture::start(&options)?;
    // Before the first thread of another library, which would keep the rights.
    privilege::drop_all_but_reading()?;
    driver.check_rights()?;
    commands::add_sinks(&mut driver, config, WhenFull::Drop)?;
    if let Some(listen) = config.metrics.listen {
        driver.show_on(metrics::serve(listen)?);
    }
    driver.watch_policy();
    live::announce(&options, &capture);
    let watched = runtime.block_on(live::watch(capture, stop, &mut driver));
    // Also after a failure: what was captured is written.
    let all_written = driver.finish();
    notify("STOPPING=1");
    commands::summarise(&mut driver, args.common.summary, quiet);
    watched?;
    if all_written { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// The ports of the command line, else those of the config; there must be some.
pub(crate) fn watched_ports(args: &[u16], config: &Config) -> Result<Ports> {
    let ports = commands::watched(args, config);
    if ports.all().is_empty() {
        bail!(Misuse(
            "no ports to watch: name them with --port, such as --port 8080, or under [capture] in \
             the config"
                .into()
        ));
    }
    Ok(ports)
}

/// The one thread in which everything but sinks works.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn outputs(args: &RunArgs, config: &Config) -> Outputs {
    let set = &config.sinks.jsonl;
    let calls = args.common.calls.clone().or_else(|| set.calls.clone());
    let mut alerts = args.common.alerts.clone().or_else(|| set.alerts.clone());
    let connections = args.common.connections.clone();
    if [&calls, &alerts, &connections].iter().all(|file| file.is_none())
        && !commands::has_sinks(&config.sinks)
    {
        alerts = Some(PathBuf::from("-"));
    }
    let (opening, on_failure) = (jsonl::Opening::Append, OnFailure::Continue);
    let baseline = if config.baseline.keep {
        Baseline::Keep(baseline::path(args.baseline.as_deref(), config))
    } else {
        Baseline::None
    };
    let secrets = Count::Now;
    Outputs { calls, alerts, connections, baseline, opening, on_failure, secrets }
}

/// What to capture.
pub(crate) fn options(args: &LiveArgs, config: &Config, ports: Ports) -> Options {
    let set = &config.capture;
    let level = args.kernel_log.unwrap_or(set.kernel_log);
    let kernel_log = (level != LogLevel::Off).then(|| level.as_str().to_owned());
    Options {
        ports,
        cgroup: args.cgroup.clone().or_else(|| set.cgroup.clone()),
        ring_bytes: set.ring_bytes,
        control_ring_bytes: set.control_ring_bytes,
        kernel_log,
        first_bytes: set.first_bytes,
        tls: match set.tls {
            TlsCapture::Auto | TlsCapture::Calls => InsideTls::Libraries {
                secrets: set.tls == TlsCapture::Auto,
                call_bytes_max: set.tls_call_bytes_max,
            },
            TlsCapture::Keylog => InsideTls::KeyLogs(set.tls_keylogs.clone()),
            TlsCapture::Off => InsideTls::Off,
        },
    }
}
