//! `keywatch run`: the live loop.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use monitor_core::engine::Impairment;
use monitor_core::time::EventTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::capture::{Capture, Health, Options, privilege};
use crate::cli::RunArgs;
use crate::commands::{self, Outputs};
use crate::config::{Config, LogLevel};
use crate::driver::Driver;
use crate::fault::{AlreadyTold, Misuse, tell};
use crate::notify::notify;
use crate::sinks::kafka::WhenFull;
use crate::sinks::{OnFailure, jsonl};

/// Watches until a signal, the end of `--duration`, or a failure.
pub(crate) fn run(args: &RunArgs, config: &Config, quiet: bool) -> Result<()> {
    let ports = commands::ports(&args.common.ports, config);
    if ports.is_empty() {
        bail!(Misuse(
            "no ports to watch: name them with --port, such as --port 8080, or under [capture] in \
             the config"
                .into()
        ));
    }
    // Before anything is made or read that is of no use without them.
    privilege::require()?;
    let mut driver = commands::driver(&args.common, config, &ports, &outputs(args, config))?;
    let options = options(args, config, &ports);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let _inside = runtime.enter();
    // Before attaching, so that no signal finds the programs attached and nobody listening.
    let stop = Stop::new(args.duration)?;
    let capture = Capture::start(&options)?;
    // Before the first thread of another library, which would keep the rights.
    privilege::drop_all_but_reading()?;
    commands::add_kafka(&mut driver, config, WhenFull::Drop)?;
    announce(&options, &capture);
    let watched = runtime.block_on(watch(capture, stop, &mut driver));
    // Also after a failure: what was captured is written.
    let all_written = driver.finish();
    notify("STOPPING=1");
    commands::summarise(&mut driver, args.common.summary, quiet);
    watched?;
    if all_written { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// Inputs between two looks at signals and timers: a few milliseconds of work.
const BATCH_MAX: usize = 1024;
/// Buffers are flushed and loss is looked for this often; a fifth of the second in which an alert
/// is to arrive.
const TICK: Duration = Duration::from_millis(200);

fn outputs(args: &RunArgs, config: &Config) -> Outputs {
    let set = &config.sinks.jsonl;
    let calls = args.common.calls.clone().or_else(|| set.calls.clone());
    let mut alerts = args.common.alerts.clone().or_else(|| set.alerts.clone());
    let connections = args.common.connections.clone();
    if [&calls, &alerts, &connections].iter().all(|file| file.is_none())
        && config.sinks.kafka.brokers.is_empty()
    {
        alerts = Some(PathBuf::from("-"));
    }
    let (opening, on_failure) = (jsonl::Opening::Append, OnFailure::Continue);
    Outputs { calls, alerts, connections, opening, on_failure }
}

fn options(args: &RunArgs, config: &Config, ports: &[u16]) -> Options {
    let set = &config.capture;
    let level = args.kernel_log.unwrap_or(set.kernel_log);
    let kernel_log = (level != LogLevel::Off).then(|| level.as_str().to_owned());
    Options {
        ports: ports.to_vec(),
        cgroup: args.cgroup.clone().or_else(|| set.cgroup.clone()),
        ring_bytes: set.ring_bytes,
        control_ring_bytes: set.control_ring_bytes,
        kernel_log,
        first_bytes: set.first_bytes,
    }
}

async fn watch(mut capture: Capture, mut stop: Stop, driver: &mut Driver) -> Result<()> {
    let mut seen = Health::default();
    let mut timer = interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            // In this order: a full ring must not keep signals waiting.
            biased;
            () = stop.asked() => break Ok(()),
            _ = timer.tick() => {
                look_after(&mut capture, &mut seen, driver);
                if driver.tick(now()).is_break() {
                    break Ok(());
                }
            }
            ready = capture.ready() => {
                if let Err(error) = ready {
                    break Err(error);
                }
                let mut flow = std::ops::ControlFlow::Continue(());
                capture.drain(BATCH_MAX, &mut |input| flow = driver.handle(input));
                if flow.is_break() {
                    break Ok(());
                }
                // Even when the ring never runs empty, others get their turn.
                tokio::task::yield_now().await;
            }
        }
    };
    end_at_second_signal();
    capture.detach();
    drain_rest(&mut capture, driver);
    look_after(&mut capture, &mut seen, driver);
    result
}

/// The line that scripts wait for.
fn announce(options: &Options, capture: &Capture) {
    let ports: Vec<String> = options.ports.iter().map(u16::to_string).collect();
    let plural = if ports.len() == 1 { "port" } else { "ports" };
    let cgroup = capture.cgroup();
    tell(&format!("watching {plural} {} (cgroup {})", ports.join(", "), cgroup.display()));
    notify("READY=1");
}

/// From here on a signal ends the program whatever it is doing. The spool is safe at any time.
fn end_at_second_signal() {
    let wait = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            Stop::new(None)?.asked().await;
            Ok(())
        })
    };
    std::thread::spawn(move || match wait() {
        Ok(()) => {
            tell("stopped at once: what was not written yet is lost");
            std::process::exit(1);
        }
        Err(error) => tracing::warn!("a second signal is not listened for: {error:#}"),
    });
}

/// What the rings still hold: no more than their size.
fn drain_rest(capture: &mut Capture, driver: &mut Driver) {
    let mut got = BATCH_MAX;
    while got > 0 {
        got = capture.drain(BATCH_MAX, &mut |input| {
            // Nobody reads the output any more: what is left goes nowhere.
            let _ = driver.handle(input);
        });
    }
}

/// Loss and detached programs are news for the Engine.
fn look_after(capture: &mut Capture, seen: &mut Health, driver: &mut Driver) {
    let health = capture.health();
    let bytes = health.lost_bytes.saturating_sub(seen.lost_bytes);
    let lost = |health: &Health| health.lost_events + health.lost_controls;
    let events = lost(&health).saturating_sub(lost(seen));
    if bytes > 0 || events > 0 {
        tracing::warn!(bytes, events, "capture lost data; a larger ring_bytes may help");
        driver.impairment(now(), &Impairment::Lost { bytes, events });
    }
    for program in &health.detached {
        if !seen.detached.contains(program) {
            tracing::error!(program, "a kernel program is no longer attached");
            driver.impairment(now(), &Impairment::Detached { program: program.clone() });
        }
    }
    driver.summary().capture = Some(health.clone());
    *seen = health;
}

/// Live, the wall clock is the event time of what has no packet.
fn now() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Reasons to end.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    deadline: Option<Instant>,
}

impl Stop {
    fn new(duration: Option<Duration>) -> Result<Stop> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            deadline: duration.and_then(|duration| Instant::now().checked_add(duration)),
        })
    }

    async fn asked(&mut self) {
        let over = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = over => {}
        }
    }
}
